//! A Messages API that replays what it is told to, in the stream format that is documented,
//! and misbehaves on cue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What is sent, piece by piece.
#[derive(Debug, Clone)]
enum Piece {
    Event(Value),
    Raw(String),
    Pause(Duration),
    /// The connection ends here, without the end of the body.
    Cut,
    /// Nothing more comes, and the connection stays.
    Stall,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Scene {
    status: u16,
    headers: Vec<(String, String)>,
    pieces: Vec<Piece>,
}

/// A message in the making.
#[derive(Debug, Clone)]
pub struct Answer {
    blocks: Vec<(Value, Vec<Value>)>,
    stop_reason: String,
    stop_details: Value,
    usage: [u64; 4],
    between: Duration,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            stop_reason: "end_turn".into(),
            stop_details: Value::Null,
            usage: [100, 20, 0, 0],
            between: Duration::ZERO,
        }
    }
}

impl Answer {
    pub fn new() -> Self {
        Self::default()
    }

    /// A block of text, in these deltas.
    pub fn text(mut self, deltas: &[&str]) -> Self {
        let deltas = deltas.iter().map(|d| json!({"type": "text_delta", "text": d})).collect();
        self.blocks.push((json!({"type": "text", "text": "", "citations": null}), deltas));
        self
    }

    pub fn thinking(mut self, text: &str, signature: &str) -> Self {
        let deltas = vec![
            json!({"type": "thinking_delta", "thinking": text}),
            json!({"type": "signature_delta", "signature": signature}),
        ];
        self.blocks.push((json!({"type": "thinking", "thinking": "", "signature": ""}), deltas));
        self
    }

    /// A block as it is, without deltas.
    pub fn block(mut self, block: Value) -> Self {
        self.blocks.push((block, Vec::new()));
        self
    }

    /// A call; the stop reason becomes `tool_use`. The arguments come in small pieces.
    pub fn tool(self, id: &str, name: &str, input: &Value) -> Self {
        self.raw_tool(id, name, &input.to_string())
    }

    /// A call whose arguments are this text, JSON or not.
    pub fn raw_tool(mut self, id: &str, name: &str, input: &str) -> Self {
        let text: Vec<char> = input.chars().collect();
        let deltas = text
            .chunks(7)
            .map(|c| json!({"type": "input_json_delta", "partial_json": c.iter().collect::<String>()}))
            .collect();
        let block =
            json!({"type": "tool_use", "id": id, "name": name, "input": {}, "caller": {"type": "direct"}});
        self.blocks.push((block, deltas));
        self.stop_reason = "tool_use".into();
        self
    }

    pub fn stop(mut self, reason: &str) -> Self {
        self.stop_reason = reason.into();
        self
    }

    pub fn refusal(mut self, explanation: &str) -> Self {
        self.stop_reason = "refusal".into();
        self.stop_details = json!({"type": "refusal", "category": "cyber", "explanation": explanation});
        self
    }

    /// input, output, cache creation, cache read
    pub fn usage(mut self, usage: [u64; 4]) -> Self {
        self.usage = usage;
        self
    }

    /// Pause between events.
    pub fn slow(mut self, between: Duration) -> Self {
        self.between = between;
        self
    }

    /// The events of its stream.
    pub fn events(&self) -> Vec<Value> {
        let [input, output, creation, read] = self.usage;
        let usage = json!({
            "input_tokens": input, "output_tokens": 1, "cache_creation_input_tokens": creation,
            "cache_read_input_tokens": read, "cache_creation": null, "inference_geo": null,
            "output_tokens_details": null, "server_tool_use": null, "service_tier": "standard", "speed": null,
        });
        let message = json!({
            "id": "msg_01ABC", "type": "message", "role": "assistant", "model": "claude-sonnet-4-20250514",
            "content": [], "stop_reason": null, "stop_sequence": null, "stop_details": null, "container": null,
            "diagnostics": null, "usage": usage,
        });
        let mut events = vec![json!({"type": "message_start", "message": message})];
        for (index, (block, deltas)) in self.blocks.iter().enumerate() {
            events.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
            if index == 0 {
                events.push(json!({"type": "ping"}));
            }
            for delta in deltas {
                events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
            }
            events.push(json!({"type": "content_block_stop", "index": index}));
        }
        let delta = json!({
            "stop_reason": self.stop_reason, "stop_sequence": null, "stop_details": self.stop_details, "container": null,
        });
        let usage = json!({
            "output_tokens": output, "input_tokens": input, "cache_creation_input_tokens": creation,
            "cache_read_input_tokens": read, "output_tokens_details": null, "server_tool_use": null,
        });
        events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
        events.push(json!({"type": "message_stop"}));
        events
    }

    pub fn scene(&self) -> Scene {
        let mut pieces = Vec::new();
        for event in self.events() {
            if !self.between.is_zero() && !pieces.is_empty() {
                pieces.push(Piece::Pause(self.between));
            }
            pieces.push(Piece::Event(event));
        }
        Scene { status: 200, headers: Vec::new(), pieces }
    }
}

impl From<Answer> for Scene {
    fn from(answer: Answer) -> Self {
        answer.scene()
    }
}

impl Scene {
    /// An error instead of a stream.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        let body =
            json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"});
        Self { status, headers: Vec::new(), pieces: vec![Piece::Raw(body.to_string())] }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn keep(mut self, events: usize, then: Piece) -> Self {
        let mut left = events;
        self.pieces.retain(|piece| match piece {
            Piece::Event(_) if left > 0 => {
                left -= 1;
                true
            }
            Piece::Event(_) => false,
            _ => left > 0,
        });
        self.pieces.push(then);
        self
    }

    /// The connection breaks after so many events.
    pub fn cut_after(self, events: usize) -> Self {
        self.keep(events, Piece::Cut)
    }

    /// The body ends properly after so many events: no `message_stop`.
    pub fn end_after(self, events: usize) -> Self {
        self.keep(events, Piece::Raw(String::new()))
    }

    /// Silence after so many events.
    pub fn stall_after(self, events: usize) -> Self {
        self.keep(events, Piece::Stall)
    }

    /// An `error` event after so many events.
    pub fn error_after(self, events: usize, kind: &str, message: &str) -> Self {
        let error = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": null});
        self.keep(events, Piece::Event(error))
    }

    /// What is no event after so many.
    pub fn malformed_after(self, events: usize) -> Self {
        self.keep(events, Piece::Raw("event: content_block_delta\ndata: {\"type\":\"content_blo\n\n".into()))
    }

    /// An event nobody knows, after the first.
    pub fn with_unknown_event(mut self) -> Self {
        self.pieces.insert(1, Piece::Event(json!({"type": "brand_new_event", "detail": {"x": 1}})));
        self
    }
}

/// Picks an answer by what is asked.
pub type Script = Arc<dyn Fn(&Value) -> Scene + Send + Sync>;

#[derive(Default)]
struct Shared {
    script: Option<Script>,
    scenes: VecDeque<Scene>,
    /// Sent when there are no more.
    last: Option<Scene>,
    requests: Vec<Request>,
    /// In service, the newest first; `None` where the list can't be had.
    models: Option<Vec<Value>>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub headers: HeaderMap,
    pub text: String,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// A running server; it ends with the test's runtime.
#[derive(Clone)]
pub struct Model {
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Model {
    /// Serves these answers in order, and the last one for ever after.
    pub async fn start(scenes: impl IntoIterator<Item = Scene>) -> Self {
        Self::listen("127.0.0.1:0", scenes).await
    }

    pub async fn listen(address: &str, scenes: impl IntoIterator<Item = Scene>) -> Self {
        let scenes: VecDeque<Scene> = scenes.into_iter().collect();
        let last = scenes.back().cloned();
        let models = Some(vec![
            json!({"type": "model", "id": "claude-opus-5", "display_name": "O", "created_at": "2026-02-01T00:00:00Z"}),
            json!({"type": "model", "id": "claude-sonnet-5", "display_name": "S", "created_at": "2026-09-01T00:00:00Z"}),
        ]);
        let shared = Arc::new(Mutex::new(Shared { scenes, last, models, ..Shared::default() }));
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .route("/v1/messages", axum::routing::post(answer))
            .route("/v1/models", axum::routing::get(list_models))
            .route("/scenario/{name}/v1/messages", axum::routing::post(scenario_by_path))
            .route("/scenario/{name}/v1/models", axum::routing::get(list_models))
            .with_state(shared.clone())
            .layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move {
            axum_serve(listener, app).await;
        });
        Self { url, shared }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().unwrap().requests.clone()
    }

    /// Lists these models from now on, or none can be had.
    pub fn list_models(&self, models: Option<Vec<Value>>) {
        self.shared.lock().unwrap().models = models;
    }

    /// Answers by what is asked from now on.
    pub fn answer_by(&self, script: Script) {
        self.shared.lock().unwrap().script = Some(script);
    }
}

/// Serves a router on a listener, without axum's own server and its features.
pub async fn axum_serve(listener: TcpListener, app: axum::Router) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let service = hyper_util::service::TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

async fn list_models(State(shared): State<Arc<Mutex<Shared>>>) -> Response {
    match shared.lock().unwrap().models.clone() {
        Some(models) => {
            let body = json!({"data": models, "has_more": false, "first_id": null, "last_id": null});
            Response::builder()
                .header("content-type", "application/json")
                .body(Body::from(body.to_string()))
                .unwrap()
        }
        None => replay(Scene::error(404, "not_found_error", "Not found")),
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, headers: HeaderMap, body: Bytes) -> Response {
    let scene = {
        let mut shared = shared.lock().unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        shared.requests.push(Request { headers: headers.clone(), text });
        let script = shared.script.clone();
        let by_script = script.map(|script| script(&serde_json::from_slice(&body).unwrap()));
        let next = by_script.or_else(|| shared.scenes.pop_front());
        next.or_else(|| shared.last.clone()).expect("an answer")
    };
    replay(scene)
}

/// A scenario for clients that pick one by their base address. A request that already has the
/// tool's answer gets a plain one.
async fn scenario_by_path(Path(name): Path<String>, body: Bytes) -> Response {
    let goes_on = String::from_utf8_lossy(&body).contains("tool_result");
    let name = if goes_on { "text" } else { name.as_str() };
    match scenario(name) {
        Some(scene) => replay(scene),
        None => replay(Scene::error(404, "not_found_error", "no such scenario")),
    }
}

fn replay(scene: Scene) -> Response {
    let mut response = Response::builder().status(scene.status).header("request-id", "req_1");
    let kind = if scene.status == 200 { "text/event-stream; charset=utf-8" } else { "application/json" };
    response = response.header("content-type", kind);
    for (name, value) in &scene.headers {
        response = response.header(name, value);
    }
    let pieces = stream::unfold(scene.pieces.into_iter(), |mut pieces| async move {
        loop {
            let bytes = match pieces.next()? {
                Piece::Event(event) => {
                    let event = event.to_string().replace(NOW, &now_us().to_string());
                    let event: Value = serde_json::from_str(&event).unwrap();
                    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())
                }
                Piece::Raw(text) => text,
                Piece::Pause(time) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
                Piece::Cut => {
                    // What was sent before is on its way.
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    return Some((Err(std::io::Error::other("cut")), Vec::new().into_iter()));
                }
                Piece::Stall => std::future::pending().await,
            };
            return Some((Ok(Bytes::from(bytes)), pieces));
        }
    });
    response.body(Body::from_stream(pieces)).unwrap()
}

/// Becomes the time of its sending, in Unix microseconds.
pub const NOW: &str = "@now@";

pub fn now_us() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros()
}

/// Scenarios by name, for clients that pick one by their base address.
pub const SCENARIOS: &[&str] = &[
    "text",
    "tool",
    "parallel-tools",
    "thinking",
    "max-tokens",
    "stop-sequence",
    "pause-turn",
    "refusal",
    "context-window",
    "compaction",
    "unknown-event",
    "slow",
    "cut",
    "end-early",
    "malformed",
    "error-midway",
    "overloaded",
    "rate-limited",
    "invalid",
    "no-model",
];

/// A scenario by its name.
pub fn scenario(name: &str) -> Option<Scene> {
    let hello = || Answer::new().text(&["Hel", "lo", " there."]);
    Some(match name {
        "text" => hello().usage([10, 5, 3, 4]).scene(),
        "tool" => hello().tool("toolu_1", "grep", &json!({"pattern": "TODO", "path": "src"})).scene(),
        "parallel-tools" => Answer::new()
            .tool("toolu_1", "read_file", &json!({"path": "a"}))
            .tool("toolu_2", "list_files", &json!({}))
            .scene(),
        "thinking" => Answer::new()
            .thinking("Let me see.", "c2lnbmF0dXJl")
            .block(json!({"type": "redacted_thinking", "data": "b3BhcXVl"}))
            .text(&["Done."])
            .scene(),
        "max-tokens" => hello().stop("max_tokens").scene(),
        "stop-sequence" => hello().stop("stop_sequence").scene(),
        "pause-turn" => hello().stop("pause_turn").scene(),
        "refusal" => hello().refusal("This looks like an attack.").scene(),
        "context-window" => hello().stop("model_context_window_exceeded").scene(),
        "compaction" => {
            let mut scene = Answer::new().text(&["Going on."]);
            let delta = json!({"type": "compaction_delta", "content": "So far so good."});
            scene.blocks.insert(0, (json!({"type": "compaction", "content": null}), vec![delta]));
            scene.scene()
        }
        "unknown-event" => hello().scene().with_unknown_event(),
        "slow" => hello().slow(Duration::from_millis(30)).scene(),
        "cut" => hello().scene().cut_after(4),
        "end-early" => hello().scene().end_after(5),
        "malformed" => hello().scene().malformed_after(3),
        "error-midway" => hello().scene().error_after(4, "overloaded_error", "Overloaded"),
        "overloaded" => Scene::error(529, "overloaded_error", "Overloaded"),
        "rate-limited" => Scene::error(429, "rate_limit_error", "Slow down").header("retry-after-ms", "20"),
        "invalid" => Scene::error(400, "invalid_request_error", "messages: at least one is required"),
        // For clients with that server, and that tool allowed.
        "mcp-echo" => hello()
            .tool("toolu_1", "mcp__everything__echo", &json!({"message": "over there"}))
            .tool("toolu_2", "mcp__everything__get-sum", &json!({"a": 1, "b": 2}))
            .scene(),
        "no-model" => Scene::error(404, "not_found_error", "model: claude-0"),
        _ => return None,
    })
}
