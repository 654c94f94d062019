//! Events of the task protocol (docs/protocols/task.md §3 and §13).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A task's id, in the type that its runner was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TaskId {
    /// Standby: usually a number.
    Number(i64),
    /// Active: a string.
    Text(String),
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// What a runner tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
    /// Whose it is.
    pub task_id: TaskId,
    /// The step it happened in.
    #[serde(flatten)]
    pub step: Option<Step>,
    /// The call of the agent that another agent has started (§13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_tool_id: Option<String>,
}

/// A step, as added to every event inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub step_name: String,
    /// From 0.
    pub step_index: u64,
    /// The job it belongs to, where there are jobs (§13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// What other steps know it by, if they do (§13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_key: Option<String>,
}

/// The event itself. No field is ever null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the protocol's page describes each")]
pub enum Body {
    Token {
        message_id: String,
        text: String,
        token_index: u64,
    },
    TokenReset {
        message_id: String,
    },
    Thinking {
        message_id: String,
        text: String,
    },
    Usage {
        usage: Usage,
    },
    Result {
        kind: ResultKind,
        text: String,
        part: u64,
        last: bool,
    },
    ToolStart {
        message_id: String,
        tool_id: String,
        tool_name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        args: Option<Map<String, Value>>,
    },
    Ask {
        tool_id: String,
        tool_name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        args: Option<Map<String, Value>>,
        expires_s: u64,
    },
    ToolEnd {
        tool_id: String,
        tool_state: ToolState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
    },
    StepStart {},
    StepEnd {
        step_state: StepState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
    },
    Log {
        level: Level,
        message: String,
    },
    Done {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
    },
    Error {
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
}

impl Body {
    /// Whether it is the last of its task.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Error { .. })
    }

    /// Whether it is never given up while there is time (§4).
    pub fn is_critical(&self) -> bool {
        self.is_terminal() || matches!(self, Self::Ask { .. } | Self::ToolEnd { .. } | Self::Result { .. })
    }
}

/// How a tool call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "as named")]
pub enum ToolState {
    Success,
    Error,
}

/// How a step ended: `failure` ran and failed, `error` is the runner's own failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "as named")]
pub enum StepState {
    Success,
    Failure,
    Error,
}

/// What a task brings back (§13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "as named")]
pub enum ResultKind {
    Diff,
    Archive,
    Artifacts,
    Branch,
}

/// What kind of line a log event holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "as named")]
pub enum Level {
    Info,
    Stdout,
    Stderr,
    Error,
}

/// Why a task failed (§13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as named")]
pub enum Code {
    InvalidConfig,
    Aborted,
    StepFailed,
    ApiError,
    MaxTurns,
    Budget,
    StopReason,
    Internal,
}

/// What an agent used in all, failed attempts included (§13).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Calls of the model that gave a whole answer.
    pub turns: u64,
    /// Tokens read that no cache held.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens put into the prompt cache.
    pub cache_creation_input_tokens: u64,
    /// Tokens read from the prompt cache.
    pub cache_read_input_tokens: u64,
    /// Of all input, the part that came from the cache: 0 to 1.
    pub cache_hit_ratio: f64,
    /// US dollars, where the model's price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

/// What somebody says to a task that runs (§13), as the answer to a heartbeat brings it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// From 1 on, and growing: a runner takes each in once.
    pub seq: u64,
    /// Who says it.
    #[serde(default)]
    pub by: String,
    /// Words for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub say: Option<String>,
    /// The answer to an `ask`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Permission>,
}

/// Whether a call of a tool may be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// The call.
    pub tool_id: String,
    /// Whether it may.
    pub allow: bool,
    /// Why not: the model is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a standby runner sends to be given a task (§6, §13).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The runner's name; a runner that comes back has the same.
    pub pod_name: String,
    /// Its address.
    pub pod_ip: String,
    /// What it can do; the original sends none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Its version; the original sends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How long the hub may hold the answer back until there is a task, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u64>,
}

/// The hub's answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Registered {
    /// The runner's number.
    #[serde(default)]
    pub runner_id: Option<i64>,
    /// What to do, if there is anything.
    #[serde(default)]
    pub task: Option<Assigned>,
    /// Where its events go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// The answer was held back: ask again at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waited: bool,
}

/// A task as assigned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assigned {
    /// Its id.
    pub id: TaskId,
    /// Informative; `config` has its own.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The task JSON (§2), in the order of its keys.
    pub config: Box<RawValue>,
    /// The session its messages belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Secrets that it asks for, by name (§13): for runners of ours alone.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub secrets: std::collections::BTreeMap<String, String>,
    /// Lets the runner keep messages (§8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_token: Option<String>,
    /// Where it keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_url: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_as_the_protocol_has_them() {
        let step = Some(Step { step_name: "build".into(), step_index: 0, job_id: None, step_key: None });
        let log = Body::Log { level: Level::Stdout, message: "Ok".into() };
        let event = Event { body: log, task_id: TaskId::Number(53), step, parent_tool_id: None };
        let text = serde_json::to_string(&event).expect("json");
        assert_eq!(
            text,
            r#"{"type":"log","level":"stdout","message":"Ok","task_id":53,"step_name":"build","step_index":0}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).expect("event"), event);
        let body = Body::Done { usage: None, output: None };
        let done = Event { body, task_id: TaskId::Text("41".into()), step: None, parent_tool_id: None };
        let text = serde_json::to_string(&done).expect("json");
        assert_eq!(text, r#"{"type":"done","task_id":"41"}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).expect("event"), done);
    }
}
