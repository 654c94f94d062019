//! Loading a workspace at the start, and saving what has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::TryStreamExt;
use futures_util::stream::StreamExt;
use legwork_base::clock::now_ms;
use legwork_workspace::Root;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::Serialize;
use tokio::sync::Mutex;

use super::manifest::{MANIFEST, Manifest, NOTES, PENDING};
use super::scan::{Known, excluded};
use super::spread::{PARALLEL, collect, spread};
use super::store::{StorageError, Store};

/// Called as work goes on: what is done, of how much, in files.
pub(crate) type Progress<'a> = dyn Fn(u64, u64) + Send + std::marker::Sync + 'a;

/// What a load or a save has done.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct SyncReport {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) deleted: u64,
}

#[derive(Default)]
struct State {
    known: Known,
    /// What is stored, as far as we know; `None` before we have looked.
    stored: Option<Manifest>,
    /// The workspace is what was stored, or newer: what is missing from it was deleted.
    loaded: bool,
}

/// A workspace and where it is kept.
pub(crate) struct Sync {
    pub(crate) store: Store,
    root: Arc<Root>,
    exclude: Vec<String>,
    state: Mutex<State>,
    pub(crate) saved_ms: AtomicU64,
}

impl Sync {
    pub(crate) fn new(store: Store, root: Arc<Root>, exclude: &[String]) -> Self {
        let exclude = excluded(exclude);
        Self { store, root, exclude, state: Mutex::default(), saved_ms: AtomicU64::new(0) }
    }

    /// Finishes what a crash has left, and fills the workspace if it is empty: what is
    /// there already is newer than what is stored. `None` if it was not empty.
    pub(crate) async fn load(&self, progress: &Progress<'_>) -> Result<Option<SyncReport>, StorageError> {
        let mut state = self.state.lock().await;
        let manifest = self.stored().await?;
        if !self.is_empty().await? {
            state.stored = Some(manifest);
            state.loaded = true;
            return Ok(None);
        }
        let objects: Vec<ObjectMeta> =
            self.store.objects.list(Some(self.store.prefix())).try_collect().await?;
        let mut files: Vec<(String, ObjectMeta)> = objects
            .into_iter()
            .filter_map(|object| Some((self.store.path(&object.location)?, object)))
            .filter(|(path, _)| !path.is_empty() && !path.starts_with(&format!("{NOTES}/")))
            .collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let markers = markers(&files);
        files.retain(|(path, _)| !markers.contains(path));
        let total = files.len() as u64;
        let (done, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let manifest = &manifest;
        futures_util::stream::iter(files)
            .map(|(path, object)| {
                let (done, bytes) = (&done, &bytes);
                async move {
                    let mode = manifest.files.get(&path).map(|f| f.mode);
                    self.load_file(&path, &object, mode).await?;
                    bytes.fetch_add(object.size, Relaxed);
                    progress(done.fetch_add(1, Relaxed) + 1, total);
                    Ok::<_, StorageError>(())
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        // Files that others have stored are not in our manifest.
        let (root, exclude) = (self.root.clone(), self.exclude.clone());
        let mut known = std::mem::take(&mut state.known);
        let scanned = tokio::task::spawn_blocking(move || {
            let manifest = known.scan(&root, &exclude);
            (known, manifest)
        });
        let (known, scanned) = scanned.await.map_err(|e| StorageError::Damaged(e.to_string()))?;
        state.known = known;
        state.stored = Some(scanned?);
        state.loaded = true;
        Ok(Some(SyncReport { files: total, bytes: bytes.into_inner(), deleted: 0 }))
    }

    /// What is stored, once what a crash has left is finished.
    async fn stored(&self) -> Result<Manifest, StorageError> {
        if let Some(pending) = self.store.fetch(PENDING).await? {
            tracing::info!("finishing a save that was cut short");
            return spread(&self.store, pending).await;
        }
        match self.store.read(MANIFEST).await? {
            None => Ok(Manifest::default()),
            Some(json) => serde_json::from_slice(&json)
                .map_err(|e| StorageError::Damaged(format!("{MANIFEST} can't be read: {e}"))),
        }
    }

    async fn is_empty(&self) -> Result<bool, StorageError> {
        let (root, exclude) = (self.root.clone(), self.exclude.clone());
        let listed = tokio::task::spawn_blocking(move || root.list("", false, &[]));
        let listed = listed.await.map_err(|e| StorageError::Damaged(e.to_string()))??;
        // A new volume has a folder of the file system's own.
        Ok(listed.iter().all(|e| {
            let name = e.path.to_string_lossy();
            name == "lost+found" || exclude.iter().any(|x| *x == name)
        }))
    }

    async fn load_file(
        &self,
        path: &str,
        object: &ObjectMeta,
        mode: Option<u32>,
    ) -> Result<(), StorageError> {
        let mut stream = self.store.objects.get(&object.location).await?.into_stream();
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(4);
        let (root, target) = (self.root.clone(), path.to_owned());
        let first = stream.next().await.transpose()?;
        // Most files are one piece: they need no second thread to talk to.
        let rest = stream.next().await.transpose()?;
        let writing = tokio::task::spawn_blocking(move || {
            use std::io::Write;
            let mut file = root.create(&target)?;
            for piece in first.into_iter().chain(std::iter::from_fn(|| receiver.blocking_recv())) {
                file.write_all(&piece)?;
            }
            if let Some(mode) = mode {
                file.set_mode(mode)?;
            }
            file.commit_unflushed()?;
            Ok::<_, StorageError>(())
        });
        let mut failed = None;
        let mut next = rest.map(Ok);
        while let Some(piece) = next {
            match piece {
                Ok(piece) => {
                    if sender.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            next = stream.next().await;
        }
        drop(sender);
        writing.await.map_err(|e| StorageError::Damaged(e.to_string()))??;
        match failed {
            Some(error) => Err(StorageError::Store(error)),
            None => Ok(()),
        }
    }

    /// Stores what has changed since the last time, deletions included.
    pub(crate) async fn save(&self) -> Result<SyncReport, StorageError> {
        let mut state = self.state.lock().await;
        if !state.loaded {
            return Err(StorageError::Busy(
                "the workspace was not loaded: a save now would delete what is stored".into(),
            ));
        }
        let stored = match state.stored.take() {
            Some(stored) => stored,
            None => self.stored().await?,
        };
        let (root, exclude) = (self.root.clone(), self.exclude.clone());
        let mut known = std::mem::take(&mut state.known);
        let collecting = tokio::task::spawn_blocking(move || {
            let mut manifest = match known.scan(&root, &exclude) {
                Ok(manifest) => manifest,
                Err(error) => return (known, stored, Err(error.into())),
            };
            let diff = stored.diff(&manifest);
            if diff.is_empty() {
                return (known, stored, Ok(None));
            }
            let collected = collect(&root, &mut manifest, &stored, &diff);
            let report = SyncReport {
                files: (diff.added.len() + diff.changed.len()) as u64,
                bytes: diff
                    .added
                    .iter()
                    .chain(&diff.changed)
                    .filter_map(|p| Some(manifest.files.get(p)?.size))
                    .sum(),
                deleted: diff.deleted.len() as u64,
            };
            (known, stored, collected.map(|(file, size)| Some((file, size, report))))
        });
        let (known, stored, collected) =
            collecting.await.map_err(|e| StorageError::Damaged(e.to_string()))?;
        state.known = known;
        let Some((file, size, report)) = collected? else {
            state.stored = Some(stored);
            self.saved_ms.store(now_ms(), Relaxed);
            return Ok(SyncReport::default());
        };
        let again = file.try_clone()?;
        self.store.write_file(PENDING, file, size).await?;
        // From here on the save has happened; if we don't finish it, the next one does.
        let mut again = again;
        std::io::Seek::rewind(&mut again)?;
        state.stored = Some(spread(&self.store, again).await?);
        self.saved_ms.store(now_ms(), Relaxed);
        Ok(report)
    }
}

/// Empty objects that stand for folders, as consoles make them.
fn markers(files: &[(String, ObjectMeta)]) -> std::collections::HashSet<String> {
    files
        .windows(2)
        .filter(|pair| pair[0].1.size == 0 && pair[1].0.starts_with(&format!("{}/", pair[0].0)))
        .map(|pair| pair[0].0.clone())
        .collect()
}
