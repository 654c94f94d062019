//! The canonical printing of a literal line (point 5): every word quoted, so that
//! what a parser misread can only become inert text.

use shuck_ast::{
    BackgroundOperator, BinaryOp, BuiltinCommand, Command as Node, Redirect, RedirectKind, Stmt, StmtSeq,
    StmtTerminator,
};

use super::{Walk, is_absent, is_descriptor};
use crate::quote::{push_single_quoted, single_quoted};
use crate::script::{Command, Script};

/// Prints a list of simple commands with only literal words, no assignments and
/// no file redirections; `None` for any other line.
pub(super) fn canonical(source: &str, body: &StmtSeq, script: &Script) -> Option<String> {
    // A word the walk had doubts about is not literal.
    if !script.refused.is_empty() || !script.assignments.is_empty() {
        return None;
    }
    let mut printer = Printer {
        walk: Walk { source, script: Script::default(), variables_read: false },
        commands: script.commands.iter(),
        out: String::with_capacity(source.len() + 32),
    };
    for (index, stmt) in body.stmts.iter().enumerate() {
        if index > 0 {
            printer.out.push('\n');
        }
        printer.statement(stmt)?;
    }
    (!printer.out.is_empty()).then_some(printer.out)
}

struct Printer<'a> {
    walk: Walk<'a>,
    /// What the walk found, in the order of the line. A list of simple commands with
    /// literal words has none but those that are printed.
    commands: std::slice::Iter<'a, Command>,
    out: String,
}

impl Printer<'_> {
    fn statement(&mut self, stmt: &Stmt) -> Option<()> {
        if stmt.negated {
            self.out.push_str("! ");
        }
        match &stmt.command {
            Node::Simple(simple) if simple.assignments.is_empty() && !is_absent(&simple.name) => {
                self.words(1 + simple.args.len())?;
            }
            Node::Builtin(BuiltinCommand::Exit(exit)) if exit.assignments.is_empty() => {
                self.words(1 + usize::from(exit.code.is_some()) + exit.extra_args.len())?;
            }
            Node::Binary(binary) if stmt.redirects.is_empty() => {
                self.statement(&binary.left)?;
                self.out.push_str(match binary.op {
                    BinaryOp::And => " && ",
                    BinaryOp::Or => " || ",
                    BinaryOp::Pipe => " | ",
                    BinaryOp::PipeAll => " |& ",
                });
                self.statement(&binary.right)?;
            }
            _ => return None,
        }
        for redirect in &stmt.redirects {
            self.redirect(redirect)?;
        }
        match stmt.terminator {
            Some(StmtTerminator::Background(BackgroundOperator::Plain)) => self.out.push_str(" &"),
            Some(StmtTerminator::Background(_)) => return None,
            Some(StmtTerminator::Semicolon) | None => {}
        }
        Some(())
    }

    /// Prints the next command, which must have so many words.
    fn words(&mut self, count: usize) -> Option<()> {
        let command = self.commands.next()?;
        if command.words.len() != count || !command.prefixes.is_empty() {
            return None;
        }
        let mut separator = "";
        for word in &command.words {
            self.out.push_str(separator);
            push_single_quoted(&mut self.out, word.run()?);
            separator = " ";
        }
        Some(())
    }

    fn redirect(&mut self, redirect: &Redirect) -> Option<()> {
        if redirect.fd_var.is_some() {
            return None;
        }
        let target = self.walk.word(redirect.word_target()?).literal()?;
        let operator = match redirect.kind {
            RedirectKind::DupOutput if is_descriptor(&target) => ">&",
            RedirectKind::Output if target == "/dev/null" => ">",
            RedirectKind::Append if target == "/dev/null" => ">>",
            RedirectKind::Input if target == "/dev/null" => "<",
            _ => return None,
        };
        let fd = redirect.fd.map(|fd| fd.to_string()).unwrap_or_default();
        self.out.push_str(&format!(
            " {fd}{operator}{}",
            if operator == ">&" { target } else { single_quoted(&target) }
        ));
        Some(())
    }
}
