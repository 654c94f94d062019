//! What is kept, and for how long.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Tasks;

/// A command's file that belongs to no task is left over from a crash; a younger one
/// may just be in the making.
const ORPHAN: Duration = Duration::from_secs(3600);
/// What a report takes; a file no larger holds no output.
const REPORT: u64 = 4096;

impl Tasks {
    /// Forgets what is too old, or too much: delivered tasks, stored output, and the
    /// kept output of commands whose results wait for the hub. Results are never
    /// dropped.
    pub(crate) async fn forget_old(&self) {
        let keep = self.retention;
        if let Err(error) = self.store.forget_old(keep.tasks_age, keep.tasks) {
            tracing::warn!("failed to prune the journal: {error}");
        }
        let known = match self.store.records() {
            Ok(known) => known,
            Err(error) => return tracing::warn!("failed to read the journal: {error}"),
        };
        let waiting: HashSet<String> = self.outbox.records().into_iter().collect();
        let (records, runner) = (self.records.clone(), self.runner.clone());
        let pruned = tokio::task::spawn_blocking(move || {
            prune_records(&records, &known, &waiting, keep.spool_bytes);
            runner.root().prune(".work/outputs", keep.outputs_age, keep.outputs_bytes)
        });
        match pruned.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(count)) => tracing::info!("removed {count} stored outputs by age or size"),
            Ok(Err(error)) => tracing::warn!("failed to prune stored outputs: {error}"),
        }
    }
}

/// Removes files of no task, and empties the oldest of those that `waiting` for the
/// hub until the rest is within bounds.
fn prune_records(folder: &Path, known: &HashSet<String>, waiting: &HashSet<String>, bytes: u64) {
    let mut spooled: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let Ok(metadata) = entry.metadata() else { continue };
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        if !known.contains(&name) && age > ORPHAN {
            let _ = std::fs::remove_file(&path);
        } else if waiting.contains(&name) && metadata.len() > REPORT {
            spooled.push((modified, metadata.len(), path));
        }
    }
    spooled.sort();
    let mut total: u64 = spooled.iter().map(|(_, len, _)| len).sum();
    for (_, len, path) in spooled {
        if total <= bytes {
            return;
        }
        tracing::warn!("retention.spool_bytes: dropped the streamed output kept in {}", path.display());
        let _ = std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(REPORT));
        total -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_go_and_the_oldest_output_is_emptied_first() {
        let dir = tempfile::tempdir().expect("tempdir");
        let now = SystemTime::now();
        for (name, age) in [("orphan", 7200), ("young", 10), ("a", 300), ("b", 200), ("running", 7200)] {
            let file = std::fs::File::create(dir.path().join(name)).expect("file");
            file.set_len(100_000).expect("len");
            file.set_modified(now - Duration::from_secs(age)).expect("time");
        }
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<HashSet<_>>();
        prune_records(dir.path(), &set(&["a", "b", "running"]), &set(&["a", "b"]), 150_000);
        let len = |name: &str| dir.path().join(name).metadata().map(|m| m.len()).ok();
        let lens = ["orphan", "young", "a", "b", "running"].map(len);
        assert_eq!(lens, [None, Some(100_000), Some(REPORT), Some(100_000), Some(100_000)]);
    }
}
