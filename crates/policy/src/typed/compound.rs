//! Loops, conditions, groups.

use shuck_ast::{
    CaseCommand, CaseTerminator, CompoundCommand, CoprocCommand, ForCommand, ForSyntax, IfSyntax, Span,
};

use super::Walk;
use crate::printing::{Place, is_name};
use crate::script::{Assignment, Word, list_signature};

/// The longest list of a loop whose words are remembered as the values of its variable.
const MAX_VALUES: usize = 64;

impl Walk<'_> {
    pub(super) fn compound(&mut self, compound: &CompoundCommand, span: Span) {
        match compound {
            CompoundCommand::If(node) => {
                if !matches!(node.syntax, IfSyntax::ThenFi { .. }) {
                    self.refuse(node.span, "not bash: an if without then");
                }
                self.out.push_str("if ");
                self.block(&node.condition, "then ");
                let elifs = &node.elif_branches;
                let end = |more: bool| match (more, node.else_branch.is_some()) {
                    (true, _) => "elif ",
                    (false, true) => "else ",
                    (false, false) => "fi",
                };
                self.block(&node.then_branch, end(!elifs.is_empty()));
                for (index, (condition, branch)) in elifs.iter().enumerate() {
                    self.block(condition, "then ");
                    self.block(branch, end(index + 1 < elifs.len()));
                }
                if let Some(branch) = &node.else_branch {
                    self.block(branch, "fi");
                }
            }
            CompoundCommand::For(node) => self.for_loop(node),
            CompoundCommand::Select(node) => {
                self.loop_variable("select ", node.variable.as_str(), node.span);
                self.out.push_str(" in");
                let words: Vec<Word> = node.words.iter().map(|word| self.listed(word)).collect();
                self.script.lists.push(list_signature(&words));
                self.assigned(node.variable.as_str(), false, node.variable_span);
                self.out.push_str("; do ");
                self.block(&node.body, "done");
            }
            CompoundCommand::ArithmeticFor(node) => {
                self.out.push_str("for ((");
                for (index, (ast, part)) in [
                    (&node.init_ast, node.init_span),
                    (&node.condition_ast, node.condition_span),
                    (&node.step_ast, node.step_span),
                ]
                .into_iter()
                .enumerate()
                {
                    if index > 0 {
                        self.out.push(';');
                    }
                    self.arithmetic_part(ast.as_ref(), part);
                }
                self.out.push_str(")); do ");
                self.block(&node.body, "done");
            }
            CompoundCommand::While(node) => {
                self.out.push_str("while ");
                self.block(&node.condition, "do ");
                self.block(&node.body, "done");
            }
            CompoundCommand::Until(node) => {
                self.out.push_str("until ");
                self.block(&node.condition, "do ");
                self.block(&node.body, "done");
            }
            CompoundCommand::Case(node) => self.case(node),
            CompoundCommand::Subshell(body) => {
                self.out.push_str("( ");
                self.block(body, ")");
            }
            CompoundCommand::BraceGroup(body) => {
                self.out.push_str("{ ");
                self.block(body, "}");
            }
            CompoundCommand::Arithmetic(node) => {
                self.out.push_str("((");
                self.arithmetic_part(node.expr_ast.as_ref(), node.expr_span);
                self.out.push_str("))");
            }
            CompoundCommand::Time(node) => {
                self.out.push_str(if node.posix_format { "time -p " } else { "time " });
                match &node.command {
                    Some(command) => {
                        if command.terminator.is_some() {
                            self.refuse(node.span, "a list that can't be printed back");
                        }
                        self.level += 1;
                        self.statement(command);
                        self.level -= 1;
                    }
                    None => self.refuse(node.span, "nothing to time"),
                }
            }
            CompoundCommand::Conditional(node) => self.test(node),
            CompoundCommand::Coproc(node) => self.coproc(node),
            CompoundCommand::Repeat(_) | CompoundCommand::Foreach(_) | CompoundCommand::Always(_) => {
                self.refuse(span, "not bash");
            }
        }
    }

    fn loop_variable(&mut self, keyword: &str, name: &str, span: Span) {
        if !is_name(name) {
            self.refuse(span, "a loop variable that is no name");
        }
        self.out.push_str(keyword);
        self.out.push_str(name);
    }

    /// A word of a loop's list.
    fn listed(&mut self, word: &shuck_ast::Word) -> Word {
        self.out.push(' ');
        self.word(word)
    }

    fn for_loop(&mut self, node: &ForCommand) {
        if !matches!(node.syntax, ForSyntax::InDoDone { .. }) {
            self.refuse(node.span, "not bash: a for without do");
        }
        let [target] = node.targets.as_slice() else {
            return self.refuse(node.span, "not bash: a for with several variables");
        };
        let Some(name) = target.name.as_ref().map(|name| name.as_str().to_owned()) else {
            return self.refuse(target.span, "a computed loop variable");
        };
        self.loop_variable("for ", &name, node.span);
        match &node.words {
            None => self.assigned(&name, false, target.span),
            Some(nodes) => {
                self.out.push_str(" in");
                let words: Vec<Word> = nodes.iter().map(|word| self.listed(word)).collect();
                self.script.lists.push(list_signature(&words));
                self.loop_values(&name, words, super::span_of(target.span));
            }
        }
        self.out.push_str("; do ");
        self.block(&node.body, "done");
    }

    /// The loop's variable is set to each of its words.
    fn loop_values(&mut self, name: &str, words: Vec<Word>, span: crate::verdict::Span) {
        let numeric = words.iter().all(Word::is_numeric);
        let known =
            words.len() <= MAX_VALUES && !words.is_empty() && words.iter().all(|w| w.literal().is_some());
        let set =
            |value: Option<Word>| Assignment { name: name.to_owned(), value, append: false, numeric, span };
        if known {
            self.script.assignments.extend(words.into_iter().map(|word| set(Some(word))));
        } else {
            self.script.assignments.push(set(None));
        }
    }

    fn case(&mut self, node: &CaseCommand) {
        self.out.push_str("case ");
        self.word(&node.word);
        self.out.push_str(" in");
        for item in &node.cases {
            self.out.push_str(" (");
            for (index, pattern) in item.patterns.iter().enumerate() {
                if index > 0 {
                    self.out.push('|');
                }
                self.pattern(pattern, Place::Pattern, false);
            }
            self.out.push_str(") ");
            self.statements(&item.body);
            let end = match item.terminator {
                CaseTerminator::Break => " ;;",
                CaseTerminator::FallThrough => " ;&",
                CaseTerminator::Continue => " ;;&",
                CaseTerminator::ContinueMatching => {
                    self.refuse(node.span, "not bash");
                    " ;;"
                }
            };
            self.out.push_str(end);
        }
        self.out.push_str(" esac");
    }

    fn coproc(&mut self, node: &CoprocCommand) {
        let name = node.name.as_str();
        self.assigned(name, false, node.name_span.unwrap_or(node.span));
        self.out.push_str("coproc ");
        let compound = matches!(node.body.command, shuck_ast::Command::Compound(_));
        if node.name_span.is_some() && (!compound || !is_name(name)) || node.body.terminator.is_some() {
            self.refuse(node.span, "a coprocess that can't be printed back");
        }
        if node.name_span.is_some() {
            self.out.push_str(name);
            self.out.push(' ');
        }
        self.level += 1;
        self.statement(&node.body);
        self.level -= 1;
    }
}
