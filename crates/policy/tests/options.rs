//! Options under rules with `*`: what is known to be harmless passes, nothing else.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use legwork_policy::{Decision, Policy};

fn policy<'a>(rules: impl IntoIterator<Item = &'a str>) -> Policy {
    Policy::from_pairs([("*", "deny")].into_iter().chain(rules.into_iter().map(|rule| (rule, "allow"))))
        .unwrap()
}

/// Each line with its rules, its decision and a part of its answer.
fn cases() -> Vec<(Vec<&'static str>, &'static str, &'static str, &'static str)> {
    let mut rules = Vec::new();
    let mut cases = Vec::new();
    for line in include_str!("options.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(texts) = line.strip_prefix("rule ") {
            rules = texts.split(";;").collect();
        } else {
            let mut fields = line.split('\t');
            let (decision, text) = (fields.next().unwrap(), fields.next().unwrap());
            cases.push((rules.clone(), decision, text, fields.next().unwrap_or_default()));
        }
    }
    cases
}

#[test]
fn only_what_is_known_to_be_harmless_passes() {
    let mut wrong = Vec::new();
    for (rules, decision, line, reason) in cases() {
        for gate in [false, true] {
            let verdict = policy(rules.iter().copied()).with_exec_gate(gate).judge(line);
            let message = verdict.message().unwrap_or_default();
            // What bash computes is for the gate to judge.
            let wanted = if gate && line.contains('$') && !line.contains('\'') { continue } else { decision };
            if (verdict.decision == Decision::Allow) != (wanted == "allow") || !message.contains(reason) {
                wrong.push(format!("{line} must be {wanted} {reason}, gate {gate}: {message}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases().len() > 300);
}

#[test]
fn the_rule_that_an_answer_proposes_allows_the_line() {
    let mut tried = 0;
    for (rules, _, line, _) in cases() {
        let message = policy(rules.iter().copied()).judge(line).message().unwrap_or_default();
        let Some((_, proposal)) = message.split_once("would allow it: \"") else { continue };
        let proposal =
            proposal.rsplit_once("\": allow").unwrap().0.replace("\\\"", "\"").replace("\\\\", "\\");
        let verdict = policy(rules.iter().copied().chain([proposal.as_str()])).judge(line);
        assert_eq!(verdict.decision, Decision::Allow, "{proposal} for {line}: {:?}", verdict.message());
        tried += 1;
    }
    assert!(tried > 150, "{tried}");
}

/// The exec gate judges the real arguments by the same table.
#[test]
fn computed_words_are_left_to_the_gate_and_refused_without_it() {
    for line in [
        "kubectl get pods $X",
        "curl -s \"$URL\"",
        "sort $X",
        "openssl x509 $X",
        "dd if=a o{f,f}=b",
        "git log $X",
    ] {
        let program = line.split(' ').next().unwrap();
        let rule = format!("{program} *");
        let policy = policy([rule.as_str()]);
        assert_eq!(policy.judge(line).decision, Decision::Deny, "{line}");
        assert_eq!(policy.with_exec_gate(true).judge(line).decision, Decision::Allow, "{line}");
    }
}

#[test]
fn rules_that_reach_further_are_named_when_they_are_loaded() {
    for (rule, named) in [
        ("docker exec *", true),
        ("kubectl cp *", true),
        ("git gc *", true),
        ("systemctl restart *", true),
        ("tee *", true),
        ("frobnicate *", true),
        ("docker ps *", false),
        ("kubectl get *", false),
        ("systemctl status *", false),
        ("tar -t*", false),
        ("ls *", false),
    ] {
        let notes = policy([rule]).notes();
        assert_eq!(!notes.is_empty(), named, "{rule}: {notes:?}");
    }
}

/// What does more than a rule's plain purpose is refused, or the rule is named when it is loaded;
/// what does no more passes.
#[test]
fn nothing_reaches_further_unsaid() {
    let (mut wrong, mut lines) = (Vec::new(), 0);
    for line in include_str!("reach.txt").lines().filter(|line| !line.starts_with('#')) {
        let [rules, text, does] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        lines += 1;
        for gate in [false, true] {
            let policy = policy(rules.split(";;")).with_exec_gate(gate);
            let passes = policy.judge(text).decision == Decision::Allow;
            let notes = policy.notes();
            if does == "none" {
                // Where starts are not judged, what is computed or unknown is refused.
                let verdict = policy.judge_and_repair(text);
                let otherwise = verdict.suggestion.is_some() || verdict.rule() == Some("*");
                if !passes && gate && !otherwise {
                    wrong.push(format!("{text} is harmless: {:?}", verdict.message()));
                }
            } else if passes && notes.is_empty() {
                wrong.push(format!("{text} passes unsaid ({does}), gate {gate}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(lines >= 436, "{lines}");
}

/// What a program's own help names must be known here: a table that lags behind refuses
/// ordinary lines.
#[test]
fn the_table_knows_the_options_that_programs_name_in_their_help() {
    const PROGRAMS: &[&str] = &[
        "ls",
        "cat",
        "head",
        "tail",
        "wc",
        "sort",
        "uniq",
        "cut",
        "tr",
        "stat",
        "du",
        "df",
        "date",
        "id",
        "base64",
        "sha256sum",
        "od",
        "grep",
        "diff",
        "cmp",
        "cp",
        "mv",
        "rm",
        "mkdir",
        "ln",
        "touch",
        "readlink",
        "realpath",
        "lsblk",
        "findmnt",
        "dmesg",
        "journalctl",
        "tar",
        "seq",
        "paste",
        "join",
        "nl",
        "tac",
    ];
    let (mut known, mut total, mut programs, mut missing) = (0, 0, 0, Vec::new());
    for program in PROGRAMS {
        let help = Command::new(program).arg("--help").env("LC_ALL", "C").stdin(Stdio::null()).output();
        let Ok(help) = help.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()) else {
            continue;
        };
        let long = |word: &str| {
            let end = word.find(|c: char| !c.is_ascii_lowercase() && c != '-' && !c.is_ascii_digit());
            word[..end.unwrap_or(word.len())].to_owned()
        };
        let options: BTreeSet<String> = help
            .lines()
            .filter(|line| line.trim_start().starts_with('-'))
            .flat_map(|line| {
                line.split([' ', ',', '[']).filter(|w| w.starts_with("--") && w.len() > 3).map(long)
            })
            .collect();
        programs += usize::from(!options.is_empty());
        let rule = format!("{program} *");
        for option in options {
            let answer = policy([rule.as_str()]).judge(&format!("{program} {option}=1")).message();
            total += 1;
            if answer.is_some_and(|a| a.contains("an option that is not known") || a.contains("write it out"))
            {
                missing.push(format!("{program} {option}"));
            } else {
                known += 1;
            }
        }
    }
    assert!(programs == 0 || known * 100 >= total * 90, "{known} of {total} are known, not {missing:?}");
}
