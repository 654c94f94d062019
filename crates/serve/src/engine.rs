//! Engine.IO 4: sessions over polling and WebSocket.
//!
//! A layer of our own, because the ones there are take messages by a callback and queue
//! answers without waiting: a client that sends or reads at its own pace would lose
//! messages or fill the memory.

pub(crate) mod meter;
pub(crate) mod packet;
mod plain;
mod polling;
pub(crate) mod session;
mod websocket;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::http::reply;
use crate::room::Room;
use crate::seats::Standing;
use session::{Hello, Session, Transport};

pub(crate) use plain::upgrade as plain_upgrade;
pub(crate) use websocket::is_upgrade;

/// Sessions that have not joined the room yet, beside those that may.
const MAX_UNJOINED: usize = 256;

/// All sessions by their names.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    all: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    pub(crate) fn get(&self, sid: &str) -> Option<Arc<Session>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(sid).cloned()
    }

    fn add(&self, session: &Arc<Session>, most: usize) -> bool {
        let gives_way = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            let mut gives_way = None;
            if all.len() >= most {
                // Who has come and not joined must not keep others out.
                let unjoined = all.values().filter(|s| s.rights().is_none());
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

    pub(crate) fn forget(&self, sid: &str) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(sid);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// What a request's query says.
#[derive(Debug, Default)]
struct Query {
    version: Option<String>,
    transport: Option<String>,
    sid: Option<String>,
    token: Option<String>,
    replay: bool,
}

impl Query {
    fn of(request: &Request<Body>) -> Self {
        let mut query = Self { replay: true, ..Self::default() };
        for (key, value) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        {
            match &*key {
                "EIO" => query.version = Some(value.into_owned()),
                "transport" => query.transport = Some(value.into_owned()),
                "sid" => query.sid = Some(value.into_owned()),
                "token" => query.token = Some(value.into_owned()),
                "replay" => query.replay = !matches!(&*value, "0" | "false"),
                _ => {}
            }
        }
        query
    }
}

/// Why a request is refused, in the library's words.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    UnknownTransport,
    UnknownSession,
    BadHandshakeMethod,
    BadRequest,
    Forbidden,
    UnsupportedVersion,
}

impl Refusal {
    pub(crate) fn response(self) -> Response {
        let (code, message) = match self {
            Self::UnknownTransport => (0, "Transport unknown"),
            Self::UnknownSession => (1, "Session ID unknown"),
            Self::BadHandshakeMethod => (2, "Bad handshake method"),
            Self::BadRequest => (3, "Bad request"),
            Self::Forbidden => (4, "Forbidden"),
            Self::UnsupportedVersion => (5, "Unsupported protocol version"),
        };
        let status =
            if matches!(self, Self::Forbidden) { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
        reply::json(status, &json!({ "code": code, "message": message }))
    }
}

/// `/socket.io/`
pub(crate) async fn serve(room: Arc<Room>, mut request: Request<Body>) -> Response {
    let query = Query::of(&request);
    let upgrade = is_upgrade(request.headers());
    let transport = match query.transport.as_deref() {
        Some("polling") if !upgrade => Transport::Polling,
        Some("websocket") if upgrade => Transport::WebSocket,
        Some("polling" | "websocket") => return Refusal::BadRequest.response(),
        _ => return Refusal::UnknownTransport.response(),
    };
    if query.version.as_deref() != Some("4") {
        return Refusal::UnsupportedVersion.response();
    }
    if let Some(sid) = &query.sid {
        let Some(session) = room.sessions.get(sid) else { return Refusal::UnknownSession.response() };
        if let (Some(rights), Some(standing)) = (session.rights(), request.extensions().get::<Standing>()) {
            standing.raise(rights);
        }
        return match (transport, request.method()) {
            (Transport::WebSocket, _) if session.transport() != Transport::Polling => {
                Refusal::BadRequest.response()
            }
            (Transport::WebSocket, _) => websocket::probe(session, &mut request),
            (_, &Method::GET) => polling::poll(session).await,
            (_, &Method::POST) => polling::post(session, request).await,
            _ => Refusal::BadRequest.response(),
        };
    }
    if request.method() != Method::GET {
        return Refusal::BadHandshakeMethod.response();
    }
    let hello = Hello { token: query.token, replay: query.replay };
    let session = Session::new(room.clone(), hello, transport);
    if !room.sessions.add(&session, room.settings.max_connections + MAX_UNJOINED) {
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    }
    match transport {
        Transport::Polling => polling::open(&session),
        _ => websocket::open(session, &mut request),
    }
}

/// The first packet of a session.
fn open_packet(session: &Session, room: &Room, upgrades: bool) -> String {
    let settings = &room.settings;
    format!(
        "0{{\"sid\":\"{}\",\"upgrades\":{},\"pingInterval\":{},\"pingTimeout\":{},\"maxPayload\":{}}}",
        session.sid,
        if upgrades { "[\"websocket\"]" } else { "[]" },
        settings.ping_interval.as_millis(),
        settings.ping_timeout.as_millis(),
        settings.max_payload,
    )
}
