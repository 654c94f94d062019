//! Events of an agent or a workflow for a person's eyes.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::exec::quoted;
use super::lists::{escaped, turns, visible};

/// Most lines that are shown of a tool's answer.
const LINES: usize = 6;

/// What is shown of an event, whichever it is; an original's events have fewer fields. A field that
/// is no such thing is as one that is not there: the rest is shown all the same.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    #[serde(rename = "type", deserialize_with = "lenient")]
    kind: String,
    #[serde(deserialize_with = "lenient")]
    text: Option<String>,
    #[serde(deserialize_with = "lenient")]
    token: Option<String>,
    #[serde(deserialize_with = "lenient")]
    tool_name: String,
    #[serde(deserialize_with = "lenient")]
    tool_id: String,
    #[serde(deserialize_with = "lenient")]
    task_id: Option<Value>,
    #[serde(deserialize_with = "lenient")]
    say: Option<String>,
    #[serde(deserialize_with = "lenient")]
    by: String,
    #[serde(deserialize_with = "lenient")]
    args: Option<Value>,
    #[serde(deserialize_with = "lenient")]
    output: Option<String>,
    #[serde(deserialize_with = "lenient")]
    step_name: String,
    #[serde(deserialize_with = "lenient")]
    job_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    step_index: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    step_state: String,
    #[serde(deserialize_with = "lenient")]
    duration_ms: f64,
    #[serde(deserialize_with = "lenient")]
    level: String,
    #[serde(deserialize_with = "lenient")]
    message: String,
    #[serde(deserialize_with = "lenient")]
    usage: Option<Usage>,
}

/// What a model used.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    #[serde(deserialize_with = "lenient")]
    turns: f64,
    #[serde(deserialize_with = "lenient")]
    input_tokens: f64,
    #[serde(deserialize_with = "lenient")]
    cache_creation_input_tokens: f64,
    #[serde(deserialize_with = "lenient")]
    cache_read_input_tokens: f64,
    #[serde(deserialize_with = "lenient")]
    output_tokens: f64,
    #[serde(deserialize_with = "lenient")]
    cache_hit_ratio: f64,
    #[serde(deserialize_with = "lenient")]
    cost_usd: Option<f64>,
}

/// A value of the type that we know, or none.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).unwrap_or_default())
}

pub(crate) struct Printer {
    json: bool,
    colour: bool,
    /// The cursor stands after text.
    in_text: bool,
    /// Steps that run now. Once there were several at a time, each line says whose it is.
    open: BTreeSet<u64>,
    is_parallel: bool,
    prefix: String,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            json,
            colour,
            in_text: false,
            open: BTreeSet::new(),
            is_parallel: false,
            prefix: String::new(),
        }
    }

    fn dim(&self, text: &str) -> String {
        if self.colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        self.finish();
        println!("{}{text}", self.prefix);
    }

    /// Ends a line that text left open.
    pub(crate) fn finish(&mut self) {
        if std::mem::take(&mut self.in_text) {
            println!();
        }
    }

    pub(crate) fn event(&mut self, event: &Value) {
        if self.json {
            println!("{event}");
            return;
        }
        let told = Told::deserialize(event).unwrap_or_default();
        if let (Some(index), "step_start") = (told.step_index, told.kind.as_str()) {
            self.open.insert(index);
        }
        self.is_parallel |= self.open.len() > 1;
        let job = told.job_id.as_deref().filter(|_| self.is_parallel);
        self.prefix = job.map_or_else(String::new, |job| format!("{} | ", visible(job)));
        if let (Some(index), "step_end") = (told.step_index, told.kind.as_str()) {
            self.open.remove(&index);
        }
        match told.kind.as_str() {
            "token" | "llm_token" => self.piece(&told.text.or(told.token).unwrap_or_default()),
            "thinking" => self.thought(&told.text.unwrap_or_default()),
            "token_reset" => self.dimmed("(the stream broke: the answer starts again)"),
            // The first word of a call has no arguments yet.
            "tool_start" => {
                if let Some(args) = told.args {
                    let args = visible(&args.to_string());
                    self.dimmed(&format!("> {} {args}", visible(&told.tool_name)));
                }
            }
            "ask" => {
                let args = told.args.map(|args| visible(&args.to_string())).unwrap_or_default();
                let line = self.bold(&format!("? {} {args}", visible(&told.tool_name)));
                self.line(&line);
                let task = told.task_id.unwrap_or_default();
                self.dimmed(&format!("  {}", answers(&task, &told.tool_id)));
            }
            "input" => {
                if let Some(say) = told.say {
                    self.dimmed(&format!("< {}: {}", visible(&told.by), visible(&say)));
                }
            }
            "usage" => self.cost(told.usage),
            "tool_end" => self.tool_output(told.output.as_deref().unwrap_or_default()),
            "step_start" => {
                let line = self.bold(&format!("== {}", visible(&told.step_name)));
                self.line(&line);
            }
            "step_end" => {
                let output = told.output.map(|o| format!(": {}", visible(&o))).unwrap_or_default();
                let (name, state) = (visible(&told.step_name), visible(&told.step_state));
                self.dimmed(&format!("-- {name} {state} in {:.1} s{output}", told.duration_ms / 1000.0));
            }
            "log" if told.level == "info" => self.dimmed(&visible(&told.message)),
            "log" => self.line(&visible(&told.message)),
            "done" => self.end("done", told.usage),
            "error" => self.end(&format!("failed: {}", visible(&told.message)), told.usage),
            "state" => self.dimmed(&visible(&told.message)),
            _ => {}
        }
    }

    fn dimmed(&mut self, text: &str) {
        let line = self.dim(text);
        self.line(&line);
    }

    /// A piece of what a model writes, as it comes.
    fn piece(&mut self, piece: &str) {
        print!("{}", plain(piece));
        let _ = std::io::stdout().flush();
        self.in_text = !piece.ends_with('\n');
    }

    fn thought(&mut self, piece: &str) {
        print!("{}", self.dim(&plain(piece)));
        let _ = std::io::stdout().flush();
        self.in_text = true;
    }

    fn tool_output(&mut self, output: &str) {
        let lines: Vec<&str> = output.lines().collect();
        for line in lines.iter().take(LINES) {
            self.dimmed(&format!("  {}", escaped(line)));
        }
        if lines.len() > LINES {
            self.dimmed(&format!("  ... {} more lines", lines.len() - LINES));
        }
    }

    /// What was used so far.
    fn cost(&mut self, usage: Option<Usage>) {
        let Some(usage) = usage else { return };
        let read = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
        let cost = usage.cost_usd.map(|usd| format!(", {usd:.4} US dollars")).unwrap_or_default();
        self.dimmed(&format!("  so far {read} tokens read, {} written{cost}", usage.output_tokens));
    }

    fn end(&mut self, word: &str, usage: Option<Usage>) {
        let line = self.bold(word);
        self.line(&line);
        let Some(usage) = usage else { return };
        let read = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
        let cost = usage.cost_usd.map(|usd| format!(", {usd:.4} US dollars")).unwrap_or_default();
        self.dimmed(&format!(
            "{} turns, {read} tokens read ({:.0} % from the cache), {} written{cost}",
            usage.turns,
            usage.cache_hit_ratio * 100.0,
            usage.output_tokens,
        ));
    }
}

/// The commands that answer what a runner asks, to be pasted into a shell: the names in them come
/// from that runner.
fn answers(task: &Value, call: &str) -> String {
    let word = |text: &str| quoted(&visible(text));
    let task = word(&task.as_str().map_or_else(|| task.to_string(), str::to_owned));
    // What begins like an option is none.
    let ends = if task.starts_with('-') || call.starts_with('-') { "-- " } else { "" };
    let call = word(call);
    format!(
        "legwork agent allow {ends}{task} {call}   or   legwork agent deny --note WHY {ends}{task} {call}"
    )
}

/// Text of many lines, without what would steer the terminal or turn the direction of text.
fn plain(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || *c == '\t' || !(c.is_control() || turns(*c))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A tool's id is the runner's word: what is pasted runs `legwork` and nothing else.
    #[test]
    fn commands_to_paste_hold_names_as_words() {
        for (task, call, want) in [
            (json!(40), "toolu_01AbC", "40 toolu_01AbC"),
            (json!(40), "x; touch /tmp/P #", "40 'x; touch /tmp/P #'"),
            (json!("$(id)"), "a'b", r"'$(id)' 'a'\''b'"),
            (json!(40), "x\ny", r"40 'x\ny'"),
            (json!(40), "x\u{202e}y", r"40 'x\u{202e}y'"),
            (json!(40), "", "40 ''"),
        ] {
            let said = answers(&task, call);
            let both = format!("legwork agent allow {want}   or   legwork agent deny --note WHY {want}");
            assert_eq!(said, both);
        }
        assert!(answers(&json!(40), "--help").starts_with("legwork agent allow -- 40 --help "));
    }

    #[test]
    fn an_event_is_told_whatever_its_fields_hold() {
        let done =
            json!({"type": "done", "output": {"answer": 42}, "usage": {"turns": 2, "cost_usd": "much"}});
        let told = Told::deserialize(&done).unwrap();
        assert_eq!((told.kind.as_str(), told.output), ("done", None));
        let usage = told.usage.unwrap();
        assert!(usage.turns > 1.0 && usage.cost_usd.is_none());
        let told = Told::deserialize(&json!({"type": "error", "message": "no", "tool_name": null})).unwrap();
        assert_eq!((told.kind.as_str(), told.message.as_str()), ("error", "no"));
    }
}
