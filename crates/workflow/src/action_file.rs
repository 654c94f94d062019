//! `action.yml`: what an action is.

use legwork_yaml::{Node, Value};

use crate::expression::Template;
use crate::model::{Input, Problem, Step};
use crate::read;

/// An action's file.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionFile {
    /// What people know it by.
    pub name: String,
    /// What may be given to it.
    pub inputs: Vec<Input>,
    /// What it leaves, where it is made of steps.
    pub outputs: Vec<(String, Template)>,
    /// What it does.
    pub using: Using,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq)]
pub enum Using {
    /// It runs steps.
    Composite(Vec<Step>),
    /// Node runs its files.
    Node {
        /// Before the steps of the job.
        pre: Option<String>,
        /// When its turn comes.
        main: String,
        /// When the job is over.
        post: Option<String>,
    },
}

impl ActionFile {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let one = |text: &str| vec![Problem::at(0, text)];
        let node = legwork_yaml::parse(text).map_err(|error| vec![Problem::at(0, error)])?;
        let runs = node.get("runs").ok_or_else(|| one("an action has 'runs'"))?;
        let word = |node: &Node, key: &str| match node.get(key).map(|node| &node.value) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let using = word(runs, "using").unwrap_or_default();
        let (using, outputs) = match using.as_str() {
            "composite" => {
                let (steps, outputs) = read::composite(&node, runs)?;
                (Using::Composite(steps), outputs)
            }
            "docker" => return Err(one("is an action of Docker, and needs a container engine")),
            node if node.starts_with("node") => {
                let main = word(runs, "main").ok_or_else(|| one("runs.main is missing"))?;
                (Using::Node { pre: word(runs, "pre"), main, post: word(runs, "post") }, Vec::new())
            }
            other => return Err(one(&format!("runs.using: '{other}' is none of composite, node20"))),
        };
        let name = word(&node, "name").unwrap_or_default();
        Ok(Self { name, inputs: read::inputs_of(node.get("inputs")), outputs, using })
    }
}
