//! Terminals: a program in a terminal, a journal of what it has shown, one emulator that follows
//! it, and any number of viewers.
//!
//! A viewer has no queue: it has its place in the journal, and asks for what comes next at its
//! own pace ([`Terminal::next`]). The program is read as long as one viewer keeps up. What it asks
//! of its terminal is answered by the emulator here, once, whoever looks. The size is that of the
//! window of whoever types. Where the program runs is an executor's business
//! (`legwork_executor`), and how viewers are reached is that of whoever serves them.

mod journal;
mod live;
mod questions;
mod screen;
mod terminal;
mod viewer;

pub use journal::whole_characters;
pub use legwork_executor::Size;
pub use live::Exit;
pub use questions::Colours;
pub use terminal::{InputError, OnExit, REPLAY, Start, Terminal};
pub use viewer::{Next, Viewer};

/// What strangers make programs print, for the fuzzer.
#[doc(hidden)]
pub mod fuzzing {
    /// Shows bytes on a small screen.
    pub fn show(data: &[u8]) {
        let whole = crate::whole_characters(data);
        assert!(whole <= data.len() && data.len() - whole < 4);
        let cols = u16::from(data.first().copied().unwrap_or(80)).max(1);
        let mut screen = crate::screen::Screen::new(crate::Size { cols, rows: 5 }, 20);
        let _ = screen.process(data, crate::Colours::default());
        let _ = screen.snapshot();
    }
}
