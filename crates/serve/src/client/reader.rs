//! A client's place in a terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Payload;
use crate::terminal::journal::whole_characters;
use crate::terminal::{Next, Terminal, Viewer};

/// At most one message in this time, unless there is much to say.
const PAUSE: Duration = Duration::from_millis(8);
/// Most bytes of output in one message.
const MAX_PIECE: usize = 64 * 1024;
/// How long the start of a character waits for its rest.
const HOLD: Duration = Duration::from_millis(50);

/// What there is for a reader.
pub(crate) enum Look {
    /// Something: bytes as text, or a replay.
    Ready {
        text: String,
        from: u64,
        to: u64,
        replay: bool,
    },
    /// Something, at that time.
    Later(Instant),
    Nothing,
}

/// A client that looks at a terminal.
pub(crate) struct Reader {
    terminal: Arc<Terminal>,
    viewer: Arc<Viewer>,
    named: bool,
    sent: Option<Instant>,
    held: Option<Instant>,
    paused: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.terminal.id, self.viewer.offset.load(Ordering::Relaxed))
    }
}

/// The payload of `terminal:data`: the shared terminal's as the original has it.
pub(crate) fn data(text: &str, id: Option<&str>, offset: u64) -> Payload {
    match id {
        None => super::payload(&json!({ "data": text })),
        Some(id) => super::payload(&json!({ "id": id, "data": text, "offset": offset })),
    }
}

impl Reader {
    /// `viewer` says who looks, and from where on.
    pub(crate) fn new(terminal: Arc<Terminal>, viewer: Viewer, named: bool) -> Self {
        let viewer = Arc::new(viewer);
        terminal.attach(viewer.clone());
        Self { terminal, viewer, named, sent: None, held: None, paused: false }
    }

    pub(crate) fn terminal(&self) -> &Arc<Terminal> {
        &self.terminal
    }

    pub(crate) fn named(&self) -> bool {
        self.named
    }

    pub(crate) fn payload(&self, text: &str, to: u64) -> Payload {
        data(text, self.named.then_some(&*self.terminal.id), to)
    }

    pub(crate) fn look(&mut self, now: Instant) -> Look {
        if self.paused {
            return Look::Nothing;
        }
        let from = self.viewer.offset.load(Ordering::Relaxed);
        let behind = self.terminal.end().saturating_sub(from);
        if behind == 0 {
            return Look::Nothing;
        }
        if let Some(at) = self.sent.map(|sent| sent + PAUSE)
            && at > now
            && behind < MAX_PIECE as u64
        {
            return Look::Later(at);
        }
        match self.terminal.next(&self.viewer, MAX_PIECE) {
            None => Look::Nothing,
            Some(Next::Replay(text, to)) => {
                self.sent(now, to);
                Look::Ready { text, from: to, to, replay: true }
            }
            Some(Next::Bytes(bytes)) => {
                let mut whole = whole_characters(&bytes);
                if whole == 0 {
                    let until = *self.held.get_or_insert(now) + HOLD;
                    if until > now {
                        return Look::Later(until);
                    }
                    // Its rest does not come.
                    whole = bytes.len();
                }
                let to = from + whole as u64;
                let text = match String::from_utf8(bytes) {
                    Ok(text) => text,
                    Err(error) => String::from_utf8_lossy(&error.as_bytes()[..whole]).into_owned(),
                };
                self.sent(now, to);
                Look::Ready { text, from, to, replay: false }
            }
        }
    }

    fn sent(&mut self, now: Instant, to: u64) {
        self.sent = Some(now);
        self.held = None;
        self.terminal.advance(&self.viewer, to);
    }

    /// Its connection is gone: it holds nobody up.
    pub(crate) fn pause(&mut self) {
        if !self.paused {
            self.paused = true;
            self.terminal.detach(&self.viewer);
        }
    }

    pub(crate) fn go_on(&mut self) {
        if self.paused {
            self.paused = false;
            self.terminal.attach(self.viewer.clone());
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.pause();
    }
}
