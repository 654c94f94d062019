//! Approvals: what waits for a person's yes, and what was said.

use legwork_api::{ApprovalKind, ApprovalState, Vote};

use crate::{Answer, Room, Then};

/// What waits for a person's yes, or waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Ids sort by the time of their making.
    pub id: String,
    /// What is asked for.
    pub kind: ApprovalKind,
    /// Where it stands.
    pub state: ApprovalState,
    /// The task.
    pub task_id: String,
    /// Its run.
    pub run_id: String,
    /// Where it would run.
    pub runner_id: String,
    /// What that is called.
    pub runner_name: String,
    /// The very text that would run.
    pub command: String,
    /// The line as it was asked for.
    pub line: String,
    /// In which folder.
    pub workdir: String,
    /// For how long, in seconds.
    pub timeout_s: u64,
    /// The part of the line that asks.
    pub part: String,
    /// The rule by which it asks.
    pub rule: String,
    /// Of all that says what would run.
    pub digest: String,
    /// What the runner wants back with the yes.
    pub ticket: String,
    /// How many people must say yes.
    pub persons: u8,
    /// Why it was asked for, in the words of who asked.
    pub reason: Option<String>,
    /// Who asked: the author of the line. Says nothing to it.
    pub asked_by: String,
    /// That one's token.
    pub asked_by_token: String,
    /// Why an earlier yes was not good enough.
    pub refused: Option<String>,
    /// Who said what.
    pub votes: Vec<Vote>,
    /// What who decided had to say.
    pub note: Option<String>,
    /// The line that stands for it since, if who decided wrote another one.
    pub edited: Option<String>,
    /// Until when the same line of the same asker on the same runner needs no further yes.
    pub grant_until_ms: Option<u64>,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Until when it may be answered, in Unix milliseconds.
    pub expires_at_ms: u64,
    /// Unix milliseconds.
    pub decided_at_ms: Option<u64>,
}

/// What a person says to an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The approval.
    pub id: String,
    /// Who says it, what, and when.
    pub vote: Vote,
    /// What there is to say about it.
    pub note: Option<String>,
    /// Until when the same line needs no further yes.
    pub grant_until_ms: Option<u64>,
    /// The line that shall stand for it.
    pub edited: Option<String>,
}

/// What became of what a person said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// It counts; this is how the approval stands now.
    Counts(Box<Approval>),
    /// It does not: it was decided before, or this one has said so already. This is how it stands.
    Late(Box<Approval>),
    /// There is none of this id.
    Unknown,
}

/// Which approvals a list has.
#[derive(Debug, Clone, Default)]
pub struct ApprovalFilter {
    /// Only those older than this one.
    pub before: Option<String>,
    /// Only those that stand so.
    pub state: Option<ApprovalState>,
    /// Only those of this task.
    pub task: Option<String>,
    /// How many at most.
    pub limit: u32,
}

/// Approvals.
pub trait Approvals {
    /// A run that was delivered waits for a person's yes: it is held, unless one that was given for an hour
    /// speaks for it, which is told by the state of the approval; then the run is queued. `None` if the
    /// run is not one that was delivered: then nothing changes.
    fn hold(&self, approval: Approval, then: Then<Option<Approval>>) -> Room<'_>;
    /// Something waits for a person's yes that is no run's.
    fn ask(&self, approval: Approval) -> Answer<'_, ()>;
    /// A person says yes or no. With the last yes that is needed the run is queued; with a no it stays
    /// as it is, for [`crate::Runs::finish`]. The first counts.
    fn decide(&self, decision: Decision) -> Answer<'_, Decided>;
    /// Nobody can answer any more: it is as said now, if it was waiting.
    fn close(&self, id: String, state: ApprovalState, at_ms: u64) -> Answer<'_, Option<Approval>>;
    /// One of them.
    fn approval(&self, id: String) -> Answer<'_, Option<Approval>>;
    /// Newest first.
    fn approvals(&self, filter: ApprovalFilter) -> Answer<'_, Vec<Approval>>;
}
