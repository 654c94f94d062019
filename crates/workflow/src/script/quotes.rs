//! Languages whose texts stand between quotes.

use crate::expression::Part;

/// How a language writes texts, and a variable of the environment.
pub(super) struct Language {
    /// Before and after a variable's name, where an expression stands.
    code: (&'static str, &'static str),
    /// The same as a text.
    text: (&'static str, &'static str),
    /// Within quotes that fill in by themselves, if there are such: the quote, before, after.
    filling: (char, &'static str, &'static str),
    plain: &'static [char],
    escape: char,
    comment: &'static str,
}

pub(super) const JAVASCRIPT: Language = Language {
    code: ("JSON.parse(process.env.", ")"),
    text: ("process.env.", ""),
    filling: ('`', "${process.env.", "}"),
    plain: &['\'', '"'],
    escape: '\\',
    comment: "//",
};

pub(super) const POWERSHELL: Language = Language {
    code: ("$env:", ""),
    text: ("$env:", ""),
    filling: ('"', "$($env:", ")"),
    plain: &['\''],
    escape: '`',
    comment: "#",
};

/// The text in which each expression is a name that nothing else has.
pub(super) fn placeholders(parts: &[Part], named: &mut dyn FnMut(&Part) -> String) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Expr { .. } => format!("__{}__", named(part)),
    };
    parts.iter().map(part).collect()
}

pub(super) fn rewrite(parts: &[Part], language: &Language, named: &mut dyn FnMut(&Part) -> String) -> String {
    let mut out = String::new();
    // The open quote, and where its text begins; whether it is parted already.
    let mut open: Option<(char, usize, bool)> = None;
    let mut in_comment = false;
    for part in parts {
        let text = match part {
            Part::Text(text) => text,
            Part::Expr { .. } => {
                let name = named(part);
                let (before, after) = match &mut open {
                    None if in_comment => ("", ""),
                    None => language.code,
                    Some((quote, ..)) if *quote == language.filling.0 => {
                        (language.filling.1, language.filling.2)
                    }
                    Some((quote, start, parted)) => {
                        if !std::mem::replace(parted, true) {
                            out.insert(*start, '(');
                        }
                        let (before, after) = language.text;
                        out.push_str(&format!("{quote} + {before}{name}{after} + {quote}"));
                        continue;
                    }
                };
                out.push_str(&format!("{before}{name}{after}"));
                continue;
            }
        };
        let mut chars = text.chars().peekable();
        let mut rest = text.as_str();
        while let Some(c) = chars.next() {
            let here = rest;
            rest = &rest[c.len_utf8()..];
            match open {
                _ if in_comment => in_comment = c != '\n',
                Some((quote, _, parted)) => {
                    if c == language.escape {
                        out.push(c);
                        if let Some(next) = chars.next() {
                            rest = &rest[next.len_utf8()..];
                            out.push(next);
                        }
                        continue;
                    }
                    if c == quote {
                        open = None;
                        out.push(c);
                        if parted {
                            out.push(')');
                        }
                        continue;
                    }
                }
                None if c == language.filling.0 || language.plain.contains(&c) => {
                    open = Some((c, out.len(), false));
                }
                None => in_comment = here.starts_with(language.comment),
            }
            out.push(c);
        }
    }
    out
}
