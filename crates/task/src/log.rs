//! Log lines as the protocol has them (docs/protocols/task.md §11).

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use legwork_proto::civil;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Writes each event as one line of JSON to stdout.
#[derive(Debug, Clone)]
pub struct Lines {
    task_id: Option<String>,
    request_id: Option<String>,
}

impl Lines {
    /// Lines of a process; `task_id` in active mode.
    pub fn new(task_id: Option<String>, request_id: Option<String>) -> Self {
        let known = |id: Option<String>| id.filter(|id| !id.is_empty() && id != "unknown");
        Self { task_id: known(task_id), request_id: known(request_id) }
    }
}

/// The level that a variable names; unknown ones are INFO.
pub fn level(name: Option<&str>) -> Level {
    match name.unwrap_or_default().to_ascii_uppercase().as_str() {
        "DEBUG" => Level::DEBUG,
        "WARNING" => Level::WARN,
        "ERROR" | "CRITICAL" => Level::ERROR,
        _ => Level::INFO,
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let mut path = meta.target().split("::");
        let module = match path.next() {
            Some("legwork_task") => path.next().unwrap_or("main"),
            Some("legwork_messages") => "messages",
            _ => "main",
        };
        let line = self.line(now(), name(meta.level()), module, fields);
        let mut out = std::io::stdout().lock();
        // Nobody to tell that nobody can be told.
        let _ = out.write_all(line.as_bytes());
    }
}

impl Lines {
    fn line(&self, timestamp: String, level: &str, module: &str, fields: Fields) -> String {
        let Fields { message, error, task_id, context } = fields;
        let mut line = String::from("{");
        let mut add = |key: &str, value: &Value| {
            let separator = if line.len() > 1 { "," } else { "" };
            let _ = write!(line, "{separator}\"{key}\":{}", ascii(&value.to_string()));
        };
        add("timestamp", &timestamp.into());
        add("level", &level.into());
        add("service", &"runner".into());
        add("logger", &format!("runner.{module}").into());
        add("message", &message.into());
        if let Some(id) = task_id.or_else(|| self.task_id.clone()) {
            add("task_id", &id.into());
        }
        if let Some(id) = &self.request_id {
            add("request_id", &id.as_str().into());
        }
        if !context.is_empty() {
            add("context", &context.into());
        }
        if let Some(error) = error {
            add("error", &error.into());
        }
        line.push_str("}\n");
        line
    }
}

#[derive(Debug, Default)]
struct Fields {
    message: String,
    error: Option<String>,
    task_id: Option<String>,
    context: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match field.name() {
            "message" => self.message = text(value),
            "error" => self.error = Some(text(value)),
            "task_id" => self.task_id = Some(text(value)),
            name => {
                self.context.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

fn name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil::date(i64::try_from(seconds / 86_400).unwrap_or(0));
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// Escapes what is not ASCII, which in JSON stands in strings only.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_their_order_and_text_is_ascii() {
        let lines = Lines::new(Some("41".into()), Some("unknown".into()));
        let mut fields = Fields { message: "gr\u{fc}n \u{1f600}".into(), ..Fields::default() };
        fields.context.insert("status".into(), 503.into());
        fields.error = Some("busy".into());
        assert_eq!(
            lines.line("T".into(), "INFO", "streaming", fields),
            "{\"timestamp\":\"T\",\"level\":\"INFO\",\"service\":\"runner\",\"logger\":\"runner.streaming\",\
             \"message\":\"gr\\u00fcn \\ud83d\\ude00\",\"task_id\":\"41\",\"context\":{\"status\":503},\"error\":\"busy\"}\n"
        );
        assert!(now().len() == 27 && now().ends_with('Z'), "{}", now());
    }
}
