//! The workspace server: terminals, files and storage for a browser.

mod access;
mod app;
mod command;
mod environment;
mod exposure;
mod files;
mod http;
mod member;
mod metrics;
mod paths;
mod ports;
mod queue;
mod requests;
mod scan;
mod server;
mod settings;
mod shells;
mod storage;
mod terminals;
mod tree;
mod usage;
mod vault;
mod viewing;
mod watching;
mod workspace;

/// What strangers send, for the fuzzer.
#[doc(hidden)]
pub mod fuzzing {
    /// Reads bytes as everything that clients send.
    pub fn wire(data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        legwork_socketio::fuzzing::wire(&text);
        legwork_terminal::fuzzing::show(data);
        crate::http::fuzz(&text);
        crate::http::fuzz_page(data);
        let names = crate::paths::Names::new("/workspace", "/srv/real");
        if let Ok(path) = names.relative(&text) {
            let bad = path.split('/').any(|part| matches!(part, "." | "..")) || path.starts_with('/');
            assert!(!bad && !path.contains('\0'), "{text:?} became {path:?}");
        }
    }
}

pub use server::{Server, StartError};
pub use settings::{Invalid, Settings};
