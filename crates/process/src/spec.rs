//! What a supervisor is told, and what it reports.

use std::collections::BTreeMap;
use std::time::Duration;

use legwork_executor::Size;
use legwork_sandbox::{Group, Inhabitant, Plan};
use serde::{Deserialize, Serialize};

use crate::gate::{Denial, Gate};

/// Bounds of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time after which the whole tree is ended; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Time between SIGTERM and SIGKILL. Default 2 s.
    pub grace: Duration,
    /// The same where it is cancelled; `None` for the same.
    #[serde(default)]
    pub cancel_grace: Option<Duration>,
    /// Ended when nobody has watched it for so long, and by no other time limit; `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwatched: Option<Duration>,
    /// How long output is awaited after the command ended, while descendants hold
    /// its pipes. Default 1 s.
    pub drain: Duration,
    /// Bytes kept of each stream; what exceeds it is counted, not kept. Default 1 GiB.
    pub output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: None,
            grace: Duration::from_secs(2),
            cancel_grace: None,
            unwatched: None,
            drain: Duration::from_secs(1),
            output_bytes: 1 << 30,
        }
    }
}

/// What a command reads from and writes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredIo", into = "StoredIo")]
pub enum Io {
    /// It reads nothing, and its output goes to its journal.
    #[default]
    Journal,
    /// A terminal of this size, whose output goes to the journal, and which takes input from
    /// whoever controls the command.
    Terminal(Size),
    /// Pipes of the process that asked for it; it ends with that process.
    Piped,
    /// A terminal of this size whose near end the process has that asked for it; it ends with
    /// that process.
    OwnTerminal(Size),
}

impl Io {
    /// Whether it has a terminal.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Terminal(_) | Self::OwnTerminal(_))
    }

    /// Whether its other end belongs to the process that asked for it.
    pub(crate) fn is_passed(self) -> bool {
        matches!(self, Self::Piped | Self::OwnTerminal(_))
    }
}

/// The same as it stands in a command's file. An update reads the files of the version before,
/// and that one, if the update fails, those of the update: so the fields stay what they were.
#[derive(Serialize, Deserialize)]
struct StoredIo {
    terminal: Option<Size>,
    #[serde(default)]
    passed_stdio: bool,
}

impl From<StoredIo> for Io {
    fn from(stored: StoredIo) -> Self {
        match (stored.terminal, stored.passed_stdio) {
            (None, false) => Self::Journal,
            (Some(size), false) => Self::Terminal(size),
            (None, true) => Self::Piped,
            (Some(size), true) => Self::OwnTerminal(size),
        }
    }
}

impl From<Io> for StoredIo {
    fn from(io: Io) -> Self {
        let terminal = match io {
            Io::Terminal(size) | Io::OwnTerminal(size) => Some(size),
            Io::Journal | Io::Piped => None,
        };
        Self { terminal, passed_stdio: io.is_passed() }
    }
}

/// A command to supervise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments; the program is an absolute path.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// How long it may run, and what it may use up.
    pub limits: Limits,
    /// What it reads from and writes to.
    #[serde(flatten)]
    pub io: Io,
    /// What it leaves running lives on after its end, until whoever watches it cancels it or is
    /// gone. (Not within walls that end with their first process.)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_tree: bool,
    /// The wall around it.
    #[serde(default)]
    pub sandbox: Option<Plan>,
    /// The control groups it is in.
    #[serde(default)]
    pub group: Group,
    /// What judges the execs of its tree; `None` for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
}

/// Why a supervisor ended a command before it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// Its time was up.
    Timeout,
    /// It was cancelled.
    Cancel,
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Started, not ended.
    Running,
    /// Ended; `exit_code` or `signal` says how.
    Ended,
    /// Never started; `error` says why.
    Failed,
}

/// A supervisor's report, kept in the command's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where the command stands.
    pub state: State,
    /// The boot the command was started in.
    pub boot_id: String,
    /// Start, in Unix milliseconds.
    pub started_ms: u64,
    /// End, in Unix milliseconds; 0 while running.
    pub finished_ms: u64,
    /// Exit status, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Set if the supervisor ended it.
    pub ended_by: Option<EndedBy>,
    /// Why it never started.
    pub error: Option<String>,
    /// Bytes of standard output (or of the terminal), kept or not.
    pub stdout_bytes: u64,
    /// Bytes of standard error, kept or not.
    pub stderr_bytes: u64,
    /// Bytes not kept because of `output_bytes` or of `journal_error`.
    pub dropped_bytes: u64,
    /// The bound on memory ended some of it.
    #[serde(default)]
    pub out_of_memory: bool,
    /// By whom others find the way behind its wall, if they are let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inhabitant: Option<Inhabitant>,
    /// Why output could not be kept.
    pub journal_error: Option<String>,
    /// What the gate did not let it execute: each kind once, 16 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<Denial>,
    /// How many more were denied than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub denied_more: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Status {
    /// A command that was started now.
    pub(crate) fn started(boot_id: String) -> Self {
        Self {
            state: State::Running,
            boot_id,
            started_ms: now_ms(),
            finished_ms: 0,
            exit_code: None,
            signal: None,
            ended_by: None,
            error: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            dropped_bytes: 0,
            out_of_memory: false,
            inhabitant: None,
            journal_error: None,
            denied: Vec::new(),
            denied_more: 0,
        }
    }
}

/// The kernel's id of the current boot: differs after each restart.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_file_is_that_of_the_versions_before() {
        let size = Size { cols: 90, rows: 30 };
        for (io, stored) in [
            (Io::Journal, r#"{"terminal":null,"passed_stdio":false}"#),
            (Io::Terminal(size), r#"{"terminal":{"cols":90,"rows":30},"passed_stdio":false}"#),
            (Io::Piped, r#"{"terminal":null,"passed_stdio":true}"#),
            (Io::OwnTerminal(size), r#"{"terminal":{"cols":90,"rows":30},"passed_stdio":true}"#),
        ] {
            assert_eq!(serde_json::to_string(&io).expect("JSON"), stored);
            let spec = Spec { argv: vec!["/bin/true".into()], io, ..Spec::default() };
            let text = serde_json::to_string(&spec).expect("JSON");
            assert!(text.contains(stored.trim_matches(['{', '}'])), "{text}");
            assert_eq!(serde_json::from_str::<Spec>(&text).expect("a spec").io, io);
        }
        // The oldest have no such field.
        let oldest = serde_json::to_string(&Spec::default()).expect("JSON");
        let oldest = oldest.replace(r#","passed_stdio":false"#, "").replace(r#""terminal":null,"#, "");
        assert!(!oldest.contains("terminal"), "{oldest}");
        assert_eq!(serde_json::from_str::<Spec>(&oldest).expect("a spec").io, Io::Journal);
    }
}
