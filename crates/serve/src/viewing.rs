//! A client's place in a terminal: what it is sent of it, and when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_socketio::{Again, Next, Past, Payload, Piece, Source, payload};
use legwork_terminal::{Next as Shown, Terminal, Viewer, whole_characters};
use serde_json::json;

use crate::member::Client;

/// At most one message in this time, unless there is much to say, or so little that somebody
/// may be typing it.
const PAUSE: Duration = Duration::from_millis(8);
/// What counts as little: the echo of a key, a prompt with it. It waits for this long at most
/// after the last message, which no pair of hands and no key that is held down comes near.
const LITTLE: u64 = 512;
const LITTLE_PAUSE: Duration = Duration::from_millis(1);
/// Most bytes of output in one message.
const MAX_PIECE: usize = 64 * 1024;
/// How long the start of a character waits for its rest.
const HOLD: Duration = Duration::from_millis(50);
/// The event that carries output.
const DATA: &str = "terminal:data";

/// A client that looks at a terminal.
pub(crate) struct Viewing {
    shown: Arc<Output>,
    viewer: Arc<Viewer>,
    /// The client's number.
    client: u64,
    sent: Option<Instant>,
    held: Option<Instant>,
    paused: bool,
}

/// A terminal's output as a client gets it.
struct Output {
    terminal: Arc<Terminal>,
    /// Its events say which terminal they are of: the shared one's are as the original has them.
    named: bool,
}

impl Output {
    fn data(&self, text: &str, offset: u64) -> Payload {
        if self.named {
            payload(&json!({ "id": self.terminal.id, "data": text, "offset": offset }))
        } else {
            payload(&json!({ "data": text }))
        }
    }
}

impl Past for Output {
    fn payload(&self, from: u64, to: u64) -> Option<Payload> {
        let bytes = self.terminal.range(from, to)?;
        Some(self.data(&String::from_utf8_lossy(&bytes), to))
    }
}

impl Viewing {
    /// Lets a client look at a terminal from an offset on. `named`: it knows terminals by their
    /// ids.
    pub(crate) fn start(client: &Client, terminal: Arc<Terminal>, from: u64, named: bool) {
        let viewer = Arc::new(Viewer::new(named, client.wake().clone(), from));
        terminal.attach(viewer.clone());
        let shown = Arc::new(Output { terminal, named });
        let viewing = Self { shown, viewer, client: client.id, sent: None, held: None, paused: false };
        client.follow(Box::new(viewing));
    }

    fn terminal(&self) -> &Arc<Terminal> {
        &self.shown.terminal
    }

    fn sent(&mut self, now: Instant, to: u64) {
        self.sent = Some(now);
        self.held = None;
        self.terminal().advance(&self.viewer, to);
    }

    /// It holds nobody up any more.
    fn stop(&mut self) {
        if !self.paused {
            self.paused = true;
            self.terminal().detach(&self.viewer);
        }
    }

    /// Bytes as a message, or when there will be one: half a character waits for its rest.
    fn message(&mut self, now: Instant, from: u64, bytes: Vec<u8>) -> Next {
        let mut whole = whole_characters(&bytes);
        if whole == 0 {
            let until = *self.held.get_or_insert(now) + HOLD;
            if until > now {
                return Next::Later(until);
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
        let again = Again::Range { past: self.shown.clone(), from, to };
        Next::Ready(Piece { event: DATA, payload: self.shown.data(&text, to), again })
    }
}

impl Source for Viewing {
    fn name(&self) -> &str {
        &self.terminal().id
    }

    fn next(&mut self, now: Instant) -> Next {
        if self.paused {
            return Next::Nothing;
        }
        let from = self.viewer.offset();
        let behind = self.terminal().end().saturating_sub(from);
        if behind == 0 {
            return Next::Nothing;
        }
        let pause = if behind <= LITTLE { LITTLE_PAUSE } else { PAUSE };
        if let Some(at) = self.sent.map(|sent| sent + pause)
            && at > now
            && behind < MAX_PIECE as u64
        {
            return Next::Later(at);
        }
        match self.terminal().next(&self.viewer, MAX_PIECE) {
            None => Next::Nothing,
            Some(Shown::Replay(text, to)) => {
                self.sent(now, to);
                Next::Ready(Piece { event: DATA, payload: self.shown.data(&text, to), again: Again::Whole })
            }
            Some(Shown::Bytes(bytes)) => self.message(now, from, bytes),
        }
    }

    fn pause(&mut self) {
        self.terminal().set_aside(self.client, true);
        self.stop();
    }

    fn resume(&mut self) {
        self.terminal().set_aside(self.client, false);
        if self.paused {
            self.paused = false;
            self.terminal().attach(self.viewer.clone());
        }
    }

    fn end(&mut self) {
        self.terminal().leave_room(self.client);
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        self.stop();
    }
}
