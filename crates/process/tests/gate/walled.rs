//! Behind a wall the gate judges as it does without one.

use legwork_process::sandbox::Profile;

use crate::kit::{Outcome, Yard};

/// Each runs `id -u`, which no rule allows.
const ATTACKS: &[&str] = &[
    "id -u",
    "c=i; c+=d; $c -u",
    "echo $(id -u)",
    "(exec -a cat /usr/bin/id -u)",
    "ln -s /usr/bin/id ls && ./ls -u",
    "cp /usr/bin/id ls; PATH=.:$PATH; ls -u",
    "/usr/bin/../bin/id -u",
    "/proc/self/root/usr/bin/id -u",
    "env id -u",
    "env -S 'id -u'",
    "timeout 5 nice id -u",
    "echo -u | xargs id",
    "find . -maxdepth 0 -exec id -u ';'",
    "bash -c 'id -u'",
    "echo 'id -u' > s; bash s",
    "echo 'id -u' > s; . ./s",
    "awk 'BEGIN { system(\"id -u\") }'",
    "perl -e 'exec \"id\", \"-u\"'",
    "for l in /lib64/ld-linux-*.so.2 /lib/ld-linux-*.so.1; do $l /usr/bin/id -u; done",
    "(sleep 0.1; id -u) & wait",
    "setsid -w id -u",
    "BASH_ENV=./e; echo 'id -u' > e; export BASH_ENV; bash -c ''",
];

const RULES: &[&str] = &[
    "cat *",
    "ls *",
    "ln *",
    "cp *",
    "env *",
    "timeout *",
    "nice *",
    "xargs *",
    "find *",
    "bash *",
    "awk *",
    "perl *",
    "sleep *",
    "setsid *",
    "echo *",
];

/// The walls that this machine can build, found by building them.
async fn walls() -> Vec<Profile> {
    let mut found = Vec::new();
    for profile in [Profile::Landlock, Profile::Namespaces] {
        let outcome = Yard::walled(profile, &["*"]).run_free("true").await;
        if outcome.ok() {
            found.push(profile);
        } else {
            eprintln!("NOT TESTED HERE: the gate behind {profile}: {}", outcome.all());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_allows_does_not_run_behind_a_wall_either() {
    let took = |o: &Outcome| o.stdout.lines().any(|line| line.parse::<u32>().is_ok());
    for profile in walls().await {
        let mut shown = 0;
        for line in ATTACKS {
            let control = Yard::walled(profile, &["*"]).run_free(line).await;
            if !took(&control) {
                eprintln!("NO CONTROL HERE: behind {profile}: {line}: {}", control.all());
                continue;
            }
            let outcome = Yard::walled(profile, RULES).run(line).await;
            assert!(!took(&outcome), "{profile}: {line}: {}", outcome.all());
            // What leads nowhere from outside the wall fails without a word.
            assert!(
                !outcome.status.denied.is_empty() || !outcome.ok(),
                "{profile}: {line}: {}",
                outcome.all()
            );
            shown += 1;
        }
        assert!(shown > 12, "{profile}: {shown}");
        // What rules allow runs, with the wall around it.
        let outcome = Yard::walled(profile, RULES)
            .run("bash -c 'ls /usr > /dev/null && echo fine'; cat /etc/shadow")
            .await;
        assert_eq!(outcome.stdout, "fine\n", "{profile}: {}", outcome.all());
    }
}

#[tokio::test]
async fn what_the_shell_writes_behind_a_wall_is_judged_by_its_path() {
    for profile in walls().await {
        let yard = || {
            let mut yard = Yard::walled(profile, &["echo *", "ln *", "> out/*"]);
            yard.gate.writes = true;
            std::fs::create_dir(yard.work.join("out")).unwrap();
            std::fs::write(yard.work.join("secret"), "kept\n").unwrap();
            yard
        };
        for line in [
            "f=sec; echo x > ${f}ret",
            "ln -s ../secret out/l; f=l; echo x > out/$f",
            "cd out; f=..; echo x > $f/secret",
            "ln secret out/h; f=h; echo x > out/$f",
            "bash -c 'echo x > secret'",
        ] {
            let (judged, free) = (yard(), yard());
            free.run_free(line).await;
            let control = std::fs::read_to_string(free.work.join("secret")).unwrap();
            assert_ne!(control, "kept\n", "{profile}: {line}: the control shows nothing");
            let outcome = judged.run(line).await;
            let kept = std::fs::read_to_string(judged.work.join("secret")).unwrap();
            assert_eq!(kept, "kept\n", "{profile}: {line}: {}", outcome.all());
        }
        let judged = yard();
        let outcome = judged.run("f=a; echo x > out/$f; echo $?").await;
        assert_eq!(outcome.stdout, "0\n", "{profile}: {}", outcome.all());
        assert_eq!(std::fs::read_to_string(judged.work.join("out/a")).unwrap(), "x\n");
    }
}
