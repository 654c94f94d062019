//! Putting a program in the place of another: unpacked beside it, then renamed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::Error;

/// The program's name within an archive.
const PROGRAM: &str = "legwork";
const MAX_PROGRAM: u64 = 1 << 30;

/// A program that lies beside the one it is to replace. Dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    target: PathBuf,
}

/// Unpacks an archive's program beside `program`, to be tried there.
pub fn stage(archive: &Path, program: &Path) -> Result<Staged, Error> {
    let failed = |what: &Path, e: io::Error| Error::new(format!("{}: {e}", what.display()));
    let path = beside(program, ".new");
    let mode = program.metadata().map_err(|e| failed(program, e))?.permissions().mode();
    let _ = std::fs::remove_file(&path);
    let mut file = File::options().write(true).create_new(true).mode(0o700).open(&path).map_err(|e| {
        Error::new(format!("{}: {e}; the update needs to write beside the program", path.display()))
    })?;
    let staged = Staged { path: path.clone(), target: program.to_owned() };
    let archive_file = File::open(archive).map_err(|e| failed(archive, e))?;
    let mut entries = tar::Archive::new(GzDecoder::new(archive_file));
    for entry in entries.entries().map_err(|e| failed(archive, e))? {
        let entry = entry.map_err(|e| failed(archive, e))?;
        let kind = entry.header().entry_type();
        let is_program = (kind.is_file() || kind.is_gnu_sparse())
            && entry.path().is_ok_and(|p| p.file_name().is_some_and(|name| name == PROGRAM));
        if !is_program {
            continue;
        }
        let size = io::copy(&mut entry.take(MAX_PROGRAM + 1), &mut file).map_err(|e| failed(&path, e))?;
        if size > MAX_PROGRAM {
            return Err(Error::new(format!("the program is larger than {MAX_PROGRAM} bytes")));
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode | 0o500)).map_err(|e| failed(&path, e))?;
        file.sync_all().map_err(|e| failed(&path, e))?;
        return Ok(staged);
    }
    Err(Error::new(format!("{} holds no file '{PROGRAM}'", archive.display())))
}

fn beside(program: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(program.file_name().unwrap_or(PROGRAM.as_ref()));
    name.push(suffix);
    program.with_file_name(name)
}

impl Staged {
    /// The program, to be tried.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place in one step; the one that was there can still be run by
    /// who has it open.
    pub fn commit(self) -> Result<(), Error> {
        let failed = |e: io::Error| Error::new(format!("{}: {e}", self.target.display()));
        std::fs::rename(&self.path, &self.target).map_err(failed)?;
        if let Some(folder) = self.target.parent() {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a commit there is nothing here any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = dir.join("a.tar.gz");
        let encoder =
            flate2::write::GzEncoder::new(File::create(&path).expect("file"), flate2::Compression::fast());
        let mut builder = tar::Builder::new(encoder);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, content).expect("entry");
        builder.into_inner().expect("tar").finish().expect("gzip");
        path
    }

    #[test]
    fn a_program_is_replaced_only_when_committed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let program = dir.path().join("legwork");
        std::fs::write(&program, "old").expect("program");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
        let archive = archive(dir.path(), "legwork", b"new");
        let staged = stage(&archive, &program).expect("staged");
        assert_eq!(std::fs::read_to_string(staged.path()).expect("new"), "new");
        drop(staged);
        assert_eq!(std::fs::read_to_string(&program).expect("old"), "old");
        stage(&archive, &program).expect("staged").commit().expect("committed");
        assert_eq!(std::fs::read_to_string(&program).expect("new"), "new");
        assert_eq!(program.metadata().expect("there").permissions().mode() & 0o777, 0o755);
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).expect("dir").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn an_archive_without_the_program_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let program = dir.path().join("legwork");
        std::fs::write(&program, "old").expect("program");
        let archive = archive(dir.path(), "README", b"x");
        assert!(stage(&archive, &program).is_err_and(|e| e.to_string().contains("holds no file")));
        assert!(stage(&program, &program).is_err());
    }
}
