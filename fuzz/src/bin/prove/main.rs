//! Proof by execution: lines go through a real runner with the default configuration, in a
//! throw-away machine, and what `strace` saw them execute and what they changed is held
//! against a plain reading of the rules. `scripts/prove` makes what it needs and calls it:
//!
//!     prove --home DIR --fixtures DIR --corpus FILE [--who root|plain] [--share N]
//!           [--slice N] [--generated N] [--quotes N] [--seed N] [--only TEXT] [--report FILE]
//!
//! Of attacks, each N-th (`--share`) also has its control run: the same line under `*: allow`,
//! which must show the harm. Of all other lines each N-th (`--slice`) is tried. Generated line N of a seed is always the same.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs
)]

mod cases;
mod judge;
mod lines;
mod plain;
mod quotes;
mod report;
mod trace;
mod worker;
mod yard;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use cases::{Case, Kind};
use judge::{Outcome, try_case};
use plain::Rule;
use report::Report;
use yard::{Setup, Who, Yard};

/// Programs that the rules for generated lines name. Those of the second list stand for
/// whatever else there is.
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

fn generated_rules() -> Vec<Rule> {
    let mut rules = vec![Rule::deny_all()];
    for name in NAMED.iter().chain(WRAPPERS).chain(BUILTINS) {
        // A rule for a shell with a file, or for `source`, is a rule for everything
        // (point 20), and so nothing to be proved.
        match *name {
            "sh" | "bash" | "dash" => rules.push(Rule::read(&format!("{name} -c *"))),
            name => rules.push(Rule::read(&format!("{name} *"))),
        }
    }
    rules.push(Rule::read("> out/*"));
    rules.push(Rule::read("FOO=* ls *"));
    rules
}

#[derive(Debug, Default)]
struct Args {
    home: PathBuf,
    fixtures: PathBuf,
    corpus: PathBuf,
    who: Option<Who>,
    share: usize,
    slice: usize,
    generated: usize,
    quotes: u64,
    seed: u64,
    only: String,
    report: Option<PathBuf>,
}

fn args() -> Args {
    let mut args = Args { share: 1, slice: 1, seed: 1, ..Args::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--home" => args.home = value().into(),
            "--fixtures" => args.fixtures = value().into(),
            "--corpus" => args.corpus = value().into(),
            "--who" => args.who = Some(if value() == "root" { Who::Root } else { Who::Plain }),
            "--share" => args.share = value().parse().unwrap(),
            "--slice" => args.slice = value().parse().unwrap(),
            "--generated" => args.generated = value().parse().unwrap(),
            "--quotes" => args.quotes = value().parse().unwrap(),
            "--seed" => args.seed = value().parse().unwrap(),
            "--only" => args.only = value(),
            "--report" => args.report = Some(value().into()),
            other => panic!("unknown argument {other}"),
        }
    }
    args
}

/// Whether we are no root, whose namespaces have one user.
fn one_user() -> bool {
    std::env::var_os("PROVE_ONE_USER").is_some()
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("__supervisors") => return legwork_runner::process::helper_main(),
        Some("--worker") => return worker::run(),
        _ => {}
    }
    let args = args();
    let mut cases = cases::read(&args.fixtures, &args.corpus);
    let generator = lines::Generator::new(args.seed);
    let rules = generated_rules();
    cases.extend((0..args.generated).map(|number| Case {
        kind: Kind::Generated,
        name: format!("seed {} line {number}", args.seed),
        rules: rules.clone(),
        line: generator.line(number as u64),
        for_root: false,
        open: None,
        named: false,
    }));
    cases.retain(|case| case.name.contains(&args.only));
    let both = if one_user() { vec![Who::Root] } else { vec![Who::Root, Who::Plain] };
    if one_user() {
        println!("NOT TESTED HERE: lines as a plain user, as only root can make both");
    }
    let who: Vec<Who> = args.who.map_or(both, |who| vec![who]);
    // What must be held is all tried; of other lines, root gets one part and a plain user another.
    let in_slice = |number: usize, who: Who| {
        if cases[number].for_root && who != Who::Root {
            return false;
        }
        let held = matches!(cases[number].kind, Kind::Attack(_)) && cases[number].open.is_none();
        held || number % args.slice == who as usize % args.slice
    };
    let all = who.iter().flat_map(|who| (0..cases.len()).map(move |number| (number, *who)));
    let jobs: Vec<(usize, Who)> = all.filter(|(number, who)| in_slice(*number, *who)).collect();
    if let Err(problem) = canary(&args, who[0]) {
        println!("no line was run: {problem}");
        std::process::exit(1);
    }
    let report = Mutex::new(Report::default());
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let chunk = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                work(&args, &cases, &jobs, &next, &report);
                against_bash(&args, &chunk, &report);
            });
        }
    });
    let report = report.into_inner().unwrap();
    if let Some(file) = &args.report {
        std::fs::write(file, report.text()).unwrap();
    }
    std::process::exit(i32::from(!report.print()));
}

/// Before any line is run: what is done in a yard is seen there, and does not reach the machine.
fn canary(args: &Args, who: Who) -> Result<(), String> {
    let [system, _] = setups(args);
    let mut yard = Yard::open(&system, who)?;
    let name = format!("legwork-canary-{}", std::process::id());
    let places = ["/etc", "/tmp", "/usr/bin", "/home"].map(|folder| format!("{folder}/{name}"));
    let free = [Rule::allow_all()];
    let seen = yard.run(&free, &format!("touch {}", places.join(" ")), 5000)?;
    if let Some(place) = places.iter().find(|place| std::path::Path::new(place).exists()) {
        return Err(format!("the yard is not shut: {place} is on this machine; remove it"));
    }
    let is_root = who == Who::Root && !one_user();
    let there = if is_root { &places[..] } else { &places[1..2] };
    if let Some(place) = there.iter().find(|place| !seen.changes.contains(*place)) {
        return Err(format!("{place} was made in the yard and not seen: {seen:?}"));
    }
    if !seen.execs.iter().any(|exec| exec.error.is_none() && exec.image.name() == "touch") {
        return Err(format!("touch was run in the yard and not traced: {seen:?}"));
    }
    // What would change the kernel, with the values that it has.
    for line in [
        "date -s \"$(date)\"",
        "f=/proc/sys/vm/swappiness; v=$(cat $f); echo $v > $f",
        "f=/proc/sys/kernel/core_pattern; v=$(cat $f); mount -o remount,rw /proc/sys; echo \"$v\" > $f",
        "mknod /tmp/disk b 8 0 && cat /tmp/disk",
    ] {
        let seen = yard.run(&free, &format!("({line}) 2>/dev/null && touch owned"), 5000)?;
        if seen.changes.iter().any(|path| path.ends_with("/owned")) {
            return Err(format!("the yard is not shut: `{line}` works in it"));
        }
    }
    Ok(())
}

fn work(args: &Args, cases: &[Case], jobs: &[(usize, Who)], next: &AtomicUsize, report: &Mutex<Report>) {
    let [system, own] = setups(args);
    let mut yards: HashMap<(Who, bool), Yard> = HashMap::new();
    while let Some((number, who)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
        let case = &cases[*number];
        let generated = case.kind == Kind::Generated;
        let key = (*who, generated);
        let start = Instant::now();
        let outcome = (|| {
            let yard = match yards.entry(key) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    entry.insert(Yard::open(if generated { &own } else { &system }, *who)?)
                }
            };
            try_case(yard, case, number % args.share == 0)
        })();
        let outcome = outcome.unwrap_or_else(|problem| {
            // Whatever it was: the next line gets a yard of its own.
            yards.remove(&key);
            Outcome::Failed(vec![format!("the proof itself failed: {problem}")])
        });
        report.lock().unwrap().add(case, *who, outcome, start.elapsed());
    }
}

/// Yards with the machine's programs, and with none but those for generated lines.
fn setups(args: &Args) -> [Setup; 2] {
    let system = Setup {
        home: args.home.clone(),
        path: "/stand:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        bash: std::env::var_os("PROVE_BASH").map(PathBuf::from),
    };
    let own = Setup { path: "/gen".into(), ..system.clone() };
    [system, own]
}

/// Lines of quotes and expansions, read and run, chunk by chunk until all are done.
fn against_bash(args: &Args, next: &AtomicU64, report: &Mutex<Report>) {
    const CHUNK: u64 = 1000;
    let [_, own] = setups(args);
    let mut yard = None;
    loop {
        let from = next.fetch_add(CHUNK, Ordering::Relaxed);
        if from >= args.quotes {
            return;
        }
        let done = (|| {
            if yard.is_none() {
                yard = Some(Yard::open(&own, Who::Root)?);
            }
            yard.as_mut().ok_or("no yard")?.quotes(args.seed, from, CHUNK.min(args.quotes - from))
        })();
        let done = done.unwrap_or_else(|problem| {
            yard = None;
            (0, vec![format!("the proof itself failed: {problem}")])
        });
        report.lock().unwrap().add_read(CHUNK, done);
    }
}
