//! Runs that wait for a person's yes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use legwork_api::{ApprovalKind, ApprovalState, Vote};
use legwork_proto::dialout::{Approval as Yes, TaskHeld};
use legwork_store::{Approval, Decided, Decision, StoreError, Token};

use super::{Ending, Hub};
use crate::clock::{Instant, now_ms, sortable_id};
use crate::events::Kind;
use crate::fleet::{LiveApproval, LiveRun, Requester, ToRunner, approval_event};
use crate::model::State;

/// How many changes a listener may be behind; one who is further behind reads the list again.
pub(super) const MOST_BEHIND: usize = 1024;
/// A run about which people were asked so often is not asked about again: its runner's rules change all the
/// time, or it lies.
const MOST_HOLDS: u32 = 5;
/// Most that a runner may say of what it holds. A line is at most 64 KiB, its printing twice as much.
const MAX_COMMAND: usize = 256 * 1024;
const MAX_RULE: usize = 16 * 1024;
const MAX_TICKET: usize = 512;
const MAX_PERSONS: u8 = 2;
/// The most that people may be given to think: a runner's ticket lives for a day, and their yes needs as long again.
pub(super) const MOST_WAIT: Duration = Duration::from_secs(12 * 3600);
/// Most of a digest that a person's yes may leave out: it must have so many digits.
const DIGEST_DIGITS: usize = 16;

/// What a person says to an approval.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) yes: bool,
    pub(crate) note: Option<String>,
    /// What was read, as far as it was said.
    pub(crate) digest: Option<String>,
    /// For how long the same line needs no further yes.
    pub(crate) for_s: Option<u64>,
    /// Another line in its place.
    pub(crate) command: Option<String>,
}

/// Why what was said does not count.
#[derive(Debug)]
pub(crate) enum DecideError {
    Unknown,
    /// Who asked says yes.
    Own,
    /// It was decided before.
    Late(Box<Approval>),
    Invalid {
        field: &'static str,
        reason: &'static str,
    },
    Store(StoreError),
}

impl From<StoreError> for DecideError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Hub {
    /// A runner holds a run: its rules ask for a person's yes.
    pub(crate) async fn held(self: &Arc<Self>, runner_id: &str, said: TaskHeld) {
        let run = {
            let fleet = self.fleet.lock();
            let known = fleet.runs.get(&said.task_id).filter(|run| run.runner_id == runner_id);
            // What has begun, or is not there at all, is not asked about.
            match known.filter(|run| run.state == State::Delivered && !run.closing && !run.unsent) {
                Some(run) => run.clone(),
                None => return,
            }
        };
        if run.cancel_requested.is_some() {
            return self.finish(&run.id, Ending::cancelled(), None).await;
        }
        let refused = match bad(&said) {
            Some(why) => Some(format!("the runner asks for a person's yes in a way that is refused: {why}")),
            None if self.settings.approval_wait.is_zero() => {
                Some("it needs a person's yes, and this hub asks nobody".to_owned())
            }
            None if run.holds >= MOST_HOLDS => Some(format!(
                "people were asked about it {MOST_HOLDS} times, and each time something else would run"
            )),
            None => None,
        };
        if let Some(why) = refused {
            return self.finish(&run.id, Ending::failed(&why), None).await;
        }
        match self.asked_for(&run, said).await {
            Ok(approval) => self.hold_run(run, approval).await,
            // On the next connection it is asked for again.
            Err(error) => self.not_held(&run.id, &error),
        }
    }

    /// What people are asked.
    async fn asked_for(&self, run: &LiveRun, said: TaskHeld) -> Result<Approval, StoreError> {
        let before = match &run.approval {
            Some(approval) => self.store.approval(approval.id.to_string()).await?,
            None => None,
        };
        // Who wrote another line is its author, and says nothing to it.
        let author = before.as_ref().and_then(|a| a.edited.as_ref().and(a.votes.last()));
        let asker = match (author, &before, &run.task.requester) {
            (Some(vote), ..) => {
                Requester { name: vote.by.clone(), token_id: vote.by_token.as_str().to_owned() }
            }
            (None, Some(before), _) => {
                Requester { name: before.asked_by.clone(), token_id: before.asked_by_token.clone() }
            }
            (None, None, Some(requester)) => requester.clone(),
            (None, None, None) => Requester { name: String::new(), token_id: String::new() },
        };
        let line = match before {
            Some(before) => before.edited.unwrap_or(before.line),
            None => command_of(&self.args_of(&run.task).await?),
        };
        let now = now_ms();
        let wait = u64::try_from(self.settings.approval_wait.as_millis()).unwrap_or(u64::MAX);
        Ok(Approval {
            id: sortable_id("apr").map_err(|e| super::no_randomness(&e))?,
            kind: ApprovalKind::Command,
            state: ApprovalState::Waiting,
            task_id: run.task.id.clone(),
            run_id: run.id.clone(),
            runner_id: run.runner_id.clone(),
            runner_name: run.runner_name.clone(),
            command: said.command,
            line,
            workdir: said.workdir,
            timeout_s: run.task.timeout_s,
            part: said.part,
            rule: said.rule,
            digest: said.digest,
            ticket: said.ticket,
            persons: said.persons.max(1),
            reason: run.task.reason.clone(),
            asked_by: asker.name,
            asked_by_token: asker.token_id,
            refused: said.refused,
            votes: Vec::new(),
            note: None,
            edited: None,
            grant_until_ms: None,
            created_at_ms: now,
            expires_at_ms: now + wait,
            decided_at_ms: None,
        })
    }

    async fn hold_run(self: &Arc<Self>, run: LiveRun, approval: Approval) {
        {
            let mut fleet = self.fleet.lock();
            let Some(run) = fleet.runs.get_mut(&run.id).filter(|run| !run.closing) else { return };
            if run.state != State::Delivered {
                return;
            }
            run.state = State::Held;
            run.holds += 1;
            let until = Instant::now() + self.settings.approval_wait;
            run.approval = Some(LiveApproval { id: approval.id.as_str().into(), until, given: false });
        }
        let (hub, run_id) = (self.clone(), run.id.clone());
        let then = move |result: Result<Option<Approval>, StoreError>| match result {
            Ok(Some(approval)) => {
                let telling = hub.clone();
                hub.log.queue_from_store(move || telling.tell_held(&run_id, &approval));
            }
            Ok(None) => tracing::warn!(run = %run_id, "a run that is not with its runner was not held"),
            Err(error) => hub.not_held(&run_id, &error),
        };
        self.store.hold(approval, Box::new(then)).await;
    }

    /// It could not be stored that a run is held: its runner asks again on its next connection.
    fn not_held(&self, run_id: &str, error: &StoreError) {
        tracing::error!(run = run_id, "a run is not held: {error}");
        let mut fleet = self.fleet.lock();
        let Some(run) = fleet.runs.get_mut(run_id).filter(|run| !run.closing) else { return };
        if run.state == State::Held {
            (run.state, run.approval) = (State::Delivered, None);
        }
        let runner = run.runner_id.clone();
        if let Some(link) = fleet.ready_link(&runner) {
            let _ = link.sender.send(ToRunner::Close { code: 1013, reason: "the hub's store failed" });
        }
    }

    /// A run is held, on disk: tells all who follow it. Or a yes that was given for a time speaks for it.
    fn tell_held(&self, run_id: &str, approval: &Approval) {
        let waits = approval.state == ApprovalState::Waiting;
        let run = {
            let mut fleet = self.fleet.lock();
            let Some(run) = fleet.runs.get_mut(run_id).filter(|run| !run.closing) else { return };
            if !waits {
                self.given(run, &approval.id);
            }
            run.clone()
        };
        let (state, why) = match waits {
            true => (
                State::Held,
                format!("waits for a person's yes ({}), by the rule '{}'", approval.id, approval.rule),
            ),
            false => (State::Queued, said_by(approval)),
        };
        let event = approval_event(&run, state, now_ms(), &why, &approval.id);
        run.task.append(|log| log.add(Kind::State, run.ordinal, 0, &event));
        self.tell_approval(&approval.id);
        if !waits && let Some(link) = self.fleet.lock().ready_link(&run.runner_id) {
            // The connection's own task does the delivering.
            let _ = link.sender.send(ToRunner::Deliver);
        }
    }

    /// Says that an approval is new, or stands otherwise.
    pub(crate) fn tell_approval(&self, id: &str) {
        // Nobody may be listening.
        let _ = self.approvals.send(id.into());
    }

    /// A run that was held may go on.
    fn given(&self, run: &mut LiveRun, approval: &str) {
        run.state = State::Queued;
        let until = Instant::now() + self.settings.approval_wait;
        run.approval = Some(LiveApproval { id: approval.into(), until, given: true });
    }

    /// A person says yes or no. The first who does decides, or the second where the rule wants two.
    pub(crate) async fn decide(
        self: &Arc<Self>,
        id: &str,
        said: Said,
        by: &Token,
    ) -> Result<Approval, DecideError> {
        let Some(approval) = self.store.approval(id.to_owned()).await? else {
            return Err(DecideError::Unknown);
        };
        check(&approval, &said, by)?;
        let now = now_ms();
        let decision = Decision {
            id: id.to_owned(),
            vote: Vote { by: by.name.clone(), by_token: by.id.as_str().into(), yes: said.yes, at_ms: now },
            note: said.note,
            grant_until_ms: said.for_s.map(|seconds| now + seconds * 1000),
            edited: said.command,
        };
        let approval = match self.store.decide(decision).await? {
            Decided::Counts(approval) => *approval,
            Decided::Late(approval) => return Err(DecideError::Late(approval)),
            Decided::Unknown => return Err(DecideError::Unknown),
        };
        tracing::info!(approval = %approval.id, run = %approval.run_id, state = approval.state.as_str(), "{}", said_by(&approval));
        match approval.state {
            ApprovalState::Approved | ApprovalState::Edited => self.released(&approval).await,
            ApprovalState::Denied => self.denied(&approval).await,
            ApprovalState::Waiting | ApprovalState::Expired | ApprovalState::Closed => {}
        }
        self.tell_approval(&approval.id);
        Ok(approval)
    }

    /// People have said yes, and that is on disk.
    async fn released(self: &Arc<Self>, approval: &Approval) {
        let run = {
            let mut fleet = self.fleet.lock();
            let held = fleet.runs.get_mut(&approval.run_id).filter(|run| !run.closing);
            let Some(run) = held.filter(|run| run.state == State::Held) else { return };
            self.given(run, &approval.id);
            run.clone()
        };
        let event = approval_event(&run, State::Queued, now_ms(), &said_by(approval), &approval.id);
        let (task, ordinal) = (run.task.clone(), run.ordinal);
        self.log
            .queue(0, move || {
                task.append(|log| log.add(Kind::State, ordinal, 0, &event));
            })
            .await;
        self.deliver_waiting(&run.runner_id).await;
    }

    /// A person has said no, and that is on disk.
    pub(super) async fn denied(self: &Arc<Self>, approval: &Approval) {
        self.finish(&approval.run_id, Ending::denied(&said_by(approval)), None).await;
    }

    /// What goes with a run to which people have said yes: other arguments, if they wrote another line, and
    /// their yes, if that is what they said.
    pub(super) async fn said_yes(
        &self,
        id: &str,
        args: &Bytes,
    ) -> Result<(Option<Arc<Bytes>>, Option<Yes>), StoreError> {
        let Some(approval) = self.store.approval(id.to_owned()).await? else {
            return Err(StoreError::new(format!("the approval {id} is gone")));
        };
        let line = approval.edited.as_ref().unwrap_or(&approval.line);
        let args = (*line != command_of(args)).then(|| Arc::new(with_command(args, line)));
        let yes = (approval.state == ApprovalState::Approved).then(|| Yes {
            id: approval.id,
            ticket: approval.ticket,
            digest: approval.digest,
            by: approval.votes.iter().filter(|vote| vote.yes).map(named).collect(),
        });
        Ok((args, yes))
    }
}

/// What a runner may not say of what it holds.
fn bad(said: &TaskHeld) -> Option<&'static str> {
    let is_hex = said.digest.len() == 64 && said.digest.bytes().all(|b| b.is_ascii_hexdigit());
    let within = |text: &str, most: usize| text.len() <= most;
    if !is_hex {
        Some("its digest is none")
    } else if said.command.is_empty() || !within(&said.command, MAX_COMMAND) {
        Some("the command is empty, or too long")
    } else if !within(&said.rule, MAX_RULE)
        || !within(&said.part, MAX_COMMAND)
        || !within(&said.workdir, MAX_RULE)
    {
        Some("it says too much")
    } else if !within(&said.ticket, MAX_TICKET) || said.refused.as_ref().is_some_and(|r| !within(r, MAX_RULE))
    {
        Some("its ticket is too long")
    } else {
        (said.persons > MAX_PERSONS).then_some("it wants more people than there may be")
    }
}

/// Whether a person may say this at all.
fn check(approval: &Approval, said: &Said, by: &Token) -> Result<(), DecideError> {
    let invalid = |field, reason| Err(DecideError::Invalid { field, reason });
    if !said.yes {
        return Ok(());
    }
    if approval.asked_by_token == by.id {
        return Err(DecideError::Own);
    }
    if let Some(digest) = &said.digest
        && (digest.len() < DIGEST_DIGITS || !approval.digest.starts_with(digest.as_str()))
    {
        return invalid("digest", "this is not the digest of what would run: read the approval again");
    }
    if said.for_s.is_some() && (approval.persons > 1 || said.command.is_some()) {
        return invalid("for_s", "a yes for a time is for one line, and where one person is enough");
    }
    match (&said.command, approval.kind) {
        (Some(_), ApprovalKind::Tool) => invalid("command", "only a command can be written anew"),
        (Some(line), _) if line.trim().is_empty() || *line == approval.line => {
            invalid("command", "must be another line than the one that is held, and not empty")
        }
        _ => Ok(()),
    }
}

fn named(vote: &Vote) -> String {
    format!("{} ({})", vote.by, vote.by_token)
}

/// Who decided what, in words.
fn said_by(approval: &Approval) -> String {
    let by: Vec<&str> = approval.votes.iter().map(|vote| vote.by.as_str()).collect();
    let by = by.join(" and ");
    let note = approval.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
    match approval.state {
        ApprovalState::Denied => {
            let last = approval.votes.last().map(|vote| vote.by.as_str()).unwrap_or_default();
            format!("{last} said no{note}")
        }
        ApprovalState::Edited => format!("{by} wrote another line, which is judged anew{note}"),
        _ => format!("{by} said yes{note}"),
    }
}

/// The line of a command's arguments.
fn command_of(args: &[u8]) -> String {
    #[derive(Default, serde::Deserialize)]
    struct Line {
        #[serde(default)]
        command: String,
    }
    serde_json::from_slice::<Line>(args).unwrap_or_default().command
}

/// The same arguments with another line.
fn with_command(args: &[u8], line: &str) -> Bytes {
    let mut args: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(args).unwrap_or_default();
    args.insert("command".into(), line.into());
    serde_json::Value::Object(args).to_string().into()
}
