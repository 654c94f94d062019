//! One task, from its config to its one terminal event.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use legwork_base::Secret;
use legwork_proto::task::{Body, Code, TaskId, Usage};
use legwork_runner::Requester;
use legwork_yaml::Node;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use crate::abort::{Abort, Why};
use crate::agent::{self, Memory, Persistence};
use crate::clients::{Clients, Use};
use crate::config::{Problems, Task};
use crate::deliver::{Sender, Target};
use crate::events::Events;
use crate::hands::{Hands, command_file};
use crate::inbox::Inbox;
use crate::journal::{Entry, Journal};
use crate::leftovers::Leftovers;
use crate::masks::Masks;
use crate::place::{self, Place};
use crate::secrets;
use crate::settings::Settings;
use crate::source::{Around, PieceStore, Porter};
use crate::workflow;
use legwork_messages::Client;

/// How long events are delivered after the task's end, and after SIGTERM.
const DELIVER: Duration = Duration::from_secs(600);
const DELIVER_STOPPED: Duration = Duration::from_secs(20);
/// Stands where a task's end was told, and how long that is remembered.
const DELIVERED: &str = "delivered";
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What those who work on a task are given.
#[derive(Clone, Copy)]
struct Scene<'a> {
    config: &'a Node,
    order: &'a Order,
    events: &'a Events,
    dir: &'a Path,
    abort: &'a Abort,
    requester: &'a Requester,
    persistence: Option<&'a Persistence>,
}

/// What has come of it.
struct Worked {
    failure: Option<(Code, String)>,
    usage: Option<Usage>,
    output: Option<serde_json::Value>,
}

/// What the tasks of a process share.
#[derive(Debug)]
pub struct Runner {
    pub(crate) settings: Arc<Settings>,
    hands: Hands,
    clients: Clients,
}

/// A task as it was handed over.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its id.
    pub id: TaskId,
    /// Its JSON, or why that is none.
    pub config: Result<Node, String>,
    /// Where its events go.
    pub callback_url: String,
    /// Comes with the task, or is the process's.
    pub agent_token: Option<Secret>,
    /// The same.
    pub persistence_url: Option<String>,
    /// Why it is not run here, whatever it is.
    pub refusal: Option<String>,
    /// What it has of its hub beside.
    pub contact: Contact,
}

/// What a task has of a hub beside the place where its events go.
#[derive(Debug, Clone, Default)]
pub struct Contact {
    /// What people say to it.
    pub inbox: Option<Inbox>,
    /// Where its session is kept.
    pub memory: Option<Memory>,
    /// Secrets that came with it, by name.
    pub secrets: BTreeMap<String, Secret>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it failed, if it did.
    pub failure: Option<(Code, String)>,
    /// What its agent used.
    pub usage: Option<Usage>,
    /// Its terminal event was taken.
    pub delivered: bool,
}

impl Runner {
    /// Opens the workspace. `program` is this program: it starts what tasks run.
    pub fn new(settings: Settings, program: &Path) -> Result<Self, String> {
        let settings = Arc::new(settings);
        settings.make_folders()?;
        let hands = Hands::open(settings.clone(), Place::take(&settings)?, program)?;
        let clients = Clients::new(settings.ca_file.clone());
        Ok(Self { settings, hands, clients })
    }

    /// Runs a task and delivers its events. `abort` ends both in bounded time.
    pub async fn run(&self, order: &Order, abort: &Abort) -> Result<Outcome, String> {
        let dir = self.settings.state.join("tasks").join(folder_name(&order.id, &order.callback_url));
        self.prune();
        std::fs::create_dir_all(&dir).map_err(|e| format!("failed to create {}: {e}", dir.display()))?;
        let _lock = place::lock(&dir)?
            .ok_or_else(|| format!("another process works on this task ({})", dir.display()))?;
        self.forget_other(&dir, order).map_err(|e| format!("failed to use {}: {e}", dir.display()))?;
        let (journal, entries) = Journal::open(&dir.join("task.journal"))
            .map_err(|e| format!("the journal in {} can't be used: {e}", dir.display()))?;
        let ended = entries.into_iter().find_map(|entry| match entry {
            Entry::Ended { event } => Some(event),
            _ => None,
        });
        if let Some(event) = &ended
            && dir.join(DELIVERED).exists()
        {
            tracing::warn!(task_id = %order.id, "the task is over and its end was told: it is not run again");
            return Ok(outcome(event.clone(), true));
        }
        let target = self.target(order)?;
        let (sender, spool) = Sender::open(&dir, target, self.settings.spool_bytes)
            .map_err(|e| format!("the spool of events can't be opened: {e}"))?;
        let mut route = sender.route();
        let sending = tokio::spawn(sender.run());
        let follow = {
            let (abort, mut route) = (abort.clone(), route.clone());
            tokio::spawn(async move {
                if route.wait_for(|r| r.cancel).await.is_ok() {
                    abort.wish(Why::Cancelled);
                }
            })
        };
        let masks = self.masks(order);
        let events = Events::to_spool(spool.clone(), order.id.clone(), masks);
        let terminal = match ended {
            // Only the telling is left to do.
            Some(event) => {
                if !spool.has_terminal() {
                    events.tell(event.clone()).await;
                }
                event
            }
            None => {
                let event = self.terminal(order, &events, &dir, abort).await;
                let mut journal = journal;
                if let Err(error) = journal.add(&Entry::Ended { event: event.clone() }) {
                    tracing::warn!(error = %error, "the end of the task can't be noted");
                }
                events.tell(event.clone()).await;
                event
            }
        };
        follow.abort();
        spool.close();
        let delivered = deliver(sending, abort).await;
        let delivered = delivered && route.borrow_and_update().terminal_delivered;
        if delivered {
            self.forget(&dir);
        } else {
            tracing::error!("the task's last event could not be delivered");
        }
        Ok(outcome(terminal, delivered))
    }

    /// Makes this place ready for a stranger's task; why it can't be, else.
    pub(crate) fn claim(&self, order: &Order) -> Result<(), String> {
        let writes = &self.settings.sandbox_write;
        let open = self.hands.is_open() || writes.iter().any(|dir| std::env::temp_dir().starts_with(dir));
        let left = Leftovers { settings: &self.settings, place: &self.hands.place, open };
        left.claim(&folder_name(&order.id, &order.callback_url))
    }

    /// Runs a task for somebody in this process; no callback.
    pub async fn run_here(
        &self,
        config: &Node,
        memory: Option<Memory>,
        events: Events,
        dir: &Path,
        abort: &Abort,
    ) -> Outcome {
        let order = Order {
            id: TaskId::Text("local".into()),
            config: Ok(config.clone()),
            callback_url: String::new(),
            agent_token: None,
            persistence_url: None,
            refusal: None,
            contact: Contact { memory, ..Contact::default() },
        };
        let terminal = self.terminal(&order, &events, dir, abort).await;
        events.tell(terminal.clone()).await;
        outcome(terminal, true)
    }

    /// Checks a config; all that is wrong.
    pub fn check(settings: &Settings, config: &Node) -> Result<Task, Problems> {
        Task::read(config, settings.rules())
    }

    /// What must not be told by this task's events.
    pub fn masks(&self, order: &Order) -> Arc<Masks> {
        let own = order.agent_token.as_ref().map(|token| token.expose().to_owned());
        // A key in the callback's address is a secret as well.
        let keys = url::Url::parse(&order.callback_url).ok().into_iter().flat_map(|url| {
            url.query_pairs()
                .filter(|(k, v)| k == "key" && v.len() > 7)
                .map(|(_, v)| v.into_owned())
                .collect::<Vec<_>>()
        });
        let masks = Masks::new(self.settings.secrets().into_iter().chain(own).chain(keys));
        // These were set to be secrets, short ones too.
        for secret in order.contact.secrets.values().chain(self.settings.named_secrets.values()) {
            masks.add(secret.expose());
        }
        masks
    }

    /// Works on the task; its terminal event.
    async fn terminal(&self, order: &Order, events: &Events, dir: &Path, abort: &Abort) -> Body {
        let failed = |code: Code, message: String, usage: Option<Usage>| {
            let message = events.masks.apply(message);
            tracing::error!(task_id = %order.id, error = %message, "the task failed");
            Body::Error { message, code: Some(code), usage }
        };
        // What can't be started is said in the protocol's words, and nothing beside them.
        let invalid = |message: String| {
            tracing::error!(task_id = %order.id, "{message}");
            Body::Error { message, code: Some(Code::InvalidConfig), usage: None }
        };
        if let Some(reason) = &order.refusal {
            return failed(Code::Internal, reason.clone(), None);
        }
        let config = match &order.config {
            Ok(config) => config,
            Err(message) => return invalid(message.clone()),
        };
        let task = match Self::check(&self.settings, config) {
            Ok(task) => task,
            Err(problems) => return invalid(format!("Invalid task configuration: {}", problems.first())),
        };
        let around = match Around::read(config) {
            Ok(around) => around,
            Err(problem) => return invalid(format!("Invalid task configuration: {problem}")),
        };
        let asked = match secrets::asked(config) {
            Ok(asked) => asked,
            Err(problem) => return invalid(format!("Invalid task configuration: {problem}")),
        };
        if let Task::Workflow(workflow) = &task
            && let Some(missing) = workflow::missing_actions(workflow, &self.settings).first()
        {
            return invalid(format!("Invalid task configuration: {missing}"));
        }
        let client = match self.client() {
            Ok(client) => client,
            Err(message) => return failed(Code::Internal, message, None),
        };
        let needs_key = match &task {
            Task::Agent(_) => true,
            Task::Workflow(workflow) => workflow.agents().next().is_some(),
        };
        if let Some(lack) = self.settings.api.lacks().filter(|_| needs_key) {
            return invalid(lack.into());
        }
        let persistence = self.persistence(order);
        let requester =
            Requester { door: "task", who: host_of(&order.callback_url), task_id: order.id.to_string() };
        let porter = Porter {
            around: &around,
            settings: &self.settings,
            hands: &self.hands,
            events,
            requester: &requester,
            abort,
            dir,
            secrets: &order.contact.secrets,
            store: self
                .http(&order.callback_url)
                .ok()
                .and_then(|http| PieceStore::beside(&order.callback_url, http)),
        };
        if let Err(reason) = porter.bring().await {
            return failed(Code::Internal, format!("the task's source: {reason}"), None);
        }
        let folder = command_file(&self.settings.scratch(), "secrets", &dir.to_string_lossy());
        let find = |name: &str| self.secret(order, name);
        match secrets::give(&asked, &folder, find) {
            Ok(env) => self.hands.begin_task(env),
            Err(reason) => return failed(Code::InvalidConfig, reason, None),
        }
        tracing::info!(task_id = %order.id, "the task starts");
        let scene = Scene {
            config,
            order,
            events,
            dir,
            abort,
            requester: &requester,
            persistence: persistence.as_ref(),
        };
        let Worked { failure, usage, output } = self.carry_out(&task, client.as_ref(), &scene).await;
        // What an agent did before it failed is worth having, too.
        let taken = if abort.now().is_none() { porter.take().await } else { Ok(()) };
        self.hands.end_task().await;
        let _ = std::fs::remove_dir_all(&folder);
        let is_good = failure.is_none() && taken.is_ok() && abort.now().is_none();
        let taken = if is_good { porter.push().await } else { taken };
        if let Some(persistence) = persistence {
            persistence.finish().await;
        }
        let failure = failure.or(taken.err().map(|e| (Code::Internal, format!("the task's result: {e}"))));
        match failure {
            None => {
                tracing::info!(task_id = %order.id, "the task is done");
                Body::Done { usage, output }
            }
            Some((code, message)) => failed(code, message, usage),
        }
    }

    /// Lets the agent or the workflow work.
    async fn carry_out(&self, task: &Task, client: Option<&Client>, scene: &Scene<'_>) -> Worked {
        let Scene { config, order, events, dir, abort, requester, persistence } = *scene;
        let dir = dir.to_owned();
        let (settings, hands) = (&*self.settings, &self.hands);
        match (task, client) {
            (Task::Agent(agent), Some(client)) => {
                let contact = &order.contact;
                let world = agent::World {
                    contact,
                    settings,
                    hands,
                    events,
                    client,
                    persistence,
                    abort,
                    requester,
                    dir,
                };
                let ending = agent::run(agent, &world).await;
                Worked { failure: ending.failure, usage: Some(ending.usage), output: ending.output }
            }
            (Task::Agent(_), None) => {
                let failure = Some((Code::InvalidConfig, "the model can't be asked".into()));
                Worked { failure, usage: None, output: None }
            }
            (Task::Workflow(workflow), client) => {
                // A session is one agent's.
                let contact = &Contact { memory: None, ..order.contact.clone() };
                let find = |name: &str| self.secret(order, name);
                let world = workflow::World {
                    contact,
                    settings,
                    hands,
                    events,
                    client,
                    persistence,
                    abort,
                    requester,
                    dir,
                    given: workflow::Given::of(config, workflow, &self.hands.root),
                    secret: &find,
                };
                Worked { failure: workflow::run(workflow, &world).await, usage: None, output: None }
            }
        }
    }

    /// Reaches callbacks and the hub.
    pub(crate) fn http(&self, url: &str) -> Result<reqwest::Client, String> {
        self.clients.get(url, Use::Hub)
    }

    /// A secret by its name: the task's own, else the machine's.
    fn secret(&self, order: &Order, name: &str) -> Option<Secret> {
        let own = order.contact.secrets.get(name).cloned();
        own.or_else(|| self.settings.secret(name).map(Secret::new))
    }

    fn client(&self) -> Result<Option<Client>, String> {
        let api = &self.settings.api;
        if api.lacks().is_some() {
            return Ok(None);
        }
        let http = self.clients.get(&api.base_url, Use::Model)?;
        let token_http = match api.provider.token_uri() {
            Some(uri) => self.clients.get(uri, Use::Hub)?,
            None => http.clone(),
        };
        Client::new(http, token_http, api).map(Some)
    }

    fn persistence(&self, order: &Order) -> Option<Persistence> {
        let token = order.agent_token.as_ref().or(self.settings.agent_token.as_ref())?;
        let base = order.persistence_url.as_ref().or(self.settings.persistence_url.as_ref())?;
        Persistence::start(self.http(base).ok()?, base, token.expose())
    }

    fn target(&self, order: &Order) -> Result<Target, String> {
        let mut headers = self.internal_headers()?;
        if let Some(token) = order.agent_token.as_ref().or(self.settings.agent_token.as_ref()) {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| "AGENT_TOKEN has characters that no header can have")?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let http = self.http(&order.callback_url)?;
        Ok(Target { http, url: order.callback_url.clone(), headers, batch: self.settings.batch })
    }

    /// Who we are to the hub.
    pub(crate) fn internal_headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.settings.internal_token {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| "INTERNAL_TOKEN has characters that no header can have")?;
            value.set_sensitive(true);
            headers.insert("x-plue-internal-token", value);
        }
        Ok(headers)
    }

    /// Leaves of a task only that it is over: whoever starts us again after the last moment
    /// must not run it once more.
    fn forget(&self, dir: &Path) {
        let _ = std::fs::write(dir.join(DELIVERED), "");
        let kept = ["lock", "config", "task.journal", DELIVERED];
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| kept.contains(&name)) {
                continue;
            }
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }

    /// Forgets tasks whose end was told long ago.
    fn prune(&self) {
        let tasks = std::fs::read_dir(self.settings.state.join("tasks")).into_iter().flatten().flatten();
        for task in tasks {
            let told = task.path().join(DELIVERED).metadata().and_then(|m| m.modified()).ok();
            if told.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > REMEMBERED) {
                let _ = std::fs::remove_dir_all(task.path());
            }
        }
    }

    /// A task of the same id with another config is another task.
    fn forget_other(&self, dir: &Path, order: &Order) -> std::io::Result<()> {
        let text = match &order.config {
            Ok(config) => config.to_json().to_string(),
            Err(error) => error.clone(),
        };
        let digest: String = Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect();
        let file = dir.join("config");
        match std::fs::read_to_string(&file) {
            Ok(known) if known == digest => return Ok(()),
            Ok(_) => {
                tracing::warn!(task_id = %order.id, "the task has another config than before: it starts anew")
            }
            Err(_) => {}
        }
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == "lock") {
                continue;
            }
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        // What the task before it left in its home is not for this one.
        self.hands.place.clear_home()?;
        std::fs::write(file, digest)
    }
}

fn outcome(terminal: Body, delivered: bool) -> Outcome {
    match terminal {
        Body::Error { message, code, usage } => {
            Outcome { failure: Some((code.unwrap_or(Code::Internal), message)), usage, delivered }
        }
        Body::Done { usage, .. } => Outcome { failure: None, usage, delivered },
        _ => Outcome { failure: None, usage: None, delivered },
    }
}

/// Waits until all is delivered, or the time for it is up.
async fn deliver(sending: tokio::task::JoinHandle<()>, abort: &Abort) -> bool {
    let handle = sending.abort_handle();
    let stopped = async {
        // Whoever cancels a task wants to hear of its end; whoever stops us wants us gone.
        abort.stopped().await;
        tokio::time::sleep(DELIVER_STOPPED).await;
    };
    let all = tokio::select! {
        sent = sending => sent.is_ok(),
        () = tokio::time::sleep(DELIVER) => false,
        () = stopped => false,
    };
    handle.abort();
    all
}

fn host_of(url: &str) -> String {
    url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

/// Ids are others' words: no names of folders.
fn folder_name(id: &TaskId, callback_url: &str) -> String {
    // Without the query: its key may be a new one.
    let address = callback_url.split('?').next().unwrap_or_default();
    let digest = Sha256::digest(format!("{id}\n{address}"));
    digest[..12].iter().map(|b| format!("{b:02x}")).collect()
}
