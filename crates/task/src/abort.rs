//! The wish that a task end early.

use std::sync::Arc;

use tokio::sync::watch;

/// Why it is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The process was told to stop.
    Stopped,
    /// Its hub, or the person at the terminal, wants it.
    Cancelled,
    /// Its time is up.
    OutOfTime,
}

impl Why {
    /// For the error event.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Stopped | Self::Cancelled => "Task aborted",
            Self::OutOfTime => "Budget exceeded: the task's time is up",
        }
    }
}

/// Shared by all that works on a task.
#[derive(Debug, Clone)]
pub struct Abort(Arc<watch::Sender<Option<Why>>>);

impl Default for Abort {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Abort {
    /// Wishes it; the first reason stays.
    pub fn wish(&self, why: Why) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(why);
            first
        });
    }

    /// The reason, if it is wished.
    pub fn now(&self) -> Option<Why> {
        *self.0.borrow()
    }

    /// Waits for the wish.
    pub async fn wished(&self) -> Why {
        let mut changes = self.0.subscribe();
        let wished = changes.wait_for(Option::is_some).await.map(|why| why.unwrap_or(Why::Stopped)).ok();
        match wished {
            Some(why) => why,
            // The sender lives as long as we do.
            None => std::future::pending().await,
        }
    }
}
