//! Agents and workflows, and the task runners that carry them out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::PodTaskId;
use crate::open::{Fields, Open};
use crate::page::Items;
use crate::states::{PodKind, PodStatus, State};

/// A task of pods to be.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({
    "config": { "type": "workflow", "steps": [{ "name": "hello", "run": "echo hello" }] },
    "expires_s": 600,
}))]
pub struct NewPodTask {
    /// The task JSON that docs/task.md describes; its `type` is `agent` or `workflow`, by
    /// default `agent`.
    pub config: Fields,
    /// Only this task runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// The session that its messages belong to, 1 to 200 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Seconds that it may wait for a task runner: 1 to 604800, by default 3600.
    #[serde(default, deserialize_with = "crate::strict::whole", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub expires_s: Option<u64>,
    /// 1 to 200 bytes. The same key with the same body is the same task; with another body it
    /// is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// What a task is told that runs: one of the two.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "say": "Leave the tests as they are." }))]
pub struct NewInput {
    /// Words for its agent, 1 to 32768 bytes. It hears them before it asks the model again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub say: Option<String>,
    /// The answer to an event `ask`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<NewAnswer>,
}

/// Whether a call of a tool may be made. The first answer counts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAnswer {
    /// The call: the event's `tool_id`.
    pub tool_id: String,
    /// Whether it may be made.
    pub allow: bool,
    /// Why not: the model is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A task of pods.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PodTask {
    /// Its number.
    pub id: PodTaskId,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Open<PodKind>,
    /// Where it stands.
    pub state: Open<State>,
    /// The task runner that has it.
    #[serde(default)]
    pub runner: Option<String>,
    /// The session that its messages belong to.
    #[serde(default)]
    pub session_id: Option<String>,
    /// Why it did not succeed.
    #[serde(default)]
    pub error: Option<String>,
    /// The error's code in the words of the task protocol.
    #[serde(default)]
    pub code: Option<String>,
    /// What the model used.
    #[serde(default)]
    pub usage: Option<Fields>,
    /// How often it was given to a task runner.
    #[serde(default)]
    pub attempts: u32,
    /// The name of the token that submitted it.
    #[serde(default)]
    pub created_by: String,
    /// When it was taken, in milliseconds since 1970.
    #[serde(default)]
    pub created_at_ms: u64,
    /// Until when it waits for a task runner.
    #[serde(default)]
    pub expires_at_ms: u64,
    /// When a task runner started it.
    #[serde(default)]
    pub started_at_ms: Option<u64>,
    /// When it reached its final state.
    #[serde(default)]
    pub finished_at_ms: Option<u64>,
    /// As submitted, with its type. Only operators see it, and no list has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Fields>,
}

/// A task runner.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PodRunner {
    /// Its number.
    pub id: i64,
    /// The name of its pod.
    pub name: String,
    /// Where it is reached.
    #[serde(default)]
    pub ip: String,
    /// What it does.
    pub status: Open<PodStatus>,
    /// The task that it works on.
    #[serde(default)]
    pub task: Option<PodTaskId>,
    /// The version of its program; empty for an original.
    #[serde(default)]
    pub version: String,
    /// What it can beyond an original.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// When it was heard last, in milliseconds since 1970.
    #[serde(default)]
    pub last_seen_ms: u64,
}

/// All task runners.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PodRunners {
    /// The task runners, by name.
    pub items: Vec<PodRunner>,
}

impl Items for PodRunners {
    type Item = PodRunner;

    fn into_items(self) -> Vec<PodRunner> {
        self.items
    }
}

/// Where task runners register.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Registration {
    /// The path, which holds a key.
    pub path: String,
    /// The address to put before it; null if it is the one that the hub is asked at.
    #[serde(default)]
    pub public_url: Option<String>,
}

/// What agents kept of a session.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Messages {
    /// The messages, oldest first, in the words of the task protocol.
    pub items: Vec<Fields>,
}

/// Which tasks of pods a list has.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PodTaskFilter {
    /// At most this many: 1 to 500, by default 50. What lies outside is taken as the nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = u32::MAX))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<PodTaskId>,
}
