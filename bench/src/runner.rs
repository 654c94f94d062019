//! The runner alone, against a hub that is this program.

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use legwork_e2e::ws::Ws;
use legwork_e2e::{ALLOW_ALL, Runner};
use legwork_process::{Progress, Spawner, Spec};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use crate::{median, memory, report};

/// A runner and our end of its connection, welcomed with the given features.
pub(crate) async fn connected(rules: &[(&str, &str)], features: &[&str]) -> (tempfile::TempDir, Runner, Ws) {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let home = dir.path().canonicalize().unwrap();
    let runner = Runner::start(&home, &address, "t", rules).await;
    let mut ws = Ws::accept(&listener, None).await;
    let welcome = json!({ "worknode_id": "w", "name": "n", "labels": [], "features": features });
    ws.say("welcome", welcome).await;
    ws.next_of("heartbeat").await;
    (dir, runner, ws)
}

pub(crate) async fn start() {
    let mut times = Vec::new();
    let mut idle = 0;
    for _ in 0..9 {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/runner/ws", listener.local_addr().unwrap());
        let start = Instant::now();
        let runner = Runner::start_with(dir.path(), &url, "t", ALLOW_ALL, "").await;
        let mut ws = Ws::accept(&listener, None).await;
        ws.say("welcome", json!({ "worknode_id": "w", "name": "n", "labels": [] })).await;
        ws.next_of("heartbeat").await;
        times.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
        idle = memory(runner.pid()).0;
    }
    let took = median(times);
    report("runner: start to first heartbeat", &format!("{took:?}"), "50 ms", took.as_secs_f64() / 0.05);
    report("runner: idle RSS", &format!("{idle} KiB"), "15 MiB", idle as f64 / (15.0 * 1024.0));
}

/// What a supervisor adds to a command, without any connection or journal of tasks.
pub(crate) async fn supervise() {
    use std::os::fd::AsFd;
    let dir = tempfile::tempdir().unwrap();
    let cwd = std::fs::File::open(dir.path()).unwrap();
    let spawner = Spawner::start(&legwork_e2e::binary()).unwrap();
    let argv = ["/bin/bash", "--noprofile", "--norc", "-c", "true"].map(String::from).to_vec();
    let spec = Spec { argv, ..Spec::default() };
    let (mut bare, mut whole, mut handing) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..200 {
        let start = Instant::now();
        Command::new("/bin/bash").args(["--noprofile", "--norc", "-c", "true"]).status().unwrap();
        bare.push(start.elapsed());
        let path = dir.path().join(n.to_string());
        let start = Instant::now();
        let running = spawner.spawn(&path, cwd.as_fd(), &spec).unwrap();
        handing.push(start.elapsed());
        while !matches!(running.progress().await, Progress::Ended) {}
        whole.push(start.elapsed());
        std::fs::remove_file(path).unwrap();
    }
    let (bare, whole, handing) = (median(bare), median(whole), median(handing));
    let over = whole.saturating_sub(bare);
    let measured = format!("{whole:?}, of it {handing:?} to hand it over; bare bash {bare:?}, so + {over:?}");
    report("a supervised `true`", &measured, "+ 1 ms", over.as_secs_f64() / 0.001);
}

async fn one_task(ws: &mut Ws, n: usize, line: &str) -> Duration {
    let id = format!("t{n}");
    let start = Instant::now();
    ws.say("task.request", json!({ "task_id": id, "operation": "bash", "args": { "command": line } })).await;
    ws.result_of(&id).await;
    start.elapsed()
}

pub(crate) async fn task() {
    let rules = [("*", "deny"), ("true", "allow"), ("for *", "allow")];
    let (_dir, _runner, mut ws) = connected(&rules, &[]).await;
    let (mut bare, mut printed, mut checked) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..200 {
        let start = Instant::now();
        Command::new("/bin/bash").args(["--noprofile", "--norc", "-c", "true"]).status().unwrap();
        bare.push(start.elapsed());
        printed.push(one_task(&mut ws, n * 2, "true").await);
        checked.push(one_task(&mut ws, n * 2 + 1, "if true; then true; fi").await);
    }
    let (bare, printed, checked) = (median(bare), median(printed), median(checked));
    for (what, took, more) in [("reprinted", printed, 1.5), ("checked by bash -n", checked, 3.0)] {
        let over = took.saturating_sub(bare);
        let measured = format!("{took:?}, bare bash {bare:?}, so + {over:?}");
        report(
            &format!("bash task of `true`, {what}"),
            &measured,
            &format!("+ {more} ms"),
            over.as_secs_f64() / (more / 1000.0),
        );
    }
}

pub(crate) async fn reads() {
    const IN_FLIGHT: usize = 64;
    const READS: usize = 60_000;
    let (dir, _runner, ws) = connected(ALLOW_ALL, &[]).await;
    std::fs::write(dir.path().join("ws/f"), vec![b'x'; 1024]).unwrap();
    let (mut sink, mut stream) = ws.socket.split();
    let request = |n: usize| {
        Message::text(format!(
            r#"{{"id":"m","type":"task.request","payload":{{"task_id":"t{n}","operation":"read","args":{{"path":"f"}}}},"timestamp":1}}"#
        ))
    };
    let start = Instant::now();
    for n in 0..IN_FLIGHT {
        sink.feed(request(n)).await.unwrap();
    }
    sink.flush().await.unwrap();
    let (mut sent, mut done) = (IN_FLIGHT, 0);
    while done < READS {
        let Some(Ok(Message::Text(text))) = stream.next().await else { continue };
        assert!(text.as_str().contains("\"total_size\":1024") || text.as_str().contains("heartbeat"));
        done += 1;
        if sent < READS {
            sink.feed(request(sent)).await.unwrap();
            sent += 1;
            if done % 16 == 0 {
                sink.flush().await.unwrap();
            }
        } else {
            sink.flush().await.unwrap();
        }
    }
    let rate = READS as f64 / start.elapsed().as_secs_f64();
    report("1 KiB reads, 64 in flight", &format!("{rate:.0}/s"), "20000/s", 20_000.0 / rate);
}

pub(crate) async fn output() {
    let (_dir, runner, mut ws) = connected(ALLOW_ALL, &["output", "ack", "outcome"]).await;
    let start = Instant::now();
    ws.say("task.request", json!({ "task_id": "t", "operation": "bash", "args": { "command": "head -c 300000000 /dev/zero | tr '\\0' x" } })).await;
    let mut bytes = 0;
    loop {
        let message = ws.next().await.unwrap();
        match message["type"].as_str().unwrap() {
            "task.output" => bytes += message["payload"]["data"].as_str().unwrap().len(),
            "task.result" => break,
            _ => {}
        }
    }
    assert_eq!(bytes, 300_000_000);
    let peak = memory(runner.pid()).1;
    let rate = 300.0 / start.elapsed().as_secs_f64();
    let measured = format!("{peak} KiB peak RSS, {rate:.0} MB/s");
    report("300 MB of output, streamed and stored", &measured, "64 MiB", peak as f64 / (64.0 * 1024.0));
}
