//! `${{ }}` in scripts: their values reach a script as variables of its environment, and the script is
//! rewritten to name them there. No value ever becomes a part of its text, so none is ever run; a value
//! that would not have broken the script gives what it gives when it is pasted.

mod posix;
mod quotes;
#[cfg(test)]
mod tests;

use crate::expression::{Failed, Lookup, Malformed, Part, Template};

/// The start of each variable's name.
const PREFIX: &str = "LEGWORK_EXPR_";
/// Python's scripts are filled in by Python: in its syntax tree, where a value is a value.
pub const PYTHON_FILLER: &str = include_str!("script/fill.py");

/// Whose rules a script goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "as named")]
pub enum Dialect {
    Posix,
    Python,
    JavaScript,
    PowerShell,
    /// Nobody here knows its quotes.
    Other,
}

impl Dialect {
    /// By the program's name.
    pub fn of(program: &str) -> Self {
        let name = program.rsplit('/').next().unwrap_or(program);
        match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" => Self::Posix,
            "python" => Self::Python,
            "node" => Self::JavaScript,
            "pwsh" | "powershell" => Self::PowerShell,
            _ => Self::Other,
        }
    }
}

/// A script that is ready to run, but for the values of its variables.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Its text.
    pub text: String,
    /// What its variables hold.
    values: Vec<Template>,
}

/// Why a script can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum NoScript {
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error(
        "'${{{{ }}}}' can't be filled in {0}, as its value would be run as part of the script; put it into env and use the variable"
    )]
    Place(&'static str),
}

impl Script {
    /// Reads a script.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, NoScript> {
        let template = Template::parse(text)?;
        if template.is_plain() {
            return Ok(Self { text: text.to_owned(), values: Vec::new() });
        }
        let mut values = Vec::new();
        let mut named = |part: &Part| {
            // The same expression is one variable, however often it stands there.
            let template = Template::of_part(part);
            let place = values.iter().position(|known| *known == template).unwrap_or_else(|| {
                values.push(template);
                values.len() - 1
            });
            format!("{PREFIX}{place}")
        };
        let text = match dialect {
            Dialect::Posix => posix::rewrite(template.parts(), &mut named)?,
            Dialect::Python => quotes::placeholders(template.parts(), &mut named),
            Dialect::JavaScript => quotes::rewrite(template.parts(), &quotes::JAVASCRIPT, &mut named),
            Dialect::PowerShell => quotes::rewrite(template.parts(), &quotes::POWERSHELL, &mut named),
            Dialect::Other => return Err(NoScript::Place("for this shell")),
        };
        Ok(Self { text, values })
    }

    /// A text in which nothing is filled in.
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    /// Whether it has values to be filled in.
    pub fn has_values(&self) -> bool {
        !self.values.is_empty()
    }

    /// The variables that it names.
    pub fn variables(&self, lookup: &dyn Lookup) -> Result<Vec<(String, String)>, Failed> {
        let each =
            |(place, template): (usize, &Template)| Ok((format!("{PREFIX}{place}"), template.fill(lookup)?));
        self.values.iter().enumerate().map(each).collect()
    }

    /// What it names of a context, by `context.name`.
    pub fn names(&self, context: &str) -> Vec<String> {
        self.values.iter().flat_map(|value| value.names(context)).collect()
    }
}
