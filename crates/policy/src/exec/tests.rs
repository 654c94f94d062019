use super::*;
use crate::RuleText;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn policy(rules: &[(&str, &str)]) -> Policy {
    let texts = rules.iter().map(|(pattern, action)| {
        let (action, children) = action.split_once('+').unwrap_or((action, ""));
        RuleText {
            pattern: (*pattern).into(),
            action: action.into(),
            children: children.into(),
            ..RuleText::default()
        }
    });
    Policy::from_rules(texts).expect("rules").with_exec_gate(true)
}

/// Judges `/usr/bin/NAME ARGS`, started by `by` with its arguments.
fn judged(policy: &Policy, argv: &[&str], by: &[&str], env: &[&str]) -> Result<bool, ExecDenial> {
    let of = |argv: &[&str]| {
        let path = argv[0].contains('/');
        let names = if path { Vec::new() } else { strings(&argv[..1]) };
        let paths = if path { argv[0].to_owned() } else { format!("/usr/bin/{}", argv[0]) };
        (names, vec![paths], strings(argv))
    };
    let (names, paths, args) = of(argv);
    let caller = (!by.is_empty()).then(|| of(by));
    let by = caller.as_ref().map(|(names, paths, argv)| Image { names, paths, argv });
    let image = Image { names: &names, paths: &paths, argv: &args };
    match policy.judge_exec(&Exec { image, env: &strings(env), by }) {
        ExecVerdict::Allow { children_any, .. } => Ok(children_any),
        ExecVerdict::Deny(denial) => Err(denial),
    }
}

#[test]
fn rules_decide_by_real_arguments() {
    let policy = policy(&[
        ("*", "deny"),
        ("git *", "allow"),
        ("git push *", "deny"),
        ("rm -rf build", "allow"),
        ("/opt/tool *", "allow"),
        ("make *", "allow+any"),
    ]);
    for (argv, wanted) in [
        (&["git", "log"][..], Ok(false)),
        (&["git", "push", "origin"], Err(())),
        (&["rm", "-rf", "build"], Ok(false)),
        (&["rm", "-rf", "/"], Err(())),
        (&["rm", "-rf build"], Err(())),
        (&["/opt/tool", "x"], Ok(false)),
        // A file that PATH does not lead to is not what a name stands for.
        (&["/workspace/git", "log"], Err(())),
        (&["make", "all"], Ok(true)),
        (&["id"], Err(())),
    ] {
        let found = judged(&policy, argv, &[], &[]);
        assert_eq!(found.clone().map_err(|_| ()), wanted, "{argv:?}: {found:?}");
    }
}

#[test]
fn what_a_program_starts_needs_a_rule_or_is_a_helper() {
    let policy = policy(&[("*", "deny"), ("git *", "allow"), ("find *", "allow"), ("sh *", "allow")]);
    let git = ["git", "fetch"];
    assert_eq!(
        judged(&policy, &["/usr/lib/git-core/git-remote-https", "origin", "url"], &git, &[]),
        Ok(false)
    );
    assert!(judged(&policy, &["id"], &git, &[]).is_err());
    let tar = ["tar", "-tf", "x.tgz"];
    assert_eq!(judged(&policy, &["sh", "-c", "gzip"], &tar, &[]), Ok(false));
    assert_eq!(judged(&policy, &["gzip"], &["sh", "-c", "gzip"], &[]), Ok(false));
    assert!(judged(&policy, &["sh", "-c", "id"], &tar, &[]).is_err());
    assert!(judged(&policy, &["gzip"], &["sh", "-c", "id"], &[]).is_err());
    assert!(judged(&policy, &["rm", "x"], &["find", ".", "-exec", "rm", "x", ";"], &[]).is_err());
    // Script text that a program hands to a shell is read as in a line.
    assert!(judged(&policy, &["sh", "-c", "touch owned"], &git, &[]).is_err());
    assert!(judged(&policy, &["sh", "-c", "git log"], &git, &[]).is_ok());
}

#[test]
fn a_rule_that_spells_a_command_speaks_for_what_it_runs() {
    let policy = policy(&[("*", "deny"), ("sudo systemctl restart nginx", "allow")]);
    let sudo = ["sudo", "systemctl", "restart", "nginx"];
    assert_eq!(judged(&policy, &sudo, &[], &[]), Ok(false));
    assert_eq!(judged(&policy, &["systemctl", "restart", "nginx"], &sudo, &[]), Ok(false));
    assert!(judged(&policy, &["systemctl", "stop", "nginx"], &sudo, &[]).is_err());
    assert!(judged(&policy, &["systemctl", "restart", "nginx"], &[], &[]).is_err());
}

#[test]
fn the_environment_that_steers_is_judged() {
    let policy = policy(&[("*", "deny"), ("ls *", "allow"), ("sudo *", "allow")]);
    assert!(judged(&policy, &["ls"], &[], &["LD_PRELOAD=./x.so"]).is_err());
    assert!(judged(&policy, &["ls"], &[], &["OLDPWD=/", "SHLVL=2", "_=/usr/bin/ls"]).is_ok());
    assert!(judged(&policy, &["ls"], &["sudo", "ls"], &["HOME=/root", "SUDO_USER=x"]).is_ok());
    assert!(judged(&policy, &["ls"], &["sudo", "ls"], &["LD_PRELOAD=./x.so"]).is_err());
}

#[test]
fn a_rule_may_spell_what_is_set_for_one_command() {
    let policy = policy(&[("*", "deny"), ("FOO=* cat *", "allow"), ("A=1 B=* ls", "allow")]);
    assert!(judged(&policy, &["cat", "x"], &[], &["FOO=1", "SHLVL=2"]).is_ok());
    assert!(judged(&policy, &["cat", "x"], &[], &[]).is_err());
    assert!(judged(&policy, &["rm", "cat"], &[], &["FOO=1"]).is_err());
    assert!(judged(&policy, &["ls"], &[], &["B=x", "A=1"]).is_ok());
    assert!(judged(&policy, &["ls"], &[], &["B=x", "A=2"]).is_err());
    assert!(judged(&policy, &["cat", "x"], &[], &["FOO=1", "LD_PRELOAD=x"]).is_err());
}

#[test]
fn carve_outs_hold_for_each_way_to_the_program() {
    let policy = policy(&[("*", "allow"), ("rm -rf /", "deny")]);
    assert!(judged(&policy, &["rm", "-rf", "/"], &["sudo", "rm", "-rf", "/"], &[]).is_err());
    assert!(judged(&policy, &["/opt/copies/rm", "-rf", "/"], &[], &[]).is_err());
    assert!(judged(&policy, &["rm", "-rf", "/tmp/x"], &[], &[]).is_ok());
    assert!(judged(&policy, &["anything", "at all"], &[], &["LD_PRELOAD=x"]).is_ok());
}

#[test]
fn a_denial_says_what_would_allow_it() {
    let policy = policy(&[("*", "deny"), ("make *", "allow"), ("git push *", "deny")]);
    let denial = judged(&policy, &["cc", "-c", "x.c"], &["make", "all"], &[]).expect_err("denied");
    assert_eq!(denial.command, "cc -c x.c");
    assert!(denial.reason.contains("make started it"), "{denial:?}");
    assert!(denial.remedy.contains("children: any") && denial.remedy.contains("'cc *'"), "{denial:?}");
    let denial = judged(&policy, &["git", "push"], &[], &[]).expect_err("denied");
    assert_eq!(denial.rule.as_deref(), Some("git push *"));
}

#[test]
fn a_write_is_judged_by_where_it_goes() {
    let policy =
        policy(&[("*", "deny"), ("> *.log", "allow"), ("> reports/*", "allow"), ("> /etc/*", "deny")]);
    for (path, allowed) in [
        ("/ws/a.log", true),
        ("/ws/reports/x", true),
        ("/ws/sub/reports/x", true),
        ("/ws/other/reports/x", false),
        ("/ws/x", false),
        ("/etc/x.log", false),
        ("/dev/null", true),
        ("/reports/x", false),
    ] {
        assert_eq!(policy.judge_write(path, &["/ws", "/ws/sub"]).is_ok(), allowed, "{path}");
    }
}

#[test]
fn what_people_said_yes_to_passes_and_nothing_else() {
    let rules = policy(&[
        ("*", "deny"),
        ("systemctl restart *", "ask"),
        ("reboot", "ask"),
        ("> /etc/*", "ask"),
        ("systemctl restart db", "deny"),
    ]);
    assert!(judged(&rules, &["systemctl", "restart", "nginx"], &[], &[]).is_err());
    let rules = rules.with_approved(["systemctl restart *".to_owned(), "> /etc/*".to_owned()]);
    assert!(judged(&rules, &["systemctl", "restart", "nginx"], &[], &[]).is_ok());
    assert!(judged(&rules, &["systemctl", "restart", "db"], &[], &[]).is_err());
    assert!(judged(&rules, &["reboot"], &[], &[]).is_err());
    assert!(rules.judge_write("/etc/x", &[]).is_ok() && rules.judge_write("/srv/x", &[]).is_err());
    let text = serde_json::to_string(&rules).expect("JSON");
    assert_eq!(serde_json::from_str::<Policy>(&text).expect("a policy"), rules);
    // The reading still asks.
    assert_eq!(rules.judge("systemctl restart nginx").decision, Decision::Ask);
}

#[test]
fn a_rule_may_ask_two_people() {
    let rule = |action: &str, persons: &str| RuleText {
        pattern: "reboot *".into(),
        action: action.into(),
        persons: persons.into(),
        ..RuleText::default()
    };
    let two = Policy::from_rules([rule("ask", "2")]).expect("rules");
    assert_eq!(two.persons_for(&two.judge("reboot now")), 2);
    assert_eq!(two.persons_for(&two.judge("ls")), 1);
    let text = serde_json::to_string(&two).expect("JSON");
    assert_eq!(serde_json::from_str::<Policy>(&text).expect("a policy"), two);
    for (action, persons) in [("allow", "2"), ("ask", "3"), ("ask", "two")] {
        let error = Policy::from_rules([rule(action, persons)]).expect_err("no rule").to_string();
        assert!(error.contains("persons"), "{error}");
    }
}

#[test]
fn a_policy_arrives_as_it_was_sent() {
    let policy =
        policy(&[("*", "deny"), ("make *", "allow+any"), ("> x", "ask")]).with_env_names(["A".into()]);
    let text = serde_json::to_string(&policy).expect("JSON");
    assert_eq!(serde_json::from_str::<Policy>(&text).expect("a policy"), policy);
}

#[test]
fn words_that_a_program_fills_in_are_left_to_the_start_that_has_them() {
    let narrow = policy(&[
        ("*", "deny"),
        ("cat {path:/ok}", "allow"),
        ("xargs *", "allow"),
        ("find *", "allow"),
        ("env *", "allow"),
        ("sh *", "allow"),
        ("ls *", "allow"),
    ]);
    let trusting = policy(&[("*", "allow"), ("rm -rf /", "deny")]);
    for (policy, argv) in [
        (&narrow, &["xargs", "cat"][..]),
        (&narrow, &["xargs", "-n1", "cat"]),
        (&narrow, &["find", "/ok", "-name", "f", "-exec", "cat", "{}", "+"]),
        (&narrow, &["env", "FOO=1", "ls"]),
        (&narrow, &["xargs", "-I{}", "sh", "-c", "ls {}"]),
        (&trusting, &["find", ".", "-name", "*.o", "-exec", "rm", "-rf", "{}", "+"]),
        (&trusting, &["xargs", "rm", "-rf"]),
        (&trusting, &["xargs", "-I{}", "sh", "-c", "echo {}"]),
        (&trusting, &["xargs", "-I{}", "sh", "-c", "rm -rf {}"]),
    ] {
        assert_eq!(judged(policy, argv, &[], &[]), Ok(false), "{argv:?}");
    }
    // What is known already decides, and then the start that has the words.
    for (policy, argv, by) in [
        (&narrow, &["xargs", "id"][..], &["sh"][..]),
        (&narrow, &["env", "LD_PRELOAD=./x.so", "ls"], &["sh"]),
        (&narrow, &["env", "HTTPS_PROXY=http://evil", "ls"], &["sh"]),
        (&narrow, &["find", ".", "-delete"], &["sh"]),
        (&narrow, &["cat", "/secret"], &["xargs", "cat"]),
        (&narrow, &["cat", "/ok/f", "/secret"], &["find", "/", "-exec", "cat", "{}", "+"]),
        (&narrow, &["sh", "-c", "cat /ok/f; touch x"], &["xargs", "-I{}", "sh", "-c", "cat {}"]),
        (&trusting, &["rm", "-rf", "/"], &["xargs", "rm", "-rf"]),
        (&trusting, &["rm", "-rf", "/"], &["find", "/", "-exec", "rm", "-rf", "{}", "+"]),
        (&trusting, &["sh", "-c", "rm -rf /"], &["xargs", "-I{}", "sh", "-c", "rm -rf {}"]),
        // One program of many names runs the other within itself.
        (&trusting, &["busybox", "xargs", "rm", "-rf"], &["sh"]),
    ] {
        assert!(judged(policy, argv, by, &[]).is_err(), "{argv:?}");
    }
    // Beneath a rule that frees what it starts nothing is judged later.
    let freeing = policy(&[
        ("*", "deny"),
        ("xargs *", "allow+any"),
        ("rm *", "allow"),
        ("echo *", "allow"),
        ("rm -rf /", "deny"),
    ]);
    assert!(judged(&freeing, &["xargs", "rm", "-rf"], &[], &[]).is_err());
    assert_eq!(judged(&freeing, &["xargs", "echo", "x"], &[], &[]), Ok(true));
}

#[test]
fn a_rule_that_is_there_is_no_advice() {
    let policy = policy(&[("*", "deny"), ("xargs *", "allow"), ("make *", "allow"), ("touch *", "allow")]);
    let denial = judged(&policy, &["xargs", "cat"], &["sh"], &[]).expect_err("denied");
    assert!(denial.reason.contains("'cat") && denial.remedy.contains("'cat *': allow"), "{denial:?}");
    assert!(!denial.message().contains("'xargs *'"), "{denial:?}");
    let env = ["MAKEFLAGS=", "MAKELEVEL=1"];
    let denial = judged(&policy, &["touch", "z"], &["make", "all"], &env).expect_err("denied");
    assert!(denial.remedy.contains("children: any in the rule for make"), "{denial:?}");
    assert!(!denial.message().contains("'touch *'"), "{denial:?}");
}

#[test]
fn no_rule_is_proposed_for_what_none_allows() {
    let policy = policy(&[("*", "deny"), ("ls *", "allow")]);
    let denial = judged(&policy, &["ls"], &[], &["LD_PRELOAD=./x.so"]).expect_err("denied");
    assert!(denial.reason.contains("LD_PRELOAD") && denial.remedy.contains("no rule allows"), "{denial:?}");
    let denial = judged(&policy, &["id"], &[], &["LD_PRELOAD=./x.so"]).expect_err("denied");
    assert!(!denial.remedy.contains("'id *'"), "{denial:?}");
}

#[test]
fn a_denied_option_is_told_by_its_reason() {
    let policy = policy(&[("*", "deny"), ("find *", "allow")]);
    let denial = judged(&policy, &["find", ".", "-delete"], &["sh", "-c", "x"], &[]).expect_err("denied");
    assert!(denial.reason.contains("-delete"), "{denial:?}");
    assert!(!denial.remedy.contains("'find *'"), "{denial:?}");
}

#[test]
fn rules_of_an_original_free_what_ran_before() {
    let mut policy =
        policy(&[("*", "deny"), ("make *", "allow"), ("our-tool *", "allow"), ("ls *", "allow")]);
    assert_eq!(policy.imply_children(), ["make *", "our-tool *"]);
    assert_eq!(judged(&policy, &["our-tool", "x"], &[], &[]), Ok(true));
    assert_eq!(judged(&policy, &["ls", "x"], &[], &[]), Ok(false));
}
