//! A folder with all that is in it, here or on a host; and what makes one like the other.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path};

use anyhow::{Context as _, Result, bail};
use globset::{Glob, GlobSet, GlobSetBuilder};

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Folder {
        mode: u32,
    },
    File {
        mode: u32,
        size: u64,
        digest: String,
    },
    Link {
        to: String,
    },
    /// A pipe, a socket, a device: left alone.
    Other,
}

/// What a folder holds, by paths from it on; folders come before what is in them.
pub(crate) type Tree = BTreeMap<String, Entry>;

/// What is left out on both sides.
pub(crate) fn patterns(words: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for word in words {
        let word = word.trim_end_matches('/');
        // A name fits in any depth, and what is below it goes with it.
        let anchored = word.trim_start_matches('/');
        let start = if word.contains('/') { anchored.to_owned() } else { format!("**/{word}") };
        for pattern in [start.clone(), format!("{start}/**")] {
            set.add(Glob::new(&pattern).with_context(|| format!("--exclude {word}"))?);
        }
    }
    Ok(set.build()?)
}

/// Reads a folder here.
pub(crate) fn here(root: &Path, without: &GlobSet) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("failed to read {}", path.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { bail!("{} is not named in UTF-8", entry.path().display()) };
            let name = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if without.is_match(&name) {
                continue;
            }
            let found = entry.metadata()?;
            let (mode, kind) = (found.permissions().mode() & 0o7777, found.file_type());
            let what = if kind.is_dir() {
                folders.push(name.clone());
                Entry::Folder { mode }
            } else if kind.is_symlink() {
                Entry::Link { to: std::fs::read_link(entry.path())?.to_string_lossy().into_owned() }
            } else if kind.is_file() {
                let digest = digest(&entry.path())
                    .with_context(|| format!("failed to read {}", entry.path().display()))?;
                Entry::File { mode, size: found.size(), digest }
            } else {
                Entry::Other
            };
            tree.insert(name, what);
        }
    }
    Ok(tree)
}

fn digest(file: &Path) -> std::io::Result<String> {
    legwork_base::digest::of_stream(std::fs::File::open(file)?).map(|(_, digest)| digest)
}

/// Reads what a host said of a folder. A host is not believed a path that leads out of it.
pub(crate) fn there(lines: &str, without: &GlobSet) -> Result<Tree> {
    let mut tree = Tree::new();
    for line in lines.lines() {
        let (kind, mode, size, text, name): (String, String, u64, String, String) =
            serde_json::from_str(line).with_context(|| format!("the host said {line:?}"))?;
        let inside = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !inside {
            bail!("the host names {name:?} in its folder");
        }
        if without.is_match(&name) {
            continue;
        }
        let mode = u32::from_str_radix(&mode, 8).unwrap_or(0) & 0o7777;
        let what = match kind.as_str() {
            "d" => Entry::Folder { mode },
            "f" => Entry::File { mode, size, digest: text },
            "l" => Entry::Link { to: text },
            _ => Entry::Other,
        };
        tree.insert(name, what);
    }
    Ok(tree)
}

/// What makes a folder like another, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// In the way of something of another kind.
    pub(crate) in_the_way: Vec<String>,
    pub(crate) folders: Vec<(String, u32)>,
    pub(crate) files: Vec<(String, u32)>,
    pub(crate) links: Vec<(String, String)>,
    /// Not in the other one.
    pub(crate) extra: Vec<String>,
}

impl Steps {
    pub(crate) fn between(from: &Tree, to: &Tree, delete: bool) -> Self {
        let mut steps = Self::default();
        for (name, entry) in from {
            let there = to.get(name);
            if there == Some(entry) || matches!(entry, Entry::Other) {
                continue;
            }
            let alike =
                there.is_none_or(|there| std::mem::discriminant(there) == std::mem::discriminant(entry));
            if !alike && !is_below(&steps.in_the_way, name) {
                steps.in_the_way.push(name.clone());
            }
            match entry {
                Entry::Folder { mode } => steps.folders.push((name.clone(), *mode)),
                Entry::File { mode, .. } => steps.files.push((name.clone(), *mode)),
                Entry::Link { to } => steps.links.push((name.clone(), to.clone())),
                Entry::Other => {}
            }
        }
        if delete {
            for name in to.keys().filter(|name| !from.contains_key(*name)) {
                if !is_below(&steps.extra, name) && !is_below(&steps.in_the_way, name) {
                    steps.extra.push(name.clone());
                }
            }
        }
        steps
    }

    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// A line for each, for people.
    pub(crate) fn tell(&self) -> Vec<String> {
        let set = |name: &String| name.clone();
        let removed = self.in_the_way.iter().chain(&self.extra).map(|name| format!("- {name}"));
        let folders = self.folders.iter().map(|(name, _)| format!("+ {name}/"));
        let files = self.files.iter().map(|(name, _)| format!("+ {}", set(name)));
        let links = self.links.iter().map(|(name, to)| format!("+ {name} -> {to}"));
        folders.chain(files).chain(links).chain(removed).collect()
    }
}

/// Whether one of these is the path or above it: they are in order.
fn is_below(above: &[String], name: &str) -> bool {
    above.iter().any(|above| {
        name.strip_prefix(above.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(lines: &[(&str, &str, &str)]) -> Tree {
        let line = |(kind, text, name): &(&str, &str, &str)| {
            format!("[\"{kind}\",\"0644\",1,\"{text}\",\"{name}\"]\n")
        };
        there(&lines.iter().map(line).collect::<String>(), &patterns(&[]).unwrap()).unwrap()
    }

    #[test]
    fn what_is_equal_is_no_step() {
        let from = tree(&[
            ("d", "", "a"),
            ("f", "1", "a/same"),
            ("f", "2", "a/new"),
            ("l", "x", "link"),
            ("f", "3", "was-folder"),
        ]);
        let to = tree(&[
            ("d", "", "a"),
            ("f", "1", "a/same"),
            ("f", "9", "a/new"),
            ("d", "", "was-folder"),
            ("f", "4", "was-folder/x"),
            ("d", "", "old"),
            ("f", "5", "old/y"),
        ]);
        let steps = Steps::between(&from, &to, true);
        assert_eq!(steps.in_the_way, ["was-folder"]);
        assert_eq!(steps.files, [("a/new".to_owned(), 0o644), ("was-folder".to_owned(), 0o644)]);
        assert_eq!((steps.links.len(), steps.folders.len()), (1, 0));
        assert_eq!(steps.extra, ["old"]);
        assert!(Steps::between(&from, &from, true).is_nothing());
        assert!(Steps::between(&from, &to, false).extra.is_empty());
    }

    #[test]
    fn names_and_paths_are_left_out() {
        let without = patterns(&["*.tmp".into(), ".git".into(), "build/out".into()]).unwrap();
        for (name, out) in [
            ("a.tmp", true),
            ("x/a.tmp", true),
            (".git/config", true),
            ("x/.git", true),
            ("build/out", true),
            ("build/out/x", true),
            ("x/build/out", false),
            ("a.tmpl", false),
        ] {
            assert_eq!(without.is_match(name), out, "{name}");
        }
    }

    #[test]
    fn a_host_names_nothing_outside_of_its_folder() {
        for name in ["../x", "/etc/x", "a/../../x", "", "."] {
            let line = format!("[\"f\",\"0644\",1,\"\",\"{name}\"]");
            assert!(there(&line, &patterns(&[]).unwrap()).is_err(), "{name}");
        }
    }
}
