//! Where the workspace is kept beside its disk: storage, and snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use legwork_socketio::payload;
use legwork_workspace::Root;
use serde_json::json;
use tokio::sync::watch;

use crate::member::Presence;
use crate::settings::Settings;
use crate::storage::{Snapshots, StorageError, Store, Sync, SyncReport};

/// What a workspace is kept in. Until it has been loaded from there, nobody works in it.
pub(crate) struct Vault {
    /// Where the workspace is kept, if it is.
    pub(crate) sync: Option<Sync>,
    pub(crate) snapshots: Snapshots,
    presence: Arc<Presence>,
    /// Whether the workspace is there yet.
    loaded: watch::Sender<bool>,
}

/// Where snapshots of a workspace are if it is kept nowhere else.
fn snapshot_folder(state: &Path, root: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    state.join("workspaces").join(legwork_base::digest::name(root.as_os_str().as_bytes()))
}

impl Vault {
    pub(crate) fn open(
        settings: &Settings,
        root: &Arc<Root>,
        presence: Arc<Presence>,
    ) -> Result<Self, StorageError> {
        let store = settings.storage.as_deref().map(|address| Store::open(address, &settings.storage_env));
        let store = store.transpose()?;
        let exclude = &settings.storage_exclude;
        let kept = match &store {
            Some(store) => store.clone(),
            None => Store::folder(snapshot_folder(&settings.state, root.path())),
        };
        let snapshots = Snapshots::new(kept, root.clone(), exclude);
        let sync = store.map(|store| Sync::new(store, root.clone(), exclude));
        Ok(Self { loaded: watch::Sender::new(sync.is_none()), sync, snapshots, presence })
    }

    /// Whether the workspace is there; before, nobody works in it.
    pub(crate) fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits until it is.
    pub(crate) async fn loaded(&self) {
        if !self.is_loaded() {
            let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await.map(drop);
        }
    }

    /// Fills the workspace from storage, and opens it for work.
    pub(crate) async fn load(&self) -> Result<(), StorageError> {
        if let Some(sync) = &self.sync {
            let start = Instant::now();
            let loaded = sync.load(&|done, total| self.tell_progress("load", done, total)).await?;
            match loaded {
                Some(report) => tracing::info!(
                    files = report.files,
                    bytes = report.bytes,
                    ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "loaded the workspace from {}",
                    sync.store.address
                ),
                None => tracing::info!(
                    "the workspace is not empty: it is kept as it is, and saved to {} in time",
                    sync.store.address
                ),
            }
        }
        self.loaded.send_replace(true);
        Ok(())
    }

    /// Stores what has changed.
    pub(crate) async fn save(&self) -> Result<SyncReport, StorageError> {
        let sync = self.sync.as_ref().ok_or_else(|| {
            StorageError::NotFound("this workspace is not kept anywhere: set S3_URI, and restart".into())
        })?;
        let result = sync.save().await;
        let said = match &result {
            Ok(report) => json!({
                "phase": "saved", "files": report.files, "bytes": report.bytes, "deleted": report.deleted,
            }),
            Err(error) => json!({ "phase": "failed", "error": error.to_string() }),
        };
        self.presence.tell("storage:progress", &payload(&said), |m| m.watches.storage.is_on());
        result
    }

    fn tell_progress(&self, phase: &str, done: u64, total: u64) {
        // A hundred steps are enough for a bar.
        let step = (total / 100).max(1);
        if done.is_multiple_of(step) || done == total {
            let said = payload(&json!({ "phase": phase, "done": done, "total": total }));
            self.presence.tell("storage:progress", &said, |m| m.watches.storage.is_on());
        }
    }
}
