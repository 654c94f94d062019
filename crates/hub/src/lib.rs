//! The hub: one place to reach every runner from. It keeps runners, tasks and
//! tokens, and executes nothing itself.
//!
//! What it promises is in docs/hub.md; the runners' protocol in
//! docs/protocols/dialout.md.

mod api;
mod auth;
mod clock;
mod engine;
mod events;
mod fleet;
mod mcp;
mod model;
mod pieces;
mod pods;
mod secrets;
mod server;
mod session;
#[cfg(test)]
mod sim;
mod web;

pub use engine::{Hub, OpenError, Settings};
pub use model::{Role, State};
pub use server::{ListenError, Listening, Tls, listen};
