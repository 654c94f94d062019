//! Where an agent stands, from its journal.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::budget::Meter;
use super::context;
use crate::journal::Entry;
use legwork_messages::StopReason;

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The conversation, each message as the JSON that is sent.
    pub(super) messages: Vec<String>,
    /// How many of the first ones are the task's own.
    pub(super) initial: usize,
    pub(super) turns: u32,
    /// The last message of the model is not answered yet.
    open: bool,
    pub(super) stop_reason: String,
    /// The events' name of the last message.
    pub(super) message_id: String,
    /// Of its calls: begun, and done with this answer.
    pub(super) begun: BTreeSet<String>,
    pub(super) done: BTreeMap<String, Finished>,
    /// The model's last words.
    pub(super) text: String,
}

/// The answer of a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Finished {
    pub(super) text: String,
    pub(super) is_error: bool,
    /// What the model gets beside the text.
    pub(super) blocks: Vec<Value>,
}

impl Progress {
    /// Repeats what the journal says; returns how it started.
    pub(super) fn replay(
        initial: Vec<String>,
        entries: &[Entry],
        meter: &mut Meter,
    ) -> (Self, Option<Entry>) {
        let mut progress = Self { initial: initial.len(), messages: initial, ..Self::default() };
        let mut started: Option<Entry> = None;
        let mut told = 0;
        for entry in entries {
            match entry {
                Entry::Start { tools, system, .. } => {
                    told = tools.len() + system.as_ref().map_or(0, String::len);
                    started = Some(entry.clone());
                }
                Entry::Wasted { usage } => meter.waste(*usage),
                Entry::Turn { usage, window, .. } => {
                    let length: usize =
                        progress.messages.iter().map(|message| context::weight(message)).sum();
                    meter.count(*usage, *window, length + told);
                }
                Entry::Compacted { .. } => meter.forget_last(),
                Entry::Cleared { messages } => {
                    progress.clear(*messages);
                }
                _ => {}
            }
            progress.take(entry);
        }
        (progress, started)
    }

    /// Takes in a line of the journal.
    pub(super) fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Turn { message, stop_reason, .. } => {
                self.turns += 1;
                self.open = true;
                self.stop_reason.clone_from(stop_reason);
                self.begun.clear();
                self.done.clear();
                self.text = text_of(message);
                self.messages.push(message.clone());
            }
            Entry::Begin { id } => {
                self.begun.insert(id.clone());
            }
            Entry::End { id, text, is_error, blocks } => {
                let finished = Finished { text: text.clone(), is_error: *is_error, blocks: blocks.clone() };
                self.done.insert(id.clone(), finished);
            }
            Entry::Compacted { kept, message } => {
                self.messages.truncate(*kept);
                self.messages.push(message.clone());
                self.initial = *kept;
            }
            Entry::Results { message } => {
                self.open = false;
                self.messages.push(message.clone());
            }
            _ => {}
        }
    }

    /// Leaves out old answers of tools; returns the bytes gained.
    pub(super) fn clear(&mut self, messages: usize) -> usize {
        context::clear(&mut self.messages, messages)
    }

    /// Why the last message ended, if nothing came after it.
    pub(super) fn unanswered(&self) -> Option<StopReason> {
        let name = self.stop_reason.split(':').next().unwrap_or_default();
        self.open.then(|| StopReason::of(name))
    }

    /// The blocks of the model's last message.
    pub(super) fn last_content(&self) -> Vec<Value> {
        let last = self.messages.last().and_then(|m| serde_json::from_str::<Value>(m).ok());
        match last.map(|mut message| message["content"].take()) {
            Some(Value::Array(blocks)) => blocks,
            _ => Vec::new(),
        }
    }
}

fn text_of(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    blocks.iter().filter_map(|block| block["text"].as_str()).collect()
}
