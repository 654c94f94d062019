//! The seven commands, each with its result; and how one is called.

use std::time::Duration;

use legwork_proto::micro::params::Secret;
use legwork_proto::micro::{CommandType, params, result};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use params::{Exec, FileRead, FileWrite, PkgEnsure, ServiceReload, SshdHarden, SudoersEnsure};

/// As whom a command works on the host; by default as the one who is logged in.
#[derive(Debug, Clone, Default)]
pub struct Whom {
    /// As root, or as another user.
    pub elevated: bool,
    /// For sudo, or of the other user for su.
    pub password: Secret,
    /// `su` or `doas`; empty: sudo.
    pub method: String,
    /// Empty: root. Only `exec` works as anybody else.
    pub user: String,
}

/// Parameters of a command, with the result it gives.
pub trait Command: Serialize + Sync + Clone {
    /// Which command.
    const KIND: CommandType;
    /// What it gives.
    type Result: DeserializeOwned + Send + 'static;

    /// The same command, as somebody.
    #[must_use]
    fn by(self, whom: &Whom) -> Self;

    /// The command as a policy sees it; `None` if no policy is to see it.
    fn as_exec(&self) -> Option<&Exec> {
        None
    }

    /// The extensions that it makes use of, by their names in `READY` (the protocol's page,
    /// §10). A runner that does not announce one would ignore the field and do something
    /// else, so the command is not sent to it.
    fn needs(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// What all commands but `exec` know of whom they work as.
macro_rules! by {
    () => {
        fn by(mut self, whom: &Whom) -> Self {
            self.use_sudo = whom.elevated;
            self.sudo_password = whom.password.clone();
            self.become_method = whom.method.clone();
            self
        }
    };
}

/// The names whose condition holds.
fn features<const N: usize>(asked: [(bool, &'static str); N]) -> Vec<&'static str> {
    asked.into_iter().filter_map(|(asked, name)| asked.then_some(name)).collect()
}

impl Command for Exec {
    const KIND: CommandType = CommandType::Exec;
    type Result = result::Exec;

    fn by(mut self, whom: &Whom) -> Self {
        self.use_sudo = whom.elevated;
        self.sudo_password = whom.password.clone();
        self.become_method = whom.method.clone();
        self.become_user = whom.user.clone();
        self
    }

    fn as_exec(&self) -> Option<&Exec> {
        Some(self)
    }

    fn needs(&self) -> Vec<&'static str> {
        let becomes = !(self.become_method.is_empty() && self.become_user.is_empty());
        features([(self.stream_chunks, "chunks"), (self.stdin, "stdin"), (becomes, "become")])
    }
}

impl Command for FileWrite {
    const KIND: CommandType = CommandType::FileWrite;
    type Result = result::FileWrite;

    by!();

    fn needs(&self) -> Vec<&'static str> {
        features([
            (self.dry_run, "dry_run"),
            (self.content_base64.is_some(), "base64"),
            (!self.parts.is_empty(), "parts"),
            (!self.former.is_empty(), "former"),
            (!self.become_method.is_empty(), "become"),
        ])
    }
}

impl Command for FileRead {
    const KIND: CommandType = CommandType::FileRead;
    type Result = result::FileRead;

    by!();

    fn needs(&self) -> Vec<&'static str> {
        features([
            (self.use_sudo, "sudo"),
            (self.stat, "stat"),
            (self.list, "list"),
            (!self.become_method.is_empty(), "become"),
        ])
    }
}

impl Command for PkgEnsure {
    const KIND: CommandType = CommandType::PkgEnsure;
    type Result = result::PkgEnsure;

    by!();

    fn needs(&self) -> Vec<&'static str> {
        let original = matches!(self.state.as_str(), "" | "present" | "absent" | "latest")
            && matches!(self.manager.as_str(), "" | "apt" | "dnf" | "yum" | "zypper")
            && !self.name.starts_with('@');
        features([
            (!original, "states"),
            (self.diff, "diff"),
            (self.dry_run, "dry_run"),
            (self.use_sudo, "sudo"),
            (!self.become_method.is_empty(), "become"),
        ])
    }
}

impl Command for ServiceReload {
    const KIND: CommandType = CommandType::ServiceReload;
    type Result = result::ServiceReload;

    by!();

    fn needs(&self) -> Vec<&'static str> {
        let more = ["status", "mask", "unmask", "daemon-reload"].contains(&self.action.as_str());
        features([
            (more, "states"),
            (self.dry_run, "dry_run"),
            (self.use_sudo, "sudo"),
            (!self.become_method.is_empty(), "become"),
        ])
    }
}

impl Command for SudoersEnsure {
    const KIND: CommandType = CommandType::SudoersEnsure;
    type Result = result::SudoersEnsure;

    by!();

    fn needs(&self) -> Vec<&'static str> {
        features([(self.dry_run, "dry_run"), (self.diff, "diff"), (!self.become_method.is_empty(), "become")])
    }
}

impl Command for SshdHarden {
    const KIND: CommandType = CommandType::SshdHarden;
    type Result = result::SshdHarden;

    by!();

    fn needs(&self) -> Vec<&'static str> {
        let waits = self.confirm_within > 0 || !self.confirm.is_empty() || !self.undo.is_empty();
        features([
            (self.dry_run, "dry_run"),
            (self.use_sudo, "sudo"),
            (waits, "rollback"),
            (self.diff, "diff"),
            (!self.become_method.is_empty(), "become"),
        ])
    }
}

/// How a command is called.
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) timeout: Duration,
    pub(crate) key: Option<String>,
    pub(crate) retries: u32,
}

impl Call {
    /// The runner ends the command after this time, in whole seconds, at least one.
    pub fn within(timeout: Duration) -> Self {
        Self { timeout, key: None, retries: 0 }
    }

    /// The same key and command again, on the same runner, give the same result again.
    #[must_use]
    pub fn idempotent(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Tries again up to so many times, only where the runner says that it may.
    #[must_use]
    pub fn retries(mut self, times: u32) -> Self {
        self.retries = times;
        self
    }

    pub(crate) fn seconds(&self) -> u64 {
        (self.timeout.as_secs() + u64::from(self.timeout.subsec_nanos() > 0)).max(1)
    }
}
