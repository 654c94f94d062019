//! Calling the tools that a message asks for.

use futures_util::StreamExt;
use legwork_proto::task::{Body, Code, ToolState};
use serde_json::{Map, Value, json};

use super::progress::Finished;
use super::steer::Verdict;
use super::{Failure, Run};
use crate::hands::command_file;
use crate::journal::Entry;
use crate::random;
use crate::tools::{self, Answer, Bench, Tool};
use legwork_messages::{ToolUse, tool_uses};

/// Read-only calls that run side by side.
const SIDE_BY_SIDE: usize = 8;
/// Most characters that an error repeats of what a model wrote.
const SHOWN: usize = 300;

impl Run<'_> {
    /// Calls the tools of the last message, and answers it; `note` is said beside the answers.
    pub(super) async fn call_tools(&mut self, note: Option<String>) -> Result<(), Failure> {
        let calls = tool_uses(&self.progress.last_content());
        if calls.is_empty() {
            let text = "Unexpected stop reason: tool_use without a call";
            return Err((Code::StopReason, text.into()));
        }
        if self.progress.message_id.is_empty() {
            // The message came to an earlier process.
            self.progress.message_id = random::id("msg");
        }
        let mut rest = calls.as_slice();
        while let Some(first) = rest.first() {
            self.check_abort()?;
            if self.progress.done.contains_key(&first.id) {
                // It was told, perhaps: those who look on key on its id.
                self.tell_end(first).await;
                rest = &rest[1..];
                continue;
            }
            let together = rest.iter().take_while(|call| self.goes_beside_others(call)).count();
            if together > 1 {
                let (batch, after) = rest.split_at(together);
                self.call_together(batch).await?;
                rest = after;
            } else {
                self.call_alone(first).await?;
                rest = &rest[1..];
            }
        }
        let mut blocks: Vec<Value> = calls.iter().map(|call| self.result_block(call)).collect();
        blocks.extend(note.map(|text| json!({"type": "text", "text": text})));
        let message = json!({"role": "user", "content": blocks}).to_string();
        let entry = Entry::Results { message };
        self.note(&entry)?;
        self.progress.take(&entry);
        Ok(())
    }

    /// Whether a call runs beside others: it changes nothing, or is an agent's own business.
    fn goes_beside_others(&self, call: &ToolUse) -> bool {
        let tool = self.enabled(&call.name);
        !self.asks(&call.name)
            && !self.progress.done.contains_key(&call.id)
            && tool.is_some_and(|tool| tool.is_read_only() || tool == Tool::Agent)
    }

    fn enabled(&self, name: &str) -> Option<Tool> {
        let given = self.task.tools.iter().copied().find(|tool| tool.name() == name);
        let comes_with_shell = name == Tool::Background.name()
            && self.task.shell_session
            && self.task.tools.contains(&Tool::Shell);
        given.or(comes_with_shell.then_some(Tool::Background))
    }

    async fn call_together(&mut self, calls: &[ToolUse]) -> Result<(), Failure> {
        for call in calls {
            self.tell_start(call).await;
        }
        let answers: Vec<Answer> = {
            let this = &*self;
            let called = calls.iter().map(|call| this.carry_out(call));
            futures_util::stream::iter(called).buffered(SIDE_BY_SIDE).collect().await
        };
        for (call, answer) in calls.iter().zip(answers) {
            self.end(call, answer).await?;
        }
        Ok(())
    }

    async fn call_alone(&mut self, call: &ToolUse) -> Result<(), Failure> {
        self.tell_start(call).await;
        let has_effects = !self.enabled(&call.name).is_some_and(Tool::is_read_only);
        // A command of an earlier process is found again by its file, which is there from
        // before it starts; of anything else the end is unknown.
        let unclear = has_effects
            && self.progress.begun.contains(&call.id)
            && !self.enabled(&call.name).is_some_and(Tool::is_found_again);
        let verdict = if unclear { Verdict::Made } else { self.permission(call).await? };
        let answer = if let Verdict::Refused(answer) = verdict {
            answer
        } else if unclear {
            Answer::raised(
                "the runner was stopped while this call ran: whether it took effect is unknown. Look before you repeat it",
            )
        } else {
            if has_effects {
                self.note(&Entry::Begin { id: call.id.clone() })?;
            }
            self.carry_out(call).await
        };
        if has_effects && self.world.abort.now().is_some() && answer.is_error {
            // It was ended by us. The model will never know; who looks on should.
            let finished = Finished { text: answer.text, is_error: true, ..Finished::default() };
            self.progress.done.insert(call.id.clone(), finished);
            self.tell_end(call).await;
            return self.check_abort();
        }
        self.end(call, answer).await
    }

    async fn end(&mut self, call: &ToolUse, answer: Answer) -> Result<(), Failure> {
        let Answer { text, is_error, blocks, usage } = answer;
        self.waste(usage)?;
        // The model must not learn what nobody should.
        let text = self.world.events.masks.apply(text);
        let entry = Entry::End { id: call.id.clone(), text, is_error, blocks };
        self.note(&entry)?;
        self.progress.take(&entry);
        let _ = std::fs::remove_file(self.file_of(call));
        self.tell_end(call).await;
        Ok(())
    }

    async fn carry_out(&self, call: &ToolUse) -> Answer {
        let input = match (&call.input, call.no_object()) {
            (Value::Object(input), None) => input,
            (_, written) => {
                let written: String = written.unwrap_or_default().chars().take(SHOWN).collect();
                let cause =
                    format!("the arguments are no JSON object, and nothing was done. They begin: {written}");
                return Answer::raised(cause);
            }
        };
        let world = self.world;
        if let Some(tool) = self.enabled(&call.name) {
            if tool == Tool::Agent {
                return self.start_agent(call, input).await;
            }
            let bench = Bench {
                hands: world.hands,
                requester: world.requester,
                abort: world.abort,
                file: self.file_of(call),
                session: self.session.as_ref(),
                background: &self.background,
            };
            return tools::call(tool, input, &bench).await;
        }
        if self.mcp.has(&call.name) {
            let arguments = input.clone();
            return self.mcp.call(&call.name, arguments, world.hands, world.requester, world.abort).await;
        }
        Answer::raised(format!("Unknown tool: {}", call.name))
    }

    /// Where the command of a call keeps its output. Ids are the model's: no names of files.
    fn file_of(&self, call: &ToolUse) -> std::path::PathBuf {
        command_file(&self.world.dir, "tool", &format!("{}/{}", self.progress.turns, call.id))
    }

    async fn tell_start(&self, call: &ToolUse) {
        let args: Option<Map<String, Value>> = call.input.as_object().cloned().filter(|map| !map.is_empty());
        let body = Body::ToolStart {
            message_id: self.progress.message_id.clone(),
            tool_id: call.id.clone(),
            tool_name: call.name.clone(),
            args,
        };
        self.world.events.tell(body).await;
    }

    async fn tell_end(&self, call: &ToolUse) {
        let Some(Finished { text, is_error, .. }) = self.progress.done.get(&call.id) else { return };
        let body = Body::ToolEnd {
            tool_id: call.id.clone(),
            tool_state: if *is_error { ToolState::Error } else { ToolState::Success },
            output: (!text.is_empty()).then(|| text.clone()),
        };
        self.world.events.tell(body).await;
    }

    fn result_block(&self, call: &ToolUse) -> Value {
        let mut block = json!({"type": "tool_result", "tool_use_id": call.id});
        if let Some(Finished { text, is_error, blocks }) = self.progress.done.get(&call.id) {
            block["content"] = if blocks.is_empty() { text.as_str().into() } else { blocks.clone().into() };
            if *is_error {
                block["is_error"] = true.into();
            }
        }
        block
    }
}
