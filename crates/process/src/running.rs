//! The runner's end: watching a supervised command, and finding it again.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::spec::{Size, State, Status, boot_id};
use crate::supervisor::{CANCEL, GROWN, INPUT, MAX_MESSAGE, RESIZE};

/// What happened to a running command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The journal has grown to this many bytes.
    Output(u64),
    /// The supervisor is gone: [`status`] says how the command ended.
    Ended,
}

/// A connection to a supervisor. Dropping it leaves the command running.
#[derive(Debug)]
pub struct Running {
    dir: PathBuf,
    socket: AsyncFd<OwnedFd>,
}

impl Running {
    pub(crate) fn new(dir: PathBuf, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { dir, socket: crate::sys::watch(socket)? })
    }

    /// The supervisor's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until there is more output or the command has ended. Safe to cancel.
    pub async fn progress(&self) -> Progress {
        loop {
            let mut message = [0u8; 16];
            let received = self
                .socket
                .async_io(Interest::READABLE, |fd| {
                    rustix::net::recv(fd, &mut message, RecvFlags::DONTWAIT).map_err(io::Error::from)
                })
                .await;
            match received {
                Ok((9, _)) if message[0] == GROWN => {
                    let mut len = [0u8; 8];
                    len.copy_from_slice(&message[1..9]);
                    return Progress::Output(u64::from_le_bytes(len));
                }
                Ok((0, _)) | Err(_) => return Progress::Ended,
                Ok(_) => {}
            }
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

/// Finds a command again by its supervisor's folder. Blocks for up to a second if
/// the supervisor is only just starting.
pub fn adopt(dir: &Path) -> Adoption {
    const TRIES: u32 = 50;
    // A supervisor that comes to it later finds the file and leaves.
    if std::fs::File::create_new(dir.join("status")).is_ok() {
        return Adoption::NeverStarted;
    }
    for _ in 0..TRIES {
        if let Ok(running) = connect(dir).and_then(|socket| Running::new(dir.to_owned(), socket)) {
            return Adoption::Running(running);
        }
        match status(dir) {
            Ok(status) if status.state != State::Running => return Adoption::Ended(status),
            Ok(status) if status.boot_id != boot_id() => {
                return Adoption::Lost("the machine was restarted while it ran".into());
            }
            Ok(_) if !is_locked(dir) => {
                // It may have ended between the two looks.
                return match status(dir) {
                    Ok(status) if status.state != State::Running => Adoption::Ended(status),
                    _ => Adoption::Lost("its supervisor was killed".into()),
                };
            }
            // It is only just starting, or was killed while it did.
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    Adoption::Lost("its supervisor does not answer".into())
}

/// Reads a supervisor's report.
pub fn status(dir: &Path) -> io::Result<Status> {
    let text = std::fs::read_to_string(dir.join("status"))?;
    Ok(serde_json::from_str(text.trim_end())?)
}

/// Whether a supervisor holds the folder.
fn is_locked(dir: &Path) -> bool {
    let Ok(file) = std::fs::File::open(dir.join("status")) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::AGAIN)
}

fn connect(dir: &Path) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(dir, flags, Mode::empty())?;
    // Socket paths are limited to 107 bytes: the folder is named by its descriptor.
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/control.sock", folder.as_raw_fd()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}
