//! The pool: task runners.

use crate::Answer;

/// A task runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRunner {
    /// Its number.
    pub id: i64,
    /// Its pod's name.
    pub name: String,
    /// Its pod's address.
    pub ip: String,
    /// Empty for the original.
    pub version: String,
    /// What it can do; empty for the original.
    pub capabilities: Vec<String>,
    /// Unix milliseconds.
    pub seen_at_ms: u64,
}

/// Task runners.
pub trait Pool {
    /// All that registered and were not forgotten.
    fn pool_runners(&self) -> Answer<'_, Vec<PoolRunner>>;
    /// Keeps one, known by its name; answers its number.
    fn keep_pool_runner(&self, runner: PoolRunner) -> Answer<'_, i64>;
    /// Forgets those of these names.
    fn forget_pool_runners(&self, names: Vec<String>) -> Answer<'_, ()>;
}
