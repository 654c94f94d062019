//! `shell`.

use std::time::Duration;

use legwork_process::{Chunk, EndedBy, Status, Stream};
use legwork_runner::{Failure, Program};

use super::files::locate;
use super::text::HeadAndTail;
use super::{Answer, Bench, Input};
use crate::hands::Continue;

/// Most characters of each stream; bytes at that, so never more.
const MAX_STREAM: usize = 100_000;
/// A model can ask for no longer.
const MAX_TIMEOUT: u64 = 24 * 3600;

pub(super) async fn run(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let command = input.needed("command")?;
    let outside = || "working_directory must be within workspace".to_owned();
    let given = input.text("working_directory")?.filter(|d| !d.is_empty()).unwrap_or(".");
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
    let program = Program {
        argv: ["/bin/sh", "-c", command].map(String::from).to_vec(),
        workdir,
        timeout: Some(Duration::from_secs(timeout)),
        line: bench.hands.judges().then(|| command.to_owned()),
        subject: command.to_owned(),
        ..Program::default()
    };
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
            Ok(Answer { text: parts.join("\n\n"), is_error: true })
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
