//! Task runners of the real binary, and the server that their events go to.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Child;

use crate::model::axum_serve;
use crate::{DEADLINE, legwork};

/// What a server answers to the n-th request: status, `Retry-After`, and after how long.
pub type Policy = Arc<dyn Fn(usize, &Value) -> (u16, Option<String>, Duration) + Send + Sync>;

#[derive(Default)]
struct Seen {
    /// Every request, answered with 200 or not.
    all: Vec<(Instant, HeaderMap, Value)>,
    taken: Vec<Value>,
    in_flight: usize,
    most_in_flight: usize,
}

/// A callback server.
#[derive(Clone)]
pub struct Callback {
    pub url: String,
    pub address: String,
    seen: Arc<Mutex<Seen>>,
}

impl Callback {
    /// One that takes everything at once.
    pub async fn start() -> Self {
        Self::with(Arc::new(|_, _| (200, None, Duration::ZERO))).await
    }

    pub async fn with(policy: Policy) -> Self {
        Self::at("127.0.0.1:0", policy).await
    }

    pub async fn at(address: &str, policy: Policy) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let app = axum::Router::new()
            .route("/internal/tasks/{id}/stream", axum::routing::post(take))
            .with_state((seen.clone(), policy))
            .layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move { axum_serve(listener, app).await });
        Self { url: format!("http://{address}/internal/tasks/41/stream"), address, seen }
    }

    /// Events that were taken, in order.
    pub fn events(&self) -> Vec<Value> {
        self.seen.lock().unwrap().taken.clone()
    }

    /// The same without what was sent twice as an answer got lost: it stands next to its twin.
    pub fn events_once(&self) -> Vec<Value> {
        let mut events = self.events();
        events.dedup();
        events
    }

    /// Every request.
    pub fn requests(&self) -> Vec<(Instant, HeaderMap, Value)> {
        self.seen.lock().unwrap().all.clone()
    }

    pub fn most_in_flight(&self) -> usize {
        self.seen.lock().unwrap().most_in_flight
    }

    /// Events of a kind.
    pub fn of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|e| e["type"] == kind).collect()
    }

    /// All text of tokens that were not reset.
    pub fn text(&self) -> String {
        let mut messages: Vec<(String, String)> = Vec::new();
        for event in self.events() {
            let id = event["message_id"].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str() {
                Some("token") => {
                    let text = event["text"].as_str().unwrap();
                    match messages.iter_mut().find(|(known, _)| *known == id) {
                        Some((_, all)) => all.push_str(text),
                        None => messages.push((id, text.to_owned())),
                    }
                }
                Some("token_reset") => messages.retain(|(known, _)| *known != id),
                _ => {}
            }
        }
        messages.into_iter().map(|(_, text)| text).collect()
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&[Value]) -> bool) {
        crate::until(what, || async { condition(&self.events()) }).await;
    }
}

async fn take(
    State((seen, policy)): State<(Arc<Mutex<Seen>>, Policy)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let event: Value = serde_json::from_slice(&body).unwrap();
    let count = {
        let mut seen = seen.lock().unwrap();
        seen.all.push((Instant::now(), headers, event.clone()));
        seen.in_flight += 1;
        seen.most_in_flight = seen.most_in_flight.max(seen.in_flight);
        seen.all.len() - 1
    };
    let (status, retry_after, delay) = policy(count, &event);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut seen = seen.lock().unwrap();
    seen.in_flight -= 1;
    if status == 200 {
        seen.taken.push(event);
    }
    let mut response = Response::builder().status(status);
    if let Some(after) = retry_after {
        response = response.header("retry-after", after);
    }
    let body = if status == 200 { json!({"ok": true}) } else { json!({"error": "busy"}) };
    response.body(axum::body::Body::from(body.to_string())).unwrap()
}

/// A place for pods: a workspace and a home.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub workspace: PathBuf,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("ws");
        std::fs::create_dir(&workspace).unwrap();
        Self { dir, workspace }
    }

    pub fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.workspace.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.workspace.join(path)).unwrap()
    }

    /// Starts `legwork task` with this environment.
    pub fn spawn(&self, env: &[(&str, &str)]) -> Pod {
        let mut command = legwork(self.dir.path());
        command
            .arg("task")
            .env("WORKSPACE", &self.workspace)
            .env("LEGWORK_STATE_DIR", self.dir.path().join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in env {
            command.env(name, value);
        }
        Pod { process: command.spawn().unwrap() }
    }

    /// Starts an active task.
    pub fn active(&self, task: &Value, callback: &Callback, more: &[(&str, &str)]) -> Pod {
        let config = task.to_string();
        let mut env =
            vec![("TASK_ID", "41"), ("CALLBACK_URL", callback.url.as_str()), ("TASK_CONFIG", &config)];
        env.extend_from_slice(more);
        self.spawn(&env)
    }

    /// Runs an active task to its end.
    pub async fn run(&self, task: &Value, callback: &Callback, more: &[(&str, &str)]) -> Ended {
        self.active(task, callback, more).end().await
    }
}

/// Gives tasks to standby runners at a word.
#[derive(Clone)]
pub struct Standby {
    pub url: String,
    tasks: Arc<tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Value>>>,
    pub give: tokio::sync::mpsc::Sender<Value>,
    /// When the last task was given.
    pub given: Arc<Mutex<Option<Instant>>>,
}

impl Standby {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (give, tasks) = tokio::sync::mpsc::channel(1);
        let url = format!("http://{}/internal/runners/register", listener.local_addr().unwrap());
        let this = Self { url, tasks: Arc::new(tokio::sync::Mutex::new(tasks)), give, given: Arc::default() };
        let answer = |State(this): State<Standby>| async move {
            let task = this.tasks.lock().await.recv().await.unwrap_or_default();
            *this.given.lock().unwrap() = Some(Instant::now());
            axum::Json(task)
        };
        let app = axum::Router::new()
            .route("/internal/runners/register", axum::routing::post(answer))
            .with_state(this.clone());
        tokio::spawn(async move { axum_serve(listener, app).await });
        this
    }
}

/// A process.
pub struct Pod {
    process: Child,
}

/// How it ended.
pub struct Ended {
    pub code: Option<i32>,
    pub log: String,
    pub stderr: String,
}

impl Pod {
    pub fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Writes its stdin and closes it.
    pub async fn stdin(&mut self, text: &str) {
        let mut stdin = self.process.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
    }

    pub async fn end(mut self) -> Ended {
        drop(self.process.stdin.take());
        let (mut out, mut err) = (self.process.stdout.take().unwrap(), self.process.stderr.take().unwrap());
        let (mut log, mut stderr) = (Vec::new(), Vec::new());
        let all = async {
            let (a, b) = tokio::join!(out.read_to_end(&mut log), err.read_to_end(&mut stderr));
            a.unwrap();
            b.unwrap();
            self.process.wait().await.unwrap()
        };
        let status = tokio::time::timeout(DEADLINE, all).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Ok(status) = status else { panic!("the pod does not end: {} {}", text(&log), text(&stderr)) };
        eprintln!("pod: {}{}", text(&log), text(&stderr));
        Ended { code: status.code(), log: text(&log), stderr: text(&stderr) }
    }
}

/// The environment that points a pod at a model.
pub fn model_env(url: &str) -> [(&str, &str); 2] {
    [("ANTHROPIC_API_KEY", "sk-test-0123456789"), ("ANTHROPIC_BASE_URL", url)]
}

/// An agent's task.
pub fn agent(prompt: &str, tools: &[&str]) -> Value {
    json!({"type": "agent", "messages": [{"role": "user", "content": prompt}], "tools": tools})
}

/// A workflow of commands.
pub fn steps(commands: &[&str]) -> Value {
    let steps: Vec<Value> = commands.iter().map(|run| json!({"run": run})).collect();
    json!({"type": "workflow", "steps": steps})
}

/// What a runner left of tasks, beside the note that they are over.
pub fn leftovers(place: &Place) -> Vec<PathBuf> {
    let files = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path()).collect()
    };
    let note = ["lock", "config", "task.journal", "delivered"];
    let tasks = files(&place.dir.path().join("state/task/tasks"));
    let left = tasks.iter().flat_map(|task| files(task));
    left.filter(|file| !note.contains(&file.file_name().unwrap().to_str().unwrap())).collect()
}
