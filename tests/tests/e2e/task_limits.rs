//! Models and pages that take no end, ask for too much, or lead where nobody may go.

use legwork_e2e::model::{Answer, Model, Scene, axum_serve};
use legwork_e2e::pod::{Callback, Place, agent, model_env};
use serde_json::{Value, json};

/// An API that refuses for longer than there is time: the end says why, and what it has cost.
#[tokio::test]
async fn an_api_that_refuses_for_an_hour_costs_what_the_task_may() {
    let (place, callback) = (Place::new(), Callback::start().await);
    let model = Model::start([
        Answer::new().tool("t1", "shell", &json!({"command": "true"})).usage([100, 20, 0, 0]).scene(),
        Scene::error(429, "rate_limit_error", "Slow down").header("retry-after", "3600"),
    ])
    .await;
    let mut task = agent("go", &["shell"]);
    task["budget"] = json!({"seconds": 2});
    let ended = place.run(&task, &callback, &model_env(&model.url)).await;
    assert_eq!((ended.code, model.requests().len()), (Some(1), 2), "{}", ended.log);
    let error = callback.of("error").remove(0);
    assert_eq!((&error["code"], &error["usage"]["input_tokens"]), (&json!("budget"), &json!(100)), "{error}");
    assert!(ended.log.contains("Slow down"), "the log says what was waited for: {}", ended.log);
    // Without a bound it is tried so often, and then said how often.
    let (place, callback) = (Place::new(), Callback::start().await);
    let model =
        Model::start([Scene::error(429, "rate_limit_error", "Slow down").header("retry-after-ms", "1")])
            .await;
    let [key, url] = model_env(&model.url);
    let env = [key, url, ("LEGWORK_API_RETRIES", "3")];
    let ended = place.run(&agent("go", &[]), &callback, &env).await;
    assert_eq!((ended.code, model.requests().len()), (Some(1), 4));
    let error = callback.of("error").remove(0)["message"].as_str().unwrap().to_owned();
    assert!(error.ends_with("Slow down (after 4 attempts)"), "{error}");
}

/// A model that calls the same tool for ever, calls tools that there are not, or answers with what is
/// no answer.
#[tokio::test]
async fn a_model_that_talks_nonsense_ends_with_its_reason() {
    let call = |name: &str, input: &Value| Answer::new().tool("t1", name, input).scene();
    let garbage = Answer::new().block(json!({"type": "brand_new_block", "data": [1, {"x": null}]}));
    for (scenes, turns, code, said) in [
        (vec![call("shell", &json!({"command": "echo again"}))], 7, "max_turns", "Max turns reached"),
        (vec![call("launch_missiles", &json!({}))], 3, "max_turns", "Max turns reached"),
        (vec![garbage.clone().stop("brand_new_reason").scene()], 3, "stop_reason", "brand_new_reason"),
        (vec![garbage.stop("tool_use").scene()], 3, "stop_reason", "tool_use without a call"),
    ] {
        let (place, callback) = (Place::new(), Callback::start().await);
        let model = Model::start(scenes).await;
        let mut task = agent("go", &["shell"]);
        task["max_turns"] = turns.into();
        let ended = place.run(&task, &callback, &model_env(&model.url)).await;
        let error = callback.of("error").remove(0);
        assert_eq!((ended.code, &error["code"]), (Some(1), &json!(code)), "{said}: {error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        assert!(error["usage"]["output_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{error}");
    }
}

/// Pages come from where commands may go, and from nowhere else, whatever leads there.
#[tokio::test]
async fn pages_come_from_where_commands_may_go() {
    let can = std::process::Command::new("unshare").args(["--net", "--user", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to make namespaces");
        eprintln!("NOT TESTED HERE: pages by egress rules (needs namespaces)");
        return;
    }
    let serve = async |page: &'static str, to: String| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let html = [("content-type", "text/html")];
        let app =
            axum::Router::new().route("/", axum::routing::get(move || async move { (html, page) })).route(
                "/away",
                axum::routing::get(
                    move || async move { (axum::http::StatusCode::FOUND, [("location", to)]) },
                ),
            );
        tokio::spawn(async move { axum_serve(listener, app).await });
        address
    };
    let other = serve("<h1>secret</h1>", String::new()).await;
    let own = serve("<h1>Hello</h1><p>A <b>page</b>.</p>", format!("http://{other}/")).await;
    let fetch = |url: String| ("web_fetch", json!({ "url": url }));
    let calls = [
        fetch(format!("http://{own}/")),
        fetch(format!("http://{other}/")),
        fetch(format!("http://{own}/away")),
        fetch("http://169.254.169.254/latest/meta-data/".into()),
        fetch("file:///etc/passwd".into()),
        (
            "shell",
            json!({"command": format!("curl -fsS -m 5 http://{own}/ && ! curl -fsS -m 5 http://{other}/")}),
        ),
    ];
    let mut scenes: Vec<Scene> = calls
        .iter()
        .enumerate()
        .map(|(i, (name, input))| Answer::new().tool(&format!("t{i}"), name, input).scene())
        .collect();
    scenes.push(Answer::new().text(&["ok"]).scene());
    let run = async |egress: Option<&str>| {
        let (place, callback, model) =
            (Place::new(), Callback::start().await, Model::start(scenes.clone()).await);
        let [key, url] = model_env(&model.url);
        let mut env = vec![key, url];
        env.extend(egress.map(|list| ("LEGWORK_EGRESS", list)));
        let ended = place.run(&agent("go", &["web_fetch", "shell"]), &callback, &env).await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let outputs = callback.of("tool_end");
        outputs.iter().map(|e| e["output"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let outputs = run(Some(&own)).await;
    assert!(outputs[0].contains("# Hello") && outputs[0].contains("**page**"), "{outputs:?}");
    for refused in &outputs[1..5] {
        assert!(refused.starts_with("Error: ") && !refused.contains("secret"), "{outputs:?}");
    }
    assert!(outputs[5].ends_with("EXIT CODE: 0"), "{outputs:?}");
    // Without a list: anywhere but to this machine, and to nobody's metadata.
    let outputs = run(None).await;
    for refused in &outputs[..5] {
        assert!(refused.starts_with("Error: ") && !refused.contains("Hello"), "{outputs:?}");
    }
}
