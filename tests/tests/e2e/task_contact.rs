//! People and agents at work: sessions that go on, words on the way, questions and their answers, and
//! secrets.

use legwork_e2e::model::{Answer, Model, Scene};
use legwork_e2e::pod::{Place, Pod, model_env, steps};
use legwork_e2e::{Hub, legwork, until};
use serde_json::{Value, json};

/// A hub with a task runner that asks a played model.
struct Shop {
    hub: Hub,
    model: Model,
    runner: Place,
    pod: Pod,
    _dir: tempfile::TempDir,
}

impl Shop {
    async fn open(scenes: impl IntoIterator<Item = Scene>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::start(&dir.path().join("hub")).await;
        let model = Model::start(scenes).await;
        let runner = Place::new();
        let pod = Self::pod(&hub, &model, &runner, "pool-1").await;
        Self { hub, model, runner, pod, _dir: dir }
    }

    async fn pod(hub: &Hub, model: &Model, place: &Place, name: &str) -> Pod {
        let registration = hub.api().get("/pods/registration").await.1;
        let register = format!("{}{}", hub.url, registration["path"].as_str().unwrap());
        let [key, url] = model_env(&model.url);
        place.spawn(&[
            ("MODE", "standby"),
            ("REGISTER_URL", &register),
            ("POD_NAME", name),
            ("POD_IP", "127.0.0.1"),
            key,
            url,
        ])
    }

    async fn submit(&self, config: Value, session: Option<&str>) -> u64 {
        let mut body = json!({ "config": config });
        if let Some(session) = session {
            body["session_id"] = session.into();
        }
        let (status, task) = self.hub.api().post("/pods/tasks", body).await;
        assert_eq!(status, 202, "{task}");
        task["id"].as_u64().unwrap()
    }

    async fn task(&self, id: u64) -> Value {
        self.hub.api().get(&format!("/pods/tasks/{id}")).await.1
    }

    async fn end(&self, id: u64) -> Value {
        until("the task's end", || async { !self.task(id).await["finished_at_ms"].is_null() }).await;
        self.task(id).await
    }

    async fn events(&self, id: u64) -> Vec<Value> {
        let text = self.hub.api().get(&format!("/pods/tasks/{id}/events?follow=false")).await.1;
        let data = text.as_str().unwrap_or_default().lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    async fn tell(&self, id: u64, input: Value) -> u16 {
        self.hub.api().post(&format!("/pods/tasks/{id}/input"), input).await.0
    }

    /// Waits for an event, and returns it.
    async fn event(&self, id: u64, kind: &str) -> Value {
        let found = || async { self.events(id).await.into_iter().find(|event| event["type"] == kind) };
        until(kind, || async { found().await.is_some() }).await;
        found().await.unwrap()
    }
}

fn agent(prompt: &str) -> Value {
    json!({"type": "agent", "messages": [{"role": "user", "content": prompt}], "tools": ["shell"]})
}

fn shell(id: &str, command: &str) -> Scene {
    Answer::new().tool(id, "shell", &json!({ "command": command })).scene()
}

fn said(text: &str) -> Scene {
    Answer::new().text(&[text]).scene()
}

#[tokio::test]
async fn a_session_goes_on_and_can_be_forked() {
    let shop = Shop::open([
        shell("t1", "echo seven"),
        said("It is seven."),
        said("Still seven."),
        said("Eight."),
        said("No."),
    ])
    .await;
    let first = shop.submit(agent("Which number?"), Some("s-1")).await;
    assert_eq!(shop.end(first).await["state"], "succeeded");
    let second = shop.submit(agent("And now?"), Some("s-1")).await;
    assert_eq!(shop.end(second).await["state"], "succeeded");
    let asked = |n: usize| shop.model.requests()[n].json()["messages"].clone();
    let third = asked(2);
    let words = third.to_string();
    assert_eq!(third.as_array().unwrap().len(), 5, "{words}");
    for word in ["Which number?", "seven", "It is seven.", "And now?"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    // A fork knows what was said, and leaves that as it is.
    let mut fork = agent("What if it were eight?");
    fork["fork_of"] = "s-1".into();
    let third = shop.submit(fork, Some("s-2")).await;
    assert_eq!(shop.end(third).await["state"], "succeeded");
    assert!(asked(3).to_string().contains("Still seven."));
    let fourth = shop.submit(agent("Sure?"), Some("s-1")).await;
    assert_eq!(shop.end(fourth).await["state"], "succeeded");
    let words = asked(4).to_string();
    assert!(words.contains("Still seven.") && !words.contains("eight"), "{words}");
    // The prefix is what was sent before, byte for byte: the prompt cache finds it.
    let before = shop.model.requests()[2].text.split("\"messages\":[").nth(1).unwrap().to_owned();
    let after = shop.model.requests()[4].text.split("\"messages\":[").nth(1).unwrap().to_owned();
    assert!(after.starts_with(before.trim_end_matches("]}")), "{before}\n{after}");
    // What there is not is said.
    let mut bad = agent("x");
    bad["fork_of"] = "nobody".into();
    let task = shop.end(shop.submit(bad, Some("s-3")).await).await;
    assert!(task["error"].as_str().unwrap().contains("there is no session 'nobody'"), "{task}");
    // Forgotten, it begins anew.
    assert_eq!(shop.hub.api().send("DELETE", "/pods/sessions/s-1", None).await.0, 204);
    assert_eq!(shop.hub.api().send("DELETE", "/pods/sessions/s-1", None).await.0, 404);
    let last = shop.submit(agent("Anybody?"), Some("s-1")).await;
    assert_eq!(shop.end(last).await["state"], "succeeded");
    let requests = shop.model.requests();
    assert_eq!(requests.last().unwrap().json()["messages"].as_array().unwrap().len(), 1);
}

/// Two tasks of a session at once would each know half of it; and what was killed in the middle of a
/// call can be gone on with.
#[tokio::test]
async fn tasks_of_a_session_come_one_after_the_other() {
    let mut shop = Shop::open([shell("t1", "sleep 300"), said("Next.")]).await;
    let other = Place::new();
    let _second = Shop::pod(&shop.hub, &shop.model, &other, "pool-2").await;
    let first = shop.submit(agent("one"), Some("s")).await;
    shop.event(first, "tool_start").await;
    let second = shop.submit(agent("two"), Some("s")).await;
    let third = shop.submit(steps(&["true"]), None).await;
    assert_eq!(shop.end(third).await["state"], "succeeded", "others are not held up");
    assert_eq!(shop.task(second).await["state"], "queued");
    assert_eq!(shop.hub.api().post(&format!("/pods/tasks/{first}/cancel"), json!({})).await.0 / 100, 2);
    assert_eq!(shop.end(first).await["state"], "cancelled");
    assert_eq!(shop.end(second).await["state"], "succeeded");
    let words = shop.model.requests().last().unwrap().json()["messages"].clone();
    let result = &words[2]["content"][0];
    assert!(result["tool_use_id"] == "t1" && result["is_error"] == true, "{words}");
    assert_eq!(words.as_array().unwrap().last().unwrap()["content"], "two");
    shop.pod.kill().await;
    let _ = &shop.runner;
}

#[tokio::test]
async fn an_agent_at_work_is_told_something() {
    let shop =
        Shop::open([shell("t1", "until test -e go; do sleep 0.05; done"), said("I see."), said("Done.")])
            .await;
    let id = shop.submit(agent("work"), None).await;
    shop.event(id, "tool_start").await;
    assert_eq!(shop.tell(id, json!({"say": "Leave the tests alone."})).await, 202);
    assert_eq!(shop.tell(id, json!({"say": "  "})).await, 422);
    assert_eq!(shop.tell(id, json!({})).await, 422);
    std::fs::write(shop.runner.workspace.join("go"), "").unwrap();
    assert_eq!(shop.end(id).await["state"], "succeeded");
    let requests = shop.model.requests();
    let heard = requests.iter().position(|r| r.text.contains("Leave the tests alone.")).unwrap();
    let messages = requests[heard].json()["messages"].clone();
    assert!(messages.to_string().contains("A message from admin"), "{messages}");
    let events = shop.events(id).await;
    assert!(events.iter().any(|e| e["type"] == "input" && e["by"] == "admin"), "{events:?}");
    // Whoever is over hears nothing.
    assert_eq!(shop.tell(id, json!({"say": "x"})).await, 409);
    assert_eq!(shop.tell(4711, json!({"say": "x"})).await, 404);
}

#[tokio::test]
async fn a_person_is_asked_before_a_tool_is_called() {
    let shop = Shop::open([
        shell("t1", "echo first >> done"),
        shell("t2", "echo second >> done"),
        shell("t3", "echo third >> done"),
        said("ok"),
    ])
    .await;
    let mut task = agent("work");
    task["ask"] = json!(["she*"]);
    task["ask_s"] = 2.into();
    let id = shop.submit(task, None).await;
    let ask = shop.event(id, "ask").await;
    assert_eq!((&ask["tool_id"], &ask["tool_name"]), (&json!("t1"), &json!("shell")));
    assert_eq!(ask["args"]["command"], "echo first >> done");
    // By the command line.
    let run = async |args: &[&str]| {
        let token = shop.runner.dir.path().join("token");
        std::fs::write(&token, &shop.hub.admin).unwrap();
        let mut command = legwork(shop.runner.dir.path());
        command.arg("agent").args(args).args(["--hub-url", &shop.hub.url, "--token-file"]).arg(token);
        let done = command.output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let id_text = id.to_string();
    run(&["allow", &id_text, "t1"]).await;
    let of = |events: &[Value], id: &str| events.iter().any(|e| e["type"] == "ask" && e["tool_id"] == id);
    until("the second question", || async { of(&shop.events(id).await, "t2") }).await;
    run(&["deny", &id_text, "t2", "--note", "not today"]).await;
    // Nobody answers the third one.
    assert_eq!(shop.end(id).await["state"], "succeeded");
    assert_eq!(shop.runner.read("done"), "first\n");
    let told = shop.model.requests().last().unwrap().json()["messages"].to_string();
    assert!(told.contains("admin refused this call, and it was not made: not today"), "{told}");
    assert!(told.contains("nobody approved this call within 2 s"), "{told}");
}

#[tokio::test]
async fn secrets_reach_whom_they_are_for_and_nobody_else() {
    const VALUE: &str = "hunter2-hunter2-hunter2";
    let shop = Shop::open([said("ok")]).await;
    let api = shop.hub.api();
    let set = async |body: Value| shop.hub.api().post("/secrets", body).await;
    let (status, shown) = set(json!({"name": "NPM", "value": VALUE, "tasks": ["workflow"]})).await;
    assert!(status == 200 && !shown.to_string().contains(VALUE), "{shown}");
    assert_eq!(set(json!({"name": "SHORT", "value": "q7#z"})).await.0, 200);
    for bad in [
        json!({"name": "../x", "value": "y"}),
        json!({"name": "x", "value": ""}),
        json!({"name": "x", "value": "abc"}),
        json!({"name": "x", "value": "a\nb\nc\nd"}),
        json!({"name": "x", "value": "0123\u{0}4567"}),
        json!({"name": "x", "value": "yyyy", "tasks": ["pipeline"]}),
    ] {
        assert_eq!(set(bad.clone()).await.0, 422, "{bad}");
    }
    let listed = api.get("/secrets").await.1;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(VALUE));
    let mut task = steps(&[
        "test \"$NPM_TOKEN\" = \"$(cat $NPM_FILE)\" && echo \"it is $NPM_TOKEN\"; echo $NPM_TOKEN | base64; ls -l $NPM_FILE",
        "! env | grep -q NONE; echo \"short: $SHORT\"",
    ]);
    task["secrets"] =
        json!([{"name": "NPM", "env": "NPM_TOKEN"}, {"name": "NPM", "file": "NPM_FILE"}, "SHORT"]);
    let id = shop.submit(task, None).await;
    let end = shop.end(id).await;
    let events = format!("{:?}", shop.events(id).await);
    assert_eq!(end["state"], "succeeded", "{events}");
    assert!(events.contains("it is ***") && !events.contains(VALUE), "{events}");
    assert!(events.contains("short: ***") && !events.contains("q7#z"), "{events}");
    assert!(!events.contains("aHVudGVyMi1odW50ZXIyLWh1bnRlcjI"), "as base64: {events}");
    // Not for agents: said at once. Not there: said by the runner.
    let mut task = agent("x");
    task["secrets"] = json!(["NPM"]);
    let (status, problem) = api.post("/pods/tasks", json!({ "config": task })).await;
    assert!(
        status == 422 && problem.to_string().contains("the secret 'NPM' is not for this task"),
        "{problem}"
    );
    let mut task = steps(&["true"]);
    task["secrets"] = json!(["NONE"]);
    let end = shop.end(shop.submit(task, None).await).await;
    let error = end["error"].as_str().unwrap();
    assert!(end["state"] == "failed" && error.contains("there is no secret 'NONE'"), "{end}");
    // Nothing of it lies in the clear where the hub or the runner keeps things.
    for folder in [&shop.hub.data, &shop.runner.dir.path().to_owned()] {
        let found = std::process::Command::new("grep").args(["-rl", VALUE]).arg(folder).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{}", folder.display());
    }
    // By the command line, which shows no secret to whoever lists processes.
    let token = shop.runner.dir.path().join("token");
    std::fs::write(&token, &shop.hub.admin).unwrap();
    std::fs::write(shop.runner.dir.path().join("value"), "by-file-0123456789").unwrap();
    let run = async |args: &[&str]| {
        let mut command = legwork(shop.runner.dir.path());
        command.current_dir(shop.runner.dir.path()).arg("secret").args(args);
        command.args(["--hub-url", &shop.hub.url, "--token-file"]).arg(&token);
        let done = command.output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    run(&["set", "BY_FILE", "--file", "value", "--task", "workflow"]).await;
    let listed = run(&["ls"]).await;
    assert!(
        listed.contains("BY_FILE") && listed.contains("workflow") && !listed.contains("by-file"),
        "{listed}"
    );
    run(&["rm", "BY_FILE"]).await;
    assert!(!run(&["ls"]).await.contains("BY_FILE"));
}
