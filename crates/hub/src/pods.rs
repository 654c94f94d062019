//! Agents and workflows in pods: task runners that register by HTTP, ours and the original's
//! (docs/protocols/task.md §6 and §7).
//!
//! A task is given to one runner at a time, each time with a key of its own in the callback's
//! address: what a runner that was given up still sends is known by its old key.

mod assign;
mod messages;
mod stream;
mod submit;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::Connection;
use serde_json::Value;
use tokio::sync::watch;

use crate::auth::hash;
use crate::clock::{now_ms, secret, steady_ms};
use crate::engine::Hub;
use crate::events::{self, Kind, Log};
use crate::fleet::Progress;
use crate::model::State;
use crate::store::{Store, StoreError};

pub(crate) use assign::RegisterError;
pub(crate) use messages::{MessageError, NewMessage, NewPart, Patch, caller_session};
pub(crate) use stream::StreamError;
pub(crate) use submit::{page, view};

/// A runner that was silent for so long is given no work; if it sends heartbeats, it is gone.
const STALE_MS: u64 = 60_000;
/// The original sends none: its pod ends after an hour at the latest.
const POD_DEADLINE_MS: u64 = 3_660_000;
/// A task that did nothing yet is given out so often; one of which nothing was heard, more
/// often: it may never have arrived.
const MAX_ATTEMPTS: u32 = 3;
const MAX_UNHEARD: u32 = 10;
/// The name of runners that have none: any number of them.
const NAMELESS: &str = "unknown";

/// Where runners reach us.
#[derive(Debug, Clone, Default)]
pub(crate) struct Front {
    /// As the operator says.
    pub(crate) public_url: Option<String>,
    pub(crate) tls: bool,
    /// Only this machine reaches us.
    pub(crate) loopback: bool,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Pods {
    live: Mutex<Live>,
    /// Counts what may give a waiting runner work.
    wake: watch::Sender<u64>,
    pub(crate) front: OnceLock<Front>,
    /// What runners show to register.
    internal: String,
}

#[derive(Debug, Default)]
struct Live {
    runners: HashMap<String, PodRunner>,
    /// Tasks that are not over, by id.
    tasks: BTreeMap<u32, LiveTask>,
    /// Those of them that can't be taken up again, and why.
    unreadable: Vec<(u32, String)>,
}

/// A task runner.
#[derive(Debug, Clone)]
pub(crate) struct PodRunner {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) ip: String,
    /// Empty for the original.
    pub(crate) version: String,
    pub(crate) capabilities: Vec<String>,
    /// By the steady clock.
    pub(crate) seen_ms: u64,
    /// What it works on.
    pub(crate) task: Option<u32>,
}

impl PodRunner {
    /// When it was seen, by the wall's clock.
    pub(crate) fn seen_at_ms(&self) -> u64 {
        now_ms().saturating_sub(steady_ms().saturating_sub(self.seen_ms))
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.seen_ms + STALE_MS < steady_ms()
    }

    /// Whether its silence means something.
    fn beats(&self) -> bool {
        // Of the nameless nobody knows whose sign of life it is.
        !self.version.is_empty() && self.name != NAMELESS
    }
}

/// A task that is not over.
#[derive(Debug)]
struct LiveTask {
    kind: String,
    /// Only our runners can: the original takes a workflow of jobs for one without steps, and
    /// says that it succeeded.
    needs_ours: bool,
    /// Only this runner may have it.
    wanted: Option<String>,
    session_id: Option<String>,
    state: State,
    runner: Option<String>,
    /// Hash of the key that its events carry.
    key: Option<String>,
    /// Hashes of keys that were good once.
    old_keys: Vec<String>,
    attempts: u32,
    /// When it was given out, or an event of it came; this and its expiry by the steady clock.
    heard_ms: u64,
    expires_at_ms: u64,
    /// An event of this assignment has come.
    has_begun: bool,
    /// It may have changed something.
    has_effects: bool,
    /// That is on disk.
    is_noted: bool,
    /// A step of it did not succeed.
    has_failed_step: bool,
    cancel: bool,
    /// It is being ended.
    closing: bool,
    log: Log,
    progress: watch::Sender<Progress>,
    last: Vec<u8>,
}

impl LiveTask {
    /// Adds an event and makes it readable.
    fn tell(&mut self, kind: Kind, payload: &[u8]) -> std::io::Result<()> {
        self.log.add(kind, 0, 0, payload);
        let len = self.log.flush()?;
        self.progress.send_replace(Progress { len, over: kind == Kind::End });
        Ok(())
    }

    /// Tells who looks on what happens to the task itself.
    fn tell_state(&mut self, state: State, message: &str) {
        let event = state_event(&Some(state.as_str()), Some(message), self.runner.as_deref());
        let kind = if state.is_final() { Kind::End } else { Kind::State };
        if let Err(error) = self.tell(kind, event.as_bytes()) {
            tracing::error!("failed to write a task's events: {error}");
        }
    }
}

/// What happened to a task itself, as an event.
fn state_event(state: &impl serde::Serialize, message: Option<&str>, runner: Option<&str>) -> String {
    let message = message.unwrap_or_default();
    serde_json::json!({
        "type": "state", "state": state, "message": message, "runner": runner, "at_ms": now_ms(),
    })
    .to_string()
}

/// A task's config, wherever it stands, of `pod_tasks`.
const CONFIG: &str =
    "iif(config = '', (SELECT body FROM payloads WHERE payloads.id = 'pod-' || pod_tasks.id), config)";

/// Where a large config stands.
fn payload_id(id: u32) -> String {
    format!("pod-{id}")
}

/// The file of a task's events.
pub(crate) fn events_path(data: &Path, id: u32) -> PathBuf {
    events::path(data, &format!("pod-{id:010}"))
}

impl Pods {
    /// Reads what is stored.
    pub(crate) async fn open(store: &Store, data: &Path) -> Result<Self, StoreError> {
        let internal = internal_token(data).map_err(|e| StoreError::new(format!("internal.token: {e}")))?;
        let folder = data.to_owned();
        let live = store.read(move |c| load(c, &folder)).await?;
        Ok(Self { live: Mutex::new(live), wake: watch::Sender::new(0), front: OnceLock::new(), internal })
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.wake.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether somebody may act as a runner.
    pub(crate) fn admits(&self, shown: &str) -> bool {
        // Hashes take the same time however much of them is alike.
        hash(shown) == hash(&self.internal)
    }

    /// What a runner shows, for the address it registers at.
    pub(crate) fn internal_token(&self) -> &str {
        &self.internal
    }

    /// All runners.
    pub(crate) fn runners(&self) -> Vec<PodRunner> {
        let mut runners: Vec<PodRunner> = self.lock().runners.values().cloned().collect();
        runners.sort_by(|a, b| a.name.cmp(&b.name));
        runners
    }

    /// Follows a task's events, if it is not over.
    pub(crate) fn progress(&self, id: u32) -> Option<watch::Receiver<Progress>> {
        self.lock().tasks.get(&id).map(|task| task.progress.subscribe())
    }
}

/// Made on the first start, for as long as the hub lives.
fn internal_token(data: &Path) -> std::io::Result<String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = data.join("internal.token");
    match std::fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => return Ok(token.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let token = secret()?;
    let temporary = data.join("internal.token.new");
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    Ok(token)
}

fn load(c: &Connection, data: &Path) -> rusqlite::Result<Live> {
    let mut live = Live::default();
    let mut statement =
        c.prepare("SELECT id, name, ip, version, capabilities, seen_at_ms FROM pod_runners")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let capabilities: String = row.get(4)?;
        let runner = PodRunner {
            id: row.get(0)?,
            name: row.get(1)?,
            ip: row.get(2)?,
            version: row.get(3)?,
            capabilities: serde_json::from_str(&capabilities).unwrap_or_default(),
            seen_ms: unsigned(row.get(5)?),
            task: None,
        };
        live.runners.insert(runner.name.clone(), runner);
    }
    let mut statement = c.prepare(&format!(
        "SELECT id, kind, wanted, session_id, state, runner, key, attempts, assigned_at_ms, expires_at_ms,
             has_effects, cancel, {CONFIG} FROM pod_tasks WHERE finished_at_ms IS NULL ORDER BY id"
    ))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: u32 = row.get(0)?;
        let state: String = row.get(4)?;
        let (mut last, mut has_begun, mut has_failed_step) = (Vec::new(), false, false);
        let log = Log::reopen(events_path(data, id), |frame| {
            let event: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
            has_begun = event["type"] != "state";
            last.clear();
            if has_begun {
                has_failed_step |= stream::is_failed_step(&event);
                last.clone_from(&frame.payload);
            }
        });
        // What can't be taken up again must not keep the rest from it: it is ended at once.
        let unreadable = log.as_ref().err().map(|e| format!("the hub can't open the task's events: {e}"));
        let log = log.unwrap_or_else(|_| Log::new(events_path(data, id)));
        let parsed = State::parse(&state);
        let unreadable = unreadable
            .or_else(|| parsed.is_none().then(|| format!("the hub does not know the state '{state}'")));
        live.unreadable.extend(unreadable.map(|why| (id, why)));
        let runner: Option<String> = row.get(5)?;
        let has_effects = row.get(10)?;
        let kind: String = row.get(1)?;
        let config: String = row.get(12)?;
        let task = LiveTask {
            needs_ours: submit::needs_ours(&kind, &config),
            kind,
            wanted: row.get(2)?,
            session_id: row.get(3)?,
            state: parsed.unwrap_or(State::Running),
            key: row.get(6)?,
            old_keys: Vec::new(),
            attempts: row.get(7)?,
            heard_ms: unsigned(row.get::<_, Option<i64>>(8)?.unwrap_or(0)),
            expires_at_ms: unsigned(row.get(9)?),
            has_begun,
            has_effects,
            is_noted: has_effects,
            has_failed_step,
            cancel: row.get(11)?,
            closing: false,
            log,
            progress: watch::Sender::default(),
            last,
            runner: runner.clone(),
        };
        if let Some(runner) = runner.and_then(|name| live.runners.get_mut(&name)) {
            runner.task = Some(id);
            // It gets its time to come back to the hub.
            runner.seen_ms = steady_ms();
        }
        live.tasks.insert(id, task);
    }
    Ok(live)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The end of a task.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) state: State,
    pub(crate) error: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) usage: Option<String>,
}

impl End {
    pub(crate) fn new(state: State, error: Option<&str>) -> Self {
        Self { state, error: error.map(str::to_owned), code: None, usage: None }
    }
}

impl Hub {
    /// Ends a task: on disk first, then told. The first end counts.
    pub(crate) async fn finish_pod_task(self: &Arc<Self>, id: u32, end: End) -> Result<(), StoreError> {
        // It goes on if the one who asked goes away: half done it would be done never.
        let hub = self.clone();
        let done = tokio::spawn(async move { hub.end_pod_task(id, end).await }).await;
        done.map_err(|e| StoreError::new(e.to_string()))?
    }

    async fn end_pod_task(self: &Arc<Self>, id: u32, end: End) -> Result<(), StoreError> {
        {
            let mut live = self.pods.lock();
            match live.tasks.get_mut(&id) {
                Some(task) if !task.closing => task.closing = true,
                _ => return Ok(()),
            }
        }
        let row = end.clone();
        let written = self
            .store
            .write(move |c| {
                c.prepare_cached(
                    "UPDATE pod_tasks SET state = ?2, error = ?3, code = ?4, usage = ?5, finished_at_ms = ?6, key = NULL
                     WHERE id = ?1",
                )?
                .execute(rusqlite::params![
                    id,
                    row.state.as_str(),
                    row.error,
                    row.code,
                    row.usage,
                    signed(now_ms())
                ])
            })
            .await;
        let mut live = self.pods.lock();
        if let Err(error) = written {
            if let Some(task) = live.tasks.get_mut(&id) {
                task.closing = false;
            }
            return Err(error);
        }
        if let Some(mut task) = live.tasks.remove(&id) {
            if let Some(runner) = task.runner.clone().and_then(|name| live.runners.get_mut(&name)) {
                runner.task = runner.task.filter(|current| *current != id);
            }
            task.tell_state(end.state, end.error.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    /// Adds the end to the events of a task that is over, if the hub went down before it was
    /// told: who follows them waits for it.
    pub(crate) async fn repair_pod_events(&self, id: u32) -> Result<(), StoreError> {
        let _one_at_a_time = self.repairs.lock().await;
        let path = events_path(&self.data, id);
        self.store
            .read(move |c| {
                let mut ended = false;
                let log = Log::reopen(path, |frame| ended |= frame.kind == Kind::End);
                let failed = |e: std::io::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(e));
                let mut log = log.map_err(failed)?;
                if ended {
                    return Ok(());
                }
                let sql =
                    "SELECT state, error, runner FROM pod_tasks WHERE id = ?1 AND finished_at_ms IS NOT NULL";
                let mut statement = c.prepare_cached(sql)?;
                let mut rows = statement.query([id])?;
                let Some(row) = rows.next()? else { return Ok(()) };
                let text = |i: usize| row.get::<_, Option<String>>(i);
                let event = state_event(&text(0)?, text(1)?.as_deref(), text(2)?.as_deref());
                log.add(Kind::End, 0, 0, event.as_bytes());
                log.flush().map(|_| ()).map_err(failed)
            })
            .await
    }

    /// Ends what time has overtaken: to be called every now and then.
    pub(crate) async fn sweep_pods(self: &Arc<Self>) {
        let unreadable = std::mem::take(&mut self.pods.lock().unreadable);
        for (id, why) in unreadable {
            tracing::error!(task = id, "a task is lost: {why}");
            if self.finish_pod_task(id, End::new(State::Lost, Some(&why))).await.is_err() {
                self.pods.lock().unreadable.push((id, why));
            }
        }
        let now = steady_ms();
        let (mut gone, mut expired) = (Vec::new(), Vec::new());
        {
            let live = self.pods.lock();
            for (id, task) in live.tasks.iter().filter(|(_, task)| !task.closing) {
                if task.state == State::Queued {
                    if task.expires_at_ms <= now {
                        expired.push(*id);
                    }
                    continue;
                }
                let runner = task.runner.as_ref().and_then(|name| live.runners.get(name));
                let is_gone = runner.is_none_or(|runner| match runner.beats() {
                    true => runner.is_stale(),
                    false => task.heard_ms + POD_DEADLINE_MS < now,
                });
                if is_gone {
                    gone.push(*id);
                }
            }
        }
        for id in expired {
            let end = End::new(State::Expired, Some("no task runner took it in time"));
            let _ = self.finish_pod_task(id, end).await;
        }
        for id in gone {
            let _ = self.give_up(id, "its runner fell silent").await;
        }
    }
}
