//! The root, and opening what lies beneath it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};

use crate::beneath::{Failure, by_kernel, by_walk};
use crate::error::Error;
use crate::os::LOOK;
use crate::path::relative;

/// How paths are kept beneath the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// `openat2(2)`.
    Kernel,
    /// Component by component, for systems without `openat2`.
    Walk,
}

/// A folder that no path leads out of. Cheap to share.
#[derive(Debug)]
pub struct Root {
    pub(crate) path: PathBuf,
    pub(crate) resolver: Resolver,
    pub(crate) dir: Mutex<Arc<OwnedFd>>,
}

impl Root {
    /// Opens the root, creating it (mode 0755) if it is absent.
    pub fn open(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(|e| Error::io("create workspace", "mkdir", path, e))?;
        let path = path.canonicalize().map_err(|e| Error::io("create workspace", "open", path, e))?;
        let dir = open_root(&path)?;
        let probe = by_kernel(&dir, Path::new("."), LOOK, Mode::empty());
        let resolver = if probe.is_ok() { Resolver::Kernel } else { Resolver::Walk };
        Ok(Self { path, resolver, dir: Mutex::new(Arc::new(dir)) })
    }

    /// The same root with the other way of resolving paths.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// The root's canonical path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which way paths are resolved.
    pub fn resolver(&self) -> Resolver {
        self.resolver
    }

    /// Opens a folder beneath the root, to run a command in it.
    pub fn open_dir(&self, given: &str) -> Result<OwnedFd, Error> {
        let path = self.relative(given)?;
        self.open_at(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(|failure| self.error(failure, given, "", "chdir", &path))
    }

    /// Bytes free for the workspace and in all, as `df` counts them.
    pub fn disk(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&*self.dir().ok()?).ok()?;
        Some((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    }

    pub(crate) fn relative(&self, given: &str) -> Result<PathBuf, Error> {
        relative(&self.path, given)
    }

    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.path.clone() } else { self.path.join(path) }
    }

    /// The root's descriptor. If the folder was deleted and made again, the new one.
    pub(crate) fn dir(&self) -> Result<Arc<OwnedFd>, Error> {
        let mut dir = self.dir.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let deleted = rustix::fs::fstat(&**dir).is_ok_and(|stat| stat.st_nlink == 0);
        if deleted {
            *dir = Arc::new(open_root(&self.path)?);
        }
        Ok(dir.clone())
    }

    /// Opens a relative path beneath the root.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Failure> {
        let dir = self.dir().map_err(|_| Failure::Errno(rustix::io::Errno::NOENT))?;
        match self.resolver {
            Resolver::Kernel => match by_kernel(&dir, path, flags, mode) {
                // The kernel refuses absolute links even into the root; the walk
                // knows them.
                Err(Failure::Escapes) => by_walk(&dir, &self.path, path, flags, mode),
                result => result,
            },
            Resolver::Walk => by_walk(&dir, &self.path, path, flags, mode),
        }
    }

    pub(crate) fn error(
        &self,
        failure: Failure,
        given: &str,
        action: &'static str,
        call: &'static str,
        path: &Path,
    ) -> Error {
        match failure {
            Failure::Escapes => Error::Escapes { path: given.to_owned() },
            Failure::Errno(errno) => Error::io(action, call, self.absolute(path), errno),
        }
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open workspace", "open", path, e))
}
