//! What becomes of a run whose runner is an original, is away, or says too little: an end in
//! time, the right word for it, and a stream that does not lie.

use std::time::Duration;

use legwork_e2e::ws::Ws;
use legwork_e2e::{ALLOW_ALL, Api, Hub, Pair, Runner, until};
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn impatient(data: &std::path::Path) -> Hub {
    Hub::start_with(data, "127.0.0.1:0", &["--grace", "2"]).await
}

/// A runner by hand; `features` for one of ours.
async fn join(hub: &Hub, secret: &str, features: &[&str]) -> Ws {
    join_in(hub, secret, features, if features.is_empty() { "" } else { "boot-1" }).await
}

/// The same in a boot of its machine.
async fn join_in(hub: &Hub, secret: &str, features: &[&str], boot: &str) -> Ws {
    let start = std::time::Instant::now();
    let mut ws = loop {
        let target = format!("/safari/worknode/ws?token={secret}");
        match Ws::connect(&hub.address(), &target, &[]).await {
            Ok(ws) => break ws,
            // The one before is still being missed.
            Err(409) if start.elapsed() < legwork_e2e::DEADLINE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(status) => panic!("{status}"),
        }
    };
    ws.next_of("welcome").await;
    ws.say("heartbeat", json!({ "labels": [], "environment": {}, "features": features, "boot_id": boot }))
        .await;
    ws
}

async fn submit(api: &Api, operation: &str, args: Value, timeout_s: u64) -> String {
    let body =
        json!({ "select": { "runner": "r1" }, "operation": operation, "args": args, "timeout_s": timeout_s });
    let (status, task) = api.post("/tasks", body).await;
    assert_eq!(status, 202, "{task}");
    task["id"].as_str().unwrap().to_owned()
}

async fn state(api: &Api, id: &str) -> String {
    api.get(&format!("/tasks/{id}")).await.1["state"].as_str().unwrap().to_owned()
}

fn shell(stdout: &str, code: i32) -> Value {
    json!({ "stdout": stdout, "stderr": "", "exit_code": code, "total_size": stdout.len() })
}

#[tokio::test]
async fn a_run_on_an_original_that_restarted_is_not_delivered_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let hub = impatient(dir.path()).await;
    let (api, secret) = (hub.api(), hub.runner_token("r1").await);
    let mut ws = join(&hub, &secret, &[]).await;
    until("it is there", || api.is_online("r1")).await;
    let id = submit(&api, "bash", json!({ "command": "make" }), 1).await;
    let request = ws.next_of("task.request").await;
    // It is started anew, and knows nothing of it.
    drop(ws);
    let mut ws = join(&hub, &secret, &[]).await;
    let task = api.end(&id).await;
    assert_eq!(task["state"], "lost", "{task}");
    assert!(task["runs"][0]["error"].as_str().unwrap().contains("time limit of 1 s"), "{task}");
    // If it knows better after all, that counts.
    let result =
        json!({ "task_id": request["payload"]["task_id"], "success": true, "result": shell("made\n", 0) });
    ws.say("task.result", result).await;
    until("the result counts", || async { state(&api, &id).await == "succeeded" }).await;
    let events = api.events(&id, None, 100).await;
    let states: Vec<&str> = events
        .iter()
        .filter(|(_, kind, _)| kind == "state")
        .map(|(_, _, d)| d["state"].as_str().unwrap())
        .collect();
    assert_eq!(states.last(), Some(&"succeeded"), "{states:?}");
    assert_eq!(events.iter().filter(|(_, kind, _)| kind == "end").count(), 1);
}

#[tokio::test]
async fn reads_are_sent_again_to_an_original_whose_link_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let (api, secret) = (hub.api(), hub.runner_token("r1").await);
    let mut ws = join(&hub, &secret, &[]).await;
    until("it is there", || api.is_online("r1")).await;
    let read = submit(&api, "read", json!({ "path": "x" }), 60).await;
    let line = submit(&api, "bash", json!({ "command": "make" }), 60).await;
    let first = ws.next_of("task.request").await;
    ws.next_of("task.request").await;
    drop(ws);
    let mut ws = join(&hub, &secret, &[]).await;
    let again = ws.next_of("task.request").await;
    assert_eq!(again["payload"]["task_id"], first["payload"]["task_id"]);
    let result =
        json!({ "task_id": again["payload"]["task_id"], "success": true, "result": { "content": "" } });
    ws.say("task.result", result).await;
    assert_eq!(api.end(&read).await["state"], "succeeded");
    // A command is not: nobody knows whether it has begun.
    let marker = submit(&api, "list", json!({ "path": "" }), 60).await;
    let next = ws.next_of("task.request").await;
    assert_eq!(next["payload"]["operation"], "list");
    assert_eq!(state(&api, &line).await, "delivered");
    api.post(&format!("/tasks/{marker}/cancel"), json!({})).await;
}

/// A command that had ended before the machine was restarted is not lost, and nothing is done twice.
#[tokio::test]
async fn what_became_of_runs_is_asked_when_a_machine_was_restarted() {
    const OURS: &[&str] = &["ack", "output", "outcome"];
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let (api, secret) = (hub.api(), hub.runner_token("r1").await);
    let mut ws = join(&hub, &secret, OURS).await;
    until("it is there", || api.is_online("r1")).await;
    let (mut tasks, mut runs) = (Vec::new(), Vec::new());
    for i in 0..3 {
        tasks.push(submit(&api, "bash", json!({ "command": "make" }), 3600).await);
        let run = ws.next_of("task.request").await["payload"]["task_id"].clone();
        // The last one may have arrived, or not.
        if i < 2 {
            ws.say("task.accepted", json!({ "task_id": run })).await;
        }
        runs.push(run);
    }
    until("it is accepted", || async { state(&api, &tasks[1]).await == "running" }).await;
    drop(ws);
    let mut ws = join_in(&hub, &secret, OURS, "boot-2").await;
    let mut asked = Vec::new();
    while asked.len() < 3 {
        let message = ws.next().await.expect("the connection lasts");
        assert_ne!(message["type"], "task.request", "nothing is handed out twice: {message}");
        if message["type"] == "task.resume" {
            asked.push(message["payload"]["task_id"].clone());
        }
    }
    assert_eq!(asked, runs);
    ws.say(
        "task.result",
        json!({ "task_id": runs[0], "success": true, "outcome": "exited", "result": shell("made\n", 0) }),
    )
    .await;
    for run in &runs[1..] {
        let lost = json!({ "task_id": run, "success": false, "error": "its end is unknown", "exit_code": 1, "outcome": "lost" });
        ws.say("task.result", lost).await;
    }
    let ended = api.end(&tasks[0]).await;
    assert_eq!(
        (&ended["state"], &ended["runs"][0]["exit_code"]),
        (&json!("succeeded"), &json!(0)),
        "{ended}"
    );
    for task in &tasks[1..] {
        let ended = api.end(task).await;
        assert_eq!(ended["state"], "lost", "{ended}");
        let error = ended["runs"][0]["error"].as_str().unwrap();
        assert!(error.contains("machine was restarted") && error.contains("its end is unknown"), "{error}");
    }
    // Nobody who follows a run is told an end that is taken back.
    let events = api.events(&tasks[0], None, 100).await;
    let states = events.iter().filter(|(_, kind, _)| kind == "state");
    let states: Vec<_> = states.map(|(_, _, data)| data["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["queued", "delivered", "accepted", "running", "succeeded"]);
}

#[tokio::test]
async fn a_cancel_that_is_not_answered_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let hub = impatient(dir.path()).await;
    let (api, secret) = (hub.api(), hub.runner_token("r1").await);
    let mut ws = join(&hub, &secret, &[]).await;
    until("it is there", || api.is_online("r1")).await;
    let id = submit(&api, "bash", json!({ "command": "make" }), 3600).await;
    ws.next_of("task.request").await;
    api.post(&format!("/tasks/{id}/cancel"), json!({})).await;
    ws.next_of("task.cancel").await;
    let task = api.end(&id).await;
    assert_eq!(task["state"], "cancelled", "{task}");
    assert!(task["runs"][0]["error"].as_str().unwrap().contains("did not answer the cancel"), "{task}");
}

#[tokio::test]
async fn a_timeout_on_an_original_is_called_one() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let (api, secret) = (hub.api(), hub.runner_token("r1").await);
    let mut ws = join(&hub, &secret, &[]).await;
    until("it is there", || api.is_online("r1")).await;
    for (wait, want) in [(Duration::from_millis(1100), "timed_out"), (Duration::ZERO, "failed")] {
        let timeout = if wait.is_zero() { 3600 } else { 1 };
        let id = submit(&api, "bash", json!({ "command": "sleep 9" }), timeout).await;
        let request = ws.next_of("task.request").await["payload"].clone();
        tokio::time::sleep(wait).await;
        let result = json!({ "task_id": request["task_id"], "success": true, "result": shell("", -1) });
        ws.say("task.result", result).await;
        assert_eq!(api.end(&id).await["state"], want);
    }
}

/// A runner that was away for longer than the hub waits, with a command under way.
async fn away_for_too_long(
    command: &str,
    while_away: impl AsyncFnOnce(&Api, &str),
) -> (tempfile::TempDir, Hub, Runner, String) {
    let dir = tempfile::tempdir().unwrap();
    let hub = impatient(&dir.path().join("hub")).await;
    let api = hub.api();
    let home = dir.path().join("r1");
    let token = hub.runner_token("r1").await;
    let mut runner = Runner::start(&home, &hub.address(), &token, ALLOW_ALL).await;
    until("it is there", || api.is_online("r1")).await;
    let id = api.bash("r1", command).await;
    until("it runs", || async { runner.workspace.join("started").exists() }).await;
    // The command goes on under its supervisor.
    runner.kill().await;
    until("it is given up", || async { state(&api, &id).await == "lost" }).await;
    while_away(&api, &id).await;
    let runner = Runner::again(&home).await;
    (dir, hub, runner, id)
}

#[tokio::test]
async fn lost_is_corrected_by_the_runner_that_returns() {
    let command = "echo one; touch started; until [ -e go ]; do sleep 0.1; done; echo two";
    let (_dir, hub, runner, id) = away_for_too_long(command, async |_, _| {}).await;
    let api = hub.api();
    until("it goes on", || async { state(&api, &id).await == "running" }).await;
    std::fs::write(runner.workspace.join("go"), "").unwrap();
    let task = api.end(&id).await;
    assert_eq!(
        (&task["state"], &task["runs"][0]["result"]["stdout"]),
        (&json!("succeeded"), &json!("one\ntwo\n"))
    );
    assert_eq!(output(&api, &id).await, ("one\ntwo\n".into(), 0));
}

#[tokio::test]
async fn a_cancel_reaches_what_was_given_up_and_still_runs() {
    let command = "echo $$ > pid; touch started; sleep 300";
    let (_dir, hub, runner, id) = away_for_too_long(command, async |api, id| {
        let (status, _) = api.post(&format!("/tasks/{id}/cancel"), json!({})).await;
        assert_eq!(status, 202);
    })
    .await;
    let api = hub.api();
    until("it is cancelled", || async { state(&api, &id).await == "cancelled" }).await;
    let pid = std::fs::read_to_string(runner.workspace.join("pid")).unwrap();
    until("it is gone", || async { !std::path::Path::new("/proc").join(pid.trim()).exists() }).await;
}

/// A task's standard output as its events tell it, and how many gaps they mark.
async fn output(api: &Api, id: &str) -> (String, usize) {
    let events = api.events(id, None, 1_000_000).await;
    let text = events.iter().filter(|(_, kind, d)| kind == "output" && d["stream"] == "stdout");
    let text = text.map(|(_, _, d)| d["data"].as_str().unwrap()).collect();
    (text, events.iter().filter(|(_, kind, _)| kind == "gap").count())
}

#[tokio::test]
async fn a_late_resume_costs_no_tail() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let runner = Runner::start(dir.path(), &address, "t", ALLOW_ALL).await;
    let welcome = json!({ "worknode_id": "w", "name": "n", "features": ["output", "ack", "outcome"] });
    let mut ws = Ws::accept(&listener, None).await;
    ws.say("welcome", welcome.clone()).await;
    let command = "echo a; until [ -e go ]; do sleep 0.1; done; echo b; touch done";
    ws.say("task.request", json!({ "task_id": "t1", "operation": "bash", "args": { "command": command } }))
        .await;
    assert_eq!(ws.next_of("task.output").await["payload"]["data"], "a\n");
    drop(ws);
    std::fs::write(runner.workspace.join("go"), "").unwrap();
    until("it ends", || async { runner.workspace.join("done").exists() }).await;
    let mut ws = Ws::accept(&listener, None).await;
    ws.say("welcome", welcome).await;
    ws.next_of("heartbeat").await;
    // The hub is busy.
    tokio::time::sleep(Duration::from_secs(5)).await;
    ws.say("task.resume", json!({ "task_id": "t1", "stdout": 2, "stderr": 0 })).await;
    let mut tail = String::new();
    loop {
        let message = ws.next().await.unwrap();
        match message["type"].as_str() {
            Some("task.output") => {
                assert_eq!(message["payload"]["offset"], 2 + tail.len());
                tail.push_str(message["payload"]["data"].as_str().unwrap());
            }
            Some("task.result") => break,
            _ => {}
        }
    }
    assert_eq!(tail, "b\n");
}

#[tokio::test]
async fn a_tail_that_did_not_arrive_is_taken_from_the_result_or_marked() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let (api, secret) = (hub.api(), hub.runner_token("r1").await);
    let mut ws = join(&hub, &secret, &["output", "ack", "outcome"]).await;
    until("it is there", || api.is_online("r1")).await;
    let large = json!({ "stdout": "<preview>", "stderr": "", "exit_code": 0, "truncated": true, "total_size": 90_000 });
    for (result, want, gaps) in [(shell("a\nb\n", 0), "a\nb\n", 0), (large, "a\n", 1)] {
        let id = submit(&api, "bash", json!({ "command": "x" }), 60).await;
        let run = ws.next_of("task.request").await["payload"]["task_id"].clone();
        ws.say("task.output", json!({ "task_id": run, "stream": "stdout", "data": "a\n", "offset": 0 }))
            .await;
        ws.say(
            "task.result",
            json!({ "task_id": run, "success": true, "result": result, "outcome": "exited" }),
        )
        .await;
        assert_eq!(api.end(&id).await["state"], "succeeded");
        assert_eq!(output(&api, &id).await, (want.to_owned(), gaps));
    }
}

#[tokio::test]
async fn output_that_could_not_be_stored_comes_when_there_is_room_again() {
    let pair = Pair::start().await;
    let api = &pair.api;
    let ready = async || {
        let response = api.http.get(format!("{}/readyz", pair.hub.url)).send().await.unwrap();
        response.status().as_u16()
    };
    assert_eq!(ready().await, 200);
    let command = "echo a; until [ -e go ]; do sleep 0.1; done; seq 20000; until [ -e end ]; do sleep 0.1; done; echo z";
    let id = api.bash("r1", command).await;
    let events = pair.hub.data.join("events");
    until("it streams", || async {
        api.events(&id, None, 5).await.iter().any(|(_, kind, _)| kind == "output")
    })
    .await;
    // Nothing can be written there: as root is not held up by modes, there is no folder.
    let aside = pair.hub.data.join("aside");
    std::fs::rename(&events, &aside).unwrap();
    std::fs::write(&events, "").unwrap();
    std::fs::write(pair.runner.workspace.join("go"), "").unwrap();
    until("the hub says so", || async { ready().await == 503 }).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    std::fs::remove_file(&events).unwrap();
    std::fs::rename(&aside, &events).unwrap();
    assert_eq!(ready().await, 200);
    std::fs::write(pair.runner.workspace.join("end"), "").unwrap();
    assert_eq!(api.end(&id).await["state"], "succeeded");
    let want: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    let (text, gaps) = output(api, &id).await;
    assert!(gaps > 0 || text == format!("a\n{want}z\n"), "{} bytes, no gap", text.len());
    // The room came back before the end: nothing is missing.
    assert_eq!((text.len(), gaps), (want.len() + 4, 0));
}

#[tokio::test]
async fn one_unreadable_file_of_events_costs_one_task() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path()).await;
    let api = hub.api();
    hub.runner_token("r1").await;
    let bad = submit(&api, "bash", json!({ "command": "true" }), 60).await;
    let good = submit(&api, "bash", json!({ "command": "true" }), 60).await;
    let events = dir.path().join("events");
    let (data, address) = (hub.data.clone(), hub.address());
    hub.kill().await;
    // What the two shared is gone, and one of them has something else in its place.
    std::fs::remove_dir_all(events.join("shared")).unwrap();
    std::fs::create_dir_all(events.join(&bad[bad.len() - 2..]).join(&bad)).unwrap();
    let hub = Hub::start_at(&data, &address).await;
    let api = hub.api();
    let task = api.end(&bad).await;
    assert_eq!(task["state"], "lost", "{task}");
    assert!(task["runs"][0]["error"].as_str().unwrap().contains("can't open the task's events"), "{task}");
    assert_eq!(state(&api, &good).await, "queued");
}

#[tokio::test]
async fn a_hub_whose_clock_is_set_right_loses_no_running_work() {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|arch| format!("/usr/lib/{arch}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .expect("Debian's faketime: run scripts/tools");
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    std::fs::write(&clock, "+0\n").unwrap();
    let env = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let hub = Hub::start_under(&dir.path().join("hub"), "127.0.0.1:0", &[], &env).await;
    let api = hub.api();
    let home = dir.path().join("r1");
    let token = hub.runner_token("r1").await;
    let mut runner = Runner::start(&home, &hub.address(), &token, ALLOW_ALL).await;
    until("it is there", || api.is_online("r1")).await;
    let id = api.bash("r1", "touch started; until [ -e go ]; do sleep 0.1; done; echo done").await;
    until("it runs", || async { runner.workspace.join("started").exists() }).await;
    runner.kill().await;
    until("it is away", || async { !api.is_online("r1").await }).await;
    let waiting = api.bash("r1", "echo later").await;
    // Beyond every grace by the wall's clock, and an hour beyond.
    std::fs::write(&clock, "+75m\n").unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(state(&api, &id).await, "running");
    assert_eq!(state(&api, &waiting).await, "queued");
    let runner = Runner::again(&home).await;
    std::fs::write(runner.workspace.join("go"), "").unwrap();
    assert_eq!(api.end(&id).await["runs"][0]["result"]["stdout"], "done\n");
    assert_eq!(api.end(&waiting).await["state"], "succeeded");
}
