//! What needs a person's yes: held, answered, and what was approved is what runs.

use std::path::Path;
use std::process::Stdio;

use legwork_e2e::ws::Ws;
use legwork_e2e::{Api, Hub, Pair, Runner, legwork, until};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const RULES: &[(&str, &str)] =
    &[("*", "deny"), ("echo *", "allow"), ("touch *", "ask"), ("rm *", "{action: ask, persons: 2}")];

/// Somebody with a token of a role.
async fn person(hub: &Hub, name: &str, role: &str) -> Api {
    let (status, made) = hub.api().post("/tokens", json!({ "name": name, "role": role })).await;
    assert_eq!(status, 201, "{made}");
    Api::new(&hub.url, made["token"].as_str().unwrap())
}

/// What waits for a yes, once there is something; the newest.
async fn waiting(api: &Api) -> Value {
    until("something waits for a yes", async || {
        let (_, page) = api.get("/approvals?state=waiting").await;
        page["items"].get(0).is_some()
    })
    .await;
    api.get("/approvals?state=waiting").await.1["items"][0].clone()
}

fn path_of(approval: &Value, verb: &str) -> String {
    format!("/approvals/{}{verb}", approval["id"].as_str().unwrap())
}

/// A run's states and reasons, in their order.
async fn states(api: &Api, task: &str) -> Vec<(String, String)> {
    let events = api.events(task, None, usize::MAX).await;
    let of = |data: &Value, key: &str| data[key].as_str().unwrap_or_default().to_owned();
    let states = events.iter().filter(|(_, kind, _)| kind == "state");
    states.map(|(_, _, data)| (of(data, "state"), of(data, "error"))).collect()
}

fn audit_of(home: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit")) {
                text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    text
}

#[tokio::test]
async fn a_held_line_runs_once_another_person_has_said_yes_whoever_was_killed_meanwhile() {
    let mut pair = Pair::with_rules(RULES).await;
    let (alice, bob) =
        (person(&pair.hub, "alice", "approver").await, person(&pair.hub, "bob", "approver").await);
    let agent = person(&pair.hub, "agent", "operator").await;
    let asked = json!({
        "select": { "runner": "r1" }, "operation": "bash", "args": { "command": "touch made" },
        "reason": "the lock file is missing",
    });
    let (status, task) = agent.post("/tasks", asked).await;
    assert_eq!(status, 202, "{task}");
    let task = task["id"].as_str().unwrap();
    let approval = waiting(&alice).await;
    assert_eq!((&approval["runner"], &approval["asked_by"]), (&json!("r1"), &json!("agent")));
    assert_eq!((&approval["rule"], &approval["part"]), (&json!("touch *"), &json!("touch made")));
    assert_eq!((&approval["line"], &approval["task"]), (&json!("touch made"), &json!(task)));
    assert_eq!(approval["reason"], "the lock file is missing");
    let (_, shown) = agent.get(&format!("/tasks/{task}")).await;
    assert_eq!((&shown["state"], &shown["runs"][0]["approval"]), (&json!("held"), &approval["id"]));
    assert!(!pair.runner.workspace.join("made").exists());

    // Who asked does not answer, nor does whose role does not reach so far.
    let (status, problem) = agent.post(&path_of(&approval, "/approve"), json!({})).await;
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
    // Neither a kill of the hub nor one of the runner changes anything.
    pair.hub = pair.hub.crash_and_restart().await;
    pair.runner.kill().await;
    pair.runner = Runner::again(&pair.runner.home).await;
    until("the runner is back", || pair.api.is_online("r1")).await;
    let (_, after) = alice.get(&path_of(&approval, "")).await;
    assert_eq!(after, approval);

    // A yes to something else is none; of two at once one counts.
    let (status, problem) =
        alice.post(&path_of(&approval, "/approve"), json!({ "digest": "0".repeat(64) })).await;
    assert_eq!((status, &problem["field"]), (422, &json!("digest")));
    let yes = json!({ "digest": approval["digest"], "note": "go ahead" });
    let path = path_of(&approval, "/approve");
    let (first, second) = tokio::join!(alice.post(&path, yes.clone()), bob.post(&path, yes));
    let mut statuses = [first.0, second.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{first:?} {second:?}");
    let end = agent.end(task).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert!(pair.runner.workspace.join("made").exists());
    let told = states(&agent, task).await;
    let words: Vec<&str> = told.iter().map(|(state, _)| state.as_str()).collect();
    assert_eq!(
        words,
        ["queued", "delivered", "held", "queued", "delivered", "accepted", "running", "succeeded"]
    );
    assert!(told[3].1.contains("said yes: go ahead"), "{told:?}");
    let who = if first.0 == 200 { "alice" } else { "bob" };
    until("the audit names who said yes", async || {
        audit_of(&pair.runner.home).contains(&format!("\"approved_by\":[\"{who} (tok_"))
    })
    .await;
    assert!(audit_of(&pair.runner.home).contains("\"outcome\":\"held\""));
}

#[tokio::test]
async fn a_no_a_cancel_and_silence_each_end_it_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start_with(&dir.path().join("hub"), "127.0.0.1:0", &["--approval-wait", "2"]).await;
    let token = hub.runner_token("r1").await;
    let runner = Runner::start(&dir.path().join("r1"), &hub.address(), &token, RULES).await;
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    let alice = person(&hub, "alice", "approver").await;

    let silent = api.bash("r1", "touch silent").await;
    let end = api.end(&silent).await;
    assert_eq!(end["state"], "expired", "{end}");
    assert!(end["runs"][0]["error"].as_str().unwrap().contains("nobody answered within 2 s"), "{end}");
    let (_, late) = alice.get(&format!("/approvals?task={silent}")).await;
    assert_eq!(late["items"][0]["state"], "expired");
    let (status, problem) = alice.post(&path_of(&late["items"][0], "/approve"), json!({})).await;
    assert_eq!((status, &problem["code"]), (409, &json!("already_decided")));

    let refused = api.bash("r1", "touch refused").await;
    let approval = waiting(&alice).await;
    // An admin may say no to what the own token asked, and not yes.
    let (status, problem) = api.post(&path_of(&approval, "/approve"), json!({})).await;
    assert_eq!((status, &problem["code"]), (403, &json!("own_request")));
    let (status, _) = alice.post(&path_of(&approval, "/deny"), json!({ "note": "not now" })).await;
    assert_eq!(status, 200);
    let end = api.end(&refused).await;
    assert_eq!(
        (&end["state"], &end["runs"][0]["error"]),
        (&json!("denied"), &json!("alice said no: not now"))
    );

    let cancelled = api.bash("r1", "touch cancelled").await;
    let approval = waiting(&alice).await;
    api.post(&format!("/tasks/{cancelled}/cancel"), Value::Null).await;
    assert_eq!(api.end(&cancelled).await["state"], "cancelled");
    until("nothing is to be answered any more", async || {
        alice.get(&path_of(&approval, "")).await.1["state"] == "closed"
    })
    .await;
    for file in ["silent", "refused", "cancelled"] {
        assert!(!runner.workspace.join(file).exists(), "{file}");
    }
}

#[tokio::test]
async fn two_people_another_line_and_an_hour() {
    let pair = Pair::with_rules(RULES).await;
    let (alice, bob) =
        (person(&pair.hub, "alice", "approver").await, person(&pair.hub, "bob", "approver").await);
    let agent = person(&pair.hub, "agent", "operator").await;
    std::fs::write(pair.runner.workspace.join("old"), "x").unwrap();

    let task = agent.bash("r1", "rm old").await;
    let approval = waiting(&alice).await;
    assert_eq!(approval["persons"], 2);
    let (status, one) = alice.post(&path_of(&approval, "/approve"), json!({})).await;
    assert_eq!((status, &one["state"]), (200, &json!("waiting")));
    assert_eq!(alice.post(&path_of(&approval, "/approve"), json!({})).await.0, 409, "one person is not two");
    assert!(pair.runner.workspace.join("old").exists());
    assert_eq!(bob.post(&path_of(&approval, "/approve"), json!({})).await.1["state"], "approved");
    assert_eq!(agent.end(&task).await["state"], "succeeded");
    assert!(!pair.runner.workspace.join("old").exists());

    // Another line is judged anew: one that may run runs, one that asks wants somebody else.
    let task = agent.bash("r1", "touch a b").await;
    let approval = waiting(&alice).await;
    let (status, edited) =
        alice.post(&path_of(&approval, "/approve"), json!({ "command": "echo instead" })).await;
    assert_eq!((status, &edited["state"]), (200, &json!("edited")));
    assert_eq!(agent.end(&task).await["runs"][0]["result"]["stdout"], "instead\n");
    let task = agent.bash("r1", "touch a b").await;
    let approval = waiting(&alice).await;
    alice.post(&path_of(&approval, "/approve"), json!({ "command": "touch a" })).await;
    until("the other line is held", async || waiting(&alice).await["id"] != approval["id"]).await;
    let again = waiting(&alice).await;
    assert_eq!((&again["line"], &again["asked_by"]), (&json!("touch a"), &json!("alice")));
    let (status, problem) = alice.post(&path_of(&again, "/approve"), json!({})).await;
    assert_eq!((status, &problem["code"]), (403, &json!("own_request")));
    // For an hour, which is for this line alone.
    assert_eq!(bob.post(&path_of(&again, "/approve"), json!({ "for_s": 3600 })).await.0, 200);
    assert_eq!(agent.end(&task).await["state"], "succeeded");
    assert!(pair.runner.workspace.join("a").exists() && !pair.runner.workspace.join("b").exists());

    let task = agent.bash("r1", "touch c").await;
    let approval = waiting(&alice).await;
    alice.post(&path_of(&approval, "/approve"), json!({ "for_s": 3600 })).await;
    assert_eq!(agent.end(&task).await["state"], "succeeded");
    std::fs::remove_file(pair.runner.workspace.join("c")).unwrap();
    let task = agent.bash("r1", "touch c").await;
    assert_eq!(agent.end(&task).await["state"], "succeeded");
    let told = states(&agent, &task).await;
    assert!(told.iter().any(|(_, why)| why.contains("alice said yes")), "{told:?}");
    assert!(pair.runner.workspace.join("c").exists());
    let other = agent.bash("r1", "touch d").await;
    let approval = waiting(&alice).await;
    assert_eq!(approval["task"], json!(other));
    alice.post(&path_of(&approval, "/deny"), json!({})).await;
    assert_eq!(agent.end(&other).await["state"], "denied");
}

#[tokio::test]
async fn what_the_rules_say_when_it_starts_is_what_counts() {
    let pair = Pair::with_rules(RULES).await;
    let alice = person(&pair.hub, "alice", "approver").await;
    let url = format!("ws://{}/runner/ws", pair.hub.address());
    let token = std::fs::read_to_string(pair.runner.home.join(".legwork/config.yaml")).unwrap();
    let token = token.lines().find_map(|line| line.strip_prefix("token: ")).unwrap().to_owned();
    let task = pair.api.bash("r1", "touch made").await;
    let approval = waiting(&alice).await;
    // Meanwhile the operator forbids it.
    let strict = &[("*", "deny"), ("cat *", "allow")];
    Runner::configure(&pair.runner.home, &url, &token, strict, "");
    until("the new rules are in force", async || pair.api.run("r1", "echo x").await["state"] == "denied")
        .await;
    assert_eq!(alice.post(&path_of(&approval, "/approve"), json!({})).await.0, 200);
    assert_eq!(pair.api.end(&task).await["state"], "denied");
    assert!(!pair.runner.workspace.join("made").exists());
}

#[tokio::test]
async fn a_runner_takes_a_yes_only_for_what_it_held_itself_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/runner/ws", listener.local_addr().unwrap());
    let rules = &[("*", "deny"), ("tee -a *", "ask")];
    let runner = Runner::start_with(dir.path(), &url, "wnt_s3cret", rules, "token_in: query").await;
    let mut ws = Ws::accept(&listener, None).await;
    let features = ["output", "ack", "outcome", "approval"];
    ws.say("welcome", json!({ "worknode_id": "wn_1", "name": "r1", "labels": [], "features": features }))
        .await;
    let said = ws.next_of("heartbeat").await;
    assert!(said["payload"]["features"].as_array().unwrap().contains(&json!("approval")), "{said}");
    let request = |id: &str, line: &str, yes: Value| json!({ "task_id": id, "operation": "bash", "args": { "command": line }, "approval": yes });
    let line = "tee -a out <<< x";
    ws.say("task.request", request("run_1", line, Value::Null)).await;
    let held = ws.next_of("task.held").await["payload"].clone();
    assert_eq!((&held["task_id"], &held["rule"]), (&json!("run_1"), &json!("tee -a *")), "{held}");
    let yes = |ticket: &Value, digest: &Value| json!({ "id": "apr_1", "ticket": ticket, "digest": digest, "by": ["alice"] });
    let good = yes(&held["ticket"], &held["digest"]);
    // Forged, for another task, for another line, by nobody.
    for (id, line, yes, why) in [
        ("run_1", line, yes(&json!("1.ab"), &held["digest"]), "did not hold"),
        ("run_2", line, good.clone(), "did not hold"),
        ("run_1", "tee -a other <<< x", good.clone(), "not what was approved"),
        (
            "run_1",
            line,
            json!({ "ticket": held["ticket"], "digest": held["digest"], "by": null }),
            "1 people",
        ),
    ] {
        ws.say("task.request", request(id, line, yes)).await;
        let again = ws.next_of("task.held").await["payload"].clone();
        assert!(again["refused"].as_str().unwrap_or_default().contains(why), "{again}");
    }
    // The right one, twice: the second time it is answered by what came of the first.
    for _ in 0..2 {
        ws.say("task.request", request("run_1", line, good.clone())).await;
        let result = ws.result_of("run_1").await;
        assert_eq!(result["payload"]["outcome"], "exited", "{result}");
        ws.say("ack", json!({ "id": result["id"] })).await;
    }
    assert_eq!(std::fs::read_to_string(runner.workspace.join("out")).unwrap(), "x\n");
    assert!(!runner.workspace.join("other").exists());
}

#[tokio::test]
async fn where_nobody_is_asked_it_is_denied_with_that_reason() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start_with(&dir.path().join("hub"), "127.0.0.1:0", &["--approval-wait", "0"]).await;
    let token = hub.runner_token("r1").await;
    let _runner = Runner::start(&dir.path().join("r1"), &hub.address(), &token, RULES).await;
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    let end = api.run("r1", "touch x").await;
    assert_eq!(end["state"], "denied", "{end}");
    assert!(end["error"].as_str().unwrap().contains("no hub that offers approvals"), "{end}");
}

#[tokio::test]
async fn a_runner_that_lies_harms_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let (liar, honest) = (hub.runner_token("liar").await, hub.runner_token("honest").await);
    let _runner = Runner::start(&dir.path().join("r1"), &hub.address(), &honest, RULES).await;
    let api = hub.api();
    let alice = person(&hub, "alice", "approver").await;
    until("the runner connects", || api.is_online("honest")).await;
    let mut ws = Ws::connect(&hub.address(), &format!("/runner/ws?token={liar}"), &[]).await.ok().unwrap();
    ws.next_of("welcome").await;
    let features = ["output", "ack", "outcome", "approval"];
    let said =
        json!({ "name": "liar", "labels": [], "environment": {}, "features": features, "boot_id": "b" });
    ws.say("heartbeat", said).await;
    until("the liar is there", || api.is_online("liar")).await;
    // Of a run of another's, and of none.
    let other = api.bash("honest", "touch x").await;
    let approval = waiting(&alice).await;
    let held = |run: &Value, digest: &str| json!({ "task_id": run, "ticket": "t", "digest": digest, "command": "id", "rule": "r", "part": "p", "persons": 1 });
    let digest = "0".repeat(64);
    ws.say("task.held", held(&approval["run"], &digest)).await;
    ws.say("task.held", held(&json!("run_none"), &digest)).await;
    let result = json!({ "task_id": approval["run"], "success": true, "result": {} });
    ws.say("task.result", result).await;
    // Of its own, in a way that is refused; and again and again.
    let bad = api.bash("liar", "true").await;
    let run = ws.next_of("task.request").await["payload"]["task_id"].clone();
    ws.say("task.held", held(&run, "x")).await;
    let end = api.end(&bad).await;
    assert_eq!(end["state"], "failed", "{end}");
    let endless = api.bash("liar", "true").await;
    for round in 0..6 {
        let run = ws.next_of("task.request").await["payload"]["task_id"].clone();
        ws.say("task.held", held(&run, &digest)).await;
        if round < 5 {
            until("it waits", async || {
                let (_, page) = alice.get(&format!("/approvals?state=waiting&task={endless}")).await;
                let Some(approval) = page["items"].get(0) else { return false };
                assert_eq!(alice.post(&path_of(approval, "/approve"), json!({})).await.0, 200);
                true
            })
            .await;
        }
    }
    let end = api.end(&endless).await;
    assert!(end["runs"][0]["error"].as_str().unwrap().contains("asked about it 5 times"), "{end}");
    // The other's is as it was.
    assert_eq!(alice.get(&path_of(&approval, "")).await.1, approval);
    assert_eq!(alice.post(&path_of(&approval, "/approve"), json!({})).await.0, 200);
    assert_eq!(api.end(&other).await["state"], "succeeded");
}

#[tokio::test]
async fn the_command_line_says_that_it_waits_and_for_what() {
    let pair = Pair::with_rules(RULES).await;
    let alice = person(&pair.hub, "alice", "approver").await;
    let cli = |token: &str| {
        let mut command = legwork(pair.dir.path());
        command.env("LEGWORK_HUB_URL", &pair.hub.url).env("LEGWORK_TOKEN", token);
        command
    };
    let exec = cli(&pair.hub.admin)
        .args(["exec", "-r", "r1", "--reason", "the lock", "--", "touch ma\u{434}e"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let approval = waiting(&alice).await;
    let id = approval["id"].as_str().unwrap();
    let alice_token = alice.token();
    let ran = async |args: &[&str]| {
        let output = cli(alice_token).args(args).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, list, _) = ran(&["approvals"]).await;
    assert!(code == Some(0) && list.contains(id) && list.contains("touch"), "{list}");
    let (_, shown, _) = ran(&["approvals", "show", id]).await;
    for words in
        ["r1", "the lock", "rule     'touch *'", "somebody else", &approval["digest"].as_str().unwrap()[..16]]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let (code, said, error) = ran(&["approvals", "approve", id, "--digest", "0123456789abcdef"]).await;
    assert!(code == Some(1) && error.contains("digest"), "{said}{error}");
    let (code, said, error) = ran(&["approvals", "approve", id, "--note", "fine"]).await;
    assert!(code == Some(0) && said.contains("approved"), "{said}{error}");
    let (code, _, error) = ran(&["approvals", "deny", id]).await;
    assert!(code == Some(1) && error.contains("approved already, by alice"), "{error}");
    let output = exec.wait_with_output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("waits for a person's yes") && told.contains(id), "{told}");
    assert!(told.contains("alice said yes: fine"), "{told}");
}
