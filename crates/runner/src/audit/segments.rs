//! Files of an audit: the one being written, and older segments beside it, named by
//! the number of their first record and removed by age and size. What is removed is
//! itself recorded.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The operation under which removals are recorded.
pub(super) const RETENTION: &str = "audit.retention";

/// How much of an audit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Bytes of all files.
    pub bytes: u64,
    /// Older segments go.
    pub age: Duration,
}

impl Keep {
    /// A file larger than this becomes a segment.
    pub(super) fn segment_bytes(&self) -> u64 {
        (self.bytes / 8).clamp(64 * 1024, 128 << 20)
    }
}

/// The subject of a removal's record.
pub(super) fn removal(before: u64) -> String {
    format!("records before {before}")
}

pub(super) fn removed_before(subject: &str) -> Option<u64> {
    subject.strip_prefix("records before ")?.parse().ok()
}

/// The name of the segment that starts with a record.
pub(super) fn name(path: &Path, first: u64) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{first:020}.jsonl"))
}

/// The older segments of an audit, oldest first.
pub(super) fn older(path: &Path) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut found: Vec<PathBuf> = path
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|file| first_of(file, &stem).is_some())
        .collect();
    found.sort();
    found
}

fn first_of(file: &Path, stem: &str) -> Option<u64> {
    let name = file.file_name()?.to_str()?;
    name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(".jsonl")?.parse().ok()
}

/// Which segments are too old, or too much, and the number of the first record that
/// stays. `next` is the first record of the file that is being written.
pub(super) fn surplus(path: &Path, keep: Keep, next: u64) -> Option<(Vec<PathBuf>, u64)> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let segments = older(path);
    let size = |file: &Path| file.metadata().map_or(0, |m| m.len());
    let mut total: u64 = segments.iter().map(|file| size(file)).sum::<u64>() + size(path);
    let mut gone = Vec::new();
    for file in &segments {
        let age =
            file.metadata().and_then(|m| m.modified()).map(|time| SystemTime::now().duration_since(time));
        let is_old = matches!(age, Ok(Ok(age)) if age > keep.age);
        if !is_old && total <= keep.bytes {
            break;
        }
        total -= size(file);
        gone.push(file.clone());
    }
    let stays = segments.get(gone.len()).and_then(|file| first_of(file, &stem)).unwrap_or(next);
    (!gone.is_empty()).then_some((gone, stays))
}
