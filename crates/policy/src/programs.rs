//! What is known about programs that can run, load or write something else
//! (points 15 to 22). The knowledge is data: `tables/programs.txt`.

mod awk;
mod builtins;
mod find;
pub(crate) mod globals;
mod known;
mod options;
pub(crate) mod own;
mod secrets;
mod sed;
mod special;
mod sql;
mod wrappers;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

pub(crate) use builtins::is_builtin;

use crate::pattern::Pattern;
use crate::rules::Children;
use crate::script::{Command, Word};

/// The tables as they are shown to people.
pub(crate) static TABLES_TEXT: LazyLock<String> = LazyLock::new(|| [TABLE_TEXT, "\n", known::TEXT].concat());

const TABLE_TEXT: &str = include_str!("../tables/programs.txt");

/// How a program can do more than its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Wrapper(wrappers::Wrapper),
    Shell(Syntax),
    Opaque,
    Never,
    Interpreter,
    Options(options::Options),
    Special,
    /// Starts no other program, whatever it is given.
    Plain,
}

/// Programs that others start as part of their own work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Helpers {
    /// Those who start them: names, or patterns of resolved paths.
    pub(crate) of: Vec<&'static str>,
    /// What they may start without a rule: the same.
    pub(crate) run: Vec<&'static str>,
}

static HELPERS: LazyLock<Vec<Helpers>> = LazyLock::new(|| {
    lists("helpers ", "run").map(|(of, run)| Helpers { of: of.split_whitespace().collect(), run }).collect()
});

/// What programs sign in with, by name: paths that begin with `~/`.
static CREDENTIALS: LazyLock<HashMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    let entries = lists("credentials ", "read");
    entries.flat_map(|(of, read)| of.split_whitespace().map(move |name| (name, read.clone()))).collect()
});

/// The entries of a kind whose one clause is a list.
fn lists(
    kind: &'static str,
    clause: &'static str,
) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    entries().iter().filter_map(move |entry| {
        let (of, clauses) = clauses(entry.strip_prefix(kind)?);
        let values = clauses.into_iter().filter(|(key, _)| *key == clause).flat_map(|(_, values)| values);
        Some((of, values.collect()))
    })
}

/// What a program signs in with.
pub(crate) fn credentials(name: &str) -> &'static [&'static str] {
    CREDENTIALS.get(base_name(name)).map(Vec::as_slice).unwrap_or_default()
}

/// The table's helpers.
pub(crate) fn helpers() -> &'static [Helpers] {
    &HELPERS
}

/// What the table lets programs of these names execute as part of their own work, and those
/// in turn: names, and paths that may end with `/*`.
pub fn helpers_of(names: &[String]) -> BTreeSet<&'static str> {
    let first = |pattern: &'static str| pattern.split('+').next().unwrap_or(pattern);
    let mut found: BTreeSet<&'static str> = BTreeSet::new();
    loop {
        let known = |of: &&'static str| {
            let of = first(of);
            found.contains(of) || names.iter().any(|name| base_name(name) == of || name == of)
        };
        let entries = HELPERS.iter().filter(|entry| entry.of.iter().any(known));
        let more: Vec<&'static str> =
            entries.flat_map(|entry| entry.run.iter().map(|run| first(run))).collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            return found;
        }
    }
}

/// Reads the tables.
pub(crate) fn prepare() {
    LazyLock::force(&TABLE);
    LazyLock::force(&HELPERS);
    globals::prepare();
    known::prepare();
}

/// Whether the table names a program as one that runs anything by design.
pub(crate) fn is_builder(name: &str) -> bool {
    matches!(TABLE.get(base_name(name)), Some(Kind::Interpreter))
}

/// Whether a rule has to free what its program starts, for it to do its work.
pub(crate) fn starts_others(pattern: &str) -> bool {
    let name = crate::exec::program_of(pattern);
    is_builder(name) || !name.is_empty() && is_unknown(name) && !Pattern::spells(pattern)
}

/// Whether a program runs anything by design, or is not known not to.
pub(crate) fn runs_anything(name: &str) -> bool {
    let name = base_name(name);
    match TABLE.get(name) {
        Some(kind) => matches!(kind, Kind::Interpreter | Kind::Opaque | Kind::Shell(_)),
        None => !known::knows(name) && !is_builtin(name),
    }
}

/// What a shell takes text to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Bash, by the very parsers that read the line.
    Bash,
    /// `sh` or `dash`: known to mean the same only for literal simple commands.
    Posix,
    /// Any other: nothing is known.
    Other,
}

/// Something that a command runs in turn, to be judged like the line itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inner {
    /// A program with its arguments.
    Command(Command),
    /// A line of shell.
    Script { text: String, syntax: Syntax },
    /// A shell whose words the program fills in, and what they would be with a letter.
    Filled { command: Command, example: Command },
}

/// Why a command may not run even though a rule allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// A rule that spells the whole command lifts the refusal.
    pub(crate) lifted_by_exact_rule: bool,
    /// A rule lifts the refusal in which this variable is named.
    pub(crate) variable: Option<String>,
    /// A word that bash computes is at fault: where each program that starts is judged,
    /// its own words will decide.
    pub(crate) computed: bool,
    /// Only what the program starts is to be feared: where that is judged, it passes.
    pub(crate) seen: bool,
    /// It runs script text that bash computes.
    pub(crate) runs_text: bool,
}

impl Refusal {
    /// Whether the rule that allowed the command speaks for it despite the refusal.
    pub(crate) fn is_lifted_by(&self, rule: &str, exact: bool) -> bool {
        let names = |name: &String| {
            rule.split(' ').any(|word| {
                word.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        };
        self.lifted_by_exact_rule && exact || self.variable.as_ref().is_some_and(names)
    }
}

/// What the table says about a command.
pub(crate) type Finding = Result<Vec<Inner>, Refusal>;

impl Refusal {
    fn new(reason: impl Into<String>, lifted_by_exact_rule: bool) -> Self {
        let reason = reason.into();
        Self { reason, lifted_by_exact_rule, variable: None, computed: false, seen: false, runs_text: false }
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(reason, true))
}

/// Only what the program starts is to be feared.
fn refuse_unseen<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { seen: true, ..Refusal::new(reason, true) })
}

/// Script text is at fault that bash computes.
fn refuse_text<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { runs_text: true, ..Refusal::new(reason, false) })
}

/// A word that bash computes is at fault.
fn refuse_computed<T>(reason: impl Into<String>, lifted_by_exact_rule: bool) -> Result<T, Refusal> {
    Err(Refusal { computed: true, ..Refusal::new(reason, lifted_by_exact_rule) })
}

/// A variable is at fault that no rule names.
fn refuse_variable<T>(name: &str) -> Result<T, Refusal> {
    let reason = format!(
        "{name} is not among the variables known to change nothing in what other programs do; a rule must name it \
         (\"export {name}=*\")"
    );
    Err(Refusal { variable: Some(name.to_owned()), ..Refusal::new(reason, true) })
}

fn refuse_always<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(reason, false))
}

static TABLE: LazyLock<HashMap<&'static str, Kind>> = LazyLock::new(|| {
    let mut table = HashMap::new();
    for entry in entries() {
        let (kind, rest) = entry.split_once(' ').unwrap_or((entry.as_str(), ""));
        let mut words = rest.split_whitespace();
        match kind {
            "wrapper" => {
                let (name, wrapper) = wrappers::parse(rest);
                table.insert(name, Kind::Wrapper(wrapper));
            }
            "options" => {
                let (name, options) = options::parse(rest);
                table.insert(name, Kind::Options(options));
            }
            "shell" => {
                let syntax = match words.next() {
                    Some("bash") => Syntax::Bash,
                    Some("posix") => Syntax::Posix,
                    _ => Syntax::Other,
                };
                table.extend(words.map(|name| (name, Kind::Shell(syntax))));
            }
            "opaque" => table.extend(words.map(|name| (name, Kind::Opaque))),
            "never" => table.extend(words.map(|name| (name, Kind::Never))),
            "interpreter" => table.extend(words.map(|name| (name, Kind::Interpreter))),
            "special" => table.extend(words.map(|name| (name, Kind::Special))),
            "plain" => table.extend(words.map(|name| (name, Kind::Plain))),
            _ => {}
        }
    }
    table
});

/// The table's entries, each on one line.
fn entries() -> &'static [String] {
    &ENTRIES
}

static ENTRIES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut entries: Vec<String> = Vec::new();
    for line in TABLE_TEXT.lines() {
        if line.starts_with(' ')
            && let Some(last) = entries.last_mut()
        {
            last.push(' ');
            last.push_str(line.trim());
        } else if !line.starts_with('#') && !line.trim().is_empty() {
            entries.push(line.trim().to_owned());
        }
    }
    entries
});

/// The clauses of an entry: its name, then `key: values` or `key`.
fn clauses(entry: &'static str) -> (&'static str, Vec<(&'static str, Vec<&'static str>)>) {
    let mut parts = entry.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let clauses = parts.filter(|p| !p.is_empty()).map(|part| match part.split_once(": ") {
        Some((key, values)) => (key, values.split_whitespace().collect()),
        None => (part, Vec::new()),
    });
    (name, clauses.collect())
}

/// The name a program goes by in the table: without directory, and without the
/// version some carry (`python3.11`).
fn base_name(command: &str) -> &str {
    let name = command.rsplit('/').next().unwrap_or(command);
    let trimmed = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    if TABLE.contains_key(name) || known::knows(name) || trimmed.is_empty() { name } else { trimmed }
}

/// What a rule with an open end for a program lets through, by name.
static DANGERS: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
    let entries = lists("danger ", "says");
    entries
        .flat_map(|(of, says)| {
            let text = says.join(" ");
            of.split_whitespace().map(move |name| (name, text.clone()))
        })
        .collect()
});

/// What to tell an operator who wrote a rule for `pattern` that allows or asks.
pub(crate) fn load_note(pattern: &str, children: Children) -> Option<Cow<'static, str>> {
    let exact = Pattern::spells(pattern);
    let program = crate::exec::program_of(pattern);
    if !Pattern::spells(program) {
        return Some(
            "has a wildcard in the program's name: it allows programs you did not name, and the sandbox \
             can't hold the list of programs in the kernel"
                .into(),
        );
    }
    let mut parts =
        program.strip_prefix("./").unwrap_or(program).split('/').skip(usize::from(program.starts_with('/')));
    if program.contains('/') && parts.any(|part| matches!(part, "" | "." | "..")) {
        return Some(
            "has no effect where each start is judged: there a program counts by the path that it leads to, without \
             '.', '..' or '//'"
                .into(),
        );
    }
    let rest = pattern.split_once(program).map_or("", |(_, rest)| rest);
    let any_argument = rest.starts_with(" *");
    let base = base_name(program);
    let dangerous_subcommand = match base {
        "git" => any_argument.then_some(
            "is nearly a rule for everything: git runs hooks, filters and what a repository's config names; \
             name the subcommands",
        ),
        "kubectl" | "oc" if any_argument => {
            Some("allows every subcommand, exec, delete and edit included; name the subcommands")
        }
        "kubectl" | "oc" if rest.starts_with(" exec") && !exact => Some("runs any command in any pod"),
        "ssh" if !exact => Some("runs any command on the other machine, where this policy does not hold"),
        _ => None,
    };
    if let Some(text) = dangerous_subcommand {
        return Some(text.into());
    }
    if MULTI_CALL.contains(&base) {
        return Some(
            "names a program that is many in one: the sandbox can't tell its commands apart, only the exec gate can"
                .into(),
        );
    }
    let free = children == Children::Any;
    match TABLE.get(base) {
        Some(Kind::Interpreter) if !exact && free => {
            Some("is a rule for everything: this program runs any code it is given, and may start anything".into())
        }
        Some(Kind::Interpreter) if !exact => Some(
            "is a rule for everything this program does itself, as it runs any code it is given; what it starts needs \
             rules of its own, or children: any"
                .into(),
        ),
        Some(Kind::Shell(_)) if !exact => {
            Some("is a rule for everything: a script file it is given is not judged".into())
        }
        Some(Kind::Opaque) if !exact => Some(
            "has no effect: this program runs others in ways that can't be judged, so only a rule that spells \
             the whole command, without '*', allows it"
                .into(),
        ),
        Some(Kind::Never) => Some("has no effect: this builtin changes how later text is read".into()),
        _ if free && !exact => Some("lets this program start anything".into()),
        None if !exact && is_unknown(base) => Some(
            "is about a program that the table does not know: it may write and send what it likes; what it starts \
             needs rules of its own, or children: any, and where starts can't be judged it runs only with that"
                .into(),
        ),
        _ => spans_words(pattern, rest)
            .or_else(|| {
                let text = DANGERS.get(base).filter(|_| any_argument)?;
                Some(text.as_str().into())
            })
            .or_else(|| known::note(base, &globals::pattern_behind(pattern)).map(Cow::Owned)),
    }
}

/// What a `*` that is not a whole last word lets through.
fn spans_words(pattern: &str, rest: &str) -> Option<Cow<'static, str>> {
    let words: Vec<&str> = rest.split(' ').collect();
    let (last, middle) = words.split_last()?;
    if middle.iter().any(|word| word.contains('*')) {
        let typed = pattern.replacen(" * ", " {word} ", 1);
        let instead =
            if typed == pattern { "{word} stands for one".into() } else { format!("write '{typed}'") };
        return Some(
            format!(
                "has a '*' before its end, which stands for any number of words, options included: {instead}"
            )
            .into(),
        );
    }
    let folder = last.strip_suffix('*').filter(|folder| folder.contains('/'))?;
    let typed = if folder.starts_with('/') {
        format!("{{path:{}}} is one path beneath that folder", folder.trim_end_matches('/'))
    } else {
        "{path:/folder} is one path beneath a folder".to_owned()
    };
    Some(
        format!(
            "has a '*' after a path, which stands for further words as well, wherever they lead: {typed}"
        )
        .into(),
    )
}

/// Pagers: what they show is written nowhere, and what they start is seen where it starts.
const SHOWN: &[&str] = &["less", "more", "most", "pg"];

/// Programs that are many in one.
pub(crate) const MULTI_CALL: &[&str] = &["busybox", "toybox", "coreutils", "uutils"];

/// Checks a command against the table, whatever the rules say, and lists what it
/// runs in turn. `env_names` are the variables that commands inherit: to set one is
/// to change it for them.
pub(crate) fn examine(command: &Command, env_names: &BTreeSet<String>) -> Finding {
    let Some(name) = command.words.first().and_then(Word::literal) else { return Ok(Vec::new()) };
    let args = &command.words[1..];
    builtins::check(&name, args, env_names)?;
    let base = base_name(&name);
    match TABLE.get(base) {
        None | Some(Kind::Plain) => Ok(Vec::new()),
        Some(Kind::Interpreter) => special::interpreter(base, args),
        Some(Kind::Wrapper(wrapper)) => wrapper.open(&name, command),
        Some(Kind::Shell(syntax)) => special::shell(&name, args, *syntax),
        Some(Kind::Opaque) if SHOWN.contains(&base) => refuse_unseen(format!(
            "'{name}' can run other commands in ways that can't be judged; only a rule that spells the whole \
             command allows it"
        )),
        Some(Kind::Opaque) => refuse(format!(
            "'{name}' can run other commands in ways that can't be judged; only a rule that spells the whole \
             command allows it"
        )),
        Some(Kind::Never) => refuse_always(format!("'{name}' changes how later text is read")),
        Some(Kind::Options(options)) => options.check(&name, args).map(|()| Vec::new()),
        Some(Kind::Special) => match base {
            "find" => find::open(command),
            "fd" | "fdfind" => find::check_fd(&name, args),
            "awk" | "gawk" | "mawk" | "nawk" | "original-awk" => awk::check(&name, args),
            "sed" => sed::check(args),
            "trap" => special::trap(args),
            "hash" => special::hash(args),
            _ => Ok(Vec::new()),
        },
    }
}

/// A long option that is not written in full: the word, the end of its name, and what it is in full.
pub(crate) fn shortened(command: &Command) -> Option<(usize, usize, &'static str)> {
    let name = command.words.first().and_then(Word::literal)?;
    known::shortened(base_name(&name), command)
}

/// Whether no table knows a program, so that it may run anything.
pub(crate) fn is_unknown(name: &str) -> bool {
    let name = base_name(name);
    !(TABLE.contains_key(name) || known::knows(name) || is_builtin(name) || DANGERS.contains_key(name))
}

/// Whether a program is a shell whose text is read by what all shells agree on.
fn is_posix_shell(name: &str) -> bool {
    matches!(TABLE.get(base_name(name)), Some(Kind::Shell(Syntax::Posix)))
}

/// Whether one of the words is the name of a program that runs script text.
pub(crate) fn names_a_shell(command: &Command) -> bool {
    command.words.iter().filter_map(Word::literal).any(|text| {
        matches!(TABLE.get(base_name(&text)), Some(Kind::Shell(_)))
            || matches!(
                base_name(&text),
                "eval" | "watch" | "su" | "flock" | "runuser" | "script" | "parallel"
            )
    })
}

/// Whether a text passes as SQL that only looks, for each dialect that is read.
pub(crate) fn sql_passes(text: &str) -> [(&'static str, bool); 3] {
    use sql::Dialect::{Mysql, Postgres, Sqlite};
    [("postgres", Postgres), ("mysql", Mysql), ("sqlite", Sqlite)]
        .map(|(name, dialect)| (name, sql::check(dialect, text).is_ok()))
}

/// Checks a command's options against the table of those that are known to be harmless.
/// `rule` is the pattern that allowed the command; with an exec gate, what bash computes is
/// left to the judgement of the real arguments.
pub(crate) fn check_options(command: &Command, rule: Option<&str>, gate: bool) -> Result<(), Refusal> {
    let Some(name) = command.words.first().and_then(Word::literal) else { return Ok(()) };
    let base = base_name(&name);
    // Prefixes were held against the words of the rule that stand for them.
    let mut rule = rule.unwrap_or_default();
    let mut prefixes = false;
    while !command.prefixes.is_empty()
        && let Some((word, rest)) = rule.split_once(' ')
        && crate::judge::assigns(word)
    {
        (rule, prefixes) = (rest, true);
    }
    // A rule for such a program, without a word more, is a rule for everything; so is one for
    // a script.
    let rest = rule.strip_prefix(name.as_str()).unwrap_or_default();
    if matches!(TABLE.get(base), Some(Kind::Interpreter)) && rest.trim_start().starts_with(['*', '{']) {
        return Ok(());
    }
    secrets::check(base, command, rule)?;
    known::check(base, command, rule, gate).map_err(|found| found.refusal(base, command, prefixes))
}

impl Word {
    /// Whether the word could begin with a dash once bash has filled it in.
    fn could_start_with_dash(&self) -> bool {
        use crate::script::Frag;
        match self.frags.first() {
            None => false,
            Some(Frag::Lit(text)) => text.starts_with('-') || text.is_empty() && self.frags.len() > 1,
            Some(Frag::Glob(text)) => !text.starts_with('~'),
            Some(Frag::Unknown { .. } | Frag::Variable { .. }) => true,
            Some(Frag::Path | Frag::Number) => false,
        }
    }

    /// Whether bash fills the word in, and by more or fewer words than one.
    fn could_be_many(&self) -> bool {
        use crate::script::Frag;
        self.frags.iter().any(|f| matches!(f, Frag::Glob(_)) || f.is_split())
    }

    /// Whether the word could come out as `text`.
    fn could_be(&self, text: &str) -> bool {
        use crate::script::Frag;
        match self.literal() {
            Some(literal) => literal == text,
            None if self.frags.iter().any(|f| matches!(f, Frag::Number)) => {
                text.contains(|c: char| c.is_ascii_digit())
            }
            None if matches!(self.frags.first(), Some(Frag::Path)) => text.starts_with('/'),
            None => text.starts_with(&self.literal_head()),
        }
    }

    /// Whether nothing but digits, or nothing at all, can come out.
    fn could_be_only_digits(&self) -> bool {
        use crate::script::Frag;
        self.frags.iter().all(|f| match f {
            Frag::Number => true,
            Frag::Variable { name, .. } => name == "!",
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_directories_do_not_hide_a_program() {
        assert_eq!(base_name("/usr/bin/env"), "env");
        assert_eq!(base_name("python3.11"), "python");
        assert_eq!(base_name("../bin/bash"), "bash");
        assert_eq!(base_name("ls"), "ls");
    }

    #[test]
    fn every_entry_of_the_table_is_understood_and_stands_once() {
        let mut seen = BTreeSet::new();
        for entry in entries() {
            let mut words = entry.split_whitespace();
            let kind = words.next().unwrap_or_default();
            let names: Vec<String> = match kind {
                "version" => continue,
                "globals" => {
                    assert!(entry.contains("; flags: ") && entry.contains("; values: "), "{entry}");
                    continue;
                }
                "helpers" | "credentials" | "danger" => {
                    let clause = match kind {
                        "helpers" => "; run: ",
                        "credentials" => "; read: ~/",
                        _ => "; says: ",
                    };
                    assert!(entry.contains(clause), "{entry}");
                    continue;
                }
                "wrapper" | "options" => {
                    let entry: &'static str = entry;
                    let rest = &entry[kind.len() + 1..];
                    let (name, clauses) = clauses(rest);
                    for (key, values) in clauses {
                        let known: &[&str] = match kind {
                            "wrapper" => wrappers::CLAUSES,
                            _ => options::CLAUSES,
                        };
                        assert!(known.contains(&key), "{name}: {key}");
                        assert_eq!(values.is_empty(), !entry.contains(&format!("{key}: ")), "{name}: {key}");
                    }
                    vec![name.to_owned()]
                }
                "shell" => words.skip(1).map(String::from).collect(),
                "opaque" | "never" | "interpreter" | "special" | "plain" => words.map(String::from).collect(),
                other => panic!("unknown kind {other}"),
            };
            for name in names {
                assert!(seen.insert(name.clone()), "{name} stands twice");
            }
        }
        assert!(seen.len() > 250, "{}", seen.len());
    }
}
