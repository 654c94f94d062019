//! What people say to tasks that run: words for an agent, and answers to what it asks. It is on disk
//! before it is answered, and goes to the task's runner with the answer to its heartbeat.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use legwork_proto::task::{Input, Permission};
use serde_json::{Value, json};

use crate::engine::Hub;
use crate::events::Kind;

/// Most of it that one task is told.
const MOST: usize = 1000;

/// By task, all that was said to it.
#[derive(Debug, Default)]
pub(super) struct Inputs(Mutex<HashMap<u32, Vec<Input>>>);

/// Why nothing is told.
#[derive(Debug)]
pub(crate) enum TellError {
    /// The task is over, or there is none.
    Over,
    TooMany,
    Io(io::Error),
}

fn file(data: &Path, task: u32) -> PathBuf {
    data.join("inputs").join(format!("{task}.jsonl"))
}

/// What a file holds; half a line was never answered.
fn read(path: &Path) -> Vec<Input> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn append(path: &Path, input: &Input) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut line = serde_json::to_vec(input)?;
    line.push(b'\n');
    let mut file = fs::File::options().create(true).append(true).open(path)?;
    file.write_all(&line)?;
    file.sync_data()
}

impl Hub {
    /// Tells a task something.
    pub(crate) fn tell_pod_task(
        &self,
        task: u32,
        by: String,
        say: Option<String>,
        answer: Option<Permission>,
    ) -> Result<(), TellError> {
        let mut inputs = self.pods.inputs.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut live = self.pods.lock();
        let Some(running) = live.tasks.get_mut(&task).filter(|task| !task.closing) else {
            return Err(TellError::Over);
        };
        let path = file(&self.data, task);
        let all = inputs.entry(task).or_insert_with(|| read(&path));
        if all.len() >= MOST {
            return Err(TellError::TooMany);
        }
        let seq = all.last().map_or(1, |last| last.seq + 1);
        let input = Input { seq, by, say, answer };
        append(&path, &input).map_err(TellError::Io)?;
        // Whoever looks on sees it, too.
        let event = json!({
            "type": "input", "seq": seq, "by": input.by, "say": input.say, "answer": input.answer,
        });
        if let Err(error) = running.tell(Kind::State, event.to_string().as_bytes()) {
            tracing::error!("failed to write a task's events: {error}");
        }
        all.push(input);
        drop((live, inputs));
        self.pods.wake();
        Ok(())
    }

    /// What a runner has not heard yet of what its task was told.
    pub(crate) fn inputs_for(&self, runner: &str, seen: u64) -> Vec<Value> {
        let mut inputs = self.pods.inputs.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.pods.lock();
        // What is over needs no more of it.
        inputs.retain(|task, _| {
            let lives = live.tasks.contains_key(task);
            if !lives {
                let _ = fs::remove_file(file(&self.data, *task));
            }
            lives
        });
        let Some(task) = live.runners.get(runner).and_then(|runner| runner.task) else { return Vec::new() };
        let all = inputs.entry(task).or_insert_with(|| read(&file(&self.data, task)));
        let new = all.iter().filter(|input| input.seq > seen);
        new.filter_map(|input| serde_json::to_value(input).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_was_never_said() {
        let dir = tempfile::tempdir().expect("dir");
        let path = file(dir.path(), 7);
        assert!(read(&path).is_empty());
        let input = Input { seq: 1, by: "a".into(), say: Some("b\nc".into()), answer: None };
        append(&path, &input).expect("appended");
        fs::File::options()
            .append(true)
            .open(&path)
            .and_then(|mut f| f.write_all(b"{\"seq\":2"))
            .expect("cut");
        assert_eq!(read(&path), [input]);
    }
}
