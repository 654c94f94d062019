//! One session with a server: connecting by its transport, listing, calling.
#![expect(deprecated, reason = "the protocol versions that we speak have roots; a later one drops them")]

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ContentBlock, Implementation, JsonObject,
    ListRootsResult, ProtocolVersion, Root, RootsCapabilities,
};
use rmcp::service::{ClientInitializeError, RequestContext, RunningService, ServiceError, ServiceExt};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde::Serialize;

use crate::http::{Client, SharedHeaders, parse};
use crate::server::{Launcher, Server, Transport};
use crate::sse::SseTransport;

/// Starting a server and shaking hands with it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a server's tool was not called, in the protocol's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such transport.
    #[error("unsupported transport type '{0}'")]
    Transport(String),
    /// No session came about.
    #[error("failed to connect to MCP server '{name}': {cause}")]
    Connect {
        /// The server.
        name: String,
        /// The innermost reason, as the system or the server worded it.
        cause: String,
    },
    /// The call failed; the tool's own errors are results.
    #[error("failed to call tool '{tool}': {cause}")]
    Call {
        /// The tool.
        tool: String,
        /// The innermost reason, as the system or the server worded it.
        cause: String,
    },
    /// The list failed.
    #[error("failed to list tools: {0}")]
    List(String),
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// Its text; images are named, other kinds left out.
    pub text: String,
    /// The tool says that it failed.
    pub is_error: bool,
}

/// A tool a server offers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its arguments.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub input_schema: JsonObject,
}

/// A live session.
pub(crate) struct Session {
    service: RunningService<RoleClient, Us>,
    /// The process of a stdio server.
    _process: Option<Box<dyn Send + Sync>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("live", &self.is_live()).finish_non_exhaustive()
    }
}

/// Our side of a session: who we are, and where we work.
struct Us {
    info: ClientConfig,
    roots: Vec<Root>,
}

impl Us {
    /// The name is whatever the door goes by; the title is our own.
    fn new(launcher: &dyn Launcher) -> Self {
        let (name, version) = launcher.client();
        let title = concat!("Legwork ", env!("CARGO_PKG_VERSION"));
        let implementation = Implementation::new(name, version).with_title(title);
        let roots: Vec<Root> = launcher
            .root()
            .and_then(|root| Url::from_directory_path(root).ok())
            .map(|url| Root::new(url.as_str().trim_end_matches('/')).with_name("workspace"))
            .into_iter()
            .collect();
        let mut capabilities = ClientCapabilities::default();
        capabilities.roots = (!roots.is_empty()).then(RootsCapabilities::default);
        let info = ClientConfig::new(capabilities, implementation)
            .with_protocol_version(ProtocolVersion::V_2025_06_18);
        Self { info, roots }
    }
}

impl ClientHandler for Us {
    fn get_info(&self) -> ClientConfig {
        self.info.clone()
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(self.roots.clone()))
    }
}

impl Session {
    /// Connects, in bounded time.
    pub(crate) async fn connect(
        server: &Server,
        http: &reqwest::Client,
        dynamic: &SharedHeaders,
        launcher: &dyn Launcher,
    ) -> Result<Self, Error> {
        let connecting = async {
            match server.transport() {
                Some(Transport::Stdio) => Self::over_stdio(server, launcher).await,
                Some(Transport::Http) => Self::over_http(server, http, dynamic, launcher).await,
                None => return Err(Error::Transport(server.transport.clone())),
            }
            .map_err(|cause| Error::Connect { name: server.name.clone(), cause })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
            let cause = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
            Err(Error::Connect { name: server.name.clone(), cause })
        })
    }

    async fn over_stdio(server: &Server, launcher: &dyn Launcher) -> Result<Self, String> {
        let stdio = launcher.launch(server).await?;
        let service = Us::new(launcher).serve((stdio.stdout, stdio.stdin)).await.map_err(|e| why(&e))?;
        Ok(Self { service, _process: Some(stdio.process) })
    }

    /// Streamable HTTP; a server that does not take its first POST is asked for the
    /// older transport.
    async fn over_http(
        server: &Server,
        http: &reqwest::Client,
        dynamic: &SharedHeaders,
        launcher: &dyn Launcher,
    ) -> Result<Self, String> {
        let url = Url::parse(&server.url).map_err(|e| format!("the url is not valid: {e}"))?;
        let headers = parse(&server.headers)?;
        let client = Client { http: http.clone(), dynamic: dynamic.clone() };
        let config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
            .custom_headers(headers.clone())
            .reinit_on_expired_session(false);
        let first =
            match Us::new(launcher).serve(StreamableHttpClientTransport::with_client(client, config)).await {
                Ok(service) => return Ok(Self { service, _process: None }),
                Err(error) => error,
            };
        let cause = why(&first);
        if !refuses_post(&first) {
            return Err(cause);
        }
        let transport = SseTransport::connect(http.clone(), &url, headers, dynamic.clone())
            .await
            .map_err(|e| format!("{cause}; nor does it speak the older HTTP+SSE: {}", root(&e)))?;
        let service = Us::new(launcher).serve(transport).await.map_err(|e| why(&e))?;
        Ok(Self { service, _process: None })
    }

    /// Whether the server is still there.
    pub(crate) fn is_live(&self) -> bool {
        !self.service.is_closed() && !self.service.is_transport_closed()
    }

    pub(crate) async fn call(
        self: &Arc<Self>,
        tool: &str,
        arguments: JsonObject,
        timeout: Duration,
    ) -> Result<ToolResult, Error> {
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let failed = |cause: String| Error::Call { tool: tool.to_owned(), cause };
        let answer = tokio::time::timeout(timeout, self.service.call_tool(params))
            .await
            .map_err(|_| failed(format!("no answer within {} s", timeout.as_secs())))?
            .map_err(|e| failed(service_error(&e)))?;
        let parts: Vec<String> = answer
            .content
            .into_iter()
            .filter_map(|part| match part {
                ContentBlock::Text(text) => Some(text.text),
                ContentBlock::Image(image) => Some(format!("[Image: {}]", image.mime_type)),
                _ => None,
            })
            .collect();
        Ok(ToolResult { text: parts.join("\n"), is_error: answer.is_error.unwrap_or(false) })
    }

    /// All pages.
    pub(crate) async fn list(self: &Arc<Self>, timeout: Duration) -> Result<Vec<Tool>, Error> {
        let tools = tokio::time::timeout(timeout, self.service.list_all_tools())
            .await
            .map_err(|_| Error::List(format!("no answer within {} s", timeout.as_secs())))?
            .map_err(|e| Error::List(service_error(&e)))?;
        Ok(tools
            .into_iter()
            .map(|tool| Tool {
                name: tool.name.into_owned(),
                description: tool.description.unwrap_or_default().into_owned(),
                input_schema: tool.input_schema.as_ref().clone(),
            })
            .collect())
    }
}

/// Whether a server's answer to the first POST was 400, 404 or 405. A JSON-RPC
/// error may have come with any of them.
fn refuses_post(error: &ClientInitializeError) -> bool {
    let text = match error {
        ClientInitializeError::JsonRpcError(_) => return true,
        ClientInitializeError::TransportError { error, .. } => error.to_string(),
        _ => return false,
    };
    ["400", "404", "405"].iter().any(|status| text.contains(&format!("HTTP {status}")))
}

fn why(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::ConnectionClosed(_) => "the server closed the connection".into(),
        ClientInitializeError::JsonRpcError(error) => error.message.to_string(),
        ClientInitializeError::TransportError { error, .. } => root(error.error.as_ref()),
        other => other.to_string(),
    }
}

fn service_error(error: &ServiceError) -> String {
    match error {
        ServiceError::McpError(error) => error.message.to_string(),
        ServiceError::TransportClosed => "the server closed the connection".into(),
        ServiceError::TransportSend(error) => root(error.error.as_ref()),
        other => other.to_string(),
    }
}

/// An error with the innermost reason, and without addresses it may quote.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    loop {
        // The SDK does not call what is within this one its cause.
        let within = match cause.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
            Some(StreamableHttpError::Client(error)) => Some(error as &(dyn std::error::Error + 'static)),
            _ => cause.source(),
        };
        match within {
            Some(within) => cause = within,
            None => return in_words(&cause.to_string()),
        }
    }
}

/// An error of the system as the protocol has it: in lower case, and without a number.
fn in_words(text: &str) -> String {
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text.to_owned(),
    }
}
