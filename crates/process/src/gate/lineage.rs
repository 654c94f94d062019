//! Who calls: which execution a process stems from, and whether what stems from it is free.
//!
//! Each execution that was let through is noted with its process. A process that calls is
//! looked for among its own ancestors' executions by its [`Print`]: a fork has that of the
//! execution it was made in, even if its parent has executed something else since. Freedom is
//! inherited by whole subtrees, and an orphan goes to an ancestor of its parent's, so nobody
//! gets beneath a free execution who does not stem from one.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::process::{Print, Stat};
use super::target::FileId;

/// Processes whose executions are remembered.
const MOST_KNOWN: usize = 4096;
/// Executions kept of one process.
const MOST_MADE: usize = 8;
/// Programs of which it is remembered whether all their executions were free.
const MOST_PROGRAMS: usize = 4096;
/// Ancestors looked at.
const MOST_ANCESTORS: usize = 4096;

/// What a process executes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// By which the PATH leads to it, if it does.
    pub(super) names: Vec<String>,
    /// Where it is: the real path first; never empty.
    pub(super) paths: Vec<String>,
    pub(super) argv: Vec<String>,
}

impl Image {
    /// How people call it.
    pub(super) fn name(&self) -> &str {
        self.names.first().or(self.paths.first()).map(String::as_str).unwrap_or_default()
    }
}

/// An execution that was let through.
#[derive(Debug, Default)]
pub(super) struct Instance {
    /// Tells it from others.
    pub(super) serial: u64,
    /// `None` for the line's own shell.
    pub(super) image: Option<Image>,
    /// All that stems from it may run.
    pub(super) free: bool,
    /// It is a shell that runs text it was given: what it writes itself is held to the rules.
    pub(super) held_writes: bool,
    /// It is a script that the operator has put on the PATH.
    pub(super) operators_script: bool,
    /// It finds the program that an operator's script stands for: what it runs on its way is its
    /// own work.
    pub(super) manager: bool,
    /// Its interpreter is `env`, which will execute the real one with exactly this as the
    /// arguments' end: path and arguments of the script.
    pub(super) hop: Option<Vec<String>>,
}

/// An execution of one process.
#[derive(Debug)]
struct Made {
    /// The print before; while it is still there the execution has not come about.
    before: Print,
    /// Its own, once it was seen.
    print: Option<Print>,
    instance: Rc<Instance>,
}

#[derive(Debug)]
struct Known {
    start: u64,
    made: VecDeque<Made>,
}

impl Known {
    /// Learns the print of the last execution from a look at its process. `calls`: it is the
    /// process itself that calls, so what it was to execute before has failed if it is still
    /// what it was.
    fn settle(&mut self, now: Print, calls: bool) {
        let Some(last) = self.made.back_mut().filter(|made| made.print.is_none()) else { return };
        if !now.is_known() {
            return;
        }
        if now != last.before {
            last.print = Some(now);
        } else if calls {
            self.made.pop_back();
        }
    }

    fn find(&self, print: Print) -> Option<&Rc<Instance>> {
        self.made.iter().rev().find(|made| made.print == Some(print)).map(|made| &made.instance)
    }

    fn is_settled(&self) -> bool {
        self.made.back().is_none_or(|made| made.print.is_some())
    }
}

/// The executions of a command's tree.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    known: HashMap<u32, Known>,
    /// For each program whether all its executions were free.
    programs: HashMap<FileId, bool>,
    /// The process that the command began as, while it is not reaped: its number is its own.
    root: Option<u32>,
    first: Option<(Print, Rc<Instance>)>,
}

impl Lineage {
    /// Notes the command's first execution, which has not come about yet.
    pub(super) fn begin(&mut self, stat: &Stat, instance: Rc<Instance>, program: FileId) {
        self.root = Some(stat.pid);
        self.note(stat, instance, program);
    }

    /// Learns the print of the first execution, if it has come about. Whether it is known.
    pub(super) fn look_at_root(&mut self) -> bool {
        if self.first.is_none()
            && let Some(root) = self.root
            && let Ok(stat) = Stat::of(root)
            && let Some(known) = self.known.get_mut(&root).filter(|known| known.start == stat.start)
        {
            known.settle(stat.print, false);
            self.first = known.made.front().and_then(|made| Some((made.print?, made.instance.clone())));
        }
        self.first.is_some()
    }

    /// Whether a process is the one that the command began as.
    pub(super) fn is_root(&self, pid: u32) -> bool {
        self.root == Some(pid)
    }

    /// The command's first process is gone.
    pub(super) fn root_ended(&mut self) {
        self.root = None;
    }

    /// The execution that a process stems from; `None` for an orphan whose ancestors are gone.
    pub(super) fn find(&mut self, caller: &Stat) -> Option<Rc<Instance>> {
        self.look_at_root();
        let own = std::process::id();
        let (mut pid, mut seen) = (caller.pid, Some(*caller));
        for _ in 0..MOST_ANCESTORS {
            let known = self.known.get_mut(&pid);
            let settled = known.as_ref().is_some_and(|k| k.is_settled());
            // The command's first process is a child of ours: its number can't be another's.
            if seen.is_none() && !(self.root == Some(pid) && settled) {
                seen = Some(Stat::of(pid).ok()?);
            }
            if let Some(known) = known {
                if seen.is_none_or(|stat| stat.start == known.start) {
                    if let Some(stat) = &seen {
                        known.settle(stat.print, pid == caller.pid);
                    }
                    if let Some(found) = known.find(caller.print) {
                        return Some(found.clone());
                    }
                } else {
                    self.known.remove(&pid);
                }
            }
            let stat = match seen.take() {
                Some(stat) => stat,
                None => Stat::of(pid).ok()?,
            };
            pid = stat.parent;
            if pid == own || pid <= 1 {
                break;
            }
        }
        // The line's own shell is known by its print alone: nobody is freed by it.
        self.first.as_ref().filter(|(print, _)| *print == caller.print).map(|(_, first)| first.clone())
    }

    /// Whether a process is the line's own shell or a fork of it; while that is not known, any
    /// could be.
    pub(super) fn is_the_shells(&self, caller: &Stat) -> bool {
        self.first.as_ref().is_none_or(|(print, _)| *print == caller.print)
    }

    /// Whether all executions of a program were free ones.
    pub(super) fn is_always_free(&self, program: FileId) -> bool {
        self.programs.get(&program) == Some(&true)
    }

    /// Notes an execution that was let through. `program`: the file that the kernel loads
    /// for it.
    pub(super) fn note(&mut self, caller: &Stat, instance: Rc<Instance>, program: FileId) {
        if self.programs.len() < MOST_PROGRAMS || self.programs.contains_key(&program) {
            let free = instance.free;
            self.programs.entry(program).and_modify(|all| *all &= free).or_insert(free);
        }
        if self.known.len() >= MOST_KNOWN && !self.known.contains_key(&caller.pid) {
            self.known.retain(|pid, known| Stat::of(*pid).is_ok_and(|stat| stat.start == known.start));
        }
        if self.known.len() >= MOST_KNOWN && !self.known.contains_key(&caller.pid) {
            // What is not known is an orphan's, which has no more than the rules say.
            return;
        }
        let fresh = || Known { start: caller.start, made: VecDeque::new() };
        let known = self.known.entry(caller.pid).or_insert_with(fresh);
        if known.start != caller.start {
            *known = fresh();
        }
        if known.made.len() >= MOST_MADE {
            known.made.pop_front();
        }
        known.made.push_back(Made { before: caller.print, print: None, instance });
    }
}
