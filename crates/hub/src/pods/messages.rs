//! Messages that agents keep (docs/protocols/task.md §7 and §8).

use legwork_store::{Message, MessageChange, Part, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::hash;
use crate::clock::{now_ms, random};
use crate::engine::Hub;

/// How long an agent's token is good.
pub(super) const TOKEN_MS: u64 = 24 * 3600 * 1000;
const KINDS: &[&str] = &["text", "reasoning", "tool", "file"];

/// Why a message is not kept.
#[derive(Debug)]
pub(crate) enum MessageError {
    NotFound,
    Invalid,
    Store(StoreError),
}

impl From<StoreError> for MessageError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMessage {
    role: String,
    id: Option<String>,
    status: Option<String>,
    thinking_text: Option<String>,
    error_message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    status: Option<String>,
    thinking_text: Option<String>,
    error_message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPart {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    text: Option<String>,
    tool_name: Option<String>,
    tool_state: Option<String>,
    mime: Option<String>,
    url: Option<String>,
    filename: Option<String>,
    sort_order: Option<i64>,
    time_start: Option<i64>,
    time_end: Option<i64>,
}

/// The session that a token speaks for.
pub(crate) async fn caller_session(hub: &Hub, token: &str) -> Result<Option<String>, StoreError> {
    hub.store.session_of(hash(token), now_ms()).await
}

/// `msg_` or `part_` and 12 of `a-z0-9`.
fn fresh(prefix: &str) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut bits = random().unwrap_or_default();
    let mut id = format!("{prefix}_");
    for _ in 0..12 {
        id.push(char::from(ALPHABET[usize::try_from(bits % 36).unwrap_or(0)]));
        bits /= 36;
    }
    id
}

impl Hub {
    pub(crate) async fn add_message(&self, session: String, new: NewMessage) -> Result<String, MessageError> {
        let id = new.id.filter(|id| !id.is_empty()).unwrap_or_else(|| fresh("msg"));
        let message = Message {
            id: id.clone(),
            role: new.role,
            status: new.status.unwrap_or_else(|| "pending".into()),
            thinking_text: new.thinking_text,
            error_message: new.error_message,
            created_at_ms: now_ms(),
            completed_at_ms: None,
            parts: Vec::new(),
        };
        self.store.add_message(session, message).await?;
        Ok(id)
    }

    pub(crate) async fn patch_message(
        &self,
        session: String,
        id: String,
        patch: Patch,
    ) -> Result<(), MessageError> {
        let is_complete = patch.status.as_deref() == Some("completed");
        let change = MessageChange {
            status: patch.status,
            thinking_text: patch.thinking_text,
            error_message: patch.error_message,
            completed_at_ms: is_complete.then(now_ms),
        };
        match self.store.change_message(session, id, change).await? {
            true => Ok(()),
            false => Err(MessageError::NotFound),
        }
    }

    pub(crate) async fn add_part(
        &self,
        session: String,
        message: String,
        new: NewPart,
    ) -> Result<String, MessageError> {
        if !KINDS.contains(&new.kind.as_str()) {
            return Err(MessageError::Invalid);
        }
        let id = new.id.filter(|id| !id.is_empty()).unwrap_or_else(|| fresh("part"));
        let part = Part {
            id: id.clone(),
            kind: new.kind,
            text: new.text,
            tool_name: new.tool_name,
            tool_state: new.tool_state,
            mime: new.mime,
            url: new.url,
            filename: new.filename,
            sort_order: new.sort_order.unwrap_or(0),
            time_start: new.time_start,
            time_end: new.time_end,
        };
        match self.store.add_part(session, message, part).await? {
            true => Ok(id),
            false => Err(MessageError::NotFound),
        }
    }

    /// All that agents kept of a session, oldest first.
    pub(crate) async fn session_messages(&self, session: String) -> Result<Vec<Value>, StoreError> {
        Ok(self.store.messages(session).await?.iter().map(shown).collect())
    }
}

fn shown(message: &Message) -> Value {
    json!({
        "id": message.id,
        "role": message.role,
        "status": message.status,
        "thinking_text": message.thinking_text,
        "error_message": message.error_message,
        "created_at_ms": message.created_at_ms,
        "completed_at_ms": message.completed_at_ms,
        "parts": message.parts.iter().map(shown_part).collect::<Vec<_>>(),
    })
}

fn shown_part(part: &Part) -> Value {
    json!({
        "id": part.id, "type": part.kind, "text": part.text, "tool_name": part.tool_name,
        "tool_state": part.tool_state, "mime": part.mime, "url": part.url, "filename": part.filename,
        "sort_order": part.sort_order,
    })
}
