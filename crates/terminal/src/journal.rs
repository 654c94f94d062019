//! What a terminal has shown: a numbered log of bytes, of which the end is kept.

use std::collections::VecDeque;

/// Bytes kept of each terminal: a reader further behind gets a replay instead.
pub(crate) const KEPT: usize = 4 << 20;

/// The end of a log of bytes. Offsets count from the terminal's first byte.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Journal {
    /// Appends; the offset grows by all of it, kept or not.
    pub(crate) fn append(&mut self, data: &[u8]) {
        self.end += data.len() as u64;
        let data = &data[data.len().saturating_sub(KEPT)..];
        let surplus = (self.bytes.len() + data.len()).saturating_sub(KEPT);
        self.bytes.drain(..surplus);
        self.bytes.extend(data);
    }

    /// The offset after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The offset of the first byte that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Up to `max` bytes from an offset on; `None` if they are no longer kept.
    pub(crate) fn read(&self, from: u64, max: usize) -> Option<Vec<u8>> {
        let skip = usize::try_from(from.checked_sub(self.start())?).ok()?;
        let take = self.bytes.len().checked_sub(skip)?.min(max);
        let (first, second) = self.bytes.as_slices();
        let mut out = Vec::with_capacity(take);
        if skip < first.len() {
            out.extend_from_slice(&first[skip..(skip + take).min(first.len())]);
        }
        let done = out.len();
        if done < take {
            let at = (skip + done) - first.len();
            out.extend_from_slice(&second[at..at + take - done]);
        }
        Some(out)
    }

    /// Where a replay of at most `most` bytes starts: at the start of a line if there is
    /// one, else at the start of a character.
    pub(crate) fn replay_from(&self, most: usize) -> u64 {
        if self.bytes.len() <= most {
            return self.start();
        }
        let from = self.end - most as u64;
        let tail = self.read(from, most).unwrap_or_default();
        let at = tail
            .iter()
            .position(|b| *b == b'\n')
            .map(|newline| newline + 1)
            .filter(|at| *at < tail.len())
            .or_else(|| tail.iter().position(|b| b & 0xC0 != 0x80))
            .unwrap_or(0);
        from + at as u64
    }
}

/// Sequences that give a program the whole screen, and take it back; and a full reset.
const SWITCHES: &[(&[u8], bool)] = &[
    (b"\x1b[?1049h", true),
    (b"\x1b[?1047h", true),
    (b"\x1b[?47h", true),
    (b"\x1b[?1049l", false),
    (b"\x1b[?1047l", false),
    (b"\x1b[?47l", false),
    (b"\x1bc", false),
];
/// The longest of them.
pub(crate) const LONGEST_SWITCH: usize = 8;

/// Whether a program has the whole screen after these bytes; `None` if they don't say.
pub(crate) fn switched(bytes: &[u8]) -> Option<bool> {
    let at = |at: usize| SWITCHES.iter().find(|(switch, _)| bytes[at..].starts_with(switch));
    (0..bytes.len()).rev().filter(|&i| bytes[i] == 0x1b).find_map(|i| at(i).map(|(_, on)| *on))
}

/// How many of these bytes are whole characters, or can never become one: what is left is
/// the start of a character whose rest has not come yet.
pub fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for at in (tail..bytes.len()).rev() {
        let needed = match bytes[at] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return bytes.len(),
        };
        let have = bytes.len() - at;
        let incomplete =
            have < needed && std::str::from_utf8(&bytes[at..]).is_err_and(|e| e.error_len().is_none());
        return if incomplete { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_is_kept_and_what_is_gone_is_told() {
        let mut journal = Journal::default();
        journal.append(b"hello ");
        journal.append(b"world");
        assert_eq!((journal.start(), journal.end()), (0, 11));
        assert_eq!(journal.read(6, 3).as_deref(), Some(&b"wor"[..]));
        assert_eq!(journal.read(11, 3).as_deref(), Some(&b""[..]));
        assert_eq!(journal.read(12, 3), None);
        journal.append(&vec![b'x'; KEPT]);
        assert_eq!((journal.start(), journal.end()), (11, 11 + KEPT as u64));
        assert_eq!(journal.read(10, 3), None);
        journal.append(&vec![b'y'; 2 * KEPT]);
        assert_eq!(journal.end() - journal.start(), KEPT as u64);
        assert_eq!(journal.read(journal.start(), 2).as_deref(), Some(&b"yy"[..]));
    }

    #[test]
    fn a_replay_starts_with_a_line_or_a_character() {
        let mut journal = Journal::default();
        journal.append("one\ntwo\nthree".as_bytes());
        assert_eq!(journal.replay_from(100), 0);
        assert_eq!(journal.replay_from(8), 8);
        let mut journal = Journal::default();
        journal.append("äöü".as_bytes());
        assert_eq!(journal.replay_from(3), 4);
    }

    #[test]
    fn the_last_switch_of_screens_counts() {
        for (bytes, want) in [
            (&b"plain"[..], None),
            (b"\x1b[?1049h", Some(true)),
            (b"\x1b[?1049hx\x1b[1m\x1b[?1049l\x1b[m", Some(false)),
            (b"\x1b[?47h\x1bc", Some(false)),
            (b"\x1bc\x1b[?1047h\x1b[?2004h", Some(true)),
            (b"\x1b[?1049", None),
        ] {
            assert_eq!(switched(bytes), want, "{bytes:?}");
        }
        assert_eq!(SWITCHES.iter().map(|(switch, _)| switch.len()).max(), Some(LONGEST_SWITCH));
    }

    proptest! {
        #[test]
        fn cuts_split_no_character(text in "\\PC{0,40}", at in 0usize..120) {
            let bytes = text.as_bytes();
            let cut = &bytes[..at.min(bytes.len())];
            let whole = whole_characters(cut);
            prop_assert!(std::str::from_utf8(&cut[..whole]).is_ok());
            prop_assert!(cut.len() - whole < 4);
        }

        #[test]
        fn what_can_never_be_a_character_is_not_held_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let whole = whole_characters(&bytes);
            let held = &bytes[whole..];
            prop_assert!(held.is_empty() || std::str::from_utf8(held).is_err_and(|e| e.error_len().is_none()));
        }

        #[test]
        fn reading_gives_what_was_appended(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20), from in 0u64..500, max in 0usize..100) {
            let mut journal = Journal::default();
            let all: Vec<u8> = pieces.concat();
            for piece in &pieces {
                journal.append(piece);
            }
            let from = from.min(all.len() as u64);
            let want = &all[from as usize..(from as usize + max).min(all.len())];
            prop_assert_eq!(journal.read(from, max).expect("kept"), want);
        }
    }
}
