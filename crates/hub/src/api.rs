//! REST under `/api/v1`, health, metrics, and the routes as a whole.

mod access;
mod approvals;
mod contact;
mod door;
mod events;
mod internal;
mod metrics;
mod openapi;
mod payload;
mod pieces;
mod pods;
mod problem;
mod releases;
mod runners;
mod secrets;
mod tasks;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, patch, post};
use legwork_api::{
    ApprovalEvents, Approve, CancelPodTask, CancelTask, ChangeRunner, Code, CreateToken, Deny, Document,
    Enroll, ForgetSession, GetApproval, GetPodTask, GetRunner, GetTask, ListApprovals, ListPodRunners,
    ListPodTasks, ListRunners, ListSecrets, ListTasks, ListTokens, Me, PodRegistration, PodTaskEvents,
    RemoveRunner, RemoveSecret, RevokeToken, SessionMessages, SetSecret, SubmitPodTask, SubmitTask,
    TaskEvents, TellPodTask,
};

use crate::engine::Hub;
use crate::{mcp, session, web};

pub(crate) use access::Caller;
use door::Routes;
pub(crate) use problem::Problem;

/// All routes of a hub.
pub(crate) fn router(hub: Arc<Hub>) -> Router {
    let api = operations()
        .router
        .fallback(nothing_here)
        .method_not_allowed_fallback(async || Problem::new(Code::WrongMethod, "this path has no such method"))
        .layer(from_fn_with_state(hub.clone(), access::guard));
    let internal = Router::new()
        .route("/runners/register", post(internal::register))
        .route("/runners/{pod_name}/heartbeat", post(internal::heartbeat))
        .route("/tasks/{task_id}/stream", post(internal::stream))
        .route("/tasks/{task_id}/pieces", post(pieces::give))
        .route("/tasks/{task_id}/session", get(contact::recall).post(contact::remember))
        .route("/tasks/{task_id}/complete", post(internal::complete))
        .route("/agent/messages", post(internal::create_message))
        .route("/agent/messages/{id}", patch(internal::patch_message))
        .route("/agent/messages/{id}/parts", post(internal::create_part))
        // In the original's words, which has none.
        .fallback(async || StatusCode::NOT_FOUND);
    let trees = Router::new()
        .route("/trees/missing", post(pieces::missing))
        .route("/trees/pieces", post(pieces::keep))
        .layer(from_fn_with_state(hub.clone(), access::guard));
    let mcp = Router::new()
        .route("/mcp", post(mcp::post))
        .layer(from_fn_with_state(hub.clone(), access::guard))
        .layer(from_fn_with_state(hub.clone(), web::own_names));
    // What a browser shows, or needs no token.
    let page = Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/assets/{*path}", get(web::assets))
        .route("/", get(web::page))
        .route("/runners/{id}", get(web::page))
        .route("/tasks/{id}", get(web::page))
        .route("/approvals", get(web::page))
        .route("/approvals/{id}", get(web::page))
        .layer(from_fn_with_state(hub.clone(), web::own_names));
    Router::new()
        .nest("/api/v1", api)
        .nest("/internal", internal)
        .route("/runner/ws", get(session::upgrade))
        .route("/safari/worknode/ws", get(session::upgrade))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(metrics::ready))
        .route("/releases/{*path}", get(releases::file).layer(from_fn_with_state(hub.clone(), access::guard)))
        .merge(trees)
        .merge(mcp)
        .merge(page)
        .fallback(nothing_here)
        .with_state(hub)
}

/// The operations of the contract, each with its handler.
fn operations() -> Routes {
    Routes::default()
        .answer::<SubmitTask, _, _>(tasks::create)
        .answer::<ListTasks, _, _>(tasks::list)
        .answer::<GetTask, _, _>(tasks::show)
        .answer::<CancelTask, _, _>(tasks::cancel)
        .respond::<TaskEvents, _, _>(events::of_task)
        .answer::<ListApprovals, _, _>(approvals::list)
        .answer::<GetApproval, _, _>(approvals::show)
        .answer::<Approve, _, _>(approvals::approve)
        .answer::<Deny, _, _>(approvals::deny)
        .respond::<ApprovalEvents, _, _>(approvals::events)
        .answer::<ListRunners, _, _>(runners::list)
        .answer::<GetRunner, _, _>(runners::show)
        .answer::<ChangeRunner, _, _>(runners::change)
        .answer::<RemoveRunner, _, _>(runners::remove)
        .answer::<CreateToken, _, _>(tokens::create)
        .answer::<ListTokens, _, _>(tokens::list)
        .answer::<RevokeToken, _, _>(tokens::revoke)
        .answer::<Enroll, _, _>(tokens::enroll)
        .answer::<Me, _, _>(tokens::me)
        .answer::<SubmitPodTask, _, _>(pods::create)
        .answer::<ListPodTasks, _, _>(pods::list)
        .answer::<GetPodTask, _, _>(pods::show)
        .answer::<CancelPodTask, _, _>(pods::cancel)
        .respond::<PodTaskEvents, _, _>(pods::events)
        .answer::<ListPodRunners, _, _>(pods::runners)
        .answer::<PodRegistration, _, _>(pods::registration)
        .answer::<TellPodTask, _, _>(contact::tell)
        .answer::<ForgetSession, _, _>(contact::forget_session)
        .answer::<SetSecret, _, _>(secrets::set)
        .answer::<ListSecrets, _, _>(secrets::list)
        .answer::<RemoveSecret, _, _>(secrets::remove)
        .answer::<SessionMessages, _, _>(pods::messages)
        // Whoever builds a client may read it.
        .serve::<Document>(get(openapi::document))
}

async fn nothing_here() -> Problem {
    Problem::new(Code::NoSuchPath, "there is nothing at this path; see /api/v1/openapi.json")
}

/// A body of at most so many bytes, with its share of the memory for all of them.
pub(crate) async fn body_of(
    hub: &Hub,
    request: axum::extract::Request,
    most: usize,
) -> Result<(bytes::Bytes, tokio::sync::OwnedSemaphorePermit), Problem> {
    let read = payload::read(hub, request, most).await?;
    Ok((read.bytes, read.room))
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::operations;

    /// What stands in the document is served, and what is served stands in the document.
    #[test]
    fn the_routes_are_the_table_of_operations() {
        struct Names(Vec<&'static str>);
        impl legwork_api::Visitor for Names {
            fn visit<O: legwork_api::Operation>(&mut self) {
                self.0.push(O::ABOUT.id);
            }
        }
        let mut table = Names(Vec::new());
        legwork_api::visit_all(&mut table);
        let mut routed = operations().operations;
        table.0.sort_unstable();
        routed.sort_unstable();
        assert_eq!(routed, table.0);
    }
}
