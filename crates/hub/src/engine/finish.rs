//! The one final state of a run.

use std::sync::Arc;
use std::time::Duration;

use legwork_proto::dialout::{OutcomeWord, TaskResult};
use legwork_store::{End, StoreError};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::Hub;
use super::output::add_tail;
use crate::clock::now_ms;
use crate::events::Log;
use crate::fleet::{Link, LiveRun, ToRunner, state_event};
use crate::model::State;

/// Most that is kept of a reason.
const MAX_ERROR: usize = 16 * 1024;
/// A runner's clock for a time limit starts a little before ours.
const SLACK: Duration = Duration::from_millis(500);

/// How a run ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending(pub(crate) End);

/// What is known of a run whose result has come.
#[derive(Clone, Copy)]
struct Known {
    is_bash: bool,
    cancel_requested: bool,
    /// Its time limit has passed since it was handed over.
    had_its_time: bool,
    /// The machine was restarted since it was handed over.
    rebooted: bool,
}

impl Known {
    fn of(run: &LiveRun, boot: &str) -> Self {
        // Whichever clock says more: one does not count across the hub's restart, the other jumps.
        let by_wall = Duration::from_millis(now_ms().saturating_sub(run.delivered_ms));
        let took = run.delivered.elapsed().max(by_wall);
        Self {
            is_bash: run.task.operation == "bash",
            cancel_requested: run.cancel_requested.is_some(),
            had_its_time: took + SLACK >= Duration::from_secs(run.task.timeout_s),
            rebooted: run.is_of_another_boot(boot),
        }
    }
}

impl Ending {
    pub(crate) fn new(state: State, error: Option<&str>) -> Self {
        let error = error.map(str::to_owned);
        Self(End {
            state,
            exit_code: None,
            error,
            suggestion: None,
            code: None,
            usage: None,
            result: None,
            unconfirmed: false,
        })
    }

    fn without_result(state: State, error: &str) -> Self {
        Self::new(state, Some(error))
    }

    fn unconfirmed(self) -> Self {
        Self(End { unconfirmed: true, ..self.0 })
    }

    pub(crate) fn lost(why: &str) -> Self {
        Self::without_result(State::Lost, why)
    }

    /// Nothing was heard of it: the runner may still say something else.
    pub(crate) fn given_up(why: &str) -> Self {
        Self::lost(why).unconfirmed()
    }

    /// Its end was asked for, and the runner did not answer.
    pub(crate) fn cancelled_unanswered() -> Self {
        let why = "the runner did not answer the cancel; what it had begun may go on until it does";
        Self::without_result(State::Cancelled, why).unconfirmed()
    }

    pub(crate) fn cancelled_because(why: &str) -> Self {
        Self::without_result(State::Cancelled, why)
    }

    pub(crate) fn expired() -> Self {
        Self::without_result(State::Expired, "its runner did not connect before the task expired")
    }

    /// Nobody said yes or no in time.
    pub(crate) fn unanswered(wait: Duration) -> Self {
        let why = format!("it needs a person's yes, and nobody answered within {} s", wait.as_secs());
        Self::without_result(State::Expired, &why)
    }

    /// It was approved, and its runner did not come.
    pub(crate) fn yes_too_old() -> Self {
        let why = "people said yes to it, but its runner did not come while that was fresh: ask again";
        Self::without_result(State::Expired, why)
    }

    /// A person said no.
    pub(crate) fn denied(why: &str) -> Self {
        Self::without_result(State::Denied, why)
    }

    pub(crate) fn failed(why: &str) -> Self {
        Self::without_result(State::Failed, why)
    }

    pub(crate) fn cancelled() -> Self {
        Self::without_result(State::Cancelled, "cancelled before it was handed to the runner")
    }

    /// What a runner's result says. The original's has no word for how it ended.
    fn of(result: TaskResult, known: Known) -> Self {
        let Known { is_bash, cancel_requested, had_its_time, rebooted } = known;
        #[derive(Deserialize, Default)]
        struct Shell {
            #[serde(default)]
            exit_code: i32,
            #[serde(default)]
            stderr: String,
        }
        let text = result.result.map(|r| r.get().to_owned());
        let error = Some(result.error).filter(|e| !e.is_empty()).map(|mut error| {
            error.truncate(error.floor_char_boundary(MAX_ERROR));
            error
        });
        // In part it would be another line.
        let suggestion = result.suggestion.filter(|line| line.len() <= MAX_ERROR);
        if !result.success {
            let denied = error.as_deref().is_some_and(|e| e.starts_with("command denied"));
            let state = match result.outcome {
                Some(OutcomeWord::Denied) => State::Denied,
                Some(OutcomeWord::Lost) => State::Lost,
                Some(OutcomeWord::Cancelled) => State::Cancelled,
                Some(OutcomeWord::TimedOut) => State::TimedOut,
                None if denied => State::Denied,
                None if cancel_requested => State::Cancelled,
                _ => State::Failed,
            };
            let error = error.or_else(|| Some("the runner gave no reason".into()));
            // What the runner says follows from it.
            let error = match state {
                State::Lost if rebooted => error.map(|e| format!("the runner's machine was restarted: {e}")),
                _ => error,
            };
            return Self(End { suggestion, result: text, ..Self::new(state, error.as_deref()).0 });
        }
        if !is_bash {
            return Self(End { result: text, ..Self::new(State::Succeeded, None).0 });
        }
        let shell: Shell = text.as_deref().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        let state = match result.outcome {
            Some(OutcomeWord::TimedOut) => State::TimedOut,
            Some(OutcomeWord::Cancelled) => State::Cancelled,
            Some(_) if shell.exit_code == 0 => State::Succeeded,
            Some(_) => State::Failed,
            None if cancel_requested && shell.exit_code == -1 => State::Cancelled,
            // The original kills the shell and says no more.
            None if had_its_time && shell.exit_code == -1 => State::TimedOut,
            None if shell.exit_code == 124 && shell.stderr.ends_with("command timed out") => State::TimedOut,
            None if shell.exit_code == 0 => State::Succeeded,
            None => State::Failed,
        };
        Self(End { exit_code: Some(shell.exit_code), result: text, ..Self::new(state, error.as_deref()).0 })
    }
}

impl Hub {
    /// A runner's result: the first per run wins. It is acknowledged when it is on
    /// disk.
    pub(crate) async fn result(self: &Arc<Self>, runner_id: &str, message_id: String, result: TaskResult) {
        let known = |hub: &Self| {
            let fleet = hub.fleet.lock();
            let run = fleet.runs.get(&result.task_id).filter(|r| r.runner_id == runner_id)?;
            Some(Known::of(run, fleet.runners.get(runner_id).map_or("", |runner| runner.boot_id.as_str())))
        };
        // An end is on its way to the store: it may be one without its runner's word.
        if self.fleet.lock().runs.get(&result.task_id).is_some_and(|run| run.closing) {
            let _ = self.store.check().await;
            self.log.settled().await;
        }
        let mut found = known(self);
        let run_id = result.task_id.clone();
        // One that was given up: its runner knows better.
        if found.is_none() {
            match self.revive_run(runner_id, &result).await {
                Ok(true) => found = known(self),
                Ok(false) => {}
                Err(error) => {
                    let link = self.fleet.lock().ready_link(runner_id).cloned();
                    return self.end_failed(&run_id, &error, link.map(|link| (link, message_id)));
                }
            }
        }
        let link = self.fleet.lock().ready_link(runner_id).cloned();
        // Its runner has nothing of it, whatever it says: people are asked, or have just answered.
        let waits =
            |run: &LiveRun| run.state == State::Held || run.state == State::Queued && run.approval.is_some();
        if found.is_some() && self.fleet.lock().runs.get(&run_id).is_some_and(waits) {
            if let Some(link) = link {
                Self::send_ack(&link, message_id);
            }
            return;
        }
        match found {
            Some(_) if link.as_ref().is_some_and(|link| self.hold(link, &message_id, &result)) => {}
            Some(known) => {
                let ending = Ending::of(result, known);
                self.finish(&run_id, ending, link.map(|link| (link, message_id))).await;
            }
            // It has its final state already.
            None => {
                if let Some(link) = link {
                    Self::send_ack(&link, message_id);
                }
            }
        }
    }

    /// Brings a run to its final state, unless it is on the way to one. The result
    /// of `acknowledge` is acknowledged when that is durable.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        run_id: &str,
        ending: Ending,
        acknowledge: Option<(Link, String)>,
    ) {
        let run = {
            let mut fleet = self.fleet.lock();
            let Some(run) = fleet.runs.get_mut(run_id).filter(|r| !r.closing) else { return };
            run.closing = true;
            run.clone()
        };
        // Nobody waits for it to be on disk.
        drop(self.end(run, ending, acknowledge).await);
    }

    /// The same of a run that was marked as closing while it was looked at. Returns when that is
    /// queued; what is returned tells when it is on disk, or why it is not.
    pub(super) async fn end(
        self: &Arc<Self>,
        run: LiveRun,
        ending: Ending,
        acknowledge: Option<(Link, String)>,
    ) -> oneshot::Receiver<Result<(), StoreError>> {
        let (tell, stored) = oneshot::channel();
        let now = now_ms();
        let (hub, id, end) = (self.clone(), run.id.clone(), ending.0.clone());
        let then = move |written: Result<bool, StoreError>| {
            let told = match written {
                Ok(_) => {
                    let telling = hub.clone();
                    hub.log.queue_from_store(move || telling.tell_end(&run, &ending, now, acknowledge));
                    Ok(())
                }
                Err(error) => {
                    hub.end_failed(&run.id, &error, acknowledge);
                    Err(error)
                }
            };
            // Most do not wait for it.
            let _ = tell.send(told);
        };
        self.store.finish(id, end, now, Box::new(then)).await;
        stored
    }

    /// A final state could not be stored: it comes again.
    fn end_failed(&self, run_id: &str, error: &StoreError, acknowledge: Option<(Link, String)>) {
        tracing::error!(run = run_id, "a final state could not be stored: {error}");
        let asked_again = {
            let mut fleet = self.fleet.lock();
            let passed_over = fleet.runs.get_mut(run_id).and_then(|run| {
                run.closing = false;
                std::mem::take(&mut run.passed_over).then(|| run.runner_id.clone())
            });
            passed_over.and_then(|runner| fleet.ready_link(&runner).cloned())
        };
        // On the next connection the runner sends it again, and is sent what it was not.
        if let Some(link) = acknowledge.map(|(link, _)| link).or(asked_again) {
            let _ = link.sender.send(ToRunner::Close { code: 1013, reason: "the hub's store failed" });
        }
    }

    /// A final state is on disk, and all output before it is written: tells it to all who follow the task, and to the runner.
    fn tell_end(&self, run: &LiveRun, ending: &Ending, now: u64, acknowledge: Option<(Link, String)>) {
        let end = &ending.0;
        self.counters.count_end(end.state);
        let event = state_event(
            &run.id,
            &run.runner_name,
            end.state,
            now,
            end.exit_code,
            end.error.as_deref(),
            end.suggestion.as_deref(),
        );
        let tail = |log: &mut Log| self.tail_of(log, run, ending);
        let written = run.task.finish_run(run.ordinal, tail, &event);
        let mut fleet = self.fleet.lock();
        fleet.remove_run(&run.id);
        if run.task.is_over() {
            fleet.tasks.remove(&run.task.id);
            if !written {
                fleet.unwritten.push(run.task.clone());
            }
        }
        drop(fleet);
        if let Some((link, message_id)) = acknowledge {
            Self::send_ack(&link, message_id);
        }
        if let Some(approval) = run.approval.as_ref().filter(|approval| !approval.given) {
            self.tell_approval(&approval.id);
        }
    }

    /// What a run's stream lacks of its result. Originals do not stream: theirs is the result.
    fn tail_of(&self, log: &mut Log, run: &LiveRun, ending: &Ending) {
        let streams = {
            let fleet = self.fleet.lock();
            fleet.runners.get(&run.runner_id).is_some_and(|runner| runner.acks)
        };
        if let Some(result) = ending.0.result.as_ref().filter(|_| streams && run.task.operation == "bash") {
            add_tail(log, &run.id, run.ordinal, result, self.settings.max_output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(json: &str, cancel_requested: bool, had_its_time: bool) -> (State, Option<i32>) {
        let known = Known { is_bash: true, cancel_requested, had_its_time, rebooted: false };
        let ending = Ending::of(serde_json::from_str(json).expect("json"), known);
        (ending.0.state, ending.0.exit_code)
    }

    fn ending(json: &str, cancel_requested: bool) -> (State, Option<i32>) {
        known(json, cancel_requested, false)
    }

    #[test]
    fn results_of_both_kinds_of_runner_become_states() {
        let shell = |code: i32, stderr: &str, outcome: &str| {
            format!(
                r#"{{"task_id":"t","success":true,"result":{{"stdout":"","stderr":"{stderr}","exit_code":{code}}}{outcome}}}"#
            )
        };
        assert_eq!(ending(&shell(0, "", ""), false), (State::Succeeded, Some(0)));
        assert_eq!(ending(&shell(3, "", ""), false), (State::Failed, Some(3)));
        assert_eq!(ending(&shell(124, "command timed out", ""), false), (State::TimedOut, Some(124)));
        assert_eq!(
            ending(&shell(124, "command timed out", r#","outcome":"exited""#), false),
            (State::Failed, Some(124))
        );
        assert_eq!(ending(&shell(124, "", r#","outcome":"timed_out""#), false), (State::TimedOut, Some(124)));
        assert_eq!(ending(&shell(-1, "", ""), true), (State::Cancelled, Some(-1)));
        assert_eq!(ending(&shell(-1, "", ""), false), (State::Failed, Some(-1)));
        assert_eq!(known(&shell(-1, "", ""), false, true), (State::TimedOut, Some(-1)));
        assert_eq!(known(&shell(3, "", ""), false, true), (State::Failed, Some(3)));
        let failed =
            r#"{"task_id":"t","success":false,"error":"command denied by rule '*': x","exit_code":1}"#;
        assert_eq!(ending(failed, false), (State::Denied, None));
        let lost = r#"{"task_id":"t","success":false,"error":"e","exit_code":1,"outcome":"lost"}"#;
        assert_eq!(ending(lost, false), (State::Lost, None));
    }
}
