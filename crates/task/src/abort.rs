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
    /// Wishes it. The first reason stays, unless the process is told to stop, which leaves
    /// less time.
    pub fn wish(&self, why: Why) {
        self.0.send_if_modified(|current| {
            let counts = current.is_none() || why == Why::Stopped && *current != Some(why);
            if counts {
                *current = Some(why);
            }
            counts
        });
    }

    /// The reason, if it is wished.
    pub fn now(&self) -> Option<Why> {
        *self.0.borrow()
    }

    /// Waits for the wish.
    pub async fn wished(&self) -> Why {
        self.when(Option::is_some).await
    }

    /// Waits until the process is told to stop.
    pub(crate) async fn stopped(&self) {
        self.when(|why| *why == Some(Why::Stopped)).await;
    }

    async fn when(&self, is_it: impl FnMut(&Option<Why>) -> bool) -> Why {
        let mut changes = self.0.subscribe();
        let wished = changes.wait_for(is_it).await.map(|why| why.unwrap_or(Why::Stopped)).ok();
        match wished {
            Some(why) => why,
            // The sender lives as long as we do.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays_but_for_the_end_of_the_process() {
        let abort = Abort::default();
        abort.wish(Why::Cancelled);
        abort.wish(Why::OutOfTime);
        assert_eq!(abort.wished().await, Why::Cancelled);
        abort.wish(Why::Stopped);
        abort.wish(Why::Cancelled);
        abort.stopped().await;
        assert_eq!(abort.now(), Some(Why::Stopped));
    }
}
