//! The names of programs: those by which the operator's PATH leads to them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::target::{self, FileId, Kind, Target};

/// What was read of files, kept.
const MOST_KINDS: usize = 256;
/// Folders whose programs keep their names wherever links to them are followed from: who
/// can write there can replace the programs themselves.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/snap", "/nix", "/etc"];
/// Where loaders are, beside what their names say.
const LOADERS: &[&str] = &[
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];

/// A folder of the PATH.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Whether what commands run as can't put programs there.
    kept: bool,
}

/// Names of programs under an operator's PATH.
#[derive(Debug)]
pub(super) struct Names {
    folders: Vec<Folder>,
    loaders: Vec<FileId>,
    kinds: HashMap<(FileId, i128), Option<Kind>>,
    user: Writer,
    /// Where commands write, whoever they are.
    workspace: PathBuf,
}

/// Who commands run as, as far as writing goes.
#[derive(Debug)]
struct Writer {
    uid: u32,
    groups: Vec<u32>,
}

impl Writer {
    fn own() -> Self {
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        Self { uid: rustix::process::geteuid().as_raw(), groups }
    }

    /// Whether it can't write a file of this kind. Root can write all; but what is root's alone
    /// is what the machine's own programs are.
    fn keeps_out(&self, mode: u32, owner: u32, group: u32) -> bool {
        if mode & 0o002 != 0 {
            return false;
        }
        if self.uid == 0 {
            return owner == 0 && (mode & 0o020 == 0 || group == 0);
        }
        owner != self.uid && (mode & 0o020 == 0 || !self.groups.contains(&group))
    }

    fn keeps_out_of(&self, folder: &Path) -> bool {
        rustix::fs::stat(folder).is_ok_and(|s| self.keeps_out(s.st_mode, s.st_uid, s.st_gid))
    }
}

/// What a call is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// The PATH leads to it by this name, which is the one it was called by.
    Name(String),
    /// It is known by its path alone.
    Path,
}

impl Names {
    pub(super) fn new(path: &str, workspace: &Path) -> Self {
        let user = Writer::own();
        let workspace = workspace.to_owned();
        let folders = path
            .split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| {
                let path = PathBuf::from(dir);
                let outside = workspace.as_os_str().is_empty() || !path.starts_with(&workspace);
                Folder { kept: outside && user.keeps_out_of(&path), path }
            })
            .collect();
        let id = |path: &&str| rustix::fs::stat(*path).ok().map(|s| FileId { dev: s.st_dev, ino: s.st_ino });
        let loaders = LOADERS.iter().filter_map(id).collect();
        Self { folders, loaders, kinds: HashMap::new(), user, workspace }
    }

    /// What a file goes by when it is called by this path and this first argument. `None` if the first argument is a name of something else: many programs do what it
    /// says.
    pub(super) fn identify(&self, target: &Target, called: &str, first: &str) -> Option<Identity> {
        let base = base_name(first.strip_prefix('-').unwrap_or(first));
        let own = base_name(called);
        if base.is_empty() {
            return None;
        }
        if self.leads_to(base, target.id) && self.counts_from(called) {
            return Some(Identity::Name(base.to_owned()));
        }
        (base == own || is_own_file(called)).then_some(Identity::Path)
    }

    /// Whether a program of the PATH has this name and is this file.
    pub(super) fn leads_to(&self, name: &str, id: FileId) -> bool {
        self.folder_of(name, id).is_some()
    }

    fn folder_of(&self, name: &str, id: FileId) -> Option<&Folder> {
        if name.contains('/') || name == "." || name == ".." {
            return None;
        }
        self.folders.iter().find(|folder| {
            rustix::fs::stat(folder.path.join(name))
                .is_ok_and(|s| FileId { dev: s.st_dev, ino: s.st_ino } == id)
        })
    }

    /// The paths of the PATH that are this very file: what is forbidden to them is forbidden to
    /// another name of it.
    pub(super) fn paths_of(&self, target: &Target) -> Vec<String> {
        /// Entries looked at.
        const MOST_ENTRIES: usize = 20_000;
        if !target.linked {
            return Vec::new();
        }
        let entries = self.folders.iter().filter_map(|folder| std::fs::read_dir(&folder.path).ok());
        let same = |entry: &std::fs::DirEntry| {
            use std::os::unix::fs::DirEntryExt;
            entry.ino() == target.id.ino && target::id_of(&entry.path().to_string_lossy()) == Some(target.id)
        };
        let found = entries.flatten().flatten().take(MOST_ENTRIES).filter(same);
        found.map(|entry| entry.path().to_string_lossy().into_owned()).collect()
    }

    /// Whether links that stand where a path leads through are the operator's own: elsewhere
    /// a link could lead to another program by the time it is followed again.
    pub(super) fn counts_from(&self, called: &str) -> bool {
        let path = Path::new(called);
        let Some(folder) = path.parent().filter(|_| path.is_absolute()) else {
            return false;
        };
        if self.folders.iter().any(|f| f.path == folder) || is_own_file(called) {
            return true;
        }
        let plain = path.components().all(|c| !matches!(c, std::path::Component::ParentDir));
        plain
            && (SYSTEM.iter().any(|s| folder.starts_with(s))
                || self.user.uid != 0 && self.kept_all_along(folder))
    }

    fn kept_all_along(&self, folder: &Path) -> bool {
        folder.ancestors().all(|dir| self.user.keeps_out_of(dir))
    }

    /// Whether a file is one that the operator has put on the PATH, out of reach of what
    /// commands run as.
    pub(super) fn is_the_operators(&self, target: &Target, identity: &Identity) -> bool {
        let Identity::Name(name) = identity else { return false };
        self.is_kept(target) && self.folder_of(name, target.id).is_some_and(|folder| folder.kept)
    }

    /// Whether what commands run as can't write a file, nor put another in its place.
    pub(super) fn is_kept(&self, target: &Target) -> bool {
        let outside =
            |path: &Path| self.workspace.as_os_str().is_empty() || !path.starts_with(&self.workspace);
        self.user.keeps_out(target.mode, target.owner, target.group)
            && target.path().is_some_and(|path| {
                outside(&path) && path.parent().is_some_and(|folder| self.kept_all_along(folder))
            })
    }

    /// Whether a file is what loads programs: as a program it runs any other.
    pub(super) fn is_loader(&self, target: &Target, called: &str) -> bool {
        let is_name = |path: &str| {
            let name = base_name(path);
            let library = name.contains(".so");
            library && ["ld-", "ld.", "ld64.", "ld32."].iter().any(|start| name.starts_with(start))
        };
        self.loaders.contains(&target.id)
            || is_name(called)
            || target.path().is_some_and(|path| is_name(&path.to_string_lossy()))
    }

    /// What a file is; `None` if it can't be read.
    pub(super) fn kind(&mut self, target: &Target) -> Option<Kind> {
        if self.kinds.len() >= MOST_KINDS {
            self.kinds.clear();
        }
        self.kinds.entry((target.id, target.changed)).or_insert_with(|| target.kind()).clone()
    }
}

/// Whether a path is the kernel's link to the file that a process executes. What leads on from
/// `/proc` by a folder or a root is a path like any other.
fn is_own_file(called: &str) -> bool {
    let parts: Vec<&str> = called.split('/').collect();
    matches!(parts[..], ["", "proc", of, "exe"] if of != ".." && of != ".")
}

/// What follows the last `/`.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::super::target::{Base, Root, find};
    use super::*;

    const PATH: &str = "/usr/bin:/bin";

    fn identify(path: &str, first: &str) -> Option<Identity> {
        let target = find(std::process::id(), Base::Cwd, path.as_bytes(), Root::own()).expect("found");
        Names::new(PATH, Path::new("")).identify(&target, path, first)
    }

    #[test]
    fn a_program_goes_by_the_name_that_the_path_leads_to_it_by() {
        let on_path = |name: &str| Some(Identity::Name(name.into()));
        assert_eq!(identify("/bin/sh", "sh"), on_path("sh"));
        assert_eq!(identify("/usr/bin/sh", "-sh"), on_path("sh"));
        assert_eq!(identify("/usr/bin/env", "/usr/bin/env"), on_path("env"));
        // It would do what it is called.
        assert_eq!(identify("/bin/sh", "ls"), None);
        assert_eq!(identify("/bin/sh", ""), None);
        assert_eq!(identify("/bin/sh", "./"), None);
    }

    #[test]
    fn a_way_through_proc_is_trusted_only_to_what_a_process_executes() {
        for (path, wanted) in [
            ("/proc/self/exe", true),
            ("/proc/42/exe", true),
            ("/proc/../exe", false),
            ("/proc/self/cwd/exe", false),
            ("/proc/self/root/usr/bin/ls", false),
            ("/proc/../tmp/x/ls", false),
        ] {
            assert_eq!(is_own_file(path), wanted, "{path}");
            assert_eq!(Names::new(PATH, Path::new("")).counts_from(path), wanted, "{path}");
        }
        assert_eq!(identify("/proc/../bin/sh", "ls"), None);
    }

    #[test]
    fn a_path_is_no_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("ls").display().to_string();
        let by_path = Some(Identity::Path);
        std::fs::copy("/bin/ls", &path).expect("copied");
        assert_eq!(identify(&path, "ls"), by_path);
        std::fs::remove_file(&path).expect("removed");
        // A link that somebody else could turn.
        std::os::unix::fs::symlink("/bin/ls", &path).expect("linked");
        assert_eq!(identify(&path, "ls"), by_path);
    }

    #[test]
    fn loaders_are_known_by_name_and_by_file() {
        let names = Names::new(PATH, Path::new(""));
        for path in LOADERS.iter().filter(|path| Path::new(path).exists()) {
            let target = find(std::process::id(), Base::Cwd, path.as_bytes(), Root::own()).expect("found");
            assert!(names.is_loader(&target, path) && names.is_loader(&target, "x"), "{path}");
        }
        let shell = find(std::process::id(), Base::Cwd, b"/bin/sh", Root::own()).expect("found");
        assert!(!names.is_loader(&shell, "/bin/sh") && names.is_loader(&shell, "/tmp/ld-2.31.so"));
    }
}
