//! `legwork policy`.

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::Result;
use legwork_dialout::config::{Source, policy_of};
use legwork_policy::{Decision, Policy, Verdict};
use serde::{Deserialize, Serialize};

use crate::args::PolicyCommand;
use crate::exit;

pub(crate) fn run(command: PolicyCommand) -> Result<u8> {
    let PolicyCommand::Check { config, json, stdin_json, line } = command;
    if stdin_json {
        return judge_stdin();
    }
    let policy = match load(config.as_deref()) {
        Ok(policy) => policy,
        Err(error) => {
            eprintln!("Error: {error:#}");
            return Ok(exit::CONFIG);
        }
    };
    for note in policy.notes() {
        eprintln!("note: rule '{}' {}", note.pattern, note.message);
    }
    let verdict = policy.judge(&line.join(" "));
    if json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        match verdict.message() {
            None => {
                println!("allow{}", verdict.rule().map(|r| format!(" by rule '{r}'")).unwrap_or_default())
            }
            Some(message) => println!("{message}"),
        }
    }
    Ok(match verdict.decision {
        Decision::Allow => 0,
        Decision::Deny => exit::DENY,
        Decision::Ask => exit::ASK,
    })
}

fn load(path: Option<&Path>) -> Result<Policy> {
    let path = path.unwrap_or(Path::new(""));
    let text = std::fs::read_to_string(path)
        .map_err(|e| anyhow::anyhow!("failed to read {}: {e}", path.display()))?;
    Ok(policy_of(&Source { path: path.to_owned(), text, original: false })?)
}

#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    id: serde_json::Value,
    policy: Vec<(String, String)>,
    command: String,
}

#[derive(Serialize)]
struct Answer {
    id: serde_json::Value,
    decision: &'static str,
    rule: Option<String>,
    reason: Option<String>,
    command: Option<String>,
    span: Option<[usize; 2]>,
}

/// One question a line, one answer a line; a bad line answers `error` and the next
/// is read.
fn judge_stdin() -> Result<u8> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().split(b'\n') {
        let line = line?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let answer = match serde_json::from_slice::<Question>(&line) {
            Ok(question) => answer(question),
            Err(error) => error_answer(serde_json::Value::Null, error.to_string()),
        };
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(0)
}

fn error_answer(id: serde_json::Value, reason: String) -> Answer {
    Answer { id, decision: "error", rule: None, reason: Some(reason), command: None, span: None }
}

fn answer(question: Question) -> Answer {
    let pairs = question.policy.iter().map(|(p, a)| (p.as_str(), a.as_str()));
    let policy = match Policy::from_pairs(pairs) {
        Ok(policy) => policy,
        Err(error) => return error_answer(question.id, error.to_string()),
    };
    let verdict: Verdict = policy.judge(&question.command);
    let part = verdict.deciding.as_ref();
    Answer {
        id: question.id,
        decision: match verdict.decision {
            Decision::Allow => "allow",
            Decision::Ask => "ask",
            Decision::Deny => "deny",
        },
        rule: part.and_then(|p| p.rule.clone()),
        reason: part.and_then(|p| p.reason.clone()).or_else(|| verdict.failure.clone()),
        command: part.map(|p| p.command.clone()),
        span: part.map(|p| [p.span.start, p.span.end]),
    }
}
