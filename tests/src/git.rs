//! A git server: git's own `http-backend` behind HTTP, with a password if there is to be one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;

use crate::model::axum_serve;

/// A running server.
#[derive(Clone)]
pub struct GitServer {
    pub url: String,
    root: PathBuf,
    password: Option<String>,
    /// What was shown to it to be let in, request by request.
    pub shown: Arc<Mutex<Vec<Option<String>>>>,
    /// Where it sends whoever asks, instead of answering.
    pub elsewhere: Arc<Mutex<Option<String>>>,
}

impl GitServer {
    /// Serves all repositories of a folder.
    pub async fn start(root: &Path, password: Option<&str>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            root: root.to_owned(),
            password: password.map(str::to_owned),
            shown: Arc::default(),
            elsewhere: Arc::default(),
        };
        let app = axum::Router::new().fallback(serve).with_state(this.clone());
        tokio::spawn(async move { axum_serve(listener, app).await });
        this
    }

    pub fn shown(&self) -> Vec<Option<String>> {
        self.shown.lock().unwrap().clone()
    }
}

async fn serve(State(server): State<GitServer>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
    let shown = header("authorization");
    server.shown.lock().unwrap().push(shown.clone());
    let plain = |status: u16, name: &str, value: &str| {
        Response::builder().status(status).header(name, value).body(Body::empty()).unwrap()
    };
    if let Some(elsewhere) = server.elsewhere.lock().unwrap().as_ref() {
        let to = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        return plain(302, "location", &format!("{elsewhere}{to}"));
    }
    if let Some(password) = &server.password {
        let wanted = format!("Basic {}", STANDARD.encode(format!("x-access-token:{password}")));
        if shown.as_ref() != Some(&wanted) {
            return plain(401, "www-authenticate", "Basic realm=\"git\"");
        }
    }
    let mut command = tokio::process::Command::new("git");
    command
        .args(["-c", "http.receivepack=true", "-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", &server.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", head.method.as_str())
        .env("REMOTE_USER", "test")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    for (variable, name) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        if let Some(value) = header(name) {
            command.env(variable, value);
        }
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut child = command.env("CONTENT_LENGTH", body.len().to_string()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let done = child.wait_with_output().await.unwrap().stdout;
    let end = done.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&done[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            _ => response.header(name, value),
        };
    }
    response.body(Body::from(done[end + 4..].to_vec())).unwrap()
}

/// Runs git in a folder, for a test.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = std::process::Command::new("git");
    command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]);
    let done = command.args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}
