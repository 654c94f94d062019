//! Which request goes where.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::reply;
use crate::access::{Access, bearer};
use crate::client::Rights;
use crate::engine::{self, Refusal};
use crate::room::Room;

/// Answers a request.
pub(crate) async fn serve(room: Arc<Room>, request: Request<Body>) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    if !room.settings.access.admits(request.headers()) {
        room.metrics.refused();
        return if request.uri().path().starts_with("/socket.io/") {
            Refusal::Forbidden.response()
        } else {
            reply::error(StatusCode::FORBIDDEN, "this origin may not connect: see ALLOWED_ORIGINS")
        };
    }
    let mut response = match request.method() {
        &Method::OPTIONS => {
            let mut response = reply::empty(StatusCode::NO_CONTENT);
            Access::preflight(&mut response);
            response
        }
        _ => route(&room, request).await,
    };
    room.settings.access.cors(origin.as_ref(), &mut response);
    response
}

async fn route(room: &Arc<Room>, request: Request<Body>) -> Response {
    let path = request.uri().path();
    match path {
        "/socket.io/" => engine::serve(room.clone(), request).await,
        "/files" | "/health" => health(room, request.method()).await,
        "/" | "/ws" if engine::is_upgrade(request.headers()) => engine::plain_upgrade(room.clone(), request),
        _ => reply::not_found(),
    }
}

/// What the request's token allows.
#[expect(dead_code, reason = "routes that need it follow")]
fn rights(room: &Room, request: &Request<Body>) -> Option<Rights> {
    room.settings.access.rights(bearer(request.headers()))
}

/// `GET /files` and `GET /health`
async fn health(room: &Arc<Room>, method: &Method) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return reply::not_found();
    }
    let looking = room.clone();
    let looked = tokio::task::spawn_blocking(move || looking.root.list("", false, &[]).map(drop)).await;
    match looked {
        Ok(Ok(())) => reply::json(
            StatusCode::OK,
            &json!({ "status": "ok", "workspace": room.names.configured }),
        ),
        Ok(Err(error)) => reply::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "error", "error": error.to_string() }),
        ),
        Err(_) => reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    }
}
