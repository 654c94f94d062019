//! Answers to requests that are no part of a session, or end one.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

/// A text that nobody may keep or take for something else.
pub fn text(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An error in words.
pub fn error(status: StatusCode, error: &str) -> Response {
    text(status, "application/json", json!({ "error": error }).to_string())
}

/// Why a request is refused, in the library's words.
#[derive(Debug, Clone, Copy)]
pub enum Refusal {
    /// By a transport that there is not.
    UnknownTransport,
    /// Of a session that there is not.
    UnknownSession,
    /// A session begins with GET.
    BadHandshakeMethod,
    /// In some other way.
    BadRequest,
    /// A page of another origin may not.
    Forbidden,
    /// By another version of the protocol.
    UnsupportedVersion,
}

impl Refusal {
    /// The answer that says so.
    pub fn response(self) -> Response {
        let (code, message) = match self {
            Self::UnknownTransport => (0, "Transport unknown"),
            Self::UnknownSession => (1, "Session ID unknown"),
            Self::BadHandshakeMethod => (2, "Bad handshake method"),
            Self::BadRequest => (3, "Bad request"),
            Self::Forbidden => (4, "Forbidden"),
            Self::UnsupportedVersion => (5, "Unsupported protocol version"),
        };
        let status =
            if matches!(self, Self::Forbidden) { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
        text(status, "application/json", json!({ "code": code, "message": message }).to_string())
    }
}
