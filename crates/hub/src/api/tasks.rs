//! Tasks: submit, look, cancel.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rusqlite::{Connection, OptionalExtension};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::Caller;
use super::payload::{OPERATOR, Sent};
use super::problem::Problem;
use super::tokens::body;
use crate::engine::{Hub, NewTask};
use crate::model::{Role, RunView, State as RunState, TaskView, overall};

const MAX_LIMIT: u64 = 500;
/// Longest a request may wait for a task's end.
const MAX_WAIT_S: u64 = 300;

#[derive(Deserialize)]
pub(super) struct Wait {
    /// Seconds to wait for the task's end before answering.
    wait_s: Option<u64>,
}

pub(super) async fn create(
    State(hub): State<Arc<Hub>>,
    Query(wait): Query<Wait>,
    sent: Sent<OPERATOR>,
) -> Result<Response, Problem> {
    let new: NewTask = body(&sent.payload.bytes)?;
    let id = hub.submit(new, &sent.caller.0).await?;
    // What was sent is not held while the task runs.
    drop(sent);
    wait_for_end(&hub, &id, &wait).await;
    let task = load(&hub, &id).await?.ok_or_else(|| Problem::not_found("task", &id))?;
    Ok((StatusCode::ACCEPTED, axum::Json(task)).into_response())
}

pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    wait_for_end(&hub, &id, &wait).await;
    let task = load(&hub, &id).await?.ok_or_else(|| Problem::not_found("task", &id))?;
    Ok(axum::Json(task).into_response())
}

pub(super) async fn cancel(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.needs(Role::Operator)?;
    // It goes on if the caller goes away.
    let (cancelling, task) = (hub.clone(), id.clone());
    let _ = tokio::spawn(async move { cancelling.cancel(&task).await }).await;
    // A task that is over stays as it is.
    let task = load(&hub, &id).await?.ok_or_else(|| Problem::not_found("task", &id))?;
    Ok((StatusCode::ACCEPTED, axum::Json(task)).into_response())
}

async fn wait_for_end(hub: &Hub, id: &str, wait: &Wait) {
    let Some(seconds) = wait.wait_s.filter(|s| *s > 0) else { return };
    let progress = hub.fleet.lock().tasks.get(id).map(|t| t.progress.subscribe());
    if let Some(mut progress) = progress {
        let limit = Duration::from_secs(seconds.min(MAX_WAIT_S));
        let _ = tokio::time::timeout(limit, progress.wait_for(|p| p.over)).await;
    }
}

/// A task as it is in the store.
pub(super) async fn load(hub: &Hub, id: &str) -> Result<Option<TaskView>, Problem> {
    let id = id.to_owned();
    Ok(hub.store.read(move |c| load_one(c, &id)).await?)
}

/// A task's row with its arguments, or with what a list shows of them.
fn columns(brief: bool) -> String {
    let args = match brief {
        false => "coalesce((SELECT body FROM payloads WHERE payloads.id = tasks.id), args)",
        true => "coalesce(brief, iif(args = '', '{}', args))",
    };
    format!("id, operation, {args}, selection, timeout_s, created_by, created_at_ms, expires_at_ms, token_id")
}

fn load_one(c: &Connection, id: &str) -> rusqlite::Result<Option<TaskView>> {
    let sql = format!("SELECT {} FROM tasks WHERE id = ?1", columns(false));
    let task = c.prepare_cached(&sql)?.query_row([id], task_row).optional()?;
    task.map(|task| with_runs(c, task, true)).transpose()
}

fn task_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<TaskView> {
    let operation: String = row.get(1)?;
    Ok(TaskView {
        id: row.get(0)?,
        args: raw(crate::engine::shown(&operation, row.get(2)?)),
        operation,
        select: raw(row.get(3)?),
        timeout_s: number(row.get(4)?),
        created_by: row.get(5)?,
        created_at_ms: number(row.get(6)?),
        expires_at_ms: number(row.get(7)?),
        created_by_token: row.get(8)?,
        state: RunState::Queued,
        runs: Vec::new(),
    })
}

/// Adds a task's runs; their results only where they are wanted.
fn with_runs(c: &Connection, mut task: TaskView, results: bool) -> rusqlite::Result<TaskView> {
    let result = match results {
        true => "coalesce(result, (SELECT body FROM payloads WHERE payloads.id = runs.id))",
        false => "NULL",
    };
    let mut statement = c.prepare_cached(&format!(
        "SELECT id, runner_name, runner_id, state, exit_code, error, {result}, queued_at_ms, delivered_at_ms,
                started_at_ms, finished_at_ms, suggestion
         FROM runs WHERE task_id = ?1 ORDER BY ordinal"
    ))?;
    let runs = statement.query_map([&task.id], |row| {
        let state: String = row.get(3)?;
        Ok(RunView {
            id: row.get(0)?,
            runner: row.get(1)?,
            runner_id: row.get(2)?,
            state: RunState::parse(&state).unwrap_or(RunState::Lost),
            exit_code: row.get(4)?,
            error: row.get(5)?,
            suggestion: row.get(11)?,
            result: row.get::<_, Option<String>>(6)?.map(raw),
            queued_at_ms: number(row.get(7)?),
            delivered_at_ms: row.get::<_, Option<i64>>(8)?.map(number),
            started_at_ms: row.get::<_, Option<i64>>(9)?.map(number),
            finished_at_ms: row.get::<_, Option<i64>>(10)?.map(number),
        })
    })?;
    task.runs = runs.collect::<rusqlite::Result<_>>()?;
    task.state = overall(task.runs.iter().map(|r| r.state));
    Ok(task)
}

/// Stored JSON was JSON when it was stored.
fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn number(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<u64>,
    cursor: Option<String>,
    runner: Option<String>,
}

/// Newest first.
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    caller.needs(Role::Viewer)?;
    let limit = page.limit.unwrap_or(50).clamp(1, MAX_LIMIT);
    let mut items = hub
        .store
        .read(move |c| {
            let bound = i64::try_from(limit + 1).unwrap_or(i64::MAX);
            let ids = match &page.runner {
                None => {
                    let sql = "SELECT id FROM tasks WHERE (?1 IS NULL OR id < ?1) ORDER BY id DESC LIMIT ?2";
                    ids(c, sql, rusqlite::params![page.cursor, bound])?
                }
                // Each half is read along an index, and no further than it is shown.
                Some(runner) => {
                    let half = |column: &str| {
                        format!(
                            "SELECT * FROM (SELECT DISTINCT task_id FROM runs WHERE {column} = ?3
                                 AND (?1 IS NULL OR task_id < ?1) ORDER BY task_id DESC LIMIT ?2)"
                        )
                    };
                    let sql = format!(
                        "{} UNION {} ORDER BY 1 DESC LIMIT ?2",
                        half("runner_id"),
                        half("runner_name")
                    );
                    ids(c, &sql, rusqlite::params![page.cursor, bound, runner])?
                }
            };
            let sql = format!("SELECT {} FROM tasks WHERE id = ?1", columns(true));
            let mut statement = c.prepare_cached(&sql)?;
            let mut tasks = Vec::with_capacity(ids.len());
            for id in ids {
                // A list is for looking over; the whole is at its own address.
                if let Some(task) = statement.query_row([&id], task_row).optional()? {
                    tasks.push(with_runs(c, task, false)?);
                }
            }
            Ok(tasks)
        })
        .await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let next = if items.len() > wanted { items.get(wanted - 1).map(|t| t.id.clone()) } else { None };
    items.truncate(wanted);
    Ok(axum::Json(json!({ "items": items, "next": next })).into_response())
}

fn ids(c: &Connection, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Vec<String>> {
    c.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
}
