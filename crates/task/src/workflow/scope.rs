//! What steps see of what was before them.

use std::collections::BTreeMap;

use legwork_proto::task::StepState;
use legwork_workflow::{Lookup, Template};

use crate::journal::Left;

/// How a step or job ended, and what it left.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    pub(super) outcome: String,
    pub(super) conclusion: String,
    pub(super) outputs: BTreeMap<String, String>,
}

/// The word for it in expressions.
pub(super) fn word(state: StepState) -> &'static str {
    match state {
        StepState::Success => "success",
        StepState::Failure | StepState::Error => "failure",
    }
}

/// A job's view of things.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub(super) env: BTreeMap<String, String>,
    /// Put before PATH, the last one first.
    path: Vec<String>,
    steps: BTreeMap<String, Past>,
    pub(super) needs: BTreeMap<String, Past>,
    pub(super) has_failed: bool,
}

impl Scope {
    /// Sets variables in their order; each may use those before it.
    pub(super) fn set(&mut self, env: &[(String, Template)]) {
        for (name, template) in env {
            let value = template.fill(self);
            self.env.insert(name.clone(), value);
        }
    }

    /// Takes in what a step left.
    pub(super) fn take(&mut self, id: Option<&str>, outcome: StepState, state: StepState, left: &Left) {
        self.env.extend(left.env.clone());
        self.path.extend(left.path.iter().cloned());
        if let Some(id) = id {
            let past = Past {
                outcome: word(outcome).into(),
                conclusion: word(state).into(),
                outputs: left.outputs.clone(),
            };
            self.steps.insert(id.to_owned(), past);
        }
        self.has_failed |= state != StepState::Success;
    }

    /// A step that did not run.
    pub(super) fn skip(&mut self, id: Option<&str>) {
        if let Some(id) = id {
            let past = Past { outcome: "skipped".into(), conclusion: "skipped".into(), ..Past::default() };
            self.steps.insert(id.to_owned(), past);
        }
    }

    /// The variables of a program.
    pub(super) fn variables(&self, inherited: Option<&str>) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        if !self.path.is_empty() {
            let usual = env.get("PATH").map(String::as_str).or(inherited).unwrap_or_default();
            let path: Vec<&str> = self.path.iter().rev().map(String::as_str).chain([usual]).collect();
            env.insert("PATH".into(), path.join(":"));
        }
        env
    }
}

impl Lookup for Scope {
    fn is_good(&self) -> bool {
        !self.has_failed
    }

    fn find(&self, path: &[String]) -> Option<String> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match names[..] {
            ["env", name] => self.env.get(name).cloned(),
            ["steps", id, "outputs", name] => self.steps.get(id)?.outputs.get(name).cloned(),
            ["steps", id, "outcome"] => Some(self.steps.get(id)?.outcome.clone()),
            ["steps", id, "conclusion"] => Some(self.steps.get(id)?.conclusion.clone()),
            ["needs", id, "outputs", name] => self.needs.get(id)?.outputs.get(name).cloned(),
            ["needs", id, "result"] => Some(self.needs.get(id)?.conclusion.clone()),
            _ => None,
        }
    }
}
