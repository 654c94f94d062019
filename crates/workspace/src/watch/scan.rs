//! Folders that can't be watched: they are compared with what they were.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::{Change, ChangeKind};
use crate::Root;
use crate::tree::is_temporary;

/// The least time between two looks.
const AT_LEAST: Duration = Duration::from_secs(2);
/// Of the time, at most this part is spent on looking.
const SHARE: u32 = 200;

/// What an entry was like: when and how large it was, and which.
type Stamp = (i64, i64, i64, u64, bool);
type Listing = BTreeMap<OsString, Stamp>;

/// All folders that are not watched.
#[derive(Default)]
pub(super) struct Scanned {
    folders: BTreeMap<PathBuf, Listing>,
    next: Option<Instant>,
}

impl Scanned {
    pub(super) fn len(&self) -> usize {
        self.folders.len()
    }

    pub(super) fn forget(&mut self, path: &Path) {
        self.folders.retain(|p, _| !p.starts_with(path));
    }

    pub(super) fn add(&mut self, root: &Root, exclude: &[String], path: PathBuf) {
        if let Some(listing) = list(root, exclude, &path) {
            self.folders.insert(path, listing);
            self.next.get_or_insert_with(|| Instant::now() + AT_LEAST);
        }
    }

    /// When to look again.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        if self.folders.is_empty() { None } else { Some(self.next.unwrap_or(now)) }
    }

    /// Looks at all folders, and tells what is different.
    pub(super) fn look(&mut self, root: &Root, exclude: &[String], changes: &mut Vec<Change>) {
        let start = Instant::now();
        let mut todo: Vec<PathBuf> = self.folders.keys().cloned().collect();
        while let Some(path) = todo.pop() {
            let old = self.folders.remove(&path);
            // Its parent tells that it is gone.
            let Some(new) = list(root, exclude, &path) else { continue };
            for (name, stamp) in &new {
                let below = path.join(name);
                let kind = match old.as_ref().and_then(|o| o.get(name)) {
                    None => ChangeKind::Created,
                    // A folder's own stamp changes with its entries, which are told.
                    Some(before) if before != stamp && !stamp.4 => ChangeKind::Changed,
                    Some(_) => continue,
                };
                changes.push(Change::Path(below.clone(), kind));
                if kind == ChangeKind::Created && stamp.4 {
                    todo.push(below);
                }
            }
            for name in old.iter().flat_map(|o| o.keys()).filter(|name| !new.contains_key(*name)) {
                changes.push(Change::Path(path.join(name), ChangeKind::Deleted));
            }
            self.folders.insert(path, new);
        }
        self.next = Some(Instant::now() + AT_LEAST.max(start.elapsed() * SHARE));
    }
}

fn list(root: &Root, exclude: &[String], path: &Path) -> Option<Listing> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let dir = root.open_at(path, flags, Mode::empty()).ok()?;
    let mut listing = Listing::new();
    for entry in Dir::read_from(&dir).ok()?.flatten() {
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." || is_temporary(name) || exclude.iter().any(|e| e.as_bytes() == name)
        {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let stamp = (stat.st_mtime, nanos, stat.st_size, stat.st_ino, is_dir);
        listing.insert(OsStr::from_bytes(name).to_owned(), stamp);
    }
    Some(listing)
}
