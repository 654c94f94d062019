//! Replacing a folder by the contents of a zip archive, whole or not at all.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use zip::ZipArchive;

use crate::beneath::Failure;
use crate::os::{self, LOOK, path_of, remove_tree};
use crate::{Error, Root};

/// The largest file of an archive.
const MAX_FILE: u64 = 100 << 20;
/// All files of an archive together.
const MAX_TOTAL: u64 = 1 << 30;
const MAX_ENTRIES: usize = 100_000;

/// Why an archive was not unpacked; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The folder can't be replaced.
    #[error("{0}")]
    Folder(#[from] Error),
    /// The workspace itself is not replaced.
    #[error("'{0}' is the workspace itself: name a folder below it")]
    Root(String),
    /// It is no archive, or a damaged one.
    #[error("failed to read zip archive: {0}")]
    Archive(String),
    /// An entry starts with `..` or is absolute.
    #[error("invalid file path in zip: {0}")]
    InvalidPath(String),
    /// An entry leads out of the folder.
    #[error("file path escapes destination: {0}")]
    Escapes(String),
    /// An entry could not be written.
    #[error("failed to extract {name}: {cause}")]
    Extract {
        /// The entry.
        name: String,
        /// What the archive's reader or the system said.
        cause: String,
    },
    /// The note beside the contents could not be written.
    #[error("failed to write {name}: {cause}")]
    Note {
        /// The note's file.
        name: String,
        /// What the archive's reader or the system said.
        cause: String,
    },
}

impl Root {
    /// Replaces the folder `given` by the contents of `archive` and a file `note` with
    /// the text given. All is unpacked beside it first, then put in place by one
    /// rename. Links in the archive become plain files that hold their target.
    pub fn replace_by_zip(&self, given: &str, archive: &[u8], note: (&str, &str)) -> Result<(), UnpackError> {
        let path = self.folder(given)?;
        let Some(name) = path.file_name() else { return Err(UnpackError::Root(given.to_owned())) };
        let mut archive =
            ZipArchive::new(Cursor::new(archive)).map_err(|e| UnpackError::Archive(e.to_string()))?;
        check(&archive)?;
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent_dir = self.make_dirs(given, &parent)?;
        let aside = Aside::make(&parent_dir, &self.absolute(&parent))?;
        // The folder in the making is a root of its own: an entry can't leave it, nor
        // can who plants links in it meanwhile.
        let root = Root {
            path: self.absolute(&parent).join(&aside.name),
            resolver: self.resolver,
            dir: Mutex::new(Arc::new(aside.open()?)),
        };
        let mut left = MAX_TOTAL;
        for index in 0..archive.len() {
            extract(&root, &mut archive, index, &mut left)?;
        }
        let (note_name, text) = note;
        let noted = root.new_file(Path::new(note_name), 0o644).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        noted.map_err(|e| UnpackError::Note {
            name: note_name.trim_start_matches('.').to_owned(),
            cause: crate::error::strerror(&e),
        })?;
        aside.take_place_of(name).map_err(|e| Error::io("", "rename", self.absolute(&path), e))?;
        Ok(())
    }

    /// Where the folder really is: a link within the root is followed.
    fn folder(&self, given: &str) -> Result<PathBuf, UnpackError> {
        let path = self.relative(given)?;
        let flags = LOOK | OFlags::DIRECTORY;
        match self.open_at(&path, flags, Mode::empty()) {
            Ok(dir) => {
                // Only a hint to where it is: it is opened again from the root.
                let real = path_of(&dir);
                Ok(real.and_then(|r| r.strip_prefix(self.path()).map(Path::to_owned).ok()).unwrap_or(path))
            }
            Err(Failure::Errno(Errno::NOENT)) => Ok(path),
            Err(failure) => Err(self.error(failure, given, "", "open", &path).into()),
        }
    }

    fn new_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self.make_dirs("", parent).map_err(into_io)?;
        let name = path.file_name().ok_or(Errno::ISDIR)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o600))?;
        // Exactly the mode asked for, whatever the umask.
        rustix::fs::fchmod(&file, os::mode(mode))?;
        Ok(File::from(file))
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}

/// What can be refused before anything is written.
fn check(archive: &ZipArchive<Cursor<&[u8]>>) -> Result<(), UnpackError> {
    if archive.len() > MAX_ENTRIES {
        return Err(UnpackError::Archive(format!(
            "it has {} entries, the limit is {MAX_ENTRIES}",
            archive.len()
        )));
    }
    for name in archive.file_names() {
        let name = name.map_err(|e| UnpackError::Archive(e.to_string()))?;
        if name.starts_with("..") || name.starts_with('/') || name.contains('\0') {
            return Err(UnpackError::InvalidPath(name.into_owned()));
        }
        if Path::new(name.as_ref())
            .components()
            .any(|c| !matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(UnpackError::Escapes(name.into_owned()));
        }
    }
    Ok(())
}

fn extract(
    root: &Root,
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    index: usize,
    left: &mut u64,
) -> Result<(), UnpackError> {
    let mut entry = archive.by_index(index).map_err(|e| UnpackError::Archive(e.to_string()))?;
    let name = entry.name().map_err(|e| UnpackError::Archive(e.to_string()))?.into_owned();
    let failed = |cause: String| UnpackError::Extract { name: name.clone(), cause };
    let system = |e: io::Error| failed(crate::error::strerror(&e));
    // No set-user-id, whatever the archive says.
    let mode = entry.unix_mode().map(|mode| mode & 0o777);
    if entry.is_dir() {
        let dir = root.make_dirs("", Path::new(&name)).map_err(|e| system(into_io(e)))?;
        if let Some(mode) = mode.filter(|mode| *mode != 0) {
            // We must be able to fill it.
            rustix::fs::fchmod(&dir, os::mode(mode | 0o700)).map_err(|e| system(e.into()))?;
        }
        return Ok(());
    }
    let mut file =
        root.new_file(Path::new(&name), mode.filter(|m| *m != 0).unwrap_or(0o644)).map_err(system)?;
    let mut buffer = vec![0u8; 64 * 1024];
    let mut size = 0u64;
    loop {
        let len = match entry.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(e) => return Err(failed(e.to_string())),
        };
        size += len as u64;
        *left = left
            .checked_sub(len as u64)
            .ok_or_else(|| failed(format!("the archive holds more than {MAX_TOTAL} bytes")))?;
        if size > MAX_FILE {
            return Err(failed(format!("the file is larger than {MAX_FILE} bytes")));
        }
        file.write_all(&buffer[..len]).map_err(system)?;
    }
    file.sync_all().map_err(system)
}

/// A folder in the making, beside the one it is to replace. Dropped, it is removed.
struct Aside<'a> {
    parent: &'a OwnedFd,
    name: String,
    path: PathBuf,
}

impl<'a> Aside<'a> {
    fn make(parent: &'a OwnedFd, parent_path: &Path) -> Result<Self, Error> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!(".legwork-{}-{number}.unpack", std::process::id());
            let path = parent_path.join(&name);
            match rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) => return Ok(Self { parent, name, path }),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(Error::io("", "mkdir", path, e)),
            }
        }
    }

    fn open(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.parent, &self.name, flags, Mode::empty())
            .map_err(|e| Error::io("", "open", &self.path, e))
    }

    /// Swaps places with `name`, if that exists; what was there is removed with us.
    fn take_place_of(self, name: &std::ffi::OsStr) -> io::Result<()> {
        let exchange = |flags| rustix::fs::renameat_with(self.parent, &self.name, self.parent, name, flags);
        let existing = rustix::fs::statat(self.parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let result = match exchange(if existing { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE }) {
            // File systems without an exchange: two renames, with a moment between.
            Err(Errno::INVAL | Errno::NOSYS) if existing => {
                let old = format!("{}.old", self.name);
                rustix::fs::renameat(self.parent, name, self.parent, &old)
                    .and_then(|()| rustix::fs::renameat(self.parent, &self.name, self.parent, name))
                    .and_then(|()| rustix::fs::renameat(self.parent, &old, self.parent, &self.name))
            }
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::renameat(self.parent, &self.name, self.parent, name)
            }
            result => result,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let _ = rustix::fs::openat(self.parent, ".", flags, Mode::empty())
            .and_then(|dir| rustix::fs::fsync(&dir));
        Ok(result?)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        // By descriptor, so that nobody can move the parent from under us.
        let _ = remove_tree(self.parent, &self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use zip::write::SimpleFileOptions;

    use super::*;

    type Entry<'a> = (&'a str, &'a [u8], u32);

    fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, data, mode) in entries {
            let options = SimpleFileOptions::default().unix_permissions(*mode);
            if name.ends_with('/') {
                writer.add_directory(name.trim_end_matches('/'), options).expect("directory");
            } else {
                writer.start_file(*name, options).expect("file");
                writer.write_all(data).expect("data");
            }
        }
        writer.finish().expect("archive").into_inner()
    }

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = Root::open(dir.path()).expect("root");
        (dir, root)
    }

    fn leftovers(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir).expect("dir").flatten().map(|e| e.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".legwork-")).count()
    }

    #[test]
    fn a_folder_is_replaced_whole_and_modes_are_kept() {
        let (dir, root) = root();
        let skill = dir.path().join("skills/demo");
        std::fs::create_dir_all(&skill).expect("old");
        std::fs::write(skill.join("old"), "old").expect("old");
        let bytes =
            archive(&[("bin/", b"", 0o750), ("bin/run.sh", b"#!", 0o4755), ("a/b/SKILL.md", b"# x", 0o644)]);
        root.replace_by_zip("skills/demo", &bytes, (".checksum", "sha256:1")).expect("replaced");
        assert!(!skill.join("old").exists());
        let mode =
            |path: &str| std::fs::metadata(skill.join(path)).expect(path).permissions().mode() & 0o7777;
        assert_eq!((mode("bin"), mode("bin/run.sh"), mode("a/b/SKILL.md")), (0o750, 0o755, 0o644));
        assert_eq!(std::fs::read_to_string(skill.join(".checksum")).expect("note"), "sha256:1");
        assert_eq!(leftovers(&dir.path().join("skills")), 0);
    }

    #[test]
    fn a_bad_archive_changes_nothing() {
        let (dir, root) = root();
        let skill = dir.path().join("skill");
        std::fs::create_dir(&skill).expect("old");
        std::fs::write(skill.join("old"), "old").expect("old");
        for (bytes, want) in [
            (b"no zip".to_vec(), "failed to read zip archive: "),
            (archive(&[("../evil", b"x", 0o644)]), "invalid file path in zip: ../evil"),
            (archive(&[("/etc/evil", b"x", 0o644)]), "invalid file path in zip: /etc/evil"),
            (
                archive(&[("ok", b"x", 0o644), ("a/../../evil", b"x", 0o644)]),
                "file path escapes destination: a/../../evil",
            ),
            (archive(&[("a", b"x", 0o644), ("a/b", b"x", 0o644)]), "failed to extract a/b: "),
        ] {
            let error = root.replace_by_zip("skill", &bytes, (".checksum", "x")).expect_err(want).to_string();
            assert!(error.starts_with(want), "{error}");
        }
        for given in ["", ".", "a/..", "/"] {
            let error = root.replace_by_zip(given, &archive(&[]), (".checksum", "x")).expect_err(given);
            assert!(matches!(error, UnpackError::Root(_)), "{error}");
        }
        assert!(skill.join("old").exists());
        assert_eq!(leftovers(dir.path()), 0);
    }

    #[test]
    fn a_bomb_is_stopped() {
        let (dir, root) = root();
        let zeros = vec![0u8; usize::try_from(MAX_FILE).expect("fits") + 1];
        let bytes = archive(&[("zeros", &zeros, 0o644)]);
        assert!(bytes.len() < 1 << 20);
        let error = root.replace_by_zip("s", &bytes, (".checksum", "x")).expect_err("bomb").to_string();
        assert!(error.contains("larger than 104857600 bytes"), "{error}");
        assert_eq!(leftovers(dir.path()), 0);
    }

    #[test]
    fn links_lead_nowhere() {
        let (dir, root) = root();
        let outside = tempfile::tempdir().expect("tempdir");
        // A link in the archive is a file with its target's text.
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink("link", "/etc", SimpleFileOptions::default()).expect("link");
        let bytes = writer.finish().expect("archive").into_inner();
        root.replace_by_zip("s", &bytes, (".checksum", "x")).expect("replaced");
        assert_eq!(std::fs::read_to_string(dir.path().join("s/link")).expect("file"), "/etc");
        // A link in the place of the folder, or above it, is not followed out.
        std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).expect("link");
        for given in ["out", "out/s"] {
            let error = root.replace_by_zip(given, &archive(&[]), (".checksum", "x")).expect_err(given);
            assert!(matches!(error, UnpackError::Folder(Error::Escapes { .. })), "{error}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).expect("dir").count(), 0);
        // Within the root it is.
        std::os::unix::fs::symlink("s", dir.path().join("alias")).expect("link");
        root.replace_by_zip("alias", &archive(&[("new", b"x", 0o644)]), (".checksum", "x"))
            .expect("replaced");
        assert!(dir.path().join("s/new").exists() && dir.path().join("alias").is_symlink());
    }
}
