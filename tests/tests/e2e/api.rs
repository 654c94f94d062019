//! The hub's REST API, as a client sees it.

use legwork_e2e::{Api, Hub, Pair};
use serde_json::{Value, json};

fn bash(select: Value, command: &str) -> Value {
    json!({ "select": select, "operation": "bash", "args": { "command": command } })
}

#[tokio::test]
async fn bad_submissions_are_refused_with_the_field_and_the_reason() {
    let pair = Pair::start().await;
    let ok = json!({ "runner": "r1" });
    let op = |operation: &str, args: Value| json!({ "select": ok, "operation": operation, "args": args });
    let with = |key: &str, value: Value| {
        let mut body = bash(ok.clone(), "true");
        body[key] = value;
        body
    };
    for (body, field) in [
        (bash(json!({}), "true"), "select"),
        (bash(json!({ "labels": [] }), "true"), "select"),
        (bash(json!({ "labels": ["no:such"] }), "true"), "select"),
        (bash(json!({ "runner": "nobody" }), "true"), "select"),
        (bash(json!({ "runner": "r1", "count": -1 }), "true"), "select.count"),
        (bash(json!({ "runner": "r1", "count": 0 }), "true"), "select.count"),
        (bash(json!({ "runner": "r1", "count": 2 }), "true"), "select.count"),
        (bash(json!({ "runner": "r1", "count": "some" }), "true"), "select.count"),
        (bash(ok.clone(), "  "), "args.command"),
        (op("bash", json!({ "command": 7 })), "args"),
        (op("bash", json!({ "command": "true", "shell": "zsh" })), "args"),
        (op("read", json!({})), "args.path"),
        (op("read", json!({ "path": "x", "offset": -1 })), "args.offset"),
        (op("write", json!({ "path": "x", "content": "%%%" })), "args.content"),
        (op("grep", json!({ "pattern": "" })), "args.pattern"),
        (op("defragment", json!({})), "operation"),
        (with("timeout_s", json!(-5)), "timeout_s"),
        (with("timeout_s", json!(0)), "timeout_s"),
        (with("expires_s", json!(-5)), "expires_s"),
        (with("idempotency_key", json!("")), "idempotency_key"),
        (
            json!({ "select": ok, "operation": "bash", "timeout_s": 5, "args": { "command": "true", "timeout": 6 } }),
            "timeout_s",
        ),
    ] {
        let (status, problem) = pair.api.post("/tasks", body.clone()).await;
        assert_eq!((status, &problem["field"]), (422, &json!(field)), "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().len() > field.len() + 3);
    }
    for body in [with("surprise", json!(1)), with("timeout_s", json!("long")), json!([]), json!(null)] {
        let (status, problem) = pair.api.post("/tasks", body).await;
        assert_eq!((status, &problem["status"]), (400, &json!(400)), "{problem}");
    }
    let response = pair.api.http.post(format!("{}/api/v1/tasks", pair.hub.url)).bearer_auth(&pair.hub.admin);
    let response = response.body("{\"select\": nonsense").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.status().as_u16(), 400);
    for path in ["/tasks/tsk_none", "/runners/none", "/tasks/tsk_none/events", "/nothing"] {
        assert_eq!(pair.api.get(path).await.0, 404, "{path}");
    }
    assert_eq!(pair.api.post("/tasks/tsk_none/cancel", json!({})).await.0, 404);
    // Nothing of this disturbed the runner.
    assert_eq!(pair.api.run("r1", "echo fine").await["result"]["stdout"], "fine\n");
}

#[tokio::test]
async fn tokens_open_what_their_role_reaches_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let admin = hub.api();
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dir.path().join("admin.token")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let mut apis = std::collections::HashMap::new();
    for role in ["viewer", "operator", "admin", "runner", "enroll"] {
        let (status, made) = admin.post("/tokens", json!({ "name": role, "role": role })).await;
        assert_eq!((status, &made["role"], &made["name"]), (201, &json!(role), &json!(role)));
        apis.insert(role, (Api::new(&hub.url, made["token"].as_str().unwrap()), made["id"].clone()));
    }
    let submit = bash(json!({ "labels": ["none"] }), "true");
    for (role, see, run, make) in [
        ("viewer", 200, 403, 403),
        ("operator", 200, 422, 403),
        ("admin", 200, 422, 201),
        ("runner", 403, 403, 403),
        ("enroll", 403, 403, 403),
    ] {
        let api = &apis[role].0;
        assert_eq!(api.get("/runners").await.0, see, "{role}");
        assert_eq!(api.post("/tasks", submit.clone()).await.0, run, "{role}");
        assert_eq!(api.post("/tokens", json!({ "name": "x", "role": "viewer" })).await.0, make, "{role}");
        let enrols = if role == "enroll" { 201 } else { 403 };
        assert_eq!(api.post("/enroll", json!({ "name": "new" })).await.0, enrols, "{role}");
    }
    // One-time means one time.
    assert_eq!(apis["enroll"].0.post("/enroll", json!({ "name": "new" })).await.0, 401);
    assert_eq!(admin.post("/tokens", json!({ "name": "x", "role": "king" })).await.0, 422);
    // No secret is stored, and none is listed.
    let secret = admin.post("/tokens", json!({ "name": "s", "role": "viewer" })).await.1["token"].clone();
    let secret = secret.as_str().unwrap();
    assert!(!admin.get("/tokens").await.1.to_string().contains(secret));
    for entry in std::fs::read_dir(dir.path()).unwrap().flatten() {
        if entry.file_name() != "admin.token" && entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{:?}", entry.path());
        }
    }
    let viewer = &apis["viewer"];
    assert_eq!(admin.send("DELETE", &format!("/tokens/{}", viewer.1.as_str().unwrap()), None).await.0, 204);
    assert_eq!(viewer.0.get("/runners").await.0, 401);
    let no_token = viewer.0.http.get(format!("{}/api/v1/runners", hub.url)).send().await.unwrap();
    assert_eq!(no_token.status().as_u16(), 401);
}

#[tokio::test]
async fn guessing_tokens_is_limited_and_valid_ones_are_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let wrong = Api::new(&hub.url, "lwk_wrong");
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(wrong.get("/runners").await.0);
    }
    assert!(answers[..30].iter().all(|s| *s == 401));
    assert_eq!(answers[99], 429);
    assert_eq!(hub.api().get("/runners").await.0, 200);
}

#[tokio::test]
async fn the_same_key_is_the_same_task() {
    let pair = Pair::start().await;
    let mut body = bash(json!({ "runner": "r1" }), "echo x >> log");
    body["idempotency_key"] = json!("once");
    let requests = (0..8).map(|_| pair.api.post("/tasks", body.clone()));
    let answers = futures_util::future::join_all(requests).await;
    let first = answers[0].1["id"].as_str().unwrap().to_owned();
    for (status, task) in &answers {
        assert_eq!((*status, &task["id"]), (202, &json!(first)));
    }
    pair.api.end(&first).await;
    assert_eq!(std::fs::read_to_string(pair.runner.workspace.join("log")).unwrap(), "x\n");
    body["args"]["command"] = json!("echo y");
    assert_eq!(pair.api.post("/tasks", body).await.0, 409);
}

#[tokio::test]
async fn events_resume_at_every_point_without_a_gap_or_a_repeat() {
    let pair = Pair::start().await;
    let line = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; sleep 0.05; done; printf '\\377'";
    let id = pair.api.bash("r1", line).await;
    let live = pair.api.events(&id, None, 1000).await;
    assert_eq!(live.last().unwrap().1, "end");
    let binary = live.iter().find(|e| e.2["encoding"] == "base64").expect("bytes that are no text");
    assert_eq!(binary.2["data"], "/w==");
    for (i, (event, _, _)) in live.iter().enumerate() {
        let rest = pair.api.events(&id, Some(event), 1000).await;
        assert_eq!(rest, live[i + 1..], "after event {i}");
    }
    let bad =
        pair.api.http.get(format!("{}/api/v1/tasks/{id}/events", pair.hub.url)).bearer_auth(&pair.hub.admin);
    assert_eq!(bad.header("Last-Event-ID", "x").send().await.unwrap().status().as_u16(), 400);
}

#[tokio::test]
async fn files_are_written_read_listed_and_searched() {
    let pair = Pair::start().await;
    let run = |operation: &str, args: Value| {
        let body = json!({ "select": { "runner": "r1" }, "operation": operation, "args": args });
        let api = pair.api.clone();
        async move {
            let (status, task) = api.post("/tasks?wait_s=20", body).await;
            assert_eq!(status, 202);
            task["runs"][0].clone()
        }
    };
    let written = run("write", json!({ "path": "d/f", "content": "YWxwaGEKYmV0YQo=" })).await;
    assert_eq!((&written["state"], &written["result"]), (&json!("succeeded"), &json!({ "success": true })));
    assert_eq!(run("read", json!({ "path": "d/f" })).await["result"]["content"], "YWxwaGEKYmV0YQo=");
    assert_eq!(run("list", json!({ "path": "d" })).await["result"]["entries"][1]["path"], "d/f");
    assert_eq!(run("glob", json!({ "pattern": "**/f" })).await["result"]["matches"], json!(["d/f"]));
    let found = run("grep", json!({ "pattern": "beta" })).await;
    assert_eq!(
        found["result"]["matches"][0],
        json!({ "path": "./d/f", "line_number": 2, "content": "beta" })
    );
    let outside = run("read", json!({ "path": "../../etc/passwd" })).await;
    assert_eq!(outside["error"], "path is outside workspace root: ../../etc/passwd");
}

#[tokio::test]
async fn lists_come_in_pages_and_health_is_told() {
    let pair = Pair::start().await;
    for n in 0..5 {
        pair.api.run("r1", &format!("echo {n}")).await;
    }
    let (mut seen, mut path) = (Vec::new(), "/tasks?limit=2".to_owned());
    loop {
        let page = pair.api.get(&path).await.1;
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t["args"]["command"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(cursor) => path = format!("/tasks?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["echo 4", "echo 3", "echo 2", "echo 1", "echo 0"]);
    // A page that nobody gave is no page, rather than some page.
    for path in
        ["/tasks?cursor=garbage", "/tasks?cursor=", "/runners?cursor=garbage", "/pods/tasks?cursor=garbage"]
    {
        let (status, problem) = pair.api.get(path).await;
        assert_eq!((status, &problem["code"]), (400, &json!("bad_query")), "{path}: {problem}");
    }
    let (status, problem) = pair.api.post("/tasks", bash(json!({ "runner": "r1" }), "echo \0")).await;
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("NUL"), "{problem}");
    let get = |path: &str| pair.api.http.get(format!("{}{path}", pair.hub.url)).send();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(path).await.unwrap().status().as_u16(), 200, "{path}");
    }
    let metrics = get("/metrics").await.unwrap().text().await.unwrap();
    assert!(metrics.contains("legwork_runners_online 1\n"), "{metrics}");
    assert!(metrics.contains("legwork_runs_ended_total{state=\"succeeded\"} 5\n"), "{metrics}");
    let page = get("/").await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
    assert_eq!(get("/api/v1/openapi.json").await.unwrap().json::<Value>().await.unwrap()["openapi"], "3.1.0");
}
