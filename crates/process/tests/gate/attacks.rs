//! Attacks: each line runs `id -u`, which no rule allows, or something as good.

use crate::kit::{Yard, attacker};

struct Attack {
    name: &'static str,
    /// The rules it has; `./attacker` is always allowed.
    rules: &'static [&'static str],
    line: &'static str,
}

const fn held(name: &'static str, rules: &'static [&'static str], line: &'static str) -> Attack {
    Attack { name, rules, line }
}

const ATTACKS: &[Attack] = &[
    // By the shell.
    held("a computed name", &["echo *"], "c=i; c+=d; $c -u"),
    held("eval of a computed text", &["echo *"], "eval \"$(echo i)d -u\""),
    held("in the background", &["sleep *"], "id -u & wait"),
    held("in a pipe", &["cat *"], "id -u | cat"),
    held("in a substitution", &["echo *"], "echo $(id -u)"),
    held("in a process substitution", &["cat *"], "cat <(id -u)"),
    held("instead of the shell", &["echo *"], "exec id -u"),
    held("by an arithmetic subscript", &["echo *"], "a='x[$(id -u >&2)]'; ((a)) 2>&1"),
    held("by a trap", &["echo *"], "trap 'id -u' EXIT"),
    held("by a function of the program's name", &["echo *"], "echo() { id -u; }; echo"),
    held("by hashing another path for a name", &["cat *"], "hash -p /usr/bin/id cat; cat -u"),
    held("by a name of something else", &["cat *"], "exec -a cat id -u"),
    held("by a name of something else, in a subshell", &["cat *"], "(exec -a cat /usr/bin/id -u)"),
    held("by a name of something else and a dash", &["cat *"], "exec -l -a cat /usr/bin/id -u"),
    held("under a limit that bash sets", &["ulimit *"], "ulimit -c 0; id -u"),
    // By names and files.
    held("by a link of an allowed name", &["ln *", "ls *"], "ln -s /usr/bin/id ls && ./ls -u"),
    held(
        "by a hard link of an allowed name",
        &["ln *", "ls *", "cp *"],
        "ln /usr/bin/id ls || cp /usr/bin/id ls; ./ls -u",
    ),
    held("by a copy of an allowed name", &["cp *", "ls *"], "cp /usr/bin/id ls && ./ls -u"),
    held("by a PATH of its own", &["cp *", "ls *"], "cp /usr/bin/id ls; PATH=.:$PATH; ls -u"),
    held(
        "by a PATH of its own and an absolute folder",
        &["cp *", "ls *"],
        "cp /usr/bin/id ls; PATH=$PWD:$PATH; ls -u",
    ),
    held(
        "by another folder with the same name",
        &["cp *", "mkdir *"],
        "mkdir -p usr/bin; cp /usr/bin/id usr/bin/ls; usr/bin/ls -u",
    ),
    held("by ..", &["ls *"], "/usr/bin/../bin/id -u"),
    held("by /proc/self/root", &["ls *"], "/proc/self/root/usr/bin/id -u"),
    held("by another's /proc/PID/root", &["ls *"], "/proc/$$/root/usr/bin/id -u"),
    held("by /proc/PID/cwd", &["ls *"], "cd /usr/bin; /proc/$$/cwd/id -u"),
    held("by /proc/self/fd", &["ls *"], "exec 9</usr/bin/id; /proc/self/fd/9 -u"),
    held("by /dev/fd", &["ls *"], "exec 9</usr/bin/id; /dev/fd/9 -u"),
    held("by another's descriptor", &["ls *"], "exec 9</usr/bin/id; /proc/$$/fd/9 -u"),
    held(
        "by the loader",
        &["ls *"],
        "$(echo /lib64/ld-linux-*.so.2 /lib/ld-linux-*.so.1 2>/dev/null | cut -d' ' -f1) /usr/bin/id -u; \
          for l in /lib64/ld-linux-*.so.2 /lib/ld-linux-*.so.1; do $l /usr/bin/id -u; done",
    ),
    held(
        "by the loader under another name",
        &["cp *", "ls *"],
        "for l in /lib64/ld-linux-*.so.2 /lib/ld-linux-*.so.1; do cp $l ls; done; ./ls /usr/bin/id -u",
    ),
    held(
        "by a link to the loader that a rule names",
        &["ln *", "./l *"],
        "for l in /lib64/ld-linux-*.so.2 /lib/ld-linux-*.so.1; do [ -e $l ] && ln -sf $l l; done; ./l /usr/bin/id -u",
    ),
    held(
        "by a link that turns",
        &["ln *", "ls *"],
        "for i in {1..60}; do ln -sfn /usr/bin/ls x; ln -sfn /usr/bin/id x; done & for i in {1..60}; do ./x -u; done 2>/dev/null; wait",
    ),
    held(
        "by a name that turns",
        &["ln *", "ls *"],
        "for i in {1..60}; do ln -f /usr/bin/ls ls; ln -f /usr/bin/id ls; done 2>/dev/null & for i in {1..60}; do ./ls -u; done 2>/dev/null; wait; \
         ln -sf /usr/bin/id ls; ./ls -u",
    ),
    // By programs that run others.
    held("by env", &["env *"], "env id -u"),
    held("by env and a shell's file", &["env *"], "echo 'id -u' > s; env bash ./s"),
    held("by xargs", &["xargs *", "echo *"], "echo -u | xargs id"),
    held("by find", &["find *"], "find . -maxdepth 0 -exec id -u ';'"),
    held("by timeout", &["timeout *"], "timeout 5 id -u"),
    held("by nice, nohup and setsid", &["nice *", "nohup *", "setsid *"], "nice nohup setsid -w id -u"),
    held("by awk", &["awk *"], "awk 'BEGIN { system(\"id -u\") }'"),
    held("by sed", &["sed *", "echo *"], "echo | sed '1e id -u'"),
    held(
        "by tar",
        &["tar *"],
        "tar -cf /dev/null --checkpoint=1 --checkpoint-action=exec='id -u' /etc/hostname",
    ),
    held("by perl", &["perl *"], "perl -e 'exec \"id\", \"-u\"'"),
    held("by perl's shell", &["perl *"], "perl -e 'print `id -u; true`'"),
    held("by make", &["make *"], "printf 'all:\\n\\t@id -u\\n' > Makefile; make"),
    held("by git", &["git *"], "git -c alias.x='!id -u' x"),
    held(
        "by a git hook",
        &["git *", "chmod *"],
        "git init -q .; printf '#!/bin/sh\\nid -u >&2\\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; \
         git -c user.name=a -c user.email=b commit --allow-empty -m x 2>&1",
    ),
    held("by env's split text", &["env *"], "env -S 'id -u'"),
    held("by env's split text and a wrapper", &["env *", "nice *"], "env -S 'nice id -u'"),
    held("by nice", &["nice *"], "nice -n 1 id -u"),
    held("by xargs, in parallel", &["xargs *"], "printf '%s\\n' -u -u | xargs -P 2 -n 1 id"),
    held("by find, many at once", &["find *"], "find . -maxdepth 0 -exec sh -c 'id -u' {} +"),
    held("by bash and its text", &["bash *"], "bash -c 'id -u'"),
    held("by bash and its text, in bash", &["bash *"], "bash -c \"bash -c 'id -u'\""),
    held(
        "by text that xargs fills in",
        &["xargs *", "sh *"],
        "printf 'x; id -u' | xargs -d '\\n' -I{} sh -c 'echo {}'",
    ),
    held(
        "by a substitution that xargs fills in",
        &["xargs *", "sh *"],
        "printf '$(id -u)' | xargs -d '\\n' -I{} sh -c 'echo {}'",
    ),
    held("by a text of the standard input", &["bash *"], "bash <<< 'id -u'"),
    held("by a shell at the end of a pipe", &["sh *", "cat *"], "echo 'id -u' > s; cat s | sh"),
    held("by a script's text", &["bash *"], "echo 'id -u' > s; bash s"),
    held("by a script's text, of another shell", &["sh *"], "echo 'id -u' > s; sh s"),
    held("by a file that is read in", &["cat *"], "echo 'id -u' > s; . ./s"),
    held("by a file that is read in by its name", &["cat *"], "echo 'id -u' > s; source s"),
    held(
        "by another user's shell",
        &["runuser *", "bash *"],
        "runuser -u nobody -- bash -c '/bin/echo OWNED'",
    ),
    held("by another user's program", &["runuser *"], "runuser -u nobody -- /bin/echo OWNED"),
    held("by su", &["su *", "bash *", "sh *"], "su -s /bin/bash nobody -c '/bin/echo OWNED'"),
    held(
        "by a stand-in of parallel",
        &["./parallel *", "bash *", "chmod *"],
        "printf '#!/bin/bash\\nx=$1; shift 2; for a; do $x \"$a\"; done\\n' > parallel; chmod +x parallel; \
         ./parallel id ::: -u",
    ),
    held(
        "by a script of its own",
        &["chmod *", "./s *", "bash *"],
        "printf '#!/bin/bash\\nid -u\\n' > s; chmod +x s; ./s",
    ),
    held(
        "by a script whose interpreter is the program",
        &["chmod *", "./s *"],
        "printf '#!/usr/bin/echo OWNED\\n' > s; chmod +x s; ./s",
    ),
    held(
        "by a script whose interpreter is the loader",
        &["chmod *", "./s *", "sed *"],
        "for l in /lib64/ld-linux-*.so.2 /lib/ld-linux-*.so.1; do [ -e $l ] && printf \"#!$l --help\\n\" > s; done; chmod +x s; ./s | sed 's/^Usage.*/OWNED/'",
    ),
    held("by a script without an interpreter", &["chmod *", "bash *"], "echo 'id -u' > s; chmod +x s; ./s"),
    held(
        "by a script whose interpreter env finds",
        &["chmod *", "./s *", "env *"],
        "printf '#!/usr/bin/env -S echo OWNED\\n' > s; chmod +x s; ./s",
    ),
    held("by busybox as a wrapper", &["busybox *"], "busybox env id -u"),
    held("by busybox's own id", &["busybox ls *"], "busybox id -u"),
    held("by a link to busybox", &["busybox ls *", "ln *", "ls *"], "ln -s $(type -p busybox) id; ./id -u"),
    held("by strace", &["strace *"], "strace -f -o /dev/null id -u"),
    held("by the environment of bash", &["bash *"], "echo 'id -u' > e; BASH_ENV=./e bash -c ''"),
    held(
        "after a failed exec of what is free",
        &["+make *", "chmod *"],
        "echo x > make.bad; shopt -s execfail; exec make $(printf 'x%.0s' {1..99999} {1..99999}) ; id -u",
    ),
    held(
        "by a child that was there before a free program",
        &["+sleep *"],
        "{ sleep 0.4; id -u; } & exec sleep 1",
    ),
    held(
        "by an orphan beside a free program",
        &["+sleep *", "setsid *"],
        "sleep 2 & (setsid bash -c 'x' & ); ( ( sleep 0.3; id -u ) & ) ; wait",
    ),
    // By programs that are an attacker's.
    held("by a file in memory", &[], "./attacker fexec"),
    held("by a file in memory and /proc/self/fd", &[], "./attacker proc-fd"),
    held("by a file in memory and /dev/fd", &[], "./attacker proc-fd /usr/bin/id /dev/fd/%d"),
    held("by a descriptor", &[], "./attacker open-fd"),
    held("relative to a descriptor", &[], "./attacker at"),
    held("by calls of 32 bits", &[], "./attacker int80"),
    held("with a fast timer", &[], "./attacker timer"),
    held("with a fast timer that restarts calls", &[], "./attacker timer /usr/bin/id restart"),
    held("from a thread", &[], "./attacker thread"),
    held("after vfork", &[], "./attacker vfork"),
    held("by posix_spawn", &[], "./attacker spawn"),
    held("by a process that shares memory", &[], "./attacker clone"),
    held("by a sibling that shares memory", &[], "./attacker clone /usr/bin/id parent"),
    held("behind a filter of its own", &[], "./attacker listener"),
    held("closed to others", &[], "./attacker undumpable"),
    held("a library before an allowed program", &["ls *"], "LD_PRELOAD=./x.so ls /"),
    held("a library before all programs", &["ls *"], "export LD_PRELOAD=$PWD/x.so; ls /"),
    held("a library by env", &["ls *", "env *"], "env LD_PRELOAD=./x.so ls /"),
    held("a library by the audit's variable", &["ls *"], "LD_AUDIT=./x.so ls /"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_allows_does_not_run_whatever_leads_to_it() {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let took = |text: &str| text.lines().any(|line| line == uid || line.contains("OWNED"));
    let mut problems = Vec::new();
    let mut shown = 0;
    for attack in ATTACKS {
        let mut rules = vec!["./attacker *"];
        rules.extend(attack.rules);
        let (gated, free) = (Yard::new(&rules), Yard::new(&["*"]));
        if (attack.line.contains("./attacker") || attack.line.contains("x.so"))
            && !(attacker(&gated) && attacker(&free))
        {
            eprintln!("NOT TESTED HERE: {}: no C compiler", attack.name);
            continue;
        }
        let control = free.run_free(attack.line).await;
        let outcome = gated.run(attack.line).await;
        let both = |o: &crate::kit::Outcome| took(&o.stdout) || took(&o.stderr);
        if !both(&control) {
            eprintln!("NO CONTROL HERE: {}: {}", attack.name, control.all());
        } else if both(&outcome) {
            problems.push(format!("{}: {}", attack.name, outcome.all()));
        } else {
            shown += 1;
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(shown > 40, "{shown}");
}
