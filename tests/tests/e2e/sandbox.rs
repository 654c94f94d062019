//! Walls around commands, through hub and runner.

use serde_json::{Value, json};

use legwork_e2e::{ALLOW_ALL, Hub, Runner, legwork, until};

/// The rules and the sandbox of a test, and what of the machine it needs.
async fn setup(rules: &[(&str, &str)], sandbox: &str) -> (tempfile::TempDir, Hub, Runner) {
    // Not beneath /tmp: in namespaces that is the command's own.
    let base = if rustix::process::geteuid().is_root() { "/var/lib".into() } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new().prefix("legwork-e2e-").tempdir_in(base).unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("r").await;
    let url = format!("ws://{}/runner/ws", hub.address());
    let runner = Runner::start_with(&dir.path().join("home"), &url, &token, rules, sandbox).await;
    let api = hub.api();
    until("the runner is online", || {
        let api = api.clone();
        async move { api.is_online("r").await }
    })
    .await;
    (dir, hub, runner)
}

fn audit_of(runner: &Runner) -> Vec<Value> {
    let state =
        std::fs::read_dir(runner.home.join(".local/state/legwork")).unwrap().flatten().map(|e| e.path());
    let file = state.map(|dir| dir.join("audit.jsonl")).find(|f| f.is_file()).unwrap();
    std::fs::read_to_string(file).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_wall_stops_is_reported_and_audited() {
    for profile in ["landlock", "namespaces"] {
        let rules =
            &[("*", "deny"), ("find *", "allow"), ("cat *", "allow"), ("ls *", "allow"), ("bash *", "allow")];
        let (_dir, hub, runner) = setup(rules, &format!("sandbox: {profile}\n")).await;
        let api = hub.api();
        assert_eq!(
            api.get("/runners/r").await.1["labels"].as_array().unwrap().last(),
            Some(&json!(format!("sandbox:{profile}")))
        );
        let run = api.run("r", "cat /etc/hostname; ls").await;
        assert_eq!(run["exit_code"], 0, "{run}");
        // A script file is not read (point 20): here each exec is judged.
        std::fs::write(runner.workspace.join("s.sh"), "/usr/bin/id; uname -a; true\n").unwrap();
        let run = api.run("r", "bash s.sh").await;
        let stderr = run["result"]["stderr"].as_str().unwrap();
        assert!(stderr.contains("legwork: denied at exec: id ("), "{profile}: {run}");
        assert!(stderr.contains("legwork: denied at exec: uname -a ("), "{profile}: {run}");
        assert!(!run["result"]["stdout"].as_str().unwrap_or_default().contains("uid="), "{profile}: {run}");
        let record = audit_of(&runner).into_iter().last().unwrap();
        assert_eq!(record["sandbox"], profile);
        assert_eq!(record["blocked"], json!(["id", "uname"]), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_that_can_t_be_had_is_an_error_and_never_a_weaker_one() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    Runner::configure(&home, "ws://127.0.0.1:9/", "t", ALLOW_ALL, "sandbox: gvisor\n");
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/bin/bash", bin.join("bash")).unwrap();
    let run = legwork(&home).arg("run").env("PATH", &bin).output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(30), run).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains("sandbox profile 'gvisor' can't be had here"),
        "{text}"
    );
}

/// An HTTP server that answers everything; its port.
async fn server() -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut data = [0u8; 1024];
            let _ = socket.read(&mut data).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n").await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_what_is_listed_and_nothing_else() {
    let (listed, other) = (server().await, server().await);
    let sandbox = format!(
        "sandbox:\n  profile: namespaces\n  network:\n    allow: [\"127.0.0.1:{listed}\", \"localhost:*\"]\n"
    );
    let (_dir, hub, mut runner) = setup(ALLOW_ALL, &sandbox).await;
    let api = hub.api();
    let fetch = |port: u16| {
        format!(
            "python3 -c 'import urllib.request; print(urllib.request.urlopen(\"http://127.0.0.1:{port}/\", timeout=10).read().decode())'"
        )
    };
    let run = api.run("r", &fetch(listed)).await;
    assert!(run["result"]["stdout"].as_str().unwrap().contains("hello"), "{run}");
    let run = api.run("r", &fetch(other)).await;
    assert!(run["result"]["stderr"].as_str().unwrap().contains("403"), "{run}");
    // A name that is listed, for an address that is not.
    let run = api.run("r", &fetch(other).replace("127.0.0.1", "localhost")).await;
    assert!(run["result"]["stderr"].as_str().unwrap().contains("403"), "{run}");
    // Past the proxy there is nothing.
    let run = api.run("r", &format!("env -u http_proxy bash -c 'echo > /dev/tcp/127.0.0.1/{listed}'")).await;
    assert_ne!(run["exit_code"], 0, "{run}");
    let records = audit_of(&runner);
    let first = records.iter().find(|r| r["egress_received"].as_u64() > Some(0)).unwrap();
    assert!(first["egress_sent"].as_u64() > Some(10), "{first}");
    assert!(
        records.iter().any(|r| r["egress_refused"] == json!([format!("127.0.0.1:{other}")])),
        "{records:?}"
    );
    // The door stays with the command when the runner is replaced under it.
    let line = format!("sleep 2; {}", fetch(listed));
    let id = api.bash("r", &line).await;
    until("it runs", || async { api.get(&format!("/tasks/{id}")).await.1["state"] == "running" }).await;
    runner.kill().await;
    let _again = Runner::again(&runner.home).await;
    let task = api.end(&id).await;
    assert!(task["runs"][0]["result"]["stdout"].as_str().unwrap().contains("hello"), "{task}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rules_take_effect_without_a_restart_and_bad_ones_do_not() {
    let (_dir, hub, runner) = setup(&[("*", "deny"), ("echo *", "allow"), ("sleep *", "allow")], "").await;
    let api = hub.api();
    let config =
        std::fs::read_dir(runner.home.join(".legwork")).unwrap().flatten().map(|e| e.path()).next().unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    assert_eq!(api.run("r", "uname").await["exit_code"], Value::Null);
    let long = api.bash("r", "sleep 3; echo kept").await;
    std::fs::write(&config, text.replace("\"echo *\"", "\"uname *\"")).unwrap();
    until("the new rules hold", || async { api.run("r", "uname").await["exit_code"] == 0 }).await;
    assert_eq!(api.run("r", "echo x").await["exit_code"], Value::Null);
    assert_eq!(api.end(&long).await["runs"][0]["result"]["stdout"], "kept\n");
    // A bad file changes nothing.
    std::fs::write(&config, text.replace("\"echo *\": allow", "\"echo *\": alow")).unwrap();
    let signal = rustix::process::Signal::HUP;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(runner.pid()).unwrap()).unwrap(),
        signal,
    )
    .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(api.run("r", "uname").await["exit_code"], 0);
    std::fs::write(&config, &text).unwrap();
    until("the old rules are back", || async { api.run("r", "echo x").await["exit_code"] == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mcp_servers_stand_behind_the_wall_as_well() {
    const MCP: &str = env!("CARGO_BIN_EXE_test-mcp");
    for profile in ["landlock", "namespaces"] {
        let mcp_rule = format!("{MCP} *");
        let (_dir, hub, runner) = setup(
            &[("*", "deny"), ("echo *", "allow"), (&mcp_rule, "allow")],
            &format!("sandbox:\n  profile: {profile}\n  network: {{}}\n"),
        )
        .await;
        let api = hub.api();
        let server = json!({ "name": "inv", "transport": "stdio", "command": MCP, "args": ["--ok"] });
        for wanted in ["1", "2"] {
            let args = json!({ "server": server, "tool_name": "calls", "args": {} });
            let body = json!({ "select": { "runner": "r" }, "operation": "mcp_call", "args": args });
            let task = api.post("/tasks", body).await.1;
            let run = api.end(task["id"].as_str().unwrap()).await["runs"][0].clone();
            assert_eq!(run["result"]["content"], wanted, "{profile}: {run}");
        }
        let args = json!({ "server": server, "tool_name": "env", "args": {} });
        let body = json!({ "select": { "runner": "r" }, "operation": "mcp_call", "args": args });
        let task = api.post("/tasks", body).await.1;
        let run = api.end(task["id"].as_str().unwrap()).await["runs"][0].clone();
        let env = run["result"]["content"].as_str().unwrap();
        assert_eq!(env.contains("HTTPS_PROXY=http://127.0.0.1:3128"), profile == "namespaces", "{env}");
        drop(runner);
    }
}
