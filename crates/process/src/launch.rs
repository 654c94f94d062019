//! Starting a command: its streams, its session, and where there is a wall or a gate, what
//! the child does before it becomes the command.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use legwork_sandbox::{Fork, Judged, Kernel};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::Pid;

use crate::gate::{Gate, Gatekeeper};
use crate::spec::Spec;
use crate::{confine, sys};

/// Most bytes of what the child says about itself.
const MAX_REPORT: usize = 1024;

/// What the child says: the first byte of a packet. The door to the proxy, what the calls that
/// are judged are read from, why a wall can't be built, why the program can't be executed.
const DOOR: u8 = b'D';
const LISTENER: u8 = b'L';
const ERROR: u8 = b'E';
const ERRNO: u8 = b'X';

/// A command's streams.
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// They are a terminal, which is to be its own.
    pub(crate) terminal: bool,
}

/// A command that has been started.
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    /// Accepts its connections to the proxy; then what leads into its network.
    pub(crate) door: Vec<OwnedFd>,
    /// Answers for its execs.
    pub(crate) gatekeeper: Option<Gatekeeper>,
}

/// Starts a command. Returns once it is executed.
pub(crate) fn launch(spec: &Spec, cwd: &OwnedFd, streams: Streams) -> io::Result<Launched> {
    let through = confine::through(spec)?;
    let argv = through.as_ref().unwrap_or(&spec.argv);
    let passes = |name: &str| through.is_none() || name == "PATH";
    let env: BTreeMap<&String, &String> = spec.env.iter().filter(|(name, _)| passes(name)).collect();
    if spec.sandbox.is_none() && spec.gate.is_none() {
        return plain(argv, &env, cwd, streams);
    }
    let text = |text: String| CString::new(text).map_err(|_| io::Error::other("a zero byte in an argument"));
    let argv: Vec<CString> = argv.iter().cloned().map(text).collect::<io::Result<_>>()?;
    let env: Vec<CString> =
        env.into_iter().map(|(name, value)| text(format!("{name}={value}"))).collect::<io::Result<_>>()?;
    let alone = sys::SingleThreaded::prove()?;
    // What the filter is made of has been made by now: the child only puts it in force.
    let filter = match &spec.gate {
        Some(gate) => Some(
            legwork_sandbox::exec_filter(Judged { no_memfd: gate.no_memfd, writes: gate.writes })
                .ok_or_else(|| io::Error::other("execs can't be judged on this architecture"))?,
        ),
        None => None,
    };
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    match Kernel::fork(&alone)? {
        Fork::Child => {
            let child = Child { spec, cwd, streams, report: &theirs, filter: filter.as_deref() };
            let error = match child.prepare(&alone) {
                Ok(()) => {
                    let error = sys::execute(&argv, &env);
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    [&[ERRNO], errno.to_ne_bytes().as_slice()].concat()
                }
                Err(text) => [&[ERROR], text.as_bytes()].concat(),
            };
            let len = error.len().min(MAX_REPORT);
            let _ = rustix::net::send(&theirs, &error[..len], SendFlags::NOSIGNAL);
            sys::leave(1)
        }
        Fork::Parent(pid) => {
            drop((theirs, streams));
            let (door, gatekeeper) = attend(&ours, spec)?;
            Ok(Launched { pid, door, gatekeeper })
        }
    }
}

/// Starts a command that nothing stands around.
fn plain(
    argv: &[String],
    env: &BTreeMap<&String, &String>,
    cwd: &OwnedFd,
    streams: Streams,
) -> io::Result<Launched> {
    let (program, args) = argv.split_first().ok_or_else(|| io::Error::other("no program"))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(env)
        // Resolved by the runner beneath its root; the descriptor can't be swapped.
        .current_dir(format!("/proc/self/fd/{}", cwd.as_raw_fd()))
        .stdin(Stdio::from(streams.stdin))
        .stdout(Stdio::from(streams.stdout))
        .stderr(Stdio::from(streams.stderr));
    if streams.terminal {
        sys::with_controlling_terminal(&mut command);
    } else {
        command.process_group(0);
    }
    let id = command.spawn()?.id();
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    Ok(Launched {
        pid: pid.ok_or_else(|| io::Error::other("no process id"))?,
        door: Vec::new(),
        gatekeeper: None,
    })
}

/// What becomes the command.
struct Child<'a> {
    spec: &'a Spec,
    cwd: &'a OwnedFd,
    streams: Streams,
    report: &'a OwnedFd,
    filter: Option<&'a [libc::sock_filter]>,
}

impl Child<'_> {
    /// All that is done between fork and exec.
    fn prepare(&self, kernel: &dyn Kernel) -> Result<(), String> {
        let text = |e: io::Error| e.to_string();
        self.take_streams().map_err(text)?;
        sys::restore_signals();
        if let Some(plan) = &self.spec.sandbox {
            let mut ready = |ready: legwork_sandbox::Ready| {
                let Some(proxy) = &ready.proxy else { return Ok(()) };
                let inside = ready.inside.iter().map(AsFd::as_fd);
                send(self.report, DOOR, &std::iter::once(proxy.as_fd()).chain(inside).collect::<Vec<_>>())
            };
            let own_session = !self.streams.terminal;
            legwork_sandbox::enter(plan, &self.spec.group, own_session, kernel, &mut ready)?;
        }
        match (&self.spec.gate, self.filter) {
            (Some(gate), Some(filter)) => self.stand_at_gate(gate, filter).map_err(|e| format!("gate: {e}")),
            _ => Ok(()),
        }
    }

    fn take_streams(&self) -> io::Result<()> {
        rustix::stdio::dup2_stdin(&self.streams.stdin)?;
        rustix::stdio::dup2_stdout(&self.streams.stdout)?;
        rustix::stdio::dup2_stderr(&self.streams.stderr)?;
        // Resolved by the runner beneath its root; the descriptor can't be swapped.
        rustix::process::fchdir(self.cwd)?;
        if self.streams.terminal { sys::own_terminal() } else { Ok(rustix::process::setpgid(None, None)?) }
    }

    /// From here on execs are judged. Setuid programs keep their rights where the kernel lets
    /// that be.
    fn stand_at_gate(&self, gate: &Gate, filter: &[libc::sock_filter]) -> Result<(), String> {
        use rustix::thread::{CapabilitySet, capabilities};
        let privileged =
            capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        if let Some(programs) = &gate.programs {
            legwork_sandbox::only_programs(programs, privileged).map_err(|e| format!("landlock: {e}"))?;
        }
        if !privileged {
            rustix::thread::set_no_new_privs(true).map_err(|e| e.to_string())?;
        }
        let listener = sys::install_listener(filter).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => {
                "execs are already judged by somebody else (a container's runtime, another gate)".into()
            }
            _ => format!("this kernel does not hand on execs: {e}"),
        })?;
        send(self.report, LISTENER, &[listener.as_fd()]).map_err(|e| e.to_string())
    }
}

/// Most descriptors in one packet: the door, what asks for ways in, two tables.
pub(crate) const MOST_FDS: usize = 4;

pub(crate) fn send(socket: &OwnedFd, what: u8, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(&[what])], &mut control, flags)?;
    Ok(())
}

/// Listens to the child until it is the command, and answers its first exec.
fn attend(report: &OwnedFd, spec: &Spec) -> io::Result<(Vec<OwnedFd>, Option<Gatekeeper>)> {
    let (mut door, mut gatekeeper) = (Vec::new(), None::<Gatekeeper>);
    loop {
        let mut fds = vec![PollFd::new(report, PollFlags::IN)];
        let listener = gatekeeper.as_ref().map(Gatekeeper::listener);
        fds.extend(listener.as_ref().map(|listener| PollFd::new(listener, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let (said, asked) =
            (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|f| f.revents().contains(PollFlags::IN)));
        if let Some(gatekeeper) = gatekeeper.as_mut().filter(|_| asked) {
            gatekeeper.answer_waiting()?;
        }
        if !said {
            continue;
        }
        match hear(report)? {
            None => break,
            Some((DOOR, fds, _)) => door = fds,
            Some((LISTENER, mut fds, _)) => {
                let fd = fds.pop().ok_or_else(|| io::Error::other("no listener came"))?;
                let gate = spec.gate.as_ref().ok_or_else(|| io::Error::other("no gate was asked for"))?;
                gatekeeper = Some(Gatekeeper::new(fd, gate, spec)?);
            }
            Some((ERRNO, _, text)) => {
                let errno = text.try_into().map_or(libc::EIO, i32::from_ne_bytes);
                // What the gate has kept it from is told better than by the error.
                let denied = gatekeeper.and_then(|g| g.denied().0.into_iter().next());
                return Err(denied.map_or_else(
                    || io::Error::from_raw_os_error(errno),
                    |denied| {
                        io::Error::other(format!("denied at exec: {}: {}", denied.program, denied.reason))
                    },
                ));
            }
            Some((_, _, text)) => return Err(io::Error::other(String::from_utf8_lossy(&text).into_owned())),
        }
    }
    if spec.gate.is_some() && gatekeeper.is_none() {
        return Err(io::Error::other("gate: the command ended before it stood"));
    }
    if let Some(gatekeeper) = &mut gatekeeper {
        gatekeeper.look_at_root();
    }
    Ok((door, gatekeeper))
}

type Said = (u8, Vec<OwnedFd>, Vec<u8>);

/// The next packet; `None` if there will be no more.
fn hear(report: &OwnedFd) -> io::Result<Option<Said>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0u8; MAX_REPORT];
    let message = rustix::net::recvmsg(
        report,
        &mut [IoSliceMut::new(&mut text)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let Some((what, rest)) = text[..message.bytes].split_first() else { return Ok(None) };
    Ok(Some((*what, received(&mut control), rest.to_vec())))
}

/// The descriptors that came with a packet.
pub(crate) fn received(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            all.extend(fds);
        }
    }
    all
}
