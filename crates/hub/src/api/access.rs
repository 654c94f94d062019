//! Who asks, and for how long: what a token opened ends with it.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::bearer;
use super::problem::Problem;
use crate::auth::{Checked, Grant, Token};
use crate::engine::Hub;
use crate::model::Role;
use crate::server::Peer;

/// Who asks: a valid token of any role.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Token);

impl Caller {
    /// Requires a role.
    pub(super) fn needs(&self, role: Role) -> Result<(), Problem> {
        if self.0.role.reaches(role) {
            return Ok(());
        }
        let text = format!("this needs the role {}, the token has {}", role.as_str(), self.0.role.as_str());
        Err(Problem::new(StatusCode::FORBIDDEN, text))
    }
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Hub>) -> Result<Self, Self::Rejection> {
        match parts.extensions.get::<Result<Self, Refusal>>() {
            Some(Ok(caller)) => Ok(caller.clone()),
            Some(Err(refusal)) => Err(refusal.clone().into_response()),
            None => Err(Refusal::Unauthorized("unknown peer").into_response()),
        }
    }
}

#[derive(Clone)]
enum Refusal {
    Unauthorized(&'static str),
    Limited,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text, header, value) = match self {
            Self::Unauthorized(text) => (StatusCode::UNAUTHORIZED, text, header::WWW_AUTHENTICATE, "Bearer"),
            Self::Limited => (
                StatusCode::TOO_MANY_REQUESTS,
                "too many unknown tokens from this address",
                header::RETRY_AFTER,
                "60",
            ),
        };
        let mut response = Problem::new(status, text).into_response();
        response.headers_mut().insert(header, header::HeaderValue::from_static(value));
        response
    }
}

fn check(hub: &Hub, request: &Request) -> Result<Grant, Refusal> {
    let Some(secret) = bearer(request.headers()) else {
        return Err(Refusal::Unauthorized("no token: send Authorization: Bearer TOKEN"));
    };
    let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>() else {
        return Err(Refusal::Unauthorized("unknown peer"));
    };
    match hub.auth.check(secret, peer.address.ip()) {
        Checked::Valid(grant) => Ok(grant),
        Checked::Revoked => Err(Refusal::Unauthorized(REVOKED)),
        Checked::Expired => Err(Refusal::Unauthorized("the token has expired")),
        Checked::Unknown => Err(Refusal::Unauthorized("the token is unknown")),
        Checked::Limited => Err(Refusal::Limited),
    }
}

const REVOKED: &str = "the token was revoked";

/// Finds out who asks before anything of a body is read, and ends the answer when the token
/// ends: requests that wait, and streams.
pub(super) async fn guard(State(hub): State<Arc<Hub>>, mut request: Request, next: Next) -> Response {
    let grant = match check(&hub, &request) {
        Ok(grant) => grant,
        Err(refusal) => {
            request.extensions_mut().insert(Err::<Caller, _>(refusal));
            return next.run(request).await;
        }
    };
    request.extensions_mut().insert(Ok::<_, Refusal>(Caller(grant.token.clone())));
    // Its exchange is its end.
    if grant.token.role == Role::Enroll {
        return next.run(request).await;
    }
    let mut ended = Box::pin(grant.ended());
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = &mut ended => return Refusal::Unauthorized(REVOKED).into_response(),
    };
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(ended)))
}
