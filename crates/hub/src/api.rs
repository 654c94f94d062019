//! REST under `/api/v1`, health, metrics, and the routes as a whole.

mod access;
mod events;
mod internal;
mod metrics;
mod openapi;
mod payload;
mod pods;
mod problem;
mod releases;
mod runners;
mod tasks;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, patch, post};

use crate::engine::Hub;
use crate::{session, web};

pub(crate) use access::Caller;
use problem::Problem;

/// All routes of a hub.
pub(crate) fn router(hub: Arc<Hub>) -> Router {
    let api = Router::new()
        .route("/tokens", post(tokens::create).get(tokens::list))
        .route("/tokens/{id}", delete(tokens::revoke))
        .route("/enroll", post(tokens::enroll))
        .route("/me", get(tokens::me))
        .route("/tasks", post(tasks::create).get(tasks::list))
        .route("/tasks/{id}", get(tasks::show))
        .route("/tasks/{id}/cancel", post(tasks::cancel))
        .route("/tasks/{id}/events", get(events::of_task))
        .route("/runners", get(runners::list))
        .route("/runners/{id}", get(runners::show).patch(runners::change).delete(runners::remove))
        .route("/pods/tasks", post(pods::create).get(pods::list))
        .route("/pods/tasks/{id}", get(pods::show))
        .route("/pods/tasks/{id}/cancel", post(pods::cancel))
        .route("/pods/tasks/{id}/events", get(pods::events))
        .route("/pods/runners", get(pods::runners))
        .route("/pods/registration", get(pods::registration))
        .route("/pods/sessions/{id}/messages", get(pods::messages))
        .route("/openapi.json", get(openapi::document))
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path; see /api/v1/openapi.json")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
        })
        .layer(from_fn_with_state(hub.clone(), access::guard));
    let internal = Router::new()
        .route("/runners/register", post(internal::register))
        .route("/runners/{pod_name}/heartbeat", post(internal::heartbeat))
        .route("/tasks/{task_id}/stream", post(internal::stream))
        .route("/tasks/{task_id}/complete", post(internal::complete))
        .route("/agent/messages", post(internal::create_message))
        .route("/agent/messages/{id}", patch(internal::patch_message))
        .route("/agent/messages/{id}/parts", post(internal::create_part));
    // What a browser shows, or needs no token.
    let page = Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/assets/{*path}", get(web::assets))
        .route("/", get(web::page))
        .route("/runners/{id}", get(web::page))
        .route("/tasks/{id}", get(web::page))
        .layer(from_fn_with_state(hub.clone(), web::own_names));
    Router::new()
        .nest("/api/v1", api)
        .nest("/internal", internal)
        .route("/runner/ws", get(session::upgrade))
        .route("/safari/worknode/ws", get(session::upgrade))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(metrics::ready))
        .route("/releases/{*path}", get(releases::file).layer(from_fn_with_state(hub.clone(), access::guard)))
        .merge(page)
        .with_state(hub)
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
