//! Folders that one process has at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// A folder's lock; dropped, or when the process ends however it may, it is free again.
#[derive(Debug)]
pub struct Lock {
    /// The file that is locked, for whoever leaves word in it.
    pub file: File,
}

impl Lock {
    /// Takes the lock of a folder that is there, by the file `lock` in it. `None` while
    /// another process has it.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let file = File::options().append(true).create(true).open(folder.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_until_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Lock::take(folder.path()).expect("a lock");
        assert!(first.is_some());
        assert!(Lock::take(folder.path()).expect("a look").is_none());
        drop(first);
        assert!(Lock::take(folder.path()).expect("a lock").is_some());
        assert!(Lock::take(&folder.path().join("missing")).is_err());
    }
}
