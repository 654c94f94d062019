//! Where the controller is: its lines come in here, and `poll` waits here.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::input::{Line, Lines};
use crate::os::{Signals, Tree};
use crate::output::Output;
use crate::request;

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// The controller, the signals and the children.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) signals: Signals,
    pub(crate) output: Output,
    pub(crate) tree: Tree,
    lines: Lines,
    /// Read while a command took its input, and not for it.
    put_back: Option<Line>,
    closed: bool,
    /// The end of our life.
    pub(crate) end: Instant,
}

/// What comes next.
pub(crate) enum Next {
    Line(Line),
    Closed,
    Expired,
    /// Nobody reads our answers any more.
    Gone,
    Signal(i32),
}

impl Port {
    pub(crate) fn new(signals: Signals, mut output: Output, end: Instant) -> Self {
        output.obey(signals.stop());
        Self {
            signals,
            output,
            tree: Tree::adopt_orphans(),
            lines: Lines::default(),
            put_back: None,
            closed: false,
            end,
        }
    }

    /// Waits for the controller's next line.
    pub(crate) fn next(&mut self) -> Next {
        loop {
            if let Some(signal) = self.signals.terminated() {
                return Next::Signal(signal);
            }
            if Instant::now() >= self.end {
                return Next::Expired;
            }
            if let Some(line) = self.put_back.take().or_else(|| self.lines.next_line()) {
                return Next::Line(line);
            }
            if self.closed {
                return self.lines.last_line().map_or(Next::Closed, Next::Line);
            }
            let stdin = rustix::stdio::stdin();
            let mut polled = [
                PollFd::from_borrowed_fd(self.signals.fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(stdin, PollFlags::IN),
                // Asked for nothing, it still tells that the controller is gone.
                PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::empty()),
            ];
            poll_flags(&mut polled, Some(self.end));
            let [signalled, readable, gone] = polled.map(|fd| !fd.revents().is_empty());
            if signalled {
                self.signals.drain();
            }
            if gone && !readable {
                self.output.set_broken();
                return Next::Gone;
            }
            if readable {
                self.read();
            }
        }
    }

    /// Reads once.
    fn read(&mut self) {
        let mut chunk = [0u8; CHUNK];
        match rustix::io::read(rustix::stdio::stdin(), &mut chunk) {
            Ok(0) => self.closed = true,
            Ok(n) => self.lines.push(&chunk[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.closed = true,
        }
    }

    /// More input for a running command, in the controller's next lines; true once there is
    /// no more. Any other line is the next command's, and waits.
    pub(crate) fn input_for(&mut self, id: &str, to: &mut Vec<u8>, readable: bool) -> bool {
        if readable {
            self.read();
        }
        while let Some(line) = self.lines.next_line() {
            let Line::Complete(bytes) = &line else {
                self.put_back = Some(line);
                return true;
            };
            match request::parse(bytes).ok().filter(|request| request.id == id).and_then(|r| r.input()) {
                Some((more, is_end)) => {
                    to.extend_from_slice(&more);
                    if is_end {
                        return true;
                    }
                }
                None => {
                    self.put_back = Some(line);
                    return true;
                }
            }
        }
        self.closed
    }
}

fn timeout(until: Option<Instant>) -> Option<Timespec> {
    let left = until?.saturating_duration_since(Instant::now());
    // A time beyond the kernel's range is as good as a day.
    Some(
        Timespec::try_from(left.min(Duration::from_secs(86_400)))
            .unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }),
    )
}

/// Waits until one of these can be read, has ended, or the time is over. A signal may end
/// the wait early.
pub(crate) fn wait(fds: &[&dyn AsFd], until: Option<Instant>) -> Vec<bool> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
    match poll(&mut polled, timeout(until).as_ref()) {
        Ok(_) => polled.iter().map(|fd| !fd.revents().is_empty()).collect(),
        Err(_) => vec![false; fds.len()],
    }
}

/// Waits until more can be written; false if the time is over first.
pub(crate) fn wait_to_write(fd: BorrowedFd<'_>, until: Instant) -> bool {
    loop {
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        match poll(&mut polled, timeout(Some(until)).as_ref()) {
            Ok(0) if Instant::now() < until => {}
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A set to poll that keeps apart what it was asked for; true if a signal ended the wait.
pub(crate) fn poll_flags(polled: &mut [PollFd<'_>], until: Option<Instant>) -> bool {
    match poll(polled, timeout(until).as_ref()) {
        Ok(_) => false,
        Err(error) => {
            for fd in polled.iter_mut() {
                fd.clear_revents();
            }
            error == Errno::INTR
        }
    }
}
