//! The workspace server: terminals, files and storage for a browser.

mod access;
mod client;
mod engine;
mod http;
mod ids;
mod metrics;
mod paths;
mod requests;
mod room;
mod server;
mod settings;
mod socketio;
mod terminal;
mod tree;

pub use server::{Server, StartError};
pub use settings::{Invalid, Settings};
