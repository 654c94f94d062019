//! Listing a folder.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::os::LOOK;
use crate::{Error, Root};

/// Most entries in one answer.
const MAX_ENTRIES: u64 = 500_000;
const ACTION: &str = "list directory";

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root.
    pub path: PathBuf,
    /// Whether it is a folder; links are not.
    pub is_dir: bool,
    /// Size in bytes; a link's own size.
    pub size: u64,
}

impl Root {
    /// Lists what is at `given`, parents before children, names in byte order. A
    /// folder other than the root is itself the first entry. Names that match one
    /// of `ignore` (`*`, `?`, `[…]`) are left out with all beneath them.
    pub fn list(&self, given: &str, recursive: bool, ignore: &[String]) -> Result<Vec<Entry>, Error> {
        let start = self.relative(given)?;
        let ignore = ignore_set(ignore)?;
        let fd = self
            .open_at(&start, LOOK, Mode::empty())
            .map_err(|f| self.error(f, given, ACTION, "lstat", &start))?;
        let stat =
            rustix::fs::fstat(&fd).map_err(|e| Error::io(ACTION, "lstat", self.absolute(&start), e))?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mut found = Vec::new();
        if let Some(name) = start.file_name() {
            if ignore.is_match(name) {
                return Ok(found);
            }
            found.push(entry(start.clone(), &stat));
        }
        if !is_dir {
            return Ok(found);
        }
        // The folders being read, from the outermost in; each with what is left of it.
        let mut open = vec![self.read_folder(&fd, start)?];
        while let Some(folder) = open.last_mut() {
            let Some(name) = folder.names.next() else {
                open.pop();
                continue;
            };
            if ignore.is_match(&name) {
                continue;
            }
            let path = folder.path.join(&name);
            let failed = |e| Error::io(ACTION, "lstat", self.absolute(&path), e);
            let stat = rustix::fs::statat(&folder.fd, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let entry = entry(path, &stat);
            if found.len() as u64 >= MAX_ENTRIES {
                return Err(Error::TooMuch { what: "the number of entries", limit: MAX_ENTRIES });
            }
            found.push(entry.clone());
            if entry.is_dir && recursive {
                let flags = LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(&folder.fd, &name, flags, Mode::empty())
                    .map_err(|e| Error::io(ACTION, "open", self.absolute(&entry.path), e))?;
                open.push(self.read_folder(&inner, entry.path)?);
            }
        }
        Ok(found)
    }

    fn read_folder(&self, at: &OwnedFd, path: PathBuf) -> Result<Folder, Error> {
        let failed = |e| Error::io(ACTION, "open", self.absolute(&path), e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(at, ".", flags, Mode::empty()).map_err(failed)?;
        let names = sorted_names(&fd).map_err(failed)?;
        Ok(Folder { fd, path, names: names.into_iter() })
    }
}

struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

/// The names in a folder, in byte order.
pub(crate) fn sorted_names(fd: &OwnedFd) -> Result<Vec<OsString>, rustix::io::Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn entry(path: PathBuf, stat: &Stat) -> Entry {
    Entry {
        is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        path,
    }
}

fn ignore_set(patterns: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .build()
            .map_err(|e| Error::BadPattern(format!("ignore: {e}")))?;
        set.add(glob);
    }
    set.build().map_err(|e| Error::BadPattern(format!("ignore: {e}")))
}

impl AsRef<Path> for Entry {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
