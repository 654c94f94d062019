//! The judgement of one program start, with the arguments it really has.
//!
//! Who asks has the kernel hold the start until the answer is there. The rules are those
//! that the line was read by; what is added is what a program may start as part of its own
//! work (`helpers` of the table) and what a rule frees (`children: any`, which is inherited
//! and so remembered by who asks, not here).

use std::collections::BTreeSet;

use crate::judge;
use crate::pattern::Pattern;
use crate::programs::{self, Inner};
use crate::quote::single_quoted;
use crate::rules::{Action, Children, Policy, Rule};
use crate::script::{Assignment, Command, Word};
use crate::verdict::{Decision, Part, Span};

/// A program that is, or would be, executed.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// The names by which the operator's PATH leads to this very file (the same device and
    /// inode). Where a file has several (`systemctl`, `reboot`), only the one that `argv[0]`
    /// says. Empty for a file that no folder of PATH holds.
    pub names: &'a [String],
    /// The ways to write its path: the resolved one first, then those relative to the
    /// folders that rules may be read from (`./deploy.sh`, `deploy/run`). Never empty.
    pub paths: &'a [String],
    /// All its arguments, `argv[0]` included.
    pub argv: &'a [String],
}

/// One program start, before it happens.
#[derive(Debug, Clone, Copy)]
pub struct Exec<'a> {
    /// What would be executed.
    pub image: Image<'a>,
    /// `NAME=value` of each variable that the call passes and that the command's own
    /// environment lacks or has with another value.
    pub env: &'a [String],
    /// What the calling process executes now; `None` for the shell that runs the line, and
    /// for the runner.
    pub by: Option<Image<'a>>,
}

/// The answer to a program start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecVerdict {
    /// It may happen.
    Allow {
        /// The program may start anything, and so may all that it starts.
        children_any: bool,
        /// It is a shell that runs the text which the call gives: what it writes itself is held
        /// to the rules.
        held_writes: bool,
    },
    /// It may not.
    Deny(ExecDenial),
}

/// Why a program start may not happen, and what would change that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecDenial {
    /// The command as rules see it.
    pub command: String,
    /// The rule that denied it, if one did.
    pub rule: Option<String>,
    /// Why it is denied.
    pub reason: String,
    /// What an operator would change to allow it, and what that would mean.
    pub remedy: String,
}

impl ExecDenial {
    /// The denial in one line, for results, logs and the audit.
    pub fn message(&self) -> String {
        let rule = self.rule.as_ref().map_or_else(String::new, |rule| format!("rule '{rule}': "));
        format!("{rule}{}: {}; {}", self.command, self.reason, self.remedy)
    }
}

/// Variables that those who change the user set for what they run.
const OF_USER_CHANGERS: &[&str] = &["HOME", "PATH", "SHELL", "XDG_RUNTIME_DIR", "XDG_SESSION_ID"];
/// Shells whose text is read.
const TEXT_SHELLS: &[&str] = &["sh", "bash", "dash"];
const USER_CHANGERS: &[&str] = &["sudo", "su", "doas", "runuser", "login", "setpriv", "systemd-run"];

impl Policy {
    /// Whether these rules can be held against each exec with an effect: a lone `*: allow`
    /// has nothing to judge.
    pub fn needs_exec_gate(&self) -> bool {
        !self.allows_everything()
    }

    /// Judges a program start. Never panics, never runs anything. (The freedom that
    /// `children: any` gives to a whole tree is the caller's to remember.)
    pub fn judge_exec(&self, exec: &Exec<'_>) -> ExecVerdict {
        let _tables = self.own_tables();
        if self.allows_everything() {
            return ExecVerdict::Allow { children_any: true, held_writes: false };
        }
        let by_helper = exec.by.is_some_and(|by| is_helper(&by, &exec.image));
        let mut prefixes = if by_helper { Vec::new() } else { changed(exec) };
        prefixes.retain(|set| {
            let value = set.value.as_ref().and_then(Word::literal).unwrap_or_default();
            !self.spells_export(&format!("{}={value}", set.name))
        });
        let mut denied: Option<Part> = None;
        let mut allowed: Option<Children> = None;
        // A variable that steers is refused whatever else is set.
        let plain = !by_helper && prefixes.is_empty();
        let spelt = if plain { self.spelt_prefixes(exec) } else { Vec::new() };
        let ways = std::iter::once(prefixes).chain(spelt);
        let ways: Vec<Vec<Assignment>> = ways.collect();
        for (form, prefixes) in forms(&exec.image).into_iter().flat_map(|f| ways.iter().map(move |w| (f, w)))
        {
            let command = command(form, exec.image.argv, prefixes.clone());
            let parts = self.passing(self.parts_of(&command, &exec.image));
            let worst = parts.iter().max_by_key(|part| part.decision);
            match worst {
                Some(part) if part.decision != Decision::Allow => {
                    // A rule that names it decides over all other ways to call it; a reason, or what
                    // it would run, says more than that no rule speaks of it by that name.
                    let weight = |part: &Part| {
                        let named = part.rule.as_deref().is_some_and(|rule| rule != "*");
                        if named { 2 } else { u8::from(part.reason.is_some() || part.depth > 0) }
                    };
                    if denied.as_ref().is_none_or(|before| weight(before) < weight(part)) {
                        denied = Some(part.clone());
                    }
                }
                Some(part) => {
                    let own = parts.iter().find(|p| p.depth == 0).unwrap_or(part);
                    let children = self.children_of(own.rule.as_deref());
                    allowed = Some(allowed.map_or(children, |other| other.max(children)));
                }
                None => {}
            }
        }
        let named = denied.as_ref().is_some_and(|part| part.rule.as_deref().is_some_and(|rule| rule != "*"));
        match (allowed, denied) {
            (Some(children), denied) if denied.is_none() || !named => {
                let children_any = children == Children::Any;
                let held_writes = !by_helper && !children_any && self.runs_text(&exec.image);
                ExecVerdict::Allow { children_any, held_writes }
            }
            _ if !named && (by_helper || self.is_spoken_for(exec)) => {
                let held_writes = !by_helper && self.runs_text(&exec.image);
                ExecVerdict::Allow { children_any: false, held_writes }
            }
            (_, denied) => ExecVerdict::Deny(self.denial(exec, denied)),
        }
    }

    /// Parts, of which those that people have said yes to are allowed.
    fn passing(&self, mut parts: Vec<Part>) -> Vec<Part> {
        for part in parts.iter_mut().filter(|part| part.decision == Decision::Ask) {
            if part.rule.as_ref().is_some_and(|rule| self.approved.contains(rule)) {
                part.decision = Decision::Allow;
            }
        }
        parts
    }

    /// A program's start, and what it says that it starts in turn. That is judged again when it
    /// happens, with the words that it really has; not so beneath `children: any`, nor where a
    /// program of many names runs another one of them within itself.
    fn parts_of(&self, command: &Command, image: &Image<'_>) -> Vec<Part> {
        let is_many = |name: &String| {
            let base = name.rsplit('/').next().unwrap_or_default();
            programs::MULTI_CALL.contains(&base)
        };
        if !self.exec_gate || image.names.iter().chain(image.paths).any(is_many) {
            return judge::command_alone(self, command, false);
        }
        let parts = judge::command_alone(self, command, true);
        let own = parts.iter().find(|part| part.depth == 0).and_then(|part| part.rule.as_deref());
        if self.children_of(own) == Children::Any {
            return judge::command_alone(self, command, false);
        }
        parts
    }

    /// Whether a program is a shell that is given its text by the call.
    fn runs_text(&self, image: &Image<'_>) -> bool {
        let base = |name: &String| name.rsplit('/').next().unwrap_or_default().to_owned();
        let named = image.names.iter().chain(image.paths.first()).map(base);
        named.filter(|name| TEXT_SHELLS.contains(&name.as_str())).any(|name| {
            let command = command(&name, image.argv, Vec::new());
            let inner = programs::examine(&command, &self.env_names).unwrap_or_default();
            inner.iter().any(|inner| matches!(inner, Inner::Script { .. }))
        })
    }

    /// Whether text that only the exec of its shell shows could write somewhere and not elsewhere.
    pub(crate) fn text_may_write(&self) -> bool {
        let rules = self.live_rules();
        let is_shell = |rule: &Rule| {
            let program = program_of(rule.pattern());
            rule.action == Action::Allow && TEXT_SHELLS.iter().any(|shell| Pattern::fits_text(program, shell))
        };
        self.exec_gate
            && rules.iter().any(|r| r.is_redirect() && r.pattern() != "> *")
            && rules.iter().any(is_shell)
    }

    /// Judges a file that the shell itself opens for writing, by its resolved path. Beneath one
    /// of `folders` a rule may also name it relative to that one, wherever the shell stands.
    pub fn judge_write(&self, path: &str, folders: &[&str]) -> Result<(), ExecDenial> {
        const FREE: &[&str] = &["/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty"];
        if FREE.contains(&path) {
            return Ok(());
        }
        let beneath = |folder: &&str| path.strip_prefix(*folder).and_then(|rest| rest.strip_prefix('/'));
        let beneath: Vec<&str> = folders.iter().filter_map(beneath).collect();
        let mut ways = vec![format!("> {path}")];
        ways.extend(beneath.iter().flat_map(|rest| [format!("> {rest}"), format!("> ./{rest}")]));
        let deciding = self.live_rules().iter().rfind(|rule| {
            (rule.is_redirect() || rule.pattern.is_star()) && ways.iter().any(|way| rule.pattern.fits(way))
        });
        let approved = |rule: &Rule| rule.action == Action::Ask && self.approved.contains(rule.pattern());
        if deciding.is_some_and(|rule| rule.action == Action::Allow || approved(rule)) {
            return Ok(());
        }
        let rule = deciding.map(|rule| rule.pattern().to_owned()).filter(|rule| rule != "*");
        let remedy = if rule.is_some() {
            "only a change of that rule would allow it".to_owned()
        } else {
            format!("a rule '> {}': allow would let it be written", beneath.first().unwrap_or(&path))
        };
        let reason = "writing to a file needs a rule that starts with '> '".into();
        Err(ExecDenial { command: format!("> {path}"), rule, reason, remedy })
    }

    /// Lets each rule for a program that runs anything, or that the table does not know,
    /// speak for all that the program starts, as such rules did before execs were judged.
    /// Returns the patterns of the rules that were changed.
    pub fn imply_children(&mut self) -> Vec<String> {
        let _tables = self.own_tables();
        let mut changed = Vec::new();
        for rule in &mut self.rules {
            let allows = rule.action == Action::Allow && !rule.is_redirect();
            if allows && rule.children == Children::Judged && !rule.pattern.is_star() {
                let program = program_of(rule.pattern());
                if !Pattern::spells(program) || programs::runs_anything(program) {
                    rule.children = Children::Any;
                    changed.push(rule.pattern().to_owned());
                }
            }
        }
        changed
    }

    /// What the call sets, as each rule spells it that is about variables set for one command.
    fn spelt_prefixes(&self, exec: &Exec<'_>) -> Vec<Vec<Assignment>> {
        let set: Vec<(&str, &str)> = exec.env.iter().filter_map(|entry| entry.split_once('=')).collect();
        let rules = self.live_rules().iter().filter(|rule| rule.action == Action::Allow);
        let of_rule = |rule: &Rule| {
            let words = rule.pattern().split(' ').take_while(|word| judge::assigns(word));
            let names = words.map(|word| word.split_once('=').map_or(word, |(name, _)| name));
            let found = names.map(|name| set.iter().find(|(set, _)| *set == name).copied());
            found.collect::<Option<Vec<_>>>().filter(|found| !found.is_empty())
        };
        let mut ways: Vec<Vec<(&str, &str)>> = rules.filter_map(of_rule).collect();
        ways.dedup();
        ways.into_iter().map(|way| way.into_iter().map(assignment).collect()).collect()
    }

    pub(crate) fn children_of(&self, pattern: Option<&str>) -> Children {
        let rule = self.live_rules().iter().find(|rule| Some(rule.pattern()) == pattern);
        rule.map_or(Children::Judged, Rule::children)
    }

    /// Whether the calling program runs by a rule that spells its whole command, and that
    /// command says that it runs this one.
    fn is_spoken_for(&self, exec: &Exec<'_>) -> bool {
        let Some(by) = exec.by else { return false };
        forms(&by).into_iter().any(|form| {
            let caller = command(form, by.argv, Vec::new());
            judge::spelt_inner(self, &caller).iter().any(|inner| is_same(inner, &exec.image))
        })
    }

    fn denial(&self, exec: &Exec<'_>, part: Option<Part>) -> ExecDenial {
        let image = &exec.image;
        let name = image.names.first().or(image.paths.first()).map(String::as_str).unwrap_or_default();
        let shown = command(name, image.argv, Vec::new()).display();
        let rule = part.as_ref().and_then(|p| p.rule.clone()).filter(|rule| rule != "*");
        let reason = part.as_ref().and_then(|p| p.reason.clone());
        let spelt = reason.is_some();
        let caller = exec.by.and_then(|by| by.names.first().or(by.paths.first()).cloned());
        // What it would run in turn is at fault.
        let inner = part.filter(|part| part.depth > 0).map(|part| part.command);
        let reason = reason.unwrap_or_else(|| match (&rule, &inner, &caller) {
            (Some(_), ..) => "a rule denies it".into(),
            (None, Some(inner), _) => format!("no rule allows '{inner}', which it runs"),
            (None, None, Some(caller)) => format!("no rule allows it, and {caller} started it"),
            (None, None, None) => "no rule allows it".into(),
        });
        let program = inner.as_deref().map_or(name, |inner| inner.split(' ').next().unwrap_or_default());
        let is_bare = inner.as_ref().map_or(image.argv.len() < 2, |inner| inner == program);
        let pattern = if is_bare { program.to_owned() } else { format!("{program} *") };
        // A rule that is there, and did not help, is no advice.
        let is_there = |rule: &Rule| rule.action == Action::Allow && rule.pattern() == pattern;
        let is_there = self.live_rules().iter().any(is_there);
        let steers = changed(exec).into_iter().next().filter(|_| spelt);
        let builder = caller.filter(|caller| programs::runs_anything(caller));
        let frees = |caller: &str| {
            format!("children: any in the rule for {caller} would let {caller} start anything")
        };
        let remedy = match (builder, steers) {
            (builder, Some(steers)) => {
                let name = steers.name;
                let frees = builder.map(|caller| format!("; {}", frees(&caller))).unwrap_or_default();
                format!(
                    "no rule allows that; what starts has {name} as the runner's own environment has it{frees}"
                )
            }
            _ if rule.is_some() => "only a change of that rule would allow it".into(),
            (Some(caller), None) if is_there => frees(&caller),
            _ if spelt || is_there => "a rule that spells it, without '*', would let it run".into(),
            (Some(caller), None) => {
                format!("a rule '{pattern}': allow would let it run, and {}", frees(&caller))
            }
            (None, None) => format!("a rule '{pattern}': allow would let it run"),
        };
        ExecDenial { command: shown, rule, reason, remedy }
    }
}

/// The program a pattern is about: its first word that is no assignment.
pub(crate) fn program_of(pattern: &str) -> &str {
    pattern.split(' ').find(|word| !judge::assigns(word)).unwrap_or_default()
}

/// The words by which rules may call a program.
fn forms<'a>(image: &Image<'a>) -> BTreeSet<&'a str> {
    image.names.iter().chain(image.paths).map(String::as_str).collect()
}

fn command(form: &str, argv: &[String], prefixes: Vec<Assignment>) -> Command {
    let first = std::iter::once(Word::of(form));
    let words = first.chain(argv.iter().skip(1).map(|word| literal(word))).collect();
    Command { words, prefixes, span: Span { start: 0, end: 0 } }
}

/// A literal word, shown to people as the line would have to spell it.
fn literal(text: &str) -> Word {
    let mut word = Word::of(text);
    if text.is_empty() {
        word.frags.clear();
    }
    if word.holds_blank() {
        word.raw = single_quoted(text);
    }
    word
}

/// The variables that the call sets, as a line would set them for one command. Those that
/// only say where the caller stands, and those that the caller's purpose is to set, are no
/// wish of anybody's.
fn changed(exec: &Exec<'_>) -> Vec<Assignment> {
    let changes_user =
        exec.by.is_some_and(|by| by.names.iter().any(|name| USER_CHANGERS.contains(&name.as_str())));
    let names = exec.env.iter().filter_map(|entry| entry.split_once('='));
    names
        .filter(|(name, _)| crate::names::is_steering(name))
        .filter(|(name, _)| !(changes_user && OF_USER_CHANGERS.contains(name)))
        .map(assignment)
        .collect()
}

fn assignment((name, value): (&str, &str)) -> Assignment {
    Assignment {
        name: name.to_owned(),
        value: Some(literal(value)),
        append: false,
        numeric: false,
        span: Span { start: 0, end: 0 },
    }
}

/// Whether the table names a program as part of its caller's own work.
fn is_helper(by: &Image<'_>, image: &Image<'_>) -> bool {
    let is = |pattern: &&str, image: &Image<'_>| {
        // `sh+-c+gzip` is that program with these arguments and no others.
        let mut words = pattern.split('+');
        let pattern = words.next().unwrap_or_default();
        let mut words = words.peekable();
        if words.peek().is_some() && !words.eq(image.argv.iter().skip(1)) {
            return false;
        }
        let of = if pattern.contains('/') { image.paths.get(..1).unwrap_or_default() } else { image.names };
        of.iter().any(|name| Pattern::fits_text(pattern, name))
    };
    programs::helpers().iter().any(|entry| {
        entry.of.iter().any(|pattern| is(pattern, by)) && entry.run.iter().any(|pattern| is(pattern, image))
    })
}

/// Whether a command that a text spells is the one that is started.
fn is_same(inner: &Command, image: &Image<'_>) -> bool {
    let mut words = inner.words.iter();
    let first = words.next().and_then(Word::literal);
    let named = first.is_some_and(|first| forms(image).contains(first.as_str()));
    let spelt: Option<Vec<String>> = words.map(Word::literal).collect();
    named && inner.prefixes.is_empty() && spelt.is_some_and(|spelt| spelt == image.argv[1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RuleText;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn policy(rules: &[(&str, &str)]) -> Policy {
        let texts = rules.iter().map(|(pattern, action)| {
            let (action, children) = action.split_once('+').unwrap_or((action, ""));
            RuleText {
                pattern: (*pattern).into(),
                action: action.into(),
                children: children.into(),
                ..RuleText::default()
            }
        });
        Policy::from_rules(texts).expect("rules").with_exec_gate(true)
    }

    /// Judges `/usr/bin/NAME ARGS`, started by `by` with its arguments.
    fn judged(policy: &Policy, argv: &[&str], by: &[&str], env: &[&str]) -> Result<bool, ExecDenial> {
        let of = |argv: &[&str]| {
            let path = argv[0].contains('/');
            let names = if path { Vec::new() } else { strings(&argv[..1]) };
            let paths = if path { argv[0].to_owned() } else { format!("/usr/bin/{}", argv[0]) };
            (names, vec![paths], strings(argv))
        };
        let (names, paths, args) = of(argv);
        let caller = (!by.is_empty()).then(|| of(by));
        let by = caller.as_ref().map(|(names, paths, argv)| Image { names, paths, argv });
        let image = Image { names: &names, paths: &paths, argv: &args };
        match policy.judge_exec(&Exec { image, env: &strings(env), by }) {
            ExecVerdict::Allow { children_any, .. } => Ok(children_any),
            ExecVerdict::Deny(denial) => Err(denial),
        }
    }

    #[test]
    fn rules_decide_by_real_arguments() {
        let policy = policy(&[
            ("*", "deny"),
            ("git *", "allow"),
            ("git push *", "deny"),
            ("rm -rf build", "allow"),
            ("/opt/tool *", "allow"),
            ("make *", "allow+any"),
        ]);
        for (argv, wanted) in [
            (&["git", "log"][..], Ok(false)),
            (&["git", "push", "origin"], Err(())),
            (&["rm", "-rf", "build"], Ok(false)),
            (&["rm", "-rf", "/"], Err(())),
            (&["rm", "-rf build"], Err(())),
            (&["/opt/tool", "x"], Ok(false)),
            // A file that PATH does not lead to is not what a name stands for.
            (&["/workspace/git", "log"], Err(())),
            (&["make", "all"], Ok(true)),
            (&["id"], Err(())),
        ] {
            let found = judged(&policy, argv, &[], &[]);
            assert_eq!(found.clone().map_err(|_| ()), wanted, "{argv:?}: {found:?}");
        }
    }

    #[test]
    fn what_a_program_starts_needs_a_rule_or_is_a_helper() {
        let policy = policy(&[("*", "deny"), ("git *", "allow"), ("find *", "allow"), ("sh *", "allow")]);
        let git = ["git", "fetch"];
        assert_eq!(
            judged(&policy, &["/usr/lib/git-core/git-remote-https", "origin", "url"], &git, &[]),
            Ok(false)
        );
        assert!(judged(&policy, &["id"], &git, &[]).is_err());
        let tar = ["tar", "-tf", "x.tgz"];
        assert_eq!(judged(&policy, &["sh", "-c", "gzip"], &tar, &[]), Ok(false));
        assert_eq!(judged(&policy, &["gzip"], &["sh", "-c", "gzip"], &[]), Ok(false));
        assert!(judged(&policy, &["sh", "-c", "id"], &tar, &[]).is_err());
        assert!(judged(&policy, &["gzip"], &["sh", "-c", "id"], &[]).is_err());
        assert!(judged(&policy, &["rm", "x"], &["find", ".", "-exec", "rm", "x", ";"], &[]).is_err());
        // Script text that a program hands to a shell is read as in a line.
        assert!(judged(&policy, &["sh", "-c", "touch owned"], &git, &[]).is_err());
        assert!(judged(&policy, &["sh", "-c", "git log"], &git, &[]).is_ok());
    }

    #[test]
    fn a_rule_that_spells_a_command_speaks_for_what_it_runs() {
        let policy = policy(&[("*", "deny"), ("sudo systemctl restart nginx", "allow")]);
        let sudo = ["sudo", "systemctl", "restart", "nginx"];
        assert_eq!(judged(&policy, &sudo, &[], &[]), Ok(false));
        assert_eq!(judged(&policy, &["systemctl", "restart", "nginx"], &sudo, &[]), Ok(false));
        assert!(judged(&policy, &["systemctl", "stop", "nginx"], &sudo, &[]).is_err());
        assert!(judged(&policy, &["systemctl", "restart", "nginx"], &[], &[]).is_err());
    }

    #[test]
    fn the_environment_that_steers_is_judged() {
        let policy = policy(&[("*", "deny"), ("ls *", "allow"), ("sudo *", "allow")]);
        assert!(judged(&policy, &["ls"], &[], &["LD_PRELOAD=./x.so"]).is_err());
        assert!(judged(&policy, &["ls"], &[], &["OLDPWD=/", "SHLVL=2", "_=/usr/bin/ls"]).is_ok());
        assert!(judged(&policy, &["ls"], &["sudo", "ls"], &["HOME=/root", "SUDO_USER=x"]).is_ok());
        assert!(judged(&policy, &["ls"], &["sudo", "ls"], &["LD_PRELOAD=./x.so"]).is_err());
    }

    #[test]
    fn a_rule_may_spell_what_is_set_for_one_command() {
        let policy = policy(&[("*", "deny"), ("FOO=* cat *", "allow"), ("A=1 B=* ls", "allow")]);
        assert!(judged(&policy, &["cat", "x"], &[], &["FOO=1", "SHLVL=2"]).is_ok());
        assert!(judged(&policy, &["cat", "x"], &[], &[]).is_err());
        assert!(judged(&policy, &["rm", "cat"], &[], &["FOO=1"]).is_err());
        assert!(judged(&policy, &["ls"], &[], &["B=x", "A=1"]).is_ok());
        assert!(judged(&policy, &["ls"], &[], &["B=x", "A=2"]).is_err());
        assert!(judged(&policy, &["cat", "x"], &[], &["FOO=1", "LD_PRELOAD=x"]).is_err());
    }

    #[test]
    fn carve_outs_hold_for_each_way_to_the_program() {
        let policy = policy(&[("*", "allow"), ("rm -rf /", "deny")]);
        assert!(judged(&policy, &["rm", "-rf", "/"], &["sudo", "rm", "-rf", "/"], &[]).is_err());
        assert!(judged(&policy, &["/opt/copies/rm", "-rf", "/"], &[], &[]).is_err());
        assert!(judged(&policy, &["rm", "-rf", "/tmp/x"], &[], &[]).is_ok());
        assert!(judged(&policy, &["anything", "at all"], &[], &["LD_PRELOAD=x"]).is_ok());
    }

    #[test]
    fn a_denial_says_what_would_allow_it() {
        let policy = policy(&[("*", "deny"), ("make *", "allow"), ("git push *", "deny")]);
        let denial = judged(&policy, &["cc", "-c", "x.c"], &["make", "all"], &[]).expect_err("denied");
        assert_eq!(denial.command, "cc -c x.c");
        assert!(denial.reason.contains("make started it"), "{denial:?}");
        assert!(denial.remedy.contains("children: any") && denial.remedy.contains("'cc *'"), "{denial:?}");
        let denial = judged(&policy, &["git", "push"], &[], &[]).expect_err("denied");
        assert_eq!(denial.rule.as_deref(), Some("git push *"));
    }

    #[test]
    fn a_write_is_judged_by_where_it_goes() {
        let policy =
            policy(&[("*", "deny"), ("> *.log", "allow"), ("> reports/*", "allow"), ("> /etc/*", "deny")]);
        for (path, allowed) in [
            ("/ws/a.log", true),
            ("/ws/reports/x", true),
            ("/ws/sub/reports/x", true),
            ("/ws/other/reports/x", false),
            ("/ws/x", false),
            ("/etc/x.log", false),
            ("/dev/null", true),
            ("/reports/x", false),
        ] {
            assert_eq!(policy.judge_write(path, &["/ws", "/ws/sub"]).is_ok(), allowed, "{path}");
        }
    }

    #[test]
    fn what_people_said_yes_to_passes_and_nothing_else() {
        let rules = policy(&[
            ("*", "deny"),
            ("systemctl restart *", "ask"),
            ("reboot", "ask"),
            ("> /etc/*", "ask"),
            ("systemctl restart db", "deny"),
        ]);
        assert!(judged(&rules, &["systemctl", "restart", "nginx"], &[], &[]).is_err());
        let rules = rules.with_approved(["systemctl restart *".to_owned(), "> /etc/*".to_owned()]);
        assert!(judged(&rules, &["systemctl", "restart", "nginx"], &[], &[]).is_ok());
        assert!(judged(&rules, &["systemctl", "restart", "db"], &[], &[]).is_err());
        assert!(judged(&rules, &["reboot"], &[], &[]).is_err());
        assert!(rules.judge_write("/etc/x", &[]).is_ok() && rules.judge_write("/srv/x", &[]).is_err());
        let text = serde_json::to_string(&rules).expect("JSON");
        assert_eq!(serde_json::from_str::<Policy>(&text).expect("a policy"), rules);
        // The reading still asks.
        assert_eq!(rules.judge("systemctl restart nginx").decision, Decision::Ask);
    }

    #[test]
    fn a_rule_may_ask_two_people() {
        let rule = |action: &str, persons: &str| RuleText {
            pattern: "reboot *".into(),
            action: action.into(),
            persons: persons.into(),
            ..RuleText::default()
        };
        let two = Policy::from_rules([rule("ask", "2")]).expect("rules");
        assert_eq!(two.persons_for(&two.judge("reboot now")), 2);
        assert_eq!(two.persons_for(&two.judge("ls")), 1);
        let text = serde_json::to_string(&two).expect("JSON");
        assert_eq!(serde_json::from_str::<Policy>(&text).expect("a policy"), two);
        for (action, persons) in [("allow", "2"), ("ask", "3"), ("ask", "two")] {
            let error = Policy::from_rules([rule(action, persons)]).expect_err("no rule").to_string();
            assert!(error.contains("persons"), "{error}");
        }
    }

    #[test]
    fn a_policy_arrives_as_it_was_sent() {
        let policy =
            policy(&[("*", "deny"), ("make *", "allow+any"), ("> x", "ask")]).with_env_names(["A".into()]);
        let text = serde_json::to_string(&policy).expect("JSON");
        assert_eq!(serde_json::from_str::<Policy>(&text).expect("a policy"), policy);
    }

    #[test]
    fn words_that_a_program_fills_in_are_left_to_the_start_that_has_them() {
        let narrow = policy(&[
            ("*", "deny"),
            ("cat {path:/ok}", "allow"),
            ("xargs *", "allow"),
            ("find *", "allow"),
            ("env *", "allow"),
            ("sh *", "allow"),
            ("ls *", "allow"),
        ]);
        let trusting = policy(&[("*", "allow"), ("rm -rf /", "deny")]);
        for (policy, argv) in [
            (&narrow, &["xargs", "cat"][..]),
            (&narrow, &["xargs", "-n1", "cat"]),
            (&narrow, &["find", "/ok", "-name", "f", "-exec", "cat", "{}", "+"]),
            (&narrow, &["env", "FOO=1", "ls"]),
            (&narrow, &["xargs", "-I{}", "sh", "-c", "ls {}"]),
            (&trusting, &["find", ".", "-name", "*.o", "-exec", "rm", "-rf", "{}", "+"]),
            (&trusting, &["xargs", "rm", "-rf"]),
            (&trusting, &["xargs", "-I{}", "sh", "-c", "echo {}"]),
            (&trusting, &["xargs", "-I{}", "sh", "-c", "rm -rf {}"]),
        ] {
            assert_eq!(judged(policy, argv, &[], &[]), Ok(false), "{argv:?}");
        }
        // What is known already decides, and then the start that has the words.
        for (policy, argv, by) in [
            (&narrow, &["xargs", "id"][..], &["sh"][..]),
            (&narrow, &["env", "LD_PRELOAD=./x.so", "ls"], &["sh"]),
            (&narrow, &["env", "HTTPS_PROXY=http://evil", "ls"], &["sh"]),
            (&narrow, &["find", ".", "-delete"], &["sh"]),
            (&narrow, &["cat", "/secret"], &["xargs", "cat"]),
            (&narrow, &["cat", "/ok/f", "/secret"], &["find", "/", "-exec", "cat", "{}", "+"]),
            (&narrow, &["sh", "-c", "cat /ok/f; touch x"], &["xargs", "-I{}", "sh", "-c", "cat {}"]),
            (&trusting, &["rm", "-rf", "/"], &["xargs", "rm", "-rf"]),
            (&trusting, &["rm", "-rf", "/"], &["find", "/", "-exec", "rm", "-rf", "{}", "+"]),
            (&trusting, &["sh", "-c", "rm -rf /"], &["xargs", "-I{}", "sh", "-c", "rm -rf {}"]),
            // One program of many names runs the other within itself.
            (&trusting, &["busybox", "xargs", "rm", "-rf"], &["sh"]),
        ] {
            assert!(judged(policy, argv, by, &[]).is_err(), "{argv:?}");
        }
        // Beneath a rule that frees what it starts nothing is judged later.
        let freeing = policy(&[
            ("*", "deny"),
            ("xargs *", "allow+any"),
            ("rm *", "allow"),
            ("echo *", "allow"),
            ("rm -rf /", "deny"),
        ]);
        assert!(judged(&freeing, &["xargs", "rm", "-rf"], &[], &[]).is_err());
        assert_eq!(judged(&freeing, &["xargs", "echo", "x"], &[], &[]), Ok(true));
    }

    #[test]
    fn a_rule_that_is_there_is_no_advice() {
        let policy =
            policy(&[("*", "deny"), ("xargs *", "allow"), ("make *", "allow"), ("touch *", "allow")]);
        let denial = judged(&policy, &["xargs", "cat"], &["sh"], &[]).expect_err("denied");
        assert!(denial.reason.contains("'cat") && denial.remedy.contains("'cat *': allow"), "{denial:?}");
        assert!(!denial.message().contains("'xargs *'"), "{denial:?}");
        let env = ["MAKEFLAGS=", "MAKELEVEL=1"];
        let denial = judged(&policy, &["touch", "z"], &["make", "all"], &env).expect_err("denied");
        assert!(denial.remedy.contains("children: any in the rule for make"), "{denial:?}");
        assert!(!denial.message().contains("'touch *'"), "{denial:?}");
    }

    #[test]
    fn no_rule_is_proposed_for_what_none_allows() {
        let policy = policy(&[("*", "deny"), ("ls *", "allow")]);
        let denial = judged(&policy, &["ls"], &[], &["LD_PRELOAD=./x.so"]).expect_err("denied");
        assert!(
            denial.reason.contains("LD_PRELOAD") && denial.remedy.contains("no rule allows"),
            "{denial:?}"
        );
        let denial = judged(&policy, &["id"], &[], &["LD_PRELOAD=./x.so"]).expect_err("denied");
        assert!(!denial.remedy.contains("'id *'"), "{denial:?}");
    }

    #[test]
    fn a_denied_option_is_told_by_its_reason() {
        let policy = policy(&[("*", "deny"), ("find *", "allow")]);
        let denial = judged(&policy, &["find", ".", "-delete"], &["sh", "-c", "x"], &[]).expect_err("denied");
        assert!(denial.reason.contains("-delete"), "{denial:?}");
        assert!(!denial.remedy.contains("'find *'"), "{denial:?}");
    }

    #[test]
    fn rules_of_an_original_free_what_ran_before() {
        let mut policy =
            policy(&[("*", "deny"), ("make *", "allow"), ("our-tool *", "allow"), ("ls *", "allow")]);
        assert_eq!(policy.imply_children(), ["make *", "our-tool *"]);
        assert_eq!(judged(&policy, &["our-tool", "x"], &[], &[]), Ok(true));
        assert_eq!(judged(&policy, &["ls", "x"], &[], &[]), Ok(false));
    }
}
