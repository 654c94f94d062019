//! Taking a task in: check, choose the runners, make it durable, hand it out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Hub;
use super::args::{bounded, check_args};
use crate::clock::{now_ms, sortable_id};
use crate::events::{self, Kind, Log};
use crate::fleet::{FleetState, LiveRun, LiveTask, ToRunner, state_event};
use crate::model::State;
use crate::store::StoreError;

const DEFAULT_EXPIRES_S: i64 = 86_400;
const MAX_EXPIRES_S: i64 = 30 * 86_400;
/// Most runners of one task.
const MAX_TARGETS: usize = 10_000;
const MAX_KEY: usize = 255;

/// Which runners a task is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Select {
    /// All of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<String>,
    /// This one, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) runner: Option<String>,
    /// How many of them; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<Value>,
}

/// A task to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTask {
    pub(crate) select: Select,
    pub(crate) operation: String,
    #[serde(default)]
    pub(crate) args: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) timeout_s: Option<i64>,
    #[serde(default)]
    pub(crate) expires_s: Option<i64>,
    #[serde(default)]
    pub(crate) idempotency_key: Option<String>,
}

/// Why a task was not taken.
#[derive(Debug)]
pub(crate) enum SubmitError {
    /// A field is wrong.
    Invalid {
        field: &'static str,
        reason: String,
    },
    /// The key was used for another task.
    KeyReused,
    Store(StoreError),
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> SubmitError {
    SubmitError::Invalid { field, reason: reason.into() }
}

/// How many of the matching runners.
#[derive(Clone, Copy)]
enum Count {
    All,
    Some(usize),
}

enum Inserted {
    New,
    Existing { id: String, same: bool },
}

impl Hub {
    /// Takes a task; returns its id once it is durable.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        new: NewTask,
        created_by: String,
    ) -> Result<String, SubmitError> {
        let body_hash = body_hash(&new);
        let count = check_select(&new.select)?;
        let (args, timeout_s) = check_args(&new)?;
        let expires_s = bounded("expires_s", new.expires_s, DEFAULT_EXPIRES_S, MAX_EXPIRES_S)?;
        let key = new.idempotency_key.clone();
        if key.as_ref().is_some_and(|k| k.is_empty() || k.len() > MAX_KEY) {
            return Err(invalid("idempotency_key", format!("must be 1 to {MAX_KEY} bytes long")));
        }
        // A repeated request gets its task even if its runners are gone by now.
        if let Some(key) = key.clone()
            && let Some((id, same)) = self.find_key(key, body_hash.clone()).await?
        {
            return if same { Ok(id) } else { Err(SubmitError::KeyReused) };
        }
        let now = now_ms();
        let expires_at_ms = now + expires_s.unsigned_abs() * 1000;
        let no_id = |e: std::io::Error| SubmitError::Store(StoreError::new(e.to_string()));
        let id = sortable_id("tsk").map_err(no_id)?;
        let log = Log::new(events::path(&self.data, &id));
        let mut runs = Vec::new();
        let task;
        {
            let fleet = self.fleet.lock();
            let targets = choose(&fleet, &new.select, count)?;
            task = Arc::new(LiveTask::new(
                id.clone(),
                new.operation.clone(),
                args.clone(),
                expires_at_ms,
                log,
                targets.len(),
            ));
            for (ordinal, runner_id) in targets.into_iter().enumerate() {
                let Some(runner) = fleet.runners.get(&runner_id) else { continue };
                let online = fleet.ready_link(&runner_id).is_some();
                runs.push(LiveRun {
                    id: sortable_id("run").map_err(no_id)?,
                    ordinal: u32::try_from(ordinal).unwrap_or(u32::MAX),
                    task: task.clone(),
                    runner_name: runner.name.clone(),
                    delivered_boot: if online { runner.boot_id.clone() } else { String::new() },
                    // Durable as delivered before it is sent: a crash in between can't
                    // make the original run it twice.
                    state: if online { State::Delivered } else { State::Queued },
                    unsent: true,
                    cancel_requested: false,
                    offsets: [0; 2],
                    closing: false,
                    runner_id,
                });
            }
        }
        let selection = serde_json::to_string(&new.select).unwrap_or_default();
        let operation = new.operation;
        let rows = runs.clone();
        let row_id = id.clone();
        let write = move |c: &Connection| {
            if let Some(key) = &key
                && let Some((id, same)) = key_lookup(c, key, &body_hash)?
            {
                return Ok(Inserted::Existing { id, same });
            }
            c.prepare_cached("INSERT INTO tasks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?.execute(
                params![
                    row_id,
                    operation,
                    args,
                    selection,
                    timeout_s,
                    created_by,
                    signed(now),
                    signed(expires_at_ms),
                    key,
                    body_hash
                ],
            )?;
            let mut insert = c.prepare_cached(
                "INSERT INTO runs (id, task_id, ordinal, runner_id, runner_name, state, delivered_boot,
                     queued_at_ms, delivered_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?;
            for run in &rows {
                let delivered = (run.state == State::Delivered).then_some(signed(now));
                insert.execute(params![
                    run.id,
                    row_id,
                    run.ordinal,
                    run.runner_id,
                    run.runner_name,
                    run.state.as_str(),
                    run.delivered_boot,
                    signed(now),
                    delivered
                ])?;
            }
            Ok(Inserted::New)
        };
        let (answer, wait) = tokio::sync::oneshot::channel();
        let hub = self.clone();
        self.store
            .submit(Box::new(write), move |result| {
                let outcome = match result {
                    Ok(Inserted::New) => {
                        hub.take_in(task, runs, now);
                        Ok(id)
                    }
                    Ok(Inserted::Existing { id, same: true }) => Ok(id),
                    Ok(Inserted::Existing { same: false, .. }) => Err(SubmitError::KeyReused),
                    Err(e) => Err(SubmitError::Store(e)),
                };
                let _ = answer.send(outcome);
            })
            .await;
        wait.await.unwrap_or_else(|_| Err(SubmitError::Store(StoreError::new("the writer is gone".into()))))
    }

    /// The task is on disk: makes it live and sends what can be sent. On the
    /// store's thread.
    fn take_in(&self, task: Arc<LiveTask>, runs: Vec<LiveRun>, now: u64) {
        self.counters.submitted.fetch_add(1, Ordering::Relaxed);
        task.append(|log| {
            for run in &runs {
                log.add(
                    Kind::State,
                    run.ordinal,
                    0,
                    &state_event(&run.id, &run.runner_name, State::Queued, now, None, None),
                );
                if run.state == State::Delivered {
                    let event = state_event(&run.id, &run.runner_name, State::Delivered, now, None, None);
                    log.add(Kind::State, run.ordinal, 0, &event);
                }
            }
        });
        let mut fleet = self.fleet.lock();
        fleet.tasks.insert(task.id.clone(), task);
        let mut late = Vec::new();
        for mut run in runs {
            let link = fleet.ready_link(&run.runner_id).cloned();
            match (run.state, link) {
                (State::Delivered, Some(link)) => {
                    run.unsent = false;
                    self.send_request(&run, &link);
                }
                // It connected while we wrote.
                (State::Queued, Some(_)) => late.push(run.runner_id.clone()),
                _ => {}
            }
            fleet.insert_run(run);
        }
        for runner_id in late {
            // The connection's own task does the delivering.
            if let Some(link) = fleet.ready_link(&runner_id) {
                let _ = link.sender.send(ToRunner::Deliver);
            }
        }
    }

    async fn find_key(&self, key: String, body_hash: String) -> Result<Option<(String, bool)>, SubmitError> {
        self.store.read(move |c| key_lookup(c, &key, &body_hash)).await.map_err(SubmitError::Store)
    }
}

fn key_lookup(c: &Connection, key: &str, body_hash: &str) -> rusqlite::Result<Option<(String, bool)>> {
    c.prepare_cached("SELECT id, body_hash FROM tasks WHERE idempotency_key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get::<_, String>(1)? == body_hash)))
        .optional()
}

/// The same for bodies that mean the same: maps are sorted, absent is null.
fn body_hash(new: &NewTask) -> String {
    let canonical = serde_json::to_value(new).unwrap_or_default().to_string();
    Sha256::digest(canonical.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

fn check_select(select: &Select) -> Result<Count, SubmitError> {
    if select.labels.is_empty() && select.runner.is_none() {
        return Err(invalid("select", "is empty: give labels, or a runner"));
    }
    if select.labels.iter().any(String::is_empty) {
        return Err(invalid("select.labels", "a label is empty"));
    }
    match &select.count {
        None => Ok(Count::Some(1)),
        Some(Value::String(all)) if all == "all" => Ok(Count::All),
        Some(value) => match value.as_u64().map(usize::try_from) {
            Some(Ok(n)) if (1..=MAX_TARGETS).contains(&n) => Ok(Count::Some(n)),
            _ => Err(invalid("select.count", format!("must be \"all\" or a number from 1 to {MAX_TARGETS}"))),
        },
    }
}

/// The ids of the chosen runners: connected ones first, the least busy first.
fn choose(fleet: &FleetState, select: &Select, count: Count) -> Result<Vec<String>, SubmitError> {
    let mut matching: Vec<_> = fleet
        .runners
        .values()
        .filter(|r| select.runner.as_ref().is_none_or(|wanted| *wanted == r.name || *wanted == r.id))
        .filter(|r| select.labels.iter().all(|l| r.labels.contains(l)))
        .collect();
    if matching.is_empty() {
        return Err(invalid("select", "matches no runner; see GET /api/v1/runners"));
    }
    matching.sort_by_key(|r| (r.link.is_none(), r.open.len(), r.id.clone()));
    let wanted = match count {
        Count::All => matching.len(),
        Count::Some(n) => n,
    };
    if matching.len() > MAX_TARGETS && matches!(count, Count::All) {
        return Err(invalid(
            "select",
            format!("matches {} runners, the most is {MAX_TARGETS}", matching.len()),
        ));
    }
    if matching.len() < wanted {
        return Err(invalid("select.count", format!("asks for {wanted} runners, {} match", matching.len())));
    }
    Ok(matching.into_iter().take(wanted).map(|r| r.id.clone()).collect())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
