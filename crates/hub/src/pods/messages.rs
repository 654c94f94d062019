//! Messages that agents keep (docs/protocols/task.md §7 and §8).

use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{signed, unsigned};
use crate::auth::hash;
use crate::clock::{now_ms, random};
use crate::engine::Hub;
use crate::store::StoreError;

/// How long an agent's token is good.
const TOKEN_MS: i64 = 24 * 3600 * 1000;
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

pub(super) fn store_token(c: &Connection, hashed: &str, session: &str, now: i64) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM agent_tokens WHERE expires_at_ms < ?1")?.execute([now])?;
    c.prepare_cached("INSERT INTO agent_tokens (hash, session_id, expires_at_ms) VALUES (?1, ?2, ?3)")?
        .execute(params![hashed, session, now + TOKEN_MS])?;
    Ok(())
}

/// The session that a token speaks for.
pub(crate) async fn caller_session(hub: &Hub, token: &str) -> Result<Option<String>, StoreError> {
    let hashed = hash(token);
    hub.store
        .read(move |c| {
            c.prepare_cached("SELECT session_id FROM agent_tokens WHERE hash = ?1 AND expires_at_ms > ?2")?
                .query_row(params![hashed, signed(now_ms())], |row| row.get(0))
                .optional()
        })
        .await
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
        let stored = id.clone();
        self.store
            .write(move |c| {
                c.prepare_cached(
                    "INSERT INTO agent_messages (id, session_id, role, status, thinking_text, error_message, created_at_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    stored,
                    session,
                    new.role,
                    new.status.as_deref().unwrap_or("pending"),
                    new.thinking_text,
                    new.error_message,
                    signed(now_ms())
                ])
            })
            .await?;
        Ok(id)
    }

    pub(crate) async fn patch_message(
        &self,
        session: String,
        id: String,
        patch: Patch,
    ) -> Result<(), MessageError> {
        let changed = self
            .store
            .write(move |c| {
                c.prepare_cached(
                    "UPDATE agent_messages SET status = ifnull(?3, status), thinking_text = ifnull(?4, thinking_text),
                         error_message = ifnull(?5, error_message),
                         completed_at_ms = CASE WHEN ?3 = 'completed' THEN ?6 ELSE completed_at_ms END
                     WHERE id = ?1 AND session_id = ?2",
                )?
                .execute(params![
                    id,
                    session,
                    patch.status,
                    patch.thinking_text,
                    patch.error_message,
                    signed(now_ms())
                ])
            })
            .await?;
        if changed == 0 { Err(MessageError::NotFound) } else { Ok(()) }
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
        let id = new.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| fresh("part"));
        let stored = id.clone();
        let found = self
            .store
            .write(move |c| {
                let known: bool = c
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM agent_messages WHERE id = ?1 AND session_id = ?2)")?
                    .query_row(params![message, session], |row| row.get(0))?;
                if !known {
                    return Ok(false);
                }
                c.prepare_cached(
                    "INSERT INTO agent_parts (id, message_id, kind, text, tool_name, tool_state, mime, url, filename,
                         sort_order, time_start, time_end)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                )?
                .execute(params![
                    stored,
                    message,
                    new.kind,
                    new.text,
                    new.tool_name,
                    new.tool_state,
                    new.mime,
                    new.url,
                    new.filename,
                    new.sort_order.unwrap_or(0),
                    new.time_start,
                    new.time_end
                ])?;
                Ok(true)
            })
            .await?;
        if found { Ok(id) } else { Err(MessageError::NotFound) }
    }

    /// All that agents kept of a session, oldest first.
    pub(crate) async fn session_messages(&self, session: String) -> Result<Vec<Value>, StoreError> {
        self.store
            .read(move |c| {
                let mut statement = c.prepare_cached(
                    "SELECT id, role, status, thinking_text, error_message, created_at_ms, completed_at_ms
                     FROM agent_messages WHERE session_id = ?1 ORDER BY created_at_ms, rowid",
                )?;
                let messages = statement.query_map([session], |row| {
                    Ok(json!({
                        "id": row.get::<_, String>(0)?,
                        "role": row.get::<_, String>(1)?,
                        "status": row.get::<_, String>(2)?,
                        "thinking_text": row.get::<_, Option<String>>(3)?,
                        "error_message": row.get::<_, Option<String>>(4)?,
                        "created_at_ms": unsigned(row.get(5)?),
                        "completed_at_ms": row.get::<_, Option<i64>>(6)?.map(unsigned),
                    }))
                })?;
                let mut messages = messages.collect::<rusqlite::Result<Vec<Value>>>()?;
                let mut parts = c.prepare_cached(
                    "SELECT id, kind, text, tool_name, tool_state, mime, url, filename, sort_order
                     FROM agent_parts WHERE message_id = ?1 ORDER BY sort_order, rowid",
                )?;
                for message in &mut messages {
                    let id = message["id"].as_str().unwrap_or_default().to_owned();
                    let rows = parts.query_map([id], |row| {
                        let text = |i: usize| row.get::<_, Option<String>>(i);
                        Ok(json!({
                            "id": text(0)?, "type": text(1)?, "text": text(2)?, "tool_name": text(3)?,
                            "tool_state": text(4)?, "mime": text(5)?, "url": text(6)?, "filename": text(7)?,
                            "sort_order": row.get::<_, i64>(8)?,
                        }))
                    })?;
                    message["parts"] = Value::Array(rows.collect::<rusqlite::Result<_>>()?);
                }
                Ok(messages)
            })
            .await
    }
}
