//! Handing runs to runners, and hearing of their progress.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use legwork_proto::base57::message_id;
use legwork_proto::dialout::{Ack, NewTask, Outgoing, TaskOutput, TaskRef, TaskResume, kind};
use rusqlite::params;
use serde_json::value::RawValue;

use super::{Ending, Hub};
use crate::clock::{now_ms, random};
use crate::events::Kind;
use crate::fleet::{Link, LiveRun, state_event};
use crate::model::State;

/// Writes a message to a runner.
pub(crate) fn message<P: serde::Serialize>(kind: &str, payload: &P) -> String {
    let id = message_id(random().unwrap_or_else(|_| u128::from(now_ms())));
    // Payloads are plain structs: they always serialise.
    serde_json::to_string(&Outgoing { id: &id, kind, payload, timestamp: now_ms() }).unwrap_or_default()
}

impl Hub {
    pub(crate) fn send_request(&self, run: &LiveRun, link: &Link) {
        let Ok(args) = RawValue::from_string(run.task.args.clone()) else { return };
        let request = NewTask { task_id: &run.id, operation: &run.task.operation, args: &args };
        link.send(message(kind::TASK_REQUEST, &request));
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
                if run.closing || run.state == State::Queued || run.unsent {
                    continue;
                }
                // A new boot: whatever ran is gone, whatever was not yet accepted may
                // or may not have begun.
                if !boot.is_empty()
                    && !run.delivered_boot.is_empty()
                    && boot != run.delivered_boot
                    && !run.task.is_read()
                {
                    lost.push(run_id);
                    continue;
                }
                // The original has no words for any of this: its result comes or not.
                if !link.ack {
                    continue;
                }
                let [stdout, stderr] = run.offsets;
                // Whether a run that was not accepted has arrived is unknown: the runner
                // takes it once. Reads leave no trace there and are simply done again.
                if run.state == State::Delivered || run.task.is_read() {
                    run.delivered_boot.clone_from(&boot);
                    let run = run.clone();
                    self.send_request(&run, &link);
                }
                if let Some(run) = fleet.runs.get(&run_id).filter(|r| !r.task.is_read()) {
                    let resume = TaskResume { task_id: run.id.clone(), stdout, stderr };
                    link.send(message(kind::TASK_RESUME, &resume));
                }
                if fleet.runs.get(&run_id).is_some_and(|r| r.cancel_requested) {
                    Self::send_cancel(&link, &run_id);
                }
            }
        }
        for run_id in lost {
            self.finish(&run_id, Ending::lost("the runner's machine was restarted while it ran"), None).await;
        }
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
            let waiting = |id: &&String| {
                fleet.runs.get(*id).is_some_and(|r| !r.closing && (r.state == State::Queued || r.unsent))
            };
            (runner.open.iter().filter(waiting).cloned().collect::<Vec<_>>(), runner.boot_id.clone())
        };
        if ids.is_empty() {
            return;
        }
        let now = now_ms();
        let (rows, row_boot) = (ids.clone(), boot.clone());
        let written = self
            .store
            .write(move |c| {
                let mut update = c.prepare_cached(
                    "UPDATE runs SET state = 'delivered', delivered_boot = ?2, delivered_at_ms = ?3
                     WHERE id = ?1 AND finished_at_ms IS NULL",
                )?;
                for id in rows {
                    update.execute(params![id, row_boot, i64::try_from(now).unwrap_or(i64::MAX)])?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = written {
            return tracing::error!("runs stay queued: {error}");
        }
        let mut fleet = self.fleet.lock();
        let link = fleet.ready_link(runner_id).cloned();
        for id in ids {
            let Some(run) = fleet.runs.get_mut(&id).filter(|r| !r.closing) else { continue };
            if run.state == State::Queued {
                run.state = State::Delivered;
                let event = state_event(&run.id, &run.runner_name, State::Delivered, now, None, None);
                let task = run.task.clone();
                let ordinal = run.ordinal;
                task.append(|log| log.add(Kind::State, ordinal, 0, &event));
            }
            run.delivered_boot.clone_from(&boot);
            run.unsent = link.is_none();
            if let Some(link) = &link {
                let run = run.clone();
                self.send_request(&run, link);
            }
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
            run.clone()
        };
        let now = now_ms();
        let row = run.id.clone();
        self.store
            .submit(
                Box::new(move |c| {
                    c.prepare_cached("UPDATE runs SET state = 'running', started_at_ms = ?2 WHERE id = ?1 AND finished_at_ms IS NULL")?
                        .execute(params![row, i64::try_from(now).unwrap_or(i64::MAX)])
                }),
                move |result| {
                    if let Err(error) = result {
                        tracing::error!("an acceptance was not recorded: {error}");
                    }
                    run.task.append(|log| {
                        for state in [State::Accepted, State::Running] {
                            let event = state_event(&run.id, &run.runner_name, state, now, None, None);
                            log.add(Kind::State, run.ordinal, 0, &event);
                        }
                    });
                },
            )
            .await;
    }

    /// Live output of a run. A gap is asked for again, what we have is skipped.
    pub(crate) async fn output(self: &Arc<Self>, runner_id: &str, output: TaskOutput) {
        let mut data = match &output.data_base64 {
            Some(text) => match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(data) => data,
                Err(error) => {
                    return tracing::warn!(run = %output.task_id, "skipped output that is no base64: {error}");
                }
            },
            None => output.data.into_bytes(),
        };
        let kind = if output.stream == "stderr" { Kind::Stderr } else { Kind::Stdout };
        let (run, offset) = {
            let mut fleet = self.fleet.lock();
            let link = fleet.ready_link(runner_id).cloned();
            let Some(run) =
                fleet.runs.get_mut(&output.task_id).filter(|r| r.runner_id == runner_id && !r.closing)
            else {
                return;
            };
            let next = &mut run.offsets[kind as usize];
            if output.offset > *next {
                tracing::warn!(run = %run.id, "output has a gap from {next} to {}; asked for it again", output.offset);
                if let Some(link) = link {
                    let [stdout, stderr] = run.offsets;
                    let resume = TaskResume { task_id: run.id.clone(), stdout, stderr };
                    link.send(message(kind::TASK_RESUME, &resume));
                }
                return;
            }
            let known = usize::try_from(*next - output.offset).unwrap_or(usize::MAX);
            if known >= data.len() {
                return;
            }
            data.drain(..known);
            let offset = *next;
            *next += data.len() as u64;
            (run.clone(), offset)
        };
        self.counters.output_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.store
            .submit(Box::new(|_| Ok(())), move |_| {
                run.task.append(|log| log.add(kind, run.ordinal, offset, &data));
            })
            .await;
    }

    /// Cancels a task's open runs; returns false if there is no such task live.
    pub(crate) async fn cancel(self: &Arc<Self>, task_id: &str) -> bool {
        let mut at_once = Vec::new();
        let mut asked = Vec::new();
        {
            let mut guard = self.fleet.lock();
            let fleet = &mut *guard;
            if !fleet.tasks.contains_key(task_id) {
                return false;
            }
            for run in fleet.runs.values_mut().filter(|r| r.task.id == task_id && !r.closing) {
                if run.state == State::Queued || run.unsent {
                    at_once.push(run.id.clone());
                    continue;
                }
                run.cancel_requested = true;
                asked.push(run.id.clone());
                let link =
                    fleet.runners.get(&run.runner_id).and_then(|r| r.link.as_ref()).filter(|l| l.ready);
                if let Some(link) = link {
                    Self::send_cancel(link, &run.id);
                }
            }
        }
        if !asked.is_empty() {
            let result = self
                .store
                .write(move |c| {
                    let mut update =
                        c.prepare_cached("UPDATE runs SET cancel_requested = 1 WHERE id = ?1")?;
                    asked.iter().try_for_each(|id| update.execute([id]).map(|_| ()))
                })
                .await;
            if let Err(error) = result {
                tracing::error!("a cancel was sent but not recorded: {error}");
            }
        }
        for run_id in at_once {
            self.finish(&run_id, Ending::cancelled(), None).await;
        }
        true
    }
}
