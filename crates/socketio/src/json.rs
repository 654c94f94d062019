//! JSON as browsers write it.

use serde::de::DeserializeOwned;

/// Why a text is no JSON that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is none.
    NoJson,
    /// It is nested too deeply.
    TooDeep,
}

/// Reads JSON. Browsers write halves of surrogate pairs as they are in a text (`"\ud83d"`),
/// which no UTF-8 can hold: they become U+FFFD, as in every file that is written by one.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Unusable> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) if error.to_string().contains("recursion limit") => Err(Unusable::TooDeep),
        Err(_) => {
            let mended = mend(text).ok_or(Unusable::NoJson)?;
            serde_json::from_str(&mended).map_err(|_| Unusable::NoJson)
        }
    }
}

/// The text with U+FFFD for halves that have no other; `None` if there are none.
fn mend(text: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let mut out = String::new();
    let (mut at, mut done) = (0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        let pair = (unit(at), unit(at + 6));
        match pair {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push_str(&text[done..at]);
                out.push('\u{fffd}');
                at += 6;
                done = at;
            }
            (Some(_), _) => at += 6,
            // What is escaped is one character of ASCII, or else this is no JSON.
            (None, _) => at += 2,
        }
    }
    if done == 0 {
        return None;
    }
    out.push_str(&text[done..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_emoji_becomes_a_replacement_and_the_rest_stays() {
        for (text, want) in [
            (r#""\ud83d""#, Some("\u{fffd}")),
            (r#""a\ude00b""#, Some("a\u{fffd}b")),
            (r#""\ud83d\ude00""#, Some("\u{1f600}")),
            (r#""\ud83d\ud83d\ude00""#, Some("\u{fffd}\u{1f600}")),
            (r#""\\ud83d\n\ud83dx""#, Some("\\ud83d\n\u{fffd}x")),
            (r#""\ud83dä\u00e9\"""#, Some("\u{fffd}äé\"")),
            (r#""\ud83"#, None),
            (r#""\ud83d"#, None),
            (r#""\x""#, None),
            ("\"\\ä\\ud83d\"", None),
        ] {
            assert_eq!(read::<String>(text).ok().as_deref(), want, "{text}");
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(read::<serde_json::Value>(&deep), Err(Unusable::TooDeep));
    }
}
