//! Reading a part of a file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::Failure;
use crate::{Error, Root};

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileData {
    /// The bytes asked for, as far as the file and the cap reach.
    pub data: Vec<u8>,
    /// The size of the whole file.
    pub total_size: u64,
}

impl Root {
    /// Reads up to `limit` bytes (0: to the end) from byte `offset` on, never more
    /// than `cap`.
    pub fn read(&self, given: &str, offset: u64, limit: u64, cap: u64) -> Result<FileData, Error> {
        let path = self.relative(given)?;
        // A FIFO must not block us, nor a terminal become ours.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_at(&path, flags, Mode::empty()).map_err(|failure| {
            let (action, call) = match failure {
                Failure::Errno(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => {
                    ("stat file", "stat")
                }
                _ => ("open file", "open"),
            };
            self.error(failure, given, action, call, &path)
        })?;
        let stat =
            rustix::fs::fstat(&fd).map_err(|e| Error::io("stat file", "stat", self.absolute(&path), e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Error::IsDirectory { path: given.to_owned() }),
            _ => return Err(Error::NotAFile { path: given.to_owned() }),
        }
        let total_size = u64::try_from(stat.st_size).unwrap_or(0);
        let rest = total_size.saturating_sub(offset);
        let len = if limit == 0 { rest } else { rest.min(limit) }.min(cap);
        let mut data = vec![0u8; usize::try_from(len).unwrap_or(usize::MAX)];
        let file = File::from(fd);
        let mut filled = 0;
        while filled < data.len() {
            match file.read_at(&mut data[filled..], offset + filled as u64) {
                Ok(0) => break, // it was cut meanwhile
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read file", "read", self.absolute(&path), e)),
            }
        }
        data.truncate(filled);
        Ok(FileData { data, total_size })
    }
}
