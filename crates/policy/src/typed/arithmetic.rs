//! Arithmetic: bash evaluates the text of variables in it, subscripts and
//! substitutions included, so only numbers may stand there (21). It is printed with every
//! part in parentheses. Where the gate stands behind the reading, a variable of unknown
//! text is printed so that only digits, blanks and minus signs of it are left.

use std::collections::BTreeMap;

use shuck_ast::Span;
use shuck_ast::{
    ArithmeticAssignOp as Assign, ArithmeticBinaryOp as Binary, ArithmeticExpr, ArithmeticExprNode,
    ArithmeticLvalue, ArithmeticPostfixOp, ArithmeticUnaryOp as Unary, BourneParameterExpansion as Bourne,
    ParameterExpansionSyntax, Word as WordNode, WordPart,
};

use super::{Walk, span_of};
use crate::names::is_numeric_by_itself;
use crate::printing::{is_name, is_parameter};
use crate::script::{Evaluated, Refused, Word};

const COMPUTED: &str = "bash evaluates computed text as arithmetic";

/// What stands in the printing for a variable of which it is not known yet whether it is a
/// number: no text of a line can hold it.
const MARK: char = '\u{0}';

/// How such a variable is written.
#[derive(Clone, Copy)]
enum Spelling {
    Bare,
    Dollar,
    /// By itself, beside `-eq` and its like.
    Operand,
}

impl Walk<'_> {
    /// An expression that may have no tree: then its text must be blank.
    pub(super) fn arithmetic_part(&mut self, node: Option<&ArithmeticExprNode>, span: Option<Span>) {
        match (node, span) {
            (Some(node), _) => self.arithmetic(node),
            (None, Some(span)) if !self.text(span).trim().is_empty() => {
                self.refuse(span, "arithmetic that could not be parsed");
            }
            (None, _) => {}
        }
    }

    pub(super) fn arithmetic(&mut self, node: &ArithmeticExprNode) {
        if self.text(node.span).contains('\\') {
            self.refuse(node.span, "a backslash in arithmetic");
        }
        match &node.kind {
            ArithmeticExpr::Number(text) => {
                let text = text.slice(self.source).to_owned();
                if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'#' | b'@' | b'_'))
                    || !text.starts_with(|c: char| c.is_ascii_digit())
                {
                    self.refuse(node.span, COMPUTED);
                }
                self.out.push_str(&text);
            }
            ArithmeticExpr::Variable(name) => self.evaluated(name.as_str(), node.span, Spelling::Bare),
            ArithmeticExpr::Indexed { index, .. } => {
                self.arithmetic(index);
                self.refuse(node.span, "arithmetic evaluates the text of an array's element");
            }
            ArithmeticExpr::ShellWord(word) => self.evaluated_word(word, true),
            ArithmeticExpr::Parenthesized { expression } => self.nested(expression),
            ArithmeticExpr::Unary { op, expr } => {
                let sign = match op {
                    Unary::PreIncrement => "++",
                    Unary::PreDecrement => "--",
                    Unary::Plus => "+",
                    Unary::Minus => "-",
                    Unary::LogicalNot => "!",
                    Unary::BitwiseNot => "~",
                };
                self.out.push_str(sign);
                if matches!(op, Unary::PreIncrement | Unary::PreDecrement) {
                    self.counted(expr);
                } else {
                    self.nested(expr);
                }
            }
            ArithmeticExpr::Postfix { expr, op } => {
                self.counted(expr);
                self.out.push_str(match op {
                    ArithmeticPostfixOp::Increment => "++",
                    ArithmeticPostfixOp::Decrement => "--",
                });
            }
            ArithmeticExpr::Binary { left, op, right } => {
                self.nested(left);
                self.out.push_str(binary_sign(*op));
                self.nested(right);
            }
            ArithmeticExpr::Conditional { condition, then_expr, else_expr } => {
                self.nested(condition);
                self.out.push('?');
                self.nested(then_expr);
                self.out.push(':');
                self.nested(else_expr);
            }
            ArithmeticExpr::Assignment { target, op, value } => {
                match target {
                    ArithmeticLvalue::Variable(name) => {
                        self.assigned(name.as_str(), true, node.span);
                        if *op != Assign::Assign {
                            // Its text is evaluated before it is set.
                            self.must_be_number(name.as_str(), node.span);
                        }
                        if !is_name(name.as_str()) {
                            self.refuse(node.span, COMPUTED);
                        }
                        self.out.push_str(name.as_str());
                    }
                    ArithmeticLvalue::Indexed { index, .. } => {
                        self.arithmetic(index);
                        self.refuse(node.span, "arithmetic sets an array's element");
                    }
                }
                self.out.push_str(assign_sign(*op));
                self.nested(value);
            }
        }
    }

    /// A part of an expression, in parentheses: in one pair, however many were written, so
    /// that the printing of a printing is the same.
    fn nested(&mut self, mut node: &ArithmeticExprNode) {
        while let ArithmeticExpr::Parenthesized { expression } = &node.kind {
            node = expression;
        }
        let bare = matches!(
            node.kind,
            ArithmeticExpr::Number(_) | ArithmeticExpr::Variable(_) | ArithmeticExpr::ShellWord(_)
        );
        self.out.push_str(if bare { "" } else { "(" });
        self.arithmetic(node);
        self.out.push_str(if bare { "" } else { ")" });
    }

    fn counted(&mut self, expr: &ArithmeticExprNode) {
        let ArithmeticExpr::Variable(name) = &expr.kind else {
            self.arithmetic(expr);
            return self.refuse(expr.span, "arithmetic counts what is no variable");
        };
        let name = name.as_str();
        self.assigned(name, true, expr.span);
        self.must_be_number(name, expr.span);
        if !is_name(name) {
            self.refuse(expr.span, COMPUTED);
        }
        self.out.push_str(name);
    }

    /// A variable whose text bash evaluates, where nothing can be printed instead of it.
    fn must_be_number(&mut self, name: &str, span: Span) {
        self.script.evaluated.push(Evaluated {
            name: name.to_owned(),
            span: span_of(span),
            replaceable: false,
        });
    }

    /// A variable whose text bash evaluates; how it is printed is found out at the end.
    fn evaluated(&mut self, name: &str, span: Span, spelling: Spelling) {
        if !is_parameter(name) {
            self.refuse(span, COMPUTED);
        }
        self.script.plain = false;
        self.script.evaluated.push(Evaluated {
            name: name.to_owned(),
            span: span_of(span),
            replaceable: true,
        });
        self.out.push(MARK);
        self.out.push(match spelling {
            Spelling::Bare => ' ',
            Spelling::Dollar => '$',
            Spelling::Operand => '=',
        });
        self.out.push_str(name);
        self.out.push(MARK);
    }

    /// A word whose value bash evaluates as arithmetic: within it, or as an operand of `-eq`.
    pub(super) fn evaluated_word(&mut self, word: &WordNode, within: bool) {
        let mut value = None;
        let printed = self.apart(|walk| value = Some(walk.word(word)));
        if value.is_some_and(|value| value.is_numeric()) {
            let text = printed.trim_matches('\'');
            self.out.push_str(text);
            return;
        }
        let parts = match word.parts.as_slice() {
            [part] => match &part.kind {
                WordPart::DoubleQuoted { parts, dollar: false } => parts.as_slice(),
                _ => word.parts.as_slice(),
            },
            parts => parts,
        };
        let name = match parts {
            [part] => match &part.kind {
                WordPart::Variable(name) => Some(name),
                WordPart::Length(_) | WordPart::ArrayLength(_) => {
                    return self.out.push_str(printed.trim_matches('"'));
                }
                WordPart::ArithmeticExpansion { .. } => return self.out.push_str(printed.trim_matches('"')),
                WordPart::Parameter(parameter) => match &parameter.syntax {
                    ParameterExpansionSyntax::Bourne(Bourne::Access { reference })
                        if reference.subscript.is_none() =>
                    {
                        Some(&reference.name)
                    }
                    ParameterExpansionSyntax::Bourne(Bourne::Length { .. }) => {
                        return self.out.push_str(printed.trim_matches('"'));
                    }
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        match name {
            Some(name) => {
                let spelling = if within { Spelling::Dollar } else { Spelling::Operand };
                self.evaluated(name.as_str(), word.span, spelling);
            }
            None => self.refuse(word.span, COMPUTED),
        }
    }

    /// Variables in arithmetic must be numbers, or bash evaluates their text (21).
    pub(super) fn check_evaluated(&mut self) {
        let evaluated = std::mem::take(&mut self.script.evaluated);
        if evaluated.is_empty() {
            return;
        }
        let set = self.set_to();
        let is_number = |name: &str| {
            let by_itself = is_numeric_by_itself(name);
            set.get(name).map_or(by_itself, |to| to.numeric) && (by_itself || !self.variables_read)
        };
        let mut refused = Vec::new();
        for Evaluated { name, span, replaceable } in &evaluated {
            let is_text = set.get(name.as_str()).is_some_and(|to| to.text);
            let replaced = self.gate && *replaceable && !is_text;
            if !(is_number(name) || replaced) {
                refused.push(Refused {
                    text: name.clone(),
                    reason: format!(
                        "arithmetic evaluates the text of '{name}'; it must be set to a number in this line"
                    ),
                    span: *span,
                });
            }
        }
        let any_marked = evaluated.iter().any(|e| e.replaceable);
        let unmarked = any_marked.then(|| unmark(&self.out, is_number));
        if let Some(text) = unmarked {
            self.out = text;
        }
        self.script.refused.append(&mut refused);
    }

    /// What the line sets each variable to.
    fn set_to(&self) -> BTreeMap<String, SetTo> {
        let mut set: BTreeMap<String, SetTo> = BTreeMap::new();
        let prefixes = self.script.commands.iter().flat_map(|c| &c.prefixes);
        for assignment in self.script.assignments.iter().chain(prefixes) {
            let literal = || assignment.value.as_ref().and_then(Word::literal);
            let to = set.entry(assignment.name.clone()).or_insert(SetTo { numeric: true, text: false });
            to.numeric &= assignment.numeric;
            to.text |= !assignment.numeric && literal().is_some_and(|text| !text.is_empty());
        }
        set
    }
}

/// What is known of all values of a variable.
struct SetTo {
    /// Each is a number.
    numeric: bool,
    /// One is literal text that is no number.
    text: bool,
}

/// Prints the marked variables: as they are where they are numbers, else so that what is
/// no digit makes bash complain instead of evaluating it.
fn unmark(text: &str, is_number: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for (index, piece) in text.split(MARK).enumerate() {
        if index % 2 == 0 {
            out.push_str(piece);
            continue;
        }
        let (spelling, name) = piece.split_at(piece.len().min(1));
        let digits = || format!("${{{name}//[!0123456789[:blank:]-]/.}}+0");
        match (is_number(name), spelling) {
            (true, " ") => out.push_str(name),
            (true, _) => out.push_str(&format!("${{{name}}}")),
            (false, "=") => out.push_str(&digits()),
            (false, _) => out.push_str(&format!("({})", digits())),
        }
    }
    out
}

fn binary_sign(op: Binary) -> &'static str {
    match op {
        Binary::Comma => ",",
        Binary::Power => "**",
        Binary::Multiply => "*",
        Binary::Divide => "/",
        Binary::Modulo => "%",
        Binary::Add => "+",
        Binary::Subtract => "-",
        Binary::ShiftLeft => "<<",
        Binary::ShiftRight => ">>",
        Binary::LessThan => "<",
        Binary::LessThanOrEqual => "<=",
        Binary::GreaterThan => ">",
        Binary::GreaterThanOrEqual => ">=",
        Binary::Equal => "==",
        Binary::NotEqual => "!=",
        Binary::BitwiseAnd => "&",
        Binary::BitwiseXor => "^",
        Binary::BitwiseOr => "|",
        Binary::LogicalAnd => "&&",
        Binary::LogicalOr => "||",
    }
}

fn assign_sign(op: Assign) -> &'static str {
    match op {
        Assign::Assign => "=",
        Assign::AddAssign => "+=",
        Assign::SubAssign => "-=",
        Assign::MulAssign => "*=",
        Assign::DivAssign => "/=",
        Assign::ModAssign => "%=",
        Assign::ShiftLeftAssign => "<<=",
        Assign::ShiftRightAssign => ">>=",
        Assign::AndAssign => "&=",
        Assign::XorAssign => "^=",
        Assign::OrAssign => "|=",
    }
}
