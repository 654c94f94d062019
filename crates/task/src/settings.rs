//! The environment as settings (docs/protocols/task.md §1 and §13, docs/task.md).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use legwork_base::Secret;
use legwork_messages::{Api, Provider};
use legwork_policy::Policy;
use legwork_runner::process::sandbox::{Limits, Profile};

use crate::config::Rules;

/// What children see of the environment: a machine has keys in it that nobody thinks of.
const PASSED: &[&str] = &["PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TERM"];
/// The same whatever the case of its letters.
const PROXIES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
/// What no child sees, whoever lists it: names, and beginnings of names.
const SECRETS: &[&str] = &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "AGENT_TOKEN", "INTERNAL_TOKEN"];
/// What opens a provider of models: given to a pool's runners, by their stdin.
pub const PROVIDER_SECRETS: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "LEGWORK_GOOGLE_CREDENTIALS",
];
const SECRET_PREFIXES: &[&str] = &["LEGWORK_"];
/// What libraries in the runner's process read by themselves, and anybody may know.
const HARMLESS: &[&str] =
    &["KUBERNETES_SERVICE_HOST", "RUST_BACKTRACE", "RUST_LOG", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR"];
/// What the runner itself reads beside `LEGWORK_…`, and children have no use for.
const OWN: &[&str] = &[
    "ALLOWED_MODELS",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_BEDROCK_BASE_URL",
    "ANTHROPIC_VERTEX_BASE_URL",
    "ANTHROPIC_VERTEX_PROJECT_ID",
    "ASSIGN_PORT",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "CALLBACK_URL",
    "CLOUD_ML_REGION",
    "EVENT_BATCH_MS",
    "GOOGLE_CLOUD_PROJECT",
    "LOG_LEVEL",
    "MODE",
    "PERSISTENCE_URL",
    "POD_IP",
    "POD_NAME",
    "REGISTER_URL",
    "REQUEST_ID",
    "RUSTUP_HOME",
    "TASK_CONFIG",
    "TASK_ID",
    "WORKFLOW_STRICT",
    "WORKSPACE",
    "XDG_STATE_HOME",
];

/// What all tasks of a process share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The root of all files.
    pub workspace: PathBuf,
    /// Where spools, journals and the files of running commands are.
    pub state: PathBuf,
    /// The model.
    pub api: Api,
    /// Models that a task may ask for; `None` where nobody says so.
    pub models: Option<Vec<String>>,
    /// A file of what agents are told beforehand, instead of our own text.
    pub system_prompt: Option<PathBuf>,
    /// Between SIGTERM and SIGKILL where a task is cancelled.
    pub grace: Duration,
    /// How long what cleans up after a cancelled workflow may take.
    pub cleanup: Duration,
    /// Folders of actions, as OWNER/NAME@REVISION.
    pub actions: Option<PathBuf>,
    /// Folders of versions of tools, as TOOL/VERSION.
    pub tools: Option<PathBuf>,
    /// Where caches of workflows are kept, if beyond the task.
    pub cache: Option<PathBuf>,
    /// The original's rule for commands of workflows.
    pub strict: bool,
    /// How long tokens are gathered before they are sent.
    pub batch: Duration,
    /// Sent to the hub as `X-Plue-Internal-Token`.
    pub internal_token: Option<Secret>,
    /// Sent with events, and enables keeping of messages.
    pub agent_token: Option<Secret>,
    /// Where messages are kept.
    pub persistence_url: Option<String>,
    /// The wall around what tasks run; `None` for the strongest that fits.
    pub sandbox: Option<Profile>,
    /// Beside the system's, readable.
    pub sandbox_read: Vec<PathBuf>,
    /// Beside the workspace, writable.
    pub sandbox_write: Vec<PathBuf>,
    /// Whether path sockets may be used.
    pub unix_sockets: bool,
    /// Bounds of everything that is run.
    pub limits: Limits,
    /// Where children may connect to; `None` for anywhere.
    pub egress: Option<Vec<String>>,
    /// What shell lines of a model may do; `None` for anything within the walls.
    pub policy: Option<Policy>,
    /// Most bytes of events that wait for the hub.
    pub spool_bytes: u64,
    /// Certificate authority of hub and API, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What children inherit.
    pub env: BTreeMap<String, String>,
    /// Where rustup keeps toolchains, if that was said.
    pub rustup_home: Option<PathBuf>,
    /// What is in a standby runner's workspace at the start belongs to its one task.
    pub prepared: bool,
    /// Copied into log lines.
    pub request_id: Option<String>,
    /// What opens sources, by name.
    pub named_secrets: BTreeMap<String, Secret>,
}

/// What the process is to do.
#[derive(Debug, Clone)]
pub enum Mode {
    /// One task, given at the start.
    Active {
        /// Its id.
        task_id: String,
        /// Where its events go.
        callback_url: String,
        /// The task, unless it comes by stdin.
        config: Option<String>,
    },
    /// Tasks that a hub assigns.
    Standby(Standby),
}

/// How a standby runner finds its hub.
#[derive(Debug, Clone)]
pub struct Standby {
    /// The address that is asked for tasks.
    pub register_url: String,
    /// The runner's name.
    pub pod_name: String,
    /// Its address.
    pub pod_ip: String,
    /// Listens here for the word that there is a task.
    pub assign_port: Option<u16>,
    /// Ends after so many tasks.
    pub tasks: Option<u64>,
}

/// Variables by name; empty ones count as unset.
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Takes all that is text.
    pub fn new(all: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let all = all.into_iter();
        Self(all.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// Adds variables; they win.
    pub fn add(&mut self, more: BTreeMap<String, String>) {
        self.0.extend(more);
    }

    /// A variable that is set to something.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        let value = self.get(name)?;
        Some(value.split(',').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect())
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T, what: &str) -> Result<T, String> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name}: '{text}' is no {what}")),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        match self.get(name) {
            None | Some("0" | "false" | "no" | "off") => Ok(false),
            Some("1" | "true" | "yes" | "on") => Ok(true),
            Some(other) => Err(format!("{name}: '{other}' is neither 1 nor 0")),
        }
    }

    fn paths(&self, name: &str) -> Result<Vec<PathBuf>, String> {
        let paths = self.get(name).map(std::env::split_paths).into_iter().flatten();
        let paths: Vec<PathBuf> = paths.filter(|p| !p.as_os_str().is_empty()).collect();
        match paths.iter().find(|p| !p.is_absolute()) {
            Some(path) => Err(format!("{name}: '{}' is no absolute path", path.display())),
            None => Ok(paths),
        }
    }

    /// What children see: a short list, and what the operator adds by `LEGWORK_ENV_PASS`.
    fn for_children(&self) -> BTreeMap<String, String> {
        let more = self.list("LEGWORK_ENV_PASS").unwrap_or_default();
        let passes = |name: &str| is_passed(name, &more);
        let mut env: BTreeMap<String, String> =
            self.0.iter().filter(|(name, _)| passes(name)).map(|(k, v)| (k.clone(), v.clone())).collect();
        env.entry("PATH".into())
            .or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        env
    }

    fn named_secrets(&self) -> BTreeMap<String, Secret> {
        let named = self.0.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(crate::source::SECRET)?;
            (!value.is_empty()).then(|| (name.to_owned(), Secret::new(value.clone())))
        });
        named.collect()
    }

    /// What only the runner itself may know, in this environment: the rest of it is what
    /// children see anyway.
    pub fn private(&self) -> BTreeMap<String, String> {
        let children = self.for_children();
        let is_private = |name: &String| !children.contains_key(name) && !HARMLESS.contains(&name.as_str());
        self.0.iter().filter(|(name, _)| is_private(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Whom a runner with this environment asks for messages, and for what opens that.
    pub fn reached(&self) -> Result<Vec<String>, String> {
        let (provider, base) = Provider::read(&|name| self.get(name))?;
        Ok(provider.token_uri().map(str::to_owned).into_iter().chain([base]).collect())
    }

    /// What a runner on this machine needs of this environment, and nothing else of it.
    pub fn for_runner(&self) -> BTreeMap<String, String> {
        let mut env = self.for_children();
        let needed = |name: &str| OWN.contains(&name) || name.starts_with("LEGWORK_");
        env.extend(self.0.iter().filter(|(name, _)| needed(name)).map(|(k, v)| (k.clone(), v.clone())));
        env
    }
}

/// Whether children see a variable. `more` are further names; one that ends in `*` stands for
/// all that begin so.
fn is_passed(name: &str, more: &[String]) -> bool {
    if SECRETS.contains(&name) || SECRET_PREFIXES.iter().any(|p| name.starts_with(p)) {
        return false;
    }
    let listed = |entry: &String| match entry.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => entry == name,
    };
    PASSED.contains(&name)
        || name.starts_with("LC_")
        || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
        || more.iter().any(listed)
}

impl Settings {
    /// Reads what all tasks share. `policy` reads a file of rules.
    pub fn read(
        env: &Environment,
        policy: impl FnOnce(&str) -> Result<Policy, String>,
    ) -> Result<Self, String> {
        let sandbox = match env.get("LEGWORK_SANDBOX") {
            None | Some("auto") => None,
            Some("off") => Some(Profile::Off),
            Some("landlock") => Some(Profile::Landlock),
            Some("namespaces") => Some(Profile::Namespaces),
            Some("gvisor") => Some(Profile::Gvisor),
            Some(other) => {
                return Err(format!(
                    "LEGWORK_SANDBOX: '{other}' is none of auto, off, landlock, namespaces, gvisor"
                ));
            }
        };
        let limits = Limits {
            memory: match env.number("LEGWORK_MAX_MEMORY_BYTES", 0, "number of bytes")? {
                0 => None,
                bytes => Some(bytes),
            },
            processes: match env.number("LEGWORK_MAX_PROCESSES", 0, "number of processes")? {
                0 => Limits::default().processes,
                processes => Some(processes),
            },
            ..Limits::default()
        };
        let (provider, base_url) = Provider::read(&|name| env.get(name))?;
        let secret = |name: &str| env.get(name).map(|value| Secret::new(value.to_owned()));
        Ok(Self {
            workspace: env.get("WORKSPACE").unwrap_or("/workspace").into(),
            state: state_folder(env)?,
            api: Api {
                provider,
                base_url,
                key: secret("ANTHROPIC_API_KEY"),
                bearer: secret("ANTHROPIC_AUTH_TOKEN"),
                retries: env.number("LEGWORK_API_RETRIES", 8, "number of attempts")?,
                idle: Duration::from_secs(env.number("LEGWORK_API_IDLE_S", 120, "number of seconds")?),
            },
            models: env.list("ALLOWED_MODELS").filter(|models| !models.is_empty()),
            system_prompt: env.get("LEGWORK_SYSTEM_PROMPT").map(PathBuf::from),
            grace: Duration::from_secs(env.number("LEGWORK_GRACE_S", 10, "number of seconds")?),
            cleanup: Duration::from_secs(env.number("LEGWORK_CLEANUP_S", 60, "number of seconds")?),
            actions: env.get("LEGWORK_ACTIONS_DIR").map(PathBuf::from),
            tools: env.get("LEGWORK_TOOLS_DIR").map(PathBuf::from),
            cache: env.get("LEGWORK_CACHE_DIR").map(PathBuf::from),
            strict: env.flag("WORKFLOW_STRICT")?,
            batch: Duration::from_millis(env.number("EVENT_BATCH_MS", 0, "number of milliseconds")?),
            internal_token: secret("INTERNAL_TOKEN"),
            agent_token: secret("AGENT_TOKEN"),
            persistence_url: env.get("PERSISTENCE_URL").map(str::to_owned),
            sandbox,
            sandbox_read: env.paths("LEGWORK_SANDBOX_READ")?,
            sandbox_write: env.paths("LEGWORK_SANDBOX_WRITE")?,
            unix_sockets: env.flag("LEGWORK_SANDBOX_UNIX_SOCKETS")?,
            limits,
            egress: env.list("LEGWORK_EGRESS"),
            policy: env.get("LEGWORK_POLICY").map(policy).transpose()?,
            spool_bytes: env.number("LEGWORK_SPOOL_BYTES", 1 << 30, "number of bytes")?,
            ca_file: env.get("LEGWORK_CA_FILE").map(PathBuf::from),
            env: env.for_children(),
            rustup_home: env.get("RUSTUP_HOME").map(PathBuf::from),
            prepared: env.flag("LEGWORK_WORKSPACE_PREPARED")?,
            request_id: env.get("REQUEST_ID").map(str::to_owned),
            named_secrets: env.named_secrets(),
        })
    }

    /// Makes the runner's folders, which are nobody else's: what stands in journals and spools
    /// is the task's own, and in /tmp anybody can be first.
    pub(crate) fn make_folders(&self) -> Result<(), String> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
        for dir in [self.state.clone(), self.scratch()] {
            if is_within(&dir, &self.workspace) {
                return Err(format!(
                    "{} is in the workspace {}, where tasks could change it; set LEGWORK_STATE_DIR",
                    dir.display(),
                    self.workspace.display()
                ));
            }
            let failed = |e: std::io::Error| format!("failed to create {}: {e}", dir.display());
            if let Some(above) = dir.parent() {
                std::fs::create_dir_all(above).map_err(failed)?;
            }
            match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            let meta = dir.symlink_metadata().map_err(failed)?;
            if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
                return Err(format!("{} is somebody else's; set LEGWORK_STATE_DIR", dir.display()));
            }
            if meta.mode() & 0o077 != 0 {
                std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Where steps leave their outputs: beside the state, which they must not see.
    pub(crate) fn scratch(&self) -> PathBuf {
        let mut path = self.state.clone().into_os_string();
        path.push("-steps");
        path.into()
    }

    /// What tasks are checked against.
    pub fn rules(&self) -> Rules<'_> {
        Rules { models: self.models.as_deref(), provider: &self.api.provider }
    }

    /// A secret by its name.
    pub(crate) fn secret(&self, name: &str) -> Option<String> {
        self.named_secrets.get(name).map(|secret| secret.expose().to_owned())
    }

    /// What must never stand in an event or a log line.
    pub fn secrets(&self) -> Vec<String> {
        [&self.api.key, &self.api.bearer, &self.internal_token, &self.agent_token]
            .into_iter()
            .flatten()
            .chain(self.api.provider.secrets())
            .map(|secret| secret.expose().to_owned())
            .collect()
    }
}

impl Mode {
    /// Reads it; the errors are the protocol's (§1).
    pub fn read(env: &Environment) -> Result<Self, String> {
        let needed = |name: &str, tail: &str| {
            env.get(name)
                .map(str::to_owned)
                .ok_or_else(|| format!("{name} environment variable is required{tail}"))
        };
        if env.get("MODE") == Some("standby") {
            let named = |name: &str| env.get(name).unwrap_or("unknown").to_owned();
            return Ok(Self::Standby(Standby {
                register_url: needed("REGISTER_URL", " for standby mode")?,
                pod_name: named("POD_NAME"),
                pod_ip: named("POD_IP"),
                assign_port: match env.number("ASSIGN_PORT", 0u16, "port")? {
                    0 => None,
                    port => Some(port),
                },
                tasks: match env.number("LEGWORK_TASKS", 0, "number of tasks")? {
                    0 => None,
                    tasks => Some(tasks),
                },
            }));
        }
        Ok(Self::Active {
            task_id: needed("TASK_ID", "")?,
            callback_url: needed("CALLBACK_URL", "")?,
            config: env.get("TASK_CONFIG").map(str::to_owned),
        })
    }
}

/// Never in the workspace: what a task can write must not steer its runner.
fn state_folder(env: &Environment) -> Result<PathBuf, String> {
    if let Some(folder) = env.get("LEGWORK_STATE_DIR") {
        let folder = PathBuf::from(folder);
        if !folder.is_absolute() {
            return Err(format!(
                "LEGWORK_STATE_DIR: '{}' is no absolute path: where it is would depend on where this was started, which \
                 is often the workspace",
                folder.display()
            ));
        }
        return Ok(folder.join("task"));
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let home = env.get("XDG_STATE_HOME").map(PathBuf::from).filter(absolute).or_else(|| {
        env.get("HOME").filter(|home| *home != "/").map(|home| PathBuf::from(home).join(".local/state"))
    });
    let usable = home.filter(absolute).map(|home| home.join("legwork/task")).filter(|dir| {
        let workspace = env.get("WORKSPACE").unwrap_or("/workspace");
        !dir.starts_with(workspace) && std::fs::create_dir_all(dir).is_ok() && is_writable(dir)
    });
    // A pod's root is read-only, and its user has no home: what it has is /tmp.
    Ok(usable.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("legwork-task-{}", rustix::process::geteuid().as_raw()))
    }))
}

/// Whether a path, which need not be there, is really within a folder.
fn is_within(path: &std::path::Path, folder: &std::path::Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return path.starts_with(folder) };
    let real = path.ancestors().find_map(|above| above.canonicalize().ok());
    real.is_some_and(|real| real.starts_with(&folder))
}

fn is_writable(dir: &std::path::Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())))
    }

    #[test]
    fn what_is_missing_is_named_in_the_protocols_words() {
        for (pairs, error) in [
            (&[][..], "TASK_ID environment variable is required"),
            (&[("TASK_ID", "1")], "CALLBACK_URL environment variable is required"),
            (&[("MODE", "standby")], "REGISTER_URL environment variable is required for standby mode"),
            (&[("MODE", "Standby"), ("TASK_ID", "")], "TASK_ID environment variable is required"),
        ] {
            assert_eq!(Mode::read(&env(pairs)).expect_err("missing"), error);
        }
    }

    #[test]
    fn keys_of_the_machine_reach_no_model_s_shell() {
        let env = env(&[
            ("ANTHROPIC_API_KEY", "k"),
            ("AGENT_TOKEN", "a"),
            ("LEGWORK_X", "x"),
            ("INTERNAL_TOKEN", "i"),
            ("CALLBACK_URL", "http://x/?key=s"),
            ("AWS_SECRET_ACCESS_KEY", "k"),
            ("GITHUB_TOKEN", "k"),
            ("OPENAI_API_KEY", "k"),
            ("SSH_AUTH_SOCK", "/s"),
            ("CI", "1"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
            ("TERM", "xterm"),
            ("HOME", "/h"),
            ("https_proxy", "http://p"),
            ("NO_PROXY", "x"),
            ("NPM_TOKEN", "n"),
            ("NPM_CONFIG_CACHE", "c"),
            ("LEGWORK_ENV_PASS", "CI, NPM_*, LEGWORK_X, AGENT_TOKEN"),
        ]);
        let names: Vec<String> = env.for_children().into_keys().collect();
        let want = [
            "CI",
            "HOME",
            "LANG",
            "LC_ALL",
            "NO_PROXY",
            "NPM_CONFIG_CACHE",
            "NPM_TOKEN",
            "PATH",
            "TERM",
            "TZ",
            "https_proxy",
        ];
        assert_eq!(names, want);
        let private = env.private();
        assert!(private.contains_key("AWS_SECRET_ACCESS_KEY") && private.contains_key("ANTHROPIC_API_KEY"));
        assert!(!private.contains_key("CI") && !private.contains_key("HOME"));
        let runner = env.for_runner();
        assert!(runner.contains_key("CALLBACK_URL") && !runner.contains_key("GITHUB_TOKEN"));
    }

    #[test]
    fn the_runner_s_folder_is_never_in_the_workspace() {
        let workspace = tempfile::tempdir().expect("dir");
        let ws = workspace.path().to_str().expect("text");
        for dir in ["state", "./state", "../x"] {
            let read = Settings::read(&env(&[("LEGWORK_STATE_DIR", dir)]), |_| Ok(Policy::deny_all()));
            assert!(read.is_err_and(|e| e.contains("LEGWORK_STATE_DIR") && e.contains("absolute")), "{dir}");
        }
        let link = tempfile::tempdir().expect("dir");
        let link = link.path().join("link");
        std::os::unix::fs::symlink(ws, &link).expect("link");
        for dir in [format!("{ws}/state"), format!("{}/state", link.display()), ws.to_owned()] {
            let settings = Settings::read(&env(&[("LEGWORK_STATE_DIR", &dir), ("WORKSPACE", ws)]), |_| {
                Ok(Policy::deny_all())
            });
            let made = settings.and_then(|s| s.make_folders());
            assert!(made.is_err_and(|e| e.contains("in the workspace")), "{dir}");
            assert_eq!(std::fs::read_dir(ws).expect("dir").count(), 0, "{dir}");
        }
        // Where nobody says so it is elsewhere.
        for pairs in
            [&[("HOME", ws), ("WORKSPACE", ws)][..], &[("XDG_STATE_HOME", "state"), ("WORKSPACE", ws)]]
        {
            let settings = Settings::read(&env(pairs), |_| Ok(Policy::deny_all())).expect("settings");
            assert!(settings.state.is_absolute() && !settings.state.starts_with(ws), "{:?}", settings.state);
        }
    }

    #[test]
    fn folders_are_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let mut settings = Settings::read(&env(&[]), |_| Ok(Policy::deny_all())).expect("settings");
        settings.state = dir.path().join("a/state");
        std::fs::create_dir_all(&settings.state).expect("dir");
        settings.make_folders().expect("made");
        for path in [settings.state.clone(), settings.scratch()] {
            assert_eq!(path.metadata().expect("meta").permissions().mode() & 0o777, 0o700);
        }
        std::fs::remove_dir(settings.scratch()).expect("remove");
        std::os::unix::fs::symlink("/etc", settings.scratch()).expect("link");
        assert!(settings.make_folders().is_err_and(|e| e.contains("somebody else's")));
    }

    #[test]
    fn a_bad_setting_is_named() {
        for (name, value) in
            [("LEGWORK_SANDBOX", "x"), ("EVENT_BATCH_MS", "soon"), ("WORKFLOW_STRICT", "maybe")]
        {
            let error = Settings::read(&env(&[(name, value)]), |_| Ok(Policy::deny_all()));
            assert!(error.expect_err("bad").contains(name));
        }
    }
}
