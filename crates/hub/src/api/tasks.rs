//! Tasks: submit, look, cancel.

use std::sync::Arc;
use std::time::Duration;

use legwork_api::{
    CancelTask, Fields, GetTask, ListTasks, Page, Run, RunId, RunnerId, State, SubmitTask, Task, TaskFilter,
    TaskId, TokenId, Wait, overall, page_size,
};
use rusqlite::{Connection, OptionalExtension};
use serde_json::value::RawValue;

use super::door::Asked;
use super::problem::Problem;
use crate::engine::Hub;

/// What a list has unless it is told otherwise.
const PAGE: u32 = 50;
/// Longest a request may wait for a task's end.
const MAX_WAIT_S: u32 = 300;

pub(super) async fn create(hub: Arc<Hub>, asked: Asked<SubmitTask>) -> Result<Task, Problem> {
    let id = TaskId(hub.submit(asked.body, &asked.by).await?);
    // What was sent is not held while the task runs.
    drop(asked.room);
    wait_for_end(&hub, &id, &asked.query).await;
    load(&hub, id).await
}

pub(super) async fn show(hub: Arc<Hub>, asked: Asked<GetTask>) -> Result<Task, Problem> {
    wait_for_end(&hub, &asked.id, &asked.query).await;
    load(&hub, asked.id).await
}

pub(super) async fn cancel(hub: Arc<Hub>, asked: Asked<CancelTask>) -> Result<Task, Problem> {
    // It goes on if the caller goes away.
    let (cancelling, TaskId(id)) = (hub.clone(), asked.id.clone());
    let _ = tokio::spawn(async move { cancelling.cancel(&id).await }).await;
    // A task that is over stays as it is.
    load(&hub, asked.id).await
}

async fn wait_for_end(hub: &Hub, id: &TaskId, wait: &Wait) {
    let Some(seconds) = wait.wait_s.filter(|s| *s > 0) else { return };
    let progress = hub.fleet.lock().tasks.get(id.as_str()).map(|t| t.progress.subscribe());
    if let Some(mut progress) = progress {
        let limit = Duration::from_secs(seconds.min(MAX_WAIT_S).into());
        let _ = tokio::time::timeout(limit, progress.wait_for(|p| p.over)).await;
    }
}

/// A task as it is in the store.
pub(super) async fn load(hub: &Hub, TaskId(id): TaskId) -> Result<Task, Problem> {
    let wanted = id.clone();
    let found = hub.store.read(move |c| load_one(c, &wanted)).await?;
    found.ok_or_else(|| Problem::absent::<TaskId>(&id))
}

/// A task's row with its arguments, or with what a list shows of them.
fn columns(brief: bool) -> String {
    let args = match brief {
        false => "coalesce((SELECT body FROM payloads WHERE payloads.id = tasks.id), args)",
        true => "coalesce(brief, iif(args = '', '{}', args))",
    };
    format!("id, operation, {args}, selection, timeout_s, created_by, created_at_ms, expires_at_ms, token_id")
}

fn load_one(c: &Connection, id: &str) -> rusqlite::Result<Option<Task>> {
    let sql = format!("SELECT {} FROM tasks WHERE id = ?1", columns(false));
    let task = c.prepare_cached(&sql)?.query_row([id], task_row).optional()?;
    task.map(|task| with_runs(c, task, true)).transpose()
}

fn task_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Task> {
    let operation: String = row.get(1)?;
    Ok(Task {
        id: TaskId(row.get(0)?),
        args: raw(crate::engine::shown(&operation, row.get(2)?)),
        operation,
        select: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
        timeout_s: number(row.get(4)?),
        created_by: row.get(5)?,
        created_at_ms: number(row.get(6)?),
        expires_at_ms: number(row.get(7)?),
        created_by_token: row.get::<_, Option<String>>(8)?.map(TokenId),
        state: State::Queued.into(),
        runs: Vec::new(),
    })
}

/// Adds a task's runs; their results only where they are wanted.
fn with_runs(c: &Connection, mut task: Task, results: bool) -> rusqlite::Result<Task> {
    let result = match results {
        true => "coalesce(result, (SELECT body FROM payloads WHERE payloads.id = runs.id))",
        false => "NULL",
    };
    let mut statement = c.prepare_cached(&format!(
        "SELECT id, runner_name, runner_id, state, exit_code, error, {result}, queued_at_ms, delivered_at_ms,
                started_at_ms, finished_at_ms, suggestion
         FROM runs WHERE task_id = ?1 ORDER BY ordinal"
    ))?;
    let runs = statement.query_map([task.id.as_str()], |row| {
        let state: String = row.get(3)?;
        Ok(Run {
            id: RunId(row.get(0)?),
            runner: row.get(1)?,
            runner_id: RunnerId(row.get(2)?),
            state: State::parse(&state).unwrap_or(State::Lost).into(),
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
    task.state = overall(task.runs.iter().filter_map(|run| run.state.known())).into();
    Ok(task)
}

/// Stored JSON was JSON when it was stored.
fn raw(text: String) -> Fields {
    Fields(RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned()))
}

fn number(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// Newest first.
pub(super) async fn list(hub: Arc<Hub>, asked: Asked<ListTasks>) -> Result<Page<Task, TaskId>, Problem> {
    let filter = asked.query;
    let limit = page_size(filter.limit, PAGE);
    let found = hub.store.read(move |c| find(c, &filter, limit + 1)).await?;
    Ok(Page::cut(found, limit, |task: &Task| task.id.clone()))
}

fn find(c: &Connection, filter: &TaskFilter, most: usize) -> rusqlite::Result<Vec<Task>> {
    let bound = i64::try_from(most).unwrap_or(i64::MAX);
    let cursor = filter.cursor.as_ref().map(TaskId::as_str);
    let ids = match filter.runner.as_ref().map(legwork_api::RunnerName::as_str) {
        None => {
            let sql = "SELECT id FROM tasks WHERE (?1 IS NULL OR id < ?1) ORDER BY id DESC LIMIT ?2";
            ids(c, sql, rusqlite::params![cursor, bound])?
        }
        // Each half is read along an index, and no further than it is shown.
        Some(runner) => {
            let half = |column: &str| {
                format!(
                    "SELECT * FROM (SELECT DISTINCT task_id FROM runs WHERE {column} = ?3
                         AND (?1 IS NULL OR task_id < ?1) ORDER BY task_id DESC LIMIT ?2)"
                )
            };
            let sql = format!("{} UNION {} ORDER BY 1 DESC LIMIT ?2", half("runner_id"), half("runner_name"));
            ids(c, &sql, rusqlite::params![cursor, bound, runner])?
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
}

fn ids(c: &Connection, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Vec<String>> {
    c.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
}
