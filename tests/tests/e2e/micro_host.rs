//! What the micro-runner changes on a host: packages, services, sudo's rules, sshd. Each test
//! has a host of its own, made of namespaces.
//!
//! In most of them `systemctl` is a recorded double; one boots systemd itself, where that can be
//! done. dpkg, apt, visudo, sudo and sshd are the real ones.

use std::path::Path;
use std::time::{Duration, Instant};

use legwork_e2e::DEADLINE;
use legwork_e2e::micro::{Booted, Micro, host};
use serde_json::{Value, json};

/// Answers as systemd 252 does for a unit that runs and is enabled; reloads sshd.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$@" >>/tmp/systemctl.log
for unit in "$@"; do :; done
case $1 in
is-active) [ -e "/tmp/stopped-$unit" ] && { echo inactive; exit 3; }; echo active ;;
is-enabled) [ -e "/tmp/disabled-$unit" ] && { echo disabled; exit 1; }; echo enabled ;;
show) [ -e "/tmp/stopped-$unit" ] && echo dead || echo running ;;
start) rm -f "/tmp/stopped-$unit" ;;
stop) : >"/tmp/stopped-$unit" ;;
enable) rm -f "/tmp/disabled-$unit" ;;
disable) : >"/tmp/disabled-$unit" ;;
reload)
  case $unit in
  sshd) echo "Failed to reload sshd.service: Unit sshd.service not found." >&2; exit 5 ;;
  ssh) [ -e /tmp/no-reload ] && exit 1; kill -HUP "$(cat /run/sshd.pid)" ;;
  esac ;;
restart) ;;
*) exit 1 ;;
esac
"#;

/// The real one, but for a command that stands for whatever it may refuse.
const VISUDO: &str = r#"#!/bin/sh
grep -q /bin/refused "$3" && { echo "$3:3: syntax error" >&2; exit 1; }
exec /usr/sbin/visudo "$@"
"#;

/// Does what it is told, as dnf 4 does: a lower version, too.
const DNF: &str = r#"#!/bin/sh
echo "$@" >>/tmp/dnf.log
for spec in "$@"; do :; done
echo "${spec#probe-}-1" >/tmp/rpm-version
"#;

/// Knows one package; compares as `sort -V` does.
const RPM: &str = r#"#!/bin/sh
case $1 in
-q) cat /tmp/rpm-version 2>/dev/null || exit 1 ;;
--eval)
  set -- $(echo "$2" | sed "s/.*vercmp('\([^']*\)','\([^']*\)').*/\1 \2/")
  [ "$1" = "$2" ] && { echo 0; exit; }
  [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$1" ] && echo -1 || echo 1 ;;
esac
"#;

fn doubles(dir: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let doubles = dir.join("doubles");
    std::fs::create_dir(&doubles).unwrap();
    for (name, script) in [("systemctl", SYSTEMCTL), ("visudo", VISUDO), ("dnf", DNF), ("rpm", RPM)] {
        std::fs::write(doubles.join(name), script).unwrap();
        std::fs::set_permissions(doubles.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    doubles
}

async fn start(dir: &Path, prepare: &str) -> Micro {
    let mut command = host(&doubles(dir), prepare);
    command.arg("/tmp/micro-runner");
    let mut micro = Micro::from_command(command).await;
    assert_eq!(micro.message().await["type"], "READY");
    micro
}

/// A shell on the host.
async fn sh(micro: &mut Micro, script: &str) -> String {
    let params = json!({ "command": script, "capture_out": true, "capture_err": true });
    let result = micro.done("exec", params).await;
    let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
    text("stdout") + &text("stderr")
}

const SSHD: &str = "ssh-keygen -A >/dev/null; mkdir -p /run/sshd; /usr/sbin/sshd";

#[tokio::test]
async fn our_runner_says_what_the_original_says() {
    let dir = tempfile::tempdir().unwrap();
    for case in ["compat", "legwork"] {
        let ttl: &[&str] = if case == "legwork" { &["--keep", "--ttl", "2s"] } else { &[] };
        let mut command = host(&doubles(&dir.path().join(case).tap()), SSHD);
        command.arg("/tmp/micro-runner").args(ttl);
        let mut micro = Micro::from_command(command).await;
        for entry in include_str!("../../fixtures/micro.jsonl").lines() {
            let entry: Value = serde_json::from_str(entry).unwrap();
            if entry["case"] != case || entry["dir"] == "meta" {
                continue;
            }
            if entry["dir"] == "controller->runner" {
                match (&entry["line"], entry["raw"].as_str()) {
                    (_, Some(raw)) => micro.write(format!("{raw}\n").as_bytes()).await,
                    (line, _) if line.is_object() => micro.write(format!("{line}\n").as_bytes()).await,
                    _ => micro.close_stdin(),
                }
            } else if entry["eof"] == true {
                assert_eq!(micro.line().await, None);
                assert_eq!(micro.status().await, entry["status"]);
            } else {
                let said = micro.message().await;
                assert_eq!(comparable(&said), comparable(&entry["line"]), "{case}");
            }
        }
    }
}

/// A folder that is made on the way.
trait Tap {
    fn tap(self) -> Self;
}

impl Tap for std::path::PathBuf {
    fn tap(self) -> Self {
        std::fs::create_dir_all(&self).unwrap();
        self
    }
}

/// Masks what is illustrative: times, processes, versions, owners; what may be added.
fn comparable(message: &Value) -> Value {
    let mut message = message.clone();
    message.as_object_mut().unwrap().remove("timestamp");
    let data = message["data"].as_object_mut().unwrap();
    for illustrative in ["duration", "pid", "arch"] {
        data.remove(illustrative);
    }
    if let Some(metadata) = data.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !matches!(name.as_str(), "implementation" | "features"));
    }
    if let Some(result) = data.get_mut("result").and_then(Value::as_object_mut) {
        // That a timeout was one is an addition, as is the nanosecond that `date` saw.
        result.retain(|name, _| !matches!(name.as_str(), "duration" | "owner" | "group" | "metadata"));
        for version in ["previous_version", "installed_version"] {
            if result.contains_key(version) {
                result[version] = json!("V");
            }
        }
        if result.get("stdout").and_then(Value::as_str).is_some_and(|text| text.len() == 10) {
            result["stdout"] = json!("NANOSECONDS");
        }
    }
    message
}

#[tokio::test]
async fn packages_come_and_go() {
    // A real package, of our own making: no network is needed.
    let package = "mkdir -p /tmp/p/DEBIAN; printf 'Package: legwork-probe\\nVersion: 1.0\\nArchitecture: all\\n\
                   Maintainer: x <x@x>\\nDescription: x\\n' >/tmp/p/DEBIAN/control; mkdir -p /tmp/repo; \
                   dpkg-deb -b /tmp/p /tmp/repo/p1.deb >/dev/null; sed -i s/1.0/2.0/ /tmp/p/DEBIAN/control; \
                   dpkg-deb -b /tmp/p /tmp/repo/p2.deb >/dev/null; \
                   for d in /var/lib/dpkg /var/lib/apt /etc/apt /var/cache/apt /var/log; do n=/run/h/$(echo $d | tr / _); \
                   mkdir -p $n/w; cp -a $d $n/u; mount --bind $n/u $d; done; \
                   cd /tmp/repo; for v in 1 2; do printf 'Package: legwork-probe\\nVersion: %s.0\\nArchitecture: all\\n\
                   Maintainer: x <x@x>\\nDescription: x\\nFilename: ./p%s.deb\\nSize: %s\\nSHA256: %s\\n\\n' $v $v \
                   $(stat -c %s p$v.deb) $(sha256sum p$v.deb | cut -c1-64); done >Packages; \
                   rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*; \
                   echo 'deb [trusted=yes] file:/tmp/repo ./' >/etc/apt/sources.list; \
                   apt-get -qq -o APT::Sandbox::User=root update >/dev/null; cd /";
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED HERE: installing a package needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut micro = start(dir.path(), package).await;
    let ask = |more: Value| {
        let mut params = json!({ "name": "legwork-probe", "manager": "apt", "options": ["-o", "APT::Sandbox::User=root"] });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let mut expect = async |more: Value, action: &str, version: &str| {
        let result = micro.done("pkg.ensure", ask(more.clone())).await;
        assert_eq!(
            (&result["action"], result["installed_version"].as_str().unwrap_or_default()),
            (&json!(action), version),
            "{more}"
        );
        assert_eq!(result["changed"], !action.starts_with("already"), "{more}");
    };
    expect(json!({ "state": "absent" }), "already_absent", "").await;
    expect(json!({ "state": "present", "dry_run": true }), "installed", "").await;
    expect(json!({ "state": "present", "version": "1.0" }), "installed", "1.0").await;
    expect(json!({ "state": "present" }), "already_present", "1.0").await;
    expect(json!({ "state": "latest" }), "upgraded", "2.0").await;
    expect(json!({ "state": "latest" }), "already_present", "2.0").await;
    let options = json!(["--allow-downgrades", "-o", "APT::Sandbox::User=root"]);
    expect(json!({ "state": "present", "version": "1.0", "options": options }), "downgraded", "1.0").await;
    expect(json!({ "state": "present", "version": "2.0" }), "upgraded", "2.0").await;
    expect(json!({ "state": "absent" }), "removed", "").await;
    let error = micro.error("pkg.ensure", ask(json!({ "state": "present", "version": "9.9" }))).await;
    assert_eq!(error["message"], "failed to install package: command failed: exit status 100");
    assert!(error["details"]["output"].as_str().unwrap().contains("9.9"), "{error}");
    for (params, message) in [
        (json!({}), "package name is required"),
        (
            json!({ "name": "curl", "manager": "brew" }),
            "failed to check package status: unsupported package manager: brew",
        ),
        (json!({ "name": "-oDebug::x=1", "state": "present" }), "invalid package name: \"-oDebug::x=1\""),
        (json!({ "name": "curl", "state": "sideways", "manager": "apt" }), "invalid state: sideways"),
    ] {
        assert_eq!(micro.error("pkg.ensure", params).await["message"], message);
    }
}

/// A host with a package source of its own, in files. Two versions of `legwork-probe`, each with
/// a configuration file, and `legwork-slow`, which takes its time to configure itself.
const SOURCE: &str = "for d in /var/lib/dpkg /var/lib/apt /etc/apt /var/cache/apt /var/log; do n=/run/h/$(echo $d | tr / _); \
     mkdir -p $n/w; cp -a $d $n/u; mount --bind $n/u $d; done; mkdir -p /tmp/repo /tmp/probe; cd /tmp/repo; \
     build() { d=/tmp/b-$1-$2; mkdir -p $d/DEBIAN; printf 'Package: %s\\nVersion: %s\\nArchitecture: all\\nMaintainer: x <x@x>\\nDescription: x\\n' \
     $1 $2 >$d/DEBIAN/control; }; \
     pack() { dpkg-deb -b /tmp/b-$1-$2 $1-$2.deb >/dev/null; { cat /tmp/b-$1-$2/DEBIAN/control; printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' \
     $1-$2.deb $(stat -c %s $1-$2.deb) $(sha256sum $1-$2.deb | cut -c1-64); } >>Packages; }; \
     for v in 1.0 2.0; do build legwork-probe $v; mkdir -p /tmp/b-legwork-probe-$v/tmp/probe; echo of $v >/tmp/b-legwork-probe-$v/tmp/probe/conf; \
     echo /tmp/probe/conf >/tmp/b-legwork-probe-$v/DEBIAN/conffiles; pack legwork-probe $v; done; \
     build legwork-slow 1.0; printf '#!/bin/sh\\n[ $1 = configure ] && sleep 4; exit 0\\n' >/tmp/b-legwork-slow-1.0/DEBIAN/postinst; \
     chmod 755 /tmp/b-legwork-slow-1.0/DEBIAN/postinst; pack legwork-slow 1.0; \
     rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*; \
     echo 'deb [trusted=yes] file:/tmp/repo ./' >/etc/apt/sources.list; cd /";

fn apt(name: &str, more: &Value) -> Value {
    let mut params = json!({ "name": name, "manager": "apt", "options": ["-o", "APT::Sandbox::User=root"] });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

#[tokio::test]
async fn a_package_is_there_if_dpkg_has_it_and_its_files_stay_as_they_were_edited() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED HERE: installing a package needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut micro = start(dir.path(), SOURCE).await;
    let probe = |more: Value| apt("legwork-probe", &more);
    // The host has no lists yet.
    let old = json!({ "state": "present", "version": "1.0" });
    let result = micro.done("pkg.ensure", probe(old)).await;
    assert_eq!((&result["action"], &result["installed_version"]), (&json!("installed"), &json!("1.0")));
    // On hold it is no less there.
    sh(&mut micro, "echo legwork-probe hold | dpkg --set-selections").await;
    let held = micro.done("pkg.ensure", probe(json!({ "state": "present" }))).await;
    assert_eq!((&held["action"], &held["installed_version"]), (&json!("already_present"), &json!("1.0")));
    for state in ["absent", "latest"] {
        let error = micro.error("pkg.ensure", probe(json!({ "state": state }))).await;
        assert!(error["details"]["output"].as_str().unwrap().contains("eld packages"), "{error}");
    }
    sh(&mut micro, "echo legwork-probe install | dpkg --set-selections").await;
    // A file that somebody edited is kept, and nobody is asked.
    sh(&mut micro, "echo mine >/tmp/probe/conf").await;
    let newest = micro.done("pkg.ensure", probe(json!({ "state": "latest" }))).await;
    assert_eq!((&newest["action"], &newest["installed_version"]), (&json!("upgraded"), &json!("2.0")));
    let state = sh(&mut micro, "dpkg -l legwork-probe | tail -1 | cut -c1-2; cat /tmp/probe/conf").await;
    assert_eq!(state, "ii\nmine\n");
    // What is half installed is neither there nor gone.
    let half = "sed -i '/^Package: legwork-probe$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status";
    sh(&mut micro, half).await;
    assert_eq!(micro.done("pkg.ensure", probe(json!({ "state": "present" }))).await["action"], "installed");
    sh(&mut micro, half).await;
    assert_eq!(micro.done("pkg.ensure", probe(json!({ "state": "absent" }))).await["action"], "removed");
}

#[tokio::test]
async fn a_package_manager_is_waited_for_and_never_ended_midway() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED HERE: installing a package needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut micro = start(dir.path(), SOURCE).await;
    // Somebody else is at work, and done in a while.
    let lock = "setsid python3 -c 'import fcntl,time; f=[open(n,\"w\") for n in (\"/var/lib/dpkg/lock-frontend\",\"/var/lib/apt/lists/lock\")]; \
                [fcntl.lockf(x,fcntl.LOCK_EX) for x in f]; open(\"/tmp/locked\",\"w\"); time.sleep(3)' >/dev/null 2>&1 </dev/null & \
                until [ -e /tmp/locked ]; do sleep 0.05; done";
    sh(&mut micro, lock).await;
    let begun = Instant::now();
    let params = apt("legwork-probe", &json!({ "state": "present" }));
    assert_eq!(micro.done("pkg.ensure", params).await["action"], "installed");
    assert!(begun.elapsed() > Duration::from_secs(2), "it did not wait: {:?}", begun.elapsed());
    // Its time is over while dpkg configures: that is said, and dpkg goes on.
    let slow = apt("legwork-slow", &json!({ "state": "present" }));
    let (_, answer) = micro.call("pkg.ensure", 3, slow.clone()).await;
    let data = &answer["data"];
    assert_eq!(data["code"], "TIMEOUT", "{answer}");
    assert!(data["message"].as_str().unwrap().contains("is left to finish"), "{answer}");
    // The next one waits for it, and finds all well.
    assert_eq!(micro.done("exec", json!({ "command": "true" })).await["exit_code"], 0);
    let state = "dpkg-query -W -f='${db:Status-Status}' legwork-slow";
    let begun = Instant::now();
    while sh(&mut micro, state).await != "installed" {
        assert!(begun.elapsed() < DEADLINE, "dpkg was ended: {}", sh(&mut micro, state).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(micro.done("pkg.ensure", slow).await["action"], "already_present");
    assert_eq!(sh(&mut micro, "dpkg --audit").await, "");
}

#[tokio::test]
async fn a_lower_version_is_not_installed_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = start(dir.path(), "echo 2.0-1 >/tmp/rpm-version").await;
    let pin = |version: &str, options: Value| json!({ "name": "probe", "manager": "dnf", "state": "present", "version": version, "options": options });
    let error = micro.error("pkg.ensure", pin("1.0", json!([]))).await;
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("probe 1.0 is older than 2.0-1") && message.contains("--allow-downgrade"),
        "{message}"
    );
    assert_eq!(
        sh(&mut micro, "cat /tmp/rpm-version; cat /tmp/dnf.log 2>&1").await.lines().next(),
        Some("2.0-1")
    );
    let same = micro.done("pkg.ensure", pin("2.0", json!([]))).await;
    assert_eq!(same["action"], "already_present");
    let down = micro.done("pkg.ensure", pin("1.0", json!(["--allow-downgrade"]))).await;
    assert_eq!((&down["action"], &down["installed_version"]), (&json!("downgraded"), &json!("1.0-1")));
    let up = micro.done("pkg.ensure", pin("3.0", json!([]))).await;
    assert_eq!((&up["action"], &up["installed_version"]), (&json!("upgraded"), &json!("3.0-1")));
    assert_eq!(sh(&mut micro, "cat /tmp/dnf.log").await, "downgrade -y probe-1.0\ninstall -y probe-3.0\n");
}

#[tokio::test]
async fn services_are_brought_into_a_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = start(dir.path(), ":").await;
    for (action, done, changed, status) in [
        ("start", "already_started", false, "active"),
        ("stop", "stopped", true, "inactive"),
        ("stop", "already_stopped", false, "inactive"),
        ("start", "started", true, "active"),
        ("enable", "already_enabled", false, "active"),
        ("disable", "disabled", true, "active"),
        ("disable", "already_disabled", false, "active"),
        ("restart", "restarted", true, "active"),
        ("reload", "reloaded", true, "active"),
    ] {
        let result = micro.done("service.reload", json!({ "name": "nginx", "action": action })).await;
        let got = (&result["action"], &result["changed"], &result["status"]);
        assert_eq!(got, (&json!(done), &json!(changed), &json!(status)));
    }
    let error = micro.error("service.reload", json!({ "name": "sshd", "action": "reload" })).await;
    assert!(
        error["message"].as_str().unwrap().starts_with("failed to reload service: exit status 5"),
        "{error}"
    );
    assert!(error["details"]["output"].as_str().unwrap().contains("not found"));
    for (name, action, message) in [
        ("", "start", "service name is required"),
        ("-H evil", "start", "invalid service name: \"-H evil\""),
        ("a;b", "start", "invalid service name: \"a;b\""),
        ("nginx", "fly", "invalid action: fly"),
    ] {
        let error = micro.error("service.reload", json!({ "name": name, "action": action })).await;
        assert_eq!(error["message"], message);
    }
    let log = sh(&mut micro, "cat /tmp/systemctl.log").await;
    assert!(log.contains("stop -- nginx") && !log.contains("evil"), "{log}");
}

#[tokio::test]
async fn sudo_rules_are_valid_before_they_are_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = start(dir.path(), ":").await;
    let rule = |more: Value| {
        let mut params = json!({ "user": "dep.loy", "state": "present" });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let commands = json!(["/usr/bin/systemctl", "/usr/bin/ls -l,x"]);
    let result = micro.done("sudoers.ensure", rule(json!({ "commands": commands, "no_passwd": true }))).await;
    assert_eq!(
        (&result["action"], &result["file_path"]),
        (&json!("created"), &json!("/etc/sudoers.d/froyo-dep_loy"))
    );
    let file =
        sh(&mut micro, "stat -c '%a %u' /etc/sudoers.d/froyo-dep_loy; tail -1 /etc/sudoers.d/froyo-dep_loy")
            .await;
    assert_eq!(file, "440 0\ndep.loy ALL=(ALL) NOPASSWD: /usr/bin/systemctl, /usr/bin/ls -l\\,x\n");
    assert_eq!(
        sh(&mut micro, "visudo -c -f /etc/sudoers.d/froyo-dep_loy >/dev/null && echo ok").await,
        "ok\n"
    );
    let again = micro.done("sudoers.ensure", rule(json!({ "commands": commands, "no_passwd": true }))).await;
    assert_eq!(again["action"], "already_present");
    let dry = micro.done("sudoers.ensure", rule(json!({ "dry_run": true }))).await;
    assert_eq!(dry["action"], "updated");
    // A rule that visudo refuses changes nothing: the one before is still there.
    let error = micro.error("sudoers.ensure", rule(json!({ "commands": ["/bin/refused"] }))).await;
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("invalid sudoers syntax: visudo validation failed: exit status"), "{error}");
    for (params, message) in [
        (json!({ "user": "%wheel" }), "invalid user: \"%wheel\""),
        (json!({ "user": "a\nALL ALL=(ALL) ALL" }), "invalid user: \"a\\nALL ALL=(ALL) ALL\""),
        (
            json!({ "commands": ["ls"] }),
            "invalid command: \"ls\" is not an absolute path without quotes and comments",
        ),
        (json!({ "state": "maybe" }), "invalid state: maybe"),
    ] {
        assert_eq!(micro.error("sudoers.ensure", rule(params)).await["message"], message);
    }
    let files = sh(&mut micro, "ls -A /etc/sudoers.d; tail -1 /etc/sudoers.d/froyo-dep_loy").await;
    assert!(files.starts_with("froyo-dep_loy\n") && files.contains("NOPASSWD"), "{files}");
    assert_eq!(micro.done("sudoers.ensure", rule(json!({ "state": "absent" }))).await["action"], "removed");
    assert_eq!(
        micro.done("sudoers.ensure", rule(json!({ "state": "absent" }))).await["action"],
        "already_absent"
    );
}

#[tokio::test]
async fn users_whose_names_are_written_alike_have_rules_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = start(dir.path(), ":").await;
    let rule = |user: &str, state: &str| json!({ "user": user, "state": state, "commands": [format!("/bin/{user}")] });
    let first = micro.done("sudoers.ensure", rule("weird.user", "present")).await;
    let second = micro.done("sudoers.ensure", rule("weird_user", "present")).await;
    assert_eq!((&first["action"], &second["action"]), (&json!("created"), &json!("created")));
    assert_ne!(first["file_path"], second["file_path"]);
    // Both hold, also a second time.
    for user in ["weird.user", "weird_user"] {
        assert_eq!(micro.done("sudoers.ensure", rule(user, "present")).await["action"], "already_present");
    }
    let all = "cat /etc/sudoers.d/froyo-* | grep -c '^weird[._]user ALL'; ls /etc/sudoers.d | grep -c '[.~]'";
    assert_eq!(sh(&mut micro, all).await, "2\n0\n");
    // One goes, the other stays; and what is made anew finds its own.
    assert_eq!(micro.done("sudoers.ensure", rule("weird.user", "absent")).await["action"], "removed");
    assert_eq!(micro.done("sudoers.ensure", rule("weird.user", "absent")).await["action"], "already_absent");
    assert_eq!(
        micro.done("sudoers.ensure", rule("weird_user", "present")).await["action"],
        "already_present"
    );
    assert_eq!(micro.done("sudoers.ensure", rule("weird_user", "absent")).await["action"], "removed");
    assert_eq!(sh(&mut micro, "ls -A /etc/sudoers.d").await, "");
}

#[tokio::test]
async fn sshd_is_hardened_and_never_locked_out() {
    let dir = tempfile::tempdir().unwrap();
    let prepare = "printf 'Include /etc/ssh/sshd_config.d/*.conf\\nHostKey /etc/ssh/ssh_host_ed25519_key\\nPort 22\\n\
                   PidFile /run/sshd.pid\\nAddressFamily inet\\nUsePAM no\\nMatch User nobody\\n  PasswordAuthentication yes\\n' >/etc/ssh/sshd_config; \
                   mkdir -p /etc/ssh/sshd_config.d; printf 'passwordauthentication yes\\n' >/etc/ssh/sshd_config.d/50-cloud.conf; \
                   [ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; \
                   chown -R 0 /etc/ssh; mkdir -p /run/sshd; /usr/sbin/sshd";
    let mut micro = start(dir.path(), prepare).await;
    let main = "cat /etc/ssh/sshd_config";
    let before = sh(&mut micro, main).await;
    let all = json!({ "disable_password_auth": true, "disable_root_login": true, "port": 2222, "test_connection": true });
    // A dry run changes nothing, not even the backup.
    let mut dry = all.clone();
    dry["dry_run"] = true.into();
    assert_eq!(micro.done("sshd.harden", dry).await["changed"], true);
    assert_eq!(
        (sh(&mut micro, main).await, sh(&mut micro, "ls /etc/ssh/*.bak").await.contains("No such")),
        (before.clone(), true)
    );
    let result = micro.done("sshd.harden", all.clone()).await;
    assert_eq!(result["modified_keys"], json!(["PasswordAuthentication", "PermitRootLogin", "Port"]));
    assert_eq!((&result["changed"], &result["service_action"]), (&json!(true), &json!("reloaded")));
    let after = sh(&mut micro, main).await;
    let expected =
        before.replace("Port 22\n", "Port 2222\n").replace("Match User", "PermitRootLogin no\nMatch User");
    assert_eq!(after, expected);
    assert_eq!(
        sh(&mut micro, "cat /etc/ssh/sshd_config.d/50-cloud.conf").await,
        "PasswordAuthentication no\n"
    );
    assert_eq!(sh(&mut micro, "cat /etc/ssh/sshd_config.bak").await, before);
    let greets = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/2222; head -c 4 <&3'";
    assert_eq!(sh(&mut micro, greets).await, "SSH-");
    assert_eq!(micro.done("sshd.harden", all).await["changed"], false);
    // The port is taken: sshd comes up without it, and all is taken back.
    let squat = "setsid python3 -c 'import socket,time; s=socket.socket(); s.bind((\"0.0.0.0\",2323)); s.listen(); time.sleep(99)' \
                 >/dev/null 2>&1 </dev/null & sleep 0.5";
    sh(&mut micro, squat).await;
    let error = micro.error("sshd.harden", json!({ "port": 2323, "test_connection": true })).await;
    assert!(error["message"].as_str().unwrap().contains("no sshd answers on"), "{error}");
    assert_eq!(sh(&mut micro, main).await, after);
    // So it is if systemd can't reload.
    sh(&mut micro, ": >/tmp/no-reload").await;
    sh(&mut micro, "mkdir -p /run/systemd/system").await;
    let error = micro.error("sshd.harden", json!({ "allow_users": ["root"] })).await;
    assert!(
        error["message"].as_str().unwrap().starts_with("failed to reload sshd: exit status 1"),
        "{error}"
    );
    assert_eq!(sh(&mut micro, main).await, after);
    // What a `Match all` would undo, or sshd would not read, is never put in place.
    sh(&mut micro, "cp /etc/ssh/sshd_config /tmp/good; echo Nonsense yes >>/etc/ssh/sshd_config").await;
    let broken = sh(&mut micro, main).await;
    let error = micro.error("sshd.harden", json!({ "allow_users": ["root"] })).await;
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("sshd config test failed: sshd -t failed: exit status"),
        "{error}"
    );
    assert_eq!(sh(&mut micro, main).await, broken);
    for (params, message) in [
        (
            json!({ "allow_users": ["a\nPermitRootLogin yes"] }),
            "allow_users: \"a\\nPermitRootLogin yes\" is not a pattern of users",
        ),
        (json!({ "port": 70000 }), "port: 70000 is not between 1 and 65535"),
    ] {
        assert_eq!(micro.error("sshd.harden", params).await["message"], message);
    }
    assert_eq!(sh(&mut micro, "ls -A /tmp | grep -c legwork-sshd").await, "0\n", "a draft was left");
}

#[tokio::test]
async fn a_full_disk_loses_neither_the_old_file_nor_the_runner() {
    let dir = tempfile::tempdir().unwrap();
    let mut micro = start(
        dir.path(),
        "mkdir /tmp/small; mount -t tmpfs -o size=64k tmpfs /tmp/small; echo old >/tmp/small/f",
    )
    .await;
    let content = "x".repeat(200_000);
    let error = micro.error("file.write", json!({ "path": "/tmp/small/f", "content": content })).await;
    assert_eq!(error["message"], "failed to write file: no space left on device");
    assert_eq!(sh(&mut micro, "cat /tmp/small/f; ls -A /tmp/small").await, "old\nf\n");
}

#[tokio::test]
async fn a_mounted_file_is_written_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let prepare = "echo a >/tmp/behind; : >/tmp/f; mount --bind /tmp/behind /tmp/f";
    let mut micro = start(dir.path(), prepare).await;
    micro.done("file.write", json!({ "path": "/tmp/f", "content": "b\n" })).await;
    assert_eq!(sh(&mut micro, "cat /tmp/behind").await, "b\n");
}

#[tokio::test]
async fn sudo_is_asked_once_and_the_password_goes_nowhere_else() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED HERE: a host with another user and sudo needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let prepare = "for f in passwd shadow group sudoers; do cp -a /etc/$f /run/h/$f; mount --bind /run/h/$f /etc/$f; done; \
                   echo 'tester:x:4242:4242::/tmp:/bin/sh' >>/etc/passwd; \
                   echo \"tester:$(openssl passwd -6 hunter2):19000:0:99999:7:::\" >>/etc/shadow; \
                   printf 'Defaults !lecture\\ntester ALL=(ALL) ALL\\n' >/etc/sudoers; chmod 440 /etc/sudoers; \
                   mkdir -p /run/sudo; install -o 4242 -m 700 -d /tmp/t; cp /tmp/micro-runner /tmp/t/; chown 4242 /tmp/t/micro-runner; cd /tmp/t";
    let mut command = host(&doubles(dir.path()), prepare);
    command.args(["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "/tmp/t/micro-runner"]);
    let mut micro = Micro::from_command(command).await;
    micro.message().await;
    let with = |more: Value| {
        let mut params =
            json!({ "use_sudo": true, "sudo_password": "hunter2", "capture_out": true, "capture_err": true });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    // Without a password it says so at once, instead of waiting at a terminal.
    let refused = micro.done("exec", with(json!({ "command": "id -u", "sudo_password": "" }))).await;
    assert!(
        refused["exit_code"] == 1 && refused["stderr"].as_str().unwrap().contains("password is required"),
        "{refused}"
    );
    let wrong =
        micro.error("exec", with(json!({ "command": "id -u", "sudo_password": "Secr3t-wrong" }))).await;
    assert!(wrong["message"].as_str().unwrap().starts_with("sudo authentication failed"), "{wrong}");
    assert!(!wrong.to_string().contains("Secr3t"), "{wrong}");
    let right = micro.done("exec", with(json!({ "command": "id -u; cat" }))).await;
    assert_eq!(
        (&right["stdout"], right.get("stderr")),
        (&json!("0\n"), None),
        "the password is not in its input"
    );
    // A file of root's, though sudo would not have asked again.
    let write =
        with(json!({ "path": "/etc/sudoers.d/x", "content": "# x\n", "create": true, "mode": "0440" }));
    let result = micro.done("file.write", write.clone()).await;
    assert_eq!(result["created"], true);
    let read = micro.done("file.read", with(json!({ "path": "/etc/sudoers.d/x" }))).await;
    assert_eq!(
        (&read["content"], &read["owner"], &read["mode"]),
        (&json!("# x\n"), &json!("0"), &json!("0440"))
    );
    let rule = json!({ "user": "deploy", "state": "present" });
    assert_eq!(micro.done("sudoers.ensure", with(rule)).await["action"], "created");
    // What runs as root is ended, too, when its time is over.
    let script = "echo $$ >/tmp/t/pid; setsid sleep 77 & sleep 78";
    let (_, answer) = micro.call("exec", 1, with(json!({ "command": script }))).await;
    assert_eq!(answer["data"]["result"]["exit_code"], -1);
    let begun = Instant::now();
    while sh(&mut micro, "pgrep -x sleep | wc -l").await != "0\n" {
        assert!(begun.elapsed() < DEADLINE, "what ran as root is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_real_systemd_does_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let prepare = "printf '[Service]\\nExecStart=/bin/sleep infinity\\nExecReload=/bin/true\\n[Install]\\n\
                   WantedBy=multi-user.target\\n' >etc/systemd/system/legwork-probe.service; \
                   u() { printf '[Unit]\\nDescription=legwork says why\\n[Service]\\n%b\\n' \"$2\" >etc/systemd/system/$1.service; }; \
                   u dies 'ExecStart=/bin/sh -c \"sleep 0.2; exit 3\"'; u ends 'ExecStart=/bin/true'; \
                   u loops 'ExecStart=/bin/false\\nRestart=always\\nRestartSec=5'; u once 'Type=oneshot\\nExecStart=/bin/true'; \
                   printf '#!/bin/sh\\ntrap \"exit 4\" HUP\\nwhile :; do sleep 0.05; done\\n' >etc/dies; chmod +x etc/dies; \
                   u dies-on-reload 'ExecStart=/etc/dies\\nExecReload=/bin/kill -HUP $MAINPID'; \
                   rm -rf etc/ssh/sshd_config.d/*; printf 'Port 22\\nUsePAM no\\n' >etc/ssh/sshd_config; \
                   chroot . ssh-keygen -A >/dev/null";
    let Some(host) = Booted::boot(dir.path(), prepare).await else { return };
    let mut micro = Micro::from_command(host.command(&["/micro-runner"])).await;
    micro.message().await;
    for (action, done, status, sub_state, enabled) in [
        ("start", "started", "active", "running", false),
        ("start", "already_started", "active", "running", false),
        ("reload", "reloaded", "active", "running", false),
        ("restart", "restarted", "active", "running", false),
        ("enable", "enabled", "active", "running", true),
        ("enable", "already_enabled", "active", "running", true),
        ("disable", "disabled", "active", "running", false),
        ("disable", "already_disabled", "active", "running", false),
        ("stop", "stopped", "inactive", "dead", false),
        ("stop", "already_stopped", "inactive", "dead", false),
    ] {
        let result = micro.done("service.reload", json!({ "name": "legwork-probe", "action": action })).await;
        let expected = json!({ "changed": !done.starts_with("already"), "action": done, "status": status,
            "enabled": enabled, "sub_state": sub_state });
        assert_eq!(result, expected, "{action}");
    }
    // A start that the process does not survive is none; one that does its work and ends is.
    for (unit, action, why) in [
        ("dies", "start", "failed to start service: it did not stay up: failed (exit-code)"),
        ("dies", "restart", "failed to restart service: it did not stay up: failed (exit-code)"),
        ("ends", "restart", "failed to restart service: it did not stay up: inactive (success)"),
        ("loops", "restart", "failed to restart service: it did not stay up: activating (exit-code)"),
        ("dies-on-reload", "reload", "failed to reload service: it did not stay up: failed (exit-code)"),
    ] {
        if action == "reload" {
            micro.done("service.reload", json!({ "name": unit, "action": "start" })).await;
        }
        let error = micro.error("service.reload", json!({ "name": unit, "action": action })).await;
        // A process that is gone before systemd has ended its reload makes systemctl fail by itself.
        let early = action == "reload" && error["message"] == "failed to reload service: exit status 1";
        assert!(early || error["message"] == why, "{unit}: {error}");
        assert!(
            early
                || error["details"]["output"].as_str().unwrap().contains("legwork says why")
                || unit == "ends",
            "{error}"
        );
    }
    let once = micro.done("service.reload", json!({ "name": "once", "action": "restart" })).await;
    assert_eq!((&once["action"], &once["status"]), (&json!("restarted"), &json!("inactive")));
    let error = micro.error("service.reload", json!({ "name": "no-such", "action": "start" })).await;
    assert_eq!(error["message"], "failed to start service: exit status 5");
    assert!(error["details"]["output"].as_str().unwrap().contains("not found"), "{error}");
    // sshd is a service here, and comes up on its new port.
    assert_eq!(
        micro.done("service.reload", json!({ "name": "ssh", "action": "start" })).await["status"],
        "active"
    );
    let settings = json!({ "disable_password_auth": true, "port": 2222, "test_connection": true });
    assert_eq!(micro.done("sshd.harden", settings).await["service_action"], "reloaded");
    assert_eq!(sh(&mut micro, "bash -c 'exec 3<>/dev/tcp/127.0.0.1/2222; head -c 4 <&3'").await, "SSH-");
}
