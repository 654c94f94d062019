//! What is live: runners with their connections, and tasks that are not over.

mod index;

use legwork_proto::dialout::TaskResult;
use legwork_store::RunnerRow;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::{Instant, now_ms};
use crate::events::{Kind, Log};
use crate::model::State;

use index::Index;
pub(crate) use index::Named;

/// To a runner's connection.
#[derive(Debug)]
pub(crate) enum ToRunner {
    Text(String),
    /// A run to carry out, by its id: its arguments are fetched when it is written, so that
    /// what waits costs nothing.
    Request(String),
    /// Runs wait to be handed over.
    Deliver,
    /// Ping; the answer is that a pong came.
    Probe(oneshot::Sender<()>),
    Close {
        code: u16,
        reason: &'static str,
    },
}

/// A runner's live connection.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) sender: mpsc::UnboundedSender<ToRunner>,
    /// The first heartbeat has come: what follows is known.
    pub(crate) ready: bool,
    pub(crate) ack: bool,
    /// It streams output.
    pub(crate) output: bool,
}

impl Link {
    /// Queues a message; a connection that is gone loses nothing that matters.
    pub(crate) fn send(&self, text: String) {
        let _ = self.sender.send(ToRunner::Text(text));
    }
}

/// A runner, connected or not.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The credential that it belongs to.
    pub(crate) token_id: String,
    /// What its credential was made for: nobody else is called that. Empty for one of a fleet.
    pub(crate) given_name: String,
    /// What people call it.
    pub(crate) display_name: Option<String>,
    /// What it says of itself.
    pub(crate) own_labels: Vec<String>,
    /// What was set here.
    pub(crate) set_labels: Vec<String>,
    /// What it says and what was set here, together: by these it is chosen.
    pub(crate) labels: Vec<String>,
    /// It is given no new work.
    pub(crate) drained: bool,
    /// Its credential is good no more.
    pub(crate) revoked: bool,
    pub(crate) version: String,
    pub(crate) environment: Option<serde_json::Value>,
    pub(crate) metrics: Option<serde_json::Value>,
    /// Empty for the original, which has none to tell.
    pub(crate) boot_id: String,
    pub(crate) created_at_ms: u64,
    pub(crate) last_seen_ms: u64,
    pub(crate) link: Option<Link>,
    /// Since when there is no connection.
    pub(crate) offline_since: Instant,
    /// When a run of it ended last.
    pub(crate) last_end: Option<Instant>,
    /// Whether it acknowledges what it is given; known since its last connection.
    pub(crate) acks: bool,
    /// Runs that are not over, oldest first.
    pub(crate) open: BTreeSet<String>,
}

impl Runner {
    /// A runner that never connected.
    pub(crate) fn new(id: String, name: String, token_id: String) -> Self {
        Self {
            id,
            name,
            token_id,
            given_name: String::new(),
            display_name: None,
            own_labels: Vec::new(),
            set_labels: Vec::new(),
            labels: Vec::new(),
            drained: false,
            revoked: false,
            version: String::new(),
            environment: None,
            metrics: None,
            boot_id: String::new(),
            created_at_ms: now_ms(),
            last_seen_ms: 0,
            link: None,
            offline_since: Instant::now(),
            last_end: None,
            acks: false,
            open: BTreeSet::new(),
        }
    }

    /// Puts the labels together.
    pub(crate) fn join_labels(&mut self) {
        self.labels.clone_from(&self.own_labels);
        for label in &self.set_labels {
            if !self.labels.contains(label) {
                self.labels.push(label.clone());
            }
        }
    }

    /// What is kept of the runner, so that it can be chosen while it is away.
    pub(crate) fn row(&self) -> RunnerRow {
        RunnerRow {
            id: self.id.clone(),
            name: self.name.clone(),
            labels: self.own_labels.clone(),
            version: self.version.clone(),
            environment: self.environment.as_ref().map(serde_json::Value::to_string),
            boot_id: self.boot_id.clone(),
            created_at_ms: self.created_at_ms,
            last_seen_ms: self.last_seen_ms,
            token_id: self.token_id.clone(),
            display_name: self.display_name.clone(),
            set_labels: self.set_labels.clone(),
            drained: self.drained,
            given_name: self.given_name.clone(),
        }
    }

    /// A runner as it was kept, which is not connected.
    pub(crate) fn of(row: RunnerRow) -> Self {
        let mut runner = Self {
            own_labels: row.labels,
            set_labels: row.set_labels,
            version: row.version,
            environment: row.environment.and_then(|e| serde_json::from_str(&e).ok()),
            // Only ours have a boot to tell.
            acks: !row.boot_id.is_empty(),
            boot_id: row.boot_id,
            created_at_ms: row.created_at_ms,
            last_seen_ms: row.last_seen_ms,
            display_name: row.display_name,
            drained: row.drained,
            given_name: row.given_name,
            ..Self::new(row.id, row.name, row.token_id)
        };
        runner.join_labels();
        runner
    }
}

/// How far a task's events reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub(crate) len: u64,
    pub(crate) over: bool,
}

/// A task with a run that is not over.
#[derive(Debug)]
pub(crate) struct LiveTask {
    pub(crate) id: String,
    pub(crate) operation: String,
    /// As sent to runners.
    pub(crate) args: Args,
    /// Seconds that its command may take.
    pub(crate) timeout_s: u64,
    /// Until when it waits for a runner; by a clock that can't jump.
    pub(crate) expires: Instant,
    /// Who asked, as runners are told.
    pub(crate) requester: Option<Requester>,
    /// Why, in the words of who asked.
    pub(crate) reason: Option<String>,
    log: Mutex<Log>,
    pub(crate) progress: watch::Sender<Progress>,
    open: AtomicUsize,
}

/// Everything a live task is made of.
pub(crate) struct NewLiveTask {
    pub(crate) id: String,
    pub(crate) operation: String,
    pub(crate) args: Args,
    pub(crate) timeout_s: u64,
    pub(crate) expires: Instant,
    pub(crate) requester: Option<Requester>,
    pub(crate) reason: Option<String>,
    pub(crate) log: Log,
    /// How many of its runs are not over.
    pub(crate) open: usize,
}

#[derive(Serialize)]
struct StateEvent<'a> {
    run: &'a str,
    runner: &'a str,
    state: State,
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<&'a str>,
}

/// A state event's JSON.
pub(crate) fn state_event(
    run: &str,
    runner: &str,
    state: State,
    at_ms: u64,
    exit_code: Option<i32>,
    error: Option<&str>,
    suggestion: Option<&str>,
) -> Vec<u8> {
    // A plain struct always serialises.
    serde_json::to_vec(&StateEvent {
        run,
        runner,
        state,
        at_ms,
        exit_code,
        error,
        suggestion,
        approval: None,
    })
    .unwrap_or_default()
}

/// The JSON of a state event that has to do with an approval, and says why.
pub(crate) fn approval_event(run: &LiveRun, state: State, at_ms: u64, why: &str, approval: &str) -> Vec<u8> {
    let event = StateEvent {
        run: &run.id,
        runner: &run.runner_name,
        state,
        at_ms,
        exit_code: None,
        error: Some(why),
        suggestion: None,
        approval: Some(approval),
    };
    serde_json::to_vec(&event).unwrap_or_default()
}

/// Who is behind a task.
#[derive(Debug, Clone)]
pub(crate) struct Requester {
    pub(crate) name: String,
    pub(crate) token_id: String,
}

/// What became of a piece of output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    /// It does not follow what is stored: an earlier piece was not stored.
    OutOfPlace,
    /// The disk did not take it.
    Failed,
}

impl LiveTask {
    pub(crate) fn new(new: NewLiveTask) -> Self {
        Self {
            id: new.id,
            operation: new.operation,
            args: new.args,
            timeout_s: new.timeout_s,
            expires: new.expires,
            requester: new.requester,
            reason: new.reason,
            log: Mutex::new(new.log),
            progress: watch::Sender::default(),
            open: AtomicUsize::new(new.open),
        }
    }

    /// Whether to carry it out twice is the same as once.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.operation.as_str(), "read" | "list" | "glob" | "grep" | "webfetch" | "mcp_list_tools")
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends events and wakes the readers. What can't be written now is kept and written
    /// later; returns false then.
    pub(crate) fn append(&self, add: impl FnOnce(&mut Log)) -> bool {
        let mut log = self.log();
        add(&mut log);
        self.flush(&mut log)
    }

    fn flush(&self, log: &mut Log) -> bool {
        match log.flush() {
            Ok(len) => {
                self.progress.send_modify(|p| p.len = len);
                true
            }
            Err(error) => {
                tracing::error!(task = %self.id, "failed to append events: {error}");
                false
            }
        }
    }

    /// Appends a piece of output where it follows what is stored.
    pub(crate) fn output(&self, ordinal: u32, kind: Kind, offset: u64, data: &[u8]) -> Kept {
        let mut log = self.log();
        if log.stored(ordinal, kind) != offset {
            return Kept::OutOfPlace;
        }
        match log.output(ordinal, kind, offset, data) {
            Ok(len) => {
                self.progress.send_modify(|p| p.len = len);
                Kept::Yes
            }
            Err(error) => {
                tracing::error!(task = %self.id, "failed to store output: {error}");
                Kept::Failed
            }
        }
    }

    /// How much of a stream is stored.
    pub(crate) fn stored(&self, ordinal: u32) -> [u64; 2] {
        let log = self.log();
        [log.stored(ordinal, Kind::Stdout), log.stored(ordinal, Kind::Stderr)]
    }

    /// Appends a run's final state, and the end if it was the last one; returns whether all
    /// of it is written.
    pub(crate) fn finish_run(&self, ordinal: u32, tail: impl FnOnce(&mut Log), event: &[u8]) -> bool {
        let last = self.open.fetch_sub(1, Ordering::AcqRel) == 1;
        let written = self.append(|log| {
            tail(log);
            log.add(Kind::State, ordinal, 0, event);
            if last {
                log.add(Kind::End, 0, 0, &end_event(&self.id));
            }
        });
        if last {
            self.progress.send_modify(|p| p.over = true);
        }
        written
    }

    /// One more run of it is live again.
    pub(crate) fn reopen_run(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    pub(crate) fn reached(&self, len: u64) {
        self.progress.send_modify(|p| p.len = len);
    }
}

/// A task's arguments: small ones in memory, large ones in the store until they are sent.
#[derive(Debug)]
pub(crate) enum Args {
    Here(bytes::Bytes),
    Stored(tokio::sync::Mutex<std::sync::Weak<bytes::Bytes>>),
}

impl Args {
    pub(crate) fn new(args: &str) -> Self {
        if args.len() <= legwork_store::LARGE {
            Self::Here(bytes::Bytes::copy_from_slice(args.as_bytes()))
        } else {
            Self::stored()
        }
    }

    pub(crate) fn stored() -> Self {
        Self::Stored(tokio::sync::Mutex::default())
    }
}

/// The last event's JSON.
pub(crate) fn end_event(task_id: &str) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "task": task_id })).unwrap_or_default()
}

/// A run that is not over.
#[derive(Debug, Clone)]
pub(crate) struct LiveRun {
    pub(crate) id: String,
    pub(crate) ordinal: u32,
    pub(crate) task: Arc<LiveTask>,
    pub(crate) runner_id: String,
    pub(crate) runner_name: String,
    pub(crate) state: State,
    /// The runner's boot when it was handed over.
    pub(crate) delivered_boot: String,
    /// When it was handed over, by a clock that can't jump and by the wall's.
    pub(crate) delivered: Instant,
    pub(crate) delivered_ms: u64,
    /// When its runner last spoke of it.
    pub(crate) heard: Instant,
    /// It was to be handed over, but never written to a connection.
    pub(crate) unsent: bool,
    /// When its end was asked for.
    pub(crate) cancel_requested: Option<Instant>,
    /// Next offsets of stdout and stderr.
    pub(crate) offsets: [u64; 2],
    /// Output could not be stored: it is asked for again when there is room.
    pub(crate) stalled: bool,
    /// Its result, with the id of the message, until the output is there that it is of.
    pub(crate) held: Option<Arc<(String, TaskResult)>>,
    /// More of a stream than is kept has come, and that was said.
    pub(crate) cut: [bool; 2],
    /// A final state is on its way to the store.
    pub(crate) closing: bool,
    /// For that its runner was not sent what it would have been: if the state can't be stored, it must be.
    pub(crate) passed_over: bool,
    /// The last approval that was asked for.
    pub(crate) approval: Option<LiveApproval>,
    /// How often people were asked about it.
    pub(crate) holds: u32,
}

/// What is known of a run's approval; the rest is in the store.
#[derive(Debug, Clone)]
pub(crate) struct LiveApproval {
    pub(crate) id: Arc<str>,
    /// Until when people may answer, or their yes may be used; by a clock that can't jump.
    pub(crate) until: Instant,
    /// People have said yes.
    pub(crate) given: bool,
}

impl LiveRun {
    /// Whether its runner has nothing of it.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.state, State::Queued | State::Held) || self.unsent
    }

    /// Whether it was handed over before its runner's machine was restarted.
    pub(crate) fn is_of_another_boot(&self, boot: &str) -> bool {
        !boot.is_empty() && !self.delivered_boot.is_empty() && boot != self.delivered_boot
    }

    /// A run that waits for its runner.
    pub(crate) fn new(
        task: Arc<LiveTask>,
        ordinal: u32,
        runner: &Runner,
        delivered_boot: String,
        delivered_ms: u64,
    ) -> Self {
        Self {
            id: String::new(),
            ordinal,
            task,
            runner_id: runner.id.clone(),
            runner_name: runner.name.clone(),
            state: State::Queued,
            delivered_boot,
            delivered: Instant::now(),
            delivered_ms,
            heard: Instant::now(),
            unsent: false,
            cancel_requested: None,
            offsets: [0; 2],
            stalled: false,
            held: None,
            cut: [false; 2],
            closing: false,
            passed_over: false,
            approval: None,
            holds: 0,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct FleetState {
    pub(crate) runners: HashMap<String, Runner>,
    /// By their ids: what is done to many is done in the same order each time.
    pub(crate) runs: BTreeMap<String, LiveRun>,
    pub(crate) tasks: HashMap<String, Arc<LiveTask>>,
    /// Tasks that are over and whose last events are not written yet.
    pub(crate) unwritten: Vec<Arc<LiveTask>>,
    /// Runners that have runs to be handed over, which the store could not note.
    pub(crate) undelivered: BTreeSet<String>,
    index: Index,
    links: u64,
}

/// All that is live, behind one lock that is held briefly and never across a wait.
#[derive(Debug, Default)]
pub(crate) struct Fleet(Mutex<FleetState>);

impl Fleet {
    pub(crate) fn lock(&self) -> MutexGuard<'_, FleetState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FleetState {
    pub(crate) fn next_link(&mut self) -> u64 {
        self.links += 1;
        self.links
    }

    /// The ready connection of a runner.
    pub(crate) fn ready_link(&self, runner_id: &str) -> Option<&Link> {
        self.runners.get(runner_id)?.link.as_ref().filter(|l| l.ready)
    }

    /// Adds a runner.
    pub(crate) fn add_runner(&mut self, runner: Runner) {
        self.index.add(&runner);
        self.runners.insert(runner.id.clone(), runner);
    }

    /// Takes a runner out.
    pub(crate) fn remove_runner(&mut self, id: &str) -> Option<Runner> {
        let runner = self.runners.remove(id)?;
        self.index.remove(&runner);
        Some(runner)
    }

    /// Changes a runner; every change that concerns how it is found goes this way.
    pub(crate) fn change<T>(&mut self, id: &str, change: impl FnOnce(&mut Runner) -> T) -> Option<T> {
        let runner = self.runners.get_mut(id)?;
        self.index.remove(runner);
        let result = change(runner);
        self.index.add(runner);
        Some(result)
    }

    /// The runner of a name or an id.
    pub(crate) fn named(&self, name_or_id: &str) -> Named<'_> {
        if let Some(runner) = self.runners.get(name_or_id) {
            return Named::One(runner);
        }
        self.index.named(&self.runners, name_or_id)
    }

    /// Who else may be called so: the holder of a name, or the one whose credential was made
    /// for it.
    pub(crate) fn holder_of(&self, name: &str, except: &str) -> Option<&Runner> {
        self.holders(name).find(|runner| runner.id != except && !runner.revoked)
    }

    /// Those who are called so, or whose credential was made for that name.
    pub(crate) fn holders<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Runner> {
        self.index.holders(&self.runners, name)
    }

    /// Runners that have a label: connected ones first, the least busy first.
    pub(crate) fn labelled<'a>(&'a self, labels: &'a [String]) -> impl Iterator<Item = &'a Runner> {
        self.index.labelled(&self.runners, labels)
    }

    /// Takes a run out when it is over.
    pub(crate) fn remove_run(&mut self, run_id: &str) -> Option<LiveRun> {
        let run = self.runs.remove(run_id)?;
        self.change(&run.runner_id, |runner| {
            runner.open.remove(run_id);
            runner.last_end = Some(Instant::now());
        });
        Some(run)
    }

    pub(crate) fn insert_run(&mut self, run: LiveRun) {
        self.change(&run.runner_id, |runner| runner.open.insert(run.id.clone()));
        self.runs.insert(run.id.clone(), run);
    }

    /// A connection has ended.
    pub(crate) fn unlink(&mut self, runner_id: &str, number: u64) {
        let is_ours = |runner: &Runner| runner.link.as_ref().is_some_and(|l| l.number == number);
        if self.runners.get(runner_id).is_some_and(is_ours) {
            self.change(runner_id, |runner| {
                runner.link = None;
                runner.offline_since = Instant::now();
            });
        }
    }
}
