//! A task's events as server-sent events that resume without a gap.

use std::convert::Infallible;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures_util::stream;
use legwork_api::{Code, OutputEvent, RunId, Stream, TaskEvents, TaskId};
use tokio::sync::watch;

use super::door::Asked;
use super::problem::Problem;
use super::tasks::load;
use crate::engine::Hub;
use crate::events::{self, Frame, Kind};
use crate::fleet::Progress;

/// Frames read at a time.
const BATCH: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Where a reader wants to go on.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<u64, Problem> {
    match headers.get("Last-Event-ID").map(|v| v.to_str().map(str::parse)) {
        None => Ok(0),
        Some(Ok(Ok(position))) => Ok(position),
        Some(_) => Err(Problem::new(Code::BadEventId, "Last-Event-ID: is none of ours")),
    }
}

/// Where events come from.
pub(super) struct Source {
    pub(super) path: std::path::PathBuf,
    /// Run ids by ordinal.
    pub(super) runs: Vec<RunId>,
    /// `None` if there will be no more.
    pub(super) progress: Option<watch::Receiver<Progress>>,
    /// What the events of states are called.
    pub(super) name: &'static str,
}

/// The events from a position on.
pub(super) fn stream(source: Source, from: u64, follow: bool) -> Response {
    let over = || watch::Sender::new(Progress { len: u64::MAX, over: true }).subscribe();
    let reader = Reader {
        path: source.path,
        file: None,
        at: from,
        runs: source.runs,
        name: source.name,
        progress: source.progress.unwrap_or_else(over),
        ready: Vec::new().into_iter(),
        ended: false,
        follow,
    };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

pub(super) async fn of_task(hub: Arc<Hub>, asked: Asked<TaskEvents>) -> Result<Response, Problem> {
    let from = last_event_id(&asked.headers)?;
    let task = load(&hub, asked.id).await?;
    let TaskId(id) = task.id;
    let progress = hub.fleet.lock().tasks.get(&id).map(|t| t.progress.subscribe());
    if progress.is_none() {
        hub.repair_events(&id).await?;
    }
    let runs = task.runs.into_iter().map(|r| r.id).collect();
    let source = Source { path: events::path(&hub.data, &id), runs, progress, name: "state" };
    Ok(stream(source, from, asked.query.wants_more()))
}

struct Reader {
    path: std::path::PathBuf,
    file: Option<Arc<File>>,
    at: u64,
    runs: Vec<RunId>,
    name: &'static str,
    progress: watch::Receiver<Progress>,
    ready: std::vec::IntoIter<Frame>,
    ended: bool,
    follow: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(frame) = self.ready.next() {
                self.ended = frame.kind == Kind::End;
                return Some(self.event(&frame));
            }
            let known = *self.progress.borrow_and_update();
            self.read_more().await;
            if self.ready.len() > 0 {
                continue;
            }
            // Nothing more, and nothing to come: the reader asked beyond the end.
            if known.over || !self.follow || self.progress.changed().await.is_err() {
                return None;
            }
        }
    }

    async fn read_more(&mut self) {
        let (path, file, at) = (self.path.clone(), self.file.clone(), self.at);
        let read = tokio::task::spawn_blocking(move || -> std::io::Result<_> {
            let file = match file {
                Some(file) => file,
                None => Arc::new(File::open(path)?),
            };
            let (mut frames, mut at) = (Vec::new(), at);
            while frames.len() < BATCH
                && let Some(frame) = events::read(&file, at)?
            {
                at = frame.end;
                frames.push(frame);
            }
            Ok((file, frames, at))
        });
        match read.await {
            Ok(Ok((file, frames, at))) => {
                self.file = Some(file);
                self.at = at;
                self.ready = frames.into_iter();
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(Err(error)) => tracing::error!("failed to read {}: {error}", self.path.display()),
            Err(_) => {}
        }
    }

    fn event(&self, frame: &Frame) -> Event {
        let event = Event::default().id(frame.end.to_string());
        let stream = match frame.kind {
            Kind::State => return event.event(self.name).data(String::from_utf8_lossy(&frame.payload)),
            Kind::End => return event.event("end").data(String::from_utf8_lossy(&frame.payload)),
            Kind::Gap => return event.event("gap").data(String::from_utf8_lossy(&frame.payload)),
            Kind::Stdout => Stream::Stdout,
            Kind::Stderr => Stream::Stderr,
        };
        let (data, encoding) = match std::str::from_utf8(&frame.payload) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(&frame.payload);
                (encoded, Some("base64".to_owned()))
            }
        };
        let run = self.runs.get(frame.run as usize).cloned().unwrap_or_else(|| "".into());
        let output = OutputEvent { run, stream: stream.into(), offset: frame.offset, data, encoding };
        event.event("output").data(serde_json::to_string(&output).unwrap_or_default())
    }
}
