//! Agents that an agent starts: in the same workspace, with a conversation, tools and a budget
//! of their own.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Run, World};
use crate::config::{Agent, Message};
use crate::inbox::Inbox;
use crate::journal::Tokens;
use crate::task::Contact;
use crate::tools::{Answer, Tool};
use legwork_messages::ToolUse;

/// Calls of the model, where nobody says.
const TURNS: u32 = 50;

impl Run<'_> {
    /// Runs one to its end; its answer is its last words.
    pub(super) async fn start_agent(&self, call: &ToolUse, input: &Map<String, Value>) -> Answer {
        let Some(prompt) = input.get("prompt").and_then(Value::as_str).filter(|p| !p.trim().is_empty())
        else {
            return Answer::error("prompt is required");
        };
        let task = self.sub_task(prompt);
        let digest = Sha256::digest(format!("{}/{}", self.progress.turns, call.id));
        let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = self.world.dir.join(format!("agent-{name}"));
        if let Err(error) = std::fs::create_dir_all(&dir) {
            return Answer::raised(format!("the agent's journal can't be made: {error}"));
        }
        let events = self.world.events.of_agent(&call.id);
        let contact = Contact { memory: None, inbox: None, ..self.world.contact.clone() };
        // Whoever is asked is asked about these calls, too; words are for the first agent.
        let contact = Contact { inbox: self.world.contact.inbox.as_ref().map(Inbox::for_answers), ..contact };
        let world = World { events: &events, dir, persistence: None, contact: &contact, ..*self.world };
        // A loop within a loop.
        let ending = Box::pin(super::run(&task, &world)).await;
        let usage = Tokens {
            input: ending.usage.input_tokens,
            output: ending.usage.output_tokens,
            cache_creation: ending.usage.cache_creation_input_tokens,
            cache_read: ending.usage.cache_read_input_tokens,
        };
        let (text, is_error) = match ending.failure {
            None if ending.text.trim().is_empty() => ("The agent ended without a word.".to_owned(), false),
            None => (ending.text, false),
            Some((_, reason)) => {
                (format!("The agent did not come to an end: {reason}\n\n{}", ending.text), true)
            }
        };
        Answer { is_error, usage, ..Answer::ok(text.trim_end().to_owned()) }
    }

    fn sub_task(&self, prompt: &str) -> Agent {
        let (task, given) = (self.task, self.task.sub_agent.as_deref());
        let mut budget = given.map(|sub| sub.budget).unwrap_or_default();
        // What is left of ours is the most that it can have.
        let (tokens, usd) = self.meter.left();
        budget.tokens = match (budget.tokens, tokens) {
            (Some(own), Some(left)) => Some(own.min(left)),
            (own, left) => own.or(left),
        };
        budget.usd = usd;
        let tools = match given {
            Some(sub) => sub.tools.clone(),
            None => task.tools.iter().copied().filter(|tool| *tool != Tool::Agent).collect(),
        };
        let model = given.map(|sub| sub.model.clone()).filter(|model| !model.is_empty());
        let message = json!({"role": "user", "content": prompt}).to_string();
        Agent {
            model: model.unwrap_or_else(|| self.started.model.clone()),
            tools,
            max_turns: given.map_or(TURNS, |sub| sub.max_turns),
            messages: vec![Message(message)],
            budget,
            output_schema: None,
            sub_agent: None,
            mcp_servers: Vec::new(),
            live_usage: false,
            ..task.clone()
        }
    }
}
