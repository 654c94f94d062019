//! Answers.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use legwork_socketio::Standing;
pub(crate) use legwork_socketio::reply::{error, text};
use serde::Serialize;
use serde_json::json;

use crate::access::Rights;
use crate::paths::Trouble;

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    text(status, "application/json", serde_json::to_string(body).unwrap_or_default())
}

pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

pub(crate) fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "not found")
}

/// A failed request about a file, by the protocol's code.
pub(crate) fn trouble(trouble: &Trouble) -> Response {
    let status = match trouble.code {
        "bad_request" => StatusCode::BAD_REQUEST,
        "outside_workspace" | "permission_denied" | "read_only" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "conflict" | "exists" | "is_directory" | "not_a_directory" | "not_a_file" => StatusCode::CONFLICT,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "no_space" => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    json(status, &json!({ "error": trouble.text, "code": trouble.code }))
}

/// The answer to who may only look, and wants more.
pub(crate) fn looks_only() -> Response {
    error(StatusCode::FORBIDDEN, "this token may look, and change nothing")
}

/// Whose request it is may be here: its connection gives way to others last.
pub(crate) fn stands(request: &Request<Body>, rights: Rights) {
    if let Some(standing) = request.extensions().get::<Standing>() {
        standing.raise(rights.trust());
    }
}
