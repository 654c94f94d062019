//! The workspace's files, as clients know them: where they are, what may be done with them, and who
//! hears of a change.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use legwork_workspace::{Error, Root};

use crate::member::Presence;
use crate::paths::{Names, Trouble};
use crate::settings::Settings;

/// Trees are sent to all at most once in this time.
const REFRESH: Duration = Duration::from_millis(50);

/// When trees were sent to all, and are to be.
#[derive(Default)]
struct Refreshing {
    last: Option<Instant>,
    scheduled: bool,
}

/// The files of a workspace.
pub(crate) struct Files {
    pub(crate) root: Arc<Root>,
    pub(crate) names: Names,
    /// Names that trees leave out.
    pub(crate) exclude: Vec<String>,
    /// Largest file that is sent or taken in an event.
    pub(crate) max_file: u64,
    /// Largest upload.
    pub(crate) max_upload: u64,
    /// Bytes that must stay free on the disk.
    min_free: u64,
    presence: Arc<Presence>,
    saving: Mutex<()>,
    refreshing: Mutex<Refreshing>,
}

impl Files {
    pub(crate) fn open(settings: &Settings, presence: Arc<Presence>) -> Result<Arc<Self>, Error> {
        let root = Arc::new(Root::open(Path::new(&settings.workspace))?);
        Ok(Arc::new(Self {
            names: Names::new(&settings.workspace, &root.path().to_string_lossy()),
            root,
            exclude: settings.exclude.clone(),
            max_file: settings.max_file,
            max_upload: settings.max_upload,
            min_free: settings.min_free,
            presence,
            saving: Mutex::default(),
            refreshing: Mutex::default(),
        }))
    }

    /// Held by who saves a file on condition that nobody else has.
    pub(crate) fn saving(&self) -> MutexGuard<'_, ()> {
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what would not fit.
    pub(crate) fn check_size(&self, bytes: u64, given: &str) -> Result<(), Trouble> {
        let most = self.max_upload;
        if bytes > most {
            let text = format!("file too large: {given} ({bytes} bytes, the limit is {most})");
            return Err(Trouble::new("too_large", text));
        }
        if let Some((free, _)) = self.root.disk()
            && free < self.min_free.saturating_add(bytes)
        {
            let text = format!("no space left on device: {given} ({free} bytes are free)");
            return Err(Trouble::new("no_space", text));
        }
        Ok(())
    }

    fn refreshing(&self) -> MutexGuard<'_, Refreshing> {
        self.refreshing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the tree of the whole workspace to all: at once, or if that was done just
    /// now, in a moment.
    pub(crate) async fn refresh_all(self: &Arc<Self>) {
        let wait = {
            let mut refreshing = self.refreshing();
            if refreshing.scheduled {
                return;
            }
            let due = refreshing.last.map(|last| last + REFRESH);
            let wait = due.and_then(|due| due.checked_duration_since(Instant::now()));
            refreshing.scheduled = wait.is_some();
            if wait.is_none() {
                refreshing.last = Some(Instant::now());
            }
            wait
        };
        match wait {
            None => self.send_tree().await,
            Some(wait) => {
                let files = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    *files.refreshing() = Refreshing { last: Some(Instant::now()), scheduled: false };
                    files.send_tree().await;
                });
            }
        }
    }

    async fn send_tree(self: &Arc<Self>) {
        let files = self.clone();
        let tree = tokio::task::spawn_blocking(move || {
            crate::tree::refresh(&files.root, &files.names, &files.exclude, "", "")
        });
        match tree.await {
            Ok(Ok(tree)) => {
                for client in self.presence.all() {
                    client.tell_newest("file:refresh", tree.clone());
                }
            }
            Ok(Err(trouble)) => tracing::warn!("the workspace can't be listed: {}", trouble.text),
            Err(_) => {}
        }
    }
}
