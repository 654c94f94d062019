//! Parameter expansions: what they run, assign and evaluate.

use shuck_ast::Span;
use shuck_ast::{
    BourneParameterExpansion as Bourne, ParameterExpansion, ParameterExpansionSyntax, ParameterOp, VarRef,
    Word as WordNode, WordPart,
};

use super::Walk;

impl Walk<'_> {
    /// An expansion that is neither quoting nor a substitution of commands.
    pub(super) fn expansion(&mut self, part: &WordPart, span: Span) {
        match part {
            WordPart::Variable(_) | WordPart::PrefixMatch { .. } => {}
            WordPart::ArithmeticExpansion { expression_ast, expression, .. } => {
                self.arithmetic_part(expression_ast.as_deref(), Some(expression.span()));
            }
            WordPart::Parameter(parameter) => self.parameter(parameter),
            WordPart::ParameterExpansion { reference, operator, operand_word_ast, .. } => {
                self.operation(reference, operator, operand_word_ast.as_deref(), span);
            }
            WordPart::Length(reference)
            | WordPart::ArrayAccess(reference)
            | WordPart::ArrayLength(reference)
            | WordPart::ArrayIndices(reference) => self.reference(reference),
            WordPart::Substring { reference, offset, offset_ast, length, length_ast, .. }
            | WordPart::ArraySlice { reference, offset, offset_ast, length, length_ast, .. } => {
                self.reference(reference);
                self.arithmetic_part(offset_ast.as_deref(), Some(offset.span()));
                if let Some(length) = length {
                    self.arithmetic_part(length_ast.as_deref(), Some(length.span()));
                }
            }
            WordPart::IndirectExpansion { .. } => {
                self.refuse(span, "an indirect expansion evaluates a name that is not in the line");
            }
            WordPart::Transformation { reference, operator } => {
                self.transformation(reference, *operator, span);
            }
            WordPart::ZshQualifiedGlob(_)
            | WordPart::Literal(_)
            | WordPart::SingleQuoted { .. }
            | WordPart::DoubleQuoted { .. }
            | WordPart::CommandSubstitution { .. }
            | WordPart::ProcessSubstitution { .. } => self.refuse(span, "an unknown expansion"),
        }
    }

    pub(super) fn parameter(&mut self, node: &ParameterExpansion) {
        let ParameterExpansionSyntax::Bourne(syntax) = &node.syntax else {
            self.refuse(node.span, "not a bash expansion");
            return;
        };
        match syntax {
            Bourne::Access { reference } | Bourne::Length { reference } | Bourne::Indices { reference } => {
                self.reference(reference);
            }
            Bourne::PrefixMatch { .. } => {}
            Bourne::Indirect { .. } => {
                self.refuse(node.span, "an indirect expansion evaluates a name that is not in the line");
            }
            Bourne::Slice { reference, offset, offset_ast, length, length_ast, .. } => {
                self.reference(reference);
                self.arithmetic_part(offset_ast.as_deref(), Some(offset.span()));
                if let Some(length) = length {
                    self.arithmetic_part(length_ast.as_deref(), Some(length.span()));
                }
            }
            Bourne::Operation { reference, operator, operand_word_ast, .. } => {
                self.operation(reference, operator, operand_word_ast.as_deref(), node.span);
            }
            Bourne::Transformation { reference, operator } => {
                self.transformation(reference, *operator, node.span);
            }
        }
    }

    fn reference(&mut self, reference: &VarRef) {
        if let Some(subscript) = &reference.subscript {
            self.subscript(subscript);
        }
    }

    fn operation(
        &mut self,
        reference: &VarRef,
        operator: &ParameterOp,
        operand: Option<&WordNode>,
        span: Span,
    ) {
        self.reference(reference);
        if let Some(word) = operand {
            self.word(word);
        }
        match operator {
            ParameterOp::AssignDefault => self.assigned(reference.name.as_str(), false, span),
            ParameterOp::RemovePrefixShort { pattern }
            | ParameterOp::RemovePrefixLong { pattern }
            | ParameterOp::RemoveSuffixShort { pattern }
            | ParameterOp::RemoveSuffixLong { pattern } => self.pattern(pattern),
            ParameterOp::ReplaceFirst { pattern, replacement_word_ast, .. }
            | ParameterOp::ReplaceAll { pattern, replacement_word_ast, .. } => {
                self.pattern(pattern);
                self.word(replacement_word_ast);
            }
            ParameterOp::UseDefault
            | ParameterOp::UseReplacement
            | ParameterOp::Error
            | ParameterOp::UpperFirst
            | ParameterOp::UpperAll
            | ParameterOp::LowerFirst
            | ParameterOp::LowerAll => {}
        }
    }

    fn transformation(&mut self, reference: &VarRef, operator: char, span: Span) {
        self.reference(reference);
        if !matches!(operator, 'U' | 'u' | 'L' | 'Q' | 'E') {
            self.refuse(span, format!("the transformation @{operator} evaluates a variable's text"));
        }
    }
}
