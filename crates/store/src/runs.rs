//! Runs: where each stands.

use crate::{Answer, ApprovalState, Room, State, Then};

/// How a run ended.
#[derive(Debug, Clone)]
pub struct End {
    /// A final state.
    pub state: State,
    /// Of a command.
    pub exit_code: Option<i32>,
    /// Why, in words.
    pub error: Option<String>,
    /// What could have been asked for instead of what was denied.
    pub suggestion: Option<String>,
    /// Why, in an agent's code.
    pub code: Option<String>,
    /// What an agent used, as JSON.
    pub usage: Option<String>,
    /// The runner's result, as JSON.
    pub result: Option<String>,
    /// The runner did not say so: what it says later counts instead.
    pub unconfirmed: bool,
}

/// Who is given a run of the pool.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The task runner's name.
    pub runner: String,
    /// Hash of the key that its events carry.
    pub key: String,
    /// Which time it is, from 1.
    pub attempts: u32,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// A token for a session: its hash, the session, and until when it is good.
    pub session: Option<(String, String, u64)>,
}

/// A run that is not over, with what is needed of its task.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "as in NewRun and NewTask")]
pub struct OpenRun {
    pub id: String,
    pub task_id: String,
    pub number: Option<u32>,
    pub ordinal: u32,
    pub runner_id: String,
    pub runner_name: String,
    /// `None` if it is none that is known.
    pub state: Option<State>,
    pub delivered_boot: String,
    pub cancel_requested: bool,
    pub delivered_at_ms: Option<u64>,
    pub key: Option<String>,
    pub attempts: u32,
    pub has_effects: bool,
    pub operation: String,
    /// Empty if they are large.
    pub args: String,
    pub selection: String,
    pub timeout_s: u64,
    pub created_by: String,
    pub token_id: String,
    pub session_id: Option<String>,
    pub expires_at_ms: u64,
    /// Other runs of the task are over.
    pub others_over: bool,
    /// The last approval that was asked for.
    pub approval: Option<OpenApproval>,
    /// Why it was asked for.
    pub reason: Option<String>,
}

/// What is needed of the last approval of a run that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenApproval {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: ApprovalState,
    /// Until when people may answer, in Unix milliseconds.
    pub until_ms: u64,
    /// The line that stands for the task's since.
    pub edited: Option<String>,
}

/// A run that was given up without its runner's word.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "as in NewRun and NewTask")]
pub struct GivenUp {
    pub id: String,
    /// The state that it was given.
    pub state: State,
    pub task_id: String,
    pub ordinal: u32,
    pub runner_id: String,
    pub runner_name: String,
    pub delivered_boot: String,
    pub delivered_at_ms: u64,
    pub cancel_requested: bool,
    pub operation: String,
    pub timeout_s: u64,
}

/// What is kept of runs, one for each runner of a task.
pub trait Runs {
    /// All that are not over, by their ids.
    fn open_runs(&self) -> Answer<'_, Vec<OpenRun>>;
    /// Runs are about to be handed to their runner, in a boot of it.
    fn deliver(&self, ids: Vec<String>, boot: String, at_ms: u64) -> Answer<'_, ()>;
    /// A run of the pool is about to be given to somebody; answers its task's arguments.
    fn assign(&self, id: String, to: Assignment) -> Answer<'_, String>;
    /// A run of the pool waits for somebody again.
    fn requeue(&self, id: String) -> Answer<'_, ()>;
    /// A run is under way, and may have changed something.
    fn accept(&self, id: String, has_effects: bool, at_ms: u64, then: Then<()>) -> Room<'_>;
    /// A run is over. False if it was already, or is not known: then nothing changes.
    fn finish(&self, id: String, end: End, at_ms: u64, then: Then<bool>) -> Room<'_>;
    /// A run that was given up goes on; false if it is none.
    fn revive(&self, id: String) -> Answer<'_, bool>;
    /// The end of runs is wanted.
    fn cancel(&self, ids: Vec<String>) -> Answer<'_, ()>;
    /// The end is wanted of a task's runs that were given up; answers their ids and runners.
    fn cancel_given_up(&self, task_id: String) -> Answer<'_, Vec<(String, String)>>;
    /// Runs of a runner that were given up since a time, in Unix milliseconds.
    fn given_up_of(&self, runner_id: String, since_ms: u64) -> Answer<'_, Vec<GivenUp>>;
    /// A run of a runner, if it was given up.
    fn given_up(&self, id: String, runner_id: String) -> Answer<'_, Option<GivenUp>>;
}
