//! Carrying requests out: journalled before they start if they have effects.

use std::path::Path;
use std::sync::Arc;

use legwork_proto::dialout::{McpResult, OutcomeWord, TaskResult, TaskResume, kind};
use legwork_runner::process::Running;
use legwork_runner::{Command, Failure, Operation, Requester};
use serde_json::value::RawValue;

use super::deliver::for_link;
use super::hold::written_approval;
use super::{Handle, Request, Tasks, message, stream};
use crate::ids;
use crate::operations::{self, Work};
use crate::store::{Acceptance, Accepted};

impl Tasks {
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        request: &Request,
        work: Result<Work, String>,
        handle: &Handle,
    ) {
        let work = match work {
            Ok(work) => work,
            Err(error) => {
                let message = self.failure(request, &Failure::Failed(error));
                self.deliver_unjournalled(request, message).await;
                return;
            }
        };
        let Some(work) = self.released(request, work, handle).await else { return };
        let record = match &work {
            Work::Bash(_) => ids::record_name(),
            Work::Other(_) => String::new(),
        };
        if handle.has_effects {
            let accepted = Accepted {
                task_id: request.task_id.clone(),
                source: request.source.clone(),
                operation: request.operation.clone(),
                approval: match &work {
                    Work::Bash(bash) => written_approval(bash),
                    Work::Other(_) => String::new(),
                },
                args: match work {
                    Work::Bash(_) => request.args.clone().unwrap_or_default(),
                    Work::Other(_) => String::new(),
                },
                record: record.clone(),
                who: request.who.clone(),
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
                    self.say_accepted(&request.task_id).await;
                    self.leave(&request.task_id, handle);
                    // The hub may have said so already, while this looked like a task under way.
                    let asked = *handle.resume.borrow();
                    let link = self.current_link();
                    if let Some((from, link)) =
                        asked.zip(link).filter(|(from, link)| from.link == link.number)
                    {
                        let task_id = request.task_id.clone();
                        self.resume(&link, &TaskResume { task_id, stdout: from.stdout, stderr: from.stderr });
                    }
                    return;
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
                    self.leave(&request.task_id, handle);
                    self.send_new(id, text).await;
                } else {
                    self.deliver_unjournalled(request, message).await;
                }
            }
        }
    }

    /// Who is behind a request, for the audit: the person, the token and the hub, where the hub
    /// says so, else its address.
    pub(super) fn requester(&self, request: &Request) -> Requester {
        let who = if request.who.is_empty() { self.hub.clone() } else { request.who.clone() };
        Requester { door: "dialout", who, task_id: request.task_id.clone() }
    }

    pub(super) async fn perform(
        &self,
        request: &Request,
        operation: Operation,
        handle: &Handle,
    ) -> (String, String) {
        let _permit = self.runner.admit().await;
        let requester = self.requester(request);
        match self.runner.perform(operation, &requester, handle.cancel.clone()).await {
            Ok(done) => self.success(request, operations::encode(done), OutcomeWord::Exited),
            Err(failure) => self.failure(request, &failure),
        }
    }

    /// The result message, and the connection that got all the output.
    pub(super) async fn run_bash(
        &self,
        request: &Request,
        bash: &Command,
        record: &Path,
        handle: &Handle,
    ) -> ((String, String), Option<u64>) {
        let _permit = tokio::select! {
            permit = self.runner.admit() => permit,
            () = handle.cancel.cancelled() => {
                let (result, outcome) = operations::cancelled_bash();
                return (self.success(request, result, outcome), self.link_number());
            }
        };
        let requester = self.requester(request);
        match self.runner.start(bash, &requester, record).await {
            Ok(running) => self.watch_bash(request, bash, record, running, handle, true).await,
            Err(failure) => (self.failure(request, &failure), self.link_number()),
        }
    }

    pub(super) fn link_number(&self) -> Option<u64> {
        self.current_link().map(|l| l.number)
    }

    /// Watches a running line to its end, streaming its output if that is wanted.
    pub(super) async fn watch_bash(
        &self,
        request: &Request,
        bash: &Command,
        record: &Path,
        running: Running,
        handle: &Handle,
        fresh: bool,
    ) -> ((String, String), Option<u64>) {
        let running = Arc::new(running);
        let canceller = {
            let (running, cancel) = (running.clone(), handle.cancel.clone());
            tokio::spawn(async move {
                cancel.cancelled().await;
                running.cancel();
            })
        };
        let streamer = stream::Streamer::new(
            self.runner.clone(),
            record,
            &request.task_id,
            self.link.subscribe(),
            handle.resume.subscribe(),
        );
        let streamed_on = streamer.run(&running, fresh).await;
        canceller.abort();
        (self.ended_bash(request, bash, record).await, streamed_on)
    }

    /// The result message of a line that has ended.
    pub(super) async fn ended_bash(
        &self,
        request: &Request,
        bash: &Command,
        record: &Path,
    ) -> (String, String) {
        match self.runner.finish_with_output(bash, &self.requester(request), record).await {
            Ok(output) => {
                let (result, outcome) = operations::encode_bash(output);
                self.success(request, result, outcome)
            }
            Err(failure) => self.failure(request, &failure),
        }
    }

    pub(super) fn success(
        &self,
        request: &Request,
        result: Box<RawValue>,
        outcome: OutcomeWord,
    ) -> (String, String) {
        if let Some(call_id) = request.call_id() {
            let result = McpResult {
                call_id: call_id.into(),
                success: true,
                result: Some(result),
                error: String::new(),
            };
            return written(kind::MCP_RESULT, &result);
        }
        let result = TaskResult {
            task_id: request.task_id.clone(),
            source_instance_id: request.source.clone(),
            success: true,
            result: Some(result),
            error: String::new(),
            exit_code: None,
            suggestion: None,
            outcome: Some(outcome),
        };
        written(kind::TASK_RESULT, &result)
    }

    pub(super) fn failure(&self, request: &Request, failure: &Failure) -> (String, String) {
        if let Some(call_id) = request.call_id() {
            let result = McpResult {
                call_id: call_id.into(),
                success: false,
                result: None,
                error: failure.to_string(),
            };
            return written(kind::MCP_RESULT, &result);
        }
        let result = TaskResult {
            task_id: request.task_id.clone(),
            source_instance_id: request.source.clone(),
            success: false,
            result: None,
            error: failure.to_string(),
            exit_code: Some(1),
            suggestion: operations::suggestion_of(failure),
            outcome: Some(operations::outcome_of(failure)),
        };
        written(kind::TASK_RESULT, &result)
    }
}

/// A result message, with its id.
fn written<P: serde::Serialize>(kind: &str, result: &P) -> (String, String) {
    let id = ids::message_id();
    let text = message(&id, kind, result);
    (id, text)
}
