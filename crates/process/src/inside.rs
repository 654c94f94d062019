//! The way into the network of a command behind a wall.
//!
//! A socket belongs to the network it was made in, so connections into it are made by the one
//! process of ours that is there: the one that waits outside the command's other namespaces
//! for its end. It makes sockets and hands them over; what goes through them never passes it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// A question: its number, which family, which port. An answer: the number, and an error or
/// zero; with zero comes a socket that is being connected.
const QUESTION: usize = 7;
const ANSWER: usize = 8;
/// Most of a table of sockets that is read: some 27,000 sockets.
const MAX_TABLE: usize = 4 << 20;

/// Connects to what listens within a command's own network.
#[derive(Debug)]
pub struct Inside {
    asking: Mutex<Asking>,
    /// The kernel's tables of that network's TCP sockets.
    tables: Vec<File>,
}

#[derive(Debug)]
struct Asking {
    socket: AsyncFd<OwnedFd>,
    asked: u32,
}

impl Inside {
    /// `fds`: what asks, then the tables.
    pub(crate) fn new(mut fds: Vec<OwnedFd>) -> io::Result<Option<Self>> {
        if fds.is_empty() {
            return Ok(None);
        }
        let tables = fds.split_off(1).into_iter().map(File::from).collect();
        let Some(socket) = fds.pop() else { return Ok(None) };
        let asking = Asking { socket: crate::sys::watch(socket)?, asked: 0 };
        Ok(Some(Self { asking: Mutex::new(asking), tables }))
    }

    /// Connects to a port of the loopback device there, by IPv4 or else by IPv6. Safe to
    /// cancel.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        match self.try_connect(4, port).await {
            Err(first) => self.try_connect(6, port).await.map_err(|_| first),
            connected => connected,
        }
    }

    async fn try_connect(&self, family: u8, port: u16) -> io::Result<TcpStream> {
        let stream = TcpStream::from_std(self.socket(family, port).await?.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// A socket there that is being connected.
    async fn socket(&self, family: u8, port: u16) -> io::Result<OwnedFd> {
        let mut asking = self.asking.lock().await;
        // Who has stopped waiting leaves an answer behind: each says what it answers.
        asking.asked = asking.asked.wrapping_add(1);
        let number = asking.asked.to_le_bytes();
        let mut question = [0u8; QUESTION];
        question[..4].copy_from_slice(&number);
        question[4] = family;
        question[5..].copy_from_slice(&port.to_le_bytes());
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let send = |fd: &OwnedFd| Ok(rustix::net::send(fd, &question, flags)?);
        asking.socket.async_io(Interest::WRITABLE, send).await?;
        loop {
            let (said, fd) = asking.socket.async_io(Interest::READABLE, |fd| hear(fd.as_fd())).await?;
            if said[..4] != number {
                continue;
            }
            let [_, _, _, _, a, b, c, d] = said;
            return match (i32::from_le_bytes([a, b, c, d]), fd) {
                (0, Some(fd)) => Ok(fd),
                (0, None) => Err(io::Error::other("no socket came")),
                (error, _) => Err(io::Error::from_raw_os_error(error)),
            };
        }
    }

    /// What listens there, as `/proc/net/tcp` and `tcp6` have it.
    pub fn tables(&self) -> io::Result<String> {
        let mut all = Vec::new();
        for table in &self.tables {
            let mut at = 0;
            let mut buffer = [0u8; 16 * 1024];
            while at < MAX_TABLE {
                let len = table.read_at(&mut buffer, at as u64)?;
                if len == 0 {
                    break;
                }
                all.extend_from_slice(&buffer[..len]);
                at += len;
            }
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    }
}

/// An answer; an error when nobody answers any more.
fn hear(socket: BorrowedFd<'_>) -> io::Result<([u8; ANSWER], Option<OwnedFd>)> {
    let mut bytes = [0u8; ANSWER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let len = message.bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match len {
        ANSWER => Ok((bytes, fd)),
        _ => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// Answers until the command has ended or nobody can ask any more. `ended`: readable when it
/// has.
pub(crate) fn serve(asked: BorrowedFd<'_>, ended: BorrowedFd<'_>) {
    loop {
        let mut fds = [PollFd::new(&asked, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        let mut question = [0u8; QUESTION];
        match rustix::net::recv(asked, &mut question, RecvFlags::DONTWAIT) {
            Ok((QUESTION, _)) => answer(asked, question),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

fn answer(asked: BorrowedFd<'_>, question: [u8; QUESTION]) {
    let [a, b, c, d, family, low, high] = question;
    let mut said = [a, b, c, d, 0, 0, 0, 0];
    let made = connecting(family, u16::from_le_bytes([low, high]));
    let fds;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    match &made {
        Ok(socket) => {
            fds = [socket.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
            said[4..].copy_from_slice(&errno.to_le_bytes());
        }
    }
    // Who asks takes the answer before they ask again, but for what they no longer want: there
    // is room for that, and the command must not wait for it.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let _ = rustix::net::sendmsg(asked, &[IoSlice::new(&said)], &mut control, flags);
}

/// A socket that is being connected: nobody waits here for a program that does not accept.
fn connecting(family: u8, port: u16) -> io::Result<OwnedFd> {
    let (family, address) = match family {
        4 => (AddressFamily::INET, SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        6 => (AddressFamily::INET6, SocketAddr::from((Ipv6Addr::LOCALHOST, port))),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn connections_are_made_by_another_and_reach_what_listens() {
        let pair = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        );
        let (asks, asked) = pair.expect("a pair");
        let (ended, ends) = rustix::pipe::pipe().expect("a pipe");
        let there = std::thread::spawn(move || serve(asked.as_fd(), ended.as_fd()));
        let table = File::open("/proc/self/net/tcp").expect("a table");
        let inside = Inside::new(vec![asks, table.into()]).expect("watched").expect("there");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else { continue };
            let port = listener.local_addr().expect("an address").port();
            let (near, far) = tokio::join!(inside.connect(port), listener.accept());
            let (mut near, mut far) = (near.expect("connected"), far.expect("accepted").0);
            far.write_all(b"hello").await.expect("written");
            let mut got = [0u8; 5];
            near.read_exact(&mut got).await.expect("read");
            assert_eq!(&got, b"hello");
            if address.starts_with('1') {
                let listed = format!(":{port:04X} ");
                assert!(inside.tables().expect("tables").contains(&listed), "{listed}");
            }
            drop(listener);
            let refused = inside.connect(port).await.expect_err("nobody listens");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
        drop(ends);
        there.join().expect("it ends with the command");
        assert!(inside.connect(1).await.is_err());
    }

    #[tokio::test]
    async fn who_stops_waiting_does_not_get_the_next_one_a_wrong_socket() {
        let pair = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        );
        let (asks, asked) = pair.expect("a pair");
        let inside = Inside::new(vec![asks]).expect("watched").expect("there");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        // Nobody answers yet, so this one gives up after it has asked.
        tokio::select! {
            biased;
            _ = inside.socket(4, 1) => panic!("answered by nobody"),
            () = tokio::task::yield_now() => {}
        }
        let (ended, ends) = rustix::pipe::pipe().expect("a pipe");
        let there = std::thread::spawn(move || serve(asked.as_fd(), ended.as_fd()));
        let (near, far) = tokio::join!(inside.connect(port), listener.accept());
        assert_eq!(near.expect("connected").peer_addr().expect("a peer").port(), port);
        far.expect("accepted");
        drop(ends);
        there.join().expect("it ends");
    }
}
