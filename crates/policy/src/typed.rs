//! The walk over the typed tree: finds every command, redirection, assignment and
//! evaluated text of a line, and prints back what it found as it goes. A node kind that
//! is not named here is refused.

mod arithmetic;
mod assignment;
mod compound;
mod expansion;
mod redirect;
mod test;
mod word;

use std::collections::BTreeSet;

use shuck_ast::{
    BackgroundOperator, BinaryCommand, BinaryOp, BuiltinCommand, Command as Node, DeclClause, DeclOperand,
    FunctionDef, SimpleCommand, Stmt, StmtSeq, StmtTerminator, Word as WordNode,
};
use shuck_parser::parser::{ParseStatus, Parser};

use crate::printing::{Place, is_function_name};
use crate::script::{Assignment, Command, Frag, Refused, Script, Word};
use crate::verdict::Span;

pub(crate) use redirect::is_descriptor;

/// Parses a line and lists what it would do. With `gate`, each program that the line
/// starts is judged when it starts, so what bash computes may be printed in a form in
/// which it can do nothing else.
pub(crate) fn parse(line: &str, gate: bool) -> Result<Script, String> {
    parse_at(line, gate, 0)
}

/// The same, for text that stands within `depth` others.
fn parse_at(line: &str, gate: bool, depth: usize) -> Result<Script, String> {
    let result = Parser::new(line).parse();
    if result.status != ParseStatus::Clean {
        let cause =
            result.diagnostics.first().map_or_else(|| "syntax error".to_owned(), |d| d.message.to_string());
        return Err(cause);
    }
    let mut walk = Walk {
        source: line,
        script: Script { plain: true, ..Script::default() },
        out: String::with_capacity(line.len() + line.len() / 2 + 16),
        variables_read: false,
        gate,
        level: 0,
        maps: BTreeSet::new(),
        operand: Operand::default(),
        group: 0,
        nested: 0,
        depth,
        reads_files: false,
        output_from: None,
    };
    walk.top_level(&result.file.body);
    if depth > 0 {
        walk.script.unfinished = walk.out.clone();
    }
    walk.check_evaluated();
    if let Some(span) = walk.output_from.filter(|_| walk.reads_files) {
        walk.refuse(span, "output may go to a file that is read");
    }
    walk.script.printed = std::mem::take(&mut walk.out);
    walk.script.sets_from_data = walk.variables_read;
    Ok(walk.script)
}

struct Walk<'a> {
    source: &'a str,
    script: Script,
    /// The printing, as far as it has come.
    out: String,
    /// A builtin sets variables from data, so none is surely a number.
    variables_read: bool,
    gate: bool,
    /// How many constructs stand around; 0 where a statement surely runs.
    level: usize,
    /// Associative arrays: their subscripts are text, not arithmetic.
    maps: BTreeSet<String>,
    operand: Operand,
    /// How many expansions with an operand stand around.
    nested: usize,
    /// How many texts stand around this one.
    depth: usize,
    /// How many double quotes were seen.
    group: usize,
    /// Some redirection opens a file for reading.
    reads_files: bool,
    /// Where output goes to a descriptor that is none of those for output.
    output_from: Option<shuck_ast::Span>,
}

/// What stands within `"${x:-…}"`, the outermost one.
#[derive(Default)]
struct Operand {
    depth: usize,
    /// A byte above 0x7f, or a backslash, that was printed there.
    high: bool,
    escaped: bool,
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

    /// Does something whose printing is wanted by itself.
    fn apart(&mut self, work: impl FnOnce(&mut Self)) -> String {
        let before = std::mem::take(&mut self.out);
        work(self);
        std::mem::replace(&mut self.out, before)
    }

    /// The statements of a line: those that are no list of others surely run, in order.
    fn top_level(&mut self, seq: &StmtSeq) {
        self.sequence(seq, 0);
    }

    /// The statements of a construct.
    fn statements(&mut self, seq: &StmtSeq) {
        self.script.plain = false;
        let (operand, nested) = (std::mem::take(&mut self.operand), std::mem::take(&mut self.nested));
        self.sequence(seq, 1);
        (self.operand, self.nested) = (operand, nested);
    }

    fn sequence(&mut self, seq: &StmtSeq, deeper: usize) {
        self.level += deeper;
        for (index, stmt) in seq.stmts.iter().enumerate() {
            self.statement(stmt);
            let next = seq.stmts.get(index + 1);
            match stmt.terminator {
                Some(StmtTerminator::Background(BackgroundOperator::Plain)) => {
                    self.out.push_str(" &");
                    let newline = next.is_some_and(|next| {
                        let between = span_of(stmt.span).end..span_of(next.span).start;
                        self.source.get(between).is_none_or(|text| text.contains('\n'))
                    });
                    if next.is_some() {
                        self.out.push(if newline { '\n' } else { ' ' });
                    }
                }
                Some(StmtTerminator::Background(_)) => self.refuse(stmt.span, "not bash"),
                Some(StmtTerminator::Semicolon) if next.is_some() => self.out.push_str("; "),
                None if next.is_some() => self.out.push('\n'),
                Some(StmtTerminator::Semicolon) | None => {}
            }
        }
        self.level -= deeper;
    }

    /// A part of a construct that must hold statements, and the word that ends it.
    fn block(&mut self, seq: &StmtSeq, end: &str) {
        if seq.stmts.is_empty() {
            self.refuse(seq.span, "a construct without a command in it");
        }
        self.statements(seq);
        self.out.push_str(if self.out.ends_with('&') { " " } else { "; " });
        self.out.push_str(end);
    }

    fn statement(&mut self, stmt: &Stmt) {
        if stmt.negated {
            self.out.push_str("! ");
            let after = self.text(stmt.span).strip_prefix('!').unwrap_or_default();
            if after[..after.len() - after.trim_start().len()].contains('\n') {
                self.refuse(stmt.span, "a '!' with nothing after it on its line");
            }
        }
        let background = matches!(stmt.terminator, Some(StmtTerminator::Background(_)));
        self.level += usize::from(background);
        match &stmt.command {
            Node::Simple(simple) => self.simple(simple, !stmt.redirects.is_empty()),
            Node::Builtin(builtin) => self.builtin(builtin),
            Node::Decl(decl) => self.declaration(decl),
            Node::Binary(binary) => {
                if !stmt.redirects.is_empty() {
                    self.refuse(stmt.span, "a redirection of a list");
                }
                self.binary(binary);
            }
            Node::Compound(compound) => {
                self.script.plain = false;
                self.compound(compound, stmt.span);
            }
            Node::Function(function) => {
                self.script.plain = false;
                self.function(function);
            }
            Node::AnonymousFunction(function) => {
                self.refuse(function.span, "not bash: an anonymous function");
                self.statement(&function.body);
            }
        }
        for redirect in &stmt.redirects {
            if !self.out.is_empty() && !self.out.ends_with([' ', '\n', '(']) {
                self.out.push(' ');
            }
            self.redirect(redirect);
        }
        self.level -= usize::from(background);
    }

    fn simple(&mut self, simple: &SimpleCommand, redirected: bool) {
        let mut separator = "";
        let mut computed = false;
        let start = self.out.len();
        for assignment in &simple.assignments {
            self.script.plain = false;
            self.out.push_str(separator);
            let found = self.assignment(assignment);
            self.script.pending.push(found);
            separator = " ";
        }
        let mut words = Vec::with_capacity(simple.args.len() + 1);
        if !is_absent(&simple.name) {
            self.out.push_str(separator);
            let at = self.out.len();
            let name = self.word_at(&simple.name, Place::Command);
            if self.gate && name.literal().is_none() {
                // Never a builtin: only a program, whose start is judged.
                self.out.insert_str(at, "exec -- ");
                computed = true;
            }
            words.push(name);
            for word in &simple.args {
                self.out.push(' ');
                words.push(self.word(word));
            }
        } else if simple.assignments.is_empty() && !redirected || !simple.args.is_empty() {
            self.refuse(simple.span, "a command without a name");
        }
        if computed {
            self.out.insert_str(start, "( ");
            self.out.push_str(" )");
        }
        self.command(words, simple.span);
    }

    fn builtin(&mut self, builtin: &BuiltinCommand) {
        let (name, first, rest, assignments, span) = match builtin {
            BuiltinCommand::Break(c) => ("break", &c.depth, &c.extra_args, &c.assignments, c.span),
            BuiltinCommand::Continue(c) => ("continue", &c.depth, &c.extra_args, &c.assignments, c.span),
            BuiltinCommand::Return(c) => ("return", &c.code, &c.extra_args, &c.assignments, c.span),
            BuiltinCommand::Exit(c) => ("exit", &c.code, &c.extra_args, &c.assignments, c.span),
        };
        self.prefixes(assignments);
        self.out.push('\'');
        self.out.push_str(name);
        self.out.push('\'');
        let mut words = vec![Word::of(name)];
        for word in first.iter().chain(rest) {
            self.out.push(' ');
            words.push(self.word(word));
        }
        self.command(words, span);
    }

    /// Assignments before a builtin, each with a blank after it.
    fn prefixes(&mut self, assignments: &[shuck_ast::Assignment]) {
        for assignment in assignments {
            self.script.plain = false;
            let found = self.assignment(assignment);
            self.script.pending.push(found);
            self.out.push(' ');
        }
    }

    /// `export`, `declare` and their like: bare, for bash reads their words as assignments.
    fn declaration(&mut self, decl: &DeclClause) {
        self.script.plain = false;
        let name = decl.variant.as_str();
        if !matches!(name, "declare" | "typeset" | "local" | "export" | "readonly") {
            self.refuse(decl.span, "not bash");
        }
        self.prefixes(&decl.assignments);
        self.out.push_str(name);
        let mut words = vec![Word::of(name)];
        self.declared_maps(decl);
        for operand in &decl.operands {
            self.out.push(' ');
            words.push(match operand {
                // Bare, for bash reads what follows by it.
                DeclOperand::Flag(word) if is_flag(self.text(word.span)) => {
                    let text = self.text(word.span);
                    self.out.push_str(text);
                    Word::of(text)
                }
                DeclOperand::Flag(word) | DeclOperand::Dynamic(word) => self.word(word),
                DeclOperand::Name(reference) => {
                    let raw = self.text(reference.span).to_owned();
                    if reference.subscript.is_some() || !crate::printing::is_name(&raw) {
                        self.refuse(reference.span, "a declaration of an array's element");
                    }
                    self.out.push_str(&raw);
                    Word { frags: vec![Frag::Lit(raw.clone())], raw }
                }
                DeclOperand::Assignment(assignment) => self.declared(assignment),
            });
        }
        self.variables_read |= decl.operands.iter().any(|o| matches!(o, DeclOperand::Dynamic(_)));
        self.command(words, decl.span);
    }

    fn binary(&mut self, binary: &BinaryCommand) {
        let is_list = |stmt: &Stmt| matches!(&stmt.command, Node::Binary(b) if matches!(b.op, BinaryOp::And | BinaryOp::Or));
        let pipe = matches!(binary.op, BinaryOp::Pipe | BinaryOp::PipeAll);
        if binary.left.terminator.is_some()
            || binary.right.terminator.is_some()
            || is_list(&binary.right)
            || pipe && (is_list(&binary.left) || binary.right.negated)
        {
            self.refuse(binary.span, "a list that can't be printed back");
        }
        self.level += 1;
        self.statement(&binary.left);
        self.out.push_str(match binary.op {
            BinaryOp::And => " && ",
            BinaryOp::Or => " || ",
            BinaryOp::Pipe => " | ",
            BinaryOp::PipeAll => " |& ",
        });
        self.statement(&binary.right);
        self.level -= 1;
    }

    fn function(&mut self, function: &FunctionDef) {
        match function.header.entries.as_slice() {
            [entry] => match &entry.static_name {
                Some(name) if is_function_name(name.as_str()) => {
                    self.out.push_str(name.as_str());
                    self.script.functions.insert(name.as_str().to_owned());
                }
                _ => self.refuse(function.span, "a function's name must be one literal word"),
            },
            _ => self.refuse(function.span, "a function's name must be one literal word"),
        }
        self.out.push_str("() ");
        if !matches!(function.body.command, Node::Compound(_)) {
            self.refuse(function.span, "a function without a body in braces");
        }
        self.level += 1;
        self.statement(&function.body);
        self.level -= 1;
    }

    /// Takes note of a simple command, whose prefixes were found before.
    fn command(&mut self, words: Vec<Word>, span: shuck_ast::Span) {
        let prefixes = std::mem::take(&mut self.script.pending);
        if words.is_empty() {
            self.script.assignments.extend(prefixes);
            return;
        }
        const SETS_FROM_DATA: &[&str] = &[
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
        self.variables_read |= SETS_FROM_DATA.contains(&name) || printf_sets;
        self.script.plain &= words.iter().all(|w| w.literal().is_some());
        self.script.commands.push(Command { words, prefixes, span: self.trimmed(span) });
    }

    /// A command's span without the blanks and the operator the parser counts in.
    fn trimmed(&self, span: shuck_ast::Span) -> Span {
        let Span { start, end } = span_of(span);
        let text = self.source.get(start..end).unwrap_or_default();
        let kept = text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|'));
        Span { start, end: start + kept.len() }
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
}

/// `-A`, `+x`.
fn is_flag(text: &str) -> bool {
    text.strip_prefix(['-', '+']).is_some_and(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphabetic()))
}

/// A command that is only assignments or redirections has an empty name.
fn is_absent(name: &WordNode) -> bool {
    let Span { start, end } = span_of(name.span);
    start == end
}
