//! Those who look at a terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Somebody who looks at a terminal.
#[derive(Debug)]
pub struct Viewer {
    /// They know terminals by their ids, and are shown a lost screen as a screen.
    pub(crate) named: bool,
    /// Wakes whoever sends to them.
    pub(crate) wake: Arc<Notify>,
    /// The next byte they want.
    pub(crate) offset: AtomicU64,
    /// They have interrupted what floods them: what is not sent yet need not be.
    pub(crate) skip: AtomicBool,
}

impl Viewer {
    /// Somebody who has got all before `from`, and whose sender waits for `wake`. Whoever is
    /// `named` gets the screen when they have lost bytes, others the last of the bytes.
    pub fn new(named: bool, wake: Arc<Notify>, from: u64) -> Self {
        Self { named, wake, offset: AtomicU64::new(from), skip: AtomicBool::new(false) }
    }

    /// The next byte that they want.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }
}

/// How a viewer goes on.
#[derive(Debug)]
pub enum Next {
    /// With these bytes, the first of which is at the viewer's offset.
    Bytes(Vec<u8>),
    /// With a replay, and then from this offset on.
    Replay(String, u64),
}
