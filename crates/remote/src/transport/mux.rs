//! A session on a connection that an OpenSSH master holds, without an ssh process of our
//! own: OpenSSH's `PROTOCOL.mux`, version 4.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::{Guard, Link, Said};

const HELLO: u32 = 1;
const VERSION: u32 = 4;
const NEW_SESSION: u32 = 0x1000_0002;
const TERMINATE: u32 = 0x1000_0005;
const PERMISSION_DENIED: u32 = 0x8000_0002;
const FAILURE: u32 = 0x8000_0003;
const EXIT_MESSAGE: u32 = 0x8000_0004;
const SESSION_OPENED: u32 = 0x8000_0006;
const NO_ESCAPE: u32 = 0xffff_ffff;
/// Of our environment, so much goes to the master: it takes messages of 256 KiB.
const MAX_ENVIRONMENT: usize = 128 * 1024;
/// What is longer is hardly meant for other hosts.
const MAX_ENTRY: usize = 16 * 1024;
/// A master's messages are short.
const MAX_PACKET: usize = 64 * 1024;

/// A session; dropping it ends it.
pub(crate) struct Session {
    stream: UnixStream,
}

impl Session {
    /// Waits for the end of the host's process.
    pub(crate) async fn ended(&mut self) {
        while let Ok(packet) = read(&mut self.stream).await {
            if Fields(&packet).number() == Some(EXIT_MESSAGE) {
                return;
            }
        }
    }
}

/// A packet in the making.
struct Packet(Vec<u8>);

impl Packet {
    fn new(kind: u32) -> Self {
        Self(Vec::new()).number(kind)
    }

    fn number(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn string(self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let mut packet = self.number(length);
        packet.0.extend_from_slice(text.as_bytes());
        packet
    }

    async fn send(self, stream: &mut UnixStream) -> io::Result<()> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        stream.write_all(&[&length.to_be_bytes()[..], &self.0].concat()).await
    }
}

/// A packet's fields.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

async fn read(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > MAX_PACKET {
        return Err(bad("a message of the master is too long"));
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    Packet::new(HELLO).number(VERSION).send(&mut stream).await?;
    let packet = read(&mut stream).await?;
    let mut fields = Fields(&packet);
    if (fields.number(), fields.number()) != (Some(HELLO), Some(VERSION)) {
        return Err(bad("the master speaks another version"));
    }
    Ok(stream)
}

/// Our environment: the master passes on what the user's `SendEnv` names, as the first
/// connection did.
fn environment() -> impl Iterator<Item = String> {
    let entries = std::env::vars_os().filter_map(|(name, value)| {
        Some(format!("{}={}", name.to_str()?, value.to_str()?)).filter(|entry| entry.len() <= MAX_ENTRY)
    });
    let mut left = MAX_ENVIRONMENT;
    entries.take_while(move |entry| {
        let fits = left.checked_sub(entry.len() + 4);
        left = fits.unwrap_or(0);
        fits.is_some()
    })
}

/// Opens a session that runs a line.
pub(crate) async fn open(socket: &Path, line: &str) -> io::Result<Link> {
    let mut stream = connect(socket).await?;
    let new = Packet::new(NEW_SESSION).number(0).string("");
    // No terminal, X11, agent or subsystem.
    let new = new.number(0).number(0).number(0).number(0).number(NO_ESCAPE);
    environment()
        .fold(new.string("").string(line), |new, entry| new.string(&entry))
        .send(&mut stream)
        .await?;
    let (their_in, our_in) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_out, their_out) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_err, their_err) = pipe_with(PipeFlags::CLOEXEC)?;
    for fd in [their_in, their_out, their_err] {
        give(&stream, fd).await?;
    }
    let packet = read(&mut stream).await?;
    let mut fields = Fields(&packet);
    match fields.number() {
        Some(SESSION_OPENED) => {}
        Some(PERMISSION_DENIED | FAILURE) => {
            let _request = fields.number();
            return Err(io::Error::other(fields.string().unwrap_or_default()));
        }
        _ => return Err(bad("the master did not open a session")),
    }
    Ok(Link {
        stdin: Box::new(pipe::Sender::from_owned_fd(our_in)?),
        stdout: Box::new(pipe::Receiver::from_owned_fd(our_out)?),
        stays: true,
        early: Vec::new(),
        said: Said::listen(pipe::Receiver::from_owned_fd(our_err)?),
        guard: Some(Guard::Session(Session { stream })),
    })
}

/// Ends the connection with all its sessions.
pub(crate) async fn terminate(socket: &Path) -> io::Result<()> {
    let mut stream = connect(socket).await?;
    Packet::new(TERMINATE).number(0).send(&mut stream).await?;
    // It answers, or is gone; both will do.
    let _ = read(&mut stream).await;
    Ok(())
}

/// Hands a descriptor to the master, with a byte to carry it.
async fn give(stream: &UnixStream, fd: OwnedFd) -> io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            let fds: [BorrowedFd<'_>; 1] = [fd.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&fds));
            sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        })
        .await
}
