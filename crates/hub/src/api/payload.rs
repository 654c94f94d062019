//! Bodies of requests: read when it is known who sends them, and only so many at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;

use super::access::Caller;
use super::problem::Problem;
use crate::engine::Hub;
use crate::model::Role;

/// The largest body: a `write` of 32 MiB in base64, and room.
pub(super) const MAX_BODY: usize = 48 << 20;
/// The largest body of what is no task.
const MAX_SMALL: usize = 64 * 1024;
/// A sender that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// A body, and its share of the memory for all of them.
pub(super) struct Payload {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Why a body is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge(usize),
    /// Others are being read, and did not end in time.
    Busy,
    Broken,
}

impl BodyError {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::TooLarge(most) => format!("the body is larger than {most} bytes"),
            Self::Busy => "the hub is reading other large requests; try again".into(),
            Self::Broken => "the body did not arrive as a whole".into(),
        }
    }
}

/// Reads a body of at most `most` bytes.
pub(super) async fn read(hub: &Hub, request: Request, most: usize) -> Result<Payload, BodyError> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let said: Option<usize> = length.and_then(|v| v.parse().ok());
    if said.is_some_and(|said| said > most) {
        return Err(BodyError::TooLarge(most));
    }
    let most = said.unwrap_or(most);
    let share = u32::try_from(most.max(1)).unwrap_or(u32::MAX);
    let room = tokio::time::timeout(SILENCE, hub.room.clone().acquire_many_owned(share)).await;
    let Ok(Ok(room)) = room else { return Err(BodyError::Busy) };
    let bytes = gather(request.into_body(), most).await?;
    Ok(Payload { bytes, _room: room })
}

async fn gather(body: Body, most: usize) -> Result<Bytes, BodyError> {
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::new();
    loop {
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(piece))) if bytes.len() + piece.len() > most => return Err(BodyError::TooLarge(most)),
            Ok(Some(Ok(piece))) => bytes.extend_from_slice(&piece),
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Err(_))) | Err(_) => return Err(BodyError::Broken),
        }
    }
}

/// A caller that may do something, and what it sends. The role is looked at first.
pub(super) struct Sent<const ROLE: u8> {
    pub(super) caller: Caller,
    pub(super) payload: Payload,
}

pub(super) const OPERATOR: u8 = 0;
pub(super) const ADMIN: u8 = 1;
pub(super) const ENROLL: u8 = 2;

impl<const ROLE: u8> FromRequest<Arc<Hub>> for Sent<ROLE> {
    type Rejection = Response;

    async fn from_request(request: Request, hub: &Arc<Hub>) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, hub).await?;
        let (role, most) = match ROLE {
            OPERATOR => (Role::Operator, MAX_BODY),
            ENROLL => (Role::Enroll, MAX_SMALL),
            _ => (Role::Admin, MAX_SMALL),
        };
        caller.needs(role).map_err(IntoResponse::into_response)?;
        let payload = read(hub, Request::from_parts(parts, body), most).await;
        let payload = payload.map_err(|e| Problem::new(e.status(), e.text()).into_response())?;
        Ok(Self { caller, payload })
    }
}
