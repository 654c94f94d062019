//! Fields as what they must be.

use legwork_yaml::{Entry, Node, Value};

use super::{Defaults, Reader};
use crate::expression::{Condition, Template};
use crate::model::{Shell, minutes};
use crate::value::Item;

impl Reader {
    pub(super) fn text(&mut self, entry: &Entry, place: &str) -> Option<String> {
        match &entry.node.value {
            Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                Some(stringified(&entry.node))
            }
            Value::Null => None,
            other => {
                let text = format!("{place} must be text, not {}", other.kind());
                self.problem(entry.line, text);
                None
            }
        }
    }

    pub(super) fn texts(&mut self, entry: &Entry, place: &str) -> Vec<String> {
        match &entry.node.value {
            Value::Text(text) => vec![text.clone()],
            Value::List(list) if list.iter().all(|n| matches!(n.value, Value::Text(_))) => {
                list.iter().map(stringified).collect()
            }
            _ => {
                self.problem(entry.line, format!("{place} must be a text or a list of texts"));
                Vec::new()
            }
        }
    }

    pub(super) fn template(&mut self, line: u64, place: &str, text: &str) -> Template {
        Template::parse(text).unwrap_or_else(|error| {
            self.problem(line, format!("{place}: {error}"));
            Template::default()
        })
    }

    pub(super) fn text_template(&mut self, entry: &Entry, place: &str) -> Option<Template> {
        let text = self.text(entry, place)?;
        Some(self.template(entry.line, place, &text))
    }

    pub(super) fn condition(&mut self, entry: &Entry, place: &str) -> Option<Condition> {
        let text = self.text(entry, place)?;
        match Condition::parse(&text) {
            Ok(condition) => {
                if condition.is_text() {
                    let text = format!("{place}: text around '${{{{ }}}}' is always true, there as here");
                    self.note(entry.line, text);
                }
                Some(condition)
            }
            Err(error) => {
                self.problem(entry.line, format!("{place}: {error}"));
                None
            }
        }
    }

    pub(super) fn env(&mut self, entry: &Entry, place: &str) -> Vec<(String, Template)> {
        self.pairs(entry, place, true)
    }

    /// A dictionary of texts; of names of variables, if they are those.
    pub(super) fn pairs(&mut self, entry: &Entry, place: &str, are_names: bool) -> Vec<(String, Template)> {
        let Value::Map(fields) = &entry.node.value else {
            if entry.node.value != Value::Null {
                self.problem(entry.line, format!("{place} must be a dictionary"));
            }
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for field in fields {
            let here = format!("{place}.{}", field.key);
            if are_names && !is_name(&field.key) {
                self.problem(field.line, format!("{here}: no name of a variable"));
            }
            let template = self.template(field.line, &here, &stringified(&field.node));
            pairs.push((field.key.clone(), template));
        }
        pairs
    }

    pub(super) fn minutes(&mut self, entry: &Entry, place: &str) -> Option<Template> {
        if entry.node.value == Value::Null {
            return None;
        }
        let is_expression = matches!(&entry.node.value, Value::Text(text) if text.contains("${{"));
        if !is_expression
            && (minutes(&Item::of_node(&entry.node)).is_none() || matches!(entry.node.value, Value::Bool(_)))
        {
            self.problem(entry.line, format!("{place} must be a number of minutes above 0"));
        }
        Some(self.template(entry.line, place, &stringified(&entry.node)))
    }

    pub(super) fn flag(&mut self, entry: &Entry, place: &str) -> Option<Template> {
        match &entry.node.value {
            Value::Bool(_) => {}
            Value::Text(text) if text.contains("${{") || text == "true" || text == "false" => {}
            _ => self.problem(entry.line, format!("{place} must be true or false")),
        }
        Some(self.template(entry.line, place, &stringified(&entry.node)))
    }

    pub(super) fn shell(&mut self, entry: &Entry, place: &str) -> Option<Shell> {
        let text = self.text(entry, place)?;
        Shell::parse(&text).map_err(|error| self.problem(entry.line, format!("{place}: {error}"))).ok()
    }

    pub(super) fn defaults(&mut self, entry: &Entry, place: &str, above: &Defaults) -> Defaults {
        let mut defaults = above.clone();
        let Value::Map(fields) = &entry.node.value else {
            self.problem(entry.line, format!("{place} must be a dictionary with run"));
            return defaults;
        };
        for field in fields {
            if field.key != "run" {
                self.unknown(field.line, &format!("{place}."), &field.key, "it", &["run"]);
                continue;
            }
            let Value::Map(fields) = &field.node.value else { continue };
            for field in fields {
                let here = format!("{place}.run.{}", field.key);
                match field.key.as_str() {
                    "shell" => defaults.shell = self.shell(field, &here).or(defaults.shell),
                    "working-directory" => {
                        defaults.workdir = self.text_template(field, &here).or(defaults.workdir);
                    }
                    other => self.unknown(
                        field.line,
                        &format!("{place}.run."),
                        other,
                        "it",
                        &["shell", "working-directory"],
                    ),
                }
            }
        }
        defaults
    }
}

pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// A value as text.
pub(super) fn stringified(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => text.clone(),
        Value::Null => String::new(),
        _ => node.to_json().to_string(),
    }
}
