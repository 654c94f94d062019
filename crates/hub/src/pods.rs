//! Agents and workflows in pods: task runners that register by HTTP, ours and the original's
//! (docs/protocols/task.md §6 and §7).
//!
//! A task is given to one runner at a time, each time with a key of its own in the callback's
//! address: what a runner that was given up still sends is known by its old key.

mod assign;
mod input;
mod memory;
mod messages;
mod named;
mod stale;
mod stream;
mod submit;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use legwork_store::{OpenRun, PoolRunner, Store, StoreError, Task, done};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::auth::hash;
use crate::clock::{now_ms, secret, steady_ms};
use crate::engine::{Ending, Hub};
use crate::events::{Kind, Log, Logs};
use crate::fleet::Progress;
use crate::model::State;
use crate::secrets::Bounds;

pub(crate) use assign::RegisterError;
pub(crate) use input::TellError;
pub(crate) use memory::MAX_SESSION;
pub(crate) use messages::{MessageError, NewMessage, NewPart, Patch, caller_session};
pub(crate) use stream::StreamError;
pub(crate) use submit::view;

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
    /// What people say to tasks.
    inputs: input::Inputs,
    trees: named::Trees,
    /// Since when anybody could be heard, by the steady clock.
    opened_ms: u64,
}

#[derive(Debug, Default)]
struct Live {
    runners: HashMap<String, PodRunner>,
    /// Tasks that are not over, by id.
    tasks: BTreeMap<u32, LiveTask>,
    /// Numbers by the ids of tasks.
    numbers: HashMap<String, u32>,
    /// Those of them that can't be taken up again, and why.
    unreadable: Vec<(u32, String)>,
}

impl Live {
    fn add(&mut self, id: u32, task: LiveTask) {
        self.numbers.insert(task.task_id.clone(), id);
        self.tasks.insert(id, task);
    }

    fn remove(&mut self, id: u32) -> Option<LiveTask> {
        let task = self.tasks.remove(&id)?;
        self.numbers.remove(&task.task_id);
        Some(task)
    }
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
    fn of(row: PoolRunner) -> Self {
        Self {
            id: row.id,
            name: row.name,
            ip: row.ip,
            version: row.version,
            capabilities: row.capabilities,
            seen_ms: row.seen_at_ms,
            task: None,
        }
    }

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
    task_id: String,
    run_id: String,
    kind: String,
    /// Only our runners can: the original takes a workflow of jobs for one without steps, and
    /// says that it succeeded.
    needs_ours: bool,
    /// Only this runner may have it.
    wanted: Option<String>,
    session_id: Option<String>,
    /// What of the hub's its runner may have.
    named: named::Named,
    /// Who submitted it.
    by: Submitter,
    /// Whom its secrets, and those of its session, are for.
    bounds: Bounds,
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
    /// When it was given out last, by the steady clock, and the seconds it may take from there.
    given_ms: u64,
    timeout_s: u64,
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

/// Who submitted a task, as far as others' secrets go.
#[derive(Debug, Clone)]
struct Submitter {
    name: String,
    is_admin: bool,
}

/// What is stored of whom a task is for.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Selection {
    /// Only this runner may have it.
    runner: Option<String>,
    #[serde(default)]
    by_admin: bool,
    #[serde(default)]
    bounds: Bounds,
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
        let event = state_event(&self.run_id, state, Some(message), self.runner.as_deref());
        let kind = if state.is_final() { Kind::End } else { Kind::State };
        if let Err(error) = self.tell(kind, event.as_bytes()) {
            tracing::error!("failed to write a task's events: {error}");
        }
    }
}

/// What happened to a task itself, as an event.
fn state_event(run: &str, state: State, message: Option<&str>, runner: Option<&str>) -> String {
    let message = message.unwrap_or_default();
    serde_json::json!({
        "type": "state", "run": run, "state": state, "message": message, "runner": runner, "at_ms": now_ms(),
    })
    .to_string()
}

impl Pods {
    /// Reads what is stored.
    pub(crate) async fn open(store: &dyn Store, data: &Path, logs: &Arc<Logs>) -> Result<Self, StoreError> {
        let internal = internal_token(data).map_err(|e| StoreError::new(format!("internal.token: {e}")))?;
        let live = load(store, logs).await?;
        Ok(Self {
            live: Mutex::new(live),
            wake: watch::Sender::new(0),
            front: OnceLock::new(),
            internal,
            inputs: input::Inputs::default(),
            trees: named::Trees::default(),
            opened_ms: steady_ms(),
        })
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
    pub(crate) fn progress(&self, task_id: &str) -> Option<watch::Receiver<Progress>> {
        let live = self.lock();
        let id = live.numbers.get(task_id)?;
        live.tasks.get(id).map(|task| task.progress.subscribe())
    }

    /// The number of a task that is not over.
    pub(crate) fn number_of(&self, task_id: &str) -> Option<u32> {
        self.lock().numbers.get(task_id).copied()
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

async fn load(store: &dyn Store, logs: &Arc<Logs>) -> Result<Live, StoreError> {
    let mut live = Live::default();
    for row in store.pool_runners().await? {
        let runner = PodRunner::of(row);
        live.runners.insert(runner.name.clone(), runner);
    }
    for run in store.open_runs().await? {
        let Some(id) = run.number else { continue };
        let task = live_task(store, logs, run, &mut live.unreadable).await?;
        if let Some(runner) = task.runner.as_ref().and_then(|name| live.runners.get_mut(name)) {
            runner.task = Some(id);
            // It gets its time to come back to the hub.
            runner.seen_ms = steady_ms();
        }
        live.add(id, task);
    }
    Ok(live)
}

/// A task that was not over, with what its events tell.
async fn live_task(
    store: &dyn Store,
    logs: &Arc<Logs>,
    run: OpenRun,
    unreadable: &mut Vec<(u32, String)>,
) -> Result<LiveTask, StoreError> {
    let (mut last, mut has_begun, mut has_failed_step) = (Vec::new(), false, false);
    let log = Log::reopen(logs.clone(), &run.task_id, |frame| {
        let event: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        has_begun = event["type"] != "state";
        last.clear();
        if has_begun {
            has_failed_step |= stream::is_failed_step(&event);
            last.clone_from(&frame.payload);
        }
    });
    // What can't be taken up again must not keep the rest from it: it is ended at once.
    let why = match (&log, run.state) {
        (Err(error), _) => Some(format!("the hub can't open the task's events: {error}")),
        (_, None) => Some("the hub does not know the state that is stored of it".to_owned()),
        _ => None,
    };
    unreadable.extend(run.number.zip(why));
    let config = match run.args.is_empty() {
        true => store.arguments(run.task_id.clone()).await?,
        false => run.args,
    };
    let selection: Selection = serde_json::from_str(&run.selection).unwrap_or_default();
    Ok(LiveTask {
        needs_ours: submit::needs_ours(&run.operation, &config),
        named: named::Named::of(&config),
        log: log.unwrap_or_else(|_| Log::new(logs.clone(), &run.task_id)),
        task_id: run.task_id,
        run_id: run.id,
        kind: run.operation,
        wanted: selection.runner,
        by: Submitter { name: run.created_by, is_admin: selection.by_admin },
        bounds: selection.bounds,
        session_id: run.session_id,
        state: run.state.unwrap_or(State::Running),
        key: run.key,
        old_keys: Vec::new(),
        attempts: run.attempts,
        heard_ms: run.delivered_at_ms.unwrap_or(0),
        expires_at_ms: run.expires_at_ms,
        // Times count from now: its runner could not reach us before.
        given_ms: steady_ms(),
        timeout_s: run.timeout_s,
        has_begun,
        is_noted: run.has_effects,
        has_effects: run.has_effects,
        has_failed_step,
        cancel: run.cancel_requested,
        closing: false,
        progress: watch::Sender::default(),
        last,
        runner: Some(run.runner_name).filter(|name| !name.is_empty()),
    })
}

impl Hub {
    /// Ends a task: on disk first, then told. The first end counts.
    pub(crate) async fn finish_pod_task(self: &Arc<Self>, id: u32, end: Ending) -> Result<(), StoreError> {
        // It goes on if the one who asked goes away: half done it would be done never.
        let hub = self.clone();
        let done = tokio::spawn(async move { hub.end_pod_task(id, end).await }).await;
        done.map_err(|e| StoreError::new(e.to_string()))?
    }

    async fn end_pod_task(self: &Arc<Self>, id: u32, ending: Ending) -> Result<(), StoreError> {
        let run_id = {
            let mut live = self.pods.lock();
            match live.tasks.get_mut(&id) {
                Some(task) if !task.closing => {
                    task.closing = true;
                    task.run_id.clone()
                }
                _ => return Ok(()),
            }
        };
        let end = ending.0.clone();
        let written = done(|then| self.store.finish(run_id, end, now_ms(), then)).await;
        let mut live = self.pods.lock();
        if let Err(error) = written {
            if let Some(task) = live.tasks.get_mut(&id) {
                task.closing = false;
            }
            return Err(error);
        }
        if let Some(mut task) = live.remove(id) {
            if let Some(runner) = task.runner.clone().and_then(|name| live.runners.get_mut(&name)) {
                runner.task = runner.task.filter(|current| *current != id);
            }
            task.tell_state(ending.0.state, ending.0.error.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    /// Adds the end to the events of a task that is over, if the hub went down before it was
    /// told: who follows them waits for it.
    pub(crate) async fn repair_pod_events(&self, task: Task) -> Result<(), StoreError> {
        let (logs, id) = (self.logs.clone(), task.id);
        let Some(run) = task.runs.into_iter().next().filter(|run| run.state.is_final()) else {
            return Ok(());
        };
        let failed = |e: std::io::Error| StoreError::new(format!("the task's events can't be repaired: {e}"));
        // Nearly always it is whole: nobody waits for others to see that.
        let (looked, looking) = (logs.clone(), id.clone());
        let ended = tokio::task::spawn_blocking(move || looked.is_ended(&looking, None)).await;
        if ended.map_err(std::io::Error::other).flatten().map_err(failed)? {
            return Ok(());
        }
        let _one_at_a_time = self.repairs.lock().await;
        let repaired = tokio::task::spawn_blocking(move || {
            let mut ended = false;
            let mut log = Log::reopen(logs, &id, |frame| ended |= frame.kind == Kind::End)?;
            if !ended {
                let runner = Some(run.runner_name.as_str()).filter(|name| !name.is_empty());
                let event = state_event(&run.id, run.state, run.error.as_deref(), runner);
                log.add(Kind::End, 0, 0, event.as_bytes());
                log.flush()?;
            }
            Ok::<_, std::io::Error>(())
        });
        repaired.await.map_err(std::io::Error::other).flatten().map_err(failed)
    }

    /// Ends what time has overtaken: to be called every now and then.
    pub(crate) async fn sweep_pods(self: &Arc<Self>) {
        let unreadable = std::mem::take(&mut self.pods.lock().unreadable);
        for (id, why) in unreadable {
            tracing::error!(task = id, "a task is lost: {why}");
            if self.finish_pod_task(id, Ending::new(State::Lost, Some(&why))).await.is_err() {
                self.pods.lock().unreadable.push((id, why));
            }
        }
        let now = steady_ms();
        let grace_ms = u64::try_from(self.settings.grace.as_millis()).unwrap_or(u64::MAX);
        let (mut gone, mut expired, mut late) = (Vec::new(), Vec::new(), Vec::new());
        {
            let live = self.pods.lock();
            for (id, task) in live.tasks.iter().filter(|(_, task)| !task.closing) {
                if task.state == State::Queued {
                    if task.expires_at_ms <= now {
                        expired.push((*id, task.bounds.runners_told()));
                    }
                    continue;
                }
                if task.given_ms.saturating_add(task.timeout_s * 1000).saturating_add(grace_ms) <= now {
                    late.push((*id, task.timeout_s));
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
        for (id, bound) in expired {
            let bound = bound.map(|told| format!(": the secret {told}")).unwrap_or_default();
            let end = Ending::new(State::Expired, Some(&format!("no task runner took it in time{bound}")));
            let _ = self.finish_pod_task(id, end).await;
        }
        for (id, limit) in late {
            let why = format!("it did not end within its time limit of {limit} s");
            let _ = self.finish_pod_task(id, Ending::new(State::TimedOut, Some(&why))).await;
        }
        for id in gone {
            let _ = self.give_up(id, "its runner fell silent").await;
        }
        self.forget_silent_runners().await;
    }
}
