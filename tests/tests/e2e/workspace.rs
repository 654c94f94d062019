//! The workspace server on the wire: the protocol's sample, its limits, its walls.

use std::os::unix::fs::symlink;
use std::time::Duration;

use legwork_e2e::until;
use legwork_e2e::workspace::{Client, Workspace, connect, http, spawn};
use serde_json::{Value, json};

/// The protocol page's own exchange, byte for byte; only names that are made up differ.
#[tokio::test(flavor = "multi_thread")]
async fn the_sample_exchange() {
    let page = include_str!("../../../docs/protocols/workspace.md");
    let sample = page.split("## Sample exchange").nth(1).unwrap().split("```").nth(1).unwrap();
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("ws");
    std::fs::create_dir_all(root.join("lib")).unwrap();
    std::fs::write(root.join("a.txt"), "a").unwrap();
    let env = [("RECOVERY", "off"), ("PING_INTERVAL_MS", "3000")];
    let workspace = Workspace::over(home, root.clone(), &env).await;
    // Its prompt has been shown before anybody comes.
    workspace.client().await.until_shown(" ").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut socket = connect(&workspace.address, "/socket.io/?EIO=4&transport=websocket").await;
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let mut steps = 0;
    for line in sample.lines().filter(|l| !l.is_empty()) {
        let (who, packet) = line.split_once(' ').unwrap();
        if who == "C" {
            socket.send(Message::text(packet)).await.unwrap();
            continue;
        }
        let got =
            tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect(line).unwrap().unwrap();
        let got = got.into_text().unwrap().replace(root.to_str().unwrap(), "/workspace");
        let masked = |text: &str| -> String {
            let mut text = text.to_owned();
            for (key, end) in [("\"sid\":\"", "\""), ("\"pingInterval\":", ","), ("\\u001bc", "\"")] {
                if let Some(at) = text.find(key) {
                    let from = at + key.len();
                    let len = text[from..].find(end).unwrap();
                    text.replace_range(from..from + len, "…");
                }
            }
            text
        };
        assert_eq!(masked(&got), masked(packet), "step {steps}: {line}");
        steps += 1;
    }
    assert!(steps > 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let workspace = Workspace::start(&[]).await;
    symlink(outside.path(), workspace.root.join("out")).unwrap();
    symlink(outside.path().join("secret"), workspace.root.join("file-out")).unwrap();
    symlink("/etc", workspace.root.join("etc")).unwrap();
    symlink("loop", workspace.root.join("loop")).unwrap();
    let mut client = workspace.client().await;
    let there = outside.path().display().to_string();
    for path in [
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "/workspace/../etc/passwd",
        "/workspace-2/x",
        "out/secret",
        "file-out",
        "etc/passwd",
        "a\0b",
        &format!("{there}/secret"),
        &format!("{}/../secret", workspace.root.display()),
    ] {
        for (event, data) in [
            ("fetchContent", json!({ "path": path })),
            ("updateContent", json!({ "path": path, "content": "x" })),
            ("file:create", json!({ "path": path })),
            ("file:mkdir", json!({ "path": path })),
            ("file:stat", json!({ "path": path })),
        ] {
            let code = client.refused(event, data).await;
            // Where the last name itself is a link out, making it fails as it is there.
            let fine = code == "outside_workspace" || code == "exists" && path == "file-out";
            assert!(fine, "{event} {path:?}: {code}");
        }
        if path != "file-out" {
            assert_eq!(
                client.refused("file:delete", json!({ "path": path })).await,
                "outside_workspace",
                "{path:?}"
            );
            let moved = json!({ "path": "a.txt", "to": path, "replace": true });
            std::fs::write(workspace.root.join("a.txt"), "a").unwrap();
            assert_eq!(client.refused("file:move", moved).await, "outside_workspace", "{path:?}");
        }
        let opened = client.refused("terminal:open", json!({ "cwd": path })).await;
        assert!(matches!(&*opened, "outside_workspace" | "not_a_directory"), "{path:?}: {opened}");
    }
    assert_eq!(client.refused("fetchDir", json!({ "path": "out" })).await, "outside_workspace");
    assert_eq!(client.refused("fetchContent", json!({ "path": "loop" })).await, "io_error");
    let found = client.ask("search:grep", json!({ "pattern": "secret" })).await;
    assert_eq!(found["matches"], json!([]));
    let found = client.ask("search:glob", json!({ "pattern": "out/*" })).await;
    assert_eq!(found["paths"], json!([]));
    // The link itself can be taken away.
    assert_eq!(client.ask("file:delete", json!({ "path": "out" })).await["success"], true);
    assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_swapped_for_a_link_leads_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    let workspace = Workspace::start(&[]).await;
    let (inside, target) = (workspace.root.join("d"), outside.path().to_owned());
    std::fs::create_dir(&inside).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapping = {
        let (stop, aside) = (stop.clone(), workspace.root.join("aside"));
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::rename(&inside, &aside);
                let _ = symlink(&target, &inside);
                let _ = std::fs::remove_file(&inside);
                let _ = std::fs::rename(&aside, &inside);
            }
        })
    };
    let mut client = workspace.client().await;
    for n in 0..300 {
        client.ask("updateContent", json!({ "path": format!("d/f{n}"), "content": "x" })).await;
        client.ask("file:mkdir", json!({ "path": format!("d/m{n}") })).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapping.join().unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_an_answer_and_ends_nothing() {
    let workspace = Workspace::start(&[("MAX_FILE_BYTES", "1000")]).await;
    std::fs::write(workspace.root.join("big"), "x".repeat(1001)).unwrap();
    std::fs::write(workspace.root.join("f"), "x").unwrap();
    let fifo = workspace.root.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut client = workspace.client().await;
    for (event, data, want) in [
        ("fetchContent", json!(null), "path is required"),
        ("fetchContent", json!({}), "path is required"),
        ("fetchContent", json!({ "path": 7 }), "invalid payload"),
        ("fetchContent", json!([1]), "invalid payload"),
        ("fetchContent", json!({ "path": "nowhere" }), "no such file or directory: nowhere"),
        ("fetchContent", json!({ "path": "big" }), "file too large: big (1001 bytes)"),
        ("fetchContent", json!({ "path": "fifo" }), "not a regular file: fifo"),
        ("fetchContent", json!({ "path": "/" }), "is a directory: /"),
        ("fetchDir", json!({ "path": "f" }), "not a directory: f"),
        ("fetchDir", json!({ "path": "f/x" }), "not a directory: f/x"),
        ("updateContent", json!({ "path": "f" }), "content is required"),
        ("updateContent", json!({ "path": "f/x", "content": "" }), "not a directory: f/x"),
        (
            "updateContent",
            json!({ "path": "f", "content_base64": "!" }),
            "content_base64 is not valid base64",
        ),
        (
            "updateContent",
            json!({ "path": "f", "content": "x".repeat(1001) }),
            "file too large: f (1001 bytes)",
        ),
        ("terminal:write", json!({}), "data is required"),
        ("terminal:write", json!({ "data": 7 }), "invalid payload"),
        ("terminal:write", json!({ "id": "t99", "data": "x" }), "no such terminal: t99"),
        ("terminal:resize", json!({ "cols": 0, "rows": 5 }), "cols must be a number from 1 to 1000"),
        ("terminal:resize", json!({ "cols": 5 }), "cols and rows go together"),
        ("terminal:open", json!({ "shell": "/bin/evil" }), "shell must be one of"),
        ("terminal:open", json!({ "timeout_s": 0 }), "timeout_s must be a number"),
        ("terminal:open", json!({ "env": { "A=B": "x" } }), "must be a variable's name"),
        ("terminal:open", json!({ "sandbox": "docker" }), "sandbox must be off"),
        ("terminal:close", json!({ "id": "main" }), "the shared terminal can't be closed"),
        ("search:grep", json!({ "pattern": "(" }), "invalid pattern"),
    ] {
        let said = client.ask(event, data.clone()).await;
        let text = said["error"].as_str().unwrap_or_else(|| panic!("{event} {data}: {said}"));
        assert!(text.starts_with(want) || text.contains(want), "{event} {data}: {text}");
    }
    // Without an acknowledgement the error is an event; an unknown event is nothing at all.
    client.events.clear();
    client.send(r#"42["fetchContent",{"path":"nowhere"}]"#).await;
    client.send(r#"42["no-such-event",{}]"#).await;
    assert_eq!(client.event("file:error").await["event"], "fetchContent");
    let tree = client.ask("fetchDir", json!("")).await;
    let names: Vec<&str> =
        tree["tree"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["big", "f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_on_a_base_that_has_changed_is_a_conflict() {
    let workspace = Workspace::start(&[]).await;
    std::fs::write(workspace.root.join("f"), "one").unwrap();
    let mut client = workspace.client().await;
    let read = client.ask("fetchContent", json!({ "path": "f", "digest": true })).await;
    let base = read["digest"].as_str().unwrap().to_owned();
    let save = |text: &str, base: &str| json!({ "path": "f", "content": text, "base_digest": base });
    let saved = client.ask("updateContent", save("two", &base)).await;
    assert_eq!(client.refused("updateContent", save("three", &base)).await, "conflict");
    assert_eq!(std::fs::read_to_string(workspace.root.join("f")).unwrap(), "two");
    let next = saved["digest"].as_str().unwrap().to_owned();
    assert_eq!(client.ask("updateContent", save("three", &next)).await["success"], true);
    // The plain save asks nothing.
    client.ask("updateContent", json!({ "path": "f", "content": "four" })).await;
    let new = json!({ "path": "new", "content": "x", "base_digest": "" });
    assert_eq!(client.ask("updateContent", new.clone()).await["success"], true);
    assert_eq!(client.refused("updateContent", new).await, "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_sees_no_secret_lives_on_and_starts_anew() {
    let env = [
        ("AWS_SECRET_ACCESS_KEY", "aws-secret"),
        ("LEGWORK_WORKSPACE_TOKEN", "token"),
        ("USER_PORT", "4321"),
        ("VISIBLE", "yes"),
    ];
    let workspace = Workspace::start(&env).await;
    std::fs::write(workspace.home.path().join(".env"), "").unwrap();
    let mut client = Client::connect(&workspace.address, "", json!({ "token": "token" })).await;
    let shown = client.type_until("env; echo E''ND; MINE=kept\n", "END\r\n").await;
    assert!(
        shown.contains("VISIBLE=yes") && shown.contains("PORT=4321") && shown.contains("TERM=xterm-256color")
    );
    assert!(!shown.contains("aws-secret") && !shown.contains("LEGWORK_WORKSPACE"), "{shown}");
    assert!(shown.contains(&format!("PWD={}", workspace.root.display())));
    drop(client);
    // A shell keeps its state while nobody is there; a lid that was closed opens on the same.
    let mut client = Client::connect(&workspace.address, "&token=token", json!(null)).await;
    client.type_until("echo $MINE-$((1+1))\n", "kept-2").await;
    client.type_until("exit 3\n", "[process exited: 3]").await;
    assert_eq!(client.event("terminal:exit").await, json!({ "code": 3 }));
    // What is typed next is typed into a new shell.
    client.shown.clear();
    client.type_until("echo new-$((1+1))-$MINE.\n", "new-2-.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_kept_and_told() {
    let env = [("MAX_CONNECTIONS", "2"), ("MAX_TERMINALS", "3"), ("RECOVERY", "off")];
    let workspace = Workspace::start(&env).await;
    let (mut one, two) = (workspace.client().await, workspace.client().await);
    let mut third = Client::open(&workspace.address, "").await;
    third.send("40").await;
    assert_eq!(third.packet().await, r#"44{"message":"too many connections"}"#);
    drop(two);
    until("a place is free", || async {
        let mut next = Client::open(&workspace.address, "").await;
        next.send("40").await;
        next.packet().await.starts_with("40")
    })
    .await;
    for _ in 0..2 {
        assert!(one.ask("terminal:open", json!({})).await["id"].is_string());
    }
    assert_eq!(one.refused("terminal:open", json!({})).await, "too_many_terminals");
    // A terminal that reads nothing takes a megabyte, and then says so; ^C gets through.
    // Not what was typed, which is echoed while the shell still reads, but what it says.
    one.type_until("stty -echo; echo ready-$((1+1)); sleep 1000\n", "ready-2").await;
    // How fast the system throws away what nobody reads is its own affair: typed faster than that.
    let data = json!({ "data": "x".repeat(100_000) });
    let mut busy = false;
    for _ in 0..50 {
        let answers = one.ask_at_once("terminal:write", &data, 40).await;
        busy = answers.iter().any(|said| said["code"] == "terminal_busy");
        if busy {
            break;
        }
    }
    assert!(busy);
    one.shown.clear();
    one.send(r#"42["terminal:write",{"data":"\u0003"}]"#).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let shown = one.type_until("stty echo; echo free-$((1+1))\n", "free-2").await;
    assert!(!shown.contains("xxx"), "what was typed before is forgotten");
    // Messages beyond the limit end the connection, and say why.
    let mut client = workspace.client().await;
    use futures_util::SinkExt;
    let large = format!("42[\"fetchDir\",\"{}\"]", "x".repeat(11 << 20));
    // It may be closed before all of it is sent.
    let sent = client.socket.send(tokio_tungstenite::tungstenite::Message::text(large));
    let _ = tokio::time::timeout(Duration::from_secs(10), sent).await;
    loop {
        let packet = client.packet().await;
        if packet.starts_with("closed") {
            assert!(packet.contains("Size"), "{packet}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_overtakes_a_flood_and_a_stalled_reader_holds_up_nobody() {
    let workspace = Workspace::start(&[]).await;
    // One client never reads.
    let _stalled = workspace.client().await;
    let mut client = workspace.client().await;
    client.type_until("PS1='READY''> '\n", "READY> ").await;
    client.type_until("yes\n", "y\r\ny\r\n").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.shown.clear();
    let start = std::time::Instant::now();
    client.type_until("\u{3}", "READY> ").await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let memory = std::fs::read_to_string(format!("/proc/{}/status", workspace.pid())).unwrap();
    let rss: u64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(rss < 100 * 1024, "{rss} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editors_screen_is_shown_to_who_comes_later() {
    let workspace = Workspace::start(&[]).await;
    let mut first = workspace.client().await;
    // An alternate screen, and much behind it.
    first
        .type_until("seq 1 50000; printf '\\033[?1049h\\033[2J\\033[5;10HIN''SIDE'; sleep 60\n", "INSIDE")
        .await;
    let mut late = workspace.client().await;
    let shown = late.until_shown("INSIDE").await;
    assert!(shown.starts_with("\u{1b}c\u{1b}[?1049h") && shown.len() < 64 * 1024, "{}", shown.len());
    assert!(!shown.contains("49999"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_look_changes_nothing() {
    let env = [("LEGWORK_WORKSPACE_TOKEN", "work"), ("LEGWORK_WORKSPACE_VIEW_TOKEN", "look")];
    let workspace = Workspace::start(&env).await;
    std::fs::write(workspace.root.join("f"), "x").unwrap();
    let mut viewer = Client::connect(&workspace.address, "", json!({ "token": "look" })).await;
    assert_eq!(viewer.ask("fetchContent", json!("f")).await["content"], "x");
    for (event, data) in [
        ("terminal:write", json!({ "data": "touch evil\n" })),
        ("terminal:resize", json!({ "cols": 10, "rows": 10 })),
        ("terminal:open", json!({ "command": "touch evil" })),
        ("terminal:close", json!({ "id": "t1" })),
        ("terminal:rename", json!({ "id": "main", "title": "x" })),
        ("updateContent", json!({ "path": "f", "content": "y" })),
        ("file:create", json!({ "path": "g" })),
        ("file:mkdir", json!({ "path": "g" })),
        ("file:delete", json!({ "path": "f" })),
        ("file:move", json!({ "path": "f", "to": "g" })),
    ] {
        assert_eq!(viewer.refused(event, data).await, "read_only", "{event}");
    }
    let http = http();
    for (method, path) in [
        ("PUT", "/api/files/f"),
        ("DELETE", "/api/files/f"),
        ("POST", "/api/archive"),
        ("POST", "/api/snapshots"),
    ] {
        let request =
            http.request(method.parse().unwrap(), workspace.url(path)).bearer_auth("look").body("y");
        assert_eq!(request.send().await.unwrap().status(), 403, "{method} {path}");
    }
    for token in ["", "wor", "works", "null"] {
        let mut client = Client::open(&workspace.address, "").await;
        client.send(&format!("40{}", json!({ "token": token }))).await;
        assert_eq!(client.packet().await, r#"44{"message":"unauthorized"}"#);
        let status =
            http.get(workspace.url("/api/files/f")).bearer_auth(token).send().await.unwrap().status();
        assert_eq!(status, 401);
    }
    assert_eq!(http.get(workspace.url("/files")).send().await.unwrap().status(), 200);
    let names: Vec<_> =
        std::fs::read_dir(&workspace.root).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_t_be_served_is_said_with_the_right_status() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("ws");
    for (env, code, want) in [
        (&[("PORT", "nonsense")][..], 2, "PORT must be a port"),
        (&[("HOST", "0.0.0.0")], 2, "set LEGWORK_WORKSPACE_TOKEN, or AUTH=none"),
        (&[], 1, "no such file or directory"),
    ] {
        let (got, said) = spawn(home.path(), &root, env).await.expect_err("not started");
        assert_eq!(got, code, "{said}");
        assert!(said.contains(want), "{said}");
    }
    std::fs::create_dir(&root).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (got, said) = spawn(home.path(), &root, &[("PORT", &port)]).await.expect_err("not started");
    assert!(got == 1 && said.contains("failed to listen"), "{got}: {said}");
    let bad = [("S3_URI", "s3://key:secret@bucket/x/")];
    let (got, said) = spawn(home.path(), &root, &bad).await.expect_err("not started");
    assert!(got == 1 && said.contains("no credentials") && !said.contains("secret@"), "{got}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_websocket_speaks_json() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let workspace = Workspace::start(&[]).await;
    std::fs::write(workspace.root.join("f"), "x").unwrap();
    for path in ["/", "/ws"] {
        let mut socket = connect(&workspace.address, path).await;
        let mut ask = async |text: &str, ack: u64| -> Vec<Value> {
            socket.send(Message::text(text)).await.unwrap();
            let mut heard = Vec::new();
            loop {
                let message = socket.next().await.unwrap().unwrap();
                let Message::Text(text) = message else { continue };
                let said: Value = serde_json::from_str(&text).unwrap();
                let done = said["ack"] == ack || ack == 0 && said["event"] == "request:error";
                heard.push(said);
                if done {
                    return heard;
                }
            }
        };
        let heard = ask(r#"{"event":"fetchContent","data":{"path":"f"},"id":5}"#, 5).await;
        let content = json!({ "content": "x", "path": workspace.root.join("f") });
        assert_eq!(heard.last().unwrap(), &json!({ "ack": 5, "data": content }));
        assert!(heard.contains(&json!({ "event": "file:content", "data": content })));
        assert_eq!(ask("nonsense", 0).await.last().unwrap()["data"]["code"], "bad_request");
        assert_eq!(
            ask(r#"{"event":"fetchDir","id":6}"#, 6).await.last().unwrap()["data"]["tree"][0]["name"],
            "f"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_hear_of_files_ports_and_terminals_and_others_don_t() {
    let workspace = Workspace::start(&[]).await;
    let mut quiet = workspace.client().await;
    let mut client = workspace.client().await;
    let all = json!({ "files": true, "ports": true, "terminals": true });
    let said = client.ask("watch", all).await;
    assert_eq!(said["files"], true);
    client.event("port:list").await;
    client.event("terminal:list").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::write(workspace.root.join("new"), "x").unwrap();
    let changed = client.event("file:changed").await;
    assert_eq!(changed["changes"][0], json!({ "path": workspace.root.join("new"), "type": "created" }));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    while client.event("port:open").await["port"] != port {}
    drop(listener);
    while client.event("port:close").await["port"] != port {}
    client.ask("terminal:open", json!({ "title": "mine" })).await;
    let list = client.event("terminal:list").await;
    assert_eq!(list["terminals"][1]["title"], "mine");
    let heard = quiet.listen(Duration::from_millis(200)).await;
    assert!(heard.iter().all(|p| p.starts_with("42[\"terminal:data\"")), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zombies_are_reaped_and_nothing_outlives_the_server() {
    let mut workspace = Workspace::start(&[]).await;
    let mut client = workspace.client().await;
    let marker = format!("98{}", std::process::id());
    client.type_until(&format!("(setsid sleep {marker} &) ; (true &) ; echo out-$((1+1))\n"), "out-2").await;
    client.type_until("exit\n", "[process exited: 0]").await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let processes = || -> Vec<(String, String)> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|e| {
                let line = std::fs::read_to_string(e.path().join("cmdline")).ok()?;
                let stat = std::fs::read_to_string(e.path().join("stat")).ok()?;
                Some((line, stat))
            })
            .collect()
    };
    let pid = workspace.pid().to_string();
    let zombies = processes()
        .iter()
        .filter(|(_, stat)| {
            let rest = stat.rsplit_once(") ").unwrap().1;
            rest.starts_with('Z') && rest.split(' ').nth(1) == Some(&pid)
        })
        .count();
    assert_eq!(zombies, 0);
    let sleeps = || processes().iter().filter(|(line, _)| line.contains(&marker)).count();
    assert_eq!(sleeps(), 1, "what was left running on purpose goes on");
    assert_eq!(workspace.stop().await, 0);
    assert_eq!(sleeps(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_may_be_chosen_and_walled_in() {
    let workspace = Workspace::start(&[]).await;
    let mut client = workspace.client().await;
    for shell in ["bash", "zsh", "fish"] {
        let made = client.ask("terminal:open", json!({ "shell": shell })).await;
        let id = made["id"].as_str().unwrap_or_else(|| panic!("{shell}: {made}")).to_owned();
        client.ask("terminal:write", json!({ "id": id, "data": "echo a''b\n" })).await;
        let mut shown = String::new();
        while !shown.contains("ab") {
            let (name, said) = match client.events.pop() {
                Some(event) => event,
                None => ("terminal:data".to_owned(), client.event("terminal:data").await),
            };
            if name == "terminal:data" && said["id"] == *id {
                shown.push_str(said["data"].as_str().unwrap());
            }
        }
        client.ask("terminal:close", json!({ "id": id })).await;
    }
    client.events.clear();
    let command = "touch inside && ! touch /var/tmp/legwork-outside && exit 42";
    let made = client.ask("terminal:open", json!({ "command": command, "sandbox": "landlock" })).await;
    if let Some(error) = made["error"].as_str() {
        assert!(error.contains("sandbox landlock"), "{error}");
        println!("NOT CHECKED HERE: {error}");
        return;
    }
    loop {
        let exit = client.event("terminal:exit").await;
        if exit["id"] == made["id"] {
            assert_eq!(exit["code"], 42);
            break;
        }
    }
    assert!(workspace.root.join("inside").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_uses_ends() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("ws");
    std::fs::create_dir(&root).unwrap();
    let (mut process, address) = spawn(home.path(), &root, &[("IDLE_SHUTDOWN_SECONDS", "1")]).await.unwrap();
    let client = Client::connect(&address, "", json!(null)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(process.try_wait().unwrap().is_none(), "somebody is there");
    drop(client);
    let status = tokio::time::timeout(Duration::from_secs(30), process.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A shell is the same user's as the server: it must not read the server's environment.
#[tokio::test(flavor = "multi_thread")]
async fn a_shell_can_t_look_into_the_server() {
    if !rustix::process::geteuid().is_root() {
        println!("NOT CHECKED HERE: needs root, to become a user without rights");
        return;
    }
    use tokio::io::{AsyncBufReadExt, BufReader};
    let home = tempfile::Builder::new().prefix("legwork-nobody").tempdir_in("/tmp").unwrap();
    let root = home.path().join("ws");
    std::fs::create_dir(&root).unwrap();
    let program = home.path().join("legwork");
    std::fs::copy(legwork_e2e::binary(), &program).unwrap();
    for path in [home.path(), &root] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).arg("serve");
    let env =
        [("LEGWORK_WORKSPACE_TOKEN", "very-secret"), ("AWS_SECRET_ACCESS_KEY", "very-secret"), ("PORT", "0")];
    command
        .env_clear()
        .envs(env)
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home.path())
        .env("TMPDIR", home.path());
    command.env("WORKSPACE", &root).current_dir("/").stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let address = line.split_once(" on http://").unwrap().1.to_owned();
    let mut client = Client::connect(&address, "&token=very-secret", json!(null)).await;
    let look = "grep -als very-se''cret /proc/[0-9]*/environ /proc/[0-9]*/cmdline; id -u; echo E''ND\n";
    let shown = client.type_until(look, "END\r\n").await;
    assert!(shown.contains("65534\r\n"), "{shown}");
    assert!(!shown.contains("/environ\r\n") && !shown.contains("/cmdline\r\n"), "{shown}");
}

/// Kilobytes of memory.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A server with something to show, and tokens to work and to look.
async fn guarded() -> Workspace {
    let env = [("LEGWORK_WORKSPACE_TOKEN", "work"), ("LEGWORK_WORKSPACE_VIEW_TOKEN", "view")];
    let workspace = Workspace::start(&env).await;
    let mut worker = Client::connect(&workspace.address, "&token=work", json!(null)).await;
    worker.type_until("seq 1 20000; echo E''ND\n", "END\r\n").await;
    workspace
}

/// Sends packets as long as they are taken.
async fn flood(client: &mut Client, packets: impl Iterator<Item = String>) -> usize {
    use futures_util::SinkExt;
    let mut sent = 0;
    for packet in packets {
        let sending = client.socket.send(tokio_tungstenite::tungstenite::Message::text(packet));
        match tokio::time::timeout(Duration::from_secs(2), sending).await {
            Ok(Ok(())) => sent += 1,
            _ => break,
        }
    }
    sent
}

/// A viewer asks for the shared terminal again and again and reads nothing: 300 kB made
/// 1.3 GB of answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_who_asks_and_never_reads_takes_no_memory() {
    let workspace = guarded().await;
    for kind in ["attach", "tree", "request", "unknown", "write", "namespace", "save", "glob"] {
        let before = memory(workspace.pid());
        let mut viewer = Client::connect(&workspace.address, "&token=view", json!(null)).await;
        let big = "x".repeat(900_000);
        let packet = |n: usize| match kind {
            "attach" => format!(r#"42{n}["terminal:attach",{{"id":"main"}}]"#),
            "tree" => format!(r#"42{n}["fetchDir",""]"#),
            "request" => format!(r#"42{n}["requestTerminal"]"#),
            "unknown" => format!(r#"42{n}["{}"]"#, "u".repeat(2000)),
            "write" => format!(r#"42{n}["terminal:write",{{"id":"{}","data":"x"}}]"#, "i".repeat(2000)),
            "namespace" => format!("40/{},", "n".repeat(2000)),
            "save" => format!(r#"42{n}["updateContent",{{"path":"p","content":"{big}"}}]"#),
            _ => format!(r#"42{n}["search:glob",{{"pattern":"{}{{a,b}}{{a,b}}{{a,b}}"}}]"#, "g".repeat(7000)),
        };
        let count = if kind == "save" { 200 } else { 8000 };
        flood(&mut viewer, (0..count).map(packet)).await;
        let after = memory(workspace.pid());
        assert!(after < before + 50 * 1024, "{kind}: {before} kB became {after} kB");
        // Others are served meanwhile.
        let mut worker = Client::connect(&workspace.address, "&token=work", json!(null)).await;
        assert!(worker.ask("terminal:list", json!({})).await["terminals"].is_array(), "{kind}");
    }
}

/// Who has not shown a token can't make the server hold megabytes for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_large_message_is_not_waited_for() {
    let workspace = guarded().await;
    let before = memory(workspace.pid());
    let mut strangers = Vec::new();
    for _ in 0..20 {
        let mut stranger = Client::open(&workspace.address, "").await;
        let packet = format!("40{{\"token\":\"{}\"}}", "x".repeat(9 << 20));
        flood(&mut stranger, std::iter::once(packet)).await;
        strangers.push(stranger);
    }
    let after = memory(workspace.pid());
    assert!(after < before + 60 * 1024, "{before} kB became {after} kB");
}

/// Whoever asks for much at once and reads it gets it all: what was asked later waits for room.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_answers_come_to_who_reads_them() {
    let workspace = guarded().await;
    std::fs::write(workspace.root.join("f"), "y".repeat(100_000)).unwrap();
    let mut client = Client::connect(&workspace.address, "&token=work", json!(null)).await;
    let asked = 300;
    flood(
        &mut client,
        (0..asked).map(|n| match n % 2 {
            0 => format!(r#"42{n}["fetchContent","f"]"#),
            _ => format!(r#"42{n}["terminal:attach",{{"id":"main"}}]"#),
        }),
    )
    .await;
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < asked {
        let packet = client.packet().await;
        assert!(!packet.starts_with("closed"), "{packet} after {} answers", answered.len());
        if let Some((id, _)) = packet.strip_prefix("43").and_then(|rest| rest.split_once('[')) {
            answered.insert(id.parse::<usize>().unwrap());
        }
    }
}

/// One result was asked for, and all were held: 475 MB.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_one_result_does_not_hold_all() {
    let workspace = Workspace::start(&[]).await;
    let line = format!("needle {}\n", "x".repeat(200));
    for n in 0..20 {
        std::fs::write(workspace.root.join(format!("f{n}")), line.repeat(25_000)).unwrap();
    }
    let mut client = workspace.client().await;
    let before = memory(workspace.pid());
    let found = client.ask("search:grep", json!({ "pattern": "needle", "max_results": 1 })).await;
    assert_eq!((found["matches"].as_array().unwrap().len(), &found["truncated"]), (1, &json!(true)));
    let found = client.ask("search:grep", json!({ "pattern": "needle", "max_results": 10_000 })).await;
    assert!(found["matches"].as_array().unwrap().len() > 1000);
    let after = memory(workspace.pid());
    assert!(after < before + 100 * 1024, "{before} kB became {after} kB");
    let few =
        client.ask("search:grep", json!({ "pattern": "needle", "include": "f1", "max_results": 9 })).await;
    assert_eq!(few["matches"].as_array().unwrap().len(), 9);
}

/// The connection was dropped, and the save with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_with_half_an_emoji_or_of_many_escapes_is_saved() {
    let workspace = Workspace::start(&[]).await;
    let mut client = workspace.client().await;
    let file = |name: &str| std::fs::read(workspace.root.join(name)).unwrap();
    // What JSON.stringify makes of a text that was cut within a character.
    client.send(r#"42901["updateContent",{"path":"half","content":"a\ud83d b\ud83d\ude00 c\ude00"}]"#).await;
    let mut bare = connect(&workspace.address, "/ws").await;
    use futures_util::SinkExt;
    let text = r#"{"event":"updateContent","data":{"path":"bare","content":"\ud83d"}}"#;
    bare.send(tokio_tungstenite::tungstenite::Message::text(text)).await.unwrap();
    until("the save", || async { workspace.root.join("bare").exists() }).await;
    assert_eq!(client.ask("file:stat", json!({ "path": "half" })).await["type"], "file");
    assert_eq!(file("half"), "a\u{fffd} b\u{1f600} c\u{fffd}".as_bytes());
    assert_eq!(file("bare"), "\u{fffd}".as_bytes());
    // Nine megabytes are fifty-four as JSON.
    let control = "\u{1}".repeat(9 << 20);
    assert_eq!(
        client.ask("updateContent", json!({ "path": "much", "content": control })).await["success"],
        true
    );
    assert_eq!(file("much").len(), 9 << 20);
    // What is too large as a file is said so, and nothing else is lost.
    let large = json!({ "path": "large", "content": "x".repeat(11 << 20) });
    assert_eq!(client.refused("updateContent", large).await, "too_large");
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    client.send(&format!("42907{}", format_args!(r#"["updateContent",{deep}]"#))).await;
    assert_eq!(client.event("request:error").await["code"], "bad_request");
    assert_eq!(
        client.ask("fetchContent", json!({ "path": "half" })).await["content"],
        "a\u{fffd} b\u{1f600} c\u{fffd}"
    );
}

/// Whoever passed a callback waited for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_is_answered_if_an_answer_is_waited_for() {
    let workspace = Workspace::start(&[]).await;
    let mut client = workspace.client().await;
    for event in ["no-such-event", "file:chmod", "search:replace", "terminal:clear"] {
        let said = client.ask(event, json!({})).await;
        assert_eq!(said, json!({ "error": format!("unknown event: {event}"), "code": "unknown_event" }));
    }
    client.send(r#"4277[5,{}]"#).await;
    loop {
        if let Some(said) = client.packet().await.strip_prefix("4377") {
            assert!(said.contains("unknown_event"), "{said}");
            break;
        }
    }
}

/// Half a request, 1,280 times, kept everybody out for 30 seconds, probes too.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_requests_keep_nobody_out() {
    use tokio::io::AsyncWriteExt;
    let env = [("MAX_CONNECTIONS", "8"), ("LEGWORK_WORKSPACE_TOKEN", "t")];
    let workspace = Workspace::start(&env).await;
    let mut works = Client::connect(&workspace.address, "&token=t", json!(null)).await;
    let mut held = Vec::new();
    for n in 0..1400 {
        let mut tcp = tokio::net::TcpStream::connect(&workspace.address).await.unwrap();
        if n % 2 == 0 {
            tcp.write_all(b"GET /files HTTP/1.1\r\nHost: local").await.unwrap();
        }
        held.push(tcp);
    }
    let http = http();
    for _ in 0..3 {
        let probed = http.get(workspace.url("/files")).timeout(Duration::from_secs(10)).send().await.unwrap();
        assert_eq!(probed.status(), 200);
    }
    // Handshakes of clients that never join neither.
    for _ in 0..400 {
        let url = workspace.url("/socket.io/?EIO=4&transport=polling");
        assert_eq!(http.get(url).send().await.unwrap().status(), 200);
    }
    let mut late = Client::connect(&workspace.address, "&token=t", json!(null)).await;
    assert!(late.ask("terminal:list", json!({})).await["terminals"].is_array());
    assert!(works.ask("terminal:list", json!({})).await["terminals"].is_array(), "who was there stays");
}

/// `vim`, `:q`, reload, `ls`: the shell was given "2RR0: command not found".
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_asks_nothing_that_a_program_asked_before() {
    let workspace = Workspace::start(&[]).await;
    let mut first = workspace.client().await;
    let asked = r"\033[6n\033[c\033[>c\033[?2026$p\033]11;?\007\033P+q544e\033\\\033[>q";
    first.type_until(&format!("printf 'be''fore{asked}aft''er \\033[31mr''ed\\033[m\\n'\n"), "red").await;
    assert!(
        first.shown.contains("\u{1b}[6n") && first.shown.contains("\u{1b}]11;?"),
        "who was there is asked"
    );
    for replay in ["on joining", "on request", "by name"] {
        let mut late = workspace.client().await;
        let shown = match replay {
            "on joining" => late.until_shown("red").await,
            "on request" => {
                late.until_shown("red").await;
                late.shown.clear();
                late.send(r#"42["requestTerminal"]"#).await;
                late.until_shown("red").await
            }
            _ => {
                late.until_shown("red").await;
                late.ask("terminal:attach", json!({ "id": "main" })).await;
                late.event("terminal:data").await["data"].as_str().unwrap().to_owned()
            }
        };
        assert!(shown.contains("beforeafter \u{1b}[31mred"), "{replay}: {shown:?}");
        for question in
            ["\u{1b}[6n", "\u{1b}[c", "\u{1b}[>c", "\u{1b}[?2026$p", "\u{1b}]11;?", "\u{1b}P+q", "\u{1b}[>q"]
        {
            assert!(!shown.contains(question), "{replay}: {question:?} in {shown:?}");
        }
    }
}

/// With two viewers each question was answered twice, and the second answer was typed; with none
/// it was answered by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_alone_answers_what_programs_ask() {
    let workspace = Workspace::start(&[]).await;
    let (mut one, mut two) = (workspace.client().await, workspace.client().await);
    let sizes =
        json!({ "id": "main", "cols": 90, "rows": 20, "foreground": "#101112", "background": "#fefdfc" });
    one.ask("terminal:resize", sizes).await;
    one.type_until("stty -echo -icanon; echo ready-$((1+1)); cat -v\n", "ready-2").await;
    // What emulators of viewers answer is not typed; what looks alike and is typed, is.
    for client in [&mut one, &mut two] {
        for answer in ["\u{1b}[?1;2c", "\u{1b}[5;7R", "\u{1b}]11;rgb:0/0/0\u{7}", "\u{1b}[?2026;2$y"] {
            assert_eq!(client.ask("terminal:write", json!({ "data": answer })).await["success"], true);
        }
    }
    one.shown.clear();
    let shown = one.type_until("\u{1b}[1;2R END", "END").await;
    assert!(shown.contains("^[[1;2R END") && !shown.contains("^[[?1;2c"), "{shown:?}");
    one.send(r#"42["terminal:write",{"data":"\u0003"}]"#).await;
    one.type_until("stty sane; echo free-$((1+1))\n", "free-2").await;
    // Each question is answered once, with the colours and the size of who types.
    let ask = r"stty -echo -icanon; printf '\033[18t\033[c\033]11;?\007\033[?2004$p'; timeout 1 cat -v; stty sane; echo over-$((1+1))";
    one.shown.clear();
    let shown = one.type_until(&format!("{ask}\n"), "over-2").await;
    for answer in ["^[[8;20;90t", "^[[?1;2c", "^[]11;rgb:fefe/fdfd/fcfc^[\\", "^[[?2004;"] {
        assert_eq!(shown.matches(answer).count(), 1, "{answer:?} in {shown:?}");
    }
    // With nobody there it is answered as well.
    one.type_until("clear; (sleep 1; bash -c \"stty -echo -icanon; printf '\\033[c'; timeout --foreground 1 cat -v > alone; stty sane\"); echo done-$((1+1))\n", "").await;
    drop((one, two));
    let alone = workspace.root.join("alone");
    until("an answer", || async { std::fs::read_to_string(&alone).is_ok_and(|t| t == "^[[?1;2c") }).await;
}

/// A page that was closed bound the terminal's size for two minutes more, and one that only
/// looked for as long as it did.
#[tokio::test(flavor = "multi_thread")]
async fn the_size_is_that_of_who_types() {
    let workspace = Workspace::start(&[]).await;
    let (mut small, mut large) = (workspace.client().await, workspace.client().await);
    let size = |said: &Value| (said["cols"].as_u64().unwrap(), said["rows"].as_u64().unwrap());
    let got = large.ask("terminal:attach", json!({ "id": "main", "cols": 120, "rows": 40 })).await;
    assert_eq!(size(&got), (120, 40));
    let got = small.ask("terminal:attach", json!({ "id": "main", "cols": 30, "rows": 10 })).await;
    assert_eq!(size(&got), (120, 40), "who comes to look changes nothing");
    small.ask("terminal:write", json!({ "id": "main", "data": "\u{1b}[?1;2c" })).await;
    let list =
        async |client: &mut Client| size(&client.ask("terminal:list", json!({})).await["terminals"][0]);
    assert_eq!(list(&mut large).await, (120, 40), "an emulator's answer is not typing");
    small.ask("terminal:write", json!({ "id": "main", "data": "x" })).await;
    assert_eq!(list(&mut large).await, (30, 10));
    let got = large.ask("terminal:resize", json!({ "id": "main", "cols": 100, "rows": 40 })).await;
    assert_eq!(size(&got), (30, 10));
    large.ask("terminal:write", json!({ "id": "main", "data": "x" })).await;
    assert_eq!(list(&mut large).await, (100, 40));
    small.ask("terminal:write", json!({ "id": "main", "data": "x" })).await;
    assert_eq!(list(&mut large).await, (30, 10));
    // Its connection breaks: it may come back, but not hold up the others.
    drop(small);
    until("the other's size", || async {
        let mut looks = workspace.client().await;
        looks.ask("terminal:list", json!({})).await["terminals"][0]["cols"] == 100
    })
    .await;
}

/// Who came late saw the last 64 KiB, cut within whatever was there.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_sees_the_screen_and_what_is_above_it() {
    let workspace = Workspace::start(&[("TERMINAL_SCROLLBACK_LINES", "1000")]).await;
    let mut client = workspace.client().await;
    let print = "for n in $(seq 3000); do printf 'row \\033[3%dm%d\\033[m %s\\n' $((n%8)) $n xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done; echo end-$((1+1))";
    client.type_until(&format!("{print}\n"), "end-2").await;
    let mut late = workspace.client().await;
    late.ask("terminal:attach", json!({ "id": "main", "cols": 80, "rows": 24 })).await;
    let screen = late.events.iter().rev().find_map(|(name, data)| {
        (name == "terminal:data" && data["id"] == "main").then(|| data["data"].as_str().unwrap().to_owned())
    });
    let screen = match screen {
        Some(screen) => screen,
        None => late.event("terminal:data").await["data"].as_str().unwrap().to_owned(),
    };
    let rows = screen.matches("row ").count();
    assert!((1000..=1024).contains(&rows), "{rows}");
    assert!(screen.contains("row \u{1b}[34m2500\u{1b}[m xxx") && screen.contains("end-2"));
    // And a program's screen, with the shell's behind it.
    client.type_until("printf '\\033[?1049h\\033[2J\\033[3;5Hful''l'; sleep 1000\n", "full").await;
    let mut late = workspace.client().await;
    late.ask("terminal:attach", json!({ "id": "main" })).await;
    let shown = late
        .events
        .iter()
        .rev()
        .find(|(n, d)| n == "terminal:data" && d["id"] == "main")
        .map(|(_, d)| d.clone());
    let shown = match shown {
        Some(shown) => shown,
        None => late.event("terminal:data").await,
    };
    let shown = shown["data"].as_str().unwrap();
    let (before, after) = shown.split_once("\u{1b}[?1049h").expect("its own screen");
    assert!(before.contains("end-2") && after.contains("full"), "{shown:?}");
}

/// A paste came in pieces, and what was left of one when the connection broke was half a line.
#[tokio::test(flavor = "multi_thread")]
async fn input_of_any_length_is_typed_whole_or_not_at_all() {
    use legwork_e2e::workspace::http;
    use tokio::io::AsyncWriteExt;
    let workspace = Workspace::start(&[]).await;
    let mut client = workspace.client().await;
    client.type_until("stty -echo; echo ready-$((1+1)); cat > typed; echo over-$((1+1))\n", "ready-2").await;
    let text: String = (0..100_000).map(|n| format!("line {n} of what is pasted\n")).collect();
    let head = format!(
        "POST /api/terminals/main/input HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        workspace.address,
        text.len()
    );
    let mut half = tokio::net::TcpStream::connect(&workspace.address).await.unwrap();
    half.write_all(head.as_bytes()).await.unwrap();
    half.write_all(&text.as_bytes()[..1 << 20]).await.unwrap();
    drop(half);
    let url = workspace.url("/api/terminals/main/input");
    let said = http().post(&url).body(text.clone()).send().await.unwrap();
    assert_eq!(said.status(), 200);
    client.ask("terminal:write", json!({ "data": "\u{4}" })).await;
    client.until_shown("over-2").await;
    assert!(std::fs::read_to_string(workspace.root.join("typed")).unwrap() == text);
    let nowhere = http().post(workspace.url("/api/terminals/t99/input")).body("x").send().await.unwrap();
    assert_eq!(nowhere.status(), 404);
}

/// The start of it was typed, and then the rest was refused.
#[tokio::test(flavor = "multi_thread")]
async fn input_that_is_refused_is_not_typed_in_part() {
    let workspace = Workspace::start(&[]).await;
    let mut client = workspace.client().await;
    client.type_until("stty -echo -icanon; echo ready-$((1+1)); cat -v > typed\n", "ready-2").await;
    let large = json!({ "data": "y".repeat(2 << 20) });
    assert_eq!(client.refused("terminal:write", large).await, "terminal_busy");
    client.ask("terminal:write", json!({ "data": "after\n\u{4}" })).await;
    let typed = workspace.root.join("typed");
    until("the rest", || async { std::fs::read_to_string(&typed).is_ok_and(|t| t.contains("after")) }).await;
    assert!(!std::fs::read_to_string(&typed).unwrap().contains('y'));
}

/// tmux, and whatever else speaks over a socket of its own, failed behind the walls.
#[tokio::test(flavor = "multi_thread")]
async fn tmux_and_sockets_of_the_workspace_work_behind_walls() {
    let outside = tempfile::tempdir().unwrap();
    let socket = outside.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let ask = format!(
        r#"import socket, os
def both(path):
    l = socket.socket(socket.AF_UNIX); l.bind(path); l.listen()
    c = socket.socket(socket.AF_UNIX); c.connect(path); os.unlink(path)
both("own.sock"); both(os.environ["TMPDIR"] + "/own.sock")
try:
    socket.socket(socket.AF_UNIX).connect({:?}); print("reached")
except OSError: open("refused", "w")
"#,
        socket.to_str().unwrap()
    );
    for (profile, env, works) in [
        ("namespaces", &[][..], true),
        ("landlock", &[], false),
        ("landlock", &[("SANDBOX_UNIX_SOCKETS", "on")], true),
    ] {
        let workspace = Workspace::start(env).await;
        std::fs::write(workspace.root.join("ask.py"), &ask).unwrap();
        let mut client = workspace.client().await;
        let tmux = "tmux -f /dev/null new-session -d 'echo in > tmux; exit' && while [ ! -e tmux ]; do sleep 0.05; done";
        // Behind Landlock nobody can make a terminal, which tmux needs beside its socket.
        let command = match profile {
            "namespaces" => format!("python3 ask.py && {tmux}"),
            _ => "python3 ask.py".to_owned(),
        };
        let made = client.ask("terminal:open", json!({ "command": command, "sandbox": profile })).await;
        assert!(made["id"].is_string(), "{made}");
        let exit = loop {
            let exit = client.event("terminal:exit").await;
            if exit["id"] == made["id"] {
                break exit;
            }
        };
        let shown: String = client.events.iter().filter_map(|(_, e)| e["data"].as_str()).collect();
        if shown.contains("cannot start shell") {
            println!("NOT CHECKED HERE: {profile}: {shown}");
            continue;
        }
        assert_eq!(exit["code"] == 0, works, "{profile} {env:?}: {shown}");
        assert!(profile != "namespaces" || workspace.root.join("refused").exists(), "{shown}");
    }
}
