//! The dial-out protocol: what a runner and a hub say to each other
//! (docs/protocols/dialout.md).
//!
//! Unknown fields are ignored; absent, null and empty arrays mean the same.

pub mod operation;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Features both ends may have beyond the original (§15).
pub mod feature {
    /// Live output of `bash`.
    pub const OUTPUT: &str = "output";
    /// Acceptance and acknowledged results.
    pub const ACK: &str = "ack";
    /// How a task ended, in a word.
    pub const OUTCOME: &str = "outcome";
    /// Lines that need a person's yes are held until it comes.
    pub const APPROVAL: &str = "approval";
    /// All that this version speaks.
    pub const ALL: &[&str] = &[OUTPUT, ACK, OUTCOME, APPROVAL];
}

/// Message types (§3, §15).
pub mod kind {
    #![allow(missing_docs, reason = "the names say it")]
    pub const WELCOME: &str = "welcome";
    pub const HEARTBEAT: &str = "heartbeat";
    pub const TASK_REQUEST: &str = "task.request";
    pub const TASK_CANCEL: &str = "task.cancel";
    pub const TASK_OUTPUT: &str = "task.output";
    pub const TASK_RESULT: &str = "task.result";
    pub const TASK_ACCEPTED: &str = "task.accepted";
    pub const TASK_RESUME: &str = "task.resume";
    pub const TASK_HELD: &str = "task.held";
    pub const ACK: &str = "ack";
    pub const MCP_CALL: &str = "mcp.call";
    pub const MCP_RESULT: &str = "mcp.result";
}

/// What surrounds every message. The payload is decoded by type.
#[derive(Debug, Deserialize)]
pub struct Incoming<'a> {
    /// Opaque; may be empty.
    #[serde(default)]
    pub id: String,
    /// One of [`kind`], or something newer.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Type specific.
    #[serde(default, borrow)]
    pub payload: Option<&'a RawValue>,
    /// The flat form of `welcome` (generation K).
    #[serde(default)]
    pub worknode_id: Option<String>,
}

/// A message to send.
#[derive(Debug, Serialize)]
pub struct Outgoing<'a, P> {
    /// An id that no other message of this sender has.
    pub id: &'a str,
    /// One of [`kind`].
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Type specific.
    pub payload: &'a P,
    /// Unix milliseconds.
    pub timestamp: u64,
}

/// Hub → runner: who you are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The runner's id.
    #[serde(default)]
    pub worknode_id: String,
    /// The runner's name.
    #[serde(default)]
    pub name: String,
    /// The runner's labels.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: Vec<String>,
    /// What the hub can beyond the original.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// Runner → hub, every 30 s (§5).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// As in the welcome.
    #[serde(default)]
    pub worknode_id: String,
    /// As in the welcome, or as configured.
    #[serde(default)]
    pub name: String,
    /// As in the welcome, or as configured.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: Vec<String>,
    /// The runner's build.
    #[serde(default)]
    pub version: String,
    /// In the first heartbeat of a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// How busy the processors are, and how full memory and disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// With `environment`: what the runner can beyond the original.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// With `features`: the kernel's id of the boot, which differs after a restart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
}

/// The machine a runner is on. All keys always present.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the protocol page describes each")]
pub struct Environment {
    pub os: String,
    pub os_version: String,
    pub arch: String,
    pub hostname: String,
    pub shell: String,
    pub home_dir: String,
    pub workspace_root: String,
    pub username: String,
    pub num_cpu: u32,
    pub total_memory_mb: u64,
    pub current_time: String,
    pub timezone: String,
    pub utc_offset: String,
}

/// Load in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// All processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Memory that is not available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<f64>,
    /// The workspace's file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_percent: Option<f64>,
}

/// Hub → runner: do this.
#[derive(Debug, Deserialize)]
pub struct TaskRequest<'a> {
    /// The task.
    pub task_id: String,
    /// For the hub's own tracing.
    #[serde(default, deserialize_with = "null_as_default")]
    pub trace_id: String,
    /// Echoed in the result.
    #[serde(default, deserialize_with = "null_as_default")]
    pub source_instance_id: String,
    /// What to do.
    #[serde(default, deserialize_with = "null_as_default")]
    pub operation: String,
    /// Operation specific.
    #[serde(default, borrow)]
    pub args: Option<&'a RawValue>,
    /// Who asked (§15).
    #[serde(default)]
    pub requested_by: Option<RequestedBy>,
    /// That people have said yes to it (§15).
    #[serde(default)]
    pub approval: Option<Approval>,
}

/// Hub → runner, with a request: people have said yes to what the runner had held (§15).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Approval {
    /// The hub's id of it.
    pub id: String,
    /// As it came with [`TaskHeld`].
    pub ticket: String,
    /// As it came with [`TaskHeld`].
    pub digest: String,
    /// Who said yes.
    #[serde(deserialize_with = "null_as_default")]
    pub by: Vec<String>,
}

/// Runner → hub: a task needs a person's yes before it may start (§15). The runner has not
/// accepted it, and remembers nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskHeld {
    /// The task.
    pub task_id: String,
    /// To be given back with the approval: says, sealed by the runner, which task and what
    /// digest it is for, and until when.
    pub ticket: String,
    /// SHA-256, in hex, of all that says what would run.
    pub digest: String,
    /// The very text that would run.
    pub command: String,
    /// Where, as it was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workdir: String,
    /// The part of the line that asks.
    pub part: String,
    /// The rule by which it asks.
    pub rule: String,
    /// How many people must say yes.
    pub persons: u8,
    /// Why an approval that came is not good enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Who asked for a task (§15), for the runner's audit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestedBy {
    /// The hub's id, wherever it is reached.
    pub hub: String,
    /// The id of the token that was shown.
    pub token: String,
    /// What that token is called.
    pub name: String,
}

/// The same, to send. Its arguments stand last: they may be long, and are not copied.
#[derive(Debug, Serialize)]
pub struct NewTask<'a> {
    /// The task.
    pub task_id: &'a str,
    /// What to do.
    pub operation: &'a str,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<RequestedBy>,
    /// That people have said yes to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Operation specific.
    pub args: &'a RawValue,
}

/// A message about one task: `task.cancel`, `task.accepted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRef {
    /// The task.
    pub task_id: String,
}

/// Hub → runner: send output on from these offsets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResume {
    /// The task.
    pub task_id: String,
    /// Next offset wanted of standard output.
    #[serde(default)]
    pub stdout: u64,
    /// Next offset wanted of standard error.
    #[serde(default)]
    pub stderr: u64,
}

/// Runner → hub: live output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutput {
    /// The task.
    pub task_id: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text; empty where `data_base64` is set.
    #[serde(default)]
    pub data: String,
    /// Raw bytes of the stream before this chunk.
    #[serde(default)]
    pub offset: u64,
    /// The bytes, where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

/// Runner → hub: the end of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task.
    pub task_id: String,
    /// Echo of the request.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub source_instance_id: String,
    /// Whether the runner finished the operation.
    #[serde(default)]
    pub success: bool,
    /// Operation specific.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Why it could not.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// 1 on failure, else absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// For a line that the policy denied: one that does the same and passes, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeWord>,
}

/// Hub → runner: call a tool of an MCP server (§9).
#[derive(Debug, Deserialize)]
pub struct McpCall {
    /// The call.
    pub call_id: String,
    /// The server.
    #[serde(default, deserialize_with = "null_as_default")]
    pub server: operation::McpServer,
    /// The tool.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tool_name: String,
    /// An object.
    #[serde(default)]
    pub arguments: Option<Box<RawValue>>,
}

/// Runner → hub: what came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct McpResult {
    /// The call.
    pub call_id: String,
    /// Whether the tool was called.
    #[serde(default)]
    pub success: bool,
    /// As of `mcp_call`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Why it was not.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// How a task ended (§15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeWord {
    /// By itself.
    Exited,
    /// Its time was up.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// The policy denied it.
    Denied,
    /// It could not be carried out.
    Failed,
    /// It was started and its end is unknown.
    Lost,
}

/// Hub → runner: a result has been stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The result's message id.
    pub id: String,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_welcome_are_read() {
        let flat: Incoming<'_> =
            serde_json::from_str(r#"{"type":"welcome","worknode_id":"wn_90"}"#).expect("json");
        assert_eq!((flat.kind.as_str(), flat.worknode_id.as_deref()), ("welcome", Some("wn_90")));
        let text = r#"{"id":"x","type":"welcome","payload":{"worknode_id":"w","name":"n","labels":null,"new":1},"timestamp":1}"#;
        let full: Incoming<'_> = serde_json::from_str(text).expect("json");
        let welcome: Welcome = serde_json::from_str(full.payload.expect("payload").get()).expect("payload");
        assert_eq!((welcome.name.as_str(), welcome.labels.len()), ("n", 0));
    }

    #[test]
    fn empty_fields_are_left_out_as_the_original_does() {
        let result = TaskResult {
            task_id: "t".into(),
            source_instance_id: String::new(),
            success: false,
            result: None,
            error: "e".into(),
            exit_code: Some(1),
            suggestion: None,
            outcome: None,
        };
        assert_eq!(
            serde_json::to_string(&result).expect("json"),
            r#"{"task_id":"t","success":false,"error":"e","exit_code":1}"#
        );
    }
}
