//! The judgement: every part of a line against the rules.

use std::collections::BTreeSet;

use crate::names::{is_free_prefix, is_steering};
use crate::pattern::{Pattern, Token};
use crate::programs::{Inner, Syntax};
use crate::rules::{Action, Policy, Rule};
use crate::script::{Assignment, Command, Redirect, RedirectUse, Script, Style, Word};
use crate::verdict::{Decision, Part, RunText, Span, Verdict};
use crate::{cross, limits, programs, typed};

pub(crate) fn judge(policy: &Policy, line: &str) -> Verdict {
    if line.trim().is_empty() {
        return Verdict::failed("empty command");
    }
    if let Err(reason) = limits::check(line) {
        return Verdict::failed(format!("failed to parse command: {reason}"));
    }
    let trusts = policy.trusts();
    let unconditional = policy.allows_everything();
    let script = match typed::parse(line, false) {
        Ok(script) => script,
        // Where everything is allowed only bash's own word on syntax is needed.
        Err(_) if unconditional => Script::default(),
        Err(cause) => return Verdict::failed(format!("failed to parse command: {cause}")),
    };
    let mut run = if unconditional || trusts && !script.refused.is_empty() {
        let check_syntax = !is_plain(line);
        RunText { text: line.to_owned(), reprinted: false, check_syntax, scripts: Vec::new() }
    } else {
        let (text, check_syntax) = (script.printed.clone(), !script.plain);
        RunText { text, reprinted: true, check_syntax, scripts: Vec::new() }
    };
    if unconditional {
        let part = Part {
            command: line.trim().to_owned(),
            span: Span { start: 0, end: line.len() },
            depth: 0,
            decision: Decision::Allow,
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
    if parts.is_empty() {
        // A line of syntax alone, such as `((1))`.
        parts.push(Part {
            command: line.trim().to_owned(),
            span: Span { start: 0, end: line.len() },
            depth: 0,
            decision: Decision::Allow,
            rule: None,
            matched: Vec::new(),
            reason: None,
        });
    }
    parts.sort_by_key(|part| (part.span.start, part.depth));
    Verdict::from_parts(parts, Some(run))
}

/// Judges one command whose words are all known, and what it says that it runs in turn.
pub(crate) fn command_alone(policy: &Policy, command: &Command) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut judge = Judge::alone(policy);
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
            Inner::Command(command) => commands.push(command),
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
    line: &'a str,
    trusts: bool,
    depth: usize,
    /// In script text that a command of the line runs: where that command stands.
    within: Option<Span>,
    /// Script text that bash must accept before the line runs.
    scripts: Vec<String>,
    /// The functions that the text defines.
    functions: BTreeSet<String>,
}

impl<'a> Judge<'a> {
    fn new(policy: &'a Policy, line: &'a str, script: &Script) -> Self {
        Self { line, functions: script.functions.clone(), ..Self::alone(policy) }
    }

    fn alone(policy: &'a Policy) -> Self {
        Self {
            policy,
            line: "",
            trusts: policy.trusts(),
            depth: 0,
            within: None,
            scripts: Vec::new(),
            functions: BTreeSet::new(),
        }
    }
}

impl Judge<'_> {
    fn parts(&mut self, script: &Script) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for command in &script.commands {
            self.command(command, &mut parts);
        }
        parts.extend(script.redirects.iter().filter_map(|r| self.redirect(r)));
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
            rule: None,
            matched: Vec::new(),
            reason: Some(reason.to_owned()),
        }
    }

    /// Judges a command, and what it runs in turn.
    fn command(&mut self, command: &Command, parts: &mut Vec<Part>) {
        let (part, exact) = self.command_itself(command);
        if self.trusts || part.decision == Decision::Deny {
            parts.push(part);
            return;
        }
        let found = programs::examine(command, &self.policy.env_names);
        let inner = match found {
            Ok(inner) => inner,
            Err(refusal) if refusal.is_lifted_by(part.rule.as_deref().unwrap_or_default(), exact) => {
                Vec::new()
            }
            Err(refusal) => {
                parts.push(Part {
                    decision: Decision::Deny,
                    rule: None,
                    reason: Some(refusal.reason),
                    ..part
                });
                return;
            }
        };
        parts.push(part);
        for inner in inner {
            let mut found = Vec::new();
            self.inner(&inner, command.span, &mut found);
            // A rule that spells the whole line speaks for what the line runs in turn,
            // unless a rule of its own forbids that.
            let spoken_for = |p: &Part| {
                p.decision == Decision::Deny
                    && p.reason.is_none()
                    && p.rule.as_deref().is_none_or(|rule| rule == "*")
            };
            parts.extend(found.into_iter().filter(|p| !(exact && spoken_for(p))));
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
            Inner::Script { text, syntax } => {
                let outer = self.within.replace(self.span(span));
                if let Err(reason) = self.script(text, *syntax, parts) {
                    parts.push(self.denied(text.clone(), span, &reason));
                }
                self.within = outer;
            }
        }
        self.depth -= 1;
    }

    /// Script text is parsed and judged like the line (16).
    fn script(&mut self, text: &str, syntax: Syntax, parts: &mut Vec<Part>) -> Result<(), String> {
        if text.trim().is_empty() {
            return Ok(());
        }
        limits::check(text)?;
        let script = typed::parse(text, false)?;
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
            ..Judge::new(self.policy, text, &script)
        };
        parts.extend(judge.parts(&script));
        self.scripts = judge.scripts;
        Ok(())
    }

    /// Judges the command's own words; says also whether the deciding rule spells them.
    fn command_itself(&self, command: &Command) -> (Part, bool) {
        let span = command.span;
        let display = command.display();
        if self.trusts {
            let texts = texts(command, false);
            return self.by_rules(display, span, &texts, &texts, None);
        }
        if command.words.first().is_some_and(|w| w.run().is_none_or(str::is_empty)) {
            return (self.denied(display, span, "the command itself must be literal, not computed"), false);
        }
        if let Some(prefix) = command.prefixes.iter().find(|p| p.evaluates()) {
            return (self.denied(command.display_with_prefixes(), span, &evaluates(&prefix.name)), false);
        }
        // `IFS= read …`: read is a builtin, and for it alone the variable is set.
        let reads = command.words[0].run() == Some("read") && !self.functions.contains("read");
        if let Some(prefix) =
            command.prefixes.iter().find(|p| is_steering(&p.name) && !(reads && p.name == "IFS"))
        {
            let reason = format!("setting {} steers what other commands do", prefix.name);
            return (self.denied(command.display_with_prefixes(), span, &reason), false);
        }
        // A prefix that is not free is allowed only by a rule for the whole text.
        let whole = command.prefixes.iter().any(|p| !(is_free_prefix(&p.name) || reads && p.name == "IFS"));
        let bare = texts(command, false);
        if !whole {
            return self.by_rules(display, span, &bare, &bare, None);
        }
        let display = command.display_with_prefixes();
        let (mut part, exact) = self.by_rules(display, span, &texts(command, true), &bare, Some(command));
        if part.rule.is_none() {
            part.decision = Decision::Deny;
            part.reason = Some("a variable set for one command needs a rule that spells it".into());
        }
        (part, exact)
    }

    /// Applies the rules: the last match wins. `texts` are what allow rules must
    /// cover (in any style), `denied_texts` what deny rules may match besides.
    /// Also says whether the deciding rule spells the whole command.
    fn by_rules(
        &self,
        display: String,
        span: Span,
        texts: &Texts,
        denied_texts: &Texts,
        with_prefixes: Option<&Command>,
    ) -> (Part, bool) {
        let mut matched: Vec<&Rule> = Vec::new();
        let mut deciding: Option<&Rule> = None;
        let mut decision = Decision::Deny;
        for rule in self.policy.live_rules() {
            if rule.is_redirect() {
                continue;
            }
            let whole = || texts.quoted.iter().any(|t| rule.pattern.covers(t));
            let covers = || match with_prefixes {
                Some(command) if !rule.pattern.is_exact() && !rule.pattern.is_star() => {
                    covers_by_parts(rule, command, denied_texts)
                }
                _ => whole(),
            };
            let could_match = || texts.all().chain(denied_texts.all()).any(|t| rule.pattern.could_match(t));
            // Of all that bash may fill in, the worst counts. To ask is to withhold, so
            // it reaches as far as a deny; but where it is not sure to match, it does
            // not soften what stood before.
            let matches = match rule.action {
                Action::Allow => covers(),
                Action::Ask => covers() || decision == Decision::Allow && could_match(),
                Action::Deny => could_match(),
            };
            if matches {
                matched.push(rule);
                deciding = Some(rule);
                decision = rule.action.into();
            }
        }
        let exact = deciding.is_some_and(|r| r.pattern.is_exact());
        let part = Part {
            command: display,
            span: self.span(span),
            depth: self.depth,
            decision,
            rule: deciding.map(|r| r.pattern().to_owned()),
            matched: matched.iter().map(|r| r.pattern().to_owned()).collect(),
            reason: None,
        };
        (part, exact)
    }

    /// Points 11 and 12; `None` for a redirection that is free.
    fn redirect(&self, redirect: &Redirect) -> Option<Part> {
        let target = redirect.target.as_ref()?;
        if redirect.usage == RedirectUse::Inert {
            return None;
        }
        let display = format!("{} {}", redirect.operator, target.display());
        let literal = target.literal();
        if let Some(text) = &literal
            && matches!(text.as_str(), "/dev/null" | "/dev/stdout" | "/dev/stderr")
        {
            return None;
        }
        let may_be_network = match &literal {
            Some(text) => is_network(text),
            None => {
                let head = target.literal_head();
                is_network(&head) || "/dev/tcp/".starts_with(&head) || "/dev/udp/".starts_with(&head)
            }
        };
        if may_be_network && !self.trusts {
            return Some(self.denied(display, redirect.span, "/dev/tcp and /dev/udp open the network"));
        }
        if redirect.usage == RedirectUse::Read {
            return None;
        }
        if !self.trusts {
            let Some(text) = &literal else {
                return Some(self.denied(display, redirect.span, "the target of a write must be literal"));
            };
            if text.split('/').any(|part| part == "..") {
                return Some(self.denied(display, redirect.span, "the target of a write may not hold '..'"));
            }
        }
        let mut tokens: Vec<Token> = "> ".chars().map(Token::Char).collect();
        match &literal {
            Some(text) => tokens.extend(text.chars().map(Token::Char)),
            None => tokens.push(Token::Gap),
        }
        let matched: Vec<&Rule> = self
            .policy
            .live_rules()
            .iter()
            .filter(|r| r.is_redirect() || r.pattern.is_star())
            .filter(|r| match r.action {
                // Under a strict policy the target is literal, so the two are the same.
                Action::Allow | Action::Ask => r.pattern.covers(&tokens),
                Action::Deny => r.pattern.could_match(&tokens),
            })
            .collect();
        let deciding = matched.last();
        Some(Part {
            command: display,
            span: self.span(redirect.span),
            depth: self.depth,
            decision: deciding.map_or(Decision::Deny, |r| r.action.into()),
            rule: deciding.map(|r| r.pattern().to_owned()),
            matched: matched.iter().map(|r| r.pattern().to_owned()).collect(),
            reason: deciding
                .is_none()
                .then(|| "writing to a file needs a rule that starts with '> '".to_owned()),
        })
    }

    /// An assignment that stands alone; `None` for one that is free.
    fn assignment(&self, assignment: &Assignment) -> Option<Part> {
        let name = &assignment.name;
        let reason = if assignment.evaluates() {
            evaluates(name)
        } else if is_steering(name) {
            format!("setting {name} steers what other commands do")
        } else if self.policy.env_names.contains(name) {
            format!("{name} is in the environment of the commands; setting it would change it for them")
        } else {
            return None;
        };
        let text = self.line.get(assignment.span.start..assignment.span.end).unwrap_or(name);
        Some(self.denied(text.to_owned(), assignment.span, &reason))
    }
}

/// Whether a rule such as `FOO=* cat *` covers a command with prefixes. Its words are held
/// against theirs, or the `*` of a value would reach over the command's name.
fn covers_by_parts(rule: &Rule, command: &Command, bare: &Texts) -> bool {
    let mut rest = rule.pattern();
    for prefix in 0..command.prefixes.len() {
        let Some((word, after)) = rest.split_once(' ') else { return false };
        let pattern = Pattern::new(word);
        let fits = |style| pattern.covers(&command.prefix_tokens(prefix, style));
        if !assigns(word) || !(fits(Style::Double) || fits(Style::Single)) {
            return false;
        }
        rest = after;
    }
    let pattern = Pattern::of_rule(rest);
    let first = rest.split(' ').next().unwrap_or_default();
    !assigns(first) && !first.starts_with('*') && bare.quoted.iter().any(|t| pattern.covers(t))
}

/// Whether a pattern's word is `NAME=…`.
pub(crate) fn assigns(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let name = name.strip_suffix('+').unwrap_or(name);
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

fn evaluates(name: &str) -> String {
    format!("bash evaluates what is assigned to {name} as arithmetic; only a number may be assigned to it")
}

fn is_network(text: &str) -> bool {
    let collapsed: String =
        text.split('/').filter(|p| !p.is_empty() && *p != ".").collect::<Vec<_>>().join("/");
    ["dev/tcp", "dev/udp"].iter().any(|p| collapsed == *p || collapsed.starts_with(&format!("{p}/")))
}

/// The forms in which rules see a command.
struct Texts {
    /// Words that need quotes are quoted: what an allow rule must cover.
    quoted: Vec<Vec<Token>>,
    /// Further forms a deny rule also applies to: no quotes, no directory.
    loose: Vec<Vec<Token>>,
}

impl Texts {
    fn all(&self) -> impl Iterator<Item = &Vec<Token>> {
        self.quoted.iter().chain(&self.loose)
    }
}

fn texts(command: &Command, with_prefixes: bool) -> Texts {
    let command = programs::globals::behind(command);
    let mut quoted = vec![command.tokens(Style::Double, with_prefixes)];
    // Only words that need quotes look different from style to style.
    let has_quotes = command.words.iter().any(Word::holds_blank)
        || command.prefixes.iter().any(|p| p.value.as_ref().is_some_and(Word::holds_blank));
    let in_folder = command.words.first().is_some_and(|w| w.literal_head().contains('/'));
    if !has_quotes && !in_folder {
        return Texts { quoted, loose: Vec::new() };
    }
    let single = command.tokens(Style::Single, with_prefixes);
    if single != quoted[0] {
        quoted.push(single);
    }
    let mut loose = vec![command.tokens(Style::Bare, with_prefixes)];
    for style in [Style::Double, Style::Single, Style::Bare] {
        loose.extend(command.tokens_without_directory(style));
    }
    loose.retain(|t| !quoted.contains(t));
    Texts { quoted, loose }
}
