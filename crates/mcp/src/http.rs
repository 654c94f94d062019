//! The SDK's HTTP client, with headers that may change while a session lives.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::stream::BoxStream;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::Sse;

pub(crate) type Headers = HashMap<HeaderName, HeaderValue>;

/// What the protocol itself sets.
const RESERVED: &[&str] =
    &["accept", "content-type", "content-length", "mcp-session-id", "mcp-protocol-version", "last-event-id"];

/// A server's headers, and those that change from call to call.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedHeaders(Arc<RwLock<Headers>>);

impl SharedHeaders {
    pub(crate) fn set(&self, headers: &BTreeMap<String, String>) -> Result<(), String> {
        let headers = parse(headers)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = headers;
        Ok(())
    }

    /// These over the given ones.
    pub(crate) fn over(&self, mut base: Headers) -> Headers {
        let headers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        base.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        base
    }
}

/// Checks headers; the error names one, never its value.
pub(crate) fn parse(headers: &BTreeMap<String, String>) -> Result<Headers, String> {
    headers
        .iter()
        .filter(|(name, _)| !RESERVED.contains(&name.to_ascii_lowercase().as_str()))
        .map(|(name, value)| {
            let bad = || format!("header {name:?} is not valid");
            let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
            value.set_sensitive(true);
            Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, value))
        })
        .collect()
}

/// The client the SDK's transport is given.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) dynamic: SharedHeaders,
}

type HttpError = StreamableHttpError<reqwest::Error>;

impl StreamableHttpClient for Client {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let headers = self.dynamic.over(custom_headers);
        self.http.post_message(uri, message, session_id, auth_header, headers).await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
        max: usize,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let headers = self.dynamic.over(custom_headers);
        let http = &self.http;
        http.post_message_with_max_sse_event_size(uri, message, session_id, auth_header, headers, max).await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<(), HttpError> {
        self.http.delete_session(uri, session_id, auth_header, self.dynamic.over(custom_headers)).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, HttpError> {
        let headers = self.dynamic.over(custom_headers);
        self.http.get_stream(uri, session_id, last_event_id, auth_header, headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
        max: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, HttpError> {
        let headers = self.dynamic.over(custom_headers);
        let http = &self.http;
        http.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, headers, max)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn dynamic_headers_win_and_the_protocols_own_are_left_alone() {
        let base =
            parse(&map(&[("X-Team", "a"), ("Accept", "text/x"), ("Mcp-Session-Id", "1")])).expect("valid");
        assert_eq!(base.len(), 1);
        let shared = SharedHeaders::default();
        shared.set(&map(&[("x-team", "b"), ("x-new", "c")])).expect("valid");
        let all = shared.over(base);
        assert_eq!(
            (&all[&HeaderName::from_static("x-team")], &all[&HeaderName::from_static("x-new")]),
            (&HeaderValue::from_static("b"), &HeaderValue::from_static("c"))
        );
    }

    #[test]
    fn a_bad_header_is_named_without_its_value() {
        let error = parse(&map(&[("X-Key", "secret\n1")])).expect_err("invalid");
        assert!(error.contains("X-Key") && !error.contains("secret"), "{error}");
    }
}
