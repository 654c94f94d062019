//! One command against the rules.

use super::Judge;
use crate::pattern::{Pattern, Token};
use crate::programs;
use crate::rules::{Action, Rule};
use crate::script::{Command, Style, Word};
use crate::verdict::{Decision, Part, Span};

/// What of all that bash may fill in counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filling {
    /// The worst: nothing else will look at it.
    Worst,
    /// The best: the program's start will be judged by what it really is.
    Best,
}

impl Judge<'_> {
    /// Applies the rules: the last match wins. `texts` are what allow rules must
    /// cover (in any style), `denied_texts` what deny rules may match besides.
    /// Also says whether the deciding rule spells the whole command.
    pub(super) fn by_rules(
        &self,
        (display, span): (String, Span),
        (texts, denied_texts): (&Texts, &Texts),
        with_prefixes: Option<&Command>,
        filling: Filling,
    ) -> (Part, bool) {
        let mut matched: Vec<&Rule> = Vec::new();
        let mut deciding: Option<&Rule> = None;
        let mut decision = Decision::Deny;
        for rule in self.live {
            if rule.is_redirect() {
                continue;
            }
            let whole = || texts.quoted.iter().any(|t| covers_alone(rule, &rule.pattern, t));
            let covers = || match with_prefixes {
                Some(command) if !rule.pattern.is_exact() && !rule.pattern.is_star() => {
                    covers_by_parts(rule, command, denied_texts)
                }
                _ => whole(),
            };
            let could_match = || texts.all().chain(denied_texts.all()).any(|t| rule.pattern.could_match(t));
            let surely = || texts.all().chain(denied_texts.all()).any(|t| rule.pattern.covers(t));
            // To ask is to withhold, so where the worst counts it reaches as far as a deny;
            // but where it is not sure to match, it does not soften what stood before.
            let matches = match (rule.action, filling) {
                (Action::Allow, Filling::Worst) => covers(),
                (Action::Ask, Filling::Worst) => covers() || decision == Decision::Allow && could_match(),
                (Action::Deny, Filling::Worst) => could_match(),
                (Action::Allow, Filling::Best) => {
                    if with_prefixes.is_some() {
                        covers()
                    } else {
                        texts.all().chain(denied_texts.all()).any(|t| rule.pattern.allows(t, true))
                    }
                }
                (Action::Ask | Action::Deny, Filling::Best) => surely(),
            };
            if matches {
                matched.push(rule);
                deciding = Some(rule);
                decision = rule.action.into();
            }
        }
        let exact = deciding.is_some_and(|r| r.pattern.is_exact());
        // Who is refused by no rule's wish learns which rule would have been for it.
        let by_default = decision == Decision::Deny && deciding.is_none_or(|rule| rule.pattern.is_star());
        let climbs = by_default && {
            let rules = self.live.iter().filter(|rule| rule.action == Action::Allow);
            rules.filter(|rule| !rule.is_redirect()).any(|rule| leads_out(&rule.pattern, &texts.quoted))
        };
        let part = Part {
            command: display,
            span: self.span(span),
            depth: self.depth,
            decision,
            at_exec: filling == Filling::Best,
            rule: deciding.map(|r| r.pattern().to_owned()),
            matched: matched.iter().map(|r| r.pattern().to_owned()).collect(),
            reason: climbs.then(|| LEADS_OUT.to_owned()),
        };
        (part, exact)
    }
}

/// Why a path is not beneath the folder that it begins with.
pub(super) const LEADS_OUT: &str =
    "its '..' leads out of the folder that an allow rule spells; write the path without '..'";

/// Whether a rule's pattern, or the part of it that is for the command itself, covers a text.
fn covers_alone(rule: &Rule, pattern: &Pattern, text: &[Token]) -> bool {
    if rule.action == Action::Allow { pattern.allows(text, false) } else { pattern.covers(text) }
}

fn leads_out(pattern: &Pattern, texts: &[Vec<Token>]) -> bool {
    texts.iter().any(|text| pattern.covers(text) && !pattern.allows(text, false))
}

/// Whether a rule such as `FOO=* cat *` covers a command with prefixes. Its words are held
/// against theirs, or the `*` of a value would reach over the command's name.
pub(super) fn covers_by_parts(rule: &Rule, command: &Command, bare: &Texts) -> bool {
    let mut rest = rule.pattern();
    for prefix in 0..command.prefixes.len() {
        let Some((word, after)) = rest.split_once(' ') else { return false };
        // Most rules say nothing of variables.
        if !assigns(word) {
            return false;
        }
        let pattern = Pattern::new(word);
        let fits = |style| covers_alone(rule, &pattern, &command.prefix_tokens(prefix, style));
        if !(fits(Style::Double) || fits(Style::Single)) {
            return false;
        }
        rest = after;
    }
    let pattern = Pattern::of_rule(rest);
    let first = rest.split(' ').next().unwrap_or_default();
    !assigns(first) && !first.starts_with('*') && bare.quoted.iter().any(|t| covers_alone(rule, &pattern, t))
}

/// Whether a pattern's word is `NAME=…`.
pub(crate) fn assigns(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let name = name.strip_suffix('+').unwrap_or(name);
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// The forms in which rules see a command.
pub(super) struct Texts {
    /// Words that need quotes are quoted: what an allow rule must cover.
    quoted: Vec<Vec<Token>>,
    /// Further forms a deny rule also applies to: no quotes, no directory.
    loose: Vec<Vec<Token>>,
}

impl Texts {
    fn all(&self) -> impl Iterator<Item = &Vec<Token>> {
        self.quoted.iter().chain(&self.loose)
    }
}

pub(super) fn texts(command: &Command, with_prefixes: bool) -> Texts {
    let command = programs::globals::behind(command);
    let mut quoted = vec![command.tokens(Style::Double, with_prefixes)];
    // Only words that need quotes look different from style to style.
    let has_quotes = command.words.iter().any(Word::holds_blank)
        || command.prefixes.iter().any(|p| p.value.as_ref().is_some_and(Word::holds_blank));
    let in_folder = command.words.first().is_some_and(|w| w.literal_head().contains('/'));
    if !has_quotes && !in_folder {
        return Texts { quoted, loose: Vec::new() };
    }
    let single = command.tokens(Style::Single, with_prefixes);
    if single != quoted[0] {
        quoted.push(single);
    }
    let mut loose = vec![command.tokens(Style::Bare, with_prefixes)];
    for style in [Style::Double, Style::Single, Style::Bare] {
        loose.extend(command.tokens_without_directory(style));
    }
    loose.retain(|t| !quoted.contains(t));
    Texts { quoted, loose }
}
