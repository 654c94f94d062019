//! Bodies of requests: read when it is known who sends them, and only so many at a time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use legwork_api::Code;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::Problem;
use crate::engine::Hub;

/// A sender that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// A share of the memory for all bodies.
pub(super) type Room = OwnedSemaphorePermit;

/// A body, and its share of the memory.
pub(super) struct Payload {
    pub(super) bytes: Bytes,
    pub(super) room: Room,
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
    fn code(self) -> Code {
        match self {
            Self::TooLarge(_) => Code::TooLarge,
            Self::Busy => Code::Busy,
            Self::Broken => Code::IncompleteBody,
        }
    }

    pub(super) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.code().status()).unwrap_or(StatusCode::BAD_REQUEST)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let text = match error {
            BodyError::TooLarge(most) => format!("the body is larger than {most} bytes"),
            BodyError::Busy => "the hub is reading other large requests; try again".into(),
            BodyError::Broken => "the body did not arrive as a whole".into(),
        };
        Self::new(error.code(), text)
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
    Ok(Payload { bytes, room })
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
