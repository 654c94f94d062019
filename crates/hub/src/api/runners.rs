//! Runners: look, change, remove.

use std::sync::Arc;

use legwork_api::{
    ChangeRunner, Code, GetRunner, ListRunners, Page, RemoveRunner, Runner as Shown, RunnerId, RunnerName,
    RunnerStatus, TokenId, page_size,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::door::Asked;
use super::problem::{Problem, cursor_of};
use crate::engine::Hub;
use crate::fleet::{Named, Runner};

/// What a list has unless it is told otherwise.
const PAGE: u32 = 100;

fn shown(runner: &Runner) -> Shown {
    /// What a runner said of itself once may lack what is said today.
    fn said<T: DeserializeOwned>(value: Option<&Value>) -> Option<T> {
        value.and_then(|value| T::deserialize(value).ok())
    }
    Shown {
        id: RunnerId(runner.id.clone()),
        name: runner.name.clone(),
        display_name: runner.display_name.clone(),
        status: match (runner.revoked, runner.link.is_some()) {
            (true, _) => RunnerStatus::Revoked,
            (false, true) => RunnerStatus::Online,
            (false, false) => RunnerStatus::Offline,
        }
        .into(),
        labels: runner.labels.clone(),
        set_labels: runner.set_labels.clone(),
        drained: runner.drained,
        token_id: TokenId(runner.token_id.clone()),
        version: runner.version.clone(),
        environment: said(runner.environment.as_ref()),
        metrics: said(runner.metrics.as_ref()),
        open_runs: runner.open.len() as u64,
        created_at_ms: runner.created_at_ms,
        last_seen_ms: runner.last_seen_ms,
    }
}

pub(super) async fn list(hub: Arc<Hub>, asked: Asked<ListRunners>) -> Result<Page<Shown, RunnerId>, Problem> {
    let filter = asked.query;
    let limit = page_size(filter.limit, PAGE);
    cursor_of(filter.cursor.as_ref().map(RunnerId::as_str), &["wn_"])?;
    let fleet = hub.fleet.lock();
    let mut runners: Vec<&Runner> = fleet
        .runners
        .values()
        .filter(|r| filter.cursor.as_ref().is_none_or(|c| r.id > c.0))
        .filter(|r| filter.label.as_ref().is_none_or(|l| r.labels.contains(l)))
        .collect();
    runners.sort_by(|a, b| a.id.cmp(&b.id));
    let found = runners.into_iter().take(limit + 1).map(shown).collect();
    Ok(Page::cut(found, limit, |runner: &Shown| runner.id.clone()))
}

pub(super) async fn show(hub: Arc<Hub>, asked: Asked<GetRunner>) -> Result<Shown, Problem> {
    named(&hub, &asked.id, shown)
}

/// Looks at a runner, by its name or its id.
fn named<T>(hub: &Hub, name: &RunnerName, look: impl FnOnce(&Runner) -> T) -> Result<T, Problem> {
    match hub.fleet.lock().named(name.as_str()) {
        Named::One(runner) => Ok(look(runner)),
        Named::None => Err(Problem::absent::<RunnerName>(name.as_str())),
        Named::Many(ids) => {
            let shown: String = name.as_str().chars().take(80).collect();
            let text =
                format!("'{shown}' is the name of {} runners; give the id: {}", ids.len(), ids.join(", "));
            Err(Problem::new(Code::AmbiguousName, text))
        }
    }
}

/// Sets what people decide about a runner; what is absent stays.
pub(super) async fn change(hub: Arc<Hub>, asked: Asked<ChangeRunner>) -> Result<Shown, Problem> {
    crate::engine::check_change(&asked.body).map_err(|(field, reason)| Problem::field(field, &reason))?;
    let id = named(&hub, &asked.id, |runner| runner.id.clone())?;
    let changed = hub.change_runner(&id, asked.body).await?;
    changed.as_ref().map(shown).ok_or_else(|| Problem::absent::<RunnerName>(&id))
}

/// Forgets a runner: its credential, if it is its alone, its connection, and what waits for it.
pub(super) async fn remove(hub: Arc<Hub>, asked: Asked<RemoveRunner>) -> Result<(), Problem> {
    let id = named(&hub, &asked.id, |runner| runner.id.clone())?;
    // It goes on if the caller goes away.
    let removed = tokio::spawn(async move { hub.remove_runner(&id).await }).await;
    removed.map_err(Problem::internal)??;
    Ok(())
}
