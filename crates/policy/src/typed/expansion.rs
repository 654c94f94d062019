//! Parameter expansions: what they run, assign and evaluate, and how they are printed.

use shuck_ast::Span;
use shuck_ast::{
    ArithmeticExprNode, BourneParameterExpansion as Bourne, ParameterExpansion, ParameterExpansionSyntax,
    ParameterOp, VarRef, Word as WordNode, WordPart,
};

use super::{Walk, span_of};
use crate::printing::{Place, is_name, is_parameter};
use crate::quote::Value;

impl Walk<'_> {
    /// An expansion that is neither quoting nor a substitution of commands.
    pub(super) fn expansion(&mut self, part: &WordPart, span: Span, quoted: bool) -> Value {
        let text = self.text(span);
        if text.starts_with("${") && !text.ends_with('}') {
            self.refuse(span, "an expansion whose end can't be told");
        }
        match part {
            WordPart::Variable(name) => return self.plain(name.as_str(), span),
            WordPart::PrefixMatch { prefix, kind } => {
                self.prefix_match(prefix.as_str(), kind.as_char(), span)
            }
            WordPart::ArithmeticExpansion { expression_ast, expression, .. } => {
                self.out.push_str("$((");
                self.arithmetic_part(expression_ast.as_deref(), Some(expression.span()));
                self.out.push_str("))");
            }
            WordPart::Parameter(parameter) => {
                if let ParameterExpansionSyntax::Bourne(Bourne::Access { reference }) = &parameter.syntax
                    && reference.subscript.is_none()
                {
                    return self.plain(reference.name.as_str(), span);
                }
                let length =
                    matches!(&parameter.syntax, ParameterExpansionSyntax::Bourne(Bourne::Length { .. }));
                self.parameter(parameter, quoted);
                if length {
                    return Value::Number;
                }
            }
            WordPart::ParameterExpansion {
                reference,
                operator,
                operand,
                operand_word_ast,
                colon_variant,
            } => {
                let operand = (operand.as_deref().is_some(), operand_word_ast.as_deref());
                self.operation(reference, operator, operand, *colon_variant, (span, quoted));
            }
            WordPart::Length(reference) | WordPart::ArrayLength(reference) => {
                self.referenced("${#", reference, "}");
                return Value::Number;
            }
            WordPart::ArrayAccess(reference) => self.referenced("${", reference, "}"),
            WordPart::ArrayIndices(reference) => self.referenced("${!", reference, "}"),
            WordPart::Substring { reference, offset, offset_ast, length, length_ast, .. }
            | WordPart::ArraySlice { reference, offset, offset_ast, length, length_ast, .. } => {
                let length = length.as_deref().map(|length| (length_ast.as_deref(), length.span()));
                self.slice(reference, (offset_ast.as_deref(), offset.span()), length);
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
        Value::Unknown
    }

    /// `$x`, `${x}`.
    pub(super) fn plain(&mut self, name: &str, span: Span) -> Value {
        let text = self.text(span);
        let written =
            text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).or_else(|| text.strip_prefix('$'));
        if written != Some(name) {
            self.refuse(span, "not a bash expansion");
        }
        if text == "$$"
            && self.source.get(span_of(span).end..).is_some_and(|rest| rest.starts_with(['{', '(']))
        {
            self.refuse(span, "'$$' before a bracket is read in several ways; write ${$}");
        }
        self.variable(name, span);
        match name {
            "?" | "#" | "$" => Value::Number,
            _ => Value::Variable(name.to_owned()),
        }
    }

    fn variable(&mut self, name: &str, span: Span) {
        if !is_parameter(name) {
            self.refuse(span, "not a bash expansion");
        }
        self.out.push_str("${");
        self.out.push_str(name);
        self.out.push('}');
    }

    pub(super) fn parameter(&mut self, node: &ParameterExpansion, quoted: bool) {
        let ParameterExpansionSyntax::Bourne(syntax) = &node.syntax else {
            self.refuse(node.span, "not a bash expansion");
            return;
        };
        match syntax {
            Bourne::Access { reference } => self.referenced("${", reference, "}"),
            Bourne::Length { reference } => self.referenced("${#", reference, "}"),
            Bourne::Indices { reference } => self.referenced("${!", reference, "}"),
            Bourne::PrefixMatch { prefix, kind } => {
                self.prefix_match(prefix.as_str(), kind.as_char(), node.span)
            }
            Bourne::Indirect { .. } => {
                self.refuse(node.span, "an indirect expansion evaluates a name that is not in the line");
            }
            Bourne::Slice { reference, offset, offset_ast, length, length_ast, .. } => {
                let length = length.as_ref().map(|length| (length_ast.as_deref(), length.span()));
                self.slice(reference, (offset_ast.as_deref(), offset.span()), length);
            }
            Bourne::Operation { reference, operator, operand, operand_word_ast, colon_variant } => {
                let operand = (operand.is_some(), operand_word_ast.as_deref());
                self.operation(reference, operator, operand, *colon_variant, (node.span, quoted));
            }
            Bourne::Transformation { reference, operator } => {
                self.transformation(reference, *operator, node.span);
            }
        }
    }

    /// A name with its subscript, between two pieces of text.
    fn referenced(&mut self, before: &str, reference: &VarRef, after: &str) {
        let name = reference.name.as_str();
        if !is_parameter(name) || reference.subscript.is_some() && !is_name(name) {
            self.refuse(reference.span, "not a bash expansion");
        }
        self.out.push_str(before);
        self.out.push_str(name);
        if let Some(subscript) = &reference.subscript {
            self.subscript(name, subscript);
        }
        self.out.push_str(after);
    }

    fn prefix_match(&mut self, prefix: &str, kind: char, span: Span) {
        if !is_name(prefix) {
            self.refuse(span, "not a bash expansion");
        }
        self.out.push_str("${!");
        self.out.push_str(prefix);
        self.out.push(kind);
        self.out.push('}');
    }

    fn slice(
        &mut self,
        reference: &VarRef,
        offset: (Option<&ArithmeticExprNode>, Span),
        length: Option<(Option<&ArithmeticExprNode>, Span)>,
    ) {
        self.referenced("${", reference, ":(");
        if offset.0.is_none() {
            self.refuse(offset.1, "a part of a variable without a beginning");
        }
        self.arithmetic_part(offset.0, Some(offset.1));
        self.out.push(')');
        if let Some((ast, span)) = length {
            self.out.push_str(":(");
            self.arithmetic_part(ast, Some(span));
            self.out.push(')');
        }
        self.out.push('}');
    }

    fn operation(
        &mut self,
        reference: &VarRef,
        operator: &ParameterOp,
        (has_operand, operand): (bool, Option<&WordNode>),
        colon: bool,
        (span, quoted): (Span, bool),
    ) {
        self.referenced("${", reference, "");
        self.nested += 1;
        let sign = match operator {
            ParameterOp::UseDefault => "-",
            ParameterOp::AssignDefault => {
                self.assigned(reference.name.as_str(), false, span);
                "="
            }
            ParameterOp::UseReplacement => "+",
            ParameterOp::Error => "?",
            _ => {
                self.transforming(operator, has_operand, (span, quoted));
                self.nested -= 1;
                return;
            }
        };
        if colon {
            self.out.push(':');
        }
        self.out.push_str(sign);
        match operand {
            Some(word) => self.operand(word, quoted),
            None if has_operand && self.text(span).ends_with(&format!("{sign}}}")) => {}
            None if has_operand => self.refuse(span, "an operand that could not be parsed"),
            None => {}
        }
        self.nested -= 1;
        self.out.push('}');
    }

    /// What follows the name where the operator takes a pattern or nothing.
    fn transforming(&mut self, operator: &ParameterOp, has_operand: bool, (span, quoted): (Span, bool)) {
        let (sign, pattern) = match operator {
            ParameterOp::RemovePrefixShort { pattern } => ("#", Some(pattern)),
            ParameterOp::RemovePrefixLong { pattern } => ("##", Some(pattern)),
            ParameterOp::RemoveSuffixShort { pattern } => ("%", Some(pattern)),
            ParameterOp::RemoveSuffixLong { pattern } => ("%%", Some(pattern)),
            ParameterOp::ReplaceFirst { pattern, .. } => ("/", Some(pattern)),
            ParameterOp::ReplaceAll { pattern, .. } => ("//", Some(pattern)),
            ParameterOp::UpperFirst => ("^", None),
            ParameterOp::UpperAll => ("^^", None),
            ParameterOp::LowerFirst => (",", None),
            ParameterOp::LowerAll => (",,", None),
            ParameterOp::UseDefault
            | ParameterOp::AssignDefault
            | ParameterOp::UseReplacement
            | ParameterOp::Error => ("", None),
        };
        self.out.push_str(sign);
        if sign.is_empty() || pattern.is_none() && has_operand {
            self.refuse(span, "a pattern for a change of case");
        }
        if let Some(pattern) = pattern {
            let text = self.text(pattern.span);
            if quoted && text.contains('\\') && text.contains(['(', '`']) {
                self.refuse(span, "a backslash in a substitution within \"${…}\"");
            }
            // `${x/#a/b}`: at the beginning, `${x/%a/b}`: at the end.
            let anchor =
                self.text(pattern.span).chars().next().filter(|c| sign == "/" && matches!(c, '#' | '%'));
            self.pattern(pattern, Place::Stripped, anchor.is_some());
        }
        if let ParameterOp::ReplaceFirst { replacement_word_ast, .. }
        | ParameterOp::ReplaceAll { replacement_word_ast, .. } = operator
        {
            self.out.push('/');
            self.replacement(replacement_word_ast, quoted);
        }
        self.out.push('}');
    }

    /// What a match is replaced by. Quotes quote here, within double quotes as well.
    fn replacement(&mut self, node: &WordNode, quoted: bool) {
        let mut pieces = Vec::with_capacity(node.parts.len());
        for part in &node.parts {
            if quoted && matches!(part.kind, WordPart::SingleQuoted { dollar: true, .. }) {
                self.refuse(part.span, "$'…' within \"${…}\" is expanded again");
            }
            self.part(part, false, &mut pieces);
        }
        self.print_within(&pieces, Place::Replacement, node.span);
    }

    fn transformation(&mut self, reference: &VarRef, operator: char, span: Span) {
        self.referenced("${", reference, "@");
        self.out.push(operator);
        self.out.push('}');
        if !matches!(operator, 'U' | 'u' | 'L' | 'Q' | 'E') {
            self.refuse(span, format!("the transformation @{operator} evaluates a variable's text"));
        }
    }
}
