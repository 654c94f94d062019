//! The audit: one JSON line per request, each carrying the hash of the one before.
//!
//! A line ends with `,"hash":"…"}`: the SHA-256 of all that stands before it. As
//! `prev` is in the hashed part, changing, removing or swapping lines breaks the
//! chain. Cutting lines off the end can't be seen from the file alone: compare
//! with the count and hash that `legwork audit verify` printed before.

mod chain;
mod segments;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork_base::clock::now_ms;
use legwork_base::digest::sha256;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use chain::last_link;
pub use chain::{VerifyReport, verify};
pub use segments::Keep;

/// Records on their way to the disk. When they are this many, requests wait: what
/// can't be recorded is not done.
const QUEUE: usize = 4096;
/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is recorded of a request.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it; docs/security.md describes each")]
pub struct Record {
    pub door: &'static str,
    pub who: String,
    pub task_id: String,
    pub operation: String,
    /// The command line or path, secrets masked.
    pub subject: String,
    pub decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Who said yes, where the rules ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approved_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub sandbox: &'static str,
    /// How execs were judged: `exec` where they happen, `reading` by the text alone; nothing
    /// where there is nothing to judge.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub gate: &'static str,
    pub started_ms: u64,
    pub finished_ms: u64,
    pub outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What the exec gate denied, each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    /// Programs that gate or sandbox kept from being executed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// Bytes sent through the sandbox's proxy, and received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_received: Option<u64>,
    /// Where the proxy did not let it connect to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_refused: Vec<String>,
    /// Bytes read, written or put out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Of the command line or the written data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Why an audit file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file could not be read or written.
    #[error("audit file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not as it was written.
    #[error("audit file {} line {line}: {problem}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug)]
enum Message {
    Record(Box<Record>),
    Flush(oneshot::Sender<()>),
}

/// Room for one record.
#[derive(Debug)]
pub(crate) struct Place(mpsc::OwnedPermit<Message>);

impl Place {
    /// Records a request.
    pub(crate) fn record(self, record: Record) {
        self.0.send(Message::Record(Box::new(record)));
    }
}

/// Appends records. Cheap to clone; the file is written by a thread of its own.
#[derive(Debug, Clone)]
pub struct Audit {
    sender: mpsc::Sender<Message>,
}

impl Audit {
    /// Opens or creates the file and continues its chain.
    pub fn open(path: &Path, keep: Keep) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Io { path: path.to_owned(), source };
        let mut file = open_file(path).map_err(failed)?;
        let (mut seq, mut prev, end) = last_link(&mut file, path)?;
        if end == 0
            && let Some(segment) = segments::older(path).last()
        {
            // The file had just become a segment.
            let mut file = File::open(segment).map_err(failed)?;
            (seq, prev, _) = last_link(&mut file, segment)?;
        }
        // What a crash left of a half-written line was never acknowledged to anybody.
        file.set_len(end).map_err(failed)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let first = chain::first_number(path).unwrap_or(seq);
        let writer = Writer { path: path.to_owned(), keep, file, len: end, first, seq, prev };
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(receiver))
            .map_err(failed)?;
        Ok(Self { sender })
    }

    /// Records a request. Waits while the disk is behind.
    pub async fn record(&self, record: Record) {
        // The writer ends only after every sender is gone.
        let _ = self.sender.send(Message::Record(Box::new(record))).await;
    }

    /// Room for one record, for whoever can't wait; `None` while the disk is behind.
    pub(crate) fn place(&self) -> Option<Place> {
        self.sender.clone().try_reserve_owned().ok().map(Place)
    }

    /// Waits until all records so far are written.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.sender.send(Message::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

struct Writer {
    path: PathBuf,
    keep: Keep,
    file: File,
    len: u64,
    /// The number of the file's first record.
    first: u64,
    seq: u64,
    prev: String,
}

impl Writer {
    fn run(mut self, mut receiver: mpsc::Receiver<Message>) {
        let mut batch = Vec::new();
        let mut flushed = Vec::new();
        while receiver.blocking_recv_many(&mut batch, 256) > 0 {
            let mut text = String::new();
            for message in batch.drain(..) {
                match message {
                    Message::Record(record) => self.append(&mut text, &record),
                    Message::Flush(done) => flushed.push(done),
                }
            }
            while let Err(error) = self.file.write_all(text.as_bytes()) {
                tracing::error!("audit records can't be written, requests wait: {error}");
                let _ = self.file.set_len(self.len);
                std::thread::sleep(RETRY);
            }
            self.len += text.len() as u64;
            if self.len > self.keep.segment_bytes()
                && let Err(error) = self.rotate()
            {
                tracing::warn!("the audit can't be divided into files: {error}");
            }
            for done in flushed.drain(..) {
                let _ = done.send(());
            }
        }
        let _ = self.file.sync_all();
    }

    /// Makes the file a segment, starts the next one, and removes what is too much. A
    /// removal is recorded before it is made.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, segments::name(&self.path, self.first))?;
        self.file = open_file(&self.path)?;
        (self.len, self.first) = (0, self.seq);
        let Some((gone, stays)) = segments::surplus(&self.path, self.keep, self.seq) else { return Ok(()) };
        let mut text = String::new();
        let now = now_ms();
        let record = Record {
            operation: segments::RETENTION.into(),
            subject: segments::removal(stays),
            decision: "allow",
            outcome: "done",
            started_ms: now,
            finished_ms: now,
            ..Record::default()
        };
        self.append(&mut text, &record);
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        self.len += text.len() as u64;
        gone.iter().try_for_each(std::fs::remove_file)
    }

    fn append(&mut self, text: &mut String, record: &Record) {
        #[derive(Serialize)]
        struct Line<'a> {
            seq: u64,
            prev: &'a str,
            #[serde(flatten)]
            record: &'a Record,
        }
        let line = Line { seq: self.seq, prev: &self.prev, record };
        let Ok(body) = serde_json::to_string(&line) else { return };
        let body = body.strip_suffix('}').unwrap_or(&body);
        let hash = sha256(body);
        text.push_str(body);
        text.push_str(",\"hash\":\"");
        text.push_str(&hash);
        text.push_str("\"}\n");
        self.seq += 1;
        self.prev = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Keep = Keep { bytes: 1 << 30, age: Duration::from_secs(1 << 30) };

    async fn write(path: &Path, count: usize) {
        let audit = Audit::open(path, ALL).expect("open");
        for i in 0..count {
            audit.record(Record { subject: format!("command {i}"), ..Record::default() }).await;
        }
        audit.flush().await;
    }

    #[tokio::test]
    async fn a_chain_goes_on_after_a_restart_and_any_change_is_found() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("audit.jsonl");
        write(&path, 5).await;
        // A crash in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(b"{\"seq\":5,\"pr").expect("write");
        drop(file);
        write(&path, 5).await;
        assert_eq!(verify(&path).expect("whole").records, 10);

        let good = std::fs::read_to_string(&path).expect("read");
        let lines: Vec<&str> = good.lines().collect();
        let check = |lines: Vec<String>| {
            std::fs::write(&path, lines.join("\n") + "\n").expect("write");
            verify(&path).map_err(|e| e.to_string())
        };
        let owned = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut changed = owned(&lines);
        changed[3] = changed[3].replace("command 3", "command x");
        assert!(check(changed).is_err_and(|e| e.contains("line 4") && e.contains("changed")));
        let mut removed = owned(&lines);
        removed.remove(2);
        assert!(check(removed).is_err_and(|e| e.contains("line 3")));
        let mut swapped = owned(&lines);
        swapped.swap(1, 2);
        assert!(check(swapped).is_err());
        assert!(check(owned(&lines)).is_ok());
    }

    #[tokio::test]
    async fn old_segments_are_removed_and_the_removal_is_part_of_the_chain() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("audit.jsonl");
        let keep = Keep { bytes: 1 << 20, ..ALL };
        for round in 0..3 {
            // Each start goes on where the last one ended.
            let audit = Audit::open(&path, keep).expect("open");
            for i in 0..3000 {
                let subject = format!("command {round} {i} {}", "x".repeat(300));
                audit.record(Record { subject, ..Record::default() }).await;
                if i % 100 == 0 {
                    audit.flush().await;
                }
            }
            audit.flush().await;
        }
        let report = verify(&path).expect("whole");
        assert!(report.first > 0 && report.records > 1000, "{report:?}");
        let size: u64 = std::fs::read_dir(dir.path())
            .expect("dir")
            .flatten()
            .map(|e| e.metadata().expect("file").len())
            .sum();
        assert!(size < (1 << 20) + keep.segment_bytes() * 2, "{size}");
        // What somebody else removes is missed.
        let oldest = segments::older(&path).remove(0);
        std::fs::remove_file(oldest).expect("removed");
        assert!(verify(&path).is_err_and(|e| e.to_string().contains("no retention removed them")));
    }
}
