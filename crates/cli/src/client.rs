//! The hub's REST API, from the outside.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::args::HubArgs;
use crate::context;

/// How long an answer may take to begin, and how long a pause in it may be.
const ANSWER: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_secs(30);

/// The hub said no.
#[derive(Debug, thiserror::Error)]
#[error("the hub refused ({status}): {detail}")]
pub(crate) struct Refused {
    status: reqwest::StatusCode,
    detail: String,
}

impl Refused {
    /// Whether it would say no again.
    pub(crate) fn is_final(&self) -> bool {
        self.status.is_client_error() && self.status != reqwest::StatusCode::TOO_MANY_REQUESTS
    }
}

/// A hub, and a token for it.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// Takes address and token from flags, environment or context.
    pub(crate) fn from_args(args: &HubArgs) -> Result<Self> {
        let saved = context::load();
        let token = match &args.token_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("failed to read {}", path.display()))?
                    .trim()
                    .to_owned(),
            ),
            None => std::env::var("LEGWORK_TOKEN").ok().filter(|t| !t.is_empty()),
        };
        let url = args.hub_url.clone().or_else(|| saved.as_ref().map(|c| c.hub_url.clone()));
        let url = url.context(
            "no hub is known: start one with `legwork up`, or give --hub-url (or LEGWORK_HUB_URL) and LEGWORK_TOKEN",
        )?;
        // A saved token is only for the hub it was saved with.
        let token = token.or_else(|| saved.filter(|c| c.hub_url == url).map(|c| c.token));
        let token =
            token.with_context(|| format!("no token for {url}: set LEGWORK_TOKEN or give --token-file"))?;
        Self::new(&url, token, context::ca_file(args.ca_file.clone()).as_deref())
    }

    pub(crate) fn new(url: &str, token: String, ca_file: Option<&std::path::Path>) -> Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            bail!("the hub's address must start with http:// or https://, not '{url}'");
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("legwork/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(PAUSE);
        if let Some(path) = ca_file {
            let pem = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self { http: builder.build()?, base, token })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.base)).bearer_auth(&self.token)
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        let response = request
            .send()
            .await
            .map_err(|e| anyhow!("failed to reach the hub at {}: {}", self.base, root_cause(&e)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let detail = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|v| v["detail"].as_str().map(str::to_owned))
            .unwrap_or(text);
        Err(Refused { status, detail }.into())
    }

    /// An answer that comes at once.
    async fn json(&self, request: RequestBuilder) -> Result<Value> {
        let answer = async { anyhow::Ok(self.answer(request).await?.json().await?) };
        tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(self.silent()))
    }

    fn silent(&self) -> anyhow::Error {
        anyhow!("the hub at {} does not answer: nothing came for {} s", self.base, ANSWER.as_secs())
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.json(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(self.request(Method::PATCH, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        let answer = self.answer(self.request(Method::DELETE, path));
        tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(self.silent())).map(|_| ())
    }

    /// The hub's address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Opens the events of a task (`/tasks/ID`, `/pods/tasks/ID`), after the one given.
    pub(crate) async fn events(&self, task: &str, after: Option<&str>, follow: bool) -> Result<Response> {
        let mut request = self.request(Method::GET, &format!("{task}/events?follow={follow}"));
        if let Some(id) = after {
            request = request.header("Last-Event-ID", id);
        }
        self.answer(request).await
    }
}

/// The innermost reason: "connection refused" rather than "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
