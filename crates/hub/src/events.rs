//! A task's events: output and states of all its runs, in one append-only file.
//!
//! A frame is: payload length (u32), kind (1 byte), run's ordinal (u32), offset in
//! the stream (u64), payload; little-endian. The position after a frame is its
//! event id, so that a reader resumes by seeking.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEADER: usize = 17;
/// Most payload in one frame; longer ones are damage.
pub(crate) const MAX_PAYLOAD: usize = 16 << 20;
/// Most output in one frame: what a reader holds of it is a bounded number of them.
const MAX_OUTPUT: usize = 64 * 1024;

/// What a frame tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Stdout = 0,
    Stderr = 1,
    /// The payload is the event's JSON.
    State = 2,
    /// The task is over; the payload is the event's JSON.
    End = 3,
    /// Output is missing here; the payload is the event's JSON.
    Gap = 4,
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

/// Appends to a task's events. The file is open only while something is written, so that
/// any number of tasks may wait. Frames that must not be lost are gathered until a
/// [`Log::flush`] succeeds.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    pending: Vec<u8>,
    written: u64,
    /// How much of each stream is written.
    streams: HashMap<(u32, u8), u64>,
}

impl Log {
    /// A log for a new task.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, pending: Vec::new(), written: 0, streams: HashMap::new() }
    }

    /// A log that goes on; what a crash left of a last frame is cut off. `each` sees
    /// every frame, those of output without their bytes.
    pub(crate) fn reopen(path: PathBuf, mut each: impl FnMut(&Frame)) -> io::Result<Self> {
        let mut log = Self::new(path);
        match File::open(&log.path) {
            Ok(file) => {
                while let Some((frame, len)) = scan(&file, log.written)? {
                    log.written = frame.end;
                    if matches!(frame.kind, Kind::Stdout | Kind::Stderr) {
                        log.streams.insert((frame.run, frame.kind as u8), frame.offset + len);
                    }
                    each(&frame);
                }
                if file.metadata()?.len() != log.written {
                    OpenOptions::new().write(true).open(&log.path)?.set_len(log.written)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(log)
    }

    /// Takes a last frame back that says that the task is over.
    pub(crate) fn take_end_back(&mut self, end: &[u8]) -> io::Result<()> {
        if !is_ended(&self.path, end)? {
            return Ok(());
        }
        self.written -= (HEADER + end.len()) as u64;
        OpenOptions::new().write(true).open(&self.path)?.set_len(self.written)
    }

    /// How much of a stream is written: the offset that comes next.
    pub(crate) fn stored(&self, run: u32, kind: Kind) -> u64 {
        self.streams.get(&(run, kind as u8)).copied().unwrap_or(0)
    }

    /// The length of what is written.
    pub(crate) fn len(&self) -> u64 {
        self.written
    }

    /// Adds a frame that is kept until it is written.
    pub(crate) fn add(&mut self, kind: Kind, run: u32, offset: u64, payload: &[u8]) {
        frame(&mut self.pending, kind, run, offset, payload);
    }

    /// Writes output, and what was added before; returns the length of the log. What can't be
    /// written is not kept: there is no end to it.
    pub(crate) fn output(&mut self, run: u32, kind: Kind, offset: u64, data: &[u8]) -> io::Result<u64> {
        let mut buffer = std::mem::take(&mut self.pending);
        let kept = buffer.len();
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(piece(rest));
            frame(&mut buffer, kind, run, at, piece);
            at += piece.len() as u64;
            rest = more;
        }
        let written = self.write(&buffer);
        match written {
            Ok(()) => {
                self.streams.insert((run, kind as u8), at);
                Ok(self.written)
            }
            Err(error) => {
                buffer.truncate(kept);
                self.pending = buffer;
                Err(error)
            }
        }
    }

    /// Makes the added frames readable; returns the length of the log. What could not be
    /// written is tried again the next time.
    pub(crate) fn flush(&mut self) -> io::Result<u64> {
        let buffer = std::mem::take(&mut self.pending);
        if let Err(error) = self.write(&buffer) {
            self.pending = buffer;
            return Err(error);
        }
        Ok(self.written)
    }

    fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let open = || OpenOptions::new().append(true).create(true).open(&self.path);
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = self.path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                open()?
            }
            opened => opened?,
        };
        if let Err(error) = file.write_all(buffer) {
            file.set_len(self.written)?;
            return Err(error);
        }
        self.written += buffer.len() as u64;
        Ok(())
    }
}

fn frame(buffer: &mut Vec<u8>, kind: Kind, run: u32, offset: u64, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&len.to_le_bytes());
    buffer.push(kind as u8);
    buffer.extend_from_slice(&run.to_le_bytes());
    buffer.extend_from_slice(&offset.to_le_bytes());
    buffer.extend_from_slice(payload);
}

/// How much of some output goes into one frame: whole characters, where it is text.
fn piece(data: &[u8]) -> usize {
    if data.len() <= MAX_OUTPUT {
        return data.len();
    }
    let is_inside = |at: &usize| data[*at] & 0b1100_0000 == 0b1000_0000;
    (MAX_OUTPUT - 3..=MAX_OUTPUT).rev().find(|at| !is_inside(at)).unwrap_or(MAX_OUTPUT)
}

/// Whether a log ends with the word that its task is over. Looks at its last bytes only.
pub(crate) fn is_ended(path: &Path, end: &[u8]) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let len = file.metadata()?.len();
    let Some(at) = len.checked_sub((HEADER + end.len()) as u64) else { return Ok(false) };
    let last = read(&file, at)?;
    Ok(last.is_some_and(|last| last.kind == Kind::End && last.payload == end && last.end == len))
}

/// A frame without its output, and how long its payload is.
fn scan(file: &File, at: u64) -> io::Result<Option<(Frame, u64)>> {
    let Some((mut found, len)) = header(file, at)? else { return Ok(None) };
    if matches!(found.kind, Kind::Stdout | Kind::Stderr) {
        if file.metadata()?.len() < found.end {
            return Ok(None);
        }
        return Ok(Some((found, len as u64)));
    }
    found.payload = vec![0u8; len];
    if !read_whole(file, &mut found.payload, at + HEADER as u64)? {
        return Ok(None);
    }
    Ok(Some((found, len as u64)))
}

fn header(file: &File, at: u64) -> io::Result<Option<(Frame, usize)>> {
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
        4 => Kind::Gap,
        _ => return Ok(None),
    };
    if len > MAX_PAYLOAD {
        return Ok(None);
    }
    let run = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
    let offset = u64::from_le_bytes(header[9..17].try_into().map_err(io::Error::other)?);
    let end = at + (HEADER + len) as u64;
    Ok(Some((Frame { kind, run, offset, payload: Vec::new(), end }, len)))
}

/// Reads the frame at a position; `None` if there is no whole one.
pub(crate) fn read(file: &File, at: u64) -> io::Result<Option<Frame>> {
    let Some((mut found, len)) = header(file, at)? else { return Ok(None) };
    found.payload = vec![0u8; len];
    if !read_whole(file, &mut found.payload, at + HEADER as u64)? {
        return Ok(None);
    }
    Ok(Some(found))
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

    #[test]
    fn an_end_is_known_by_the_last_bytes_and_can_be_taken_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = path(dir.path(), "tsk_abc");
        assert!(!is_ended(&path, b"over").expect("absent"));
        let mut log = Log::new(path.clone());
        log.add(Kind::State, 0, 0, b"{}");
        let before = log.flush().expect("flush");
        assert!(!is_ended(&path, b"over").expect("not yet"));
        log.add(Kind::End, 0, 0, b"over");
        log.flush().expect("flush");
        assert!(is_ended(&path, b"over").expect("ended"));
        let mut log = Log::reopen(path.clone(), |_| {}).expect("reopen");
        log.take_end_back(b"over").expect("take back");
        assert_eq!(log.len(), before);
        assert!(!is_ended(&path, b"over").expect("goes on"));
    }

    #[test]
    fn output_that_can_not_be_written_leaves_no_hole_and_states_are_kept() {
        let dir = tempfile::tempdir().expect("tempdir");
        // A file where the folder should be: nothing can be written.
        let blocked = dir.path().join("events");
        std::fs::write(&blocked, "").expect("write");
        let mut log = Log::new(blocked.join("t"));
        log.add(Kind::State, 0, 0, b"{}");
        assert!(log.flush().is_err());
        assert!(log.output(0, Kind::Stdout, 0, b"lost").is_err());
        assert_eq!(log.stored(0, Kind::Stdout), 0);
        std::fs::remove_file(&blocked).expect("remove");
        let text = "é".repeat(MAX_OUTPUT);
        log.output(0, Kind::Stdout, 0, text.as_bytes()).expect("written");
        assert_eq!(log.stored(0, Kind::Stdout), text.len() as u64);
        let file = File::open(blocked.join("t")).expect("open");
        let (mut at, mut kinds, mut back) = (0, Vec::new(), String::new());
        while let Some(frame) = read(&file, at).expect("read") {
            at = frame.end;
            kinds.push(frame.kind);
            if frame.kind == Kind::Stdout {
                back.push_str(std::str::from_utf8(&frame.payload).expect("whole characters"));
            }
        }
        assert_eq!(kinds[..2], [Kind::State, Kind::Stdout]);
        assert_eq!(back, text);
    }
}
