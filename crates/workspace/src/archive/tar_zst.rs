//! `.tar.zst`

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{ArchiveError, Budget, Item, Packed, place};
use crate::{Meta, Root};

/// Fast, and small enough.
const LEVEL: i32 = 3;
/// Most memory that a stranger's archive may ask for: 2 to this power.
const MAX_WINDOW: u32 = 27;

pub(super) fn pack(
    root: &Root,
    base: &Path,
    exclude: &[String],
    to: impl Write,
) -> Result<Packed, ArchiveError> {
    pack_each(to, &mut |_, _| {}, |each| root.walk(base, exclude, each))
}

/// Takes in one thing that is packed.
type Each<'a> = &'a mut dyn FnMut(&Path, Item) -> Result<(), ArchiveError>;

/// Packs what `walk` gives. `see` is shown the bytes of each file as they are packed, and where a link
/// leads.
pub(super) fn pack_each(
    to: impl Write,
    see: &mut dyn FnMut(&Path, &[u8]),
    walk: impl FnOnce(Each<'_>) -> Result<(), ArchiveError>,
) -> Result<Packed, ArchiveError> {
    let mut encoder = zstd::Encoder::new(to, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut builder = tar::Builder::new(encoder);
    builder.mode(tar::HeaderMode::Deterministic);
    let mut packed = Packed::default();
    walk(&mut |path, item| {
        packed.entries += 1;
        let mut header = tar::Header::new_gnu();
        see(path, b"");
        match item {
            Item::Folder(meta) => {
                fill(&mut header, tar::EntryType::Directory, 0, &meta);
                builder.append_data(&mut header, path, std::io::empty())?;
            }
            Item::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_mode(0o777);
                see(path, target.as_bytes());
                builder.append_link(&mut header, path, target)?;
            }
            Item::File(file, meta) => {
                fill(&mut header, tar::EntryType::Regular, meta.size, &meta);
                packed.bytes += meta.size;
                // Exactly as much as the header says, even of a file that is being written.
                let exactly = file.take(meta.size).chain(std::io::repeat(0)).take(meta.size);
                let seen = Seen { from: exactly, path, see: &mut *see };
                builder.append_data(&mut header, path, seen)?;
            }
        }
        Ok(())
    })?;
    builder.into_inner()?.finish()?.flush()?;
    Ok(packed)
}

/// What somebody looks at while it is read.
struct Seen<'a, R> {
    from: R,
    path: &'a Path,
    see: &'a mut dyn FnMut(&Path, &[u8]),
}

impl<R: Read> Read for Seen<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(to)?;
        (self.see)(self.path, &to[..count]);
        Ok(count)
    }
}

fn fill(header: &mut tar::Header, kind: tar::EntryType, size: u64, meta: &Meta) {
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(meta.mode & 0o777);
    header.set_mtime(meta.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
}

pub(super) fn unpack(
    root: &Root,
    base: &Path,
    from: impl Read,
    budget: &mut Budget,
) -> Result<(), ArchiveError> {
    let mut decoder = zstd::Decoder::new(from)?;
    decoder.window_log_max(MAX_WINDOW)?;
    let mut archive = tar::Archive::new(decoder);
    // What hard links may name: nothing that is not of this archive.
    let mut files = HashSet::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        budget.add_entry()?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if matches!(kind, tar::EntryType::XGlobalHeader) {
            continue;
        }
        let Some(path) = place(base, &name)? else { continue };
        // No set-user-id, whatever the archive says.
        let mode = entry.header().mode().ok().map(|mode| mode & 0o777);
        match kind {
            tar::EntryType::Directory => {
                root.make_dirs(&name, &path)?;
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                root.take_file(&path, mode, &mut entry, budget)?;
                files.insert(path);
            }
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let from = place(base, &target)?.filter(|from| files.contains(from));
                let Some(from) = from else {
                    return Err(ArchiveError::Io(std::io::Error::other(format!(
                        "{name}: a hard link to '{target}', which is no file before it in the archive"
                    ))));
                };
                root.take_hard_link(&path, &from, budget)?;
                files.insert(path);
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                root.take_link(base, &path, &target)?;
            }
            // Devices could reach the machine.
            other => {
                return Err(ArchiveError::Io(std::io::Error::other(format!(
                    "{name}: entries of type {other:?} are not unpacked"
                ))));
            }
        }
    }
    Ok(())
}
