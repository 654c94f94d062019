//! Standby: register, work, register again (docs/protocols/task.md §6).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_base::Secret;
use legwork_proto::task::{Assigned, Input, Register, TaskId};
use legwork_yaml::Node;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::abort::{Abort, Why};
use crate::agent::Memory;
use crate::inbox::Inbox;
use crate::random;
use crate::settings::Standby;
use crate::task::{Contact, Order, Runner};
use legwork_net::cause;

/// The protocol's poll.
const POLL: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(20);
/// For an answer; a hub of ours may hold it back for `WAIT_S` of it.
const TIMEOUT: Duration = Duration::from_secs(30);
const WAIT_S: u64 = 20;
/// Most bytes of an answer: a task may be large.
const MAX_ANSWER: usize = 64 << 20;

impl Runner {
    /// Takes tasks until `stop` is wished, which is a good end.
    pub async fn stand_by(self: &Arc<Self>, standby: &Standby, stop: &Abort) -> Result<(), String> {
        let nudge = Arc::new(Notify::new());
        if let Some(port) = standby.assign_port {
            listen(port, nudge.clone()).await?;
        }
        let headers = self.internal_headers()?;
        let mut left = standby.tasks;
        // The hub has held back an answer, as ours do.
        let mut holds = false;
        let mut known_problem = String::new();
        while stop.now().is_none() && left != Some(0) {
            let asked = Instant::now();
            let answer = tokio::select! {
                answer = self.register(standby, headers.clone()) => answer,
                _ = stop.wished() => return Ok(()),
            };
            match answer {
                Ok(Answer { task: Some(task), callback_url, waited }) => {
                    known_problem.clear();
                    holds |= waited;
                    let mut order = Order {
                        id: task.id,
                        config: task.config,
                        callback_url: callback_url.unwrap_or_default(),
                        agent_token: task.agent_token,
                        persistence_url: task.persistence_url,
                        refusal: None,
                        contact: Contact {
                            inbox: Some(Inbox::default()),
                            memory: None,
                            secrets: task.secrets,
                        },
                    };
                    // Only a hub of ours has more to offer than its protocol.
                    if waited && let Some(session) = task.session_id {
                        tracing::info!(session = %session, "the task belongs to a session");
                        order.contact.memory = self.memory(&order.callback_url);
                    }
                    order.refusal = self.claim_off_thread(&order).await.err();
                    self.work(standby, &order, stop, holds).await;
                    if let Some(reason) = order.refusal {
                        return Err(reason);
                    }
                    left = left.map(|left| left - 1);
                    continue;
                }
                Ok(answer) => {
                    holds |= answer.waited;
                    if !known_problem.is_empty() {
                        tracing::info!("registered again");
                        known_problem.clear();
                    }
                    // It has held the answer back: ask again at once.
                    if answer.waited && asked.elapsed() > Duration::from_secs(1) {
                        continue;
                    }
                }
                Err(problem) => {
                    if problem != known_problem {
                        tracing::warn!(error = %problem, "registering failed: trying again every 5 s");
                        known_problem = problem;
                    }
                }
            }
            let pause = POLL.mul_f64(0.9 + 0.2 * random::fraction());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = nudge.notified() => {}
                _ = stop.wished() => {}
            }
        }
        Ok(())
    }

    /// Where a session is kept by the hub that a task's events go to.
    fn memory(&self, callback_url: &str) -> Option<Memory> {
        let mut url = url::Url::parse(callback_url).ok()?;
        let path = format!("{}/session", url.path().strip_suffix("/stream")?);
        url.set_path(&path);
        Some(Memory::Hub { http: self.http(callback_url).ok()?, url: url.into() })
    }

    /// Makes the place ready for a task; there may be much to remove.
    async fn claim_off_thread(self: &Arc<Self>, order: &Order) -> Result<(), String> {
        let (runner, order) = (self.clone(), order.clone());
        tokio::task::spawn_blocking(move || runner.claim(&order)).await.map_err(|e| e.to_string())?
    }

    async fn register(
        &self,
        standby: &Standby,
        headers: reqwest::header::HeaderMap,
    ) -> Result<Answer, String> {
        let body = Register {
            pod_name: standby.pod_name.clone(),
            pod_ip: standby.pod_ip.clone(),
            capabilities: vec!["agent".into(), "workflow".into()],
            version: Some(env!("CARGO_PKG_VERSION").into()),
            wait_s: Some(WAIT_S),
        };
        let http = self.http(&standby.register_url)?;
        let request = http.post(&standby.register_url).headers(headers).json(&body).timeout(TIMEOUT);
        let mut response = request.send().await.map_err(|e| cause(&e))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("the hub answered {}", response.status()));
        }
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| cause(&e))? {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_ANSWER {
                return Err(format!("the hub's answer is larger than {MAX_ANSWER} bytes"));
            }
        }
        read(&text)
    }

    async fn work(self: &Arc<Self>, standby: &Standby, order: &Order, stop: &Abort, holds: bool) {
        tracing::info!(task_id = %order.id, "a task was assigned");
        let abort = Abort::default();
        let beating = {
            let (runner, abort, id) = (self.clone(), abort.clone(), order.id.clone());
            let inbox = order.contact.inbox.clone().unwrap_or_default();
            let (standby, stop) = (standby.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = runner.beat(&standby, (&id, &inbox), &abort, holds) => {}
                    _ = stop.wished() => abort.wish(Why::Stopped),
                }
            })
        };
        match self.run(order, &abort).await {
            Ok(outcome) => match outcome.failure {
                None => tracing::info!(task_id = %order.id, "the task succeeded"),
                Some((_, message)) => {
                    tracing::warn!(task_id = %order.id, error = %message, "the task failed")
                }
            },
            Err(error) => tracing::error!(task_id = %order.id, error = %error, "the task could not be run"),
        }
        beating.abort();
    }

    /// Tells the hub that we are alive, until it does not want to know. Never ends before
    /// the process is told to stop.
    async fn beat(&self, standby: &Standby, (id, inbox): (&TaskId, &Inbox), abort: &Abort, holds: bool) {
        let Some(url) = heartbeat_url(standby) else { return std::future::pending().await };
        let headers = self.internal_headers().unwrap_or_default();
        let Ok(http) = self.http(url.as_str()) else { return std::future::pending().await };
        // A hub that holds answers back says at once that a task is to end.
        if !holds {
            tokio::time::sleep(HEARTBEAT).await;
        }
        loop {
            let asked = Instant::now();
            let body = serde_json::json!({ "wait_s": WAIT_S, "task": id, "seen": inbox.seen() });
            let request = http.post(url.clone()).headers(headers.clone()).json(&body).timeout(TIMEOUT);
            let mut has_news = false;
            match request.send().await {
                Ok(answer) if answer.status() == reqwest::StatusCode::NOT_FOUND => {
                    tracing::info!("the hub knows no heartbeats: none will be sent");
                    return std::future::pending().await;
                }
                Ok(answer) => {
                    let body: serde_json::Value = answer.json().await.unwrap_or_default();
                    let wanted = serde_json::to_value(id).unwrap_or_default();
                    if body["cancel"].as_array().is_some_and(|list| list.contains(&wanted)) {
                        abort.wish(Why::Cancelled);
                    }
                    for input in body["input"].as_array().into_iter().flatten() {
                        if let Ok(input) = serde_json::from_value::<Input>(input.clone()) {
                            inbox.take_in(input);
                            has_news = true;
                        }
                    }
                }
                Err(error) => tracing::debug!(error = %cause(&error), "a heartbeat failed"),
            }
            // A hub of ours has held its answer back; so much was no waiting.
            let pause = match has_news || asked.elapsed() > Duration::from_secs(WAIT_S) / 2 {
                true => Duration::from_millis(200),
                false => HEARTBEAT.saturating_sub(asked.elapsed()),
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// A task as the hub gave it.
#[derive(Debug)]
struct Given {
    id: TaskId,
    session_id: Option<String>,
    secrets: BTreeMap<String, Secret>,
    config: Result<Node, String>,
    agent_token: Option<Secret>,
    persistence_url: Option<String>,
}

/// What a hub answered.
#[derive(Debug, Default)]
struct Answer {
    task: Option<Given>,
    callback_url: Option<String>,
    waited: bool,
}

/// Reads an answer as the original does: what is false in any way is no task.
fn read(text: &[u8]) -> Result<Answer, String> {
    #[derive(serde::Deserialize)]
    struct Raw<'a> {
        #[serde(borrow, default)]
        task: Option<&'a RawValue>,
        #[serde(default)]
        callback_url: Option<String>,
        #[serde(default)]
        waited: bool,
    }
    let raw: Raw<'_> =
        serde_json::from_slice(text).map_err(|e| format!("the hub's answer can't be used: {e}"))?;
    let is_none = |text: &str| matches!(text, "null" | "false" | "0" | "\"\"" | "[]" | "{}");
    let task = match raw.task.map(RawValue::get).filter(|text| !is_none(text)) {
        Some(text) => Some(given(text).map_err(|e| format!("the hub's task can't be used: {e}"))?),
        None => None,
    };
    Ok(Answer { task, callback_url: raw.callback_url, waited: raw.waited })
}

/// Reads a task. What it is about may be anything, or missing: whoever has an id is told what
/// is wrong, and does not wait for ever.
fn given(text: &str) -> serde_json::Result<Given> {
    match serde_json::from_str::<Assigned>(text) {
        Ok(task) => Ok(Given {
            id: task.id,
            session_id: task.session_id,
            secrets: task.secrets.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
            config: legwork_yaml::parse_json(task.config.get().as_bytes()),
            agent_token: task.agent_token.map(Secret::new),
            persistence_url: task.persistence_url,
        }),
        Err(error) => {
            #[derive(serde::Deserialize)]
            struct Named {
                id: TaskId,
            }
            let Named { id } = serde_json::from_str(text)?;
            let config = Err(format!("Invalid task: {error}"));
            Ok(Given {
                id,
                session_id: None,
                secrets: BTreeMap::new(),
                config,
                agent_token: None,
                persistence_url: None,
            })
        }
    }
}

/// A hub's answer, for fuzzing.
pub(crate) fn fuzz(data: &[u8]) {
    let _ = read(data);
}

/// The register URL with `/register` replaced by `/<pod_name>/heartbeat`.
fn heartbeat_url(standby: &Standby) -> Option<url::Url> {
    let mut url = url::Url::parse(&standby.register_url).ok()?;
    let base = url.path().strip_suffix("/register")?.to_owned();
    url.set_path(&base);
    url.path_segments_mut().ok()?.push(&standby.pod_name).push("heartbeat");
    Some(url)
}

/// Listens for the word that there is a task; what it says beside that is not trusted.
async fn listen(port: u16, nudge: Arc<Notify>) -> Result<(), String> {
    const MOST: usize = 8 * 1024;
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", port))
        .await
        .map_err(|e| format!("ASSIGN_PORT: failed to listen on port {port}: {e}"))?;
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let nudge = nudge.clone();
            let serve = async move {
                let mut head = Vec::new();
                let mut buffer = [0u8; 1024];
                while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < MOST {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(len) => head.extend_from_slice(&buffer[..len]),
                    }
                }
                let known = head.starts_with(b"POST /assign ") || head.starts_with(b"POST /assign?");
                if known {
                    nudge.notify_one();
                }
                let (status, body) = if known {
                    ("200 OK", "{\"ok\":true}")
                } else {
                    ("404 Not Found", "{\"error\":\"not found\"}")
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            };
            tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(10), serve).await });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_go_beside_registering() {
        let standby = |url: &str| Standby {
            register_url: url.into(),
            pod_name: "pool 1/a".into(),
            pod_ip: "x".into(),
            assign_port: None,
            tasks: None,
        };
        let url = heartbeat_url(&standby("https://hub/internal/runners/register?key=s")).expect("url");
        assert_eq!(url.as_str(), "https://hub/internal/runners/pool%201%2Fa/heartbeat?key=s");
        assert!(heartbeat_url(&standby("https://hub/elsewhere")).is_none());
    }
}
