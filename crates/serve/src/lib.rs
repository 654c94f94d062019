//! The workspace server: terminals, files and storage for a browser.

mod access;
mod app;
mod client;
mod command;
mod engine;
mod exposure;
mod http;
mod ids;
mod json;
mod metrics;
mod paths;
mod ports;
mod requests;
mod room;
mod scan;
mod seats;
mod server;
mod settings;
mod socketio;
mod storage;
mod terminal;
mod tree;
mod usage;
mod watching;

/// What strangers send, for the fuzzer.
#[doc(hidden)]
pub mod fuzzing {
    /// Reads bytes as everything that clients send.
    pub fn wire(data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        for packet in crate::engine::packet::decode_body(&text).unwrap_or_default() {
            if let crate::engine::packet::Incoming::Message(message) = packet {
                let _ = crate::socketio::decode(&message);
            }
        }
        let _ = crate::socketio::decode(&text);
        crate::http::fuzz(&text);
        crate::http::fuzz_page(data);
        let whole = crate::terminal::journal::whole_characters(data);
        assert!(whole <= data.len() && data.len() - whole < 4);
        let names = crate::paths::Names::new("/workspace", "/srv/real");
        if let Ok(path) = names.relative(&text) {
            let bad = path.split('/').any(|part| matches!(part, "." | "..")) || path.starts_with('/');
            assert!(!bad && !path.contains('\0'), "{text:?} became {path:?}");
        }
        let mut screen = crate::terminal::screen(data.first().copied().unwrap_or(80));
        let _ = screen.process(data, crate::terminal::Colours::default());
        let _ = screen.snapshot();
    }
}

pub use server::{Server, StartError};
pub use settings::{Invalid, Settings};
