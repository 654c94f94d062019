//! Putting a plan in force: between fork and exec of the command.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::cgroup::Group;
use crate::mounts::{self, Attributes};
use crate::plan::{Inhabitant, Plan, World};
use crate::profile::Profile;
use crate::{PROXY_PORT, ruleset, seccomp};

/// In which process a fork returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The old one; the new one's id.
    Parent(rustix::process::Pid),
    /// The new one.
    Child,
}

/// The calls that need `unsafe`, by the crate that owns the operating system. The
/// process that uses them has one thread.
pub trait Kernel {
    /// Forks.
    fn fork(&self) -> io::Result<Fork>;
    /// Leaves namespaces.
    fn unshare(&self, flags: UnshareFlags) -> io::Result<()>;
    /// Sets attributes of a mount and all below it.
    fn set_mount(&self, tree: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()>;
    /// Sets attributes of one mount.
    fn set_mount_alone(&self, tree: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()>;
    /// Makes the loopback device of a new network namespace work.
    fn loopback_up(&self) -> io::Result<()>;
    /// Waits for `child`, with every other descriptor but `report` closed, passes its
    /// end on as this process's own, and never returns. `as_init`: reaps others too, and tells
    /// the end to `report`. Otherwise it is `report` that tells it, where there is one.
    /// `inward`: until then, makes connections into this process's network for whoever asks.
    fn mirror(
        &self,
        child: rustix::process::Pid,
        as_init: bool,
        report: Option<OwnedFd>,
        inward: Option<OwnedFd>,
    ) -> !;
    /// Makes a pipe that carries a wait status from `mirror` to `mirror`.
    fn status_pipe(&self) -> io::Result<(OwnedFd, OwnedFd)>;
    /// Makes what asks for connections into a network, and what `mirror` is asked by.
    fn inward_pair(&self) -> io::Result<(OwnedFd, OwnedFd)>;
}

/// What a wall leaves for the runner.
#[derive(Debug, Default)]
pub struct Ready {
    /// Accepts connections that the command makes to its proxy.
    pub proxy: Option<std::net::TcpListener>,
    /// Asks for connections into the command's network; then the tables of what listens there.
    pub inside: Vec<OwnedFd>,
}

/// Whether [`enter`] has something to report to the supervisor besides errors.
pub fn needs_report(plan: &Plan) -> bool {
    plan.profile.holds_network() && !plan.world.is_anothers()
}

/// Puts a plan in force. Returns in the process that is to become the command, with a
/// wall around it; `ready` is called once the proxy's listener exists. `own_session`:
/// make a new session, if nobody else does.
pub fn enter(
    plan: &Plan,
    group: &Group,
    own_session: bool,
    kernel: &dyn Kernel,
    ready: &mut dyn FnMut(Ready) -> io::Result<()>,
) -> Result<(), String> {
    let io = |what: &'static str| move |e: io::Error| format!("sandbox: {what}: {e}");
    group.join().map_err(io("join the control group"))?;
    plan.limits.apply(!group.is_empty()).map_err(io("set limits"))?;
    if plan.profile == Profile::Landlock {
        make_tmp(plan).map_err(io("make a temporary folder"))?;
    }
    // Within gVisor it is the guest's kernel that knows users.
    let outside = plan.profile != Profile::Gvisor || !rustix::process::geteuid().is_root();
    if let Some(identity) = plan.run_as.as_ref().filter(|_| outside) {
        identity.assume().map_err(io("become another user"))?;
    }
    match (plan.profile, &plan.world) {
        (Profile::Off, _) => return Ok(()),
        (Profile::Landlock, _) => {}
        (Profile::Namespaces, World::Of(inhabitant)) => {
            join(inhabitant, ThreadNameSpaceType::PROCESS_ID)?;
            enter_as_guest(plan, own_session, kernel)?;
        }
        // The rest is `runsc`, which is executed next and speaks to the one that is there.
        (Profile::Gvisor, World::Of(inhabitant)) => return join(inhabitant, ThreadNameSpaceType::empty()),
        (Profile::Namespaces, _) => {
            let all = UnshareFlags::NEWUSER
                | UnshareFlags::NEWNS
                | UnshareFlags::NEWPID
                | UnshareFlags::NEWNET
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWUTS;
            isolate(all, false, kernel).map_err(io("make namespaces"))?;
            let listener = network(kernel).map_err(io("make a network"))?;
            let (asks, asked) = kernel.inward_pair().map_err(io("make a way in"))?;
            let inside = std::iter::once(asks).chain(socket_tables()).collect();
            ready(Ready { proxy: Some(listener), inside }).map_err(io("report"))?;
            namespaces(plan, own_session, kernel, asked)?;
        }
        (Profile::Gvisor, _) => {
            let user = rustix::process::geteuid();
            let flags = if user.is_root() { UnshareFlags::empty() } else { UnshareFlags::NEWUSER };
            isolate(UnshareFlags::NEWNET | UnshareFlags::NEWNS | flags, true, kernel)
                .map_err(io("make namespaces"))?;
            let listener = network(kernel).map_err(io("make a network"))?;
            ready(Ready { proxy: Some(listener), inside: Vec::new() }).map_err(io("report"))?;
            // The rest is `runsc`, which is executed next.
            return mounts::build_root(plan, kernel, &crate::gvisor::root_of(plan))
                .map_err(|e| format!("sandbox: {e}"));
        }
    }
    drop_capabilities().map_err(io("drop capabilities"))?;
    if plan.profile == Profile::Landlock {
        ruleset::restrict(plan, plan.landlock_abi).map_err(|e| format!("sandbox: landlock: {e}"))?;
        if own_session {
            // Out of reach of the terminal and of signals to the supervisor's group.
            let _ = rustix::process::setsid();
        }
    }
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("sandbox: forgo new privileges: {e}"))?;
    seccomp::apply(plan.unix_sockets, plan.exec.is_some()).map_err(io("filter system calls"))
}

/// The command's own temporary folder, for whoever it runs as.
fn make_tmp(plan: &Plan) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(&plan.tmp) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    match &plan.run_as {
        Some(user) => std::os::unix::fs::chown(&plan.tmp, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

/// Leaves the machine's namespaces. User and group are the same within, unless what is
/// executed next needs to be user 0 there.
fn isolate(flags: UnshareFlags, as_root: bool, kernel: &dyn Kernel) -> io::Result<()> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let (within_uid, within_gid) = if as_root { (0, 0) } else { (uid, gid) };
    kernel.unshare(flags)?;
    if flags.contains(UnshareFlags::NEWUSER) {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{within_uid} {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{within_gid} {gid} 1"))?;
    }
    Ok(())
}

/// A network with nothing in it but the proxy's door, which the runner keeps.
fn network(kernel: &dyn Kernel) -> io::Result<std::net::TcpListener> {
    kernel.loopback_up()?;
    std::net::TcpListener::bind(("127.0.0.1", PROXY_PORT))
}

/// What listens in this network, as the kernel tells it; it stays this network's wherever it
/// is read.
fn socket_tables() -> Vec<OwnedFd> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    tables.iter().filter_map(|table| std::fs::File::open(table).ok().map(OwnedFd::from)).collect()
}

/// Three processes: this one stays outside and passes on how the command ended, the
/// first inside reaps, its child becomes the command.
fn namespaces(plan: &Plan, own_session: bool, kernel: &dyn Kernel, inward: OwnedFd) -> Result<(), String> {
    let io = |what: &'static str| move |e: io::Error| format!("sandbox: {what}: {e}");
    let (from_init, to_outside) = kernel.status_pipe().map_err(io("make a pipe"))?;
    match kernel.fork().map_err(io("fork"))? {
        Fork::Parent(init) => kernel.mirror(init, false, Some(from_init), Some(inward)),
        Fork::Child => drop(inward),
    }
    mounts::enter_root(plan, kernel).map_err(|e| format!("sandbox: {e}"))?;
    match kernel.fork().map_err(io("fork"))? {
        Fork::Parent(command) => kernel.mirror(command, true, Some(to_outside), None),
        Fork::Child => {}
    }
    drop(to_outside);
    if own_session {
        let _ = rustix::process::setsid();
    }
    rustix::process::chdir(&plan.cwd).map_err(|e| format!("sandbox: {}: {e}", plan.cwd.display()))
}

/// Moves this process to where another one is. `more`: namespaces beside those that all worlds have.
fn join(inhabitant: &Inhabitant, more: ThreadNameSpaceType) -> Result<(), String> {
    let gone = || "sandbox: the wall that it was to be behind is gone".to_owned();
    let pid = rustix::process::Pid::from_raw(inhabitant.pid).ok_or_else(gone)?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let process = process.map_err(|_| gone())?;
    // Looked at once it can't become another one's any more.
    if !inhabitant.is_there() {
        return Err(gone());
    }
    let mut spaces = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::NETWORK | more;
    if more.contains(ThreadNameSpaceType::PROCESS_ID) {
        spaces |= ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
        spaces |= ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    }
    let is_elsewhere = user_namespace("self") != user_namespace(&inhabitant.pid.to_string());
    spaces.set(ThreadNameSpaceType::USER, is_elsewhere);
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), spaces)
        .map_err(|e| format!("sandbox: enter the wall that is there: {e}"))
}

fn user_namespace(process: &str) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{process}/ns/user")).ok()
}

/// Two processes: this one stays outside and passes on how the command ended, its child becomes
/// the command. Whoever is first inside reaps what that one leaves.
fn enter_as_guest(plan: &Plan, own_session: bool, kernel: &dyn Kernel) -> Result<(), String> {
    let io = |what: &'static str| move |e: io::Error| format!("sandbox: {what}: {e}");
    match kernel.fork().map_err(io("fork"))? {
        Fork::Parent(command) => kernel.mirror(command, false, None, None),
        Fork::Child => {}
    }
    if own_session {
        let _ = rustix::process::setsid();
    }
    rustix::process::chdir(&plan.cwd).map_err(|e| format!("sandbox: {}: {e}", plan.cwd.display()))
}

/// Takes all capabilities away, so that user 0 is a user like others.
fn drop_capabilities() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities};
    // The list of capabilities grows; the kernel says where it ends.
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(63);
    for capability in (0..=last.min(63)).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Without privilege the bounding set can't be changed, and need not be: with
            // no new privileges nothing of it can be had.
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
