//! This machine as a place to run commands: an executor over the runner and its supervisors.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use legwork_executor::{
    Ended, Executor, Failure as Broken, Io, NotStarted, Pending, Piece, Place, Process, Signal, Size, Stream,
};
use legwork_process::{Cursor, EndedBy, Progress, Running, Status, Terminal};
use tokio::sync::watch;

use crate::command::Command;
use crate::networks::Networks;
use crate::operation::{Failure, Requester};
use crate::runner::Runner;

/// What typing ^C sends.
const INTERRUPT: u8 = 3;

/// A command, and who wants it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What is to be run.
    pub command: Command,
    /// For whom: the audit says so.
    pub requester: Requester,
}

/// Runs commands on this machine: judged, behind their walls, supervised and recorded, as behind
/// every door. Their files lie in a folder of this process's own, and are gone with it: nothing
/// finds these commands again after a restart.
#[derive(Debug)]
pub struct Here {
    runner: Arc<Runner>,
    networks: Arc<Networks>,
    dir: PathBuf,
    count: AtomicU64,
}

impl Here {
    /// `dir` is where the files of running commands are.
    pub fn new(runner: Arc<Runner>, dir: PathBuf) -> Self {
        Self { runner, networks: Arc::default(), dir, count: AtomicU64::new(0) }
    }

    /// The networks that walls give to what runs.
    pub fn networks(&self) -> &Arc<Networks> {
        &self.networks
    }

    /// The runner behind it.
    pub fn runner(&self) -> &Arc<Runner> {
        &self.runner
    }

    /// A command's file. Its name is that of the control group as well: no other process's.
    fn file(&self, kind: &str) -> PathBuf {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{kind}-{}-{count}", std::process::id()))
    }
}

impl Executor for Here {
    type Command = Asked;

    fn start(&self, asked: &Asked, io: Io) -> Result<Arc<dyn Process>, NotStarted> {
        let Asked { command, requester } = asked;
        let (file, running, near) = match io {
            Io::Terminal(size) => {
                let file = self.file("terminal");
                let (running, near) =
                    self.runner.start_terminal(command, requester, &file, size).map_err(refused)?;
                (file, running, Some(near))
            }
            Io::Journal => {
                let file = self.file("command");
                let running = self.runner.start_at_once(command, requester, &file).map_err(refused)?;
                (file, running, None)
            }
        };
        let running = Arc::new(running);
        let (grown, ended) = (watch::Sender::new(0), watch::Sender::new(None));
        let process = Supervised {
            near,
            running,
            file,
            grown: grown.subscribe(),
            ended: ended.subscribe(),
            cursor: Mutex::default(),
        };
        let attending = Attending {
            runner: self.runner.clone(),
            networks: self.networks.clone(),
            asked: asked.clone(),
            running: process.running.clone(),
            keeps_file: process.near.is_none(),
        };
        tokio::spawn(attending.run(grown, ended));
        Ok(Arc::new(process))
    }
}

fn refused(failure: Failure) -> NotStarted {
    match failure {
        Failure::Denied(denial) => NotStarted::Denied(denial.text),
        Failure::Failed(text) | Failure::Lost(text) => NotStarted::Failed(text),
    }
}

/// What is done beside a command while it runs.
struct Attending {
    runner: Arc<Runner>,
    networks: Arc<Networks>,
    asked: Asked,
    running: Arc<Running>,
    keeps_file: bool,
}

impl Attending {
    /// Serves what a command needs until it has ended, records that, and tells it.
    async fn run(self, grown: watch::Sender<u64>, ended: watch::Sender<Option<Ended>>) {
        let mut network = None;
        loop {
            match self.running.progress().await {
                Progress::Ended => break,
                Progress::Door(listener, inside) => {
                    self.runner.serve_door(self.running.path(), listener);
                    network = inside.map(|inside| self.networks.add(inside));
                }
                Progress::Output(len) => {
                    grown.send_replace(len);
                }
            }
        }
        drop(network);
        let file = self.running.path();
        let finished = self.runner.finish(&self.asked.command, &self.asked.requester, file).await;
        let how = how(legwork_process::status(file).ok(), finished.err());
        if !self.keeps_file {
            let _ = std::fs::remove_file(file);
        }
        ended.send_replace(Some(how));
    }
}

/// How a command ended, by its file and by what became of it.
fn how(status: Option<Status>, failure: Option<Failure>) -> Ended {
    let cause = status.as_ref().and_then(|status| status.error.clone());
    let code = status.as_ref().and_then(|s| s.exit_code.or_else(|| s.signal.map(|n| 128 + n))).unwrap_or(1);
    let failure = match (cause, failure) {
        (Some(cause), _) => Some(Broken::NotStarted(cause)),
        (None, Some(failure)) => Some(Broken::Lost(failure.to_string())),
        (None, None) => None,
    };
    Ended { code, timed_out: status.and_then(|s| s.ended_by) == Some(EndedBy::Timeout), failure }
}

/// A command under a supervisor of ours.
struct Supervised {
    /// The near end of its terminal, if it has one.
    near: Option<Terminal>,
    running: Arc<Running>,
    file: PathBuf,
    /// Bytes in its journal.
    grown: watch::Receiver<u64>,
    ended: watch::Receiver<Option<Ended>>,
    /// A reader's place in the journal, from one read to the next.
    cursor: Mutex<Option<Cursor>>,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.near.is_none() && self.ended.borrow().is_some() {
            let _ = std::fs::remove_file(&self.file);
        }
    }
}

impl Supervised {
    /// Reads from the journal, or waits until there is more in it or there will be no more.
    async fn read_journal(&self, from: Place, buffer: &mut [u8]) -> io::Result<Piece> {
        let (mut grown, mut ended) = (self.grown.clone(), self.ended.clone());
        loop {
            grown.mark_unchanged();
            let is_over = ended.borrow_and_update().is_some();
            if let Some(piece) = self.next(from, buffer).await? {
                return Ok(piece);
            }
            if is_over {
                return Ok(Piece { stream: Stream::Stdout, len: 0 });
            }
            tokio::select! {
                changed = grown.changed() => {
                    // Its end is told next.
                    if changed.is_err() && ended.wait_for(Option::is_some).await.is_err() {
                        return Ok(Piece { stream: Stream::Stdout, len: 0 });
                    }
                }
                _ = ended.changed() => {}
            }
        }
    }

    /// What there is in the journal behind `from`.
    async fn next(&self, from: Place, buffer: &mut [u8]) -> io::Result<Option<Piece>> {
        let kept = self.cursor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let kept = kept.filter(|cursor| cursor.offsets() == (from.stdout, from.stderr));
        let (file, most) = (self.file.clone(), buffer.len());
        let reading = tokio::task::spawn_blocking(move || read_on(kept, &file, from, most));
        let (cursor, chunk) = reading.await.map_err(io::Error::other)??;
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor);
        let Some(chunk) = chunk else { return Ok(None) };
        buffer[..chunk.data.len()].copy_from_slice(&chunk.data);
        let stream = match chunk.stream {
            legwork_process::Stream::Stdout => Stream::Stdout,
            legwork_process::Stream::Stderr => Stream::Stderr,
        };
        Ok(Some(Piece { stream, len: chunk.data.len() }))
    }
}

type Read = (Cursor, Option<legwork_process::Chunk>);

fn read_on(kept: Option<Cursor>, file: &Path, from: Place, most: usize) -> io::Result<Read> {
    let mut cursor = match kept {
        Some(cursor) => cursor,
        None => Cursor::open(file, from.stdout, from.stderr)?,
    };
    let chunk = cursor.next(most)?;
    Ok((cursor, chunk))
}

fn no_terminal() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the command has no terminal")
}

impl Process for Supervised {
    fn read<'a>(&'a self, from: Place, buffer: &'a mut [u8]) -> Pending<'a, io::Result<Piece>> {
        Box::pin(async move {
            match &self.near {
                Some(near) => Ok(Piece { stream: Stream::Stdout, len: near.read(buffer).await? }),
                None => self.read_journal(from, buffer).await,
            }
        })
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.near.as_ref().ok_or_else(no_terminal)?.try_write(data)
    }

    fn write_from<'a>(&'a self, queue: &'a Mutex<VecDeque<u8>>) -> Pending<'a, io::Result<()>> {
        Box::pin(async move { self.near.as_ref().ok_or_else(no_terminal)?.type_from(queue).await })
    }

    fn resize(&self, size: Size) {
        if let Some(near) = &self.near {
            near.resize(size);
        }
    }

    fn interrupts(&self, byte: u8) -> bool {
        self.near.as_ref().is_some_and(|near| near.interrupts(byte))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match signal {
            Signal::Interrupt => self.near.as_ref().ok_or_else(no_terminal)?.interrupt(INTERRUPT),
            Signal::End => {
                self.running.cancel();
                Ok(())
            }
        }
    }

    fn ended(&self) -> Pending<'_, Ended> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            let how = ended.wait_for(Option::is_some).await.ok().and_then(|how| how.clone());
            let text = "nobody watched the command until its end";
            how.unwrap_or_else(|| Ended {
                code: 1,
                timed_out: false,
                failure: Some(Broken::Lost(text.into())),
            })
        })
    }
}
