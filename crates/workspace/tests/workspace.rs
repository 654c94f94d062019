//! The workspace against a real file system, with both ways to resolve paths.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use legwork_workspace::{Error, GrepBounds, Resolver, Root};

const CAP: u64 = 1 << 20;

/// Runs a test on a fresh root with each resolver.
fn each(test: impl Fn(&Root, &Path)) {
    for resolver in [Resolver::Kernel, Resolver::Walk] {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("ws")).unwrap();
        fs::write(base.join("secret"), "secret").unwrap();
        let root = Root::open(&base.join("ws")).unwrap().with_resolver(resolver);
        test(&root, root.path());
    }
}

fn read(root: &Root, path: &str) -> Result<String, String> {
    root.read(path, 0, 0, CAP).map(|d| String::from_utf8(d.data).unwrap()).map_err(|e| e.to_string())
}

#[test]
fn reading_honours_offset_limit_and_cap() {
    each(|root, ws| {
        fs::write(ws.join("f"), "0123456789").unwrap();
        let part = |offset, limit, cap| {
            let d = root.read("f", offset, limit, cap).unwrap();
            (String::from_utf8(d.data).unwrap(), d.total_size)
        };
        assert_eq!(part(0, 0, CAP), ("0123456789".into(), 10));
        assert_eq!(part(3, 4, CAP), ("3456".into(), 10));
        assert_eq!(part(3, 99, CAP), ("3456789".into(), 10));
        assert_eq!(part(99, 0, CAP), (String::new(), 10));
        assert_eq!(part(0, 0, 5), ("01234".into(), 10));
    });
}

#[test]
fn read_errors_are_the_protocols() {
    each(|root, ws| {
        fs::create_dir(ws.join("d")).unwrap();
        let base = ws.display();
        assert_eq!(
            read(root, "none").unwrap_err(),
            format!("failed to stat file: stat {base}/none: no such file or directory")
        );
        assert_eq!(read(root, "d").unwrap_err(), "cannot read a directory: d");
        assert_eq!(read(root, "../secret").unwrap_err(), "path is outside workspace root: ../secret");
        rustix_fifo(&ws.join("pipe"));
        assert_eq!(read(root, "pipe").unwrap_err(), "not a regular file: pipe");
    });
}

fn rustix_fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn links_work_inside_the_root_and_lead_nowhere_else() {
    each(|root, ws| {
        fs::create_dir_all(ws.join("a/b")).unwrap();
        fs::write(ws.join("a/f"), "inside").unwrap();
        symlink("../f", ws.join("a/b/up")).unwrap();
        symlink(ws.join("a"), ws.join("absolute")).unwrap();
        symlink("../secret", ws.join("out")).unwrap();
        symlink("/etc", ws.join("etc")).unwrap();
        symlink("../../..", ws.join("a/b/root")).unwrap();
        symlink("loop", ws.join("loop")).unwrap();
        assert_eq!(read(root, "a/b/up").unwrap(), "inside");
        assert_eq!(read(root, "absolute/f").unwrap(), "inside");
        for path in ["out", "etc/hostname", "a/b/root/secret"] {
            assert_eq!(
                read(root, path).unwrap_err(),
                format!("path escapes workspace root via symlink: {path}")
            );
            assert!(matches!(root.write(path, b"x"), Err(Error::Escapes { .. })), "{path}");
            assert!(matches!(root.open_dir(path), Err(Error::Escapes { .. })), "{path}");
        }
        assert!(read(root, "loop").unwrap_err().contains("too many levels of symbolic links"));
        // Magic links: the kernel's way into any process's files.
        symlink("/proc/self/root", ws.join("magic")).unwrap();
        assert!(read(root, "magic/etc/hostname").is_err());
        assert_eq!(fs::read_to_string(ws.parent().unwrap().join("secret")).unwrap(), "secret");
    });
}

#[test]
fn a_root_is_not_a_prefix() {
    each(|root, ws| {
        let other = format!("{}-other", ws.display());
        fs::create_dir(&other).unwrap();
        fs::write(format!("{other}/f"), "other").unwrap();
        assert!(read(root, &format!("{other}/f")).unwrap_err().contains("no such file"));
    });
}

#[test]
fn writing_creates_parents_and_keeps_modes_and_links() {
    each(|root, ws| {
        root.write("x/y/new", b"1").unwrap();
        assert_eq!(fs::metadata(ws.join("x/y/new")).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(ws.join("x/y")).unwrap().permissions().mode() & 0o777, 0o755);
        fs::write(ws.join("script"), "old").unwrap();
        fs::set_permissions(ws.join("script"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("script", ws.join("link")).unwrap();
        symlink("x/y/late", ws.join("dangling")).unwrap();
        root.write("link", b"new").unwrap();
        root.write("dangling", b"made").unwrap();
        assert_eq!(fs::read_to_string(ws.join("script")).unwrap(), "new");
        assert_eq!(fs::metadata(ws.join("script")).unwrap().permissions().mode() & 0o777, 0o750);
        assert!(fs::symlink_metadata(ws.join("link")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(ws.join("x/y/late")).unwrap(), "made");
        assert_eq!(
            root.write("x", b"").unwrap_err().to_string(),
            format!("open {}/x: is a directory", ws.display())
        );
        assert!(root.write("script/below", b"").unwrap_err().to_string().contains("not a directory"));
        symlink("../gone", ws.join("dangling-out")).unwrap();
        assert!(matches!(root.write("dangling-out", b"x"), Err(Error::Escapes { .. })));
        // Nothing temporary is left behind.
        let left: Vec<_> = fs::read_dir(ws)
            .unwrap()
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().contains("tmp"))
            .collect();
        assert!(left.is_empty());
    });
}

#[test]
fn readers_never_see_half_a_write() {
    each(|root, ws| {
        let done = AtomicBool::new(false);
        root.write("f", &vec![b'a'; 100_000]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..60u8 {
                    root.write("f", &vec![b'a' + i % 2; 100_000]).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let data = fs::read(ws.join("f")).unwrap();
                assert!(data.len() == 100_000 && data.iter().all(|b| *b == data[0]));
            }
        });
    });
}

/// A folder that is swapped for a link to the outside, over and over, while it is
/// read and written through: no byte of the outside is ever seen or changed.
#[test]
fn a_swapped_folder_never_leads_outside() {
    each(|root, ws| {
        let outside = ws.parent().unwrap().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "secret").unwrap();
        fs::create_dir(ws.join("dir")).unwrap();
        fs::write(ws.join("dir/f"), "inside").unwrap();
        symlink(&outside, ws.join("evil")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    use rustix::fs::{CWD, RenameFlags, renameat_with};
                    renameat_with(CWD, ws.join("dir"), CWD, ws.join("evil"), RenameFlags::EXCHANGE).unwrap();
                }
            });
            let (mut inside, mut refused) = (0, 0);
            for _ in 0..4000 {
                match read(root, "dir/f") {
                    Ok(text) => {
                        assert_eq!(text, "inside");
                        inside += 1;
                    }
                    Err(_) => refused += 1,
                }
                let _ = root.write("dir/g", b"x");
                for found in root.glob("dir/*").unwrap() {
                    assert!(found.starts_with("dir"));
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused: no race was run");
        });
        assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "secret");
        assert!(!outside.join("g").exists());
    });
}

fn tree(ws: &Path) {
    for file in ["b/two.txt", "b/.hidden", "a.txt", "b/c/three.md", "z.txt", "node_modules/x/y.txt"] {
        fs::create_dir_all(ws.join(file).parent().unwrap()).unwrap();
        fs::write(ws.join(file), "x").unwrap();
    }
    symlink("/etc", ws.join("b/etc")).unwrap();
    symlink("b", ws.join("link")).unwrap();
}

fn paths(list: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    list.into_iter().map(|p| p.to_string_lossy().into_owned()).collect()
}

#[test]
fn lists_are_ordered_relative_to_the_root_and_pruned() {
    each(|root, ws| {
        tree(ws);
        let list = |path: &str, recursive, ignore: &[&str]| {
            let ignore: Vec<String> = ignore.iter().map(|s| (*s).into()).collect();
            root.list(path, recursive, &ignore).map(|e| paths(e.into_iter().map(|e| e.path)))
        };
        assert_eq!(list("", false, &[]).unwrap(), ["a.txt", "b", "link", "node_modules", "z.txt"]);
        assert_eq!(list("b", false, &[]).unwrap(), ["b", "b/.hidden", "b/c", "b/etc", "b/two.txt"]);
        assert_eq!(list("a.txt", true, &[]).unwrap(), ["a.txt"]);
        assert_eq!(
            list("", true, &["node_*", "*.txt"]).unwrap(),
            ["b", "b/.hidden", "b/c", "b/c/three.md", "b/etc", "link"]
        );
        let link =
            root.list("", false, &[]).unwrap().into_iter().find(|e| e.path == Path::new("link")).unwrap();
        assert_eq!((link.is_dir, link.size), (false, 1));
        assert_eq!(
            list("none", false, &[]).unwrap_err().to_string(),
            format!("failed to list directory: lstat {}/none: no such file or directory", ws.display())
        );
    });
}

#[test]
fn globs_match_as_documented() {
    each(|root, ws| {
        tree(ws);
        let glob = |pattern: &str| root.glob(pattern).map(paths);
        assert_eq!(glob("*.txt").unwrap(), ["a.txt", "z.txt"]);
        assert_eq!(glob("**/*.txt").unwrap(), ["a.txt", "b/two.txt", "node_modules/x/y.txt", "z.txt"]);
        assert_eq!(glob("b/*").unwrap(), ["b/.hidden", "b/c", "b/two.txt"]);
        assert_eq!(glob("b/**").unwrap(), ["b", "b/.hidden", "b/c", "b/c/three.md", "b/two.txt"]);
        assert_eq!(glob("{a,z}.txt").unwrap(), ["a.txt", "z.txt"]);
        assert_eq!(glob("{b/c/*,[az].txt}").unwrap(), ["a.txt", "b/c/three.md", "z.txt"]);
        assert_eq!(glob("link/*.txt").unwrap(), ["link/two.txt"]);
        assert_eq!(glob("?.txt").unwrap(), ["a.txt", "z.txt"]);
        for nothing in ["/etc/*", "../*", "b/../../*", "b/etc/*", "none"] {
            assert!(glob(nothing).unwrap().is_empty(), "{nothing}");
        }
        for bad in ["[", "{a", "a]["] {
            assert_eq!(
                glob(bad).unwrap_err().to_string(),
                "failed to glob: syntax error in pattern",
                "{bad}"
            );
        }
        let many = "{a,b}".repeat(20);
        assert!(matches!(glob(&many), Err(Error::TooMuch { .. })));
    });
}

#[test]
fn grep_finds_what_ripgrep_finds() {
    each(|root, ws| {
        tree(ws);
        fs::write(ws.join("b/two.txt"), "alpha\nBeta 42\ngamma beta\n").unwrap();
        fs::write(ws.join("b/.hidden"), "beta\n").unwrap();
        fs::write(ws.join("ignored.txt"), "beta\n").unwrap();
        fs::write(ws.join(".ignore"), "ignored.txt\n").unwrap();
        fs::write(ws.join("binary"), b"beta\0beta\n").unwrap();
        fs::write(ws.join("latin"), b"beta \xe9\n").unwrap();
        fs::write(ws.parent().unwrap().join("beta"), "beta").unwrap();
        let stop = AtomicBool::new(false);
        let grep = |pattern: &str, include: &[&str]| {
            let include: Vec<String> = include.iter().map(|s| (*s).into()).collect();
            root.grep(pattern, &include, &stop).map(|r| {
                r.matches
                    .into_iter()
                    .map(|m| format!("{}:{}:{}", m.path.display(), m.line_number, m.content))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            grep("beta", &[]).unwrap(),
            ["b/two.txt:2:Beta 42", "b/two.txt:3:gamma beta", "latin:1:beta \u{fffd}"]
        );
        assert_eq!(grep("Beta", &[]).unwrap(), ["b/two.txt:2:Beta 42"]);
        assert_eq!(grep("^g.*a$", &["*.txt"]).unwrap(), ["b/two.txt:3:gamma beta"]);
        assert!(grep("beta", &["!*.txt", "!latin"]).unwrap().is_empty());
        assert!(grep("--pre=id", &[]).unwrap().is_empty());
        assert!(grep("(", &[]).unwrap_err().to_string().starts_with("invalid pattern: "));
        stop.store(true, Ordering::Relaxed);
        assert!(root.grep("beta", &[], &stop).unwrap().stopped);
    });
}

#[test]
fn a_search_for_one_match_holds_one_match() {
    each(|root, ws| {
        fs::write(ws.join("long"), format!("{}\n", "beta".repeat(1000))).unwrap();
        fs::write(ws.join("many"), "beta\n".repeat(1000)).unwrap();
        let stop = AtomicBool::new(false);
        let some = |pattern: &str, matches, bytes, line| {
            let found = root.grep_some(pattern, &[], &stop, GrepBounds { matches, bytes, line }).unwrap();
            (
                found.matches.len(),
                found.matches.iter().map(|m| m.content.len()).max().unwrap_or(0),
                found.stopped,
            )
        };
        assert_eq!(some("^beta$", 1, 1 << 20, 100), (1, 4, true));
        assert_eq!(some("^beta$", 1000, 1 << 20, 100), (1000, 4, false));
        assert_eq!(some("betabeta", 10, 1 << 20, 100), (1, 100, false));
        let (found, _, stopped) = some("^beta$", usize::MAX, 1000, 100);
        assert!(stopped && found < 20, "{found}");
        assert_eq!(some("nothing", 1, 1, 1), (0, 0, false));
        assert!(root.glob_some("*", 1).unwrap().1);
        assert_eq!(root.glob_some("*", 1).unwrap().0.len(), 1);
        assert!(!root.glob_some("{long,many}", 2).unwrap().1);
        // A pattern must not stand for gigabytes.
        assert!(root.glob_some(&format!("{}{}", "x".repeat(1 << 20), "{a,b}".repeat(10)), 1).is_err());
    });
}

#[test]
fn a_root_that_was_deleted_and_made_again_works_again() {
    each(|root, ws| {
        fs::write(ws.join("f"), "1").unwrap();
        fs::remove_dir_all(ws).unwrap();
        assert!(read(root, "f").is_err());
        assert!(root.grep("x", &[], &AtomicBool::new(false)).is_err());
        fs::create_dir(ws).unwrap();
        fs::write(ws.join("f"), "2").unwrap();
        assert_eq!(read(root, "f").unwrap(), "2");
    });
}
