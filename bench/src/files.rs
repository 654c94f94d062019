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
    let rules = [("*", "deny"), ("kubectl get *", "allow"), ("jq *", "allow"), ("grep *", "allow")];
    let policy = Policy::from_pairs(rules).unwrap();
    let line = "kubectl get pods -n web -o json | jq '.items[].metadata.name' | grep -v test";
    assert!(policy.judge(line).message().is_none());
    let times = (0..2000).map(|_| {
        let start = Instant::now();
        std::hint::black_box(policy.judge(line));
        start.elapsed()
    });
    let took = median(times.collect());
    report("verdict on a typical line", &format!("{took:?}"), "20 µs", took.as_secs_f64() / 20e-6);
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
