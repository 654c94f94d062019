//! What was denied, for the command's result.

use legwork_policy::ExecDenial;
use serde::{Deserialize, Serialize};

/// Denials that are kept; further ones are only counted.
const MOST: usize = 16;
/// Bytes of them as they are stored: the report has a block of its own size.
const MOST_BYTES: usize = 2500;
/// Bytes of one text.
const MOST_TEXT: usize = 160;

/// An exec that was denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The program, as it was called.
    pub program: String,
    /// The command as it was matched, its end left out where it is long.
    pub command: String,
    /// The rule that decided, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it may not run, in words for people.
    pub reason: String,
    /// What would allow it; empty where nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (", self.command)?;
        if let Some(rule) = &self.rule {
            write!(f, "rule '{rule}': ")?;
        }
        f.write_str(&self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        f.write_str(")")
    }
}

impl Denial {
    pub(super) fn new(program: &str, denial: ExecDenial) -> Self {
        Self {
            program: bounded(program),
            command: bounded(&denial.command),
            rule: denial.rule.as_deref().map(bounded),
            reason: bounded(&denial.reason),
            remedy: bounded(&denial.remedy),
        }
    }

    /// One that no rule decided on.
    pub(super) fn always(program: &str, reason: impl Into<String>) -> Self {
        let reason = bounded(&reason.into());
        Self { program: bounded(program), command: bounded(program), reason, ..Self::default() }
    }
}

/// The beginning of a text, without what a terminal would act upon.
fn bounded(text: &str) -> String {
    let mut kept = String::new();
    for c in text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }) {
        if kept.len() + c.len_utf8() > MOST_TEXT {
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    kept
}

/// The denials of a command, each kind once.
#[derive(Debug, Default)]
pub(super) struct Denied {
    list: Vec<Denial>,
    bytes: usize,
    more: u32,
}

impl Denied {
    pub(super) fn add(&mut self, denial: Denial) {
        let same =
            |d: &Denial| (&d.program, &d.rule, &d.reason) == (&denial.program, &denial.rule, &denial.reason);
        if self.list.iter().any(same) {
            return;
        }
        let bytes = serde_json::to_string(&denial).map_or(MOST_BYTES, |text| text.len() + 1);
        if self.list.len() < MOST && self.bytes + bytes <= MOST_BYTES {
            self.bytes += bytes;
            self.list.push(denial);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub(super) fn list(&self) -> (Vec<Denial>, u32) {
        (self.list.clone(), self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_denials_fits_into_the_report() {
        let mut denied = Denied::default();
        for i in 0..1000 {
            denied.add(Denial::always(&format!("prog{i}\u{1b}[2J\"{}", "\u{7}".repeat(400)), "no rule\n"));
            denied.add(Denial::always("the same", "again"));
        }
        let (list, more) = denied.list();
        assert!(list.len() > 2 && list.len() + more as usize == 1001, "{} {more}", list.len());
        let text = serde_json::to_string(&list).expect("text");
        assert!(text.len() <= MOST_BYTES + 2, "{}", text.len());
        assert!(!text.contains("\\u00"));
    }
}
