//! The contract of the REST API: hubs of other versions, and the examples of docs/api.md.

use std::path::Path;

use axum::response::IntoResponse;
use legwork_e2e::{ALLOW_ALL, Api, Hub, Runner, legwork, until};
use serde_json::{Value, json};

/// A hub that says what it is told to, whatever is asked.
async fn hub_that_says(answers: &'static [(&'static str, u16, &'static str)]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move |uri: axum::http::Uri| async move {
        let found = answers.iter().find(|(known, _, _)| uri.path().ends_with(known));
        let (_, status, text) = found.unwrap_or(&("", 404, "{}"));
        (axum::http::StatusCode::from_u16(*status).unwrap(), *text).into_response()
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

async fn cli(url: &str, args: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = legwork(home.path());
    command.args(args).env("LEGWORK_HUB_URL", url).env("LEGWORK_TOKEN", "lwk_t");
    let output = tokio::time::timeout(legwork_e2e::DEADLINE, command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_hub_of_a_later_version_is_understood_as_far_as_we_know_it() {
    let url = hub_that_says(&[
        ("/tasks", 200, r#"{"items":[{"id":"tsk_1","operation":"dance","state":"held","mood":"good","runs":[
            {"id":"run_1","runner":"r9","runner_id":"wn_1","state":"held","steps":[1]}]}],"next":null,"total":1}"#),
        ("/tasks/tsk_1", 200, r#"{"id":"tsk_1","operation":"dance","state":"held","mood":"good","runs":[]}"#),
        ("/runners", 200, r#"{"items":[{"id":"wn_1","name":"r9","status":"asleep","labels":[],"colour":"red"}],"next":null}"#),
        ("/tokens", 418, r#"{"status":418,"detail":"short and stout","code":"teapot","field":"x","more":{}}"#),
    ])
    .await;
    let (code, out, err) = cli(&url, &["tasks"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("tsk_1") && out.contains("held") && out.contains("r9"), "{out}");
    let (_, out, _) = cli(&url, &["tasks", "--state", "held", "--json"]).await;
    let items: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&items[0]["mood"], &items[0]["runs"][0]["steps"]), (&json!("good"), &json!([1])));
    let (_, out, _) = cli(&url, &["tasks", "tsk_1"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["mood"], "good");
    let (code, out, err) = cli(&url, &["runners"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("asleep"), "{out}");
    let (code, _, err) = cli(&url, &["token", "list"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("short and stout"), "{err}");
}

#[tokio::test]
async fn a_hub_of_version_0_1_is_understood() {
    let url = hub_that_says(&[
        ("/tasks", 400, "Failed to deserialize query string: limit: invalid digit found in string"),
        ("/runners", 200, r#"{"items":[{"id":"wn_1","name":"r1","status":"online","labels":["a:b"],"version":"0.1.0"}],"next":null}"#),
        ("/tokens", 403, r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"this needs the role admin"}"#),
        ("/pods/runners", 200, "<html>a proxy's page</html>"),
    ])
    .await;
    let (code, _, err) = cli(&url, &["tasks"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("the hub refused (400 Bad Request): Failed to deserialize"), "{err}");
    let (code, out, _) = cli(&url, &["runners"]).await;
    assert_eq!(code, 0);
    assert!(out.contains("r1") && out.contains("a:b"), "{out}");
    let (_, _, err) = cli(&url, &["token", "list"]).await;
    assert!(err.contains("the hub refused (403 Forbidden): this needs the role admin"), "{err}");
    let (code, _, err) = cli(&url, &["pods", "runners"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("unreadable answer"), "{err}");
}

/// Whether an answer has all that an example shows; `…` stands for what differs each time.
fn has(answer: &Value, example: &Value) -> bool {
    match (answer, example) {
        (Value::Object(answer), Value::Object(example)) => {
            example.iter().all(|(key, value)| answer.get(key).is_some_and(|answer| has(answer, value)))
        }
        (Value::Array(answer), Value::Array(example)) => {
            answer.len() == example.len()
                && answer.iter().zip(example).all(|(answer, example)| has(answer, example))
        }
        (Value::String(answer), Value::String(example)) => match example.strip_suffix('…') {
            Some(start) => answer.starts_with(start) && answer.len() > start.len(),
            None => answer == example,
        },
        (answer, example) => answer == example,
    }
}

/// Each block of shell in docs/api.md, one after the other, and the JSON behind it.
#[tokio::test]
async fn the_examples_of_the_api_page_do_what_they_say() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let page = std::fs::read_to_string(page).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("web-1").await;
    let runner = Runner::start(&dir.path().join("web-1"), &hub.address(), &token, ALLOW_ALL).await;
    let api: Api = hub.api();
    until("the runner connects", || api.is_online("web-1")).await;
    let (mut ran, mut blocks) = (0, page.split("```sh\n").skip(1).peekable());
    assert!(blocks.peek().is_some());
    for block in blocks {
        let (script, rest) = block.split_once("```").unwrap();
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-euc", script]).current_dir(dir.path()).kill_on_drop(true);
        shell.env("HUB", &hub.url).env("TOKEN", &hub.admin);
        let output = tokio::time::timeout(legwork_e2e::DEADLINE, shell.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        let Some(example) = rest.strip_prefix("\n```json\n").and_then(|rest| rest.split_once("```")) else {
            continue;
        };
        let example: Value = serde_json::from_str(example.0).unwrap_or_else(|e| panic!("{e}: {}", example.0));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(has(&answer, &example), "{script}\nanswers {answer:#}\nand not {example:#}");
        ran += 1;
    }
    assert!(ran >= 5, "only {ran} examples");
    drop(runner);
}
