//! Live output of one command: from its journal to the connection, by offset.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use legwork_proto::dialout::{TaskOutput, kind};
use legwork_runner::Runner;
use legwork_runner::process::{Chunk, Cursor, Progress, Running, Stream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Link, Resume};

/// Most raw bytes in one message.
const CHUNK: usize = 32 * 1024;
/// How long output is gathered after a message.
const COALESCE: Duration = Duration::from_millis(10);

/// Streams a command's output while it runs.
pub(super) struct Streamer {
    runner: Arc<Runner>,
    record: PathBuf,
    task_id: String,
    links: watch::Receiver<Option<Arc<Link>>>,
    resumes: watch::Receiver<Option<Resume>>,
    /// Where output goes now, and what of it is sent.
    target: Option<(Arc<Link>, Cursor)>,
}

impl Streamer {
    pub(super) fn new(
        runner: Arc<Runner>,
        record: &Path,
        task_id: &str,
        links: watch::Receiver<Option<Arc<Link>>>,
        resumes: watch::Receiver<Option<Resume>>,
    ) -> Self {
        Self { runner, record: record.to_owned(), task_id: task_id.into(), links, resumes, target: None }
    }

    /// Streams until the command has ended and all its output is sent, or there is
    /// nobody to send it to. A `fresh` command is streamed from the start; an
    /// adopted one when the hub says from where. Returns the connection that got all
    /// of it, if one did.
    pub(super) async fn run(mut self, running: &Running, fresh: bool) -> Option<u64> {
        let link = self.links.borrow_and_update().clone();
        if fresh {
            self.aim(link.as_ref(), 0, 0).await;
        }
        self.follow_resume().await;
        let mut unsent = true;
        let mut not_before = Instant::now();
        loop {
            let ready = unsent && self.target.is_some();
            tokio::select! {
                biased;
                Ok(()) = self.resumes.changed() => {
                    self.follow_resume().await;
                    unsent = true;
                }
                Ok(()) = self.links.changed() => {
                    // The new hub connection says itself what it lacks.
                    let now = self.links.borrow_and_update().as_ref().map(|l| l.number);
                    if self.target.as_ref().is_some_and(|(link, _)| Some(link.number) != now) {
                        self.target = None;
                    }
                }
                progress = running.progress() => match progress {
                    Progress::Output(_) => unsent = true,
                    Progress::Door(listener, _) => self.runner.serve_door(&self.record, listener),
                    Progress::Ended => break,
                },
                () = tokio::time::sleep_until(not_before), if ready => {
                    match self.send_next().await {
                        Some(len) if len < CHUNK => not_before = Instant::now() + COALESCE,
                        Some(_) => {}
                        None => unsent = false,
                    }
                }
            }
        }
        while self.send_next().await.is_some() {}
        self.target.map(|(link, _)| link.number)
    }

    async fn follow_resume(&mut self) {
        let Some(resume) = *self.resumes.borrow_and_update() else { return };
        let link = self.links.borrow().clone().filter(|l| l.number == resume.link);
        self.aim(link.as_ref(), resume.stdout, resume.stderr).await;
    }

    async fn aim(&mut self, link: Option<&Arc<Link>>, stdout: u64, stderr: u64) {
        self.target = None;
        if let Some(link) = link.filter(|l| l.output)
            && let Some(cursor) = open(&self.record, stdout, stderr).await
        {
            self.target = Some((link.clone(), cursor));
        }
    }

    /// Sends the next piece; `None` if there is none, or nobody to send it to.
    async fn send_next(&mut self) -> Option<usize> {
        let (link, cursor) = self.target.take()?;
        let (cursor, chunk) = next(cursor).await?;
        let Some(chunk) = chunk else {
            self.target = Some((link, cursor));
            return None;
        };
        let len = chunk.data.len();
        if link.send(kind::TASK_OUTPUT, &output(&self.task_id, chunk)).await {
            self.target = Some((link, cursor));
            Some(len)
        } else {
            None
        }
    }
}

/// Sends all output of an ended command from the given offsets on.
pub(super) async fn rest(record: &Path, task_id: &str, link: &Link, from: Resume) {
    let Some(mut cursor) = open(record, from.stdout, from.stderr).await else { return };
    while let Some((next_cursor, Some(chunk))) = next(cursor).await {
        if !link.send(kind::TASK_OUTPUT, &output(task_id, chunk)).await {
            return;
        }
        cursor = next_cursor;
    }
}

async fn open(record: &Path, stdout: u64, stderr: u64) -> Option<Cursor> {
    let record = record.to_owned();
    let opened = tokio::task::spawn_blocking(move || Cursor::open(&record, stdout, stderr)).await.ok()?;
    opened.inspect_err(|e| tracing::warn!("failed to open a command's journal: {e}")).ok()
}

async fn next(mut cursor: Cursor) -> Option<(Cursor, Option<Chunk>)> {
    let read = tokio::task::spawn_blocking(move || cursor.next(CHUNK).map(|chunk| (cursor, chunk)));
    read.await.ok()?.inspect_err(|e| tracing::warn!("failed to read a command's journal: {e}")).ok()
}

fn output(task_id: &str, chunk: Chunk) -> TaskOutput {
    let stream = match chunk.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let (data, data_base64) = match String::from_utf8(chunk.data) {
        Ok(text) => (text, None),
        Err(e) => (String::new(), Some(base64::engine::general_purpose::STANDARD.encode(e.as_bytes()))),
    };
    TaskOutput { task_id: task_id.into(), stream: stream.into(), data, offset: chunk.offset, data_base64 }
}
