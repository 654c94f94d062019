//! What is to be done on each host.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_remote::{
    Call, Client, Command, Error, Event, Exec, FileRead, FileWrite, PkgEnsure, Secret, ServiceReload,
    SshdHarden, SudoersEnsure, result,
};
use serde::Serialize;

use super::input::Input;
use super::inventory::Target;
use super::report::{Printer, Report, State, Style};
use super::{copy, diff, harden, sync};
use crate::args::ssh::SshCommon;
use crate::commands::exec::line_of;

/// Linux takes arguments below 128 KiB.
const MAX_SCRIPT: usize = 120 * 1024;
/// A file that goes as text whatever it holds: every runner takes that.
const SHORT: usize = 1024 * 1024;

/// The work, with all it needs but the host.
pub(crate) enum Work {
    Exec(Exec),
    Copy(copy::Plan),
    Sync(sync::Plan),
    Packages(Vec<PkgEnsure>),
    Services(Vec<ServiceReload>),
    Read(FileRead),
    /// With its bytes, where the difference is to be shown.
    Write(FileWrite, Option<Vec<u8>>),
    Sudoers(SudoersEnsure),
    Harden(SshdHarden),
}

/// A local file as the text of the program that its first line names, or of a shell.
fn script(exec: &mut Exec, file: &Path, words: &[String]) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    if text.len() > MAX_SCRIPT {
        bail!("{} is longer than an argument may be; `legwork ssh cp` copies it", file.display());
    }
    let first =
        text.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim).unwrap_or_default();
    let mut program: Vec<String> = first.split_whitespace().map(str::to_owned).collect();
    if program.is_empty() {
        program.push(if exec.shell.is_empty() {
            "/bin/sh".to_owned()
        } else {
            std::mem::take(&mut exec.shell)
        });
    }
    let by = program.iter().rev().find(|word| !word.starts_with('-')).cloned().unwrap_or_default();
    let by = by.rsplit('/').next().unwrap_or_default();
    // What each takes a program's text by.
    let flag = match by.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
        "perl" | "ruby" | "node" | "lua" => "-e",
        "php" => "-r",
        _ => "-c",
    };
    exec.command = program.remove(0);
    exec.args = program;
    exec.args.extend([flag.to_owned(), text]);
    if matches!(by, "sh" | "bash" | "dash" | "ksh" | "zsh" | "ash") {
        // A shell takes the name of the script before its arguments.
        exec.args.push(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    exec.args.extend(words.iter().cloned());
    exec.shell.clear();
    Ok(())
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
    pub(crate) fn exec(
        words: &[String],
        common: &SshCommon,
        use_sudo: bool,
        become_method: String,
        sudo_password: Secret,
    ) -> Result<Self> {
        let mut exec = Exec {
            command: line_of(words),
            shell: common.shell.clone().unwrap_or_default(),
            work_dir: common.chdir.clone().unwrap_or_default(),
            use_sudo,
            sudo_password,
            become_method,
            become_user: common.become_user.clone().unwrap_or_default(),
            ..Default::default()
        };
        if let Some(file) = &common.script {
            script(&mut exec, file, words)?;
        }
        for variable in &common.env {
            let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                bail!("--env {variable}: expected NAME=VALUE");
            };
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                || name.starts_with(|c: char| c.is_ascii_digit())
            {
                bail!("--env {variable}: {name:?} is not the name of a variable");
            }
        }
        if !common.env.is_empty() {
            // Added to the host's own: a new environment would lack all of that.
            let mut args = common.env.clone();
            if exec.args.is_empty() {
                let shell = if exec.shell.is_empty() {
                    "/bin/sh".to_owned()
                } else {
                    std::mem::take(&mut exec.shell)
                };
                args.extend([shell, "-c".to_owned(), std::mem::take(&mut exec.command)]);
            } else {
                args.push(std::mem::take(&mut exec.command));
                args.append(&mut exec.args);
            }
            (exec.command, exec.args) = ("env".to_owned(), args);
        }
        Ok(Self::Exec(exec))
    }

    /// How many commands one after the other.
    pub(crate) fn steps(&self) -> usize {
        match self {
            Self::Packages(all) => all.len(),
            Self::Services(all) => all.len(),
            Self::Copy(_) | Self::Sync(_) => 1000,
            _ => 1,
        }
    }

    pub(crate) async fn run(
        &self,
        client: &Client,
        target: &Target,
        given: &Given<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let timeout = given.timeout;
        let call = || Call::within(timeout);
        match self {
            Self::Exec(exec) => return run_exec(exec, client, target, given, report).await,
            Self::Copy(plan) => plan.run(client, target, report, timeout).await?,
            Self::Sync(plan) => plan.run(client, target, report, timeout).await?,
            Self::Packages(all) => {
                for package in all {
                    let Some(result) = note(report, &package.name, client.run(package, call()).await)? else {
                        continue;
                    };
                    let version =
                        if result.installed_version.is_empty() { "" } else { &result.installed_version };
                    let line = format!("{}: {} {version}", package.name, result.action);
                    add(report, package.dry_run, result.changed, line.trim_end().to_owned(), &result);
                }
            }
            Self::Services(all) => {
                for service in all {
                    let Some(result) = note(report, &service.name, client.run(service, call()).await)? else {
                        continue;
                    };
                    let line = format!(
                        "{}: {}, {} ({})",
                        service.name, result.action, result.status, result.sub_state
                    );
                    add(report, service.dry_run, result.changed, line, &result);
                }
            }
            Self::Read(read) => read_file(read, client, target, given, report).await?,
            Self::Write(write, bytes) => write_file(write, bytes.as_deref(), client, timeout, report).await?,
            Self::Sudoers(sudoers) => {
                let result = client.run(sudoers, call()).await?;
                let line = format!("{}: {}", result.file_path, result.action);
                add(report, sudoers.dry_run, result.changed, line, &result);
            }
            Self::Harden(settings) => harden_sshd(settings, client, given, report).await?,
        }
        Ok(())
    }
}

/// What work on a host has besides the host.
pub(crate) struct Given<'a> {
    pub(crate) printer: &'a Printer,
    pub(crate) timeout: Duration,
    /// How to log in anew.
    pub(crate) way: Option<&'a harden::Way<'a>>,
    /// Our standard input.
    pub(crate) stdin: Option<&'a Input>,
}

/// One of several: that it failed is noted, and the others have their turn. An error that
/// leaves no way to go on ends it.
fn note<R>(report: &mut Report, name: &str, result: Result<R, Error>) -> Result<Option<R>, Error> {
    match result {
        Ok(result) => Ok(Some(result)),
        Err(error @ (Error::Command(_) | Error::InvalidCommand(_))) => {
            let former = report.error.take().map(|former| format!("{former}\n")).unwrap_or_default();
            report.error = Some(format!("{former}{name}: {}", explain(&error)));
            let late = matches!(&error, Error::Command(failure) if failure.code == "TIMEOUT");
            report.state = if late { State::TimedOut } else { State::Failed };
            Ok(None)
        }
        Err(error) => {
            let failed = report.error.take().map(|former| format!("{former}\n")).unwrap_or_default();
            if !failed.is_empty() {
                report.said.push(failed.trim_end().to_owned());
            }
            Err(error)
        }
    }
}

/// What a file holds before it is changed; `None`: it is not there.
pub(crate) async fn former(
    client: &Client,
    read: &FileRead,
    timeout: Duration,
) -> Result<Option<Vec<u8>>, Error> {
    match client.run(read, Call::within(timeout)).await {
        Ok(found) => bytes_of(found.content.as_bytes(), found.content_base64.as_deref()).map(Some),
        Err(Error::Command(failure)) if failure.message.ends_with("no such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// A path of which a shell would replace the start: `~` is our home there, `~USER` somebody's.
pub(crate) async fn at_home(client: &Client, path: &str, timeout: Duration) -> Result<String, Error> {
    let Some(rest) = path.strip_prefix('~') else { return Ok(path.to_owned()) };
    let (user, rest) = rest.split_once('/').map_or((rest, None), |(user, rest)| (user, Some(rest)));
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !user.chars().all(plain) {
        return Ok(path.to_owned());
    }
    let ask = Exec { command: format!("printf %s ~{user}"), capture_out: true, ..Default::default() };
    let home = match client.run(&ask, Call::within(timeout)).await {
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

async fn read_file(
    read: &FileRead,
    client: &Client,
    target: &Target,
    given: &Given<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    let (printer, timeout) = (given.printer, given.timeout);
    let call = || Call::within(timeout);
    let path = at_home(client, &read.path, timeout).await?;
    let result = client.run(&FileRead { path, ..read.clone() }, call()).await?;
    let bytes = bytes_of(result.content.as_bytes(), result.content_base64.as_deref())?;
    if result.truncated {
        report.state = State::Failed;
        let (has, read) = (result.size, bytes.len());
        report.error =
            Some(format!("the file has {has} bytes, and {read} were read; `legwork ssh cp` copies it"));
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
    Ok(())
}

async fn write_file(
    write: &FileWrite,
    bytes: Option<&[u8]>,
    client: &Client,
    timeout: Duration,
    report: &mut Report,
) -> Result<(), Error> {
    let call = || Call::within(timeout);
    let path = at_home(client, &write.path, timeout).await?;
    let former = match bytes {
        Some(_) => {
            let (use_sudo, sudo_password) = (write.use_sudo, write.sudo_password.clone());
            let become_method = write.become_method.clone();
            let path = path.clone();
            let read = FileRead { path, use_sudo, sudo_password, become_method, ..Default::default() };
            former(client, &read, timeout).await?
        }
        None => None,
    };
    let result = client.run(&FileWrite { path, ..write.clone() }, call()).await?;
    let verb = match (result.created, result.changed) {
        (true, _) => "created",
        (_, true) => "written",
        (_, false) => "unchanged",
    };
    let line = format!("{}: {verb}, {} bytes", write.path, result.bytes_written);
    add(report, write.dry_run, result.changed, line, &result);
    if let Some(bytes) = bytes {
        report.said.extend(diff::unified(&write.path, former.as_deref(), bytes));
    }
    Ok(())
}

async fn harden_sshd(
    settings: &SshdHarden,
    client: &Client,
    given: &Given<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    let timeout = given.timeout;
    let call = || Call::within(timeout);
    let result = match given.way.filter(|_| settings.test_connection) {
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
    add(report, settings.dry_run, result.changed, line, &result);
    Ok(())
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
    given: &Given<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    let (printer, has) = (given.printer, |feature| client.ready().has(feature));
    let live = matches!(printer.style, Style::Plain | Style::Prefixed) && has("stream");
    let stdin = given.stdin.filter(|_| has("stdin"));
    let exec = Exec {
        stream_lines: live,
        stream_chunks: live && has("chunks"),
        stdin: stdin.is_some(),
        capture_out: !live,
        capture_err: !live,
        ..exec.clone()
    };
    let mut pending = client.send(&exec, Call::within(given.timeout)).await?;
    let (id, (ended, over)) = (pending.id().to_owned(), tokio::sync::watch::channel(false));
    let giving = async {
        match stdin {
            Some(stdin) => stdin.give(client, &id, over).await,
            None => Ok(()),
        }
    };
    let showing = async {
        while let Some(event) = pending.next_event().await {
            show(&event, &target.name, printer)?;
        }
        let result = pending.result().await;
        let _ = ended.send(true);
        result
    };
    // That the host wants no more input is told by how the command ended.
    let (_, result) = tokio::join!(giving, showing);
    finish_exec(result?, live, target, printer, report)
}

fn finish_exec(
    result: result::Exec,
    live: bool,
    target: &Target,
    printer: &Printer,
    report: &mut Report,
) -> Result<(), Error> {
    let note = |name: &str| result.metadata.as_ref().and_then(|metadata| metadata.get(name));
    let (timed_out, signal) = (note("timed_out").is_some(), note("signal").and_then(|n| n.parse().ok()));
    report.state = match result.exit_code {
        _ if timed_out => State::TimedOut,
        0 => State::Succeeded,
        _ => State::Failed,
    };
    report.error = timed_out.then(|| "the command ran out of time and was ended".to_owned());
    report.stdout_truncated = note("stdout_truncated").is_some();
    report.stderr_truncated = note("stderr_truncated").is_some();
    report.exit_code = Some(result.exit_code);
    report.signal = signal;
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
    Ok(())
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
