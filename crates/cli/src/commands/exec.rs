//! `legwork exec` and `legwork logs`: a command's output as if it ran here.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::follow::{Followed, Show, follow, follow_or_cancel};
use super::lists::visible;
use super::stdin;
use crate::args::{ExecArgs, LogsArgs};
use crate::client::{Client, Refused};
use crate::sse::Event;
use crate::{exit, output};

/// Where the remote command's status is passed on, a failure of ours is none that it may have.
pub(crate) async fn run(args: ExecArgs) -> Result<u8> {
    Ok(attempt(args).await.unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        exit::OWN
    }))
}

async fn attempt(args: ExecArgs) -> Result<u8> {
    let client = Client::from_args(&args.hub)?;
    let mut select = json!({ "labels": args.label });
    if let Some(runner) = &args.runner {
        select["runner"] = runner.as_str().into();
    }
    if args.all {
        select["count"] = "all".into();
    } else if let Some(count) = args.count {
        select["count"] = count.into();
    }
    if args.online {
        select["online"] = true.into();
    }
    let line = line_of(&args.command);
    let line = match stdin::read(args.stdin, args.no_stdin).await? {
        Some(data) => stdin::with(&line, &data)?,
        None => line,
    };
    let mut command = json!({ "command": line });
    if let Some(workdir) = &args.workdir {
        command["workdir"] = workdir.as_str().into();
    }
    let mut body = json!({
        "select": select, "operation": "bash", "args": command, "timeout_s": args.timeout,
        "idempotency_key": key()?,
    });
    if let Some(expires) = args.expires {
        body["expires_s"] = expires.into();
    }
    let task = submit(&client, &body).await?;
    let id = task["id"].as_str().context("the hub gave no task id")?.to_owned();
    if args.detach {
        if args.json {
            println!("{}", serde_json::to_string_pretty(&task)?);
        } else {
            println!("{id}");
        }
        return Ok(0);
    }
    let runs = task["runs"].as_array().cloned().unwrap_or_default();
    for run in runs.iter().filter(|r| r["state"] == "queued") {
        let name = visible(run["runner"].as_str().unwrap_or_default());
        eprintln!("legwork: {name} is not connected; waiting for it (Ctrl-C cancels)");
    }
    let mut printer = Printer::new(&runs, args.json);
    let cancelled = match follow_or_cancel(&client, &format!("/tasks/{id}"), &mut printer).await? {
        Followed::Left(status) => return Ok(status),
        Followed::Cancelled(status) => Some(status),
        Followed::Over => None,
    };
    let task = client.get(&format!("/tasks/{id}")).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&task)?);
    } else {
        printer.finish(&task);
    }
    let code = exit_code(&task);
    Ok(cancelled.filter(|_| code == exit::INTERRUPTED).unwrap_or(code))
}

/// A key that makes a task the same task when it is submitted again.
fn key() -> Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    Ok(format!("exec-{:032x}", u128::from_le_bytes(bytes)))
}

/// Submits a task; once more where the answer did not come: it may have been lost on its way.
async fn submit(client: &Client, body: &Value) -> Result<Value> {
    match client.post("/tasks", body).await {
        Err(error) if error.downcast_ref::<Refused>().is_none() => client.post("/tasks", body).await,
        answered => answered,
    }
}

pub(crate) async fn logs(args: LogsArgs) -> Result<u8> {
    let client = Client::from_args(&args.hub)?;
    let task = client.get(&format!("/tasks/{}", args.task)).await?;
    let runs = task["runs"].as_array().cloned().unwrap_or_default();
    let mut printer = Printer::new(&runs, false);
    follow(&client, &format!("/tasks/{}", args.task), &mut printer, args.follow).await?;
    let task = client.get(&format!("/tasks/{}", args.task)).await?;
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

#[derive(Deserialize)]
struct Output {
    run: String,
    stream: String,
    data: String,
    #[serde(default)]
    encoding: Option<String>,
}

/// Where a task's output goes: as it is for one run, line by line with the
/// runner's name for many.
struct Printer {
    names: HashMap<String, String>,
    many: bool,
    quiet: bool,
    /// Unfinished lines, by run and stream.
    partial: HashMap<(String, bool), Vec<u8>>,
    /// Runs that streamed something.
    seen: std::collections::HashSet<String>,
}

impl Show for Printer {
    fn event(&mut self, event: &Event) -> Result<()> {
        if event.kind == "gap" {
            self.gap(event);
        }
        self.output(event)
    }
}

impl Printer {
    fn new(runs: &[Value], quiet: bool) -> Self {
        let names = runs
            .iter()
            .filter_map(|r| Some((r["id"].as_str()?.to_owned(), r["runner"].as_str()?.to_owned())))
            .collect();
        Self {
            names,
            many: runs.len() > 1,
            quiet,
            partial: HashMap::new(),
            seen: std::collections::HashSet::new(),
        }
    }

    /// Output is missing, and that is said.
    fn gap(&mut self, event: &Event) {
        let gap: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let name = gap["run"].as_str().and_then(|run| self.names.get(run)).cloned().unwrap_or_default();
        let from = gap["from"].as_u64().unwrap_or(0);
        let to = gap["to"].as_u64().map_or_else(String::new, |to| format!(" to {to}"));
        eprintln!(
            "legwork: {}: {} is missing from byte {from}{to}: {}",
            visible(&name),
            visible(gap["stream"].as_str().unwrap_or_default()),
            visible(gap["reason"].as_str().unwrap_or_default())
        );
    }

    fn output(&mut self, event: &Event) -> Result<()> {
        if event.kind != "output" || self.quiet {
            return Ok(());
        }
        let output: Output = serde_json::from_str(&event.data).context("the hub sent an unreadable event")?;
        let data = match output.encoding.as_deref() {
            None => output.data.into_bytes(),
            Some(_) => decode_base64(&output.data),
        };
        self.seen.insert(output.run.clone());
        self.print(&output.run, output.stream == "stderr", &data);
        Ok(())
    }

    fn print(&mut self, run: &str, is_stderr: bool, data: &[u8]) {
        if !self.many {
            output::pass_on(is_stderr, data);
            return;
        }
        let name = self.names.get(run).cloned().unwrap_or_default();
        let partial = self.partial.entry((run.to_owned(), is_stderr)).or_default();
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
    fn finish(&mut self, task: &Value) {
        let runs = task["runs"].as_array().cloned().unwrap_or_default();
        for run in &runs {
            let id = run["id"].as_str().unwrap_or_default();
            // The original streams nothing: its result has the output.
            if !self.seen.contains(id) {
                for (stream, is_stderr) in [("stdout", false), ("stderr", true)] {
                    if let Some(text) = run["result"][stream].as_str().filter(|t| !t.is_empty()) {
                        self.print(id, is_stderr, text.as_bytes());
                    }
                }
            } else if run["state"] == "timed_out" {
                self.print(id, true, b"command timed out\n");
            }
            for is_stderr in [false, true] {
                if self.partial.get(&(id.to_owned(), is_stderr)).is_some_and(|p| !p.is_empty()) {
                    self.print(id, is_stderr, b"\n");
                }
            }
            if let Some(error) = run["error"].as_str() {
                let name = run["runner"].as_str().unwrap_or_default();
                eprintln!(
                    "legwork: {}: {}: {}",
                    visible(name),
                    run["state"].as_str().unwrap_or_default(),
                    visible(error)
                );
            }
        }
        if self.many {
            summary(&runs);
        }
    }
}

fn summary(runs: &[Value]) {
    let width = runs.iter().filter_map(|r| r["runner"].as_str()).map(str::len).max().unwrap_or(0);
    eprintln!();
    for run in runs {
        let code = run["exit_code"].as_i64().map_or_else(|| "-".to_owned(), |c| c.to_string());
        let started = run["started_at_ms"].as_u64().or_else(|| run["queued_at_ms"].as_u64()).unwrap_or(0);
        let took = run["finished_at_ms"].as_u64().unwrap_or(started).saturating_sub(started);
        let (name, state) =
            (run["runner"].as_str().unwrap_or_default(), run["state"].as_str().unwrap_or_default());
        eprintln!("{name:width$}  {state:10} exit {code:>3}  {took} ms");
    }
    let good = runs.iter().filter(|r| r["state"] == "succeeded").count();
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
fn exit_code(task: &Value) -> u8 {
    let runs = task["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let code = |run: &Value| match run["state"].as_str().unwrap_or_default() {
        "succeeded" => 0,
        "timed_out" => exit::TIMED_OUT,
        "denied" => exit::DENIED,
        "cancelled" => exit::INTERRUPTED,
        "failed" => match run["exit_code"].as_i64() {
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
        let task = |runs: Value| json!({ "runs": runs });
        assert_eq!(exit_code(&task(json!([{ "state": "failed", "exit_code": 3 }]))), 3);
        assert_eq!(exit_code(&task(json!([{ "state": "denied" }]))), exit::DENIED);
        assert_eq!(exit_code(&task(json!([{ "state": "succeeded" }, { "state": "lost" }]))), exit::NOT_RUN);
        assert_eq!(exit_code(&task(json!([{ "state": "succeeded", "exit_code": 0 }]))), 0);
    }
}
