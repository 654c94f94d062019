//! Old tasks are forgotten: their rows, and the files of their events.

use std::sync::Arc;

use rusqlite::params;

use super::Hub;
use crate::clock::now_ms;
use crate::events;
use crate::pods;

/// Most tasks that are forgotten at a time: others want to write as well.
const BATCH: i64 = 200;

/// The oldest tasks that are over. Ids sort by time, so that only the oldest are looked at.
const OVER: &str = "SELECT id FROM (SELECT id, created_at_ms FROM tasks ORDER BY id LIMIT 2000) AS old
     WHERE created_at_ms < ?1
         AND NOT EXISTS (SELECT 1 FROM runs WHERE task_id = old.id AND finished_at_ms IS NULL)
     LIMIT ?2";

impl Hub {
    /// Forgets what is older than is kept, and then the oldest, while there is more than is
    /// kept.
    pub(super) async fn forget_old(self: &Arc<Self>) {
        if let Some(keep) = self.settings.keep {
            let before = now_ms().saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
            while self.forget_before(before).await == BATCH {}
        }
        let Some(most) = self.settings.keep_bytes else { return };
        let folder = self.data.join("events");
        let size = tokio::task::spawn_blocking(move || size_of(&folder)).await;
        let mut size = size.unwrap_or(0);
        while size > most {
            let Some(freed) = self.forget_oldest().await else { return };
            size = size.saturating_sub(freed);
        }
    }

    async fn forget_before(self: &Arc<Self>, before: u64) -> i64 {
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let found = self
            .store
            .read(move |c| {
                let tasks = ids(c, OVER, before)?;
                let pods = ids(
                    c,
                    "SELECT id FROM pod_tasks WHERE finished_at_ms < ?1 ORDER BY id LIMIT ?2",
                    before,
                )?;
                Ok((tasks, pods))
            })
            .await;
        match found {
            Ok((tasks, pods)) => {
                let count = i64::try_from(tasks.len().max(pods.len())).unwrap_or(0);
                self.forget(tasks, pods).await;
                count
            }
            Err(error) => {
                tracing::error!("old tasks are kept: {error}");
                0
            }
        }
    }

    /// Forgets some of the oldest tasks; returns how many bytes of events they had.
    async fn forget_oldest(self: &Arc<Self>) -> Option<u64> {
        let tasks: Vec<String> = self.store.read(|c| ids(c, OVER, i64::MAX)).await.ok()?;
        if tasks.is_empty() {
            return None;
        }
        let size = |id: &String| std::fs::metadata(events::path(&self.data, id)).map_or(0, |m| m.len());
        let freed = tasks.iter().map(size).sum();
        self.forget(tasks, Vec::new()).await;
        Some(freed)
    }

    async fn forget(self: &Arc<Self>, tasks: Vec<String>, pods: Vec<u32>) {
        let (task_rows, pod_rows) = (tasks.clone(), pods.clone());
        let written = self
            .store
            .write(move |c| {
                for id in task_rows {
                    c.prepare_cached(
                        "DELETE FROM payloads WHERE id = ?1 OR id IN (SELECT id FROM runs WHERE task_id = ?1)",
                    )?
                    .execute([&id])?;
                    c.prepare_cached("DELETE FROM runs WHERE task_id = ?1")?.execute([&id])?;
                    c.prepare_cached("DELETE FROM tasks WHERE id = ?1")?.execute([&id])?;
                }
                for id in pod_rows {
                    c.prepare_cached("DELETE FROM payloads WHERE id = 'pod-' || ?1")?.execute([id])?;
                    c.prepare_cached("DELETE FROM pod_tasks WHERE id = ?1")?.execute([id])?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = written {
            return tracing::error!("old tasks are kept: {error}");
        }
        // The rows first: a file without a row is nobody's.
        let files = tasks.iter().map(|id| events::path(&self.data, id));
        let files: Vec<_> = files.chain(pods.iter().map(|id| pods::events_path(&self.data, *id))).collect();
        let _ = tokio::task::spawn_blocking(move || {
            for file in files {
                let _ = std::fs::remove_file(file);
            }
        })
        .await;
    }
}

fn ids<T: rusqlite::types::FromSql>(
    c: &rusqlite::Connection,
    sql: &str,
    before: i64,
) -> rusqlite::Result<Vec<T>> {
    c.prepare_cached(sql)?.query_map(params![before, BATCH], |row| row.get(0))?.collect()
}

/// Bytes of the files of events.
fn size_of(folder: &std::path::Path) -> u64 {
    let Ok(folders) = std::fs::read_dir(folder) else { return 0 };
    folders
        .flatten()
        .filter_map(|folder| std::fs::read_dir(folder.path()).ok())
        .flat_map(|files| files.flatten())
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
