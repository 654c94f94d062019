//! Control groups: bounds on a whole tree of processes, as far as the machine grants
//! them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// The controllers that bounds need.
const CONTROLLERS: &[&str] = &["memory", "pids", "cpu"];

/// Where groups can be made, found once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// Version 2: one tree for all controllers.
    unified: Option<PathBuf>,
    /// Version 1: a tree for each.
    split: Vec<(&'static str, PathBuf)>,
    /// Controllers that can be had.
    pub controllers: Vec<&'static str>,
}

/// The groups of one command, to be made by its supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    dirs: Vec<PathBuf>,
}

impl Groups {
    /// Looks for folders where this process may make groups.
    pub fn find() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut groups = Self::default();
        if let Some(dir) = unified(&own, &mounts).filter(|dir| prepare_unified(dir).is_ok()) {
            let offered = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            groups.controllers = known(&offered);
            groups.unified = Some(dir);
        }
        if groups.controllers.is_empty() {
            groups.unified = None;
            for controller in CONTROLLERS {
                if let Some(dir) = split(controller, &own, &mounts).filter(|dir| is_writable(dir)) {
                    groups.split.push((controller, dir));
                    groups.controllers.push(controller);
                }
            }
        }
        groups
    }

    /// The bounds of these limits that can't be held here.
    pub fn missing(&self, limits: &Limits) -> Vec<&'static str> {
        let mut missing = Vec::new();
        for (controller, wanted) in
            [("memory", limits.memory.is_some()), ("cpu", limits.cpu_millis.is_some())]
        {
            if wanted && !self.controllers.contains(&controller) {
                missing.push(controller);
            }
        }
        missing
    }

    /// Names the groups of a new command.
    pub fn name(&self, name: &str) -> Group {
        let parents = self.unified.iter().chain(self.split.iter().map(|(_, dir)| dir));
        Group { dirs: parents.map(|dir| dir.join(format!("legwork-{name}"))).collect() }
    }
}

fn known(offered: &str) -> Vec<&'static str> {
    CONTROLLERS.iter().copied().filter(|c| offered.split_whitespace().any(|o| o == *c)).collect()
}

/// Our group in the tree of version 2.
fn unified(own: &str, mounts: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|l| l.strip_prefix("0::"))?;
    let mount = mounts.lines().find_map(|l| {
        let mut fields = l.split(' ').skip(1);
        let (dir, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(dir)
    })?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}

/// Groups of version 2 hold either processes or groups with controllers: we move into a
/// group of our own, so that ours can hold those of commands.
fn prepare_unified(dir: &Path) -> io::Result<()> {
    let offered = fs::read_to_string(dir.join("cgroup.controllers"))?;
    if known(&offered).is_empty() {
        return Err(io::Error::other("no controller is delegated"));
    }
    let enable = || -> io::Result<()> {
        for controller in known(&offered) {
            fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        Ok(())
    };
    if enable().is_ok() {
        return Ok(());
    }
    let own = dir.join("legwork-runner");
    match fs::create_dir(&own) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    for pid in fs::read_to_string(dir.join("cgroup.procs"))?.lines() {
        fs::write(own.join("cgroup.procs"), pid)?;
    }
    enable()
}

/// Our group in a controller's tree of version 1.
fn split(controller: &str, own: &str, mounts: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers.split(',').any(|c| c == controller).then(|| fields.next()).flatten()
    })?;
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let holds = fields.get(2) == Some(&"cgroup") && fields.get(3)?.split(',').any(|o| o == controller);
        holds.then(|| fields.get(1).copied()).flatten()
    })?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}

fn is_writable(dir: &Path) -> bool {
    // Several may look at once, also in one process.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let probe = dir.join(format!("legwork-probe-{}-{count}", std::process::id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
}

impl Group {
    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// Makes the groups and sets their bounds.
    pub fn create(&self, limits: &Limits) -> io::Result<()> {
        for dir in &self.dirs {
            fs::create_dir(dir)?;
            let set = |file: &str, value: String| {
                let path = dir.join(file);
                if path.exists() { fs::write(path, value) } else { Ok(()) }
            };
            if let Some(bytes) = limits.memory {
                set("memory.max", bytes.to_string())?;
                set("memory.swap.max", "0".into())?;
                set("memory.oom.group", "1".into())?;
                set("memory.limit_in_bytes", bytes.to_string())?;
            }
            if let Some(count) = limits.processes {
                set("pids.max", count.to_string())?;
            }
            if let Some(millis) = limits.cpu_millis {
                const PERIOD_US: u64 = 100_000;
                let quota = (millis * PERIOD_US / 1000).max(1000);
                set("cpu.max", format!("{quota} {PERIOD_US}"))?;
                set("cpu.cfs_period_us", PERIOD_US.to_string())?;
                set("cpu.cfs_quota_us", quota.to_string())?;
            }
        }
        Ok(())
    }

    /// Moves this process into the groups.
    pub fn join(&self) -> io::Result<()> {
        self.dirs.iter().try_for_each(|dir| fs::write(dir.join("cgroup.procs"), "0"))
    }

    /// How many processes the memory's bound has ended.
    pub fn out_of_memory(&self) -> u64 {
        let files =
            self.dirs.iter().flat_map(|dir| ["memory.events", "memory.oom_control"].map(|f| dir.join(f)));
        let ended = files.filter_map(|file| {
            let text = fs::read_to_string(file).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        });
        ended.sum()
    }

    /// Removes the groups, once nobody is left in them.
    pub fn remove(&self) {
        for dir in &self.dirs {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_found_in_both_versions() {
        let own = "5:memory:/a/b\n3:cpu,cpuacct:/c\n0::/d\n";
        let mounts = "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(split("memory", own, mounts), Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(split("cpu", own, mounts), Some("/sys/fs/cgroup/cpu/c".into()));
        assert_eq!(split("pids", own, mounts), None);
        assert_eq!(unified(own, mounts), Some("/sys/fs/cgroup/unified/d".into()));
        assert_eq!(known("cpuset cpu io memory"), ["memory", "cpu"]);
    }
}
