//! The task door: agents and workflows in pods (docs/task.md, docs/protocols/task.md).
//!
//! A task comes by environment, stdin or from a hub that is polled; what happens goes to a
//! callback URL, in order and without loss. The hands are shared with the other doors.

mod abort;
mod agent;
mod config;
mod deliver;
mod events;
mod hands;
mod journal;
pub mod log;
mod messages;
mod random;
mod settings;
mod standby;
mod task;
mod tools;
mod workflow;

pub use abort::{Abort, Why};
pub use config::{Agent, Budget, MAX_CONFIG, McpServer, Message, Price, Problems, Rules, Task};
pub use events::{Events, Masks};
pub use settings::{Api, DEFAULT_MODELS, Environment, Mode, Secret, Settings, Standby};
pub use task::{Order, Outcome, Runner};
pub use tools::Tool;
pub use workflow::Workflow;
