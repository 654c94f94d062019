//! What tasks that are strangers to one another, and to their runner, find of each other.

use legwork_e2e::pod::{Callback, Place, Standby, steps};
use serde_json::{Value, json};

fn assignment(id: u64, config: &Value, callback: &Callback) -> Value {
    let url = callback.url.replace("/41/", &format!("/{id}/"));
    json!({"runner_id": 1, "task": {"id": id, "config": config}, "callback_url": url})
}

fn environment<'a>(hub: &'a Standby, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let base =
        [("MODE", "standby"), ("REGISTER_URL", hub.url.as_str()), ("POD_NAME", "p"), ("POD_IP", "127.0.0.1")];
    base.into_iter().chain(more.iter().copied()).collect()
}

fn said(callback: &Callback) -> Vec<String> {
    callback.of("log").iter().filter_map(|e| e["message"].as_str().map(str::to_owned)).collect()
}

/// Files, a home and notes of one tenant were there for the next.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_task_of_a_runner_finds_nothing_of_the_last() {
    let (hub, place, callback) = (Standby::start().await, Place::new(), Callback::start().await);
    let pod = place.spawn(&environment(&hub, &[("LEGWORK_TASKS", "2")]));
    let leave = "mkdir -p deep/er; echo tenant-1 > deep/er/f; echo tenant-1 > .hidden; echo tenant-1 > ~/.netrc; \
                 echo tenant-1 > ${TMPDIR:-/tmp}/legwork-left-$$; chmod 500 deep; echo left";
    hub.give.send(assignment(41, &steps(&[leave]), &callback)).await.unwrap();
    callback.until("the first task", |events| events.iter().any(|e| e["type"] == "done")).await;
    let look = "find . ~ ${TMPDIR:-/tmp} -mindepth 1 2>/dev/null | xargs -r grep -l tenant-1 2>/dev/null || true; echo looked";
    hub.give.send(assignment(42, &steps(&[look]), &callback)).await.unwrap();
    let ended = pod.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let lines = said(&callback);
    let after: Vec<&String> =
        lines.iter().skip_while(|l| *l != "left").skip(1).filter(|l| !l.starts_with("Running")).collect();
    assert_eq!(after, ["looked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_finds_another_task_s_files_refuses_and_says_so() {
    let (hub, place, callback) = (Standby::start().await, Place::new(), Callback::start().await);
    place.write("of-another/secret.txt", "x");
    let pod = place.spawn(&environment(&hub, &[]));
    hub.give.send(assignment(41, &steps(&["cat of-another/secret.txt"]), &callback)).await.unwrap();
    let ended = pod.end().await;
    assert_eq!(ended.code, Some(1));
    let errors = callback.of("error");
    let message = errors[0]["message"].as_str().unwrap();
    assert!(
        message.contains("what another task left (of-another)") && message.contains("fresh pod"),
        "{message}"
    );
    assert!(callback.of("step_start").is_empty() && errors.len() == 1);
    assert_eq!(place.read("of-another/secret.txt"), "x", "nothing that nobody knows is removed");
    // A checkout that an image brings is said to be one; so is active mode's.
    let pod = place.spawn(&environment(&hub, &[("LEGWORK_WORKSPACE_PREPARED", "1"), ("LEGWORK_TASKS", "1")]));
    hub.give.send(assignment(42, &steps(&["cat of-another/secret.txt"]), &callback)).await.unwrap();
    callback.until("the end", |events| events.iter().any(|e| e["type"] == "done")).await;
    drop(pod);
    let active = Callback::start().await;
    let ended = place.run(&steps(&["cat of-another/secret.txt"]), &active, &[]).await;
    assert_eq!(ended.code, Some(0));
}

/// The machine's keys for clouds and hosts reached a model's shell; so did the runner's own,
/// where `/proc` is open to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_machine_reach_nobody() {
    let (place, callback) = (Place::new(), Callback::start().await);
    let env = [
        ("AWS_SECRET_ACCESS_KEY", "aws-secret"),
        ("GITHUB_TOKEN", "github-secret"),
        ("OPENAI_API_KEY", "openai-secret"),
        ("ANTHROPIC_API_KEY", "anthropic-secret"),
        ("DATABASE_URL", "postgres://u:database-secret@h/d"),
        ("SSH_AUTH_SOCK", "/agent-secret"),
        ("LEGWORK_ENV_PASS", "MINE,NPM_*"),
        ("MINE", "passed-1"),
        ("NPM_CONFIG_CACHE", "passed-2"),
        ("TZ", "UTC"),
        ("https_proxy", "http://proxy.example"),
    ];
    let pod =
        place.active(&steps(&["env; echo asked; while [ ! -e go ]; do sleep 0.05; done"]), &callback, &env);
    callback.until("the environment", |events| events.iter().any(|e| e["message"] == "asked")).await;
    let environ = std::fs::read(format!("/proc/{}/environ", pod.pid())).unwrap();
    place.write("go", "");
    let log = pod.end().await;
    assert_eq!(log.code, Some(0));
    let lines = said(&callback).join("\n");
    for secret in
        ["aws-", "github-", "openai-", "anthropic-", "database-", "agent-"].map(|s| format!("{s}secret"))
    {
        assert!(!lines.contains(&secret), "{secret} in {lines}");
        assert!(!String::from_utf8_lossy(&environ).contains(&secret), "{secret} in the runner's /proc");
    }
    for passed in
        ["MINE=passed-1", "NPM_CONFIG_CACHE=passed-2", "TZ=UTC", "https_proxy=http://proxy.example", "HOME="]
    {
        assert!(lines.contains(passed), "{passed} not in {lines}");
    }
}

/// A task that came without what it is about was never answered, and waited for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_config_is_told_so() {
    let (hub, place, callback) = (Standby::start().await, Place::new(), Callback::start().await);
    let pod = place.spawn(&environment(&hub, &[("LEGWORK_TASKS", "2")]));
    for task in [json!({"id": 41}), json!({"id": 41, "config": null, "agent_token": 7})] {
        hub.give.send(json!({"runner_id": 1, "task": task, "callback_url": callback.url})).await.unwrap();
    }
    assert_eq!(pod.end().await.code, Some(0));
    let errors = callback.of("error");
    assert_eq!(errors.len(), 2);
    for error in errors {
        assert_eq!(error["code"], "invalid_config", "{error}");
    }
}
