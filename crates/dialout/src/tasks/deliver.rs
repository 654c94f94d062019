//! Results: kept until they have arrived, sent once per connection.

use std::path::PathBuf;
use std::sync::Arc;

use legwork_base::clock::now_ms;
use legwork_proto::dialout::Outgoing;

use super::{Handle, Link, RESUME_WAIT, Request, Tasks, stream};
use crate::outbox::{Entry, Text};

/// Frees the room that a command's output takes; how it ended stays.
async fn truncate(record: PathBuf) {
    let _ = tokio::task::spawn_blocking(move || {
        const REPORT: u64 = 4096;
        std::fs::File::options().write(true).open(record)?.set_len(REPORT)
    })
    .await;
}

/// Writes a message.
pub(crate) fn message<P: serde::Serialize>(id: &str, kind: &str, payload: &P) -> String {
    // Payloads are plain structs: they always serialise.
    serde_json::to_string(&Outgoing { id, kind, payload, timestamp: now_ms() }).unwrap_or_default()
}

/// A result as a hub wants it: without the word for how it ended, if it never heard
/// of that, nor what could be written instead. They are the last fields of the payload, and
/// within the text of another field their quotes would be escaped.
pub(super) fn for_link(mut text: String, link: &Link) -> String {
    const SUGGESTION: &str = ",\"suggestion\":\"";
    const OUTCOME: &str = ",\"outcome\":\"";
    if !link.outcome
        && let Some(start) = text.rfind(OUTCOME)
        && let Some(len) = text[start + OUTCOME.len()..].find('"')
    {
        let end = start + OUTCOME.len() + len + 1;
        let start = text[..start].rfind(SUGGESTION).unwrap_or(start);
        text.replace_range(start..end, "");
    }
    text
}

impl Tasks {
    /// The hub has stored a result.
    pub(crate) async fn acknowledged(&self, message_id: String) {
        // What is not here has arrived before.
        let Some(entry) = self.outbox.remove(&message_id) else { return };
        if let Some(record) = &entry.record {
            // First what takes room: the disk may be full, and the journal of tasks
            // needs some to record this.
            truncate(self.records.join(record)).await;
        }
        let recorded = match entry.text {
            Text::Journal => self.store.delivered(&entry.task_id),
            // It could not be journalled when it was made.
            _ if entry.record.is_some() => self
                .store
                .finish(&entry.task_id, &message_id, "{}")
                .and_then(|()| self.store.delivered(&entry.task_id)),
            _ => return,
        };
        match (recorded, entry.record) {
            (Ok(()), Some(record)) => self.remove_record(record).await,
            (Ok(()), None) => {}
            // The file stays: it shows after a restart that the command ran.
            (Err(error), _) => tracing::warn!("failed to record a delivered result: {error}"),
        }
    }

    /// A hub that acknowledges nothing has sent something after these results were
    /// written, or they were written twice: they count as delivered (§14).
    pub(crate) async fn presumed_delivered(&self, message_ids: Vec<String>) {
        for message_id in message_ids {
            self.acknowledged(message_id).await;
        }
    }

    /// Whether a written result needs no proof of arrival any more.
    pub(crate) fn was_resent(&self, message_id: &str) -> bool {
        self.outbox.sends(message_id) >= 2
    }

    pub(super) async fn remove_record(&self, record: String) {
        let path = self.records.join(record);
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
    }

    /// Keeps a result until it has arrived.
    pub(super) async fn keep(
        &self,
        request: &Request,
        (id, text): (String, String),
        record: Option<String>,
    ) -> (String, String) {
        if let Err(error) = self.store.finish(&request.task_id, &id, &text) {
            // A full disk must not cost the result as long as we live.
            tracing::error!(task = %request.task_id, "failed to journal a result, it is kept in memory: {error}");
            self.outbox.add(&request.task_id, &id, text.clone(), record);
        } else {
            self.outbox.add_journalled(&request.task_id, &id, record);
        }
        (id, text)
    }

    /// Delivers a shell line's result, after the rest of its output: the connection
    /// may have changed since that was sent.
    pub(super) async fn deliver_bash(
        self: &Arc<Self>,
        request: &Request,
        message: (String, String),
        record: String,
        streamed_on: Option<u64>,
        handle: &Handle,
    ) {
        let (id, text) = self.keep(request, message, Some(record.clone())).await;
        let Some(link) = self.current_link() else { return };
        if !link.ack || !link.output || streamed_on == Some(link.number) {
            self.leave(&request.task_id, handle);
            return self.send_new(id, text).await;
        }
        let wanted = || (*handle.resume.borrow()).filter(|r| r.link == link.number);
        let mut from = wanted();
        if from.is_none() {
            // From now on the wish goes by the result, which is kept. One that came just before
            // that is here.
            self.leave(&request.task_id, handle);
            from = wanted();
        }
        match from {
            Some(from) => {
                stream::rest(&self.records.join(record), &request.task_id, &link, from).await;
                self.leave(&request.task_id, handle);
                self.send_new(id, text).await;
            }
            // It comes; if not, the result goes without the rest.
            None => {
                let tasks = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(RESUME_WAIT).await;
                    tasks.send_new(id, text).await;
                });
            }
        }
    }

    pub(super) async fn deliver_unjournalled(&self, request: &Request, (id, text): (String, String)) {
        self.outbox.add(&request.task_id, &id, text.clone(), None);
        self.send_new(id, text).await;
    }

    pub(super) async fn send_new(&self, id: String, text: String) {
        if let Some(link) = self.current_link()
            && self.outbox.claim(&id, link.number)
        {
            let _ = link.messages.send((for_link(text, &link), Some(id))).await;
        }
    }

    pub(super) async fn send_result(&self, link: &Link, entry: Entry) {
        if !self.outbox.claim(&entry.message_id, link.number) {
            return;
        }
        let text = match entry.text {
            Text::Memory(text) => Some(text),
            Text::Journal => self.store.result(&entry.task_id).ok().flatten(),
            Text::File(path) => tokio::fs::read_to_string(path).await.ok(),
        };
        match text {
            // If the connection is gone, the next one sends it.
            Some(text) => drop(link.messages.send((for_link(text, link), Some(entry.message_id))).await),
            None => tracing::error!(task = %entry.task_id, "a result can't be read back from disk"),
        }
    }

    /// Whether every result has arrived.
    pub(crate) fn all_delivered(&self) -> bool {
        self.outbox.is_empty()
    }
}
