//! Where programs are.

use std::path::{Path, PathBuf};

/// The file that a shell with this `PATH` would execute for a name. A name with a slash is a
/// path already, and is not looked at. Folders that are not absolute are passed over: what
/// they mean depends on where somebody happens to be.
pub fn find(name: &str, path: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name));
    }
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| is_program(file))
}

/// Whether a path is that of a file that may be executed.
pub fn is_program(file: &Path) -> bool {
    let Ok(meta) = file.metadata() else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        meta.is_file() && meta.permissions().mode() & 0o111 != 0
    }
    #[cfg(not(unix))]
    meta.is_file()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_that_may_be_executed_is_found() {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("a folder")).collect();
        for (folder, mode) in folders.iter().zip([0o644, 0o755, 0o755]) {
            let file = folder.path().join("tool");
            std::fs::write(&file, "").expect("a file");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("a mode");
        }
        std::fs::create_dir(folders[0].path().join("other")).expect("a folder");
        let path: Vec<_> = folders.iter().map(|f| f.path().display().to_string()).collect();
        let path = format!(":.:{}", path.join(":"));
        assert_eq!(find("tool", &path), Some(folders[1].path().join("tool")));
        assert_eq!(find("other", &path), None);
        assert_eq!(find("./tool", &path), Some("./tool".into()));
    }
}
