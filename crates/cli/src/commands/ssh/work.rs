//! What is to be done on each host.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_remote::{
    Call, Client, Command, Error, Event, Exec, FileRead, FileWrite, PkgEnsure, Secret, ServiceReload,
    SshdHarden, SudoersEnsure,
};
use serde::Serialize;

use super::inventory::Target;
use super::report::{Printer, Report, State, Style};
use super::{copy, harden};
use crate::args::ssh::SshCommon;
use crate::commands::exec::line_of;

/// The work, with all it needs but the host.
pub(crate) enum Work {
    Exec(Exec),
    Copy(copy::Plan),
    Packages(Vec<PkgEnsure>),
    Services(Vec<ServiceReload>),
    Read(FileRead),
    Write(FileWrite),
    Sudoers(SudoersEnsure),
    Harden(SshdHarden),
}

/// Bytes as a file's content: as text if they are.
pub(crate) fn content(bytes: &[u8]) -> FileWrite {
    match std::str::from_utf8(bytes) {
        Ok(text) => FileWrite { content: text.to_owned(), ..Default::default() },
        Err(_) => FileWrite { content_base64: Some(STANDARD.encode(bytes)), ..Default::default() },
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

impl Work {
    pub(crate) fn exec(words: &[String], common: &SshCommon, password: Secret) -> Self {
        Self::Exec(Exec {
            command: line_of(words),
            use_sudo: common.sudo,
            sudo_password: password,
            ..Default::default()
        })
    }

    /// How many commands one after the other.
    pub(crate) fn steps(&self) -> usize {
        match self {
            Self::Packages(all) => all.len(),
            Self::Services(all) => all.len(),
            Self::Copy(_) => 1000,
            _ => 1,
        }
    }

    pub(crate) async fn run(
        &self,
        client: &Client,
        target: &Target,
        printer: &Printer,
        timeout: Duration,
        way: Option<&harden::Way<'_>>,
    ) -> Result<Report, Error> {
        let call = || Call::within(timeout);
        let mut report = Report::new(&target.name, State::Succeeded);
        match self {
            Self::Exec(exec) => return run_exec(exec, client, target, printer, call()).await,
            Self::Copy(plan) => plan.run(client, target, &mut report, timeout).await?,
            Self::Packages(all) => {
                for package in all {
                    let result = client.run(package, call()).await?;
                    let version =
                        if result.installed_version.is_empty() { "" } else { &result.installed_version };
                    let line = format!("{}: {} {version}", package.name, result.action);
                    add(&mut report, package.dry_run, result.changed, line.trim_end().to_owned(), &result);
                }
            }
            Self::Services(all) => {
                for service in all {
                    let result = client.run(service, call()).await?;
                    let line = format!(
                        "{}: {}, {} ({})",
                        service.name, result.action, result.status, result.sub_state
                    );
                    add(&mut report, service.dry_run, result.changed, line, &result);
                }
            }
            Self::Read(read) => {
                let result = client.run(read, call()).await?;
                let bytes = bytes_of(result.content.as_bytes(), result.content_base64.as_deref())?;
                if result.truncated {
                    report.state = State::Failed;
                    let (has, read) = (result.size, bytes.len());
                    report.error = Some(format!(
                        "the file has {has} bytes, and {read} were read; `legwork ssh cp` copies it"
                    ));
                }
                match printer.style {
                    Style::Json => report.results.push(serde_json::to_value(&result).unwrap_or_default()),
                    Style::Plain => printer.output(&target.name, false, &bytes, false),
                    _ => report.stdout = Some(String::from_utf8_lossy(&bytes).into_owned()),
                }
                if printer.style == Style::Prefixed {
                    let text = report.stdout.take().unwrap_or_default();
                    text.lines().for_each(|line| printer.output(&target.name, false, line.as_bytes(), true));
                }
            }
            Self::Write(write) => {
                let result = client.run(write, call()).await?;
                let verb = if result.created { "created" } else { "written" };
                let line = format!("{}: {verb}, {} bytes", write.path, result.bytes_written);
                add(&mut report, write.dry_run, true, line, &result);
            }
            Self::Sudoers(sudoers) => {
                let result = client.run(sudoers, call()).await?;
                let line = format!("{}: {}", result.file_path, result.action);
                add(&mut report, sudoers.dry_run, result.changed, line, &result);
            }
            Self::Harden(settings) => {
                let result = match way.filter(|_| settings.test_connection) {
                    Some(way) => harden::run(settings, client, way, timeout).await?,
                    None if settings.test_connection => {
                        let why = "no new login can be tried through --via; --no-test hardens without";
                        return Err(Error::InvalidCommand(why.into()));
                    }
                    None => client.run(settings, call()).await?,
                };
                let keys = result.modified_keys.join(", ");
                let proved = if settings.test_connection && !settings.dry_run {
                    "set; a new login works, and what is to be off was tried in vain"
                } else {
                    "set"
                };
                let line = format!("sshd: {keys}: {}", if result.changed { proved } else { "already so" });
                add(&mut report, settings.dry_run, result.changed, line, &result);
            }
        }
        Ok(report)
    }
}

fn add<R: Serialize>(report: &mut Report, dry: bool, changed: bool, line: String, result: &R) {
    let line = if dry && changed { format!("{line} (dry run: nothing was changed)") } else { line };
    report.said.push(line);
    report.changed = Some(report.changed.unwrap_or(false) || changed);
    report.results.push(serde_json::to_value(result).unwrap_or_default());
}

/// The exact bytes of a text that may have come with its bytes.
pub(crate) fn bytes_of(text: &[u8], base64: Option<&str>) -> Result<Vec<u8>, Error> {
    match base64 {
        None => Ok(text.to_vec()),
        Some(base64) => STANDARD.decode(base64).map_err(|_| Error::Read("bad base64".into())),
    }
}

async fn run_exec(
    exec: &Exec,
    client: &Client,
    target: &Target,
    printer: &Printer,
    call: Call,
) -> Result<Report, Error> {
    let live = matches!(printer.style, Style::Plain | Style::Prefixed) && client.ready().has("stream");
    let exec = Exec { stream_lines: live, capture_out: !live, capture_err: !live, ..exec.clone() };
    let mut pending = client.send(&exec, call).await?;
    while let Some(event) = pending.next_event().await {
        show(&event, &target.name, printer)?;
    }
    let result = pending.result().await?;
    let note = |name: &str| result.metadata.as_ref().and_then(|metadata| metadata.get(name));
    let (timed_out, signal) = (note("timed_out").is_some(), note("signal").and_then(|n| n.parse().ok()));
    let state = match result.exit_code {
        _ if timed_out => State::TimedOut,
        0 => State::Succeeded,
        _ => State::Failed,
    };
    let mut error = timed_out.then(|| "the command ran out of time and was ended".to_owned());
    for stream in ["stdout", "stderr"] {
        if note(&format!("{stream}_truncated")).is_some() {
            error = Some(format!("only the first part of {stream} was kept: it is longer than 4 MiB"));
        }
    }
    let mut report = Report::new(&target.name, state);
    if !live && !matches!(printer.style, Style::Json | Style::Grouped) {
        for (stderr, text, base64) in
            [(false, &result.stdout, &result.stdout_base64), (true, &result.stderr, &result.stderr_base64)]
        {
            let bytes = bytes_of(text.as_deref().unwrap_or_default().as_bytes(), base64.as_deref())?;
            printer.output(&target.name, stderr, &bytes, false);
        }
    } else {
        (report.stdout, report.stderr) = (result.stdout, result.stderr);
        (report.stdout_base64, report.stderr_base64) = (result.stdout_base64, result.stderr_base64);
    }
    report.exit_code = Some(result.exit_code);
    (report.signal, report.error) = (signal, error);
    Ok(report)
}

fn show(event: &Event, host: &str, printer: &Printer) -> Result<(), Error> {
    let note = |name: &str| event.metadata.get(name).map(String::as_str);
    let bytes = bytes_of(event.message.as_bytes(), note("base64"))?;
    printer.output(host, note("stream") == Some("stderr"), &bytes, note("continued").is_none());
    Ok(())
}

/// A command by itself, for what is built of several.
pub(crate) async fn call<C: Command>(
    client: &Client,
    command: &C,
    timeout: Duration,
) -> Result<C::Result, Error> {
    client.run(command, Call::within(timeout)).await
}
