//! Telling clients which files have changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use legwork_socketio::payload;
use legwork_workspace::{Change, ChangeKind, Watcher};
use serde_json::{Value, json};

use crate::files::Files;
use crate::member::Presence;

/// Changes are gathered for this long before they are told.
const GATHER: Duration = Duration::from_millis(20);
/// More changes than this are told as "everything".
const MAX_CHANGES: usize = 500;
/// How often it is seen whether anybody still wants to hear of changes.
const LOOK: Duration = Duration::from_secs(1);

/// Why files can't be watched.
#[derive(Debug, thiserror::Error)]
enum Blind {
    #[error(transparent)]
    Workspace(#[from] legwork_workspace::Error),
    #[error(transparent)]
    System(#[from] std::io::Error),
}

/// Watches the files of a workspace as long as anybody wants to hear of changes.
pub(crate) struct Watching {
    files: Arc<Files>,
    presence: Arc<Presence>,
    /// Somebody watches already.
    running: AtomicBool,
    /// The server ends.
    stopping: AtomicBool,
}

impl Watching {
    pub(crate) fn new(files: Arc<Files>, presence: Arc<Presence>) -> Arc<Self> {
        Arc::new(Self { files, presence, running: AtomicBool::new(false), stopping: AtomicBool::new(false) })
    }

    /// Starts to watch, unless that is done already. Ends by itself when nobody wants it.
    pub(crate) fn start(self: &Arc<Self>) {
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let watching = self.clone();
        let started = std::thread::Builder::new().name("watch".into()).spawn(move || {
            if let Err(error) = watching.watch() {
                tracing::warn!("files are not watched: {error}");
                let error = error.to_string();
                watching.tell(&json!({ "changes": [], "rescan": true, "blind": true, "error": error }));
            }
            watching.running.store(false, Ordering::Release);
        });
        if let Err(error) = started {
            tracing::warn!("files are not watched: {error}");
        }
    }

    /// Watches no more: the server ends.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn is_wanted(&self) -> bool {
        !self.stopping.load(Ordering::Acquire) && self.presence.any(|m| m.watches.files.is_on())
    }

    fn tell(&self, said: &Value) {
        self.presence.tell("file:changed", &payload(said), |m| m.watches.files.is_on());
    }

    fn watch(&self) -> Result<(), Blind> {
        let mut watcher = Watcher::new(self.files.root.clone(), self.files.exclude.clone())?;
        let mut blind = 0;
        while self.is_wanted() {
            let mut changes = watcher.wait(LOOK)?;
            let now_blind = watcher.blind_folders();
            if changes.is_empty() && now_blind == blind {
                continue;
            }
            if !changes.is_empty() {
                // What belongs together comes together; a flood is taken in steps.
                let until = Instant::now() + GATHER;
                loop {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() || changes.len() > 10 * MAX_CHANGES {
                        break;
                    }
                    changes.extend(watcher.wait(left)?);
                }
            }
            let mut said = describe(&self.files, changes);
            if now_blind != blind {
                blind = now_blind;
                if blind > 0 {
                    tracing::warn!(
                        "{blind} folders can't be watched (fs.inotify.max_user_watches): they are looked at every few seconds"
                    );
                }
                said["scanned_folders"] = blind.into();
            }
            self.tell(&said);
        }
        Ok(())
    }
}

fn describe(files: &Files, changes: Vec<Change>) -> Value {
    let mut paths: BTreeMap<PathBuf, ChangeKind> = BTreeMap::new();
    let mut everything = false;
    for change in changes {
        match change {
            Change::Everything => everything = true,
            Change::Path(path, kind) => {
                let kind = match (paths.get(&path), kind) {
                    (Some(ChangeKind::Created), ChangeKind::Changed) => ChangeKind::Created,
                    (Some(ChangeKind::Deleted), ChangeKind::Created) => ChangeKind::Changed,
                    (_, kind) => kind,
                };
                paths.insert(path, kind);
            }
        }
    }
    if everything || paths.len() > MAX_CHANGES {
        return json!({ "changes": [], "rescan": true });
    }
    let changes: Vec<Value> = paths
        .iter()
        .map(|(path, kind)| {
            let kind = match kind {
                ChangeKind::Created => "created",
                ChangeKind::Changed => "changed",
                ChangeKind::Deleted => "deleted",
            };
            json!({ "path": files.names.absolute(&path.to_string_lossy()), "type": kind })
        })
        .collect();
    json!({ "changes": changes })
}
