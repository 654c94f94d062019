//! What is known of the options, operands and subcommands of the programs that people use
//! to look (point 18): under a rule with `*` only what is known to be harmless passes, and
//! what the rule spells before its first `*`. The knowledge is data: `tables/options/`.

mod spelt;
mod table;
mod walk;

use super::Refusal;
use crate::pattern::{Pattern, Token};
use crate::script::{Command, Style, Word};

use table::Effect;
pub(super) use table::TEXT;

/// Something that needs more than a `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// The word that a rule has to spell; `None` where only a rule for the whole command will do.
    word: Option<usize>,
    /// How many bytes of that word it has to spell.
    upto: usize,
    /// Where the file or text stands that the option is given: the word, and its first byte.
    value: Option<(usize, usize)>,
    /// What is asked for, as the answer names it.
    what: String,
    why: Why,
}

impl Need {
    /// The refusal of a command that needs this; with `prefixes` a rule has to spell the
    /// variables before it as well.
    pub(super) fn refusal(&self, name: &str, command: &Command, prefixes: bool) -> Refusal {
        let reason = explain(name, self, command, prefixes);
        Refusal { computed: self.why == Why::Computed, ..Refusal::new(reason, true) }
    }
}

/// Why something needs more than a `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// The table says what it does.
    Does(Effect),
    /// The table does not know the option, or the subcommand.
    Unknown(&'static str),
    /// The table does not know the option, which could be short for this one.
    Short(&'static str),
    /// Bash computes the word, so that it could be any option.
    Computed,
    /// Text in a language of its own does more than look.
    Text(String),
}

/// Reads the table.
pub(super) fn prepare() {
    table::prepare();
}

/// An operator's own table, which counts beside the built-in one, and before it.
pub(super) use table::Table as OwnTable;

/// Reads an operator's table. What is wrong with it comes with the number of the line.
pub(super) fn read_own(text: &'static str) -> Result<OwnTable, (usize, String)> {
    table::read_own(text).map_err(|problem| (problem.line, problem.text))
}

pub(super) use table::{Own, with_own};

/// Whether the table has the program.
pub(super) fn knows(name: &str) -> bool {
    table::program(name).is_some()
}

/// Checks a command against the table. `rule` is the pattern that allowed it, from the
/// program's name on; empty if there is none. With an exec
/// gate (`gate`) words that bash computes are left to the judgement of the real arguments.
pub(super) fn check(name: &str, command: &Command, rule: &str, gate: bool) -> Result<(), Need> {
    let Some(node) = table::program(name) else { return Ok(()) };
    if !rule.is_empty() && Pattern::spells(rule) {
        return Ok(());
    }
    let (needs, ..) = walk::needs(node, &command.words[1..], gate);
    if needs.is_empty() {
        return Ok(());
    }
    match needs.into_iter().find(|need| !spelt::holds(rule, need, command)) {
        Some(need) => Err(need),
        None => Ok(()),
    }
}

/// A long option that is not written in full: the word, the end of its name, and what it is in full.
pub(super) fn shortened(name: &str, command: &Command) -> Option<(usize, usize, &'static str)> {
    let node = table::program(name)?;
    let (needs, ..) = walk::needs(node, &command.words[1..], true);
    needs.iter().find_map(|need| match need.why {
        Why::Short(full) => Some((need.word? + 1, need.upto, full)),
        _ => None,
    })
}

/// What an operator should know about a rule whose own words reach further than to look.
pub(super) fn note(name: &str, pattern: &str) -> Option<String> {
    let node = table::program(name)?;
    let Some((head, _)) = pattern.split_once('*') else {
        // The operator has written it out; what it runs, nobody has.
        let runs = node.purpose == Some(Effect::Exec);
        return runs.then(|| format!("runs whatever the files say that '{name}' reads"));
    };
    // A word that is not ended says nothing yet.
    let words: Vec<Word> = head.rsplit_once(' ')?.0.split(' ').skip(1).map(Word::of).collect();
    let (needs, innermost, depth) = walk::needs(node, &words, true);
    let told = needs.iter().find_map(|need| match &need.why {
        Why::Does(effect) if need.word.is_some() => Some(format!("'{}' {}", need.what, effect.says())),
        Why::Unknown(kind @ "a subcommand") => {
            Some(format!("'{}' is {kind} that the table does not know", need.what))
        }
        _ => None,
    });
    // With options behind it, it may be there for something else.
    let is_all = words.len() == depth && head.ends_with(' ');
    let purpose = || innermost.purpose.filter(|_| is_all).map(|effect| format!("'{name}' {}", effect.says()));
    let told = told.or_else(purpose)?;
    Some(format!("lets through more than looking: {told}; say with which words, if not with any"))
}

fn explain(name: &str, need: &Need, command: &Command, prefixes: bool) -> String {
    let what = &need.what;
    let problem = match &need.why {
        Why::Computed => {
            return format!(
                "a computed word could be an option with which '{name}' runs or writes something else; let it begin \
                 with known text such as ./"
            );
        }
        Why::Does(effect) => format!("'{name}' with {what} {}", effect.says()),
        Why::Unknown(kind) => format!("'{name}' with {what}: {kind} that is not known to be harmless"),
        Why::Short(_) => format!("'{name}' with {what}: an option that is not written in full"),
        Why::Text(problem) => format!("the {what} of '{name}' {problem}"),
    };
    problem + &remedy(command, prefixes)
}

/// The rule that would allow the command, as long as one could.
fn remedy(command: &Command, prefixes: bool) -> String {
    let mut text = String::new();
    for token in command.tokens(Style::Double, prefixes) {
        match token {
            Token::Char('*') => return "; no rule can spell it, as it holds a '*'".into(),
            Token::Char(c) => text.push(c),
            _ => return "; a rule would have to spell it, and bash computes a part of it".into(),
        }
    }
    format!(
        "; a rule that spells it would allow it: \"{}\": allow",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    )
}

#[cfg(test)]
mod tests;
