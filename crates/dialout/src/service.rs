//! The runner as a service: connect, serve, reconnect, shut down.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use legwork_base::lock::Lock;
use legwork_policy::Named;
use legwork_runner::process::sandbox::Profile;
use legwork_runner::process::{Limits, Spawner};
use legwork_runner::{Audit, Config as RunnerConfig, Keep, Runner, Standing, choose};
use tokio::sync::watch;
use tracing::Instrument;

use crate::config::{Config, Credential};
use crate::connect::{ConnectError, connect};
use crate::handshake::Identity;
use crate::session::{self, closed};
use crate::store::Store;
use crate::tasks::Tasks;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LAST_DELAY: Duration = Duration::from_secs(300);
/// A credential that was refused is tried again this often.
const REFUSED_DELAY: Duration = Duration::from_secs(300);
/// How long a shutdown waits for tasks, and after cancelling them.
const DRAIN: Duration = Duration::from_secs(30);
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// How long a shutdown waits for the hub to acknowledge results.
const DELIVER: Duration = Duration::from_secs(2);
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// How often idle MCP sessions are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Let tasks end, then go.
    Drain,
    /// Go now; commands run on and are adopted by the next process.
    Detach,
}

/// A runner that is ready to connect.
#[derive(Debug)]
pub struct Service {
    config: Config,
    tasks: Arc<Tasks>,
    identity: Arc<Identity>,
    connected: watch::Sender<bool>,
    state: PathBuf,
    _lock: Lock,
}

impl Service {
    /// Opens workspace and state, and adopts what an earlier process left running.
    /// `program` is this program, to be started as the supervisors' helper; `env` is
    /// the operator's environment.
    pub async fn open(
        config: Config,
        program: &Path,
        env: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<Self, String> {
        let root = legwork_workspace::Root::open(&config.workspace).map_err(|e| e.to_string())?;
        let state = state_folder(&config)?;
        let lock = lock(&state)?;
        let env = legwork_runner::process::env::clean(env, &config.env_pass);
        let keep = Keep { bytes: config.retention.audit_bytes, age: config.retention.audit_age };
        let audit = Audit::open(&state.join("audit.jsonl"), keep).map_err(|e| e.to_string())?;
        let spawner =
            Spawner::start(program).map_err(|e| format!("failed to start {}: {e}", program.display()))?;
        let tmp_dir = state.join("tmp");
        let walled = choose(&config.sandbox, &spawner, &env, root.path(), &tmp_dir).await?;
        for note in &walled.notes {
            tracing::warn!("{note}");
        }
        let runner = Runner::new(RunnerConfig {
            root,
            rules: config.rules(),
            walled,
            tmp_dir,
            egress: config.egress.clone(),
            mcp_dir: state.join("mcp"),
            // Servers know the original's runner by it (docs/protocols/dialout.md §9).
            mcp_client: ("flashduty-runner", "1.0.0"),
            env,
            spawner: Arc::new(spawner),
            audit,
            max_tasks: config.max_tasks,
            max_read_bytes: config.max_read_bytes,
            limits: Limits::default(),
        })
        .map_err(|e| e.to_string())?;
        runner.bash().map_err(|e| e.to_string())?;
        let journal = state.join("journal.db");
        let store =
            Store::open(&journal).map_err(|e| format!("failed to open {}: {e}", journal.display()))?;
        let tasks = Tasks::new(Arc::new(runner), store, &state, config.url.clone(), config.retention)
            .map_err(|e| format!("failed to open {}: {e}", state.display()))?;
        tasks.recover().await.map_err(|e| format!("failed to read {}: {e}", journal.display()))?;
        let sandbox = tasks.runner().sandbox();
        match sandbox {
            Profile::Off => tracing::info!("sandbox: off (no walls around commands but the policy)"),
            profile => tracing::info!("sandbox: {profile}"),
        }
        match tasks.runner().gate() {
            Standing::Needless => {}
            Standing::Exec => tracing::info!("gate: each exec of a command is judged by the rules"),
            Standing::Reading(reason) => tracing::warn!(
                "gate: only the text of commands is judged, and what it does not show is refused: {reason}"
            ),
        }
        if let Standing::Reading(reason) = tasks.runner().mcp_gate() {
            tracing::warn!("gate: of MCP servers only the command is judged, not what it executes: {reason}");
        }
        if sandbox != Profile::Off
            && let Named::Wildcard(pattern) = config.policy.programs()
        {
            tracing::warn!(
                "rule '{pattern}' names its program by a wildcard: the kernel can't hold the list of programs, any may be executed"
            );
        }
        let identity = Arc::new(Identity::new(&config, sandbox));
        Ok(Self { config, tasks, identity, connected: watch::Sender::new(false), state, _lock: lock })
    }

    /// What carries tasks out, for a change of rules.
    pub fn runner(&self) -> Arc<Runner> {
        self.tasks.runner().clone()
    }

    /// Whether a hub has welcomed us, and is still there.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// Where this runner keeps its state.
    pub fn state(&self) -> &Path {
        &self.state
    }
}

/// The process of the runner that works with a configuration's state, if one does,
/// and where that state is.
pub fn running(config: &Config) -> Result<(PathBuf, Option<u32>), String> {
    let state = state_folder(config)?;
    let path = state.join("lock");
    let Ok(file) = File::options().append(true).open(&path) else { return Ok((state, None)) };
    if file.try_lock_shared().is_ok() {
        return Ok((state, None));
    }
    let pid = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    Ok((state, pid))
}

/// One folder per hub and credential, so that two runners of one machine never
/// share tasks.
fn state_folder(config: &Config) -> Result<PathBuf, String> {
    use std::os::unix::fs::DirBuilderExt;
    let secret = match &config.credential {
        Credential::Token(secret) | Credential::ApiKey(secret) => secret.expose(),
    };
    let name = legwork_base::digest::name(format!("{}\n{secret}", config.url));
    let path = config.state_dir.join(format!("runner-{name}"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| {
        format!("failed to create {}: {e}; set LEGWORK_STATE_DIR to a writable folder", path.display())
    })?;
    Ok(path)
}

fn lock(state: &Path) -> Result<Lock, String> {
    let path = state.join("lock");
    let lock = Lock::take(state).map_err(|e| format!("failed to lock {}: {e}", path.display()))?;
    let lock = lock.ok_or_else(|| {
        format!(
            "another runner with this credential is running on this machine (it holds {})",
            path.display()
        )
    })?;
    // For `legwork update`, which asks the running one to replace itself.
    let mut file = &lock.file;
    let write = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    write.map_err(|e| format!("failed to write {}: {e}", path.display()))?;
    Ok(lock)
}

/// Serves until `shutdown` says otherwise. Never gives up reconnecting.
pub async fn serve(service: Service, shutdown: watch::Receiver<Option<Shutdown>>) {
    let span = tracing::error_span!("runner", name = %service.identity.name);
    work(service, shutdown).instrument(span).await;
}

async fn work(service: Service, mut shutdown: watch::Receiver<Option<Shutdown>>) {
    let Service { config, tasks, identity, connected, state: _, _lock } = service;
    let close = watch::Sender::new(false);
    let stop = {
        let (tasks, close) = (tasks.clone(), close.clone());
        async move {
            let how =
                shutdown.wait_for(Option::is_some).await.ok().and_then(|how| *how).unwrap_or(Shutdown::Drain);
            if how == Shutdown::Drain {
                tracing::info!("shutting down: waiting for running tasks");
                tasks.drain(DRAIN, DRAIN_GRACE).await;
                let start = tokio::time::Instant::now();
                while !tasks.all_delivered() && start.elapsed() < DELIVER {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            close.send_replace(true);
        }
    };
    let connecting = async {
        let mut delay = FIRST_DELAY;
        loop {
            let pause = match connect(&config, &identity.name).await {
                Ok((socket, id)) => {
                    let reason = session::serve(
                        socket,
                        id,
                        &tasks,
                        &identity,
                        config.stream_output,
                        close.subscribe(),
                        &connected,
                    )
                    .await;
                    let welcomed = connected.send_replace(false);
                    if *close.borrow() {
                        return;
                    }
                    tracing::warn!("connection lost: {reason}");
                    if welcomed {
                        delay = FIRST_DELAY;
                        FIRST_DELAY.mul_f64(legwork_base::ids::fraction())
                    } else {
                        grow(&mut delay)
                    }
                }
                Err(error) => {
                    tracing::error!("{error}");
                    match error {
                        ConnectError::Authentication { .. } => REFUSED_DELAY,
                        ConnectError::Refused { retry_after: Some(after), .. } => after.min(LAST_DELAY),
                        _ => grow(&mut delay),
                    }
                }
            };
            let mut closing = close.subscribe();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = closed(&mut closing) => return,
            }
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(stop, connecting) } => {}
        () = tidy(&tasks) => {}
    }
    tasks.runner().close_sessions().await;
    tasks.runner().flush_audit().await;
}

/// Forgets what is old, and closes sessions that nobody has used for long. Never ends.
async fn tidy(tasks: &Tasks) {
    let pruning = async {
        loop {
            tasks.forget_old().await;
            tokio::time::sleep(PRUNE_EVERY).await;
        }
    };
    let sweeping = async {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            tasks.runner().sweep_sessions().await;
        }
    };
    tokio::select! {
        () = pruning => {}
        () = sweeping => {}
    }
}

/// The current delay with ±20 % jitter; doubles the next one.
fn grow(delay: &mut Duration) -> Duration {
    let pause = delay.mul_f64(0.8 + 0.4 * legwork_base::ids::fraction());
    *delay = (*delay * 2).min(LAST_DELAY);
    pause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_limit_with_jitter() {
        let mut delay = FIRST_DELAY;
        for base in [1u64, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let pause = grow(&mut delay).as_secs_f64();
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let base = base as f64;
            assert!((0.8 * base..=1.2 * base).contains(&pause), "{pause} for {base}");
        }
    }
}
