//! What an earlier process left, found again.

use std::sync::Arc;

use legwork_runner::process::Adoption;
use legwork_runner::{Approved, Failure};

use tracing::Instrument;

use super::hold::approved_of;
use super::{Handle, Request, Tasks, span};
use crate::operations::{self, Work};

impl Tasks {
    /// The hub thinks we have a task that we know nothing of: our state was removed.
    pub(super) async fn answer_unknown(self: &Arc<Self>, task_id: &str) {
        let request = Request {
            task_id: task_id.into(),
            source: String::new(),
            operation: String::new(),
            args: None,
            who: String::new(),
            approval: None,
        };
        let failure = Failure::Lost("this runner knows nothing of the task: its state was removed".into());
        let message = self.failure(&request, &failure);
        self.deliver_unjournalled(&request, message).await;
    }

    /// Finds again what an earlier process left: running commands are adopted,
    /// undelivered results wait for the hub.
    pub(crate) async fn recover(self: &Arc<Self>) -> rusqlite::Result<()> {
        let (open, done) = self.store.left_over()?;
        for finished in done {
            let record = Some(finished.record).filter(|f| !f.is_empty());
            self.outbox.add_journalled(&finished.task_id, &finished.message_id, record);
        }
        for accepted in open {
            let handle = Handle::new(true);
            {
                let mut active = self.active();
                active.insert(accepted.task_id.clone(), handle.clone());
                self.active_count.send_replace(active.len());
            }
            let tasks = self.clone();
            let request = Request {
                task_id: accepted.task_id,
                source: accepted.source,
                operation: accepted.operation,
                args: Some(accepted.args),
                who: accepted.who,
                approval: None,
            };
            let approved = approved_of(&accepted.approval);
            let span = span(&request);
            let recovering = async move {
                let record = Some(accepted.record).filter(|f| !f.is_empty());
                let (message, streamed_on) =
                    tasks.recovered(&request, record.as_deref(), approved, &handle).await;
                match record {
                    Some(record) => tasks.deliver_bash(&request, message, record, streamed_on, &handle).await,
                    None => {
                        let (id, text) = tasks.keep(&request, message, None).await;
                        tasks.send_new(id, text).await;
                    }
                }
                tasks.leave(&request.task_id, &handle);
            };
            tokio::spawn(recovering.instrument(span));
        }
        Ok(())
    }

    pub(super) async fn recovered(
        &self,
        request: &Request,
        record: Option<&str>,
        approved: Option<Approved>,
        handle: &Handle,
    ) -> ((String, String), Option<u64>) {
        let work = operations::decode(&request.operation, request.args.as_deref());
        let (Ok(Work::Bash(mut bash)), Some(record)) = (work, record) else {
            let failure =
                Failure::Lost("the runner was stopped while it carried this out; its end is unknown".into());
            return (self.failure(request, &failure), None);
        };
        bash.approved = approved;
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
                let failure = self.runner.record_lost(&bash, &self.requester(request), &reason).await;
                (self.failure(request, &failure), None)
            }
        }
    }
}
