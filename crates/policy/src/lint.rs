//! What an operator should know about a set of rules.

use crate::rules::{Action, Note, NoteKind, Policy, Rule};

impl Policy {
    /// What an operator should know about these rules: dead rules, carve-outs,
    /// rules that allow everything.
    pub fn notes(&self) -> Vec<Note> {
        let _tables = self.own_tables();
        let mut notes = Vec::new();
        let mut note = |rule: &Rule, kind: NoteKind, message: String| {
            notes.push(Note { pattern: rule.pattern().to_owned(), kind, message });
        };
        let live = self.live_rules();
        for rule in &self.rules[..self.rules.len() - live.len()] {
            note(rule, NoteKind::Dead, "is dead: a '*' rule after it always decides; put '*' first".into());
        }
        for (index, rule) in live.iter().enumerate() {
            let cover = live[index + 1..].iter().find(|later| later.pattern.contains(&rule.pattern));
            if let Some(later) = cover.filter(|_| !rule.pattern.is_star()) {
                let message = format!("is dead: '{}' after it matches all that it matches", later.pattern());
                note(rule, NoteKind::Dead, message);
            }
        }
        if self.trusts() {
            for rule in &live[1..] {
                let message = "guards against accidents only: '*: allow' before it lets an attacker reach the \
                               same effect another way";
                note(rule, NoteKind::CarveOut, message.into());
            }
            return notes;
        }
        for rule in live.iter().filter(|r| r.action != Action::Deny) {
            if rule.is_redirect() {
                if let Some(message) = redirect_note(rule.pattern()) {
                    note(rule, NoteKind::Dangerous, message.into());
                }
            } else if let Some(message) = crate::programs::load_note(rule.pattern(), rule.children()) {
                let kind = if message.contains("has no effect") {
                    NoteKind::Ineffective
                } else {
                    NoteKind::Dangerous
                };
                note(rule, kind, message.into_owned());
            }
        }
        notes
    }

    /// Where the order of the file and the alphabetical one, in which the original
    /// applied rules, lead to different decisions.
    pub fn order_notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let live = self.live_rules();
        for (index, later) in live.iter().enumerate() {
            for earlier in &live[..index] {
                let swaps = !earlier.pattern.is_star() && earlier.pattern() > later.pattern();
                if swaps && earlier.action != later.action && earlier.pattern.overlaps(&later.pattern) {
                    notes.push(Note {
                        pattern: later.pattern().to_owned(),
                        kind: NoteKind::Order,
                        message: format!(
                            "decides over '{}', which stands before it; the original, which sorted rules, \
                             had it the other way round",
                            earlier.pattern()
                        ),
                    });
                }
            }
        }
        notes
    }
}

/// A write rule whose files other programs run or obey.
fn redirect_note(pattern: &str) -> Option<&'static str> {
    let target = pattern.trim_start_matches("> ");
    let anywhere = target.starts_with('*') || matches!(target, "/*" | "./*");
    let obeyed = [
        "/etc/",
        "/usr/",
        "/bin/",
        "/root/",
        "/home/",
        "~",
        ".git/",
        ".ssh",
        ".bash",
        ".profile",
        "/var/spool/cron",
    ];
    if anywhere {
        return Some("lets a line write any file, those that other programs run or obey included");
    }
    obeyed
        .iter()
        .any(|p| target.starts_with(p))
        .then_some("lets a line write files that other programs run or obey")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_and_dangerous_rules_are_named() {
        let policy = Policy::from_pairs([
            ("ls *", "allow"),
            ("*", "deny"),
            ("git log *", "deny"),
            ("git *", "allow"),
            ("python3 *", "allow"),
            ("python3 x.py", "allow"),
            ("k* get", "allow"),
            ("less *", "allow"),
            ("> *", "allow"),
            ("> out/*", "allow"),
            ("cat *", "allow"),
            ("our-tool *", "allow"),
        ])
        .expect("rules");
        let found: Vec<(String, NoteKind)> =
            policy.notes().into_iter().map(|n| (n.pattern, n.kind)).collect();
        for (pattern, kind) in [
            ("ls *", NoteKind::Dead),
            ("git log *", NoteKind::Dead),
            ("git *", NoteKind::Dangerous),
            ("python3 *", NoteKind::Dangerous),
            ("k* get", NoteKind::Dangerous),
            ("less *", NoteKind::Ineffective),
            ("> *", NoteKind::Dangerous),
            ("our-tool *", NoteKind::Dangerous),
        ] {
            assert!(found.contains(&(pattern.to_owned(), kind)), "{pattern}: {found:?}");
        }
        assert_eq!(found.len(), 8, "{found:?}");
    }

    #[test]
    fn what_a_rule_lets_through_beside_its_purpose_is_said() {
        let says = |pattern: &str| {
            let policy = Policy::from_pairs([("*", "deny"), (pattern, "allow")]).expect("rules");
            policy.notes().into_iter().map(|n| n.message).collect::<Vec<_>>().join("; ")
        };
        for (pattern, text) in [
            ("export *", "later programs obey"),
            ("declare *", "later programs obey"),
            ("tee *", "writes any file"),
            ("cp *", "writes any file"),
            ("ln *", "outside the folder"),
            ("rm *", "deletes"),
            ("chmod *", "setuid"),
            ("sudo *", "its own options"),
            ("ssh * uptime", "on the other machine"),
            ("docker run *", "run or load something else"),
            ("docker-compose *", "runs anything"),
            ("python3 -m *", "any code"),
            ("python3 scripts/*", "any code"),
            ("bash scripts/*", "a script file"),
            ("source scripts/*", "any code"),
            ("make test *", "any code"),
            ("npm run *", "any code"),
            ("cargo test *", "any code"),
            ("pip install *", "any code"),
            ("terraform plan *", "any code"),
            ("kubectl exec *", "in any pod"),
            ("kubectl -n * get *", "write 'kubectl -n {word} get *'"),
            ("docker exec * cat *", "write 'docker exec {word} cat *'"),
            ("git -C * status", "write 'git -C {word} status'"),
            ("systemctl * nginx", "write 'systemctl {word} nginx'"),
            ("cat /var/log/*", "{path:/var/log} is one path"),
            ("rm reports/*", "further words"),
            ("tee reports/*", "further words"),
            ("aws *", "name the subcommands"),
            ("gh *", "name the subcommands"),
            ("mongosh *", "any code"),
            ("curl *", "sends"),
            ("wget *", "current folder"),
            ("systemctl *", "name the verbs"),
            ("ip *", "addresses"),
            ("hostnamectl *", "settings of the machine"),
            ("our-tool *", "does not know"),
            ("/opt/a/../tool", "path that it leads to"),
            ("../tool *", "path that it leads to"),
            ("/opt//tool *", "path that it leads to"),
        ] {
            assert!(says(pattern).contains(text), "{pattern}: {}", says(pattern));
        }
        for pattern in
            ["cat *", "find *", "ls *", "systemctl status *", "kubectl get *", "head -n {int} *", "uptime"]
        {
            assert_eq!(says(pattern), "", "{pattern}");
        }
    }
}
