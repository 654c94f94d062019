//! The task JSON: what is right about it, and all that is wrong (docs/protocols/task.md §2).

mod agent;

use legwork_messages::Provider;
use legwork_workflow::Workflow;
use legwork_yaml::{Node, Value};

pub use agent::{Agent, Budget, Compaction, McpServer, Message, Price, SubAgent};

/// Most bytes of a task's JSON.
pub const MAX_CONFIG: usize = 64 << 20;

/// What a task is to do.
#[derive(Debug, Clone)]
pub enum Task {
    /// A conversation with a model that has tools.
    Agent(Box<Agent>),
    /// Jobs of steps, in an order.
    Workflow(Box<Workflow>),
}

/// All that is wrong, in the order of the protocol's table: the first is what the
/// original says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl Problems {
    /// The one the original stops at.
    pub fn first(&self) -> &str {
        self.0.first().map_or("Config must be a dictionary", String::as_str)
    }
}

/// What a config is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Allowed models; `None` where nobody names them: then it is those that begin as the API's
    /// own do, and the API knows which of them are in service.
    pub models: Option<&'a [String]>,
    /// Who serves them, and names them in its own way.
    pub provider: &'a Provider,
}

impl Task {
    /// Reads the task JSON of the environment, stdin or a hub.
    pub fn read(config: &Node, rules: Rules<'_>) -> Result<Self, Problems> {
        let Value::Map(_) = config.value else {
            return Err(Problems(vec!["Config must be a dictionary".into()]));
        };
        let kind = match config.get("type").map(|node| &node.value) {
            None => "agent",
            Some(Value::Text(kind)) if kind == "agent" || kind == "workflow" => kind,
            Some(_) => {
                let kind = config.get("type").map(shown).unwrap_or_default();
                return Err(Problems(vec![format!("Invalid task type: {kind}")]));
            }
        };
        let task = match kind {
            "workflow" => crate::workflow::of_task(config, rules).map(|w| Self::Workflow(Box::new(w))),
            _ => Agent::read(config, rules).map(|a| Self::Agent(Box::new(a))),
        };
        task.map_err(Problems)
    }
}

/// A value as it appears in a message: text as it is, short.
pub(crate) fn shown(node: &Node) -> String {
    let text = match &node.value {
        Value::Text(text) => text.clone(),
        _ => node.to_json().to_string(),
    };
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> Vec<String> {
        let node = legwork_yaml::parse_json(json.as_bytes()).expect("json");
        Task::read(&node, Rules { models: None, provider: &Provider::Anthropic })
            .err()
            .map(|p| p.0)
            .unwrap_or_default()
    }

    #[test]
    fn the_first_problem_is_the_originals() {
        for (json, first) in [
            ("[]", "Config must be a dictionary"),
            (r#"{"type":"x"}"#, "Invalid task type: x"),
            (r#"{"type":null}"#, "Invalid task type: null"),
            (r#"{"model":"gpt"}"#, "Invalid or disallowed model: gpt"),
            (r#"{"tools":"shell"}"#, "Tools must be a list"),
            (r#"{"tools":null}"#, "Tools must be a list"),
            (r#"{"tools":[1]}"#, "Tool names must be strings"),
            (r#"{"tools":["rm"]}"#, "Disallowed tool: rm"),
            (r#"{"max_turns":0}"#, "max_turns must be an integer between 1 and 100"),
            (r#"{"max_turns":true}"#, "max_turns must be an integer between 1 and 100"),
            (r#"{"max_turns":5.0}"#, "max_turns must be an integer between 1 and 100"),
            (r#"{"messages":{}}"#, "Messages must be a list"),
            (r#"{"messages":["x"]}"#, "Each message must be a dictionary"),
            (r#"{"messages":[{}]}"#, "Each message must have a 'role' field"),
            (r#"{"messages":[{"role":"system"}]}"#, "Invalid message role: system"),
            (r#"{"system_prompt":1}"#, "system_prompt must be a string"),
            (r#"{"type":"workflow","steps":{}}"#, "Workflow steps must be a list"),
            (r#"{"type":"workflow","steps":[{"run":"a"},7]}"#, "Step 1 must be a dictionary"),
        ] {
            assert_eq!(problems(json).first().map(String::as_str), Some(first), "{json}");
        }
    }

    #[test]
    fn people_get_all_problems_at_once() {
        let found = problems(r#"{"model":"m","tools":["rm",2],"max_turns":900,"system_prompt":[]}"#);
        assert_eq!(
            found,
            [
                "Invalid or disallowed model: m",
                "Disallowed tool: rm",
                "Tool names must be strings",
                "max_turns must be an integer between 1 and 100",
                "system_prompt must be a string"
            ]
        );
    }

    #[test]
    fn what_is_right_passes() {
        for json in [
            "{}",
            r#"{"type":"agent","messages":[{"role":"user","content":"List failing tests"}],"tools":["shell"],"max_turns":5}"#,
            r#"{"system_prompt":null,"unknown":{"a":1}}"#,
            r#"{"type":"workflow"}"#,
            r#"{"type":"workflow","steps":[{"run":"true","colour":"red"}]}"#,
        ] {
            assert_eq!(problems(json), [""; 0], "{json}");
        }
    }
}
