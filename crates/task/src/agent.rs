//! The agent loop: ask the model, call its tools, until it is done (docs/protocols/task.md §5).

mod budget;
mod calls;
mod context;
mod mcp;
mod persist;
mod progress;

use std::path::PathBuf;

use bytes::Bytes;
use legwork_proto::task::{Body, Code, Usage as Report};
use legwork_runner::Requester;
use serde_json::{Value, json};

use crate::abort::{Abort, Why};
use crate::config::Agent;
use crate::events::Events;
use crate::hands::Hands;
use crate::journal::{Entry, Journal};
use crate::messages::{ApiError, Client, Kind, Live, Message, Observer, StopReason};
use crate::random;
use budget::Meter;
use mcp::McpTools;
pub(crate) use persist::Persistence;
use progress::Progress;

/// From so many tokens on a request that the API calls invalid may just be too long.
const NEARLY_FULL: u64 = 100_000;

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    pub(crate) failure: Option<(Code, String)>,
    pub(crate) usage: Report,
    /// The model's last words.
    pub(crate) text: String,
}

/// What an agent works with.
pub(crate) struct World<'a> {
    pub(crate) hands: &'a Hands,
    pub(crate) events: &'a Events,
    pub(crate) client: &'a Client,
    pub(crate) persistence: Option<&'a Persistence>,
    pub(crate) abort: &'a Abort,
    pub(crate) requester: &'a Requester,
    /// Where its journal and the files of its commands are.
    pub(crate) dir: PathBuf,
}

/// An agent at work.
struct Run<'a> {
    task: &'a Agent,
    world: &'a World<'a>,
    journal: Journal,
    progress: Progress,
    meter: Meter,
    /// JSON of the tools, as the model is told of them.
    tools: String,
    mcp: McpTools,
}

/// Runs an agent to its end, or on from where an earlier process was.
pub(crate) async fn run(task: &Agent, world: &World<'_>) -> Ending {
    let Some(time) = task.budget.time else { return run_in_time(task, world).await };
    let child = Abort::default();
    let timer = {
        let (child, parent) = (child.clone(), world.abort.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(time) => child.wish(Why::OutOfTime),
                why = parent.wished() => child.wish(why),
            }
        })
    };
    let world = World { abort: &child, dir: world.dir.clone(), ..*world };
    let ending = run_in_time(task, &world).await;
    timer.abort();
    ending
}

async fn run_in_time(task: &Agent, world: &World<'_>) -> Ending {
    let mut meter = Meter::new(task);
    let opened = open(task, world, &mut meter).await;
    let (journal, progress, tools, mcp) = match opened {
        Ok(opened) => opened,
        Err(message) => {
            let failure = Some((Code::Internal, message));
            return Ending { failure, usage: meter.report(), text: String::new() };
        }
    };
    let mut run = Run { task, world, journal, progress, meter, tools, mcp };
    let failure = run.turns().await.err();
    Ending { failure, usage: run.meter.report(), text: run.progress.text }
}

async fn open(
    task: &Agent,
    world: &World<'_>,
    meter: &mut Meter,
) -> Result<(Journal, Progress, String, McpTools), String> {
    let path = world.dir.join("agent.journal");
    let failed = |e: std::io::Error| format!("the journal {} can't be used: {e}", path.display());
    let (mut journal, entries) = Journal::open(&path).map_err(failed)?;
    let mut mcp = McpTools::new(&task.mcp_servers);
    let initial = task.messages.iter().map(|m| m.0.clone()).collect();
    let (progress, told) = Progress::replay(initial, &entries, meter);
    let tools = match told {
        // What the model was told stays as it is, byte for byte.
        Some(tools) => {
            let definitions: Vec<Value> = serde_json::from_str(&tools).unwrap_or_default();
            mcp.know(&definitions);
            tracing::info!(turns = progress.turns, "resuming");
            tools
        }
        None => {
            let mut definitions: Vec<Value> = task.tools.iter().map(|tool| tool.definition()).collect();
            definitions.extend(mcp.list(world.hands, world.requester).await?);
            let tools = Value::Array(definitions).to_string();
            journal.add(&Entry::Start { tools: tools.clone() }).map_err(failed)?;
            tools
        }
    };
    Ok((journal, progress, tools, mcp))
}

type Failure = (Code, String);

impl Run<'_> {
    async fn turns(&mut self) -> Result<(), Failure> {
        // What an earlier process did not finish comes first.
        if let Some(stop) = self.progress.unanswered()
            && self.answer(stop).await?
        {
            return Ok(());
        }
        loop {
            self.check_abort()?;
            if self.progress.turns >= self.task.max_turns {
                return Err((Code::MaxTurns, "Max turns reached".into()));
            }
            let message = match self.ask().await? {
                Some(message) => message,
                None => continue,
            };
            if self.answer(message.stop_reason).await? {
                return Ok(());
            }
        }
    }

    fn check_abort(&self) -> Result<(), Failure> {
        match self.world.abort.now() {
            None => Ok(()),
            Some(why) => Err((code(why), why.message().into())),
        }
    }

    /// Asks for the next message; `None` if there was no room for it and there is now.
    async fn ask(&mut self) -> Result<Option<Message>, Failure> {
        let length = self.progress.messages.iter().map(String::len).sum::<usize>() + self.tools.len();
        let max_tokens = self.meter.reserve(length, self.task.max_tokens).map_err(|e| (Code::Budget, e))?;
        let body = self.request(max_tokens);
        let kept = self.world.persistence.map(|p| (p, p.begin()));
        let mut teller = Teller { events: self.world.events, message_id: random::id("msg"), has_told: false };
        let asked = self.world.client.message(body, self.world.abort, &mut teller).await;
        let end = |content: &[Value], status: &str| {
            if let Some((persistence, id)) = &kept {
                persistence.end(id, content, status);
            }
        };
        let (message, wasted) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                let aborted = matches!(error.kind, Kind::Aborted(_));
                end(&[], if aborted { "aborted" } else { "failed" });
                self.waste(error.wasted.into())?;
                let long = error.kind == Kind::Invalid && self.meter.estimate(length) > NEARLY_FULL;
                if long && self.make_room()? {
                    return Ok(None);
                }
                return Err(api_failure(error));
            }
        };
        self.waste(wasted.into())?;
        let usage = message.usage.into();
        if message.stop_reason == StopReason::ContextWindowExceeded && self.make_room()? {
            end(&message.content, "failed");
            self.waste(usage)?;
            teller.see(Live::Reset).await;
            return Ok(None);
        }
        self.meter.count(usage, length);
        let is_good =
            matches!(message.stop_reason, StopReason::EndTurn | StopReason::ToolUse | StopReason::PauseTurn);
        end(&message.content, if is_good { "completed" } else { "failed" });
        let stop_reason = match (&message.stop_reason, &message.stop_details) {
            (reason, Some(details)) => format!("{}: {details}", reason.as_str()),
            (reason, None) => reason.as_str().to_owned(),
        };
        let entry = Entry::Turn { message: message.as_param(), stop_reason, usage };
        self.note(&entry)?;
        self.progress.take(&entry);
        self.progress.message_id = teller.message_id;
        Ok(Some(message))
    }

    /// Does what the last message asks for; true if the task is done.
    async fn answer(&mut self, stop: StopReason) -> Result<bool, Failure> {
        match stop {
            StopReason::EndTurn => Ok(true),
            StopReason::ToolUse => {
                self.call_tools().await?;
                Ok(false)
            }
            // It goes on when it is asked again.
            StopReason::PauseTurn => Ok(false),
            other => {
                let hint = match other {
                    StopReason::MaxTokens => {
                        format!(": the answer was cut at {} tokens (max_tokens)", self.task.max_tokens)
                    }
                    StopReason::ContextWindowExceeded => ": the model's window is full".into(),
                    _ => String::new(),
                };
                let reason = if self.progress.stop_reason.is_empty() {
                    other.as_str()
                } else {
                    &self.progress.stop_reason
                };
                Err((Code::StopReason, format!("Unexpected stop reason: {reason}{hint}")))
            }
        }
    }

    /// Leaves out old answers of tools; false if nothing is to be gained.
    fn make_room(&mut self) -> Result<bool, Failure> {
        let messages = self.progress.messages.len().saturating_sub(context::KEPT);
        let entry = Entry::Cleared { messages };
        if self.progress.clear(messages) == 0 {
            return Ok(false);
        }
        tracing::info!(messages, "the model's window is full: older tool results are left out");
        self.note(&entry)?;
        Ok(true)
    }

    fn waste(&mut self, usage: crate::journal::Tokens) -> Result<(), Failure> {
        if usage == crate::journal::Tokens::default() {
            return Ok(());
        }
        self.meter.waste(usage);
        self.note(&Entry::Wasted { usage })
    }

    fn note(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.journal
            .add(entry)
            .map_err(|e| (Code::Internal, format!("the task's journal can't be written: {e}")))
    }

    /// The request's body. Messages come last and as they were: what was sent before is a
    /// prefix of what is sent now, and the prompt cache finds it.
    fn request(&self, max_tokens: u64) -> Bytes {
        let task = self.task;
        let marked = self.progress.messages.iter().any(|m| m.contains("\"cache_control\""));
        let mut body = json!({"model": task.model, "max_tokens": max_tokens, "stream": true});
        if !marked {
            body["cache_control"] = json!({"type": "ephemeral"});
        }
        if let Some(thinking) = &task.thinking {
            body["thinking"] = thinking.clone();
        }
        let mut text = body.to_string();
        text.pop();
        if !task.system_prompt.is_empty() {
            let mut block = json!({"type": "text", "text": task.system_prompt});
            if !marked {
                block["cache_control"] = json!({"type": "ephemeral"});
            }
            text.push_str(&format!(",\"system\":[{block}]"));
        }
        if self.tools != "[]" {
            text.push_str(",\"tools\":");
            text.push_str(&self.tools);
        }
        text.push_str(",\"messages\":[");
        text.push_str(&self.progress.messages.join(","));
        text.push_str("]}");
        Bytes::from(text)
    }
}

fn code(why: Why) -> Code {
    match why {
        Why::OutOfTime => Code::Budget,
        Why::Stopped | Why::Cancelled => Code::Aborted,
    }
}

fn api_failure(error: ApiError) -> Failure {
    match error.kind {
        Kind::Aborted(why) => (code(why), why.message().into()),
        Kind::NoModel => (
            Code::ApiError,
            format!(
                "Claude API error: {}; if the model is retired, set ALLOWED_MODELS to models that are in service and name one of them in the task",
                error.message
            ),
        ),
        Kind::Failed | Kind::Invalid => (Code::ApiError, format!("Claude API error: {}", error.message)),
    }
}

/// Tells what is seen of a message while it comes.
struct Teller<'a> {
    events: &'a Events,
    message_id: String,
    has_told: bool,
}

impl Observer for Teller<'_> {
    async fn see(&mut self, live: Live) {
        let message_id = self.message_id.clone();
        match live {
            Live::Text(text) if text.is_empty() => return,
            // The index is given when it is known what is sent together.
            Live::Text(text) => self.events.tell(Body::Token { message_id, text, token_index: 0 }).await,
            Live::Tool { id, name } => {
                let body = Body::ToolStart { message_id, tool_id: id, tool_name: name, args: None };
                self.events.tell(body).await;
            }
            Live::Reset => {
                if self.has_told {
                    self.events.tell(Body::TokenReset { message_id }).await;
                    self.message_id = random::id("msg");
                }
                self.has_told = false;
                return;
            }
        }
        self.has_told = true;
    }
}
