//! The hub's MCP server at the wire and through `legwork mcp`, in each revision that it speaks.

use std::process::Stdio;

use legwork_e2e::{Pair, legwork, until};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const NEWEST: &str = "2026-07-28";
const RULES: &[(&str, &str)] =
    &[("*", "deny"), ("echo *", "allow"), ("cat *", "allow"), ("sleep *", "allow"), ("touch *", "ask")];

struct Mcp {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Mcp {
    fn new(url: &str, token: &str) -> Self {
        Self { http: reqwest::Client::new(), url: format!("{url}/mcp"), token: token.into() }
    }

    async fn send(&self, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let mut request = self.http.post(&self.url).bearer_auth(&self.token).body(body.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Asks in the newest revision.
    async fn ask(&self, method: &str, mut params: Value) -> (u16, Value) {
        let capabilities = json!({ "elicitation": { "form": {} } });
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = NEWEST.into();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
        let name = params["name"].as_str().unwrap_or_default().to_owned();
        let headers = [("mcp-protocol-version", NEWEST), ("mcp-method", method), ("mcp-name", &name)];
        self.send(&headers, &json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })).await
    }

    async fn call(&self, name: &str, arguments: Value) -> Value {
        let (status, answer) = self.ask("tools/call", json!({ "name": name, "arguments": arguments })).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"].clone()
    }
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_default()
}

async fn token(pair: &Pair, name: &str, role: &str) -> String {
    let (_, made) = pair.api.post("/tokens", json!({ "name": name, "role": role })).await;
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_model_looks_around_and_is_told_what_it_may_not() {
    let pair = Pair::with_rules(RULES).await;
    std::fs::write(pair.runner.workspace.join("app.conf"), "port = 80\nname = x\n").unwrap();
    let mcp = Mcp::new(&pair.hub.url, &token(&pair, "model", "operator").await);
    let (_, found) = mcp.ask("server/discover", json!({})).await;
    assert_eq!(found["result"]["supportedVersions"], json!([NEWEST, "2025-11-25", "2025-06-18"]));
    assert_eq!(found["result"]["resultType"], "complete");

    let machines =
        mcp.call("list_machines", json!({ "name": "r*", "labels": ["os:linux"], "online": true })).await;
    assert_eq!(machines["structuredContent"]["machines"][0]["name"], "r1", "{machines}");
    assert!(text(&mcp.call("machine_facts", json!({ "machine": "r1" })).await).contains("num_cpu"));
    let r1 = |mut args: Value| {
        args["machine"] = "r1".into();
        args
    };
    assert_eq!(
        text(&mcp.call("read_file", r1(json!({ "path": "app.conf", "limit": 4 }))).await).lines().next(),
        Some("port")
    );
    assert!(text(&mcp.call("list_files", r1(json!({}))).await).contains("app.conf 19"));
    assert!(text(&mcp.call("find_files", r1(json!({ "pattern": "*.conf" }))).await).contains("app.conf"));
    assert!(
        text(&mcp.call("search_files", r1(json!({ "pattern": "port" }))).await).contains("app.conf:1:port")
    );
    let wrote = mcp.call("write_file", r1(json!({ "path": "new", "content": "größe" }))).await;
    assert_eq!(wrote["isError"], false, "{wrote}");
    assert_eq!(std::fs::read_to_string(pair.runner.workspace.join("new")).unwrap(), "größe");

    let ran = mcp.call("run", r1(json!({ "command": "echo hello" }))).await;
    assert!(text(&ran).contains("hello") && ran["structuredContent"]["state"] == "succeeded", "{ran}");
    // What is refused is an error that says what to write instead.
    let refused = mcp.call("run", r1(json!({ "command": "/bin/cat app.conf" }))).await;
    assert_eq!(refused["isError"], true, "{refused}");
    assert!(text(&refused).contains("write instead: cat app.conf"), "{refused}");
    // Long output is cut, with a pointer that leads to the rest.
    let long = mcp.call("run", r1(json!({ "command": "echo {1..20000}" }))).await;
    assert!(text(&long).contains("task_output reads all of it"), "{}", text(&long).len());
    let task = long["structuredContent"]["task"].clone();
    let (mut after, mut all) = (json!(0), 0);
    loop {
        let part = mcp.call("task_output", json!({ "task": task, "after": after })).await;
        assert!(text(&part).len() < 60_000);
        all += text(&part).len();
        after = part["structuredContent"]["next"].clone();
        if part["structuredContent"]["over"] == true {
            break;
        }
    }
    assert!(all > 108_000, "{all}");
    // Arguments and tools that are none.
    for (name, args, why) in [
        ("run", json!({ "command": "x" }), "machine or labels"),
        ("run", json!({ "cmd": "x" }), "no argument 'cmd'"),
        ("machine_facts", json!({ "machine": "nobody" }), "no machine 'nobody'"),
        ("read_file", json!({ "machine": "r1", "path": "../etc/passwd" }), "outside"),
    ] {
        let result = mcp.call(name, args).await;
        assert!(result["isError"] == true && text(&result).contains(why), "{result}");
    }
    let (_, unknown) = mcp.ask("tools/call", json!({ "name": "answer_approval", "arguments": {} })).await;
    assert_eq!(unknown["error"]["code"], -32602, "its role does not reach so far");
}

#[tokio::test]
async fn a_long_command_is_followed_and_ended() {
    let pair = Pair::with_rules(RULES).await;
    let mcp = Mcp::new(&pair.hub.url, &pair.hub.admin);
    let args = json!({ "machine": "r1", "command": "echo begun; sleep 600", "wait_s": 3, "timeout_s": 900 });
    // Its progress is told on the way.
    let params = json!({ "name": "run", "arguments": args, "_meta": { "progressToken": "p1" } });
    let (_, events) = mcp.ask("tools/call", params).await;
    let events = events.as_str().unwrap();
    assert!(
        events.contains("notifications/progress") && events.contains("\"progressToken\":\"p1\""),
        "{events}"
    );
    let last: Value = serde_json::from_str(events.trim().rsplit("data: ").next().unwrap()).unwrap();
    let task = last["result"]["structuredContent"]["task"].clone();
    assert_eq!(last["result"]["structuredContent"]["state"], "running", "{last}");
    let output = mcp.call("task_output", json!({ "task": task })).await;
    assert!(text(&output).contains("begun") && output["structuredContent"]["over"] == false, "{output}");
    assert_eq!(mcp.call("cancel_task", json!({ "task": task })).await["isError"], false);
    let end = mcp.call("task_status", json!({ "task": task, "wait_s": 60 })).await;
    assert_eq!(end["structuredContent"]["state"], "cancelled", "{end}");
    // Who hangs up does not leave it running.
    let args = json!({ "machine": "r1", "command": "sleep 601", "wait_s": 100, "timeout_s": 900 });
    let running = tokio::spawn(async move { mcp.call("run", args).await });
    let api = &pair.api;
    until("it runs", async || api.get("/tasks?state=running").await.1["items"].get(0).is_some()).await;
    let id = api.get("/tasks?state=running").await.1["items"][0]["id"].as_str().unwrap().to_owned();
    running.abort();
    assert_eq!(api.end(&id).await["state"], "cancelled");
}

#[tokio::test]
async fn a_yes_is_a_persons_and_asked_of_that_person() {
    let pair = Pair::with_rules(RULES).await;
    let model = Mcp::new(&pair.hub.url, &token(&pair, "model", "operator").await);
    let alice = Mcp::new(&pair.hub.url, &token(&pair, "alice", "approver").await);
    let args = json!({ "machine": "r1", "command": "touch made", "reason": "the lock", "wait_s": 100 });
    // It is told at once, and may go on elsewhere.
    let held = model.call("run", args).await;
    assert_eq!(held["structuredContent"]["state"], "held", "{held}");
    let id = held["structuredContent"]["runs"][0]["approval"].clone();
    assert!(text(&alice.call("list_approvals", json!({})).await).contains("because: the lock"));
    let yes = json!({ "approval": id, "answer": "yes" });
    let question = alice.call("answer_approval", yes.clone()).await;
    assert_eq!(question["resultType"], "input_required", "{question}");
    let asked = &question["inputRequests"]["yes"]["params"];
    assert!(asked["message"].as_str().unwrap().contains("'touch' 'made'"), "{question}");
    let answer = |state: Value, action: &str| {
        json!({
            "name": "answer_approval", "arguments": yes, "requestState": state,
            "inputResponses": { "yes": { "action": action, "content": { "answer": "yes" } } },
        })
    };
    for (state, action, why) in [
        (json!("9999999999999.AAAA"), "accept", "another question"),
        (question["requestState"].clone(), "decline", "did not answer"),
    ] {
        let (_, refused) = alice.ask("tools/call", answer(state, action)).await;
        assert!(text(&refused["result"]).contains(why), "{refused}");
    }
    assert!(!pair.runner.workspace.join("made").exists());
    let (_, said) = alice.ask("tools/call", answer(question["requestState"].clone(), "accept")).await;
    assert_eq!(said["result"]["structuredContent"]["state"], "approved", "{said}");
    let end =
        model.call("task_status", json!({ "task": held["structuredContent"]["task"], "wait_s": 60 })).await;
    assert_eq!(end["structuredContent"]["state"], "succeeded", "{end}");
    assert!(pair.runner.workspace.join("made").exists());
}

#[tokio::test]
async fn requests_are_answered_as_each_revision_says() {
    let pair = Pair::with_rules(RULES).await;
    let mcp = Mcp::new(&pair.hub.url, &pair.hub.admin);
    let request = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    for version in ["2025-11-25", "2025-06-18", "1999-01-01"] {
        let (_, hello) = mcp.send(&[], &request("initialize", json!({ "protocolVersion": version }))).await;
        let settled = if version == "1999-01-01" { "2025-11-25" } else { version };
        assert_eq!(hello["result"]["protocolVersion"], settled, "{hello}");
        let headers = [("mcp-protocol-version", settled)];
        let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(mcp.send(&headers, &note).await.0, 202);
        let (_, list) = mcp.send(&headers, &request("tools/list", json!({}))).await;
        assert!(
            list["result"]["tools"].as_array().unwrap().len() > 10 && list["result"]["resultType"].is_null()
        );
        let params = json!({ "name": "list_machines", "arguments": {} });
        assert_eq!(mcp.send(&headers, &request("tools/call", params)).await.1["result"]["isError"], false);
    }
    let (status, error) = mcp.ask("resources/list", json!({})).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!(-32601)));
    for (headers, body, want) in [
        (vec![("mcp-protocol-version", "2031-01-01")], request("tools/list", json!({})), (400, -32022)),
        (vec![("mcp-protocol-version", NEWEST)], request("tools/list", json!({})), (400, -32020)),
        (vec![("origin", "http://evil.example")], request("tools/list", json!({})), (403, -32600)),
        (vec![], json!([1, 2]), (400, -32600)),
        (vec![], json!({ "jsonrpc": "2.0", "id": 1, "result": {} }), (400, -32600)),
    ] {
        let (status, error) = mcp.send(&headers, &body).await;
        assert_eq!((status, error["error"]["code"].as_i64()), (want.0, Some(want.1)), "{headers:?} {error}");
    }
    for (token, want) in [("nonsense", 401), (&*token(&pair, "x", "enroll").await, 403)] {
        let (status, _) = Mcp::new(&pair.hub.url, token).send(&[], &request("tools/list", json!({}))).await;
        assert_eq!(status, want);
    }
    let get = mcp.http.get(&mcp.url).bearer_auth(&mcp.token).send().await.unwrap();
    assert_eq!(get.status().as_u16(), 405);
}

#[tokio::test]
async fn a_client_that_starts_a_program_has_the_same_tools() {
    let pair = Pair::with_rules(RULES).await;
    let mut child = legwork(pair.dir.path())
        .arg("mcp")
        .env("LEGWORK_HUB_URL", &pair.hub.url)
        .env("LEGWORK_TOKEN", &pair.hub.admin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut say = async |message: Value| input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    say(json!({ "jsonrpc": "2.0", "id": "a", "method": "initialize", "params": { "protocolVersion": "2025-06-18" } })).await;
    let hello: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!((&hello["id"], &hello["result"]["protocolVersion"]), (&json!("a"), &json!("2025-06-18")));
    say(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    let call = |id: u32, command: &str| {
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
            "name": "run", "arguments": { "machine": "r1", "command": command, "wait_s": 100, "timeout_s": 900 },
        } })
    };
    // A long one holds up nobody, and is ended by the client's word.
    say(call(1, "sleep 602")).await;
    let api = &pair.api;
    until("it runs", async || api.get("/tasks?state=running").await.1["items"].get(0).is_some()).await;
    let id = api.get("/tasks?state=running").await.1["items"][0]["id"].as_str().unwrap().to_owned();
    say(call(2, "echo quick")).await;
    let quick: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert!(quick["id"] == 2 && text(&quick["result"]).contains("quick"), "{quick}");
    say(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } })).await;
    assert_eq!(api.end(&id).await["state"], "cancelled");
    say(json!("nonsense")).await;
    let refused: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap_or_default();
    assert!(refused["error"]["code"].is_i64(), "{refused}");
    drop(input);
    assert!(child.wait().await.unwrap().success());
}
