//! Agents and workflows in pods, as the API shows them.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Caller;
use super::events::{Follow, Source, last_event_id, stream};
use super::payload::{OPERATOR, Sent};
use super::problem::Problem;
use super::tokens::body;
use crate::engine::Hub;
use crate::model::Role;
use crate::pods::{NewPodTask, PodRunner, events_path, page, view};

const MAX_LIMIT: u64 = 500;

fn known(id: &str) -> Result<u32, Problem> {
    id.parse().map_err(|_| Problem::not_found("task of pods", id))
}

pub(super) async fn create(State(hub): State<Arc<Hub>>, sent: Sent<OPERATOR>) -> Result<Response, Problem> {
    let new: NewPodTask = body(&sent.payload.bytes)?;
    let id = hub.submit_pod_task(new, sent.caller.0.name.clone()).await?;
    let task = hub.store.read(move |c| view(c, id)).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(task)).into_response())
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<u64>,
    cursor: Option<u32>,
}

pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Query(wanted): Query<Page>,
) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    let limit = wanted.limit.unwrap_or(50).clamp(1, MAX_LIMIT);
    let mut items = hub.store.read(move |c| page(c, wanted.cursor, limit + 1)).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > most;
    items.truncate(most);
    let next = if more { items.last().map(|task| json!(task)["id"].clone()) } else { None };
    Ok(axum::Json(json!({ "items": items, "next": next })).into_response())
}

pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    let number = known(&id)?;
    match hub.store.read(move |c| view(c, number)).await? {
        // It may hold what servers are shown.
        Some(task) if !caller.0.role.reaches(Role::Operator) => {
            Ok(axum::Json(task.without_config()).into_response())
        }
        Some(task) => Ok(axum::Json(task).into_response()),
        None => Err(Problem::not_found("task of pods", &id)),
    }
}

pub(super) async fn cancel(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.needs(Role::Operator)?;
    let number = known(&id)?;
    // It goes on if the caller goes away.
    let cancelling = hub.clone();
    let done = tokio::spawn(async move { cancelling.cancel_pod_task(number).await }).await;
    done.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
    match hub.store.read(move |c| view(c, number)).await? {
        Some(task) => Ok((StatusCode::ACCEPTED, axum::Json(task)).into_response()),
        None => Err(Problem::not_found("task of pods", &id)),
    }
}

pub(super) async fn events(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<Follow>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    let from = last_event_id(&headers)?;
    let number = known(&id)?;
    if hub.store.read(move |c| view(c, number)).await?.is_none() {
        return Err(Problem::not_found("task of pods", &id));
    }
    let progress = hub.pods.progress(number);
    if progress.is_none() {
        hub.repair_pod_events(number).await?;
    }
    let source = Source { path: events_path(&hub.data, number), runs: Vec::new(), progress, name: "event" };
    Ok(stream(source, from, query.wants_more()))
}

fn runner(runner: &PodRunner) -> serde_json::Value {
    let status = match (runner.task, runner.is_stale()) {
        (_, true) => "stale",
        (Some(_), _) => "busy",
        (None, _) => "available",
    };
    json!({
        "id": runner.id, "name": runner.name, "ip": runner.ip, "status": status, "task": runner.task,
        "version": runner.version, "capabilities": runner.capabilities, "last_seen_ms": runner.seen_at_ms(),
    })
}

pub(super) async fn runners(State(hub): State<Arc<Hub>>, caller: Caller) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    let items: Vec<serde_json::Value> = hub.pods.runners().iter().map(runner).collect();
    Ok(axum::Json(json!({ "items": items })).into_response())
}

pub(super) async fn registration(State(hub): State<Arc<Hub>>, caller: Caller) -> Result<Response, Problem> {
    caller.needs(Role::Admin)?;
    let path = format!("/internal/runners/register?key={}", hub.pods.internal_token());
    let base = hub.pods.front.get().and_then(|front| front.public_url.clone());
    Ok(axum::Json(json!({ "path": path, "public_url": base })).into_response())
}

pub(super) async fn messages(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(session): Path<String>,
) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    let items = hub.session_messages(session).await?;
    Ok(axum::Json(json!({ "items": items })).into_response())
}
