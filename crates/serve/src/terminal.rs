//! Terminals: a shell or a command, what it has shown, and who looks at it.

pub(crate) mod journal;
mod live;
mod manager;
mod networks;
mod questions;
mod screen;
mod shell;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use legwork_process::{Running, Size};
use tokio::sync::Notify;

use live::{Live, Window};
pub(crate) use manager::{MAIN, Opening, Refused, Terminals};
pub(crate) use networks::Networks;
pub(crate) use questions::Colours;
use screen::Screen;
pub(crate) use shell::{Launch, Shells, environment};

/// Most input waiting for a terminal that does not read.
const MAX_INPUT: usize = 1 << 20;
/// How far ahead of the fastest reader a terminal is read: no further than a reader may
/// be behind without being sent a replay.
const CREDIT: u64 = 1 << 20;
/// Most bytes of a replay.
pub(crate) const REPLAY: usize = 64 * 1024;
/// At most one new shell in this time.
const RESTART: Duration = Duration::from_secs(1);
/// How far the screen may be behind before the terminal waits for it.
const SCREEN_LAG: u64 = 3 << 20;
/// What the screen is shown at once, and not by another thread.
const SCREEN_STEP: u64 = 16 * 1024;
/// Of something long so much is typed at a time, and after so long it is looked again whether
/// there is room for more.
const PASTED: usize = 64 * 1024;
const PASTE_LOOK: Duration = Duration::from_millis(5);
/// How many of the answers to programs may wait for them to be read.
const MAX_ANSWERED: usize = 16 * 1024;

/// Someone who looks at a terminal.
#[derive(Debug)]
pub(crate) struct Viewer {
    /// They know terminals by their ids, and are shown a lost screen as a screen.
    pub(crate) named: bool,
    /// Wakes whoever sends to them.
    pub(crate) wake: Arc<Notify>,
    /// The next byte they want.
    pub(crate) offset: AtomicU64,
    /// They have interrupted what floods them: what is not sent yet need not be.
    pub(crate) skip: AtomicBool,
}

/// What happened to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit status, or 128 and the number of the signal that ended it.
    pub(crate) code: i32,
    /// Its time was up.
    pub(crate) timed_out: bool,
}

/// Called when what runs in a terminal has ended.
pub(crate) type OnExit = Box<dyn Fn(&Arc<Terminal>, Exit) + Send + Sync>;

/// A running shell or command.
struct Process {
    near: legwork_process::Terminal,
    running: Running,
    file: PathBuf,
}

/// A terminal. It outlives its viewers, and the shared one its shells.
pub(crate) struct Terminal {
    pub(crate) id: String,
    /// Starts anew when its shell has ended.
    pub(crate) lasting: bool,
    launch: Launch,
    shells: Arc<Shells>,
    live: Mutex<Live>,
    input: Mutex<VecDeque<u8>>,
    viewers: Mutex<Vec<Arc<Viewer>>>,
    screen: Mutex<Screen>,
    /// Somebody brings the screen up to date.
    following: AtomicBool,
    /// Counts how often what reads was interrupted: what waits to be typed is not typed then.
    interrupts: AtomicU64,
    /// A reader has come nearer to the end.
    credit: Notify,
    /// There is input.
    typed: Notify,
    on_exit: OnExit,
}

/// Why input was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InputError {
    /// Too much waits already.
    Busy,
    /// There is no shell, for the reason given.
    Unavailable(String),
}

/// How a reader goes on.
pub(crate) enum Next {
    /// With these bytes, the first of which is at the reader's offset.
    Bytes(Vec<u8>),
    /// With a replay, and then from this offset on.
    Replay(String, u64),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Terminal {
    pub(crate) fn new(
        id: String,
        lasting: bool,
        title: String,
        launch: Launch,
        shells: Arc<Shells>,
        history: usize,
        on_exit: OnExit,
    ) -> Arc<Self> {
        let screen = Mutex::new(Screen::new(launch.size, history));
        let live = Live::new(title, launch.size);
        Arc::new(Self {
            id,
            lasting,
            launch,
            shells,
            live: Mutex::new(live),
            input: Mutex::default(),
            viewers: Mutex::default(),
            screen,
            following: AtomicBool::new(false),
            interrupts: AtomicU64::new(0),
            credit: Notify::new(),
            typed: Notify::new(),
            on_exit,
        })
    }

    /// Starts the shell if none runs and one may be started now.
    pub(crate) fn ensure_started(self: &Arc<Self>) -> Result<(), String> {
        let mut live = lock(&self.live);
        if live.process.is_some() || live.closed {
            return Ok(());
        }
        let now = Instant::now();
        if let Some(wait) = live.started.and_then(|at| (at + RESTART).checked_duration_since(now)) {
            // Whoever types meanwhile finds it started soon.
            let terminal = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                let waits = !lock(&terminal.input).is_empty() || !lock(&terminal.viewers).is_empty();
                if waits && let Err(error) = terminal.ensure_started() {
                    tracing::warn!("cannot start shell: {error}");
                }
            });
            return Ok(());
        }
        live.started = Some(now);
        let (running, near) = self.shells.start(&self.launch, live.size)?;
        let process = Arc::new(Process { near, file: running.path().to_owned(), running });
        live.process = Some(process.clone());
        live.exit = None;
        drop(live);
        tokio::spawn(self.clone().attend(process));
        Ok(())
    }

    /// Reads what the terminal shows until what runs in it has ended.
    async fn attend(self: Arc<Self>, process: Arc<Process>) {
        let mut buffer = vec![0u8; 64 * 1024];
        {
            let feeding = self.feed(&process);
            let ending = self.shells.ended(&process.running);
            tokio::pin!(feeding, ending);
            let mut ended = false;
            loop {
                let reading = async {
                    self.wait_for_readers().await;
                    process.near.read(&mut buffer).await
                };
                tokio::select! {
                    read = reading => match read {
                        Ok(0) | Err(_) => break,
                        Ok(len) => self.show(&buffer[..len]),
                    },
                    () = &mut feeding => {}
                    () = &mut ending, if !ended => ended = true,
                    // What the shell left to be read is read before its end is told.
                    () = tokio::time::sleep(Duration::from_millis(20)), if ended => break,
                }
            }
            if !ended {
                // Nobody has the far end any more; how it ended is known in a moment.
                let _ = tokio::time::timeout(Duration::from_secs(5), ending).await;
            }
        }
        let _ = self.shells.finish(&self.launch, &process.file).await;
        self.ended(&process);
    }

    /// Types what could not be typed at once. Never ends.
    async fn feed(&self, process: &Process) {
        loop {
            let typed = self.typed.notified();
            if lock(&self.input).is_empty() {
                typed.await;
            } else if process.near.type_from(&self.input).await.is_err() {
                // The reading side finds out why.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits while all readers are behind, or the screen is.
    async fn wait_for_readers(&self) {
        loop {
            let credit = self.credit.notified();
            let end = lock(&self.live).journal.end();
            let behind = {
                let viewers = lock(&self.viewers);
                let is_behind =
                    |v: &Arc<Viewer>| end.saturating_sub(v.offset.load(Ordering::Relaxed)) > CREDIT;
                !viewers.is_empty() && viewers.iter().all(is_behind)
            };
            if !behind {
                return;
            }
            credit.await;
        }
    }

    /// Notes what was shown, and wakes all readers.
    fn show(self: &Arc<Self>, data: &[u8]) {
        let end = {
            let mut live = lock(&self.live);
            let before = live.journal.end();
            live.journal.append(data);
            // A switch may have come in two pieces.
            let from = before.saturating_sub(journal::LONGEST_SWITCH as u64 - 1).max(live.journal.start());
            let split = live.journal.read(from, 2 * journal::LONGEST_SWITCH - 2).unwrap_or_default();
            if let Some(alternate) = journal::switched(data).or_else(|| journal::switched(&split)) {
                live.alternate = alternate;
            }
            live.journal.end()
        };
        for viewer in lock(&self.viewers).iter() {
            viewer.wake.notify_one();
        }
        self.follow(end);
    }

    /// Lets the screen follow what is shown, as programs wait for its answers: a little at once,
    /// much on another thread.
    fn follow(self: &Arc<Self>, end: u64) {
        let lag = self.screen.try_lock().map(|screen| end.saturating_sub(screen.parsed()));
        if self.following.swap(true, Ordering::SeqCst) {
            // Whoever follows looks again before they stop.
            if lag.is_ok_and(|lag| lag > SCREEN_LAG) {
                drop(self.catch_up());
            }
            return;
        }
        if lag.is_ok_and(|lag| lag <= SCREEN_STEP) {
            self.keep_up();
            return;
        }
        let terminal = self.clone();
        tokio::task::spawn_blocking(move || terminal.keep_up());
    }

    fn keep_up(&self) {
        loop {
            let parsed = self.catch_up().parsed();
            self.following.store(false, Ordering::SeqCst);
            if self.end() <= parsed || self.following.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Brings the screen up to date; returns it. What programs have asked is answered.
    fn catch_up(&self) -> MutexGuard<'_, Screen> {
        let mut screen = lock(&self.screen);
        loop {
            let (piece, colours) = {
                let live = lock(&self.live);
                let from = screen.parsed().max(live.journal.start());
                screen.skip_to(from);
                let colours = live.leading().map(|w| w.colours).unwrap_or_default();
                (live.journal.read(from, 256 * 1024).unwrap_or_default(), colours)
            };
            if piece.is_empty() {
                return screen;
            }
            let answers = screen.process(&piece, colours);
            if !answers.is_empty() {
                self.answer(&answers);
            }
        }
    }

    /// Types what the emulator answers. A program that asks and does not read has itself to
    /// blame: people's input has the room.
    fn answer(&self, answers: &[u8]) {
        let Some(process) = lock(&self.live).process.clone() else { return };
        let mut input = lock(&self.input);
        if input.len() + answers.len() > MAX_ANSWERED {
            return;
        }
        let taken = if input.is_empty() { process.near.try_write(answers).unwrap_or(0) } else { 0 };
        input.extend(&answers[taken..]);
        if !input.is_empty() {
            self.typed.notify_one();
        }
    }

    fn ended(self: &Arc<Self>, process: &Process) {
        let status = legwork_process::status(&process.file).ok();
        let _ = std::fs::remove_file(&process.file);
        let failure = status.as_ref().and_then(|s| s.error.clone());
        let code =
            status.as_ref().and_then(|s| s.exit_code.or_else(|| s.signal.map(|n| 128 + n))).unwrap_or(1);
        let by = status.and_then(|s| s.ended_by);
        let exit = Exit { code, timed_out: by == Some(legwork_process::EndedBy::Timeout) };
        if let Some(failure) = failure {
            self.show(format!("cannot start shell: {failure}\r\n").as_bytes());
        }
        if exit.timed_out {
            self.show(b"\r\n[time limit reached]");
        }
        // The next program must not find the mouse reported, or half a screen.
        let leftovers = self.catch_up().leftovers();
        if !leftovers.is_empty() {
            self.show(leftovers.as_bytes());
        }
        self.show(format!("\r\n[process exited: {code}]\r\n").as_bytes());
        {
            let mut live = lock(&self.live);
            live.process = None;
            live.exit = Some(exit);
        }
        (self.on_exit)(self, exit);
        let waits = !lock(&self.input).is_empty();
        if self.lasting
            && waits
            && let Err(error) = self.ensure_started()
        {
            tracing::warn!("cannot start shell: {error}");
        }
    }

    /// Types what a client has sent, but for what its emulator answers programs: ours has done
    /// that. The size is that of who types; returns whether it has become another.
    pub(crate) fn write_for(self: &Arc<Self>, client: u64, data: &[u8]) -> Result<bool, InputError> {
        if questions::is_answer(data) {
            return Ok(false);
        }
        self.write(data)?;
        let wanted = {
            let mut live = lock(&self.live);
            let highest = live.turns;
            let Some(window) = live.windows.get_mut(&client) else { return Ok(false) };
            if window.turn == highest && highest > 0 {
                return Ok(false);
            }
            window.turn = highest + 1;
            live.turns += 1;
            live.wanted()
        };
        let before = self.size();
        Ok(self.fit(wanted) != before)
    }

    /// Types. A shared terminal whose shell has ended gets a new one.
    pub(crate) fn write(self: &Arc<Self>, data: &[u8]) -> Result<(), InputError> {
        if self.lasting {
            self.ensure_started().map_err(InputError::Unavailable)?;
        }
        let process = lock(&self.live).process.clone();
        let mut input = lock(&self.input);
        let Some(process) = process else {
            if !self.lasting {
                return Err(InputError::Unavailable("the command has ended".into()));
            }
            // The next shell gets it.
            return queue(&mut input, data);
        };
        if let Some(at) = data.iter().position(|b| *b == 3)
            && process.near.interrupts(3)
        {
            self.interrupts.fetch_add(1, Ordering::Relaxed);
            for viewer in lock(&self.viewers).iter() {
                viewer.skip.store(true, Ordering::Relaxed);
                viewer.wake.notify_one();
            }
            if !input.is_empty() {
                // What waits is not read by anybody now: the interrupt goes past it.
                input.clear();
                let _ = process.near.interrupt(3);
                return queue(&mut input, &data[at + 1..]);
            }
        }
        // Taken as a whole, or not at all.
        if input.len() + data.len() > MAX_INPUT {
            return Err(InputError::Busy);
        }
        let taken = if input.is_empty() { process.near.try_write(data).unwrap_or(0) } else { 0 };
        queue(&mut input, &data[taken..])?;
        if !input.is_empty() {
            self.typed.notify_one();
        }
        Ok(())
    }

    /// Types something long, as fast as it is read, until somebody interrupts what reads it.
    pub(crate) async fn paste(self: &Arc<Self>, data: &[u8]) -> Result<(), InputError> {
        let before = self.interrupts.load(Ordering::Relaxed);
        if self.lasting {
            self.ensure_started().map_err(InputError::Unavailable)?;
        }
        let Some(process) = lock(&self.live).process.clone() else {
            return Err(InputError::Unavailable("the command has ended".into()));
        };
        for (n, piece) in data.chunks(PASTED).enumerate() {
            loop {
                let same = lock(&self.live).process.as_ref().is_some_and(|now| Arc::ptr_eq(now, &process));
                if !same {
                    let typed = n * PASTED;
                    return Err(InputError::Unavailable(format!(
                        "the command has ended after {typed} bytes"
                    )));
                }
                if self.interrupts.load(Ordering::Relaxed) != before {
                    return Ok(());
                }
                if lock(&self.input).len() < PASTED {
                    break;
                }
                tokio::time::sleep(PASTE_LOOK).await;
            }
            let mut input = lock(&self.input);
            queue(&mut input, piece)?;
            drop(input);
            self.typed.notify_one();
        }
        Ok(())
    }

    /// Changes the size, for all.
    pub(crate) fn resize(&self, size: Size) {
        // The screen has seen all that was shown at the old size.
        let mut screen = self.catch_up();
        let mut live = lock(&self.live);
        if live.size == size {
            return;
        }
        live.size = size;
        screen.resize(size);
        if let Some(process) = &live.process {
            process.near.resize(size);
        }
    }

    /// Says what a viewer has room for, and their colours. The terminal is as large as whoever
    /// types can show; returns its size.
    pub(crate) fn make_room(&self, viewer: u64, size: Size, colours: Option<Colours>) -> Size {
        let wanted = {
            let mut live = lock(&self.live);
            live.came += 1;
            let turn = -live.came;
            let window = live.windows.entry(viewer).or_insert(Window {
                size,
                colours: Colours::default(),
                turn,
                away: false,
            });
            window.size = size;
            window.away = false;
            window.colours = colours.unwrap_or(window.colours);
            live.wanted()
        };
        self.fit(wanted)
    }

    /// A viewer is gone: they have no say any more.
    pub(crate) fn leave_room(&self, viewer: u64) {
        let wanted = {
            let mut live = lock(&self.live);
            if live.windows.remove(&viewer).is_none() {
                return;
            }
            live.wanted()
        };
        self.fit(wanted);
    }

    /// A viewer's connection is gone, or back: nobody is bound by who is not there.
    pub(crate) fn set_aside(&self, viewer: u64, away: bool) {
        let wanted = {
            let mut live = lock(&self.live);
            let Some(window) = live.windows.get_mut(&viewer) else { return };
            window.away = away;
            live.wanted()
        };
        self.fit(wanted);
    }

    fn fit(&self, wanted: Option<Size>) -> Size {
        if let Some(size) = wanted {
            self.resize(size);
        }
        self.size()
    }

    pub(crate) fn size(&self) -> Size {
        lock(&self.live).size
    }

    pub(crate) fn title(&self) -> String {
        lock(&self.live).title.clone()
    }

    pub(crate) fn rename(&self, title: String) {
        lock(&self.live).title = title;
    }

    /// Whether something runs in it, and how the last that ran ended.
    pub(crate) fn state(&self) -> (bool, Option<Exit>) {
        let live = lock(&self.live);
        (live.process.is_some(), live.exit)
    }

    /// The offset after the last byte shown.
    pub(crate) fn end(&self) -> u64 {
        lock(&self.live).journal.end()
    }

    /// Ends what runs in it: SIGHUP, then SIGKILL.
    pub(crate) fn close(&self) {
        let mut live = lock(&self.live);
        live.closed = true;
        if let Some(process) = &live.process {
            process.running.cancel();
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        lock(&self.live).process.is_some()
    }

    pub(crate) fn attach(&self, viewer: Arc<Viewer>) {
        lock(&self.viewers).push(viewer);
        self.credit.notify_one();
    }

    pub(crate) fn detach(&self, viewer: &Arc<Viewer>) {
        lock(&self.viewers).retain(|v| !Arc::ptr_eq(v, viewer));
        self.credit.notify_one();
    }

    pub(crate) fn viewer_count(&self) -> usize {
        lock(&self.viewers).len()
    }

    /// Says that a viewer has got all before `offset`.
    pub(crate) fn advance(&self, viewer: &Viewer, offset: u64) {
        viewer.offset.store(offset, Ordering::Relaxed);
        self.credit.notify_one();
    }

    /// What a viewer gets next; `None` if there is nothing.
    pub(crate) fn next(&self, viewer: &Viewer, max: usize) -> Option<Next> {
        let from = viewer.offset.load(Ordering::Relaxed);
        let skip = viewer.skip.swap(false, Ordering::Relaxed);
        let live = lock(&self.live);
        let behind = live.journal.end().saturating_sub(from);
        if behind == 0 {
            return None;
        }
        if skip && behind > REPLAY as u64 || from < live.journal.start() {
            drop(live);
            let (text, offset) = if viewer.named { self.snapshot() } else { self.replay() };
            return Some(Next::Replay(text, offset));
        }
        live.journal.read(from, max).map(Next::Bytes)
    }

    /// The bytes of one range, if they are still kept.
    pub(crate) fn range(&self, from: u64, to: u64) -> Option<Vec<u8>> {
        let len = usize::try_from(to.checked_sub(from)?).ok()?;
        lock(&self.live).journal.read(from, len).filter(|bytes| bytes.len() == len)
    }

    /// What shows a new viewer of the shared terminal its last lines, without what programs
    /// asked, and the offset after it (`docs/protocols/workspace.md`, §7).
    pub(crate) fn replay(&self) -> (String, u64) {
        let live = lock(&self.live);
        if live.alternate {
            drop(live);
            let screen = self.catch_up();
            return (screen.picture(), screen.parsed());
        }
        let from = live.journal.replay_from(REPLAY);
        let bytes = live.journal.read(from, REPLAY).unwrap_or_default();
        let whole = journal::whole_characters(&bytes);
        let shown = questions::without(&bytes[..whole]);
        (format!("\u{1b}c{}", String::from_utf8_lossy(&shown)), from + whole as u64)
    }

    /// The screen as it is now, with the lines above it, and the offset it is of.
    pub(crate) fn snapshot(&self) -> (String, u64) {
        let screen = self.catch_up();
        (screen.snapshot(), screen.parsed())
    }
}

/// A screen of that width, for the fuzzer.
pub(crate) fn screen(cols: u8) -> Screen {
    Screen::new(Size { cols: u16::from(cols).max(1), rows: 5 }, 20)
}

fn queue(input: &mut VecDeque<u8>, data: &[u8]) -> Result<(), InputError> {
    if input.len() + data.len() > MAX_INPUT {
        return Err(InputError::Busy);
    }
    input.extend(data);
    Ok(())
}

impl From<io::Error> for InputError {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
