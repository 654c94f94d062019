//! Taking a task in: check, choose the runners, make it durable, hand it out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use legwork_api::NewTask;
use legwork_store::{Keyed, NewRun, NewTask as Row, Scope, StoreError, Submitted, Token};
use sha2::{Digest, Sha256};

use super::args::{bounded, brief, check_args};
use super::choose::{check_select, choose};
use super::{Hub, no_randomness};
use crate::clock::{Instant, now_ms, sortable_id};
use crate::events::{Kind, Log};
use crate::fleet::{Args, LiveRun, LiveTask, NewLiveTask, Requester, ToRunner, state_event};
use crate::model::State;

const DEFAULT_EXPIRES_S: i64 = 86_400;
const MAX_EXPIRES_S: i64 = 30 * 86_400;
const MAX_KEY: usize = 255;
const MAX_REASON: usize = 1000;

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
    /// It asks for what is others'.
    Forbidden(String),
    Store(StoreError),
}

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> SubmitError {
    SubmitError::Invalid { field, reason: reason.into() }
}

impl Hub {
    /// Takes a task; returns its id once it is durable.
    pub(crate) async fn submit(self: &Arc<Self>, new: NewTask, by: &Token) -> Result<String, SubmitError> {
        let body_hash = body_hash(&new);
        let count = check_select(&new.select)?;
        let (args, timeout_s) = check_args(&new)?;
        let expires_s = bounded("expires_s", new.expires_s, DEFAULT_EXPIRES_S, MAX_EXPIRES_S)?.unsigned_abs();
        let key = new.idempotency_key.clone();
        if key.as_ref().is_some_and(|k| k.is_empty() || k.len() > MAX_KEY) {
            return Err(invalid("idempotency_key", format!("must be 1 to {MAX_KEY} bytes long")));
        }
        if new.reason.as_ref().is_some_and(|r| r.trim().is_empty() || r.len() > MAX_REASON) {
            return Err(invalid("reason", format!("must be 1 to {MAX_REASON} bytes long")));
        }
        // A repeated request gets its task even if its runners are gone by now.
        if let Some(key) = key.clone()
            && let Some(known) = self.store.find_key(Scope::Runners, key).await.map_err(SubmitError::Store)?
        {
            return known_task(known, &body_hash);
        }
        let now = now_ms();
        let id = sortable_id("tsk").map_err(|e| SubmitError::Store(no_randomness(&e)))?;
        let created_by = Requester { name: by.name.clone(), token_id: by.id.clone() };
        let (task, runs) = {
            let fleet = self.fleet.lock();
            let targets = choose(&fleet, &new.select, count)?;
            let task = Arc::new(LiveTask::new(NewLiveTask {
                id: id.clone(),
                operation: new.operation.clone(),
                args: Args::new(&args),
                timeout_s: timeout_s.unsigned_abs(),
                expires: Instant::now() + Duration::from_secs(expires_s),
                requester: Some(created_by.clone()),
                reason: new.reason.clone(),
                log: Log::new(self.logs.clone(), &id),
                open: targets.len(),
            }));
            let mut runs = Vec::with_capacity(targets.len());
            for (ordinal, runner_id) in targets.iter().enumerate() {
                let Some(runner) = fleet.runners.get(runner_id) else { continue };
                let online = runner.link.as_ref().is_some_and(|link| link.ready);
                let boot = if online { runner.boot_id.clone() } else { String::new() };
                runs.push(LiveRun {
                    id: sortable_id("run").map_err(|e| SubmitError::Store(no_randomness(&e)))?,
                    // Durable as delivered before it is sent: a crash in between can't
                    // make the original run it twice.
                    state: if online { State::Delivered } else { State::Queued },
                    unsent: true,
                    ..LiveRun::new(
                        task.clone(),
                        u32::try_from(ordinal).unwrap_or(u32::MAX),
                        runner,
                        boot,
                        now,
                    )
                });
            }
            (task, runs)
        };
        let row = Row {
            id: id.clone(),
            brief: brief(&new.operation, &args),
            operation: new.operation,
            args,
            selection: serde_json::to_string(&new.select).unwrap_or_default(),
            timeout_s: timeout_s.unsigned_abs(),
            created_by: created_by.name,
            token_id: created_by.token_id,
            created_at_ms: now,
            expires_at_ms: now + expires_s * 1000,
            idempotency_key: key,
            body_hash: body_hash.clone(),
            scope: Scope::Runners,
            session_id: None,
            reason: new.reason,
        };
        let rows = runs.iter().map(row_of).collect();
        let (answer, wait) = tokio::sync::oneshot::channel();
        let hub = self.clone();
        let then = move |result| {
            let outcome = match result {
                Ok(Submitted::New(_)) => {
                    hub.take_in(task, runs, now);
                    Ok(id)
                }
                Ok(Submitted::Known(known)) => known_task(known, &body_hash),
                Err(e) => Err(SubmitError::Store(e)),
            };
            let _ = answer.send(outcome);
        };
        self.store.submit(row, rows, Box::new(then)).await;
        wait.await.unwrap_or_else(|_| Err(SubmitError::Store(StoreError::new("it is closed"))))
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
                    &state_event(&run.id, &run.runner_name, State::Queued, now, None, None, None),
                );
                if run.state == State::Delivered {
                    let event =
                        state_event(&run.id, &run.runner_name, State::Delivered, now, None, None, None);
                    log.add(Kind::State, run.ordinal, 0, &event);
                }
            }
        });
        let mut fleet = self.fleet.lock();
        fleet.tasks.insert(task.id.clone(), task);
        let mut late = Vec::new();
        for mut run in runs {
            (run.delivered, run.heard) = (Instant::now(), Instant::now());
            let link = fleet.ready_link(&run.runner_id).cloned();
            let boot = fleet.runners.get(&run.runner_id).map(|runner| runner.boot_id.as_str());
            match link {
                Some(link) if run.state == State::Delivered && boot == Some(&run.delivered_boot) => {
                    run.unsent = false;
                    Self::send_request(&run, &link);
                }
                // It connected, or was started anew, while we wrote.
                Some(_) => late.push(run.runner_id.clone()),
                None => {}
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
}

fn row_of(run: &LiveRun) -> NewRun {
    NewRun {
        id: run.id.clone(),
        ordinal: run.ordinal,
        runner_id: run.runner_id.clone(),
        runner_name: run.runner_name.clone(),
        state: run.state,
        delivered_boot: run.delivered_boot.clone(),
    }
}

/// The task of a key, if it is the same that was asked.
fn known_task(known: Keyed, body_hash: &str) -> Result<String, SubmitError> {
    if known.body_hash == body_hash { Ok(known.id) } else { Err(SubmitError::KeyReused) }
}

/// The same for bodies that mean the same: maps are sorted, absent is null.
fn body_hash(new: &NewTask) -> String {
    let canonical = serde_json::to_value(new).unwrap_or_default().to_string();
    Sha256::digest(canonical.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}
