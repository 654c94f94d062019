use crate::{Decision, Policy};

fn policy(rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|rule| (*rule, "allow"));
    Policy::from_pairs([("*", "deny")].into_iter().chain(rules)).expect("rules")
}

#[test]
fn what_passes_and_does_the_same_is_proposed() {
    for (rules, line, instead) in [
        (&["git *"] as &[&str], "/usr/bin/git status", "git status"),
        (&["git *", "cat *"], "/usr/bin/git log | /bin/cat -n", "git log | cat -n"),
        (&["git *"], "PAGER=cat git log", "git log"),
        (&["git *"], "LC_ALL=C GIT_PAGER= git log -3", "LC_ALL=C git log -3"),
        (&["sort *"], "sort --rev x", "sort --reverse x"),
        (&["echo *", "ls *"], "echo a; bash -c 'ls -l /tmp; ls'", "echo a; (ls -l /tmp; ls)"),
        (&["ls *"], "bash -c 'ls -l'", "ls -l"),
        (&["ls *"], "eval \"ls -l\"", "ls -l"),
        (&["grep *"], "bash -c \"grep x $f\"", "grep x $f"),
        (&["ls *"], "command ls -l", "ls -l"),
        (&["ls *"], "env ls -l", "ls -l"),
        (&["ls *"], "env LC_ALL=C ls -l", "LC_ALL=C ls -l"),
        (&["du *"], "nice -n 19 ionice -c 3 du -s /var", "du -s /var"),
        (&["ls *", "wc *"], "busybox ls | busybox wc -l", "ls | wc -l"),
        (&["journalctl *"], "journalctl -u nginx | less", "journalctl -u nginx"),
        (&["cat *"], "less -R x.log", "cat x.log"),
        (&["docker compose ps *"], "docker-compose ps", "docker compose ps"),
        (&["systemctl status *"], "service nginx status", "systemctl status nginx"),
        (&["type *"], "which jq", "type jq"),
        (&["echo *", "> out"], "echo x | tee out >/dev/null", "echo x > out"),
        (&["[ *", "echo *"], "if [[ $x -eq 3 ]]; then echo y; fi", "if [ \"$x\" -eq 3 ]; then echo y; fi"),
        (
            &["ls *", "xargs *", "bash *", "wc *", "echo *"],
            "ls *.log | xargs -I{} sh -c 'echo {}; wc -l {}'",
            "ls *.log | xargs -I{} bash -c 'echo \"$1\"; wc -l \"$1\"' bash {}",
        ),
    ] {
        for gate in [false, true] {
            let policy = policy(rules).with_exec_gate(gate);
            let verdict = policy.judge_and_repair(line);
            if verdict.decision == Decision::Allow {
                assert_eq!(verdict.suggestion, None, "{line}");
                assert!(gate, "{line} passes");
                continue;
            }
            assert_eq!(verdict.suggestion.as_deref(), Some(instead), "{line}: {:?}", verdict.message());
            let message = verdict.message().expect("it is denied");
            assert!(message.ends_with(&format!("; write instead: {instead}")), "{message}");
        }
    }
}

#[test]
fn nothing_is_proposed_that_does_something_else() {
    for (rules, line) in [
        (&["ls *"] as &[&str], "rm -rf x"),
        (&["ls *"], "./ls -l"),
        (&["ls *"], "sudo ls"),
        (&["echo *"], "x=1; bash -c 'echo $x'"),
        (&["echo *"], "bash -c 'echo $1' a b"),
        (&["ls *"], "LD_PRELOAD=x ls"),
        (&["cat *"], "tee x < y"),
        (&["ls *"], "nohup ls > /etc/x"),
    ] {
        let verdict = policy(rules).judge_and_repair(line);
        assert_eq!((verdict.decision, verdict.suggestion), (Decision::Deny, None), "{line}");
    }
}

#[test]
fn the_rules_that_would_allow_a_line_are_those_that_it_needs() {
    for (line, needed) in [
        ("mv a b", &["mv a b"] as &[&str]),
        ("ls | wc -l", &["ls", "wc *"]),
        (
            "KUBECONFIG=/etc/kube/admin.conf kubectl get nodes",
            &["KUBECONFIG=/etc/kube/admin.conf kubectl get *"],
        ),
        ("HTTPS_PROXY=http://p:3128 curl -s https://x", &["HTTPS_PROXY=* curl -s https://x"]),
        ("export KUBECONFIG=/x", &["export KUBECONFIG=/x"]),
        ("our-tool --deep", &["our-tool --deep"]),
    ] {
        let policy = policy(&[]).with_env_names(["HTTPS_PROXY".into()]);
        let found = policy.would_allow(line);
        let patterns: Vec<&str> = found.iter().map(|(pattern, _)| pattern.as_str()).collect();
        assert_eq!(patterns, needed, "{line}");
    }
    let denied = Policy::from_pairs([("*", "deny"), ("git *", "allow"), ("git push *", "deny")]);
    assert_eq!(denied.expect("rules").would_allow("git push"), []);
}
