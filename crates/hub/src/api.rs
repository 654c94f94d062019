//! REST under `/api/v1`, health, metrics, and the routes as a whole.

mod access;
mod door;
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
use axum::routing::{get, patch, post};
use legwork_api::{
    CancelPodTask, CancelTask, ChangeRunner, Code, CreateToken, Document, Enroll, GetPodTask, GetRunner,
    GetTask, ListPodRunners, ListPodTasks, ListRunners, ListTasks, ListTokens, Me, Operation,
    PodRegistration, PodTaskEvents, RemoveRunner, RevokeToken, SessionMessages, SubmitPodTask, SubmitTask,
    TaskEvents,
};

use crate::engine::Hub;
use crate::{session, web};

pub(crate) use access::Caller;
use door::{answer, respond};
use problem::Problem;

/// All routes of a hub.
pub(crate) fn router(hub: Arc<Hub>) -> Router {
    let api = operations()
        .route(Document::ABOUT.path, get(openapi::document))
        .fallback(nothing_here)
        .method_not_allowed_fallback(async || Problem::new(Code::WrongMethod, "this path has no such method"))
        .layer(from_fn_with_state(hub.clone(), access::guard));
    let internal = Router::new()
        .route("/runners/register", post(internal::register))
        .route("/runners/{pod_name}/heartbeat", post(internal::heartbeat))
        .route("/tasks/{task_id}/stream", post(internal::stream))
        .route("/tasks/{task_id}/complete", post(internal::complete))
        .route("/agent/messages", post(internal::create_message))
        .route("/agent/messages/{id}", patch(internal::patch_message))
        .route("/agent/messages/{id}/parts", post(internal::create_part))
        // In the original's words, which has none.
        .fallback(async || StatusCode::NOT_FOUND);
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
        .fallback(nothing_here)
        .with_state(hub)
}

/// The operations of the contract, each with its handler.
fn operations() -> Router<Arc<Hub>> {
    let r = Router::new();
    let r = answer::<SubmitTask, _, _>(r, tasks::create);
    let r = answer::<ListTasks, _, _>(r, tasks::list);
    let r = answer::<GetTask, _, _>(r, tasks::show);
    let r = answer::<CancelTask, _, _>(r, tasks::cancel);
    let r = respond::<TaskEvents, _, _>(r, events::of_task);
    let r = answer::<ListRunners, _, _>(r, runners::list);
    let r = answer::<GetRunner, _, _>(r, runners::show);
    let r = answer::<ChangeRunner, _, _>(r, runners::change);
    let r = answer::<RemoveRunner, _, _>(r, runners::remove);
    let r = answer::<CreateToken, _, _>(r, tokens::create);
    let r = answer::<ListTokens, _, _>(r, tokens::list);
    let r = answer::<RevokeToken, _, _>(r, tokens::revoke);
    let r = answer::<Enroll, _, _>(r, tokens::enroll);
    let r = answer::<Me, _, _>(r, tokens::me);
    let r = answer::<SubmitPodTask, _, _>(r, pods::create);
    let r = answer::<ListPodTasks, _, _>(r, pods::list);
    let r = answer::<GetPodTask, _, _>(r, pods::show);
    let r = answer::<CancelPodTask, _, _>(r, pods::cancel);
    let r = respond::<PodTaskEvents, _, _>(r, pods::events);
    let r = answer::<ListPodRunners, _, _>(r, pods::runners);
    let r = answer::<PodRegistration, _, _>(r, pods::registration);
    answer::<SessionMessages, _, _>(r, pods::messages)
}

async fn nothing_here() -> Problem {
    Problem::new(Code::NoSuchPath, "there is nothing at this path; see /api/v1/openapi.json")
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
