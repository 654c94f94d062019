//! The chain of hashes: continuing it, and checking it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use legwork_base::digest::sha256;
use serde::{Deserialize, Serialize};

use super::AuditError;
use super::segments::{self, RETENTION};

/// `,"hash":"` + 64 hex digits + `"}`
const SUFFIX: usize = 9 + 64 + 2;

/// What of a line holds the chain together.
#[derive(Debug, Deserialize)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) prev: String,
    #[serde(skip)]
    pub(super) hash: String,
    operation: String,
    subject: String,
}

/// Number and hash with which a file goes on, and where its last whole line ends.
pub(super) fn last_link(file: &mut File, path: &Path) -> Result<(u64, String, u64), AuditError> {
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
    let link = check_line(&line).map_err(|problem| AuditError::Broken {
        path: path.to_owned(),
        line: 0,
        problem: format!("the last line can't be continued: {problem}"),
    })?;
    Ok((link.seq + 1, link.hash, start + newline as u64 + 1))
}

/// Checks a line's own hash.
pub(super) fn check_line(line: &str) -> Result<Link, String> {
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
    if sha256(body) != hash {
        return Err("the line was changed: its hash does not fit".into());
    }
    let mut link: Link = serde_json::from_str(line).map_err(|e| e.to_string())?;
    link.hash = hash.to_owned();
    Ok(link)
}

/// The number of a file's first record, if it has one.
pub(super) fn first_number(path: &Path) -> Option<u64> {
    let mut line = String::new();
    BufReader::new(File::open(path).ok()?).read_line(&mut line).ok()?;
    check_line(line.strip_suffix('\n')?).ok().map(|link| link.seq)
}

/// What a whole chain amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// How many records the chain holds.
    pub records: u64,
    /// The number of the first one: more than 0 where retention removed older ones.
    pub first: u64,
    /// The last line's hash: to be kept elsewhere, to notice lines cut off later.
    pub last_hash: String,
}

/// Checks every line of an audit: of the file, and of the older segments beside it.
pub fn verify(path: &Path) -> Result<VerifyReport, AuditError> {
    let mut files: Vec<PathBuf> = segments::older(path);
    files.push(path.to_owned());
    let mut state = Verifier::default();
    for file in &files {
        state.file(file)?;
    }
    let first = state.first.unwrap_or(0);
    if first > 0 && state.removed_before < first {
        return Err(AuditError::Broken {
            path: files.swap_remove(0),
            line: 1,
            problem: format!("records before number {first} are missing, and no retention removed them"),
        });
    }
    Ok(VerifyReport { records: state.next.unwrap_or(0) - first, first, last_hash: state.last_hash })
}

#[derive(Default)]
struct Verifier {
    first: Option<u64>,
    /// The number that must come next.
    next: Option<u64>,
    last_hash: String,
    /// Retention says that it removed all before this one.
    removed_before: u64,
}

impl Verifier {
    fn file(&mut self, path: &Path) -> Result<(), AuditError> {
        let failed = |source| AuditError::Io { path: path.to_owned(), source };
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let (mut line, mut number) = (String::new(), 0);
        loop {
            line.clear();
            if reader.read_line(&mut line).map_err(failed)? == 0 {
                return Ok(());
            }
            number += 1;
            let broken =
                |problem: String| AuditError::Broken { path: path.to_owned(), line: number, problem };
            let text = line.strip_suffix('\n').ok_or_else(|| broken("the last line was cut short".into()))?;
            let link = check_line(text).map_err(broken)?;
            let fits = match self.next {
                Some(next) => link.seq == next && link.prev == self.last_hash,
                None => link.seq > 0 || link.prev.is_empty(),
            };
            if !fits {
                return Err(broken(
                    "the line does not follow the one before: lines were removed, added or moved".into(),
                ));
            }
            if link.operation == RETENTION {
                let before = segments::removed_before(&link.subject).unwrap_or(0);
                self.removed_before = self.removed_before.max(before);
            }
            self.first.get_or_insert(link.seq);
            self.next = Some(link.seq + 1);
            self.last_hash = link.hash;
        }
    }
}
