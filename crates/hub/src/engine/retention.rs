//! Old tasks are forgotten: their rows, and the files of their events.

use std::sync::Arc;

use super::Hub;
use crate::clock::now_ms;

/// Most tasks that are forgotten at a time: others want to write as well.
const BATCH: u32 = 200;

impl Hub {
    /// Forgets what is older than is kept, and then the oldest, while there is more than is
    /// kept.
    pub(super) async fn forget_old(self: &Arc<Self>) {
        if let Some(keep) = self.settings.keep {
            let before = now_ms().saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
            while self.forget_before(before).await {}
        }
        let Some(most) = self.settings.keep_bytes else { return };
        let logs = self.logs.clone();
        let size = tokio::task::spawn_blocking(move || logs.size()).await;
        let mut size = size.unwrap_or(0);
        while size > most {
            let oldest = self.store.over_before(u64::MAX, BATCH).await.unwrap_or_default();
            if oldest.is_empty() {
                return;
            }
            let Some(freed) = self.forget(oldest).await else { return };
            size = size.saturating_sub(freed);
        }
    }

    /// Forgets some of what is older than a time; says whether there may be more.
    async fn forget_before(self: &Arc<Self>, before: u64) -> bool {
        match self.store.over_before(before, BATCH).await {
            Ok(tasks) => {
                let is_full = tasks.len() == BATCH as usize;
                self.forget(tasks).await.is_some() && is_full
            }
            Err(error) => {
                tracing::error!("old tasks are kept: {error}");
                false
            }
        }
    }

    /// Forgets tasks; returns how many bytes of events that frees.
    async fn forget(self: &Arc<Self>, tasks: Vec<String>) -> Option<u64> {
        if let Err(error) = self.store.forget(tasks.clone()).await {
            tracing::error!("old tasks are kept: {error}");
            return None;
        }
        // The rows first: events without a row are nobody's.
        let logs = self.logs.clone();
        let forgotten = tokio::task::spawn_blocking(move || logs.forget(&tasks)).await;
        let (freed, thin) = match forgotten.map_err(std::io::Error::other).flatten() {
            Ok(forgotten) => forgotten,
            Err(error) => {
                tracing::error!("events of old tasks are kept: {error}");
                return None;
            }
        };
        for pack in thin {
            if let Err(error) = self.repack(pack).await {
                tracing::error!("events of old tasks still take room: {error}");
            }
        }
        Some(freed)
    }

    /// Writes a pack anew of which much is forgotten.
    async fn repack(&self, pack: u64) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let logs = self.logs.clone();
        let tasks = tokio::task::spawn_blocking(move || logs.packed(pack)).await??;
        let kept = self.store.kept(tasks).await?;
        let logs = self.logs.clone();
        tokio::task::spawn_blocking(move || logs.repack(pack, &kept)).await??;
        Ok(())
    }
}
