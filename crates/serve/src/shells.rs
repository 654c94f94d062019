//! Starting shells and commands: by the same hands as behind every other door, which judge them,
//! build their walls and keep the audit.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use legwork_base::lock::Lock;
use legwork_executor::{Executor, Io, NotStarted, Process};
use legwork_policy::Policy;
use legwork_process::sandbox::{Abilities, Profile, Settings as Walls, probe};
use legwork_process::{Limits, Spawner};
use legwork_runner::{
    Asked, Audit, AuditError, Command, Config, Destinations, Egress, Here, Keep, MCP_CLIENT, Networks,
    Requester, Rules, Runner, Walled, Wanted, choose,
};
use legwork_workspace::Root;

use crate::settings::Settings;

/// Between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Shells that may be asked for by name.
const SHELLS: &[&str] = &["bash", "zsh", "fish", "sh", "dash", "ksh"];
/// Of the audit.
const KEEP: Keep = Keep { bytes: 256 << 20, age: Duration::from_secs(90 * 24 * 3600) };
/// Servers of one workspace that may run at a time, each with an audit of its own.
const MOST_SERVERS: usize = 64;

/// A command that the server runs by its own word, outside any wall unless one is named.
pub(crate) fn own(what: &str, command: Command) -> Asked {
    Asked { command, requester: requester("", what) }
}

/// Who asks, for the audit: a client by its name, and what the server calls what it asks for.
pub(crate) fn requester(who: &str, id: &str) -> Requester {
    Requester { door: "serve", who: who.to_owned(), task_id: id.to_owned() }
}

/// Why nothing can be run in a workspace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// The workspace can't be opened.
    #[error(transparent)]
    Workspace(#[from] legwork_workspace::Error),
    /// What starts supervisors can't be started itself.
    #[error("cannot start the helper of terminals: {0}")]
    Helper(std::io::Error),
    /// The rules can't be put in force, for the reason given.
    #[error("{0}")]
    Rules(String),
    /// A setting can't be used.
    #[error("LEGWORK_EGRESS: {0}")]
    Egress(String),
    /// There is no place for the record of what is done.
    #[error("the audit can't be kept: {0}; set LEGWORK_STATE_DIR to a writable folder")]
    Audit(NoAudit),
    /// The runner can't be made.
    #[error(transparent)]
    Runner(#[from] std::io::Error),
}

/// Why an audit can't be kept somewhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAudit {
    /// Whoever works there could change it, and it would be stored and watched with the rest.
    #[error("{} lies in the workspace", .0.display())]
    InWorkspace(PathBuf),
    /// The folder can't be used.
    #[error("failed to {what} {}: {source}", .folder.display())]
    Folder {
        /// What was tried.
        what: &'static str,
        /// Which folder.
        folder: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Somebody else could change it.
    #[error("{} belongs to somebody else", .0.display())]
    Foreign(PathBuf),
    /// The file can't be used.
    #[error(transparent)]
    File(#[from] AuditError),
    /// Too many servers have one already.
    #[error("{MOST_SERVERS} servers of this workspace run already")]
    TooMany,
}

/// Why there is no such shell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoShell {
    /// Nobody has asked for one by name, and the usual ones are missing.
    #[error("there is neither /bin/bash nor /bin/sh")]
    None,
    /// It is not one of those that may be asked for.
    #[error("shell must be one of {}", SHELLS.join(", "))]
    Unknown,
    /// It is not there.
    #[error("{0} is not installed here")]
    Missing(String),
}

/// Sockets among the system's readable files, by which a shell without a network would have
/// one. Of all others a shell in namespaces sees only those in its workspace and its own
/// temporary folder, so there it may use sockets by path; Landlock can't tell them apart.
const SYSTEM_SOCKETS: &[&str] =
    &["/run/systemd/resolve/io.systemd.Resolve", "/run/systemd/resolve/io.systemd.Resolve.Monitor"];

/// Starts shells in the workspace.
pub(crate) struct Shells {
    here: Here,
    spawner: Arc<Spawner>,
    /// The environment of everything that is started.
    env: BTreeMap<String, String>,
    abilities: Abilities,
    bounds: legwork_process::sandbox::Limits,
    /// Whether an operator's rules say what may run.
    judges: bool,
    _audit: Lock,
}

impl Shells {
    /// `program` is this program: it starts supervisors. `dir` is a folder of this process's
    /// own.
    pub(crate) async fn open(settings: &Settings, program: &Path, dir: &Path) -> Result<Self, Unavailable> {
        let root = Root::open(Path::new(&settings.workspace))?;
        let spawner = Spawner::start(program).map_err(Unavailable::Helper)?;
        let path = settings.env.get("PATH").cloned().unwrap_or_default();
        let abilities = probe(&path);
        let (audit, lock) = open_audit(settings, root.path()).map_err(Unavailable::Audit)?;
        let mut walled = walled(settings, &abilities, root.path(), dir);
        if settings.policy.is_some() {
            let wanted = Wanted {
                profile: Some(settings.sandbox),
                hide: walled.settings.hide.clone(),
                unix_sockets: walled.settings.unix_sockets,
                limits: settings.bounds.clone(),
                ..Wanted::default()
            };
            let trials = dir.join("trials");
            let chosen = choose(&wanted, &spawner, &settings.env, root.path(), &trials).await;
            walled.gates = chosen.map_err(Unavailable::Rules)?.gates;
        }
        let anything = || Policy::from_pairs([("*", "allow")]).map_err(|e| Unavailable::Rules(e.to_string()));
        let policy = match &settings.policy {
            Some(policy) => policy.clone(),
            None => anything()?,
        };
        let destinations = Destinations::parse(settings.egress.as_deref().unwrap_or_default());
        let destinations = Arc::new(destinations.map_err(|e| Unavailable::Egress(e.to_string()))?);
        let spawner = Arc::new(spawner);
        let runner = Runner::new(Config {
            root,
            rules: Rules { policy, mcp_policy: None, destinations: destinations.clone() },
            walled,
            tmp_dir: dir.join("tmp"),
            egress: Egress::only(destinations),
            mcp_dir: dir.join("mcp"),
            mcp_client: MCP_CLIENT,
            env: settings.env.clone(),
            spawner: spawner.clone(),
            audit,
            max_tasks: settings.max_terminals,
            max_read_bytes: settings.max_file,
            limits: Limits { grace: GRACE, ..Limits::default() },
        });
        Ok(Self {
            here: Here::new(Arc::new(runner?), dir.to_owned()),
            spawner,
            env: settings.env.clone(),
            abilities,
            bounds: settings.bounds.clone(),
            judges: settings.policy.is_some(),
            _audit: lock,
        })
    }

    /// The networks that walls give to what runs.
    pub(crate) fn networks(&self) -> &Arc<Networks> {
        self.here.networks()
    }

    /// The process that starts the others.
    pub(crate) fn helper(&self) -> Option<u32> {
        self.spawner.helper_id()
    }

    /// Whether an operator's rules say what may run.
    pub(crate) fn judges(&self) -> bool {
        self.judges
    }

    /// Waits until the audit is written so far.
    pub(crate) async fn flush_audit(&self) {
        self.here.runner().flush_audit().await;
    }

    /// Whether a wall can be built here: it is not tried out before somebody asks for it.
    fn can_wall(&self, profile: Option<Profile>) -> Result<(), NotStarted> {
        let Some(profile) = profile.filter(|profile| *profile != Profile::Off) else { return Ok(()) };
        if profile == Profile::Landlock
            && let Some(lacks) = self.abilities.landlock_lacks()
        {
            return Err(NotStarted::Failed(format!("sandbox {profile}: {lacks}")));
        }
        let missing = self.abilities.groups.missing(&self.bounds);
        if !missing.is_empty() {
            let text = format!("this machine has no control group for: {}", missing.join(", "));
            return Err(NotStarted::Failed(text));
        }
        Ok(())
    }

    /// Where a program is, by the PATH that shells have.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        let path = self.env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
        legwork_base::programs::find(name, path)?.into_os_string().into_string().ok()
    }

    /// The shell of that name, or the usual one.
    pub(crate) fn shell(&self, name: Option<&str>) -> Result<String, NoShell> {
        let Some(name) = name else {
            let usual = ["/bin/bash", "/bin/sh"].into_iter().find(|path| Path::new(path).exists());
            return usual.map(str::to_owned).ok_or(NoShell::None);
        };
        let plain = Path::new(name).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !SHELLS.contains(&plain) {
            return Err(NoShell::Unknown);
        }
        self.find(plain).ok_or_else(|| NoShell::Missing(plain.to_owned()))
    }

    /// The shells that are installed.
    pub(crate) fn installed(&self) -> Vec<&'static str> {
        SHELLS.iter().copied().filter(|name| self.find(name).is_some()).collect()
    }
}

impl Executor for Shells {
    type Command = Asked;

    fn start(&self, asked: &Asked, io: Io) -> Result<Arc<dyn Process>, NotStarted> {
        self.can_wall(asked.command.walls)?;
        self.here.start(asked, io)
    }
}

/// The walls that terminals may have: those that the operator wants, and those that a client
/// may ask for where there are none.
fn walled(settings: &Settings, abilities: &Abilities, root: &Path, dir: &Path) -> Walled {
    let system = SYSTEM_SOCKETS.iter().map(PathBuf::from).filter(|path| path.exists());
    // What can be written anyway can't be hidden.
    let state = Some(settings.state.clone()).filter(|state| !is_within(state, root));
    let hide: Vec<PathBuf> = system.chain([dir.to_owned()]).chain(state).collect();
    let walls = |profile| Walls {
        profile,
        limits: settings.bounds.clone(),
        landlock_abi: abilities.landlock_abi,
        hide: hide.clone(),
        unix_sockets: profile == Profile::Namespaces || settings.unix_sockets,
        ..Walls::default()
    };
    let others = [Profile::Landlock, Profile::Namespaces].into_iter();
    Walled {
        settings: walls(settings.sandbox),
        others: others.filter(|profile| *profile != settings.sandbox).map(walls).collect(),
        groups: abilities.groups.clone(),
        ..Walled::default()
    }
}

/// Opens the audit of a workspace. A second server of it has another one.
fn open_audit(settings: &Settings, root: &Path) -> Result<(Audit, Lock), NoAudit> {
    let within = is_within(&settings.state, root);
    let opened = match within {
        true => Err(NoAudit::InWorkspace(settings.state.clone())),
        false => audit_below(&settings.state, root),
    };
    match opened {
        Err(reason) if within || !settings.state_is_given => {
            // A pod's root is read-only, and its user has no home: what it has is /tmp.
            let user = rustix::process::geteuid().as_raw();
            let folder = std::env::temp_dir().join(format!("legwork-serve-{user}"));
            let opened = private_folder(&folder).and_then(|()| audit_below(&folder, root));
            if opened.is_ok() {
                tracing::warn!("{reason}: the audit is kept in {}", folder.display());
            }
            opened
        }
        opened => opened,
    }
}

fn audit_below(state: &Path, root: &Path) -> Result<(Audit, Lock), NoAudit> {
    use std::os::unix::ffi::OsStrExt;
    let name = legwork_base::digest::name(root.as_os_str().as_bytes());
    for number in 1..=MOST_SERVERS {
        let folder = match number {
            1 => state.join(format!("workspace-{name}")),
            _ => state.join(format!("workspace-{name}-{number}")),
        };
        private_folder(&folder)?;
        let failed = |source| NoAudit::Folder { what: "lock", folder: folder.clone(), source };
        if let Some(lock) = Lock::take(&folder).map_err(failed)? {
            return Ok((Audit::open(&folder.join("audit.jsonl"), KEEP)?, lock));
        }
    }
    Err(NoAudit::TooMany)
}

/// Whether a path, which need not be there, is really within a folder.
fn is_within(path: &Path, folder: &Path) -> bool {
    let real = path.ancestors().find_map(|above| above.canonicalize().ok());
    real.is_some_and(|real| real.starts_with(folder))
}

/// Makes a folder that is ours alone, or finds it so.
fn private_folder(folder: &Path) -> Result<(), NoAudit> {
    let failed = |source| NoAudit::Folder { what: "create", folder: folder.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let meta = folder.symlink_metadata().map_err(failed)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(NoAudit::Foreign(folder.to_owned()));
    }
    Ok(())
}
