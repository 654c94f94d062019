//! What the runner says, and who waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use legwork_proto::micro::{Done, Event, Failure, MAX_LINE, Ready, code, kind};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};

use crate::Error;

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// Cuts a runner's output into lines of bounded length.
pub(super) struct Lines {
    bytes: Vec<u8>,
    start: usize,
    scanned: usize,
    stream: Box<dyn AsyncRead + Send + Unpin>,
}

impl Lines {
    pub(super) fn new(early: Vec<u8>, stream: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Self { bytes: early, start: 0, scanned: 0, stream }
    }

    /// The next line, without its end.
    pub(super) async fn next(&mut self) -> Result<&[u8], Error> {
        loop {
            if let Some(at) = self.bytes[self.scanned..].iter().position(|b| *b == b'\n') {
                let (from, to) = (self.start, self.scanned + at);
                (self.start, self.scanned) = (to + 1, to + 1);
                return Ok(&self.bytes[from..to]);
            }
            self.bytes.drain(..self.start);
            (self.start, self.scanned) = (0, self.bytes.len());
            if self.bytes.len() >= MAX_LINE {
                return Err(Error::Read("a line of the runner is too long".into()));
            }
            if self.bytes.is_empty() {
                self.bytes.shrink_to(CHUNK);
            }
            self.bytes.reserve(CHUNK);
            match self.stream.read_buf(&mut self.bytes).await {
                Ok(0) => return Err(Error::Read("the connection ended".into())),
                Ok(_) => {}
                Err(error) => return Err(Error::Read(error.to_string())),
            }
        }
    }
}

/// A message, its body not read yet.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn parse(line: &[u8]) -> Result<Envelope<'_>, Error> {
    serde_json::from_slice(line).map_err(|_| {
        let start = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        Error::Read(format!("not a message of the protocol: {start}"))
    })
}

/// The runner's first message.
pub(super) async fn greeting(lines: &mut Lines) -> Result<Ready, Error> {
    let line = match lines.next().await {
        Ok(line) => line,
        Err(Error::Read(why)) => return Err(Error::NotReady(why)),
        Err(error) => return Err(error),
    };
    let message = parse(line).map_err(|error| Error::NotReady(error.to_string()))?;
    match message.kind.as_str() {
        kind::READY => {
            serde_json::from_str(message.data.get()).map_err(|error| Error::NotReady(error.to_string()))
        }
        kind::ERROR => {
            let failure: Result<Failure, _> = serde_json::from_str(message.data.get());
            Err(failure.map_or_else(
                |error| Error::NotReady(error.to_string()),
                |failure| Error::Command(Box::new(failure)),
            ))
        }
        other => Err(Error::NotReady(format!("expected READY, got {other}"))),
    }
}

/// Somebody who waits for an answer.
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) events: Option<mpsc::Sender<Event>>,
    pub(super) answer: oneshot::Sender<Result<Box<RawValue>, Error>>,
}

/// Who waits, in the order of the commands; and why nobody can any more.
#[derive(Default)]
pub(super) struct Shared(Mutex<(VecDeque<Waiting>, Option<Error>)>);

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, (VecDeque<Waiting>, Option<Error>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues somebody, unless the runner is gone.
    pub(super) fn wait_for(&self, waiting: Waiting) -> Result<(), Error> {
        let mut state = self.lock();
        if let Some(error) = &state.1 {
            return Err(error.clone());
        }
        state.0.push_back(waiting);
        Ok(())
    }

    /// Answers all who wait, and all who will.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.lock();
        let waiting = std::mem::take(&mut state.0);
        state.1.get_or_insert_with(|| error.clone());
        drop(state);
        for one in waiting {
            let _ = one.answer.send(Err(error.clone()));
        }
    }

    fn events(&self, id: &str) -> Option<mpsc::Sender<Event>> {
        self.lock().0.front().filter(|front| front.id == id).and_then(|front| front.events.clone())
    }

    /// The one whose turn it is; an answer without an id is for that one, too.
    fn answer(&self, id: &str) -> Result<Waiting, Error> {
        let mut state = self.lock();
        let front =
            state.0.pop_front().ok_or_else(|| Error::Read(format!("an answer to nothing: {id:?}")))?;
        if id.is_empty() || front.id == id {
            return Ok(front);
        }
        let error = Error::IdMismatch { expected: front.id.clone(), got: id.to_owned() };
        let _ = front.answer.send(Err(error.clone()));
        Err(error)
    }
}

/// Hands on what the runner says, to its end.
pub(super) async fn run(mut lines: Lines, shared: Arc<Shared>) {
    loop {
        if let Err(error) = message(&mut lines, &shared).await {
            shared.fail(&error);
            return;
        }
    }
}

async fn message(lines: &mut Lines, shared: &Shared) -> Result<(), Error> {
    let message = parse(lines.next().await?)?;
    let data = message.data.get();
    let unread = |error: serde_json::Error| Error::Read(format!("bad {}: {error}", message.kind));
    match message.kind.as_str() {
        kind::EVENT => {
            let event: Event = serde_json::from_str(data).map_err(unread)?;
            if let Some(events) = shared.events(&event.command_id) {
                // Who reads slowly holds the runner up; who reads no more holds up nobody.
                let _ = events.send(event).await;
            }
        }
        kind::DONE => {
            let done: Done<Box<RawValue>> = serde_json::from_str(data).map_err(unread)?;
            let waiting = shared.answer(&done.command_id)?;
            let _ = waiting.answer.send(Ok(done.result));
        }
        kind::ERROR => {
            let failure: Failure = serde_json::from_str(data).map_err(unread)?;
            // The runner's own end is no answer to a command.
            if matches!(failure.code.as_str(), code::INIT_FAILED | code::READY_FAILED) {
                return Err(Error::Command(Box::new(failure)));
            }
            let waiting = shared.answer(&failure.command_id)?;
            let _ = waiting.answer.send(Err(Error::Command(Box::new(failure))));
        }
        kind::EXIT => return Err(Error::Exited),
        other => return Err(Error::UnexpectedType(other.to_owned())),
    }
    Ok(())
}
