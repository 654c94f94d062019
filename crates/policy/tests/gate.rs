//! Where each program start is judged: what the reading leaves to it, and that the start
//! itself is then refused; and deny rules after `*: allow`.
#![allow(clippy::unwrap_used, missing_docs)]

use legwork_policy::{Decision, Exec, ExecVerdict, Image, Policy};

fn policy(rules: &[(&str, &str)]) -> Policy {
    let pairs = [("*", "deny")].into_iter().chain(rules.iter().copied());
    Policy::from_pairs(pairs).unwrap().with_env_names(["HOME", "PATH"].map(String::from))
}

fn starts(policy: &Policy, argv: &[&str]) -> bool {
    let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
    let (names, paths) = (vec![argv[0].clone()], vec![format!("/usr/bin/{}", argv[0])]);
    let image = Image { names: &names, paths: &paths, argv: &argv };
    matches!(policy.judge_exec(&Exec { image, env: &[], by: None }), ExecVerdict::Allow { .. })
}

#[test]
fn a_shell_that_is_typed_into_opens_by_a_rule_for_its_name() {
    for (rules, opens) in [
        (&[("*", "deny"), ("bash", "allow")][..], true),
        (&[("*", "deny"), ("bash *", "allow")], true),
        (&[("*", "deny"), ("bash -i", "allow")], false),
        (&[("*", "deny"), ("ls *", "allow")], false),
        (&[("bash", "allow"), ("bash *", "deny")], false),
        (&[("*", "allow"), ("rm *", "deny")], true),
        (&[("*", "allow"), ("bash", "deny")], false),
    ] {
        let policy = Policy::from_pairs(rules.iter().copied()).unwrap().with_exec_gate(true);
        let verdict = policy.judge_shell("bash");
        assert_eq!(verdict.decision == Decision::Allow, opens, "{rules:?}");
        assert_eq!(verdict.run.is_some(), opens, "{rules:?}");
        // As a command of a line it would read what the line feeds it.
        assert!(rules[0].1 == "allow" || policy.judge("bash").decision == Decision::Deny, "{rules:?}");
    }
}

#[test]
fn what_the_reading_leaves_open_the_start_refuses() {
    type Case = (&'static [(&'static str, &'static str)], &'static str, &'static [&'static str]);
    let cases: &[Case] = &[
        (
            &[("kubectl get *", "allow")],
            "kubectl get pods {--kubeconfig=./k,-A}",
            &["kubectl", "get", "pods", "--kubeconfig=./k", "-A"],
        ),
        (
            &[("kubectl get *", "allow")],
            "P=--kubeconfig=./k; kubectl get pods $P",
            &["kubectl", "get", "pods", "--kubeconfig=./k"],
        ),
        (
            &[("dd *", "allow")],
            "dd if=/etc/hostname o{f,f}=owned",
            &["dd", "if=/etc/hostname", "of=owned", "of=owned"],
        ),
        (
            &[("openssl rand *", "allow")],
            "X=-out; openssl rand $X owned 8",
            &["openssl", "rand", "-out", "owned", "8"],
        ),
        (
            &[("openssl x509 *", "allow")],
            "X=-engine; openssl x509 $X ./e.so",
            &["openssl", "x509", "-engine", "./e.so"],
        ),
        (
            &[("aws s3 ls *", "allow")],
            "aws s3 ls {--endpoint-url=http://evil,s3://b}",
            &["aws", "s3", "ls", "--endpoint-url=http://evil", "s3://b"],
        ),
        (&[("sed *", "allow")], "sed -n \"$X\" f", &["sed", "-n", "w owned", "f"]),
        (&[("awk *", "allow")], "awk \"$X\" f", &["awk", "BEGIN{system(\"id\")}", "f"]),
        (&[("ls *", "allow"), ("echo *", "allow")], "cmd=$(echo rm); $cmd x", &["rm", "x"]),
        (&[("git *", "allow"), ("git push *", "deny")], "git $X", &["git", "push"]),
        (&[("find *", "allow")], "find . $X", &["find", ".", "-delete"]),
        (&[("timeout *", "allow"), ("ls *", "allow")], "timeout $T ls", &["timeout", "5", "rm"]),
    ];
    for (rules, line, argv) in cases {
        let policy = policy(rules);
        assert_eq!(policy.judge(line).decision, Decision::Deny, "{line} without the gate");
        let policy = policy.with_exec_gate(true);
        let verdict = policy.judge(line);
        assert!(verdict.decision == Decision::Allow && verdict.at_exec, "{line}: {:?}", verdict.message());
        assert!(!starts(&policy, argv), "{argv:?} starts");
    }
}

#[test]
fn what_no_start_shows_is_read_as_strictly_with_the_gate() {
    let rules = [
        "echo *",
        "eval *",
        "sh *",
        "bash *",
        "[ *",
        "read *",
        "printf *",
        "export *",
        "command *",
        "source *",
        "xargs *",
        "trap *",
        "mapfile *",
        "unset *",
        "declare *",
        "cat *",
        "timeout *",
    ]
    .map(|rule| (rule, "allow"));
    for line in [
        "eval \"$x\"",
        "sh -c \"$x\"",
        "bash -c \"$x\"",
        "trap \"$x\" EXIT",
        "source \"$x\"",
        "command $x",
        "[ $x y ]",
        "read \"$x\"",
        "printf -v \"$x\" y",
        "mapfile -C \"$x\" a",
        "unset \"$x\"",
        "declare \"$x\"",
        "export \"$x\"",
        "xargs -I{} bash -c 'echo {}'",
        "xargs -I{} sh {}",
        "echo x > \"$f\"",
        "cat < \"$(echo /dev/tcp/h/1)\"",
        "timeout $t sh -c 'echo x > f'",
        "cat <> \"$f\"",
        "bash -c 'echo \"$x\" > \"$y\"'",
        "RANDOM=$x",
        "echo $((a[$x]))",
        "x='a[$(id)]'; echo $((x))",
        "cat <<$'E\\x4fF'\necho <<X\nEOF\nrm -rf /tmp/x\nX",
        "LC_ALL=zh_CN.gbk bash -c \"echo \\\"丁\\\\\\\"; touch owned #\\\"\"",
    ] {
        let verdict = policy(&rules).with_exec_gate(true).judge(line);
        assert_eq!(verdict.decision, Decision::Deny, "{line}");
    }
}

#[test]
fn text_that_xargs_fills_in_is_judged_when_its_shell_starts() {
    let rules = ["xargs *", "sh *", "dash *", "bash *", "zsh *", "echo *", "wc *", "ls *"];
    let policy = policy(&rules.map(|rule| (rule, "allow")));
    let gated = policy.clone().with_exec_gate(true);
    for line in [
        "ls *.log | xargs -I{} sh -c 'echo {}; wc -l {}'",
        "ls | xargs -I{} dash -ec 'wc -l \"{}\" && echo {}.bak'",
        "ls | xargs -I% sh -c 'echo %'",
    ] {
        assert_eq!(policy.judge(line).decision, Decision::Deny, "{line} without the gate");
        let verdict = gated.judge(line);
        assert!(verdict.decision == Decision::Allow && verdict.at_exec, "{line}: {:?}", verdict.message());
    }
    // What surely is not allowed is refused at once, and so is what is filled in elsewhere.
    for line in [
        "ls | xargs -I{} sh -c 'id {}'",
        "ls | xargs -I{} sh -c 'echo {}; id'",
        "ls | xargs -I{} sh -c '{}'",
        "ls | xargs -I{} sh -c '{} a'",
        "ls | xargs -I{} sh -c 'echo $({})'",
        "ls | xargs -I{} sh -c 'echo {} > f'",
        "ls | xargs -I{} sh {} 'echo {}'",
        "ls | xargs -I{} {} -c 'echo x'",
        "ls | xargs -Ic sh -c 'echo c'",
        "ls | xargs -I{} -n1 sh -c 'echo {}'",
        "ls | xargs -I{} bash -c 'echo {}'",
        "ls | xargs -I{} zsh -c 'echo {}'",
        "ls | xargs -I{} sh -c \"echo $x {}\"",
    ] {
        assert_eq!(gated.judge(line).decision, Decision::Deny, "{line}");
    }
    assert!(starts(&gated, &["sh", "-c", "echo a.log; wc -l a.log"]));
    for text in [
        "echo a; id",
        "echo a\nid",
        "echo a & id",
        "echo a | id",
        "echo a && id",
        "echo $(id)",
        "echo `id`",
        "echo \"$(id)\"",
        "echo ${x:-$(id)}",
        "echo $((a[$(id)]))",
        "echo a > f",
        "echo a >> /dev/null/../../f",
        "echo a; . ./s",
        "echo a; eval id",
        "echo a; exec id",
        "echo a; trap id EXIT",
        "echo() { id; }; echo",
        "echo 'a",
        "echo a; i'd'",
        "PATH=. ls",
        "echo a; LD_PRELOAD=./x.so ls",
        "echo $'a\\'; id #'",
        "echo a; command id",
        "echo a; $x",
    ] {
        assert!(!starts(&gated, &["sh", "-c", text]), "{text:?} starts");
    }
}

#[test]
fn a_computed_command_is_printed_so_that_it_is_no_builtin() {
    let policy = policy(&[("ls *", "allow"), ("echo *", "allow")]).with_exec_gate(true);
    let verdict = policy.judge("cmd=ls; $cmd -la | $cmd; FOO=$x; \"$FOO\" y");
    let text = verdict.run.unwrap().text;
    assert_eq!(
        text,
        "cmd='ls'; ( exec -- ${cmd} '-la' ) | ( exec -- ${cmd} ); FOO=\"${x}\"; ( exec -- \"${FOO}\" 'y' )"
            .replace("FOO=\"${x}\"", "FOO=${x}")
    );
}

#[test]
fn a_computed_file_is_opened_by_its_path_and_never_the_network() {
    let rules = [("cat *", "allow"), ("echo *", "allow"), ("> out/*", "allow")];
    let policy = policy(&rules).with_exec_gate(true);
    let verdict = policy.judge("cat < \"$f\" > \"$g\"");
    assert!(verdict.at_exec, "{:?}", verdict.message());
    let run = verdict.run.unwrap();
    assert!(run.computed_writes);
    assert_eq!(run.text, "'cat' <\"${f/#'/'/'//'}\" >\"${g/#'/'/'//'}\"");
    assert!(policy.judge_write("/w/out/a", &["/w"]).is_ok() && policy.judge_write("/w/b", &["/w"]).is_err());
    let literal = policy.judge("echo x > out/a");
    assert!(!literal.at_exec);
}

#[test]
fn arithmetic_on_unknown_text_is_printed_so_that_only_digits_are_left() {
    let policy = policy(&[("wc *", "allow"), ("echo *", "allow")]).with_exec_gate(true);
    let run = policy.judge("n=$(wc -l < f); echo $((n*2)) $(( $n + 1 )); [[ $n -gt 3 ]]").run.unwrap();
    let digits = "${n//[!0123456789[:blank:]-]/.}+0";
    assert_eq!(
        run.text,
        format!("n=$( 'wc' '-l' <'f'; ); 'echo' $((({digits})*2)) $((({digits})+1)); [[ {digits} -gt 3 ]]")
    );
}

#[test]
fn the_accident_that_a_deny_rule_guards_against_is_found_behind_wrappers() {
    let policy = Policy::from_pairs([("*", "allow"), ("rm -rf /", "deny")]).unwrap();
    for line in [
        "rm -rf /",
        "sudo rm -rf /",
        "sudo -u root rm -rf /",
        "env rm -rf /",
        "env A=1 rm -rf /",
        "nice -n 5 rm -rf /",
        "timeout 5 rm -rf /",
        "nohup rm -rf /",
        "echo / | xargs rm -rf",
        "xargs -0 rm -rf / < f",
        "find . -exec rm -rf / \\;",
        "bash -c 'rm -rf /'",
        "bash -lc 'rm -rf /'",
        "sh -c 'rm -rf /'",
        "sh -c 'ls; rm -rf /'",
        "zsh -c 'rm -rf /'",
        "/bin/rm -rf /",
        "command rm -rf /",
        "\\rm -rf /",
        "'rm' \"-rf\" '/'",
        "eval 'rm -rf /'",
        "eval rm -rf /",
        "x='rm -rf /'; $x",
        "x=/; rm -rf $x",
        "x=/; rm -rf \"$x\"",
        "for d in /tmp /; do rm -rf \"$d\"; done",
        "sudo -H -- env nice rm -rf /",
        "sudo --unknown-option rm -rf /",
        "su -c 'rm -rf /'",
        "watch rm -rf /",
        "trap 'rm -rf /' EXIT",
        "f() { rm -rf /; }; f",
        "ls | (cd /; rm -rf /)",
        "echo \"$(rm -rf /)\"",
        "exec rm -rf /",
        "flock f -c 'rm -rf /'",
        "busybox rm -rf /",
        "time rm -rf /",
        "rm -rf \"$x\"",
        "bash -c \"$x\"",
        "$x",
        "rm $x /",
        "strace -o f rm -rf /",
        "setsid -w rm -rf /",
        "ssh-agent rm -rf /",
    ] {
        assert_eq!(policy.judge(line).decision, Decision::Deny, "{line}");
    }
    for line in [
        "rm \"$f\"",
        "rm -r \"$dir\"",
        "rm -rf /tmp/x",
        "rm -rf \"/tmp/$x\"",
        "sudo rm -rf ./build",
        "bash -c 'rm -rf x'",
        "echo 'rm -rf /'",
        "ls $x",
        "find . -name '*.o' -delete",
        "for f in *; do rm \"$f\"; done",
        "git commit -m 'rm -rf'",
        "python3 -c 'print(1)'",
        "awk '{print > \"f\"}' x",
        "${x:-ls} y",
        "[[ -v x[1] ]]",
        "echo ${!x}",
        "zsh -c 'print -l *'",
    ] {
        let verdict = policy.judge(line);
        assert!(verdict.decision == Decision::Allow, "{line}: {:?}", verdict.message());
    }
    let gated = policy.with_exec_gate(true);
    for line in ["$x -rf /", "rm -rf \"$x\"", "echo / | xargs rm -rf", "bash -c \"$x\""] {
        let verdict = gated.judge(line);
        assert!(verdict.decision == Decision::Allow, "{line}: {:?}", verdict.message());
    }
    assert!(!starts(&gated, &["rm", "-rf", "/"]));
}

#[test]
fn what_the_shell_writes_from_script_text_is_judged_where_it_leads() {
    let rules =
        [("*", "deny"), ("echo *", "allow"), ("cd *", "allow"), ("eval *", "allow"), ("> out/*", "allow")];
    let policy = Policy::from_pairs(rules).unwrap().with_exec_gate(true);
    for line in [
        "echo x > out/a",
        "eval 'echo x > out/a'",
        "cd /; eval 'echo x > out/a'",
        "eval 'echo x > /dev/stdout'",
    ] {
        let run =
            policy.judge(line).run.unwrap_or_else(|| panic!("{line}: {:?}", policy.judge(line).message()));
        assert!(run.computed_writes, "{line}");
    }
    assert!(!policy.judge("echo x > /dev/stdout").run.unwrap().computed_writes);
}

#[test]
fn a_computed_way_out_of_a_folder_is_refused_where_the_program_starts() {
    let policy = policy(&[
        ("bash scripts/*", "allow"),
        ("rm /ok/*", "allow"),
        ("source scripts/*", "allow"),
        ("/tools/*", "allow"),
    ])
    .with_exec_gate(true);
    assert_eq!(policy.judge("/tools/l /x").decision, Decision::Allow);
    assert_eq!(policy.judge("/tools/../evil/t /x").decision, Decision::Deny);
    let verdict = policy.judge("rm /ok/\"$x\"");
    assert!(verdict.decision == Decision::Allow, "{:?}", verdict.message());
    for line in [
        "source scripts/$x",
        "bash scripts/$x",
        "bash scripts/../$x",
        "rm /ok/../\"$x\"",
        "source scripts/../$x",
    ] {
        assert_eq!(policy.judge(line).decision, Decision::Deny, "{line}");
    }
    assert!(starts(&policy, &["bash", "scripts/a.sh"]) && starts(&policy, &["rm", "/ok/x"]));
    assert!(!starts(&policy, &["bash", "scripts/../s.sh"]) && !starts(&policy, &["rm", "/ok/../x"]));
}
