//! What a command rule means: may this line of shell text run, and why.
//!
//! The crate is a pure function from (rules, line) to a [`Verdict`]. It does no
//! I/O: where `bash -n` must have the last word on syntax, the verdict says so
//! ([`RunText::check_syntax`]) and the runner asks bash. `docs/policy.md` is the
//! specification; the point numbers in comments are its.

mod attack;
mod cross;
mod exec;
mod judge;
mod limits;
mod lint;
mod names;
mod pattern;
mod posix;
mod presets;
mod printing;
mod programs;
mod quote;
mod repair;
mod rules;
mod script;
mod started;
mod suggest;
mod typed;
mod verdict;

pub use attack::Passing;
pub use exec::{Exec, ExecDenial, ExecVerdict, Image};
pub use limits::{MAX_DEPTH, MAX_LINE_BYTES};
pub use names::is_steering;
pub use presets::{PRESETS, Preset, preset};
pub use programs::helpers_of;
pub use programs::own::{TableError, Tables};
pub use rules::{Action, Children, Named, Note, NoteKind, Policy, Rule, RuleError, RuleText};
pub use suggest::{Learned, Suggestion, Suggestions, learn, suggest};
pub use verdict::{Decision, Part, RunText, Span, Verdict};

/// The tables of programs, as text (point 18).
pub fn tables() -> &'static str {
    &programs::TABLES_TEXT
}

/// Reads the tables of programs, once: a process that is forked later has them.
pub fn prepare() {
    programs::prepare();
}

/// Entry points for fuzzing, where an internal disagreement is the finding.
#[doc(hidden)]
pub mod fuzzing {
    /// Parses `line` with both parsers; says whether they agree on its commands.
    pub fn parsers_agree(line: &str) -> Option<bool> {
        crate::limits::check(line).ok()?;
        let script = crate::typed::parse(line, false).ok()?;
        Some(crate::cross::commands(line).is_ok_and(|other| script.signature() == other))
    }

    /// Whether a text passes as SQL that only looks, for each dialect that is read.
    pub fn sql(text: &str) -> [(&'static str, bool); 3] {
        crate::programs::sql_passes(text)
    }

    /// The same by the other parser.
    pub fn other_signature(line: &str) -> Result<Vec<String>, String> {
        crate::cross::commands(line)
    }

    /// The commands and redirections of a line in which nothing is refused.
    pub fn signature(line: &str) -> Option<Vec<String>> {
        crate::limits::check(line).ok()?;
        let script = crate::typed::parse(line, false).ok()?;
        script.refused.is_empty().then(|| script.signature())
    }

    /// The printing of a line in which nothing is refused.
    pub fn printed(line: &str) -> Option<String> {
        crate::limits::check(line).ok()?;
        let script = crate::typed::parse(line, false).ok()?;
        script.refused.is_empty().then_some(script.printed)
    }
}
