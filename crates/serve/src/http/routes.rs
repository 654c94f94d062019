//! Which request goes where.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use axum::response::Response;
use serde_json::json;

use super::preview::{self, Mount};
use super::{archives, files, git, page, reply, storage, terminals, uploads};
use crate::access::{Access, bearer};
use crate::client::Rights;
use crate::engine::{self, Refusal};
use crate::exposure::Exposure;
use crate::room::Room;
use crate::seats::Standing;

/// Answers a request.
pub(crate) async fn serve(room: Arc<Room>, request: Request<Body>) -> Response {
    // A preview's own name is the preview's alone.
    if let Some(port) = room.settings.exposure.addressed(request.uri(), request.headers()) {
        return preview::by_host(&room, request, port).await;
    }
    if !room.settings.access.is_addressed(request.uri(), request.headers()) {
        room.metrics.refused();
        return reply::error(
            StatusCode::FORBIDDEN,
            "this server is on loopback and does not answer to this name: use localhost, or add the name's origin \
             to ALLOWED_ORIGINS",
        );
    }
    // Who has the preview's key may see the preview, from wherever: pages in its sandbox are
    // of no origin.
    let path = request.uri().path().to_owned();
    if let Some(keyed) = preview::keyed(&room, &path)
        && request.method() != Method::OPTIONS
    {
        if keyed.rights == Rights::Look && !preview::only_looks(&request) {
            return looks_only();
        }
        if let Some(refused) = preview::refusal(&room, Some(keyed.rights), keyed.port) {
            return refused;
        }
        stands(&request, Rights::Look);
        return preview::serve(&room, request, keyed.port, &Mount::Path(keyed.before), keyed.rest).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    if !room.settings.access.admits(request.headers()) {
        room.metrics.refused();
        return if path.starts_with("/socket.io/") {
            Refusal::Forbidden.response()
        } else {
            reply::error(StatusCode::FORBIDDEN, "this origin may not connect: see ALLOWED_ORIGINS")
        };
    }
    let mut response = if request.method() == Method::OPTIONS {
        let mut response = reply::empty(StatusCode::NO_CONTENT);
        Access::preflight(&mut response);
        response
    } else {
        route(&room, request, &path).await
    };
    room.settings.access.cors(origin.as_ref(), &mut response);
    response
}

fn looks_only() -> Response {
    reply::error(StatusCode::FORBIDDEN, "this token may look, and change nothing")
}

/// Whose request it is may be here: its connection gives way to others last.
pub(super) fn stands(request: &Request<Body>, rights: Rights) {
    if let Some(standing) = request.extensions().get::<Standing>() {
        standing.raise(rights);
    }
}

async fn route(room: &Arc<Room>, request: Request<Body>, path: &str) -> Response {
    match path {
        "/socket.io/" => return engine::serve(room.clone(), request).await,
        "/files" | "/health" => return health(room, request.method()).await,
        "/" | "/ws" if engine::is_upgrade(request.headers()) => {
            return engine::plain_upgrade(room.clone(), request);
        }
        "/" if request.method() == Method::GET => return page::page(&room.settings.exposure.frames()),
        _ => {}
    }
    if request.method() == Method::GET
        && let Some(found) = page::beside(path)
    {
        return found;
    }
    let is_asset = path.starts_with("/assets/") || path.starts_with("/workspace/");
    if is_asset && request.method() == Method::GET {
        return page::asset(path.trim_start_matches('/'), request.headers());
    }
    let is_preview = path == "/preview" || path.starts_with("/preview/");
    if !(is_preview || path.starts_with("/api/") || path == "/metrics") {
        return reply::not_found();
    }
    let Some(rights) = room.settings.access.rights(bearer(request.headers())) else {
        room.metrics.refused();
        return reply::error(StatusCode::UNAUTHORIZED, "unauthorized");
    };
    stands(&request, rights);
    if rights == Rights::Look && !Access::is_safe(request.method()) {
        return looks_only();
    }
    if is_preview {
        let rest = path.strip_prefix("/preview").unwrap_or_default();
        // A key that is wrong is no path of the application.
        if rest.starts_with("/~") {
            return reply::not_found();
        }
        if rights == Rights::Look && !preview::only_looks(&request) {
            return looks_only();
        }
        let port = room.settings.user_port;
        if let Some(refused) = preview::refusal(room, Some(rights), port) {
            return refused;
        }
        return preview::serve(room, request, port, &Mount::Path("/preview"), rest).await;
    }
    if !room.is_loaded() && path != "/metrics" {
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, "the workspace is still being loaded");
    }
    api(room, request, path, rights).await
}

async fn api(room: &Arc<Room>, request: Request<Body>, path: &str, rights: Rights) -> Response {
    let method = request.method().clone();
    if let Some(given) = path.strip_prefix("/api/files/") {
        let Some(given) = percent_decode(given) else {
            return reply::error(StatusCode::BAD_REQUEST, "the path is not valid UTF-8");
        };
        return files::serve(room, given, request).await;
    }
    if let Some(id) = path.strip_prefix("/api/uploads") {
        return uploads::serve(room, id.trim_start_matches('/'), request).await;
    }
    if let Some(rest) = path.strip_prefix("/api/snapshots") {
        return storage::snapshots(room, rest, request).await;
    }
    if let Some(rest) = path.strip_prefix("/api/git").filter(|_| method == Method::GET) {
        return git::serve(room, rest, request.uri().query().unwrap_or_default()).await;
    }
    if let Some(rest) = path.strip_prefix("/api/storage") {
        return storage::storage(room, rest, &method).await;
    }
    let typed = path.strip_prefix("/api/terminals/").and_then(|rest| rest.strip_suffix("/input"));
    if let Some(id) = typed.filter(|_| method == Method::POST) {
        return terminals::input(room, id, request).await;
    }
    match (path, method) {
        ("/api/archive", _) => archives::serve(room, request).await,
        ("/api/scan", Method::POST) => storage::scan(room).await,
        ("/api/info", Method::GET) => reply::json(StatusCode::OK, &storage::info(room, rights)),
        ("/api/preview", Method::GET) => {
            where_preview_is(room, request.uri(), request.headers(), rights).await
        }
        ("/metrics", Method::GET) => {
            let counting = room.clone();
            let text = tokio::task::spawn_blocking(move || crate::usage::metrics(&counting)).await;
            reply::text(StatusCode::OK, "text/plain; version=0.0.4", text.unwrap_or_default())
        }
        _ => reply::not_found(),
    }
}

/// `GET /api/preview?port=&secure=`: where a port's preview is for who asks.
async fn where_preview_is(room: &Arc<Room>, uri: &Uri, headers: &HeaderMap, rights: Rights) -> Response {
    let (mut port, mut secure) = (room.settings.user_port, false);
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "port" => match value.parse() {
                Ok(given) => port = given,
                Err(_) => {
                    return reply::error(StatusCode::BAD_REQUEST, "port must be a number from 1 to 65535");
                }
            },
            "secure" => secure = value == "1",
            _ => {}
        }
    }
    if let Some(refused) = preview::refusal(room, Some(rights), port) {
        return refused;
    }
    let door = &room.previews.door;
    if !Exposure::is_local(headers) {
        door.learn(headers);
    }
    let host = room.settings.exposure.host_of(port, headers);
    let entry = host.is_some().then(|| {
        // Browsers take loopback for secure.
        let ticket = door.ticket(rights, port, secure || Exposure::is_local(headers));
        format!("{}?ticket={ticket}", preview::door::ENTRY)
    });
    let looking = room.clone();
    let open = tokio::task::spawn_blocking(move || crate::ports::listening(&looking)).await;
    let open = open.unwrap_or_default();
    let said = json!({
        "url": preview::address(room, rights, port),
        "port": port,
        "listening": open.contains(&port),
        "host": host,
        "entry": entry,
    });
    reply::json(StatusCode::OK, &said)
}

pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| char::from(b?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// `GET /files` and `GET /health`
async fn health(room: &Arc<Room>, method: &Method) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return reply::not_found();
    }
    let looking = room.clone();
    let looked = tokio::task::spawn_blocking(move || looking.root.list("", false, &[]).map(drop)).await;
    let error = match looked {
        Ok(Ok(())) if !room.is_loaded() => "the workspace is still being loaded".to_owned(),
        Ok(Ok(())) => {
            let said = Healthy { status: "ok", workspace: &room.names.configured };
            return reply::json(StatusCode::OK, &said);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "internal error".to_owned(),
    };
    reply::json(StatusCode::SERVICE_UNAVAILABLE, &Unhealthy { status: "error", error })
}

#[derive(serde::Serialize)]
struct Healthy<'a> {
    status: &'static str,
    workspace: &'a str,
}

#[derive(serde::Serialize)]
struct Unhealthy {
    status: &'static str,
    error: String,
}
