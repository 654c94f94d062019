//! What the runner reaches over the network for a controller: web pages and MCP
//! servers.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use legwork_base::clock::now_ms;
use legwork_base::{ids, programs};
use legwork_mcp::{Launcher, Pool, Server, Stdio, Transport};
use legwork_policy::{Decision, Verdict, is_steering};
use legwork_process::sandbox::Profile;
use legwork_process::{Limits, Progress, Running, Spawner, Spec};

use crate::audit::{Audit, Record};
use crate::fetch::{self, Fetch};
use crate::operation::{Cancel, Denial, Done, Failure};
use crate::redact::redact;
use crate::runner::{Config, Runner, in_place};
use crate::walls::{Under, Walls};

/// An MCP server whose stdin is closed has this long to end, and after SIGTERM as
/// long again.
const MCP_GRACE: Duration = Duration::from_secs(5);

/// Verdicts remembered at a time.
const MAX_VERDICTS: usize = 256;

/// Clients that are made when they are first needed: a runner that fetches nothing
/// does not pay for certificates.
#[derive(Debug)]
pub(crate) struct Network {
    pages: OnceLock<Result<reqwest::Client, String>>,
    mcp: OnceLock<Result<Pool, String>>,
    launcher: Arc<dyn Launcher>,
    servers: Servers,
    verdicts: Mutex<HashMap<Vec<String>, Verdict>>,
}

impl Network {
    pub(crate) fn new(config: &Config, walls: Arc<Walls>) -> io::Result<Self> {
        // What an earlier process left there belongs to servers that are gone.
        match std::fs::remove_dir_all(&config.mcp_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&config.mcp_dir)?,
        }
        let launcher = Supervised {
            spawner: config.spawner.clone(),
            env: config.env.clone(),
            files: config.mcp_dir.clone(),
            workspace: config.root.path().to_owned(),
            walls,
            audit: config.audit.clone(),
            servers: Servers::default(),
            client: config.mcp_client,
        };
        let servers = launcher.servers.clone();
        Ok(Self {
            pages: OnceLock::new(),
            mcp: OnceLock::new(),
            launcher: Arc::new(launcher),
            servers,
            verdicts: Mutex::default(),
        })
    }

    /// The rules have changed.
    pub(crate) fn forget_verdicts(&self) {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Runner {
    pub(crate) async fn fetch(self: &Arc<Self>, fetch: &Fetch, cancel: &Cancel) -> Result<Done, Failure> {
        let egress = &self.config.egress;
        let http =
            self.network.pages.get_or_init(|| fetch::client(egress)).clone().map_err(Failure::Failed)?;
        let page = tokio::select! {
            page = fetch::fetch(&http, egress, fetch) => page.map_err(Failure::Failed)?,
            () = cancel.cancelled() => return Err(Failure::Failed("request failed: context canceled".into())),
        };
        Ok(Done::Fetch { content: self.large("webfetch", page.content).await?, url: page.url })
    }

    pub(crate) async fn mcp_call(
        self: &Arc<Self>,
        server: &Server,
        tool: &str,
        arguments: serde_json::Map<String, serde_json::Value>,
        timeout: Duration,
        cancel: &Cancel,
    ) -> (Result<Done, Failure>, Option<Box<Verdict>>) {
        let (pool, verdict) = match self.mcp_pool(server) {
            Ok(allowed) => allowed,
            Err((failure, verdict)) => return (Err(failure), verdict),
        };
        let answer = tokio::select! {
            answer = pool.call(server, tool, arguments, timeout) => answer.map_err(|e| e.to_string()),
            () = cancel.cancelled() => Err(format!("failed to call tool '{tool}': context canceled")),
        };
        let result = match answer {
            Ok(answer) => self
                .large("mcp", answer.text)
                .await
                .map(|content| Done::McpCall { content, is_error: answer.is_error }),
            Err(cause) => Err(Failure::Failed(self.with_denials(server, cause))),
        };
        (result, verdict)
    }

    pub(crate) async fn mcp_list(
        self: &Arc<Self>,
        server: &Server,
        cancel: &Cancel,
    ) -> (Result<Done, Failure>, Option<Box<Verdict>>) {
        let (pool, verdict) = match self.mcp_pool(server) {
            Ok(allowed) => allowed,
            Err((failure, verdict)) => return (Err(failure), verdict),
        };
        let result = tokio::select! {
            tools = pool.list(server) => {
                tools.map(Done::McpList).map_err(|e| Failure::Failed(self.with_denials(server, e.to_string())))
            }
            () = cancel.cancelled() => Err(Failure::Failed("failed to list tools: context canceled".into())),
        };
        (result, verdict)
    }

    /// Why a server failed, with what it was denied, which may be the reason.
    fn with_denials(&self, server: &Server, cause: String) -> String {
        let denied = self.network.servers.denied(&server.name);
        if denied.is_empty() { cause } else { format!("{cause}; denied at exec: {}", denied.join("; ")) }
    }

    /// The sessions, for a server that may be used.
    #[allow(clippy::type_complexity, reason = "a failure with the verdict that led to it")]
    fn mcp_pool(
        &self,
        server: &Server,
    ) -> Result<(&Pool, Option<Box<Verdict>>), (Failure, Option<Box<Verdict>>)> {
        let verdict = match server.transport() {
            Some(Transport::Stdio) => Some(self.judge_server(server)?),
            Some(Transport::Http) => {
                let url = url::Url::parse(&server.url).map_err(|e| e.to_string());
                let checked = url.and_then(|url| match url.scheme() {
                    "http" | "https" => self.config.egress.check(&url),
                    other => Err(format!("the url's scheme is '{other}', not http or https")),
                });
                checked.map_err(|cause| {
                    let name = &server.name;
                    (Failure::Failed(format!("failed to connect to MCP server '{name}': {cause}")), None)
                })?;
                None
            }
            // The pool has the words for it.
            None => None,
        };
        let pool = self.network.mcp.get_or_init(|| {
            // A redirect would take the server's headers elsewhere.
            let client = self.config.egress.client(10, true).build().map_err(|e| e.to_string())?;
            Ok(Pool::new(client, self.network.launcher.clone()))
        });
        match pool {
            Ok(pool) => Ok((pool, verdict)),
            Err(cause) => Err((Failure::Failed(format!("failed to make an HTTP client: {cause}")), verdict)),
        }
    }

    /// The policy's verdict on a server's line; remembered, as a session is called many
    /// times.
    fn verdict_on(&self, argv: Vec<String>) -> Verdict {
        let mut verdicts = self.network.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = verdicts.get(&argv) {
            return verdict.clone();
        }
        let in_force = self.walls.current();
        let policy = in_force.rules.mcp_policy.as_ref().unwrap_or(&in_force.rules.policy);
        let verdict = policy.judge_argv(&argv);
        if verdicts.len() >= MAX_VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(argv, verdict.clone());
        verdict
    }

    /// A stdio server is a command that a controller wants started (point 27).
    fn judge_server(&self, server: &Server) -> Result<Box<Verdict>, (Failure, Option<Box<Verdict>>)> {
        let verdict = Box::new(self.verdict_on(server.argv()));
        for part in &verdict.parts {
            tracing::debug!(
                command = %crate::redact(&part.command),
                decision = ?part.decision,
                rule = part.rule.as_deref().unwrap_or("-"),
                reason = part.reason.as_deref().unwrap_or("-"),
                "judged an MCP server"
            );
        }
        if verdict.decision != Decision::Allow {
            return Err((Failure::Denied(Denial::of(&verdict)), Some(verdict)));
        }
        if let Some(name) = server.env.keys().find(|name| is_steering(name)) {
            let message = format!(
                "command denied: MCP server '{}' may not be given the variable {name}: it steers what runs",
                server.name
            );
            return Err((Failure::Denied(message.into()), Some(verdict)));
        }
        Ok(verdict)
    }

    /// Closes MCP sessions that nobody has used for long. To be called every minute
    /// or so.
    pub async fn sweep_sessions(&self) {
        if let Some(Ok(pool)) = self.network.mcp.get() {
            pool.sweep().await;
        }
    }

    /// Closes all MCP sessions, so that servers end in their own way.
    pub async fn close_sessions(&self) {
        if let Some(Ok(pool)) = self.network.mcp.get() {
            pool.close().await;
        }
    }
}

/// What the servers that were started last, by their names, were denied.
#[derive(Debug, Clone, Default)]
struct Servers(Arc<Mutex<HashMap<String, Told>>>);

#[derive(Debug)]
enum Told {
    /// It may still run: its file says it.
    In(PathBuf),
    These(Vec<String>),
}

impl Servers {
    fn note(&self, server: &str, denials: Told) {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.len() >= MAX_VERDICTS && !servers.contains_key(server) {
            servers.clear();
        }
        servers.insert(server.to_owned(), denials);
    }

    fn denied(&self, server: &str) -> Vec<String> {
        let servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match servers.get(server) {
            Some(Told::In(file)) => denials_in(file),
            Some(Told::These(denied)) => denied.clone(),
            None => Vec::new(),
        }
    }
}

fn denials_in(file: &Path) -> Vec<String> {
    legwork_process::status(file).map(|status| crate::command::denials(&status)).unwrap_or_default()
}

/// Starts stdio servers, each under a supervisor that ends its whole tree.
#[derive(Debug)]
struct Supervised {
    spawner: Arc<Spawner>,
    env: std::collections::BTreeMap<String, String>,
    files: PathBuf,
    workspace: PathBuf,
    walls: Arc<Walls>,
    audit: Audit,
    servers: Servers,
    client: (&'static str, &'static str),
}

/// A server's process; dropped, it is told to end.
struct Process {
    /// Holds the connection to its supervisor, and serves its door.
    watcher: tokio::task::AbortHandle,
    file: PathBuf,
    walls: Arc<Walls>,
    server: String,
    servers: Servers,
    audit: Audit,
    record: Record,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.watcher.abort();
        self.walls.close_door(&self.file);
        let denied = denials_in(&self.file);
        self.servers.note(&self.server, Told::These(denied.clone()));
        let _ = std::fs::remove_file(&self.file);
        if let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| !denied.is_empty()) {
            let record = Record { denied, finished_ms: now_ms(), ..std::mem::take(&mut self.record) };
            let audit = self.audit.clone();
            runtime.spawn(async move { audit.record(record).await });
        }
    }
}

impl Launcher for Supervised {
    fn launch<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<Stdio, String>> {
        async move {
            let lost = || Err("the server could not be started; see the runner's log".into());
            in_place(|| self.start(server)).unwrap_or_else(lost)
        }
        .boxed()
    }

    fn client(&self) -> (&'static str, &'static str) {
        self.client
    }

    fn root(&self) -> Option<PathBuf> {
        Some(self.workspace.clone())
    }
}

impl Supervised {
    fn start(&self, server: &Server) -> Result<Stdio, String> {
        let mut argv = server.argv();
        let path = self.env.get("PATH").map(String::as_str).unwrap_or_default();
        let program = programs::find(&server.command, path)
            .ok_or_else(|| format!("exec: \"{}\": executable file not found in $PATH", server.command))?;
        // What is not there closes its pipes like one that ends: the reason would be lost.
        if let Err(error) = program.metadata() {
            let cause = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => error.to_string(),
            };
            return Err(format!("fork/exec {}: {cause}", server.command));
        }
        argv[0] = program.to_string_lossy().into_owned();
        let mut env = self.env.clone();
        let valid = |text: &str| !text.contains('\0');
        let given = server
            .env
            .iter()
            .filter(|(name, value)| !name.is_empty() && !name.contains('=') && valid(name) && valid(value));
        env.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        // The name is that of the control group as well.
        let name = format!("{:032x}", ids::unique());
        let file = self.files.join(&name);
        // Where the runner itself is (docs/protocols/dialout.md §9); behind a wall, where it
        // may be.
        let walled = self.walls.profile() != Profile::Off;
        let here = if walled { self.workspace.clone() } else { PathBuf::from(".") };
        let cwd = std::fs::File::open(&here).map_err(|e| e.to_string())?;
        let limits = Limits { grace: MCP_GRACE, ..Limits::default() };
        let mut spec = Spec { argv, env, limits, ..Spec::default() };
        let in_force = self.walls.current();
        let under = (&*in_force, Under::McpServers);
        self.walls.surround(&mut spec, under, (&self.workspace, &here), (None, &name))?;
        let piped = self.spawner.spawn_piped(&file, cwd.as_fd(), spec).map_err(|e| e.to_string())?;
        self.servers.note(&server.name, Told::In(file.clone()));
        Ok(Stdio {
            stdin: Box::new(piped.stdin),
            stdout: Box::new(piped.stdout),
            process: Box::new(Process {
                watcher: self.watch(piped.running, file.clone()),
                file,
                walls: self.walls.clone(),
                server: server.name.clone(),
                servers: self.servers.clone(),
                audit: self.audit.clone(),
                record: Record {
                    operation: "mcp_server".into(),
                    subject: redact(&server.argv().join(" ")),
                    decision: "allow",
                    sandbox: self.walls.profile().name(),
                    gate: in_force.mcp_standing().name(),
                    outcome: "ended",
                    started_ms: now_ms(),
                    ..Record::default()
                },
            }),
        })
    }
}

impl Supervised {
    fn watch(&self, running: Running, file: PathBuf) -> tokio::task::AbortHandle {
        let walls = self.walls.clone();
        let watcher = tokio::spawn(async move {
            loop {
                match running.progress().await {
                    Progress::Door(listener, _) => walls.serve_door(&file, listener),
                    Progress::Output(_) => {}
                    Progress::Ended => break,
                }
            }
            if let Ok(status) = legwork_process::status(&file) {
                for denial in crate::command::denials(&status) {
                    tracing::warn!("an MCP server was denied at exec: {denial}");
                }
            }
        });
        watcher.abort_handle()
    }
}
