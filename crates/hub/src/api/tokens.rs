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
use super::problem::Problem;
use crate::auth::{Auth, Token};
use crate::engine::Hub;
use crate::model::Role;

const MAX_NAME: usize = 100;

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

pub(super) async fn create(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    bytes: Bytes,
) -> Result<Response, Problem> {
    caller.needs(Role::Admin)?;
    let new: NewToken = body(&bytes)?;
    let name = checked_name(&new.name)?;
    let role = Role::parse(&new.role)
        .ok_or_else(|| Problem::field("role", "must be admin, operator, viewer, runner or enroll"))?;
    issue(&hub, name, role).await
}

async fn issue(hub: &Arc<Hub>, name: String, role: Role) -> Result<Response, Problem> {
    let (token, secret) = hub.new_token(name, role).await?;
    let answer = json!({ "id": token.id, "name": token.name, "role": role, "token": secret, "runner_id": token.runner_id });
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}

fn view(token: &Token) -> serde_json::Value {
    json!({
        "id": token.id, "name": token.name, "role": token.role, "runner_id": token.runner_id,
        "created_at_ms": token.created_at_ms, "revoked": token.revoked,
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
    let row = id.clone();
    hub.store.write(move |c| Auth::revoke_stored(c, &row)).await?;
    hub.auth.revoke(&id);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrol {
    /// What the runner shall be called.
    name: String,
}

/// Exchanges a one-time token for a runner's. Two at once: one of them gets it.
pub(super) async fn enroll(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    bytes: Bytes,
) -> Result<Response, Problem> {
    caller.needs(Role::Enroll)?;
    let name = checked_name(&body::<Enrol>(&bytes)?.name)?;
    let id = caller.0.id.clone();
    let won = hub.store.write(move |c| Auth::revoke_stored(c, &id)).await?;
    hub.auth.revoke(&caller.0.id);
    if !won {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "the enrolment token was used before"));
    }
    issue(&hub, name, Role::Runner).await
}
