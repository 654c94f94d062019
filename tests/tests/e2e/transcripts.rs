//! The example transcripts, replayed in both roles.

use std::collections::HashMap;

use futures_util::{SinkExt, StreamExt};
use legwork_e2e::ws::Ws;
use legwork_e2e::{Hub, Runner, until};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

fn case(name: &str) -> Vec<Value> {
    include_str!("../../fixtures/dialout.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|entry: &Value| entry["case"] == name)
        .collect()
}

fn rules(meta: &Value) -> Vec<(String, String)> {
    meta["rules"]
        .as_object()
        .map(|rules| rules.iter().map(|(p, a)| (p.clone(), a.as_str().unwrap().to_owned())).collect())
        .unwrap_or_default()
}

/// Masks what is illustrative, in both texts alike: ids, times, sizes of folders,
/// names of stored output, and what may be added (§16).
fn comparable(message: &Value, root: &str) -> Value {
    let mut payload = message["payload"].clone();
    if let Some(object) = payload.as_object_mut() {
        for added in ["metrics", "features", "boot_id", "environment"] {
            object.remove(added);
        }
        if message["type"] == "heartbeat" {
            object.remove("version");
        }
    }
    for entry in payload["result"]["entries"].as_array_mut().into_iter().flatten() {
        if entry["is_dir"] == true {
            entry["size"] = json!(0);
        }
    }
    let mut text = payload.to_string().replace(root, "/srv/ws");
    while let Some(start) = text.find(".work/outputs/bash_") {
        let end = start + text[start..].find(".txt").unwrap() + 4;
        text.replace_range(start..end, "STORED");
    }
    json!({ "type": message["type"], "payload": serde_json::from_str::<Value>(&text).unwrap() })
}

fn rules_of(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(p, a)| (p.as_str(), a.as_str())).collect()
}

#[tokio::test]
async fn our_runner_says_what_the_original_says() {
    let entries = case("compat");
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/safari/worknode/ws", listener.local_addr().unwrap());
    let pairs = rules(&entries[0]);
    // JSON objects are unordered here: the star goes first, as in the transcript.
    let mut ordered: Vec<(&str, &str)> = rules_of(&pairs);
    ordered.sort_by_key(|(pattern, _)| *pattern != "*");
    // The transcript's MCP server is found in the operator's PATH.
    std::fs::create_dir(home.join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_test-mcp"), home.join("bin/inv-mcp")).unwrap();
    Runner::configure(&home, &url, "wnt_example", &ordered, "token_in: query");
    let mut runner = Runner::again(&home).await;
    let root = home.join("ws").display().to_string();
    let mut ws = Ws::accept(&listener, None).await;
    assert_eq!(ws.target, "/safari/worknode/ws?token=wnt_example");
    for entry in &entries {
        if entry.get("ws").is_none() {
            continue;
        }
        let from_hub = entry["dir"] == "hub->runner";
        match (entry["ws"].as_str().unwrap(), from_hub) {
            ("text", true) => {
                // The transcript waits between a task and its cancel.
                if entry["msg"]["type"] == "task.cancel" {
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                }
                ws.send(&entry["msg"]).await;
            }
            ("text", false) => {
                let is_first = entry["msg"]["payload"].get("environment").is_some();
                if entry["msg"]["type"] == "heartbeat" && !is_first {
                    continue; // half a minute later
                }
                let got = ws.next_of(entry["msg"]["type"].as_str().unwrap()).await;
                assert_eq!(comparable(&got, &root), comparable(&entry["msg"], &root));
                if is_first {
                    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
                    assert_eq!(
                        keys(&got["payload"]["environment"]),
                        keys(&entry["msg"]["payload"]["environment"])
                    );
                }
            }
            ("ping", true) => {
                ws.socket
                    .send(Message::Ping(entry["data"].as_str().unwrap().as_bytes().to_vec().into()))
                    .await
                    .unwrap();
                loop {
                    if let Message::Pong(data) = ws.socket.next().await.unwrap().unwrap() {
                        assert_eq!(data, entry["data"].as_str().unwrap().as_bytes());
                        break;
                    }
                }
            }
            ("close", false) => {
                let stopping = runner.stop(rustix::process::Signal::TERM);
                let closing = async {
                    loop {
                        if let Some(Ok(Message::Close(frame))) = ws.socket.next().await {
                            return u16::from(frame.unwrap().code);
                        }
                    }
                };
                let (status, code) = tokio::join!(stopping, closing);
                assert_eq!((status, code), (0, 1000));
                return;
            }
            _ => {}
        }
    }
    panic!("the transcript ends with a close");
}

#[tokio::test]
async fn our_runner_speaks_the_api_key_generation() {
    let entries = case("api-key");
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(home.join(".flashduty-runner")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // The original's own file, environment and generation.
    let config = format!(
        "api_key: fk_example\nAPI_url: ws://{}/runner/ws\nname: edge-2\nlabels: [k8s]\nworkspace_root: {}\nunknown_key: 1\n",
        listener.local_addr().unwrap(),
        home.join("ws").display()
    );
    std::fs::write(home.join(".flashduty-runner/config.yaml"), config).unwrap();
    let _runner = Runner::again(&home).await;
    let mut ws = Ws::accept(&listener, Some("wn_90")).await;
    assert_eq!(ws.target, "/runner/ws");
    assert_eq!(ws.header("FD-API-KEY"), Some("fk_example"));
    assert_eq!(ws.header("X-Worknode-Name"), Some("edge-2"));
    for name in ["X-Worknode-Version", "X-Worknode-OS", "X-Worknode-Arch"] {
        assert!(ws.header(name).is_some_and(|v| !v.is_empty()), "{name}");
    }
    ws.send(&entries[3]["msg"]).await;
    let heartbeat = ws.next_of("heartbeat").await;
    assert_eq!(heartbeat["payload"]["worknode_id"], "wn_90");
    assert_eq!(heartbeat["payload"]["name"], "edge-2");
    let labels: Vec<&str> =
        heartbeat["payload"]["labels"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert_eq!(labels[0], "k8s");
    assert!(
        labels[1].starts_with("os:") && labels[2].starts_with("arch:") && labels[3].starts_with("hostname:")
    );
    assert_eq!(labels.len(), 4);
}

#[tokio::test]
async fn our_runner_streams_and_waits_for_its_acknowledgement() {
    let entries = case("legwork");
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/runner/ws", listener.local_addr().unwrap());
    let _runner = Runner::start_with(&home, &url, "t", &[("*", "allow")], "").await;
    let mut ws = Ws::accept(&listener, None).await;
    assert_eq!(ws.header("Authorization"), Some("Bearer t"));
    assert_eq!(ws.target, "/runner/ws");
    let mut result_id = String::new();
    for entry in &entries[1..] {
        if entry["dir"] == "hub->runner" {
            let mut message = entry["msg"].clone();
            if message["type"] == "ack" {
                message["payload"]["id"] = json!(result_id);
            }
            ws.send(&message).await;
            continue;
        }
        let got = loop {
            let message = ws.next().await.unwrap();
            if message["type"] != "task.accepted" {
                break message;
            }
        };
        if got["type"] == "heartbeat" {
            assert_eq!(got["payload"]["features"], json!(["output", "ack", "outcome", "approval"]));
            continue;
        }
        assert_eq!(comparable(&got, "-"), comparable(&entry["msg"], "-"));
        result_id = got["id"].as_str().unwrap().to_owned();
    }
    // Acknowledged: the next connection does not bring it again.
    drop(ws);
    let mut ws = Ws::accept(&listener, None).await;
    ws.send(&entries[1]["msg"]).await;
    ws.next_of("heartbeat").await;
    ws.say("task.request", json!({ "task_id": "after", "operation": "read", "args": { "path": "none" } }))
        .await;
    let next = ws.next_of("task.result").await;
    assert_eq!(next["payload"]["task_id"], "after");
}

#[tokio::test]
async fn our_hub_serves_an_original_runner() {
    let entries = case("compat");
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let token = hub.runner_token("db-1").await;
    let api = hub.api();
    let mut ws =
        Ws::connect(&hub.address(), &format!("/safari/worknode/ws?token={token}"), &[]).await.unwrap();
    let welcome = ws.next().await.unwrap();
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(welcome["payload"]["name"], "db-1");
    let mut tasks: HashMap<String, (String, String)> = HashMap::new();
    for entry in entries.iter().filter(|e| e["ws"] == "text") {
        let message = &entry["msg"];
        let transcript_id = message["payload"]["task_id"].as_str().unwrap_or_default().to_owned();
        match (message["type"].as_str().unwrap(), entry["dir"].as_str().unwrap()) {
            ("heartbeat", _) => {
                ws.send(message).await;
                until("the runner is online", || api.is_online("db-1")).await;
                until("its labels are known", || async {
                    let runner = api.get("/runners/db-1").await.1;
                    runner["labels"].as_array().unwrap().contains(&json!("os:linux"))
                })
                .await;
            }
            ("task.request", _) => {
                let payload = &message["payload"];
                let body = json!({
                    "select": { "runner": "db-1" }, "operation": payload["operation"], "args": payload["args"],
                });
                let (status, task) = api.post("/tasks", body).await;
                // What is wrong on its face is refused before any runner sees it.
                if ["t8", "t15", "t19", "t20", "t23"].contains(&transcript_id.as_str()) {
                    assert_eq!(status, 422, "{task}");
                    continue;
                }
                assert_eq!(status, 202, "{task}");
                let request = ws.next_of("task.request").await;
                assert_eq!(request["payload"]["operation"], payload["operation"]);
                for (key, value) in payload["args"].as_object().unwrap() {
                    assert_eq!(&request["payload"]["args"][key], value);
                }
                let run = request["payload"]["task_id"].as_str().unwrap().to_owned();
                tasks.insert(transcript_id, (task["id"].as_str().unwrap().to_owned(), run));
            }
            ("task.cancel", _) => {
                let (id, run) = &tasks[&transcript_id];
                if api.get(&format!("/tasks/{id}")).await.1["state"] == "cancelled" {
                    continue;
                }
                api.post(&format!("/tasks/{id}/cancel"), json!({})).await;
                let cancel = ws.next_of("task.cancel").await;
                assert_eq!(&cancel["payload"]["task_id"], run);
            }
            ("task.result", _) => {
                let Some((id, run)) = tasks.get(&transcript_id) else { continue };
                let mut message = message.clone();
                message["payload"]["task_id"] = json!(run);
                ws.send(&message).await;
                let task = api.end(id).await;
                let got = &task["runs"][0];
                let payload = &message["payload"];
                let want = match transcript_id.as_str() {
                    "t13" => "failed",
                    "t14" => "denied",
                    "t17" => "timed_out",
                    "t18" => "cancelled",
                    _ if payload["success"] == true => "succeeded",
                    _ => "failed",
                };
                assert_eq!(got["state"], want, "{transcript_id}: {task}");
                assert_eq!(got["result"], payload["result"]);
                assert_eq!(got["error"], payload["error"]);
                if payload["result"].get("exit_code").is_some() {
                    assert_eq!(got["exit_code"], payload["result"]["exit_code"]);
                }
            }
            _ => {}
        }
    }
    assert!(tasks.len() > 14, "only {} tasks were replayed", tasks.len());
}

#[tokio::test]
async fn our_hub_serves_the_api_key_generation_and_a_legwork_runner() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let token = hub.runner_token("by-key").await;
    let api = hub.api();
    let headers = [("FD-API-KEY", token.as_str()), ("X-Worknode-Name", "edge-2")];
    let mut ws = Ws::connect(&hub.address(), "/runner/ws", &headers).await.unwrap();
    let id = ws.header("X-Worknode-ID").unwrap().to_owned();
    let welcome = ws.next().await.unwrap();
    assert_eq!((&welcome["type"], &welcome["worknode_id"]), (&json!("welcome"), &json!(id)));

    let entries = case("legwork");
    let heartbeat = &entries[2]["msg"];
    ws.send(heartbeat).await;
    until("it is online", || api.is_online("edge-2")).await;
    let task = api.bash("edge-2", "echo one; sleep 1; echo two >&2").await;
    let request = ws.next_of("task.request").await;
    let run = request["payload"]["task_id"].clone();
    ws.say("task.accepted", json!({ "task_id": run })).await;
    for entry in &entries[4..7] {
        let mut message = entry["msg"].clone();
        message["payload"]["task_id"] = run.clone();
        ws.send(&message).await;
    }
    let ack = ws.next_of("ack").await;
    assert_eq!(ack["payload"]["id"], entries[6]["msg"]["id"]);
    let end = api.end(&task).await;
    assert_eq!(end["runs"][0]["state"], "succeeded");
    let events = api.events(&task, None, 100).await;
    let kinds: Vec<String> = events
        .iter()
        .map(|(_, kind, data)| match kind.as_str() {
            "state" => data["state"].as_str().unwrap().to_owned(),
            "output" => format!("{}:{}", data["stream"].as_str().unwrap(), data["data"].as_str().unwrap()),
            other => other.to_owned(),
        })
        .collect();
    let want =
        ["queued", "delivered", "accepted", "running", "stdout:one\n", "stderr:two\n", "succeeded", "end"];
    assert_eq!(kinds, want);
}
