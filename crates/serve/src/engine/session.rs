//! A client's session: one or two transports, and what goes through them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::meter::{self, Meter};
use super::packet::Incoming;
use crate::client::{Client, Joining, Message, Rights};
use crate::requests::Data;
use crate::room::{Join, Room};
use crate::socketio::{self, Packet};

/// Time for a client to connect to the namespace.
const CONNECT: Duration = Duration::from_secs(45);

/// After so many bytes the client is asked whether it has got them: clients answer a ping
/// when they have read all before it.
const PROBE: usize = 256 * 1024;
/// Most such questions open: what is under way can't be overtaken by what follows an
/// interrupt.
const PROBES: usize = 2;
/// Most packets of the connection itself that wait to be sent: an honest client reads as it
/// asks.
const MAX_RAW: usize = 256;

/// Which transport a session is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Polling,
    /// A WebSocket is being tried.
    Probing,
    WebSocket,
}

/// An event whose binary parts are still to come.
#[derive(Debug)]
struct Partial {
    args: Vec<Value>,
    ack: Option<u64>,
    missing: usize,
    parts: Vec<Vec<u8>>,
    bytes: usize,
}

#[derive(Debug)]
struct State {
    transport: Transport,
    client: Option<Arc<Client>>,
    /// Packets that come before anything of the client's.
    raw: VecDeque<String>,
    partial: Option<Partial>,
    closed: bool,
}

/// What the connection's handshake said.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    /// A token in the query.
    pub(crate) token: Option<String>,
    pub(crate) replay: bool,
}

/// An Engine.IO session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) sid: String,
    room: Arc<Room>,
    hello: Hello,
    state: Mutex<State>,
    /// There is something to send, or nothing ever again.
    wake: Notify,
    /// A poll is being answered; a body is being read.
    pub(crate) polled: AtomicBool,
    pub(crate) posting: AtomicBool,
    /// When the next ping is due, and by when its answer must be here: milliseconds since
    /// the server's start.
    ping_at: AtomicU64,
    pong_by: AtomicU64,
    pub(crate) connect_by: u64,
    /// How much of its next message may be read.
    pub(crate) meter: Meter,
    /// Bytes sent since the last probe, and probes that are not answered.
    unprobed: AtomicUsize,
    probes: AtomicUsize,
    /// A request waits for room, and nothing behind it is read: no answer to a ping either.
    deaf: AtomicBool,
}

/// What to send next.
#[derive(Debug)]
pub(crate) enum Out {
    Packet(String),
    /// The session is over.
    Closed,
}

/// Says that requests are read again.
struct Hearing<'a>(&'a AtomicBool);

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// How a session's client broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// By what it sent.
    Protocol,
    /// By how much.
    TooLarge,
}

impl Session {
    pub(crate) fn new(room: Arc<Room>, hello: Hello, transport: Transport) -> Arc<Self> {
        let now = room.now_ms();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let ping_at = AtomicU64::new(now + millis(room.settings.ping_interval));
        Arc::new(Self {
            sid: crate::ids::random(),
            hello,
            state: Mutex::new(State {
                transport,
                client: None,
                raw: VecDeque::new(),
                partial: None,
                closed: false,
            }),
            wake: Notify::new(),
            polled: AtomicBool::new(false),
            posting: AtomicBool::new(false),
            ping_at,
            pong_by: AtomicU64::new(u64::MAX),
            connect_by: now + millis(CONNECT),
            meter: Meter::new(None),
            unprobed: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            deaf: AtomicBool::new(false),
            room,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    pub(crate) fn transport(&self) -> Transport {
        self.lock().transport
    }

    /// What its client may do; `None` if it has not joined.
    pub(crate) fn rights(&self) -> Option<Rights> {
        self.lock().client.as_ref().map(|c| c.rights)
    }

    /// Most bytes of what it sends at once.
    pub(crate) fn most(&self) -> usize {
        meter::most(self.rights()).min(self.room.settings.max_message)
    }

    /// Moves to another transport, and releases a waiting poll.
    pub(crate) fn set_transport(&self, transport: Transport) {
        self.lock().transport = transport;
        self.wake.notify_waiters();
        self.wake.notify_one();
    }

    /// Sends a packet before all else.
    pub(crate) fn send_raw(&self, packet: impl Into<String>) {
        let mut state = self.lock();
        if state.raw.len() >= MAX_RAW {
            drop(state);
            self.close(true);
            return;
        }
        state.raw.push_back(packet.into());
        drop(state);
        self.wake.notify_one();
    }

    /// Looks at the clock: pings, and ends who does not answer. Called once a second.
    pub(crate) fn tick(&self, now: u64) {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let is_late = now >= self.pong_by.load(Ordering::Relaxed);
        if is_late
            && self.deaf.load(Ordering::Relaxed)
            && self.lock().client.as_ref().is_none_or(|c| c.is_quiet())
        {
            // We have not read its answer, and it has all that we have for it.
            self.heard_from(now);
        } else if is_late {
            tracing::debug!(sid = %self.sid, "no answer to a ping: closed");
            self.close(false);
            return;
        }
        if now >= self.connect_by && self.lock().client.is_none() {
            self.close(false);
            return;
        }
        if now >= self.ping_at.load(Ordering::Relaxed) {
            self.ping_at.store(u64::MAX, Ordering::Relaxed);
            self.pong_by.store(now + millis(self.room.settings.ping_timeout), Ordering::Relaxed);
            self.send_raw("2");
        }
    }

    /// It is there: the next ping is due in a while.
    fn heard_from(&self, now: u64) {
        let interval = u64::try_from(self.room.settings.ping_interval.as_millis()).unwrap_or(u64::MAX);
        self.pong_by.store(u64::MAX, Ordering::Relaxed);
        self.ping_at.store(now + interval, Ordering::Relaxed);
    }

    fn pong(&self) {
        self.heard_from(self.room.now_ms());
        let fewer = |probes: usize| probes.checked_sub(1);
        if self.probes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            self.wake.notify_one();
        }
    }

    /// Writes a message of the client's as a packet, and asks now and then whether what was
    /// sent has been read.
    fn packet(&self, message: &Message) -> String {
        let packet = socketio::encode(message);
        if self.deaf.load(Ordering::Relaxed) {
            // It reads, or there would have been no place for this; what it says waits.
            self.heard_from(self.room.now_ms());
        }
        if self.unprobed.fetch_add(packet.len(), Ordering::Relaxed) + packet.len() >= PROBE {
            self.unprobed.store(0, Ordering::Relaxed);
            self.probes.fetch_add(1, Ordering::Relaxed);
            self.send_raw("2");
        }
        packet
    }

    /// The next packet for `transport`, when there is one. Safe to cancel.
    pub(crate) async fn next(&self, transport: Transport) -> Out {
        loop {
            let wake = self.wake.notified();
            let client = match self.try_raw(transport) {
                Ok(out) => return out,
                Err(client) => client,
            };
            let message = async {
                match &client {
                    Some(client) => client.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = wake => {}
                message = message => return Out::Packet(self.packet(&message)),
            }
        }
    }

    /// What can be sent without waiting.
    pub(crate) fn try_next(&self, transport: Transport) -> Option<String> {
        match self.try_raw(transport) {
            Ok(Out::Packet(packet)) => Some(packet),
            Ok(Out::Closed) => None,
            Err(client) => client?.take(std::time::Instant::now()).ok().map(|message| self.packet(&message)),
        }
    }

    fn try_raw(&self, transport: Transport) -> Result<Out, Option<Arc<Client>>> {
        let mut state = self.lock();
        if let Some(packet) = state.raw.pop_front() {
            return Ok(Out::Packet(packet));
        }
        if state.closed {
            return Ok(Out::Closed);
        }
        match (state.transport, transport) {
            // The poll that waits is released, so that nothing is under way when the
            // client changes over.
            (Transport::Probing | Transport::WebSocket, Transport::Polling) => {
                Ok(Out::Packet("6".to_owned()))
            }
            (a, b) if a == b && self.may_send() => Err(state.client.clone()),
            _ => Err(None),
        }
    }

    /// Whether what is under way is little. Where nothing is read, no interrupt could overtake
    /// it, and no answer could say that it has come.
    fn may_send(&self) -> bool {
        self.probes.load(Ordering::Relaxed) < PROBES || self.deaf.load(Ordering::Relaxed)
    }

    /// Carries out what a packet says.
    pub(crate) async fn receive(self: &Arc<Self>, packet: Incoming) -> Result<(), Broken> {
        self.room.heard(self.lock().client.as_ref());
        match packet {
            Incoming::Pong => self.pong(),
            Incoming::Close => self.close(false),
            // Boxed: an idle session would carry the room for this about.
            Incoming::Message(text) => Box::pin(self.message(&text)).await?,
            Incoming::Binary(part) => Box::pin(self.binary(part)).await?,
            Incoming::Ping(_) | Incoming::Upgrade | Incoming::Noop => {}
        }
        self.meter.refill(self.rights());
        Ok(())
    }

    async fn message(self: &Arc<Self>, text: &str) -> Result<(), Broken> {
        if self.lock().partial.is_some() {
            return Err(Broken::Protocol);
        }
        let packet = socketio::decode(text).ok_or(Broken::Protocol)?;
        // Only a save may be larger than we said: as JSON it may be six times the file.
        if text.len() > self.room.settings.max_payload && !packet.is_save() {
            return Err(Broken::TooLarge);
        }
        match packet {
            Packet::Connect { auth } => self.connect(&auth),
            Packet::Disconnect => {
                self.leave(true);
                Ok(())
            }
            Packet::Elsewhere { namespace, connect } => {
                if connect {
                    let said = json!({ "message": "Invalid namespace" });
                    self.send_raw(format!("44{namespace},{said}"));
                }
                Ok(())
            }
            Packet::Event { args, ack, attachments: 0 } => self.event(args, ack, Vec::new()).await,
            Packet::Event { args, ack, attachments } => {
                self.lock().partial =
                    Some(Partial { args, ack, missing: attachments, parts: Vec::new(), bytes: 0 });
                Ok(())
            }
            Packet::TooDeep { ack } => {
                let client = self.lock().client.clone().ok_or(Broken::Protocol)?;
                crate::requests::too_deep(&client, ack);
                Ok(())
            }
            Packet::Ignored => Ok(()),
        }
    }

    async fn binary(self: &Arc<Self>, part: Vec<u8>) -> Result<(), Broken> {
        let whole = {
            let mut state = self.lock();
            let partial = state.partial.as_mut().ok_or(Broken::Protocol)?;
            partial.bytes += part.len();
            if partial.bytes > self.room.settings.max_message {
                return Err(Broken::TooLarge);
            }
            partial.parts.push(part);
            partial.missing -= 1;
            if partial.missing > 0 {
                return Ok(());
            }
            state.partial.take().ok_or(Broken::Protocol)?
        };
        self.event(whole.args, whole.ack, whole.parts).await
    }

    async fn event(
        self: &Arc<Self>,
        args: Vec<Value>,
        ack: Option<u64>,
        parts: Vec<Vec<u8>>,
    ) -> Result<(), Broken> {
        // An event before the namespace is joined ends the session, as in the library.
        let client = self.lock().client.clone().ok_or(Broken::Protocol)?;
        let mut args = args.into_iter();
        let event = match args.next() {
            Some(Value::String(event)) => event,
            // The library lets numbers be names; we know none.
            other => other.unwrap_or_default().to_string(),
        };
        let data = Data::new(args.next().unwrap_or(Value::Null), parts);
        let working = self.room.request(&client, event, data, ack);
        tokio::pin!(working);
        tokio::select! {
            biased;
            () = &mut working => {}
            () = std::future::ready(()) => {
                self.deaf.store(true, Ordering::Relaxed);
                self.wake.notify_one();
                let _hearing = Hearing(&self.deaf);
                working.await;
            }
        }
        if client.is_flooded() {
            tracing::warn!(sid = %self.sid, "a client asks and does not read the answers: it is let go");
            self.leave(true);
            return Err(Broken::Protocol);
        }
        Ok(())
    }

    /// Joins the room, or comes back to it.
    fn connect(self: &Arc<Self>, auth: &Value) -> Result<(), Broken> {
        if self.lock().client.is_some() {
            return Err(Broken::Protocol);
        }
        let text = |key: &str| auth.get(key).and_then(Value::as_str);
        let rights = match self.room.settings.access.rights(text("token").or(self.hello.token.as_deref())) {
            Some(rights) => rights,
            None => {
                self.room.metrics.refused();
                self.send_raw(format!("44{}", json!({ "message": "unauthorized" })));
                return Ok(());
            }
        };
        let recovery = self.room.settings.recovery;
        if recovery
            && let (Some(pid), Some(offset)) = (text("pid"), text("offset"))
            && let Some(client) = self.room.come_back(pid, offset, rights, self)
        {
            self.welcome(&client);
            return Ok(());
        }
        let replay = self.hello.replay && auth.get("replay") != Some(&Value::Bool(false));
        let asked_to_look = text("mode") == Some("read");
        let rights = if asked_to_look { Rights::Look } else { rights };
        match self.room.join(&Joining { rights, replay, recoverable: recovery }, Some(self)) {
            Join::Joined(client) => {
                // What is to be sent first waits in the client already; the welcome comes
                // before it.
                self.welcome(&client);
            }
            Join::Full => {
                self.send_raw(format!("44{}", json!({ "message": "too many connections" })));
            }
        }
        Ok(())
    }

    fn welcome(&self, client: &Arc<Client>) {
        let said = match &client.pid {
            Some(pid) => format!("40{{\"sid\":\"{}\",\"pid\":\"{pid}\"}}", client.sid),
            None => format!("40{{\"sid\":\"{}\"}}", client.sid),
        };
        let mut state = self.lock();
        state.raw.push_back(said);
        state.client = Some(client.clone());
        drop(state);
        self.wake.notify_one();
    }

    /// The client leaves the room. `for_good`: it has said so, and will not come back.
    fn leave(&self, for_good: bool) {
        let client = self.lock().client.take();
        if let Some(client) = client {
            self.room.left(&client, self, for_good);
        }
    }

    /// Ends the session. `for_good`: its client can't come back to it.
    pub(crate) fn close(&self, for_good: bool) {
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.closed = true;
        }
        self.leave(for_good);
        self.room.sessions.forget(&self.sid);
        self.wake.notify_waiters();
        self.wake.notify_one();
    }

    /// Ends the session because its client has come back by another one.
    pub(crate) fn give_way(&self) {
        self.lock().client = None;
        self.close(false);
    }

    /// Says goodbye: the server is shutting down.
    pub(crate) fn say_goodbye(&self) {
        {
            let mut state = self.lock();
            if state.client.is_some() {
                state.raw.push_back("41".into());
            }
            state.raw.push_back("1".into());
        }
        self.close(true);
    }
}
