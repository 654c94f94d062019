//! Taking tasks for pods in, showing and cancelling them.

use std::collections::BTreeMap;
use std::sync::Arc;

use legwork_api::{Fields, NewPodTask, PodTask, PodTaskId, Role};
use legwork_store::{NewRun, NewTask, Scope, StoreError, Submitted, Task, Token, done};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::named::Named;
use super::{LiveTask, Selection, Submitter};
use crate::clock::{now_ms, sortable_id, steady_ms};
use crate::engine::{Ending, Hub, SubmitError};
use crate::events::Log;
use crate::model::State;
use crate::secrets::{Bounds, NotGiven, against};

const DEFAULT_EXPIRES_S: u64 = 3600;
const MAX_EXPIRES_S: u64 = 7 * 24 * 3600;
const MAX_KEY: usize = 200;
/// How long a task may take that a runner has, in seconds.
const DEADLINE_S: u64 = 86_400;

/// A task of the pool as the API shows it; `None` if it is none.
pub(crate) fn view(mut task: Task, with_config: bool) -> Option<PodTask> {
    let raw = |text: String| RawValue::from_string(text).ok().map(Fields);
    let run = task.runs.pop()?;
    Some(PodTask {
        id: PodTaskId(task.number?),
        kind: task.operation.as_str().into(),
        state: run.state.into(),
        runner: Some(run.runner_name).filter(|name| !name.is_empty()),
        session_id: task.session_id,
        error: run.error,
        code: run.code,
        usage: run.usage.and_then(raw),
        attempts: run.attempts,
        created_by: task.created_by,
        created_at_ms: task.created_at_ms,
        expires_at_ms: task.expires_at_ms,
        started_at_ms: run.started_at_ms,
        finished_at_ms: run.finished_at_ms,
        config: if with_config { raw(task.args) } else { None },
    })
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
const OURS: &[&str] = &["source", "result", "secrets"];
/// The same of an agent: without a bound, a server or a schema it would be another task.
const OURS_OF_AGENTS: &[&str] = &[
    "ask",
    "budget",
    "compaction",
    "context_window",
    "fork_of",
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

/// A run that waits for any runner.
fn queued(id: String) -> NewRun {
    NewRun {
        id,
        ordinal: 0,
        runner_id: String::new(),
        runner_name: String::new(),
        state: State::Queued,
        delivered_boot: String::new(),
    }
}

/// Says why no runner that may have a task's secrets can ever have the task.
fn placeable(bounds: &Bounds, wanted: Option<&str>) -> Result<(), SubmitError> {
    if let Some(wanted) = wanted
        && let Some(secret) = against(&bounds.runners, wanted)
    {
        return Err(invalid("runner", format!("the secret '{secret}' is not for the runner '{wanted}'")));
    }
    if bounds.is_for_some_runner() {
        return Ok(());
    }
    let told = bounds.runners_told().unwrap_or_default();
    Err(invalid("config", format!("there is no runner that all of the task's secrets are for: {told}")))
}

impl Hub {
    /// Whether a runner is known, and an original.
    fn is_original(&self, name: &str) -> bool {
        self.pods.lock().runners.get(name).is_some_and(|runner| runner.capabilities.is_empty())
    }

    /// Takes a task; returns its number once it is durable.
    pub(crate) async fn submit_pod_task(
        self: &Arc<Self>,
        new: NewPodTask,
        by: &Token,
    ) -> Result<u32, SubmitError> {
        let (config, kind) = checked(&new.config.0)?;
        let (needs_ours, named) = (needs_ours(&kind, &config), Named::of(&config));
        let expires_s = self.check_wishes(&new, needs_ours)?;
        let is_admin = by.role == Role::Admin;
        let bounds = self.bounds_of(&kind, (&config, &named), (&new, by)).await?;
        let selection = Selection { runner: new.runner.clone(), by_admin: is_admin, bounds: bounds.clone() };
        let random = |e: std::io::Error| SubmitError::Store(StoreError::new(e.to_string()));
        let (task_id, run_id) = (sortable_id("tsk").map_err(random)?, sortable_id("run").map_err(random)?);
        let now = now_ms();
        let digest = Sha256::digest(format!("{config}\n{:?}\n{:?}", new.runner, new.session_id));
        let body_hash: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let row = NewTask {
            id: task_id.clone(),
            operation: kind.clone(),
            args: config,
            // It may hold what servers are shown.
            brief: "{}".into(),
            selection: serde_json::to_string(&selection).unwrap_or_default(),
            timeout_s: DEADLINE_S,
            created_by: by.name.clone(),
            token_id: by.id.clone(),
            created_at_ms: now,
            expires_at_ms: now + expires_s * 1000,
            idempotency_key: new.idempotency_key,
            body_hash: body_hash.clone(),
            scope: Scope::Pool,
            session_id: new.session_id.clone(),
            reason: None,
        };
        let submitted = done(|then| self.store.submit(row, vec![queued(run_id.clone())], then)).await;
        let id = match submitted.map_err(SubmitError::Store)? {
            Submitted::New(Some(id)) => id,
            Submitted::Known(known) if known.body_hash == body_hash && known.number.is_some() => {
                return Ok(known.number.unwrap_or_default());
            }
            Submitted::Known(_) => return Err(SubmitError::KeyReused),
            Submitted::New(None) => return Err(SubmitError::Store(StoreError::new("a task got no number"))),
        };
        let mut task = LiveTask {
            log: Log::new(self.logs.clone(), &task_id),
            task_id,
            run_id,
            kind,
            needs_ours,
            named,
            by: Submitter { name: by.name.clone(), is_admin },
            bounds,
            wanted: new.runner,
            session_id: new.session_id,
            state: State::Queued,
            runner: None,
            key: None,
            old_keys: Vec::new(),
            attempts: 0,
            heard_ms: 0,
            expires_at_ms: steady_ms() + expires_s * 1000,
            given_ms: 0,
            timeout_s: DEADLINE_S,
            has_begun: false,
            has_effects: false,
            is_noted: false,
            has_failed_step: false,
            cancel: false,
            closing: false,
            progress: watch::Sender::default(),
            last: Vec::new(),
        };
        let told = task.bounds.runners_told().map_or("queued".to_owned(), |told| format!("queued; {told}"));
        task.tell_state(State::Queued, &told);
        self.pods.lock().add(id, task);
        self.pods.wake();
        Ok(id)
    }

    /// What binds a task, by its secrets and by its session.
    async fn bounds_of(
        &self,
        kind: &str,
        (config, named): (&str, &Named),
        (new, by): (&NewPodTask, &Token),
    ) -> Result<Bounds, SubmitError> {
        let bounds = self.secrets_of(config, (by.name.clone(), kind.to_owned())).await;
        let mut bounds = bounds.map_err(|reason| match reason {
            NotGiven::NotFor(_) => invalid("config", reason.to_string()),
            NotGiven::Failed(..) => SubmitError::Store(StoreError::new(reason.to_string())),
        })?;
        placeable(&bounds, new.runner.as_deref())?;
        self.bind(&mut bounds, (new, named), by).await?;
        Ok(bounds)
    }

    /// Binds a task by the session that it goes on with or begins with, and its session by its secrets:
    /// what was said there may hold them, and the task goes on with what was done there.
    async fn bind(
        &self,
        bounds: &mut Bounds,
        (new, named): (&NewPodTask, &Named),
        by: &Token,
    ) -> Result<(), SubmitError> {
        let failed = |e: std::io::Error| {
            SubmitError::Store(StoreError::new(format!("whom a session is for can't be read or kept: {e}")))
        };
        let Some(own) = &new.session_id else { return Ok(()) };
        let before = self.session_bounds(own.clone()).await.map_err(failed)?;
        let forked = match &named.fork_of {
            Some(other) => self.session_bounds(other.clone()).await.map_err(failed)?,
            None => Vec::new(),
        };
        for (session, bound) in [(Some(own), &before), (named.fork_of.as_ref(), &forked)] {
            if by.role != Role::Admin
                && let (Some(session), Some(secret)) = (session, against(bound, &by.name))
            {
                let name = &by.name;
                return Err(SubmitError::Forbidden(format!(
                    "the session '{session}' has tasks with the secret '{secret}', which is not for the token '{name}'"
                )));
            }
        }
        bounds.also(&before);
        bounds.also(&forked);
        if bounds.tokens.iter().any(|bound| !before.contains(bound)) {
            self.bind_session(own.clone(), bounds.tokens.clone()).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Says what is wrong with a task's fields; returns for how long it may wait.
    fn check_wishes(&self, new: &NewPodTask, needs_ours: bool) -> Result<u64, SubmitError> {
        if needs_ours && new.runner.as_ref().is_some_and(|name| self.is_original(name)) {
            let said = "the runner named is an original, which would leave out part of this task: it runs only workflows with steps, \
                        and agents with the protocol's five tools and fields (docs/task.md)";
            return Err(invalid("runner", said));
        }
        for (field, text) in [("idempotency_key", &new.idempotency_key), ("session_id", &new.session_id)] {
            if text.as_ref().is_some_and(|t| t.is_empty() || t.len() > MAX_KEY) {
                return Err(invalid(field, format!("must be 1 to {MAX_KEY} bytes long")));
            }
        }
        let expires_s = new.expires_s.unwrap_or(DEFAULT_EXPIRES_S);
        if !(1..=MAX_EXPIRES_S).contains(&expires_s) {
            return Err(invalid("expires_s", format!("must be from 1 to {MAX_EXPIRES_S}")));
        }
        if let Some(wanted) = &new.runner
            && !self.pods.lock().runners.contains_key(wanted)
        {
            return Err(invalid("runner", format!("there is no task runner '{wanted}'")));
        }
        Ok(expires_s)
    }

    /// Wishes that a task end, if it is not over. Fails if that could not be stored.
    pub(crate) async fn cancel_pod_task(self: &Arc<Self>, id: u32) -> Result<(), StoreError> {
        if self.pods.lock().tasks.get(&id).is_some_and(|task| task.closing) {
            // An end that can't be stored leaves it open, and to be cancelled here.
            self.store.check().await?;
        }
        let (run_id, queued) = {
            let mut live = self.pods.lock();
            let Some(task) = live.tasks.get_mut(&id).filter(|task| !task.closing) else { return Ok(()) };
            task.cancel = true;
            (task.run_id.clone(), task.state == State::Queued)
        };
        if queued {
            let ended = self.finish_pod_task(id, Ending::new(State::Cancelled, None)).await;
            // Who asked knows that it was not done: it waits on as before.
            if ended.is_err()
                && let Some(task) = self.pods.lock().tasks.get_mut(&id)
            {
                task.cancel = false;
            }
            return ended;
        }
        // Its runner may be waiting for the word: it gets it, recorded or not.
        self.pods.wake();
        self.store.cancel(vec![run_id]).await
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
