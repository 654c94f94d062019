//! What a hostile or broken peer sends: an error for that task where the protocol
//! has one, and nothing else disturbed.

use futures_util::SinkExt;
use legwork_e2e::ws::Ws;
use legwork_e2e::{Hub, Pair, Runner, until};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn our_runner_survives_a_hostile_hub() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let _runner = Runner::start(&dir.path().canonicalize().unwrap(), &address, "t", &[("*", "allow")]).await;
    let mut ws = Ws::accept(&listener, None).await;
    // Work before any welcome is done all the same.
    ws.say("task.request", json!({ "task_id": "early", "operation": "read", "args": { "path": "none" } }))
        .await;
    ws.say("welcome", json!({ "worknode_id": "w", "name": "n", "labels": null })).await;
    assert_eq!(ws.result_of("early").await["payload"]["success"], false);
    for text in [
        "",
        "nonsense",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{}",
        "{\"type\":7}",
        "{\"type\":\"task.request\"}",
        "{\"type\":\"task.request\",\"payload\":null}",
        "{\"type\":\"task.request\",\"payload\":[1]}",
        "{\"type\":\"task.request\",\"payload\":{\"task_id\":7}}",
        "{\"type\":\"task.cancel\",\"payload\":{}}",
        "{\"type\":\"ack\",\"payload\":{\"id\":\"never sent\"}}",
        "{\"type\":\"from.the.future\",\"payload\":{}}",
        "{\"type\":\"task.resume\",\"payload\":{\"task_id\":\"x\",\"stdout\":-1}}",
        "{\"type\":\"welcome\",\"payload\":\"x\"}",
    ] {
        ws.socket.send(Message::text(text.to_owned())).await.unwrap();
    }
    ws.socket.send(Message::Binary(vec![0xff, 0xfe].into())).await.unwrap();
    ws.socket.send(Message::text("[".repeat(200_000))).await.unwrap();
    ws.socket.send(Message::text(format!("{{\"type\":\"{}\"}}", "x".repeat(5_000_000)))).await.unwrap();
    for (id, operation, args, error) in [
        ("a1", "bash", json!(7), "invalid bash args: "),
        ("a2", "bash", json!({ "command": ["x"] }), "invalid bash args: "),
        ("a3", "bash", json!({ "command": "true", "workdir": "../.." }), "path is outside workspace root"),
        ("a4", "bash", json!({ "command": "true", "workdir": "none" }), "no such file or directory"),
        ("a5", "read", json!({ "path": "x\u{0}y" }), "path is outside workspace root"),
        ("a6", "grep", json!({ "pattern": "(" }), "invalid pattern: "),
        ("a7", "glob", json!({ "pattern": "{" }), "failed to glob: syntax error in pattern"),
        ("a8", "", json!({}), "unknown operation: "),
        ("a9", "bash", json!({ "command": "echo \u{0}" }), "the line holds a NUL byte"),
    ] {
        ws.say("task.request", json!({ "task_id": id, "operation": operation, "args": args })).await;
        let payload = ws.result_of(id).await["payload"].clone();
        assert!(payload["error"].as_str().unwrap().contains(error), "{id}: {payload}");
    }
    // Binary frames are as good as text, hostile ids are only names.
    let id = "../../x; rm -rf / \u{202e}";
    let request = json!({ "type": "task.request", "payload": { "task_id": id, "operation": "bash", "args": { "command": "echo ok" } } });
    ws.socket.send(Message::Binary(request.to_string().into_bytes().into())).await.unwrap();
    assert_eq!(ws.result_of(id).await["payload"]["result"]["stdout"], "ok\n");
}

#[tokio::test]
async fn a_task_delivered_twice_runs_once_and_answers_twice() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let runner = Runner::start(&home, &address, "t", &[("*", "allow")]).await;
    let request =
        json!({ "task_id": "t1", "operation": "bash", "args": { "command": "echo x >> log; sleep 0.5" } });
    let mut ws = Ws::accept(&listener, None).await;
    ws.say("welcome", json!({ "worknode_id": "w", "name": "n", "labels": [] })).await;
    ws.say("task.request", request.clone()).await;
    ws.say("task.request", request.clone()).await;
    let first = ws.result_of("t1").await;
    ws.say("task.request", request.clone()).await;
    assert_eq!(ws.result_of("t1").await, first);
    // The original's hub acknowledges nothing: what was written after its last
    // frame comes once more, with the same id, and then no more.
    ws.say("task.request", json!({ "task_id": "t2", "operation": "bash", "args": { "command": "echo y" } }))
        .await;
    let second = ws.result_of("t2").await;
    drop(ws);
    let mut ws = Ws::accept(&listener, None).await;
    ws.say("welcome", json!({ "worknode_id": "w", "name": "n", "labels": [] })).await;
    assert_eq!(ws.result_of("t2").await["id"], second["id"]);
    drop(ws);
    let mut ws = Ws::accept(&listener, None).await;
    ws.say("welcome", json!({ "worknode_id": "w", "name": "n", "labels": [] })).await;
    ws.say("task.request", json!({ "task_id": "t3", "operation": "read", "args": { "path": "none" } })).await;
    assert_eq!(ws.next_of("task.result").await["payload"]["task_id"], "t3");
    assert_eq!(std::fs::read_to_string(runner.workspace.join("log")).unwrap(), "x\n");
}

#[tokio::test]
async fn a_message_beyond_the_limit_closes_with_1009_and_the_runner_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/runner/ws", listener.local_addr().unwrap());
    let more = "max_message_bytes: 65536";
    let _runner = Runner::start_with(dir.path(), &url, "t", &[("*", "allow")], more).await;
    let mut ws = Ws::accept(&listener, None).await;
    ws.say("welcome", json!({ "worknode_id": "w", "name": "n", "labels": [] })).await;
    ws.socket.send(Message::text("x".repeat(70_000))).await.unwrap();
    let code = loop {
        match futures_util::StreamExt::next(&mut ws.socket).await {
            Some(Ok(Message::Close(frame))) => break u16::from(frame.unwrap().code),
            Some(Ok(_)) => {}
            other => panic!("no close: {other:?}"),
        }
    };
    assert_eq!(code, 1009);
    Ws::accept(&listener, None).await;
}

#[tokio::test]
async fn our_hub_survives_a_hostile_runner() {
    let pair = Pair::start().await;
    let token = pair.hub.runner_token("evil").await;
    let mut ws = Ws::connect(&pair.hub.address(), &format!("/runner/ws?token={token}"), &[]).await.unwrap();
    for text in [
        "",
        "[]",
        "{\"type\":\"heartbeat\",\"payload\":7}",
        "{\"type\":\"task.result\",\"payload\":{}}",
        "\u{0}",
    ] {
        ws.socket.send(Message::text(text.to_owned())).await.unwrap();
    }
    ws.socket.send(Message::Binary(vec![0xff].into())).await.unwrap();
    ws.say("heartbeat", json!({ "labels": null, "features": null, "name": "<script>" })).await;
    until("it is online", || pair.api.is_online("evil")).await;
    // It may not speak for another runner's task.
    let id = pair.api.bash("r1", "sleep 1; echo mine").await;
    let run = pair.api.get(&format!("/tasks/{id}")).await.1["runs"][0]["id"].clone();
    ws.say(
        "task.result",
        json!({ "task_id": run, "success": true, "result": { "stdout": "forged", "exit_code": 0 } }),
    )
    .await;
    ws.say("task.output", json!({ "task_id": run, "stream": "stdout", "data": "forged", "offset": 0 })).await;
    assert_eq!(pair.api.end(&id).await["runs"][0]["result"]["stdout"], "mine\n");
    let streamed = pair.api.events(&id, None, 100).await;
    assert!(!format!("{streamed:?}").contains("forged"));
    // Results of its own tasks: the first wins, gaps are asked for again.
    let id = pair.api.bash("evil", "x").await;
    let request = ws.next_of("task.request").await;
    let run = request["payload"]["task_id"].clone();
    ws.say("task.output", json!({ "task_id": run, "stream": "stdout", "data": "late", "offset": 1000 }))
        .await;
    assert_eq!(
        ws.next_of("task.resume").await["payload"],
        json!({ "task_id": run, "stdout": 0, "stderr": 0 })
    );
    ws.say(
        "task.result",
        json!({ "task_id": run, "success": true, "result": { "stdout": "first", "exit_code": 0 } }),
    )
    .await;
    ws.say("task.result", json!({ "task_id": run, "success": false, "error": "second" })).await;
    assert_eq!(pair.api.end(&id).await["runs"][0]["result"]["stdout"], "first");
    assert_eq!(pair.api.run("r1", "echo fine").await["state"], "succeeded");
}

#[tokio::test]
async fn upgrades_are_answered_as_the_protocol_says() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let token = hub.runner_token("r").await;
    let connect =
        async |target: String| Ws::connect(&hub.address(), &target, &[]).await.map(|_| ()).unwrap_err();
    assert_eq!(connect("/runner/ws".into()).await, 401);
    assert_eq!(connect("/runner/ws?token=wrong".into()).await, 401);
    assert_eq!(connect("/runner/ws?token=a%20b".into()).await, 400);
    assert_eq!(connect(format!("/runner/ws?token={}", hub.admin)).await, 403);
    assert_eq!(connect(format!("/elsewhere/ws?token={token}")).await, 404);
    let plain = hub.api().http.get(format!("{}/runner/ws?token={token}", hub.url)).send().await.unwrap();
    assert_eq!(plain.status().as_u16(), 426);
    // Two of one credential: the older one answers a ping, the newer is refused.
    let mut older = Ws::connect(&hub.address(), &format!("/runner/ws?token={token}"), &[]).await.unwrap();
    older.next_of("welcome").await;
    let reading = tokio::spawn(async move { older.next().await });
    assert_eq!(connect(format!("/runner/ws?token={token}")).await, 409);
    reading.abort();
    let list = hub.api().get("/tokens").await.1;
    let id = list["items"].as_array().unwrap().iter().find(|t| t["name"] == "r").unwrap()["id"].clone();
    hub.api().send("DELETE", &format!("/tokens/{}", id.as_str().unwrap()), None).await;
    assert_eq!(connect(format!("/runner/ws?token={token}")).await, 403);
}

#[tokio::test]
async fn the_policy_holds_from_end_to_end() {
    let rules = [("*", "deny"), ("echo *", "allow"), ("ls *", "allow"), ("cat *", "allow")];
    let pair = Pair::with_rules(&rules).await;
    for (line, part) in [
        ("ls; rm -rf x", "rm -rf x"),
        ("echo $(touch owned)", "touch owned"),
        ("echo x > owned", "> owned"),
        ("PATH=. ls", "PATH=. ls"),
        ("cat <<EOF\n`touch owned`\nEOF", "touch owned"),
        ("echo 'a", "failed to parse"),
    ] {
        let run = pair.api.run("r1", line).await;
        assert_eq!(run["state"], "denied", "{line}: {run}");
        assert!(run["error"].as_str().unwrap().contains(part), "{line}: {run}");
    }
    assert!(!pair.runner.workspace.join("owned").exists());
    // What is allowed runs as judged: quoted words stay words.
    let run = pair.api.run("r1", "echo 'a;b' \"$HOME\" | cat").await;
    let home = pair.runner.home.display().to_string();
    assert_eq!(run["result"]["stdout"], format!("a;b {home}\n"));
}

#[tokio::test]
async fn commands_see_a_clean_environment_and_none_of_our_secrets() {
    let pair = Pair::start().await;
    let run = pair.api.run("r1", "env; cat /proc/$PPID/environ; ls /proc/self/fd | tr '\\n' ' '").await;
    let text = run["result"]["stdout"].as_str().unwrap();
    assert!(text.contains("HOME=") && text.contains("LANG=C.UTF-8"));
    assert!(!text.contains("lwk_") && !text.contains("LEGWORK"), "{text}");
}
