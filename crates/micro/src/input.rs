//! Cuts what the controller sends into lines, however it arrives.

use legwork_proto::micro::MAX_LINE;

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end.
    Complete(Vec<u8>),
    /// [`MAX_LINE`] or more, newline included: it was skipped.
    TooLong,
}

/// The bytes that are no whole line yet. Holds at most a line and what came with it.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    start: usize,
    scanned: usize,
    skipping: bool,
}

impl Lines {
    /// Takes bytes in. All complete lines have been taken out before.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
            if self.bytes.is_empty() {
                // A big line is over: its memory goes back.
                self.bytes.shrink_to(64 * 1024);
            }
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line that is complete. Blank ones are skipped.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let Some(at) = memchr::memchr(b'\n', &self.bytes[self.scanned..]) else {
                self.scanned = self.bytes.len();
                if self.skipping || self.bytes.len() - self.start >= MAX_LINE {
                    self.skipping = true;
                    self.start = self.bytes.len();
                }
                return None;
            };
            let (from, to) = (self.start, self.scanned + at);
            (self.start, self.scanned) = (to + 1, to + 1);
            if std::mem::take(&mut self.skipping) || to + 1 - from >= MAX_LINE {
                return Some(Line::TooLong);
            }
            if let Some(line) = self.take(from, to) {
                return Some(line);
            }
        }
    }

    /// What is left at the end of input: a last line needs no newline.
    pub fn last_line(&mut self) -> Option<Line> {
        let (from, to) = (self.start, self.bytes.len());
        (self.start, self.scanned) = (to, to);
        if std::mem::take(&mut self.skipping) || to - from >= MAX_LINE {
            return Some(Line::TooLong);
        }
        self.take(from, to)
    }

    fn take(&mut self, from: usize, to: usize) -> Option<Line> {
        let line = &self.bytes[from..to];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        if from == 0 && to + 1 >= self.bytes.len() && line.len() > 64 * 1024 {
            // A big line that is all there is: handed over instead of copied.
            let length = line.len();
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.truncate(length);
            (self.start, self.scanned) = (0, 0);
            return Some(Line::Complete(bytes));
        }
        Some(Line::Complete(line.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<Line> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            found.extend(std::iter::from_fn(|| lines.next_line()));
        }
        found.extend(lines.last_line());
        found
    }

    fn complete(text: &str) -> Line {
        Line::Complete(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_the_same_wherever_the_bytes_are_split() {
        let text = b"one\r\n\n \t\ntwo\nthree";
        let expected = vec![complete("one"), complete("two"), complete("three")];
        assert_eq!(all(&[text]), expected);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(all(&bytes), expected);
    }

    #[test]
    fn a_line_of_the_limit_is_too_long_and_the_next_one_is_read() {
        for (length, fits) in [(MAX_LINE - 2, true), (MAX_LINE - 1, false), (3 * MAX_LINE, false)] {
            let mut text = vec![b'x'; length];
            text.extend_from_slice(b"\nnext\n");
            for size in [text.len(), 65_536] {
                let chunks: Vec<&[u8]> = text.chunks(size).collect();
                let found = all(&chunks);
                assert_eq!(found.len(), 2, "{length} in chunks of {size}");
                assert_eq!(found[0] != Line::TooLong, fits, "{length} in chunks of {size}");
                assert_eq!(found[1], complete("next"));
            }
        }
    }

    #[test]
    fn an_endless_line_takes_no_endless_memory() {
        let mut lines = Lines::default();
        for _ in 0..1000 {
            lines.push(&[b'x'; 65_536]);
            assert_eq!(lines.next_line(), None);
        }
        assert!(lines.bytes.capacity() < 3 * MAX_LINE);
        // Nor do many lines that never end where the bytes do.
        let mut many = Lines::default();
        for _ in 0..1000 {
            many.push(&b"some line\nstart of "[..].repeat(1000));
            while many.next_line().is_some() {}
        }
        assert!(many.bytes.capacity() < 1024 * 1024, "{}", many.bytes.capacity());
        lines.push(b"\nnext\n");
        assert_eq!(lines.next_line(), Some(Line::TooLong));
        assert_eq!(lines.next_line(), Some(complete("next")));
    }
}
