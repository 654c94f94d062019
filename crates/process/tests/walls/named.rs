//! Only the programs that rules name can be executed.

use std::os::unix::fs::PermissionsExt;

use legwork_process::sandbox::Profile;

use crate::kit::{Yard, walls};

/// (line, whether it succeeds behind `landlock`, behind `namespaces`)
const LINES: &[(&str, bool, bool)] = &[
    ("ls > /dev/null", true, true),
    ("cat file | sort", true, true),
    ("git --version", true, true),
    ("which ls", true, true),
    ("id", false, false),
    ("curl --version", false, false),
    ("/usr/bin/id", false, false),
    ("python3 -c 1", false, false),
    ("find . -exec id {} ';'; find . -maxdepth 0 -exec id ';' 2>&1 | grep -q uid=", false, false),
    ("cp /bin/ls x && chmod +x x && ./x", false, false),
    ("cp /bin/ls $TMPDIR/x && chmod +x $TMPDIR/x && $TMPDIR/x", false, false),
    ("printf '#!/bin/bash\\necho hi\\n' > s && chmod +x s && ./s", false, false),
    ("echo 'echo hi' > s && bash s", true, true),
    // A program that was copied here, run by the loader: the hole that Landlock leaves.
    (
        "$(ls /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 2>/dev/null | head -1) ./copied > /dev/null",
        true,
        false,
    ),
    // A program of the system, run by the loader: it can't even be read, or be mapped.
    (
        "$(ls /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 2>/dev/null | head -1) /usr/bin/id",
        false,
        false,
    ),
    ("exec 3< /usr/bin/id && /proc/self/fd/3", false, false),
];

#[tokio::test]
async fn programs_that_no_rule_names_do_not_start() {
    for profile in walls().iter().filter(|p| **p != Profile::Gvisor) {
        let yard = Yard::new(*profile)
            .named(&["ls", "cat", "sort", "git", "which", "cp", "chmod", "find", "grep", "head"]);
        std::fs::copy("/usr/bin/uname", yard.path("work/copied")).unwrap();
        std::fs::set_permissions(yard.path("work/copied"), std::fs::Permissions::from_mode(0o755)).unwrap();
        for (line, landlock, namespaces) in LINES {
            let wanted = if *profile == Profile::Landlock { *landlock } else { *namespaces };
            let outcome = yard.run(line).await;
            assert_eq!(outcome.ok(), wanted, "{profile}: {line}: {}", outcome.all());
        }
        // The control: without the list all of them run.
        let free = Yard::new(*profile);
        std::fs::copy("/usr/bin/uname", free.path("work/copied")).unwrap();
        std::fs::set_permissions(free.path("work/copied"), std::fs::Permissions::from_mode(0o755)).unwrap();
        for (line, _, _) in LINES.iter().filter(|(line, ..)| !line.contains("curl")) {
            let outcome = free.run(line).await;
            assert!(outcome.ok(), "{profile}, without a list: {line}: {}", outcome.all());
        }
    }
}

#[tokio::test]
async fn a_repositorys_config_can_t_make_git_run_what_no_rule_names() {
    for profile in [Profile::Off].iter().chain(walls().iter().filter(|p| **p != Profile::Gvisor)) {
        let yard = Yard::new(*profile).named(&["git", "touch"]);
        let work = yard.path("work");
        let git = |args: &[&str]| {
            let done = std::process::Command::new("git").args(args).current_dir(&work).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        git(&["init", "-q", "."]);
        std::fs::write(work.join("hook"), "#!/bin/sh\ntouch taken\n").unwrap();
        std::fs::set_permissions(work.join("hook"), std::fs::Permissions::from_mode(0o755)).unwrap();
        git(&["config", "core.fsmonitor", "./hook"]);
        git(&["config", "alias.lg", "!touch taken"]);
        yard.run("git status > /dev/null 2>&1").await;
        // The control: without a wall the hook runs.
        assert_eq!(work.join("taken").exists(), *profile == Profile::Off, "{profile}");
    }
}
