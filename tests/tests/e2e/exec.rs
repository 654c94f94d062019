//! `exec` beside ssh's ways: pipes, the standard input, signals, exit statuses; and commands whose reader goes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use legwork_e2e::{Pair, binary, legwork, legwork_at, until};
use serde_json::Value;

/// Runs a line of shell in which `legwork` is the program; its status and what it said.
async fn shell(pair: &Pair, line: &str) -> (i32, String, String) {
    let line = format!("legwork() {{ {} \"$@\"; }}; {line}", binary().display());
    let mut command = legwork_at(std::path::Path::new("/bin/bash"), pair.dir.path());
    command.args(["-c", &line]).env("LEGWORK_HUB_URL", &pair.hub.url).env("LEGWORK_TOKEN", &pair.hub.admin);
    let output = tokio::time::timeout(legwork_e2e::DEADLINE, command.output()).await.unwrap().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

async fn newest(pair: &Pair) -> Value {
    pair.api.get("/tasks?limit=1").await.1["items"][0].clone()
}

#[tokio::test]
async fn a_reader_that_goes_ends_the_remote_command() {
    let pair = Pair::start().await;
    for command in ["yes", "'echo y; sleep 300'"] {
        let start = Instant::now();
        let (_, out, err) =
            shell(&pair, &format!("legwork exec -r r1 --timeout 600 -- {command} | head -1")).await;
        assert_eq!((out.as_str(), err.as_str()), ("y\n", ""), "{command}");
        assert!(start.elapsed() < Duration::from_secs(30), "{command}: {:?}", start.elapsed());
        let id = newest(&pair).await["id"].as_str().unwrap().to_owned();
        assert_eq!(pair.api.end(&id).await["state"], "cancelled", "{command}");
    }
    let (code, _, _) = shell(&pair, "legwork exec -r r1 -- yes | head -1; exit ${PIPESTATUS[0]}").await;
    assert_eq!(code, 141);
}

#[tokio::test]
async fn every_command_ends_quietly_when_its_reader_does() {
    let pair = Pair::start().await;
    let id = pair.api.bash("r1", "seq 100000").await;
    pair.api.end(&id).await;
    for command in [
        "policy tables",
        "policy preset strict",
        "completions bash",
        "--help",
        "runners --json",
        "tasks",
        "config show --config none",
        "doctor",
        &format!("tasks {id}"),
        &format!("logs {id}"),
    ] {
        // The reader is gone before anything is written.
        let (code, _, err) =
            shell(&pair, &format!("( sleep 0.3; legwork {command} ) | exec true; exit ${{PIPESTATUS[0]}}"))
                .await;
        assert!(!err.contains("panicked") && !err.contains("Broken pipe"), "{command}: {err}");
        assert!([0, 1, 2, 141].contains(&code), "{command}: {code}");
    }
    // Standard error as well.
    let (_, _, err) = shell(&pair, "( sleep 0.3; legwork exec -r nobody -- true 2>&1 ) | exec true").await;
    assert_eq!(err, "");
}

#[tokio::test]
async fn the_standard_input_is_passed_and_judged_as_ever() {
    let pair =
        Pair::with_rules(&[("*", "deny"), ("wc *", "allow"), ("cat *", "allow"), ("cat", "allow")]).await;
    let run = async |line: &str| shell(&pair, line).await;
    assert_eq!(
        run("printf 'a\\nb\\n' | legwork exec -r r1 -- wc -l").await,
        (0, "2\n".into(), String::new())
    );
    let odd = run("printf '$(rm x) `id` \\\\ \"\\n' | legwork exec -r r1 -- cat").await;
    assert_eq!(odd, (0, "$(rm x) `id` \\ \"\n".into(), String::new()));
    let (_, out, _) = run("printf 'a\\n' | legwork exec --no-stdin -r r1 -- wc -l").await;
    assert_eq!(out, "0\n");
    let (code, _, err) = run("printf 'x\\n' | legwork exec -r r1 -- rm y").await;
    assert!(code == 126 && err.contains("rm y"), "{err}");
    // What can't be passed is said, and nothing runs.
    let (code, out, err) = run("head -c 200000 /dev/zero | tr '\\0' x | legwork exec -r r1 -- wc -c").await;
    assert!(code == 255 && out.is_empty() && err.contains("larger than"), "{err}");
    let (code, _, err) = run("printf '\\377\\n' | legwork exec -r r1 -- wc -c").await;
    assert!(code == 255 && err.contains("no text"), "{err}");
    let (_, out, err) = run("printf 'ab' | legwork exec -r r1 -- wc -c").await;
    assert!(out == "3\n" && err.contains("does not end with a newline"), "{out} {err}");
    // One that never says anything does not hold it up, and one that is late is waited for.
    let (_, out, err) =
        run("sleep 20 | legwork exec -r r1 -- wc -c & wait $!; kill %1 2>/dev/null; true").await;
    assert!(out == "0\n" && err.contains("nothing came"), "{out} {err}");
    let (_, out, _) = run("(sleep 1.5; echo late) | legwork exec --stdin -r r1 -- wc -l").await;
    assert_eq!(out, "1\n");
}

#[tokio::test]
async fn sigterm_cancels_the_task_and_says_so() {
    let pair = Pair::start().await;
    let mut exec = legwork(pair.dir.path());
    exec.args(["exec", "-r", "r1", "--", "touch started; sleep 300"]).stderr(Stdio::piped());
    exec.env("LEGWORK_HUB_URL", &pair.hub.url).env("LEGWORK_TOKEN", &pair.hub.admin);
    let exec = exec.spawn().unwrap();
    until("it runs", || async { pair.runner.workspace.join("started").exists() }).await;
    let pid = rustix::process::Pid::from_raw(exec.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(legwork_e2e::DEADLINE, exec.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(143), "{said}");
    assert!(said.contains("cancelling tsk_"), "{said}");
    assert_eq!(newest(&pair).await["state"], "cancelled");
}

#[tokio::test]
async fn a_hub_that_says_nothing_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            held.push(tcp);
        }
    });
    let mut exec = legwork(dir.path());
    exec.args(["exec", "-r", "r1", "--", "true"]).env("LEGWORK_HUB_URL", &url).env("LEGWORK_TOKEN", "t");
    let ended = tokio::time::timeout(Duration::from_secs(90), exec.output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(255) && said.contains("does not answer"), "{said}");
}

#[tokio::test]
async fn tasks_shows_age_and_exit_status_and_takes_filters() {
    let pair = Pair::start().await;
    let good = pair.api.bash("r1", "true").await;
    let bad = pair.api.bash("r1", "exit 3").await;
    for id in [&good, &bad] {
        pair.api.end(id).await;
    }
    let (_, list, _) = shell(&pair, "legwork tasks").await;
    let row = list.lines().find(|line| line.contains(&bad)).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert!(cells[1].ends_with('s') && cells[2] == "failed" && cells[3] == "3", "{row}");
    for (filter, has_good, has_bad) in [
        ("--state failed", false, true),
        ("--state succeeded", true, false),
        ("--runner r1", true, true),
        ("--operation write", false, false),
        ("--since 1h", true, true),
        ("--since 0s", false, false),
    ] {
        let (code, list, err) = shell(&pair, &format!("legwork tasks {filter}")).await;
        assert_eq!(
            (code, list.contains(&good), list.contains(&bad)),
            (0, has_good, has_bad),
            "{filter}: {list}{err}"
        );
    }
    assert_eq!(shell(&pair, "legwork tasks --since soon").await.0, 1);
    let (code, _, err) = shell(&pair, "legwork tasks --runner other").await;
    assert!(code == 1 && err.contains("there is no runner 'other'"), "a slip is no empty list: {code} {err}");
}
