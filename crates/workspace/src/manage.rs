//! Making, moving and removing files and folders; opening one for streaming.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::beneath::Failure;
use crate::os::{LOOK, remove_tree};
use crate::{Error, Root};

/// What a file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// A folder, or else a regular file.
    pub is_dir: bool,
    /// The size in bytes.
    pub size: u64,
    /// When its content was last changed.
    pub modified: SystemTime,
    /// Permission bits.
    pub mode: u32,
    /// Its number on the disk: another one means another file.
    pub inode: u64,
}

impl From<&Stat> for Meta {
    fn from(stat: &Stat) -> Self {
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self {
            is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanos),
            mode: crate::os::bits(stat.st_mode),
            inode: stat.st_ino,
        }
    }
}

impl Root {
    /// Opens a regular file for reading, without reading it.
    pub fn open_file(&self, given: &str) -> Result<(File, Meta), Error> {
        let path = self.relative(given)?;
        // A FIFO must not block us, nor a terminal become ours.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd =
            self.open_at(&path, flags, Mode::empty()).map_err(|f| self.error(f, given, "", "open", &path))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("", "stat", self.absolute(&path), e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((File::from(fd), Meta::from(&stat))),
            FileType::Directory => Err(Error::IsDirectory { path: given.to_owned() }),
            _ => Err(Error::NotAFile { path: given.to_owned() }),
        }
    }

    /// Opens a regular file for writing at its end; makes it and its parents.
    pub fn open_to_append(&self, given: &str) -> Result<File, Error> {
        let path = self.relative(given)?;
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        self.make_dirs(given, &parent)?;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self
            .open_at(&path, flags, Mode::from_raw_mode(0o644))
            .map_err(|f| self.error(f, given, "", "open", &path))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("", "stat", self.absolute(&path), e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            _ => Err(Error::NotAFile { path: given.to_owned() }),
        }
    }

    /// What a path leads to: links within the root are followed.
    pub fn stat(&self, given: &str) -> Result<Meta, Error> {
        let path = self.relative(given)?;
        let fd =
            self.open_at(&path, LOOK, Mode::empty()).map_err(|f| self.error(f, given, "", "stat", &path))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("", "stat", self.absolute(&path), e))?;
        Ok(Meta::from(&stat))
    }

    /// Makes a folder and its parents; one that exists is an error.
    pub fn make_dir(&self, given: &str) -> Result<(), Error> {
        let (parent, name, path) = self.parent_of(given, true)?;
        rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755))
            .map_err(|e| Error::io("", "mkdir", self.absolute(&path), e))
    }

    /// Makes an empty file and its parents; one that exists is an error.
    pub fn make_file(&self, given: &str) -> Result<(), Error> {
        let (parent, name, path) = self.parent_of(given, true)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o644))
            .map(drop)
            .map_err(|e| Error::io("", "open", self.absolute(&path), e))
    }

    /// Removes a file, a link (not what it leads to), or a folder with all in it.
    pub fn remove(&self, given: &str) -> Result<(), Error> {
        let (parent, name, path) = self.parent_of(given, false)?;
        let failed = |e: std::io::Error| Error::io("", "unlink", self.absolute(&path), e);
        match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                let stat = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| failed(e.into()))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Err(failed(Errno::PERM.into()));
                }
                remove_tree(&parent, &name).map_err(failed)
            }
            result => result.map_err(|e| failed(e.into())),
        }
    }

    /// Moves a file, link or folder; the parents of its new place are made. What is there
    /// already is kept, unless `replace` says otherwise.
    pub fn rename(&self, from: &str, to: &str, replace: bool) -> Result<(), Error> {
        let (from_dir, from_name, from_path) = self.parent_of(from, false)?;
        rustix::fs::statat(&from_dir, &from_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::io("", "stat", self.absolute(&from_path), e))?;
        let (to_dir, to_name, to_path) = self.parent_of(to, true)?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let result = match rustix::fs::renameat_with(&from_dir, &from_name, &to_dir, &to_name, flags) {
            // File systems that know no such flag: a look before, with a moment between.
            Err(Errno::INVAL) if !replace && !to_path.starts_with(&from_path) => {
                match rustix::fs::statat(&to_dir, &to_name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Err(Errno::EXIST),
                    Err(_) => rustix::fs::renameat(&from_dir, &from_name, &to_dir, &to_name),
                }
            }
            result => result,
        };
        result.map_err(|e| Error::io("", "rename", self.absolute(&to_path), e))
    }

    /// Changes permission bits; set-user-id and the like are not given.
    pub fn set_mode(&self, given: &str, mode: u32) -> Result<(), Error> {
        let path = self.relative(given)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let fd =
            self.open_at(&path, flags, Mode::empty()).map_err(|f| self.error(f, given, "", "open", &path))?;
        rustix::fs::fchmod(&fd, crate::os::mode(mode & 0o777))
            .map_err(|e| Error::io("", "chmod", self.absolute(&path), e))
    }

    /// The folder that holds a path, opened, and the path's last name.
    fn parent_of(&self, given: &str, make: bool) -> Result<(OwnedFd, String, PathBuf), Error> {
        let path = self.relative(given)?;
        let Some(name) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else {
            return Err(Error::io("", "open", self.absolute(&path), Errno::BUSY));
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = if make {
            self.make_dirs(given, parent)?
        } else {
            self.open_at(parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                .map_err(|f: Failure| self.error(f, given, "", "open", &path))?
        };
        Ok((dir, name, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_made_moved_and_removed_beneath_the_root() {
        let dir = tempfile::tempdir().expect("tempdir");
        let outside = tempfile::tempdir().expect("tempdir");
        std::fs::write(outside.path().join("kept"), "kept").expect("file");
        let root = Root::open(dir.path()).expect("root");
        root.make_dir("a/b/c").expect("folder");
        root.make_file("a/b/c/f").expect("file");
        assert!(root.make_file("a/b/c/f").is_err() && root.make_dir("a/b").is_err());
        root.make_file("g").expect("file");
        let taken = root.rename("a/b/c/f", "g", false).expect_err("taken");
        assert!(taken.to_string().ends_with("file exists"), "{taken}");
        root.rename("a/b/c/f", "g", true).expect("replaced");
        root.rename("a", "x/y", false).expect("moved");
        assert!(dir.path().join("x/y/b/c").is_dir() && !dir.path().join("a").exists());
        // Into itself.
        assert!(root.rename("x", "x/y/z", false).is_err());
        // Links are removed and moved themselves; through those that leave nothing is done.
        std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).expect("link");
        for given in ["out/kept", "../kept", "out/../../kept"] {
            assert!(root.remove(given).is_err(), "{given}");
            assert!(root.rename(given, "stolen", true).is_err(), "{given}");
            assert!(root.rename("g", given, true).is_err(), "{given}");
        }
        assert!(root.make_dir("out/new").is_err() && root.make_file("out/new").is_err());
        root.remove("out").expect("link");
        root.remove("x").expect("tree");
        assert!(root.remove("").is_err() && root.remove("/").is_err());
        assert_eq!(std::fs::read_to_string(outside.path().join("kept")).expect("kept"), "kept");
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).expect("dir").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["g"]);
    }
}
