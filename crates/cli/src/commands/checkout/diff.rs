//! A diff that came back, read before anybody applies it.
//!
//! It was written by a task, and git is a lenient reader: it copies from wherever a diff's old name
//! points, and takes changes that no `diff --git` line announces. So only what our own diffs are made
//! of is let through, line by line: the same name before and after, hunks of the length that they
//! say, binary patches, and names that stay in the checkout. Whatever else a line may be, the whole
//! diff is refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::names;

/// How one file was changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: Vec<u8>,
    pub(crate) how: How,
    /// Whether it is a symbolic link, before or after.
    pub(crate) is_link: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Made,
    Changed,
    Removed,
}

/// The changes of a diff; else why nobody should apply it.
pub(crate) fn read(diff: &str) -> Result<Vec<Change>, String> {
    let mut lines = Lines { rest: diff, at: 0 };
    let mut changes = BTreeMap::<Vec<u8>, Change>::new();
    while !lines.rest.is_empty() {
        let change = lines.file().map_err(|reason| format!("line {}: {reason}", lines.at))?;
        match changes.entry(change.name.clone()) {
            // A file that became a link is told as one that is gone, and one that is made.
            Entry::Occupied(mut known) => {
                known.get_mut().is_link |= change.is_link;
                known.get_mut().how = How::Changed;
            }
            Entry::Vacant(place) => {
                place.insert(change);
            }
        }
    }
    // Older gits would write through a link that the diff itself makes.
    for change in changes.values().filter(|change| change.how != How::Removed) {
        let above = change.name.iter().enumerate().filter(|(_, b)| **b == b'/');
        let mut above = above.filter_map(|(at, _)| changes.get(&change.name[..at]));
        if above.any(|above| above.is_link && above.how != How::Removed) {
            let name = String::from_utf8_lossy(&change.name);
            return Err(format!("'{}' is to be written through a link", name.escape_debug()));
        }
    }
    Ok(changes.into_values().collect())
}

/// What is left to read, and the number of the line before it.
struct Lines<'a> {
    rest: &'a str,
    at: usize,
}

const STRANGE: &str = "that is no line of a diff that a task of ours makes";
const LINK: &str = "120000";

impl<'a> Lines<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.rest.split_once('\n').map(|(line, _)| line)
    }

    fn next(&mut self) -> Result<&'a str, String> {
        self.at += 1;
        let (line, rest) = self.rest.split_once('\n').ok_or("the diff is cut off")?;
        self.rest = rest;
        Ok(line)
    }

    /// The next line without its beginning, if it begins so.
    fn next_if(&mut self, start: &str) -> Option<&'a str> {
        let found = self.peek()?.strip_prefix(start)?;
        self.at += 1;
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        Some(found)
    }

    fn file(&mut self) -> Result<Change, String> {
        let announced = self.next()?.strip_prefix("diff --git ").ok_or(STRANGE)?;
        let name = both_names(announced)?;
        names::check(&name)?;
        let (how, mut is_link) = self.modes()?;
        if let Some(index) = self.next_if("index ") {
            is_link |= index_line(index)?;
        }
        match self.peek() {
            Some("GIT binary patch") => {
                self.next()?;
                self.binary()?;
            }
            Some(line) if line.starts_with("--- ") => {
                let (old, new) = (self.next()?, self.next()?);
                let old = old.strip_prefix("--- ").ok_or(STRANGE)?;
                let new = new.strip_prefix("+++ ").ok_or(STRANGE)?;
                is_name(old, "a/", (how != How::Made).then_some(&name))?;
                is_name(new, "b/", (how != How::Removed).then_some(&name))?;
                self.hunk()?;
                while self.peek().is_some_and(|line| line.starts_with("@@ ")) {
                    self.hunk()?;
                }
            }
            // An empty file, or other rights alone.
            _ => {}
        }
        Ok(Change { name, how, is_link })
    }

    /// The lines that tell what kind of file it was and is.
    fn modes(&mut self) -> Result<(How, bool), String> {
        if let Some(line) = self.peek()
            && ["copy ", "rename ", "similarity ", "dissimilarity "]
                .iter()
                .any(|start| line.starts_with(start))
        {
            self.at += 1;
            return Err("it copies or renames a file, which no diff of ours does".into());
        }
        if let Some(given) = self.next_if("new file mode ") {
            return Ok((How::Made, mode(given)?));
        }
        if let Some(given) = self.next_if("deleted file mode ") {
            return Ok((How::Removed, mode(given)?));
        }
        let mut is_link = false;
        if let Some(given) = self.next_if("old mode ") {
            is_link |= mode(given)?;
            is_link |= mode(self.next()?.strip_prefix("new mode ").ok_or(STRANGE)?)?;
        }
        Ok((How::Changed, is_link))
    }

    fn hunk(&mut self) -> Result<(), String> {
        let (mut old, mut new) = hunk_line(self.next()?).ok_or(STRANGE)?;
        if old == 0 && new == 0 {
            return Err(STRANGE.into());
        }
        while old > 0 || new > 0 {
            let line = self.next()?;
            let (from_old, from_new) = match line.as_bytes().first() {
                Some(b' ') => (1, 1),
                Some(b'-') => (1, 0),
                Some(b'+') => (0, 1),
                Some(b'\\') if line == NO_NEWLINE => (0, 0),
                _ => return Err(STRANGE.into()),
            };
            old = old.checked_sub(from_old).ok_or(STRANGE)?;
            new = new.checked_sub(from_new).ok_or(STRANGE)?;
        }
        if self.peek() == Some(NO_NEWLINE) {
            self.next()?;
        }
        Ok(())
    }

    /// What is to be put there, and perhaps how to take it back, each up to an empty line.
    fn binary(&mut self) -> Result<(), String> {
        for way in 0..2 {
            let is_block = self.peek().is_some_and(|l| l.starts_with("literal ") || l.starts_with("delta "));
            if !is_block {
                return if way == 0 { Err(STRANGE.into()) } else { Ok(()) };
            }
            let (_, size) = self.next()?.split_once(' ').ok_or(STRANGE)?;
            if size.is_empty() || !size.bytes().all(|b| b.is_ascii_digit()) {
                return Err(STRANGE.into());
            }
            loop {
                let line = self.next()?;
                if line.is_empty() {
                    break;
                }
                if line.len() > 66 || !line.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(STRANGE.into());
                }
            }
        }
        Ok(())
    }
}

const NO_NEWLINE: &str = "\\ No newline at end of file";

/// Whether a mode is a link's; those of folders and of other repositories are refused.
fn mode(given: &str) -> Result<bool, String> {
    match given {
        "100644" | "100755" => Ok(false),
        LINK => Ok(true),
        _ => Err(format!("'{}' is no mode of a file or a link", given.escape_debug())),
    }
}

/// `OLD..NEW`, and the mode where that stays.
fn index_line(given: &str) -> Result<bool, String> {
    let (range, given) = given.split_once(' ').map_or((given, None), |(range, mode)| (range, Some(mode)));
    let is_digest = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    match range.split_once("..") {
        Some((old, new)) if is_digest(old) && is_digest(new) => given.map_or(Ok(false), mode),
        _ => Err(STRANGE.into()),
    }
}

/// `@@ -START[,LINES] +START[,LINES] @@`: how many lines it has of the old file, and of the new.
fn hunk_line(line: &str) -> Option<(u64, u64)> {
    let (old, rest) = line.strip_prefix("@@ -")?.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let lines = |range: &str| {
        let (start, lines) = range.split_once(',').unwrap_or((range, "1"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (is_number(start) && is_number(lines)).then(|| lines.parse().ok())?
    };
    Some((lines(old)?, lines(new)?))
}

/// The one name of `a/NAME b/NAME`.
fn both_names(announced: &str) -> Result<Vec<u8>, String> {
    let same = "the name of a file is another before and after";
    if announced.starts_with('"') {
        let (old, rest) = unquoted(announced)?;
        let (new, rest) = unquoted(rest.strip_prefix(' ').ok_or(STRANGE)?)?;
        let (old, new) = (old.strip_prefix(b"a/").ok_or(STRANGE)?, new.strip_prefix(b"b/").ok_or(STRANGE)?);
        return if rest.is_empty() && old == new { Ok(old.to_owned()) } else { Err(same.into()) };
    }
    // Blanks may be part of it: the two are told apart by their length.
    let (old, new) = announced.split_at_checked(announced.len() / 2).ok_or(same)?;
    let name = old.strip_prefix("a/").ok_or(STRANGE)?;
    if new.strip_prefix(" b/") != Some(name) {
        return Err(same.into());
    }
    is_plain(name)?;
    Ok(name.as_bytes().to_owned())
}

/// What stands in a name without quotes; git would end it elsewhere than we do.
fn is_plain(name: &str) -> Result<(), String> {
    match name.bytes().any(|b| b.is_ascii_control() || b == b'"' || b == b'\\') {
        true => Err("a name that must stand in quotes does not".into()),
        false => Ok(()),
    }
}

/// Whether a `---` or `+++` line names the file that was announced; without one, nothing.
fn is_name(given: &str, side: &str, name: Option<&Vec<u8>>) -> Result<(), String> {
    let Some(name) = name else {
        return if given == "/dev/null" { Ok(()) } else { Err(STRANGE.into()) };
    };
    // git ends a name with a tab where there are blanks in it.
    let given = if name.contains(&b' ') { given.strip_suffix('\t').unwrap_or(given) } else { given };
    let found: Cow<'_, [u8]> = match given.starts_with('"') {
        true => match unquoted(given)? {
            (found, "") => found.into(),
            _ => return Err(STRANGE.into()),
        },
        false => {
            is_plain(given)?;
            given.as_bytes().into()
        }
    };
    match found.strip_prefix(side.as_bytes()) == Some(name) {
        true => Ok(()),
        false => Err("the name of a file is another than was announced".into()),
    }
}

/// A name in quotes, as git writes it, and what comes after.
fn unquoted(given: &str) -> Result<(Vec<u8>, &str), String> {
    let mut rest = given.strip_prefix('"').ok_or(STRANGE)?;
    let mut name = Vec::new();
    loop {
        let mut chars = rest.chars();
        match chars.next().ok_or(STRANGE)? {
            '"' => return Ok((name, chars.as_str())),
            '\\' => {
                let (byte, after) = escaped(chars.as_str()).ok_or(STRANGE)?;
                name.push(byte);
                rest = after;
            }
            c => {
                name.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = chars.as_str();
            }
        }
    }
}

/// What a backslash stands for, and what comes after.
fn escaped(rest: &str) -> Option<(u8, &str)> {
    let byte = match rest.bytes().next()? {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        same @ (b'"' | b'\\') => same,
        b'0'..=b'3' => {
            let (digits, after) = rest.split_at_checked(3)?;
            return Some((u8::from_str_radix(digits, 8).ok()?, after));
        }
        _ => return None,
    };
    Some((byte, &rest[1..]))
}

#[cfg(test)]
mod tests;
