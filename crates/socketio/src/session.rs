//! A client's session: one or two transports, and what goes through them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::client::Client;
use crate::data::{Data, Message};
use crate::engine::Engine;
use crate::event::{self, Packet};
use crate::handler::{Handler, Hello, Member, Request, Seen, Trust, Unreadable};
use crate::meter::{self, Meter};
use crate::packet::Incoming;
use crate::presence::Carrier;

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

struct State<H: Handler> {
    transport: Transport,
    client: Option<Arc<Client<H::Member>>>,
    /// Packets that come before anything of the client's.
    raw: VecDeque<String>,
    partial: Option<Partial>,
    closed: bool,
}

/// An Engine.IO session.
pub(crate) struct Session<H: Handler> {
    pub(crate) sid: String,
    engine: Arc<Engine<H>>,
    /// What the address's query said when it began.
    query: Vec<(String, String)>,
    state: Mutex<State<H>>,
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<H: Handler> Session<H> {
    pub(crate) fn new(
        engine: Arc<Engine<H>>,
        mut query: Vec<(String, String)>,
        transport: Transport,
    ) -> Arc<Self> {
        // What is of the protocol alone is not kept.
        query.retain(|(name, _)| !matches!(&**name, "EIO" | "transport" | "sid" | "t" | "b64"));
        let now = engine.now_ms();
        let ping_at = AtomicU64::new(now + millis(engine.settings.ping_interval));
        Arc::new(Self {
            sid: legwork_base::ids::secret(),
            query,
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
            meter: Meter::new(Trust::Unknown),
            unprobed: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            deaf: AtomicBool::new(false),
            engine,
        })
    }

    /// The first packet.
    pub(crate) fn open_packet(&self, upgrades: bool) -> String {
        let settings = &self.engine.settings;
        format!(
            "0{{\"sid\":\"{}\",\"upgrades\":{},\"pingInterval\":{},\"pingTimeout\":{},\"maxPayload\":{}}}",
            self.sid,
            if upgrades { "[\"websocket\"]" } else { "[]" },
            settings.ping_interval.as_millis(),
            settings.ping_timeout.as_millis(),
            settings.max_payload,
        )
    }

    fn lock(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn engine(&self) -> &Arc<Engine<H>> {
        &self.engine
    }

    pub(crate) fn transport(&self) -> Transport {
        self.lock().transport
    }

    /// How far its client is trusted, if it has one yet.
    pub(crate) fn trust(&self) -> Trust {
        self.lock().client.as_ref().map_or(Trust::Unknown, |c| c.member.trust())
    }

    /// Whether it is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Most bytes of what it sends at once.
    pub(crate) fn most(&self) -> usize {
        meter::most(self.trust()).min(self.engine.settings.max_message)
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
            self.pong_by.store(now + millis(self.engine.settings.ping_timeout), Ordering::Relaxed);
            self.send_raw("2");
        }
    }

    /// It is there: the next ping is due in a while.
    fn heard_from(&self, now: u64) {
        let interval = millis(self.engine.settings.ping_interval);
        self.pong_by.store(u64::MAX, Ordering::Relaxed);
        self.ping_at.store(now + interval, Ordering::Relaxed);
    }

    fn pong(&self) {
        self.heard_from(self.engine.now_ms());
        let fewer = |probes: usize| probes.checked_sub(1);
        if self.probes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            self.wake.notify_one();
        }
    }

    /// Writes a message of the client's as a packet, and asks now and then whether what was
    /// sent has been read.
    fn packet(&self, message: &Message) -> String {
        let packet = event::encode(message);
        if self.deaf.load(Ordering::Relaxed) {
            // It reads, or there would have been no place for this; what it says waits.
            self.heard_from(self.engine.now_ms());
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

    fn try_raw(&self, transport: Transport) -> Result<Out, Option<Arc<Client<H::Member>>>> {
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
        let is_client = self.lock().client.is_some();
        self.engine.heard(is_client);
        match packet {
            Incoming::Pong => self.pong(),
            Incoming::Close => self.close(false),
            // Boxed: an idle session would carry the space for this about.
            Incoming::Message(text) => Box::pin(self.message(&text)).await?,
            Incoming::Binary(part) => Box::pin(self.binary(part)).await?,
            Incoming::Ping(_) | Incoming::Upgrade | Incoming::Noop => {}
        }
        self.meter.refill(self.trust());
        Ok(())
    }

    async fn message(self: &Arc<Self>, text: &str) -> Result<(), Broken> {
        if self.lock().partial.is_some() {
            return Err(Broken::Protocol);
        }
        let packet = event::decode(text).ok_or(Broken::Protocol)?;
        // Only what the handler names may be larger than we said.
        if text.len() > self.engine.settings.max_payload && !packet.is_any_of(self.engine.settings.large) {
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
                self.engine.handler.unreadable(&client, Unreadable::TooDeep(ack));
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
            if partial.bytes > self.engine.settings.max_message {
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
        let working = self.engine.handler.request(&client, Request { event, data, ack });
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

    /// Lets the client in, or lets it come back.
    fn connect(self: &Arc<Self>, auth: &Value) -> Result<(), Broken> {
        if self.lock().client.is_some() {
            return Err(Broken::Protocol);
        }
        let Some(member) = self.engine.handler.admit(&Hello { query: &self.query, auth, bearer: None })
        else {
            self.engine.handler.seen(Seen::Refused);
            self.send_raw(format!("44{}", json!({ "message": "unauthorized" })));
            return Ok(());
        };
        let this: Weak<dyn Carrier> = Arc::downgrade(&(self.clone() as Arc<dyn Carrier>));
        if let Some(place) = self.came_from(auth)
            && let Some(client) = self.engine.come_back(place, &member, this.clone())
        {
            self.welcome(&client);
            return Ok(());
        }
        match self.engine.join(member, Some(this)) {
            // What is to be sent first waits in the client already; the welcome comes before it.
            Some(client) => self.welcome(&client),
            None => self.send_raw(format!("44{}", json!({ "message": "too many connections" }))),
        }
        Ok(())
    }

    /// What a client that comes back says of itself: its private name, and how far it has got. One
    /// that has got no event yet knows no place.
    fn came_from<'a>(&self, auth: &'a Value) -> Option<(&'a str, u64)> {
        let pid = auth.get("pid").filter(|_| self.engine.settings.recovery)?.as_str()?;
        match auth.get("offset") {
            None | Some(Value::Null) => Some((pid, 0)),
            Some(offset) => Some((pid, offset.as_str()?.parse().ok()?)),
        }
    }

    fn welcome(&self, client: &Arc<Client<H::Member>>) {
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

    /// The client leaves. `for_good`: it has said so, and will not come back.
    fn leave(&self, for_good: bool) {
        let client = self.lock().client.take();
        if let Some(client) = client {
            self.engine.left(&client, Some(std::ptr::from_ref(self).cast()), for_good);
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
        self.wake.notify_waiters();
        self.wake.notify_one();
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

impl<H: Handler> Carrier for Session<H> {
    fn give_way(&self) {
        self.lock().client = None;
        self.close(false);
    }
}
