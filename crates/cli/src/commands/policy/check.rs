//! `legwork policy check` and `explain`: the runner's answer, without a runner.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::Result;
use legwork_policy::{Decision, Policy, RuleText, Verdict};
use legwork_process::{SyntaxCheck, check_syntax};
use legwork_runner::{Gates, Standing, try_gate};
use serde::{Deserialize, Serialize};

use crate::args::GateWord;
use crate::context;
use crate::exit;

/// What of this machine a runner's answer depends on.
pub(super) struct Here {
    /// What commands would inherit.
    env: BTreeMap<String, String>,
    gates: Gates,
    /// Answer as where execs are, or are not, judged, whatever this machine can.
    word: Option<GateWord>,
    bash: Option<PathBuf>,
}

impl Here {
    /// Looks at this machine. `pass` names what the config passes on of the environment.
    pub(super) async fn look(word: Option<GateWord>, pass: &[String]) -> Self {
        let env = legwork_process::env::clean(std::env::vars_os(), pass);
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let bash = legwork_base::programs::find("bash", path);
        let lacks = match word {
            Some(_) => None,
            None => try_here(&env).await.err(),
        };
        Self { gates: Gates::tried(lacks), env, word, bash }
    }

    /// The rules as a runner here would put them in force for a line, and how it is judged.
    fn in_force(&self, policy: &Policy, line: &str) -> (Policy, Standing) {
        let path = self.env.get("PATH").map(String::as_str).unwrap_or_default();
        let standing = match self.word {
            Some(_) if !policy.needs_exec_gate() => Standing::Needless,
            Some(GateWord::Exec) => Standing::Exec,
            Some(GateWord::Reading) => Standing::Reading("it was asked for".into()),
            None => self.gates.standing_of_line(policy, path, line),
        };
        let policy = policy.clone().with_env_names(self.env.keys().cloned());
        (policy.with_exec_gate(standing.is_exec()), standing)
    }

    /// What bash says against the text that would run, if it says anything.
    fn syntax(&self, verdict: &Verdict) -> Option<String> {
        let run = verdict.run.as_ref()?;
        let own = run.check_syntax.then_some(&run.text);
        let Some(bash) = &self.bash else {
            return own.map(|_| "there is no bash in PATH that could say whether it is valid".into());
        };
        own.into_iter().chain(&run.scripts).find_map(|text| match check_syntax(bash, text, &self.env) {
            Ok(SyntaxCheck::Valid) => None,
            Ok(SyntaxCheck::Invalid(cause)) => Some(cause),
            Err(error) => Some(format!("{}: {error}", bash.display())),
        })
    }

    /// What a runner's answer may depend on that can't be seen from here.
    fn unknown(&self, policy: &Policy, verdict: &Verdict, line: &str) -> Vec<String> {
        let mut unknown = Vec::new();
        let (in_force, _) = self.in_force(policy, line);
        // Setting a variable that commands inherit is exporting it.
        for name in assigned(line) {
            let is_set = self.env.contains_key(name);
            let names = self.env.keys().map(String::as_str).filter(|known| *known != name);
            let other = names.chain((!is_set).then_some(name)).map(str::to_owned);
            if in_force.clone().with_env_names(other).judge(line).decision != verdict.decision {
                let here = if is_set { "it is in this shell's" } else { "it is not in this shell's" };
                unknown.push(format!(
                    "the answer depends on whether {name} is in the environment of the runner's commands; {here}"
                ));
            }
        }
        if verdict.at_exec && self.word.is_some() {
            unknown.push(
                "what is judged when it is executed depends on the programs of the runner's machine".into(),
            );
        }
        unknown
    }

    fn judge(&self, policy: &Policy, line: &str) -> (Verdict, Standing) {
        let (policy, standing) = self.in_force(policy, line);
        let mut verdict = policy.judge_and_repair(line);
        if let Some(cause) = self.syntax(&verdict) {
            verdict.decision = Decision::Deny;
            verdict.failure = Some(format!("failed to parse command: {cause}"));
            verdict.run = None;
        }
        (verdict, standing)
    }
}

/// The names before each `=` of a line.
fn assigned(line: &str) -> std::collections::BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let before = line.match_indices('=').map(|(at, _)| line[..at].trim_end_matches('+'));
    let name = |text: &'_ str| text.len() - text.chars().rev().take_while(|c| is_part(*c)).count();
    before
        .map(|text| &text[name(text)..])
        .filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        .collect()
}

/// Tries whether execs can be judged on this machine, by having one judged.
async fn try_here(env: &BTreeMap<String, String>) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = std::env::temp_dir().join(format!("legwork-check-{}", std::process::id()));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(|e| format!("{}: {e}", dir.display()))?;
    let tried = match legwork_process::Spawner::start(Path::new("/proc/self/exe")) {
        Ok(spawner) => try_gate(&spawner, env, &dir, &dir).await,
        Err(error) => Err(error.to_string()),
    };
    let _ = std::fs::remove_dir_all(&dir);
    tried
}

/// A verdict, and how it was come by.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// `exec` where each exec is judged as well, `reading` where the text alone is.
    #[serde(skip_serializing_if = "str::is_empty")]
    gate: &'static str,
    /// Rules that would let a denied line pass, as a config writes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    would_allow: Vec<String>,
    /// What a runner's answer may depend on that could not be seen from here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<String>,
}

/// The rules that would let a denied line pass, as a config writes them.
fn would_allow(policy: &Policy, verdict: &Verdict, line: &str) -> Vec<String> {
    if verdict.decision != Decision::Deny || verdict.suggestion.is_some() {
        return Vec::new();
    }
    let rule = |(pattern, any): (String, bool)| {
        let action = if any { "{allow, children: any}" } else { "allow" };
        format!("{}: {action}", serde_json::Value::from(pattern))
    };
    policy.would_allow(line).into_iter().map(rule).collect()
}

/// Judges one line. `path` is the config's, for what is to be said of it.
pub(super) fn line(here: &Here, policy: &Policy, path: &Path, json: bool, line: &str) -> Result<u8> {
    let order = if context::is_originals(path) { policy.order_notes() } else { Vec::new() };
    for note in order.into_iter().chain(policy.notes()) {
        eprintln!("note: rule '{}' {}", note.pattern, note.message);
    }
    let (verdict, standing) = here.judge(policy, line);
    if let Standing::Reading(reason) = &standing {
        eprintln!("note: judged by the text alone, as where execs can't be judged: {reason}");
    }
    let unknown = here.unknown(policy, &verdict, line);
    for what in &unknown {
        eprintln!("note: {what}");
    }
    let would_allow = would_allow(&here.in_force(policy, line).0, &verdict, line);
    if json {
        let shown = Shown { verdict: &verdict, gate: standing.name(), would_allow, unknown };
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(status(verdict.decision));
    }
    let at_exec = if verdict.at_exec { "; what it computes is judged when it is executed" } else { "" };
    match verdict.message() {
        None => {
            let rule = verdict.rule().map(|r| format!(" by rule '{r}'")).unwrap_or_default();
            println!("allow{rule}{at_exec}");
        }
        Some(message) => println!("{message}"),
    }
    if !would_allow.is_empty() {
        eprintln!("note: an operator would have to add {}", would_allow.join(" and "));
    }
    Ok(status(verdict.decision))
}

fn status(decision: Decision) -> u8 {
    match decision {
        Decision::Allow => 0,
        Decision::Deny => exit::DENY,
        Decision::Ask => exit::ASK,
    }
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allow",
        Decision::Ask => "ask",
        Decision::Deny => "deny",
    }
}

/// Shows every part of a line with its verdict.
pub(super) fn explain(here: &Here, policy: &Policy, json: bool, line: &str) -> Result<u8> {
    let (verdict, standing) = here.judge(policy, line);
    if json {
        let would_allow = would_allow(&here.in_force(policy, line).0, &verdict, line);
        let unknown = here.unknown(policy, &verdict, line);
        let shown = Shown { verdict: &verdict, gate: standing.name(), would_allow, unknown };
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(status(verdict.decision));
    }
    println!("{line}");
    if let Some(failure) = &verdict.failure {
        println!("  deny   {failure}");
    }
    for (index, part) in verdict.parts.iter().enumerate() {
        // What stands within another part's text, or is run by it, is shown beneath it.
        let around = |other: &legwork_policy::Part| {
            other.span.start <= part.span.start && part.span.end <= other.span.end && other.span != part.span
        };
        let depth = part.depth + verdict.parts[..index].iter().filter(|other| around(other)).count();
        let why = match (&part.reason, &part.rule) {
            (Some(reason), _) => reason.clone(),
            (None, Some(rule)) => format!("rule '{rule}'"),
            (None, None) if part.decision == Decision::Allow => "needs no rule".into(),
            (None, None) => "no matching allow rule".into(),
        };
        println!(
            "  {:<6} {}{}   [{}..{}]  {why}",
            word(part.decision),
            "  ".repeat(depth),
            part.command,
            part.span.start,
            part.span.end
        );
        let others: Vec<&String> =
            part.matched.iter().filter(|rule| part.rule.as_ref() != Some(rule)).collect();
        if !others.is_empty() {
            let others: Vec<String> = others.into_iter().map(|rule| format!("'{rule}'")).collect();
            println!("         {}matched before it: {}", "  ".repeat(depth), others.join(", "));
        }
    }
    if let Some(run) = verdict.run.as_ref().filter(|run| run.reprinted && run.text != line) {
        println!("runs as: {}", run.text);
    }
    println!("=> {}", verdict.message().unwrap_or_else(|| "allow".into()));
    Ok(status(verdict.decision))
}

/// A rule of a question: its pattern, then its action or all there is to say of it.
#[derive(Deserialize)]
struct Pair(String, Said);

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Action(String),
    More {
        action: String,
        #[serde(default)]
        children: String,
    },
}

#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    id: serde_json::Value,
    policy: Vec<Pair>,
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
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_exec: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
}

/// One question a line, one answer a line; a bad line answers `error` and the next
/// is read.
pub(super) fn stdin(here: &Here) -> Result<u8> {
    for line in std::io::stdin().lock().split(b'\n') {
        let line = line?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let answer = match serde_json::from_slice::<Question>(&line) {
            Ok(question) => answer(here, question),
            Err(error) => error_answer(serde_json::Value::Null, error.to_string()),
        };
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(0)
}

fn error_answer(id: serde_json::Value, reason: String) -> Answer {
    Answer {
        id,
        decision: "error",
        rule: None,
        reason: Some(reason),
        command: None,
        span: None,
        at_exec: false,
        suggestion: None,
    }
}

fn answer(here: &Here, question: Question) -> Answer {
    let rules = question.policy.into_iter().map(|Pair(pattern, said)| match said {
        Said::Action(action) => RuleText { pattern, action, ..RuleText::default() },
        Said::More { action, children } => RuleText { pattern, action, children, ..RuleText::default() },
    });
    let policy = match Policy::from_rules(rules) {
        Ok(policy) => policy,
        Err(error) => return error_answer(question.id, error.to_string()),
    };
    let (verdict, _) = here.judge(&policy, &question.command);
    let part = verdict.deciding.as_ref();
    Answer {
        id: question.id,
        decision: word(verdict.decision),
        rule: part.and_then(|p| p.rule.clone()),
        reason: verdict.failure.clone().or_else(|| part.and_then(|p| p.reason.clone())),
        command: part.map(|p| p.command.clone()),
        span: part.map(|p| [p.span.start, p.span.end]),
        at_exec: verdict.at_exec,
        suggestion: verdict.suggestion,
    }
}
