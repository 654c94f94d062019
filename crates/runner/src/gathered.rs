//! What a command has printed, gathered for an answer.

use std::io::{self, Read};
use std::path::Path;

use legwork_process::{Cursor, EndedBy, Status};

use crate::command::{Command, What, denials};
use crate::operation::BashOutput;
use crate::output::{Exempt, MAX_INLINE, store_large};
use crate::runner::Runner;
use crate::walls::blocked;

/// The most that is kept of the beginning, and of the end, of a long stderr.
const STDERR_PART: usize = (MAX_INLINE / 2) as usize;

impl Runner {
    pub(crate) fn collect(&self, command: &Command, file: &Path, status: &Status) -> io::Result<BashOutput> {
        let exempt = match &command.what {
            What::Line(line) => Exempt::of_command(line),
            What::Program(_) | What::Shell(_) => Exempt::No,
        };
        let stdout = store_large(
            &self.config.root,
            "bash",
            status.stdout_bytes,
            StreamReader::new(Cursor::open(file, 0, u64::MAX)?),
            exempt,
        )?;
        let mut stderr = head_and_tail(StreamReader::new(Cursor::open(file, u64::MAX, 0)?))?;
        let spec = legwork_process::spec_of(file).ok();
        // Where execs are judged nobody has to guess from what programs say of it.
        let judged = spec.as_ref().is_some_and(|spec| spec.gate.is_some());
        let guessed = spec
            .as_ref()
            .filter(|_| !judged)
            .and_then(|spec| Some(blocked(spec.sandbox.as_ref()?, &spec.env, &stderr)))
            .unwrap_or_default();
        let mut add_line = |line: &str| {
            if !stderr.is_empty() && !stderr.ends_with('\n') {
                stderr.push('\n');
            }
            stderr.push_str(line);
        };
        for denial in denials(status) {
            let what = if denial.starts_with("> ") { "denied to the shell" } else { "denied at exec" };
            add_line(&format!("legwork: {what}: {denial}"));
        }
        for program in &guessed {
            add_line(&format!(
                "legwork: blocked by sandbox: {program} (no rule names it; sandbox.exec adds helpers)"
            ));
        }
        if status.out_of_memory {
            add_line("legwork: the command was ended: it used more than sandbox.limits.memory");
        }
        if status.dropped_bytes > 0 {
            let why = status.journal_error.clone().unwrap_or_else(|| {
                format!("the limit of {} bytes per stream was reached", self.config.limits.output_bytes)
            });
            add_line(&format!("legwork: {} bytes of output were not kept: {why}", status.dropped_bytes));
        }
        if status.ended_by == Some(EndedBy::Timeout) {
            add_line("command timed out");
        }
        let denied = status.denied.iter().map(|denial| denial.program.clone());
        let blocked = denied.chain(guessed).collect();
        Ok(BashOutput { stdout, stderr, exit_code: status.exit_code, ended_by: status.ended_by, blocked })
    }
}

/// One stream of a journal as a reader.
struct StreamReader {
    cursor: Cursor,
    rest: Vec<u8>,
    at: usize,
}

impl StreamReader {
    fn new(cursor: Cursor) -> Self {
        Self { cursor, rest: Vec::new(), at: 0 }
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.rest.len() {
            let Some(chunk) = self.cursor.next(64 * 1024)? else { return Ok(0) };
            self.rest = chunk.data;
            self.at = 0;
        }
        let len = buffer.len().min(self.rest.len() - self.at);
        buffer[..len].copy_from_slice(&self.rest[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// All of a short stream; beginning and end of a long one.
fn head_and_tail(mut stream: impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    stream.by_ref().take(2 * STDERR_PART as u64).read_to_end(&mut head)?;
    let mut tail: Vec<u8> = Vec::new();
    let mut omitted = 0u64;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        if omitted == 0 && tail.is_empty() {
            tail = head.split_off(STDERR_PART);
        }
        tail.extend_from_slice(&buffer[..len]);
        let extra = tail.len().saturating_sub(STDERR_PART);
        tail.drain(..extra);
        omitted += extra as u64;
    }
    let mut text = String::from_utf8_lossy(&head).into_owned();
    if omitted > 0 {
        text.push_str(&format!("\n... [{omitted} bytes omitted] ...\n"));
    }
    text.push_str(&String::from_utf8_lossy(&tail));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stderr_keeps_both_ends() {
        assert_eq!(head_and_tail(&b"short"[..]).expect("read"), "short");
        let exact = "x".repeat(30_000);
        assert_eq!(head_and_tail(exact.as_bytes()).expect("read"), exact);
        let long = format!("first{}last", "y".repeat(200_000));
        let kept = head_and_tail(long.as_bytes()).expect("read");
        assert!(kept.starts_with("first") && kept.ends_with("last"));
        assert!(kept.contains("... [170009 bytes omitted] ..."), "{}", &kept[14_990..15_060]);
    }
}
