//! Quote removal, and printing a word back so that bash can read it only one way.

/// A run of a word's text after quote removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Known text; `quoted` means bash expands nothing in it.
    Text { text: String, quoted: bool },
    /// Text that bash computes.
    Expansion(Expansion),
}

/// What bash computes within a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expansion {
    /// It is not split into words.
    pub(crate) quoted: bool,
    /// Which double quotes of its word it stands in.
    pub(crate) group: usize,
    pub(crate) value: Value,
    /// Its printing, without the double quotes around it.
    pub(crate) printed: String,
}

/// What is known of a value that bash computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Unknown,
    /// The value of this variable, as it is.
    Variable(String),
    /// Digits, at least one.
    Number,
    /// An absolute path: that of a process substitution.
    Path,
}

/// Where the reading of a word's raw text stands: rable hands over words in
/// pieces that may begin and end within quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Quoting {
    #[default]
    None,
    Single,
    Double,
}

/// Reads raw literal text (no expansions in it), appending what it means.
/// Fails on a trailing backslash, which would escape something not in sight.
pub(crate) fn read_literal(raw: &str, state: &mut Quoting, out: &mut Vec<Piece>) -> Result<(), String> {
    let mut chars = raw.chars();
    loop {
        // Most text is a run without anything special in it.
        let rest = chars.as_str();
        let special = |c: char| match *state {
            Quoting::None => matches!(c, '\'' | '"' | '\\'),
            Quoting::Single => c == '\'',
            Quoting::Double => matches!(c, '"' | '\\'),
        };
        let plain = rest.find(special).unwrap_or(rest.len());
        if plain > 0 {
            push(out, &rest[..plain], *state != Quoting::None);
            chars = rest[plain..].chars();
        }
        let Some(c) = chars.next() else { return Ok(()) };
        match (*state, c) {
            (Quoting::Single, '\'') | (Quoting::Double, '"') => *state = Quoting::None,
            (Quoting::None, '\'') => {
                *state = Quoting::Single;
                push(out, "", true);
            }
            (Quoting::None, '"') => {
                *state = Quoting::Double;
                push(out, "", true);
            }
            (Quoting::None, '\\') => match chars.next() {
                Some('\n') => {}
                Some(next) => push(out, next.encode_utf8(&mut [0; 4]), true),
                None => return Err("a backslash at the end of a piece of text".into()),
            },
            (Quoting::Double, '\\') => match chars.next() {
                Some('\n') => {}
                Some(next @ ('$' | '`' | '"' | '\\')) => {
                    push(out, next.encode_utf8(&mut [0; 4]), true);
                }
                Some(next) => {
                    push(out, "\\", true);
                    push(out, next.encode_utf8(&mut [0; 4]), true);
                }
                None => return Err("a backslash at the end of a piece of text".into()),
            },
            // The run ended at something special, so it is none of the others.
            (_, c) => push(out, c.encode_utf8(&mut [0; 4]), *state != Quoting::None),
        }
    }
}

/// Appends text, joining it to a run of the same kind.
pub(crate) fn push(out: &mut Vec<Piece>, text: &str, quoted: bool) {
    if let Some(Piece::Text { text: last, quoted: same }) = out.last_mut()
        && *same == quoted
    {
        last.push_str(text);
        return;
    }
    out.push(Piece::Text { text: text.to_owned(), quoted });
}

/// Decodes the inside of `$'…'`. Only escapes with one meaning in every bash are
/// known; others, and those that make a NUL, are refused.
pub(crate) fn decode_ansi_c(raw: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escape = chars.next().ok_or("a backslash ends $'…'")?;
        let (radix, most) = match escape {
            'x' => (16, 2),
            '0'..='7' => (8, 2),
            'u' => (16, 4),
            'U' => (16, 8),
            _ => {
                out.push(match escape {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\x07',
                    'b' => '\x08',
                    'e' | 'E' => '\x1b',
                    'f' => '\x0c',
                    'v' => '\x0b',
                    '\\' | '\'' | '"' | '?' => escape,
                    other => return Err(format!("the escape \\{other} in $'…'")),
                });
                continue;
            }
        };
        let mut value = if radix == 8 { escape.to_digit(8).unwrap_or(0) } else { 0 };
        let mut digits = 0;
        while digits < most
            && let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix))
        {
            value = value.wrapping_mul(radix).wrapping_add(digit);
            chars.next();
            digits += 1;
        }
        // \x80 and up are bytes, not characters; a NUL ends the string in bash.
        let limit = if matches!(escape, 'u' | 'U') { u32::MAX } else { 0x7f };
        match char::from_u32(value).filter(|_| value != 0 && value <= limit && (digits > 0 || radix == 8)) {
            Some(c) => out.push(c),
            None => return Err(format!("the escape \\{escape} in $'…'")),
        }
    }
    Ok(out)
}

/// Prints a word in single quotes, whatever it holds.
pub(crate) fn single_quoted(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 2);
    push_single_quoted(&mut out, word);
    out
}

/// The same, appended.
pub(crate) fn push_single_quoted(out: &mut String, word: &str) {
    out.push('\'');
    for (index, piece) in word.split('\'').enumerate() {
        if index > 0 {
            out.push_str(r"'\''");
        }
        out.push_str(piece);
    }
    out.push('\'');
}

/// Prints a word in double quotes so that nothing in it expands.
pub(crate) fn double_quoted(word: &str) -> String {
    let mut out = String::from("\"");
    for c in word.chars() {
        if matches!(c, '$' | '`' | '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the real bash and date are the judges")]
mod tests {
    use super::*;

    fn meaning(raw: &str) -> String {
        let mut out = Vec::new();
        let mut state = Quoting::None;
        read_literal(raw, &mut state, &mut out).expect("valid");
        assert_eq!(state, Quoting::None, "{raw}");
        out.iter()
            .map(|p| match p {
                Piece::Text { text, .. } => text.as_str(),
                Piece::Expansion(_) => unreachable!("literals have none"),
            })
            .collect()
    }

    #[test]
    fn quotes_are_removed_as_bash_does() {
        for raw in [
            r"abc",
            r"'a b'c",
            r#""a\"b""#,
            r#""a\b""#,
            r"a\ b",
            r#""\$x\\""#,
            r"'\'",
            "a\\\nb",
            "\"a\\\nb\"",
            r#"''"#,
            r#"a"'"b"#,
            "\"\\`\"",
        ] {
            let output = std::process::Command::new("bash")
                .args(["--noprofile", "--norc", "-c", &format!("printf %s {raw}")])
                .output()
                .expect("bash runs");
            assert_eq!(meaning(raw), String::from_utf8_lossy(&output.stdout), "{raw}");
        }
    }

    #[test]
    fn ansi_c_escapes_decode_as_in_bash() {
        for raw in [r"a\nb", r"\x41\x2", r"\101\60", r"\u00e9\U1F600", r"\'\\", r"\e[0m"] {
            let output = std::process::Command::new("bash")
                .env("LC_ALL", "C.UTF-8")
                .args(["--noprofile", "--norc", "-c", &format!("printf %s $'{raw}'")])
                .output()
                .expect("bash runs");
            let decoded = decode_ansi_c(raw).expect("known escapes");
            assert_eq!(decoded, String::from_utf8_lossy(&output.stdout), "{raw}");
        }
        for raw in [r"\0", r"\x00", r"\xff", r"\cA", r"\q", r"\", r"\377", r"\u0"] {
            assert!(decode_ansi_c(raw).is_err(), "{raw}");
        }
    }
}
