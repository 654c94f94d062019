//! A workspace server of the real binary, and a client on a bare socket.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{DEADLINE, legwork};

/// A client for what is asked over plain HTTP.
pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// A running server; killed when dropped.
pub struct Workspace {
    pub address: String,
    pub home: tempfile::TempDir,
    pub root: PathBuf,
    process: Child,
}

impl Workspace {
    /// Over an empty folder.
    pub async fn start(env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("ws");
        std::fs::create_dir(&root).unwrap();
        Self::over(home, root, env).await
    }

    /// Over this folder.
    pub async fn over(home: tempfile::TempDir, root: PathBuf, env: &[(&str, &str)]) -> Self {
        let (process, address) = spawn(home.path(), &root, env).await.unwrap();
        Self { address, home, root, process }
    }

    /// The server once more, after `kill` or `stop`.
    pub async fn again(&mut self, env: &[(&str, &str)]) {
        (self.process, self.address) = spawn(self.home.path(), &self.root, env).await.unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// SIGTERM; its exit status.
    pub async fn stop(&mut self) -> i32 {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = tokio::time::timeout(DEADLINE, self.process.wait()).await.unwrap().unwrap();
        status.code().unwrap_or(-1)
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.address, "", json!(null)).await
    }
}

/// Starts a server; what it said if it did not start.
pub async fn spawn(home: &Path, root: &Path, env: &[(&str, &str)]) -> Result<(Child, String), (i32, String)> {
    let mut command = legwork(home);
    command.arg("serve").env("WORKSPACE", root).env("PORT", "0").env("TMPDIR", home).current_dir(home);
    command.envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let address = loop {
        match tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap() {
            Some(line) => {
                if let Some((_, address)) = line.split_once(" on http://") {
                    break address.to_owned();
                }
            }
            None => {
                let mut stderr = process.stderr.take().unwrap();
                let mut said = String::new();
                tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut said).await.unwrap();
                return Err((process.wait().await.unwrap().code().unwrap_or(-1), said));
            }
        }
    };
    // Logs are read on, so that the server never waits for us.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((process, address))
}

pub type Socket = WebSocketStream<TcpStream>;

/// Opens a WebSocket.
pub async fn connect(address: &str, path: &str) -> Socket {
    let tcp = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(format!("ws://{address}{path}"), tcp).await.unwrap().0
}

/// A Socket.IO client that sees every packet.
pub struct Client {
    pub socket: Socket,
    next_ack: u64,
    /// What the shared terminal has shown.
    pub shown: String,
    /// Events that came while something else was waited for.
    pub events: Vec<(String, Value)>,
}

impl Client {
    /// Connects and joins; panics if it may not.
    pub async fn connect(address: &str, query: &str, auth: Value) -> Self {
        let mut client = Self::open(address, query).await;
        client.send(&if auth.is_null() { "40".to_owned() } else { format!("40{auth}") }).await;
        let said = client.packet().await;
        assert!(said.starts_with("40{"), "{said}");
        client
    }

    /// Opens a session without joining.
    pub async fn open(address: &str, query: &str) -> Self {
        let path = format!("/socket.io/?EIO=4&transport=websocket{query}");
        let socket = connect(address, &path).await;
        let mut client = Self { socket, next_ack: 1, shown: String::new(), events: Vec::new() };
        assert!(client.packet().await.starts_with("0{"));
        client
    }

    pub async fn send(&mut self, packet: &str) {
        self.socket.send(Message::text(packet)).await.unwrap();
    }

    /// The next packet; pings are answered.
    pub async fn packet(&mut self) -> String {
        tokio::time::timeout(DEADLINE, self.next_packet()).await.expect("a packet in time")
    }

    async fn next_packet(&mut self) -> String {
        loop {
            match self.socket.next().await.expect("a packet").expect("a packet") {
                Message::Text(text) if text == "2" => self.send("3").await,
                Message::Text(text) => return text.to_string(),
                Message::Close(frame) => return format!("closed {frame:?}"),
                _ => {}
            }
        }
    }

    fn note(&mut self, packet: &str) {
        let Some(json) = packet.strip_prefix("42") else { return };
        let mut args: Vec<Value> = serde_json::from_str(json).unwrap();
        let data = args.swap_remove(1);
        let name = args[0].as_str().unwrap().to_owned();
        if name == "terminal:data" && data.get("id").is_none() {
            self.shown.push_str(data["data"].as_str().unwrap());
        } else {
            self.events.push((name, data));
        }
    }

    /// Asks, and returns what the acknowledgement says.
    pub async fn ask(&mut self, event: &str, data: Value) -> Value {
        let id = self.next_ack;
        self.next_ack += 1;
        self.send(&format!("42{id}{}", json!([event, data]))).await;
        let start = format!("43{id}[");
        loop {
            let packet = self.packet().await;
            if let Some(rest) = packet.strip_prefix(&start) {
                return serde_json::from_str(rest.strip_suffix(']').unwrap()).unwrap();
            }
            assert!(!packet.starts_with("closed"), "{event}: {packet}");
            self.note(&packet);
        }
    }

    /// Asks the same so many times at once, and returns what is answered.
    pub async fn ask_at_once(&mut self, event: &str, data: &Value, times: u64) -> Vec<Value> {
        let first = self.next_ack;
        self.next_ack += times;
        for id in first..first + times {
            self.send(&format!("42{id}{}", json!([event, data]))).await;
        }
        let mut answers = Vec::new();
        while answers.len() < usize::try_from(times).unwrap() {
            let packet = self.packet().await;
            assert!(!packet.starts_with("closed"), "{event}: {packet}");
            match packet.strip_prefix("43").and_then(|rest| rest.split_once('[')) {
                Some((_, said)) => {
                    answers.push(serde_json::from_str(said.strip_suffix(']').unwrap()).unwrap())
                }
                None => self.note(&packet),
            }
        }
        answers
    }

    /// The code of a refusal.
    pub async fn refused(&mut self, event: &str, data: Value) -> String {
        let said = self.ask(event, data.clone()).await;
        said["code"].as_str().unwrap_or_else(|| panic!("{event} {data} was not refused: {said}")).to_owned()
    }

    /// Waits for an event.
    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(|(n, _)| n == name) {
                return self.events.remove(at).1;
            }
            let packet = self.packet().await;
            assert!(!packet.starts_with("closed"), "{name}: {packet}");
            self.note(&packet);
        }
    }

    /// The next event, whatever it is.
    pub async fn any_event(&mut self) -> (String, Value) {
        while self.events.is_empty() {
            let packet = self.packet().await;
            assert!(!packet.starts_with("closed"), "{packet}");
            self.note(&packet);
        }
        self.events.remove(0)
    }

    /// Types into the shared terminal, and waits until it shows something.
    pub async fn type_until(&mut self, text: &str, shows: &str) -> String {
        self.send(&format!("42{}", json!(["terminal:write", { "data": text }]))).await;
        self.until_shown(shows).await
    }

    pub async fn until_shown(&mut self, shows: &str) -> String {
        let start = tokio::time::Instant::now();
        while !self.shown.contains(shows) {
            assert!(start.elapsed() < DEADLINE, "{shows:?} is not in {:?}", self.shown);
            let packet = self.packet().await;
            self.note(&packet);
        }
        self.shown.clone()
    }

    /// Whatever comes within a time.
    pub async fn listen(&mut self, time: Duration) -> Vec<String> {
        let mut heard = Vec::new();
        while let Ok(packet) = tokio::time::timeout(time, self.packet()).await {
            heard.push(packet);
        }
        heard
    }
}
