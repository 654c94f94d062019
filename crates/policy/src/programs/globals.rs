//! Options that may stand before a subcommand: they are put behind it before rules are
//! matched, so that `git push *` speaks of `git -C /x push` as well.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use super::{clauses, entries};
use crate::script::{Command, Word};

/// A program's options that may stand before its subcommand.
#[derive(Debug, Default)]
struct Globals {
    flags: Vec<&'static str>,
    /// Their value is the next word, or attached.
    values: Vec<&'static str>,
}

static GLOBALS: LazyLock<HashMap<&'static str, Globals>> = LazyLock::new(|| {
    let mut table = HashMap::new();
    for entry in entries() {
        let Some(rest) = entry.strip_prefix("globals ") else { continue };
        let (names, clauses) = clauses(rest);
        for name in names.split_whitespace() {
            let mut globals = Globals::default();
            for (key, values) in &clauses {
                match *key {
                    "flags" => globals.flags.clone_from(values),
                    "values" => globals.values.clone_from(values),
                    _ => {}
                }
            }
            table.insert(name, globals);
        }
    }
    table
});

/// Reads the table.
pub(super) fn prepare() {
    LazyLock::force(&GLOBALS);
}

impl Globals {
    /// How many words stand before the subcommand, the program's name included; `None` if that
    /// can't be told, or there is no subcommand.
    fn before<'a>(&self, words: impl IntoIterator<Item = Option<&'a str>>) -> Option<usize> {
        let mut count = 1;
        let mut is_value = false;
        for word in words {
            if std::mem::take(&mut is_value) {
                count += 1;
                continue;
            }
            let word = word?;
            if !word.starts_with('-') {
                return (!word.is_empty() && !word.starts_with('*')).then_some(count);
            }
            let name = word.split('=').next().unwrap_or(word);
            let attached = name.len() < word.len();
            // `-nprod` is `-n prod`.
            let short = |options: &[&str]| {
                !word.starts_with("--")
                    && options.iter().any(|o| o.len() == 2 && word.len() > 2 && word.starts_with(o))
            };
            if self.values.contains(&name) {
                is_value = !attached;
            } else if !self.flags.contains(&name) && !short(&self.values) {
                return None;
            }
            count += 1;
        }
        None
    }
}

/// The index of the word before which options are moved away: 1 if none are.
pub(super) fn before(command: &Command) -> usize {
    let name = command.words.first().and_then(Word::run).map(|name| name.rsplit('/').next().unwrap_or(name));
    let Some(globals) = name.and_then(|name| GLOBALS.get(name)) else { return 1 };
    globals.before(command.words[1..].iter().map(Word::run)).unwrap_or(1)
}

/// The same for a rule's pattern that begins with the program's name.
pub(super) fn before_in_pattern(pattern: &str) -> usize {
    let mut words = pattern.split(' ');
    let name = words.next().map(|name| name.rsplit('/').next().unwrap_or(name));
    let Some(globals) = name.and_then(|name| GLOBALS.get(name)) else { return 1 };
    globals.before(words.map(Some)).unwrap_or(1)
}

/// The command with what stands before its subcommand put behind it.
pub(crate) fn behind(command: &Command) -> Cow<'_, Command> {
    match before(command) {
        1 => Cow::Borrowed(command),
        before => {
            let mut moved = command.clone();
            moved.words[1..=before].rotate_right(1);
            Cow::Owned(moved)
        }
    }
}

/// The same for a rule's pattern, whose words are divided by single blanks.
pub(crate) fn pattern_behind(pattern: &str) -> Cow<'_, str> {
    let words: Vec<&str> = pattern.split(' ').collect();
    let first = words.iter().position(|word| !crate::judge::assigns(word)).unwrap_or(0);
    let name = words.get(first).map(|name| name.rsplit('/').next().unwrap_or(name));
    let Some(globals) = name.and_then(|name| GLOBALS.get(name)) else { return Cow::Borrowed(pattern) };
    match globals.before(words[first + 1..].iter().map(|word| Some(*word))) {
        Some(before) if before > 1 => {
            let mut words = words.clone();
            words[first + 1..=first + before].rotate_right(1);
            Cow::Owned(words.join(" "))
        }
        _ => Cow::Borrowed(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_before_a_subcommand_go_behind_it() {
        for (pattern, moved) in [
            ("git -C /x push *", "git push -C /x *"),
            ("git -C * status", "git status -C *"),
            ("git --git-dir=/x --no-pager log", "git log --git-dir=/x --no-pager"),
            ("kubectl -n * get *", "kubectl get -n * *"),
            ("kubectl -nprod get *", "kubectl get -nprod *"),
            ("FOO=* kubectl -n x get *", "FOO=* kubectl get -n x *"),
            ("kubectl get -n x *", "kubectl get -n x *"),
            ("kubectl * get *", "kubectl * get *"),
            ("kubectl --surprise x get", "kubectl --surprise x get"),
            ("systemctl --user -t service list-units", "systemctl list-units --user -t service"),
            ("ls -l x", "ls -l x"),
            ("git *", "git *"),
        ] {
            assert_eq!(pattern_behind(pattern), moved, "{pattern}");
        }
    }

    #[test]
    fn a_deny_holds_wherever_the_options_stand() {
        let policy = crate::Policy::from_pairs([
            ("*", "deny"),
            ("git *", "allow"),
            ("git push *", "deny"),
            ("kubectl -n * get *", "allow"),
            ("docker ps *", "allow"),
        ])
        .expect("rules");
        for (line, allowed) in [
            ("git log", true),
            ("git push", false),
            ("git -C /x push origin", false),
            ("git --no-pager push", false),
            ("/usr/bin/git --no-pager push", false),
            ("kubectl -n x get pods", true),
            ("kubectl get -n x pods", true),
            ("kubectl -n x delete pod get y", false),
            ("docker --log-level debug ps -a", true),
            ("docker --context x ps -a", false),
            ("docker --context ps rm x", false),
        ] {
            assert_eq!(policy.judge(line).message().is_none(), allowed, "{line}: {:?}", policy.judge(line));
        }
    }
}
