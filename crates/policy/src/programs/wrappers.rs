//! Programs that run the command after their own words (points 15 to 18).

use super::{Finding, Inner, Refusal, Syntax, clauses, refuse, refuse_always, refuse_computed, refuse_text};
use crate::script::{Assignment, Command, Frag, Word};

#[cfg(test)]
pub(super) const CLAUSES: &[&str] = &[
    "flags",
    "values",
    "optional",
    "script",
    "lookup",
    "positional",
    "assigns",
    "bare",
    "joined",
    "fills",
    "numeric",
    "default",
    "user",
];

/// What stands between a wrapper's name and the command it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wrapper {
    flags: Vec<&'static str>,
    values: Vec<&'static str>,
    optional: Vec<&'static str>,
    script: Vec<&'static str>,
    lookup: Vec<&'static str>,
    positional: usize,
    assigns: bool,
    bare: bool,
    joined: bool,
    fills: bool,
    numeric: bool,
    /// `su [OPTION…] [USER] [OPTION…]`: only script text can follow.
    user: bool,
    default: Option<&'static str>,
}

pub(super) fn parse(entry: &'static str) -> (&'static str, Wrapper) {
    let mut wrapper = Wrapper::default();
    let (name, clauses) = clauses(entry);
    for (key, values) in clauses {
        match key {
            "flags" => wrapper.flags = values,
            "values" => wrapper.values = values,
            "optional" => wrapper.optional = values,
            "script" => wrapper.script = values,
            "lookup" => wrapper.lookup = values,
            "positional" => wrapper.positional = values.first().and_then(|v| v.parse().ok()).unwrap_or(0),
            "assigns" => wrapper.assigns = true,
            "bare" => wrapper.bare = true,
            "joined" => wrapper.joined = true,
            "fills" => wrapper.fills = true,
            "user" => wrapper.user = true,
            "numeric" => wrapper.numeric = true,
            "default" => wrapper.default = values.first().copied(),
            _ => {}
        }
    }
    (name, wrapper)
}

/// What an option of the wrapper is.
enum Option_ {
    Flag,
    /// Its value is the next word.
    Value(&'static str),
    /// Its value is attached.
    Attached(&'static str, String),
    Lookup,
}

/// What was read of a wrapper's own words.
#[derive(Default)]
struct Read {
    /// Index of the first word that is not the wrapper's own.
    at: usize,
    lookup: bool,
    script: Option<String>,
    /// `xargs -I`: what is replaced in the command's words.
    replaced: Option<String>,
    /// `xargs -n`, `-L`: words are added after all, as the last of the two wins.
    counted: bool,
}

impl Wrapper {
    /// The command or script that the wrapper runs.
    pub(super) fn open(&self, name: &str, outer: &Command) -> Finding {
        let args = &outer.words[1..];
        let mut read = self.read_options(name, args, 0)?;
        if self.user {
            return self.open_user(name, args, read);
        }
        if read.lookup {
            return Ok(Vec::new());
        }
        let mut prefixes = Vec::new();
        while self.assigns
            && let Some(word) = args.get(read.at)
            && let Some(assignment) = as_assignment(word, outer)
        {
            // Unlike before a command, bash splits what it computes here into words.
            if word.could_be_many() {
                return refuse_computed(computed(name), false);
            }
            prefixes.push(assignment);
            read.at += 1;
        }
        for _ in 0..self.positional {
            match args.get(read.at) {
                Some(word) if word.literal().is_some() => read.at += 1,
                Some(_) => return refuse_computed(computed(name), false),
                None => break,
            }
        }
        if let Some(text) = read.script {
            return Ok(vec![Inner::Script { text, syntax: Syntax::Posix }]);
        }
        // Some take their options also after the positional words: `flock FILE -c TEXT`.
        if self.positional > 0
            && let Some(text) = args.get(read.at).and_then(Word::literal)
            && self.script.contains(&text.as_str())
        {
            return match args.get(read.at + 1).and_then(Word::literal) {
                Some(text) => Ok(vec![Inner::Script { text, syntax: Syntax::Posix }]),
                None => refuse_text(format!("'{name}' runs script text that bash computes")),
            };
        }
        let mut words: Vec<Word> = args.get(read.at..).unwrap_or_default().to_vec();
        if words.is_empty() {
            match self.default {
                Some(default) => words.push(Word::of(default)),
                None if self.bare && prefixes.is_empty() => return Ok(Vec::new()),
                None if self.bare => {}
                None => {
                    return refuse_always(format!(
                        "'{name}' without a command starts a shell that reads its input"
                    ));
                }
            }
        }
        if self.joined {
            if words.is_empty() {
                return Ok(Vec::new());
            }
            let texts: Option<Vec<String>> = words.iter().map(Word::literal).collect();
            let Some(texts) = texts else {
                return refuse_text(format!("'{name}' runs script text that bash computes"));
            };
            let syntax = if name == "eval" { Syntax::Bash } else { Syntax::Posix };
            return Ok(vec![Inner::Script { text: texts.join(" "), syntax }]);
        }
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let inner = |words| Command { words, prefixes, span: outer.span };
        if !self.fills {
            return Ok(vec![Inner::Command(inner(words))]);
        }
        let example =
            read.replaced.as_deref().filter(|_| !read.counted).and_then(|mark| example(&words, mark));
        fill(name, &mut words, read.replaced.as_deref())?;
        if read.counted && read.replaced.is_some() {
            fill(name, &mut words, None)?;
        }
        let command = inner(words);
        let Some(words) = example else { return Ok(vec![Inner::Command(command)]) };
        let example = Command { words, ..command.clone() };
        Ok(vec![Inner::Filled { command, example }])
    }

    /// `su` takes options wherever they stand, and gives further words to the shell.
    fn open_user(&self, name: &str, args: &[Word], first: Read) -> Finding {
        let (mut script, mut at) = (first.script, first.at);
        if args.get(at).is_some_and(|w| w.literal().is_some()) {
            let rest = self.read_options(name, args, at + 1)?;
            script = script.or(rest.script);
            at = rest.at;
        }
        match script {
            _ if at < args.len() => refuse(format!("'{name}' with words after the user")),
            Some(text) => Ok(vec![Inner::Script { text, syntax: Syntax::Posix }]),
            None => refuse_always(format!("'{name}' without a command starts a shell that reads its input")),
        }
    }

    fn read_options(&self, name: &str, args: &[Word], at: usize) -> Result<Read, Refusal> {
        let mut read = Read { at, ..Read::default() };
        while let Some(word) = args.get(read.at) {
            let Some(text) = word.literal() else {
                if word.could_start_with_dash() || word.could_be_many() {
                    return refuse_computed(computed(name), false);
                }
                break;
            };
            if text == "--" {
                read.at += 1;
                break;
            }
            if !text.starts_with('-') || text == "-" && !self.flags.contains(&"-") {
                break;
            }
            read.at += 1;
            if self.numeric && text[1..].bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            for option in self.options_of(name, &text)? {
                match option {
                    Option_::Flag => {}
                    Option_::Lookup => read.lookup = true,
                    Option_::Attached(option, value) => self.take(&mut read, name, option, Some(value))?,
                    Option_::Value(option) => {
                        let value = args.get(read.at);
                        read.at += 1;
                        if value.is_some_and(Word::could_be_many) {
                            return refuse_computed(computed(name), false);
                        }
                        self.take(&mut read, name, option, value.and_then(Word::literal))?;
                    }
                }
            }
        }
        Ok(read)
    }

    /// Takes note of an option's value, if it matters.
    fn take(&self, read: &mut Read, name: &str, option: &str, value: Option<String>) -> Result<(), Refusal> {
        if self.script.contains(&option) {
            match value {
                Some(text) => read.script = Some(text),
                None => return refuse_text(format!("'{name}' runs script text that bash computes")),
            }
        } else if self.fills && matches!(option, "-I" | "-i" | "--replace") {
            match value {
                Some(text) if !text.is_empty() => read.replaced = Some(text),
                Some(_) => read.replaced = Some("{}".into()),
                None => return refuse_computed(computed(name), false),
            }
        } else if self.fills && matches!(option, "-n" | "-L" | "-l" | "--max-args" | "--max-lines") {
            read.counted = true;
        }
        Ok(())
    }

    /// The options of one word: a long one, or a cluster.
    fn options_of(&self, name: &str, text: &str) -> Result<Vec<Option_>, Refusal> {
        let unknown = || {
            refuse(format!(
                "the option {text} of '{name}' is not among those known to be harmless (`legwork policy tables`)"
            ))
        };
        if text.starts_with("--") {
            let (long, value) = match text.split_once('=') {
                Some((long, value)) => (long, Some(value.to_owned())),
                None => (text, None),
            };
            let all = || {
                [&self.flags, &self.values, &self.optional, &self.script, &self.lookup]
                    .into_iter()
                    .flatten()
                    .copied()
            };
            let exact = all().find(|o| *o == long);
            // An abbreviation must fit one option only, as far as we know them.
            let mut fitting = all().filter(|o| o.starts_with(long));
            let Some(option) = exact.or_else(|| fitting.next().filter(|_| fitting.next().is_none())) else {
                return unknown();
            };
            let takes = self.values.contains(&option) || self.script.contains(&option);
            return Ok(vec![match value {
                _ if self.lookup.contains(&option) => Option_::Lookup,
                Some(value) if takes || self.optional.contains(&option) => Option_::Attached(option, value),
                Some(_) => return unknown(),
                None if takes => Option_::Value(option),
                None if self.optional.contains(&option) => Option_::Attached(option, String::new()),
                None => Option_::Flag,
            }]);
        }
        // Options that are spelt with one dash and several letters, such as -ff.
        if let Some(option) = self.flags.iter().find(|o| **o == text) {
            let _ = option;
            return Ok(vec![Option_::Flag]);
        }
        let mut found = Vec::new();
        for (i, c) in text.char_indices().skip(1) {
            let of = |list: &[&'static str]| {
                list.iter().copied().find(|o| o.len() == 2 && o.ends_with(c) && !o.starts_with("--"))
            };
            let rest = &text[i + c.len_utf8()..];
            if of(&self.flags).is_some() {
                found.push(Option_::Flag);
            } else if of(&self.lookup).is_some() {
                found.push(Option_::Lookup);
            } else if let Some(option) = of(&self.values).or_else(|| of(&self.script)) {
                found.push(if rest.is_empty() {
                    Option_::Value(option)
                } else {
                    Option_::Attached(option, rest.to_owned())
                });
                return Ok(found);
            } else if let Some(option) = of(&self.optional) {
                found.push(Option_::Attached(option, rest.to_owned()));
                return Ok(found);
            } else {
                return unknown();
            }
        }
        Ok(found)
    }
}

fn computed(name: &str) -> String {
    format!("a word that bash computes stands where '{name}' takes an option or a command")
}

/// `NAME=VALUE` as `env` and `sudo` read it.
fn as_assignment(word: &Word, outer: &Command) -> Option<Assignment> {
    let Some(Frag::Lit(head)) = word.frags.first() else { return None };
    let (name, value) = head.split_once('=')?;
    if name.is_empty() || name.starts_with('-') {
        return None;
    }
    let mut frags: Vec<Frag> = Vec::new();
    if !value.is_empty() {
        frags.push(Frag::Lit(value.to_owned()));
    }
    frags.extend(word.frags[1..].iter().cloned());
    let raw = word.raw.split_once('=').map_or(word.raw.as_str(), |(_, raw)| raw).to_owned();
    Some(Assignment {
        name: name.to_owned(),
        value: Some(Word { frags, raw }),
        append: false,
        numeric: false,
        span: outer.span,
    })
}

/// The words of `sh -c TEXT` with a plain letter wherever `mark` stands in the text: what the
/// shell would be given at best.
fn example(words: &[Word], mark: &str) -> Option<Vec<Word>> {
    let [shell, option, text, ..] = words else { return None };
    let holds = |word: &Word| word.literal().is_some_and(|text| text.contains(mark));
    let takes_text = option.literal().is_some_and(|option| matches!(option.as_str(), "-c" | "-ec"));
    let is_shell = shell.literal().is_some_and(|name| super::is_posix_shell(&name));
    if !is_shell || !takes_text || holds(shell) || holds(option) || !holds(text) {
        return None;
    }
    let filled = |word: &Word| match word.literal() {
        Some(text) if text.contains(mark) => {
            Word { raw: word.raw.clone(), ..Word::of(&text.replace(mark, "x")) }
        }
        _ => word.clone(),
    };
    Some(words.iter().map(filled).collect())
}

/// Puts what `xargs` adds into the command's words (17).
fn fill(name: &str, words: &mut Vec<Word>, replaced: Option<&str>) -> Result<(), Refusal> {
    let Some(replaced) = replaced else {
        words.push(Word { frags: vec![Frag::Unknown { quoted: false }], raw: "…".into() });
        return Ok(());
    };
    for (index, word) in words.iter_mut().enumerate() {
        if !replace(word, replaced, &Frag::Unknown { quoted: true }) && word.literal().is_none() {
            // What bash computes may hold the mark as well; unknown it is already.
            continue;
        }
        if index == 0 && word.literal().is_none() {
            return refuse_always(format!("'{name}' fills in the program's name"));
        }
    }
    Ok(())
}

/// Replaces each occurrence of `mark` in a word's literal text; says whether there
/// was one.
pub(super) fn replace(word: &mut Word, mark: &str, by: &Frag) -> bool {
    let mut found = false;
    let mut frags = Vec::new();
    for frag in &word.frags {
        let (Frag::Lit(text) | Frag::Glob(text)) = frag else {
            frags.push(frag.clone());
            continue;
        };
        if !text.contains(mark) {
            frags.push(frag.clone());
            continue;
        }
        found = true;
        for (index, piece) in text.split(mark).enumerate() {
            if index > 0 {
                frags.push(by.clone());
            }
            if !piece.is_empty() {
                frags.push(Frag::Lit(piece.to_owned()));
            }
        }
    }
    word.frags = frags;
    found
}
