//! The fields of an agent task.

use std::collections::BTreeMap;
use std::time::Duration;

use legwork_runner::mcp::Server;
use legwork_yaml::{Node, Value};

use super::shown;
use crate::tools::Tool;

/// Where it is allowed; else the first that is.
const DEFAULT_MODEL: &str = "claude-sonnet-5";
const DEFAULT_TURNS: u32 = 20;
/// What the original asks for in every request.
const DEFAULT_MAX_TOKENS: u64 = 4096;
const MOST_MAX_TOKENS: i128 = 128_000;
const MAX_SERVERS: usize = 16;

/// A conversation with a model that has tools.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// The model's name.
    pub model: String,
    /// Tools that are enabled.
    pub tools: Vec<Tool>,
    /// Calls of the model, at most.
    pub max_turns: u32,
    /// Tokens of one answer, at most.
    pub max_tokens: u64,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Empty for none.
    pub system_prompt: String,
    /// Further tools.
    pub mcp_servers: Vec<McpServer>,
    /// What it may use up.
    pub budget: Budget,
    /// By model.
    pub prices: BTreeMap<String, Price>,
    /// Passed to the API as it is.
    pub thinking: Option<serde_json::Value>,
}

/// A message: role and content, as JSON text that is sent as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(pub String);

/// An MCP server, and the tools of it that the model gets.
#[derive(Debug, Clone, PartialEq)]
pub struct McpServer {
    /// How it is reached.
    pub server: Server,
    /// Names, or `*` for all.
    pub tools: Vec<String>,
}

/// Bounds beside the turns; `None` for none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Budget {
    /// Tokens read and written.
    pub tokens: Option<u64>,
    /// US dollars.
    pub usd: Option<f64>,
    /// Wall time.
    pub time: Option<Duration>,
}

/// US dollars for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Price {
    /// Read.
    pub input: f64,
    /// Written.
    pub output: f64,
    /// Read from the cache.
    pub cache_read: f64,
    /// Put into the cache.
    pub cache_write: f64,
}

impl Agent {
    /// Reads the fields, or says all that is wrong.
    pub(crate) fn read(config: &Node, models: &[String]) -> Result<Self, Vec<String>> {
        let mut found = Vec::new();
        let problems = &mut found;
        let model = match config.get("model").map(|node| (&node.value, node)) {
            None => {
                let is_default = |model: &&String| *model == DEFAULT_MODEL;
                let default = models.iter().find(is_default).or(models.first());
                default.map_or_else(|| DEFAULT_MODEL.to_owned(), Clone::clone)
            }
            Some((Value::Text(model), _)) => model.clone(),
            Some((_, node)) => shown(node),
        };
        if !models.contains(&model) {
            problems.push(format!("Invalid or disallowed model: {model}"));
        }
        let tools = tools(config, problems);
        let max_turns = match config.get("max_turns").map(|node| &node.value) {
            None => DEFAULT_TURNS,
            Some(Value::Int(turns @ 1..=100)) => u32::try_from(*turns).unwrap_or(DEFAULT_TURNS),
            Some(_) => {
                problems.push("max_turns must be an integer between 1 and 100".into());
                DEFAULT_TURNS
            }
        };
        let messages = messages(config, problems);
        let system_prompt = match config.get("system_prompt").map(|node| &node.value) {
            None | Some(Value::Null) => String::new(),
            Some(Value::Text(text)) => text.clone(),
            Some(_) => {
                problems.push("system_prompt must be a string".into());
                String::new()
            }
        };
        let max_tokens = match config.get("max_tokens").map(|node| &node.value) {
            None => DEFAULT_MAX_TOKENS,
            Some(Value::Int(tokens)) if (1..=MOST_MAX_TOKENS).contains(tokens) => {
                u64::try_from(*tokens).unwrap_or(DEFAULT_MAX_TOKENS)
            }
            Some(_) => {
                problems.push(format!("max_tokens must be an integer between 1 and {MOST_MAX_TOKENS}"));
                DEFAULT_MAX_TOKENS
            }
        };
        let thinking = match config.get("thinking") {
            None | Some(Node { value: Value::Null, .. }) => None,
            Some(node @ Node { value: Value::Map(_), .. }) => Some(node.to_json()),
            Some(_) => {
                problems.push("thinking must be a dictionary".into());
                None
            }
        };
        let mut prices = prices(config, problems);
        // A task that names no model was written for the default of its day, and its price for that.
        if let (None, 1, Some(price)) = (config.get("model"), prices.len(), prices.values().next().copied()) {
            prices.entry(model.clone()).or_insert(price);
        }
        let budget = budget(config, problems);
        if budget.usd.is_some() && !prices.contains_key(&model) {
            problems.push(format!("budget.usd needs prices for the model {model}"));
        }
        let mcp_servers = mcp_servers(config, problems);
        if !found.is_empty() {
            return Err(found);
        }
        Ok(Self {
            model,
            tools,
            max_turns,
            max_tokens,
            messages,
            system_prompt,
            mcp_servers,
            budget,
            prices,
            thinking,
        })
    }
}

fn tools(config: &Node, problems: &mut Vec<String>) -> Vec<Tool> {
    let list = match config.get("tools").map(|node| &node.value) {
        None => return Vec::new(),
        Some(Value::List(list)) => list,
        Some(_) => {
            problems.push("Tools must be a list".into());
            return Vec::new();
        }
    };
    let mut tools = Vec::new();
    for node in list {
        match &node.value {
            Value::Text(name) => match Tool::named(name) {
                Some(tool) if !tools.contains(&tool) => tools.push(tool),
                Some(_) => {}
                None => problems.push(format!("Disallowed tool: {}", shown(node))),
            },
            _ => problems.push("Tool names must be strings".into()),
        }
    }
    tools
}

fn messages(config: &Node, problems: &mut Vec<String>) -> Vec<Message> {
    let list = match config.get("messages").map(|node| &node.value) {
        None => return Vec::new(),
        Some(Value::List(list)) => list,
        Some(_) => {
            problems.push("Messages must be a list".into());
            return Vec::new();
        }
    };
    let mut messages = Vec::new();
    for node in list {
        let Value::Map(_) = &node.value else {
            problems.push("Each message must be a dictionary".into());
            continue;
        };
        match node.get("role").map(|role| (&role.value, role)) {
            None => problems.push("Each message must have a 'role' field".into()),
            Some((Value::Text(role), _)) if role == "user" || role == "assistant" => {
                messages.push(Message(without_blanks(node.to_json()).to_string()));
            }
            Some((_, role)) => problems.push(format!("Invalid message role: {}", shown(role))),
        }
    }
    messages
}

/// A message without blocks of nothing but blanks beside others: the API would refuse it.
fn without_blanks(mut message: serde_json::Value) -> serde_json::Value {
    let is_blank = |block: &serde_json::Value| {
        block["type"] == "text" && block["text"].as_str().is_some_and(|text| text.trim().is_empty())
    };
    if let Some(blocks) = message["content"].as_array_mut()
        && !blocks.iter().all(is_blank)
    {
        blocks.retain(|block| !is_blank(block));
    }
    message
}

fn number(node: &Node) -> Option<f64> {
    match node.value {
        #[allow(clippy::cast_precision_loss, reason = "amounts of money and seconds are small")]
        Value::Int(value) => Some(value as f64),
        Value::Float(value) => Some(value),
        _ => None,
    }
    .filter(|value| value.is_finite() && *value >= 0.0)
}

fn budget(config: &Node, problems: &mut Vec<String>) -> Budget {
    let mut budget = Budget::default();
    let entries = match config.get("budget").map(|node| &node.value) {
        None | Some(Value::Null) => return budget,
        Some(Value::Map(entries)) => entries,
        Some(_) => {
            problems.push("budget must be a dictionary".into());
            return budget;
        }
    };
    for entry in entries {
        let wanted = number(&entry.node);
        match (entry.key.as_str(), wanted) {
            #[allow(
                clippy::cast_sign_loss,
                clippy::cast_possible_truncation,
                reason = "checked to be positive"
            )]
            ("tokens", Some(value)) => budget.tokens = Some(value as u64),
            ("usd", Some(value)) => budget.usd = Some(value),
            ("seconds", Some(value)) => {
                budget.time = Some(Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX));
            }
            ("tokens" | "usd" | "seconds", None) => {
                problems.push(format!("budget.{} must be a positive number", entry.key));
            }
            (other, _) => problems.push(format!("budget has no '{other}': it has tokens, usd, seconds")),
        }
    }
    budget
}

fn prices(config: &Node, problems: &mut Vec<String>) -> BTreeMap<String, Price> {
    let mut prices = BTreeMap::new();
    let entries = match config.get("prices").map(|node| &node.value) {
        None | Some(Value::Null) => return prices,
        Some(Value::Map(entries)) => entries,
        Some(_) => {
            problems.push("prices must be a dictionary of models".into());
            return prices;
        }
    };
    for entry in entries {
        let part = |name: &str| entry.node.get(name).map(number);
        match (part("input"), part("output"), part("cache_read"), part("cache_write")) {
            (Some(Some(input)), Some(Some(output)), read, write)
                if read != Some(None) && write != Some(None) =>
            {
                // What the API asks for them, unless said otherwise: a tenth and a quarter more.
                let cache_read = read.flatten().unwrap_or(input * 0.1);
                let cache_write = write.flatten().unwrap_or(input * 1.25);
                prices.insert(entry.key.clone(), Price { input, output, cache_read, cache_write });
            }
            _ => problems.push(format!(
                "prices.{} must have input and output, and may have cache_read and cache_write: US dollars for a \
                 million tokens",
                entry.key
            )),
        }
    }
    prices
}

fn mcp_servers(config: &Node, problems: &mut Vec<String>) -> Vec<McpServer> {
    let list = match config.get("mcp_servers").map(|node| &node.value) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::List(list)) => list,
        Some(_) => {
            problems.push("mcp_servers must be a list".into());
            return Vec::new();
        }
    };
    if list.len() > MAX_SERVERS {
        problems.push(format!("mcp_servers: at most {MAX_SERVERS} are allowed"));
        return Vec::new();
    }
    let mut servers: Vec<McpServer> = Vec::new();
    for (index, node) in list.iter().enumerate() {
        match mcp_server(node) {
            Ok(server) if servers.iter().any(|s| s.server.name == server.server.name) => {
                problems.push(format!("mcp_servers[{index}].name: '{}' is taken", server.server.name));
            }
            Ok(server) => servers.push(server),
            Err(problem) => problems.push(format!("mcp_servers[{index}]{problem}")),
        }
    }
    servers
}

fn mcp_server(node: &Node) -> Result<McpServer, String> {
    let text = |key: &str| match node.get(key).map(|n| &n.value) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::Text(text)) => Ok(text.clone()),
        Some(_) => Err(format!(".{key} must be a string")),
    };
    let list = |key: &str| match node.get(key).map(|n| &n.value) {
        None => Ok(Vec::new()),
        Some(Value::List(list)) => list
            .iter()
            .map(|n| match &n.value {
                Value::Text(text) => Ok(text.clone()),
                _ => Err(format!(".{key} must be a list of strings")),
            })
            .collect(),
        Some(_) => Err(format!(".{key} must be a list of strings")),
    };
    let map = |key: &str| match node.get(key).map(|n| &n.value) {
        None => Ok(BTreeMap::new()),
        Some(Value::Map(entries)) => entries
            .iter()
            .map(|e| match &e.node.value {
                Value::Text(text) => Ok((e.key.clone(), text.clone())),
                _ => Err(format!(".{key} must be a dictionary of strings")),
            })
            .collect(),
        Some(_) => Err(format!(".{key} must be a dictionary of strings")),
    };
    let command = text("command")?;
    let transport = match text("transport")? {
        given if given.is_empty() && command.is_empty() => "http".to_owned(),
        given if given.is_empty() => "stdio".to_owned(),
        given => given,
    };
    let server = Server {
        name: text("name")?,
        transport,
        command,
        args: list("args")?,
        env: map("env")?,
        url: text("url")?,
        headers: map("headers")?,
        ..Server::default()
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 32
            && !name.contains("__")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !is_name(&server.name) {
        return Err(".name must be 1 to 32 letters, digits, - or _, and may not have two _ in a row".into());
    }
    match server.transport() {
        None => return Err(format!(".transport: '{}' is none of stdio, http, sse", server.transport)),
        Some(legwork_runner::mcp::Transport::Stdio) if server.command.is_empty() => {
            return Err(".command is required".into());
        }
        Some(legwork_runner::mcp::Transport::Http) if server.url.is_empty() => {
            return Err(".url is required".into());
        }
        Some(_) => {}
    }
    let tools = list("tools")?;
    if tools.is_empty() {
        return Err(".tools is required: the names of the tools that the model may call, or \"*\"".into());
    }
    Ok(McpServer { server, tools })
}
