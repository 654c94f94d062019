//! Starting shells and commands: by the same hands as behind every other door, which judge them,
//! build their walls and keep the audit.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use legwork_base::lock::Lock;
use legwork_policy::Policy;
use legwork_process::sandbox::{Abilities, Profile, Settings as Walls, probe};
use legwork_process::{Limits, Progress, Running, Size, Spawner, Status};
use legwork_runner::{
    Audit, Command, Config, Destinations, Egress, Keep, MCP_CLIENT, Requester, Rules, Runner, Walled, Wanted,
    choose,
};
use legwork_workspace::Root;

use super::networks::Networks;
use crate::settings::Settings;

/// Between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Shells that may be asked for by name.
const SHELLS: &[&str] = &["bash", "zsh", "fish", "sh", "dash", "ksh"];
/// The size of a terminal that nobody has looked at.
pub(super) const SIZE: Size = Size { cols: 80, rows: 24 };
/// Of the audit.
const KEEP: Keep = Keep { bytes: 256 << 20, age: Duration::from_secs(90 * 24 * 3600) };
/// Servers of one workspace that may run at a time, each with an audit of its own.
const MOST_SERVERS: usize = 64;

/// What to start, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) command: Command,
    pub(crate) requester: Requester,
    /// Of its terminal, if it gets one.
    pub(crate) size: Size,
}

impl Launch {
    /// A command that the server runs by its own word, outside any wall unless one is named.
    pub(crate) fn own(what: &str, command: Command) -> Self {
        Self { command, requester: requester("", what), size: SIZE }
    }
}

/// Who asks, for the audit: a client by its name, and what the server calls what it asks for.
pub(crate) fn requester(who: &str, id: &str) -> Requester {
    Requester { door: "serve", who: who.to_owned(), task_id: id.to_owned() }
}

/// Sockets among the system's readable files, by which a shell without a network would have
/// one. Of all others a shell in namespaces sees only those in its workspace and its own
/// temporary folder, so there it may use sockets by path; Landlock can't tell them apart.
const SYSTEM_SOCKETS: &[&str] =
    &["/run/systemd/resolve/io.systemd.Resolve", "/run/systemd/resolve/io.systemd.Resolve.Monitor"];

/// Starts shells in the workspace.
pub(crate) struct Shells {
    runner: Arc<Runner>,
    spawner: Arc<Spawner>,
    /// The networks that walls give them.
    pub(crate) networks: Arc<Networks>,
    /// The environment of everything that is started.
    env: BTreeMap<String, String>,
    /// Where the files of running commands are.
    dir: PathBuf,
    abilities: Abilities,
    bounds: legwork_process::sandbox::Limits,
    /// Whether an operator's rules say what may run.
    judges: bool,
    count: AtomicU64,
    _audit: Lock,
}

impl Shells {
    /// `program` is this program: it starts supervisors. `dir` is a folder of this process's
    /// own.
    pub(crate) async fn open(settings: &Settings, program: &Path, dir: &Path) -> Result<Self, String> {
        let root = Root::open(Path::new(&settings.workspace)).map_err(|e| e.to_string())?;
        let spawner =
            Spawner::start(program).map_err(|e| format!("cannot start the helper of terminals: {e}"))?;
        let path = settings.env.get("PATH").cloned().unwrap_or_default();
        let abilities = probe(&path);
        let (audit, lock) = open_audit(settings, root.path())?;
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
            walled.gates = choose(&wanted, &spawner, &settings.env, root.path(), &trials).await?.gates;
        }
        let anything = || Policy::from_pairs([("*", "allow")]).map_err(|e| e.to_string());
        let policy = match &settings.policy {
            Some(policy) => policy.clone(),
            None => anything()?,
        };
        let destinations = Destinations::parse(settings.egress.as_deref().unwrap_or_default());
        let destinations = Arc::new(destinations.map_err(|e| format!("LEGWORK_EGRESS: {e}"))?);
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
            runner: Arc::new(runner.map_err(|e| e.to_string())?),
            spawner,
            networks: Arc::default(),
            env: settings.env.clone(),
            dir: dir.to_owned(),
            abilities,
            bounds: settings.bounds.clone(),
            judges: settings.policy.is_some(),
            count: AtomicU64::new(0),
            _audit: lock,
        })
    }

    /// The process that starts the others.
    pub(crate) fn helper(&self) -> Option<u32> {
        self.spawner.helper_id()
    }

    /// Whether an operator's rules say what may run.
    pub(crate) fn judges(&self) -> bool {
        self.judges
    }

    /// Starts a shell or a command in a terminal.
    pub(crate) fn start(
        &self,
        launch: &Launch,
        size: Size,
    ) -> Result<(Running, legwork_process::Terminal), String> {
        self.can_wall(launch.command.walls)?;
        let file = self.file("terminal");
        self.runner
            .start_terminal(&launch.command, &launch.requester, &file, size)
            .map_err(|failure| failure.to_string())
    }

    /// Starts a command without a terminal; its output goes to its file.
    pub(crate) async fn run(&self, launch: &Launch) -> Result<Running, String> {
        self.can_wall(launch.command.walls)?;
        let file = self.file("command");
        let started = self.runner.start(&launch.command, &launch.requester, &file).await;
        started.map_err(|failure| failure.to_string())
    }

    /// Waits until a command has ended, and serves what it needs until then.
    pub(crate) async fn ended(&self, running: &Running) {
        let mut network = None;
        loop {
            match running.progress().await {
                Progress::Ended => return drop(network),
                Progress::Door(listener, inside) => {
                    self.runner.serve_door(running.path(), listener);
                    network = inside.map(|inside| self.networks.add(inside));
                }
                Progress::Output(_) => {}
            }
        }
    }

    /// How a command that has ended did so, and the audit's record of it. Its file stays.
    pub(crate) async fn finish(&self, launch: &Launch, file: &Path) -> Result<Status, String> {
        let ended = self.runner.finish(&launch.command, &launch.requester, file).await;
        ended.map_err(|failure| failure.to_string())
    }

    /// Waits until the audit is written so far.
    pub(crate) async fn flush_audit(&self) {
        self.runner.flush_audit().await;
    }

    /// A command's file. Its name is that of the control group as well: no other server's.
    fn file(&self, kind: &str) -> PathBuf {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{kind}-{}-{count}", std::process::id()))
    }

    /// Whether a wall can be built here: it is not tried out before somebody asks for it.
    fn can_wall(&self, profile: Option<Profile>) -> Result<(), String> {
        let Some(profile) = profile.filter(|profile| *profile != Profile::Off) else { return Ok(()) };
        if profile == Profile::Landlock
            && let Some(lacks) = self.abilities.landlock_lacks()
        {
            return Err(format!("sandbox {profile}: {lacks}"));
        }
        let missing = self.abilities.groups.missing(&self.bounds);
        if !missing.is_empty() {
            return Err(format!("this machine has no control group for: {}", missing.join(", ")));
        }
        Ok(())
    }

    /// Where a program is, by the PATH that shells have.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        let path = self.env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
        legwork_base::programs::find(name, path)?.into_os_string().into_string().ok()
    }

    /// The shell of that name, or the usual one.
    pub(crate) fn shell(&self, name: Option<&str>) -> Result<String, String> {
        let Some(name) = name else {
            let usual = ["/bin/bash", "/bin/sh"].into_iter().find(|path| Path::new(path).exists());
            return usual
                .map(str::to_owned)
                .ok_or_else(|| "there is neither /bin/bash nor /bin/sh".to_owned());
        };
        let plain = Path::new(name).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !SHELLS.contains(&plain) {
            return Err(format!("shell must be one of {}", SHELLS.join(", ")));
        }
        self.find(plain).ok_or_else(|| format!("{plain} is not installed here"))
    }

    /// The shells that are installed.
    pub(crate) fn installed(&self) -> Vec<&'static str> {
        SHELLS.iter().copied().filter(|name| self.find(name).is_some()).collect()
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
fn open_audit(settings: &Settings, root: &Path) -> Result<(Audit, Lock), String> {
    let within = is_within(&settings.state, root);
    let opened = match within {
        // Whoever works there could change it, and it would be stored and watched with the rest.
        true => Err(format!("{} lies in the workspace", settings.state.display())),
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
    .map_err(|reason| {
        format!("the audit can't be kept: {reason}; set LEGWORK_STATE_DIR to a writable folder")
    })
}

fn audit_below(state: &Path, root: &Path) -> Result<(Audit, Lock), String> {
    use std::os::unix::ffi::OsStrExt;
    let name = legwork_base::digest::name(root.as_os_str().as_bytes());
    for number in 1..=MOST_SERVERS {
        let folder = match number {
            1 => state.join(format!("workspace-{name}")),
            _ => state.join(format!("workspace-{name}-{number}")),
        };
        private_folder(&folder)?;
        let failed = |e: std::io::Error| format!("failed to lock {}: {e}", folder.display());
        if let Some(lock) = Lock::take(&folder).map_err(failed)? {
            let audit = Audit::open(&folder.join("audit.jsonl"), KEEP).map_err(|e| e.to_string())?;
            return Ok((audit, lock));
        }
    }
    Err(format!("{MOST_SERVERS} servers of this workspace run already"))
}

/// Whether a path, which need not be there, is really within a folder.
fn is_within(path: &Path, folder: &Path) -> bool {
    let real = path.ancestors().find_map(|above| above.canonicalize().ok());
    real.is_some_and(|real| real.starts_with(folder))
}

/// Makes a folder that is ours alone, or finds it so.
fn private_folder(folder: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("failed to create {}: {e}", folder.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let meta = folder.symlink_metadata().map_err(failed)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("{} belongs to somebody else", folder.display()));
    }
    Ok(())
}

/// What shells and the user's program inherit: all but the server's own secrets.
pub(crate) fn environment(
    all: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    from_file: &[String],
    workspace: &str,
    user_port: u16,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !name.starts_with("AWS_") && !name.starts_with("LEGWORK_"))
        .filter(|(name, _)| !from_file.contains(name))
        .collect();
    env.insert("PORT".into(), user_port.to_string());
    env.insert("PWD".into(), workspace.to_owned());
    env.insert("TERM".into(), "xterm-256color".to_owned());
    env.remove("OLDPWD");
    env
}
