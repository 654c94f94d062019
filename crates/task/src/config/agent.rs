//! The fields of an agent task.

use std::collections::BTreeMap;
use std::time::Duration;

use legwork_runner::mcp::Server;
use legwork_yaml::{Node, Value};

use super::{Rules, shown};
use crate::tools::Tool;

const DEFAULT_TURNS: u32 = 20;
/// The protocol's bound, and that of tasks which have more than the protocol's tools.
const MOST_TURNS: u32 = 100;
const MOST_TURNS_OF_OURS: u32 = 1000;
/// Tokens that every model reads.
const DEFAULT_WINDOW: u64 = 200_000;
const LEAST_WINDOW: i128 = 2000;
const MOST_WINDOW: i128 = 10_000_000;
/// What the original asks for in every request.
const DEFAULT_MAX_TOKENS: u64 = 4096;
const MOST_MAX_TOKENS: i128 = 128_000;
const MAX_SERVERS: usize = 16;
/// How long a person has for an answer.
const DEFAULT_ASK_S: u64 = 600;
const MOST_ASK_S: i128 = 7 * 24 * 3600;
/// Most bytes of a session's name.
const MAX_SESSION: usize = 200;

/// A conversation with a model that has tools.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// The model's name; empty where none is named: then it is the newest that the API lists.
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
    /// The JSON schema of the last answer.
    pub output_schema: Option<serde_json::Value>,
    /// `shell` keeps its folder and what it exports from call to call.
    pub shell_session: bool,
    /// Without a `system_prompt` it is told ours, and what the workspace's AGENTS.md says.
    pub is_guided: bool,
    /// What it has used is told after each answer.
    pub live_usage: bool,
    /// Tokens that the model reads at most; `None` where nobody said.
    pub context_window: Option<u64>,
    /// What is done when the window is nearly full.
    pub compaction: Compaction,
    /// What the agents have that it may start.
    pub sub_agent: Option<Box<SubAgent>>,
    /// Tools whose calls a person is asked about; a name that ends in `*` stands for all that begin so.
    pub ask: Vec<String>,
    /// How long an answer is waited for.
    pub ask_time: Duration,
    /// The session that a new one begins with.
    pub fork_of: Option<String>,
}

/// Who makes a long conversation short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compaction {
    /// The API where it is known to, else we.
    #[default]
    Auto,
    /// The API.
    Api,
    /// We: the model is asked for a summary.
    Summary,
    /// Nobody: old answers of tools are left out, and nothing else.
    Off,
}

/// What an agent's agent has.
#[derive(Debug, Clone, PartialEq)]
pub struct SubAgent {
    /// Empty for that of the agent that starts it.
    pub model: String,
    /// Its tools.
    pub tools: Vec<Tool>,
    /// Calls of the model, at most.
    pub max_turns: u32,
    /// What it may use up.
    pub budget: Budget,
}

impl Agent {
    /// Tokens that the model reads at most, as far as is known.
    pub fn window(&self) -> u64 {
        self.context_window.unwrap_or(DEFAULT_WINDOW)
    }
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
    /// Dollars for a million tokens that the model reads and no cache holds.
    pub input: f64,
    /// Dollars for a million tokens that the model writes.
    pub output: f64,
    /// Dollars for a million tokens that are read from the cache.
    pub cache_read: f64,
    /// Put into the cache.
    pub cache_write: f64,
}

impl Agent {
    /// Reads the fields, or says all that is wrong. `rules` say which models are allowed.
    pub(crate) fn read(config: &Node, rules: Rules<'_>) -> Result<Self, Vec<String>> {
        let mut found = Vec::new();
        let problems = &mut found;
        let model = model(config, rules, problems);
        let given = tools(config, problems);
        let has_ours = given.tools.iter().any(|tool| !tool.is_of_protocol());
        let max_turns = turns(config, has_ours, problems);
        let messages = messages(config, problems);
        let system_prompt = match config.get("system_prompt").map(|node| &node.value) {
            None | Some(Value::Null) => String::new(),
            Some(Value::Text(text)) => text.clone(),
            Some(_) => {
                problems.push("system_prompt must be a string".into());
                String::new()
            }
        };
        let range = (1, MOST_MAX_TOKENS);
        let max_tokens = integer(config, "max_tokens", range, problems).unwrap_or(DEFAULT_MAX_TOKENS);
        let thinking = dictionary(config, "thinking", problems);
        let output_schema = dictionary(config, "output_schema", problems);
        let mut prices = prices(config, problems);
        // A task that names no model was written for the default of its day, and its price for that.
        if let (None, 1, Some(price)) = (config.get("model"), prices.len(), prices.values().next().copied()) {
            prices.entry(model.clone()).or_insert(price);
        }
        let budget = budget(config, problems);
        if budget.usd.is_some() && !prices.contains_key(&model) {
            let of = if model.is_empty() { String::new() } else { format!(" {model}") };
            problems.push(format!("budget.usd needs prices for the model{of}"));
        }
        let agent = Self {
            tools: given.tools,
            max_turns,
            max_tokens,
            messages,
            system_prompt,
            mcp_servers: mcp_servers(config, problems),
            budget,
            prices,
            thinking,
            output_schema,
            shell_session: flag(config, "shell_session", has_ours, problems),
            is_guided: flag(config, "guided", given.is_whole, problems),
            live_usage: flag(config, "live_usage", false, problems),
            context_window: integer(config, "context_window", (LEAST_WINDOW, MOST_WINDOW), problems),
            compaction: compaction(config, problems),
            sub_agent: sub_agent(config, rules, problems),
            ask: ask(config, problems),
            ask_time: Duration::from_secs(
                integer(config, "ask_s", (1, MOST_ASK_S), problems).unwrap_or(DEFAULT_ASK_S),
            ),
            fork_of: fork_of(config, problems),
            model,
        };
        if found.is_empty() { Ok(agent) } else { Err(found) }
    }
}

fn model(config: &Node, rules: Rules<'_>, problems: &mut Vec<String>) -> String {
    let model = match config.get("model").map(|node| (&node.value, node)) {
        None => return rules.models.and_then(<[String]>::first).cloned().unwrap_or_default(),
        Some((Value::Text(model), _)) => model.clone(),
        Some((_, node)) => shown(node),
    };
    let is_allowed = match rules.models {
        Some(models) => models.contains(&model),
        None => rules.provider.knows(&model),
    };
    if !is_allowed {
        problems.push(format!("Invalid or disallowed model: {model}"));
    }
    model
}

fn turns(config: &Node, has_ours: bool, problems: &mut Vec<String>) -> u32 {
    let most = if has_ours { MOST_TURNS_OF_OURS } else { MOST_TURNS };
    match config.get("max_turns").map(|node| &node.value) {
        None => DEFAULT_TURNS,
        Some(Value::Int(turns)) if (1..=i128::from(most)).contains(turns) => {
            u32::try_from(*turns).unwrap_or(DEFAULT_TURNS)
        }
        Some(_) => {
            problems.push(format!("max_turns must be an integer between 1 and {most}"));
            DEFAULT_TURNS
        }
    }
}

fn integer(
    config: &Node,
    name: &str,
    (least, most): (i128, i128),
    problems: &mut Vec<String>,
) -> Option<u64> {
    match config.get(name).map(|node| &node.value) {
        None => None,
        Some(Value::Int(number)) if (least..=most).contains(number) => u64::try_from(*number).ok(),
        Some(_) => {
            problems.push(format!("{name} must be an integer between {least} and {most}"));
            None
        }
    }
}

fn flag(config: &Node, name: &str, default: bool, problems: &mut Vec<String>) -> bool {
    match config.get(name).map(|node| &node.value) {
        None => default,
        Some(Value::Bool(flag)) => *flag,
        Some(_) => {
            problems.push(format!("{name} must be true or false"));
            default
        }
    }
}

fn dictionary(config: &Node, name: &str, problems: &mut Vec<String>) -> Option<serde_json::Value> {
    match config.get(name) {
        None | Some(Node { value: Value::Null, .. }) => None,
        Some(node @ Node { value: Value::Map(_), .. }) => Some(node.to_json()),
        Some(_) => {
            problems.push(format!("{name} must be a dictionary"));
            None
        }
    }
}

/// The tools whose calls are asked about.
fn ask(config: &Node, problems: &mut Vec<String>) -> Vec<String> {
    let list = match config.get("ask").map(|node| &node.value) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::List(list)) => list,
        Some(_) => {
            problems.push("ask must be a list of tools".into());
            return Vec::new();
        }
    };
    let mut tools = Vec::new();
    for node in list {
        match &node.value {
            Value::Text(name) if !name.is_empty() => tools.push(name.clone()),
            _ => problems.push("ask must be a list of tools".into()),
        }
    }
    tools
}

fn fork_of(config: &Node, problems: &mut Vec<String>) -> Option<String> {
    match config.get("fork_of").map(|node| &node.value) {
        None | Some(Value::Null) => None,
        Some(Value::Text(name)) if !name.is_empty() && name.len() <= MAX_SESSION => Some(name.clone()),
        Some(_) => {
            problems.push(format!("fork_of must be the name of a session, of 1 to {MAX_SESSION} bytes"));
            None
        }
    }
}

fn compaction(config: &Node, problems: &mut Vec<String>) -> Compaction {
    match config.get("compaction").map(|node| &node.value) {
        None => Compaction::Auto,
        Some(Value::Text(text)) if text == "auto" => Compaction::Auto,
        Some(Value::Text(text)) if text == "api" => Compaction::Api,
        Some(Value::Text(text)) if text == "summary" => Compaction::Summary,
        Some(Value::Text(text)) if text == "off" => Compaction::Off,
        Some(_) => {
            problems.push("compaction must be auto, api, summary or off".into());
            Compaction::Auto
        }
    }
}

fn sub_agent(config: &Node, rules: Rules<'_>, problems: &mut Vec<String>) -> Option<Box<SubAgent>> {
    let node = config.get("sub_agent")?;
    let Value::Map(entries) = &node.value else {
        problems.push("sub_agent must be a dictionary".into());
        return None;
    };
    const KNOWN: &[&str] = &["model", "tools", "max_turns", "budget"];
    for entry in entries.iter().filter(|entry| !KNOWN.contains(&entry.key.as_str())) {
        problems.push(format!("sub_agent has no '{}': it has {}", entry.key, KNOWN.join(", ")));
    }
    let mut own = Vec::new();
    let tools = tools(node, &mut own).tools;
    let sub = SubAgent {
        model: if node.get("model").is_some() { model(node, rules, &mut own) } else { String::new() },
        max_turns: turns(node, true, &mut own),
        budget: budget(node, &mut own),
        tools,
    };
    if sub.tools.contains(&Tool::Agent) {
        own.push("tools: an agent's agent starts no further ones".into());
    }
    if sub.budget.usd.is_some() {
        own.push(
            "budget.usd: give the agent itself a bound in US dollars, which holds for its agents too".into(),
        );
    }
    problems.extend(own.into_iter().map(|problem| format!("sub_agent.{problem}")));
    Some(Box::new(sub))
}

/// Tools as a task names them.
#[derive(Default)]
struct Given {
    tools: Vec<Tool>,
    /// Our whole set was asked for.
    is_whole: bool,
}

fn tools(config: &Node, problems: &mut Vec<String>) -> Given {
    let list = match config.get("tools").map(|node| &node.value) {
        None => return Given::default(),
        Some(Value::List(list)) => list,
        Some(_) => {
            problems.push("Tools must be a list".into());
            return Given::default();
        }
    };
    let mut given = Given::default();
    for node in list {
        let Value::Text(name) = &node.value else {
            problems.push("Tool names must be strings".into());
            continue;
        };
        let tools = Tool::asked_for(name);
        if tools.is_empty() {
            problems.push(format!("Disallowed tool: {}", shown(node)));
        }
        given.is_whole |= name == Tool::WHOLE;
        for tool in tools {
            match given.tools.iter().find(|known| known.name() == tool.name()) {
                Some(known) if *known == tool => {}
                Some(_) => problems.push(format!("Tools: two of them are called '{}'", tool.name())),
                None => given.tools.push(tool),
            }
        }
    }
    given
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
