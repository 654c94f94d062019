//! The parts of a word.

use shuck_ast::{CommandSubstitutionSyntax, LiteralText, StmtSeq, Word as WordNode, WordPart, WordPartNode};

use super::Walk;
use crate::printing::{Place, needs_backslash, push_word};
use crate::quote::{self, Expansion, Piece, Quoting, Value, push_single_quoted};
use crate::script::{Frag, Word};

/// What ends a word where it stands without quotes.
const DIVIDES: [char; 10] = [' ', '\t', '\n', ';', '|', '&', '<', '>', '(', ')'];

impl Walk<'_> {
    /// A word of a command, printed.
    pub(super) fn word(&mut self, node: &WordNode) -> Word {
        self.word_at(node, Place::Word)
    }

    pub(super) fn word_at(&mut self, node: &WordNode, place: Place) -> Word {
        let (word, divided) = self.read_word(node, place);
        if divided && place != Place::Regex {
            self.refuse(node.span, "a blank or an operator where the parser saw one word; quote it");
        }
        word
    }

    /// The same, and whether something stands in it that would end it elsewhere.
    pub(super) fn read_word(&mut self, node: &WordNode, place: Place) -> (Word, bool) {
        let mut pieces = Vec::with_capacity(node.parts.len());
        for part in &node.parts {
            self.part(part, false, &mut pieces);
        }
        let lone = |p: &Piece| matches!(p, Piece::Text { text, quoted: false } if text.contains('$'));
        let split = |p: &Piece| matches!(p, Piece::Expansion(e) if !e.quoted);
        if place != Place::Regex && pieces.iter().any(lone) && pieces.iter().any(split) {
            // Bash does not divide the words of `…`$ then.
            self.refuse(node.span, "a dollar sign beside an expansion; quote it");
        }
        let word = Word::from_pieces(&pieces, self.text(node.span));
        let braces = |frag: &Frag| matches!(frag, Frag::Glob(text) if text.contains('{'));
        // Braces are expanded as text: `$x{,b}` becomes `$x $xb`.
        if word.frags.iter().any(braces) && node.parts.iter().any(|p| matches!(p.kind, WordPart::Variable(_)))
        {
            self.refuse(node.span, "a variable beside braces; write ${…}");
        }
        // What stands in quotes is told by other rules there than in expansions.
        if word.frags.iter().any(braces) && self.holds_quoting_expansion(&node.parts) {
            self.refuse(node.span, "braces beside an expansion with quotes in it; use two words");
        }
        // Most words are one literal.
        match word.run() {
            Some(text) if matches!(place, Place::Word | Place::Command) => {
                push_single_quoted(&mut self.out, text);
            }
            _ if matches!(place, Place::Word | Place::Command) && word.literal().is_some() => {
                push_single_quoted(&mut self.out, &word.literal().unwrap_or_default());
            }
            _ => self.print(&pieces, place, node.span),
        }
        let divides = |p: &Piece| matches!(p, Piece::Text { text, quoted: false } if text.contains(DIVIDES));
        (word, pieces.iter().any(divides))
    }

    /// Whether an expansion of parameters has quotes, a backtick or a backslash in it.
    fn holds_quoting_expansion(&self, parts: &[WordPartNode]) -> bool {
        parts.iter().any(|part| match &part.kind {
            WordPart::DoubleQuoted { parts, .. } => self.holds_quoting_expansion(parts),
            WordPart::Literal(_)
            | WordPart::SingleQuoted { .. }
            | WordPart::Variable(_)
            | WordPart::CommandSubstitution { .. }
            | WordPart::ProcessSubstitution { .. } => false,
            _ => self.text(part.span).contains(['\'', '"', '`', '\\']),
        })
    }

    pub(super) fn print(&mut self, pieces: &[Piece], place: Place, span: shuck_ast::Span) {
        if let Err(reason) = push_word(&mut self.out, pieces, place) {
            self.refuse(span, reason);
        }
    }

    /// Prints a pattern or what it is replaced by. Within `"${x:-…}"` the quotes that it may need
    /// are read in several ways.
    pub(super) fn print_within(&mut self, pieces: &[Piece], place: Place, span: shuck_ast::Span) {
        let from = self.out.len();
        self.print(pieces, place, span);
        if self.operand.depth > 0 && self.out[from..].contains('\'') {
            self.refuse(span, "a text that needs quotes in an expansion within \"${…}\"");
        }
    }

    /// A word after `${x:-`, or a pattern's replacement.
    pub(super) fn operand(&mut self, node: &WordNode, quoted: bool) {
        let mut pieces = Vec::with_capacity(node.parts.len());
        if !quoted {
            for part in &node.parts {
                self.part(part, false, &mut pieces);
            }
            return self.print(&pieces, Place::Operand, node.span);
        }
        self.operand.depth += 1;
        for part in &node.parts {
            self.quoted_operand(part, &mut pieces);
        }
        for piece in &pieces {
            if let Piece::Text { text, .. } = piece {
                self.operand.high |= !text.is_ascii();
                self.operand.escaped |= text.contains(needs_backslash);
                if text.contains(['{', '}']) {
                    self.refuse(node.span, "a brace within ${…} ends it earlier than it looks");
                }
            }
        }
        self.print(&pieces, Place::Quoted, node.span);
        self.operand.depth -= 1;
        if self.operand.depth == 0 {
            let operand = std::mem::take(&mut self.operand);
            // Some locales read the last byte of a letter and a backslash as one character.
            if operand.high && operand.escaped {
                self.refuse(node.span, "letters beyond ASCII beside $, `, \" or \\ within \"${…}\"");
            }
        }
    }

    /// A part of an operand within double quotes, where single quotes are plain text.
    fn quoted_operand(&mut self, node: &WordPartNode, out: &mut Vec<Piece>) {
        match &node.kind {
            WordPart::SingleQuoted { dollar: true, .. } => {
                self.refuse(node.span, "$'…' within \"${…}\" is expanded again");
            }
            WordPart::SingleQuoted { dollar: false, .. } => {
                let raw = self.text(node.span);
                if raw.len() < 2 || raw.contains(['$', '`', '\\', '"', '{', '}']) {
                    self.refuse(
                        node.span,
                        "single quotes within \"${…}\" are plain text: what is in them expands",
                    );
                }
                quote::push(out, raw, true);
            }
            WordPart::DoubleQuoted { parts, dollar } => {
                if *dollar {
                    self.refuse(node.span, "$\"…\" is translated by the locale");
                }
                for part in parts {
                    self.quoted_operand(part, out);
                }
            }
            WordPart::ProcessSubstitution { .. } => {
                self.refuse(node.span, "a process substitution within double quotes");
            }
            WordPart::Literal(_) => {
                let raw = self.text(node.span);
                let mut rest = raw;
                let mut text = String::new();
                // As within double quotes, and a closing brace may be escaped as well.
                let mut plain = !hides_expansion(raw);
                while let Some(at) = rest.find('\\') {
                    text.push_str(&rest[..at]);
                    plain &= !rest[..at].contains(['\'', '"']);
                    let mut chars = rest[at + 1..].chars();
                    match chars.next() {
                        Some('\n') => {}
                        Some(c) if needs_backslash(c) => text.push(c),
                        _ => self.refuse(node.span, "a backslash within \"${…}\""),
                    }
                    rest = chars.as_str();
                }
                text.push_str(rest);
                if !plain || rest.contains(['\'', '"']) {
                    self.refuse(node.span, "a quote or an expansion where the parser saw plain text");
                }
                quote::push(out, &text, true);
            }
            _ => self.part(node, true, out),
        }
    }

    /// Appends what a part of a word means; judges what it runs.
    pub(super) fn part(&mut self, node: &WordPartNode, quoted: bool, out: &mut Vec<Piece>) {
        let span = node.span;
        let (value, printed) = match &node.kind {
            WordPart::Literal(text) => {
                let raw: &str = match text {
                    LiteralText::Owned(text) => text,
                    LiteralText::Source | LiteralText::CookedSource(_) => self.text(span),
                };
                self.literal(raw, quoted, span, out);
                return;
            }
            WordPart::SingleQuoted { value, dollar } => {
                let raw = self.text(value.span());
                let inner = if raw.is_empty() { value.slice(self.source) } else { raw };
                if !*dollar {
                    return quote::push(out, inner, true);
                }
                if self.nested > 0 {
                    self.refuse(span, "$'…' within ${…} is read in several ways");
                }
                let whole = self.text(span);
                let inner = whole.strip_prefix("$'").and_then(|t| t.strip_suffix('\''));
                match inner.ok_or_else(|| "an unusual $'…'".to_owned()).and_then(quote::decode_ansi_c) {
                    Ok(text) => quote::push(out, &text, true),
                    Err(reason) => {
                        self.refuse(span, reason);
                        quote::push(out, "", true);
                    }
                }
                return;
            }
            WordPart::DoubleQuoted { parts, dollar } => {
                if *dollar {
                    self.refuse(span, "$\"…\" is translated by the locale");
                }
                self.group += 1;
                let before = out.len();
                let text = out.last().cloned();
                for part in parts {
                    self.part(part, true, out);
                }
                // Quotes with nothing in them make a word all the same.
                if out.len() == before && out.last() == text.as_ref() {
                    if !matches!(self.text(span), "\"\"" | "$\"\"") {
                        self.refuse(span, "quotes in which the parser saw nothing");
                    }
                    quote::push(out, "", true);
                }
                return;
            }
            WordPart::CommandSubstitution { body, syntax } => {
                if *syntax == CommandSubstitutionSyntax::Backtick && self.text(span).contains('\\') {
                    self.refuse(span, "a backslash within backticks; use $(…)");
                }
                (Value::Unknown, self.apart(|walk| walk.substitution(body, span)))
            }
            WordPart::ProcessSubstitution { body, is_input } => {
                let printed = self.apart(|walk| {
                    walk.out.push_str(if *is_input { "<( " } else { ">( " });
                    walk.block(body, ")");
                });
                (Value::Path, printed)
            }
            other => {
                let mut value = Value::Unknown;
                let printed = self.apart(|walk| value = walk.expansion(other, span, quoted));
                (value, printed)
            }
        };
        let quoted = quoted || value == Value::Path;
        let group = if quoted { self.group } else { 0 };
        out.push(Piece::Expansion(Expansion { quoted, group, value, printed }));
    }

    /// Literal text as it is written.
    pub(super) fn literal(&mut self, raw: &str, quoted: bool, span: shuck_ast::Span, out: &mut Vec<Piece>) {
        let mut state = if quoted { Quoting::Double } else { Quoting::None };
        let before = state;
        if !raw.contains(['\'', '"']) && hides_expansion(raw) {
            self.refuse(span, "an expansion where the parser saw plain text");
        }
        if let Err(reason) = quote::read_literal(raw, &mut state, out) {
            self.refuse(span, reason);
        }
        if state != before {
            self.refuse(span, "a quote where the parser saw plain text");
        }
    }

    /// `$(…)`, in any of its spellings.
    pub(super) fn substitution(&mut self, body: &StmtSeq, span: shuck_ast::Span) {
        let text = self.text(span);
        let inner =
            text.strip_prefix("$(").or(text.strip_prefix('`')).unwrap_or(text).trim_end_matches([')', '`']);
        let said = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        if body.stmts.is_empty() && inner.lines().any(said) {
            self.refuse(span, "a substitution that could not be parsed");
        }
        self.out.push_str("$( ");
        self.statements(body);
        self.out.push_str(if self.out.ends_with('&') { " )" } else { "; )" });
        if body.stmts.is_empty() {
            self.out.truncate(self.out.len() - 3);
            self.out.push(')');
        }
    }
}

/// Whether text that a parser took for literal holds what bash expands.
fn hides_expansion(raw: &str) -> bool {
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        let expands = |next: &char| next.is_ascii_alphanumeric() || "_({@*#?!$-".contains(*next);
        match c {
            '\\' => drop(chars.next()),
            '`' => return true,
            '$' if chars.peek().is_some_and(expands) => return true,
            _ => {}
        }
    }
    false
}
