//! The engine: tasks from submission to their one final state.

mod args;
mod deliver;
mod finish;
mod recover;
mod submit;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::auth::{Auth, Token, hash};
use crate::clock::{now_ms, secret, sortable_id};
use crate::fleet::{Fleet, Runner, ToRunner};
use crate::model::{Role, State};
use crate::pods::Pods;
use crate::store::{Store, StoreError};

pub(crate) use args::shown;
pub(crate) use deliver::message;
pub(crate) use finish::Ending;
pub(crate) use submit::{NewTask, SubmitError};

/// How long a task of a runner that went away stays as it is before it is lost: it
/// covers the original's longest back-off of 300 s.
const GRACE: Duration = Duration::from_secs(15 * 60);
const SWEEP: Duration = Duration::from_secs(1);

/// Why a hub can't start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder can't be used.
    #[error("failed to open {}: {source}", path.display())]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
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
    pub(crate) store: Store,
    pub(crate) auth: Auth,
    pub(crate) fleet: Fleet,
    pub(crate) counters: Counters,
    pub(crate) pods: Pods,
    /// Repairs of old event files, one at a time.
    pub(crate) repairs: tokio::sync::Mutex<()>,
    _lock: std::fs::File,
}

impl Hub {
    /// Opens a hub on its data folder. On the first start an admin token is made;
    /// its file is returned.
    pub async fn open(data: &Path) -> Result<(Arc<Self>, Option<PathBuf>), OpenError> {
        use std::os::unix::fs::DirBuilderExt;
        let in_folder =
            |path: &Path, source: std::io::Error| OpenError::Folder { path: path.to_owned(), source };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data)
            .map_err(|e| in_folder(data, e))?;
        let lock_path = data.join("lock");
        let lock = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(|e| in_folder(&lock_path, e))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| OpenError::InUse(data.to_owned()))?;
        let store = Store::open(&data.join("hub.db"))?;
        let pods = Pods::open(&store, data).await?;
        let hub = Arc::new(Self {
            data: data.to_owned(),
            pods,
            store,
            auth: Auth::default(),
            fleet: Fleet::default(),
            counters: Counters::default(),
            repairs: tokio::sync::Mutex::default(),
            _lock: lock,
        });
        for (hash, token) in hub.store.read(Auth::load).await? {
            hub.auth.add(hash, token);
        }
        hub.recover().await?;
        let first = if hub.auth.list().is_empty() { Some(hub.make_admin().await?) } else { None };
        tokio::spawn(hub.clone().sweep());
        Ok((hub, first))
    }

    async fn make_admin(self: &Arc<Self>) -> Result<PathBuf, OpenError> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.data.join("admin.token");
        let failed = |source| OpenError::Folder { path: path.clone(), source };
        let secret = secret().map_err(failed)?;
        // The file first: a token nobody has would lock everybody out.
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(format!("{secret}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        self.add_token("admin".into(), Role::Admin, secret).await?;
        Ok(path)
    }

    /// Makes a token. A runner's token brings its runner with it.
    pub(crate) async fn new_token(
        self: &Arc<Self>,
        name: String,
        role: Role,
    ) -> Result<(Token, String), StoreError> {
        let secret = secret().map_err(|e| StoreError::from_random(&e))?;
        let token = self.add_token(name, role, secret.clone()).await?;
        Ok((token, secret))
    }

    async fn add_token(
        self: &Arc<Self>,
        name: String,
        role: Role,
        secret: String,
    ) -> Result<Token, StoreError> {
        let id = |prefix| sortable_id(prefix).map_err(|e| StoreError::from_random(&e));
        let runner_id = if role == Role::Runner { Some(id("wn")?) } else { None };
        let token = Token {
            id: id("tok")?,
            name: name.clone(),
            role,
            runner_id,
            created_at_ms: now_ms(),
            revoked: false,
        };
        let (stored, hash) = (token.clone(), hash(&secret));
        let stored_hash = hash.clone();
        // A runner is known, and can be given tasks, before it ever connects.
        let runner = token.runner_id.clone().map(|id| Runner::new(id, name));
        let runner_row = runner.clone();
        self.store
            .write(move |c| {
                Auth::insert(c, &stored_hash, &stored)?;
                runner_row.map_or(Ok(()), |runner| runner.store(c))
            })
            .await?;
        if let Some(runner) = runner {
            self.fleet.lock().runners.insert(runner.id.clone(), runner);
        }
        self.auth.add(hash, token.clone());
        Ok(token)
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

    /// Ends what time has overtaken.
    async fn sweep(self: Arc<Self>) {
        let grace = u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX);
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = now_ms();
            let mut over = Vec::new();
            {
                let fleet = self.fleet.lock();
                for run in fleet.runs.values().filter(|r| !r.closing) {
                    if run.state == State::Queued || run.unsent {
                        if run.task.expires_at_ms <= now {
                            over.push((run.id.clone(), Ending::expired()));
                        }
                        continue;
                    }
                    let gone = fleet
                        .runners
                        .get(&run.runner_id)
                        .is_none_or(|r| r.link.is_none() && r.offline_since_ms + grace <= now);
                    if gone {
                        over.push((run.id.clone(), Ending::lost("its runner did not come back in time")));
                    }
                }
            }
            for (run_id, ending) in over {
                self.finish(&run_id, ending, None).await;
            }
            self.sweep_pods().await;
        }
    }
}

impl StoreError {
    fn from_random(error: &std::io::Error) -> Self {
        Self::new(format!("no randomness for a new id: {error}"))
    }
}
