//! `*: allow` with deny rules after it (points 23 and 24): the accident that such a rule
//! guards against is found behind wrappers, paths and script text as well.

use super::Judge;
use super::rules::{Filling, texts};
use crate::programs::{self, Inner};
use crate::script::{Command, Word};
use crate::verdict::{Decision, Part};

impl Judge<'_> {
    /// Judges a command where all is allowed that no rule denies.
    pub(super) fn trusted(&mut self, command: &Command, parts: &mut Vec<Part>) {
        let texts = texts(command, false);
        let about = || (command.display(), command.span);
        let (mut part, _) = self.by_rules(about(), (&texts, &texts), None, Filling::Worst);
        if part.decision != Decision::Allow && self.sees_exec(command) {
            let (best, _) = self.by_rules(about(), (&texts, &texts), None, Filling::Best);
            if best.decision == Decision::Allow {
                part = best;
            }
        }
        let denied = part.decision == Decision::Deny;
        parts.push(part);
        if denied {
            return;
        }
        match programs::examine(command, &self.policy.env_names) {
            Ok(inner) => {
                for inner in &inner {
                    self.inner(inner, command.span, parts);
                }
            }
            Err(refusal) => self.possible_inner(command, refusal.runs_text && !self.gate, parts),
        }
    }

    /// What a command may run whose words are not understood: any word could be the first of
    /// it, or its text.
    fn possible_inner(&mut self, command: &Command, runs_text: bool, parts: &mut Vec<Part>) {
        for at in 1..command.words.len() {
            let words = command.words[at..].to_vec();
            let inner = Command { words, prefixes: Vec::new(), span: command.span };
            let Some(text) = command.words[at].literal() else {
                if runs_text {
                    let reason = "script text that bash computes could be what a rule denies";
                    parts.push(self.denied(command.display(), command.span, reason));
                    return;
                }
                continue;
            };
            let texts = texts(&inner, false);
            let (part, _) =
                self.by_rules((inner.display(), command.span), (&texts, &texts), None, Filling::Worst);
            if part.decision == Decision::Deny && inner.words.iter().any(is_command) {
                parts.push(Part { depth: self.depth + 1, ..part });
                return;
            }
            if text.contains(char::is_whitespace) {
                let syntax = programs::Syntax::Bash;
                self.inner(&Inner::Script { text, syntax }, command.span, parts);
            }
        }
    }
}

/// Whether a word could be a command's name.
fn is_command(word: &Word) -> bool {
    word.literal().is_some_and(|text| !text.starts_with('-'))
}
