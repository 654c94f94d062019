//! Ordinary work is not in the gate's way.

use std::os::unix::fs::PermissionsExt;

use crate::kit::{PATH, Yard, attacker, is_root};

#[tokio::test]
async fn what_no_rule_allows_is_denied_where_it_is_executed() {
    let yard = Yard::new(&["ls *", "echo *"]);
    let outcome = yard.run("ls /; cmd=i; cmd+=d; $cmd -u; echo $?").await;
    assert!(outcome.ok(), "{}", outcome.all());
    assert!(outcome.stdout.contains("usr") && outcome.stdout.ends_with("126\n"), "{}", outcome.all());
    assert!(outcome.stderr.contains("Permission denied"), "{}", outcome.all());
    assert_eq!(outcome.denied(), ["id"]);
    let denial = outcome.denial("id");
    assert_eq!((denial.command.as_str(), denial.rule.as_deref()), ("id -u", None));
    assert!(yard.run_free("cmd=i; cmd+=d; $cmd -u").await.ok());
}

#[tokio::test]
async fn programs_of_every_kind_run_by_their_rules() {
    let yard = Yard::new(&[
        "ls *", "cat *", "sort *", "grep *", "wc *", "xargs *", "find *", "sed *", "tar *", "gzip *",
        "env *", "sleep *", "true *", "./s *", "bash *", "sh *", "awk *", "seq *", "test *", "[ *",
        "mkdir *", "touch *",
    ]);
    yard.program("s", "#!/bin/bash\nls $0 | cat\n");
    for (line, wanted) in [
        ("printf 'b\\na\\n' | sort | cat", "a\nb\n"),
        ("ls s | xargs cat | wc -l", "2\n"),
        ("find . -name s -exec ls {} ';'", "./s\n"),
        ("./s", "./s\n"),
        ("bash s", "s\n"),
        ("sh -c 'ls s'", "s\n"),
        ("env ls s", "s\n"),
        ("tar -czf - s | tar -tzf -", "s\n"),
        ("awk 'BEGIN { print 1 }'", "1\n"),
        ("x=$(seq 3 | sort -r); echo $x", "3 2 1\n"),
        ("while read -r l; do [ $l = 2 ] && echo $l; done < <(seq 3)", "2\n"),
        ("(sleep 0.1; ls s) & wait", "s\n"),
        ("( ( (sleep 0.1; ls s; touch gone) & ) & ); until test -e gone; do sleep 0.02; done", "s\n"),
        ("exec ls s", "s\n"),
        ("set -m; ls s & wait; fg 2>/dev/null; true", "s\n"),
    ] {
        let _ = std::fs::remove_file(yard.work.join("gone"));
        let outcome = yard.run(line).await;
        assert_eq!(
            (outcome.stdout.as_str(), outcome.denied().as_slice()),
            (wanted, &[][..]),
            "{line}: {}",
            outcome.all()
        );
    }
}

#[tokio::test]
async fn what_fills_in_words_starts_and_its_programs_are_held_to_their_rules() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap().display().to_string();
    for file in ["ok/f", "secret"] {
        let file = dir.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "text\n").unwrap();
    }
    let cat = format!("cat {{path:{base}/ok}}");
    let yard = Yard::new(&[&cat, "ls *", "xargs *", "find *", "env *", "sh *"]);
    for (line, wanted, denied) in [
        ("echo BASE/ok/f | xargs cat", "text\n", None),
        ("find BASE/ok -name f -exec cat {} +", "text\n", None),
        ("find BASE/ok -name f -exec cat {} ';'", "text\n", None),
        ("cd BASE/ok; env FOO=1 ls", "f\n", None),
        ("cd BASE/ok; echo f | xargs -I{} sh -c 'ls {}'", "f\n", None),
        ("echo BASE/secret | xargs cat", "", Some("cat")),
        ("echo BASE/ok/f BASE/secret | xargs cat", "", Some("cat")),
        ("echo BASE/ok/../secret | xargs cat", "", Some("cat")),
        ("find BASE -name secret -exec cat {} +", "", Some("cat")),
        ("echo 'f; cat BASE/secret' | xargs -I{} sh -c 'ls {}'", "", Some("sh")),
        ("echo cat BASE/secret | xargs env", "", Some("env")),
        ("echo x | xargs id", "", Some("xargs")),
    ] {
        let line = line.replace("BASE", &base);
        let outcome = yard.run(&line).await;
        let found = (outcome.stdout.as_str(), outcome.denied().first().copied());
        assert_eq!(found, (wanted, denied), "{line}: {}", outcome.all());
    }
    // The answer names what is missing, and no rule that is there.
    let denial = yard.run("echo x | xargs id").await.denial("xargs").clone();
    assert!(denial.reason.contains("'id") && denial.remedy.contains("'id *': allow"), "{denial:?}");
}

#[tokio::test]
async fn a_rule_with_children_any_frees_the_whole_tree_beneath_it_and_nothing_beside() {
    let yard = Yard::new(&["+make *", "sleep *", "touch *", "test *"]);
    let makefile =
        "all:\n\t@id -u; bash -c 'bash -c \"id -g\"'; (setsid sh -c 'sleep 0.3; uname; touch gone' &)\n";
    std::fs::write(yard.work.join("Makefile"), makefile).unwrap();
    let outcome = yard.run("make; until test -e gone; do sleep 0.05; done; id -u; uname").await;
    let ids = format!("{}\n{}\n", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!(outcome.stdout, ids + "Linux\n", "{}", outcome.all());
    assert_eq!(outcome.denied(), ["id", "uname"], "{}", outcome.all());
    // Its own exec takes its place, and what was forked before does not become its child.
    let outcome =
        yard.run("{ sleep 0.3; id -u; } & exec make -s -f /dev/stdin <<< $'all:\\n\\t@sleep 0.6'").await;
    assert_eq!((outcome.stdout.as_str(), outcome.denied()), ("", vec!["id"]), "{}", outcome.all());
    // What is free executes what has no path, and by any call.
    let mut yard = Yard::new(&["+./attacker *", "+bash *"]);
    yard.gate.no_memfd = true;
    if attacker(&yard) {
        let uid = format!("{}\n", rustix::process::geteuid().as_raw());
        for mode in ["vfork", "fexec", "proc-fd", "open-fd", "int80"] {
            let control = yard.run_free(&format!("./attacker {mode}")).await;
            let outcome = yard.run(&format!("./attacker {mode}")).await;
            assert_eq!(outcome.stdout, control.stdout, "{mode}: {}", outcome.all());
            assert!(outcome.denied().is_empty(), "{mode}: {}", outcome.all());
        }
        let loader =
            "for l in /lib64/ld-linux-*.so.2 /lib/ld-linux-*.so.1; do [ ! -e $l ] || $l /usr/bin/id -u; done";
        std::fs::write(yard.work.join("s"), loader).unwrap();
        let outcome = yard.run("bash s").await;
        assert_eq!((outcome.stdout, outcome.status.denied.len()), (uid, 0));
    }
}

#[tokio::test]
async fn ldd_and_container_runtimes_do_their_work_where_a_rule_frees_them() {
    let ldd = "ldd /bin/ls";
    let control = Yard::new(&["*"]).run_free(ldd).await;
    let libraries = |text: &str| {
        let names = text.lines().filter_map(|line| line.split_whitespace().next().map(String::from));
        names.collect::<Vec<_>>()
    };
    let outcome = Yard::new(&["+ldd *"]).run(ldd).await;
    assert!(outcome.ok() && outcome.denied().is_empty(), "{}", outcome.all());
    assert_eq!(libraries(&outcome.stdout), libraries(&control.stdout), "{}", outcome.all());
    assert!(libraries(&control.stdout).len() > 2, "{}", control.all());
    // Its rule alone does not let it start the loader.
    let outcome = Yard::new(&["ldd *", "cat *"]).run(ldd).await;
    assert!(!outcome.ok() && !outcome.status.denied.is_empty(), "{}", outcome.all());

    // It copies itself into memory and goes on from there.
    let mut yard = Yard::new(&["+unshare *", "sh *"]);
    yard.gate.no_memfd = true;
    let bundle = yard.work.join("bundle");
    for folder in ["bin", "proc", "dev"] {
        std::fs::create_dir_all(bundle.join("root").join(folder)).unwrap();
    }
    let mount = |what: &str, at: &str| serde_json::json!({ "type": what, "source": what, "destination": at });
    let config = serde_json::json!({
        "ociVersion": "1.0.0",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/hello"], "cwd": "/", "env": [] },
        "root": { "path": "root" },
        "mounts": [mount("proc", "/proc"), mount("tmpfs", "/dev")],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "ipc" }] },
    });
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    if !hello(&bundle.join("root/bin/hello")) {
        eprintln!("NOT TESTED HERE: a container runtime: no C compiler that links statically");
        return;
    }
    // Whatever control groups the machine has, it sees those that it knows.
    let name = format!("legwork-gate-{}", std::process::id());
    let text = format!(
        "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup\n\
         exec crun --root {}/crun --cgroup-manager=disabled run -b bundle {name}\n",
        yard.dir.path().display()
    );
    std::fs::write(yard.work.join("s"), text).unwrap();
    let line = "unshare -m sh ./s".to_owned();
    let control = yard.run_free(&line).await;
    if control.stdout != "hello\n" {
        eprintln!("NO CONTROL HERE: a container runtime: {}", control.all());
        return;
    }
    let outcome = yard.run(&line).await;
    assert_eq!((outcome.stdout.as_str(), outcome.denied()), ("hello\n", vec![]), "{}", outcome.all());
    let rules = ["unshare *", "sh *", "umount *", "mount *", "crun *"];
    yard.gate.rules = crate::kit::rules(&rules).with_exec_gate(true);
    let outcome = yard.run(&line).await;
    assert!(outcome.stdout.is_empty(), "{}", outcome.all());
}

/// Makes a program that needs no library; false where none can be made.
fn hello(path: &std::path::Path) -> bool {
    let source = path.with_extension("c");
    std::fs::write(
        &source,
        "#include <unistd.h>\nint main(void) { return write(1, \"hello\\n\", 6) != 6; }\n",
    )
    .unwrap();
    let made = std::process::Command::new("cc").args(["-static", "-o"]).args([path, &source]).output();
    made.is_ok_and(|made| made.status.success())
}

#[tokio::test]
async fn a_script_that_only_the_operator_can_write_is_one_program() {
    if !is_root() {
        eprintln!("NOT TESTED HERE: an operator's scripts: only root can make them for others");
        return;
    }
    let bin = tempfile::Builder::new().prefix("legwork-bin-").tempdir_in("/var/lib").unwrap();
    std::fs::set_permissions(bin.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let put = |name: &str, text: &str| {
        let path = bin.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    put("tool", "#!/usr/bin/env bash\necho \"tool $*\"; id -u\n");
    let real = put("real-shim", "#!/bin/sh\nexit 1\n").parent().unwrap().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::copy("/usr/bin/uname", real.join("shim")).unwrap();
    put("shim", &format!("#!/bin/sh\nexec {}/shim \"$@\"\n", real.display()));
    put(
        "manager",
        &format!("#!/usr/bin/env bash\nsort /dev/null; exec {}/\"$2\" \"${{@:3}}\"\n", real.display()),
    );
    std::fs::copy("/usr/bin/uname", real.join("managed")).unwrap();
    put(
        "managed",
        &format!("#!/usr/bin/env bash\nexec {}/manager exec \"${{0##*/}}\" \"$@\"\n", bin.path().display()),
    );
    let mut yard = Yard::new(&["tool *", "shim *", "managed *"]);
    yard.env.insert("PATH".into(), format!("{}:{PATH}", bin.path().display()));
    let outcome = yard.run("tool a 'b c'").await;
    assert_eq!(
        (outcome.stdout.as_str(), outcome.denied()),
        ("tool a b c\n", vec!["id"]),
        "{}",
        outcome.all()
    );
    for line in ["shim -s", "managed -s"] {
        let outcome = yard.run(line).await;
        assert_eq!(
            (outcome.stdout.as_str(), outcome.denied()),
            ("Linux\n", vec![]),
            "{line}: {}",
            outcome.all()
        );
    }
    // Others can write it: then it is a script like any.
    std::fs::set_permissions(bin.path().join("tool"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let outcome = yard.run("tool a").await;
    assert!(outcome.denial("env").reason.contains("a script is its interpreter"), "{}", outcome.all());
}

#[tokio::test]
async fn long_arguments_and_deep_trees_are_judged_as_short_ones() {
    let yard = Yard::new(&["echo *", "/bin/echo *", "bash *", "true *", "printf *"]);
    let outcome = yard.run("/bin/echo $(printf 'x%.0s' {1..70000})").await;
    assert_eq!(outcome.stdout.len(), 70_001, "{:?}", outcome.status);
    let outcome = yard.run("/bin/echo $(printf ' x%.0s' {1..10000})").await;
    assert_eq!(outcome.stdout.len(), 20_000, "{:?}", outcome.status);
    // More than is judged is refused, and said so.
    let outcome = yard.run("export A=$(printf 'x%.0s' {1..120000}) B=$(printf 'x%.0s' {1..120000}) C=$(printf 'x%.0s' {1..40000}); /bin/echo x").await;
    assert!(outcome.denial("/bin/echo").reason.contains("longer than 256 KiB"), "{}", outcome.all());
    std::fs::write(yard.work.join("s"), "[ $1 -gt 0 ] && exec bash s $(($1 - 1)); echo bottom\n").unwrap();
    assert_eq!(yard.run("bash s 200").await.stdout, "bottom\n");
    std::fs::write(yard.work.join("t"), "[ $1 -gt 0 ] && { bash t $(($1 - 1)); exit; }; echo bottom; id\n")
        .unwrap();
    let outcome = yard.run("bash t 60").await;
    assert_eq!((outcome.stdout.as_str(), outcome.denied()), ("bottom\n", vec!["id"]), "{}", outcome.all());
}

#[tokio::test]
async fn the_list_of_programs_stands_alone() {
    use legwork_process::sandbox::{ProgramCache, can_list, probe};
    if !can_list(probe(PATH).landlock_abi) {
        eprintln!("NOT TESTED HERE: the list of programs: no Landlock");
        return;
    }
    let names = ["ls", "mv", "mkdir", "cat"].map(String::from);
    let mut yard = Yard::new(&["ls *", "mv *", "mkdir *", "cat *", "id *", "echo *"]);
    let list = ProgramCache::default().executables(&names, &[], std::path::Path::new("/bin/bash"), PATH);
    yard.gate.programs = Some(list);
    // A rule allows it and the list does not: the kernel itself says no.
    let outcome =
        yard.run("ls / > /dev/null && mkdir -p a b && echo x > a/f && mv a/f b/f && cat b/f; id -u").await;
    assert_eq!((outcome.stdout.as_str(), outcome.status.exit_code), ("x\n", Some(126)), "{}", outcome.all());
    assert!(outcome.denied().is_empty(), "{}", outcome.all());
}

#[tokio::test]
async fn a_carve_out_holds_for_every_name_of_the_file() {
    // A program of the operator's, on the file system of the workspace.
    let mut yard = Yard::new(&["*", "!wipe *"]);
    let bin = yard.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::copy("/usr/bin/uname", bin.join("wipe")).unwrap();
    yard.env.insert("PATH".into(), format!("{}:{PATH}", bin.display()));
    for line in [
        "wipe -s",
        "$(type -p wipe) -s",
        "ln ../bin/wipe x; ./x -s",
        "ln -s ../bin/wipe y; ./y -s",
        "exec -a z wipe -s",
    ] {
        let control = yard.run_free(line).await;
        assert!(control.stdout.contains("Linux"), "{line}: {}", control.all());
        let _ = std::fs::remove_file(yard.work.join("x"));
        let _ = std::fs::remove_file(yard.work.join("y"));
        let outcome = yard.run(line).await;
        let _ = std::fs::remove_file(yard.work.join("x"));
        let _ = std::fs::remove_file(yard.work.join("y"));
        assert!(
            !outcome.stdout.contains("Linux") && outcome.denied().len() == 1,
            "{line}: {}",
            outcome.all()
        );
    }
}
