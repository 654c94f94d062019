//! Workflows, by the real binary.

use std::time::{Duration, Instant};

use legwork_e2e::model::{Answer, Model};
use legwork_e2e::pod::{Callback, Place, leftovers, model_env, steps};
use serde_json::{Value, json};

fn messages(callback: &Callback, level: &str) -> Vec<String> {
    let of_level = |e: &&Value| e["level"] == level;
    callback.of("log").iter().filter(of_level).map(|e| e["message"].as_str().unwrap().to_owned()).collect()
}

fn workflow(text: &str) -> Value {
    json!({"type": "workflow", "workflow": text})
}

async fn run(text: &str, env: &[(&str, &str)]) -> (Option<i32>, Callback, Place) {
    let (place, callback) = (Place::new(), Callback::start().await);
    let ended = place.run(&workflow(text), &callback, env).await;
    (ended.code, callback, place)
}

/// Name and state of each step that ended.
fn ends(callback: &Callback) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    callback.of("step_end").iter().map(|e| (text(&e["step_name"]), text(&e["step_state"]))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn the_plain_form_stops_at_the_first_failure() {
    let (place, callback) = (Place::new(), Callback::start().await);
    let task = json!({"type": "workflow", "steps": [
        {"type": "env", "env": {"STAGE": "test", "N": 3}},
        {"name": "unit", "run": "echo $STAGE$N | tr t T; echo bad >&2; printf tail", "working-directory": "."},
        {"name": "one", "run": "echo $X$ANTHROPIC_API_KEY$LEGWORK_STATE_DIR; exit 2", "env": {"X": "x"}},
        {"name": "never", "run": "echo never"},
    ]});
    let ended = place.run(&task, &callback, &[("ANTHROPIC_API_KEY", "sk-secret-123")]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ends(&callback), pairs(&[("step-0", "success"), ("unit", "success"), ("one", "failure")]));
    assert_eq!(messages(&callback, "stdout"), ["TesT3", "tail", "x"]);
    assert_eq!(messages(&callback, "stderr"), ["bad"]);
    let info = messages(&callback, "info");
    assert_eq!(info[..2], ["Set env: N", "Set env: STAGE"]);
    let events = callback.events();
    assert!(
        events[..events.len() - 1].iter().all(|e| e["step_name"].is_string() && e["step_index"].is_u64())
    );
    let last = events.last().unwrap();
    assert_eq!((&last["message"], &last["code"]), (&json!("Step one failed"), &json!("step_failed")));
    assert_eq!(callback.of("step_end")[2]["exit_code"], 2);
    assert!(leftovers(&place).is_empty());
}

#[tokio::test]
async fn jobs_conditions_outputs_and_masks() {
    let (code, callback, place) = run(
        r#"
name: whole
env: {LEVEL: workflow, SHARED: a}
jobs:
  last:
    needs: [build, flaky]
    if: always()
    steps:
      - run: echo "$RESULT $TAG $LEVEL"
        env:
          RESULT: ${{ needs.build.result }}
          TAG: ${{ needs.build.outputs.tag }}
  build:
    env: {LEVEL: job}
    outputs: {tag: "${{ steps.tag.outputs.tag }}"}
    steps:
      - id: tag
        run: |
          echo "tag=v1" >> "$LEGWORK_OUTPUT"
          echo "LATER=from-file" >> "$GITHUB_ENV"
          echo "$LEVEL $SHARED"
      - name: shown ${{ steps.tag.outputs.tag }}
        run: echo "$LATER $LEVEL"
        env: {LEVEL: step}
      - run: |
          echo ::add-mask::hunter2
          echo "the password is hunter2"
      - run: echo skipped
        if: steps.tag.outputs.tag == 'v2'
      - run: "set -o pipefail; false | true"
        shell: bash
        continue-on-error: true
      - run: import sys; print(sys.version_info[0])
        shell: python
  flaky:
    needs: build
    continue-on-error: true
    steps:
      - run: exit 7
      - run: echo not this
      - run: echo cleaning up
        if: failure()
"#,
        &[],
    )
    .await;
    let out = messages(&callback, "stdout");
    assert_eq!(
        out,
        ["job a", "from-file step", "the password is ***", "3", "cleaning up", "success v1 workflow"]
    );
    assert!(messages(&callback, "info").iter().any(|m| m.starts_with("Skipped: echo skipped (if: ")));
    assert!(messages(&callback, "error")[0].contains("exit status 1: continue-on-error"));
    let names: Vec<String> = ends(&callback).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"shown v1".to_owned()), "{names:?}");
    // A failed job that may fail fails nothing, but its step is told as it was.
    assert_eq!(code, Some(0), "{:?}", callback.events().last());
    let scratch = place.dir.path().join("state/task-steps");
    let mut left: Vec<_> = std::fs::read_dir(&scratch).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["home-0", "tmp-0"]);
    assert_eq!(std::fs::read_dir(scratch.join("tmp-0")).unwrap().count(), 0);
}

#[tokio::test]
async fn jobs_run_side_by_side_on_request() {
    let job = |name: &str| format!("  {name}:\n    steps:\n      - run: sleep 1; echo {name}\n");
    let jobs: String = ["a", "b", "c"].iter().map(|name| job(name)).collect();
    let started = Instant::now();
    let (code, callback, _) = run(&format!("parallel: 3\njobs:\n{jobs}"), &[]).await;
    assert_eq!((code, messages(&callback, "stdout").len()), (Some(0), 3));
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn time_limits_end_the_whole_tree() {
    let started = Instant::now();
    let (code, callback, place) = run(
        r#"
jobs:
  a:
    timeout-minutes: 0.06
    steps:
      - run: echo begun; (setsid sh -c 'sleep 5; touch escaped') & sleep 30
        timeout-minutes: 0.02
        continue-on-error: true
      - run: sleep 30
      - run: echo last words
        if: always()
"#,
        &[],
    )
    .await;
    assert_eq!(code, Some(1));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(messages(&callback, "stdout"), ["begun", "last words"]);
    assert_eq!(messages(&callback, "error").iter().filter(|m| *m == "Command timed out").count(), 2);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!place.workspace.join("escaped").exists());
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_its_line() {
    let text = "jobs:\n  a:\n    strategi: {}\n    steps:\n      - uses: docker/login-action@v3\n      - run: echo ${{ envx.X }}\n      - run: x\n        shel: sh\n";
    let (place, callback) = (Place::new(), Callback::start().await);
    let ended = place.run(&workflow(text), &callback, &[]).await;
    assert_eq!((ended.code, callback.events().len()), (Some(1), 1));
    assert!(
        callback.events()[0]["message"].as_str().unwrap().contains("line 3: jobs.a.strategi: not supported")
    );
    place.write("w.yaml", text);
    let lint = legwork_e2e::legwork(place.dir.path())
        .args(["task", "lint", "--json", "ws/w.yaml"])
        .current_dir(place.dir.path())
        .output()
        .await
        .unwrap();
    let problems: Value = serde_json::from_slice(&lint.stdout).unwrap();
    let problems: Vec<&str> =
        problems["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    assert_eq!((lint.status.code(), problems.len()), (Some(2), 4), "{problems:?}");
    for (problem, want) in problems.iter().zip([
        "line 3: jobs.a.strategi: not supported; did you mean 'strategy'?",
        "line 5: jobs.a.steps[0]: 'uses: docker/login-action@v3' needs a container engine",
        "line 6: jobs.a.steps[1].run: there is no context 'envx'; did you mean 'env'?",
        "line 8: jobs.a.steps[2].shel: not supported; did you mean 'shell'?",
    ]) {
        assert!(problem.starts_with(want), "{problem}");
    }
    // A file may be a stranger's: what is told of it drives no terminal.
    place.write("driven.yaml", "jobs: {}\n\"a\\e]0;x\\ab\\u202ec\": 1\n");
    let lint = legwork_e2e::legwork(place.dir.path())
        .args(["task", "lint", "ws/driven.yaml"])
        .current_dir(place.dir.path())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(lint.stdout).unwrap();
    assert!(said.contains(r"\u{1b}]0;x\u{7}b\u{202e}c"), "{said:?}");
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    // The plain form, as the original: it fails when its turn comes.
    let callback = Callback::start().await;
    let task = json!({"type": "workflow", "steps": [{"type": "action", "uses": "x"}]});
    assert_eq!(place.run(&task, &callback, &[]).await.code, Some(1));
    assert_eq!(ends(&callback), pairs(&[("step-0", "failure")]));
}

#[tokio::test]
async fn the_originals_rule_for_commands_can_be_had() {
    let (place, callback) = (Place::new(), Callback::start().await);
    let ended = place
        .run(&steps(&["echo plain words", "echo a; echo b"]), &callback, &[("WORKFLOW_STRICT", "1")])
        .await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(messages(&callback, "stdout"), ["plain words"]);
    assert_eq!(messages(&callback, "error"), ["Command rejected: contains shell metacharacters"]);
}

#[tokio::test]
async fn bombs_and_floods_are_survived() {
    let (place, callback) = (Place::new(), Callback::start().await);
    // Anchors that blow up.
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in ["a", "b", "c", "d", "e", "f", "g", "h"].windows(2).map(|w| (w[0], w[1])) {
        bomb.push_str(&format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(",")));
    }
    let ended = place.run(&workflow(&format!("{bomb}jobs: {{}}\n")), &callback, &[]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(callback.events()[0]["code"], "invalid_config");
    // As many steps as there may be, and one more.
    for (steps, code) in [(10_000, 0), (10_001, 2)] {
        let task = json!({"type": "workflow", "steps": vec![json!({"type": "env"}); steps]});
        place.write("many.json", &task.to_string());
        let mut lint = legwork_e2e::legwork(place.dir.path());
        let lint =
            lint.args(["task", "lint", "ws/many.json"]).current_dir(place.dir.path()).output().await.unwrap();
        let said = String::from_utf8_lossy(&lint.stdout).into_owned();
        assert_eq!((lint.status.code(), said.contains("10000 steps")), (Some(code), code == 2), "{said}");
    }
    // 20 MB of config.
    let callback = Callback::start().await;
    let mut task = steps(&["echo ok"]);
    task["padding"] = "x".repeat(20 << 20).into();
    let mut pod = place.spawn(&[("TASK_ID", "41"), ("CALLBACK_URL", &callback.url)]);
    pod.stdin(&task.to_string()).await;
    assert_eq!(pod.end().await.code, Some(0));
    // Lines without end, and many of them.
    let callback = Callback::start().await;
    let flood = "head -c 100000 /dev/zero | tr '\\0' x; echo; seq 1 2000";
    let ended = place.run(&steps(&[flood]), &callback, &[]).await;
    assert_eq!(ended.code, Some(0));
    let lines = messages(&callback, "stdout");
    assert!(lines.iter().all(|line| line.len() <= 16 * 1024));
    assert_eq!(lines[..7].concat().len(), 100_000);
    let numbers: Vec<String> = (1..=2000).map(|n| n.to_string()).collect();
    assert_eq!(lines[7..], numbers);
}

#[tokio::test]
async fn a_step_can_be_an_agent() {
    let model = Model::start([
        Answer::new().tool("t", "shell", &json!({"command": "echo fixed > f"})).scene(),
        Answer::new().text(&["all ", "good"]).scene(),
    ])
    .await;
    let text = r#"
jobs:
  fix:
    steps:
      - id: fixer
        name: fix it
        agent: {prompt: fix the test, tools: [shell], max_turns: 4}
      - run: echo "$SAID $(cat f)"
        env: {SAID: "${{ steps.fixer.outputs.text }}"}
"#;
    let (code, callback, _) = run(text, &model_env(&model.url)).await;
    assert_eq!(code, Some(0), "{:?}", callback.events().last());
    assert_eq!(messages(&callback, "stdout"), ["all good fixed"]);
    assert!(callback.of("token").iter().all(|e| e["step_name"] == "fix it"));
    assert_eq!(model.requests()[0].json()["messages"][0]["content"], "fix the test");
}

#[tokio::test]
async fn a_checkout_is_gits_or_jjs() {
    let (place, callback) = (Place::new(), Callback::start().await);
    let git = format!(
        "cd '{}' && git init -q -b main && git config user.email a@b && git config user.name n && echo 1 > f && git add f && \
         git commit -qm one && git tag old && echo 2 > f && git commit -qam two",
        place.workspace.display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &git]).status().unwrap().success());
    let task = json!({"type": "workflow", "steps": [
        {"type": "checkout", "ref": "old"},
        {"run": "cat f"},
        {"type": "checkout", "ref": "--orphan"},
    ]});
    let env =
        [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
    let ended = place.run(&task, &callback, &env).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(messages(&callback, "stdout"), ["1"]);
    assert_eq!(messages(&callback, "error"), ["the ref is none"]);
    assert_eq!(messages(&callback, "info")[0], "Checking out: old");
}

/// Real toolchains, on real projects, behind the walls that a pod has.
#[tokio::test]
async fn a_cargo_and_an_npm_project_are_built_and_tested() {
    let (place, callback) = (Place::new(), Callback::start().await);
    place
        .write(
            "rust/Cargo.toml",
            "[package]\nname = \"probe\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
        )
        .write(
            "rust/src/lib.rs",
            "pub fn two() -> u32 { 2 }\n#[test]\nfn is_two() { assert_eq!(two(), 2); }\n",
        )
        .write(
            "node/package.json",
            r#"{"name":"probe","version":"1.0.0","scripts":{"test":"node --test","build":"node build.js"}}"#,
        )
        .write("node/build.js", "require('fs').writeFileSync('built.txt', 'yes');\n")
        .write(
            "node/a.test.js",
            "const t=require('node:test');const a=require('node:assert');t('one',()=>a.equal(1,1));\n",
        );
    let home = std::env::var("HOME").unwrap();
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let rustup = std::env::var("RUSTUP_HOME").unwrap_or_else(|_| format!("{home}/.rustup"));
    let path = format!("{cargo}/bin:{}", std::env::var("PATH").unwrap());
    let text = r#"
jobs:
  rust:
    steps:
      - run: cargo test --offline
        working-directory: rust
  node:
    needs: rust
    steps:
      - run: npm test && npm run build && cat built.txt
        working-directory: node
"#;
    // The harness's HOME is none with toolchains.
    let env = [
        ("PATH", path.as_str()),
        ("HOME", home.as_str()),
        ("RUSTUP_HOME", rustup.as_str()),
        ("LEGWORK_SANDBOX", "landlock"),
    ];
    let ended = place.run(&workflow(text), &callback, &env).await;
    let out = messages(&callback, "stdout").join("\n");
    assert_eq!(ended.code, Some(0), "{out}\n{}", messages(&callback, "stderr").join("\n"));
    assert!(out.contains("1 passed") && out.ends_with("yes"), "{out}");
}

/// With a list of destinations what is run has a network of its own, which holds the list.
#[tokio::test]
async fn a_list_of_destinations_holds() {
    let can = std::process::Command::new("unshare").args(["--net", "--user", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to make namespaces");
        eprintln!("NOT TESTED HERE: egress of tasks (needs namespaces)");
        return;
    }
    let callback = Callback::start().await;
    let reached = callback.url.replace("/41/", "/42/");
    let post = |url: &str| format!("curl -fsS -m 5 -X POST -d '{{}}' {url}");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{}/", other.local_addr().unwrap());
    let commands =
        [post(&reached), format!("! {}", post(&refused)), "test -w . && ! touch /usr/x".to_owned()];
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let egress = callback.address.clone();
    let place = Place::new();
    let ended = place.run(&steps(&commands), &callback, &[("LEGWORK_EGRESS", egress.as_str())]).await;
    assert_eq!(ended.code, Some(0), "{:?}", callback.events());
    assert!(ended.log.contains("\"profile\":\"namespaces\""), "{}", ended.log);
    // A wall that can't hold the list is none to take.
    let callback = Callback::start().await;
    let env = [("LEGWORK_EGRESS", "a:1"), ("LEGWORK_SANDBOX", "landlock")];
    assert_eq!(place.run(&steps(&["true"]), &callback, &env).await.code, Some(1));
    let why = callback.of("step_end")[0]["output"].as_str().unwrap().to_owned();
    assert!(why.contains("LEGWORK_EGRESS"), "{why}");
}

/// The default name of a step is its command line, and that held the password.
#[tokio::test]
async fn no_mask_stands_in_a_name_or_on_the_other_stream() {
    let (code, callback, place) = run(
        r#"
masks: ["hunter2", "-----BEGIN-----\nAAAABBBBCCCC\n-----END-----"]
jobs:
  a:
    outputs: {who: "${{ steps.who.outputs.who }}"}
    steps:
      - run: echo -u admin:hunter2
      - run: 'echo 12345678901234567890123456789012345 hunter2'
      - {name: "login hunter2", run: echo hunter2}
      - id: who
        run: echo "who=hunter2" >> "$LEGWORK_OUTPUT"
      - name: as ${{ steps.who.outputs.who }}
        run: exit 0
      - run: 'echo "::add-mask::pa%25ss%0Aline2"; echo "1:pa%ss"; echo "2:line2"'
      - run: 'echo "  ::add-mask::indented-one"; echo "3:indented-one"'
      - run: 'echo "::add-mask::seen-on-err" >&2; echo "4:seen-on-err"'
      - run: 'X=seen-on; echo "5:$X-out" >&2; echo "::add-mask::$X-out"'
      - run: 'echo "::add-mask::e"; echo "::add-mask::"; echo "6:hello there everyone"'
      - run: 'printf hunter2 | base64; printf "u:hunter2" | base64; echo "7:$(printf hunter2 | base64)"'
      - run: 'head -c 16380 /dev/zero | tr "\0" x; echo hunter2'
  b:
    needs: a
    steps:
      - name: b for ${{ needs.a.outputs.who }}
        run: exit 0; echo hunter2
      - run: exit 1; echo hunter2
"#,
        &[],
    )
    .await;
    assert_eq!(code, Some(1));
    let all =
        callback.requests().iter().map(|(_, _, event)| event.to_string()).collect::<Vec<_>>().join("\n");
    let log = std::fs::read_dir(place.dir.path()).is_ok();
    assert!(log);
    for secret in
        ["hunter", "AAAABBBB", "pa%ss", ":line2", "indented-one", "seen-on-err", "seen-on-out", "aHVudGVy"]
    {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    let names: Vec<String> = ends(&callback).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[0], "echo -u admin:***");
    assert!(names.contains(&"as ***".to_owned()) && names.contains(&"b for ***".to_owned()), "{names:?}");
    let out = messages(&callback, "stdout");
    for line in ["1:***", "2:***", "3:***", "4:***", "6:hello there everyone", "7:***=="] {
        assert!(
            out.iter().any(|l| l == line || line == "7:***==" && l.starts_with("7:***")),
            "{line} not in {out:?}"
        );
    }
    assert!(messages(&callback, "stderr").contains(&"5:***".to_owned()));
    assert!(messages(&callback, "info").iter().any(|m| m.contains("fewer than 4 characters")));
}

/// A report that is always made does not make a failed test good.
#[tokio::test]
async fn nothing_is_deployed_after_a_failed_test() {
    let job =
        |name: &str, more: &str, run: &str| format!("  {name}: {{{more} steps: [{{run: \"{run}\"}}]}}\n");
    let jobs = [
        job("test", "", "exit 1"),
        job("report", "needs: test, if: always(),", "echo report"),
        job("deploy", "needs: report,", "echo DEPLOYED"),
        job("further", "needs: deploy, if: always(),", "echo further"),
        job("last", "needs: further,", "echo DEPLOYED"),
        job("mend", "needs: report, if: failure(),", "echo mend"),
    ];
    for parallel in ["", "parallel: 3\n"] {
        let (code, callback, _) = run(&format!("{parallel}jobs:\n{}", jobs.concat()), &[]).await;
        let mut out = messages(&callback, "stdout");
        out.sort();
        assert_eq!((code, out), (Some(1), vec!["further".to_owned(), "mend".into(), "report".into()]));
    }
    // A job that may fail fails nothing below it.
    let jobs =
        [job("test", "continue-on-error: true,", "exit 1"), job("deploy", "needs: test,", "echo deployed")];
    let (code, callback, _) = run(&format!("jobs:\n{}", jobs.concat()), &[]).await;
    assert_eq!((code, messages(&callback, "stdout")), (Some(0), vec!["deployed".to_owned()]));
}

#[tokio::test]
async fn a_file_that_is_no_workflow_is_not_said_to_be_right() {
    let place = Place::new();
    for (name, text) in [
        ("typo.yaml", "job:\n  a:\n    steps:\n      - run: echo hi\n"),
        ("typo.json", r#"{"mesages":[{"role":"user","content":"x"}],"tool":["shell"]}"#),
        ("junk.yaml", "foo: bar\n"),
        ("empty.yaml", "jobs: {}\n"),
    ] {
        place.write(name, text);
        for (command, code) in [("lint", 2), ("run", 2)] {
            let mut process = legwork_e2e::legwork(place.dir.path());
            let output =
                process.args(["task", command, name]).current_dir(&place.workspace).output().await.unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(output.status.code(), Some(code), "{command} {name}: {said}");
            assert!(!said.contains("nothing is wrong"), "{name}: {said}");
            assert!(name != "typo.json" || said.contains("did you mean 'messages'?"), "{said}");
        }
    }
}
