//! Tasks: submit, look, cancel.

use std::sync::Arc;
use std::time::Duration;

use legwork_api::{
    ApprovalId, CancelTask, Fields, GetTask, ListTasks, Open, Page, Role, Run, RunId, RunnerId, State,
    SubmitTask, Task, TaskId, TokenId, Wait, overall, page_size,
};
use legwork_store::{Filter, Run as StoredRun, Task as Stored};
use serde_json::value::RawValue;

use super::door::Asked;
use super::problem::{Problem, cursor_of};
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
    load(&hub, id).await.map(view)
}

pub(super) async fn show(hub: Arc<Hub>, asked: Asked<GetTask>) -> Result<Task, Problem> {
    wait_for_end(&hub, &asked.id, &asked.query).await;
    let task = load(&hub, asked.id).await?;
    // What agents are given may hold what servers are shown.
    let is_open = task.number.is_none() || asked.by.role.reaches(Role::Operator);
    let task = view(task);
    Ok(if is_open { task } else { Task { args: raw("{}".into()), ..task } })
}

pub(super) async fn cancel(hub: Arc<Hub>, asked: Asked<CancelTask>) -> Result<Task, Problem> {
    // It goes on if the caller goes away.
    let (cancelling, TaskId(id)) = (hub.clone(), asked.id.clone());
    let done = tokio::spawn(async move {
        match cancelling.pods.number_of(&id) {
            Some(number) => cancelling.cancel_pod_task(number).await,
            None => cancelling.cancel(&id).await,
        }
    });
    done.await.map_err(Problem::internal)??;
    // A task that is over stays as it is.
    load(&hub, asked.id).await.map(view)
}

async fn wait_for_end(hub: &Hub, id: &TaskId, wait: &Wait) {
    let Some(seconds) = wait.wait_s.filter(|s| *s > 0) else { return };
    let progress = hub.follow(id.as_str());
    if let Some(mut progress) = progress {
        let limit = Duration::from_secs(seconds.min(MAX_WAIT_S).into());
        let _ = tokio::time::timeout(limit, progress.wait_for(|p| p.over)).await;
    }
}

/// A task as it is in the store.
pub(super) async fn load(hub: &Hub, TaskId(id): TaskId) -> Result<Stored, Problem> {
    let found = hub.store.task(id.clone()).await?;
    found.ok_or_else(|| Problem::absent::<TaskId>(&id))
}

fn view(task: Stored) -> Task {
    Task {
        args: raw(crate::engine::shown(&task.operation, task.args)),
        id: TaskId(task.id),
        operation: task.operation,
        select: serde_json::from_str(&task.selection).unwrap_or_default(),
        timeout_s: task.timeout_s,
        created_by: task.created_by,
        created_by_token: task.token_id.map(TokenId),
        created_at_ms: task.created_at_ms,
        expires_at_ms: task.expires_at_ms,
        reason: task.reason,
        state: overall(task.runs.iter().map(|run| run.state)).into(),
        runs: task.runs.into_iter().map(run_view).collect(),
    }
}

fn run_view(run: StoredRun) -> Run {
    Run {
        id: RunId(run.id),
        runner: run.runner_name,
        runner_id: RunnerId(run.runner_id),
        state: run.state.into(),
        exit_code: run.exit_code,
        error: run.error,
        suggestion: run.suggestion,
        approval: run.approval.map(ApprovalId),
        result: run.result.map(raw),
        queued_at_ms: run.queued_at_ms,
        delivered_at_ms: run.delivered_at_ms,
        started_at_ms: run.started_at_ms,
        finished_at_ms: run.finished_at_ms,
    }
}

/// Stored JSON was JSON when it was stored.
fn raw(text: String) -> Fields {
    Fields(RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned()))
}

/// A state that this hub knows.
fn known(state: &Open<State>) -> Result<State, Problem> {
    state.known().ok_or_else(|| {
        let states: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
        Problem::query("state", &format!("must be one of {}", states.join(", ")))
    })
}

/// Newest first.
pub(super) async fn list(hub: Arc<Hub>, asked: Asked<ListTasks>) -> Result<Page<Task, TaskId>, Problem> {
    let limit = page_size(asked.query.limit, PAGE);
    let state = asked.query.state.as_ref().map(known).transpose()?;
    let cursor = asked.query.cursor.map(|TaskId(id)| id);
    cursor_of(cursor.as_deref(), &["tsk_", "pod-"])?;
    let filter = Filter {
        before: cursor,
        runner: asked.query.runner.map(|name| name.0),
        state,
        limit: u32::try_from(limit + 1).unwrap_or(u32::MAX),
    };
    let found = hub.store.list(filter).await?.into_iter().map(view).collect();
    Ok(Page::cut(found, limit, |task: &Task| task.id.clone()))
}
