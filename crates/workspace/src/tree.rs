//! A folder and all below it, as a tree.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::beneath::Failure;
use crate::os::LOOK;
use crate::{Error, Root};

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeKind {
    /// A regular file, or a link that leads to one, nowhere, or out of the root.
    File,
    /// A folder, or a link to one, which is not entered.
    Directory,
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeNode {
    /// Its name.
    pub name: std::ffi::OsString,
    /// What it is.
    pub kind: TreeKind,
    /// Where [`Tree::nodes`] has its entries.
    pub children: Range<usize>,
}

/// A folder's entries, and theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// All entries, level by level; siblings lie together, sorted by bytes.
    pub nodes: Vec<TreeNode>,
    /// How many of the first are the folder's own entries.
    pub top: usize,
    /// There was more than the limits allow.
    pub truncated: bool,
}

/// What a tree leaves out, and how much it holds.
#[derive(Debug, Clone)]
pub struct TreeLimits {
    /// Names of entries left out, with all below.
    pub exclude: Vec<String>,
    /// Most entries.
    pub nodes: usize,
    /// Most levels.
    pub depth: usize,
}

/// A file or folder of ours in the making: `.legwork-PID-N.tmp`.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(b".legwork-") && (name.ends_with(b".tmp") || name.ends_with(b".unpack"))
}

impl Root {
    /// Lists a folder with all below, level by level until the limits are reached.
    pub fn tree(&self, given: &str, limits: &TreeLimits) -> Result<Tree, Error> {
        let path = self.relative(given)?;
        let mut tree = Tree::default();
        let mut buffer = Vec::with_capacity(32 * 1024);
        let dir = self
            .open_at(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(|f| self.error(f, given, "", "open", &path))?;
        let range = self.add_entries(&mut tree, &dir, &path, limits, &mut buffer);
        drop(dir);
        tree.top = range.len();
        let mut queue: VecDeque<(PathBuf, Range<usize>, usize)> = VecDeque::from([(path, range, 1)]);
        while let Some((parent, range, depth)) = queue.pop_front() {
            for index in range {
                // A link's range says that it is not entered.
                if tree.nodes[index].kind != TreeKind::Directory || tree.nodes[index].children.start != 0 {
                    continue;
                }
                if depth >= limits.depth || tree.nodes.len() >= limits.nodes {
                    tree.truncated = true;
                    continue;
                }
                let path = parent.join(&tree.nodes[index].name);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                // What can't be read, or went away, is shown without entries.
                let Ok(dir) = self.open_at(&path, flags, Mode::empty()) else { continue };
                let range = self.add_entries(&mut tree, &dir, &path, limits, &mut buffer);
                tree.nodes[index].children = range.clone();
                if !range.is_empty() {
                    queue.push_back((path, range, depth + 1));
                }
            }
        }
        Ok(tree)
    }

    fn add_entries(
        &self,
        tree: &mut Tree,
        dir: &std::os::fd::OwnedFd,
        path: &Path,
        limits: &TreeLimits,
        buffer: &mut Vec<u8>,
    ) -> Range<usize> {
        let start = tree.nodes.len();
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_bytes();
            if name == b"."
                || name == b".."
                || is_temporary(name)
                || limits.exclude.iter().any(|e| e.as_bytes() == name)
            {
                continue;
            }
            let name = std::ffi::OsString::from_vec(name.to_vec());
            let (kind, children) = match entry.file_type() {
                FileType::RegularFile => (TreeKind::File, 0..0),
                FileType::Directory => (TreeKind::Directory, 0..0),
                FileType::Symlink => (self.link_kind(&path.join(&name)), usize::MAX..usize::MAX),
                FileType::Unknown => match self.kind_of(&path.join(&name), OFlags::NOFOLLOW) {
                    Some(FileType::RegularFile) => (TreeKind::File, 0..0),
                    Some(FileType::Directory) => (TreeKind::Directory, 0..0),
                    Some(FileType::Symlink) => (self.link_kind(&path.join(&name)), usize::MAX..usize::MAX),
                    _ => continue,
                },
                _ => continue,
            };
            tree.nodes.push(TreeNode { name, kind, children });
        }
        tree.nodes[start..].sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        if tree.nodes.len() > limits.nodes {
            tree.nodes.truncate(limits.nodes);
            tree.truncated = true;
        }
        start..tree.nodes.len()
    }

    fn link_kind(&self, path: &Path) -> TreeKind {
        match self.kind_of(path, OFlags::empty()) {
            Some(FileType::Directory) => TreeKind::Directory,
            _ => TreeKind::File,
        }
    }

    fn kind_of(&self, path: &Path, flags: OFlags) -> Option<FileType> {
        let fd = match self.open_at(path, LOOK | flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Failure::Escapes | Failure::Errno(Errno::NOENT)) => return None,
            Err(Failure::Errno(_)) => return None,
        };
        Some(FileType::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(nodes: usize, depth: usize) -> TreeLimits {
        TreeLimits { exclude: vec!["node_modules".into(), ".git".into()], nodes, depth }
    }

    /// `name/` for folders, with their entries in brackets.
    fn text(tree: &Tree, range: Range<usize>) -> String {
        let mut out = String::new();
        for node in &tree.nodes[range] {
            out.push_str(&node.name.to_string_lossy());
            if node.kind == TreeKind::Directory {
                let inner = if node.children.start == usize::MAX { 0..0 } else { node.children.clone() };
                out.push_str(&format!("/[{}]", text(tree, inner)));
            }
            out.push(' ');
        }
        out.trim_end().to_owned()
    }

    #[test]
    fn a_tree_is_whole_sorted_and_stays_inside() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = Root::open(dir.path()).expect("root");
        let at = |name: &str| dir.path().join(name);
        for name in ["src/deep/er", "node_modules/x", ".git", "empty", "src/node_modules"] {
            std::fs::create_dir_all(at(name)).expect("dir");
        }
        for name in ["src/a.js", "index.js", ".env", "Z", "src/deep/er/f", "node_modules/x/y"] {
            std::fs::write(at(name), "x").expect("file");
        }
        std::os::unix::fs::symlink("src", at("to-dir")).expect("link");
        std::os::unix::fs::symlink("index.js", at("to-file")).expect("link");
        std::os::unix::fs::symlink("/etc", at("out")).expect("link");
        std::os::unix::fs::symlink("nowhere", at("broken")).expect("link");
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("fifo");
        let tree = root.tree("", &limits(1000, 64)).expect("tree");
        assert_eq!(
            text(&tree, 0..tree.top),
            ".env Z broken empty/[] index.js out src/[a.js deep/[er/[f]]] to-dir/[] to-file"
        );
        assert!(!tree.truncated);
        // An excluded folder that is asked for by name.
        let inner = root.tree("node_modules", &limits(1000, 64)).expect("tree");
        assert_eq!(text(&inner, 0..inner.top), "x/[y]");
        // The levels above come first when there is too much.
        let cut = root.tree("", &limits(10, 64)).expect("tree");
        assert!(cut.truncated && cut.nodes.len() == 10);
        assert_eq!(
            text(&cut, 0..cut.top),
            ".env Z broken empty/[] index.js out src/[a.js] to-dir/[] to-file"
        );
        let flat = root.tree("", &limits(1000, 1)).expect("tree");
        assert!(flat.truncated && text(&flat, 0..flat.top).contains("src/[]"));
        assert!(matches!(root.tree("index.js", &limits(9, 9)), Err(Error::Io { .. })));
        assert!(matches!(root.tree("out", &limits(9, 9)), Err(Error::Escapes { .. })));
    }
}
