//! What an agent starts with: its model, its tools, what it is told beforehand. All of it is
//! noted, so that whoever comes after a kill asks with the same bytes.

use std::io::Read;

use legwork_proto::task::{Code, Level};
use serde_json::Value;

use super::budget::Meter;
use super::mcp::McpTools;
use super::progress::Progress;
use super::room::Room;
use super::{Failure, Run, World};
use crate::config::Agent;
use crate::hands::Hands;
use crate::journal::{Entry, Journal};
use crate::tools::{Background, Session, Tool};

/// What an agent is told that is given our tools and no words of its own.
const PROMPT: &str = include_str!("prompt.md");
/// Files in which a repository tells agents about itself; the first that is there.
const INSTRUCTIONS: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];
/// Most bytes of such a file.
const MAX_INSTRUCTIONS: u64 = 64 * 1024;
/// Models that an error names.
const NAMED: usize = 12;

/// What it is.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) model: String,
    /// JSON of the tools, as the model is told of them.
    pub(super) tools: String,
    /// What it is told beforehand.
    pub(super) system: String,
    /// Tokens that the model reads, where the API said so.
    pub(super) window: Option<u64>,
}

/// An agent that can go to work.
pub(super) struct Opened {
    journal: Journal,
    progress: Progress,
    started: Started,
    mcp: McpTools,
    session: Option<Session>,
}

impl Opened {
    pub(super) fn into_run<'a>(self, task: &'a Agent, world: &'a World<'a>, meter: Meter) -> Run<'a> {
        let Self { journal, progress, started, mcp, session } = self;
        Run {
            room: Room::new(task, world),
            background: Background::new(&world.dir),
            task,
            world,
            journal,
            progress,
            meter,
            started,
            mcp,
            session,
            cuts: 0,
        }
    }
}

/// Opens its journal, and starts it or goes on.
pub(super) async fn open(task: &Agent, world: &World<'_>, meter: &mut Meter) -> Result<Opened, Failure> {
    let path = world.dir.join("agent.journal");
    let internal = |message: String| (Code::Internal, message);
    let failed =
        |e: std::io::Error| (Code::Internal, format!("the journal {} can't be used: {e}", path.display()));
    let (mut journal, entries) = Journal::open(&path).map_err(failed)?;
    let mut mcp = McpTools::new(&task.mcp_servers);
    let mut entries = entries;
    if entries.is_empty()
        && let Some(entry) = session(task, world).await.map_err(internal)?
    {
        journal.add(&entry).map_err(failed)?;
        entries.push(entry);
    }
    let before = entries.iter().find_map(|entry| match entry {
        Entry::Session { messages } => Some(messages.clone()),
        _ => None,
    });
    let own = task.messages.iter().map(|m| m.0.clone());
    let initial = before.unwrap_or_default().into_iter().chain(own).collect();
    let (progress, known) = Progress::replay(initial, &entries, meter);
    let has_shell = task.tools.iter().any(|tool| *tool == Tool::Shell && task.shell_session)
        || task.tools.iter().any(|tool| matches!(tool, Tool::Official(tool) if tool.is_shell()));
    let session = match has_shell {
        true => Some(world.hands.session(&world.dir).map_err(internal)?),
        false => None,
    };
    let started = match known {
        // What the model was told stays as it is, byte for byte.
        Some(Entry::Start { tools, model, system, window }) => {
            let definitions: Vec<Value> = serde_json::from_str(&tools).unwrap_or_default();
            mcp.know(&definitions);
            tracing::info!(turns = progress.turns, "resuming");
            Started {
                model: model.unwrap_or_else(|| task.model.clone()),
                tools,
                system: system.unwrap_or_else(|| task.system_prompt.clone()),
                window,
            }
        }
        _ => {
            let (model, window) = model(task, world).await?;
            let mut definitions = definitions(task);
            definitions.extend(mcp.list(world.hands, world.requester).await.map_err(internal)?);
            let tools = Value::Array(definitions).to_string();
            let system = system(task, world).map_err(internal)?;
            let entry = Entry::Start {
                tools: tools.clone(),
                model: Some(model.clone()),
                system: Some(system.clone()),
                window,
            };
            journal.add(&entry).map_err(failed)?;
            Started { model, tools, system, window }
        }
    };
    meter.price_of(&started.model, &task.prices);
    Ok(Opened { journal, progress, started, mcp, session })
}

/// What was said in the session that the task goes on with.
async fn session(task: &Agent, world: &World<'_>) -> Result<Option<Entry>, String> {
    let Some(memory) = &world.contact.memory else {
        return match &task.fork_of {
            Some(_) => Err("fork_of: this task has no session, so there is none to go on from".into()),
            None => Ok(None),
        };
    };
    // A fork that has been gone on with is a session of its own.
    let failed = |e: String| format!("the session can't be had: {e}");
    let own = memory.load(None).await.map_err(failed)?;
    let messages = match (own, &task.fork_of) {
        (Some(messages), _) => messages,
        (None, None) => return Ok(None),
        (None, Some(other)) => {
            let messages = memory.load(Some(other)).await.map_err(failed)?;
            messages.ok_or_else(|| format!("fork_of: there is no session '{other}'"))?
        }
    };
    world.events.log(Level::Info, &format!("The session goes on: {} messages", messages.len())).await;
    Ok(Some(Entry::Session { messages }))
}

fn definitions(task: &Agent) -> Vec<Value> {
    let mut tools = task.tools.clone();
    // Who can start something in the background must be able to see to it.
    if task.shell_session && tools.contains(&Tool::Shell) && !tools.contains(&Tool::Background) {
        tools.push(Tool::Background);
    }
    tools.iter().map(|tool| tool.definition(task.shell_session)).collect()
}

/// The model that the task names, else the newest that the API lists; and its window, if the
/// API was asked.
async fn model(task: &Agent, world: &World<'_>) -> Result<(String, Option<u64>), Failure> {
    if !task.model.is_empty() {
        return Ok((task.model.clone(), None));
    }
    let newest = world.client.models().await.map(|models| models.into_iter().next());
    let reason = match newest {
        Ok(Some(model)) => return Ok((model.id, model.max_input_tokens)),
        Ok(None) => "it lists none".to_owned(),
        Err(reason) => world.events.masks.apply(reason),
    };
    Err((
        Code::ApiError,
        format!(
            "the task names no model, and the newest one can't be asked of the API ({reason}): name one in the task, or set ALLOWED_MODELS"
        ),
    ))
}

/// What to say of a model that there is not: which there are.
pub(super) async fn living(world: &World<'_>) -> String {
    let advice = "if the model is retired, set ALLOWED_MODELS to models that are in service and name one of them in the task";
    match world.client.models().await {
        Ok(models) if !models.is_empty() => {
            let names: Vec<&str> = models.iter().take(NAMED).map(|model| model.id.as_str()).collect();
            format!("{advice}; in service are {}", names.join(", "))
        }
        _ => advice.to_owned(),
    }
}

/// What it is told beforehand.
fn system(task: &Agent, world: &World<'_>) -> Result<String, String> {
    if !task.is_guided || !task.system_prompt.is_empty() {
        return Ok(task.system_prompt.clone());
    }
    let mut text = match &world.settings.system_prompt {
        None => PROMPT.to_owned(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| format!("LEGWORK_SYSTEM_PROMPT: failed to read {}: {e}", path.display()))?,
    };
    if let Some((name, said)) = instructions(world.hands) {
        text.push_str(&format!("\nThe workspace has a file {name}, which says:\n\n{said}\n"));
    }
    Ok(text)
}

/// What the workspace tells agents about itself.
fn instructions(hands: &Hands) -> Option<(&'static str, String)> {
    INSTRUCTIONS.iter().find_map(|name| {
        let (file, _) = hands.root.open_file(name).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_INSTRUCTIONS).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some((*name, text))
    })
}
