//! A hub, asked from the outside. Each call is an [`Operation`] with its own types.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use legwork_net::cause;
use reqwest::{RequestBuilder, Response};

use crate::ids::{NoId, PathId};
use crate::open::Received;
use crate::operations::{Content, Operation};
use crate::page::Page;
use crate::problem::Problem;
use crate::sse::{Event, Parser};

/// How long an answer may take to begin, and how long a pause in it may be.
const ANSWER: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// Times that something is sent that may be sent twice.
const AGAIN: u32 = 5;
/// Most bytes of an error that are read.
const MAX_PROBLEM: usize = 64 * 1024;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The hub said no.
    #[error("the hub refused ({status}): {detail}", status = status_line(.0.status), detail = .0.detail)]
    Refused(Box<Problem>),
    /// No connection to the hub was to be had, or it broke.
    #[error("failed to reach the hub at {base}: {reason}")]
    Unreachable {
        /// The hub's address.
        base: String,
        /// The innermost reason.
        reason: String,
    },
    /// The hub said nothing for a while.
    #[error("the hub at {base} does not answer: nothing came for {} s", ANSWER.as_secs())]
    Silent {
        /// The hub's address.
        base: String,
    },
    /// The hub said what we cannot read.
    #[error("the hub at {base} gave an unreadable answer: {reason}")]
    Unreadable {
        /// The hub's address.
        base: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address or the certificates cannot be used.
    #[error("{0}")]
    Settings(String),
}

impl ClientError {
    /// What the hub said, if it said no.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the hub would say no again.
    pub fn is_final(&self) -> bool {
        self.problem().is_some_and(|problem| (400..500).contains(&problem.status) && problem.status != 429)
    }
}

fn status_line(status: u16) -> String {
    match reqwest::StatusCode::from_u16(status) {
        Ok(status) => status.to_string(),
        Err(_) => status.to_string(),
    }
}

/// Where a hub is, and who asks.
#[derive(Clone, Default)]
pub struct Settings {
    /// The hub's address, `http://…` or `https://…`.
    pub url: String,
    /// The token.
    pub token: String,
    /// Certificates that are trusted beside the system's, in PEM.
    pub ca: Option<Vec<u8>>,
    /// What the program calls itself, such as `legwork/0.1.0`.
    pub user_agent: String,
}

/// A hub, and a token for it.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// A client; no connection is made yet.
    ///
    /// # Errors
    /// If the address or the certificates cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        let base = settings.url.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            let text =
                format!("the hub's address must start with http:// or https://, not '{}'", settings.url);
            return Err(ClientError::Settings(text));
        }
        let unusable = |error: reqwest::Error| ClientError::Settings(cause(&error));
        let mut builder = legwork_net::client()
            .user_agent(&settings.user_agent)
            .connect_timeout(CONNECT)
            .read_timeout(PAUSE);
        if let Some(pem) = &settings.ca {
            builder =
                legwork_net::trust(builder, pem).map_err(|error| ClientError::Settings(error.to_string()))?;
        }
        Ok(Self { http: builder.build().map_err(unusable)?, base, token: settings.token.clone() })
    }

    /// The hub's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn request<O: Operation>(&self, id: &O::Id, query: &O::Query) -> Result<RequestBuilder, ClientError> {
        let method = match O::ABOUT.method {
            crate::Method::Get => reqwest::Method::GET,
            crate::Method::Post => reqwest::Method::POST,
            crate::Method::Patch => reqwest::Method::PATCH,
            crate::Method::Delete => reqwest::Method::DELETE,
        };
        let path = O::ABOUT.path.replace("{id}", &path_part(&id.to_part()));
        let query = serde_urlencoded::to_string(query).map_err(|e| ClientError::Settings(e.to_string()))?;
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let url = format!("{}/api/v1{path}{query}", self.base);
        Ok(self.http.request(method, url).bearer_auth(&self.token))
    }

    /// Asks for an operation that has a body.
    ///
    /// # Errors
    /// If the hub says no, or nothing, or what cannot be read.
    pub async fn send<O: Operation>(
        &self,
        id: &O::Id,
        query: &O::Query,
        body: &O::Body,
    ) -> Result<Received<O::Answer>, ClientError> {
        let mut request = self.request::<O>(id, query)?;
        if O::ABOUT.max_body > 0 {
            request = request.json(body);
        }
        self.within_time(self.receive::<O>(request)).await
    }

    /// Asks for an operation without a body.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn ask<O: Operation<Body = ()>>(&self, id: &O::Id) -> Result<Received<O::Answer>, ClientError> {
        self.send::<O>(id, &O::Query::default(), &()).await
    }

    /// Asks for an operation without a body whose path names nothing.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn list<O: Operation<Id = NoId, Body = ()>>(
        &self,
        query: &O::Query,
    ) -> Result<Received<O::Answer>, ClientError> {
        self.send::<O>(&NoId, query, &()).await
    }

    /// All pages of a list, one after the other; `turn` puts the cursor into the query.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn all<O, T, C>(
        &self,
        mut query: O::Query,
        turn: impl Fn(&mut O::Query, C),
    ) -> Result<Vec<Received<T>>, ClientError>
    where
        O: Operation<Id = NoId, Body = (), Answer = Page<T, C>>,
        C: Clone,
    {
        let mut items = Vec::new();
        loop {
            let page = self.list::<O>(&query).await?;
            let next = page.next.clone();
            items.extend(page.into_items());
            match next {
                Some(cursor) => turn(&mut query, cursor),
                None => return Ok(items),
            }
        }
    }

    /// Asks for what is no operation of the contract: `path` is below the hub's address. Sent again
    /// while the hub can't be reached or is too busy, so only what may be sent twice.
    ///
    /// # Errors
    /// If the hub says no, or cannot be reached for long.
    pub async fn post_again(
        &self,
        path: &str,
        kind: &'static str,
        body: &[u8],
    ) -> Result<Vec<u8>, ClientError> {
        let mut tries = 0;
        loop {
            let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token);
            let answered = async {
                let answer = self.answer(request.header("content-type", kind).body(body.to_vec())).await?;
                answer.bytes().await.map_err(|error| self.unreachable(&error))
            };
            tries += 1;
            match answered.await {
                Ok(bytes) => return Ok(bytes.to_vec()),
                Err(error) if error.is_final() || tries >= AGAIN => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(250 << tries)).await,
            }
        }
    }

    /// Sends a message of a protocol that is no part of the contract, once; `path` is below the hub's address. Whatever
    /// the hub says to it is an answer.
    ///
    /// # Errors
    /// If the hub cannot be reached.
    pub async fn relay(
        &self,
        path: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<Relayed, ClientError> {
        let mut request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.body(body).send().await.map_err(|error| self.unreachable(&error))?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let (status, streams) =
            (response.status().as_u16(), kind.is_some_and(|k| k.starts_with("text/event-stream")));
        let bytes = response.bytes_stream();
        let bytes = bytes.map(|piece| piece.map(|piece| piece.to_vec()).map_err(|error| cause(&error)));
        Ok(Relayed { status, streams, bytes: bytes.boxed(), parser: Parser::default() })
    }

    /// Opens the events of a task, behind the one given.
    ///
    /// # Errors
    /// If the hub says no, or cannot be reached. It may take any time to answer.
    pub async fn events<O: Operation>(
        &self,
        id: &O::Id,
        query: &O::Query,
        after: Option<&str>,
    ) -> Result<Events, ClientError> {
        let mut request = self.request::<O>(id, query)?;
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let bytes = self.answer(request).await?.bytes_stream();
        let bytes = bytes.map(|piece| piece.map(|piece| piece.to_vec()).map_err(|error| cause(&error)));
        Ok(Events { bytes: bytes.boxed(), parser: Parser::default() })
    }

    async fn within_time<T>(
        &self,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let silent = || Err(ClientError::Silent { base: self.base.clone() });
        tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| silent())
    }

    async fn receive<O: Operation>(
        &self,
        request: RequestBuilder,
    ) -> Result<Received<O::Answer>, ClientError> {
        let response = self.answer(request).await?;
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let text: &[u8] = if O::ABOUT.content == Content::Json { &bytes } else { b"null" };
        let unreadable = |error: serde_json::Error| ClientError::Unreadable {
            base: self.base.clone(),
            reason: error.to_string(),
        };
        serde_json::from_slice(text).map_err(unreadable)
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(ClientError::Refused(Box::new(problem(status.as_u16(), response).await)))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { base: self.base.clone(), reason: cause(error) }
    }
}

/// What an error says; whoever stands between us and the hub may say it in any form.
async fn problem(status: u16, response: Response) -> Problem {
    let mut text = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(piece)) = stream.next().await {
        text.extend_from_slice(&piece);
        if text.len() > MAX_PROBLEM {
            break;
        }
    }
    let plain = || Problem {
        kind: String::new(),
        title: String::new(),
        status,
        detail: String::from_utf8_lossy(&text[..text.len().min(MAX_PROBLEM)]).into_owned(),
        code: "".into(),
        field: None,
    };
    match serde_json::from_slice::<Problem>(&text) {
        Ok(problem) if !problem.detail.is_empty() => Problem { status, ..problem },
        _ => plain(),
    }
}

/// What a hub said to a message that was relayed.
pub struct Relayed {
    /// The HTTP status.
    pub status: u16,
    /// It comes as events, each of which holds a message.
    streams: bool,
    bytes: BoxStream<'static, Result<Vec<u8>, String>>,
    parser: Parser,
}

impl Relayed {
    /// The messages that came next; `None` when there are no more.
    ///
    /// # Errors
    /// If the connection broke, or more came at once than is read.
    pub async fn next(&mut self) -> Result<Option<Vec<String>>, String> {
        const MOST: usize = 16 << 20;
        if self.streams {
            return match self.bytes.next().await {
                None => Ok(None),
                Some(bytes) => match self.parser.feed(&bytes?) {
                    Some(events) => Ok(Some(events.into_iter().map(|event| event.data).collect())),
                    None => Err("an event is too long".into()),
                },
            };
        }
        let mut whole = Vec::new();
        while let Some(bytes) = self.bytes.next().await {
            whole.extend_from_slice(&bytes?);
            if whole.len() > MOST {
                return Err("the answer is too long".into());
            }
        }
        Ok((!whole.is_empty()).then(|| vec![String::from_utf8_lossy(&whole).into_owned()]))
    }
}

/// A task's events as they come.
pub struct Events {
    bytes: BoxStream<'static, Result<Vec<u8>, String>>,
    parser: Parser,
}

impl Events {
    /// The events that came next, and an empty list for a sign of life; `None` when the stream
    /// is over or broken.
    pub async fn next(&mut self) -> Option<Vec<Event>> {
        match self.bytes.next().await {
            Some(Ok(bytes)) => self.parser.feed(&bytes),
            _ => None,
        }
    }
}

/// A name as a part of a path.
fn path_part(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
