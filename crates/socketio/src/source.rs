//! What is sent to a client without being queued: streams that it has a place in.

use std::sync::Arc;
use std::time::Instant;

use crate::data::Payload;

/// Something that a client reads at its own pace, such as what a terminal shows. Whoever writes
/// to the client's connection asks for one piece at a time, so a slow client costs nothing.
pub trait Source: Send {
    /// Its name: a client has one source of a name at most.
    fn name(&self) -> &str;

    /// The next piece, if there is one now.
    fn next(&mut self, now: Instant) -> Next;

    /// The client's connection is gone, and may come back: it holds nobody up until then.
    fn pause(&mut self);

    /// The client is back.
    fn resume(&mut self);

    /// The client is gone, and will not come back.
    fn end(&mut self);
}

/// What there is in a source.
pub enum Next {
    /// Something.
    Ready(Piece),
    /// Something, at that time.
    Later(Instant),
    /// Nothing, until the client is woken.
    Nothing,
}

/// A piece of a source: an event.
pub struct Piece {
    /// The event's name.
    pub event: &'static str,
    /// What it carries.
    pub payload: Payload,
    /// How it is sent again, to a client whose connection broke before it had come.
    pub again: Again,
}

/// How an event is sent again.
#[derive(Clone)]
pub enum Again {
    /// As it was: it is remembered with its payload.
    Whole,
    /// From a log that somebody else keeps, where it is this range.
    Range {
        /// Who keeps it.
        past: Arc<dyn Past>,
        /// Where the range starts.
        from: u64,
        /// Where it ends.
        to: u64,
    },
}

/// A log from which what was sent can be made again.
pub trait Past: Send + Sync {
    /// What was sent of a range; `None` if it is kept no longer.
    fn payload(&self, from: u64, to: u64) -> Option<Payload>;
}
