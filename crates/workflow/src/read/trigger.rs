//! `on`: nothing starts here by itself, but it says what may be given to a workflow.

use legwork_yaml::{Entry, Node, Value};

use super::{Reader, input};
use crate::model::{Input, Workflow};

/// What a map of inputs describes.
pub(crate) fn inputs_of(node: Option<&Node>) -> Vec<Input> {
    match node.map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().map(|entry| input(&entry.key, &entry.node)).collect(),
        _ => Vec::new(),
    }
}

impl Reader {
    pub(super) fn trigger(&mut self, entry: &Entry, workflow: &mut Workflow) {
        match &entry.node.value {
            Value::Text(event) => workflow.events.push(event.clone()),
            Value::List(list) => workflow.events.extend(list.iter().map(super::fields::stringified)),
            Value::Map(events) => {
                for event in events {
                    workflow.events.push(event.key.clone());
                    for input in inputs_of(event.node.get("inputs")) {
                        if !workflow.inputs.iter().any(|known| known.name == input.name) {
                            workflow.inputs.push(input);
                        }
                    }
                    if event.key == "workflow_call" {
                        workflow.outputs =
                            self.values_of(event.node.get("outputs"), "on.workflow_call.outputs");
                    }
                }
            }
            Value::Null => {}
            _ => self.problem(entry.line, "on must be an event, a list or a dictionary of events".into()),
        }
    }
}
