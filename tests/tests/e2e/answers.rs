//! What a refusal says to do, and where it says so; and what an operator says of programs.

use std::fs;

use legwork_e2e::{Pair, binary, legwork, legwork_at, until};
use serde_json::{Value, json};

#[tokio::test]
async fn a_result_says_what_to_write_instead() {
    let pair = Pair::with_rules(&[("*", "deny"), ("ls *", "allow")]).await;
    let id = pair.api.bash("r1", "/bin/ls -d /").await;
    let end = pair.api.end(&id).await;
    let run = &end["runs"][0];
    assert_eq!((&run["state"], &run["suggestion"]), (&json!("denied"), &json!("ls -d /")), "{run}");
    assert!(run["error"].as_str().unwrap().ends_with("; write instead: ls -d /"), "{run}");
    let events = pair.api.events(&id, None, 100).await;
    let told = events.iter().any(|(_, _, event)| event["suggestion"] == "ls -d /");
    assert!(told, "{events:?}");
    let output = legwork_at(&binary(), pair.dir.path())
        .args(["exec", "--json", "-r", "r1", "--", "/bin/ls -d /"])
        .env("LEGWORK_HUB_URL", &pair.hub.url)
        .env("LEGWORK_TOKEN", &pair.hub.admin)
        .output()
        .await
        .unwrap();
    let task: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(task["runs"][0]["suggestion"], "ls -d /", "{task}");
    // What it says works, and says nothing of the kind.
    let run = pair.api.run("r1", "ls -d /").await;
    assert_eq!((&run["state"], &run["suggestion"]), (&json!("succeeded"), &Value::Null), "{run}");
}

async fn check(config: &std::path::Path, args: &[&str]) -> (i32, Value) {
    let output = legwork(config.parent().unwrap())
        .args(["policy", "check", "--json", "-c"])
        .arg(config)
        .args(args)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{said}")))
}

#[tokio::test]
async fn a_check_says_what_would_pass_and_what_it_could_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    fs::write(
        &config,
        "permission:\n  bash:\n    \"*\": deny\n    \"git *\": allow\n    \"echo *\": allow\n",
    )
    .unwrap();
    let (code, answer) = check(&config, &["--", "/usr/bin/git status"]).await;
    assert_eq!((code, &answer["suggestion"]), (1, &json!("git status")), "{answer}");
    let (code, answer) = check(&config, &["--", "git status | wc -l"]).await;
    assert_eq!((code, &answer["would_allow"]), (1, &json!(["\"wc *\": allow"])), "{answer}");
    let (code, answer) = check(&config, &["--gate", "exec", "--", "git log $X"]).await;
    assert_eq!((code, &answer["at_exec"]), (0, &json!(true)), "{answer}");
    let (code, answer) = check(&config, &["--gate", "reading", "--", "our_mode=1; echo $our_mode"]).await;
    assert_eq!(code, 0, "{answer}");
    assert!(
        answer["unknown"][0].as_str().unwrap().contains("whether our_mode is in the environment"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_operators_table_counts_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (config, tables) = (dir.path().join("config.yaml"), dir.path().join("tables.txt"));
    let rules = "permission:\n  tables: tables.txt\n  bash:\n    \"*\": deny\n    \"our-tool *\": allow\n";
    fs::write(&config, rules).unwrap();
    fs::write(&tables, "# ours\nprogram our-tool; free: --look; write: -o=\n").unwrap();
    let reading = ["--gate", "reading", "--"];
    let line = |text| [&reading[..], &[text]].concat();
    assert_eq!(check(&config, &line("our-tool --look")).await.0, 0);
    assert_eq!(check(&config, &line("our-tool -o x")).await.0, 1);
    fs::write(&tables, "# ours\nprogram our-tool; free: --look; write: --look\n").unwrap();
    let output = legwork(dir.path()).args(["policy", "lint", "-c"]).arg(&config).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("tables.txt line 2: --look is free and write; keep one"), "{said}");
}

#[tokio::test]
async fn a_table_is_read_again_when_it_changes() {
    let pair = Pair::with_rules(&[("*", "deny"), ("seq *", "allow")]).await;
    let folder = pair.runner.home.join(".legwork");
    let (config, tables) = (folder.join("config.yaml"), folder.join("tables.txt"));
    fs::write(&tables, "program seq; free: -s=\n").unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("permission:\n", "permission:\n  tables: tables.txt\n")).unwrap();
    let state = async |line: &str| pair.api.run("r1", line).await["state"].as_str().unwrap().to_owned();
    until("the table counts", async || state("seq -w 2").await == "denied").await;
    assert_eq!(state("seq -s , 2").await, "succeeded");
    // One that is broken in between changes nothing.
    fs::write(&tables, "program seq; fre: -w\n").unwrap();
    assert_eq!(
        (state("seq -s , 2").await.as_str(), state("seq -w 2").await.as_str()),
        ("succeeded", "denied")
    );
    fs::write(&tables, "program seq; free: -w -s=\n").unwrap();
    until("the mended table counts", async || state("seq -w 2").await == "succeeded").await;
}
