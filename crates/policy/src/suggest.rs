//! Rules that would cover what was asked for and denied.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::pattern::Pattern;
use crate::programs::{self, Inner};
use crate::rules::{Action, Children, Policy, Rule};
use crate::script::{Command, RedirectUse, Style, Word};
use crate::verdict::Decision;
use crate::{limits, names, typed};

/// A rule to think about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The rule's pattern; its action would be `allow`.
    pub pattern: String,
    /// How many of the lines need it.
    pub lines: usize,
    /// One of them.
    pub example: String,
    /// Whether the rule would need `children: any` for the program to do its work: it starts
    /// others.
    pub children_any: bool,
    /// Why it should not be added without thought.
    pub danger: Option<String>,
}

/// What came of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Suggestions {
    /// Rules, those that most lines need first.
    pub rules: Vec<Suggestion>,
    /// Lines that no rule can allow as they are, each with the reason.
    pub refused: Vec<(String, String)>,
}

/// What a set of lines would need, and how far it would get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Learned {
    /// The rules and the lines that none allows.
    #[serde(flatten)]
    pub found: Suggestions,
    /// How many lines were read, equal ones each counted.
    pub lines: usize,
    /// How many of them would pass with the rules that need no second thought.
    pub pass: usize,
    /// How many would pass with all the rules.
    pub pass_with_all: usize,
}

/// Programs whose first word is a command of its own.
const WITH_SUBCOMMANDS: &[&str] = &[
    "apt",
    "apt-get",
    "aws",
    "az",
    "bridge",
    "cargo",
    "consul",
    "crictl",
    "ctr",
    "dnf",
    "docker",
    "dpkg",
    "etcdctl",
    "flux",
    "gcloud",
    "gh",
    "git",
    "go",
    "helm",
    "hostnamectl",
    "ip",
    "istioctl",
    "kubeadm",
    "kubectl",
    "loginctl",
    "lxc",
    "minikube",
    "nmcli",
    "nomad",
    "npm",
    "oc",
    "openssl",
    "pip",
    "podman",
    "pnpm",
    "poetry",
    "rclone",
    "redis-cli",
    "resolvectl",
    "systemctl",
    "terraform",
    "timedatectl",
    "tofu",
    "uv",
    "vault",
    "virsh",
    "yarn",
    "yum",
    "zfs",
    "zpool",
    "zypper",
];

/// Programs that change or destroy by their very purpose.
const DESTRUCTIVE: &[&str] = &[
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "dd",
    "fdisk",
    "halt",
    "install",
    "ip6tables",
    "iptables",
    "kill",
    "killall",
    "ln",
    "mkfs",
    "mount",
    "mv",
    "nft",
    "parted",
    "pkill",
    "poweroff",
    "reboot",
    "rm",
    "rmdir",
    "sgdisk",
    "shred",
    "shutdown",
    "swapoff",
    "tee",
    "truncate",
    "umount",
    "unlink",
    "useradd",
    "userdel",
    "usermod",
    "passwd",
    "wipefs",
];

/// Subcommands that change or destroy, or run anything.
const DESTRUCTIVE_SUBCOMMANDS: &[&str] = &[
    "apply",
    "clean",
    "cordon",
    "cp",
    "create",
    "delete",
    "destroy",
    "disable",
    "drain",
    "edit",
    "enable",
    "exec",
    "install",
    "kill",
    "mask",
    "patch",
    "prune",
    "purge",
    "push",
    "remove",
    "replace",
    "reset",
    "restart",
    "rm",
    "run",
    "scale",
    "set",
    "start",
    "stop",
    "uninstall",
    "upgrade",
];

/// Suggests rules beside those of `policy` for lines that it does not allow.
pub fn suggest<'a>(policy: &Policy, lines: impl IntoIterator<Item = &'a str>) -> Suggestions {
    let _tables = policy.own_tables();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    let mut found: BTreeMap<String, Suggestion> = BTreeMap::new();
    let mut open: Vec<(&str, usize)> = Vec::new();
    for (line, count) in counts {
        if policy.judge(line).decision != Decision::Allow {
            open.push((line, count));
            for (pattern, danger) in needed(policy, line).into_iter().filter(|(p, _)| !is_there(policy, p)) {
                let rule = found.entry(pattern.clone()).or_insert_with(|| Suggestion {
                    children_any: programs::starts_others(&pattern),
                    pattern,
                    lines: 0,
                    example: line.to_owned(),
                    danger,
                });
                rule.lines += count;
            }
        }
    }
    // A rule that another one covers is one too many.
    let rules: Vec<Suggestion> = found
        .values()
        .filter(|rule| {
            let own = crate::pattern::Pattern::new(&rule.pattern);
            !found
                .keys()
                .any(|other| *other != rule.pattern && crate::pattern::Pattern::new(other).contains(&own))
        })
        .cloned()
        .collect();
    let mut result = Suggestions { rules, refused: Vec::new() };
    result.rules.sort_by(|a, b| b.lines.cmp(&a.lines).then_with(|| a.pattern.cmp(&b.pattern)));
    let mut with = policy.clone();
    with.rules.retain(|rule| result.rules.iter().all(|new| new.pattern != rule.pattern()));
    with.rules.extend(result.rules.iter().map(Suggestion::rule));
    for (line, _) in open {
        if let Some(reason) = with.judge(line).message() {
            result.refused.push((line.to_owned(), reason));
        }
    }
    result
}

/// Whether the rules hold a rule already, and it says all that a new one would.
fn is_there(policy: &Policy, pattern: &str) -> bool {
    policy.live_rules().iter().any(|rule| {
        let frees = rule.children() == Children::Any || !programs::starts_others(pattern);
        rule.pattern() == pattern && rule.action() == Action::Allow && frees
    })
}

impl Suggestion {
    /// The rule that is suggested.
    pub(crate) fn rule(&self) -> Rule {
        let children = if self.children_any { Children::Any } else { Children::Judged };
        Rule { pattern: Pattern::of_rule(&self.pattern), action: Action::Allow, children, persons: 1 }
    }
}

/// Proposes rules for lines that ran elsewhere, and says what share of them would pass.
pub fn learn(lines: &[String]) -> Learned {
    let found = suggest(&Policy::deny_all(), lines.iter().map(String::as_str));
    let passing = |dangerous: bool| {
        let rules = found.rules.iter().filter(|rule| dangerous || rule.danger.is_none());
        let policy = Policy { rules: rules.map(Suggestion::rule).collect(), ..Policy::default() };
        lines.iter().filter(|line| policy.judge(line).decision == Decision::Allow).count()
    };
    let (pass, pass_with_all) = (passing(false), passing(true));
    Learned { found, lines: lines.len(), pass, pass_with_all }
}

/// The patterns that a line needs, each with its danger.
fn needed(policy: &Policy, line: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    collect(policy, line, 0, &mut found);
    found
}

fn collect(policy: &Policy, text: &str, depth: usize, found: &mut Vec<(String, Option<String>)>) {
    const MOST: usize = 8;
    if depth > MOST || limits::check(text).is_err() {
        return;
    }
    let Ok(script) = typed::parse(text, false) else { return };
    for command in &script.commands {
        of_command(policy, command, depth, found);
    }
    for redirect in script.redirects.iter().filter(|r| r.usage == RedirectUse::Write) {
        let Some(target) = redirect.target.as_ref().and_then(Word::literal) else { continue };
        if matches!(target.as_str(), "/dev/null" | "/dev/stdout" | "/dev/stderr") {
            continue;
        }
        let pattern = match target.rsplit_once('/') {
            Some((dir, _)) if !dir.is_empty() => format!("> {dir}/*"),
            _ => format!("> {target}"),
        };
        let danger = target.starts_with('/').then(|| "writes outside the workspace".to_owned());
        found.push((pattern, danger));
    }
}

fn of_command(policy: &Policy, command: &Command, depth: usize, found: &mut Vec<(String, Option<String>)>) {
    let Some(program) =
        command.words.first().and_then(Word::literal).filter(|p| !p.is_empty() && !p.contains('*'))
    else {
        return;
    };
    let Some((prefix, steers)) = prefixes(command) else { return };
    let base = program.rsplit('/').next().unwrap_or(&program).to_owned();
    let spelt: String = command
        .tokens(Style::Double, false)
        .iter()
        .map(|t| match t {
            crate::pattern::Token::Char(c) => *c,
            _ => '*',
        })
        .filter(|c| !c.is_control())
        .collect();
    let examined = programs::examine(command, &policy.env_names);
    let subcommand =
        command.words.get(1).and_then(Word::literal).filter(|w| !w.starts_with('-') && !w.contains('*'));
    let spelt_out = spelt.clone();
    let (pattern, danger) = match (&examined, &subcommand) {
        (Err(refusal), _) => (spelt, Some(refusal.reason.clone())),
        _ if DESTRUCTIVE.contains(&base.as_str()) || base.starts_with("mkfs") => {
            (spelt, Some(format!("{base} changes or destroys")))
        }
        (Ok(_), Some(sub)) if WITH_SUBCOMMANDS.contains(&base.as_str()) => {
            let danger = DESTRUCTIVE_SUBCOMMANDS
                .contains(&sub.as_str())
                .then(|| format!("'{base} {sub}' changes things or runs others"));
            (format!("{program} {sub} *"), danger)
        }
        (Ok(_), _) if programs::load_note(&format!("{program} *"), Children::Judged).is_some() => (
            spelt,
            programs::load_note(&format!("{program} *"), Children::Judged)
                .map(|note| format!("'{program} *' {note}")),
        ),
        (Ok(_), _) if command.words.len() == 1 => (program.clone(), None),
        (Ok(_), _) => (format!("{program} *"), None),
    };
    // What a `*` does not let through must be spelt.
    let (pattern, danger) = match programs::check_options(command, Some(&pattern), false) {
        Err(refusal) => (spelt_out, danger.or(Some(refusal.reason))),
        _ => (pattern, danger),
    };
    let danger = danger.or_else(|| program.contains('/').then(|| "names a program by its path".to_owned()));
    let danger = danger.or(steers);
    found.push((prefix + &pattern, danger));
    for inner in examined.unwrap_or_default() {
        match inner {
            Inner::Command(command) | Inner::Filled { command, .. } => {
                of_command(policy, &command, depth + 1, found);
            }
            Inner::Script { text, .. } => collect(policy, &text, depth + 1, found),
        }
    }
}

/// What a rule has to say of the variables set for a command, and why to think about it.
fn prefixes(command: &Command) -> Option<(String, Option<String>)> {
    if command.prefixes.iter().all(|p| names::is_free_prefix(&p.name)) {
        return Some((String::new(), None));
    }
    let (mut text, mut steers) = (String::new(), None);
    for prefix in &command.prefixes {
        if !names::is_steering(&prefix.name) {
            text.push_str(&format!("{}=* ", prefix.name));
            continue;
        }
        // Only its value, written out, makes it harmless.
        let value = prefix.value.as_ref().and_then(Word::literal)?;
        if prefix.append || value.contains(|c: char| c.is_whitespace() || "*{".contains(c)) {
            return None;
        }
        text.push_str(&format!("{}={value} ", prefix.name));
        steers = Some(format!("{} steers what the program does", prefix.name));
    }
    Some((text, steers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rules_cover_what_was_asked_and_dangers_are_marked() {
        let policy = Policy::from_pairs([("*", "deny"), ("ls *", "allow")]).expect("rules");
        let lines = [
            "ls -la",
            "kubectl get pods -n a",
            "kubectl get nodes",
            "kubectl get pods -n a",
            "kubectl delete pod x",
            "cat x | grep y",
            "rm -rf notes",
            "sudo cat /var/log/x",
            "echo hi > out/a",
            "FOO=1 cat x",
            "PATH=. cat x",
            "echo $(",
            "cargo test --workspace",
            "sort -o x y",
        ];
        let got = suggest(&policy, lines);
        let rule = |pattern: &str| got.rules.iter().find(|r| r.pattern == pattern);
        assert_eq!(rule("kubectl get *").map(|r| (r.lines, r.danger.is_some())), Some((3, false)));
        for (pattern, dangerous) in [
            ("kubectl delete *", true),
            ("cat *", false),
            ("grep *", false),
            ("rm -rf notes", true),
            ("sudo cat /var/log/x", true),
            ("cargo test *", false),
            ("> out/*", false),
            ("echo *", false),
            ("FOO=* cat *", false),
            ("sort -o x y", true),
        ] {
            assert_eq!(rule(pattern).map(|r| r.danger.is_some()), Some(dangerous), "{pattern}: {got:?}");
        }
        assert_eq!(rule("cargo test *").map(|r| r.children_any), Some(true));
        assert_eq!(rule("grep *").map(|r| r.children_any), Some(false));
        assert_eq!(rule("PATH=. cat *").map(|r| r.danger.is_some()), Some(true));
        let refused: Vec<&str> = got.refused.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(refused, ["echo $("]);
    }

    #[test]
    fn a_rule_that_is_there_is_not_suggested() {
        let rules = [("*", "deny"), ("ls *", "allow"), ("make *", "allow")];
        let policy = Policy::from_pairs(rules).expect("rules");
        assert_eq!(policy.would_allow("ls x; cat x"), [("cat *".to_owned(), false)]);
        let found = suggest(&policy, ["ls x; cat x", "ls x | uname"]);
        let patterns: Vec<&str> = found.rules.iter().map(|rule| rule.pattern.as_str()).collect();
        assert_eq!(patterns, ["cat *", "uname"]);
    }

    #[test]
    fn what_was_learnt_says_how_far_it_gets() {
        let lines: Vec<String> = ["git status", "git log -3", "ls -la", "ls", "rm -rf build", "eval \"$x\""]
            .map(String::from)
            .to_vec();
        let learned = learn(&lines);
        assert_eq!((learned.lines, learned.pass, learned.pass_with_all), (6, 4, 5), "{learned:?}");
    }
}
