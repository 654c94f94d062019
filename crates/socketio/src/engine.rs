//! What all sessions of a server share, and how clients come and go.

use std::sync::{Arc, Weak};
use std::time::Instant;

use axum::body::Body;
use axum::http::Request;
use tokio::sync::watch;

use crate::client::Client;
use crate::handler::{Handler, Seen, Settings};
use crate::presence::{Carrier, Left, Presence};

/// The middle of a server: its handler, its clients and its settings.
pub(crate) struct Engine<H: Handler> {
    pub(crate) handler: Arc<H>,
    pub(crate) presence: Arc<Presence<H::Member>>,
    pub(crate) settings: Settings,
    pub(crate) stopping: watch::Sender<bool>,
    started: Instant,
}

/// The fields of a request's query.
pub(crate) fn query(request: &Request<Body>) -> Vec<(String, String)> {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    url::form_urlencoded::parse(query).map(|(k, v)| (k.into_owned(), v.into_owned())).collect()
}

impl<H: Handler> Engine<H> {
    pub(crate) fn new(handler: Arc<H>, presence: Arc<Presence<H::Member>>, settings: Settings) -> Arc<Self> {
        let stopping = watch::Sender::new(false);
        Arc::new(Self { handler, presence, settings, stopping, started: Instant::now() })
    }

    /// Milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A message has come, of a client or of somebody who is none yet.
    pub(crate) fn heard(&self, is_client: bool) {
        self.handler.seen(Seen::Message);
        if is_client {
            self.presence.touch();
        }
    }

    /// Lets a client in; `None` if there is no place. What it sees first waits to be sent when
    /// this returns.
    pub(crate) fn join(
        &self,
        member: H::Member,
        carrier: Option<Weak<dyn Carrier>>,
    ) -> Option<Arc<Client<H::Member>>> {
        // What can't change its connection can't come back either.
        let recoverable = self.settings.recovery && carrier.is_some();
        let Some(client) = self.presence.enter(member, recoverable, carrier) else {
            self.handler.seen(Seen::Refused);
            return None;
        };
        self.handler.seen(Seen::Connected);
        self.handler.joined(&client);
        Some(client)
    }

    /// Lets a client come back that has got all up to `offset`, on a new session.
    pub(crate) fn come_back(
        &self,
        (pid, offset): (&str, u64),
        now: &H::Member,
        carrier: Weak<dyn Carrier>,
    ) -> Option<Arc<Client<H::Member>>> {
        let (client, old) = self.presence.take(pid)?;
        if let Some(old) = old.as_ref().and_then(Weak::upgrade) {
            old.give_way();
        }
        client.pause();
        let may = self.handler.may_return(&client.member, now) && self.presence.has_place();
        if !may || !client.resume(offset) || !self.presence.put_back(&client, Some(carrier)) {
            self.gone(&client);
            return None;
        }
        self.handler.seen(Seen::Recovered);
        self.handler.returned(&client);
        Some(client)
    }

    /// A client's connection has ended. `for_good`: it has said so itself, and will not come back.
    /// `carrier` is what carried it, if that was a session.
    pub(crate) fn left(&self, client: &Arc<Client<H::Member>>, carrier: Option<*const ()>, for_good: bool) {
        let is = |known: &Option<Weak<dyn Carrier>>| match (known, carrier) {
            (Some(known), Some(carrier)) => std::ptr::addr_eq(known.as_ptr(), carrier),
            (None, None) => true,
            _ => false,
        };
        match self.presence.leave(client, is, for_good) {
            Left::GoesOn => return,
            Left::Away(others) => others.iter().for_each(|client| self.gone(client)),
            Left::Gone => self.gone(client),
        }
        self.handler.left(client);
    }

    /// A client will not come back.
    pub(crate) fn gone(&self, client: &Arc<Client<H::Member>>) {
        client.leave();
        self.handler.gone(client);
    }

    /// Those who have been away for too long are gone.
    pub(crate) fn tick(&self) {
        for client in self.presence.late(Instant::now()) {
            self.gone(&client);
        }
    }
}
