//! Runs that were given up without their runner's word, and whose runner speaks again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_proto::dialout::{TaskResume, kind};
use rusqlite::{OptionalExtension, params};

use super::Hub;
use super::deliver::message;
use crate::clock::now_ms;
use crate::events::{self, Kind, Log};
use crate::fleet::{Args, LiveRun, LiveTask, NewLiveTask, end_event, state_event};
use crate::model::State;
use crate::store::StoreError;

/// A runner that comes back later has forgotten what it did.
const TOO_LATE: Duration = Duration::from_secs(7 * 86_400);

/// A run that was given up.
struct GivenUp {
    id: String,
    task_id: String,
    ordinal: usize,
    runner_id: String,
    runner_name: String,
    boot: String,
    delivered_ms: u64,
    cancel_requested: bool,
    operation: String,
    timeout_s: u64,
}

const COLUMNS: &str =
    "r.id, r.task_id, r.ordinal, r.runner_id, r.runner_name, r.delivered_boot, r.delivered_at_ms,
     r.cancel_requested, t.operation, t.timeout_s FROM runs r JOIN tasks t ON t.id = r.task_id
     WHERE r.unconfirmed = 1";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<GivenUp> {
    let unsigned = |n: Option<i64>| u64::try_from(n.unwrap_or(0)).unwrap_or(0);
    Ok(GivenUp {
        id: row.get(0)?,
        task_id: row.get(1)?,
        ordinal: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        runner_id: row.get(3)?,
        runner_name: row.get(4)?,
        boot: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
        delivered_ms: unsigned(row.get(6)?),
        cancel_requested: row.get(7)?,
        operation: row.get(8)?,
        timeout_s: unsigned(row.get(9)?),
    })
}

impl Hub {
    /// A runner of ours is back: what was given up of it goes on, if its machine was not
    /// restarted.
    pub(super) async fn revive_of(self: &Arc<Self>, runner_id: &str) {
        let boot = match self.fleet.lock().runners.get(runner_id) {
            Some(runner) if runner.acks => runner.boot_id.clone(),
            _ => return,
        };
        let id = runner_id.to_owned();
        let since = i64::try_from(now_ms().saturating_sub(u64::try_from(TOO_LATE.as_millis()).unwrap_or(0)));
        let found = self
            .store
            .read(move |c| {
                let sql = format!("SELECT {COLUMNS} AND r.runner_id = ?1 AND r.finished_at_ms > ?2");
                let mut statement = c.prepare_cached(&sql)?;
                statement
                    .query_map(params![id, since.unwrap_or(0)], row)?
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .await;
        let found = match found {
            Ok(found) => found,
            Err(error) => return tracing::error!("what was given up of a runner is not looked at: {error}"),
        };
        for run in found {
            if !run.boot.is_empty() && run.boot != boot {
                continue;
            }
            let id = run.id.clone();
            match self.revive(run).await {
                Ok(true) => self.ask_on(runner_id, &id),
                Ok(false) => {}
                Err(error) => tracing::error!(run = %id, "a run that was given up stays so: {error}"),
            }
        }
    }

    /// Asks for the rest of a run, or for its end.
    fn ask_on(&self, runner_id: &str, run_id: &str) {
        let fleet = self.fleet.lock();
        let (Some(run), Some(link)) = (fleet.runs.get(run_id), fleet.ready_link(runner_id)) else { return };
        let [stdout, stderr] = run.offsets;
        link.send(message(kind::TASK_RESUME, &TaskResume { task_id: run.id.clone(), stdout, stderr }));
        if run.cancel_requested.is_some() {
            Self::send_cancel(link, run_id);
        }
    }

    /// A result has come for a run that is not live: whether it was given up, and is live now.
    pub(super) async fn revive_run(self: &Arc<Self>, runner_id: &str, run_id: &str) -> bool {
        let ids = (run_id.to_owned(), runner_id.to_owned());
        let found = self
            .store
            .read(move |c| {
                let sql = format!("SELECT {COLUMNS} AND r.id = ?1 AND r.runner_id = ?2");
                c.prepare_cached(&sql)?.query_row(params![ids.0, ids.1], row).optional()
            })
            .await;
        let revived = match found {
            Ok(Some(run)) => self.revive(run).await,
            Ok(None) => return false,
            Err(error) => Err(error),
        };
        revived.unwrap_or_else(|error| {
            tracing::error!(run = run_id, "a result came for a run that was given up: {error}");
            false
        })
    }

    async fn revive(self: &Arc<Self>, run: GivenUp) -> Result<bool, StoreError> {
        let _one_at_a_time = self.repairs.lock().await;
        let live = self.fleet.lock().tasks.get(&run.task_id).cloned();
        let task = match live {
            Some(task) => task,
            None => Arc::new(self.reopened(&run)?),
        };
        let id = run.id.clone();
        let changed = self
            .store
            .write(move |c| {
                c.execute(
                    "UPDATE runs SET state = 'running', finished_at_ms = NULL, error = NULL, unconfirmed = 0
                     WHERE id = ?1 AND unconfirmed = 1",
                    [id],
                )
            })
            .await?;
        if changed == 0 {
            return Ok(false);
        }
        let event = state_event(&run.id, &run.runner_name, State::Running, now_ms(), None, None, None);
        let ordinal = u32::try_from(run.ordinal).unwrap_or(u32::MAX);
        task.append(|log| log.add(Kind::State, ordinal, 0, &event));
        task.reopen_run();
        let mut fleet = self.fleet.lock();
        let Some(runner) = fleet.runners.get(&run.runner_id) else { return Ok(false) };
        let revived = LiveRun {
            id: run.id,
            runner_name: run.runner_name,
            state: State::Running,
            cancel_requested: run.cancel_requested.then(Instant::now),
            offsets: task.stored(ordinal),
            ..LiveRun::new(task.clone(), run.ordinal, runner, run.boot, run.delivered_ms)
        };
        fleet.tasks.insert(task.id.clone(), task);
        fleet.insert_run(revived);
        Ok(true)
    }

    /// A task that was over.
    fn reopened(&self, run: &GivenUp) -> Result<LiveTask, StoreError> {
        let failed = |e: std::io::Error| StoreError::new(format!("its events can't be opened: {e}"));
        let mut log = Log::reopen(events::path(&self.data, &run.task_id), |_| {}).map_err(failed)?;
        log.take_end_back(&end_event(&run.task_id)).map_err(failed)?;
        let len = log.len();
        let task = LiveTask::new(NewLiveTask {
            id: run.task_id.clone(),
            operation: run.operation.clone(),
            // It was sent, and is not sent again.
            args: Args::stored(),
            timeout_s: run.timeout_s,
            expires: Instant::now(),
            requester: None,
            log,
            open: 0,
        });
        task.reached(len);
        Ok(task)
    }

    /// Notes that the end of runs is wanted that were given up, and says so to their runners;
    /// returns whether there are any.
    pub(super) async fn cancel_given_up(self: &Arc<Self>, task_id: &str) -> bool {
        let id = task_id.to_owned();
        let written = self
            .store
            .write(move |c| {
                let mut statement = c.prepare_cached(
                    "UPDATE runs SET cancel_requested = 1 WHERE task_id = ?1 AND unconfirmed = 1
                     RETURNING id, runner_id",
                )?;
                let rows = statement
                    .query_map([id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })
            .await;
        let runs = written.unwrap_or_else(|error| {
            tracing::error!("a cancel was not recorded: {error}");
            Vec::new()
        });
        let fleet = self.fleet.lock();
        for (run, runner) in &runs {
            if let Some(link) = fleet.ready_link(runner) {
                Self::send_cancel(link, run);
            }
        }
        !runs.is_empty()
    }
}
