//! Workflows: steps, in jobs that need one another (docs/protocols/task.md §10, docs/task.md).

mod expression;
mod files;
mod lines;
mod read;
mod run;
mod scope;
mod step;

use std::time::Duration;

use legwork_yaml::{Node, Value};

use crate::config::{Agent, Rules};
use expression::{Condition, Template};
pub(crate) use run::{World, run};

/// What a workflow is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    /// In the order in which they run one after the other.
    pub(crate) jobs: Vec<Job>,
    /// For all steps.
    env: Vec<(String, Template)>,
    /// Jobs that run side by side.
    pub(crate) parallel: usize,
    /// What must not be told.
    pub(crate) masks: Vec<String>,
    /// The original's rule for commands.
    strict: bool,
}

/// Steps that run one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    /// Its key.
    id: String,
    /// Places of the jobs it needs.
    needs: Vec<usize>,
    condition: Option<Condition>,
    env: Vec<(String, Template)>,
    timeout: Option<Duration>,
    continue_on_error: bool,
    outputs: Vec<(String, Template)>,
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Among all steps of the workflow, from 0.
    index: u64,
    name: Template,
    /// The name is what it runs, as nobody gave it one: the start of it is enough.
    is_unnamed: bool,
    /// What others know it by.
    id: Option<String>,
    condition: Option<Condition>,
    env: Vec<(String, Template)>,
    workdir: Template,
    timeout: Duration,
    continue_on_error: bool,
    action: Action,
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Run {
        script: String,
        shell: Shell,
    },
    Checkout {
        reference: String,
    },
    Env(Vec<(String, String)>),
    Agent(Box<Agent>),
    /// Known to be none of ours: fails when its turn comes.
    Unsupported(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    Sh,
    Bash,
    Python,
    Node,
}

impl Workflow {
    /// Reads the workflow of a task.
    pub(crate) fn of_task(config: &Node, rules: Rules<'_>) -> Result<Self, Vec<String>> {
        let mut reader = read::Reader::new(rules);
        let workflow = match (config.get("steps"), config.get("jobs"), config.get("workflow")) {
            (Some(steps), _, _) => reader.steps(config, steps),
            (None, Some(_), _) => reader.jobs(config, read::Form::Task),
            (None, None, Some(Node { value: Value::Text(text), .. })) => match legwork_yaml::parse(text) {
                Ok(node) => reader.jobs(&node, read::Form::File),
                Err(error) => return Err(vec![format!("workflow: {error}")]),
            },
            (None, None, Some(node @ Node { value: Value::Map(_), .. })) => {
                reader.jobs(node, read::Form::File)
            }
            (None, None, Some(_)) => return Err(vec!["workflow must be text or a dictionary".into()]),
            (None, None, None) => reader.nothing(),
        };
        reader.done(workflow)
    }

    /// Reads a file: a workflow, or the task JSON of one.
    pub fn of_file(node: &Node, rules: Rules<'_>) -> Result<Self, Vec<String>> {
        if node.get("jobs").is_some() && node.get("type").is_none() {
            let mut reader = read::Reader::new(rules);
            let workflow = reader.jobs(node, read::Form::File);
            return reader.done(workflow);
        }
        Self::of_task(node, rules)
    }

    /// Whether it needs a model.
    pub(crate) fn has_agent(&self) -> bool {
        self.jobs.iter().flat_map(|job| &job.steps).any(|step| matches!(step.action, Action::Agent(_)))
    }

    /// How many steps it has.
    pub fn steps(&self) -> usize {
        self.jobs.iter().map(|job| job.steps.len()).sum()
    }
}
