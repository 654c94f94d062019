//! The names in a configuration of ssh.

use std::path::{Path, PathBuf};

use super::words::fits;

/// The `Host` names of an ssh configuration that are no patterns.
pub(super) fn names(file: &Path, home: Option<&Path>, depth: usize, found: &mut Vec<String>) {
    let Ok(text) = std::fs::read_to_string(file) else { return };
    for line in text.lines() {
        let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
        let keyword = words.next().unwrap_or_default().to_ascii_lowercase();
        if keyword == "host" {
            found.extend(words.filter(|name| !name.contains(['*', '?', '!'])).map(str::to_owned));
        } else if keyword == "include" && depth < 16 {
            for path in words {
                let path = match (path.strip_prefix("~/"), home) {
                    (Some(path), Some(home)) => home.join(path),
                    _ => home.map_or_else(|| PathBuf::from(path), |home| home.join(".ssh").join(path)),
                };
                included(&path).iter().for_each(|file| names(file, home, depth + 1, found));
            }
        }
    }
}

/// The files that an Include names; a pattern stands in the last part, as it mostly does.
fn included(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    if !name.contains(['*', '?']) {
        return vec![path.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|file| file.file_name().is_some_and(|n| fits(name, &n.to_string_lossy()))).collect();
    files.sort();
    files
}

/// Whether a text is a configuration of ssh: its first word says so, and no group stands in it.
pub(super) fn is_one(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next().unwrap_or_default();
    let keyword = first.split([' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
    ["host", "match", "include"].contains(&keyword.as_str())
        && first.contains([' ', '\t'])
        && !lines.any(|line| line.starts_with('['))
}
