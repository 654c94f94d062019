//! Saves: one object that holds all that is new, spread into files afterwards.
//!
//! The object is written whole or not at all; from then on the save has happened, whoever
//! finishes it. It is a `tar.zst` of the new files and, as its last entry, what the
//! workspace consists of then.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::stream::{self, StreamExt};
use legwork_base::digest::hex;
use legwork_workspace::Root;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::manifest::{Diff, MANIFEST, Manifest, PENDING, Stored};
use super::store::{PART, StorageError, Store};

/// Requests under way at a time.
pub(crate) const PARALLEL: usize = 32;
/// The last entry of a save.
const LAST: &str = "manifest.json";
/// Where new files are in a save.
const FILES: &str = "files/";
const LEVEL: i32 = 3;

/// What a save ends with.
#[derive(Serialize, Deserialize)]
struct Last {
    manifest: Manifest,
    deleted: Vec<String>,
}

/// Writes all that is new into one file. What changes meanwhile is left for the next
/// save: the manifest says what really is in there. Blocks.
pub(crate) fn collect(
    root: &Root,
    manifest: &mut Manifest,
    stored: &Manifest,
    diff: &Diff,
) -> Result<(File, u64), StorageError> {
    let mut encoder = zstd::Encoder::new(tempfile::tempfile()?, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut builder = tar::Builder::new(encoder);
    for path in diff.added.iter().chain(&diff.changed) {
        let taken = take(root, path);
        let Ok((mut copy, entry)) = taken else {
            // It went away, or can't be read: as if it had not been touched.
            match stored.files.get(path) {
                Some(old) => manifest.files.insert(path.clone(), old.clone()),
                None => manifest.files.remove(path),
            };
            continue;
        };
        add(&mut builder, &format!("{FILES}{path}"), entry.size, entry.mode, &mut copy)?;
        manifest.files.insert(path.clone(), entry);
    }
    let last = Last { manifest: manifest.clone(), deleted: diff.deleted.clone() };
    let json = serde_json::to_vec(&last).map_err(|e| StorageError::Damaged(e.to_string()))?;
    add(&mut builder, LAST, json.len() as u64, 0o644, &mut json.as_slice())?;
    let mut file = builder.into_inner()?.finish()?;
    file.flush()?;
    let size = file.stream_position()?;
    Ok((file, size))
}

/// A copy of a file as it is at one moment.
fn take(root: &Root, path: &str) -> Result<(Box<dyn Read>, Stored), StorageError> {
    let (mut file, meta) = root.open_file(path)?;
    let mut hasher = Sha256::new();
    let mode = meta.mode & 0o777;
    if meta.size <= PART as u64 {
        let mut data = Vec::with_capacity(usize::try_from(meta.size).unwrap_or(0));
        (&mut file).take(PART as u64 + 1).read_to_end(&mut data)?;
        if data.len() <= PART {
            hasher.update(&data);
            let stored = Stored { size: data.len() as u64, sha256: hex(hasher.finalize()), mode };
            return Ok((Box::new(std::io::Cursor::new(data)), stored));
        }
        file.seek(SeekFrom::Start(0))?;
    }
    let mut copy = tempfile::tempfile()?;
    let mut buffer = vec![0u8; 256 * 1024];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            len => {
                hasher.update(&buffer[..len]);
                copy.write_all(&buffer[..len])?;
                size += len as u64;
            }
        }
    }
    copy.seek(SeekFrom::Start(0))?;
    Ok((Box::new(copy), Stored { size, sha256: hex(hasher.finalize()), mode }))
}

fn add(
    builder: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    mode: u32,
    data: &mut dyn Read,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(mode);
    builder.append_data(&mut header, name, data)
}

/// A file of a save.
enum New {
    Small(String, Vec<u8>),
    Large(String, File, u64),
}

/// Finishes a save that may have been begun by another process: puts its files in their
/// places, takes away what is gone, and notes what is stored now.
pub(crate) async fn spread(store: &Store, save: File) -> Result<Manifest, StorageError> {
    let (sender, receiver) = mpsc::channel::<New>(PARALLEL);
    let reading = tokio::task::spawn_blocking(move || read(save, &sender));
    let files = stream::unfold(receiver, |mut receiver| async move {
        let file = receiver.recv().await?;
        Some((file, receiver))
    });
    let store = Arc::new(store.clone());
    files
        .map(|file| {
            let store = store.clone();
            async move {
                match file {
                    New::Small(path, data) => store.write(&path, data).await,
                    New::Large(path, file, size) => store.write_file(&path, file, size).await,
                }
            }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let last = reading.await.map_err(|e| StorageError::Damaged(e.to_string()))??;
    let keys = last.deleted.iter().map(|path| store.key(path)).collect::<Result<Vec<_>, _>>()?;
    if !keys.is_empty() {
        let mut deleting = store.objects.delete_stream(stream::iter(keys.into_iter().map(Ok)).boxed());
        while let Some(deleted) = deleting.next().await {
            match deleted {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let json = serde_json::to_vec(&last.manifest).map_err(|e| StorageError::Damaged(e.to_string()))?;
    store.write(MANIFEST, json).await?;
    store.objects.delete(&store.key(PENDING)?).await?;
    Ok(last.manifest)
}

fn read(save: File, to: &mpsc::Sender<New>) -> Result<Last, StorageError> {
    let damaged =
        |e: &dyn std::fmt::Display| StorageError::Damaged(format!("the save in {PENDING} is damaged: {e}"));
    let mut archive = tar::Archive::new(zstd::Decoder::new(save).map_err(|e| damaged(&e))?);
    for entry in archive.entries().map_err(|e| damaged(&e))? {
        let mut entry = entry.map_err(|e| damaged(&e))?;
        let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|e| damaged(&e))?;
        if name == LAST {
            return serde_json::from_reader(entry).map_err(|e| damaged(&e));
        }
        let path = name.strip_prefix(FILES).ok_or_else(|| damaged(&name))?.to_owned();
        let size = entry.size();
        let new = if size <= PART as u64 {
            let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            entry.read_to_end(&mut data).map_err(|e| damaged(&e))?;
            New::Small(path, data)
        } else {
            let mut copy = tempfile::tempfile()?;
            std::io::copy(&mut entry, &mut copy).map_err(|e| damaged(&e))?;
            New::Large(path, copy, size)
        };
        if to.blocking_send(new).is_err() {
            return Err(StorageError::Damaged("stopped".into()));
        }
    }
    Err(damaged(&"it has no end"))
}
