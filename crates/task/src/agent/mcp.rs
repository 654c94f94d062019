//! Tools of MCP servers, under names of their own: `mcp__SERVER__TOOL`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use legwork_runner::mcp::Server;
use legwork_runner::{Done, Operation, Requester};
use serde_json::{Map, Value, json};

use crate::abort::Abort;
use crate::config::McpServer;
use crate::hands::Hands;
use crate::tools::Answer;

/// For an answer.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The API's bound.
const MAX_NAME: usize = 128;

/// The tools that a model may call, by the names it knows.
#[derive(Debug, Default)]
pub(super) struct McpTools {
    tools: BTreeMap<String, (Server, String)>,
    servers: Vec<McpServer>,
}

impl McpTools {
    pub(super) fn new(servers: &[McpServer]) -> Self {
        Self { tools: BTreeMap::new(), servers: servers.to_vec() }
    }

    /// Asks all servers for their tools; returns what the model is told of them.
    pub(super) async fn list(&mut self, hands: &Hands, requester: &Requester) -> Result<Vec<Value>, String> {
        let mut definitions = Vec::new();
        for McpServer { server, tools: allowed } in &self.servers {
            let runner = hands.runner().await?;
            let operation = Operation::McpList { server: Box::new(server.clone()) };
            let listed = match runner.perform(operation, requester, Arc::default()).await {
                Ok(Done::McpList(tools)) => tools,
                Ok(_) => Vec::new(),
                Err(failure) => return Err(format!("MCP server '{}': {failure}", server.name)),
            };
            for name in allowed.iter().filter(|name| *name != "*") {
                if !listed.iter().any(|tool| tool.name == *name) {
                    return Err(format!("MCP server '{}' has no tool '{name}'", server.name));
                }
            }
            for tool in listed {
                if !allowed.iter().any(|name| name == "*" || *name == tool.name) {
                    continue;
                }
                if !is_callable(&server.name, &tool.name) {
                    tracing::warn!(
                        server = server.name,
                        tool = tool.name,
                        "a tool's name is none the model can be told: left out"
                    );
                    continue;
                }
                let mut schema = Value::Object(tool.input_schema);
                if schema.get("type").is_none() {
                    schema["type"] = "object".into();
                }
                definitions.push(json!({
                    "name": qualified(&server.name, &tool.name),
                    "description": tool.description,
                    "input_schema": schema,
                }));
            }
        }
        self.know(&definitions);
        Ok(definitions)
    }

    /// Learns the names from what the model was told, be it by an earlier process.
    pub(super) fn know(&mut self, definitions: &[Value]) {
        for McpServer { server, .. } in &self.servers {
            let prefix = qualified(&server.name, "");
            for name in definitions.iter().filter_map(|d| d["name"].as_str()) {
                if let Some(tool) = name.strip_prefix(&prefix) {
                    self.tools.insert(name.to_owned(), (server.clone(), tool.to_owned()));
                }
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tools.contains_key(name)
    }

    pub(super) async fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        hands: &Hands,
        requester: &Requester,
        abort: &Abort,
    ) -> Answer {
        let Some((server, tool)) = self.tools.get(name) else {
            return Answer::raised(format!("Unknown tool: {name}"));
        };
        let runner = match hands.runner().await {
            Ok(runner) => runner,
            Err(cause) => return Answer::raised(cause),
        };
        let cancel = Arc::new(legwork_runner::Cancel::default());
        let operation = Operation::McpCall {
            server: Box::new(server.clone()),
            tool: tool.clone(),
            arguments,
            timeout: TIMEOUT,
        };
        let called = runner.perform(operation, requester, cancel.clone());
        tokio::pin!(called);
        let done = tokio::select! {
            done = &mut called => done,
            _ = abort.wished() => {
                cancel.cancel();
                called.await
            }
        };
        match done {
            Ok(Done::McpCall { content, is_error }) => Answer { is_error, ..Answer::ok(content.text) },
            Ok(_) => Answer::raised("the server gave no answer"),
            Err(failure) => Answer::raised(failure.to_string()),
        }
    }
}

fn qualified(server: &str, tool: &str) -> String {
    format!("mcp__{server}__{tool}")
}

/// Whether the API takes the name.
fn is_callable(server: &str, tool: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !tool.is_empty() && tool.bytes().all(plain) && qualified(server, tool).len() <= MAX_NAME
}
