//! Runners as the API shows them.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Caller;
use super::payload::{ADMIN, Sent};
use super::problem::Problem;
use super::tokens::body;
use crate::engine::{Change, Hub};
use crate::fleet::{Named, Runner};
use crate::model::Role;

const MAX_LIMIT: usize = 500;

fn view(runner: &Runner) -> Value {
    json!({
        "id": runner.id,
        "name": runner.name,
        "display_name": runner.display_name,
        "status": match (runner.revoked, runner.link.is_some()) {
            (true, _) => "revoked",
            (false, true) => "online",
            (false, false) => "offline",
        },
        "labels": runner.labels,
        "set_labels": runner.set_labels,
        "drained": runner.drained,
        "token_id": runner.token_id,
        "version": runner.version,
        "environment": runner.environment,
        "metrics": runner.metrics,
        "open_runs": runner.open.len(),
        "created_at_ms": runner.created_at_ms,
        "last_seen_ms": runner.last_seen_ms,
    })
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
    cursor: Option<String>,
    label: Option<String>,
}

pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    let limit = page.limit.unwrap_or(100).clamp(1, MAX_LIMIT);
    let (items, next) = {
        let fleet = hub.fleet.lock();
        let mut runners: Vec<&Runner> = fleet
            .runners
            .values()
            .filter(|r| page.cursor.as_ref().is_none_or(|c| r.id > *c))
            .filter(|r| page.label.as_ref().is_none_or(|l| r.labels.contains(l)))
            .collect();
        runners.sort_by(|a, b| a.id.cmp(&b.id));
        let more = runners.len() > limit;
        runners.truncate(limit);
        let next = if more { runners.last().map(|r| r.id.clone()) } else { None };
        (runners.into_iter().map(view).collect::<Vec<_>>(), next)
    };
    Ok(axum::Json(json!({ "items": items, "next": next })).into_response())
}

pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    let fleet = hub.fleet.lock();
    match fleet.named(&id) {
        Named::One(runner) => Ok(axum::Json(view(runner)).into_response()),
        Named::None => Err(Problem::not_found("runner", &id)),
        Named::Many(ids) => Err(ambiguous(&id, &ids)),
    }
}

fn ambiguous(name: &str, ids: &[String]) -> Problem {
    let shown: String = name.chars().take(80).collect();
    let text = format!("'{shown}' is the name of {} runners; give the id: {}", ids.len(), ids.join(", "));
    Problem::new(StatusCode::CONFLICT, text)
}

/// The id of a runner, by its name or itself.
fn id_of(hub: &Hub, id: &str) -> Result<String, Problem> {
    match hub.fleet.lock().named(id) {
        Named::One(runner) => Ok(runner.id.clone()),
        Named::None => Err(Problem::not_found("runner", id)),
        Named::Many(ids) => Err(ambiguous(id, &ids)),
    }
}

/// Sets what people decide about a runner; what is absent stays.
pub(super) async fn change(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    sent: Sent<ADMIN>,
) -> Result<Response, Problem> {
    let change: Change = body(&sent.payload.bytes)?;
    change.check().map_err(|(field, reason)| Problem::field(field, &reason))?;
    let id = id_of(&hub, &id)?;
    let changed = hub.change_runner(&id, change).await?;
    match changed {
        Some(runner) => Ok(axum::Json(view(&runner)).into_response()),
        None => Err(Problem::not_found("runner", &id)),
    }
}

/// Forgets a runner: its credential, if it is its alone, its connection, and what waits for it.
pub(super) async fn remove(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.needs(Role::Admin)?;
    let id = id_of(&hub, &id)?;
    // It goes on if the caller goes away.
    let removed = tokio::spawn(async move { hub.remove_runner(&id).await }).await;
    removed.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
    Ok(StatusCode::NO_CONTENT)
}
