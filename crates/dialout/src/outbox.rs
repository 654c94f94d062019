//! Results on their way: kept until the hub surely has them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;

/// Results of reads kept in memory; what exceeds it waits on disk.
const MAX_MEMORY: usize = 64 << 20;

/// Where a result's text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    Memory(String),
    /// In the journal of tasks.
    Journal,
    /// In a file of its own.
    File(PathBuf),
}

/// A result.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) message_id: String,
    pub(crate) task_id: String,
    pub(crate) text: Text,
    /// The command's file, for a shell line.
    pub(crate) record: Option<String>,
    /// The connection it was last written to.
    sent_on: Option<u64>,
    sends: u32,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    memory: usize,
}

/// All results on their way, in order.
#[derive(Debug)]
pub(crate) struct Outbox {
    spill: PathBuf,
    state: Mutex<State>,
}

impl Outbox {
    /// `spill` is a folder for what memory should not hold; it is emptied, as reads
    /// of an earlier process are simply asked for again.
    pub(crate) fn new(spill: PathBuf) -> std::io::Result<Self> {
        if spill.exists() {
            std::fs::remove_dir_all(&spill)?;
        }
        std::fs::create_dir_all(&spill)?;
        Ok(Self { spill, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a result that is in the journal of tasks.
    pub(crate) fn add_journalled(&self, task_id: &str, message_id: &str, record: Option<String>) {
        self.push(task_id, message_id, Text::Journal, record);
    }

    /// Adds a result that is nowhere else; `record` is the file of a shell line.
    pub(crate) fn add(&self, task_id: &str, message_id: &str, text: String, record: Option<String>) {
        let fits = self.state().memory + text.len() <= MAX_MEMORY;
        let text = if fits {
            self.state().memory += text.len();
            Text::Memory(text)
        } else {
            let path = self.spill.join(message_id);
            match std::fs::write(&path, &text) {
                Ok(()) => Text::File(path),
                // A full disk as well: memory has to do.
                Err(_) => {
                    self.state().memory += text.len();
                    Text::Memory(text)
                }
            }
        };
        self.push(task_id, message_id, text, record);
    }

    fn push(&self, task_id: &str, message_id: &str, text: Text, record: Option<String>) {
        let entry = Entry {
            message_id: message_id.into(),
            task_id: task_id.into(),
            text,
            record,
            sent_on: None,
            sends: 0,
        };
        self.state().entries.push_back(entry);
    }

    /// Results that were not yet sent on this connection, oldest first.
    pub(crate) fn unsent(&self, connection: u64) -> Vec<Entry> {
        self.state().entries.iter().filter(|e| e.sent_on != Some(connection)).cloned().collect()
    }

    /// A result by its message, if it is still here.
    pub(crate) fn get(&self, message_id: &str) -> Option<Entry> {
        self.state().entries.iter().rev().find(|e| e.message_id == message_id).cloned()
    }

    /// The result of a task, if it is still here.
    pub(crate) fn of_task(&self, task_id: &str) -> Option<Entry> {
        self.state().entries.iter().find(|e| e.task_id == task_id).cloned()
    }

    /// Marks a result as handed to a connection; false if it was already, or is gone.
    pub(crate) fn claim(&self, message_id: &str, connection: u64) -> bool {
        let mut state = self.state();
        let Some(entry) = state.entries.iter_mut().find(|e| e.message_id == message_id) else { return false };
        if entry.sent_on == Some(connection) {
            return false;
        }
        entry.sent_on = Some(connection);
        entry.sends += 1;
        true
    }

    /// How often a result was handed to a connection.
    pub(crate) fn sends(&self, message_id: &str) -> u32 {
        self.state().entries.iter().find(|e| e.message_id == message_id).map_or(0, |e| e.sends)
    }

    /// Forgets a result that has arrived.
    pub(crate) fn remove(&self, message_id: &str) -> Option<Entry> {
        let mut state = self.state();
        let at = state.entries.iter().position(|e| e.message_id == message_id)?;
        let entry = state.entries.remove(at)?;
        match &entry.text {
            Text::Memory(text) => state.memory -= text.len(),
            Text::File(path) => {
                let _ = std::fs::remove_file(path);
            }
            Text::Journal => {}
        }
        Some(entry)
    }

    /// The files of commands whose results are here.
    pub(crate) fn records(&self) -> Vec<String> {
        self.state().entries.iter().filter_map(|entry| entry.record.clone()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state().entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_sent_once_per_connection_and_memory_is_bounded() {
        let dir = tempfile::tempdir().expect("tempdir");
        let outbox = Outbox::new(dir.path().join("spill")).expect("outbox");
        outbox.add("t1", "m1", "x".repeat(MAX_MEMORY), None);
        outbox.add("t2", "m2", "spilled".into(), None);
        assert!(matches!(outbox.of_task("t2").expect("there").text, Text::File(_)));
        assert!(outbox.claim("m1", 1));
        assert!(!outbox.claim("m1", 1));
        assert_eq!(outbox.unsent(1).len(), 1);
        assert_eq!(outbox.unsent(2).len(), 2);
        assert!(outbox.claim("m1", 2));
        assert_eq!(outbox.sends("m1"), 2);
        outbox.remove("m1");
        outbox.add("t3", "m3", "fits again".into(), None);
        assert!(matches!(outbox.of_task("t3").expect("there").text, Text::Memory(_)));
        outbox.remove("m2");
        outbox.remove("m3");
        assert!(outbox.is_empty());
        assert_eq!(std::fs::read_dir(dir.path().join("spill")).expect("dir").count(), 0);
    }
}
