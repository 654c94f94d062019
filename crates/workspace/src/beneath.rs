//! Opening a path so that it can't leave the root.
//!
//! [`by_kernel`] leaves it all to `openat2(2)` with `RESOLVE_BENEATH`. [`by_walk`]
//! goes component by component without following links, for kernels and sandboxes
//! without that call, and for absolute links that point back into the root.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::os::{LOOK, open_beneath};

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// How often a component may change under our feet before we give up.
const MAX_RACES: usize = 100;

/// Why a path could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It leads out of the root.
    Escapes,
    /// The system said so.
    Errno(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// Opens `path` beneath `root` in one system call.
pub(crate) fn by_kernel(root: &OwnedFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Failure> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for _ in 0..MAX_RACES {
        match open_beneath(root, path, flags | OFlags::CLOEXEC, mode) {
            // A rename elsewhere on the system raced with `..` in a link.
            Err(Errno::AGAIN) => {}
            Err(Errno::XDEV) => return Err(Failure::Escapes),
            result => return Ok(result?),
        }
    }
    Err(Failure::Errno(Errno::AGAIN))
}

/// Opens `path` beneath `root`, following links by hand. `root_path` is the root's
/// canonical path, by which absolute links back into it are known.
pub(crate) fn by_walk(
    root: &OwnedFd,
    root_path: &Path,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Failure> {
    let mut todo: Vec<OsString> = components(path).rev().collect();
    // The folders from the root down to the current one, the root itself left out.
    let mut stack: Vec<OwnedFd> = Vec::new();
    let (mut links, mut races) = (0, 0);
    let here = |stack: &[OwnedFd]| -> Result<OwnedFd, Errno> {
        stack
            .last()
            .unwrap_or(root)
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
    };
    while let Some(name) = todo.pop() {
        if name == ".." {
            if stack.pop().is_none() {
                return Err(Failure::Escapes);
            }
            continue;
        }
        let current = here(&stack)?;
        let is_last = todo.is_empty();
        let is_link = match rustix::fs::statat(&current, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Symlink,
            Err(Errno::NOENT) if is_last => false,
            Err(errno) => return Err(errno.into()),
        };
        if is_link && !(is_last && flags.contains(OFlags::NOFOLLOW)) {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = match rustix::fs::readlinkat(&current, &name, Vec::new()) {
                Ok(target) => target,
                // Swapped for something else meanwhile: look again.
                Err(Errno::INVAL) if races < MAX_RACES => {
                    races += 1;
                    todo.push(name);
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            let target =
                Path::new(OsStr::new(std::str::from_utf8(target.as_bytes()).map_err(|_| Errno::ILSEQ)?));
            let rest = if target.is_absolute() {
                stack.clear();
                target.strip_prefix(root_path).map_err(|_| Failure::Escapes)?
            } else {
                target
            };
            todo.extend(components(rest).rev());
            continue;
        }
        let open_flags = if is_last {
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC
        } else {
            LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
        };
        match rustix::fs::openat(&current, &name, open_flags, mode) {
            Ok(fd) if is_last => return Ok(fd),
            Ok(fd) => stack.push(fd),
            // It became a link between the look and the opening: look again.
            Err(Errno::LOOP | Errno::NOTDIR) if races < MAX_RACES && became_link(&current, &name) => {
                races += 1;
                todo.push(name);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    // The path, or a link at its end, names the folder reached last.
    let last = here(&stack)?;
    Ok(rustix::fs::openat(&last, ".", flags | OFlags::CLOEXEC, mode)?)
}

fn became_link(dir: &OwnedFd, name: &OsStr) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}
