//! Taking a task in: check, choose the runners, make it durable, hand it out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use legwork_api::NewTask;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::Hub;
use super::args::{bounded, brief, check_args};
use super::choose::{check_select, choose};
use crate::auth::Token;
use crate::clock::{now_ms, sortable_id};
use crate::events::{self, Kind, Log};
use crate::fleet::{Args, LiveRun, LiveTask, NewLiveTask, Requester, ToRunner, state_event};
use crate::model::State;
use crate::store::{StoreError, put_payload};

const DEFAULT_EXPIRES_S: i64 = 86_400;
const MAX_EXPIRES_S: i64 = 30 * 86_400;
const MAX_KEY: usize = 255;

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

enum Inserted {
    New,
    Existing { id: String, same: bool },
}

/// A task's row in the store.
struct TaskRow {
    id: String,
    operation: String,
    args: String,
    selection: String,
    timeout_s: i64,
    created_by: Requester,
    created_at_ms: u64,
    expires_at_ms: u64,
    key: Option<String>,
    body_hash: String,
}

impl TaskRow {
    /// Writes it and its runs, unless its key is known.
    fn insert(&self, c: &Connection, runs: &[LiveRun]) -> rusqlite::Result<Inserted> {
        if let Some(key) = &self.key
            && let Some((id, same)) = key_lookup(c, key, &self.body_hash)?
        {
            return Ok(Inserted::Existing { id, same });
        }
        c.prepare_cached(
            "INSERT INTO tasks (id, operation, args, selection, timeout_s, created_by, created_at_ms,
                 expires_at_ms, idempotency_key, body_hash, brief, token_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            self.id,
            self.operation,
            put_payload(c, &self.id, &self.args)?.unwrap_or_default(),
            self.selection,
            self.timeout_s,
            self.created_by.name,
            signed(self.created_at_ms),
            signed(self.expires_at_ms),
            self.key,
            self.body_hash,
            brief(&self.operation, &self.args),
            self.created_by.token_id,
        ])?;
        let mut insert = c.prepare_cached(
            "INSERT INTO runs (id, task_id, ordinal, runner_id, runner_name, state, delivered_boot,
                 queued_at_ms, delivered_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for run in runs {
            let delivered = (run.state == State::Delivered).then_some(signed(self.created_at_ms));
            insert.execute(params![
                run.id,
                self.id,
                run.ordinal,
                run.runner_id,
                run.runner_name,
                run.state.as_str(),
                run.delivered_boot,
                signed(self.created_at_ms),
                delivered
            ])?;
        }
        Ok(Inserted::New)
    }
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
        // A repeated request gets its task even if its runners are gone by now.
        if let Some(key) = key.clone()
            && let Some((id, same)) = self.find_key(key, body_hash.clone()).await?
        {
            return if same { Ok(id) } else { Err(SubmitError::KeyReused) };
        }
        let now = now_ms();
        let id = sortable_id("tsk").map_err(|e| SubmitError::Store(StoreError::from_random(&e)))?;
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
                log: Log::new(events::path(&self.data, &id)),
                open: targets.len(),
            }));
            let mut runs = Vec::with_capacity(targets.len());
            for (ordinal, runner_id) in targets.iter().enumerate() {
                let Some(runner) = fleet.runners.get(runner_id) else { continue };
                let online = runner.link.as_ref().is_some_and(|link| link.ready);
                let boot = if online { runner.boot_id.clone() } else { String::new() };
                runs.push(LiveRun {
                    id: sortable_id("run").map_err(|e| SubmitError::Store(StoreError::from_random(&e)))?,
                    // Durable as delivered before it is sent: a crash in between can't
                    // make the original run it twice.
                    state: if online { State::Delivered } else { State::Queued },
                    unsent: true,
                    ..LiveRun::new(task.clone(), ordinal, runner, boot, now)
                });
            }
            (task, runs)
        };
        let row = TaskRow {
            id: id.clone(),
            operation: new.operation,
            args,
            selection: serde_json::to_string(&new.select).unwrap_or_default(),
            timeout_s,
            created_by,
            created_at_ms: now,
            expires_at_ms: now + expires_s * 1000,
            key,
            body_hash,
        };
        let rows = runs.clone();
        let (answer, wait) = tokio::sync::oneshot::channel();
        let hub = self.clone();
        self.store
            .submit(Box::new(move |c: &Connection| row.insert(c, &rows)), move |result| {
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
            match (run.state, link) {
                (State::Delivered, Some(link)) => {
                    run.unsent = false;
                    Self::send_request(&run, &link);
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

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
