//! What people and programs see of work on many hosts.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::connected::bytes_of;
use super::copy::folder_of;
use crate::commands::lists::{escaped, visible};
use crate::{exit, output};

/// How work on a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Succeeded,
    Failed,
    TimedOut,
    /// The policy did not let it be sent.
    Denied,
    Unreachable,
    /// The connection broke: whether it ran to its end is not known.
    Lost,
    /// Not tried: too many had failed before.
    Skipped,
    /// Ended by Ctrl-C.
    Interrupted,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One host's part of the result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) host: String,
    pub(crate) state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    /// Something was changed, or would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) changed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stderr: Option<String>,
    /// The bytes, where they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stdout_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stderr_base64: Option<String>,
    /// Only the start of it was kept.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) stdout_truncated: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) stderr_truncated: bool,
    /// The results of the commands, as the runner gave them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) results: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) seconds: f64,
    /// The signal that ended the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<i32>,
    /// What changes, as lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) diff: Vec<String>,
    /// In a line, for people.
    #[serde(skip)]
    pub(crate) said: Vec<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Report {
    /// What was cut off, for people.
    fn cut(&self) -> Option<String> {
        let cut = match (self.stdout_truncated, self.stderr_truncated) {
            (true, true) => "stdout and stderr",
            (true, false) => "stdout",
            (false, true) => "stderr",
            (false, false) => return None,
        };
        Some(format!("only the first part of {cut} was kept: it is longer than 4 MiB"))
    }

    pub(crate) fn new(host: &str, state: State) -> Self {
        Self {
            host: host.to_owned(),
            state,
            exit_code: None,
            changed: None,
            stdout: None,
            stderr: None,
            stdout_base64: None,
            stderr_base64: None,
            stdout_truncated: false,
            stderr_truncated: false,
            results: Vec::new(),
            error: None,
            seconds: 0.0,
            signal: None,
            diff: Vec::new(),
            said: Vec::new(),
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self.state {
            State::Succeeded => 0,
            State::TimedOut => exit::TIMED_OUT,
            State::Denied => exit::DENIED,
            State::Unreachable => exit::UNREACHABLE,
            State::Lost | State::Skipped => exit::NOT_RUN,
            State::Interrupted => exit::INTERRUPTED,
            State::Failed => match (self.exit_code, self.signal) {
                (Some(code @ 1..=255), _) => u8::try_from(code).unwrap_or(exit::ERROR),
                (_, Some(signal)) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(0)),
                _ => exit::ERROR,
            },
        }
    }
}

/// How output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// One host: as if it ran here.
    Plain,
    /// Each line with its host before it.
    Prefixed,
    /// Each host in one piece.
    Grouped,
    Json,
    /// JSON, an object a line, as it comes.
    Lines,
}

/// Shows output and progress; several hosts at once.
pub(crate) struct Printer {
    pub(crate) style: Style,
    width: usize,
    count: usize,
    /// On standard error, rewritten as hosts end.
    status: bool,
    /// Nothing of it is shown.
    quiet: bool,
    /// Where each host has a folder.
    folders: Option<PathBuf>,
    state: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    done: usize,
    bad: usize,
    shown: bool,
}

impl Printer {
    /// With a folder, in which each host's own is made anew.
    pub(crate) fn new(style: Style, hosts: &[String], folder: Option<&Path>) -> Result<Self> {
        let width = hosts.iter().map(|host| host.chars().count()).max().unwrap_or(0);
        let status = hosts.len() > 1
            && std::io::stderr().is_terminal()
            && !matches!(style, Style::Json | Style::Lines);
        for host in hosts.iter().filter(|_| folder.is_some()) {
            let own = folder.unwrap_or(Path::new("")).join(folder_of(host));
            let made = || {
                std::fs::create_dir_all(&own)?;
                ["stdout", "stderr"].iter().try_for_each(|name| std::fs::write(own.join(name), ""))
            };
            made().with_context(|| format!("failed to make {}", own.display()))?;
        }
        let folders = folder.map(Path::to_owned);
        Ok(Self { style, width, count: hosts.len(), status, quiet: false, folders, state: Mutex::default() })
    }

    /// One that shows nothing.
    pub(crate) fn quiet(hosts: &[String]) -> Self {
        let (style, folders) = (Style::Json, None);
        Self {
            style,
            width: 0,
            count: hosts.len(),
            status: false,
            quiet: true,
            folders,
            state: Mutex::default(),
        }
    }

    /// Whether output is wanted as it comes.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.style, Style::Plain | Style::Prefixed | Style::Lines)
    }

    /// Adds to a file of a host's folder. What can't be kept there is told once.
    fn keep(&self, host: &str, name: &str, bytes: &[u8]) {
        let Some(folder) = &self.folders else { return };
        let file = folder.join(folder_of(host)).join(name);
        let open = std::fs::OpenOptions::new().create(true).append(true).open(&file);
        if let Err(error) = open.and_then(|mut file| std::io::Write::write_all(&mut file, bytes)) {
            tracing::error!("failed to write {}: {error}", file.display());
        }
    }

    /// A piece of output; `whole` if a newline followed it.
    pub(crate) fn output(&self, host: &str, stderr: bool, bytes: &[u8], whole: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear(&mut state);
        let name = if stderr { "stderr" } else { "stdout" };
        if self.folders.is_some() {
            self.keep(host, name, &[bytes, if whole { b"\n" } else { b"" }].concat());
        }
        if self.style == Style::Lines {
            write(false, &line_of(host, name, bytes, whole));
            return;
        }
        let mut line = Vec::with_capacity(bytes.len() + self.width + 4);
        if self.style == Style::Prefixed {
            // One event may hold many lines.
            let prefix = format!("{:<width$} | ", visible(host), width = self.width);
            let mut between = "";
            for one in bytes.split(|b| *b == b'\n') {
                line.extend_from_slice(between.as_bytes());
                line.extend_from_slice(prefix.as_bytes());
                line.extend_from_slice(one);
                between = "\n";
            }
        } else {
            line.extend_from_slice(bytes);
        }
        // With others beside it, a line must end.
        if whole || self.style == Style::Prefixed {
            line.push(b'\n');
        }
        write(stderr, &line);
        self.show(&mut state);
    }

    /// A host's work is over.
    pub(crate) fn ended(&self, report: &Report) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear(&mut state);
        state.done += 1;
        state.bad += usize::from(report.state != State::Succeeded);
        if self.quiet {
            return;
        }
        self.keep_result(report);
        let host = visible(&report.host);
        match self.style {
            Style::Json => {}
            Style::Lines => {
                let line = serde_json::to_string(report).unwrap_or_default();
                write(false, format!("{line}\n").as_bytes());
            }
            Style::Grouped => {
                let how = report
                    .exit_code
                    .map_or_else(|| report.state.text().to_owned(), |code| format!("exit {code}"));
                write(false, format!("== {host} ({how}, {:.2} s)\n", report.seconds).as_bytes());
                for (stderr, text) in [(false, &report.stdout), (true, &report.stderr)] {
                    if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                        write(stderr, text.as_bytes());
                        if !text.ends_with('\n') {
                            write(stderr, b"\n");
                        }
                    }
                }
                self.tell(report, "");
            }
            Style::Prefixed => self.tell(report, &format!("{host:<width$} | ", width = self.width)),
            Style::Plain => self.tell(report, ""),
        }
        self.show(&mut state);
    }

    /// What was not kept as it came, and the result.
    fn keep_result(&self, report: &Report) {
        if self.folders.is_none() {
            return;
        }
        let parts = [
            ("stdout", &report.stdout, &report.stdout_base64),
            ("stderr", &report.stderr, &report.stderr_base64),
        ];
        for (name, text, base64) in parts {
            let text = text.as_deref().unwrap_or_default();
            let bytes = bytes_of(text.as_bytes(), base64.as_deref()).unwrap_or_default();
            self.keep(&report.host, name, &bytes);
        }
        if self.style != Style::Json && self.style != Style::Lines && !report.said.is_empty() {
            let said = report.said.iter().map(|line| format!("{line}\n")).collect::<String>();
            self.keep(&report.host, "stdout", said.as_bytes());
        }
        let result = serde_json::to_string_pretty(report).unwrap_or_default();
        let folder = self.folders.as_deref().unwrap_or(Path::new("")).join(folder_of(&report.host));
        let file = folder.join("result.json");
        let done =
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, format!("{result}\n")));
        if let Err(error) = done {
            tracing::error!("failed to write {}: {error}", file.display());
        }
    }

    fn tell(&self, report: &Report, prefix: &str) {
        for line in report.said.iter().chain(&report.diff) {
            write(false, format!("{prefix}{}\n", escaped(line)).as_bytes());
        }
        for error in report.error.iter().chain(&report.cut()) {
            let prefix =
                if prefix.is_empty() { format!("{}: ", visible(&report.host)) } else { prefix.to_owned() };
            for line in error.lines() {
                write(true, format!("{prefix}{}\n", visible(line)).as_bytes());
            }
        }
    }

    fn clear(&self, state: &mut Progress) {
        if std::mem::take(&mut state.shown) {
            write(true, b"\r\x1b[K");
        }
    }

    fn show(&self, state: &mut Progress) {
        if self.status && state.done < self.count {
            let bad = if state.bad > 0 { format!(", {} not well", state.bad) } else { String::new() };
            write(true, format!("{} of {} hosts done{bad}", state.done, self.count).as_bytes());
            state.shown = true;
        }
    }
}

fn write(stderr: bool, bytes: &[u8]) {
    // That nobody reads any more is seen where the work on the hosts is waited for.
    let _ = output::pass_on(stderr, bytes);
}

/// A piece of output as an object.
fn line_of(host: &str, stream: &str, bytes: &[u8], whole: bool) -> Vec<u8> {
    let mut line =
        serde_json::json!({ "host": host, "stream": stream, "text": String::from_utf8_lossy(bytes) });
    if std::str::from_utf8(bytes).is_err() {
        line["base64"] = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes).into();
    }
    if !whole {
        line["continued"] = true.into();
    }
    format!("{line}\n").into_bytes()
}

/// The whole, once all hosts are done. The exit status.
pub(crate) fn finish(reports: &[Report], style: Style, took: Duration) -> u8 {
    if matches!(style, Style::Json | Style::Lines) {
        let count = |state| reports.iter().filter(|report| report.state == state).count();
        let summary = serde_json::json!({
            "hosts": reports.len(),
            "succeeded": count(State::Succeeded),
            "failed": count(State::Failed),
            "timed_out": count(State::TimedOut),
            "denied": count(State::Denied),
            "unreachable": count(State::Unreachable),
            "lost": count(State::Lost),
            "skipped": count(State::Skipped),
            "interrupted": count(State::Interrupted),
            "seconds": took.as_secs_f64(),
        });
        let text = if style == Style::Json {
            let all = serde_json::json!({ "hosts": reports, "summary": summary });
            serde_json::to_string_pretty(&all).unwrap_or_default()
        } else {
            serde_json::json!({ "summary": summary }).to_string()
        };
        write(false, format!("{text}\n").as_bytes());
    } else if reports.len() > 1 {
        summary(reports, took);
    }
    reports.iter().map(Report::code).max().unwrap_or(0)
}

/// The hosts that did not go well, and how many did.
fn summary(reports: &[Report], took: Duration) {
    let bad: Vec<&Report> = reports.iter().filter(|report| report.state != State::Succeeded).collect();
    let mut text = String::new();
    if !bad.is_empty() {
        let width = bad.iter().map(|report| report.host.chars().count()).max().unwrap_or(0);
        text.push('\n');
        for report in &bad {
            let code = report.exit_code.map(|code| format!("exit {code}")).unwrap_or_default();
            let first = report.error.as_deref().and_then(|error| error.lines().next()).unwrap_or(&code);
            let (host, state) = (visible(&report.host), report.state.text());
            text.push_str(&format!(
                "{host:<width$}  {state:<11}  {:>6.2} s  {}\n",
                report.seconds,
                visible(first)
            ));
        }
    }
    for report in reports.iter().filter(|report| report.state == State::Succeeded) {
        if let Some(cut) = report.cut() {
            text.push_str(&format!("{}  {cut}\n", visible(&report.host)));
        }
    }
    let good = reports.len() - bad.len();
    let changed = reports.iter().filter(|report| report.changed == Some(true)).count();
    let changed = if reports.iter().any(|r| r.changed.is_some()) {
        format!(", {changed} changed")
    } else {
        String::new()
    };
    text.push_str(&format!(
        "{} hosts: {good} succeeded{changed}, {} not; {:.1} s\n",
        reports.len(),
        bad.len(),
        took.as_secs_f64()
    ));
    write(true, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_the_highest() {
        let with = |state, exit_code, signal| Report { exit_code, signal, ..Report::new("h", state) };
        for (report, code) in [
            (with(State::Succeeded, Some(0), None), 0),
            (with(State::Failed, Some(3), None), 3),
            (with(State::Failed, Some(-1), Some(9)), 137),
            (with(State::Failed, None, None), 1),
            (with(State::TimedOut, Some(-1), None), 124),
            (with(State::Denied, None, None), 126),
            (with(State::Unreachable, None, None), 255),
            (with(State::Skipped, None, None), 125),
        ] {
            assert_eq!(report.code(), code, "{report:?}");
        }
    }
}
