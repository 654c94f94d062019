//! Snapshots: the whole workspace at one moment, as an archive with a manifest of digests.

use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;

use futures_util::TryStreamExt;
use legwork_base::clock::now_ms;
use legwork_base::digest;
use legwork_workspace::{Bounds, Format, Root};
use serde::{Deserialize, Serialize};

use super::manifest::{Diff, Manifest, NOTES};
use super::scan::{Known, excluded};
use super::store::{StorageError, Store};

/// What is known of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    /// Bytes of the archive.
    pub(crate) size: u64,
    /// The archive's digest.
    pub(crate) sha256: String,
    /// Files in it.
    pub(crate) files: u64,
}

/// A snapshot's note: what is known of it, and all its files.
#[derive(Serialize, Deserialize)]
struct Note {
    snapshot: Snapshot,
    manifest: Manifest,
}

/// The snapshots of a workspace.
pub(crate) struct Snapshots {
    store: Store,
    root: Arc<Root>,
    exclude: Vec<String>,
    /// One thing at a time.
    busy: tokio::sync::Mutex<()>,
}

fn folder() -> String {
    format!("{NOTES}/snapshots")
}

fn archive(id: &str) -> String {
    format!("{}/{id}.tar.zst", folder())
}

fn note(id: &str) -> String {
    format!("{}/{id}.json", folder())
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, StorageError> {
    result.map_err(|e| StorageError::Damaged(e.to_string()))
}

impl Snapshots {
    pub(crate) fn new(store: Store, root: Arc<Root>, exclude: &[String]) -> Self {
        Self { store, root, exclude: excluded(exclude), busy: tokio::sync::Mutex::default() }
    }

    /// Where they are.
    pub(crate) fn address(&self) -> &str {
        &self.store.address
    }

    /// Makes one.
    pub(crate) async fn create(&self, name: &str) -> Result<Snapshot, StorageError> {
        let _busy = self.busy.lock().await;
        self.make(name).await
    }

    async fn make(&self, name: &str) -> Result<Snapshot, StorageError> {
        let (root, exclude) = (self.root.clone(), self.exclude.clone());
        let packing = tokio::task::spawn_blocking(move || {
            let mut file = tempfile::tempfile()?;
            root.pack("", Format::TarZst, &exclude, std::io::BufWriter::new(&file))?;
            file.flush()?;
            file.rewind()?;
            let (size, sha256) = digest::of_stream(&mut file)?;
            // What is in the archive, not what the workspace has become meanwhile.
            let manifest = manifest_of(&mut file)?;
            Ok::<_, StorageError>((file, size, sha256, manifest))
        });
        let (file, size, sha256, manifest) = joined(packing.await)??;
        let created_ms = now_ms();
        let id = format!("{created_ms:013}-{}", &sha256[..8]);
        let snapshot = Snapshot {
            id: id.clone(),
            name: name.to_owned(),
            created_ms,
            size,
            sha256,
            files: manifest.files.len() as u64,
        };
        self.store.write_file(&archive(&id), file, size).await?;
        // With its note it exists.
        let said = Note { snapshot: snapshot.clone(), manifest };
        let json = serde_json::to_vec(&said).map_err(|e| StorageError::Damaged(e.to_string()))?;
        self.store.write(&note(&id), json).await?;
        Ok(snapshot)
    }

    /// All, the newest first.
    pub(crate) async fn list(&self) -> Result<Vec<Snapshot>, StorageError> {
        let prefix = self.store.key(&folder())?;
        let objects: Vec<_> = self.store.objects.list(Some(&prefix)).try_collect().await?;
        let mut found = Vec::new();
        for object in objects {
            let Some(path) = self.store.path(&object.location) else { continue };
            let id = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json"));
            if let Some(id) = id {
                found.push(self.note(id).await?.snapshot);
            }
        }
        found.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(found)
    }

    async fn note(&self, id: &str) -> Result<Note, StorageError> {
        let unknown = || StorageError::NotFound(format!("no such snapshot: {id}"));
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(unknown());
        }
        let json = self.store.read(&note(id)).await?.ok_or_else(unknown)?;
        serde_json::from_slice(&json)
            .map_err(|e| StorageError::Damaged(format!("the note of snapshot {id} can't be read: {e}")))
    }

    /// What has changed from a snapshot to another, or to now.
    pub(crate) async fn diff(&self, from: &str, to: Option<&str>) -> Result<Diff, StorageError> {
        let from = self.note(from).await?.manifest;
        let to = match to {
            Some(id) => self.note(id).await?.manifest,
            None => self.now().await?,
        };
        Ok(from.diff(&to))
    }

    async fn now(&self) -> Result<Manifest, StorageError> {
        let (root, exclude) = (self.root.clone(), self.exclude.clone());
        let scanned = tokio::task::spawn_blocking(move || Known::default().scan(&root, &exclude)).await;
        Ok(joined(scanned)??)
    }

    /// Makes the workspace what it was. What it is now is kept as a snapshot of its own,
    /// whose description is returned.
    pub(crate) async fn restore(&self, id: &str) -> Result<Snapshot, StorageError> {
        let _busy = self.busy.lock().await;
        let Note { snapshot, manifest } = self.note(id).await?;
        let mut file = self
            .store
            .fetch(&archive(id))
            .await?
            .ok_or_else(|| StorageError::NotFound(format!("the archive of snapshot {id} is gone")))?;
        let checking = tokio::task::spawn_blocking(move || {
            digest::of_stream(&mut file).map(|(_, sha256)| (sha256, file))
        });
        let (sha256, mut file) = joined(checking.await)??;
        if sha256 != snapshot.sha256 {
            return Err(StorageError::Damaged(format!(
                "the archive of snapshot {id} is damaged: nothing was changed"
            )));
        }
        let before = self.make(&format!("before restoring {}", snapshot.name)).await?;
        let diff = manifest.diff(&self.now().await?);
        let root = self.root.clone();
        let restoring = tokio::task::spawn_blocking(move || {
            // What was not there then goes first, and folders in the places of files.
            for path in &diff.added {
                root.remove(path)?;
            }
            for path in manifest.files.keys() {
                if root.stat(path).is_ok_and(|meta| meta.is_dir) {
                    root.remove(path)?;
                }
            }
            file.rewind()?;
            let bounds = Bounds { bytes: u64::MAX, entries: u64::MAX, ratio: u64::MAX };
            root.unpack("", Format::TarZst, file, snapshot.size, bounds)?;
            Ok::<_, StorageError>(())
        });
        joined(restoring.await)??;
        Ok(before)
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), StorageError> {
        let _busy = self.busy.lock().await;
        self.note(id).await?;
        self.store.delete(&note(id)).await?;
        self.store.delete(&archive(id)).await
    }
}

/// The digests of what is in an archive of ours. Leaves the file at its start.
fn manifest_of(file: &mut File) -> Result<Manifest, StorageError> {
    use super::manifest::Stored;
    file.rewind()?;
    let mut manifest = Manifest { version: 1, saved_ms: now_ms(), ..Manifest::default() };
    let mut archive = tar::Archive::new(zstd::Decoder::new(&*file)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mode = entry.header().mode()? & 0o777;
        let (size, sha256) = digest::of_stream(&mut entry)?;
        manifest.files.insert(path, Stored { size, sha256, mode });
    }
    drop(archive);
    file.rewind()?;
    Ok(manifest)
}
