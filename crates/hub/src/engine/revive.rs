//! Runs that were given up without their runner's word, and whose runner speaks again.

use std::sync::Arc;
use std::time::Duration;

use legwork_proto::dialout::{OutcomeWord, TaskResult, TaskResume, kind};
use legwork_store::{GivenUp, StoreError, done};

use super::deliver::message;
use super::recover::Seen;
use super::{Ending, Hub};
use crate::clock::{Instant, now_ms};
use crate::events::{Kind, Log};
use crate::fleet::{Args, LiveRun, LiveTask, NewLiveTask, state_event};
use crate::model::State;

/// A runner that comes back later has forgotten what it did.
const TOO_LATE: Duration = Duration::from_secs(7 * 86_400);

impl Hub {
    /// A runner of ours is back: what was given up of it goes on, if its machine was not
    /// restarted.
    pub(super) async fn revive_of(self: &Arc<Self>, runner_id: &str) {
        let boot = match self.fleet.lock().runners.get(runner_id) {
            Some(runner) if runner.acks => runner.boot_id.clone(),
            _ => return,
        };
        let since = now_ms().saturating_sub(u64::try_from(TOO_LATE.as_millis()).unwrap_or(0));
        let found = self.store.given_up_of(runner_id.to_owned(), since).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => return tracing::error!("what was given up of a runner is not looked at: {error}"),
        };
        for run in found {
            if !run.delivered_boot.is_empty() && run.delivered_boot != boot {
                continue;
            }
            let id = run.id.clone();
            let _one_at_a_time = self.repairs.lock().await;
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
    pub(super) async fn revive_run(
        self: &Arc<Self>,
        runner_id: &str,
        result: &TaskResult,
    ) -> Result<bool, StoreError> {
        let _one_at_a_time = self.repairs.lock().await;
        // It came back while we waited.
        if self.fleet.lock().runs.contains_key(&result.task_id) {
            return Ok(true);
        }
        match self.store.given_up(result.task_id.clone(), runner_id.to_owned()).await? {
            // It says the same.
            Some(run) if run.state == State::Lost && result.outcome == Some(OutcomeWord::Lost) => Ok(false),
            Some(run) => self.revive(run).await,
            None => Ok(false),
        }
    }

    /// To be called by one at a time.
    async fn revive(self: &Arc<Self>, run: GivenUp) -> Result<bool, StoreError> {
        if !self.store.revive(run.id.clone()).await? {
            return Ok(false);
        }
        // The end that it had was stored before that: it is told by now, or is told here.
        self.log.settled().await;
        let live = self.fleet.lock().tasks.get(&run.task_id).cloned();
        let task = match live {
            Some(task) => task,
            None => match self.reopened(&run).await {
                Ok(task) => Arc::new(task),
                Err(error) => {
                    let ending = Ending::given_up("the hub can't open the task's events");
                    done(|then| self.store.finish(run.id, ending.0, now_ms(), then)).await?;
                    return Err(error);
                }
            },
        };
        let event = state_event(&run.id, &run.runner_name, State::Running, now_ms(), None, None, None);
        let ordinal = run.ordinal;
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
            ..LiveRun::new(task.clone(), run.ordinal, runner, run.delivered_boot, run.delivered_at_ms)
        };
        fleet.tasks.insert(task.id.clone(), task);
        fleet.insert_run(revived);
        Ok(true)
    }

    /// A task that was over.
    async fn reopened(&self, run: &GivenUp) -> Result<LiveTask, StoreError> {
        let failed = |e: std::io::Error| StoreError::new(format!("its events can't be opened: {e}"));
        // What it still has to write comes before what is to come.
        let unwritten: Vec<_> = {
            let mut fleet = self.fleet.lock();
            fleet.unwritten.extract_if(.., |task| task.id == run.task_id).collect()
        };
        for task in unwritten {
            if !task.append(|_| {}) {
                self.fleet.lock().unwritten.push(task);
                return Err(failed(std::io::ErrorKind::StorageFull.into()));
            }
        }
        let ended = self.store.task(run.task_id.clone()).await?.map(|task| self.ended_runs(task));
        let mut seen = Seen::default();
        let mut log =
            Log::reopen(self.logs.clone(), &run.task_id, |frame| seen.see(frame)).map_err(failed)?;
        log.take_end_back().map_err(failed)?;
        // Of others the hub may have gone down before it told their ends.
        seen.tell_the_rest(&mut log, &ended.unwrap_or_default(), self.settings.max_output);
        log.flush().map_err(failed)?;
        let len = log.len();
        let task = LiveTask::new(NewLiveTask {
            id: run.task_id.clone(),
            operation: run.operation.clone(),
            // It was sent, and is not sent again.
            args: Args::stored(),
            timeout_s: run.timeout_s,
            expires: Instant::now(),
            requester: None,
            reason: None,
            log,
            open: 0,
        });
        task.reached(len);
        Ok(task)
    }

    /// Notes that the end of runs is wanted that were given up, and says so to their runners.
    pub(super) async fn cancel_given_up(self: &Arc<Self>, task_id: &str) -> Result<(), StoreError> {
        let runs = self.store.cancel_given_up(task_id.to_owned()).await?;
        let fleet = self.fleet.lock();
        for (run, runner) in &runs {
            if let Some(link) = fleet.ready_link(runner) {
                Self::send_cancel(link, run);
            }
        }
        Ok(())
    }
}
