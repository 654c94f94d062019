//! Assignments: what they set, to what, and how they are printed.

use shuck_ast::{ArrayElem, AssignmentValue, DeclClause, DeclOperand};

use super::{Walk, span_of};
use crate::printing::is_name;
use crate::quote::{Piece, Quoting, read_literal};
use crate::script::{Assignment, Frag, Word};

impl Walk<'_> {
    /// An assignment before a command or by itself.
    pub(super) fn assignment(&mut self, node: &shuck_ast::Assignment) -> Assignment {
        let name = node.target.name.as_str().to_owned();
        if !is_name(&name) {
            self.refuse(node.span, "an assignment to what is no name");
        }
        self.out.push_str(&name);
        if let Some(subscript) = &node.target.subscript {
            self.subscript(&name, subscript);
        }
        self.out.push_str(if node.append { "+=" } else { "=" });
        let value = self.assigned_value(&name, &node.value);
        let numeric = !node.append && value.as_ref().is_some_and(Word::is_numeric)
            || value.as_ref().is_some_and(|v| v.frags.len() == 1) && is_arithmetic(node);
        // An element does not say what the name by itself is.
        let value = value.filter(|_| node.target.subscript.is_none());
        Assignment { name, value, append: node.append, numeric, span: span_of(node.span) }
    }

    fn assigned_value(&mut self, name: &str, value: &AssignmentValue) -> Option<Word> {
        let array = match value {
            AssignmentValue::Scalar(word) => {
                // A value that is absent is printed as nothing, not as quotes.
                let word = if word.parts.is_empty() { Word::of("") } else { self.word(word) };
                return Some(word);
            }
            AssignmentValue::Compound(array) => array,
        };
        self.out.push('(');
        let from = self.out.len();
        for (index, element) in array.elements.iter().enumerate() {
            if index > 0 {
                self.out.push(' ');
            }
            if let ArrayElem::Keyed { key, .. } | ArrayElem::KeyedAppend { key, .. } = element {
                self.subscript(name, key);
                let append = matches!(element, ArrayElem::KeyedAppend { .. });
                self.out.push_str(if append { "+=" } else { "=" });
            }
            self.word(&element.value().word);
        }
        let keyed = array.elements.iter().any(|e| !matches!(e, ArrayElem::Sequential(_)));
        let text = self.text(array.span).trim_start_matches('(').trim_end_matches(')');
        if text.contains(['\'', '"', '\\', '$', '`', '{']) && !keyed && !self.reads_as(text, from) {
            self.refuse(array.span, "an array whose words can't be told apart surely; write it more plainly");
        }
        self.out.push(')');
        None
    }

    /// Whether text is printed as what stands from `from` on, if it is read as the words of a
    /// command.
    fn reads_as(&self, text: &str, from: usize) -> bool {
        // A comment would end the command.
        if text.contains('#') && text.contains('\n') || self.depth > 4 {
            return false;
        }
        let line = format!(": {}", text.replace('\n', " "));
        let printed = &self.out[from..];
        super::parse_at(&line, self.gate, self.depth + 1).is_ok_and(|other| {
            other.unfinished.strip_prefix("':'").is_some_and(|other| other.trim_start() == printed)
        })
    }

    /// `export NAME=VALUE` as the word it is to the command.
    pub(super) fn declared(&mut self, node: &shuck_ast::Assignment) -> Word {
        let map = self.maps.contains(node.target.name.as_str());
        if matches!(node.value, AssignmentValue::Compound(_)) && !map || node.target.subscript.is_some() {
            self.refuse(node.span, "an array in a declaration");
        }
        let assignment = self.assignment(node);
        let sign = if node.append { "+=" } else { "=" };
        let mut frags = vec![Frag::Lit(format!("{}{sign}", assignment.name))];
        match &assignment.value {
            Some(value) => {
                for frag in &value.frags {
                    match (frags.last_mut(), frag) {
                        (Some(Frag::Lit(head)), Frag::Lit(text)) => head.push_str(text),
                        _ => frags.push(frag.clone()),
                    }
                }
            }
            None => frags.push(self.array_text(node)),
        }
        let raw = self.text(node.span).to_owned();
        self.script.assignments.push(assignment);
        Word { frags, raw }
    }

    /// An array's text as a part of the word that it is to the command.
    fn array_text(&self, node: &shuck_ast::Assignment) -> Frag {
        let text = self.text(node.span).split_once('=').map_or("", |(_, value)| value);
        let (mut state, mut pieces) = (Quoting::None, Vec::new());
        if text.contains(['$', '`']) || read_literal(text, &mut state, &mut pieces).is_err() {
            return Frag::Unknown { quoted: true };
        }
        let texts = pieces.iter().map(|piece| match piece {
            Piece::Text { text, .. } => text.as_str(),
            Piece::Expansion(_) => "",
        });
        Frag::Lit(texts.collect())
    }

    /// Names that `declare -A` makes associative arrays: only where it surely runs, and
    /// before anything else is known of them.
    pub(super) fn declared_maps(&mut self, decl: &DeclClause) {
        let flag = |operand: &DeclOperand| match operand {
            DeclOperand::Flag(word) => self.text(word.span) == "-A",
            _ => false,
        };
        let names: Vec<String> = decl
            .operands
            .iter()
            .filter_map(|operand| match operand {
                DeclOperand::Name(reference) => Some(reference.name.as_str().to_owned()),
                DeclOperand::Assignment(assignment) => Some(assignment.target.name.as_str().to_owned()),
                _ => None,
            })
            .collect();
        let makes = decl.variant.as_str() == "declare"
            && self.level == 0
            && decl.operands.first().is_some_and(flag)
            && decl.operands.len() == names.len() + 1;
        for name in names {
            let known = self.script.assignments.iter().any(|a| a.name == name);
            if makes && !known && !self.variables_read {
                self.maps.insert(name);
            } else {
                self.maps.remove(&name);
            }
        }
    }
}

/// Whether an assigned value is one `$((…))`, which is a number.
fn is_arithmetic(node: &shuck_ast::Assignment) -> bool {
    let AssignmentValue::Scalar(word) = &node.value else { return false };
    !node.append
        && matches!(
            word.parts.as_slice(),
            [part] if matches!(part.kind, shuck_ast::WordPart::ArithmeticExpansion { .. })
        )
}
