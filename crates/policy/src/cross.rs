//! The second opinion: the same line through an independent parser. Only what it
//! sees is collected here; the judge compares (docs/policy.md, "Two parsers").

use rable::ast::NodeKind;
use rable::{Node, parse};

use crate::quote::{self, Expansion, Piece, Quoting, Value};
use crate::script::{Word, list_signature, redirect_signature, signature};
use crate::typed::is_descriptor;

/// Every command and file redirection of a line, as [`crate::script::Script::signature`]
/// lists them.
pub(crate) fn commands(line: &str) -> Result<Vec<String>, String> {
    let nodes = parse(line, false).map_err(|e| e.to_string())?;
    let mut seen = Seen { found: Vec::new() };
    for node in &nodes {
        seen.node(node)?;
    }
    seen.found.sort_unstable();
    Ok(seen.found)
}

struct Seen {
    found: Vec<String>,
}

type Walked = Result<(), String>;

impl Seen {
    fn nodes<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Node>) -> Walked {
        nodes.into_iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Node) -> Walked {
        match &node.kind {
            NodeKind::Command { assignments, words, redirects } => {
                self.command(assignments, words, redirects)
            }
            NodeKind::Pipeline { commands, .. } => self.nodes(commands),
            NodeKind::List { items } => self.nodes(items.iter().map(|i| &i.command)),
            NodeKind::If { condition, then_body, else_body, redirects } => {
                self.node(condition)?;
                self.node(then_body)?;
                self.nodes(else_body.as_deref())?;
                self.redirects(redirects)
            }
            NodeKind::While { condition, body, redirects }
            | NodeKind::Until { condition, body, redirects } => {
                self.node(condition)?;
                self.node(body)?;
                self.redirects(redirects)
            }
            NodeKind::For { words, body, redirects, .. }
            | NodeKind::Select { words, body, redirects, .. } => {
                if let Some(words) = words {
                    let words = words.iter().map(|w| self.word(w)).collect::<Result<Vec<_>, _>>()?;
                    self.found.push(list_signature(&words));
                }
                self.node(body)?;
                self.redirects(redirects)
            }
            NodeKind::ForArith { body, redirects, .. } => {
                self.node(body)?;
                self.redirects(redirects)
            }
            NodeKind::Case { word, patterns, redirects } => {
                self.word(word)?;
                for item in patterns {
                    for pattern in &item.patterns {
                        self.raw(&text_of(pattern))?;
                    }
                    self.nodes(&item.body)?;
                }
                self.redirects(redirects)
            }
            NodeKind::Function { body, .. } => self.node(body),
            NodeKind::Subshell { body, redirects } | NodeKind::BraceGroup { body, redirects } => {
                self.node(body)?;
                self.redirects(redirects)
            }
            NodeKind::Coproc { command, .. } => self.node(command),
            NodeKind::Negation { pipeline } | NodeKind::Time { pipeline, .. } => self.node(pipeline),
            // Substitutions in arithmetic are refused by the typed walk.
            NodeKind::ArithmeticCommand { redirects, .. } => self.redirects(redirects),
            NodeKind::ConditionalExpr { body, redirects } => {
                self.test(body)?;
                self.redirects(redirects)
            }
            NodeKind::Empty | NodeKind::Comment { .. } => Ok(()),
            _ => Err("an unknown construct".into()),
        }
    }

    fn command(&mut self, assignments: &[Node], words: &[Node], redirects: &[Node]) -> Walked {
        let mut names = Vec::new();
        for assignment in assignments {
            let text = text_of(assignment);
            let end = text.find(['=', '[', '+']).unwrap_or(text.len());
            names.push(text[..end].to_owned());
            self.assigned(assignment)?;
        }
        let words = words.iter().map(|w| self.word(w)).collect::<Result<Vec<_>, _>>()?;
        if !words.is_empty() {
            self.found.push(signature(names.iter().map(String::as_str), &words));
        }
        self.redirects(redirects)
    }

    /// What an assignment's value runs; array syntax is no word, so quotes and
    /// blanks in it are not looked at.
    fn assigned(&mut self, node: &Node) -> Walked {
        let NodeKind::Word { parts, .. } = &node.kind else { return Err("an unusual assignment".into()) };
        parts.iter().try_for_each(|part| match &part.kind {
            NodeKind::WordLiteral { .. } | NodeKind::AnsiCQuote { .. } => Ok(()),
            _ => self.part(part, Quoting::None).map(|_| ()),
        })
    }

    fn word(&mut self, node: &Node) -> Result<Word, String> {
        let NodeKind::Word { parts, .. } = &node.kind else { return Err("an unusual word".into()) };
        let mut pieces = Vec::new();
        let mut state = Quoting::None;
        for part in parts {
            match &part.kind {
                NodeKind::WordLiteral { value } => quote::read_literal(value, &mut state, &mut pieces)?,
                NodeKind::BraceExpansion { content } if !content.contains(['$', '`']) => {
                    quote::read_literal(content, &mut state, &mut pieces)?;
                }
                NodeKind::AnsiCQuote { decoded, .. } => quote::push(&mut pieces, decoded, true),
                _ => {
                    let piece = self.part(part, state)?;
                    pieces.push(piece);
                }
            }
        }
        if state != Quoting::None {
            return Err("an unclosed quote".into());
        }
        // How it was written is known to the other parser's walk.
        Ok(Word::from_pieces(&pieces, ""))
    }

    fn part(&mut self, part: &Node, state: Quoting) -> Result<Piece, String> {
        match &part.kind {
            NodeKind::ParamExpansion { arg, .. } | NodeKind::ParamIndirect { arg, .. } => {
                self.raw(arg.as_deref().unwrap_or_default())?;
            }
            NodeKind::ParamLength { .. } | NodeKind::ArithmeticExpansion { .. } => {}
            NodeKind::CommandSubstitution { command, .. } | NodeKind::ProcessSubstitution { command, .. } => {
                self.node(command)?;
            }
            _ => return Err("an unknown expansion".into()),
        }
        let quoted = state == Quoting::Double;
        Ok(Piece::Expansion(Expansion { quoted, group: 0, value: Value::Unknown, printed: String::new() }))
    }

    /// Text the parser leaves raw: what it substitutes is found by parsing it as
    /// words. Text that can't be read so is no agreement.
    fn raw(&mut self, text: &str) -> Walked {
        if !["$", "`", "<(", ">("].iter().any(|s| text.contains(s)) {
            return Ok(());
        }
        let nodes = parse(&format!(": {text}"), false).map_err(|e| e.to_string())?;
        let [Node { kind: NodeKind::Command { assignments, words, redirects }, .. }] = nodes.as_slice()
        else {
            return Err("an expansion that can't be read alone".into());
        };
        if !assignments.is_empty() || !redirects.is_empty() {
            return Err("an expansion that can't be read alone".into());
        }
        words.iter().try_for_each(|word| self.word(word).map(|_| ()))
    }

    fn test(&mut self, node: &Node) -> Walked {
        match &node.kind {
            NodeKind::UnaryTest { operand, .. } | NodeKind::CondNot { operand } => self.test(operand),
            NodeKind::BinaryTest { left, right, .. }
            | NodeKind::CondAnd { left, right }
            | NodeKind::CondOr { left, right } => {
                self.test(left)?;
                self.test(right)
            }
            NodeKind::CondParen { inner } => self.test(inner),
            NodeKind::CondTerm { value, .. } => self.raw(value),
            _ => Err("an unknown test".into()),
        }
    }

    fn redirects(&mut self, nodes: &[Node]) -> Walked {
        for node in nodes {
            match &node.kind {
                NodeKind::HereDoc { content, quoted, .. } => {
                    if !quoted {
                        self.raw(&as_double_quoted(content))?;
                    }
                }
                NodeKind::Redirect { op, target, .. } => {
                    let target = self.word(target)?.signature();
                    let operator = match op.as_str() {
                        ">&-" | "<&-" => continue,
                        ">&" | "<&" if is_descriptor(&target) => continue,
                        "<&" => "<",
                        other => other,
                    };
                    self.found.push(redirect_signature(operator, &target));
                }
                _ => return Err("an unknown redirection".into()),
            }
        }
        Ok(())
    }
}

fn text_of(node: &Node) -> String {
    match &node.kind {
        NodeKind::Word { value, .. } => value.clone(),
        _ => String::new(),
    }
}

/// A here-document's body as a double-quoted word: the quotes of its text are
/// plain characters, those inside its substitutions are not.
fn as_double_quoted(body: &str) -> String {
    let mut out = String::from("\"");
    let mut depth = 0usize;
    let mut previous = ' ';
    for c in body.chars() {
        match c {
            '(' if depth > 0 || previous == '$' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '"' if depth == 0 => out.push('\\'),
            _ => {}
        }
        out.push(c);
        previous = c;
    }
    out.push('"');
    out
}
