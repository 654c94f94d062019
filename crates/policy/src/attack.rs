//! Known attacks, tried against an operator's own rules.

use serde::Serialize;

use crate::rules::Policy;
use crate::verdict::Decision;

const TABLE: &str = include_str!("../tables/attacks.txt");

/// A known attack that rules let pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Passing {
    /// The line of shell.
    pub line: &'static str,
    /// What it does beside the plain purpose of the programs it names: `exec`, `write`, `delete`,
    /// `read`, `leak`, `send`, `redirect`, `privilege` or `kill`.
    pub does: &'static str,
    /// The rules that let it pass, in the order of the line.
    pub rules: Vec<String>,
    /// The exec gate judges what it starts, by the same rules, when it is started.
    pub at_exec: bool,
}

/// The attacks that are known: what each does, and its line.
pub(crate) fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'))
}

impl Policy {
    /// Tries each known attack by reading, and returns those that would start. Nothing is run.
    pub fn attacks(&self) -> Vec<Passing> {
        let mut passing = Vec::new();
        for (does, line) in known() {
            let verdict = self.judge(line);
            if verdict.decision != Decision::Allow {
                continue;
            }
            let mut rules: Vec<String> = Vec::new();
            for rule in verdict.parts.iter().filter_map(|part| part.rule.as_ref()) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            passing.push(Passing { line, does, rules, at_exec: self.exec_gate && does == "exec" });
        }
        passing
    }

    /// How many attacks [`Policy::attacks`] tries.
    pub fn known_attacks() -> usize {
        known().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attack_says_what_it_does_and_parses() {
        const DOES: &[&str] =
            &["exec", "write", "delete", "read", "leak", "send", "redirect", "privilege", "kill"];
        for (does, line) in known() {
            assert!(DOES.contains(&does), "{does}: {line}");
        }
        assert!(Policy::known_attacks() > 350, "{}", Policy::known_attacks());
    }

    #[test]
    fn what_passes_names_the_rule() {
        let policy =
            Policy::from_pairs([("*", "deny"), ("tee *", "allow"), ("echo *", "allow")]).expect("rules");
        let passing = policy.attacks();
        let tee = passing.iter().find(|p| p.line == "echo x | tee /etc/cron.d/x").expect("it passes");
        assert_eq!((tee.does, tee.rules.join(",")), ("write", "echo *,tee *".to_owned()));
        assert!(passing.iter().all(|p| p.does == "exec" || p.line.contains("tee")), "{passing:?}");
        assert_eq!(Policy::deny_all().attacks(), []);
    }

    #[test]
    fn presets_hold_against_what_is_known() {
        for name in ["strict", "read-only", "kubernetes-read-only"] {
            let rules = crate::preset(name).expect("a preset").rules;
            for gate in [false, true] {
                let policy = Policy::from_pairs(rules.iter().copied()).expect("rules").with_exec_gate(gate);
                let passing: Vec<&str> =
                    policy.attacks().iter().filter(|p| !p.at_exec).map(|p| p.line).collect();
                assert_eq!(passing, [] as [&str; 0], "{name}, gate {gate}");
            }
        }
    }
}
