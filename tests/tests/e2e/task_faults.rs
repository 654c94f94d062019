//! Task runners that are killed, stopped, cut off and starved.

use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_e2e::model::{Answer, Model};
use legwork_e2e::pod::{Callback, Place, agent, leftovers, model_env, steps};
use rustix::process::Signal;
use serde_json::json;

const FAST: Duration = Duration::ZERO;

/// Kills the runner while a tool runs: the next process finds the command again, and asks the
/// model with the same bytes.
#[tokio::test]
async fn a_killed_agent_goes_on_where_it_was() {
    let place = Place::new();
    let model = Model::start([
        Answer::new()
            .text(&["working"])
            .tool("t1", "shell", &json!({"command": "echo once >> ran; sleep 2; echo done"}))
            .scene(),
        Answer::new().text(&["finished"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let task = agent("go", &["shell"]);
    let mut pod = place.active(&task, &callback, &model_env(&model.url));
    legwork_e2e::until("the command runs", || async {
        std::fs::read_to_string(place.workspace.join("ran")).is_ok_and(|text| !text.is_empty())
    })
    .await;
    pod.kill().await;
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(place.read("ran"), "once\n");
    assert_eq!(callback.text(), "workingfinished");
    let requests = model.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].text.starts_with(requests[0].text.strip_suffix("]}").unwrap()));
    let result = requests[1].json()["messages"][2]["content"][0]["content"].clone();
    assert_eq!(result, "STDOUT:\ndone\n\n\nEXIT CODE: 0");
    assert_eq!((callback.of("tool_end").len(), callback.of("done").len()), (1, 1));
    assert!(leftovers(&place).is_empty());
}

/// A command whose end nobody knows is not run again, and the model is told.
#[tokio::test]
async fn an_unclear_effect_is_told_and_not_repeated() {
    let place = Place::new();
    let model = Model::start([
        Answer::new().tool("t1", "shell", &json!({"command": "echo once >> ran; sleep 60"})).scene(),
        Answer::new().text(&["I see"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let task = agent("go", &["shell"]);
    let mut pod = place.active(&task, &callback, &model_env(&model.url));
    legwork_e2e::until("the command runs", || async {
        std::fs::read_to_string(place.workspace.join("ran")).is_ok_and(|text| !text.is_empty())
    })
    .await;
    pod.kill().await;
    // The machine takes everything else along, too.
    kill_all(&place);
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(place.read("ran"), "once\n");
    let result = model.requests()[1].json()["messages"][2]["content"][0].clone();
    assert_eq!(result["is_error"], true);
    assert!(result["content"].as_str().unwrap().contains("its end is unknown"), "{result}");
}

/// Ends every process that holds a file of the place open, or works in it; supervisors first,
/// so that none of them reports the end of the others.
fn kill_all(place: &Place) {
    for supervisors in [true, false] {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let leads_in = |path: std::path::PathBuf| path.starts_with(place.dir.path());
            let files = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            let holds = files.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(leads_in);
            let works = std::fs::read_link(entry.path().join("cwd")).is_ok_and(leads_in);
            if (holds || !supervisors && works) && pid != std::process::id().cast_signed() {
                let _ =
                    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
}

/// kill -9 at many moments of a workflow: every step runs once, every line is told, the end
/// once.
#[tokio::test]
async fn a_workflow_survives_kills_at_any_moment() {
    let commands: Vec<String> = (0..6)
        .map(|i| format!("echo {i} >> ran; for n in 1 2 3 4 5; do echo {i}-$n; sleep 0.03; done"))
        .collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let task = steps(&commands);
    let (place, callback) = (Place::new(), Callback::start().await);
    let mut kills = 0;
    let ended = loop {
        let mut pod = place.active(&task, &callback, &[]);
        if kills == 8 {
            break pod.end().await;
        }
        tokio::time::sleep(Duration::from_millis(40 + 37 * kills)).await;
        if !callback.of("done").is_empty() {
            break pod.end().await;
        }
        pod.kill().await;
        kills += 1;
    };
    let _ = ended;
    assert!(kills >= 4, "{kills}");
    let events = callback.events_once();
    let ends: Vec<_> = events.iter().filter(|e| e["type"] == "done" || e["type"] == "error").collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    // A command that was just being handed to its supervisor may be lost: then the task
    // fails and says so, as nobody knows whether it ran. Nothing ever runs twice.
    let ran = place.read("ran");
    let lines: Vec<&str> = ran.lines().collect();
    let want: Vec<String> = (0..lines.len()).map(|i| i.to_string()).collect();
    assert_eq!(lines, want);
    if ends[0]["type"] == "error" {
        let why = events
            .iter()
            .filter_map(|e| e["output"].as_str())
            .any(|text| text.contains("its end is unknown"));
        assert!(why, "{events:?}");
        return;
    }
    assert_eq!(lines.len(), 6);
    let of_step = |e: &&serde_json::Value| e["level"] == "stdout";
    let mut told: Vec<&str> = events.iter().filter(of_step).map(|e| e["message"].as_str().unwrap()).collect();
    // A line that was being told when the kill came may be told twice, never not at all.
    told.dedup();
    let want: Vec<String> = (0..6).flat_map(|i| (1..=5).map(move |n| format!("{i}-{n}"))).collect();
    assert_eq!(told, want);
}

#[tokio::test]
async fn sigterm_ends_what_runs_and_reports_it() {
    // In the middle of a command.
    let (place, callback) = (Place::new(), Callback::start().await);
    let pod = place.active(&steps(&["echo begun; sleep 60", "echo never"]), &callback, &[]);
    callback.until("the command runs", |e| e.iter().any(|e| e["message"] == "begun")).await;
    let started = Instant::now();
    pod.signal(Signal::TERM);
    let ended = pod.end().await;
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_eq!(ended.code, Some(1));
    let last = callback.events().pop().unwrap();
    assert_eq!((&last["message"], &last["code"]), (&json!("Task aborted"), &json!("aborted")));
    // In the middle of a stream, with usage.
    let model = Model::start([Answer::new().text(&["a"; 600]).slow(Duration::from_millis(50)).scene()]).await;
    let callback = Callback::start().await;
    let pod = place.active(&agent("hi", &[]), &callback, &model_env(&model.url));
    callback.until("tokens come", |e| e.len() > 2).await;
    pod.signal(Signal::TERM);
    assert_eq!(pod.end().await.code, Some(1));
    let last = callback.events().pop().unwrap();
    assert_eq!((&last["code"], last["usage"].is_object()), (&json!("aborted"), true));
    // While the callback is down: 20 s and no more.
    let deaf = Callback::with(Arc::new(|_, _| (503, None, FAST))).await;
    let pod = place.active(&steps(&["sleep 60"]), &deaf, &[]);
    legwork_e2e::until("it started", || async { !deaf.requests().is_empty() }).await;
    let started = Instant::now();
    pod.signal(Signal::TERM);
    assert_eq!(pod.end().await.code, Some(1));
    let took = started.elapsed();
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test]
async fn a_callback_that_is_down_gets_everything_later() {
    let (place, callback) = (Place::new(), Callback::start().await);
    let address = callback.address.clone();
    // Nobody listens there yet.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let url = format!("http://{free}/internal/tasks/41/stream");
    let config = steps(&["seq 1 500"]).to_string();
    let pod = place.spawn(&[("TASK_ID", "41"), ("CALLBACK_URL", &url), ("TASK_CONFIG", &config)]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let late = Callback::at(&free, Arc::new(|_, _| (200, None, FAST))).await;
    assert_eq!(pod.end().await.code, Some(0));
    assert_eq!(late.of("log").len(), 501);
    assert_eq!(late.events().last().unwrap()["type"], "done");
    drop(address);
}

#[tokio::test]
async fn critical_events_outlast_their_attempts_and_others_do_not() {
    // The first event is refused for ever, the last one for eight times.
    let callback = Callback::with(Arc::new(|n, event| {
        let busy = event["type"] == "step_start" || (event["type"] == "done" && n < 14);
        (if busy { 500 } else { 200 }, Some("0".into()), FAST)
    }))
    .await;
    let ended = Place::new().run(&steps(&["true"]), &callback, &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let attempts = |kind: &str| callback.requests().iter().filter(|(_, _, e)| e["type"] == kind).count();
    assert_eq!((attempts("step_start"), callback.of("step_start").len()), (6, 0));
    assert!(attempts("done") > 5);
}

#[tokio::test]
async fn secrets_are_nowhere() {
    let place = Place::new();
    let secret = "sk-very-secret-key-0123456789";
    let model = Model::start([
        Answer::new()
            .tool(
                "t1",
                "shell",
                &json!({"command": "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; env; ls -la ../state"}),
            )
            .tool("t2", "shell", &json!({"command": format!("echo {secret}")}))
            .scene(),
        Answer::new().text(&["ok"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let env = [
        ("ANTHROPIC_API_KEY", secret),
        ("ANTHROPIC_BASE_URL", model.url.as_str()),
        ("INTERNAL_TOKEN", "internal-secret-token"),
        ("AGENT_TOKEN", "agent-secret-token"),
        ("LOG_LEVEL", "debug"),
    ];
    let ended = place.run(&agent("go", &["shell"]), &callback, &env).await;
    assert_eq!(ended.code, Some(0));
    let told = serde_json::to_string(&callback.events()).unwrap();
    let sent: String = model.requests().iter().map(|r| r.text.clone()).collect();
    for name in [secret, "internal-secret-token", "agent-secret-token"] {
        assert!(!told.contains(name) && !ended.log.contains(name), "{name}");
    }
    // The model said one itself; it is not told by us what else it found.
    assert!(!sent.contains("internal-secret-token") && !sent.contains("agent-secret-token"));
    let headers = &callback.requests()[0].1;
    assert_eq!(headers["x-plue-internal-token"], "internal-secret-token");
    assert_eq!(headers["authorization"], "Bearer agent-secret-token");
}

#[tokio::test]
async fn a_model_that_asks_for_too_much_gets_what_there_is() {
    let place = Place::new();
    let model = Model::start([
        Answer::new()
            .tool("t1", "shell", &json!({"command": "head -c 300000000 /dev/zero | tr '\\0' x"}))
            .tool("t2", "read_file", &json!({"path": "/dev/zero"}))
            .tool("t3", "shell", &json!({"command": "true", "timeout": -5}))
            .tool("t4", "list_files", &json!({"path": "**/*", "max_results": 1_000_000_000}))
            .tool("t5", "grep", &json!({"pattern": "x", "max_results": "many"}))
            .scene(),
        Answer::new().text(&["ok"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let tools = ["shell", "read_file", "list_files", "grep"];
    let ended = place.run(&agent("go", &tools), &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0));
    let results = model.requests()[1].json()["messages"][2]["content"].clone();
    let text = |i: usize| results[i]["content"].as_str().unwrap_or_default().to_owned();
    assert!(text(0).len() < 101_000 && text(0).contains("bytes omitted"));
    assert_eq!(text(1), "Error: path traversal not allowed");
    assert_eq!(text(2), "EXIT CODE: 0");
    assert_eq!(text(4), "Error: max_results must be an integer");
}

/// The same for an agent: whatever it was doing when it was killed, every tool runs once, the
/// model is never asked with other bytes than before, and the end is told once.
#[tokio::test]
async fn an_agent_survives_kills_at_any_moment() {
    let turn = |i: usize| {
        let id = |k: &str| format!("t{i}{k}");
        Answer::new()
            .text(&["a ", "b ", "c "])
            .tool(&id("r"), "list_files", &json!({}))
            .tool(&id("s"), "shell", &json!({"command": format!("echo {i} >> ran; sleep 0.05")}))
            .slow(Duration::from_millis(8))
            .scene()
    };
    let place = Place::new();
    let model = Model::start([]).await;
    // By what was asked: a request that is repeated is answered alike.
    model.answer_by(Arc::new(move |request| {
        let asked = request["messages"].as_array().unwrap().len() / 2;
        if asked < 4 {
            turn(asked)
        } else {
            Answer::new().text(&["over"]).slow(Duration::from_millis(8)).scene()
        }
    }));
    let callback = Callback::start().await;
    let task = agent("go", &["shell", "list_files"]);
    let mut kills = 0;
    loop {
        let mut pod = place.active(&task, &callback, &model_env(&model.url));
        if kills == 12 {
            assert_eq!(pod.end().await.code, Some(0));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50 + 31 * (kills % 7))).await;
        if !callback.of("done").is_empty() {
            pod.end().await;
            break;
        }
        pod.kill().await;
        kills += 1;
    }
    assert!(kills >= 4, "{kills}");
    let ran = place.read("ran");
    let lines: Vec<&str> = ran.lines().collect();
    let mut once = lines.clone();
    once.dedup();
    assert_eq!(lines, once, "{ran}");
    let mut longest = String::new();
    for request in model.requests() {
        let prefix = request.text.strip_suffix("]}").unwrap().to_owned();
        let (short, long) =
            if prefix.len() < longest.len() { (&prefix, &longest) } else { (&longest, &prefix) };
        assert!(long.starts_with(short.as_str()));
        if prefix.len() > longest.len() {
            longest = prefix;
        }
    }
    let events = callback.events_once();
    assert_eq!(events.iter().filter(|e| e["type"] == "done").count(), 1);
    assert!(callback.of("error").is_empty());
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_waited_for_and_told() {
    let place = Place::new();
    let model = "http://no-such-host.invalid";
    let callback = Callback::start().await;
    let mut env = model_env(model).to_vec();
    env.push(("LEGWORK_API_RETRIES", "1"));
    let ended = place.run(&agent("hi", &[]), &callback, &env).await;
    assert_eq!(ended.code, Some(1));
    let last = callback.events().pop().unwrap();
    assert_eq!(last["code"], "api_error");
    // The callback's own name: never an attempt, and SIGTERM ends the waiting.
    let config = steps(&["true"]).to_string();
    let env = [
        ("TASK_ID", "41"),
        ("CALLBACK_URL", "http://no-such-host.invalid/x?key=very-secret-key"),
        ("TASK_CONFIG", config.as_str()),
    ];
    let pod = place.spawn(&env);
    tokio::time::sleep(Duration::from_secs(2)).await;
    pod.signal(Signal::TERM);
    let ended = pod.end().await;
    assert_eq!(ended.code, Some(1));
    assert!(!ended.log.contains("very-secret-key"), "{}", ended.log);
}

/// A journal that can't be written ends the task before an effect, and says why.
#[tokio::test]
async fn a_full_disk_ends_a_task_with_its_reason() {
    let place = Place::new();
    let state = place.dir.path().join("small");
    std::fs::create_dir(&state).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&state)
        .output()
        .is_ok_and(|o| o.status.success());
    if !mounted {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs");
        eprintln!("NOT TESTED HERE: a full disk (mounting a tmpfs needs root)");
        return;
    }
    let unmount = || drop(std::process::Command::new("umount").arg("-l").arg(&state).status());
    let model = Model::start([
        Answer::new().tool("t1", "shell", &json!({"command": "echo one > ran"})).scene(),
        Answer::new()
            .tool("t2", "write_file", &json!({"path": "big", "content": "x".repeat(600_000)}))
            .scene(),
        Answer::new().text(&["never"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let mut env = model_env(&model.url).to_vec();
    let path = state.to_str().unwrap().to_owned();
    env.push(("LEGWORK_STATE_DIR", &path));
    let ended = place.run(&agent("go", &["shell", "write_file"]), &callback, &env).await;
    unmount();
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let last = callback.events().pop().unwrap();
    assert_eq!(last["code"], "internal", "{last}");
    assert!(last["message"].as_str().unwrap().contains("No space left"), "{last}");
    assert!(!place.workspace.join("big").exists());
}

#[tokio::test]
async fn a_callback_that_says_nothing_is_asked_again() {
    let silent = Duration::from_secs(50);
    let callback =
        Callback::with(Arc::new(move |n, _| (200, None, if n == 0 { silent } else { FAST }))).await;
    let started = Instant::now();
    let ended = Place::new().run(&steps(&["true"]), &callback, &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(started.elapsed() > Duration::from_secs(29) && started.elapsed() < silent);
    let requests = callback.requests();
    assert_eq!(requests[0].2, requests[1].2);
    assert_eq!(callback.events().last().unwrap()["type"], "done");
}

/// Two processes of one user share a state folder and nothing else.
#[tokio::test]
async fn two_tasks_at_once_have_homes_and_audits_of_their_own() {
    let (place, one, two) = (Place::new(), Callback::start().await, Callback::start().await);
    let long = place.active(&steps(&["echo one > $HOME/f; sleep 2; cat $HOME/f"]), &one, &[]);
    one.until("the first one runs", |e| e.iter().any(|e| e["type"] == "log")).await;
    let ended = place.run(&steps(&["test ! -e $HOME/f; echo two > $HOME/f"]), &two, &[]).await;
    assert_eq!(ended.code, Some(0), "{:?}", two.events());
    assert_eq!(long.end().await.code, Some(0));
    assert!(one.of("log").iter().any(|e| e["message"] == "one"));
    for (number, line) in [("0", "sleep 2"), ("1", "echo two")] {
        let audit = place.dir.path().join(format!("state/task/process-{number}/audit.jsonl"));
        let records = std::fs::read_to_string(&audit).unwrap();
        let of_line = |record: &&str| record.contains(line) && record.contains("\"outcome\":\"exited\"");
        assert_eq!(records.lines().filter(of_line).count(), 1, "{records}");
        let mut verify = legwork_e2e::legwork(place.dir.path());
        let verified = verify.args(["audit", "verify"]).arg(audit).output().await.unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
}
