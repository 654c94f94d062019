//! What is out of reach: for a task's runner what others' tasks have, and for other operators a task that
//! was given what is not theirs.

use legwork_e2e::{Api, Hub, until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A hub whose runners the test plays.
struct Desk {
    hub: Hub,
    http: reqwest::Client,
    path: String,
    _dir: tempfile::TempDir,
}

/// A task that a runner was given.
struct Given {
    answer: Value,
    callback: reqwest::Url,
}

impl Given {
    fn id(&self) -> u64 {
        self.answer["task"]["id"].as_u64().unwrap()
    }

    /// An address beside that of its events.
    fn beside(&self, name: &str) -> reqwest::Url {
        let mut url = self.callback.clone();
        url.set_path(&url.path().replace("/stream", name));
        url
    }
}

impl Desk {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::start(&dir.path().join("hub")).await;
        let path = hub.api().get("/pods/registration").await.1["path"].as_str().unwrap().to_owned();
        Self { hub, http: reqwest::Client::new(), path, _dir: dir }
    }

    async fn submit(&self, body: Value) -> u64 {
        let (status, task) = self.hub.api().post("/pods/tasks", body).await;
        assert_eq!(status, 202, "{task}");
        task["id"].as_u64().unwrap()
    }

    /// What a runner is given that asks now, if it is given something.
    async fn ask(&self, name: &str) -> Option<Given> {
        let said = json!({
            "pod_name": name, "pod_ip": "10.0.0.9", "version": "1", "capabilities": ["agent", "workflow"],
        });
        let answer =
            self.http.post(format!("{}{}", self.hub.url, self.path)).json(&said).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let callback = reqwest::Url::parse(answer["callback_url"].as_str()?).unwrap();
        Some(Given { answer, callback })
    }

    async fn end(&self, given: &Given) {
        let done = json!({"type": "done"});
        let answer = self.http.post(given.callback.clone()).json(&done).send().await.unwrap();
        assert!(answer.status().is_success());
        let path = format!("/pods/tasks/{}", given.id());
        until("its end", || async { self.hub.api().get(&path).await.1["state"] == "succeeded" }).await;
    }

    /// Puts words into the session of a task.
    async fn remember(&self, given: &Given, words: &str) {
        let session = json!({"messages": [{"role": "user", "content": words}]});
        let kept = self.http.post(given.beside("/session")).json(&session).send().await.unwrap();
        assert!(kept.status().is_success());
    }

    /// What a task's runner reads of a session.
    async fn recall(&self, given: &Given, of: Option<&str>) -> (u16, String) {
        let mut url = given.beside("/session");
        if let Some(of) = of {
            url.query_pairs_mut().append_pair("of", of);
        }
        let answer = self.http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

fn agent() -> Value {
    json!({"type": "agent", "messages": [{"role": "user", "content": "go"}], "tools": ["shell"], "guided": true})
}

#[tokio::test]
async fn a_runner_reads_the_sessions_of_its_own_task_alone() {
    let desk = Desk::open().await;
    desk.submit(json!({"config": agent(), "session_id": "victim"})).await;
    let victim = desk.ask("p-1").await.unwrap();
    desk.remember(&victim, "the victim's words").await;
    desk.end(&victim).await;
    desk.submit(json!({"config": agent(), "session_id": "mine"})).await;
    let mine = desk.ask("p-1").await.unwrap();
    // What there is not is refused as what is not its own.
    for of in ["victim", "nobody"] {
        let (status, text) = desk.recall(&mine, Some(of)).await;
        assert!(status == 403 && !text.contains("words"), "{of}: {status} {text}");
    }
    desk.remember(&mine, "my words").await;
    for of in [None, Some("mine")] {
        let (status, text) = desk.recall(&mine, of).await;
        assert!(status == 200 && text.contains("my words"), "{status} {text}");
    }
    desk.end(&mine).await;
    let mut fork = agent();
    fork["fork_of"] = "victim".into();
    desk.submit(json!({"config": fork, "session_id": "fork"})).await;
    // A hub that starts again knows it still.
    let desk = Desk { hub: desk.hub.crash_and_restart().await, ..desk };
    let fork = desk.ask("p-1").await.unwrap();
    let (status, text) = desk.recall(&fork, Some("victim")).await;
    assert!(status == 200 && text.contains("the victim's words"), "{status} {text}");
    assert_eq!(desk.recall(&fork, Some("mine")).await.0, 403);
}

#[tokio::test]
async fn a_runner_gets_the_pieces_of_its_own_tree_alone() {
    let desk = Desk::open().await;
    let name =
        |piece: &[u8]| -> String { Sha256::digest(piece).iter().map(|b| format!("{b:02x}")).collect() };
    let tree = |file: &[u8]| {
        let text = format!("legwork-tree 1\nF 644 {} {} a\n", file.len(), name(file));
        zstd::encode_all(text.as_bytes(), 3).unwrap()
    };
    let (mine, victims) = (tree(b"my file"), tree(b"the victim's file"));
    let mut body = Vec::new();
    for piece in [&b"my file"[..], b"the victim's file", &mine, &victims] {
        legwork_proto::pieces::put(&mut body, &Sha256::digest(piece).into(), piece);
    }
    let sent =
        desk.http.post(format!("{}/trees/pieces", desk.hub.url)).bearer_auth(&desk.hub.admin).body(body);
    assert!(sent.send().await.unwrap().status().is_success());
    let ask = async |given: &Given, digests: &[String]| {
        let question = desk.http.post(given.beside("/pieces")).json(&json!({ "digests": digests }));
        let answer = question.send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap())
    };
    desk.submit(json!({"config": agent()})).await;
    let none = desk.ask("p-1").await.unwrap();
    assert_eq!(ask(&none, &[name(&mine)]).await.0, 403, "a task without a tree");
    desk.end(&none).await;
    let mut config = agent();
    config["source"] = json!({ "tree": name(&mine) });
    desk.submit(json!({ "config": config })).await;
    let given = desk.ask("p-1").await.unwrap();
    let (status, body) = ask(&given, &[name(&mine), name(b"my file")]).await;
    let got: Vec<_> =
        legwork_proto::pieces::Pieces::of(&body).map(|piece| piece.unwrap().1.to_vec()).collect();
    assert_eq!((status, got), (200, vec![mine.clone(), b"my file".to_vec()]));
    for other in [vec![name(b"the victim's file")], vec![name(&mine), name(&victims)]] {
        let (status, body) = ask(&given, &other).await;
        assert!(status == 403 && !body.windows(6).any(|part| part == b"victim"), "{status} {body:?}");
    }
}

/// What alice alone may have.
const KEY: &str = "key-0123456789";

impl Desk {
    async fn operator(&self, name: &str) -> Api {
        let (status, made) = self.hub.api().post("/tokens", json!({"name": name, "role": "operator"})).await;
        assert_eq!(status, 201, "{made}");
        Api::new(&self.hub.url, made["token"].as_str().unwrap())
    }

    async fn secret(&self, secret: Value) {
        let (status, answer) = self.hub.api().post("/secrets", secret).await;
        assert_eq!(status, 200, "{answer}");
    }
}

fn with_secret(name: &str) -> Value {
    let mut config = agent();
    config["secrets"] = json!([name]);
    config
}

fn fork(of: &str) -> Value {
    let mut config = agent();
    config["fork_of"] = of.into();
    config
}

fn is_refused((status, answer): (u16, Value)) -> bool {
    let detail = answer["detail"].as_str().unwrap_or_default();
    let is_clear = detail.contains("'KEY'") && detail.contains("not for the token 'bob'");
    status == 403 && answer["code"] == "forbidden" && is_clear
}

#[tokio::test]
async fn a_secret_of_a_token_is_for_nobody_else_who_steers_its_task() {
    let desk = Desk::open().await;
    desk.secret(json!({"name": "KEY", "value": KEY, "tokens": ["alice"]})).await;
    let (alice, bob) = (desk.operator("alice").await, desk.operator("bob").await);
    let submit = async |by: &Api, config: Value, session: &str| {
        by.post("/pods/tasks", json!({"config": config, "session_id": session})).await
    };
    assert_eq!(submit(&alice, with_secret("KEY"), "s").await.0, 202);
    let given = desk.ask("p-1").await.unwrap();
    assert_eq!(given.answer["task"]["secrets"]["KEY"], KEY);
    let input = format!("/pods/tasks/{}/input", given.id());
    let answer = json!({"answer": {"tool_id": "t1", "allow": true}});
    for words in [json!({"say": "print the key"}), answer.clone()] {
        assert!(is_refused(bob.post(&input, words).await));
    }
    let admin = desk.hub.api();
    for (by, words) in [(&alice, json!({"say": "go on"})), (&alice, answer), (&admin, json!({"say": "stop"}))]
    {
        assert_eq!(by.post(&input, words).await.0 / 100, 2);
    }
    desk.remember(&given, "the key is in here").await;
    let is_closed = async |bob: &Api| {
        is_refused(submit(bob, agent(), "s").await)
            && is_refused(submit(bob, fork("s"), "mine").await)
            && is_refused(bob.send("DELETE", "/pods/sessions/s", None).await)
    };
    assert!(is_closed(&bob).await);
    // A task that stood there before the session was for alice reads nothing of it.
    assert_eq!(submit(&bob, agent(), "early").await.0, 202);
    assert_eq!(submit(&bob, fork("s2"), "early-fork").await.0, 202);
    desk.end(&given).await;
    for session in ["early", "s2"] {
        assert_eq!(submit(&alice, with_secret("KEY"), session).await.0, 202);
    }
    for (name, of) in [("p-2", None), ("p-3", Some("s2"))] {
        let early = desk.ask(name).await.unwrap();
        assert_eq!(desk.recall(&early, of).await.0, 403, "{of:?}");
    }
    // Neither the secret's end nor the hub's makes it anybody's; a fork of it is alice's as well.
    assert_eq!(admin.send("DELETE", "/secrets/KEY", None).await.0, 204);
    let desk = Desk { hub: desk.hub.crash_and_restart().await, ..desk };
    assert!(is_closed(&bob).await);
    assert_eq!(submit(&alice, fork("s"), "t").await.0, 202);
    assert!(is_refused(submit(&bob, agent(), "t").await));
    assert_eq!(submit(&alice, agent(), "s").await.0, 202);
    // Sessions of nobody's secrets are for all, as before.
    assert_eq!(submit(&bob, agent(), "free").await.0, 202);
    assert_eq!(submit(&alice, agent(), "free").await.0, 202);
    assert_eq!(desk.hub.api().send("DELETE", "/pods/sessions/s", None).await.0, 204);
}

#[tokio::test]
async fn a_lost_key_of_secrets_is_named_and_not_replaced() {
    let desk = Desk::open().await;
    let api = desk.hub.api();
    for name in ["KEY", "OTHER"] {
        desk.secret(json!({"name": name, "value": KEY})).await;
    }
    let waiting = desk.submit(json!({"config": with_secret("KEY")})).await;
    let key = desk.hub.data.join("secrets.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let is_told = |text: &str| {
        text.contains(key.to_str().unwrap())
            && text.contains("LEGWORK_SECRETS_KEY_FILE")
            && !text.contains("there is no secret")
            && !key.exists()
    };
    for (path, body) in [
        ("/secrets", json!({"name": "NEW", "value": KEY})),
        ("/pods/tasks", json!({"config": with_secret("KEY")})),
    ] {
        let (status, answer) = api.post(path, body).await;
        assert!(status == 503 && is_told(answer["detail"].as_str().unwrap()), "{path}: {status} {answer}");
    }
    assert!(desk.ask("p-1").await.is_none());
    let end = api.get(&format!("/pods/tasks/{waiting}")).await.1;
    assert!(end["state"] == "failed" && is_told(end["error"].as_str().unwrap()), "{end}");
    assert_eq!(api.get("/secrets").await.1["items"].as_array().unwrap().len(), 2);
    std::fs::write(&key, kept).unwrap();
    desk.submit(json!({"config": with_secret("KEY")})).await;
    assert_eq!(desk.ask("p-1").await.unwrap().answer["task"]["secrets"]["KEY"], KEY);
    // One record that is damaged is named, and hides no other.
    let digest = Sha256::digest("KEY");
    let file: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect::<String>() + ".json";
    std::fs::write(desk.hub.data.join("secrets").join(&file), "").unwrap();
    let listed = api.get("/secrets").await.1;
    assert_eq!((&listed["items"][0]["name"], &listed["damaged"]), (&json!("OTHER"), &json!([file])));
    let (status, answer) = api.post("/pods/tasks", json!({"config": with_secret("KEY")})).await;
    assert!(status == 503 && answer["detail"].as_str().unwrap().contains("'KEY' is damaged"), "{answer}");
    desk.secret(json!({"name": "KEY", "value": KEY})).await;
    assert!(api.get("/secrets").await.1["damaged"].is_null());
}

#[tokio::test]
async fn a_secret_for_some_runners_brings_its_task_to_one_of_them() {
    let desk = Desk::open().await;
    for (name, runners) in [("FAR", "build-*"), ("SEVEN", "build-7"), ("HERE", "p-1")] {
        desk.secret(json!({"name": name, "value": KEY, "runners": [runners]})).await;
    }
    assert!(desk.ask("p-1").await.is_none());
    let far = desk.submit(json!({"config": with_secret("FAR")})).await;
    assert!(desk.ask("p-1").await.is_none(), "it waits for another one");
    let events = desk.hub.api().get(&format!("/pods/tasks/{far}/events?follow=false")).await.1.to_string();
    assert!(events.contains("'FAR' is for the runners build-*"), "{events}");
    // It holds up nobody, and a hub that starts again knows it still.
    let free = desk.submit(json!({"config": agent()})).await;
    let given = desk.ask("p-1").await.unwrap();
    assert_eq!(given.id(), free);
    desk.end(&given).await;
    let desk = Desk { hub: desk.hub.crash_and_restart().await, ..desk };
    assert!(desk.ask("p-1").await.is_none());
    let given = desk.ask("build-3").await.unwrap();
    assert_eq!((given.id(), &given.answer["task"]["secrets"]["FAR"]), (far, &json!(KEY)));
    // Where there can be no runner it is said at once; where there can be one, not.
    for (body, reason) in [
        (json!({"config": with_secret("FAR"), "runner": "p-1"}), "'FAR' is not for the runner 'p-1'"),
        (
            json!({"config": {"type": "agent", "messages": [], "secrets": ["FAR", "HERE"]}}),
            "there is no runner that all of the task's secrets are for",
        ),
    ] {
        let (status, answer) = desk.hub.api().post("/pods/tasks", body).await;
        assert!(status == 422 && answer["detail"].as_str().unwrap().contains(reason), "{answer}");
    }
    desk.submit(json!({"config": {"type": "agent", "messages": [], "secrets": ["FAR", "SEVEN"]}})).await;
    assert!(desk.ask("build-4").await.is_none());
    assert!(desk.ask("build-7").await.is_some());
}
