//! A connected client: what is sent to it, in order and at its own pace.
//!
//! Nothing is queued that can be read again: of a terminal a client has only its place in
//! the journal. Whoever writes to the connection asks for one message at a time.

mod log;
mod reader;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::value::RawValue;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::terminal::{Terminal, Viewer};
use log::{Entry, Log, Sent};
use reader::{Look, Reader};

/// Most events that wait to be sent, beside answers.
const MAX_WAITING: usize = 1024;
/// Bytes of answers waiting above which no further request is worked on.
pub(crate) const MAX_ANSWERS: usize = 1 << 20;
/// Most bytes of answers that did not wait for room, as those to input: beyond, the client is
/// let go.
const MAX_HASTY: usize = 16 << 20;
/// What an answer costs beside its payload.
const OVERHEAD: usize = 128;
/// Requests about files that wait to be worked on, and their bytes: a larger one waits until
/// it is alone.
const MAX_REQUESTS: usize = 64;
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// A payload: one JSON value, shared by all it is sent to.
pub(crate) type Payload = Arc<RawValue>;

/// One message to a client.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Event {
        name: &'static str,
        payload: Payload,
        /// The event's place, for clients whose connection can be recovered.
        offset: Option<u64>,
    },
    Ack {
        id: u64,
        payload: Payload,
    },
}

/// A request of a client, to be worked on in order.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) event: String,
    pub(crate) data: crate::requests::Data,
    pub(crate) ack: Option<u64>,
    /// Its place among the bytes that may wait.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Everything.
    Work,
    /// Look, and change nothing.
    Look,
}

/// How a client came.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    pub(crate) rights: Rights,
    /// Whether it wants to see what the shared terminal has shown before.
    pub(crate) replay: bool,
    /// Whether its connection can be recovered.
    pub(crate) recoverable: bool,
}

#[derive(Debug)]
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
    /// The newest tree, whatever it is by then.
    Refresh,
    /// Sent before, on a connection that broke.
    Again(Message),
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    /// Bytes that wait, and those of them that did not wait for room.
    bytes: usize,
    hasty: usize,
    /// The newest tree of the whole workspace, not sent yet.
    refresh: Option<Payload>,
    readers: Vec<Reader>,
    /// Which reader is asked first.
    turn: usize,
    log: Log,
    /// Events were dropped: said before the next one.
    dropped: bool,
}

/// A client of the workspace.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    /// Its public and its private name.
    pub(crate) sid: String,
    pub(crate) pid: Option<String>,
    pub(crate) rights: Rights,
    pub(crate) wake: Arc<Notify>,
    inner: Mutex<Inner>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    places: Arc<Semaphore>,
    /// It asks and does not read: it is let go.
    flooded: AtomicBool,
    /// Answers have been sent: work can go on.
    relieved: Notify,
    /// It wants to hear of more than the original knows.
    pub(crate) watches: Watches,
}

/// What a client has subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    pub(crate) files: AtomicBool,
    pub(crate) ports: AtomicBool,
    pub(crate) usage: AtomicBool,
    pub(crate) terminals: AtomicBool,
    pub(crate) storage: AtomicBool,
}

/// Makes a payload.
pub(crate) fn payload(value: &impl serde::Serialize) -> Payload {
    match serde_json::value::to_raw_value(value) {
        Ok(raw) => raw.into(),
        Err(_) => RawValue::NULL.to_owned().into(),
    }
}

impl Client {
    pub(crate) fn new(id: u64, joining: &Joining) -> Arc<Self> {
        Arc::new(Self {
            id,
            sid: crate::ids::random(),
            pid: joining.recoverable.then(crate::ids::random),
            rights: joining.rights,
            wake: Arc::new(Notify::new()),
            inner: Mutex::default(),
            requests: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_REQUEST_BYTES)),
            flooded: AtomicBool::new(false),
            relieved: Notify::new(),
            watches: Watches::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Sends an event that answers a request. Who asked has waited for room.
    pub(crate) fn answer(&self, name: &'static str, payload: Payload) {
        self.push(Waiting::Event { name, payload, hasty: false });
    }

    /// Answers a request that was worked on whatever waited: input goes past all else.
    pub(crate) fn answer_at_once(&self, name: &'static str, payload: Payload) {
        self.push(Waiting::Event { name, payload, hasty: true });
    }

    /// Sends an event that was not asked for; who reads too slowly loses it, and is told.
    pub(crate) fn tell(&self, name: &'static str, payload: Payload) {
        let mut inner = self.lock();
        if inner.waiting.len() >= MAX_WAITING || inner.bytes > 4 * MAX_ANSWERS {
            inner.dropped = true;
            return;
        }
        drop(inner);
        self.answer(name, payload);
    }

    /// Sends the tree of the whole workspace; a newer one takes the place of one that has
    /// not been sent.
    pub(crate) fn refresh(&self, tree: Payload) {
        let mut inner = self.lock();
        if inner.refresh.replace(tree).is_none() {
            inner.waiting.push_back(Waiting::Refresh);
        }
        drop(inner);
        self.wake.notify_one();
    }

    pub(crate) fn acknowledge(&self, id: u64, payload: Payload) {
        self.push(Waiting::Ack { id, payload, hasty: false });
    }

    /// As `answer_at_once`.
    pub(crate) fn acknowledge_at_once(&self, id: u64, payload: Payload) {
        self.push(Waiting::Ack { id, payload, hasty: true });
    }

    /// Waits until not too many answers wait to be sent.
    pub(crate) async fn has_room(&self) {
        loop {
            let relieved = self.relieved.notified();
            if self.lock().bytes < MAX_ANSWERS {
                return;
            }
            relieved.await;
        }
    }

    /// The queue of requests that are worked on one after another; `work` starts the worker.
    pub(crate) fn queue(&self, work: impl FnOnce(mpsc::Receiver<Request>)) -> mpsc::Sender<Request> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*requests
            && !sender.is_closed()
        {
            return sender.clone();
        }
        // Its bytes are bounded by `place`.
        let (sender, receiver) = mpsc::channel(MAX_REQUESTS);
        *requests = Some(sender.clone());
        work(receiver);
        sender
    }

    /// Waits for a place among the requests that wait, for one of so many bytes.
    pub(crate) async fn place(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.clamp(1, MAX_REQUEST_BYTES)).unwrap_or(u32::MAX);
        self.places.clone().acquire_many_owned(permits).await.ok()
    }

    /// Whether nothing waits to be sent that is here already.
    pub(crate) fn is_quiet(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Starts to look at a terminal. `named`: its events say which terminal they are of.
    pub(crate) fn attach(&self, terminal: Arc<Terminal>, from: u64, named: bool) {
        let mut inner = self.lock();
        inner.readers.retain(|r| r.terminal().id != terminal.id);
        let viewer = Viewer {
            named,
            wake: self.wake.clone(),
            offset: AtomicU64::new(from),
            skip: AtomicBool::new(false),
        };
        inner.readers.push(Reader::new(terminal, viewer, named));
        drop(inner);
        self.wake.notify_one();
    }

    pub(crate) fn detach(&self, id: &str) -> bool {
        let mut inner = self.lock();
        let before = inner.readers.len();
        inner.readers.retain(|r| r.terminal().id != id);
        inner.readers.len() < before
    }

    /// The terminals it looks at.
    pub(crate) fn looks_at(&self) -> Vec<Arc<Terminal>> {
        self.lock().readers.iter().map(|r| r.terminal().clone()).collect()
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
        while let Some(waiting) = inner.waiting.pop_front() {
            let (bytes, hasty) = waiting.cost();
            inner.bytes = inner.bytes.saturating_sub(bytes);
            inner.hasty = inner.hasty.saturating_sub(hasty);
            let message = match waiting {
                Waiting::Event { name, payload, .. } => inner.event(name, payload, recoverable),
                Waiting::Ack { id, payload, .. } => Message::Ack { id, payload },
                Waiting::Refresh => match inner.refresh.take() {
                    Some(tree) => inner.event("file:refresh", tree, recoverable),
                    None => continue,
                },
                Waiting::Again(message) => message,
            };
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
        let mut until: Option<Instant> = None;
        for _ in 0..inner.readers.len() {
            let turn = inner.turn % inner.readers.len();
            inner.turn = turn + 1;
            match inner.readers[turn].look(now) {
                Look::Ready { text, from, to, replay } => {
                    let reader = &inner.readers[turn];
                    let payload = reader.payload(&text, to);
                    let terminal = reader.terminal().clone();
                    let named = reader.named();
                    let sent = if replay {
                        Sent::Event { name: "terminal:data", payload: payload.clone() }
                    } else {
                        Sent::Bytes { terminal, named, from, to }
                    };
                    let offset = recoverable.then(|| inner.log.add(sent));
                    return Ok(Message::Event { name: "terminal:data", payload, offset });
                }
                Look::Later(at) => until = Some(until.map_or(at, |u| u.min(at))),
                Look::Nothing => {}
            }
        }
        Err(until)
    }

    /// Stops to look at terminals: the connection is gone. What it has not got can be
    /// asked for when it comes back.
    pub(crate) fn pause(&self) {
        for reader in &mut self.lock().readers {
            reader.terminal().set_aside(self.id, true);
            reader.pause();
        }
    }

    /// Goes on for a client that has come back, and has got all up to `offset`. `false`
    /// if what it missed is not kept.
    pub(crate) fn resume(&self, offset: u64) -> bool {
        let mut inner = self.lock();
        let Some(missed) = inner.log.after(offset) else { return false };
        let mut again = VecDeque::with_capacity(missed.len());
        for Entry { offset, sent } in missed {
            let (name, payload) = match sent {
                Sent::Event { name, payload } => (name, payload),
                Sent::Bytes { terminal, named, from, to } => {
                    let Some(bytes) = terminal.range(from, to) else { return false };
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    ("terminal:data", reader::data(&text, named.then_some(&*terminal.id), to))
                }
            };
            again.push_back(Waiting::Again(Message::Event { name, payload, offset: Some(offset) }));
        }
        // Acknowledgements belong to the connection they were asked on.
        inner.waiting.retain(|w| matches!(w, Waiting::Event { .. } | Waiting::Refresh));
        again.append(&mut inner.waiting);
        inner.waiting = again;
        inner.bytes = inner.waiting.iter().map(|w| w.cost().0).sum();
        inner.hasty = inner.waiting.iter().map(|w| w.cost().1).sum();
        for reader in &mut inner.readers {
            reader.terminal().set_aside(self.id, false);
            reader.go_on();
        }
        drop(inner);
        self.relieved.notify_waiters();
        self.wake.notify_one();
        true
    }

    /// Drops everything: the client will not come back.
    pub(crate) fn leave(&self) {
        let mut inner = self.lock();
        for reader in &inner.readers {
            reader.terminal().leave_room(self.id);
        }
        *inner = Inner::default();
        drop(inner);
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
            // There is one tree, which all share; what is sent again is kept anyway.
            Self::Refresh | Self::Again(_) => (0, 0),
        }
    }
}

impl Inner {
    fn event(&mut self, name: &'static str, payload: Payload, recoverable: bool) -> Message {
        let offset = recoverable.then(|| self.log.add(Sent::Event { name, payload: payload.clone() }));
        Message::Event { name, payload, offset }
    }
}
