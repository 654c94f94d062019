//! The tools of an agent: the five of the protocol (docs/protocols/task.md §9), ours, and those
//! of the official toolsets under their own names.

mod background;
mod definition;
mod edit;
mod files;
mod media;
mod official;
mod search;
mod session;
mod shell;
mod text;
mod todo;
mod web;

use std::path::PathBuf;

use legwork_runner::Requester;
use serde_json::{Map, Value};

use crate::abort::Abort;
use crate::hands::Hands;
pub(crate) use background::Background;
pub use official::Official;
pub(crate) use session::Session;
pub(crate) use todo::shown;

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
    /// `edit`
    Edit,
    /// `glob`
    Glob,
    /// `web_fetch`
    WebFetch,
    /// `todo`
    Todo,
    /// `background`
    Background,
    /// `agent`
    Agent,
    /// One of an official toolset.
    Official(Official),
}

impl Tool {
    /// Asks for all of ours that work with files and commands.
    pub const WHOLE: &str = "legwork";

    const PROTOCOL: [Self; 5] = [Self::ReadFile, Self::WriteFile, Self::ListFiles, Self::Grep, Self::Shell];
    const OURS: [Self; 6] =
        [Self::Edit, Self::Glob, Self::WebFetch, Self::Todo, Self::Background, Self::Agent];
    /// What [`Self::WHOLE`] stands for: nothing that leaves the machine, and no further agents.
    const SET: [Self; 9] = [
        Self::ReadFile,
        Self::WriteFile,
        Self::Edit,
        Self::ListFiles,
        Self::Glob,
        Self::Grep,
        Self::Shell,
        Self::Background,
        Self::Todo,
    ];

    /// The tools that a word in a task's list asks for; none if there is nothing of that name.
    pub fn asked_for(word: &str) -> Vec<Self> {
        if word == Self::WHOLE {
            return Self::SET.to_vec();
        }
        let ours = Self::PROTOCOL.into_iter().chain(Self::OURS).find(|tool| tool.name() == word);
        match ours {
            Some(tool) => vec![tool],
            None => Official::asked_for(word).iter().copied().map(Self::Official).collect(),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadFile => "read_file",
            Self::WriteFile => "write_file",
            Self::ListFiles => "list_files",
            Self::Grep => "grep",
            Self::Shell => "shell",
            Self::Edit => "edit",
            Self::Glob => "glob",
            Self::WebFetch => "web_fetch",
            Self::Todo => "todo",
            Self::Background => "background",
            Self::Agent => "agent",
            Self::Official(tool) => tool.name(),
        }
    }

    /// Whether the original has it.
    pub fn is_of_protocol(self) -> bool {
        Self::PROTOCOL.contains(&self)
    }

    /// Whether it leaves everything as it is: such calls may run side by side, and again.
    pub fn is_read_only(self) -> bool {
        match self {
            Self::ReadFile | Self::ListFiles | Self::Grep | Self::Glob | Self::WebFetch | Self::Todo => true,
            Self::Official(tool) => tool.is_read_only(),
            _ => false,
        }
    }

    /// Whether a call of it that an earlier process began is found again and gone on with.
    pub(crate) fn is_found_again(self) -> bool {
        matches!(self, Self::Shell | Self::Agent) || matches!(self, Self::Official(tool) if tool.is_shell())
    }
}

/// A tool's answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) is_error: bool,
    /// What the model gets beside the text: pictures, documents.
    pub(crate) blocks: Vec<Value>,
    /// What an agent of its own has used.
    pub(crate) usage: crate::journal::Tokens,
}

impl Answer {
    pub(crate) fn ok(text: String) -> Self {
        Self { text, ..Self::default() }
    }

    /// A tool's own error.
    pub(crate) fn error(cause: impl std::fmt::Display) -> Self {
        Self { text: format!("Error: {cause}"), is_error: true, ..Self::default() }
    }

    /// The call itself could not be carried out.
    pub(crate) fn raised(cause: impl std::fmt::Display) -> Self {
        Self { text: format!("Tool execution error: {cause}"), is_error: true, ..Self::default() }
    }
}

/// What tools work with.
pub(crate) struct Bench<'a> {
    pub(crate) hands: &'a Hands,
    pub(crate) requester: &'a Requester,
    pub(crate) abort: &'a Abort,
    /// For the file of a command, one for each call.
    pub(crate) file: PathBuf,
    /// Where a shell keeps its place; `None` if each call starts anew.
    pub(crate) session: Option<&'a Session>,
    pub(crate) background: &'a Background,
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
        Tool::Edit => edit::edit(input, bench).await,
        Tool::Glob => search::glob(input, bench).await,
        Tool::WebFetch => web::fetch(input, bench).await,
        Tool::Todo => todo::keep(input),
        Tool::Background => background::see_to(input, bench).await,
        Tool::Official(tool) => return official::call(tool, input, bench).await,
        // The loop starts it.
        Tool::Agent => Err("an agent can't be started here".to_owned()),
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

    fn list(self, name: &str) -> Result<&'a [Value], String> {
        match self.0.get(name) {
            Some(Value::Array(list)) => Ok(list),
            None => Err(format!("{name} is required")),
            Some(_) => Err(format!("{name} must be a list")),
        }
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
