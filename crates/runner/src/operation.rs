//! What can be asked of a runner, and what comes of it.

use std::path::PathBuf;
use std::time::Duration;

use legwork_workspace::{Entry, FileData, GrepMatch};

use crate::output::Large;

/// Who asks, for the audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requester {
    /// The door: `dialout`, …
    pub door: &'static str,
    /// The controller, as far as the door knows it.
    pub who: String,
    /// The request's id at that door.
    pub task_id: String,
}

/// A shell line to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bash {
    /// The line.
    pub command: String,
    /// The folder, beneath the root.
    pub workdir: String,
    /// Wall time.
    pub timeout: Duration,
}

/// An operation that is carried out at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read a part of a file.
    Read {
        /// The file.
        path: String,
        /// First byte.
        offset: u64,
        /// Bytes; 0 to the end.
        limit: u64,
    },
    /// Replace a file.
    Write {
        /// The file.
        path: String,
        /// Its content.
        data: Vec<u8>,
    },
    /// List a folder.
    List {
        /// The folder.
        path: String,
        /// All levels.
        recursive: bool,
        /// Globs of names to leave out.
        ignore: Vec<String>,
    },
    /// Find files by name.
    Glob {
        /// The pattern.
        pattern: String,
    },
    /// Find lines.
    Grep {
        /// The regular expression.
        pattern: String,
        /// Globs of files.
        include: Vec<String>,
    },
}

impl Operation {
    /// The operation's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::List { .. } => "list",
            Self::Glob { .. } => "glob",
            Self::Grep { .. } => "grep",
        }
    }

    /// What it is about: a path or a pattern.
    pub fn subject(&self) -> &str {
        match self {
            Self::Read { path, .. } | Self::Write { path, .. } | Self::List { path, .. } => path,
            Self::Glob { pattern } | Self::Grep { pattern, .. } => pattern,
        }
    }
}

/// What an [`Operation`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The part of the file.
    Read(FileData),
    /// Written.
    Write,
    /// The entries.
    List(Vec<Entry>),
    /// The paths.
    Glob(Vec<PathBuf>),
    /// The lines, and the same as text.
    Grep {
        /// By path, then line.
        matches: Vec<GrepMatch>,
        /// `path:line:text` lines.
        text: Large,
    },
}

/// What a shell line came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BashOutput {
    /// Standard output, or a preview.
    pub stdout: Large,
    /// Standard error; its middle is left out where it is long.
    pub stderr: String,
    /// The exit status; `None` after a signal.
    pub exit_code: Option<i32>,
    /// Set if the line was ended from outside.
    pub ended_by: Option<crate::process::EndedBy>,
}

/// Why an operation was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The policy said no.
    #[error("{0}")]
    Denied(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// It was started and its end is unknown.
    #[error("{0}")]
    Lost(String),
}
