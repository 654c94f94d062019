//! The policy's verdict, and grep against ripgrep.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use legwork_policy::Policy;
use legwork_workspace::Root;

use crate::{median, report};

pub(crate) fn verdict() {
    let start = Instant::now();
    legwork_policy::prepare();
    let took = start.elapsed();
    report("the tables of programs are read", &format!("{took:?}"), "5 ms", took.as_secs_f64() / 5e-3);
    // As many rules as an operator has who names each program: none of the others matches.
    let more: Vec<String> = (0..146).map(|at| format!("program{at} {{word}} *")).collect();
    let rules = [("*", "deny"), ("kubectl get *", "allow"), ("jq *", "allow"), ("grep *", "allow")];
    let rules = rules.into_iter().chain(more.iter().map(|pattern| (pattern.as_str(), "allow")));
    let policy = Policy::from_pairs(rules).unwrap();
    let line = "kubectl get pods -n web -o json | jq '.items[].metadata.name' | grep -v test";
    assert!(policy.judge(line).message().is_none());
    let times = (0..2000).map(|_| {
        let start = Instant::now();
        std::hint::black_box(policy.judge(line));
        start.elapsed()
    });
    let took = median(times.collect());
    report("verdict on a typical line, 150 rules", &format!("{took:?}"), "20 µs", took.as_secs_f64() / 20e-6);
    let strict = Policy::from_pairs([("*", "deny"), ("echo *", "allow"), ("ls *", "allow")]).unwrap();
    let worst = |what: &str, lines: &[String], bound: f64| {
        let times = lines.iter().map(|line| {
            let start = Instant::now();
            std::hint::black_box(strict.judge(line));
            start.elapsed()
        });
        let took = times.max().unwrap();
        report(what, &format!("{took:?}"), &format!("{bound} ms"), took.as_secs_f64() * 1000.0 / bound);
    };
    let long = [
        "echo ".repeat(13_107),
        "ls -la /a/b; ".repeat(5_000),
        "echo a && ".repeat(6_500) + "ls",
        format!("echo '{}'", "x".repeat(65_000)),
        "echo $x \"$y\" *.c ".repeat(3_600),
    ];
    worst("a line of 64 KiB", &long, 50.0);
    let nested = |open: &str, close: &str, n: usize| format!("{}ls{}", open.repeat(n), close.repeat(n));
    let nests: Vec<String> = [
        ("$(", ")"),
        ("(", ")"),
        ("{ ", "; }"),
        ("((", "))"),
        ("`", "`"),
        ("${x:-", "}"),
        ("\"$(", ")\""),
        ("[[ ", " ]]"),
        ("if ", "; then :; fi"),
        ("<(", ")"),
        ("! ", ""),
        ("echo $((", "))"),
        ("case x in x) ", ";; esac"),
        ("${a[", "]}"),
        ("eval ", ""),
        ("sudo ", ""),
        ("bash -c '", "'"),
        ("{a,", "}"),
        ("<<x <<", ""),
        ("x=", ""),
        ("while ", "; do :; done"),
    ]
    .iter()
    .flat_map(|(open, close)| {
        [39, 1000, 65_000 / (open.len() + close.len()).max(1)].map(|n| nested(open, close, n))
    })
    .collect();
    worst("adversarial nesting", &nests, 100.0);
}

/// `bash -n` for a line, as the runner asks for it, beside a bare one.
pub(crate) fn syntax() {
    use std::collections::BTreeMap;
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let policy = Policy::from_pairs([("*", "deny"), ("ls *", "allow")]).unwrap();
    let line = "for i in 1 2 3; do ls $i; done";
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let start = Instant::now();
        let verdict = policy.judge(line);
        let text = verdict.run.unwrap().text;
        legwork_process::check_syntax(Path::new("/bin/bash"), &text, &env).unwrap();
        ours.push(start.elapsed());
        let start = Instant::now();
        Command::new("/bin/bash").args(["--noprofile", "--norc", "-n", "-c", line]).status().unwrap();
        bare.push(start.elapsed());
    }
    let (ours, bare) = (median(ours), median(bare));
    let over = ours.saturating_sub(bare);
    let measured = format!("{ours:?}; bare `bash -n` {bare:?}, so + {over:?}");
    report("verdict with `bash -n`", &measured, "+ 0.1 ms", over.as_secs_f64() / 0.0001);
}

/// A tree of about 1.1 GB of text in 20,000 files.
fn tree(dir: &Path) {
    let mut seed = 1u64;
    let mut word = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    for n in 0..20_000 {
        let folder = dir.join(format!("d{}", n % 200));
        std::fs::create_dir_all(&folder).unwrap();
        let mut text = Vec::with_capacity(60_000);
        while text.len() < 55_000 {
            let (a, b, c) = (word() % 5000, word() % 5000, word());
            if c % 20_000 == 0 {
                writeln!(text, "fn needle_{a}(value: Haystack) -> Result<{b}>").unwrap();
            } else {
                writeln!(text, "let word{a} = call_{b}(\"some text of an ordinary line\", {c});").unwrap();
            }
        }
        std::fs::write(folder.join(format!("f{n}.rs")), text).unwrap();
    }
}

pub(crate) fn grep() {
    let rg = std::env::var("RG").unwrap_or_else(|_| "rg".into());
    let Ok(version) = Command::new(&rg).arg("--version").output() else {
        println!("SKIPPED grep: no ripgrep (cargo install ripgrep, or give its path in RG)");
        return;
    };
    println!("peer: {}", String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default());
    let dir = tempfile::tempdir_in(".").unwrap();
    tree(dir.path());
    let root = Root::open(dir.path()).unwrap();
    for (kind, pattern) in [("literal", "needle_4"), ("regex", r"fn \w+_\d+\(value: [A-Z]\w+\)")] {
        let stop = AtomicBool::new(false);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut our_lines, mut their_lines) = (0, 0);
        for _ in 0..7 {
            let start = Instant::now();
            our_lines = root.grep(pattern, &[], &stop).unwrap().matches.len();
            ours.push(start.elapsed());
            let start = Instant::now();
            let output = Command::new(&rg)
                .args(["-n", "--smart-case", pattern])
                .current_dir(dir.path())
                .output()
                .unwrap();
            theirs.push(start.elapsed());
            their_lines = output.stdout.iter().filter(|b| **b == b'\n').count();
        }
        assert_eq!(our_lines, their_lines, "the same lines are found");
        let (ours, theirs): (Duration, Duration) = (median(ours), median(theirs));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        let measured = format!("{ours:?} against {theirs:?}, {our_lines} lines, ratio {ratio:.3}");
        report(&format!("grep 1.1 GB, {kind}"), &measured, "1.05 × ripgrep", ratio / 1.05);
    }
}
