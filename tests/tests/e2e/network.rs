//! What a runner reaches for a controller: web pages, MCP servers; and skills.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use base64::Engine;
use legwork_e2e::{Pair, until};
use serde_json::{Value, json};
use sha2::Digest;

const MCP: &str = env!("CARGO_BIN_EXE_test-mcp");

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

/// Runs an operation to its end.
async fn perform(pair: &Pair, operation: &str, args: Value) -> Value {
    let body = json!({ "select": { "runner": "r1" }, "operation": operation, "args": args });
    let (status, task) = pair.api.post("/tasks", body).await;
    assert_eq!(status, 202, "{task}");
    pair.api.end(task["id"].as_str().unwrap()).await["runs"][0].clone()
}

fn stdio(args: &[&str]) -> Value {
    json!({ "name": "inv", "transport": "stdio", "command": MCP, "args": args })
}

async fn call(pair: &Pair, server: &Value, tool: &str, arguments: Value) -> Value {
    perform(pair, "mcp_call", json!({ "server": server, "tool_name": tool, "args": arguments })).await
}

fn pages() -> Router {
    async fn slow(Query(query): Query<HashMap<String, u64>>) -> Response {
        // Headers at once, the body late: the time limit is about both.
        let stream = futures_util::stream::once(async move {
            tokio::time::sleep(Duration::from_secs(query["s"])).await;
            Ok::<_, std::io::Error>("late")
        });
        axum::body::Body::from_stream(stream).into_response()
    }
    let html =
        ([("content-type", "text/html; charset=utf-8")], "<h1>T</h1><script>x()</script><p>a <b>b</b></p>");
    Router::new()
        .route("/html", get(move || async move { html }))
        .route("/missing", get(|| async { (StatusCode::NOT_FOUND, "no such page") }))
        .route("/large", get(|| async { "x".repeat(6 << 20) }))
        .route("/long", get(|| async { "line\n".repeat(10_000) }))
        .route("/slow", get(slow))
        .route(
            "/hop",
            get(|Query(q): Query<HashMap<String, String>>| async move { Redirect::temporary(&q["to"]) }),
        )
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/headers", get(|headers: HeaderMap| async move { format!("{headers:?}") }))
}

#[tokio::test]
async fn pages_are_fetched_as_the_protocol_says() {
    let pair = Pair::start().await;
    let base = serve(pages()).await;
    let fetch = async |path: &str, format: &str| {
        perform(&pair, "webfetch", json!({ "url": format!("{base}{path}"), "format": format, "timeout": 2 }))
            .await
    };
    assert_eq!(fetch("/html", "").await["result"]["content"], "# T\n\na **b**");
    assert_eq!(fetch("/html", "text").await["result"]["content"], "T a b");
    assert!(fetch("/html", "html").await["result"]["content"].as_str().unwrap().contains("<script>"));
    // An error page is a success, and its size is told.
    let missing = fetch("/missing", "text").await;
    assert_eq!(
        missing["result"],
        json!({ "content": "no such page", "url": format!("{base}/missing"), "total_size": 12 })
    );
    let hop = fetch("/hop?to=/missing", "text").await;
    assert_eq!(hop["result"]["url"], format!("{base}/missing"));
    let long = fetch("/long", "text").await;
    assert_eq!(long["result"]["truncated"], true);
    assert!(long["result"]["file_path"].as_str().unwrap().starts_with(".work/outputs/webfetch_"));
    let headers = fetch("/headers", "markdown").await["result"]["content"].as_str().unwrap().to_owned();
    assert!(
        headers.contains("Chrome/120.0.0.0") && headers.contains("text/markdown, text/html;q=0.9"),
        "{headers}"
    );
    for (path, error) in [
        ("/large", "response too large (exceeds 5MB limit)"),
        ("/slow?s=5", "request timed out"),
        ("/loop", "request failed: stopped after 10 redirects"),
        ("/hop?to=http://169.254.169.254/latest/meta-data/", "link-local and metadata addresses are refused"),
        ("/hop?to=http://[::ffff:a9fe:a9fe]/", "link-local and metadata addresses are refused"),
    ] {
        let run = fetch(path, "text").await;
        assert_eq!(run["state"], "failed", "{path}: {run}");
        assert!(run["error"].as_str().unwrap().contains(error), "{path}: {run}");
    }
    let direct = perform(&pair, "webfetch", json!({ "url": "http://169.254.169.254/" })).await;
    assert!(direct["error"].as_str().unwrap().starts_with("request failed: 169.254.169.254: "), "{direct}");
}

#[tokio::test]
async fn a_cancelled_fetch_and_call_say_so() {
    let pair = Pair::start().await;
    let base = serve(pages()).await;
    let slow = json!({ "url": format!("{base}/slow?s=60"), "timeout": 100 });
    let tool = json!({ "server": stdio(&[]), "tool_name": "sleep", "args": { "s": 60 } });
    for (operation, args) in [("webfetch", slow), ("mcp_call", tool)] {
        let body = json!({ "select": { "runner": "r1" }, "operation": operation, "args": args });
        let task = pair.api.post("/tasks", body).await.1;
        let id = task["id"].as_str().unwrap().to_owned();
        until("it is accepted", || async {
            pair.api.get(&format!("/tasks/{id}")).await.1["state"] != "queued"
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        pair.api.post(&format!("/tasks/{id}/cancel"), json!({})).await;
        let run = pair.api.end(&id).await["runs"][0].clone();
        assert!(run["error"].as_str().unwrap().ends_with("context canceled"), "{run}");
    }
}

#[tokio::test]
async fn stdio_servers_live_between_calls_and_are_noticed_when_dead() {
    let pair = Pair::start().await;
    let server = stdio(&["--pages"]);
    assert_eq!(call(&pair, &server, "calls", json!({})).await["result"]["content"], "1");
    assert_eq!(call(&pair, &server, "calls", json!({})).await["result"]["content"], "2");
    // Lists say what it was about.
    let listed = legwork_e2e::legwork(pair.dir.path())
        .args(["tasks"])
        .env("LEGWORK_HUB_URL", &pair.hub.url)
        .env("LEGWORK_TOKEN", &pair.hub.admin)
        .output()
        .await
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.lines().any(|l| l.contains("mcp_call") && l.ends_with("calls")), "{listed}");
    // Another configuration is another session.
    assert_eq!(call(&pair, &stdio(&["--other"]), "calls", json!({})).await["result"]["content"], "1");
    let tools = perform(&pair, "mcp_list_tools", json!({ "server": server })).await;
    let names: Vec<&str> =
        tools["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tool0", "tool1", "tool2"]);
    let parts = call(&pair, &server, "parts", json!({})).await;
    assert_eq!(parts["result"], json!({ "content": "a\n[Image: image/png]\nb", "total_size": 22 }));
    let large = call(&pair, &server, "large", json!({})).await;
    assert!(large["result"]["file_path"].as_str().unwrap().starts_with(".work/outputs/mcp_"));
    let failed = call(&pair, &server, "nothing", json!({})).await;
    assert_eq!(failed["error"], "failed to call tool 'nothing': unknown tool nothing");
    // It died meanwhile: the next call gets a new one.
    let died = call(&pair, &server, "die", json!({})).await;
    assert!(died["error"].as_str().unwrap().starts_with("failed to call tool 'die': "), "{died}");
    assert_eq!(call(&pair, &server, "calls", json!({})).await["result"]["content"], "1");
    // Time limits hold for slow tools and for servers that never answer.
    let slow = json!({ "server": server, "tool_name": "sleep", "args": { "s": 9 }, "timeout": 1 });
    let slow = perform(&pair, "mcp_call", slow).await;
    assert_eq!(slow["error"], "failed to call tool 'sleep': no answer within 1 s");
    let absent = json!({ "name": "gone", "transport": "stdio", "command": "no-such-server" });
    let absent = call(&pair, &absent, "x", json!({})).await;
    assert_eq!(
        absent["error"],
        "failed to connect to MCP server 'gone': exec: \"no-such-server\": executable file not found in $PATH"
    );
}

#[tokio::test]
async fn an_mcp_server_that_can_not_be_had_says_why() {
    let pair = Pair::start().await;
    let nowhere = json!({ "name": "gone", "transport": "stdio", "command": "/nowhere/server" });
    assert_eq!(
        call(&pair, &nowhere, "x", json!({})).await["error"],
        "failed to connect to MCP server 'gone': fork/exec /nowhere/server: no such file or directory"
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed =
        json!({ "name": "closed", "transport": "sse", "url": format!("http://127.0.0.1:{port}/mcp") });
    assert_eq!(
        call(&pair, &closed, "x", json!({})).await["error"],
        "failed to connect to MCP server 'closed': connection refused"
    );
}

#[tokio::test]
async fn an_mcp_server_learns_who_asks_and_where_it_works() {
    let pair = Pair::start().await;
    let client = async || -> Value {
        let said = call(&pair, &stdio(&["--roots"]), "client", json!({})).await;
        serde_json::from_str(said["result"]["content"].as_str().unwrap()).unwrap()
    };
    // Our answer about roots and the call go side by side.
    until("it is told the roots", || async { client().await.get("roots").is_some() }).await;
    let client = client().await;
    // The protocol's own name; what `legwork task` runs is known as legwork.
    assert_eq!(client["info"]["name"], "flashduty-runner");
    assert!(client["info"]["title"].as_str().unwrap().starts_with("Legwork 0."), "{client}");
    let workspace = pair.runner.workspace.canonicalize().unwrap();
    assert_eq!(client["roots"][0]["uri"], format!("file://{}", workspace.display()), "{client}");
}

#[tokio::test]
async fn a_server_ends_with_its_runner_even_after_kill_9() {
    let mut pair = Pair::start().await;
    let pids = pair.dir.path().join("pids");
    let server = stdio(&["--pid-file", pids.to_str().unwrap()]);
    call(&pair, &server, "calls", json!({})).await;
    let pid: u32 = std::fs::read_to_string(&pids).unwrap().trim().parse().unwrap();
    let alive = || std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(alive());
    pair.runner.kill().await;
    until("the server is gone", || async { !alive() }).await;
}

#[tokio::test]
async fn servers_are_judged_and_get_a_clean_environment() {
    let allowed = format!("{MCP} --ok*");
    let pair = Pair::with_rules(&[("*", "deny"), (&allowed, "allow"), ("dash", "allow")]).await;
    let denied = call(&pair, &stdio(&[]), "lookup", json!({})).await;
    assert_eq!(denied["state"], "denied", "{denied}");
    assert!(denied["error"].as_str().unwrap().starts_with("command denied by rule '*': "), "{denied}");
    let mut server = stdio(&["--ok"]);
    server["env"] = json!({ "REGION": "eu", "A=B": "skipped" });
    let env = call(&pair, &server, "env", json!({})).await["result"]["content"].as_str().unwrap().to_owned();
    assert!(env.contains("REGION=eu") && env.contains("PATH=") && !env.contains("skipped"), "{env}");
    assert!(!env.contains("TOKEN") && !env.contains("LEGWORK"), "{env}");
    server["env"] = json!({ "LD_PRELOAD": "/tmp/evil.so" });
    let denied = call(&pair, &server, "env", json!({})).await;
    assert_eq!(denied["state"], "denied");
    assert!(denied["error"].as_str().unwrap().contains("LD_PRELOAD"), "{denied}");
    // A shell fed by the controller would be a way around every rule.
    let shell = json!({ "name": "sh", "transport": "stdio", "command": "dash" });
    let denied = call(&pair, &shell, "x", json!({})).await;
    assert!(
        denied["error"].as_str().unwrap().contains("'dash' would read a script from its input"),
        "{denied}"
    );
    // A server's secrets are not shown by the API, nor is the tool's line to run.
    server["env"] = json!({ "API_KEY": "hunter2" });
    let body = json!({ "select": { "runner": "r1" }, "operation": "mcp_call",
        "args": { "server": server, "tool_name": "lookup", "args": { "host": "db-1" } } });
    let task = pair.api.post("/tasks", body).await.1;
    let shown = pair.api.end(task["id"].as_str().unwrap()).await;
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    assert_eq!(shown["runs"][0]["result"]["content"], "db-1 rack 4");
}

/// An HTTP server of both kinds: what it was sent, and which of them it is.
#[derive(Clone, Default)]
struct HttpMcp {
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    /// Answers of the older transport go to the standing stream.
    stream: Arc<Mutex<Option<tokio::sync::mpsc::Sender<String>>>>,
}

fn answer(request: &Value) -> Option<Value> {
    let id = request.get("id")?;
    let result = match request["method"].as_str().unwrap() {
        "initialize" => json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
            "serverInfo": { "name": "web", "version": "1" } }),
        "tools/call" => json!({ "content": [{ "type": "text", "text": "from afar" }] }),
        _ => json!({ "tools": [] }),
    };
    Some(json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

async fn streamable(
    State(state): State<HttpMcp>,
    method: axum::http::Method,
    headers: HeaderMap,
    body: String,
) -> Response {
    state.seen.lock().unwrap().push((method.to_string(), headers.clone()));
    match method.as_str() {
        "POST" => {
            let request: Value = serde_json::from_str(&body).unwrap();
            match answer(&request) {
                // One of them as an event stream.
                Some(answer) if request["method"] == "tools/call" => {
                    ([("content-type", "text/event-stream")], format!("data: {answer}\n\n")).into_response()
                }
                Some(answer) => {
                    ([("content-type", "application/json"), ("mcp-session-id", "s-1")], answer.to_string())
                        .into_response()
                }
                None => StatusCode::ACCEPTED.into_response(),
            }
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

async fn older_stream(State(state): State<HttpMcp>) -> Response {
    let (sender, receiver) = tokio::sync::mpsc::channel::<String>(8);
    sender.send("event: endpoint\ndata: /messages?session=7\n\n".into()).await.unwrap();
    *state.stream.lock().unwrap() = Some(sender);
    let events = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|event| (Ok::<_, std::io::Error>(event), receiver))
    });
    ([("content-type", "text/event-stream")], axum::body::Body::from_stream(events)).into_response()
}

async fn older_message(State(state): State<HttpMcp>, headers: HeaderMap, body: String) -> StatusCode {
    state.seen.lock().unwrap().push(("POST".into(), headers));
    if let Some(answer) = answer(&serde_json::from_str(&body).unwrap()) {
        let sender = state.stream.lock().unwrap().clone().unwrap();
        sender.send(format!("event: message\ndata: {answer}\n\n")).await.unwrap();
    }
    StatusCode::ACCEPTED
}

#[tokio::test]
async fn http_servers_of_both_kinds_are_reached_with_their_headers() {
    let pair = Pair::start().await;
    for older in [false, true] {
        let state = HttpMcp::default();
        let app = if older {
            Router::new()
                .route("/mcp", get(older_stream))
                .route("/messages", axum::routing::post(older_message))
        } else {
            Router::new().route("/mcp", any(streamable))
        };
        let base = serve(app.with_state(state.clone())).await;
        let mut server = json!({
            "name": "web", "transport": "sse", "url": format!("{base}/mcp"),
            "headers": { "Authorization": "Bearer s1", "X-Team": "static" }, "dynamic_headers": { "X-Turn": "1" },
        });
        assert_eq!(
            call(&pair, &server, "t", json!({})).await["result"]["content"],
            "from afar",
            "older: {older}"
        );
        server["dynamic_headers"] = json!({ "X-Turn": "2", "X-Team": "dynamic" });
        assert_eq!(
            call(&pair, &server, "t", json!({})).await["result"]["content"],
            "from afar",
            "older: {older}"
        );
        let seen = state.seen.lock().unwrap().clone();
        let posts: Vec<&HeaderMap> = seen.iter().filter(|(m, _)| m == "POST").map(|(_, h)| h).collect();
        // One handshake, a notification, two calls: the session stayed as it is.
        assert_eq!(posts.len(), 4, "older: {older}: {seen:?}");
        let header =
            |at: usize, name: &str| posts[at].get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        assert_eq!(
            (header(2, "authorization"), header(2, "x-team"), header(2, "x-turn")),
            ("Bearer s1", "static", "1")
        );
        assert_eq!((header(3, "x-team"), header(3, "x-turn")), ("dynamic", "2"));
        if !older {
            assert_eq!(header(3, "mcp-session-id"), "s-1");
        }
    }
    let metadata = json!({ "name": "m", "transport": "http", "url": "http://169.254.169.254/mcp" });
    let refused = call(&pair, &metadata, "t", json!({})).await;
    assert!(refused["error"].as_str().unwrap().contains("metadata addresses are refused"), "{refused}");
}

fn skill(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test]
async fn skills_are_verified_and_replaced_whole() {
    let pair = Pair::start().await;
    let sync = async |zip: &[u8], checksum: &str| {
        let zip = base64::engine::general_purpose::STANDARD.encode(zip);
        let args =
            json!({ "skill_name": "s", "skill_dir": "skills/s", "zip_data": zip, "checksum": checksum });
        perform(&pair, "sync_skill", args).await
    };
    let first = skill(&[("SKILL.md", "one"), ("old.md", "old")]);
    let digest: String = sha2::Sha256::digest(&first).iter().map(|b| format!("{b:02x}")).collect();
    let done = sync(&first, &format!("sha256:{digest}")).await;
    assert_eq!(done["result"], json!({ "success": true, "path": "skills/s" }));
    let wrong = sync(&skill(&[("SKILL.md", "two")]), &format!("sha256:{digest}")).await;
    assert_eq!(wrong["error"], "checksum mismatch");
    let trick = sync(&skill(&[("../SKILL.md", "evil")]), "any").await;
    assert_eq!(trick["error"], "failed to unzip skill: invalid file path in zip: ../SKILL.md");
    let dir = pair.runner.workspace.join("skills/s");
    assert_eq!(std::fs::read_to_string(dir.join("SKILL.md")).unwrap(), "one");
    assert_eq!(sync(&skill(&[("SKILL.md", "two")]), "bare").await["state"], "succeeded");
    assert_eq!(std::fs::read_to_string(dir.join("SKILL.md")).unwrap(), "two");
    assert_eq!(std::fs::read_to_string(dir.join(".checksum")).unwrap(), "bare");
    assert!(!dir.join("old.md").exists());
}
