//! Commands on hosts: a line, a script, their environment; and what they write.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use legwork_remote::{Call, Command as _, Error, Event, Exec, result};

use super::connected::{Connected, bytes_of};
use super::report::{Report, State, Style};
use crate::args::ssh::SshCommon;
use crate::commands::exec::line_of;

/// Linux takes arguments below 128 KiB.
const MAX_SCRIPT: usize = 120 * 1024;

/// What the command line asks for.
pub(crate) fn asked(words: &[String], common: &SshCommon) -> Result<Exec> {
    let mut exec = Exec {
        command: line_of(words),
        shell: common.shell.clone().unwrap_or_default(),
        work_dir: common.chdir.clone().unwrap_or_default(),
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
            let shell =
                if exec.shell.is_empty() { "/bin/sh".to_owned() } else { std::mem::take(&mut exec.shell) };
            args.extend([shell, "-c".to_owned(), std::mem::take(&mut exec.command)]);
        } else {
            args.push(std::mem::take(&mut exec.command));
            args.append(&mut exec.args);
        }
        (exec.command, exec.args) = ("env".to_owned(), args);
    }
    Ok(exec)
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

/// Runs it; its output is shown as it comes, or kept.
pub(crate) async fn run(exec: &Exec, on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
    let has = |feature| on.client.ready().has(feature);
    let live = on.printer.is_live() && has("stream");
    let stdin = on.stdin.filter(|_| has("stdin"));
    let exec = Exec {
        stream_lines: live,
        stream_chunks: live && has("chunks"),
        stdin: stdin.is_some(),
        capture_out: !live,
        capture_err: !live,
        ..exec.clone()
    };
    let mut pending = on.client.send(&exec.by(&on.whom), Call::within(on.timeout)).await?;
    let (id, (ended, over)) = (pending.id().to_owned(), tokio::sync::watch::channel(false));
    let giving = async {
        match stdin {
            Some(stdin) => stdin.give(on.client, &id, over).await,
            None => Ok(()),
        }
    };
    let showing = async {
        while let Some(event) = pending.next_event().await {
            show(&event, on)?;
        }
        let result = pending.result().await;
        let _ = ended.send(true);
        result
    };
    // That the host wants no more input is told by how the command ended.
    let (_, result) = tokio::join!(giving, showing);
    finish(result?, live, on, report)
}

fn finish(result: result::Exec, live: bool, on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
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
    if !live && !matches!(on.printer.style, Style::Json | Style::Grouped) {
        for (stderr, text, base64) in
            [(false, &result.stdout, &result.stdout_base64), (true, &result.stderr, &result.stderr_base64)]
        {
            let bytes = bytes_of(text.as_deref().unwrap_or_default().as_bytes(), base64.as_deref())?;
            on.printer.output(&on.target.name, stderr, &bytes, false);
        }
    } else {
        (report.stdout, report.stderr) = (result.stdout, result.stderr);
        (report.stdout_base64, report.stderr_base64) = (result.stdout_base64, result.stderr_base64);
    }
    Ok(())
}

fn show(event: &Event, on: &Connected<'_>) -> Result<(), Error> {
    let note = |name: &str| event.metadata.get(name).map(String::as_str);
    let bytes = bytes_of(event.message.as_bytes(), note("base64"))?;
    let stderr = note("stream") == Some("stderr");
    on.printer.output(&on.target.name, stderr, &bytes, note("continued").is_none());
    Ok(())
}
