//! What differs between systems: everything else in this crate is POSIX.
//!
//! Linux is where this runs and is tested. Elsewhere the walk of `beneath.rs` takes
//! the place of `openat2`, and looking at a file means opening it for reading.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::AsRawFd;

    use rustix::fs::ResolveFlags;

    use super::{Errno, Mode, OFlags, OwnedFd, Path, PathBuf, io};

    pub(crate) const LOOK: OFlags = OFlags::PATH;

    pub(crate) fn open_beneath(
        root: &OwnedFd,
        path: &Path,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(root, path, flags, mode, resolve)
    }

    pub(crate) fn path_of(fd: &OwnedFd) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
    }

    pub(crate) fn remove_tree(parent: &OwnedFd, name: &str) -> io::Result<()> {
        std::fs::remove_dir_all(format!("/proc/self/fd/{}/{name}", parent.as_raw_fd()))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Errno, Mode, OFlags, OwnedFd, Path, PathBuf, io};

    /// Not blocking, as the file may be a FIFO.
    pub(crate) const LOOK: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK);

    pub(crate) fn open_beneath(_: &OwnedFd, _: &Path, _: OFlags, _: Mode) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    #[cfg(target_vendor = "apple")]
    pub(crate) fn path_of(fd: &OwnedFd) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let path = rustix::fs::getpath(fd).ok()?;
        Some(std::ffi::OsString::from_vec(path.into_bytes()).into())
    }

    #[cfg(not(target_vendor = "apple"))]
    pub(crate) fn path_of(_: &OwnedFd) -> Option<PathBuf> {
        None
    }

    pub(crate) fn remove_tree(parent: &OwnedFd, name: &str) -> io::Result<()> {
        let parent = path_of(parent).ok_or(Errno::NOSYS)?;
        std::fs::remove_dir_all(parent.join(name))
    }
}

/// Opens something to look at it, not to read it.
pub(crate) const LOOK: OFlags = system::LOOK;
/// Opens a path that the kernel keeps beneath `root`, where it can.
pub(crate) use system::open_beneath;
/// Where an open file is now: a hint, never to be trusted.
pub(crate) use system::path_of;
/// Removes a folder and all in it.
pub(crate) use system::remove_tree;

/// Permission bits.
pub(crate) fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(rustix::fs::RawMode::try_from(bits & 0o7777).unwrap_or(0o600))
}

/// Permission bits as a number.
#[allow(clippy::useless_conversion, reason = "the kernel's type for them differs between systems")]
pub(crate) fn bits(mode: rustix::fs::RawMode) -> u32 {
    u32::from(mode) & 0o7777
}
