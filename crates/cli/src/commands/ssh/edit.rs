//! `file line` and `file block`: a text that is changed in one place, all else byte for byte as
//! it was. Line endings, a byte order mark and a missing newline at the end are the file's own.

use anyhow::{Context as _, Result, bail};
use regex::bytes::Regex;

const MARK: &[u8] = b"\xef\xbb\xbf";

/// What is to be so in a file.
#[derive(Debug)]
pub(crate) enum Edit {
    Line {
        /// The line, without a newline.
        line: String,
        /// Which line it takes the place of: the last one that fits.
        matches: Option<Regex>,
        /// The line names groups of what it takes the place of.
        expand: bool,
        place: Place,
    },
    NoLine {
        line: Option<String>,
        matches: Option<Regex>,
    },
    Block {
        begin: String,
        end: String,
        /// `None`: no block.
        content: Option<String>,
        place: Place,
    },
}

/// Where goes what is not there yet.
#[derive(Debug, Default)]
pub(crate) enum Place {
    Start,
    #[default]
    End,
    /// After the last line that fits; at the end, if none does.
    After(Regex),
    /// Before the first line that fits; at the end, if none does.
    Before(Regex),
}

/// A pattern for lines: what stands in a line, not its ending.
pub(crate) fn pattern(option: &str, text: &str) -> Result<Regex> {
    // `$` is the end of the line, which has no newline here.
    Regex::new(text).with_context(|| format!("{option} {text}"))
}

/// The lines that hold a block, from a marker with `{mark}` in it.
pub(crate) fn markers(marker: &str, name: &str) -> Result<(String, String)> {
    if !marker.contains("{mark}") {
        bail!("--marker {marker}: {{mark}} must be in it, which becomes BEGIN and END");
    }
    let line = |mark: &str| marker.replace("{mark}", mark).replace("{name}", name);
    let (begin, end) = (line("BEGIN"), line("END"));
    if begin.contains(['\n', '\r']) || begin.trim() != begin {
        bail!("--marker {marker}: it is one line, without blanks at its ends");
    }
    Ok((begin, end))
}

/// A text in lines, each with the ending that it has.
struct Lines {
    mark: bool,
    lines: Vec<Vec<u8>>,
    ending: &'static [u8],
}

impl Lines {
    fn of(bytes: &[u8]) -> Self {
        let text = bytes.strip_prefix(MARK);
        let mark = text.is_some();
        let lines: Vec<Vec<u8>> =
            text.unwrap_or(bytes).split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let windows = lines.first().is_some_and(|line| line.ends_with(b"\r\n"));
        Self { mark, lines, ending: if windows { b"\r\n" } else { b"\n" } }
    }

    fn bytes(self) -> Vec<u8> {
        let mark = if self.mark { MARK } else { b"" };
        [mark.to_vec(), self.lines.concat()].concat()
    }

    fn bare(&self, at: usize) -> &[u8] {
        bare(&self.lines[at])
    }

    fn find(&self, fits: impl Fn(&[u8]) -> bool) -> Vec<usize> {
        (0..self.lines.len()).filter(|at| fits(self.bare(*at))).collect()
    }

    /// Puts whole lines before a line.
    fn insert(&mut self, at: usize, new: &[&[u8]]) {
        if let Some(last) = self.lines[..at].last_mut().filter(|line| !line.ends_with(b"\n")) {
            last.extend_from_slice(self.ending);
        }
        let ending = self.ending;
        let new = new.iter().map(|line| [line, ending].concat());
        self.lines.splice(at..at, new);
    }

    fn place(&self, place: &Place) -> usize {
        let end = self.lines.len();
        match place {
            Place::Start => 0,
            Place::End => end,
            Place::After(after) => self.find(|line| after.is_match(line)).last().map_or(end, |at| at + 1),
            Place::Before(before) => self.find(|line| before.is_match(line)).first().copied().unwrap_or(end),
        }
    }
}

fn bare(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

impl Edit {
    /// The text as it is to be.
    pub(crate) fn apply(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        if bytes.contains(&0) {
            bail!("it is no text: there are null bytes in it");
        }
        let mut text = Lines::of(bytes);
        match self {
            Self::Line { line, matches, expand, place } => {
                put_line(&mut text, line, matches.as_ref(), *expand, place);
            }
            Self::NoLine { line, matches } => {
                let goes = |found: &[u8]| {
                    line.as_ref().is_some_and(|line| line.as_bytes() == found)
                        || matches.as_ref().is_some_and(|matches| matches.is_match(found))
                };
                text.lines.retain(|line| !goes(bare(line)));
            }
            Self::Block { begin, end, content, place } => {
                put_block(&mut text, begin, end, content.as_deref(), place)?;
            }
        }
        Ok(text.bytes())
    }
}

fn put_line(text: &mut Lines, line: &str, matches: Option<&Regex>, expand: bool, place: &Place) {
    let found = matches.map(|matches| text.find(|line| matches.is_match(line)));
    if let (Some(matches), Some(at)) = (matches, found.as_ref().and_then(|found| found.last())) {
        let former = text.bare(*at).to_vec();
        let mut new = Vec::new();
        match matches.captures(&former).filter(|_| expand) {
            Some(groups) => groups.expand(line.as_bytes(), &mut new),
            None => new.extend_from_slice(line.as_bytes()),
        }
        // The line's own ending stays, if it is none.
        let ending = text.lines[*at][former.len()..].to_vec();
        text.lines[*at] = [new, ending].concat();
        return;
    }
    // Groups of nothing are nothing to add.
    if expand || !text.find(|found| found == line.as_bytes()).is_empty() {
        return;
    }
    let at = text.place(place);
    text.insert(at, &[line.as_bytes()]);
}

fn put_block(text: &mut Lines, begin: &str, end: &str, content: Option<&str>, place: &Place) -> Result<()> {
    // What editors leave at the end of a line does not make it another one.
    let is = |line: &[u8], marker: &str| line.trim_ascii_end() == marker.as_bytes();
    let new: Vec<&[u8]> =
        content.unwrap_or_default().lines().map(|line| line.trim_end_matches('\r').as_bytes()).collect();
    if new.iter().any(|line| is(line, begin) || is(line, end)) {
        bail!("the block holds its own marker {begin:?}");
    }
    let (begins, ends) = (text.find(|line| is(line, begin)), text.find(|line| is(line, end)));
    let at = match (&begins[..], &ends[..]) {
        ([], []) if content.is_none() => return Ok(()),
        ([], []) => text.place(place),
        ([first], [last]) if first < last => {
            let same = text.lines[first + 1..*last].iter().map(|line| bare(line)).eq(new.iter().copied());
            if same && content.is_some() {
                return Ok(());
            }
            text.lines.drain(*first..=*last);
            *first
        }
        _ => bail!(
            "{} lines {begin:?} and {} lines {end:?} make no block: mend them by hand, or choose another --name",
            begins.len(),
            ends.len()
        ),
    };
    if content.is_some() {
        let all = [&[begin.as_bytes()], &new[..], &[end.as_bytes()]].concat();
        text.insert(at, &all);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(edit: &Edit, text: &str) -> String {
        let once = edit.apply(text.as_bytes()).unwrap();
        let twice = edit.apply(&once).unwrap();
        assert_eq!(String::from_utf8_lossy(&once), String::from_utf8_lossy(&twice), "twice: {edit:?}");
        String::from_utf8(once).unwrap()
    }

    fn line(line: &str, matches: Option<&str>, place: Place) -> Edit {
        let matches = matches.map(|text| pattern("--match", text).unwrap());
        Edit::Line { line: line.into(), matches, expand: false, place }
    }

    #[test]
    fn a_line_is_put_where_it_belongs_and_once() {
        let re = |text| pattern("x", text).unwrap();
        for (edit, text, expected) in [
            (line("new", None, Place::End), "", "new\n"),
            (line("new", None, Place::End), "a\n", "a\nnew\n"),
            // Ansible's lineinfile made `UsePAM yesAllowGroups` of it.
            (line("new", None, Place::End), "UsePAM yes", "UsePAM yes\nnew\n"),
            (line("new", None, Place::End), "a\r\nb\r\n", "a\r\nb\r\nnew\r\n"),
            (line("new", None, Place::End), "\u{feff}a\n", "\u{feff}a\nnew\n"),
            (line("new", None, Place::Start), "\u{feff}a\n", "\u{feff}new\na\n"),
            (line("new", None, Place::End), "xnew\n#new\n", "xnew\n#new\nnew\n"),
            (line("new", None, Place::End), "new\na\n", "new\na\n"),
            (line("a & \\1 $1 ' \"", None, Place::End), "", "a & \\1 $1 ' \"\n"),
            (line("Port 22", Some("^#?Port"), Place::End), "#Port 1\r\nx\r\n", "Port 22\r\nx\r\n"),
            (line("Port 22", Some("^#?Port\\b"), Place::End), "Port 1\nPort 2", "Port 1\nPort 22"),
            (line("$1", Some("^(x)$"), Place::End), "x\r\n", "$1\r\n"),
            (line("root", Some("^root"), Place::End), "\u{feff}root:x\n", "\u{feff}root\n"),
            (line("new", None, Place::After(re("^b"))), "a\nb\nb\nc", "a\nb\nb\nnew\nc"),
            (line("new", None, Place::Before(re("^b"))), "a\nb\nb\n", "a\nnew\nb\nb\n"),
            (line("new", None, Place::After(re("^z"))), "a", "a\nnew\n"),
        ] {
            assert_eq!(edit.apply(text.as_bytes()).map(|b| String::from_utf8(b).unwrap()).unwrap(), expected);
            if !expected.contains("$1") {
                apply(&edit, text);
            }
        }
        let latin = line("new", Some("^\\w+=\\xe9?"), Place::End);
        assert_eq!(latin.apply(b"\xe9\n").unwrap(), b"\xe9\nnew\n");
        assert!(line("x", None, Place::End).apply(b"a\0b").is_err());
    }

    #[test]
    fn groups_of_the_former_line_are_kept() {
        let matches = Some(pattern("--match", "^(\\s*mem)=\\d+(.*)$").unwrap());
        let edit = Edit::Line { line: "${1}=4g$2".into(), matches, expand: true, place: Place::End };
        assert_eq!(edit.apply(b"  mem=17 # why\n").unwrap(), b"  mem=4g # why\n");
        assert_eq!(edit.apply(b"nothing\n").unwrap(), b"nothing\n");
    }

    #[test]
    fn lines_go() {
        let edit = Edit::NoLine { line: Some("b".into()), matches: Some(pattern("x", "^c").unwrap()) };
        assert_eq!(apply(&edit, "a\r\nb\r\nbb\r\ncc\r\nb"), "a\r\nbb\r\n");
        assert_eq!(apply(&edit, "a"), "a");
    }

    fn block(content: Option<&str>, place: Place) -> Edit {
        let (begin, end) = markers("# {mark} {name}", "x").unwrap();
        Edit::Block { begin, end, content: content.map(str::to_owned), place }
    }

    #[test]
    fn a_block_is_replaced_as_a_whole_and_stays_where_it_is() {
        let new = block(Some("1\n2"), Place::End);
        for (text, expected) in [
            ("", "# BEGIN x\n1\n2\n# END x\n"),
            ("a", "a\n# BEGIN x\n1\n2\n# END x\n"),
            ("# BEGIN x\nold\n# END x\na\n", "# BEGIN x\n1\n2\n# END x\na\n"),
            // Its end is the end of the file, without a newline.
            ("a\n# BEGIN x\nold\n# END x", "a\n# BEGIN x\n1\n2\n# END x\n"),
            ("# BEGIN x\n1\n2\n# END x", "# BEGIN x\n1\n2\n# END x"),
            ("a\r\n", "a\r\n# BEGIN x\r\n1\r\n2\r\n# END x\r\n"),
            // Another block's name begins with this one's.
            ("# BEGIN xy\nq\n# END xy\n", "# BEGIN xy\nq\n# END xy\n# BEGIN x\n1\n2\n# END x\n"),
            ("# BEGIN x \nold\n# END x\t\n", "# BEGIN x\n1\n2\n# END x\n"),
        ] {
            assert_eq!(apply(&new, text), expected, "{text:?}");
        }
        assert_eq!(apply(&block(Some(""), Place::Start), "a\n"), "# BEGIN x\n# END x\na\n");
        assert_eq!(apply(&block(None, Place::End), "a\n# BEGIN x\nq\n# END x\nb"), "a\nb");
        assert_eq!(apply(&block(None, Place::End), "a"), "a");
    }

    #[test]
    fn half_a_block_is_not_guessed_at() {
        let new = block(Some("1"), Place::End);
        for text in
            ["# BEGIN x\n", "# END x\n", "# END x\n# BEGIN x\n", "# BEGIN x\n# END x\n# BEGIN x\n# END x\n"]
        {
            assert!(new.apply(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(block(Some("a\n# END x\n"), Place::End).apply(b"").is_err());
        assert!(markers("# mine", "x").is_err() && markers("{mark}\n", "x").is_err());
        let (begin, end) = markers("# {mark} ANSIBLE MANAGED BLOCK", "x").unwrap();
        assert_eq!(
            (begin.as_str(), end.as_str()),
            ("# BEGIN ANSIBLE MANAGED BLOCK", "# END ANSIBLE MANAGED BLOCK")
        );
    }
}
