//! Tokens, and the exchange of an enrolment.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Caller;
use super::payload::{ADMIN, ENROLL, Sent};
use super::problem::Problem;
use crate::auth::{Auth, Token};
use crate::clock::now_ms;
use crate::engine::{Hub, NameError, NewToken as Wanted};
use crate::model::Role;

const MAX_NAME: usize = 100;
/// Longest life of a token that ends by itself.
const MAX_EXPIRES_S: u64 = 10 * 366 * 86_400;

/// Decodes a JSON body; whatever the content type claims.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not as expected: {e}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    role: String,
    /// It is good for so long.
    #[serde(default)]
    expires_s: Option<u64>,
}

fn checked_name(name: &str) -> Result<String, Problem> {
    let name = name.trim();
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Problem::field(
            "name",
            &format!("must be 1 to {MAX_NAME} bytes without control characters"),
        ));
    }
    Ok(name.to_owned())
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Store(error) => error.into(),
            error => Self::new(StatusCode::CONFLICT, error.to_string()),
        }
    }
}

pub(super) async fn create(State(hub): State<Arc<Hub>>, sent: Sent<ADMIN>) -> Result<Response, Problem> {
    let new: NewToken = body(&sent.payload.bytes)?;
    let name = checked_name(&new.name)?;
    let role = Role::parse(&new.role)
        .ok_or_else(|| Problem::field("role", "must be admin, operator, viewer, runner, fleet or enroll"))?;
    if new.expires_s.is_some_and(|s| s == 0 || s > MAX_EXPIRES_S) {
        return Err(Problem::field("expires_s", &format!("must be a number from 1 to {MAX_EXPIRES_S}")));
    }
    let expires_at_ms = new.expires_s.map(|s| now_ms() + s * 1000);
    issue(&hub, Wanted { name, role, expires_at_ms }).await
}

async fn issue(hub: &Arc<Hub>, new: Wanted) -> Result<Response, Problem> {
    if new.role == Role::Runner {
        hub.name_is_free(&new.name, "")?;
    }
    let role = new.role;
    let (token, secret) = hub.new_token(new).await?;
    let answer = json!({
        "id": token.id, "name": token.name, "role": role, "token": secret, "runner_id": token.runner_id,
        "expires_at_ms": token.expires_at_ms,
    });
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}

fn view(token: &Token) -> serde_json::Value {
    json!({
        "id": token.id, "name": token.name, "role": token.role, "runner_id": token.runner_id,
        "created_at_ms": token.created_at_ms, "expires_at_ms": token.expires_at_ms, "revoked": token.revoked,
        "expired": token.is_expired(),
    })
}

pub(super) async fn list(State(hub): State<Arc<Hub>>, caller: Caller) -> Result<Response, Problem> {
    caller.needs(Role::Admin)?;
    let items: Vec<_> = hub.auth.list().iter().map(view).collect();
    Ok(axum::Json(json!({ "items": items, "next": null })).into_response())
}

pub(super) async fn me(caller: Caller) -> Response {
    axum::Json(view(&caller.0)).into_response()
}

pub(super) async fn revoke(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.needs(Role::Admin)?;
    if !hub.auth.list().iter().any(|t| t.id == id) {
        return Err(Problem::not_found("token", &id));
    }
    if hub.auth.is_last_admin(&id) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "this is the last admin token that lasts: make another one first (legwork token create NAME --role admin, \
             or legwork hub token on the hub's machine)",
        ));
    }
    // It goes on if the caller goes away, or was revoked by this very call.
    let revoked = tokio::spawn(async move { hub.revoke_token(&id).await }).await;
    revoked.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrol {
    /// What the runner shall be called; else what the token is called.
    #[serde(default)]
    name: Option<String>,
}

/// Exchanges a one-time token for a runner's. Two at once: one of them gets it.
pub(super) async fn enroll(State(hub): State<Arc<Hub>>, sent: Sent<ENROLL>) -> Result<Response, Problem> {
    let token = sent.caller.0;
    let asked = body::<Enrol>(&sent.payload.bytes)?.name;
    let name = checked_name(asked.as_deref().unwrap_or(&token.name))?;
    // A name that can't be had does not cost the token.
    hub.name_is_free(&name, "")?;
    let id = token.id.clone();
    let won = hub.store.write(move |c| Auth::revoke_stored(c, &id)).await?;
    hub.auth.revoke(&token.id);
    if !won {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "the enrolment token was used before"));
    }
    issue(&hub, Wanted { name, role: Role::Runner, expires_at_ms: None }).await
}
