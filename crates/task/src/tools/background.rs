//! Commands in the background: each under a supervisor of its own, known by a handle, and ended
//! with the agent that started it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use legwork_process::{Adoption, Cursor, EndedBy, Progress, State, Status};
use legwork_runner::{Command, Requester, Runner};

use super::text::HeadAndTail;
use super::{Answer, Bench, Input};

/// Most of them at a time.
const MOST: usize = 16;
/// Most bytes of an answer.
const MAX_OUTPUT: usize = 60_000;
/// Read at a time.
const CHUNK: usize = 64 * 1024;
const MAX_WAIT: u64 = 60;
/// How often it is looked whether there is more.
const LOOK: Duration = Duration::from_millis(100);
/// Beginning of the names of their files.
const PREFIX: &str = "background-";

/// The commands of an agent.
#[derive(Debug)]
pub(crate) struct Background {
    dir: PathBuf,
    /// By handle, how much of stdout and stderr was read.
    read: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl Background {
    /// Those whose files are in a folder.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), read: Mutex::default() }
    }

    fn file(&self, handle: &str) -> PathBuf {
        self.dir.join(format!("{PREFIX}{handle}"))
    }

    fn handles(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut handles: Vec<String> = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(PREFIX).map(str::to_owned))
            .collect();
        handles.sort_unstable();
        handles
    }

    /// Starts one; its handle comes from the call, so that a call that is repeated after a kill
    /// finds what it has started.
    pub(super) async fn start(&self, program: &Command, bench: &Bench<'_>) -> Result<String, String> {
        let name = bench.file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let handle: String = name.chars().rev().take(6).collect();
        let file = self.file(&handle);
        if !file.exists() {
            let running = self.handles().iter().filter(|handle| self.is_running(handle)).count();
            if running >= MOST {
                return Err(format!("{running} commands run in the background already: stop one first"));
            }
            let runner = bench.hands.runner().await?;
            let let_in = bench.hands.let_in(program, bench.requester, runner).await;
            let program = &let_in.map_err(|failure| failure.to_string())?;
            let started = runner.start(program, bench.requester, &file).await;
            let running = started.map_err(|failure| failure.to_string())?;
            watch(runner.clone(), running, (program.clone(), bench.requester.clone(), file));
        }
        Ok(format!("Started in the background as {handle}. See to it with the tool `background`."))
    }

    fn is_running(&self, handle: &str) -> bool {
        legwork_process::status(&self.file(handle)).map_or(true, |status| status.state == State::Running)
    }

    /// Ends all of them, and forgets them. To be called when the agent is done.
    pub(crate) async fn end_all(&self, hands: &crate::hands::Hands) {
        let handles = self.handles();
        if handles.is_empty() {
            return;
        }
        let Ok(runner) = hands.runner().await else { return };
        let ends = handles.iter().map(|handle| end(runner, self.file(handle)));
        futures_util::future::join_all(ends).await;
        for handle in handles {
            let _ = std::fs::remove_file(self.file(&handle));
        }
    }

    /// What a command has printed since it was last read, and how it stands.
    async fn news(&self, handle: &str, wait: Duration) -> Result<Answer, String> {
        let file = self.file(handle);
        let from = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(handle).copied();
        let until = tokio::time::Instant::now() + wait;
        loop {
            let (path, from) = (file.clone(), from.unwrap_or_default());
            let read = super::files::blocking(move || read(&path, from)).await?;
            let is_over = read.status.as_ref().is_ok_and(|status| status.state != State::Running);
            if read.is_empty() && !is_over && tokio::time::Instant::now() < until {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let offsets = read.offsets;
            self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.to_owned(), offsets);
            return Ok(Answer::ok(read.text(handle)));
        }
    }
}

/// Serves what a command wants of us until it has ended, and has that noted.
fn watch(
    runner: Arc<Runner>,
    running: legwork_process::Running,
    (program, requester, file): (Command, Requester, PathBuf),
) {
    tokio::spawn(async move {
        loop {
            match running.progress().await {
                Progress::Door(listener, _) => runner.serve_door(&file, listener),
                Progress::Output(_) => {}
                Progress::Ended => break,
            }
        }
        let _ = runner.finish(&program, &requester, &file).await;
    });
}

/// Ends a command, and waits for that.
async fn end(runner: &Arc<Runner>, file: PathBuf) {
    let Adoption::Running(running) = runner.adopt(&file).await else { return };
    running.cancel();
    while !matches!(running.progress().await, Progress::Ended) {}
}

struct News {
    out: HeadAndTail,
    err: HeadAndTail,
    offsets: (u64, u64),
    status: Result<Status, String>,
}

fn read(file: &Path, from: (u64, u64)) -> Result<News, String> {
    let failed = |e: std::io::Error| format!("its output can't be read: {e}");
    // First how it stands: what it printed before that is then there.
    let status = legwork_process::status(file).map_err(|e| e.to_string());
    let mut cursor = Cursor::open(file, from.0, from.1).map_err(failed)?;
    let mut news =
        News { out: HeadAndTail::new(MAX_OUTPUT), err: HeadAndTail::new(MAX_OUTPUT), offsets: from, status };
    while let Some(chunk) = cursor.next(CHUNK).map_err(failed)? {
        let len = chunk.data.len() as u64;
        match chunk.stream {
            legwork_process::Stream::Stdout => {
                news.out.add(&chunk.data);
                news.offsets.0 += len;
            }
            legwork_process::Stream::Stderr => {
                news.err.add(&chunk.data);
                news.offsets.1 += len;
            }
        }
    }
    Ok(news)
}

impl News {
    fn is_empty(&self) -> bool {
        self.out.is_empty() && self.err.is_empty()
    }

    fn text(self, handle: &str) -> String {
        let mut parts = Vec::new();
        if !self.out.is_empty() {
            parts.push(format!("STDOUT:\n{}", self.out.text()));
        }
        if !self.err.is_empty() {
            parts.push(format!("STDERR:\n{}", self.err.text()));
        }
        parts.push(format!("{handle} {}", stands(&self.status)));
        parts.join("\n\n")
    }
}

fn stands(status: &Result<Status, String>) -> String {
    match status {
        Ok(Status { state: State::Running, .. }) => "is running".into(),
        Ok(Status { state: State::Failed, error, .. }) => {
            format!("never started: {}", error.as_deref().unwrap_or("the reason is unknown"))
        }
        Ok(Status { ended_by: Some(EndedBy::Cancel), .. }) => "was stopped".into(),
        Ok(Status { exit_code: Some(code), .. }) => format!("has ended: EXIT CODE: {code}"),
        Ok(Status { signal, .. }) => format!("has ended: EXIT CODE: -{}", signal.unwrap_or(0)),
        Err(_) => "is starting".into(),
    }
}

/// The tool.
pub(super) async fn see_to(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let background = bench.background;
    let action = input.text("action")?.filter(|a| !a.is_empty()).unwrap_or("read");
    if action == "list" {
        let lines: Vec<String> = background
            .handles()
            .iter()
            .map(|handle| {
                let status = legwork_process::status(&background.file(handle)).map_err(|e| e.to_string());
                format!("{handle} {}", stands(&status))
            })
            .collect();
        let none = "No command was started in the background.";
        return Ok(Answer::ok(if lines.is_empty() { none.into() } else { lines.join("\n") }));
    }
    let handle = input.needed("handle")?;
    if !background.handles().iter().any(|known| known == handle) {
        return Err(format!("there is no command '{handle}'; list them"));
    }
    match action {
        "read" => {
            let wait = Duration::from_secs(input.number("wait", 0)?.min(MAX_WAIT));
            tokio::select! {
                news = background.news(handle, wait) => news,
                _ = bench.abort.wished() => Err("the task was aborted".into()),
            }
        }
        "stop" => {
            end(bench.hands.runner().await?, background.file(handle)).await;
            background.news(handle, Duration::ZERO).await
        }
        other => Err(format!("action: '{other}' is none of read, stop, list")),
    }
}
