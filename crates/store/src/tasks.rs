//! Tasks: what was asked, of whom, by whom.

use crate::{Answer, Room, State, Then};

/// A task to be kept.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Ids sort by the time of their making.
    pub id: String,
    /// What is to be done: an operation of runners, `agent` or `workflow`.
    pub operation: String,
    /// Its arguments, as JSON.
    pub args: String,
    /// What a list shows of the arguments, as JSON.
    pub brief: String,
    /// Who was to do it, as JSON.
    pub selection: String,
    /// Seconds that a run may take.
    pub timeout_s: u64,
    /// The name of who asked.
    pub created_by: String,
    /// The token of who asked.
    pub token_id: String,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Until when a run may wait for its runner, in Unix milliseconds.
    pub expires_at_ms: u64,
    /// The same key is the same task.
    pub idempotency_key: Option<String>,
    /// Of what was asked, to tell whether a key is used for something else.
    pub body_hash: String,
    /// Whose keys and numbers it has.
    pub scope: Scope,
    /// Where an agent's messages belong.
    pub session_id: Option<String>,
    /// Why it is asked for, in the words of who asks.
    pub reason: Option<String>,
}

/// Which tasks share keys: those of runners, and those of the pool. The latter have a number
/// as well, by which task runners know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Tasks of dialled runners.
    Runners,
    /// Agents and workflows.
    Pool,
}

/// A run to be kept with its task.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id.
    pub id: String,
    /// Its place among the runs of the task, from 0.
    pub ordinal: u32,
    /// Empty if it is not known yet who will have it.
    pub runner_id: String,
    /// What the runner is called, now.
    pub runner_name: String,
    /// Queued, or delivered if it is about to be.
    pub state: State,
    /// The runner's boot if it is about to be delivered.
    pub delivered_boot: String,
}

/// What became of a task that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It is kept. Tasks of the pool have a number.
    New(Option<u32>),
    /// Its key is known.
    Known(Keyed),
}

/// The task of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// Its id.
    pub id: String,
    /// Its number, if it is of the pool.
    pub number: Option<u32>,
    /// The hash of what was asked.
    pub body_hash: String,
}

/// A task with its runs.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "as in NewTask")]
pub struct Task {
    pub id: String,
    pub number: Option<u32>,
    pub operation: String,
    /// Whole, or what a list shows.
    pub args: String,
    pub selection: String,
    pub timeout_s: u64,
    pub created_by: String,
    pub token_id: Option<String>,
    pub created_at_ms: u64,
    pub expires_at_ms: u64,
    pub session_id: Option<String>,
    pub reason: Option<String>,
    /// By their ordinals.
    pub runs: Vec<Run>,
}

/// A run as it is kept.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "as in NewRun and End")]
pub struct Run {
    pub id: String,
    pub ordinal: u32,
    pub runner_id: String,
    pub runner_name: String,
    /// Lost if it is a state that is not known.
    pub state: State,
    pub exit_code: Option<i32>,
    pub error: Option<String>,
    pub suggestion: Option<String>,
    /// The last approval that was asked for.
    pub approval: Option<String>,
    pub code: Option<String>,
    pub usage: Option<String>,
    /// Left out of lists.
    pub result: Option<String>,
    pub attempts: u32,
    pub queued_at_ms: u64,
    pub delivered_at_ms: Option<u64>,
    pub started_at_ms: Option<u64>,
    pub finished_at_ms: Option<u64>,
}

/// Which tasks a list has.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only tasks older than this one.
    pub before: Option<String>,
    /// Only tasks with a run of this runner, by name or id.
    pub runner: Option<String>,
    /// Only tasks with a run in this state.
    pub state: Option<State>,
    /// How many at most.
    pub limit: u32,
}

/// What is kept of tasks.
pub trait Tasks {
    /// Keeps a task with its runs, unless its key is known.
    fn submit(&self, task: NewTask, runs: Vec<NewRun>, then: Then<Submitted>) -> Room<'_>;
    /// The task of a key.
    fn find_key(&self, scope: Scope, key: String) -> Answer<'_, Option<Keyed>>;
    /// A task with all there is of it.
    fn task(&self, id: String) -> Answer<'_, Option<Task>>;
    /// The task of the pool that has a number.
    fn numbered(&self, number: u32) -> Answer<'_, Option<Task>>;
    /// Tasks, newest first, without results and with short arguments.
    fn list(&self, filter: Filter) -> Answer<'_, Vec<Task>>;
    /// Tasks of the pool below a number, newest first, without arguments.
    fn list_numbered(&self, before: Option<u32>, limit: u32) -> Answer<'_, Vec<Task>>;
    /// A task's arguments.
    fn arguments(&self, id: String) -> Answer<'_, String>;
    /// Some of the oldest tasks that are over and were made before a time, in Unix milliseconds.
    fn over_before(&self, before_ms: u64, limit: u32) -> Answer<'_, Vec<String>>;
    /// Which of these tasks are kept.
    fn kept(&self, ids: Vec<String>) -> Answer<'_, Vec<String>>;
    /// Forgets tasks and all of theirs.
    fn forget(&self, ids: Vec<String>) -> Answer<'_, ()>;
}
