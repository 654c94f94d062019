//! The seven commands, each with its result; and how one is called.

use std::time::Duration;

use legwork_proto::micro::{CommandType, params, result};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use params::{Exec, FileRead, FileWrite, PkgEnsure, ServiceReload, SshdHarden, SudoersEnsure};

/// Parameters of a command, with the result it gives.
pub trait Command: Serialize + Sync {
    /// Which command.
    const KIND: CommandType;
    /// What it gives.
    type Result: DeserializeOwned + Send + 'static;

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

/// The names whose condition holds.
fn features<const N: usize>(asked: [(bool, &'static str); N]) -> Vec<&'static str> {
    asked.into_iter().filter_map(|(asked, name)| asked.then_some(name)).collect()
}

impl Command for Exec {
    const KIND: CommandType = CommandType::Exec;
    type Result = result::Exec;

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

    fn needs(&self) -> Vec<&'static str> {
        features([
            (self.dry_run, "dry_run"),
            (self.content_base64.is_some(), "base64"),
            (!self.parts.is_empty(), "parts"),
            (!self.become_method.is_empty(), "become"),
        ])
    }
}

impl Command for FileRead {
    const KIND: CommandType = CommandType::FileRead;
    type Result = result::FileRead;

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

    fn needs(&self) -> Vec<&'static str> {
        features([
            (self.dry_run, "dry_run"),
            (self.use_sudo, "sudo"),
            (!self.become_method.is_empty(), "become"),
        ])
    }
}

impl Command for ServiceReload {
    const KIND: CommandType = CommandType::ServiceReload;
    type Result = result::ServiceReload;

    fn needs(&self) -> Vec<&'static str> {
        features([
            (self.dry_run, "dry_run"),
            (self.use_sudo, "sudo"),
            (!self.become_method.is_empty(), "become"),
        ])
    }
}

impl Command for SudoersEnsure {
    const KIND: CommandType = CommandType::SudoersEnsure;
    type Result = result::SudoersEnsure;

    fn needs(&self) -> Vec<&'static str> {
        features([(self.dry_run, "dry_run"), (!self.become_method.is_empty(), "become")])
    }
}

impl Command for SshdHarden {
    const KIND: CommandType = CommandType::SshdHarden;
    type Result = result::SshdHarden;

    fn needs(&self) -> Vec<&'static str> {
        let waits = self.confirm_within > 0 || !self.confirm.is_empty() || !self.undo.is_empty();
        features([
            (self.dry_run, "dry_run"),
            (self.use_sudo, "sudo"),
            (waits, "rollback"),
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
