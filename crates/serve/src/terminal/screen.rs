//! What a terminal looks like: for viewers who come when its bytes are long gone.

use std::num::NonZeroU16;

use legwork_process::Size;

/// A screen that follows a terminal's journal.
pub(crate) struct Screen {
    parser: vt100::Parser,
    parsed: u64,
}

fn part(value: u16, default: u16) -> NonZeroU16 {
    NonZeroU16::new(value).or(NonZeroU16::new(default)).unwrap_or(NonZeroU16::MIN)
}

impl Screen {
    pub(crate) fn new(size: Size) -> Self {
        Self { parser: vt100::Parser::new(part(size.rows, 24), part(size.cols, 80), 0), parsed: 0 }
    }

    /// The offset up to which it has seen the journal.
    pub(crate) fn parsed(&self) -> u64 {
        self.parsed
    }

    /// Leaves out what is gone from the journal.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.parsed = self.parsed.max(offset);
    }

    pub(crate) fn process(&mut self, data: &[u8]) {
        self.parser.process(data);
        self.parsed += data.len() as u64;
    }

    pub(crate) fn resize(&mut self, size: Size) {
        self.parser.screen_mut().set_size(part(size.rows, 24), part(size.cols, 80));
    }

    /// Whether a program has the whole screen, as editors do.
    pub(crate) fn is_alternate(&self) -> bool {
        self.parser.screen().alternate_screen()
    }

    /// What turns a fresh terminal into this one.
    pub(crate) fn snapshot(&self) -> String {
        let alternate = if self.is_alternate() { "\u{1b}[?1049h" } else { "" };
        format!("\u{1b}c{alternate}{}", self.parser.screen().state_formatted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { cols: 20, rows: 5 };

    #[test]
    fn a_snapshot_makes_the_same_screen() {
        let mut screen = Screen::new(SIZE);
        screen.process("one\r\n\u{1b}[1;31mred\u{1b}[0m\r\näö\u{1b}[?2004h".as_bytes());
        for _ in 0..2 {
            let mut copy = Screen::new(SIZE);
            copy.process(b"something else\r\nthat was there");
            copy.process(screen.snapshot().as_bytes());
            assert_eq!(copy.parser.screen().contents(), screen.parser.screen().contents());
            assert_eq!(
                copy.parser.screen().contents_formatted(),
                screen.parser.screen().contents_formatted()
            );
            assert_eq!(copy.is_alternate(), screen.is_alternate());
            assert!(copy.parser.screen().bracketed_paste());
            // And once more with an editor's screen.
            screen.process(b"\x1b[?1049h\x1b[2J\x1b[3;5Hfile.txt");
        }
        assert!(screen.is_alternate());
    }
}
