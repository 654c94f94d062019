//! Expressions: what `if` holds, and what stands in `${{ }}`.
//!
//! ```text
//! or:      and ('||' and)*
//! and:     compare ('&&' compare)*
//! compare: not (('==' | '!=' | '<' | '<=' | '>' | '>=') not)*
//! not:     '!'* value ('.' name | '.*' | '[' or ']' | '[*]')*
//! value:   '(' or ')' | 'text' | number | true | false | null | context | name '(' args ')'
//! ```

mod eval;
mod parse;
mod template;
#[cfg(test)]
mod tests;
mod token;

pub use eval::{Failed, Lookup, Status};
pub(crate) use template::Part;
pub use template::{Condition, Template};

use crate::value::Item;

/// What can be named.
pub const CONTEXTS: &[&str] = &[
    "env", "github", "inputs", "job", "jobs", "matrix", "needs", "runner", "secrets", "steps", "strategy",
    "vars",
];

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Malformed {
    #[error("an expression may be {0} bytes long")]
    TooLong(usize),
    #[error("the expression nests too deep")]
    TooDeep,
    #[error("the expression ends too early")]
    EndsEarly,
    #[error("'${{{{' without '}}}}'")]
    OpenTemplate,
    #[error("a text without its closing '")]
    OpenText,
    #[error("a text stands in single quotes here, not in double ones")]
    DoubleQuotes,
    #[error("a '{0}' without its end")]
    Open(&'static str),
    #[error("'{0}' is no part of an expression")]
    Sign(char),
    #[error("unexpected {0}")]
    Unexpected(String),
    #[error("there is no context '{name}'{}", hint(near))]
    NoContext { name: String, near: Option<&'static str> },
    #[error("there is no function {name}(){}", hint(near))]
    NoFunction { name: String, near: Option<&'static str> },
    #[error("{name}() takes {}", counted(*least, *most))]
    Arguments { name: String, least: usize, most: usize },
}

fn hint(near: &Option<&'static str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"))
}

fn counted(least: usize, most: usize) -> String {
    match (least, most) {
        (a, b) if a == b => format!("{a} arguments"),
        (a, usize::MAX) => format!("{a} arguments or more"),
        (a, b) => format!("{a} to {b} arguments"),
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Item(Item),
    Context(&'static str),
    /// `a.b` and `a['b']`
    Member(Box<Expr>, Box<Expr>),
    /// `a.*`
    All(Box<Expr>),
    Call(Function, Vec<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(Compare, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Success,
    Failure,
    Always,
    Cancelled,
    Contains,
    StartsWith,
    EndsWith,
    Format,
    Join,
    ToJson,
    FromJson,
    HashFiles,
}

impl Function {
    const NAMES: &[&str] = &[
        "success",
        "failure",
        "always",
        "cancelled",
        "contains",
        "startsWith",
        "endsWith",
        "format",
        "join",
        "toJSON",
        "fromJSON",
        "hashFiles",
    ];

    /// With the fewest and most arguments it takes.
    fn named(name: &str) -> Option<(Self, usize, usize)> {
        Some(match name.to_ascii_lowercase().as_str() {
            "success" => (Self::Success, 0, 0),
            "failure" => (Self::Failure, 0, 0),
            "always" => (Self::Always, 0, 0),
            "cancelled" => (Self::Cancelled, 0, 0),
            "contains" => (Self::Contains, 2, 2),
            "startswith" => (Self::StartsWith, 2, 2),
            "endswith" => (Self::EndsWith, 2, 2),
            "format" => (Self::Format, 1, usize::MAX),
            "join" => (Self::Join, 1, 2),
            "tojson" => (Self::ToJson, 1, 1),
            "fromjson" => (Self::FromJson, 1, 1),
            "hashfiles" => (Self::HashFiles, 1, usize::MAX),
            _ => return None,
        })
    }
}

impl Expr {
    /// Itself and all that it is made of.
    pub(crate) fn each(&self, seen: &mut dyn FnMut(&Expr)) {
        seen(self);
        match self {
            Self::Item(_) | Self::Context(_) => {}
            Self::All(a) | Self::Not(a) => a.each(seen),
            Self::Member(a, b) | Self::And(a, b) | Self::Or(a, b) | Self::Compare(_, a, b) => {
                a.each(seen);
                b.each(seen);
            }
            Self::Call(_, args) => args.iter().for_each(|arg| arg.each(seen)),
        }
    }

    fn asks_status(&self) -> bool {
        let mut asks = false;
        self.each(&mut |expr| {
            use Function::{Always, Cancelled, Failure, Success};
            asks |= matches!(expr, Expr::Call(Success | Failure | Always | Cancelled, _));
        });
        asks
    }
}
