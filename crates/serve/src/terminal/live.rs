//! What changes of a terminal while it lives.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use legwork_process::Size;

use super::journal::Journal;
use super::{Colours, Exit, Process};

/// What a viewer's window is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) size: Size,
    pub(super) colours: Colours,
    /// Who typed last has the highest; of those who have not typed, who came first.
    pub(super) turn: i64,
    /// Their connection is gone, and may come back.
    pub(super) away: bool,
}

pub(super) struct Live {
    pub(super) journal: Journal,
    pub(super) title: String,
    pub(super) size: Size,
    /// Each viewer's, by the viewer's number.
    pub(super) windows: HashMap<u64, Window>,
    /// How many have come, and how often the one who types has changed.
    pub(super) came: i64,
    pub(super) turns: i64,
    pub(super) process: Option<Arc<Process>>,
    pub(super) started: Option<Instant>,
    pub(super) exit: Option<Exit>,
    /// It is to be no more.
    pub(super) closed: bool,
    /// A program has the whole screen, as editors do. Known at once, unlike the picture of
    /// the screen, which is brought up to date when it is needed.
    pub(super) alternate: bool,
}

impl Live {
    pub(super) fn new(title: String, size: Size) -> Self {
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
    pub(super) fn leading(&self) -> Option<&Window> {
        self.windows.values().filter(|w| !w.away).max_by_key(|w| w.turn)
    }

    /// As large as whoever types can show.
    pub(super) fn wanted(&self) -> Option<Size> {
        self.leading().map(|w| w.size)
    }
}
