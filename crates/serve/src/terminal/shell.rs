//! Starting shells and commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use legwork_process::sandbox::{Context, Groups, Limits as Bounds, Profile, Settings};
use legwork_process::{Limits, Running, Size, Spawner, Spec};
use legwork_workspace::Root;

/// Between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Shells that may be asked for by name.
const SHELLS: &[&str] = &["bash", "zsh", "fish", "sh", "dash", "ksh"];

/// What to start in a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) argv: Vec<String>,
    /// Where, beneath the root.
    pub(crate) cwd: String,
    /// Beside the usual environment.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) size: Size,
    pub(crate) timeout: Option<Duration>,
    pub(crate) sandbox: Profile,
}

/// Sockets among the system's readable files, by which a shell without a network would have
/// one. Of all others a shell in namespaces sees only those in its workspace and its own
/// temporary folder, so there it may use sockets by path; Landlock can't tell them apart.
const SYSTEM_SOCKETS: &[&str] =
    &["/run/systemd/resolve/io.systemd.Resolve", "/run/systemd/resolve/io.systemd.Resolve.Monitor"];

/// Starts shells in the workspace.
pub(crate) struct Shells {
    spawner: Spawner,
    root: Arc<Root>,
    /// The environment of everything that is started.
    env: BTreeMap<String, String>,
    /// Where the files of running commands are.
    dir: PathBuf,
    bounds: Bounds,
    /// Whether sockets by path may be used behind Landlock, too.
    unix_sockets: bool,
    groups: Groups,
    count: AtomicU64,
}

impl Shells {
    pub(crate) fn new(
        program: &Path,
        root: Arc<Root>,
        env: BTreeMap<String, String>,
        dir: PathBuf,
        bounds: Bounds,
        unix_sockets: bool,
    ) -> std::io::Result<Self> {
        let spawner = Spawner::start(program)?;
        Ok(Self {
            spawner,
            root,
            env,
            dir,
            bounds,
            unix_sockets,
            groups: Groups::find(),
            count: AtomicU64::new(0),
        })
    }

    /// The process that starts the others.
    pub(crate) fn helper(&self) -> Option<u32> {
        self.spawner.helper_id()
    }

    pub(crate) fn start(
        &self,
        launch: &Launch,
        size: Size,
    ) -> Result<(Running, legwork_process::Terminal), String> {
        let cwd = self.root.open_dir(&launch.cwd).map_err(|e| e.to_string())?;
        let (name, spec) = self.spec(launch, size)?;
        self.spawner
            .spawn_terminal(&self.dir.join(name), std::os::fd::AsFd::as_fd(&cwd), spec)
            .map_err(|e| e.to_string())
    }

    /// Starts a command without a terminal; its output goes to its journal.
    pub(crate) fn run(&self, launch: &Launch) -> Result<Running, String> {
        let cwd = self.root.open_dir(&launch.cwd).map_err(|e| e.to_string())?;
        let (name, mut spec) = self.spec(launch, launch.size)?;
        spec.terminal = None;
        self.spawner
            .spawn(&self.dir.join(name), std::os::fd::AsFd::as_fd(&cwd), &spec)
            .map_err(|e| e.to_string())
    }

    fn spec(&self, launch: &Launch, size: Size) -> Result<(String, Spec), String> {
        // The name is that of the control group as well: no other server's.
        let name = format!("terminal-{}-{}", std::process::id(), self.count.fetch_add(1, Ordering::Relaxed));
        let mut env = self.env.clone();
        env.extend(launch.env.clone());
        let limits = Limits { timeout: launch.timeout, grace: GRACE, ..Limits::default() };
        let mut spec =
            Spec { argv: launch.argv.clone(), env, limits, terminal: Some(size), ..Spec::default() };
        if launch.sandbox != Profile::Off {
            self.surround(&mut spec, launch, &name)?;
        }
        Ok((name, spec))
    }

    fn surround(&self, spec: &mut Spec, launch: &Launch, name: &str) -> Result<(), String> {
        let path = spec.env.get("PATH").cloned().unwrap_or_default();
        let abilities = legwork_process::sandbox::probe(&path);
        let lacks = match launch.sandbox {
            Profile::Landlock => abilities.landlock_lacks(),
            _ => None,
        };
        if let Some(lacks) = lacks {
            return Err(format!("sandbox {}: {lacks}", launch.sandbox.name()));
        }
        let missing = self.groups.missing(&self.bounds);
        if !missing.is_empty() {
            return Err(format!("this machine has no control group for: {}", missing.join(", ")));
        }
        let mut hide = vec![self.dir.clone()];
        hide.extend(SYSTEM_SOCKETS.iter().map(PathBuf::from).filter(|path| path.exists()));
        let settings = Settings {
            profile: launch.sandbox,
            limits: self.bounds.clone(),
            landlock_abi: abilities.landlock_abi,
            hide,
            unix_sockets: launch.sandbox == Profile::Namespaces || self.unix_sockets,
            ..Settings::default()
        };
        let cwd = self.root.path().join(&launch.cwd);
        let shell = PathBuf::from(launch.argv.first().map(String::as_str).unwrap_or_default());
        let tmp = self.dir.join(format!("{name}.tmp"));
        let context = Context {
            workspace: self.root.path(),
            tmp: &tmp,
            cwd: &cwd,
            programs: None,
            shell: &shell,
            path: &path,
        };
        if let Some(plan) = settings.plan(&context) {
            let tmp = plan.tmp_seen().to_string_lossy().into_owned();
            spec.env.insert("TMPDIR".into(), tmp.clone());
            spec.env.insert("TMUX_TMPDIR".into(), tmp);
            spec.group = self.groups.name(name);
            spec.sandbox = Some(plan);
        }
        Ok(())
    }

    /// Where a program is, by the PATH that shells have.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        let path = self.env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
        std::env::split_paths(path)
            .map(|dir| dir.join(name))
            .find(|file| {
                use std::os::unix::fs::PermissionsExt;
                file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
            })
            .and_then(|file| file.into_os_string().into_string().ok())
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
