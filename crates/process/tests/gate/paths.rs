//! Programs that are called by a path on which somebody turns a link meanwhile.

use crate::kit::{Yard, attacker};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_is_what_runs_however_links_on_its_path_turn() {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let often = |call: &str| format!("for i in {{1..100}}; do {call}; done 2>/dev/null");
    let attacks = [
        ("a link", "l", "/usr/bin/id", "good", often("./l -u")),
        ("a folder", "d", "/usr/bin", "inner", often("d/id -u")),
        ("a link, by xargs", "l", "/usr/bin/id", "good", "yes -- -u | head -100 | xargs -n 1 ./l".into()),
        ("a link to a script", "l", "/usr/bin/id", "script", often("./l -u")),
        ("a link to what is no program", "l", "/usr/bin/id", "text", often("./l -u")),
        ("a folder of the PATH", "d", "/usr/bin", "inner", format!("PATH=$PWD/d:$PATH; {}", often("id -u"))),
    ];
    for (what, turned, other, good, line) in attacks {
        let rules = [
            "./attacker *",
            "./good *",
            "./inner/id *",
            "./script *",
            "./text *",
            "true *",
            "env *",
            "xargs *",
            "head *",
            "yes *",
            "bash *",
        ];
        let (judged, free) = (Yard::new(&rules), Yard::new(&["*"]));
        for yard in [&judged, &free] {
            if !attacker(yard) {
                eprintln!("NOT TESTED HERE: links that turn: no C compiler");
                return;
            }
            std::fs::create_dir(yard.work.join("inner")).unwrap();
            for name in ["good", "inner/id"] {
                std::fs::copy("/usr/bin/true", yard.work.join(name)).unwrap();
            }
            yard.program("script", "#!/usr/bin/env true\n");
            yard.program("text", "true\n");
        }
        let line = format!("./attacker turn {turned} {other} {good} 1 & {line}; wait");
        let took = |text: &str| text.lines().any(|line| line == uid || line.starts_with("uid="));
        let mut shown = false;
        // It is a race: on a busy machine not each try shows it.
        for _ in 0..8 {
            shown = took(&free.run_free(&line).await.stdout);
            if shown {
                break;
            }
        }
        assert!(shown, "{what}: the control shows nothing");
        let outcome = judged.run(&line).await;
        assert!(!took(&outcome.stdout), "{what}: {}", outcome.all());
        assert!(!outcome.status.denied.is_empty(), "{what}: {}", outcome.all());
    }
}

#[tokio::test]
async fn what_is_called_by_a_path_of_the_workspace_runs_as_ever() {
    let yard =
        Yard::new(&["./p *", "./s *", "bash *", "env *", "find *", "./strange *", "sleep *", "strace *"]);
    std::fs::copy("/bin/echo", yard.work.join("p")).unwrap();
    yard.program("s", "#!/bin/bash\necho \"$0 $1\"; exit 7\n");
    yard.program("strange", "echo strange $1\n");
    std::os::unix::fs::symlink("p", yard.work.join("l")).unwrap();
    for (line, wanted) in [
        ("./p a 'b c' ''; echo $?", "a b c \n0\n"),
        ("./l a; $PWD/p b; ../work/p c", "a\nb\nc\n"),
        ("./s x; echo $?", "./s x\n7\n"),
        ("env ./p x; find p -exec ./p {} ';'", "x\np\n"),
        ("./p a & wait $!; echo $?", "a\n0\n"),
        ("./p a | { read -r x; echo \"<$x>\"; }", "<a>\n"),
        ("(exec ./p z); ./missing 2>/dev/null; echo $?", "z\n127\n"),
        // It is no program: the shell reads it itself.
        ("./strange x", "strange x\n"),
        ("for i in {1..100}; do ./p $i; done | tail -n 1", ""),
        ("exec ./p last", "last\n"),
    ] {
        let outcome = yard.run(line).await;
        let denied: Vec<&str> = outcome.denied().into_iter().filter(|name| *name != "tail").collect();
        assert_eq!((outcome.stdout.as_str(), denied), (wanted, vec![]), "{line}: {}", outcome.all());
    }
    // The line's own end is told as it was.
    let outcome = yard.run("exec ./s x").await;
    assert_eq!(outcome.status.exit_code, Some(7), "{}", outcome.all());
    // Whoever is traced by another can't be watched as well, and runs all the same.
    let traced = "strace -f ./p traced";
    if yard.run_free(traced).await.stdout == "traced\n" {
        let outcome = yard.run(traced).await;
        assert_eq!(outcome.stdout, "traced\n", "{}", outcome.all());
    } else {
        eprintln!("NO CONTROL HERE: what is traced");
    }
}

#[tokio::test]
async fn a_way_out_of_a_folder_that_a_rule_names_is_no_way() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap().display().to_string();
    for folder in ["tools", "evil"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    std::fs::copy("/bin/echo", dir.path().join("tools/t")).unwrap();
    std::fs::copy("/bin/echo", dir.path().join("evil/t")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("evil/t"), dir.path().join("tools/link")).unwrap();
    let yard = Yard::new(&[format!("{base}/tools/*").as_str(), "./scripts/*", "env *", "bash scripts/*"]);
    std::fs::create_dir(yard.work.join("scripts")).unwrap();
    std::fs::copy("/bin/echo", yard.work.join("t")).unwrap();
    yard.program("s.sh", "echo s \"$@\"\n");
    for line in [
        "BASE/tools/../evil/t x",
        "BASE/tools/..//evil/t x",
        "BASE/tools/./../evil/t x",
        "BASE/tools/../../../../../../../../../usr/bin/echo x",
        "env BASE/tools/../evil/t x",
        "x=../evil/t; BASE/tools/$x x",
        "./scripts/../t x",
        "bash scripts/../s.sh x",
        "bash scripts//../s.sh x",
        "env bash scripts/../s.sh x",
        "x=../s.sh; bash scripts/$x x",
    ] {
        let line = line.replace("BASE", &base);
        let control = yard.run_free(&line).await;
        assert!(control.stdout.ends_with("x\n"), "{line}: {}", control.all());
        let outcome = yard.run(&line).await;
        assert!(!outcome.stdout.contains('x') && !outcome.denied().is_empty(), "{line}: {}", outcome.all());
    }
    for line in ["BASE/tools/t x", "BASE/tools//t x", "BASE/tools/./t x", "BASE/tools/link x"] {
        let line = line.replace("BASE", &base);
        assert_eq!(yard.run(&line).await.stdout, "x\n", "{line}: {}", yard.run(&line).await.all());
    }
}
