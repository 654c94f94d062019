//! Arithmetic: bash evaluates the text of variables in it, subscripts and
//! substitutions included, so only numbers may stand there (21).

use shuck_ast::Span;
use shuck_ast::{
    ArithmeticExpr, ArithmeticExprNode, ArithmeticLvalue, ArithmeticUnaryOp,
    BourneParameterExpansion as Bourne, ParameterExpansionSyntax, Word as WordNode, WordPart,
};

use super::{Walk, span_of};

const COMPUTED: &str = "bash evaluates computed text as arithmetic";

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
        match &node.kind {
            ArithmeticExpr::Number(text) => {
                let text = text.slice(self.source).to_owned();
                if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'#' | b'@' | b'_'))
                    || !text.starts_with(|c: char| c.is_ascii_digit())
                {
                    self.refuse(node.span, COMPUTED);
                }
            }
            ArithmeticExpr::Variable(name) => {
                self.script.evaluated.push((name.as_str().to_owned(), span_of(node.span)));
            }
            ArithmeticExpr::Indexed { index, .. } => {
                self.arithmetic(index);
                self.refuse(node.span, "arithmetic evaluates the text of an array's element");
            }
            ArithmeticExpr::ShellWord(word) => self.evaluated_word(word),
            ArithmeticExpr::Parenthesized { expression } => self.arithmetic(expression),
            ArithmeticExpr::Unary { op, expr } => {
                if matches!(op, ArithmeticUnaryOp::PreIncrement | ArithmeticUnaryOp::PreDecrement) {
                    self.counted(expr);
                }
                self.arithmetic(expr);
            }
            ArithmeticExpr::Postfix { expr, .. } => {
                self.counted(expr);
                self.arithmetic(expr);
            }
            ArithmeticExpr::Binary { left, right, .. } => {
                self.arithmetic(left);
                self.arithmetic(right);
            }
            ArithmeticExpr::Conditional { condition, then_expr, else_expr } => {
                self.arithmetic(condition);
                self.arithmetic(then_expr);
                self.arithmetic(else_expr);
            }
            ArithmeticExpr::Assignment { target, value, .. } => {
                match target {
                    ArithmeticLvalue::Variable(name) => self.assigned(name.as_str(), true, node.span),
                    ArithmeticLvalue::Indexed { index, .. } => {
                        self.arithmetic(index);
                        self.refuse(node.span, "arithmetic sets an array's element");
                    }
                }
                self.arithmetic(value);
            }
        }
    }

    fn counted(&mut self, expr: &ArithmeticExprNode) {
        if let ArithmeticExpr::Variable(name) = &expr.kind {
            self.assigned(name.as_str(), true, expr.span);
        }
    }

    /// A word whose value bash evaluates as arithmetic.
    pub(super) fn evaluated_word(&mut self, word: &WordNode) {
        let value = self.word(word);
        if value.is_numeric() {
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
                WordPart::Length(_) | WordPart::ArrayLength(_) => return,
                WordPart::Parameter(parameter) => match &parameter.syntax {
                    ParameterExpansionSyntax::Bourne(Bourne::Access { reference })
                        if reference.subscript.is_none() =>
                    {
                        Some(&reference.name)
                    }
                    ParameterExpansionSyntax::Bourne(Bourne::Length { .. }) => return,
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        match name {
            Some(name) => {
                self.script.evaluated.push((name.as_str().to_owned(), span_of(word.span)));
            }
            None => self.refuse(word.span, COMPUTED),
        }
    }
}
