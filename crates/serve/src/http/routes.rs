//! Which request goes where.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use axum::response::Response;
use legwork_socketio::{Refusal, is_upgrade};
use serde_json::json;

use super::git::{self, Git};
use super::preview::{self, Mount, Previews};
use super::site::Site;
use super::{archives, files, page, reply, storage, terminals, uploads};
use crate::access::{Access, Rights, bearer};
use crate::exposure::Exposure;
use crate::paths::Trouble;
use crate::settings::Settings;
use crate::workspace::Workspace;

/// Answers a request.
pub(crate) async fn serve(site: Arc<Site>, request: Request<Body>) -> Response {
    // A preview's own name is the preview's alone.
    if let Some(port) = site.settings.exposure.addressed(request.uri(), request.headers()) {
        return preview::by_host(&site.previews, request, port).await;
    }
    if !site.settings.access.is_addressed(request.uri(), request.headers()) {
        site.workspace.metrics.refused();
        return reply::error(
            StatusCode::FORBIDDEN,
            "this server is on loopback and does not answer to this name: use localhost, or add the name's origin \
             to ALLOWED_ORIGINS",
        );
    }
    // Who has the preview's key may see the preview, from wherever: pages in its sandbox are
    // of no origin.
    let path = request.uri().path().to_owned();
    if let Some(keyed) = preview::keyed(&site.previews, &path)
        && request.method() != Method::OPTIONS
    {
        // A wrong key is answered here, whoever asks: passed on, it would tell an application of
        // the keys of others.
        let Some(rights) = keyed.rights else {
            site.workspace.metrics.refused();
            return reply::error(StatusCode::UNAUTHORIZED, "this key is not of this port's preview");
        };
        if rights == Rights::Look && !preview::only_looks(&request) {
            return reply::looks_only();
        }
        if let Some(refused) = preview::refusal(&site.previews, Some(rights), keyed.port) {
            return refused;
        }
        reply::stands(&request, Rights::Look);
        return preview::serve(&site.previews, request, keyed.port, &Mount::Path(keyed.before), keyed.rest)
            .await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    if !site.settings.access.admits(request.headers()) {
        site.workspace.metrics.refused();
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
        route(&site, request, &path).await
    };
    site.settings.access.cors(origin.as_ref(), &mut response);
    response
}

async fn route(site: &Arc<Site>, request: Request<Body>, path: &str) -> Response {
    match path {
        "/socket.io/" => return site.sockets.serve(request).await,
        "/files" | "/health" => return health(&site.workspace, request.method()).await,
        "/" | "/ws" if is_upgrade(request.headers()) => {
            let bearer = bearer(request.headers()).map(str::to_owned);
            return site.sockets.serve_plain(request, bearer.as_deref());
        }
        "/" if request.method() == Method::GET => return page::page(&site.settings.exposure.frames()),
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
    let Some(rights) = site.settings.access.rights(bearer(request.headers())) else {
        site.workspace.metrics.refused();
        return reply::error(StatusCode::UNAUTHORIZED, "unauthorized");
    };
    reply::stands(&request, rights);
    if rights == Rights::Look && !Access::is_safe(request.method()) {
        return reply::looks_only();
    }
    if is_preview {
        return unkeyed(site, request, path, rights).await;
    }
    if !site.workspace.vault.is_loaded() && path != "/metrics" {
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, "the workspace is still being loaded");
    }
    let answered = api(site, request, path, rights).await;
    answered.unwrap_or_else(|trouble| {
        site.workspace.metrics.failed();
        reply::trouble(&trouble)
    })
}

/// The preview of the user's port, for who shows a token of ours.
async fn unkeyed(site: &Site, request: Request<Body>, path: &str, rights: Rights) -> Response {
    let rest = path.strip_prefix("/preview").unwrap_or_default();
    // A key that is wrong is no path of the application.
    if rest.starts_with("/~") {
        return reply::not_found();
    }
    if rights == Rights::Look && !preview::only_looks(&request) {
        return reply::looks_only();
    }
    let port = site.settings.user_port;
    if let Some(refused) = preview::refusal(&site.previews, Some(rights), port) {
        return refused;
    }
    preview::serve(&site.previews, request, port, &Mount::Path("/preview"), rest).await
}

/// `/api/…`: each handler gets what it needs.
async fn api(
    site: &Arc<Site>,
    request: Request<Body>,
    path: &str,
    rights: Rights,
) -> Result<Response, Trouble> {
    let Workspace { files: workspace, vault, terminals, .. } = &*site.workspace;
    let method = request.method().clone();
    if let Some(given) = path.strip_prefix("/api/files/") {
        let Some(given) = percent_decode(given) else {
            return Ok(reply::error(StatusCode::BAD_REQUEST, "the path is not valid UTF-8"));
        };
        return files::serve(workspace, given, request).await;
    }
    if let Some(id) = path.strip_prefix("/api/uploads") {
        return uploads::serve(&site.uploads, workspace, id.trim_start_matches('/'), request).await;
    }
    if path == "/api/archive" {
        return archives::serve(workspace, request).await;
    }
    if let Some(rest) = path.strip_prefix("/api/snapshots") {
        return Ok(storage::snapshots(vault, workspace, rest, request).await);
    }
    if let Some(rest) = path.strip_prefix("/api/git").filter(|_| method == Method::GET) {
        let git = Git { files: workspace, shells: &terminals.shells, sandbox: site.settings.sandbox };
        return Ok(git::serve(&git, rest, request.uri().query().unwrap_or_default()).await);
    }
    if let Some(rest) = path.strip_prefix("/api/storage") {
        return Ok(storage::storage(vault, rest, &method).await);
    }
    let typed = path.strip_prefix("/api/terminals/").and_then(|rest| rest.strip_suffix("/input"));
    if let Some(id) = typed.filter(|_| method == Method::POST) {
        return Ok(terminals::input(terminals, id, request).await);
    }
    Ok(match (path, method) {
        ("/api/scan", Method::POST) => {
            let rules = site.settings.scan_rules.clone();
            storage::scanned(crate::scan::run(workspace, &terminals.shells, rules).await)
        }
        ("/api/info", Method::GET) => {
            reply::json(StatusCode::OK, &storage::info(&site.workspace, &site.settings, rights))
        }
        ("/api/preview", Method::GET) => {
            where_preview_is(site, request.uri(), request.headers(), rights).await
        }
        ("/metrics", Method::GET) => {
            let meters = site.workspace.meters();
            let text = tokio::task::spawn_blocking(move || crate::usage::metrics(&meters)).await;
            reply::text(StatusCode::OK, "text/plain; version=0.0.4", text.unwrap_or_default())
        }
        _ => reply::not_found(),
    })
}

/// `GET /api/preview?port=&secure=`: where a port's preview is for who asks.
async fn where_preview_is(site: &Site, uri: &Uri, headers: &HeaderMap, rights: Rights) -> Response {
    let (settings, previews): (&Settings, &Previews) = (&site.settings, &site.previews);
    let (mut port, mut secure) = (settings.user_port, false);
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
    if let Some(refused) = preview::refusal(previews, Some(rights), port) {
        return refused;
    }
    let door = &previews.door;
    if !Exposure::is_local(headers) {
        door.learn(headers);
    }
    let host = settings.exposure.host_of(port, headers);
    let entry = host.is_some().then(|| {
        // Browsers take loopback for secure.
        let ticket = door.ticket(rights, port, secure || Exposure::is_local(headers));
        format!("{}?ticket={ticket}", preview::door::ENTRY)
    });
    let looking = site.workspace.ports.clone();
    let open = tokio::task::spawn_blocking(move || looking.listening()).await;
    let open = open.unwrap_or_default();
    let said = json!({
        "url": preview::address(previews, rights, port),
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
async fn health(workspace: &Workspace, method: &Method) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return reply::not_found();
    }
    let looking = workspace.files.clone();
    let looked = tokio::task::spawn_blocking(move || looking.root.list("", false, &[]).map(drop)).await;
    let error = match looked {
        Ok(Ok(())) if !workspace.vault.is_loaded() => "the workspace is still being loaded".to_owned(),
        Ok(Ok(())) => {
            let said = Healthy { status: "ok", workspace: &workspace.files.names.configured };
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
