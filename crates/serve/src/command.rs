//! Programs that the server runs to answer a request.

use std::collections::BTreeMap;
use std::time::Duration;

use legwork_executor::{Ended, Executor, Failure, Io, NotStarted, Place, Stream};
use legwork_process::sandbox::Profile;
use legwork_runner::{Command, What};

use crate::shells::{Shells, own};

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// A program to run in the workspace's root.
pub(crate) struct Tool {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) sandbox: Profile,
    pub(crate) timeout: Duration,
    /// Most bytes that it may say.
    pub(crate) most: usize,
}

/// Why a program gave no output that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It was not started.
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
    /// It never came to run.
    #[error("failed to execute command: {0}")]
    Broken(String),
    /// Its end is unknown.
    #[error("{0}")]
    Lost(String),
    /// What it has said can't be read.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    /// More than anybody wants.
    #[error("it says too much")]
    TooMuch,
    /// It says so itself, in these words.
    #[error("it failed: {0}")]
    Status(String),
}

/// Runs a program to its end; returns what it has printed, or why it failed.
pub(crate) async fn output(shells: &Shells, tool: Tool) -> Result<Vec<u8>, Failed> {
    let command = Command {
        what: What::Program(tool.argv),
        env: tool.env,
        timeout: Some(tool.timeout),
        walls: Some(tool.sandbox),
        ..Command::default()
    };
    let process = shells.start(&own("", command), Io::Journal)?;
    let ended = process.ended().await;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut place, mut buffer) = (Place::default(), vec![0u8; PIECE]);
    loop {
        let piece = process.read(place, &mut buffer).await?;
        if piece.len == 0 {
            break;
        }
        place.pass(piece);
        let into = if piece.stream == Stream::Stdout { &mut out } else { &mut err };
        into.extend_from_slice(&buffer[..piece.len]);
        if out.len() + err.len() > tool.most {
            return Err(Failed::TooMuch);
        }
    }
    judge(ended, &err)?;
    Ok(out)
}

/// Whether a program has done what it was to do.
fn judge(ended: Ended, err: &[u8]) -> Result<(), Failed> {
    match ended.failure {
        Some(Failure::NotStarted(cause)) => return Err(Failed::Broken(cause)),
        Some(Failure::Lost(why)) => return Err(Failed::Lost(why)),
        None => {}
    }
    if ended.code != 0 {
        let said = String::from_utf8_lossy(err);
        let last = said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no reason given");
        return Err(Failed::Status(last.chars().take(300).collect()));
    }
    Ok(())
}
