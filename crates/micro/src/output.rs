//! Messages to the controller: written as they are made, never held whole.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::micro::{Message, Metadata};
use rustix::fs::{FileType, OFlags};
use serde::{Serialize, Serializer};

use crate::clock;
use crate::port::wait_to_write;

/// So much may wait for the controller while a command streams; more, and the command waits.
const HIGH: usize = 256 * 1024;
/// Between two looks whether a signal has come, while the controller takes nothing.
const LOOK: Duration = Duration::from_millis(500);
/// A pipe to the controller may hold so much while a long message goes through it.
#[cfg(target_os = "linux")]
const WIDE: usize = 1024 * 1024;
/// A message in the making is written out in pieces of this.
const PIECE: usize = 64 * 1024;
/// A controller that takes nothing is given up this long after the end of our life.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Standard output. Once it is broken, all that is written is dropped.
#[derive(Debug)]
pub(crate) struct Output {
    pending: Vec<u8>,
    written: usize,
    broken: bool,
    /// Until when a write may wait for the controller.
    pub(crate) until: Instant,
    blocking: Option<OFlags>,
    /// The signal that ends us, once it has come.
    stop: Option<Arc<AtomicUsize>>,
}

fn stdout() -> BorrowedFd<'static> {
    rustix::stdio::stdout()
}

impl Output {
    /// Takes standard output. A pipe or a socket is made non-blocking, so that the clock
    /// goes on while the controller is slow; other files are shared and stay as they are.
    pub(crate) fn open(until: Instant) -> Self {
        let own = rustix::fs::fstat(stdout()).is_ok_and(|stat| {
            matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket)
        });
        let flags =
            rustix::fs::fcntl_getfl(stdout()).ok().filter(|flags| own && !flags.contains(OFlags::NONBLOCK));
        let blocking =
            flags.filter(|flags| rustix::fs::fcntl_setfl(stdout(), *flags | OFlags::NONBLOCK).is_ok());
        Self { pending: Vec::new(), written: 0, broken: false, until, blocking, stop: None }
    }

    /// Waits no longer than a moment once there is a signal.
    pub(crate) fn obey(&mut self, stop: Arc<AtomicUsize>) {
        self.stop = Some(stop);
    }

    /// Whether the controller takes nothing any more.
    pub(crate) fn broken(&self) -> bool {
        self.broken
    }

    /// The controller's end is gone.
    pub(crate) fn set_broken(&mut self) {
        self.broken = true;
        self.pending = Vec::new();
        self.written = 0;
    }

    /// Something waits to be written.
    pub(crate) fn waiting(&self) -> bool {
        self.written < self.pending.len()
    }

    /// So much waits that no more should be made.
    pub(crate) fn full(&self) -> bool {
        self.pending.len() - self.written >= HIGH
    }

    /// Adds bytes without writing them.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.broken {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Where whole messages may be added without writing them.
    pub(crate) fn pending(&mut self) -> &mut Vec<u8> {
        if self.broken {
            self.pending.clear();
        }
        &mut self.pending
    }

    /// Writes what can be written without waiting.
    pub(crate) fn try_flush(&mut self) {
        while self.waiting() && !self.broken {
            match rustix::io::write(stdout(), &self.pending[self.written..]) {
                Ok(n) => self.written += n,
                Err(rustix::io::Errno::AGAIN) => {
                    // A reader that is always a little behind must not make it grow.
                    if self.written >= PIECE {
                        self.pending.drain(..self.written);
                        self.written = 0;
                    }
                    return;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => self.set_broken(),
            }
        }
        self.pending.clear();
        self.written = 0;
        if self.pending.capacity() > 2 * HIGH {
            self.pending.shrink_to(HIGH);
        }
    }

    /// Writes all, waiting for the controller as long as it may.
    pub(crate) fn flush_all(&mut self) {
        self.try_flush();
        while self.waiting() && !self.broken {
            let now = Instant::now();
            if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed) > 0) {
                // Told to end: what is on its way gets a moment, not the rest of our life.
                self.until = self.until.min(now + PATIENCE);
                self.stop = None;
            }
            if now >= self.until {
                self.set_broken();
            } else if wait_to_write(stdout(), self.until.min(now + LOOK)) {
                self.try_flush();
            }
        }
    }

    /// Writes a message and sends it off.
    pub(crate) fn message<D: Serialize>(&mut self, kind: &str, data: D) {
        self.add(kind, data);
        self.flush_all();
    }

    /// A long message comes: a pipe that holds more needs fewer changes of process.
    pub(crate) fn widen(&self) {
        #[cfg(target_os = "linux")]
        if self.blocking.is_some() {
            let _ = rustix::pipe::fcntl_setpipe_size(stdout(), WIDE);
        }
    }

    /// Adds a message.
    pub(crate) fn add<D: Serialize>(&mut self, kind: &str, data: D) {
        let message = Message { kind: kind.to_owned(), timestamp: Some(clock::timestamp()), data };
        // Writing to `self` can't fail, and our types have no keys that are no strings.
        let _ = serde_json::to_writer(&mut *self, &message);
        self.push(b"\n");
    }

    /// Gives standard output back as it was.
    pub(crate) fn close(&mut self) {
        if let Some(flags) = self.blocking.take() {
            let _ = rustix::fs::fcntl_setfl(stdout(), flags);
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        if self.pending.len() - self.written >= PIECE {
            self.flush_all();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long a message would be.
pub(crate) fn length_of<D: Serialize>(data: &D) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    let _ = serde_json::to_writer(&mut count, data);
    count.0
}

/// How long a text is as a string of JSON.
pub(crate) fn length_in_json(text: &str) -> usize {
    let extra = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + 2 + text.bytes().map(extra).sum::<usize>()
}

/// Bytes as a string of JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text<'a> {
    /// What is no UTF-8 becomes U+FFFD.
    Lossy(&'a [u8]),
    /// As base64.
    Base64(&'a [u8]),
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lossy(bytes) => {
                for chunk in bytes.utf8_chunks() {
                    f.write_str(chunk.valid())?;
                    if !chunk.invalid().is_empty() {
                        f.write_str("\u{fffd}")?;
                    }
                }
                Ok(())
            }
            Self::Base64(bytes) => Base64Display::new(bytes, &STANDARD).fmt(f),
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // Text at once, without looking for what is none.
            Self::Lossy(bytes) if let Ok(text) = std::str::from_utf8(bytes) => serializer.serialize_str(text),
            _ => serializer.collect_str(self),
        }
    }
}

/// One entry, as `details` and `metadata` have them.
pub(crate) fn entry(name: &str, value: impl Into<String>) -> Metadata {
    Metadata::from([(name.to_owned(), value.into())])
}

/// Says something to the person at the terminal.
pub(crate) fn say(text: &str) {
    let _ = rustix::io::write(stdout(), text.as_bytes());
}

/// Complains to the person at the terminal.
pub(crate) fn complain(text: &str) {
    let _ = rustix::io::write(rustix::stdio::stderr().as_fd(), format!("legwork-micro: {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_long_as_it_is_written() {
        let all: String = (0..300).filter_map(char::from_u32).collect();
        for text in ["", "plain", "\"\\/\u{7f}\u{2028}", &all] {
            assert_eq!(length_in_json(text), serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
    }
}
