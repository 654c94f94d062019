//! What the shell itself writes, where its target is computed.

use crate::kit::Yard;

fn yard() -> Yard {
    let mut yard =
        Yard::new(&["echo *", "cat *", "ln *", "mkdir *", "tee *", "cp *", "read *", "> out/*", "> *.log"]);
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
    ] {
        let (judged, free) = (yard(), yard());
        free.run_free(line).await;
        let control = std::fs::read_to_string(free.work.join("secret")).unwrap();
        assert_ne!(control, "kept\n", "{what}: the control shows nothing");
        let outcome = judged.run(line).await;
        let kept = std::fs::read_to_string(judged.work.join("secret")).unwrap();
        assert_eq!(kept, "kept\n", "{what}: {}", outcome.all());
        let denied = outcome.denied();
        assert!(denied.len() == 1 && denied[0].ends_with("/work/secret"), "{what}: {}", outcome.all());
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
