//! Runners, connected or not.

use crate::{Answer, Room, Then};

/// What is known of a runner, so that it can be chosen while it is away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunnerRow {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it says of itself.
    pub labels: Vec<String>,
    /// Its program's.
    pub version: String,
    /// What it says of its machine, as JSON.
    pub environment: Option<String>,
    /// Empty for the original.
    pub boot_id: String,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds.
    pub last_seen_ms: u64,
    /// The credential that it belongs to.
    pub token_id: String,
    /// What people call it.
    pub display_name: Option<String>,
    /// What people set.
    pub set_labels: Vec<String>,
    /// It is given no new work.
    pub drained: bool,
    /// What its credential was made for; empty for one of a fleet. Read only: it is the token's.
    pub given_name: String,
}

/// What is kept of runners.
pub trait Runners {
    /// All of them.
    fn runners(&self) -> Answer<'_, Vec<RunnerRow>>;
    /// Keeps what is known of one; to whom it belongs and since when never changes.
    fn keep_runner(&self, runner: RunnerRow, then: Then<()>) -> Room<'_>;
    /// Forgets one.
    fn forget_runner(&self, id: String) -> Answer<'_, ()>;
}
