//! The page at `/`, embedded in the binary.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use rust_embed::Embed;

use super::reply;

#[derive(Embed)]
#[folder = "../../web/dist"]
#[include = "workspace.html"]
#[include = "assets/*"]
struct Assets;

/// Where the page has a place for this answer's nonce.
const NONCE: &str = "__NONCE__";

/// Nothing from any other host, no inline script. The terminal makes style sheets as it
/// runs, which the nonce lets it.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; font-src 'self'; \
         img-src 'self' data:; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

pub(crate) fn page() -> Response {
    let Some(file) = Assets::get("workspace.html") else { return reply::not_found() };
    let nonce = crate::ids::random();
    let html = String::from_utf8_lossy(&file.data).replace(NONCE, &nonce);
    let mut response = reply::text(StatusCode::OK, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy(&nonce)) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// `/assets/…`
pub(crate) fn asset(path: &str) -> Response {
    let Some(file) = Assets::get(path) else { return reply::not_found() };
    let kind = match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let mut response = Response::new(Body::from(file.data));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Names carry a hash of the content.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}
