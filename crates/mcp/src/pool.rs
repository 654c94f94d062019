//! Sessions that live between calls. Each server has a lock of its own: one that is
//! slow to start keeps nobody else waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::http::SharedHeaders;
use crate::server::{Launcher, Server};
use crate::session::{Error, Session, Tool, ToolResult};

/// A session that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(600);
/// At most so many servers are kept; the one unused for longest goes first.
const MAX_SERVERS: usize = 64;
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// All sessions of a runner.
#[derive(Debug)]
pub struct Pool {
    http: reqwest::Client,
    launcher: Arc<dyn Launcher>,
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    dynamic: SharedHeaders,
    used: Mutex<Instant>,
}

impl Slot {
    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Pool {
    /// Makes a pool. HTTP servers are reached by `http`, stdio servers started by
    /// `launcher`.
    pub fn new(http: reqwest::Client, launcher: Arc<dyn Launcher>) -> Self {
        Self { http, launcher, slots: Mutex::default() }
    }

    /// Calls a tool. A failed call ends the session; the next one connects anew.
    pub async fn call(
        &self,
        server: &Server,
        tool: &str,
        arguments: Map<String, Value>,
        timeout: Duration,
    ) -> Result<ToolResult, Error> {
        let (slot, session) = self.session(server).await?;
        let result = session.call(tool, arguments, timeout).await;
        self.settle(&slot, &session, result.is_err()).await;
        result
    }

    /// Lists a server's tools, all pages of them.
    pub async fn list(&self, server: &Server) -> Result<Vec<Tool>, Error> {
        let (slot, session) = self.session(server).await?;
        let result = session.list(LIST_TIMEOUT).await;
        self.settle(&slot, &session, result.is_err()).await;
        result
    }

    async fn session(&self, server: &Server) -> Result<(Arc<Slot>, Arc<Session>), Error> {
        let slot = self.slot(server);
        slot.dynamic
            .set(&server.dynamic_headers)
            .map_err(|cause| Error::Connect { name: server.name.clone(), cause })?;
        let mut current = slot.session.lock().await;
        let session = match current.as_ref().filter(|session| session.is_live()) {
            Some(session) => session.clone(),
            None => {
                // A dead one goes before its successor comes.
                *current = None;
                let connecting = Session::connect(server, &self.http, &slot.dynamic, self.launcher.as_ref());
                let session = Arc::new(connecting.await?);
                *current = Some(session.clone());
                session
            }
        };
        drop(current);
        slot.touch();
        Ok((slot, session))
    }

    fn slot(&self, server: &Server) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = server.key();
        if let Some(slot) = slots.get(&key) {
            slot.touch();
            return slot.clone();
        }
        if slots.len() >= MAX_SERVERS
            && let Some(oldest) = slots.iter().min_by_key(|(_, slot)| slot.used()).map(|(key, _)| *key)
        {
            slots.remove(&oldest);
        }
        let slot = Arc::new(Slot {
            session: tokio::sync::Mutex::default(),
            dynamic: SharedHeaders::default(),
            used: Mutex::new(Instant::now()),
        });
        slots.insert(key, slot.clone());
        slot
    }

    async fn settle(&self, slot: &Slot, session: &Arc<Session>, failed: bool) {
        slot.touch();
        if failed {
            let mut current = slot.session.lock().await;
            if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, session)) {
                *current = None;
            }
        }
    }

    /// Closes what nobody has used for ten minutes, and what has died. To be called
    /// every now and then.
    pub async fn sweep(&self) {
        self.sweep_older_than(IDLE).await;
    }

    async fn sweep_older_than(&self, idle: Duration) {
        let slots: Vec<([u8; 32], Arc<Slot>)> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.iter().map(|(key, slot)| (*key, slot.clone())).collect()
        };
        for (key, slot) in slots {
            // Who connects just now is not idle.
            let Ok(mut current) = slot.session.try_lock() else { continue };
            // A call under way holds the session as well.
            let busy = current.as_ref().is_some_and(|session| Arc::strong_count(session) > 1);
            let dead = current.as_ref().is_some_and(|session| !session.is_live());
            if busy || (!dead && slot.used().elapsed() < idle) {
                continue;
            }
            *current = None;
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.remove(&key);
        }
    }

    /// Closes every session.
    pub async fn close(&self) {
        self.sweep_older_than(Duration::ZERO).await;
    }
}
