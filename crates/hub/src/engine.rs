//! The engine: tasks from submission to their one final state.

mod approvals;
mod args;
mod choose;
mod deliver;
mod finish;
mod folder;
mod machines;
mod names;
mod output;
mod recover;
mod retention;
mod revive;
mod submit;
mod sweep;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::auth::Auth;
use crate::events::{self, Logs};
use crate::fleet::{Fleet, Progress, ToRunner};
use crate::model::State;
use crate::pods::Pods;
use legwork_store::{Lane, Sqlite, Store, StoreError};

pub(crate) use approvals::{DecideError, Said};
pub(crate) use args::shown;
pub(crate) use deliver::message;
pub(crate) use finish::Ending;
pub(crate) use folder::lock;
pub(crate) use machines::check as check_change;
pub(crate) use names::{NameError, Seat};
pub(crate) use submit::SubmitError;
pub(crate) use tokens::NewToken;

/// What an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a runner may be away before what it has is lost, and how long it may take
    /// to report beyond a command's time limit. The default of 15 minutes covers the original's
    /// longest back-off of 300 s.
    pub grace: Duration,
    /// Most bytes that are kept of a stream of a run; the default is 64 MiB.
    pub max_output: u64,
    /// For how long tasks that are over are kept; the default is for ever.
    pub keep: Option<Duration>,
    /// How many bytes of events of tasks that are over are kept, the oldest go first; the default
    /// is any number.
    pub keep_bytes: Option<u64>,
    /// For how long people may think about what needs their yes, and for how long that is good; the
    /// default is 15 minutes. None at all: nobody is asked, and what needs a yes is denied.
    pub approval_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let quarter = Duration::from_secs(15 * 60);
        Self { grace: quarter, max_output: 64 << 20, keep: None, keep_bytes: None, approval_wait: quarter }
    }
}

/// Why a hub can't start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder can't be used.
    #[error("failed to open {}: {source}", path.display())]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// Why it could not be done.
        source: std::io::Error,
    },
    /// A part of the folder is not as a hub leaves it.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file or folder that is damaged or gone.
        path: PathBuf,
        /// What is wrong, and what can be done.
        why: String,
    },
    /// Another hub uses it.
    #[error("another hub is using {}", .0.display())]
    InUse(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) ended: [AtomicU64; State::ALL.len()],
    pub(crate) submitted: AtomicU64,
    pub(crate) output_bytes: AtomicU64,
}

impl Counters {
    fn count_end(&self, state: State) {
        if let Some(i) = State::ALL.iter().position(|s| *s == state) {
            self.ended[i].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A hub. Shared by all connections.
#[derive(Debug)]
pub struct Hub {
    pub(crate) data: PathBuf,
    /// Which hub this is, wherever it is reached.
    pub(crate) id: String,
    pub(crate) settings: Settings,
    /// Memory for what clients send.
    pub(crate) room: Arc<tokio::sync::Semaphore>,
    pub(crate) store: Arc<dyn Store>,
    /// Writes events of tasks.
    pub(crate) log: events::Writer,
    /// Where they are.
    pub(crate) logs: Arc<Logs>,
    pub(crate) auth: Auth,
    pub(crate) fleet: Fleet,
    pub(crate) counters: Counters,
    pub(crate) pods: Pods,
    /// The ids of approvals that are new, or stand otherwise than before.
    pub(crate) approvals: tokio::sync::broadcast::Sender<Arc<str>>,
    /// Repairs of old event files, one at a time.
    pub(crate) repairs: tokio::sync::Mutex<()>,
    _lock: std::fs::File,
}

impl Hub {
    /// Opens a hub on its data folder. On the first start an admin token is made;
    /// its file is returned.
    pub async fn open(data: &Path, settings: Settings) -> Result<(Arc<Self>, Option<PathBuf>), OpenError> {
        let lock = lock(data)?;
        folder::check(data)?;
        let store = Arc::new(Sqlite::open(&data.join("hub.db"), Lane::Threads)?);
        let hub = Self::put_together(data, settings, store, Lane::Threads, lock).await?;
        let first = if hub.auth.list().is_empty() { Some(hub.make_admin().await?) } else { None };
        tokio::spawn(hub.clone().sweep());
        Ok((hub, first))
    }

    /// A hub on a store, with all that was not over, before time does anything to it.
    pub(crate) async fn put_together(
        data: &Path,
        settings: Settings,
        store: Arc<dyn Store>,
        lane: Lane,
        lock: std::fs::File,
    ) -> Result<Arc<Self>, OpenError> {
        let approval_wait = settings.approval_wait.min(approvals::MOST_WAIT);
        let settings = Settings { approval_wait, ..settings };
        let in_folder = |what: &str| {
            let path = data.join(what);
            move |source| OpenError::Folder { path, source }
        };
        let id = folder::hub_id(data)?;
        let logs = Logs::open(data, lane).map_err(in_folder("events"))?;
        let pods = Pods::open(&*store, data, &logs).await?;
        let hub = Arc::new(Self {
            data: data.to_owned(),
            id,
            settings,
            room: Arc::new(tokio::sync::Semaphore::new(ROOM)),
            pods,
            store,
            log: events::Writer::start(lane).map_err(in_folder("events"))?,
            logs,
            auth: Auth::default(),
            fleet: Fleet::default(),
            counters: Counters::default(),
            approvals: tokio::sync::broadcast::Sender::new(approvals::MOST_BEHIND),
            repairs: tokio::sync::Mutex::default(),
            _lock: lock,
        });
        for (hash, token) in hub.store.tokens().await? {
            hub.auth.add(hash, token);
        }
        hub.recover().await?;
        hub.take_tokens_in().await;
        Ok(hub)
    }

    /// Follows a task's events, if it is not over.
    pub(crate) fn follow(&self, task_id: &str) -> Option<watch::Receiver<Progress>> {
        let dialled = self.fleet.lock().tasks.get(task_id).map(|task| task.progress.subscribe());
        dialled.or_else(|| self.pods.progress(task_id))
    }

    /// Tells every runner that this hub is leaving, and gives the words time to go.
    pub(crate) async fn close_runners(&self) {
        const LEAVE: Duration = Duration::from_secs(2);
        for runner in self.fleet.lock().runners.values() {
            if let Some(link) = &runner.link {
                let _ = link.sender.send(ToRunner::Close { code: 1001, reason: "the hub is shutting down" });
            }
        }
        let start = std::time::Instant::now();
        while start.elapsed() < LEAVE && self.fleet.lock().runners.values().any(|r| r.link.is_some()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Bytes of requests that are in memory at a time; who sends more waits.
const ROOM: usize = 256 << 20;

fn no_randomness(error: &std::io::Error) -> StoreError {
    StoreError::new(format!("no randomness for a new id: {error}"))
}
