//! What clients ask for: each event by its name (`docs/protocols/workspace.md` §4 and §12).

mod files;
mod manage;
mod terminals;

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::client::{Client, Payload, Request, Rights, payload};
use crate::paths::{FileError, Trouble};
use crate::room::Room;

pub(crate) use terminals::list as terminal_list;

/// An event's payload, with its binary parts.
#[derive(Debug)]
pub(crate) struct Data {
    value: Value,
    parts: Vec<Vec<u8>>,
}

impl Data {
    pub(crate) fn new(value: Value, parts: Vec<Vec<u8>>) -> Self {
        Self { value, parts }
    }

    /// The payload as an object; a bare string, or bare bytes, mean `field` alone.
    fn object(self, field: &str) -> Result<Fields, Trouble> {
        let map = match self.value {
            Value::Object(map) if !is_placeholder(&map) => map,
            Value::Null => Map::new(),
            bare @ (Value::String(_) | Value::Object(_)) => Map::from_iter([(field.to_owned(), bare)]),
            _ => return Err(Trouble::bad("invalid payload")),
        };
        Ok(Fields { map, parts: self.parts })
    }

    /// About how many bytes of memory it takes.
    fn weight(&self) -> usize {
        weight(&self.value) + self.parts.iter().map(Vec::len).sum::<usize>()
    }

    /// Leaves of it only what an error names.
    fn path_alone(self) -> Self {
        let path = self.path().map_or(Value::Null, Value::String);
        Self::new(json!({ "path": path }), Vec::new())
    }

    /// The path it is about, for errors.
    fn path(&self) -> Option<String> {
        match &self.value {
            Value::String(path) => Some(path.clone()),
            Value::Object(map) => map.get("path").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        }
    }
}

fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(weight).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + 64 + weight(value)).sum(),
            _ => 0,
        }
}

fn is_placeholder(map: &Map<String, Value>) -> bool {
    map.get("_placeholder") == Some(&Value::Bool(true))
}

/// The fields of a payload.
#[derive(Debug)]
struct Fields {
    map: Map<String, Value>,
    parts: Vec<Vec<u8>>,
}

impl Fields {
    fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|v| !v.is_null())
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Trouble> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Trouble::bad("invalid payload")),
        }
    }

    fn needed(&mut self, name: &str) -> Result<String, Trouble> {
        self.text(name)?.ok_or_else(|| Trouble::bad(format!("{name} is required")))
    }

    /// Text or bytes.
    fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.into_bytes())),
            Some(Value::Object(map)) if is_placeholder(&map) => {
                let at = map.get("num").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
                let part = at.and_then(|at| self.parts.get_mut(at)).map(std::mem::take);
                part.map(Some).ok_or_else(|| Trouble::bad("invalid payload"))
            }
            Some(_) => Err(Trouble::bad("invalid payload")),
        }
    }

    fn flag(&mut self, name: &str) -> Result<bool, Trouble> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(Trouble::bad(format!("{name} must be true or false"))),
        }
    }

    /// A whole number within bounds.
    fn number(&mut self, name: &str, from: u64, to: u64) -> Result<Option<u64>, Trouble> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if (from..=to).contains(&number) => Ok(Some(number)),
                _ => Err(Trouble::bad(format!("{name} must be a number from {from} to {to}"))),
            },
        }
    }
}

/// How a request about files ended: what to send, and what others must hear of.
struct Outcome {
    /// An event for the client, and what its acknowledgement says if that differs.
    event: Option<(&'static str, Payload)>,
    ack: Payload,
    /// The workspace has changed.
    changed: bool,
}

impl Outcome {
    /// An event whose payload is the acknowledgement as well.
    fn event(name: &'static str, payload: Payload) -> Self {
        Self { event: Some((name, payload.clone())), ack: payload, changed: false }
    }

    fn ack(value: &impl serde::Serialize) -> Self {
        Self { event: None, ack: payload(value), changed: false }
    }

    fn changed(value: &impl serde::Serialize) -> Self {
        Self { changed: true, ..Self::ack(value) }
    }
}

/// Whether an event is about files: those of a client are worked on one after another.
fn about_files(event: &str) -> bool {
    matches!(event, "fetchDir" | "fetchContent" | "updateContent")
        || event.starts_with("file:")
        || event.starts_with("search:")
}

/// Whether an event about files changes them.
fn changes(event: &str) -> bool {
    matches!(event, "updateContent" | "file:create" | "file:mkdir" | "file:delete" | "file:move")
}

/// Takes a request. Returns when the next one may be read: when there is room for its answer,
/// but for input, which goes past all that waits.
pub(crate) async fn take(
    room: &Arc<Room>,
    client: &Arc<Client>,
    event: String,
    data: Data,
    ack: Option<u64>,
) {
    if about_files(&event) {
        // What is refused anyway takes no room until then.
        let is_refused = client.rights == Rights::Look && changes(&event);
        let data = if is_refused { data.path_alone() } else { data };
        let place = client.place(data.weight()).await;
        let requests = client.queue(|receiver| {
            tokio::spawn(work(room.clone(), client.clone(), receiver));
        });
        let _ = requests.send(Request { event, data, ack, place }).await;
        return;
    }
    let is_input = matches!(&*event, "terminal:write" | "terminalData");
    if !is_input {
        client.has_room().await;
    }
    let answer = |name, said| match is_input {
        true => client.answer_at_once(name, said),
        false => client.answer(name, said),
    };
    let acknowledge = |said| match ack {
        Some(id) if is_input => client.acknowledge_at_once(id, said),
        Some(id) => client.acknowledge(id, said),
        None => {}
    };
    let done = terminals::take(room, client, &event, data).or_else(|data| watch(room, client, &event, data));
    match done {
        // Who waits for an answer gets one.
        None => acknowledge(payload(&Trouble::unknown(&event).failed())),
        Some(Ok(said)) => acknowledge(said),
        Some(Err(trouble)) => {
            room.metrics.failed();
            let name = if event.starts_with("terminal") { "terminal:error" } else { "request:error" };
            let said = payload(&trouble.failed());
            answer(name, said.clone());
            acknowledge(said);
        }
    }
}

/// Works on a client's requests about files, in order.
async fn work(room: Arc<Room>, client: Arc<Client>, mut requests: mpsc::Receiver<Request>) {
    while let Some(Request { event, data, ack, place }) = requests.recv().await {
        client.has_room().await;
        let path = data.path();
        let start = Instant::now();
        let (doing, name, rights) = (room.clone(), event.clone(), client.rights);
        let done = tokio::task::spawn_blocking(move || carry_out(&doing, &name, data, rights)).await;
        drop(place);
        room.metrics.file_operation(start.elapsed());
        match done.unwrap_or_else(|_| Some(Err(Trouble::new("io_error", "internal error")))) {
            None => {
                if let Some(id) = ack {
                    client.acknowledge(id, payload(&Trouble::unknown(&event).failed()));
                }
            }
            Some(Ok(outcome)) => {
                if let Some((name, payload)) = outcome.event {
                    client.answer(name, payload);
                }
                if outcome.changed {
                    room.refresh_all().await;
                }
                if let Some(id) = ack {
                    client.acknowledge(id, outcome.ack);
                }
            }
            Some(Err(trouble)) => {
                room.metrics.failed();
                let said = FileError {
                    event: &event,
                    path: path.as_deref(),
                    error: &trouble.text,
                    code: trouble.code,
                };
                client.answer("file:error", payload(&said));
                if let Some(id) = ack {
                    client.acknowledge(id, payload(&trouble.failed()));
                }
            }
        }
    }
}

/// Carries out a request about files. Blocks. `None` for an unknown event.
fn carry_out(room: &Room, event: &str, data: Data, rights: Rights) -> Option<Result<Outcome, Trouble>> {
    Some(match event {
        "fetchDir" => files::fetch_dir(room, data),
        "fetchContent" => files::fetch_content(room, data),
        "updateContent" => may(rights).and_then(|()| files::update_content(room, data)),
        "file:stat" => manage::stat(room, data),
        "file:create" => may(rights).and_then(|()| manage::create(room, data, false)),
        "file:mkdir" => may(rights).and_then(|()| manage::create(room, data, true)),
        "file:delete" => may(rights).and_then(|()| manage::delete(room, data)),
        "file:move" => may(rights).and_then(|()| manage::rename(room, data)),
        "search:grep" => manage::grep(room, data),
        "search:glob" => manage::glob(room, data),
        _ => return None,
    })
}

/// Whether a client may change anything.
fn may(rights: Rights) -> Result<(), Trouble> {
    match rights {
        Rights::Work => Ok(()),
        Rights::Look => Err(Trouble::new("read_only", "this connection may look, and change nothing")),
    }
}

/// `watch {files, ports, usage, terminals, storage}`: what else to tell the client.
fn watch(
    room: &Arc<Room>,
    client: &Arc<Client>,
    event: &str,
    data: Data,
) -> Option<Result<Payload, Trouble>> {
    use std::sync::atomic::Ordering::Relaxed;
    if event != "watch" {
        return None;
    }
    let all = || -> Result<Payload, Trouble> {
        let mut fields = data.object("topic")?;
        let watches = &client.watches;
        for (name, flag) in [
            ("files", &watches.files),
            ("ports", &watches.ports),
            ("usage", &watches.usage),
            ("terminals", &watches.terminals),
            ("storage", &watches.storage),
        ] {
            if fields.has(name) {
                flag.store(fields.flag(name)?, Relaxed);
            }
        }
        room.watched(client);
        Ok(payload(&json!({
            "files": watches.files.load(Relaxed),
            "ports": watches.ports.load(Relaxed),
            "usage": watches.usage.load(Relaxed),
            "terminals": watches.terminals.load(Relaxed),
            "storage": watches.storage.load(Relaxed),
        })))
    };
    Some(all())
}

/// Answers a request that is nested too deeply.
pub(crate) fn too_deep(client: &Client, ack: Option<u64>) {
    let said = payload(&Trouble::bad("the payload is nested too deeply").failed());
    client.answer_at_once("request:error", said.clone());
    if let Some(id) = ack {
        client.acknowledge_at_once(id, said);
    }
}

/// Answers a frame that is no request at all.
pub(crate) fn bad_frame(client: &Client) {
    client.answer_at_once(
        "request:error",
        payload(
            &json!({ "error": "invalid payload: expected {\"event\":…,\"data\":…}", "code": "bad_request" }),
        ),
    );
}
