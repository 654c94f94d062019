//! The dial-out door: one outbound WebSocket to a hub, tasks in, results out.
//!
//! Knows the protocol (docs/protocols/dialout.md) and delivery; files and
//! processes are the runner's. Tasks belong to [`tasks::Tasks`] and live on while
//! connections come and go; a connection is a [`session`].

mod clock;
pub mod config;
mod connect;
mod handshake;
mod ids;
mod operations;
mod outbox;
mod proxy;
mod service;
mod session;
mod store;
mod tasks;
mod tickets;

pub use service::{Service, Shutdown, running, serve};
