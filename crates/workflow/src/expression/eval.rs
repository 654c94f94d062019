//! What an expression comes to.

use std::cmp::Ordering;

use super::{Compare, Expr, Function};
use crate::value::Item;

/// Most bytes of a value: `format` can repeat what it is given.
const MAX_VALUE: usize = 4 << 20;

/// Why an expression comes to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Failed {
    #[error("fromJSON(): {0}")]
    NoJson(String),
    #[error("format(): {0}")]
    Format(String),
    #[error("hashFiles(): {0}")]
    Hash(String),
    #[error("the value is larger than {MAX_VALUE} bytes")]
    TooLarge,
}

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// All that counts went well: nothing failed, was skipped or cancelled.
    pub is_good: bool,
    /// Something that counts failed.
    pub has_failed: bool,
    /// The run is to end.
    pub is_cancelled: bool,
}

/// What expressions ask about.
pub trait Lookup {
    /// How things stand.
    fn status(&self) -> Status;
    /// A context as a whole.
    fn context(&self, name: &str) -> Item;
    /// One thing of a context.
    fn member(&self, context: &str, key: &str) -> Item {
        self.context(context).member(&key.into())
    }
    /// One digest of all files that the patterns match; nothing if none does.
    fn hash_files(&self, patterns: &[String]) -> Result<String, String>;
}

pub(super) fn eval(expr: &Expr, lookup: &dyn Lookup) -> Result<Item, Failed> {
    Ok(match expr {
        Expr::Item(item) => item.clone(),
        Expr::Context(name) => lookup.context(name),
        Expr::Member(of, key) => member(of, &eval(key, lookup)?, lookup)?,
        Expr::All(of) => Item::List(match &**of {
            // Of each of them.
            Expr::All(_) => eval(of, lookup)?.members().iter().flat_map(Item::members).collect(),
            of => eval(of, lookup)?.members(),
        }),
        Expr::Not(a) => Item::Bool(!eval(a, lookup)?.is_true()),
        Expr::And(a, b) => {
            let first = eval(a, lookup)?;
            if first.is_true() { eval(b, lookup)? } else { first }
        }
        Expr::Or(a, b) => {
            let first = eval(a, lookup)?;
            if first.is_true() { first } else { eval(b, lookup)? }
        }
        Expr::Compare(how, a, b) => compare(*how, &eval(a, lookup)?, &eval(b, lookup)?).into(),
        Expr::Call(function, args) => {
            let args: Vec<Item> = args.iter().map(|arg| eval(arg, lookup)).collect::<Result<_, _>>()?;
            call(*function, &args, lookup)?
        }
    })
}

fn member(of: &Expr, key: &Item, lookup: &dyn Lookup) -> Result<Item, Failed> {
    if let Expr::Context(name) = of {
        return Ok(lookup.member(name, &key.text()));
    }
    let item = eval(of, lookup)?;
    if is_filter(of) {
        let members = item.members();
        let found = members.iter().map(|item| item.member(key)).filter(|item| *item != Item::Null);
        return Ok(Item::List(found.collect()));
    }
    Ok(item.member(key))
}

/// What comes of `.*` is asked one by one.
fn is_filter(expr: &Expr) -> bool {
    match expr {
        Expr::All(_) => true,
        Expr::Member(of, _) => is_filter(of),
        _ => false,
    }
}

fn compare(how: Compare, a: &Item, b: &Item) -> bool {
    let order = || a.order(b);
    match how {
        Compare::Equal => a.equals(b),
        Compare::Unequal => !a.equals(b),
        Compare::Less => order() == Some(Ordering::Less),
        Compare::More => order() == Some(Ordering::Greater),
        Compare::AtMost => order().is_some_and(Ordering::is_le),
        Compare::AtLeast => order().is_some_and(Ordering::is_ge),
    }
}

fn call(function: Function, args: &[Item], lookup: &dyn Lookup) -> Result<Item, Failed> {
    let arg = |i: usize| args.get(i).unwrap_or(&Item::Null);
    let text = |i: usize| arg(i).text().to_lowercase();
    let status = lookup.status();
    Ok(match function {
        Function::Success => status.is_good.into(),
        Function::Failure => (status.has_failed && !status.is_cancelled).into(),
        Function::Always => true.into(),
        Function::Cancelled => status.is_cancelled.into(),
        Function::Contains => match arg(0) {
            list @ (Item::List(_) | Item::Map(_)) => list.members().iter().any(|i| i.equals(arg(1))).into(),
            _ => text(0).contains(&text(1)).into(),
        },
        Function::StartsWith => text(0).starts_with(&text(1)).into(),
        Function::EndsWith => text(0).ends_with(&text(1)).into(),
        Function::Format => format(&args[0].text(), &args[1..])?.into(),
        Function::Join => {
            let between = if args.len() > 1 { arg(1).text() } else { ",".into() };
            match arg(0) {
                list @ (Item::List(_) | Item::Map(_)) => {
                    list.members().iter().map(Item::text).collect::<Vec<_>>().join(&between).into()
                }
                item => item.text().into(),
            }
        }
        Function::ToJson => bounded(arg(0).to_json_text())?.into(),
        Function::FromJson => {
            let text = arg(0).text();
            legwork_yaml::parse_json(text.trim().as_bytes())
                .map(|node| Item::of_node(&node))
                .map_err(|_| Failed::NoJson(shown(&text)))?
        }
        Function::HashFiles => {
            let patterns: Vec<String> = args.iter().map(Item::text).collect();
            lookup.hash_files(&patterns).map_err(Failed::Hash)?.into()
        }
    })
}

/// What is wrong with a text is told without the text: it may be a secret.
fn shown(text: &str) -> String {
    if text.trim().is_empty() { "there is no JSON in nothing".into() } else { "the text is no JSON".into() }
}

fn bounded(text: String) -> Result<String, Failed> {
    if text.len() > MAX_VALUE { Err(Failed::TooLarge) } else { Ok(text) }
}

/// `{0}` stands for an argument, `{{` for a brace.
fn format(pattern: &str, args: &[Item]) -> Result<String, Failed> {
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let (sign, tail) = rest[at..].split_at(1);
        if let Some(tail) = tail.strip_prefix(sign) {
            text.push_str(sign);
            rest = tail;
            continue;
        }
        let wrong = || Failed::Format(format!("'{sign}' stands alone; '{sign}{sign}' is the sign itself"));
        let end = tail.find('}').filter(|_| sign == "{").ok_or_else(wrong)?;
        let place: usize = tail[..end].parse().map_err(|_| wrong())?;
        let arg = args.get(place).ok_or_else(|| Failed::Format(format!("there is no argument {place}")))?;
        text.push_str(&arg.text());
        if text.len() > MAX_VALUE {
            return Err(Failed::TooLarge);
        }
        rest = &tail[end + 1..];
    }
    text.push_str(rest);
    bounded(text)
}
