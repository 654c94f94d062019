//! The walk over the typed tree: finds every command, redirection, assignment
//! and evaluated text of a line. A node kind that is not named here is refused.

mod arithmetic;
mod expansion;
mod printing;
mod word;

use shuck_ast::{
    AssignmentValue, BuiltinCommand, Command as Node, CompoundCommand, ConditionalBinaryOp, ConditionalExpr,
    ConditionalUnaryOp, DeclOperand, ForSyntax, IfSyntax, Pattern, PatternPart, Redirect as RedirectNode,
    RedirectKind, RedirectTarget, Stmt, StmtSeq, Subscript, Word as WordNode,
};
use shuck_parser::parser::{ParseStatus, Parser};

use crate::names::is_numeric_by_itself;
use crate::script::{Assignment, Command, Frag, Redirect, RedirectUse, Refused, Script, Word};
use crate::verdict::Span;

/// Parses a line and lists what it would do.
pub(crate) fn parse(line: &str) -> Result<Script, String> {
    let result = Parser::new(line).parse();
    if result.status != ParseStatus::Clean {
        let cause =
            result.diagnostics.first().map_or_else(|| "syntax error".to_owned(), |d| d.message.to_string());
        return Err(cause);
    }
    let mut walk = Walk { source: line, script: Script::default(), variables_read: false };
    walk.statements(&result.file.body);
    walk.check_evaluated();
    walk.script.canonical = printing::canonical(line, &result.file.body, &walk.script);
    Ok(walk.script)
}

struct Walk<'a> {
    source: &'a str,
    script: Script,
    /// A builtin sets variables from data, so none is surely a number.
    variables_read: bool,
}

fn span_of(span: shuck_ast::Span) -> Span {
    Span { start: span.start.offset(), end: span.end.offset() }
}

impl<'a> Walk<'a> {
    fn text(&self, span: shuck_ast::Span) -> &'a str {
        let Span { start, end } = span_of(span);
        self.source.get(start..end).unwrap_or_default()
    }

    fn refuse(&mut self, span: shuck_ast::Span, reason: impl Into<String>) {
        let text = self.text(span).trim().to_owned();
        self.script.refused.push(Refused { text, reason: reason.into(), span: span_of(span) });
    }

    fn statements(&mut self, seq: &StmtSeq) {
        for stmt in &seq.stmts {
            self.statement(stmt);
        }
    }

    fn statement(&mut self, stmt: &Stmt) {
        for redirect in &stmt.redirects {
            self.redirect(redirect);
        }
        match &stmt.command {
            Node::Simple(simple) => {
                let mut words = Vec::new();
                if !is_absent(&simple.name) {
                    words.push(self.word(&simple.name));
                }
                words.extend(simple.args.iter().map(|w| self.word(w)).collect::<Vec<_>>());
                self.command(words, &simple.assignments, simple.span);
            }
            Node::Builtin(builtin) => {
                let (name, first, rest, assignments, span) = match builtin {
                    BuiltinCommand::Break(c) => ("break", &c.depth, &c.extra_args, &c.assignments, c.span),
                    BuiltinCommand::Continue(c) => {
                        ("continue", &c.depth, &c.extra_args, &c.assignments, c.span)
                    }
                    BuiltinCommand::Return(c) => ("return", &c.code, &c.extra_args, &c.assignments, c.span),
                    BuiltinCommand::Exit(c) => ("exit", &c.code, &c.extra_args, &c.assignments, c.span),
                };
                let mut words = vec![Word { frags: vec![Frag::Lit(name.into())], raw: name.into() }];
                words.extend(first.iter().chain(rest).map(|w| self.word(w)).collect::<Vec<_>>());
                self.command(words, assignments, span);
            }
            Node::Decl(decl) => {
                let name = decl.variant.as_str();
                let mut words = vec![Word { frags: vec![Frag::Lit(name.into())], raw: name.into() }];
                for operand in &decl.operands {
                    words.push(match operand {
                        DeclOperand::Flag(word) | DeclOperand::Dynamic(word) => self.word(word),
                        DeclOperand::Name(reference) => {
                            let raw = self.text(reference.span).to_owned();
                            Word { frags: vec![Frag::Lit(raw.clone())], raw }
                        }
                        DeclOperand::Assignment(assignment) => self.declared(assignment),
                    });
                }
                self.variables_read |= decl.operands.iter().any(|o| matches!(o, DeclOperand::Dynamic(_)));
                self.command(words, &decl.assignments, decl.span);
            }
            Node::Binary(binary) => {
                self.statement(&binary.left);
                self.statement(&binary.right);
            }
            Node::Compound(compound) => self.compound(compound, stmt.span),
            Node::Function(function) => {
                if function.header.entries.len() != 1
                    || function.header.entries.iter().any(|e| e.static_name.is_none())
                {
                    self.refuse(function.span, "a function's name must be one literal word");
                }
                self.statement(&function.body);
            }
            Node::AnonymousFunction(function) => {
                self.refuse(function.span, "not bash: an anonymous function");
                self.statement(&function.body);
            }
        }
    }

    fn command(&mut self, words: Vec<Word>, assignments: &[shuck_ast::Assignment], span: shuck_ast::Span) {
        let prefixes: Vec<Assignment> = assignments.iter().map(|a| self.assignment(a)).collect();
        if words.is_empty() {
            self.script.assignments.extend(prefixes);
            return;
        }
        let sets_from_data = [
            "read",
            "mapfile",
            "readarray",
            "getopts",
            "eval",
            "source",
            ".",
            "local",
            "unset",
            "command",
            "builtin",
            "trap",
            "wait",
        ];
        let name = words[0].run().unwrap_or_default();
        let printf_sets = name == "printf"
            && words.get(1).is_some_and(|w| w.literal_head().starts_with("-v") || w.literal().is_none());
        self.variables_read |= sets_from_data.contains(&name) || printf_sets;
        self.script.commands.push(Command { words, prefixes, span: self.trimmed(span) });
    }

    /// A command's span without the blanks and the operator the parser counts in.
    fn trimmed(&self, span: shuck_ast::Span) -> Span {
        let Span { start, end } = span_of(span);
        let text = self.source.get(start..end).unwrap_or_default();
        let kept = text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|'));
        Span { start, end: start + kept.len() }
    }

    fn assignment(&mut self, node: &shuck_ast::Assignment) -> Assignment {
        if let Some(subscript) = &node.target.subscript {
            self.subscript(subscript);
        }
        let value = match &node.value {
            AssignmentValue::Scalar(word) => Some(self.word(word)),
            AssignmentValue::Compound(array) => {
                for element in &array.elements {
                    use shuck_ast::ArrayElem;
                    if let ArrayElem::Keyed { key, .. } | ArrayElem::KeyedAppend { key, .. } = element {
                        self.subscript(key);
                    }
                    self.word(&element.value().word);
                }
                None
            }
        };
        let numeric = !node.append && value.as_ref().is_some_and(Word::is_numeric)
            || value.as_ref().is_some_and(|v| v.frags.len() == 1) && self.is_arithmetic(node);
        Assignment {
            name: node.target.name.as_str().to_owned(),
            value,
            append: node.append,
            numeric,
            span: span_of(node.span),
        }
    }

    /// Whether an assigned value is one `$((…))`, which is a number.
    fn is_arithmetic(&self, node: &shuck_ast::Assignment) -> bool {
        let AssignmentValue::Scalar(word) = &node.value else { return false };
        !node.append
            && matches!(
                word.parts.as_slice(),
                [part] if matches!(part.kind, shuck_ast::WordPart::ArithmeticExpansion { .. })
            )
    }

    /// `export NAME=VALUE` as the word it is to the command.
    fn declared(&mut self, node: &shuck_ast::Assignment) -> Word {
        if matches!(node.value, AssignmentValue::Compound(_)) || node.target.subscript.is_some() {
            self.refuse(node.span, "an array in a declaration");
        }
        let assignment = self.assignment(node);
        let sign = if node.append { "+=" } else { "=" };
        let mut frags = vec![Frag::Lit(format!("{}{sign}", assignment.name))];
        if let Some(value) = &assignment.value {
            for frag in &value.frags {
                match (frags.last_mut(), frag) {
                    (Some(Frag::Lit(head)), Frag::Lit(text)) => head.push_str(text),
                    _ => frags.push(frag.clone()),
                }
            }
        }
        let raw = self.text(node.span).to_owned();
        self.script.assignments.push(assignment);
        Word { frags, raw }
    }

    fn compound(&mut self, compound: &CompoundCommand, span: shuck_ast::Span) {
        match compound {
            CompoundCommand::If(node) => {
                if !matches!(node.syntax, IfSyntax::ThenFi { .. }) {
                    self.refuse(node.span, "not bash: an if without then");
                }
                self.statements(&node.condition);
                self.statements(&node.then_branch);
                for (condition, branch) in &node.elif_branches {
                    self.statements(condition);
                    self.statements(branch);
                }
                if let Some(branch) = &node.else_branch {
                    self.statements(branch);
                }
            }
            CompoundCommand::For(node) => {
                if !matches!(node.syntax, ForSyntax::InDoDone { .. }) {
                    self.refuse(node.span, "not bash: a for without do");
                }
                let words: Option<Vec<Word>> =
                    node.words.as_ref().map(|words| words.iter().map(|w| self.word(w)).collect());
                let numeric = words.is_some_and(|words| words.iter().all(Word::is_numeric));
                for target in &node.targets {
                    match &target.name {
                        Some(name) => self.assigned(name.as_str(), numeric, target.span),
                        None => self.refuse(target.span, "a computed loop variable"),
                    }
                }
                self.statements(&node.body);
            }
            CompoundCommand::Select(node) => {
                for word in &node.words {
                    self.word(word);
                }
                self.assigned(node.variable.as_str(), false, node.variable_span);
                self.statements(&node.body);
            }
            CompoundCommand::ArithmeticFor(node) => {
                for (ast, part) in [
                    (&node.init_ast, node.init_span),
                    (&node.condition_ast, node.condition_span),
                    (&node.step_ast, node.step_span),
                ] {
                    self.arithmetic_part(ast.as_ref(), part);
                }
                self.statements(&node.body);
            }
            CompoundCommand::While(node) => {
                self.statements(&node.condition);
                self.statements(&node.body);
            }
            CompoundCommand::Until(node) => {
                self.statements(&node.condition);
                self.statements(&node.body);
            }
            CompoundCommand::Case(node) => {
                self.word(&node.word);
                for item in &node.cases {
                    for pattern in &item.patterns {
                        self.pattern(pattern);
                    }
                    self.statements(&item.body);
                }
            }
            CompoundCommand::Subshell(body) | CompoundCommand::BraceGroup(body) => self.statements(body),
            CompoundCommand::Arithmetic(node) => self.arithmetic_part(node.expr_ast.as_ref(), node.expr_span),
            CompoundCommand::Time(node) => {
                if let Some(command) = &node.command {
                    self.statement(command);
                }
            }
            CompoundCommand::Conditional(node) => self.conditional(&node.expression),
            CompoundCommand::Coproc(node) => {
                self.assigned(node.name.as_str(), false, node.name_span.unwrap_or(node.span));
                self.statement(&node.body);
            }
            CompoundCommand::Repeat(_) | CompoundCommand::Foreach(_) | CompoundCommand::Always(_) => {
                self.refuse(span, "not bash");
            }
        }
    }

    fn assigned(&mut self, name: &str, numeric: bool, span: shuck_ast::Span) {
        self.script.assignments.push(Assignment {
            name: name.to_owned(),
            value: None,
            append: false,
            numeric,
            span: span_of(span),
        });
    }

    fn redirect(&mut self, node: &RedirectNode) {
        if let Some(name) = &node.fd_var {
            self.assigned(name.as_str(), true, node.fd_var_span.unwrap_or(node.span));
        }
        let target = match &node.target {
            RedirectTarget::Word(word) => Some(self.word(word)),
            RedirectTarget::Heredoc(heredoc) => {
                self.heredoc(&heredoc.body);
                None
            }
        };
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
            RedirectKind::HereDoc | RedirectKind::HereDocStrip | RedirectKind::HereString => {
                ("<<", RedirectUse::Inert)
            }
        };
        self.script.redirects.push(Redirect { operator, usage, target, span: span_of(node.span) });
    }

    fn conditional(&mut self, expression: &ConditionalExpr) {
        match expression {
            ConditionalExpr::Binary(node) => {
                use ConditionalBinaryOp as Op;
                if matches!(
                    node.op,
                    Op::ArithmeticEq
                        | Op::ArithmeticNe
                        | Op::ArithmeticLe
                        | Op::ArithmeticGe
                        | Op::ArithmeticLt
                        | Op::ArithmeticGt
                ) {
                    self.arithmetic_operand(&node.left);
                    self.arithmetic_operand(&node.right);
                } else {
                    self.conditional(&node.left);
                    self.conditional(&node.right);
                }
            }
            ConditionalExpr::Unary(node) => {
                if matches!(node.op, ConditionalUnaryOp::VariableSet | ConditionalUnaryOp::ReferenceVariable)
                    && !self.text(node.expr.span()).bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                {
                    self.refuse(expression.span(), "-v evaluates its operand as an array subscript");
                }
                self.conditional(&node.expr);
            }
            ConditionalExpr::Parenthesized(node) => self.conditional(&node.expr),
            ConditionalExpr::Word(word) | ConditionalExpr::Regex(word) => {
                self.word(word);
            }
            ConditionalExpr::Pattern(pattern) => self.pattern(pattern),
            ConditionalExpr::VarRef(reference) => {
                if let Some(subscript) = &reference.subscript {
                    self.subscript(subscript);
                }
            }
        }
    }

    fn pattern(&mut self, pattern: &Pattern) {
        for part in &pattern.parts {
            match &part.kind {
                PatternPart::Literal(_) | PatternPart::AnyString | PatternPart::AnyChar => {}
                PatternPart::CharClass(_) => {
                    if self.text(part.span).contains(['$', '`']) {
                        self.refuse(part.span, "an expansion in a character class");
                    }
                }
                PatternPart::Group { patterns, .. } => {
                    for inner in patterns {
                        self.pattern(inner);
                    }
                }
                PatternPart::Word(word) => {
                    self.word(word);
                }
            }
        }
    }

    fn subscript(&mut self, subscript: &Subscript) {
        if subscript.is_array_selector() {
            return;
        }
        match &subscript.arithmetic_ast {
            Some(node) => {
                self.arithmetic(node);
            }
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

    /// Variables in arithmetic must be numbers, or bash evaluates their text (21).
    fn check_evaluated(&mut self) {
        for (name, span) in std::mem::take(&mut self.script.evaluated) {
            let mut set = self
                .script
                .assignments
                .iter()
                .chain(self.script.commands.iter().flat_map(|c| &c.prefixes))
                .filter(|a| a.name == name)
                .peekable();
            let is_set = set.peek().is_some();
            let numeric = set.all(|a| a.numeric);
            let safe = if is_set { numeric } else { is_numeric_by_itself(&name) };
            if !safe || self.variables_read && !is_numeric_by_itself(&name) {
                self.script.refused.push(Refused {
                    text: name.clone(),
                    reason: format!(
                        "arithmetic evaluates the text of '{name}'; it must be set to a number in this line"
                    ),
                    span,
                });
            }
        }
    }

    /// An operand of `-eq` and its like.
    fn arithmetic_operand(&mut self, expression: &ConditionalExpr) {
        if let ConditionalExpr::Word(word) = expression {
            self.evaluated_word(word);
        } else {
            self.conditional(expression);
            self.refuse(expression.span(), "bash evaluates this text as arithmetic");
        }
    }

    fn word(&mut self, node: &WordNode) -> Word {
        let mut pieces = Vec::new();
        for part in &node.parts {
            self.part(part, false, &mut pieces);
        }
        Word::from_pieces(&pieces, self.text(node.span))
    }
}

/// A command that is only assignments or redirections has an empty name.
fn is_absent(name: &WordNode) -> bool {
    let Span { start, end } = span_of(name.span);
    start == end
}

/// Whether a redirection's target names a descriptor: `1`, `-`, `3-`.
pub(crate) fn is_descriptor(text: &str) -> bool {
    let digits = text.strip_suffix('-').unwrap_or(text);
    // With a zero before it the parsers disagree on what is printed back.
    let plain = digits.len() < 2 || !digits.starts_with('0');
    plain && !text.is_empty() && digits.len() < 5 && digits.bytes().all(|b| b.is_ascii_digit())
}
