//! What the tools do: tasks of the hub, under the caller's token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_api::{ApprovalState, Count, NewTask, Select, shown};
use legwork_store::{Approval, ApprovalFilter, Run, State, Task};
use serde_json::{Map, Value, json};

use super::text::{MOST, bounded, fits};
use super::tools::{ALL, Tool};
use super::{Failed, NO_METHOD, confirm};
use crate::api::{Caller, Problem};
use crate::engine::{DecideError, Hub, Said};
use crate::events::Kind;
use crate::fleet::{Named, Runner};

/// How long a file operation may take before it is given up.
const FILES: Duration = Duration::from_secs(30);
const WAIT_S: u64 = 20;
const MAX_WAIT_S: u64 = 120;
/// Machines, files, lines of one answer.
const MANY: usize = 500;
/// Frames of events that are read at a time.
const FRAMES: usize = 64;

/// A call of a tool that its caller may use.
pub(super) struct Call {
    hub: Arc<Hub>,
    caller: Caller,
    /// The client can ask the person who sits at it.
    elicits: bool,
    tool: &'static Tool,
    args: Map<String, Value>,
    /// What the person said, and what we gave along with the question.
    answered: Option<(Value, String)>,
    task: Arc<Mutex<Option<String>>>,
}

/// A call from aside.
pub(super) struct Watched {
    hub: Arc<Hub>,
    task: Arc<Mutex<Option<String>>>,
}

impl Watched {
    /// How far it is, in words.
    pub(super) fn words(&self) -> String {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match task {
            None => "working".into(),
            Some(id) => {
                let len = self.hub.follow(&id).map_or(0, |progress| progress.borrow().len);
                format!("{id} goes on; {len} bytes of events so far")
            }
        }
    }
}

/// What a tool answers: a text, and the same for programs; or why not.
type Answer = Result<(String, Value), String>;

impl From<Problem> for String {
    fn from(problem: Problem) -> Self {
        problem.detail().to_owned()
    }
}

fn stored(error: legwork_store::StoreError) -> String {
    Problem::from(error).into()
}

/// Ends a task that nobody waits for any more.
struct Ends(Option<(Arc<Hub>, String)>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some((hub, id)) = self.0.take() {
            tokio::spawn(async move {
                let _ = hub.cancel(&id).await;
            });
        }
    }
}

impl Call {
    pub(super) fn new(
        hub: Arc<Hub>,
        caller: Caller,
        elicits: bool,
        params: &Map<String, Value>,
    ) -> Result<Self, Failed> {
        let name = params.get("name").and_then(Value::as_str).unwrap_or_default();
        let tool = ALL.iter().find(|tool| tool.name == name && caller.0.role.reaches(tool.role));
        let Some(tool) = tool else { return Err(Failed::params(format!("Unknown tool: {name}"))) };
        let args = match params.get("arguments") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(args)) => args.clone(),
            Some(_) => return Err(Failed::new(StatusCode::OK, NO_METHOD - 1, "arguments must be an object")),
        };
        let state = params.get("requestState").and_then(Value::as_str).map(str::to_owned);
        let answered = params.get("inputResponses").cloned().zip(state);
        Ok(Self { hub, caller, elicits, tool, args, answered, task: Arc::default() })
    }

    /// Whether it may take so long that progress is worth telling.
    pub(super) fn is_long(&self) -> bool {
        matches!(self.tool.name, "run" | "task_status")
    }

    pub(super) fn watched(&self) -> Watched {
        Watched { hub: self.hub.clone(), task: self.task.clone() }
    }

    /// Carries it out. What goes wrong is the tool's answer, so that a model can do better.
    pub(super) async fn act(self) -> Value {
        if let Some(why) = self.tool.wrong(&self.args) {
            return failure(&why);
        }
        let done = match self.tool.name {
            "list_machines" => self.list_machines(),
            "machine_facts" => self.machine_facts(),
            "read_file" => self.read_file().await,
            "write_file" => self.write_file().await,
            "list_files" => self.list_files().await,
            "find_files" => self.find_files().await,
            "search_files" => self.search_files().await,
            "run" => return self.run().await,
            "task_status" => return self.task_status().await,
            "task_output" => self.task_output().await,
            "cancel_task" => self.cancel_task().await,
            "list_approvals" => self.list_approvals().await,
            _ => return self.answer_approval().await,
        };
        match done {
            Ok((text, value)) => success(&text, value),
            Err(why) => failure(&why),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.args.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.args.get(name).and_then(Value::as_u64)
    }

    fn is(&self, name: &str) -> bool {
        self.args.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let all = self.args.get(name).and_then(Value::as_array);
        all.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    fn list_machines(&self) -> Answer {
        let labels = self.texts("labels");
        let (pattern, online) = (self.text("name"), self.is("online"));
        let limit = usize::try_from(self.number("limit").unwrap_or(100)).unwrap_or(MANY).clamp(1, MANY);
        let fleet = self.hub.fleet.lock();
        let mut found: Vec<&Runner> = fleet
            .runners
            .values()
            .filter(|r| labels.iter().all(|label| r.labels.contains(label)))
            .filter(|r| pattern.as_ref().is_none_or(|pattern| fits(pattern, &r.name)))
            .filter(|r| !online || r.link.is_some())
            .collect();
        found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let all = found.len();
        found.truncate(limit);
        let machines: Vec<Value> = found.iter().map(|r| brief(r)).collect();
        let lines: Vec<String> = found
            .iter()
            .map(|r| {
                let status = if r.link.is_some() { "online" } else { "offline" };
                format!("{} ({}) {status} {}", r.name, r.id, r.labels.join(" "))
            })
            .collect();
        let mut text = format!("{all} machines\n{}", lines.join("\n"));
        if all > limit {
            text.push_str(&format!("\n[{} more: narrow it by labels or name]", all - limit));
        }
        Ok((
            bounded(&text, MOST, "narrow it by labels or name"),
            json!({ "machines": machines, "total": all }),
        ))
    }

    fn machine_facts(&self) -> Answer {
        let name = self.text("machine").unwrap_or_default();
        let fleet = self.hub.fleet.lock();
        let Named::One(runner) = fleet.named(&name) else {
            return Err(format!(
                "there is no machine '{name}', or there are several: list_machines shows them"
            ));
        };
        let mut facts = brief(runner);
        facts["version"] = runner.version.as_str().into();
        facts["environment"] = runner.environment.clone().unwrap_or_default();
        facts["metrics"] = runner.metrics.clone().unwrap_or_default();
        facts["open_runs"] = runner.open.len().into();
        facts["last_seen_ms"] = runner.last_seen_ms.into();
        let text = serde_json::to_string_pretty(&facts).unwrap_or_default();
        Ok((bounded(&text, MOST, "the rest is left out"), facts))
    }

    /// Carries out one operation on one machine, and waits for what it gives.
    async fn on_machine(&self, operation: &str, args: Value) -> Result<Value, String> {
        let new = NewTask {
            select: Select { runner: self.text("machine"), online: true, ..Select::default() },
            operation: operation.into(),
            args: args.as_object().cloned(),
            ..NewTask::default()
        };
        let id = self.hub.submit(new, &self.caller.0).await.map_err(Problem::from)?;
        let mut ends = Ends(Some((self.hub.clone(), id.clone())));
        if !self.wait(&id, FILES, None).await {
            return Err(format!("the machine did not answer within {} s", FILES.as_secs()));
        }
        ends.0 = None;
        let task = self.load(&id).await?;
        let run = task.runs.into_iter().next().ok_or("the task has no run")?;
        if run.state != State::Succeeded {
            return Err(why(&run));
        }
        Ok(run.result.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }

    async fn load(&self, id: &str) -> Result<Task, String> {
        let found = self.hub.store.task(id.to_owned()).await.map_err(stored)?;
        found.ok_or_else(|| format!("there is no task '{id}'"))
    }

    /// Waits for a task's end, or until it waits for a person; says whether it is over.
    async fn wait(
        &self,
        id: &str,
        limit: Duration,
        approvals: Option<tokio::sync::broadcast::Receiver<Arc<str>>>,
    ) -> bool {
        let Some(mut progress) = self.hub.follow(id) else { return true };
        let asked = async {
            let Some(mut approvals) = approvals else { return std::future::pending().await };
            while let Ok(changed) = approvals.recv().await {
                let found = self.hub.store.approval(changed.to_string()).await.ok().flatten();
                if found.is_some_and(|a| a.task_id == id && a.state == ApprovalState::Waiting) {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            over = tokio::time::timeout(limit, progress.wait_for(|progress| progress.over)) => over.is_ok(),
            () = asked => false,
        }
    }

    async fn read_file(&self) -> Answer {
        let most = MOST as u64;
        let limit = self.number("limit").unwrap_or(most).clamp(1, most);
        let offset = self.number("offset").unwrap_or(0);
        let path = self.text("path").unwrap_or_default();
        let args = json!({ "path": path, "offset": offset, "limit": limit });
        let result = self.on_machine("read", args).await?;
        let bytes = STANDARD.decode(result["content"].as_str().unwrap_or_default()).unwrap_or_default();
        let total = result["total_size"].as_u64().unwrap_or(0);
        let next = offset + bytes.len() as u64;
        let (text, encoding) = match String::from_utf8(bytes) {
            Ok(text) => (text, "utf-8"),
            // A character may be cut at either end of a range.
            Err(bytes) => (String::from_utf8_lossy(bytes.as_bytes()).into_owned(), "not all of it is UTF-8"),
        };
        let mut shown = text;
        if next < total {
            shown.push_str(&format!("\n[{} of {total} bytes; go on with offset {next}]", next - offset));
        }
        Ok((shown, json!({ "path": path, "total_size": total, "next_offset": next, "encoding": encoding })))
    }

    async fn write_file(&self) -> Answer {
        let content = self.text("content").unwrap_or_default();
        let path = self.text("path").unwrap_or_default();
        self.on_machine("write", json!({ "path": path, "content": STANDARD.encode(&content) })).await?;
        let text = format!("wrote {} bytes to {path}", content.len());
        Ok((text, json!({ "path": path, "bytes": content.len() })))
    }

    async fn list_files(&self) -> Answer {
        let args =
            json!({ "path": self.text("path").unwrap_or_default(), "recursive": self.is("recursive") });
        let result = self.on_machine("list", args).await?;
        let entries = result["entries"].as_array().cloned().unwrap_or_default();
        let line = |entry: &Value| {
            let path = entry["path"].as_str().unwrap_or_default();
            if entry["is_dir"] == true { format!("{path}/") } else { format!("{path} {}", entry["size"]) }
        };
        Ok(listed(&entries, line, "list a folder further down"))
    }

    async fn find_files(&self) -> Answer {
        let result = self.on_machine("glob", json!({ "pattern": self.text("pattern") })).await?;
        let matches = result["matches"].as_array().cloned().unwrap_or_default();
        Ok(listed(&matches, |path| path.as_str().unwrap_or_default().to_owned(), "narrow the pattern"))
    }

    async fn search_files(&self) -> Answer {
        let args = json!({ "pattern": self.text("pattern"), "include": self.texts("include") });
        let result = self.on_machine("grep", args).await?;
        let matches = result["matches"].as_array().cloned().unwrap_or_default();
        let line = |found: &Value| {
            let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
            format!("{}:{}:{}", text("path"), found["line_number"], text("content"))
        };
        Ok(listed(&matches, line, "narrow the pattern, or the files"))
    }

    async fn run(self) -> Value {
        match self.started().await {
            Ok(task) => told(&task),
            Err(why) => failure(&why),
        }
    }

    async fn started(&self) -> Result<Task, String> {
        let labels = self.texts("labels");
        let machine = self.text("machine");
        if machine.is_some() != labels.is_empty() {
            return Err("give either machine or labels".into());
        }
        let count = match self.number("count") {
            None => None,
            Some(0) => Some(Count::all()),
            Some(count) => Some(Count::of(count)),
        };
        let mut args = Map::new();
        args.insert("command".into(), self.text("command").unwrap_or_default().into());
        if let Some(workdir) = self.text("workdir") {
            args.insert("workdir".into(), workdir.into());
        }
        let new = NewTask {
            select: Select { labels, runner: machine, count, online: true },
            operation: "bash".into(),
            args: Some(args),
            timeout_s: self.number("timeout_s").map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
            reason: self.text("reason"),
            ..NewTask::default()
        };
        let approvals = self.hub.approvals.subscribe();
        let id = self.hub.submit(new, &self.caller.0).await.map_err(Problem::from)?;
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.clone());
        // Who goes away before there is an answer does not know that it goes on.
        let mut ends = Ends(Some((self.hub.clone(), id.clone())));
        let wait = self.number("wait_s").unwrap_or(WAIT_S).min(MAX_WAIT_S);
        self.wait(&id, Duration::from_secs(wait), Some(approvals)).await;
        let task = self.load(&id).await;
        ends.0 = None;
        task
    }

    async fn task_status(self) -> Value {
        let id = self.text("task").unwrap_or_default();
        let wait = self.number("wait_s").unwrap_or(0).min(MAX_WAIT_S);
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.clone());
        if wait > 0 {
            self.wait(&id, Duration::from_secs(wait), None).await;
        }
        match self.load(&id).await {
            // What agents are given may hold what only operators see.
            Ok(task) if task.number.is_some() => {
                failure("this task is an agent's or a workflow's; see legwork pods")
            }
            Ok(task) => told(&task),
            Err(why) => failure(&why),
        }
    }

    async fn task_output(&self) -> Answer {
        let task = self.load(&self.text("task").unwrap_or_default()).await?;
        let mut at = self.number("after").unwrap_or(0);
        let names: Vec<&str> = task.runs.iter().map(|run| run.runner_name.as_str()).collect();
        let (mut text, mut over) = (String::new(), false);
        while text.len() < MOST && !over {
            let (logs, id) = (self.hub.logs.clone(), task.id.clone());
            let read = tokio::task::spawn_blocking(move || logs.read(&id, at, FRAMES)).await;
            let frames = match read {
                Ok(Ok(frames)) => frames,
                Ok(Err(error)) => return Err(format!("the output can't be read: {error}")),
                Err(error) => return Err(error.to_string()),
            };
            if frames.is_empty() {
                break;
            }
            for frame in frames {
                if matches!(frame.kind, Kind::Stdout | Kind::Stderr) {
                    if text.len() + frame.payload.len() > MOST && !text.is_empty() {
                        return Ok(output(&text, at, false));
                    }
                    if names.len() > 1 {
                        text.push_str(&format!("[{}] ", names.get(frame.run as usize).unwrap_or(&"?")));
                    }
                    text.push_str(&String::from_utf8_lossy(&frame.payload));
                }
                over |= frame.kind == Kind::End;
                at = frame.end;
            }
        }
        Ok(output(&text, at, over))
    }

    async fn cancel_task(&self) -> Answer {
        let id = self.text("task").unwrap_or_default();
        let task = self.load(&id).await?;
        match task.number {
            Some(number) => self.hub.cancel_pod_task(number).await.map_err(Problem::from)?,
            None => self.hub.cancel(&id).await.map_err(stored)?,
        }
        Ok((format!("{id} is to end; task_status tells when it has"), json!({ "task": id })))
    }

    async fn list_approvals(&self) -> Answer {
        let state = (!self.is("all")).then_some(ApprovalState::Waiting);
        let filter = ApprovalFilter { state, limit: 50, ..ApprovalFilter::default() };
        let found = self.hub.store.approvals(filter).await.map_err(stored)?;
        let lines: Vec<String> = found.iter().map(asked).collect();
        let text = if lines.is_empty() { "nothing waits for a yes".into() } else { lines.join("\n\n") };
        let ids: Vec<&str> = found.iter().map(|a| a.id.as_str()).collect();
        Ok((bounded(&text, MOST, "the rest is left out"), json!({ "approvals": ids })))
    }

    /// A no is a model's as well. A yes is asked of the person at the client.
    async fn answer_approval(self) -> Value {
        let id = self.text("approval").unwrap_or_default();
        let found = match self.hub.store.approval(id.clone()).await {
            Ok(Some(found)) => found,
            Ok(None) => return failure(&format!("there is no approval '{id}'")),
            Err(error) => return failure(&stored(error)),
        };
        let yes = match self.text("answer").as_deref() {
            Some("no") => false,
            Some("yes") if !self.elicits => {
                return failure(
                    "a yes is a person's, and this client can't ask one: have them use the hub's page, or legwork approvals",
                );
            }
            Some("yes") => match &self.answered {
                None => return confirm::ask(&found, &self.caller.0.id),
                Some((said, state)) => match confirm::said(&found, &self.caller.0.id, said, state) {
                    Ok(yes) => yes,
                    Err(why) => return failure(why),
                },
            },
            _ => return failure("the argument 'answer' must be yes or no"),
        };
        let digest = yes.then(|| found.digest.clone());
        let said = Said { yes, note: self.text("note"), digest, ..Said::default() };
        match self.hub.decide(&id, said, &self.caller.0).await {
            Ok(now) => {
                success(&format!("{id} is {}", now.state.as_str()), json!({ "state": now.state.as_str() }))
            }
            Err(DecideError::Own) => {
                failure("who asked for something does not say yes to it: another person must")
            }
            Err(DecideError::Late(now)) => failure(&format!("it is {} already", now.state.as_str())),
            Err(DecideError::Unknown) => failure("there is no such approval any more"),
            Err(DecideError::Invalid { field, reason }) => failure(&format!("{field}: {reason}")),
            Err(DecideError::Store(error)) => failure(&stored(error)),
        }
    }
}

fn brief(runner: &Runner) -> Value {
    json!({
        "name": runner.name, "id": runner.id, "labels": runner.labels, "online": runner.link.is_some(),
        "takes_work": !runner.drained && !runner.revoked,
    })
}

/// What an approval asks, exactly.
pub(super) fn asked(a: &Approval) -> String {
    let reason = a.reason.as_ref().map(|reason| format!("\nbecause: {reason}")).unwrap_or_default();
    format!(
        "{} is {}: {} asks to run on {}, by the rule '{}':\n{}{reason}",
        a.id,
        a.state.as_str(),
        a.asked_by,
        a.runner_name,
        a.rule,
        shown(&a.command)
    )
}

fn listed(found: &[Value], line: impl Fn(&Value) -> String, pointer: &str) -> (String, Value) {
    let lines: Vec<String> = found.iter().take(MANY).map(line).collect();
    let mut text = lines.join("\n");
    if found.len() > MANY {
        text.push_str(&format!("\n[{} more: {pointer}]", found.len() - MANY));
    }
    let text = if text.is_empty() { "nothing found".into() } else { bounded(&text, MOST, pointer) };
    (text, json!({ "total": found.len() }))
}

fn output(text: &str, next: u64, over: bool) -> (String, Value) {
    let rest = if over { "[the end]" } else { "[there may be more: go on after it]" };
    (format!("{text}\n{rest} next={next}"), json!({ "next": next, "over": over }))
}

/// Why a run did not succeed, with what could be asked for instead.
fn why(run: &Run) -> String {
    let mut text = format!("{}: {}", run.runner_name, run.state.as_str());
    if let Some(error) = &run.error {
        text.push_str(&format!(": {error}"));
    }
    if let Some(line) = run.suggestion.as_ref().filter(|line| !text.contains(line.as_str())) {
        text.push_str(&format!("; write instead: {line}"));
    }
    text
}

/// A task in words and for programs; an error if one of its runs is over and did not succeed.
fn told(task: &Task) -> Value {
    let state = legwork_api::overall(task.runs.iter().map(|run| run.state));
    let room = MOST / task.runs.len().clamp(1, 16);
    let pointer = format!("task_output reads all of it, task {}", task.id);
    let mut text = format!("{} is {}", task.id, state.as_str());
    for run in task.runs.iter().take(MANY) {
        text.push_str(&format!("\n{}", why(run)));
        if let Some(code) = run.exit_code {
            text.push_str(&format!(", exit {code}"));
        }
        if run.state == State::Held {
            let id = run.approval.as_deref().unwrap_or_default();
            text.push_str(&format!(
                " for a person's yes ({id}); go on elsewhere, and look again with task_status"
            ));
        }
        let result: Value =
            run.result.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        for (name, stream) in [("", &result["stdout"]), ("stderr:\n", &result["stderr"])] {
            if let Some(stream) = stream.as_str().filter(|stream| !stream.is_empty()) {
                text.push_str(&format!("\n{name}{}", bounded(stream, room, &pointer)));
            }
        }
        // The runner itself shows the beginning of what is long.
        if result["truncated"] == true {
            text.push_str(&format!("\n[cut; {pointer}]"));
        }
    }
    if !state.is_final() && state != State::Held {
        text.push_str(&format!("\nIt goes on: poll with task_status, task {}", task.id));
    }
    let runs: Vec<Value> = task
        .runs
        .iter()
        .take(MANY)
        .map(|run| {
            json!({
                "machine": run.runner_name, "state": run.state.as_str(), "exit_code": run.exit_code, "error": run.error,
                "suggestion": run.suggestion, "approval": run.approval,
            })
        })
        .collect();
    let failed = |run: &Run| run.state.is_final() && run.state != State::Succeeded;
    let text = bounded(&text, 2 * MOST, &pointer);
    let mut answer = success(&text, json!({ "task": task.id, "state": state.as_str(), "runs": runs }));
    answer["isError"] = task.runs.iter().any(failed).into();
    answer
}

fn success(text: &str, value: Value) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "structuredContent": value, "isError": false })
}

fn failure(why: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": why }], "isError": true })
}
