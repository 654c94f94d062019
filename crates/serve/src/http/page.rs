//! The page at `/`, embedded in the binary.

use std::io::Read;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use rust_embed::Embed;

use super::reply;

#[derive(Embed)]
#[folder = "../../web/dist"]
#[include = "workspace.html"]
#[include = "assets/*.gz"]
#[include = "workspace/*.gz"]
#[include = "workspace.webmanifest"]
#[include = "workspace-*.png"]
struct Assets;

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
    let Some(file) = Assets::get("workspace.html") else { return reply::not_found() };
    let nonce = crate::ids::random();
    let html = String::from_utf8_lossy(&file.data).replace(NONCE, &nonce);
    let mut response = reply::text(StatusCode::OK, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy(&nonce, frames)) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// `/assets/…` and `/workspace/…`: kept compressed, as nearly everybody takes it.
pub(crate) fn asset(path: &str, asked: &HeaderMap) -> Response {
    let Some(file) = Assets::get(&format!("{path}.gz")) else { return reply::not_found() };
    let takes = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    let gzip = takes.flat_map(|v| v.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        parts.next() == Some("gzip")
            && parts.all(|weight| !weight.trim_start_matches("q=0").trim_matches(['.', '0']).is_empty())
    });
    let mut plain = Vec::new();
    let body = if gzip {
        Body::from(file.data)
    } else if flate2::read::GzDecoder::new(&*file.data).read_to_end(&mut plain).is_ok() {
        Body::from(plain)
    } else {
        return reply::not_found();
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(path)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // Names carry a hash of the content.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

/// What browsers look for beside the page: what makes it an application that can be installed.
pub(crate) fn beside(path: &str) -> Option<Response> {
    let name = match path {
        "/workspace.webmanifest" => "workspace.webmanifest",
        "/workspace-192.png" => "workspace-192.png",
        "/workspace-512.png" => "workspace-512.png",
        _ => return None,
    };
    let mut response = Response::new(Body::from(Assets::get(name)?.data));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    Some(response)
}
