//! The judgement: every part of a line against the rules.

mod known;
mod redirect;
mod rules;
mod trust;

use std::collections::BTreeSet;

use crate::names::{is_free_prefix, is_harmless, is_steering};
use crate::pattern::Token;
use crate::programs::{Inner, Refusal, Syntax};
use crate::rules::{Children, Policy, Rule};
use crate::script::{Assignment, Command, Frag, Script, Style, Word};
use crate::verdict::{Decision, Part, RunText, Span, Verdict};
use crate::{cross, limits, programs, typed};

use known::Known;
pub(crate) use rules::assigns;
use rules::{Filling, LEADS_OUT, texts};

pub(crate) fn judge(policy: &Policy, line: &str) -> Verdict {
    if line.trim().is_empty() {
        return Verdict::failed("empty command");
    }
    if let Err(reason) = limits::check(line) {
        return Verdict::failed(format!("failed to parse command: {reason}"));
    }
    let trusts = policy.trusts();
    let unconditional = policy.allows_everything();
    let script = match typed::parse(line, policy.exec_gate) {
        Ok(script) => script,
        // Where everything is allowed only bash's own word on syntax is needed.
        Err(_) if unconditional => Script::default(),
        Err(cause) => return Verdict::failed(format!("failed to parse command: {cause}")),
    };
    let mut run = if unconditional || trusts && !script.refused.is_empty() {
        let check_syntax = !is_plain(line);
        RunText {
            text: line.to_owned(),
            reprinted: false,
            computed_writes: false,
            check_syntax,
            scripts: Vec::new(),
        }
    } else {
        let (text, check_syntax) = (script.printed.clone(), !script.plain);
        RunText { text, reprinted: true, computed_writes: false, check_syntax, scripts: Vec::new() }
    };
    if run.text.len() > limits::MAX_ARGUMENT_BYTES {
        return Verdict::failed(format!(
            "command denied: with each word quoted the line has {} bytes, and Linux passes at most {} in one \
             argument: split it, or put its data into a file",
            run.text.len(),
            limits::MAX_ARGUMENT_BYTES
        ));
    }
    if unconditional {
        let part = Part {
            command: line.trim().to_owned(),
            span: Span { start: 0, end: line.len() },
            depth: 0,
            decision: Decision::Allow,
            at_exec: false,
            rule: Some("*".into()),
            matched: vec!["*".into()],
            reason: None,
        };
        return Verdict::from_parts(vec![part], Some(run));
    }
    if script.commands.is_empty()
        && script.redirects.is_empty()
        && script.assignments.is_empty()
        && script.refused.is_empty()
        && line.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
    {
        return Verdict::failed("empty command");
    }
    if !trusts && let Err(reason) = cross_check(line, &script) {
        return Verdict::refused(line, reason);
    }
    let mut judge = Judge::new(policy, line, &script);
    let mut parts = judge.parts(&script);
    run.scripts = judge.scripts;
    let unseen_text = parts.iter().any(|part| part.at_exec) && policy.text_may_write();
    run.computed_writes = judge.computed_writes || unseen_text;
    if parts.is_empty() {
        // A line of syntax alone, such as `((1))`.
        parts.push(Part {
            command: line.trim().to_owned(),
            span: Span { start: 0, end: line.len() },
            depth: 0,
            decision: Decision::Allow,
            at_exec: false,
            rule: None,
            matched: Vec::new(),
            reason: None,
        });
    }
    parts.sort_by_key(|part| (part.span.start, part.depth));
    Verdict::from_parts(parts, Some(run))
}

/// Judges a shell without arguments as a program, whatever it will be told.
pub(crate) fn shell(policy: &Policy, name: &str) -> Verdict {
    let span = Span { start: 0, end: name.len() };
    let command = Command { words: vec![Word::of(name)], prefixes: Vec::new(), span };
    let (part, _) = Judge::alone(policy).command_itself(&command);
    let run = RunText {
        text: name.to_owned(),
        reprinted: true,
        computed_writes: true,
        check_syntax: false,
        scripts: Vec::new(),
    };
    Verdict::from_parts(vec![part], Some(run))
}

/// Judges one command whose words are all known, and what it says that it runs in turn. With
/// `gate` that is judged again when it starts, so words that the command fills in are left to that.
pub(crate) fn command_alone(policy: &Policy, command: &Command, gate: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut judge = Judge { gate, ..Judge::alone(policy) };
    if judge.trusts {
        // What is set for a program takes nothing from `*: allow`.
        let bare = Command { prefixes: Vec::new(), ..command.clone() };
        judge.command(&bare, &mut parts);
    } else {
        judge.command(command, &mut parts);
    }
    parts
}

/// The commands that a command runs in turn, if a rule that spells it allows it.
pub(crate) fn spelt_inner(policy: &Policy, command: &Command) -> Vec<Command> {
    let (part, exact) = Judge::alone(policy).command_itself(command);
    if !exact || part.decision != Decision::Allow {
        return Vec::new();
    }
    let mut commands = Vec::new();
    for inner in programs::examine(command, &policy.env_names).unwrap_or_default() {
        match inner {
            Inner::Command(command) | Inner::Filled { command, .. } => commands.push(command),
            Inner::Script { text, .. } => {
                commands.extend(typed::parse(&text, false).map(|script| script.commands).unwrap_or_default());
            }
        }
    }
    commands
}

/// Whether every locale reads script text alike: in some, a byte above 0x7f and the one
/// after it are one character, which must then be no sign of the shell's.
fn is_read_alike(text: &str) -> bool {
    text.as_bytes().windows(2).all(|pair| pair[0] < 0x80 || !b"\\`|{}~[]^@".contains(&pair[1]))
}

/// `sh` may be dash: the text must hold what every shell reads alike, and that must be
/// what was seen.
fn check_posix(text: &str, script: &Script) -> Result<(), String> {
    let commands = crate::posix::commands(text)?;
    let mut seen: Vec<String> = commands
        .iter()
        .map(|words| {
            let words: Vec<Word> = words.iter().map(|word| Word::of(word)).collect();
            crate::script::signature([], &words)
        })
        .collect();
    seen.sort_unstable();
    let found: Vec<String> = script
        .signature()
        .into_iter()
        .filter(|s| !s.starts_with('\u{4}') || !s.ends_with("/dev/null"))
        .collect();
    if script.refused.is_empty() && script.plain && seen == found {
        return Ok(());
    }
    Err("text for a shell other than bash may hold only simple commands of literal words".into())
}

/// Both parsers must see the same in a text.
fn cross_check(line: &str, script: &Script) -> Result<(), String> {
    match cross::commands(line) {
        Ok(other) if other == script.signature() => Ok(()),
        Ok(_) => Err("two parsers disagree on what this line runs; write it more plainly".into()),
        Err(cause) => Err(format!("two parsers disagree on this line: {cause}")),
    }
}

/// Whether no bash could read the line differently or find a syntax error in it.
fn is_plain(line: &str) -> bool {
    line.bytes().all(|b| b.is_ascii_alphanumeric() || b" ./_-:,@%+".contains(&b))
        && line.split_whitespace().next().is_some_and(|w| {
            !matches!(
                w,
                "if" | "then"
                    | "else"
                    | "elif"
                    | "fi"
                    | "for"
                    | "while"
                    | "until"
                    | "do"
                    | "done"
                    | "case"
                    | "esac"
                    | "in"
                    | "select"
                    | "function"
                    | "time"
                    | "coproc"
            )
        })
}

/// Most wrappers and scripts within each other.
const MAX_WITHIN: usize = 16;

struct Judge<'a> {
    policy: &'a Policy,
    /// Its rules that can decide.
    live: &'a [Rule],
    line: &'a str,
    trusts: bool,
    depth: usize,
    /// In script text that a command of the line runs: where that command stands.
    within: Option<Span>,
    /// Script text that bash must accept before the line runs.
    scripts: Vec<String>,
    /// The functions that the text defines.
    functions: BTreeSet<String>,
    known: Known,
    /// Each program that the text starts is judged when it starts. (Of script text that a
    /// command runs in turn, what its builtins do is seen by nobody but this reading.)
    gate: bool,
    computed_writes: bool,
}

impl<'a> Judge<'a> {
    fn new(policy: &'a Policy, line: &'a str, script: &Script) -> Self {
        let known = Known::of(script, &policy.env_names);
        Self {
            line,
            functions: script.functions.clone(),
            known,
            gate: policy.exec_gate,
            ..Self::alone(policy)
        }
    }

    fn alone(policy: &'a Policy) -> Self {
        Self {
            policy,
            live: policy.live_rules(),
            line: "",
            trusts: policy.trusts(),
            depth: 0,
            within: None,
            scripts: Vec::new(),
            functions: BTreeSet::new(),
            known: Known::default(),
            gate: false,
            computed_writes: false,
        }
    }
}

impl Judge<'_> {
    fn parts(&mut self, script: &Script) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for command in &script.commands {
            self.command(command, &mut parts);
        }
        for redirect in &script.redirects {
            parts.extend(self.redirect(redirect));
        }
        if !self.trusts {
            parts.extend(script.assignments.iter().filter_map(|a| self.assignment(a)));
            parts.extend(script.refused.iter().map(|r| {
                let command = if r.text.is_empty() { self.line.trim().to_owned() } else { r.text.clone() };
                self.denied(command, r.span, &r.reason)
            }));
        }
        parts
    }

    fn span(&self, span: Span) -> Span {
        self.within.unwrap_or(span)
    }

    fn denied(&self, command: String, span: Span, reason: &str) -> Part {
        Part {
            command,
            span: self.span(span),
            depth: self.depth,
            decision: Decision::Deny,
            at_exec: false,
            rule: None,
            matched: Vec::new(),
            reason: Some(reason.to_owned()),
        }
    }

    /// Judges a command as all that it can come out as.
    fn command(&mut self, command: &Command, parts: &mut Vec<Part>) {
        let Some(variants) = self.known.variants(command) else {
            return self.variant(command, parts);
        };
        let mut judged: Vec<Vec<Part>> = Vec::new();
        for variant in variants.iter().filter(|variant| !variant.words.is_empty()) {
            let mut found = Vec::new();
            self.variant(variant, &mut found);
            judged.push(found);
        }
        let worst = |parts: &Vec<Part>| parts.iter().map(|p| p.decision).max().unwrap_or(Decision::Deny);
        // Where the start of the program decides, one that could be allowed is enough.
        let eased = self.sees_exec(command) && !self.trusts;
        let chosen = if eased {
            judged.iter().rev().min_by_key(|parts| worst(parts))
        } else {
            judged.iter().max_by_key(|parts| worst(parts))
        };
        let Some(mut chosen) = chosen.cloned() else { return };
        let differ = judged.iter().any(|parts| worst(parts) != worst(&chosen));
        for part in &mut chosen {
            part.at_exec |= eased && differ && part.decision != Decision::Deny;
        }
        parts.append(&mut chosen);
    }

    /// Whether the command is a program, whose start will be judged by its real words.
    fn sees_exec(&self, command: &Command) -> bool {
        self.gate
            && command.words.first().is_some_and(|word| match word.literal() {
                Some(name) => !programs::is_builtin(&name) && !self.functions.contains(&name),
                // It is printed so that it can be nothing but a program.
                None => true,
            })
    }

    /// Judges a command, and what it runs in turn.
    fn variant(&mut self, command: &Command, parts: &mut Vec<Part>) {
        if self.trusts {
            return self.trusted(command, parts);
        }
        if self.is_syntax(command) {
            return;
        }
        let (mut part, exact) = self.command_itself(command);
        if part.decision == Decision::Deny {
            parts.push(part);
            return;
        }
        let inner = match self.examine(command) {
            Ok((inner, at_exec)) => {
                part.at_exec |= at_exec;
                inner
            }
            Err(refusal) if refusal.is_lifted_by(part.rule.as_deref().unwrap_or_default(), exact) => {
                Vec::new()
            }
            Err(refusal) => {
                let denied = Part { decision: Decision::Deny, at_exec: false, rule: None, ..part };
                parts.push(Part { reason: Some(refusal.reason), ..denied });
                return;
            }
        };
        if let Err(reason) = self.known_program(command, &part, exact) {
            let denied = Part { decision: Decision::Deny, at_exec: false, rule: None, ..part };
            parts.push(Part { reason: Some(reason), ..denied });
            return;
        }
        // A person who is asked sees the whole command.
        if part.decision != Decision::Ask {
            match self.check_options(command, part.rule.as_deref()) {
                Ok(at_exec) => part.at_exec |= at_exec,
                Err(refusal) => {
                    let denied = Part { decision: Decision::Deny, at_exec: false, rule: None, ..part };
                    parts.push(Part { reason: Some(refusal.reason), ..denied });
                    return;
                }
            }
        }
        parts.push(part);
        for inner in inner {
            let mut found = Vec::new();
            self.inner(&inner, command.span, &mut found);
            // A rule that spells the whole line speaks for what the line runs in turn,
            // unless a rule of its own forbids that.
            let spoken_for = |p: &Part| {
                p.decision == Decision::Deny
                    && p.reason.as_deref().is_none_or(|reason| reason == LEADS_OUT)
                    && p.rule.as_deref().is_none_or(|rule| rule == "*")
            };
            parts.extend(found.into_iter().filter(|p| !(exact && spoken_for(p))));
        }
    }

    /// Where no start of a program is judged, one that no table knows could run anything: its
    /// rule must spell the command, or say so.
    fn known_program(&self, command: &Command, part: &Part, exact: bool) -> Result<(), String> {
        let Some(name) = command.words.first().and_then(Word::run) else { return Ok(()) };
        let says_so = || self.policy.children_of(part.rule.as_deref()) == Children::Any;
        if self.policy.exec_gate
            || exact
            || part.decision != Decision::Allow
            || self.functions.contains(name)
            || !programs::is_unknown(name)
            || says_so()
        {
            return Ok(());
        }
        Err(format!(
            "the table does not know '{name}', so it may run anything, and no start of a program is judged here; its \
             rule must say children: any"
        ))
    }

    /// `break` and `continue` are syntax, unless a function has their name.
    fn is_syntax(&self, command: &Command) -> bool {
        let name = command.words.first().and_then(Word::run).unwrap_or_default();
        matches!(name, "break" | "continue")
            && command.prefixes.is_empty()
            && command.words[1..].iter().all(Word::is_numeric)
            && !self.functions.contains(name)
            && !self.live.iter().any(|rule| rule.pattern().starts_with(name))
    }

    /// What the table says of a command; also whether the start of the program decides.
    fn examine(&self, command: &Command) -> Result<(Vec<Inner>, bool), Refusal> {
        let env_names = &self.policy.env_names;
        let refusal = match programs::examine(command, env_names) {
            Ok(inner) => return Ok((inner, false)),
            Err(refusal) if refusal.seen && self.policy.exec_gate => return Ok((Vec::new(), true)),
            Err(refusal) => refusal,
        };
        if !refusal.computed || !self.sees_exec(command) {
            return Err(refusal);
        }
        // As if the computed words were no options: what is certain is still read.
        let mut eased = command.clone();
        for word in &mut eased.words[1..] {
            for frag in &mut word.frags {
                if !matches!(frag, Frag::Lit(_)) {
                    *frag = Frag::Path;
                }
            }
        }
        match programs::examine(&eased, env_names) {
            Ok(inner) => Ok((inner, true)),
            Err(refusal) if refusal.computed && !programs::names_a_shell(command) => Ok((Vec::new(), true)),
            Err(refusal) => Err(refusal),
        }
    }

    /// Holds a command's options against the table; says whether the start of the program
    /// decides on words that bash computes.
    fn check_options(&self, command: &Command, rule: Option<&str>) -> Result<bool, Refusal> {
        match programs::check_options(command, rule, false) {
            Ok(()) => Ok(false),
            Err(refusal)
                if !self.sees_exec(command) || command.words.iter().all(|word| word.literal().is_some()) =>
            {
                Err(refusal)
            }
            Err(_) => programs::check_options(command, rule, true).map(|()| true),
        }
    }

    fn inner(&mut self, inner: &Inner, span: Span, parts: &mut Vec<Part>) {
        if self.depth >= MAX_WITHIN {
            parts.push(self.denied(self.line.trim().to_owned(), span, "too many commands within each other"));
            return;
        }
        self.depth += 1;
        match inner {
            Inner::Command(command) => self.command(command, parts),
            Inner::Filled { command, example } => self.filled(command, example, parts),
            Inner::Script { text, syntax } => {
                let outer = self.within.replace(self.span(span));
                // What can't be read where all is allowed is nothing that a rule denies.
                if let Err(reason) = self.script(text, *syntax, parts)
                    && !self.trusts
                {
                    parts.push(self.denied(text.clone(), span, &reason));
                }
                self.within = outer;
            }
        }
        self.depth -= 1;
    }

    /// A shell whose text its caller fills in. Where its start is judged, by the text that it
    /// really has then, it passes if it would with a plain letter.
    fn filled(&mut self, command: &Command, example: &Command, parts: &mut Vec<Part>) {
        let mut found = Vec::new();
        self.command(command, &mut found);
        let passes = |parts: &[Part]| parts.iter().all(|part| part.decision == Decision::Allow);
        if !passes(&found) && self.policy.exec_gate && !self.trusts {
            let mut best = Vec::new();
            self.command(example, &mut best);
            if passes(&best) {
                best.iter_mut().for_each(|part| part.at_exec = true);
                found = best;
            }
        }
        parts.append(&mut found);
    }

    /// Script text is parsed and judged like the line (16).
    fn script(&mut self, text: &str, syntax: Syntax, parts: &mut Vec<Part>) -> Result<(), String> {
        if text.trim().is_empty() {
            return Ok(());
        }
        limits::check(text)?;
        let script = typed::parse(text, false)?;
        if self.trusts {
            let mut judge = Judge {
                depth: self.depth,
                within: self.within,
                gate: false,
                ..Judge::new(self.policy, text, &script)
            };
            parts.extend(judge.parts(&script));
            self.computed_writes |= judge.computed_writes;
            return Ok(());
        }
        cross_check(text, &script)?;
        if !is_read_alike(text) {
            return Err("a letter beyond ASCII before a sign that some locale takes for a part of it".into());
        }
        match syntax {
            Syntax::Bash => self.scripts.push(text.to_owned()),
            Syntax::Posix => check_posix(text, &script)?,
            Syntax::Other => {
                return Err("text for a shell other than bash, sh or dash can't be judged".into());
            }
        }
        let mut judge = Judge {
            depth: self.depth,
            within: self.within,
            scripts: std::mem::take(&mut self.scripts),
            gate: false,
            ..Judge::new(self.policy, text, &script)
        };
        parts.extend(judge.parts(&script));
        self.scripts = judge.scripts;
        self.computed_writes |= judge.computed_writes;
        Ok(())
    }

    /// Judges the command's own words; says also whether the deciding rule spells them.
    fn command_itself(&self, command: &Command) -> (Part, bool) {
        let span = command.span;
        let display = command.display();
        let sees_exec = self.sees_exec(command);
        let computed = |w: &Word| w.run().is_none_or(str::is_empty) && !(sees_exec && w.literal().is_none());
        if command.words.first().is_some_and(computed) {
            return (self.denied(display, span, "the command itself must be literal, not computed"), false);
        }
        if let Some(prefix) = command.prefixes.iter().find(|p| p.evaluates()) {
            return (self.denied(command.display_with_prefixes(), span, &evaluates(&prefix.name)), false);
        }
        // `IFS= read …`: read is a builtin, and for it alone the variable is set.
        let reads =
            command.words.first().and_then(Word::run) == Some("read") && !self.functions.contains("read");
        let of_read = |name: &str| reads && name == "IFS";
        if let Some(prefix) = command.prefixes.iter().find(|p| is_steering(&p.name) && !of_read(&p.name)) {
            return self.steered(command, prefix);
        }
        // A prefix that is not free is allowed only by a rule for the whole text.
        let free = |name: &str| {
            is_free_prefix(name)
                || of_read(name)
                || self.gate && is_harmless(name) && !self.policy.env_names.contains(name)
        };
        let bare = texts(command, false);
        if command.prefixes.iter().all(|p| free(&p.name)) {
            let found = self.by_rules((display.clone(), span), (&bare, &bare), None, Filling::Worst);
            let found = self.or_at_exec(command, found, || {
                self.by_rules((display, span), (&bare, &bare), None, Filling::Best)
            });
            // What needs no rule may still have one, which then speaks for the whole.
            let spelt = command.prefixes.iter().any(|p| !(is_free_prefix(&p.name) || of_read(&p.name)));
            if found.0.decision != Decision::Deny || !spelt {
                return found;
            }
        }
        let display = command.display_with_prefixes();
        let whole = texts(command, true);
        let by_rules = |filling| {
            let (mut part, exact) =
                self.by_rules((display.clone(), span), (&whole, &bare), Some(command), filling);
            if part.rule.is_none() {
                part.decision = Decision::Deny;
                part.reason = Some("a variable set for one command needs a rule that spells it".into());
            }
            (part, exact)
        };
        self.or_at_exec(command, by_rules(Filling::Worst), || by_rules(Filling::Best))
    }

    /// A command for which a variable is set that steers: only a rule that spells the variable
    /// with this value lets it pass.
    fn steered(&self, command: &Command, steering: &Assignment) -> (Part, bool) {
        let display = command.display_with_prefixes();
        let spelt: Vec<String> = (0..command.prefixes.len())
            .filter(|at| is_steering(&command.prefixes[*at].name))
            .map(|at| {
                text_of(&command.prefix_tokens(at, Style::Double)).filter(|text| !text.contains(['*', '{']))
            })
            .collect::<Option<_>>()
            .unwrap_or_default();
        let (whole, bare) = (texts(command, true), texts(command, false));
        let about = || (display.clone(), command.span);
        let found = self.by_rules(about(), (&whole, &bare), Some(command), Filling::Worst);
        let found = self.or_at_exec(command, found, || {
            self.by_rules(about(), (&whole, &bare), Some(command), Filling::Best)
        });
        let rule = found.0.rule.as_deref().unwrap_or_default();
        let named: Vec<&str> = rule.split(' ').take_while(|word| assigns(word)).collect();
        if !spelt.is_empty() && spelt.iter().all(|text| named.contains(&text.as_str())) {
            return found;
        }
        let reason = match spelt.first() {
            Some(spelt) => format!(
                "setting {} steers what other commands do; a rule would have to spell it: \"{spelt} …\"",
                steering.name
            ),
            None => format!("setting {} steers what other commands do", steering.name),
        };
        (self.denied(display, command.span, &reason), false)
    }

    /// Where the start of the program decides, a command with computed words passes if some
    /// value of them could be allowed.
    fn or_at_exec(
        &self,
        command: &Command,
        worst: (Part, bool),
        best: impl FnOnce() -> (Part, bool),
    ) -> (Part, bool) {
        let computed = || command.words.iter().any(|word| word.literal().is_none());
        if worst.0.decision == Decision::Allow || !self.sees_exec(command) || !computed() {
            return worst;
        }
        match best() {
            best if best.0.decision == Decision::Deny => worst,
            best => best,
        }
    }

    /// An assignment that stands alone; `None` for one that is free.
    fn assignment(&self, assignment: &Assignment) -> Option<Part> {
        let name = &assignment.name;
        let text = self.line.get(assignment.span.start..assignment.span.end).unwrap_or(name);
        let reason = if assignment.evaluates() {
            evaluates(name)
        } else if self.policy.spells_export(text) {
            return None;
        } else if is_steering(name) {
            format!("setting {name} steers what other commands do")
        } else if self.policy.env_names.contains(name) {
            format!("{name} is in the environment of the commands; setting it would change it for them")
        } else {
            return None;
        };
        Some(self.denied(text.to_owned(), assignment.span, &reason))
    }
}

/// The text of tokens that are all known.
fn text_of(tokens: &[Token]) -> Option<String> {
    let known = |token: &Token| match token {
        Token::Char(c) => Some(*c),
        _ => None,
    };
    tokens.iter().map(known).collect()
}

fn evaluates(name: &str) -> String {
    format!("bash evaluates what is assigned to {name} as arithmetic; only a number may be assigned to it")
}
