//! The tables `agent_tokens`, `agent_messages` and `agent_parts`.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{Sqlite, number, signed, time};
use crate::{Answer, Message, MessageChange, Part, Sessions};

pub(super) fn keep_token(
    c: &Connection,
    hash: &str,
    session: &str,
    now_ms: u64,
    expires_at_ms: u64,
) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM agent_tokens WHERE expires_at_ms < ?1")?.execute([signed(now_ms)])?;
    let sql = "INSERT INTO agent_tokens (hash, session_id, expires_at_ms) VALUES (:hash, :session, :expires)";
    c.prepare_cached(sql)?
        .execute(named_params! { ":hash": hash, ":session": session, ":expires": signed(expires_at_ms) })?;
    Ok(())
}

fn parts(c: &Connection, message: &str) -> rusqlite::Result<Vec<Part>> {
    let mut statement = c.prepare_cached(
        "SELECT id, kind, text, tool_name, tool_state, mime, url, filename, sort_order, time_start, time_end
         FROM agent_parts WHERE message_id = ?1 ORDER BY sort_order, rowid",
    )?;
    let rows = statement.query_map([message], |row| {
        Ok(Part {
            id: row.get("id")?,
            kind: row.get("kind")?,
            text: row.get("text")?,
            tool_name: row.get("tool_name")?,
            tool_state: row.get("tool_state")?,
            mime: row.get("mime")?,
            url: row.get("url")?,
            filename: row.get("filename")?,
            sort_order: row.get("sort_order")?,
            time_start: row.get("time_start")?,
            time_end: row.get("time_end")?,
        })
    })?;
    rows.collect()
}

fn messages(c: &Connection, session: &str) -> rusqlite::Result<Vec<Message>> {
    let mut statement = c.prepare_cached(
        "SELECT id, role, status, thinking_text, error_message, created_at_ms, completed_at_ms
         FROM agent_messages WHERE session_id = ?1 ORDER BY created_at_ms, rowid",
    )?;
    let rows = statement.query_map([session], |row| {
        Ok(Message {
            id: row.get("id")?,
            role: row.get("role")?,
            status: row.get("status")?,
            thinking_text: row.get("thinking_text")?,
            error_message: row.get("error_message")?,
            created_at_ms: number(row, "created_at_ms")?,
            completed_at_ms: time(row, "completed_at_ms")?,
            parts: Vec::new(),
        })
    })?;
    let mut messages = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for message in &mut messages {
        message.parts = parts(c, &message.id)?;
    }
    Ok(messages)
}

impl Sessions for Sqlite {
    fn session_of(&self, hash: String, now_ms: u64) -> Answer<'_, Option<String>> {
        self.read(move |c| {
            c.prepare_cached(
                "SELECT session_id FROM agent_tokens WHERE hash = :hash AND expires_at_ms > :now",
            )?
            .query_row(named_params! { ":hash": hash, ":now": signed(now_ms) }, |row| row.get(0))
            .optional()
        })
    }

    fn add_message(&self, session: String, message: Message) -> Answer<'_, ()> {
        self.write(move |c| {
            let sql =
                "INSERT INTO agent_messages (id, session_id, role, status, thinking_text, error_message,
                     created_at_ms)
                 VALUES (:id, :session, :role, :status, :thinking_text, :error_message, :created_at_ms)";
            c.prepare_cached(sql)?.execute(named_params! {
                ":id": message.id,
                ":session": session,
                ":role": message.role,
                ":status": message.status,
                ":thinking_text": message.thinking_text,
                ":error_message": message.error_message,
                ":created_at_ms": signed(message.created_at_ms),
            })?;
            Ok(())
        })
    }

    fn change_message(&self, session: String, id: String, change: MessageChange) -> Answer<'_, bool> {
        self.write(move |c| {
            let sql = "UPDATE agent_messages SET status = coalesce(:status, status),
                     thinking_text = coalesce(:thinking_text, thinking_text),
                     error_message = coalesce(:error_message, error_message),
                     completed_at_ms = coalesce(:completed_at_ms, completed_at_ms)
                 WHERE id = :id AND session_id = :session";
            let changed = c.prepare_cached(sql)?.execute(named_params! {
                ":id": id,
                ":session": session,
                ":status": change.status,
                ":thinking_text": change.thinking_text,
                ":error_message": change.error_message,
                ":completed_at_ms": change.completed_at_ms.map(signed),
            })?;
            Ok(changed == 1)
        })
    }

    fn add_part(&self, session: String, message: String, part: Part) -> Answer<'_, bool> {
        self.write(move |c| {
            let known = c
                .prepare_cached("SELECT 1 FROM agent_messages WHERE id = ?1 AND session_id = ?2")?
                .exists([&message, &session])?;
            if !known {
                return Ok(false);
            }
            let sql = "INSERT INTO agent_parts (id, message_id, kind, text, tool_name, tool_state, mime, url,
                     filename, sort_order, time_start, time_end)
                 VALUES (:id, :message, :kind, :text, :tool_name, :tool_state, :mime, :url, :filename,
                     :sort_order, :time_start, :time_end)";
            c.prepare_cached(sql)?.execute(named_params! {
                ":id": part.id,
                ":message": message,
                ":kind": part.kind,
                ":text": part.text,
                ":tool_name": part.tool_name,
                ":tool_state": part.tool_state,
                ":mime": part.mime,
                ":url": part.url,
                ":filename": part.filename,
                ":sort_order": part.sort_order,
                ":time_start": part.time_start,
                ":time_end": part.time_end,
            })?;
            Ok(true)
        })
    }

    fn messages(&self, session: String) -> Answer<'_, Vec<Message>> {
        self.read(move |c| messages(c, &session))
    }
}
