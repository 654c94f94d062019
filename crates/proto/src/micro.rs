//! The micro-runner protocol: JSON lines between a controller and a runner that it
//! has just put on a host (docs/protocols/micro.md).
//!
//! Unknown fields are ignored. Types that a runner sends are generic over their text,
//! so that it can write bytes it holds without copying them into strings first.

pub mod params;
pub mod result;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The protocol's version, as `READY` says it.
pub const VERSION: &str = "1.0.0";
/// A line, newline included, stays below this in both directions (§1).
pub const MAX_LINE: usize = 10 * 1024 * 1024;
/// A line of output in an `EVENT` is cut into pieces of this many bytes (§9).
pub const MAX_EVENT_TEXT: usize = 16 * 1024;
/// Of several lines in one `EVENT`, where that was asked for (§10).
pub const MAX_EVENT_CHUNK: usize = 64 * 1024;
/// Captured output of a command, per stream (§9).
pub const MAX_CAPTURE: usize = 4 * 1024 * 1024;
/// The runner's life, unless it was told another (§2).
pub const DEFAULT_TTL_S: u64 = 600;
/// Names that `READY.metadata.features` holds (§10); `stdin` is added where commands need no
/// signature.
pub const FEATURES: &str = "stream,base64,idempotency,signature,sudo,dry_run,rollback,chunks,stat,parts,list,become,former,diff,states";
/// The runner's file has a name that starts so: it deletes no other file (§9).
pub const FILE_PREFIX: &str = "micro-runner";
/// Or so: the name under which the original's own command line puts it on a host.
pub const FILE_PREFIX_OF_ORIGINAL: &str = "froyo-micro-runner";
/// A controller makes a folder for it with a name that starts so, and it goes with it.
pub const FOLDER_PREFIX: &str = ".legwork-";

/// Message types (§1).
pub mod kind {
    #![allow(missing_docs, reason = "the names say it")]
    pub const READY: &str = "READY";
    pub const CMD: &str = "CMD";
    pub const EVENT: &str = "EVENT";
    pub const DONE: &str = "DONE";
    pub const ERROR: &str = "ERROR";
    pub const EXIT: &str = "EXIT";
    /// All of them: any other makes a line bad.
    pub const ALL: [&str; 6] = [READY, CMD, EVENT, DONE, ERROR, EXIT];
}

/// Error codes (§3).
pub mod code {
    #![allow(missing_docs, reason = "the names say it")]
    pub const INIT_FAILED: &str = "INIT_FAILED";
    pub const READY_FAILED: &str = "READY_FAILED";
    pub const EXEC_FAILED: &str = "EXEC_FAILED";
    pub const TIMEOUT: &str = "TIMEOUT";
    pub const INVALID_CMD: &str = "INVALID_CMD";
}

/// Why a runner ended (§2).
pub mod reason {
    #![allow(missing_docs, reason = "the names say it")]
    pub const STDIN_CLOSED: &str = "stdin_closed";
    pub const TTL_EXPIRED: &str = "ttl_expired";
    pub const ERROR: &str = "error";
}

/// The seven command types (§3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandType {
    /// `exec`
    Exec,
    /// `file.read`
    FileRead,
    /// `file.write`
    FileWrite,
    /// `pkg.ensure`
    PkgEnsure,
    /// `service.reload`
    ServiceReload,
    /// `sshd.harden`
    SshdHarden,
    /// `sudoers.ensure`
    SudoersEnsure,
}

impl CommandType {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 7] = [
        Self::Exec,
        Self::FileRead,
        Self::FileWrite,
        Self::PkgEnsure,
        Self::ServiceReload,
        Self::SshdHarden,
        Self::SudoersEnsure,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::FileRead => "file.read",
            Self::FileWrite => "file.write",
            Self::PkgEnsure => "pkg.ensure",
            Self::ServiceReload => "service.reload",
            Self::SshdHarden => "sshd.harden",
            Self::SudoersEnsure => "sudoers.ensure",
        }
    }

    /// The type of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What surrounds every message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message<D> {
    /// One of [`kind`].
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// What the command's kind of result is.
    pub data: D,
}

/// String to string.
pub type Metadata = BTreeMap<String, String>;

/// The runner is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// [`VERSION`]
    pub version: String,
    /// Go's name of the operating system.
    pub platform: String,
    /// Go's name of the architecture.
    pub arch: String,
    /// Its process.
    pub pid: u32,
    /// What it can do.
    pub capabilities: BTreeMap<String, bool>,
    /// `ttl`; of ours also `implementation` and `features`.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

impl Ready {
    /// Whether the runner has an extension.
    pub fn has(&self, feature: &str) -> bool {
        self.metadata.get("features").is_some_and(|all| all.split(',').any(|name| name == feature))
    }
}

/// What a controller asks for.
#[derive(Debug, Serialize)]
pub struct Command<'a, P> {
    /// Opaque, not empty.
    pub id: &'a str,
    /// The name of a [`CommandType`].
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Seconds, above 0.
    pub timeout: u64,
    /// Type specific.
    pub params: P,
    /// The same key, type and params give the same result again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<&'a str>,
    /// See [`signed_text`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<&'a str>,
}

/// Something happened while a command runs.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// Of which command.
    pub command_id: String,
    /// `info`, `warn` or `debug`.
    #[serde(default)]
    pub level: String,
    /// A line of output, without its newline.
    #[serde(default)]
    pub message: String,
    /// `stream`; `continued` if no newline followed; `base64` if the bytes are no UTF-8.
    #[serde(default)]
    pub metadata: Metadata,
}

/// A command ended well.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done<R> {
    /// The id of the command that this belongs to.
    pub command_id: String,
    /// Type specific.
    pub result: R,
    /// The time it took, in seconds.
    pub duration: f64,
    /// `replayed`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// A command, or a line, failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Which; absent if the line could not be read so far.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command_id: String,
    /// One of [`code`].
    #[serde(default)]
    pub code: String,
    /// What failed, for people to read.
    #[serde(default)]
    pub message: String,
    /// `output`: the end of what a program said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Metadata>,
    /// Whether the same command may go well later.
    #[serde(default)]
    pub retryable: bool,
    /// After how many seconds it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// The runner's last line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exit {
    /// One of [`reason`].
    pub reason: String,
    /// The process's status, too.
    pub exit_code: i32,
    /// Whether its file is gone.
    pub self_deleted: bool,
    /// Valid commands that were started.
    pub commands_total: u64,
}

/// What a signature is made over (§9): the digest is SHA-256 of the params' bytes as
/// they are sent, in lower-case hex.
pub fn signed_text(id: &str, kind: &str, timeout: u64, params_digest: &str) -> String {
    format!("legwork-micro-v1\n{id}\n{kind}\n{timeout}\n{params_digest}")
}

/// A duration in seconds as Go prints it: `10m0s`, `1m30s`, `2s`.
pub fn go_duration(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 {
        format!("{h}h{m}m{s}s")
    } else if m > 0 {
        format!("{m}m{s}s")
    } else {
        format!("{s}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        for (seconds, text) in [(0, "0s"), (2, "2s"), (90, "1m30s"), (600, "10m0s"), (3600, "1h0m0s")] {
            assert_eq!(go_duration(seconds), text);
        }
    }

    #[test]
    fn a_command_type_has_one_name() {
        for kind in CommandType::ALL {
            assert_eq!(CommandType::parse(kind.name()), Some(kind));
        }
        assert_eq!(CommandType::parse("Exec"), None);
    }
}
