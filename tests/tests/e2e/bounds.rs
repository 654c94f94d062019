//! What clients and runners can make the hub hold.

use std::time::Duration;

use legwork_e2e::ws::Ws;
use legwork_e2e::{Hub, Pair, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends the head of a request whose body would be large, and none of it; returns the answer's status.
async fn head_only(hub: &Hub, head: &str) -> String {
    let mut tcp = TcpStream::connect(hub.address()).await.unwrap();
    let text =
        format!("{head}\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: 41943040\r\n\r\n");
    tcp.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0u8; 256];
    let read = tokio::time::timeout(Duration::from_secs(10), tcp.read(&mut answer)).await;
    let len = read.expect("it is answered before the body is there").unwrap();
    let text = String::from_utf8_lossy(&answer[..len]).into_owned();
    text.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn nobody_s_body_is_read_before_it_is_known_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    for path in [
        "POST /internal/runners/register",
        "POST /internal/runners/register?key=wrong",
        "POST /internal/tasks/1/stream?key=wrong",
        "POST /internal/tasks/1/complete",
        "POST /internal/agent/messages",
        "PATCH /internal/agent/messages/x",
        "POST /internal/agent/messages/x/parts",
        "POST /api/v1/tasks",
        "POST /api/v1/pods/tasks",
        "POST /api/v1/tokens",
        "POST /api/v1/enroll",
    ] {
        let status = head_only(&hub, &format!("{path} HTTP/1.1")).await;
        assert!(status == "401" || status == "400", "{path}: {status}");
    }
    let viewer = hub.api().post("/tokens", json!({ "name": "v", "role": "viewer" })).await.1;
    let viewer = viewer["token"].as_str().unwrap();
    let status =
        head_only(&hub, &format!("POST /api/v1/tasks HTTP/1.1\r\nAuthorization: Bearer {viewer}")).await;
    assert_eq!(status, "403");
    // What is no task is small.
    let admin = &hub.admin;
    let status =
        head_only(&hub, &format!("POST /api/v1/tokens HTTP/1.1\r\nAuthorization: Bearer {admin}")).await;
    assert_eq!(status, "413");
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test]
async fn queued_tasks_hold_no_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let api = hub.api();
    hub.runner_token("away").await;
    let before = open_files(hub.pid());
    for _ in 0..300 {
        api.bash("away", "true").await;
    }
    assert!(open_files(hub.pid()) < before + 50, "{before} before, {} after", open_files(hub.pid()));
    let hub = hub.crash_and_restart().await;
    assert!(open_files(hub.pid()) < before + 50);
    assert_eq!(hub.api().get("/runners/away").await.1["open_runs"], 300);
}

#[tokio::test]
async fn lists_show_what_was_asked_and_not_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let api = hub.api();
    hub.runner_token("away").await;
    let content = "QUJD".repeat(500_000);
    let mut ids = Vec::new();
    for n in 0..3 {
        let body = json!({ "select": { "runner": "away" }, "operation": "write", "args": { "path": format!("f{n}"), "content": content } });
        let (status, task) = api.post("/tasks", body).await;
        assert_eq!(status, 202);
        ids.push(task["id"].as_str().unwrap().to_owned());
    }
    for hub in [hub.crash_and_restart().await] {
        let api = hub.api();
        let (_, list) = api.get("/tasks").await;
        assert!(list.to_string().len() < 20_000, "{} bytes", list.to_string().len());
        assert_eq!(list["items"][0]["args"]["path"], "f2");
        let (_, filtered) = api.get("/tasks?runner=away&limit=2").await;
        assert_eq!((filtered["items"].as_array().unwrap().len(), &filtered["next"]), (2, &json!(ids[1])));
        let (_, rest) = api.get(&format!("/tasks?runner=away&limit=2&cursor={}", ids[1])).await;
        assert_eq!(rest["items"].as_array().unwrap().len(), 1);
        let (_, whole) = api.get(&format!("/tasks/{}", ids[0])).await;
        assert_eq!(whole["args"]["content"].as_str().unwrap().len(), content.len());
    }
}

#[tokio::test]
async fn a_large_config_of_a_pod_is_in_no_list_and_reaches_its_runner() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let prompt = "x".repeat(1 << 20);
    let config = json!({ "type": "agent", "prompt": prompt });
    let (status, task) = hub.api().post("/pods/tasks", json!({ "config": config })).await;
    assert_eq!(status, 202, "{}", task["detail"]);
    let hub = hub.crash_and_restart().await;
    let api = hub.api();
    let (_, list) = api.get("/pods/tasks").await;
    assert!(
        list["items"][0]["id"] == task["id"] && list.to_string().len() < 5_000,
        "{}",
        list.to_string().len()
    );
    let (_, whole) = api.get(&format!("/pods/tasks/{}", task["id"])).await;
    assert_eq!(whole["config"]["prompt"], json!(prompt));
    let (_, registration) = api.get("/pods/registration").await;
    let url = format!("{}{}", hub.url, registration["path"].as_str().unwrap());
    let said = json!({ "pod_name": "p1", "pod_ip": "127.0.0.1" });
    let given: Value = api.http.post(url).json(&said).send().await.unwrap().json().await.unwrap();
    assert_eq!(given["task"]["config"]["prompt"], json!(prompt));
}

#[tokio::test]
async fn a_large_payload_reaches_every_runner_whole() {
    let pair = Pair::start().await;
    let token = pair.hub.runner_token("r2").await;
    let second = legwork_e2e::Runner::start(
        &pair.dir.path().join("r2"),
        &pair.hub.address(),
        &token,
        legwork_e2e::ALLOW_ALL,
    )
    .await;
    until("the second connects", || pair.api.is_online("r2")).await;
    let content = "QUJD".repeat(2_000_000);
    let body = json!({ "select": { "labels": ["os:linux"], "count": "all" }, "operation": "write",
        "args": { "path": "large", "content": content } });
    let (status, task) = pair.api.post("/tasks", body).await;
    assert_eq!(status, 202);
    assert_eq!(pair.api.end(task["id"].as_str().unwrap()).await["state"], "succeeded");
    for runner in [&pair.runner, &second] {
        assert_eq!(std::fs::metadata(runner.workspace.join("large")).unwrap().len(), 6_000_000);
    }
}

#[tokio::test]
async fn what_a_runner_says_of_itself_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let api = hub.api();
    let secret = hub.runner_token("r1").await;
    let mut ws = Ws::connect(&hub.address(), &format!("/runner/ws?token={secret}"), &[]).await.unwrap();
    ws.next_of("welcome").await;
    let long = "x".repeat(2 << 20);
    let mut labels: Vec<Value> = vec![json!(long), json!("role:db")];
    labels.extend((0..5000).map(|n| json!(format!("n:{n}"))));
    ws.say("heartbeat", json!({ "version": long, "labels": labels, "environment": { "hostname": long } }))
        .await;
    until("it is there", || async { api.get("/runners/r1").await.1["labels"][0] == "role:db" }).await;
    let (_, shown) = api.get("/runners").await;
    assert!(shown.to_string().len() < 30_000, "{}", shown.to_string().len());
    let listed = legwork_e2e::legwork(dir.path())
        .arg("runners")
        .env("LEGWORK_HUB_URL", &hub.url)
        .env("LEGWORK_TOKEN", &hub.admin)
        .output()
        .await
        .unwrap();
    assert!(listed.status.success() && listed.stderr.is_empty(), "{listed:?}");
    // Its reasons as well.
    let id = api.bash("r1", "true").await;
    let run = ws.next_of("task.request").await["payload"]["task_id"].clone();
    ws.say("task.result", json!({ "task_id": run, "success": false, "error": long })).await;
    let error = api.end(&id).await["runs"][0]["error"].as_str().unwrap().len();
    assert!(error < 20_000, "{error}");
}

#[tokio::test]
async fn output_beyond_what_is_kept_is_cut_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start_with(&dir.path().join("hub"), "127.0.0.1:0", &["--max-output", "100000"]).await;
    let api = hub.api();
    let token = hub.runner_token("r1").await;
    let home = dir.path().join("r1");
    let _runner = legwork_e2e::Runner::start(&home, &hub.address(), &token, legwork_e2e::ALLOW_ALL).await;
    until("it is there", || api.is_online("r1")).await;
    let id = api.bash("r1", "yes | head -c 3000000").await;
    assert_eq!(api.end(&id).await["state"], "succeeded");
    let events = api.events(&id, None, 1_000_000).await;
    let kept: usize = events
        .iter()
        .filter(|(_, kind, _)| kind == "output")
        .map(|(_, _, d)| d["data"].as_str().unwrap().len())
        .sum();
    let gaps: Vec<&Value> = events.iter().filter(|(_, kind, _)| kind == "gap").map(|(_, _, d)| d).collect();
    assert_eq!((kept, gaps.len()), (100_000, 1), "{gaps:?}");
    assert_eq!((&gaps[0]["from"], &gaps[0]["stream"]), (&json!(100_000), &json!("stdout")));
    let logs = legwork_e2e::legwork(dir.path())
        .args(["logs", &id])
        .env("LEGWORK_HUB_URL", &hub.url)
        .env("LEGWORK_TOKEN", &hub.admin)
        .output()
        .await
        .unwrap();
    assert_eq!(logs.stdout.len(), 100_000);
    assert!(String::from_utf8_lossy(&logs.stderr).contains("stdout is missing from byte 100000"), "{logs:?}");
}

#[tokio::test]
async fn old_tasks_are_forgotten_with_their_events_and_open_ones_stay() {
    let pair = Pair::start().await;
    pair.hub.runner_token("away").await;
    // So much has a file of its own.
    let over = pair.api.bash("r1", "seq 20000").await;
    pair.api.end(&over).await;
    let open = pair.api.bash("away", "echo x").await;
    let (data, address) = (pair.hub.data.clone(), pair.hub.address());
    pair.hub.kill().await;
    let file = data.join("events").join(&over[over.len() - 2..]).join(&over);
    assert!(file.is_file());
    let hub = Hub::start_with(&data, &address, &["--keep-bytes", "1"]).await;
    let api = hub.api();
    until("it is forgotten", || async { api.get(&format!("/tasks/{over}")).await.0 == 404 }).await;
    until("its file, too", || async { !file.exists() }).await;
    assert_eq!(api.get(&format!("/tasks/{open}")).await.1["state"], "queued");
}
