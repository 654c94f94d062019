//! Tasks: what is submitted, and what is shown of it.
//!
//! A new field of a submission goes into [`NewTask`], one of an answer into [`Task`] or [`Run`]:
//! the document, the page's types and the client follow, and the compiler names the places in
//! the hub that must fill it in.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{ApprovalId, RunId, RunnerId, RunnerName, TaskId, TokenId};
use crate::open::{Fields, Open};
use crate::states::{Action, State};

/// A task to be.
// The digest of its JSON is stored beside `idempotency_key`. A later field must therefore be left
// out where it is absent (`skip_serializing_if`), or a repetition of a request that an older hub
// took would be taken for another one.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({
    "select": { "labels": ["os:linux"], "count": "all" },
    "operation": "bash",
    "args": { "command": "uname -a" },
    "timeout_s": 60,
}))]
pub struct NewTask {
    /// Which runners it is for. The set is fixed when the task is taken.
    pub select: Select,
    /// What to do.
    #[schemars(with = "Action")]
    pub operation: String,
    /// The operation's arguments; docs/hub.md lists them.
    #[serde(default)]
    pub args: Option<Map<String, Value>>,
    /// Seconds that it may take, from the start of the command: 1 to 604800, by default 120.
    #[serde(default, deserialize_with = "crate::strict::whole")]
    #[schemars(range(min = 1, max = 604_800))]
    pub timeout_s: Option<i64>,
    /// Seconds that a run waits for a runner that is away: 1 to 2592000, by default 86400.
    #[serde(default, deserialize_with = "crate::strict::whole")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub expires_s: Option<i64>,
    /// 1 to 255 bytes. The same key with the same body is the same task; with another body it
    /// is refused.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// Why it is asked for, at most 1000 bytes: people read it who are asked for their yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which runners a task is for: those with all `labels`, or the one that is named; connected
/// ones first, the least busy first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// The runner must have all of these labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// This runner, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// How many of them; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
    /// Only runners that are connected now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub online: bool,
}

/// How many of the runners that match: a number from 1 to 10000, or `"all"`.
///
/// Any JSON value is read, so that the hub can say what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Count(Value);

impl Count {
    /// Most runners of one task.
    pub const MOST: u64 = 10_000;

    /// Every runner that matches.
    pub fn all() -> Self {
        Self("all".into())
    }

    /// So many of them.
    pub fn of(number: u64) -> Self {
        Self(number.into())
    }

    /// Whether it is `"all"`.
    pub fn is_all(&self) -> bool {
        self.0 == "all"
    }

    /// The number, if it is one that a task may have.
    pub fn number(&self) -> Option<u64> {
        self.0.as_u64().filter(|n| (1..=Self::MOST).contains(n))
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "How many of the runners that match: a number, or `\"all\"`.",
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": Self::MOST },
                { "type": "string", "const": "all" },
            ],
        })
    }
}

/// Which runners a task was for, as its submission said.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Selected {
    /// The labels that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The runner that was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// How many were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
    /// Only runners that were connected then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub online: bool,
}

/// A task.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// What is done: an operation of runners, or `agent` or `workflow`, which task runners do.
    pub operation: String,
    /// The operation's arguments; the values of a server's `env` and headers are masked, and a
    /// list shortens long texts.
    #[serde(default = "nothing")]
    pub args: Fields,
    /// Which runners it was for.
    #[serde(default)]
    pub select: Selected,
    /// Seconds that it may take.
    #[serde(default)]
    pub timeout_s: u64,
    /// The name of the token that submitted it.
    #[serde(default)]
    pub created_by: String,
    /// That token's id; absent for tasks of a hub before version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by_token: Option<TokenId>,
    /// When it was taken, in milliseconds since 1970.
    #[serde(default)]
    pub created_at_ms: u64,
    /// Until when its runs wait for their runners, in milliseconds since 1970.
    #[serde(default)]
    pub expires_at_ms: u64,
    /// Why it was asked for, in the words of who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// All runs in one word: what is still open, else the worst end.
    pub state: Open<State>,
    /// The task on each runner.
    pub runs: Vec<Run>,
}

/// A task on one runner.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The runner's name when the task was taken.
    pub runner: String,
    /// The runner's id.
    pub runner_id: RunnerId,
    /// Where it stands.
    pub state: Open<State>,
    /// The exit status of a command; -1 if a signal ended it.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Why it did not succeed.
    #[serde(default)]
    pub error: Option<String>,
    /// Of a line that was denied: one that does the same and passes, where the runner knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The approval that it waits for, or the last one that it waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
    /// What the operation gave; left out of lists.
    #[serde(default)]
    pub result: Option<Fields>,
    /// When it began to wait, in milliseconds since 1970.
    #[serde(default)]
    pub queued_at_ms: u64,
    /// When it was handed to its runner's connection.
    #[serde(default)]
    pub delivered_at_ms: Option<u64>,
    /// When its runner started it.
    #[serde(default)]
    pub started_at_ms: Option<u64>,
    /// When it reached its final state.
    #[serde(default)]
    pub finished_at_ms: Option<u64>,
}

fn nothing() -> Fields {
    Fields(serde_json::value::RawValue::NULL.to_owned())
}

impl Task {
    /// What the task is about, in one line: the command, the path, the tool.
    pub fn subject(&self) -> String {
        #[derive(Default, Deserialize)]
        struct Server {
            name: Option<String>,
        }
        #[derive(Default, Deserialize)]
        struct Known {
            command: Option<String>,
            path: Option<String>,
            pattern: Option<String>,
            url: Option<String>,
            // A tool's name comes before its server's.
            tool_name: Option<String>,
            server: Option<Server>,
            skill_dir: Option<String>,
        }
        let args: Known = self.args.read().unwrap_or_default();
        let first = args.command.or(args.path).or(args.pattern).or(args.url).or(args.tool_name);
        first.or(args.server.and_then(|server| server.name)).or(args.skill_dir).unwrap_or_default()
    }

    /// Whether the task, or one of its runs, is in a state.
    pub fn has_state(&self, word: &str) -> bool {
        self.state.as_str() == word || self.runs.iter().any(|run| run.state.as_str() == word)
    }
}

/// What a command wrote, as its result has it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Written {
    /// Standard output.
    #[serde(default)]
    pub stdout: String,
    /// Standard error.
    #[serde(default)]
    pub stderr: String,
}

impl Run {
    /// What the command wrote; empty if it was none.
    pub fn written(&self) -> Written {
        self.result.as_ref().and_then(|result| result.read().ok()).unwrap_or_default()
    }
}

/// How long to wait before answering.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// Seconds to wait for the task's end before answering: at most 300, by default none. More
    /// is taken as 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = u32::MAX))]
    pub wait_s: Option<u32>,
}

/// Which tasks a list has.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFilter {
    /// At most this many: 1 to 500, by default 50. What lies outside is taken as the nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = u32::MAX))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<TaskId>,
    /// Only tasks with a run on this runner, by its id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerName>,
    /// Only tasks with a run in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Open<State>>,
}
