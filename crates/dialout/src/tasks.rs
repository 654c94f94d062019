//! Tasks: accepted once, carried out, their results delivered. They live on while
//! connections come and go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork_proto::dialout::{OutcomeWord, Outgoing, TaskRef, TaskResult, TaskResume, kind};
use legwork_runner::process::{Adoption, Running};
use legwork_runner::{Bash, Failure, Operation, Requester, Runner};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};

use crate::clock::now_ms;
use crate::ids;
use crate::operations::{self, Work};
use crate::outbox::{Entry, Outbox, Text};
use crate::store::{Acceptance, Accepted, Store};

mod stream;

/// How long a finished command's result waits after a reconnect for the hub to say
/// from where it wants the output.
const RESUME_WAIT: Duration = Duration::from_secs(2);

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
}

impl Link {
    /// Sends a message that is no result; false if the connection is gone.
    pub(crate) async fn send<P: serde::Serialize>(&self, kind: &str, payload: &P) -> bool {
        let id = ids::message_id();
        self.messages.send((message(&id, kind, payload), None)).await.is_ok()
    }
}

/// Frees the room that a command's output takes; how it ended stays.
async fn truncate(record: PathBuf) {
    let _ = tokio::task::spawn_blocking(move || {
        const REPORT: u64 = 4096;
        std::fs::File::options().write(true).open(record)?.set_len(REPORT)
    })
    .await;
}

/// Writes a message.
pub(crate) fn message<P: serde::Serialize>(id: &str, kind: &str, payload: &P) -> String {
    // Payloads are plain structs: they always serialise.
    serde_json::to_string(&Outgoing { id, kind, payload, timestamp: now_ms() }).unwrap_or_default()
}

/// A result as a hub wants it: without the word for how it ended, if it never heard
/// of that. The word is the last field of the payload.
fn for_link(mut text: String, link: &Link) -> String {
    const FIELD: &str = ",\"outcome\":\"";
    if !link.outcome
        && let Some(start) = text.rfind(FIELD)
        && let Some(len) = text[start + FIELD.len()..].find('"')
    {
        text.replace_range(start..start + FIELD.len() + len + 1, "");
    }
    text
}

/// How to reach a task under way.
#[derive(Debug, Clone)]
struct Handle {
    cancel: watch::Sender<bool>,
    /// Stops a search.
    stop: Arc<AtomicBool>,
    resume: watch::Sender<Option<Resume>>,
    has_effects: bool,
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
}

/// All tasks of this runner.
#[derive(Debug)]
pub(crate) struct Tasks {
    runner: Arc<Runner>,
    store: Store,
    outbox: Outbox,
    /// Where the files of commands are.
    records: PathBuf,
    hub: String,
    active: Mutex<HashMap<String, Handle>>,
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
    ) -> std::io::Result<Arc<Self>> {
        let records = state.join("commands");
        std::fs::create_dir_all(&records)?;
        Ok(Arc::new(Self {
            runner,
            store,
            outbox: Outbox::new(state.join("spill"))?,
            records,
            hub,
            active: Mutex::default(),
            active_count: watch::Sender::new(0),
            link: watch::Sender::new(None),
            links: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        }))
    }

    pub(crate) fn runner(&self) -> &Runner {
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
        let work = operations::decode(&request.operation, request.args.as_deref());
        let has_effects = work.as_ref().is_ok_and(Work::has_effects);
        let handle = Handle {
            cancel: watch::Sender::new(false),
            stop: Arc::default(),
            resume: watch::Sender::new(None),
            has_effects,
        };
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
        tokio::spawn(async move {
            tasks.carry_out(&request, work, &handle).await;
            tasks.leave(&request.task_id);
        });
    }

    fn leave(&self, task_id: &str) {
        let mut active = self.active();
        active.remove(task_id);
        self.active_count.send_replace(active.len());
    }

    fn accept_again(self: &Arc<Self>, task_id: String) {
        let tasks = self.clone();
        tokio::spawn(async move { tasks.say_accepted(&task_id).await });
    }

    async fn say_accepted(&self, task_id: &str) {
        if let Some(link) = self.current_link().filter(|l| l.ack) {
            link.send(kind::TASK_ACCEPTED, &TaskRef { task_id: task_id.into() }).await;
        }
    }

    /// Cancels a task; an unknown one is ignored.
    pub(crate) fn cancel(&self, task_id: &str) {
        if let Some(handle) = self.active().get(task_id) {
            handle.stop.store(true, Ordering::Relaxed);
            handle.cancel.send_replace(true);
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
                tasks.answer_unknown(&task_id).await;
                return;
            };
            if let Some(record) = &entry.record {
                stream::rest(&tasks.records.join(record), &task_id, &link, from).await;
            }
            tasks.send_result(&link, entry).await;
        });
    }

    /// The hub thinks we have a task that we know nothing of: our state was removed.
    async fn answer_unknown(self: &Arc<Self>, task_id: &str) {
        let request =
            Request { task_id: task_id.into(), source: String::new(), operation: String::new(), args: None };
        let failure = Failure::Lost("this runner knows nothing of the task: its state was removed".into());
        let message = self.failure(&request, &failure);
        self.deliver_unjournalled(&request, message).await;
    }

    /// The hub has stored a result.
    pub(crate) async fn acknowledged(&self, message_id: String) {
        // What is not here has arrived before.
        let Some(entry) = self.outbox.remove(&message_id) else { return };
        if let Some(record) = &entry.record {
            // First what takes room: the disk may be full, and the journal of tasks
            // needs some to record this.
            truncate(self.records.join(record)).await;
        }
        let recorded = match entry.text {
            Text::Journal => self.store.delivered(&entry.task_id),
            // It could not be journalled when it was made.
            _ if entry.record.is_some() => self
                .store
                .finish(&entry.task_id, &message_id, "{}")
                .and_then(|()| self.store.delivered(&entry.task_id)),
            _ => return,
        };
        match (recorded, entry.record) {
            (Ok(()), Some(record)) => self.remove_record(record).await,
            (Ok(()), None) => {}
            // The file stays: it shows after a restart that the command ran.
            (Err(error), _) => tracing::warn!("failed to record a delivered result: {error}"),
        }
    }

    /// A hub that acknowledges nothing has sent something after these results were
    /// written, or they were written twice: they count as delivered (§14).
    pub(crate) async fn presumed_delivered(&self, message_ids: Vec<String>) {
        for message_id in message_ids {
            self.acknowledged(message_id).await;
        }
    }

    /// Whether a written result needs no proof of arrival any more.
    pub(crate) fn was_resent(&self, message_id: &str) -> bool {
        self.outbox.sends(message_id) >= 2
    }

    async fn remove_record(&self, record: String) {
        let path = self.records.join(record);
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
    }

    async fn carry_out(self: &Arc<Self>, request: &Request, work: Result<Work, String>, handle: &Handle) {
        let work = match work {
            Ok(work) => work,
            Err(error) => {
                let message = self.failure(request, &Failure::Failed(error));
                self.deliver_unjournalled(request, message).await;
                return;
            }
        };
        let record = match &work {
            Work::Bash(_) => ids::record_name(),
            Work::Other(_) => String::new(),
        };
        if handle.has_effects {
            let accepted = Accepted {
                task_id: request.task_id.clone(),
                source: request.source.clone(),
                operation: request.operation.clone(),
                args: request.args.clone().unwrap_or_else(|| "null".into()),
                record: record.clone(),
            };
            match self.store.accept(&accepted) {
                Ok(Acceptance::New) => {}
                // Another connection's duplicate: adopted or under way elsewhere.
                Ok(Acceptance::Running) => return self.say_accepted(&request.task_id).await,
                // Not yet acknowledged: the hub says from where it wants the output, and
                // the result follows that.
                Ok(Acceptance::Finished { message_id, .. })
                    if self.outbox.get(&message_id).is_some()
                        && self.current_link().is_some_and(|l| l.ack && l.output) =>
                {
                    return self.say_accepted(&request.task_id).await;
                }
                Ok(Acceptance::Finished { message_id, text }) => {
                    if let Some(link) = self.current_link() {
                        let _ = link.messages.send((for_link(text, &link), Some(message_id))).await;
                    }
                    return;
                }
                Err(error) => {
                    let failure = Failure::Failed(format!(
                        "the task could not be journalled, so it was not run: {error}"
                    ));
                    let message = self.failure(request, &failure);
                    return self.deliver_unjournalled(request, message).await;
                }
            }
        }
        self.say_accepted(&request.task_id).await;
        match work {
            Work::Bash(bash) => {
                let path = self.records.join(&record);
                let (message, streamed_on) = self.run_bash(request, &bash, &path, handle).await;
                self.deliver_bash(request, message, record, streamed_on, handle).await;
            }
            Work::Other(operation) => {
                let message = self.perform(request, operation, handle).await;
                if handle.has_effects {
                    let (id, text) = self.keep(request, message, None).await;
                    self.send_new(id, text).await;
                } else {
                    self.deliver_unjournalled(request, message).await;
                }
            }
        }
    }

    fn requester(&self, task_id: &str) -> Requester {
        Requester { door: "dialout", who: self.hub.clone(), task_id: task_id.into() }
    }

    async fn perform(&self, request: &Request, operation: Operation, handle: &Handle) -> (String, String) {
        let _permit = self.runner.admit().await;
        let requester = self.requester(&request.task_id);
        match self.runner.perform(operation, &requester, handle.stop.clone()).await {
            Ok(done) => self.success(request, operations::encode(done), OutcomeWord::Exited),
            Err(failure) => self.failure(request, &failure),
        }
    }

    /// The result message, and the connection that got all the output.
    async fn run_bash(
        &self,
        request: &Request,
        bash: &Bash,
        record: &Path,
        handle: &Handle,
    ) -> ((String, String), Option<u64>) {
        let mut cancelled = handle.cancel.subscribe();
        let _permit = tokio::select! {
            permit = self.runner.admit() => permit,
            _ = cancelled.wait_for(|c| *c) => {
                let (result, outcome) = operations::cancelled_bash();
                return (self.success(request, result, outcome), self.link_number());
            }
        };
        let requester = self.requester(&request.task_id);
        match self.runner.start_bash(bash, &requester, record).await {
            Ok(started) => self.watch_bash(request, bash, record, started.running, handle, true).await,
            Err(failure) => (self.failure(request, &failure), self.link_number()),
        }
    }

    fn link_number(&self) -> Option<u64> {
        self.current_link().map(|l| l.number)
    }

    /// Watches a running line to its end, streaming its output if that is wanted.
    async fn watch_bash(
        &self,
        request: &Request,
        bash: &Bash,
        record: &Path,
        running: Running,
        handle: &Handle,
        fresh: bool,
    ) -> ((String, String), Option<u64>) {
        let running = Arc::new(running);
        let canceller = {
            let (running, mut cancelled) = (running.clone(), handle.cancel.subscribe());
            tokio::spawn(async move {
                if cancelled.wait_for(|c| *c).await.is_ok() {
                    running.cancel();
                }
            })
        };
        let streamer =
            stream::Streamer::new(record, &request.task_id, self.link.subscribe(), handle.resume.subscribe());
        let streamed_on = streamer.run(&running, fresh).await;
        canceller.abort();
        (self.ended_bash(request, bash, record).await, streamed_on)
    }

    /// The result message of a line that has ended.
    async fn ended_bash(&self, request: &Request, bash: &Bash, record: &Path) -> (String, String) {
        match self.runner.finish_bash(bash, &self.requester(&request.task_id), record).await {
            Ok(output) => {
                let (result, outcome) = operations::encode_bash(output);
                self.success(request, result, outcome)
            }
            Err(failure) => self.failure(request, &failure),
        }
    }

    fn success(&self, request: &Request, result: Box<RawValue>, outcome: OutcomeWord) -> (String, String) {
        self.result(TaskResult {
            task_id: request.task_id.clone(),
            source_instance_id: request.source.clone(),
            success: true,
            result: Some(result),
            error: String::new(),
            exit_code: None,
            outcome: Some(outcome),
        })
    }

    fn failure(&self, request: &Request, failure: &Failure) -> (String, String) {
        self.result(TaskResult {
            task_id: request.task_id.clone(),
            source_instance_id: request.source.clone(),
            success: false,
            result: None,
            error: failure.to_string(),
            exit_code: Some(1),
            outcome: Some(operations::outcome_of(failure)),
        })
    }

    /// A result message, with its id.
    fn result(&self, result: TaskResult) -> (String, String) {
        let id = ids::message_id();
        let text = message(&id, kind::TASK_RESULT, &result);
        (id, text)
    }

    /// Keeps a result until it has arrived.
    async fn keep(
        &self,
        request: &Request,
        (id, text): (String, String),
        record: Option<String>,
    ) -> (String, String) {
        if let Err(error) = self.store.finish(&request.task_id, &id, &text) {
            // A full disk must not cost the result as long as we live.
            tracing::error!(task = %request.task_id, "failed to journal a result, it is kept in memory: {error}");
            self.outbox.add(&request.task_id, &id, text.clone(), record);
        } else {
            self.outbox.add_journalled(&request.task_id, &id, record);
        }
        (id, text)
    }

    /// Delivers a shell line's result, after the rest of its output: the connection
    /// may have changed since that was sent.
    async fn deliver_bash(
        self: &Arc<Self>,
        request: &Request,
        message: (String, String),
        record: String,
        streamed_on: Option<u64>,
        handle: &Handle,
    ) {
        let (id, text) = self.keep(request, message, Some(record.clone())).await;
        let Some(link) = self.current_link() else { return };
        if !link.ack || !link.output || streamed_on == Some(link.number) {
            return self.send_new(id, text).await;
        }
        let resume = *handle.resume.borrow();
        match resume.filter(|r| r.link == link.number) {
            Some(from) => {
                stream::rest(&self.records.join(record), &request.task_id, &link, from).await;
                self.send_new(id, text).await;
            }
            // It comes; if not, the result goes without the rest.
            None => {
                let tasks = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(RESUME_WAIT).await;
                    tasks.send_new(id, text).await;
                });
            }
        }
    }

    async fn deliver_unjournalled(&self, request: &Request, (id, text): (String, String)) {
        self.outbox.add(&request.task_id, &id, text.clone(), None);
        self.send_new(id, text).await;
    }

    async fn send_new(&self, id: String, text: String) {
        if let Some(link) = self.current_link()
            && self.outbox.claim(&id, link.number)
        {
            let _ = link.messages.send((for_link(text, &link), Some(id))).await;
        }
    }

    async fn send_result(&self, link: &Link, entry: Entry) {
        if !self.outbox.claim(&entry.message_id, link.number) {
            return;
        }
        let text = match entry.text {
            Text::Memory(text) => Some(text),
            Text::Journal => self.store.result(&entry.task_id).ok().flatten(),
            Text::File(path) => tokio::fs::read_to_string(path).await.ok(),
        };
        match text {
            // If the connection is gone, the next one sends it.
            Some(text) => drop(link.messages.send((for_link(text, link), Some(entry.message_id))).await),
            None => tracing::error!(task = %entry.task_id, "a result can't be read back from disk"),
        }
    }

    /// Finds again what an earlier process left: running commands are adopted,
    /// undelivered results wait for the hub.
    pub(crate) async fn recover(self: &Arc<Self>) -> rusqlite::Result<()> {
        self.store.forget_old()?;
        let (open, done) = self.store.left_over()?;
        for finished in done {
            let record = Some(finished.record).filter(|f| !f.is_empty());
            self.outbox.add_journalled(&finished.task_id, &finished.message_id, record);
        }
        for accepted in open {
            let handle = Handle {
                cancel: watch::Sender::new(false),
                stop: Arc::default(),
                resume: watch::Sender::new(None),
                has_effects: true,
            };
            {
                let mut active = self.active();
                active.insert(accepted.task_id.clone(), handle.clone());
                self.active_count.send_replace(active.len());
            }
            let tasks = self.clone();
            tokio::spawn(async move {
                let request = Request {
                    task_id: accepted.task_id,
                    source: accepted.source,
                    operation: accepted.operation,
                    args: Some(accepted.args),
                };
                let record = Some(accepted.record).filter(|f| !f.is_empty());
                let (message, streamed_on) = tasks.recovered(&request, record.as_deref(), &handle).await;
                match record {
                    Some(record) => tasks.deliver_bash(&request, message, record, streamed_on, &handle).await,
                    None => {
                        let (id, text) = tasks.keep(&request, message, None).await;
                        tasks.send_new(id, text).await;
                    }
                }
                tasks.leave(&request.task_id);
            });
        }
        Ok(())
    }

    async fn recovered(
        &self,
        request: &Request,
        record: Option<&str>,
        handle: &Handle,
    ) -> ((String, String), Option<u64>) {
        let work = operations::decode(&request.operation, request.args.as_deref());
        let (Ok(Work::Bash(bash)), Some(record)) = (work, record) else {
            let failure =
                Failure::Lost("the runner was stopped while it carried this out; its end is unknown".into());
            return (self.failure(request, &failure), None);
        };
        let path = self.records.join(record);
        // Accepted, but the runner was stopped before it started: nothing ran yet.
        if !path.exists() {
            return self.run_bash(request, &bash, &path, handle).await;
        }
        match self.runner.adopt(&path).await {
            Adoption::NeverStarted => {
                self.remove_record(record.to_owned()).await;
                self.run_bash(request, &bash, &path, handle).await
            }
            Adoption::Running(running) => {
                tracing::info!(task = %request.task_id, "adopted a running command");
                self.watch_bash(request, &bash, &path, running, handle, false).await
            }
            Adoption::Ended(_) => (self.ended_bash(request, &bash, &path).await, None),
            Adoption::Lost(reason) => {
                let failure =
                    self.runner.record_lost(&bash, &self.requester(&request.task_id), &reason).await;
                (self.failure(request, &failure), None)
            }
        }
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

    /// Whether every result has arrived.
    pub(crate) fn all_delivered(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Forgets what is too old to be asked for again.
    pub(crate) async fn forget_old(&self) {
        if let Err(error) = self.store.forget_old() {
            tracing::warn!("failed to prune the journal: {error}");
        }
    }
}
