//! `legwork ssh` and the library behind it, against a real sshd.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_e2e::micro::{dist, is_alive, until_gone};
use legwork_e2e::proxy::Proxy;
use legwork_e2e::sshd::Sshd;
use legwork_e2e::{DEADLINE, until};
use legwork_remote::{
    Binaries, Call, Client, CommandType, Error, Exec, FileRead, FileWrite, Local, Options, PkgEnsure,
    ServiceReload, Ssh, SshdHarden, SudoersEnsure, Template, Transport,
};
use serde_json::Value;

/// The folders of runners on this host that hold a file of a test's binary.
fn folders_in(base: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".legwork-"))
        .collect()
}

/// An sshd whose sessions have a /tmp of their own, so that what is left there can be seen.
async fn host(dir: &Path) -> (Sshd, PathBuf) {
    let tmp = dir.join("tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    let mut sshd = Sshd::start(dir).await;
    sshd.set_env(&[("TMPDIR", tmp.to_str().unwrap())]).await;
    (sshd, tmp)
}

#[tokio::test]
async fn a_command_runs_as_if_it_ran_here() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, tmp) = host(dir.path()).await;
    let (status, out, err) = sshd.ssh(&["h1", "--", "echo out; echo err >&2; printf end; exit 3"]).await;
    assert_eq!((status, out.as_str(), err.as_str()), (3, "out\nend", "err\n"));
    // The second time finds connection and runner.
    let before = folders_in(&tmp);
    assert_eq!(before.len(), 1);
    let (status, out, _) = sshd.ssh(&["h1", "--", "echo", "a b", "$HOME"]).await;
    assert_eq!((status, out.as_str()), (0, "a b $HOME\n"));
    assert_eq!(folders_in(&tmp), before);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&before[0]).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o700);
    assert_eq!(sshd.ssh(&["h1", "--", "kill -9 $$"]).await.0, 137);
    let (status, _, err) = sshd.ssh(&["h1", "--timeout", "1", "--", "sleep 60"]).await;
    assert_eq!(status, 124, "{err}");
    // Bytes come as they are.
    let output =
        sshd.legwork(&["h1", "--", "printf '\\377\\0\\n'; head -c 100000 /dev/zero"]).output().await.unwrap();
    assert_eq!((output.stdout.len(), &output.stdout[..3]), (100_003, &b"\xff\0\n"[..]));
    // Once the connection is gone, so is all that was put there.
    until("the folder is gone", || async { folders_in(&tmp).is_empty() }).await;
}

#[tokio::test]
async fn many_hosts_have_a_result_each() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, tmp) = host(dir.path()).await;
    std::fs::write(dir.path().join("inventory.yaml"), "groups:\n  web: ['web[1-4]']\n").unwrap();
    let inventory = dir.path().join("inventory.yaml").display().to_string();
    let (status, out, err) =
        sshd.ssh(&["-i", &inventory, "@web", "db1", "!web2", "--", "echo $((6*7))"]).await;
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!((status, lines), (0, vec!["db1  | 42", "web1 | 42", "web3 | 42", "web4 | 42"]));
    assert!(err.contains("4 hosts: 4 succeeded, 0 not"), "{err}");
    let script = "test -n \"$SSH_CONNECTION\"";
    let (status, out, _) = sshd.ssh(&["h[1-3]", "--json", "--", script]).await;
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (status, all["hosts"].as_array().unwrap().len(), &all["summary"]["succeeded"]),
        (0, 3, &3.into())
    );
    // Nobody is silently absent, though nothing was tried after the first failure.
    let (status, out, _) = sshd.ssh(&["h[1-9]", "-P", "1", "--fail-fast", "--json", "--", "exit 7"]).await;
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &all["summary"]["failed"], &all["summary"]["skipped"]), (125, &1.into(), &8.into()));
    assert_eq!(all["hosts"].as_array().unwrap().len(), 9);
    // One that can't be reached is one of the results.
    let (status, out, _) =
        sshd.ssh(&["h1", "h2", "-o", "ConnectTimeout=2", "nobody@h3", "--json", "--", "true"]).await;
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &all["hosts"][2]["state"]), (255, &"unreachable".into()), "{all}");
    assert_eq!(all["hosts"][0]["state"], "succeeded");
    until("the folders are gone", || async { folders_in(&tmp).is_empty() }).await;
}

#[tokio::test]
async fn hostile_names_are_refused_or_inert() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, _tmp) = host(dir.path()).await;
    let proof = dir.path().join("pwned");
    let touch = format!("touch {}", proof.display());
    for name in [
        format!("x@-oProxyCommand={touch}"),
        format!("a;{touch}"),
        format!("$({touch})"),
        "../x".into(),
        "a\nb".into(),
        "a b".into(),
    ] {
        let (status, _, err) = sshd.ssh(&[&name, "--", "true"]).await;
        assert!(status == 255 && err.contains("invalid host"), "{name:?}: {status} {err}");
    }
    let option = format!("-oProxyCommand={touch}");
    for args in [[option.as_str(), "--", "true"], ["h1", &option, "true"]] {
        // An option in a host's place is an option, and needs a host beside it.
        let (status, ..) = sshd.ssh(&args).await;
        assert_ne!(status, 0, "{args:?}");
    }
    let name = dir.path().join("a; id $(x) \n'");
    let name = name.to_str().unwrap();
    assert_eq!(sshd.ssh(&["file", "write", "h1", "--content", "inert", "--", name]).await.0, 0);
    assert_eq!(sshd.ssh(&["file", "read", "h1", "--", name]).await.1, "inert");
    let (status, _, err) = sshd.ssh(&["pkg", "present", "h1", "--", "curl;id"]).await;
    assert!(status == 1 && err.contains("invalid package name"), "{err}");
    assert!(!proof.exists());
}

#[tokio::test]
async fn a_policy_judges_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, _tmp) = host(dir.path()).await;
    let config = dir.path().join("rules.yaml");
    std::fs::write(&config, "permission:\n  bash:\n    \"*\": deny\n    \"echo *\": allow\n").unwrap();
    let policy = config.to_str().unwrap();
    assert_eq!(sshd.ssh(&["--policy", policy, "h1", "--", "echo yes"]).await.1, "yes\n");
    let proof = dir.path().join("pwned");
    let line = format!("echo $(touch {})", proof.display());
    let (status, _, err) = sshd.ssh(&["--policy", policy, "h1", "--", &line]).await;
    assert!(status == 126 && err.contains("denied"), "{status} {err}");
    assert!(!proof.exists());
}

#[tokio::test]
async fn a_host_key_that_changed_is_refused_with_the_line_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sshd, _tmp) = host(dir.path()).await;
    assert_eq!(sshd.ssh(&["--persist", "0", "h1", "--", "true"]).await.0, 0);
    sshd.change_key().await;
    let (status, out, err) = sshd.ssh(&["--persist", "0", "h1", "--", "echo ran"]).await;
    assert_eq!((status, out.as_str()), (255, ""));
    assert!(err.contains("key has changed") && err.contains("run: ssh-keygen -f"), "{err}");
}

#[tokio::test]
async fn files_of_any_size_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, _tmp) = host(dir.path()).await;
    let bytes: Vec<u8> =
        (0..14_000_000u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let local = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(local("big"), &bytes).unwrap();
    std::fs::write(local("small"), b"small\n").unwrap();
    let (status, out, err) = sshd
        .ssh(&["cp", "--mode", "0600", &local("big"), &local("small"), &format!("h1:{}/", local("to"))])
        .await;
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("big: 14000000 bytes"), "{out}");
    assert!(std::fs::read(local("to/big")).unwrap() == bytes);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(local("to/big")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (status, _, err) = sshd.ssh(&["cp", &format!("h[1-2]:{}", local("to/big")), &local("back")]).await;
    assert_eq!(status, 0, "{err}");
    for host in ["h1", "h2"] {
        assert!(std::fs::read(local(&format!("back/{host}/big"))).unwrap() == bytes, "{host}");
    }
    assert_eq!(std::fs::read_dir(local("to")).unwrap().count(), 2, "a part was left");
}

#[tokio::test]
async fn ctrl_c_ends_what_runs_on_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, _tmp) = host(dir.path()).await;
    let pid_file = dir.path().join("pid");
    let script = format!("echo $$ > {}; sleep 300", pid_file.display());
    // Cold, so that the connection itself is ours; then over the one that stays.
    for persist in ["0", "5", "5"] {
        let mut child =
            sshd.legwork(&["--persist", persist, "h1", "--", &script]).stderr(Stdio::null()).spawn().unwrap();
        until("it runs", || async { std::fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.is_empty()) })
            .await;
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        assert!(is_alive(&pid));
        let own = child.id().unwrap().to_string();
        std::process::Command::new("kill").args(["-INT", &own]).status().unwrap();
        let status = tokio::time::timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(130));
        until_gone(&pid).await;
        std::fs::remove_file(&pid_file).unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_said_to_and_ends_what_ran() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, tmp) = host(dir.path()).await;
    let proxy = Proxy::start(format!("127.0.0.1:{}", sshd.port)).await;
    let port = format!("Port={}", proxy.address.rsplit_once(':').unwrap().1);
    let pid_file = dir.path().join("pid");
    let script = format!("echo $$ > {}; echo before; sleep 300", pid_file.display());
    let running = sshd.legwork(&["-o", &port, "h1", "--json", "--", &script]).output();
    let cutting = async {
        until("it runs", || async { std::fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.is_empty()) })
            .await;
        proxy.cut();
    };
    let (output, ()) = tokio::join!(running, cutting);
    let output = output.unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &all["hosts"][0]["state"]), (Some(125), &"lost".into()), "{all}");
    until_gone(&std::fs::read_to_string(&pid_file).unwrap()).await;
    until("the folder is gone", || async { folders_in(&tmp).is_empty() }).await;
    // In the middle of an answer.
    let running =
        sshd.legwork(&["-o", &port, "h1", "--json", "--", "yes | head -c 4000000; sleep 300"]).output();
    let cutting = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.cut();
    };
    let (output, ()) = tokio::join!(running, cutting);
    assert_eq!(output.unwrap().status.code(), Some(125));
    // In the middle of the upload: nothing runs, and nothing stays.
    until("the folder is gone", || async { folders_in(&tmp).is_empty() }).await;
    proxy.slow_down(150_000);
    let running = sshd.legwork(&["-o", &port, "h2", "--json", "--", "true"]).output();
    let cutting = async {
        until("the upload has begun", || async { !folders_in(&tmp).is_empty() }).await;
        proxy.cut();
    };
    let (output, ()) = tokio::join!(running, cutting);
    assert_ne!(output.unwrap().status.code(), Some(0));
    until("the folder is gone", || async { folders_in(&tmp).is_empty() }).await;
}

#[tokio::test]
async fn a_shared_connection_whose_peer_is_gone_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, _tmp) = host(dir.path()).await;
    let proxy = Proxy::start(format!("127.0.0.1:{}", sshd.port)).await;
    let port = format!("Port={}", proxy.address.rsplit_once(':').unwrap().1);
    let args = ["--persist", "120", "-o", &port, "h1", "--", "echo here"];
    assert_eq!(sshd.ssh(&args).await.1, "here\n");
    // As after a laptop's sleep: the connection is open, and carries nothing any more.
    proxy.strand();
    let (status, out, err) = sshd.ssh(&args).await;
    assert_eq!((status, out.as_str()), (0, "here\n"), "{err}");
    sshd.ssh(&["--persist", "0", "-o", &port, "h1", "--", "true"]).await;
}

#[tokio::test]
async fn a_host_where_tmp_may_not_run_programs_has_another_place() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED HERE: a mount that forbids programs needs root");
        return;
    }
    let dir = tempfile::tempdir_in("/var/lib").unwrap();
    let mounts = "mount -t tmpfs -o noexec tmpfs /tmp; mount -t tmpfs -o noexec tmpfs /dev/shm; \
                  mkdir -p /run/vt; mount -t tmpfs tmpfs /var/tmp";
    let sshd = Sshd::start_in(dir.path(), Some(mounts)).await;
    let (status, out, err) =
        sshd.ssh(&["h1", "--", "ls -d /var/tmp/.legwork-*/micro-runner | wc -l; ls -A /tmp"]).await;
    assert_eq!((status, out.as_str()), (0, "1\n"), "{err}");
    // One that is full is passed over.
    let dir = tempfile::tempdir_in("/var/lib").unwrap();
    let full = "mount -t tmpfs -o size=64k tmpfs /tmp; mount -t tmpfs tmpfs /var/tmp";
    let sshd = Sshd::start_in(dir.path(), Some(full)).await;
    let (status, out, err) =
        sshd.ssh(&["h1", "--", "ls -d /var/tmp/.legwork-*/micro-runner | wc -l; ls -A /tmp"]).await;
    assert_eq!((status, out.as_str()), (0, "1\n"), "{err}");
    // No room at all: said so, and nothing left.
    let dir = tempfile::tempdir_in("/var/lib").unwrap();
    let home = dir.path().join("home").display().to_string();
    let full =
        format!("for d in /tmp /var/tmp /dev/shm {home}; do mount -t tmpfs -o size=64k tmpfs $d; done");
    let sshd = Sshd::start_in(dir.path(), Some(&full)).await;
    let (status, _, err) = sshd.ssh(&["h1", "--", "true"]).await;
    assert!(status == 255 && err.contains("is the disk full?"), "{status} {err}");
}

#[tokio::test]
async fn the_same_command_does_the_same_on_a_new_connection_and_on_an_open_one() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED HERE: a host with a umask of its own needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Variables of the host's that the first connection might touch, and one of ours.
    let more = "AcceptEnv LW_*\n";
    let sshd = Sshd::start_as_host(dir.path(), &format!("umask 027\n{more}")).await;
    let look = "umask; touch made; stat -c %a made; rm made; mkdir made; stat -c %a made; rmdir made; pwd; ulimit -a; env | sort";
    for (user, sudo) in [("root", false), ("deploy", false), ("deploy", true)] {
        let host = format!("{user}@h-{sudo}");
        let mut args = vec!["-o", "SendEnv=LW_GIVEN", &host];
        args.extend(sudo.then_some("--sudo"));
        args.extend(["--", look]);
        let run = async || {
            let mut command = sshd.legwork(&args);
            command.env("LW_GIVEN", "from here");
            let output = tokio::time::timeout(DEADLINE, command.output()).await.unwrap().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let (cold, warm) = (run().await, run().await);
        assert!(cold.starts_with("0027\n640\n750\n"), "{user} {sudo}: {cold}");
        assert!(sudo || cold.contains("\nLW_GIVEN=from here\n"), "{user}: {cold}");
        let differs = |line: &&str| !line.starts_with("SUDO_COMMAND=");
        let lines = |text: &str| text.lines().filter(differs).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&cold), lines(&warm), "{user} {sudo}");
    }
}

#[tokio::test]
async fn a_binary_for_another_machine_is_never_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, tmp) = host(dir.path()).await;
    let wrong = dir.path().join("wrong");
    std::fs::create_dir(&wrong).unwrap();
    let (ours, other) =
        if cfg!(target_arch = "x86_64") { ("x86_64", "aarch64") } else { ("aarch64", "x86_64") };
    let name = |arch: &str| format!("legwork-micro-{arch}-linux");
    // Of no machine that any emulator knows: the ELF header's field at 18.
    let mut bytes = std::fs::read(dist().join(name(ours))).unwrap();
    bytes[18..20].copy_from_slice(&[0xfe, 0xff]);
    std::fs::write(wrong.join(name(ours)), bytes).unwrap();
    let (status, _, err) = sshd.ssh(&["--micro-dir", wrong.to_str().unwrap(), "h1", "--", "true"]).await;
    assert!(status == 255 && err.to_lowercase().contains("exec format error"), "{status} {err}");
    assert!(folders_in(&tmp).is_empty());
    std::fs::rename(wrong.join(name(ours)), wrong.join(name(other))).unwrap();
    let (status, _, err) = sshd.ssh(&["--micro-dir", wrong.to_str().unwrap(), "h1", "--", "true"]).await;
    assert!(status == 255 && err.contains(&format!("no micro-runner for Linux {ours}")), "{status} {err}");
}

fn shell(command: &str) -> Exec {
    Exec { command: command.into(), capture_out: true, ..Default::default() }
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_library_drives_every_transport() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, tmp) = host(dir.path()).await;
    let binaries = Binaries::from_dir(dist()).unwrap();
    let ssh = Ssh::new("h1").unwrap().arg("-F").arg(sshd.config()).folder(dir.path().join("sockets"));
    let template = Template::new("here", ["env", "TMPDIR=/var/tmp"]);
    let transports: [Arc<dyn Transport>; 3] =
        [Arc::new(Local::new()), Arc::new(template), Arc::new(ssh.clone())];
    for transport in &transports {
        let name = transport.name();
        let client = Client::start(&**transport, &binaries, Options::default())
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(client.ready().has("stream") && !client.ready().has("strea"));
        // Several sent ahead run in order, and each has its own answer.
        let mut ahead = Vec::new();
        for n in 0..20 {
            ahead.push(client.send(&shell(&format!("echo {n}")), Call::within(SOON)).await.unwrap());
        }
        for (n, pending) in ahead.into_iter().enumerate() {
            assert_eq!(pending.result().await.unwrap().stdout, Some(format!("{n}\n")), "{name}");
        }
        let mut lines = Vec::new();
        let streaming = Exec { stream_lines: true, ..shell("for i in 1 2 3; do echo $i; done") };
        let mut pending = client.send(&streaming, Call::within(SOON)).await.unwrap();
        while let Some(event) = pending.next_event().await {
            lines.push(event.message);
        }
        assert_eq!(
            (lines.concat().as_str(), pending.result().await.unwrap().exit_code),
            ("123", 0),
            "{name}"
        );
        let path = dir.path().join("written").display().to_string();
        let write = FileWrite { path: path.clone(), content: "x".into(), create: true, ..Default::default() };
        client.run(&write, Call::within(SOON)).await.unwrap();
        let read = FileRead { path, ..Default::default() };
        assert_eq!(client.run(&read, Call::within(SOON)).await.unwrap().content, "x");
        // An idempotent call, and one that fails.
        let once = shell("date +%N");
        let first = client.run(&once, Call::within(SOON).idempotent("k")).await.unwrap();
        assert_eq!(client.run(&once, Call::within(SOON).idempotent("k")).await.unwrap().stdout, first.stdout);
        let failed =
            client.run(&FileRead { path: "/none".into(), ..Default::default() }, Call::within(SOON)).await;
        assert!(matches!(failed, Err(Error::Command(ref failure)) if !failure.retryable), "{failed:?}");
        let large = FileWrite { content: "x".repeat(11 << 20), ..write };
        assert!(matches!(client.run(&large, Call::within(SOON)).await, Err(Error::InvalidCommand(_))));
        client.close().await;
        client.close().await;
        assert!(matches!(client.run(&once, Call::within(SOON)).await, Err(Error::Closed)), "{name}");
    }
    ssh.disconnect().await;
    until("the folder is gone", || async { folders_in(&tmp).is_empty() }).await;
    // A host that can't be reached, and a runner that isn't one.
    let nowhere = Ssh::new("h1")
        .unwrap()
        .arg("-F")
        .arg(sshd.config())
        .arg("-oPort=1")
        .folder(dir.path().join("sockets"));
    let error = Client::start(&nowhere, &binaries, Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let cat = Local::program("/bin/true");
    assert!(matches!(Client::start(&cat, &binaries, Options::default()).await, Err(Error::NotReady(_))));
}

/// A program that speaks the protocol by heart.
fn parrot(dir: &Path, body: &str) -> Local {
    let script = format!(
        "#!/bin/sh\nprintf '{{\"type\":\"READY\",\"data\":{{\"version\":\"1.0.0\",\"platform\":\"linux\",\
         \"arch\":\"amd64\",\"pid\":1,\"capabilities\":{{}}}}}}\\n'\n{body}\n"
    );
    let file = dir.join("parrot");
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Local::program(&file)
}

#[tokio::test]
async fn a_command_is_tried_again_only_where_the_runner_says_so() {
    let dir = tempfile::tempdir().unwrap();
    // Fails the first two, the way it is told; then all is well.
    let body = |retryable: bool| {
        format!(
            "n=0; while read line; do n=$((n+1)); id=$(echo \"$line\" | sed 's/.*\"id\":\"\\([^\"]*\\).*/\\1/'); \
             if [ $n -le 2 ]; then printf '{{\"type\":\"ERROR\",\"data\":{{\"command_id\":\"%s\",\"code\":\"BUSY\",\
             \"message\":\"x\",\"retryable\":{retryable}}}}}\\n' $id; else printf '{{\"type\":\"DONE\",\"data\":\
             {{\"command_id\":\"%s\",\"result\":{{\"exit_code\":0,\"duration\":0}},\"duration\":0}}}}\\n' $id; fi; done"
        )
    };
    for (retryable, retries, well) in [(true, 2, true), (true, 1, false), (false, 2, false)] {
        let runner = parrot(dir.path(), &body(retryable));
        let client = Client::start(&runner, &Binaries::default(), Options::default()).await.unwrap();
        // What it does not offer is not asked of it.
        let keyed = client.run(&shell("true"), Call::within(SOON).idempotent("k")).await;
        assert!(matches!(keyed, Err(Error::InvalidCommand(_))), "{keyed:?}");
        let result = client.run(&shell("true"), Call::within(SOON).retries(retries)).await;
        assert_eq!(result.is_ok(), well, "{retryable} {retries}: {result:?}");
        client.close().await;
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    // Greets, and then says nothing: as a host does that has hung itself up.
    let mute = parrot(dir.path(), "exec sleep 300");
    let client = Client::start(&mute, &Binaries::default(), Options::default()).await.unwrap();
    let begun = Instant::now();
    let error = client.run(&shell("true"), Call::within(Duration::from_secs(1))).await.unwrap_err();
    assert!(matches!(error, Error::ResponseTimeout), "{error}");
    // A second, and fifteen more (the protocol's page, §9).
    assert!((15..25).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_dry_run_is_not_sent_to_a_runner_that_would_do_it() {
    let dir = tempfile::tempdir().unwrap();
    // As the original: no features, flags ignored, unknown fields ignored. It writes down what it is told.
    let told = dir.path().join("told");
    let runner =
        parrot(dir.path(), &format!("while read line; do echo \"$line\" >>{}; done", told.display()));
    let client = Client::start(&runner, &Binaries::default(), Options::default()).await.unwrap();
    let name = || "x".to_owned();
    let dry = SshdHarden { disable_root_login: true, dry_run: true, ..Default::default() };
    let write = FileWrite { path: name(), dry_run: true, ..Default::default() };
    let bytes = FileWrite { path: name(), content_base64: Some("/w==".into()), ..Default::default() };
    let package = PkgEnsure { name: name(), dry_run: true, ..Default::default() };
    let service = ServiceReload { name: name(), dry_run: true, ..Default::default() };
    let rule = SudoersEnsure { user: name(), dry_run: true, ..Default::default() };
    let by_sudo = FileRead { path: name(), use_sudo: true, ..Default::default() };
    let soon = || Call::within(Duration::from_secs(1));
    let refused = [
        ("dry_run", client.run(&dry, soon()).await.map(drop)),
        ("dry_run", client.run(&write, soon()).await.map(drop)),
        ("base64", client.run(&bytes, soon()).await.map(drop)),
        ("dry_run", client.run(&package, soon()).await.map(drop)),
        ("dry_run", client.run(&service, soon()).await.map(drop)),
        ("dry_run", client.run(&rule, soon()).await.map(drop)),
        ("sudo", client.run(&by_sudo, soon()).await.map(drop)),
    ];
    for (feature, result) in refused {
        let text = result.unwrap_err().to_string();
        assert_eq!(text, format!("invalid command: the runner does not offer {feature}"));
    }
    client.close().await;
    assert!(!told.exists(), "{}", std::fs::read_to_string(&told).unwrap());
    // Nor is a runner taken that ignores what it may do.
    let only = Options { allow: vec![CommandType::FileRead], ..Default::default() };
    let error = Client::start(&runner, &Binaries::default(), only).await.unwrap_err();
    assert!(matches!(error, Error::NotReady(ref why) if why.contains("--allow")), "{error}");
}

#[tokio::test]
async fn the_next_wave_waits_for_the_first_and_what_failed_can_be_named_again() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, _tmp) = host(dir.path()).await;
    let failed = dir.path().join("failed").display().to_string();
    // The canary is fine, one of the next two is not, and the rest is left alone.
    let mark = dir.path().join("mark");
    std::fs::write(&mark, "").unwrap();
    let script = format!("echo x >>{0}; [ $(wc -l <{0}) != 2 ]", mark.display());
    let args = ["h[1-6]", "-P", "1", "--serial", "1,2", "--failed-to", &failed, "--json", "--", &script];
    let (status, out, err) = sshd.ssh(&args).await;
    let all: Value = serde_json::from_str(&out).unwrap();
    let count = |name: &str| all["summary"][name].as_u64().unwrap();
    assert_eq!(
        (status, count("succeeded"), count("failed"), count("skipped")),
        (125, 2, 1, 3),
        "{out} {err}"
    );
    assert_eq!(std::fs::read_to_string(&failed).unwrap(), "h2\nh4\nh5\nh6\n");
    let again = format!("@file:{failed}");
    let (status, out, _) =
        sshd.ssh(&[&again, "--serial", "50%", "--failed-to", &failed, "--", "echo again"]).await;
    assert_eq!((status, out.lines().count()), (0, 4), "{out}");
    assert_eq!(std::fs::read_to_string(&failed).unwrap(), "");
    let (status, _, err) = sshd.ssh(&["h1", "--serial", "some", "--", "true"]).await;
    assert!(status == 1 && err.contains("--serial some"), "{err}");
}
