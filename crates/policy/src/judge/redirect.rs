//! Redirections to and from files (points 11 and 12).

use super::Judge;
use crate::pattern::Token;
use crate::rules::{Action, Rule};
use crate::script::{Redirect, RedirectUse};
use crate::verdict::{Decision, Part};

impl Judge<'_> {
    /// `None` for a redirection that is free.
    pub(super) fn redirect(&mut self, redirect: &Redirect) -> Option<Part> {
        let target = redirect.target.as_ref()?;
        if redirect.usage == RedirectUse::Inert {
            return None;
        }
        let display = format!("{} {}", redirect.operator, target.display());
        let literal = target.literal();
        if let Some(text) = &literal
            && matches!(text.as_str(), "/dev/null" | "/dev/stdout" | "/dev/stderr")
        {
            // Script text is not printed anew, so there it is opened by its path.
            self.computed_writes |= self.policy.exec_gate && self.within.is_some() && text != "/dev/null";
            return None;
        }
        let may_be_network = match &literal {
            Some(text) => is_network(text),
            None if redirect.no_network => false,
            None => match self.known.texts(target) {
                Some(texts) => texts.iter().any(|text| is_network(text)),
                None => {
                    let head = target.literal_head();
                    is_network(&head) || "/dev/tcp/".starts_with(&head) || "/dev/udp/".starts_with(&head)
                }
            },
        };
        if may_be_network && !self.trusts {
            let reason = match literal {
                Some(_) => "/dev/tcp and /dev/udp open the network",
                None => {
                    "bash computes the file, which could be one beneath /dev/tcp or /dev/udp, and those open the \
                     network; write its path out"
                }
            };
            return Some(self.denied(display, redirect.span, reason));
        }
        if redirect.usage == RedirectUse::Read {
            return None;
        }
        // What the shell opens for writing is judged then, if its path is computed.
        let at_exec = literal.is_none() && self.gate;
        if !self.trusts {
            if literal.is_none() && !at_exec {
                return Some(self.denied(display, redirect.span, "the target of a write must be literal"));
            }
            if literal.iter().any(|text| text.split('/').any(|part| part == "..")) {
                return Some(self.denied(display, redirect.span, "the target of a write may not hold '..'"));
            }
        }
        let mut tokens: Vec<Token> = "> ".chars().map(Token::Char).collect();
        match &literal {
            Some(text) => tokens.extend(text.chars().map(Token::Char)),
            None => tokens.push(Token::Gap),
        }
        let matched: Vec<&Rule> = self
            .live
            .iter()
            .filter(|r| r.is_redirect() || r.pattern.is_star())
            .filter(|r| match r.action {
                Action::Allow if at_exec => r.pattern.could_match(&tokens),
                // Without the gate the target is literal, so the two are the same.
                Action::Allow | Action::Ask => r.pattern.covers(&tokens),
                Action::Deny if at_exec => r.pattern.covers(&tokens),
                Action::Deny => r.pattern.could_match(&tokens),
            })
            .collect();
        let deciding = matched.last();
        let decision = deciding.map_or(Decision::Deny, |r| r.action.into());
        let rule = deciding.map(|r| r.pattern().to_owned());
        let reason =
            deciding.is_none().then(|| "writing to a file needs a rule that starts with '> '".to_owned());
        let matched = matched.iter().map(|r| r.pattern().to_owned()).collect();
        let narrow = rule.as_deref() != Some("*");
        // A link leads elsewhere than its path says, and so does a path after `cd`.
        let everywhere = rule.as_deref() == Some("> *") || !narrow;
        let mut taken_away = self.live.iter().filter(|r| r.action != Action::Allow);
        let somewhere = !everywhere || taken_away.any(Rule::is_redirect);
        self.computed_writes |= self.policy.exec_gate && somewhere && decision == Decision::Allow;
        Some(Part {
            command: display,
            span: self.span(redirect.span),
            depth: self.depth,
            decision,
            at_exec: at_exec && narrow,
            rule,
            matched,
            reason,
        })
    }
}

fn is_network(text: &str) -> bool {
    let collapsed: String =
        text.split('/').filter(|p| !p.is_empty() && *p != ".").collect::<Vec<_>>().join("/");
    ["dev/tcp", "dev/udp"].iter().any(|p| collapsed == *p || collapsed.starts_with(&format!("{p}/")))
}
