//! What was sent to a client, so that it can be sent again after a cut.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::data::Payload;
use crate::source::Past;

/// Most events remembered.
const MAX_ENTRIES: usize = 16 * 1024;
/// Most bytes of payloads remembered; what others keep is not counted.
const MAX_BYTES: usize = 2 << 20;

/// What an event carried.
#[derive(Clone)]
pub(crate) enum Sent {
    Whole(Payload),
    Range { past: Arc<dyn Past>, from: u64, to: u64 },
}

impl Sent {
    /// The same again; `None` if it is kept no longer.
    pub(crate) fn payload(self) -> Option<Payload> {
        match self {
            Self::Whole(payload) => Some(payload),
            Self::Range { past, from, to } => past.payload(from, to),
        }
    }
}

/// An event and its place.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) name: &'static str,
    pub(crate) sent: Sent,
}

/// The last events of a client.
#[derive(Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: u64,
}

impl Log {
    /// Notes an event; its place.
    pub(crate) fn add(&mut self, name: &'static str, sent: Sent) -> u64 {
        self.last += 1;
        self.bytes += size(&sent);
        self.entries.push_back(Entry { offset: self.last, name, sent });
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES && self.entries.len() > 1 {
            let gone = self.entries.pop_front();
            self.bytes -= gone.map_or(0, |e| size(&e.sent));
        }
        self.last
    }

    /// All after `offset`; `None` if some of it is no longer known.
    pub(crate) fn after(&self, offset: u64) -> Option<Vec<Entry>> {
        let missed = usize::try_from(self.last.checked_sub(offset)?).ok()?;
        let skip = self.entries.len().checked_sub(missed)?;
        Some(self.entries.iter().skip(skip).cloned().collect())
    }
}

fn size(sent: &Sent) -> usize {
    match sent {
        Sent::Whole(payload) => payload.get().len(),
        Sent::Range { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Sent {
        Sent::Whole(crate::data::payload(&text))
    }

    #[test]
    fn what_was_missed_is_known_or_said_to_be_gone() {
        let mut log = Log::default();
        assert_eq!(log.after(0).expect("nothing").len(), 0);
        for n in 1..=5u64 {
            assert_eq!(log.add("x", event(&n.to_string())), n);
        }
        let offsets: Vec<u64> = log.after(2).expect("known").iter().map(|e| e.offset).collect();
        assert_eq!(offsets, [3, 4, 5]);
        assert!(log.after(5).expect("none").is_empty());
        assert!(log.after(6).is_none());
        for _ in 0..3 {
            log.add("x", event(&"x".repeat(MAX_BYTES / 2)));
        }
        assert!(log.after(2).is_none());
        assert_eq!(log.after(7).expect("known").len(), 1);
    }
}
