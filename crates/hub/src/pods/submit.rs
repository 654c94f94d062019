//! Taking tasks for pods in, showing and cancelling them.

use std::collections::BTreeMap;
use std::sync::Arc;

use legwork_api::{Fields, NewPodTask, PodTask, PodTaskId};
use rusqlite::{Connection, Row, params};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{CONFIG, End, LiveTask, events_path, payload_id, signed, unsigned};
use crate::clock::{now_ms, steady_ms};
use crate::engine::{Hub, SubmitError};
use crate::events::Log;
use crate::model::State;
use crate::store::{LARGE, StoreError, put_payload};

const DEFAULT_EXPIRES_S: u64 = 3600;
const MAX_EXPIRES_S: u64 = 7 * 24 * 3600;
const MAX_KEY: usize = 200;

const COLUMNS: &str =
    "id, kind, state, runner, session_id, error, code, usage, attempts, created_by, created_at_ms,
    expires_at_ms, started_at_ms, finished_at_ms";

fn row(row: &Row<'_>) -> rusqlite::Result<PodTask> {
    let state: String = row.get(2)?;
    let raw = |text: Option<String>| text.and_then(|text| RawValue::from_string(text).ok()).map(Fields);
    Ok(PodTask {
        id: PodTaskId(row.get(0)?),
        kind: row.get::<_, String>(1)?.as_str().into(),
        state: State::parse(&state).unwrap_or(State::Lost).into(),
        runner: row.get(3)?,
        session_id: row.get(4)?,
        error: row.get(5)?,
        code: row.get(6)?,
        usage: raw(row.get(7)?),
        attempts: row.get(8)?,
        created_by: row.get(9)?,
        created_at_ms: unsigned(row.get(10)?),
        expires_at_ms: unsigned(row.get(11)?),
        started_at_ms: row.get::<_, Option<i64>>(12)?.map(unsigned),
        finished_at_ms: row.get::<_, Option<i64>>(13)?.map(unsigned),
        config: raw(row.get(14)?),
    })
}

/// A task.
pub(crate) fn view(c: &Connection, id: u32) -> rusqlite::Result<Option<PodTask>> {
    use rusqlite::OptionalExtension;
    c.prepare_cached(&format!("SELECT {COLUMNS}, {CONFIG} FROM pod_tasks WHERE id = ?1"))?
        .query_row([id], row)
        .optional()
}

/// Tasks, newest first, without their configs.
pub(crate) fn page(c: &Connection, before: Option<u32>, limit: u64) -> rusqlite::Result<Vec<PodTask>> {
    let sql = format!(
        "SELECT {COLUMNS}, NULL FROM pod_tasks WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2"
    );
    let mut statement = c.prepare_cached(&sql)?;
    let rows = statement.query_map(params![before, signed(limit)], row)?;
    rows.collect()
}

fn invalid(field: &'static str, reason: impl Into<String>) -> SubmitError {
    SubmitError::Invalid { field, reason: reason.into() }
}

/// The config with its type in it, and the type.
fn checked(config: &RawValue) -> Result<(String, String), SubmitError> {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(default, rename = "type")]
        kind: Option<String>,
    }
    let text = config.get();
    if !text.starts_with('{') {
        return Err(invalid("config", "must be an object"));
    }
    let typed: Typed = serde_json::from_str(text).map_err(|e| invalid("config", e.to_string()))?;
    match typed.kind.as_deref() {
        Some(kind @ ("agent" | "workflow")) => Ok((text.to_owned(), kind.to_owned())),
        Some(other) => Err(invalid("config", format!("type must be agent or workflow, not '{other}'"))),
        // The protocol's default, which its hubs must write out.
        None => {
            let rest = text[1..].trim_start();
            let comma = if rest.starts_with('}') { "" } else { "," };
            Ok((format!("{{\"type\":\"agent\"{comma}{rest}"), "agent".into()))
        }
    }
}

/// What a task of either kind may ask for that the original takes no notice of.
const OURS: &[&str] = &["source", "result"];
/// The same of an agent: without a bound, a server or a schema it would be another task.
const OURS_OF_AGENTS: &[&str] = &[
    "budget",
    "compaction",
    "context_window",
    "guided",
    "live_usage",
    "mcp_servers",
    "output_schema",
    "shell_session",
    "sub_agent",
    "thinking",
];
/// The tools that the original has.
const TOOLS: &[&str] = &["read_file", "write_file", "list_files", "grep", "shell"];

/// Whether a task asks for what the original does not do: it would leave that out, and say that
/// all went well.
pub(super) fn needs_ours(kind: &str, config: &str) -> bool {
    let Ok(config) = serde_json::from_str::<BTreeMap<String, &RawValue>>(config) else { return false };
    let has = |key: &&str| config.get(*key).is_some_and(|value| value.get() != "null");
    if OURS.iter().any(&has) {
        return true;
    }
    if kind == "workflow" {
        return !has(&"steps") && (has(&"jobs") || has(&"workflow"));
    }
    let tools = config.get("tools").and_then(|tools| serde_json::from_str::<Vec<String>>(tools.get()).ok());
    let is_ours = |tool: &String| !TOOLS.contains(&tool.as_str());
    OURS_OF_AGENTS.iter().any(has) || tools.is_some_and(|tools| tools.iter().any(is_ours))
}

impl Hub {
    /// Whether a runner is known, and an original.
    fn is_original(&self, name: &str) -> bool {
        self.pods.lock().runners.get(name).is_some_and(|runner| runner.capabilities.is_empty())
    }

    /// Takes a task; returns its id once it is durable.
    pub(crate) async fn submit_pod_task(
        self: &Arc<Self>,
        new: NewPodTask,
        created_by: String,
    ) -> Result<u32, SubmitError> {
        let (config, kind) = checked(&new.config.0)?;
        let needs_ours = needs_ours(&kind, &config);
        if needs_ours && new.runner.as_ref().is_some_and(|name| self.is_original(name)) {
            let said = "the runner named is an original, which would leave out part of this task: it runs only workflows with steps, \
                        and agents with the protocol's five tools and fields (docs/task.md)";
            return Err(invalid("runner", said));
        }
        let key = new.idempotency_key.clone();
        if key.as_ref().is_some_and(|k| k.is_empty() || k.len() > MAX_KEY) {
            return Err(invalid("idempotency_key", format!("must be 1 to {MAX_KEY} bytes long")));
        }
        let expires_s = new.expires_s.unwrap_or(DEFAULT_EXPIRES_S);
        if !(1..=MAX_EXPIRES_S).contains(&expires_s) {
            return Err(invalid("expires_s", format!("must be from 1 to {MAX_EXPIRES_S}")));
        }
        if let Some(session) = &new.session_id
            && (session.is_empty() || session.len() > MAX_KEY)
        {
            return Err(invalid("session_id", format!("must be 1 to {MAX_KEY} bytes long")));
        }
        if let Some(wanted) = &new.runner
            && !self.pods.lock().runners.contains_key(wanted)
        {
            return Err(invalid("runner", format!("there is no task runner '{wanted}'")));
        }
        let now = now_ms();
        let expires_at_ms = now + expires_s * 1000;
        let digest = Sha256::digest(format!("{config}\n{:?}\n{:?}", new.runner, new.session_id));
        let body_hash: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let stored = (kind.clone(), config, new.runner.clone(), new.session_id.clone());
        let inserted = self
            .store
            .write(move |c| {
                use rusqlite::OptionalExtension;
                if let Some(key) = &key {
                    let known = c
                        .prepare_cached("SELECT id, body_hash FROM pod_tasks WHERE idempotency_key = ?1")?
                        .query_row([key], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?)))
                        .optional()?;
                    if let Some((id, hash)) = known {
                        return Ok((id, Some(hash == body_hash)));
                    }
                }
                let (kind, config, wanted, session) = stored;
                let large = config.len() > LARGE;
                let id = c
                    .prepare_cached(
                    "INSERT INTO pod_tasks (kind, config, wanted, session_id, state, created_by, created_at_ms,
                         expires_at_ms, idempotency_key, body_hash)
                     VALUES (?1, ?2, ?3, ?4, 'queued', ?5, ?6, ?7, ?8, ?9) RETURNING id",
                )?
                .query_row(
                    params![
                        kind,
                        if large { "" } else { config.as_str() },
                        wanted,
                        session,
                        created_by,
                        signed(now),
                        signed(expires_at_ms),
                        key,
                        body_hash
                    ],
                    |row| row.get::<_, u32>(0),
                )?;
                if large {
                    put_payload(c, &payload_id(id), &config)?;
                }
                Ok((id, None))
            })
            .await;
        let id = match inserted.map_err(SubmitError::Store)? {
            (id, None) => id,
            (id, Some(true)) => return Ok(id),
            (_, Some(false)) => return Err(SubmitError::KeyReused),
        };
        let mut task = LiveTask {
            kind,
            needs_ours,
            wanted: new.runner,
            session_id: new.session_id,
            state: State::Queued,
            runner: None,
            key: None,
            old_keys: Vec::new(),
            attempts: 0,
            heard_ms: 0,
            expires_at_ms: steady_ms() + expires_s * 1000,
            has_begun: false,
            has_effects: false,
            is_noted: false,
            has_failed_step: false,
            cancel: false,
            closing: false,
            log: Log::new(events_path(&self.data, id)),
            progress: watch::Sender::default(),
            last: Vec::new(),
        };
        task.tell_state(State::Queued, "queued");
        self.pods.lock().tasks.insert(id, task);
        self.pods.wake();
        Ok(id)
    }

    /// Wishes that a task end; false if it is over.
    pub(crate) async fn cancel_pod_task(self: &Arc<Self>, id: u32) -> Result<bool, StoreError> {
        let queued = {
            let mut live = self.pods.lock();
            let Some(task) = live.tasks.get_mut(&id).filter(|task| !task.closing) else { return Ok(false) };
            task.cancel = true;
            task.state == State::Queued
        };
        if queued {
            self.finish_pod_task(id, End::new(State::Cancelled, None)).await?;
            return Ok(true);
        }
        self.store
            .write(move |c| c.prepare_cached("UPDATE pod_tasks SET cancel = 1 WHERE id = ?1")?.execute([id]))
            .await?;
        // Its runner may be waiting for the word.
        self.pods.wake();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_runners_get_jobs() {
        for (kind, config, want) in [
            ("workflow", r#"{"jobs":{}}"#, true),
            ("workflow", r#"{"workflow":"jobs: {}"}"#, true),
            ("workflow", r#"{"steps":[],"jobs":{}}"#, false),
            ("workflow", "{}", false),
            ("agent", r#"{"jobs":{}}"#, false),
            ("workflow", r#"{"steps":[],"source":{"archive":""}}"#, true),
            ("agent", r#"{"tools":["shell"],"max_turns":3,"budget":null}"#, false),
            ("agent", r#"{"tools":["shell","edit"]}"#, true),
            ("agent", r#"{"mcp_servers":[]}"#, true),
            ("agent", r#"{"budget":{"tokens":1}}"#, true),
            ("agent", r#"{"tools":"shell"}"#, false),
        ] {
            assert_eq!(needs_ours(kind, config), want, "{config}");
        }
    }

    #[test]
    fn a_config_gets_its_type() {
        let read = |text: &str| {
            let raw = RawValue::from_string(text.into()).expect("json");
            checked(&raw).map_err(|_| ())
        };
        assert_eq!(read("{}"), Ok(("{\"type\":\"agent\"}".into(), "agent".into())));
        assert_eq!(read("{ \"a\":1}"), Ok(("{\"type\":\"agent\",\"a\":1}".into(), "agent".into())));
        let workflow = r#"{"z":1,"type":"workflow"}"#;
        assert_eq!(read(workflow), Ok((workflow.into(), "workflow".into())));
        assert!(read("[]").is_err() && read(r#"{"type":"x"}"#).is_err() && read(r#"{"type":1}"#).is_err());
    }
}
