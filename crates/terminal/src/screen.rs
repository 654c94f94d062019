//! What a terminal looks like: for viewers who come when its bytes are long gone.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::num::NonZeroU16;

use legwork_executor::Size;
use vt100::capture::BasicFormattedCaptureState;

use crate::questions::{self, Colours};

/// Most bytes of the lines that have left a screen at its top.
const MAX_HISTORY: usize = 2 << 20;
/// Most bytes of answers that are not typed yet.
const MAX_ANSWERS: usize = 4096;

/// A screen that follows a terminal's journal.
pub(crate) struct Screen {
    parser: vt100::Parser<Beside>,
    parsed: u64,
}

/// What belongs to a terminal beside its screen.
struct Beside {
    /// The lines above it, and how many of them at most.
    lines: VecDeque<String>,
    bytes: usize,
    most: usize,
    colours: Colours,
    /// What programs are answered, not typed yet.
    answers: Vec<u8>,
}

impl Beside {
    fn say(&mut self, answer: Option<String>) {
        if let Some(answer) = answer.filter(|a| self.answers.len() + a.len() <= MAX_ANSWERS) {
            self.answers.extend(answer.into_bytes());
        }
    }
}

/// Finds out whether a line goes on in the next one, without writing it: vt100 says so only by
/// the line break that it starts the next one with.
struct Probe(bool);

impl std::fmt::Write for Probe {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 = text == "\n";
        Err(std::fmt::Error)
    }
}

impl vt100::Callbacks for Beside {
    fn on_scroll(&mut self, row: vt100::capture::RowContents<'_>, alternate: bool) {
        if alternate || self.most == 0 {
            return;
        }
        let mut state = BasicFormattedCaptureState::new();
        let mut line = String::new();
        let _ = row.write_formatted_basic(&mut line, &mut state);
        let mut probe = Probe(false);
        let _ = row.write_formatted_basic(&mut probe, &mut state);
        if line.contains('\u{1b}') {
            line.push_str("\u{1b}[m");
        }
        if probe.0 {
            line.push_str("\r\n");
        }
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.most || self.bytes > MAX_HISTORY {
            let Some(gone) = self.lines.pop_front() else { break };
            self.bytes -= gone.len();
        }
    }

    fn unhandled_csi(
        &mut self,
        screen: &mut vt100::Screen,
        first: Option<u8>,
        second: Option<u8>,
        params: &[&[u16]],
        last: char,
    ) {
        if (first, second, last) == (None, None, 'J') && params.first() == Some(&&[3][..]) {
            self.lines.clear();
            self.bytes = 0;
        }
        self.say(questions::answer_csi(screen, &self.colours, (first, second), params, last));
    }

    fn unhandled_escape(&mut self, screen: &mut vt100::Screen, first: Option<u8>, _: Option<u8>, last: u8) {
        if first.is_none() && last == b'Z' {
            self.say(questions::answer_csi(screen, &self.colours, (None, None), &[], 'c'));
        }
    }

    fn unhandled_osc(&mut self, _: &mut vt100::Screen, params: &[&[u8]]) {
        self.say(questions::answer_osc(&self.colours, params));
    }
}

fn part(value: u16, default: u16) -> NonZeroU16 {
    NonZeroU16::new(value).or(NonZeroU16::new(default)).unwrap_or(NonZeroU16::MIN)
}

impl Screen {
    /// Keeps at most `history` lines of what has left the screen.
    pub(crate) fn new(size: Size, history: usize) -> Self {
        let beside = Beside {
            lines: VecDeque::new(),
            bytes: 0,
            most: history,
            colours: Colours::default(),
            answers: Vec::new(),
        };
        let parser = vt100::Parser::new_with_callbacks(part(size.rows, 24), part(size.cols, 80), 0, beside);
        Self { parser, parsed: 0 }
    }

    /// The offset up to which it has seen the journal.
    pub(crate) fn parsed(&self) -> u64 {
        self.parsed
    }

    /// Leaves out what is gone from the journal.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.parsed = self.parsed.max(offset);
    }

    /// Shows what was printed; returns what the programs that have asked are to be answered.
    pub(crate) fn process(&mut self, data: &[u8], colours: Colours) -> Vec<u8> {
        self.parser.callbacks_mut().colours = colours;
        self.parser.process(data);
        self.parsed += data.len() as u64;
        std::mem::take(&mut self.parser.callbacks_mut().answers)
    }

    pub(crate) fn resize(&mut self, size: Size) {
        self.parser.set_size(part(size.rows, 24), part(size.cols, 80));
    }

    /// Whether a program has the whole screen, as editors do.
    pub(crate) fn is_alternate(&self) -> bool {
        self.parser.screen().alternate_screen()
    }

    /// What makes a fresh terminal show this screen.
    pub(crate) fn picture(&self) -> String {
        let alternate = if self.is_alternate() { "\u{1b}[?1049h" } else { "" };
        format!("\u{1b}c{alternate}{}", self.parser.screen().state_formatted())
    }

    /// What turns a fresh terminal into this one: the lines above the screen, the screen, and
    /// the one behind it while a program has it all.
    pub(crate) fn snapshot(&self) -> String {
        let beside = self.parser.callbacks();
        let mut out = String::with_capacity(beside.bytes + 16 * 1024);
        out.push_str("\u{1b}c");
        for line in &beside.lines {
            out.push_str(line);
        }
        let screen = self.parser.screen();
        let (rows, cols) = screen.size();
        if let Some(last) = beside.lines.back() {
            // What was written so far goes up, out of the screen: the line that the cursor is on
            // only if there is something on it.
            let most = usize::from(rows.get()) - usize::from(last.ends_with('\n'));
            let _ = write!(out, "\u{1b}[{rows};1H");
            out.extend(std::iter::repeat_n('\n', beside.lines.len().min(most)));
        }
        if self.is_alternate() {
            let mut behind = vt100::Parser::new(rows, cols, 0);
            *behind.screen_mut() = screen.clone();
            behind.process(b"\x1b[?1049l");
            out.push_str(&behind.screen().contents_formatted());
            out.push_str("\u{1b}[?1049h");
        }
        out.push_str(&screen.state_formatted());
        out
    }

    /// What takes back the modes that a program has left behind.
    pub(crate) fn leftovers(&self) -> String {
        use vt100::MouseProtocolMode as Mouse;
        let screen = self.parser.screen();
        let mut out = String::new();
        for (is_on, off) in [
            (screen.alternate_screen(), "\u{1b}[?1049l"),
            (screen.mouse_protocol_mode() != Mouse::None, "\u{1b}[?9;1000;1002;1003;1005;1006l"),
            (screen.bracketed_paste(), "\u{1b}[?2004l"),
            (screen.application_cursor(), "\u{1b}[?1l"),
            (screen.application_keypad(), "\u{1b}>"),
            (screen.hide_cursor(), "\u{1b}[?25h"),
        ] {
            if is_on {
                out.push_str(off);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { cols: 20, rows: 5 };

    fn shown(text: &[u8]) -> Screen {
        let mut screen = Screen::new(SIZE, 100);
        screen.process(text, Colours::default());
        screen
    }

    #[test]
    fn a_snapshot_makes_the_same_screen() {
        let mut screen = shown("one\r\n\u{1b}[1;31mred\u{1b}[0m\r\näö\u{1b}[?2004h".as_bytes());
        for _ in 0..2 {
            let mut copy = shown(b"something else\r\nthat was there");
            copy.process(screen.snapshot().as_bytes(), Colours::default());
            assert_eq!(copy.parser.screen().contents(), screen.parser.screen().contents());
            assert_eq!(
                copy.parser.screen().contents_formatted(),
                screen.parser.screen().contents_formatted()
            );
            assert_eq!(copy.is_alternate(), screen.is_alternate());
            assert!(copy.parser.screen().bracketed_paste());
            // And once more with an editor's screen, and the shell's behind it.
            screen.process(b"\x1b[?1049h\x1b[2J\x1b[3;5Hfile.txt", Colours::default());
        }
        assert!(screen.is_alternate());
        let mut copy = shown(screen.snapshot().as_bytes());
        for both in [&mut copy, &mut screen] {
            both.process(b"\x1b[?1049l", Colours::default());
        }
        assert_eq!(copy.parser.screen().contents(), screen.parser.screen().contents());
        assert!(copy.parser.screen().contents().contains("red"));
    }

    #[test]
    fn lines_above_the_screen_come_with_it_and_long_ones_stay_one() {
        let mut text = String::new();
        for n in 0..200 {
            let _ = write!(text, "line \u{1b}[3{}m{n}\u{1b}[m\r\n", n % 8);
        }
        text.push_str(&"wide ".repeat(9));
        text.push_str("\r\nend\r\n1\r\n2\r\n3\r\n4\r\n5");
        let screen = shown(text.as_bytes());
        let copy = shown(screen.snapshot().as_bytes());
        let lines = |screen: &Screen| screen.parser.callbacks().lines.iter().cloned().collect::<String>();
        assert_eq!(screen.parser.screen().contents(), copy.parser.screen().contents());
        let history = lines(&screen);
        assert!(lines(&copy).starts_with(&history), "{:?}\n{history:?}", lines(&copy));
        assert!(history.contains(&format!("{}\r\nend\r\n", "wide ".repeat(9))), "{history:?}");
        assert!(history.contains("line \u{1b}[37m199") && !history.contains("m99\u{1b}"));
        assert_eq!(screen.parser.callbacks().lines.len(), 100);
    }

    #[test]
    fn what_a_program_left_behind_is_taken_back() {
        let mut screen = shown(b"\x1b[?1049h\x1b[?1002h\x1b[?1006h\x1b[?25l\x1b[?1h");
        let reset = screen.leftovers();
        screen.process(reset.as_bytes(), Colours::default());
        assert_eq!(screen.leftovers(), "");
        assert_eq!(shown(b"plain").leftovers(), "");
    }

    #[test]
    fn programs_are_answered_once_each() {
        let mut screen = Screen::new(SIZE, 0);
        let light = Colours { foreground: [0, 0, 0], background: [255, 254, 1] };
        for (asked, answer) in [
            ("\u{1b}[c", "\u{1b}[?1;2c"),
            ("\u{1b}[0c", "\u{1b}[?1;2c"),
            ("\u{1b}Z", "\u{1b}[?1;2c"),
            ("\u{1b}[>c", "\u{1b}[>0;276;0c"),
            ("\u{1b}[5n", "\u{1b}[0n"),
            ("\u{1b}[3;7H\u{1b}[6n", "\u{1b}[3;7R"),
            ("\u{1b}[?6n", "\u{1b}[?3;7R"),
            ("\u{1b}[?996n", "\u{1b}[?997;2n"),
            ("\u{1b}[?25$p", "\u{1b}[?25;1$y"),
            ("\u{1b}[?25l\u{1b}[?25$p", "\u{1b}[?25;2$y"),
            ("\u{1b}[?2004h\u{1b}[?2004$p", "\u{1b}[?2004;1$y"),
            ("\u{1b}[?4711$p", "\u{1b}[?4711;0$y"),
            ("\u{1b}[4$p", "\u{1b}[4;2$y"),
            ("\u{1b}[18t", "\u{1b}[8;5;20t"),
            ("\u{1b}]10;?\u{7}", "\u{1b}]10;rgb:0000/0000/0000\u{1b}\\"),
            ("\u{1b}]11;?\u{1b}\\", "\u{1b}]11;rgb:ffff/fefe/0101\u{1b}\\"),
            ("\u{1b}]4;196;?\u{7}", "\u{1b}]4;196;rgb:ffff/0000/0000\u{1b}\\"),
            ("\u{1b}]52;c;?\u{7}", ""),
            ("\u{1b}[1m\u{1b}[2Jtext", ""),
        ] {
            let said = screen.process(asked.as_bytes(), light);
            assert_eq!(String::from_utf8_lossy(&said), answer, "{asked:?}");
        }
        assert!(screen.process(&b"\x1b[c".repeat(100_000), light).len() <= MAX_ANSWERS);
    }

    /// How many columns the emulator gives a text, over a screen of its own.
    fn columns(parser: &mut vt100::Parser, text: &str) -> u16 {
        parser.process(b"\r\x1b[2K");
        parser.process(format!("a{text}").as_bytes());
        parser.screen().cursor_position().1 - 1
    }

    /// Ranges as numbers in base 36: how far from the last one, and how long.
    fn packed(ranges: &[(u32, u32)]) -> String {
        let digits = |mut n: u32| {
            let mut out = Vec::new();
            loop {
                out.push(char::from_digit(n % 36, 36).unwrap_or('0'));
                n /= 36;
                if n == 0 {
                    return out.iter().rev().collect::<String>();
                }
            }
        };
        let mut last = 0;
        let mut all = Vec::new();
        for (from, to) in ranges {
            all.extend([digits(from - last), digits(to - from)]);
            last = *to;
        }
        all.join(" ")
    }

    /// The page's terminal must put the cursor where this emulator has it. `LEGWORK_WRITE_WIDTHS=1`
    /// writes the table anew.
    #[test]
    fn the_page_knows_how_wide_characters_are_here() {
        let mut parser = vt100::Parser::new(NonZeroU16::MIN, NonZeroU16::new(8).expect("not zero"), 0);
        let mut ranges: [Vec<(u32, u32)>; 3] = Default::default();
        for c in (' '..=char::MAX).filter(|c| !c.is_control()) {
            let at = u32::from(c);
            let kind = match columns(&mut parser, &c.to_string()) {
                0 => 0,
                2 => 1,
                _ if columns(&mut parser, &format!("{c}\u{fe0f}")) == 2 => 2,
                _ => continue,
            };
            match ranges[kind].last_mut().filter(|(_, to)| *to == at) {
                Some((_, to)) => *to = at + 1,
                None => ranges[kind].push((at, at + 1)),
            }
        }
        let [none, wide, widened] = ranges.map(|ranges| packed(&ranges));
        let want = format!(
            "/** How many columns characters take, as the server's emulator has it, whose tests make this: ranges, each as\n \
             * how far it is from the last one and how long, in base 36. */\n\
             export const NONE =\n  \"{none}\";\nexport const TWO =\n  \"{wide}\";\n\
             export const WIDENED =\n  \"{widened}\";\n"
        );
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../web/src/workspace/widths.ts");
        if std::env::var_os("LEGWORK_WRITE_WIDTHS").is_some() {
            std::fs::write(file, &want).expect("written");
        }
        assert!(
            std::fs::read_to_string(file).expect("a table") == want,
            "web/src/workspace/widths.ts is another"
        );
    }
}
