//! Secrets that a result would give away. A result is told byte for byte or not at all: one with
//! other bytes where a secret was would be a file that nobody wrote.

use std::collections::BTreeSet;
use std::path::Path;

use crate::masks::{Masks, Search};

/// Most names that a refusal tells.
const MAX_TOLD: usize = 10;
/// The longest name that is looked at in a diff.
const MAX_NAME: usize = 16 * 1024;

/// The files in which a secret was found.
pub(super) struct Held {
    search: Search,
    found: BTreeSet<String>,
    current: String,
}

impl Held {
    pub(super) fn new(masks: &Masks) -> Self {
        Self { search: masks.search(), found: BTreeSet::new(), current: String::new() }
    }

    /// Takes in a piece of a file, or of what its name stands for.
    pub(super) fn see(&mut self, path: &Path, bytes: &[u8]) {
        if self.current.as_bytes() != path.as_os_str().as_encoded_bytes() {
            self.close();
            self.current = path.to_string_lossy().into_owned();
            self.search.take(self.current.as_bytes());
            if self.search.end() {
                self.found.insert(self.current.clone());
            }
        }
        self.search.take(bytes);
    }

    fn close(&mut self) {
        if self.search.end() {
            self.found.insert(std::mem::take(&mut self.current));
        }
    }

    /// Why it is not told, if a secret was found.
    pub(super) fn end(mut self) -> Result<(), String> {
        self.close();
        if self.found.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.found.iter().take(MAX_TOLD).map(String::as_str).collect();
        let more = match self.found.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(format!("it holds a secret and is not told: see {}{more}", names.join(", ")))
    }
}

/// The same for a diff, which says itself of which file it tells.
pub(super) struct HeldInDiff {
    held: Held,
    line: Vec<u8>,
}

impl HeldInDiff {
    pub(super) fn new(masks: &Masks) -> Self {
        Self { held: Held::new(masks), line: Vec::new() }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // No mask goes beyond a line.
            self.held.search.take(piece);
            let room = MAX_NAME - self.line.len().min(MAX_NAME);
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                if let Some(names) = self.line.strip_prefix(b"diff --git ") {
                    self.held.current = name_of(names);
                }
                if self.held.search.end() {
                    self.held.found.insert(self.held.current.clone());
                }
                self.line.clear();
            }
        }
    }

    pub(super) fn end(self) -> Result<(), String> {
        self.held.end()
    }
}

/// The one name of `a/NAME b/NAME`, with quotes or without.
fn name_of(names: &[u8]) -> String {
    let names = String::from_utf8_lossy(names);
    let old = names.trim_end().get(..names.trim_end().len() / 2).unwrap_or_default();
    let old = old.trim_matches('"');
    old.strip_prefix("a/").unwrap_or(old).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_files_and_not_the_secret() {
        let masks = Masks::default();
        masks.add("postgres");
        let mut held = Held::new(&masks);
        for (path, bytes) in [("a", "post"), ("b", "gres"), ("c/d", "xpost"), ("c/d", "gres"), ("e", "")] {
            held.see(Path::new(path), bytes.as_bytes());
        }
        assert_eq!(held.end(), Err("it holds a secret and is not told: see c/d".into()));
        let diff = "diff --git a/x y b/x y\n--- a/x y\t\n+post\ndiff --git \"a/\\303\" \"b/\\303\"\n- postgres\n+x\n";
        for at in 0..diff.len() {
            let mut held = HeldInDiff::new(&masks);
            held.take(&diff.as_bytes()[..at]);
            held.take(&diff.as_bytes()[at..]);
            assert_eq!(held.end(), Err("it holds a secret and is not told: see \\303".into()), "{at}");
        }
        assert_eq!(HeldInDiff::new(&masks).end(), Ok(()));
    }
}
