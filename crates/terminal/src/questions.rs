//! What programs ask of a terminal, and what terminals answer.
//!
//! A program's question stands in its output. The server's own emulator reads it first, and is
//! the only one that answers: those of the viewers answer as well, each of them, and once more
//! whenever the output is shown again, when the program is gone and the shell would be given
//! the answer as a line.

/// The colours of whoever types, as programs ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colours {
    /// Of text, as red, green and blue.
    pub foreground: [u8; 3],
    /// Behind text.
    pub background: [u8; 3],
}

impl Default for Colours {
    /// Light on dark: what programs take for granted.
    fn default() -> Self {
        Self { foreground: [0xe7, 0xeb, 0xf1], background: [0x0e, 0x11, 0x15] }
    }
}

impl Colours {
    /// From `#rrggbb`.
    pub fn parse(text: &str) -> Option<[u8; 3]> {
        let digits = text.strip_prefix('#').filter(|d| d.len() == 6 && d.is_ascii())?;
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        Some([byte(0)?, byte(2)?, byte(4)?])
    }

    fn is_light(&self) -> bool {
        self.background.iter().map(|c| u16::from(*c)).sum::<u16>() > 3 * 128
    }
}

/// The sixteen colours that have names, as viewers' emulators show them.
const NAMED: [u32; 16] = [
    0x2e3436, 0xcc0000, 0x4e9a06, 0xc4a000, 0x3465a4, 0x75507b, 0x06989a, 0xd3d7cf, 0x555753, 0xef2929,
    0x8ae234, 0xfce94f, 0x729fcf, 0xad7fa8, 0x34e2e2, 0xeeeeec,
];

/// A colour of the 256.
fn palette(index: u8) -> [u8; 3] {
    let step = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
    match index {
        0..16 => {
            let [_, rgb @ ..] = NAMED[usize::from(index)].to_be_bytes();
            rgb
        }
        16..232 => {
            let n = index - 16;
            [step(n / 36), step(n / 6 % 6), step(n % 6)]
        }
        232.. => [8 + 10 * (index - 232); 3],
    }
}

/// What a control sequence is answered; `None` if it asks nothing that we know.
pub(crate) fn answer_csi(
    screen: &vt100::Screen,
    colours: &Colours,
    middle: (Option<u8>, Option<u8>),
    params: &[&[u16]],
    last: char,
) -> Option<String> {
    let first = params.first().and_then(|p| p.first()).copied().unwrap_or(0);
    let (row, col) = screen.cursor_position();
    let (rows, cols) = screen.size();
    // A cursor beyond the last column is on it, to whoever asks.
    let (row, col) = (row.min(rows.get() - 1) + 1, col.min(cols.get() - 1) + 1);
    Some(match (middle, last, first) {
        ((None, None), 'c', 0) => "\u{1b}[?1;2c".to_owned(),
        ((Some(b'>'), None), 'c', 0) => "\u{1b}[>0;276;0c".to_owned(),
        ((None, None), 'n', 5) => "\u{1b}[0n".to_owned(),
        ((None, None), 'n', 6) => format!("\u{1b}[{row};{col}R"),
        ((Some(b'?'), None), 'n', 6) => format!("\u{1b}[?{row};{col}R"),
        ((Some(b'?'), None), 'n', 996) => {
            format!("\u{1b}[?997;{}n", if colours.is_light() { 2 } else { 1 })
        }
        ((Some(b'>'), None), 'q', 0) => {
            concat!("\u{1b}P>|legwork(", env!("CARGO_PKG_VERSION"), ")\u{1b}\\").to_owned()
        }
        ((None, None), 't', 18) => format!("\u{1b}[8;{rows};{cols}t"),
        ((Some(b'$'), None), 'p', mode) => {
            let state = if matches!(mode, 4 | 20) { 2 } else { 0 };
            format!("\u{1b}[{mode};{state}$y")
        }
        ((Some(b'?'), Some(b'$')), 'p', mode) => {
            let state = match private_mode(screen, mode) {
                Some(true) => 1,
                Some(false) => 2,
                None => 0,
            };
            format!("\u{1b}[?{mode};{state}$y")
        }
        _ => return None,
    })
}

/// Whether a mode is on; `None` if it is none of ours.
fn private_mode(screen: &vt100::Screen, mode: u16) -> Option<bool> {
    use vt100::{MouseProtocolEncoding as Encoding, MouseProtocolMode as Mouse};
    let mouse = screen.mouse_protocol_mode();
    let encoding = screen.mouse_protocol_encoding();
    Some(match mode {
        1 => screen.application_cursor(),
        7 => true,
        9 => mouse == Mouse::Press,
        25 => !screen.hide_cursor(),
        47 | 1047 | 1049 => screen.alternate_screen(),
        66 => screen.application_keypad(),
        1000 => mouse == Mouse::PressRelease,
        1002 => mouse == Mouse::ButtonMotion,
        1003 => mouse == Mouse::AnyMotion,
        1005 => encoding == Encoding::Utf8,
        1006 => encoding == Encoding::Sgr,
        2004 => screen.bracketed_paste(),
        // Viewers draw what comes between its two ends at once; no end of it is open for long.
        2026 => false,
        _ => return None,
    })
}

/// The same of a text with parameters: colours.
pub(crate) fn answer_osc(colours: &Colours, params: &[&[u8]]) -> Option<String> {
    let (what, rgb) = match params {
        [b"10", b"?"] => ("10".to_owned(), colours.foreground),
        [b"11", b"?"] => ("11".to_owned(), colours.background),
        [b"12", b"?"] => ("12".to_owned(), colours.foreground),
        [b"4", index, b"?"] => {
            let index: u8 = std::str::from_utf8(index).ok()?.parse().ok()?;
            (format!("4;{index}"), palette(index))
        }
        _ => return None,
    };
    let [r, g, b] = rgb;
    Some(format!("\u{1b}]{what};rgb:{r:02x}{r:02x}/{g:02x}{g:02x}/{b:02x}{b:02x}\u{1b}\\"))
}

/// Where in a sequence we are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Csi,
    /// DCS, and OSC: texts with an end of their own.
    Dcs,
    Osc,
}

/// How a sequence starts, and in how many bytes: by ESC, or as the one character it also is.
fn introducer(bytes: &[u8]) -> Option<(Option<Kind>, usize)> {
    match bytes {
        [0x1b, b'[', ..] | [0xc2, 0x9b, ..] => Some((Some(Kind::Csi), 2)),
        [0x1b, b'P', ..] | [0xc2, 0x90, ..] => Some((Some(Kind::Dcs), 2)),
        [0x1b, b']', ..] | [0xc2, 0x9d, ..] => Some((Some(Kind::Osc), 2)),
        // "Who are you?" in one step.
        [0x1b, b'Z', ..] | [0xc2, 0x9a, ..] => Some((None, 2)),
        [0x05, ..] => Some((None, 1)),
        _ => None,
    }
}

/// The length of a CSI's parameters and so on, up to its last byte; `None` if it has none, or
/// is broken off.
fn csi_end(rest: &[u8]) -> Option<usize> {
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            0x40..=0x7e => return Some(at + 1),
            0x18 | 0x1a | 0x1b | 0x80.. => return None,
            _ => {}
        }
    }
    None
}

/// The same of a text that BEL or ST ends.
fn text_end(rest: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [0x07, ..] => return Some((at, at + 1)),
            [0x1b, b'\\', ..] | [0xc2, 0x9c, ..] => return Some((at, at + 2)),
            [0x18 | 0x1a | 0x1b, ..] => return None,
            _ => at += 1,
        }
    }
    None
}

fn asks(kind: Kind, body: &[u8]) -> bool {
    match kind {
        Kind::Csi => csi_asks(body),
        // What a setting is (DECRQSS), and what a terminal can do (XTGETTCAP).
        Kind::Dcs => body.starts_with(b"$q") || body.starts_with(b"+q"),
        // Colours, the clipboard.
        Kind::Osc => body.split(|b| *b == b';').skip(1).any(|part| part == b"?"),
    }
}

fn csi_asks(body: &[u8]) -> bool {
    // Control characters within a sequence are none of it.
    let body: Vec<u8> = body.iter().copied().filter(|b| *b >= 0x20 && *b != 0x7f).collect();
    let Some((last, before)) = body.split_last() else { return false };
    let middle = before.iter().position(|b| (0x20..0x30).contains(b)).unwrap_or(before.len());
    let (parameters, middle) = before.split_at(middle);
    let private = parameters.first().copied().filter(|b| (0x3c..0x40).contains(b));
    let first = parameters.split(|b| *b == b';' || *b == b':').next().unwrap_or_default();
    match (middle, last) {
        // Who it is, how it is, where the cursor is, what its parameters are.
        (b"", b'c' | b'x') => true,
        (b"", b'n') => matches!(private, None | Some(b'?')),
        // Its version; which keys it reports; what pictures it can show.
        (b"", b'q') => private == Some(b'>'),
        (b"", b'u' | b'S') => private == Some(b'?'),
        // Sizes and titles of its window.
        (b"", b't') => matches!(first, b"11" | b"13" | b"14" | b"15" | b"16" | b"18" | b"19" | b"20" | b"21"),
        // Modes, presentation, checksums.
        (b"$", b'p' | b'w') | (b"*", b'y') => true,
        _ => false,
    }
}

/// What was shown, without the questions in it.
pub(crate) fn without(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let Some((kind, start)) = introducer(rest) else {
            out.push(bytes[at]);
            at += 1;
            continue;
        };
        let Some(kind) = kind else {
            at += start;
            continue;
        };
        let after = &rest[start..];
        let end = match kind {
            Kind::Csi => csi_end(after).map(|end| (end, end)),
            Kind::Dcs | Kind::Osc => text_end(after),
        };
        match end {
            Some((body, end)) if asks(kind, &after[..body]) => {
                // What is carried out within it is carried out all the same.
                let controls =
                    after[..body].iter().filter(|b| kind == Kind::Csi && **b < 0x20 && **b != 0x05);
                out.extend(controls);
                at += start + end;
            }
            Some((_, end)) => {
                out.extend_from_slice(&rest[..start + end]);
                at += start + end;
            }
            None => {
                out.extend_from_slice(&rest[..start]);
                at += start;
            }
        }
    }
    out
}

/// Whether input is nothing but answers of an emulator. Shifted F3 looks like the place of a
/// cursor in the first line, and counts as a key.
pub(crate) fn is_answer(input: &[u8]) -> bool {
    let mut rest = input;
    while !rest.is_empty() {
        match answer(rest) {
            Some(len) => rest = &rest[len..],
            None => return false,
        }
    }
    !input.is_empty()
}

/// The length of the answer that bytes start with.
fn answer(bytes: &[u8]) -> Option<usize> {
    let (kind, start) = introducer(bytes)?;
    let after = &bytes[start..];
    match kind? {
        Kind::Csi => {
            let end = csi_end(after)?;
            let (last, parameters) = after[..end].split_last()?;
            let (private, numbers) = match parameters.split_first() {
                Some((first @ (b'?' | b'>' | b'='), rest)) => (Some(*first), rest),
                _ => (None, parameters),
            };
            let (numbers, middle) = match numbers.strip_suffix(b"$") {
                Some(numbers) => (numbers, true),
                None => (numbers, false),
            };
            if numbers.is_empty() || !numbers.iter().all(|b| b.is_ascii_digit() || *b == b';') {
                return None;
            }
            let is_answer = match (private, middle, last) {
                (_, false, b'c') | (Some(b'?'), false, b'u') => true,
                (None, false, b'n') => numbers == b"0" || numbers == b"3",
                (Some(b'?'), false, b'R' | b'n') | (_, true, b'y') => true,
                (None, false, b'R') => numbers.contains(&b';') && !numbers.starts_with(b"1;"),
                (None, false, b't') => {
                    matches!(numbers.split(|b| *b == b';').next(), Some(b"4" | b"6" | b"8" | b"9"))
                }
                (None, false, b'x') => true,
                _ => false,
            };
            is_answer.then_some(start + end)
        }
        // Nobody types these.
        Kind::Dcs | Kind::Osc => text_end(after).map(|(_, end)| start + end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_are_left_out_and_all_else_stays() {
        for question in [
            "\x1b[c",
            "\x1b[0c",
            "\x1b[>c",
            "\x1b[>0c",
            "\x1b[=c",
            "\x1b[5n",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[?996n",
            "\x1b[?2026$p",
            "\x1b[4$p",
            "\x1b[>q",
            "\x1b[>0q",
            "\x1b[?u",
            "\x1b[14t",
            "\x1b[18t",
            "\x1b[21t",
            "\x1b[x",
            "\x1b[1$w",
            "\x1b[?1;1;0S",
            "\x1b[1;1;1;1;1;1*y",
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b]10;?\x1b\\",
            "\x1b]11;?\x07",
            "\x1b]4;1;?\x07",
            "\x1b]52;c;?\x07",
            "\x1bZ",
            "\x05",
            "\u{9b}c",
            "\u{9d}11;?\u{9c}",
            "\u{90}$qm\u{9c}",
            "\u{9a}",
        ] {
            let text = format!("a{question}b");
            assert_eq!(without(text.as_bytes()), b"ab", "{question:?}");
        }
        assert_eq!(without(b"\x1b[6\r\nnx"), b"\r\nx");
        for kept in [
            "\x1b[2J",
            "\x1b[1;31m",
            "\x1b[?1049h",
            "\x1b[2 q",
            "\x1b[!p",
            "\x1b[22;0t",
            "\x1b[8;24;80t",
            "\x1b[u",
            "\x1b[1S",
            "\x1b]0;title?\x07",
            "\x1b]8;;http://x/?a\x1b\\",
            "\x1bPq#0\x1b\\",
            "\x1b[",
            "\x1b[3\x18c",
            "\x1b[1\x1b[m",
            "\x1b]11;?",
            "äö\u{1f600}\x1b",
            "\x1b[>4;2m",
            "\x1b[>4n",
            "\x1b[=1u",
            "\x1b(B",
            "\x1b]4;1;#fff\x07",
        ] {
            assert_eq!(without(kept.as_bytes()), kept.as_bytes(), "{kept:?}");
        }
    }

    #[test]
    fn answers_are_told_from_keys() {
        for answer in [
            "\x1b[?1;2c",
            "\x1b[>0;276;0c",
            "\x1b[0n",
            "\x1b[24;80R",
            "\x1b[?24;80R",
            "\x1b[?2026;2$y",
            "\x1b[4;2$y",
            "\x1b]11;rgb:1111/2222/3333\x1b\\",
            "\x1bP1$r0m\x1b\\",
            "\x1b[8;24;80t",
            "\x1b[?0u",
            "\x1b[?997;2n",
            "\x1bP>|legwork(1)\x1b\\",
            "\x1b[?1;2c\x1b[0n",
        ] {
            assert!(is_answer(answer.as_bytes()), "{answer:?}");
        }
        for key in [
            "",
            "a",
            "\x1b",
            "\x1b[A",
            "\x1b[1;5C",
            "\x1b[3~",
            "\x1b[1;2R",
            "\x1b[Z",
            "\x1bOP",
            "\x1b[200~x\x1b[201~",
            "\x1b[I",
            "\x1b[O",
            "\x1b[<0;5;5M",
            "\x1b[27;5;9~",
            "\x1b[97;5u",
            "\x1b[?1;2cx",
            "c",
            "\x1b[c",
            "\r",
            "\x03",
        ] {
            assert!(!is_answer(key.as_bytes()), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn once_is_enough_and_text_is_not_touched(text in "[a-zäö\\r\\n ]{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(without(text.as_bytes()), text.as_bytes());
            let _ = is_answer(&bytes);
            prop_assert!(without(&bytes).len() <= bytes.len());
        }
    }
}
