//! The language of workflows: from YAML or JSON to what is to be done, and the expressions in it.
//!
//! Nothing is run here, and no file is opened: the task runner, `lint` and the hub all read a
//! workflow with this and so say the same of it (docs/task.md).

#![forbid(unsafe_code)]

mod expression;
mod read;

use std::time::Duration;

use legwork_yaml::{Node, Value};

pub use expression::{Condition, Item, Lookup, Template};

/// Something that is wrong with a workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", self.place())]
pub struct Problem {
    /// Where it stands in the file, from 1; 0 if that is unknown.
    pub line: u64,
    /// What is wrong.
    pub text: String,
}

impl Problem {
    fn place(&self) -> String {
        if self.line == 0 { String::new() } else { format!("line {}: ", self.line) }
    }
}

/// What a workflow is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    /// In the order in which they run one after the other.
    pub jobs: Vec<Job>,
    /// For all steps.
    pub env: Vec<(String, Template)>,
    /// Jobs that run side by side.
    pub parallel: usize,
    /// What must not be told.
    pub masks: Vec<String>,
}

/// Steps that run one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its key.
    pub id: String,
    /// Places of the jobs it needs.
    pub needs: Vec<usize>,
    /// When it runs.
    pub condition: Option<Condition>,
    /// For its steps.
    pub env: Vec<(String, Template)>,
    /// How long all of it may take.
    pub timeout: Option<Duration>,
    /// Whether its failure counts.
    pub continue_on_error: bool,
    /// What jobs that need it see.
    pub outputs: Vec<(String, Template)>,
    /// What it does.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Among all steps of the workflow, from 0.
    pub index: u64,
    /// What people know it by.
    pub name: Template,
    /// The name is what it runs, as nobody gave it one: the start of it is enough.
    pub is_unnamed: bool,
    /// What other steps know it by.
    pub id: Option<String>,
    /// When it runs.
    pub condition: Option<Condition>,
    /// For it alone.
    pub env: Vec<(String, Template)>,
    /// Where it runs.
    pub workdir: Template,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether its failure counts.
    pub continue_on_error: bool,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Runs a script.
    Run {
        /// Its text.
        script: String,
        /// What reads it.
        shell: Shell,
    },
    /// Brings the workspace to a revision.
    Checkout {
        /// Which one.
        reference: String,
    },
    /// Sets variables for later steps.
    Env(Vec<(String, String)>),
    /// Starts an agent: who runs it knows what its fields mean.
    Agent(AgentStep),
    /// Known to be none of ours: fails when its turn comes.
    Unsupported(String),
}

/// The fields of an agent, as they stand in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentStep {
    /// Where in the workflow.
    pub place: String,
    /// The same as a line.
    pub line: u64,
    /// A prompt has become messages.
    pub fields: Node,
}

/// What reads a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "as named")]
pub enum Shell {
    Sh,
    Bash,
    Python,
    Node,
}

impl Workflow {
    /// Reads the workflow of a task.
    pub fn of_task(config: &Node) -> Result<Self, Vec<Problem>> {
        let mut reader = read::Reader::default();
        let workflow = match (config.get("steps"), config.get("jobs"), config.get("workflow")) {
            (Some(steps), _, _) => reader.steps(config, steps),
            (None, Some(_), _) => reader.jobs(config, read::Form::Task),
            (None, None, Some(Node { value: Value::Text(text), .. })) => match legwork_yaml::parse(text) {
                Ok(node) => reader.jobs(&node, read::Form::File),
                Err(error) => return Err(vec![Problem { line: 0, text: format!("workflow: {error}") }]),
            },
            (None, None, Some(node @ Node { value: Value::Map(_), .. })) => {
                reader.jobs(node, read::Form::File)
            }
            (None, None, Some(_)) => {
                return Err(vec![Problem { line: 0, text: "workflow must be text or a dictionary".into() }]);
            }
            (None, None, None) => read::nothing(),
        };
        reader.done(workflow)
    }

    /// Reads a file: a workflow, or the task JSON of one.
    pub fn of_file(node: &Node) -> Result<Self, Vec<Problem>> {
        if node.get("jobs").is_some() && node.get("type").is_none() {
            let mut reader = read::Reader::default();
            let workflow = reader.jobs(node, read::Form::File);
            return reader.done(workflow);
        }
        Self::of_task(node)
    }

    /// The steps that start agents.
    pub fn agents(&self) -> impl Iterator<Item = &AgentStep> {
        self.jobs.iter().flat_map(|job| &job.steps).filter_map(|step| match &step.action {
            Action::Agent(agent) => Some(agent),
            _ => None,
        })
    }

    /// How many steps it has.
    pub fn steps(&self) -> usize {
        self.jobs.iter().map(|job| job.steps.len()).sum()
    }
}
