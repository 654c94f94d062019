//! The exec gate: what a command's tree executes is judged before it happens.
//!
//! The command starts under a filter ([`legwork_sandbox::exec_filter`]) that makes the
//! kernel ask for each exec. The question comes to the command's supervisor, which reads
//! what would be executed ([`read`], [`target`]), finds out who calls ([`lineage`]), asks
//! the rules ([`judge`]) and lets the call go on, or fail with EACCES. Whatever is
//! unexpected fails.
//!
//! This holds against what a shell and honest programs do. The kernel reads the arguments
//! again when the call goes on: a program that changes them meanwhile, by a thread, is not
//! held (`docs/security.md`).

mod denied;
mod judge;
mod lineage;
mod names;
mod process;
mod read;
mod script;
mod target;
mod watch;
mod write;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork_policy::Policy;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

pub use denied::Denial;

use crate::spec::Spec;
use crate::sys::{self, Answer, Notice};
use denied::Denied;
use judge::{Judge, Refusal};
use write::{Later, Opened, Opening};

/// A judgement that takes longer means that something hangs; the supervisor is then ended,
/// and the kernel refuses what it would have judged.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls that are read and wait for their answer.
const MOST_WAITING: usize = 256;

/// The gate around a command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Gate {
    /// What may be executed.
    pub rules: Policy,
    /// The command is a shell that the runner started: it is not judged itself, and what
    /// it executes is judged as the line's own.
    pub shell: bool,
    /// The folder that rules for paths may be relative to, without links in it.
    #[serde(default)]
    pub workspace: PathBuf,
    /// The folder that the command starts in, which rules may be relative to as well, without
    /// links in it.
    #[serde(default)]
    pub folder: PathBuf,
    /// Refuse what is executed by a process that shares its memory with another one, as it
    /// could change what is executed after it was judged. Default off: programs with threads
    /// then start no others.
    #[serde(default)]
    pub strict: bool,
    /// Judge what the shell itself opens for writing, too: every opening for writing of the
    /// tree then costs a question.
    #[serde(default)]
    pub writes: bool,
    /// Refuse files in memory.
    #[serde(default)]
    pub no_memfd: bool,
    /// All that the kernel itself may let be executed; `None` for no such list.
    #[serde(default)]
    pub programs: Option<Vec<PathBuf>>,
}

impl Gate {
    /// The folders that rules may be relative to.
    fn folders(&self) -> impl Iterator<Item = &Path> {
        let second = Some(&self.folder).filter(|folder| **folder != self.workspace);
        let all = std::iter::once(&self.workspace).chain(second);
        all.map(PathBuf::as_path).filter(|folder| folder.is_absolute())
    }
}

/// What may happen.
enum Judged {
    Exec(judge::Passed),
    Opened(Opened),
}

/// Who answers for a command's execs.
pub(crate) struct Gatekeeper {
    listener: OwnedFd,
    judge: Judge,
    denied: Denied,
}

impl Gatekeeper {
    /// The first exec is the command's own, and must be just that.
    pub(crate) fn new(listener: OwnedFd, gate: &Gate, spec: &Spec) -> io::Result<Self> {
        sys::wake_here(listener.as_fd());
        Ok(Self { listener, judge: Judge::new(gate, spec)?, denied: Denied::default() })
    }

    /// What becomes readable when a call waits.
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Looks whether the command has become what was to be started: its descendants are told
    /// apart from others by that. Whether it is known.
    pub(crate) fn look_at_root(&mut self) -> bool {
        self.judge.look_at_root()
    }

    /// The root of the tree has ended.
    pub(crate) fn root_ended(&mut self) {
        self.judge.root_ended();
    }

    /// Answers all calls that wait. Fails where they can't be read at all: then nobody can
    /// answer, and the kernel refuses them once this is dropped.
    pub(crate) fn answer_waiting(&mut self) -> io::Result<()> {
        let answered = self.answer_all();
        sys::end_unless_done(None);
        answered
    }

    fn answer_all(&mut self) -> io::Result<()> {
        // A call that was read waits whatever signals come; one in the queue is interrupted by
        // them. So all are read before the first is judged.
        let mut waiting = VecDeque::new();
        loop {
            while waiting.len() < MOST_WAITING && self.has_next()? {
                sys::end_unless_done(Some(PATIENCE));
                match sys::next_notice(self.listener.as_fd()) {
                    Ok(notice) => waiting.push_back(notice),
                    // It has gone: somebody killed its process.
                    Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR | libc::EAGAIN)) => {
                    }
                    Err(e) => return Err(e),
                }
            }
            let Some(notice) = waiting.pop_front() else { return Ok(()) };
            sys::end_unless_done(Some(PATIENCE));
            self.answer(&notice);
        }
    }

    /// Whether a call waits that was not read.
    fn has_next(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => Ok(fds[0].revents().contains(PollFlags::IN)),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn answer(&mut self, notice: &Notice) {
        let judged = if write::opens(notice) {
            self.judge.opening(notice).map(Judged::Opened)
        } else {
            self.judge.call(notice).map(Judged::Exec)
        };
        // What was read by the process's number was its own only if the call still waits.
        if !sys::still_waits(self.listener.as_fd(), notice.id) {
            return;
        }
        let judged = match judged {
            Ok(Judged::Exec(passed)) if passed.expected().is_some() => return self.follow(notice, passed),
            judged => judged,
        };
        let answer = match &judged {
            Ok(Judged::Opened(Opened::Here(file))) => return self.hand_over(notice, file),
            Ok(Judged::Opened(Opened::Later(later))) => match self.open_later(notice, later) {
                Ok(()) => return,
                Err(_) => Answer::Fail(libc::EAGAIN),
            },
            Ok(_) => Answer::Continue,
            Err(Refusal::Silent(errno)) => Answer::Fail(*errno),
            Err(Refusal::Denied(_)) => Answer::Fail(libc::EACCES),
        };
        if sys::answer(self.listener.as_fd(), notice.id, answer).is_err() {
            return;
        }
        match judged {
            Ok(Judged::Exec(passed)) => self.judge.passed(passed),
            Err(Refusal::Denied(denial)) => self.denied.add(*denial),
            Ok(Judged::Opened(_)) | Err(Refusal::Silent(_)) => {}
        }
    }

    /// Lets an exec go on, and looks at what comes of it before that runs.
    fn follow(&mut self, notice: &Notice, passed: judge::Passed) {
        let (pid, listener) = (passed.pid(), self.listener.as_fd());
        let watched = match sys::Watched::begin(pid) {
            Ok(watched) => Some(watched),
            // Whoever traces it decides what it does.
            Err(_) if watch::is_traced(pid) => None,
            Err(_) => {
                if sys::answer(listener, notice.id, Answer::Fail(libc::EACCES)).is_ok() {
                    self.denied.add(Denial::always(
                        passed.called(),
                        "links on its way may turn, and it can't be watched",
                    ));
                }
                return;
            }
        };
        let gone = sys::answer(listener, notice.id, Answer::Continue).is_err();
        let seen = match (watched, passed.expected()) {
            (Some(watched), Some(expected)) => expected.await_exec(watched, pid, self.judge.is_root(pid)),
            _ if gone => watch::Seen::Nothing,
            _ => watch::Seen::Expected,
        };
        match seen {
            watch::Seen::Expected => self.judge.passed(passed),
            watch::Seen::Other(path) => {
                let reason = format!(
                    "its path led to {} when it was followed: a link on the way was turned",
                    path.display()
                );
                self.denied.add(Denial::always(passed.called(), &reason));
            }
            watch::Seen::Nothing => {}
        }
    }

    /// Answers an opening by what was opened for it.
    fn hand_over(&self, notice: &Notice, file: &OwnedFd) {
        let close_on_exec = Opening::of(notice).is_some_and(|opening| opening.closes_on_exec());
        let listener = self.listener.as_fd();
        if let Err(error) = sys::answer_with(listener, notice.id, file.as_fd(), close_on_exec) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            let _ = sys::answer(listener, notice.id, Answer::Fail(errno));
        }
    }

    /// Has a process of its own wait until what is to be opened can be, as long as its caller
    /// does.
    fn open_later(&self, notice: &Notice, later: &Later) -> io::Result<()> {
        const PAUSE: Duration = Duration::from_millis(2);
        match sys::SingleThreaded::prove()?.fork()? {
            sys::Forked::Parent => return Ok(()),
            sys::Forked::Child => sys::keep_only(self.listener.as_fd()),
        }
        while sys::still_waits(self.listener.as_fd(), notice.id) {
            match later.open() {
                Ok(file) => self.hand_over(notice, &file),
                Err(errno) if later.waits(errno) => std::thread::sleep(PAUSE),
                Err(errno) => {
                    let _ = sys::answer(self.listener.as_fd(), notice.id, Answer::Fail(errno.raw_os_error()));
                }
            }
        }
        sys::leave(0)
    }

    /// What was denied so far, and how much more.
    pub(crate) fn denied(&self) -> (Vec<Denial>, u32) {
        self.denied.list()
    }
}
