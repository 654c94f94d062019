//! The hub: idle connections, durable tasks, the way of a first byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use legwork_e2e::ws::Ws;
use legwork_e2e::{Hub, Pair};
use serde_json::json;

use crate::{median, memory, report};

pub(crate) async fn idle() {
    const RUNNERS: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let before = memory(hub.pid()).0;
    let mut open = Vec::with_capacity(RUNNERS);
    let api = hub.api();
    for chunk in 0..RUNNERS / 100 {
        let connecting = (0..100).map(|n| {
            let (api, address) = (api.clone(), hub.address());
            async move {
                let name = format!("r{}", chunk * 100 + n);
                let made = api.post("/tokens", json!({ "name": name, "role": "runner" })).await.1;
                let token = made["token"].as_str().unwrap().to_owned();
                // Our own socket buffers count for nothing here; the hub's do.
                let mut ws = Ws::connect(&address, &format!("/runner/ws?token={token}"), &[]).await.unwrap();
                ws.next_of("welcome").await;
                let features = ["output", "ack", "outcome"];
                ws.say("heartbeat", json!({ "name": name, "labels": ["os:linux"], "features": features }))
                    .await;
                ws
            }
        });
        open.extend(futures_util::future::join_all(connecting).await);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rss = memory(hub.pid()).0;
    let measured = format!("{} MiB in all, {} KiB each", rss / 1024, (rss - before) / RUNNERS as u64);
    report("hub: 10,000 idle runners", &measured, "137 MiB", rss as f64 / (137.0 * 1024.0));
}

/// Tasks a second through hub and runner, each submitted, stored, carried out,
/// stored and answered.
pub(crate) async fn throughput(operation: &str) {
    const IN_FLIGHT: usize = 64;
    let pair = Pair::start().await;
    std::fs::write(pair.runner.workspace.join("f"), vec![b'x'; 1024]).unwrap();
    let (args, total, bound) = match operation {
        "read" => (json!({ "path": "f" }), 20_000, 5000.0),
        _ => (json!({ "command": "true" }), 3000, 300.0),
    };
    let body = Arc::new(json!({ "select": { "runner": "r1" }, "operation": operation, "args": args }));
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let workers = (0..IN_FLIGHT).map(|_| {
        let (api, body, next) = (pair.api.clone(), body.clone(), next.clone());
        tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < total {
                let (status, task) = api.post("/tasks?wait_s=60", (*body).clone()).await;
                assert_eq!((status, &task["state"]), (202, &json!("succeeded")), "{task}");
            }
        })
    });
    for worker in futures_util::future::join_all(workers).await {
        worker.unwrap();
    }
    let rate = total as f64 / start.elapsed().as_secs_f64();
    report(
        &format!("durable `{operation}` tasks, 64 in flight"),
        &format!("{rate:.0}/s"),
        &format!("{bound}/s"),
        bound / rate,
    );
}

pub(crate) async fn first_byte() {
    let pair = Pair::start().await;
    let mut times = Vec::new();
    for _ in 0..30 {
        // The child says when it wrote.
        let id = pair.api.bash("r1", "sleep 0.3; date +%s%N; sleep 0.2").await;
        let events = pair.api.events(&id, None, 5).await;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let output = events.iter().find(|e| e.1 == "output").expect("the fifth event is output");
        let written: u64 = output.2["data"].as_str().unwrap().trim().parse().unwrap();
        times.push(now.saturating_sub(Duration::from_nanos(written)));
        pair.api.end(&id).await;
    }
    let took = median(times);
    report(
        "first byte of output at the SSE reader",
        &format!("{took:?}"),
        "20 ms",
        took.as_secs_f64() / 0.02,
    );
}
