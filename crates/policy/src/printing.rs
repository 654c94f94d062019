//! Printing what was judged, so that no shell and no locale reads it otherwise: what a
//! parser misread can only become text.
//!
//! Every literal stands in single quotes. What bash must see bare (a glob, the letters
//! between its parts) is taken from a set of ASCII characters that mean the same in every
//! shell; a byte above 0x7f never stands bare, for there are locales in which it and the
//! byte after it are one character. Within `"${x:-…}"` single quotes are plain text, so a
//! literal stands there in double quotes of its own.

use crate::quote::{Piece, Value, push_single_quoted};

/// Where a word stands, and so what is special in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The name of a command: it must not look like an assignment.
    Command,
    /// A word of a command, or a value that is assigned.
    Word,
    /// A pattern of `case` or `[[ … == … ]]`.
    Pattern,
    /// A pattern within `${x#…}`.
    Stripped,
    /// The right side of `=~`.
    Regex,
    /// What follows `${x:-`, outside double quotes.
    Operand,
    /// What a match is replaced by in `${x/…}`, where `&` stands for the match.
    Replacement,
    /// What follows `${x:-`, within double quotes or a here-document.
    Quoted,
}

/// Whether a character means the same bare in every shell, where it stands.
fn is_bare(c: char, place: Place) -> bool {
    let special = match place {
        Place::Command | Place::Word => "=/%*?[]{}~",
        Place::Pattern | Place::Stripped => "=*?[]~",
        Place::Regex => "=/%*?[](){}|",
        Place::Operand => "=/%*?[]~ \t\n",
        Place::Replacement => "=/%*?[]~&",
        Place::Quoted => return false,
    };
    c.is_ascii_alphanumeric() || "_.,:@+-^!".contains(c) || special.contains(c)
}

/// Prints a word from its pieces. Fails where no printing is known to be safe.
pub(crate) fn push_word(out: &mut String, pieces: &[Piece], place: Place) -> Result<(), &'static str> {
    let unquoted = |sign: &str| {
        pieces.iter().any(|p| matches!(p, Piece::Text { text, quoted: false } if text.contains(sign)))
    };
    // A brace in which nothing is listed expands to nothing else.
    let braces = unquoted("{") && (unquoted(",") || unquoted(".."));
    let mut within = 0;
    let mut out = Joined { out, quoted: false };
    for (index, piece) in pieces.iter().enumerate() {
        // Each double quotes of the line stay double quotes of their own: `"$@"""` is a word
        // where `"$@"` is none.
        let group = match piece {
            Piece::Expansion(e) if e.quoted && e.value != Value::Path && place != Place::Quoted => {
                e.group.max(1)
            }
            _ => 0,
        };
        if group != within {
            out.bare(if within > 0 { "\"" } else { "" });
            out.bare(if group > 0 { "\"" } else { "" });
            within = group;
        }
        match piece {
            Piece::Expansion(expansion) => out.bare(&expansion.printed),
            Piece::Text { text, .. } if place == Place::Quoted => push_double_quoted(out.out, text),
            Piece::Text { text, quoted: true } => out.quoted(text),
            Piece::Text { text, quoted: false } => {
                let may_assign = place == Place::Command && index == 0 && begins_assignment(text);
                push_bare(&mut out, text, (place, braces, may_assign), index + 1 == pieces.len())?;
            }
        }
    }
    if within > 0 {
        out.bare("\"");
    }
    Ok(())
}

/// Output in which neighbouring literals stand within the same quotes.
struct Joined<'a> {
    out: &'a mut String,
    /// What was printed last is a literal.
    quoted: bool,
}

impl Joined<'_> {
    fn bare(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.out.push_str(text);
        self.quoted = false;
    }

    fn quoted(&mut self, text: &str) {
        let from = self.out.len();
        push_single_quoted(self.out, text);
        if std::mem::replace(&mut self.quoted, true) {
            self.out.replace_range(from - 1..=from, "");
        }
    }
}

/// Prints text that stood without quotes: what is special stays so, all else is quoted.
fn push_bare(
    out: &mut Joined<'_>,
    text: &str,
    (place, braces, may_assign): (Place, bool, bool),
    last: bool,
) -> Result<(), &'static str> {
    let is_bare = |c| match c {
        '{' | '}' => is_bare(c, place) && (braces || place == Place::Regex),
        '=' => is_bare(c, place) && !may_assign,
        c => is_bare(c, place),
    };
    if matches!(place, Place::Operand | Place::Replacement | Place::Stripped) && text.contains(['{', '}']) {
        return Err("a brace within ${…} ends it earlier than it looks; quote it");
    }
    let mut rest = text;
    while !rest.is_empty() {
        let bare = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
        if bare > 0 {
            out.bare(&rest[..bare]);
            rest = &rest[bare..];
            continue;
        }
        if let Some(after) = rest.strip_prefix('$')
            && place == Place::Regex
        {
            // The end of the text, or of a group: anywhere else it would begin an expansion.
            if !(after.is_empty() && last || after.starts_with([')', '|'])) {
                return Err("a dollar sign amid a regular expression; quote it");
            }
            out.bare("$");
            rest = after;
            continue;
        }
        let end = rest.find(|c| is_bare(c) || c == '$' && place == Place::Regex).unwrap_or(rest.len());
        out.quoted(&rest[..end]);
        rest = &rest[end..];
    }
    Ok(())
}

/// Prints text within `"${x:-…}"`, in double quotes of its own.
fn push_double_quoted(out: &mut String, text: &str) {
    if text.is_empty() {
        return;
    }
    out.push('"');
    for c in text.chars() {
        if needs_backslash(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Whether a character within double quotes needs a backslash before it.
pub(crate) fn needs_backslash(c: char) -> bool {
    matches!(c, '$' | '`' | '"' | '\\')
}

/// Whether text at the beginning of a command would be read as an assignment.
fn begins_assignment(text: &str) -> bool {
    let head = text.split('=').next().unwrap_or_default();
    is_name(head.strip_suffix('+').unwrap_or(head)) || head.contains('[')
}

/// Whether bash takes `name` for a parameter when it stands within `${…}`.
pub(crate) fn is_parameter(name: &str) -> bool {
    let mut bytes = name.bytes();
    match bytes.next() {
        Some(b'@' | b'*' | b'#' | b'?' | b'-' | b'$' | b'!') => name.len() == 1,
        Some(b) if b.is_ascii_digit() => bytes.all(|b| b.is_ascii_digit()),
        _ => is_name(name),
    }
}

/// Whether `name` is that of a variable.
pub(crate) fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a function may be given this name without its definition being read otherwise.
pub(crate) fn is_function_name(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "if", "then", "elif", "else", "fi", "time", "for", "in", "until", "while", "do", "done", "case",
        "esac", "coproc", "select", "function",
    ];
    !RESERVED.contains(&name)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:@+".contains(&b))
}
