//! A host that is connected: how commands reach it, and what all kinds of work ask of it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_remote::{Call, Client, Command, Error, Exec, FileRead, FileWrite, Whom};

use super::harden;
use super::input::Input;
use super::inventory::Target;
use super::report::Printer;

/// A file that goes as text whatever it holds: every runner takes that.
const SHORT: usize = 1024 * 1024;

/// What work on a host has.
pub(crate) struct Connected<'a> {
    pub(crate) client: &'a Client,
    pub(crate) target: &'a Target,
    pub(crate) whom: Whom,
    pub(crate) printer: &'a Printer,
    pub(crate) timeout: Duration,
    /// How to log in anew.
    pub(crate) way: Option<&'a harden::Way<'a>>,
    /// Our standard input.
    pub(crate) stdin: Option<&'a Input>,
    /// Show what changes.
    pub(crate) diff: bool,
}

impl Connected<'_> {
    /// Runs a command as whom it is to run.
    pub(crate) async fn call<C: Command>(&self, command: C) -> Result<C::Result, Error> {
        self.client.run(&command.by(&self.whom), Call::within(self.timeout)).await
    }

    /// Runs `sh` with arguments; what it wrote.
    pub(crate) async fn shell(&self, args: Vec<String>) -> Result<Vec<u8>, Error> {
        let exec = Exec {
            command: "/bin/sh".into(),
            args,
            capture_out: true,
            capture_err: true,
            ..Default::default()
        };
        let result = self.call(exec).await?;
        if result.exit_code == 0 {
            let text = result.stdout.unwrap_or_default();
            return bytes_of(text.as_bytes(), result.stdout_base64.as_deref());
        }
        let said = result.stderr.unwrap_or_default();
        Err(Error::InvalidCommand(format!("sh on the host ended with {}: {}", result.exit_code, said.trim())))
    }

    /// What a file holds; `None`: it is not there. One that is longer than a line is an error.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.call(FileRead { path: path.to_owned(), ..Default::default() }).await {
            Ok(found) if found.truncated => {
                Err(Error::InvalidCommand(format!("{path} is longer than what is read at once, some 7 MiB")))
            }
            Ok(found) => bytes_of(found.content.as_bytes(), found.content_base64.as_deref()).map(Some),
            Err(Error::Command(failure)) if failure.message.ends_with("no such file or directory") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A path of which a shell would replace the start: `~` is our home there, `~USER` somebody's.
    pub(crate) async fn at_home(&self, path: &str) -> Result<String, Error> {
        let Some(rest) = path.strip_prefix('~') else { return Ok(path.to_owned()) };
        let (user, rest) = rest.split_once('/').map_or((rest, None), |(user, rest)| (user, Some(rest)));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !user.chars().all(plain) {
            return Ok(path.to_owned());
        }
        let ask = Exec { command: format!("printf %s ~{user}"), capture_out: true, ..Default::default() };
        let home = match self.client.run(&ask, Call::within(self.timeout)).await {
            Ok(result) => result.stdout.unwrap_or_default(),
            // A policy that lets nothing be asked: we come in at home.
            Err(Error::Denied(_)) if user.is_empty() => ".".to_owned(),
            Err(error) => return Err(error),
        };
        if home.starts_with('~') || home.is_empty() {
            return Err(Error::InvalidCommand(format!("there is no user {user} on the host, so no ~{user}")));
        }
        Ok(rest.map_or(home.clone(), |rest| format!("{home}/{rest}")))
    }
}

/// Bytes as a file's content: as text, if they are and if that is not the longer way (control
/// characters take six bytes each).
pub(crate) fn content(bytes: &[u8]) -> FileWrite {
    let longer = |byte: &u8| match byte {
        0..0x20 => 5,
        b'"' | b'\\' => 1,
        _ => 0,
    };
    let extra: usize = bytes.iter().map(longer).sum();
    match std::str::from_utf8(bytes) {
        Ok(text) if extra <= bytes.len() / 3 || bytes.len() < SHORT => {
            FileWrite { content: text.to_owned(), ..Default::default() }
        }
        _ => FileWrite { content_base64: Some(STANDARD.encode(bytes)), ..Default::default() },
    }
}

/// The exact bytes of a text that may have come with its bytes.
pub(crate) fn bytes_of(text: &[u8], base64: Option<&str>) -> Result<Vec<u8>, Error> {
    match base64 {
        None => Ok(text.to_vec()),
        Some(base64) => STANDARD.decode(base64).map_err(|_| Error::Read("bad base64".into())),
    }
}

/// An error, with the end of what a program said.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::Command(failure) => {
            let said = failure.details.as_ref().and_then(|details| details.get("output"));
            said.map_or_else(|| failure.message.clone(), |said| format!("{}\n{said}", failure.message))
        }
        other => other.to_string(),
    }
}

/// A local mistake as an error of the work.
pub(crate) fn invalid(error: impl std::fmt::Display) -> Error {
    Error::InvalidCommand(error.to_string())
}
