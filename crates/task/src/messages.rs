//! A client of the Messages API: streaming only, typed as far as a runner needs it; blocks it
//! does not know go back to the API as they came.
//!
//! Checked against the official SDKs (npm `@anthropic-ai/sdk` 1.12, PyPI `anthropic` 2.12).

mod attempt;
mod client;
mod message;

pub(crate) use client::{ApiError, Client, Kind, Live, Observer};
pub(crate) use message::{Message, StopReason, ToolUse, Usage};
pub(crate) use message::{fuzz, tool_uses};
