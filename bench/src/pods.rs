//! The task runner. `PLUE_RUNNER` is the command that starts the original, for its side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_e2e::model::{Answer, Model, NOW, now_us};
use legwork_e2e::pod::{Callback, Place, Standby, agent, model_env, steps};
use serde_json::json;
use tokio::process::{Child, Command};

const RUNS: usize = 30;

/// Starts a runner of either kind.
fn spawn(original: Option<&str>, place: &Place, env: &[(&str, &str)]) -> Child {
    let mut command = match original {
        Some(line) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exec {line}")]);
            command
        }
        None => {
            let mut command = Command::new(legwork_e2e::binary());
            command.arg("task");
            command
        }
    };
    command
        .env("WORKSPACE", &place.workspace)
        .env("LEGWORK_STATE_DIR", place.dir.path().join("state"))
        .env("ANTHROPIC_API_KEY", "sk-bench-0123456789")
        .envs(env.iter().copied())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn peak_rss_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kb = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).map(|l| l.trim().trim_end_matches(" kB"));
    kb.and_then(|kb| kb.parse::<f64>().ok()).unwrap_or_default() * 1024.0 / 1e6
}

pub(crate) async fn pods() {
    let original = std::env::var("PLUE_RUNNER").ok();
    let ours = start(None).await;
    println!("task start to first event: {ours:.1} ms median of {RUNS} (bound 20)");
    match &original {
        Some(line) => {
            let theirs = start(Some(line)).await;
            println!("  the original: {theirs:.1} ms; ratio {:.3}", ours / theirs);
        }
        None => println!("  the original is not at hand (PLUE_RUNNER)"),
    }
    let ours = rss(None).await;
    println!("peak RSS of an agent run: {ours:.1} MB (bound 12)");
    if let Some(line) = &original {
        let theirs = rss(Some(line)).await;
        println!("  the original: {theirs:.1} MB; ratio {:.3}", ours / theirs);
    }
    claim().await;
    slow_callback().await;
    latency().await;
    lines().await;
}

async fn start(original: Option<&str>) -> f64 {
    let place = Place::new();
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let callback = Callback::start().await;
        let config = json!({"type": "workflow", "steps": [{"type": "env", "env": {"A": "1"}}]}).to_string();
        let env = [("TASK_ID", "41"), ("CALLBACK_URL", callback.url.as_str()), ("TASK_CONFIG", &config)];
        let started = Instant::now();
        let mut child = spawn(original, &place, &env);
        callback.until("an event", |events| !events.is_empty()).await;
        times.push(ms(callback.requests()[0].0 - started));
        let _ = child.wait().await;
    }
    median(times)
}

async fn rss(original: Option<&str>) -> f64 {
    let place = Place::new();
    let mut peaks = Vec::new();
    for _ in 0..5 {
        let deltas = vec!["word "; 500];
        let call = Answer::new().text(&deltas).tool("t", "shell", &json!({"command": "echo hi"})).scene();
        let model = Model::start([call, Answer::new().text(&deltas).scene()]).await;
        // The end is answered late: the runner is still there to be looked at.
        let callback = Callback::with(Arc::new(|_, event| {
            (200, None, Duration::from_millis(if event["type"] == "done" { 300 } else { 0 }))
        }))
        .await;
        let config = agent("hi", &["shell"]).to_string();
        let mut env =
            vec![("TASK_ID", "41"), ("CALLBACK_URL", callback.url.as_str()), ("TASK_CONFIG", &config)];
        env.extend(model_env(&model.url));
        let mut child = spawn(original, &place, &env);
        legwork_e2e::until("the end", || async {
            callback.requests().iter().any(|(_, _, e)| e["type"] == "done" || e["type"] == "error")
        })
        .await;
        peaks.push(peak_rss_mb(child.id().unwrap_or_default()));
        let _ = child.wait().await;
    }
    median(peaks)
}

/// From the hub's answer to the first event.
async fn claim() {
    let place = Place::new();
    let hub = Standby::start().await;
    let callback = Callback::start().await;
    let env = [("MODE", "standby"), ("REGISTER_URL", hub.url.as_str()), ("POD_NAME", "bench")];
    let _child = spawn(None, &place, &env);
    let mut times = Vec::new();
    for id in 0..RUNS {
        let config = json!({"type": "workflow", "steps": [{"type": "env"}]});
        let task =
            json!({"runner_id": 1, "task": {"id": id, "config": config}, "callback_url": callback.url});
        let before = callback.requests().len();
        hub.give.send(task).await.unwrap();
        let over = || async { callback.of("done").len() > id };
        legwork_e2e::until("the task's end", over).await;
        let given = hub.given.lock().unwrap().unwrap();
        times.push(ms(callback.requests()[before].0 - given));
    }
    println!("warm claim to first event: {:.1} ms median of {RUNS} (bound 10)", median(times));
}

async fn slow_callback() {
    let deltas = vec!["word "; 2000];
    let scene = || Answer::new().text(&deltas).slow(Duration::from_millis(1)).scene();
    let model = Model::start([scene()]).await;
    let alone = Instant::now();
    let body = json!({"stream": true});
    let request = reqwest::Client::new().post(format!("{}/v1/messages", model.url)).json(&body);
    request.send().await.unwrap().bytes().await.unwrap();
    let alone = alone.elapsed();
    let callback = Callback::with(Arc::new(|_, _| (200, None, Duration::from_millis(100)))).await;
    let place = Place::new();
    let config = agent("hi", &[]).to_string();
    let mut env = vec![("TASK_ID", "41"), ("CALLBACK_URL", callback.url.as_str()), ("TASK_CONFIG", &config)];
    env.extend(model_env(&model.url));
    let started = Instant::now();
    spawn(None, &place, &env).wait().await.unwrap();
    let took = started.elapsed();
    assert_eq!(callback.text(), deltas.concat(), "text was lost");
    let bound = alone.mul_f64(1.1) + Duration::from_secs(1);
    println!(
        "2,000 deltas to a callback that takes 100 ms: {:.2} s in {} events; the stream alone {:.2} s (bound {:.2} s)",
        took.as_secs_f64(),
        callback.of("token").len(),
        alone.as_secs_f64(),
        bound.as_secs_f64()
    );
}

async fn latency() {
    let deltas = vec![NOW; 200];
    let model = Model::start([Answer::new().text(&deltas).slow(Duration::from_millis(10)).scene()]).await;
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = times.clone();
    let callback = Callback::with(Arc::new(move |_, event| {
        if let Some(sent) = event["text"].as_str().and_then(|text| text.parse::<u128>().ok()) {
            #[allow(clippy::cast_precision_loss, reason = "microseconds")]
            seen.lock().unwrap().push((now_us() - sent) as f64 / 1000.0);
        }
        (200, None, Duration::ZERO)
    }))
    .await;
    let place = Place::new();
    let config = agent("hi", &[]).to_string();
    let mut env = vec![("TASK_ID", "41"), ("CALLBACK_URL", callback.url.as_str()), ("TASK_CONFIG", &config)];
    env.extend(model_env(&model.url));
    spawn(None, &place, &env).wait().await.unwrap();
    let times = times.lock().unwrap().clone();
    println!("token in to callback out: {:.2} ms median of {} (bound 2)", median(times.clone()), times.len());
}

async fn lines() {
    const LINES: usize = 50_000;
    let callback = Callback::start().await;
    let place = Place::new();
    let config = steps(&[&format!("seq 1 {LINES}")]).to_string();
    let env = [("TASK_ID", "41"), ("CALLBACK_URL", callback.url.as_str()), ("TASK_CONFIG", &config)];
    let started = Instant::now();
    spawn(None, &place, &env).wait().await.unwrap();
    let took = started.elapsed();
    let told: Vec<String> = callback
        .of("log")
        .iter()
        .filter(|e| e["level"] == "stdout")
        .map(|e| e["message"].as_str().unwrap().to_owned())
        .collect();
    let want: Vec<String> = (1..=LINES).map(|n| n.to_string()).collect();
    assert_eq!(told, want, "lines were lost");
    // The step ends when its last line is taken in.
    let step = callback.of("step_end")[0]["duration_ms"].as_u64().unwrap();
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let (taken, delivered) = (LINES as f64 * 1000.0 / step as f64, LINES as f64 / took.as_secs_f64());
    println!(
        "{LINES} log lines, none lost: taken in at {taken:.0} lines/s (bound 10,000), delivered one by one at {delivered:.0}"
    );
}
