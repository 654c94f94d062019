//! `/preview/`: the user's application, through us.
//!
//! Its answers run in a sandbox of the browser's, in an origin of its own: a previewed page
//! can't read what we serve, nor drive a terminal. Frames and their parts can't send our
//! token, so the address holds a key that is good for the preview alone.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::reply;
use crate::access::Access;
use crate::client::Rights;
use crate::engine;
use crate::room::Room;

const CONNECT: Duration = Duration::from_secs(5);
const SANDBOX: &str = "sandbox allow-scripts allow-forms";

/// Headers that are between two hops alone (RFC 9110 §7.6.1).
const HOP: &[HeaderName] = &[
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What says who somebody is to whatever is in front of us: none of the application's business.
const CREDENTIALS: &[&str] = &["authorization", "cookie", "cookie2"];
/// The same, as proxies that sign people in name it.
const CREDENTIAL_PREFIXES: &[&str] = &[
    "cf-access-",
    "proxy-",
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-authentik-",
    "x-forwarded-access-token",
    "x-forwarded-id-token",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-pomerium-",
    "x-vouch-",
];
/// What browsers keep for all of our origin, not for the answer it comes with.
const OF_THE_ORIGIN: &[&str] = &[
    "accept-ch",
    "access-control-allow-credentials",
    "alt-svc",
    "clear-site-data",
    "critical-ch",
    "expect-ct",
    "nel",
    "origin-agent-cluster",
    "proxy-authenticate",
    "public-key-pins",
    "report-to",
    "reporting-endpoints",
    "sec-session-registration",
    "secure-session-registration",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "set-login",
    "strict-transport-security",
    "www-authenticate",
];

/// Where the preview is for who has the key that goes with these rights.
pub(crate) fn address(room: &Room, rights: Rights) -> String {
    let key = match rights {
        Rights::Work => &room.preview_key,
        Rights::Look => &room.preview_look_key,
    };
    format!("/preview/~{key}/")
}

/// A path below a key's address: what is before the application's own path, that path, and
/// what the key lets.
pub(crate) type Keyed<'a> = (&'a str, &'a str, Rights);

/// Takes a path apart; `None` if it is not the preview's, or has a wrong key.
pub(crate) fn keyed<'a>(room: &Room, path: &'a str) -> Option<Keyed<'a>> {
    [Rights::Work, Rights::Look].into_iter().find_map(|rights| {
        let prefix = address(room, rights);
        let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
        let (before, rest) = path.split_at(path.len() - rest.len());
        (rest.is_empty() || rest.starts_with('/')).then_some((before, rest, rights))
    })
}

/// Whether a request changes nothing, as far as HTTP tells: whoever may only look sends no
/// other, and opens no connection of which nobody knows what goes through it.
pub(crate) fn only_looks(request: &Request<Body>) -> bool {
    Access::is_safe(request.method()) && !request.headers().contains_key(header::UPGRADE)
}

/// Takes from a request what is ours.
fn hide(headers: &mut HeaderMap, own: &str, before: &str) {
    strip(headers);
    for name in CREDENTIALS {
        headers.remove(*name);
    }
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|n| CREDENTIAL_PREFIXES.iter().any(|p| n.as_str().starts_with(p)))
        .cloned()
        .collect();
    for name in named {
        headers.remove(name);
    }
    // The address a page was at has the key in it.
    let at = headers.remove(header::REFERER).and_then(|r| r.to_str().ok().map(str::to_owned));
    if let Some(rest) = at.as_deref().and_then(|at| at.split_once(before)).map(|(_, rest)| rest) {
        set(headers, header::REFERER, &format!("http://{own}{rest}"));
    }
}

/// Takes from an answer what would be about more than the preview.
fn contain(headers: &mut HeaderMap) {
    strip(headers);
    for name in OF_THE_ORIGIN {
        headers.remove(*name);
    }
}

/// Asks the application. `before` is what its paths have in front here.
pub(crate) async fn serve(
    room: &Arc<Room>,
    mut request: Request<Body>,
    before: &str,
    rest: &str,
) -> Response {
    let port = room.settings.user_port;
    if rest.is_empty() {
        // Relative addresses need the slash.
        let mut response = reply::empty(StatusCode::PERMANENT_REDIRECT);
        set(response.headers_mut(), header::LOCATION, &format!("{before}/"));
        return finish(response, before);
    }
    if port == room.own_port() || port == 0 {
        return finish(reply::error(StatusCode::BAD_GATEWAY, "USER_PORT is this server's own port"), before);
    }
    let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(("localhost", port)));
    let Ok(Ok(tcp)) = connecting.await else { return finish(waiting(port), before) };
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let Ok(path) = PathAndQuery::try_from(format!("{rest}{query}")) else {
        return finish(reply::error(StatusCode::BAD_REQUEST, "bad path"), before);
    };
    let upgrade = engine::is_upgrade(request.headers());
    let protocol = request.headers().get(header::UPGRADE).cloned();
    let host = request.headers().get(header::HOST).cloned();
    let own = format!("localhost:{port}");
    hide(request.headers_mut(), &own, before);
    let headers = request.headers_mut();
    set(headers, header::HOST, &own);
    if headers.contains_key(header::ORIGIN) {
        set(headers, header::ORIGIN, &format!("http://{own}"));
    }
    if let Some(host) = host {
        headers.insert("x-forwarded-host", host);
    }
    set(headers, HeaderName::from_static("x-forwarded-prefix"), before);
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.extend(protocol.map(|p| (header::UPGRADE, p)));
    }
    let theirs = upgrade.then(|| hyper::upgrade::on(&mut request));
    *request.uri_mut() = Uri::from(path);
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await else {
        return finish(waiting(port), before);
    };
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let mut response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!("the application on port {port} gave no answer: {error}");
            return finish(reply::error(StatusCode::BAD_GATEWAY, "the application gave no answer"), before);
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(theirs) = theirs
    {
        let ours = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            if let (Ok(client), Ok(application)) = (theirs.await, ours.await) {
                let (mut client, mut application) = (TokioIo::new(client), TokioIo::new(application));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut application).await;
            }
        });
        let answered = ["connection", "upgrade"].map(|name| response.headers().get(name).cloned());
        contain(response.headers_mut());
        let [connection, upgraded] = answered;
        response.headers_mut().extend(connection.map(|value| (header::CONNECTION, value)));
        response.headers_mut().extend(upgraded.map(|value| (header::UPGRADE, value)));
        return response.map(|_| Body::empty());
    }
    contain(response.headers_mut());
    let moved = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
    if let Some(moved) = moved {
        let local = [format!("http://{own}"), format!("http://127.0.0.1:{port}")];
        let path = local.iter().find_map(|o| moved.strip_prefix(o.as_str())).unwrap_or(&moved);
        if path.starts_with('/') && !path.starts_with("//") {
            set(response.headers_mut(), header::LOCATION, &format!("{before}{path}"));
        }
    }
    finish(response.map(Body::new), before)
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in HOP {
        headers.remove(name);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What every answer of a preview has.
fn finish(mut response: Response, before: &str) -> Response {
    let headers = response.headers_mut();
    headers.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    // It is in a frame of ours, whatever it thinks of frames.
    headers.remove(header::X_FRAME_OPTIONS);
    // The key must not be told to others.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if before.contains('~') {
        // In the sandbox the application is of no origin, not even its own.
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

/// Nobody listens yet: the page looks again by itself.
fn waiting(port: u16) -> Response {
    let page = format!(
        "<!doctype html><meta charset=utf-8><title>Preview</title><p>Nothing listens on port {port} yet. \
         Start your application there; this page looks again every two seconds."
    );
    let mut response = reply::text(StatusCode::BAD_GATEWAY, "text/html; charset=utf-8", page);
    response.headers_mut().insert(HeaderName::from_static("refresh"), HeaderValue::from_static("2"));
    response
}
