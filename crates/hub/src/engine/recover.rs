//! After a restart: everything that was not over is live again.

use std::collections::HashMap;
use std::sync::Arc;

use super::Hub;
use crate::clock::now_ms;
use crate::events::{self, Kind, Log};
use crate::fleet::{LiveRun, LiveTask, Runner, end_event, state_event};
use crate::model::State;
use crate::store::StoreError;

struct Row {
    run: String,
    task: String,
    ordinal: u32,
    runner_id: String,
    runner_name: String,
    state: State,
    boot: String,
    cancel_requested: bool,
    operation: String,
    args: String,
    expires_at_ms: u64,
}

impl Hub {
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), StoreError> {
        let (runners, rows) = self.store.read(|c| Ok((load_runners(c)?, load_runs(c)?))).await?;
        let mut by_task: HashMap<String, Vec<Row>> = HashMap::new();
        for row in rows {
            by_task.entry(row.task.clone()).or_default().push(row);
        }
        let mut live = Vec::new();
        for (task_id, rows) in by_task {
            let mut offsets: HashMap<u32, [u64; 2]> = HashMap::new();
            let mut len = 0;
            let log = Log::reopen(events::path(&self.data, &task_id), |frame| {
                len = frame.end;
                if matches!(frame.kind, Kind::Stdout | Kind::Stderr) {
                    offsets.entry(frame.run).or_default()[frame.kind as usize] =
                        frame.offset + frame.payload.len() as u64;
                }
            })
            .map_err(|e| StoreError::new(format!("failed to reopen the events of {task_id}: {e}")))?;
            let Some(first) = rows.first() else { continue };
            let (operation, args) = (first.operation.clone(), first.args.clone());
            let task =
                Arc::new(LiveTask::new(task_id, operation, args, first.expires_at_ms, log, rows.len()));
            task.reached(len);
            for row in rows {
                live.push(LiveRun {
                    id: row.run,
                    ordinal: row.ordinal,
                    task: task.clone(),
                    runner_id: row.runner_id,
                    runner_name: row.runner_name,
                    state: row.state,
                    delivered_boot: row.boot,
                    unsent: false,
                    cancel_requested: row.cancel_requested,
                    offsets: offsets.get(&row.ordinal).copied().unwrap_or_default(),
                    closing: false,
                });
            }
        }
        let mut fleet = self.fleet.lock();
        for runner in runners {
            fleet.runners.insert(runner.id.clone(), runner);
        }
        for run in live {
            fleet.tasks.insert(run.task.id.clone(), run.task.clone());
            fleet.insert_run(run);
        }
        Ok(())
    }

    /// Makes a finished task's events whole: a crash may have come between the store
    /// and the events.
    pub(crate) async fn repair_events(self: &Arc<Self>, task_id: &str) -> Result<(), StoreError> {
        let _one_at_a_time = self.repairs.lock().await;
        if self.fleet.lock().tasks.contains_key(task_id) {
            return Ok(());
        }
        let id = task_id.to_owned();
        let path = events::path(&self.data, task_id);
        self.store
            .read(move |c| {
                let mut statement = c.prepare_cached(
                    "SELECT ordinal, id, runner_name, state, exit_code, error, finished_at_ms FROM runs
                     WHERE task_id = ?1 ORDER BY ordinal",
                )?;
                let mut seen: HashMap<u32, State> = HashMap::new();
                let mut ended = false;
                let log = Log::reopen(path, |frame| match frame.kind {
                    Kind::End => ended = true,
                    Kind::State => {
                        let event: serde_json::Value =
                            serde_json::from_slice(&frame.payload).unwrap_or_default();
                        if let Some(state) = event["state"].as_str().and_then(State::parse) {
                            seen.insert(frame.run, state);
                        }
                    }
                    Kind::Stdout | Kind::Stderr => {}
                });
                let mut log = log.map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                if ended {
                    return Ok(());
                }
                let mut rows = statement.query([&id])?;
                while let Some(row) = rows.next()? {
                    let ordinal: u32 = row.get(0)?;
                    let state = State::parse(&row.get::<_, String>(3)?).unwrap_or(State::Lost);
                    if seen.get(&ordinal).is_some_and(|s| s.is_final()) {
                        continue;
                    }
                    let (run, runner): (String, String) = (row.get(1)?, row.get(2)?);
                    let error: Option<String> = row.get(5)?;
                    let at = u64::try_from(row.get::<_, Option<i64>>(6)?.unwrap_or(0)).unwrap_or(0);
                    let event = state_event(&run, &runner, state, at, row.get(4)?, error.as_deref());
                    log.add(Kind::State, ordinal, 0, &event);
                }
                log.add(Kind::End, 0, 0, &end_event(&id));
                log.flush().map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                Ok(())
            })
            .await
    }
}

fn load_runners(c: &rusqlite::Connection) -> rusqlite::Result<Vec<Runner>> {
    let mut statement = c.prepare(
        "SELECT id, name, labels, version, environment, boot_id, created_at_ms, last_seen_ms FROM runners",
    )?;
    let rows = statement.query_map([], |row| {
        let labels: String = row.get(2)?;
        let environment: Option<String> = row.get(4)?;
        Ok(Runner {
            id: row.get(0)?,
            name: row.get(1)?,
            labels: serde_json::from_str(&labels).unwrap_or_default(),
            version: row.get(3)?,
            environment: environment.and_then(|e| serde_json::from_str(&e).ok()),
            metrics: None,
            boot_id: row.get(5)?,
            created_at_ms: u64::try_from(row.get::<_, i64>(6)?).unwrap_or(0),
            last_seen_ms: u64::try_from(row.get::<_, i64>(7)?).unwrap_or(0),
            link: None,
            // The grace counts from now: runners could not reach us before.
            offline_since_ms: now_ms(),
            open: std::collections::BTreeSet::new(),
        })
    })?;
    rows.collect()
}

fn load_runs(c: &rusqlite::Connection) -> rusqlite::Result<Vec<Row>> {
    let mut statement = c.prepare(
        "SELECT r.id, r.task_id, r.ordinal, r.runner_id, r.runner_name, r.state, r.delivered_boot,
                r.cancel_requested, t.operation, t.args, t.expires_at_ms
         FROM runs r JOIN tasks t ON t.id = r.task_id
         WHERE r.finished_at_ms IS NULL ORDER BY r.id",
    )?;
    let rows = statement.query_map([], |row| {
        let state: String = row.get(5)?;
        Ok(Row {
            run: row.get(0)?,
            task: row.get(1)?,
            ordinal: row.get(2)?,
            runner_id: row.get(3)?,
            runner_name: row.get(4)?,
            state: State::parse(&state).unwrap_or(State::Queued),
            boot: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
            cancel_requested: row.get::<_, i64>(7)? != 0,
            operation: row.get(8)?,
            args: row.get(9)?,
            expires_at_ms: u64::try_from(row.get::<_, i64>(10)?).unwrap_or(0),
        })
    })?;
    rows.collect()
}
