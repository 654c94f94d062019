//! Agents and workflows in pods: submit, look, cancel.

use std::sync::Arc;

use axum::response::Response;
use legwork_api::{
    CancelPodTask, GetPodTask, ListPodRunners, ListPodTasks, Messages, Page, PodRegistration,
    PodRunner as Shown, PodRunners, PodStatus, PodTask, PodTaskEvents, PodTaskId, Registration, Role,
    SessionMessages, SubmitPodTask, page_size,
};

use super::door::Asked;
use super::events::{Names, Source, last_event_id, stream};
use super::problem::Problem;
use crate::engine::Hub;
use crate::pods::{PodRunner, view};

/// What a list has unless it is told otherwise.
const PAGE: u32 = 50;

async fn stored(hub: &Hub, id: PodTaskId) -> Result<legwork_store::Task, Problem> {
    let found = hub.store.numbered(id.0).await?;
    found.ok_or_else(|| Problem::absent::<PodTaskId>(&id.to_string()))
}

pub(super) async fn load(hub: &Hub, id: PodTaskId) -> Result<PodTask, Problem> {
    let task = view(stored(hub, id).await?, true);
    task.ok_or_else(|| Problem::absent::<PodTaskId>(&id.to_string()))
}

pub(super) async fn create(hub: Arc<Hub>, asked: Asked<SubmitPodTask>) -> Result<PodTask, Problem> {
    let id = hub.submit_pod_task(asked.body, &asked.by).await?;
    load(&hub, PodTaskId(id)).await
}

pub(super) async fn list(
    hub: Arc<Hub>,
    asked: Asked<ListPodTasks>,
) -> Result<Page<PodTask, PodTaskId>, Problem> {
    let limit = page_size(asked.query.limit, PAGE);
    let cursor = asked.query.cursor.map(|PodTaskId(id)| id);
    let most = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let found = hub.store.list_numbered(cursor, most).await?;
    let tasks = found.into_iter().filter_map(|task| view(task, false)).collect();
    Ok(Page::cut(tasks, limit, |task: &PodTask| task.id))
}

pub(super) async fn show(hub: Arc<Hub>, asked: Asked<GetPodTask>) -> Result<PodTask, Problem> {
    let task = load(&hub, asked.id).await?;
    // It may hold what servers are shown.
    Ok(if asked.by.role.reaches(Role::Operator) { task } else { PodTask { config: None, ..task } })
}

pub(super) async fn cancel(hub: Arc<Hub>, asked: Asked<CancelPodTask>) -> Result<PodTask, Problem> {
    // It goes on if the caller goes away.
    let (cancelling, PodTaskId(number)) = (hub.clone(), asked.id);
    let done = tokio::spawn(async move { cancelling.cancel_pod_task(number).await }).await;
    done.map_err(Problem::internal)??;
    load(&hub, asked.id).await
}

pub(super) async fn events(hub: Arc<Hub>, asked: Asked<PodTaskEvents>) -> Result<Response, Problem> {
    let from = last_event_id(&asked.headers)?;
    let task = stored(&hub, asked.id).await?;
    let (logs, task_id) = (hub.logs.clone(), task.id.clone());
    let progress = hub.follow(&task.id);
    if progress.is_none() {
        hub.repair_pod_events(task).await?;
    }
    let source = Source { logs, task: task_id, runs: Vec::new(), progress, names: Names::Events };
    Ok(stream(source, from, asked.query.wants_more()))
}

fn shown(runner: PodRunner) -> Shown {
    let status = match (runner.task, runner.is_stale()) {
        (_, true) => PodStatus::Stale,
        (Some(_), _) => PodStatus::Busy,
        (None, _) => PodStatus::Available,
    };
    Shown {
        id: runner.id,
        status: status.into(),
        task: runner.task.map(PodTaskId),
        last_seen_ms: runner.seen_at_ms(),
        name: runner.name,
        ip: runner.ip,
        version: runner.version,
        capabilities: runner.capabilities,
    }
}

pub(super) async fn runners(hub: Arc<Hub>, _: Asked<ListPodRunners>) -> Result<PodRunners, Problem> {
    Ok(PodRunners { items: hub.pods.runners().into_iter().map(shown).collect() })
}

pub(super) async fn registration(hub: Arc<Hub>, _: Asked<PodRegistration>) -> Result<Registration, Problem> {
    let path = format!("/internal/runners/register?key={}", hub.pods.internal_token());
    let public_url = hub.pods.front.get().and_then(|front| front.public_url.clone());
    Ok(Registration { path, public_url })
}

pub(super) async fn messages(hub: Arc<Hub>, asked: Asked<SessionMessages>) -> Result<Messages, Problem> {
    let items = hub.session_messages(asked.id.0).await?;
    let passed_on = |message| serde_json::value::to_raw_value(&message).map(legwork_api::Fields);
    Ok(Messages {
        items: items.into_iter().map(passed_on).collect::<Result<_, _>>().map_err(Problem::internal)?,
    })
}
