//! The routes of task runners, in the words of docs/protocols/task.md §7.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use legwork_api::PodTaskId;
use legwork_proto::task::{Assigned, Register};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::bearer;
use super::payload::{self, BodyError, Payload};
use crate::engine::{Ending, Hub};
use crate::model;
use crate::pods::{MessageError, NewMessage, NewPart, Patch, RegisterError, StreamError, caller_session};

/// The largest registration.
const MAX_REGISTRATION: usize = 64 * 1024;
/// The largest event, message or part: what a task's events hold.
const MAX_EVENT: usize = crate::events::MAX_PAYLOAD;

/// The key in an address that we gave out.
#[derive(Deserialize)]
pub(super) struct Key {
    key: Option<String>,
}

/// An answer that says no.
struct Refused(StatusCode, &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, axum::Json(json!({ "error": self.1 }))).into_response()
    }
}

fn bad(text: &'static str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, text)
}

fn answered(result: Result<Response, Refused>) -> Response {
    result.unwrap_or_else(Refused::into_response)
}

fn ok() -> Response {
    axum::Json(json!({ "ok": true })).into_response()
}

/// What somebody shows, in any of the ways there are.
fn shown<'a>(headers: &'a HeaderMap, key: &'a Key) -> [Option<&'a str>; 3] {
    let internal = headers.get("x-plue-internal-token").and_then(|value| value.to_str().ok());
    [internal, bearer(headers), key.key.as_deref()]
}

fn is_internal(hub: &Hub, headers: &HeaderMap, key: &Key) -> bool {
    shown(headers, key).into_iter().flatten().any(|shown| hub.pods.admits(shown))
}

/// Whether somebody works on a task; the answer if not.
pub(super) async fn may_work(
    hub: &Arc<Hub>,
    id: &str,
    headers: &HeaderMap,
    key: &Key,
) -> Result<(), Response> {
    match hub.may_send(id, key.key.as_deref(), is_internal(hub, headers, key)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(bad("The task is over, or another runner's").into_response()),
        Err(error) => Err(stream_error(error, "Failed to find the task").into_response()),
    }
}

fn unauthorized() -> Refused {
    Refused(StatusCode::UNAUTHORIZED, "Internal authentication required")
}

/// Reads a body. To be called when it is known who sends it.
async fn read(hub: &Hub, request: Request, most: usize) -> Result<Payload, Refused> {
    payload::read(hub, request, most).await.map_err(|error| {
        let text = match error {
            BodyError::TooLarge(_) => "The request body is too large",
            BodyError::Busy => "Too many requests are being read",
            BodyError::Broken => "The request body did not arrive as a whole",
        };
        Refused(error.status(), text)
    })
}

fn parsed<T: DeserializeOwned>(body: &Payload) -> Result<T, Refused> {
    if body.bytes.is_empty() {
        return Err(bad("Missing request body"));
    }
    serde_json::from_slice(&body.bytes).map_err(|_| bad("Invalid JSON"))
}

/// Where the caller reaches us.
fn base_url(hub: &Hub, headers: &HeaderMap) -> String {
    let front = hub.pods.front.get().cloned().unwrap_or_default();
    if let Some(url) = front.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("{}://{host}", if front.tls { "https" } else { "http" })
}

pub(super) async fn register(
    State(hub): State<Arc<Hub>>,
    Query(key): Query<Key>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    if !is_internal(&hub, &headers, &key) {
        return unauthorized().into_response();
    }
    let body = read(&hub, request, MAX_REGISTRATION).await;
    let said: Value = match body.and_then(|body| parsed(&body)) {
        Ok(said) => said,
        Err(refused) => return refused.into_response(),
    };
    for (field, problem) in [("pod_name", "Missing pod_name"), ("pod_ip", "Missing pod_ip")] {
        if !said[field].is_string() {
            return bad(problem).into_response();
        }
    }
    let Ok(said) = serde_json::from_value::<Register>(said) else {
        return bad("Invalid JSON").into_response();
    };
    let name = said.pod_name.clone();
    match hub.register_pod(said).await {
        Ok(ready) => {
            let mut answer = ready.answer;
            let base = base_url(&hub, &headers);
            if let (Some(task), Some(key)) = (&mut answer.task, &ready.key) {
                if ready.is_ours && !add_secrets(&hub, task, &name).await {
                    // Its end says why; the runner asks for another one.
                    answer.task = None;
                    return axum::Json(answer).into_response();
                }
                answer.callback_url = Some(format!("{base}/internal/tasks/{}/stream?key={key}", task.id));
                task.persistence_url = task.agent_token.is_some().then(|| base.clone());
            }
            axum::Json(answer).into_response()
        }
        Err(RegisterError::Invalid(problem)) => bad(problem).into_response(),
        Err(RegisterError::Store(error)) => {
            tracing::error!("{error}");
            Refused(StatusCode::INTERNAL_SERVER_ERROR, "Failed to register runner").into_response()
        }
    }
}

/// Gives a task the secrets that it asks for and may have. One that is there and can't be given is the
/// end of it: its runner would look for another of that name, and say that there is none.
async fn add_secrets(hub: &Arc<Hub>, task: &mut Assigned, runner: &str) -> bool {
    if crate::secrets::asked_for(task.config.get()).is_empty() {
        return true;
    }
    let Ok(id) = task.id.to_string().parse().map(PodTaskId) else { return true };
    let given = match super::pods::load(hub, id).await {
        Ok(known) => {
            let whom = (known.created_by, known.kind.as_str().to_owned(), runner.to_owned());
            hub.secrets_for(task.config.get().to_owned(), whom).await.map_err(|error| error.to_string())
        }
        Err(_) => Err("it can't be found out whose task it is: it gets no secrets".to_owned()),
    };
    match given {
        Ok(secrets) => {
            task.secrets = secrets;
            true
        }
        Err(why) => {
            tracing::error!(task = id.0, "a task ends: {why}");
            if let Err(error) = hub.finish_pod_task(id.0, Ending::new(model::State::Failed, Some(&why))).await
            {
                tracing::error!("{error}");
            }
            false
        }
    }
}

pub(super) async fn heartbeat(
    State(hub): State<Arc<Hub>>,
    Path(name): Path<String>,
    Query(key): Query<Key>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    if !is_internal(&hub, &headers, &key) {
        return unauthorized().into_response();
    }
    if name.trim().is_empty() {
        return bad("Missing pod_name").into_response();
    }
    /// Our runners wait for the word that their task is to end.
    #[derive(Default, serde::Deserialize)]
    struct Beat {
        #[serde(default)]
        wait_s: u64,
        /// The number of the last that its task has heard.
        #[serde(default)]
        seen: Option<u64>,
    }
    // The original's heartbeat has no body.
    let body = read(&hub, request, MAX_REGISTRATION).await;
    let Beat { wait_s, seen } = body.and_then(|body| parsed(&body)).unwrap_or_default();
    let (cancel, inputs) = hub.heartbeat_until(&name, seen, Duration::from_secs(wait_s)).await;
    let mut answer = json!({ "ok": true });
    for (name, list) in [("cancel", json!(cancel)), ("input", json!(inputs))] {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            answer[name] = list;
        }
    }
    axum::Json(answer).into_response()
}

fn stream_error(error: StreamError, failed: &'static str) -> Refused {
    match error {
        StreamError::Unauthorized => unauthorized(),
        StreamError::Invalid(problem) => bad(problem),
        StreamError::Store(error) => {
            tracing::error!("{error}");
            Refused(StatusCode::INTERNAL_SERVER_ERROR, failed)
        }
    }
}

pub(super) async fn stream(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    Query(key): Query<Key>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let internal = is_internal(&hub, &headers, &key);
    let taken = async {
        let failed = |error| stream_error(error, "Failed to process event");
        // What is not listened to need not be read either.
        if !hub.may_send(&id, key.key.as_deref(), internal).await.map_err(failed)? {
            return Ok(false);
        }
        let body = read(&hub, request, MAX_EVENT).await?;
        hub.take_event(&id, key.key.as_deref(), internal, &body.bytes).await.map_err(failed)
    };
    match taken.await {
        Ok(false) => ok(),
        Ok(true) => axum::Json(json!({ "ok": true, "cancel": true })).into_response(),
        Err(refused) => refused.into_response(),
    }
}

pub(super) async fn complete(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    Query(key): Query<Key>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let internal = is_internal(&hub, &headers, &key);
    let completed = async {
        let failed = |error| stream_error(error, "Failed to complete task");
        if !hub.may_send(&id, key.key.as_deref(), internal).await.map_err(failed)? {
            return Ok(());
        }
        let said: Value = parsed(&read(&hub, request, MAX_REGISTRATION).await?)?;
        let success = said["success"].as_bool().unwrap_or(false);
        hub.complete(&id, key.key.as_deref(), internal, success).await.map_err(failed)
    };
    completed.await.map_or_else(Refused::into_response, |()| ok())
}

/// The session of an agent's token.
async fn session(hub: &Hub, headers: &HeaderMap) -> Result<String, Refused> {
    let unauthorized = |text| Refused(StatusCode::UNAUTHORIZED, text);
    if !headers.contains_key(header::AUTHORIZATION) {
        return Err(unauthorized("Authorization header required"));
    }
    let Some(token) = bearer(headers).filter(|token| !token.is_empty()) else {
        return Err(unauthorized("Bearer token required"));
    };
    match caller_session(hub, token).await {
        Ok(Some(session)) if session.is_empty() => Err(unauthorized("Token not associated with session")),
        Ok(Some(session)) => Ok(session),
        Ok(None) => Err(unauthorized("Invalid or expired agent token")),
        Err(error) => {
            tracing::error!("{error}");
            Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "Token validation failed"))
        }
    }
}

fn message_error(error: MessageError, failed: &'static str) -> Refused {
    match error {
        MessageError::NotFound => Refused(StatusCode::NOT_FOUND, "Message not found"),
        MessageError::Invalid => bad("Invalid JSON"),
        MessageError::Store(error) => {
            tracing::error!("{error}");
            Refused(StatusCode::INTERNAL_SERVER_ERROR, failed)
        }
    }
}

fn created(id: &str) -> Response {
    (StatusCode::CREATED, axum::Json(json!({ "id": id }))).into_response()
}

pub(super) async fn create_message(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let made = async {
        let session = session(&hub, &headers).await?;
        let new: NewMessage = parsed(&read(&hub, request, MAX_EVENT).await?)?;
        let id = hub.add_message(session, new).await;
        id.map(|id| created(&id)).map_err(|error| message_error(error, "Failed to create message"))
    };
    answered(made.await)
}

pub(super) async fn patch_message(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let patched = async {
        let session = session(&hub, &headers).await?;
        let patch: Patch = parsed(&read(&hub, request, MAX_EVENT).await?)?;
        let done = hub.patch_message(session, id, patch).await;
        done.map(|()| ok()).map_err(|error| message_error(error, "Failed to update message"))
    };
    answered(patched.await)
}

pub(super) async fn create_part(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let made = async {
        let session = session(&hub, &headers).await?;
        let new: NewPart = parsed(&read(&hub, request, MAX_EVENT).await?)?;
        let id = hub.add_part(session, id, new).await;
        id.map(|id| created(&id)).map_err(|error| message_error(error, "Failed to create part"))
    };
    answered(made.await)
}
