//! A connected client: what is sent to it, in order and at its own pace.
//!
//! Nothing is queued that can be read again: of what a [`Source`] gives, a client has its place
//! alone. Whoever writes to the connection asks for one message at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::data::{Message, Payload, payload};
use crate::log::{Entry, Log, Sent};
use crate::source::{Again, Next, Source};

/// Most events that wait to be sent, beside answers.
const MAX_WAITING: usize = 1024;
/// Bytes of answers waiting above which no further request is worked on.
const MAX_ANSWERS: usize = 1 << 20;
/// Most bytes of answers that did not wait for room, as those to input: beyond, the client is
/// let go.
const MAX_HASTY: usize = 16 << 20;
/// What an answer costs beside its payload.
const OVERHEAD: usize = 128;

/// Room in a client's queue for answers: nothing is queued without. It is got by waiting
/// ([`Client::room`]), or at once at the client's peril ([`Client::at_once`]).
#[derive(Debug, Clone, Copy)]
pub struct Room {
    hasty: bool,
}

enum Waiting {
    Event {
        name: &'static str,
        payload: Payload,
        hasty: bool,
    },
    Ack {
        id: u64,
        payload: Payload,
        hasty: bool,
    },
    /// The newest payload of the event of that name, whatever it is by then.
    Newest(&'static str),
    /// Sent before, on a connection that broke.
    Again(Message),
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    /// Bytes that wait, and those of them that did not wait for room.
    bytes: usize,
    hasty: usize,
    /// Events of which only the newest counts, and which have not been sent yet.
    newest: Vec<(&'static str, Payload)>,
    sources: Vec<Box<dyn Source>>,
    /// Which source is asked first.
    turn: usize,
    log: Log,
    /// Events were dropped: said before the next one.
    dropped: bool,
}

/// A client, and what its handler knows of it.
pub struct Client<M> {
    /// Its number.
    pub id: u64,
    /// Its public name.
    pub sid: String,
    /// Its private name, by which it comes back after a cut.
    pub(crate) pid: Option<String>,
    /// What its handler knows of it.
    pub member: M,
    wake: Arc<Notify>,
    inner: Mutex<Inner>,
    /// It asks and does not read: it is let go.
    flooded: AtomicBool,
    /// Answers have been sent: work can go on.
    relieved: Notify,
}

impl<M> std::fmt::Debug for Client<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).field("sid", &self.sid).finish_non_exhaustive()
    }
}

impl<M> Client<M> {
    pub(crate) fn new(id: u64, member: M, recoverable: bool) -> Arc<Self> {
        Arc::new(Self {
            id,
            sid: legwork_base::ids::secret(),
            pid: recoverable.then(legwork_base::ids::secret),
            member,
            wake: Arc::new(Notify::new()),
            inner: Mutex::default(),
            flooded: AtomicBool::new(false),
            relieved: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever sends to it: a source of its has something.
    pub fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }

    fn push(&self, waiting: Waiting) {
        let mut inner = self.lock();
        let (bytes, hasty) = waiting.cost();
        inner.bytes += bytes;
        inner.hasty += hasty;
        if inner.hasty > MAX_HASTY {
            self.flooded.store(true, Ordering::Relaxed);
            return;
        }
        inner.waiting.push_back(waiting);
        drop(inner);
        self.wake.notify_one();
    }

    /// Whether it has asked for so much without reading the answers that it is to be let go.
    pub(crate) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Waits until not too many answers wait to be sent. What was got here serves all answers
    /// to one request.
    pub async fn room(&self) -> Room {
        loop {
            let relieved = self.relieved.notified();
            if self.lock().bytes < MAX_ANSWERS {
                return Room { hasty: false };
            }
            relieved.await;
        }
    }

    /// Room without waiting, for what goes past all that waits. A client that takes very much of
    /// it, and does not read, is let go.
    pub fn at_once(&self) -> Room {
        Room { hasty: true }
    }

    /// Queues an event that answers a request.
    pub fn answer(&self, room: Room, name: &'static str, payload: Payload) {
        self.push(Waiting::Event { name, payload, hasty: room.hasty });
    }

    /// Queues the acknowledgement of a request, if one is waited for.
    pub fn acknowledge(&self, room: Room, ack: Option<u64>, payload: Payload) {
        if let Some(id) = ack {
            self.push(Waiting::Ack { id, payload, hasty: room.hasty });
        }
    }

    /// Sends an event that the client did not ask for. If the client reads too slowly, the event
    /// is dropped and a notice takes its place, so that one slow reader can't make the server
    /// hold its output.
    pub fn tell(&self, name: &'static str, payload: Payload) {
        let mut inner = self.lock();
        if inner.waiting.len() >= MAX_WAITING || inner.bytes > 4 * MAX_ANSWERS {
            inner.dropped = true;
            return;
        }
        drop(inner);
        self.push(Waiting::Event { name, payload, hasty: false });
    }

    /// Sends an event of which only the newest counts: it takes the place of one that has not
    /// been sent yet.
    pub fn tell_newest(&self, name: &'static str, payload: Payload) {
        let mut inner = self.lock();
        match inner.newest.iter_mut().find(|(known, _)| *known == name) {
            Some((_, older)) => *older = payload,
            None => {
                inner.newest.push((name, payload));
                inner.waiting.push_back(Waiting::Newest(name));
            }
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// Whether nothing waits to be sent that is here already.
    pub(crate) fn is_quiet(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Starts to send what a source gives, in place of one of the same name.
    pub fn follow(&self, source: Box<dyn Source>) {
        let mut inner = self.lock();
        inner.sources.retain(|s| s.name() != source.name());
        inner.sources.push(source);
        drop(inner);
        self.wake.notify_one();
    }

    /// Sends nothing more of a source.
    pub fn unfollow(&self, name: &str) {
        self.lock().sources.retain(|s| s.name() != name);
    }

    /// Whether it gets what that source gives.
    pub fn follows(&self, name: &str) -> bool {
        self.lock().sources.iter().any(|s| s.name() == name)
    }

    /// The next message, as soon as there is one. Safe to cancel.
    pub(crate) async fn next(&self) -> Message {
        loop {
            let wake = self.wake.notified();
            let until = match self.take(Instant::now()) {
                Ok(message) => return message,
                Err(until) => until,
            };
            match until {
                Some(at) => {
                    tokio::select! {
                        () = wake => {}
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
                None => wake.await,
            }
        }
    }

    /// The next message, or when to look again.
    pub(crate) fn take(&self, now: Instant) -> Result<Message, Option<Instant>> {
        let mut inner = self.lock();
        let recoverable = self.pid.is_some();
        if let Some(message) = inner.take_waiting(recoverable) {
            let relieved = inner.bytes < MAX_ANSWERS;
            drop(inner);
            if relieved {
                self.relieved.notify_waiters();
            }
            return Ok(message);
        }
        if inner.dropped {
            inner.dropped = false;
            let said = payload(&serde_json::json!({ "dropped": true }));
            return Ok(inner.event("events:dropped", said, recoverable));
        }
        inner.take_from_sources(now, recoverable)
    }

    /// Sends nothing more for now: the connection is gone. What it has not got can be asked for
    /// when it comes back.
    pub(crate) fn pause(&self) {
        for source in &mut self.lock().sources {
            source.pause();
        }
    }

    /// Goes on for a client that has come back, and has got all up to `offset`. `false`
    /// if what it missed is not kept.
    pub(crate) fn resume(&self, offset: u64) -> bool {
        let mut inner = self.lock();
        let Some(missed) = inner.log.after(offset) else { return false };
        let mut again = VecDeque::with_capacity(missed.len());
        for Entry { offset, name, sent } in missed {
            let Some(payload) = sent.payload() else { return false };
            again.push_back(Waiting::Again(Message::Event { name, payload, offset: Some(offset) }));
        }
        // Acknowledgements belong to the connection they were asked on.
        inner.waiting.retain(|w| matches!(w, Waiting::Event { .. } | Waiting::Newest(_)));
        again.append(&mut inner.waiting);
        inner.waiting = again;
        inner.bytes = inner.waiting.iter().map(|w| w.cost().0).sum();
        inner.hasty = inner.waiting.iter().map(|w| w.cost().1).sum();
        for source in &mut inner.sources {
            source.resume();
        }
        drop(inner);
        self.relieved.notify_waiters();
        self.wake.notify_one();
        true
    }

    /// Drops everything: the client will not come back.
    pub(crate) fn leave(&self) {
        let mut inner = self.lock();
        for source in &mut inner.sources {
            source.end();
        }
        *inner = Inner::default();
        drop(inner);
        self.relieved.notify_waiters();
    }
}

impl Waiting {
    /// Bytes it takes, and those of them that did not wait for room.
    fn cost(&self) -> (usize, usize) {
        match self {
            Self::Event { payload, hasty, .. } | Self::Ack { payload, hasty, .. } => {
                let bytes = payload.get().len() + OVERHEAD;
                (bytes, if *hasty { bytes } else { 0 })
            }
            // There is one, which all share; what is sent again is kept anyway.
            Self::Newest(_) | Self::Again(_) => (0, 0),
        }
    }
}

impl Inner {
    fn event(&mut self, name: &'static str, payload: Payload, recoverable: bool) -> Message {
        let offset = recoverable.then(|| self.log.add(name, Sent::Whole(payload.clone())));
        Message::Event { name, payload, offset }
    }

    /// The first of what waits.
    fn take_waiting(&mut self, recoverable: bool) -> Option<Message> {
        while let Some(waiting) = self.waiting.pop_front() {
            let (bytes, hasty) = waiting.cost();
            self.bytes = self.bytes.saturating_sub(bytes);
            self.hasty = self.hasty.saturating_sub(hasty);
            return Some(match waiting {
                Waiting::Event { name, payload, .. } => self.event(name, payload, recoverable),
                Waiting::Ack { id, payload, .. } => Message::Ack { id, payload },
                Waiting::Newest(name) => {
                    let Some(at) = self.newest.iter().position(|(known, _)| *known == name) else { continue };
                    let (_, payload) = self.newest.remove(at);
                    self.event(name, payload, recoverable)
                }
                Waiting::Again(message) => message,
            });
        }
        None
    }

    /// The next piece of a source, each in its turn.
    fn take_from_sources(&mut self, now: Instant, recoverable: bool) -> Result<Message, Option<Instant>> {
        let mut until: Option<Instant> = None;
        for _ in 0..self.sources.len() {
            let turn = self.turn % self.sources.len();
            self.turn = turn + 1;
            match self.sources[turn].next(now) {
                Next::Ready(piece) => {
                    let (name, payload) = (piece.event, piece.payload);
                    let offset = recoverable.then(|| {
                        let sent = match piece.again {
                            Again::Whole => Sent::Whole(payload.clone()),
                            Again::Range { past, from, to } => Sent::Range { past, from, to },
                        };
                        self.log.add(name, sent)
                    });
                    return Ok(Message::Event { name, payload, offset });
                }
                Next::Later(at) => until = Some(until.map_or(at, |u| u.min(at))),
                Next::Nothing => {}
            }
        }
        Err(until)
    }
}
