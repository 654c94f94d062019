//! `legwork mcp`: the hub's MCP server for clients that start a program. Each line is a message; it goes to the hub as it
//! is, and what the hub says comes back as lines. The tools are the hub's.

use std::collections::HashMap;
use std::io::{BufRead, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_api::Client;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::args::HubArgs;
use crate::client;

/// Longest message that is read.
const MAX_LINE: u64 = 8 << 20;
/// Calls that are under way at a time; the next line waits.
const MOST_CALLS: usize = 64;
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

struct Bridge {
    client: Client,
    /// What a handshake settled; the newest revision has none.
    settled: Mutex<Option<String>>,
    calls: Mutex<HashMap<String, AbortHandle>>,
}

pub(crate) async fn run(hub: &HubArgs) -> Result<u8> {
    let client = client::from_args(hub)?;
    let bridge = Arc::new(Bridge { client, settled: Mutex::default(), calls: Mutex::default() });
    let room = Arc::new(Semaphore::new(MOST_CALLS));
    let mut calls = tokio::task::JoinSet::new();
    let mut input = lines();
    while let Some(line) = input.recv().await {
        let line = line?;
        let message: Value = match serde_json::from_slice(&line) {
            Ok(message) => message,
            Err(error) => {
                say(&failed(&Value::Null, -32700, &format!("this is no JSON: {error}")));
                continue;
            }
        };
        if message["method"] == "notifications/cancelled" {
            bridge.cancel(&message["params"]["requestId"]);
            continue;
        }
        // The order of a handshake and what follows it must stay.
        if message["method"] == "initialize" || message.get("id").is_none() {
            bridge.carry(message, line).await;
            continue;
        }
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let (own, key) = (bridge.clone(), message["id"].to_string());
        let call = async move {
            let key = message["id"].to_string();
            own.carry(message, line).await;
            own.calls().remove(&key);
            drop(permit);
        };
        {
            // Held: it is there before it is taken out.
            let mut known = bridge.calls();
            known.insert(key, calls.spawn(call));
        }
        while calls.try_join_next().is_some() {}
    }
    // Whoever closed our input waits for no answers; what was asked by then is answered all the same.
    while calls.join_next().await.is_some() {}
    Ok(0)
}

/// The lines of standard input, read by a thread of their own.
fn lines() -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = match (&mut input).take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) if !line.ends_with(b"\n") && line.len() as u64 == MAX_LINE => {
                    Err(std::io::Error::other(format!("a message is longer than {MAX_LINE} bytes")))
                }
                Ok(_) => Ok(line),
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

impl Bridge {
    fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub takes a connection that closes for a cancel.
    fn cancel(&self, id: &Value) {
        if let Some(call) = self.calls().remove(&id.to_string()) {
            call.abort();
        }
    }

    /// Takes a message to the hub, and what it says to the client.
    async fn carry(&self, message: Value, line: Vec<u8>) {
        let id = message.get("id").cloned();
        let headers = self.headers(&message);
        let problem = match self.client.relay("/mcp", &headers, line).await {
            Ok(mut answer) => loop {
                match answer.next().await {
                    Ok(None) => break None,
                    Ok(Some(messages)) => {
                        for text in messages {
                            if let Some(why) = self.pass(&text, answer.status, &message) {
                                return self.tell(id.as_ref(), &why);
                            }
                        }
                    }
                    Err(why) => break Some(format!("the connection to the hub broke: {why}")),
                }
            },
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = problem {
            self.tell(id.as_ref(), &why);
        }
    }

    fn tell(&self, id: Option<&Value>, why: &str) {
        match id {
            Some(id) => say(&failed(id, -32603, why)),
            None => eprintln!("legwork: {why}"),
        }
    }

    /// Passes a message on; what is none is the hub's refusal, which is returned in words.
    fn pass(&self, text: &str, status: u16, asked: &Value) -> Option<String> {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        if message["jsonrpc"] != "2.0" {
            let detail = message["detail"].as_str().unwrap_or("it is no MCP server, or an older hub");
            return Some(format!("the hub refused ({status}): {detail}"));
        }
        if asked["method"] == "initialize" {
            let version = message["result"]["protocolVersion"].as_str().map(str::to_owned);
            *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = version;
        }
        say(&message);
        None
    }

    fn headers(&self, message: &Value) -> Vec<(&'static str, String)> {
        let method = message["method"].as_str().unwrap_or_default();
        let said = message["params"]["_meta"][VERSION].as_str().map(str::to_owned);
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
            ("mcp-method", header(method)),
        ];
        headers.extend(said.or(settled).map(|version| ("mcp-protocol-version", header(&version))));
        headers.extend(message["params"]["name"].as_str().map(|name| ("mcp-name", header(name))));
        headers
    }
}

/// A text as a header's value, encoded where it could not stand there.
fn header(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if plain && text.trim() == text && !text.starts_with("=?base64?") {
        return text.to_owned();
    }
    format!("=?base64?{}?=", STANDARD.encode(text))
}

fn failed(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

/// Writes a message, whole: nothing else is written to standard output.
fn say(message: &Value) {
    let mut out = std::io::stdout().lock();
    // Who reads no more has gone, and closes our input as well.
    let _ = writeln!(out, "{message}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_header_is_encoded() {
        assert_eq!(header("tools/call"), "tools/call");
        assert_eq!(header("größe"), "=?base64?Z3LDtsOfZQ==?=");
        assert_eq!(header(" x"), "=?base64?IHg=?=");
        assert_eq!(header("=?base64?x?="), "=?base64?PT9iYXNlNjQ/eD89?=");
    }
}
