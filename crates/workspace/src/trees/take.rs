//! Taking a tree: which files there are, and what their pieces are.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use rustix::fs::{FileType, Mode, OFlags};

use super::cache::{Print, StatCache};
use super::manifest::{Entry, Manifest, What};
use super::{Digest, MAX_ENTRIES, PIECE};
use crate::archive::stays_within;
use crate::{ArchiveError, Root};

/// Threads that read.
const MOST_READERS: usize = 8;

/// A tree as it was found.
#[derive(Debug)]
pub struct Taken {
    /// Names the tree: the digest of its packed manifest.
    pub digest: Digest,
    /// The packed manifest.
    pub packed: Vec<u8>,
    /// How many regular files the tree has.
    pub files: usize,
    /// How many links the tree has.
    pub links: usize,
    /// Links that lead out of the tree, which are in no tree.
    pub left_out: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that had to be read to know what they are.
    pub hashed: u64,
    /// Where each piece is found.
    places: HashMap<Digest, (String, u64)>,
}

/// A file that is to be read.
struct ToRead {
    at: usize,
    path: String,
    file: File,
}

impl Root {
    /// Takes a tree of these files and links. What is not there, or is neither, is left out. What
    /// the cache knows is not read, and the cache then knows this tree.
    pub fn take_tree(&self, paths: &[PathBuf], cache: &mut StatCache) -> Result<Taken, ArchiveError> {
        let begun = SystemTime::now();
        let mut sorted: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() > MAX_ENTRIES {
            return Err(ArchiveError::TooMuch(format!("more than {MAX_ENTRIES} files")));
        }
        let (mut entries, mut prints, mut to_read) = (Vec::new(), Vec::new(), Vec::new());
        let mut left_out = 0;
        for given in sorted {
            let path = self.relative(&given)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let Ok(found) = self.open_at(&path, flags, Mode::empty()) else { continue };
            let stat = rustix::fs::fstat(&found).map_err(io::Error::from)?;
            let name = path.to_string_lossy().into_owned();
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => match link(&found, &path) {
                    Some(target) => {
                        entries.push(Entry { path: name, what: What::Link(target) });
                        prints.push(None);
                    }
                    None => left_out += 1,
                },
                FileType::RegularFile => {
                    let print = Print::of(&stat);
                    let known = cache.get(&name, &print).map(<[Digest]>::to_vec);
                    if known.is_none() {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                        let Ok(file) = self.open_at(&path, flags, Mode::empty()) else { continue };
                        to_read.push(ToRead { at: entries.len(), path: name.clone(), file: file.into() });
                    }
                    let what = What::File {
                        mode: if stat.st_mode & 0o100 == 0 { 0o644 } else { 0o755 },
                        size: print.size,
                        pieces: known.unwrap_or_default(),
                    };
                    entries.push(Entry { path: name, what });
                    prints.push(Some(print));
                }
                _ => {}
            }
        }
        let hashed = read_all(to_read, &mut entries, &mut prints)?;
        finish(entries, prints, cache, begun, Counted { left_out, hashed })
    }
}

struct Counted {
    left_out: usize,
    hashed: u64,
}

fn finish(
    entries: Vec<Entry>,
    prints: Vec<Option<Print>>,
    cache: &mut StatCache,
    begun: SystemTime,
    counted: Counted,
) -> Result<Taken, ArchiveError> {
    let mut places = HashMap::new();
    let (mut bytes, mut files) = (0, 0);
    let mut known = Vec::new();
    for (entry, print) in entries.iter().zip(prints) {
        let What::File { size, pieces, .. } = &entry.what else { continue };
        (bytes, files) = (bytes + size, files + 1);
        for (index, piece) in pieces.iter().enumerate() {
            places.entry(*piece).or_insert_with(|| (entry.path.clone(), (index * PIECE) as u64));
        }
        known.extend(print.map(|print| (entry.path.clone(), print, pieces.clone())));
    }
    cache.replace(known, begun);
    let links = entries.len() - files;
    let packed = Manifest { entries }.pack().map_err(|e| ArchiveError::TooMuch(e.to_string()))?;
    let Counted { left_out, hashed } = counted;
    Ok(Taken { digest: Digest::of(&packed), packed, files, links, left_out, bytes, hashed, places })
}

/// Reads files, several at a time; how many bytes those were.
fn read_all(
    files: Vec<ToRead>,
    entries: &mut [Entry],
    prints: &mut [Option<Print>],
) -> Result<u64, ArchiveError> {
    let readers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_READERS);
    let next = AtomicUsize::new(0);
    let read = |_| {
        let mut done = Vec::new();
        let mut buffer = vec![0; PIECE];
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((file.at, pieces_of(&file.file, &mut buffer).map_err(|e| told(&file.path, &e))));
        }
        done
    };
    let done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..readers.min(files.len())).map(|n| scope.spawn(move || read(n))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    if done.len() != files.len() {
        return Err(io::Error::other("a file could not be read").into());
    }
    let mut hashed = 0;
    for (at, read) in done {
        let (print, found) = read?;
        hashed += print.size;
        if let What::File { size, pieces, .. } = &mut entries[at].what {
            (*size, *pieces) = (print.size, found);
        }
        prints[at] = Some(print);
    }
    Ok(hashed)
}

fn told(path: &str, error: &io::Error) -> ArchiveError {
    io::Error::new(error.kind(), format!("{path}: {error}")).into()
}

/// The pieces of a file as they are now. One that is written to meanwhile is what was read of it.
fn pieces_of(mut file: &File, buffer: &mut [u8]) -> io::Result<(Print, Vec<Digest>)> {
    let before = Print::of(&rustix::fs::fstat(file)?);
    let (mut pieces, mut size) = (Vec::new(), 0u64);
    loop {
        let mut len = 0;
        while len < buffer.len() {
            match file.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if len == 0 {
            break;
        }
        size += len as u64;
        pieces.push(Digest::of(&buffer[..len]));
        if len < buffer.len() {
            break;
        }
    }
    // With another size it is known again as nobody.
    Ok((Print { size, ..before }, pieces))
}

fn link(found: &impl std::os::fd::AsFd, path: &Path) -> Option<String> {
    let target = rustix::fs::readlinkat(found, "", Vec::new()).ok()?.into_string().ok()?;
    stays_within(path, &target).then_some(target)
}

impl Taken {
    /// All pieces of its files, each once; the manifest is not among them.
    pub fn pieces(&self) -> impl Iterator<Item = Digest> + '_ {
        self.places.keys().copied()
    }

    /// Reads a piece again; `None` if its file has changed since.
    pub fn read(&self, root: &Root, piece: Digest) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some((name, offset)) = self.places.get(&piece) else { return Ok(None) };
        let path = self.relative_of(root, name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(file) = root.open_at(&path, flags, Mode::empty()) else { return Ok(None) };
        let (file, mut bytes, mut len) = (File::from(file), vec![0; PIECE], 0);
        while len < PIECE {
            match file.read_at(&mut bytes[len..], offset + len as u64) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(told(name, &e)),
            }
        }
        bytes.truncate(len);
        Ok((Digest::of(&bytes) == piece).then_some(bytes))
    }

    fn relative_of(&self, root: &Root, name: &str) -> Result<PathBuf, ArchiveError> {
        Ok(root.relative(name)?)
    }
}
