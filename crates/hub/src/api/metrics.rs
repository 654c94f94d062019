//! Health and Prometheus metrics.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use legwork_api::Code;

use super::problem::Problem;
use crate::engine::Hub;
use crate::model::State as RunState;

/// Ready is who can write: the store, and tasks' events.
pub(super) async fn ready(State(hub): State<Arc<Hub>>) -> Response {
    if let Err(error) = write_beside_events(hub.data.clone()).await {
        let text = format!("events of tasks can't be written: {error}");
        return Problem::new(Code::StoreFailed, text).into_response();
    }
    match hub.store.check().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// A small file, written and taken away: a full disk does not show otherwise.
async fn write_beside_events(data: std::path::PathBuf) -> std::io::Result<()> {
    let written = tokio::task::spawn_blocking(move || {
        let folder = data.join("events");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(".ready");
        std::fs::write(&path, [0u8; 4096])?;
        std::fs::remove_file(path)
    });
    written.await.map_err(std::io::Error::other)?
}

pub(super) async fn metrics(State(hub): State<Arc<Hub>>) -> Response {
    let (online, known, open) = {
        let fleet = hub.fleet.lock();
        (fleet.runners.values().filter(|r| r.link.is_some()).count(), fleet.runners.len(), fleet.runs.len())
    };
    let counters = &hub.counters;
    let mut text = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    line("legwork_runners_online", "gauge", "Runners connected now.", online as u64);
    line("legwork_runners_known", "gauge", "Runners that have ever connected.", known as u64);
    line("legwork_runs_open", "gauge", "Runs without a final state.", open as u64);
    line(
        "legwork_tasks_submitted_total",
        "counter",
        "Tasks taken since the start.",
        counters.submitted.load(Ordering::Relaxed),
    );
    line(
        "legwork_output_bytes_total",
        "counter",
        "Live output received since the start.",
        counters.output_bytes.load(Ordering::Relaxed),
    );
    let name = "legwork_runs_ended_total";
    let _ = write!(text, "# HELP {name} Runs ended since the start.\n# TYPE {name} counter\n");
    for (state, count) in RunState::ALL.iter().zip(&counters.ended).filter(|(s, _)| s.is_final()) {
        let _ = writeln!(text, "{name}{{state=\"{}\"}} {}", state.as_str(), count.load(Ordering::Relaxed));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
