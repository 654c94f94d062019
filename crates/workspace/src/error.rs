//! What can go wrong with a file, in the words of the dial-out protocol
//! (`docs/protocols/dialout.md` §7 and §8).

use std::io;
use std::path::PathBuf;

/// A failed operation on the workspace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path leads out of the root by its own words.
    #[error("path is outside workspace root: {path}")]
    Outside {
        /// The path as given.
        path: String,
    },
    /// The path leads out of the root by a symlink.
    #[error("path escapes workspace root via symlink: {path}")]
    Escapes {
        /// The path as given.
        path: String,
    },
    /// A system call failed.
    #[error("{}{call} {}: {}", prefix(action), path.display(), strerror(source))]
    Io {
        /// What was being done ("failed to …"), if the protocol names it.
        action: &'static str,
        /// The call that failed.
        call: &'static str,
        /// The absolute path it failed on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory where a file is needed.
    #[error("cannot read a directory: {path}")]
    IsDirectory {
        /// The path as given.
        path: String,
    },
    /// A device, FIFO or socket where a file is needed.
    #[error("not a regular file: {path}")]
    NotAFile {
        /// The path as given.
        path: String,
    },
    /// A glob that can't be read.
    #[error("failed to glob: syntax error in pattern")]
    BadGlob,
    /// A regular expression or filter that can't be read.
    #[error("invalid pattern: {0}")]
    BadPattern(String),
    /// A bound was hit.
    #[error("{what} exceeds the limit of {limit}; narrow the request")]
    TooMuch {
        /// What there was too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}

impl Error {
    /// Shorthand for a failed call.
    pub(crate) fn io(
        action: &'static str,
        call: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { action, call, path: path.into(), source: source.into() }
    }
}

fn prefix(action: &str) -> String {
    if action.is_empty() { String::new() } else { format!("failed to {action}: ") }
}

/// The system's text for an error, in lower case and without its number.
pub fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
