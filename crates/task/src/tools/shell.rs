//! `shell`.

use std::time::Duration;

use legwork_process::{Chunk, EndedBy, Status, Stream};
use legwork_runner::{Command, Failure, What};

use super::files::locate;
use super::session::Dialect;
use super::text::HeadAndTail;
use super::{Answer, Bench, Input};
use crate::hands::Continue;

/// Most characters of each stream; bytes at that, so never more.
const MAX_STREAM: usize = 100_000;
/// A model can ask for no longer.
const MAX_TIMEOUT: u64 = 24 * 3600;

/// A command that is to be run, as a model asks for it.
struct Asked<'a> {
    command: &'a str,
    /// Beneath the root.
    workdir: String,
    /// The folder is given.
    is_placed: bool,
    timeout: u64,
}

fn asked<'a>(input: Input<'a>, bench: &Bench<'_>) -> Result<Asked<'a>, String> {
    let command = input.needed("command")?;
    let outside = || "working_directory must be within workspace".to_owned();
    let placed = input.text("working_directory")?.filter(|d| !d.is_empty());
    let given = placed.unwrap_or(".");
    let workdir = locate(&bench.hands.root, given).map_err(|_| outside())?;
    match bench.hands.root.stat(&workdir) {
        Ok(meta) if meta.is_dir => {}
        Ok(_) => return Err(format!("not a directory: {given}")),
        Err(legwork_workspace::Error::Outside { .. } | legwork_workspace::Error::Escapes { .. }) => {
            return Err(outside());
        }
        Err(error) => return Err(super::files::cause(&error, given, "directory not found")),
    }
    let timeout = match input.number("timeout", 60)? {
        0 => 60,
        seconds => seconds.min(MAX_TIMEOUT),
    };
    Ok(Asked { command, workdir, is_placed: placed.is_some(), timeout })
}

impl Asked<'_> {
    /// As a program. Where lines are judged, what is judged is the line alone, and no session
    /// stands around it.
    fn program(&self, bench: &Bench<'_>, keeps: bool) -> Command {
        let judged = bench.hands.judges().then(|| self.command.to_owned());
        let text = match bench.session {
            Some(session) if judged.is_none() => {
                session.around(self.command, Dialect::Posix, self.is_placed, keeps)
            }
            _ => self.command.to_owned(),
        };
        Command {
            what: judged.map_or_else(
                || What::Program(["/bin/sh".to_owned(), "-c".to_owned(), text].to_vec()),
                What::Line,
            ),
            workdir: self.workdir.clone(),
            timeout: keeps.then(|| Duration::from_secs(self.timeout)),
            subject: self.command.to_owned(),
            tmp: Some(bench.hands.place.tmp.clone()),
            keeps_tree: true,
            ..Command::default()
        }
    }
}

pub(super) async fn run(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let asked = asked(input, bench)?;
    if bench.session.is_some() && input.flag("background")? {
        let program = asked.program(bench, false);
        return bench.background.start(&program, bench).await.map(Answer::ok);
    }
    let timeout = asked.timeout;
    let program = asked.program(bench, true);
    let (mut out, mut err) = (HeadAndTail::new(MAX_STREAM), HeadAndTail::new(MAX_STREAM));
    let each = async |Chunk { stream, data, .. }| {
        match stream {
            Stream::Stdout => out.add(&data),
            Stream::Stderr => err.add(&data),
        }
        Continue::Yes
    };
    let ended = bench.hands.run(&program, bench.requester, &bench.file, bench.abort, (0, 0), each).await;
    let mut parts = Vec::new();
    if !out.is_empty() {
        parts.push(format!("STDOUT:\n{}", out.text()));
    }
    if !err.is_empty() {
        parts.push(format!("STDERR:\n{}", err.text()));
    }
    match ended {
        Ok(Status { ended_by: Some(by), .. }) => {
            let cause = match by {
                EndedBy::Timeout => format!("command timed out after {timeout} seconds"),
                EndedBy::Cancel => "the task was aborted while the command ran".to_owned(),
            };
            parts.insert(0, format!("Error: {cause}"));
            Ok(Answer { is_error: true, ..Answer::ok(parts.join("\n\n")) })
        }
        Ok(Status { exit_code, signal, .. }) => {
            let code = exit_code.unwrap_or_else(|| -signal.unwrap_or(0));
            parts.push(format!("EXIT CODE: {code}"));
            Ok(Answer::ok(parts.join("\n\n")))
        }
        // What it did is unknown; the model is told, and decides.
        Err(Failure::Lost(cause)) => Ok(Answer::raised(cause)),
        Err(failure) => Err(failure.to_string()),
    }
}
