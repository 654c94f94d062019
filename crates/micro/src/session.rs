//! The process's life: READY, commands one after the other, EXIT.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ed25519_dalek::VerifyingKey;
use legwork_proto::micro::{
    self as wire, CommandType, Done, Exit, Failure, Metadata, Ready, code, go_duration, kind, reason,
};
use serde_json::value::RawValue;

use crate::commands;
use crate::idempotency::{Keys, Known};
use crate::input::Line;
use crate::options::Options;
use crate::os::{self, Signals};
use crate::output::{Output, PATIENCE, entry};
use crate::port::{Next, Port};
use crate::request::{self, Context, Request, Trouble};
use crate::signature;

/// Never deleted from, whatever the program's name: packages live here.
const PACKAGED: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/nix", "/snap"];

struct Session {
    options: Options,
    program: PathBuf,
    key: Option<VerifyingKey>,
    keys: Keys,
    port: Port,
    commands: u64,
}

/// Runs to the end; the exit status is the one that EXIT tells.
pub(crate) fn run(options: Options) -> ExitCode {
    let end = Instant::now() + options.ttl;
    let mut output = Output::open(end + PATIENCE);
    let started = prepare(options);
    let (key, program, signals, options) = match started {
        Ok(parts) => parts,
        Err(message) => {
            output.message(kind::ERROR, failure("", code::INIT_FAILED, message, None));
            output.close();
            return ExitCode::FAILURE;
        }
    };
    let elevated = options.elevated;
    let port = Port::new(signals, output, end);
    let mut session = Session { options, program, key, keys: Keys::default(), port, commands: 0 };
    let status = if elevated { session.serve_one() } else { session.serve() };
    session.port.output.close();
    status
}

type Parts = (Option<VerifyingKey>, PathBuf, Signals, Options);

fn prepare(options: Options) -> Result<Parts, String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("failed to get executable path: {}", os::cause(&error)))?;
    let key = options.verify_key.as_deref().map(signature::read_key).transpose();
    let key = key.map_err(|why| format!("failed to read the key to verify with: {why}"))?;
    let signals = Signals::install()
        .map_err(|error| format!("failed to install signal handlers: {}", os::cause(&error)))?;
    Ok((key, program, signals, options))
}

impl Session {
    fn serve(&mut self) -> ExitCode {
        self.ready();
        if let Some(process) = self.options.stay {
            self.port.tree.keep_until_gone(&self.program, process);
        }
        if self.port.output.broken() {
            self.delete();
            return ExitCode::FAILURE;
        }
        loop {
            let (why, status) = match self.port.next() {
                Next::Line(line) => match self.line(line) {
                    Ok(()) => continue,
                    Err(end) => end,
                },
                Next::Closed => (reason::STDIN_CLOSED, 0),
                Next::Expired => (reason::TTL_EXPIRED, 0),
                Next::Gone => (reason::ERROR, 1),
                Next::Signal(signal) => (reason::ERROR, 128 + signal),
            };
            let exit = Exit {
                reason: why.to_owned(),
                exit_code: status,
                self_deleted: self.delete(),
                commands_total: self.commands,
            };
            // It may find nobody: deletion came first.
            self.port.output.until = Instant::now() + PATIENCE;
            self.port.output.message(kind::EXIT, exit);
            return ExitCode::from(u8::try_from(status).unwrap_or(1));
        }
    }

    /// For an unprivileged runner: carries out one command and answers it, no more.
    fn serve_one(&mut self) -> ExitCode {
        if let Next::Line(line) = self.port.next() {
            let _ = self.line(line);
        }
        ExitCode::SUCCESS
    }

    fn ready(&mut self) {
        let (platform, arch) = os::platform();
        let can = |kind: CommandType| {
            let everywhere =
                matches!(kind, CommandType::Exec | CommandType::FileRead | CommandType::FileWrite);
            self.options.allowed.contains(&kind) && (everywhere || platform == "linux")
        };
        let capabilities: BTreeMap<String, bool> =
            CommandType::ALL.into_iter().map(|kind| (kind.name().to_owned(), can(kind))).collect();
        // A command's input has no signature.
        let features = if self.key.is_some() { "" } else { ",stdin" };
        let features = format!("{}{features}", wire::FEATURES);
        let metadata = Metadata::from([
            ("ttl".to_owned(), go_duration(self.options.ttl.as_secs())),
            ("implementation".to_owned(), concat!("legwork/", env!("CARGO_PKG_VERSION")).to_owned()),
            ("features".to_owned(), features),
        ]);
        let ready = Ready {
            version: wire::VERSION.to_owned(),
            platform: platform.to_owned(),
            arch: arch.to_owned(),
            pid: std::process::id(),
            capabilities,
            metadata,
        };
        self.port.output.message(kind::READY, ready);
    }

    /// Answers a line; an error ends us.
    fn line(&mut self, line: Line) -> Result<(), (&'static str, i32)> {
        let parsed = match line {
            Line::TooLong => Err(request::Invalid::new("", "line too long")),
            Line::Complete(bytes) => request::parse(&bytes).and_then(|request| {
                // It has no answer, and does nothing here.
                if request.input().is_some() { Ok(request) } else { self.admit(request) }
            }),
        };
        match parsed {
            // Of a command that has ended: it wanted no more.
            Ok(request) if request.input().is_some() => {}
            Ok(request) => self.carry_out(request),
            Err(invalid) => {
                let failure = failure(&invalid.id, code::INVALID_CMD, invalid.message, None);
                self.port.output.message(kind::ERROR, failure);
            }
        }
        if let Some(signal) = self.port.signals.terminated() {
            return Err((reason::ERROR, 128 + signal));
        }
        if self.port.output.broken() { Err((reason::ERROR, 1)) } else { Ok(()) }
    }

    fn admit(&self, request: Request) -> Result<Request, request::Invalid> {
        if let Some(key) = &self.key {
            signature::check(key, &request).map_err(|why| request::Invalid::new(&request.id, why))?;
        }
        if !self.options.allowed.contains(&request.kind) {
            let message = format!("command type disabled: {}", request.kind.name());
            return Err(request::Invalid::new(&request.id, message));
        }
        Ok(request)
    }

    fn carry_out(&mut self, mut request: Request) {
        self.commands += 1;
        let begun = Instant::now();
        let key = request.key.take();
        if let Some(key) = &key {
            match self.keys.look_up(key, &request) {
                Known::New => {}
                Known::Result(result) => {
                    if let Ok(result) = serde_json::from_str::<&RawValue>(result) {
                        let metadata = Some(entry("replayed", "true"));
                        let duration = begun.elapsed().as_secs_f64();
                        self.port.output.message(kind::DONE, done(&request.id, result, duration, metadata));
                    }
                    return;
                }
                Known::Refused(why) => {
                    let failure = failure(&request.id, code::INVALID_CMD, why.to_owned(), None);
                    return self.port.output.message(kind::ERROR, failure);
                }
            }
        }
        let deadline = begun + Duration::from_secs(request.timeout.min(86_400 * 365));
        let restricted = !self.options.allowed.contains(&CommandType::Exec);
        let elevated = self.options.elevated;
        let (signed, deadline) = (self.key.is_some(), deadline.min(self.port.end));
        let mut context = Context { deadline, port: &mut self.port, restricted, elevated, signed };
        let answer = commands::run(&mut context, &request);
        let duration = begun.elapsed().as_secs_f64();
        match answer {
            Ok(answer) => {
                let final_result = answer.is_success();
                match key
                    .filter(|_| final_result)
                    .and_then(|key| Some((key, serde_json::to_string(&answer).ok()?)))
                {
                    Some((key, result)) => {
                        if let Ok(raw) = serde_json::from_str::<&RawValue>(&result) {
                            self.port.output.message(kind::DONE, done(&request.id, raw, duration, None));
                        }
                        self.keys.keep(key, &request, result);
                    }
                    None => self.port.output.message(kind::DONE, done(&request.id, answer, duration, None)),
                }
            }
            Err(trouble) => {
                let failure = self.failed(&request, trouble);
                self.port.output.message(kind::ERROR, failure);
            }
        }
    }

    fn failed(&self, request: &Request, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Failed(message, details) => failure(&request.id, code::EXEC_FAILED, message, details),
            Trouble::Stopped => {
                failure(&request.id, code::EXEC_FAILED, "terminated by signal".to_owned(), None)
            }
            Trouble::Left(message) => failure(&request.id, code::TIMEOUT, message, None),
            Trouble::TimedOut => {
                let seconds = request.timeout;
                let message = if Instant::now() >= self.port.end {
                    "command stopped: the runner's time to live is over".to_owned()
                } else {
                    format!("command timed out after {seconds} s")
                };
                failure(&request.id, code::TIMEOUT, message, None)
            }
        }
    }

    /// Deletes the program, if it is one that was put here to be deleted.
    fn delete(&self) -> bool {
        let asked = self.options.self_delete.unwrap_or_else(|| is_disposable(&self.program));
        let deleted = asked && !is_packaged(&self.program) && std::fs::remove_file(&self.program).is_ok();
        // The folder that a controller made for it, if nothing else is in there.
        let folder = self.program.parent().filter(|_| deleted);
        if let Some(folder) = folder.filter(|folder| {
            folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(wire::FOLDER_PREFIX))
        }) {
            let _ = std::fs::remove_dir(folder);
        }
        deleted
    }
}

/// Whether a program was put where it is to be deleted.
pub(crate) fn is_disposable(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let disposable = [wire::FILE_PREFIX, wire::FILE_PREFIX_OF_ORIGINAL];
    disposable.iter().any(|prefix| name.starts_with(prefix)) && !is_packaged(program)
}

fn is_packaged(program: &Path) -> bool {
    PACKAGED.iter().any(|folder| program.starts_with(folder))
}

fn done<R>(id: &str, result: R, duration: f64, metadata: Option<Metadata>) -> Done<R> {
    Done { command_id: id.to_owned(), result, duration, metadata }
}

fn failure(id: &str, code: &str, message: String, details: Option<Metadata>) -> Failure {
    Failure {
        command_id: id.to_owned(),
        code: code.to_owned(),
        message,
        details,
        retryable: false,
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_never_deleted_from() {
        for path in ["/usr/bin/micro-runner", "/usr/local/bin/micro-runner", "/opt/x/micro-runner"] {
            assert!(is_packaged(Path::new(path)), "{path}");
        }
        for path in ["/tmp/micro-runner", "/home/a/usr/micro-runner", "/var/tmp/x/micro-runner-1"] {
            assert!(!is_packaged(Path::new(path)), "{path}");
        }
    }
}
