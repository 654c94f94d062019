//! The harness of the end-to-end tests: real processes of the real binary, each
//! with a home of its own, killed when the test ends.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::result_large_err,
    reason = "test code: a panic is the report"
)]

pub mod git;
pub mod micro;
pub mod model;
pub mod pod;
pub mod proxy;
pub mod sshd;
pub mod workspace;
pub mod ws;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The longest anything in a test may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The binary under test: LEGWORK_BIN, else the one built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LEGWORK_BIN") {
        return path.into();
    }
    // Tests lie in `deps` below it, benchmarks beside it.
    let program = std::env::current_exe().unwrap();
    let found =
        program.ancestors().skip(1).take(2).map(|dir| dir.join("legwork")).find(|path| path.is_file());
    found.expect("legwork is not built: run cargo build first")
}

/// A command of the binary with a clean environment and the given home.
pub fn legwork(home: &Path) -> Command {
    legwork_at(&binary(), home)
}

/// The same of another copy of the binary.
pub fn legwork_at(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", format!("{}/bin:/usr/local/bin:/usr/bin:/bin", home.display()))
        .env("HOME", home)
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Waits until a condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < DEADLINE, "{what}: did not happen within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A running hub.
pub struct Hub {
    pub url: String,
    pub admin: String,
    pub data: PathBuf,
    process: Child,
}

impl Hub {
    pub async fn start(data: &Path) -> Self {
        Self::start_at(data, "127.0.0.1:0").await
    }

    pub async fn start_at(data: &Path, listen: &str) -> Self {
        Self::start_with(data, listen, &[]).await
    }

    /// The same with more flags.
    pub async fn start_with(data: &Path, listen: &str, flags: &[&str]) -> Self {
        Self::start_under(data, listen, flags, &[]).await
    }

    /// The same with more variables.
    pub async fn start_under(data: &Path, listen: &str, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut process = legwork(data)
            .args(["hub", "--listen", listen, "--data"])
            .arg(data)
            .args(flags)
            .env("LEGWORK_LOG_LEVEL", "warn")
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = loop {
            let line = lines.next_line().await.unwrap().expect("the hub says where it listens");
            if let Some(url) = line.strip_prefix("hub listening on ") {
                break url.to_owned();
            }
        };
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("hub: {line}")
            }
        });
        let admin = std::fs::read_to_string(data.join("admin.token")).unwrap().trim().to_owned();
        Self { url, admin, data: data.to_owned(), process }
    }

    /// The address without its scheme.
    pub fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    /// kill -9, then the same hub again on the same address.
    pub async fn crash_and_restart(mut self) -> Self {
        self.process.kill().await.unwrap();
        Self::start_at(&self.data.clone(), &self.address()).await
    }

    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    pub fn api(&self) -> Api {
        Api::new(&self.url, &self.admin)
    }

    /// Makes a runner's token.
    pub async fn runner_token(&self, name: &str) -> String {
        let made = self.api().post("/tokens", json!({ "name": name, "role": "runner" })).await;
        made.1["token"].as_str().unwrap().to_owned()
    }
}

/// The REST API with a token.
#[derive(Clone)]
pub struct Api {
    pub http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    pub fn new(url: &str, token: &str) -> Self {
        Self { http: reqwest::Client::new(), base: format!("{url}/api/v1"), token: token.into() }
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, Some(body)).await
    }

    /// Submits a shell line to a runner; returns the task's id.
    pub async fn bash(&self, runner: &str, command: &str) -> String {
        let body =
            json!({ "select": { "runner": runner }, "operation": "bash", "args": { "command": command } });
        let (status, task) = self.post("/tasks", body).await;
        assert_eq!(status, 202, "{task}");
        task["id"].as_str().unwrap().to_owned()
    }

    /// Waits for a task's end; survives the hub's absence.
    pub async fn end(&self, id: &str) -> Value {
        let start = Instant::now();
        loop {
            let request =
                self.http.get(format!("{}/tasks/{id}?wait_s=5", self.base)).bearer_auth(&self.token);
            if let Ok(response) = request.send().await
                && let Ok(task) = response.json::<Value>().await
            {
                let open = ["queued", "delivered", "held", "accepted", "running"];
                if !open.contains(&task["state"].as_str().unwrap_or("queued")) {
                    return task;
                }
            }
            assert!(start.elapsed() < DEADLINE, "{id} does not end");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Runs a shell line to its end.
    pub async fn run(&self, runner: &str, command: &str) -> Value {
        let id = self.bash(runner, command).await;
        self.end(&id).await["runs"][0].clone()
    }

    /// A task's events: (id, kind, data), until the stream closes or `most` came.
    pub async fn events(&self, id: &str, after: Option<&str>, most: usize) -> Vec<(String, String, Value)> {
        use futures_util::StreamExt;
        let mut request = self.http.get(format!("{}/tasks/{id}/events", self.base)).bearer_auth(&self.token);
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let mut stream = request.send().await.unwrap().bytes_stream();
        let (mut text, mut events) = (String::new(), Vec::new());
        while events.len() < most
            && let Some(Ok(bytes)) = stream.next().await
        {
            text.push_str(&String::from_utf8_lossy(&bytes));
            while let Some(end) = text.find("\n\n") {
                let block: String = text.drain(..end + 2).collect();
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|l| l.strip_prefix(name))
                        .map(|v| v.trim_start().to_owned())
                        .unwrap_or_default()
                };
                if !field("event:").is_empty() && events.len() < most {
                    let data = serde_json::from_str(&field("data:")).unwrap();
                    events.push((field("id:"), field("event:"), data));
                }
            }
        }
        events
    }

    pub async fn is_online(&self, runner: &str) -> bool {
        self.get(&format!("/runners/{runner}")).await.1["status"] == "online"
    }
}

/// Rules as a config's lines.
pub const ALLOW_ALL: &[(&str, &str)] = &[("*", "allow")];

/// A running runner, in a home of its own.
pub struct Runner {
    pub home: PathBuf,
    pub workspace: PathBuf,
    process: Child,
}

impl Runner {
    /// Starts a runner that dials `address` (host and port, no scheme).
    pub async fn start(home: &Path, address: &str, token: &str, rules: &[(&str, &str)]) -> Self {
        let url = format!("ws://{address}/runner/ws");
        Self::start_with(home, &url, token, rules, "").await
    }

    /// The same with more config.
    pub async fn start_with(home: &Path, url: &str, token: &str, rules: &[(&str, &str)], more: &str) -> Self {
        Self::configure(home, url, token, rules, more);
        Self::again(home).await
    }

    /// Writes a config.
    pub fn configure(home: &Path, url: &str, token: &str, rules: &[(&str, &str)], more: &str) {
        use std::os::unix::fs::PermissionsExt;
        let workspace = home.join("ws");
        let mut config =
            format!("api_url: {url}\ntoken: {token}\nworkspace_root: {}\n{more}\n", workspace.display());
        config.push_str("permission:\n  bash:\n");
        for (pattern, action) in rules {
            config.push_str(&format!("    {}: {action}\n", json!(pattern)));
        }
        std::fs::create_dir_all(home.join(".legwork")).unwrap();
        let path = home.join(".legwork/config.yaml");
        std::fs::write(&path, config).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Starts a runner with the config that is there.
    pub async fn again(home: &Path) -> Self {
        Self::again_at(&binary(), home).await
    }

    /// The same of another copy of the binary.
    pub async fn again_at(program: &Path, home: &Path) -> Self {
        let process = legwork_at(program, home).arg("run").stdout(Stdio::null()).spawn().unwrap();
        Self { home: home.to_owned(), workspace: home.join("ws"), process }
    }

    /// The same with few file descriptors.
    pub async fn again_with_files(home: &Path, files: u32) -> Self {
        let mut command = Command::new("/bin/bash");
        let line = format!("ulimit -n {files}; exec {} run", binary().display());
        command.args(["-c", &line]).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home);
        let process = command.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        Self { home: home.to_owned(), workspace: home.join("ws"), process }
    }

    pub fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Sends a signal and waits for the end; returns the exit status.
    pub async fn stop(&mut self, signal: rustix::process::Signal) -> i32 {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let status = tokio::time::timeout(DEADLINE, self.process.wait()).await.unwrap().unwrap();
        status.code().unwrap_or(-1)
    }
}

/// A hub with one runner that may do anything, connected.
pub struct Pair {
    pub hub: Hub,
    pub runner: Runner,
    pub api: Api,
    pub dir: tempfile::TempDir,
}

impl Pair {
    pub async fn start() -> Self {
        Self::with_rules(ALLOW_ALL).await
    }

    pub async fn with_rules(rules: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::start(&dir.path().join("hub")).await;
        let token = hub.runner_token("r1").await;
        let runner = Runner::start(&dir.path().join("r1"), &hub.address(), &token, rules).await;
        let api = hub.api();
        until("the runner connects", || api.is_online("r1")).await;
        Self { hub, runner, api, dir }
    }
}
