//! Bounds on what a command uses.

use serde::{Deserialize, Serialize};

/// Bounds; `None` for no bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of the whole tree, in bytes (cgroup).
    pub memory: Option<u64>,
    /// Processors, in thousandths (cgroup).
    pub cpu_millis: Option<u64>,
    /// Processes and threads of the whole tree (cgroup; without one, RLIMIT_NPROC, which
    /// counts all of the user's and doesn't bind root).
    pub processes: Option<u64>,
    /// Open files of each process (RLIMIT_NOFILE).
    pub open_files: Option<u64>,
    /// Bytes of each file (RLIMIT_FSIZE).
    pub file_size: Option<u64>,
    /// Bytes of the private /tmp, where that is a file system of its own.
    pub tmp: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: None,
            cpu_millis: None,
            processes: Some(4096),
            open_files: Some(65_536),
            file_size: None,
            tmp: 1 << 30,
        }
    }
}

impl Limits {
    /// Sets what the process itself carries. `grouped`: a cgroup counts processes.
    pub(crate) fn apply(&self, grouped: bool) -> std::io::Result<()> {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let set = |resource, most: u64| {
            let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
            let most = Some(most.min(hard));
            setrlimit(resource, Rlimit { current: most, maximum: most })
        };
        set(Resource::Core, 0)?;
        if let Some(most) = self.open_files {
            set(Resource::Nofile, most)?;
        }
        if let Some(most) = self.file_size {
            set(Resource::Fsize, most)?;
        }
        if let Some(most) = self.processes.filter(|_| !grouped && !rustix::process::geteuid().is_root()) {
            set(Resource::Nproc, most)?;
        }
        Ok(())
    }
}
