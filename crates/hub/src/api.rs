//! REST under `/api/v1`, health, metrics, and the routes as a whole.

mod events;
mod internal;
mod metrics;
mod openapi;
mod pods;
mod problem;
mod releases;
mod runners;
mod tasks;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, patch, post};

use crate::auth::{Checked, Token};
use crate::engine::Hub;
use crate::model::Role;
use crate::server::Peer;
use crate::{session, web};

use problem::Problem;

/// The largest request body: a `write` of 32 MiB in base64, and room.
const MAX_BODY: usize = 48 << 20;

/// All routes of a hub.
pub(crate) fn router(hub: Arc<Hub>) -> Router {
    let api = Router::new()
        .route("/tokens", post(tokens::create).get(tokens::list))
        .route("/tokens/{id}", delete(tokens::revoke))
        .route("/enroll", post(tokens::enroll))
        .route("/me", get(tokens::me))
        .route("/tasks", post(tasks::create).get(tasks::list))
        .route("/tasks/{id}", get(tasks::show))
        .route("/tasks/{id}/cancel", post(tasks::cancel))
        .route("/tasks/{id}/events", get(events::of_task))
        .route("/runners", get(runners::list))
        .route("/runners/{id}", get(runners::show))
        .route("/pods/tasks", post(pods::create).get(pods::list))
        .route("/pods/tasks/{id}", get(pods::show))
        .route("/pods/tasks/{id}/cancel", post(pods::cancel))
        .route("/pods/tasks/{id}/events", get(pods::events))
        .route("/pods/runners", get(pods::runners))
        .route("/pods/registration", get(pods::registration))
        .route("/pods/sessions/{id}/messages", get(pods::messages))
        .route("/openapi.json", get(openapi::document))
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path; see /api/v1/openapi.json")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY));
    let internal = Router::new()
        .route("/runners/register", post(internal::register))
        .route("/runners/{pod_name}/heartbeat", post(internal::heartbeat))
        .route("/tasks/{task_id}/stream", post(internal::stream))
        .route("/tasks/{task_id}/complete", post(internal::complete))
        .route("/agent/messages", post(internal::create_message))
        .route("/agent/messages/{id}", patch(internal::patch_message))
        .route("/agent/messages/{id}/parts", post(internal::create_part))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    Router::new()
        .nest("/api/v1", api)
        .nest("/internal", internal)
        .route("/runner/ws", get(session::upgrade))
        .route("/safari/worknode/ws", get(session::upgrade))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(metrics::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/releases/{*path}", get(releases::file))
        .route("/assets/{*path}", get(web::assets))
        .route("/", get(web::page))
        .route("/runners/{id}", get(web::page))
        .route("/tasks/{id}", get(web::page))
        .with_state(hub)
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who asks: a valid token of any role.
pub(crate) struct Caller(pub(crate) Token);

impl Caller {
    /// Requires a role.
    fn needs(&self, role: Role) -> Result<(), Problem> {
        if self.0.role.reaches(role) {
            return Ok(());
        }
        let text = format!("this needs the role {}, the token has {}", role.as_str(), self.0.role.as_str());
        Err(Problem::new(StatusCode::FORBIDDEN, text))
    }
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = axum::response::Response;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Self::Rejection> {
        let unauthorized = |text: &str| {
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, text).into_response();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        };
        let Some(secret) = bearer(&parts.headers) else {
            return Err(unauthorized("no token: send Authorization: Bearer TOKEN"));
        };
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<Peer>>() else {
            return Err(unauthorized("unknown peer"));
        };
        match hub.auth.check(secret, peer.address.ip()) {
            Checked::Valid(token) => Ok(Self(token)),
            Checked::Revoked => Err(unauthorized("the token was revoked")),
            Checked::Unknown => Err(unauthorized("the token is unknown")),
            Checked::Limited => {
                let problem =
                    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many unknown tokens from this address");
                let mut response = problem.into_response();
                response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("60"));
                Err(response)
            }
        }
    }
}
