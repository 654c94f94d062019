//! The parts of a word.

use shuck_ast::{
    CommandSubstitutionSyntax, HeredocBody, HeredocBodyPart, LiteralText, WordPart, WordPartNode,
};

use super::Walk;
use crate::quote::{self, Piece, Quoting};

impl Walk<'_> {
    /// Appends what a part of a word means; judges what it runs.
    pub(super) fn part(&mut self, node: &WordPartNode, quoted: bool, out: &mut Vec<Piece>) {
        let span = node.span;
        match &node.kind {
            WordPart::Literal(text) => {
                let raw: &str = match text {
                    LiteralText::Owned(text) => text,
                    LiteralText::Source | LiteralText::CookedSource(_) => self.text(span),
                };
                let mut state = if quoted { Quoting::Double } else { Quoting::None };
                let before = state;
                if let Err(reason) = quote::read_literal(raw, &mut state, out) {
                    self.refuse(span, reason);
                }
                if state != before {
                    self.refuse(span, "a quote where the parser saw plain text");
                }
            }
            WordPart::SingleQuoted { value, dollar } => {
                let raw = self.text(value.span());
                let inner = if raw.is_empty() { value.slice(self.source) } else { raw };
                if *dollar {
                    let whole = self.text(span);
                    let inner = whole.strip_prefix("$'").and_then(|t| t.strip_suffix('\''));
                    match inner.ok_or_else(|| "an unusual $'…'".to_owned()).and_then(quote::decode_ansi_c) {
                        Ok(text) => quote::push(out, &text, true),
                        Err(reason) => {
                            self.refuse(span, reason);
                            out.push(Piece::Expansion { quoted: true });
                        }
                    }
                } else {
                    quote::push(out, inner, true);
                }
            }
            WordPart::DoubleQuoted { parts, dollar } => {
                if *dollar {
                    self.refuse(span, "$\"…\" is translated by the locale");
                }
                quote::push(out, "", true);
                for part in parts {
                    self.part(part, true, out);
                }
            }
            WordPart::CommandSubstitution { body, syntax } => {
                if *syntax == CommandSubstitutionSyntax::Backtick && self.text(span).contains('\\') {
                    self.refuse(span, "a backslash within backticks; use $(…)");
                }
                self.statements(body);
                out.push(Piece::Expansion { quoted });
            }
            WordPart::ProcessSubstitution { body, .. } => {
                self.statements(body);
                out.push(Piece::Expansion { quoted: true });
            }
            other => {
                self.expansion(other, span);
                out.push(Piece::Expansion { quoted });
            }
        }
    }

    pub(super) fn heredoc(&mut self, body: &HeredocBody) {
        if !body.mode.expands() {
            return;
        }
        for part in &body.parts {
            match &part.kind {
                HeredocBodyPart::Literal(_) | HeredocBodyPart::Variable(_) => {}
                HeredocBodyPart::CommandSubstitution { body, syntax } => {
                    if *syntax == CommandSubstitutionSyntax::Backtick && self.text(part.span).contains('\\') {
                        self.refuse(part.span, "a backslash within backticks; use $(…)");
                    }
                    self.statements(body);
                }
                HeredocBodyPart::ArithmeticExpansion { expression_ast, expression, .. } => {
                    self.arithmetic_part(expression_ast.as_deref(), Some(expression.span()));
                }
                HeredocBodyPart::Parameter(parameter) => self.parameter(parameter),
            }
        }
    }
}
