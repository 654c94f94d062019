//! Builtins whose arguments name variables or hold arithmetic (21, 22).

use std::collections::BTreeSet;

use super::{Refusal, refuse, refuse_always, refuse_variable};
use crate::script::Word;

/// Whether bash carries out a command of this name itself.
pub(crate) fn is_builtin(name: &str) -> bool {
    const NAMES: &[&str] = &[
        ".",
        ":",
        "[",
        "alias",
        "bg",
        "bind",
        "break",
        "builtin",
        "caller",
        "cd",
        "command",
        "compgen",
        "complete",
        "compopt",
        "continue",
        "declare",
        "dirs",
        "disown",
        "echo",
        "enable",
        "eval",
        "exec",
        "exit",
        "export",
        "false",
        "fc",
        "fg",
        "getopts",
        "hash",
        "help",
        "history",
        "jobs",
        "kill",
        "let",
        "local",
        "logout",
        "mapfile",
        "popd",
        "printf",
        "pushd",
        "pwd",
        "read",
        "readarray",
        "readonly",
        "return",
        "set",
        "shift",
        "shopt",
        "source",
        "suspend",
        "test",
        "times",
        "trap",
        "true",
        "type",
        "typeset",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "wait",
    ];
    NAMES.contains(&name)
}

pub(super) fn check(command: &str, args: &[Word], env_names: &BTreeSet<String>) -> Result<(), Refusal> {
    let names_variables = match command {
        "read" | "mapfile" | "readarray" | "getopts" | "unset" | "wait" => true,
        "printf" => match args.first() {
            Some(first) if first.literal_head().starts_with("-v") => true,
            Some(first) if first.literal().is_none() && first.could_start_with_dash() => {
                return refuse("a computed format could be an option with which printf sets a variable");
            }
            _ => false,
        },
        "declare" | "typeset" | "local" | "export" | "readonly" => true,
        "test" | "[" => return check_test(command, args),
        "jobs" => {
            let lists = |a: &Word| a.literal().is_some_and(|t| !t.starts_with('-') || !t.contains('x'));
            if args.iter().all(lists) {
                return Ok(());
            }
            return refuse_always("jobs -x runs a command");
        }
        "history" => {
            let looks = |a: &Word| {
                a.literal()
                    .is_some_and(|t| !t.is_empty() && (t == "-c" || t.bytes().all(|b| b.is_ascii_digit())))
            };
            if args.iter().all(looks) {
                return Ok(());
            }
            return refuse_always(
                "only `history`, `history N` and `history -c`: the others read or write files",
            );
        }
        "set" => {
            let harmless = |a: &Word| {
                a.literal().is_some_and(|t| {
                    matches!(t.as_str(), "pipefail" | "-o" | "+o")
                        || (t.len() > 1
                            && t.starts_with(['-', '+'])
                            && t[1..].chars().all(|c| "euxfvCo".contains(c)))
                })
            };
            if args.iter().all(harmless) {
                return Ok(());
            }
            return refuse_always("only -e, -u, -x, -f, -v, -C and -o pipefail may be set");
        }
        _ => false,
    };
    if !names_variables {
        return Ok(());
    }
    args.iter().try_for_each(|arg| check_name(command, arg, env_names))?;
    // What is exported reaches every program that is started after it.
    let flags = |arg: &Word| arg.literal().is_some_and(|t| t.starts_with('-') && t.contains('x'));
    if command == "export"
        || matches!(command, "declare" | "typeset" | "local" | "readonly") && args.iter().any(flags)
    {
        for arg in args {
            let head = arg.literal_head();
            let name = head.split(['=', '+']).next().unwrap_or_default();
            if !head.starts_with(['-', '+']) && !crate::names::is_harmless(name) {
                return refuse_variable(name);
            }
        }
    }
    Ok(())
}

/// An argument that may name a variable.
fn check_name(command: &str, arg: &Word, env_names: &BTreeSet<String>) -> Result<(), Refusal> {
    let declares = matches!(command, "declare" | "local" | "typeset" | "readonly" | "export");
    // A job or a process: `$!` holds digits, if anything.
    if command == "wait" && arg.could_be_only_digits() {
        return Ok(());
    }
    let Some(text) = arg.literal() else {
        let head = arg.literal_head();
        if let Some((name, _)) = head.split_once('=').filter(|_| declares && !arg.could_start_with_dash()) {
            return check_set(name.trim_end_matches('+'), None, env_names);
        }
        if head.contains('=') && command == "printf" && !arg.could_start_with_dash() {
            return Ok(());
        }
        return refuse_always(format!("a computed word names a variable for '{command}'"));
    };
    let name = text.split(['=', '+']).next().unwrap_or_default();
    if declares && text.starts_with(['-', '+']) {
        if text[1..].chars().any(|c| !"gxraApf".contains(c)) {
            return refuse_always(format!("'{command} {text}' makes later assignments be evaluated"));
        }
        return Ok(());
    }
    if name.contains('[') {
        return refuse_always(format!("'{command}' evaluates a subscript"));
    }
    // In a cluster, an option that takes a value ends it.
    if matches!(command, "mapfile" | "readarray")
        && let Some(cluster) = text.strip_prefix('-')
        && cluster.split(['d', 'n', 'O', 's', 'u', 'c']).next().is_some_and(|flags| flags.contains('C'))
    {
        return refuse_always("mapfile -C runs a command");
    }
    // An option's argument may be attached: `printf -vPATH`, `read -raPATH`.
    let steers = |name: &str| {
        crate::names::is_steering(name) || crate::names::is_integer(name) || env_names.contains(name)
    };
    if !declares
        && text.starts_with('-')
        && let Some(name) = (2..text.len()).filter_map(|i| text.get(i..)).find(|name| steers(name))
    {
        return refuse_always(format!("setting {name} steers what other commands do"));
    }
    match text.split_once('=') {
        Some((name, value)) if declares => check_set(name.trim_end_matches('+'), Some(value), env_names),
        _ if !declares && !text.starts_with('-') => check_set(name, None, env_names),
        _ => Ok(()),
    }
}

/// Whether a builtin may set a variable, to `value` if it is known.
fn check_set(name: &str, value: Option<&str>, env_names: &BTreeSet<String>) -> Result<(), Refusal> {
    if crate::names::is_integer(name) && !value.is_some_and(crate::names::is_number) {
        return refuse_always(format!("bash evaluates what is assigned to {name} as arithmetic"));
    }
    if crate::names::is_steering(name) || env_names.contains(name) {
        // An operator may have written out what it is set to.
        return refuse(format!("setting {name} steers what other commands do"));
    }
    Ok(())
}

/// `test -v NAME` evaluates a subscript in NAME: no such test may come about, whatever
/// bash computes. What the operator is depends on how many words there are (POSIX).
fn check_test(command: &str, args: &[Word]) -> Result<(), Refusal> {
    let mut args = args;
    if command == "["
        && let Some((last, rest)) = args.split_last()
        && last.literal().as_deref() == Some("]")
    {
        args = rest;
    }
    let is = |word: &Word, text: &str| word.literal().as_deref() == Some(text);
    while let Some((first, rest)) = args.split_first()
        && is(first, "!")
        && args.len() > 1
    {
        args = rest;
    }
    let evaluates = |word: &Word| word.could_be("-v") || word.could_be("-R");
    // Unquoted, an expansion may become several words or none, and then all shifts.
    let counted = args.iter().all(|word| !word.could_be_many());
    let fine = match args {
        [] | [_] => counted,
        [operator, _] if counted => !evaluates(operator),
        [left, operator, _] if counted => {
            // With a binary operator in the middle it is that test; `! -v x` is another.
            let binary = operator.literal().is_some_and(|text| BINARY.contains(&text.as_str()));
            binary || !evaluates(operator) && !left.could_be("!") && !left.could_be("(")
        }
        _ => !args.iter().any(evaluates),
    };
    if fine {
        Ok(())
    } else {
        refuse_always("-v evaluates its operand as an array subscript; quote the words")
    }
}

/// Operators of `test` that stand between two words.
const BINARY: &[&str] =
    &["=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef", "-a", "-o"];
