//! What changes of a terminal while it lives.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use legwork_executor::{Process, Size};

use crate::journal::Journal;
use crate::questions::Colours;

/// What happened to what ran in a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status, or 128 and the number of the signal that ended it.
    pub code: i32,
    /// Whether its time was up.
    pub timed_out: bool,
}

/// What a viewer's window is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) size: Size,
    pub(crate) colours: Colours,
    /// Who typed last has the highest; of those who have not typed, who came first.
    pub(crate) turn: i64,
    /// Their connection is gone, and may come back.
    pub(crate) away: bool,
}

pub(crate) struct Live {
    pub(crate) journal: Journal,
    pub(crate) title: String,
    pub(crate) size: Size,
    /// Each viewer's, by the viewer's number.
    pub(crate) windows: HashMap<u64, Window>,
    /// How many have come, and how often the one who types has changed.
    pub(crate) came: i64,
    pub(crate) turns: i64,
    pub(crate) process: Option<Arc<dyn Process>>,
    pub(crate) started: Option<Instant>,
    pub(crate) exit: Option<Exit>,
    /// It is to be no more.
    pub(crate) closed: bool,
    /// A program has the whole screen, as editors do. Known at once, unlike the picture of
    /// the screen, which is brought up to date when it is needed.
    pub(crate) alternate: bool,
}

impl Live {
    pub(crate) fn new(title: String, size: Size) -> Self {
        Self {
            journal: Journal::default(),
            title,
            size,
            windows: HashMap::new(),
            came: 0,
            turns: 0,
            process: None,
            started: None,
            exit: None,
            closed: false,
            alternate: false,
        }
    }

    /// The window of whoever types, or would be the first to.
    pub(crate) fn leading(&self) -> Option<&Window> {
        self.windows.values().filter(|w| !w.away).max_by_key(|w| w.turn)
    }

    /// As large as whoever types can show.
    pub(crate) fn wanted(&self) -> Option<Size> {
        self.leading().map(|w| w.size)
    }
}
