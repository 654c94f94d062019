//! Conditions, and texts with expressions in them.

use super::eval::eval;
use super::parse::parse;
use super::{Expr, Failed, Lookup, Malformed};
use crate::value::Item;

/// When something runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    what: What,
    /// As it is written.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Expr(Expr),
    /// Text with `${{ }}` in the middle of it: true unless it comes to nothing, as at GitHub.
    Text(Template),
}

impl Condition {
    /// Reads what stands at `if`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let inner = text.trim();
        let what = match Template::parse(inner)?.0.as_slice() {
            [Part::Expr { expr, .. }] => What::Expr(expr.clone()),
            [Part::Text(_)] | [] => What::Expr(parse(inner)?),
            parts => What::Text(Template(parts.to_vec())),
        };
        Ok(Self { what, text: inner.to_owned() })
    }

    /// Whether it is a text around an expression, which is always true: few mean that.
    pub fn is_text(&self) -> bool {
        matches!(self.what, What::Text(_))
    }

    /// Without a word about the status, it holds only while all is well.
    pub fn holds(&self, lookup: &dyn Lookup) -> Result<bool, Failed> {
        if !self.asks_status() && !lookup.status().is_good {
            return Ok(false);
        }
        match &self.what {
            What::Expr(expr) => eval(expr, lookup).map(|item| item.is_true()),
            What::Text(template) => template.fill(lookup).map(|text| !text.is_empty()),
        }
    }

    /// Whether it asks how things stand.
    pub fn asks_status(&self) -> bool {
        match &self.what {
            What::Expr(expr) => expr.asks_status(),
            What::Text(template) => template.exprs().any(Expr::asks_status),
        }
    }

    /// What it names of a context, by `context.name`.
    pub fn names(&self, context: &str) -> Vec<String> {
        match &self.what {
            What::Expr(expr) => names(expr, context),
            What::Text(template) => template.names(context),
        }
    }
}

/// Text with `${{ }}` in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Expr {
        expr: Expr,
        /// As it is written, without its braces.
        text: String,
    },
}

impl Template {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find("${{") {
            let inner = &rest[at + 3..];
            let end = end_of(inner).ok_or(Malformed::OpenTemplate)?;
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            let text = inner[..end].trim().to_owned();
            parts.push(Part::Expr { expr: parse(&text)?, text });
            rest = &inner[end + 2..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Text as it is.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(vec![Part::Text(text.into())])
    }

    /// With what its expressions come to.
    pub fn fill(&self, lookup: &dyn Lookup) -> Result<String, Failed> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Expr { expr, .. } => filled.push_str(&eval(expr, lookup)?.text()),
            }
        }
        Ok(filled)
    }

    /// What it comes to: where it is one expression, that one's value, whatever its kind.
    pub fn value(&self, lookup: &dyn Lookup) -> Result<Item, Failed> {
        match self.0.as_slice() {
            [Part::Expr { expr, .. }] => eval(expr, lookup),
            _ => self.fill(lookup).map(Item::Text),
        }
    }

    /// Whether there is nothing to fill in.
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    pub(crate) fn of_part(part: &Part) -> Self {
        Self(vec![part.clone()])
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.0
    }

    fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.0.iter().filter_map(|part| match part {
            Part::Expr { expr, .. } => Some(expr),
            Part::Text(_) => None,
        })
    }

    /// What it names of a context, by `context.name`.
    pub fn names(&self, context: &str) -> Vec<String> {
        self.exprs().flat_map(|expr| names(expr, context)).collect()
    }
}

fn names(expr: &Expr, context: &str) -> Vec<String> {
    let mut found = Vec::new();
    expr.each(&mut |expr| {
        if let Expr::Member(of, key) = expr
            && let (Expr::Context(name), Expr::Item(Item::Text(key))) = (&**of, &**key)
            && *name == context
        {
            found.push(key.clone());
        }
    });
    found
}

/// Where the `}}` of an expression is: those within its texts are none.
fn end_of(text: &str) -> Option<usize> {
    let mut in_text = false;
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|at| {
        in_text ^= bytes[*at] == b'\'';
        !in_text && bytes[*at..].starts_with(b"}}")
    })
}
