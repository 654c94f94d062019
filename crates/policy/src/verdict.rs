//! The answer to a line, as a value.

use serde::Serialize;

use crate::rules::Action;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Every part may run.
    Allow,
    /// No part is denied, but at least one needs a person's approval.
    Ask,
    /// At least one part may not run.
    Deny,
}

impl From<Action> for Decision {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Ask => Self::Ask,
            Action::Deny => Self::Deny,
        }
    }
}

/// A byte range of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Index of its first byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

/// One judged command, redirection, assignment or construct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The matched text (point 7); an unknown argument is shown as written.
    pub command: String,
    /// Where it stands in the line; what a wrapper runs stands where the wrapper does.
    pub span: Span,
    /// How many wrappers or scripts it is within.
    pub depth: usize,
    /// What was decided about it.
    pub decision: Decision,
    /// A word is computed of which some value could be allowed: the start of the program (or
    /// the opening of the file) decides.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_exec: bool,
    /// The rule that decided, if one did.
    pub rule: Option<String>,
    /// Every rule that matched, in file order.
    pub matched: Vec<String>,
    /// Why, where a point of the policy decided and not a rule.
    pub reason: Option<String>,
}

/// The text that is to be run for an allowed line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunText {
    /// What `bash --noprofile --norc -c` gets.
    pub text: String,
    /// `text` is the printing of what was judged, not the line.
    pub reprinted: bool,
    /// The shell itself opens files for writing that rules tell apart: each must be judged by
    /// where its path really leads, when it is opened ([`crate::Policy::judge_write`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub computed_writes: bool,
    /// `bash -n` must accept `text` before it runs.
    pub check_syntax: bool,
    /// Script text that the line's commands run in turn (`bash -c TEXT`): `bash -n`
    /// must accept each of it as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<String>,
}

/// The decision on a line, with everything that led to it (point 25).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What was decided.
    pub decision: Decision,
    /// The part that decided.
    pub deciding: Option<Part>,
    /// Every judged part, in the order of the line.
    pub parts: Vec<Part>,
    /// What runs, if the decision lets it.
    pub run: Option<RunText>,
    /// Some part is decided only when it happens, by the exec gate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_exec: bool,
    /// The whole message, where no part could be judged (empty, unparsable).
    pub failure: Option<String>,
    /// A line that does the same and passes, where one is known ([`crate::Policy::judge_and_repair`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Verdict {
    /// A line that could not be judged, and so is denied.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            decision: Decision::Deny,
            deciding: None,
            parts: Vec::new(),
            run: None,
            at_exec: false,
            failure: Some(message.into()),
            suggestion: None,
        }
    }

    /// A line denied as a whole, for a reason.
    pub(crate) fn refused(line: &str, reason: impl Into<String>) -> Self {
        let part = Part {
            command: line.trim().to_owned(),
            span: Span { start: 0, end: line.len() },
            depth: 0,
            decision: Decision::Deny,
            at_exec: false,
            rule: None,
            matched: Vec::new(),
            reason: Some(reason.into()),
        };
        Self::from_parts(vec![part], None)
    }

    /// The strictest part decides; among equals the first.
    pub(crate) fn from_parts(parts: Vec<Part>, run: Option<RunText>) -> Self {
        let decision = parts.iter().map(|p| p.decision).max().unwrap_or(Decision::Deny);
        let deciding = parts.iter().find(|p| p.decision == decision).cloned();
        let run = run.filter(|_| decision != Decision::Deny);
        let at_exec = decision != Decision::Deny && parts.iter().any(|p| p.at_exec);
        Self { decision, deciding, parts, run, at_exec, failure: None, suggestion: None }
    }

    /// The patterns of the rules by which parts of the line ask.
    pub fn asks(&self) -> impl Iterator<Item = &str> {
        let asking = self.parts.iter().filter(|part| part.decision == Decision::Ask);
        asking.filter_map(|part| part.rule.as_deref())
    }

    /// The rule that decided, if one did.
    pub fn rule(&self) -> Option<&str> {
        self.deciding.as_ref()?.rule.as_deref()
    }

    /// The error a caller sees for a line that does not run, `None` if allowed.
    pub fn message(&self) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        let part = self.deciding.as_ref()?;
        let text = match (self.decision, &part.rule) {
            (Decision::Allow, _) => return None,
            (Decision::Ask, rule) => format!(
                "command denied by rule '{}': {} (it needs a person's approval, and no hub that \
                 offers approvals is connected)",
                rule.as_deref().unwrap_or_default(),
                part.command
            ),
            (Decision::Deny, Some(rule)) => {
                format!("command denied by rule '{rule}': {}", part.command)
            }
            (Decision::Deny, None) => {
                format!("command denied (no matching allow rule): {}", part.command)
            }
        };
        let mut text = match &part.reason {
            Some(reason) => format!("{text} ({reason})"),
            None => text,
        };
        if let Some(suggestion) = &self.suggestion {
            text.push_str("; write instead: ");
            text.push_str(suggestion);
        }
        Some(text)
    }
}
