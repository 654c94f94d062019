//! Runners: what is shown of them, and what people may decide.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{RunnerId, TokenId};
use crate::open::Open;
use crate::states::RunnerStatus;

/// A runner, connected or not.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Runner {
    /// Its id.
    pub id: RunnerId,
    /// Its name, which no other runner has.
    pub name: String,
    /// What people call it.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Whether it is there.
    pub status: Open<RunnerStatus>,
    /// The labels by which it is chosen: its own, and those that were set.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The labels that were set here.
    #[serde(default)]
    pub set_labels: Vec<String>,
    /// Whether it is given no new work.
    #[serde(default)]
    pub drained: bool,
    /// The token that it belongs to.
    #[serde(default = "no_token")]
    pub token_id: TokenId,
    /// The version of its program; empty before its first connection.
    #[serde(default)]
    pub version: String,
    /// The machine that it is on; null before its first connection.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// The load of that machine, as it said last.
    #[serde(default)]
    pub metrics: Option<Metrics>,
    /// How many of its runs are not over.
    #[serde(default)]
    pub open_runs: u64,
    /// When it became known, in milliseconds since 1970.
    #[serde(default)]
    pub created_at_ms: u64,
    /// When it was heard last; 0 for never.
    #[serde(default)]
    pub last_seen_ms: u64,
}

fn no_token() -> TokenId {
    TokenId(String::new())
}

/// The machine of a runner, as the runner says.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Environment {
    /// The operating system, such as `linux`.
    pub os: String,
    /// Its version.
    pub os_version: String,
    /// The processor's architecture.
    pub arch: String,
    /// The machine's name.
    pub hostname: String,
    /// The shell of the runner's user.
    pub shell: String,
    /// That user's home folder.
    pub home_dir: String,
    /// The folder beneath which files are read and written.
    pub workspace_root: String,
    /// The runner's user.
    pub username: String,
    /// How many processors the machine has.
    pub num_cpu: u32,
    /// Memory in MiB.
    pub total_memory_mb: u64,
    /// The machine's time when it connected.
    pub current_time: String,
    /// Its time zone.
    pub timezone: String,
    /// That zone's distance from UTC.
    pub utc_offset: String,
}

/// The load of a machine in percent; what it could not measure is absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
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

/// What is to be changed of a runner; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "labels": ["pool:build"], "drained": false }))]
pub struct RunnerChange {
    /// At most 64 labels of 1 to 256 bytes, beside those that the runner says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// What people call it, at most 200 bytes; empty for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Whether it is given no new work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<bool>,
}

/// Which runners a list has.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunnerFilter {
    /// At most this many: 1 to 500, by default 100. What lies outside is taken as the nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = u32::MAX))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<RunnerId>,
    /// Only runners with this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}
