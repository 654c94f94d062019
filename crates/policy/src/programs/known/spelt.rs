//! How far a rule spells a command.

use super::Need;
use crate::programs::globals;
use crate::quote::{double_quoted, single_quoted};
use crate::script::{Command, Word};

/// Whether a rule writes out what is needed. Options before a subcommand are matched as if
/// behind it, but there they may mean something else (`git -c`, `git log -c`): what stands
/// before it in the command or in the rule must stand there in both.
pub(super) fn holds(rule: &str, need: &Need, command: &Command) -> bool {
    if Spelt::by(rule, &command.words).holds(need, &command.words) {
        return true;
    }
    let before = globals::before(command);
    let of_rule = globals::before_in_pattern(rule);
    if before.max(of_rule) == 1 {
        return false;
    }
    // Words of needs are counted from behind the program's name.
    let moved = |at: usize| match at + 1 {
        at if at == before => Some(0),
        at if at > before.max(of_rule) => Some(at - 1),
        _ => None,
    };
    let Some(word) = need.word.and_then(moved) else { return false };
    let value = need.value.map(|(at, from)| (moved(at).unwrap_or(at), from));
    let need = Need { word: Some(word), value, ..need.clone() };
    let command = globals::behind(command);
    Spelt::by(&globals::pattern_behind(rule), &command.words).holds(&need, &command.words)
}

/// The words of a command that a rule writes out: those before its first `*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spelt {
    /// Whole words, from the first on.
    words: usize,
    /// Bytes of the word after them.
    partial: usize,
}

impl Spelt {
    pub(super) fn by(rule: &str, words: &[Word]) -> Self {
        // What a `{…}` stands for is no text either.
        let head = rule.split(['*', '{']).next().unwrap_or_default();
        let ways = [double_quoted, single_quoted].map(|quoted| by(head, words, quoted));
        ways.into_iter().max_by_key(|s| (s.words, s.partial)).unwrap_or_default()
    }

    /// Whether the rule writes out what is needed.
    pub(super) fn holds(&self, need: &Need, words: &[Word]) -> bool {
        // Words of needs are counted from behind the program's name.
        let Some(word) = need.word.map(|word| word + 1) else { return false };
        let reaches =
            |word: usize, byte: usize| word < self.words || word == self.words && byte <= self.partial;
        // An operand is a file of a folder if the rule ends with that.
        let is_operand = need.value == need.word.map(|word| (word, 0));
        let in_folder = || {
            let text = words.get(word).map(Word::literal_head).unwrap_or_default();
            word == self.words && self.partial > 0 && text.as_bytes().get(self.partial - 1) == Some(&b'/')
        };
        if !(reaches(word, need.upto) || is_operand && in_folder()) {
            return false;
        }
        // A file beneath a folder that the rule names must not lead out of it again.
        let Some((at, from)) = need.value else { return true };
        let (at, is_begun) = (at + 1, reaches(at + 1, from + 1));
        let is_whole = at < self.words;
        let climbs = || {
            let text = words.get(at).map(Word::literal_head).unwrap_or_default();
            text.get(from..).unwrap_or_default().split('/').any(|part| part == "..")
        };
        is_whole || !is_begun || !climbs()
    }
}

fn by(head: &str, words: &[Word], quoted: fn(&str) -> String) -> Spelt {
    let mut rest = head;
    let mut spelt = Spelt::default();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            let Some(after) = rest.strip_prefix(' ') else { break };
            rest = after;
        }
        let Some(literal) = word.literal() else { break };
        let text = if word.holds_blank() { quoted(&literal) } else { literal };
        match rest.strip_prefix(text.as_str()) {
            Some(after) if after.is_empty() || after.starts_with(' ') => {
                rest = after;
                spelt.words = index + 1;
            }
            _ => {
                if !word.holds_blank() && text.starts_with(rest) {
                    spelt.partial = rest.len();
                }
                break;
            }
        }
    }
    spelt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_spells_what_stands_before_its_first_star() {
        for (rule, line, words, partial) in [
            ("curl *", "curl -o x", 1, 0),
            ("curl -o *", "curl -o x", 2, 0),
            ("curl -o /tmp/*", "curl -o /tmp/x u", 2, 5),
            ("curl -o/tmp/*", "curl -o/tmp/x u", 1, 7),
            ("tar -t*", "tar -tIx", 1, 2),
            ("curl * -o *", "curl u -o x", 1, 0),
            ("curl -o {path:/tmp} *", "curl -o /tmp/x u", 2, 0),
            ("curl -o", "curl -o", 2, 0),
            ("*", "curl -o x", 0, 0),
        ] {
            let line: Vec<Word> = line.split(' ').map(Word::of).collect();
            assert_eq!(Spelt::by(rule, &line), Spelt { words, partial }, "{rule}");
        }
    }
}
