//! What a server built on this crate has to say for itself.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::data::Data;

/// How far somebody who is connected is trusted: how much they may send at once, and who gives
/// way to whom when there is no place for another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// They have not shown yet that they may be here.
    Unknown,
    /// They may look, and change nothing.
    Looks,
    /// They work here.
    Works,
}

/// What a handler knows of a client.
pub trait Member: Debug + Send + Sync + 'static {
    /// How far they are trusted.
    fn trust(&self) -> Trust;
}

/// What somebody shows who wants to come in.
#[derive(Debug)]
pub struct Hello<'a> {
    pub(crate) query: &'a [(String, String)],
    pub(crate) auth: &'a Value,
    pub(crate) bearer: Option<&'a str>,
}

impl Hello<'_> {
    /// Their token: of Socket.IO's `auth`, else of the address, else of the `Authorization`.
    pub fn token(&self) -> Option<&str> {
        self.auth("token").and_then(Value::as_str).or_else(|| self.query("token")).or(self.bearer)
    }

    /// A field of Socket.IO's `auth`.
    pub fn auth(&self, name: &str) -> Option<&Value> {
        self.auth.get(name)
    }

    /// A field of the address's query; the last, if there are several.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A request of a client.
#[derive(Debug)]
pub struct Request {
    /// The event's name.
    pub event: String,
    /// What it carries.
    pub data: Data,
    /// The number under which an answer is waited for.
    pub ack: Option<u64>,
}

/// A message that can't be read, and ends nothing all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// An event whose payload is nested too deeply, with the number of its acknowledgement.
    TooDeep(Option<u64>),
    /// No request at all.
    NoRequest,
}

/// What happened at the door, to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Somebody came in.
    Connected,
    /// Somebody came back after a cut, and has missed nothing.
    Recovered,
    /// Somebody was not let in.
    Refused,
    /// A message came.
    Message,
}

/// A server's business: who may come in, and what is done for them.
pub trait Handler: Send + Sync + 'static {
    /// What it knows of each client.
    type Member: Member;

    /// Lets somebody in; `None` if what they show is not enough.
    fn admit(&self, hello: &Hello<'_>) -> Option<Self::Member>;

    /// Whether somebody who has just been let in as `now` may go on as `before`, whose connection
    /// broke.
    fn may_return(&self, before: &Self::Member, now: &Self::Member) -> bool;

    /// A client has come in. What is queued for it here is sent to it first.
    fn joined(&self, client: &Arc<Client<Self::Member>>);

    /// A client has come back, and goes on where it was.
    fn returned(&self, client: &Arc<Client<Self::Member>>);

    /// A client's connection has ended. It may come back, unless it is [gone](Self::gone).
    fn left(&self, client: &Arc<Client<Self::Member>>);

    /// A client will not come back.
    fn gone(&self, client: &Arc<Client<Self::Member>>);

    /// Carries out a request. Returns when the client's next one may be read.
    fn request(
        &self,
        client: &Arc<Client<Self::Member>>,
        request: Request,
    ) -> impl Future<Output = ()> + Send;

    /// Answers what can't be read.
    fn unreadable(&self, client: &Arc<Client<Self::Member>>, what: Unreadable);

    /// Something happened that is worth counting.
    fn seen(&self, what: Seen);
}

/// How clients are served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Largest message, but for the events in `large`. Clients are told of it.
    pub max_payload: usize,
    /// Largest message of all.
    pub max_message: usize,
    /// The names of events that may be larger than `max_payload`.
    pub large: &'static [&'static str],
    /// Time between pings.
    pub ping_interval: Duration,
    /// Time for an answer to a ping.
    pub ping_timeout: Duration,
    /// Whether clients may come back after a cut, and get what they missed.
    pub recovery: bool,
    /// Most sessions: clients, and those that have not said yet who they are.
    pub max_sessions: usize,
}
