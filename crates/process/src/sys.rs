//! The calls that need `unsafe`: everything else goes through rustix.
#![allow(unsafe_code, reason = "this module is the workspace's border to the kernel")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;

/// In which process a fork returned.
pub(crate) enum Forked {
    Parent,
    Child,
}

/// Proof that this process has a single thread, and starts no other.
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Looks. Whoever holds the proof must start no thread from then on.
    pub(crate) fn prove() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            threads => Err(io::Error::other(format!("refusing to fork with {threads} threads"))),
        }
    }

    /// Forks.
    pub(crate) fn fork(&self) -> io::Result<Forked> {
        // SAFETY: with one thread no lock can be held by another one, so the child may
        // run any code, allocation included.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(Forked::Child),
            _ => Ok(Forked::Parent),
        }
    }
}

/// Lets the kernel reap children that nobody waits for.
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN for SIGCHLD is a valid disposition and installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Blocks SIGCHLD and returns a descriptor that is readable when a child ended.
pub(crate) fn child_signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is read, all
    // pointers are to locals, and the new descriptor is owned by nobody else.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Makes the command the leader of a session whose terminal is its stdin.
pub(crate) fn with_controlling_terminal(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only two async-signal-safe system calls are
    // made; nothing is allocated or locked.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Closes what this process inherited beyond stdin, stdout and stderr: none of it
/// may reach a command.
pub(crate) fn close_inherited() {
    // SAFETY: called first thing in the helper's main, before this process has
    // opened any descriptor of its own, so no owner of one exists.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// Takes over the descriptor this process was started with as stdin.
pub(crate) fn take_stdin() -> OwnedFd {
    // SAFETY: the helper uses no other handle to descriptor 0: it never reads
    // `std::io::stdin` and its own main is the only caller, once.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Watches a descriptor with tokio.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and stays the same descriptor, for as long as it
    // lives; the AsyncFd owns it and hands out no way to replace it.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Raises the soft limit of open files to the hard one, and returns it: each
/// connection and each command needs a few.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}
