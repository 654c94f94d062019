//! The near end of a terminal whose far end a supervised command has.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use legwork_executor::Size;
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::termios::{LocalModes, QueueSelector, SpecialCodeIndex};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What a terminal that is flooded gives at once.
const MUCH: usize = 1024;

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
        // The kernel gives a page at a time: after much, take what else lies ready.
        let mut last = len;
        while last >= MUCH && len < buffer.len() {
            last = rustix::io::read(self.master.get_ref(), &mut buffer[len..]).unwrap_or(0);
            len += last;
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
        resize(self.master.get_ref(), size);
    }

    /// Whether `byte` is this terminal's interrupt character, that is: typing it sends
    /// SIGINT, rather than being read by a program.
    pub fn interrupts(&self, byte: u8) -> bool {
        rustix::termios::tcgetattr(self.master.get_ref()).is_ok_and(|modes| {
            modes.local_modes.contains(LocalModes::ISIG)
                && modes.special_codes[SpecialCodeIndex::VINTR] == byte
        })
    }

    /// Types the interrupt character past all that was typed and not read: a terminal whose
    /// input is full does not hear it.
    pub fn interrupt(&self, byte: u8) -> io::Result<()> {
        use rustix::fs::{Mode, OFlags};
        // What was typed is at the far end already.
        let name = rustix::pty::ptsname(self.master.get_ref(), Vec::new())?;
        let far = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::termios::tcflush(&far, QueueSelector::IFlush)?;
        if self.try_write(&[byte])? == 0 {
            let foreground = rustix::termios::tcgetpgrp(self.master.get_ref())?;
            rustix::process::kill_process_group(foreground, Signal::INT)?;
        }
        Ok(())
    }
}

/// Makes a terminal: its near end and its far end.
pub(crate) fn open(size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    resize(&master, size);
    Ok((master, slave))
}

/// Changes a terminal's size.
pub(crate) fn resize(terminal: impl AsFd, size: Size) {
    let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}
