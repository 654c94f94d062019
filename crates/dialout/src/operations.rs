//! Between the protocol's arguments and results and the runner's types.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::dialout::OutcomeWord;
use legwork_proto::dialout::operation::{
    BashArgs, BashResult, GlobArgs, GlobResult, GrepArgs, GrepMatch, GrepResult, ListArgs, ListEntry,
    ListResult, ReadArgs, ReadResult, Truncation, WriteArgs, WriteResult,
};
use legwork_runner::process::EndedBy;
use legwork_runner::{Bash, BashOutput, Done, Failure, Large, Operation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// A decoded request.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Bash(Bash),
    Other(Operation),
}

impl Work {
    /// Whether doing it twice would differ from doing it once.
    pub(crate) fn has_effects(&self) -> bool {
        matches!(self, Self::Bash(_) | Self::Other(Operation::Write { .. }))
    }
}

/// Decodes a request's arguments; the error is the task's.
pub(crate) fn decode(operation: &str, args: Option<&str>) -> Result<Work, String> {
    Ok(match operation {
        "bash" => {
            let args: BashArgs = parse(operation, args)?;
            let seconds = u64::try_from(args.timeout).unwrap_or(0);
            let timeout = if seconds == 0 { DEFAULT_TIMEOUT } else { Duration::from_secs(seconds) };
            Work::Bash(Bash { command: args.command, workdir: args.workdir, timeout })
        }
        "read" => {
            let args: ReadArgs = parse(operation, args)?;
            Work::Other(Operation::Read {
                path: args.path,
                offset: u64::try_from(args.offset).unwrap_or(0),
                limit: u64::try_from(args.limit).unwrap_or(0),
            })
        }
        "write" => {
            let args: WriteArgs = parse(operation, args)?;
            Work::Other(Operation::Write { path: args.path, data: decode_base64(&args.content)? })
        }
        "list" => {
            let args: ListArgs = parse(operation, args)?;
            Work::Other(Operation::List { path: args.path, recursive: args.recursive, ignore: args.ignore })
        }
        "glob" => {
            let args: GlobArgs = parse(operation, args)?;
            Work::Other(Operation::Glob { pattern: args.pattern })
        }
        "grep" => {
            let args: GrepArgs = parse(operation, args)?;
            Work::Other(Operation::Grep { pattern: args.pattern, include: args.include })
        }
        _ => return Err(format!("unknown operation: {operation}")),
    })
}

fn parse<T: DeserializeOwned + Default>(operation: &str, args: Option<&str>) -> Result<T, String> {
    let cause = match args {
        None => "unexpected end of JSON input".to_owned(),
        Some("null") => return Ok(T::default()),
        Some(text) if text.starts_with('{') => match serde_json::from_str(text) {
            Ok(args) => return Ok(args),
            Err(e) => e.to_string(),
        },
        Some(_) => "the arguments must be an object".to_owned(),
    };
    Err(format!("invalid {operation} args: {cause}"))
}

/// Standard base64 with padding; line breaks are skipped, as in Go.
fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let result = if text.contains(['\n', '\r']) {
        STANDARD.decode(text.replace(['\n', '\r'], ""))
    } else {
        STANDARD.decode(text)
    };
    result.map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
        };
        format!("failed to decode content: illegal base64 data at input byte {at}")
    })
}

/// A finished operation as its result object.
pub(crate) fn encode(done: Done) -> Box<RawValue> {
    match done {
        Done::Read(file) => {
            raw(&ReadResult { content: STANDARD.encode(&file.data), total_size: file.total_size })
        }
        Done::Write => raw(&WriteResult { success: true }),
        Done::List(entries) => raw(&ListResult {
            entries: entries
                .into_iter()
                .map(|e| ListEntry {
                    path: e.path.to_string_lossy().into_owned(),
                    is_dir: e.is_dir,
                    size: e.size,
                })
                .collect(),
        }),
        Done::Glob(paths) => {
            raw(&GlobResult { matches: paths.iter().map(|p| p.to_string_lossy().into_owned()).collect() })
        }
        Done::Grep { matches, text } => {
            let (content, truncation) = large(text);
            raw(&GrepResult {
                matches: matches
                    .into_iter()
                    .map(|m| GrepMatch {
                        path: format!("./{}", m.path.to_string_lossy()),
                        line_number: m.line_number,
                        content: m.content,
                    })
                    .collect(),
                content,
                truncation,
            })
        }
    }
}

/// A finished shell line as its result object, and how it ended.
pub(crate) fn encode_bash(output: BashOutput) -> (Box<RawValue>, OutcomeWord) {
    let (stdout, truncation) = large(output.stdout);
    let (exit_code, outcome) = match output.ended_by {
        Some(EndedBy::Timeout) => (124, OutcomeWord::TimedOut),
        Some(EndedBy::Cancel) => (-1, OutcomeWord::Cancelled),
        None => (output.exit_code.unwrap_or(-1), OutcomeWord::Exited),
    };
    (raw(&BashResult { stdout, stderr: output.stderr, exit_code, truncation }), outcome)
}

/// The result of a shell line that was cancelled before it started.
pub(crate) fn cancelled_bash() -> (Box<RawValue>, OutcomeWord) {
    let truncation = Truncation::default();
    let result = BashResult { stdout: String::new(), stderr: String::new(), exit_code: -1, truncation };
    (raw(&result), OutcomeWord::Cancelled)
}

/// A failure in the extension's word for it.
pub(crate) fn outcome_of(failure: &Failure) -> OutcomeWord {
    match failure {
        Failure::Denied(_) => OutcomeWord::Denied,
        Failure::Failed(_) => OutcomeWord::Failed,
        Failure::Lost(_) => OutcomeWord::Lost,
    }
}

fn large(text: Large) -> (String, Truncation) {
    let truncation =
        Truncation { truncated: text.truncated, file_path: text.file_path, total_size: text.total_size };
    (text.text, truncation)
}

fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    // Plain structs of strings and numbers always serialise.
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_fail_with_the_protocols_words() {
        for (operation, args, want) in [
            ("bash", None, "invalid bash args: unexpected end of JSON input"),
            ("defragment", Some("{}"), "unknown operation: defragment"),
            (
                "write",
                Some(r#"{"path":"x","content":"%%%"}"#),
                "failed to decode content: illegal base64 data at input byte 0",
            ),
            (
                "write",
                Some(r#"{"path":"x","content":"YWJj!"}"#),
                "failed to decode content: illegal base64 data at input byte 4",
            ),
            ("list", Some("[]"), "invalid list args: the arguments must be an object"),
        ] {
            assert_eq!(decode(operation, args).expect_err(operation), want);
        }
        assert!(
            decode("read", Some(r#"{"path":7}"#))
                .expect_err("type")
                .starts_with("invalid read args: invalid type")
        );
        assert!(matches!(decode("bash", Some("null")), Ok(Work::Bash(b)) if b.timeout == DEFAULT_TIMEOUT));
        assert!(matches!(
            decode("read", Some(r#"{"path":"a","offset":-5,"limit":-1,"new":null}"#)),
            Ok(Work::Other(Operation::Read { offset: 0, limit: 0, .. }))
        ));
    }
}
