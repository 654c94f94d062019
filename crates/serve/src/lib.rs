//! The workspace server: terminals, files and storage for a browser.

mod access;
mod app;
mod client;
mod engine;
mod http;
mod ids;
mod metrics;
mod paths;
mod ports;
mod requests;
mod room;
mod scan;
mod server;
mod settings;
mod socketio;
mod storage;
mod terminal;
mod tree;
mod usage;
mod watching;

pub use server::{Server, StartError};
pub use settings::{Invalid, Settings};
