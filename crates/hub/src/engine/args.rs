//! The arguments of each operation, checked before any runner sees them.

use legwork_api::NewTask;
use legwork_proto::dialout::operation::{
    BashArgs, GlobArgs, GrepArgs, ListArgs, McpCallArgs, McpListArgs, McpServer, ReadArgs, SyncSkillArgs,
    WebfetchArgs, WriteArgs,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::submit::{SubmitError, invalid};

const DEFAULT_TIMEOUT_S: i64 = 120;
const MAX_TIMEOUT_S: i64 = 7 * 86_400;

/// Checks the arguments for the operation; returns them as they are sent, and the
/// time limit.
pub(super) fn check_args(new: &NewTask) -> Result<(String, i64), SubmitError> {
    let mut args = new.args.clone().unwrap_or_default();
    let timeout_s = bounded("timeout_s", new.timeout_s, DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S)?;
    match new.operation.as_str() {
        "bash" => {
            let typed: BashArgs = typed(&args, &["command", "workdir", "timeout"])?;
            if typed.command.trim().is_empty() {
                return Err(invalid("args.command", "is empty"));
            }
            if typed.command.contains('\0') {
                return Err(invalid("args.command", "holds a NUL, which no command line can"));
            }
            let timeout_s = match (args.get("timeout"), new.timeout_s) {
                (Some(_), Some(outer)) if outer != typed.timeout => {
                    return Err(invalid("timeout_s", "differs from args.timeout; give one of them"));
                }
                (Some(_), _) => bounded("args.timeout", Some(typed.timeout), 0, MAX_TIMEOUT_S)?,
                (None, _) => timeout_s,
            };
            args.insert("timeout".into(), timeout_s.into());
            return Ok((Value::Object(args).to_string(), timeout_s));
        }
        "read" => {
            let typed: ReadArgs = typed(&args, &["path", "offset", "limit"])?;
            not_empty("args.path", &typed.path)?;
            if typed.offset < 0 {
                return Err(invalid("args.offset", "must not be negative"));
            }
            if typed.limit < 0 {
                return Err(invalid("args.limit", "must not be negative"));
            }
        }
        "write" => {
            use base64::Engine;
            let typed: WriteArgs = typed(&args, &["path", "content"])?;
            not_empty("args.path", &typed.path)?;
            base64::engine::general_purpose::STANDARD
                .decode(&typed.content)
                .map_err(|e| invalid("args.content", format!("is not standard base64: {e}")))?;
        }
        "list" => {
            typed::<ListArgs>(&args, &["path", "recursive", "ignore"])?;
        }
        "glob" => not_empty("args.pattern", &typed::<GlobArgs>(&args, &["pattern"])?.pattern)?,
        "grep" => not_empty("args.pattern", &typed::<GrepArgs>(&args, &["pattern", "include"])?.pattern)?,
        "webfetch" => {
            let typed: WebfetchArgs = typed(&args, &["url", "format", "timeout"])?;
            if !typed.url.starts_with("http://") && !typed.url.starts_with("https://") {
                return Err(invalid("args.url", "must start with http:// or https://"));
            }
        }
        "mcp_call" => {
            let typed: McpCallArgs = typed(&args, &["server", "tool_name", "args", "timeout"])?;
            check_server(&typed.server)?;
            not_empty("args.tool_name", &typed.tool_name)?;
            if args.get("args").is_some_and(|a| !a.is_object() && !a.is_null()) {
                return Err(invalid("args.args", "must be an object"));
            }
        }
        "mcp_list_tools" => check_server(&typed::<McpListArgs>(&args, &["server"])?.server)?,
        "sync_skill" => {
            use base64::Engine;
            let typed: SyncSkillArgs = typed(&args, &["skill_name", "skill_dir", "zip_data", "checksum"])?;
            not_empty("args.skill_dir", &typed.skill_dir)?;
            base64::engine::general_purpose::STANDARD
                .decode(&typed.zip_data)
                .map_err(|e| invalid("args.zip_data", format!("is not standard base64: {e}")))?;
        }
        other => {
            let known = "bash, read, write, list, glob, grep, webfetch, mcp_call, mcp_list_tools, sync_skill";
            return Err(invalid("operation", format!("'{other}' is unknown; there are {known}")));
        }
    }
    Ok((Value::Object(args).to_string(), timeout_s))
}

fn not_empty(field: &'static str, text: &str) -> Result<(), SubmitError> {
    if text.is_empty() { Err(invalid(field, "is empty")) } else { Ok(()) }
}

fn typed<T: DeserializeOwned>(args: &Map<String, Value>, known: &[&str]) -> Result<T, SubmitError> {
    if let Some(unknown) = args.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(invalid("args", format!("'{unknown}' is unknown; there are {}", known.join(", "))));
    }
    serde_json::from_value(Value::Object(args.clone())).map_err(|e| invalid("args", e.to_string()))
}

pub(super) fn bounded(
    field: &'static str,
    given: Option<i64>,
    default: i64,
    max: i64,
) -> Result<i64, SubmitError> {
    match given.unwrap_or(default) {
        n if n < 1 => Err(invalid(field, "must be at least 1")),
        n if n > max => Err(invalid(field, format!("must be at most {max}"))),
        n => Ok(n),
    }
}

fn check_server(server: &McpServer) -> Result<(), SubmitError> {
    not_empty("args.server.name", &server.name)?;
    match server.transport.as_str() {
        "stdio" => not_empty("args.server.command", &server.command),
        "sse" | "http" | "streamable-http" => not_empty("args.server.url", &server.url),
        other => Err(invalid(
            "args.server.transport",
            format!("'{other}' is unknown; there are stdio, sse, http, streamable-http"),
        )),
    }
}

/// Arguments for a list: long texts are cut, as the whole is at the task's own address.
pub(super) fn brief(operation: &str, args: &str) -> String {
    const MOST: usize = 512;
    const ALL: usize = 16 * 1024;
    fn cut(value: &mut Value) {
        match value {
            Value::String(text) if text.len() > MOST => {
                text.truncate(text.floor_char_boundary(MOST));
                text.push('…');
            }
            Value::Array(items) => {
                items.truncate(MOST);
                items.iter_mut().for_each(cut);
            }
            Value::Object(fields) => fields.values_mut().for_each(cut),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str::<Value>(&shown(operation, args.to_owned())) else {
        return "{}".into();
    };
    cut(&mut value);
    let text = value.to_string();
    if text.len() <= ALL { text } else { "{}".into() }
}

/// Arguments as they may be shown: what a server is given may hold secrets.
pub(crate) fn shown(operation: &str, args: String) -> String {
    if !matches!(operation, "mcp_call" | "mcp_list_tools") {
        return args;
    }
    let Ok(mut value) = serde_json::from_str::<Value>(&args) else { return args };
    for key in ["env", "headers", "dynamic_headers"] {
        if let Some(secrets) = value.pointer_mut(&format!("/server/{key}")).and_then(Value::as_object_mut) {
            secrets.values_mut().for_each(|secret| *secret = Value::from("[redacted]"));
        }
    }
    value.to_string()
}
