//! Answers that repair: what a refusal says to write instead passes, and so do the rules it names.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use legwork_policy::{Decision, Policy, RuleText};

/// Lines with the rules they are tried under.
fn cases() -> Vec<(Vec<(String, String)>, String)> {
    let mut cases = Vec::new();
    let mut rules: Vec<(String, String)> = Vec::new();
    for line in include_str!("everyday.txt").lines().filter(|l| !l.starts_with('#')) {
        match line.strip_prefix("rule ") {
            Some(rule) => {
                let (pattern, action) = rule.rsplit_once(" = ").unwrap();
                rules.push((pattern.into(), action.into()));
            }
            None => {
                cases.push((rules.clone(), serde_json::from_str(line.split_once('\t').unwrap().1).unwrap()))
            }
        }
    }
    let mut rules = Vec::new();
    for line in include_str!("options.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(texts) = line.strip_prefix("rule ") {
            let allowed = texts.split(";;").map(|rule| (rule.to_owned(), "allow".to_owned()));
            rules = [("*".to_owned(), "deny".to_owned())].into_iter().chain(allowed).collect();
        } else {
            cases.push((rules.clone(), line.split('\t').nth(1).unwrap().to_owned()));
        }
    }
    cases
}

fn policies(rules: &[(String, String)]) -> [Policy; 2] {
    let policy = Policy::from_pairs(rules.iter().map(|(p, a)| (p.as_str(), a.as_str()))).unwrap();
    let policy = policy.with_env_names(["HOME", "PATH", "HTTPS_PROXY"].map(String::from));
    [policy.clone().with_exec_gate(true), policy]
}

/// Refusals for which nobody can write anything else: no rule allows what the line is.
const FOR_GOOD: &[&str] = &[
    "/dev/tcp",
    "two parsers",
    "failed to parse",
    "evaluates",
    "changes how later text is read",
    "script text",
    "only -e, -u",
    "no rule can spell it",
    "bash computes a part of it",
    "a shell other than bash",
    "names a variable",
    "no word of its own",
    "computed",
];

#[test]
fn each_piece_of_advice_is_tried() {
    let (mut refused, mut instead, mut by_rule) = (0, 0, 0);
    let mut without = Vec::new();
    for (rules, line) in cases() {
        for policy in policies(&rules) {
            let verdict = policy.judge_and_repair(&line);
            if verdict.decision != Decision::Deny {
                assert_eq!(verdict.suggestion, None, "{line:?}");
                continue;
            }
            refused += 1;
            if let Some(other) = &verdict.suggestion {
                instead += 1;
                assert_eq!(policy.judge(other).decision, Decision::Allow, "{line:?}: {other:?}");
                continue;
            }
            let needed = policy.would_allow(&line);
            if needed.is_empty() {
                let message = verdict.message().unwrap_or_default();
                if !FOR_GOOD.iter().any(|text| message.contains(text)) {
                    without.push(format!("{line:?}: {message}"));
                }
                continue;
            }
            by_rule += 1;
            let own = policy.rules().iter().map(|rule| RuleText {
                pattern: rule.pattern().into(),
                action: rule.action().to_string(),
                ..RuleText::default()
            });
            let new = needed.iter().map(|(pattern, any)| RuleText {
                pattern: pattern.clone(),
                action: "allow".into(),
                children: if *any { "any".into() } else { String::new() },
                ..RuleText::default()
            });
            let own = own.filter(|rule| needed.iter().all(|(pattern, _)| *pattern != rule.pattern));
            let with = Policy::from_rules(own.chain(new)).unwrap();
            let with = with.with_env_names(["HOME", "PATH", "HTTPS_PROXY"].map(String::from));
            let with = with.with_exec_gate(policy.clone().with_exec_gate(true) == policy);
            assert_eq!(with.judge(&line).decision, Decision::Allow, "{line:?}: {needed:?}");
        }
    }
    assert!(without.is_empty(), "{} without advice:\n{}", without.len(), without.join("\n"));
    assert!(
        refused > 300 && instead > 3 && by_rule > 200,
        "{refused} refused, {instead} and {by_rule} with advice"
    );
}

/// Words of a text that look like options.
fn options(text: &str) -> BTreeSet<String> {
    let of_word = |word: &str| {
        let word = word.trim_matches(|c: char| "'\"`();:,.{}".contains(c));
        let name: String =
            word.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        (name.starts_with('-') && name.trim_start_matches('-').starts_with(|c: char| c.is_ascii_alphabetic()))
            .then_some(name)
    };
    text.split_whitespace().filter_map(of_word).collect()
}

#[test]
fn no_answer_names_an_option_that_nobody_wrote() {
    let mut wrong = Vec::new();
    for (rules, line) in cases() {
        for policy in policies(&rules) {
            let verdict = policy.judge_and_repair(&line);
            let Some(message) = verdict.message() else { continue };
            // What is proposed may write out what was shortened.
            let message = message.split("; write instead: ").next().unwrap();
            for option in options(message) {
                let letters = option.trim_start_matches('-');
                let clustered = letters.len() == 1
                    && line.split_whitespace().any(|w| w.starts_with('-') && w.contains(letters));
                let bare =
                    letters.len() == 1 && line.split_whitespace().nth(1).is_some_and(|w| w.contains(letters));
                if !line.contains(&option) && !clustered && !bare {
                    wrong.push(format!("{line:?} has no {option}: {message}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
