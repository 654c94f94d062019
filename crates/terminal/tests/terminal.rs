//! A terminal over a program that is played by the test: what an executor elsewhere would be.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use legwork_executor::{Ended, NotStarted, Pending, Piece, Place, Process, Signal, Size, Stream};
use legwork_terminal::{Exit, InputError, Next, Start, Terminal, Viewer};
use tokio::sync::{Notify, watch};

/// What a program was told, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Typed(String),
    Size(u16, u16),
    Signal(Signal),
}

/// A program that says what the test has it say.
struct Played {
    shown: watch::Sender<Vec<u8>>,
    ended: watch::Sender<Option<Ended>>,
    told: Mutex<Vec<Told>>,
    /// How much it takes of what is typed.
    takes: Mutex<usize>,
}

impl Played {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            shown: watch::Sender::new(Vec::new()),
            ended: watch::Sender::new(None),
            told: Mutex::default(),
            takes: Mutex::new(usize::MAX),
        })
    }

    fn say(&self, text: &str) {
        self.shown.send_modify(|shown| shown.extend_from_slice(text.as_bytes()));
    }

    fn end(&self, code: i32) {
        self.ended.send_replace(Some(Ended { code, timed_out: false, failure: None }));
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().expect("lock").clone()
    }
}

impl Process for Played {
    fn read<'a>(&'a self, from: Place, buffer: &'a mut [u8]) -> Pending<'a, io::Result<Piece>> {
        let mut shown = self.shown.subscribe();
        Box::pin(async move {
            let from = usize::try_from(from.stdout).expect("small");
            let all = shown.wait_for(|shown| shown.len() > from).await.map_err(io::Error::other)?;
            let len = (all.len() - from).min(buffer.len());
            buffer[..len].copy_from_slice(&all[from..from + len]);
            Ok(Piece { stream: Stream::Stdout, len })
        })
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(*self.takes.lock().expect("lock"));
        if taken > 0 {
            let text = String::from_utf8_lossy(&data[..taken]).into_owned();
            self.told.lock().expect("lock").push(Told::Typed(text));
        }
        Ok(taken)
    }

    fn write_from<'a>(&'a self, _: &'a Mutex<VecDeque<u8>>) -> Pending<'a, io::Result<()>> {
        Box::pin(std::future::pending())
    }

    fn resize(&self, size: Size) {
        self.told.lock().expect("lock").push(Told::Size(size.cols, size.rows));
    }

    fn interrupts(&self, byte: u8) -> bool {
        byte == 3
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.told.lock().expect("lock").push(Told::Signal(signal));
        Ok(())
    }

    fn ended(&self) -> Pending<'_, Ended> {
        let mut ended = self.ended.subscribe();
        Box::pin(async move { ended.wait_for(Option::is_some).await.expect("kept").clone().expect("some") })
    }
}

fn terminal(program: &Arc<Played>) -> (Arc<Terminal>, watch::Receiver<Option<Exit>>) {
    let (exit, exited) = watch::channel(None);
    let program = program.clone();
    let start: Start = Box::new(move |_| Ok(program.clone()));
    let size = Size { cols: 80, rows: 24 };
    let on_exit = Box::new(move |_: &Arc<Terminal>, how| {
        exit.send_replace(Some(how));
    });
    let terminal = Terminal::new("t".into(), false, ("t".into(), size), start, 100, on_exit);
    terminal.ensure_started().expect("started");
    (terminal, exited)
}

/// Reads until a text has come.
async fn until(terminal: &Terminal, viewer: &Arc<Viewer>, wake: &Notify, text: &str) -> String {
    let mut got = String::new();
    loop {
        let waking = wake.notified();
        while let Some(next) = terminal.next(viewer, 1 << 20) {
            let to = match next {
                Next::Bytes(bytes) => {
                    got.push_str(&String::from_utf8_lossy(&bytes));
                    viewer.offset() + bytes.len() as u64
                }
                Next::Replay(text, to) => {
                    got.push_str(&text);
                    to
                }
            };
            terminal.advance(viewer, to);
        }
        if got.contains(text) {
            return got;
        }
        waking.await;
    }
}

#[tokio::test]
async fn viewers_get_what_is_shown_and_the_end_after_all_of_it() {
    let program = Played::new();
    let (terminal, mut exited) = terminal(&program);
    let wake = Arc::new(Notify::new());
    let viewer = Arc::new(Viewer::new(true, wake.clone(), 0));
    terminal.attach(viewer.clone());
    program.say("one ");
    until(&terminal, &viewer, &wake, "one ").await;
    program.say("last words");
    program.end(3);
    let rest = until(&terminal, &viewer, &wake, "[process exited: 3]").await;
    assert!(rest.starts_with("last words"), "{rest:?}");
    let exit = exited.wait_for(Option::is_some).await.expect("told").expect("some");
    assert_eq!(exit, Exit { code: 3, timed_out: false });
    assert_eq!(terminal.write(b"x"), Err(InputError::Ended(None)));
}

/// A line that came in one message ran at the size of whoever had typed before.
#[tokio::test]
async fn who_takes_over_typing_has_their_size_before_what_they_type_is_read() {
    let program = Played::new();
    let (terminal, _) = terminal(&program);
    let size = |cols| Size { cols, rows: 24 };
    terminal.make_room(1, size(120), None);
    terminal.make_room(2, size(40), None);
    assert!(!terminal.write_for(1, b"first\n").expect("typed"), "the size is theirs already");
    assert!(terminal.write_for(2, b"stty size\n").expect("typed"));
    let told = program.told();
    let typed = |text: &str| Told::Typed(text.into());
    assert_eq!(
        told,
        [Told::Size(120, 24), typed("first\n"), Told::Size(40, 24), typed("stty size\n")],
        "{told:?}"
    );
}

#[tokio::test]
async fn an_interrupt_goes_past_what_is_not_read_and_spares_viewers_what_they_have_not_got() {
    let program = Played::new();
    let (terminal, _) = terminal(&program);
    let wake = Arc::new(Notify::new());
    let viewer = Arc::new(Viewer::new(true, wake.clone(), 0));
    terminal.attach(viewer.clone());
    let flood = "y\r\n".repeat(100_000);
    program.say(&flood);
    let mut end = 0;
    while end < flood.len() as u64 {
        tokio::task::yield_now().await;
        end = terminal.end();
    }
    *program.takes.lock().expect("lock") = 0;
    terminal.write(b"waits").expect("queued");
    terminal.write(b"\x03rest").expect("queued");
    assert!(program.told().contains(&Told::Signal(Signal::Interrupt)), "{:?}", program.told());
    let Some(Next::Replay(screen, to)) = terminal.next(&viewer, 1 << 20) else { panic!("the flood is sent") };
    assert!(screen.len() < flood.len() / 10 && to == flood.len() as u64, "{} bytes to {to}", screen.len());
}

#[tokio::test]
async fn what_can_t_be_started_says_so_and_leaves_nothing_running() {
    let start: Start = Box::new(|_| Err(NotStarted::Denied("command denied: sh".into())));
    let size = Size { cols: 80, rows: 24 };
    let terminal = Terminal::new("t".into(), true, ("t".into(), size), start, 100, Box::new(|_, _| {}));
    assert_eq!(terminal.ensure_started(), Err(NotStarted::Denied("command denied: sh".into())));
    assert!(!terminal.is_running());
}
