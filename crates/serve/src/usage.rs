//! What the workspace uses: `/metrics`, and `usage` events.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use legwork_socketio::payload;
use serde::Serialize;

use crate::files::Files;
use crate::member::Presence;
use crate::metrics::Metrics;
use crate::terminals::Terminals;

const EVERY: Duration = Duration::from_secs(5);

/// What is used now.
#[derive(Debug, Clone, Serialize)]
struct Usage {
    /// Seconds of processor time, of the pod if it has a control group of its own, else of
    /// this server and what it has started.
    cpu_seconds: f64,
    memory_bytes: u64,
    memory_limit_bytes: Option<u64>,
    processes: usize,
    connections: usize,
    terminals: usize,
    disk_free_bytes: Option<u64>,
    disk_total_bytes: Option<u64>,
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Who is asked what a workspace uses.
pub(crate) struct Meters {
    pub(crate) files: Arc<Files>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) terminals: Arc<Terminals>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Meters {
    /// Looks. Blocks.
    fn look(&self) -> Usage {
        let disk = self.files.root.disk();
        let group = legwork_process::usage();
        Usage {
            cpu_seconds: group.cpu.as_secs_f64(),
            memory_bytes: number("/sys/fs/cgroup/memory.current").unwrap_or(group.memory),
            memory_limit_bytes: number("/sys/fs/cgroup/memory.max"),
            processes: group.processes,
            connections: self.presence.count(),
            terminals: self.terminals.running(),
            disk_free_bytes: disk.map(|(free, _)| free),
            disk_total_bytes: disk.map(|(_, total)| total),
        }
    }
}

/// Tells those who want it what is used. Never ends.
pub(crate) async fn watch(meters: Arc<Meters>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if !meters.presence.any(|m| m.watches.usage.is_on()) {
            continue;
        }
        let looking = meters.clone();
        if let Ok(usage) = tokio::task::spawn_blocking(move || looking.look()).await {
            meters.presence.tell("usage", &payload(&usage), |m| m.watches.usage.is_on());
        }
    }
}

/// The answer to `/metrics`, in Prometheus' text format. Blocks.
pub(crate) fn metrics(meters: &Meters) -> String {
    let usage = meters.look();
    let counted = meters.metrics.counted();
    let mut out = String::new();
    let mut add = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = writeln!(
            out,
            "# HELP legwork_{name} {help}\n# TYPE legwork_{name} {kind}\nlegwork_{name} {value}"
        );
    };
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    let float = |n: u64| n as f64;
    let size = |n: usize| float(u64::try_from(n).unwrap_or(u64::MAX));
    add("cpu_seconds_total", "counter", "Processor time of the workspace.", usage.cpu_seconds);
    add("memory_bytes", "gauge", "Memory of the workspace.", float(usage.memory_bytes));
    add("processes", "gauge", "Processes of the workspace.", size(usage.processes));
    add("connections", "gauge", "Connected clients.", size(usage.connections));
    add("terminals", "gauge", "Terminals in which something runs.", size(usage.terminals));
    if let (Some(free), Some(total)) = (usage.disk_free_bytes, usage.disk_total_bytes) {
        add("disk_free_bytes", "gauge", "Bytes free for the workspace.", float(free));
        add("disk_total_bytes", "gauge", "Bytes of the workspace's disk.", float(total));
    }
    add("connections_total", "counter", "Clients that joined.", float(counted.connected));
    add(
        "connections_recovered_total",
        "counter",
        "Clients that came back after a cut.",
        float(counted.recovered),
    );
    add("connections_refused_total", "counter", "Clients that were refused.", float(counted.refused));
    add("messages_total", "counter", "Messages from clients.", float(counted.messages));
    add("requests_total", "counter", "Requests of clients.", float(counted.requests));
    add("request_errors_total", "counter", "Requests that failed.", float(counted.errors));
    out.push_str(&meters.metrics.file_histogram("legwork_file_operation_seconds"));
    out
}
