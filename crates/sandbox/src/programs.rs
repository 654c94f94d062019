//! The programs that rules name, as files that the kernel may let run.

use std::path::{Path, PathBuf};

use crate::library::{Closure, find};

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
            // The folder's programs are loaded with libraries from elsewhere.
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten().take(1024) {
                if entry.path().is_file() {
                    closure.add(&entry.path());
                }
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

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(head) => {
            name.strip_prefix(head).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-'))
        }
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
    fn patterns() {
        assert!(fits("python*", "python3.11") && fits("git", "git"));
        assert!(!fits("python*", "pythonista") && !fits("git", "gitk"));
        assert!(glob("/usr/l*b").contains(&PathBuf::from("/usr/lib")));
    }
}
