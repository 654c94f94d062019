//! The five tools of the protocol (docs/protocols/task.md §9).

mod files;
mod search;
mod shell;
mod text;

use std::path::PathBuf;

use legwork_runner::Requester;
use serde_json::{Map, Value, json};

use crate::abort::Abort;
use crate::hands::Hands;

/// A tool by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `read_file`
    ReadFile,
    /// `write_file`
    WriteFile,
    /// `list_files`
    ListFiles,
    /// `grep`
    Grep,
    /// `shell`
    Shell,
}

impl Tool {
    const ALL: [Self; 5] = [Self::ReadFile, Self::WriteFile, Self::ListFiles, Self::Grep, Self::Shell];

    /// The tool of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadFile => "read_file",
            Self::WriteFile => "write_file",
            Self::ListFiles => "list_files",
            Self::Grep => "grep",
            Self::Shell => "shell",
        }
    }

    /// Whether it leaves everything as it is: such calls may run side by side, and again.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::ReadFile | Self::ListFiles | Self::Grep)
    }

    /// What the model is told of it.
    pub(crate) fn definition(self) -> Value {
        let (description, properties, required) = match self {
            Self::ReadFile => (
                "Read a text file of the workspace, or a range of its lines.",
                json!({
                    "path": {"type": "string", "description": "Path of the file, relative to the workspace"},
                    "start_line": {"type": "integer", "description": "First line, from 1"},
                    "end_line": {"type": "integer", "description": "Last line, included"},
                }),
                json!(["path"]),
            ),
            Self::WriteFile => (
                "Write a file of the workspace as a whole, or add to its end. Folders are made as needed.",
                json!({
                    "path": {"type": "string", "description": "Path of the file, relative to the workspace"},
                    "content": {"type": "string", "description": "The text"},
                    "append": {"type": "boolean", "description": "Add to the end instead", "default": false},
                }),
                json!(["path", "content"]),
            ),
            Self::ListFiles => (
                "List a folder of the workspace, or the files that match a pattern with * and ?.",
                json!({
                    "path": {"type": "string", "description": "Folder, file or pattern", "default": "."},
                    "recursive": {"type": "boolean", "description": "All files beneath it", "default": false},
                    "include_hidden": {"type": "boolean", "description": "Names that start with a dot, too", "default": false},
                    "max_results": {"type": "integer", "description": "Most lines of the answer", "default": 200},
                }),
                json!([]),
            ),
            Self::Grep => (
                "Find lines by a basic regular expression, as `grep -rn` does.",
                json!({
                    "pattern": {"type": "string", "description": "Basic regular expression"},
                    "path": {"type": "string", "description": "File or folder", "default": "."},
                    "include": {"type": "string", "description": "Only files whose name matches this glob"},
                    "ignore_case": {"type": "boolean", "description": "Upper and lower case are alike", "default": false},
                    "max_results": {"type": "integer", "description": "Most lines of the answer", "default": 100},
                }),
                json!(["pattern"]),
            ),
            Self::Shell => (
                "Run a command with /bin/sh in the workspace. The answer has its output and exit status.",
                json!({
                    "command": {"type": "string", "description": "The command"},
                    "working_directory": {"type": "string", "description": "Folder of the workspace", "default": "."},
                    "timeout": {"type": "integer", "description": "Seconds it may take", "default": 60},
                }),
                json!(["command"]),
            ),
        };
        let schema = json!({"type": "object", "properties": properties, "required": required});
        json!({"name": self.name(), "description": description, "input_schema": schema})
    }
}

/// A tool's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) is_error: bool,
}

impl Answer {
    pub(crate) fn ok(text: String) -> Self {
        Self { text, is_error: false }
    }

    /// A tool's own error.
    pub(crate) fn error(cause: impl std::fmt::Display) -> Self {
        Self { text: format!("Error: {cause}"), is_error: true }
    }

    /// The call itself could not be carried out.
    pub(crate) fn raised(cause: impl std::fmt::Display) -> Self {
        Self { text: format!("Tool execution error: {cause}"), is_error: true }
    }
}

/// What tools work with.
pub(crate) struct Bench<'a> {
    pub(crate) hands: &'a Hands,
    pub(crate) requester: &'a Requester,
    pub(crate) abort: &'a Abort,
    /// For the file of a command, one for each call.
    pub(crate) file: PathBuf,
}

/// Calls a tool.
pub(crate) async fn call(tool: Tool, input: &Map<String, Value>, bench: &Bench<'_>) -> Answer {
    let input = Input(input);
    let answer = match tool {
        Tool::ReadFile => files::read(input, bench).await,
        Tool::WriteFile => files::write(input, bench).await,
        Tool::ListFiles => files::list(input, bench).await,
        Tool::Grep => search::grep(input, bench).await,
        Tool::Shell => shell::run(input, bench).await,
    };
    answer.unwrap_or_else(Answer::error)
}

/// A call's arguments.
#[derive(Clone, Copy)]
struct Input<'a>(&'a Map<String, Value>);

impl<'a> Input<'a> {
    fn text(self, name: &str) -> Result<Option<&'a str>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{name} must be a string")),
        }
    }

    /// An empty one counts as none.
    fn needed(self, name: &str) -> Result<&'a str, String> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| format!("{name} is required"))
    }

    fn flag(self, name: &str) -> Result<bool, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(format!("{name} must be true or false")),
        }
    }

    /// What is no positive number counts as 0.
    fn number(self, name: &str, default: u64) -> Result<u64, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Number(n)) if n.is_i64() || n.is_u64() => Ok(n.as_u64().unwrap_or(0)),
            Some(_) => Err(format!("{name} must be an integer")),
        }
    }

    fn count(self, name: &str, default: u64) -> Result<usize, String> {
        const MOST: u64 = 100_000;
        let wanted = self.number(name, default)?;
        Ok(usize::try_from(wanted.min(MOST)).unwrap_or(usize::MAX))
    }
}
