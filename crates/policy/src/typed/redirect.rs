//! Redirections and here-documents.

use shuck_ast::{
    CommandSubstitutionSyntax, HeredocBody, HeredocBodyPart, LiteralText, Redirect as RedirectNode,
    RedirectKind, RedirectTarget,
};

use super::{Walk, span_of};
use crate::printing::{Place, is_name, push_word};
use crate::quote::{self, Expansion, Piece, Value};
use crate::script::{Frag, Redirect, RedirectUse, Word};

impl Walk<'_> {
    pub(super) fn redirect(&mut self, node: &RedirectNode) {
        if let Some(name) = &node.fd_var {
            self.assigned(name.as_str(), true, node.fd_var_span.unwrap_or(node.span));
            if !is_name(name.as_str()) {
                self.refuse(node.span, "a descriptor's variable that is no name");
            }
            self.out.push_str(&format!("{{{name}}}"));
        } else if let Some(fd) = node.fd {
            if !(0..10_000).contains(&fd) {
                self.refuse(node.span, "an unusual descriptor");
            }
            self.out.push_str(&fd.to_string());
        }
        let from = self.out.len();
        let target = match &node.target {
            RedirectTarget::Word(word) => Some(self.word(word)),
            RedirectTarget::Heredoc(heredoc) => {
                self.heredoc(&heredoc.body);
                let delimiter = &heredoc.delimiter;
                let body = span_of(heredoc.body.span);
                // An empty body has no place of its own: it would begin after the line.
                let (from, line) =
                    if body.start == body.end { (span_of(node.span).end, 1) } else { (body.end, 0) };
                let last =
                    self.source.get(from..).and_then(|rest| rest.split('\n').nth(line)).unwrap_or_default();
                let last = if delimiter.strip_tabs { last.trim_start_matches('\t') } else { last };
                if last != delimiter.cooked {
                    self.refuse(node.span, "a here-document without its end");
                }
                None
            }
        };
        let mut printed = self.out.split_off(from);
        let no_network = target.as_ref().is_some_and(|word| match word.frags.first() {
            Some(Frag::Path) => true,
            Some(Frag::Variable { name, .. }) if self.gate => guard(&mut printed, name),
            _ => false,
        });
        let literal = target.as_ref().and_then(Word::literal);
        let is_descriptor = literal.as_deref().is_some_and(is_descriptor);
        let (operator, usage) = match node.kind {
            RedirectKind::Output => (">", RedirectUse::Write),
            RedirectKind::Clobber => (">|", RedirectUse::Write),
            RedirectKind::Append => (">>", RedirectUse::Write),
            RedirectKind::ReadWrite => ("<>", RedirectUse::Write),
            RedirectKind::OutputBoth => ("&>", RedirectUse::Write),
            RedirectKind::DupOutput if is_descriptor => (">&", RedirectUse::Inert),
            RedirectKind::DupOutput => (">&", RedirectUse::Write),
            RedirectKind::DupInput if is_descriptor => ("<&", RedirectUse::Inert),
            RedirectKind::DupInput | RedirectKind::Input => ("<", RedirectUse::Read),
            RedirectKind::HereString => ("<<<", RedirectUse::Inert),
            RedirectKind::HereDoc | RedirectKind::HereDocStrip => ("<<", RedirectUse::Inert),
        };
        self.note_descriptors(node, usage, literal.as_deref().filter(|_| is_descriptor));
        // By its path the file behind a descriptor would be opened anew, whatever it was opened for.
        let own = match (operator, literal.as_deref()) {
            (">" | ">|" | ">>" | "&>", Some("/dev/stdout")) => Some('1'),
            (">" | ">|" | ">>" | "&>", Some("/dev/stderr")) => Some('2'),
            _ => None,
        };
        let free = usage == RedirectUse::Inert || literal.as_deref() == Some("/dev/null");
        self.script.plain &= free && target.is_some() && operator != "<<<";
        match (usage, operator) {
            // A here-document is printed as the here-string that holds the same.
            (_, "<<") if printed.is_empty() => self.out.push_str("<'/dev/null'"),
            (_, "<<" | "<<<") => {
                self.out.push_str("<<<");
                self.out.push_str(&printed);
            }
            (RedirectUse::Inert, _) => {
                self.out.push_str(operator);
                self.out.push_str(&literal.unwrap_or_default());
            }
            // `<&file` can't be told from a descriptor that bash computes.
            (RedirectUse::Read, _) if node.kind == RedirectKind::DupInput => {
                self.refuse(node.span, "a descriptor must be a number");
            }
            (RedirectUse::Write, _) if own.is_some() => {
                self.out.push_str(">&");
                self.out.extend(own);
                self.out.push_str(if operator == "&>" { " 2>&1" } else { "" });
            }
            (RedirectUse::Write, "<>") if literal.is_none() => {
                self.refuse(node.span, "a file that is read and written must be literal");
            }
            // `>&file` is `&>file`; with a descriptor before it bash reads it otherwise.
            (RedirectUse::Write, ">&") => {
                if node.fd.is_some_and(|fd| fd != 1) || node.fd_var.is_some() || literal.is_none() {
                    self.refuse(node.span, "a descriptor must be a number");
                }
                if node.fd.is_some() {
                    self.out.truncate(from - 1);
                }
                self.out.push_str("&>");
                self.out.push_str(&printed);
            }
            _ => {
                self.out.push_str(operator);
                // `<(` after it would be another operator.
                self.out.push_str(if printed.starts_with(['<', '>']) { " " } else { "" });
                self.out.push_str(&printed);
            }
        }
        self.script.redirects.push(Redirect {
            operator,
            usage,
            target,
            no_network,
            span: span_of(node.span),
        });
    }

    /// Notes what stands on which descriptor: output that goes to a file which was opened for
    /// reading would, opened anew by `/dev/stdout`, be written to it.
    fn note_descriptors(&mut self, node: &RedirectNode, usage: RedirectUse, source: Option<&str>) {
        if usage == RedirectUse::Read {
            self.reads_files = true;
            if matches!(node.fd, Some(1 | 2)) {
                self.refuse(node.span, "a file that is read stands where output goes");
            }
        }
        let default = if node.kind == RedirectKind::DupInput { 0 } else { 1 };
        let onto_output = matches!(node.fd.unwrap_or(default), 1 | 2) && node.fd_var.is_none();
        if onto_output && source.is_some_and(|source| !matches!(source, "1" | "2" | "-")) {
            self.output_from.get_or_insert(node.span);
        }
    }

    /// Prints the word that holds a here-document's text, without its last newline; nothing
    /// for an empty one.
    fn heredoc(&mut self, body: &HeredocBody) {
        let mut pieces: Vec<Piece> = Vec::new();
        for part in &body.parts {
            let mut value = Value::Unknown;
            let printed = match &part.kind {
                HeredocBodyPart::Literal(text) => {
                    let text = match text {
                        LiteralText::Owned(text) => text.to_string(),
                        LiteralText::Source | LiteralText::CookedSource(_) if body.mode.expands() => {
                            unescaped(self.text(part.span))
                        }
                        LiteralText::Source | LiteralText::CookedSource(_) => self.text(part.span).to_owned(),
                    };
                    quote::push(&mut pieces, &text, true);
                    continue;
                }
                HeredocBodyPart::Variable(name) => {
                    let name = name.as_str().to_owned();
                    self.apart(|walk| value = walk.plain(&name, part.span))
                }
                HeredocBodyPart::CommandSubstitution { body, syntax } => {
                    if *syntax == CommandSubstitutionSyntax::Backtick && self.text(part.span).contains('\\') {
                        self.refuse(part.span, "a backslash within backticks; use $(…)");
                    }
                    self.apart(|walk| walk.substitution(body, part.span))
                }
                HeredocBodyPart::ArithmeticExpansion { expression_ast, expression, .. } => {
                    self.apart(|walk| {
                        walk.out.push_str("$((");
                        walk.arithmetic_part(expression_ast.as_deref(), Some(expression.span()));
                        walk.out.push_str("))");
                    })
                }
                HeredocBodyPart::Parameter(parameter) => self.apart(|walk| walk.parameter(parameter, true)),
            };
            pieces.push(Piece::Expansion(Expansion { quoted: true, group: 1, value, printed }));
        }
        match pieces.last_mut() {
            None => return,
            Some(Piece::Text { text, .. }) if text.ends_with('\n') => {
                text.pop();
            }
            Some(_) => self.refuse(body.span, "a here-document without its end"),
        }
        let from = self.out.len();
        if let Err(reason) = push_word(&mut self.out, &pieces, Place::Word) {
            self.refuse(body.span, reason);
        }
        if self.out.len() == from {
            self.out.push_str("''");
        }
    }
}

/// Prints a path that begins with a variable so that bash can't take it for `/dev/tcp/…`:
/// a slash at its beginning is doubled, which to the kernel is the same.
fn guard(printed: &mut String, name: &str) -> bool {
    let quote = if printed.starts_with('"') { "\"" } else { "" };
    let plain = format!("{quote}${{{name}}}");
    let Some(rest) = printed.strip_prefix(&plain).map(str::to_owned) else { return false };
    *printed = format!("{quote}${{{name}/#'/'/'//'}}{rest}");
    true
}

/// A here-document's text without the backslashes that bash takes away.
fn unescaped(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some('\n') if c == '\\' => drop(chars.next()),
            Some('$' | '`' | '\\') if c == '\\' => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

/// Whether a redirection's target names a descriptor: `1`, `-`, `3-`.
pub(crate) fn is_descriptor(text: &str) -> bool {
    let digits = text.strip_suffix('-').unwrap_or(text);
    // With a zero before it the parsers disagree on what is printed back.
    let plain = digits.len() < 2 || !digits.starts_with('0');
    plain && !text.is_empty() && digits.len() < 5 && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use crate::{Decision, Policy};

    #[test]
    fn output_never_lands_in_a_file_that_was_opened_for_reading() {
        let policy = Policy::from_pairs([
            ("*", "deny"),
            ("echo *", "allow"),
            ("exec *", "allow"),
            ("sort *", "allow"),
        ]);
        let policy = policy.expect("rules");
        for line in [
            "echo x 1< victim > /dev/stdout",
            "sort -o /dev/stdout f 1< victim",
            "exec 3< victim; echo x 1<&3 > /dev/stdout",
            "exec 3< victim; sort -o /dev/stdout f >&3",
            "exec 3< victim; sort -o /dev/stderr f 2>&3",
            "echo x >&0 < victim",
        ] {
            assert_eq!(policy.judge(line).decision, Decision::Deny, "{line}");
        }
        for (line, text) in [
            ("echo x > /dev/stdout", "'echo' 'x' >&1"),
            ("echo x >> /dev/stderr", "'echo' 'x' >&2"),
            ("echo x 2> /dev/stdout", "'echo' 'x' 2>&1"),
            ("echo x &> /dev/stderr", "'echo' 'x' >&2 2>&1"),
            ("echo x 3>&1 >&2 2>&1", "'echo' 'x' 3>&1 1>&2 2>&1"),
        ] {
            let run = policy.judge(line).run.map(|run| run.text);
            assert_eq!(run.as_deref(), Some(text), "{line}");
        }
    }
}
