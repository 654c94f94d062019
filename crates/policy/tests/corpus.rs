//! The corpus: lines, the policy they meet and the decision they must get.
#![allow(clippy::unwrap_used, missing_docs)]

use legwork_policy::{Decision, Policy};

#[test]
fn every_line_of_the_corpus_is_decided_as_written() {
    let mut rules: Vec<(String, String)> = Vec::new();
    let mut name = "";
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in include_str!("corpus.txt").lines() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(policy) = line.strip_prefix("policy ") {
            name = policy;
            rules.clear();
        } else if let Some(rule) = line.strip_prefix("rule ") {
            let (pattern, action) = rule.rsplit_once(" = ").unwrap();
            rules.push((pattern.to_owned(), action.to_owned()));
        } else {
            let mut fields = line.split('\t');
            let (decision, text) = (fields.next().unwrap(), fields.next().unwrap());
            let reason = fields.next().unwrap_or_default();
            let text = if text.contains("printf") || text.contains("$'") || text.contains("'s/") {
                text.to_owned()
            } else {
                // A doubled backslash before n is a literal line continuation.
                text.replace("\\\\n", "\\\u{0}").replace("\\n", "\n").replace('\u{0}', "\n")
            };
            let policy = Policy::from_pairs(rules.iter().map(|(p, a)| (p.as_str(), a.as_str())))
                .unwrap()
                .with_env_names(["HOME", "PATH", "HTTPS_PROXY"].map(String::from));
            let verdict = policy.judge(&text);
            let got = match verdict.decision {
                Decision::Allow => "allow",
                Decision::Ask => "ask",
                Decision::Deny => "deny",
            };
            count += 1;
            let message = verdict.message().unwrap_or_default();
            if got != decision || !message.contains(reason) {
                wrong.push(format!("{name}: {text:?} is {got}, not {decision}: {message}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 600, "only {count} lines were read");
}
