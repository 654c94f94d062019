//! What a line's run shows, held against the rules.

use crate::cases::{Case, Harm, Kind};
use crate::plain::{Rule, fits, wrong};
use crate::yard::{Seen, Yard};

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it must be; the text says by what.
    Good(&'static str),
    /// An attack that does nothing here even where nothing holds it.
    NoControl,
    /// An everyday line that did not run what it runs without rules.
    Refused(String),
    /// An attack that is known not to be held yet.
    Open(String),
    /// A broken promise.
    Failed(Vec<String>),
}

/// How long a line may take. Some of the corpus run for ever.
fn timeout_ms(case: &Case) -> u64 {
    if case.kind == Kind::Everyday { 8000 } else { 2500 }
}

/// Runs a case, and its control where one is wanted.
pub(crate) fn try_case(yard: &mut Yard, case: &Case, with_control: bool) -> Result<Outcome, String> {
    let outcome = without_excuse(yard, case, with_control)?;
    Ok(match (&case.open, outcome) {
        (_, Outcome::Failed(_)) if case.named && is_named(case) => {
            Outcome::Good("named when its rule is loaded")
        }
        (Some(why), Outcome::Failed(_)) => Outcome::Open(why.clone()),
        // Where one user is all there is, much belongs to nobody and is held for that.
        (Some(_), Outcome::Good(_)) if crate::one_user() => Outcome::Good("run"),
        (Some(_), Outcome::Good(by @ ("refused by the reading" | "refused at an exec"))) => {
            Outcome::Failed(vec![format!("it is {by} now: it is no longer open")])
        }
        (_, outcome) => outcome,
    })
}

/// Whether an operator is told at load what a rule of the case lets through.
fn is_named(case: &Case) -> bool {
    let rules = case.rules.iter().map(|rule| legwork_policy::RuleText {
        pattern: rule.pattern.clone(),
        action: rule.action.clone(),
        children: if rule.any { "any".into() } else { String::new() },
        ..legwork_policy::RuleText::default()
    });
    legwork_policy::Policy::from_rules(rules).is_ok_and(|policy| !policy.notes().is_empty())
}

fn without_excuse(yard: &mut Yard, case: &Case, with_control: bool) -> Result<Outcome, String> {
    let seen = yard.run(&case.rules_for(yard.who()), &case.line, timeout_ms(case))?;
    let mut problems = problems(case, &seen);
    if let Some(failed) = &seen.failed {
        problems.push(failed.clone());
    }
    if let Kind::Attack(harm) = &case.kind {
        if harm.seen(&seen) {
            problems.push(format!("its harm is done: {harm:?}"));
        }
        if problems.is_empty() && with_control {
            let control = yard.run(&[Rule::allow_all()], &case.line, timeout_ms(case))?;
            if !harm.seen(&control) {
                return Ok(Outcome::NoControl);
            }
        }
    }
    if !problems.is_empty() {
        return Ok(Outcome::Failed(problems));
    }
    if case.kind == Kind::Everyday {
        return everyday(yard, case, &seen, with_control);
    }
    if let Kind::Corpus(decision) = &case.kind
        && decision == "allow"
        && let Some(denied) = &seen.denied
        && !denied.starts_with("failed to parse")
    {
        return Ok(Outcome::Refused(denied.clone()));
    }
    Ok(Outcome::Good(by(&seen)))
}

/// What held a line, or that it ran.
fn by(seen: &Seen) -> &'static str {
    if seen.denied.is_some() {
        "refused by the reading"
    } else if refused(seen).is_some() {
        "refused at an exec"
    } else {
        "run"
    }
}

fn refused(seen: &Seen) -> Option<String> {
    let refused = seen.execs.iter().find(|exec| {
        exec.error.as_ref().is_some_and(|error| error.contains("EACCES") || error.contains("ENOSYS"))
    })?;
    Some(format!("refused at its exec: {}", refused.image.text()))
}

fn everyday(yard: &mut Yard, case: &Case, seen: &Seen, with_control: bool) -> Result<Outcome, String> {
    if let Some(denied) = &seen.denied {
        return Ok(Outcome::Refused(denied.clone()));
    }
    if !with_control {
        return Ok(refused(seen).map_or(Outcome::Good("run"), Outcome::Refused));
    }
    let control = yard.run(&[Rule::allow_all()], &case.line, timeout_ms(case))?;
    let missing: Vec<String> =
        names(&control).into_iter().filter(|name| !names(seen).contains(name)).collect();
    if missing.is_empty() {
        return Ok(Outcome::Good("run"));
    }
    let why = refused(seen).unwrap_or_else(|| seen.stderr.lines().last().unwrap_or_default().to_owned());
    Ok(Outcome::Refused(format!("did not run {}: {why}", missing.join(", "))))
}

fn names(seen: &Seen) -> Vec<String> {
    let done = seen.execs.iter().filter(|exec| exec.error.is_none());
    let mut names: Vec<String> = done.map(|exec| exec.image.name().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// Executions and changes that no rule covers.
fn problems(case: &Case, seen: &Seen) -> Vec<String> {
    let done = seen.execs.iter().filter(|exec| exec.error.is_none());
    let mut problems: Vec<String> =
        done.filter_map(|exec| wrong(&case.rules, &exec.ancestors, &exec.image)).collect();
    let free_of_rules = case.rules.iter().any(|rule| rule.pattern == "*" && rule.action == "allow");
    if free_of_rules {
        return problems;
    }
    for path in &seen.changes {
        if !may_change(case, seen, path) {
            problems.push(format!("{path} was changed"));
        }
    }
    problems
}

/// Programs that are there to change files: a rule for one is a rule for that.
const WRITERS: &[&str] = &[
    "apt",
    "apt-cache",
    "bash",
    "cargo",
    "cmake",
    "cp",
    "crontab",
    "flock",
    "git",
    "make",
    "man",
    "mkdir",
    "mktemp",
    "mv",
    "node",
    "nohup",
    "npm",
    "pip",
    "python",
    "python3",
    "rm",
    "sed",
    "sh",
    "split",
    "sqlite3",
    "tar",
    "tee",
    "touch",
    "wget",
    "curl",
    "sudo",
    "less",
    "ssh",
    "source",
    "nginx",
];

fn may_change(case: &Case, seen: &Seen, path: &str) -> bool {
    let beneath = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    // A here-document's, and what programs keep for themselves.
    if beneath(&["/tmp", "/var/tmp", "/run", "/dev"]) {
        return !matches!(&case.kind, Kind::Attack(Harm::Owned)) || !path.contains("owned");
    }
    let by_redirection = case.rules.iter().filter(|rule| rule.action == "allow").any(|rule| {
        let Some((_, target)) = rule.pattern.split_once("> ") else { return rule.pattern == ">*" };
        let target = target.trim_start_matches("./");
        fits(target, path) || path.strip_prefix("/w/").is_some_and(|short| fits(target, short))
    });
    // The folder that holds what may be written is touched as well.
    if by_redirection {
        return true;
    }
    let wrote = seen.execs.iter().filter(|e| e.error.is_none()).any(|e| WRITERS.contains(&e.image.name()));
    match &case.kind {
        // Each of these has a harm of its own, and that is looked for.
        Kind::Attack(_) => {
            wrote
                && !path.contains("owned")
                && beneath(&["/w/", "/home", "/root"])
                && !beneath(&["/w/.git/config"])
        }
        Kind::Generated | Kind::Corpus(_) => {
            wrote && beneath(&["/w/", "/home", "/root", "/var/cache", "/var/lib"])
        }
        Kind::Everyday => {
            wrote
                && beneath(&[
                    "/w",
                    "/home",
                    "/root",
                    "/app",
                    "/repo",
                    "/testbed",
                    "/current",
                    "/var/cache",
                    "/var/lib",
                    "/var/log",
                ])
        }
    }
}
