//! What the seven commands take (§4 to §7).

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// A password: shown to nobody but the runner.
#[derive(Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl Secret {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// `exec`
#[derive(Debug, Clone, Default, Serialize)]
pub struct Exec {
    /// A program, or shell text when `args` is empty.
    pub command: String,
    /// If there are any, `command` runs directly with these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Default `/bin/sh`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shell: String,
    /// Default: the runner's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub work_dir: String,
    /// If not empty, the whole environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Keep standard output.
    pub capture_out: bool,
    /// Keep standard error.
    pub capture_err: bool,
    /// Send each line as it comes.
    pub stream_lines: bool,
    /// Lines that come together may be sent together (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub stream_chunks: bool,
    /// Its input follows (§10); else the null device.
    #[serde(skip_serializing_if = "is_false")]
    pub stdin: bool,
    /// By sudo.
    #[serde(skip_serializing_if = "is_false")]
    pub use_sudo: bool,
    /// For sudo.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub sudo_password: Secret,
    /// `su` or `doas` instead of sudo (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub become_method: String,
    /// As this user instead of root (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub become_user: String,
}

/// `file.write`
#[derive(Debug, Clone, Default, Serialize)]
pub struct FileWrite {
    /// Absolute, or relative to the runner's directory.
    pub path: String,
    /// Written as UTF-8.
    pub content: String,
    /// Wins over `content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Files on the host that make up the content, and go (§10). They win over both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// Of the whole that the parts make: SHA-256, in hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub checksum: String,
    /// The mode in octal digits; empty for the default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// A name or a number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// A name or a number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// What must be there, and else nothing is written: SHA-256, in hex; `none`: no file (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub former: String,
    /// May the file be new?
    pub create: bool,
    /// Keep what was there as `<path>.bak`.
    #[serde(skip_serializing_if = "is_false")]
    pub backup: bool,
    /// By sudo.
    #[serde(skip_serializing_if = "is_false")]
    pub use_sudo: bool,
    /// For sudo.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub sudo_password: Secret,
    /// `su` or `doas` instead of sudo (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub become_method: String,
    /// Change nothing, and tell what would change (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// `file.read`
#[derive(Debug, Clone, Default, Serialize)]
pub struct FileRead {
    /// Absolute, or relative to the runner's directory.
    pub path: String,
    /// 0: 10 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<i64>,
    /// Not the content, only what the file is, and the digest of all of it (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub stat: bool,
    /// Of a folder: what it holds in all depths, a JSON list a line (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub list: bool,
    /// By sudo.
    #[serde(skip_serializing_if = "is_false")]
    pub use_sudo: bool,
    /// For sudo.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub sudo_password: Secret,
    /// `su` or `doas` instead of sudo (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub become_method: String,
}

/// `pkg.ensure`
#[derive(Debug, Clone, Default, Serialize)]
pub struct PkgEnsure {
    /// The package.
    pub name: String,
    /// `present`, `absent` or `latest`; `purged`, `held`, `unheld`, `refreshed` (§10).
    pub state: String,
    /// Which version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// `apt`, `dnf`, `yum` or `zypper`; `dnf5`, `apk`, `pacman` (§10). Empty: the first found.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub manager: String,
    /// Placed before the package.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// By sudo.
    #[serde(skip_serializing_if = "is_false")]
    pub use_sudo: bool,
    /// For sudo.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub sudo_password: Secret,
    /// `su` or `doas` instead of sudo (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub become_method: String,
    /// Change nothing, and tell what would change (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Tell what changes, or would (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub diff: bool,
}

/// `service.reload`
#[derive(Debug, Clone, Default, Serialize)]
pub struct ServiceReload {
    /// The unit.
    pub name: String,
    /// `reload`, `restart`, `start`, `stop`, `enable` or `disable`; `status`, `mask`, `unmask`,
    /// `daemon-reload` (§10).
    pub action: String,
    /// By sudo.
    #[serde(skip_serializing_if = "is_false")]
    pub use_sudo: bool,
    /// For sudo.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub sudo_password: Secret,
    /// `su` or `doas` instead of sudo (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub become_method: String,
    /// Change nothing, and tell what would change (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// `sudoers.ensure`
#[derive(Debug, Clone, Default, Serialize)]
pub struct SudoersEnsure {
    /// The user that the rule is for.
    pub user: String,
    /// Absolute paths; none: all commands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Without a password.
    pub no_passwd: bool,
    /// `present` or `absent`.
    pub state: String,
    /// By sudo.
    #[serde(skip_serializing_if = "is_false")]
    pub use_sudo: bool,
    /// For sudo.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub sudo_password: Secret,
    /// `su` or `doas` instead of sudo (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub become_method: String,
    /// Change nothing, and tell what would change (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Tell what changes, or would (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub diff: bool,
}

/// `sshd.harden`
#[derive(Debug, Clone, Default, Serialize)]
pub struct SshdHarden {
    /// `PasswordAuthentication no`
    pub disable_password_auth: bool,
    /// `PermitRootLogin no`
    pub disable_root_login: bool,
    /// `AllowUsers …`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_users: Vec<String>,
    /// `Port …`, if above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Does sshd answer after the reload? Rolled back if not.
    pub test_connection: bool,
    /// Above 0: the host takes the change back after so many seconds by itself, unless `confirm`
    /// comes first; the change reaches `Match` blocks and keyboard-interactive, too, and one
    /// that would shut out who is logged in is refused (§10).
    #[serde(skip_serializing_if = "is_zero")]
    pub confirm_within: u64,
    /// The `pending` of a change that is to stay. All else is ignored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub confirm: String,
    /// The `pending` of a change that is to be taken back now. All else is ignored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub undo: String,
    /// By sudo.
    #[serde(skip_serializing_if = "is_false")]
    pub use_sudo: bool,
    /// For sudo.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub sudo_password: Secret,
    /// `su` or `doas` instead of sudo (§10).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub become_method: String,
    /// Change nothing, and tell what would change (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Tell what changes, or would (§10).
    #[serde(skip_serializing_if = "is_false")]
    pub diff: bool,
}
