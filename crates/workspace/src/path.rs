//! Paths as a caller gives them.

use std::path::{Component, Path, PathBuf};

use crate::Error;

/// Turns a caller's path into one relative to the root, free of `.` and `..`.
///
/// A leading `/` means the root, unless the path already lies inside it. This
/// only decides what the caller *means*; where it leads is for the kernel.
pub(crate) fn relative(root: &Path, given: &str) -> Result<PathBuf, Error> {
    let outside = || Error::Outside { path: given.to_owned() };
    if given.contains('\0') {
        return Err(outside());
    }
    let path = Path::new(given);
    let path = path.strip_prefix(root).unwrap_or(path);
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                if !clean.pop() {
                    return Err(outside());
                }
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_below_the_root() {
        let root = Path::new("/srv/ws");
        for (given, want) in [
            ("", Some("")),
            (".", Some("")),
            ("/", Some("")),
            ("a/b", Some("a/b")),
            ("/a//b/", Some("a/b")),
            ("a/../b", Some("b")),
            ("./a/./b", Some("a/b")),
            ("/srv/ws/a", Some("a")),
            ("/srv/ws", Some("")),
            ("/srv/ws-other/a", Some("srv/ws-other/a")),
            ("..", None),
            ("../x", None),
            ("a/../../x", None),
            ("/../x", None),
            ("/srv/ws/../x", None),
            ("a\0b", None),
        ] {
            assert_eq!(relative(root, given).ok().as_deref(), want.map(Path::new), "{given:?}");
        }
    }
}
