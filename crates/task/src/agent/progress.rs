//! Where an agent stands, from its journal.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::budget::Meter;
use super::context;
use crate::journal::Entry;
use crate::messages::StopReason;

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The conversation, each message as the JSON that is sent.
    pub(super) messages: Vec<String>,
    pub(super) turns: u32,
    /// The last message of the model is not answered yet.
    open: bool,
    pub(super) stop_reason: String,
    /// The events' name of the last message.
    pub(super) message_id: String,
    /// Of its calls: begun, and done with this answer.
    pub(super) begun: BTreeSet<String>,
    pub(super) done: BTreeMap<String, (String, bool)>,
    /// The model's last words.
    pub(super) text: String,
}

impl Progress {
    /// Repeats what the journal says; returns what the model was told of its tools.
    pub(super) fn replay(
        initial: Vec<String>,
        entries: &[Entry],
        meter: &mut Meter,
    ) -> (Self, Option<String>) {
        let mut progress = Self { messages: initial, ..Self::default() };
        let mut tools: Option<String> = None;
        for entry in entries {
            match entry {
                Entry::Start { tools: told } => tools = Some(told.clone()),
                Entry::Wasted { usage } => meter.waste(*usage),
                Entry::Turn { usage, .. } => {
                    let length = progress.messages.iter().chain(&tools).map(String::len).sum();
                    meter.count(*usage, length);
                }
                Entry::Cleared { messages } => {
                    progress.clear(*messages);
                }
                _ => {}
            }
            progress.take(entry);
        }
        (progress, tools)
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
            Entry::End { id, text, is_error } => {
                self.done.insert(id.clone(), (text.clone(), *is_error));
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
