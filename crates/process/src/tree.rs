//! Whole process trees: who descends from a supervisor, and ending them all.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process};

/// All live descendants of `root`. As `root` is a subreaper, a process that left
/// its group or session, or whose parent died, is still found here.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut queue = vec![root.as_raw_nonzero().get()];
    while let Some(pid) = queue.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.extend(Pid::from_raw(child));
            queue.push(child);
        }
    }
    found
}

/// The first child of a process's first child.
pub(crate) fn grandchild(of: Pid) -> Option<Pid> {
    let own = descendants(of);
    let child_of = |parent: Pid| {
        let parent = parent.as_raw_nonzero().get();
        own.iter().copied().find(|pid| parent_of(pid.as_raw_nonzero().get()) == Some(parent))
    };
    child_of(child_of(of)?)
}

/// The parent of a process that is not yet a zombie (proc(5), `/proc/PID/stat`).
fn parent_of(pid: i32) -> Option<i32> {
    let (state, parent) = state_of(pid)?;
    (state != 'Z' && state != 'X').then_some(parent)
}

fn state_of(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, parentheses included.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// Makes orphans of what this process has started its children, so that they can be
/// found, reaped and ended: as PID 1 of a container they come to it anyway.
pub fn adopt_orphans() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Keeps other processes of the same user from looking into this one: its environment and
/// memory may hold secrets that what it starts must not have. Root can't be kept out.
pub fn hide_from_commands() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Collects ended children that nobody waits for; `known` is waited for elsewhere.
/// Returns how many there were.
pub fn reap_orphans(known: Option<u32>) -> usize {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let mut reaped = 0;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if state_of(pid) == Some(('Z', own))
            && known.is_none_or(|known| i64::from(known) != i64::from(pid))
            && let Some(pid) = Pid::from_raw(pid)
            && rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).is_ok_and(|r| r.is_some())
        {
            reaped += 1;
        }
    }
    reaped
}

/// Ends everything that descends from this process, at once.
pub fn kill_descendants() {
    kill(rustix::process::getpid());
}

/// What this process and its descendants use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes, this one included.
    pub processes: usize,
    /// Resident memory in bytes; what is shared is counted more than once.
    pub memory: u64,
    /// Processor time, ended children that were waited for included.
    pub cpu: Duration,
}

/// Adds up what this process and all that descends from it use (proc(5)).
pub fn usage() -> Usage {
    const TICKS: u64 = 100;
    let own = rustix::process::getpid();
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut usage = Usage::default();
    let mut ticks = 0;
    for pid in descendants(own).into_iter().chain([own]) {
        let pid = pid.as_raw_nonzero();
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<u64> = rest.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        // utime, stime, cutime and cstime; then the resident set.
        ticks += fields.get(11..15).map_or(0, |f| f.iter().sum());
        usage.memory += fields.get(21).map_or(0, |pages| pages * page);
        usage.processes += 1;
    }
    usage.cpu = Duration::from_millis(ticks * 1000 / TICKS);
    usage
}

/// Asks every descendant to end that was not asked before.
pub(crate) fn ask(root: Pid, signal: Signal, asked: &mut HashSet<Pid>) {
    for pid in descendants(root).into_iter().filter(|pid| asked.insert(*pid)) {
        let _ = kill_process(pid, signal);
        // A stopped process can't act on the signal.
        let _ = kill_process(pid, Signal::CONT);
    }
}

/// Ends every descendant, those that fork meanwhile included: all are frozen
/// first, until a look finds no new one.
pub(crate) fn kill(root: Pid) {
    const GIVE_UP: Duration = Duration::from_secs(10);
    let start = Instant::now();
    while start.elapsed() < GIVE_UP {
        let mut frozen: HashSet<Pid> = HashSet::new();
        loop {
            let new: Vec<Pid> = descendants(root).into_iter().filter(|p| !frozen.contains(p)).collect();
            if new.is_empty() || start.elapsed() > GIVE_UP {
                break;
            }
            for pid in new {
                let _ = kill_process(pid, Signal::STOP);
                frozen.insert(pid);
            }
        }
        if frozen.is_empty() {
            return;
        }
        for pid in frozen {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether anybody descends from this process: a subreaper's orphans are its children.
pub(crate) fn is_left() -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, look), Err(rustix::io::Errno::CHILD))
}

/// Collects every ended child; returns how `main` ended if it is among them.
pub(crate) fn reap(main: Option<Pid>) -> Option<rustix::process::WaitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Some(pid) == main {
            ended = Some(status);
        }
    }
    ended
}
