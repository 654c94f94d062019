//! Links cut, processes killed, disks filled: nothing accepted is lost, nothing
//! runs twice.

use std::path::Path;
use std::time::Duration;

use legwork_e2e::proxy::Proxy;
use legwork_e2e::{ALLOW_ALL, Hub, Pair, Runner, until};
use rustix::process::Signal;
use serde_json::json;

/// How often each number stands in a file of numbers.
fn counts(path: &Path, most: usize) -> Vec<usize> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut counts = vec![0; most];
    for line in text.lines() {
        counts[line.parse::<usize>().unwrap()] += 1;
    }
    counts
}

#[tokio::test]
async fn a_link_cut_every_300_ms_loses_nothing_and_repeats_nothing() {
    const TASKS: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let proxy = Proxy::start(hub.address()).await;
    let token = hub.runner_token("r1").await;
    let runner = Runner::start(&dir.path().join("r1"), &proxy.address, &token, ALLOW_ALL).await;
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    let cutting = proxy.cut_every(Duration::from_millis(300));
    let mut tasks = Vec::new();
    for n in 0..TASKS {
        let line = format!("echo {n} >> log; echo start {n}; sleep 0.2; echo end {n} >&2");
        tasks.push((n, api.bash("r1", &line).await));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Redials wait up to a second, so that cuts every 300 ms let hardly anything
    // through; after a while the link is left alone.
    tokio::time::sleep(Duration::from_secs(8)).await;
    cutting.abort();
    for (n, id) in &tasks {
        let task = api.end(id).await;
        let run = &task["runs"][0];
        assert_eq!(run["state"], "succeeded", "{task}");
        assert_eq!(run["result"]["stdout"], format!("start {n}\n"));
        // The streamed output is whole as well: no gap, no repeat.
        let mut streams = (String::new(), String::new());
        for (_, kind, data) in api.events(id, None, 1000).await {
            if kind == "output" {
                let stream = if data["stream"] == "stdout" { &mut streams.0 } else { &mut streams.1 };
                assert_eq!(data["offset"], stream.len(), "{id}");
                stream.push_str(data["data"].as_str().unwrap());
            }
        }
        assert_eq!(streams, (format!("start {n}\n"), format!("end {n}\n")), "{id}");
    }
    assert_eq!(counts(&runner.workspace.join("log"), TASKS), vec![1; TASKS]);
}

#[tokio::test]
async fn a_command_survives_kill_9_of_its_runner_and_reports_after_the_restart() {
    let mut pair = Pair::start().await;
    let id = pair.api.bash("r1", "echo 0 >> log; echo one; sleep 2; echo two; exit 4").await;
    until("it runs", || async { pair.runner.workspace.join("log").exists() }).await;
    pair.runner.kill().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _again = Runner::again(&pair.runner.home).await;
    let run = pair.api.end(&id).await["runs"][0].clone();
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("failed"), &json!(4)));
    assert_eq!(run["result"]["stdout"], "one\ntwo\n");
    let output: String = pair
        .api
        .events(&id, None, 100)
        .await
        .into_iter()
        .filter(|(_, kind, _)| kind == "output")
        .map(|(_, _, data)| data["data"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(output, "one\ntwo\n");
    assert_eq!(counts(&pair.runner.workspace.join("log"), 1), [1]);
}

#[tokio::test]
async fn a_command_that_ended_while_its_runner_was_dead_is_reported() {
    let mut pair = Pair::start().await;
    let id = pair.api.bash("r1", "echo 0 >> log; sleep 0.5; echo done").await;
    until("it runs", || async { pair.runner.workspace.join("log").exists() }).await;
    pair.runner.kill().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _again = Runner::again(&pair.runner.home).await;
    let run = pair.api.end(&id).await["runs"][0].clone();
    assert_eq!((&run["state"], &run["result"]["stdout"]), (&json!("succeeded"), &json!("done\n")));
}

#[tokio::test]
async fn runner_and_hub_killed_again_and_again_under_load_lose_nothing() {
    const TASKS: usize = 60;
    let mut pair = Pair::start().await;
    let mut tasks = Vec::new();
    for n in 0..TASKS {
        // The hub may be away: then the task was not taken, and is asked for again
        // under the same key.
        let body = json!({
            "select": { "runner": "r1" }, "operation": "bash", "idempotency_key": format!("key-{n}"),
            "args": { "command": format!("echo {n} >> log; sleep 0.3") },
        });
        let id = loop {
            let request = pair
                .api
                .http
                .post(format!("{}/api/v1/tasks", pair.hub.url))
                .bearer_auth(&pair.hub.admin)
                .json(&body)
                .timeout(Duration::from_secs(5));
            if let Ok(response) = request.send().await
                && response.status().as_u16() == 202
            {
                break response.json::<serde_json::Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        tasks.push(id);
        if n % 20 == 7 {
            pair.runner.kill().await;
            pair.runner = Runner::again(&pair.runner.home).await;
        }
        if n % 20 == 15 {
            pair.hub = pair.hub.crash_and_restart().await;
        }
    }
    for id in &tasks {
        let task = pair.api.end(id).await;
        assert_eq!(task["runs"][0]["state"], "succeeded", "{task}");
        let last = pair.api.events(id, None, 1000).await.pop().unwrap();
        assert_eq!(last.1, "end");
    }
    assert_eq!(counts(&pair.runner.workspace.join("log"), TASKS), vec![1; TASKS]);
}

#[tokio::test]
async fn a_killed_supervisor_makes_its_task_lost_and_disturbs_no_other() {
    let pair = Pair::start().await;
    let doomed = pair.api.bash("r1", "echo $PPID > ppid; sleep 60").await;
    let other = pair.api.bash("r1", "sleep 1; echo fine").await;
    let ppid = pair.runner.workspace.join("ppid");
    until("it runs", || async { std::fs::read_to_string(&ppid).is_ok_and(|t| t.ends_with('\n')) }).await;
    let pid = std::fs::read_to_string(&ppid).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let run = pair.api.end(&doomed).await["runs"][0].clone();
    assert_eq!(run["state"], "lost");
    assert!(run["error"].as_str().unwrap().contains("its supervisor was killed"));
    assert_eq!(pair.api.end(&other).await["state"], "succeeded");
}

#[tokio::test]
async fn a_cancel_and_a_timeout_end_the_whole_tree() {
    let pair = Pair::start().await;
    let cancelled = pair.api.bash("r1", "echo up; setsid sleep 4711 & sleep 4711").await;
    until("it runs", || async { pair.api.events(&cancelled, None, 5).await.iter().any(|e| e.1 == "output") })
        .await;
    assert_eq!(pair.api.post(&format!("/tasks/{cancelled}/cancel"), json!({})).await.0, 202);
    let run = pair.api.end(&cancelled).await["runs"][0].clone();
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("cancelled"), &json!(-1)));
    assert_eq!(run["result"]["stdout"], "up\n");
    let body = json!({
        "select": { "runner": "r1" }, "operation": "bash", "timeout_s": 1,
        "args": { "command": "echo before; setsid sleep 4711 & sleep 4711" },
    });
    let id = pair.api.post("/tasks", body).await.1["id"].as_str().unwrap().to_owned();
    let run = pair.api.end(&id).await["runs"][0].clone();
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("timed_out"), &json!(124)));
    assert_eq!(run["result"]["stderr"], "command timed out");
    let left = std::process::Command::new("pgrep").args(["-f", "^sleep 4711"]).status().unwrap();
    assert!(!left.success(), "a sleep is left");
}

#[tokio::test]
async fn sigterm_lets_tasks_end_and_sigusr2_leaves_them_running() {
    let mut pair = Pair::start().await;
    let id = pair.api.bash("r1", "sleep 1; echo drained").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pair.runner.stop(Signal::TERM).await, 0);
    assert_eq!(pair.api.end(&id).await["runs"][0]["result"]["stdout"], "drained\n");

    let mut runner = Runner::again(&pair.runner.home).await;
    until("it is back", || pair.api.is_online("r1")).await;
    let id = pair.api.bash("r1", "echo 0 >> log; sleep 2; echo adopted").await;
    until("it runs", || async { runner.workspace.join("log").exists() }).await;
    let start = std::time::Instant::now();
    assert_eq!(runner.stop(Signal::USR2).await, 0);
    assert!(start.elapsed() < Duration::from_millis(1500), "it waited for the command");
    let _again = Runner::again(&runner.home).await;
    assert_eq!(pair.api.end(&id).await["runs"][0]["result"]["stdout"], "adopted\n");
    assert_eq!(counts(&runner.workspace.join("log"), 1), [1]);
}

#[tokio::test]
async fn a_queued_task_waits_for_its_runner_expires_or_is_cancelled() {
    let mut pair = Pair::start().await;
    pair.runner.kill().await;
    until("it is offline", || async { !pair.api.is_online("r1").await }).await;
    let waits = pair.api.bash("r1", "echo waited").await;
    let cancelled = pair.api.bash("r1", "echo never >> log").await;
    let body = json!({
        "select": { "runner": "r1" }, "operation": "bash", "expires_s": 1, "args": { "command": "echo never >> log" },
    });
    let expires = pair.api.post("/tasks", body).await.1["id"].as_str().unwrap().to_owned();
    pair.api.post(&format!("/tasks/{cancelled}/cancel"), json!({})).await;
    assert_eq!(pair.api.end(&cancelled).await["state"], "cancelled");
    assert_eq!(pair.api.end(&expires).await["state"], "expired");
    assert_eq!(pair.api.get(&format!("/tasks/{waits}")).await.1["state"], "queued");
    let again = Runner::again(&pair.runner.home).await;
    assert_eq!(pair.api.end(&waits).await["runs"][0]["result"]["stdout"], "waited\n");
    assert!(!again.workspace.join("log").exists());
}

#[tokio::test]
async fn a_deleted_and_a_read_only_workspace_give_clear_errors() {
    let pair = Pair::start().await;
    std::fs::remove_dir_all(&pair.runner.workspace).unwrap();
    let run = pair.api.run("r1", "echo x").await;
    assert_eq!(run["state"], "failed");
    assert!(run["error"].as_str().unwrap().contains("no such file or directory"), "{run}");
    std::fs::create_dir(&pair.runner.workspace).unwrap();
    assert_eq!(pair.api.run("r1", "echo x").await["state"], "succeeded");
}

#[tokio::test]
async fn a_runner_out_of_descriptors_answers_every_task_and_recovers() {
    let mut pair = Pair::start().await;
    pair.runner.kill().await;
    pair.runner = Runner::again_with_files(&pair.runner.home, 40).await;
    until("it is back", || pair.api.is_online("r1")).await;
    let mut tasks = Vec::new();
    for _ in 0..60 {
        tasks.push(pair.api.bash("r1", "sleep 0.3; echo done").await);
    }
    let (mut good, mut refused) = (0, 0);
    for id in &tasks {
        let run = pair.api.end(id).await["runs"][0].clone();
        match run["state"].as_str().unwrap() {
            "succeeded" => good += 1,
            _ => {
                assert!(
                    run["error"].as_str().unwrap().to_lowercase().contains("too many open files"),
                    "{run}"
                );
                refused += 1;
            }
        }
    }
    assert!(good > 0 && refused > 0, "{good} done, {refused} refused: the limit was not met");
    assert_eq!(pair.api.run("r1", "echo fine").await["result"]["stdout"], "fine\n");
}

/// A small file system that is gone with the test. Needs root, as CI has.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(path)
            .status()
            .is_ok_and(|s| s.success());
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_gives_clear_errors_and_keeps_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(&dir.path().join("r1"), "3m") else {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs");
        eprintln!("NOT TESTED HERE: a full disk (mounting a tmpfs needs root)");
        return;
    };
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("r1").await;
    let home = dir.path().join("r1");
    let _runner = Runner::start(&home, &hub.address(), &token, ALLOW_ALL).await;
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    // More output than the disk holds: the command still ends, and says so.
    let run = api.run("r1", "head -c 8000000 /dev/zero | tr '\\0' x; echo end >&2; exit 3").await;
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("failed"), &json!(3)), "{run}");
    let stderr = run["result"]["stderr"].as_str().unwrap();
    assert!(stderr.contains("bytes of output were not kept") && stderr.contains("No space left"), "{stderr}");
    until("its journal is removed", || async {
        let state = std::fs::read_dir(home.join(".local/state/legwork")).unwrap().flatten().next().unwrap();
        std::fs::read_dir(state.path().join("commands")).unwrap().next().is_none()
    })
    .await;
    // A file that does not fit leaves the old one whole.
    use_whole_disk(&home.join("filler"));
    let body = json!({
        "select": { "runner": "r1" }, "operation": "write",
        "args": { "path": "f", "content": "eA==" },
    });
    let id = api.post("/tasks", body).await.1["id"].as_str().unwrap().to_owned();
    let run = api.end(&id).await["runs"][0].clone();
    assert_eq!(run["state"], "failed");
    assert!(
        run["error"].as_str().unwrap().to_lowercase().contains("full")
            || run["error"].as_str().unwrap().contains("no space left"),
        "{run}"
    );
    // With room again everything works.
    std::fs::remove_file(home.join("filler")).unwrap();
    until("it works again", || async { api.run("r1", "echo back").await["state"] == "succeeded" }).await;
}

/// Who was told that a command is cancelled counts on its never running, whatever happens to
/// the hub: it is told so only when that is on disk.
#[tokio::test]
async fn a_cancel_that_can_not_be_stored_is_not_promised() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("hub");
    let Some(_disk) = SmallDisk::mount(&data, "4m") else {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs");
        eprintln!("NOT TESTED HERE: a full disk (mounting a tmpfs needs root)");
        return;
    };
    let hub = Hub::start(&data).await;
    hub.runner_token("away").await;
    let id = hub.api().bash("away", "echo ran").await;
    let config = json!({ "type": "workflow", "steps": [{ "name": "a", "run": "true" }] });
    let (status, pod) = hub.api().post("/pods/tasks", json!({ "config": config })).await;
    assert!(pod["id"].is_u64(), "{status} {pod}");
    use_whole_disk(&data.join("filler"));
    let both = [format!("/tasks/{id}/cancel"), format!("/pods/tasks/{}/cancel", pod["id"])];
    for path in &both {
        let (status, problem) = hub.api().post(path, json!({})).await;
        assert_eq!((status, &problem["code"]), (503, &json!("store_failed")), "{path}: {problem}");
    }
    // It would store them as soon as there is room.
    hub.kill().await;
    std::fs::remove_file(data.join("filler")).unwrap();
    let hub = Hub::start(&data).await;
    let state = || async { hub.api().get(&format!("/tasks/{id}")).await.1["state"].clone() };
    assert_eq!(state().await, "queued");
    for path in &both {
        let (status, task) = hub.api().post(path, json!({})).await;
        assert!(status / 100 == 2 && task["state"] == "cancelled", "{path}: {status} {task}");
    }
    let hub = hub.crash_and_restart().await;
    assert_eq!(hub.api().get(&format!("/tasks/{id}")).await.1["state"], "cancelled");
}

fn use_whole_disk(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [65536, 4096, 1] {
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
    }
}
