//! The table of options, read from its text.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

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

/// Something that is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The line at which the entry begins, from 1.
    pub(super) line: usize,
    pub(super) text: String,
}

/// Reads a table's text; what is wrong with it comes second.
/// `base` is the table beside which it counts.
fn read(text: &'static str, base: Option<&'static Table>) -> (Table, Vec<Problem>) {
    let mut table = Table::default();
    let mut problems = Vec::new();
    for (line, entry) in entries(text) {
        if let Err(text) = table.add(entry, base) {
            problems.push(Problem { line, text });
        }
    }
    (table, problems)
}

/// The entries, each with the number of its first line: from a line that begins at its start
/// up to the next one.
fn entries(text: &'static str) -> impl Iterator<Item = (usize, &'static str)> {
    let mut rest = text;
    let mut line = 1;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let mut end = rest.find('\n').map_or(rest.len(), |at| at + 1);
            let is_entry = !rest.starts_with(['#', '\n', '\r', ' ']) && !rest.starts_with("version ");
            while is_entry && rest[end..].starts_with(' ') {
                end += rest[end..].find('\n').map_or(rest.len() - end, |at| at + 1);
            }
            let (entry, after) = rest.split_at(end);
            let first = line;
            line += entry.matches('\n').count();
            rest = after;
            if is_entry {
                return Some((first, entry));
            }
        }
    })
}

impl Table {
    fn add(&mut self, entry: &'static str, base: Option<&'static Self>) -> Result<(), String> {
        let (head, clauses) = entry.split_once(';').unwrap_or((entry, ""));
        let mut words = head.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let mut node = Node::default();
        for clause in clauses.split(';').map(str::trim).filter(|c| !c.is_empty()) {
            node.clause(clause)?;
        }
        let first = words.next().ok_or("a name is missing: program NAME; CLAUSE; …")?;
        node.check_limits(first)?;
        let is_group = |name: &str| {
            self.groups.contains_key(name) || base.is_some_and(|base| base.groups.contains_key(name))
        };
        if let Some(unknown) = node.groups.iter().find(|name| !is_group(name)) {
            return Err(format!("{first}: use: there is no group {unknown}; it must stand before"));
        }
        match kind {
            "group" => match self.groups.insert(first, node) {
                Some(_) => Err(format!("the group {first} stands twice; keep one")),
                None => Ok(()),
            },
            "more" => self.more(base, (first, &words.collect::<Vec<_>>()), node),
            "program" => {
                for alias in words {
                    if self.aliases.insert(alias, first).is_some() || self.programs.contains_key(alias) {
                        return Err(format!("{alias} stands twice; keep one"));
                    }
                }
                match self.programs.insert(first, node) {
                    Some(_) => Err(format!("{first} stands twice; keep one")),
                    None => Ok(()),
                }
            }
            "sub" => {
                let parent = self.programs.get_mut(first);
                let parent = parent
                    .ok_or_else(|| format!("a sub of {first}: program {first} must stand before it"))?;
                parent.dangerous |= node.acts.is_some() || node.dangerous;
                parent.add(&words.collect::<Vec<_>>(), node)
            }
            other => Err(format!("unknown kind {other} (there are program, sub, group and more)")),
        }
    }

    /// Adds to what is known of a program of the built-in table, or of one of its subcommands.
    fn more(
        &mut self,
        base: Option<&'static Self>,
        (name, path): (&'static str, &[&'static str]),
        more: Node,
    ) -> Result<(), String> {
        if !self.programs.contains_key(name) {
            let known = base.and_then(|base| base.program(name));
            let known =
                known.ok_or_else(|| format!("the table does not know {name}: write program {name}; …"))?;
            self.programs.insert(name, known.clone());
        }
        let mut node = self.programs.get_mut(name).ok_or("no program")?;
        node.dangerous |= more.dangerous || more.acts.is_some();
        for word in path {
            let child = node.children.iter_mut().find(|(sub, _)| sub == word);
            let (_, child) =
                child.ok_or_else(|| format!("'{name}' has no subcommand {word} in the table"))?;
            node = Arc::make_mut(child);
        }
        node.extend(name, more)
    }
}

impl Node {
    /// Adds what another entry says. It may not say anything else of what stands here.
    fn extend(&mut self, name: &str, more: Self) -> Result<(), String> {
        for (option, new) in more.options {
            match self.option(option) {
                Some(old) if old != new => {
                    let (old, new) = (old.effect.word(), new.effect.word());
                    return Err(format!(
                        "{option} of {name} stands in the table already, as {old}, and here as {new} or with another \
                         value; program {name} would replace all that is known of it"
                    ));
                }
                _ => self.options.insert(option, new),
            };
        }
        self.groups.extend(more.groups);
        self.limits.extend(more.limits);
        self.operands.extend(more.operands);
        self.flags.extend(more.flags);
        self.needs.extend(more.needs);
        self.dangerous |= more.dangerous;
        Ok(())
    }

    /// Limits are about options that are there.
    fn check_limits(&self, name: &str) -> Result<(), String> {
        let mut limited = self.limits.iter().flat_map(|limit| &limit.options);
        match limited.find(|option| self.groups.is_empty() && !self.options.contains_key(**option)) {
            Some(option) => {
                Err(format!("{name}: only or not for {option}, which no clause of the entry names"))
            }
            None => Ok(()),
        }
    }

    /// Puts a subcommand at its place; the last word may name several.
    fn add(&mut self, path: &[&'static str], node: Self) -> Result<(), String> {
        let Some((first, rest)) = path.split_first() else { return Err("no subcommand".into()) };
        if !rest.is_empty() {
            let child = self.children.iter_mut().find(|(name, _)| name == first);
            let (_, child) = child.ok_or_else(|| format!("'{first}' does not stand before it"))?;
            return Arc::make_mut(child).add(rest, node);
        }
        let node = Arc::new(node);
        for name in first.split('|') {
            if self.children.iter().any(|(other, _)| *other == name) {
                return Err(format!("the subcommand {name} stands twice; keep one"));
            }
            self.children.push((name, node.clone()));
        }
        Ok(())
    }

    fn clause(&mut self, clause: &'static str) -> Result<(), String> {
        if FLAGS.contains(&clause) {
            self.flags.push(clause);
            return Ok(());
        }
        let (key, values) = clause.split_once(':').ok_or_else(|| unknown_clause(clause))?;
        let mut key = key.split_whitespace();
        let kind = key.next().unwrap_or_default();
        let mut values = values.split_whitespace();
        let dialect = |text: Option<&str>| match text {
            Some("postgres") => Ok(Dialect::Postgres),
            Some("mysql") => Ok(Dialect::Mysql),
            Some("sqlite") => Ok(Dialect::Sqlite),
            other => Err(format!(
                "{} is no SQL that is read: postgres, mysql or sqlite",
                other.unwrap_or_default()
            )),
        };
        let number = |mut values: std::str::SplitWhitespace<'_>| {
            values.next().and_then(|n| n.parse().ok()).ok_or("no number")
        };
        match kind {
            "use" => self.groups.extend(values),
            "needs" => self.needs.extend(values),
            "acts" | "purpose" => {
                let effect = values.next().and_then(Effect::parse).ok_or(NO_EFFECT)?;
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
                let effect = key.next().and_then(Effect::parse).ok_or(NO_EFFECT)?;
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
                let effect = Effect::parse(kind).ok_or_else(|| unknown_clause(kind))?;
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
            return Err(format!("{text} is no option: one begins with -"));
        }
        let is_cluster = name.len() > 2 && !name.starts_with("--") && !self.flags.contains(&"dash");
        if is_cluster && value.is_some() {
            return Err(format!("{text}: one letter, or the clause dash before it"));
        }
        let mut insert = |name: &'static str| match self.options.insert(name, opt) {
            Some(old) if old.effect != opt.effect => {
                Err(format!("{name} is {} and {}; keep one", old.effect.word(), opt.effect.word()))
            }
            Some(_) => Err(format!("{name} stands twice; keep one")),
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

const NO_EFFECT: &str = "an effect is missing: free, exec, write, read, send or change";

fn unknown_clause(clause: &str) -> String {
    format!(
        "unknown clause {clause} (there are free, exec, write, read, send and change with a colon and options, and those \
         that legwork policy tables describes)"
    )
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
