//! Events of an agent or a workflow for a person's eyes.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use super::lists::visible;

/// Most lines that are shown of a tool's answer.
const LINES: usize = 6;

pub(crate) struct Printer {
    json: bool,
    colour: bool,
    /// The cursor stands after text.
    in_text: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour, in_text: false }
    }

    fn dim(&self, text: &str) -> String {
        if self.colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        self.finish();
        println!("{text}");
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
        let text = |key: &str| visible(event[key].as_str().unwrap_or_default());
        match event["type"].as_str().unwrap_or_default() {
            "token" | "llm_token" => {
                let piece = event["text"].as_str().or(event["token"].as_str()).unwrap_or_default();
                print!("{}", plain(piece));
                let _ = std::io::stdout().flush();
                self.in_text = !piece.ends_with('\n');
            }
            "thinking" => {
                let piece = self.dim(&plain(event["text"].as_str().unwrap_or_default()));
                print!("{piece}");
                let _ = std::io::stdout().flush();
                self.in_text = true;
            }
            "token_reset" => {
                let note = self.dim("(the stream broke: the answer starts again)");
                self.line(&note);
            }
            // The first word of a call has no arguments yet.
            "tool_start" if event.get("args").is_some() => {
                let args = visible(&event["args"].to_string());
                let line = self.dim(&format!("> {} {args}", text("tool_name")));
                self.line(&line);
            }
            "tool_end" => {
                let output = event["output"].as_str().unwrap_or_default();
                let lines: Vec<&str> = output.lines().collect();
                for line in lines.iter().take(LINES) {
                    let line = self.dim(&format!("  {}", visible(line)));
                    self.line(&line);
                }
                if lines.len() > LINES {
                    let more = self.dim(&format!("  ... {} more lines", lines.len() - LINES));
                    self.line(&more);
                }
            }
            "step_start" => {
                let line = self.bold(&format!("== {}", text("step_name")));
                self.line(&line);
            }
            "step_end" => {
                let took = event["duration_ms"].as_u64().unwrap_or_default();
                let output =
                    event["output"].as_str().map(|o| format!(": {}", visible(o))).unwrap_or_default();
                #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
                let seconds = took as f64 / 1000.0;
                let line = self.dim(&format!(
                    "-- {} {} in {seconds:.1} s{output}",
                    text("step_name"),
                    text("step_state")
                ));
                self.line(&line);
            }
            "log" => {
                let line = match event["level"].as_str() {
                    Some("info") => self.dim(&text("message")),
                    _ => text("message"),
                };
                self.line(&line);
            }
            "done" => self.end("done", event),
            "error" => self.end(&format!("failed: {}", text("message")), event),
            "state" => {
                let line = self.dim(&text("message"));
                self.line(&line);
            }
            _ => {}
        }
    }

    fn end(&mut self, word: &str, event: &Value) {
        let line = self.bold(word);
        self.line(&line);
        let usage = &event["usage"];
        if usage.is_object() {
            let number = |key: &str| usage[key].as_u64().unwrap_or_default();
            let read = number("input_tokens")
                + number("cache_creation_input_tokens")
                + number("cache_read_input_tokens");
            let cost =
                usage["cost_usd"].as_f64().map(|usd| format!(", {usd:.4} US dollars")).unwrap_or_default();
            let line = self.dim(&format!(
                "{} turns, {read} tokens read ({:.0} % from the cache), {} written{cost}",
                number("turns"),
                usage["cache_hit_ratio"].as_f64().unwrap_or_default() * 100.0,
                number("output_tokens"),
            ));
            self.line(&line);
        }
    }
}

/// Text of many lines, without what would steer the terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect()
}
