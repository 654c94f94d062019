//! What stands between people and agents at work: words, answers, and what sessions remember.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use legwork_api::{Code, ForgetSession, PodTask, Role, TellPodTask};
use legwork_proto::task::Permission;
use legwork_store::Token;
use serde::Deserialize;
use serde_json::json;

use super::door::Asked;
use super::internal::{Key, may_work};
use super::payload;
use super::pods::load;
use super::problem::Problem;
use crate::engine::Hub;
use crate::pods::{MAX_SESSION, TellError};
use crate::secrets::against;

/// The longest that is said at a time.
const MAX_SAID: usize = 32 * 1024;

pub(super) async fn tell(hub: Arc<Hub>, asked: Asked<TellPodTask>) -> Result<PodTask, Problem> {
    let body = asked.body;
    let answer = body.answer.map(|answer| Permission {
        tool_id: answer.tool_id,
        allow: answer.allow,
        note: answer.note,
    });
    let invalid = |text: &str| Problem::field("say", text);
    match (&body.say, &answer) {
        (Some(text), None) if text.trim().is_empty() => return Err(invalid("must not be empty")),
        (Some(text), None) if text.len() > MAX_SAID => {
            return Err(invalid(&format!("must have at most {MAX_SAID} bytes")));
        }
        (Some(_), None) | (None, Some(_)) => {}
        _ => return Err(invalid("must be there, or answer, and not both")),
    }
    let task = load(&hub, asked.id).await?;
    may_steer(&hub, &task, &asked.by).await?;
    let task = PodTask { config: None, ..task };
    match hub.tell_pod_task(asked.id.0, asked.by.name, body.say, answer) {
        Ok(()) => Ok(task),
        Err(TellError::Over) => Err(Problem::new(Code::TaskOver, "the task is over")),
        Err(TellError::TooMany) => Err(Problem::new(Code::Busy, "the task was told too much already")),
        Err(TellError::Io(error)) => {
            tracing::error!("what was said to a task can't be kept: {error}");
            Err(Problem::new(Code::StoreFailed, "what was said can't be kept"))
        }
    }
}

/// Who steers an agent has its secrets: only those may whom they are for, as it was when the task was
/// taken, and as it is now.
async fn may_steer(hub: &Hub, task: &PodTask, by: &Token) -> Result<(), Problem> {
    if by.role == Role::Admin {
        return Ok(());
    }
    let now = hub.tokens_of(task.config.as_ref().map_or("", |config| config.0.get())).await;
    let secret = hub.task_is_not_for(task.id.0, &by.name).or(against(&now, &by.name).map(str::to_owned));
    match secret {
        None => Ok(()),
        Some(secret) => Err(not_for(&format!("the task has the secret '{secret}'"), by)),
    }
}

fn not_for(what: &str, by: &Token) -> Problem {
    Problem::new(Code::Forbidden, format!("{what}, which is not for the token '{}'", by.name))
}

pub(super) async fn forget_session(hub: Arc<Hub>, asked: Asked<ForgetSession>) -> Result<(), Problem> {
    if asked.by.role != Role::Admin {
        let bound = hub.session_bounds(asked.id.0.clone()).await.map_err(Problem::internal)?;
        if let Some(secret) = against(&bound, &asked.by.name) {
            return Err(not_for(&format!("the session has tasks with the secret '{secret}'"), &asked.by));
        }
    }
    match hub.forget_session(asked.id.0).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Problem::new(Code::NoSuchSession, "there is no such session")),
        Err(error) => {
            tracing::error!("a session can't be removed: {error}");
            Err(Problem::new(Code::StoreFailed, "the session can't be removed"))
        }
    }
}

/// Another session than the task's own.
#[derive(Deserialize)]
pub(super) struct Of {
    of: Option<String>,
}

fn refused(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(json!({ "error": text }))).into_response()
}

/// Gives what is kept of a session to the runner that works on a task of it, or on a fork of it.
pub(super) async fn recall(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    (Query(key), Query(Of { of })): (Query<Key>, Query<Of>),
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = may_work(&hub, &id, &headers, &key).await {
        return refused;
    }
    if hub.session_of(&id).is_none() {
        return refused(StatusCode::NOT_FOUND, "The task has no session");
    }
    // Others' are no more to it than those that there are not.
    let session = match hub.readable_session(&id, of).await {
        Ok(Some(session)) => session,
        Ok(None) => {
            let text = "The session is neither the task's own nor its fork_of, or is for other tokens";
            return refused(StatusCode::FORBIDDEN, text);
        }
        Err(error) => {
            tracing::error!("whom a session is for can't be read: {error}");
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "The session can't be read");
        }
    };
    match hub.session(session).await {
        Ok(Some(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(None) => refused(StatusCode::NOT_FOUND, "There is no such session"),
        Err(error) => {
            tracing::error!("a session can't be read: {error}");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "The session can't be read")
        }
    }
}

/// Keeps what a runner says of its task's session.
pub(super) async fn remember(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    Query(key): Query<Key>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    if let Err(refused) = may_work(&hub, &id, &headers, &key).await {
        return refused;
    }
    let Some(own) = hub.session_of(&id) else {
        return refused(StatusCode::NOT_FOUND, "The task has no session");
    };
    let body = match payload::read(&hub, request, MAX_SESSION).await {
        Ok(body) => body,
        Err(error) => return Problem::from(error).into_response(),
    };
    let is_session =
        serde_json::from_slice::<serde_json::Value>(&body.bytes).is_ok_and(|v| v["messages"].is_array());
    if !is_session {
        return refused(StatusCode::BAD_REQUEST, "Invalid session");
    }
    match hub.keep_session(own, body.bytes.to_vec()).await {
        Ok(()) => axum::Json(json!({ "ok": true })).into_response(),
        Err(error) => {
            tracing::error!("a session can't be kept: {error}");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "The session can't be kept")
        }
    }
}
