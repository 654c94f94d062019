//! Telling clients which files have changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use legwork_workspace::{Change, ChangeKind, Watcher};
use serde_json::{Value, json};

use crate::client::payload;
use crate::room::Room;

/// Changes are gathered for this long before they are told.
const GATHER: Duration = Duration::from_millis(20);
/// More changes than this are told as "everything".
const MAX_CHANGES: usize = 500;
/// How often it is seen whether anybody still wants to hear of changes.
const LOOK: Duration = Duration::from_secs(1);

/// Whether changes are being watched.
#[derive(Debug, Default)]
pub(crate) struct Watching(AtomicBool);

/// Starts to watch, unless that is done already. Ends by itself when nobody wants it.
pub(crate) fn start(room: &Arc<Room>) {
    if room.watching.0.swap(true, Ordering::AcqRel) {
        return;
    }
    let room = room.clone();
    let started = std::thread::Builder::new().name("watch".into()).spawn(move || {
        if let Err(error) = watch(&room) {
            tracing::warn!("files are not watched: {error}");
            let said = payload(&json!({ "changes": [], "rescan": true, "blind": true, "error": error }));
            room.tell("file:changed", &said, |c| c.watches.files.load(Ordering::Relaxed));
        }
        room.watching.0.store(false, Ordering::Release);
    });
    if let Err(error) = started {
        tracing::warn!("files are not watched: {error}");
    }
}

fn is_wanted(room: &Room) -> bool {
    !*room.stopping.borrow() && room.present().iter().any(|c| c.watches.files.load(Ordering::Relaxed))
}

fn watch(room: &Arc<Room>) -> Result<(), String> {
    let exclude = room.settings.exclude.clone();
    let mut watcher = Watcher::new(room.root.clone(), exclude).map_err(|e| e.to_string())?;
    let mut blind = 0;
    while is_wanted(room) {
        let mut changes = watcher.wait(LOOK).map_err(|e| e.to_string())?;
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
                changes.extend(watcher.wait(left).map_err(|e| e.to_string())?);
            }
        }
        let mut said = describe(room, changes);
        if now_blind != blind {
            blind = now_blind;
            if blind > 0 {
                tracing::warn!(
                    "{blind} folders can't be watched (fs.inotify.max_user_watches): they are looked at every few seconds"
                );
            }
            said["scanned_folders"] = blind.into();
        }
        let said = payload(&said);
        room.tell("file:changed", &said, |c| c.watches.files.load(Ordering::Relaxed));
    }
    Ok(())
}

fn describe(room: &Room, changes: Vec<Change>) -> Value {
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
            json!({ "path": room.names.absolute(&path.to_string_lossy()), "type": kind })
        })
        .collect();
    json!({ "changes": changes })
}
