//! Who may what, and for how long; who is called what.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use legwork_e2e::ws::Ws;
use legwork_e2e::{ALLOW_ALL, Api, Hub, Pair, Runner, legwork, until};
use serde_json::{Value, json};

/// Long for what is to end within a second, on a machine that is busy.
const SOON: Duration = Duration::from_secs(15);

async fn token(api: &Api, name: &str, role: &str) -> (String, String) {
    let (status, made) = api.post("/tokens", json!({ "name": name, "role": role })).await;
    assert_eq!(status, 201, "{made}");
    (made["id"].as_str().unwrap().into(), made["token"].as_str().unwrap().into())
}

/// Connects as a runner of the API key generation, and says that it is there.
async fn join(hub: &Hub, secret: &str, name: &str) -> Result<Ws, u16> {
    let headers = [("FD-API-KEY", secret), ("X-Worknode-Name", name)];
    let mut ws = Ws::connect(&hub.address(), "/runner/ws", &headers).await?;
    ws.next_of("welcome").await;
    ws.say("heartbeat", json!({ "name": name, "labels": ["kind:fake"], "version": "1", "environment": {} }))
        .await;
    Ok(ws)
}

#[tokio::test]
async fn a_revoked_token_leaves_no_stream_and_no_wait_behind() {
    let pair = Pair::start().await;
    let (id, secret) = token(&pair.api, "alice", "operator").await;
    let alice = Api::new(&pair.hub.url, &secret);
    let task = alice.bash("r1", "sleep 60").await;
    let get =
        |path: String| alice.http.get(format!("{}/api/v1{path}", pair.hub.url)).bearer_auth(&secret).send();
    let mut stream = get(format!("/tasks/{task}/events")).await.unwrap().bytes_stream();
    assert!(stream.next().await.unwrap().is_ok());
    let waiting = tokio::spawn(get(format!("/tasks/{task}?wait_s=60")));
    // It is under way when somebody else sees the task.
    until("it runs", || async { pair.api.get(&format!("/tasks/{task}")).await.1["state"] == "running" })
        .await;
    assert_eq!(pair.api.send("DELETE", &format!("/tokens/{id}"), None).await.0, 204);
    let ended = Instant::now();
    let drained = async { while let Some(Ok(_)) = stream.next().await {} };
    tokio::time::timeout(SOON, drained).await.expect("the stream ends");
    let answer = tokio::time::timeout(SOON, waiting).await.expect("the wait ends").unwrap().unwrap();
    assert_eq!(answer.status().as_u16(), 401);
    assert!(ended.elapsed() < SOON);
    pair.api.post(&format!("/tasks/{task}/cancel"), json!({})).await;
}

#[tokio::test]
async fn a_revoked_runner_takes_no_tasks_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let api = hub.api();
    let (id, secret) = token(&api, "r1", "runner").await;
    let mut ws = join(&hub, &secret, "r1").await.unwrap();
    until("it is there", || async { api.get("/runners/r1").await.1["labels"][0] == "kind:fake" }).await;
    let running = api.bash("r1", "sleep 60").await;
    ws.next_of("task.request").await;
    assert_eq!(api.send("DELETE", &format!("/tokens/{id}"), None).await.0, 204);
    let gone = async { while ws.next().await.is_some() {} };
    tokio::time::timeout(SOON, gone).await.expect("the connection ends");
    assert_eq!(join(&hub, &secret, "r1").await.err(), Some(403));
    let task = api.end(&running).await;
    assert_eq!(task["state"], "lost", "{task}");
    assert!(task["runs"][0]["error"].as_str().unwrap().contains("revoked"), "{task}");
    let body = json!({ "select": { "runner": "r1" }, "operation": "bash", "args": { "command": "true" } });
    let (status, problem) = api.post("/tasks", body).await;
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("credential"), "{problem}");
    // After a restart as well.
    let hub = hub.crash_and_restart().await;
    assert_eq!(hub.api().get("/runners/r1").await.1["status"], "revoked");
}

#[tokio::test]
async fn a_token_that_expires_ends_what_hangs_on_it() {
    let pair = Pair::start().await;
    let (status, made) =
        pair.api.post("/tokens", json!({ "name": "short", "role": "viewer", "expires_s": 2 })).await;
    assert_eq!(status, 201, "{made}");
    let secret = made["token"].as_str().unwrap();
    let short = Api::new(&pair.hub.url, secret);
    let task = pair.api.bash("r1", "sleep 60").await;
    let url = format!("{}/api/v1/tasks/{task}/events", pair.hub.url);
    let mut stream = short.http.get(url).bearer_auth(secret).send().await.unwrap().bytes_stream();
    let drained = async { while let Some(Ok(_)) = stream.next().await {} };
    tokio::time::timeout(SOON, drained).await.expect("the stream ends");
    assert_eq!(short.get("/me").await.0, 401);
    let (status, _) =
        pair.api.post("/tokens", json!({ "name": "x", "role": "viewer", "expires_s": 0 })).await;
    assert_eq!(status, 422);
    pair.api.post(&format!("/tasks/{task}/cancel"), json!({})).await;
}

#[tokio::test]
async fn nobody_gets_the_tasks_of_a_name_that_is_another_s() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let api = hub.api();
    let (db1, secret) = token(&api, "db1", "runner").await;
    let (_, other) = token(&api, "other", "runner").await;
    // It is away, and has never been there.
    assert_eq!(join(&hub, &other, "db1").await.err(), Some(409));
    let mut right = join(&hub, &secret, "db1").await.unwrap();
    assert_eq!(join(&hub, &other, "db1").await.err(), Some(409));
    // It calls itself something else: the name it was made for stays its own.
    drop(right);
    right = loop {
        match join(&hub, &secret, "box").await {
            Ok(ws) => break ws,
            Err(409) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(status) => panic!("{status}"),
        }
    };
    assert_eq!(join(&hub, &other, "db1").await.err(), Some(409));
    assert_eq!(join(&hub, &other, "box").await.err(), Some(409));
    until("it is called box", || async { api.get("/runners/box").await.0 == 200 }).await;
    let task = api.bash("db1", "true").await;
    assert_eq!(
        right.next_of("task.request").await["payload"]["task_id"],
        api.get(&format!("/tasks/{task}")).await.1["runs"][0]["id"]
    );
    // No second one is made for it, by whatever door.
    for name in ["db1", "box"] {
        assert_eq!(api.post("/tokens", json!({ "name": name, "role": "runner" })).await.0, 409, "{name}");
    }
    let (_, enrolment) = token(&api, "web-1", "enroll").await;
    let enrolling = Api::new(&hub.url, &enrolment);
    assert_eq!(enrolling.post("/enroll", json!({ "name": "db1" })).await.0, 409);
    // That did not cost the enrolment.
    assert_eq!(enrolling.post("/enroll", json!({})).await.1["name"], "web-1");
    // Who is revoked has no name any more.
    assert_eq!(api.send("DELETE", &format!("/tokens/{db1}"), None).await.0, 204);
    let (_, anew) = token(&api, "db1", "runner").await;
    assert!(join(&hub, &anew, "db1").await.is_ok());
}

#[tokio::test]
async fn the_last_admin_token_stays_and_the_machine_is_the_way_back_in() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("hub");
    let hub = Hub::start(&data).await;
    let api = hub.api();
    let me = api.get("/me").await.1["id"].as_str().unwrap().to_owned();
    // One that ends by itself is no other way in.
    let (status, _) = api.post("/tokens", json!({ "name": "x", "role": "admin", "expires_s": 60 })).await;
    assert_eq!(status, 201);
    let (status, problem) = api.send("DELETE", &format!("/tokens/{me}"), None).await;
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("last admin token"), "{problem}");
    let make = async || {
        let output = legwork(dir.path()).args(["hub", "token", "--data"]).arg(&data).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    // The hub runs.
    let second = Api::new(&hub.url, &make().await);
    until("the hub takes it in", || async { second.get("/me").await.0 == 200 }).await;
    assert_eq!(second.send("DELETE", &format!("/tokens/{me}"), None).await.0, 204);
    assert_eq!(api.get("/me").await.0, 401);
    // The hub is down: it takes it in at its start.
    let (address, data) = (hub.address(), hub.data.clone());
    hub.kill().await;
    let third = make().await;
    let hub = Hub::start_at(&data, &address).await;
    assert_eq!(Api::new(&hub.url, &third).get("/tokens").await.0, 200);
    let nowhere = legwork(dir.path()).args(["hub", "token", "--data", "/nowhere"]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("is no hub's data folder"), "{nowhere:?}");
}

#[tokio::test]
async fn the_audit_says_which_person_token_and_hub_asked() {
    let pair = Pair::start().await;
    let mut made = Vec::new();
    for _ in 0..2 {
        let (id, secret) = token(&pair.api, "alice", "operator").await;
        let api = Api::new(&pair.hub.url, &secret);
        let task = api.bash("r1", "true").await;
        assert_eq!(api.end(&task).await["created_by_token"], json!(id));
        made.push(id);
    }
    let states = std::fs::read_dir(pair.runner.home.join(".local/state/legwork")).unwrap().flatten();
    let audit = states.map(|e| e.path().join("audit.jsonl")).find(|f| f.is_file()).unwrap();
    let hub = std::fs::read_to_string(pair.hub.data.join("hub.id")).unwrap();
    let want: Vec<String> = made.iter().map(|id| format!("alice ({id}) at {}", hub.trim())).collect();
    until("both are written", || async {
        let text = std::fs::read_to_string(&audit).unwrap();
        let records = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let who: Vec<String> = records.map(|r| r["who"].as_str().unwrap().to_owned()).collect();
        who == want
    })
    .await;
}

#[tokio::test]
async fn one_credential_serves_many_machines_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let api = hub.api();
    let (id, secret) = token(&api, "account", "fleet").await;
    let mut a = join(&hub, &secret, "web-1").await.unwrap();
    let mut b = join(&hub, &secret, "web-2").await.unwrap();
    // The same name is the same machine, twice; that it lives is seen by its answering.
    tokio::select! {
        refused = join(&hub, &secret, "web-1") => assert_eq!(refused.err(), Some(409)),
        message = a.next() => panic!("{message:?}"),
    }
    // Without a name there is no telling which it is.
    let nameless = Ws::connect(&hub.address(), "/runner/ws", &[("FD-API-KEY", secret.as_str())]).await;
    assert_eq!(nameless.err(), Some(400));
    for (name, ws) in [("web-1", &mut a), ("web-2", &mut b)] {
        until("it is there", || async { api.get(&format!("/runners/{name}")).await.1["status"] == "online" })
            .await;
        let task = api.bash(name, "true").await;
        let request = ws.next_of("task.request").await["payload"].clone();
        ws.say("task.result", json!({ "task_id": request["task_id"], "success": true, "result": { "stdout": name, "exit_code": 0 } })).await;
        assert_eq!(api.end(&task).await["runs"][0]["result"]["stdout"], name);
    }
    // Ours of the token generation, too: by the configured name, else the host's.
    let home = dir.path().join("ours");
    let url = format!("ws://{}/runner/ws", hub.address());
    let _runner = Runner::start_with(&home, &url, &secret, ALLOW_ALL, "name: web-9").await;
    until("ours is there", || api.is_online("web-9")).await;
    // They are known again after a restart, and end together.
    let before = api.get("/runners/web-1").await.1["id"].clone();
    let hub = hub.crash_and_restart().await;
    let api = hub.api();
    let mut a = join(&hub, &secret, "web-1").await.unwrap();
    assert_eq!(api.get("/runners/web-1").await.1["id"], before);
    assert_eq!(api.send("DELETE", &format!("/tokens/{id}"), None).await.0, 204);
    let gone = async { while a.next().await.is_some() {} };
    tokio::time::timeout(SOON, gone).await.expect("the connection ends");
    assert_eq!(join(&hub, &secret, "web-3").await.err(), Some(403));
}

#[tokio::test]
async fn people_label_drain_and_remove_runners() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let api = hub.api();
    let (_, secret) = token(&api, "r1", "runner").await;
    let cli = async |args: &[&str]| {
        let mut command = legwork(dir.path());
        command.args(args).env("LEGWORK_HUB_URL", &hub.url).env("LEGWORK_TOKEN", &hub.admin);
        let output = command.output().await.unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = cli(&["runners", "set", "r1", "-l", "team:ops", "--display-name", "The first"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(cli(&["runners"]).await.1.contains("r1 (The first)"));
    // The token generation has its labels from the hub.
    let mut ws =
        Ws::connect(&hub.address(), &format!("/safari/worknode/ws?token={secret}"), &[]).await.unwrap();
    assert_eq!(ws.next_of("welcome").await["payload"]["labels"], json!(["team:ops"]));
    ws.say("heartbeat", json!({ "labels": ["team:ops"], "environment": { "os": "linux" } })).await;
    until("it is there", || async { api.get("/runners/r1").await.1["status"] == "online" }).await;
    let submit = |select: Value| {
        let body = json!({ "select": select, "operation": "bash", "args": { "command": "true" } });
        async { api.post("/tasks", body).await }
    };
    assert_eq!(submit(json!({ "labels": ["team:ops", "os:linux"] })).await.0, 202);
    // Drained: what is there goes on, nothing new comes.
    assert_eq!(cli(&["runners", "set", "r1", "--drain"]).await.0, Some(0));
    let (status, problem) = submit(json!({ "runner": "r1" })).await;
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("drained"), "{problem}");
    assert_eq!(submit(json!({ "labels": ["team:ops"], "count": "all" })).await.0, 422);
    assert_eq!(cli(&["runners", "set", "r1", "--undrain", "--no-labels"]).await.0, Some(0));
    assert_eq!(submit(json!({ "labels": ["team:ops"] })).await.0, 422);
    // Away, and never to come back: it can be left out, and be removed.
    drop(ws);
    until("it is away", || async { api.get("/runners/r1").await.1["status"] == "offline" }).await;
    let (status, _) = submit(json!({ "runner": "r1", "online": true })).await;
    assert_eq!(status, 422);
    let (code, said) = cli(&["exec", "-l", "os:linux", "--all", "--online", "--", "true"]).await;
    assert!(code == Some(255) && said.contains("connected"), "{said}");
    let (code, said) = cli(&["exec", "-r", "r1", "--expires", "1", "--", "true"]).await;
    assert!(code == Some(125) && said.contains("expired"), "{code:?} {said}");
    let waits = api.bash("r1", "true").await;
    assert_eq!(cli(&["runners", "remove", "r1"]).await.0, Some(0));
    assert_eq!(api.end(&waits).await["state"], "cancelled");
    assert_eq!(api.get("/runners/r1").await.0, 404);
    assert_eq!(join(&hub, &secret, "r1").await.err(), Some(403));
    let hub = hub.crash_and_restart().await;
    assert_eq!(hub.api().get("/runners").await.1["items"], json!([]));
}

#[tokio::test]
async fn a_machine_is_called_what_its_token_was_made_for() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let (_, enrolment) = token(&hub.api(), "web-1", "enroll").await;
    let home = dir.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    let output = legwork(&home)
        .args(["init", "--hub-url", &hub.url])
        .env("LEGWORK_ENROLL_TOKEN", &enrolment)
        .output()
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("enrolled as web-1"), "{output:?}");
    let _runner = Runner::again(&home).await;
    let api = hub.api();
    until("it is there", || api.is_online("web-1")).await;
    assert_eq!(api.get("/runners").await.1["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn labels_come_by_the_environment_too() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let api = hub.api();
    for (name, variable) in [("r1", "LEGWORK_LABELS"), ("r2", "FLASHDUTY_RUNNER_LABELS")] {
        let home = dir.path().join(name);
        let url = format!("ws://{}/runner/ws", hub.address());
        Runner::configure(&home, &url, &hub.runner_token(name).await, ALLOW_ALL, "labels: [from:file]");
        let mut command = legwork(&home);
        command.arg("run").env(variable, "team:ops, zone:a").stdout(std::process::Stdio::null());
        let mut process = command.spawn().unwrap();
        until("it is there", || api.is_online(name)).await;
        let runner = api.get(&format!("/runners/{name}")).await.1;
        let labels: Vec<&str> =
            runner["labels"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        assert!(labels.contains(&"team:ops") && labels.contains(&"zone:a"), "{labels:?}");
        assert!(!labels.contains(&"from:file"), "{labels:?}");
        process.kill().await.unwrap();
    }
}
