//! What a workflow is.

use std::time::Duration;

use legwork_yaml::{Node, Value};

use crate::expression::{Condition, Template};
use crate::matrix::Matrix;
use crate::read;
use crate::script::{Dialect, Script};
use crate::{Item, Uses};

/// Something that is to be said of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", self.place())]
pub struct Problem {
    /// Where it stands in the file, from 1; 0 if that is unknown.
    pub line: u64,
    /// What it is.
    pub text: String,
}

impl Problem {
    /// At a line.
    pub fn at(line: u64, text: impl Into<String>) -> Self {
        Self { line, text: text.into() }
    }

    fn place(&self) -> String {
        if self.line == 0 { String::new() } else { format!("line {}: ", self.line) }
    }
}

/// How much is to be said of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It runs as it does at GitHub.
    Runs,
    /// It runs, and something is other than there.
    Differs,
    /// It is not run.
    Refused,
}

/// What there is to be said of a file.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Why it is refused.
    pub refused: Vec<Problem>,
    /// What is other than at GitHub.
    pub differs: Vec<Problem>,
}

impl Report {
    /// The worst of it.
    pub fn level(&self) -> Level {
        match (self.refused.is_empty(), self.differs.is_empty()) {
            (false, _) => Level::Refused,
            (true, false) => Level::Differs,
            (true, true) => Level::Runs,
        }
    }
}

/// What a workflow is to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workflow {
    /// What people know it by.
    pub name: Option<String>,
    /// In the order in which they run one after the other.
    pub jobs: Vec<Job>,
    /// For all steps.
    pub env: Vec<(String, Template)>,
    /// Jobs that run side by side.
    pub parallel: usize,
    /// What must not be told.
    pub masks: Vec<String>,
    /// What it is started by.
    pub events: Vec<String>,
    /// What may be given to it.
    pub inputs: Vec<Input>,
    /// What one that calls it sees.
    pub outputs: Vec<(String, Template)>,
    /// What is other than at GitHub.
    pub notes: Vec<Problem>,
    /// The plain form of the protocol: a list of steps.
    pub is_plain: bool,
}

/// Something that may be given to a workflow or an action.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// What it is when nobody gives it.
    pub default: Option<Node>,
    /// Whether somebody must.
    pub is_required: bool,
    /// `boolean`, `number`, `choice`, …
    pub kind: String,
    /// What it may be, if that is bounded.
    pub options: Vec<String>,
}

/// Steps that run one after the other, or another workflow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Job {
    /// Its key.
    pub id: String,
    /// Its line.
    pub line: u64,
    /// What people know it by.
    pub name: Option<Template>,
    /// Places of the jobs it needs.
    pub needs: Vec<usize>,
    /// When it runs.
    pub condition: Option<Condition>,
    /// The machines it is made for.
    pub runs_on: Option<Node>,
    /// It runs once for each row.
    pub matrix: Option<Matrix>,
    /// For its steps.
    pub env: Vec<(String, Template)>,
    /// How many minutes all of it may take.
    pub timeout: Option<Template>,
    /// Whether its failure counts.
    pub continue_on_error: Option<Template>,
    /// What jobs that need it see.
    pub outputs: Vec<(String, Template)>,
    /// What it does.
    pub steps: Vec<Step>,
    /// The workflow that it is.
    pub call: Option<Call>,
    /// The number of its first step among all steps of the workflow, where it runs once.
    pub base: Option<u64>,
}

/// Another workflow, as a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its file, from the root of the workspace.
    pub path: String,
    /// What it is given.
    pub with: Vec<(String, Template)>,
    /// The secrets it is given, by the names it knows; without a list all that its caller has.
    pub secrets: Option<Vec<(String, Template)>>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Within its job, from 0.
    pub index: u64,
    /// Its line.
    pub line: u64,
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
    /// How many minutes it may take.
    pub timeout: Option<Template>,
    /// Whether its failure counts.
    pub continue_on_error: Option<Template>,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Runs a script.
    Run {
        /// As it is written.
        text: String,
        /// As it is run.
        script: Script,
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
    /// Runs an action.
    Uses(Uses),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shell {
    /// `sh -e -c`: that of the plain form.
    Inline,
    /// bash where it is there, else sh; ends at the first failure.
    Usual,
    /// A program, with arguments of which `{0}` stands for the script's file.
    Program {
        /// Its name or path.
        program: String,
        /// Its arguments.
        args: Vec<String>,
    },
}

impl Shell {
    /// What stands at `shell`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = |program: &str, args: &[&str]| {
            let args = args.iter().map(|arg| (*arg).to_owned()).collect();
            Ok(Self::Program { program: program.to_owned(), args })
        };
        match text.trim() {
            "bash" => known("bash", &["--noprofile", "--norc", "-eo", "pipefail", "{0}"]),
            "sh" => known("sh", &["-e", "{0}"]),
            "python" => known("python", &["{0}"]),
            "node" => known("node", &["{0}"]),
            "pwsh" => known("pwsh", &["-NoLogo", "-NonInteractive", "-File", "{0}"]),
            "cmd" | "powershell" => Err(format!("'{}' is a shell of Windows; use bash or pwsh", text.trim())),
            other if other.contains("{0}") => {
                let mut words = other.split_whitespace().map(str::to_owned);
                let program = words.next().unwrap_or_default();
                Ok(Self::Program { program, args: words.collect() })
            }
            other => Err(format!(
                "'{other}' is none of bash, sh, python, node, pwsh, and no line with {{0}} for the script's file"
            )),
        }
    }

    /// Whose rules its scripts go by.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Inline | Self::Usual => Dialect::Posix,
            Self::Program { program, .. } => Dialect::of(program),
        }
    }
}

/// A number of minutes, if it is one above 0.
pub fn minutes(item: &Item) -> Option<Duration> {
    Duration::try_from_secs_f64(item.number() * 60.0).ok().filter(|time| !time.is_zero())
}

impl Workflow {
    /// Reads the workflow of a task.
    pub fn of_task(config: &Node) -> Result<Self, Vec<Problem>> {
        let one = |text: String| vec![Problem::at(0, text)];
        match (config.get("steps"), config.get("jobs"), config.get("workflow")) {
            (Some(steps), _, _) => read::plain(config, steps),
            (None, Some(_), _) => read::jobs(config, read::Form::Task),
            (None, None, Some(Node { value: Value::Text(text), .. })) => match legwork_yaml::parse(text) {
                Ok(node) => read::jobs(&node, read::Form::File),
                Err(error) => Err(one(format!("workflow: {error}"))),
            },
            (None, None, Some(node @ Node { value: Value::Map(_), .. })) => {
                read::jobs(node, read::Form::File)
            }
            (None, None, Some(_)) => Err(one("workflow must be text or a dictionary".into())),
            (None, None, None) => Ok(Self { parallel: 1, is_plain: true, ..Self::default() }),
        }
    }

    /// Reads a file: a workflow, or the task JSON of one.
    pub fn of_file(node: &Node) -> Result<Self, Vec<Problem>> {
        if node.get("jobs").is_some() && node.get("type").is_none() {
            return read::jobs(node, read::Form::File);
        }
        Self::of_task(node)
    }

    /// All steps.
    pub fn each_step(&self) -> impl Iterator<Item = &Step> {
        self.jobs.iter().flat_map(|job| &job.steps)
    }

    /// The steps that start agents.
    pub fn agents(&self) -> impl Iterator<Item = &AgentStep> {
        self.each_step().filter_map(|step| match &step.action {
            Action::Agent(agent) => Some(agent),
            _ => None,
        })
    }

    /// The actions that it uses.
    pub fn uses(&self) -> impl Iterator<Item = (&Step, &Uses)> {
        self.each_step().filter_map(|step| match &step.action {
            Action::Uses(uses) => Some((step, uses)),
            _ => None,
        })
    }

    /// How many steps it has.
    pub fn steps(&self) -> usize {
        self.each_step().count()
    }

    /// What it names of a context, by `context.name`.
    pub fn names(&self, context: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut env = |pairs: &[(String, Template)]| {
            names.extend(pairs.iter().flat_map(|(_, template)| template.names(context)));
        };
        env(&self.env);
        for job in &self.jobs {
            env(&job.env);
            env(&job.outputs);
            if let Some(call) = &job.call {
                env(&call.with);
                env(call.secrets.as_deref().unwrap_or_default());
            }
            for step in &job.steps {
                env(&step.env);
                if let Action::Uses(uses) = &step.action {
                    env(&uses.with);
                }
            }
        }
        let steps = self.each_step();
        for step in steps {
            names.extend(step.name.names(context));
            names.extend(step.condition.iter().flat_map(|condition| condition.names(context)));
            if let Action::Run { script, .. } = &step.action {
                names.extend(script.names(context));
            }
        }
        names.extend(self.jobs.iter().flat_map(|j| &j.condition).flat_map(|c| c.names(context)));
        names.sort();
        names.dedup();
        names
    }
}
