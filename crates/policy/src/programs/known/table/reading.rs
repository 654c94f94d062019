//! How a table is read, and what can be wrong with one.

use std::sync::Arc;

use super::{Effect, FLAGS, Limit, Node, Operands, Opt, Table, Value, Which};
use crate::programs::sql::Dialect;

/// Something that is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::programs::known) struct Problem {
    /// The line at which the entry begins, from 1.
    pub(in crate::programs::known) line: usize,
    pub(in crate::programs::known) text: String,
}

/// Reads a table's text; what is wrong with it comes second.
/// `base` is the table beside which it counts.
pub(super) fn read(text: &'static str, base: Option<&'static Table>) -> (Table, Vec<Problem>) {
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
