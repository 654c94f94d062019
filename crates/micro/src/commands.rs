//! The seven commands: each takes the params as sent and gives an [`Answer`].

mod exec;
mod file;
mod file_read;
mod file_write;
mod package;
mod package_manager;
mod package_state;
mod service;
mod sshd;
mod sshd_config;
mod sshd_lockout;
mod sshd_pending;
mod sudoers;

pub(crate) use file::temporary;
use legwork_proto::micro::{CommandType, result};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::elevate::{self, Whom};
use crate::fields::Fields;
use crate::request::{Context, Request, Trouble};

/// A result, ready to be written.
#[derive(Debug)]
pub(crate) enum Answer {
    Exec(exec::Outcome),
    FileRead(file_read::Content),
    FileWrite(result::FileWrite),
    Package(result::PkgEnsure),
    Service(result::ServiceReload),
    Sudoers(result::SudoersEnsure),
    Sshd(result::SshdHarden),
    /// From our elevated self.
    Raw(Box<RawValue>),
}

impl Answer {
    /// Whether the same command may be answered by this again.
    pub(crate) fn is_success(&self) -> bool {
        !matches!(self, Self::Exec(outcome) if outcome.timed_out())
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exec(outcome) => outcome.result().serialize(serializer),
            Self::FileRead(content) => content.result().serialize(serializer),
            Self::FileWrite(result) => result.serialize(serializer),
            Self::Package(result) => result.serialize(serializer),
            Self::Service(result) => result.serialize(serializer),
            Self::Sudoers(result) => result.serialize(serializer),
            Self::Sshd(result) => result.serialize(serializer),
            Self::Raw(result) => result.serialize(serializer),
        }
    }
}

/// Carries a command out.
pub(crate) fn run(context: &mut Context<'_>, request: &Request) -> Result<Answer, Trouble> {
    // `exec` has its own way: the program itself runs by sudo.
    if request.kind != CommandType::Exec && !context.elevated {
        let names = &["use_sudo", "sudo_password", "become_method", "become_user"];
        let fields = Fields::parse(&request.params, names)?;
        if let Some(whom) = Whom::read(&fields)? {
            return elevate::as_root(context, request, whom, &fields.string("sudo_password")?);
        }
    }
    match request.kind {
        CommandType::Exec => exec::run(context, request).map(Answer::Exec),
        CommandType::FileRead => file_read::run(context, request).map(Answer::FileRead),
        CommandType::FileWrite => file_write::run(context, request).map(Answer::FileWrite),
        CommandType::PkgEnsure => package::run(context, request).map(Answer::Package),
        CommandType::ServiceReload => service::run(context, request).map(Answer::Service),
        CommandType::SudoersEnsure => sudoers::run(context, request).map(Answer::Sudoers),
        CommandType::SshdHarden => sshd::run(context, request).map(Answer::Sshd),
    }
}
