//! What the hub keeps: tasks and their runs, runners, tokens, the pool, and what agents say. In
//! business words; where and how it is kept is behind them.
//!
//! A second store implements the traits of the files beside this one, and passes [`conformance`].
//! What a store promises:
//!
//! - Writes are made in the order in which they are asked for, and a write that was answered is
//!   on disk: neither a crash nor a power cut takes it back.
//! - A write is made whole or not at all, and one that fails takes no other along.
//! - A run has one final state. The first one counts; [`Runs::finish`] says whether it was it.
//! - Nothing is counted or judged here: times, ids and states are the caller's.

mod approvals;
#[cfg(all(test, feature = "sqlite"))]
mod conformance;
mod pool;
mod runners;
mod runs;
mod sessions;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tasks;
mod tokens;

use std::future::Future;
use std::pin::Pin;

use tokio::sync::oneshot;

pub use approvals::{Approval, ApprovalFilter, Approvals, Decided, Decision};
pub use legwork_api::{ApprovalKind, ApprovalState, Role, State, Vote};
pub use pool::{Pool, PoolRunner};
pub use runners::{RunnerRow, Runners};
pub use runs::{Assignment, End, GivenUp, OpenApproval, OpenRun, Runs};
pub use sessions::{Message, MessageChange, Part, Sessions};
#[cfg(feature = "sqlite")]
pub use sqlite::{Lane, Sqlite, Step};
pub use tasks::{Filter, Keyed, NewRun, NewTask, Run, Scope, Submitted, Task, Tasks};
pub use tokens::{Token, Tokens};

/// Arguments beyond this size are read from the store when they are needed; smaller ones may be
/// held in memory.
pub const LARGE: usize = 16 * 1024;

/// Why the store could not do its work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the hub's store failed: {0}")]
pub struct StoreError(String);

impl StoreError {
    /// An error with its reason, and with what can be done where that is known.
    pub fn new(text: impl Into<String>) -> Self {
        const ADVICE: &[(&str, &str)] = &[
            ("disk is full", "make room on the disk of the hub's data folder, and ask again"),
            ("malformed", "the file is damaged: stop the hub and put hub.db back from a copy"),
            (
                "not a database",
                "the file is damaged, or another's: stop the hub and put hub.db back from a copy",
            ),
            ("readonly database", "let the hub's user write to its data folder, and to the files in it"),
        ];
        let mut text = text.into();
        if let Some((_, advice)) = ADVICE.iter().find(|(cause, _)| text.contains(cause))
            && !text.ends_with(advice)
        {
            text.push_str("; ");
            text.push_str(advice);
        }
        Self(text)
    }
}

/// Is called when a write is on disk, or could not be made: in the order of the writes, on the
/// store's own thread, which it must not hold up.
pub type Then<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// Waits until the store has taken a write into its queue, which has a bound. The order in which
/// these are awaited is the order of the writes.
pub type Room<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// An answer: of a write, when that is on disk.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// All that the hub keeps.
pub trait Store:
    Tasks + Runs + Approvals + Runners + Tokens + Pool + Sessions + std::fmt::Debug + Send + Sync
{
    /// Whether it can write.
    fn check(&self) -> Answer<'_, ()>;
}

/// Makes a write whose end is told to a [`Then`], and waits for that.
pub async fn done<'a, T: Send + 'static>(write: impl FnOnce(Then<T>) -> Room<'a>) -> Result<T, StoreError> {
    let (answer, wait) = oneshot::channel();
    write(Box::new(move |result| {
        // Nobody may be waiting any more.
        let _ = answer.send(result);
    }))
    .await;
    wait.await.unwrap_or_else(|_| Err(StoreError::new("it is closed")))
}
