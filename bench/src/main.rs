//! Benchmarks: each prints what it measured and the ratio to its peer or bound.
//! `legwork-bench all`, or the names of some. Needs the release binary.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a report"
)]

mod files;
mod gate;
mod hub;
mod mcp;
mod micro;
mod pods;
mod runner;
mod ssh;
mod stored;
mod storm;
mod walls;
mod workspace;

use std::time::Duration;

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let all = wanted.is_empty() || wanted.iter().any(|w| w == "all");
    if wanted.first().is_some_and(|w| w == "floor") {
        return micro::floor();
    }
    let asked = |name: &str| all || wanted.iter().any(|w| w == name);
    if asked("verdict") {
        files::verdict();
        files::syntax();
    }
    if asked("gate") {
        gate::gate().await;
    }
    if asked("walls") {
        walls::walls().await;
    }
    if asked("grep") {
        files::grep();
    }
    if asked("start") {
        runner::start().await;
    }
    if asked("supervise") {
        runner::supervise().await;
    }
    if asked("task") {
        runner::task().await;
    }
    if asked("reads") {
        runner::reads().await;
    }
    if asked("output") {
        runner::output().await;
    }
    if asked("idle") {
        hub::idle().await;
    }
    if asked("durable") {
        hub::throughput("read").await;
    }
    if asked("process") {
        hub::throughput("bash").await;
    }
    if asked("labels") {
        stored::labels().await;
    }
    if asked("stored") {
        stored::tasks().await;
    }
    if asked("first-byte") {
        hub::first_byte().await;
    }
    if asked("mcp") {
        mcp::calls().await;
    }
    if asked("pods") {
        pods::pods().await;
    }
    if asked("micro") {
        micro::size();
        micro::start();
        micro::exec();
        micro::output();
        micro::files();
    }
    if asked("ssh") {
        ssh::ssh().await;
    }
    if asked("workspace") {
        workspace::workspace();
    }
    if asked("storm") {
        storm::reconnects().await;
    }
}

/// Prints a measurement beside its bound; `ratio` at most 1 is good.
pub(crate) fn report(what: &str, measured: &str, bound: &str, ratio: f64) {
    let verdict = if ratio <= 1.0 { "ok  " } else { "MISS" };
    println!("{verdict} {what}: {measured} (bound {bound}; {ratio:.2} of it)");
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Resident memory of a process, in KiB: now, and at its peak.
pub(crate) fn memory(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}
