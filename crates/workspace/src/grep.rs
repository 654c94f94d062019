//! Searching file contents with ripgrep's own libraries, in parallel.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::sinks::Bytes;
use grep_searcher::{BinaryDetection, SearcherBuilder};
use ignore::overrides::{Override, OverrideBuilder};
use ignore::{WalkBuilder, WalkState};
use rustix::fs::{Mode, OFlags};

use crate::{Error, Root};

/// Most bytes of matching lines in one answer.
const MAX_BYTES: u64 = 256 << 20;
/// Most bytes of a line that a bounded search holds.
const MAX_LINE_HELD: usize = 32 << 20;
/// The same of a pattern, compiled.
const MAX_PATTERN_HELD: usize = 16 << 20;

/// A matching line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrepMatch {
    /// Relative to the root, without a leading `./`.
    pub path: PathBuf,
    /// From 1.
    pub line_number: u64,
    /// The line without its newline; bytes that are no UTF-8 are replaced.
    pub content: String,
}

/// How much of what is found is told.
#[derive(Debug, Clone, Copy)]
pub struct GrepBounds {
    /// Most matching lines: with them the search ends.
    pub matches: usize,
    /// Most bytes of all lines together.
    pub bytes: u64,
    /// Most bytes of one line; the rest of it is left out.
    pub line: usize,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrepResult {
    /// Ordered by path, then line.
    pub matches: Vec<GrepMatch>,
    /// The search was stopped before it was through.
    pub stopped: bool,
}

impl Root {
    /// Searches all files beneath the root as `rg` does by default: Rust regex with
    /// smart case; hidden, ignored and binary files left out. `include` are
    /// gitignore-style globs (`!x` excludes). `stop` ends the search early. Fails if the
    /// matching lines are more than 256 MiB.
    pub fn grep(&self, pattern: &str, include: &[String], stop: &AtomicBool) -> Result<GrepResult, Error> {
        let none = GrepBounds { matches: usize::MAX, bytes: MAX_BYTES, line: usize::MAX };
        let (found, is_full) = self.search(pattern, include, stop, none)?;
        if is_full {
            return Err(Error::TooMuch { what: "the size of the matching lines", limit: MAX_BYTES });
        }
        Ok(found)
    }

    /// The same until `bounds` are reached; `stopped` says that they were, or that `stop` was
    /// set. Which of more matches are told is not defined. A line of more than 32 MiB ends the
    /// search of its file.
    pub fn grep_some(
        &self,
        pattern: &str,
        include: &[String],
        stop: &AtomicBool,
        bounds: GrepBounds,
    ) -> Result<GrepResult, Error> {
        let (mut found, is_full) = self.search(pattern, include, stop, bounds)?;
        found.stopped |= is_full;
        Ok(found)
    }

    fn search(
        &self,
        pattern: &str,
        include: &[String],
        stop: &AtomicBool,
        bounds: GrepBounds,
    ) -> Result<(GrepResult, bool), Error> {
        let mut builder = RegexMatcherBuilder::new();
        builder.case_smart(true).line_terminator(Some(b'\n'));
        if bounds.line < usize::MAX {
            builder.size_limit(MAX_PATTERN_HELD).dfa_size_limit(MAX_PATTERN_HELD);
        }
        let matcher = builder.build(pattern).map_err(|e| Error::BadPattern(e.to_string()))?;
        let overrides = self.overrides(include)?;
        // The root must be readable, or an empty result would be a lie.
        self.open_at(Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(|f| self.error(f, "", "search", "open", Path::new("")))?;
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(12));
        let walk = WalkBuilder::new(self.path())
            .overrides(overrides)
            .add_custom_ignore_filename(".rgignore")
            .threads(threads)
            .build_parallel();
        let found: Mutex<Vec<Vec<GrepMatch>>> = Mutex::new(Vec::new());
        let room = Room {
            bounds,
            matches: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            full: AtomicBool::new(false),
        };
        walk.run(|| {
            let mut search = FileSearch::new(self, matcher.clone(), bounds);
            let (found, room) = (&found, &room);
            Box::new(move |entry| {
                if stop.load(Ordering::Relaxed) || room.full.load(Ordering::Relaxed) {
                    return WalkState::Quit;
                }
                let Ok(entry) = entry else { return WalkState::Continue };
                if !entry.file_type().is_some_and(|t| t.is_file()) {
                    return WalkState::Continue;
                }
                let matches = search.run(entry.path(), room, stop);
                if !matches.is_empty()
                    && let Ok(mut found) = found.lock()
                {
                    found.push(matches);
                }
                WalkState::Continue
            })
        });
        let mut files = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        files.sort_unstable_by(|a, b| a.first().map(|m| &m.path).cmp(&b.first().map(|m| &m.path)));
        let matches = files.into_iter().flatten().collect();
        let stopped = stop.load(Ordering::Relaxed);
        Ok((GrepResult { matches, stopped }, room.full.into_inner()))
    }

    fn overrides(&self, include: &[String]) -> Result<Override, Error> {
        let mut overrides = OverrideBuilder::new(self.path());
        for glob in include {
            overrides.add(glob).map_err(|e| Error::BadPattern(format!("include: {e}")))?;
        }
        overrides.build().map_err(|e| Error::BadPattern(format!("include: {e}")))
    }
}

/// What there is still room for.
struct Room {
    bounds: GrepBounds,
    matches: AtomicUsize,
    bytes: AtomicU64,
    full: AtomicBool,
}

impl Room {
    /// Takes the place of a line, if there is one.
    fn take(&self, bytes: usize) -> bool {
        let matches = self.matches.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes as u64 + 64, Ordering::Relaxed);
        let fits = matches < self.bounds.matches && before <= self.bounds.bytes;
        if !fits {
            self.full.store(true, Ordering::Relaxed);
        }
        fits
    }
}

/// One thread's searcher: its buffers are used for file after file.
struct FileSearch<'a> {
    root: &'a Root,
    matcher: RegexMatcher,
    searcher: grep_searcher::Searcher,
}

impl<'a> FileSearch<'a> {
    fn new(root: &'a Root, matcher: RegexMatcher, bounds: GrepBounds) -> Self {
        let mut builder = SearcherBuilder::new();
        builder.binary_detection(BinaryDetection::quit(0)).line_number(true);
        if bounds.line < usize::MAX {
            builder.heap_limit(Some(MAX_LINE_HELD));
        }
        Self { root, matcher, searcher: builder.build() }
    }

    /// Searches one file. The walk only proposes it: it is opened beneath the root,
    /// so a folder swapped for a link meanwhile leads nowhere. Files that can't be
    /// read are left out, as `rg` does after a warning.
    fn run(&mut self, absolute: &Path, room: &Room, stop: &AtomicBool) -> Vec<GrepMatch> {
        let Ok(path) = absolute.strip_prefix(self.root.path()) else { return Vec::new() };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
        let Ok(fd) = self.root.open_at(path, flags, Mode::empty()) else { return Vec::new() };
        let mut matches = Vec::new();
        let sink = Bytes(|line_number, line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = &line[..line.len().min(room.bounds.line)];
            if !room.take(line.len()) {
                return Ok(false);
            }
            matches.push(GrepMatch {
                path: path.to_owned(),
                line_number,
                content: String::from_utf8_lossy(line).into_owned(),
            });
            Ok(!stop.load(Ordering::Relaxed))
        });
        let _ = self.searcher.search_file(&self.matcher, &File::from(fd), sink);
        matches
    }
}
