//! The polling transport: packets in the bodies of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;

use crate::handler::Handler;
use crate::packet::{self, SEPARATOR};
use crate::reply::{self, Refusal};
use crate::session::{Out, Session, Transport};

/// Most bytes of one answer, but for a single larger packet.
const MAX_ANSWER: usize = 1 << 20;

fn text(body: String) -> Response {
    reply::text(StatusCode::OK, "text/plain; charset=UTF-8", body)
}

/// Answers the handshake.
pub(crate) fn open<H: Handler>(session: &Session<H>) -> Response {
    text(session.open_packet(true))
}

/// Only one at a time.
struct Busy<'a>(&'a AtomicBool);

impl<'a> Busy<'a> {
    fn take(flag: &'a AtomicBool) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then_some(Self(flag))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// GET: waits for packets.
pub(crate) async fn poll<H: Handler>(session: Arc<Session<H>>) -> Response {
    if session.transport() == Transport::WebSocket {
        return Refusal::BadRequest.response();
    }
    let Some(_busy) = Busy::take(&session.polled) else {
        session.close(false);
        return Refusal::BadRequest.response();
    };
    let mut body = match session.next(Transport::Polling).await {
        Out::Packet(packet) => packet,
        // The client that is told so opens another session.
        Out::Closed => return text("1".into()),
    };
    while body.len() < MAX_ANSWER && session.transport() == Transport::Polling {
        let Some(packet) = session.try_next(Transport::Polling) else { break };
        body.push(SEPARATOR);
        body.push_str(&packet);
    }
    text(body)
}

/// POST: packets from the client.
pub(crate) async fn post<H: Handler>(session: Arc<Session<H>>, request: Request<Body>) -> Response {
    if session.transport() == Transport::WebSocket {
        return Refusal::BadRequest.response();
    }
    let Some(_busy) = Busy::take(&session.posting) else {
        session.close(false);
        return Refusal::BadRequest.response();
    };
    let most = session.most();
    let told =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|len| len > most) {
        session.close(false);
        return reply::error(StatusCode::PAYLOAD_TOO_LARGE, &format!("the limit is {most} bytes"));
    }
    let mut body = Vec::with_capacity(told.unwrap_or(0).min(64 * 1024));
    let mut stream = request.into_body().into_data_stream();
    while let Some(piece) = stream.next().await {
        let Ok(piece) = piece else {
            session.close(false);
            return Refusal::BadRequest.response();
        };
        if body.len() + piece.len() > most {
            session.close(false);
            return reply::error(StatusCode::PAYLOAD_TOO_LARGE, &format!("the limit is {most} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    let packets = std::str::from_utf8(&body).ok().and_then(packet::decode_body);
    let Some(packets) = packets else {
        session.close(false);
        return Refusal::BadRequest.response();
    };
    drop(body);
    for packet in packets {
        if session.receive(packet).await.is_err() {
            session.close(false);
            return Refusal::BadRequest.response();
        }
    }
    reply::text(StatusCode::OK, "text/html", "ok".into())
}
