//! How much a client may send before it has said who it is.
//!
//! A message is held in memory until it is whole, so whoever may change nothing, or has not
//! shown yet that it may be here, can't begin one of megabytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::handler::Trust;

/// Most bytes of a message of somebody who has not joined, and of one who may only look.
const UNKNOWN: usize = 64 * 1024;
const LOOKING: usize = 1 << 20;

/// Bytes that may still be read for the message under way.
#[derive(Debug, Clone)]
pub(crate) struct Meter(Arc<AtomicUsize>);

impl Meter {
    pub(crate) fn new(trust: Trust) -> Self {
        Self(Arc::new(AtomicUsize::new(most(trust))))
    }

    /// A message is whole: the next one may be as large.
    pub(crate) fn refill(&self, trust: Trust) {
        self.0.store(most(trust), Ordering::Relaxed);
    }
}

/// Most bytes of a message.
pub(crate) fn most(trust: Trust) -> usize {
    match trust {
        Trust::Unknown => UNKNOWN,
        Trust::Looks => LOOKING,
        Trust::Works => usize::MAX,
    }
}

/// A connection of which so much is read.
#[derive(Debug)]
pub(crate) struct Metered {
    pub(crate) tcp: TcpStream,
    pub(crate) meter: Meter,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.meter.0.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if left != usize::MAX {
            self.meter.0.store(left.saturating_sub(read), Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
