//! Our runner against a hub that does only what the original's is known to do: no
//! features, a late welcome, refusals by status.

use std::time::{Duration, Instant};

use legwork_e2e::Runner;
use legwork_e2e::ws::Ws;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const RULES: &[(&str, &str)] = &[("*", "allow")];

/// Takes one upgrade request and refuses it; returns what was asked.
async fn refuse(listener: &TcpListener, answer: &str) -> String {
    let (mut tcp, _) = tokio::time::timeout(legwork_e2e::DEADLINE, listener.accept()).await.unwrap().unwrap();
    let request = read_head(&mut tcp).await;
    let body = "{\"error\":\"no\"}";
    let text = format!("HTTP/1.1 {answer}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    tcp.write_all(text.as_bytes()).await.unwrap();
    request
}

async fn read_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn start(config: &str) -> (tempfile::TempDir, TcpListener, Runner) {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/safari/worknode/ws?zone=1", listener.local_addr().unwrap());
    let runner = Runner::start_with(dir.path(), &url, "wnt_s3cret", RULES, config).await;
    (dir, listener, runner)
}

#[tokio::test]
async fn a_hub_that_knows_only_the_query_gets_the_token_there_in_the_same_attempt() {
    for status in ["400 Bad Request", "401 Unauthorized"] {
        let (_dir, listener, _runner) = start("").await;
        let first = refuse(&listener, status).await;
        assert!(first.to_lowercase().contains("authorization: bearer wnt_s3cret"), "{first}");
        assert!(!first.lines().next().unwrap().contains("wnt_s3cret"), "{first}");
        let asked = Instant::now();
        let ws = Ws::accept(&listener, None).await;
        assert_eq!(ws.target, "/safari/worknode/ws?zone=1&token=wnt_s3cret");
        assert_eq!(ws.header("authorization"), None);
        assert!(asked.elapsed() < Duration::from_millis(700), "{status}: it waited");
    }
}

#[tokio::test]
async fn retry_after_is_kept_and_a_refused_credential_is_not_tried_again_soon() {
    let (_dir, listener, _runner) = start("token_in: query").await;
    refuse(&listener, "503 Service Unavailable\r\nRetry-After: 3").await;
    let asked = Instant::now();
    refuse(&listener, "401 Unauthorized").await;
    let waited = asked.elapsed();
    assert!((Duration::from_millis(2900)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    // 300 s, of which a test can wait only a few.
    let again = tokio::time::timeout(Duration::from_secs(5), listener.accept()).await;
    assert!(again.is_err(), "it was tried again");
}

#[tokio::test]
async fn a_hub_that_is_late_or_says_nothing_is_served_all_the_same() {
    let (_dir, listener, _runner) = start("token_in: query").await;
    let mut ws = Ws::accept(&listener, None).await;
    // Nothing for 5 s: the runner goes on without a welcome.
    let first = ws.next_of("heartbeat").await;
    assert_eq!((&first["payload"]["worknode_id"], &first["payload"]["labels"]), (&json!(""), &json!([])));
    let bash = |id: &str| json!({ "task_id": id, "operation": "bash", "args": { "command": "echo ok" } });
    ws.say("task.request", bash("t1")).await;
    let result = ws.result_of("t1").await;
    assert_eq!(
        result["payload"]["result"],
        json!({ "stdout": "ok\n", "stderr": "", "exit_code": 0, "total_size": 3 })
    );
    // Nulls for arrays, unknown fields, and a welcome after all.
    ws.say("welcome", json!({ "worknode_id": "wn_7", "name": "late", "labels": null, "new": { "x": 1 } }))
        .await;
    let list = json!({ "task_id": "t2", "operation": "list", "args": { "path": "", "recursive": null, "ignore": null } });
    ws.say("task.request", list).await;
    assert_eq!(ws.result_of("t2").await["payload"]["result"], json!({ "entries": [] }));
    // Nothing of our own was said to who did not offer it.
    for key in ["outcome", "ack"] {
        assert!(result["payload"].get(key).is_none(), "{result}");
    }
}
