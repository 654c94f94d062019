//! Approvals: what waits for a person's yes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use legwork_api::{
    Approval, ApprovalEvents, ApprovalId, Approve, Code, Deny, GetApproval, ListApprovals, Page, RunId,
    RunnerId, TaskId, exact, page_size,
};
use legwork_store::{Approval as Stored, ApprovalFilter, ApprovalState, Token};
use tokio::sync::broadcast::error::RecvError;

use super::door::Asked;
use super::problem::{Problem, cursor_of};
use crate::engine::{DecideError, Hub, Said};

/// What a list has unless it is told otherwise.
const PAGE: u32 = 50;
const MAX_NOTE: usize = 1000;
/// Longest time for which a yes speaks for the same line, in seconds.
const MAX_GRANT_S: u64 = 8 * 3600;
const MAX_LINE: usize = 64 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(5);

pub(super) fn view(a: Stored) -> Approval {
    Approval {
        id: ApprovalId(a.id),
        kind: a.kind.into(),
        state: a.state.into(),
        task: TaskId(a.task_id),
        run: RunId(a.run_id),
        runner: a.runner_name,
        runner_id: RunnerId(a.runner_id),
        shown: exact(&a.command),
        command: a.command,
        line: a.line,
        workdir: a.workdir,
        timeout_s: a.timeout_s,
        rule: a.rule,
        part: a.part,
        digest: a.digest,
        reason: a.reason,
        asked_by: a.asked_by,
        asked_by_token: a.asked_by_token.into(),
        persons: a.persons,
        votes: a.votes,
        note: a.note,
        refused: a.refused,
        edited: a.edited,
        grant_until_ms: a.grant_until_ms,
        created_at_ms: a.created_at_ms,
        expires_at_ms: a.expires_at_ms,
        decided_at_ms: a.decided_at_ms,
    }
}

pub(super) async fn list(
    hub: Arc<Hub>,
    asked: Asked<ListApprovals>,
) -> Result<Page<Approval, ApprovalId>, Problem> {
    let limit = page_size(asked.query.limit, PAGE);
    let state = asked.query.state.as_ref().map(|state| {
        state.known().ok_or_else(|| {
            let words: Vec<&str> = ApprovalState::ALL.iter().map(|state| state.as_str()).collect();
            Problem::query("state", &format!("must be one of {}", words.join(", ")))
        })
    });
    let cursor = asked.query.cursor.map(|ApprovalId(id)| id);
    cursor_of(cursor.as_deref(), &["apr_"])?;
    let filter = ApprovalFilter {
        before: cursor,
        state: state.transpose()?,
        task: asked.query.task.map(|TaskId(id)| id),
        limit: u32::try_from(limit + 1).unwrap_or(u32::MAX),
    };
    let found = hub.store.approvals(filter).await?.into_iter().map(view).collect();
    Ok(Page::cut(found, limit, |approval: &Approval| approval.id.clone()))
}

pub(super) async fn show(hub: Arc<Hub>, asked: Asked<GetApproval>) -> Result<Approval, Problem> {
    let ApprovalId(id) = asked.id;
    let found = hub.store.approval(id.clone()).await?;
    found.map(view).ok_or_else(|| Problem::absent::<ApprovalId>(&id))
}

fn checked_note(note: Option<String>) -> Result<Option<String>, Problem> {
    let note = note.map(|note| note.trim().to_owned()).filter(|note| !note.is_empty());
    match note {
        Some(note) if note.len() > MAX_NOTE || note.chars().any(char::is_control) => Err(Problem::field(
            "note",
            &format!("must be at most {MAX_NOTE} bytes without control characters"),
        )),
        note => Ok(note),
    }
}

pub(super) async fn approve(hub: Arc<Hub>, asked: Asked<Approve>) -> Result<Approval, Problem> {
    let yes = asked.body;
    if yes.for_s.is_some_and(|seconds| seconds == 0 || seconds > MAX_GRANT_S) {
        return Err(Problem::field("for_s", &format!("must be a number from 1 to {MAX_GRANT_S}")));
    }
    if yes.command.as_ref().is_some_and(|line| line.len() > MAX_LINE) {
        return Err(Problem::field("command", &format!("must be at most {MAX_LINE} bytes long")));
    }
    let said = Said {
        yes: true,
        note: checked_note(yes.note)?,
        digest: yes.digest,
        for_s: yes.for_s,
        command: yes.command,
    };
    decide(hub, asked.id, said, asked.by).await
}

pub(super) async fn deny(hub: Arc<Hub>, asked: Asked<Deny>) -> Result<Approval, Problem> {
    let said = Said { note: checked_note(asked.body.note)?, ..Said::default() };
    decide(hub, asked.id, said, asked.by).await
}

async fn decide(
    hub: Arc<Hub>,
    ApprovalId(id): ApprovalId,
    said: Said,
    by: Token,
) -> Result<Approval, Problem> {
    let wanted = id.clone();
    // It goes on if the caller goes away.
    let decided = tokio::spawn(async move { hub.decide(&wanted, said, &by).await }).await;
    decided.map_err(Problem::internal)?.map(view).map_err(|error| refusal(&id, error))
}

fn refusal(id: &str, error: DecideError) -> Problem {
    match error {
        DecideError::Unknown => Problem::absent::<ApprovalId>(id),
        DecideError::Own => Problem::new(
            Code::OwnRequest,
            "who asked for something, or wrote the line, does not say yes to it: another person must",
        ),
        DecideError::Late(approval) => {
            let by: Vec<&str> = approval.votes.iter().map(|vote| vote.by.as_str()).collect();
            let by = if by.is_empty() { String::new() } else { format!(", by {}", by.join(" and ")) };
            let word = match approval.state {
                ApprovalState::Waiting => {
                    "you have said so already, and it waits for another person".to_owned()
                }
                state => format!("it is {} already{by}", state.as_str()),
            };
            Problem::new(Code::AlreadyDecided, word)
        }
        DecideError::Invalid { field, reason } => Problem::field(field, reason),
        DecideError::Store(error) => error.into(),
    }
}

/// Approvals as they come and change, and `reset` where some may have been missed.
pub(super) async fn events(hub: Arc<Hub>, _: Asked<ApprovalEvents>) -> Result<Response, Problem> {
    let changes = hub.approvals.subscribe();
    let first = Some(Event::default().event("reset").data("{}"));
    let events = stream::unfold((hub, changes, first), |(hub, mut changes, first)| async move {
        if let Some(first) = first {
            return Some((Ok::<_, Infallible>(first), (hub, changes, None)));
        }
        loop {
            let event = match changes.recv().await {
                Ok(id) => match hub.store.approval(id.to_string()).await {
                    Ok(Some(approval)) => Event::default()
                        .event("approval")
                        .data(serde_json::to_string(&view(approval)).unwrap_or_default()),
                    // Forgotten with its task.
                    Ok(None) => continue,
                    Err(_) => Event::default().event("reset").data("{}"),
                },
                Err(RecvError::Lagged(_)) => Event::default().event("reset").data("{}"),
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok(event), (hub, changes, None)));
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}
