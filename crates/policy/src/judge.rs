//! The judgement: every part of a line against the rules.

use crate::names::{is_free_prefix, is_steering};
use crate::pattern::Token;
use crate::rules::{Action, Policy, Rule};
use crate::script::{Assignment, Command, Redirect, RedirectUse, Script, Style};
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
    let unconditional = trusts && policy.live_rules().len() == 1;
    let script = match typed::parse(line) {
        Ok(script) => script,
        // Where everything is allowed only bash's own word on syntax is needed.
        Err(_) if unconditional => Script::default(),
        Err(cause) => return Verdict::failed(format!("failed to parse command: {cause}")),
    };
    let run = match script.canonical.clone().filter(|_| !unconditional) {
        Some(text) => RunText { text, reprinted: true, check_syntax: false },
        None => RunText { text: line.to_owned(), reprinted: false, check_syntax: !is_plain(line) },
    };
    if unconditional {
        let part = Part {
            command: line.trim().to_owned(),
            span: Span { start: 0, end: line.len() },
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
    if !trusts {
        match cross::commands(line) {
            Ok(other) if other == script.signature() => {}
            Ok(_) => {
                return Verdict::refused(
                    line,
                    "two parsers disagree on what this line runs; write it more plainly",
                );
            }
            Err(cause) => {
                return Verdict::refused(line, format!("two parsers disagree on this line: {cause}"));
            }
        }
    }
    let mut parts = Judge { policy, line, trusts }.parts(&script);
    if parts.is_empty() {
        // A line of syntax alone, such as `((1))`.
        parts.push(Part {
            command: line.trim().to_owned(),
            span: Span { start: 0, end: line.len() },
            decision: Decision::Allow,
            rule: None,
            matched: Vec::new(),
            reason: None,
        });
    }
    parts.sort_by_key(|part| part.span.start);
    Verdict::from_parts(parts, Some(run))
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

struct Judge<'a> {
    policy: &'a Policy,
    line: &'a str,
    trusts: bool,
}

impl Judge<'_> {
    fn parts(&self, script: &Script) -> Vec<Part> {
        let mut parts: Vec<Part> = script.commands.iter().map(|c| self.command(c)).collect();
        parts.extend(script.redirects.iter().filter_map(|r| self.redirect(r)));
        if !self.trusts {
            parts.extend(script.assignments.iter().filter_map(|a| self.assignment(a)));
            parts.extend(script.refused.iter().map(|r| {
                let command = if r.text.is_empty() { self.line.trim().to_owned() } else { r.text.clone() };
                denied(command, r.span, &r.reason)
            }));
        }
        parts
    }

    fn command(&self, command: &Command) -> Part {
        let span = command.span;
        let display = command.display();
        if self.trusts {
            let texts = texts(command, false);
            return self.by_rules(display, span, &texts, &texts, false).0;
        }
        if command.words.first().is_some_and(|w| w.literal().is_none_or(|t| t.is_empty())) {
            return denied(display, span, "the command itself must be literal, not computed");
        }
        if let Some(prefix) = command.prefixes.iter().find(|p| is_steering(&p.name)) {
            let reason = format!("setting {} steers what other commands do", prefix.name);
            return denied(command.display_with_prefixes(), span, &reason);
        }
        // A prefix that is not free is allowed only by a rule for the whole text.
        let whole = command.prefixes.iter().any(|p| !is_free_prefix(&p.name));
        let bare = texts(command, false);
        let (mut part, exact) = if whole {
            let display = command.display_with_prefixes();
            self.by_rules(display, span, &texts(command, true), &bare, true)
        } else {
            self.by_rules(display, span, &bare, &bare, false)
        };
        if whole && part.decision != Decision::Deny && part.rule.is_none() {
            part.decision = Decision::Deny;
        }
        if whole && part.decision == Decision::Deny && part.rule.is_none() {
            part.reason = Some("a variable set for one command needs a rule that spells it".into());
        }
        if part.decision != Decision::Deny
            && let Some(refusal) = programs::check(&command.words, &self.policy.env_names)
            && !(exact && refusal.lifted_by_exact_rule)
        {
            return Part { decision: Decision::Deny, rule: None, reason: Some(refusal.reason), ..part };
        }
        part
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
        spelt_prefix: bool,
    ) -> (Part, bool) {
        let mut matched: Vec<&Rule> = Vec::new();
        for rule in self.policy.live_rules() {
            if rule.is_redirect() {
                continue;
            }
            let matches = match rule.action {
                Action::Allow => {
                    (!spelt_prefix || rule.pattern.as_str().contains('=') || rule.pattern.is_star())
                        && texts.quoted.iter().any(|t| rule.pattern.covers(t))
                }
                // To ask is to withhold: it reaches as far as a deny.
                Action::Ask | Action::Deny => {
                    texts.all().chain(denied_texts.all()).any(|t| rule.pattern.could_match(t))
                }
            };
            if matches {
                matched.push(rule);
            }
        }
        let deciding = matched.last();
        let exact = deciding.is_some_and(|r| r.pattern.is_exact());
        let part = Part {
            command: display,
            span,
            decision: deciding.map_or(Decision::Deny, |r| r.action.into()),
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
            return Some(denied(display, redirect.span, "/dev/tcp and /dev/udp open the network"));
        }
        if redirect.usage == RedirectUse::Read {
            return None;
        }
        if !self.trusts {
            let Some(text) = &literal else {
                return Some(denied(display, redirect.span, "the target of a write must be literal"));
            };
            if text.split('/').any(|part| part == "..") {
                return Some(denied(display, redirect.span, "the target of a write may not hold '..'"));
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
                Action::Allow => r.pattern.covers(&tokens),
                Action::Ask | Action::Deny => r.pattern.could_match(&tokens),
            })
            .collect();
        let deciding = matched.last();
        Some(Part {
            command: display,
            span: redirect.span,
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
        let reason = if is_steering(name) {
            format!("setting {name} steers what other commands do")
        } else if self.policy.env_names.contains(name) {
            format!("{name} is in the environment of the commands; setting it would change it for them")
        } else {
            return None;
        };
        let text = self.line.get(assignment.span.start..assignment.span.end).unwrap_or(name);
        Some(denied(text.to_owned(), assignment.span, &reason))
    }
}

fn denied(command: String, span: Span, reason: &str) -> Part {
    Part {
        command,
        span,
        decision: Decision::Deny,
        rule: None,
        matched: Vec::new(),
        reason: Some(reason.to_owned()),
    }
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
    let mut quoted = vec![command.tokens(Style::Double, with_prefixes)];
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
