//! What it takes to run a command somewhere: to start it, to type into it, to change the size of
//! its terminal, to signal it, to read what it says from an offset on, and to learn how it ended.
//!
//! Whoever needs something to run takes an [`Executor`], and need not know where that is. On this
//! machine it is the runner (`legwork_runner::Here`). A runner that has dialled in, or a host that
//! is reached by ssh, is another implementation: it answers [`Process::read`] from the journal at
//! the far end, so that a reader goes on after a cut where it was. This crate knows no operating
//! system and no protocol; it builds everywhere.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

/// What will be there in a while.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Characters in a row.
    pub cols: u16,
    /// How many rows there are.
    pub rows: u16,
}

/// What a command reads from and writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// It reads nothing; what it writes is kept in a journal, for any reader.
    Journal,
    /// A terminal of that size. What it shows is read once, by one reader, who keeps what is to
    /// be read again.
    Terminal(Size),
}

/// One of a command's two streams of output. A terminal has the first alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How much of each stream a reader has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes of standard output, or of the terminal.
    pub stdout: u64,
    /// Bytes of standard error.
    pub stderr: u64,
}

impl Place {
    /// Moves on past a piece.
    pub fn pass(&mut self, piece: Piece) {
        match piece.stream {
            Stream::Stdout => self.stdout += piece.len as u64,
            Stream::Stderr => self.stderr += piece.len as u64,
        }
    }
}

/// What one read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it was written.
    pub stream: Stream,
    /// How many bytes of the buffer it fills; 0 if no more will ever come.
    pub len: usize,
}

/// What a command can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// What typing ^C does, past all that was typed and has not been read.
    Interrupt,
    /// To end, with all that it has started: by force, if it does not within its grace.
    End,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, or 128 and the number of the signal that ended it; 1 if nobody knows.
    pub code: i32,
    /// Whether its time was up.
    pub timed_out: bool,
    /// Why it never ran, or why its end is unknown.
    pub failure: Option<Failure>,
}

/// What went wrong with a command that was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It never came to run.
    #[error("{0}")]
    NotStarted(String),
    /// It ran, and nobody knows how it ended.
    #[error("{0}")]
    Lost(String),
}

/// Why a command was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// The rules there do not let it run.
    #[error("{0}")]
    Denied(String),
    /// It could not be started.
    #[error("{0}")]
    Failed(String),
}

/// Somewhere to run commands.
pub trait Executor: Send + Sync {
    /// What is to be run there, and for whom.
    type Command;

    /// Starts a command, and does not wait. What is known at once to keep it from running is the
    /// error; what turns out later is told by [`Process::ended`].
    fn start(&self, command: &Self::Command, io: Io) -> Result<Arc<dyn Process>, NotStarted>;
}

/// A command that was started. It goes on when this is dropped, unless it has a terminal: that
/// hangs up.
pub trait Process: Send + Sync {
    /// Waits until there is output behind `from`, and reads it. Of a terminal `from` only ever
    /// moves forward. Safe to cancel.
    fn read<'a>(&'a self, from: Place, buffer: &'a mut [u8]) -> Pending<'a, io::Result<Piece>>;

    /// Types as much as is taken now; returns how much that was.
    fn write(&self, data: &[u8]) -> io::Result<usize>;

    /// Waits until something of what waits in `queue` is taken, and types that. Safe to cancel.
    fn write_from<'a>(&'a self, queue: &'a Mutex<VecDeque<u8>>) -> Pending<'a, io::Result<()>>;

    /// Changes the size of its terminal.
    fn resize(&self, size: Size);

    /// Whether typing this byte interrupts what reads the terminal now, rather than being read.
    fn interrupts(&self, byte: u8) -> bool;

    /// Tells it something.
    fn signal(&self, signal: Signal) -> io::Result<()>;

    /// Waits until it has ended; what it has written by then can still be read. May be asked
    /// again. Safe to cancel.
    fn ended(&self) -> Pending<'_, Ended>;
}
