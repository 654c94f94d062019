//! Tokens, and the exchange of an enrolment.

use std::sync::Arc;

use legwork_api::{
    Code, CreateToken, Enroll, IssuedToken, ListTokens, Me, Page, RevokeToken, Role, RunnerId,
    Token as Shown, TokenId,
};
use legwork_store::Token;

use super::door::Asked;
use super::problem::Problem;
use crate::auth::is_expired;
use crate::clock::now_ms;
use crate::engine::{Hub, NewToken as Wanted};

const MAX_NAME: usize = 100;
/// Longest life of a token that ends by itself.
const MAX_EXPIRES_S: u64 = 10 * 366 * 86_400;

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

pub(super) async fn create(hub: Arc<Hub>, asked: Asked<CreateToken>) -> Result<IssuedToken, Problem> {
    let new = asked.body;
    let name = checked_name(&new.name)?;
    let role = new.role.known().ok_or_else(|| {
        let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
        Problem::field("role", &format!("must be one of {}", roles.join(", ")))
    })?;
    if new.expires_s.is_some_and(|s| s == 0 || s > MAX_EXPIRES_S) {
        return Err(Problem::field("expires_s", &format!("must be a number from 1 to {MAX_EXPIRES_S}")));
    }
    let expires_at_ms = new.expires_s.map(|s| now_ms() + s * 1000);
    issue(&hub, Wanted { name, role, expires_at_ms }).await
}

async fn issue(hub: &Arc<Hub>, new: Wanted) -> Result<IssuedToken, Problem> {
    if new.role == Role::Runner {
        hub.name_is_free(&new.name, "")?;
    }
    let (token, secret) = hub.new_token(new).await?;
    Ok(IssuedToken {
        id: TokenId(token.id),
        name: token.name,
        role: token.role.into(),
        token: secret,
        runner_id: token.runner_id.map(RunnerId),
        expires_at_ms: token.expires_at_ms,
    })
}

fn shown(token: &Token) -> Shown {
    Shown {
        id: TokenId(token.id.clone()),
        name: token.name.clone(),
        role: token.role.into(),
        runner_id: token.runner_id.clone().map(RunnerId),
        created_at_ms: token.created_at_ms,
        expires_at_ms: token.expires_at_ms,
        revoked: token.revoked,
        expired: is_expired(token),
    }
}

pub(super) async fn list(hub: Arc<Hub>, _: Asked<ListTokens>) -> Result<Page<Shown, TokenId>, Problem> {
    Ok(Page { items: hub.auth.list().iter().map(shown).collect(), next: None })
}

pub(super) async fn me(_: Arc<Hub>, asked: Asked<Me>) -> Result<Shown, Problem> {
    Ok(shown(&asked.by))
}

pub(super) async fn revoke(hub: Arc<Hub>, asked: Asked<RevokeToken>) -> Result<(), Problem> {
    let TokenId(id) = asked.id;
    if !hub.auth.list().iter().any(|t| t.id == id) {
        return Err(Problem::absent::<TokenId>(&id));
    }
    if hub.auth.is_last_admin(&id) {
        return Err(Problem::new(
            Code::LastAdmin,
            "this is the last admin token that lasts: make another one first (legwork token create NAME --role admin, \
             or legwork hub token on the hub's machine)",
        ));
    }
    // It goes on if the caller goes away, or was revoked by this very call.
    let revoked = tokio::spawn(async move { hub.revoke_token(&id).await }).await;
    revoked.map_err(Problem::internal)??;
    Ok(())
}

/// Exchanges a one-time token for a runner's. Two at once: one of them gets it.
pub(super) async fn enroll(hub: Arc<Hub>, asked: Asked<Enroll>) -> Result<IssuedToken, Problem> {
    let token = asked.by;
    let name = checked_name(asked.body.name.as_deref().unwrap_or(&token.name))?;
    // A name that can't be had does not cost the token.
    hub.name_is_free(&name, "")?;
    let won = hub.store.revoke_token(token.id.clone(), now_ms()).await?;
    hub.auth.revoke(&token.id);
    if !won {
        return Err(Problem::new(Code::UsedToken, "the enrolment token was used before"));
    }
    issue(&hub, Wanted { name, role: Role::Runner, expires_at_ms: None }).await
}
