//! A task's events as server-sent events that resume without a gap.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures_util::stream;
use legwork_api::{Code, OutputEvent, RunId, Stream, TaskEvents};
use serde::Deserialize;
use tokio::sync::watch;

use super::door::Asked;
use super::problem::Problem;
use super::tasks::load;
use crate::engine::Hub;
use crate::events::{Frame, Kind, Logs};
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
    pub(super) logs: Arc<Logs>,
    pub(super) task: String,
    /// Run ids by ordinal.
    pub(super) runs: Vec<RunId>,
    /// `None` if there will be no more.
    pub(super) progress: Option<watch::Receiver<Progress>>,
    pub(super) names: Names,
}

/// What events that are JSON are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// All of them tell states.
    States,
    /// Some tell states, and the others what an agent or a workflow says.
    ByType,
    /// `event`, for who knows pods' tasks only.
    Events,
}

/// The events from a position on.
pub(super) fn stream(source: Source, from: u64, follow: bool) -> Response {
    let over = || watch::Sender::new(Progress { len: u64::MAX, over: true }).subscribe();
    let reader = Reader {
        logs: source.logs,
        task: source.task,
        at: from,
        runs: source.runs,
        names: source.names,
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
    let id = task.id.clone();
    let runs = task.runs.iter().map(|r| RunId(r.id.clone())).collect();
    let names = if task.number.is_some() { Names::ByType } else { Names::States };
    let progress = hub.follow(&id);
    if progress.is_none() {
        match task.number {
            Some(_) => hub.repair_pod_events(task).await?,
            None => hub.repair_events(&id).await?,
        }
    }
    let source = Source { logs: hub.logs.clone(), task: id, runs, progress, names };
    Ok(stream(source, from, asked.query.wants_more()))
}

struct Reader {
    logs: Arc<Logs>,
    task: String,
    at: u64,
    runs: Vec<RunId>,
    names: Names,
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
        let (logs, task, at) = (self.logs.clone(), self.task.clone(), self.at);
        let read = tokio::task::spawn_blocking(move || logs.read(&task, at, BATCH)).await;
        match read.map_err(std::io::Error::other).flatten() {
            Ok(frames) => {
                self.at = frames.last().map_or(self.at, |frame| frame.end);
                self.ready = frames.into_iter();
            }
            Err(error) => tracing::error!(task = %self.task, "failed to read events: {error}"),
        }
    }

    fn name(&self, frame: &Frame) -> &'static str {
        #[derive(Deserialize)]
        struct Typed<'a> {
            #[serde(rename = "type", borrow)]
            kind: Option<std::borrow::Cow<'a, str>>,
        }
        match self.names {
            Names::States => "state",
            Names::Events => "event",
            Names::ByType => match serde_json::from_slice::<Typed<'_>>(&frame.payload) {
                Ok(Typed { kind: Some(kind) }) if kind == "state" => "state",
                _ => "event",
            },
        }
    }

    fn event(&self, frame: &Frame) -> Event {
        let event = Event::default().id(frame.end.to_string());
        let stream = match frame.kind {
            Kind::State => {
                return event.event(self.name(frame)).data(String::from_utf8_lossy(&frame.payload));
            }
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
