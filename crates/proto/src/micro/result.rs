//! What the seven commands give (§4 to §7).

use serde::{Deserialize, Serialize};

use super::Metadata;

/// `exec`. A status other than 0 is a result, too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec<T = String> {
    /// -1: ended by a signal, or by the timeout.
    pub exit_code: i32,
    /// As far as it was captured.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub stdout: Option<T>,
    /// As far as it was captured.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub stderr: Option<T>,
    /// The bytes, where they are no UTF-8.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<T>,
    /// The bytes, where they are no UTF-8.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<T>,
    /// The time it took, in seconds.
    pub duration: f64,
    /// `timed_out`, `signal`, `stdout_truncated`, `stderr_truncated`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

fn none<T>() -> Option<T> {
    None
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

/// `file.write`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileWrite {
    /// Of the content.
    pub bytes_written: u64,
    /// The file is new.
    pub created: bool,
    /// False, and only then said: content, mode and owner were so before, and nothing was
    /// written.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub changed: bool,
    /// Where the former content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_path: Option<String>,
    /// SHA-256, in hex, without a prefix.
    pub checksum: String,
}

/// `file.read`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileRead<T = String> {
    /// As text; bytes that are no UTF-8 are replaced.
    pub content: T,
    /// `base64` if `content` is not exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The bytes, where they are no UTF-8.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<T>,
    /// Of the whole file.
    pub size: u64,
    /// Four octal digits.
    pub mode: String,
    /// A number.
    pub owner: String,
    /// A number.
    pub group: String,
    /// SHA-256 of the returned bytes, in hex.
    pub checksum: String,
    /// The file goes on.
    pub truncated: bool,
}

/// `pkg.ensure`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PkgEnsure {
    /// Something was done.
    pub changed: bool,
    /// What was there before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub previous_version: String,
    /// What is there now; empty after removal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub installed_version: String,
    /// `already_present`, `installed`, …
    pub action: String,
    /// What the package manager would do, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
}

/// `service.reload`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceReload {
    /// Something was done.
    pub changed: bool,
    /// `reloaded`, `already_started`, …
    pub action: String,
    /// `active`, `inactive`, …
    pub status: String,
    /// Starts at boot.
    pub enabled: bool,
    /// `running`, `dead`, …
    pub sub_state: String,
    /// `enabled`, `static`, `masked`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit_file_state: String,
}

/// `sudoers.ensure`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SudoersEnsure {
    /// Something was done.
    pub changed: bool,
    /// The rule's file.
    pub file_path: String,
    /// `created`, `updated`, …
    pub action: String,
    /// What changes: path, text before, text after; none is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Vec<String>>,
}

/// `sshd.harden`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SshdHarden {
    /// Something was done.
    pub changed: bool,
    /// The config as it was.
    pub backup_path: String,
    /// The requested keywords.
    pub modified_keys: Vec<String>,
    /// `reloaded` or `none`; of `confirm` and `undo` `confirmed` and `restored`.
    pub service_action: String,
    /// Names a change that is taken back unless it is confirmed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pending: String,
    /// What changes, of each file: path, text before, text after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Vec<String>>,
}
