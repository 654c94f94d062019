//! What the shell itself writes, where its target is computed.

use crate::kit::{Yard, attacker};

fn yard() -> Yard {
    let mut yard = Yard::new(&[
        "echo *",
        "cat *",
        "ln *",
        "mkdir *",
        "tee *",
        "cp *",
        "read *",
        "mkfifo *",
        "sleep *",
        "stat *",
        "bash *",
        "umask *",
        "cd *",
        "find *",
        "rm *",
        "runuser *",
        "chmod *",
        "./attacker *",
        "> out/*",
        "> *.log",
    ]);
    yard.gate.writes = true;
    std::fs::create_dir(yard.work.join("out")).unwrap();
    std::fs::write(yard.work.join("secret"), "kept\n").unwrap();
    yard
}

#[tokio::test]
async fn the_shell_writes_where_a_rule_lets_it_and_nowhere_else() {
    for (what, line) in [
        ("a variable", "f=sec; echo x > ${f}ret"),
        ("appending", "f=sec; echo x >> ${f}ret"),
        ("both streams", "f=sec; echo x &> ${f}ret"),
        ("reading and writing", "f=sec; echo x 1<> ${f}ret"),
        ("clobbering", "set -C; f=sec; echo x >| ${f}ret"),
        ("a descriptor of its own", "f=sec; exec 7> ${f}ret; echo x >&7"),
        ("a subshell", "f=sec; (echo x > ${f}ret)"),
        ("in the background", "f=sec; { echo x > ${f}ret; } & wait"),
        ("a link", "ln -s ../secret out/l; f=l; echo x > out/$f"),
        ("a link in the folder", "ln -s .. out/d; f=d; echo x > out/$f/secret"),
        ("..", "f=..; echo x > out/$f/secret"),
        ("another folder", "cd out; f=..; echo x > $f/secret"),
        ("a descriptor open for reading", "exec 7< secret; f=7; echo x > /dev/fd/$f"),
        ("the same by /proc", "exec 7< secret; f=7; echo x > /proc/self/fd/$f"),
        ("by a program of the shell's own for", "f=secret; cat /dev/null > $f"),
        ("a hard link", "ln secret out/h; f=h; echo x > out/$f"),
        ("a hard link, appended to", "ln secret out/h; f=h; echo x >> out/$f"),
        ("a hard link by a descriptor", "ln secret out/h; exec 7< out/h; echo x > /dev/fd/7"),
        // By shells that the line starts.
        ("a link, by a shell", "ln -s ../secret out/l; bash -c 'echo x > out/l'"),
        ("a link, by a shell and its subshell", "ln -s ../secret out/l; bash -c '(echo x > out/l); echo'"),
        ("a link in the folder, by a shell", "ln -s .. out/d; bash -c 'echo x > out/d/secret'"),
        (
            "another folder, by a shell",
            "mkdir -p out/out; ln -s ../../secret out/out/x; bash -c 'cd out; echo x > out/x'",
        ),
        ("a hard link, by a shell", "ln secret out/h; bash -c 'echo x > out/h'"),
        (
            "a link, by a shell of a program",
            "ln -s ../secret out/l; find secret -exec bash -c 'echo x > out/l' ';'",
        ),
        ("a file that is read in", "echo 'echo x > secret' > out/s; . out/s"),
        (
            "a link, by a file that is read in",
            "ln -s ../secret out/l; echo 'echo x > out/l' > out/s; source out/s",
        ),
        (
            "a link, by another user's shell",
            "chmod a+w . secret; ln -s ../secret out/l; runuser -u nobody -- bash -c 'echo x > out/l'",
        ),
        ("a link, by a shell of a shell", "ln -s ../secret out/l; bash -c \"bash -c 'echo x > out/l'\""),
    ] {
        let (judged, free) = (yard(), yard());
        let shown = free.run_free(line).await;
        let control = std::fs::read_to_string(free.work.join("secret")).unwrap();
        if line.contains("runuser") && control == "kept\n" {
            eprintln!("NO CONTROL HERE: {what}: {}", shown.all());
            continue;
        }
        assert_ne!(control, "kept\n", "{what}: the control shows nothing");
        let outcome = judged.run(line).await;
        let kept = std::fs::read_to_string(judged.work.join("secret")).unwrap();
        assert_eq!(kept, "kept\n", "{what}: {}", outcome.all());
        let denied = outcome.denied();
        let named = |denied: &&str| ["/work/secret", "/work/out/h"].iter().any(|end| denied.ends_with(end));
        assert!(denied.len() == 1 && denied.iter().all(named), "{what}: {}", outcome.all());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_is_what_is_written_however_links_turn() {
    // Long enough for both to happen: what was judged, and the link elsewhere.
    let write = |target: &str| format!("for i in {{1..1500}}; do echo OWNED > {target}; done 2>/dev/null");
    for (what, turned, other, good, line) in [
        ("a file", "out/l", "../secret", "good", format!("f=l; {}", write("out/$f"))),
        ("a folder", "out/d", "..", "inner", format!("f=d; {}", write("out/$f/secret"))),
        ("a file, by a shell", "out/l", "../secret", "good", format!("bash -c '{}'", write("out/l"))),
        ("a file that is not there yet", "out/l", "../new", "good", format!("f=l; {}", write("out/$f"))),
    ] {
        let (judged, free) = (yard(), yard());
        if !(attacker(&judged) && attacker(&free)) {
            eprintln!("NOT TESTED HERE: links that turn: no C compiler");
            return;
        }
        let line = format!("./attacker turn {turned} {other} {good} 3 & {line}; wait");
        let written = |yard: &Yard| {
            let read = |name: &str| std::fs::read_to_string(yard.work.join(name)).unwrap_or_default();
            [read("secret"), read("new")].concat().contains("OWNED")
        };
        for yard in [&judged, &free] {
            std::fs::create_dir(yard.work.join("out/inner")).unwrap();
        }
        // It is a race: on a busy machine not each try shows it.
        for _ in 0..8 {
            free.run_free(&line).await;
            if written(&free) {
                break;
            }
        }
        assert!(written(&free), "{what}: the control shows nothing");
        let outcome = judged.run(&line).await;
        assert!(!written(&judged), "{what}: {}", outcome.all());
        // It was a race: some were written where they may be.
        let good = ["out/good", "out/inner/secret"].iter().any(|name| judged.work.join(name).exists());
        assert!(good && outcome.ok(), "{what}: {}", outcome.all());
    }
}

#[tokio::test]
async fn files_are_made_as_the_shell_would_make_them() {
    let yard = yard();
    for (line, wanted) in [
        (
            "umask 077; f=a; echo x > out/$f; umask 002; echo x > out/b$f; stat -c %a out/a out/ba",
            "600\n664\n",
        ),
        ("bash -c 'umask 027; echo x > out/c'; stat -c %a out/c", "640\n"),
        ("set -C; f=d; echo x > out/$f; echo y > out/$f || echo kept; cat out/d", "kept\nx\n"),
        (
            "set -C; ln -s gone out/e; f=e; echo y > out/$f || echo kept; cat out/gone 2>&1 || echo none",
            "kept\nnone\n",
        ),
        ("f=f; echo x > out/$f; echo y >> out/$f; echo zz 1<> out/$f; cat out/f", "zz\n\n"),
        ("f=g; echo x > out/$f/ || echo none", "none\n"),
        ("f=g; echo x > out/no/$f || echo none", "none\n"),
        // A shell's own file at a rule that spells it whole, and what programs write.
        ("bash -c 'cp secret any; cat any'", "kept\n"),
        // A pipe with a name waits for who reads it, whoever comes first.
        ("mkfifo out/p; f=p; { echo x > out/$f; } & sleep 0.2; cat out/p; wait", "x\n"),
        ("f=p; { cat out/p; } & sleep 0.2; echo y > out/$f; wait", "y\n"),
        ("f=p; echo z 1<> out/$f; echo through", "through\n"),
        ("f=p; { echo x > out/$f; } & sleep 0.2; kill $!; wait; echo killed", "killed\n"),
        ("f=/dev/full; echo x > $f; echo $?", "1\n"),
    ] {
        let outcome = yard.run(line).await;
        let stdout = outcome.stdout.replace("cat: out/gone: No such file or directory\n", "");
        let denied: Vec<&str> =
            outcome.denied().into_iter().filter(|denied| *denied != "> /dev/full").collect();
        assert_eq!((stdout.as_str(), denied), (wanted, vec![]), "{line}: {}", outcome.all());
    }
}

#[tokio::test]
async fn a_link_to_what_is_not_there_makes_nothing_elsewhere() {
    let yard = yard();
    let outcome = yard.run("ln -s ../new out/l; f=l; echo x > out/$f").await;
    assert!(!yard.work.join("new").exists(), "{}", outcome.all());
    assert!(outcome.denied()[0].ends_with("/work/new"), "{}", outcome.all());
}

#[tokio::test]
async fn a_shell_that_runs_a_script_writes_what_it_likes() {
    // This is what the gate does not hold: a rule for `bash FILE` is one for all that it does itself.
    for line in ["bash out/s", "sh out/s"] {
        let mut yard = yard();
        yard.gate.rules = crate::kit::rules(&["bash *", "sh *", "> out/*"]).with_exec_gate(true);
        std::fs::write(yard.work.join("out/s"), "echo x > secret\n").unwrap();
        let outcome = yard.run(line).await;
        assert!(outcome.ok(), "{line}: {}", outcome.all());
        assert_eq!(std::fs::read_to_string(yard.work.join("secret")).unwrap(), "x\n", "{line}");
    }
}

#[tokio::test]
async fn what_rules_allow_and_what_is_no_file_is_written() {
    let yard = yard();
    for (line, wanted) in [
        ("f=a; echo x > out/$f; cat out/a", "x\n"),
        ("cd out; f=b; echo x > $f; cat b", "x\n"),
        ("f=a.log; echo x > $f; cat a.log", "x\n"),
        ("f=/dev/null; echo x > $f; echo y 2> $f", "y\n"),
        ("f=/dev/stdout; echo x > $f", "x\n"),
        ("f=1; echo x > /dev/fd/$f", "x\n"),
        ("cat <(echo x)", "x\n"),
        ("cat <<< \"$(for i in {1..20000}; do echo xxxxxxx; done)\" | { read -r l; echo $l; }", "xxxxxxx\n"),
        ("echo x | cat", "x\n"),
        // Programs write what their rules let them.
        ("echo x | tee any; cp secret other; cat any", "x\nx\n"),
    ] {
        let outcome = yard.run(line).await;
        assert_eq!(
            (outcome.stdout.as_str(), outcome.denied()),
            (wanted, vec![]),
            "{line}: {}",
            outcome.all()
        );
    }
}
