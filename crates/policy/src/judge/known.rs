//! What variables surely hold: those that the line sets to literal text, and to nothing
//! else. (Before it is set, a variable holds nothing.)

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use crate::script::{Command, Frag, Script, Word};

/// Most commands that one command can stand for.
const MAX_VARIANTS: usize = 64;

/// Most commands that all of a line can stand for: a long line is judged in time.
const MAX_IN_ALL: usize = 1024;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    Number,
}

/// The variables of which all values are known.
#[derive(Debug, Default)]
pub(super) struct Known {
    values: BTreeMap<String, Vec<Value>>,
    /// How many variants were made.
    made: Cell<usize>,
}

impl Known {
    pub(super) fn of(script: &Script, env_names: &BTreeSet<String>) -> Self {
        let mut values: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        if script.sets_from_data || script.assignments.is_empty() {
            return Self { values, made: Cell::new(0) };
        }
        let mut unknown: BTreeSet<&str> = env_names.iter().map(String::as_str).collect();
        for assignment in &script.assignments {
            let name = assignment.name.as_str();
            let value = match assignment.value.as_ref().map(Word::literal) {
                _ if assignment.append || is_set_by_bash(name) => None,
                Some(Some(text)) => Some(Value::Text(text)),
                _ => assignment.numeric.then_some(Value::Number),
            };
            match value {
                Some(value) => {
                    let of =
                        values.entry(name.to_owned()).or_insert_with(|| vec![Value::Text(String::new())]);
                    if !of.contains(&value) {
                        of.push(value);
                    }
                }
                None => drop(unknown.insert(name)),
            }
        }
        unknown.extend(script.commands.iter().flat_map(|c| c.prefixes.iter().map(|p| p.name.as_str())));
        values.retain(|name, _| !unknown.contains(name.as_str()));
        Self { values, made: Cell::new(0) }
    }

    /// The commands that a command can come out as, if that is known of any of its words.
    pub(super) fn variants(&self, command: &Command) -> Option<Vec<Command>> {
        if self.values.is_empty() {
            return None;
        }
        let names = self.names(&command.words);
        let count: usize = names.iter().map(|name| self.values[*name].len()).product();
        let made = self.made.get() + count;
        if names.is_empty() || count > MAX_VARIANTS || made > MAX_IN_ALL {
            return None;
        }
        self.made.set(made);
        let variant = |index: usize| {
            let chosen = self.chosen(&names, index);
            let words = command.words.iter().flat_map(|word| filled(word, &chosen)).collect();
            Command { words, prefixes: command.prefixes.clone(), span: command.span }
        };
        Some((0..count).map(variant).collect())
    }

    /// The texts that a word can come out as, if they are known.
    pub(super) fn texts(&self, word: &Word) -> Option<Vec<String>> {
        let words = std::slice::from_ref(word);
        let command = Command {
            words: words.to_vec(),
            prefixes: Vec::new(),
            span: crate::verdict::Span { start: 0, end: 0 },
        };
        self.variants(&command)?
            .iter()
            .map(|command| command.words.first().map_or(Some(String::new()), Word::literal))
            .collect()
    }

    /// The known variables in some words.
    fn names(&self, words: &[Word]) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for frag in words.iter().flat_map(|word| &word.frags) {
            if let Frag::Variable { name, .. } = frag
                && let Some((name, _)) = self.values.get_key_value(name)
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        names
    }

    /// A value for each variable: the `index`th choice of all.
    fn chosen<'k>(&'k self, names: &[&'k str], mut index: usize) -> BTreeMap<&'k str, &'k Value> {
        let mut chosen = BTreeMap::new();
        for name in names {
            let values = &self.values[*name];
            chosen.insert(*name, &values[index % values.len()]);
            index /= values.len();
        }
        chosen
    }
}

/// Whether bash itself gives the variable other values than the line does.
fn is_set_by_bash(name: &str) -> bool {
    const SET: &[&str] = &[
        "_",
        "PWD",
        "OLDPWD",
        "REPLY",
        "OPTARG",
        "OPTERR",
        "MAPFILE",
        "COPROC",
        "PIPESTATUS",
        "FUNCNAME",
        "HOSTNAME",
        "HOSTTYPE",
        "MACHTYPE",
        "OSTYPE",
        "COLUMNS",
        "LINES",
        "BASH",
        "READLINE_LINE",
    ];
    crate::names::is_integer(name) || SET.contains(&name) || name.starts_with("BASH_")
}

/// The words that a word becomes with these values.
fn filled(word: &Word, chosen: &BTreeMap<&str, &Value>) -> Vec<Word> {
    if let [Frag::Variable { name, quoted: false }] = word.frags.as_slice()
        && let Some(Value::Text(text)) = chosen.get(name.as_str())
        && !text.contains(['*', '?', '[', '\\'])
    {
        return text.split_whitespace().map(Word::of).collect();
    }
    let mut frags: Vec<Frag> = Vec::with_capacity(word.frags.len());
    for frag in &word.frags {
        let known = match frag {
            Frag::Variable { name, quoted } => match chosen.get(name.as_str()) {
                Some(Value::Number) => Some(Frag::Number),
                Some(Value::Text(text)) => {
                    let splits = |c: char| c.is_whitespace() || matches!(c, '*' | '?' | '[' | '\\');
                    (*quoted || !text.contains(splits)).then(|| Frag::Lit(text.clone()))
                }
                None => None,
            },
            _ => None,
        };
        match (frags.last_mut(), known.unwrap_or_else(|| frag.clone())) {
            (_, Frag::Lit(text)) if text.is_empty() => {}
            (Some(Frag::Lit(head)), Frag::Lit(text)) => head.push_str(&text),
            (_, frag) => frags.push(frag),
        }
    }
    vec![Word { frags, raw: word.raw.clone() }]
}
