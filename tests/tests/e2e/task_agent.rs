//! Agents at work: our tools, a shell that keeps its place, a window that fills.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use legwork_e2e::legwork;
use legwork_e2e::model::{Answer, Model, Scene};
use legwork_e2e::pod::{Callback, Place, agent, model_env, steps};
use serde_json::{Value, json};

const TOOLS: &[&str] = &["legwork"];

/// Runs an agent that makes these calls in one message each, and returns what the model was told.
async fn called(place: &Place, tools: &[&str], calls: &[(&str, Value)]) -> Vec<Value> {
    let mut scenes: Vec<Scene> = calls
        .iter()
        .enumerate()
        .map(|(i, (name, input))| Answer::new().tool(&format!("t{i}"), name, input).scene())
        .collect();
    scenes.push(Answer::new().text(&["ok"]).scene());
    let model = Model::start(scenes).await;
    let callback = Callback::start().await;
    let mut task = agent("go", tools);
    task["max_turns"] = 100.into();
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let last = model.requests().last().unwrap().json();
    let results = last["messages"].as_array().unwrap().iter().filter(|m| m["role"] == "user").skip(1);
    results.map(|message| message["content"][0].clone()).collect()
}

fn text(result: &Value) -> &str {
    result["content"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_file_is_edited_in_exact_pieces_or_not_at_all() {
    let place = Place::new();
    place.write("a.rs", "fn one() {}\nfn two() {}\nfn one_more() {}\n").write("w.txt", "a\r\nb\r\n");
    std::fs::write(place.workspace.join("bin"), b"\xff\xfe").unwrap();
    let edit = |path: &str, edits: Value| ("edit", json!({"path": path, "edits": edits}));
    let results = called(
        &place,
        TOOLS,
        &[
            edit(
                "a.rs",
                json!([{"old": "fn two() {}", "new": "fn two() { 2 }"}, {"old": "{ 2 }", "new": "{ 3 }"}]),
            ),
            edit("a.rs", json!([{"old": "fn one", "new": "x"}])),
            // The first could be made, the second not: so none is.
            edit("a.rs", json!([{"old": "one_more", "new": "more"}, {"old": "nothing", "new": "x"}])),
            edit("a.rs", json!([{"old": "fn one", "new": "fn first", "all": true}])),
            edit("a.rs", json!([{"old": "", "new": "x"}])),
            edit("w.txt", json!([{"old": "a\nb", "new": "a\nB"}])),
            edit("bin", json!([{"old": "x", "new": "y"}])),
            edit("../x", json!([{"old": "x", "new": "y"}])),
            edit("none", json!([{"old": "x", "new": "y"}])),
            edit("a.rs", json!([])),
            ("edit", json!({"path": "a.rs", "edits": [{"old": 5, "new": "y"}]})),
        ],
    )
    .await;
    let wanted = [
        "Edited a.rs: 2 places\n    1  fn one() {}\n    2  fn two() { 3 }\n",
        "Error: old is there 2 times (lines 1, 3): give more of the text around it, or set all. Nothing was changed",
        "Error: edits[1]: old is not in the file",
        "Edited a.rs: 2 places",
        "Error: old is empty",
        "Edited w.txt: 1 place",
        "Error: bin is not UTF-8 text",
        "Error: path traversal not allowed",
        "Error: file not found: none",
        "Error: edits must have 1 to 200 items",
        "Error: edits[0]: old must be a string",
    ];
    for (result, want) in results.iter().zip(wanted) {
        assert!(text(result).starts_with(want), "{} / {want}", text(result));
        assert_eq!(result.get("is_error").is_some(), want.starts_with("Error"), "{want}");
    }
    assert_eq!(place.read("a.rs"), "fn first() {}\nfn two() { 3 }\nfn first_more() {}\n");
    assert_eq!(place.read("w.txt"), "a\r\nB\r\n");
}

#[tokio::test]
async fn pictures_documents_and_lists_are_shown() {
    let place = Place::new();
    std::fs::write(place.workspace.join("p.png"), b"\x89PNG\r\n\x1a\nxyz").unwrap();
    place.write("d.pdf", "%PDF-1.4 x").write("src/a.rs", "").write("src/deep/b.rs", "");
    place.write("node_modules/c.rs", "").write(".git/d.rs", "");
    let results = called(
        &place,
        TOOLS,
        &[
            ("read_file", json!({"path": "p.png"})),
            ("read_file", json!({"path": "d.pdf"})),
            ("glob", json!({"pattern": "**/*.rs"})),
            ("glob", json!({"pattern": "*.rs", "path": "src"})),
            ("glob", json!({"pattern": "../*"})),
            (
                "todo",
                json!({"items": [{"text": "look", "status": "done"}, {"text": "fix", "status": "pending"}]}),
            ),
            ("todo", json!({"items": [{"text": "look", "status": "maybe"}]})),
        ],
    )
    .await;
    assert_eq!(results[0]["content"][0]["source"]["media_type"], "image/png");
    assert_eq!(results[1]["content"][0]["type"], "document");
    let mut found: Vec<&str> = text(&results[2]).lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["src/a.rs", "src/deep/b.rs"]);
    assert_eq!(text(&results[3]), "src/a.rs");
    assert!(text(&results[4]).contains("without '..'"));
    assert_eq!(text(&results[5]), "[x] look\n[ ] fix\n");
    assert!(text(&results[6]).starts_with("Error: items[0].status"));
}

#[tokio::test]
async fn a_shell_keeps_its_folder_and_exports_whatever_a_command_does() {
    let place = Place::new();
    place.write("d/e/f", "");
    let shell = |command: &str| ("shell", json!({"command": command}));
    let results = called(
        &place,
        TOOLS,
        &[
            shell("cd d/e && export A='it'\\''s  1' && B=2"),
            shell("basename \"$PWD\"; echo \"$A$B\""),
            shell("cd ..; exit 3"),
            shell("basename \"$PWD\""),
            shell("echo \"unclosed"),
            shell("cd /; kill -9 $$"),
            shell("basename \"$PWD\"; echo \"$A\""),
            ("shell", json!({"command": "basename \"$PWD\"", "working_directory": "d"})),
            shell("cat; cd e; rmdir ../nothing; rm f; rmdir ../e"),
            shell("basename \"$PWD\""),
            shell("(cd /tmp; export A=no); set -e; false; echo never"),
            shell("echo \"$A\""),
        ],
    )
    .await;
    let wanted = [
        "EXIT CODE: 0",
        "STDOUT:\ne\nit's  1\n\n\nEXIT CODE: 0",
        "EXIT CODE: 3",
        "STDOUT:\nd\n\n\nEXIT CODE: 0",
        "STDERR:",
        "EXIT CODE: -9",
        "STDOUT:\nd\nit's  1\n\n\nEXIT CODE: 0",
        "STDOUT:\nd\n",
        "STDERR:",
        "STDOUT:\nws\n\n\nSTDERR:\nThe folder is gone: back in the workspace.\n",
        "EXIT CODE: 1",
        "STDOUT:\nit's  1\n",
    ];
    for (i, (result, want)) in results.iter().zip(wanted).enumerate() {
        assert!(text(result).starts_with(want), "{i}: {} / {want}", text(result));
    }
}

#[tokio::test]
async fn commands_go_on_in_the_background_until_the_agent_ends() {
    let place = Place::new();
    let handle = Arc::new(std::sync::Mutex::new(String::new()));
    let calls = Arc::new(AtomicUsize::new(0));
    let model = Model::start([Answer::new().text(&["ok"]).scene()]).await;
    {
        let (handle, calls) = (handle.clone(), calls.clone());
        model.answer_by(Arc::new(move |request| {
            let last = request["messages"].as_array().unwrap().last().unwrap();
            let said = last["content"][0]["content"].as_str().unwrap_or_default();
            let is_new = handle.lock().unwrap().is_empty();
            if let Some(rest) = said.strip_prefix("Started in the background as ").filter(|_| is_new) {
                *handle.lock().unwrap() = rest.split('.').next().unwrap().to_owned();
            }
            let handle = handle.lock().unwrap().clone();
            let n = calls.fetch_add(1, Ordering::SeqCst);
            let (name, input) = match n {
                0 => (
                    "shell",
                    json!({"command": "echo up; echo $$ > pid; exec sleep 300", "background": true}),
                ),
                1 => ("background", json!({"handle": handle, "wait": 20})),
                2 => ("background", json!({"handle": handle})),
                3 => ("background", json!({"action": "stop", "handle": handle})),
                4 => ("background", json!({"action": "read", "handle": "nobody"})),
                // What is left running in a call is there in the next one.
                5 => (
                    "shell",
                    json!({"command": "sleep 300 & echo $! > left; nohup sleep 300 >/dev/null 2>&1 &"}),
                ),
                6 => (
                    "shell",
                    json!({"command": "kill -0 $(cat left) && echo there || ls -d /proc/$(cat left)"}),
                ),
                7 => ("shell", json!({"command": "echo $$ > pid2; exec sleep 300", "background": true})),
                8 => ("shell", json!({"command": "until test -s pid2; do sleep 0.1; done"})),
                _ => return Answer::new().text(&["done"]).scene(),
            };
            Answer::new().tool(&format!("t{n}"), name, &input).scene()
        }));
    }
    let callback = Callback::start().await;
    let ended = place.run(&agent("go", TOOLS), &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let outputs: Vec<String> =
        callback.of("tool_end").iter().map(|e| e["output"].as_str().unwrap_or_default().to_owned()).collect();
    let handle = handle.lock().unwrap().clone();
    assert_eq!(outputs[1], format!("STDOUT:\nup\n\n\n{handle} is running"));
    assert!(outputs[2].ends_with("is running") && !outputs[2].contains("up"), "{}", outputs[2]);
    assert!(outputs[3].ends_with("was stopped"), "{}", outputs[3]);
    assert!(outputs[4].starts_with("Error: there is no command 'nobody'"), "{}", outputs[4]);
    assert!(outputs[6].contains("STDOUT"), "{}", outputs[6]);
    for file in ["pid", "pid2", "left"] {
        let pid = place.read(file).trim().to_owned();
        let is_there = || async { !std::path::Path::new(&format!("/proc/{pid}")).exists() };
        legwork_e2e::until("the end of what was left running", is_there).await;
    }
}

#[tokio::test]
async fn steps_of_a_workflow_share_what_they_leave() {
    let place = Place::new();
    let callback = Callback::start().await;
    let task = steps(&[
        "sleep 300 >/dev/null 2>&1 & echo $! > pid",
        "test -d /proc/$(cat pid)",
        "d=$(mktemp -d); echo data > $d/f; echo $d > where",
        "cat $(cat where)/f",
    ]);
    let started = Instant::now();
    let ended = place.run(&task, &callback, &[]).await;
    assert_eq!(ended.code, Some(0), "{:?}", callback.events());
    assert!(started.elapsed() < Duration::from_secs(120));
    let pid = place.read("pid").trim().to_owned();
    let is_gone = || async { !std::path::Path::new(&format!("/proc/{pid}")).exists() };
    legwork_e2e::until("the end of the server", is_gone).await;
    assert!(!std::path::Path::new(place.read("where").trim()).exists());
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_gone_on_with() {
    let place = Place::new();
    place.write("f", "x");
    let read = json!({"path": "f"});
    let model = Model::start([
        Answer::new().text(&["Half of a"]).stop("max_tokens").scene(),
        // A whole call, and half of one.
        Answer::new()
            .tool("t1", "read_file", &read)
            .raw_tool("t2", "write_file", "{\"path\": \"g\", \"content\": \"aaa")
            .stop("max_tokens")
            .scene(),
        Answer::new().raw_tool("t3", "write_file", "{\"path\": \"g\", \"con").stop("max_tokens").scene(),
        Answer::new().text(&["done"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let ended =
        place.run(&agent("hi", &["read_file", "write_file"]), &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let requests = model.requests();
    let sent = requests[3].json();
    assert!(sent["messages"][2]["content"].as_str().unwrap().contains("cut off at 4096 tokens. Go on"));
    assert_eq!(sent["messages"][3]["content"].as_array().unwrap().len(), 1);
    assert_eq!(sent["messages"][4]["content"][0]["content"], "x");
    assert!(
        sent["messages"][4]["content"][1]["text"].as_str().unwrap().contains("within a call of write_file")
    );
    assert_eq!(sent["messages"][5]["content"][0]["text"], "…");
    assert!(!place.workspace.join("g").exists());
}

#[tokio::test]
async fn arguments_that_are_no_object_are_answered() {
    let place = Place::new();
    let model = Model::start([
        Answer::new().raw_tool("t1", "shell", "{\"command\": \"touch a\"").scene(),
        Answer::new().raw_tool("t2", "shell", "[\"touch b\"]").raw_tool("t3", "shell", "null").scene(),
        Answer::new().text(&["done"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let ended = place.run(&agent("hi", &["shell"]), &callback, &model_env(&model.url)).await;
    assert_eq!((ended.code, model.requests().len()), (Some(0), 3), "{}", ended.log);
    let sent = model.requests()[2].json();
    assert_eq!(sent["messages"][1]["content"][0]["input"]["INVALID_JSON"], "{\"command\": \"touch a\"");
    for (message, block) in [(2, 0), (4, 0), (4, 1)] {
        let result = &sent["messages"][message]["content"][block];
        assert_eq!(result["is_error"], true);
        assert!(result["content"].as_str().unwrap().contains("no JSON object"), "{result}");
    }
    assert!(!place.workspace.join("a").exists());
}

#[tokio::test]
async fn the_model_is_the_newest_and_a_retired_one_is_told_from_the_living() {
    let model = Model::start([Answer::new().text(&["done"]).scene()]).await;
    let ended = Place::new().run(&agent("hi", &[]), &Callback::start().await, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(model.requests()[0].json()["model"], "claude-sonnet-5");
    // A model that nobody here has heard of, and one that is no more.
    let gone = Model::start([Scene::error(404, "not_found_error", "model: claude-1")]).await;
    let callback = Callback::start().await;
    let mut task = agent("hi", &[]);
    task["model"] = "claude-1".into();
    let ended = Place::new().run(&task, &callback, &model_env(&gone.url)).await;
    assert_eq!(ended.code, Some(1));
    let said = callback.events().pop().unwrap()["message"].as_str().unwrap().to_owned();
    assert!(said.contains("in service are claude-sonnet-5, claude-opus-5"), "{said}");
    // Where no list can be had, that is said.
    let mute = Model::start([Answer::new().text(&["done"]).scene()]).await;
    mute.list_models(None);
    let callback = Callback::start().await;
    let ended = Place::new().run(&agent("hi", &[]), &callback, &model_env(&mute.url)).await;
    assert_eq!((ended.code, mute.requests().len()), (Some(1), 0));
    let said = callback.events().pop().unwrap()["message"].as_str().unwrap().to_owned();
    assert!(said.contains("name one in the task, or set ALLOWED_MODELS"), "{said}");
    // A bearer instead of a key, for gateways.
    let model = Model::start([Answer::new().text(&["done"]).scene()]).await;
    let env = [("ANTHROPIC_AUTH_TOKEN", "bearer-0123456789"), ("ANTHROPIC_BASE_URL", model.url.as_str())];
    let ended = Place::new().run(&agent("hi", &[]), &Callback::start().await, &env).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let headers = &model.requests()[0].headers;
    assert_eq!(
        (&headers["authorization"], headers.get("x-api-key")),
        (&"Bearer bearer-0123456789".parse().unwrap(), None)
    );
}

#[tokio::test]
async fn thoughts_costs_and_schemas_are_told() {
    let place = Place::new();
    place.write("AGENTS.md", "Use tabs.").write("CLAUDE.md", "Not read.");
    let model = Model::start([
        Answer::new().thinking("Let me see.", "c2ln").tool("t", "list_files", &json!({})).scene(),
        Answer::new().text(&["{\"ok\": ", "true}"]).scene(),
    ])
    .await;
    let callback = Callback::start().await;
    let mut task = agent("hi", TOOLS);
    task["live_usage"] = true.into();
    task["thinking"] = json!({"type": "adaptive"});
    let schema =
        json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "additionalProperties": false});
    task["output_schema"] = schema.clone();
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(callback.of("thinking")[0]["text"], "Let me see.");
    let usage = callback.of("usage");
    assert_eq!((usage.len(), &usage[1]["usage"]["turns"]), (2, &json!(2)));
    assert_eq!(callback.events().pop().unwrap()["output"], json!({"ok": true}));
    let request = model.requests()[0].json();
    assert_eq!(request["output_config"]["format"]["schema"], schema);
    let system = request["system"][0]["text"].as_str().unwrap();
    assert!(system.starts_with("You are an agent") && system.contains("AGENTS.md, which says:\n\nUse tabs."));
    assert!(!system.contains("Not read"));
    // Somebody's own words take the place of ours.
    let words = place.dir.path().join("words");
    std::fs::write(&words, "Be brief.").unwrap();
    let model = Model::start([Answer::new().text(&["no json"]).scene()]).await;
    let callback = Callback::start().await;
    let mut env = model_env(&model.url).to_vec();
    env.push(("LEGWORK_SYSTEM_PROMPT", words.to_str().unwrap()));
    let ended = place.run(&task, &callback, &env).await;
    let last = callback.events().pop().unwrap();
    assert_eq!((ended.code, &last["code"]), (Some(1), &json!("stop_reason")), "{last}");
    assert!(last["message"].as_str().unwrap().contains("not JSON"), "{last}");
    assert!(model.requests()[0].json()["system"][0]["text"].as_str().unwrap().starts_with("Be brief."));
}

#[tokio::test]
async fn agents_of_an_agent_have_their_own_tools_and_bounds() {
    let place = Place::new();
    place.write("f", "secret of f");
    let model = Model::start([Answer::new().text(&["x"]).scene()]).await;
    model.answer_by(Arc::new(|request| {
        let messages = request["messages"].as_array().unwrap();
        let first = messages[0]["content"].as_str().unwrap();
        let answer = Answer::new();
        match (first, messages.len()) {
            ("main", 1) => answer.tool("a1", "agent", &json!({"prompt": "read f"})).tool(
                "a2",
                "agent",
                &json!({"prompt": "loop"}),
            ),
            ("main", _) => answer.text(&["both are done"]),
            ("read f", 1) => {
                answer.tool("s1", "read_file", &json!({"path": "f"})).tool("s2", "shell", &json!({}))
            }
            ("read f", _) => {
                answer.text(&["f says: ", messages[2]["content"][0]["content"].as_str().unwrap()])
            }
            _ => answer.tool("l", "list_files", &json!({})),
        }
        .scene()
    }));
    let callback = Callback::start().await;
    let mut task = agent("main", &["agent", "shell"]);
    task["sub_agent"] = json!({"tools": ["read_file", "list_files"], "max_turns": 3});
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(callback.text(), "both are done");
    let ends = callback.of("tool_end");
    let of = |id: &str| ends.iter().find(|e| e["tool_id"] == id).unwrap().clone();
    assert_eq!(of("a1")["output"], "f says: secret of f");
    assert_eq!(of("s1")["parent_tool_id"], "a1");
    assert!(of("s2")["output"].as_str().unwrap().contains("Unknown tool: shell"));
    assert!(of("a2")["output"].as_str().unwrap().contains("Max turns reached"), "{}", of("a2"));
    // All of it is in the bill: 2 turns of one, 2 and 3 of the others, of 120 tokens each.
    let usage = callback.events().pop().unwrap()["usage"].clone();
    assert_eq!((&usage["turns"], &usage["input_tokens"]), (&json!(2), &json!(700)), "{usage}");
    let mut task = agent("x", &["agent"]);
    task["sub_agent"] = json!({"tools": ["agent"], "turns": 3});
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert!(ended.log.contains("sub_agent has no 'turns'"), "{}", ended.log);
}

/// The conversation of a test: 200 turns of a tool with long answers, each of which the model
/// remembers by its number alone.
fn long_conversation(turns: usize, seen: Arc<AtomicUsize>) -> legwork_e2e::model::Script {
    Arc::new(move |request| {
        let messages = request["messages"].as_array().unwrap();
        let length: usize = request.to_string().len();
        // A window of 20,000 tokens of three bytes.
        if length > 60_000 {
            return Scene::error(
                400,
                "invalid_request_error",
                "prompt is too long: 99999 tokens > 20000 maximum",
            );
        }
        // Every call has its answer, and roles take turns.
        let mut open: Vec<String> = Vec::new();
        for message in messages {
            let blocks = message["content"].as_array().cloned().unwrap_or_default();
            for block in &blocks {
                match block["type"].as_str() {
                    Some("tool_use") => open.push(block["id"].as_str().unwrap().to_owned()),
                    Some("tool_result") => {
                        let id = block["tool_use_id"].as_str().unwrap();
                        assert!(open.contains(&id.to_owned()), "an answer to no call: {id}");
                        open.retain(|known| known != id);
                    }
                    _ => {}
                }
            }
        }
        assert!(open.is_empty(), "calls without answers: {open:?}");
        let usage = [length as u64 / 3, 20, 0, 0];
        if messages.last().unwrap().to_string().contains("Write a summary of it") {
            return Answer::new().text(&["We are at it."]).usage(usage).scene();
        }
        let n = seen.fetch_add(1, Ordering::SeqCst);
        if n >= turns {
            return Answer::new().text(&["all done"]).usage(usage).scene();
        }
        let input = json!({"command": format!("echo {n} >> log; head -c 3000 /dev/zero | tr '\\0' x")});
        Answer::new().tool(&format!("t{n}"), "shell", &input).usage(usage).scene()
    })
}

#[tokio::test]
async fn two_hundred_turns_go_through_summaries_and_a_kill() {
    let place = Place::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let model = Model::start([Answer::new().text(&["x"]).scene()]).await;
    model.answer_by(long_conversation(200, seen.clone()));
    let callback = Callback::start().await;
    let mut task = agent("Do it 200 times", TOOLS);
    task["max_turns"] = 300.into();
    task["context_window"] = 20_000.into();
    task["max_tokens"] = 1000.into();
    let env = model_env(&model.url);
    let mut pod = place.active(&task, &callback, &env);
    legwork_e2e::until("half of it", || async { seen.load(Ordering::SeqCst) > 100 }).await;
    pod.kill().await;
    let ended = place.run(&task, &callback, &env).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(callback.text(), "all done");
    let requests = model.requests();
    let summaries = requests.iter().filter(|r| r.text.contains("Write a summary of it")).count();
    assert!((2..60).contains(&summaries), "{summaries}");
    let after = requests.last().unwrap().json();
    assert_eq!(after["messages"][0]["content"], "Do it 200 times");
    assert!(after["messages"][1]["content"].as_str().unwrap().contains("We are at it."));
    // Each command ran once. (The request that the kill cut off was answered for nobody.)
    let log = place.read("log");
    let lines: Vec<&str> = log.lines().collect();
    let unique: std::collections::BTreeSet<&str> = lines.iter().copied().collect();
    assert_eq!(lines.len(), unique.len(), "a command ran twice");
    assert!(lines.len() >= 198, "{}", lines.len());
    let usage = callback.events().pop().unwrap()["usage"].clone();
    assert!(usage["turns"].as_u64().unwrap() >= 199, "{usage}");
}

#[tokio::test]
async fn a_summary_that_fails_ends_in_its_reason() {
    let place = Place::new();
    place.write("big", &"x".repeat(2000));
    let model = Model::start([Answer::new().text(&["x"]).scene()]).await;
    let full = || Scene::error(400, "invalid_request_error", "prompt is too long");
    model.answer_by(Arc::new(move |request| {
        let messages = request["messages"].as_array().unwrap();
        if messages.last().unwrap().to_string().contains("Write a summary of it") || messages.len() > 6 {
            return full();
        }
        Answer::new().tool(&format!("t{}", messages.len()), "read_file", &json!({"path": "big"})).scene()
    }));
    let callback = Callback::start().await;
    let ended = place.run(&agent("hi", &["read_file"]), &callback, &model_env(&model.url)).await;
    let last = callback.events().pop().unwrap();
    assert_eq!((ended.code, &last["code"]), (Some(1), &json!("api_error")), "{last}");
    let said = last["message"].as_str().unwrap();
    assert!(said.contains("too long") && said.contains("could not be summed up"), "{said}");
    assert!(model.requests().len() < 12, "{}", model.requests().len());
}

#[tokio::test]
async fn the_api_makes_its_own_summaries_where_it_can() {
    let place = Place::new();
    let compaction = json!({"type": "compaction", "content": "So far so good."});
    let model = Model::start([
        Answer::new().block(compaction.clone()).tool("t", "list_files", &json!({})).scene(),
        Answer::new().text(&["done"]).scene(),
    ])
    .await;
    let mut task = agent("hi", &["list_files"]);
    task["compaction"] = "api".into();
    let ended = place.run(&task, &Callback::start().await, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let requests = model.requests();
    assert_eq!(requests[0].headers["anthropic-beta"], "compact-2026-01-12");
    let edits = &requests[0].json()["context_management"]["edits"];
    assert_eq!(
        edits[0],
        json!({"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 160_000}})
    );
    assert_eq!(requests[1].json()["messages"][1]["content"][0], compaction);
    // One that does not know of it is asked without.
    let model = Model::start([
        Scene::error(400, "invalid_request_error", "context_management: Extra inputs are not permitted"),
        Answer::new().text(&["done"]).scene(),
    ])
    .await;
    let ended = place.run(&task, &Callback::start().await, &model_env(&model.url)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(model.requests()[1].headers.get("anthropic-beta"), None);
}

#[tokio::test]
async fn the_official_toolsets_have_their_names_and_words() {
    let place = Place::new();
    place.write("src/a.rs", "fn a() {}\nfn b() {}\n");
    let results = called(
        &place,
        &["agent_toolset_20260401"],
        &[
            ("bash", json!({"command": "cd src; f() { echo in f; }; X=1; echo out; echo err >&2"})),
            ("bash", json!({"command": "f; echo $X; basename $PWD; false"})),
            ("bash", json!({"restart": true})),
            ("bash", json!({"command": "echo [$X]; sleep 20", "timeout_ms": 300})),
            ("read", json!({"file_path": "src/a.rs", "view_range": [2, 2]})),
            ("edit", json!({"file_path": "src/a.rs", "old_string": "fn", "new_string": "x"})),
            ("edit", json!({"file_path": "/workspace/src/a.rs", "old_string": "fn a", "new_string": "fn c"})),
            ("write", json!({"file_path": "n/new", "content": "\u{e9}"})),
            ("grep", json!({"pattern": "fn [bc]", "path": "src"})),
            ("glob", json!({"pattern": "**/*.rs"})),
            ("bash", json!({})),
        ],
    )
    .await;
    let ws = place.workspace.canonicalize().unwrap();
    let wanted = [
        "out\nerr".to_owned(),
        "in f\n1\nsrc\nexit code: 1".into(),
        "bash session restarted".into(),
        "[]\n[timed out after 300 ms]".into(),
        "fn b() {}".into(),
        "edit: old_string appears 2 times in src/a.rs (must be unique)".into(),
        "edited /workspace/src/a.rs (1 replacement(s))".into(),
        "wrote 2 bytes to n/new".into(),
        format!("{0}/src/a.rs:1:fn c() {{}}\n{0}/src/a.rs:2:fn b() {{}}\n", ws.display()),
        format!("{}/src/a.rs", ws.display()),
        "bash: command is required".into(),
    ];
    for (result, want) in results.iter().zip(&wanted) {
        assert_eq!(text(result), want);
    }
    let results = called(
        &place,
        &["bash_20250124", "text_editor_20250728"],
        &[
            ("bash", json!({"command": "echo hi"})),
            ("str_replace_based_edit_tool", json!({"command": "create", "path": "x", "file_text": "1\n2\n"})),
            (
                "str_replace_based_edit_tool",
                json!({"command": "insert", "path": "x", "insert_line": 1, "insert_text": "1.5"}),
            ),
            (
                "str_replace_based_edit_tool",
                json!({"command": "str_replace", "path": "x", "old_str": "2\n", "new_str": "two\n"}),
            ),
            ("str_replace_based_edit_tool", json!({"command": "view", "path": "x", "view_range": [2, 3]})),
        ],
    )
    .await;
    assert_eq!(text(&results[0]), "hi");
    assert_eq!(text(&results[4]), "     2\t1.5\n     3\ttwo\n");
}

/// The words that an edit costs, beside those of a file that is written whole: about the length
/// of what changes, whatever the file's.
#[tokio::test]
async fn an_edit_costs_what_it_changes() {
    let place = Place::new();
    let body: String = (0..400).map(|i| format!("    let value_{i} = compute({i});\n")).collect();
    place.write("big.rs", &body);
    let edit = json!({"path": "big.rs", "edits": [{"old": "value_200 = compute(200)", "new": "value_200 = compute(2)"}]});
    let whole = json!({"path": "big.rs", "content": body});
    let results = called(&place, TOOLS, &[("edit", edit.clone())]).await;
    let cost = edit.to_string().len() + text(&results[0]).len();
    assert!(cost * 25 < whole.to_string().len(), "{cost} bytes against {}", whole.to_string().len());
}

/// A checkout with a failing test, and a repository that would like to run something.
fn checkout(place: &Place) {
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(&place.workspace).env("HOME", place.dir.path()).args(args);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "--quiet"]);
    place.write("add.sh", "echo $(($1 - $2))\n").write("test.sh", "test \"$(sh add.sh 2 3)\" = 5\n");
    place.write(".gitignore", "ignored\n").write("gone", "x").write("crlf.txt", "a\r\nb\r\n");
    git(&["add", "--all"]);
    git(&["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "x"]);
    // What is not committed goes along; what is ignored, or gone, does not.
    place.write("new.txt", "new\n").write("ignored", "secret");
    std::fs::remove_file(place.workspace.join("gone")).unwrap();
    let pwned = place.dir.path().join("pwned");
    let touch = format!("touch {}", pwned.display());
    for (key, value) in [
        ("core.fsmonitor", touch.clone()),
        ("filter.evil.clean", format!("{touch}; cat")),
        ("filter.evil.smudge", format!("{touch}; cat")),
        ("diff.evil.textconv", touch.clone()),
        ("diff.external", touch.clone()),
        ("core.hooksPath", place.workspace.join("hooks").display().to_string()),
    ] {
        git(&["config", key, &value]);
    }
    place.write(".gitattributes", "*.sh filter=evil diff=evil\n*.txt text eol=lf\n");
    place.write("hooks/post-checkout", &format!("#!/bin/sh\n{touch}\n"));
    std::os::unix::fs::symlink("/etc/passwd", place.workspace.join("passwd")).unwrap();
    std::os::unix::fs::symlink("new.txt", place.workspace.join("link")).unwrap();
}

#[tokio::test]
async fn an_agent_fixes_the_failing_test_of_a_checkout() {
    let place = Place::new();
    checkout(&place);
    let edit = json!({"path": "add.sh", "edits": [{"old": "$1 - $2", "new": "$1 + $2"}]});
    let look = "ls -A; cat new.txt; sh test.sh && echo passes; printf 'a\\r\\nB\\r\\n' > crlf.txt; echo out > ignored";
    let model = Model::start([
        Answer::new().tool("t1", "shell", &json!({"command": "sh test.sh; ls -A"})).scene(),
        Answer::new().tool("t2", "edit", &edit).scene(),
        Answer::new().tool("t3", "shell", &json!({ "command": look })).scene(),
        Answer::new().text(&["Fixed."]).scene(),
    ])
    .await;
    let run = async |more: &[&str]| {
        let mut command = legwork(place.dir.path());
        command
            .current_dir(place.workspace.join("hooks"))
            .args(["agent", "--local", "fix the failing test"])
            .args(more);
        for (name, value) in model_env(&model.url) {
            command.env(name, value);
        }
        let done = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let (code, out, err) = run(&["--apply"]).await;
    assert_eq!(code, Some(0), "{out}\n{err}");
    let told = model.requests()[1].text.clone();
    assert!(told.contains("EXIT CODE") && told.contains("new.txt"), "{told}");
    for left_out in ["ignored", "gone", "passwd"] {
        assert!(!told.contains(&format!("\\n{left_out}\\n")), "{left_out}: {told}");
    }
    assert!(out.contains("passes"), "{out}");
    assert_eq!(place.read("add.sh"), "echo $(($1 + $2))\n");
    assert_eq!(place.read("crlf.txt"), "a\r\nB\r\n");
    assert_eq!(place.read("ignored"), "secret");
    assert!(!place.dir.path().join("pwned").exists(), "the repository ran something");
    assert!(err.contains("2 files changed"), "{err}");
    // Once more: now it does not fit, and nothing is half applied.
    place.write("crlf.txt", "quite\nanother\n").write("add.sh", "echo $(($1 - $2))\n");
    let again = Model::start([
        Answer::new().tool("t2", "edit", &edit).scene(),
        Answer::new().text(&["Fixed."]).scene(),
    ])
    .await;
    let mut command = legwork(place.dir.path());
    command.current_dir(&place.workspace).args(["agent", "--local", "fix"]);
    for (name, value) in model_env(&again.url) {
        command.env(name, value);
    }
    let done = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.contains("1 file changed; look at "), "{said}");
    assert_eq!(place.read("add.sh"), "echo $(($1 - $2))\n");
    let diff = said.split("git apply ").nth(1).unwrap().trim();
    assert!(std::fs::read_to_string(diff).unwrap().contains("+echo $(($1 + $2))"));
}

#[tokio::test]
async fn a_source_that_is_hostile_or_missing_ends_with_its_reason() {
    for (source, reason) in [
        (json!({"archive": "AAAA"}), "the task's source: source.archive"),
        (json!({"archive": "%"}), "no base64"),
        (json!({"git": {"url": "file:///etc"}}), "must begin with https"),
        (json!({"git": {"url": "http://127.0.0.1:1/x.git", "secret": "NONE"}}), "has a secret 'NONE'"),
        (json!({"git": {"url": "http://127.0.0.1:1/x.git"}}), "git fetch ended with 128"),
    ] {
        let (place, callback) = (Place::new(), Callback::start().await);
        let mut task = steps(&["true"]);
        task["source"] = source.clone();
        let ended = place.run(&task, &callback, &[]).await;
        let last = callback.events().pop().unwrap();
        assert_eq!((ended.code, &last["type"]), (Some(1), &json!("error")), "{source}");
        assert!(last["message"].as_str().unwrap().contains(reason), "{source}: {last}");
        assert!(callback.of("step_start").is_empty());
    }
    let (place, callback) = (Place::new(), Callback::start().await);
    place.write("mine", "x");
    let mut task = steps(&["rm mine"]);
    task["source"] = json!({"archive": "AAAA"});
    let ended = place.run(&task, &callback, &[]).await;
    assert_eq!((ended.code, place.read("mine").as_str()), (Some(1), "x"));
}
