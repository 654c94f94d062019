//! The table of options, read from its text.

mod reading;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

pub(super) use reading::Problem;
use reading::read;

use crate::pattern::{Pattern, Token};
use crate::programs::sql::Dialect;

/// The table as it is shown to people.
pub(in crate::programs) const TEXT: &str = concat!(
    include_str!("../../../tables/options/README.txt"),
    include_str!("../../../tables/options/coreutils.txt"),
    include_str!("../../../tables/options/text.txt"),
    include_str!("../../../tables/options/system.txt"),
    include_str!("../../../tables/options/systemd.txt"),
    include_str!("../../../tables/options/net.txt"),
    include_str!("../../../tables/options/openssl.txt"),
    include_str!("../../../tables/options/git.txt"),
    include_str!("../../../tables/options/kube.txt"),
    include_str!("../../../tables/options/containers.txt"),
    include_str!("../../../tables/options/cloud.txt"),
    include_str!("../../../tables/options/packages.txt"),
    include_str!("../../../tables/options/data.txt"),
    include_str!("../../../tables/options/more.txt"),
    include_str!("../../../tables/options/tools.txt"),
);

/// What an option, an operand or a subcommand does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Free,
    Exec,
    Write,
    Read,
    Send,
    Change,
}

impl Effect {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "free" => Self::Free,
            "exec" => Self::Exec,
            "write" => Self::Write,
            "read" => Self::Read,
            "send" => Self::Send,
            "change" => Self::Change,
            _ => return None,
        })
    }

    /// The effect as the table writes it.
    fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Exec => "exec",
            Self::Write => "write",
            Self::Read => "read",
            Self::Send => "send",
            Self::Change => "change",
        }
    }

    /// The effect in words.
    pub(super) fn says(self) -> &'static str {
        match self {
            Self::Free => "is harmless",
            Self::Exec => "can run or load something else",
            Self::Write => "writes or deletes files",
            Self::Read => "reads a secret, or another file as data",
            Self::Send => "sends data, or talks to another server than the usual one",
            Self::Change => "changes something",
        }
    }

    /// Whether a computed word must not turn out to be it.
    fn is_dangerous(self) -> bool {
        !matches!(self, Self::Free | Self::Read)
    }
}

/// How an option takes its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    None,
    /// Attached, or the next word.
    Required,
    /// Attached or not at all.
    Optional,
    /// Two words.
    Two,
    /// The words of a command, up to `;` or `{} +`.
    Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opt {
    pub(super) effect: Effect,
    pub(super) value: Value,
    pub(super) sql: Option<Dialect>,
}

/// What the value of some options may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    options: Vec<&'static str>,
    /// The patterns are all that is harmless, or all that is not.
    only: bool,
    patterns: Vec<&'static str>,
}

/// What operands may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operands {
    pub(super) effect: Effect,
    pub(super) which: Which,
    patterns: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Each must be one of these.
    All,
    /// The first must be one of these.
    First,
    /// None may be one of these.
    Not,
    /// None may hold one of these as a word outside of strings.
    Words,
    /// Each must be an address by one of these schemes, or by none.
    Urls,
    /// There may be so many.
    Max(usize),
}

/// A program, or a subcommand.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Node {
    options: HashMap<&'static str, Opt>,
    groups: Vec<&'static str>,
    limits: Vec<Limit>,
    pub(super) operands: Vec<Operands>,
    /// Those of several names are the same.
    children: Vec<(&'static str, Arc<Node>)>,
    /// What the subcommand itself does, if that must be spelt.
    pub(super) acts: Option<Effect>,
    /// What a program is for, if that is more than looking: it passes, and is said at load.
    pub(super) purpose: Option<Effect>,
    /// Without one of these the program does what it is told by its input.
    pub(super) needs: Vec<&'static str>,
    pub(super) sql_operands: Option<(Dialect, usize)>,
    flags: Vec<&'static str>,
    dangerous: bool,
}

/// Clauses without values.
const FLAGS: &[&str] = &[
    "numeric",
    "dash",
    "go",
    "stop",
    "stop-late",
    "inherit",
    "anything",
    "bare",
    "no-end",
    "upper",
    "sure",
    "attached",
];

#[derive(Debug, Default)]
pub(in crate::programs) struct Table {
    programs: HashMap<&'static str, Node>,
    groups: HashMap<&'static str, Node>,
    aliases: HashMap<&'static str, &'static str>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| read(TEXT, None).0);

thread_local! {
    /// An operator's own table, while rules that have one are held against something.
    static OWN: Cell<Option<&'static Table>> = const { Cell::new(None) };
}

pub(super) fn prepare() {
    LazyLock::force(&TABLE);
}

/// Reads an operator's table, which counts beside the built-in one.
pub(super) fn read_own(text: &'static str) -> Result<Table, Problem> {
    let (table, problems) = read(text, Some(&TABLE));
    problems.into_iter().next().map_or(Ok(table), Err)
}

/// Has an operator's own table count beside the built-in one, until the guard is dropped.
pub(in crate::programs) fn with_own(own: Option<&'static Table>) -> Own {
    Own(OWN.replace(own))
}

/// Brings back what counted before.
pub(crate) struct Own(Option<&'static Table>);

impl Drop for Own {
    fn drop(&mut self) {
        OWN.set(self.0);
    }
}

pub(super) fn program(name: &str) -> Option<&'static Node> {
    OWN.get().and_then(|own| own.program(name)).or_else(|| TABLE.program(name))
}

fn group_of(name: &str) -> Option<&'static Node> {
    OWN.get().and_then(|own| own.groups.get(name)).or_else(|| TABLE.groups.get(name))
}

impl Table {
    fn program(&self, name: &str) -> Option<&Node> {
        let name = self.aliases.get(name).copied().unwrap_or(name);
        self.programs.get(name)
    }
}

impl Node {
    pub(super) fn is(&self, flag: &str) -> bool {
        let of_groups = || self.groups.iter().filter_map(|group| group_of(group)).any(|g| g.is(flag));
        self.flags.contains(&flag) || of_groups()
    }

    pub(super) fn option(&self, name: &str) -> Option<Opt> {
        let of_groups = || self.groups.iter().find_map(|g| group_of(g)?.option(name));
        self.options.get(name).copied().or_else(of_groups)
    }

    /// Whether the option may have this value; `None` stands for a value that is not known.
    pub(super) fn permits(&self, option: &str, value: Option<&str>) -> bool {
        let own = self.limits.iter().filter(|limit| limit.options.contains(&option));
        let mut limits = own.peekable();
        let fits = |limit: &Limit| match value {
            Some(value) => limit.patterns.iter().any(|p| fits(p, value)) == limit.only,
            None => false,
        };
        if limits.peek().is_some() {
            return limits.all(fits);
        }
        self.groups.iter().filter_map(|g| group_of(g)).all(|group| group.permits(option, value))
    }

    /// Whether the option may have a value that bash computes, whatever that comes out as.
    pub(super) fn permits_computed(&self, option: &str, value: &[Token], is_glob: bool) -> bool {
        let own = self.limits.iter().filter(|limit| limit.options.contains(&option));
        let mut limits = own.peekable();
        let fits = |limit: &Limit| match limit.only {
            true => limit.patterns.iter().any(|pattern| always_fits(pattern, value, is_glob)),
            false => limit.patterns.iter().all(|pattern| !could_fit(pattern, value)),
        };
        if limits.peek().is_some() {
            return limits.all(fits);
        }
        let mut groups = self.groups.iter().filter_map(|g| group_of(g));
        groups.all(|group| group.permits_computed(option, value, is_glob))
    }

    /// The one long option that a name could be short for.
    pub(super) fn written_out(&self, name: &str) -> Option<&'static str> {
        let groups = self.groups.iter().filter_map(|group| group_of(group));
        let all = groups.chain([self]).flat_map(|node| node.options.keys());
        let mut found = all.filter(|option| name.len() > 2 && option.starts_with(name));
        let first = found.next()?;
        found.next().is_none().then_some(*first)
    }

    pub(super) fn has_children(&self) -> bool {
        !self.children.is_empty()
    }

    pub(super) fn child(&self, word: &str) -> Option<&Node> {
        let exact = self.children.iter().find(|(pattern, _)| *pattern == word);
        let found = exact.or_else(|| self.children.iter().find(|(pattern, _)| fits(pattern, word)));
        found.map(|(_, node)| node.as_ref())
    }

    /// Whether some option or subcommand does more than look.
    pub(super) fn is_dangerous(&self) -> bool {
        self.dangerous || self.groups.iter().filter_map(|g| group_of(g)).any(Self::is_dangerous)
    }
}

impl Operands {
    /// Whether the operand that is the `count`th has the effect.
    pub(super) fn has_effect(&self, text: &str, count: usize) -> bool {
        match self.which {
            Which::All => !self.fit(text),
            Which::First => count == 1 && !self.fit(text),
            Which::Not => self.fit(text),
            Which::Words => self.patterns.iter().any(|word| holds_word(text, word)),
            Which::Urls => !is_address(text, &self.patterns),
            Which::Max(most) => count > most,
        }
    }

    /// Whether an operand is surely harmless that begins so, however it goes on.
    pub(super) fn permits_head(&self, head: &str) -> bool {
        self.which == Which::Urls && head.contains("://") && is_address(head, &self.patterns)
    }

    fn fit(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| fits(pattern, text))
    }
}

/// Whether a word stands in a text, and not as a part of another, a field's name (`.env`) or
/// a string (`"env"`).
fn holds_word(text: &str, word: &str) -> bool {
    // `eval(` is that word where it is called.
    let (word, is_call) = word.strip_suffix('(').map_or((word, false), |word| (word, true));
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let quoted = before == Some('"') && after == Some('"');
        let is_field = before.is_some_and(|c| c == '.' || is_part(c)) && !text[..at].ends_with("..");
        let called = !is_call || text[at + word.len()..].trim_start().starts_with('(');
        !quoted && !is_field && called && !after.is_some_and(is_part)
    })
}

/// Whether what a program would fetch is reached by one of the schemes, or names a host. A
/// glob could spell any scheme.
fn is_address(text: &str, schemes: &[&str]) -> bool {
    let lower = text.to_ascii_lowercase();
    let known = |scheme: &&str| lower.strip_prefix(*scheme).is_some_and(|rest| rest.starts_with("://"));
    if schemes.iter().any(known) {
        return true;
    }
    let is_v6 = lower.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let is_v6 =
        is_v6.is_some_and(|(host, _)| host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.'));
    let globs = lower.contains(['{', '[']) && !is_v6;
    !globs && !lower.contains("://") && !lower.starts_with("file:")
}

/// Whether a text is what a pattern of the table says. A path in it may not climb, nor hide
/// that it does.
fn fits(pattern: &str, text: &str) -> bool {
    if !pattern.contains('*') {
        return match pattern {
            "<blank>" => text.contains(char::is_whitespace),
            "<semicolon>" => text.contains(';'),
            "<glob>" => text.contains(['*', '?', '[']),
            _ => pattern == text,
        };
    }
    let climbs = || pattern.starts_with('/') && (text.contains("..") || text.contains('%'));
    Pattern::fits_text(pattern, text) && !climbs()
}

/// Whether a text fits however bash fills it in. A glob finds no path that climbs, unless a
/// dot of its own is for it.
fn always_fits(pattern: &str, text: &[Token], is_glob: bool) -> bool {
    let climbs = || {
        let hides = |token: &Token| matches!(token, Token::Char('.' | '%'));
        pattern.starts_with('/') && (!is_glob || text.iter().any(hides))
    };
    !pattern.starts_with('<') && Pattern::new(pattern).covers(text) && !climbs()
}

/// Whether a text could fit once bash has filled it in.
fn could_fit(pattern: &str, text: &[Token]) -> bool {
    pattern.starts_with('<') || Pattern::new(pattern).could_match(text)
}

/// An option with the words before it, and whether long options have one dash there.
#[cfg(test)]
pub(super) type Placed = (Vec<&'static str>, &'static str, Opt, bool);

/// Every option with the words before it; a subcommand's name of several is its first.
#[cfg(test)]
pub(super) fn every_option() -> Vec<Placed> {
    fn add(node: &'static Node, path: &[&'static str], out: &mut Vec<Placed>) {
        let groups = node.groups.iter().filter_map(|group| group_of(group));
        let own = |name: &&'static str| node.options.get(name).copied();
        for (name, opt) in groups.chain([node]).flat_map(|n| &n.options) {
            // What the (sub)command says itself holds over what a group says.
            out.push((path.to_vec(), name, own(name).unwrap_or(*opt), node.is("dash")));
        }
        for (name, child) in node.children.iter().filter(|(name, _)| !name.contains('*')) {
            add(child, &[path, &[*name]].concat(), out);
        }
    }
    let mut out = Vec::new();
    let mut programs: Vec<_> = TABLE.programs.iter().collect();
    programs.sort_unstable_by_key(|(name, _)| **name);
    for (name, node) in programs {
        add(node, &[*name], &mut out);
    }
    out.sort_unstable_by_key(|(path, name, ..)| (path.clone(), *name));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_table_is_said_with_its_line() {
        for (text, line, problem) in [
            ("program a; free: -x; write: -x", 1, "-x is free and write; keep one"),
            ("# a\n\nprogram a; free: -x\n  -x", 3, "-x stands twice"),
            ("program a; fre: -x", 1, "unknown clause fre"),
            ("program a; harmless", 1, "unknown clause harmless"),
            ("progam a; free: -x", 1, "unknown kind progam (there are program"),
            ("program a; free: x", 1, "x is no option"),
            ("program a\nprogram b a", 2, "a stands twice"),
            ("program a\nprogram a", 2, "a stands twice"),
            ("sub a b; free: -x", 1, "program a must stand before it"),
            ("program a; use: nothing", 1, "there is no group nothing"),
            ("program a; free: -x; only -y: z", 1, "only or not for -y"),
            ("program a; acts: nothing", 1, "an effect is missing"),
            ("more nobody-knows-it; free: -x", 1, "the table does not know nobody-knows-it"),
            ("more kubectl; free: --kubeconfig=", 1, "stands in the table already"),
            ("more kubectl nothing; free: --x", 1, "no subcommand nothing"),
        ] {
            let found = read_own(text).expect_err(text);
            assert_eq!(found.line, line, "{text}: {found:?}");
            assert!(found.text.contains(problem), "{text}: {found:?}");
        }
        assert!(read_own("# nothing\n").is_ok());
    }

    #[test]
    fn every_entry_is_understood_and_stands_once() {
        let (table, problems) = read(TEXT, None);
        assert_eq!(problems, []);
        let names = table.programs.len() + table.aliases.len();
        assert!(names > 200, "{names}");
        let known = |node: &Node| node.groups.iter().all(|group| table.groups.contains_key(group));
        assert!(table.programs.values().chain(table.groups.values()).all(known));
    }
}
