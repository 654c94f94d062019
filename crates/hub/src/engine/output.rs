//! Live output of runs: stored without a hole, or with one that is marked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use legwork_proto::dialout::{TaskOutput, TaskResult, TaskResume, kind};
use serde::Deserialize;

use super::Hub;
use super::deliver::message;
use crate::clock::Instant;
use crate::events::{Kind, Log};
use crate::fleet::{Kept, Link, LiveRun};

/// The JSON of an event that says that output is missing.
pub(crate) fn gap_event(run: &str, stream: Kind, from: u64, to: Option<u64>, reason: &str) -> Vec<u8> {
    let stream = if stream == Kind::Stderr { "stderr" } else { "stdout" };
    let event = serde_json::json!({ "run": run, "stream": stream, "from": from, "to": to, "reason": reason });
    serde_json::to_vec(&event).unwrap_or_default()
}

/// How long a result waits for output that is asked for again, after the last piece of it.
const HOLD: Duration = Duration::from_secs(10);

impl Hub {
    /// A result has come before all of its output: asks for that, and keeps the result until it
    /// is there. False if nothing is missing, or nobody would send it.
    pub(super) fn hold(&self, link: &Link, message_id: &str, result: &TaskResult) -> bool {
        let text = result.result.as_ref().map(|r| r.get()).unwrap_or_default();
        let mut fleet = self.fleet.lock();
        let Some(run) = fleet.runs.get_mut(&result.task_id) else { return false };
        let stored = if run.stalled { run.task.stored(run.ordinal) } else { run.offsets };
        let streams = link.ack && link.output && run.task.operation == "bash" && result.success;
        if run.held.is_some() || !streams || !is_missing(text, stored, self.settings.max_output) {
            return false;
        }
        run.held = Some(Arc::new((message_id.to_owned(), result.clone())));
        (run.offsets, run.stalled, run.heard) = (stored, false, Instant::now());
        let [stdout, stderr] = stored;
        link.send(message(kind::TASK_RESUME, &TaskResume { task_id: run.id.clone(), stdout, stderr }));
        true
    }

    /// Ends runs whose results waited for output that has come, or does not.
    pub(super) async fn let_go(self: &Arc<Self>) {
        let ready: Vec<(String, Arc<(String, TaskResult)>)> = {
            let fleet = self.fleet.lock();
            let is_ready = |run: &LiveRun, held: &TaskResult| {
                let text = held.result.as_ref().map(|r| r.get()).unwrap_or_default();
                let there = !run.stalled && !is_missing(text, run.offsets, self.settings.max_output);
                there || run.heard.elapsed() > HOLD
            };
            let runs = fleet.runs.values().filter(|run| !run.closing);
            runs.filter_map(|run| {
                Some((run.runner_id.clone(), run.held.clone().filter(|h| is_ready(run, &h.1))?))
            })
            .collect()
        };
        for (runner_id, held) in ready {
            self.result(&runner_id, held.0.clone(), held.1.clone()).await;
        }
    }

    /// Live output of a run. A gap is asked for again, what we have is skipped.
    pub(crate) async fn output(self: &Arc<Self>, runner_id: &str, output: TaskOutput) {
        let kind = if output.stream == "stderr" { Kind::Stderr } else { Kind::Stdout };
        let mut data = match &output.data_base64 {
            Some(text) => match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(data) => data,
                Err(error) => {
                    return tracing::warn!(run = %output.task_id, "skipped output that is no base64: {error}");
                }
            },
            None => output.data.into_bytes(),
        };
        let most = self.settings.max_output;
        let (run, offset, cut) = {
            let mut fleet = self.fleet.lock();
            let link = fleet.ready_link(runner_id).cloned();
            let Some(run) =
                fleet.runs.get_mut(&output.task_id).filter(|r| r.runner_id == runner_id && !r.closing)
            else {
                return;
            };
            run.heard = Instant::now();
            // It is asked for again when there is room.
            if run.stalled {
                return;
            }
            let next = &mut run.offsets[kind as usize];
            if output.offset > *next {
                tracing::warn!(run = %run.id, "output has a gap from {next} to {}; asked for it again", output.offset);
                if let Some(link) = link {
                    let [stdout, stderr] = run.offsets;
                    let resume = TaskResume { task_id: run.id.clone(), stdout, stderr };
                    link.send(message(kind::TASK_RESUME, &resume));
                }
                return;
            }
            let known = usize::try_from(*next - output.offset).unwrap_or(usize::MAX);
            if known >= data.len() {
                return;
            }
            data.drain(..known);
            let offset = *next;
            *next += data.len() as u64;
            let room = usize::try_from(most.saturating_sub(offset)).unwrap_or(usize::MAX);
            let is_cut = room < data.len();
            data.truncate(room);
            let first = is_cut && !std::mem::replace(&mut run.cut[kind as usize], is_cut);
            (run.clone(), offset, first)
        };
        self.counters.output_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if data.is_empty() && !cut {
            return;
        }
        let hub = self.clone();
        self.log
            .queue(data.len(), move || {
                if !data.is_empty() {
                    hub.keep_output(&run, kind, offset, &data);
                }
                if cut {
                    let reason = format!("the hub keeps {most} bytes of a stream");
                    run.task.append(|log| {
                        log.add(Kind::Gap, run.ordinal, most, &gap_event(&run.id, kind, most, None, &reason));
                    });
                }
            })
            .await;
    }

    /// Stores a piece; what can't be stored is asked for again later. On the writer's thread.
    fn keep_output(&self, run: &LiveRun, kind: Kind, offset: u64, data: &[u8]) {
        let kept = run.task.output(run.ordinal, kind, offset, data);
        if kept == Kept::Failed
            && let Some(run) = self.fleet.lock().runs.get_mut(&run.id)
        {
            run.stalled = true;
        }
    }

    /// Asks again for the output that could not be stored, and writes what is left to be
    /// written of tasks that are over.
    pub(super) fn catch_up(&self) {
        let mut fleet = self.fleet.lock();
        let stalled: Vec<String> =
            fleet.runs.values().filter(|run| run.stalled && !run.closing).map(|run| run.id.clone()).collect();
        for id in stalled {
            let Some(run) = fleet.runs.get(&id) else { continue };
            let Some(link) = fleet.ready_link(&run.runner_id).filter(|link| link.ack).cloned() else {
                continue;
            };
            let [stdout, stderr] = run.task.stored(run.ordinal);
            if let Some(run) = fleet.runs.get_mut(&id) {
                (run.offsets, run.stalled) = ([stdout, stderr], false);
            }
            link.send(message(kind::TASK_RESUME, &TaskResume { task_id: id, stdout, stderr }));
        }
        let unwritten = std::mem::take(&mut fleet.unwritten);
        drop(fleet);
        let left: Vec<_> = unwritten.into_iter().filter(|task| !task.append(|_| {})).collect();
        if !left.is_empty() {
            self.fleet.lock().unwritten.extend(left);
        }
    }
}

/// What a stream lacks of a result.
enum Tail<'a> {
    /// The result has it.
    Rest(&'a str),
    /// It is nowhere but at the runner: the whole is so long.
    Missing(u64),
}

#[derive(Deserialize)]
struct Shell {
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    total_size: u64,
}

impl Shell {
    /// What a stream lacks of which so much is stored.
    fn tail(&self, kind: Kind, stored: u64) -> Option<Tail<'_>> {
        let (text, said, truncated) = match kind {
            Kind::Stdout => (self.stdout.as_str(), self.total_size, self.truncated),
            // The word for a time limit is the runner's, and no output.
            _ => (self.stderr.strip_suffix("command timed out").unwrap_or(&self.stderr), 0, false),
        };
        let total = if said > 0 { said } else { text.len() as u64 };
        if total <= stored {
            return None;
        }
        if kind == Kind::Stderr && is_shortened(text) {
            return None;
        }
        // Bytes that are no text are not what they were.
        let whole = !truncated && text.len() as u64 == total && !text.contains('\u{fffd}');
        let rest = usize::try_from(stored).ok().and_then(|at| text.get(at..)).filter(|_| whole);
        Some(rest.map_or(Tail::Missing(total), Tail::Rest))
    }
}

/// Whether a result is of an output of which a part is only at the runner.
pub(super) fn is_missing(result: &str, stored: [u64; 2], most: u64) -> bool {
    let Ok(shell) = serde_json::from_str::<Shell>(result) else { return false };
    [Kind::Stdout, Kind::Stderr]
        .into_iter()
        .zip(stored)
        .any(|(kind, stored)| stored < most && matches!(shell.tail(kind, stored), Some(Tail::Missing(_))))
}

/// Adds to a run's events what its result has and its stream has not: the tail of an output
/// that a connection cut off, or a mark where it is missing.
pub(super) fn add_tail(log: &mut Log, run: &str, ordinal: u32, result: &str, most: u64) {
    let Ok(shell) = serde_json::from_str::<Shell>(result) else { return };
    for kind in [Kind::Stdout, Kind::Stderr] {
        let stored = log.stored(ordinal, kind);
        // More than that is not kept, and that was said.
        if stored >= most {
            continue;
        }
        match shell.tail(kind, stored) {
            Some(Tail::Rest(rest)) => log.add(kind, ordinal, stored, rest.as_bytes()),
            Some(Tail::Missing(total)) => {
                let reason = "the runner's connection was cut, and the rest did not arrive";
                log.add(Kind::Gap, ordinal, stored, &gap_event(run, kind, stored, Some(total), reason));
            }
            None => {}
        }
    }
}

/// Whether a text is as long as results let a standard error be: then it is its head and
/// its tail, and says nothing of the whole.
fn is_shortened(text: &str) -> bool {
    const MOST: usize = 30_000;
    text.len() >= MOST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Logs;

    fn after(stored: &[u8], result: &serde_json::Value) -> Vec<(Kind, u64, String)> {
        let dir = tempfile::tempdir().expect("tempdir");
        let logs = Logs::open(dir.path(), legwork_store::Lane::Caller).expect("open");
        let mut log = Log::new(logs.clone(), "tsk_1");
        if !stored.is_empty() {
            log.output(0, Kind::Stdout, 0, stored).expect("output");
        }
        let from = log.len();
        add_tail(&mut log, "run_1", 0, &result.to_string(), 1 << 20);
        log.flush().expect("flush");
        let frames = logs.read("tsk_1", from, usize::MAX).expect("read");
        frames
            .into_iter()
            .map(|frame| (frame.kind, frame.offset, String::from_utf8(frame.payload).expect("text")))
            .collect()
    }

    #[test]
    fn the_tail_of_a_cut_stream_is_added_or_its_absence_is_marked() {
        let small = serde_json::json!({ "stdout": "a\nb\n", "stderr": "", "exit_code": 0, "total_size": 4 });
        assert_eq!(after(b"a\n", &small), [(Kind::Stdout, 2, "b\n".to_owned())]);
        assert_eq!(after(b"a\nb\n", &small), []);
        let large = serde_json::json!({ "stdout": "<preview>", "exit_code": 0, "truncated": true, "total_size": 50_000 });
        let marked = after(b"a\n", &large);
        assert_eq!((marked[0].0, marked[0].1), (Kind::Gap, 2));
        assert!(marked[0].2.contains("\"to\":50000"), "{}", marked[0].2);
        let lossy = serde_json::json!({ "stdout": "a\u{fffd}b", "exit_code": 0, "total_size": 5 });
        assert_eq!(after(b"a", &lossy)[0].0, Kind::Gap);
        let errors = serde_json::json!({ "stdout": "", "stderr": "oops", "exit_code": 1 });
        assert_eq!(after(b"", &errors), [(Kind::Stderr, 0, "oops".to_owned())]);
    }
}
