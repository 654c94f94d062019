//! Handing runs to runners, and hearing of their progress.

use bytes::Bytes;
use legwork_proto::base57::message_id;
use legwork_proto::dialout::{Ack, NewTask, Outgoing, RequestedBy, TaskRef, TaskResume, kind};
use legwork_store::StoreError;
use serde_json::value::RawValue;
use std::sync::Arc;

use super::{Ending, Hub};
use crate::clock::{Instant, now_ms, random};
use crate::events::Kind;
use crate::fleet::{Args, Link, LiveRun, LiveTask, ToRunner, state_event};
use crate::model::State;

/// Writes a message to a runner.
pub(crate) fn message<P: serde::Serialize>(kind: &str, payload: &P) -> String {
    let id = message_id(random().unwrap_or_else(|_| u128::from(now_ms())));
    // Payloads are plain structs: they always serialise.
    serde_json::to_string(&Outgoing { id: &id, kind, payload, timestamp: now_ms() }).unwrap_or_default()
}

/// A request in pieces: what stands before the arguments, those, and the rest. The
/// arguments are shared by all who are sent them.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) args: Arc<Bytes>,
    pub(crate) tail: String,
}

impl Hub {
    /// Queues a run for its runner's connection, which fetches what it needs.
    pub(crate) fn send_request(run: &LiveRun, link: &Link) {
        let _ = link.sender.send(ToRunner::Request(run.id.clone()));
    }

    /// The request of a run, if it is still to be carried out.
    pub(crate) async fn request_of(&self, run_id: &str) -> Result<Option<Request>, StoreError> {
        let (task, approval) = match self.fleet.lock().runs.get_mut(run_id) {
            Some(run) if run.closing => {
                run.passed_over = true;
                return Ok(None);
            }
            Some(run) => (run.task.clone(), run.approval.clone().filter(|approval| approval.given)),
            None => return Ok(None),
        };
        let mut args = self.args_of(&task).await?;
        let mut yes = None;
        if let Some(approval) = approval {
            let said = self.said_yes(&approval.id, &args).await?;
            (args, yes) = (said.0.unwrap_or(args), said.1);
        }
        let requested_by = task.requester.as_ref().map(|requester| RequestedBy {
            hub: self.id.clone(),
            token: requester.token_id.clone(),
            name: requester.name.clone(),
        });
        let request = NewTask {
            task_id: run_id,
            operation: &task.operation,
            requested_by,
            approval: yes,
            args: RawValue::NULL,
        };
        let text = message(kind::TASK_REQUEST, &request);
        // The arguments are the payload's last field, and only the time comes after that.
        let Some(at) = text.rfind("null},\"timestamp\":") else {
            return Err(StoreError::new("a request can't be put together"));
        };
        let (head, rest) = text.split_at(at);
        let tail = rest.trim_start_matches("null").to_owned();
        Ok(Some(Request { head: head.to_owned(), args, tail }))
    }

    /// A task's arguments; large ones come from the store, once for all who need them.
    pub(super) async fn args_of(&self, task: &LiveTask) -> Result<Arc<Bytes>, StoreError> {
        let cache = match &task.args {
            Args::Here(args) => return Ok(Arc::new(args.clone())),
            Args::Stored(cache) => cache,
        };
        let mut cached = cache.lock().await;
        if let Some(args) = cached.upgrade() {
            return Ok(args);
        }
        let text = self.store.arguments(task.id.clone()).await?;
        let args = Arc::new(Bytes::from(text));
        *cached = Arc::downgrade(&args);
        Ok(args)
    }

    pub(crate) fn send_cancel(link: &Link, run_id: &str) {
        link.send(message(kind::TASK_CANCEL, &TaskRef { task_id: run_id.to_owned() }));
    }

    pub(crate) fn send_ack(link: &Link, id: String) {
        if link.ack {
            link.send(message(kind::ACK, &Ack { id }));
        }
    }

    /// A runner has said who it is on a new connection: decides about everything it
    /// had, and hands out what waits for it.
    pub(crate) async fn runner_ready(self: &Arc<Self>, runner_id: &str, link_number: u64) {
        let mut lost = Vec::new();
        {
            let mut fleet = self.fleet.lock();
            let Some(runner) = fleet.runners.get(runner_id) else { return };
            let Some(link) = runner.link.clone().filter(|l| l.number == link_number) else { return };
            let boot = runner.boot_id.clone();
            let open: Vec<String> = runner.open.iter().cloned().collect();
            for run_id in open {
                let Some(run) = fleet.runs.get_mut(&run_id) else { continue };
                run.passed_over |= run.closing;
                if run.closing || run.is_here() {
                    continue;
                }
                // It comes again, after what is asked for here.
                run.held = None;
                // Whatever ran is gone, whatever was not yet accepted may or may not have begun: it
                // is not sent again. What had ended before, or begins only now, the runner knows:
                // one that can be asked is.
                let rebooted = run.is_of_another_boot(&boot) && !run.task.is_read();
                if rebooted && !link.ack {
                    lost.push(run_id);
                    continue;
                }
                // The original has no words for any of this: its result comes or not. A read
                // is simply done again.
                if !link.ack {
                    if run.task.is_read() {
                        Self::send_request(run, &link);
                    }
                    continue;
                }
                let [stdout, stderr] = run.offsets;
                // Whether a run that was not accepted has arrived is unknown: the runner
                // takes it once. Reads leave no trace there and are simply done again.
                if (run.state == State::Delivered && !rebooted) || run.task.is_read() {
                    run.delivered_boot.clone_from(&boot);
                    Self::send_request(run, &link);
                }
                if let Some(run) = fleet.runs.get(&run_id).filter(|r| !r.task.is_read()) {
                    let resume = TaskResume { task_id: run.id.clone(), stdout, stderr };
                    link.send(message(kind::TASK_RESUME, &resume));
                }
                if fleet.runs.get(&run_id).is_some_and(|r| r.cancel_requested.is_some()) {
                    Self::send_cancel(&link, &run_id);
                }
            }
        }
        for run_id in lost {
            // Its result counts if it comes.
            let ending = Ending::given_up("the runner's machine was restarted while it ran");
            self.finish(&run_id, ending, None).await;
        }
        self.revive_of(runner_id).await;
        self.deliver_waiting(runner_id).await;
    }

    /// Hands out runs that wait for a runner: durable as delivered, then sent.
    pub(crate) async fn deliver_waiting(self: &Arc<Self>, runner_id: &str) {
        let (ids, boot) = {
            let fleet = self.fleet.lock();
            let Some(runner) = fleet.runners.get(runner_id) else { return };
            if runner.link.as_ref().is_none_or(|l| !l.ready) {
                return;
            }
            let is_waiting = |run: &LiveRun| !run.closing && (run.state == State::Queued || run.unsent);
            // What is to be cancelled goes to nobody, even if its end could not be stored yet.
            let is_wanted = |run: &LiveRun| is_waiting(run) && run.cancel_requested.is_none();
            let waiting = |id: &&String| fleet.runs.get(*id).is_some_and(is_wanted);
            (runner.open.iter().filter(waiting).cloned().collect::<Vec<_>>(), runner.boot_id.clone())
        };
        if ids.is_empty() {
            return;
        }
        let now = now_ms();
        let written = self.store.deliver(ids.clone(), boot.clone(), now).await;
        if let Err(error) = written {
            tracing::error!("runs are handed over later: {error}");
            self.fleet.lock().undelivered.insert(runner_id.to_owned());
            return;
        }
        self.tell_delivered(&ids, now);
        let mut fleet = self.fleet.lock();
        // After another boot the next connection hands them out.
        let is_same = fleet.runners.get(runner_id).is_some_and(|runner| runner.boot_id == boot);
        let Some(link) = fleet.ready_link(runner_id).filter(|_| is_same).cloned() else { return };
        for id in ids {
            // Another connection may have handed it out meanwhile.
            let waiting = fleet.runs.get_mut(&id).filter(|r| !r.closing && r.unsent);
            let Some(run) = waiting else { continue };
            run.delivered_boot.clone_from(&boot);
            (run.delivered, run.heard, run.delivered_ms) = (Instant::now(), Instant::now(), now);
            run.unsent = false;
            Self::send_request(run, &link);
        }
    }

    /// Tries again to hand out what could not be noted as delivered.
    pub(super) fn deliver_again(&self) {
        let mut fleet = self.fleet.lock();
        let runners = std::mem::take(&mut fleet.undelivered);
        // One that is away gets it when it comes.
        for link in runners.iter().filter_map(|runner| fleet.ready_link(runner)) {
            // The connection's own task does the delivering: nothing goes out twice.
            let _ = link.sender.send(ToRunner::Deliver);
        }
    }

    /// Runs are delivered from now on; written before their runner can say more of them.
    fn tell_delivered(&self, ids: &[String], now: u64) {
        let mut told = Vec::new();
        {
            let mut fleet = self.fleet.lock();
            for id in ids {
                let Some(run) = fleet.runs.get_mut(id) else { continue };
                if !run.closing && run.state == State::Queued {
                    // Still to be sent.
                    (run.state, run.unsent) = (State::Delivered, true);
                    let event =
                        state_event(&run.id, &run.runner_name, State::Delivered, now, None, None, None);
                    told.push((run.task.clone(), run.ordinal, event));
                }
            }
        }
        for (task, ordinal, event) in told {
            task.append(|log| log.add(Kind::State, ordinal, 0, &event));
        }
    }

    /// A runner has journalled a run: it will end, whatever happens to us.
    pub(crate) async fn accepted(self: &Arc<Self>, runner_id: &str, run_id: &str) {
        let run = {
            let mut fleet = self.fleet.lock();
            let Some(run) = fleet.runs.get_mut(run_id).filter(|r| r.runner_id == runner_id && !r.closing)
            else {
                return;
            };
            if run.state != State::Delivered {
                return;
            }
            run.state = State::Running;
            run.heard = Instant::now();
            run.clone()
        };
        let now = now_ms();
        let then = |result| {
            if let Err(error) = result {
                tracing::error!("an acceptance was not recorded: {error}");
            }
        };
        self.store.accept(run.id.clone(), false, now, Box::new(then)).await;
        let tell = move || {
            run.task.append(|log| {
                for state in [State::Accepted, State::Running] {
                    let event = state_event(&run.id, &run.runner_name, state, now, None, None, None);
                    log.add(Kind::State, run.ordinal, 0, &event);
                }
            });
        };
        self.log.queue(0, tell).await;
    }

    /// Cancels a task's runs, also those that were given up and may still go on. Fails if that
    /// could not be stored: who is told nothing else would believe that it will not run.
    pub(crate) async fn cancel(self: &Arc<Self>, task_id: &str) -> Result<(), StoreError> {
        let is_ending = |run: &LiveRun| run.task.id == task_id && run.closing;
        if self.fleet.lock().runs.values().any(is_ending) {
            // An end that can't be stored leaves its run open, and to be cancelled here.
            self.store.check().await?;
        }
        let mut at_once = Vec::new();
        let mut asked = Vec::new();
        {
            let mut guard = self.fleet.lock();
            let fleet = &mut *guard;
            for run in fleet.runs.values_mut().filter(|r| r.task.id == task_id && !r.closing) {
                run.cancel_requested.get_or_insert_with(Instant::now);
                if run.is_here() {
                    // From here on nobody hands it out.
                    run.closing = true;
                    at_once.push(run.clone());
                    continue;
                }
                asked.push(run.id.clone());
                let link =
                    fleet.runners.get(&run.runner_id).and_then(|r| r.link.as_ref()).filter(|l| l.ready);
                if let Some(link) = link {
                    Self::send_cancel(link, &run.id);
                }
            }
        }
        let mut ends = Vec::new();
        for run in at_once {
            let ending = match run.state {
                State::Held => Ending::cancelled_because("cancelled while it waited for a person's yes"),
                _ => Ending::cancelled(),
            };
            ends.push(self.end(run, ending, None).await);
        }
        let mut recorded = match asked.is_empty() {
            true => Ok(()),
            false => self.store.cancel(asked).await,
        };
        for end in ends {
            recorded = recorded.and(end.await.unwrap_or_else(|_| Err(StoreError::new("it is closed"))));
        }
        recorded.and(self.cancel_given_up(task_id).await)
    }
}
