//! Properties of the judgement over generated lines.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use legwork_policy::{Decision, Policy, fuzzing};
use proptest::prelude::*;

fn strict() -> Policy {
    Policy::from_pairs([("*", "deny"), ("ls *", "allow"), ("echo *", "allow"), ("> out/*", "allow")]).unwrap()
}

/// Lines made of the pieces that shells disagree about.
fn line() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "ls", "echo", "rm", " ", "  ", ";", "&", "&&", "|", "||", "\n", "'", "\"", "\\", "$", "`", "(", ")",
        "{", "}", "$(", "${", "((", "))", "[[", "]]", "<", ">", "<<", "<<<", ">&", "2>&1", "EOF", "x=1", "#",
        "!", "if", "then", "fi", "for", "in", "do", "done", "case", "esac", "a", "*", "~", "-n", "$x", "\t",
        "=", "é",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

fn bash_accepts(text: &str) -> bool {
    let mut bash = std::process::Command::new("/bin/bash");
    let checked = bash.args(["--noprofile", "--norc", "-n", "-c", text]).env_clear().output().unwrap();
    checked.status.success() && checked.stderr.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn judging_never_panics_and_spans_lie_in_the_line(text in line()) {
        let verdict = strict().judge(&text);
        for part in &verdict.parts {
            prop_assert!(part.span.start <= part.span.end && part.span.end <= text.len());
        }
        prop_assert_eq!(verdict.decision == Decision::Allow, verdict.message().is_none());
        prop_assert_eq!(verdict.decision == Decision::Deny, verdict.run.is_none());
    }

    #[test]
    fn the_printing_is_read_as_the_line_was(text in line()) {
        // What bash itself does not accept is never run, whatever the parsers make of it.
        if let Some(printed) = fuzzing::printed(&text).filter(|_| bash_accepts(&text)) {
            // What of an empty here-document is read is `/dev/null`.
            let seen = |text: &str| {
                let seen = fuzzing::signature(text).unwrap();
                // A here-document becomes a here-string.
                let of_documents = |s: &String| s == "\u{4}<\u{3}/dev/null" || s.starts_with("\u{4}<<<");
                seen.into_iter().filter(|s| !of_documents(s)).collect::<Vec<_>>()
            };
            let (before, after) = (seen(&text), seen(&printed));
            prop_assert_eq!(before, after, "{:?} became {:?}", text, printed);
            let again = fuzzing::printed(&printed);
            prop_assert_eq!(again.as_deref(), Some(printed.as_str()));
        }
    }
}

/// Bash runs what was judged: a line allowed under rules for `echo` alone, run
/// with every other command made to shout, never shouts.
#[test]
fn an_allowed_line_runs_nothing_but_what_was_allowed() {
    use proptest::strategy::ValueTree;
    let policy = Policy::from_pairs([("*", "deny"), ("echo *", "allow")]).unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut ran = 0;
    for _ in 0..20_000 {
        let text = line().new_tree(&mut runner).unwrap().current();
        let verdict = policy.judge(&text);
        let Some(run) = verdict.run.filter(|_| verdict.decision == Decision::Allow) else { continue };
        ran += 1;
        // Nothing but builtins can be found, so `ls` and `rm` land in the handler.
        let output = std::process::Command::new("/bin/bash")
            .args(["--noprofile", "--norc", "-c", &run.text])
            .env_clear()
            .env("PATH", "/nonexistent")
            .env("BASH_FUNC_command_not_found_handle%%", "() { builtin echo \"SHOUT $1\" >&2; }")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("SHOUT"), "{text:?} ran {stderr}");
    }
    assert!(ran > 100, "only {ran} lines were allowed and run");
}
