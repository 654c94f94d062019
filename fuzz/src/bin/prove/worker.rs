//! What lives in a yard: a runner with the default configuration, asked line by line.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use legwork_dialout::Service;
use legwork_dialout::config::{Config, Flags, Source, load};
use legwork_runner::process::{EndedBy, Progress};
use legwork_runner::{BashOutput, Command, Failure, Requester, Runner, What};
use serde_json::{Value, json};

/// Where a yard's own things are.
pub(crate) const HOME: &str = "/proof";

/// Serves requests `{"config": YAML, "line": …}` on standard input until it ends.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = configuration("permission:\n  bash:\n    \"*\": deny\n").unwrap();
    let program = Path::new(HOME).join("traced");
    let service = runtime.block_on(Service::open(config, &program, std::env::vars_os()));
    let service = service.unwrap_or_else(|e| panic!("the runner does not open: {e}"));
    let runner = service.runner();
    say(&json!({"ready": true}));
    for (number, line) in std::io::stdin().lock().lines().map_while(Result::ok).enumerate() {
        let request: Value = serde_json::from_str(&line).unwrap();
        let answer = match request["quotes"].as_array().map(Vec::as_slice) {
            Some([seed, from, count]) => {
                let number = |value: &Value| value.as_u64().unwrap();
                crate::quotes::try_lines(number(seed), number(from), number(count))
            }
            _ => runtime.block_on(answer(&runner, &request, number)),
        };
        say(&answer);
    }
}

fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}").unwrap();
    out.flush().unwrap();
}

/// A runner's configuration as an operator writes it: rules, and no word on walls.
fn configuration(rules: &str) -> Result<Config, String> {
    let text =
        format!("token: t\nurl: ws://127.0.0.1:9/\nworkspace_root: /w\nstate_dir: {HOME}/state\n{rules}");
    let source = Source { path: PathBuf::from(HOME).join("config.yaml"), text, original: false };
    let env: BTreeMap<String, String> = std::env::vars().collect();
    load(&source, &env, &Flags::default(), Path::new("/home/me")).map_err(|e| e.to_string())
}

async fn answer(runner: &Arc<Runner>, request: &Value, number: usize) -> Value {
    let config = match configuration(request["config"].as_str().unwrap()) {
        Ok(config) => config,
        Err(e) => return json!({"failed": e}),
    };
    if let Err(e) = runner.reload(config.rules()) {
        return json!({"failed": e});
    }
    let command = Command {
        what: What::Line(request["line"].as_str().unwrap().to_owned()),
        timeout: Some(Duration::from_millis(request["timeout_ms"].as_u64().unwrap())),
        ..Command::default()
    };
    let file = PathBuf::from(HOME).join("commands").join(format!("{number}"));
    match carry_out(runner, &command, &file).await {
        Ok(output) => json!({
            "exit": output.exit_code,
            "stdout": head(&output.stdout.text),
            "stderr": head(&output.stderr),
            "timed_out": output.ended_by == Some(EndedBy::Timeout),
        }),
        Err(Failure::Denied(why)) => json!({"denied": why.text}),
        Err(other) => json!({"failed": other.to_string()}),
    }
}

async fn carry_out(runner: &Arc<Runner>, command: &Command, file: &Path) -> Result<BashOutput, Failure> {
    let requester = Requester { door: "proof", ..Requester::default() };
    let running = runner.start(command, &requester, file).await?;
    while !matches!(running.progress().await, Progress::Ended) {}
    let output = runner.finish_with_output(command, &requester, file).await;
    let _ = std::fs::remove_file(file);
    output
}

fn head(text: &str) -> String {
    text.chars().take(600).collect()
}
