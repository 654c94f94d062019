//! The bare WebSocket: the same events as JSON objects, without Socket.IO.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::client::Client;
use crate::data::{Data, Message};
use crate::engine::{Engine, query};
use crate::handler::{Handler, Hello, Member, Request as Asked, Seen, Unreadable};
use crate::meter::Meter;
use crate::reply;
use crate::websocket;

/// What a client sends.
#[derive(Deserialize)]
struct Incoming {
    event: String,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    id: Option<u64>,
}

/// Answers the request for one.
pub(crate) fn upgrade<H: Handler>(
    engine: Arc<Engine<H>>,
    mut request: Request<Body>,
    bearer: Option<&str>,
) -> Response {
    let hello = Hello { query: &query(&request), auth: &Value::Null, bearer };
    let Some(member) = engine.handler.admit(&hello) else {
        engine.handler.seen(Seen::Refused);
        return reply::error(StatusCode::UNAUTHORIZED, "unauthorized");
    };
    let Some(client) = engine.join(member, None) else {
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    };
    let max = engine.settings.max_message;
    let meter = Meter::new(client.member.trust());
    let connection = Connection { engine, client, meter: meter.clone() };
    websocket::accept(&mut request, max, meter, move |socket| async move {
        connection.run(socket).await;
    })
}

/// A client on a WebSocket of its own. It leaves when the connection is gone, or never came to be.
struct Connection<H: Handler> {
    engine: Arc<Engine<H>>,
    client: Arc<Client<H::Member>>,
    meter: Meter,
}

impl<H: Handler> Drop for Connection<H> {
    fn drop(&mut self) {
        self.engine.left(&self.client, None, true);
    }
}

impl<H: Handler> Connection<H> {
    async fn run(&self, socket: websocket::Socket) {
        let (mut sink, stream) = socket.split();
        let frame = tokio::select! {
            () = self.send(&mut sink) => return,
            frame = self.receive(stream) => frame,
        };
        if let Some(frame) = frame {
            let _ = sink.send(Frame::Close(Some(frame))).await;
        }
    }

    async fn send(&self, sink: &mut SplitSink<websocket::Socket, Frame>) {
        let mut stopping = self.engine.stopping.subscribe();
        let ping = self.engine.settings.ping_interval;
        let mut due = tokio::time::Instant::now() + ping;
        loop {
            let frame = tokio::select! {
                message = self.client.next() => Frame::text(encode(&message)),
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
    }

    /// Returns what to say at the end, if there is somebody left to say it to.
    async fn receive(&self, mut stream: SplitStream<websocket::Socket>) -> Option<CloseFrame> {
        let settings = &self.engine.settings;
        let silence = (settings.ping_interval + settings.ping_timeout).max(Duration::from_secs(1));
        loop {
            let Ok(Some(frame)) = tokio::time::timeout(silence, stream.next()).await else { return None };
            self.engine.heard(true);
            self.meter.refill(self.client.member.trust());
            let text = match frame {
                Ok(Frame::Text(text)) => text,
                Ok(Frame::Close(_)) => return None,
                Ok(_) => continue,
                Err(error) => return websocket::too_large(&error),
            };
            match crate::json::read::<Incoming>(&text) {
                Ok(Incoming { event, .. })
                    if text.len() > settings.max_payload && !settings.large.contains(&&*event) =>
                {
                    return Some(websocket::size_frame());
                }
                Ok(Incoming { event, data, id }) => {
                    let asked = Asked { event, data: Data::new(data, Vec::new()), ack: id };
                    self.engine.handler.request(&self.client, asked).await;
                }
                Err(_) => self.engine.handler.unreadable(&self.client, Unreadable::NoRequest),
            }
            if self.client.is_flooded() {
                tracing::warn!("a client asks and does not read the answers: it is let go");
                return None;
            }
        }
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
