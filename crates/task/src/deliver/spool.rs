//! The queue of events: a file that grows at its end and is read from its front. What the
//! disk has no room for waits in memory; what memory has no room for waits at its source.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use legwork_proto::task::{Body, Event};
use tokio::sync::watch;

/// Most bytes that wait in memory when the disk is full.
const MAX_MEMORY: usize = 8 << 20;
/// Read at a time.
const READ: usize = 64 * 1024;
/// A longer line is damage.
const MAX_LINE: usize = 64 << 20;

/// An event as it waits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) event: Event,
    /// Where it ends in the file; 0 if it never got there.
    pub(crate) end: u64,
}

#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    most: u64,
    state: Mutex<State>,
    /// Counts changes: for the sender what came, for sources what went.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes in the file.
    written: u64,
    /// Read into `ready`.
    read: u64,
    /// Bytes read that make no whole line yet.
    partial: Vec<u8>,
    /// Read and not taken.
    ready: VecDeque<Record>,
    /// Handed to the sender.
    taken: u64,
    /// All before this is sent.
    sent: u64,
    /// What came after the disk was full.
    memory: VecDeque<Event>,
    memory_bytes: usize,
    closed: bool,
}

impl Spool {
    /// Opens the spool of a task; `from` is what an earlier process has sent.
    pub(crate) fn open(path: &Path, from: u64, most: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let len = file.metadata()?.len();
        // What a crash left of a last line is nobody's.
        let written = whole_lines(&file, len)?;
        file.set_len(written)?;
        let from = if from > written { 0 } else { from };
        let state = State { written, read: from, taken: from, sent: from, ..State::default() };
        Ok(Self { file, most, state: Mutex::new(state), changed: watch::Sender::new(0) })
    }

    /// Adds an event; waits while too much waits already.
    pub(crate) async fn add(&self, event: Event) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if self.has_room() {
                break;
            }
            // The sender lives as long as we do.
            let _ = changes.changed().await;
        }
        self.put(event);
    }

    fn has_room(&self) -> bool {
        let state = self.lock();
        state.written - state.sent < self.most && state.memory_bytes < MAX_MEMORY
    }

    fn put(&self, event: Event) {
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        let mut state = self.lock();
        let at = state.written;
        let on_disk = state.memory.is_empty()
            && match self.file.write_all_at(&line, at) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(error = %error, "events can't be written to disk: they wait in memory");
                    let _ = self.file.set_len(at);
                    false
                }
            };
        if on_disk {
            state.written += line.len() as u64;
            // The reader is here already: it need not read what is at hand.
            if state.read == at && state.partial.is_empty() {
                state.read = state.written;
                let end = state.written;
                state.ready.push_back(Record { event, end });
                // Far behind, it reads instead.
                const MOST_READY: usize = 1024;
                if state.ready.len() > MOST_READY {
                    // (What came from memory is nowhere else.)
                    state.ready.retain(|record| record.end == 0);
                    state.read = state.taken;
                }
            }
        } else {
            state.memory_bytes += line.len();
            state.memory.push_back(event);
        }
        drop(state);
        self.note_change();
    }

    /// Takes the first event; `None` if there is none now.
    pub(crate) fn take(&self) -> Option<Record> {
        self.take_if(|_| true)
    }

    /// Looks at the first event and takes it if it is wanted.
    pub(crate) fn take_if(&self, wanted: impl FnOnce(&Record) -> bool) -> Option<Record> {
        let mut state = self.lock();
        self.fill(&mut state);
        let record = if state.ready.front().is_some_and(wanted) { state.ready.pop_front() } else { None };
        if let Some(record) = &record {
            state.taken = state.taken.max(record.end);
        }
        record
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let mut state = self.lock();
        self.fill(&mut state);
        state.ready.is_empty()
    }

    /// How far everything is sent.
    pub(crate) fn position(&self) -> u64 {
        self.lock().sent
    }

    fn fill(&self, state: &mut State) {
        while state.ready.is_empty() && state.read < state.written {
            let mut buffer = vec![0u8; READ];
            match self.file.read_at(&mut buffer, state.read) {
                Ok(0) => {
                    tracing::error!("the spool of events was cut by somebody else");
                    state.written = state.read;
                }
                Ok(len) => {
                    let before = state.read - state.partial.len() as u64;
                    state.read += len as u64;
                    state.partial.extend_from_slice(&buffer[..len]);
                    split(state, before);
                }
                Err(error) => {
                    tracing::error!(error = %error, "the spool of events can't be read");
                    return;
                }
            }
        }
        if state.ready.is_empty()
            && let Some(event) = state.memory.pop_front()
        {
            let len = serde_json::to_vec(&event).map_or(0, |line| line.len() + 1);
            state.memory_bytes = state.memory_bytes.saturating_sub(len);
            state.ready.push_back(Record { event, end: 0 });
        }
    }

    /// Waits for an event to take; false when there is none and will be none.
    pub(crate) async fn wait(&self) -> bool {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            {
                let mut state = self.lock();
                self.fill(&mut state);
                if !state.ready.is_empty() {
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            let _ = changes.changed().await;
        }
    }

    /// All up to here is sent. An empty spool gives its room back.
    pub(crate) fn sent(&self, end: u64) -> u64 {
        let mut state = self.lock();
        state.sent = state.sent.max(end);
        const WORTH_IT: u64 = 1 << 20;
        if state.sent == state.written && state.written > WORTH_IT && self.file.set_len(0).is_ok() {
            (state.written, state.read, state.taken, state.sent) = (0, 0, 0, 0);
        }
        let sent = state.sent;
        drop(state);
        self.note_change();
        sent
    }

    /// No more will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.note_change();
    }

    fn note_change(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a terminal event waits or was sent from here.
    pub(crate) fn has_terminal(&self) -> bool {
        let len = self.lock().written;
        let mut found = false;
        let _ = each_line(&self.file, len, |line| {
            found |= serde_json::from_slice::<Event>(line).is_ok_and(|e| e.body.is_terminal());
        });
        found
    }
}

/// Makes records of the whole lines read so far; `before` is where they start.
fn split(state: &mut State, before: u64) {
    let mut start = 0;
    while let Some(len) = state.partial[start..].iter().position(|b| *b == b'\n') {
        let line = &state.partial[start..start + len];
        start += len + 1;
        match serde_json::from_slice(line) {
            Ok(event) => state.ready.push_back(Record { event, end: before + start as u64 }),
            Err(error) => tracing::error!(error = %error, "a damaged event is left out"),
        }
    }
    state.partial.drain(..start);
    if state.partial.len() > MAX_LINE {
        state.partial.clear();
    }
}

/// The length up to the end of the last whole line.
fn whole_lines(file: &File, len: u64) -> io::Result<u64> {
    let mut end = len;
    let mut buffer = vec![0u8; READ];
    while end > 0 {
        let start = end.saturating_sub(READ as u64);
        let size = usize::try_from(end - start).map_err(io::Error::other)?;
        file.read_exact_at(&mut buffer[..size], start)?;
        if let Some(at) = buffer[..size].iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn each_line(file: &File, len: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let (mut at, mut partial) = (0, Vec::new());
    let mut buffer = vec![0u8; READ];
    while at < len {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        at += read as u64;
        partial.extend_from_slice(&buffer[..read]);
        let mut start = 0;
        while let Some(size) = partial[start..].iter().position(|b| *b == b'\n') {
            each(&partial[start..start + size]);
            start += size + 1;
        }
        partial.drain(..start);
    }
    Ok(())
}

/// Whether two events are tokens that one event can tell.
pub(crate) fn joins(first: &Event, second: &Event) -> bool {
    match (&first.body, &second.body) {
        (Body::Token { message_id: a, .. }, Body::Token { message_id: b, .. }) => {
            a == b && first.step == second.step
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use legwork_proto::task::{Level, TaskId};

    use super::*;

    fn log(text: &str) -> Event {
        let body = Body::Log { level: Level::Info, message: text.into() };
        Event { body, task_id: TaskId::Number(1), step: None, parent_tool_id: None }
    }

    fn text(record: &Record) -> String {
        match &record.event.body {
            Body::Log { message, .. } => message.clone(),
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn events_come_out_in_order_and_after_a_restart_from_where_it_was() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("events");
        let spool = Spool::open(&path, 0, 1 << 20).expect("open");
        for i in 0..3000 {
            spool.put(log(&format!("{i}")));
        }
        let mut last = 0;
        for i in 0..1500 {
            let record = spool.take().expect("record");
            assert_eq!(text(&record), i.to_string());
            last = spool.sent(record.end);
        }
        drop(spool);
        // A crash in the middle of a write.
        let len = path.metadata().expect("file").len();
        File::options().write(true).open(&path).expect("open").write_all_at(b"{\"type", len).expect("write");
        let spool = Spool::open(&path, last, 1 << 20).expect("open");
        spool.put(log("last"));
        for i in 1500..3000 {
            assert_eq!(text(&spool.take().expect("record")), i.to_string());
        }
        let record = spool.take().expect("record");
        assert_eq!(text(&record), "last");
        assert!(spool.take().is_none() && record.end > len);
        spool.close();
        assert!(!spool.wait().await);
    }

    #[tokio::test]
    async fn a_full_disk_keeps_the_order() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let spool = Spool::open(&dir.path().join("events"), 0, 1 << 20).expect("open");
        spool.put(log("a"));
        let broken = Spool { file: File::options().write(true).open(full).expect("full"), ..spool };
        broken.put(log("b"));
        broken.put(log("c"));
        let got: Vec<String> = std::iter::from_fn(|| broken.take()).map(|r| text(&r)).collect();
        assert_eq!(got, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_source_waits_for_room() {
        let dir = tempfile::tempdir().expect("dir");
        let spool = std::sync::Arc::new(Spool::open(&dir.path().join("events"), 0, 100).expect("open"));
        spool.add(log(&"x".repeat(200))).await;
        let waiting = {
            let spool = spool.clone();
            tokio::spawn(async move { spool.add(log("late")).await })
        };
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        assert!(!waiting.is_finished());
        let first = spool.take().expect("first");
        spool.sent(first.end);
        waiting.await.expect("added");
        assert_eq!(text(&spool.take().expect("late")), "late");
    }
}
