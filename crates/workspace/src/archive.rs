//! Packing folders, and unpacking what strangers send.

mod tar_zst;
mod zip;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::tree::is_temporary;
use crate::{Error, Meta, Root};

/// A kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.tar.zst`: keeps modes and links.
    TarZst,
    /// `.zip`
    Zip,
}

impl Format {
    /// By the usual names.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "tar.zst" | "tzst" => Some(Self::TarZst),
            "zip" => Some(Self::Zip),
            _ => None,
        }
    }

    /// What a file of this kind is called.
    pub fn extension(self) -> &'static str {
        match self {
            Self::TarZst => "tar.zst",
            Self::Zip => "zip",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::TarZst => "application/zstd",
            Self::Zip => "application/zip",
        }
    }
}

/// How much may come out of an archive.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// How many times larger than the archive its content may be, beyond the first 16 MiB.
    pub ratio: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 200_000, ratio: 200 }
    }
}

/// Why an archive could not be made or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The workspace says no.
    #[error("{0}")]
    Workspace(#[from] Error),
    /// An entry's name leads out of the folder.
    #[error("an entry leads out of the folder: {0}")]
    Escapes(String),
    /// There is more in it than is allowed.
    #[error("the archive holds too much: {0}")]
    TooMuch(String),
    /// It can't be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What was packed or unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Something in a folder that is packed.
pub(crate) enum Item {
    Folder(Meta),
    File(File, Meta),
    /// With its target.
    Link(String),
}

/// Whether a link at `path` stays beneath the root by its words.
pub(crate) fn stays_within(path: &Path, target: &str) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    Path::new(target).components().all(|component| match component {
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::ParentDir if depth > 0 => {
            depth -= 1;
            true
        }
        Component::CurDir => true,
        _ => false,
    })
}

impl Root {
    /// Packs a folder, with all below but what is excluded.
    pub fn pack(
        &self,
        given: &str,
        format: Format,
        exclude: &[String],
        to: impl Write,
    ) -> Result<Packed, ArchiveError> {
        let base = self.relative(given)?;
        match format {
            Format::TarZst => tar_zst::pack(self, &base, exclude, to),
            Format::Zip => zip::pack(self, &base, exclude, to),
        }
    }

    /// Packs these files and links as `.tar.zst`, and nothing else. What is not there, or is
    /// neither, is left out; so is a link that no archive may have, as it leads out of the root.
    pub fn pack_listed(
        &self,
        paths: &[PathBuf],
        to: impl Write,
        see: &mut dyn FnMut(&Path, &[u8]),
    ) -> Result<Packed, ArchiveError> {
        tar_zst::pack_each(to, see, |each| {
            for given in paths {
                let path = self.relative(&given.to_string_lossy())?;
                let Ok(found) = self.open_at(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) else {
                    continue;
                };
                let stat = rustix::fs::fstat(&found).map_err(io::Error::from)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => {
                        let target = rustix::fs::readlinkat(&found, "", Vec::new());
                        let target = target.ok().and_then(|target| target.into_string().ok());
                        if let Some(target) = target.filter(|target| stays_within(&path, target)) {
                            each(&path, Item::Link(target))?;
                        }
                    }
                    FileType::RegularFile => {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                        let Ok(file) = self.open_at(&path, flags, Mode::empty()) else { continue };
                        let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
                        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                            each(&path, Item::File(File::from(file), Meta::from(&stat)))?;
                        }
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// Unpacks an archive of `size` bytes into a folder, which is made if it is not there.
    /// Files that are there already are replaced, one by one and each in one step; nothing
    /// is written outside, whatever names or links the archive has.
    pub fn unpack(
        &self,
        given: &str,
        format: Format,
        from: impl Read + Seek,
        size: u64,
        bounds: Bounds,
    ) -> Result<Packed, ArchiveError> {
        let base = self.relative(given)?;
        self.make_dirs(given, &base)?;
        let mut budget = Budget { bounds, size, packed: Packed::default() };
        match format {
            Format::TarZst => tar_zst::unpack(self, &base, from, &mut budget)?,
            Format::Zip => zip::unpack(self, &base, from, &mut budget)?,
        }
        Ok(budget.packed)
    }

    /// Gives every regular file below a folder, opened, in the order of names.
    pub fn each_file(
        &self,
        given: &str,
        exclude: &[String],
        each: &mut dyn FnMut(&str, File, Meta),
    ) -> Result<(), Error> {
        let base = self.relative(given)?;
        let walked = self.walk(&base, exclude, &mut |path, item| {
            if let (Item::File(file, meta), Some(path)) = (item, path.to_str()) {
                each(path, file, meta);
            }
            Ok(())
        });
        match walked {
            Err(ArchiveError::Workspace(error)) => Err(error),
            Err(error) => {
                Err(Error::io("", "read", self.absolute(&base), io::Error::other(error.to_string())))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Everything below a folder, parents first, in the order of names.
    pub(crate) fn walk(
        &self,
        base: &Path,
        exclude: &[String],
        each: &mut dyn FnMut(&Path, Item) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut todo = vec![PathBuf::new()];
        while let Some(path) = todo.pop() {
            let at = base.join(&path);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let flags = if path.as_os_str().is_empty() { flags - OFlags::NOFOLLOW } else { flags };
            let dir = match self.open_at(&at, flags, Mode::empty()) {
                Ok(dir) => dir,
                Err(f) if path.as_os_str().is_empty() => {
                    return Err(self.error(f, &at.to_string_lossy(), "", "open", &at).into());
                }
                // It went away, or can't be read.
                Err(_) => continue,
            };
            let mut names: Vec<_> = Dir::read_from(&dir)
                .map_err(io::Error::from)?
                .flatten()
                .map(|entry| entry.file_name().to_owned())
                .filter(|name| {
                    let bytes = name.to_bytes();
                    bytes != b"."
                        && bytes != b".."
                        && !is_temporary(bytes)
                        && !exclude.iter().any(|e| e.as_bytes() == bytes)
                })
                .collect();
            names.sort_unstable();
            let mut below = Vec::new();
            for name in names {
                // Archives have names of text.
                let Ok(text) = name.to_str() else { continue };
                let relative = path.join(text);
                let Ok(stat) = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => {
                        each(&relative, Item::Folder(Meta::from(&stat)))?;
                        below.push(relative);
                    }
                    FileType::Symlink => {
                        let target = rustix::fs::readlinkat(&dir, &name, Vec::new());
                        if let Some(target) = target.ok().and_then(|t| t.into_string().ok()) {
                            each(&relative, Item::Link(target))?;
                        }
                    }
                    FileType::RegularFile => {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                        let Ok(fd) = rustix::fs::openat(&dir, &name, flags, Mode::empty()) else { continue };
                        let stat = rustix::fs::fstat(&fd).map_err(io::Error::from)?;
                        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                            each(&relative, Item::File(File::from(fd), Meta::from(&stat)))?;
                        }
                    }
                    _ => {}
                }
            }
            todo.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Writes one file of an archive.
    pub(crate) fn take_file(
        &self,
        path: &Path,
        mode: Option<u32>,
        from: &mut dyn Read,
        budget: &mut Budget,
    ) -> Result<(), ArchiveError> {
        let given = path.to_string_lossy();
        self.clear_way(path)?;
        let mut file = self.create(&given)?;
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let len = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            budget.add_bytes(len)?;
            file.write_all(&buffer[..len])?;
        }
        if let Some(mode) = mode {
            file.set_mode(mode)?;
        }
        // Many files at once are not flushed one by one.
        Ok(file.commit_unflushed()?)
    }

    /// Makes a link of an archive: only one that stays within the workspace.
    pub(crate) fn take_link(&self, base: &Path, path: &Path, target: &str) -> Result<(), ArchiveError> {
        let escapes = || ArchiveError::Escapes(format!("{} -> {target}", path.display()));
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut depth = folder.components().count();
        if Path::new(target).is_absolute() || target.is_empty() || target.contains('\0') {
            return Err(escapes());
        }
        // By its words it must not go above the folder that is unpacked into; where it
        // really leads is checked whenever it is used.
        let floor = base.components().count();
        for component in Path::new(target).components() {
            match component {
                Component::ParentDir => {
                    depth = depth.checked_sub(1).filter(|d| *d >= floor).ok_or_else(escapes)?
                }
                Component::Normal(_) => depth += 1,
                _ => {}
            }
        }
        let dir = self.make_dirs(&folder.to_string_lossy(), folder)?;
        let name = path.file_name().ok_or_else(escapes)?;
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(io::Error::from(rustix::io::Errno::ISDIR).into());
            }
            Ok(_) => rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(io::Error::from)?,
            Err(_) => {}
        }
        rustix::fs::symlinkat(target, &dir, name).map_err(io::Error::from)?;
        Ok(())
    }

    /// Makes `path` the same file as `target`, which was unpacked before: where the file system
    /// has no such links, a copy.
    pub(crate) fn take_hard_link(
        &self,
        path: &Path,
        target: &Path,
        budget: &mut Budget,
    ) -> Result<(), ArchiveError> {
        let there = self.open_folder(target)?;
        let here = self.open_folder(path)?;
        let (Some(name), Some(old)) = (path.file_name(), target.file_name()) else {
            return Err(ArchiveError::Escapes(path.display().to_string()));
        };
        if path == target {
            return Ok(());
        }
        // What is in the way is a file of before; a folder stays, and is the error.
        let _ = rustix::fs::unlinkat(&here, name, AtFlags::empty());
        match rustix::fs::linkat(&there, old, &here, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => Err(io::Error::from(rustix::io::Errno::EXIST).into()),
            Err(_) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&there, old, flags, Mode::empty()).map_err(io::Error::from)?;
                let mode = rustix::fs::fstat(&file).map_err(io::Error::from)?.st_mode & 0o777;
                self.take_file(path, Some(mode), &mut File::from(file), budget)
            }
        }
    }

    /// The folder something lies in, made if it is not there.
    fn open_folder(&self, path: &Path) -> Result<std::os::fd::OwnedFd, ArchiveError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(self.make_dirs(&folder.to_string_lossy(), folder)?)
    }

    /// A link in the place of a file is replaced, not written through.
    pub(crate) fn clear_way(&self, path: &Path) -> Result<(), ArchiveError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let dir = self.make_dirs(&folder.to_string_lossy(), folder)?;
        let Some(name) = path.file_name() else { return Ok(()) };
        if let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
            && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
        {
            rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(io::Error::from)?;
        }
        Ok(())
    }
}

/// Where an entry goes: its name must not lead out of the folder, nor name the folder.
pub(crate) fn place(base: &Path, name: &str) -> Result<Option<PathBuf>, ArchiveError> {
    let path = Path::new(name);
    let bad = path.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir));
    if bad || name.contains('\0') || name.contains('\\') {
        return Err(ArchiveError::Escapes(name.to_owned()));
    }
    let plain: PathBuf = path.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    Ok((!plain.as_os_str().is_empty()).then(|| base.join(plain)))
}

/// What may still come out of an archive.
pub(crate) struct Budget {
    bounds: Bounds,
    size: u64,
    pub(crate) packed: Packed,
}

impl Budget {
    pub(crate) fn add_entry(&mut self) -> Result<(), ArchiveError> {
        self.packed.entries += 1;
        if self.packed.entries > self.bounds.entries {
            return Err(ArchiveError::TooMuch(format!("more than {} entries", self.bounds.entries)));
        }
        Ok(())
    }

    fn add_bytes(&mut self, len: usize) -> Result<(), ArchiveError> {
        const FREE: u64 = 16 << 20;
        self.packed.bytes += len as u64;
        if self.packed.bytes > self.bounds.bytes {
            return Err(ArchiveError::TooMuch(format!("more than {} bytes", self.bounds.bytes)));
        }
        let most = self.size.saturating_mul(self.bounds.ratio).saturating_add(FREE);
        if self.packed.bytes > most {
            return Err(ArchiveError::TooMuch(format!(
                "it grows to more than {} times its size",
                self.bounds.ratio
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
