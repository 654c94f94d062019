//! Which walls this machine can build: found out by building them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use legwork_policy::Policy;
use legwork_process::sandbox::{
    Abilities, Context, Groups, Identity, Limits, Profile, Settings, can_list, probe,
};
use legwork_process::{Cursor, Gate, Limits as Bounds, Progress, Spawner, Spec, State, status};

use crate::gating::{Gates, Gating};

/// How long a trial may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an operator wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `None` for the strongest that there is (never gVisor).
    pub profile: Option<Profile>,
    /// As in [`Settings`].
    pub read: Vec<std::path::PathBuf>,
    /// As in [`Settings`].
    pub write: Vec<std::path::PathBuf>,
    /// As in [`Settings`].
    pub exec: Vec<std::path::PathBuf>,
    /// As in [`Settings`].
    pub hide: Vec<std::path::PathBuf>,
    /// Whether path and abstract sockets may be used.
    pub unix_sockets: bool,
    /// A user's name.
    pub run_as: Option<String>,
    /// What a command may use of memory, processes and time.
    pub limits: Limits,
    /// Whether execs are judged.
    pub gate: Gating,
}

/// The walls that are in force.
#[derive(Debug, Clone, Default)]
pub struct Walled {
    /// How they are built.
    pub settings: Settings,
    /// How others are built that a single command may be put behind instead: one a profile.
    pub others: Vec<Settings>,
    /// Where control groups are made.
    pub groups: Groups,
    /// What judges execs.
    pub gates: Gates,
    /// What the operator should know of them.
    pub notes: Vec<String>,
}

/// Chooses and tries walls. What was asked for and can't be had is an error.
pub async fn choose(
    wanted: &Wanted,
    spawner: &Spawner,
    env: &BTreeMap<String, String>,
    workspace: &Path,
    dir: &Path,
) -> Result<Walled, String> {
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    let abilities = probe(path);
    let site = Site { spawner, env, workspace, dir };
    if wanted.profile == Some(Profile::Off) {
        return site.with_gate(wanted, &abilities, Walled::default()).await;
    }
    let missing = abilities.groups.missing(&wanted.limits);
    if !missing.is_empty() {
        return Err(format!(
            "sandbox.limits: {} can't be bounded: no control group can be made here; run as a service with \
             Delegate=yes, or leave the limit out",
            missing.join(" and ")
        ));
    }
    let run_as = match &wanted.run_as {
        Some(_) if !rustix::process::geteuid().is_root() => {
            return Err("sandbox.run_as: only a runner of root can run commands as another user".into());
        }
        Some(name) => Some(Identity::find(name).map_err(|e| format!("sandbox.run_as: {e}"))?),
        None => None,
    };
    let settings = |profile| Settings {
        profile,
        read: wanted.read.clone(),
        write: wanted.write.clone(),
        exec: wanted.exec.clone(),
        unix_sockets: wanted.unix_sockets,
        run_as: run_as.clone(),
        limits: wanted.limits.clone(),
        hide: wanted.hide.clone(),
        landlock_abi: abilities.landlock_abi,
        runsc: abilities.runsc.clone().unwrap_or_default(),
        cache: Arc::default(),
    };
    let candidates = match wanted.profile {
        Some(profile) => vec![profile],
        None => vec![Profile::Namespaces, Profile::Landlock],
    };
    let mut reasons = Vec::new();
    for profile in candidates {
        let settings = settings(profile);
        match site.attempt(&settings, &abilities, None).await {
            Ok(()) => {
                let mut notes = reasons;
                notes.extend((profile == Profile::Landlock).then(|| abilities.landlock_gaps()).flatten());
                if abilities.groups.controllers.is_empty() {
                    notes.push("no control group can be made: memory and processors are not bounded".into());
                }
                let walled =
                    Walled { settings, groups: abilities.groups.clone(), notes, ..Walled::default() };
                return site.with_gate(wanted, &abilities, walled).await;
            }
            Err(reason) => reasons.push(format!("sandbox profile '{profile}' can't be had here: {reason}")),
        }
    }
    match wanted.profile {
        Some(_) => Err(reasons.join("; ")),
        None => {
            let walled = Walled { notes: reasons, ..Walled::default() };
            site.with_gate(wanted, &abilities, walled).await
        }
    }
}

/// Tries whether execs can be judged here, without any wall. Fails with the reason why not.
pub async fn try_gate(
    spawner: &Spawner,
    env: &BTreeMap<String, String>,
    workspace: &Path,
    dir: &Path,
) -> Result<(), String> {
    let site = Site { spawner, env, workspace, dir };
    site.attempt(&Settings::default(), &Abilities::default(), Some(gate_to_try()?)).await
}

/// Rules that leave the shell of the trial, and not much else.
fn gate_to_try() -> Result<Gate, String> {
    let rules = Policy::from_pairs([("*", "allow"), ("id *", "deny")]).map_err(|e| e.to_string())?;
    Ok(Gate { rules, shell: true, ..Gate::default() })
}

/// Where trials are made.
struct Site<'a> {
    spawner: &'a Spawner,
    env: &'a BTreeMap<String, String>,
    workspace: &'a Path,
    dir: &'a Path,
}

impl Site<'_> {
    /// Finds out whether execs can be judged behind these walls.
    async fn with_gate(
        &self,
        wanted: &Wanted,
        abilities: &Abilities,
        mut walled: Walled,
    ) -> Result<Walled, String> {
        let profile = walled.settings.profile;
        let lacks = if profile == Profile::Gvisor {
            Some("within gVisor its own kernel runs the programs".to_owned())
        } else {
            self.attempt(&walled.settings, abilities, Some(gate_to_try()?)).await.err()
        };
        if let (Some(reason), Gating::Required | Gating::Strict) = (&lacks, wanted.gate) {
            return Err(format!("gate: execs can't be judged here: {reason}"));
        }
        walled.gates = Gates {
            wanted: wanted.gate,
            lacks,
            listable: profile == Profile::Off && can_list(abilities.landlock_abi),
            ..Gates::default()
        };
        Ok(walled)
    }

    /// Tries one wall by running a shell behind it, and what that executes.
    async fn attempt(
        &self,
        settings: &Settings,
        abilities: &Abilities,
        gate: Option<Gate>,
    ) -> Result<(), String> {
        match settings.profile {
            Profile::Landlock => abilities.landlock_lacks().map_or(Ok(()), Err)?,
            Profile::Gvisor if abilities.runsc.is_none() => return Err("runsc is not on the PATH".into()),
            _ => {}
        }
        let text = |e: std::io::Error| e.to_string();
        let Self { spawner, env, workspace, dir } = self;
        std::fs::create_dir_all(dir).map_err(text)?;
        // The name is that of the control group as well: no other trial's, of whichever process.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("trial-{}-{now:x}-{count}-{}", std::process::id(), settings.profile);
        let file = dir.join(&name);
        let _ = std::fs::remove_file(&file);
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let context = Context {
            workspace,
            tmp: &dir.join(format!("{name}.tmp")),
            cwd: workspace,
            programs: None,
            shell: Path::new("/bin/sh"),
            path,
        };
        let line = if gate.is_some() { "/bin/sh -c 'exit 0'; exit $?" } else { "exit 0" };
        let spec = Spec {
            argv: ["/bin/sh", "-c", line].map(String::from).to_vec(),
            env: (*env).clone(),
            limits: Bounds { timeout: Some(PATIENCE), ..Bounds::default() },
            sandbox: settings.plan(&context),
            group: abilities.groups.name(&name),
            gate,
            ..Spec::default()
        };
        let cwd = std::fs::File::open(workspace).map_err(text)?;
        let running = spawner.spawn(&file, cwd.as_fd(), &spec).map_err(|e| e.to_string())?;
        let ended = async { while !matches!(running.progress().await, Progress::Ended) {} };
        let in_time = tokio::time::timeout(PATIENCE * 2, ended).await.is_ok();
        let status = status(&file);
        let said = Cursor::open(&file, 0, 0).and_then(|mut cursor| cursor.next(4096)).ok().flatten();
        let _ = std::fs::remove_file(&file);
        let status = status.map_err(text)?;
        match (status.state, status.exit_code) {
            (State::Ended, Some(0)) => Ok(()),
            _ if !in_time => Err("it does not end".into()),
            (State::Failed, _) => Err(status.error.unwrap_or_default()),
            _ => Err(said.map_or_else(
                || format!("a trial ended with {:?}", status.exit_code.or(status.signal)),
                |chunk| String::from_utf8_lossy(&chunk.data).trim().to_owned(),
            )),
        }
    }
}
