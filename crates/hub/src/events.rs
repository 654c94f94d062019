//! A task's events: output and states of all its runs, in one append-only file.
//!
//! A frame is: payload length (u32), kind (1 byte), run's ordinal (u32), offset in
//! the stream (u64), payload; little-endian. The position after a frame is its
//! event id, so that a reader resumes by seeking.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEADER: usize = 17;
/// Most payload in one frame; longer ones are damage.
const MAX_PAYLOAD: usize = 16 << 20;

/// What a frame tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Stdout = 0,
    Stderr = 1,
    /// The payload is the event's JSON.
    State = 2,
    /// The task is over; the payload is the event's JSON.
    End = 3,
}

/// A frame as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) run: u32,
    pub(crate) offset: u64,
    pub(crate) payload: Vec<u8>,
    /// Position after the frame: its id.
    pub(crate) end: u64,
}

/// Where a task's events are; folders keep directories small.
pub(crate) fn path(data: &Path, task_id: &str) -> PathBuf {
    // Ids sort by time, so their beginnings are alike: the end spreads.
    let spread = task_id.get(task_id.len().saturating_sub(2)..).unwrap_or("xx");
    data.join("events").join(spread).join(task_id)
}

/// Appends to a task's events. Bytes of frames are gathered until [`Log::flush`].
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    written: u64,
}

impl Log {
    /// A log for a new task.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, buffer: Vec::new(), written: 0 }
    }

    /// A log that goes on; what a crash left of a last frame is cut off. `each` sees
    /// every frame.
    pub(crate) fn reopen(path: PathBuf, mut each: impl FnMut(&Frame)) -> io::Result<Self> {
        let mut end = 0;
        if let Ok(file) = File::open(&path) {
            while let Some(frame) = read(&file, end)? {
                end = frame.end;
                each(&frame);
            }
        }
        let mut log = Self { path, file: None, buffer: Vec::new(), written: end };
        log.open()?.set_len(end)?;
        Ok(log)
    }

    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            self.file = Some(OpenOptions::new().append(true).create(true).open(&self.path)?);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("no file"))
    }

    /// Adds a frame.
    pub(crate) fn add(&mut self, kind: Kind, run: u32, offset: u64, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.buffer.extend_from_slice(&len.to_le_bytes());
        self.buffer.push(kind as u8);
        self.buffer.extend_from_slice(&run.to_le_bytes());
        self.buffer.extend_from_slice(&offset.to_le_bytes());
        self.buffer.extend_from_slice(payload);
    }

    /// Makes the added frames readable; returns the length of the log.
    pub(crate) fn flush(&mut self) -> io::Result<u64> {
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.written;
        let file = self.open()?;
        if let Err(error) = file.write_all(&buffer) {
            file.set_len(written)?;
            return Err(error);
        }
        self.written += buffer.len() as u64;
        Ok(self.written)
    }
}

/// Reads the frame at a position; `None` if there is no whole one.
pub(crate) fn read(file: &File, at: u64) -> io::Result<Option<Frame>> {
    let mut header = [0u8; HEADER];
    if !read_whole(file, &mut header, at)? {
        return Ok(None);
    }
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = match header[4] {
        0 => Kind::Stdout,
        1 => Kind::Stderr,
        2 => Kind::State,
        3 => Kind::End,
        _ => return Ok(None),
    };
    if len > MAX_PAYLOAD {
        return Ok(None);
    }
    let run = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
    let offset = u64::from_le_bytes(header[9..17].try_into().map_err(io::Error::other)?);
    let mut payload = vec![0u8; len];
    if !read_whole(file, &mut payload, at + HEADER as u64)? {
        return Ok(None);
    }
    Ok(Some(Frame { kind, run, offset, payload, end: at + (HEADER + len) as u64 }))
}

fn read_whole(file: &File, buffer: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, at) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back_and_a_torn_one_is_cut_off() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = path(dir.path(), "tsk_abc");
        let mut log = Log::new(path.clone());
        log.add(Kind::Stdout, 0, 0, b"hello");
        log.add(Kind::State, 1, 0, b"{}");
        let len = log.flush().expect("flush");
        let mut file = OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(&[9, 0, 0, 0, 0, 1]).expect("write");
        let mut kinds = Vec::new();
        let mut log = Log::reopen(path.clone(), |f| kinds.push((f.kind, f.run, f.end))).expect("reopen");
        assert_eq!(kinds, [(Kind::Stdout, 0, 22), (Kind::State, 1, 41)]);
        assert_eq!(len, 41);
        log.add(Kind::End, 0, 0, b"");
        log.flush().expect("flush");
        let file = File::open(&path).expect("open");
        assert_eq!(read(&file, 41).expect("read").expect("frame").kind, Kind::End);
        assert_eq!(read(&file, 58).expect("read"), None);
    }
}
