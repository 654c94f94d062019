//! A client of the Messages API: streaming only, typed as far as a runner needs it; blocks it
//! does not know go back to the API as they came.
//!
//! Checked against the official SDKs (npm `@anthropic-ai/sdk` 1.12, PyPI `anthropic` 2.12).

mod attempt;
mod client;
mod message;
mod provider;

pub use client::{Api, ApiError, Client, Kind, Live, Model, Observer};
#[doc(hidden)]
pub use message::fuzz;
pub use message::tool_uses;
pub use message::{Message, StopReason, ToolUse, Usage};
pub use provider::{Bedrock, Provider, Vertex};
