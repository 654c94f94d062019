//! Signals, as something that `poll` sees.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// Wakes `poll` when a child has ended or we are to end.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: UnixStream,
    terminated: Arc<AtomicUsize>,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let terminated = Arc::new(AtomicUsize::new(0));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&terminated), number)?;
            signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGCHLD, waker)?;
        Ok(Self { wake, terminated })
    }

    /// Readable once a signal has come.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Where the number of the signal that ends us will be.
    pub(crate) fn stop(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.terminated)
    }

    /// Forgets what woke us.
    pub(crate) fn drain(&mut self) {
        let mut bytes = [0u8; 64];
        while matches!(self.wake.read(&mut bytes), Ok(n) if n == bytes.len()) {}
    }

    /// The signal that ends us, once it has come.
    pub(crate) fn terminated(&self) -> Option<i32> {
        let signal = self.terminated.load(Ordering::Relaxed);
        i32::try_from(signal).ok().filter(|signal| *signal > 0)
    }
}
