//! What can be asked of a runner, and what comes of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use legwork_mcp::{Server, Tool};
use legwork_policy::Verdict;
use tokio::sync::watch;

use legwork_workspace::{Entry, FileData, GrepMatch};

use crate::fetch::Fetch;
use crate::output::Large;

/// The wish that a request end early.
#[derive(Debug, Default)]
pub struct Cancel {
    flag: AtomicBool,
    sender: watch::Sender<bool>,
}

impl Cancel {
    /// Wishes it.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.sender.send_replace(true);
    }

    /// Waits for the wish.
    pub async fn cancelled(&self) {
        // The sender lives as long as we do.
        let _ = self.sender.subscribe().wait_for(|c| *c).await;
    }

    /// The wish, for what looks every now and then.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }
}

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

/// An operation that is carried out at once.
#[derive(Debug, Clone, PartialEq)]
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
    /// Replace a folder by the contents of a zip archive.
    SyncSkill {
        /// The folder.
        dir: String,
        /// The archive.
        zip: Vec<u8>,
        /// `sha256:HEX` is verified; it is stored beside the contents in any case.
        checksum: String,
    },
    /// Fetch a web page.
    Fetch(Fetch),
    /// Call a tool of an MCP server.
    McpCall {
        /// The server.
        server: Box<Server>,
        /// The tool.
        tool: String,
        /// Its arguments.
        arguments: serde_json::Map<String, serde_json::Value>,
        /// For the answer.
        timeout: Duration,
    },
    /// List the tools of an MCP server.
    McpList {
        /// The server.
        server: Box<Server>,
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
            Self::SyncSkill { .. } => "sync_skill",
            Self::Fetch(_) => "webfetch",
            Self::McpCall { .. } => "mcp_call",
            Self::McpList { .. } => "mcp_list_tools",
        }
    }

    /// What it is about: a path, a pattern, an address, a server.
    pub fn subject(&self) -> String {
        match self {
            Self::Read { path, .. } | Self::Write { path, .. } | Self::List { path, .. } => path.clone(),
            Self::Glob { pattern } | Self::Grep { pattern, .. } => pattern.clone(),
            Self::SyncSkill { dir, .. } => dir.clone(),
            Self::Fetch(fetch) => fetch.url.clone(),
            Self::McpCall { server, tool, .. } => format!("{tool} of {}", describe(server)),
            Self::McpList { server } => describe(server),
        }
    }
}

fn describe(server: &Server) -> String {
    match server.transport() {
        Some(legwork_mcp::Transport::Stdio) => format!("{}: {}", server.name, server.argv().join(" ")),
        _ => format!("{}: {}", server.name, server.url),
    }
}

/// What an [`Operation`] came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// The part of the file.
    Read(FileData),
    /// The file was written.
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
    /// The folder as it was given.
    SyncSkill(String),
    /// The page.
    Fetch {
        /// Its text.
        content: Large,
        /// Its address after redirects.
        url: String,
    },
    /// The tool's answer.
    McpCall {
        /// Its text.
        content: Large,
        /// The tool says that it failed.
        is_error: bool,
    },
    /// The server's tools.
    McpList(Vec<Tool>),
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
    /// Programs that gate or sandbox kept it from executing.
    pub blocked: Vec<String>,
}

/// Why an operation was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The policy said no.
    #[error("{0}")]
    Denied(Denial),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// It was started and its end is unknown.
    #[error("{0}")]
    Lost(String),
}

/// What the policy said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Denial {
    /// All of it, in words.
    pub text: String,
    /// A line that does the same and passes, where one is known.
    pub suggestion: Option<String>,
}

impl From<String> for Denial {
    fn from(text: String) -> Self {
        Self { text, suggestion: None }
    }
}

impl Denial {
    /// What a verdict comes to that lets nothing run.
    pub(crate) fn of(verdict: &Verdict) -> Self {
        let text = verdict.message().unwrap_or_else(|| "command denied".into());
        Self { text, suggestion: verdict.suggestion.clone() }
    }
}
