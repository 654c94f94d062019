//! The one door to the API: every request passes here on its way to its handler. It is known who
//! asks and whether the role reaches so far before the query, the path and the body are read, in
//! this order, by the operation's types.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, RequestPartsExt};
use legwork_api::{Access, Code, Content, Method, Operation, PathId};
use legwork_store::Token;

use super::access::Caller;
use super::payload::{self, Room};
use super::problem::Problem;
use crate::engine::Hub;

/// A request that may be carried out.
pub(super) struct Asked<O: Operation> {
    /// Who asks.
    pub(super) by: Token,
    pub(super) id: O::Id,
    pub(super) query: O::Query,
    pub(super) body: O::Body,
    pub(super) headers: HeaderMap,
    /// The body's share of the memory for all of them, to be held until the body is stored.
    pub(super) room: Option<Room>,
}

/// The routes of operations. Nothing else makes one, so that each stands in the contract.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) router: Router<Arc<Hub>>,
    /// The names of the operations that have a route.
    pub(super) operations: Vec<&'static str>,
}

impl Routes {
    /// Routes an operation to a handler that answers with the operation's type.
    pub(super) fn answer<O, F, R>(self, handler: F) -> Self
    where
        O: Operation,
        F: Fn(Arc<Hub>, Asked<O>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<O::Answer, Problem>> + Send + 'static,
    {
        self.respond::<O, _, _>(move |hub, asked| {
            let answered = handler(hub, asked);
            async move {
                let answer = answered.await?;
                let status = StatusCode::from_u16(O::ABOUT.status).unwrap_or(StatusCode::OK);
                Ok(match O::ABOUT.content {
                    Content::Json => (status, Json(answer)).into_response(),
                    Content::Nothing | Content::Events => status.into_response(),
                })
            }
        })
    }

    /// Routes an operation to a handler that writes the answer itself, such as a stream.
    pub(super) fn respond<O, F, R>(self, handler: F) -> Self
    where
        O: Operation,
        F: Fn(Arc<Hub>, Asked<O>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        let serve = move |State(hub): State<Arc<Hub>>, request: Request| {
            let handler = handler.clone();
            async move {
                let asked = admit::<O>(&hub, request).await?;
                handler(hub, asked).await
            }
        };
        self.serve::<O>(on(filter(O::ABOUT.method), serve))
    }

    /// Routes an operation to a service that nobody has to pass the door for.
    pub(super) fn serve<O: Operation>(mut self, service: MethodRouter<Arc<Hub>>) -> Self {
        self.operations.push(O::ABOUT.id);
        Self { router: self.router.route(O::ABOUT.path, service), ..self }
    }
}

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

async fn admit<O: Operation>(hub: &Hub, request: Request) -> Result<Asked<O>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::of(&parts)?;
    if let Access::Needs(role) = O::ABOUT.access {
        caller.needs(role)?;
    }
    let query = legwork_api::query(parts.uri.query().unwrap_or_default())?;
    let id = id_of::<O>(&mut parts).await?;
    let headers = parts.headers.clone();
    let (bytes, room) = match O::ABOUT.max_body {
        0 => (None, None),
        most => {
            let payload = payload::read(hub, Request::from_parts(parts, body), most).await?;
            (Some(payload.bytes), Some(payload.room))
        }
    };
    let body = legwork_api::body(bytes.as_deref().unwrap_or(b"null"))?;
    Ok(Asked { by: caller.0, id, query, body, headers, room })
}

async fn id_of<O: Operation>(parts: &mut Parts) -> Result<O::Id, Problem> {
    let part = if O::ABOUT.path.contains("{id}") {
        let read = parts.extract::<Path<String>>().await;
        let Path(part) = read.map_err(|error| Problem::new(Code::BadPath, error.body_text()))?;
        part
    } else {
        String::new()
    };
    O::Id::from_part(&part).ok_or_else(|| Problem::absent::<O::Id>(&part))
}
