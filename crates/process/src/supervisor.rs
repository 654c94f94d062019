//! A supervisor: one process that owns one command. Synchronous, one thread, one
//! loop over `poll`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use legwork_executor::Size;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitStatus};

use crate::gate::Gatekeeper;
use crate::journal::{Stream, Writer};
use crate::launch::{Launched, Streams, launch, send};
use crate::record::Stored;
use crate::spec::{EndedBy, Io, Spec, State, Status, now_ms};
use crate::{confine, record, sys, terminal, tree};

/// Most input waiting for a terminal that does not read.
const MAX_PENDING_INPUT: usize = 64 * 1024;
/// Most controllers at a time.
const MAX_CONTROLLERS: usize = 8;

/// Most bytes in one message to a supervisor.
pub(crate) const MAX_MESSAGE: usize = 4096;

/// Messages to a supervisor: the first byte of a packet.
pub(crate) const CANCEL: u8 = b'C';
pub(crate) const INPUT: u8 = b'I';
pub(crate) const RESIZE: u8 = b'R';
/// Message from a supervisor: what accepts the command's connections to its proxy.
pub(crate) const DOOR: u8 = b'D';
/// Message from a supervisor: the command has ended, and left somebody running.
pub(crate) const ENDED: u8 = b'E';
/// Message from a supervisor: the journal's length as u64, little-endian.
pub(crate) const GROWN: u8 = b'J';

/// What the helper hands to a new supervisor.
pub(crate) struct Passed {
    /// The command's file.
    pub(crate) file: OwnedFd,
    pub(crate) cwd: OwnedFd,
    /// The first connection of those who may watch and cancel the command.
    pub(crate) controller: OwnedFd,
    /// The command's stdin and stdout, if they are not ours to make.
    pub(crate) stdio: Option<(OwnedFd, OwnedFd)>,
}

/// Supervises a command until it has ended.
pub(crate) fn run(passed: Passed) {
    crate::sys::leave_session();
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // A supervisor that can't even report leaves no final status: the runner then
    // says that the command is lost.
    let _ = supervise(passed);
}

fn supervise(passed: Passed) -> io::Result<()> {
    let Passed { file: passed, cwd, controller, stdio } = passed;
    // The lock must be ours alone, so it needs an opening of our own.
    let file =
        File::options().read(true).write(true).open(format!("/proc/self/fd/{}", passed.as_raw_fd()))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    // The runner was restarted before we came to it, and has taken the command back.
    if record::status(&file)?.is_some() {
        return Ok(());
    }
    let Stored { socket, boot_id, spec } = record::stored(&file)?;
    let mut status = Status::started(boot_id);
    record::report(&file, &status)?;
    let out_of_memory = spec.group.out_of_memory();
    let journal = Writer::new(file.try_clone()?, record::journal_base(&file)?);
    let signals = sys::child_signal_fd()?;
    let started = listen(&socket).and_then(|listener| {
        if let Some(plan) = spec.sandbox.as_ref().filter(|plan| !plan.world.is_anothers()) {
            spec.group.create(&plan.limits)?;
        }
        Ok((listener, start(&spec, &cwd, stdio)?))
    });
    let (listener, (Launched { pid: main, door, gatekeeper }, pipes)) = match started {
        Ok(started) => started,
        Err(error) => {
            confine::tidy(&spec);
            status.state = State::Failed;
            status.error = Some(error.to_string());
            status.finished_ms = now_ms();
            return record::report(&file, &status);
        }
    };
    if let Some(inhabitant) = confine::inhabitant(&spec, main) {
        status.inhabitant = Some(inhabitant);
        record::report(&file, &status)?;
    }
    let deadline = spec.limits.timeout.and_then(|t| Instant::now().checked_add(t));
    send_door(&controller, &door);
    let spec_passes = spec.io.is_passed();
    let mut supervisor = Supervisor {
        door,
        gatekeeper,
        spec,
        status,
        journal,
        signals,
        listener,
        controllers: vec![Controller { socket: controller, told: 0 }],
        // Who talks to the command itself learns at once why that fails.
        tells_denials: if spec_passes { Some(file.try_clone()?) } else { None },
        pipes,
        main,
        ended: None,
        deadline,
        kill_at: None,
        killed: false,
        asked: HashSet::new(),
        drain_until: None,
        input: Vec::new(),
        abandoned: false,
    };
    supervisor.watch();
    // What somebody left running in a terminal on purpose goes on when the shell has gone.
    let left_on_purpose =
        supervisor.spec.io.is_terminal() && supervisor.status.ended_by.is_none() && !supervisor.abandoned;
    let keeps = supervisor.spec.keeps_tree && supervisor.status.ended_by.is_none() && !supervisor.abandoned;
    let must_end = supervisor.spec.io.is_passed() && !left_on_purpose || supervisor.spec.sandbox.is_some();
    if must_end && !keeps && tree::is_left() {
        // Whoever is left of it talks to nobody, or would outlive its wall.
        tree::kill(rustix::process::getpid());
        tree::reap(None);
    }
    let gatekeeper = supervisor.gatekeeper.take();
    if let Some(gatekeeper) = &gatekeeper {
        (supervisor.status.denied, supervisor.status.denied_more) = gatekeeper.denied();
    }
    supervisor.status.out_of_memory = supervisor.spec.group.out_of_memory() > out_of_memory;
    let stays = keeps && tree::is_left();
    if !stays {
        confine::tidy(&supervisor.spec);
    }
    supervisor.status.state = State::Ended;
    supervisor.status.finished_ms = now_ms();
    record::report(&file, &supervisor.status)?;
    if stays {
        // Whoever waits for the command's end hears of it, and its file is theirs.
        drop((file, cwd));
        supervisor.look_after(gatekeeper);
        confine::tidy(&supervisor.spec);
        return Ok(());
    }
    if let Some(gatekeeper) = gatekeeper {
        // Whoever waits for the command's end hears of it, and its file is theirs.
        let signals = supervisor.into_signals();
        drop((file, cwd));
        stay(gatekeeper, &signals);
    }
    Ok(())
}

/// What somebody left running goes on to be judged until it has gone: without us the kernel
/// would refuse all its execs.
fn stay(mut gatekeeper: Gatekeeper, signals: &OwnedFd) {
    while tree::is_left() {
        let calls = gatekeeper.listener();
        let mut fds = [PollFd::new(&calls, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let revents = fds[0].revents();
        let mut buffer = [0u8; 1024];
        while rustix::io::read(signals, &mut buffer).is_ok_and(|n| n > 0) {}
        let asked = revents.contains(PollFlags::IN);
        if asked && gatekeeper.answer_waiting().is_err() || !asked && !revents.is_empty() {
            return;
        }
        tree::reap(None);
    }
}

/// An abstract socket costs no inode and is gone with its owner.
fn listen(name: &str) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 8)?;
    Ok(socket)
}

/// Where a command's output comes from.
struct Pipes {
    stdout: Option<File>,
    stderr: Option<File>,
    /// The terminal, for input and size; its output is `stdout`.
    terminal: Option<File>,
}

/// A command that has been started, and where its output comes from.
type Started = (Launched, Pipes);

fn start(spec: &Spec, cwd: &OwnedFd, stdio: Option<(OwnedFd, OwnedFd)>) -> io::Result<Started> {
    let nothing = || -> io::Result<OwnedFd> {
        Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    };
    let of_terminal = |slave: OwnedFd| -> io::Result<Streams> {
        let (stdin, stdout) = (slave.try_clone()?, slave.try_clone()?);
        Ok(Streams { stdin, stdout, stderr: slave, terminal: true })
    };
    let none = Pipes { stdout: None, stderr: None, terminal: None };
    match spec.io {
        Io::OwnTerminal(_) => {
            let (slave, _) = stdio.ok_or_else(|| io::Error::other("no terminal was passed"))?;
            Ok((launch(spec, cwd, of_terminal(slave)?)?, none))
        }
        Io::Terminal(size) => {
            let (master, slave) = terminal::open(size)?;
            let launched = launch(spec, cwd, of_terminal(slave)?)?;
            rustix::io::ioctl_fionbio(&master, true)?;
            let master = File::from(master);
            let pipes = Pipes { stdout: Some(master.try_clone()?), stderr: None, terminal: Some(master) };
            Ok((launched, pipes))
        }
        Io::Piped => {
            let (stdin, stdout) = stdio.ok_or_else(|| io::Error::other("no descriptors were passed"))?;
            let streams = Streams { stdin, stdout, stderr: nothing()?, terminal: false };
            Ok((launch(spec, cwd, streams)?, none))
        }
        Io::Journal => {
            let (from_stdout, stdout) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let (from_stderr, stderr) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let streams = Streams { stdin: nothing()?, stdout, stderr, terminal: false };
            let launched = launch(spec, cwd, streams)?;
            for pipe in [&from_stdout, &from_stderr] {
                rustix::io::ioctl_fionbio(pipe, true)?;
            }
            let (stdout, stderr) = (Some(from_stdout.into()), Some(from_stderr.into()));
            Ok((launched, Pipes { stdout, stderr, terminal: None }))
        }
    }
}

struct Controller {
    socket: OwnedFd,
    /// The journal's length it was last told.
    told: u64,
}

/// Passes the proxy's door, and what leads into the command's network, to a controller: whoever
/// is there serves it.
fn send_door(controller: &OwnedFd, door: &[OwnedFd]) {
    if !door.is_empty() {
        let fds: Vec<_> = door.iter().map(AsFd::as_fd).collect();
        // A controller that is gone is noticed elsewhere.
        let _ = send(controller, DOOR, &fds);
    }
}

struct Supervisor {
    /// What accepts the command's connections to its proxy, and what leads into its network.
    door: Vec<OwnedFd>,
    /// Answers for the tree's execs, as long as anybody of it is left.
    gatekeeper: Option<Gatekeeper>,
    /// Where denials are reported while the command runs.
    tells_denials: Option<File>,
    spec: Spec,
    status: Status,
    journal: Writer,
    signals: OwnedFd,
    listener: OwnedFd,
    controllers: Vec<Controller>,
    pipes: Pipes,
    main: Pid,
    ended: Option<WaitStatus>,
    deadline: Option<Instant>,
    /// When SIGKILL follows SIGTERM.
    kill_at: Option<Instant>,
    killed: bool,
    /// Those that were asked to end.
    asked: HashSet<Pid>,
    /// How long to wait for pipes that descendants hold.
    drain_until: Option<Instant>,
    input: Vec<u8>,
    /// Whoever asked for a command with passed descriptors is gone.
    abandoned: bool,
}

impl Supervisor {
    /// Lets go of everything else.
    fn into_signals(self) -> OwnedFd {
        self.signals
    }

    fn watch(&mut self) {
        loop {
            let now = Instant::now();
            self.act_on_time(now);
            if self.is_over(now) {
                return;
            }
            self.tell_controllers();
            self.wait_for_events(now);
            if let Some(gatekeeper) = &mut self.gatekeeper {
                gatekeeper.look_at_root();
            }
            if let Some(status) = tree::reap(Some(self.main)) {
                self.ended = Some(status);
                if let Some(gatekeeper) = &mut self.gatekeeper {
                    gatekeeper.root_ended();
                }
                self.status.exit_code = status.exit_status();
                self.status.signal = status.terminating_signal();
                self.drain_until = Some(Instant::now() + self.spec.limits.drain);
            }
        }
    }

    /// Looks after what the command has left running: reads what it prints, which nobody wants,
    /// judges it, and ends it when that is asked for or nobody is there any more.
    fn look_after(&mut self, mut gatekeeper: Option<Gatekeeper>) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        self.controllers.retain(|c| rustix::net::send(&c.socket, &[ENDED], flags).is_ok());
        self.kill_at = None;
        self.status.ended_by = None;
        loop {
            tree::reap(None);
            if !tree::is_left() {
                return;
            }
            let now = Instant::now();
            if self.kill_at.is_none() && self.controllers.is_empty() {
                tree::ask(rustix::process::getpid(), Signal::TERM, &mut HashSet::new());
                self.kill_at = Some(now + self.spec.limits.grace);
            }
            if self.kill_at.is_some_and(|at| now >= at) {
                tree::kill(rustix::process::getpid());
                tree::reap(None);
                return;
            }
            if !self.wait_for_rest(gatekeeper.as_mut()) {
                // Nobody judges any more: the kernel refuses from now on.
                gatekeeper = None;
            }
        }
    }

    /// Waits until something happens to what was left running; false if the gate is gone.
    fn wait_for_rest(&mut self, gatekeeper: Option<&mut Gatekeeper>) -> bool {
        let calls = gatekeeper.as_ref().map(|gatekeeper| gatekeeper.listener());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(calls.as_ref().map(|calls| PollFd::new(calls, PollFlags::IN)));
        fds.extend(self.controllers.iter().map(|c| PollFd::new(&c.socket, PollFlags::IN)));
        let pipes = [&self.pipes.stdout, &self.pipes.stderr];
        fds.extend(pipes.into_iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        // Whether all have gone is found out by looking, where they were asked to.
        let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if poll(&mut fds, self.kill_at.map(|_| &soon)).is_err() {
            return true;
        }
        let asked = calls.as_ref().map(|_| fds[1].revents()).unwrap_or(PollFlags::empty());
        drop(fds);
        let mut buffer = [0u8; 4096];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|n| n > 0) {}
        for pipe in [&mut self.pipes.stdout, &mut self.pipes.stderr] {
            while let Some(open) = pipe {
                match open.read(&mut buffer) {
                    Ok(0) => *pipe = None,
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => *pipe = None,
                }
            }
        }
        self.controllers.retain(|controller| {
            match rustix::net::recv(&controller.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((len, _)) => len > 0 && buffer[0] != CANCEL,
                Err(e) => e == rustix::io::Errno::AGAIN,
            }
        });
        match gatekeeper {
            Some(gatekeeper) if asked.contains(PollFlags::IN) => gatekeeper.answer_waiting().is_ok(),
            Some(_) => asked.is_empty(),
            None => true,
        }
    }

    fn is_over(&mut self, now: Instant) -> bool {
        if self.ended.is_none() {
            return false;
        }
        // A tree that is being ended is over only when nobody of it is left.
        if self.status.ended_by.is_some()
            && !self.killed
            && !tree::descendants(rustix::process::getpid()).is_empty()
        {
            return false;
        }
        let drained = self.pipes.stdout.is_none() && self.pipes.stderr.is_none();
        drained || self.drain_until.is_some_and(|until| now >= until)
    }

    fn act_on_time(&mut self, now: Instant) {
        if self.ended.is_none() && self.deadline.is_some_and(|deadline| now >= deadline) {
            let by = if self.abandoned { EndedBy::Cancel } else { EndedBy::Timeout };
            self.end(by, now);
        }
        if !self.killed && self.kill_at.is_some_and(|at| now >= at) {
            tree::kill(rustix::process::getpid());
            self.killed = true;
        }
        if !self.killed
            && self.status.ended_by.is_some()
            && self.status.signal == Some(self.polite().as_raw())
        {
            // It died of the question, and may have started others while it was put.
            self.ask();
        }
    }

    /// What asks a process to end. An interactive shell takes no notice of SIGTERM; it knows
    /// that its terminal can go.
    fn polite(&self) -> Signal {
        if self.spec.io.is_terminal() { Signal::HUP } else { Signal::TERM }
    }

    /// Asks all that were not asked yet to end.
    fn ask(&mut self) {
        tree::ask(rustix::process::getpid(), self.polite(), &mut self.asked);
    }

    fn end(&mut self, by: EndedBy, now: Instant) {
        if self.status.ended_by.is_some() || self.ended.is_some() {
            return;
        }
        self.status.ended_by = Some(by);
        let limits = &self.spec.limits;
        let grace = match by {
            EndedBy::Cancel => limits.cancel_grace.unwrap_or(limits.grace),
            EndedBy::Timeout => limits.grace,
        };
        self.kill_at = Some(now + grace);
        self.ask();
    }

    fn wait_for_events(&mut self, now: Instant) {
        let mut until: Option<Instant> = None;
        let mut at = |time: Option<Instant>| {
            if let Some(time) = time {
                until = Some(until.map_or(time, |u| u.min(time)));
            }
        };
        if self.ended.is_none() {
            at(self.deadline.filter(|_| self.status.ended_by.is_none()));
        } else {
            at(self.drain_until);
            // Whether descendants have gone is found out by looking.
            at(self.status.ended_by.filter(|_| !self.killed).map(|_| now + Duration::from_millis(20)));
        }
        at(self.kill_at.filter(|_| !self.killed));
        let timeout = until.map(|u| {
            let left = u.saturating_duration_since(now);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });

        #[derive(Clone, Copy)]
        enum Source {
            Signals,
            Output(Stream),
            Input,
            Listener,
            Controller(usize),
            Gate,
        }
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut fds =
            vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        let calls = self.gatekeeper.as_ref().map(Gatekeeper::listener);
        if let Some(calls) = &calls {
            sources.push(Source::Gate);
            fds.push(PollFd::new(calls, PollFlags::IN));
        }
        if let Some(pipe) = &self.pipes.stdout {
            sources.push(Source::Output(Stream::Stdout));
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        if let Some(pipe) = &self.pipes.stderr {
            sources.push(Source::Output(Stream::Stderr));
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        if let Some(terminal) = self.pipes.terminal.as_ref().filter(|_| !self.input.is_empty()) {
            sources.push(Source::Input);
            fds.push(PollFd::new(terminal, PollFlags::OUT));
        }
        let len = self.journal.len();
        for (index, controller) in self.controllers.iter().enumerate() {
            let mut wants = PollFlags::empty();
            wants.set(PollFlags::OUT, controller.told < len);
            // A controller that floods a terminal waits until the terminal is read.
            wants.set(PollFlags::IN, self.input.len() < MAX_PENDING_INPUT);
            sources.push(Source::Controller(index));
            fds.push(PollFd::new(&controller.socket, wants));
        }
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return;
        }
        let ready: Vec<(Source, PollFlags)> = sources
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(source, fd)| (*source, fd.revents()))
            .collect();
        let mut gone = Vec::new();
        for (source, revents) in ready {
            match source {
                Source::Gate => self.answer(revents),
                Source::Signals => self.drop_signals(),
                Source::Output(stream) => self.pump(stream),
                Source::Input => self.feed(),
                Source::Listener => self.accept(),
                Source::Controller(index) => {
                    if !self.hear(index) {
                        gone.push(index);
                    }
                }
            }
        }
        for index in gone.into_iter().rev() {
            self.controllers.remove(index);
        }
        // Nobody can reach its stdin any more: it has its grace to see that.
        if self.spec.io.is_passed() && self.controllers.is_empty() && !self.abandoned {
            self.abandoned = true;
            self.deadline = Some(Instant::now() + self.spec.limits.grace);
        }
        // Whoever comes back finds it for so long.
        if let Some(most) = self.spec.limits.unwatched {
            let begun = self.deadline.unwrap_or_else(|| Instant::now() + most);
            self.deadline = self.controllers.is_empty().then_some(begun);
        }
    }

    /// Answers an exec. When nobody is left who could make one there is nothing to answer.
    fn answer(&mut self, revents: PollFlags) {
        let Some(gatekeeper) = &mut self.gatekeeper else { return };
        let answered = revents.contains(PollFlags::IN) && gatekeeper.answer_waiting().is_ok();
        if let Some(file) = &self.tells_denials {
            let (denied, more) = gatekeeper.denied();
            if denied.len() > self.status.denied.len() {
                (self.status.denied, self.status.denied_more) = (denied, more);
                // Its end is reported in any case.
                let _ = record::report(file, &self.status);
            }
        }
        if !answered {
            (self.status.denied, self.status.denied_more) = gatekeeper.denied();
            self.gatekeeper = None;
        }
    }

    fn drop_signals(&mut self) {
        let mut buffer = [0u8; 1024];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|n| n > 0) {}
    }

    /// Moves what a pipe holds to the journal; a few frames at most, so that a
    /// flood can't keep the loop from hearing a cancel.
    fn pump(&mut self, stream: Stream) {
        const FRAMES: usize = 8;
        for _ in 0..FRAMES {
            let pipe = match stream {
                Stream::Stdout => &mut self.pipes.stdout,
                Stream::Stderr => &mut self.pipes.stderr,
            };
            let Some(file) = pipe else { return };
            let read = file.read(self.journal.space());
            match read {
                Ok(0) => {
                    *pipe = None;
                    return;
                }
                Ok(len) => self.keep(stream, len),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A terminal answers EIO when its last user is gone.
                Err(_) => {
                    *pipe = None;
                    return;
                }
            }
        }
    }

    fn keep(&mut self, stream: Stream, len: usize) {
        let total = match stream {
            Stream::Stdout => &mut self.status.stdout_bytes,
            Stream::Stderr => &mut self.status.stderr_bytes,
        };
        let kept_before = *total;
        *total += len as u64;
        let room = self.spec.limits.output_bytes.saturating_sub(kept_before);
        let keep = usize::try_from(room).unwrap_or(usize::MAX).min(len);
        let keep = if self.status.journal_error.is_some() { 0 } else { keep };
        self.status.dropped_bytes += (len - keep) as u64;
        if keep == 0 {
            return;
        }
        if let Err(error) = self.journal.commit(stream, keep) {
            self.status.journal_error = Some(error.to_string());
            self.status.dropped_bytes += keep as u64;
        }
    }

    fn feed(&mut self) {
        let Some(terminal) = &mut self.pipes.terminal else { return };
        match terminal.write(&self.input) {
            Ok(written) => {
                self.input.drain(..written);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.input.clear(),
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            // Abstract names are open to all users; the command is ours alone.
            let owner = rustix::net::sockopt::socket_peercred(&socket).map(|peer| peer.uid);
            if owner == Ok(rustix::process::geteuid()) && self.controllers.len() < MAX_CONTROLLERS {
                send_door(&socket, &self.door);
                self.controllers.push(Controller { socket, told: 0 });
            }
        }
    }

    /// Reads a controller's messages; false when it is gone.
    fn hear(&mut self, index: usize) -> bool {
        let mut buffer = [0u8; MAX_MESSAGE];
        while self.input.len() < MAX_PENDING_INPUT {
            let socket = &self.controllers[index].socket;
            let len = match rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((len, _)) => len.min(buffer.len()),
                Err(e) => return e == rustix::io::Errno::AGAIN,
            };
            match buffer[0] {
                CANCEL => self.end(EndedBy::Cancel, Instant::now()),
                INPUT => self.input.extend_from_slice(&buffer[1..len]),
                RESIZE if len >= 5 => {
                    let cols = u16::from_le_bytes([buffer[1], buffer[2]]);
                    let rows = u16::from_le_bytes([buffer[3], buffer[4]]);
                    if let Some(near) = &self.pipes.terminal {
                        terminal::resize(near, Size { cols, rows });
                    }
                }
                _ => {}
            }
        }
        true
    }

    fn tell_controllers(&mut self) {
        let len = self.journal.len();
        let mut message = [GROWN; 9];
        message[1..].copy_from_slice(&len.to_le_bytes());
        self.controllers.retain_mut(|controller| {
            if controller.told == len {
                return true;
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&controller.socket, &message, flags) {
                Ok(_) => controller.told = len,
                // Told later: lengths only grow, so the last one is enough.
                Err(rustix::io::Errno::AGAIN) => {}
                Err(_) => return false,
            }
            true
        });
    }
}
