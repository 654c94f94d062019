//! Room in the model's window: kept before it is full, made when it is.
//!
//! First old answers of tools and what was written by old calls give way, which costs nothing;
//! then all but the first messages, for a summary. The API makes that itself where it is known
//! to; else the model is asked for it.

use legwork_proto::task::{Code, Level};
use serde_json::{Value, json};

use super::{Failure, Run, World, context};
use crate::config::{Agent, Compaction};
use crate::journal::Entry;
use crate::tools;
use legwork_messages::{Kind, Live, Observer, tool_uses};

/// The part of the window from which on room is made, and that which is left for more work where
/// leaving out old answers is to suffice.
const FULL: f64 = 0.8;
const ROOMY: f64 = 0.6;
/// The part of the window that the task's own messages may have, to be kept.
const OWN: f64 = 0.25;
/// The API's name for its summaries, and the least number of tokens it makes one at.
const API_BETA: &str = "compact-2026-01-12";
const API_LEAST: u64 = 50_000;
/// Turns between two summaries: sooner there is no gain in it.
const APART: u32 = 2;
/// From so many tokens on a request that the API calls invalid may just be too long.
const NEARLY_FULL: u64 = 100_000;
/// Most tokens of a summary.
const SUMMARY_TOKENS: u64 = 8000;

const ASK: &str = "The conversation is about to outgrow your window. Write a summary of it to go on from: whoever reads it \
knows the task as it was given, and nothing else. Say what was asked and wished for on the way, what you found out, \
which files you changed and how, which commands matter and what they showed, what failed and why, what is left to do \
and what you were about to do next. Keep names, paths, numbers and error texts exact. Write the summary and nothing else.";

/// Who keeps the room, and what came of it.
#[derive(Debug)]
pub(super) struct Room {
    by_api: bool,
    how: Compaction,
    /// The turn of the last summary.
    last: Option<u32>,
    /// Why there is no summary.
    failed: Option<String>,
    /// A summary was no help: there is no point in more of them.
    is_hopeless: bool,
}

impl Room {
    pub(super) fn new(task: &Agent, world: &World<'_>) -> Self {
        let by_api = match task.compaction {
            Compaction::Api => true,
            Compaction::Auto => world.client.is_anthropics(),
            Compaction::Summary | Compaction::Off => false,
        };
        Self { by_api, how: task.compaction, last: None, failed: None, is_hopeless: false }
    }

    /// What the API is to do.
    pub(super) fn by_api(&self, window: u64) -> Value {
        let at = share(window, FULL).max(API_LEAST);
        json!({"edits": [{"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": at}}]})
    }

    /// For an error: why no room was made.
    pub(super) fn why(&self) -> String {
        match &self.failed {
            Some(reason) => format!("; the conversation could not be summed up: {reason}"),
            None => String::new(),
        }
    }
}

fn share(window: u64, part: f64) -> u64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a number of tokens"
    )]
    let tokens = (window as f64 * part) as u64;
    tokens
}

impl Run<'_> {
    /// Tokens that the model reads.
    pub(super) fn window(&self) -> u64 {
        self.task.context_window.or(self.started.window).unwrap_or_else(|| self.task.window())
    }

    /// What a request needs of the API beside its common part.
    pub(super) fn beta(&self) -> Option<&'static str> {
        self.room.by_api.then_some(API_BETA)
    }

    /// Makes room before the window is full, where nobody else does.
    pub(super) async fn keep_room(&mut self) -> Result<(), Failure> {
        if self.room.by_api || self.room.how == Compaction::Off || self.room.is_hopeless {
            return Ok(());
        }
        let window = self.window();
        let needed = |run: &Self| run.meter.estimate(run.length()) + run.task.max_tokens.min(window / 8);
        if needed(self) <= share(window, FULL) {
            return Ok(());
        }
        self.leave_out()?;
        if needed(self) <= share(window, ROOMY) {
            return Ok(());
        }
        // Without a summary there may still be room: the API knows better than an estimate.
        self.sum_up().await?;
        Ok(())
    }

    /// Makes room when there is none; false if nothing is to be gained.
    pub(super) async fn make_room(&mut self) -> Result<bool, Failure> {
        if self.leave_out()? {
            return Ok(true);
        }
        match self.room.how {
            Compaction::Off => Ok(false),
            _ => self.sum_up().await,
        }
    }

    /// Does something about a request that the API called invalid, if something can be done.
    pub(super) async fn recover(&mut self, said: &str) -> Result<bool, Failure> {
        let is_about = |what: &str| said.contains(what);
        if self.room.by_api && (is_about("context_management") || is_about("compact") || is_about("beta")) {
            tracing::warn!("the API makes no summaries for this model: we do");
            self.room.by_api = false;
            return Ok(true);
        }
        let is_long = is_about("too long") || is_about("too large") || is_about("context window");
        let full = NEARLY_FULL.min(share(self.window(), 0.5));
        if is_long || self.meter.estimate(self.length()) > full {
            return self.make_room().await;
        }
        Ok(false)
    }

    /// Leaves out old answers of tools and what old calls wrote; false if there is nothing.
    fn leave_out(&mut self) -> Result<bool, Failure> {
        let messages = self.progress.messages.len().saturating_sub(context::KEPT);
        if self.progress.clear(messages) == 0 {
            return Ok(false);
        }
        tracing::info!(messages, "the model's window is full: older tool results are left out");
        self.note(&Entry::Cleared { messages })?;
        Ok(true)
    }

    /// Has the conversation summed up; false if that is no gain.
    async fn sum_up(&mut self) -> Result<bool, Failure> {
        let turn = self.progress.turns;
        let own = self.progress.initial;
        let has_more = self.progress.messages.len() > own + 1;
        if !has_more || self.room.last.is_some_and(|last| turn < last + APART) {
            return Ok(false);
        }
        self.room.last = Some(turn);
        let length = self.length();
        let most = self.task.max_tokens.max(SUMMARY_TOKENS);
        let max_tokens = match self.meter.reserve(length, most) {
            Ok(tokens) => tokens,
            Err(reason) => return Err((Code::Budget, reason)),
        };
        let ask = json!({"role": "user", "content": ASK}).to_string();
        let body = self.request(max_tokens, Some(&ask));
        let asked =
            self.world.client.message(&self.started.model, body, None, self.stop(), &mut Unseen).await;
        let (message, wasted) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                self.waste(error.wasted.into())?;
                if error.kind == Kind::Stopped {
                    return Err(self.aborted());
                }
                return Ok(self.no_summary(error.message));
            }
        };
        self.waste(wasted.into())?;
        self.waste(message.usage.into())?;
        let said: String = message.content.iter().filter_map(|block| block["text"].as_str()).collect();
        if said.trim().is_empty() {
            return Ok(self.no_summary(format!("the model gave none ({})", message.stop_reason.as_str())));
        }
        let weight: usize = self.progress.messages.iter().take(own).map(|m| context::weight(m)).sum();
        let kept = if weight as u64 / 3 <= share(self.window(), OWN) { own } else { 0 };
        let message = self.summary(said.trim(), kept);
        let entry = Entry::Compacted { kept, message };
        self.note(&entry)?;
        self.progress.take(&entry);
        self.meter.forget_last();
        self.room.failed = None;
        if self.meter.estimate(self.length()) > share(self.window(), FULL) {
            self.room.is_hopeless = true;
            self.room.failed = Some("what the task itself says nearly fills the window".into());
        }
        let text = "The model's window was nearly full: the conversation was summed up";
        self.world.events.log(Level::Info, text).await;
        Ok(true)
    }

    fn no_summary(&mut self, reason: String) -> bool {
        tracing::warn!(error = %reason, "the conversation could not be summed up");
        self.room.failed = Some(reason);
        false
    }

    /// The message that stands for what is left out.
    fn summary(&self, said: &str, kept: usize) -> String {
        let todo = self.progress.messages.iter().skip(kept).rev().find_map(|message| todo(message));
        let todo = todo.map(|list| format!("\n\nThe to-do list:\n{list}")).unwrap_or_default();
        let text = format!(
            "Your window was nearly full, and this summary stands for the conversation up to here. Files are as you \
             left them; read again what you need of them.\n\n{said}{todo}\n\nGo on with the task."
        );
        json!({"role": "user", "content": self.world.events.masks.apply(text)}).to_string()
    }
}

/// The list of a message's last call of `todo`.
fn todo(message: &str) -> Option<String> {
    if !message.contains("\"todo\"") {
        return None;
    }
    let message: Value = serde_json::from_str(message).ok()?;
    let calls = tool_uses(message["content"].as_array()?);
    let call = calls.iter().rev().find(|call| call.name == "todo")?;
    tools::shown(call.input["items"].as_array()?).ok()
}

/// What is said of a summary is for nobody to see.
struct Unseen;

impl Observer for Unseen {
    async fn see(&mut self, _: Live) {}
}
