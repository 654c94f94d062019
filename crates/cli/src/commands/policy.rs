//! `legwork policy`.

mod check;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use legwork_dialout::config::{Rules, Source, rules_of};
use legwork_policy::{Learned, NoteKind, PRESETS, Policy, Suggestions, learn, preset, suggest, tables};
use serde::Deserialize;
use serde_json::json;

use check::Here;

use crate::args::PolicyCommand;
use crate::commands::audit;
use crate::{context, exit};

pub(crate) async fn run(command: PolicyCommand) -> Result<u8> {
    match command {
        PolicyCommand::Check { stdin_json: true, gate, .. } => check::stdin(&Here::look(gate, &[]).await),
        PolicyCommand::Check { config, json, gate, line, .. } => {
            let path = config.unwrap_or_default();
            let Some(rules) = rules_or_say(&path) else { return Ok(exit::CONFIG) };
            let here = Here::look(gate, &rules.env_pass).await;
            check::line(&here, &rules.bash, &path, json, &line.join(" "))
        }
        PolicyCommand::Explain { config, json, gate, line } => {
            let Some(rules) = rules_or_say(&config) else { return Ok(exit::CONFIG) };
            let here = Here::look(gate, &rules.env_pass).await;
            check::explain(&here, &rules.bash, json, &line.join(" "))
        }
        PolicyCommand::Lint { config, attack: false, json } => {
            with_rules(&config, |policy| lint(policy, json))
        }
        PolicyCommand::Lint { config, json, .. } => with_rules(&config, |policy| attack(policy, json)),
        PolicyCommand::Suggest { config, audit, json } => match config {
            Some(config) => with_rules(&config, |policy| propose(policy, audit, json)),
            None => propose(&Policy::deny_all(), audit, json),
        },
        PolicyCommand::Learn { file, json } => learn_from(&file, json),
        PolicyCommand::Preset { name } => presets(name.as_deref()),
        PolicyCommand::Tables => {
            print!("{}", tables());
            Ok(0)
        }
    }
}

/// Rules that can't be read are a config error, whatever was to be done with them.
fn with_rules(path: &Path, then: impl FnOnce(&Policy) -> Result<u8>) -> Result<u8> {
    rules_or_say(path).map_or(Ok(exit::CONFIG), |rules| then(&rules.bash))
}

/// The rules of a config file. Says what is wrong with it, if it can't be read.
fn rules_or_say(path: &Path) -> Option<Rules> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("failed to read {}: {e}", path.display()));
    let original = context::is_originals(path);
    let rules = text.and_then(|text| {
        rules_of(&Source { path: path.to_owned(), text, original }).map_err(|e| e.to_string())
    });
    rules.map_err(|error| eprintln!("Error: {error}")).ok()
}

fn lint(policy: &Policy, json: bool) -> Result<u8> {
    let notes = policy.notes();
    if json {
        println!("{}", serde_json::to_string_pretty(&notes)?);
    } else if notes.is_empty() {
        println!("nothing to say about {} rules", policy.rules().len());
    } else {
        for note in &notes {
            let kind = match note.kind {
                NoteKind::Dead => "dead",
                NoteKind::Dangerous => "dangerous",
                NoteKind::Ineffective => "ineffective",
                NoteKind::CarveOut => "carve-out",
                NoteKind::Order => "order",
            };
            println!("{kind:<12} '{}' {}", note.pattern, note.message);
        }
    }
    Ok(u8::from(!notes.is_empty()))
}

fn attack(policy: &Policy, json: bool) -> Result<u8> {
    let passing = policy.attacks();
    if json {
        println!("{}", serde_json::to_string_pretty(&passing)?);
        return Ok(u8::from(!passing.is_empty()));
    }
    if policy.allows_everything() {
        println!("'*: allow' lets every attack pass; nothing was tried");
        return Ok(1);
    }
    for attack in &passing {
        let rules = attack.rules.iter().map(|rule| format!("'{rule}'")).collect::<Vec<_>>().join(", ");
        let gate = if attack.at_exec { " (what it starts is judged when it starts)" } else { "" };
        println!("passes  {:<10} {}   by {rules}{gate}", attack.does, attack.line);
    }
    println!(
        "{} of {} known attacks pass {} rules",
        passing.len(),
        Policy::known_attacks(),
        policy.rules().len()
    );
    Ok(u8::from(!passing.is_empty()))
}

/// A record of an audit file, as far as it matters here.
#[derive(Deserialize)]
struct Asked {
    operation: String,
    subject: String,
    decision: String,
}

fn propose(policy: &Policy, file: Option<PathBuf>, json: bool) -> Result<u8> {
    let files = file.map_or_else(audit::own_files, |file| vec![file]);
    if files.is_empty() {
        bail!("no audit file found; give one with --audit");
    }
    let mut lines = Vec::new();
    for path in files {
        let file =
            std::fs::File::open(&path).with_context(|| format!("failed to read {}", path.display()))?;
        for line in BufReader::new(file).lines() {
            if let Ok(asked) = serde_json::from_str::<Asked>(&line?)
                && asked.operation == "bash"
                && asked.decision == "deny"
            {
                lines.push(asked.subject);
            }
        }
    }
    let found = suggest(policy, lines.iter().map(String::as_str));
    if json {
        println!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(0);
    }
    println!("# {}, {} would cover them", many(lines.len(), "denied line"), many(found.rules.len(), "rule"));
    print_rules(&found);
    Ok(0)
}

/// Most lines that are learnt from: what a person looks through afterwards is far less.
const MOST_LINES: usize = 100_000;

fn learn_from(file: &Path, json: bool) -> Result<u8> {
    let read: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let open = std::fs::File::open(file).with_context(|| format!("failed to read {}", file.display()))?;
        Box::new(BufReader::new(open))
    };
    let mut lines = Vec::new();
    for line in read.lines() {
        let line = line.with_context(|| format!("failed to read {}", file.display()))?;
        asked_for(&line, &mut lines);
        if lines.len() >= MOST_LINES {
            eprintln!("note: only the first {MOST_LINES} lines are looked at");
            break;
        }
    }
    let learned = learn(&lines);
    if json {
        println!("{}", serde_json::to_string_pretty(&learned)?);
        return Ok(0);
    }
    let Learned { found, lines, pass, pass_with_all } = learned;
    let share = |count: usize| (count * 100).checked_div(lines).unwrap_or(0);
    println!(
        "# {}; {} would let {} % of them pass, with",
        many(lines, "line"),
        many(found.rules.len(), "rule"),
        share(pass_with_all)
    );
    println!("# those that are marked; {} % pass without them.", share(pass));
    print_rules(&found);
    Ok(0)
}

/// What one line of a history, an audit or a transcript asked for.
fn asked_for(line: &str, found: &mut Vec<String>) {
    fn commands(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    match value.as_str().filter(|_| key == "command" || key == "cmd") {
                        Some(text) => found.push(text.to_owned()),
                        None => commands(value, found),
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| commands(item, found)),
            _ => {}
        }
    }
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(value) if value["operation"] == "bash" => {
            found.extend(value["subject"].as_str().map(str::to_owned));
        }
        Ok(value) if value.is_object() => commands(&value, found),
        _ => {
            let text = line.trim();
            let text = text.strip_prefix("$ ").unwrap_or(text);
            // Comments, and the times that a shell's history may hold.
            found.extend((!text.is_empty() && !text.starts_with('#')).then(|| text.to_owned()));
        }
    }
}

/// A number of things, as people say it.
fn many(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn print_rules(found: &Suggestions) {
    for rule in &found.rules {
        if let Some(danger) = &rule.danger {
            println!("# DANGEROUS: {danger}");
        }
        let comment = if rule.danger.is_some() { "# " } else { "" };
        let action = if rule.children_any { "{allow, children: any}" } else { "allow" };
        println!(
            "{comment}{}: {action}   # {}, such as {}",
            json!(rule.pattern),
            many(rule.lines, "line"),
            json!(rule.example)
        );
    }
    for (line, reason) in &found.refused {
        println!("# can't be allowed as it is: {}: {reason}", json!(line));
    }
}

fn presets(name: Option<&str>) -> Result<u8> {
    let Some(name) = name else {
        for preset in PRESETS {
            println!("{:<22} {}", preset.name, preset.purpose);
        }
        return Ok(0);
    };
    let Some(preset) = preset(name) else {
        let known: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
        bail!("there is no preset '{name}'; there are {}", known.join(", "));
    };
    println!(
        "# {}: {}\n# The same as `permission: {{include: [{}]}}`.",
        preset.name, preset.purpose, preset.name
    );
    println!("permission:\n  bash:");
    for (pattern, action) in preset.rules {
        println!("    {}: {action}", json!(pattern));
    }
    Ok(0)
}
