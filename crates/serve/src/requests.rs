//! What clients ask for: each event by its name (`docs/protocols/workspace.md` §4 and §12).

mod fields;
mod files;
mod manage;
mod terminals;

use std::sync::Arc;
use std::time::Instant;

use legwork_socketio::{Data, Payload, Request, Unreadable, payload};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::access::Rights;
use crate::files::Files;
use crate::member::Client;
use crate::metrics::Metrics;
use crate::paths::{FileError, Trouble};
use crate::ports::Ports;
use crate::queue::Queued;
use crate::terminals::Terminals;
use crate::watching::Watching;
use fields::{Fields, Outcome, may};

/// What requests are about, each with what it needs.
pub(crate) struct Desk {
    pub(crate) files: Arc<Files>,
    pub(crate) terminals: Arc<Terminals>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) watching: Arc<Watching>,
    pub(crate) metrics: Arc<Metrics>,
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

/// The path that a payload is about, for errors.
fn path_of(data: &Data) -> Option<String> {
    match &data.value {
        Value::String(path) => Some(path.clone()),
        Value::Object(map) => map.get("path").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    }
}

impl Desk {
    /// Takes a request. Returns when the next one may be read: when there is room for its answer,
    /// but for input, which goes past all that waits.
    pub(crate) async fn take(&self, client: &Arc<Client>, request: Request) {
        if about_files(&request.event) {
            return self.queue(client, request).await;
        }
        let Request { event, data, ack } = request;
        let is_input = matches!(&*event, "terminal:write" | "terminalData");
        let room = if is_input { client.at_once() } else { client.room().await };
        let asked = terminals::Asked { terminals: &self.terminals, files: &self.files, client, room };
        let done = match asked.take(&event, data) {
            terminals::Taken::Done(answer) => Some(answer),
            terminals::Taken::Other(data) => (event == "watch").then(|| self.watch(client, data)),
        };
        match done {
            // Who waits for an answer gets one.
            None => client.acknowledge(room, ack, payload(&Trouble::unknown(&event).failed())),
            Some(Ok(said)) => client.acknowledge(room, ack, said),
            Some(Err(trouble)) => {
                self.metrics.failed();
                let name = if event.starts_with("terminal") { "terminal:error" } else { "request:error" };
                let said = payload(&trouble.failed());
                client.answer(room, name, said.clone());
                client.acknowledge(room, ack, said);
            }
        }
    }

    /// Queues a request about files: those of a client are worked on in order.
    async fn queue(&self, client: &Arc<Client>, mut request: Request) {
        // What is refused anyway takes no room until then: what is left of it is what an error names.
        if client.member.rights == Rights::Look && changes(&request.event) {
            let path = path_of(&request.data).map_or(Value::Null, Value::String);
            request.data = Data::new(json!({ "path": path }), Vec::new());
        }
        let queue = &client.member.requests;
        let (files, metrics) = (self.files.clone(), self.metrics.clone());
        queue
            .add(request, |receiver| {
                tokio::spawn(work(files, metrics, client.clone(), receiver));
            })
            .await;
    }

    /// `watch {files, ports, usage, terminals, storage}`: what else to tell the client.
    fn watch(&self, client: &Client, data: Data) -> Result<Payload, Trouble> {
        let mut fields = Fields::of(data, "topic")?;
        let watches = &client.member.watches;
        let all = [
            ("files", &watches.files),
            ("ports", &watches.ports),
            ("usage", &watches.usage),
            ("terminals", &watches.terminals),
            ("storage", &watches.storage),
        ];
        for (name, watch) in all {
            if fields.has(name) {
                watch.set(fields.flag(name)?);
            }
        }
        if watches.files.is_on() {
            self.watching.start();
        }
        if watches.ports.is_on() {
            self.ports.tell_now(client);
        }
        if watches.terminals.is_on() {
            self.terminals.tell(client);
        }
        let said: serde_json::Map<_, _> =
            all.map(|(name, watch)| (name.to_owned(), Value::Bool(watch.is_on()))).into_iter().collect();
        Ok(payload(&said))
    }
}

/// Works on a client's requests about files, in order.
async fn work(
    files: Arc<Files>,
    metrics: Arc<Metrics>,
    client: Arc<Client>,
    mut requests: mpsc::Receiver<Queued>,
) {
    while let Some(Queued { request: Request { event, data, ack }, place }) = requests.recv().await {
        let room = client.room().await;
        let path = path_of(&data);
        let start = Instant::now();
        let (doing, name, rights) = (files.clone(), event.clone(), client.member.rights);
        let done = tokio::task::spawn_blocking(move || carry_out(&doing, &name, data, rights)).await;
        drop(place);
        metrics.file_operation(start.elapsed());
        match done.unwrap_or_else(|_| Some(Err(Trouble::internal()))) {
            None => client.acknowledge(room, ack, payload(&Trouble::unknown(&event).failed())),
            Some(Ok(outcome)) => {
                if let Some((name, payload)) = outcome.event {
                    client.answer(room, name, payload);
                }
                if outcome.changed {
                    files.refresh_all().await;
                }
                client.acknowledge(room, ack, outcome.ack);
            }
            Some(Err(trouble)) => {
                metrics.failed();
                let path = path.as_deref();
                let said = FileError { event: &event, path, error: &trouble.text, code: trouble.code };
                client.answer(room, "file:error", payload(&said));
                client.acknowledge(room, ack, payload(&trouble.failed()));
            }
        }
    }
}

/// Carries out a request about files. Blocks. `None` for an unknown event.
fn carry_out(files: &Files, event: &str, data: Data, rights: Rights) -> Option<Result<Outcome, Trouble>> {
    Some(match event {
        "fetchDir" => files::fetch_dir(files, data),
        "fetchContent" => files::fetch_content(files, data),
        "updateContent" => may(rights).and_then(|()| files::update_content(files, data)),
        "file:stat" => manage::stat(files, data),
        "file:create" => may(rights).and_then(|()| manage::create(files, data, false)),
        "file:mkdir" => may(rights).and_then(|()| manage::create(files, data, true)),
        "file:delete" => may(rights).and_then(|()| manage::delete(files, data)),
        "file:move" => may(rights).and_then(|()| manage::rename(files, data)),
        "search:grep" => manage::grep(files, data),
        "search:glob" => manage::glob(files, data),
        _ => return None,
    })
}

/// Answers a message that can't be read. It did not wait for its turn, so neither does the answer.
pub(crate) fn unreadable(client: &Client, what: Unreadable) {
    let (text, ack) = match what {
        Unreadable::TooDeep(ack) => ("the payload is nested too deeply", ack),
        Unreadable::NoRequest => ("invalid payload: expected {\"event\":…,\"data\":…}", None),
    };
    let said = payload(&Trouble::bad(text).failed());
    let room = client.at_once();
    client.answer(room, "request:error", said.clone());
    client.acknowledge(room, ack, said);
}
