//! After a restart: everything that was not over is live again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::output::add_tail;
use super::{Ending, Hub};
use crate::clock::now_ms;
use crate::events::{self, Kind, Log};
use crate::fleet::{Args, LiveRun, LiveTask, NewLiveTask, Requester, Runner, end_event, state_event};
use crate::model::State;
use crate::store::StoreError;

struct Row {
    run: String,
    task: String,
    ordinal: usize,
    runner_id: String,
    runner_name: String,
    /// `None` if it is none that we know.
    state: Option<State>,
    boot: String,
    cancel_requested: bool,
    delivered_ms: u64,
    operation: String,
    args: String,
    timeout_s: u64,
    created_by: Requester,
    expires_at_ms: u64,
}

impl Hub {
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), StoreError> {
        let (runners, rows) = self.store.read(|c| Ok((load_runners(c)?, load_runs(c)?))).await?;
        let good: std::collections::HashSet<String> =
            self.auth.list().into_iter().filter(|t| t.is_good()).map(|t| t.id).collect();
        let mut by_task: HashMap<String, Vec<Row>> = HashMap::new();
        for row in rows {
            by_task.entry(row.task.clone()).or_default().push(row);
        }
        {
            let mut fleet = self.fleet.lock();
            for mut runner in runners {
                runner.revoked = !good.contains(&runner.token_id);
                fleet.add_runner(runner);
            }
        }
        // What can't be taken up again must not keep the rest from it.
        let mut given_up = Vec::new();
        for (task_id, rows) in by_task {
            let opened = Log::reopen(events::path(&self.data, &task_id), |_| {});
            let why = opened.as_ref().err().map(|e| format!("the hub can't open the task's events: {e}"));
            let log = opened.unwrap_or_else(|_| Log::new(events::path(&self.data, &task_id)));
            let Some(first) = rows.first() else { continue };
            let len = log.len();
            let task = Arc::new(LiveTask::new(NewLiveTask {
                id: task_id,
                operation: first.operation.clone(),
                args: if first.args.is_empty() { Args::stored() } else { Args::new(&first.args) },
                timeout_s: first.timeout_s,
                expires: Instant::now() + Duration::from_millis(first.expires_at_ms.saturating_sub(now_ms())),
                requester: Some(first.created_by.clone()),
                log,
                open: rows.len(),
            }));
            task.reached(len);
            let mut fleet = self.fleet.lock();
            fleet.tasks.insert(task.id.clone(), task.clone());
            for row in rows {
                let why = match row.state {
                    None => Some("the hub does not know the state that is stored of it".to_owned()),
                    Some(_) => why.clone(),
                };
                given_up.extend(why.map(|why| (row.run.clone(), why)));
                fleet.insert_run(live(row, task.clone()));
            }
        }
        for (run, why) in given_up {
            tracing::error!(run = %run, "a run is lost: {why}");
            self.finish(&run, Ending::lost(&why), None).await;
        }
        Ok(())
    }

    /// Makes a finished task's events whole: a crash may have come between the store
    /// and the events.
    pub(crate) async fn repair_events(self: &Arc<Self>, task_id: &str) -> Result<(), StoreError> {
        let path = events::path(&self.data, task_id);
        let end = end_event(task_id);
        // Nearly always it is whole, and its last bytes say so.
        if events::is_ended(&path, &end).unwrap_or(false) {
            return Ok(());
        }
        let _one_at_a_time = self.repairs.lock().await;
        let (id, most) = (task_id.to_owned(), self.settings.max_output);
        let rows = self
            .store
            .read(move |c| {
                let mut statement = c.prepare_cached(
                    "SELECT ordinal, id, runner_name, state, exit_code, error, finished_at_ms,
                         coalesce(result, (SELECT body FROM payloads WHERE id = runs.id)), suggestion
                     FROM runs WHERE task_id = ?1 ORDER BY ordinal",
                )?;
                statement.query_map([&id], ended_run)?.collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        if self.fleet.lock().tasks.contains_key(task_id) {
            return Ok(());
        }
        let repaired = tokio::task::spawn_blocking(move || repair(path, &end, &rows, most)).await;
        repaired
            .map_err(|e| StoreError::new(e.to_string()))?
            .map_err(|e| StoreError::new(format!("the task's events can't be repaired: {e}")))
    }
}

/// A run that is over, as its events should tell it.
struct EndedRun {
    ordinal: u32,
    id: String,
    event: Vec<u8>,
    is_over: bool,
    result: Option<String>,
}

fn ended_run(row: &rusqlite::Row<'_>) -> rusqlite::Result<EndedRun> {
    let state = State::parse(&row.get::<_, String>(3)?).unwrap_or(State::Lost);
    let (id, runner): (String, String) = (row.get(1)?, row.get(2)?);
    let (error, suggestion): (Option<String>, Option<String>) = (row.get(5)?, row.get(8)?);
    let at = u64::try_from(row.get::<_, Option<i64>>(6)?.unwrap_or(0)).unwrap_or(0);
    Ok(EndedRun {
        ordinal: row.get(0)?,
        event: state_event(&id, &runner, state, at, row.get(4)?, error.as_deref(), suggestion.as_deref()),
        id,
        is_over: state.is_final(),
        result: row.get(7)?,
    })
}

fn repair(path: std::path::PathBuf, end: &[u8], rows: &[EndedRun], most: u64) -> std::io::Result<()> {
    let mut seen: HashMap<u32, State> = HashMap::new();
    let mut ended = false;
    let mut log = Log::reopen(path, |frame| match frame.kind {
        Kind::End => ended = true,
        Kind::State => {
            let event: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
            if let Some(state) = event["state"].as_str().and_then(State::parse) {
                seen.insert(frame.run, state);
            }
        }
        Kind::Stdout | Kind::Stderr | Kind::Gap => {}
    })?;
    if ended || rows.iter().any(|row| !row.is_over) {
        return Ok(());
    }
    for row in rows.iter().filter(|row| !seen.get(&row.ordinal).is_some_and(|s| s.is_final())) {
        // A run that streamed nothing may be an original's: its result is its output.
        let has_streamed = log.stored(row.ordinal, Kind::Stdout) + log.stored(row.ordinal, Kind::Stderr) > 0;
        if let Some(result) = row.result.as_ref().filter(|_| has_streamed) {
            add_tail(&mut log, &row.id, row.ordinal, result, most);
        }
        log.add(Kind::State, row.ordinal, 0, &row.event);
    }
    log.add(Kind::End, 0, 0, end);
    log.flush().map(|_| ())
}

fn live(row: Row, task: Arc<LiveTask>) -> LiveRun {
    let ordinal = u32::try_from(row.ordinal).unwrap_or(u32::MAX);
    let now = Instant::now();
    LiveRun {
        id: row.run,
        ordinal,
        offsets: task.stored(ordinal),
        task,
        runner_id: row.runner_id,
        runner_name: row.runner_name,
        // Never one that is handed out again.
        state: row.state.unwrap_or(State::Delivered),
        delivered_boot: row.boot,
        // Times count from now: runners could not reach us before.
        delivered: now,
        delivered_ms: row.delivered_ms,
        heard: now,
        unsent: false,
        cancel_requested: row.cancel_requested.then_some(now),
        stalled: false,
        held: None,
        cut: [false; 2],
        closing: false,
    }
}

fn load_runners(c: &rusqlite::Connection) -> rusqlite::Result<Vec<Runner>> {
    let mut statement = c.prepare(
        "SELECT id, name, labels, version, environment, boot_id, created_at_ms, last_seen_ms, token_id,
             display_name, set_labels, drained,
             (SELECT name FROM tokens WHERE tokens.id = token_id AND tokens.role = 'runner')
         FROM runners",
    )?;
    let rows = statement.query_map([], |row| {
        let list = |i: usize| -> rusqlite::Result<Vec<String>> {
            let text = row.get::<_, Option<String>>(i)?.unwrap_or_default();
            Ok(serde_json::from_str(&text).unwrap_or_default())
        };
        let environment: Option<String> = row.get(4)?;
        let token_id = row.get::<_, Option<String>>(8)?.unwrap_or_default();
        let mut runner = Runner {
            own_labels: list(2)?,
            set_labels: list(10)?,
            version: row.get(3)?,
            environment: environment.and_then(|e| serde_json::from_str(&e).ok()),
            boot_id: row.get(5)?,
            created_at_ms: u64::try_from(row.get::<_, i64>(6)?).unwrap_or(0),
            last_seen_ms: u64::try_from(row.get::<_, i64>(7)?).unwrap_or(0),
            display_name: row.get(9)?,
            drained: row.get(11)?,
            given_name: row.get::<_, Option<String>>(12)?.unwrap_or_default(),
            // The grace counts from now: runners could not reach us before.
            ..Runner::new(row.get(0)?, row.get(1)?, token_id)
        };
        // Only ours have a boot to tell.
        runner.acks = !runner.boot_id.is_empty();
        runner.join_labels();
        Ok(runner)
    })?;
    rows.collect()
}

fn load_runs(c: &rusqlite::Connection) -> rusqlite::Result<Vec<Row>> {
    let mut statement = c.prepare(
        "SELECT r.id, r.task_id, r.ordinal, r.runner_id, r.runner_name, r.state, r.delivered_boot,
                r.cancel_requested, t.operation, t.args, t.expires_at_ms, t.timeout_s, t.created_by,
                t.token_id, r.delivered_at_ms
         FROM runs r JOIN tasks t ON t.id = r.task_id
         WHERE r.finished_at_ms IS NULL ORDER BY r.id",
    )?;
    let unsigned = |n: Option<i64>| u64::try_from(n.unwrap_or(0)).unwrap_or(0);
    let rows = statement.query_map([], |row| {
        let state: String = row.get(5)?;
        Ok(Row {
            run: row.get(0)?,
            task: row.get(1)?,
            ordinal: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            runner_id: row.get(3)?,
            runner_name: row.get(4)?,
            state: State::parse(&state),
            boot: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
            cancel_requested: row.get::<_, i64>(7)? != 0,
            operation: row.get(8)?,
            args: row.get(9)?,
            expires_at_ms: unsigned(row.get(10)?),
            timeout_s: unsigned(row.get(11)?),
            created_by: Requester {
                name: row.get(12)?,
                token_id: row.get::<_, Option<String>>(13)?.unwrap_or_default(),
            },
            delivered_ms: unsigned(row.get(14)?),
        })
    })?;
    rows.collect()
}
