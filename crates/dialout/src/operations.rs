//! Between the protocol's arguments and results and the runner's types.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::dialout::operation::{
    BashArgs, BashResult, GlobArgs, GlobResult, GrepArgs, GrepMatch, GrepResult, ListArgs, ListEntry,
    ListResult, McpCallArgs, McpCallResult, McpListArgs, McpListResult, McpServer, ReadArgs, ReadResult,
    SyncSkillArgs, SyncSkillResult, Truncation, WebfetchArgs, WebfetchResult, WriteArgs, WriteResult,
};
use legwork_proto::dialout::{McpCall, OutcomeWord, kind};
use legwork_runner::mcp::Server;
use legwork_runner::process::EndedBy;
use legwork_runner::{BashOutput, Command, Done, Failure, Fetch, Large, Operation, What};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// Of `webfetch`, in seconds.
const FETCH_TIMEOUT: u64 = 30;
const MAX_FETCH_TIMEOUT: u64 = 120;
/// Of a tool's answer, in seconds.
const CALL_TIMEOUT: u64 = 60;
const MAX_CALL_TIMEOUT: u64 = 600;

/// A decoded request.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Bash(Command),
    Other(Operation),
}

impl Work {
    /// Whether doing it twice would differ from doing it once.
    pub(crate) fn has_effects(&self) -> bool {
        match self {
            Self::Bash(_) => true,
            Self::Other(operation) => matches!(
                operation,
                Operation::Write { .. } | Operation::SyncSkill { .. } | Operation::McpCall { .. }
            ),
        }
    }
}

/// Decodes a request's arguments; the error is the task's.
pub(crate) fn decode(operation: &str, args: Option<&str>) -> Result<Work, String> {
    Ok(match operation {
        "bash" => {
            let args: BashArgs = parse(operation, args)?;
            let seconds = u64::try_from(args.timeout).unwrap_or(0);
            let timeout = if seconds == 0 { DEFAULT_TIMEOUT } else { Duration::from_secs(seconds) };
            Work::Bash(Command {
                what: What::Line(args.command),
                workdir: args.workdir,
                timeout: Some(timeout),
                ..Command::default()
            })
        }
        "read" => {
            let args: ReadArgs = parse(operation, args)?;
            Work::Other(Operation::Read {
                path: args.path,
                offset: u64::try_from(args.offset).unwrap_or(0),
                limit: u64::try_from(args.limit).unwrap_or(0),
            })
        }
        "write" => {
            let args: WriteArgs = parse(operation, args)?;
            let data = decode_base64(&args.content).map_err(|e| format!("failed to decode content: {e}"))?;
            Work::Other(Operation::Write { path: args.path, data })
        }
        "list" => {
            let args: ListArgs = parse(operation, args)?;
            Work::Other(Operation::List { path: args.path, recursive: args.recursive, ignore: args.ignore })
        }
        "glob" => {
            let args: GlobArgs = parse(operation, args)?;
            Work::Other(Operation::Glob { pattern: args.pattern })
        }
        "grep" => {
            let args: GrepArgs = parse(operation, args)?;
            Work::Other(Operation::Grep { pattern: args.pattern, include: args.include })
        }
        "webfetch" => {
            let args: WebfetchArgs = parse(operation, args)?;
            let format = if args.format.is_empty() { "markdown".into() } else { args.format };
            let timeout = Duration::from_secs(seconds(args.timeout, FETCH_TIMEOUT, MAX_FETCH_TIMEOUT));
            Work::Other(Operation::Fetch(Fetch { url: args.url, format, timeout }))
        }
        "mcp_call" => {
            let args: McpCallArgs = parse(operation, args)?;
            mcp_call(args.server, args.tool_name, args.args.as_deref(), args.timeout)?
        }
        kind::MCP_CALL => {
            let call: McpCall = serde_json::from_str(args.unwrap_or_default())
                .map_err(|e| format!("invalid {operation} payload: {e}"))?;
            mcp_call(call.server, call.tool_name, call.arguments.as_deref(), 0)?
        }
        "mcp_list_tools" => {
            let args: McpListArgs = parse(operation, args)?;
            Work::Other(Operation::McpList { server: Box::new(server(args.server)) })
        }
        "sync_skill" => {
            let args: SyncSkillArgs = parse(operation, args)?;
            let zip = decode_base64(&args.zip_data).map_err(|e| format!("failed to decode zip data: {e}"))?;
            Work::Other(Operation::SyncSkill { dir: args.skill_dir, zip, checksum: args.checksum })
        }
        _ => return Err(format!("unknown operation: {operation}")),
    })
}

/// A limit in seconds: the default where none is given, the most where it is more.
fn seconds(given: i64, default: u64, most: u64) -> u64 {
    match u64::try_from(given) {
        Ok(0) | Err(_) => default,
        Ok(given) => given.min(most),
    }
}

fn mcp_call(
    named: McpServer,
    tool: String,
    arguments: Option<&RawValue>,
    timeout: i64,
) -> Result<Work, String> {
    let arguments = match arguments.map(RawValue::get) {
        None | Some("null") => serde_json::Map::new(),
        Some(text) => {
            serde_json::from_str(text).map_err(|e| format!("failed to parse tool arguments: {e}"))?
        }
    };
    let timeout = Duration::from_secs(seconds(timeout, CALL_TIMEOUT, MAX_CALL_TIMEOUT));
    Ok(Work::Other(Operation::McpCall { server: Box::new(server(named)), tool, arguments, timeout }))
}

fn server(named: McpServer) -> Server {
    Server {
        name: named.name,
        transport: named.transport,
        command: named.command,
        args: named.args,
        env: named.env,
        url: named.url,
        headers: named.headers,
        dynamic_headers: named.dynamic_headers,
    }
}

fn parse<T: DeserializeOwned + Default>(operation: &str, args: Option<&str>) -> Result<T, String> {
    let cause = match args {
        None => "unexpected end of JSON input".to_owned(),
        Some("null") => return Ok(T::default()),
        Some(text) if text.starts_with('{') => match serde_json::from_str(text) {
            Ok(args) => return Ok(args),
            Err(e) => e.to_string(),
        },
        Some(_) => "the arguments must be an object".to_owned(),
    };
    Err(format!("invalid {operation} args: {cause}"))
}

/// Standard base64 with padding; line breaks are skipped, as in Go.
fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let result = if text.contains(['\n', '\r']) {
        STANDARD.decode(text.replace(['\n', '\r'], ""))
    } else {
        STANDARD.decode(text)
    };
    result.map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
        };
        format!("illegal base64 data at input byte {at}")
    })
}

/// A finished operation as its result object.
pub(crate) fn encode(done: Done) -> Box<RawValue> {
    match done {
        Done::Read(file) => {
            raw(&ReadResult { content: STANDARD.encode(&file.data), total_size: file.total_size })
        }
        Done::Write => raw(&WriteResult { success: true }),
        Done::List(entries) => raw(&ListResult {
            entries: entries
                .into_iter()
                .map(|e| ListEntry {
                    path: e.path.to_string_lossy().into_owned(),
                    is_dir: e.is_dir,
                    size: e.size,
                })
                .collect(),
        }),
        Done::Glob(paths) => {
            raw(&GlobResult { matches: paths.iter().map(|p| p.to_string_lossy().into_owned()).collect() })
        }
        Done::Grep { matches, text } => {
            let (content, truncation) = large(text);
            raw(&GrepResult {
                matches: matches
                    .into_iter()
                    .map(|m| GrepMatch {
                        path: format!("./{}", m.path.to_string_lossy()),
                        line_number: m.line_number,
                        content: m.content,
                    })
                    .collect(),
                content,
                truncation,
            })
        }
        Done::SyncSkill(path) => raw(&SyncSkillResult { success: true, path }),
        Done::Fetch { content, url } => {
            let (content, truncation) = large(content);
            raw(&WebfetchResult { content, url, truncation })
        }
        Done::McpCall { content, is_error } => {
            let (content, truncation) = large(content);
            raw(&McpCallResult { content, is_error, truncation })
        }
        Done::McpList(tools) => raw(&McpListResult { tools }),
    }
}

/// A finished shell line as its result object, and how it ended.
pub(crate) fn encode_bash(output: BashOutput) -> (Box<RawValue>, OutcomeWord) {
    let (stdout, truncation) = large(output.stdout);
    let (exit_code, outcome) = match output.ended_by {
        Some(EndedBy::Timeout) => (124, OutcomeWord::TimedOut),
        Some(EndedBy::Cancel) => (-1, OutcomeWord::Cancelled),
        None => (output.exit_code.unwrap_or(-1), OutcomeWord::Exited),
    };
    (raw(&BashResult { stdout, stderr: output.stderr, exit_code, truncation }), outcome)
}

/// The result of a shell line that was cancelled before it started.
pub(crate) fn cancelled_bash() -> (Box<RawValue>, OutcomeWord) {
    let truncation = Truncation::default();
    let result = BashResult { stdout: String::new(), stderr: String::new(), exit_code: -1, truncation };
    (raw(&result), OutcomeWord::Cancelled)
}

/// A failure in the extension's word for it.
pub(crate) fn outcome_of(failure: &Failure) -> OutcomeWord {
    match failure {
        Failure::Denied(_) => OutcomeWord::Denied,
        Failure::Failed(_) => OutcomeWord::Failed,
        Failure::Lost(_) => OutcomeWord::Lost,
    }
}

/// What could have been asked for instead.
pub(crate) fn suggestion_of(failure: &Failure) -> Option<String> {
    match failure {
        Failure::Denied(denial) => denial.suggestion.clone(),
        Failure::Failed(_) | Failure::Lost(_) => None,
    }
}

fn large(text: Large) -> (String, Truncation) {
    let truncation =
        Truncation { truncated: text.truncated, file_path: text.file_path, total_size: text.total_size };
    (text.text, truncation)
}

fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    // Plain structs of strings and numbers always serialise.
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_fail_with_the_protocols_words() {
        for (operation, args, want) in [
            ("bash", None, "invalid bash args: unexpected end of JSON input"),
            ("defragment", Some("{}"), "unknown operation: defragment"),
            (
                "write",
                Some(r#"{"path":"x","content":"%%%"}"#),
                "failed to decode content: illegal base64 data at input byte 0",
            ),
            (
                "write",
                Some(r#"{"path":"x","content":"YWJj!"}"#),
                "failed to decode content: illegal base64 data at input byte 4",
            ),
            ("list", Some("[]"), "invalid list args: the arguments must be an object"),
        ] {
            assert_eq!(decode(operation, args).expect_err(operation), want);
        }
        assert!(
            decode("read", Some(r#"{"path":7}"#))
                .expect_err("type")
                .starts_with("invalid read args: invalid type")
        );
        assert!(
            matches!(decode("bash", Some("null")), Ok(Work::Bash(b)) if b.timeout == Some(DEFAULT_TIMEOUT))
        );
        assert!(matches!(
            decode("read", Some(r#"{"path":"a","offset":-5,"limit":-1,"new":null}"#)),
            Ok(Work::Other(Operation::Read { offset: 0, limit: 0, .. }))
        ));
    }
}
