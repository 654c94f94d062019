//! The agent loop: ask the model, call its tools, until it is done (docs/protocols/task.md §5).

mod budget;
mod calls;
mod context;
mod mcp;
mod memory;
mod persist;
mod progress;
mod room;
mod start;
mod steer;
mod sub;

use std::path::PathBuf;

use bytes::Bytes;
use legwork_proto::task::{Body, Code, Level, Usage as Report};
use legwork_runner::Requester;
use serde_json::{Value, json};

use crate::abort::{Abort, Why};
use crate::config::Agent;
use crate::events::Events;
use crate::hands::Hands;
use crate::journal::{Entry, Journal, Tokens};
use crate::random;
use crate::settings::Settings;
use crate::task::Contact;
use crate::tools::{Background, Session};
use budget::Meter;
use legwork_messages::{ApiError, Client, Kind, Live, Message, Observer, StopReason, tool_uses};
use mcp::McpTools;
pub use memory::Memory;
pub(crate) use persist::Persistence;
use progress::Progress;
use room::Room;
use start::Started;

/// Answers in a row that may be cut off before it is given up.
const MOST_CUTS: u32 = 3;

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    pub(crate) failure: Option<(Code, String)>,
    pub(crate) usage: Report,
    /// The model's last words.
    pub(crate) text: String,
    /// The same by the schema that was asked for.
    pub(crate) output: Option<Value>,
}

/// What an agent works with.
pub(crate) struct World<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) hands: &'a Hands,
    pub(crate) events: &'a Events,
    pub(crate) client: &'a Client,
    pub(crate) persistence: Option<&'a Persistence>,
    pub(crate) abort: &'a Abort,
    pub(crate) requester: &'a Requester,
    /// What it has of a hub beside.
    pub(crate) contact: &'a Contact,
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
    /// What it started with.
    started: Started,
    mcp: McpTools,
    /// Where its shell keeps its place.
    session: Option<Session>,
    background: Background,
    room: Room,
    /// Answers in a row that were cut off.
    cuts: u32,
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
    let mut run = match start::open(task, world, &mut meter).await {
        Ok(opened) => opened.into_run(task, world, meter),
        Err(failure) => {
            return Ending {
                failure: Some(failure),
                usage: meter.report(),
                text: String::new(),
                output: None,
            };
        }
    };
    let mut failure = run.turns().await.err();
    run.remember().await;
    run.background.end_all(world.hands).await;
    world.hands.forget_session(&world.dir);
    let text = run.progress.text;
    let mut output = None;
    if task.output_schema.is_some() && failure.is_none() {
        match serde_json::from_str(&text) {
            Ok(value) => output = Some(value),
            Err(error) => {
                let message = format!("the last answer is not JSON, which output_schema asks for: {error}");
                failure = Some((Code::StopReason, message));
            }
        }
    }
    Ending { failure, usage: run.meter.report(), text, output }
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
            self.hear().await?;
            if self.progress.turns >= self.task.max_turns {
                return Err((Code::MaxTurns, "Max turns reached".into()));
            }
            let message = match self.ask().await? {
                Some(message) => message,
                None => continue,
            };
            // Whoever said something meanwhile is listened to before it is over.
            if self.answer(message.stop_reason).await? && !self.hear().await? {
                return Ok(());
            }
        }
    }

    /// Keeps the conversation for the next task of the session.
    async fn remember(&self) {
        let Some(memory) = &self.world.contact.memory else { return };
        if let Err(error) = memory.save(&self.progress.messages).await {
            let error = self.world.events.masks.apply(error);
            tracing::warn!(error = %error, "the session can't be kept");
            self.world.events.log(Level::Error, &format!("The session can't be kept: {error}")).await;
        }
    }

    fn check_abort(&self) -> Result<(), Failure> {
        match self.world.abort.now() {
            None => Ok(()),
            Some(_) => Err(self.aborted()),
        }
    }

    /// Ends a request when the task is to end.
    async fn stop(&self) {
        self.world.abort.wished().await;
    }

    /// What is said of a task that was to end.
    fn aborted(&self) -> Failure {
        let why = self.world.abort.now().unwrap_or(Why::Stopped);
        (code(why), why.message().into())
    }

    /// Asks for the next message; `None` if there was no room for it and there is now.
    async fn ask(&mut self) -> Result<Option<Message>, Failure> {
        self.keep_room().await?;
        let length = self.length();
        let max_tokens = self.meter.reserve(length, self.task.max_tokens).map_err(|e| (Code::Budget, e))?;
        let body = self.request(max_tokens, None);
        let kept = self.world.persistence.map(|p| (p, p.begin()));
        let mut teller = Teller { events: self.world.events, message_id: random::id("msg"), has_told: false };
        let asked =
            self.world.client.message(&self.started.model, body, self.beta(), self.stop(), &mut teller).await;
        let end = |content: &[Value], status: &str| {
            if let Some((persistence, id)) = &kept {
                persistence.end(id, content, status);
            }
        };
        let (message, wasted) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                let aborted = error.kind == Kind::Stopped;
                end(&[], if aborted { "aborted" } else { "failed" });
                self.waste(error.wasted.into())?;
                if error.kind == Kind::Invalid && self.recover(&error.message).await? {
                    return Ok(None);
                }
                return Err(self.api_failure(error).await);
            }
        };
        self.waste(wasted.into())?;
        let usage = message.usage.into();
        if message.stop_reason == StopReason::ContextWindowExceeded {
            // What is asked for next needs to know how full the window was.
            self.meter.waste(usage);
            self.note(&Entry::Wasted { usage })?;
            if self.make_room().await? {
                end(&message.content, "failed");
                teller.see(Live::Reset).await;
                return Ok(None);
            }
            self.meter.count(Tokens::default(), message.window, length);
        } else {
            self.meter.count(usage, message.window, length);
        }
        let is_good =
            matches!(message.stop_reason, StopReason::EndTurn | StopReason::ToolUse | StopReason::PauseTurn);
        end(&message.content, if is_good { "completed" } else { "failed" });
        let details = message.stop_details.as_ref().or(message.cut_call.as_ref());
        let stop_reason = match (&message.stop_reason, details) {
            (reason, Some(details)) => format!("{}: {details}", reason.as_str()),
            (reason, None) => reason.as_str().to_owned(),
        };
        let window = message.window;
        let entry = Entry::Turn { message: message.as_param(), stop_reason, usage, window };
        self.note(&entry)?;
        self.progress.take(&entry);
        self.progress.message_id = teller.message_id;
        if self.task.live_usage {
            self.world.events.tell(Body::Usage { usage: self.meter.report() }).await;
        }
        Ok(Some(message))
    }

    /// Does what the last message asks for; true if the task is done.
    async fn answer(&mut self, stop: StopReason) -> Result<bool, Failure> {
        self.cuts = if stop == StopReason::MaxTokens { self.cuts + 1 } else { 0 };
        match stop {
            StopReason::EndTurn => Ok(true),
            StopReason::ToolUse => {
                self.call_tools(None).await?;
                Ok(false)
            }
            // It goes on when it is asked again.
            StopReason::PauseTurn => Ok(false),
            StopReason::MaxTokens if self.cuts <= MOST_CUTS => {
                self.go_on_after_cut().await?;
                Ok(false)
            }
            other => {
                let hint = match other {
                    StopReason::MaxTokens => {
                        format!(": the answer was cut at {} tokens (max_tokens)", self.task.max_tokens)
                    }
                    StopReason::ContextWindowExceeded => {
                        format!(": the model's window is full{}", self.room.why())
                    }
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

    /// Has an answer that was cut off gone on with.
    async fn go_on_after_cut(&mut self) -> Result<(), Failure> {
        let most = self.task.max_tokens;
        let text = match self.progress.stop_reason.split_once(": ") {
            Some((_, tool)) => format!(
                "Your answer was cut off at {most} tokens, within a call of {tool}, which was not made. Make it in smaller parts."
            ),
            None => format!(
                "Your answer was cut off at {most} tokens. Go on where it ends, without repeating it."
            ),
        };
        if tool_uses(&self.progress.last_content()).is_empty() {
            let message = json!({"role": "user", "content": text}).to_string();
            let entry = Entry::Results { message };
            self.note(&entry)?;
            self.progress.take(&entry);
            return Ok(());
        }
        self.call_tools(Some(text)).await
    }

    fn waste(&mut self, usage: Tokens) -> Result<(), Failure> {
        if usage == Tokens::default() {
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

    /// How long a request would be, in bytes of text; what is no text counts as it does for the
    /// model.
    fn length(&self) -> usize {
        let messages: usize = self.progress.messages.iter().map(|message| context::weight(message)).sum();
        messages + self.started.tools.len() + self.started.system.len()
    }

    /// The request's body. Messages come last and as they were: what was sent before is a
    /// prefix of what is sent now, and the prompt cache finds it. `last` is a message that is
    /// asked for once, with no tool to be called.
    fn request(&self, max_tokens: u64, last: Option<&str>) -> Bytes {
        let (task, started) = (self.task, &self.started);
        let marked = self.progress.messages.iter().any(|m| m.contains("\"cache_control\""));
        let mut body = json!({"model": started.model, "max_tokens": max_tokens, "stream": true});
        if !marked {
            body["cache_control"] = json!({"type": "ephemeral"});
        }
        if let Some(thinking) = &task.thinking {
            body["thinking"] = thinking.clone();
        }
        if last.is_some() {
            if started.tools != "[]" {
                body["tool_choice"] = json!({"type": "none"});
            }
        } else {
            if let Some(schema) = &task.output_schema {
                body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
            }
            if self.beta().is_some() {
                body["context_management"] = self.room.by_api(self.window());
            }
        }
        if let Some(head) = body.as_object_mut() {
            self.world.client.shape(head, self.beta().filter(|_| last.is_none()));
        }
        let mut text = body.to_string();
        text.pop();
        if !started.system.is_empty() {
            let mut block = json!({"type": "text", "text": started.system});
            if !marked {
                block["cache_control"] = json!({"type": "ephemeral"});
            }
            text.push_str(&format!(",\"system\":[{block}]"));
        }
        if started.tools != "[]" {
            text.push_str(",\"tools\":");
            text.push_str(&started.tools);
        }
        text.push_str(",\"messages\":[");
        let mut is_first = true;
        for message in self.progress.messages.iter().map(String::as_str).chain(last) {
            if !std::mem::take(&mut is_first) {
                text.push(',');
            }
            text.push_str(message);
        }
        text.push_str("]}");
        Bytes::from(text)
    }

    async fn api_failure(&self, error: ApiError) -> Failure {
        match error.kind {
            Kind::Stopped => self.aborted(),
            Kind::NoModel => {
                let message =
                    format!("Claude API error: {}; {}", error.message, start::living(self.world).await);
                (Code::ApiError, message)
            }
            Kind::Failed | Kind::Invalid => {
                (Code::ApiError, format!("Claude API error: {}{}", error.message, self.room.why()))
            }
        }
    }
}

fn code(why: Why) -> Code {
    match why {
        Why::OutOfTime => Code::Budget,
        Why::Stopped | Why::Cancelled => Code::Aborted,
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
            Live::Thinking(text) if text.is_empty() => return,
            Live::Thinking(text) => self.events.tell(Body::Thinking { message_id, text }).await,
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
