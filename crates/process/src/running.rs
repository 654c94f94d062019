//! The runner's end: watching a supervised command, and finding it again.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork_executor::Size;
use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::inside::Inside;
use crate::launch::{MOST_FDS, received};
use crate::record;
use crate::spec::{Spec, State, Status, boot_id};
use crate::supervisor::{CANCEL, DOOR, ENDED, GROWN, INPUT, MAX_MESSAGE, RESIZE};

/// What happened to a running command.
#[derive(Debug)]
pub enum Progress {
    /// The journal has grown to this many bytes.
    Output(u64),
    /// What accepts the command's connections to its proxy has come: to be served by
    /// whoever watches the command. And what leads into the command's network, where the wall
    /// has that.
    Door(std::net::TcpListener, Option<Inside>),
    /// The command has ended: [`status`] says how. Its supervisor is gone, unless it looks after
    /// what was left running; then it is gone when this is told once more.
    Ended,
}

/// A connection to a supervisor. Dropping it leaves the command running.
#[derive(Debug)]
pub struct Running {
    path: PathBuf,
    socket: AsyncFd<OwnedFd>,
}

impl Running {
    pub(crate) fn new(path: PathBuf, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { path, socket: crate::sys::watch(socket)? })
    }

    /// The command's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until there is more output or the command has ended. Safe to cancel.
    pub async fn progress(&self) -> Progress {
        loop {
            let received = self.socket.async_io(Interest::READABLE, receive).await;
            match received {
                Ok(Received { len: 9, bytes, .. }) if bytes[0] == GROWN => {
                    let mut len = [0u8; 8];
                    len.copy_from_slice(&bytes[1..9]);
                    return Progress::Output(u64::from_le_bytes(len));
                }
                Ok(Received { len: 1, bytes, mut fds }) if bytes[0] == DOOR && !fds.is_empty() => {
                    let inside = fds.split_off(1);
                    if let Some(proxy) = fds.pop() {
                        return Progress::Door(proxy.into(), Inside::new(inside).ok().flatten());
                    }
                }
                Ok(Received { len: 1, bytes, .. }) if bytes[0] == ENDED => return Progress::Ended,
                Ok(Received { len: 0, .. }) | Err(_) => return Progress::Ended,
                Ok(_) => {}
            }
        }
    }

    /// Whether the supervisor is gone.
    pub fn is_gone(&self) -> bool {
        let mut byte = [0u8; 1];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        match rustix::net::recv(self.socket.get_ref(), &mut byte, flags) {
            Ok((len, _)) => len == 0,
            Err(e) => e != rustix::io::Errno::AGAIN,
        }
    }

    /// Ends the command's whole tree: SIGTERM, grace, SIGKILL.
    pub fn cancel(&self) {
        self.send(&[CANCEL]);
    }

    /// Types into the command's terminal. Returns how many bytes were taken; the
    /// rest is to be sent again later.
    pub fn input(&self, data: &[u8]) -> usize {
        let mut taken = 0;
        for piece in data.chunks(MAX_MESSAGE - 1) {
            let mut message = vec![INPUT];
            message.extend_from_slice(piece);
            if !self.send(&message) {
                break;
            }
            taken += piece.len();
        }
        taken
    }

    /// Changes the size of the command's terminal.
    pub fn resize(&self, size: Size) {
        let [a, b] = size.cols.to_le_bytes();
        let [c, d] = size.rows.to_le_bytes();
        self.send(&[RESIZE, a, b, c, d]);
    }

    fn send(&self, message: &[u8]) -> bool {
        rustix::net::send(self.socket.get_ref(), message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
    }
}

/// A message from a supervisor.
struct Received {
    len: usize,
    bytes: [u8; 16],
    fds: Vec<OwnedFd>,
}

fn receive(socket: &OwnedFd) -> io::Result<Received> {
    use rustix::net::RecvAncillaryBuffer;
    let mut bytes = [0u8; 16];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut [io::IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let len = message.bytes;
    Ok(Received { len, bytes, fds: received(&mut control) })
}

/// What became of a command whose runner was away.
#[derive(Debug)]
pub enum Adoption {
    /// It runs; watch it as before.
    Running(Running),
    /// It ended meanwhile.
    Ended(Status),
    /// It never ran, and never will: the folder can be removed and the command
    /// started anew.
    NeverStarted,
    /// Its end is unknown, for the reason given.
    Lost(String),
}

/// Finds a command again by its file. Blocks for up to a second if its supervisor
/// is only just starting.
pub fn adopt(path: &Path) -> Adoption {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        match look(path) {
            Ok(Some(adoption)) => return adoption,
            // Its supervisor is only just starting, or just ending.
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Adoption::Lost(format!("its file can't be read: {error}")),
        }
    }
    Adoption::Lost("its supervisor does not answer".into())
}

fn look(path: &Path) -> io::Result<Option<Adoption>> {
    let file = File::options().read(true).write(true).open(path)?;
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    if locked == Err(rustix::io::Errno::AGAIN) {
        let connected = record::stored(&file).and_then(|stored| connect(&stored.socket));
        return Ok(connected
            .and_then(|socket| Running::new(path.to_owned(), socket))
            .ok()
            .map(Adoption::Running));
    }
    locked?;
    // Nobody owns it, and as long as we hold the lock nobody will.
    Ok(Some(match record::status(&file)? {
        None => {
            // A supervisor that comes to it later finds this, and leaves.
            let mut taken = Status::started(boot_id());
            taken.state = State::Failed;
            taken.error = Some("it was taken back before it started".into());
            record::report(&file, &taken)?;
            Adoption::NeverStarted
        }
        Some(status) if status.state != State::Running => Adoption::Ended(status),
        Some(status) if status.boot_id != boot_id() => {
            Adoption::Lost("the machine was restarted while it ran".into())
        }
        Some(_) => Adoption::Lost("its supervisor was killed".into()),
    }))
}

/// Reads a supervisor's report.
pub fn status(path: &Path) -> io::Result<Status> {
    record::status(&File::open(path)?)?.ok_or_else(|| io::Error::other("the command has not started"))
}

/// Reads what a supervisor was told.
pub fn spec_of(path: &Path) -> io::Result<Spec> {
    Ok(record::stored(&File::open(path)?)?.spec)
}

fn connect(name: &str) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}
