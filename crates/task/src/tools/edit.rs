//! `edit`: exact text in exchange for other text.
//!
//! Nothing is guessed: what is not there as it was given is an error that says what is there
//! instead. The one exception are line ends, which are not seen in what a model has read: text
//! with plain ones is found in a file of CRLF, and put there with the file's own.

use std::io::Read;

use legwork_workspace::{Root, strerror};

use super::files::{blocking, cause, locate};
use super::{Answer, Bench, Input};

/// The largest file that is edited.
const MAX_BYTES: u64 = 16 << 20;
/// Most edits of a call.
const MOST: usize = 200;
/// Places that an error names.
const SHOWN: usize = 5;

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) old: String,
    pub(super) new: String,
    /// Every place, not the only one.
    pub(super) all: bool,
}

/// Why an edit was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    Same,
    Missing(String),
    Ambiguous { count: usize, lines: Vec<usize> },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("old is empty; use write_file for a new file"),
            Self::Same => f.write_str("old and new are the same"),
            Self::Missing(hint) => write!(f, "old is not in the file{hint}"),
            Self::Ambiguous { count, lines } => {
                let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
                let more = if *count > lines.len() { ", …" } else { "" };
                write!(
                    f,
                    "old is there {count} times (lines {}{more}): give more of the text around it, or set all",
                    lines.join(", ")
                )
            }
        }
    }
}

pub(super) async fn edit(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let given = input.needed("path")?.to_owned();
    let items = input.list("edits")?;
    if items.is_empty() || items.len() > MOST {
        return Err(format!("edits must have 1 to {MOST} items"));
    }
    let mut edits = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let of = |cause: String| format!("edits[{index}]: {cause}");
        let item = Input(item.as_object().ok_or_else(|| of("it must be an object".into()))?);
        let text = |name: &str| -> Result<String, String> {
            let text = item.text(name).map_err(of)?;
            text.map(str::to_owned).ok_or_else(|| of(format!("{name} is required")))
        };
        edits.push(Edit { old: text("old")?, new: text("new")?, all: item.flag("all").map_err(of)? });
    }
    let root = bench.hands.root.clone();
    let path = locate(&root, &given)?;
    let text = blocking(move || {
        let before = load(&root, &path, &given)?;
        let mut text = before.clone();
        let (mut places, mut last) = (0, 0..0);
        for (index, edit) in edits.iter().enumerate() {
            let of = if edits.len() > 1 { format!("edits[{index}]: ") } else { String::new() };
            let made = apply(&text, edit).map_err(|fault| format!("{of}{fault}. Nothing was changed"))?;
            places += made.places;
            (text, last) = (made.text, made.last);
        }
        if text == before {
            return Err("the edits undo one another: nothing was changed".into());
        }
        root.write(&path, text.as_bytes()).map_err(|e| cause(&e, &given, "file not found"))?;
        let s = if places == 1 { "" } else { "s" };
        Ok(format!("Edited {given}: {places} place{s}\n{}", around(&text, last)))
    });
    Ok(Answer::ok(text.await?))
}

/// The text of a file that is to be edited.
pub(super) fn load(root: &Root, path: &str, given: &str) -> Result<String, String> {
    let (file, meta) = root.open_file(path).map_err(|e| cause(&e, given, "file not found"))?;
    if meta.size > MAX_BYTES {
        return Err(format!("{given} has {} bytes; files of at most {MAX_BYTES} can be edited", meta.size));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| strerror(&e))?;
    String::from_utf8(bytes).map_err(|_| format!("{given} is not UTF-8 text: it can't be edited"))
}

/// A text after an edit.
pub(super) struct Made {
    pub(super) text: String,
    pub(super) places: usize,
    /// Where the new text stands, of the last place.
    last: std::ops::Range<usize>,
}

/// Makes an edit.
pub(super) fn apply(text: &str, edit: &Edit) -> Result<Made, Fault> {
    if edit.old.is_empty() {
        return Err(Fault::Empty);
    }
    if edit.old == edit.new {
        return Err(Fault::Same);
    }
    let (mut old, mut new) = (edit.old.clone(), edit.new.clone());
    let mut found: Vec<usize> = text.match_indices(&old).map(|(at, _)| at).collect();
    let crlf = |text: &str| text.replace("\r\n", "\n").replace('\n', "\r\n");
    if found.is_empty() && text.contains("\r\n") && old.contains('\n') {
        (old, new) = (crlf(&old), crlf(&new));
        found = text.match_indices(&old).map(|(at, _)| at).collect();
    }
    match found.len() {
        0 => return Err(Fault::Missing(hint(text, &old))),
        1 => {}
        _ if edit.all => {}
        count => {
            // Of places that overlap, too, each is one.
            let lines = found.iter().take(SHOWN).map(|at| line_of(text, *at)).collect();
            return Err(Fault::Ambiguous { count, lines });
        }
    }
    let last = found.last().copied().unwrap_or_default();
    let grown = (found.len() - 1) * new.len();
    let start = last + grown - (found.len() - 1) * old.len();
    Ok(Made { places: found.len(), last: start..start + new.len(), text: text.replace(&old, &new) })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// What may be meant where a text is not there: the same but for blanks.
fn hint(text: &str, old: &str) -> String {
    let trimmed = |text: &str| text.lines().map(str::trim).map(str::to_owned).collect::<Vec<_>>();
    let wanted = trimmed(old.trim_matches(['\n', '\r']));
    let lines = trimmed(text);
    if wanted.iter().all(String::is_empty) {
        return String::new();
    }
    if let Some(at) = lines.windows(wanted.len()).position(|window| window == wanted) {
        let there: Vec<&str> = text.lines().skip(at).take(wanted.len().min(SHOWN)).collect();
        return format!(
            "; line {} has it with other blanks. There it reads:\n{}\n",
            at + 1,
            there.join("\n")
        );
    }
    match lines.iter().position(|line| !wanted[0].is_empty() && *line == wanted[0]) {
        Some(at) => format!("; its first line is line {}, and what follows differs", at + 1),
        None => "; read the file again: it may have changed".into(),
    }
}

/// The lines of a place with one before and after it, numbered, so that it need not be read again.
fn around(text: &str, place: std::ops::Range<usize>) -> String {
    const MOST: usize = 12;
    let first = line_of(text, place.start).saturating_sub(1).max(1);
    let last = line_of(text, place.end.min(text.len())) + 1;
    let mut shown = String::new();
    for (index, line) in text.lines().enumerate().skip(first - 1).take((last - first + 1).min(MOST)) {
        let line: String = line.chars().take(200).collect();
        shown.push_str(&format!("{:>5}  {line}\n", index + 1));
    }
    if last - first + 1 > MOST {
        shown.push_str("       …\n");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str, old: &str, new: &str, all: bool) -> Result<String, String> {
        let edit = Edit { old: old.into(), new: new.into(), all };
        apply(text, &edit).map(|made| made.text).map_err(|fault| fault.to_string())
    }

    #[test]
    fn only_what_is_there_once_is_exchanged() {
        for (text, old, new, all, want) in [
            ("a b c", "b", "x", false, Ok("a x c")),
            ("a a", "a", "x", true, Ok("x x")),
            ("a a", "a", "x", false, Err("2 times (lines 1, 1)")),
            ("f()\ng()\nf()\n", "f()", "h()", false, Err("2 times (lines 1, 3)")),
            ("abc", "", "x", true, Err("old is empty")),
            ("abc", "b", "b", false, Err("the same")),
            ("abc", "x", "y", false, Err("not in the file")),
            // Blanks are not guessed, but said.
            ("    if x:\n        y\n", "if x:\n    y", "z", false, Err("line 1 has it with other blanks")),
            ("a\nb\nc\n", "b\nd", "z", false, Err("its first line is line 2")),
            // What is put there is not looked at again, and has no patterns.
            ("$1 \\n", "$1", "$0 $1", true, Ok("$0 $1 \\n")),
            ("aaa", "aa", "b", true, Ok("ba")),
        ] {
            match (edit(text, old, new, all), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{text:?} {old:?}: {got:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn line_ends_stay_as_the_file_has_them() {
        assert_eq!(edit("a\r\nb\r\nc\r\n", "a\nb", "x\ny", false).as_deref(), Ok("x\r\ny\r\nc\r\n"));
        assert_eq!(edit("a\r\nb\r\n", "b\r\n", "c\r\n", false).as_deref(), Ok("a\r\nc\r\n"));
        // A file with both: what is there as it was given comes first.
        assert_eq!(edit("a\nb\r\na\r\nb", "a\nb", "x", false).as_deref(), Ok("x\r\na\r\nb"));
    }

    #[test]
    fn the_place_is_shown_as_it_is_now() {
        let made = apply("1\n2\n3\n4\n5\n", &Edit { old: "3".into(), new: "three\nand".into(), all: false });
        let made = made.map_err(|fault| fault.to_string()).expect("made");
        assert_eq!(around(&made.text, made.last), "    2  2\n    3  three\n    4  and\n    5  4\n");
        let made = apply("ab ab", &Edit { old: "ab".into(), new: "c".into(), all: true });
        let made = made.map_err(|fault| fault.to_string()).expect("made");
        assert_eq!(&made.text[made.last], "c");
    }
}
