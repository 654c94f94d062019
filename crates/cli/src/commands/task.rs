//! `legwork task`: the program of a pod, and `task run` and `task lint` for people.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use legwork_dialout::config::{Source, rules_of};
use legwork_policy::Policy;
use legwork_proto::task::{Event, TaskId};
use legwork_task::{
    Abort, Contact, Environment, Events, MAX_CONFIG, Memory, Mode, Order, Problems, Runner, Settings, Task,
    Why, log, missing_actions, workflow_of_file,
};
use legwork_yaml::Node;
use serde_json::json;
use tokio::sync::mpsc;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::task::{TaskArgs, TaskCommand};
use crate::commands::checkout::{Checkout, Gathered};
use crate::commands::lists::visible;
use crate::commands::pod_events::Printer;
use crate::exit;

pub(crate) async fn run(args: TaskArgs) -> Result<u8> {
    match args.command {
        None => pod().await,
        Some(TaskCommand::Run { file, workspace, json }) => run_here(&file, workspace, json).await,
        Some(TaskCommand::Lint { file, json }) => lint(&file, json),
    }
}

/// What starts a task's commands: the link, not its target, so that it stays good when the
/// program is replaced.
fn program() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// The rules for shell lines of models, and for what runs in terminals.
pub(crate) fn policy(path: &str) -> Result<Policy, String> {
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("LEGWORK_POLICY: failed to read {path}: {e}"))?;
    super::serve::check_mode(Path::new(path), &text).map_err(|e| format!("LEGWORK_POLICY: {e}"))?;
    let source = Source { path: path.into(), text, original: false };
    let bash = rules_of(&source).map(|rules| rules.bash).map_err(|e| format!("LEGWORK_POLICY: {e}"))?;
    if bash.rules().is_empty() {
        return Err(format!(
            "LEGWORK_POLICY: {path} has no rules for bash: nothing could ever run (permission.bash, or permission.include)"
        ));
    }
    Ok(bash)
}

/// The program of a pod. What goes wrong is told in its log, as the protocol has it.
pub(crate) async fn pod() -> Result<u8> {
    legwork_process::hide_from_commands();
    let env = environment(true)?;
    let text = |name: &str| env.get(name).map(str::to_owned);
    let level = log::level(env.get("LOG_LEVEL"));
    let loud = ["hyper", "hyper_util", "reqwest", "rustls", "rmcp"];
    let filter = loud
        .iter()
        .fold(Targets::new().with_default(level), |filter, target| filter.with_target(*target, Level::WARN));
    let lines = log::Lines::new(text("TASK_ID"), text("REQUEST_ID"));
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    let failed = |error: String| {
        tracing::error!("{error}");
        Ok(exit::ERROR)
    };
    let mode = match Mode::read(&env) {
        Ok(mode) => mode,
        Err(error) => return failed(error),
    };
    let settings = match Settings::read(&env, policy) {
        Ok(settings) => settings,
        Err(error) => return failed(error),
    };
    let runner = match Runner::new(settings, program()) {
        Ok(runner) => Arc::new(runner),
        Err(error) => return failed(error),
    };
    let abort = Abort::default();
    let stopping = stop_by_signal(abort.clone());
    let code = match mode {
        Mode::Standby(standby) => match runner.stand_by(&standby, &abort).await {
            Ok(()) => 0,
            Err(error) => return failed(error),
        },
        Mode::Active { task_id, callback_url, config } => {
            let config = match config {
                Some(text) => legwork_yaml::parse_json(text.as_bytes())
                    .map_err(|cause| format!("Invalid JSON in TASK_CONFIG: {cause}")),
                None => match env.get(STDIN) {
                    Some(text) => parse_config(text.as_bytes()),
                    None => read_stdin().await,
                }
                .map_err(|cause| format!("Invalid JSON from stdin: {cause}")),
            };
            let order = Order {
                id: TaskId::Text(task_id),
                config,
                callback_url,
                agent_token: None,
                persistence_url: None,
                refusal: None,
                contact: Contact::default(),
            };
            match runner.run(&order, &abort).await {
                Ok(outcome) if outcome.failure.is_none() && outcome.delivered => 0,
                Ok(_) => exit::ERROR,
                Err(error) => return failed(error),
            }
        }
    };
    stopping.abort();
    Ok(code)
}

/// The first signal ends the task; the second one us.
fn stop_by_signal(abort: Abort) -> tokio::task::AbortHandle {
    let wait = async move {
        if super::serve::terminated().await.is_ok() {
            tracing::info!("told to stop");
            abort.wish(Why::Stopped);
        }
        if let Ok(code) = super::serve::terminated().await {
            std::process::exit(i32::from(code));
        }
    };
    tokio::spawn(wait).abort_handle()
}

async fn read_stdin() -> Result<Node, String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut text = Vec::new();
        let most = MAX_CONFIG as u64 + 1;
        std::io::stdin().take(most).read_to_end(&mut text).map_err(|e| e.to_string())?;
        Ok::<_, String>(text)
    });
    parse_config(&read.await.map_err(|e| e.to_string())??)
}

fn parse_config(text: &[u8]) -> Result<Node, String> {
    if text.len() > MAX_CONFIG {
        return Err(format!("more than {MAX_CONFIG} bytes"));
    }
    legwork_yaml::parse_json(text)
}

/// Reads a file as the task it is: JSON, or YAML; a workflow's own file counts as the task.
pub(crate) fn read_file(file: &Path) -> Result<Node, String> {
    let text = match file.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().take(MAX_CONFIG as u64).read_to_string(&mut text).map_err(|e| e.to_string())?;
            text
        }
        _ => std::fs::read_to_string(file).map_err(|e| format!("failed to read {}: {e}", file.display()))?,
    };
    let is_json = text.trim_start().starts_with('{');
    let parsed = if is_json { legwork_yaml::parse_json(text.as_bytes()) } else { legwork_yaml::parse(&text) };
    parsed.map_err(|e| format!("{}: {e}", file.display()))
}

/// Whether a file is a workflow's own, rather than a task with one.
pub(crate) fn is_workflow_file(node: &Node) -> bool {
    node.get("jobs").is_some() && node.get("type").is_none()
}

/// Checks what a person has written. A key that nobody knows is ignored where a server wrote
/// it; of a person it is a slip, and the task would be another than they meant.
fn check(settings: &Settings, node: &Node) -> Result<(), Problems> {
    let mut found = super::task_slips::find(node);
    let read = if is_workflow_file(node) {
        workflow_of_file(node, settings.rules()).map_err(Problems).and_then(|workflow| {
            let missing = missing_actions(&workflow, settings);
            let told: Vec<String> = missing.iter().map(ToString::to_string).collect();
            if told.is_empty() { Ok(()) } else { Err(Problems(told)) }
        })
    } else {
        Runner::check(settings, node).map(|_| ())
    };
    // Both may have seen the same.
    let problems = read.err().map(|p| p.0).unwrap_or_default();
    let is_said = |problem: &String| {
        found
            .iter()
            .any(|slip| problem.split(": ").next() == slip.split(": ").next() && slip.starts_with("line "))
    };
    let more: Vec<String> = problems.into_iter().filter(|problem| !is_said(problem)).collect();
    found.extend(more);
    if found.is_empty() { Ok(()) } else { Err(Problems(found)) }
}

/// This process's environment. What children must not see is no longer in it when this
/// returns: whoever may read `/proc` of it, as everybody may in gVisor, finds nothing there.
/// For that the program starts itself once more, and is told the rest by its stdin;
/// `stdin_is_free` says that nobody else needs that.
pub(crate) fn environment(stdin_is_free: bool) -> Result<Environment> {
    let mut env = Environment::new(std::env::vars_os());
    if env.get(SECRETS) == Some("stdin") {
        // A pool tells them here as well: what is in an environment is kept in a file.
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        env.add(serde_json::from_str(&line).context("LEGWORK_SECRETS: no JSON of variables on stdin")?);
        // What it was read from is closed: it could be read once more.
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        return Ok(env);
    }
    let mut private = env.private();
    if !stdin_is_free || private.is_empty() {
        return Ok(env);
    }
    let waits_for_config = env.get("TASK_ID").is_some() && env.get("TASK_CONFIG").is_none();
    if waits_for_config && env.get("MODE") != Some("standby") {
        let mut text = Vec::new();
        std::io::stdin().take(MAX_CONFIG as u64 + 1).read_to_end(&mut text)?;
        private.insert(STDIN.into(), String::from_utf8_lossy(&text).into_owned());
    }
    let told = serde_json::to_string(&private)?;
    if let Err(error) = start_again(&format!("{told}\n"), private.keys()) {
        tracing::warn!(error = %error, "the environment can't be cleared of what only this process may know");
        env.add(private);
    }
    Ok(env)
}

/// What was on stdin before that was used for something else.
const STDIN: &str = "LEGWORK_STDIN";
/// Where the rest of the environment comes from.
const SECRETS: &str = "LEGWORK_SECRETS";

/// Becomes this program once more, without some variables and with a text as its stdin;
/// returns only if that fails.
#[expect(clippy::disallowed_methods, reason = "it becomes this program once more, and starts none beside")]
fn start_again<'a>(stdin: &str, without: impl Iterator<Item = &'a String>) -> std::io::Result<()> {
    use std::io::{Seek, Write};
    use std::os::unix::process::CommandExt;
    let memory = rustix::fs::memfd_create("legwork", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut memory = std::fs::File::from(memory);
    memory.write_all(stdin.as_bytes())?;
    memory.rewind()?;
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0(arguments.next().unwrap_or_default()).args(arguments).stdin(memory).env(SECRETS, "stdin");
    for name in without {
        command.env_remove(name);
    }
    Err(command.exec())
}

pub(crate) fn settings(workspace: Option<PathBuf>) -> Result<Settings> {
    settings_of(&Environment::new(std::env::vars_os()), workspace)
}

fn settings_of(env: &Environment, workspace: Option<PathBuf>) -> Result<Settings> {
    let mut settings = Settings::read(env, policy).map_err(anyhow::Error::msg)?;
    if let Some(workspace) = workspace {
        settings.workspace = workspace;
    } else if env.get("WORKSPACE").is_none() {
        settings.workspace = ".".into();
    }
    let path = &settings.workspace;
    settings.workspace =
        path.canonicalize().with_context(|| format!("the workspace {} can't be used", path.display()))?;
    Ok(settings)
}

fn lint(file: &Path, json: bool) -> Result<u8> {
    let settings = settings(None)?;
    let found = match read_file(file) {
        Err(error) => vec![error],
        Ok(node) => check(&settings, &node).err().map(|p| p.0).unwrap_or_default(),
    };
    if json {
        println!("{}", json!({ "problems": found }));
    } else if found.is_empty() {
        println!("{}: nothing is wrong with it", file.display());
    } else {
        for problem in &found {
            // It quotes the file, and that may be a stranger's.
            println!("{}: {}", file.display(), visible(problem));
        }
    }
    Ok(if found.is_empty() { 0 } else { exit::CONFIG })
}

async fn run_here(file: &Path, workspace: Option<PathBuf>, json: bool) -> Result<u8> {
    crate::logging::start_quietly();
    legwork_process::hide_from_commands();
    let settings = settings_of(&environment(file.to_str() != Some("-"))?, workspace)?;
    let node = match read_file(file) {
        Ok(node) => node,
        Err(error) => {
            eprintln!("Error: {}", visible(&error));
            return Ok(exit::CONFIG);
        }
    };
    if let Err(problems) = check(&settings, &node) {
        for problem in &problems.0 {
            eprintln!("Error: {}: {}", file.display(), visible(problem));
        }
        return Ok(exit::CONFIG);
    }
    let node = if is_workflow_file(&node) { as_task(node) } else { node };
    run_with(settings, &node, None, json).await.map(|(code, _)| code)
}

/// Runs a task in an empty workspace of its own, which its source fills.
pub(crate) async fn run_apart(
    env: &Environment,
    node: &Node,
    (checkout, memory): (Option<&Checkout>, Option<Memory>),
    json: bool,
) -> Result<(u8, Gathered)> {
    crate::logging::start_quietly();
    legwork_process::hide_from_commands();
    let apart = tempfile::Builder::new().prefix("legwork-work-").tempdir()?;
    if let Some(checkout) = checkout {
        checkout.copy_to(apart.path())?;
    }
    let settings = settings_of(env, Some(apart.path().to_owned()))?;
    run_with(settings, node, memory, json).await
}

/// Runs a task in this process, and shows what happens.
async fn run_with(
    mut settings: Settings,
    node: &Node,
    memory: Option<Memory>,
    json: bool,
) -> Result<(u8, Gathered)> {
    let state = tempfile::Builder::new().prefix("legwork-task-").tempdir()?;
    settings.state = state.path().join("state");
    std::fs::create_dir_all(&settings.state)?;
    let runner = Runner::new(settings, program()).map_err(anyhow::Error::msg)?;
    let order = Order {
        id: TaskId::Text("local".into()),
        config: Ok(node.clone()),
        callback_url: String::new(),
        agent_token: None,
        persistence_url: None,
        refusal: None,
        contact: Contact::default(),
    };
    let masks = runner.masks(&order);
    let (sender, mut events) = mpsc::channel::<Event>(256);
    let told = Events::to_channel(sender, order.id.clone(), masks);
    let abort = Abort::default();
    let printing = tokio::spawn(async move {
        let (mut printer, mut gathered) = (Printer::new(json), Gathered::default());
        while let Some(event) = events.recv().await {
            let event = serde_json::to_value(&event).unwrap_or_default();
            gathered.take(&event);
            printer.event(&event);
        }
        printer.finish();
        gathered
    });
    let interrupted = stop_by_signal(abort.clone());
    let outcome = runner.run_here(node, memory, told, &state.path().join("state"), &abort).await;
    interrupted.abort();
    let gathered = printing.await.unwrap_or_default();
    let code = match (outcome.failure, abort.now()) {
        (None, _) => 0,
        (Some(_), Some(Why::Stopped)) => exit::INTERRUPTED,
        (Some(_), _) => exit::ERROR,
    };
    Ok((code, gathered))
}

/// A workflow's own file as the task that holds it.
pub(crate) fn as_task(node: Node) -> Node {
    use legwork_yaml::{Entry, Value};
    let text = |text: &str| Node { line: 0, value: Value::Text(text.into()) };
    let entry = |key: &str, node| Entry { key: key.into(), line: 0, node };
    let entries = vec![entry("type", text("workflow")), entry("workflow", node)];
    Node { line: 0, value: Value::Map(entries) }
}

/// The kind of a task in a file.
pub(crate) fn kind(settings: &Settings, node: &Node) -> Result<&'static str, Problems> {
    check(settings, node)?;
    if is_workflow_file(node) {
        return Ok("workflow");
    }
    Runner::check(settings, node).map(|task| match task {
        Task::Agent(_) => "agent",
        Task::Workflow(_) => "workflow",
    })
}
