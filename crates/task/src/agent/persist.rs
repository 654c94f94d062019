//! Messages kept by the hub (docs/protocols/task.md §8): in order, beside the task, and
//! never in its way.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::random;

/// Requests that may wait; more are left out.
const QUEUE: usize = 256;
/// How long the last ones are waited for.
const LAST: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Persistence {
    queue: mpsc::Sender<(Method, String, Value)>,
    worker: JoinHandle<()>,
}

impl Persistence {
    /// Keeps messages at `base` with an agent's token.
    pub(crate) fn start(http: reqwest::Client, base: &str, token: &str) -> Option<Self> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        bearer.set_sensitive(true);
        let base = base.trim_end_matches('/').to_owned();
        let (queue, mut requests) = mpsc::channel::<(Method, String, Value)>(QUEUE);
        let worker = tokio::spawn(async move {
            while let Some((method, path, body)) = requests.recv().await {
                let url = format!("{base}/internal/agent/messages{path}");
                let request = http.request(method, url).header(AUTHORIZATION, bearer.clone()).json(&body);
                match request.send().await {
                    Ok(response) if response.status().is_success() => {}
                    Ok(response) => {
                        tracing::warn!(status = response.status().as_u16(), "a message could not be kept");
                    }
                    Err(error) => {
                        tracing::warn!(error = %legwork_net::cause(&error), "a message could not be kept");
                    }
                }
            }
        });
        Some(Self { queue, worker })
    }

    fn send(&self, method: Method, path: String, body: Value) {
        if self.queue.try_send((method, path, body)).is_err() {
            tracing::warn!("a message could not be kept: too many wait");
        }
    }

    /// A turn begins; returns the message's id there.
    pub(super) fn begin(&self) -> String {
        let id = random::id("msg");
        let body = json!({"id": id, "role": "assistant", "status": "streaming"});
        self.send(Method::POST, String::new(), body);
        id
    }

    /// A turn's blocks, and its end.
    pub(super) fn end(&self, id: &str, content: &[Value], status: &str) {
        let mut sort_order = 0;
        for block in content {
            let part = random::id("part");
            let body = match block["type"].as_str() {
                Some("text") => json!({
                    "id": part, "type": "text", "text": block["text"],
                    "tool_name": null, "tool_state": null, "sort_order": sort_order,
                }),
                Some("tool_use") => json!({
                    "id": part, "type": "tool", "text": null, "tool_name": block["name"],
                    "tool_state": json!({"id": block["id"], "input": block["input"]}).to_string(),
                    "sort_order": sort_order,
                }),
                _ => continue,
            };
            sort_order += 1;
            self.send(Method::POST, format!("/{id}/parts"), body);
        }
        self.send(Method::PATCH, format!("/{id}"), json!({"status": status}));
    }

    /// Waits a little for what is still to be kept.
    pub(crate) async fn finish(self) {
        drop(self.queue);
        let abort = self.worker.abort_handle();
        if tokio::time::timeout(LAST, self.worker).await.is_err() {
            tracing::warn!("the last messages could not be kept in time");
            abort.abort();
        }
    }
}
