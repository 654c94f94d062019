//! `.zip`

use std::io::{self, Read, Seek, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::{ArchiveError, Budget, Item, Packed, place};
use crate::Root;

const LINK: u32 = 0o120_000;
const KIND: u32 = 0o170_000;

fn of(error: zip::result::ZipError) -> ArchiveError {
    ArchiveError::Io(match error {
        zip::result::ZipError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    })
}

pub(super) fn pack(
    root: &Root,
    base: &Path,
    exclude: &[String],
    to: impl Write,
) -> Result<Packed, ArchiveError> {
    let mut writer = ZipWriter::new_stream(to);
    let mut packed = Packed::default();
    root.walk(base, exclude, &mut |path, item| {
        packed.entries += 1;
        let name = path.to_string_lossy();
        let options = SimpleFileOptions::default();
        match item {
            Item::Folder(meta) => {
                writer.add_directory(name, options.unix_permissions(meta.mode & 0o777)).map_err(of)?;
            }
            Item::Link(target) => writer.add_symlink(name, target, options).map_err(of)?,
            Item::File(file, meta) => {
                let options = options.unix_permissions(meta.mode & 0o777).large_file(meta.size >= 1 << 31);
                writer.start_file(name, options).map_err(of)?;
                packed.bytes += io::copy(&mut file.take(meta.size), &mut writer)?;
            }
        }
        Ok(())
    })?;
    writer.finish().map_err(of)?.flush()?;
    Ok(packed)
}

pub(super) fn unpack(
    root: &Root,
    base: &Path,
    from: impl Read + Seek,
    budget: &mut Budget,
) -> Result<(), ArchiveError> {
    let mut archive = ZipArchive::new(from).map_err(of)?;
    for index in 0..archive.len() {
        budget.add_entry()?;
        let mut entry = archive.by_index(index).map_err(of)?;
        let name = entry.name().map_err(of)?.into_owned();
        let Some(path) = place(base, name.trim_end_matches('/'))? else { continue };
        let mode = entry.unix_mode();
        if entry.is_dir() {
            root.make_dirs(&name, &path)?;
        } else if mode.is_some_and(|mode| mode & KIND == LINK) {
            let mut target = String::new();
            (&mut entry).take(4096).read_to_string(&mut target)?;
            root.take_link(base, &path, &target)?;
        } else {
            let mode = mode.map(|mode| mode & 0o777).filter(|mode| *mode != 0);
            root.take_file(&path, mode, &mut entry, budget)?;
        }
    }
    Ok(())
}
