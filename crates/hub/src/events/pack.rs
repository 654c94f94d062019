//! A pack: the logs of many small tasks that are over, compressed, in one file that never
//! changes. Found by id: by the pack's range, then by its index.
//!
//! The file is: blocks, each deflated, of whole logs side by side; the index, deflated: per task
//! its id's length (u8), the id, block (u32), place in the block (u32) and length (u32), by ids; a
//! table of blocks: place (u64) and length (u32) in the file; the first and the last id, each
//! with its length (u8); then [`Foot`]. Little-endian.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Bytes of logs in one block: so many are read for one of them.
const BLOCK: usize = 64 * 1024;
const MAGIC: &[u8; 8] = b"lwpack1\n";
const FOOT: usize = 40;

/// The end of the file.
#[derive(Debug, Clone, Copy)]
struct Foot {
    /// Where the index begins.
    index: u64,
    /// How long it is, deflated.
    index_len: u32,
    blocks: u32,
    /// Bytes of all logs.
    raw: u64,
    tasks: u32,
    /// How long the two ids are, with their lengths.
    range_len: u32,
}

impl Foot {
    fn bytes(self) -> [u8; FOOT] {
        let mut bytes = [0; FOOT];
        bytes[..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.index_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.raw.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.tasks.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.range_len.to_le_bytes());
        bytes[32..].copy_from_slice(MAGIC);
        bytes
    }

    fn read(bytes: &[u8; FOOT]) -> io::Result<Self> {
        if bytes[32..] != *MAGIC {
            return Err(damaged());
        }
        let long = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).map_err(io::Error::other);
        let short =
            |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).map_err(io::Error::other);
        Ok(Self {
            index: long(0)?,
            index_len: short(8)?,
            blocks: short(12)?,
            raw: long(16)?,
            tasks: short(24)?,
            range_len: short(28)?,
        })
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is damaged")
}

/// Where a task's log is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) id: String,
    block: u32,
    at: u32,
    pub(super) len: u32,
}

#[derive(Debug)]
pub(super) struct Pack {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    file: File,
    foot: Foot,
    first: String,
    last: String,
    pub(super) size: u64,
    /// Bytes of logs of tasks that were forgotten since the start.
    pub(super) dead: AtomicU64,
}

fn deflated(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(6));
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn inflated(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(bytes.len() * 4);
    DeflateDecoder::new(bytes).read_to_end(&mut raw)?;
    Ok(raw)
}

fn add_id(bytes: &mut Vec<u8>, id: &str) -> io::Result<()> {
    bytes.push(u8::try_from(id.len()).map_err(io::Error::other)?);
    bytes.extend_from_slice(id.as_bytes());
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> io::Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or_else(damaged)?;
    *bytes = rest;
    Ok(taken)
}

fn take_id(bytes: &mut &[u8]) -> io::Result<String> {
    let len = usize::from(take(bytes, 1)?[0]);
    String::from_utf8(take(bytes, len)?.to_vec()).map_err(|_| damaged())
}

fn take_u32(bytes: &mut &[u8]) -> io::Result<u32> {
    take(bytes, 4)?.try_into().map(u32::from_le_bytes).map_err(|_| damaged())
}

impl Pack {
    /// Writes a pack of some logs, by their ids; it is there as a whole, or not at all.
    pub(super) fn write(path: &Path, number: u64, logs: &[(String, Vec<u8>)]) -> io::Result<Self> {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        let (mut index, mut table, mut block) = (Vec::new(), Vec::new(), Vec::new());
        let (mut at, mut blocks, mut raw) = (0u64, 0u32, 0u64);
        let mut close = |block: &mut Vec<u8>, file: &mut File| -> io::Result<()> {
            let bytes = deflated(block)?;
            file.write_all(&bytes)?;
            table.extend_from_slice(&at.to_le_bytes());
            table.extend_from_slice(&u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes());
            at += bytes.len() as u64;
            block.clear();
            Ok(())
        };
        for (id, log) in logs {
            if !block.is_empty() && block.len() + log.len() > BLOCK {
                close(&mut block, &mut file)?;
                blocks += 1;
            }
            add_id(&mut index, id)?;
            for number in [blocks as usize, block.len(), log.len()] {
                index.extend_from_slice(&u32::try_from(number).map_err(io::Error::other)?.to_le_bytes());
            }
            block.extend_from_slice(log);
            raw += log.len() as u64;
        }
        close(&mut block, &mut file)?;
        blocks += 1;
        let index = deflated(&index)?;
        let mut tail = index.clone();
        tail.extend_from_slice(&table);
        let before = tail.len();
        for (id, _) in [logs.first(), logs.last()].into_iter().flatten() {
            add_id(&mut tail, id)?;
        }
        let foot = Foot {
            index: at,
            index_len: u32::try_from(index.len()).map_err(io::Error::other)?,
            blocks,
            raw,
            tasks: u32::try_from(logs.len()).map_err(io::Error::other)?,
            range_len: u32::try_from(tail.len() - before).map_err(io::Error::other)?,
        };
        tail.extend_from_slice(&foot.bytes());
        file.write_all(&tail)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Self::open(path, number)
    }

    pub(super) fn open(path: &Path, number: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut bytes = [0; FOOT];
        let foot_at = size.checked_sub(FOOT as u64).ok_or_else(damaged)?;
        file.read_exact_at(&mut bytes, foot_at)?;
        let foot = Foot::read(&bytes)?;
        let mut range = vec![0; foot.range_len.min(1024) as usize];
        let range_at = foot_at.checked_sub(range.len() as u64).ok_or_else(damaged)?;
        file.read_exact_at(&mut range, range_at)?;
        let mut rest = range.as_slice();
        let (first, last) = (take_id(&mut rest)?, take_id(&mut rest)?);
        Ok(Self { number, path: path.to_owned(), file, foot, first, last, size, dead: AtomicU64::new(0) })
    }

    /// Whether it may have a task.
    pub(super) fn spans(&self, id: &str) -> bool {
        self.first.as_str() <= id && id <= self.last.as_str()
    }

    /// Bytes of all its logs.
    pub(super) fn raw(&self) -> u64 {
        self.foot.raw
    }

    /// All that it has, by ids.
    pub(super) fn places(&self) -> io::Result<Vec<Place>> {
        let mut bytes = vec![0; self.foot.index_len as usize];
        self.file.read_exact_at(&mut bytes, self.foot.index)?;
        let index = inflated(&bytes)?;
        let mut rest = index.as_slice();
        let mut places = Vec::with_capacity(self.foot.tasks as usize);
        while !rest.is_empty() {
            let id = take_id(&mut rest)?;
            let (block, at, len) = (take_u32(&mut rest)?, take_u32(&mut rest)?, take_u32(&mut rest)?);
            places.push(Place { id, block, at, len });
        }
        Ok(places)
    }

    fn block(&self, number: u32) -> io::Result<Vec<u8>> {
        if number >= self.foot.blocks {
            return Err(damaged());
        }
        let mut entry = [0; 12];
        let table = self.foot.index + u64::from(self.foot.index_len);
        self.file.read_exact_at(&mut entry, table + 12 * u64::from(number))?;
        let mut rest = entry.as_slice();
        let at = take(&mut rest, 8)?.try_into().map(u64::from_le_bytes).map_err(|_| damaged())?;
        let mut bytes = vec![0; take_u32(&mut rest)? as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        inflated(&bytes)
    }

    /// A task's log.
    pub(super) fn read(&self, id: &str) -> io::Result<Option<Vec<u8>>> {
        let places = self.places()?;
        let Ok(found) = places.binary_search_by(|place| place.id.as_str().cmp(id)) else { return Ok(None) };
        let place = &places[found];
        let block = self.block(place.block)?;
        let (at, len) = (place.at as usize, place.len as usize);
        Ok(Some(block.get(at..at + len).ok_or_else(damaged)?.to_vec()))
    }

    /// The logs of some of its tasks.
    pub(super) fn logs(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut open: Option<(u32, Vec<u8>)> = None;
        let mut logs = Vec::new();
        for place in self.places()?.into_iter().filter(|place| wanted(&place.id)) {
            if open.as_ref().is_none_or(|(number, _)| *number != place.block) {
                open = Some((place.block, self.block(place.block)?));
            }
            let (at, len) = (place.at as usize, place.len as usize);
            let block = open.as_ref().map(|(_, block)| block.as_slice()).unwrap_or_default();
            logs.push((place.id, block.get(at..at + len).ok_or_else(damaged)?.to_vec()));
        }
        Ok(logs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_found_by_its_id() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("pack-1");
        let log = |i: usize| format!("{{\"state\":\"queued\",\"n\":{i}}}").repeat(i % 40 + 1).into_bytes();
        let logs: Vec<_> = (0..3000).map(|i| (format!("tsk_{i:06}"), log(i))).collect();
        let pack = Pack::write(&path, 1, &logs).expect("write");
        let pack = Pack::open(&pack.path, 1).expect("open");
        for i in [0, 1, 17, 1500, 2999] {
            assert_eq!(pack.read(&format!("tsk_{i:06}")).expect("read"), Some(log(i)));
        }
        assert_eq!(pack.read("tsk_000000x").expect("read"), None);
        assert!(pack.spans("tsk_000100") && !pack.spans("tsk_1") && !pack.spans("pod-1"));
        let some = pack.logs(|id| id.ends_with('7')).expect("logs");
        assert_eq!(some.len(), 300);
        assert_eq!(some[3], ("tsk_000037".to_owned(), log(37)));
        assert!(pack.size < pack.raw() / 4, "{} of {}", pack.size, pack.raw());
        for cut in [0, 1, 39, 100, pack.size - 1] {
            let bytes = std::fs::read(&path).expect("read");
            let short = dir.path().join("short");
            std::fs::write(&short, &bytes[..usize::try_from(cut).expect("len")]).expect("write");
            assert!(Pack::open(&short, 1).is_err());
        }
    }
}
