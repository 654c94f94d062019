//! Errors of the contract as answers.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use legwork_api::{Code, PathId, Problem as Told};
use legwork_store::StoreError;

use crate::engine::{NameError, SubmitError};

/// Longest part of a name that is repeated to who sent it.
const SHOWN: usize = 80;

/// An error for who asked.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    told: Box<Told>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Told::new(code, detail).into()
    }

    /// A field has a value that it cannot have.
    pub(crate) fn field(field: &str, reason: &str) -> Self {
        Told::new(Code::InvalidField, format!("{field}: {reason}")).about(field).into()
    }

    /// A parameter of the query has a value that it cannot have.
    pub(crate) fn query(parameter: &str, reason: &str) -> Self {
        let text = format!("the query is not as expected: {parameter}: {reason}");
        Told::new(Code::BadQuery, text).about(parameter).into()
    }

    /// What a path names does not exist.
    pub(crate) fn absent<I: PathId>(part: &str) -> Self {
        let shown: String = part.chars().take(SHOWN).collect();
        Self::new(I::ABSENT, format!("there is no {} '{shown}'", I::WHAT))
    }

    /// The hub failed in a way that it did not foresee.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!("{error}");
        Self::new(Code::Internal, error.to_string())
    }

    /// What is wrong, in words.
    pub(crate) fn detail(&self) -> &str {
        &self.told.detail
    }

    /// Adds a header to the answer.
    pub(crate) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }
}

/// Checks that a cursor is one that a list gave: an id of what it lists, whether that is still
/// there or not.
pub(crate) fn cursor_of(cursor: Option<&str>, begins: &[&str]) -> Result<(), Problem> {
    let is_one = |id: &str| {
        let rest = begins.iter().find_map(|begin| id.strip_prefix(begin));
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    match cursor {
        Some(id) if !is_one(id) => Err(Problem::query("cursor", "must be `next` of the page before")),
        _ => Ok(()),
    }
}

impl From<Told> for Problem {
    fn from(told: Told) -> Self {
        Box::new(told).into()
    }
}

impl From<Box<Told>> for Problem {
    fn from(told: Box<Told>) -> Self {
        Self { told, header: None }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!("{error}");
        Self::new(Code::StoreFailed, error.to_string())
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid { field, reason } => Self::field(field, &reason),
            SubmitError::KeyReused => {
                let told = "idempotency_key: was used before for a task with another body";
                Told::new(Code::KeyReused, told).about("idempotency_key").into()
            }
            SubmitError::Forbidden(reason) => Self::new(Code::Forbidden, reason),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Store(error) => error.into(),
            error => Self::new(Code::NameTaken, error.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.told).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response
    }
}
