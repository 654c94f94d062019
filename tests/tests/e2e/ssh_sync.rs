//! `legwork ssh sync` and `cp -r`: folders, on a real sshd.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use legwork_e2e::sshd::Sshd;

fn write(root: &Path, name: &str, content: &str, mode: u32) {
    let file = root.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, content).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Names, kinds, permissions and contents of all that is in a folder.
fn picture(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, found) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().display().to_string();
            lines.push(if found.is_symlink() {
                format!("{name} -> {}", std::fs::read_link(&path).unwrap().display())
            } else if found.is_dir() {
                folders.push(path);
                format!("{name}/ {:o}", found.mode() & 0o777)
            } else {
                format!("{name} {:o} {:?}", found.mode() & 0o777, std::fs::read(&path).unwrap().len())
            });
        }
    }
    lines.sort();
    lines
}

fn site(root: &Path) {
    write(root, "index.html", "hello", 0o644);
    write(root, "bin/run 'it'; $(id)", "#!/bin/sh", 0o755);
    write(root, "deep/er/x", "x", 0o600);
    write(root, "large", &"l".repeat(6_500_000), 0o640);
    write(root, "cache/a.tmp", "t", 0o644);
    std::fs::create_dir(root.join("empty")).unwrap();
    std::os::unix::fs::symlink("index.html", root.join("link")).unwrap();
    std::fs::set_permissions(root.join("deep"), std::fs::Permissions::from_mode(0o750)).unwrap();
}

#[tokio::test]
async fn a_folder_becomes_what_another_is_and_nothing_else_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let (from, to) = (dir.path().join("from"), dir.path().join("there/to"));
    site(&from);
    let (from_text, to_text) = (from.display().to_string(), format!("h1:{}", to.display()));
    let sync = async |more: &[&str]| {
        let args = [&["sync", from_text.as_str(), to_text.as_str()][..], more].concat();
        let (status, out, err) = sshd.ssh(&args).await;
        assert_eq!(status, 0, "{out} {err}");
        out
    };
    let dry = sync(&["--dry-run"]).await;
    assert!(dry.contains("+ deep/er/x") && dry.contains("dry run") && !to.exists(), "{dry}");
    sync(&["--exclude", "*.tmp"]).await;
    assert!(to.join("cache").is_dir() && !to.join("cache/a.tmp").exists());
    sync(&[]).await;
    assert_eq!(picture(&to), picture(&from));
    let before = std::fs::metadata(to.join("large")).unwrap().ino();
    assert_eq!(sync(&["--delete"]).await, "nothing to do\n");
    // What is no longer here goes only where that was asked for, and what was left out stays.
    write(&to, "old/a", "a", 0o644);
    write(&to, "keep.tmp", "k", 0o644);
    std::fs::remove_file(to.join("deep/er/x")).unwrap();
    std::fs::create_dir(to.join("deep/er/x")).unwrap();
    std::fs::remove_file(to.join("index.html")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", to.join("index.html")).unwrap();
    let hostname = std::fs::read("/etc/hostname").ok();
    sync(&[]).await;
    assert!(to.join("old/a").exists());
    let told = sync(&["--delete", "--exclude", "*.tmp"]).await;
    assert!(told.contains("- old\n") && to.join("keep.tmp").exists(), "{told}");
    std::fs::remove_file(to.join("keep.tmp")).unwrap();
    assert_eq!(picture(&to), picture(&from));
    assert_eq!(std::fs::read("/etc/hostname").ok(), hostname, "a link was followed");
    assert_eq!(std::fs::metadata(to.join("large")).unwrap().ino(), before, "what is equal was sent");
    // And back, to a folder for each host.
    let back = dir.path().join("back");
    let hosts = format!("h[1-2]:{}", to.display());
    let (status, out, err) = sshd.ssh(&["sync", &hosts, &back.display().to_string()]).await;
    assert_eq!(status, 0, "{out} {err}");
    assert_eq!(picture(&back.join("h1")).len(), picture(&from).len());
    assert_eq!(picture(&back.join("h2")), picture(&back.join("h1")));
}

#[tokio::test]
async fn a_folder_is_copied_as_scp_copies_it() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    site(&from);
    let (from_text, to_text) = (from.display().to_string(), format!("h1:{}", to.display()));
    // Not there: it becomes the folder. There: the folder goes into it.
    for there in [to.clone(), to.join("from")] {
        let (status, out, err) = sshd.ssh(&["cp", "-r", &from_text, &to_text]).await;
        assert_eq!(status, 0, "{out} {err}");
        let expected: Vec<String> = picture(&from);
        let got: Vec<String> =
            picture(&there).into_iter().filter(|line| !line.starts_with("from/")).collect();
        assert_eq!(got, expected);
    }
    let (status, _, err) = sshd.ssh(&["cp", &from_text, &to_text]).await;
    assert!(status == 1 && err.contains("goes with -r"), "{err}");
}
