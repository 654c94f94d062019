//! The WebSocket transport, and the change-over to it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::handler::Handler;
use crate::meter::{Meter, Metered};
use crate::packet::{self, Incoming};
use crate::reply::Refusal;
use crate::session::{Broken, Out, Session, Transport};

/// Time for a probe to become the session's transport.
const UPGRADE: Duration = Duration::from_secs(10);
/// The library's own default of 128 KiB would be most of what an idle client costs.
const READ_BUFFER: usize = 512;
/// What the kernel may hold of a client that reads slowly: what is in there can't be
/// overtaken by what follows an interrupt.
const SEND_BUFFER: usize = 256 * 1024;

pub(crate) type Socket = WebSocketStream<Metered>;

fn has(headers: &HeaderMap, name: header::HeaderName, value: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case(value))
}

/// Whether a request asks for a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has(headers, header::UPGRADE, "websocket") && has(headers, header::CONNECTION, "upgrade")
}

/// Answers a request for a WebSocket; `serve` gets it.
pub(crate) fn accept<F, Fut>(request: &mut Request<Body>, max: usize, meter: Meter, serve: F) -> Response
where
    F: FnOnce(Socket) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let headers = request.headers();
    let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let (Some(key), true) = (key, headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|v| v == "13"))
    else {
        return Refusal::BadRequest.response();
    };
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
        let tcp = parts.io.into_inner();
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&tcp, SEND_BUFFER);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(max))
            .max_frame_size(Some(max));
        let tcp = Metered { tcp, meter };
        let socket =
            WebSocketStream::from_partially_read(tcp, parts.read_buf.to_vec(), Role::Server, Some(config))
                .await;
        // Boxed: the future of an idle connection is most of its memory.
        Box::pin(serve(socket)).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// A session that starts on a WebSocket.
pub(crate) fn open<H: Handler>(session: Arc<Session<H>>, request: &mut Request<Body>) -> Response {
    let hello = session.open_packet(false);
    let (max, meter) = (session.engine().settings.max_message, session.meter.clone());
    accept(request, max, meter, move |mut socket| async move {
        if socket.send(Message::text(hello)).await.is_ok() {
            run(&session, socket).await;
        }
        session.close(false);
    })
}

/// A WebSocket that is to take the place of polling.
pub(crate) fn probe<H: Handler>(session: Arc<Session<H>>, request: &mut Request<Body>) -> Response {
    let (max, meter) = (session.engine().settings.max_message, session.meter.clone());
    accept(request, max, meter, move |mut socket| async move {
        let changed = tokio::time::timeout(UPGRADE, change_over(&session, &mut socket)).await;
        if changed == Ok(true) {
            run(&session, socket).await;
            session.close(false);
        } else {
            // Polling goes on.
            if session.transport() == Transport::Probing {
                session.set_transport(Transport::Polling);
            }
            let _ = socket.close(None).await;
        }
    })
}

async fn change_over<H: Handler>(session: &Session<H>, socket: &mut Socket) -> bool {
    let mut probed = false;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        match packet::decode(&text) {
            Some(Incoming::Ping(echo)) if !probed && session.transport() == Transport::Polling => {
                probed = true;
                if socket.send(Message::text(format!("3{echo}"))).await.is_err() {
                    return false;
                }
                session.set_transport(Transport::Probing);
            }
            Some(Incoming::Upgrade) if probed => {
                session.set_transport(Transport::WebSocket);
                return true;
            }
            _ => return false,
        }
    }
    false
}

/// Carries packets both ways until either end is done.
async fn run<H: Handler>(session: &Arc<Session<H>>, socket: Socket) {
    let (mut sink, stream) = socket.split();
    let frame = tokio::select! {
        () = send(session, &mut sink) => return,
        frame = receive(session, stream) => frame,
    };
    if let Some(frame) = frame {
        let _ = sink.send(Message::Close(Some(frame))).await;
    }
}

async fn send<H: Handler>(session: &Session<H>, sink: &mut SplitSink<Socket, Message>) {
    loop {
        match session.next(Transport::WebSocket).await {
            Out::Packet(packet) => {
                if sink.send(Message::text(packet)).await.is_err() {
                    return;
                }
            }
            Out::Closed => {
                let _ = sink.close().await;
                return;
            }
        }
    }
}

/// Returns what to say at the end, if there is somebody left to say it to.
async fn receive<H: Handler>(
    session: &Arc<Session<H>>,
    mut stream: SplitStream<Socket>,
) -> Option<CloseFrame> {
    while let Some(message) = stream.next().await {
        let incoming = match message {
            Ok(Message::Text(text)) => packet::decode(&text),
            Ok(Message::Binary(data)) => Some(Incoming::Binary(data.to_vec())),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Close(_)) => return None,
            Err(error) => return too_large(&error),
        };
        let incoming = incoming?;
        let close = incoming == Incoming::Close;
        match session.receive(incoming).await {
            Err(Broken::TooLarge) => return Some(size_frame()),
            Err(Broken::Protocol) => return None,
            Ok(()) if close => return None,
            Ok(()) => {}
        }
    }
    None
}

/// The frame that says a message was too large.
pub(crate) fn too_large(error: &Error) -> Option<CloseFrame> {
    let is_metered = |e: &std::io::Error| e.kind() == std::io::ErrorKind::FileTooLarge;
    matches!(error, Error::Capacity(_))
        .then(size_frame)
        .or_else(|| matches!(error, Error::Io(e) if is_metered(e)).then(size_frame))
}

/// The same.
pub(crate) fn size_frame() -> CloseFrame {
    CloseFrame { code: CloseCode::Size, reason: "message too large".into() }
}
