//! Task runners in active mode: agents, tools, streams.

use std::sync::Arc;
use std::time::Duration;

use legwork_e2e::model::{Answer, Model, Scene};
use legwork_e2e::pod::{Callback, Place, agent, leftovers, model_env, steps};
use serde_json::{Value, json};

fn kinds(events: &[Value]) -> Vec<String> {
    events.iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_agent_calls_a_tool_and_says_what_it_found() {
    let place = Place::new();
    place.write("src/a.txt", "one\ntwo\nTODO sort\n");
    let model = Model::start([
        Answer::new()
            .text(&["Looking", " now."])
            .tool("toolu_1", "grep", &json!({"pattern": "TODO", "path": "src"}))
            .usage([100, 20, 50, 0])
            .scene(),
        Answer::new().text(&["In src/a.txt."]).usage([10, 5, 0, 150]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let ended = place.run(&agent("where is TODO", &["grep"]), &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let events = callback.events();
    assert_eq!(callback.text(), "Looking now.In src/a.txt.");
    let told: Vec<String> = kinds(&events).into_iter().filter(|k| k != "token").collect();
    assert_eq!(told, ["tool_start", "tool_start", "tool_end", "done"]);
    assert!(events.iter().all(|e| e["task_id"] == "41"));
    let starts = callback.of("tool_start");
    assert!(starts[0].get("args").is_none());
    assert_eq!(starts[1]["args"], json!({"pattern": "TODO", "path": "src"}));
    assert_eq!(starts[0]["message_id"], starts[1]["message_id"]);
    let id = starts[0]["message_id"].as_str().unwrap();
    assert!(id.len() == 16 && id.starts_with("msg_"), "{id}");
    let end = &callback.of("tool_end")[0];
    assert_eq!(end["output"], "src/a.txt:3:TODO sort\n");
    assert_eq!((&end["tool_state"], end.get("message_id")), (&json!("success"), None));
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(usage["turns"], 2);
    assert_eq!(usage["cache_read_input_tokens"], 150);
    assert_eq!(usage["cache_hit_ratio"], json!(0.484));
    // The second request begins with the first one's bytes, up to where it ended.
    let requests = model.requests();
    let first = requests[0].text.strip_suffix("]}").unwrap();
    assert!(requests[1].text.starts_with(first), "{}\n{}", requests[0].text, requests[1].text);
    assert_eq!(requests[0].headers["anthropic-version"], "2026-10-21");
    assert_eq!(requests[0].json()["max_tokens"], 4096);
    assert_eq!(requests[0].json()["cache_control"]["type"], "ephemeral");
    let sent = requests[1].json();
    assert_eq!(sent["messages"][2]["content"][0]["tool_use_id"], "toolu_1");
    assert_eq!(sent["messages"][1]["content"][1]["caller"]["type"], "direct");
    for refused in ["temperature", "top_p", "top_k", "system"] {
        assert!(sent.get(refused).is_none(), "{refused}");
    }
    assert!(leftovers(&place).is_empty());
    assert!(!ended.log.contains("sk-test-0123456789"));
}

#[tokio::test]
async fn all_tools_work_and_nothing_leads_out() {
    let place = Place::new();
    place.write("a.txt", "1\r\n2\r\n3\r\n").write(".hidden", "h").write("d/b.txt", "x\n-n y\n");
    std::os::unix::fs::symlink("/etc", place.workspace.join("etc")).unwrap();
    let calls = [
        ("read_file", json!({"path": "a.txt", "start_line": 2, "end_line": 2}), Ok("2\r\n")),
        ("read_file", json!({"path": "/workspace/a.txt", "start_line": 9}), Ok("")),
        ("read_file", json!({"path": "../x"}), Err("Error: path traversal not allowed")),
        ("read_file", json!({"path": "etc/passwd"}), Err("Error: path traversal not allowed")),
        ("read_file", json!({"path": "/etc/passwd"}), Err("Error: path traversal not allowed")),
        ("read_file", json!({"path": "none"}), Err("Error: file not found: none")),
        ("read_file", json!({}), Err("Error: path is required")),
        ("read_file", json!({"path": 7}), Err("Error: path must be a string")),
        (
            "write_file",
            json!({"path": "n/w.txt", "content": "\u{e9}"}),
            Ok("Successfully wrote 2 bytes to n/w.txt"),
        ),
        (
            "write_file",
            json!({"path": "n/w.txt", "content": "!", "append": true}),
            Ok("Successfully wrote 1 bytes to n/w.txt"),
        ),
        ("write_file", json!({"path": "x"}), Err("Error: content is required")),
        ("write_file", json!({"path": "etc/x", "content": ""}), Err("Error: path traversal not allowed")),
        ("list_files", json!({}), Ok("a.txt\nd/\netc\nn/")),
        ("list_files", json!({"recursive": true}), Ok("a.txt\nd/b.txt\netc\nn/w.txt")),
        ("list_files", json!({"path": "d"}), Ok("d/b.txt")),
        ("list_files", json!({"path": "*.txt", "recursive": true}), Ok("a.txt\nd/b.txt\nn/w.txt")),
        (
            "list_files",
            json!({"include_hidden": true, "max_results": 2}),
            Ok(".hidden\na.txt\n... truncated to 2 results"),
        ),
        ("list_files", json!({"path": "nope"}), Err("Error: path not found: nope")),
        ("list_files", json!({"path": "etc"}), Err("Error: path traversal not allowed")),
        ("grep", json!({"pattern": "-n"}), Ok("./d/b.txt:2:-n y\n")),
        ("grep", json!({"pattern": "X", "path": "d/b.txt", "ignore_case": true}), Ok("1:x\n")),
        ("grep", json!({"pattern": "nothing here"}), Ok("")),
        ("grep", json!({"pattern": "[", "path": "d"}), Err("Error: invalid pattern: ")),
        ("grep", json!({"pattern": "x", "path": "etc"}), Err("Error: path traversal not allowed")),
        (
            "shell",
            json!({"command": "echo out; echo err >&2; exit 3", "working_directory": "d"}),
            Ok("STDOUT:\nout\n\n\nSTDERR:\nerr\n\n\nEXIT CODE: 3"),
        ),
        ("shell", json!({"command": "kill -9 $$"}), Ok("EXIT CODE: -9")),
        (
            "shell",
            json!({"command": "echo a; sleep 30 & wait", "timeout": 1}),
            Err("Error: command timed out after 1 seconds\n\nSTDOUT:\na\n"),
        ),
        (
            "shell",
            json!({"command": "true", "working_directory": "/etc"}),
            Err("Error: working_directory must be within workspace"),
        ),
        ("shell", json!({"command": "env | grep -c -e KEY -e LEGWORK"}), Ok("STDOUT:\n0\n\n\nEXIT CODE: 1")),
        ("nonsense", json!({}), Err("Tool execution error: Unknown tool: nonsense")),
    ];
    let mut answer = Answer::new();
    for (i, (name, input, _)) in calls.iter().enumerate() {
        answer = answer.tool(&format!("t{i}"), name, input);
    }
    let model = Model::start([answer.scene(), Answer::new().text(&["ok"]).scene()]).await;
    let callback = Callback::start().await;
    let tools = ["read_file", "write_file", "list_files", "grep", "shell"];
    let ended = place.run(&agent("go", &tools), &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0));
    let results = model.requests()[1].json()["messages"][2]["content"].clone();
    for (i, (name, input, want)) in calls.iter().enumerate() {
        let result = &results[i];
        let text = result["content"].as_str().unwrap_or_default();
        match want {
            Ok(want) => assert_eq!((text, result.get("is_error")), (*want, None), "{name} {input}"),
            Err(want) => {
                assert!(text.starts_with(want), "{name} {input}: {text}");
                assert_eq!(result["is_error"], true, "{name} {input}");
            }
        }
        let told = callback.of("tool_end").into_iter().find(|e| e["tool_id"] == format!("t{i}")).unwrap();
        assert_eq!(told["tool_state"], if want.is_ok() { "success" } else { "error" }, "{name}");
    }
    assert_eq!(place.read("n/w.txt"), "\u{e9}!");
    assert_eq!(place.read("a.txt"), "1\r\n2\r\n3\r\n");
}

#[tokio::test]
async fn a_broken_stream_is_tried_again_and_leaves_nothing() {
    let hello = || Answer::new().text(&["Hel", "lo."]).scene();
    for (name, broken) in [
        ("cut", hello().cut_after(5)),
        ("ended", hello().end_after(5)),
        ("malformed", hello().malformed_after(5)),
        ("error event", hello().error_after(5, "overloaded_error", "Overloaded")),
        ("stalled", hello().stall_after(5)),
    ] {
        let place = Place::new();
        let model = Model::start([broken, hello()]).await;
        let callback = Callback::start().await;
        let mut env = model_env(&model.url).to_vec();
        env.push(("LEGWORK_API_IDLE_S", "1"));
        let ended = place.run(&agent("hi", &[]), &callback, &env).await;
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.log);
        assert_eq!(callback.text(), "Hello.", "{name}");
        assert_eq!(callback.of("token_reset").len(), 1, "{name}");
        let requests = model.requests();
        assert_eq!(requests[0].text, requests[1].text, "{name}");
        // Each message counts its own tokens from 0.
        for token in callback.of("token").windows(2) {
            let next = if token[0]["message_id"] == token[1]["message_id"] {
                token[0]["token_index"].as_u64().unwrap() + 1
            } else {
                0
            };
            assert_eq!(token[1]["token_index"], next, "{name}");
        }
    }
}

#[tokio::test]
async fn the_api_is_asked_again_as_it_wants_to_be() {
    let place = Place::new();
    let model = Model::start([
        Scene::error(529, "overloaded_error", "Overloaded").header("retry-after-ms", "30"),
        Scene::error(429, "rate_limit_error", "Slow down").header("retry-after", "1"),
        Scene::error(400, "invalid_request_error", "odd")
            .header("x-should-retry", "true")
            .header("retry-after-ms", "10"),
        Answer::new().text(&["ok"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let started = std::time::Instant::now();
    let ended = place.run(&agent("hi", &[]), &callback, &model_env(&model.url)).await;
    assert_eq!((ended.code, model.requests().len()), (Some(0), 4), "{}", ended.log);
    assert!(started.elapsed() > Duration::from_secs(1));
    assert!(callback.of("token_reset").is_empty());
}

#[tokio::test]
async fn every_end_that_is_none_is_a_failure_with_its_reason() {
    let hello = || Answer::new().text(&["Hello"]);
    for (scene, code, message) in [
        (hello().stop("max_tokens").scene(), "stop_reason", "Unexpected stop reason: max_tokens"),
        (hello().stop("stop_sequence").scene(), "stop_reason", "Unexpected stop reason: stop_sequence"),
        (hello().refusal("No.").scene(), "stop_reason", "Unexpected stop reason: refusal: No."),
        (
            hello().stop("model_context_window_exceeded").scene(),
            "stop_reason",
            "Unexpected stop reason: model_context_window_exceeded",
        ),
        (hello().stop("something_new").scene(), "stop_reason", "Unexpected stop reason: something_new"),
        (
            Scene::error(401, "authentication_error", "bad key"),
            "api_error",
            "Claude API error: 401 authentication_error: bad key",
        ),
        (Scene::error(404, "not_found_error", "model: x"), "api_error", "ALLOWED_MODELS"),
        (
            Scene::error(529, "overloaded_error", "Overloaded").header("retry-after-ms", "5"),
            "api_error",
            "Claude API error: 529 overloaded_error: Overloaded",
        ),
    ] {
        let place = Place::new();
        let model = Model::start([scene]).await;
        let callback = Callback::start().await;
        let mut env = model_env(&model.url).to_vec();
        env.push(("LEGWORK_API_RETRIES", "2"));
        let ended = place.run(&agent("hi", &[]), &callback, &env).await;
        assert_eq!(ended.code, Some(1));
        let events = callback.events();
        let last = events.last().unwrap();
        assert!(last["message"].as_str().unwrap().contains(message), "{last}");
        assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!(code)));
        assert!(callback.of("done").is_empty());
    }
}

#[tokio::test]
async fn a_pause_is_gone_on_from_and_turns_are_counted() {
    let place = Place::new();
    let model = Model::start([
        Answer::new().thinking("hm", "c2ln").text(&["wait"]).stop("pause_turn").scene(),
        Answer::new().text(&["go"]).tool("t", "list_files", &json!({})).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let mut task = agent("hi", &["list_files"]);
    task["max_turns"] = 3.into();
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert_eq!((ended.code, model.requests().len()), (Some(1), 3));
    let second = model.requests()[1].json();
    assert_eq!(
        second["messages"][1]["content"][0],
        json!({"type": "thinking", "thinking": "hm", "signature": "c2ln"})
    );
    let last = callback.events().pop().unwrap();
    assert_eq!((&last["message"], &last["code"]), (&json!("Max turns reached"), &json!("max_turns")));
    assert_eq!(last["usage"]["turns"], 3);
}

#[tokio::test]
async fn budgets_end_an_agent_before_they_are_exceeded() {
    for (budget, message) in [
        (json!({"tokens": 2000}), "tokens are used"),
        (json!({"usd": 0.008}), "US dollars are used"),
        (json!({"seconds": 0.5}), "the task's time is up"),
    ] {
        let place = Place::new();
        let model = Model::start([Answer::new()
            .tool("t", "shell", &json!({"command": "sleep 0.2"}))
            .usage([900, 100, 0, 0])
            .scene()])
        .await;
        let callback = Callback::start().await;
        let mut task = agent("hi", &["shell"]);
        task["budget"] = budget;
        task["max_tokens"] = 300.into();
        task["prices"] = json!({"claude-sonnet-4-20250514": {"input": 3, "output": 15}});
        let ended = place.run(&task, &callback, &model_env(&model.url)).await;
        let last = callback.events().pop().unwrap();
        assert_eq!((ended.code, &last["code"]), (Some(1), &json!("budget")), "{last}");
        assert!(last["message"].as_str().unwrap().contains(message), "{last}");
        let turns = last["usage"]["turns"].as_f64().unwrap();
        assert!((1.0..6.0).contains(&turns));
        let cost = last["usage"]["cost_usd"].as_f64().unwrap();
        assert!((cost - turns * 0.0042).abs() < 1e-9, "{last}");
    }
}

#[tokio::test]
async fn old_tool_results_make_room_when_the_window_is_full() {
    let place = Place::new();
    place.write("big.txt", &"x".repeat(5000));
    let read =
        |i: usize| Answer::new().tool(&format!("t{i}"), "read_file", &json!({"path": "big.txt"})).scene();
    let model = Model::start([
        read(0),
        read(1),
        read(2),
        Answer::new().text(&["too"]).stop("model_context_window_exceeded").scene(),
        Answer::new().text(&["done"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let ended = place.run(&agent("hi", &["read_file"]), &callback, &model_env(&model.url)).await;
    assert_eq!((ended.code, callback.text().as_str()), (Some(0), "done"), "{}", ended.log);
    let last = model.requests()[4].json();
    let content = |i: usize| last["messages"][i]["content"][0]["content"].as_str().unwrap().len();
    assert!(content(2) < 200 && content(6) > 4000);
}

#[tokio::test]
async fn bad_configs_are_refused_by_an_event_and_a_line_of_log() {
    for (config, message) in [
        ("{", "Invalid JSON in TASK_CONFIG: "),
        ("[]", "Invalid task configuration: Config must be a dictionary"),
        (r#"{"tools":["rm"]}"#, "Invalid task configuration: Disallowed tool: rm"),
        (
            r#"{"type":"workflow","jobs":{"a":{"needs":"a","steps":[]}}}"#,
            "jobs need one another in a circle: a",
        ),
        (r#"{}"#, "ANTHROPIC_API_KEY environment variable is required"),
    ] {
        let place = Place::new();
        let callback = Callback::start().await;
        let env = [("TASK_ID", "41"), ("CALLBACK_URL", callback.url.as_str()), ("TASK_CONFIG", config)];
        let ended = place.spawn(&env).end().await;
        assert_eq!(ended.code, Some(1));
        let events = callback.events();
        assert_eq!((events.len(), &events[0]["code"]), (1, &json!("invalid_config")), "{config}");
        assert!(events[0]["message"].as_str().unwrap().contains(message), "{}", events[0]);
        let line: Value = serde_json::from_str(ended.log.lines().next().unwrap()).unwrap();
        assert_eq!((&line["level"], &line["service"]), (&json!("ERROR"), &json!("runner")));
        assert!(line["message"].as_str().unwrap().contains(message), "{line}");
    }
    let place = Place::new();
    let ended = place.spawn(&[("CALLBACK_URL", "http://127.0.0.1:1/")]).end().await;
    assert!(ended.code == Some(1) && ended.log.contains("TASK_ID environment variable is required"));
}

#[tokio::test]
async fn the_task_may_come_by_stdin() {
    let place = Place::new();
    let callback = Callback::start().await;
    let mut pod = place.spawn(&[("TASK_ID", "41"), ("CALLBACK_URL", &callback.url), ("TASK_CONFIG", "")]);
    pod.stdin(&steps(&["echo hi"]).to_string()).await;
    assert_eq!(pod.end().await.code, Some(0));
    assert_eq!(kinds(&callback.events()), ["step_start", "log", "log", "step_end", "done"]);
}

#[tokio::test]
async fn delivery_follows_the_protocols_table() {
    // A refused event is dropped, a busy server is asked again, one request at a time.
    let callback = Callback::with(Arc::new(|n, event| match (n, event["type"].as_str().unwrap()) {
        (0, "step_start") => (204, None, Duration::ZERO),
        (1, _) => (503, None, Duration::ZERO),
        (2, _) => (429, Some("1".into()), Duration::ZERO),
        (5, _) => (302, None, Duration::ZERO),
        _ => (200, None, Duration::from_millis(5)),
    }))
    .await;
    let place = Place::new();
    let ended = place.run(&steps(&["echo 1; echo 2; echo 3"]), &callback, &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let told: Vec<String> =
        callback.of("log").iter().map(|e| e["message"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ["Running: echo 1; echo 2; echo 3", "1", "3"]);
    assert_eq!(callback.most_in_flight(), 1);
    let requests = callback.requests();
    assert_eq!(requests[1].2, requests[2].2);
    assert!(requests[2].0 - requests[1].0 >= Duration::from_millis(500));
    assert!(requests[3].0 - requests[2].0 >= Duration::from_secs(1));
    // An undelivered end is told by the exit status.
    let deaf = Callback::with(Arc::new(|_, event| {
        (if event["type"] == "done" { 410 } else { 200 }, None, Duration::ZERO)
    }))
    .await;
    let ended = Place::new().run(&steps(&["true"]), &deaf, &[]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.log.contains("last event could not be delivered"));
}

#[tokio::test]
async fn a_slow_callback_holds_up_nothing() {
    let deltas: Vec<String> = (0..2000).map(|i| format!("{i} ")).collect();
    let deltas: Vec<&str> = deltas.iter().map(String::as_str).collect();
    let model = Model::start([Answer::new().text(&deltas).scene()]).await;
    let callback = Callback::with(Arc::new(|_, _| (200, None, Duration::from_millis(100)))).await;
    let ended = Place::new().run(&agent("hi", &[]), &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0));
    assert_eq!(callback.text(), deltas.concat());
    assert!(callback.of("token").len() < 40, "{}", callback.of("token").len());
    assert_eq!(callback.most_in_flight(), 1);
}

/// A model's shell lines are judged where the operator has rules; a workflow's are its own.
#[tokio::test]
async fn rules_bind_the_model_and_not_the_workflow() {
    let place = Place::new();
    place.write("keep", "x");
    let rules = place.dir.path().join("rules.yaml");
    std::fs::write(&rules, "permission:\n  bash:\n    \"*\": deny\n    \"ls *\": allow\n    ls: allow\n")
        .unwrap();
    let model = Model::start([
        Answer::new()
            .tool("t1", "shell", &json!({"command": "ls"}))
            .tool("t2", "shell", &json!({"command": "ls; rm keep"}))
            .scene(),
        Answer::new().text(&["ok"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let mut env = model_env(&model.url).to_vec();
    env.push(("LEGWORK_POLICY", rules.to_str().unwrap()));
    let ended = place.run(&agent("go", &["shell"]), &callback, &env).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let ends = callback.of("tool_end");
    assert_eq!(ends[0]["output"], "STDOUT:\nkeep\n\n\nEXIT CODE: 0");
    assert!(ends[1]["output"].as_str().unwrap().starts_with("Error: command denied"), "{}", ends[1]);
    assert_eq!(place.read("keep"), "x");
    let callback = Callback::start().await;
    let env = [("LEGWORK_POLICY", rules.to_str().unwrap())];
    assert_eq!(place.run(&steps(&["rm keep"]), &callback, &env).await.code, Some(0));
    let missing = place.spawn(&[
        ("TASK_ID", "1"),
        ("CALLBACK_URL", "http://127.0.0.1:1/"),
        ("LEGWORK_POLICY", "/nowhere"),
    ]);
    let ended = missing.end().await;
    assert!(
        ended.code == Some(1) && ended.log.contains("LEGWORK_POLICY: failed to read /nowhere"),
        "{}",
        ended.log
    );
}

/// The model gave a block of blanks, which its own API does not take back.
#[tokio::test]
async fn a_block_of_blanks_is_not_sent_back() {
    let read = json!({"path": "f"});
    let first = Answer::new().text(&["\n \n"]).tool("toolu_1", "read_file", &read).stop("tool_use");
    let model = Model::start([first.scene(), Answer::new().text(&["done"]).scene()]).await;
    let (place, callback) = (Place::new(), Callback::start().await);
    place.write("f", "x");
    let mut task = agent("read", &["read_file"]);
    let blocks = json!([{"type": "text", "text": " "}, {"type": "text", "text": "read f"}]);
    task["messages"][0]["content"] = blocks;
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let requests = model.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        let json = request.json();
        // Whoever says no model gets one that is in service.
        assert_eq!(json["model"], "claude-sonnet-5");
        for message in json["messages"].as_array().unwrap() {
            for block in message["content"].as_array().into_iter().flatten() {
                assert!(block["text"].as_str().is_none_or(|text| !text.trim().is_empty()), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn the_default_model_is_one_that_is_allowed() {
    let model = Model::start([Answer::new().text(&["done"]).scene()]).await;
    let (place, callback) = (Place::new(), Callback::start().await);
    let [key, url] = model_env(&model.url);
    let ended =
        place.run(&agent("hi", &[]), &callback, &[key, url, ("ALLOWED_MODELS", "ours-1,ours-2")]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(model.requests()[0].json()["model"], "ours-1");
}
