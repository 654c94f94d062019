//! The ledger of a task: what was said, begun and done, so that whoever comes after a kill
//! goes on without repeating an effect blindly.
//!
//! A line is in the file before what it announces happens. That holds against the death of
//! the process, not of the machine: a pod's disk does not outlive that either.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use legwork_proto::task::{Body, StepState};
use serde::{Deserialize, Serialize};

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// What the model was told of its tools; which model it is, and what it was told beforehand.
    Start {
        tools: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<u64>,
    },
    /// What an earlier task has said and heard in the same session.
    Session { messages: Vec<String> },
    /// A whole message of the model, and the tokens that stand in its window after it.
    Turn {
        message: String,
        stop_reason: String,
        usage: Tokens,
        #[serde(default)]
        window: u64,
    },
    /// Failed attempts used this up.
    Wasted { usage: Tokens },
    /// A tool with effects is about to be called.
    Begin { id: String },
    /// A tool's answer; `blocks` are what the model gets of it beside text.
    End {
        id: String,
        text: String,
        is_error: bool,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocks: Vec<serde_json::Value>,
    },
    /// The answers as they are told to the model.
    Results { message: String },
    /// In the first messages old answers of tools are left out.
    Cleared { messages: usize },
    /// All but the first messages gave way to one that sums them up.
    Compacted { kept: usize, message: String },
    /// A step is about to run.
    StepBegin {
        index: u64,
        /// Which one of an action's.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        sub: String,
    },
    /// The steps of a row, or of a job of another workflow, have these numbers.
    Numbered { job: String, base: u64, steps: u64 },
    /// A step is over; what later ones see of it, and what is told of it.
    StepEnd {
        index: u64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        sub: String,
        state: StepState,
        outcome: StepState,
        left: Left,
        told: Body,
    },
    /// The task's last event.
    Ended { event: Body },
}

/// Tokens as the journal keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cache_creation: u64,
    pub(crate) cache_read: u64,
}

impl From<legwork_messages::Usage> for Tokens {
    fn from(usage: legwork_messages::Usage) -> Self {
        Self {
            input: usage.input,
            output: usage.output,
            cache_creation: usage.cache_creation,
            cache_read: usage.cache_read,
        }
    }
}

/// What a step leaves behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) outputs: std::collections::BTreeMap<String, String>,
    pub(crate) env: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) path: Vec<String>,
    /// For what an action does when the job is over.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) state: std::collections::BTreeMap<String, String>,
}

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Opens a journal, with what an earlier process wrote.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        let mut entries = Vec::new();
        let mut reader = BufReader::new(&file);
        let (mut line, mut whole) = (Vec::new(), 0u64);
        loop {
            line.clear();
            let len = reader.read_until(b'\n', &mut line)?;
            if len == 0 || !line.ends_with(b"\n") {
                break;
            }
            match serde_json::from_slice(&line) {
                Ok(entry) => entries.push(entry),
                Err(error) => return Err(io::Error::other(format!("line {}: {error}", entries.len() + 1))),
            }
            whole += len as u64;
        }
        // Half of a line was never acted upon.
        file.set_len(whole)?;
        Ok((Self { file }, entries))
    }

    /// Adds a line. On failure the file ends with the last whole one.
    pub(crate) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let len = self.file.metadata()?.len();
        self.file.write_all(&line).inspect_err(|_| drop(self.file.set_len(len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_forgotten() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("journal");
        let (mut journal, entries) = Journal::open(&path).expect("open");
        assert!(entries.is_empty());
        journal.add(&Entry::Begin { id: "a".into() }).expect("add");
        let mut file = File::options().append(true).open(&path).expect("open");
        file.write_all(b"{\"entry\":\"beg").expect("write");
        let (mut journal, entries) = Journal::open(&path).expect("open");
        assert_eq!(entries, [Entry::Begin { id: "a".into() }]);
        journal.add(&Entry::Begin { id: "b".into() }).expect("add");
        assert_eq!(Journal::open(&path).expect("open").1.len(), 2);
    }
}
