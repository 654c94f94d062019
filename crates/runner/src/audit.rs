//! The audit: one JSON line per request, each carrying the hash of the one before.
//!
//! A line ends with `,"hash":"…"}`: the SHA-256 of all that stands before it. As
//! `prev` is in the hashed part, changing, removing or swapping lines breaks the
//! chain. Cutting lines off the end can't be seen from the file alone: compare
//! with the count and hash that `legwork audit verify` printed before.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

/// Records on their way to the disk. When they are this many, requests wait: what
/// can't be recorded is not done.
const QUEUE: usize = 4096;
/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// `,"hash":"` + 64 hex digits + `"}`
const SUFFIX: usize = 9 + 64 + 2;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub sandbox: &'static str,
    pub started_ms: u64,
    pub finished_ms: u64,
    pub outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
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
        /// Why.
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

/// Appends records. Cheap to clone; the file is written by a thread of its own.
#[derive(Debug, Clone)]
pub struct Audit {
    sender: mpsc::Sender<Message>,
}

impl Audit {
    /// Opens or creates the file and continues its chain.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        let (seq, prev, end) = last_link(&mut file, path)?;
        // What a crash left of a half-written line was never acknowledged to anybody.
        file.set_len(end).map_err(failed)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer { file, len: end, seq, prev };
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

    /// Waits until all records so far are written.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.sender.send(Message::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

struct Writer {
    file: File,
    len: u64,
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
            for done in flushed.drain(..) {
                let _ = done.send(());
            }
        }
        let _ = self.file.sync_all();
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
        let hash = hex(&Sha256::digest(body.as_bytes()));
        text.push_str(body);
        text.push_str(",\"hash\":\"");
        text.push_str(&hash);
        text.push_str("\"}\n");
        self.seq += 1;
        self.prev = hash;
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Number and hash with which a file goes on, and where its last whole line ends.
fn last_link(file: &mut File, path: &Path) -> Result<(u64, String, u64), AuditError> {
    const WINDOW: u64 = 1 << 20;
    let failed = |source| AuditError::Io { path: path.to_owned(), source };
    let len = file.metadata().map_err(failed)?.len();
    let start = len.saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(failed)?;
    let Some(newline) = tail.iter().rposition(|b| *b == b'\n') else {
        return Ok((0, String::new(), if start == 0 { 0 } else { len }));
    };
    let line_start = tail[..newline].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let line = String::from_utf8_lossy(&tail[line_start..newline]);
    let (seq, _, hash) = check_line(&line).map_err(|problem| AuditError::Broken {
        path: path.to_owned(),
        line: 0,
        problem: format!("the last line can't be continued: {problem}"),
    })?;
    Ok((seq + 1, hash, start + newline as u64 + 1))
}

/// Checks a line's own hash; returns its number, the hash before it, and its own.
fn check_line(line: &str) -> Result<(u64, String, String), String> {
    let at = line
        .len()
        .checked_sub(SUFFIX)
        .filter(|at| line.is_char_boundary(*at))
        .ok_or("the line is too short")?;
    let (body, suffix) = line.split_at(at);
    let hash = suffix
        .strip_prefix(",\"hash\":\"")
        .and_then(|s| s.strip_suffix("\"}"))
        .ok_or("the line has no hash")?;
    if hex(&Sha256::digest(body.as_bytes())) != hash {
        return Err("the line was changed: its hash does not fit".into());
    }
    #[derive(serde::Deserialize)]
    struct Link {
        seq: u64,
        prev: String,
    }
    let link: Link = serde_json::from_str(line).map_err(|e| e.to_string())?;
    Ok((link.seq, link.prev, hash.to_owned()))
}

/// What a whole chain amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Lines.
    pub records: u64,
    /// The last line's hash: to be kept elsewhere, to notice lines cut off later.
    pub last_hash: String,
}

/// Checks every line of an audit file.
pub fn verify(path: &Path) -> Result<VerifyReport, AuditError> {
    let failed = |source| AuditError::Io { path: path.to_owned(), source };
    let mut report = VerifyReport { records: 0, last_hash: String::new() };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).map_err(failed)? == 0 {
            return Ok(report);
        }
        let number = report.records + 1;
        let broken = |problem: String| AuditError::Broken { path: path.to_owned(), line: number, problem };
        let text = line.strip_suffix('\n').ok_or_else(|| broken("the last line was cut short".into()))?;
        let (seq, prev, hash) = check_line(text).map_err(broken)?;
        if seq != report.records || prev != report.last_hash {
            return Err(broken(
                "the line does not follow the one before: lines were removed, added or moved".into(),
            ));
        }
        report.records += 1;
        report.last_hash = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(path: &Path, count: usize) {
        let audit = Audit::open(path).expect("open");
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
}
