//! The older HTTP+SSE transport (MCP 2024-11-05): a standing GET stream whose first
//! event names the address to POST to. The SDK no longer has it; servers still do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::Url;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use sse_stream::{Sse, SseStream};

use crate::http::{Headers, SharedHeaders};

/// The largest event taken from a server, as in the SDK.
const MAX_EVENT: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SseError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("the server answered {0}")]
    Status(reqwest::StatusCode),
    #[error("{0}")]
    Protocol(String),
}

/// An open stream, and where to answer.
pub(crate) struct SseTransport {
    http: reqwest::Client,
    events: BoxStream<'static, Result<Sse, sse_stream::Error>>,
    /// Bytes since the last whole event.
    pending: Arc<AtomicUsize>,
    endpoint: Url,
    headers: Headers,
    dynamic: SharedHeaders,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("an event is larger than {MAX_EVENT} bytes")]
    TooLarge,
}

impl SseTransport {
    pub(crate) async fn connect(
        http: reqwest::Client,
        url: &Url,
        headers: Headers,
        dynamic: SharedHeaders,
    ) -> Result<Self, SseError> {
        let mut request = http.get(url.clone()).header(ACCEPT, "text/event-stream");
        for (name, value) in dynamic.over(headers.clone()) {
            request = request.header(name, value);
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(SseError::Status(response.status()));
        }
        let is_stream = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
        if !is_stream {
            return Err(SseError::Protocol("the server does not answer with an event stream".into()));
        }
        let pending = Arc::new(AtomicUsize::new(0));
        let counter = pending.clone();
        let bytes = response.bytes_stream().map(move |chunk| {
            let chunk = chunk?;
            let pending = counter.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len();
            if pending > MAX_EVENT { Err(Broken::TooLarge) } else { Ok(chunk) }
        });
        let mut events = SseStream::from_bytes_stream(bytes).boxed();
        let endpoint = loop {
            let event = events
                .next()
                .await
                .ok_or_else(|| SseError::Protocol("the stream ended before it named an endpoint".into()))?
                .map_err(|e| SseError::Protocol(e.to_string()))?;
            pending.store(0, Ordering::Relaxed);
            if event.event.as_deref() == Some("endpoint") {
                break endpoint(url, event.data.unwrap_or_default().trim())?;
            }
        };
        Ok(Self { http, events, pending, endpoint, headers, dynamic })
    }
}

/// The address a server names. It gets our headers, so it must be the server's own.
fn endpoint(url: &Url, named: &str) -> Result<Url, SseError> {
    let endpoint =
        url.join(named).map_err(|e| SseError::Protocol(format!("the server named a bad endpoint: {e}")))?;
    if endpoint.origin() != url.origin() {
        return Err(SseError::Protocol("the server named an endpoint on another host".into()));
    }
    Ok(endpoint)
}

impl Transport<RoleClient> for SseTransport {
    type Error = SseError;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), SseError>> + Send + 'static {
        let mut request = self.http.post(self.endpoint.clone()).json(&item);
        for (name, value) in self.dynamic.over(self.headers.clone()) {
            request = request.header(name, value);
        }
        async move {
            let response = request.send().await?;
            if response.status().is_success() { Ok(()) } else { Err(SseError::Status(response.status())) }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let event = match self.events.next().await? {
                Ok(event) => event,
                Err(error) => {
                    tracing::debug!("an MCP event stream broke: {error}");
                    return None;
                }
            };
            self.pending.store(0, Ordering::Relaxed);
            if !matches!(event.event.as_deref(), None | Some("message")) {
                continue;
            }
            match serde_json::from_str(&event.data.unwrap_or_default()) {
                Ok(message) => return Some(message),
                Err(error) => tracing::debug!("skipped an MCP event that is no message: {error}"),
            }
        }
    }

    async fn close(&mut self) -> Result<(), SseError> {
        self.events = futures_util::stream::empty().boxed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_stays_on_the_server() {
        let url = Url::parse("http://h:1/sse").expect("valid");
        assert_eq!(endpoint(&url, "/m?s=1").expect("relative").as_str(), "http://h:1/m?s=1");
        assert!(endpoint(&url, "http://h:1/m").is_ok());
        for foreign in ["http://h:2/m", "https://h:1/m", "//evil/m", "http://h@evil:1/"] {
            assert!(endpoint(&url, foreign).is_err(), "{foreign}");
        }
    }
}
