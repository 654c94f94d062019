//! The page at `/`, embedded in the binary.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use legwork_http::pages;

use super::reply;

/// Where the page has a place for this answer's nonce.
const NONCE: &str = "__NONCE__";

/// Nothing from any other host, no inline script. The terminal makes style sheets as it
/// runs, which the nonce lets it.
fn policy(nonce: &str, frames: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; font-src 'self'; \
         img-src 'self' data:; connect-src 'self'; frame-src 'self' {frames}; \
         manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// `frames`: what it may have in frames beside what is served here.
pub(crate) fn page(frames: &str) -> Response {
    let Some(html) = pages::page("workspace.html") else { return reply::not_found() };
    let nonce = legwork_base::ids::secret();
    let html = html.replace(NONCE, &nonce);
    let mut response = reply::text(StatusCode::OK, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy(&nonce, frames)) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// `/assets/…` and `/workspace/…`: what the page loads.
pub(crate) fn asset(path: &str, asked: &HeaderMap) -> Response {
    pages::asset(path, asked).unwrap_or_else(reply::not_found)
}

/// What browsers look for beside the page: what makes it an application that can be installed.
pub(crate) fn beside(path: &str) -> Option<Response> {
    match path {
        "/workspace.webmanifest" | "/workspace-192.png" | "/workspace-512.png" => pages::beside(&path[1..]),
        _ => None,
    }
}
