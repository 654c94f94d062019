//! What happens when something goes wrong: races, dead and stopped supervisors, gates within
//! gates, other namespaces, floods.

use std::time::Duration;

use legwork_process::{Adoption, Limits, State, Stream, adopt};

use crate::kit::{Outcome, Yard, attacker, is_root, outcome, output, until};

/// Processes whose command line holds `mark`.
fn alive(mark: &str) -> Vec<i32> {
    let found = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| {
        let cmdline = std::fs::read(e.path().join("cmdline")).ok()?;
        let pid = e.file_name().to_str()?.parse().ok()?;
        String::from_utf8_lossy(&cmdline).contains(mark).then_some(pid)
    });
    found.collect()
}

fn supervisor_of(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().to_owned()
}

fn signal(signal: &str, pid: &str) {
    assert!(std::process::Command::new("kill").args([signal, pid]).status().unwrap().success());
}

#[tokio::test]
async fn a_program_that_rewrites_its_arguments_by_a_thread_wins_and_strict_keeps_it_out() {
    let line = "./attacker race /usr/bin/echo harmless OWNED 300";
    let wins = |o: &Outcome| o.stdout.lines().filter(|l| *l == "OWNED").count();
    let mut yard = Yard::new(&["./attacker *", "echo harmless"]);
    if !attacker(&yard) {
        eprintln!("NOT TESTED HERE: races: no C compiler");
        return;
    }
    let outcome = yard.run(line).await;
    // The kernel reads the arguments again: this is what the gate does not hold.
    assert!(wins(&outcome) > 0, "{}", outcome.all());
    yard.gate.strict = true;
    let outcome = yard.run(line).await;
    assert_eq!(wins(&outcome), 0, "{}", outcome.all());
    assert!(outcome.denial("/usr/bin/echo").reason.contains("strict"), "{}", outcome.all());
    // Those that wait for what they start share nothing with anybody who runs.
    let outcome =
        yard.run("./attacker vfork /usr/bin/echo; ./attacker spawn /usr/bin/echo; echo harmless").await;
    assert!(outcome.stdout.ends_with("harmless\n"), "{}", outcome.all());
    assert_eq!(outcome.denied(), ["echo"], "{}", outcome.all());
}

#[tokio::test]
async fn calls_with_nothing_in_them_are_errors_and_do_not_pass() {
    let yard = Yard::new(&["./attacker *"]);
    if !attacker(&yard) {
        eprintln!("NOT TESTED HERE: bad pointers: no C compiler");
        return;
    }
    let outcome = yard.run("./attacker null /usr/bin/true").await;
    for what in ["null", "bad list", "bad text", "bad path"] {
        assert!(outcome.stdout.contains(&format!("{what}: EACCES")), "{}", outcome.all());
    }
}

#[tokio::test]
async fn an_exec_that_fails_leaves_its_process_what_it_was() {
    let yard = Yard::new(&["./attacker *", "+./free *"]);
    if !attacker(&yard) {
        eprintln!("NOT TESTED HERE: a failed exec: no C compiler");
        return;
    }
    // Nothing that could be executed, under a name whose rule frees what it starts.
    yard.program("free", "\u{7f}ELF\u{2}no program");
    let outcome = yard.run("./attacker failing /usr/bin/id ./free").await;
    assert!(outcome.stdout.contains("first: ENOEXEC"), "{}", outcome.all());
    assert!(outcome.stdout.contains("exec: EACCES"), "{}", outcome.all());
}

#[tokio::test]
async fn without_its_supervisor_nothing_of_a_tree_is_executed() {
    let yard = Yard::new(&["sleep *", "echo *", "touch *", "id *"]);
    let line = "echo up; sleep 4801 & while :; do id -u >/dev/null 2>o || { echo gone; cat o; break; }; done; \
                echo after; touch owned; echo end; wait";
    let (running, file) = yard.start(&yard.spec(line, true));
    until("it is up", || output(&file).0.contains("up\n")).await;
    until("it sleeps", || alive("sleep\u{0}4801").len() == 1).await;
    let shell = alive("sleep 4801 & while");
    let shell = *shell.iter().min().unwrap();
    signal("-9", &supervisor_of(shell));
    until("it is lost", || matches!(adopt(&file), Adoption::Lost(_))).await;
    until("the shell has noticed", || {
        alive("4801").iter().all(|p| *p != shell)
            || !yard.work.join("o").exists()
            || std::fs::metadata(yard.work.join("o")).unwrap().len() > 0
    })
    .await;
    assert!(!yard.work.join("owned").exists());
    drop(running);
    for pid in alive("4801") {
        signal("-9", &pid.to_string());
    }
}

#[tokio::test]
async fn a_stopped_supervisor_holds_execs_up_and_they_go_on_with_it() {
    let yard = Yard::new(&["sleep *", "true *", "true"]);
    let line = "echo up; read -t 1 x < <(sleep 4802); n=0; for i in 1 2 3 4 5; do /bin/true; done; echo through; id -u";
    let (running, file) = yard.start(&yard.spec(line, true));
    until("it is up", || output(&file).0.contains("up\n")).await;
    let shell = *alive("read -t 1 x").iter().min().unwrap();
    let supervisor = supervisor_of(shell);
    signal("-STOP", &supervisor);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    signal("-CONT", &supervisor);
    let outcome = outcome(&running, &file).await;
    assert!(outcome.stdout.contains("through\n"), "{}", outcome.all());
    assert_eq!(outcome.denied(), ["id"]);
    for pid in alive("sleep\u{0}4802") {
        signal("-9", &pid.to_string());
    }
}

#[tokio::test]
async fn what_is_left_running_goes_on_to_be_judged_after_the_command_has_ended() {
    let yard = Yard::new(&["sleep *", "touch *"]);
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let mut spec = yard.spec("{ sleep 1.4803; touch later; id > owned; } > /dev/null 2>&1 & echo end", true);
    spec.limits = limits;
    let (running, file) = yard.start(&spec);
    let outcome = outcome(&running, &file).await;
    assert_eq!((outcome.stdout.as_str(), outcome.status.exit_code), ("end\n", Some(0)));
    assert!(!yard.work.join("later").exists());
    // Its file is nobody's any more.
    assert!(matches!(adopt(&file), Adoption::Ended(_)));
    until("it has gone on", || yard.work.join("later").exists()).await;
    until("it has ended", || alive("1.4803").is_empty()).await;
    assert_eq!(std::fs::read_to_string(yard.work.join("owned")).unwrap_or_default(), "");
}

#[tokio::test]
async fn a_command_is_killed_while_its_execs_wait() {
    let yard = Yard::new(&["true *", "true", "sleep *"]);
    let line = "f() { while :; do /bin/true 4804; done; }; f & f & f & f & f & f & sleep 4804";
    let mut spec = yard.spec(line, true);
    spec.limits = Limits {
        timeout: Some(Duration::from_millis(700)),
        grace: Duration::from_millis(300),
        ..Limits::default()
    };
    let outcome = yard.run_spec(&spec).await;
    assert_eq!(outcome.status.state, State::Ended, "{}", outcome.all());
    assert!(outcome.status.ended_by.is_some(), "{}", outcome.all());
    until("all of it is gone", || alive("4804").is_empty()).await;
}

#[tokio::test]
async fn thousands_of_execs_at_once_are_all_judged() {
    let yard = Yard::new(&["./attacker *", "true", "true *"]);
    if !attacker(&yard) {
        eprintln!("NOT TESTED HERE: floods: no C compiler");
        return;
    }
    let outcome = yard
        .run("for i in 1 2 3 4; do ./attacker many /usr/bin/true 600 & done; wait; ./attacker many /usr/bin/id 50")
        .await;
    assert_eq!(outcome.stdout, "bad 0\nbad 0\nbad 0\nbad 0\nbad 50\n", "{}", outcome.all());
    assert_eq!(outcome.denied(), ["/usr/bin/id"], "{}", outcome.all());
}

#[tokio::test]
async fn a_gate_within_a_gate_can_t_be_had_and_says_so() {
    let yard = Yard::new(&["./attacker *"]);
    if !attacker(&yard) {
        eprintln!("NOT TESTED HERE: nested gates: no C compiler");
        return;
    }
    let outcome = yard.run("./attacker listener").await;
    assert!(outcome.stdout.contains("listener: EBUSY"), "{}", outcome.all());
    assert!(outcome.stdout.contains("exec: EACCES"), "{}", outcome.all());
}

#[tokio::test]
async fn namespaces_of_a_commands_own_do_not_lead_past_the_gate() {
    let yard = Yard::new(&[
        "unshare *",
        "mount *",
        "bash *",
        "mkdir *",
        "ls *",
        "cp *",
        "chroot *",
        "/bash *",
        "echo *",
    ]);
    for (name, line) in [
        ("user", "unshare -Ur id -u"),
        ("processes", "unshare -Urpf --mount-proc id -u"),
        ("network", "unshare -Urn id -u"),
        ("a script", "echo 'id -u' > t; unshare -Urn bash t"),
        // Another program in an allowed one's place, seen by the command alone.
        ("mounts", "echo 'mount --bind /usr/bin/id /usr/bin/ls && ls -u' > t; unshare -Urm bash t"),
        (
            "mounts, by path",
            "echo 'mount --bind /usr/bin/id /usr/bin/df && /usr/bin/df -u' > t; unshare -Urm bash t",
        ),
    ] {
        let wanted = |o: &Outcome| o.stdout.lines().any(|l| l == "0");
        let control = Yard::new(&["*"]).run_free(line).await;
        if !wanted(&control) {
            eprintln!("NO CONTROL HERE: namespaces, {name}: {}", control.all());
            continue;
        }
        let outcome = yard.run(line).await;
        assert!(!wanted(&outcome), "{name}: {}", outcome.all());
        assert!(!outcome.status.denied.is_empty(), "{name}: {}", outcome.all());
    }
    // What is allowed runs there as well.
    let line = "echo 'ls /usr/share > /dev/null && echo fine' > s; unshare -Urpf --mount-proc bash s";
    if Yard::new(&["*"]).run_free(line).await.ok() {
        let outcome = Yard::new(&["unshare *", "bash *", "ls *", "echo *"]).run(line).await;
        assert_eq!(outcome.stdout, "fine\n", "{}", outcome.all());
    }
}

#[tokio::test]
async fn who_changes_the_user_stays_judged() {
    if !is_root() {
        eprintln!("NOT TESTED HERE: setuid programs: a plain user gives them up");
        return;
    }
    let yard = Yard::new(&["sudo *", "bash *", "setpriv *", "echo *", "runuser *"]);
    std::fs::write(yard.work.join("s"), "echo in $UID; id -u\n").unwrap();
    for line in [
        "sudo -n -u nobody bash s",
        "setpriv --reuid=65534 --clear-groups bash s",
        "runuser -u nobody -- bash s",
    ] {
        if !yard.run_free(line).await.stdout.contains("65534\n65534\n") {
            eprintln!("NO CONTROL HERE: another user by {line}");
            continue;
        }
        let outcome = yard.run(line).await;
        assert_eq!(outcome.stdout, "in 65534\n", "{line}: {}", outcome.all());
        assert_eq!(outcome.denied(), ["id"], "{line}: {}", outcome.all());
    }
}

#[tokio::test]
async fn a_terminals_commands_are_judged() {
    use legwork_process::{Cursor, Io, Size};
    let yard = Yard::new(&["stty *", "echo *"]);
    let mut spec = yard.spec("", true);
    spec.argv = ["/bin/bash", "--noprofile", "--norc", "-i"].map(String::from).to_vec();
    spec.io = Io::Terminal(Size { cols: 80, rows: 24 });
    let (running, file) = yard.start(&spec);
    running.input(b"stty size; id -u; echo E''ND\n");
    let seen = || {
        let mut cursor = Cursor::open(&file, 0, 0).unwrap();
        let mut text = String::new();
        while let Some(chunk) = cursor.next(1 << 20).unwrap() {
            assert_eq!(chunk.stream, Stream::Stdout);
            text.push_str(&String::from_utf8_lossy(&chunk.data));
        }
        text
    };
    until("it has answered", || seen().contains("END\r\n")).await;
    assert!(seen().contains("24 80") && seen().contains("Permission denied"), "{}", seen());
    running.input(b"exit\n");
    assert_eq!(outcome(&running, &file).await.denied(), ["id"]);
}

#[tokio::test]
async fn a_program_with_a_fast_timer_gets_its_exec_however_many_wait() {
    let yard = Yard::new(&["./attacker *", "true", "true *", "echo *", "/usr/bin/echo *"]);
    if !attacker(&yard) {
        eprintln!("NOT TESTED HERE: timers: no C compiler");
        return;
    }
    let line = "./attacker many /usr/bin/true 400 & ./attacker many /usr/bin/true 400 & \
                for i in {1..20}; do ./attacker timer /usr/bin/echo restart; done; wait";
    let outcome = yard.run(line).await;
    assert_eq!(outcome.stdout.matches("-u\n").count(), 20, "{}", outcome.all());
}
