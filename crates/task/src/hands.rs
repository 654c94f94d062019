//! The hands that tasks share: files beneath the workspace, and programs behind walls. The
//! walls are tried out when the first program needs them: a task's first event does not
//! wait for that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use legwork_policy::Policy;
use legwork_process::sandbox::Profile;
use legwork_process::{Adoption, Chunk, Cursor, Limits, Progress, Running, Spawner, Status};
use legwork_runner::{
    Audit, Command, Config, Destinations, Egress, Failure, Keep, MCP_CLIENT, Requester, Rules, Runner,
    Walled, Wanted, choose,
};
use legwork_workspace::Root;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::abort::Abort;
use crate::place::Place;
use crate::settings::Settings;
use crate::tools::Session;
use crate::world::World;

/// Silence after which output counts as seen.
const SETTLE: Duration = Duration::from_millis(20);
/// Output read at a time.
const CHUNK: usize = 64 * 1024;
/// Of the audit.
const KEEP: Keep = Keep { bytes: 256 << 20, age: Duration::from_secs(90 * 24 * 3600) };
/// All of the public net and of private ones; never metadata services.
const ANYWHERE: &[&str] = &["*:*", "10.0.0.0/8:*", "172.16.0.0/12:*", "192.168.0.0/16:*", "[fd00::/8]:*"];

/// What carries tasks out.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) root: Arc<Root>,
    pub(crate) place: Place,
    settings: Arc<Settings>,
    /// This program: it starts others.
    program: PathBuf,
    runner: OnceCell<Result<Arc<Runner>, String>>,
    /// Commands that have ended, and left something running.
    left: Mutex<Vec<Running>>,
    /// What the task's commands get beside the usual.
    pub(crate) task_env: Mutex<BTreeMap<String, String>>,
    /// Where walls are worlds: the task's.
    pub(crate) world: tokio::sync::Mutex<Option<World>>,
}

impl Hands {
    /// Opens the workspace.
    pub(crate) fn open(settings: Arc<Settings>, place: Place, program: &Path) -> Result<Self, String> {
        let root = Root::open(&settings.workspace).map_err(|e| e.to_string())?;
        Ok(Self {
            root: Arc::new(root),
            place,
            settings,
            program: program.to_owned(),
            runner: OnceCell::new(),
            left: Mutex::default(),
            task_env: Mutex::default(),
            world: tokio::sync::Mutex::default(),
        })
    }

    /// What starts programs; made when it is first asked for.
    pub(crate) async fn runner(&self) -> Result<&Arc<Runner>, String> {
        let made = self.runner.get_or_init(|| async { self.make().await.map(Arc::new) }).await;
        made.as_ref().map_err(Clone::clone)
    }

    /// The same, if it was asked for before.
    pub(crate) fn made(&self) -> Option<Result<&Arc<Runner>, &String>> {
        self.runner.get().map(Result::as_ref)
    }

    async fn make(&self) -> Result<Runner, String> {
        let settings = &self.settings;
        let state = &self.place.state;
        let spawner = Spawner::start(&self.program)
            .map_err(|e| format!("failed to start {}: {e}", self.program.display()))?;
        let tmp_dir = state.join("tmp");
        let walled = self.walls(&spawner, &tmp_dir).await?;
        for note in &walled.notes {
            tracing::warn!("{note}");
        }
        tracing::info!(profile = walled.settings.profile.name(), "sandbox");
        let audit = Audit::open(&state.join("audit.jsonl"), KEEP).map_err(|e| e.to_string())?;
        let anything = || Policy::from_pairs([("*", "allow")]).map_err(|e| e.to_string());
        let destinations = match &settings.egress {
            Some(list) => Destinations::parse(list),
            None => Destinations::parse(ANYWHERE),
        };
        let destinations = Arc::new(destinations.map_err(|e| format!("LEGWORK_EGRESS: {e}"))?);
        let root = Root::open(&settings.workspace).map_err(|e| e.to_string())?;
        let mut env = settings.env.clone();
        if walled.settings.profile != Profile::Off {
            // A person's home is none of a task's business; it gets one of its own, which a
            // pod's user may not even have.
            let home = &self.place.home;
            std::fs::create_dir_all(home).map_err(|e| format!("failed to create {}: {e}", home.display()))?;
            env.insert("HOME".into(), home.to_string_lossy().into_owned());
            if let Some(rustup) = rustup(settings) {
                env.insert("RUSTUP_HOME".into(), rustup.to_string_lossy().into_owned());
            }
        }
        env.insert("PWD".into(), root.path().to_string_lossy().into_owned());
        Runner::new(Config {
            root,
            rules: Rules {
                policy: match &settings.policy {
                    Some(policy) => policy.clone(),
                    None => anything()?,
                },
                // Servers are named by the task, not by the model.
                mcp_policy: Some(anything()?),
                destinations: destinations.clone(),
            },
            walled,
            tmp_dir,
            // Pages are fetched by the runner: by the rules of what it runs.
            egress: Egress::only(destinations),
            mcp_dir: state.join("mcp"),
            mcp_client: MCP_CLIENT,
            env,
            spawner: Arc::new(spawner),
            audit,
            max_tasks: 64,
            max_read_bytes: u64::MAX,
            limits: Limits { cancel_grace: Some(settings.grace), ..Limits::default() },
        })
        .map_err(|e| e.to_string())
    }

    /// The strongest wall that leaves tasks their network, unless there is a list of where
    /// they may go: then one that holds it.
    async fn walls(&self, spawner: &Spawner, tmp: &Path) -> Result<Walled, String> {
        let settings = &self.settings;
        let wanted = |profile| Wanted {
            profile,
            read: settings
                .sandbox_read
                .iter()
                .chain(&settings.actions)
                .chain(&settings.tools)
                .cloned()
                .chain(toolchains(settings))
                .collect(),
            write: settings.sandbox_write.iter().cloned().chain([settings.scratch()]).collect(),
            hide: vec![settings.state.clone()],
            unix_sockets: settings.unix_sockets,
            limits: settings.limits.clone(),
            ..Wanted::default()
        };
        let root = self.root.path();
        let try_one = async |profile| choose(&wanted(profile), spawner, &settings.env, root, tmp).await;
        match (settings.sandbox, &settings.egress) {
            (Some(profile @ (Profile::Off | Profile::Landlock)), Some(_)) => Err(format!(
                "LEGWORK_EGRESS: the sandbox '{profile}' holds no network; use namespaces or gvisor"
            )),
            (Some(profile), _) => try_one(Some(profile)).await,
            (None, Some(_)) => try_one(Some(Profile::Namespaces)).await,
            (None, None) => {
                let mut reasons = Vec::new();
                for profile in [Profile::Landlock, Profile::Namespaces] {
                    match try_one(Some(profile)).await {
                        Ok(walled) => return Ok(walled),
                        Err(reason) => reasons.push(reason),
                    }
                }
                let mut walled = try_one(Some(Profile::Off)).await?;
                let reasons = reasons.join("; ");
                walled.notes.push(format!("{reasons}: what tasks run has no walls but the pod's"));
                Ok(walled)
            }
        }
    }

    /// What a command has left running lives as long as this is kept.
    fn keep(&self, running: Running) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|running| !running.is_gone());
        if !running.is_gone() {
            left.push(running);
        }
    }

    /// Gives what commands of a task run these variables.
    pub(crate) fn begin_task(&self, env: BTreeMap<String, String>) {
        *self.task_env.lock().unwrap_or_else(PoisonError::into_inner) = env;
    }

    /// Ends what commands of a task have left running, and empties its temporary folder. To be
    /// called when the task is over.
    pub(crate) async fn end_task(&self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        let ends = left.iter().map(|running| async {
            running.cancel();
            while !running.is_gone() {
                let _ = running.progress().await;
            }
        });
        futures_util::future::join_all(ends).await;
        self.end_world().await;
        self.begin_task(BTreeMap::new());
        if let Err(error) = self.place.clear_tmp() {
            tracing::warn!(error = %error, "the task's temporary folder can't be emptied");
        }
    }

    /// Where the shell of an agent, whose files are in `dir`, keeps its place.
    pub(crate) fn session(&self, dir: &Path) -> Result<Session, String> {
        let notes = self.session_notes(dir);
        Session::new(notes.clone()).map_err(|e| format!("failed to create {}: {e}", notes.display()))
    }

    /// Forgets it.
    pub(crate) fn forget_session(&self, dir: &Path) {
        let _ = std::fs::remove_dir_all(self.session_notes(dir));
    }

    fn session_notes(&self, dir: &Path) -> PathBuf {
        command_file(&self.settings.scratch(), "shell", &dir.to_string_lossy())
    }

    /// Whether what was run had no walls.
    pub(crate) fn is_open(&self) -> bool {
        let is_off = |runner: &Arc<Runner>| runner.sandbox() == Profile::Off;
        self.runner.get().is_some_and(|made| made.as_ref().is_ok_and(is_off))
    }

    /// Whether shell lines of a model are judged.
    pub(crate) fn judges(&self) -> bool {
        self.settings.policy.is_some()
    }

    /// As `run_settling`, for who does not want to know when nothing comes.
    pub(crate) async fn run(
        &self,
        program: &Command,
        requester: &Requester,
        file: &Path,
        abort: &Abort,
        offsets: (u64, u64),
        mut each: impl AsyncFnMut(Chunk) -> Continue,
    ) -> Result<Status, Failure> {
        let each = async |chunk: Option<Chunk>| match chunk {
            Some(chunk) => each(chunk).await,
            None => Continue::Yes,
        };
        self.run_settling(program, requester, file, abort, offsets, each).await
    }

    /// Runs a program to its end; `each` sees its output in the order of its arrival, and
    /// `None` when nothing more has come for a moment: what was written to both streams at
    /// about the same time has been seen then.
    /// Where `file` is there already, an earlier process started it: that one is found
    /// again, and seen from the given offsets of its streams on.
    pub(crate) async fn run_settling(
        &self,
        program: &Command,
        requester: &Requester,
        file: &Path,
        abort: &Abort,
        (stdout, stderr): (u64, u64),
        mut each: impl AsyncFnMut(Option<Chunk>) -> Continue,
    ) -> Result<Status, Failure> {
        let runner = self.runner().await.map_err(Failure::Failed)?;
        let program = &self.let_in(program, requester, runner).await?;
        let running = match file.exists() {
            true => match runner.adopt(file).await {
                Adoption::Running(running) => Some(running),
                Adoption::Ended(_) => None,
                Adoption::NeverStarted => {
                    let _ = std::fs::remove_file(file);
                    Some(runner.start(program, requester, file).await?)
                }
                Adoption::Lost(reason) => {
                    return Err(Failure::Lost(format!(
                        "the command was started but its end is unknown: {reason}"
                    )));
                }
            },
            false => Some(runner.start(program, requester, file).await?),
        };
        let mut cursor = Cursor::open(file, stdout, stderr).map_err(|e| Failure::Failed(e.to_string()))?;
        if let Some(running) = running {
            let mut watched = Watched { running, runner, file, cancelled: false };
            let mut settled = true;
            loop {
                let more = watched.progress(abort);
                let more = match settled {
                    true => Ok(more.await),
                    false => tokio::time::timeout(SETTLE, more).await,
                };
                let Ok(more) = more else {
                    settled = true;
                    each(None).await;
                    continue;
                };
                if !more {
                    break;
                }
                settled = false;
                let (back, go_on) = match pass(cursor, &mut each).await {
                    Ok(passed) => passed,
                    Err(failure) => {
                        // Nobody would look after it any more.
                        watched.cancel();
                        return Err(failure);
                    }
                };
                cursor = back;
                if go_on == Continue::No {
                    watched.cancel();
                }
            }
            self.keep(watched.running);
        }
        let _ = pass(cursor, &mut each).await?;
        runner.finish(program, requester, file).await
    }
}

/// Where rustup keeps toolchains, if it does.
fn rustup(settings: &Settings) -> Option<PathBuf> {
    let home = || Some(Path::new(settings.env.get("HOME")?).join(".rustup"));
    settings.rustup_home.clone().or_else(home).filter(|path| path.is_dir())
}

/// Programs that PATH finds in somebody's home, with what belongs to them.
fn toolchains(settings: &Settings) -> Vec<PathBuf> {
    let env = &settings.env;
    let mut found: Vec<PathBuf> = rustup(settings).into_iter().collect();
    let Some(home) = env.get("HOME").filter(|home| *home != "/").map(PathBuf::from) else { return found };
    for dir in env.get("PATH").map(std::env::split_paths).into_iter().flatten() {
        if !dir.starts_with(&home) || dir == home || !dir.is_dir() {
            continue;
        }
        // Libraries lie beside programs; keys of registries lie beside cargo's.
        let above = dir.parent().filter(|above| {
            dir.ends_with("bin")
                && **above != home
                && !above.ends_with(".cargo")
                && !above.ends_with(".local")
        });
        found.push(above.unwrap_or(&dir).to_owned());
    }
    found
}

/// The file of a command in a task's folder. Its name is also that of what the system keeps
/// by name, a control group say, so no other task on the machine has the same.
pub(crate) fn command_file(dir: &Path, kind: &str, which: &str) -> PathBuf {
    let digest = Sha256::digest(format!("{}\n{which}", dir.display()));
    let name: String = digest[..12].iter().map(|b| format!("{b:02x}")).collect();
    dir.join(format!("{kind}-{name}"))
}

/// Whether a program is to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continue {
    Yes,
    No,
}

struct Watched<'a> {
    running: Running,
    runner: &'a Arc<Runner>,
    file: &'a Path,
    cancelled: bool,
}

impl Watched<'_> {
    /// Waits for output; false when the program has ended.
    async fn progress(&mut self, abort: &Abort) -> bool {
        loop {
            tokio::select! {
                progress = self.running.progress() => match progress {
                    Progress::Output(_) => return true,
                    Progress::Door(listener, _) => self.runner.serve_door(self.file, listener),
                    Progress::Ended => return false,
                },
                _ = abort.wished(), if !self.cancelled => self.cancel(),
            }
        }
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        self.running.cancel();
    }
}

/// Passes on what is written so far.
async fn pass(
    mut cursor: Cursor,
    each: &mut impl AsyncFnMut(Option<Chunk>) -> Continue,
) -> Result<(Cursor, Continue), Failure> {
    let mut go_on = Continue::Yes;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let chunk = cursor.next(CHUNK);
            (cursor, chunk)
        });
        let (back, chunk) = read.await.map_err(|e| Failure::Failed(e.to_string()))?;
        cursor = back;
        match chunk.map_err(|e| Failure::Failed(format!("failed to read the command's output: {e}")))? {
            None => return Ok((cursor, go_on)),
            Some(chunk) => {
                if each(Some(chunk)).await == Continue::No {
                    go_on = Continue::No;
                }
            }
        }
    }
}
