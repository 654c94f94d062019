//! Approvals: what waits for a person's yes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exact::Piece;
use crate::ids::{ApprovalId, RunId, RunnerId, TaskId, TokenId};
use crate::open::Open;
use crate::states::{ApprovalKind, ApprovalState};

/// What waits for a person's yes, or waited.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// What is asked for.
    pub kind: Open<ApprovalKind>,
    /// Where it stands.
    pub state: Open<ApprovalState>,
    /// The task that asks.
    pub task: TaskId,
    /// Its run.
    pub run: RunId,
    /// The runner that it would run on.
    pub runner: String,
    /// That runner's id.
    pub runner_id: RunnerId,
    /// The very text that would run, byte for byte. Before people it belongs as `shown`.
    pub command: String,
    /// The same in pieces, of which those are marked that a person would not see, or take for others.
    pub shown: Vec<Piece>,
    /// The line as it was asked for: the runner may have quoted its words.
    #[serde(default)]
    pub line: String,
    /// The folder beneath the runner's workspace; empty for the workspace itself.
    #[serde(default)]
    pub workdir: String,
    /// Seconds that it may take.
    #[serde(default)]
    pub timeout_s: u64,
    /// The rule of the runner's policy that asks.
    #[serde(default)]
    pub rule: String,
    /// The part of the line that it asks about.
    #[serde(default)]
    pub part: String,
    /// SHA-256 of all that says what would run. The runner starts nothing of another one.
    #[serde(default)]
    pub digest: String,
    /// Why it was asked for, in the words of who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asked, or wrote the line.
    #[serde(default)]
    pub asked_by: String,
    /// That one's token. Nobody says yes to what was asked with the own token.
    #[serde(default)]
    pub asked_by_token: TokenId,
    /// How many people must say yes.
    #[serde(default)]
    pub persons: u8,
    /// What was said, and by whom.
    #[serde(default)]
    pub votes: Vec<Vote>,
    /// What who decided had to say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why an earlier yes to the same run was not good enough for the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The line that a person wrote in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<String>,
    /// Until when the same line of the same asker on the same runner needs no further yes, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_until_ms: Option<u64>,
    /// When it began to wait, in milliseconds since 1970.
    #[serde(default)]
    pub created_at_ms: u64,
    /// Until when it may be answered.
    #[serde(default)]
    pub expires_at_ms: u64,
    /// When it was decided, or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at_ms: Option<u64>,
}

/// What a person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vote {
    /// The name of the token.
    pub by: String,
    /// Its id.
    pub by_token: TokenId,
    /// Whether it was a yes.
    pub yes: bool,
    /// When, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
}

/// A yes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "digest": "9f86d081884c7d65", "note": "as agreed in the incident call" }))]
pub struct Yes {
    /// The approval's digest as it was read, or its first 16 digits or more: if it is another one, the yes is for
    /// something else, and refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What there is to say about it, at most 1000 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Seconds for which the very same line of the same asker on the same runner needs no further yes: 1 to 28800.
    #[serde(default, deserialize_with = "crate::strict::whole", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 28_800))]
    pub for_s: Option<u64>,
    /// Another line, which stands for it from now on and is judged anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// A no.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "note": "not while the backup runs" }))]
pub struct No {
    /// What there is to say about it, at most 1000 bytes: who asked reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Which approvals a list has.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalQuery {
    /// At most this many: 1 to 500, by default 50. What lies outside is taken as the nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = u32::MAX))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<ApprovalId>,
    /// Only those that stand so, such as `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Open<ApprovalState>>,
    /// Only those of this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
}
