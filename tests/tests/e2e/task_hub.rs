//! Task runners and the hub: each with the other, and with the transcripts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use legwork_e2e::Hub;
use legwork_e2e::model::{Answer, Model, axum_serve};
use legwork_e2e::pod::{Callback, Place, agent, model_env, steps};
use rustix::process::Signal;
use serde_json::{Value, json};

const TRANSCRIPT: &str = include_str!("../../fixtures/task.jsonl");

fn case(name: &str) -> Vec<Value> {
    let lines = TRANSCRIPT.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["case"] == name).collect()
}

/// A hub, and what runners show it.
struct Pods {
    hub: Hub,
    _dir: tempfile::TempDir,
    register: String,
    http: reqwest::Client,
}

impl Pods {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::start(dir.path()).await;
        let answer = hub.api().get("/pods/registration").await.1;
        let register = format!("{}{}", hub.url, answer["path"].as_str().unwrap());
        Self { hub, _dir: dir, register, http: reqwest::Client::new() }
    }

    async fn submit(&self, config: Value) -> u64 {
        let (status, task) = self.hub.api().post("/pods/tasks", json!({ "config": config })).await;
        assert_eq!(status, 202, "{task}");
        task["id"].as_u64().unwrap()
    }

    async fn task(&self, id: u64) -> Value {
        self.hub.api().get(&format!("/pods/tasks/{id}")).await.1
    }

    async fn end(&self, id: u64) -> Value {
        let over = |state: &Value| !["queued", "delivered", "running"].contains(&state.as_str().unwrap());
        legwork_e2e::until("the task ends", || async { over(&self.task(id).await["state"]) }).await;
        self.task(id).await
    }

    async fn post(&self, url: &str, body: &Value) -> (u16, Value) {
        let answer = self.http.post(url).json(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    async fn register(&self, name: &str) -> Value {
        let (status, answer) =
            self.post(&self.register, &json!({"pod_name": name, "pod_ip": "10.0.0.9"})).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of a task as its stream has them.
    async fn events(&self, id: u64) -> Vec<Value> {
        let path = format!("../pods/tasks/{id}");
        let events = self.hub.api().events(&path, None, 100_000).await;
        events.into_iter().map(|(_, _, data)| data).collect()
    }

    fn env(&self) -> Vec<(&str, &str)> {
        vec![
            ("MODE", "standby"),
            ("REGISTER_URL", &self.register),
            ("POD_NAME", "pool-1"),
            ("POD_IP", "10.0.0.9"),
        ]
    }
}

/// What the original sends, sent to our hub: the answers and conclusions are the transcript's.
#[tokio::test]
async fn the_hub_plays_its_part_of_the_transcripts() {
    let pods = Pods::start().await;
    for name in ["agent", "standby", "max-turns", "legwork"] {
        let lines = case(name);
        // Tasks of active pods are assigned like any other: only the key is needed.
        let mut known: HashMap<String, (u64, String)> = HashMap::new();
        let mut pod = format!("active-{name}");
        for line in &lines {
            let http = &line["http"];
            match line["dir"].as_str().unwrap() {
                "meta" | "hub->runner" => {}
                "expect" => {
                    let (id, _) = &known[line["task"].as_str().unwrap()];
                    let task = pods.end(*id).await;
                    let want = if line["state"] == "completed" { "succeeded" } else { "failed" };
                    assert_eq!(task["state"], want, "{name}: {task}");
                    if line["message"].is_string() {
                        assert_eq!(task["error"], line["message"]);
                    }
                }
                _ => {
                    let path = http["path"].as_str().unwrap();
                    let body = &http["body"];
                    if path.ends_with("/register") {
                        pod = body["pod_name"].as_str().unwrap().to_owned();
                        let place = lines.iter().position(|l| l == line).unwrap();
                        let answer =
                            &lines[place..].iter().find(|l| l["dir"] == "hub->runner").unwrap()["http"];
                        // A second registration looks like the first one.
                        let nth = known.len();
                        let wants_task = answer["body"]["task"].is_object()
                            || name == "standby" && nth == 0 && pods.runner_seen(&pod).await;
                        let config = lines.iter().find_map(|l| l.pointer("/http/body/task/config"));
                        let mut ours = 0;
                        if wants_task {
                            ours = pods.submit(config.unwrap().clone()).await;
                        }
                        let (status, got) = pods.post(&pods.register, body).await;
                        assert_eq!(status, 200);
                        if wants_task {
                            assert_eq!(got["task"]["id"], ours);
                            assert_eq!(&got["task"]["config"], config.unwrap());
                            assert_eq!(got["task"]["type"], "workflow");
                            let theirs = lines.iter().find_map(|l| l.pointer("/http/body/task/id")).unwrap();
                            let url = got["callback_url"].as_str().unwrap().to_owned();
                            known.insert(theirs.to_string(), (ours, url));
                        } else {
                            assert_eq!(got["task"], Value::Null);
                        }
                        continue;
                    }
                    if path.ends_with("/heartbeat") {
                        let url = pods.register.replace("/register", &format!("/{pod}/heartbeat"));
                        assert_eq!(pods.post(&url, body).await, (200, json!({"ok": true})));
                        continue;
                    }
                    let theirs = path.split('/').nth(3).unwrap().to_owned();
                    if !known.contains_key(&theirs) {
                        let ours = pods.submit(json!({"type": "agent"})).await;
                        let got = pods.register(&pod).await;
                        known
                            .insert(theirs.clone(), (ours, got["callback_url"].as_str().unwrap().to_owned()));
                    }
                    let (_, url) = &known[&theirs];
                    assert_eq!(pods.post(url, body).await, (200, json!({"ok": true})), "{name}: {body}");
                }
            }
        }
        if name == "max-turns" {
            let task = pods.end(known["60"].0).await;
            assert_eq!((&task["state"], &task["error"]), (&json!("failed"), &json!("Max turns reached")));
        }
        if name == "agent" {
            // The event that was sent twice, as the first answer was an error, stands there once.
            let events = pods.events(known["41"].0).await;
            assert_eq!(events.iter().filter(|e| e["type"] == "tool_end").count(), 1);
        }
    }
}

impl Pods {
    async fn runner_seen(&self, name: &str) -> bool {
        let runners = self.hub.api().get("/pods/runners").await.1;
        runners["items"].as_array().unwrap().iter().any(|r| r["name"] == name)
    }
}

/// A hub that follows a script and writes down what it is asked.
#[derive(Clone, Default)]
struct Script {
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    /// To give out, once.
    task: Arc<Mutex<Option<Value>>>,
}

impl Script {
    async fn start(task: Value) -> (Self, String) {
        let script = Self { task: Arc::new(Mutex::new(Some(task))), ..Self::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let answer = |State(script): State<Script>, uri: Uri, body: Bytes| async move {
            let body: Value = serde_json::from_slice(&body).unwrap();
            script.asked.lock().unwrap().push((uri.path().to_owned(), body));
            let register = uri.path().ends_with("/register");
            let task = if register { script.task.lock().unwrap().take() } else { None };
            axum::Json(match (register, task) {
                (true, Some(task)) => task,
                (true, None) => json!({"runner_id": 4, "task": null}),
                _ => json!({"ok": true}),
            })
        };
        let app = axum::Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum_serve(listener, app).await });
        (script, base)
    }
}

/// What our runner sends is what the transcript says.
#[tokio::test]
async fn the_runner_plays_its_part_of_the_transcripts() {
    // Standby, a workflow that fails.
    let lines = case("legwork");
    let task = lines.iter().find_map(|l| l.pointer("/http/body").filter(|b| b["task"].is_object())).unwrap();
    let mut task = task.clone();
    let (script, base) = Script::start(json!(null)).await;
    task["callback_url"] = format!("{base}/internal/tasks/53/stream").into();
    *script.task.lock().unwrap() = Some(task);
    let place = Place::new();
    let register = format!("{base}/internal/runners/register");
    let env = [
        ("MODE", "standby"),
        ("REGISTER_URL", register.as_str()),
        ("POD_NAME", "pool-2"),
        ("POD_IP", "10.0.0.7"),
    ];
    let pod = place.spawn(&env);
    let done = || async {
        script.asked.lock().unwrap().iter().filter(|(p, _)| p.ends_with("/register")).count() == 2
    };
    legwork_e2e::until("it registers again", done).await;
    pod.signal(Signal::TERM);
    assert_eq!(pod.end().await.code, Some(0));
    let mut got = script.asked.lock().unwrap().clone();
    let want: Vec<(String, Value)> = lines
        .iter()
        .filter(|l| l["dir"] == "runner->hub")
        .map(|l| (l["http"]["path"].as_str().unwrap().to_owned(), l["http"]["body"].clone()))
        // Sent every 20 s: its place is chance.
        .filter(|(path, _)| !path.ends_with("/heartbeat"))
        .collect();
    for (_, body) in &mut got {
        let map = body.as_object_mut().unwrap();
        map.remove("wait_s");
        if map.contains_key("duration_ms") {
            map.insert("duration_ms".into(), 6.into());
        }
        if map.contains_key("version") {
            map.insert("version".into(), "1.0.0".into());
        }
    }
    assert_eq!(got[..want.len()], want);
    // Active, an agent: the same events, whose tokens may be told together.
    let lines = case("agent");
    let want: Vec<Value> =
        lines.iter().filter(|l| l["dir"] == "runner->hub").map(|l| l["http"]["body"].clone()).collect();
    let place = Place::new();
    place.write("src/a.txt", "\n\nTODO sort\n");
    let model = Model::start([
        Answer::new()
            .text(&["Looking", " now."])
            .tool("toolu_1", "grep", &json!({"pattern": "TODO", "path": "src"}))
            .scene(),
        Answer::new().text(&["In src/a.txt."]).scene(),
    ])
    .await;
    let refused = Arc::new(Mutex::new(false));
    let policy = {
        let refused = refused.clone();
        move |_: usize, event: &Value| {
            let first =
                event["type"] == "tool_end" && !std::mem::replace(&mut *refused.lock().unwrap(), true);
            (if first { 503 } else { 200 }, None, Duration::ZERO)
        }
    };
    let callback = Callback::with(Arc::new(policy)).await;
    let config = lines[0]["stdin"].clone();
    let ended = place.run(&config, &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0));
    let requests = callback.requests();
    let tool_ends: Vec<_> = requests.iter().filter(|(_, _, e)| e["type"] == "tool_end").collect();
    assert!(tool_ends[1].0 - tool_ends[0].0 >= Duration::from_millis(500));
    let normal = |events: Vec<Value>| {
        let mut ids: Vec<String> = Vec::new();
        let mut out: Vec<Value> = Vec::new();
        for mut event in events {
            if let Some(id) = event["message_id"].as_str().map(str::to_owned) {
                let place = ids.iter().position(|known| *known == id).unwrap_or_else(|| {
                    ids.push(id);
                    ids.len() - 1
                });
                event["message_id"] = place.into();
            }
            let map = event.as_object_mut().unwrap();
            map.remove("usage");
            map.remove("token_index");
            match out.last_mut() {
                Some(last)
                    if event["type"] == "token"
                        && last["type"] == "token"
                        && last["message_id"] == event["message_id"] =>
                {
                    last["text"] =
                        format!("{}{}", last["text"].as_str().unwrap(), event["text"].as_str().unwrap())
                            .into();
                }
                _ => out.push(event),
            }
        }
        out
    };
    let got: Vec<Value> = requests.into_iter().map(|(_, _, e)| e).collect();
    assert_eq!(normal(got), normal(want));
}

#[tokio::test]
async fn agent_messages_are_kept_strictly() {
    let pods = Pods::start().await;
    let (_, task) =
        pods.hub.api().post("/pods/tasks", json!({"config": {"type": "agent"}, "session_id": "s-1"})).await;
    let body = json!({"pod_name": "p", "pod_ip": "1", "version": "1.0.0"});
    let (_, given) = pods.post(&pods.register, &body).await;
    assert_eq!(given["task"]["id"], task["id"]);
    let token = given["task"]["agent_token"].as_str().unwrap().to_owned();
    let base = given["task"]["persistence_url"].as_str().unwrap().to_owned();
    assert_eq!(base, pods.hub.url);
    let mut last = (0, Value::Null);
    for line in case("persistence") {
        match line["dir"].as_str().unwrap() {
            "runner->hub" => {
                let http = &line["http"];
                let method =
                    reqwest::Method::from_bytes(http["method"].as_str().unwrap().as_bytes()).unwrap();
                let url = format!("{base}{}", http["path"].as_str().unwrap());
                let mut request = pods.http.request(method, url).json(&http["body"]);
                if http["headers"]["Authorization"].is_string() {
                    request = request.bearer_auth(&token);
                }
                let answer = request.send().await.unwrap();
                last = (answer.status().as_u16(), answer.json().await.unwrap());
            }
            "hub->runner" => {
                let want = (
                    u16::try_from(line["http"]["status"].as_u64().unwrap()).unwrap(),
                    line["http"]["body"].clone(),
                );
                assert_eq!(last, want);
            }
            _ => {}
        }
    }
    let send = |method: &str, path: &str, token: Option<&str>, body: Value| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = pods.http.request(method, format!("{base}{path}")).json(&body);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let bearer = format!("Bearer {token}");
    let error = |text: &str| json!({ "error": text });
    assert_eq!(
        send("POST", "/internal/agent/messages", Some("Basic x"), json!({})).await,
        (401, error("Bearer token required"))
    );
    assert_eq!(
        send("POST", "/internal/agent/messages", Some("Bearer x"), json!({})).await,
        (401, error("Invalid or expired agent token"))
    );
    assert_eq!(
        send("PATCH", "/internal/agent/messages/msg_none", Some(&bearer), json!({})).await,
        (404, error("Message not found"))
    );
    let part = json!({"type": "nonsense"});
    assert_eq!(
        send("POST", "/internal/agent/messages/msg_aa11bb22cc33/parts", Some(&bearer), part).await,
        (400, error("Invalid JSON"))
    );
    let (status, made) =
        send("POST", "/internal/agent/messages", Some(&bearer), json!({"role": "user", "status": null}))
            .await;
    let id = made["id"].as_str().unwrap();
    assert!(status == 201 && id.len() == 16 && id.starts_with("msg_"), "{id}");
    let kept = pods.hub.api().get("/pods/sessions/s-1/messages").await.1;
    let items = kept["items"].as_array().unwrap();
    assert_eq!((&items[0]["status"], items[0]["completed_at_ms"].is_u64()), (&json!("completed"), true));
    assert_eq!(
        items[0]["parts"][1]["tool_state"],
        "{\"id\": \"toolu_1\", \"input\": {\"pattern\": \"TODO\"}}"
    );
}

#[tokio::test]
async fn our_runner_and_our_hub_carry_out_agents_and_workflows() {
    let pods = Pods::start().await;
    let model = Model::start([
        Answer::new()
            .text(&["I will."])
            .tool("t1", "write_file", &json!({"path": "f", "content": "x"}))
            .scene(),
        Answer::new().text(&["Done."]).scene(),
    ])
    .await;
    let place = Place::new();
    let mut env = pods.env();
    env.extend(model_env(&model.url));
    let pod = place.spawn(&env);
    let workflow = pods.submit(steps(&["echo $((6*7))", "exit 3"])).await;
    let (_, made) = pods
        .hub
        .api()
        .post(
            "/pods/tasks",
            json!({"config": agent("go", &["write_file"]), "session_id": "s-9", "idempotency_key": "k"}),
        )
        .await;
    let again = json!({"config": agent("go", &["write_file"]), "session_id": "s-9", "idempotency_key": "k"});
    assert_eq!(pods.hub.api().post("/pods/tasks", again).await.1["id"], made["id"]);
    let other = json!({"config": agent("other", &[]), "idempotency_key": "k"});
    assert_eq!(pods.hub.api().post("/pods/tasks", other).await.0, 409);
    let failed = pods.end(workflow).await;
    assert_eq!(
        (&failed["state"], &failed["error"], &failed["code"]),
        (&json!("failed"), &json!("Step step-1 failed"), &json!("step_failed"))
    );
    let events = pods.events(workflow).await;
    let said: Vec<&str> = events.iter().filter_map(|e| e["message"].as_str()).collect();
    assert!(said.contains(&"42") && said.contains(&"given to pool-1"), "{said:?}");
    let done = pods.end(made["id"].as_u64().unwrap()).await;
    assert_eq!((&done["state"], &done["usage"]["turns"]), (&json!("succeeded"), &json!(2)), "{done}");
    assert_eq!(place.read("f"), "x");
    let kept = pods.hub.api().get("/pods/sessions/s-9/messages").await.1;
    let items = kept["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{items:?}");
    assert_eq!(items[0]["parts"][1]["tool_name"], "write_file");
    assert_eq!(items[1]["parts"][0]["text"], "Done.");
    let runners = pods.hub.api().get("/pods/runners").await.1;
    assert_eq!(runners["items"][0]["status"], "available");
    // A malformed task does not hang: it is rejected on its callback.
    let bad = pods.submit(json!({"type": "agent", "tools": ["rm"]})).await;
    assert_eq!(pods.end(bad).await["error"], "Invalid task configuration: Disallowed tool: rm");
    // Cancelling reaches a runner that is busy.
    let long = pods.submit(steps(&["while true; do echo tick; sleep 0.1; done"])).await;
    legwork_e2e::until("it runs", || async { pods.task(long).await["state"] == "running" }).await;
    pods.hub.api().post(&format!("/pods/tasks/{long}/cancel"), json!({})).await;
    assert_eq!(pods.end(long).await["state"], "cancelled");
    // Idle, SIGTERM is a good end.
    legwork_e2e::until("it is idle", || async {
        pods.hub.api().get("/pods/runners").await.1["items"][0]["status"] == "available"
    })
    .await;
    pod.signal(Signal::TERM);
    assert_eq!(pod.end().await.code, Some(0));
}

#[tokio::test]
async fn a_hub_that_dies_forgets_nothing() {
    let mut pods = Pods::start().await;
    let place = Place::new();
    let pod = place.spawn(&pods.env());
    let id = pods.submit(steps(&["for i in $(seq 1 40); do echo $i; sleep 0.05; done"])).await;
    legwork_e2e::until("it runs", || async { pods.events_so_far(id).await > 8 }).await;
    pods.hub = pods.hub.crash_and_restart().await;
    assert_eq!(pods.end(id).await["state"], "succeeded");
    let events = pods.events(id).await;
    let mut told: Vec<String> = events
        .iter()
        .filter(|e| e["level"] == "stdout")
        .map(|e| e["message"].as_str().unwrap().to_owned())
        .collect();
    told.dedup();
    let want: Vec<String> = (1..=40).map(|n| n.to_string()).collect();
    assert_eq!(told, want);
    pod.signal(Signal::TERM);
    pod.end().await;
}

impl Pods {
    async fn events_so_far(&self, id: u64) -> usize {
        let path = format!("{}/api/v1/pods/tasks/{id}/events?follow=false", self.hub.url);
        let text =
            self.http.get(path).bearer_auth(&self.hub.admin).send().await.unwrap().text().await.unwrap();
        text.matches("event: ").count()
    }
}

#[tokio::test]
async fn an_agent_is_a_task_like_any_other() {
    let pods = Pods::start().await;
    let api = pods.hub.api();
    let number = pods.submit(json!({"type": "agent", "prompt": "a secret"})).await;
    let list = api.get("/tasks").await.1;
    let task = &list["items"][0];
    assert_eq!((&task["operation"], &task["state"]), (&json!("agent"), &json!("queued")), "{list}");
    assert!(!list.to_string().contains("a secret"), "{list}");
    let id = task["id"].as_str().unwrap().to_owned();
    let made = api.post("/tokens", json!({ "name": "v", "role": "viewer" })).await.1;
    let url = format!("{}/api/v1/tasks/{id}", pods.hub.url);
    let seen = pods.http.get(&url).bearer_auth(made["token"].as_str().unwrap()).send().await.unwrap();
    assert!(!seen.text().await.unwrap().contains("a secret"));
    assert!(api.get(&format!("/tasks/{id}")).await.1.to_string().contains("a secret"));
    pods.register("p").await;
    let path = format!("/tasks/{id}");
    assert_eq!(api.get(&path).await.1["runs"][0]["runner"], "p");
    assert_eq!(api.post(&format!("{path}/cancel"), json!({})).await.0, 202);
    assert_eq!(api.post("/tasks/none/cancel", json!({})).await.0, 404);
    // A runner that registers anew works on nothing.
    pods.register("p").await;
    let task = api.get(&format!("{path}?wait_s=20")).await.1;
    assert_eq!(task["state"], "cancelled", "{task}");
    assert_eq!(pods.task(number).await["state"], "cancelled");
    let events = api.events(&id, None, 1_000_000).await;
    let states: Vec<&str> =
        events.iter().filter(|e| e.1 == "state").map(|e| e.2["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["queued", "delivered"]);
    assert_eq!(events.last().map(|e| (e.1.as_str(), &e.2["state"])), Some(("end", &json!("cancelled"))));
}

/// The end is on disk before it is told: a hub that dies in between tells it later.
#[tokio::test]
async fn an_end_that_was_not_told_is_told_to_who_asks() {
    let mut pods = Pods::start().await;
    let id = pods.submit(json!({"type": "agent"})).await;
    let url = pods.register("p").await["callback_url"].as_str().unwrap().to_owned();
    assert_eq!(pods.post(&url, &json!({"type": "error", "message": "no"})).await.0, 200);
    let data = pods.hub.data.clone();
    let file = walk(&data.join("events")).into_iter().next().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let last = bytes.windows(8).rposition(|w| w == b"{\"at_ms\"").unwrap();
    std::fs::write(&file, &bytes[..last - 17]).unwrap();
    pods.hub = pods.hub.crash_and_restart().await;
    let events = pods.events(id).await;
    let end = events.last().unwrap();
    assert_eq!((&end["state"], &end["message"]), (&json!("failed"), &json!("no")));
    assert_eq!(pods.events(id).await, events);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_runner_that_dies_costs_a_task_only_what_it_did() {
    let pods = Pods::start().await;
    // Before anything was done the task goes to the next one, which comes under the same name.
    let first = pods.submit(json!({"type": "agent"})).await;
    let given = pods.register("pool-1").await;
    let url = given["callback_url"].as_str().unwrap().to_owned();
    let token =
        json!({"type": "token", "task_id": first, "message_id": "msg_1", "text": "a", "token_index": 0});
    assert_eq!(pods.post(&url, &token).await.0, 200);
    let again = pods.register("pool-1").await;
    assert_eq!(again["task"]["id"], first);
    let new = again["callback_url"].as_str().unwrap().to_owned();
    assert_ne!(new, url);
    // Who was given up is answered, and not listened to.
    assert_eq!(pods.post(&url, &json!({"type": "done", "task_id": first})).await, (200, json!({"ok": true})));
    assert_eq!(pods.task(first).await["state"], "delivered");
    // After it has acted, nobody knows.
    let start = json!({"type": "tool_start", "message_id": "msg_1", "tool_id": "t", "tool_name": "shell", "args": {"command": "x"}});
    assert_eq!(pods.post(&new, &start).await.0, 200);
    let none = pods.register("pool-1").await;
    assert_eq!(none["task"], Value::Null);
    let task = pods.task(first).await;
    assert_eq!((&task["state"], &task["attempts"]), (&json!("lost"), &json!(2)));
    assert!(task["error"].as_str().unwrap().contains("its end is unknown"));
    let states: Vec<Value> = pods
        .events(first)
        .await
        .into_iter()
        .filter(|e| e["type"] == "state")
        .map(|e| e["state"].clone())
        .collect();
    assert_eq!(states, ["queued", "delivered", "queued", "delivered", "lost"]);
}

#[tokio::test]
async fn strangers_and_bad_words_are_refused_in_the_protocols_words() {
    let pods = Pods::start().await;
    let id = pods.submit(json!({})).await;
    let open = format!("{}/internal/runners/register", pods.hub.url);
    let error = |text: &str| json!({ "error": text });
    let said = json!({"pod_name": "p", "pod_ip": "1"});
    assert_eq!(pods.post(&open, &said).await, (401, error("Internal authentication required")));
    assert_eq!(pods.post(&format!("{open}?key=x"), &said).await.0, 401);
    for (body, problem) in [
        (json!({"pod_ip": "1"}), "Missing pod_name"),
        (json!({"pod_name": "p"}), "Missing pod_ip"),
        (json!({"pod_name": 5, "pod_ip": "1"}), "Missing pod_name"),
    ] {
        assert_eq!(pods.post(&pods.register, &body).await, (400, error(problem)));
    }
    let raw = async |url: &str, text: &str| {
        let answer = pods.http.post(url).body(text.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(raw(&pods.register, "").await, (400, error("Missing request body")));
    assert_eq!(raw(&pods.register, "{").await, (400, error("Invalid JSON")));
    let given = pods.register("p").await;
    assert_eq!(given["task"]["config"], json!({"type": "agent"}));
    let url = given["callback_url"].as_str().unwrap().to_owned();
    assert_eq!(raw(&url, "").await, (400, error("Missing request body")));
    assert_eq!(raw(&url, "no").await, (400, error("Invalid JSON")));
    assert_eq!(raw(&url, "{}").await, (400, error("Missing event type")));
    assert_eq!(raw(&url, r#"{"type":"news"}"#).await, (200, json!({"ok": true})));
    let other = url.replace(&format!("/tasks/{id}/"), "/tasks/99999/");
    assert_eq!(raw(&other, "{}").await, (400, error("Invalid task_id")));
    assert_eq!(
        raw(&url.replace(&format!("/tasks/{id}/"), "/tasks/x/"), "{}").await,
        (400, error("Invalid task_id"))
    );
    let keyless = url.split('?').next().unwrap();
    assert_eq!(raw(keyless, "{}").await, (401, error("Internal authentication required")));
    // The internal token speaks for any task, in a header.
    let token = pods.register.split("key=").nth(1).unwrap();
    let answer =
        pods.http.post(keyless.replace("/stream", "/complete")).header("X-Plue-Internal-Token", token);
    assert_eq!(answer.json(&json!({"success": true})).send().await.unwrap().status(), 200);
    assert_eq!(pods.task(id).await["state"], "succeeded");
    for (body, status) in [
        (json!({}), 400),
        (json!({"config": []}), 422),
        (json!({"config": {"type": "x"}}), 422),
        (json!({"config": {}, "runner": "nobody"}), 422),
        (json!({"config": {}, "expires_s": 0}), 422),
    ] {
        assert_eq!(pods.hub.api().post("/pods/tasks", body.clone()).await.0, status, "{body}");
    }
}

/// The commands that people type.
#[tokio::test]
async fn people_run_agents_and_workflows_from_the_command_line() {
    let pods = Pods::start().await;
    let model = Model::start([
        Answer::new().text(&["Fixing."]).tool("t1", "shell", &json!({"command": "echo fixed"})).scene(),
        Answer::new().text(&["Fixed."]).scene(),
    ])
    .await;
    let place = Place::new();
    let token = place.dir.path().join("token");
    std::fs::write(&token, &pods.hub.admin).unwrap();
    let cli = |args: &[&str]| {
        let mut command = legwork_e2e::legwork(place.dir.path());
        command.args(args).arg("--hub-url").arg(&pods.hub.url).arg("--token-file").arg(&token);
        command.current_dir(&place.workspace);
        async move {
            let output = command.output().await.unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        }
    };
    // A pool of one, which finds the hub by itself.
    let mut pool = legwork_e2e::legwork(place.dir.path());
    pool.args(["pool", "--size", "1", "--name", "warm", "--hub-url", &pods.hub.url, "--token-file"])
        .arg(&token);
    pool.envs(model_env(&model.url))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit());
    let mut pool = pool.spawn().unwrap();
    legwork_e2e::until("it registers", || async { pods.runner_seen("warm-1").await }).await;
    let (code, out, err) = cli(&["agent", "fix the failing test", "--tools", "shell"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("Fixing.")
            && out.contains("> shell {\"command\":\"echo fixed\"}")
            && out.contains("Fixed."),
        "{out}"
    );
    assert!(out.contains("2 turns"), "{out}");
    place.write("ci.yaml", "jobs:\n  b:\n    steps:\n      - run: echo from b\n  a:\n    steps:\n      - run: echo from a; test ! -e left && touch left\n      - run: exit 4\n");
    for _ in 0..2 {
        // Each task finds a fresh workspace, in a fresh process.
        let (code, out, err) = cli(&["workflow", "run", "ci.yaml", "--runner", "warm-1"]).await;
        assert_eq!(code, Some(1), "{out}{err}");
        let b = out.find("from b\n").unwrap();
        assert!(b < out.find("from a\n").unwrap() && out.contains("failed: Step exit 4 failed"), "{out}");
    }
    let (code, _, err) = cli(&["pool", "--name", "../x"]).await;
    assert!(code == Some(1) && err.contains("--name"), "{err}");
    let (code, _, err) = cli(&["workflow", "run", "none.yaml"]).await;
    assert!(code == Some(2) && err.contains("none.yaml"), "{err}");
    let (_, out, _) = cli(&["pods", "tasks"]).await;
    assert!(out.contains("workflow") && out.contains("succeeded"), "{out}");
    let (_, out, _) = cli(&["pods", "runners", "--json"]).await;
    assert!(out.contains("warm-1"), "{out}");
    let (_, out, _) = cli(&["pods", "logs", "1"]).await;
    assert!(out.contains("Fixed."), "{out}");
    let pid = rustix::process::Pid::from_raw(pool.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), pool.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(143));
}

#[tokio::test]
async fn people_run_tasks_here_and_watch_them() {
    let place = Place::new();
    let model = Model::start([Answer::new().text(&["Hello ", "you."]).usage([10, 3, 0, 0]).scene()]).await;
    place.write("hi.json", &agent("hi", &[]).to_string());
    place.write("w.yaml", "jobs:\n  a:\n    steps:\n      - run: echo shown\n      - run: echo no; exit 5\n");
    let run = async |args: &[&str]| {
        let mut command = legwork_e2e::legwork(place.dir.path());
        command.args(["task", "run"]).args(args).current_dir(&place.workspace).envs(model_env(&model.url));
        let output = command.output().await.unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, out, err) = run(&["hi.json"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("Hello you.\ndone\n1 turns, 10 tokens read"), "{out}");
    let (code, out, _) = run(&["w.yaml"]).await;
    assert!(
        code == Some(1)
            && out.contains("== echo shown\n")
            && out.contains("failed: Step echo no; exit 5 failed"),
        "{out}"
    );
    let (code, out, _) = run(&["--json", "w.yaml"]).await;
    let events: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((code, &events.last().unwrap()["code"]), (Some(1), &json!("step_failed")));
    place.write("bad.json", r#"{"tools": ["rm"], "max_turns": 0}"#);
    let (code, _, err) = run(&["bad.json"]).await;
    assert!(code == Some(2) && err.contains("Disallowed tool: rm") && err.contains("max_turns"), "{err}");
}

/// A pool whose processes have a kernel of their own, and no network but hub and model.
#[tokio::test]
async fn a_pool_stands_in_gvisor() {
    let has = |program: &str| {
        std::process::Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output()
            .unwrap()
            .status
            .success()
    };
    if !has("runsc") || !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED HERE: a pool in gVisor (needs runsc and root)");
        return;
    }
    let pods = Pods::start().await;
    let place = Place::new();
    // Not beneath /tmp, which is the sandbox's own: neither the data nor the program, wherever
    // this was built.
    let data = tempfile::Builder::new().prefix("legwork-e2e-").tempdir_in("/var/lib").unwrap();
    let program = data.path().join("legwork");
    std::fs::copy(legwork_e2e::binary(), &program).unwrap();
    let token = place.dir.path().join("token");
    std::fs::write(&token, &pods.hub.admin).unwrap();
    let mut pool = legwork_e2e::legwork_at(&program, place.dir.path());
    pool.args([
        "pool",
        "--size",
        "1",
        "--name",
        "gv",
        "--sandbox",
        "gvisor",
        "--hub-url",
        &pods.hub.url,
        "--token-file",
    ]);
    pool.arg(&token).arg("--data").arg(data.path()).stdout(std::process::Stdio::null());
    pool.env("ANTHROPIC_API_KEY", "sk-test-0123456789");
    let mut pool = pool.spawn().unwrap();
    legwork_e2e::until("it registers", || async { pods.runner_seen("gv-1").await }).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("curl -fsS -m 3 http://{}/", listener.local_addr().unwrap());
    let id = pods
        .submit(steps(&[
            "dmesg | head -1; cat /etc/hostname > f; env | grep -c sk-test || true",
            &format!("! {elsewhere}"),
        ]))
        .await;
    let task = pods.end(id).await;
    let events = pods.events(id).await;
    let said: Vec<&str> = events.iter().filter_map(|e| e["message"].as_str()).collect();
    assert_eq!(task["state"], "succeeded", "{said:?}");
    assert!(said.iter().any(|line| line.contains("Starting gVisor")) && said.contains(&"0"), "{said:?}");
    let pid = rustix::process::Pid::from_raw(pool.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    tokio::time::timeout(Duration::from_secs(30), pool.wait()).await.unwrap().unwrap();
}

/// A runner of the original does nothing with jobs, and says that it succeeded.
#[tokio::test]
async fn a_workflow_of_jobs_is_not_given_to_an_original() {
    let pods = Pods::start().await;
    let jobs = json!({"type": "workflow", "jobs": {"a": {"steps": [{"run": "true"}]}}});
    let id = pods.submit(jobs.clone()).await;
    assert_eq!(pods.register("original").await["task"], Value::Null);
    let steps = pods.submit(json!({"type": "workflow", "steps": [{"run": "true"}]})).await;
    assert_eq!(pods.register("original").await["task"]["id"], steps);
    let body = json!({ "config": jobs, "runner": "original" });
    let (status, said) = pods.hub.api().post("/pods/tasks", body).await;
    assert_eq!(status, 422, "{said}");
    assert!(said.to_string().contains("only workflows with steps"), "{said}");
    let ours = json!({"pod_name": "ours", "pod_ip": "10.0.0.9", "capabilities": ["agent", "workflow"], "version": "1"});
    assert_eq!(pods.post(&pods.register, &ours).await.1["task"]["id"], id);
}

/// It took 19 s: the runner heard of it with its next heartbeat.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_ends_at_once() {
    let pods = Pods::start().await;
    let place = Place::new();
    let _pod = place.spawn(&pods.env());
    legwork_e2e::until("it registers", || async { pods.runner_seen("pool-1").await }).await;
    let id = pods.submit(steps(&["sleep 100"])).await;
    legwork_e2e::until("it runs", || async { pods.task(id).await["state"] == "running" }).await;
    let start = std::time::Instant::now();
    assert_eq!(pods.hub.api().post(&format!("/pods/tasks/{id}/cancel"), json!({})).await.0 / 100, 2);
    assert_eq!(pods.end(id).await["state"], "cancelled");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Two slots tried their walls under one name, and one of them went on without any.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_four_has_walls_in_every_slot() {
    let pods = Pods::start().await;
    let place = Place::new();
    let token = place.dir.path().join("token");
    std::fs::write(&token, &pods.hub.admin).unwrap();
    let mut pool = legwork_e2e::legwork(place.dir.path());
    pool.args(["pool", "--size", "4", "--name", "w", "--hub-url", &pods.hub.url, "--token-file"]);
    pool.arg(&token).arg("--data").arg(place.dir.path().join("data"));
    pool.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut pool = pool.spawn().unwrap();
    for slot in 1..=4 {
        let name = format!("w-{slot}");
        legwork_e2e::until("it registers", || async { pods.runner_seen(&name).await }).await;
    }
    // The wall of a task within the wall of its slot: a machine's names and settings are there, its secrets are not.
    let id = pods
        .submit(steps(&[
            "getent passwd root && getent hosts localhost && git init -q . && \
             cat /etc/nsswitch.conf >/dev/null && test -n \"$(ls /etc/alternatives)\"",
            "test ! -e /etc/shadow || ! cat /etc/shadow",
        ]))
        .await;
    let task = pods.end(id).await;
    assert_eq!(task["state"], "succeeded", "{task} {:?}", pods.events(id).await);
    let pid = rustix::process::Pid::from_raw(pool.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut pool.stderr.take().unwrap(), &mut said).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), pool.wait()).await.unwrap().unwrap();
    let has_landlock = !said.contains("no Landlock");
    assert!(!has_landlock || !said.contains("no walls"), "{said}");
}

#[tokio::test]
async fn a_busy_runner_sends_heartbeats_and_can_be_told_of_a_task() {
    let (script, base) = Script::start(json!({"runner_id": 4, "task": null})).await;
    let place = Place::new();
    let register = format!("{base}/internal/runners/register?key=k");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let env = [
        ("MODE", "standby"),
        ("REGISTER_URL", register.as_str()),
        ("POD_NAME", "pool-3"),
        ("POD_IP", "10.0.0.7"),
        ("ASSIGN_PORT", port.as_str()),
    ];
    let pod = place.spawn(&env);
    let asked = || script.asked.lock().unwrap().clone();
    legwork_e2e::until("it polls", || async { asked().len() == 1 }).await;
    let config = steps(&["sleep 21"]);
    let callback_url = format!("{base}/internal/tasks/9/stream");
    *script.task.lock().unwrap() =
        Some(json!({"task": {"id": "nine", "config": config}, "callback_url": callback_url}));
    // Well before the next poll.
    let told = std::time::Instant::now();
    let answer =
        reqwest::Client::new().post(format!("http://127.0.0.1:{port}/assign")).json(&json!({"task_id": 9}));
    assert_eq!(answer.send().await.unwrap().status(), 200);
    legwork_e2e::until("it starts", || async { asked().iter().any(|(_, b)| b["type"] == "step_start") })
        .await;
    assert!(told.elapsed() < Duration::from_secs(3));
    legwork_e2e::until("it ends", || async { asked().iter().any(|(_, b)| b["type"] == "done") }).await;
    let beats = asked().iter().filter(|(path, _)| path == "/internal/runners/pool-3/heartbeat").count();
    assert_eq!(beats, 1);
    assert!(asked().iter().all(|(path, body)| !path.ends_with("/stream") || body["task_id"] == "nine"));
    pod.signal(Signal::TERM);
    assert_eq!(pod.end().await.code, Some(0));
}
