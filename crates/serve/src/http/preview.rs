//! The user's application, through us: under a name of its own, or below `/preview/`.
//!
//! Under its own name it is of an origin of its own, as if it were served there alone. Below a
//! path its answers run in a sandbox of the browser's: a previewed page can't read what we
//! serve, nor drive a terminal. Frames and their parts can't send our token, so there the
//! address holds a key that is good for the preview alone.

mod connect;
pub(crate) mod door;
mod headers;
mod location;
mod mount;
pub(crate) mod rewrite;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use axum::response::Response;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use legwork_runner::Networks;
use legwork_socketio::is_upgrade;

use super::reply;
use crate::access::{Access, Rights};
use crate::exposure::Exposure;
use crate::metrics::Metrics;
use crate::settings::Settings;
use connect::Connector;
use headers::set;
use location::Asked;
pub(crate) use mount::Mount;

/// How long a connection to an application waits for the next request.
const IDLE: Duration = Duration::from_secs(20);
const MAX_IDLE: usize = 16;
const SANDBOX: &str = "sandbox allow-scripts allow-forms";

/// The previews of a workspace's ports.
pub(crate) struct Previews {
    pub(crate) door: door::Door,
    client: Client<Connector, Body>,
    /// For what does not give its connection back.
    upgrading: Client<Connector, Body>,
    networks: Arc<Networks>,
    exposure: Exposure,
    access: Access,
    /// The port of who asks for none.
    user_port: u16,
    /// The workspace server's.
    own_port: u16,
    /// Who needs no token to work here needs no key to look, where nobody else can come.
    open: bool,
    metrics: Arc<Metrics>,
}

impl Previews {
    pub(crate) fn new(
        networks: Arc<Networks>,
        settings: &Settings,
        own_port: u16,
        metrics: Arc<Metrics>,
    ) -> Self {
        let connector = Connector::new(networks.clone());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector.clone());
        let upgrading = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self {
            door: door::Door::default(),
            client,
            upgrading,
            networks,
            exposure: settings.exposure.clone(),
            access: settings.access.clone(),
            user_port: settings.user_port,
            own_port,
            open: settings.listen.ip().is_loopback() && !settings.access.has_token(),
            metrics,
        }
    }
}

/// Where a port's preview is, by path, for who has these rights.
pub(crate) fn address(previews: &Previews, rights: Rights, port: u16) -> String {
    let key = previews.door.key(rights, port);
    if port == previews.user_port { format!("/preview/~{key}/") } else { format!("/preview/{port}~{key}/") }
}

/// A path below a key's address: what is before the application's own path, that path, what the
/// key lets (`None`: nothing, at this port), and the port.
pub(crate) struct Keyed<'a> {
    pub(crate) before: &'a str,
    pub(crate) rest: &'a str,
    pub(crate) rights: Option<Rights>,
    pub(crate) port: u16,
}

/// How long a key is.
const KEY: usize = 32;

/// Takes a path apart; `None` if nothing in it has the form of a key.
pub(crate) fn keyed<'a>(previews: &Previews, path: &'a str) -> Option<Keyed<'a>> {
    let after = path.strip_prefix("/preview/")?;
    let (first, _) = after.split_once('/').unwrap_or((after, ""));
    let (said, key) = first.split_once('~')?;
    if !(said.bytes().all(|b| b.is_ascii_digit()) && key.len() == KEY) {
        return None;
    }
    // A number that is no port's has no key.
    let port = if said.is_empty() { previews.user_port } else { said.parse().unwrap_or(0) };
    let rights = previews.door.opens(key, port).filter(|_| port > 0);
    let (before, rest) = path.split_at("/preview/".len() + first.len());
    Some(Keyed { before, rest, rights, port })
}

/// Whether a request changes nothing, as far as HTTP tells: whoever may only look sends no
/// other, and opens no connection of which nobody knows what goes through it.
pub(crate) fn only_looks(request: &Request<Body>) -> bool {
    Access::is_safe(request.method()) && !request.headers().contains_key(header::UPGRADE)
}

/// The answer to who may not see a port with these rights.
pub(crate) fn refusal(previews: &Previews, rights: Option<Rights>, port: u16) -> Option<Response> {
    if previews.exposure.allows(rights, port) {
        return None;
    }
    previews.metrics.refused();
    if rights.is_none() {
        let page = "<!doctype html><meta charset=utf-8><title>Preview</title><p>This preview is for those who work in \
                    the workspace. Open it from there: its address then lets this browser in. A browser that keeps no \
                    cookies in frames has to open it in a tab of its own.";
        return Some(reply::text(StatusCode::UNAUTHORIZED, "text/html; charset=utf-8", page.to_owned()));
    }
    let said = format!("port {port} may not be previewed: see PREVIEW_PORTS and PREVIEW_VIEW_PORTS");
    Some(reply::error(StatusCode::FORBIDDEN, &said))
}

/// A request to a preview's own host.
pub(crate) async fn by_host(previews: &Previews, request: Request<Body>, port: u16) -> Response {
    let door = &previews.door;
    if request.uri().path() == door::ENTRY {
        let query = request.uri().query().unwrap_or_default();
        let entered = door.enter(port, query);
        return entered.unwrap_or_else(|| {
            reply::error(
                StatusCode::UNAUTHORIZED,
                "this address was good once, for a minute: open the preview again",
            )
        });
    }
    let rights = if previews.open { Some(Rights::Work) } else { door.rights(port, request.headers()) };
    if let Some(refused) = refusal(previews, rights, port) {
        return refused;
    }
    if rights.is_some() {
        reply::stands(&request, Rights::Look);
    }
    let rights = rights.unwrap_or(Rights::Work);
    if rights == Rights::Look && !only_looks(&request) {
        return reply::looks_only();
    }
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    let rest = request.uri().path().to_owned();
    serve(previews, request, port, &Mount::Host(&host.unwrap_or_default()), &rest).await
}

/// Asks the application.
pub(crate) async fn serve(
    previews: &Previews,
    mut request: Request<Body>,
    port: u16,
    mount: &Mount<'_>,
    rest: &str,
) -> Response {
    if let (Mount::Path(before), true) = (mount, rest.is_empty()) {
        // Relative addresses need the slash.
        let mut response = reply::empty(StatusCode::PERMANENT_REDIRECT);
        set(response.headers_mut(), header::LOCATION, &format!("{before}/"));
        return finish(response, mount);
    }
    if port == previews.own_port || port == 0 {
        return finish(
            reply::error(StatusCode::BAD_GATEWAY, "this is the workspace server's own port"),
            mount,
        );
    }
    let own = format!("localhost:{port}");
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let host = connect::host(&previews.networks, port);
    let Ok(uri) = Uri::try_from(format!("http://{host}:{port}{rest}{query}")) else {
        return finish(reply::error(StatusCode::BAD_REQUEST, "bad path"), mount);
    };
    let asked = Asked::new(port, &format!("{rest}{query}"), request.headers());
    let secure = Exposure::is_local(request.headers()) || headers::is_by_tls(request.headers());
    let upgrade = is_upgrade(request.headers());
    let protocol = request.headers().get(header::UPGRADE).cloned();
    headers::hide(request.headers_mut(), mount, &own, &previews.door, &previews.access);
    if matches!(mount, Mount::Path(_)) {
        rewrite::ask(request.headers_mut());
    }
    let theirs = upgrade.then(|| hyper::upgrade::on(&mut request));
    if upgrade {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().extend(protocol.clone().map(|p| (header::UPGRADE, p)));
    }
    *request.uri_mut() = uri;
    *request.version_mut() = axum::http::Version::HTTP_11;
    let client = if upgrade { &previews.upgrading } else { &previews.client };
    let mut response = match client.request(request).await {
        Ok(response) => response,
        Err(error) => return finish(no_answer(port, &error), mount),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let agreed = headers::agree(protocol.as_ref(), response.headers());
        return match theirs.filter(|_| agreed) {
            Some(theirs) => switched(response, theirs, mount, secure),
            // Passed on, all that follows on this connection would be the application's word:
            // what it says in answer to another request, too.
            None => finish(
                reply::error(
                    StatusCode::BAD_GATEWAY,
                    "the application changed to a protocol that was not asked for",
                ),
                mount,
            ),
        };
    }
    headers::contain(response.headers_mut(), mount, secure);
    if let Some(asked) = &asked {
        location::lead_back(response.headers_mut(), asked, mount);
    } else {
        response.headers_mut().remove(header::LOCATION);
    }
    let response = response.map(Body::new);
    match mount {
        Mount::Path(before) => finish(rewrite::answer(response, before, port), mount),
        Mount::Host(_) => response,
    }
}

/// Lets through what both ends say from now on.
fn switched(
    mut response: hyper::Response<hyper::body::Incoming>,
    theirs: hyper::upgrade::OnUpgrade,
    mount: &Mount<'_>,
    secure: bool,
) -> Response {
    let ours = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        if let (Ok(client), Ok(application)) = (theirs.await, ours.await) {
            let (mut client, mut application) = (TokioIo::new(client), TokioIo::new(application));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut application).await;
        }
    });
    let answered = ["connection", "upgrade"].map(|name| response.headers().get(name).cloned());
    headers::contain(response.headers_mut(), mount, secure);
    let [connection, upgraded] = answered;
    response.headers_mut().extend(connection.map(|value| (header::CONNECTION, value)));
    response.headers_mut().extend(upgraded.map(|value| (header::UPGRADE, value)));
    response.map(|_| Body::empty())
}

/// What every answer of a preview has.
fn finish(mut response: Response, mount: &Mount<'_>) -> Response {
    let Mount::Path(before) = mount else { return response };
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
fn no_answer(port: u16, error: &Error) -> Response {
    if !error.is_connect() {
        tracing::debug!("the application on port {port} gave no answer: {error}");
        return reply::error(StatusCode::BAD_GATEWAY, "the application gave no answer");
    }
    let page = format!(
        "<!doctype html><meta charset=utf-8><title>Preview</title><p>Nothing listens on port {port} yet. \
         Start your application there; this page looks again every two seconds."
    );
    let mut response = reply::text(StatusCode::BAD_GATEWAY, "text/html; charset=utf-8", page);
    response.headers_mut().insert(HeaderName::from_static("refresh"), HeaderValue::from_static("2"));
    response
}
