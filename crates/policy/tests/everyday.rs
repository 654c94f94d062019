//! Everyday lines: where each program start is judged, few of them may stay refused.
#![allow(clippy::unwrap_used, missing_docs)]

use legwork_policy::{Decision, Policy};

/// The rules and the lines of the table, each with what is said of it.
fn table() -> (Policy, Vec<(String, String)>) {
    let mut rules: Vec<(&str, &str)> = Vec::new();
    let mut lines = Vec::new();
    for line in include_str!("everyday.txt").lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("rule ") {
            Some(rule) => rules.push(rule.rsplit_once(" = ").unwrap()),
            None => {
                let (kind, text) = line.split_once('\t').unwrap();
                lines.push((kind.to_owned(), serde_json::from_str(text).unwrap()));
            }
        }
    }
    let policy = Policy::from_pairs(rules).unwrap();
    (policy.with_env_names(["HOME", "PATH", "HTTPS_PROXY"].map(String::from)), lines)
}

#[test]
fn what_operators_type_every_day_passes_where_each_start_is_judged() {
    let (policy, lines) = table();
    let policy = policy.with_exec_gate(true);
    let mut wrong = Vec::new();
    let mut refused = 0;
    for (kind, line) in &lines {
        let verdict = policy.judge(line);
        let denied = verdict.decision != Decision::Allow;
        refused += usize::from(denied);
        if denied != kind.contains("refused: ") {
            wrong.push(format!("{line:?}: {:?}", verdict.message()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lines.len() > 200 && refused <= 5, "{refused} of {} refused", lines.len());
}

#[test]
fn without_the_gate_nothing_is_left_to_a_start_that_nobody_judges() {
    let (policy, lines) = table();
    for (_, line) in &lines {
        let verdict = policy.judge(line);
        assert!(!verdict.at_exec && verdict.parts.iter().all(|part| !part.at_exec), "{line:?}");
        assert!(verdict.run.is_none_or(|run| !run.computed_writes), "{line:?}");
    }
}
