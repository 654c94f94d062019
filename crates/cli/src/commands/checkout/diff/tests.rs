use std::path::Path;
use std::process::Command;

use super::super::Checkout;
use super::*;

#[expect(clippy::disallowed_methods, reason = "a test's own git")]
fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let done = command.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// A checkout in a home, with a file beside it that is nobody's business.
fn checkout(home: &Path) -> Checkout {
    let root = home.join("checkout");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(home.join("id_rsa"), "key\n").unwrap();
    std::fs::write(root.join("a.txt"), "one\n").unwrap();
    std::os::unix::fs::symlink("a.txt", root.join("link")).unwrap();
    git(&root, &["init", "--quiet"]);
    git(&root, &["add", "--all"]);
    git(&root, &["commit", "--quiet", "-m", "x"]);
    Checkout { root }
}

fn everything(folder: &Path) -> String {
    let text = |path: &Path| match std::fs::read_link(path) {
        Ok(target) => format!("{} -> {}\n", path.display(), target.display()),
        Err(_) => format!("{}: {}\n", path.display(), String::from_utf8_lossy(&std::fs::read(path).unwrap())),
    };
    let mut all: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_folder = path.symlink_metadata().unwrap().is_dir();
        all.push(if is_folder { everything(&path) } else { text(&path) });
    }
    all.sort();
    all.concat()
}

#[test]
fn what_git_makes_is_read_and_applied_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let checkout = checkout(home.path());
    let root = checkout.root.clone();
    let before = git(&root, &["write-tree"]);
    let names = ["with blank", "tab\there", "quo\"te\\", "é", "new\nline", "sub/deep/x", "- b/x b", "no end"];
    for name in names {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, if name == "no end" { "no end" } else { "--- a/x\n+++ b/y\n\\ \n" }).unwrap();
    }
    std::fs::write(root.join("empty"), "").unwrap();
    std::fs::write(root.join("binary"), [0, 1, 2, 255].repeat(99)).unwrap();
    std::fs::write(root.join("a.txt"), "two").unwrap();
    std::fs::remove_file(root.join("link")).unwrap();
    std::fs::write(root.join("link"), "now a file\n").unwrap();
    git(&root, &["add", "--all"]);
    git(&root, &["update-index", "--chmod=+x", "empty"]);
    let after = git(&root, &["write-tree"]);
    let args = ["diff-tree", "--binary", "--full-index", "--no-renames", "-r", "-p"];
    let diff = |old: &str, new: &str| git(&root, &[&args[..], &[old.trim(), new.trim()]].concat());
    let (there, back) = (diff(&before, &after), diff(&after, &before));
    let read_there = read(&there).unwrap();
    assert_eq!(read_there.len(), names.len() + 4, "{there}");
    let of = |name: &str| read_there.iter().find(|change| change.name == name.as_bytes()).unwrap();
    assert_eq!((of("link").how, of("link").is_link), (How::Changed, true));
    assert!(names.iter().all(|name| of(name).how == How::Made));
    // What is in the checkout now is taken back, and made once more.
    std::fs::remove_file(root.join("empty")).unwrap();
    git(&root, &["checkout-index", "--force", "empty"]);
    let full = everything(&root.join("sub"));
    let state = home.path().join("state");
    assert!(checkout.bring_home(&back, true, &state).unwrap());
    assert!(!root.join("binary").exists() && root.join("link").is_symlink());
    assert!(checkout.bring_home(&there, true, &state).unwrap());
    assert_eq!(everything(&root.join("sub")), full);
    assert_eq!(std::fs::read(root.join("binary")).unwrap().len(), 396);
}

#[test]
fn a_hostile_diff_is_refused_whole_whether_it_is_to_be_applied_or_not() {
    let home = tempfile::tempdir().unwrap();
    let checkout = checkout(home.path());
    let id = home.path().join("id_rsa").display().to_string();
    let copied = |from: &str, git_from: &str| {
        format!(
            "diff --git a/{git_from} b/sub/x.md\nsimilarity index 100%\ncopy from {from}\ncopy to sub/x.md\n"
        )
    };
    let made = |name: &str| {
        format!(
            "diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n"
        )
    };
    let good = made("good");
    let hostile = [
        copied("../id_rsa", "../id_rsa"),
        copied(&id, &id[1..]),
        copied(".git/config", ".git/config"),
        copied("a.txt", "a.txt"),
        "diff --git a/x b/x\nsimilarity index 100%\ncopy from ../id_rsa\ncopy to x\n".into(),
        "diff --git a/a.txt b/b.txt\nsimilarity index 100%\nrename from a.txt\nrename to b.txt\n".into(),
        "diff --git a/x b/x\nnew file mode 100644\ncopy from ../id_rsa\ncopy to x\n".into(),
        "diff --git a/x b/x\nindex 1..2\ncopy from ../id_rsa\ncopy to x\n".into(),
        // Nothing of these is announced by a line of git's.
        "--- a/link\n+++ b/link\n@@ -1 +1 @@\n-a.txt\n\\ No newline at end of file\n+../id_rsa\n\\ No newline at end of file\n".into(),
        "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+two\n".into(),
        format!("{good}--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+two\n"),
        format!("some words before\n{good}"),
        format!("{good}\n"),
        good.replace("@@ -0,0 +1 @@", "@@ -0,0 +1,2 @@"),
        good.replace("+++ b/good", "+++ b/a.txt"),
        good.replace("100644", "160000"),
        good.replace("100644", "040000"),
        good.trim_end().into(),
        made(".git/hooks/pre-commit"),
        made("sub/.GIT/config"),
        made("../x"),
        made("/x"),
        made("x\" y"),
        "diff --git \"a/\\056git/x\" \"b/\\056git/x\"\nnew file mode 100644\n".into(),
        "diff --git \"a/.\\056/x\" \"b/.\\056/x\"\nnew file mode 100644\n".into(),
        format!("diff --git a/d b/d\nnew file mode 120000\nindex 0..1\n--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+..\n\\ No newline at end of file\n{}", made("d/x")),
        "diff --git a/x b/x\nGIT binary patch\nliteral 1\nIcmZ\ncopy from a\n\n".into(),
    ];
    let before = everything(home.path());
    for apply in [true, false] {
        for diff in &hostile {
            let state = tempfile::tempdir().unwrap();
            let whole = format!("{good}{diff}");
            for diff in [diff, &whole] {
                assert!(read(diff).is_err(), "{diff}");
                assert!(!checkout.bring_home(diff, apply, state.path()).unwrap(), "{diff}");
                assert_eq!(everything(home.path()), before, "{diff}");
            }
        }
    }
}

#[test]
fn a_link_that_is_repointed_is_counted_and_named() {
    let diff = "diff --git a/link b/link\nindex 12ab..34cd 120000\n--- a/link\n+++ b/link\n@@ -1 +1 @@\n-a.txt\n\\ No newline at end of file\n+sub\n\\ No newline at end of file\n";
    let changes = read(diff).unwrap();
    assert_eq!(changes, [Change { name: b"link".to_vec(), how: How::Changed, is_link: true }]);
    assert_eq!(super::super::named(&changes), "  changed link (a link)\n");
}
