//! What came of all cases, for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::cases::{Case, Kind};
use crate::judge::Outcome;
use crate::yard::Who;

/// Of a hundred everyday lines, so many may be refused.
const MOST_REFUSED: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Report {
    entries: Vec<(&'static str, Who, String, String, Outcome)>,
    slow: Vec<(Duration, String)>,
    /// Lines read and run by bash itself, those allowed, and what went wrong.
    read: (u64, u64, Vec<String>),
}

fn group(kind: &Kind) -> &'static str {
    match kind {
        Kind::Attack(_) => "attacks",
        Kind::Everyday => "everyday lines",
        Kind::Corpus(_) => "lines of the corpus",
        Kind::Generated => "generated lines",
    }
}

impl Report {
    pub(crate) fn add(&mut self, case: &Case, who: Who, outcome: Outcome, took: Duration) {
        self.slow.push((took, case.name.clone()));
        self.entries.push((group(&case.kind), who, case.name.clone(), case.line.clone(), outcome));
    }

    /// Lines that were read, of which so many were allowed and run.
    pub(crate) fn add_read(&mut self, count: u64, (allowed, failures): (u64, Vec<String>)) {
        self.read.0 += count;
        self.read.1 += allowed;
        self.read.2.extend(failures);
    }

    /// Prints what came of it; whether all is well.
    pub(crate) fn print(&self) -> bool {
        let mut counts: BTreeMap<(&str, Who), BTreeMap<&str, usize>> = BTreeMap::new();
        for (group, who, _, _, outcome) in &self.entries {
            let what = match outcome {
                Outcome::Good(by) => by,
                Outcome::NoControl => "without effect even under '*: allow', so not counted",
                Outcome::Refused(_) => "refused although it should run",
                Outcome::Open(_) => "not held yet, as is known",
                Outcome::Failed(_) => "FAILED",
            };
            *counts.entry((group, *who)).or_default().entry(what).or_default() += 1;
        }
        let mut well = true;
        for ((group, who), counts) in &counts {
            let all: usize = counts.values().sum();
            let parts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
            println!("{group} as {}: {all}: {}", who.name(), parts.join(", "));
            let refused = counts.get("refused although it should run").copied().unwrap_or_default();
            if *group == "everyday lines" {
                let share = 1000 * refused / all;
                println!("  refused: {}.{} % (at most {MOST_REFUSED} %)", share / 10, share % 10);
                well &= refused * 100 <= MOST_REFUSED * all;
            }
            if *group == "lines of the corpus" {
                well &= refused == 0;
            }
        }
        let failed = self.entries.iter().filter(|e| matches!(e.4, Outcome::Failed(_)));
        for entry in failed.clone().take(40) {
            println!("{}", line_of(entry));
        }
        if self.read.0 > 0 {
            let (count, allowed, failures) = &self.read;
            println!(
                "the reading against bash: {count} lines, {allowed} allowed and run, {} that ran more",
                failures.len()
            );
            failures.iter().take(20).for_each(|failure| println!("{failure}"));
        }
        well && failed.count() == 0 && self.read.2.is_empty()
    }

    /// Every case that is not simply good, and those that took longest.
    pub(crate) fn text(&self) -> String {
        let mut lines: Vec<String> =
            self.entries.iter().filter(|e| !matches!(e.4, Outcome::Good(_))).map(line_of).collect();
        lines.sort();
        lines.extend(self.read.2.iter().cloned());
        let mut slow = self.slow.clone();
        slow.sort_by(|a, b| b.cmp(a));
        lines.extend(slow.iter().take(60).map(|(took, name)| format!("slow: {name}: {took:.1?}")));
        lines.join("\n") + "\n"
    }
}

fn line_of((group, who, name, line, outcome): &(&str, Who, String, String, Outcome)) -> String {
    let mut text = format!("{group} as {}: {name}: {line:?}: ", who.name());
    let _ = match outcome {
        Outcome::Good(by) => write!(text, "{by}"),
        Outcome::NoControl => write!(text, "no control"),
        Outcome::Refused(why) => write!(text, "refused: {why}"),
        Outcome::Open(why) => write!(text, "not held yet: {why}"),
        Outcome::Failed(problems) => write!(text, "FAILED: {}", problems.join("; ")),
    };
    text
}
