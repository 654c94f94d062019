//! Ways to a host. Each puts the runner there, starts it, and gives its two streams.

pub(crate) mod bootstrap;
pub(crate) mod command;
pub(crate) mod local;
mod mux;
mod places;
pub(crate) mod ssh;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::{Binaries, Error};

/// How long an ended connection may take to say why.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long its standard error may be held open by somebody else.
const MOMENT: Duration = Duration::from_millis(500);
/// So much of what a transport says on standard error is kept: its end.
const MAX_SAID: usize = 16 * 1024;

/// A future that a transport gives.
pub type Starting<'a> = Pin<Box<dyn Future<Output = Result<Link, Error>> + Send + 'a>>;

/// A way to one host.
pub trait Transport: Send + Sync {
    /// Puts the runner on the host, if it is not there yet, and starts it with these flags.
    fn start<'a>(&'a self, binaries: &'a Binaries, flags: &'a [String]) -> Starting<'a>;

    /// What people call the host.
    fn name(&self) -> String;
}

/// A runner's streams. Dropping it ends the connection, and with it the runner and what
/// the runner runs.
pub struct Link {
    /// To the runner.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// From the runner.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// The runner's file stays for the next call: its goodbye is not worth a wait.
    pub(crate) stays: bool,
    /// Read from standard output already.
    pub(crate) early: Vec<u8>,
    /// What came on standard error.
    pub(crate) said: Said,
    /// Kept while the link lives: the process or the session behind it.
    pub(crate) guard: Option<Guard>,
}

impl Link {
    /// A link of another transport than ours. The guard is dropped with the link.
    pub fn new(
        stdin: impl AsyncWrite + Send + Unpin + 'static,
        stdout: impl AsyncRead + Send + Unpin + 'static,
        guard: impl Send + 'static,
    ) -> Self {
        let guard: Box<dyn Send> = Box::new(guard);
        Self {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stays: false,
            early: Vec::new(),
            said: Said::default(),
            guard: Some(Guard::Other(guard)),
        }
    }
}

impl Link {
    /// What a connection that has ended said of it, if it did: the end of standard error comes
    /// by a way of its own, and a moment later.
    pub(crate) async fn last_words(&mut self) -> Option<String> {
        if let Some(guard) = &mut self.guard {
            let _ = tokio::time::timeout(PATIENCE, guard.ended()).await;
        }
        let _ = tokio::time::timeout(MOMENT, self.said.complete()).await;
        Some(self.said.text()).filter(|text| !text.is_empty())
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

pub(crate) enum Guard {
    /// Killed when it is dropped.
    Process(tokio::process::Child),
    /// A session of a shared connection.
    Session(mux::Session),
    Other(#[expect(dead_code, reason = "held, not read")] Box<dyn Send>),
}

impl Guard {
    /// Waits until the other side has ended.
    async fn ended(&mut self) {
        match self {
            Self::Process(child) => drop(child.wait().await),
            Self::Session(session) => session.ended().await,
            Self::Other(_) => {}
        }
    }
}

/// The end of what somebody says on standard error.
#[derive(Debug, Clone)]
pub(crate) struct Said(Arc<(Mutex<Vec<u8>>, tokio::sync::Semaphore)>);

impl Default for Said {
    fn default() -> Self {
        Self(Arc::new((Mutex::default(), tokio::sync::Semaphore::new(0))))
    }
}

impl Said {
    /// Listens until the stream ends.
    pub(crate) fn listen(mut stream: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let said = Self::default();
        let shared = said.clone();
        tokio::spawn(async move {
            let mut chunk = [0u8; 4096];
            while let Ok(n @ 1..) = stream.read(&mut chunk).await {
                let mut all = shared.0.0.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend_from_slice(&chunk[..n]);
                let excess = all.len().saturating_sub(MAX_SAID);
                all.drain(..excess);
            }
            shared.0.1.close();
        });
        said
    }

    /// Waits until there is no more to come.
    async fn complete(&self) {
        // Nobody gives a permit: it ends when the semaphore is closed.
        let _ = self.0.1.acquire().await;
    }

    /// All of it, as text.
    pub(crate) fn text(&self) -> String {
        let all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&all).trim().to_owned()
    }
}

/// Starts a local program with three pipes.
#[expect(clippy::disallowed_methods, reason = "a transport's own program, whose life is the link's")]
pub(crate) fn spawn(
    program: &std::path::Path,
    args: &[String],
    interactive: bool,
) -> std::io::Result<tokio::process::Child> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    if !interactive {
        // Ctrl-C is ours to handle: it ends the link in order.
        command.process_group(0);
    }
    command.spawn()
}

/// The link to a program that is running.
pub(crate) fn link(mut child: tokio::process::Child) -> Option<Link> {
    let (stdin, stdout, stderr) = (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
    Some(Link {
        stdin: Box::new(stdin),
        stdout: Box::new(stdout),
        stays: false,
        early: Vec::new(),
        said: Said::listen(stderr),
        guard: Some(Guard::Process(child)),
    })
}
