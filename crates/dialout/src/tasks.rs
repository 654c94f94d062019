//! Tasks: accepted once, carried out, their results delivered. They live on while
//! connections come and go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork_proto::dialout::{Approval, TaskRef, TaskResume, kind};
use legwork_runner::{Cancel, Failure, Runner};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use crate::config::Retention;
use crate::ids;
use crate::operations::{self, Work};
use crate::outbox::{Entry, Outbox};
use crate::store::Store;
use crate::tickets::Tickets;

mod deliver;
mod hold;
mod recover;
mod retention;
mod stream;
mod work;

pub(crate) use deliver::message;

/// How long a finished command's result waits after a reconnect for the hub to say
/// from where it wants the output.
///
/// A hub that is slow (it has just been started, its disk is busy) must not cost the tail of an
/// output; one that has the result already does not ask, and is in no hurry for it.
const RESUME_WAIT: Duration = Duration::from_secs(30);

/// A live connection, as tasks see it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) number: u64,
    /// Messages to write, each with the id of the result it carries. Bounded: who
    /// sends waits for a slow hub.
    pub(crate) messages: mpsc::Sender<(String, Option<String>)>,
    pub(crate) ack: bool,
    pub(crate) output: bool,
    pub(crate) outcome: bool,
    /// Lines that need a person's yes are held there.
    pub(crate) approval: bool,
}

impl Link {
    /// Sends a message that is no result; false if the connection is gone.
    pub(crate) async fn send<P: serde::Serialize>(&self, kind: &str, payload: &P) -> bool {
        let id = ids::message_id();
        self.messages.send((message(&id, kind, payload), None)).await.is_ok()
    }
}

/// How to reach a task under way.
#[derive(Debug, Clone)]
struct Handle {
    cancel: Arc<Cancel>,
    resume: watch::Sender<Option<Resume>>,
    has_effects: bool,
}

impl Handle {
    fn new(has_effects: bool) -> Self {
        Self { cancel: Arc::default(), resume: watch::Sender::new(None), has_effects }
    }
}

/// From where, and on which connection, output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resume {
    link: u64,
    stdout: u64,
    stderr: u64,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) task_id: String,
    pub(crate) source: String,
    pub(crate) operation: String,
    pub(crate) args: Option<String>,
    /// Who asked, as the hub says; empty if it does not.
    pub(crate) who: String,
    /// That people have said yes to it, as the hub says.
    pub(crate) approval: Option<Approval>,
}

/// What each line of the log says of a request, whatever the log's level.
fn span(request: &Request) -> tracing::Span {
    tracing::error_span!("task", id = %request.task_id, operation = %request.operation)
}

/// Stands before the id of a call that came as a message of its own (`mcp.call`), as
/// it shares the journal with tasks.
const CALL: &str = "mcp.call/";

impl Request {
    /// A call by the message `mcp.call`, whose whole payload is the arguments.
    pub(crate) fn call(call_id: &str, payload: &str) -> Self {
        Self {
            task_id: format!("{CALL}{call_id}"),
            source: String::new(),
            operation: kind::MCP_CALL.into(),
            args: Some(payload.to_owned()),
            who: String::new(),
            approval: None,
        }
    }

    /// The call's id, if it is one.
    fn call_id(&self) -> Option<&str> {
        self.task_id.strip_prefix(CALL).filter(|_| self.operation == kind::MCP_CALL)
    }
}

/// All tasks of this runner.
#[derive(Debug)]
pub(crate) struct Tasks {
    runner: Arc<Runner>,
    store: Store,
    outbox: Outbox,
    tickets: Tickets,
    /// Where the files of commands are.
    records: PathBuf,
    hub: String,
    retention: Retention,
    active: Mutex<HashMap<String, Handle>>,
    /// Tasks of which the hub was told that they need a person's yes, and on which connection: the latest of them.
    held: Mutex<std::collections::BTreeMap<String, u64>>,
    active_count: watch::Sender<usize>,
    link: watch::Sender<Option<Arc<Link>>>,
    links: AtomicU64,
    draining: AtomicBool,
}

impl Tasks {
    pub(crate) fn new(
        runner: Arc<Runner>,
        store: Store,
        state: &Path,
        hub: String,
        retention: Retention,
    ) -> std::io::Result<Arc<Self>> {
        let records = state.join("commands");
        std::fs::create_dir_all(&records)?;
        Ok(Arc::new(Self {
            runner,
            store,
            outbox: Outbox::new(state.join("spill"))?,
            tickets: Tickets::open(state)?,
            records,
            hub,
            retention,
            active: Mutex::default(),
            held: Mutex::default(),
            active_count: watch::Sender::new(0),
            link: watch::Sender::new(None),
            links: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        }))
    }

    pub(crate) fn runner(&self) -> &Arc<Runner> {
        &self.runner
    }

    pub(crate) fn next_link_number(&self) -> u64 {
        self.links.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn active(&self) -> std::sync::MutexGuard<'_, HashMap<String, Handle>> {
        self.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn current_link(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone()
    }

    /// A connection is up: sends what waits for it.
    pub(crate) fn link_up(self: &Arc<Self>, link: Arc<Link>) {
        self.link.send_replace(Some(link.clone()));
        let tasks = self.clone();
        tokio::spawn(async move {
            let waiting = tasks.outbox.unsent(link.number);
            let (commands, rest): (Vec<Entry>, Vec<Entry>) =
                waiting.into_iter().partition(|e| e.record.is_some() && link.output && link.ack);
            for entry in rest {
                tasks.send_result(&link, entry).await;
            }
            // Their output comes first, if the hub asks for more of it.
            tokio::time::sleep(if commands.is_empty() { Duration::ZERO } else { RESUME_WAIT }).await;
            for entry in commands {
                tasks.send_result(&link, entry).await;
            }
        });
    }

    /// The connection is gone.
    pub(crate) fn link_down(&self, number: u64) {
        self.link.send_if_modified(|link| {
            let ours = link.as_ref().is_some_and(|l| l.number == number);
            if ours {
                *link = None;
            }
            ours
        });
    }

    /// Takes a request. Registration is immediate, so that a cancel that follows
    /// finds it; the work goes on by itself.
    pub(crate) fn request(self: &Arc<Self>, request: Request) {
        if self.draining.load(Ordering::Relaxed) {
            // A Legwork hub hands it out again; the original is told.
            let failure = Failure::Failed("the runner is shutting down".into());
            let tasks = self.clone();
            tokio::spawn(async move {
                let ack = tasks.current_link().is_some_and(|l| l.ack);
                if !ack {
                    let message = tasks.failure(&request, &failure);
                    tasks.deliver_unjournalled(&request, message).await;
                }
            });
            return;
        }
        self.forget_held(&request.task_id);
        let work = operations::decode(&request.operation, request.args.as_deref());
        let has_effects = work.as_ref().is_ok_and(Work::has_effects);
        let handle = Handle::new(has_effects);
        {
            let mut active = self.active();
            if has_effects && active.contains_key(&request.task_id) {
                drop(active);
                self.accept_again(request.task_id);
                return;
            }
            active.insert(request.task_id.clone(), handle.clone());
            self.active_count.send_replace(active.len());
        }
        let tasks = self.clone();
        let span = span(&request);
        let carrying_out = async move {
            tasks.carry_out(&request, work, &handle).await;
            tasks.leave(&request.task_id, &handle);
        };
        tokio::spawn(carrying_out.instrument(span));
    }

    /// A task is over: from now on the same request is answered from the journal. Done
    /// before the result is sent, as the answer to it may be that very request.
    fn leave(&self, task_id: &str, handle: &Handle) {
        let mut active = self.active();
        if active.get(task_id).is_some_and(|other| Arc::ptr_eq(&other.cancel, &handle.cancel)) {
            active.remove(task_id);
            self.active_count.send_replace(active.len());
        }
    }

    fn accept_again(self: &Arc<Self>, task_id: String) {
        let tasks = self.clone();
        tokio::spawn(async move { tasks.say_accepted(&task_id).await });
    }

    async fn say_accepted(&self, task_id: &str) {
        // There is no word for the acceptance of a call.
        if let Some(link) = self.current_link().filter(|l| l.ack && !task_id.starts_with(CALL)) {
            link.send(kind::TASK_ACCEPTED, &TaskRef { task_id: task_id.into() }).await;
        }
    }

    /// Cancels a task; an unknown one is ignored.
    pub(crate) fn cancel(&self, task_id: &str) {
        if let Some(handle) = self.active().get(task_id) {
            handle.cancel.cancel();
        }
    }

    /// Sends a task's output on from where the hub has it.
    pub(crate) fn resume(self: &Arc<Self>, link: &Arc<Link>, resume: &TaskResume) {
        let from = Resume { link: link.number, stdout: resume.stdout, stderr: resume.stderr };
        if let Some(handle) = self.active().get(&resume.task_id) {
            handle.resume.send_replace(Some(from));
            return;
        }
        let (tasks, link, task_id) = (self.clone(), link.clone(), resume.task_id.clone());
        tokio::spawn(async move {
            let Some(entry) = tasks.outbox.of_task(&task_id) else {
                // On this connection the hub hears that it needs a person's yes.
                if tasks.is_held(&task_id, link.number) {
                    return;
                }
                tasks.answer_unknown(&task_id).await;
                return;
            };
            if let Some(record) = &entry.record {
                stream::rest(&tasks.records.join(record), &task_id, &link, from).await;
            }
            tasks.send_result(&link, entry).await;
        });
    }

    /// Stops taking tasks and waits for those under way; after `patience` cancels
    /// them and waits `grace` more. Says whether all ended.
    pub(crate) async fn drain(&self, patience: Duration, grace: Duration) -> bool {
        self.draining.store(true, Ordering::Relaxed);
        let mut count = self.active_count.subscribe();
        if tokio::time::timeout(patience, count.wait_for(|n| *n == 0)).await.is_err() {
            let running: Vec<String> = self.active().keys().cloned().collect();
            tracing::warn!("cancelling {} tasks that did not end in {}s", running.len(), patience.as_secs());
            for task_id in running {
                self.cancel(&task_id);
            }
            if tokio::time::timeout(grace, count.wait_for(|n| *n == 0)).await.is_err() {
                return false;
            }
        }
        true
    }
}
