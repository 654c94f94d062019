//! Finding files by a pattern, segment by segment.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::{FileType, Mode, OFlags};

use crate::list::sorted_names;
use crate::os::LOOK;
use crate::{Error, Root};

/// Most matches in one answer.
const MAX_MATCHES: usize = 500_000;
/// Most patterns that braces may stand for.
const MAX_ALTERNATIVES: usize = 1024;
/// Most bytes of them all.
const MAX_ALTERNATIVE_BYTES: usize = 4 << 20;

/// One segment of a pattern.
enum Segment {
    /// A name as it is.
    Name(String),
    /// `**`: any folders, none included.
    Folders,
    /// A name with wildcards.
    Matching(GlobMatcher),
}

impl Root {
    /// Relative paths that match `pattern`, sorted by bytes. `*`, `?`, `[…]` and
    /// `{a,b}` match within a name, `**` as a whole segment matches any folders but
    /// enters no linked one. What resolves outside the root is left out. Fails beyond 500,000.
    pub fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, Error> {
        let (found, is_cut) = self.glob_some(pattern, MAX_MATCHES)?;
        if is_cut {
            return Err(Error::TooMuch { what: "the number of matches", limit: MAX_MATCHES as u64 });
        }
        Ok(found)
    }

    /// The same, but no more than `most`, and whether there are more. Which of them is not
    /// defined.
    pub fn glob_some(&self, pattern: &str, most: usize) -> Result<(Vec<PathBuf>, bool), Error> {
        if pattern.starts_with('/') || pattern.split('/').any(|s| s == "..") {
            return Ok((Vec::new(), false));
        }
        let mut found = BTreeSet::new();
        for alternative in expand_braces(pattern)? {
            let segments = alternative
                .split('/')
                .filter(|s| !s.is_empty() && *s != ".")
                .map(segment)
                .collect::<Result<Vec<_>, _>>()?;
            let mut search = Search { root: self, segments, seen: HashSet::new(), found: &mut found, most };
            search.descend(Path::new(""), 0);
        }
        let is_cut = found.len() > most;
        let mut found: Vec<PathBuf> = found.into_iter().collect();
        found.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        found.truncate(most);
        Ok((found, is_cut))
    }
}

struct Search<'a> {
    root: &'a Root,
    segments: Vec<Segment>,
    /// Where we were: several `**` reach the same place in many ways.
    seen: HashSet<(PathBuf, usize)>,
    found: &'a mut BTreeSet<PathBuf>,
    /// One more than these, and the search is over.
    most: usize,
}

impl Search<'_> {
    fn descend(&mut self, at: &Path, index: usize) {
        if self.found.len() > self.most || !self.seen.insert((at.to_owned(), index)) {
            return;
        }
        let Some(segment) = self.segments.get(index) else {
            if !at.as_os_str().is_empty() {
                self.found.insert(at.to_owned());
            }
            return;
        };
        match segment {
            Segment::Name(name) => {
                let path = at.join(name);
                if self.root.open_at(&path, LOOK, Mode::empty()).is_ok() {
                    self.descend(&path, index + 1);
                }
            }
            Segment::Folders => {
                self.descend(at, index + 1);
                for path in self.children(at, &|_| true) {
                    if self.kind(&path, OFlags::NOFOLLOW) == Some(FileType::Directory) {
                        self.descend(&path, index);
                    } else if index + 1 == self.segments.len() && self.kind(&path, OFlags::empty()).is_some()
                    {
                        self.descend(&path, index + 1);
                    }
                }
            }
            Segment::Matching(matcher) => {
                let matcher = matcher.clone();
                for path in self.children(at, &|name| matcher.is_match(name)) {
                    if self.kind(&path, OFlags::empty()).is_some() {
                        self.descend(&path, index + 1);
                    }
                }
            }
        }
    }

    fn children(&self, at: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let names = self.root.open_at(at, flags, Mode::empty()).ok().and_then(|fd| sorted_names(&fd).ok());
        names.unwrap_or_default().into_iter().filter(|n| wanted(Path::new(n))).map(|n| at.join(n)).collect()
    }

    fn kind(&self, path: &Path, flags: OFlags) -> Option<FileType> {
        let fd = self.root.open_at(path, LOOK | flags, Mode::empty()).ok()?;
        Some(FileType::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode))
    }
}

fn segment(text: &str) -> Result<Segment, Error> {
    if text == "**" {
        return Ok(Segment::Folders);
    }
    if !text.contains(['*', '?', '[', ']', '\\']) {
        return Ok(Segment::Name(text.to_owned()));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
    Ok(Segment::Matching(glob.map_err(|_| Error::BadGlob)?.compile_matcher()))
}

/// Writes out `{a,b}`, nested ones included: an alternative may hold a `/`.
fn expand_braces(pattern: &str) -> Result<Vec<String>, Error> {
    let mut done = Vec::new();
    let mut todo = vec![pattern.to_owned()];
    while let Some(text) = todo.pop() {
        let count = done.len() + todo.len();
        if count > MAX_ALTERNATIVES || count * text.len() > MAX_ALTERNATIVE_BYTES {
            return Err(Error::TooMuch {
                what: "the number of alternatives",
                limit: MAX_ALTERNATIVES as u64,
            });
        }
        let Some((start, end, commas)) = first_brace(&text)? else {
            done.push(text);
            continue;
        };
        let mut from = start + 1;
        for comma in commas.into_iter().chain([end]) {
            todo.push(format!("{}{}{}", &text[..start], &text[from..comma], &text[end + 1..]));
            from = comma + 1;
        }
    }
    Ok(done)
}

/// The first brace pair, and the commas that divide it.
fn first_brace(text: &str) -> Result<Option<(usize, usize, Vec<usize>)>, Error> {
    let (mut start, mut depth, mut commas) = (None, 0usize, Vec::new());
    let (mut escaped, mut in_class) = (false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '{' => {
                start = start.or(Some(i));
                depth += 1;
            }
            ',' if depth == 1 => commas.push(i),
            '}' if depth == 1 => {
                return Ok(start.map(|start| (start, i, commas)));
            }
            '}' => depth = depth.checked_sub(1).ok_or(Error::BadGlob)?,
            _ => {}
        }
    }
    if depth > 0 { Err(Error::BadGlob) } else { Ok(None) }
}
