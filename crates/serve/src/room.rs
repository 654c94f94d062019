//! The workspace that all clients share.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use legwork_workspace::Root;
use serde_json::json;
use tokio::sync::watch;

use crate::client::{Client, Joining, Payload, Rights, payload};
use crate::engine::Sessions;
use crate::engine::session::Session;
use crate::http::{Previews, Uploads};
use crate::metrics::Metrics;
use crate::paths::Names;
use crate::ports::Told;
use crate::requests::{self, Data};
use crate::settings::Settings;
use crate::storage::{Snapshots, StorageError, Store, Sync, SyncReport};
use crate::terminal::{Exit, Shells, Terminal, Terminals};
use crate::watching::{self, Watching};

/// How long a client may come back.
const RETURN: Duration = Duration::from_secs(120);
/// Trees are sent to all at most once in this time.
const REFRESH: Duration = Duration::from_millis(50);

/// A client in the room.
struct Present {
    client: Arc<Client>,
    session: Weak<Session>,
}

#[derive(Default)]
struct Clients {
    present: HashMap<u64, Present>,
    /// Those whose connection broke, by their private names, and until when they may
    /// come back.
    away: HashMap<String, (Arc<Client>, u64)>,
}

/// When trees were sent to all, and are to be.
#[derive(Default)]
struct Refreshing {
    last: Option<Instant>,
    scheduled: bool,
}

/// The shared workspace.
pub(crate) struct Room {
    pub(crate) settings: Settings,
    pub(crate) root: Arc<Root>,
    pub(crate) names: Names,
    pub(crate) sessions: Sessions,
    pub(crate) terminals: Terminals,
    pub(crate) metrics: Metrics,
    /// Held by who saves a file on condition that nobody else has.
    pub(crate) saving: Mutex<()>,
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) watching: Watching,
    pub(crate) uploads: Uploads,
    pub(crate) previews: Previews,
    pub(crate) ports_told: Told,
    /// Where the workspace is kept, if it is.
    pub(crate) sync: Option<Sync>,
    pub(crate) snapshots: Snapshots,
    own_port: u16,
    /// Whether the workspace is there yet.
    loaded: watch::Sender<bool>,
    clients: Mutex<Clients>,
    refreshing: Mutex<Refreshing>,
    next_id: AtomicU64,
    started: Instant,
    /// When a client was last there, or a terminal said something: milliseconds since the
    /// start.
    busy: AtomicU64,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("workspace", &self.names.configured).finish_non_exhaustive()
    }
}

/// Where snapshots of a workspace are if it is kept nowhere else.
fn snapshot_folder(state: &Path, root: &Path) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    state.join("workspaces").join(legwork_base::digest::name(root.as_os_str().as_bytes()))
}

/// Whether a client could join.
pub(crate) enum Join {
    Joined(Arc<Client>),
    Full,
}

impl Room {
    pub(crate) fn new(settings: Settings, shells: Arc<Shells>, own_port: u16) -> Result<Arc<Self>, String> {
        let root = Root::open(Path::new(&settings.workspace)).map_err(|e| e.to_string())?;
        let root = Arc::new(root);
        let names = Names::new(&settings.workspace, &root.path().to_string_lossy());
        let store = settings.storage.as_deref().map(|address| Store::open(address, &settings.storage_env));
        let store = store.transpose().map_err(|e| e.to_string())?;
        let exclude = &settings.storage_exclude;
        let kept = match &store {
            Some(store) => store.clone(),
            None => Store::folder(snapshot_folder(&settings.state, root.path())),
        };
        let snapshots = Snapshots::new(kept, root.clone(), exclude);
        let sync = store.map(|store| Sync::new(store, root.clone(), exclude));
        let networks = shells.networks.clone();
        Ok(Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = weak.clone();
            let on_exit = Arc::new(move |terminal: &Arc<Terminal>, exit: Exit| {
                if let Some(room) = weak.upgrade() {
                    room.terminal_ended(terminal, exit);
                }
            });
            let most = settings.max_terminals;
            let terminals = Terminals::new(
                shells,
                most,
                settings.terminal_timeout,
                settings.sandbox,
                settings.scrollback,
                on_exit,
            );
            Self {
                root,
                names,
                sessions: Sessions::default(),
                terminals,
                metrics: Metrics::default(),
                saving: Mutex::new(()),
                stopping: watch::Sender::new(false),
                watching: Watching::default(),
                uploads: Uploads::default(),
                previews: Previews::new(networks),
                ports_told: Told::default(),
                loaded: watch::Sender::new(sync.is_none()),
                sync,
                snapshots,
                own_port,
                clients: Mutex::default(),
                refreshing: Mutex::default(),
                next_id: AtomicU64::new(1),
                started: Instant::now(),
                busy: AtomicU64::new(0),
                settings,
            }
        }))
    }

    /// Milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that are connected.
    pub(crate) fn present(&self) -> Vec<Arc<Client>> {
        self.clients().present.values().map(|p| p.client.clone()).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.clients().present.len()
    }

    /// Lets a client in. What it sees first waits to be sent when this returns.
    pub(crate) fn join(&self, joining: &Joining, session: Option<&Arc<Session>>) -> Join {
        let client = Client::new(self.next_id.fetch_add(1, Ordering::Relaxed), joining);
        {
            let mut clients = self.clients();
            if clients.present.len() >= self.settings.max_connections {
                drop(clients);
                self.metrics.refused();
                return Join::Full;
            }
            let session = session.map(Arc::downgrade).unwrap_or_default();
            clients.present.insert(client.id, Present { client: client.clone(), session });
        }
        self.metrics.connected();
        self.touch();
        if self.is_loaded()
            && let Err(error) = self.terminals.main.ensure_started()
        {
            let said =
                json!({ "error": format!("cannot start shell: {error}"), "code": "terminal_unavailable" });
            client.answer("terminal:error", payload(&said));
        }
        self.show_main(&client, joining.replay);
        Join::Joined(client)
    }

    /// Shows the shared terminal to a client: what it has shown before, then what it does.
    pub(crate) fn show_main(&self, client: &Client, replay: bool) {
        let main = &self.terminals.main;
        client.detach(&main.id);
        let mut from = main.end();
        if replay && from > 0 {
            let (text, offset) = main.replay();
            client.answer("terminal:data", payload(&json!({ "data": text })));
            from = offset;
        }
        client.attach(main.clone(), from, false);
    }

    /// Lets a client come back that has got all up to `offset`, on a new session.
    pub(crate) fn come_back(
        &self,
        pid: &str,
        offset: &str,
        rights: Rights,
        session: &Arc<Session>,
    ) -> Option<Arc<Client>> {
        let offset: u64 = offset.parse().ok()?;
        let (client, old) = {
            let mut clients = self.clients();
            match clients.away.remove(pid) {
                Some((client, _)) => (client, None),
                None => {
                    // The connection it had has not been missed yet.
                    let found = clients.present.values().find(|p| p.client.pid.as_deref() == Some(pid));
                    let client = found?.client.clone();
                    let present = clients.present.remove(&client.id)?;
                    (client, present.session.upgrade())
                }
            }
        };
        if let Some(old) = old {
            old.give_way();
        }
        client.pause();
        let allowed = rights == Rights::Work || client.rights == rights;
        let has_place = self.connections() < self.settings.max_connections;
        if !allowed || !has_place || !client.resume(offset) {
            client.leave();
            return None;
        }
        let present = Present { client: client.clone(), session: Arc::downgrade(session) };
        self.clients().present.insert(client.id, present);
        self.metrics.recovered();
        self.tell_terminals();
        self.touch();
        Some(client)
    }

    /// A client's connection has ended.
    pub(crate) fn left(&self, client: &Arc<Client>, session: &Session, for_good: bool) {
        let mut clients = self.clients();
        let is_its = clients
            .present
            .get(&client.id)
            .is_some_and(|p| std::ptr::eq(p.session.as_ptr(), std::ptr::from_ref(session)));
        if !is_its {
            return;
        }
        clients.present.remove(&client.id);
        match &client.pid {
            Some(pid) if !for_good => {
                client.pause();
                let until = self.now_ms() + u64::try_from(RETURN.as_millis()).unwrap_or(u64::MAX);
                clients.away.insert(pid.clone(), (client.clone(), until));
                // Those that were away longest make place.
                while clients.away.len() > self.settings.max_connections {
                    let oldest =
                        clients.away.iter().min_by_key(|(_, (_, until))| *until).map(|(p, _)| p.clone());
                    if let Some((gone, _)) = oldest.and_then(|pid| clients.away.remove(&pid)) {
                        gone.leave();
                    }
                }
            }
            _ => client.leave(),
        }
        drop(clients);
        // Terminals may have another size without them.
        self.tell_terminals();
        self.touch();
    }

    pub(crate) fn left_plain(&self, client: &Arc<Client>) {
        self.clients().present.remove(&client.id);
        client.leave();
        self.tell_terminals();
        self.touch();
    }

    /// A client has said something.
    pub(crate) fn heard(&self, client: Option<&Arc<Client>>) {
        self.metrics.received();
        if client.is_some() {
            self.touch();
        }
    }

    fn touch(&self) {
        self.busy.store(self.now_ms(), Ordering::Relaxed);
    }

    /// How long nobody has been there.
    pub(crate) fn idle_for(&self) -> Duration {
        if self.connections() > 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.now_ms().saturating_sub(self.busy.load(Ordering::Relaxed)))
    }

    /// Takes a request. Returns when the client's next one may be read.
    pub(crate) async fn request(
        self: &Arc<Self>,
        client: &Arc<Client>,
        event: String,
        data: Data,
        ack: Option<u64>,
    ) {
        self.metrics.request();
        if !self.is_loaded() {
            let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await.map(drop);
        }
        requests::take(self, client, event, data, ack).await;
    }

    /// The port we listen on ourselves.
    pub(crate) fn own_port(&self) -> u16 {
        self.own_port
    }

    /// Whether the workspace is there; before, nobody works in it.
    pub(crate) fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
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
        if let Err(error) = self.terminals.main.ensure_started() {
            tracing::warn!("cannot start shell: {error}");
        }
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
        self.tell("storage:progress", &payload(&said), |c| c.watches.storage.load(Ordering::Relaxed));
        result
    }

    fn tell_progress(&self, phase: &str, done: u64, total: u64) {
        // A hundred steps are enough for a bar.
        let step = (total / 100).max(1);
        if done.is_multiple_of(step) || done == total {
            let said = payload(&json!({ "phase": phase, "done": done, "total": total }));
            self.tell("storage:progress", &said, |c| c.watches.storage.load(Ordering::Relaxed));
        }
    }

    /// Sends an event to all that want to hear of it.
    pub(crate) fn tell(&self, name: &'static str, said: &Payload, wants: impl Fn(&Client) -> bool) {
        for client in self.present() {
            if wants(&client) {
                client.tell(name, said.clone());
            }
        }
    }

    /// Sends the tree of the whole workspace to all: at once, or if that was done just
    /// now, in a moment.
    pub(crate) async fn refresh_all(self: &Arc<Self>) {
        let wait = {
            let mut refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
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
                let room = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    {
                        let mut refreshing = room.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
                        refreshing.scheduled = false;
                        refreshing.last = Some(Instant::now());
                    }
                    room.send_tree().await;
                });
            }
        }
    }

    async fn send_tree(self: &Arc<Self>) {
        let room = self.clone();
        let tree = tokio::task::spawn_blocking(move || {
            crate::tree::refresh(&room.root, &room.names, &room.settings.exclude, "", "")
        });
        match tree.await {
            Ok(Ok(tree)) => {
                for client in self.present() {
                    client.refresh(tree.clone());
                }
            }
            Ok(Err(trouble)) => tracing::warn!("the workspace can't be listed: {}", trouble.text),
            Err(_) => {}
        }
    }

    fn terminal_ended(&self, terminal: &Arc<Terminal>, exit: Exit) {
        let mut said = json!({ "code": exit.code });
        if !terminal.lasting {
            said["id"] = terminal.id.clone().into();
            said["timed_out"] = exit.timed_out.into();
        }
        let said = payload(&said);
        for client in self.present() {
            if client.looks_at().iter().any(|t| Arc::ptr_eq(t, terminal)) {
                client.tell("terminal:exit", said.clone());
            }
        }
        self.tell_terminals();
    }

    /// Tells those who asked for it which terminals there are.
    pub(crate) fn tell_terminals(&self) {
        let said = payload(&json!({ "terminals": requests::terminal_list(self) }));
        self.tell("terminal:list", &said, |c| c.watches.terminals.load(Ordering::Relaxed));
    }

    /// A client has changed what it wants to hear of.
    pub(crate) fn watched(self: &Arc<Self>, client: &Client) {
        if client.watches.files.load(Ordering::Relaxed) {
            watching::start(self);
        }
        if client.watches.ports.load(Ordering::Relaxed) {
            crate::ports::tell_now(self, client);
        }
        if client.watches.terminals.load(Ordering::Relaxed) {
            client.tell("terminal:list", payload(&json!({ "terminals": requests::terminal_list(self) })));
        }
    }

    /// What is to be done once a second.
    pub(crate) fn tick(&self) {
        let now = self.now_ms();
        for session in self.sessions.all() {
            session.tick(now);
        }
        let gone: Vec<_> = {
            let mut clients = self.clients();
            let late: Vec<String> = clients
                .away
                .iter()
                .filter(|(_, (_, until))| *until <= now)
                .map(|(pid, _)| pid.clone())
                .collect();
            late.iter().filter_map(|pid| clients.away.remove(pid)).collect()
        };
        for (client, _) in gone {
            client.leave();
        }
    }

    /// Says goodbye to all.
    pub(crate) fn say_goodbye(&self) {
        self.stopping.send_replace(true);
        for session in self.sessions.all() {
            session.say_goodbye();
        }
    }
}
