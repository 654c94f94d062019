//! `legwork exec` and `legwork logs`: a command's output as if it ran here.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use legwork_api::{
    Client, ClientError, Count, Event, GapEvent, GetTask, NewTask, NoId, OutputEvent, Received, Run, RunId,
    Select, State, StateEvent, Stream, SubmitTask, Task, TaskId, Wait,
};

use super::follow::{Followed, Show, follow, follow_or_cancel};
use super::lists::visible;
use super::stdin;
use crate::args::{ExecArgs, LogsArgs};
use crate::{client, exit, output};

/// Where the remote command's status is passed on, a failure of ours is none that it may have.
pub(crate) async fn run(args: ExecArgs) -> Result<u8> {
    Ok(attempt(args).await.unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        exit::OWN
    }))
}

async fn attempt(args: ExecArgs) -> Result<u8> {
    let client = client::from_args(&args.hub)?;
    let body = wanted(&args).await?;
    let task = submit(&client, &body).await?;
    let id = task.id.clone();
    if args.detach {
        if args.json {
            println!("{}", serde_json::to_string_pretty(&task)?);
        } else {
            println!("{id}");
        }
        return Ok(0);
    }
    for run in task.runs.iter().filter(|run| run.state == State::Queued) {
        let name = visible(&run.runner);
        eprintln!("legwork: {name} is not connected; waiting for it (Ctrl-C cancels)");
    }
    let mut printer = Printer::new(&task.runs, args.json);
    let cancelled = match follow_or_cancel(&client, &id, &mut printer).await? {
        Followed::Left(status) => return Ok(status),
        Followed::Cancelled(status) => Some(status),
        Followed::Over => None,
    };
    let task = client.ask::<GetTask>(&id).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&task)?);
    } else {
        printer.finish(&task);
    }
    let code = exit_code(&task.runs);
    Ok(cancelled.filter(|_| code == exit::INTERRUPTED).unwrap_or(code))
}

/// The task that the arguments describe.
async fn wanted(args: &ExecArgs) -> Result<NewTask> {
    let count = if args.all { Some(Count::all()) } else { args.count.map(|count| Count::of(count.into())) };
    let select =
        Select { labels: args.label.clone(), runner: args.runner.clone(), count, online: args.online };
    let line = line_of(&args.command);
    let line = match stdin::read(args.stdin, args.no_stdin).await? {
        Some(data) => stdin::with(&line, &data)?,
        None => line,
    };
    let mut command = serde_json::Map::new();
    command.insert("command".into(), line.into());
    if let Some(workdir) = &args.workdir {
        command.insert("workdir".into(), workdir.as_str().into());
    }
    Ok(NewTask {
        select,
        operation: "bash".into(),
        args: Some(command),
        timeout_s: Some(signed(args.timeout)),
        expires_s: args.expires.map(signed),
        idempotency_key: Some(key()?),
        reason: args.reason.clone(),
    })
}

/// What is too large for the hub stays too large.
fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A key that makes a task the same task when it is submitted again.
fn key() -> Result<String> {
    Ok(format!("exec-{:032x}", u128::from_le_bytes(legwork_base::ids::bytes()?)))
}

/// Submits a task; once more where the answer did not come: it may have been lost on its way.
async fn submit(client: &Client, body: &NewTask) -> Result<Received<Task>> {
    let at_once = Wait::default();
    let send = || client.send::<SubmitTask>(&NoId, &at_once, body);
    Ok(match send().await {
        Err(
            ClientError::Unreachable { .. } | ClientError::Silent { .. } | ClientError::Unreadable { .. },
        ) => send().await?,
        answered => answered?,
    })
}

pub(crate) async fn logs(args: LogsArgs) -> Result<u8> {
    let client = client::from_args(&args.hub)?;
    let id = TaskId(args.task);
    let task = client.ask::<GetTask>(&id).await?;
    let mut printer = Printer::new(&task.runs, false);
    follow(&client, &id, &mut printer, args.follow).await?;
    let task = client.ask::<GetTask>(&id).await?;
    printer.finish(&task);
    Ok(0)
}

/// One argument is a line of shell; several are words, each quoted where needed.
pub(super) fn line_of(command: &[String]) -> String {
    if let [line] = command {
        return line.clone();
    }
    command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it for itself, quoted where it must be.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Where a task's output goes: as it is for one run, line by line with the
/// runner's name for many.
struct Printer {
    names: HashMap<RunId, String>,
    many: bool,
    quiet: bool,
    /// Unfinished lines, by run and stream.
    partial: HashMap<(RunId, bool), Vec<u8>>,
    /// Runs that streamed something.
    seen: HashSet<RunId>,
}

impl Show for Printer {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event.kind.as_str() {
            "gap" => self.gap(event),
            "state" => self.state(event),
            _ => {}
        }
        self.output(event)
    }
}

impl Printer {
    fn new(runs: &[Run], quiet: bool) -> Self {
        Self {
            names: runs.iter().map(|run| (run.id.clone(), run.runner.clone())).collect(),
            many: runs.len() > 1,
            quiet,
            partial: HashMap::new(),
            seen: HashSet::new(),
        }
    }

    /// A run waits for a person, or waits no more: that is said, as nothing else happens.
    fn state(&mut self, event: &Event) {
        let Ok(state) = event.read::<StateEvent>() else { return };
        let Some(approval) = &state.approval else { return };
        let why = state.error.as_deref().unwrap_or_default();
        eprintln!("legwork: {}: {}", visible(&state.runner), visible(why));
        if state.state == State::Held {
            let id = visible(approval.as_str());
            eprintln!("legwork: another person may say yes: legwork approvals show {id}  (Ctrl-C cancels)");
        }
    }

    /// Output is missing, and that is said.
    fn gap(&mut self, event: &Event) {
        let gap: GapEvent = event.read().unwrap_or_default();
        let name = self.names.get(gap.run.as_str()).cloned().unwrap_or_default();
        let to = gap.to.map_or_else(String::new, |to| format!(" to {to}"));
        eprintln!(
            "legwork: {}: {} is missing from byte {}{to}: {}",
            visible(&name),
            visible(&gap.stream),
            gap.from,
            visible(&gap.reason)
        );
    }

    fn output(&mut self, event: &Event) -> Result<()> {
        if event.kind != "output" || self.quiet {
            return Ok(());
        }
        let output: OutputEvent = event.read().context("the hub sent an unreadable event")?;
        let data = match output.encoding.as_deref() {
            None => output.data.into_bytes(),
            Some(_) => decode_base64(&output.data),
        };
        self.seen.insert(output.run.clone());
        self.print(&output.run, output.stream == Stream::Stderr, &data);
        Ok(())
    }

    fn print(&mut self, run: &RunId, is_stderr: bool, data: &[u8]) {
        if !self.many {
            output::pass_on(is_stderr, data);
            return;
        }
        let name = self.names.get(run).cloned().unwrap_or_default();
        let partial = self.partial.entry((run.clone(), is_stderr)).or_default();
        partial.extend_from_slice(data);
        let Some(end) = partial.iter().rposition(|b| *b == b'\n') else { return };
        let whole: Vec<u8> = partial.drain(..=end).collect();
        for line in whole.split_inclusive(|b| *b == b'\n') {
            let mut text = format!("{name} | ").into_bytes();
            text.extend_from_slice(line);
            output::pass_on(is_stderr, &text);
        }
    }

    /// What was not streamed, and how each run ended.
    fn finish(&mut self, task: &Task) {
        for run in &task.runs {
            // The original streams nothing: its result has the output.
            if !self.seen.contains(&run.id) {
                let written = run.written();
                for (text, is_stderr) in [(written.stdout, false), (written.stderr, true)] {
                    if !text.is_empty() {
                        self.print(&run.id, is_stderr, text.as_bytes());
                    }
                }
            } else if run.state == State::TimedOut {
                self.print(&run.id, true, b"command timed out\n");
            }
            for is_stderr in [false, true] {
                if self.partial.get(&(run.id.clone(), is_stderr)).is_some_and(|p| !p.is_empty()) {
                    self.print(&run.id, is_stderr, b"\n");
                }
            }
            if let Some(error) = &run.error {
                eprintln!(
                    "legwork: {}: {}: {}",
                    visible(&run.runner),
                    visible(run.state.as_str()),
                    visible(error)
                );
            }
        }
        if self.many {
            summary(&task.runs);
        }
    }
}

fn summary(runs: &[Run]) {
    let width = runs.iter().map(|run| run.runner.len()).max().unwrap_or(0);
    eprintln!();
    for run in runs {
        let code = run.exit_code.map_or_else(|| "-".to_owned(), |c| c.to_string());
        let started = run.started_at_ms.unwrap_or(run.queued_at_ms);
        let took = run.finished_at_ms.unwrap_or(started).saturating_sub(started);
        eprintln!("{:width$}  {:10} exit {code:>3}  {took} ms", run.runner, run.state);
    }
    let good = runs.iter().filter(|run| run.state == State::Succeeded).count();
    eprintln!("{good} of {} succeeded", runs.len());
}

fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for digit in text.bytes().filter_map(|b| ALPHABET.iter().position(|a| *a == b)) {
        bits = bits << 6 | u32::try_from(digit).unwrap_or(0);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).unwrap_or(0));
        }
    }
    out
}

/// The remote status for one run; for many the worst in a word.
fn exit_code(runs: &[Run]) -> u8 {
    let code = |run: &Run| match run.state.known() {
        Some(State::Succeeded) => 0,
        Some(State::TimedOut) => exit::TIMED_OUT,
        Some(State::Denied) => exit::DENIED,
        Some(State::Cancelled) => exit::INTERRUPTED,
        Some(State::Failed) => match run.exit_code {
            Some(code @ 1..=255) => u8::try_from(code).unwrap_or(exit::NOT_RUN),
            // Ended by a signal whose number the protocol does not tell.
            Some(_) => 128,
            None => exit::NOT_RUN,
        },
        _ => exit::NOT_RUN,
    };
    match runs {
        [run] => code(run),
        runs => runs.iter().map(code).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        let line = |words: &[&str]| line_of(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["ls; rm -rf x"]), "ls; rm -rf x");
        assert_eq!(line(&["uname", "-a"]), "uname -a");
        assert_eq!(line(&["echo", "a b", "it's", "", "$x"]), r"echo 'a b' 'it'\''s' '' '$x'");
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(decode_base64("/w=="), [0xff]);
        assert_eq!(decode_base64("YWJj"), b"abc");
    }

    #[test]
    fn the_remote_status_passes_through() {
        let of = |runs: &[(&str, Option<i32>)]| {
            let run = |(state, exit_code): &(&str, Option<i32>)| {
                let json = serde_json::json!({
                    "id": "run_1", "runner": "r", "runner_id": "wn_1", "state": state, "exit_code": exit_code,
                });
                serde_json::from_value(json).expect("a run")
            };
            exit_code(&runs.iter().map(run).collect::<Vec<Run>>())
        };
        assert_eq!(of(&[("failed", Some(3))]), 3);
        assert_eq!(of(&[("denied", None)]), exit::DENIED);
        assert_eq!(of(&[("succeeded", None), ("lost", None)]), exit::NOT_RUN);
        assert_eq!(of(&[("succeeded", Some(0))]), 0);
        // A state of a hub that is newer than we are.
        assert_eq!(of(&[("pondered", Some(0))]), exit::NOT_RUN);
    }
}
