//! What a process of ours has for itself. Several may share a state folder; each takes the
//! first place that is free, so that whoever comes after a kill finds its own again.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::settings::Settings;

/// Processes that may share a state folder.
const MOST: usize = 1024;

#[derive(Debug)]
pub(crate) struct Place {
    /// For audit, temporary folders, MCP servers.
    pub(crate) state: PathBuf,
    /// The home of what tasks run, which they may write.
    pub(crate) home: PathBuf,
    /// The temporary folder of what a task runs, until the task ends.
    pub(crate) tmp: PathBuf,
    _lock: File,
}

impl Place {
    pub(crate) fn take(settings: &Settings) -> Result<Self, String> {
        for number in 0..MOST {
            let state = settings.state.join(format!("process-{number}"));
            std::fs::create_dir_all(&state)
                .map_err(|e| format!("failed to create {}: {e}", state.display()))?;
            if let Some(lock) = lock(&state)? {
                let home = settings.scratch().join(format!("home-{number}"));
                let tmp = settings.scratch().join(format!("tmp-{number}"));
                std::fs::create_dir_all(&tmp)
                    .map_err(|e| format!("failed to create {}: {e}", tmp.display()))?;
                return Ok(Self { state, home, tmp, _lock: lock });
            }
        }
        Err(format!("{} is used by {MOST} processes; set LEGWORK_STATE_DIR", settings.state.display()))
    }

    /// An empty home, and an empty temporary folder.
    pub(crate) fn clear_home(&self) -> std::io::Result<()> {
        empty(&self.home)?;
        self.clear_tmp()
    }

    /// An empty temporary folder.
    pub(crate) fn clear_tmp(&self) -> std::io::Result<()> {
        empty(&self.tmp)
    }
}

fn empty(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(dir),
    }
}

/// Takes the lock of a folder; `None` if another process has it.
pub(crate) fn lock(dir: &Path) -> Result<Option<File>, String> {
    let path = dir.join("lock");
    let file = File::options()
        .append(true)
        .create(true)
        .open(&path)
        .map_err(|e| format!("failed to open {}: {e}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(format!("failed to lock {}: {error}", path.display())),
    }
}
