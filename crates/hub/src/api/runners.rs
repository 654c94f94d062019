//! Runners as the API shows them.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Caller;
use super::problem::Problem;
use crate::engine::Hub;
use crate::fleet::Runner;
use crate::model::Role;

const MAX_LIMIT: usize = 500;

fn view(runner: &Runner) -> Value {
    json!({
        "id": runner.id,
        "name": runner.name,
        "status": if runner.link.is_some() { "online" } else { "offline" },
        "labels": runner.labels,
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
    let found = {
        let fleet = hub.fleet.lock();
        fleet.runners.get(&id).or_else(|| fleet.runners.values().find(|r| r.name == id)).map(view)
    };
    match found {
        Some(runner) => Ok(axum::Json(runner).into_response()),
        None => Err(Problem::not_found("runner", &id)),
    }
}
