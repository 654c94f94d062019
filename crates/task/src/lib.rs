//! The task door: agents and workflows in pods (docs/task.md, docs/protocols/task.md).
//!
//! A task comes by environment, stdin or from a hub that is polled; what happens goes to a
//! callback URL, in order and without loss. The hands are shared with the other doors.

mod abort;
mod agent;
mod clients;
mod config;
mod deliver;
mod events;
mod hands;
mod inbox;
mod journal;
mod leftovers;
pub mod log;
mod masks;
mod place;
mod random;
mod secrets;
mod settings;
mod source;
mod standby;
mod task;
mod tools;
mod workflow;
mod world;

pub use abort::{Abort, Why};
pub use agent::Memory;
pub use config::{
    Agent, Budget, Compaction, MAX_CONFIG, McpServer, Message, Price, Problems, Rules, SubAgent, Task,
};
pub use events::Events;
pub use inbox::Inbox;
pub use masks::Masks;
pub use settings::{Environment, Mode, PROVIDER_SECRETS, Settings, Standby};
pub use task::{Contact, Order, Outcome, Runner};
pub use tools::{Official, Tool};
pub use workflow::{missing_actions, workflow_of_file};

/// Entry points for fuzzing.
#[doc(hidden)]
pub mod fuzzing {
    use crate::config::{Rules, Task};
    use crate::workflow::workflow_of_file;

    /// Reads bytes as everything that a stranger sends: a task, a workflow's file, a hub's
    /// answer, a stream of the model.
    pub fn read(data: &[u8]) {
        let models = ["m".to_owned()];
        let rules = Rules { models: Some(&models), provider: &legwork_messages::Provider::Anthropic };
        if let Ok(node) = legwork_yaml::parse_json(data) {
            let _ = Task::read(&node, rules);
        }
        crate::standby::fuzz(data);
        let Ok(text) = std::str::from_utf8(data) else { return };
        if let Ok(node) = legwork_yaml::parse(text) {
            if let Ok(workflow) = workflow_of_file(&node, rules) {
                assert!(workflow.steps() <= 10_000);
            }
            // As text and back it is the same.
            let json = legwork_yaml::parse_json(node.to_json_text().as_bytes()).map(|n| n.to_json());
            assert_eq!(json, Ok(node.to_json()));
        }
        legwork_messages::fuzz(text);
    }
}
