//! The events of a task, as they stand in the `data` of server-sent events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{ApprovalId, RunId};
use crate::open::Open;
use crate::states::{State, Stream};

/// How to read events.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// False: the events that there are now, and no waiting for more. True by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

impl Follow {
    /// Whether the reader waits for events to come.
    pub fn wants_more(&self) -> bool {
        self.follow.unwrap_or(true)
    }
}

/// `event: output`: a piece of what a command wrote.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OutputEvent {
    /// The run.
    pub run: RunId,
    /// Where it was written to.
    pub stream: Open<Stream>,
    /// How many bytes of this stream came before.
    #[serde(default)]
    pub offset: u64,
    /// The text.
    pub data: String,
    /// `base64` where the bytes are no UTF-8: `data` is then encoded so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// `event: state`: a run reached a state.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StateEvent {
    /// The run.
    pub run: RunId,
    /// Its runner's name.
    pub runner: String,
    /// The state.
    pub state: Open<State>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The exit status of a command that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of a line that was denied: one that does the same and passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// Of a run that is held, or was: the approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
}

/// `event: gap`: output is missing, and does not come.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct GapEvent {
    /// The run.
    #[serde(default)]
    pub run: String,
    /// The stream.
    #[serde(default)]
    pub stream: String,
    /// The first byte that is missing.
    #[serde(default)]
    pub from: u64,
    /// The first byte that is there again; null if there is none.
    #[serde(default)]
    pub to: Option<u64>,
    /// Why it is missing.
    #[serde(default)]
    pub reason: String,
}

/// `event: end` of a task of pods, and its `event` whose `type` is `state`: what happened to the
/// task itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct PodStateEvent {
    /// The state's word.
    #[serde(default)]
    pub state: String,
    /// What there is to say about it.
    #[serde(default)]
    pub message: String,
    /// The task runner.
    #[serde(default)]
    pub runner: Option<String>,
    /// When, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
}
