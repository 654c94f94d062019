//! The helper: a process with one thread, from which supervisors are forked.
//!
//! It is this program started again, so it can be replaced at any time; whether
//! it lives or dies, supervisors do not notice.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use legwork_executor::Size;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::record::Stored;
use crate::running::Running;
use crate::spec::{Io, Spec, boot_id};
use crate::terminal::Terminal;
use crate::{record, supervisor, sys, terminal};

/// The argument that makes a program the helper: `main` calls [`helper_main`].
pub const HELPER_ARG: &str = "__supervisors";

/// File, working directory and first controller of a new supervisor, and where
/// [`Spec::io`] asks for it, the command's stdin and stdout.
const MOST_FDS: usize = 5;

/// What stands around a command that is handed over.
const WALL: u8 = 1;
const GATE: u8 = 2;

/// Why a command could not be handed to a supervisor.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its file could not be made.
    #[error("failed to create {}: {source}", path.display())]
    File {
        /// Where it was to be.
        path: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No supervisor could be started.
    #[error("failed to start a supervisor: {0}")]
    Helper(#[from] io::Error),
}

/// Starts supervisors. Shared freely; the calls block for a fraction of a
/// millisecond.
#[derive(Debug)]
pub struct Spawner {
    program: std::path::PathBuf,
    boot_id: String,
    helper: Mutex<Option<Helper>>,
}

/// A command whose stdin and stdout are this process's.
#[derive(Debug)]
pub struct Piped {
    /// Its supervisor.
    pub running: Running,
    /// Writes to its stdin.
    pub stdin: tokio::net::unix::pipe::Sender,
    /// Reads its stdout.
    pub stdout: tokio::net::unix::pipe::Receiver,
}

#[derive(Debug)]
struct Helper {
    socket: OwnedFd,
    child: Child,
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The helper ends when its socket closes; it has no state to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Spawner {
    /// Starts the helper as `program __supervisors`.
    pub fn start(program: &Path) -> io::Result<Self> {
        let helper = start_helper(program)?;
        Ok(Self { program: program.to_owned(), boot_id: boot_id(), helper: Mutex::new(Some(helper)) })
    }

    /// Starts a command under a supervisor of its own; `path` is the command's file,
    /// which must not exist yet. That the program can't be executed is seen in its
    /// status, not here.
    pub fn spawn(&self, path: &Path, cwd: BorrowedFd<'_>, spec: &Spec) -> Result<Running, SpawnError> {
        self.spawn_with(path, cwd, spec, &[])
    }

    /// Starts a command that talks to this process: returns what writes to its
    /// stdin and what reads its stdout. Its stderr is dropped. It is not adopted by
    /// anybody: when this process is gone its stdin closes, and after the spec's
    /// grace its whole tree is ended.
    pub fn spawn_piped(&self, path: &Path, cwd: BorrowedFd<'_>, mut spec: Spec) -> Result<Piped, SpawnError> {
        spec.io = Io::Piped;
        let (stdin, to_stdin) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let (from_stdout, stdout) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let running = self.spawn_with(path, cwd, &spec, &[stdin.as_fd(), stdout.as_fd()])?;
        Ok(Piped {
            running,
            stdin: tokio::net::unix::pipe::Sender::from_owned_fd(to_stdin)?,
            stdout: tokio::net::unix::pipe::Receiver::from_owned_fd(from_stdout)?,
        })
    }

    /// Starts a command in a terminal that this process reads and writes itself. Like
    /// [`Spawner::spawn_piped`], it ends when this process is gone.
    pub fn spawn_terminal(
        &self,
        path: &Path,
        cwd: BorrowedFd<'_>,
        mut spec: Spec,
        size: Size,
    ) -> Result<(Running, Terminal), SpawnError> {
        spec.io = Io::OwnTerminal(size);
        let (master, slave) = terminal::open(size)?;
        let running = self.spawn_with(path, cwd, &spec, &[slave.as_fd(), slave.as_fd()])?;
        Ok((running, Terminal::new(master)?))
    }

    fn spawn_with(
        &self,
        path: &Path,
        cwd: BorrowedFd<'_>,
        spec: &Spec,
        stdio: &[BorrowedFd<'_>],
    ) -> Result<Running, SpawnError> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
        let socket = format!("legwork-{:032x}", u128::from_le_bytes(random));
        let file =
            record::create(path, &Stored { socket, boot_id: self.boot_id.clone(), spec: spec.clone() })
                .map_err(|source| SpawnError::File { path: path.to_owned(), source })?;
        let (ours, theirs) = socket_pair()?;
        let mut fds = vec![file.as_fd(), cwd, theirs.as_fd()];
        fds.extend(stdio);
        let wall = if spec.sandbox.is_some() { WALL } else { 0 };
        let gate = if spec.gate.is_some() { GATE } else { 0 };
        self.hand_over(wall | gate, &fds)?;
        drop(theirs);
        Ok(Running::new(path.to_owned(), ours)?)
    }

    /// The helper's process: a child that is waited for here.
    pub fn helper_id(&self) -> Option<u32> {
        self.helper.lock().ok()?.as_ref().map(|helper| helper.child.id())
    }

    fn hand_over(&self, kind: u8, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut guard = self.helper.lock().map_err(|_| io::Error::other("the helper's lock is poisoned"))?;
        if let Some(helper) = &*guard
            && send_fds(&helper.socket, kind, fds).is_ok()
        {
            return Ok(());
        }
        // The helper is gone: somebody killed it. A new one does as well.
        *guard = None;
        let helper = start_helper(&self.program)?;
        send_fds(&helper.socket, kind, fds)?;
        *guard = Some(helper);
        Ok(())
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn start_helper(program: &Path) -> io::Result<Helper> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let child = Command::new(program)
        .arg(HELPER_ARG)
        // Commands of the same user could read it there, secrets of ours included.
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .current_dir("/")
        .spawn()?;
    Ok(Helper { socket: ours, child })
}

fn send_fds(socket: &OwnedFd, kind: u8, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(&[kind])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_fds(socket: &OwnedFd) -> io::Result<Option<supervisor::Passed>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Ok(None);
    }
    // Made once, and inherited by every supervisor.
    if byte[0] & WALL != 0 {
        legwork_sandbox::prepare();
    }
    if byte[0] & GATE != 0 {
        legwork_policy::prepare();
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    let mut fds = fds.into_iter();
    let (Some(file), Some(cwd), Some(controller)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(io::Error::other("a request without its descriptors"));
    };
    Ok(Some(supervisor::Passed { file, cwd, controller, stdio: fds.next().zip(fds.next()) }))
}

/// The helper's whole life: to be called first thing in `main`, with no other
/// thread started, when the first argument is [`HELPER_ARG`].
pub fn helper_main() {
    sys::close_inherited();
    let socket = sys::take_stdin();
    // Keep descriptor 0 taken, so that nothing else ends up there.
    let _null = std::fs::File::open("/dev/null");
    // The Ctrl-C meant for the runner is not for the helper.
    sys::leave_session();
    sys::ignore_children();
    let Ok(alone) = sys::SingleThreaded::prove() else { return };
    loop {
        match receive_fds(&socket) {
            Ok(Some(passed)) => match alone.fork() {
                Ok(sys::Forked::Child) => {
                    drop(socket);
                    supervisor::run(passed);
                    return;
                }
                // The runner sees its connection close without a status.
                Ok(sys::Forked::Parent) | Err(_) => {}
            },
            Ok(None) => return,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
