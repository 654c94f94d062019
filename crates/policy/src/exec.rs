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
mod tests;
