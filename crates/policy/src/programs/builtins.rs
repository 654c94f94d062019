//! Builtins whose arguments name variables or hold arithmetic (21, 22).

use std::collections::BTreeSet;

use super::{Refusal, refuse, refuse_always};
use crate::script::Word;

/// Whether bash carries out a command of this name itself.
pub(super) fn is_builtin(name: &str) -> bool {
    const NAMES: &[&str] = &[
        ":",
        "[",
        "break",
        "cd",
        "continue",
        "declare",
        "dirs",
        "disown",
        "echo",
        "exit",
        "export",
        "false",
        "fg",
        "bg",
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
        "suspend",
        "test",
        "times",
        "trap",
        "true",
        "type",
        "typeset",
        "ulimit",
        "umask",
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
                return refuse("a computed format could be the option -v; write printf -- FORMAT");
            }
            _ => false,
        },
        "declare" | "typeset" | "local" | "export" | "readonly" => true,
        "test" | "[" => {
            if args.iter().any(|a| a.could_be("-v") || a.could_be("-R")) {
                return refuse_always("-v evaluates its operand as an array subscript");
            }
            return Ok(());
        }
        "jobs" if args.iter().any(|a| a.literal_head().starts_with("-x") || a.literal().is_none()) => {
            return refuse_always("jobs -x runs a command");
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
    args.iter().try_for_each(|arg| check_name(command, arg, env_names))
}

/// An argument that may name a variable.
fn check_name(command: &str, arg: &Word, env_names: &BTreeSet<String>) -> Result<(), Refusal> {
    let declares = matches!(command, "declare" | "local" | "typeset" | "readonly" | "export");
    let Some(text) = arg.literal() else {
        let has_name = !arg.could_start_with_dash() && arg.literal_head().contains('=');
        if has_name && (declares || command == "printf") {
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
    if matches!(command, "mapfile" | "readarray") && text.starts_with("-C") {
        return refuse_always("mapfile -C runs a command");
    }
    // An option's argument may be attached: `printf -vPATH`, `read -raPATH`.
    let steers = |name: &str| crate::names::is_steering(name) || env_names.contains(name);
    if !declares
        && text.starts_with('-')
        && let Some(name) = (2..text.len()).filter_map(|i| text.get(i..)).find(|name| steers(name))
    {
        return refuse_always(format!("setting {name} steers what other commands do"));
    }
    let sets_name = declares && text.contains('=') || !declares && !text.starts_with('-');
    if sets_name && steers(name) {
        return refuse_always(format!("setting {name} steers what other commands do"));
    }
    Ok(())
}
