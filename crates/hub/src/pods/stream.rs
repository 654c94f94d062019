//! Events of runners.

use std::sync::Arc;

use legwork_store::{End, StoreError, done};
use serde_json::Value;

use crate::auth::hash;
use crate::clock::{now_ms, steady_ms};
use crate::engine::{Ending, Hub};
use crate::events::Kind;
use crate::model::State;

/// Tools that change nothing.
const READ_ONLY: &[&str] = &["read_file", "list_files", "grep"];
/// Events whose repetition is told by their words alone.
const KNOWN_BY_THEIR_WORDS: &[&str] = &[
    "token",
    "llm_token",
    "token_reset",
    "tool_start",
    "tool_end",
    "step_start",
    "step_end",
    "done",
    "error",
];

/// Why an event is not taken.
#[derive(Debug)]
pub(crate) enum StreamError {
    Unauthorized,
    Invalid(&'static str),
    Store(StoreError),
}

impl From<StoreError> for StreamError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub(super) fn is_failed_step(event: &Value) -> bool {
    event["type"] == "step_end" && event["step_state"] != "success"
}

/// Whether a task that tells this may have changed something.
fn has_effects(event: &Value) -> bool {
    match event["type"].as_str() {
        Some("step_start") => true,
        Some("tool_start") => {
            event.get("args").is_some()
                && !event["tool_name"].as_str().is_some_and(|name| READ_ONLY.contains(&name))
        }
        // Without arguments only the second event of a call tells that it is made.
        Some("tool_end") => true,
        _ => false,
    }
}

impl Hub {
    /// Whether the sender of an event is listened to: asked before the event is read.
    pub(crate) async fn may_send(
        self: &Arc<Self>,
        id: &str,
        key: Option<&str>,
        is_internal: bool,
    ) -> Result<bool, StreamError> {
        let id = self.task_of(id).await?;
        Ok(self.may_speak(id, key, is_internal)?.is_some())
    }

    /// Takes an event of a task; returns whether the task is to be ended.
    pub(crate) async fn take_event(
        self: &Arc<Self>,
        id: &str,
        key: Option<&str>,
        is_internal: bool,
        body: &[u8],
    ) -> Result<bool, StreamError> {
        let id = self.task_of(id).await?;
        let Some(now) = self.may_speak(id, key, is_internal)? else { return Ok(false) };
        if body.is_empty() {
            return Err(StreamError::Invalid("Missing request body"));
        }
        let event: Value = serde_json::from_slice(body).map_err(|_| StreamError::Invalid("Invalid JSON"))?;
        let Some(kind) = event["type"].as_str() else {
            return Err(StreamError::Invalid("Missing event type"));
        };
        if !now {
            return Ok(false);
        }
        let terminal = match kind {
            "done" | "error" => Some(self.end_of(id, kind, &event)),
            _ => None,
        };
        let cancel = match self.append(id, kind, &event, body)? {
            None => return Ok(false),
            Some((cancel, false)) => cancel,
            Some((cancel, true)) => {
                self.note(id).await?;
                cancel
            }
        };
        if let Some(end) = terminal {
            self.finish_pod_task(id, end).await?;
        }
        Ok(cancel)
    }

    /// The task of an address, if it is one of ours.
    async fn task_of(&self, id: &str) -> Result<u32, StreamError> {
        let id: u32 = id.parse().map_err(|_| StreamError::Invalid("Invalid task_id"))?;
        if self.pods.lock().tasks.contains_key(&id) {
            return Ok(id);
        }
        let known = self.store.numbered(id).await?.is_some();
        if known { Ok(id) } else { Err(StreamError::Invalid("Invalid task_id")) }
    }

    /// Whether the sender may speak for a task: `None` if it once might, or the task is over,
    /// and is not listened to any more.
    fn may_speak(&self, id: u32, key: Option<&str>, is_internal: bool) -> Result<Option<bool>, StreamError> {
        let live = self.pods.lock();
        let hashed = key.map(hash);
        let Some(task) = live.tasks.get(&id) else {
            // Whoever has any key may hear that it is over: nothing is told or done.
            return if is_internal || hashed.is_some() { Ok(None) } else { Err(StreamError::Unauthorized) };
        };
        if is_internal || (hashed.is_some() && hashed == task.key) {
            return Ok(Some(!task.closing));
        }
        match hashed {
            Some(hashed) if task.old_keys.contains(&hashed) => Ok(None),
            _ => Err(StreamError::Unauthorized),
        }
    }

    /// What a terminal event comes to: `done` after a failed step is none.
    fn end_of(&self, id: u32, kind: &str, event: &Value) -> Ending {
        let live = self.pods.lock();
        let task = live.tasks.get(&id);
        let usage = event.get("usage").filter(|usage| usage.is_object()).map(Value::to_string);
        let code = event["code"].as_str().map(str::to_owned);
        let message = event["message"].as_str().map(str::to_owned);
        let cancelled = task.is_some_and(|task| task.cancel) && code.as_deref() == Some("aborted");
        let (state, error) = match kind {
            _ if cancelled => (State::Cancelled, message),
            "error" => (State::Failed, message.or_else(|| Some("the task failed".into()))),
            _ if task.is_some_and(|task| task.has_failed_step) => {
                (State::Failed, Some("a step failed".into()))
            }
            _ => (State::Succeeded, None),
        };
        Ending(End { code, usage, ..Ending::new(state, error.as_deref()).0 })
    }

    /// Adds an event; says whether the task is to be ended, and whether there is something
    /// to be noted before this is answered.
    fn append(
        &self,
        id: u32,
        kind: &str,
        event: &Value,
        body: &[u8],
    ) -> Result<Option<(bool, bool)>, StreamError> {
        let mut live = self.pods.lock();
        let live = &mut *live;
        let Some(task) = live.tasks.get_mut(&id).filter(|task| !task.closing) else { return Ok(None) };
        if let Some(runner) = task.runner.as_ref().and_then(|name| live.runners.get_mut(name)) {
            runner.seen_ms = steady_ms();
        }
        let cancel = task.cancel;
        // Sent again, as the answer was lost.
        let is_twin = task.last == body && KNOWN_BY_THEIR_WORDS.contains(&kind);
        if !is_twin {
            task.tell(Kind::State, body).map_err(|e| {
                StreamError::Store(StoreError::new(format!("the task's events can't be written: {e}")))
            })?;
            task.last = body.to_vec();
        }
        task.heard_ms = steady_ms();
        task.has_begun = true;
        task.has_failed_step |= is_failed_step(event);
        task.has_effects |= has_effects(event);
        let is_new = task.state != State::Running || task.has_effects && !task.is_noted;
        Ok(Some((cancel, is_new)))
    }

    /// Notes that a task runs, and whether it may have changed something. What fails here is
    /// tried again with the event, which is not answered.
    async fn note(&self, id: u32) -> Result<(), StoreError> {
        let found = self.pods.lock().tasks.get(&id).map(|task| (task.run_id.clone(), task.has_effects));
        let Some((run_id, effects)) = found else { return Ok(()) };
        done(|then| self.store.accept(run_id, effects, now_ms(), then)).await?;
        if let Some(task) = self.pods.lock().tasks.get_mut(&id).filter(|task| task.state != State::Queued) {
            task.state = State::Running;
            task.is_noted |= effects;
        }
        Ok(())
    }

    /// A runner's other way to end a task.
    pub(crate) async fn complete(
        self: &Arc<Self>,
        id: &str,
        key: Option<&str>,
        is_internal: bool,
        success: bool,
    ) -> Result<(), StreamError> {
        let id = self.task_of(id).await?;
        if self.may_speak(id, key, is_internal)? == Some(true) {
            let kind = if success { "done" } else { "error" };
            let end = self.end_of(id, kind, &Value::Null);
            self.finish_pod_task(id, end).await?;
        }
        Ok(())
    }
}
