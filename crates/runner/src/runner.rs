//! The runner: operations through policy and hands to their outcome.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use legwork_base::programs;
use legwork_process::sandbox::Profile;
use legwork_process::{Limits, Spawner};
use legwork_workspace::Root;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::audit::Audit;
use crate::gating::Standing;
use crate::net::Egress;
use crate::network::Network;
use crate::trial::Walled;
use crate::walls::{InForce, Rules, Walls};

/// What a runner is made of.
#[derive(Debug)]
pub struct Config {
    /// Where files are, and commands run.
    pub root: Root,
    /// What may run.
    pub rules: Rules,
    /// The walls around it.
    pub walled: Walled,
    /// A folder for the temporary folders of commands.
    pub tmp_dir: PathBuf,
    /// Where the runner itself may connect for a controller.
    pub egress: Egress,
    /// A folder for the files of MCP servers, emptied at start.
    pub mcp_dir: PathBuf,
    /// Name and version by which MCP servers know us.
    pub mcp_client: (&'static str, &'static str),
    /// The environment of commands.
    pub env: BTreeMap<String, String>,
    /// Starts supervisors.
    pub spawner: Arc<Spawner>,
    /// Where requests are recorded.
    pub audit: Audit,
    /// Requests carried out at a time; the rest waits in order.
    pub max_tasks: usize,
    /// Most bytes of one read.
    pub max_read_bytes: u64,
    /// Bounds of commands; each brings its own timeout.
    pub limits: Limits,
}

/// Name and version by which MCP servers know us, where no protocol says another name.
pub const MCP_CLIENT: (&str, &str) = ("legwork", env!("CARGO_PKG_VERSION"));

/// Carries out operations. Shared by all connections of a process.
#[derive(Debug)]
pub struct Runner {
    pub(crate) config: Config,
    pub(crate) network: Network,
    pub(crate) walls: Arc<Walls>,
    bash: Option<PathBuf>,
    slots: Arc<Semaphore>,
}

/// The right to run one request; dropping it lets the next one in.
#[derive(Debug)]
pub struct Permit(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Runner {
    /// Makes a runner.
    pub fn new(config: Config) -> io::Result<Self> {
        let path = config.env.get("PATH").map(String::as_str).unwrap_or_default();
        let bash = programs::find("bash", path);
        let slots = Arc::new(Semaphore::new(config.max_tasks));
        let walled = config.walled.clone();
        let in_force =
            InForce::new(config.rules.clone(), &config.env, &walled.gates).map_err(io::Error::other)?;
        let walls = Arc::new(Walls::new(walled, config.tmp_dir.clone(), in_force)?);
        let network = Network::new(&config, walls.clone())?;
        Ok(Self { config, network, walls, bash, slots })
    }

    /// The bash that runs lines: the one on the operator's PATH, if there is one.
    pub fn bash(&self) -> io::Result<&Path> {
        self.bash.as_deref().ok_or_else(|| {
            let path = self.config.env.get("PATH").map(String::as_str).unwrap_or_default();
            io::Error::other(format!("no bash found in PATH ({path})"))
        })
    }

    /// The program and arguments that run a line which was judged.
    pub(crate) fn line(&self, text: String) -> io::Result<Vec<String>> {
        let bash = self.bash()?.to_string_lossy().into_owned();
        Ok(vec![bash, "--noprofile".into(), "--norc".into(), "-c".into(), text])
    }

    /// The workspace.
    pub fn root(&self) -> &Root {
        &self.config.root
    }

    /// The profile of the walls that are in force.
    pub fn sandbox(&self) -> Profile {
        self.walls.profile()
    }

    /// Whether execs of lines are judged under the rules in force.
    pub fn gate(&self) -> Standing {
        self.walls.current().standing().clone()
    }

    /// The same for MCP servers.
    pub fn mcp_gate(&self) -> Standing {
        self.walls.current().mcp_standing().clone()
    }

    /// Puts other rules in force for all that starts from now on. What runs keeps the
    /// rules it was started under. Fails with the reason, and leaves the old rules in force,
    /// if execs must be judged and can't be under these.
    pub fn reload(&self, rules: Rules) -> Result<(), String> {
        self.network.forget_verdicts();
        let in_force = Arc::new(InForce::new(rules, &self.config.env, &self.walls.gates)?);
        *self.walls.in_force.write().unwrap_or_else(std::sync::PoisonError::into_inner) = in_force;
        self.network.forget_verdicts();
        Ok(())
    }

    /// Serves what a command says to its proxy.
    pub fn serve_door(&self, file: &Path, listener: std::net::TcpListener) {
        self.walls.serve_door(file, listener);
    }

    /// Waits for a free slot; first come, first served.
    pub async fn admit(&self) -> Permit {
        match self.slots.clone().acquire_owned().await {
            Ok(permit) => Permit(permit),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the audit is written so far.
    pub async fn flush_audit(&self) {
        self.config.audit.flush().await;
    }
}

/// Does blocking work on this very thread: a command's way is short enough that
/// changes of threads would be most of it. `None` if it panicked, which must not
/// cost the task its result.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> Option<T> {
    let work = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
    // A runtime with one thread has nowhere to put its other work meanwhile.
    let alone = tokio::runtime::Handle::try_current()
        .is_ok_and(|h| h.runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread);
    if alone { work() } else { tokio::task::block_in_place(work) }
}
