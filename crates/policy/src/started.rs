//! The programs that a line starts, where its text names all of them.

use std::collections::BTreeSet;

use crate::programs::{self, Inner};
use crate::rules::Policy;
use crate::script::{Command, Script};
use crate::{limits, typed};

/// Text within text.
const MOST_DEPTH: usize = 8;

impl Policy {
    /// The names of all programs that a line starts, wrappers and what they run included;
    /// `None` where its text does not tell: a name is computed or a path, or a program runs
    /// anything by design, or is not known not to (scripts, interpreters, builders).
    pub fn programs_of_line(&self, line: &str) -> Option<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        self.started(line, 0, &mut found)?;
        Some(found)
    }

    fn started(&self, text: &str, depth: usize, found: &mut BTreeSet<String>) -> Option<()> {
        if depth > MOST_DEPTH {
            return None;
        }
        limits::check(text).ok()?;
        let script = typed::parse(text, true).ok()?;
        script.commands.iter().try_for_each(|command| self.started_by(command, &script, depth, found))
    }

    fn started_by(
        &self,
        command: &Command,
        script: &Script,
        depth: usize,
        found: &mut BTreeSet<String>,
    ) -> Option<()> {
        let Some(first) = command.words.first() else { return Some(()) };
        let name = first.literal()?;
        if script.functions.contains(&name) {
            return Some(());
        }
        if name.contains('/') || matches!(name.as_str(), "." | "source") {
            return None;
        }
        let inner = programs::examine(command, &self.env_names).ok()?;
        let reads_text = inner.iter().any(|inner| matches!(inner, Inner::Script { .. }));
        if !reads_text && programs::runs_anything(&name) {
            return None;
        }
        found.insert(name);
        inner.iter().try_for_each(|inner| match inner {
            Inner::Command(command) | Inner::Filled { command, .. } => {
                self.started_by(command, script, depth + 1, found)
            }
            Inner::Script { text, .. } => self.started(text, depth + 1, found),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Policy;

    #[test]
    fn a_line_names_what_it_starts_or_it_does_not() {
        let policy = Policy::from_pairs([("*", "allow")]).expect("rules");
        let names = |line: &str| {
            policy.programs_of_line(line).map(|names| names.into_iter().collect::<Vec<_>>().join(" "))
        };
        for (line, wanted) in [
            ("x=/; rm -rf \"$x\" && ls | wc -l", "ls rm wc"),
            ("timeout 5 nice sudo -n systemctl restart x", "nice sudo systemctl timeout"),
            ("bash -c 'ls; sudo id'", "bash id ls sudo"),
            ("find . -exec rm {} +", "find rm"),
            ("f() { ls; }; f", "ls"),
            ("for i in 1 2; do echo $(date); done", "date echo"),
        ] {
            assert_eq!(names(line).as_deref(), Some(wanted), "{line}");
        }
        for line in
            ["./deploy", "make", "bash deploy.sh", ". ./x", "$x", "our-tool", "python3 -c 1", "env $x"]
        {
            assert_eq!(names(line), None, "{line}");
        }
    }
}
