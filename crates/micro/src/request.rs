//! From a line to a valid command, and what a command has while it is carried out.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::micro::{CommandType, Metadata, kind};

use crate::clock;
use crate::fields::{Bad, Fields};
use crate::output::entry;
use crate::port::Port;
use crate::process::{self, Broken, Captured, Ended, Job};

/// A command's id is echoed in each answer, and so it has a bound.
const MAX_ID: usize = 4096;
/// Of what a program said, so much goes into an error.
const MAX_DETAILS: usize = 4096;

/// A command that passed validation.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) kind: CommandType,
    pub(crate) timeout: u64,
    /// As sent.
    pub(crate) params: String,
    pub(crate) key: Option<String>,
    pub(crate) signature: Option<String>,
}

impl Request {
    /// What it brings for the input of the `exec` with its id, and whether that is all; `None`
    /// if it is a command of its own.
    pub(crate) fn input(&self) -> Option<(Vec<u8>, bool)> {
        let is_exec = self.kind == CommandType::Exec;
        let fields = Fields::parse(&self.params, &["command", "input_base64", "input_end"]).ok()?;
        let is_input = fields.has("input_base64") || fields.has("input_end");
        if !is_exec || !is_input || fields.has("command") {
            return None;
        }
        // What can't be read ends the input: half of it would be worse.
        let bytes = STANDARD.decode(fields.string("input_base64").ok()?).ok();
        let is_end = bytes.is_none() || fields.boolean("input_end").unwrap_or(true);
        Some((bytes.unwrap_or_default(), is_end))
    }
}

/// A line that is no command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// As far as it could be read.
    pub(crate) id: String,
    pub(crate) message: String,
}

impl Invalid {
    pub(crate) fn new(id: &str, message: impl Into<String>) -> Self {
        Self { id: id.to_owned(), message: message.into() }
    }
}

/// Reads a line.
pub(crate) fn parse(line: &[u8]) -> Result<Request, Invalid> {
    let unreadable = |Bad(why)| Invalid::new("", format!("failed to unmarshal message: {why}"));
    let text = std::str::from_utf8(line).map_err(|_| unreadable(Bad("invalid UTF-8".into())))?;
    let message = Fields::parse(text, &["type", "timestamp", "data"]).map_err(unreadable)?;
    let data = message.raw("data").unwrap_or("null");
    let data =
        Fields::parse(data, &["id", "type", "timeout", "params", "idempotency_key", "signature", "metadata"]);
    // Whatever else is wrong, the answer should name the command if it can.
    let id = data.as_ref().ok().and_then(|data| data.string("id").ok()).unwrap_or_default();
    if id.len() > MAX_ID {
        return Err(Invalid::new("", format!("invalid command: command ID is longer than {MAX_ID} bytes")));
    }
    let invalid = |message: String| Invalid { id: id.clone(), message };
    let unread = |Bad(why)| invalid(format!("failed to unmarshal message: {why}"));
    let message_type = message.string("type").map_err(unread)?;
    if !kind::ALL.contains(&message_type.as_str()) {
        return Err(invalid(format!("invalid message: invalid message type: {}", cut(&message_type))));
    }
    if let Some(time) = message.optional_string("timestamp").map_err(unread)?
        && !clock::is_rfc3339(&time)
    {
        return Err(invalid("failed to unmarshal message: timestamp: expected RFC 3339".into()));
    }
    if message_type != kind::CMD {
        return Err(invalid(format!("expected CMD message, got {message_type}")));
    }
    let undecodable =
        |Bad(why)| Invalid { id: id.clone(), message: format!("failed to unmarshal command: {why}") };
    let data = data.map_err(undecodable)?;
    data.string("id").map_err(undecodable)?;
    let name = data.string("type").map_err(undecodable)?;
    let timeout = data.integer("timeout").map_err(undecodable)?;
    let key = data.optional_string("idempotency_key").map_err(undecodable)?.filter(|key| !key.is_empty());
    let signature = data.optional_string("signature").map_err(undecodable)?;
    data.map("metadata").map_err(undecodable)?;
    let wrong = |why: String| Invalid { id: id.clone(), message: format!("invalid command: {why}") };
    if id.is_empty() {
        return Err(wrong("command ID is required".into()));
    }
    let command =
        CommandType::parse(&name).ok_or_else(|| wrong(format!("invalid command type: {}", cut(&name))))?;
    let timeout = u64::try_from(timeout).ok().filter(|timeout| *timeout > 0);
    let timeout = timeout.ok_or_else(|| wrong("timeout must be positive".into()))?;
    if !data.has("params") {
        return Err(wrong("command params are required".into()));
    }
    let params = data.raw("params").unwrap_or("null").to_owned();
    Ok(Request { id, kind: command, timeout, params, key, signature })
}

/// The start of a stranger's text.
fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The message, and what a program said.
    Failed(String, Option<Metadata>),
    /// A program did not end in time.
    TimedOut,
    /// Nor did this one, which is left to finish.
    Left(String),
    /// We are to end.
    Stopped,
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self::Failed(message, None)
    }
}

impl From<&str> for Trouble {
    fn from(message: &str) -> Self {
        Self::Failed(message.to_owned(), None)
    }
}

impl From<Bad> for Trouble {
    fn from(Bad(why): Bad) -> Self {
        Self::Failed(format!("failed to parse params: {why}"), None)
    }
}

impl Trouble {
    /// Says what failed before why.
    pub(crate) fn context(self, what: &str) -> Self {
        match self {
            Self::Failed(why, details) => Self::Failed(format!("{what}: {why}"), details),
            other => other,
        }
    }
}

/// What a command has while it is carried out.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) port: &'a mut Port,
    pub(crate) deadline: Instant,
    /// `exec` may not be asked for.
    pub(crate) restricted: bool,
    /// We were started by sudo, for this one command.
    pub(crate) elevated: bool,
    /// Commands must be signed.
    pub(crate) signed: bool,
}

impl Context<'_> {
    /// Runs a program on a command's behalf.
    pub(crate) fn run(&mut self, job: &Job<'_>) -> Result<Ended, Trouble> {
        match process::run(self.port, job, self.deadline, None) {
            Ok(ended) if ended.timed_out => Err(Trouble::TimedOut),
            Ok(ended) => Ok(ended),
            Err(Broken::Start(why)) => Err(why.into()),
            Err(Broken::Stopped) => Err(Trouble::Stopped),
            Err(Broken::Left) => Err(Trouble::Left(format!(
                "{} did not end in time, and is left to finish: ended midway it would leave packages broken",
                job.program
            ))),
        }
    }

    /// Runs a program that must end well: else `exit status N`, with what it said.
    pub(crate) fn succeed(&mut self, job: &Job<'_>) -> Result<Ended, Trouble> {
        let ended = self.run(job)?;
        if ended.code == Some(0) { Ok(ended) } else { Err(failure(&ended)) }
    }

    /// Whether there is still time.
    pub(crate) fn check(&self) -> Result<(), Trouble> {
        if self.port.signals.terminated().is_some() {
            return Err(Trouble::Stopped);
        }
        if Instant::now() >= self.deadline { Err(Trouble::TimedOut) } else { Ok(()) }
    }

    /// Waits a moment, but not beyond the deadline.
    pub(crate) fn pause(&mut self, time: Duration) -> Result<(), Trouble> {
        let until = self.deadline.min(Instant::now() + time);
        crate::port::wait(&[&self.port.signals.fd()], Some(until));
        self.check()
    }
}

/// A program that did not end well.
pub(crate) fn failure(ended: &Ended) -> Trouble {
    let how = match (ended.code, ended.signal) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown end".to_owned(),
    };
    Trouble::Failed(how, details(&ended.stdout, &ended.stderr))
}

/// The end of what a program said.
fn details(stdout: &Captured, stderr: &Captured) -> Option<Metadata> {
    let mut all = stdout.bytes.clone();
    all.extend_from_slice(&stderr.bytes);
    let from = all.len().saturating_sub(MAX_DETAILS);
    let text = String::from_utf8_lossy(&all[from..]);
    let text = text.trim_matches(|c: char| c == '\u{fffd}' || c.is_whitespace());
    (!text.is_empty()).then(|| entry("output", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> String {
        parse(line.as_bytes()).map_or_else(|invalid| invalid.message, |_| "valid".to_owned())
    }

    #[test]
    fn bad_lines_are_named_as_the_protocol_does() {
        for (line, expected) in [
            ("{not json", "failed to unmarshal message: invalid JSON"),
            ("[]", "failed to unmarshal message: expected an object"),
            (r#"{"data":{}}"#, "invalid message: invalid message type: "),
            (r#"{"type":"PING","data":{}}"#, "invalid message: invalid message type: PING"),
            (r#"{"type":"READY","data":{}}"#, "expected CMD message, got READY"),
            (r#"{"type":"CMD","data":7}"#, "failed to unmarshal command: expected an object"),
            (r#"{"type":"CMD","data":{"id":7}}"#, "failed to unmarshal command: id: expected a string"),
            (r#"{"type":"CMD"}"#, "invalid command: command ID is required"),
            (
                r#"{"type":"CMD","data":{"id":"a","type":"fly"}}"#,
                "invalid command: invalid command type: fly",
            ),
            (
                r#"{"type":"CMD","data":{"id":"a","type":"exec","timeout":-1}}"#,
                "invalid command: timeout must be positive",
            ),
            (
                r#"{"type":"CMD","data":{"id":"a","type":"exec","timeout":1.5}}"#,
                "failed to unmarshal command: timeout: expected an integer",
            ),
            (
                r#"{"type":"CMD","data":{"id":"a","type":"exec","timeout":1}}"#,
                "invalid command: command params are required",
            ),
            (
                r#"{"type":"CMD","timestamp":"now","data":{"id":"a"}}"#,
                "failed to unmarshal message: timestamp: expected RFC 3339",
            ),
            (
                r#"{"type":"CMD","timestamp":null,"data":{"id":"a","type":"exec","timeout":1,"params":null}}"#,
                "valid",
            ),
            (r#"{"TYPE":"CMD","Data":{"ID":"a","Type":"exec","TIMEOUT":1,"Params":{}}}"#, "valid"),
        ] {
            assert_eq!(message(line), expected, "{line}");
        }
        assert_eq!(parse(b"\xff").unwrap_err().message, "failed to unmarshal message: invalid UTF-8");
    }

    #[test]
    fn the_answer_names_the_command_if_it_can() {
        let id = |line: &str| parse(line.as_bytes()).unwrap_err().id;
        assert_eq!(id(r#"{"type":"CMD","data":{"id":"a","type":"exec","timeout":0}}"#), "a");
        assert_eq!(id(r#"{"type":"PING","data":{"id":"a"}}"#), "a");
        assert_eq!(id(r#"{"type":"CMD","data":{"id":["a"]}}"#), "");
        let long = format!(r#"{{"type":"CMD","data":{{"id":"{}"}}}}"#, "x".repeat(5000));
        assert_eq!(id(&long), "");
    }

    #[test]
    fn params_are_kept_as_sent() {
        let line = br#"{"type":"CMD","data":{"id":"a","type":"exec","timeout":1,"params": {"b" : 1, "a":"\u0041"} }}"#;
        assert_eq!(parse(line).unwrap().params, r#"{"b" : 1, "a":"\u0041"}"#);
    }
}
