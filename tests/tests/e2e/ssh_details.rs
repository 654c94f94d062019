//! What an engineer sees of `legwork ssh` beside plain ssh, scp and sudo, on a real sshd.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use legwork_e2e::DEADLINE;
use legwork_e2e::micro::dist;
use legwork_e2e::sshd::Sshd;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT CHECKED HERE: a host with users of its own needs root");
    }
    root
}

#[tokio::test]
async fn what_is_so_already_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let local = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(local("small"), "small\n").unwrap();
    std::fs::write(local("large"), vec![7u8; 7_000_000]).unwrap();
    for name in ["small", "large"] {
        let there = dir.path().join(format!("there/{name}"));
        let to = format!("h1:{}", there.display());
        let cp = async |more: &[&str]| {
            let from = local(name);
            let args = [&["cp", "--json", &from, &to][..], more].concat();
            let (status, out, err) = sshd.ssh(&args).await;
            assert_eq!(status, 0, "{out} {err}");
            json(&out)["hosts"][0]["changed"].clone()
        };
        assert_eq!(cp(&["--dry-run"]).await, true, "{name}");
        assert!(!there.exists());
        assert_eq!(cp(&[]).await, true, "{name}");
        let before = std::fs::metadata(&there).unwrap();
        assert_eq!((cp(&[]).await, cp(&["--dry-run"]).await), (false.into(), false.into()), "{name}");
        let after = std::fs::metadata(&there).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "{name}");
        // Other permissions are a change, and then none.
        assert_eq!((cp(&["--mode", "0600"]).await, mode(&there)), (true.into(), 0o600), "{name}");
        assert_eq!(cp(&["--mode", "0600"]).await, false, "{name}");
    }
    let written = local("written");
    for (content, state) in [("a", "created"), ("a", "unchanged"), ("b", "written"), ("b", "unchanged")] {
        let args = ["file", "write", "h1", "--backup", "--content", content, "--", &written];
        let (_, out, _) = sshd.ssh(&args).await;
        assert!(out.contains(state), "{out}");
        let dry = [&args[..3], &["--dry-run", "--json"], &args[3..]].concat();
        let all = json(&sshd.ssh(&dry).await.1);
        assert_eq!(all["hosts"][0]["changed"], false, "{all}");
    }
    assert_eq!(std::fs::read_to_string(local("written.bak")).unwrap(), "a");
}

#[tokio::test]
async fn a_replaced_file_keeps_its_attributes_and_access_list() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let sshd = Sshd::start(dir.path()).await;
    // Owner rw, user 4242 r, group r, mask r, others nothing.
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 4242), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    for (name, size) in [("small", 10), ("large", 7_000_000)] {
        let (file, from) = (dir.path().join(name), dir.path().join(format!("{name}.new")));
        std::fs::write(&file, "old").unwrap();
        std::fs::write(&from, vec![b'n'; size]).unwrap();
        let set = |name: &str, value: &[u8]| setxattr(&file, name, value, XattrFlags::empty());
        if set("user.note", b"kept").is_err() || set("system.posix_acl_access", &list).is_err() {
            eprintln!("NOT CHECKED HERE: /var/tmp has no extended attributes");
            return;
        }
        let to = format!("h1:{}", file.display());
        let (status, out, err) = sshd.ssh(&["cp", "--mode", "0640", &from.display().to_string(), &to]).await;
        assert_eq!(status, 0, "{out} {err}");
        assert_eq!(std::fs::metadata(&file).unwrap().len(), size as u64);
        let get = |name: &str| {
            let mut value = [0u8; 256];
            let length = getxattr(&file, name, &mut value[..]).unwrap();
            value[..length].to_vec()
        };
        assert_eq!(
            (get("user.note"), get("system.posix_acl_access")),
            (b"kept".to_vec(), list.clone()),
            "{name}"
        );
        assert_eq!(mode(&file), 0o640);
    }
}

#[tokio::test]
async fn a_key_that_is_copied_here_is_nobody_elses_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    for (name, bits) in [("KEY", 0o600), ("read-only", 0o400), ("script", 0o755)] {
        let there = dir.path().join(name);
        std::fs::write(&there, "secret").unwrap();
        std::fs::set_permissions(&there, std::fs::Permissions::from_mode(bits)).unwrap();
        let back = dir.path().join(format!("back/{name}"));
        let back_text = back.display().to_string();
        let (status, _, err) = sshd.ssh(&["cp", &format!("h1:{}", there.display()), &back_text]).await;
        assert_eq!((status, mode(&back) & !0o022), (0, bits & !0o022), "{err}");
        // Over one that was wide open, too.
        std::fs::set_permissions(&back, std::fs::Permissions::from_mode(0o666)).unwrap();
        sshd.ssh(&["cp", &format!("h1:{}", there.display()), &back_text]).await;
        assert_eq!(mode(&back) & !0o022, bits & !0o022);
    }
}

#[tokio::test]
async fn a_tilde_is_the_home_on_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let from = dir.path().join("f").display().to_string();
    std::fs::write(&from, "x").unwrap();
    let home = dir.path().join("home");
    assert_eq!(sshd.ssh(&["cp", &from, "h1:~/sub/x"]).await.0, 0);
    // A folder that is there, with and without a slash.
    for to in ["h1:~", "h1:~/sub", "h1:~/other/"] {
        let (status, _, err) = sshd.ssh(&["cp", &from, to]).await;
        assert_eq!(status, 0, "{to}: {err}");
    }
    for file in ["sub/x", "f", "sub/f", "other/f"] {
        assert!(home.join(file).exists(), "{file}");
    }
    let back = dir.path().join("back").display().to_string();
    assert_eq!(sshd.ssh(&["cp", "h1:~/sub/x", &back]).await.0, 0);
    assert_eq!(sshd.ssh(&["file", "read", "h1", "--", "~/sub/x"]).await.1, "x");
    let (status, _, err) = sshd.ssh(&["cp", &from, "h1:~nobody.here/x"]).await;
    assert!(status == 1 && err.contains("no user nobody.here"), "{err}");
    assert!(!Path::new("~").exists() && !home.join("~").exists());
}

#[tokio::test]
async fn hosts_and_options_are_written_as_for_ssh() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start_as_host(dir.path(), "AddressFamily any\nListenAddress ::1\n").await;
    // A configuration that helps with nothing but the known hosts.
    let config = dir.path().join("bare");
    let known = dir.path().join("known").display().to_string();
    let bare = format!(
        "Host jump\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\nHost *\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {known}\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n",
        sshd.port,
        dir.path().join("id").display()
    );
    std::fs::write(&config, bare).unwrap();
    let (port, key) = (sshd.port.to_string(), dir.path().join("id").display().to_string());
    let inventory = dir.path().join("inventory.yaml");
    std::fs::write(&inventory, format!("hosts:\n  named: {{address: 127.0.0.1, port: {port}}}\n")).unwrap();
    let inventory = inventory.display().to_string();
    let config = config.display().to_string();
    let url = format!("ssh://deploy@127.0.0.1:{port}");
    let brackets = format!("deploy@[::1]:{port}");
    let run = async |args: &[&str]| {
        let mut command = legwork_e2e::legwork(dir.path());
        command.arg("ssh").args(args).env("LEGWORK_SSH_PERSIST", "5").env("LEGWORK_MICRO_DIR", dist());
        let output = tokio::time::timeout(DEADLINE, command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    };
    for (args, user) in [
        (&["-p", &port, "-l", "deploy", "-i", &key, "127.0.0.1"][..], "deploy"),
        (&["-i", &key, &url], "deploy"),
        (&["-i", &key, &brackets], "deploy"),
        (&["-i", &key, "-p", &port, "[::1]"], "root"),
        (&["-i", &key, "-p", &port, "-J", "jump", "127.0.0.1"], "root"),
        (&["-i", &key, "-p", &port, "DOM+me@127.0.0.1"], "DOM+me"),
        (&["-i", &inventory, "-i", &key, "-l", "root", "named"], "root"),
    ] {
        let args = [&["-F", &config][..], args, &["--", "whoami"]].concat();
        let (status, out, err) = run(&args).await;
        assert_eq!((status, out.trim()), (0, user), "{args:?}: {err}");
    }
    let copied = dir.path().join("copied");
    let to = format!("[::1]:{}", copied.display());
    let (status, _, err) = run(&["cp", "-F", &config, "-i", &key, "-p", &port, &key, &to]).await;
    assert_eq!((status, copied.exists()), (0, true), "{err}");
}

#[tokio::test]
async fn a_long_home_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let home = dir.path().join("x".repeat(100));
    std::fs::create_dir(&home).unwrap();
    let mut command = sshd.legwork(&["h1", "--", "echo here"]);
    let output = command.env("HOME", &home).env_remove("XDG_RUNTIME_DIR").output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stdout), "here\n", "{}", text(&output.stderr));
}

#[tokio::test]
async fn standard_input_reaches_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let run = async |args: &[&str], input: &[u8]| {
        let mut command = sshd.legwork(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writing = tokio::spawn(async move {
            let _ = stdin.write_all(&input).await;
        });
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
        writing.abort();
        (output.status.code(), output.stdout)
    };
    assert_eq!(run(&["h1", "--", "cat"], b"a\n\xff\0b").await, (Some(0), b"a\n\xff\0b".to_vec()));
    // More than fits anywhere on the way, cold and warm, echoed while it comes.
    let large: Vec<u8> = (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..2 {
        let (status, out) = run(&["h1", "--", "cat"], &large).await;
        assert!(status == Some(0) && out == large, "{status:?}: {} bytes", out.len());
    }
    // One that reads only the start, and one that reads nothing, end all the same.
    assert_eq!(run(&["h1", "--", "head -c 3"], &large).await, (Some(0), large[..3].to_vec()));
    assert_eq!(run(&["h1", "--", "exit 4"], &large).await.0, Some(4));
    assert_eq!(run(&["-n", "h1", "--", "cat"], b"unseen").await, (Some(0), Vec::new()));
    // It stays open: nobody waits for its end.
    let mut command = sshd.legwork(&["h1", "--", "echo done"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let held = child.stdin.take();
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.stdout, b"done\n");
    drop(held);
}

#[tokio::test]
async fn a_rule_for_one_command_is_enough_for_it() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start_as_host(dir.path(), "").await;
    // Made by our own hand, and then all that deploy has.
    let (status, out, err) = sshd
        .ssh(&[
            "sudoers",
            "root@h1",
            "--user",
            "deploy",
            "--command",
            "/usr/bin/id",
            "--command",
            "/bin/echo a b",
            "--no-password",
        ])
        .await;
    assert_eq!(status, 0, "{out} {err}");
    let rule = std::fs::read_to_string(dir.path().join("sudoers.d/froyo-deploy")).unwrap();
    std::fs::write(dir.path().join("sudoers"), format!("Defaults !lecture\n{rule}")).unwrap();
    for (command, expected) in [
        (&["id", "-u"][..], "0\n"),
        (&["id -u"], "0\n"),
        (&["/bin/echo", "a", "b"], "a b\n"),
        (&["id", "-un"], "root\n"),
    ] {
        let args = [&["deploy@h1", "--sudo", "--"], command].concat();
        let (status, out, err) = sshd.ssh(&args).await;
        assert_eq!((status, out.as_str()), (0, expected), "{command:?}: {err}");
    }
    for command in [&["whoami"][..], &["id -u; whoami"], &["/bin/echo", "c"]] {
        let args = [&["deploy@h1", "--sudo", "--"], command].concat();
        let (status, out, _) = sshd.ssh(&args).await;
        assert_eq!((status, out.as_str()), (1, ""), "{command:?}");
    }
}

#[tokio::test]
async fn a_sudo_that_remembers_nothing_is_told_each_time() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start_as_host(dir.path(), "").await;
    let hash = std::process::Command::new("openssl").args(["passwd", "-6", "hunter2"]).output().unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    let shadow = dir.path().join("shadow");
    let text = std::fs::read_to_string(&shadow).unwrap();
    std::fs::write(&shadow, text.replace("deploy:*:", &format!("deploy:{}:", hash.trim()))).unwrap();
    std::fs::write(dir.path().join("password"), "hunter2\n").unwrap();
    let password = dir.path().join("password").display().to_string();
    for rule in ["deploy ALL=(ALL) ALL", "deploy ALL=(ALL) ALL, NOPASSWD: /usr/bin/cat"] {
        let sudoers = format!("Defaults !lecture, timestamp_timeout=0\n{rule}\n");
        std::fs::write(dir.path().join("sudoers"), sudoers).unwrap();
        let by = ["deploy@h1", "--sudo", "--sudo-password-file", &password];
        let (status, out, err) = sshd.ssh(&[&by[..], &["--", "id -u; cat"]].concat()).await;
        assert_eq!((status, out.as_str()), (0, "0\n"), "{rule}: {err}");
        // The password is nobody's input, also where sudo does not ask.
        let (status, out, err) = sshd.ssh(&[&by[..], &["--", "/usr/bin/cat"]].concat()).await;
        assert_eq!((status, out.as_str()), (0, ""), "{rule}: {err}");
        let file = dir.path().join("of-root").display().to_string();
        let write =
            [&["file", "write"], &by[..], &["--mode", "0600", "--content", "x", "--", &file]].concat();
        assert_eq!(sshd.ssh(&write).await.0, 0);
        assert_eq!(std::fs::metadata(&file).unwrap().uid(), 0);
        // What runs as root is ended all the same.
        let late = [&by[..], &["--timeout", "1", "--", "sleep 4711"]].concat();
        assert_eq!(sshd.ssh(&late).await.0, 124);
        assert_eq!(sshd.ssh(&["root@h1", "--", "pgrep -fx 'sleep 4711'"]).await.1, "");
        // The password is not left anywhere.
        let left = sshd
            .ssh(&["root@h1", "--", "ls -A /dev/shm | grep legwork-sudo; grep -rsl hunter2 /dev/shm"])
            .await;
        assert_eq!(left.1, "");
    }
}

#[tokio::test]
async fn a_host_that_is_too_busy_for_a_login_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut sshd = Sshd::start(dir.path()).await;
    sshd.configure("MaxStartups", "2:100:2").await;
    let (status, out, err) = sshd
        .ssh(&["h[1-8]", "-P", "8", "--persist", "0", "--json", "--connect-retries", "8", "--", "true"])
        .await;
    assert_eq!((status, &json(&out)["summary"]["succeeded"]), (0, &8.into()), "{out} {err}");
    // That it was so is seen where nobody asks again.
    let (status, out, _) = sshd
        .ssh(&["h[1-8]", "-P", "8", "--persist", "0", "--json", "--connect-retries", "0", "--", "true"])
        .await;
    if status == 0 {
        eprintln!("NOT CHECKED HERE: this machine logs in too fast to be refused: {out}");
    }
}

#[tokio::test]
async fn output_that_was_cut_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let script = "head -c 5000000 /dev/zero | tr '\\0' x";
    let (status, out, _) = sshd.ssh(&["h1", "--json", "--", script]).await;
    let host = &json(&out)["hosts"][0];
    assert_eq!((status, &host["stdout_truncated"], host.get("stderr_truncated")), (0, &true.into(), None));
    let (_, _, err) = sshd.ssh(&["h[1-2]", "--group", "--", script]).await;
    assert_eq!(err.matches("only the first part of stdout was kept").count(), 4, "{err}");
    // Live, all of it comes.
    assert_eq!(sshd.ssh(&["h1", "--", script]).await.1.len(), 5_000_000);
}

#[tokio::test]
async fn many_short_lines_come_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let script = "seq 300000; printf '\\377\\n\\n'; seq 5; printf end";
    let output = sshd.legwork(&["h1", "--", script]).output().await.unwrap();
    let mut expected: Vec<u8> = (1..=300_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    expected.extend(b"\xff\n\n1\n2\n3\n4\n5\nend");
    assert!(output.stdout == expected, "{} bytes for {}", output.stdout.len(), expected.len());
    // Each with its host before it, if there are several.
    let (_, out, _) = sshd.ssh(&["h[1-2]", "--", "seq 3; echo; printf x"]).await;
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    let both =
        ["h1 | ", "h1 | 1", "h1 | 2", "h1 | 3", "h1 | x", "h2 | ", "h2 | 1", "h2 | 2", "h2 | 3", "h2 | x"];
    assert_eq!(lines, both);
}

#[tokio::test]
async fn one_that_fails_hides_nothing_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut sshd = Sshd::start(dir.path()).await;
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let double = "#!/bin/sh\nfor unit in \"$@\"; do :; done\necho \"$1 $unit\" >>\"$HOME/log\"\n\
                  case $1-$unit in restart-bad) echo 'bad is bad' >&2; exit 1;; is-active-*) echo active;; *) echo;; esac\n";
    std::fs::write(bin.join("systemctl"), double).unwrap();
    std::fs::set_permissions(bin.join("systemctl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    sshd.set_env(&[("PATH", &format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()))]).await;
    let (status, out, err) = sshd.ssh(&["service", "restart", "h1", "--", "first", "bad", "last"]).await;
    assert_eq!(status, 1, "{out} {err}");
    assert!(
        out.contains("first: restarted") && out.contains("last: restarted") && !out.contains("bad:"),
        "{out}"
    );
    assert!(err.contains("bad: failed to restart service") && err.contains("bad is bad"), "{err}");
    let (_, out, _) = sshd.ssh(&["service", "restart", "h1", "--json", "--", "first", "bad", "last"]).await;
    let host = &json(&out)["hosts"][0];
    assert_eq!((&host["state"], host["results"].as_array().unwrap().len()), (&"failed".into(), 2), "{host}");
    assert_eq!(host["changed"], true);
}

#[tokio::test]
async fn what_would_change_in_a_file_is_shown_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let (new, there) = (dir.path().join("new"), dir.path().join("there"));
    std::fs::write(&new, "port 80\nname b\n").unwrap();
    std::fs::write(&there, "port 80\nname a\n").unwrap();
    let (from, to) = (new.display().to_string(), format!("h1:{}", there.display()));
    let expected =
        format!("--- {0}\n+++ {0}\n@@ -1,2 +1,2 @@\n port 80\n-name a\n+name b\n", there.display());
    let (_, out, err) = sshd.ssh(&["cp", "--diff", "--dry-run", &from, &to]).await;
    assert!(out.ends_with(&expected), "{out} {err}");
    let path = there.display().to_string();
    let write = ["file", "write", "h1", "--diff", "--from", &from, "--dry-run", "--", &path];
    assert!(sshd.ssh(&write).await.1.ends_with(&expected));
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "port 80\nname a\n");
    assert!(sshd.ssh(&["cp", "--diff", &from, &to]).await.1.ends_with(&expected));
    assert!(!sshd.ssh(&["cp", "--diff", &from, &to]).await.1.contains("---"));
}

#[tokio::test]
async fn a_command_runs_as_whoever_it_is_to_run_as() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start_as_host(dir.path(), "").await;
    let password = |user: &str, word: &str| {
        let hash = std::process::Command::new("openssl").args(["passwd", "-6", word]).output().unwrap();
        let hash = String::from_utf8(hash.stdout).unwrap();
        let shadow = dir.path().join("shadow");
        let text = std::fs::read_to_string(&shadow).unwrap();
        let line = |line: &str| match line.strip_prefix(&format!("{user}:")) {
            Some(rest) => format!("{user}:{}:{}\n", hash.trim(), rest.split_once(':').unwrap().1),
            None => format!("{line}\n"),
        };
        std::fs::write(&shadow, text.lines().map(line).collect::<String>()).unwrap();
    };
    password("root", "hunter2");
    let file = dir.path().join("password").display().to_string();
    std::fs::write(&file, "hunter2\n").unwrap();
    let who = "echo $(id -un) $(cat)";
    for (args, expected) in [
        // By sudo, without a password.
        (&["deploy@h1", "--become-user", "DOM+me"][..], "DOM+me"),
        (&["deploy@h1", "--become-user", "root"], "root"),
        // root needs nobody's leave.
        (&["root@h1", "--become-user", "deploy"], "deploy"),
        (&["root@h1", "--become-user", "DOM+me", "--become-method", "su"], "DOM+me"),
        // By su, with the other's password, which is not the command's input.
        (&["deploy@h1", "--become-method", "su", "--sudo-password-file", &file], "root"),
    ] {
        let args = [args, &["-n", "--", who]].concat();
        let (status, out, err) = sshd.ssh(&args).await;
        assert_eq!((status, out.trim()), (0, expected), "{args:?}: {err}");
    }
    let target = dir.path().join("of-root").display().to_string();
    let by_su = ["file", "write", "deploy@h1", "--become-method", "su", "--sudo-password-file", &file];
    let (status, _, err) = sshd.ssh(&[&by_su[..], &["--content", "x", "--", &target]].concat()).await;
    assert_eq!((status, std::fs::metadata(&target).map(|found| found.uid()).ok()), (0, Some(0)), "{err}");
    let hostile = ["deploy@h1", "--become-user", "-x", "--", "true"];
    assert_ne!(sshd.ssh(&hostile).await.0, 0);
}

#[tokio::test]
async fn a_command_has_its_environment_folder_and_shell() {
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    let run = async |args: &[&str]| {
        let (status, out, err) = sshd.ssh(args).await;
        assert_eq!(status, 0, "{args:?}: {err}");
        out
    };
    let env = ["h1", "--env", "A=b c$(id)", "--env", "EMPTY=", "--", "echo \"$A|$EMPTY|$HOME\""];
    assert_eq!(run(&env).await, format!("b c$(id)||{}\n", dir.path().join("home").display()));
    assert_eq!(run(&["h1", "--chdir", "/usr/bin", "--", "pwd"]).await, "/usr/bin\n");
    assert_eq!(
        run(&["h1", "--shell", "/bin/bash", "--", "echo ${BASH_VERSION%%.*} $((2**3))"])
            .await
            .split(' ')
            .nth(1),
        Some("8\n")
    );
    for bad in ["NO", "=x", "A B=c", "1A=b"] {
        let (status, _, err) = sshd.ssh(&["h1", "--env", bad, "--", "true"]).await;
        assert!(status != 0 && err.contains("--env"), "{bad}: {err}");
    }
    let script = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let plain = script("plain", "echo \"$0 $# $1\"; exit 3\n");
    let (status, out, _) = sshd.ssh(&["h1", "--script", &plain, "--", "a b", "c"]).await;
    assert_eq!((status, out.as_str()), (3, "plain 2 a b\n"));
    let bash = script("bash", "#!/usr/bin/env bash\necho \"${1^^}\"; [[ -n $A ]] && echo $A\n");
    assert_eq!(run(&["h1", "--env", "A=x", "--script", &bash, "--", "up"]).await, "UP\nx\n");
    let python = script("python", "#!/usr/bin/python3\nimport sys\nprint(sys.argv[1:])\n");
    if Path::new("/usr/bin/python3").exists() {
        assert_eq!(run(&["h1", "--script", &python, "--", "it's"]).await, "[\"it's\"]\n");
    }
    assert_eq!(run(&["h1", "--script", &script("none", "echo alone")]).await, "alone\n");
}

#[tokio::test]
async fn a_reader_that_goes_ends_what_runs_on_the_host() {
    use tokio::io::AsyncReadExt;
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(dir.path()).await;
    for (line, first) in [("yes", "y"), ("echo y; exec sleep 86311", "y")] {
        let mut child = sshd.legwork(&["h1", "--", line]).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut byte = [0];
        out.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, first.as_bytes(), "{line}");
        drop(out);
        let ended = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it ends").unwrap();
        assert_eq!(ended.code(), Some(141), "{line}");
    }
    // The command that says nothing more has ended with its reader as well.
    let left = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\x0086311\0")
        })
    };
    let start = std::time::Instant::now();
    while left() {
        assert!(start.elapsed() < DEADLINE, "it goes on");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
