//! Mutates the seeds for a while, on any toolchain: `smoke SECONDS LONG_SECONDS [SEED]`. The
//! policy's targets get LONG_SECONDS, all at once. Without a seed the inputs are the same on
//! every run, so that a slow machine tries the first of those that a fast one tries, and a
//! change is never refused for what it did not cause; longer runs give a seed of their own.
//! A failing input is printed by the panic it causes; the seed makes it come again.
#![allow(clippy::print_stdout, reason = "a report for people")]

use std::time::{Duration, Instant};

use legwork_fuzz::{TARGETS, Target};

/// A small generator (xorshift64*): runs must be repeatable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }
}

/// Pieces that mean something to one of the parsers.
const PIECES: &[&str] = &[
    "$(",
    "`",
    "${",
    "}",
    ")",
    "((",
    "))",
    "[[",
    "]]",
    "<<EOF\n",
    "\nEOF\n",
    "'",
    "\"",
    "\\",
    ";",
    "&&",
    "|",
    ">",
    "<",
    ">&",
    "{",
    "!",
    "#",
    "\n",
    "\t",
    " ",
    "*",
    "~",
    "=",
    "null",
    "[",
    "]",
    "{\"",
    "\":",
    ",",
    "0",
    "-1",
    "1e999",
    "é",
    "\u{0}",
    "\u{202e}",
    ": ",
    "- ",
    "&a ",
    "*a",
    "|\n",
    "case x in",
    "esac",
    "<div>",
    "<li><ul>",
    "</",
    "<!--",
    "<script>",
    "for",
    "done",
    "rm",
    "echo",
    "*",
    "\tdeny\n",
    "\tallow\n",
    "\n\n",
    " -exec ",
    " {} ",
    "\\;",
    "$x",
    "\"$x\"",
    " -c ",
    " -- ",
    " -i ",
    "=",
    "env ",
    "sh ",
    "eval ",
];

fn mutate(random: &mut Random, seeds: &[&str]) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].as_bytes().to_vec();
    for _ in 0..=random.below(8) {
        let at = random.below(data.len() + 1);
        match random.below(5) {
            0 => drop(data.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            1 if at < data.len() => {
                let end = (at + random.below(12)).min(data.len());
                data.drain(at..end);
            }
            2 if at < data.len() => data[at] = u8::try_from(random.below(256)).unwrap_or(0),
            3 => {
                let end = (at + random.below(40)).min(data.len());
                let copy = data[at..end].to_vec();
                let to = random.below(data.len() + 1);
                data.splice(to..to, copy);
            }
            _ => {
                let other = seeds[random.below(seeds.len())].as_bytes();
                let from = random.below(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
    data
}

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().and_then(|a| a.parse().ok()).unwrap_or(5);
    let long_seconds = args.next().and_then(|a| a.parse().ok()).unwrap_or(seconds);
    // xorshift stands still at zero.
    let seed = args.next().and_then(|a| a.parse().ok()).unwrap_or(1u64).max(1);
    let is_long = |target: &&Target| ["policy", "rules", "tables"].contains(&target.name);
    for target in TARGETS.iter().filter(|t| !is_long(t)) {
        fuzz(target, seconds, seed);
    }
    let handles: Vec<_> = TARGETS
        .iter()
        .filter(is_long)
        .map(|target| std::thread::spawn(move || fuzz(target, long_seconds, seed)))
        .collect();
    let failed = handles.into_iter().map(|h| h.join().is_err()).fold(false, |a, b| a | b);
    std::process::exit(i32::from(failed));
}

fn fuzz(target: &Target, seconds: u64, seed: u64) {
    let mut random = Random(seed);
    let start = Instant::now();
    let mut runs = 0u64;
    while start.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..64 {
            let data = mutate(&mut random, target.seeds);
            (target.run)(&data);
            runs += 1;
        }
    }
    println!("fuzz {}: {runs} inputs in {seconds} s, no failure (seed {seed})", target.name);
}
