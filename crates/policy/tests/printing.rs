//! The printing does in a real bash what the line does, and what no parser saw it does not
//! do: in any locale, and in dash.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};

use legwork_policy::{Decision, Policy, fuzzing};

/// What a shell that can start nothing prints: the names of programs with `SHOUT` before.
fn run(shell: &str, text: &str, locale: &str, locales: &Path) -> (String, Option<i32>) {
    let folder = tempfile_folder();
    let output = Command::new(shell)
        .args(if shell.ends_with("bash") { &["--noprofile", "--norc", "-c"][..] } else { &["-c"] })
        .arg(text)
        .env_clear()
        .env("PATH", "/nonexistent")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", locale)
        .env("LOCPATH", locales)
        .env("BASH_FUNC_command_not_found_handle%%", "() { builtin echo \"SHOUT $1\"; }")
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).replace(": not found", " SHOUT");
    let shouts = if shell.ends_with("dash") { errors } else { String::new() };
    (String::from_utf8_lossy(&output.stdout).into_owned() + &shouts, output.status.code())
}

/// An empty folder that no line can write to anything of use in.
fn tempfile_folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("printing-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn the_printing_does_what_the_line_does() {
    let lines = include_str!("printing.txt").lines().filter(|l| !l.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let line: String = serde_json::from_str(line).unwrap();
        let printed = fuzzing::printed(&line).unwrap_or_else(|| panic!("{line:?} is not printed"));
        let none = Path::new("/nonexistent");
        let (was, is) = (run("/bin/bash", &line, "C", none), run("/bin/bash", &printed, "C", none));
        assert_eq!(was, is, "{line:?}\nbecame {printed:?}");
        // Some quoted braces within expansions are read by bash alone.
        let again = fuzzing::printed(&printed).unwrap_or_else(|| printed.clone());
        assert_eq!(again, printed, "the printing of {line:?}, printed");
        count += 1;
    }
    assert!(count > 40, "only {count} lines");
}

/// Where a parser cuts a word elsewhere than bash does, a part of a test would be lost.
#[test]
fn a_test_that_is_cut_elsewhere_is_not_printed() {
    let mut refused = 0;
    for test in [
        "! ( -z {}\\' || {}\\' < b )",
        "-z {}\\' || {}\\' < b",
        "{}\\' || {}\\' < b",
        "-n {}\\' && {}\\' > b",
        "( {}\\' ) || ( {}\\' < b )",
        "{a\\' == {a\\' || a",
        "{}\\\" < {}\\\" || a",
    ] {
        let line = format!("[[ {test} ]]; echo $?");
        let Some(printed) = fuzzing::printed(&line) else {
            refused += 1;
            continue;
        };
        let none = Path::new("/nonexistent");
        let (was, is) = (run("/bin/bash", &line, "C", none), run("/bin/bash", &printed, "C", none));
        assert_eq!(was, is, "{line:?}\nbecame {printed:?}");
    }
    assert!(refused > 0, "the parser cuts as bash does: then nothing of this need be refused");
}

/// Braces are expanded before all else, by a reading of their own of what stands in quotes.
#[test]
fn braces_beside_quotes_within_expansions_mean_what_they_say_or_are_refused() {
    let (mut refused, mut same) = (0, 0);
    for word in [
        "\"${y##\"\\`\"}$1+'`owned`'}\"{1..3}",
        "\"${y##\"'\"}\"{a,b}",
        "${y:-'\"'}{a,b}",
        "\"${y%\\`}\"{a,b}'`'",
        "\"${y}\"{a,b}",
        "\"$(echo \"c d\")\"{a,b}",
        "'`'{1..3}\"`\"",
    ] {
        let line = format!("y=q; printf '<%s>' {word}");
        let Some(printed) = fuzzing::printed(&line) else {
            refused += 1;
            continue;
        };
        let none = Path::new("/nonexistent");
        let (was, is) = (run("/bin/bash", &line, "C", none), run("/bin/bash", &printed, "C", none));
        assert_eq!(was, is, "{line:?}\nbecame {printed:?}");
        same += 1;
    }
    assert!(refused >= 1 && same >= 2, "{refused} refused, {same} alike");
}

/// What the parser does not see, or bash reads by other rules in a here-document.
#[test]
fn what_only_bash_sees_is_refused_or_printed() {
    for line in [
        "case \\$ in \"\\$\") echo a;; *) echo b;; esac",
        "case x in \"\") echo a;; *) echo b;; esac",
        "y=\"é'\"\nwhile read -r l; do echo \"$l\"; done <<E\n\\$x\n${y%%$(echo 'x\\')}\nE\n",
        "y=ab; echo \"${y%%$(echo 'b\\')}\" \"${y%%$(echo b)}\"",
    ] {
        if let Some(printed) = fuzzing::printed(line) {
            let none = Path::new("/nonexistent");
            let (was, is) =
                (run("/bin/bash", line, "C.UTF-8", none), run("/bin/bash", &printed, "C.UTF-8", none));
            assert_eq!(was, is, "{line:?}\nbecame {printed:?}");
        }
    }
}

/// In some locales the last byte of a letter and a backslash are one character: a line then
/// means something else than it says, its printing does not.
#[test]
fn an_assignment_of_a_locale_does_not_change_what_later_lines_mean() {
    let folder = tempfile_folder();
    let made = Command::new("localedef")
        .args(["-i", "zh_CN", "-f", "GBK"])
        .arg(folder.join("zh_CN.gbk"))
        .output()
        .is_ok_and(|_| folder.join("zh_CN.gbk/LC_CTYPE").exists());
    let policy = Policy::from_pairs([("*", "deny"), ("echo *", "allow")]).unwrap();
    for line in [
        "LC_ALL=zh_CN.gbk\necho \"丁\\\"; owned #\"",
        "LC_ALL=zh_CN.gbk; { echo \"丁\\\"; owned #\"; }",
        "LANG=zh_CN.gbk; LC_ALL=\necho \"丁\\$(owned)\"",
        "LC_CTYPE=zh_CN.gbk; LC_ALL=\necho \"丁\\`owned\\`\"",
        "LC_ALL=zh_CN.gbk\necho 丁\\\\$'\\n'\\;owned",
    ] {
        let verdict = policy.judge(line);
        let Some(run_text) = verdict.run else { continue };
        let (output, _) = run("/bin/bash", &run_text.text, "C.UTF-8", &folder);
        assert!(!output.contains("SHOUT"), "{line:?} as {:?}: {output}", run_text.text);
        // Bash reads a line at a time, so only a later line is read by the new locale.
        if made && line.contains("\necho \"") && line.contains("; owned") {
            let (control, _) = run("/bin/bash", line, "C.UTF-8", &folder);
            assert!(control.contains("SHOUT"), "the line by itself shows the effect: {control}");
        }
    }
}

/// Dash has no `$'…'`: what is allowed for `sh -c` does there what was judged.
#[test]
fn text_for_sh_means_in_dash_what_was_judged() {
    let policy = Policy::from_pairs([("*", "deny"), ("sh *", "allow"), ("echo *", "allow")]).unwrap();
    let mut allowed = 0;
    for text in [
        "echo $'a\\'; owned #'",
        "echo \"$'a\\\"; owned #'\"",
        "echo a; echo 'b c'",
        "echo a &> /dev/null; owned",
        "echo \\\nowned",
        "echo a |& owned",
        "echo 'a'\\''; owned'",
        "echo a 2>&1 | echo b",
        "echo a 10>&1",
        "echo <<< owned",
        "((owned))",
        "echo {owned,b}",
        "echo \"a\\\nb\"",
        "echo a#b # owned",
        "time owned",
        "echo a>&2",
        "! echo a",
    ] {
        let line = format!("sh -c '{}'", text.replace('\'', "'\\''"));
        if policy.judge(&line).decision == Decision::Allow {
            allowed += 1;
            let (output, _) = run("/bin/dash", text, "C", Path::new("/nonexistent"));
            assert!(!output.contains("owned SHOUT") && !output.contains("SHOUT owned"), "{text:?}: {output}");
        }
    }
    assert!(allowed >= 5, "only {allowed} are allowed");
}
