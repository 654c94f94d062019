//! What is live: runners with their connections, and tasks that are not over.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::now_ms;
use crate::events::{Kind, Log};
use crate::model::State;

/// To a runner's connection.
#[derive(Debug)]
pub(crate) enum ToRunner {
    Text(String),
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
    pub(crate) labels: Vec<String>,
    pub(crate) version: String,
    pub(crate) environment: Option<serde_json::Value>,
    pub(crate) metrics: Option<serde_json::Value>,
    /// Empty for the original, which has none to tell.
    pub(crate) boot_id: String,
    pub(crate) created_at_ms: u64,
    pub(crate) last_seen_ms: u64,
    pub(crate) link: Option<Link>,
    /// Since when there is no connection.
    pub(crate) offline_since_ms: u64,
    /// Runs that are not over, oldest first.
    pub(crate) open: BTreeSet<String>,
}

impl Runner {
    /// A runner that never connected.
    pub(crate) fn new(id: String, name: String) -> Self {
        let now = now_ms();
        Self {
            id,
            name,
            labels: Vec::new(),
            version: String::new(),
            environment: None,
            metrics: None,
            boot_id: String::new(),
            created_at_ms: now,
            last_seen_ms: 0,
            link: None,
            offline_since_ms: now,
            open: BTreeSet::new(),
        }
    }

    /// Keeps what the runner says of itself, so that it can be chosen while offline.
    pub(crate) fn store(&self, c: &rusqlite::Connection) -> rusqlite::Result<()> {
        c.prepare_cached(
            "INSERT INTO runners VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO UPDATE SET name = ?2, labels = ?3, version = ?4, environment = ?5,
                 boot_id = ?6, last_seen_ms = ?8",
        )?
        .execute(rusqlite::params![
            self.id,
            self.name,
            serde_json::to_string(&self.labels).unwrap_or_default(),
            self.version,
            self.environment.as_ref().map(serde_json::Value::to_string),
            self.boot_id,
            i64::try_from(self.created_at_ms).unwrap_or(i64::MAX),
            i64::try_from(self.last_seen_ms).unwrap_or(i64::MAX),
        ])?;
        Ok(())
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
    pub(crate) args: String,
    pub(crate) expires_at_ms: u64,
    log: Mutex<Log>,
    pub(crate) progress: watch::Sender<Progress>,
    open: AtomicUsize,
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
}

/// A state event's JSON.
pub(crate) fn state_event(
    run: &str,
    runner: &str,
    state: State,
    at_ms: u64,
    exit_code: Option<i32>,
    error: Option<&str>,
) -> Vec<u8> {
    // A plain struct always serialises.
    serde_json::to_vec(&StateEvent { run, runner, state, at_ms, exit_code, error }).unwrap_or_default()
}

impl LiveTask {
    pub(crate) fn new(
        id: String,
        operation: String,
        args: String,
        expires_at_ms: u64,
        log: Log,
        open: usize,
    ) -> Self {
        Self {
            id,
            operation,
            args,
            expires_at_ms,
            log: Mutex::new(log),
            progress: watch::Sender::default(),
            open: AtomicUsize::new(open),
        }
    }

    /// Whether to carry it out twice is the same as once.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.operation.as_str(), "read" | "list" | "glob" | "grep" | "webfetch" | "mcp_list_tools")
    }

    /// Appends events and wakes the readers.
    pub(crate) fn append(&self, add: impl FnOnce(&mut Log)) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut log);
        match log.flush() {
            Ok(len) => {
                self.progress.send_modify(|p| p.len = len);
            }
            // The result in the store is what counts; the events have a gap.
            Err(error) => tracing::error!(task = %self.id, "failed to append events: {error}"),
        }
    }

    /// Appends a run's final state, and the end if it was the last one.
    pub(crate) fn finish_run(&self, ordinal: u32, event: &[u8]) {
        let last = self.open.fetch_sub(1, Ordering::AcqRel) == 1;
        self.append(|log| {
            log.add(Kind::State, ordinal, 0, event);
            if last {
                log.add(Kind::End, 0, 0, &end_event(&self.id));
            }
        });
        if last {
            self.progress.send_modify(|p| p.over = true);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    pub(crate) fn reached(&self, len: u64) {
        self.progress.send_modify(|p| p.len = len);
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
    /// It was to be handed over, but never written to a connection.
    pub(crate) unsent: bool,
    pub(crate) cancel_requested: bool,
    /// Next offsets of stdout and stderr.
    pub(crate) offsets: [u64; 2],
    /// A final state is on its way to the store.
    pub(crate) closing: bool,
}

#[derive(Debug, Default)]
pub(crate) struct FleetState {
    pub(crate) runners: HashMap<String, Runner>,
    pub(crate) runs: HashMap<String, LiveRun>,
    pub(crate) tasks: HashMap<String, Arc<LiveTask>>,
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

    /// Takes a run out when it is over.
    pub(crate) fn remove_run(&mut self, run_id: &str) -> Option<LiveRun> {
        let run = self.runs.remove(run_id)?;
        if let Some(runner) = self.runners.get_mut(&run.runner_id) {
            runner.open.remove(run_id);
        }
        Some(run)
    }

    pub(crate) fn insert_run(&mut self, run: LiveRun) {
        if let Some(runner) = self.runners.get_mut(&run.runner_id) {
            runner.open.insert(run.id.clone());
        }
        self.runs.insert(run.id.clone(), run);
    }

    /// A connection has ended.
    pub(crate) fn unlink(&mut self, runner_id: &str, number: u64) {
        if let Some(runner) = self.runners.get_mut(runner_id)
            && runner.link.as_ref().is_some_and(|l| l.number == number)
        {
            runner.link = None;
            runner.offline_since_ms = now_ms();
        }
    }
}
