//! Lines that need a person's yes: told to the hub, and forgotten until it comes.

use legwork_proto::dialout::{TaskHeld, kind};
use legwork_runner::{Approved, Command, Held};

use super::{Handle, Request, Tasks};
use crate::operations::Work;

/// Longest name of who said yes that an audit takes, and most of them.
const MOST_NAME: usize = 200;
const MOST_NAMES: usize = 8;

/// That people have said yes to a command, as the journal keeps it.
pub(super) fn written_approval(bash: &Command) -> String {
    let written = bash.approved.as_ref().map(|yes| serde_json::json!([yes.digest, yes.by]).to_string());
    written.unwrap_or_default()
}

/// The same, read.
pub(super) fn approved_of(text: &str) -> Option<Approved> {
    let (digest, by) = serde_json::from_str(text).ok()?;
    Some(Approved { digest, by })
}

/// Tasks that are remembered as held. Of one that is forgotten the hub may be told that nothing is known.
const MOST_HELD: usize = 100_000;

impl Tasks {
    fn held(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<String, u64>> {
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn remember_held(&self, task_id: &str, link: u64) {
        let mut held = self.held();
        held.insert(task_id.to_owned(), link);
        // Ids of later tasks sort behind those of earlier ones.
        if held.len() > MOST_HELD {
            held.pop_first();
        }
    }

    /// Of one that was told on an earlier connection, and is not asked for again on this one, the hub may have
    /// heard nothing.
    pub(super) fn is_held(&self, task_id: &str, link: u64) -> bool {
        self.held().get(task_id) == Some(&link)
    }

    pub(super) fn forget_held(&self, task_id: &str) {
        self.held().remove(task_id);
    }

    /// Work that may begin. A line that the rules ask about is held instead, unless people have said yes
    /// to it: nothing of it is journalled or kept.
    pub(super) async fn released(&self, request: &Request, work: Work, handle: &Handle) -> Option<Work> {
        let Work::Bash(mut bash) = work else { return Some(work) };
        // What has begun is never asked about again.
        if self.store.knows(&request.task_id).unwrap_or(false) {
            return Some(Work::Bash(bash));
        }
        let Some(held) = self.runner.asks(&bash) else { return Some(Work::Bash(bash)) };
        let mut refused = None;
        if let Some(yes) = &request.approval {
            match self.tickets.check(&request.task_id, &held.digest, yes) {
                Ok(()) if yes.by.len() >= usize::from(held.persons) => {
                    bash.approved = Some(Approved { digest: held.digest, by: names(&yes.by) });
                    return Some(Work::Bash(bash));
                }
                Ok(()) => refused = Some(format!("the rule wants {} people to say yes", held.persons)),
                Err(why) => refused = Some(why),
            }
            tracing::warn!("an approval was refused: {}", refused.as_deref().unwrap_or_default());
        }
        match self.current_link() {
            // Its connection is gone: on the next one the hub asks again.
            None => {}
            Some(link) if link.approval => {
                tracing::info!(rule = %held.rule, "held: it needs a person's yes");
                self.runner.record_held(&bash, &self.requester(request), &held).await;
                self.remember_held(&request.task_id, link.number);
                // First: the answer may be that very request, with people's yes.
                self.leave(&request.task_id, handle);
                link.send(kind::TASK_HELD, &self.told(request, held, refused)).await;
            }
            // Who offers no approvals is told that it is denied, and why.
            Some(_) => return Some(Work::Bash(bash)),
        }
        None
    }

    fn told(&self, request: &Request, held: Held, refused: Option<String>) -> TaskHeld {
        let workdir = match crate::operations::decode(&request.operation, request.args.as_deref()) {
            Ok(Work::Bash(bash)) => bash.workdir,
            _ => String::new(),
        };
        TaskHeld {
            task_id: request.task_id.clone(),
            ticket: self.tickets.issue(&request.task_id, &held.digest),
            digest: held.digest,
            command: held.text,
            workdir,
            part: held.part,
            rule: held.rule,
            persons: held.persons,
            refused,
        }
    }
}

/// Names for the audit: bounded, and without what would break its lines.
fn names(by: &[String]) -> Vec<String> {
    let name = |name: &String| name.chars().filter(|c| !c.is_control()).take(MOST_NAME).collect();
    by.iter().take(MOST_NAMES).map(name).collect()
}
