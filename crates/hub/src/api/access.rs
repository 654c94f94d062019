//! Who asks, and for how long: what a token opened ends with it.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use legwork_api::{Code, Role};
use legwork_store::Token;

use super::bearer;
use super::problem::Problem;
use crate::auth::{Checked, Grant};
use crate::engine::Hub;
use crate::server::Peer;

/// Who asks: a valid token of any role.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Token);

impl Caller {
    /// Who asks, as [`guard`] found out.
    pub(crate) fn of(parts: &Parts) -> Result<Self, Problem> {
        match parts.extensions.get::<Result<Self, Problem>>() {
            Some(known) => known.clone(),
            None => Err(unauthorized(Code::NoToken, "unknown peer")),
        }
    }

    /// Requires a role.
    pub(crate) fn needs(&self, role: Role) -> Result<(), Problem> {
        if self.0.role.reaches(role) {
            return Ok(());
        }
        let text = format!("this needs the role {}, the token has {}", role.as_str(), self.0.role.as_str());
        Err(Problem::new(Code::Forbidden, text))
    }
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Hub>) -> Result<Self, Self::Rejection> {
        Self::of(parts)
    }
}

fn unauthorized(code: Code, text: &str) -> Problem {
    Problem::new(code, text).with(header::WWW_AUTHENTICATE, "Bearer")
}

fn revoked() -> Problem {
    unauthorized(Code::RevokedToken, "the token was revoked")
}

fn check(hub: &Hub, request: &Request) -> Result<Grant, Problem> {
    let Some(secret) = bearer(request.headers()) else {
        return Err(unauthorized(Code::NoToken, "no token: send Authorization: Bearer TOKEN"));
    };
    let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>() else {
        return Err(unauthorized(Code::NoToken, "unknown peer"));
    };
    match hub.auth.check(secret, peer.address.ip()) {
        Checked::Valid(grant) => Ok(grant),
        Checked::Revoked => Err(revoked()),
        Checked::Expired => Err(unauthorized(Code::ExpiredToken, "the token has expired")),
        Checked::Unknown => Err(unauthorized(Code::UnknownToken, "the token is unknown")),
        Checked::Limited => {
            let problem = Problem::new(Code::TooManyTokens, "too many unknown tokens from this address");
            Err(problem.with(header::RETRY_AFTER, "60"))
        }
    }
}

/// Finds out who asks before anything of a body is read, and ends the answer when the token
/// ends: requests that wait, and streams.
pub(super) async fn guard(State(hub): State<Arc<Hub>>, mut request: Request, next: Next) -> Response {
    let grant = match check(&hub, &request) {
        Ok(grant) => grant,
        Err(problem) => {
            request.extensions_mut().insert(Err::<Caller, _>(problem));
            return next.run(request).await;
        }
    };
    request.extensions_mut().insert(Ok::<_, Problem>(Caller(grant.token.clone())));
    // Its exchange is its end.
    if grant.token.role == Role::Enroll {
        return next.run(request).await;
    }
    let mut ended = Box::pin(grant.ended());
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = &mut ended => return revoked().into_response(),
    };
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(ended)))
}
