//! The journal: a command's output as one numbered log of bytes on disk. It is the
//! last part of the command's file (see [`crate::record`]).
//!
//! A journal is a row of frames, each a header of 16 bytes and its data:
//! stream (1 byte: 0 stdout or terminal, 1 stderr), 3 zero bytes, data length
//! (u32), the offset of the data in its stream (u64), both little-endian. Readers
//! find their place by these offsets, so any number of them can start anywhere.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const HEADER: usize = 16;
/// Most data in one frame.
pub(crate) const MAX_FRAME: usize = 64 * 1024;

/// One of the streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// What the command wrote to its standard error.
    Stderr,
}

/// Appends what a command writes, as frames, to its file.
pub(crate) struct Writer {
    file: File,
    /// Where the journal starts in the file.
    base: u64,
    len: u64,
    offsets: [u64; 2],
    /// Header and data of one frame.
    frame: Box<[u8]>,
}

impl Writer {
    pub(crate) fn new(file: File, base: u64) -> Self {
        let frame = vec![0; HEADER + MAX_FRAME].into_boxed_slice();
        Self { file, base, len: 0, offsets: [0; 2], frame }
    }

    /// Where to read the next data to, before [`Writer::commit`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.frame[HEADER..]
    }

    /// Appends the first `len` bytes of the space. On failure the journal ends
    /// with the last whole frame.
    pub(crate) fn commit(&mut self, stream: Stream, len: usize) -> io::Result<()> {
        let index = usize::from(stream == Stream::Stderr);
        self.frame[0] = u8::from(stream == Stream::Stderr);
        self.frame[1..4].fill(0);
        let size = u32::try_from(len).map_err(io::Error::other)?;
        self.frame[4..8].copy_from_slice(&size.to_le_bytes());
        self.frame[8..16].copy_from_slice(&self.offsets[index].to_le_bytes());
        let at = self.base + self.len;
        if let Err(error) = self.file.write_all_at(&self.frame[..HEADER + len], at) {
            self.file.set_len(at)?;
            return Err(error);
        }
        self.len += (HEADER + len) as u64;
        self.offsets[index] += len as u64;
        Ok(())
    }

    /// Bytes of whole frames.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

/// A piece of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which stream.
    pub stream: Stream,
    /// Bytes of the stream before this piece.
    pub offset: u64,
    /// The bytes, never empty.
    pub data: Vec<u8>,
}

/// A reader's place in a journal. Blocking: use it off the async threads.
#[derive(Debug)]
pub struct Cursor {
    file: File,
    /// Start of the current frame.
    position: u64,
    /// Bytes of the current frame already read.
    within: u64,
    /// The next offset wanted of each stream.
    wanted: [u64; 2],
}

impl Cursor {
    /// Opens the journal in a command's file, at the given offsets.
    pub fn open(path: &Path, stdout: u64, stderr: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let position = crate::record::journal_base(&file)?;
        Ok(Self { file, position, within: 0, wanted: [stdout, stderr] })
    }

    /// The next offsets of both streams.
    pub fn offsets(&self) -> (u64, u64) {
        (self.wanted[0], self.wanted[1])
    }

    /// Reads the next piece, of at most `max` bytes; adjacent pieces of one stream
    /// are joined. `None` at the end of what is written so far.
    pub fn next(&mut self, max: usize) -> io::Result<Option<Chunk>> {
        let mut joined: Option<Chunk> = None;
        loop {
            let mut header = [0u8; HEADER];
            if !read_whole(&self.file, &mut header, self.position)? {
                return Ok(joined);
            }
            let stream = if header[0] == 1 { Stream::Stderr } else { Stream::Stdout };
            let index = usize::from(header[0] == 1);
            let len = u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
            let offset = u64::from_le_bytes(header[8..16].try_into().map_err(io::Error::other)?);
            // What the reader already has of this frame.
            let skip = self.wanted[index].saturating_sub(offset).max(self.within);
            if skip >= len {
                self.position += HEADER as u64 + len;
                self.within = 0;
                continue;
            }
            let have = joined.as_ref().map_or(0, |c| c.data.len());
            if joined.as_ref().is_some_and(|c| c.stream != stream) || have >= max {
                return Ok(joined);
            }
            let take = (len - skip).min((max - have) as u64);
            let mut data = vec![0u8; usize::try_from(take).map_err(io::Error::other)?];
            if !read_whole(&self.file, &mut data, self.position + HEADER as u64 + skip)? {
                return Ok(joined);
            }
            self.wanted[index] = offset + skip + take;
            self.within = skip + take;
            if self.within == len {
                self.position += HEADER as u64 + len;
                self.within = 0;
            }
            match &mut joined {
                Some(chunk) => chunk.data.extend_from_slice(&data),
                None => joined = Some(Chunk { stream, offset: offset + skip, data }),
            }
        }
    }
}

/// Reads exactly the buffer, or says that the file ends before.
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
    use proptest::prelude::*;

    fn write(path: &Path, frames: &[(bool, Vec<u8>)]) -> Writer {
        let stored = crate::record::Stored {
            socket: String::new(),
            boot_id: String::new(),
            spec: crate::Spec::default(),
        };
        crate::record::create(path, &stored).expect("create");
        let file = File::options().read(true).write(true).open(path).expect("open");
        let base = crate::record::journal_base(&file).expect("base");
        let mut writer = Writer::new(file, base);
        for (err, data) in frames {
            writer.space()[..data.len()].copy_from_slice(data);
            let stream = if *err { Stream::Stderr } else { Stream::Stdout };
            writer.commit(stream, data.len()).expect("commit");
        }
        writer
    }

    proptest! {
        #[test]
        fn every_reader_gets_every_byte_after_its_offset(
            frames in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..40)), 0..20),
            skip in (0usize..200, 0usize..200),
            max in 1usize..64,
        ) {
            let dir = tempfile::tempdir().expect("tempdir");
            let path = dir.path().join("command");
            write(&path, &frames);
            let whole = |err: bool| -> Vec<u8> {
                frames.iter().filter(|(e, _)| *e == err).flat_map(|(_, d)| d.clone()).collect()
            };
            let (out, err) = (whole(false), whole(true));
            let start = (skip.0.min(out.len()), skip.1.min(err.len()));
            let mut cursor = Cursor::open(&path, start.0 as u64, start.1 as u64).expect("open");
            let mut got = (out[..start.0].to_vec(), err[..start.1].to_vec());
            while let Some(chunk) = cursor.next(max).expect("read") {
                prop_assert!(!chunk.data.is_empty() && chunk.data.len() <= max);
                let into = if chunk.stream == Stream::Stdout { &mut got.0 } else { &mut got.1 };
                prop_assert_eq!(chunk.offset as usize, into.len());
                into.extend(chunk.data);
            }
            prop_assert_eq!(got, (out, err));
        }
    }
}
