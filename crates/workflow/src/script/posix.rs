//! Shells by POSIX's rules: where an expression stands between quotes decides how its variable is
//! written. Outside of single quotes `${NAME}` is what the value was: split into words where it stands
//! bare, one piece between double quotes.

use super::NoScript;
use crate::expression::Part;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Commands, up to this sign where they stand in something.
    Code(Option<char>),
    Arithmetic(usize),
    Single,
    /// `$'…'`
    Ansi,
    Double,
    /// `${…}`
    Brace,
    Comment,
}

/// A text that begins with the next line.
struct Heredoc {
    word: String,
    is_quoted: bool,
    strips_tabs: bool,
    /// Where its word stands in what is written.
    at: (usize, usize),
}

/// The text of one that is being read.
struct Body {
    heredoc: Heredoc,
    start: usize,
    /// Where variables stand in it.
    variables: Vec<(usize, usize)>,
    line: String,
    has_variable: bool,
}

struct Rewriter<'a> {
    out: String,
    within: Vec<Within>,
    pending: Vec<Heredoc>,
    body: Option<Body>,
    named: &'a mut dyn FnMut(&Part) -> String,
}

pub(super) fn rewrite(parts: &[Part], named: &mut dyn FnMut(&Part) -> String) -> Result<String, NoScript> {
    let mut rewriter = Rewriter {
        out: String::new(),
        within: vec![Within::Code(None)],
        pending: Vec::new(),
        body: None,
        named,
    };
    for part in parts {
        match part {
            Part::Text(text) => rewriter.text(text)?,
            Part::Expr { .. } => rewriter.variable(part)?,
        }
    }
    rewriter.end_body()?;
    Ok(rewriter.out)
}

impl Rewriter<'_> {
    fn variable(&mut self, part: &Part) -> Result<(), NoScript> {
        let name = (self.named)(part);
        let plain = format!("${{{name}}}");
        if let Some(body) = &mut self.body {
            body.has_variable = true;
            body.line.push('$');
            body.variables.push((self.out.len(), plain.len()));
            self.out.push_str(&plain);
            return Ok(());
        }
        if self.out.ends_with("<<") || self.out.ends_with("<<-") {
            return Err(NoScript::Place("at the end of a text (<<)"));
        }
        let within = self.within.last().copied().unwrap_or(Within::Code(None));
        if matches!(within, Within::Code(_) | Within::Double) {
            let signs = self.out.len() - self.out.trim_end_matches('\\').len();
            if signs % 2 == 1 {
                // It would take the variable's sign for a letter. Bare it is nothing before one, between
                // double quotes itself.
                match within {
                    Within::Double => self.out.push('\\'),
                    _ => drop(self.out.pop()),
                }
            }
        }
        match within {
            Within::Single => self.out.push_str(&format!("'\"{plain}\"'")),
            Within::Ansi => self.out.push_str(&format!("'\"{plain}\"$'")),
            _ => self.out.push_str(&plain),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), NoScript> {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if self.body.is_some() {
                rest = self.body_line(rest)?;
                continue;
            }
            let len = self.step(c, rest);
            self.out.push_str(&rest[..len]);
            rest = &rest[len..];
            if c == '\n' && !self.pending.is_empty() && !matches!(self.top(), Within::Single | Within::Double)
            {
                self.begin_body();
            }
        }
        Ok(())
    }

    fn top(&self) -> Within {
        self.within.last().copied().unwrap_or(Within::Code(None))
    }

    /// What a sign begins or ends; how many bytes belong to it.
    fn step(&mut self, c: char, rest: &str) -> usize {
        let one = c.len_utf8();
        let escaped = || one + rest[one..].chars().next().map_or(0, char::len_utf8);
        match (self.top(), c) {
            (Within::Comment, '\n') | (Within::Single | Within::Ansi, '\'') | (Within::Double, '"') => {
                self.within.pop();
            }
            (Within::Comment | Within::Single, _) => {}
            (_, '\\') => return escaped(),
            (Within::Ansi, _) => {}
            (Within::Code(Some(end)), c) if c == end => drop(self.within.pop()),
            (Within::Brace, '}') => drop(self.within.pop()),
            (Within::Arithmetic(depth), ')') => {
                self.within.pop();
                if depth > 1 {
                    self.within.push(Within::Arithmetic(depth - 1));
                }
            }
            (Within::Arithmetic(depth), '(') => {
                self.within.pop();
                self.within.push(Within::Arithmetic(depth + 1));
            }
            (_, '$') => return self.dollar(rest),
            (_, '`') => self.within.push(Within::Code(Some('`'))),
            (Within::Double, _) => {}
            (_, '"') => self.within.push(Within::Double),
            (Within::Brace, _) => {}
            (_, '\'') => self.within.push(Within::Single),
            (Within::Code(_), '(') => {
                if rest.starts_with("((") {
                    self.within.push(Within::Arithmetic(2));
                    return 2;
                }
                self.within.push(Within::Code(Some(')')));
            }
            (Within::Code(_), '#') if self.begins_word() => self.within.push(Within::Comment),
            (Within::Code(_), '<') if rest.starts_with("<<<") => return 3,
            (Within::Code(_), '<') if rest.starts_with("<<") => return self.heredoc(rest),
            _ => {}
        }
        one
    }

    fn dollar(&mut self, rest: &str) -> usize {
        let starts = |with: &str| rest.starts_with(with);
        if starts("$((") {
            self.within.push(Within::Arithmetic(2));
            return 3;
        }
        if starts("$(") {
            self.within.push(Within::Code(Some(')')));
            return 2;
        }
        if starts("${") {
            self.within.push(Within::Brace);
            return 2;
        }
        if starts("$'") && self.top() != Within::Double {
            self.within.push(Within::Ansi);
            return 2;
        }
        // `$#` is no comment.
        if starts("$#") { 2 } else { 1 }
    }

    fn begins_word(&self) -> bool {
        self.out.chars().last().is_none_or(|c| c.is_whitespace() || matches!(c, ';' | '&' | '|' | '('))
    }

    /// `<<WORD`, with its text to come.
    fn heredoc(&mut self, rest: &str) -> usize {
        let mut len = 2;
        let strips_tabs = rest[len..].starts_with('-');
        len += usize::from(strips_tabs);
        len += rest[len..].len() - rest[len..].trim_start_matches([' ', '\t']).len();
        let start = len;
        let (mut word, mut is_quoted, mut quote) = (String::new(), false, None);
        let mut chars = rest[len..].chars().peekable();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(q), c) if c == q => quote = None,
                (Some(_), '\n') | (None, ' ' | '\t' | '\n' | ';' | '&' | '|' | ')' | '<' | '>') => break,
                (None, '\'' | '"') => {
                    is_quoted = true;
                    quote = Some(c);
                }
                (None, '\\') => {
                    is_quoted = true;
                    len += 1;
                    let Some(next) = chars.next() else { break };
                    word.push(next);
                    len += next.len_utf8();
                    continue;
                }
                (_, c) => word.push(c),
            }
            len += c.len_utf8();
        }
        let at = (self.out.len() + start, self.out.len() + len);
        if !word.is_empty() {
            self.pending.push(Heredoc { word, is_quoted, strips_tabs, at });
        }
        len
    }

    fn begin_body(&mut self) {
        let heredoc = self.pending.remove(0);
        let start = self.out.len();
        self.body =
            Some(Body { heredoc, start, variables: Vec::new(), line: String::new(), has_variable: false });
    }

    /// Takes in a line of a text, or the rest of one; what follows it.
    fn body_line<'t>(&mut self, rest: &'t str) -> Result<&'t str, NoScript> {
        let Some(body) = &mut self.body else { return Ok(rest) };
        let end = rest.find('\n');
        let (line, tail) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
        body.line.push_str(line.trim_end_matches('\n'));
        let said = match body.heredoc.strips_tabs {
            true => body.line.trim_start_matches('\t'),
            false => body.line.as_str(),
        };
        let is_last = said == body.heredoc.word;
        if end.is_some() {
            body.line.clear();
        }
        if is_last && (end.is_some() || tail.is_empty()) {
            self.end_body()?;
            self.out.push_str(line);
            if !self.pending.is_empty() {
                self.begin_body();
            }
        } else {
            self.out.push_str(line);
        }
        Ok(tail)
    }

    /// A text in which nothing is filled in becomes one in which just our variables are.
    fn end_body(&mut self) -> Result<(), NoScript> {
        let Some(body) = self.body.take() else { return Ok(()) };
        if !body.heredoc.is_quoted || !body.has_variable {
            return Ok(());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !body.heredoc.word.chars().all(is_plain) {
            return Err(NoScript::Place("in a text with such an end (<<)"));
        }
        let text = self.out.split_off(body.start);
        let mut at = 0;
        for (start, len) in body.variables {
            let start = start - body.start;
            self.out.push_str(&escaped(&text[at..start]));
            self.out.push_str(&text[start..start + len]);
            at = start + len;
        }
        self.out.push_str(&escaped(&text[at..]));
        // Of the same length: what follows stays where it is.
        let (from, to) = body.heredoc.at;
        let word = format!("{:width$}", body.heredoc.word, width = to - from);
        self.out.replace_range(from..to, &word);
        Ok(())
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '$' | '`') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
