//! After a restart: everything that was not over is live again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use legwork_store::{ApprovalState, OpenApproval, OpenRun, Run, StoreError, Task};

use super::output::add_tail;
use super::{Ending, Hub};
use crate::auth::is_good;
use crate::clock::{Instant, now_ms};
use crate::events::{Frame, Kind, Log, Logs};
use crate::fleet::{
    Args, LiveApproval, LiveRun, LiveTask, NewLiveTask, Requester, Runner, end_event, state_event,
};
use crate::model::State;

impl Hub {
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), StoreError> {
        let runners = self.store.runners().await?;
        let rows = self.store.open_runs().await?.into_iter().filter(|run| run.number.is_none());
        let good: std::collections::HashSet<String> =
            self.auth.list().into_iter().filter(is_good).map(|t| t.id).collect();
        let mut by_task: BTreeMap<String, Vec<OpenRun>> = BTreeMap::new();
        for row in rows {
            by_task.entry(row.task_id.clone()).or_default().push(row);
        }
        {
            let mut fleet = self.fleet.lock();
            for row in runners {
                // The grace counts from now: runners could not reach us before.
                let mut runner = Runner::of(row);
                runner.revoked = !good.contains(&runner.token_id);
                fleet.add_runner(runner);
            }
        }
        // What can't be taken up again must not keep the rest from it.
        let mut given_up = Vec::new();
        let mut denied = Vec::new();
        for (task_id, rows) in by_task {
            let mut seen = Seen::default();
            let opened = Log::reopen(self.logs.clone(), &task_id, |frame| seen.see(frame));
            let why = opened.as_ref().err().map(|e| format!("the hub can't open the task's events: {e}"));
            let mut log = opened.unwrap_or_else(|_| Log::new(self.logs.clone(), &task_id));
            // It goes on: the hub went down when one that was given up came back.
            if seen.ended
                && let Err(error) = log.take_end_back()
            {
                tracing::error!(task = %task_id, "failed to take an end back: {error}");
            }
            // Of those that are over, or came back, the hub may have gone down before it told that.
            if rows.iter().any(|row| row.others_over)
                && let Some(task) = self.store.task(task_id.clone()).await?
            {
                let ended = self.ended_runs(task);
                seen.tell_the_rest(&mut log, &ended, self.settings.max_output);
            }
            seen.tell_who_came_back(&mut log, &rows);
            if let Err(error) = log.flush() {
                tracing::error!(task = %task_id, "failed to append events: {error}");
            }
            let Some(first) = rows.first() else { continue };
            let len = log.len();
            let task = Arc::new(LiveTask::new(NewLiveTask {
                id: task_id,
                operation: first.operation.clone(),
                args: if first.args.is_empty() { Args::stored() } else { Args::new(&first.args) },
                timeout_s: first.timeout_s,
                expires: Instant::now() + Duration::from_millis(first.expires_at_ms.saturating_sub(now_ms())),
                requester: Some(Requester {
                    name: first.created_by.clone(),
                    token_id: first.token_id.clone(),
                }),
                reason: first.reason.clone(),
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
                given_up.extend(why.map(|why| (row.id.clone(), why)));
                // A person has said no, and the hub went down before the run had its end.
                let is_denied = |a: &&OpenApproval| a.state == ApprovalState::Denied;
                let said_no =
                    row.approval.as_ref().filter(is_denied).filter(|_| row.state == Some(State::Held));
                denied.extend(said_no.map(|approval| approval.id.clone()));
                fleet.insert_run(live(row, task.clone()));
            }
        }
        for (run, why) in given_up {
            tracing::error!(run = %run, "a run is lost: {why}");
            self.finish(&run, Ending::lost(&why), None).await;
        }
        for id in denied {
            if let Some(approval) = self.store.approval(id).await? {
                self.denied(&approval).await;
            }
        }
        Ok(())
    }

    pub(super) fn ended_runs(&self, task: Task) -> Vec<EndedRun> {
        let is_bash = task.operation == "bash";
        let fleet = self.fleet.lock();
        let streams = |run: &Run| is_bash && fleet.runners.get(&run.runner_id).is_some_and(|r| r.acks);
        task.runs.into_iter().map(|run| ended_run(streams(&run), run)).collect()
    }

    /// Makes a finished task's events whole: a crash may have come between the store
    /// and the events.
    pub(crate) async fn repair_events(self: &Arc<Self>, task_id: &str) -> Result<(), StoreError> {
        let end = end_event(task_id);
        // Nearly always it is whole, and its last bytes say so.
        if self.logs.is_ended(task_id, Some(&end)).unwrap_or(false) {
            return Ok(());
        }
        let _one_at_a_time = self.repairs.lock().await;
        let (id, most) = (task_id.to_owned(), self.settings.max_output);
        let Some(task) = self.store.task(id).await? else { return Ok(()) };
        let rows = self.ended_runs(task);
        if self.fleet.lock().tasks.contains_key(task_id) {
            return Ok(());
        }
        let (logs, id) = (self.logs.clone(), task_id.to_owned());
        let repaired = tokio::task::spawn_blocking(move || repair(logs, &id, &end, &rows, most)).await;
        repaired
            .map_err(|e| StoreError::new(e.to_string()))?
            .map_err(|e| StoreError::new(format!("the task's events can't be repaired: {e}")))
    }
}

/// A run that is over, as its events should tell it.
pub(super) struct EndedRun {
    ordinal: u32,
    id: String,
    event: Vec<u8>,
    is_over: bool,
    result: Option<String>,
    /// Its runner streams: what the result has and the stream has not is the stream's tail.
    streams: bool,
}

fn ended_run(streams: bool, run: Run) -> EndedRun {
    let at = run.finished_at_ms.unwrap_or(0);
    let error = run.error.as_deref();
    EndedRun {
        ordinal: run.ordinal,
        event: state_event(
            &run.id,
            &run.runner_name,
            run.state,
            at,
            run.exit_code,
            error,
            run.suggestion.as_deref(),
        ),
        id: run.id,
        is_over: run.state.is_final(),
        result: run.result,
        streams,
    }
}

/// What a log tells of the runs of its task.
#[derive(Default)]
pub(super) struct Seen {
    states: HashMap<u32, State>,
    ended: bool,
}

impl Seen {
    pub(super) fn see(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::End => self.ended = true,
            Kind::State => {
                let event: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
                if let Some(state) = event["state"].as_str().and_then(State::parse) {
                    self.states.insert(frame.run, state);
                }
            }
            Kind::Stdout | Kind::Stderr | Kind::Gap => {}
        }
    }

    /// Adds the states of runs that go on and of which the log says that they are over.
    fn tell_who_came_back(&self, log: &mut Log, rows: &[OpenRun]) {
        let is_over = |row: &&OpenRun| self.states.get(&row.ordinal).is_some_and(|s| s.is_final());
        for row in rows.iter().filter(is_over) {
            let state = row.state.unwrap_or(State::Running);
            let event = state_event(&row.id, &row.runner_name, state, now_ms(), None, None, None);
            log.add(Kind::State, row.ordinal, 0, &event);
        }
        // Of one that is held the hub may have gone down before it told that.
        let is_told = |row: &&OpenRun| self.states.get(&row.ordinal) == Some(&State::Held);
        for row in rows.iter().filter(|row| row.state == Some(State::Held) && !is_told(row)) {
            let why =
                row.approval.as_ref().map(|approval| format!("waits for a person's yes: {}", approval.id));
            let event =
                state_event(&row.id, &row.runner_name, State::Held, now_ms(), None, why.as_deref(), None);
            log.add(Kind::State, row.ordinal, 0, &event);
        }
    }

    /// Adds the ends of runs that are over and of which the log does not say so.
    pub(super) fn tell_the_rest(&self, log: &mut Log, rows: &[EndedRun], most: u64) {
        let is_told = |row: &&EndedRun| self.states.get(&row.ordinal).is_some_and(|s| s.is_final());
        for row in rows.iter().filter(|row| row.is_over && !is_told(row)) {
            // Of one that did not stream the result is the output, and no tail.
            let has_streamed =
                log.stored(row.ordinal, Kind::Stdout) + log.stored(row.ordinal, Kind::Stderr) > 0;
            if let Some(result) = row.result.as_ref().filter(|_| has_streamed || row.streams) {
                add_tail(log, &row.id, row.ordinal, result, most);
            }
            log.add(Kind::State, row.ordinal, 0, &row.event);
        }
    }
}

fn repair(logs: Arc<Logs>, id: &str, end: &[u8], rows: &[EndedRun], most: u64) -> std::io::Result<()> {
    let mut seen = Seen::default();
    let mut log = Log::reopen(logs, id, |frame| seen.see(frame))?;
    if seen.ended || rows.iter().any(|row| !row.is_over) {
        return Ok(());
    }
    seen.tell_the_rest(&mut log, rows, most);
    log.add(Kind::End, 0, 0, end);
    log.flush().map(|_| ())
}

fn live(row: OpenRun, task: Arc<LiveTask>) -> LiveRun {
    let now = Instant::now();
    LiveRun {
        id: row.id,
        ordinal: row.ordinal,
        offsets: task.stored(row.ordinal),
        task,
        runner_id: row.runner_id,
        runner_name: row.runner_name,
        // Never one that is handed out again.
        state: row.state.unwrap_or(State::Delivered),
        delivered_boot: row.delivered_boot,
        // Times count from now: runners could not reach us before.
        delivered: now,
        delivered_ms: row.delivered_at_ms.unwrap_or(0),
        heard: now,
        unsent: false,
        cancel_requested: row.cancel_requested.then_some(now),
        stalled: false,
        held: None,
        cut: [false; 2],
        closing: false,
        passed_over: false,
        approval: row.approval.map(|approval| LiveApproval {
            id: approval.id.into(),
            until: now + Duration::from_millis(approval.until_ms.saturating_sub(now_ms())),
            given: matches!(approval.state, ApprovalState::Approved | ApprovalState::Edited),
        }),
        holds: 0,
    }
}
