//! What a task tells: events with its id, its step, and its secrets masked.

use std::sync::Arc;

use legwork_proto::task::{Body, Event, Level, Step, TaskId};
use tokio::sync::mpsc;

use crate::deliver::Spool;
use crate::masks::Masks;

/// Most bytes of one log line (§12).
pub(crate) const MAX_LINE: usize = 16 * 1024;

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
    /// The call of the agent that another agent has started.
    parent: Option<String>,
    pub(crate) masks: Arc<Masks>,
}

impl Events {
    pub(crate) fn to_spool(spool: Arc<Spool>, task_id: TaskId, masks: Arc<Masks>) -> Self {
        Self { out: Out::Spool(spool), task_id, step: None, parent: None, masks }
    }

    /// Events for somebody in this process.
    pub fn to_channel(channel: mpsc::Sender<Event>, task_id: TaskId, masks: Arc<Masks>) -> Self {
        Self { out: Out::Channel(channel), task_id, step: None, parent: None, masks }
    }

    /// The same for a step.
    pub(crate) fn in_step(&self, step: Step) -> Self {
        Self { step: Some(step), ..self.clone() }
    }

    /// The same for an agent that was started by a call: what it says is for its agent alone.
    pub(crate) fn of_agent(&self, call: &str) -> Self {
        Self { parent: Some(call.to_owned()), ..self.clone() }
    }

    /// Tells an event; waits while the queue is full.
    pub(crate) async fn tell(&self, body: Body) {
        if self.parent.is_some()
            && !matches!(body, Body::Ask { .. } | Body::ToolStart { .. } | Body::ToolEnd { .. })
        {
            return;
        }
        let body = self.masks.mask(body);
        let step = self.step.clone().map(|step| self.masks.mask_step(step));
        let parent_tool_id = self.parent.clone();
        let event = Event { body, task_id: self.task_id.clone(), step, parent_tool_id };
        match &self.out {
            Out::Spool(spool) => spool.add(event).await,
            // Who does not look on any more misses nothing.
            Out::Channel(channel) => drop(channel.send(event).await),
        }
    }

    /// Tells a line, in pieces if it is long.
    pub(crate) async fn log(&self, level: Level, line: &str) {
        // As a whole: a secret may lie where it is split.
        let line = self.masks.apply(line.to_owned());
        let mut rest = line.as_str();
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
