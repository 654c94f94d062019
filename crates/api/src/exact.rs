//! Text as a person must see it who answers for it: what is invisible, steers a screen, or looks like
//! something else is marked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Piece {
    /// The text; of a marked piece one character, as `\u{…}`, `\n`, `\t` or, if it can be seen, itself.
    pub text: String,
    /// Why it is marked; absent for plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

/// Why a character is marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mark {
    /// Its code point, such as `U+202E`.
    pub code: String,
    /// What is wrong with it, in words.
    pub why: String,
}

/// Letters of other alphabets, and signs, that look like those of ASCII.
const ALIKE: &[(&str, &str)] = &[
    ("АВЕЅІЈКМНОРСТХаеорсухѕіјһԁԛԝ", "ABESIJKMHOPCTXaeopcyxsijhdqw"),
    ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαινορυϲ", "ABEZHIKMNOPTYXaivopuc"),
    ("‐‑‒–—―−﹣－", "---------"),
    ("‘’‚‛′ʹʼ＇", "''''''''"),
    ("“”„‟″＂", "\"\"\"\"\"\""),
    ("⁄∕⧸／", "////"),
    ("∖⧵＼", "\\\\\\"),
    ("꞉：∶ː", "::::"),
    ("\u{37e}；", ";;"),
    ("ǀ∣｜", "|||"),
    ("＆", "&"),
    ("‹＜", "<<"),
    ("›＞", ">>"),
    ("＄", "$"),
    ("｀ˋ", "``"),
    ("․．", ".."),
    ("‚，", ",,"),
    ("＊∗", "**"),
    ("～∼˜", "~~~"),
];

/// What an ASCII character a character could be taken for.
fn looks_like(c: char) -> Option<char> {
    // Full-width forms of all of ASCII, and letters and digits of mathematics.
    if let Some(offset) = (c as u32).checked_sub(0xff01).filter(|offset| *offset < 94) {
        return char::from_u32(0x21 + offset);
    }
    if ('\u{1d400}'..='\u{1d7ff}').contains(&c) {
        return Some(if c < '\u{1d7ce}' { 'a' } else { '0' });
    }
    ALIKE.iter().find_map(|(these, those)| {
        let at = these.chars().position(|this| this == c)?;
        those.chars().nth(at)
    })
}

/// Whether nothing, or something else than itself, is seen of a character.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}')
}

fn why(c: char) -> Option<String> {
    let words = |text: &str| Some(text.to_owned());
    match c {
        '\n' => words("a line break: what follows is a line of its own"),
        '\t' => words("a tabulator"),
        '\r' => words("a carriage return, by which a screen would overwrite the line"),
        '\u{1b}' => words("the beginning of an order to a terminal"),
        c if c.is_control() => words("a control character"),
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}' => {
            words("changes the direction in which the text is shown")
        }
        c if is_unseen(c) => words("cannot be seen"),
        c if c != ' ' && c.is_whitespace() => words("looks like a blank, and is none to a shell"),
        c if !c.is_ascii() => looks_like(c).map(|like| format!("looks like {like}")),
        _ => None,
    }
}

/// A text in pieces, of which those are marked that a person would not see, or take for others.
pub fn exact(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for c in text.chars() {
        let Some(why) = why(c) else {
            match pieces.last_mut().filter(|piece| piece.mark.is_none()) {
                Some(plain) => plain.text.push(c),
                None => pieces.push(Piece { text: c.into(), mark: None }),
            }
            continue;
        };
        let seen = !c.is_ascii() && looks_like(c).is_some();
        let text = if seen { c.to_string() } else { c.escape_default().to_string() };
        let mark = Mark { code: format!("U+{:04X}", c as u32), why };
        pieces.push(Piece { text, mark: Some(mark) });
    }
    pieces
}

/// The same in one text, for a terminal: marked characters by their code points, so that no two texts look
/// alike. A line break is shown, and made.
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    for piece in exact(text) {
        match &piece.mark {
            // What only looks like a mark.
            None => out.push_str(&piece.text.replace("<U+", "<U+003C>U+")),
            Some(mark) if mark.code == "U+000A" => out.push_str("\\n\n"),
            Some(mark) => {
                out.push('<');
                out.push_str(&mark.code);
                out.push('>');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_would_not_see_is_marked() {
        for (text, marks) in [
            ("systemctl restart nginx", ""),
            ("echo 'größe' 文件", ""),
            ("rm -rf /srv\u{202e}/", "U+202E"),
            ("ls\u{a0}-la", "U+00A0"),
            ("ls\u{200b}", "U+200B"),
            ("сat x", "U+0441"),
            ("ls ；rm", "U+FF1B"),
            ("echo \u{1b}[2K\rls", "U+001B U+000D"),
            ("a\nb\tc", "U+000A U+0009"),
            ("git push —force", "U+2014"),
            ("𝗿𝗺", "U+1D5FF U+1D5FA"),
            ("x\u{e0041}", "U+E0041"),
        ] {
            let found: Vec<String> =
                exact(text).into_iter().filter_map(|piece| piece.mark).map(|mark| mark.code).collect();
            assert_eq!(found.join(" "), marks, "{text:?}");
        }
    }

    #[test]
    fn no_two_texts_are_shown_alike_and_none_steers_a_terminal() {
        assert_eq!(shown("a\nb"), "a\\n\nb");
        assert_eq!(shown("<U+0441>"), "<U+003C>U+0441>");
        assert_eq!(shown("\u{441}at \u{1b}[1m"), "<U+0441>at <U+001B>[1m");
        assert!(shown("\u{202e}\u{7}\r\u{9b}").chars().all(|c| !c.is_control()));
        let plain: String = exact("plain text").into_iter().map(|piece| piece.text).collect();
        assert_eq!(plain, "plain text");
    }

    #[test]
    fn each_of_the_table_has_its_likeness() {
        for (these, those) in ALIKE {
            assert!(those.is_ascii() && these.chars().count() <= those.chars().count(), "{these} {those}");
        }
    }
}
