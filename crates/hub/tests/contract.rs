//! The contract of the REST API at the wire: every error is a problem with its code, and requests of version 0.1 are
//! answered.
#![allow(clippy::unwrap_used, reason = "test code: a panic is the report")]

use std::path::Path;

use legwork_hub::{Settings, listen};
use serde_json::{Value, json};
use tokio::sync::watch;

/// A hub in this process; it ends with the test.
struct Hub {
    url: String,
    admin: String,
    http: reqwest::Client,
    _stop: watch::Sender<bool>,
}

impl Hub {
    async fn start(data: &Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (hub, _) = legwork_hub::Hub::open(data, Settings::default()).await.unwrap();
        let listening = listen(hub, ([127, 0, 0, 1], 0).into(), None, None).await.ok().unwrap();
        let url = format!("http://{}", listening.address);
        let stop = watch::Sender::new(false);
        tokio::spawn(listening.serve(stop.subscribe()));
        let admin = std::fs::read_to_string(data.join("admin.token")).unwrap().trim().to_owned();
        Self { url, admin, http: reqwest::Client::new(), _stop: stop }
    }

    /// What an admin is answered.
    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request =
            self.http.request(method, format!("{}/api/v1{path}", self.url)).bearer_auth(&self.admin);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }
}

/// What a request is answered.
struct Answer {
    status: u16,
    kind: String,
    allow: String,
    problem: Value,
}

async fn ask(hub: &Hub, method: &str, path: &str, token: Option<&str>, body: &'static [u8]) -> Answer {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = hub.http.request(method, format!("{}{path}", hub.url)).body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    let header = |name| {
        response
            .headers()
            .get(name)
            .map_or("", |value: &reqwest::header::HeaderValue| value.to_str().unwrap())
    };
    let (kind, allow) = (header("content-type").to_owned(), header("allow").to_owned());
    let status = response.status().as_u16();
    let problem = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
    Answer { status, kind, allow, problem }
}

#[tokio::test]
async fn every_error_is_a_problem_with_a_code() {
    const TASK: &[u8] = br#"{"select":{"labels":["none"]},"operation":"bash","args":{"command":"true"}}"#;
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let admin = hub.admin.clone();
    let made = hub.send("POST", "/tokens", Some(json!({ "name": "v", "role": "viewer" }))).await.1;
    let viewer = made["token"].as_str().unwrap();
    let gone = hub.send("POST", "/tokens", Some(json!({ "name": "g", "role": "viewer" }))).await.1;
    let revoked = hub.send("DELETE", &format!("/tokens/{}", gone["id"].as_str().unwrap()), None).await.0;
    assert_eq!(revoked, 204);
    let (admin, viewer, gone) = (Some(admin.as_str()), Some(viewer), gone["token"].as_str());
    let large = vec![b' '; 65 * 1024].leak();
    for (method, path, token, body, status, code, field) in [
        ("GET", "/api/v1/tasks?limit=many", admin, &b""[..], 400, "bad_query", "limit"),
        ("GET", "/api/v1/tasks?limit=1&limit=2", admin, b"", 400, "bad_query", ""),
        ("GET", "/api/v1/tasks?sate=failed", admin, b"", 400, "unknown_parameter", "sate"),
        ("GET", "/api/v1/tasks?state=fialed", admin, b"", 400, "bad_query", "state"),
        ("GET", "/api/v1/me?x", admin, b"", 400, "unknown_parameter", "x"),
        ("GET", "/api/v1/openapi.json?x=1", None, b"", 400, "unknown_parameter", "x"),
        ("GET", "/api/v1/tasks/x/events?follow=perhaps", admin, b"", 400, "bad_query", "follow"),
        ("GET", "/api/v1/tasks/%FF", admin, b"", 400, "bad_path", ""),
        ("GET", "/api/v1/tasks/none", admin, b"", 404, "no_such_task", ""),
        ("GET", "/api/v1/pods/tasks/none", admin, b"", 404, "no_such_task", ""),
        ("GET", "/api/v1/pods/tasks/4294967296", admin, b"", 404, "no_such_task", ""),
        ("GET", "/api/v1/runners/none", admin, b"", 404, "no_such_runner", ""),
        ("DELETE", "/api/v1/tokens/none", admin, b"", 404, "no_such_token", ""),
        ("GET", "/api/v1/nothing", admin, b"", 404, "no_such_path", ""),
        ("GET", "/api/v1/", admin, b"", 404, "no_such_path", ""),
        ("GET", "/nothing", None, b"", 404, "no_such_path", ""),
        ("GET", "/releases/none", admin, b"", 404, "no_such_release", ""),
        ("PUT", "/api/v1/tasks", admin, b"", 405, "wrong_method", ""),
        ("POST", "/api/v1/tasks/x/events", admin, b"", 405, "wrong_method", ""),
        ("POST", "/api/v1/tasks", admin, b"{", 400, "bad_json", ""),
        ("POST", "/api/v1/tasks", admin, b"", 400, "bad_json", ""),
        ("POST", "/api/v1/tasks", admin, b"[]", 400, "bad_body", ""),
        (
            "POST",
            "/api/v1/tasks",
            admin,
            br#"{"select":{"lable":[]},"operation":"bash"}"#,
            400,
            "unknown_field",
            "select.lable",
        ),
        ("POST", "/api/v1/tasks", admin, TASK, 422, "invalid_field", "select"),
        ("POST", "/api/v1/tokens", admin, br#"{"name":"x","role":"king"}"#, 422, "invalid_field", "role"),
        ("POST", "/api/v1/tokens", admin, large, 413, "too_large", ""),
        ("DELETE", "/api/v1/tokens/SELF", admin, b"", 409, "last_admin", ""),
        ("POST", "/api/v1/tasks", viewer, TASK, 403, "forbidden", ""),
        ("GET", "/api/v1/tasks", None, b"", 401, "no_token", ""),
        ("POST", "/api/v1/tasks?x=1", None, large, 401, "no_token", ""),
        ("GET", "/api/v1/tasks", Some("lwk_wrong"), b"", 401, "unknown_token", ""),
        ("GET", "/api/v1/tasks", gone, b"", 401, "revoked_token", ""),
    ] {
        let own = hub.send("GET", "/me", None).await.1["id"].as_str().unwrap().to_owned();
        let answer = ask(&hub, method, &path.replace("SELF", &own), token, body).await;
        let name = format!("{method} {path}: {}", answer.problem);
        assert_eq!((answer.status, answer.problem["code"].as_str()), (status, Some(code)), "{name}");
        assert_eq!(answer.kind, "application/problem+json", "{name}");
        assert_eq!(answer.problem["status"], status, "{name}");
        assert_eq!(answer.problem["field"].as_str().unwrap_or_default(), field, "{name}");
        assert!(answer.problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{name}");
        assert_eq!(status == 405, !answer.allow.is_empty(), "{name}");
    }
    let misspelt = ask(&hub, "GET", "/api/v1/tasks?sate=failed&limit=1", admin, b"").await.problem;
    assert!(misspelt["detail"].as_str().unwrap().contains("'limit'"), "{misspelt}");
}

/// The requests of the command line and the page of version 0.1, as they were sent.
#[tokio::test]
async fn a_client_of_version_0_1_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    assert_eq!(hub.send("POST", "/tokens", Some(json!({ "name": "r1", "role": "runner" }))).await.0, 201);
    let mut last = Value::Null;
    for (method, path, body, status) in [
        (
            "POST",
            "/tasks",
            Some(json!({
                "select": { "labels": [], "runner": "r1" }, "operation": "bash", "args": { "command": "echo old" },
                "timeout_s": 120, "idempotency_key": "exec-0",
            })),
            202,
        ),
        ("GET", "/tasks/ID", None, 200),
        // It cancels with an empty object.
        ("POST", "/tasks/ID/cancel", Some(json!({})), 202),
        ("GET", "/tasks/ID/events?follow=false", None, 200),
        ("GET", "/runners?limit=500", None, 200),
        ("GET", "/runners", None, 200),
        ("PATCH", "/runners/r1", Some(json!({ "drained": false })), 200),
        ("GET", "/tasks?limit=50", None, 200),
        ("GET", "/tasks?limit=500&runner=r1", None, 200),
        ("GET", "/tokens", None, 200),
        ("GET", "/me", None, 200),
        ("GET", "/openapi.json", None, 200),
        (
            "POST",
            "/pods/tasks",
            Some(json!({ "config": { "type": "workflow", "workflow": "jobs: {}" } })),
            202,
        ),
        ("POST", "/pods/tasks/ID/cancel", Some(json!({})), 202),
        ("GET", "/pods/tasks/ID/events?follow=true", None, 200),
        ("GET", "/pods/tasks?limit=50", None, 200),
        ("GET", "/pods/runners", None, 200),
        ("GET", "/pods/registration", None, 200),
        ("GET", "/pods/sessions/any/messages", None, 200),
    ] {
        let id = last.as_str().map_or_else(|| last.to_string(), str::to_owned);
        let (got, answer) = hub.send(method, &path.replace("ID", &id), body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        if path.ends_with("/tasks") && method == "POST" {
            last = answer["id"].clone();
        }
    }
}

/// What is answered is what the contract says: its own types read it.
#[tokio::test]
async fn answers_are_of_the_types_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let made =
        hub.send("POST", "/tokens", Some(json!({ "name": "r1", "role": "runner", "expires_s": 60 }))).await.1;
    let issued: legwork_api::IssuedToken = serde_json::from_value(made.clone()).unwrap();
    assert_eq!(
        (issued.role, serde_json::to_value(issued.id).unwrap()),
        (legwork_api::Role::Runner.into(), made["id"].clone())
    );
    let body = json!({
        "select": { "runner": "r1", "count": "all" }, "operation": "bash", "args": { "command": "true" }, "expires_s": 60,
    });
    let task = hub.send("POST", "/tasks", Some(body)).await.1;
    let read: legwork_api::Task = serde_json::from_value(task.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), task);
    assert_eq!((read.subject(), read.state), ("true".to_owned(), legwork_api::State::Queued.into()));
    assert!(read.select.count.is_some_and(|count| count.is_all()));
    let listed = hub.send("GET", "/runners", None).await.1;
    let runners: legwork_api::Page<legwork_api::Runner, legwork_api::RunnerId> =
        serde_json::from_value(listed.clone()).unwrap();
    assert_eq!(serde_json::to_value(&runners).unwrap(), listed);
    assert_eq!(
        hub.send("DELETE", &format!("/tokens/{}", made["id"].as_str().unwrap()), None).await,
        (204, Value::Null)
    );
}

/// Each operation of the table is there, by its method and its path, and asks for what it says.
#[tokio::test]
async fn every_operation_is_at_its_place() {
    struct All(Vec<legwork_api::About>);
    impl legwork_api::Visitor for All {
        fn visit<O: legwork_api::Operation>(&mut self) {
            self.0.push(O::ABOUT);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let mut all = All(Vec::new());
    legwork_api::visit_all(&mut all);
    for about in all.0 {
        let path = format!("/api/v1{}", about.path.replace("{id}", "x"));
        let answer = ask(&hub, about.method.as_str(), &path, None, b"").await;
        let want = if about.access == legwork_api::Access::Anybody { about.status } else { 401 };
        assert_eq!(answer.status, want, "{}: {}", about.id, answer.problem);
    }
}

#[tokio::test]
async fn a_list_has_the_tasks_of_a_state() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    for name in ["r1", "r2"] {
        assert_eq!(hub.send("POST", "/tokens", Some(json!({ "name": name, "role": "runner" }))).await.0, 201);
    }
    let mut made = Vec::new();
    for i in 0..8 {
        let runner = if i % 4 == 0 { "r2" } else { "r1" };
        let task =
            json!({ "select": { "runner": runner }, "operation": "bash", "args": { "command": "true" } });
        let id = hub.send("POST", "/tasks", Some(task)).await.1["id"].as_str().unwrap().to_owned();
        if i % 2 == 0 {
            assert_eq!(hub.send("POST", &format!("/tasks/{id}/cancel"), None).await.0, 202);
        }
        made.push(id);
    }
    for (query, want) in [
        ("state=cancelled", vec![6, 4, 2, 0]),
        ("state=queued", vec![7, 5, 3, 1]),
        ("state=cancelled&runner=r2", vec![4, 0]),
        ("runner=r2&state=queued", vec![]),
        ("state=lost", vec![]),
    ] {
        let (mut got, mut next) = (Vec::new(), String::new());
        loop {
            let page = hub.send("GET", &format!("/tasks?limit=1&{query}{next}"), None).await.1;
            got.extend(page["items"].as_array().unwrap().iter().map(|task| task["id"].clone()));
            match page["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break,
            }
        }
        let want: Vec<_> = want.into_iter().map(|i: usize| Value::from(made[i].clone())).collect();
        assert_eq!(got, want, "{query}");
    }
}
