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
use legwork_proto::dialout::{Heartbeat, Incoming, TaskOutput, TaskRef, TaskResult, Welcome, feature, kind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role as WsRole, WebSocketConfig};

use crate::auth::{Checked, Token};
use crate::clock::now_ms;
use crate::engine::Hub;
use crate::fleet::{Link, Runner, ToRunner};
use crate::model::Role;
use crate::server::Peer;

const PING_EVERY: Duration = Duration::from_secs(20);
/// Without any frame for this long a runner is gone.
const SILENCE: Duration = Duration::from_secs(90);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an older connection has to show that it lives.
const PROBE: Duration = Duration::from_secs(5);
const MAX_MESSAGE: usize = 64 << 20;
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
    let (token, runner_id) = match check(&hub, &secret, peer.address.ip()) {
        Ok(checked) => checked,
        Err(response) => return *response,
    };
    let name = headers
        .get("X-Worknode-Name")
        .and_then(|v| v.to_str().ok())
        .filter(|n| !n.is_empty() && n.len() <= 255)
        .unwrap_or(&token.name)
        .to_owned();
    if is_alive(&hub, &runner_id).await {
        return refuse(StatusCode::CONFLICT, "another runner with this credential is connected");
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let accept = derive_accept_key(key.as_bytes());
    let session_runner = runner_id.clone();
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
        Box::pin(serve(hub, socket, session_runner, name, flat_welcome)).await;
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

fn check(hub: &Hub, secret: &str, from: IpAddr) -> Result<(Token, String), Box<Response>> {
    match hub.auth.check(secret, from) {
        Checked::Valid(token) => match (token.role, token.runner_id.clone()) {
            (Role::Runner, Some(runner_id)) => Ok((token, runner_id)),
            _ => Err(Box::new(refuse(StatusCode::FORBIDDEN, "this token is not a runner's"))),
        },
        Checked::Revoked => Err(Box::new(refuse(StatusCode::FORBIDDEN, "this credential was revoked"))),
        Checked::Unknown => Err(Box::new(refuse(StatusCode::UNAUTHORIZED, "unknown credential"))),
        Checked::Limited => Err(Box::new(refuse(StatusCode::TOO_MANY_REQUESTS, "too many attempts"))),
    }
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

async fn serve(hub: Arc<Hub>, mut socket: Socket, runner_id: String, name: String, flat_welcome: bool) {
    #[expect(clippy::disallowed_methods, reason = "bounded by the runs that are open on this runner")]
    let (sender, mut queue) = mpsc::unbounded_channel();
    let number = {
        let mut fleet = hub.fleet.lock();
        let number = fleet.next_link();
        let runner = fleet
            .runners
            .entry(runner_id.clone())
            .or_insert_with(|| Runner::new(runner_id.clone(), name.clone()));
        runner.name = name;
        runner.link = Some(Link { number, sender, ready: false, ack: false });
        number
    };
    let welcome = welcome_message(&hub, &runner_id, flat_welcome);
    if socket.send(Message::text(welcome)).await.is_ok() {
        let connection =
            Connection { hub: hub.clone(), runner_id: runner_id.clone(), number, probes: Vec::new() };
        connection.run(&mut socket, &mut queue).await;
    }
    hub.fleet.lock().unlink(&runner_id, number);
}

fn welcome_message(hub: &Hub, runner_id: &str, flat: bool) -> String {
    let name = hub.fleet.lock().runners.get(runner_id).map(|r| r.name.clone()).unwrap_or_default();
    let features: Vec<String> = feature::ALL.iter().map(|f| (*f).to_owned()).collect();
    if flat {
        return serde_json::json!({
            "type": kind::WELCOME, "worknode_id": runner_id, "payload": { "features": features },
        })
        .to_string();
    }
    // Labels are the runner's own: what it told us before is not handed back to it.
    let welcome = Welcome { worknode_id: runner_id.to_owned(), name, labels: Vec::new(), features };
    crate::engine::message(kind::WELCOME, &welcome)
}

struct Connection {
    hub: Arc<Hub>,
    runner_id: String,
    number: u64,
    probes: Vec<oneshot::Sender<()>>,
}

impl Connection {
    async fn run(mut self, socket: &mut Socket, queue: &mut mpsc::UnboundedReceiver<ToRunner>) {
        let mut last_frame = Instant::now();
        let mut next_ping = Instant::now() + PING_EVERY;
        loop {
            tokio::select! {
                frame = socket.next() => {
                    last_frame = Instant::now();
                    match frame {
                        Some(Ok(Message::Text(text))) => self.message(text.as_str()).await,
                        Some(Ok(Message::Binary(bytes))) => match std::str::from_utf8(&bytes) {
                            Ok(text) => self.message(text).await,
                            Err(_) => tracing::warn!(runner = %self.runner_id, "skipped a frame that is no UTF-8"),
                        },
                        Some(Ok(Message::Pong(_))) => {
                            for probe in self.probes.drain(..) {
                                let _ = probe.send(());
                            }
                        }
                        Some(Ok(Message::Close(_))) | None => return,
                        Some(Ok(_)) => {}
                        Some(Err(error)) => {
                            tracing::debug!(runner = %self.runner_id, "connection lost: {error}");
                            return;
                        }
                    }
                }
                next = queue.recv() => {
                    let Some(next) = next else { return };
                    let written = tokio::time::timeout(WRITE_TIMEOUT, self.write(socket, next, queue)).await;
                    if !matches!(written, Ok(Ok(true))) {
                        return;
                    }
                }
                () = tokio::time::sleep_until(next_ping) => {
                    next_ping += PING_EVERY;
                    let silent = last_frame.elapsed() > SILENCE;
                    let ping = socket.send(Message::Ping(axum::body::Bytes::new()));
                    if silent || !matches!(tokio::time::timeout(WRITE_TIMEOUT, ping).await, Ok(Ok(()))) {
                        return;
                    }
                }
            }
        }
    }

    /// Writes what is queued; false when the connection is to end.
    async fn write(
        &mut self,
        socket: &mut Socket,
        first: ToRunner,
        queue: &mut mpsc::UnboundedReceiver<ToRunner>,
    ) -> Result<bool, tokio_tungstenite::tungstenite::Error> {
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                ToRunner::Text(text) => socket.feed(Message::text(text)).await?,
                ToRunner::Deliver => {
                    let (hub, runner_id) = (self.hub.clone(), self.runner_id.clone());
                    tokio::spawn(async move { hub.deliver_waiting(&runner_id).await });
                }
                ToRunner::Probe(answer) => {
                    self.probes.push(answer);
                    socket.feed(Message::Ping(axum::body::Bytes::from_static(b"probe"))).await?;
                }
                ToRunner::Close { code, reason } => {
                    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
                    socket.send(Message::Close(Some(frame))).await?;
                    return Ok(false);
                }
            }
            next = queue.try_recv().ok();
        }
        socket.flush().await?;
        Ok(true)
    }

    async fn message(&mut self, text: &str) {
        let incoming: Incoming<'_> = match serde_json::from_str(text) {
            Ok(incoming) => incoming,
            Err(error) => {
                return tracing::warn!(runner = %self.runner_id, "skipped a frame that is no message: {error}");
            }
        };
        let payload = incoming.payload.map_or("null", serde_json::value::RawValue::get);
        let outcome = match incoming.kind.as_str() {
            kind::HEARTBEAT => match serde_json::from_str(payload) {
                Ok(heartbeat) => {
                    self.heartbeat(heartbeat).await;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            kind::TASK_ACCEPTED => match serde_json::from_str::<TaskRef>(payload) {
                Ok(task) => {
                    self.hub.accepted(&self.runner_id, &task.task_id).await;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            kind::TASK_OUTPUT => match serde_json::from_str::<TaskOutput>(payload) {
                Ok(output) => {
                    self.hub.output(&self.runner_id, output).await;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            kind::TASK_RESULT => match serde_json::from_str::<TaskResult>(payload) {
                Ok(result) => {
                    self.hub.result(&self.runner_id, incoming.id, result).await;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            other => {
                tracing::info!(runner = %self.runner_id, "skipped a message of unknown type '{other}'");
                Ok(())
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(runner = %self.runner_id, kind = %incoming.kind, "skipped a message with a bad payload: {error}");
        }
    }

    async fn heartbeat(&mut self, heartbeat: Heartbeat) {
        let now = now_ms();
        let (first, row) = {
            let mut fleet = self.hub.fleet.lock();
            let Some(runner) = fleet.runners.get_mut(&self.runner_id) else { return };
            let Some(link) = runner.link.as_mut().filter(|l| l.number == self.number) else { return };
            let first = !link.ready;
            if first {
                link.ack = heartbeat.features.iter().any(|f| f == feature::ACK);
                link.ready = true;
                runner.boot_id = heartbeat.boot_id;
            }
            runner.last_seen_ms = now;
            runner.version = heartbeat.version;
            runner.metrics = heartbeat.metrics.and_then(|m| serde_json::to_value(m).ok());
            let mut labels = heartbeat.labels;
            if let Some(environment) = &heartbeat.environment {
                // The token generation is told its labels, and so tells us none.
                for (key, value) in [
                    ("os", &environment.os),
                    ("arch", &environment.arch),
                    ("hostname", &environment.hostname),
                ] {
                    let label = format!("{key}:{value}");
                    if !value.is_empty() && !labels.contains(&label) {
                        labels.push(label);
                    }
                }
                runner.environment = serde_json::to_value(environment).ok();
                runner.labels = labels;
            } else {
                for label in labels {
                    if !runner.labels.contains(&label) {
                        runner.labels.push(label);
                    }
                }
            }
            (first, runner.clone())
        };
        if first {
            self.store_runner(row).await;
            self.hub.runner_ready(&self.runner_id, self.number).await;
        }
    }

    async fn store_runner(&self, runner: Runner) {
        self.hub
            .store
            .submit(Box::new(move |c| runner.store(c)), |result| {
                if let Err(error) = result {
                    tracing::error!("a runner's description was not stored: {error}");
                }
            })
            .await;
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
