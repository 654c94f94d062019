//! The processes that a command has started, wherever they went.
//!
//! The runner is the subreaper of its descendants (Linux), so that one that left its
//! session and lost its parent becomes the runner's own child. What an earlier command
//! left running on purpose is told apart and left alone.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::elevate::Sudo;
use crate::process::quiet;

/// The children of the runner.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Left by earlier commands when the present one started.
    strangers: BTreeSet<i32>,
    /// Children were left when the last command ended.
    left: bool,
    /// They stay when we go: see `hold`, and the watch over a change of sshd's.
    keepers: Vec<i32>,
}

impl Tree {
    /// Makes the runner the one who inherits orphans.
    pub(crate) fn adopt_orphans() -> Self {
        #[cfg(target_os = "linux")]
        {
            let own = rustix::process::getpid();
            let _ = rustix::process::set_child_subreaper(Some(own));
        }
        Self::default()
    }

    /// Has the program kept on the host until a process is gone.
    pub(crate) fn keep_until_gone(&mut self, program: &Path, process: u32) {
        let child = quiet(program).args(["--hold", &process.to_string()]).spawn();
        if let Ok(child) = child {
            self.spare(child.id());
        }
    }

    /// A child of ours that is no command's.
    pub(crate) fn spare(&mut self, process: u32) {
        self.keepers.extend(i32::try_from(process).ok());
    }

    /// A command is about to start.
    pub(crate) fn mark(&mut self) {
        self.strangers.clear();
        if self.left {
            self.strangers = processes(&BTreeSet::new()).into_iter().map(|process| process.pid).collect();
        }
    }

    /// A command has ended: `left` says whether children of ours are still there.
    pub(crate) fn ended(&mut self, left: bool) {
        self.left = left && !self.only_keepers();
    }

    /// Whether there are no children but the keepers, as far as the kernel tells.
    fn only_keepers(&self) -> bool {
        if self.keepers.is_empty() {
            return false;
        }
        let own = std::process::id();
        let children = std::fs::read_to_string(format!("/proc/self/task/{own}/children"));
        let is_keeper = |pid: &str| pid.parse().is_ok_and(|pid: i32| self.keepers.contains(&pid));
        children.is_ok_and(|pids| pids.split_ascii_whitespace().all(is_keeper))
    }

    fn others(&self) -> Vec<Process> {
        let mut all = processes(&self.strangers);
        all.retain(|process| !self.keepers.contains(&process.pid));
        all
    }

    /// Signals the command's processes; by sudo where they are another user's.
    pub(crate) fn signal(&self, main: Pid, signal: Signal, sudo: Option<&Sudo>) {
        let mut refused = Vec::new();
        // The group first: it is one call, and reaches what forks meanwhile.
        let _ = kill_process_group(main, signal);
        for process in self.others() {
            let Some(pid) = Pid::from_raw(process.pid) else { continue };
            if kill_process(pid, signal) == Err(Errno::PERM) {
                refused.push(process.pid.to_string());
            }
        }
        if let Some(sudo) = sudo.filter(|_| !refused.is_empty()) {
            let (words, number) = (sudo.words(), format!("-{}", signal.as_raw()));
            let mut kill = quiet(words[0]);
            kill.args(&words[1..]).args(["kill", &number]).args(refused).envs(sudo.variables());
            // Reaped with the orphans.
            let _ = kill.spawn();
        }
    }

    /// Whether any of the command's processes is there, but for dead ones.
    pub(crate) fn alive(&self) -> bool {
        !self.others().is_empty()
    }
}

#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only /proc tells"))]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

/// Our living descendants, without the strangers and theirs.
#[cfg(target_os = "linux")]
fn processes(strangers: &BTreeSet<i32>) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let all: Vec<Process> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // Each command has a group of its own, and so have those it left.
    let foreign: Vec<i32> =
        all.iter().filter(|process| strangers.contains(&process.pid)).map(|process| process.group).collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![own];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent && process.pid != own) {
            let stranger = strangers.contains(&process.pid) || foreign.contains(&process.group);
            if !stranger && !found.iter().any(|known| known.pid == process.pid) {
                found.push(*process);
                parents.push(process.pid);
            }
        }
    }
    found
}

/// Elsewhere the process group is all there is.
#[cfg(not(target_os = "linux"))]
fn processes(_strangers: &BTreeSet<i32>) -> Vec<Process> {
    Vec::new()
}

/// `/proc/PID/stat`: the name in parentheses may hold anything. The dead don't count.
#[cfg(target_os = "linux")]
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let (parent, group) = (number()?, number()?);
    (!matches!(state, "Z" | "X")).then_some(Process { pid, parent, group })
}
