//! Replacing a file in one step.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::beneath::Failure;
use crate::{Error, Root};

/// Links followed at the end of a path whose target does not exist yet.
const MAX_LINKS: usize = 40;

impl Root {
    /// Writes a file atomically: a reader sees the old content or the new one. The
    /// mode and owner of a replaced file are kept, a new one gets 0644; parents are
    /// created (0755); a link within the root is written through.
    pub fn write(&self, given: &str, data: &[u8]) -> Result<(), Error> {
        let path = self.relative(given)?;
        let (path, existing) = self.target(given, path)?;
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let name = path.file_name().ok_or_else(|| Error::io("", "open", self.absolute(&path), Errno::ISDIR))?;
        let dir = self.make_dirs(given, &parent)?;
        let failed = |e: std::io::Error| Error::io("", "open", self.absolute(&path), e);
        let temporary = Temporary::create(&dir).map_err(failed)?;
        temporary.fill(data, existing.as_ref()).map_err(failed)?;
        rustix::fs::renameat(&dir, &temporary.name, &dir, name).map_err(|e| failed(e.into()))?;
        temporary.keep();
        // The rename itself must survive a power cut.
        let _ = rustix::fs::openat(&dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|dir| rustix::fs::fsync(&dir));
        Ok(())
    }

    /// Where the data really goes: links at the end of the path are followed.
    fn target(&self, given: &str, mut path: PathBuf) -> Result<(PathBuf, Option<Stat>), Error> {
        match self.open_at(&path, OFlags::PATH, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("", "open", self.absolute(&path), e))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => {}
                    FileType::Directory => return Err(Error::io("", "open", self.absolute(&path), Errno::ISDIR)),
                    _ => return Err(Error::NotAFile { path: given.to_owned() }),
                }
                // Only a hint to where the file is: it is opened again from the root.
                let real = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
                if let Some(real) = real.and_then(|r| r.strip_prefix(self.path()).map(Path::to_owned).ok()) {
                    path = real;
                }
                Ok((path, Some(stat)))
            }
            Err(Failure::Errno(Errno::NOENT)) => {
                for _ in 0..MAX_LINKS {
                    let Ok(link) = self.open_at(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) else {
                        return Ok((path, None));
                    };
                    let Ok(target) = rustix::fs::readlinkat(&link, "", Vec::new()) else {
                        return Ok((path, None));
                    };
                    let escapes = || Error::Escapes { path: given.to_owned() };
                    let target = target.into_string().map_err(|_| escapes())?;
                    let joined = if target.starts_with('/') {
                        PathBuf::from(&target).strip_prefix(self.path()).map_err(|_| escapes())?.to_owned()
                    } else {
                        path.parent().unwrap_or(Path::new("")).join(&target)
                    };
                    path = self.relative(&joined.to_string_lossy()).map_err(|_| escapes())?;
                }
                Err(Error::io("", "open", self.absolute(&path), Errno::LOOP))
            }
            Err(failure) => Err(self.error(failure, given, "", "open", &path)),
        }
    }

    /// Opens a folder, making it and its parents.
    fn make_dirs(&self, given: &str, path: &Path) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.open_at(path, flags, Mode::empty()) {
            Err(Failure::Errno(Errno::NOENT)) if !path.as_os_str().is_empty() => {}
            result => {
                return result.map_err(|f| self.error(f, given, "create directory", "mkdir", path));
            }
        }
        let above = self.make_dirs(given, path.parent().unwrap_or(Path::new("")))?;
        if let Some(name) = path.file_name() {
            match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(Error::io("create directory", "mkdir", self.absolute(path), e)),
            }
        }
        self.open_at(path, flags, Mode::empty())
            .map_err(|f| self.error(f, given, "create directory", "mkdir", path))
    }
}

/// A file that is gone again unless it is kept.
struct Temporary<'a> {
    dir: &'a OwnedFd,
    name: String,
    file: File,
    kept: std::cell::Cell<bool>,
}

impl<'a> Temporary<'a> {
    fn create(dir: &'a OwnedFd) -> std::io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!(".legwork-{}-{number}.tmp", std::process::id());
            match rustix::fs::openat(dir, &name, flags, Mode::from_raw_mode(0o644)) {
                Ok(fd) => return Ok(Self { dir, name, file: File::from(fd), kept: false.into() }),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn fill(&self, data: &[u8], replaced: Option<&Stat>) -> std::io::Result<()> {
        if let Some(stat) = replaced {
            let owner = rustix::fs::Uid::from_raw(stat.st_uid);
            let group = rustix::fs::Gid::from_raw(stat.st_gid);
            // Only root may give files away; for others the owner changes, as with
            // every editor that saves atomically.
            let _ = rustix::fs::fchown(&self.file, Some(owner), Some(group));
            rustix::fs::fchmod(&self.file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        }
        (&self.file).write_all(data)?;
        self.file.sync_all()
    }

    fn keep(&self) {
        self.kept.set(true);
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.kept.get() {
            let _ = rustix::fs::unlinkat(self.dir, &self.name, AtFlags::empty());
        }
    }
}
