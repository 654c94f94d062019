//! Replacing a file in one step.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::beneath::Failure;
use crate::os::{LOOK, path_of};
use crate::{Error, Root};

/// Links followed at the end of a path whose target does not exist yet.
const MAX_LINKS: usize = 40;

impl Root {
    /// Writes a file atomically: see [`Root::create`].
    pub fn write(&self, given: &str, data: &[u8]) -> Result<(), Error> {
        let mut file = self.create(given)?;
        file.write_all(data).map_err(|e| Error::io("", "write", &file.path, e))?;
        file.commit()
    }

    /// Starts a file that appears whole or not at all: a reader sees the old content
    /// or the new one. The mode and owner of a replaced file are kept, a new one gets
    /// 0644; parents are created (0755); a link within the root is written through.
    pub fn create(&self, given: &str) -> Result<PendingFile, Error> {
        let path = self.relative(given)?;
        let (path, replaced) = self.target(given, path)?;
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let absolute = self.absolute(&path);
        let Some(name) = path.file_name() else {
            return Err(Error::io("", "open", absolute, Errno::ISDIR));
        };
        let dir = self.make_dirs(given, &parent)?;
        PendingFile::new(dir, name.to_owned(), absolute, replaced.as_ref())
    }

    /// Where the data really goes: links at the end of the path are followed.
    fn target(&self, given: &str, mut path: PathBuf) -> Result<(PathBuf, Option<Stat>), Error> {
        match self.open_at(&path, LOOK, Mode::empty()) {
            Ok(fd) => {
                let stat =
                    rustix::fs::fstat(&fd).map_err(|e| Error::io("", "open", self.absolute(&path), e))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => {}
                    FileType::Directory => {
                        return Err(Error::io("", "open", self.absolute(&path), Errno::ISDIR));
                    }
                    _ => return Err(Error::NotAFile { path: given.to_owned() }),
                }
                // Only a hint to where the file is: it is opened again from the root.
                let real = path_of(&fd);
                if let Some(real) = real.and_then(|r| r.strip_prefix(self.path()).map(Path::to_owned).ok()) {
                    path = real;
                }
                Ok((path, Some(stat)))
            }
            Err(Failure::Errno(Errno::NOENT)) => {
                for _ in 0..MAX_LINKS {
                    let Ok(link) = self.open_at(&path, LOOK | OFlags::NOFOLLOW, Mode::empty()) else {
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
    pub(crate) fn make_dirs(&self, given: &str, path: &Path) -> Result<OwnedFd, Error> {
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

/// A file in the making. Dropped without [`PendingFile::commit`] it leaves nothing.
#[derive(Debug)]
pub struct PendingFile {
    dir: OwnedFd,
    temporary: String,
    name: OsString,
    path: PathBuf,
    file: File,
    committed: bool,
}

impl PendingFile {
    fn new(dir: OwnedFd, name: OsString, path: PathBuf, replaced: Option<&Stat>) -> Result<Self, Error> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let (temporary, fd) = loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let temporary = format!(".legwork-{}-{number}.tmp", std::process::id());
            match rustix::fs::openat(&dir, &temporary, flags, Mode::from_raw_mode(0o644)) {
                Ok(fd) => break (temporary, fd),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(Error::io("", "open", path, e)),
            }
        };
        if let Some(stat) = replaced {
            let owner = rustix::fs::Uid::from_raw(stat.st_uid);
            let group = rustix::fs::Gid::from_raw(stat.st_gid);
            // Only root may give files away; for others the owner changes, as with
            // every editor that saves atomically.
            let _ = rustix::fs::fchown(&fd, Some(owner), Some(group));
            let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777));
        }
        Ok(Self { dir, temporary, name, path, file: File::from(fd), committed: false })
    }

    /// Gives it these permission bits; set-user-id and the like are not given.
    pub fn set_mode(&self, mode: u32) -> std::io::Result<()> {
        Ok(rustix::fs::fchmod(&self.file, crate::os::mode(mode & 0o777))?)
    }

    /// The file itself, for those who write at several places.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes the file appear under its name. A power cut may take it.
    pub fn commit_unflushed(mut self) -> Result<(), Error> {
        self.rename()
    }

    fn rename(&mut self) -> Result<(), Error> {
        rustix::fs::renameat(&self.dir, &self.temporary, &self.dir, &self.name)
            .map_err(|e| Error::io("", "open", &self.path, e))?;
        self.committed = true;
        Ok(())
    }

    /// Makes the file appear under its name, safe against a power cut.
    pub fn commit(mut self) -> Result<(), Error> {
        self.file.sync_all().map_err(|e| Error::io("", "write", &self.path, e))?;
        self.rename()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let _ =
            rustix::fs::openat(&self.dir, ".", flags, Mode::empty()).and_then(|dir| rustix::fs::fsync(&dir));
        Ok(())
    }
}

impl Write for PendingFile {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.file.write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = rustix::fs::unlinkat(&self.dir, &self.temporary, AtFlags::empty());
        }
    }
}
