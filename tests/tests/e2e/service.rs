//! The runner as a service: its unit, its health, its config, a root it may not
//! write to.

use std::path::Path;

use legwork_e2e::{ALLOW_ALL, Hub, Runner, binary, legwork, legwork_at, until};
use serde_json::{Value, json};

#[tokio::test]
async fn the_unit_is_one_that_systemd_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let output = legwork(dir.path()).args(["install-service", "--print"]).output().await.unwrap();
    assert!(output.status.success());
    let unit = dir.path().join("legwork.service");
    std::fs::write(&unit, &output.stdout).unwrap();
    let analyze = async |args: &[&str]| {
        let mut command = legwork_at(Path::new("/usr/bin/systemd-analyze"), dir.path());
        let output = command.args(args).arg(&unit).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (ok, text) = analyze(&["verify"]).await;
    assert!(ok && !text.contains("legwork.service:"), "{text}");
    // As hardened as a service that runs its operator's commands can be.
    let (ok, text) = analyze(&["security", "--offline=true", "--threshold=45"]).await;
    assert!(ok, "{text}");
    // It is not written over a config that is not there.
    let missing = legwork(dir.path())
        .args(["install-service", "--config", "/nonexistent.yaml", "--unit"])
        .arg(dir.path().join("x.service"))
        .output()
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&missing.stderr).contains("does not exist: write it first"));
    assert!(!dir.path().join("x.service").exists());
}

#[tokio::test]
async fn health_follows_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("r1").await;
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let more = format!("health:\n  listen: 127.0.0.1:{port}\n");
    let url = format!("ws://{}/runner/ws", hub.address());
    let _runner = Runner::start_with(&dir.path().join("r1"), &url, &token, ALLOW_ALL, &more).await;
    let get = async |path: &str| {
        let response = reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.ok()?;
        Some((response.status().as_u16(), response.json::<Value>().await.unwrap()))
    };
    until("it is healthy", || async { get("/healthz").await.is_some_and(|(status, _)| status == 200) }).await;
    assert_eq!(get("/healthz").await.unwrap().1["status"], "connected");
    hub.kill().await;
    until("it is not", || async { get("/healthz").await.is_some_and(|(status, _)| status == 503) }).await;
    assert_eq!(get("/livez").await.unwrap(), (200, json!({ "status": "alive" })));
}

#[tokio::test]
async fn a_config_is_checked_and_shown_with_its_sources() {
    let dir = tempfile::tempdir().unwrap();
    let run = async |args: &[&str], env: &[(&str, &str)]| {
        let output = legwork(dir.path()).args(args).envs(env.iter().copied()).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
    };
    Runner::configure(
        dir.path(),
        "ws://h/",
        "hunter2",
        &[("*", "deny"), ("ls *", "allow")],
        "max_tasks: 7\n",
    );
    let (status, text) = run(&["config", "check"], &[]).await;
    assert_eq!((status, text.trim()), (0, "ok: 2 rules, 0 warnings"));
    let (status, text) = run(&["config", "show"], &[("LEGWORK_RUNNER_NAME", "web-1")]).await;
    assert_eq!(status, 0);
    let line =
        |key: &str| text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{key}: {text}"));
    assert!(line("max_tasks").contains("config.yaml:"), "{text}");
    assert!(line("name").contains("web-1") && line("name").contains("environment LEGWORK_RUNNER_NAME"));
    assert!(line("token").contains("[redacted]") && !text.contains("hunter2"));
    let path = dir.path().join(".legwork/config.yaml");
    let text = std::fs::read_to_string(&path).unwrap().replace("max_tasks", "max_task");
    std::fs::write(&path, text).unwrap();
    let (status, text) = run(&["config", "check"], &[]).await;
    assert_eq!(status, 2);
    assert!(
        text.contains("unknown key max_task (did you mean max_tasks?)") && text.contains(" line "),
        "{text}"
    );
    // The runner says the same, and does not start.
    let (status, said) = run(&["run"], &[]).await;
    assert_eq!(status, 1);
    assert!(said.contains("unknown key max_task"), "{said}");
}

#[tokio::test]
async fn it_runs_as_anybody_on_a_root_it_may_not_write_to() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("r1").await;
    let home = dir.path().join("r1");
    Runner::configure(&home, &format!("ws://{}/runner/ws", hub.address()), &token, ALLOW_ALL, "");
    let root = rustix::process::geteuid().is_root();
    // As in the container: a read-only root, and one folder of its own.
    let (home_text, program) = (home.display(), binary().display().to_string());
    let user = if root { "setpriv --reuid 65534 --regid 65534 --clear-groups" } else { "" };
    let line = format!(
        "mount --bind {home_text} {home_text} && mount -o remount,bind,ro / && \
         ! touch /probe 2>/dev/null && cd / && exec {user} {program} run"
    );
    if root {
        use std::os::unix::fs::{PermissionsExt, chown};
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for path in [home.clone(), home.join(".legwork"), home.join(".legwork/config.yaml")] {
            chown(path, Some(65534), Some(65534)).unwrap();
        }
    }
    let flags: &[&str] = if root { &["-m"] } else { &["-rm"] };
    let mut command = legwork_at(Path::new("/usr/bin/unshare"), &home);
    let mut process =
        command.args(flags).args(["sh", "-c", &line]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    let run = api.run("r1", "id -u; touch /probe || echo refused; echo x > f; cat f").await;
    let want = if root { "65534\nrefused\nx\n" } else { "0\nrefused\nx\n" };
    assert_eq!(run["result"]["stdout"], want, "{run}");
    process.kill().await.unwrap();
}
