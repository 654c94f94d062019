//! What a hub knows costs nothing that does not use it: many stored tasks, many known runners.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use legwork_e2e::{Api, Hub, Runner};
use serde_json::{Value, json};

use crate::{median, report};

/// As many are on their way at a time.
const IN_FLIGHT: usize = 64;

/// Does something so often, many at a time.
async fn often<F: Future<Output = ()> + Send>(
    times: usize,
    work: impl Fn(usize) -> F + Send + Sync + 'static,
) {
    let (next, work) = (Arc::new(AtomicUsize::new(0)), Arc::new(work));
    let workers = (0..IN_FLIGHT).map(|_| {
        let (next, work) = (next.clone(), work.clone());
        async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= times {
                    return;
                }
                work(i).await;
            }
        }
    });
    futures_util::future::join_all(workers).await;
}

/// 200,000 tasks (`LEGWORK_BENCH_TASKS` for others): the start, every kind of list, the room they take.
pub(crate) async fn tasks() {
    let wanted = std::env::var("LEGWORK_BENCH_TASKS").ok().map(|n| n.parse().unwrap());
    let total: usize = wanted.unwrap_or(200_000);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("hub");
    let hub = Hub::start(&data).await;
    let mut runners = Vec::new();
    for name in ["r1", "r2"] {
        let token = hub.runner_token(name).await;
        runners.push(
            Runner::start(&dir.path().join(name), &hub.address(), &token, legwork_e2e::ALLOW_ALL).await,
        );
    }
    let api = hub.api();
    legwork_e2e::until("runners connect", || async {
        api.is_online("r1").await && api.is_online("r2").await
    })
    .await;
    for runner in &runners {
        std::fs::write(runner.workspace.join("f"), "a small file").unwrap();
    }
    let submitting = api.clone();
    often(total, move |i| {
        let api = submitting.clone();
        async move {
            // One in a hundred fails, and one in ten is of the other runner.
            let path = if i % 100 == 0 { "none" } else { "f" };
            let runner = if i % 10 == 0 { "r2" } else { "r1" };
            let body =
                json!({ "select": { "runner": runner }, "operation": "read", "args": { "path": path } });
            let (status, task) = api.post("/tasks?wait_s=60", body).await;
            assert_eq!(status, 202, "{task}");
        }
    })
    .await;
    lists(&api, total).await;
    let (url, token) = (hub.address(), hub.admin.clone());
    drop(runners);
    hub.kill().await;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let hub = Hub::start_at(&data, &url).await;
        assert_eq!(Api::new(&hub.url, &token).get("/tasks?limit=1").await.0, 200);
        times.push(start.elapsed());
        hub.kill().await;
    }
    let took = median(times);
    report(
        &format!("hub: start with {total} tasks to its first list"),
        &format!("{took:?}"),
        "100 ms",
        took.as_secs_f64() / 0.1,
    );
    let bytes = size(&data) / total as u64;
    report(
        "hub: files of a small task, database and events",
        &format!("{bytes} bytes"),
        "1 kB",
        bytes as f64 / 1000.0,
    );
}

async fn lists(api: &Api, total: usize) {
    let all = api.get("/tasks?limit=500").await.1;
    let cursor = all["next"].as_str().unwrap().to_owned();
    // A page far from the newest task.
    let deep = api.get("/tasks?state=failed&limit=500").await.1["next"].as_str().unwrap().to_owned();
    let mut worst = Duration::ZERO;
    for query in [
        String::new(),
        "?limit=500".into(),
        format!("?limit=500&cursor={cursor}"),
        format!("?limit=50&cursor={deep}"),
        "?runner=r2".into(),
        "?runner=none".into(),
        "?state=failed".into(),
        "?state=succeeded".into(),
        "?state=lost".into(),
        "?state=queued".into(),
        "?state=failed&runner=r2".into(),
        "?state=failed&runner=r1".into(),
        "?state=lost&runner=r1".into(),
    ] {
        let mut times = Vec::new();
        for _ in 0..31 {
            let start = Instant::now();
            let (status, page) = api.get(&format!("/tasks{query}")).await;
            times.push(start.elapsed());
            assert_eq!((status, page["items"].is_array()), (200, true), "{page}");
        }
        let took = median(times);
        println!("     GET /tasks{query}: {took:?}");
        // A page of 500 is ten of the usual ones.
        worst = worst.max(if query.contains("limit=500") { took / 10 } else { took });
    }
    report(
        &format!("hub: 50 of {total} tasks, the slowest list"),
        &format!("{worst:?}"),
        "5 ms",
        worst.as_secs_f64() / 0.005,
    );
}

/// Bytes of a folder's files.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| match entry.metadata().unwrap() {
            folder if folder.is_dir() => size(&entry.path()),
            file => file.len(),
        })
        .sum()
}

/// A task for one of 20 runners, and for one of 20,000.
pub(crate) async fn labels() {
    let mut took = Vec::new();
    for known in [20, 20_000] {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::start(dir.path()).await;
        let api = hub.api();
        let making = api.clone();
        often(known, move |i| {
            let api = making.clone();
            async move {
                let name = format!("r{i}");
                let (status, made) = api.post("/tokens", json!({ "name": name, "role": "runner" })).await;
                assert_eq!(status, 201, "{made}");
                let labels = json!({ "labels": ["all", format!("site:{i}")] });
                let path = format!("/runners/{}", made["runner_id"].as_str().unwrap());
                assert_eq!(api.send("PATCH", &path, Some(labels)).await.0, 200);
            }
        })
        .await;
        let mut times = Vec::new();
        for i in 0..200 {
            // Nobody is there: it waits, as it would for a runner that is away.
            let label = if i % 2 == 0 { "all".into() } else { format!("site:{}", i % known) };
            let body =
                json!({ "select": { "labels": [label] }, "operation": "read", "args": { "path": "f" } });
            let start = Instant::now();
            let (status, task) = api.post("/tasks", body).await;
            times.push(start.elapsed());
            assert_eq!((status, &task["state"]), (202, &Value::from("queued")), "{task}");
        }
        took.push(median(times));
    }
    report(
        "hub: a task by label, of 20,000 known runners",
        &format!("{:?}", took[1]),
        &format!("1.2 x the same of 20, {:?}", took[0]),
        took[1].as_secs_f64() / took[0].as_secs_f64() / 1.2,
    );
}
