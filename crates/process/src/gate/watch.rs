//! Execs whose path could lead elsewhere by the time the kernel follows it: a link on the way
//! may be turned by another program of the line. They are watched: the program is stopped
//! before its first instruction, and ended if it is another one than was judged.

use std::path::PathBuf;

use super::target::{self, FileId};
use crate::sys::{Came, Watched};

/// What an exec must come out as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// This file, which the kernel loads, with these arguments, each ended by a zero byte.
    Program { file: FileId, argv: Vec<u8> },
    /// One of the programs that the operator has named for files of other kinds (`binfmt_misc`).
    Handler,
}

/// What came of an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It came about as it was judged.
    Expected,
    /// Something else came about, and was ended.
    Other(PathBuf),
    /// Nothing came about.
    Nothing,
}

impl Expected {
    /// Whether this is what a process executes.
    fn is_what_runs(&self, pid: u32) -> bool {
        let Some((now, path)) = target::of_process(pid) else { return false };
        match self {
            Self::Program { file, argv } => {
                now == *file && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|now| now == *argv)
            }
            Self::Handler => handlers().any(|handler| handler == path),
        }
    }

    /// Waits for a watched exec that goes on. `keep`: its process is waited for by our own.
    pub(super) fn await_exec(&self, watched: Watched, pid: u32, keep: bool) -> Seen {
        match watched.came() {
            Ok(Came::About) if self.is_what_runs(pid) => {
                watched.let_go();
                Seen::Expected
            }
            Ok(Came::About) => {
                let path = target::of_process(pid).map(|(_, path)| path).unwrap_or_default();
                watched.end(keep);
                Seen::Other(path)
            }
            Ok(Came::Not) => {
                watched.let_go();
                Seen::Nothing
            }
            Ok(Came::Ended) => {
                if !keep {
                    watched.forget();
                }
                Seen::Nothing
            }
            Err(_) => {
                watched.end(keep);
                Seen::Nothing
            }
        }
    }
}

/// The programs that the kernel runs for files of other kinds.
fn handlers() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    texts.filter_map(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("interpreter "))?;
        std::fs::canonicalize(path).ok()
    })
}

/// Whether somebody traces a process already: then we can't.
pub(super) fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_what_it_was_judged_to_be_or_it_is_not() {
        let pid = std::process::id();
        let (file, _) = target::of_process(pid).expect("a look");
        let argv = std::fs::read("/proc/self/cmdline").expect("arguments");
        let runs = |file, argv: &[u8]| Expected::Program { file, argv: argv.to_vec() }.is_what_runs(pid);
        assert!(runs(file, &argv) && !is_traced(pid));
        assert!(!runs(FileId::NONE, &argv) && !runs(file, b"x\0"));
        assert!(!Expected::Handler.is_what_runs(pid));
    }
}
