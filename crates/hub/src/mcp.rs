//! The hub as an MCP server, by streamable HTTP at `/mcp`: the newest revision, which has no sessions, and the two
//! before it, whose sessions are optional and left out. Who may do what is the token's role, as everywhere.

mod act;
mod confirm;
mod text;
mod tools;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use legwork_api::Role;
use serde_json::{Map, Value, json};

use crate::api::{Caller, body_of};
use crate::engine::Hub;
use act::Call;

/// Revisions of the protocol, newest first. The first has no sessions and no handshake.
const VERSIONS: &[&str] = &[NEWEST, "2025-11-25", "2025-06-18"];
const NEWEST: &str = "2026-07-28";
const PREFIX: &str = "io.modelcontextprotocol";
/// A file to write, in base64 within JSON.
const MAX_BODY: usize = 8 << 20;
/// How often a caller that wants to know hears how far a call is.
const PROGRESS: Duration = Duration::from_secs(1);

const PARSE: i64 = -32700;
const INVALID: i64 = -32600;
const NO_METHOD: i64 = -32601;
const PARAMS: i64 = -32602;
const HEADERS: i64 = -32020;
const VERSION: i64 = -32022;

const INSTRUCTIONS: &str = "Machines that dial out to this hub. Find them with list_machines; look with read_file, list_files, \
    find_files, search_files and run. Each machine has rules of its own: a command that they refuse comes back as an error with the \
    rule and, where one is known, a line to write instead. A command that its rules ask about is held until a person says yes: \
    task_status tells when, and you may go on with other work meanwhile. Long commands answer with a task: poll it with task_status, \
    read on with task_output, end it with cancel_task.";

/// An error of the protocol, with the status that it has over HTTP.
struct Failed {
    status: StatusCode,
    code: i64,
    message: String,
    data: Option<Value>,
}

impl Failed {
    fn new(status: StatusCode, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: None }
    }

    fn params(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, PARAMS, message)
    }

    fn answer(self, id: &Value) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = self.data {
            error["data"] = data;
        }
        (self.status, Json(json!({ "jsonrpc": "2.0", "id": id, "error": error }))).into_response()
    }
}

/// `POST /mcp`.
pub(crate) async fn post(State(hub): State<Arc<Hub>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    if !is_own_origin(&parts.headers) {
        let text = "this Origin may not ask here";
        return Failed::new(StatusCode::FORBIDDEN, INVALID, text).answer(&Value::Null);
    }
    let caller = match Caller::of(&parts) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if let Err(problem) = caller.needs(Role::Viewer) {
        return problem.into_response();
    }
    let headers = parts.headers.clone();
    let (bytes, _room) = match body_of(&hub, Request::from_parts(parts, body), MAX_BODY).await {
        Ok(read) => read,
        Err(problem) => return problem.into_response(),
    };
    let message: Value = match serde_json::from_slice(&bytes) {
        Ok(message) => message,
        Err(error) => {
            return Failed::new(StatusCode::BAD_REQUEST, PARSE, format!("this is no JSON: {error}"))
                .answer(&Value::Null);
        }
    };
    let Some(method) = message["method"].as_str().filter(|_| message["jsonrpc"] == "2.0") else {
        // A response: nothing is ever asked of clients in that way.
        let text = "one JSON-RPC request or notification is expected";
        return Failed::new(StatusCode::BAD_REQUEST, INVALID, text).answer(&Value::Null);
    };
    let Some(id) = message.get("id").filter(|id| id.is_string() || id.is_number()).cloned() else {
        return StatusCode::ACCEPTED.into_response();
    };
    let none = Map::new();
    let params = message["params"].as_object().unwrap_or(&none);
    match check(&headers, method, params) {
        Ok(era) => answer(hub, caller, era, (method, &id, params)).await,
        Err(failed) => failed.answer(&id),
    }
}

/// A page of another origin may not ask, whatever token it has.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    match (headers.contains_key(header::ORIGIN), text(header::ORIGIN), text(header::HOST)) {
        (false, ..) => true,
        (true, Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        _ => false,
    }
}

/// Whether a client is of the newest revision, and what it can.
#[derive(Debug, Clone, Copy)]
struct Era {
    newest: bool,
    elicits: bool,
}

/// Holds the headers against the body, as the revision that they name wants it.
fn check(headers: &HeaderMap, method: &str, params: &Map<String, Value>) -> Result<Era, Failed> {
    let meta = params.get("_meta").cloned().unwrap_or_default();
    let said = meta[format!("{PREFIX}/protocolVersion")].as_str();
    let header = headers.get("mcp-protocol-version").map(|value| value.to_str().unwrap_or_default());
    let version = said.or(header);
    if let Some(version) = version.filter(|version| !VERSIONS.contains(version) && *version != "2025-03-26") {
        let mut failed = Failed::new(StatusCode::BAD_REQUEST, VERSION, "Unsupported protocol version");
        failed.data = Some(json!({ "supported": VERSIONS, "requested": version }));
        return Err(failed);
    }
    if version != Some(NEWEST) {
        return Ok(Era { newest: false, elicits: false });
    }
    let mismatch =
        |what: &str| Failed::new(StatusCode::BAD_REQUEST, HEADERS, format!("Header mismatch: {what}"));
    if header != said {
        return Err(mismatch("MCP-Protocol-Version is not what _meta says"));
    }
    if plain(headers, "mcp-method").as_deref() != Some(method) {
        return Err(mismatch("Mcp-Method is not the body's method"));
    }
    if method == "tools/call"
        && plain(headers, "mcp-name").as_deref() != params.get("name").and_then(Value::as_str)
    {
        return Err(mismatch("Mcp-Name is not the body's name"));
    }
    let elicits = meta[format!("{PREFIX}/clientCapabilities")]["elicitation"].is_object();
    Ok(Era { newest: true, elicits })
}

/// A header's value, decoded where it had to be encoded.
fn plain(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

async fn answer(
    hub: Arc<Hub>,
    caller: Caller,
    era: Era,
    (method, id, params): (&str, &Value, &Map<String, Value>),
) -> Response {
    let result = match method {
        "initialize" if !era.newest => initialize(params),
        "ping" if !era.newest => json!({}),
        "server/discover" => discover(),
        "tools/list" => {
            let mut list = json!({ "tools": tools::of(caller.0.role) });
            if era.newest {
                list["ttlMs"] = 60_000.into();
                list["cacheScope"] = "private".into();
            }
            list
        }
        "tools/call" => {
            let call = match Call::new(hub, caller, era.elicits, params) {
                Ok(call) => call,
                Err(failed) => return failed.answer(id),
            };
            let token = params.get("_meta").and_then(|meta| meta.get("progressToken")).cloned();
            return called(call, token, era, id.clone()).await;
        }
        _ => {
            let status = if era.newest { StatusCode::NOT_FOUND } else { StatusCode::OK };
            return Failed::new(status, NO_METHOD, format!("Method not found: {method}")).answer(id);
        }
    };
    Json(whole(era, id, result)).into_response()
}

/// A response, with what the newest revision wants in each.
fn whole(era: Era, id: &Value, mut result: Value) -> Value {
    if era.newest || result.get("supportedVersions").is_some() {
        if result.get("resultType").is_none() {
            result["resultType"] = "complete".into();
        }
        result["_meta"][format!("{PREFIX}/serverInfo")] = server();
    }
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn server() -> Value {
    json!({ "name": "legwork", "title": "Legwork hub", "version": env!("CARGO_PKG_VERSION") })
}

fn initialize(params: &Map<String, Value>) -> Value {
    let wanted = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    let version = VERSIONS[1..].iter().find(|version| **version == wanted).unwrap_or(&VERSIONS[1]);
    json!({
        "protocolVersion": version, "capabilities": { "tools": {} }, "serverInfo": server(), "instructions": INSTRUCTIONS,
    })
}

fn discover() -> Value {
    json!({
        "supportedVersions": VERSIONS, "capabilities": { "tools": {} }, "instructions": INSTRUCTIONS,
        "ttlMs": 3_600_000, "cacheScope": "public",
    })
}

type Calling = Pin<Box<dyn Future<Output = Value> + Send>>;

/// Carries a call out. Who gave a token for that hears of its progress on the way; who goes away ends it.
async fn called(call: Call, token: Option<Value>, era: Era, id: Value) -> Response {
    let Some(token) = token.filter(|_| call.is_long()) else {
        return Json(whole(era, &id, call.act().await)).into_response();
    };
    struct Streaming {
        calling: Calling,
        token: Value,
        era: Era,
        id: Value,
        seconds: u64,
        watched: act::Watched,
        over: bool,
    }
    let watched = call.watched();
    let first = Streaming { calling: Box::pin(call.act()), token, era, id, seconds: 0, watched, over: false };
    let events = stream::unfold(first, |mut s| async move {
        if s.over {
            return None;
        }
        let message = tokio::select! {
            result = &mut s.calling => {
                s.over = true;
                whole(s.era, &s.id, result)
            }
            () = tokio::time::sleep(PROGRESS) => {
                s.seconds += PROGRESS.as_secs();
                json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {
                    "progressToken": s.token, "progress": s.seconds, "message": s.watched.words(),
                } })
            }
        };
        let event = Event::default().event("message").data(message.to_string());
        Some((Ok::<_, Infallible>(event), s))
    });
    let mut response = Sse::new(events).into_response();
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| (name.parse().expect("name"), HeaderValue::from_static(value)))
            .collect()
    }

    fn params(json: Value) -> Map<String, Value> {
        json.as_object().cloned().expect("object")
    }

    #[test]
    fn headers_say_what_the_body_says() {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": NEWEST });
        let call = params(json!({ "name": "run", "_meta": meta }));
        let version = ("mcp-protocol-version", NEWEST);
        let code = |headers: &[(&'static str, &'static str)], params| {
            check(&super::tests::headers(headers), "tools/call", params).err().map(|failed| failed.code)
        };
        let (method, name, none) = (("mcp-method", "tools/call"), ("mcp-name", "run"), Map::new());
        assert_eq!(code(&[version, method, name], &call), None);
        assert_eq!(code(&[version, method, ("mcp-name", "=?base64?cnVu?=")], &call), None);
        assert_eq!(code(&[method, name], &call), Some(HEADERS));
        assert_eq!(code(&[version, name], &call), Some(HEADERS));
        assert_eq!(code(&[version, method, ("mcp-name", "read_file")], &call), Some(HEADERS));
        assert_eq!(code(&[version, ("mcp-method", "tools/list"), name], &call), Some(HEADERS));
        assert_eq!(code(&[("mcp-protocol-version", "2031-01-01")], &none), Some(VERSION));
        for older in ["2025-11-25", "2025-06-18", "2025-03-26"] {
            assert_eq!(code(&[("mcp-protocol-version", older)], &none), None, "{older}");
        }
    }

    #[test]
    fn pages_of_elsewhere_may_not_ask() {
        for (origin, host, may) in [
            (None, "hub:1", true),
            (Some("http://hub:1"), "hub:1", true),
            (Some("http://evil"), "hub:1", false),
            (Some("null"), "hub:1", false),
        ] {
            let mut said = headers(&[]);
            said.insert(header::HOST, HeaderValue::from_static(host));
            if let Some(origin) = origin {
                said.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(is_own_origin(&said), may, "{origin:?}");
        }
    }
}
