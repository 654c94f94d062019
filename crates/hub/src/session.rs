//! A runner's connection: the upgrade, the welcome, then messages until it breaks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use legwork_proto::dialout::{
    Heartbeat, Incoming, TaskHeld, TaskOutput, TaskRef, TaskResult, Welcome, feature, kind,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role as WsRole, WebSocketConfig};

use crate::auth::{Checked, Grant};
use crate::clock::now_ms;
use crate::engine::{Hub, NameError, Seat};
use crate::fleet::{Link, ToRunner};
use crate::model::Role;
use crate::server::Peer;

mod description;

pub(crate) use description::{MAX_LABEL, MAX_LABELS};

const PING_EVERY: Duration = Duration::from_secs(20);
/// Without any frame for this long a runner is gone.
const SILENCE: Duration = Duration::from_secs(90);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an older connection has to show that it lives.
const PROBE: Duration = Duration::from_secs(5);
/// How long a last word may take.
const LAST_WORD: Duration = Duration::from_millis(500);
const MAX_MESSAGE: usize = 64 << 20;
/// A larger message goes out in pieces of this size: a slow runner holds one of them, not the
/// whole.
const PIECE: usize = 64 * 1024;
/// The library's own default of 128 KiB would be most of what an idle runner costs.
const READ_BUFFER: usize = 4096;
const MAX_TOKEN: usize = 512;

fn refuse(status: StatusCode, error: &str) -> Response {
    let mut response = (status, axum::Json(serde_json::json!({ "error": error }))).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

/// The credential, from wherever runners put it: header, bearer or query.
fn credential(headers: &HeaderMap, query: Option<&str>) -> Option<(String, bool)> {
    if let Some(key) = headers.get("FD-API-KEY").and_then(|v| v.to_str().ok()) {
        return Some((key.to_owned(), true));
    }
    if let Some(token) = crate::api::bearer(headers) {
        return Some((token.to_owned(), false));
    }
    let encoded = query?.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    Some((percent_decode(encoded)?, false))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            b => b,
        });
    }
    String::from_utf8(out).ok()
}

/// `GET /runner/ws` and `GET /safari/worknode/ws`.
pub(crate) async fn upgrade(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request<Body>,
) -> Response {
    let headers = request.headers();
    let has = |name: header::HeaderName, value: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(value))
    };
    if !has(header::UPGRADE, "websocket") {
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket only");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return refuse(StatusCode::BAD_REQUEST, "no Sec-WebSocket-Key");
    };
    if !has(header::CONNECTION, "upgrade")
        || headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13")
    {
        return refuse(StatusCode::BAD_REQUEST, "not a valid WebSocket upgrade");
    }
    let Some((secret, flat_welcome)) = credential(headers, request.uri().query()) else {
        return refuse(StatusCode::UNAUTHORIZED, "no credential: give a token");
    };
    if secret.is_empty()
        || secret.len() > MAX_TOKEN
        || secret.chars().any(|c| c.is_control() || c.is_whitespace())
    {
        return refuse(StatusCode::BAD_REQUEST, "malformed token");
    }
    let grant = match check(&hub, &secret, peer.address.ip()) {
        Ok(grant) => grant,
        Err(response) => return *response,
    };
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    // Of a fleet's machines the host's name is better than none.
    let host = text("X-Worknode-Host").filter(|_| grant.token.role == Role::Fleet);
    let said = text("X-Worknode-Name").or(host);
    let seat = match hub.seat(&grant.token, said).await {
        Ok(seat) => seat,
        Err(error) => return refuse_name(&error),
    };
    let runner_id = seat.runner_id.clone();
    if is_alive(&hub, &runner_id).await {
        return refuse(StatusCode::CONFLICT, "another runner with this credential is connected");
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), WsRole::Server, Some(config)).await;
        // Boxed: the future of an idle connection is most of its memory.
        Box::pin(serve(hub, socket, seat, grant, flat_welcome)).await;
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Ok(id) = HeaderValue::from_str(&runner_id) {
        headers.insert("X-Worknode-ID", id);
    }
    response
}

fn check(hub: &Hub, secret: &str, from: IpAddr) -> Result<Grant, Box<Response>> {
    let refuse = |status, text| Err(Box::new(refuse(status, text)));
    match hub.auth.check(secret, from) {
        Checked::Valid(grant) => match (grant.token.role, &grant.token.runner_id) {
            (Role::Runner, Some(_)) | (Role::Fleet, _) => Ok(grant),
            _ => refuse(StatusCode::FORBIDDEN, "this token is not a runner's"),
        },
        Checked::Revoked => refuse(StatusCode::FORBIDDEN, "this credential was revoked"),
        Checked::Expired => refuse(StatusCode::FORBIDDEN, "this credential has expired"),
        Checked::Unknown => refuse(StatusCode::UNAUTHORIZED, "unknown credential"),
        Checked::Limited => refuse(StatusCode::TOO_MANY_REQUESTS, "too many attempts"),
    }
}

fn refuse_name(error: &NameError) -> Response {
    let status = match error {
        NameError::Taken { .. } => StatusCode::CONFLICT,
        NameError::Missing => StatusCode::BAD_REQUEST,
        NameError::TooMany => StatusCode::FORBIDDEN,
        NameError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    tracing::warn!("a runner was refused: {error}");
    refuse(status, &error.to_string())
}

/// Whether an older connection of the runner answers a ping. One that does not is
/// dropped.
async fn is_alive(hub: &Hub, runner_id: &str) -> bool {
    let older = hub.fleet.lock().runners.get(runner_id).and_then(|r| r.link.clone());
    let Some(older) = older else { return false };
    let (answer, wait) = oneshot::channel();
    if older.sender.send(ToRunner::Probe(answer)).is_err() {
        return false;
    }
    if matches!(tokio::time::timeout(PROBE, wait).await, Ok(Ok(()))) {
        return true;
    }
    let _ = older.sender.send(ToRunner::Close { code: 1001, reason: "replaced by a newer connection" });
    hub.fleet.lock().unlink(runner_id, older.number);
    false
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn serve(hub: Arc<Hub>, mut socket: Socket, seat: Seat, grant: Grant, flat_welcome: bool) {
    #[expect(clippy::disallowed_methods, reason = "bounded by the runs that are open on this runner")]
    let (sender, mut queue) = mpsc::unbounded_channel();
    let number = hub.fleet.lock().next_link();
    let (token_id, runner_id) = (grant.token.id.clone(), seat.runner_id.clone());
    let link = Link { number, sender, ready: false, ack: false, output: false };
    if let Err(error) = hub.sit_down(&seat, link) {
        tracing::warn!("a runner was refused: {error}");
        return close(&mut socket, 1008, "the runner's name was taken").await;
    }
    let welcome = welcome_message(&hub, &runner_id, flat_welcome);
    if socket.send(Message::text(welcome)).await.is_ok() {
        let connection = Connection {
            hub: hub.clone(),
            runner_id: runner_id.clone(),
            number,
            probes: Vec::new(),
            ended: Box::pin(grant.ended()),
        };
        if connection.run(&mut socket, &mut queue).await == Left::Credential {
            hub.give_up_runners_of(&token_id, "its runner's credential was revoked, or has expired").await;
            close(&mut socket, 1008, "the credential was revoked, or has expired").await;
        }
    }
    hub.fleet.lock().unlink(&runner_id, number);
}

/// Closes a connection with a word, if that can be said at once.
async fn close(socket: &mut Socket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
    let _ = tokio::time::timeout(LAST_WORD, socket.send(Message::Close(Some(frame)))).await;
}

fn welcome_message(hub: &Hub, runner_id: &str, flat: bool) -> String {
    // Its own labels are not handed back to it; those that were set here are its, too.
    let known = hub.fleet.lock().runners.get(runner_id).map(|r| (r.name.clone(), r.set_labels.clone()));
    let (name, labels) = known.unwrap_or_default();
    let asks_people = !hub.settings.approval_wait.is_zero();
    let offered = feature::ALL.iter().filter(|name| asks_people || **name != feature::APPROVAL);
    let features: Vec<String> = offered.map(|name| (*name).to_owned()).collect();
    if flat {
        return serde_json::json!({
            "type": kind::WELCOME, "worknode_id": runner_id, "payload": { "features": features },
        })
        .to_string();
    }
    let welcome = Welcome { worknode_id: runner_id.to_owned(), name, labels, features };
    crate::engine::message(kind::WELCOME, &welcome)
}

/// Why a connection is over.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// It broke, or was closed.
    Broken,
    /// Its credential is good no more.
    Credential,
}

struct Connection {
    hub: Arc<Hub>,
    runner_id: String,
    number: u64,
    probes: Vec<oneshot::Sender<()>>,
    /// The end of its credential.
    ended: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connection {
    async fn run(mut self, socket: &mut Socket, queue: &mut mpsc::UnboundedReceiver<ToRunner>) -> Left {
        let mut last_frame = Instant::now();
        let mut next_ping = Instant::now() + PING_EVERY;
        loop {
            tokio::select! {
                () = &mut self.ended => return Left::Credential,
                frame = socket.next() => {
                    last_frame = Instant::now();
                    match frame {
                        Some(Ok(Message::Text(text))) => heard(&self.hub, &self.runner_id, self.number, text.as_str()).await,
                        Some(Ok(Message::Binary(bytes))) => match std::str::from_utf8(&bytes) {
                            Ok(text) => heard(&self.hub, &self.runner_id, self.number, text).await,
                            Err(_) => tracing::warn!(runner = %self.runner_id, "skipped a frame that is no UTF-8"),
                        },
                        Some(Ok(Message::Pong(_))) => {
                            for probe in self.probes.drain(..) {
                                let _ = probe.send(());
                            }
                        }
                        Some(Ok(Message::Close(_))) | None => return Left::Broken,
                        Some(Ok(_)) => {}
                        Some(Err(error)) => {
                            tracing::debug!(runner = %self.runner_id, "connection lost: {error}");
                            return Left::Broken;
                        }
                    }
                }
                next = queue.recv() => {
                    let Some(next) = next else { return self.unlinked().await };
                    match self.write(socket, next, queue).await {
                        Some(left) => return left,
                        // Nothing was read meanwhile.
                        None => last_frame = Instant::now(),
                    }
                }
                () = tokio::time::sleep_until(next_ping) => {
                    next_ping += PING_EVERY;
                    if last_frame.elapsed() > SILENCE {
                        return Left::Broken;
                    }
                    if let Err(left) = self.put(socket, Message::Ping(axum::body::Bytes::new())).await {
                        return left;
                    }
                }
            }
        }
    }

    /// The fleet let the connection go: because its credential ended, or for a newer one.
    async fn unlinked(&mut self) -> Left {
        match tokio::time::timeout(LAST_WORD, &mut self.ended).await {
            Ok(()) => Left::Credential,
            Err(_) => Left::Broken,
        }
    }

    /// Puts a message on the line, unless that takes too long or the credential ends.
    async fn put(&mut self, socket: &mut Socket, message: Message) -> Result<(), Left> {
        tokio::select! {
            written = tokio::time::timeout(WRITE_TIMEOUT, socket.send(message)) => match written {
                Ok(Ok(())) => Ok(()),
                _ => Err(Left::Broken),
            },
            () = &mut self.ended => Err(Left::Credential),
        }
    }

    /// Writes what is queued; says so when the connection is to end.
    async fn write(
        &mut self,
        socket: &mut Socket,
        first: ToRunner,
        queue: &mut mpsc::UnboundedReceiver<ToRunner>,
    ) -> Option<Left> {
        let mut next = Some(first);
        while let Some(item) = next {
            let written = match item {
                ToRunner::Text(text) => self.put(socket, Message::text(text)).await,
                ToRunner::Request(run_id) => self.request(socket, &run_id).await,
                ToRunner::Deliver => {
                    let (hub, runner_id) = (self.hub.clone(), self.runner_id.clone());
                    tokio::spawn(async move { hub.deliver_waiting(&runner_id).await });
                    Ok(())
                }
                ToRunner::Probe(answer) => {
                    self.probes.push(answer);
                    self.put(socket, Message::Ping(axum::body::Bytes::from_static(b"probe"))).await
                }
                ToRunner::Close { code, reason } => {
                    close(socket, code, reason).await;
                    Err(Left::Broken)
                }
            };
            if let Err(left) = written {
                return Some(left);
            }
            next = queue.try_recv().ok();
        }
        None
    }

    /// Sends a run's request; a large one in pieces, so that what waits for a slow runner is
    /// one piece, and the rest is shared.
    async fn request(&mut self, socket: &mut Socket, run_id: &str) -> Result<(), Left> {
        let request = match self.hub.request_of(run_id).await {
            Ok(Some(request)) => request,
            // It is over.
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::error!(run = run_id, "a request can't be sent: {error}");
                return Err(Left::Broken);
            }
        };
        let args = &request.args;
        if args.len() <= PIECE {
            let args = std::str::from_utf8(args).unwrap_or("null");
            let text = [request.head.as_str(), args, request.tail.as_str()].concat();
            return self.put(socket, Message::text(text)).await;
        }
        let first = Frame::message(request.head, OpCode::Data(Data::Text), false);
        self.put(socket, Message::Frame(first)).await?;
        let mut at = 0;
        while at < args.len() {
            let end = (at + PIECE).min(args.len());
            let piece = Frame::message(args.slice(at..end), OpCode::Data(Data::Continue), false);
            self.put(socket, Message::Frame(piece)).await?;
            at = end;
        }
        let last = Frame::message(request.tail, OpCode::Data(Data::Continue), true);
        self.put(socket, Message::Frame(last)).await
    }
}

/// Takes what a runner says on one of its connections.
pub(crate) async fn heard(hub: &Arc<Hub>, runner_id: &str, link: u64, text: &str) {
    let incoming: Incoming<'_> = match serde_json::from_str(text) {
        Ok(incoming) => incoming,
        Err(error) => {
            return tracing::warn!(runner = runner_id, "skipped a frame that is no message: {error}");
        }
    };
    let payload = incoming.payload.map_or("null", serde_json::value::RawValue::get);
    let outcome = match incoming.kind.as_str() {
        kind::HEARTBEAT => match serde_json::from_str(payload) {
            Ok(said) => {
                heartbeat(hub, runner_id, link, said).await;
                Ok(())
            }
            Err(e) => Err(e),
        },
        kind::TASK_ACCEPTED => match serde_json::from_str::<TaskRef>(payload) {
            Ok(task) => {
                hub.accepted(runner_id, &task.task_id).await;
                Ok(())
            }
            Err(e) => Err(e),
        },
        kind::TASK_HELD => match serde_json::from_str::<TaskHeld>(payload) {
            Ok(held) => {
                hub.held(runner_id, held).await;
                Ok(())
            }
            Err(e) => Err(e),
        },
        kind::TASK_OUTPUT => match serde_json::from_str::<TaskOutput>(payload) {
            Ok(output) => {
                hub.output(runner_id, output).await;
                Ok(())
            }
            Err(e) => Err(e),
        },
        kind::TASK_RESULT => match serde_json::from_str::<TaskResult>(payload) {
            Ok(result) => {
                hub.result(runner_id, incoming.id, result).await;
                Ok(())
            }
            Err(e) => Err(e),
        },
        other => {
            tracing::info!(runner = runner_id, "skipped a message of unknown type '{other}'");
            Ok(())
        }
    };
    if let Err(error) = outcome {
        tracing::warn!(runner = runner_id, kind = %incoming.kind, "skipped a message with a bad payload: {error}");
    }
}

async fn heartbeat(hub: &Arc<Hub>, runner_id: &str, link: u64, mut heartbeat: Heartbeat) {
    description::bound(&mut heartbeat);
    let (first, row) = {
        let mut fleet = hub.fleet.lock();
        let changed = fleet.change(runner_id, |runner| {
            let link = runner.link.as_mut().filter(|l| l.number == link)?;
            let first = !link.ready;
            if first {
                let has = |name: &str| heartbeat.features.iter().any(|f| f == name);
                (link.ack, link.output) = (has(feature::ACK), has(feature::OUTPUT));
                link.ready = true;
                runner.acks = link.ack;
                runner.boot_id.clone_from(&heartbeat.boot_id);
            }
            description::take_over(runner, heartbeat);
            runner.last_seen_ms = now_ms();
            Some((first, runner.row()))
        });
        let Some(Some(changed)) = changed else { return };
        changed
    };
    if first {
        let then = |result| {
            if let Err(error) = result {
                tracing::error!("a runner's description was not stored: {error}");
            }
        };
        hub.store.keep_runner(row, Box::new(then)).await;
        hub.runner_ready(runner_id, link).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_found_in_each_place() {
        let mut headers = HeaderMap::new();
        assert_eq!(credential(&headers, Some("x=1&token=a%2Fb")), Some(("a/b".into(), false)));
        assert_eq!(credential(&headers, Some("token=%zz")), None);
        assert_eq!(credential(&headers, None), None);
        headers.insert("Authorization", HeaderValue::from_static("Bearer t"));
        assert_eq!(credential(&headers, Some("token=q")), Some(("t".into(), false)));
        headers.insert("FD-API-KEY", HeaderValue::from_static("k"));
        assert_eq!(credential(&headers, None), Some(("k".into(), true)));
    }
}
