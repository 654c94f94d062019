//! From YAML or JSON to a workflow. What is not supported is refused by its name and line.

use std::time::Duration;

use legwork_yaml::{Entry, Node, Value};

use crate::expression::{Condition, Template};
use crate::{Action, AgentStep, Job, Problem, Shell, Step, Workflow};

const MAX_STEPS: usize = 10_000;
const MAX_JOBS: usize = 1000;
const MAX_PARALLEL: i128 = 64;
/// Of a step, unless it says otherwise.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);
/// Problems that are worth telling at once.
const MAX_PROBLEMS: usize = 50;

/// Where jobs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In the task JSON, beside fields that are none of the workflow's.
    Task,
    /// In a file or text of their own.
    File,
}

#[derive(Default)]
pub(crate) struct Reader {
    problems: Vec<Problem>,
    steps: u64,
}

/// A workflow that does nothing.
pub(crate) fn nothing() -> Workflow {
    Workflow { jobs: Vec::new(), env: Vec::new(), parallel: 1, masks: Vec::new() }
}

impl Reader {
    pub(crate) fn done(mut self, workflow: Workflow) -> Result<Workflow, Vec<Problem>> {
        if self.problems.is_empty() {
            return Ok(workflow);
        }
        if self.problems.len() > MAX_PROBLEMS {
            let more = self.problems.len() - MAX_PROBLEMS;
            self.problems.truncate(MAX_PROBLEMS);
            self.problem(0, &format!("and {more} more"));
        }
        Err(self.problems)
    }

    fn problem(&mut self, line: u64, text: &str) {
        self.problems.push(Problem { line, text: text.to_owned() });
    }

    /// The plain form: a list of steps. Keys it does not know are ignored, as the original
    /// does.
    pub(crate) fn steps(&mut self, config: &Node, steps: &Node) -> Workflow {
        let Value::List(list) = &steps.value else {
            self.problem(0, "Workflow steps must be a list");
            return nothing();
        };
        let mut read = Vec::new();
        for (index, node) in list.iter().enumerate() {
            match &node.value {
                Value::Map(_) => read.push(self.step(node, &format!("steps[{index}]"), false)),
                _ => self.problem(0, &format!("Step {index} must be a dictionary")),
            }
        }
        let mut workflow = self.common(config, Form::Task);
        workflow.jobs = vec![Job {
            id: String::new(),
            needs: Vec::new(),
            condition: None,
            env: Vec::new(),
            timeout: None,
            continue_on_error: false,
            outputs: Vec::new(),
            steps: read,
        }];
        workflow
    }

    /// What a workflow has beside steps and jobs.
    fn common(&mut self, node: &Node, form: Form) -> Workflow {
        let mut workflow = nothing();
        let Value::Map(entries) = &node.value else {
            self.problem(node.line, "a workflow must be a dictionary with jobs");
            return workflow;
        };
        for entry in entries {
            match entry.key.as_str() {
                "env" => workflow.env = self.env(entry, "env"),
                "parallel" => match entry.node.value {
                    Value::Int(jobs @ 1..=MAX_PARALLEL) => {
                        workflow.parallel = usize::try_from(jobs).unwrap_or(1);
                    }
                    _ => self
                        .problem(entry.line, &format!("parallel must be a number from 1 to {MAX_PARALLEL}")),
                },
                "masks" => workflow.masks = self.texts(entry, "masks"),
                "jobs" | "steps" | "name" | "on" => {}
                other if form == Form::File => {
                    let known = "name, on, env, jobs, parallel, masks";
                    self.problem(entry.line, &format!("{other}: not supported; a workflow has {known}"));
                }
                _ => {}
            }
        }
        workflow
    }

    /// The jobs form.
    pub(crate) fn jobs(&mut self, node: &Node, form: Form) -> Workflow {
        let mut workflow = self.common(node, form);
        let Some(Node { value: Value::Map(entries), .. }) = node.get("jobs") else {
            let line = node.get("jobs").map_or(node.line, |n| n.line);
            self.problem(line, "jobs must be a dictionary of jobs");
            return workflow;
        };
        if entries.len() > MAX_JOBS {
            self.problem(node.line, &format!("a workflow may have {MAX_JOBS} jobs"));
            return workflow;
        }
        let names: Vec<String> = entries.iter().map(|e| e.key.clone()).collect();
        let mut jobs = Vec::new();
        for entry in entries {
            jobs.push(self.job(entry, &names));
        }
        workflow.jobs = self.in_order(jobs);
        workflow
    }

    fn job(&mut self, entry: &Entry, names: &[String]) -> (Job, u64) {
        let place = format!("jobs.{}", entry.key);
        let mut job = Job {
            id: entry.key.clone(),
            needs: Vec::new(),
            condition: None,
            env: Vec::new(),
            timeout: None,
            continue_on_error: false,
            outputs: Vec::new(),
            steps: Vec::new(),
        };
        let Value::Map(fields) = &entry.node.value else {
            self.problem(entry.line, &format!("{place} must be a dictionary"));
            return (job, entry.line);
        };
        for field in fields {
            let here = format!("{place}.{}", field.key);
            match field.key.as_str() {
                "name" | "runs-on" => {}
                "needs" => {
                    for need in self.texts(field, &here) {
                        match names.iter().position(|name| *name == need) {
                            Some(at) => job.needs.push(at),
                            None => self.problem(field.line, &format!("{here}: there is no job '{need}'")),
                        }
                    }
                }
                "if" => job.condition = self.condition(field, &here),
                "env" => job.env = self.env(field, &here),
                "timeout-minutes" => job.timeout = self.minutes(field, &here),
                "continue-on-error" => job.continue_on_error = self.flag(field, &here),
                "outputs" => job.outputs = self.env(field, &here),
                "steps" => match &field.node.value {
                    Value::List(list) => {
                        for (index, node) in list.iter().enumerate() {
                            let here = format!("{here}[{index}]");
                            match &node.value {
                                Value::Map(_) => job.steps.push(self.step(node, &here, true)),
                                _ => self.problem(node.line, &format!("{here} must be a dictionary")),
                            }
                        }
                    }
                    _ => self.problem(field.line, &format!("{here} must be a list")),
                },
                other => self.problem(
                    field.line,
                    &format!(
                        "{place}.{other}: not supported; a job has name, needs, if, env, timeout-minutes, continue-on-error, outputs, steps"
                    ),
                ),
            }
        }
        (job, entry.line)
    }

    /// Jobs after those that they need, else as they are written.
    fn in_order(&mut self, jobs: Vec<(Job, u64)>) -> Vec<Job> {
        let mut places: Vec<Option<usize>> = vec![None; jobs.len()];
        let mut order: Vec<usize> = Vec::new();
        loop {
            let ready = (0..jobs.len())
                .find(|i| places[*i].is_none() && jobs[*i].0.needs.iter().all(|n| places[*n].is_some()));
            let Some(ready) = ready else { break };
            places[ready] = Some(order.len());
            order.push(ready);
        }
        if order.len() < jobs.len() {
            let stuck: Vec<&(Job, u64)> =
                jobs.iter().zip(&places).filter(|(_, p)| p.is_none()).map(|(j, _)| j).collect();
            let names: Vec<&str> = stuck.iter().map(|(job, _)| job.id.as_str()).collect();
            let line = stuck.first().map_or(0, |(_, line)| *line);
            let text =
                format!("jobs.{}.needs: jobs need one another in a circle: {}", names[0], names.join(", "));
            self.problem(line, &text);
            return Vec::new();
        }
        let mut taken: Vec<Option<Job>> = jobs.into_iter().map(|(job, _)| Some(job)).collect();
        let mut index = 0;
        order
            .into_iter()
            .filter_map(|at| taken[at].take())
            .map(|mut job| {
                job.needs = job.needs.iter().filter_map(|need| places[*need]).collect();
                for step in &mut job.steps {
                    step.index = index;
                    index += 1;
                }
                job
            })
            .collect()
    }

    fn step(&mut self, node: &Node, place: &str, in_job: bool) -> Step {
        let index = self.steps;
        self.steps += 1;
        if self.steps == MAX_STEPS as u64 + 1 {
            self.problem(node.line, &format!("a workflow may have {MAX_STEPS} steps"));
        }
        let mut step = Step {
            index,
            name: Template::plain(format!("step-{index}")),
            is_unnamed: false,
            id: None,
            condition: None,
            env: Vec::new(),
            workdir: Template::plain("."),
            timeout: STEP_TIMEOUT,
            continue_on_error: false,
            action: Action::Unsupported(String::new()),
        };
        let Value::Map(fields) = &node.value else { return step };
        let (mut kind, mut script, mut uses, mut agent, mut shell) = (None, None, None, None, Shell::Sh);
        let (mut name, mut variables, mut reference) = (None, Vec::new(), "@".to_owned());
        for field in fields {
            let here = format!("{place}.{}", field.key);
            match field.key.as_str() {
                "name" => name = self.text(field, &here),
                "id" => step.id = self.text(field, &here),
                "if" => step.condition = self.condition(field, &here),
                "type" => kind = self.text(field, &here),
                "run" => script = Some((self.text(field, &here), field.line)),
                "uses" => uses = self.text(field, &here),
                "agent" => agent = Some((&field.node, here)),
                "ref" => reference = self.text(field, &here).unwrap_or_default(),
                "shell" => shell = self.shell(field, &here),
                "env" => {
                    step.env = self.env(field, &here);
                    variables = self.plain_env(field);
                }
                "working-directory" => {
                    if let Some(text) = self.text(field, &here) {
                        step.workdir = self.template(field, &here, &text);
                    }
                }
                "timeout-minutes" => {
                    if let Some(time) = self.minutes(field, &here) {
                        step.timeout = time;
                    }
                }
                "continue-on-error" => step.continue_on_error = self.flag(field, &here),
                other if in_job => self.problem(
                    field.line,
                    &format!(
                        "{place}.{other}: not supported; a step has name, id, if, run, shell, agent, type, ref, env, working-directory, timeout-minutes, continue-on-error"
                    ),
                ),
                _ => {}
            }
        }
        if in_job {
            let text = match (&name, &script) {
                (Some(name), _) => name.clone(),
                (None, Some((Some(run), _))) => run.clone(),
                _ => "unnamed".into(),
            };
            step.is_unnamed = name.is_none();
            step.name = Template::parse(&text).unwrap_or_else(|_| Template::plain(text));
        } else if let Some(name) = name {
            step.name = Template::plain(name);
        }
        let kind = match kind.as_deref() {
            Some(kind) => kind,
            None if agent.is_some() => "agent",
            None if uses.is_some() && script.is_none() => "action",
            None => "run",
        };
        step.action = match kind {
            "run" => {
                let (script, line) = script.unwrap_or((None, node.line));
                match script {
                    Some(script) => {
                        if in_job && script.contains("${{") {
                            self.problem(
                                line,
                                &format!(
                                    "{place}.run: '${{{{ }}}}' is not filled in here, as its value would be run as part of the script; put it into env and use \"$NAME\""
                                ),
                            );
                        }
                        Action::Run { script, shell }
                    }
                    None if in_job => {
                        self.problem(line, &format!("{place} has nothing to run: it needs run or agent"));
                        Action::Unsupported("run".into())
                    }
                    // The original fails it when its turn comes.
                    None => Action::Unsupported("run without a command".into()),
                }
            }
            "checkout" => Action::Checkout { reference },
            "env" => Action::Env(variables),
            "agent" => match agent {
                Some((node, here)) => agent_step(node, &here),
                None => {
                    self.problem(node.line, &format!("{place}.agent is required"));
                    Action::Unsupported("agent".into())
                }
            },
            other => {
                if in_job {
                    let what = uses.map_or_else(|| format!("type: {other}"), |uses| format!("uses: {uses}"));
                    self.problem(
                        node.line,
                        &format!("{place}: '{what}' is not supported; run a command instead"),
                    );
                }
                Action::Unsupported(other.to_owned())
            }
        };
        step
    }

    fn text(&mut self, entry: &Entry, place: &str) -> Option<String> {
        match &entry.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => Some(shown(&entry.node)),
            Value::Null => None,
            other => {
                let text = format!("{place} must be text, not {}", other.kind());
                self.problem(entry.line, &text);
                None
            }
        }
    }

    fn texts(&mut self, entry: &Entry, place: &str) -> Vec<String> {
        match &entry.node.value {
            Value::Text(text) => vec![text.clone()],
            Value::List(list) if list.iter().all(|n| matches!(n.value, Value::Text(_))) => {
                list.iter().map(shown_whole).collect()
            }
            _ => {
                self.problem(entry.line, &format!("{place} must be a text or a list of texts"));
                Vec::new()
            }
        }
    }

    fn template(&mut self, entry: &Entry, place: &str, text: &str) -> Template {
        Template::parse(text).unwrap_or_else(|error| {
            self.problem(entry.line, &format!("{place}: {error}"));
            Template::default()
        })
    }

    fn condition(&mut self, entry: &Entry, place: &str) -> Option<Condition> {
        let text = self.text(entry, place)?;
        Condition::parse(&text).map_err(|error| self.problem(entry.line, &format!("{place}: {error}"))).ok()
    }

    fn env(&mut self, entry: &Entry, place: &str) -> Vec<(String, Template)> {
        let Value::Map(fields) = &entry.node.value else {
            if entry.node.value != Value::Null {
                self.problem(entry.line, &format!("{place} must be a dictionary"));
            }
            return Vec::new();
        };
        let mut env = Vec::new();
        for field in fields {
            let here = format!("{place}.{}", field.key);
            if !is_name(&field.key) {
                self.problem(field.line, &format!("{here}: no name of a variable"));
            }
            let template = self.template(field, &here, &stringified(&field.node));
            env.push((field.key.clone(), template));
        }
        env
    }

    /// For steps that set variables: values as they are.
    fn plain_env(&mut self, entry: &Entry) -> Vec<(String, String)> {
        match &entry.node.value {
            Value::Map(fields) => fields.iter().map(|f| (f.key.clone(), stringified(&f.node))).collect(),
            _ => Vec::new(),
        }
    }

    fn minutes(&mut self, entry: &Entry, place: &str) -> Option<Duration> {
        let minutes = match entry.node.value {
            #[allow(clippy::cast_precision_loss, reason = "minutes are few")]
            Value::Int(minutes) => minutes as f64,
            Value::Float(minutes) => minutes,
            Value::Null => return None,
            _ => f64::NAN,
        };
        let time = Duration::try_from_secs_f64(minutes * 60.0).ok().filter(|t| !t.is_zero());
        if time.is_none() {
            self.problem(entry.line, &format!("{place} must be a number of minutes above 0"));
        }
        time
    }

    fn flag(&mut self, entry: &Entry, place: &str) -> bool {
        match entry.node.value {
            Value::Bool(flag) => flag,
            _ => {
                self.problem(entry.line, &format!("{place} must be true or false"));
                false
            }
        }
    }

    fn shell(&mut self, entry: &Entry, place: &str) -> Shell {
        match self.text(entry, place).as_deref() {
            None | Some("sh") => Shell::Sh,
            Some("bash") => Shell::Bash,
            Some("python") => Shell::Python,
            Some("node") => Shell::Node,
            Some(other) => {
                self.problem(entry.line, &format!("{place}: '{other}' is none of sh, bash, python, node"));
                Shell::Sh
            }
        }
    }
}

fn agent_step(node: &Node, place: &str) -> Action {
    let mut node = node.clone();
    if let (Value::Map(entries), Some(prompt)) = (&node.value, node.get("prompt")) {
        let message = serde_json::json!({"role": "user", "content": prompt.to_json()}).to_string();
        let messages = legwork_yaml::parse_json(format!("[{message}]").as_bytes()).unwrap_or_default();
        let mut entries = entries.clone();
        entries.retain(|e| e.key != "prompt");
        entries.push(Entry { key: "messages".into(), line: node.line, node: messages });
        node.value = Value::Map(entries);
    }
    Action::Agent(AgentStep { place: place.to_owned(), line: node.line, fields: node })
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn shown_whole(node: &Node) -> String {
    stringified(node)
}

/// A value as text.
fn stringified(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => text.clone(),
        Value::Null => String::new(),
        _ => node.to_json().to_string(),
    }
}

/// A value as it appears in a message: text as it is, short.
fn shown(node: &Node) -> String {
    let text = stringified(node);
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
