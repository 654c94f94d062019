//! A journal: events of many tasks in the order in which they come, in one file. What a crash
//! leaves of a last record is cut off.
//!
//! A record is: length of what follows the checksum (u32), checksum of that (u32), length of the
//! task's id (u8), the id, the place in the task's log (u64), the bytes; little-endian.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HEADER: usize = 8;
/// In the place of a place: the log is not here any more.
const GONE: u64 = u64::MAX;

/// Some bytes of a task's log in a journal.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    file: Arc<File>,
    /// The place in the file.
    at: u64,
    pub(super) len: usize,
}

impl Piece {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, self.at)?;
        Ok(bytes)
    }
}

/// What journals have of a task's log: all of it, from its beginning.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pieces: Vec<Piece>,
    pub(super) len: u64,
    /// The task is over.
    pub(super) over: bool,
}

impl Entry {
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len).unwrap_or(0));
        for piece in &self.pieces {
            bytes.extend(piece.read()?);
        }
        Ok(bytes)
    }

    /// Adds what follows; what does not is no part of it.
    fn add(&mut self, at: u64, piece: Piece) -> bool {
        if at == 0 {
            // A task's log begins anew, as all of it was moved here.
            *self = Self::default();
        }
        let follows = at == self.len;
        if follows {
            self.len += piece.len as u64;
            self.pieces.push(piece);
        }
        follows
    }
}

/// The tasks that journals have.
pub(super) type Entries = HashMap<String, Entry>;

#[derive(Debug)]
pub(super) struct Journal {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    file: Arc<File>,
    pub(super) len: u64,
    /// Tasks of which it has something.
    pub(super) tasks: Vec<String>,
}

impl Journal {
    /// Opens or creates a journal; adds what it has to the entries.
    pub(super) fn open(
        path: &Path,
        number: u64,
        entries: &mut Entries,
        is_end: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let bytes = std::fs::read(path)?;
        let mut journal =
            Self { number, path: path.to_owned(), file: Arc::new(file), len: 0, tasks: Vec::new() };
        let mut at = 0;
        while let Some((id, place, data)) = record(&bytes, at) {
            let start = data.start;
            at = data.end;
            journal.note(entries, &id, place, start, &bytes[data.clone()], is_end(&bytes[data]));
        }
        if at < bytes.len() {
            tracing::warn!(
                "{}: cut off {} bytes of a record that is not whole",
                path.display(),
                bytes.len() - at
            );
            journal.file.set_len(at as u64)?;
        }
        journal.len = at as u64;
        Ok(journal)
    }

    /// Adds to a task's log. What could not be written whole is overwritten by the next.
    pub(super) fn append(
        &mut self,
        entries: &mut Entries,
        id: &str,
        place: u64,
        data: &[u8],
        over: bool,
    ) -> io::Result<()> {
        let mut record = Vec::with_capacity(HEADER + 9 + id.len() + data.len());
        record.extend_from_slice(&[0; HEADER]);
        record.push(u8::try_from(id.len()).map_err(io::Error::other)?);
        record.extend_from_slice(id.as_bytes());
        record.extend_from_slice(&place.to_le_bytes());
        record.extend_from_slice(data);
        let len = u32::try_from(record.len() - HEADER).map_err(io::Error::other)?;
        let sum = checksum(&record[HEADER..]);
        record[..4].copy_from_slice(&len.to_le_bytes());
        record[4..8].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&record, self.len)?;
        let start = usize::try_from(self.len).map_err(io::Error::other)? + record.len() - data.len();
        self.len += record.len() as u64;
        self.note(entries, id, place, start, data, over);
        Ok(())
    }

    /// A log is not here any more.
    pub(super) fn take_away(&mut self, entries: &mut Entries, id: &str) -> io::Result<()> {
        self.append(entries, id, GONE, &[], false)
    }

    fn note(&mut self, entries: &mut Entries, id: &str, place: u64, at: usize, data: &[u8], over: bool) {
        if place == GONE {
            entries.remove(id);
            return;
        }
        let piece = Piece { file: self.file.clone(), at: at as u64, len: data.len() };
        let entry = match entries.get_mut(id) {
            Some(entry) => entry,
            // What comes before it is elsewhere by now, and this with it.
            None if place > 0 => return,
            None => entries.entry(id.to_owned()).or_default(),
        };
        if entry.add(place, piece) {
            entry.over = over;
        }
        if self.tasks.last().is_none_or(|last| last != id) {
            self.tasks.push(id.to_owned());
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

/// A whole record: the task's id, the place in its log, and where the bytes are.
fn record(bytes: &[u8], at: usize) -> Option<(String, u64, std::ops::Range<usize>)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let len = usize::try_from(number(at)?).ok()?;
    let body = bytes.get(at + HEADER..(at + HEADER).checked_add(len)?)?;
    if checksum(body) != number(at + 4)? {
        return None;
    }
    let id_len = usize::from(*body.first()?);
    let id = std::str::from_utf8(body.get(1..1 + id_len)?).ok()?.to_owned();
    let place = u64::from_le_bytes(body.get(1 + id_len..9 + id_len)?.try_into().ok()?);
    Some((id, place, at + HEADER + 9 + id_len..at + HEADER + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_is_cut_off_wherever_it_was_torn() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("journal");
        let mut entries = Entries::new();
        let mut journal = Journal::open(&path, 1, &mut entries, |_| false).expect("open");
        journal.append(&mut entries, "tsk_1", 0, b"hello ", false).expect("append");
        journal.append(&mut entries, "tsk_2", 0, b"other", false).expect("append");
        let whole = journal.len;
        journal.append(&mut entries, "tsk_1", 6, b"world", true).expect("append");
        assert_eq!(entries["tsk_1"].read().expect("read"), b"hello world");
        let bytes = std::fs::read(&path).expect("read");
        for cut in whole..journal.len {
            std::fs::write(&path, &bytes[..usize::try_from(cut).expect("len")]).expect("write");
            let mut entries = Entries::new();
            let mut journal = Journal::open(&path, 1, &mut entries, |_| false).expect("open");
            assert_eq!(journal.len, whole);
            assert_eq!(entries["tsk_1"].read().expect("read"), b"hello ");
            journal.append(&mut entries, "tsk_1", 6, b"again", false).expect("append");
            assert_eq!(entries["tsk_1"].read().expect("read"), b"hello again");
        }
        // Damage in the middle ends it there; what does not follow is no part of a log.
        let mut damaged = bytes;
        damaged[20] ^= 1;
        std::fs::write(&path, &damaged).expect("write");
        let mut entries = Entries::new();
        assert_eq!(Journal::open(&path, 1, &mut entries, |_| false).expect("open").len, 0);
        assert!(entries.is_empty());
    }
}
