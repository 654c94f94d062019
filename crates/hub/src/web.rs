//! The web page, embedded in the binary.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use legwork_http::pages;

use crate::engine::Hub;
use crate::pods::Front;

/// Nothing from any other host, no inline script or style.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; \
                   connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers only to names by which this machine knows itself, where nobody else reaches us: a
/// request for another name is of a page whose name was pointed here after it was loaded.
pub(crate) async fn own_names(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let front = hub.pods.front.get().cloned().unwrap_or_default();
    if is_addressed(&front, request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let text =
        "this hub is on loopback and does not answer to this name: use localhost, or give --public-url\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

fn is_addressed(front: &Front, uri: &Uri, headers: &HeaderMap) -> bool {
    let said = headers.get_all(header::HOST).iter().map(|h| h.to_str().unwrap_or_default());
    !front.loopback || said.chain(uri.authority().map(Authority::as_str)).all(|host| is_own_name(front, host))
}

fn is_own_name(front: &Front, host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || port.starts_with(':') => name,
            _ => return false,
        },
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let public = front.public_url.as_ref().and_then(|url| url.parse::<Uri>().ok());
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || public.and_then(|uri| uri.host().map(str::to_ascii_lowercase)).is_some_and(|public| public == name)
}

/// The page itself, at every path that is a place in it.
pub(crate) async fn page() -> Response {
    let Some(html) = pages::page("index.html") else { return not_found() };
    let mut response = guarded(html.into_response());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A file that the pages load, from `/assets/` in the built pages; 404 if there is none of the name.
pub(crate) async fn assets(Path(path): Path<String>, asked: HeaderMap) -> Response {
    pages::asset(&format!("assets/{path}"), &asked).map_or_else(not_found, guarded)
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "not found").into_response()
}

fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_the_page_answers_only_to_its_own_names() {
        let front = Front { public_url: Some("https://hub.example/x".into()), tls: false, loopback: true };
        for (host, want) in [
            ("127.0.0.1:7440", true),
            ("localhost", true),
            ("LOCALHOST.:7440", true),
            ("[::1]:7440", true),
            ("hub.example", true),
            ("evil.example:7440", false),
            ("127.0.0.1.evil.example", false),
            ("[::1].evil.example", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            assert_eq!(is_addressed(&front, &Uri::from_static("/"), &headers), want, "{host}");
        }
        assert!(!is_addressed(&front, &Uri::from_static("http://evil.example/"), &HeaderMap::new()));
        // Elsewhere a proxy gives us a name.
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("hub.example.com"));
        assert!(is_addressed(&Front::default(), &Uri::from_static("/"), &headers));
    }
}
