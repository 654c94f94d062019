//! `[[ … ]]`, patterns and subscripts.

use shuck_ast::{
    ConditionalBinaryOp as Op, ConditionalCommand, ConditionalExpr, ConditionalUnaryOp, LiteralText, Pattern,
    PatternGroupKind, PatternPart, Subscript,
};

use super::{Walk, span_of};
use crate::printing::{Place, is_name};
use crate::quote::{self, Expansion, Piece, Value};
use crate::verdict::Span;

impl Walk<'_> {
    /// `[[ … ]]`.
    pub(super) fn test(&mut self, node: &ConditionalCommand) {
        let Span { start, end } = span_of(node.expression.span());
        let whole = self.stands_between(span_of(node.left_bracket_span).end, start, "")
            && self.stands_between(end, span_of(node.right_bracket_span).start, "");
        self.check_whole(whole, &node.expression);
        self.out.push_str("[[ ");
        self.conditional(&node.expression);
        self.out.push_str(" ]]");
    }

    /// Whether nothing but a sign, and blanks around it, stands in a part of the line.
    fn stands_between(&self, from: usize, to: usize, sign: &str) -> bool {
        let between = self.source.get(from..to).unwrap_or("?").replace("\\\n", "");
        between.trim_matches([' ', '\t', '\n']) == sign
    }

    /// What the parser has left out, or cut elsewhere than bash does, would not be printed.
    fn check_whole(&mut self, whole: bool, expression: &ConditionalExpr) {
        if !whole {
            self.refuse(expression.span(), "a test of which the parser has read only parts; quote its words");
        }
    }

    pub(super) fn conditional(&mut self, expression: &ConditionalExpr) {
        let text = self.text(expression.span());
        if text.contains("$'") && text.contains("\\'") {
            self.refuse(expression.span(), "$'…' with a quote in it within [[ ]] is read in several ways");
        }
        match expression {
            ConditionalExpr::Binary(node) => {
                let (left, right) = (span_of(node.left.span()).end, span_of(node.right.span()).start);
                self.check_whole(self.stands_between(left, right, node.op.as_str()), expression);
                let evaluates = matches!(
                    node.op,
                    Op::ArithmeticEq
                        | Op::ArithmeticNe
                        | Op::ArithmeticLe
                        | Op::ArithmeticGe
                        | Op::ArithmeticLt
                        | Op::ArithmeticGt
                );
                let list = matches!(node.op, Op::And | Op::Or);
                self.out.push_str(if list { "( " } else { "" });
                let operand = |walk: &mut Self, side: &ConditionalExpr| {
                    if evaluates { walk.arithmetic_operand(side) } else { walk.conditional(side) }
                };
                operand(self, &node.left);
                self.out.push(' ');
                self.out.push_str(node.op.as_str());
                self.out.push(' ');
                operand(self, &node.right);
                self.out.push_str(if list { " )" } else { "" });
            }
            ConditionalExpr::Unary(node) => {
                let (sign, operand) = (span_of(node.op_span).end, span_of(node.expr.span()).start);
                self.check_whole(self.stands_between(sign, operand, ""), expression);
                self.out.push_str(node.op.as_str());
                self.out.push(' ');
                match node.op {
                    ConditionalUnaryOp::VariableSet | ConditionalUnaryOp::ReferenceVariable => {
                        let name = self.text(node.expr.span());
                        if !is_name(name) {
                            self.refuse(expression.span(), "-v evaluates its operand as an array subscript");
                        }
                        self.out.push_str(name);
                    }
                    ConditionalUnaryOp::Not => self.grouped(&node.expr),
                    _ => self.conditional(&node.expr),
                }
            }
            ConditionalExpr::Parenthesized(_) => self.grouped(expression),
            ConditionalExpr::Word(word) => {
                // `!( … )` is a negated group to bash, and a pattern to other parsers.
                if self.text(word.span).starts_with(['!', '(']) && self.text(word.span).contains('(') {
                    self.refuse(word.span, "a parenthesis beside '!'; put a blank between them");
                }
                self.word(word);
            }
            ConditionalExpr::Regex(word) => {
                self.word_at(word, Place::Regex);
            }
            ConditionalExpr::Pattern(pattern) => self.pattern(pattern, Place::Pattern, false),
            ConditionalExpr::VarRef(reference) => {
                self.refuse(reference.span, "bash evaluates this text as an array subscript");
            }
        }
    }

    /// A part in parentheses: in one pair, however many were written. Lists bring their own.
    fn grouped(&mut self, mut expression: &ConditionalExpr) {
        while let ConditionalExpr::Parenthesized(node) = expression {
            let Span { start, end } = span_of(node.expr.span());
            let whole = self.stands_between(span_of(node.left_paren_span).end, start, "")
                && self.stands_between(end, span_of(node.right_paren_span).start, "");
            self.check_whole(whole, expression);
            expression = &node.expr;
        }
        let list = matches!(expression, ConditionalExpr::Binary(node) if matches!(node.op, Op::And | Op::Or));
        self.out.push_str(if list { "" } else { "( " });
        self.conditional(expression);
        self.out.push_str(if list { "" } else { " )" });
    }

    /// An operand of `-eq` and its like.
    fn arithmetic_operand(&mut self, expression: &ConditionalExpr) {
        if let ConditionalExpr::Word(word) = expression {
            self.evaluated_word(word, false);
        } else {
            self.conditional(expression);
            self.refuse(expression.span(), "bash evaluates this text as arithmetic");
        }
    }

    /// A pattern, printed; `anchored` says that its first character is no part of it.
    pub(super) fn pattern(&mut self, pattern: &Pattern, place: Place, anchored: bool) {
        let mut pieces: Vec<Piece> = Vec::with_capacity(pattern.parts.len());
        let mut anchored = anchored;
        for part in &pattern.parts {
            match &part.kind {
                PatternPart::Literal(text) => {
                    let mut raw = match text {
                        // Without its backslashes: all of it is literal.
                        LiteralText::Owned(text) => {
                            if anchored {
                                self.refuse(part.span, "a pattern that can't be printed back");
                            }
                            quote::push(&mut pieces, text, true);
                            continue;
                        }
                        LiteralText::Source | LiteralText::CookedSource(_) => self.text(part.span),
                    };
                    if std::mem::take(&mut anchored) && raw.starts_with(['#', '%']) {
                        self.out.push_str(&raw[..1]);
                        raw = &raw[1..];
                    }
                    self.literal(raw, false, part.span, &mut pieces);
                }
                PatternPart::AnyString => quote::push(&mut pieces, "*", false),
                PatternPart::AnyChar => quote::push(&mut pieces, "?", false),
                PatternPart::CharClass(_) => {
                    let raw = self.text(part.span);
                    if raw.contains(['$', '`', '\\', '/']) {
                        self.refuse(part.span, "an expansion or a backslash in a character class");
                    }
                    self.literal(raw, false, part.span, &mut pieces);
                }
                PatternPart::Group { kind, patterns } => {
                    let sign = match kind {
                        PatternGroupKind::ZeroOrOne => "?(",
                        PatternGroupKind::ZeroOrMore => "*(",
                        PatternGroupKind::OneOrMore => "+(",
                        PatternGroupKind::ExactlyOne => "@(",
                        PatternGroupKind::NoneOf => "!(",
                    };
                    let printed = self.apart(|walk| {
                        walk.out.push_str(sign);
                        for (index, inner) in patterns.iter().enumerate() {
                            if index > 0 {
                                walk.out.push('|');
                            }
                            walk.pattern(inner, place, false);
                        }
                        walk.out.push(')');
                    });
                    pieces.push(Piece::Expansion(Expansion {
                        quoted: false,
                        group: 0,
                        value: Value::Unknown,
                        printed,
                    }));
                }
                PatternPart::Word(word) => {
                    for part in &word.parts {
                        self.part(part, false, &mut pieces);
                    }
                }
            }
        }
        if anchored {
            self.refuse(pattern.span, "a pattern that can't be printed back");
        }
        self.print_within(&pieces, place, pattern.span);
    }

    /// The subscript of `name`, with its brackets.
    pub(super) fn subscript(&mut self, name: &str, subscript: &Subscript) {
        self.out.push('[');
        if let Some(selector) = subscript.selector() {
            self.out.push(selector.as_char());
            let span = span_of(subscript.span());
            let text = self.text(subscript.span());
            let around = |text: Option<&str>, is: fn(&str) -> bool| text.is_some_and(is);
            let alone = text.len() == 1
                && around(self.source.get(..span.start), |before| before.ends_with('['))
                && around(self.source.get(span.end..), |after| after.starts_with(']'));
            if !alone {
                self.refuse(subscript.span(), "a blank in a subscript makes it another one");
            }
        } else if self.maps.contains(name) {
            match &subscript.word_ast {
                // A blank is a part of it.
                Some(word) => drop(self.read_word(word, Place::Word)),
                None => self.refuse(subscript.span(), "a subscript that could not be parsed"),
            }
        } else {
            match &subscript.arithmetic_ast {
                Some(node) => self.arithmetic(node),
                None => {
                    if let Some(word) = &subscript.word_ast {
                        self.word(word);
                    }
                    self.refuse(
                        subscript.span(),
                        "bash evaluates a subscript; use a number or a variable that this line sets to one",
                    );
                }
            }
        }
        self.out.push(']');
    }
}
