//! A task's events: output and states of all its runs, in one log that only grows.
//!
//! A frame is: payload length (u32), kind (1 byte), run's ordinal (u32), offset in
//! the stream (u64), payload; little-endian. The position after a frame is its
//! event id, so that a reader resumes by seeking.

mod journal;
mod logs;
mod pack;
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub(crate) use logs::Logs;
pub(crate) use writer::Writer;

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

/// Appends to a task's events. Nothing is open while nothing is written, so that any number of
/// tasks may wait. Frames that must not be lost are gathered until a [`Log::flush`] succeeds.
#[derive(Debug)]
pub(crate) struct Log {
    logs: Arc<Logs>,
    id: String,
    pending: Vec<u8>,
    written: u64,
    /// How much of each stream is written.
    streams: HashMap<(u32, u8), u64>,
}

impl Log {
    /// A log for a new task.
    pub(crate) fn new(logs: Arc<Logs>, id: &str) -> Self {
        Self { logs, id: id.to_owned(), pending: Vec::new(), written: 0, streams: HashMap::new() }
    }

    /// A log that goes on; what a crash left of a last frame is cut off. `each` sees
    /// every frame, those of output perhaps without their bytes.
    pub(crate) fn reopen(logs: Arc<Logs>, id: &str, mut each: impl FnMut(&Frame)) -> io::Result<Self> {
        let mut log = Self::new(logs.clone(), id);
        log.written = logs.scan(id, |frame, len| {
            if matches!(frame.kind, Kind::Stdout | Kind::Stderr) {
                log.streams.insert((frame.run, frame.kind as u8), frame.offset + len);
            }
            each(frame);
        })?;
        Ok(log)
    }

    /// Takes a last frame back that says that the task is over: it goes on.
    pub(crate) fn take_end_back(&mut self) -> io::Result<()> {
        let mut len = 0;
        let mut last = Kind::State;
        let end = self.logs.scan(&self.id, |frame, _| {
            if frame.kind != Kind::End {
                len = frame.end;
            }
            last = frame.kind;
        })?;
        self.written = if last == Kind::End { len } else { end };
        self.logs.reopen(&self.id, self.written)
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
        match self.write(&buffer) {
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
        self.logs.append(&self.id, self.written, buffer, ends(buffer))?;
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

/// Whether bytes of a log end with the word that its task is over.
fn ends(bytes: &[u8]) -> bool {
    let (mut at, mut last) = (0, None);
    while let Some((frame, len)) = usize::try_from(at).ok().and_then(|i| parse(bytes.get(i..)?, at)) {
        at = frame.end;
        last = (at <= bytes.len() as u64 && len <= MAX_PAYLOAD).then_some(frame.kind);
    }
    last == Some(Kind::End)
}

/// Whether a file ends with the word that its task is over, which is known. Looks at its last
/// bytes only.
fn is_ended(file: &File, end: &[u8]) -> io::Result<bool> {
    let len = file.metadata()?.len();
    let Some(at) = len.checked_sub((HEADER + end.len()) as u64) else { return Ok(false) };
    let last = read(file, at)?;
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
    Ok(parse(&header, at))
}

/// A frame's header, and how long its payload is.
fn parse(bytes: &[u8], at: u64) -> Option<(Frame, usize)> {
    let header: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = match header[4] {
        0 => Kind::Stdout,
        1 => Kind::Stderr,
        2 => Kind::State,
        3 => Kind::End,
        4 => Kind::Gap,
        _ => return None,
    };
    if len > MAX_PAYLOAD {
        return None;
    }
    let run = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
    let offset = u64::from_le_bytes(header[9..17].try_into().ok()?);
    let end = at + (HEADER + len) as u64;
    Some((Frame { kind, run, offset, payload: Vec::new(), end }, len))
}

/// The frame at a position of a log; `None` if there is no whole one.
fn read_in(log: &[u8], at: u64) -> Option<Frame> {
    let rest = log.get(usize::try_from(at).ok()?..)?;
    let (mut found, len) = parse(rest, at)?;
    found.payload = rest.get(HEADER..HEADER + len)?.to_vec();
    Some(found)
}

/// Reads the frame at a position; `None` if there is no whole one.
fn read(file: &File, at: u64) -> io::Result<Option<Frame>> {
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
    use legwork_store::Lane;

    use super::*;

    #[test]
    fn output_that_can_not_be_written_leaves_no_hole_and_states_are_kept() {
        let dir = tempfile::tempdir().expect("tempdir");
        let logs = Logs::open(dir.path(), Lane::Caller).expect("open");
        let mut log = Log::new(logs.clone(), "tsk_ab");
        log.add(Kind::State, 0, 0, b"{}");
        // A file where its folder should be: what is large can't be written.
        let blocked = dir.path().join("events/ab");
        std::fs::write(&blocked, "").expect("write");
        let text = "é".repeat(MAX_OUTPUT);
        assert!(log.output(0, Kind::Stdout, 0, text.as_bytes()).is_err());
        assert_eq!(log.stored(0, Kind::Stdout), 0);
        std::fs::remove_file(&blocked).expect("remove");
        log.output(0, Kind::Stdout, 0, text.as_bytes()).expect("written");
        assert_eq!(log.stored(0, Kind::Stdout), text.len() as u64);
        let frames = logs.read("tsk_ab", 0, usize::MAX).expect("read");
        assert_eq!((frames[0].kind, frames[1].kind), (Kind::State, Kind::Stdout));
        let back: Vec<&str> =
            frames[1..].iter().map(|f| std::str::from_utf8(&f.payload).expect("whole characters")).collect();
        assert_eq!(back.concat(), text);
    }

    #[test]
    fn a_torn_frame_of_a_large_log_is_cut_off_and_an_end_is_found() {
        let dir = tempfile::tempdir().expect("tempdir");
        let logs = Logs::open(dir.path(), Lane::Caller).expect("open");
        let mut log = Log::new(logs.clone(), "tsk_ab");
        log.output(0, Kind::Stdout, 0, &[b'x'; 40_000]).expect("output");
        let len = log.len();
        let path = dir.path().join("events/ab/tsk_ab");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("open");
        std::io::Write::write_all(&mut file, &[9, 0, 0, 0, 0, 1]).expect("write");
        let mut log = Log::reopen(logs.clone(), "tsk_ab", |_| {}).expect("reopen");
        assert_eq!(log.len(), len);
        assert!(!logs.is_ended("tsk_ab", Some(b"over")).expect("not yet"));
        log.add(Kind::End, 0, 0, b"over");
        log.flush().expect("flush");
        assert!(logs.is_ended("tsk_ab", Some(b"over")).expect("ended"));
        log.take_end_back().expect("take back");
        assert!(!logs.is_ended("tsk_ab", Some(b"over")).expect("goes on") && log.len() == len);
    }
}
