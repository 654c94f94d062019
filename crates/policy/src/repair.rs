//! What to write instead of a line that is refused.
//!
//! Each way to say the same differently is tried by the rules themselves, so what is proposed
//! is known to pass. None adds an option that was not written.

mod ways;

use crate::rules::Policy;
use crate::suggest::suggest;
use crate::typed;
use crate::verdict::{Decision, Verdict};

use ways::Site;

/// Longer lines are not rewritten: nobody reads what comes of it.
const MAX_BYTES: usize = 4096;
/// Parts of a line that are put right one after the other.
const ROUNDS: usize = 6;
/// Ways that are tried of one part.
const MAX_WAYS: usize = 24;

impl Policy {
    /// Judges a line and, where it is denied, adds a line that does the same and passes, if one
    /// is known. Slower than [`Policy::judge`] for what is denied: a few more lines are judged.
    pub fn judge_and_repair(&self, line: &str) -> Verdict {
        let mut verdict = self.judge(line);
        verdict.suggestion = self.instead_of(line, &verdict);
        verdict
    }

    /// A line that does what a denied one does, and passes.
    fn instead_of(&self, line: &str, verdict: &Verdict) -> Option<String> {
        if verdict.decision != Decision::Deny || line.len() > MAX_BYTES || self.trusts() {
            return None;
        }
        let mut line = line.to_owned();
        let mut denied = count(verdict);
        let mut verdict = verdict.clone();
        for _ in 0..ROUNDS {
            let mut better = None;
            // A wrapper's own refusal hides that of what it runs.
            let nearer = |tried: &Verdict, candidate: &str| {
                let left = count(tried);
                left < denied || left == denied && candidate.len() < line.len()
            };
            for candidate in self.ways(&line, &verdict) {
                let tried = self.judge(&candidate);
                match tried.decision {
                    Decision::Allow => return Some(candidate),
                    Decision::Deny if tried.failure.is_none() && nearer(&tried, &candidate) => {
                        better.get_or_insert((candidate, tried));
                    }
                    _ => {}
                }
            }
            (line, verdict) = better?;
            denied = count(&verdict);
        }
        None
    }

    /// Other ways to write the parts of a line that are denied.
    fn ways(&self, line: &str, verdict: &Verdict) -> Vec<String> {
        let _tables = self.own_tables();
        let Ok(script) = typed::parse(line, self.exec_gate) else { return Vec::new() };
        let mut found = Vec::new();
        for part in verdict.parts.iter().filter(|part| part.decision == Decision::Deny) {
            for command in script.commands.iter().filter(|command| command.span == part.span) {
                found.extend(Site::of(line, command, &script).ways());
            }
            for refused in script.refused.iter().filter(|refused| refused.span == part.span) {
                found.extend(ways::test_of(line, refused.span));
            }
        }
        found.truncate(MAX_WAYS);
        found.retain(|candidate| candidate != line);
        found
    }

    /// The rules that an operator would have to add for a denied line to pass, where no rule
    /// was written to deny it. Those with `true` need `children: any`.
    pub fn would_allow(&self, line: &str) -> Vec<(String, bool)> {
        let mut with = self.clone();
        let mut added: Vec<(String, bool)> = Vec::new();
        for _ in 0..ROUNDS {
            let verdict = with.judge(line);
            if verdict.decision == Decision::Allow {
                return with.needed(line, added);
            }
            let by_rule = |part: &crate::verdict::Part| {
                part.decision == Decision::Deny && part.rule.as_deref().is_some_and(|rule| rule != "*")
            };
            if verdict.decision == Decision::Ask || verdict.parts.iter().any(by_rule) {
                return Vec::new();
            }
            let needed = suggest(&with, [line]).rules;
            let mut grew = false;
            for rule in needed {
                if added.iter().any(|(pattern, _)| *pattern == rule.pattern) {
                    continue;
                }
                with.rules.retain(|before| before.pattern() != rule.pattern);
                with.rules.push(rule.rule());
                added.push((rule.pattern, rule.children_any));
                grew = true;
            }
            if !grew {
                return Vec::new();
            }
        }
        Vec::new()
    }
}

impl Policy {
    /// Those of the rules that were added without which the line would not pass.
    fn needed(mut self, line: &str, mut added: Vec<(String, bool)>) -> Vec<(String, bool)> {
        added.retain(|(pattern, _)| {
            let mut without = self.clone();
            without.rules.retain(|rule| rule.pattern() != pattern);
            let is_needed = without.judge(line).decision != Decision::Allow;
            if !is_needed {
                self = without;
            }
            is_needed
        });
        added
    }
}

fn count(verdict: &Verdict) -> usize {
    verdict.parts.iter().filter(|part| part.decision == Decision::Deny).count()
}

#[cfg(test)]
mod tests;
