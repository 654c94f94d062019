//! Jobs.

use legwork_yaml::{Entry, Node, Value};

use super::{Defaults, MAX_STEPS, Reader, is_id};
use crate::matrix::{self, Matrix, NoMatrix};
use crate::model::{Call, Job};

const JOB: &[&str] = &[
    "name",
    "needs",
    "if",
    "runs-on",
    "permissions",
    "environment",
    "concurrency",
    "outputs",
    "env",
    "defaults",
    "steps",
    "timeout-minutes",
    "strategy",
    "continue-on-error",
    "uses",
    "with",
    "secrets",
];

const OTHER_MACHINE: &str = "runs-on: a job for Windows or macOS is skipped, and said to be";

impl Reader {
    pub(super) fn job(&mut self, entry: &Entry, names: &[String], above: &Defaults) -> Job {
        let place = format!("jobs.{}", entry.key.escape_debug());
        let mut job = Job { id: entry.key.clone(), line: entry.line, ..Job::default() };
        if !is_id(&entry.key) {
            let text = "a job's name begins with a letter or _, and has letters, digits, - and _";
            self.problem(entry.line, format!("{place}: {text}"));
        }
        let Value::Map(fields) = &entry.node.value else {
            self.problem(entry.line, format!("{place} must be a dictionary"));
            return job;
        };
        let defaults = match fields.iter().find(|field| field.key == "defaults") {
            Some(field) => self.defaults(field, &format!("{place}.defaults"), above),
            None => above.clone(),
        };
        for field in fields {
            let here = format!("{place}.{}", field.key);
            match field.key.as_str() {
                "name" => job.name = self.text_template(field, &here),
                "needs" => self.needs(field, &here, names, &mut job),
                "if" => job.condition = self.condition(field, &here),
                "env" => job.env = self.env(field, &here),
                "timeout-minutes" => job.timeout = self.minutes(field, &here),
                "continue-on-error" => job.continue_on_error = self.flag(field, &here),
                "outputs" => job.outputs = self.pairs(field, &here, false),
                "steps" => self.steps_of(field, &here, &defaults, &mut job),
                "strategy" => self.strategy(field, &here, &mut job),
                "uses" => self.call(field, &here, fields, &mut job),
                "runs-on" => self.machines(field, &mut job),
                "permissions" => {
                    self.note(field.line, "permissions: not looked at; there is no token of GitHub's here");
                }
                "concurrency" => self.note(field.line, "concurrency: not looked at"),
                "environment" => {
                    self.note(field.line, "environment: not looked at; nobody is asked, and no secret is bound to it");
                }
                "services" | "container" => self.problem(
                    field.line,
                    format!(
                        "{here}: no container engine is used here; start what it is for in a step (what a step leaves running is there until the job ends)"
                    ),
                ),
                "defaults" | "with" | "secrets" => {}
                other => self.unknown(field.line, &format!("{place}."), other, "a job", JOB),
            }
        }
        let named =
            |key: &str| fields.iter().find(|field| field.key == key).map(|field| field.node.to_json_text());
        let text = named("strategy").unwrap_or_default().to_lowercase();
        if named("runs-on").is_some_and(|text| text.contains("matrix."))
            && (text.contains("windows") || text.contains("macos"))
        {
            self.note(entry.line, OTHER_MACHINE);
        }
        if job.call.is_none() && !fields.iter().any(|field| field.key == "steps") {
            self.problem(entry.line, format!("{place} has no steps, and does nothing"));
        }
        if job.call.is_some() && !job.steps.is_empty() {
            self.problem(entry.line, format!("{place} has both steps and uses"));
        }
        job
    }

    fn needs(&mut self, field: &Entry, here: &str, names: &[String], job: &mut Job) {
        for need in self.texts(field, here) {
            match names.iter().position(|name| name.eq_ignore_ascii_case(&need)) {
                Some(at) => job.needs.push(at),
                None => self.problem(field.line, format!("{here}: there is no job '{need}'")),
            }
        }
    }

    fn steps_of(&mut self, field: &Entry, here: &str, defaults: &Defaults, job: &mut Job) {
        let Value::List(list) = &field.node.value else {
            return self.problem(field.line, format!("{here} must be a list"));
        };
        for (index, node) in list.iter().enumerate() {
            let here = format!("{here}[{index}]");
            match &node.value {
                Value::Map(_) => job.steps.push(self.step(node, index, &here, defaults)),
                _ => self.problem(node.line, format!("{here} must be a dictionary")),
            }
        }
        self.check_ids(&job.steps);
    }

    /// What it is made for: other systems are none of ours.
    fn machines(&mut self, field: &Entry, job: &mut Job) {
        let mut found = Vec::new();
        matrix::check_node(&field.node, field.line, &mut found);
        for (line, error) in found {
            self.problem(line, format!("jobs.{}.runs-on: {error}", job.id));
        }
        let text = field.node.to_json_text().to_lowercase();
        if text.contains("windows") || text.contains("macos") {
            self.note(field.line, OTHER_MACHINE);
        }
        job.runs_on = Some(field.node.clone());
    }

    fn strategy(&mut self, field: &Entry, here: &str, job: &mut Job) {
        const STRATEGY: &[&str] = &["matrix", "fail-fast", "max-parallel"];
        let Value::Map(fields) = &field.node.value else {
            return self.problem(field.line, format!("{here} must be a dictionary with matrix"));
        };
        let (mut fail_fast, mut max_parallel) = (None, None);
        for field in fields {
            let here = format!("{here}.{}", field.key);
            match field.key.as_str() {
                "matrix" => job.matrix = self.matrix(&field.node, field.line, &here),
                "fail-fast" => fail_fast = self.flag(field, &here),
                "max-parallel" => max_parallel = self.text_template(field, &here),
                other => self.unknown(
                    field.line,
                    &format!("jobs.{}.strategy.", job.id),
                    other,
                    "a strategy",
                    STRATEGY,
                ),
            }
        }
        if let Some(matrix) = &mut job.matrix {
            (matrix.fail_fast, matrix.max_parallel) = (fail_fast, max_parallel);
        }
    }

    fn matrix(&mut self, node: &Node, line: u64, here: &str) -> Option<Matrix> {
        let mut found = Vec::new();
        matrix::check_node(node, line, &mut found);
        if !found.is_empty() {
            for (line, error) in found {
                self.problem(line, format!("{here}: {error}"));
            }
            return None;
        }
        let matrix = Matrix::new(node, line);
        let error = match matrix.is_fixed() {
            true => matrix.rows(&matrix::Nothing).err(),
            false if !matches!(node.value, Value::Map(_) | Value::Text(_)) => Some(NoMatrix::Shape),
            false => None,
        };
        if let Some(error) = error {
            self.problem(line, format!("{here}: {error}"));
        }
        Some(matrix)
    }

    /// Another workflow of the same workspace.
    fn call(&mut self, field: &Entry, here: &str, fields: &[Entry], job: &mut Job) {
        let Some(name) = self.text(field, here) else { return };
        let path = name.strip_prefix("./").filter(|path| !path.split('/').any(|part| part == ".."));
        let Some(path) = path else {
            let text = "is a workflow of another repository; copy it, and name it as ./.github/workflows/…";
            return self.problem(field.line, format!("{here}: '{name}' {text}"));
        };
        let mut call = Call { path: path.into(), with: Vec::new(), secrets: Some(Vec::new()) };
        for field in fields {
            let here = format!("jobs.{}.{}", job.id, field.key);
            match (field.key.as_str(), &field.node.value) {
                ("with", _) => call.with = self.pairs(field, &here, false),
                ("secrets", Value::Text(text)) if text == "inherit" => call.secrets = None,
                ("secrets", _) => call.secrets = Some(self.pairs(field, &here, false)),
                _ => {}
            }
        }
        job.call = Some(call);
    }

    pub(super) fn count_step(&mut self, line: u64) {
        self.steps += 1;
        if self.steps == MAX_STEPS as u64 + 1 {
            self.problem(line, format!("a workflow may have {MAX_STEPS} steps"));
        }
    }
}
