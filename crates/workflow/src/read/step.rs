//! Steps.

use legwork_yaml::{Entry, Node, Value};

use super::fields::stringified;
use super::{Defaults, Reader, is_id};
use crate::actions::{self, Source, Uses};
use crate::expression::Template;
use crate::model::{Action, AgentStep, Shell, Step};
use crate::script::Script;

const STEP: &[&str] = &[
    "name",
    "id",
    "if",
    "run",
    "uses",
    "with",
    "shell",
    "agent",
    "type",
    "ref",
    "env",
    "working-directory",
    "timeout-minutes",
    "continue-on-error",
];

/// What a step has that says what it does.
#[derive(Default)]
struct What<'a> {
    kind: Option<String>,
    run: Option<(Option<String>, u64)>,
    uses: Option<(String, u64)>,
    with: Vec<(String, Template)>,
    agent: Option<(&'a Node, String)>,
    shell: Option<Shell>,
    reference: Option<String>,
    variables: Vec<(String, String)>,
}

impl Reader {
    /// One of a job, or of an action.
    pub(super) fn step(&mut self, node: &Node, index: usize, place: &str, defaults: &Defaults) -> Step {
        self.count_step(node.line);
        let mut step = empty(index, node.line);
        step.workdir = defaults.workdir.clone().unwrap_or_else(|| Template::plain("."));
        let Value::Map(fields) = &node.value else { return step };
        let mut what = What { shell: defaults.shell.clone(), ..What::default() };
        let mut name = None;
        for field in fields {
            let here = format!("{place}.{}", field.key);
            match field.key.as_str() {
                "name" => name = self.text_template(field, &here),
                "id" => step.id = self.id(field, &here),
                "if" => step.condition = self.condition(field, &here),
                "env" => {
                    step.env = self.env(field, &here);
                    what.variables = plain_env(field);
                }
                "working-directory" => {
                    if let Some(template) = self.text_template(field, &here) {
                        step.workdir = template;
                    }
                }
                "timeout-minutes" => step.timeout = self.minutes(field, &here),
                "continue-on-error" => step.continue_on_error = self.flag(field, &here),
                "shell" => what.shell = self.shell(field, &here).or(what.shell),
                "with" => what.with = self.pairs(field, &here, false),
                _ => {
                    if !self.action_field(field, &here, &mut what) {
                        self.unknown(field.line, &format!("{place}."), &field.key, "a step", STEP);
                    }
                }
            }
        }
        step.is_unnamed = name.is_none();
        step.name = name.unwrap_or_else(|| match (&what.run, &what.uses) {
            (Some((Some(run), _)), _) => {
                Template::parse(run.trim_start()).unwrap_or_else(|_| Template::plain(run.clone()))
            }
            (_, Some((uses, _))) => Template::plain(uses.clone()),
            _ => Template::plain("unnamed"),
        });
        step.action = self.action(node, place, what);
        step
    }

    /// A field that says what is done; false if it is none.
    fn action_field<'a>(&mut self, field: &'a Entry, here: &str, what: &mut What<'a>) -> bool {
        match field.key.as_str() {
            "type" => what.kind = self.text(field, here),
            "run" => what.run = Some((self.text(field, here), field.line)),
            "uses" => what.uses = self.text(field, here).map(|uses| (uses, field.line)),
            "agent" => what.agent = Some((&field.node, here.to_owned())),
            "ref" => what.reference = self.text(field, here),
            _ => return false,
        }
        true
    }

    fn id(&mut self, field: &Entry, here: &str) -> Option<String> {
        let id = self.text(field, here)?;
        if !is_id(&id) {
            let text = "an id begins with a letter or _, and has letters, digits, - and _";
            self.problem(field.line, format!("{here}: {text}"));
        }
        Some(id)
    }

    fn action(&mut self, node: &Node, place: &str, what: What<'_>) -> Action {
        let kind = match what.kind.as_deref() {
            Some(kind) => kind,
            None if what.agent.is_some() => "agent",
            None if what.uses.is_some() && what.run.is_none() => "action",
            None => "run",
        };
        if what.run.is_some() && what.uses.is_some() {
            self.problem(node.line, format!("{place} has both run and uses"));
        }
        match kind {
            "run" => self.run(node, place, what),
            "checkout" => Action::Checkout { reference: what.reference.unwrap_or_else(|| "@".into()) },
            "env" => Action::Env(what.variables),
            "action" => self.uses(node, place, what),
            "agent" => match what.agent {
                Some((node, here)) => agent_step(node, &here),
                None => {
                    self.problem(node.line, format!("{place}.agent is required"));
                    Action::Unsupported("agent".into())
                }
            },
            other => {
                self.problem(node.line, format!("{place}: 'type: {other}' is not supported"));
                Action::Unsupported(other.to_owned())
            }
        }
    }

    fn run(&mut self, node: &Node, place: &str, what: What<'_>) -> Action {
        let (text, line) = what.run.unwrap_or((None, node.line));
        let Some(text) = text else {
            self.problem(line, format!("{place} has nothing to run: it needs run, uses or agent"));
            return Action::Unsupported("run".into());
        };
        if self.is_action && what.shell.is_none() {
            self.problem(line, format!("{place}.shell is missing: a step of an action names it"));
        }
        let shell = what.shell.unwrap_or(Shell::Usual);
        let script = Script::parse(&text, shell.dialect());
        let script = script.unwrap_or_else(|error| {
            self.problem(line, format!("{place}.run: {error}"));
            Script::plain("")
        });
        Action::Run { text, script, shell }
    }

    fn uses(&mut self, node: &Node, place: &str, what: What<'_>) -> Action {
        let (name, line) = what.uses.unwrap_or((String::new(), node.line));
        match actions::find(&name) {
            Ok(source) => {
                let uses = Uses { name, source, with: what.with };
                if let Some(difference) = uses.difference() {
                    self.note(line, format!("{}: {difference}", uses.name));
                }
                if matches!(uses.source, Source::Builtin(actions::Builtin::Cargo))
                    && uses.input("command").is_none()
                {
                    self.problem(line, format!("{place}: '{}' needs with.command", uses.name));
                }
                Action::Uses(uses)
            }
            Err(why) => {
                self.problem(line, format!("{place}: 'uses: {name}' {why}"));
                Action::Unsupported(name)
            }
        }
    }

    /// One of the plain form, in which nothing is filled in.
    pub(super) fn plain_step(&mut self, node: &Node, index: usize) -> Step {
        let place = format!("steps[{index}]");
        self.count_step(node.line);
        let mut step = empty(index, node.line);
        step.workdir = Template::plain(".");
        step.name = Template::plain(format!("step-{index}"));
        let Value::Map(fields) = &node.value else { return step };
        let mut what = What::default();
        for field in fields {
            let here = format!("{place}.{}", field.key);
            match field.key.as_str() {
                "name" => {
                    if let Some(name) = self.text(field, &here) {
                        step.name = Template::plain(name);
                    }
                }
                "id" => step.id = self.text(field, &here),
                "if" => step.condition = self.condition(field, &here),
                "env" => {
                    step.env = self.env(field, &here);
                    what.variables = plain_env(field);
                }
                "working-directory" => {
                    if let Some(template) = self.text_template(field, &here) {
                        step.workdir = template;
                    }
                }
                "timeout-minutes" => step.timeout = self.minutes(field, &here),
                "continue-on-error" => step.continue_on_error = self.flag(field, &here),
                "shell" => what.shell = self.shell(field, &here),
                _ => drop(self.action_field(field, &here, &mut what)),
            }
        }
        step.timeout = step.timeout.or_else(|| Some(Template::plain("10")));
        step.action = self.plain_action(node, &place, what);
        step
    }

    fn plain_action(&mut self, node: &Node, place: &str, what: What<'_>) -> Action {
        let kind = match what.kind.as_deref() {
            Some(kind) => kind,
            None if what.agent.is_some() => "agent",
            None if what.uses.is_some() && what.run.is_none() => "action",
            None => "run",
        };
        match kind {
            "run" => match what.run {
                Some((Some(text), _)) => {
                    let is_sh = what.shell.is_none() || what.shell == Shell::parse("sh").ok();
                    let shell = if is_sh { Shell::Inline } else { what.shell.unwrap_or(Shell::Inline) };
                    Action::Run { script: Script::plain(&text), text, shell }
                }
                // The original fails it when its turn comes.
                _ => Action::Unsupported("run without a command".into()),
            },
            "checkout" | "env" | "agent" => self.action(node, place, what),
            other => Action::Unsupported(other.to_owned()),
        }
    }
}

fn empty(index: usize, line: u64) -> Step {
    Step {
        index: index as u64,
        line,
        name: Template::default(),
        is_unnamed: false,
        id: None,
        condition: None,
        env: Vec::new(),
        workdir: Template::default(),
        timeout: None,
        continue_on_error: None,
        action: Action::Unsupported(String::new()),
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

/// For steps that set variables: values as they are.
fn plain_env(entry: &Entry) -> Vec<(String, String)> {
    match &entry.node.value {
        Value::Map(fields) => fields.iter().map(|f| (f.key.clone(), stringified(&f.node))).collect(),
        _ => Vec::new(),
    }
}
