//! One connection: the welcome, then messages both ways until it breaks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use legwork_proto::dialout::{
    Ack, Incoming, McpCall, RequestedBy, TaskRef, TaskRequest, TaskResume, Welcome, feature, kind,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::config::StreamOutput;
use crate::connect::{Socket, is_close};
use crate::handshake::Identity;
use crate::tasks::{Link, Request, Tasks};

/// The hub should have introduced itself by then.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Without any frame for this long the connection is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages waiting to be written; who has more to say waits.
const WRITE_QUEUE: usize = 64;

/// Results written to a hub that acknowledges nothing.
type Written = Arc<Mutex<Vec<String>>>;

/// Serves a connection until it ends; returns why. `closing` asks for a clean end.
pub(crate) async fn serve(
    socket: Socket,
    header_id: Option<String>,
    tasks: &Arc<Tasks>,
    identity: &Arc<Identity>,
    stream_output: StreamOutput,
    mut closing: watch::Receiver<bool>,
    connected: &watch::Sender<bool>,
) -> String {
    let (sink, mut stream) = socket.split();
    let (messages, queue) = mpsc::channel(WRITE_QUEUE);
    let number = tasks.next_link_number();
    let written = Written::default();
    let refusal = watch::Sender::new(None);
    let mut writer = tokio::spawn(write(sink, queue, written.clone(), closing.clone(), refusal.subscribe()));
    let mut session = Session {
        number,
        messages,
        tasks: tasks.clone(),
        identity: identity.clone(),
        header_id,
        stream_output,
        link: None,
        written,
    };
    let welcome_by = Instant::now() + WELCOME_TIMEOUT;
    let mut next_heartbeat = Instant::now() + HEARTBEAT;
    // A point in time, not a span per wait: our own heartbeats end waits as well.
    let mut silent_until = Instant::now() + READ_TIMEOUT;
    let reason = loop {
        let introduced = session.link.is_some();
        tokio::select! {
            frame = tokio::time::timeout_at(silent_until, stream.next()) => match frame {
                Err(_) => break "nothing was heard from the hub for 60 s".to_owned(),
                Ok(Some(Err(WsError::Capacity(error)))) => {
                    refusal.send_replace(Some(CloseCode::Size));
                    tasks.link_down(number);
                    let _ = tokio::time::timeout(WRITE_TIMEOUT, &mut writer).await;
                    break format!("the hub sent too much at once: {error}");
                }
                Ok(None) => break CLOSED.to_owned(),
                Ok(Some(Err(error))) => break if is_close(&error) { CLOSED.to_owned() } else { error.to_string() },
                Ok(Some(Ok(Message::Close(None)))) => break CLOSED.to_owned(),
                Ok(Some(Ok(Message::Close(Some(f))))) => break format!("{CLOSED}: {} {}", f.code, f.reason),
                Ok(Some(Ok(frame))) => {
                    silent_until = Instant::now() + READ_TIMEOUT;
                    session.confirm_written().await;
                    session.frame(frame).await;
                    if session.link.is_some() {
                        connected.send_if_modified(|c| !std::mem::replace(c, true));
                    }
                }
            },
            () = tokio::time::sleep_until(welcome_by), if !introduced => {
                tracing::info!("no welcome within {} s; going on without", WELCOME_TIMEOUT.as_secs());
                session.introduce(&[]).await;
            }
            () = tokio::time::sleep_until(next_heartbeat), if introduced => {
                next_heartbeat += HEARTBEAT;
                session.heartbeat(false).await;
            }
            result = &mut writer => {
                break result.unwrap_or_else(|e| e.to_string());
            }
            () = closed(&mut closing) => {
                tasks.link_down(number);
                let _ = tokio::time::timeout(WRITE_TIMEOUT, &mut writer).await;
                break "closed".to_owned();
            }
        }
    };
    tasks.link_down(number);
    // What it wrote is known when it has ended, and counts before the next connection begins.
    if !writer.is_finished() {
        writer.abort();
        let _ = writer.await;
    }
    session.count_resent().await;
    reason
}

/// How a connection ended that the hub did not want any more.
const CLOSED: &str = "the hub closed the connection";

/// Waits for the wish to end. (The guard that `wait_for` returns must not live
/// across a wait.)
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|c| *c).await;
}

/// Writes what is queued, many messages per system call where there are many.
async fn write(
    mut sink: futures_util::stream::SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<(String, Option<String>)>,
    written: Written,
    mut closing: watch::Receiver<bool>,
    mut refusal: watch::Receiver<Option<CloseCode>>,
) -> String {
    let mut results = Vec::new();
    loop {
        let mut code = CloseCode::Normal;
        let next = tokio::select! {
            biased;
            Ok(refused) = refusal.wait_for(Option::is_some) => {
                code = refused.unwrap_or(CloseCode::Policy);
                None
            }
            next = queue.recv() => next,
            () = closed(&mut closing) => None,
        };
        let Some(first) = next else {
            let frame = CloseFrame { code, reason: "".into() };
            let _ = tokio::time::timeout(WRITE_TIMEOUT, sink.send(Message::Close(Some(frame)))).await;
            return "closed".into();
        };
        let batch = async {
            let mut message = Some(first);
            while let Some((text, result)) = message {
                sink.feed(Message::text(text)).await?;
                results.extend(result);
                message = queue.try_recv().ok();
            }
            sink.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, batch).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("the hub took nothing for {} s", WRITE_TIMEOUT.as_secs()),
        }
        if !results.is_empty()
            && let Ok(mut written) = written.lock()
        {
            written.append(&mut results);
        }
    }
}

struct Session {
    number: u64,
    messages: mpsc::Sender<(String, Option<String>)>,
    tasks: Arc<Tasks>,
    identity: Arc<Identity>,
    header_id: Option<String>,
    stream_output: StreamOutput,
    /// Set once the hub has said what it can, or has let the time for it pass.
    link: Option<Arc<Link>>,
    written: Written,
}

impl Session {
    async fn frame(&mut self, frame: Message) {
        let text = match &frame {
            Message::Text(text) => text.as_str(),
            Message::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => return tracing::warn!("skipped a frame that is no UTF-8: {error}"),
            },
            _ => return,
        };
        let incoming: Incoming<'_> = match serde_json::from_str(text) {
            Ok(incoming) => incoming,
            Err(error) => return tracing::warn!("skipped a frame that is no message: {error}"),
        };
        if let Err(error) = self.message(&incoming).await {
            tracing::warn!(kind = %incoming.kind, "skipped a message with a bad payload: {error}");
        }
    }

    async fn message(&mut self, incoming: &Incoming<'_>) -> serde_json::Result<()> {
        let payload = incoming.payload.map_or("null", serde_json::value::RawValue::get);
        match incoming.kind.as_str() {
            kind::WELCOME => {
                let mut welcome: Welcome =
                    if payload == "null" { Welcome::default() } else { serde_json::from_str(payload)? };
                if welcome.worknode_id.is_empty() {
                    welcome.worknode_id =
                        incoming.worknode_id.clone().or_else(|| self.header_id.clone()).unwrap_or_default();
                }
                tracing::info!(id = %welcome.worknode_id, name = %welcome.name, "connected");
                let features = welcome.features.clone();
                self.identity.welcomed(welcome);
                if self.link.is_none() {
                    self.introduce(&features).await;
                }
            }
            kind::TASK_REQUEST => {
                let task: TaskRequest<'_> = serde_json::from_str(payload)?;
                let request = Request {
                    task_id: task.task_id,
                    source: task.source_instance_id,
                    operation: task.operation,
                    // `null` and absent differ here: serde gives absent for both.
                    args: task.args.map(|a| a.get().to_owned()).or_else(|| null_args(payload)),
                    who: task.requested_by.as_ref().map(who).unwrap_or_default(),
                    approval: task.approval,
                };
                tracing::debug!(task = %request.task_id, operation = %request.operation, "requested");
                self.tasks.request(request);
            }
            kind::MCP_CALL => {
                let call: McpCall = serde_json::from_str(payload)?;
                tracing::debug!(call = %call.call_id, tool = %call.tool_name, "requested");
                self.tasks.request(Request::call(&call.call_id, payload));
            }
            kind::TASK_CANCEL => {
                let task: TaskRef = serde_json::from_str(payload)?;
                self.tasks.cancel(&task.task_id);
            }
            kind::TASK_RESUME => {
                let resume: TaskResume = serde_json::from_str(payload)?;
                if let Some(link) = &self.link {
                    self.tasks.resume(link, &resume);
                }
            }
            kind::ACK => {
                let ack: Ack = serde_json::from_str(payload)?;
                self.tasks.acknowledged(ack.id).await;
            }
            other => tracing::info!("skipped a message of unknown type '{other}'"),
        }
        Ok(())
    }

    /// Says who we are and opens the connection for tasks.
    async fn introduce(&mut self, features: &[String]) {
        let has = |name: &str| features.iter().any(|f| f == name);
        let output = match self.stream_output {
            StreamOutput::Auto => has(feature::OUTPUT),
            StreamOutput::Always => true,
            StreamOutput::Never => false,
        };
        self.heartbeat(true).await;
        let link = Arc::new(Link {
            number: self.number,
            messages: self.messages.clone(),
            ack: has(feature::ACK),
            output,
            outcome: has(feature::OUTCOME),
            approval: has(feature::APPROVAL),
        });
        self.link = Some(link.clone());
        self.tasks.link_up(link);
    }

    async fn heartbeat(&self, first: bool) {
        let heartbeat = self.identity.heartbeat(first, self.tasks.runner());
        let id = crate::ids::message_id();
        let text = crate::tasks::message(&id, kind::HEARTBEAT, &heartbeat);
        let _ = self.messages.send((text, None)).await;
    }

    /// A frame from a hub without acknowledgements shows that it is alive: results
    /// written before count as arrived, as do those written a second time.
    async fn confirm_written(&self) {
        if self.link.as_ref().is_none_or(|l| l.ack) {
            return;
        }
        let ids = self.written.lock().map(|mut w| std::mem::take(&mut *w)).unwrap_or_default();
        if !ids.is_empty() {
            self.tasks.presumed_delivered(ids).await;
        }
    }

    /// The connection is over: what was written for the second time is not sent a third.
    async fn count_resent(&self) {
        if self.link.as_ref().is_none_or(|l| l.ack) {
            return;
        }
        let ids = self.written.lock().map(|mut w| std::mem::take(&mut *w)).unwrap_or_default();
        let resent: Vec<String> = ids.into_iter().filter(|id| self.tasks.was_resent(id)).collect();
        if !resent.is_empty() {
            self.tasks.presumed_delivered(resent).await;
        }
    }
}

/// Who asked, in one line: a name alone may be that of two.
fn who(by: &RequestedBy) -> String {
    const MOST: usize = 200;
    let word = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(MOST).collect() };
    format!("{} ({}) at {}", word(&by.name), word(&by.token), word(&by.hub))
}

/// `"args":null` spelt out.
fn null_args(payload: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(payload).ok()?;
    object.get("args").filter(|a| a.is_null()).map(|_| "null".to_owned())
}
