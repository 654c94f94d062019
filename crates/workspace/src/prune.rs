//! Removing old files of one folder.

use std::ffi::CString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::Failure;
use crate::{Error, Root};

impl Root {
    /// Removes the regular files of a folder that are older than `age`, and the oldest
    /// of the rest until no more than `bytes` are left. Returns how many went.
    pub fn prune(&self, given: &str, age: Duration, bytes: u64) -> Result<usize, Error> {
        let path = self.relative(given)?;
        let dir = match self.open_at(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Ok(dir) => dir,
            Err(Failure::Errno(Errno::NOENT)) => return Ok(0),
            Err(failure) => return Err(self.error(failure, given, "", "open", &path)),
        };
        let failed = |call, errno: Errno| Error::io("", call, self.absolute(&path), errno);
        let mut files: Vec<(i64, u64, CString)> = Vec::new();
        for entry in Dir::read_from(&dir).map_err(|e| failed("readdir", e))? {
            let entry = entry.map_err(|e| failed("readdir", e))?;
            let Ok(stat) = rustix::fs::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                files.push((
                    stat.st_mtime,
                    u64::try_from(stat.st_size).unwrap_or(0),
                    entry.file_name().to_owned(),
                ));
            }
        }
        files.sort();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let oldest = i64::try_from(now.saturating_sub(age.as_secs())).unwrap_or(0);
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        let mut removed = 0;
        for (modified, size, name) in files {
            if modified >= oldest && total <= bytes {
                break;
            }
            rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).map_err(|e| failed("unlink", e))?;
            total -= size;
            removed += 1;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_and_surplus_ones_go_oldest_first() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = Root::open(dir.path()).expect("root");
        assert_eq!(root.prune("outputs", Duration::ZERO, 0).expect("absent"), 0);
        let outputs = dir.path().join("outputs");
        std::fs::create_dir(&outputs).expect("dir");
        for (name, age) in [("old", 1000), ("b", 30), ("c", 20), ("d", 10)] {
            let file = std::fs::File::create(outputs.join(name)).expect("file");
            file.set_len(100).expect("len");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("time");
        }
        std::os::unix::fs::symlink("/etc/hostname", outputs.join("link")).expect("link");
        assert_eq!(root.prune("outputs", Duration::from_secs(100), 250).expect("pruned"), 2);
        let mut left: Vec<_> =
            std::fs::read_dir(&outputs).expect("dir").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["c", "d", "link"]);
    }
}
