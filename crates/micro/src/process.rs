//! Runs one program: pumps its output, holds it to its deadline, ends its whole tree.

mod lines;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::elevate::Sudo;
use crate::os::cause;
use crate::port::{Port, poll_flags};

pub(crate) use lines::Streamer;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// From SIGKILL until pipes that somebody still holds are left behind.
const ABANDON: Duration = Duration::from_secs(1);
/// Between two looks whether the last of a killed tree is gone.
const LOOK: Duration = Duration::from_millis(20);
/// Read at once.
const CHUNK: usize = 64 * 1024;
/// So much input may wait for a program that does not read it.
const HIGH: usize = 256 * 1024;

/// What becomes of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The null device.
    Nothing,
    /// At most so many bytes; the rest is read and dropped.
    Capture(usize),
}

/// A program to run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) program: &'a str,
    pub(crate) args: Vec<&'a str>,
    /// The whole environment; none: ours.
    pub(crate) env: Option<&'a BTreeMap<String, String>>,
    /// Added to the environment.
    pub(crate) set: &'a [(&'a str, &'a str)],
    pub(crate) dir: Option<&'a Path>,
    pub(crate) input: &'a [u8],
    /// The id of the command whose input the controller goes on to send.
    pub(crate) more: Option<&'a str>,
    pub(crate) out: Keep,
    pub(crate) err: Keep,
    /// Both outputs go to this file instead: whoever outlives us can write on.
    pub(crate) to: Option<&'a std::fs::File>,
    /// Once begun it must not be ended: it is left to itself where others are killed.
    pub(crate) finish: bool,
    /// It runs as another user, by this.
    pub(crate) sudo: Option<&'a Sudo>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(program: &'a str, args: &[&'a str]) -> Self {
        Self {
            program,
            args: args.to_vec(),
            env: None,
            set: &[],
            dir: None,
            input: &[],
            more: None,
            out: Keep::Nothing,
            err: Keep::Nothing,
            to: None,
            finish: false,
            sudo: None,
        }
    }
}

/// What was kept of an output.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    pub(crate) bytes: Vec<u8>,
    pub(crate) truncated: bool,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) timed_out: bool,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
}

/// Why there is no end to report.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It did not start; the reason in Go's words.
    Start(String),
    /// We are to end, or nobody is listening: its tree was killed.
    Stopped,
    /// Its time is over, and it goes on.
    Left,
}

/// One of the two outputs while the program runs.
struct Pump {
    fd: Option<OwnedFd>,
    keep: Keep,
    captured: Captured,
}

impl Pump {
    fn new(fd: Option<OwnedFd>, keep: Keep) -> Self {
        Self { fd, keep, captured: Captured::default() }
    }

    /// Reads once; the bytes are kept as far as they may and shown to `each`.
    fn pump(&mut self, each: impl FnOnce(&[u8])) {
        let Some(fd) = &self.fd else { return };
        let mut chunk = [0u8; CHUNK];
        match rustix::io::read(fd, &mut chunk) {
            Ok(0) => self.fd = None,
            Ok(n) => {
                let limit = if let Keep::Capture(limit) = self.keep { limit } else { 0 };
                let room = limit.saturating_sub(self.captured.bytes.len()).min(n);
                self.captured.bytes.extend_from_slice(&chunk[..room]);
                self.captured.truncated |= room < n && self.keep != Keep::Nothing;
                each(&chunk[..n]);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.fd = None,
        }
    }
}

/// Where the killing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    No,
    /// SIGTERM was sent; SIGKILL at this time.
    Asked(Instant),
    /// SIGKILL was sent; nothing is waited for after this time.
    Forced(Instant),
}

/// Runs a program to its end. With a streamer, its lines go out as they come.
pub(crate) fn run(
    port: &mut Port,
    job: &Job<'_>,
    deadline: Instant,
    mut streamer: Option<&mut Streamer>,
) -> Result<Ended, Broken> {
    port.tree.mark();
    let piped = |keep| keep != Keep::Nothing || streamer.is_some();
    let (pid, stdin, stdout, stderr) = spawn(job, piped(job.out), piped(job.err))?;
    let (mut out, mut err) = (Pump::new(stdout, job.out), Pump::new(stderr, job.err));
    let mut input = Input { fd: stdin, bytes: job.input.to_vec(), written: 0, more: job.more };
    // Some may have come with the command itself.
    input.take(port, false);
    let mut status = None;
    let mut kill = Kill::No;
    // A signal by sudo is a process, and takes its time.
    let look = if job.sudo.is_some() { 10 * LOOK } else { LOOK };
    let mut again = deadline;
    let (mut timed_out, mut stopped, mut left) = (false, false, true);
    loop {
        let pipes_open = out.fd.is_some() || err.fd.is_some();
        match kill {
            Kill::No if status.is_some() && !pipes_open => break,
            Kill::No if job.finish && (Instant::now() >= deadline || is_over(port)) => {
                port.tree.ended(true);
                return Err(if is_over(port) { Broken::Stopped } else { Broken::Left });
            }
            Kill::No if is_over(port) => {
                stopped = true;
                kill = ask(port, pid, job);
            }
            Kill::No if Instant::now() >= deadline => {
                timed_out = true;
                kill = ask(port, pid, job);
            }
            Kill::Asked(at) if Instant::now() >= at => {
                port.tree.signal(pid, Signal::KILL, job.sudo);
                again = Instant::now() + look;
                kill = Kill::Forced(Instant::now() + if job.sudo.is_some() { 3 * ABANDON } else { ABANDON });
            }
            Kill::Asked(_) if status.is_some() && !pipes_open && !port.tree.alive() => break,
            Kill::Forced(at) if Instant::now() >= at || (status.is_some() && !port.tree.alive()) => break,
            // What forked meanwhile.
            Kill::Forced(_) if Instant::now() >= again => {
                port.tree.signal(pid, Signal::KILL, job.sudo);
                again = Instant::now() + look;
            }
            _ => {}
        }
        let until = match kill {
            Kill::No => deadline,
            Kill::Asked(at) if status.is_none() || pipes_open => at,
            Kill::Asked(at) | Kill::Forced(at) => at.min(Instant::now() + LOOK),
        };
        let ready = poll_all(port, &input, &out, &err, until);
        if ready.signalled {
            port.signals.drain();
            left = reap(pid, &mut status);
        }
        if ready.peer_gone {
            port.output.set_broken();
        } else if port.output.waiting() {
            port.output.try_flush();
        }
        if ready.more {
            input.take(port, true);
        }
        if ready.input {
            input.feed();
        }
        pump(port, &ready, &mut out, &mut err, streamer.as_deref_mut());
    }
    if let Some(streamer) = streamer {
        streamer.end(&mut port.output);
    }
    port.tree.ended(left);
    if stopped {
        return Err(Broken::Stopped);
    }
    let status = status.unwrap_or(Status { code: None, signal: None });
    // What outlived its program and had to be killed was not over in time either.
    let code = status.code.filter(|_| !timed_out);
    Ok(Ended { code, signal: status.signal, timed_out, stdout: out.captured, stderr: err.captured })
}

/// Whether we are to end.
fn is_over(port: &Port) -> bool {
    port.signals.terminated().is_some() || port.output.broken()
}

/// Reads what can be read, and sends it off where it streams.
fn pump(port: &mut Port, ready: &Ready, out: &mut Pump, err: &mut Pump, streamer: Option<&mut Streamer>) {
    let Some(streamer) = streamer else {
        if ready.out {
            out.pump(|_| {});
        }
        if ready.err {
            err.pump(|_| {});
        }
        return;
    };
    if ready.out {
        out.pump(|bytes| streamer.out(bytes, &mut port.output));
    }
    if ready.err {
        err.pump(|bytes| streamer.err(bytes, &mut port.output));
    }
    port.output.try_flush();
}

fn ask(port: &Port, pid: Pid, job: &Job<'_>) -> Kill {
    port.tree.signal(pid, Signal::TERM, job.sudo);
    Kill::Asked(Instant::now() + GRACE)
}

/// What `poll` found.
#[derive(Debug, Default)]
struct Ready {
    signalled: bool,
    peer_gone: bool,
    more: bool,
    input: bool,
    out: bool,
    err: bool,
}

fn poll_all(port: &Port, input: &Input<'_>, out: &Pump, err: &Pump, until: Instant) -> Ready {
    let stdout = rustix::stdio::stdout();
    let writing = if port.output.waiting() { PollFlags::OUT } else { PollFlags::empty() };
    // Back-pressure: while the controller is behind, the program waits.
    let reading = |pump: &'_ Pump| pump.fd.is_some() && !port.output.full();
    let wanted = [
        (Some(port.signals.fd()), PollFlags::IN),
        // Asked for nothing, it still tells that the controller is gone.
        (Some(stdout).filter(|_| !port.output.broken()), writing),
        (Some(rustix::stdio::stdin()).filter(|_| input.wants_more()), PollFlags::IN),
        (input.fd.as_ref().filter(|_| input.has_some()).map(AsFd::as_fd), PollFlags::OUT),
        (out.fd.as_ref().filter(|_| reading(out)).map(AsFd::as_fd), PollFlags::IN),
        (err.fd.as_ref().filter(|_| reading(err)).map(AsFd::as_fd), PollFlags::IN),
    ];
    let mut polled: Vec<PollFd<'_>> =
        wanted.iter().filter_map(|(fd, flags)| fd.map(|fd| PollFd::from_borrowed_fd(fd, *flags))).collect();
    let interrupted = poll_flags(&mut polled, Some(until));
    let mut answers = polled.iter();
    let mut answer = |slot: usize| -> PollFlags {
        let there: Option<BorrowedFd<'_>> = wanted[slot].0;
        there.and_then(|_| answers.next()).map_or(PollFlags::empty(), PollFd::revents)
    };
    Ready {
        signalled: !answer(0).is_empty() || interrupted,
        peer_gone: answer(1).intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL),
        more: !answer(2).is_empty(),
        input: !answer(3).is_empty(),
        out: !answer(4).is_empty(),
        err: !answer(5).is_empty(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Status {
    code: Option<i32>,
    signal: Option<i32>,
}

/// Collects every child that has ended; true if others are left.
fn reap(main: Pid, found: &mut Option<Status>) -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == main => {
                *found = Some(Status { code: status.exit_status(), signal: status.terminating_signal() });
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// What a program is still to read.
struct Input<'a> {
    fd: Option<OwnedFd>,
    bytes: Vec<u8>,
    written: usize,
    /// The controller sends more, under this id.
    more: Option<&'a str>,
}

impl Input<'_> {
    fn has_some(&self) -> bool {
        self.written < self.bytes.len()
    }

    /// A program that does not read holds the controller up.
    fn wants_more(&self) -> bool {
        self.more.is_some() && self.fd.is_some() && self.bytes.len() - self.written < HIGH
    }

    /// Takes what the controller has sent; closes the pipe after the last of it.
    fn take(&mut self, port: &mut Port, readable: bool) {
        if let Some(id) = self.more
            && port.input_for(id, &mut self.bytes, readable)
        {
            self.more = None;
        }
        self.close_if_done();
    }

    fn feed(&mut self) {
        let Some(fd) = &self.fd else { return };
        match rustix::io::write(fd, &self.bytes[self.written..]) {
            Ok(n) => self.written += n,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // It wants no more.
            Err(_) => self.fd = None,
        }
        if !self.has_some() {
            self.bytes.clear();
            self.written = 0;
        }
        self.close_if_done();
    }

    fn close_if_done(&mut self) {
        if self.more.is_none() && !self.has_some() {
            self.fd = None;
        }
    }
}

type Started = (Pid, Option<OwnedFd>, Option<OwnedFd>, Option<OwnedFd>);

fn spawn(job: &Job<'_>, out: bool, err: bool) -> Result<Started, Broken> {
    let program = look_up(job.program).map_err(Broken::Start)?;
    if let Some(dir) = job.dir {
        let found = std::fs::metadata(dir).and_then(|found| {
            if found.is_dir() { Ok(()) } else { Err(std::io::Error::from(std::io::ErrorKind::NotADirectory)) }
        });
        found.map_err(|error| Broken::Start(format!("chdir {}: {}", dir.display(), cause(&error))))?;
    }
    let mut command = quiet(&program);
    command.arg0(job.program).args(&job.args).process_group(0);
    if let Some(env) = job.env {
        command.env_clear().envs(env);
    }
    command.envs(job.set.iter().copied());
    if let Some(dir) = job.dir {
        command.current_dir(dir);
    }
    if !job.input.is_empty() || job.more.is_some() {
        command.stdin(Stdio::piped());
    }
    if let Some(file) = job.to {
        let copy = || file.try_clone().map_err(|error| Broken::Start(cause(&error)));
        command.stdout(copy()?).stderr(copy()?);
    }
    if out {
        command.stdout(Stdio::piped());
    }
    if err {
        command.stderr(Stdio::piped());
    }
    let mut child = command
        .spawn()
        .map_err(|error| Broken::Start(format!("fork/exec {}: {}", program.display(), cause(&error))))?;
    let stdin = child.stdin.take().map(OwnedFd::from);
    if let Some(stdin) = &stdin {
        let flags = rustix::fs::fcntl_getfl(stdin).unwrap_or(rustix::fs::OFlags::empty());
        let _ = rustix::fs::fcntl_setfl(stdin, flags | rustix::fs::OFlags::NONBLOCK);
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Broken::Start("the child has no process id".into()))?;
    Ok((pid, stdin, child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)))
}

/// A program with the null device for all three.
#[expect(clippy::disallowed_methods, reason = "the micro-runner has small hands of its own")]
pub(crate) fn quiet(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Finds a program as Go does: by our own PATH, and with its words if there is none.
pub(crate) fn look_up(name: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|file| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        });
    found
        .filter(|_| !name.is_empty())
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}
