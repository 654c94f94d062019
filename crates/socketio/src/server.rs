//! A server of Engine.IO 4 and Socket.IO 5: which request goes to which session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;

use crate::engine::{Engine, query};
use crate::handler::{Handler, Settings, Trust};
use crate::presence::Presence;
use crate::reply::{self, Refusal};
use crate::seats::Standing;
use crate::session::{Session, Transport};
use crate::websocket::{self, is_upgrade};
use crate::{plain, polling};

/// Serves the clients of a handler.
pub struct Server<H: Handler> {
    engine: Arc<Engine<H>>,
    /// All sessions by their names. One that is over is taken out when it is next looked for.
    sessions: Mutex<HashMap<String, Arc<Session<H>>>>,
}

impl<H: Handler> Server<H> {
    /// A server for the clients in `presence`.
    pub fn new(handler: Arc<H>, presence: Arc<Presence<H::Member>>, settings: Settings) -> Self {
        Self { engine: Engine::new(handler, presence, settings), sessions: Mutex::default() }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session<H>>>> {
        let mut all = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| !session.is_closed());
        all
    }

    /// Finds a session that is not over.
    fn find(&self, sid: &str) -> Option<Arc<Session<H>>> {
        let all = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(sid).filter(|session| !session.is_closed()).cloned()
    }

    fn add(&self, session: &Arc<Session<H>>) -> bool {
        let gives_way = {
            let mut all = self.sessions();
            let mut gives_way = None;
            if all.len() >= self.engine.settings.max_sessions {
                // Who has come and not joined must not keep others out.
                let unjoined = all.values().filter(|s| s.trust() == Trust::Unknown);
                gives_way = unjoined.min_by_key(|s| s.connect_by).cloned();
                if gives_way.is_none() {
                    return false;
                }
            }
            all.insert(session.sid.clone(), session.clone());
            gives_way
        };
        if let Some(oldest) = gives_way {
            oldest.close(true);
        }
        true
    }

    fn all(&self) -> Vec<Arc<Session<H>>> {
        self.sessions().values().cloned().collect()
    }

    /// Answers a request to Socket.IO's path.
    pub async fn serve(&self, mut request: Request<Body>) -> Response {
        let query = query(&request);
        let field = |name: &str| query.iter().rev().find(|(key, _)| key == name).map(|(_, v)| v.as_str());
        let upgrade = is_upgrade(request.headers());
        let transport = match field("transport") {
            Some("polling") if !upgrade => Transport::Polling,
            Some("websocket") if upgrade => Transport::WebSocket,
            Some("polling" | "websocket") => return Refusal::BadRequest.response(),
            _ => return Refusal::UnknownTransport.response(),
        };
        if field("EIO") != Some("4") {
            return Refusal::UnsupportedVersion.response();
        }
        if let Some(sid) = field("sid") {
            let Some(session) = self.find(sid) else { return Refusal::UnknownSession.response() };
            return go_on(session, transport, request).await;
        }
        if request.method() != Method::GET {
            return Refusal::BadHandshakeMethod.response();
        }
        let session = Session::new(self.engine.clone(), query, transport);
        if !self.add(&session) {
            return reply::error(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
        }
        match transport {
            Transport::Polling => polling::open(&session),
            _ => websocket::open(session, &mut request),
        }
    }

    /// Answers a request for a bare WebSocket: the same events as JSON objects. `bearer` is the
    /// token of the request's `Authorization`.
    pub fn serve_plain(&self, request: Request<Body>, bearer: Option<&str>) -> Response {
        plain::upgrade(self.engine.clone(), request, bearer)
    }

    /// What is to be done once a second.
    pub fn tick(&self) {
        let now = self.engine.now_ms();
        for session in self.all() {
            session.tick(now);
        }
        self.engine.tick();
    }

    /// Says goodbye to all.
    pub fn say_goodbye(&self) {
        self.engine.stopping.send_replace(true);
        for session in self.all() {
            session.say_goodbye();
        }
    }
}

/// A request of a session that there is.
async fn go_on<H: Handler>(
    session: Arc<Session<H>>,
    transport: Transport,
    mut request: Request<Body>,
) -> Response {
    if let Some(standing) = request.extensions().get::<Standing>() {
        standing.raise(session.trust());
    }
    match (transport, request.method()) {
        (Transport::WebSocket, _) if session.transport() != Transport::Polling => {
            Refusal::BadRequest.response()
        }
        (Transport::WebSocket, _) => websocket::probe(session, &mut request),
        (_, &Method::GET) => polling::poll(session).await,
        (_, &Method::POST) => polling::post(session, request).await,
        _ => Refusal::BadRequest.response(),
    }
}
