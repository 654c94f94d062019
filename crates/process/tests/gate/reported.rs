//! What was reported of other gates, tried on this one: each kind as it was told there.

use crate::kit::{Outcome, PATH, Yard};

struct Reported {
    /// The public report that told of it.
    by: &'static str,
    rules: &'static [&'static str],
    /// Prints OWNED if it can.
    line: &'static str,
}

const fn reported(by: &'static str, rules: &'static [&'static str], line: &'static str) -> Reported {
    Reported { by, rules, line }
}

const GIT: &[&str] = &["git *", "chmod *"];

const REPORTED: &[Reported] = &[
    reported("mofa-org/mofa#1156", &["find *"], "find . -maxdepth 0 -exec /bin/sh -c 'echo OWNED' ';'"),
    reported("andrewyng/openworker#280", &["find *"], "find . -maxdepth 0 -exec sh -c 'echo OWNED' {} +"),
    reported("NousResearch/hermes-agent#58736", &["env *"], "env --split-string='/bin/echo OWNED'"),
    reported("NousResearch/hermes-agent#58736", &["runuser *"], "runuser -u nobody -- /bin/echo OWNED"),
    reported("NousResearch/hermes-agent#58736", &["xargs *"], "echo OWNED | xargs printf '%s\\n'"),
    reported("tinyhumansai/openhuman#1923", &["awk *"], "awk 'BEGIN { system(\"echo OWNED\") }'"),
    reported("canyonroad/agentsh#391", &["python3 *"], "python3 -c 'import os; os.system(\"echo OWNED\")'"),
    reported("canyonroad/agentsh#391", &["bash *"], "echo '/bin/echo OWNED' > s; bash s"),
    reported(
        "tya5/reyn#3229",
        &["ls *"],
        "for l in /lib64/ld-linux-*.so.2 /lib/ld-linux-*.so.1; do $l /bin/echo OWNED; done",
    ),
    reported(
        "gptme/gptme#840",
        &["base64 *", "cat *", "bash *"],
        "echo L2Jpbi9lY2hvIE9XTkVECg== > t; cat t | base64 -d | bash",
    ),
    reported("ankitvgupta/exo#24", &["ls *"], "{/bin/echo,OWNED}"),
    reported("charmbracelet/crush#3425", &["ls *"], "ls > /dev/null; CMD=/bin/echo; $CMD OWNED"),
    reported("gke-labs/kube-agents#952", GIT, "git -c protocol.ext.allow=always clone ext::./p y"),
    reported("gke-labs/kube-agents#952", GIT, "git config alias.zz '!echo OWNED'; git zz"),
    reported("gke-labs/kube-agents#952", GIT, "git add f; git grep -O./p x"),
    reported(
        "gke-labs/kube-agents#952",
        GIT,
        "git config man.viewer evil; git config man.evil.cmd 'echo OWNED #'; git help -m git",
    ),
    reported("fwdai/fletch#564", GIT, "git config core.fsmonitor ./p; git status 2>&1"),
    reported("fwdai/fletch#564", GIT, "git add f; echo y > f; git -c diff.external=./p diff"),
    reported(
        "fwdai/fletch#564",
        GIT,
        "git config filter.x.clean ./p; echo '* filter=x' > .gitattributes; git add f; git show :f",
    ),
    reported("elizaOS/eliza#18720", GIT, "git add f; echo y > f; GIT_EXTERNAL_DIFF=./p git diff"),
    reported("elizaOS/eliza#18720", GIT, "GIT_SSH=./p git ls-remote ssh://h/x 2>&1"),
];

async fn run(rules: &[&str], line: &str, gated: bool) -> Outcome {
    let yard = Yard::new(rules);
    yard.program("p", "#!/bin/sh\necho OWNED\necho OWNED >&2\n");
    std::fs::write(yard.work.join("f"), "x\n").unwrap();
    if line.contains("git ") && !yard.run_free("git init -q .").await.ok() {
        eprintln!("NO CONTROL HERE: git");
    }
    if gated { yard.run(line).await } else { yard.run_free(line).await }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_past_other_gates_does_not_go_past_this_one() {
    let took =
        |o: &Outcome| [&o.stdout, &o.stderr].iter().any(|text| text.lines().any(|l| l.ends_with("OWNED")));
    let mut problems = Vec::new();
    let mut shown = 0;
    for Reported { by, rules, line } in REPORTED {
        let control = run(&["*"], line, false).await;
        if !took(&control) {
            eprintln!("NO CONTROL HERE: {by}: {line}: {}", control.all());
            continue;
        }
        let outcome = run(rules, line, true).await;
        if took(&outcome) || outcome.status.denied.is_empty() {
            problems.push(format!("{by}: {line}: {}", outcome.all()));
        } else {
            shown += 1;
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(shown > 14, "{shown}");
}

/// anomalyco/opencode#9516: what a rule denies is denied by whoever fills in its last word.
#[tokio::test]
async fn a_denied_request_is_denied_behind_xargs() {
    let mut yard = Yard::new(&["*", "!gh api* -X DELETE*"]);
    let bin = yard.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::copy("/bin/echo", bin.join("gh")).unwrap();
    yard.env.insert("PATH".into(), format!("{}:{PATH}", bin.display()));
    let line = "echo a/1 | xargs -I{} gh api -X DELETE repos/{}; echo b/2 | xargs -I{} gh api repos/{}";
    assert_eq!(yard.run_free(line).await.stdout, "api -X DELETE repos/a/1\napi repos/b/2\n");
    let outcome = yard.run(line).await;
    let rules: Vec<_> = outcome.status.denied.iter().filter_map(|denial| denial.rule.as_deref()).collect();
    assert_eq!(
        (outcome.stdout.as_str(), rules),
        ("api repos/b/2\n", vec!["gh api* -X DELETE*"]),
        "{}",
        outcome.all()
    );
}

/// mofa-org/mofa#1156: an option that removes is no option to look.
#[tokio::test]
async fn find_removes_nothing_under_a_rule_to_look() {
    let yard = Yard::new(&["find *"]);
    std::fs::write(yard.work.join("kept"), "").unwrap();
    let outcome = yard.run("x=-delete; find . -name kept $x").await;
    assert!(yard.work.join("kept").exists() && outcome.denied() == ["find"], "{}", outcome.all());
    yard.run_free("x=-delete; find . -name kept $x").await;
    assert!(!yard.work.join("kept").exists());
}

/// sudo-project/sudo#194 and #228: scripts by relative paths and by several links keep their
/// names, whatever folder they are called from.
#[tokio::test]
async fn scripts_by_links_and_from_other_folders_are_what_they_were_called() {
    let yard = Yard::new(&["./common/tool *", "bash *", "cd *"]);
    for folder in ["common", "dir1", "dir2"] {
        std::fs::create_dir(yard.work.join(folder)).unwrap();
    }
    yard.program("common/tool", "#!/bin/bash\necho $0\n");
    for folder in ["dir1", "dir2"] {
        std::os::unix::fs::symlink("../common/tool", yard.work.join(folder).join("tool")).unwrap();
    }
    let outcome = yard.run("dir1/tool; dir2/tool; cd dir1; ./tool; cd ../common; ./tool").await;
    assert_eq!(outcome.stdout, "dir1/tool\ndir2/tool\n./tool\n./tool\n", "{}", outcome.all());
    assert!(outcome.denied().is_empty(), "{}", outcome.all());
}

/// multikernel/sandlock#235: a signal that comes while a call waits for its answer costs nothing.
#[tokio::test]
async fn pipelines_of_a_shell_whose_calls_signals_interrupt_all_end() {
    let mut yard = Yard::new(&["dash *", "sh *", "cat *", "> out/*"]);
    yard.gate.writes = true;
    std::fs::create_dir(yard.work.join("out")).unwrap();
    if !yard.run_free("dash -c true").await.ok() {
        eprintln!("NO CONTROL HERE: dash");
        return;
    }
    let text = "for i in 1 2 3 4 5 6 7 8 9 10; do echo abc | cat | cat; (cat /dev/null &); cat /dev/null > out/x; done";
    std::fs::write(yard.work.join("s"), text).unwrap();
    let outcome = yard.run("for j in {1..10}; do dash ./s; done").await;
    assert_eq!(outcome.stdout.matches("abc\n").count(), 100, "{}", outcome.all());
    assert!(outcome.ok() && outcome.stderr.is_empty(), "{}", outcome.all());
}
