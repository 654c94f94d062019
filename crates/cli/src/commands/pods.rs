//! `legwork agent`, `legwork workflow` and `legwork pods`: what task runners do for a hub.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_api::{
    CancelPodTask, Client, Event, Fields, GetPodTask, ListPodRunners, ListPodTasks, NewPodTask, NoId,
    NoQuery, PodRegistration, PodStateEvent, PodStatus, PodTaskFilter, PodTaskId, State, SubmitPodTask,
};
use legwork_task::{Memory, Tool};
use serde_json::{Value, json};

use super::checkout::{self, Checkout, Gathered};
use super::follow::{Followed, Show, follow, follow_or_cancel};
use super::lists::{table, visible};
use super::pod_events::Printer;
use super::{steer, task};
use crate::args::HubArgs;
use crate::args::task::{AgentArgs, PodArgs, PodsCommand, WorkflowCommand};
use crate::{client, context, exit};

pub(crate) async fn agent(args: AgentArgs) -> Result<u8> {
    if let Some(command) = args.command {
        return steer::run(command).await;
    }
    // First of all: this program starts once more, without what commands must not see.
    let env = if args.local { Some(task::environment(true)?) } else { None };
    let prompt = args.prompt.unwrap_or_default();
    if prompt.trim().is_empty() {
        anyhow::bail!("the prompt is empty: say what the agent is to do");
    }
    let tools: Vec<&String> = args.tools.iter().filter(|tool| !tool.is_empty()).collect();
    are_known(&tools)?;
    let mut config = json!({
        "type": "agent",
        "messages": [{"role": "user", "content": prompt}],
        "tools": tools,
        "max_turns": args.max_turns,
        "live_usage": true,
    });
    if let Some(model) = &args.model {
        config["model"] = model.as_str().into();
    }
    if let Some(other) = &args.fork {
        config["fork_of"] = other.as_str().into();
    }
    if !args.ask.is_empty() {
        config["ask"] = json!(args.ask);
    }
    if let Some(system) = &args.system {
        config["system_prompt"] = system.as_str().into();
    }
    let checkout = checkout(&args.pod)?;
    if checkout.is_some() {
        config["result"] = json!({"diff": true});
    }
    let Some(env) = env else { return submit(config, &args.pod, checkout.as_ref()).await };
    let session = args.pod.session.clone();
    let memory = session.map(|name| Memory::Folder { folder: context::state_dir().join("sessions"), name });
    let node = legwork_yaml::parse_json(config.to_string().as_bytes()).map_err(anyhow::Error::msg)?;
    let (code, gathered) = task::run_apart(&env, &node, (checkout.as_ref(), memory), args.pod.json).await?;
    bring_home(checkout.as_ref(), &gathered, args.pod.apply, code)
}

/// A misspelt tool is refused here: it would use up a task runner to be told the same.
fn are_known(tools: &[&String]) -> Result<()> {
    let Some(unknown) = tools.iter().find(|tool| Tool::asked_for(tool).is_empty()) else { return Ok(()) };
    let known: Vec<&str> = Tool::asked_for(Tool::WHOLE).into_iter().map(Tool::name).collect();
    anyhow::bail!(
        "there is no tool '{}'; there are {}, web_fetch and agent, and legwork for what a checkout needs",
        visible(unknown),
        known.join(", ")
    )
}

/// The checkout that goes along, if there is one.
fn checkout(args: &PodArgs) -> Result<Option<Checkout>> {
    let found = if args.no_source { None } else { Checkout::around(&std::env::current_dir()?) };
    if args.apply && found.is_none() {
        anyhow::bail!("--apply: this is no git checkout, so there is nothing to apply changes to");
    }
    Ok(found)
}

/// Brings home what came back; the status that stands for all of it.
fn bring_home(checkout: Option<&Checkout>, gathered: &Gathered, apply: bool, code: u8) -> Result<u8> {
    let (Some(checkout), Some(diff)) = (checkout, gathered.diff()) else { return Ok(code) };
    // What a failed agent has changed is kept, and not applied.
    let is_fine = checkout.bring_home(diff, apply && code == 0, &checkout::diffs())?;
    Ok(if is_fine || code != 0 { code } else { exit::ERROR })
}

pub(crate) async fn workflow(command: WorkflowCommand) -> Result<u8> {
    let (file, pod) = match command {
        WorkflowCommand::Run { file, pod } => (file, pod),
        WorkflowCommand::Import { dir, json } => return super::workflow_import::run(&dir, json),
    };
    let mut config = match config_of(&file) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("Error: {}: {problem}", file.display());
            }
            return Ok(exit::CONFIG);
        }
    };
    let checkout = if config.get("source").is_some() { None } else { checkout(&pod)? };
    if checkout.is_some() && pod.apply {
        config["result"] = json!({"diff": true});
    }
    submit(config, &pod, checkout.as_ref()).await
}

/// The task JSON of a file. A workflow goes as text: JSON objects have no order.
fn config_of(file: &Path) -> Result<Value, Vec<String>> {
    let one = |error: String| vec![error];
    let node = task::read_file(file).map_err(one)?;
    let settings = task::settings(None).map_err(|e| one(e.to_string()))?;
    let kind = task::kind(&settings, &node).map_err(|problems| problems.0)?;
    if task::is_workflow_file(&node) {
        return Ok(json!({"type": kind, "workflow": node.to_json_text()}));
    }
    let mut config = node.to_json();
    config["type"] = kind.into();
    Ok(config)
}

async fn submit(mut config: Value, args: &PodArgs, checkout: Option<&Checkout>) -> Result<u8> {
    let client = client::from_args(&args.hub)?;
    if let Some(checkout) = checkout
        && !checkout.send_tree(&client, &mut config).await?
    {
        checkout.send_along(&mut config)?;
    }
    let new = NewPodTask {
        config: Fields(serde_json::value::to_raw_value(&config)?),
        runner: args.runner.clone(),
        session_id: args.session.clone(),
        expires_s: None,
        idempotency_key: None,
    };
    let task = client.send::<SubmitPodTask>(&NoId, &NoQuery {}, &new).await?;
    if args.detach {
        if args.json {
            println!("{}", serde_json::to_string_pretty(&task)?)
        } else {
            println!("{}", task.id)
        }
        return Ok(0);
    }
    if !args.json {
        let runners = client.list::<ListPodRunners>(&NoQuery {}).await?;
        if runners.items.iter().all(|runner| runner.status == PodStatus::Stale) {
            eprintln!(
                "legwork: no task runner is connected; waiting for one (`legwork pool` starts some, Ctrl-C cancels)"
            );
        }
    }
    let mut watcher = Watcher::new(args.json);
    match follow_or_cancel(&client, &task.id, &mut watcher).await? {
        Followed::Left(status) => Ok(status),
        Followed::Over | Followed::Cancelled(_) => {
            let code = watcher.code();
            bring_home(checkout, &watcher.gathered, args.apply, code)
        }
    }
}

struct Watcher {
    printer: Printer,
    end: PodStateEvent,
    gathered: Gathered,
}

impl Show for Watcher {
    fn event(&mut self, event: &Event) -> Result<()> {
        let event = serde_json::from_str(&event.data).unwrap_or_default();
        self.gathered.take(&event);
        self.printer.event(&event);
        Ok(())
    }

    fn end(&mut self, event: &Event) {
        self.printer.finish();
        self.end = event.read().unwrap_or_default();
    }
}

impl Watcher {
    fn new(json: bool) -> Self {
        let printer = Printer::new(json);
        Self { printer, end: PodStateEvent::default(), gathered: Gathered::default() }
    }

    fn code(&self) -> u8 {
        match State::parse(&self.end.state) {
            Some(State::Succeeded) => return 0,
            Some(State::Cancelled) => {
                eprintln!("legwork: cancelled");
                return exit::INTERRUPTED;
            }
            Some(State::Failed) => {
                if self.end.message.contains("API_KEY environment variable") {
                    eprintln!(
                        "legwork: that key is read where the task runner was started, not here: set it there, and start \
                         `legwork pool` anew"
                    );
                }
                return exit::ERROR;
            }
            _ => {}
        }
        eprintln!("legwork: {}: {}", visible(&self.end.state), visible(&self.end.message));
        exit::NOT_RUN
    }
}

pub(crate) async fn run(command: PodsCommand) -> Result<u8> {
    match command {
        PodsCommand::Runners(args) => {
            let items = client::from_args(&args.hub)?.list::<ListPodRunners>(&NoQuery {}).await?.into_items();
            if args.json {
                println!("{}", serde_json::to_string_pretty(&items)?);
                return Ok(0);
            }
            if items.is_empty() {
                println!(
                    "no task runners yet; start some here with `legwork pool`, or elsewhere with REGISTER_URL from `legwork pods url`"
                );
            }
            let rows: Vec<Vec<String>> = items
                .iter()
                .map(|r| {
                    let task = r.task.map_or_else(String::new, |id| id.to_string());
                    [r.name.as_str(), r.status.as_str(), &task, &r.ip, &r.version].map(visible).to_vec()
                })
                .collect();
            table(&["NAME", "STATUS", "TASK", "ADDRESS", "VERSION"], &rows);
        }
        PodsCommand::Tasks { task: Some(id), cancel, json, hub } => {
            let client = client::from_args(&hub)?;
            let id = PodTaskId(id);
            let task = match cancel {
                true => client.ask::<CancelPodTask>(&id).await?,
                false => client.ask::<GetPodTask>(&id).await?,
            };
            let mut shown = serde_json::to_value(&task)?;
            // Its source alone may be megabytes: as JSON it is there for whoever wants it.
            let left_out =
                !json && shown.as_object_mut().and_then(|fields| fields.remove("config")).is_some();
            println!("{}", serde_json::to_string_pretty(&shown)?);
            if left_out {
                eprintln!("legwork: its config is left out; --json shows all");
            }
        }
        PodsCommand::Tasks { task: None, json, hub, .. } => {
            let newest = PodTaskFilter { limit: Some(50), cursor: None };
            let items = client::from_args(&hub)?.list::<ListPodTasks>(&newest).await?.into_items();
            if json {
                println!("{}", serde_json::to_string_pretty(&items)?);
                return Ok(0);
            }
            let rows: Vec<Vec<String>> = items
                .iter()
                .map(|t| {
                    let (id, none) = (t.id.to_string(), String::new());
                    let (runner, error) =
                        (t.runner.as_ref().unwrap_or(&none), t.error.as_ref().unwrap_or(&none));
                    [id.as_str(), t.kind.as_str(), t.state.as_str(), runner, error].map(visible).to_vec()
                })
                .collect();
            table(&["ID", "TYPE", "STATE", "RUNNER", "ERROR"], &rows);
        }
        PodsCommand::Logs { task, json, hub } => {
            let client = client::from_args(&hub)?;
            let mut watcher = Watcher::new(json);
            follow(&client, &PodTaskId(task), &mut watcher, false).await?;
        }
        PodsCommand::Result { task, output, hub } => return results(task, &output, &hub).await,
        PodsCommand::Url { hub } => println!("{}", register_url(&client::from_args(&hub)?).await?),
    }
    Ok(0)
}

/// Writes what a task has brought back.
async fn results(task: u32, folder: &Path, hub: &HubArgs) -> Result<u8> {
    let client = client::from_args(hub)?;
    let mut found = Brought::default();
    follow(&client, &PodTaskId(task), &mut found, false).await?;
    std::fs::create_dir_all(folder)?;
    let mut count = 0;
    for (kind, text) in found.0 {
        let (name, bytes) = match kind.as_str() {
            "diff" => (format!("task-{task}.diff"), text.into_bytes()),
            "archive" | "artifacts" => (format!("task-{task}-{kind}.tar.zst"), STANDARD.decode(text)?),
            "branch" => {
                println!("branch {}", visible(&text));
                count += 1;
                continue;
            }
            _ => continue,
        };
        let path = folder.join(name);
        if kind == "diff"
            && let Err(reason) = std::str::from_utf8(&bytes)
                .map_err(|e| e.to_string())
                .and_then(|diff| checkout::diff::read(diff).map(drop))
        {
            eprintln!("legwork: {} is not one to apply: {reason}", path.display());
        }
        std::fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))?;
        println!("{}", path.display());
        count += 1;
    }
    if count == 0 {
        eprintln!("legwork: the task has brought nothing back");
    }
    Ok(if count == 0 { exit::ERROR } else { 0 })
}

/// Results as they are told, by kind.
#[derive(Default)]
struct Brought(BTreeMap<String, String>);

impl Show for Brought {
    fn event(&mut self, event: &Event) -> Result<()> {
        let event: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if event["type"] == "result"
            && let Some(kind) = event["kind"].as_str()
        {
            let text = self.0.entry(kind.to_owned()).or_default();
            if event["part"] == 0 {
                text.clear();
            }
            text.push_str(event["text"].as_str().unwrap_or_default());
        }
        Ok(())
    }

    fn end(&mut self, _: &Event) {}
}

/// Where task runners register; only an admin may know.
pub(crate) async fn register_url(client: &Client) -> Result<String> {
    let registration = client.list::<PodRegistration>(&NoQuery {}).await?;
    let base = registration.public_url.as_deref().unwrap_or(client.base()).trim_end_matches('/');
    Ok(format!("{base}{}", registration.path))
}
