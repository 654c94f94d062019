//! The programs that rules name, as files that the kernel may let run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::library::{Closure, find};

/// Whether a path is what it was: device, inode, change, size; `None` if it is gone.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// Lists that were made, and what they were made from.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Vec<Cached>>);

#[derive(Debug)]
struct Cached {
    names: Vec<String>,
    extra: Vec<PathBuf>,
    shell: PathBuf,
    path: String,
    seen: Vec<(PathBuf, Stamp)>,
    files: Arc<Vec<PathBuf>>,
}

/// Lists kept: those for lines and for a few MCP servers.
const MOST_CACHED: usize = 16;

impl Cache {
    /// The list for these names. Made anew if any file or folder that led to it has
    /// changed: upgrades replace programs and libraries.
    pub(crate) fn executables(
        &self,
        names: &[String],
        extra: &[PathBuf],
        shell: &Path,
        path: &str,
    ) -> Arc<Vec<PathBuf>> {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |c: &Cached| c.names == names && c.extra == extra && c.shell == shell && c.path == path;
        if let Some(at) = lists.iter().position(same) {
            if lists[at].seen.iter().all(|(path, was)| stamp(path) == *was) {
                return lists[at].files.clone();
            }
            lists.remove(at);
        }
        let files = Arc::new(executables(names, extra, shell, path));
        let folders = path.split(':').map(PathBuf::from).chain(["/etc/ld.so.cache".into()]);
        let seen = folders.chain(extra.iter().cloned()).chain(files.iter().cloned());
        let seen = seen.map(|path| (path.clone(), stamp(&path))).collect();
        lists.truncate(MOST_CACHED - 1);
        lists.insert(
            0,
            Cached {
                names: names.to_vec(),
                extra: extra.to_vec(),
                shell: shell.to_owned(),
                path: path.to_owned(),
                seen,
                files: files.clone(),
            },
        );
        files
    }
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let meta = path.metadata().ok()?;
    Some((meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.size()))
}

/// What some programs start or load beside themselves, as paths below which all may
/// be executed. `*` at the end of a name stands for any version.
const HELPERS: &[(&str, &[&str])] = &[
    ("git", &["/usr/lib/git-core", "/usr/libexec/git-core"]),
    ("python*", &["/usr/lib/python3*", "/usr/local/lib/python3*", "/usr/lib64/python3*"]),
    ("perl*", &["/usr/lib/*/perl*", "/usr/share/perl*", "/usr/lib64/perl5"]),
    ("ruby*", &["/usr/lib/ruby", "/usr/lib/*/ruby", "/var/lib/gems"]),
    ("node*", &["/usr/lib/node_modules", "/usr/share/nodejs"]),
    ("java", &["/usr/lib/jvm"]),
    ("gcc*", &["/usr/lib/gcc", "/usr/libexec/gcc"]),
    ("cc", &["/usr/lib/gcc", "/usr/libexec/gcc"]),
    ("man", &["/usr/lib/man-db", "/usr/libexec/man-db"]),
    ("openssl", &["/usr/lib/*/ossl-modules", "/usr/lib/*/engines-3"]),
    ("curl", &["/usr/lib/*/ossl-modules"]),
    ("iconv", &["/usr/lib/*/gconv"]),
    ("apt*", &["/usr/lib/apt"]),
    ("xargs", &["/bin/echo"]),
    ("egrep", &["/bin/grep"]),
    ("fgrep", &["/bin/grep"]),
    ("zgrep", &["/bin/gzip", "/bin/grep", "/bin/sed"]),
    ("tar", &["/bin/gzip", "/bin/bzip2", "/usr/bin/xz", "/usr/bin/zstd"]),
    ("watch", &["/bin/sh"]),
    ("flock", &["/bin/sh"]),
    ("su", &["/bin/sh"]),
    ("zcat", &["/bin/gzip"]),
];

/// The files and folders that a list of names stands for.
pub(crate) fn executables(names: &[String], extra: &[PathBuf], shell: &Path, path: &str) -> Vec<PathBuf> {
    let mut closure = Closure::new(path);
    let mut folders: Vec<PathBuf> = Vec::new();
    closure.add(shell);
    let mut add = |closure: &mut Closure<'_>, path: &Path| {
        if path.is_dir() {
            folders.extend(path.canonicalize());
            // The folder's programs and modules are loaded with libraries from elsewhere.
            for file in loadable(path) {
                closure.add(&file);
            }
        } else {
            closure.add(path);
        }
    };
    for name in names {
        if let Some(found) = find(name, path) {
            add(&mut closure, &found);
        }
        let base = name.rsplit('/').next().unwrap_or(name);
        for (_, helpers) in HELPERS.iter().filter(|(program, _)| fits(program, base)) {
            for helper in helpers.iter().flat_map(|pattern| glob(pattern)) {
                add(&mut closure, &helper);
            }
        }
    }
    for path in extra {
        add(&mut closure, path);
    }
    let mut all: Vec<PathBuf> = closure.files.into_iter().collect();
    all.retain(|file| !folders.iter().any(|dir| file.starts_with(dir)));
    folders.sort();
    folders.dedup();
    all.extend(folders);
    all
}

/// The files beneath a folder that are executed or loaded: programs, and modules such as
/// `lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so`, each with libraries of its own.
fn loadable(folder: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    /// Most entries looked at beneath one folder: an interpreter's modules are some thousands.
    const MOST_ENTRIES: usize = 20_000;
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST_ENTRIES {
                return found;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let module = name.ends_with(".so") || name.contains(".so.");
            let program = || entry.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
            if module || !kind.is_symlink() && program() {
                found.push(entry.path());
            }
        }
    }
    found
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(head) => name
            .strip_prefix(head)
            .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-')),
        None => pattern == name,
    }
}

/// The paths that a pattern with a `*` in a component stands for.
fn glob(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.split('/').filter(|c| !c.is_empty()) {
        found = match component.split_once('*') {
            None => found.into_iter().map(|dir| dir.join(component)).collect(),
            Some((head, tail)) => found
                .into_iter()
                .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten())
                .filter(|entry| {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    name.starts_with(head) && name.ends_with(tail)
                })
                .map(|entry| entry.path())
                .collect(),
        };
    }
    found.retain(|path| path.exists());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_files_they_need_and_no_others() {
        let names = ["ls".to_owned(), "no-such-program".to_owned()];
        let files = executables(&names, &[], Path::new("/bin/bash"), "/usr/bin:/bin");
        let has = |name: &str| files.iter().any(|f| f.file_name().is_some_and(|n| n == name));
        assert!(has("ls") && has("bash") && !has("cat"), "{files:?}");
        assert!(files.iter().all(|f| f.is_absolute() && f.exists()));
    }

    #[test]
    fn an_interpreter_brings_the_libraries_of_its_modules() {
        let Some(modules) = glob("/usr/lib/python3*/lib-dynload").pop() else {
            println!("NOT TESTED HERE: no python3 of the system");
            return;
        };
        let ssl = loadable(&modules).into_iter().find(|f| f.to_string_lossy().contains("_ssl."));
        assert!(ssl.is_some(), "{}", modules.display());
        let files = executables(&["python3".to_owned()], &[], Path::new("/bin/bash"), "/usr/bin:/bin");
        let has = |name: &str| files.iter().any(|f| f.to_string_lossy().contains(name));
        for library in ["libssl.so", "libsqlite3.so", "libffi.so"] {
            assert!(has(library), "{library}: {files:?}");
        }
    }

    #[test]
    fn patterns() {
        assert!(fits("python*", "python3.11") && fits("git", "git"));
        assert!(!fits("python*", "pythonista") && !fits("git", "gitk"));
        assert!(glob("/usr/l*b").contains(&PathBuf::from("/usr/lib")));
    }
}
