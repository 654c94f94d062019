//! Hosts of other kinds than the usual: other login shells, dropbear with nothing but busybox, doas,
//! a sudo that wants a terminal, files that print at each login.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use legwork_e2e::DEADLINE;
use legwork_e2e::sshd::Sshd;

/// Whether a test can be made here: it needs root, and these programs.
fn can(programs: &[&str]) -> bool {
    let missing = |program: &&&str| {
        ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
            .iter()
            .all(|folder| !Path::new(folder).join(program).exists())
    };
    let missing = programs.iter().find(missing);
    if let Some(program) = missing {
        eprintln!("NOT CHECKED HERE: there is no {program}");
    } else if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED HERE: a host of another kind needs root");
        return false;
    }
    missing.is_none()
}

/// Gives a user of the host another login shell.
fn set_shell(dir: &Path, user: &str, shell: &str, home: &str) {
    let file = dir.join("passwd");
    let text = std::fs::read_to_string(&file).unwrap();
    let line = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
        [name, x, uid, gid, gecos, ..] if name == user => {
            format!("{name}:{x}:{uid}:{gid}:{gecos}:{home}:{shell}\n")
        }
        _ => format!("{line}\n"),
    };
    std::fs::write(&file, text.lines().map(line).collect::<String>()).unwrap();
}

/// What a host does whatever it is: runs commands, takes and gives files, tells of itself.
async fn works(sshd: &Sshd, host: &str, dir: &Path) {
    let hard = "printf '%s|' \"a  b\" 'c$d' `echo e` \"it's\" é; cat; exit 7";
    let mut child = sshd
        .legwork(&[host, "--", hard])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().unwrap(), b"input").await.unwrap();
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(7), "a  b|c$d|e|it's|é|input"), "{host}: {err}");
    let from = dir.join("source").display().to_string();
    std::fs::write(&from, vec![b'x'; 7_000_000]).unwrap();
    let name = format!("/tmp/legwork test '{}'", host.replace(['@', '/'], "-"));
    let back = dir.join("back").display().to_string();
    for args in [
        &["cp", &from, &format!("{host}:{name}")][..],
        &["cp", &format!("{host}:{name}"), &back],
        &["file", "line", host, "--line", "last", "--", &name],
        &["facts", host],
        &[host, "--", "rm", &name],
    ] {
        let (status, out, err) = sshd.ssh(args).await;
        assert_eq!(status, 0, "{args:?}: {out} {err}");
    }
    assert_eq!(std::fs::metadata(&back).unwrap().len(), 7_000_000);
}

#[tokio::test]
async fn login_shells_that_are_no_posix_shells_and_talk_are_no_hindrance() {
    if !can(&["fish", "tcsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start_as_host(dir.path(), "Banner /etc/passwd\n").await;
    let home = dir.path().join("home");
    std::fs::create_dir_all(home.join(".config/fish")).unwrap();
    std::fs::write(home.join(".config/fish/config.fish"), "echo Welcome, {\"type\": 1}\n").unwrap();
    std::fs::write(home.join(".cshrc"), "echo 'Welcome $HOME'\n").unwrap();
    std::process::Command::new("chown").args(["-R", "4242:4242"]).arg(&home).status().unwrap();
    std::process::Command::new("chmod").args(["-R", "a+rwX"]).arg(&home).status().unwrap();
    let home = home.display().to_string();
    for shell in ["/usr/bin/fish", "/usr/bin/tcsh"] {
        set_shell(dir.path(), "deploy", shell, &home);
        let host = format!("deploy@{}", shell.rsplit('/').next().unwrap());
        works(&sshd, &host, dir.path()).await;
    }
}

/// A host of which busybox is all there is, but dropbear.
async fn busybox(dir: &Path) -> (Sshd, tokio::process::Child) {
    let sshd = Sshd::start(dir).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = format!(
        "set -e; cd '{dir}'; mkdir -p root/bin root/etc root/proc root/dev root/tmp root/root/.ssh root/usr/lib root/usr/lib64\n\
         chmod 1777 root/tmp; chmod 700 root/root root/root/.ssh\n\
         cp \"$(command -v busybox)\" root/bin/busybox; cp \"$(command -v dropbear)\" root/bin/dropbear\n\
         for l in lib lib64; do mount --bind /usr/$l root/usr/$l; ln -s usr/$l root/$l; done\n\
         mount -t proc proc root/proc; for d in null zero urandom; do touch root/dev/$d; mount --bind /dev/$d root/dev/$d; done\n\
         chroot root /bin/busybox --install -s /bin\n\
         echo root:x:0:0::/root:/bin/sh >root/etc/passwd; echo root:x:0: >root/etc/group; echo /bin/sh >root/etc/shells\n\
         cp id.pub root/root/.ssh/authorized_keys; chmod 600 root/root/.ssh/authorized_keys\n\
         dropbearkey -t ed25519 -f root/etc/key >/dev/null 2>&1\n\
         exec chroot root /bin/dropbear -F -E -s -r /etc/key -p 127.0.0.1:{free}",
        dir = dir.display()
    );
    let log = std::fs::File::create(dir.join("dropbear.log")).unwrap();
    let mut child = tokio::process::Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", free)).await.is_err() {
        let said = std::fs::read_to_string(dir.join("dropbear.log")).unwrap_or_default();
        assert!(begun.elapsed() < DEADLINE && child.try_wait().unwrap().is_none(), "no dropbear: {said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let config = std::fs::read_to_string(sshd.config()).unwrap();
    let known = format!("UserKnownHostsFile {}", dir.join("known-too").display());
    let other = format!("Host busybox*\n  Port {free}\n  User root\n  {known}\n{config}");
    std::fs::write(sshd.config(), other).unwrap();
    (sshd, child)
}

#[tokio::test]
async fn a_host_with_dropbear_and_busybox_alone_is_a_host_like_any() {
    if !can(&["dropbear", "dropbearkey", "busybox"]) {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (sshd, _child) = busybox(dir.path()).await;
    let (status, out, err) = sshd.ssh(&["busybox1", "--", "ls -l /bin/ls; ls /usr"]).await;
    assert!(status == 0 && out.contains("busybox") && !out.contains("bin\n"), "{out} {err}");
    works(&sshd, "busybox1", dir.path()).await;
    let site = dir.path().join("site");
    std::fs::create_dir_all(site.join("sub")).unwrap();
    std::fs::write(site.join("sub/file"), "x").unwrap();
    std::os::unix::fs::symlink("sub/file", site.join("link")).unwrap();
    let site = site.display().to_string();
    let (status, out, err) = sshd.ssh(&["sync", "--delete", &site, "busybox1:/tmp/site"]).await;
    assert_eq!(status, 0, "{out} {err}");
    let (_, out, _) = sshd.ssh(&["busybox1", "--", "cat /tmp/site/link; readlink /tmp/site/link"]).await;
    assert_eq!(out, "xsub/file\n");
    // A command that runs out of time ends there, too.
    let (status, _, _) = sshd.ssh(&["-t", "1", "busybox1", "--", "sleep 321 & sleep 321"]).await;
    assert_eq!(status, 124);
    let (_, out, _) = sshd.ssh(&["busybox1", "--", "ps | grep -c '[s]leep 321'"]).await;
    assert_eq!(out.trim(), "0");
}

#[tokio::test]
async fn doas_makes_root_and_never_asks() {
    if !can(&["doas"]) {
        return;
    }
    for (rule, works) in [("permit nopass deploy", true), ("permit deploy", false), ("deny deploy", false)] {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "cp -a /etc '{dir}/etc'; mount --bind '{dir}/etc' /etc; echo 'deploy:x:4242:4242::/tmp:/bin/sh' >>/etc/passwd\n\
             echo 'deploy:*:19000:0:99999:7:::' >>/etc/shadow; echo '{rule}' >/etc/doas.conf; chmod 600 /etc/doas.conf\n\
             chmod 755 '{dir}'",
            dir = dir.path().display()
        );
        let sshd = Sshd::start_in(dir.path(), Some(&script)).await;
        let (status, out, err) = sshd.ssh(&["--become-method", "doas", "deploy@h1", "--", "id -un"]).await;
        if !works {
            assert!(status != 0 && !out.contains("root") && !err.is_empty(), "{rule}: {status} {out} {err}");
            continue;
        }
        assert_eq!((status, out.as_str()), (0, "root\n"), "{err}");
        let file = dir.path().join("of-root").display().to_string();
        let write = [
            "file",
            "write",
            "--become-method",
            "doas",
            "deploy@h1",
            "--mode",
            "0600",
            "--content",
            "x",
            "--",
            &file,
        ];
        let (status, _, err) = sshd.ssh(&write).await;
        let found = std::fs::metadata(&file).map(|found| std::os::unix::fs::MetadataExt::uid(&found)).ok();
        assert_eq!((status, found), (0, Some(0)), "{err}");
        let inventory = dir.path().join("hosts").display().to_string();
        std::fs::write(&inventory, "h1 ansible_user=deploy ansible_become=yes ansible_become_method=doas\n")
            .unwrap();
        let config = std::fs::read_to_string(sshd.config()).unwrap();
        let config: String =
            config.lines().filter(|line| !line.contains("User ")).map(|line| format!("{line}\n")).collect();
        std::fs::write(sshd.config(), config).unwrap();
        let (status, out, err) = sshd.ssh(&["-i", &inventory, "@all", "--", "id -un"]).await;
        assert_eq!((status, out.as_str()), (0, "root\n"), "{err}");
    }
}

#[tokio::test]
async fn a_sudo_that_wants_a_terminal_says_so() {
    if !can(&["sudo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sshd = Sshd::start_as_host(dir.path(), "").await;
    let rules = "Defaults requiretty\ndeploy ALL=(ALL) NOPASSWD: ALL\n";
    std::fs::write(dir.path().join("sudoers"), rules).unwrap();
    let (status, _, err) = sshd.ssh(&["--sudo", "deploy@h1", "--", "true"]).await;
    assert!(status != 0 && err.contains("tty"), "{status} {err}");
}
