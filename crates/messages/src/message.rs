//! A message as it is put together from the events of a stream.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// It is done.
    EndTurn,
    /// It wants tools called.
    ToolUse,
    /// The answer was as long as it may be.
    MaxTokens,
    /// It came to a word it was to stop at.
    StopSequence,
    /// It wants to be asked again with what it has said.
    PauseTurn,
    /// It won't.
    Refusal,
    /// There is no room left.
    ContextWindowExceeded,
    /// One that is newer than this program.
    Other(String),
}

impl StopReason {
    /// The reason of a name; a name that is unknown here is kept.
    pub fn of(name: &str) -> Self {
        match name {
            "end_turn" => Self::EndTurn,
            "tool_use" => Self::ToolUse,
            "max_tokens" => Self::MaxTokens,
            "stop_sequence" => Self::StopSequence,
            "pause_turn" => Self::PauseTurn,
            "refusal" => Self::Refusal,
            "model_context_window_exceeded" => Self::ContextWindowExceeded,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::EndTurn => "end_turn",
            Self::ToolUse => "tool_use",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence => "stop_sequence",
            Self::PauseTurn => "pause_turn",
            Self::Refusal => "refusal",
            Self::ContextWindowExceeded => "model_context_window_exceeded",
            Self::Other(name) => name,
        }
    }
}

/// Tokens of one message. The stream's numbers are totals: the last one holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens that the model read and no cache held.
    pub input: u64,
    /// Tokens that the model wrote.
    pub output: u64,
    /// Tokens that were put into the cache.
    pub cache_creation: u64,
    /// Tokens that were read from the cache.
    pub cache_read: u64,
}

impl Usage {
    pub(crate) fn overwrite(&mut self, usage: &Value) {
        for (name, field) in [
            ("input_tokens", &mut self.input),
            ("output_tokens", &mut self.output),
            ("cache_creation_input_tokens", &mut self.cache_creation),
            ("cache_read_input_tokens", &mut self.cache_read),
        ] {
            if let Some(tokens) = usage.get(name).and_then(Value::as_u64) {
                *field = tokens;
            }
        }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolUse {
    /// The call's id.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments; always an object, as the API takes back nothing else.
    pub input: Value,
}

/// The one key of arguments that were no JSON object: what the model wrote instead.
const NO_OBJECT: &str = "INVALID_JSON";

impl ToolUse {
    /// What the model wrote where an object was due.
    pub fn no_object(&self) -> Option<&str> {
        let input = self.input.as_object().filter(|input| input.len() == 1)?;
        input.get(NO_OBJECT)?.as_str()
    }
}

/// A whole message of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its blocks, as they are to be sent back.
    pub content: Vec<Value>,
    /// The tool whose call was cut off with the answer: it is not among the blocks.
    pub cut_call: Option<String>,
    /// Why it ends.
    pub stop_reason: StopReason,
    /// What a refusal says of its reason.
    pub stop_details: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// Tokens that stand in the window after it: what it read and wrote, without what the API
    /// used up for a summary of its own.
    pub window: u64,
}

/// Whether a block can't be sent back: the API gives blocks of blanks, and takes none, and
/// takes no thought without its signature, which one that was cut off lacks.
fn is_unwanted(block: &Value) -> bool {
    let is_blank = |name: &str| block[name].as_str().is_none_or(|text| text.trim().is_empty());
    match block["type"].as_str() {
        Some("text") => block["text"].is_string() && is_blank("text"),
        Some("thinking") => is_blank("signature"),
        _ => false,
    }
}

impl Message {
    /// As it is sent back with the next request.
    pub fn as_param(&self) -> String {
        let kept: Vec<Value> = self.content.iter().filter(|b| !is_unwanted(b)).cloned().collect();
        let kept =
            if kept.is_empty() { vec![serde_json::json!({"type": "text", "text": "…"})] } else { kept };
        let content = Value::Array(kept);
        format!("{{\"role\":\"assistant\",\"content\":{content}}}")
    }
}

/// The calls among some blocks.
pub fn tool_uses(content: &[Value]) -> Vec<ToolUse> {
    let is_call = |block: &&Value| block["type"] == "tool_use";
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    content
        .iter()
        .filter(is_call)
        .map(|block| ToolUse {
            id: text(&block["id"]),
            name: text(&block["name"]),
            input: block["input"].clone(),
        })
        .collect()
}

/// An event of the stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum StreamEvent {
    MessageStart {
        message: Value,
    },
    ContentBlockStart {
        index: usize,
        content_block: Map<String, Value>,
    },
    ContentBlockDelta {
        index: usize,
        delta: Delta,
    },
    ContentBlockStop {
        index: usize,
    },
    MessageDelta {
        delta: Stop,
        #[serde(default)]
        usage: Value,
    },
    MessageStop,
    Ping,
    Error {
        error: ErrorObject,
    },
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(clippy::enum_variant_names, reason = "the API's names")]
pub(crate) enum Delta {
    TextDelta {
        text: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    ThinkingDelta {
        thinking: String,
    },
    SignatureDelta {
        signature: String,
    },
    CitationsDelta {
        citation: Value,
    },
    CompactionDelta {
        #[serde(default)]
        content: Option<String>,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Stop {
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    stop_details: Value,
}

/// What went wrong, as the API says it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct ErrorObject {
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// What an event means for who looks on.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Nothing,
    Text(String),
    Thinking(String),
    Tool { id: String, name: String },
    Whole,
    Failed(ErrorObject),
}

/// A message in the making.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    started: bool,
    blocks: Vec<Block>,
    stop_reason: Option<String>,
    stop_details: Value,
    pub(crate) usage: Usage,
    /// Used for summaries that the API made on its way; `usage` has no part of it until the end.
    summaries: Usage,
}

#[derive(Debug)]
struct Block {
    value: Map<String, Value>,
    json: String,
    open: bool,
    /// Its arguments are no JSON: the model erred, or was cut off.
    is_broken: bool,
}

impl Builder {
    /// Takes in an event; an error means that the stream is not what it should be.
    pub(crate) fn take(&mut self, data: &str) -> Result<Seen, String> {
        let event = match serde_json::from_str::<StreamEvent>(data) {
            Ok(event) => event,
            Err(error) => {
                // An event of a later version is no reason to fail; a broken one is.
                let raw: Value = serde_json::from_str(data).map_err(|e| format!("malformed event: {e}"))?;
                let known = [
                    "message_start",
                    "content_block_start",
                    "content_block_delta",
                    "content_block_stop",
                    "message_delta",
                    "message_stop",
                    "error",
                ];
                return match raw["type"].as_str() {
                    Some(kind) if !known.contains(&kind) => {
                        tracing::debug!(event = %raw, "an event of an unknown type");
                        Ok(Seen::Nothing)
                    }
                    _ => Err(format!("malformed event: {error}")),
                };
            }
        };
        match event {
            StreamEvent::Ping => Ok(Seen::Nothing),
            StreamEvent::Error { error } => Ok(Seen::Failed(error)),
            StreamEvent::MessageStart { message } => {
                if self.started {
                    return Err("a second message_start".into());
                }
                self.started = true;
                self.usage.overwrite(&message["usage"]);
                Ok(Seen::Nothing)
            }
            _ if !self.started => Err("an event before message_start".into()),
            StreamEvent::ContentBlockStart { index, content_block } => self.start_block(index, content_block),
            StreamEvent::ContentBlockDelta { index, delta } => self.add(index, delta),
            StreamEvent::ContentBlockStop { index } => self.stop_block(index),
            StreamEvent::MessageDelta { delta, usage } => {
                self.usage.overwrite(&usage);
                self.summaries = summaries(&usage);
                if delta.stop_reason.is_some() {
                    self.stop_reason = delta.stop_reason;
                    self.stop_details = delta.stop_details;
                }
                Ok(Seen::Nothing)
            }
            StreamEvent::MessageStop => {
                if self.blocks.iter().any(|b| b.open) {
                    return Err("message_stop within a block".into());
                }
                match self.stop_reason {
                    None => Err("message_stop without a stop reason".into()),
                    Some(_) => Ok(Seen::Whole),
                }
            }
        }
    }

    fn start_block(&mut self, index: usize, value: Map<String, Value>) -> Result<Seen, String> {
        if index != self.blocks.len() {
            return Err(format!("block {index} where {} was due", self.blocks.len()));
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let seen = match value.get("type").and_then(Value::as_str) {
            Some("tool_use") => Seen::Tool { id: text("id"), name: text("name") },
            Some("text") if !text("text").is_empty() => Seen::Text(text("text")),
            _ => Seen::Nothing,
        };
        self.blocks.push(Block { value, json: String::new(), open: true, is_broken: false });
        Ok(seen)
    }

    fn add(&mut self, index: usize, delta: Delta) -> Result<Seen, String> {
        let block = self
            .blocks
            .get_mut(index)
            .filter(|b| b.open)
            .ok_or_else(|| format!("a delta of no block ({index})"))?;
        let mut push = |key: &str, more: &str| match block.value.get_mut(key) {
            Some(Value::String(text)) => text.push_str(more),
            _ => {
                block.value.insert(key.to_owned(), more.into());
            }
        };
        match delta {
            Delta::TextDelta { text } => {
                push("text", &text);
                return Ok(Seen::Text(text));
            }
            Delta::ThinkingDelta { thinking } => {
                push("thinking", &thinking);
                return Ok(Seen::Thinking(thinking));
            }
            Delta::CompactionDelta { content } => push("content", &content.unwrap_or_default()),
            Delta::SignatureDelta { signature } => {
                block.value.insert("signature".into(), signature.into());
            }
            Delta::InputJsonDelta { partial_json } => block.json.push_str(&partial_json),
            Delta::CitationsDelta { citation } => match block.value.get_mut("citations") {
                Some(Value::Array(list)) => list.push(citation),
                _ => {
                    block.value.insert("citations".into(), Value::Array(vec![citation]));
                }
            },
            Delta::Unknown => tracing::debug!(index, "a delta of an unknown type"),
        }
        Ok(Seen::Nothing)
    }

    /// The one place where a tool's arguments are parsed.
    fn stop_block(&mut self, index: usize) -> Result<Seen, String> {
        let block = self
            .blocks
            .get_mut(index)
            .filter(|b| b.open)
            .ok_or_else(|| format!("the end of no block ({index})"))?;
        block.open = false;
        let json = std::mem::take(&mut block.json);
        if !json.trim().is_empty() {
            let input = match serde_json::from_str::<Value>(&json) {
                Ok(input) if input.is_object() => input,
                parsed => {
                    block.is_broken = parsed.is_err();
                    serde_json::json!({ NO_OBJECT: json })
                }
            };
            block.value.insert("input".into(), input);
        }
        Ok(Seen::Nothing)
    }

    /// The message, after its last event.
    pub(crate) fn finish(mut self) -> Message {
        let stop_reason = StopReason::of(self.stop_reason.as_deref().unwrap_or_default());
        // The end of an answer that was cut off may be half of a call.
        let is_call = |block: &Block| block.value.get("type") == Some(&"tool_use".into());
        let is_cut = stop_reason != StopReason::ToolUse
            && self.blocks.last().is_some_and(|last| is_call(last) && last.is_broken);
        let cut = if is_cut { self.blocks.pop() } else { None };
        let is_empty_text = |b: &Block| {
            b.value.get("type") == Some(&"text".into()) && b.value.get("text") == Some(&"".into())
        };
        let Usage { input, output, cache_creation, cache_read } = self.usage;
        let spent = self.summaries;
        Message {
            // The API takes no empty text back.
            content: self
                .blocks
                .into_iter()
                .filter(|b| !is_empty_text(b))
                .map(|b| Value::Object(b.value))
                .collect(),
            cut_call: cut.and_then(|block| Some(block.value.get("name")?.as_str()?.to_owned())),
            stop_reason,
            stop_details: self.stop_details["explanation"]
                .as_str()
                .or(self.stop_details["category"].as_str())
                .map(str::to_owned),
            usage: Usage {
                input: input + spent.input,
                output: output + spent.output,
                cache_creation: cache_creation + spent.cache_creation,
                cache_read: cache_read + spent.cache_read,
            },
            window: input + output + cache_creation + cache_read,
        }
    }
}

/// What the API used for summaries on its way to an answer: its totals leave that out.
fn summaries(usage: &Value) -> Usage {
    let mut all = Usage::default();
    let passes = usage["iterations"].as_array().map(Vec::as_slice).unwrap_or_default();
    for pass in passes.iter().filter(|pass| pass["type"] == "compaction") {
        let mut one = Usage::default();
        one.overwrite(pass);
        all.input += one.input;
        all.output += one.output;
        all.cache_creation += one.cache_creation;
        all.cache_read += one.cache_read;
    }
    all
}

/// Events of a stream, one a line, for fuzzing.
pub fn fuzz(text: &str) {
    let mut builder = Builder::default();
    for line in text.lines() {
        match builder.take(line) {
            Ok(Seen::Whole) => {
                let message = builder.finish();
                let back: Value = serde_json::from_str(&message.as_param()).unwrap_or_default();
                // What is left out the API would not take, and something always stands there.
                let kept: Vec<Value> =
                    message.content.into_iter().filter(|block| !is_unwanted(block)).collect();
                match back["content"].as_array() {
                    Some(sent) if kept.is_empty() => assert!(sent.len() == 1 && !is_unwanted(&sent[0])),
                    sent => assert_eq!(sent, Some(&kept)),
                }
                return;
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(builder: &mut Builder, events: &[&str]) -> Result<Vec<Seen>, String> {
        events.iter().map(|event| builder.take(event)).collect()
    }

    const START: &str = r#"{"type":"message_start","message":{"id":"m","usage":{"input_tokens":10,"output_tokens":1,"cache_read_input_tokens":5}}}"#;

    #[test]
    fn a_message_is_put_together() {
        let mut builder = Builder::default();
        let seen = feed(
            &mut builder,
            &[
                START,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig"}}"#,
                r#"{"type":"content_block_stop","index":0}"#,
                r#"{"type":"ping"}"#,
                r#"{"type":"shiny_new_event","x":1}"#,
                r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hi"}}"#,
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"shiny_delta","x":1}}"#,
                r#"{"type":"content_block_stop","index":1}"#,
                r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t1","name":"grep","input":{},"caller":{"type":"direct"}}}"#,
                r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"pat"}}"#,
                r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"tern\":\"a\"}"}}"#,
                r#"{"type":"content_block_stop","index":2}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":30}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":42,"input_tokens":null}}"#,
                r#"{"type":"message_stop"}"#,
            ],
        )
        .expect("valid");
        assert_eq!(seen[8], Seen::Text("Hi".into()));
        assert_eq!(seen[11], Seen::Tool { id: "t1".into(), name: "grep".into() });
        assert_eq!(seen.last(), Some(&Seen::Whole));
        let message = builder.finish();
        assert_eq!(message.stop_reason, StopReason::ToolUse);
        assert_eq!(message.usage, Usage { input: 10, output: 42, cache_creation: 0, cache_read: 5 });
        assert_eq!(message.content[0]["signature"], "sig");
        assert_eq!(message.content[2]["caller"]["type"], "direct");
        assert_eq!(tool_uses(&message.content)[0].input, serde_json::json!({"pattern": "a"}));
    }

    const STOP_BLOCK: &str = r#"{"type":"content_block_stop","index":0}"#;
    const USES_TOOL: &str = r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{}}"#;

    #[test]
    fn half_of_a_call_in_a_cut_answer_is_no_fault() {
        let tool = r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"n","input":{}}}"#;
        let json = r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#;
        let cut = r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{}}"#;
        let events = [START, tool, json, STOP_BLOCK, cut, r#"{"type":"message_stop"}"#];
        let mut builder = Builder::default();
        assert_eq!(feed(&mut builder, &events).expect("valid").last(), Some(&Seen::Whole));
        let message = builder.finish();
        assert_eq!((message.stop_reason, message.cut_call.as_deref()), (StopReason::MaxTokens, Some("n")));
        assert_eq!(message.content, [Value::Null; 0]);
    }

    #[test]
    fn arguments_that_are_no_object_are_kept_as_text() {
        let tool = r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"n","input":{}}}"#;
        for written in [r#"{\"a\":"#, r#"[1]"#, "null", r#"\"x\""#] {
            let json = format!(
                r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":"{written}"}}}}"#
            );
            let mut builder = Builder::default();
            let events = [START, tool, &json, STOP_BLOCK, USES_TOOL, r#"{"type":"message_stop"}"#];
            assert_eq!(feed(&mut builder, &events).expect("valid").last(), Some(&Seen::Whole));
            let calls = tool_uses(&builder.finish().content);
            assert_eq!(calls[0].no_object().map(|text| text.replace('"', "\\\"")), Some(written.to_owned()));
        }
    }

    #[test]
    fn the_apis_own_summary_is_kept_and_counted() {
        let events = [
            START,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"compaction","content":null}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"compaction_delta","content":"So far"}}"#,
            STOP_BLOCK,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7,"iterations":[{"type":"compaction","input_tokens":900,"output_tokens":50},{"type":"message","input_tokens":10,"output_tokens":7}]}}"#,
            r#"{"type":"message_stop"}"#,
        ];
        let mut builder = Builder::default();
        feed(&mut builder, &events).expect("valid");
        let message = builder.finish();
        assert_eq!(message.content, [serde_json::json!({"type": "compaction", "content": "So far"})]);
        assert_eq!((message.usage.input, message.usage.output, message.window), (910, 57, 22));
    }

    #[test]
    fn what_is_no_stream_fails() {
        let text = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
        for events in [
            &[text][..],
            &[START, START],
            &[START, r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#],
            &[START, text, r#"{"type":"message_stop"}"#],
            &[START, r#"{"type":"message_stop"}"#],
            &[START, "{not json"],
            &[START, r#"{"type":"content_block_start","index":"x"}"#],
            &[START, r#"{"type":"content_block_start","index":7,"content_block":{"type":"text"}}"#],
        ] {
            assert!(feed(&mut Builder::default(), events).is_err(), "{events:?}");
        }
    }
}
