//! `legwork ssh harden` on a real sshd that is the host's own: nobody is locked out, and what
//! is said to be off is off.

use std::path::Path;
use std::time::Duration;

use legwork_e2e::micro::dist;
use legwork_e2e::sshd::Sshd;
use legwork_e2e::until;
use legwork_remote::{Binaries, Call, Client, Login, Options, Ssh, SshdHarden};

/// A distribution's usual settings: passwords at two kinds of prompt, and a block for one user.
const LOOSE: &str = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\n\
                     Match User deploy\n  PasswordAuthentication yes\n  KbdInteractiveAuthentication yes\n";

async fn host(dir: &Path) -> Option<Sshd> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED HERE: an sshd with users of its own needs root");
        return None;
    }
    Some(Sshd::start_as_host(dir, LOOSE).await)
}

fn ssh(sshd: &Sshd, user: &str, dir: &Path) -> Ssh {
    let ssh = Ssh::new(format!("{user}@h1")).unwrap().arg("-F").arg(sshd.config());
    ssh.folder(dir.join("sockets"))
}

#[tokio::test]
async fn a_change_that_would_lock_out_is_refused_before_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let Some(sshd) = host(dir.path()).await else { return };
    let config = dir.path().join("sshd_config");
    let before = std::fs::read_to_string(&config).unwrap();
    for (args, why) in [
        (
            &["harden", "root@h1", "--allow-user", "root", "--allow-user", "nosuch"][..],
            "there is no user \"nosuch\"",
        ),
        (&["harden", "root@h1", "--allow-user", "deploy"], "\"root\", who is logged in, is not among them"),
        (&["harden", "root@h1", "--no-root-login"], "you are logged in as root"),
        (&["harden", "root@h1", "--no-root-login", "--dry-run"], "you are logged in as root"),
        (&["harden", "deploy@h1", "--sudo", "--allow-user", "root"], "\"deploy\", who is logged in"),
    ] {
        let (status, out, err) = sshd.ssh(args).await;
        assert!(status == 1 && err.contains(why) && !out.contains("set"), "{args:?}: {status} {out} {err}");
        assert_eq!(std::fs::read_to_string(&config).unwrap(), before, "{args:?}");
    }
}

#[tokio::test]
async fn what_is_said_to_be_off_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let Some(sshd) = host(dir.path()).await else { return };
    let (deploy, root) = (ssh(&sshd, "deploy", dir.path()), ssh(&sshd, "root", dir.path()));
    // The block for deploy offered both, and root had a way in.
    let offered = Login::Refused(["publickey", "password", "keyboard-interactive"].map(str::to_owned).into());
    assert_eq!(deploy.try_login(None, true).await.unwrap(), offered);
    assert_eq!(root.try_login(None, false).await.unwrap(), Login::In);
    let args =
        ["harden", "deploy@h1", "--sudo", "--no-password-auth", "--no-root-login", "--allow-user", "deploy"];
    let (status, out, err) = sshd.ssh(&args).await;
    assert_eq!(status, 0, "{out} {err}");
    assert!(out.contains("set; a new login works"), "{out}");
    let only_keys = Login::Refused(vec!["publickey".to_owned()]);
    for host in [&deploy, &root] {
        assert_eq!(host.try_login(None, true).await.unwrap(), only_keys);
    }
    assert_eq!(root.try_login(None, false).await.unwrap(), only_keys);
    assert_eq!(deploy.try_login(None, false).await.unwrap(), Login::In);
    // It stays so, and a second time there is nothing to do.
    let (status, out, _) = sshd.ssh(&args).await;
    assert!(status == 0 && out.contains("already so"), "{out}");
}

#[tokio::test]
async fn a_change_with_which_no_new_login_works_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(sshd) = host(dir.path()).await else { return };
    let config = dir.path().join("sshd_config");
    let before = std::fs::read_to_string(&config).unwrap();
    // sshd takes it; that we come from elsewhere only shows at the door.
    let args = ["harden", "deploy@h1", "--sudo", "--allow-user", "deploy@192.0.2.1"];
    let (status, out, err) = sshd.ssh(&args).await;
    assert!(status == 1 && !out.contains("set"), "{status} {out} {err}");
    assert!(err.contains("no login works") && err.contains("the former settings are back"), "{err}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    until("it lets us in", || async {
        ssh(&sshd, "deploy", dir.path()).try_login(None, false).await.unwrap() == Login::In
    })
    .await;
    let left = sshd.ssh(&["root@h1", "--", "ls -A /etc/ssh"]).await.1;
    assert!(!left.contains(".legwork-"), "{left}");
}

#[tokio::test]
async fn a_change_that_nobody_confirms_is_taken_back_by_the_host_itself() {
    let dir = tempfile::tempdir().unwrap();
    let Some(sshd) = host(dir.path()).await else { return };
    let config = dir.path().join("sshd_config");
    let before = std::fs::read_to_string(&config).unwrap();
    let host = ssh(&sshd, "deploy", dir.path());
    let client =
        Client::start(&host, &Binaries::from_dir(dist()).unwrap(), Options::default()).await.unwrap();
    let change = SshdHarden {
        allow_users: vec!["deploy@192.0.2.1".into()],
        confirm_within: 3,
        use_sudo: true,
        ..Default::default()
    };
    let result = client.run(&change, Call::within(Duration::from_secs(30))).await.unwrap();
    assert!(result.changed && !result.pending.is_empty(), "{result:?}");
    assert!(std::fs::read_to_string(&config).unwrap().contains("deploy@192.0.2.1"));
    // The controller is gone, and so is all that it had on the host; nobody can log in.
    client.close().await;
    host.disconnect().await;
    assert_ne!(host.try_login(None, false).await.unwrap(), Login::In);
    until("it lets us in", || async { host.try_login(None, false).await.unwrap() == Login::In }).await;
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    // Too late.
    let client =
        Client::start(&host, &Binaries::from_dir(dist()).unwrap(), Options::default()).await.unwrap();
    let confirm = SshdHarden { confirm: result.pending, use_sudo: true, ..Default::default() };
    let error = client.run(&confirm, Call::within(Duration::from_secs(30))).await.unwrap_err();
    assert!(error.to_string().contains("taken back already"), "{error}");
    client.close().await;
    host.disconnect().await;
}

#[tokio::test]
async fn a_new_port_counts_once_it_was_reached() {
    let dir = tempfile::tempdir().unwrap();
    let Some(sshd) = host(dir.path()).await else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(sshd.ssh(&["root@h1", "--", "true"]).await.0, 0);
    // The host's key is known under its name and old port only.
    let strict = "StrictHostKeyChecking=yes";
    let args = ["harden", "root@h1", "-o", strict, "--port", &port.to_string()];
    let (status, out, err) = sshd.ssh(&args).await;
    assert_eq!(status, 0, "{out} {err}");
    let host = ssh(&sshd, "root", dir.path());
    assert!(matches!(host.try_login(None, false).await.unwrap(), Login::Broken(_)));
    let host = host.on_port(port).await.unwrap();
    assert_eq!(host.try_login(None, false).await.unwrap(), Login::In);
}
