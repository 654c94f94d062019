//! From YAML or JSON to a workflow. What is not supported is refused by its name and line; what only
//! GitHub has a use for is noted, once.

mod fields;
mod job;
mod step;
#[cfg(test)]
mod tests;
mod trigger;

use legwork_yaml::{Node, Value};

use crate::expression::Template;
use crate::model::{Input, Job, Problem, Shell, Step, Workflow};
use crate::near::nearest;

pub(crate) use trigger::inputs_of;

const MAX_STEPS: usize = 10_000;
const MAX_JOBS: usize = 1000;
const MAX_PARALLEL: i128 = 64;
/// Problems that are worth telling at once.
const MAX_PROBLEMS: usize = 50;

const WORKFLOW: &[&str] =
    &["name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs", "parallel", "masks"];

/// Where jobs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In the task JSON, beside fields that are none of the workflow's.
    Task,
    /// In a file or text of their own.
    File,
}

/// Whether a file is a workflow's own, rather than a task with one.
pub fn is_workflow_file(node: &Node) -> bool {
    node.get("jobs").is_some() && node.get("type").is_none()
}

/// What steps go by that say nothing themselves.
#[derive(Clone, Default)]
struct Defaults {
    shell: Option<Shell>,
    workdir: Option<Template>,
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
    notes: Vec<Problem>,
    steps: u64,
    /// Steps of an action, which name their shells.
    is_action: bool,
}

/// The plain form: a list of steps. Keys it does not know are ignored, as the original does.
pub(crate) fn plain(config: &Node, steps: &Node) -> Result<Workflow, Vec<Problem>> {
    let mut reader = Reader::default();
    let Value::List(list) = &steps.value else {
        return Err(vec![Problem::at(0, "Workflow steps must be a list")]);
    };
    let mut read = Vec::new();
    for (index, node) in list.iter().enumerate() {
        match &node.value {
            Value::Map(_) => read.push(reader.plain_step(node, index)),
            _ => reader.problem(0, format!("Step {index} must be a dictionary")),
        }
    }
    let (mut workflow, _) = reader.common(config, Form::Task);
    workflow.is_plain = true;
    workflow.jobs = vec![Job { steps: read, base: Some(0), ..Job::default() }];
    reader.done(workflow)
}

/// The jobs form.
pub(crate) fn jobs(node: &Node, form: Form) -> Result<Workflow, Vec<Problem>> {
    let mut reader = Reader::default();
    let (mut workflow, defaults) = reader.common(node, form);
    let Some(Node { value: Value::Map(entries), .. }) = node.get("jobs") else {
        let line = node.get("jobs").map_or(node.line, |n| n.line);
        reader.problem(line, "jobs must be a dictionary of jobs".into());
        return reader.done(workflow);
    };
    if entries.len() > MAX_JOBS {
        reader.problem(node.line, format!("a workflow may have {MAX_JOBS} jobs"));
        return reader.done(workflow);
    }
    let names: Vec<String> = entries.iter().map(|e| e.key.clone()).collect();
    let jobs = entries.iter().map(|entry| reader.job(entry, &names, &defaults)).collect();
    workflow.jobs = reader.in_order(jobs);
    reader.done(workflow)
}

/// Steps and outputs of an action.
type Composite = (Vec<Step>, Vec<(String, Template)>);

/// Reads those of an action's file.
pub(crate) fn composite(node: &Node, runs: &Node) -> Result<Composite, Vec<Problem>> {
    let mut reader = Reader { is_action: true, ..Reader::default() };
    let mut steps = Vec::new();
    match runs.get("steps").map(|node| &node.value) {
        Some(Value::List(list)) => {
            for (index, node) in list.iter().enumerate() {
                steps.push(reader.step(node, index, &format!("runs.steps[{index}]"), &Defaults::default()));
            }
        }
        _ => reader.problem(runs.line, "runs.steps must be a list".into()),
    }
    reader.check_ids(&steps);
    let outputs = reader.values_of(node.get("outputs"), "outputs");
    match reader.problems.is_empty() {
        true => Ok((steps, outputs)),
        false => Err(reader.problems),
    }
}

impl Reader {
    fn done(mut self, mut workflow: Workflow) -> Result<Workflow, Vec<Problem>> {
        if self.problems.is_empty() {
            workflow.notes = self.notes;
            return Ok(workflow);
        }
        if self.problems.len() > MAX_PROBLEMS {
            let more = self.problems.len() - MAX_PROBLEMS;
            self.problems.truncate(MAX_PROBLEMS);
            self.problem(0, format!("and {more} more"));
        }
        Err(self.problems)
    }

    fn problem(&mut self, line: u64, text: String) {
        self.problems.push(Problem { line, text });
    }

    /// Says once what is other than at GitHub.
    fn note(&mut self, line: u64, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.iter().any(|note| note.text == text) {
            self.notes.push(Problem { line, text });
        }
    }

    fn unknown(&mut self, line: u64, place: &str, key: &str, what: &str, known: &[&'static str]) {
        let hint = match nearest(key, known) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("{what} has {}", known.join(", ")),
        };
        self.problem(line, format!("{place}{key}: not supported; {hint}"));
    }

    /// What a workflow has beside steps and jobs.
    fn common(&mut self, node: &Node, form: Form) -> (Workflow, Defaults) {
        let mut workflow = Workflow { parallel: 1, ..Workflow::default() };
        let mut defaults = Defaults::default();
        let Value::Map(entries) = &node.value else {
            self.problem(node.line, "a workflow must be a dictionary with jobs".into());
            return (workflow, defaults);
        };
        for entry in entries {
            match entry.key.as_str() {
                "name" => workflow.name = self.text(entry, "name"),
                "env" => workflow.env = self.env(entry, "env"),
                "parallel" => match entry.node.value {
                    Value::Int(jobs @ 1..=MAX_PARALLEL) => {
                        workflow.parallel = usize::try_from(jobs).unwrap_or(1);
                    }
                    _ => self
                        .problem(entry.line, format!("parallel must be a number from 1 to {MAX_PARALLEL}")),
                },
                "masks" => workflow.masks = self.texts(entry, "masks"),
                "jobs" | "steps" | "run-name" => {}
                "on" => self.trigger(entry, &mut workflow),
                "defaults" => defaults = self.defaults(entry, "defaults", &defaults),
                "permissions" => {
                    self.note(entry.line, "permissions: not looked at; there is no token of GitHub's here");
                }
                "concurrency" => self.note(entry.line, "concurrency: not looked at"),
                other if form == Form::File => self.unknown(entry.line, "", other, "a workflow", WORKFLOW),
                _ => {}
            }
        }
        (workflow, defaults)
    }

    /// Jobs after those that they need, else as they are written.
    fn in_order(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let mut places: Vec<Option<usize>> = vec![None; jobs.len()];
        let mut order: Vec<usize> = Vec::new();
        loop {
            let ready = (0..jobs.len())
                .find(|i| places[*i].is_none() && jobs[*i].needs.iter().all(|n| places[*n].is_some()));
            let Some(ready) = ready else { break };
            places[ready] = Some(order.len());
            order.push(ready);
        }
        if order.len() < jobs.len() {
            let stuck: Vec<&Job> =
                jobs.iter().zip(&places).filter(|(_, p)| p.is_none()).map(|(j, _)| j).collect();
            let names: Vec<&str> = stuck.iter().map(|job| job.id.as_str()).collect();
            let line = stuck.first().map_or(0, |job| job.line);
            self.problem(
                line,
                format!("jobs.{}.needs: jobs need one another in a circle: {}", names[0], names.join(", ")),
            );
            return Vec::new();
        }
        let mut taken: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
        let mut next = 0;
        order
            .into_iter()
            .filter_map(|at| taken[at].take())
            .map(|mut job| {
                job.needs = job.needs.iter().filter_map(|need| places[*need]).collect();
                if job.matrix.is_none() && job.call.is_none() {
                    job.base = Some(next);
                    next += job.steps.len() as u64;
                }
                job
            })
            .collect()
    }

    fn check_ids(&mut self, steps: &[Step]) {
        let mut seen: Vec<&str> = Vec::new();
        let mut sorted: Vec<(&str, u64)> =
            steps.iter().filter_map(|s| s.id.as_deref().map(|id| (id, s.line))).collect();
        sorted.sort_unstable();
        for (id, line) in sorted {
            if seen.last() == Some(&id) {
                self.problems.push(Problem::at(line, format!("two steps have the id '{id}'")));
            }
            seen.push(id);
        }
    }

    /// `NAME: {value: …}`, as outputs of actions and workflows are.
    fn values_of(&mut self, node: Option<&Node>, place: &str) -> Vec<(String, Template)> {
        let Some(Node { value: Value::Map(entries), .. }) = node else { return Vec::new() };
        let mut values = Vec::new();
        for entry in entries {
            let Some(value) = entry.node.get("value") else { continue };
            let text = fields::stringified(value);
            let here = format!("{place}.{}", entry.key);
            values.push((entry.key.clone(), self.template(entry.line, &here, &text)));
        }
        values
    }
}

/// Whether a job or step may be called so.
fn is_id(id: &str) -> bool {
    id.len() <= 100
        && id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The input that an entry describes.
fn input(name: &str, node: &Node) -> Input {
    let word = |key: &str| match node.get(key).map(|node| &node.value) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let options = match node.get("options").map(|node| &node.value) {
        Some(Value::List(list)) => list.iter().map(fields::stringified).collect(),
        _ => Vec::new(),
    };
    Input {
        name: name.to_owned(),
        default: node.get("default").cloned(),
        is_required: matches!(node.get("required").map(|node| &node.value), Some(Value::Bool(true))),
        kind: word("type"),
        options,
    }
}
