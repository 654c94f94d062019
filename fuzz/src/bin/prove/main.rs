//! Proof by execution: lines that the policy allows are run under `strace`, in a
//! sandbox, and what was really executed and written is held against the verdict.
//!
//!     prove [--seed N] [--count N] [--from FILE]
//!
//! Seeded: line N of a seed is always the same. With `--from` the number of lines done
//! is kept in FILE, and a later run goes on from there.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs
)]

mod lines;
mod trace;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use legwork_policy::{Decision, Policy};

use lines::Generator;
use trace::Yard;

/// Programs that the rules name. Those of the second list stand for whatever else there is.
pub(crate) const NAMED: &[&str] = &["ls", "cat", "head", "wc", "grep", "uname"];
pub(crate) const UNNAMED: &[&str] = &["evil", "id", "rm", "curl", "cp", "nc"];
/// Programs that run others, really there: allowed, so that only the judgement of what
/// they run stands between a line and the unnamed.
pub(crate) const WRAPPERS: &[&str] = &[
    "env", "xargs", "timeout", "nice", "nohup", "setsid", "stdbuf", "find", "sh", "bash", "dash", "awk",
    "sed", "sort", "tar", "git", "flock", "ionice", "chrt", "taskset", "time", "split", "watch", "mawk",
];
const BUILTINS: &[&str] = &[
    "echo", "printf", "cd", "true", "false", "test", "[", "read", "export", "command", "builtin", "exec",
    "eval", "trap", "set", "unset", "shift", "local", "declare", "mapfile", "wait", "exit", "return",
    "break", "continue", ":", "type", "pwd", "let", "alias", "hash", "getopts", "f", "g",
];

fn policy() -> Policy {
    let mut rules = vec![("*".to_owned(), "deny")];
    for name in NAMED.iter().chain(WRAPPERS).chain(BUILTINS) {
        // A rule for a shell with a file, or for `source`, is a rule for everything
        // (point 20), and so nothing to be proved.
        match *name {
            "sh" | "bash" | "dash" => rules.push((format!("{name} -c *"), "allow")),
            name => rules.push((format!("{name} *"), "allow")),
        }
    }
    rules.push(("> out/*".into(), "allow"));
    rules.push(("FOO=* ls *".into(), "allow"));
    Policy::from_pairs(rules.iter().map(|(p, a)| (p.as_str(), *a)))
        .unwrap()
        .with_env_names(["PATH", "HOME"].map(String::from))
}

struct Args {
    seed: u64,
    count: u64,
    from: Option<PathBuf>,
}

fn args() -> Args {
    let mut args = Args { seed: 1, count: 2000, from: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--seed" => args.seed = value().parse().unwrap(),
            "--count" => args.count = value().parse().unwrap(),
            "--from" => args.from = Some(value().into()),
            other => panic!("unknown argument {other}"),
        }
    }
    args
}

fn main() {
    let args = args();
    for program in ["strace", "bwrap"] {
        assert!(
            std::process::Command::new(program).arg("--version").output().is_ok(),
            "{program} is not installed: scripts/tools installs it"
        );
    }
    let first: u64 =
        args.from.as_ref().and_then(|f| std::fs::read_to_string(f).ok()?.trim().parse().ok()).unwrap_or(0);
    let generator = Generator::new(args.seed);
    let policy = policy();
    let next = AtomicU64::new(first);
    let end = first + args.count;
    let (ran, allowed) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures: Mutex<Vec<String>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let yard = Yard::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    let line = generator.line(number);
                    let verdict = policy.judge(&line);
                    let Some(run) = verdict.run.clone().filter(|_| verdict.decision == Decision::Allow)
                    else {
                        continue;
                    };
                    allowed.fetch_add(1, Ordering::Relaxed);
                    if !yard.accepts(&run) {
                        continue;
                    }
                    ran.fetch_add(1, Ordering::Relaxed);
                    for problem in yard.run(&run.text, &verdict) {
                        let mut failures = failures.lock().unwrap();
                        failures.push(format!("line {number}: {line:?}: {problem}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    println!(
        "proof by execution: seed {}, lines {first} to {end}: {} allowed, {} run and traced, {} failures",
        args.seed,
        allowed.into_inner(),
        ran.into_inner(),
        failures.len()
    );
    if let Some(file) = &args.from {
        std::fs::write(file, end.to_string()).unwrap();
    }
    for failure in failures.iter().take(20) {
        println!("{failure}");
    }
    std::process::exit(i32::from(!failures.is_empty()));
}
