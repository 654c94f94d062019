//! The bare WebSocket: the same events as JSON objects, without Socket.IO.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::meter::Meter;
use super::{Query, websocket};
use crate::client::{Client, Joining, Message};
use crate::http::reply;
use crate::requests::Data;
use crate::room::{Join, Room};

/// What a client sends.
#[derive(Deserialize)]
struct Incoming {
    event: String,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    id: Option<u64>,
}

/// `/` and `/ws`
pub(crate) fn upgrade(room: Arc<Room>, mut request: Request<Body>) -> Response {
    let query = Query::of(&request);
    let token = query.token.or_else(|| crate::access::bearer(request.headers()).map(str::to_owned));
    let Some(rights) = room.settings.access.rights(token.as_deref()) else {
        room.metrics.refused();
        return reply::error(StatusCode::UNAUTHORIZED, "unauthorized");
    };
    let joining = Joining { rights, replay: query.replay, recoverable: false };
    let Join::Joined(client) = room.join(&joining, None) else {
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    };
    let leaving = Leaving { room: room.clone(), client: client.clone() };
    let max = room.settings.max_message;
    let meter = Meter::new(Some(rights));
    let refilling = meter.clone();
    websocket::accept(&mut request, max, meter, move |socket| async move {
        let _leaving = leaving;
        run(&room, &client, socket, &refilling).await;
    })
}

/// Leaves the room when the connection is gone, or never came to be.
struct Leaving {
    room: Arc<Room>,
    client: Arc<Client>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.room.left_plain(&self.client);
    }
}

async fn run(room: &Arc<Room>, client: &Arc<Client>, socket: websocket::Socket, meter: &Meter) {
    let (mut sink, mut stream) = socket.split();
    let mut stopping = room.stopping.subscribe();
    let sending = async {
        let ping = room.settings.ping_interval;
        let mut due = tokio::time::Instant::now() + ping;
        loop {
            let frame = tokio::select! {
                message = client.next() => Frame::text(encode(&message)),
                () = tokio::time::sleep_until(due) => {
                    due += ping;
                    Frame::Ping(Vec::new().into())
                }
                () = async { let _ = stopping.wait_for(|stop| *stop).await.map(drop); } => {
                    let _ = sink.close().await;
                    return;
                }
            };
            if sink.send(frame).await.is_err() {
                return;
            }
        }
    };
    let receiving = async {
        let silence = room.settings.ping_interval + room.settings.ping_timeout;
        loop {
            let Ok(Some(frame)) =
                tokio::time::timeout(silence.max(Duration::from_secs(1)), stream.next()).await
            else {
                return None;
            };
            room.heard(Some(client));
            meter.refill(Some(client.rights));
            let text = match frame {
                Ok(Frame::Text(text)) => text,
                Ok(Frame::Close(_)) => return None,
                Ok(_) => continue,
                Err(error) => return websocket::too_large(&error),
            };
            match crate::json::read::<Incoming>(&text) {
                Ok(Incoming { event, .. })
                    if text.len() > room.settings.max_payload && event != "updateContent" =>
                {
                    return Some(websocket::size_frame());
                }
                Ok(Incoming { event, data, id }) => {
                    room.request(client, event, Data::new(data, Vec::new()), id).await;
                }
                Err(_) => crate::requests::bad_frame(client),
            }
            if client.is_flooded() {
                tracing::warn!("a client asks and does not read the answers: it is let go");
                return None;
            }
        }
    };
    let frame = tokio::select! {
        () = sending => return,
        frame = receiving => frame,
    };
    if let Some(frame) = frame {
        let _ = sink.send(Frame::Close(Some(frame))).await;
    }
}

fn encode(message: &Message) -> String {
    match message {
        Message::Event { name, payload, .. } => {
            format!("{{\"event\":\"{name}\",\"data\":{}}}", payload.get())
        }
        Message::Ack { id, payload } => format!("{{\"ack\":{id},\"data\":{}}}", payload.get()),
    }
}
