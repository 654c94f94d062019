//! One terminal: what runs in it, what it has shown, and who looks at it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use legwork_executor::{Ended, Failure, NotStarted, Place, Process, Signal, Size};
use tokio::sync::Notify;

use crate::journal::{LONGEST_SWITCH, switched, whole_characters};
use crate::live::{Exit, Live, Window};
use crate::questions::{self, Colours};
use crate::screen::Screen;
use crate::viewer::{Next, Viewer};

/// Most input waiting for a terminal that does not read.
const MAX_INPUT: usize = 1 << 20;
/// How far ahead of the fastest viewer a terminal is read: no further than a viewer may be
/// behind without being sent a replay.
const CREDIT: u64 = 1 << 20;
/// Most bytes of a replay.
pub const REPLAY: usize = 64 * 1024;
/// How much is read at once.
const PIECE: usize = 64 * 1024;
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
/// What ^C is.
const INTERRUPT: u8 = 3;
/// How long what was left to be read is read after what ran has ended.
const DRAIN: Duration = Duration::from_millis(20);
/// How long a program's end is waited for when nobody has the far end any more.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Called when what runs in a terminal has ended.
pub type OnExit = Box<dyn Fn(&Arc<Terminal>, Exit) + Send + Sync>;

/// Starts what runs in a terminal, in one of that size.
pub type Start = Box<dyn Fn(Size) -> Result<Arc<dyn Process>, NotStarted> + Send + Sync>;

/// A terminal. It outlives its viewers, and a lasting one what runs in it.
pub struct Terminal {
    /// Its name among the others.
    pub id: String,
    /// Whether a new program is started when somebody wants one and the last has ended.
    pub lasting: bool,
    start: Start,
    live: Mutex<Live>,
    input: Mutex<VecDeque<u8>>,
    viewers: Mutex<Vec<Arc<Viewer>>>,
    screen: Mutex<Screen>,
    /// Somebody brings the screen up to date.
    following: AtomicBool,
    /// Counts how often what reads was interrupted: what waits to be typed is not typed then.
    interrupts: AtomicU64,
    /// A viewer has come nearer to the end.
    credit: Notify,
    /// There is input.
    typed: Notify,
    on_exit: OnExit,
}

/// Why input was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Too much waits already.
    #[error("terminal is not reading input")]
    Busy,
    /// What ran in the terminal has ended; so much of the input had been typed.
    #[error("the command has ended{}", typed(.0))]
    Ended(Option<usize>),
    /// There is no program, and none can be started.
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
}

fn typed(bytes: &Option<usize>) -> String {
    bytes.map_or_else(String::new, |bytes| format!(" after {bytes} bytes"))
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("id", &self.id).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Terminal {
    /// A terminal in which nothing runs yet. `history` is how many lines are kept of what leaves
    /// its screen.
    pub fn new(
        id: String,
        lasting: bool,
        (title, size): (String, Size),
        start: Start,
        history: usize,
        on_exit: OnExit,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            lasting,
            start,
            live: Mutex::new(Live::new(title, size)),
            input: Mutex::default(),
            viewers: Mutex::default(),
            screen: Mutex::new(Screen::new(size, history)),
            following: AtomicBool::new(false),
            interrupts: AtomicU64::new(0),
            credit: Notify::new(),
            typed: Notify::new(),
            on_exit,
        })
    }

    /// Starts the program if none runs and one may be started now.
    pub fn ensure_started(self: &Arc<Self>) -> Result<(), NotStarted> {
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
        let process = (self.start)(live.size)?;
        live.process = Some(process.clone());
        live.exit = None;
        drop(live);
        tokio::spawn(self.clone().attend(process));
        Ok(())
    }

    /// Reads what the terminal shows until what runs in it has ended.
    async fn attend(self: Arc<Self>, process: Arc<dyn Process>) {
        let mut buffer = vec![0u8; PIECE];
        let mut place = Place::default();
        let how = {
            let feeding = self.feed(&*process);
            let ending = process.ended();
            tokio::pin!(feeding, ending);
            let mut ended = None;
            loop {
                let reading = async {
                    self.wait_for_viewers().await;
                    process.read(place, &mut buffer).await
                };
                tokio::select! {
                    read = reading => match read {
                        Ok(piece) if piece.len > 0 => {
                            place.pass(piece);
                            self.show(&buffer[..piece.len]);
                        }
                        _ => break,
                    },
                    () = &mut feeding => {}
                    how = &mut ending, if ended.is_none() => ended = Some(how),
                    // What the program left to be read is read before its end is told.
                    () = tokio::time::sleep(DRAIN), if ended.is_some() => break,
                }
            }
            match ended {
                Some(how) => Some(how),
                // Nobody has the far end any more; how it ended is known in a moment.
                None => tokio::time::timeout(LAST_WORD, ending).await.ok(),
            }
        };
        self.ended(how.unwrap_or(Ended { code: 1, timed_out: false, failure: None }));
    }

    /// Types what could not be typed at once. Never ends.
    async fn feed(&self, process: &dyn Process) {
        loop {
            let typed = self.typed.notified();
            if lock(&self.input).is_empty() {
                typed.await;
            } else if process.write_from(&self.input).await.is_err() {
                // The reading side finds out why.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits while all viewers are behind, or the screen is.
    async fn wait_for_viewers(&self) {
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
            let from = before.saturating_sub(LONGEST_SWITCH as u64 - 1).max(live.journal.start());
            let split = live.journal.read(from, 2 * LONGEST_SWITCH - 2).unwrap_or_default();
            if let Some(alternate) = switched(data).or_else(|| switched(&split)) {
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
        let taken = if input.is_empty() { process.write(answers).unwrap_or(0) } else { 0 };
        input.extend(&answers[taken..]);
        if !input.is_empty() {
            self.typed.notify_one();
        }
    }

    fn ended(self: &Arc<Self>, how: Ended) {
        let exit = Exit { code: how.code, timed_out: how.timed_out };
        if let Some(Failure::NotStarted(cause)) = how.failure {
            self.show(format!("cannot start shell: {cause}\r\n").as_bytes());
        }
        if exit.timed_out {
            self.show(b"\r\n[time limit reached]");
        }
        // The next program must not find the mouse reported, or half a screen.
        let leftovers = self.catch_up().leftovers();
        if !leftovers.is_empty() {
            self.show(leftovers.as_bytes());
        }
        self.show(format!("\r\n[process exited: {}]\r\n", exit.code).as_bytes());
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

    /// Types what a viewer has sent, but for what its emulator answers programs: ours has done
    /// that. The size is that of whoever types, from before what they have typed is read: a
    /// program that it starts finds it so. Returns whether it has become another.
    pub fn write_for(self: &Arc<Self>, viewer: u64, data: &[u8]) -> Result<bool, InputError> {
        if questions::is_answer(data) {
            return Ok(false);
        }
        let wanted = {
            let mut live = lock(&self.live);
            let highest = live.turns;
            match live.windows.get_mut(&viewer) {
                Some(window) if window.turn != highest || highest == 0 => {
                    window.turn = highest + 1;
                    live.turns += 1;
                    live.wanted()
                }
                _ => None,
            }
        };
        let before = self.size();
        let is_other = wanted.is_some() && self.fit(wanted) != before;
        self.write(data)?;
        Ok(is_other)
    }

    /// Types. A shared terminal whose shell has ended gets a new one.
    pub fn write(self: &Arc<Self>, data: &[u8]) -> Result<(), InputError> {
        if self.lasting {
            self.ensure_started()?;
        }
        let process = lock(&self.live).process.clone();
        let mut input = lock(&self.input);
        let Some(process) = process else {
            if !self.lasting {
                return Err(InputError::Ended(None));
            }
            // The next shell gets it.
            return queue(&mut input, data);
        };
        if let Some(at) = data.iter().position(|b| *b == INTERRUPT)
            && process.interrupts(INTERRUPT)
        {
            self.interrupts.fetch_add(1, Ordering::Relaxed);
            for viewer in lock(&self.viewers).iter() {
                viewer.skip.store(true, Ordering::Relaxed);
                viewer.wake.notify_one();
            }
            if !input.is_empty() {
                // What waits is not read by anybody now: the interrupt goes past it.
                input.clear();
                let _ = process.signal(Signal::Interrupt);
                return queue(&mut input, &data[at + 1..]);
            }
        }
        // Taken as a whole, or not at all.
        if input.len() + data.len() > MAX_INPUT {
            return Err(InputError::Busy);
        }
        let taken = if input.is_empty() { process.write(data).unwrap_or(0) } else { 0 };
        queue(&mut input, &data[taken..])?;
        if !input.is_empty() {
            self.typed.notify_one();
        }
        Ok(())
    }

    /// Types something long, as fast as it is read, until somebody interrupts what reads it.
    pub async fn paste(self: &Arc<Self>, data: &[u8]) -> Result<(), InputError> {
        let before = self.interrupts.load(Ordering::Relaxed);
        if self.lasting {
            self.ensure_started()?;
        }
        let Some(process) = lock(&self.live).process.clone() else {
            return Err(InputError::Ended(None));
        };
        for (n, piece) in data.chunks(PASTED).enumerate() {
            loop {
                let same = lock(&self.live).process.as_ref().is_some_and(|now| Arc::ptr_eq(now, &process));
                if !same {
                    return Err(InputError::Ended(Some(n * PASTED)));
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
    pub fn resize(&self, size: Size) {
        // The screen has seen all that was shown at the old size.
        let mut screen = self.catch_up();
        let mut live = lock(&self.live);
        if live.size == size {
            return;
        }
        live.size = size;
        screen.resize(size);
        if let Some(process) = &live.process {
            process.resize(size);
        }
    }

    /// Says what a viewer has room for, and their colours. The terminal is as large as whoever
    /// types can show; returns its size.
    pub fn make_room(&self, viewer: u64, size: Size, colours: Option<Colours>) -> Size {
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
    pub fn leave_room(&self, viewer: u64) {
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
    pub fn set_aside(&self, viewer: u64, away: bool) {
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

    /// Its size.
    pub fn size(&self) -> Size {
        lock(&self.live).size
    }

    /// What people call it.
    pub fn title(&self) -> String {
        lock(&self.live).title.clone()
    }

    /// Calls it something else.
    pub fn rename(&self, title: String) {
        lock(&self.live).title = title;
    }

    /// Whether something runs in it, and how the last that ran ended.
    pub fn state(&self) -> (bool, Option<Exit>) {
        let live = lock(&self.live);
        (live.process.is_some(), live.exit)
    }

    /// The offset after the last byte shown.
    pub fn end(&self) -> u64 {
        lock(&self.live).journal.end()
    }

    /// Ends what runs in it: SIGHUP, then SIGKILL.
    pub fn close(&self) {
        let mut live = lock(&self.live);
        live.closed = true;
        if let Some(process) = &live.process {
            let _ = process.signal(Signal::End);
        }
    }

    /// Whether something runs in it.
    pub fn is_running(&self) -> bool {
        lock(&self.live).process.is_some()
    }

    /// Lets somebody look.
    pub fn attach(&self, viewer: Arc<Viewer>) {
        lock(&self.viewers).push(viewer);
        self.credit.notify_one();
    }

    /// Somebody looks no more.
    pub fn detach(&self, viewer: &Arc<Viewer>) {
        lock(&self.viewers).retain(|v| !Arc::ptr_eq(v, viewer));
        self.credit.notify_one();
    }

    /// How many look at it.
    pub fn viewer_count(&self) -> usize {
        lock(&self.viewers).len()
    }

    /// Says that a viewer has got all before `offset`.
    pub fn advance(&self, viewer: &Viewer, offset: u64) {
        viewer.offset.store(offset, Ordering::Relaxed);
        self.credit.notify_one();
    }

    /// What a viewer gets next; `None` if there is nothing.
    pub fn next(&self, viewer: &Viewer, max: usize) -> Option<Next> {
        let from = viewer.offset();
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
    pub fn range(&self, from: u64, to: u64) -> Option<Vec<u8>> {
        let len = usize::try_from(to.checked_sub(from)?).ok()?;
        lock(&self.live).journal.read(from, len).filter(|bytes| bytes.len() == len)
    }

    /// What shows a new viewer of the shared terminal its last lines, without what programs
    /// asked, and the offset after it (`docs/protocols/workspace.md`, §7).
    pub fn replay(&self) -> (String, u64) {
        let live = lock(&self.live);
        if live.alternate {
            drop(live);
            let screen = self.catch_up();
            return (screen.picture(), screen.parsed());
        }
        let from = live.journal.replay_from(REPLAY);
        let bytes = live.journal.read(from, REPLAY).unwrap_or_default();
        let whole = whole_characters(&bytes);
        let shown = questions::without(&bytes[..whole]);
        (format!("\u{1b}c{}", String::from_utf8_lossy(&shown)), from + whole as u64)
    }

    /// The screen as it is now, with the lines above it, and the offset it is of.
    pub fn snapshot(&self) -> (String, u64) {
        let screen = self.catch_up();
        (screen.snapshot(), screen.parsed())
    }
}

fn queue(input: &mut VecDeque<u8>, data: &[u8]) -> Result<(), InputError> {
    if input.len() + data.len() > MAX_INPUT {
        return Err(InputError::Busy);
    }
    input.extend(data);
    Ok(())
}
