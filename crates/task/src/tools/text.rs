//! Output of bounded size: its beginning and its end.

use std::collections::VecDeque;

/// Keeps so many bytes, half of them from either end, or all from the end.
pub(crate) struct HeadAndTail {
    head_most: usize,
    tail_most: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    omitted: u64,
}

impl HeadAndTail {
    pub(crate) fn new(most: usize) -> Self {
        Self { head_most: most / 2, tail_most: most / 2, head: Vec::new(), tail: VecDeque::new(), omitted: 0 }
    }

    /// Keeps the last bytes only.
    pub(crate) fn tail(most: usize) -> Self {
        Self { head_most: 0, tail_most: most, ..Self::new(0) }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let room = self.head_most - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        // Of a long piece only its end can stay.
        let skip = rest.len().saturating_sub(self.tail_most);
        self.omitted += skip as u64;
        self.tail.extend(&rest[skip..]);
        let extra = self.tail.len().saturating_sub(self.tail_most);
        self.tail.drain(..extra);
        self.omitted += extra as u64;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }

    /// Whether some of it was not kept.
    pub(crate) fn is_cut(&self) -> bool {
        self.omitted > 0
    }

    pub(crate) fn text(mut self) -> String {
        if self.omitted == 0 || self.head_most == 0 {
            self.head.extend(self.tail);
            return String::from_utf8_lossy(&self.head).into_owned();
        }
        let tail: Vec<u8> = self.tail.into();
        format!(
            "{}\n... [{} bytes omitted] ...\n{}",
            String::from_utf8_lossy(&self.head),
            self.omitted,
            String::from_utf8_lossy(&tail)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_stay_however_the_bytes_come() {
        for size in [1, 3, 7, 100] {
            let mut kept = HeadAndTail::new(20);
            let text: String = (0..50).map(|i| char::from(b'a' + i % 26)).collect();
            for piece in text.as_bytes().chunks(size) {
                kept.add(piece);
            }
            assert_eq!(kept.text(), "abcdefghij\n... [30 bytes omitted] ...\nopqrstuvwx", "{size}");
        }
        let mut kept = HeadAndTail::new(20);
        kept.add(b"0123456789abcde");
        assert_eq!(kept.text(), "0123456789abcde");
        let mut kept = HeadAndTail::tail(5);
        kept.add(b"0123");
        kept.add(b"456789");
        assert!(kept.is_cut());
        assert_eq!(kept.text(), "56789");
    }
}
