//! The near end of a terminal whose far end a supervised command has.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::process::Signal;
use rustix::termios::{LocalModes, QueueSelector, SpecialCodeIndex};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::spec::Size;
use crate::supervisor;

/// Reads what a terminal shows, and types into it. Dropping it hangs up.
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    pub(crate) fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self { master: crate::sys::watch(master)? })
    }

    /// Reads what there is, at most the buffer; 0 when nobody has the far end any more.
    /// Safe to cancel.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let first = self.master.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?));
        let mut len = match first.await {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return Ok(0),
            result => result?,
        };
        // The kernel gives a page at a time: take what else lies ready.
        while len > 0 && len < buffer.len() {
            match rustix::io::read(self.master.get_ref(), &mut buffer[len..]) {
                Ok(more) if more > 0 => len += more,
                _ => break,
            }
        }
        Ok(len)
    }

    /// Types as much as the terminal takes now.
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        match rustix::io::write(self.master.get_ref(), data) {
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            result => Ok(result?),
        }
    }

    /// Waits until the terminal takes something of what waits in `queue`, and types that.
    /// Safe to cancel.
    pub async fn type_from(&self, queue: &Mutex<VecDeque<u8>>) -> io::Result<()> {
        let some = |fd: &OwnedFd| {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.is_empty() {
                return Ok(());
            }
            let taken = rustix::io::write(fd, queue.as_slices().0)?;
            queue.drain(..taken);
            Ok(())
        };
        self.master.async_io(Interest::WRITABLE, some).await
    }

    /// Changes its size.
    pub fn resize(&self, size: Size) {
        supervisor::resize(self.master.get_ref(), size);
    }

    /// Whether `byte` is this terminal's interrupt character, that is: typing it sends
    /// SIGINT, rather than being read by a program.
    pub fn interrupts(&self, byte: u8) -> bool {
        rustix::termios::tcgetattr(self.master.get_ref()).is_ok_and(|modes| {
            modes.local_modes.contains(LocalModes::ISIG)
                && modes.special_codes[SpecialCodeIndex::VINTR] == byte
        })
    }

    /// Interrupts whoever is in the foreground, past all that was typed and not read:
    /// a terminal whose input is full does not hear its interrupt character.
    pub fn interrupt(&self) -> io::Result<()> {
        let _ = rustix::termios::tcflush(self.master.get_ref(), QueueSelector::OFlush);
        let foreground = rustix::termios::tcgetpgrp(self.master.get_ref())?;
        Ok(rustix::process::kill_process_group(foreground, Signal::INT)?)
    }
}
