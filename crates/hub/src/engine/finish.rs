//! The one final state of a run.

use std::sync::Arc;
use std::time::Duration;

use legwork_proto::dialout::{OutcomeWord, TaskResult};
use rusqlite::params;
use serde::Deserialize;

use super::Hub;
use super::output::add_tail;
use crate::clock::now_ms;
use crate::events::Log;
use crate::fleet::{Link, LiveRun, ToRunner, state_event};
use crate::model::State;
use crate::store::put_payload;

/// Most that is kept of a reason.
const MAX_ERROR: usize = 16 * 1024;
/// A runner's clock for a time limit starts a little before ours.
const SLACK: Duration = Duration::from_millis(500);

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    state: State,
    exit_code: Option<i32>,
    error: Option<String>,
    /// What could have been asked for instead of what was denied.
    suggestion: Option<String>,
    result: Option<String>,
    /// The runner did not say so: what it says later counts instead.
    unconfirmed: bool,
}

/// What is known of a run whose result has come.
#[derive(Clone, Copy)]
struct Known {
    is_bash: bool,
    cancel_requested: bool,
    /// Its time limit has passed since it was handed over.
    had_its_time: bool,
}

impl Known {
    fn of(run: &LiveRun) -> Self {
        // Whichever clock says more: one does not count across the hub's restart, the other jumps.
        let by_wall = Duration::from_millis(now_ms().saturating_sub(run.delivered_ms));
        let took = run.delivered.elapsed().max(by_wall);
        Self {
            is_bash: run.task.operation == "bash",
            cancel_requested: run.cancel_requested.is_some(),
            had_its_time: took + SLACK >= Duration::from_secs(run.task.timeout_s),
        }
    }
}

impl Ending {
    fn without_result(state: State, error: &str) -> Self {
        Self {
            state,
            exit_code: None,
            error: Some(error.to_owned()),
            suggestion: None,
            result: None,
            unconfirmed: false,
        }
    }

    pub(crate) fn lost(why: &str) -> Self {
        Self::without_result(State::Lost, why)
    }

    /// Nothing was heard of it: the runner may still say something else.
    pub(crate) fn given_up(why: &str) -> Self {
        Self { unconfirmed: true, ..Self::lost(why) }
    }

    /// Its end was asked for, and the runner did not answer.
    pub(crate) fn cancelled_unanswered() -> Self {
        let why = "the runner did not answer the cancel; what it had begun may go on until it does";
        Self { unconfirmed: true, ..Self::without_result(State::Cancelled, why) }
    }

    pub(crate) fn cancelled_because(why: &str) -> Self {
        Self::without_result(State::Cancelled, why)
    }

    pub(crate) fn expired() -> Self {
        Self::without_result(State::Expired, "its runner did not connect before the task expired")
    }

    pub(crate) fn cancelled() -> Self {
        Self::without_result(State::Cancelled, "cancelled before it was handed to the runner")
    }

    /// What a runner's result says. The original's has no word for how it ended.
    fn of(result: TaskResult, known: Known) -> Self {
        let Known { is_bash, cancel_requested, had_its_time } = known;
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
            return Self { state, exit_code: None, error, suggestion, result: text, unconfirmed: false };
        }
        if !is_bash {
            return Self {
                state: State::Succeeded,
                exit_code: None,
                error: None,
                suggestion: None,
                result: text,
                unconfirmed: false,
            };
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
        Self {
            state,
            exit_code: Some(shell.exit_code),
            error,
            suggestion: None,
            result: text,
            unconfirmed: false,
        }
    }
}

impl Hub {
    /// A runner's result: the first per run wins. It is acknowledged when it is on
    /// disk.
    pub(crate) async fn result(self: &Arc<Self>, runner_id: &str, message_id: String, result: TaskResult) {
        let known = |hub: &Self| {
            let fleet = hub.fleet.lock();
            fleet.runs.get(&result.task_id).filter(|r| r.runner_id == runner_id).map(Known::of)
        };
        let mut found = known(self);
        // One that was given up: its runner knows better.
        if found.is_none() && self.revive_run(runner_id, &result.task_id).await {
            found = known(self);
        }
        let link = self.fleet.lock().ready_link(runner_id).cloned();
        let run_id = result.task_id.clone();
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
        let now = now_ms();
        let row = (run.id.clone(), ending.clone());
        let hub = self.clone();
        let write = move |c: &rusqlite::Connection| {
            let (id, ending) = row;
            let result = match &ending.result {
                Some(result) => put_payload(c, &id, result)?,
                None => None,
            };
            c.prepare_cached(
                "UPDATE runs SET state = ?2, exit_code = ?3, error = ?4, result = ?5, finished_at_ms = ?6,
                     unconfirmed = ?7, suggestion = ?8, started_at_ms = coalesce(started_at_ms, delivered_at_ms)
                 WHERE id = ?1 AND finished_at_ms IS NULL",
            )?
            .execute(params![
                id,
                ending.state.as_str(),
                ending.exit_code,
                ending.error,
                result,
                i64::try_from(now).unwrap_or(i64::MAX),
                ending.unconfirmed,
                ending.suggestion
            ])
        };
        self.store
            .submit(Box::new(write), move |written| {
                if let Err(error) = written {
                    tracing::error!(run = %run.id, "a final state could not be stored: {error}");
                    if let Some(run) = hub.fleet.lock().runs.get_mut(&run.id) {
                        run.closing = false;
                    }
                    // The runner sends it again on its next connection.
                    if let Some((link, _)) = acknowledge {
                        let _ = link
                            .sender
                            .send(ToRunner::Close { code: 1013, reason: "the hub's store failed" });
                    }
                    return;
                }
                hub.counters.count_end(ending.state);
                let event = state_event(
                    &run.id,
                    &run.runner_name,
                    ending.state,
                    now,
                    ending.exit_code,
                    ending.error.as_deref(),
                    ending.suggestion.as_deref(),
                );
                let tail = |log: &mut Log| hub.tail_of(log, &run, &ending);
                let written = run.task.finish_run(run.ordinal, tail, &event);
                let mut fleet = hub.fleet.lock();
                fleet.remove_run(&run.id);
                if run.task.is_over() {
                    fleet.tasks.remove(&run.task.id);
                    if !written {
                        fleet.unwritten.push(run.task.clone());
                    }
                }
                drop(fleet);
                if let Some((link, message_id)) = acknowledge {
                    Hub::send_ack(&link, message_id);
                }
            })
            .await;
    }

    /// What a run's stream lacks of its result. Originals do not stream: theirs is the result.
    fn tail_of(&self, log: &mut Log, run: &LiveRun, ending: &Ending) {
        let streams = {
            let fleet = self.fleet.lock();
            fleet.runners.get(&run.runner_id).is_some_and(|runner| runner.acks)
        };
        if let Some(result) = ending.result.as_ref().filter(|_| streams && run.task.operation == "bash") {
            add_tail(log, &run.id, run.ordinal, result, self.settings.max_output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(json: &str, cancel_requested: bool, had_its_time: bool) -> (State, Option<i32>) {
        let known = Known { is_bash: true, cancel_requested, had_its_time };
        let ending = Ending::of(serde_json::from_str(json).expect("json"), known);
        (ending.state, ending.exit_code)
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
