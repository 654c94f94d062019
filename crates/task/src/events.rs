//! What a task tells: events with its id, its step, and its secrets masked.

use std::sync::{Arc, PoisonError, RwLock};

use legwork_proto::task::{Body, Event, Level, Step, TaskId};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::deliver::Spool;

/// What stands for a secret.
const MASK: &str = "***";
/// Most bytes of one log line (§12).
pub(crate) const MAX_LINE: usize = 16 * 1024;

/// Secrets that must not be told.
#[derive(Debug, Default)]
pub struct Masks(RwLock<Vec<String>>);

impl Masks {
    /// Masks of what is known at the start: keys and tokens. Real ones are long; a short one
    /// is somebody's trial, and stands in many words.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Arc<Self> {
        const LEAST: usize = 6;
        let masks = Self::default();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= LEAST) {
            masks.add(&secret);
        }
        Arc::new(masks)
    }

    /// From now on this is a secret, line by line.
    pub(crate) fn add(&self, secret: &str) {
        let mut masks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for line in secret.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if !masks.iter().any(|m| m == line) {
                masks.push(line.to_owned());
            }
        }
        // A secret that holds another one goes first.
        masks.sort_by_key(|mask| std::cmp::Reverse(mask.len()));
    }

    /// The text without secrets.
    pub(crate) fn apply(&self, text: String) -> String {
        let masks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = text;
        for mask in masks.iter() {
            if text.contains(mask.as_str()) {
                text = text.replace(mask.as_str(), MASK);
            }
        }
        text
    }

    fn apply_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.apply(text)),
            Value::Array(list) => Value::Array(list.into_iter().map(|v| self.apply_value(v)).collect()),
            Value::Object(map) => {
                Value::Object(map.into_iter().map(|(k, v)| (k, self.apply_value(v))).collect())
            }
            other => other,
        }
    }

    fn mask(&self, body: Body) -> Body {
        match body {
            Body::Token { message_id, text, token_index } => {
                Body::Token { message_id, text: self.apply(text), token_index }
            }
            Body::ToolStart { message_id, tool_id, tool_name, args } => {
                let args = args.map(|map| map.into_iter().map(|(k, v)| (k, self.apply_value(v))).collect());
                Body::ToolStart { message_id, tool_id, tool_name, args }
            }
            Body::ToolEnd { tool_id, tool_state, output } => {
                Body::ToolEnd { tool_id, tool_state, output: output.map(|text| self.apply(text)) }
            }
            Body::StepEnd { step_state, output, exit_code, duration_ms } => Body::StepEnd {
                step_state,
                output: output.map(|text| self.apply(text)),
                exit_code,
                duration_ms,
            },
            Body::Log { level, message } => Body::Log { level, message: self.apply(message) },
            Body::Error { message, code, usage } => Body::Error { message: self.apply(message), code, usage },
            Body::TokenReset { .. } | Body::StepStart {} | Body::Done { .. } => body,
        }
    }
}

/// Where events go.
#[derive(Debug, Clone)]
enum Out {
    /// To the callback.
    Spool(Arc<Spool>),
    /// To whoever looks on.
    Channel(mpsc::Sender<Event>),
}

/// Tells events of a task, or of a step of it.
#[derive(Debug, Clone)]
pub struct Events {
    out: Out,
    task_id: TaskId,
    step: Option<Step>,
    pub(crate) masks: Arc<Masks>,
}

impl Events {
    pub(crate) fn to_spool(spool: Arc<Spool>, task_id: TaskId, masks: Arc<Masks>) -> Self {
        Self { out: Out::Spool(spool), task_id, step: None, masks }
    }

    /// Events for somebody in this process.
    pub fn to_channel(channel: mpsc::Sender<Event>, task_id: TaskId, masks: Arc<Masks>) -> Self {
        Self { out: Out::Channel(channel), task_id, step: None, masks }
    }

    /// The same for a step.
    pub(crate) fn in_step(&self, step: Step) -> Self {
        Self { step: Some(step), ..self.clone() }
    }

    /// Tells an event; waits while the queue is full.
    pub(crate) async fn tell(&self, body: Body) {
        let body = self.masks.mask(body);
        let event = Event { body, task_id: self.task_id.clone(), step: self.step.clone() };
        match &self.out {
            Out::Spool(spool) => spool.add(event).await,
            // Who does not look on any more misses nothing.
            Out::Channel(channel) => drop(channel.send(event).await),
        }
    }

    /// Tells a line, in pieces if it is long.
    pub(crate) async fn log(&self, level: Level, line: &str) {
        let mut rest = line;
        loop {
            let piece = &rest[..floor(rest, MAX_LINE)];
            rest = &rest[piece.len()..];
            self.tell(Body::Log { level, message: piece.to_owned() }).await;
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// The last boundary between characters at or before `at`.
pub(crate) fn floor(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn secrets_are_masked_and_long_lines_are_split() {
        let (sender, mut events) = mpsc::channel(16);
        let masks = Masks::new(["s3cret".to_owned(), "s3cret-long\nsecond".to_owned()]);
        let told = Events::to_channel(sender, TaskId::Number(1), masks);
        told.log(Level::Info, "a s3cret-long b s3cret second").await;
        told.log(Level::Info, &"\u{e9}".repeat(MAX_LINE)).await;
        told.log(Level::Info, "").await;
        drop(told);
        let mut lines = Vec::new();
        while let Some(event) = events.recv().await {
            if let Body::Log { message, .. } = event.body {
                lines.push(message);
            }
        }
        assert_eq!(lines[0], "a *** b *** ***");
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [15, MAX_LINE, MAX_LINE, 0]);
    }
}
