//! `*: allow` with one rule that denies: the accident that it guards against does not happen,
//! whoever starts it. The program is a stand-in that says what it was asked for.

use std::os::unix::fs::PermissionsExt;

use crate::kit::{PATH, Yard, is_root};

/// Each would run `wipe -rf /`.
const ACCIDENTS: &[&str] = &[
    "wipe -rf /",
    "\\wipe -rf /",
    "$(type -p wipe) -rf /",
    "env wipe -rf /",
    "env -i PATH=$PATH wipe -rf /",
    "env -S 'wipe -rf /'",
    "nice -n 3 wipe -rf /",
    "timeout 5 wipe -rf /",
    "nohup wipe -rf /",
    "setsid -w wipe -rf /",
    "stdbuf -o0 wipe -rf /",
    "ionice -c 3 wipe -rf /",
    "flock f wipe -rf /",
    "flock f -c 'wipe -rf /'",
    "sudo -n env PATH=$PATH wipe -rf /",
    "runuser -u nobody -- wipe -rf /",
    "setpriv --reuid=65534 --clear-groups wipe -rf /",
    "unshare -r wipe -rf /",
    "echo / | xargs wipe -rf",
    "echo / | xargs -I{} wipe -rf {}",
    "printf '%s\\0' -rf / | xargs -0 wipe",
    "echo / | xargs -I{} sh -c 'wipe -rf {}'",
    "find . -maxdepth 0 -exec wipe -rf / ';'",
    "find / -maxdepth 0 -exec wipe -rf {} +",
    "find / -maxdepth 0 -exec wipe -rf {} ';'",
    "find / -maxdepth 0 -exec env wipe -rf {} +",
    "find / -maxdepth 0 -exec sh -c 'wipe -rf {}' ';'",
    "echo / > list; xargs -a list wipe -rf",
    "echo -rf / | xargs wipe",
    "echo wipe -rf / | xargs env",
    "echo / | xargs -n1 env wipe -rf",
    "echo / | xargs -I{} bash -c 'wipe -rf {}'",
    "echo / | xargs -I{} sh -c 'env wipe -rf {}'",
    "parallel wipe -rf ::: /",
    "x='wipe -rf /'; $x",
    "x=wipe; y=/; $x -rf $y",
    "x=/; wipe -rf \"$x\"",
    "for d in /tmp/x /; do wipe -rf \"$d\"; done",
    "cd /; wipe -rf $PWD",
    "wipe -rf {/,}",
    "eval 'wipe -rf /'",
    "bash -c 'wipe -rf /'",
    "sh -c 'wipe -rf /'",
    "bash -c \"bash -c 'wipe -rf /'\"",
    "bash -lc 'PATH='\"$PATH\"'; wipe -rf /'",
    "echo wipe -rf / | sh",
    "bash <<< 'wipe -rf /'",
    "echo 'wipe -rf /' > s; bash s",
    "echo 'wipe -rf /' > s; sh s",
    "echo 'wipe -rf /' > s; . ./s",
    "printf '#!/bin/sh\\nwipe -rf /\\n' > s; chmod +x s; ./s",
    "trap 'wipe -rf /' EXIT",
    "f() { wipe -rf /; }; f",
    "(exec wipe -rf /)",
    "(exec -a harmless wipe -rf /)",
    "wipe -rf / & wait",
    "echo $(wipe -rf /)",
    "coproc wipe -rf /; cat <&${COPROC[0]}",
    "perl -e 'exec \"wipe\", \"-rf\", \"/\"'",
    "awk 'BEGIN { system(\"wipe -rf /\") }'",
    "printf 'all:\\n\\twipe -rf /\\n' > Makefile; make -s",
    "git -c alias.x='!wipe -rf /' x",
    "python3 -c 'import os; os.execvp(\"wipe\", [\"wipe\", \"-rf\", \"/\"])'",
    "busybox env wipe -rf /",
    "strace -f -o /dev/null wipe -rf /",
    "script -qec 'wipe -rf /' /dev/null",
    "tar -cf /dev/null --checkpoint=1 --checkpoint-action=exec='wipe -rf /' /etc/hostname",
    "ln -s $(type -p wipe) other; ./other -rf /",
];

fn yard(patterns: &[&str]) -> Yard {
    let mut yard = Yard::new(patterns);
    let bin = yard.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::copy("/bin/echo", bin.join("wipe")).unwrap();
    // What stands for a program that few machines have: COMMAND… ::: ARGUMENT…
    let parallel = "#!/bin/bash\nwords=()\nwhile [ \"$1\" != ::: ]; do words+=(\"$1\"); shift; done\nshift\n\
                    for last; do \"${words[@]}\" \"$last\"; done\n";
    std::fs::write(bin.join("parallel"), parallel).unwrap();
    std::fs::set_permissions(bin.join("parallel"), std::fs::Permissions::from_mode(0o755)).unwrap();
    yard.env.insert("PATH".into(), format!("{}:{PATH}", bin.display()));
    yard
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accident_that_a_rule_guards_against_happens_by_nobody() {
    let mut problems = Vec::new();
    let mut shown = 0;
    for line in ACCIDENTS {
        let (judged, free) = (yard(&["*", "!wipe -rf /"]), yard(&["*"]));
        let control = free.run_free(line).await;
        let done = |text: &str| text.lines().any(|line| line == "-rf /" || line == "-rf / ");
        if !done(&control.stdout) {
            eprintln!("NO CONTROL HERE: {line}: {}", control.all());
            continue;
        }
        let outcome = judged.run(line).await;
        if done(&outcome.stdout) || outcome.status.denied.is_empty() {
            problems.push(format!("{line}: {}", outcome.all()));
        } else {
            shown += 1;
        }
    }
    // It is that command and no other.
    let other = yard(&["*", "!wipe -rf /"]).run("wipe -rf /tmp/x; env wipe -r /").await;
    assert_eq!(other.stdout, "-rf /tmp/x\n-r /\n", "{}", other.all());
    // Who fills in words is left to fill in others.
    let line = "echo a | xargs wipe -rf; find . -maxdepth 0 -exec wipe -rf {} +; echo b | xargs -I{} sh -c 'echo {}'";
    let other = yard(&["*", "!wipe -rf /", "!wipe -rf / *", "!wipe -rf /*"]).run(line).await;
    assert_eq!((other.stdout.as_str(), other.denied().len()), ("-rf a\n-rf .\nb\n", 0), "{}", other.all());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(shown > if is_root() { 40 } else { 35 }, "{shown}");
}
