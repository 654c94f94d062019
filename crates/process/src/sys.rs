//! The calls that need `unsafe`: everything else goes through rustix.
#![allow(unsafe_code, reason = "this module is the workspace's border to the kernel")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::process::Command;

use legwork_sandbox::{Attributes, Fork, Kernel};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

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

    /// Makes a child that goes on from here, with all that this process holds.
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
    unsafe { command.pre_exec(own_terminal) };
}

/// Makes this process the leader of a session whose terminal is its stdin.
pub(crate) fn own_terminal() -> io::Result<()> {
    // SAFETY: both calls take numbers only.
    match unsafe { libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 } {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}

/// The kernel's `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn set_mount(tree: BorrowedFd<'_>, attributes: Attributes, flags: libc::c_int) -> io::Result<()> {
    const RDONLY: u64 = 1;
    const NOSUID: u64 = 2;
    const NODEV: u64 = 4;
    const NOEXEC: u64 = 8;
    let mut set = NOSUID;
    for (wanted, bit) in
        [(attributes.read_only, RDONLY), (attributes.no_exec, NOEXEC), (attributes.no_dev, NODEV)]
    {
        if wanted {
            set |= bit;
        }
    }
    let attr = MountAttr { set, clear: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a constant that ends in NUL, `attr` is a live local of the size
    // given, and the descriptor is borrowed for the length of the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Kernel for SingleThreaded {
    fn fork(&self) -> io::Result<Fork> {
        // SAFETY: as in `SingleThreaded::fork`.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(Fork::Child),
            pid => Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::Error::other("no process id")),
        }
    }

    fn unshare(&self, flags: UnshareFlags) -> io::Result<()> {
        // SAFETY: descriptors are not unshared, which is what could pull them from under
        // their owners; the process has one thread.
        unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
    }

    fn set_mount(&self, tree: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
        set_mount(tree, attributes, libc::AT_RECURSIVE)
    }

    fn set_mount_alone(&self, tree: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
        set_mount(tree, attributes, 0)
    }

    fn loopback_up(&self) -> io::Result<()> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        // SAFETY: an all-zero `ifreq` is valid: integers, and a union of such.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
        // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which is a live local.
        match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn mirror(&self, child: Pid, as_init: bool, report: Option<OwnedFd>, inward: Option<OwnedFd>) -> ! {
        let report = report.map_or(-1, IntoRawFd::into_raw_fd);
        // What tells of the child's end while connections are asked for.
        let ended = inward
            .as_ref()
            .and_then(|_| rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty()).ok());
        let kept = [
            report,
            inward.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            ended.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        ];
        let child = child.as_raw_nonzero().get();
        // SAFETY: this function never returns, so no owner of a closed descriptor is used
        // or dropped any more. The other calls take no pointers but to live locals.
        unsafe {
            close_all_but(kept);
            for signal in [
                libc::SIGTERM,
                libc::SIGINT,
                libc::SIGHUP,
                libc::SIGQUIT,
                libc::SIGUSR1,
                libc::SIGUSR2,
                libc::SIGPIPE,
            ] {
                libc::signal(signal, libc::SIG_IGN);
            }
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            if let (Some(inward), Some(ended)) = (inward, ended) {
                crate::inside::serve(inward.as_fd(), ended.as_fd());
            }
            let mut status: libc::c_int = 0;
            loop {
                let ended = libc::waitpid(if as_init { -1 } else { child }, &raw mut status, 0);
                if ended == child || ended == -1 && *libc::__errno_location() != libc::EINTR {
                    break;
                }
            }
            if as_init {
                libc::write(report, (&raw const status).cast(), size_of::<libc::c_int>());
                libc::_exit(0);
            }
            if report >= 0 {
                let len = libc::read(report, (&raw mut status).cast(), size_of::<libc::c_int>());
                if len != size_of::<libc::c_int>().cast_signed() {
                    // The one inside was killed before it could say.
                    status = libc::SIGKILL;
                }
            }
            if libc::WIFSIGNALED(status) {
                let signal = libc::WTERMSIG(status);
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
                libc::_exit(128 + signal);
            }
            libc::_exit(libc::WEXITSTATUS(status))
        }
    }

    fn status_pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
    }

    fn inward_pair(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
    }
}

/// Closes every descriptor but these; -1 is none.
///
/// # Safety
///
/// No owner of any other descriptor may be used or dropped afterwards.
unsafe fn close_all_but<const N: usize>(mut kept: [RawFd; N]) {
    kept.sort_unstable();
    let mut from: libc::c_uint = 0;
    for kept in kept.into_iter().filter_map(|fd| libc::c_uint::try_from(fd).ok()) {
        if kept > from {
            // SAFETY: the caller has no more use for the descriptors; ranges are plain numbers.
            unsafe { libc::close_range(from, kept - 1, 0) };
        }
        from = kept + 1;
    }
    // SAFETY: as above.
    unsafe { libc::close_range(from, libc::c_uint::MAX, 0) };
}

/// Closes what this process inherited beyond stdin, stdout and stderr: none of it
/// may reach a command.
pub(crate) fn close_inherited() {
    // SAFETY: called first thing in the helper's main, before this process has
    // opened any descriptor of its own, so no owner of one exists.
    // (gVisor takes no larger number than a descriptor can be.)
    unsafe { libc::close_range(3, libc::c_int::MAX.cast_unsigned(), 0) };
}

/// Leaves the session, and the terminal whose Ctrl-C is not for us. (Not by rustix, which
/// does not expect what gVisor answers: 0.)
pub(crate) fn leave_session() {
    // SAFETY: setsid takes nothing and touches no memory of ours.
    unsafe { libc::setsid() };
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

/// A call that waits for its answer (seccomp_unotify(2)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notice {
    /// Names the call in answers.
    pub(crate) id: u64,
    /// The thread that calls, 0 if it is in no process namespace that can be seen.
    pub(crate) thread: u32,
    /// Whose calls it is one of (`AUDIT_ARCH_…`).
    pub(crate) arch: u32,
    /// The call's number.
    pub(crate) number: libc::c_long,
    /// Its arguments.
    pub(crate) args: [u64; 6],
}

/// What is said to a call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel goes on with it.
    Continue,
    /// It fails with this error.
    Fail(libc::c_int),
}

/// Puts a filter in force whose asked calls are read from the descriptor. Where the kernel
/// can, a call that was read waits even if signals come: or a program with a fast timer
/// would start the call again and again.
pub(crate) fn install_listener(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let mut filter = filter.to_vec();
    let len = libc::c_ushort::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    let install = |flags: libc::c_ulong| {
        // SAFETY: the program points at a live vector of the length given; the kernel
        // copies it.
        let fd = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        match RawFd::try_from(fd) {
            // SAFETY: the descriptor is new and owned by nobody else.
            Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let listen = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    match install(listen | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => install(listen),
        result => result,
    }
}

/// Asks that whoever is answered runs on this processor at once, where the kernel can.
pub(crate) fn wake_here(listener: BorrowedFd<'_>) {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the argument is a number; an older kernel answers with an error.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
}

/// Reads the next call that waits. Fails with ENOENT if it has gone meanwhile. Only after
/// the descriptor was found readable: it waits otherwise.
pub(crate) fn next_notice(listener: BorrowedFd<'_>) -> io::Result<Notice> {
    // SAFETY: all zeroes, which the kernel asks for, is valid for integers.
    let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the call's number holds the size of what it writes, which is the local's.
    match unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) } {
        0 => Ok(Notice {
            id: notice.id,
            thread: notice.pid,
            arch: notice.data.arch,
            number: notice.data.nr.into(),
            args: notice.data.args,
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a call still waits: if so, what was read of its process by number was read of
/// the right one.
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the argument is a live local of the size that the call's number holds.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Answers a call. Fails with ENOENT if it has gone meanwhile.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        Answer::Fail(errno) => (-errno, 0),
    };
    let flags = u32::try_from(flags).unwrap_or_default();
    let response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the argument is a live local of the size that the call's number holds.
    match unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Answers a call that opens a file by a descriptor of ours, which becomes the caller's. Fails
/// with ENOENT if it has gone meanwhile, and with EMFILE if the caller has too many.
pub(crate) fn answer_with(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let handed = libc::seccomp_notif_addfd {
        id,
        flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).unwrap_or_default(),
        srcfd: file.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: the argument is a live local of the size that the call's number holds.
    match unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const handed) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What became of an exec that was watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The program is there, and has not run yet.
    About,
    /// The call has failed.
    Not,
    /// Its process has ended.
    Ended,
}

/// A process that stops when the exec that it waits for has come about, or has failed
/// (ptrace(2)). It is ended with us as long as it is watched.
#[derive(Debug)]
pub(crate) struct Watched(libc::pid_t);

impl Watched {
    /// Of a process whose first thread waits in an exec, which no signal interrupts. Fails with
    /// EPERM if somebody traces it already.
    pub(crate) fn begin(pid: u32) -> io::Result<Self> {
        let watched = Self(libc::pid_t::try_from(pid).map_err(io::Error::other)?);
        let options = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_EXITKILL;
        watched.ask(libc::PTRACE_SEIZE, usize::try_from(options).unwrap_or_default())?;
        // Where the call fails, it stops on its way back.
        watched.ask(libc::PTRACE_INTERRUPT, 0)?;
        Ok(watched)
    }

    /// Waits until it is known what became of the exec.
    pub(crate) fn came(&self) -> io::Result<Came> {
        let id = self.0.cast_unsigned();
        loop {
            // SAFETY: all zeroes are valid for what the kernel fills in.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // Who has ended is left to whoever waits for it.
            let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT;
            // SAFETY: the pointer is to a live local.
            if unsafe { libc::waitid(libc::P_PID, id, &raw mut info, options) } < 0 {
                match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error => return Err(error),
                }
            }
            if info.si_code != libc::CLD_TRAPPED {
                return Ok(Came::Ended);
            }
            // SAFETY: for what a child did the kernel has filled in its status.
            let event = unsafe { info.si_status() } >> 8;
            return Ok(if event == libc::PTRACE_EVENT_EXEC { Came::About } else { Came::Not });
        }
    }

    /// Lets it go on.
    pub(crate) fn let_go(self) {
        let _ = self.ask(libc::PTRACE_DETACH, 0);
    }

    /// Ends it. `keep`: somebody else waits for its end here.
    pub(crate) fn end(self, keep: bool) {
        // SAFETY: both arguments are numbers, and what is watched keeps its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        if !keep {
            self.forget();
        }
    }

    /// Takes note that it has ended, so that its parent is told.
    pub(crate) fn forget(self) {
        // SAFETY: the status is not asked for.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }

    fn ask(&self, request: libc::c_uint, data: usize) -> io::Result<()> {
        let nowhere = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: none of the requests that are made reads or writes memory.
        match unsafe {
            libc::ptrace(request, self.0, nowhere, std::ptr::without_provenance::<libc::c_void>(data))
        } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Keeps nothing open but the listener, and ends with the parent: what is inherited by a fork
/// would outlive its owner.
pub(crate) fn keep_only(listener: BorrowedFd<'_>) {
    let listener = listener.as_raw_fd().cast_unsigned();
    let close = |from: u32, to: u32| {
        // SAFETY: all arguments are numbers. The caller never returns to those who own what
        // is closed here: it is the only code that this process still runs.
        unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    };
    if let Some(last) = listener.checked_sub(1) {
        close(0, last);
    }
    close(listener + 1, u32::MAX);
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// Reads memory of another process, each part from its address; returns how many bytes
/// were read until the first that can't be.
pub(crate) fn read_memory(thread: u32, parts: &mut [(u64, &mut [u8])]) -> io::Result<usize> {
    let pid = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
    let mut local = Vec::with_capacity(parts.len());
    let mut remote = Vec::with_capacity(parts.len());
    for (address, buffer) in parts.iter_mut() {
        let address = usize::try_from(*address).map_err(io::Error::other)?;
        local.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
        remote
            .push(libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: buffer.len() });
    }
    let count = libc::c_ulong::try_from(local.len()).map_err(io::Error::other)?;
    // SAFETY: the local vectors point at exclusive borrows of their lengths, which last
    // for the call; the remote ones are numbers in another process.
    let read = unsafe { libc::process_vm_readv(pid, local.as_ptr(), count, remote.as_ptr(), count, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Whether two processes share their memory (kcmp(2)).
pub(crate) fn share_memory(one: u32, other: u32) -> io::Result<bool> {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: all arguments are numbers.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) } {
        0 => Ok(true),
        1..=3 => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process by SIGALRM after so long, unless it is called with `None` before.
pub(crate) fn end_unless_done(within: Option<std::time::Duration>) {
    let seconds = within.map_or(0, |d| libc::time_t::try_from(d.as_secs()).unwrap_or(1).max(1));
    // SAFETY: an all-zero `itimerval` is valid, and the pointer is to a live local.
    unsafe {
        let mut timer: libc::itimerval = std::mem::zeroed();
        timer.it_value.tv_sec = seconds;
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
}

/// Gives back to a child what its parent has made of signals: SIGALRM, SIGCHLD, SIGPIPE and
/// the mask are as a program expects them.
pub(crate) fn restore_signals() {
    // SAFETY: the set is initialised by sigemptyset before it is read; default dispositions
    // install no handlers.
    unsafe {
        for signal in [libc::SIGALRM, libc::SIGCHLD, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Replaces this process by a program; returns only if that fails.
pub(crate) fn execute(argv: &[std::ffi::CString], env: &[std::ffi::CString]) -> io::Error {
    let pointers = |texts: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let Some(program) = argv.first() else { return io::Error::other("no program") };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both lists end with a null pointer, and all they point at outlives the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, without running anything of what it was forked from.
pub(crate) fn leave(status: libc::c_int) -> ! {
    // SAFETY: `_exit` takes a number and does not return.
    unsafe { libc::_exit(status) }
}
