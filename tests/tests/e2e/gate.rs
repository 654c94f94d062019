//! Execs judged where they happen, through hub and runner.

use serde_json::{Value, json};

use legwork_e2e::{Hub, Runner, until};

async fn setup(rules: &[(&str, &str)], more: &str) -> (tempfile::TempDir, Hub, Runner) {
    let dir = tempfile::Builder::new().prefix("legwork-e2e-").tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("r").await;
    let url = format!("ws://{}/runner/ws", hub.address());
    let runner = Runner::start_with(&dir.path().join("home"), &url, &token, rules, more).await;
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
async fn what_a_program_executes_in_turn_is_judged_told_and_audited() {
    let rules = &[("*", "deny"), ("find *", "allow"), ("bash *", "allow"), ("echo *", "allow")];
    let (_dir, hub, runner) = setup(rules, "").await;
    let api = hub.api();
    let labels = api.get("/runners/r").await.1["labels"].clone();
    assert!(labels.as_array().unwrap().contains(&json!("gate:exec")), "{labels}");
    std::fs::write(runner.workspace.join("s.sh"), "echo in; id -u; uname -a; id -g; true\n").unwrap();
    let run = api.run("r", "bash s.sh").await;
    assert_eq!((&run["exit_code"], &run["result"]["stdout"]), (&json!(0), &json!("in\n")), "{run}");
    let stderr = run["result"]["stderr"].as_str().unwrap();
    assert!(stderr.contains("legwork: denied at exec: id -u (no rule allows it"), "{run}");
    assert!(stderr.contains("legwork: denied at exec: uname -a (") && stderr.contains("'uname *'"), "{run}");
    let record = audit_of(&runner).into_iter().last().unwrap();
    assert_eq!((&record["gate"], &record["blocked"]), (&json!("exec"), &json!(["id", "uname"])), "{record}");
    assert!(record["denied"][0].as_str().unwrap().starts_with("id -u ("), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_everything_may_run_nothing_is_judged() {
    let (_dir, hub, runner) = setup(&[("*", "allow")], "").await;
    let api = hub.api();
    let labels = api.get("/runners/r").await.1["labels"].to_string();
    assert!(!labels.contains("gate:"), "{labels}");
    let run = api.run("r", "id -u").await;
    assert_eq!(run["exit_code"], 0, "{run}");
    assert_eq!(audit_of(&runner).last().unwrap().get("gate"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carve_out_holds_whatever_leads_to_it() {
    let rules = &[("*", "allow"), ("rm -rf /nonexistent-root", "deny")];
    let (_dir, hub, _runner) = setup(rules, "").await;
    let api = hub.api();
    for line in [
        "d=/nonexistent-root; rm -rf \"$d\"",
        "echo /nonexistent-root | xargs rm -rf",
        "printf 'rm -rf /nonexistent-root' > s; bash s",
        "echo 'rm -rf /nonexistent-root' | sh",
        "make -f /dev/stdin <<< $'all:\\n\\trm -rf /nonexistent-root'",
    ] {
        let run = api.run("r", line).await;
        assert_ne!(run["exit_code"], 0, "{line}: {run}");
        assert!(run.to_string().contains("denied"), "{line}: {run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computed_target_is_written_only_where_a_rule_lets_it() {
    let rules =
        &[("*", "deny"), ("echo *", "allow"), ("cat *", "allow"), ("cd *", "allow"), ("> out/*", "allow")];
    let (_dir, hub, runner) = setup(rules, "").await;
    let api = hub.api();
    std::fs::create_dir(runner.workspace.join("out")).unwrap();
    let run = api.run("r", "for f in a b; do echo $f > \"out/$f\"; done; cat out/a out/b").await;
    assert_eq!((&run["exit_code"], &run["result"]["stdout"]), (&json!(0), &json!("a\nb\n")), "{run}");
    let run = api.run("r", "x=..; f=$(echo $x/owned); echo y > \"out/$f\"; echo done").await;
    assert!(!runner.workspace.join("owned").exists(), "{run}");
    let text = run.to_string();
    assert!(text.contains("denied") && text.contains("owned"), "{run}");
}

/// A version manager's stand-in runs tools on its way to the program that was meant.
#[tokio::test(flavor = "multi_thread")]
async fn what_python_is_on_this_machine_it_runs_by_its_rule() {
    let (_dir, hub, _runner) = setup(&[("*", "deny"), ("python3 *", "allow")], "").await;
    let run = hub.api().run("r", "python3 -c 'import sys; print(sys.version_info[0])'").await;
    if run.to_string().contains("command not found") {
        println!("NOT TESTED HERE: no python3");
        return;
    }
    assert_eq!((&run["exit_code"], &run["result"]["stdout"]), (&json!(0), &json!("3\n")), "{run}");
    let run = hub.api().run("r", "python3 -c 'import os; print(os.system(\"id -u\") >> 8)'").await;
    // The C library's word for a shell that could not be executed.
    assert_eq!(run["result"]["stdout"], json!("127\n"), "{run}");
    assert!(run.to_string().contains("denied at exec: sh -c 'id -u'"), "{run}");
}
