//! The reading against the shells themselves: generated lines are run as they are and as
//! they are printed, by a bash that can start nothing, in several locales; text that is
//! allowed for `sh -c` by dash as well.
//!
//!     shells [--seed N] [--seconds N]
//!
//! It fails if the printing does something else than the line, or if an allowed line tries
//! to start a program that no rule names.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod lines;
mod run;

use std::time::{Duration, Instant};

use legwork_policy::{Decision, Policy, fuzzing};

use lines::Random;
use run::Yard;

/// Builtins that the rules name; all else shouts.
const NAMED: &[&str] = &[
    "echo", "printf", "read", "true", "false", ":", "[", "test", "export", "declare", "readonly", "local",
    "f", "sh",
];
const BATCH: usize = 100;
/// More is printed only by what does not end.
const LONGEST_OUTPUT: usize = 4096;
/// Enough to see of what kind they are.
const MOST_FAILURES: usize = 20;

fn policy(gate: bool) -> Policy {
    let rules = NAMED.iter().map(|name| format!("{name} *")).collect::<Vec<_>>();
    let pairs = [("*", "deny")].into_iter().chain(rules.iter().map(|rule| (rule.as_str(), "allow")));
    Policy::from_pairs(pairs).unwrap().with_exec_gate(gate)
}

fn option(name: &str) -> Option<u64> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)?.parse().ok()
}

#[derive(Default)]
struct Count {
    lines: u64,
    printed: u64,
    compared: u64,
    allowed: u64,
    by_dash: u64,
    late: u64,
    /// Something was started that the line does not start, or that no rule allows.
    failures: Vec<String>,
    /// What runs was judged and is our printing; it prints something else than the line would.
    differences: Vec<String>,
}

fn main() {
    let seed = option("--seed").unwrap_or(1).max(1);
    let until = Instant::now() + Duration::from_secs(option("--seconds").unwrap_or(60));
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("empty");
    std::fs::create_dir(&folder).unwrap();
    let locales = run::locales(scratch.path());
    let yard = Yard { folder, locales: Some(scratch.path().to_owned()) };
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut count = Count::default();
    while Instant::now() < until && count.failures.len() < MOST_FAILURES {
        let locale = locales[random.below(locales.len())];
        let batch: Vec<String> = (0..BATCH).map(|_| lines::line(&mut random)).collect();
        check(&yard, &batch, locale, &mut count);
    }
    let Count { lines, printed, compared, allowed, by_dash, late, failures, differences } = count;
    println!(
        "{lines} lines in {locales:?}: {printed} printed, {compared} of them run both ways, {allowed} allowed, \
         {by_dash} read by dash, {late} too slow, {} wrong, {} that print something else",
        failures.len(),
        differences.len()
    );
    for difference in &differences {
        println!("prints something else: {difference}");
    }
    assert!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n\n"));
    assert!(differences.is_empty(), "seed {seed}: {} lines print something else", differences.len());
}

/// Whether something is left to run when the text has ended.
fn leaves(printed: &str) -> bool {
    printed.replace("&&", "").contains(" &") || printed.contains("<(") || printed.contains(">(")
}

/// Whether a line does the same each time: one that prints its own process's number does not.
fn is_steady(yard: &Yard, line: &str, locale: &str, was: &run::Effect, races: bool) -> bool {
    let again = yard.bash(&[line], locale).unwrap_or_default();
    again.first().is_some_and(|again| again.seen(races) == was.seen(races))
}

/// Runs a batch; panics with the line on which something differs.
fn check(yard: &Yard, batch: &[String], locale: &str, count: &mut Count) {
    // Where a letter and a sign can be one character, the line means something else by design.
    let comparable = |line: &String| {
        (line.is_ascii() || locale.starts_with('C')) && fuzzing::parsers_agree(line) == Some(true)
    };
    let printed: Vec<Option<String>> = batch
        .iter()
        .map(|line| fuzzing::printed(line).filter(|text| comparable(line) && !leaves(text)))
        .collect();
    let strict = policy(false);
    let gated = policy(true);
    let mut texts: Vec<&str> = Vec::new();
    for (line, printed) in batch.iter().zip(&printed) {
        if let Some(printed) = printed {
            texts.extend([line.as_str(), printed]);
        }
    }
    count.lines += batch.len() as u64;
    count.printed += texts.len() as u64 / 2;
    let Some(effects) = yard.bash(&texts, locale) else {
        count.late += 1;
        return;
    };
    for (pair, text) in effects.chunks_exact(2).zip(texts.chunks_exact(2)) {
        let [was, is] = pair else { continue };
        // Bash would not run it: then neither does the runner, which asks bash first; what
        // the printing does is judged below.
        // What never ends was cut off anywhere.
        // Nor what lists all that the shell knows, its own text and lines among it.
        let ends = |effect: &run::Effect| {
            effect.output.len() < LONGEST_OUTPUT && !effect.output.contains("BASH_VERSINFO=")
        };
        if was.valid && ends(was) && ends(is) {
            count.compared += 1;
            let races = text[0].contains(['|', '&']);
            if was.seen(races) != is.seen(races) && is_steady(yard, text[0], locale, was, races) {
                let same = was.started == is.started || races;
                let list = if same { &mut count.differences } else { &mut count.failures };
                list.push(format!("{:?}\n became {:?}\n in {locale}: {was:?}\n {is:?}", text[0], text[1]));
            }
        }
    }
    let runs: Vec<(String, &String)> = batch
        .iter()
        .flat_map(|line| [&strict, &gated].map(|policy| (policy.judge(line), line)))
        .filter(|(verdict, _)| verdict.decision == Decision::Allow)
        .filter_map(|(verdict, line)| verdict.run.map(|run| (run.text, line)))
        .collect();
    count.allowed += runs.len() as u64;
    let texts: Vec<&str> = runs.iter().map(|(text, _)| text.as_str()).collect();
    for (effect, (text, line)) in yard.bash(&texts, locale).unwrap_or_default().iter().zip(&runs) {
        if effect.started.iter().any(|name| name.contains("owned")) {
            count.failures.push(format!("{line:?}\n ran as {text:?}\n in {locale}: {effect:?}"));
        }
    }
    for line in batch {
        let quoted = format!("sh -c '{}'", line.replace('\'', "'\\''"));
        if strict.judge(&quoted).decision == Decision::Allow {
            count.by_dash += 1;
            let started = yard.dash(line).unwrap_or_default();
            if started.iter().any(|name| name.contains("owned")) {
                count.failures.push(format!("{line:?} ran {started:?} in dash"));
            }
        }
    }
}
