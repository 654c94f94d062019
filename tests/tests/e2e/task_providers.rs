//! Other providers of the same models: Amazon Bedrock and Google's Vertex AI, played by servers that
//! check what opens them as strictly as the real ones.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use legwork_e2e::model::{Answer, axum_serve};
use legwork_e2e::pod::{Callback, Place, agent};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "session-token-0123456789";
const MODEL: &str = "eu.anthropic.claude-sonnet-5-v1:0";

/// A server in the making: what it is to answer, and what it was asked.
#[derive(Clone, Default)]
struct Played {
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    tokens: Arc<Mutex<Vec<String>>>,
    dir: Arc<std::path::PathBuf>,
    url: Arc<Mutex<String>>,
    life: u64,
}

impl Played {
    async fn start(self, app: impl Fn(Self) -> axum::Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        *self.url.lock().unwrap() = format!("http://{}", listener.local_addr().unwrap());
        let app = app(self.clone());
        tokio::spawn(async move { axum_serve(listener, app).await });
        self
    }

    fn url(&self) -> String {
        self.url.lock().unwrap().clone()
    }

    fn next(&self) -> Vec<u8> {
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

fn answers() -> [Answer; 2] {
    [
        Answer::new().text(&["Looking. "]).tool("t1", "shell", &json!({"command": "echo $((6*7))"})),
        Answer::new().text(&["It is 42."]),
    ]
}

// Amazon

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

fn frame(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(name.len() as u8);
        head.extend(name.as_bytes());
        head.push(7);
        head.extend((value.len() as u16).to_be_bytes());
        head.extend(value.as_bytes());
    }
    let mut out = ((16 + head.len() + payload.len()) as u32).to_be_bytes().to_vec();
    out.extend((head.len() as u32).to_be_bytes());
    out.extend(crc32(&out).to_be_bytes());
    out.extend(head);
    out.extend(payload.as_bytes());
    out.extend(crc32(&out).to_be_bytes());
    out
}

fn framed(events: &[Value]) -> Vec<u8> {
    let event = |event: &Value| {
        let payload = json!({"bytes": STANDARD.encode(event.to_string()), "p": "abcdefgh"}).to_string();
        let headers =
            [(":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event")];
        frame(&headers, &payload)
    };
    events.iter().flat_map(event).collect()
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let block = |pad: u8| -> Vec<u8> {
        let mut block = key.to_vec();
        block.resize(64, 0);
        block.iter().map(|byte| byte ^ pad).collect()
    };
    let inner = Sha256::digest([block(0x36), text.as_bytes().to_vec()].concat());
    Sha256::digest([block(0x5c), inner.to_vec()].concat()).to_vec()
}

fn percent(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What is wrong with a signed request; nothing if it is right to the last byte.
fn wrong_signature(path: &str, headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let header = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
    let said = header("authorization")?;
    let rest = said.strip_prefix("AWS4-HMAC-SHA256 ").unwrap_or_default();
    let part =
        |name: &str| rest.split(", ").find_map(|p| p.strip_prefix(name)).unwrap_or_default().to_owned();
    let (credential, names, signature) = (part("Credential="), part("SignedHeaders="), part("Signature="));
    let time = header("x-amz-date").unwrap_or_default();
    let scope = format!("{}/eu-west-1/bedrock/aws4_request", time.split('T').next().unwrap());
    if credential != format!("{ID}/{scope}") {
        return Some(format!("the scope is {credential}"));
    }
    for needed in ["host", "x-amz-date", "x-amz-security-token", "content-type"] {
        if !names.split(';').any(|name| name == needed) {
            return Some(format!("{needed} is not signed"));
        }
    }
    if header("x-amz-security-token").as_deref() != Some(SESSION) {
        return Some("another session".into());
    }
    let listed: String = names
        .split(';')
        .map(|name| format!("{name}:{}\n", header(name).unwrap_or_default().trim()))
        .collect();
    let path: Vec<String> = path.split('/').map(percent).collect();
    let canonical = format!("POST\n{}\n\n{listed}\n{names}\n{}", path.join("/"), hex(Sha256::digest(body)));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(Sha256::digest(canonical)));
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| hmac(&key, part));
    (signature != hex(hmac(&key, &to_sign))).then(|| "the signature we calculated does not match".to_owned())
}

async fn bedrock(State(played): State<Played>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = head.uri.path().to_owned();
    if let Some(wrong) = wrong_signature(&path, &head.headers, &body) {
        return Response::builder()
            .status(403)
            .header("x-amzn-errortype", "InvalidSignatureException:http://internal.amazon.com/")
            .body(Body::from(json!({ "message": wrong }).to_string()))
            .unwrap();
    }
    played.asked.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap()));
    let kind = "application/vnd.amazon.eventstream";
    Response::builder().header("content-type", kind).body(Body::from(played.next())).unwrap()
}

#[tokio::test]
async fn bedrock_takes_what_we_sign() {
    let throttled = [
        framed(&answers()[1].events()[..4]),
        frame(
            &[(":message-type", "exception"), (":exception-type", "throttlingException")],
            r#"{"message":"Too many tokens"}"#,
        ),
    ]
    .concat();
    let all = vec![throttled, framed(&answers()[0].events()), framed(&answers()[1].events())];
    let played = Played { answers: Arc::new(Mutex::new(all)), ..Played::default() };
    let played = played.start(|this| axum::Router::new().fallback(bedrock).with_state(this)).await;
    let run = async |secret: &str| {
        let (place, callback) = (Place::new(), Callback::start().await);
        let mut task = agent("go", &["shell"]);
        task["model"] = MODEL.into();
        let url = played.url();
        let env = [
            ("LEGWORK_PROVIDER", "bedrock"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", ID),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_SESSION_TOKEN", SESSION),
            ("ANTHROPIC_BEDROCK_BASE_URL", url.as_str()),
        ];
        let ended = place.run(&task, &callback, &env).await;
        (ended, callback)
    };
    let (ended, callback) = run(SECRET).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(callback.text(), "Looking. It is 42.");
    assert_eq!(callback.of("token_reset").len(), 1, "what came before it was throttled is void");
    let asked = played.asked();
    assert_eq!(asked.len(), 3);
    for (path, body) in &asked {
        assert_eq!(path, "/model/eu.anthropic.claude-sonnet-5-v1%3A0/invoke-with-response-stream");
        assert_eq!(body["anthropic_version"], "bedrock-2023-05-31");
        assert!(body.get("model").is_none() && body.get("stream").is_none(), "{body}");
    }
    assert!(asked[2].1.to_string().contains("42"));
    // A wrong key is told in the provider's words at once, and stands nowhere.
    let (ended, callback) = run("wrong-secret-0123456789abcdef").await;
    assert_eq!(ended.code, Some(1));
    let error = callback.of("error").remove(0).to_string();
    assert!(error.contains("does not match") && error.contains("403"), "{error}");
    assert!(!ended.log.contains("wrong-secret") && !ended.log.contains(SESSION));
}

// Google

/// Whether a claim is signed by the account's key, as openssl sees it.
fn is_signed(played: &Played, assertion: &str) -> bool {
    let (claim, signature) = assertion.rsplit_once('.').unwrap();
    let file = |name: &str| played.dir.join(name);
    std::fs::write(file("claim"), claim).unwrap();
    std::fs::write(file("signature"), URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let mut command = std::process::Command::new("openssl");
    command.current_dir(&*played.dir).args(["dgst", "-sha256", "-verify", "public.pem"]);
    command.args(["-signature", "signature", "claim"]).output().unwrap().status.success()
}

async fn token(State(played): State<Played>, body: Bytes) -> (StatusCode, String) {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let assertion = text
        .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
        .unwrap_or_default()
        .to_owned();
    let parts: Vec<Value> = assertion
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = &parts[1];
    let is_good = parts[0] == json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"})
        && claims["iss"] == "bot@p-1.iam.gserviceaccount.com"
        && claims["aud"] == format!("{}/token", played.url())
        && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        && claims["iat"].as_u64().is_some_and(|at| at <= now && at + 60 > now)
        && claims["exp"].as_u64().is_some_and(|at| at <= now + 3600)
        && is_signed(&played, &assertion);
    if !is_good {
        let said = json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."});
        return (StatusCode::BAD_REQUEST, said.to_string());
    }
    let mut tokens = played.tokens.lock().unwrap();
    let number = tokens.len();
    tokens.push(format!("ya29.token-{number}"));
    let said = json!({"access_token": tokens.last(), "expires_in": played.life, "token_type": "Bearer"});
    (StatusCode::OK, said.to_string())
}

async fn vertex(State(played): State<Played>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let wanted = format!("Bearer {}", played.tokens.lock().unwrap().last().cloned().unwrap_or_default());
    if head.headers["authorization"] != wanted {
        let error =
            json!([{"error": {"code": 401, "message": "no such token", "status": "UNAUTHENTICATED"}}]);
        return Response::builder().status(401).body(Body::from(error.to_string())).unwrap();
    }
    played.asked.lock().unwrap().push((head.uri.path().to_owned(), serde_json::from_slice(&body).unwrap()));
    Response::builder().header("content-type", "text/event-stream").body(Body::from(played.next())).unwrap()
}

fn streamed(answer: &Answer) -> Vec<u8> {
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    answer.events().iter().map(event).collect::<String>().into_bytes()
}

#[tokio::test]
async fn vertex_takes_what_a_service_account_signs() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |args: &[&str]| {
        let done = std::process::Command::new("openssl").current_dir(dir.path()).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "private.pem"]);
    openssl(&["pkey", "-in", "private.pem", "-pubout", "-out", "public.pem"]);
    let key = std::fs::read_to_string(dir.path().join("private.pem")).unwrap();
    // Of the second, each token is at its end before it is used again.
    for (life, wanted) in [(3600, 1), (60, 2)] {
        let all = answers().iter().map(streamed).collect();
        let played = Played {
            answers: Arc::new(Mutex::new(all)),
            dir: Arc::new(dir.path().to_owned()),
            life,
            ..Played::default()
        };
        let app = |this| {
            axum::Router::new().route("/token", axum::routing::post(token)).fallback(vertex).with_state(this)
        };
        let played = played.start(app).await;
        let account = json!({
            "type": "service_account", "client_email": "bot@p-1.iam.gserviceaccount.com", "private_key": key,
            "private_key_id": "key-1", "token_uri": format!("{}/token", played.url()),
        });
        let file = dir.path().join("account.json");
        std::fs::write(&file, account.to_string()).unwrap();
        let (place, callback, url) = (Place::new(), Callback::start().await, format!("{}/v1", played.url()));
        let mut task = agent("go", &["shell"]);
        task["model"] = "claude-sonnet-5@20260901".into();
        let env = [
            ("LEGWORK_PROVIDER", "vertex"),
            ("CLOUD_ML_REGION", "europe-west1"),
            ("ANTHROPIC_VERTEX_PROJECT_ID", "p-1"),
            ("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap()),
            ("ANTHROPIC_VERTEX_BASE_URL", url.as_str()),
        ];
        let ended = place.run(&task, &callback, &env).await;
        assert_eq!(ended.code, Some(0), "{} {:?}", ended.log, callback.of("error"));
        assert_eq!(callback.text(), "Looking. It is 42.");
        assert_eq!(played.tokens.lock().unwrap().len(), wanted, "tokens that are good for {life} s");
        for (path, body) in played.asked() {
            assert_eq!(
                path,
                "/v1/projects/p-1/locations/europe-west1/publishers/anthropic/models/claude-sonnet-5%4020260901:streamRawPredict"
            );
            assert_eq!(body["anthropic_version"], "vertex-2023-10-16");
            assert!(body.get("model").is_none() && body["stream"] == true, "{body}");
        }
    }
}

/// What is missing is said before anything is asked.
#[tokio::test]
async fn a_provider_without_keys_says_which() {
    for (env, wanted) in [
        (&[("LEGWORK_PROVIDER", "bedrock"), ("AWS_REGION", "eu-west-1")][..], "AWS_BEARER_TOKEN_BEDROCK"),
        (
            &[("LEGWORK_PROVIDER", "vertex"), ("CLOUD_ML_REGION", "global"), ("GOOGLE_CLOUD_PROJECT", "p")],
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
    ] {
        let (place, callback) = (Place::new(), Callback::start().await);
        let ended = place.run(&agent("go", &[]), &callback, env).await;
        assert_eq!(ended.code, Some(1));
        let error = callback.of("error").remove(0);
        assert!(error["message"].as_str().unwrap().contains(wanted), "{error}");
    }
}
