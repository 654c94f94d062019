//! The table of options, read from its text.

use std::collections::HashMap;
use std::sync::LazyLock;

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
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    options: HashMap<&'static str, Opt>,
    groups: Vec<&'static str>,
    limits: Vec<Limit>,
    pub(super) operands: Vec<Operands>,
    children: Vec<(&'static str, Node)>,
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

struct Table {
    programs: HashMap<&'static str, Node>,
    groups: HashMap<&'static str, Node>,
    aliases: HashMap<&'static str, &'static str>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| read(TEXT).0);

pub(super) fn prepare() {
    LazyLock::force(&TABLE);
}

pub(super) fn program(name: &str) -> Option<&'static Node> {
    let name = TABLE.aliases.get(name).copied().unwrap_or(name);
    TABLE.programs.get(name)
}

impl Node {
    pub(super) fn is(&self, flag: &str) -> bool {
        let of_groups = || self.groups.iter().filter_map(|group| TABLE.groups.get(group)).any(|g| g.is(flag));
        self.flags.contains(&flag) || of_groups()
    }

    pub(super) fn option(&self, name: &str) -> Option<Opt> {
        let of_groups = || self.groups.iter().find_map(|g| TABLE.groups.get(g)?.option(name));
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
        self.groups.iter().filter_map(|g| TABLE.groups.get(g)).all(|group| group.permits(option, value))
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
        let mut groups = self.groups.iter().filter_map(|g| TABLE.groups.get(g));
        groups.all(|group| group.permits_computed(option, value, is_glob))
    }

    /// The one long option that a name could be short for.
    pub(super) fn written_out(&self, name: &str) -> Option<&'static str> {
        let groups = self.groups.iter().filter_map(|group| TABLE.groups.get(group));
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
        found.map(|(_, node)| node)
    }

    /// Whether some option or subcommand does more than look.
    pub(super) fn is_dangerous(&self) -> bool {
        self.dangerous || self.groups.iter().filter_map(|g| TABLE.groups.get(g)).any(Self::is_dangerous)
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
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let quoted = before == Some('"') && after == Some('"');
        let is_field = before.is_some_and(|c| c == '.' || is_part(c)) && !text[..at].ends_with("..");
        !quoted && !is_field && !after.is_some_and(is_part)
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
            _ => pattern == text,
        };
    }
    let climbs = || pattern.starts_with('/') && (text.contains("..") || text.contains('%'));
    Pattern::new(pattern).fits(text) && !climbs()
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

/// Reads a table's text; what is wrong with it comes second.
fn read(text: &'static str) -> (Table, Vec<String>) {
    let mut table = Table { programs: HashMap::new(), groups: HashMap::new(), aliases: HashMap::new() };
    let mut problems = Vec::new();
    for entry in entries(text) {
        if let Err(problem) = table.add(entry) {
            problems.push(format!("{}: {problem}", entry.lines().next().unwrap_or_default()));
        }
    }
    (table, problems)
}

/// The entries: from a line that begins at its start up to the next one.
fn entries(text: &'static str) -> impl Iterator<Item = &'static str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let mut end = rest.find('\n').map_or(rest.len(), |at| at + 1);
            let is_entry = !rest.starts_with(['#', '\n', ' ']) && !rest.starts_with("version ");
            while is_entry && rest[end..].starts_with(' ') {
                end += rest[end..].find('\n').map_or(rest.len() - end, |at| at + 1);
            }
            let (entry, after) = rest.split_at(end);
            rest = after;
            if is_entry {
                return Some(entry);
            }
        }
    })
}

impl Table {
    fn add(&mut self, entry: &'static str) -> Result<(), String> {
        let (head, clauses) = entry.split_once(';').unwrap_or((entry, ""));
        let mut words = head.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let mut node = Node::default();
        for clause in clauses.split(';').map(str::trim).filter(|c| !c.is_empty()) {
            node.clause(clause)?;
        }
        let first = words.next().ok_or("no name")?;
        match kind {
            "group" => match self.groups.insert(first, node) {
                Some(_) => Err("stands twice".into()),
                None => Ok(()),
            },
            "program" => {
                for alias in words {
                    if self.aliases.insert(alias, first).is_some() || self.programs.contains_key(alias) {
                        return Err(format!("{alias} stands twice"));
                    }
                }
                match self.programs.insert(first, node) {
                    Some(_) => Err("stands twice".into()),
                    None => Ok(()),
                }
            }
            "sub" => {
                let parent =
                    self.programs.get_mut(first).ok_or("a sub of a program that does not stand before it")?;
                parent.dangerous |= node.acts.is_some() || node.dangerous;
                parent.add(&words.collect::<Vec<_>>(), node)
            }
            other => Err(format!("unknown kind {other}")),
        }
    }
}

impl Node {
    /// Puts a subcommand at its place; the last word may name several.
    fn add(&mut self, path: &[&'static str], node: Self) -> Result<(), String> {
        let Some((first, rest)) = path.split_first() else { return Err("no subcommand".into()) };
        if !rest.is_empty() {
            let child = self.children.iter_mut().find(|(name, _)| name == first);
            let (_, child) = child.ok_or_else(|| format!("'{first}' does not stand before it"))?;
            return child.add(rest, node);
        }
        let mut node = Some(node);
        let names: Vec<&str> = first.split('|').collect();
        for (index, name) in names.iter().enumerate() {
            if self.children.iter().any(|(other, _)| other == name) {
                return Err(format!("{name} stands twice"));
            }
            let of_its_own =
                if index + 1 == names.len() { node.take() } else { node.as_ref().map(Self::copy) };
            self.children.extend(of_its_own.map(|node| (*name, node)));
        }
        Ok(())
    }

    /// The same subcommand by another name; it has no subcommands yet.
    fn copy(&self) -> Self {
        Self {
            options: self.options.clone(),
            groups: self.groups.clone(),
            limits: self.limits.clone(),
            operands: self.operands.clone(),
            children: Vec::new(),
            acts: self.acts,
            purpose: self.purpose,
            needs: self.needs.clone(),
            sql_operands: self.sql_operands,
            flags: self.flags.clone(),
            dangerous: self.dangerous,
        }
    }

    fn clause(&mut self, clause: &'static str) -> Result<(), String> {
        if FLAGS.contains(&clause) {
            self.flags.push(clause);
            return Ok(());
        }
        let (key, values) = clause.split_once(':').ok_or_else(|| format!("unknown clause {clause}"))?;
        let mut key = key.split_whitespace();
        let kind = key.next().unwrap_or_default();
        let mut values = values.split_whitespace();
        let dialect = |text: Option<&str>| match text {
            Some("postgres") => Ok(Dialect::Postgres),
            Some("mysql") => Ok(Dialect::Mysql),
            Some("sqlite") => Ok(Dialect::Sqlite),
            other => Err(format!("unknown dialect {other:?}")),
        };
        let number = |mut values: std::str::SplitWhitespace<'_>| {
            values.next().and_then(|n| n.parse().ok()).ok_or("no number")
        };
        match kind {
            "use" => self.groups.extend(values),
            "needs" => self.needs.extend(values),
            "acts" | "purpose" => {
                let effect = values.next().and_then(Effect::parse).ok_or("unknown effect")?;
                *(if kind == "acts" { &mut self.acts } else { &mut self.purpose }) = Some(effect);
                self.dangerous |= kind == "acts";
            }
            "only" | "not" => {
                self.limits.push(Limit {
                    options: key.collect(),
                    only: kind == "only",
                    patterns: values.collect(),
                });
            }
            "sql" => {
                let sql = Some(dialect(key.next())?);
                for option in values {
                    self.option_of(option, Opt { effect: Effect::Free, value: Value::Required, sql })?;
                }
            }
            "sql-operands" => self.sql_operands = Some((dialect(key.next())?, number(values.clone())?)),
            "operands" | "first" | "against" | "words" | "urls" | "max" => {
                let effect = key.next().and_then(Effect::parse).ok_or("unknown effect")?;
                let which = match kind {
                    "operands" => Which::All,
                    "first" => Which::First,
                    "against" => Which::Not,
                    "words" => Which::Words,
                    "urls" => Which::Urls,
                    _ => Which::Max(number(values.clone())?),
                };
                let patterns = if kind == "max" { Vec::new() } else { values.collect() };
                self.dangerous |= effect.is_dangerous();
                self.operands.push(Operands { effect, which, patterns });
            }
            _ => {
                let effect = Effect::parse(kind).ok_or_else(|| format!("unknown clause {kind}"))?;
                self.dangerous |= effect.is_dangerous();
                for option in values {
                    self.option_of(option, Opt { effect, value: Value::None, sql: None })?;
                }
            }
        }
        Ok(())
    }

    /// Adds an option, or several of one letter each, with the mark of its value.
    fn option_of(&mut self, text: &'static str, mut opt: Opt) -> Result<(), String> {
        let (name, value) = match text.as_bytes().last() {
            Some(b'=') if text.ends_with("==") => (&text[..text.len() - 2], Some(Value::Two)),
            Some(b'=') => (&text[..text.len() - 1], Some(Value::Required)),
            Some(b'?') if text.len() > 2 => (&text[..text.len() - 1], Some(Value::Optional)),
            _ => match text.strip_suffix("…") {
                Some(name) => (name, Some(Value::Command)),
                None => (text, None),
            },
        };
        opt.value = value.unwrap_or(opt.value);
        if !name.starts_with('-') {
            return Err(format!("{text} is no option"));
        }
        let is_cluster = name.len() > 2 && !name.starts_with("--") && !self.flags.contains(&"dash");
        if is_cluster && value.is_some() {
            return Err(format!("{text}: one letter, or the clause dash before it"));
        }
        let mut insert = |name: &'static str| match self.options.insert(name, opt) {
            Some(_) => Err(format!("{name} stands twice")),
            None => Ok(()),
        };
        if !is_cluster {
            return insert(name);
        }
        name[1..]
            .chars()
            .try_for_each(|letter| insert(short(letter).ok_or_else(|| format!("{text}: {letter}"))?))
    }
}

/// `-x` for a letter, without a copy.
fn short(letter: char) -> Option<&'static str> {
    const ALL: &str = "-0-1-2-3-4-5-6-7-8-9-A-B-C-D-E-F-G-H-I-J-K-L-M-N-O-P-Q-R-S-T-U-V-W-X-Y-Z\
                       -a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q-r-s-t-u-v-w-x-y-z-#-@-%-?-^-!-+-.-,-_-$";
    let at = ALL.char_indices().find(|(at, c)| at % 2 == 1 && *c == letter)?.0;
    ALL.get(at - 1..=at)
}

/// An option with the words before it, and whether long options have one dash there.
#[cfg(test)]
pub(super) type Placed = (Vec<&'static str>, &'static str, Opt, bool);

/// Every option with the words before it; a subcommand's name of several is its first.
#[cfg(test)]
pub(super) fn every_option() -> Vec<Placed> {
    fn add(node: &'static Node, path: &[&'static str], out: &mut Vec<Placed>) {
        let groups = node.groups.iter().filter_map(|group| TABLE.groups.get(group));
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
    fn every_entry_is_understood_and_stands_once() {
        let (table, problems) = read(TEXT);
        assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
        let names = table.programs.len() + table.aliases.len();
        assert!(names > 200, "{names}");
        let known = |node: &Node| node.groups.iter().all(|group| table.groups.contains_key(group));
        assert!(table.programs.values().chain(table.groups.values()).all(known));
    }
}
