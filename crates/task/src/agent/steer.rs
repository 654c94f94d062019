//! What people have to do with an agent at work: they say something to it, and are asked.

use legwork_proto::task::{Body, Level, Permission};
use serde_json::{Map, Value, json};

use super::{Failure, Run};
use crate::journal::Entry;
use crate::tools::Answer;
use legwork_messages::ToolUse;

/// Whether a call is made.
pub(super) enum Verdict {
    Made,
    Refused(Answer),
}

impl Run<'_> {
    /// Tells the model what was said to it meanwhile; false if that is nothing.
    pub(super) async fn hear(&mut self) -> Result<bool, Failure> {
        let Some(inbox) = &self.world.contact.inbox else { return Ok(false) };
        let said = inbox.said();
        for said in &said {
            let text = format!("A message from {}, who looks on:\n\n{}", said.by, said.text);
            let text = self.world.events.masks.apply(text);
            let message = json!({"role": "user", "content": text}).to_string();
            let entry = Entry::Results { message };
            self.note(&entry)?;
            self.progress.take(&entry);
            self.world.events.log(Level::Info, &format!("The agent was told what {} said", said.by)).await;
        }
        Ok(!said.is_empty())
    }

    /// Whether somebody is to be asked before a tool is called.
    pub(super) fn asks(&self, tool: &str) -> bool {
        self.task.ask.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => tool.starts_with(start),
            None => pattern == tool,
        })
    }

    /// Asks whether a call may be made, if that is to be asked, and waits for the answer.
    pub(super) async fn permission(&self, call: &ToolUse) -> Result<Verdict, Failure> {
        if !self.asks(&call.name) {
            return Ok(Verdict::Made);
        }
        let Some(inbox) = &self.world.contact.inbox else {
            let text = "this call needs a person's approval, and there is nobody who could be asked";
            return Ok(Verdict::Refused(Answer::raised(text)));
        };
        let args: Option<Map<String, Value>> = call.input.as_object().cloned().filter(|map| !map.is_empty());
        let time = self.task.ask_time;
        self.world
            .events
            .tell(Body::Ask {
                tool_id: call.id.clone(),
                tool_name: call.name.clone(),
                args,
                expires_s: time.as_secs(),
            })
            .await;
        let (by, Permission { allow, note, .. }) = tokio::select! {
            answer = inbox.answer(&call.id) => answer,
            () = tokio::time::sleep(time) => {
                let text = format!("nobody approved this call within {} s, and it was not made", time.as_secs());
                self.world.events.log(Level::Info, &format!("{}: {text}", call.name)).await;
                return Ok(Verdict::Refused(Answer::raised(text)));
            }
            _ = self.world.abort.wished() => {
                self.check_abort()?;
                return Ok(Verdict::Refused(Answer::raised("the task is over")));
            }
        };
        let note = note.filter(|note| !note.trim().is_empty());
        if allow {
            self.world.events.log(Level::Info, &format!("{by} allowed a call of {}", call.name)).await;
            return Ok(Verdict::Made);
        }
        let why = note.map_or_else(|| ".".to_owned(), |note| format!(": {note}"));
        let text = format!("{by} refused this call, and it was not made{why}");
        self.world.events.log(Level::Info, &format!("{}: {text}", call.name)).await;
        Ok(Verdict::Refused(Answer::raised(text)))
    }
}
