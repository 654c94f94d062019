//! The command line, as the README's tour uses it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use legwork_e2e::{Pair, legwork, until};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

async fn run(home: &Path, hub: Option<&Pair>, args: &[&str]) -> Ran {
    let mut command = legwork(home);
    command.args(args);
    if let Some(pair) = hub {
        command.env("LEGWORK_HUB_URL", &pair.hub.url).env("LEGWORK_TOKEN", &pair.hub.admin);
    }
    let output = tokio::time::timeout(legwork_e2e::DEADLINE, command.output()).await.unwrap().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A misspelt word must not look like a quiet day, nor use up a task runner.
#[tokio::test]
async fn a_misspelt_word_is_answered_with_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::start().await;
    for (args, wanted) in [
        (&["tasks", "-r", "nosuch"][..], "nosuch"),
        (&["tasks", "--operation", "bsh"], "there are bash"),
        (&["tasks", "--since", "-1d"], "'-1d' is no age"),
        (&["pods", "logs", "tsk_2JaAPaQVhCMnxnJ3vYpBs7"], "legwork logs tsk_2JaAPaQVhCMnxnJ3vYpBs7"),
        (&["pods", "tasks", "one"], "must be the number of a task"),
        (&["agent", "--tools", "shell,bogus", "do it"], "there is no tool 'bogus'"),
        (&["agent", " "], "the prompt is empty"),
    ] {
        let ran = run(dir.path(), Some(&pair), args).await;
        assert!(ran.code != 0 && ran.stderr.contains(wanted), "{args:?}: {} {}", ran.code, ran.stderr);
    }
    assert_eq!(pair.api.get("/tasks").await.1["items"], json!([]));
    let known = run(dir.path(), Some(&pair), &["tasks", "-r", "r1", "--operation", "bash"]).await;
    assert_eq!((known.code, known.stdout.as_str()), (0, ""), "{}", known.stderr);
    // Each reason is told once.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = dir.path().join("hub");
    let ran = run(dir.path(), None, &["hub", "--listen", &address, "--data", data.to_str().unwrap()]).await;
    assert!(ran.code == 1 && ran.stderr.matches("in use").count() == 1, "{}", ran.stderr);
}

/// What `init` and `up` write where there is no Landlock is a config that they read.
#[tokio::test]
async fn up_works_the_first_time_on_a_kernel_without_landlock() {
    let dir = tempfile::tempdir().unwrap();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let plain = legwork(dir.path());
    let mut up = tokio::process::Command::new("strace");
    up.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=landlock_create_ruleset"]);
    up.args(["-e", "inject=landlock_create_ruleset:error=ENOSYS"]);
    up.arg(plain.as_std().get_program()).args(["up", "--listen", &listen]).stdout(Stdio::piped());
    for (name, value) in plain.as_std().get_envs() {
        match value {
            Some(value) => up.env(name, value),
            None => up.env_remove(name),
        };
    }
    let mut up = up.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let mut said = String::new();
    while !said.contains("Ctrl-C stops both.") {
        let line = tokio::time::timeout(legwork_e2e::DEADLINE, lines.next_line()).await.unwrap().unwrap();
        said.push_str(&line.unwrap_or_else(|| panic!("it ended: {said}")));
    }
    assert!(said.contains("sandbox off"), "{said}");
    let tour = run(dir.path(), None, &["exec", "-l", "os:linux", "--", "uname -s"]).await;
    assert_eq!((tour.code, tour.stdout.as_str()), (0, "Linux\n"), "{}", tour.stderr);
    let tracer = up.id().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).unwrap();
    let pid = children.split_whitespace().next().unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(tokio::time::timeout(legwork_e2e::DEADLINE, up.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn up_works_the_first_time_and_again() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for round in 0..3 {
        let mut up =
            legwork(dir.path()).args(["up", "--listen", &listen]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
        let mut said = String::new();
        while !said.contains("Ctrl-C stops both.") {
            said.push_str(
                &tokio::time::timeout(legwork_e2e::DEADLINE, lines.next_line())
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap(),
            );
            said.push('\n');
        }
        assert!(said.contains("runner   local is connected"), "{said}");
        let tour = run(dir.path(), None, &["exec", "-l", "os:linux", "--", "uname", "-s"]).await;
        assert_eq!((tour.code, tour.stdout.as_str()), (0, "Linux\n"), "{}", tour.stderr);
        let refused = run(dir.path(), None, &["exec", "-l", "os:linux", "--", "ls; rm -rf x"]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (126, ""));
        assert!(refused.stderr.contains("command denied by rule '*': rm -rf x"), "{}", refused.stderr);
        let audit = run(dir.path(), None, &["audit", "verify", "--json"]).await;
        let report: Value = serde_json::from_str(&audit.stdout).unwrap();
        assert_eq!((&report["ok"], &report["records"]), (&json!(true), &json!(2 * (round + 1))));
        let pid = rustix::process::Pid::from_raw(i32::try_from(up.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(tokio::time::timeout(legwork_e2e::DEADLINE, up.wait()).await.unwrap().unwrap().success());
        // As the docs advise; the second time even the saved one is gone.
        let _ = std::fs::remove_file(dir.path().join(".local/share/legwork/hub/admin.token"));
        if round == 1 {
            std::fs::remove_file(dir.path().join(".config/legwork/context.json")).unwrap();
        }
    }
    for file in [".config/legwork/context.json", ".local/share/legwork/runner.yaml"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
}

#[tokio::test]
async fn exec_is_as_if_the_command_ran_here() {
    let pair = Pair::start().await;
    let home = pair.dir.path();
    let ran = run(home, Some(&pair), &["exec", "-r", "r1", "--", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
    let ran =
        run(home, Some(&pair), &["exec", "-r", "r1", "--", "printf", "%s\\n", "a b", "$HOME", ""]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "a b\n$HOME\n\n"));
    let ran = run(home, Some(&pair), &["exec", "-r", "r1", "--timeout", "1", "--", "sleep 9"]).await;
    assert_eq!(ran.code, 124);
    let ran = run(home, Some(&pair), &["exec", "-r", "nobody", "--", "true"]).await;
    assert_eq!(ran.code, 255);
    assert!(ran.stderr.contains("matches no runner"), "{}", ran.stderr);
    let ran = run(home, Some(&pair), &["exec", "-r", "r1", "--json", "--", "echo x"]).await;
    let task: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(task["runs"][0]["result"]["stdout"], "x\n");
    let id = task["id"].as_str().unwrap();
    assert_eq!(run(home, Some(&pair), &["logs", id]).await.stdout, "x\n");
    let list = run(home, Some(&pair), &["tasks"]).await.stdout;
    assert!(list.contains(id) && list.contains("succeeded"));
    // Large output arrives whole.
    let ran = run(home, Some(&pair), &["exec", "-r", "r1", "--", "seq 300000"]).await;
    let want: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(ran.stdout == want, "{} bytes of {}", ran.stdout.len(), want.len());
}

#[tokio::test]
async fn exec_on_many_names_each_and_sums_up() {
    let pair = Pair::start().await;
    let token = pair.hub.runner_token("r2").await;
    let _second = legwork_e2e::Runner::start(
        &pair.dir.path().join("r2"),
        &pair.hub.address(),
        &token,
        legwork_e2e::ALLOW_ALL,
    )
    .await;
    until("both are there", || pair.api.is_online("r2")).await;
    let ran =
        run(pair.dir.path(), Some(&pair), &["exec", "-l", "os:linux", "--all", "--", "echo hello"]).await;
    let mut lines: Vec<&str> = ran.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!((ran.code, lines), (0, vec!["r1 | hello", "r2 | hello"]));
    assert!(ran.stderr.contains("2 of 2 succeeded"), "{}", ran.stderr);
}

#[tokio::test]
async fn ctrl_c_cancels_the_task() {
    let pair = Pair::start().await;
    let mut exec = legwork(pair.dir.path());
    exec.args(["exec", "-r", "r1", "--", "echo up; sleep 4712"])
        .env("LEGWORK_HUB_URL", &pair.hub.url)
        .env("LEGWORK_TOKEN", &pair.hub.admin)
        .stdout(Stdio::piped());
    let mut exec = exec.spawn().unwrap();
    let mut lines = BufReader::new(exec.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
    let pid = rustix::process::Pid::from_raw(i32::try_from(exec.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = tokio::time::timeout(Duration::from_secs(10), exec.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    let list = pair.api.get("/tasks").await.1;
    assert_eq!(list["items"][0]["state"], "cancelled");
}

#[tokio::test]
async fn a_machine_is_enrolled_once_with_a_one_time_token() {
    let pair = Pair::start().await;
    let home = pair.dir.path().join("new");
    std::fs::create_dir(&home).unwrap();
    let made = run(pair.dir.path(), Some(&pair), &["token", "create", "for new", "--role", "enroll"]).await;
    std::fs::write(home.join("token"), &made.stdout).unwrap();
    let token_file = home.join("token").display().to_string();
    let args = ["init", "--hub-url", &pair.hub.url, "--enroll-token-file", &token_file, "--name", "new"];
    let init = run(&home, None, &args).await;
    assert_eq!(init.code, 0, "{}", init.stderr);
    assert!(init.stdout.contains("next: legwork run"));
    assert!(run(&home, None, &args).await.stderr.contains("exists already"));
    let _runner = legwork_e2e::Runner::again(&home).await;
    until("it connects", || pair.api.is_online("new")).await;
    assert_eq!(pair.api.run("new", "touch x").await["state"], "denied");
    assert_eq!(pair.api.run("new", "uname -s").await["state"], "succeeded");
}

#[tokio::test]
async fn policy_check_answers_offline() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.yaml");
    std::fs::write(
        &config,
        "permission:\n  bash:\n    \"*\": deny\n    \"ls *\": allow\n    \"reboot\": ask\n",
    )
    .unwrap();
    let path = config.display().to_string();
    let check = |line: &'static str| {
        let (dir, path) = (dir.path().to_owned(), path.clone());
        async move { run(&dir, None, &["policy", "check", "--config", &path, "--", line]).await }
    };
    assert_eq!(check("ls -la").await.code, 0);
    let denied = check("ls; id").await;
    assert_eq!((denied.code, denied.stdout.trim()), (1, "command denied by rule '*': id"));
    assert_eq!(check("reboot").await.code, 3);
    std::fs::write(&config, "permission:\n  bash:\n    \"ls\": perhaps\n").unwrap();
    let broken = check("ls").await;
    assert_eq!(broken.code, 2);
    assert!(
        broken.stderr.contains("line 3") && broken.stderr.contains("unknown action 'perhaps'"),
        "{}",
        broken.stderr
    );

    let mut child = legwork(dir.path());
    child.args(["policy", "check", "--stdin-json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let questions = concat!(
        "{\"id\":1,\"policy\":[[\"*\",\"deny\"],[\"ls *\",\"allow\"]],\"command\":\"ls; id\"}\n",
        "nonsense\n",
        "{\"id\":\"b\",\"policy\":[[\"*\",\"allow\"]],\"command\":\"id\"}\n",
    );
    use tokio::io::AsyncWriteExt;
    child.stdin.take().unwrap().write_all(questions.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        answers[0],
        json!({ "id": 1, "decision": "deny", "rule": "*", "reason": null, "command": "id", "span": [4, 6] })
    );
    assert_eq!((&answers[1]["decision"], &answers[2]["decision"]), (&json!("error"), &json!("allow")));
}

#[tokio::test]
async fn policies_are_explained_linted_and_suggested() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.yaml");
    let rules = "permission:\n  include: [strict]\n  bash:\n    \"nice *\": allow\n    \"ls *\": allow\n    \"ls -l\": allow\n";
    std::fs::write(&config, rules).unwrap();
    let path = config.display().to_string();
    let explained =
        run(dir.path(), None, &["policy", "explain", "-c", &path, "--", "nice ls; nice rm x"]).await;
    assert_eq!(explained.code, 1);
    for line in ["allow  nice ls ", "allow    ls ", "deny     rm x ", "=> command denied by rule '*': rm x"] {
        assert!(explained.stdout.contains(line), "{line}: {}", explained.stdout);
    }
    assert_eq!(run(dir.path(), None, &["policy", "lint", "-c", &path]).await.code, 0);
    std::fs::write(&config, format!("{rules}    \"git *\": allow\n    \"l*\": deny\n")).unwrap();
    let lint = run(dir.path(), None, &["policy", "lint", "-c", &path, "--json"]).await;
    let notes: Value = serde_json::from_str(&lint.stdout).unwrap();
    let kinds: Vec<(&str, &str)> = notes
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["pattern"].as_str().unwrap(), n["kind"].as_str().unwrap()))
        .collect();
    assert_eq!((lint.code, kinds), (1, vec![("ls *", "dead"), ("ls -l", "dead"), ("git *", "dangerous")]));

    let audit = dir.path().join("audit.jsonl");
    let record =
        |subject: &str| json!({ "operation": "bash", "subject": subject, "decision": "deny" }).to_string();
    let records = ["kubectl get pods", "kubectl get nodes", "rm -rf x", "PATH=. ls"].map(record).join("\n");
    std::fs::write(&audit, records).unwrap();
    let audit = audit.display().to_string();
    let suggested = run(dir.path(), None, &["policy", "suggest", "-c", &path, "--audit", &audit]).await;
    assert!(suggested.stdout.contains("\n\"kubectl get *\": allow   # 2 lines"), "{}", suggested.stdout);
    assert!(
        suggested.stdout.contains("# DANGEROUS: rm changes or destroys\n# \"rm -rf x\": allow"),
        "{}",
        suggested.stdout
    );
    let steers = "# DANGEROUS: PATH steers what the program does\n# \"PATH=. ls\": allow";
    assert!(suggested.stdout.contains(steers), "{}", suggested.stdout);

    let transcript = dir.path().join("transcript");
    let told = r#"{"type":"tool_use","input":{"command":"git status --short"}}"#;
    std::fs::write(&transcript, format!("{told}\n$ ls -la\n#1700000000\nmake test\n")).unwrap();
    let learned = run(dir.path(), None, &["policy", "learn", &transcript.display().to_string()]).await;
    for line in
        ["# 3 lines; ", "66 % pass", "\"git status *\": allow", "# \"make test\": {allow, children: any}"]
    {
        assert!(learned.stdout.contains(line), "{line}: {}", learned.stdout);
    }

    for preset in ["strict", "read-only", "kubernetes-read-only", "trust"] {
        let printed = run(dir.path(), None, &["policy", "preset", preset]).await.stdout;
        std::fs::write(&config, printed).unwrap();
        assert_eq!(run(dir.path(), None, &["policy", "lint", "-c", &path]).await.code, 0, "{preset}");
    }
    assert_eq!(run(dir.path(), None, &["policy", "preset", "none"]).await.code, 1);
    assert!(run(dir.path(), None, &["policy", "tables"]).await.stdout.starts_with("version 3"));
}

#[tokio::test]
async fn small_commands_and_bad_usage() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), None, &["version"]).await.stdout.starts_with("legwork 0."));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(dir.path(), None, &["completions", shell]).await.stdout.contains("legwork"), "{shell}");
    }
    let doctor = run(dir.path(), None, &["doctor", "--json"]).await;
    let checks: Value = serde_json::from_str(&doctor.stdout).unwrap();
    assert!(checks.as_array().unwrap().iter().any(|c| c["name"] == "paths" && c["ok"] == true));
    assert_eq!(run(dir.path(), None, &["exec"]).await.code, 255);
    let lost = run(dir.path(), None, &["runners"]).await;
    assert!(lost.code == 1 && lost.stderr.contains("legwork up"), "{}", lost.stderr);
    // In the test's own folder: what it is told is relative to where the tests run.
    let data = dir.path().join("plain").display().to_string();
    let plain = run(dir.path(), None, &["hub", "--listen", "0.0.0.0:0", "--data", &data]).await;
    assert!(plain.code == 1 && plain.stderr.contains("without TLS"), "{}", plain.stderr);
    let no_token = run(dir.path(), None, &["run"]).await;
    assert!(
        no_token.code == 1 && no_token.stderr.starts_with("Error: token is required"),
        "{}",
        no_token.stderr
    );
}

/// A runner under the original's name; what it says until it is stopped.
async fn as_original(home: &std::path::Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let program = home.join("flashduty-runner");
    if !program.exists() {
        std::os::unix::fs::symlink(legwork_e2e::binary(), &program).unwrap();
    }
    let mut command = legwork_e2e::legwork_at(&program, home);
    command.args(args).envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(legwork_e2e::DEADLINE, command.output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn under_the_original_s_name_any_config_is_the_original_s() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("my.yaml");
    let text = "api_key: k\nworknode_id: wn_1\npermission:\n  bash:\n    \"git *\": allow\n    \"git push *\": deny\n    \"git p*\": allow\n";
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = config.to_str().unwrap();
    let said = as_original(dir.path(), &["config", "check", "--config", path], &[]).await;
    assert!(said.contains("unknown key worknode_id") && said.contains("which sorted rules"), "{said}");
    assert!(said.contains("ok: 3 rules"), "{said}");
    let shown = as_original(dir.path(), &["config", "show", "--config", path], &[]).await;
    assert!(shown.contains(".flashduty-runner/workspace"), "{shown}");
    let judged = as_original(dir.path(), &["policy", "check", "-c", path, "--", "git push x"], &[]).await;
    assert!(judged.contains("which sorted rules"), "{judged}");
    // By the environment alone.
    let env = [("FLASHDUTY_RUNNER_API_KEY", "k")];
    let shown = as_original(dir.path(), &["config", "show"], &env).await;
    assert!(shown.contains(".flashduty-runner/workspace"), "{shown}");
    // Under our own name the same file is ours, and a key that is none is an error.
    let ours = run(dir.path(), None, &["config", "check", "--config", path]).await;
    assert!(ours.code == 2 && ours.stderr.contains("unknown key worknode_id"), "{}", ours.stderr);
}

#[tokio::test]
async fn a_relative_authority_is_written_as_a_path_that_holds_everywhere() {
    let pair = Pair::start().await;
    let made = pair.api.post("/tokens", json!({ "name": "web-1", "role": "enroll" })).await.1;
    let home = pair.dir.path().join("new");
    std::fs::create_dir_all(&home).unwrap();
    let ca = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(home.join("ca.pem"), ca.cert.pem()).unwrap();
    let mut init = legwork(&home);
    init.args(["init", "--hub-url", &pair.hub.url, "--ca-file", "ca.pem"]).current_dir(&home);
    let output = init.env("LEGWORK_ENROLL_TOKEN", made["token"].as_str().unwrap()).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let config = std::fs::read_to_string(home.join(".legwork/config.yaml")).unwrap();
    let want = home.canonicalize().unwrap().join("ca.pem");
    assert!(config.contains(&format!("ca_file: \"{}\"", want.display())), "{config}");
}
