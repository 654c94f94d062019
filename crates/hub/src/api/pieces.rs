//! Pieces of trees: brought by who submits a task, taken by who works on it. They are no documents of
//! JSON, so they stand beside the contract's operations.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use legwork_api::{Code, Role};
use legwork_proto::pieces::{MAX_ASKED, MAX_BODY};
use serde::Deserialize;
use serde_json::json;

use super::access::Caller;
use super::internal::{Key, may_work};
use super::payload;
use super::problem::Problem;
use crate::engine::Hub;
use crate::pieces::{PieceError, Pieces, is_digest};

/// The largest question.
const MAX_QUESTION: usize = 512 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    digests: Vec<String>,
}

async fn asked(hub: &Hub, request: Request) -> Result<Vec<String>, Problem> {
    let body = payload::read(hub, request, MAX_QUESTION).await?;
    let asked: Asked =
        serde_json::from_slice(&body.bytes).map_err(|e| Problem::new(Code::BadJson, e.to_string()))?;
    if asked.digests.len() > MAX_ASKED || !asked.digests.iter().all(|digest| is_digest(digest)) {
        let text = format!("digests must be at most {MAX_ASKED} SHA-256 sums in hexadecimal");
        return Err(Problem::new(Code::BadBody, text));
    }
    Ok(asked.digests)
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::new(Code::Internal, "the pieces can't be worked on"))
}

fn failed(error: &std::io::Error) -> Problem {
    tracing::error!("the pieces of trees can't be kept or read: {error}");
    Problem::new(Code::StoreFailed, "the pieces can't be kept or read")
}

/// Which pieces are not here.
pub(super) async fn missing(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.needs(Role::Operator)?;
    let (digests, pieces) = (asked(&hub, request).await?, Pieces::new(&hub.data));
    let missing = aside(move || pieces.missing(digests)).await?;
    Ok(axum::Json(json!({ "missing": missing })).into_response())
}

/// Takes pieces.
pub(super) async fn keep(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.needs(Role::Operator)?;
    let (body, pieces) = (payload::read(&hub, request, MAX_BODY).await?, Pieces::new(&hub.data));
    match aside(move || pieces.keep(&body.bytes)).await? {
        Ok(kept) => Ok(axum::Json(json!({ "kept": kept })).into_response()),
        Err(PieceError::Damaged) => {
            Err(Problem::new(Code::BadBody, "a piece is not what its digest says, or is cut off"))
        }
        Err(PieceError::Io(error)) => Err(failed(&error)),
    }
}

/// Gives pieces to the runner that works on a task: as many of those asked for, from the first on,
/// as there are and as fit. Others than those of the task's own tree it does not get.
pub(super) async fn give(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    Query(key): Query<Key>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    if let Err(refused) = may_work(&hub, &id, &headers, &key).await {
        return refused;
    }
    let given = async {
        let (digests, pieces) = (asked(&hub, request).await?, Pieces::new(&hub.data));
        let Some(tree) = hub.tree_of(&id) else {
            return Err(Problem::new(Code::Forbidden, "the task has no tree"));
        };
        if !hub.are_of_tree(&tree, &digests).await.map_err(|error| failed(&error))? {
            return Err(Problem::new(
                Code::Forbidden,
                "a piece is not of the task's tree, or the tree is gone",
            ));
        }
        aside(move || pieces.body(&digests)).await?.map_err(|error| failed(&error))
    };
    match given.await {
        Ok(body) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}
