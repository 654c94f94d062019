//! Answers.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

pub(crate) fn text(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    text(status, "application/json", serde_json::to_string(body).unwrap_or_default())
}

pub(crate) fn error(status: StatusCode, error: &str) -> Response {
    json(status, &json!({ "error": error }))
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
pub(crate) fn trouble(trouble: &crate::paths::Trouble) -> Response {
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
