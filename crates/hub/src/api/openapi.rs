//! The OpenAPI document, which the contract is described by.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use legwork_api::NoQuery;

use super::problem::Problem;
use crate::engine::Hub;

/// Shown to anybody: programs that make a client from it have no token.
pub(super) async fn document(_: State<Arc<Hub>>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let NoQuery {} = legwork_api::query(query.as_deref().unwrap_or_default())?;
    Ok(([(header::CONTENT_TYPE, "application/json")], legwork_api::OPENAPI).into_response())
}
