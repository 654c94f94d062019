//! One request, from its sending to `message_stop`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use legwork_base::cause::innermost;
use legwork_net::cause;
use reqwest::header::HeaderMap;
use sse_stream::SseStream;

use crate::client::{Live, Observer};
use crate::message::{Builder, ErrorObject, Message, Seen, Usage};
use crate::provider::{Frames, error_kind};

/// Until the API's first byte: it may think before it says anything.
const FIRST_BYTE: Duration = Duration::from_secs(600);
/// Most bytes of an error's body.
const MAX_ERROR: usize = 64 * 1024;

/// Amazon's frame around events.
const FRAMED: &str = "application/vnd.amazon.eventstream";
/// Most bytes of one event, and of a whole answer.
const MAX_EVENT: usize = 32 << 20;
const MAX_STREAM: usize = 256 << 20;

/// Why a stream ended early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Http(reqwest::Error),
    #[error("the answer is larger than any answer can be")]
    TooLong,
}

/// What a failed attempt was.
#[derive(Debug, Default)]
pub(crate) struct Failed {
    /// `None` if there was no answer.
    pub(crate) status: Option<u16>,
    pub(crate) headers: HeaderMap,
    /// The API's own name for it.
    pub(crate) kind: String,
    pub(crate) message: String,
    /// It broke off after it had begun.
    pub(crate) midway: bool,
    /// What was used up all the same.
    pub(crate) usage: Usage,
}

impl Failed {
    fn saying(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}

/// Sends a request and reads its stream to the end.
pub(crate) async fn attempt<O: Observer>(
    request: reqwest::RequestBuilder,
    idle: Duration,
    observer: &mut O,
) -> Result<Message, Failed> {
    let sent = tokio::time::timeout(FIRST_BYTE, request.send()).await;
    let response = match sent {
        Err(_) => return Err(Failed::saying(format!("no answer within {} s", FIRST_BYTE.as_secs()))),
        Ok(Err(error)) => return Err(Failed::saying(cause(&error))),
        Ok(Ok(response)) => response,
    };
    if !response.status().is_success() {
        return Err(refused(response, idle).await);
    }
    let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
    let response_kind = kind.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    let mut builder = Builder::default();
    // What a stream may send for one event, and in all: nobody writes that much.
    let room = Arc::new(AtomicUsize::new(MAX_EVENT));
    let counted = {
        let room = room.clone();
        let mut total = 0usize;
        response.bytes_stream().map(move |chunk| {
            let chunk = chunk.map_err(Broken::Http)?;
            total += chunk.len();
            let fits =
                room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(chunk.len()));
            if fits.is_err() || total > MAX_STREAM { Err(Broken::TooLong) } else { Ok(chunk) }
        })
    };
    let is_framed = response_kind.as_deref().is_some_and(|kind| kind.starts_with(FRAMED));
    let mut events = std::pin::pin!(match is_framed {
        true => framed(counted).left_stream(),
        false => SseStream::from_bytes_stream(counted)
            .map(|event| match event {
                Ok(event) => Ok(event.data.unwrap_or_default()),
                Err(error) => Err(innermost(&error).to_string()),
            })
            .right_stream(),
    });
    let broken = |builder: Builder, message: String| Failed {
        midway: true,
        usage: builder.usage,
        ..Failed::saying(message)
    };
    loop {
        let data = match tokio::time::timeout(idle, events.next()).await {
            Err(_) => return Err(broken(builder, format!("the stream was silent for {} s", idle.as_secs()))),
            Ok(None) => return Err(broken(builder, "the stream ended before message_stop".into())),
            Ok(Some(Err(error))) => return Err(broken(builder, format!("the stream broke: {error}"))),
            Ok(Some(Ok(data))) => data,
        };
        room.store(MAX_EVENT, Ordering::Relaxed);
        if data.is_empty() {
            continue;
        }
        match builder.take(&data) {
            Ok(Seen::Nothing) => {}
            Ok(Seen::Text(text)) => observer.see(Live::Text(text)).await,
            Ok(Seen::Thinking(text)) => observer.see(Live::Thinking(text)).await,
            Ok(Seen::Tool { id, name }) => observer.see(Live::Tool { id, name }).await,
            Ok(Seen::Whole) => return Ok(builder.finish()),
            Ok(Seen::Failed(ErrorObject { kind, message })) => {
                return Err(Failed { kind, ..broken(builder, message) });
            }
            Err(problem) => return Err(broken(builder, problem)),
        }
    }
}

/// The events of a stream in Amazon's frame.
fn framed(pieces: impl Stream<Item = Result<Bytes, Broken>>) -> impl Stream<Item = Result<String, String>> {
    let state = (Box::pin(pieces), Frames::default());
    stream::try_unfold(state, |(mut pieces, mut frames)| async move {
        loop {
            if let Some(event) = frames.next()? {
                return Ok(Some((event, (pieces, frames))));
            }
            match pieces.next().await {
                Some(Ok(piece)) => frames.push(&piece),
                Some(Err(error)) => return Err(innermost(&error).to_string()),
                None if frames.is_midway() => return Err("it ended within a message".to_owned()),
                None => return Ok(None),
            }
        }
    })
}

async fn refused(mut response: reqwest::Response, idle: Duration) -> Failed {
    let status = response.status();
    let headers = response.headers().clone();
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(idle, response.chunk()).await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ERROR {
            break;
        }
    }
    // Anthropic's and Google's errors are objects; Amazon has a message, and a header for the kind.
    #[derive(Default, serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        error: ErrorObject,
        #[serde(default, alias = "Message")]
        message: String,
    }
    let Answer { mut error, message } = serde_json::from_slice(&body).unwrap_or_default();
    if error.message.is_empty() {
        error.message = message;
    }
    let exception = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    if let Some(exception) = exception.filter(|_| error.kind.is_empty()) {
        error.kind = error_kind(exception).to_owned();
    }
    let said = match error.message.is_empty() {
        true => String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned(),
        false => error.message,
    };
    let kind = if error.kind.is_empty() { String::new() } else { format!(" {}", error.kind) };
    Failed {
        status: Some(status.as_u16()),
        headers,
        message: format!("{}{kind}: {said}", status.as_u16()),
        kind: error.kind,
        ..Failed::default()
    }
}
