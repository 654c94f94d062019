//! The canonical printing of a literal line (point 5): every word quoted, so that
//! what a parser misread can only become inert text.

use shuck_ast::{
    BackgroundOperator, BinaryOp, BuiltinCommand, Command as Node, Redirect, RedirectKind, Stmt, StmtSeq,
    StmtTerminator, Word as WordNode,
};

use super::{Walk, is_absent, is_descriptor};
use crate::quote::single_quoted;
use crate::script::Script;

/// Prints a list of simple commands with only literal words, no assignments and
/// no file redirections; `None` for any other line.
pub(super) fn canonical(source: &str, body: &StmtSeq) -> Option<String> {
    let mut printer = Printer {
        walk: Walk { source, script: Script::default(), variables_read: false },
        out: String::new(),
    };
    for (index, stmt) in body.stmts.iter().enumerate() {
        if index > 0 {
            printer.out.push('\n');
        }
        printer.statement(stmt)?;
    }
    // A word the walk had doubts about is not literal.
    (printer.walk.script.refused.is_empty() && !printer.out.is_empty()).then_some(printer.out)
}

struct Printer<'a> {
    walk: Walk<'a>,
    out: String,
}

impl Printer<'_> {
    fn statement(&mut self, stmt: &Stmt) -> Option<()> {
        if stmt.negated {
            self.out.push_str("! ");
        }
        match &stmt.command {
            Node::Simple(simple) if simple.assignments.is_empty() && !is_absent(&simple.name) => {
                self.words(None, std::iter::once(&simple.name).chain(&simple.args))?;
            }
            Node::Builtin(BuiltinCommand::Exit(exit)) if exit.assignments.is_empty() => {
                self.words(Some("exit"), exit.code.iter().chain(&exit.extra_args))?;
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

    fn words<'w>(&mut self, first: Option<&str>, words: impl Iterator<Item = &'w WordNode>) -> Option<()> {
        let mut separator = "";
        if let Some(first) = first {
            self.out.push_str(&single_quoted(first));
            separator = " ";
        }
        for word in words {
            let value = self.walk.word(word).literal()?;
            self.out.push_str(separator);
            self.out.push_str(&single_quoted(&value));
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
