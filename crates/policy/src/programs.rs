//! What is known about programs that can run, load or write something else
//! (points 15 to 22). The knowledge is data: `programs.txt`.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use crate::script::{Frag, Word};

/// How a program can do more than its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Wrapper,
    Shell,
    Never,
    Interpreter,
    Options { options: Vec<&'static str>, computed_pass: bool },
}

static TABLE: LazyLock<HashMap<&'static str, Kind>> = LazyLock::new(|| {
    let mut table = HashMap::new();
    for line in include_str!("programs.txt").lines() {
        let mut words = line.split_whitespace();
        let (Some(kind), names) = (words.next(), words) else { continue };
        let simple = match kind {
            "wrapper" => Kind::Wrapper,
            "shell" => Kind::Shell,
            "never" => Kind::Never,
            "interpreter" => Kind::Interpreter,
            "option" | "listed" => {
                let mut names = names;
                if let Some(name) = names.next() {
                    let computed_pass = kind == "listed";
                    table.insert(name, Kind::Options { options: names.collect(), computed_pass });
                }
                continue;
            }
            _ => continue,
        };
        for name in names {
            table.insert(name, simple.clone());
        }
    }
    table
});

/// Why a command may not run even though a rule allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// A rule that spells the whole command lifts the refusal.
    pub(crate) lifted_by_exact_rule: bool,
}

fn refuse(reason: impl Into<String>) -> Option<Refusal> {
    Some(Refusal { reason: reason.into(), lifted_by_exact_rule: true })
}

fn refuse_always(reason: impl Into<String>) -> Option<Refusal> {
    Some(Refusal { reason: reason.into(), lifted_by_exact_rule: false })
}

/// The name a program goes by in the table: without directory, and without the
/// version some carry (`python3.11`).
fn base_name(command: &str) -> &str {
    let name = command.rsplit('/').next().unwrap_or(command);
    let trimmed = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    if TABLE.contains_key(name) || trimmed.is_empty() { name } else { trimmed }
}

/// What to tell an operator who wrote a rule for `program`.
pub(crate) fn load_note(program: &str, exact: bool) -> Option<&'static str> {
    match TABLE.get(base_name(program))? {
        Kind::Interpreter => Some("is a rule for everything: this program runs any code it is given"),
        Kind::Wrapper | Kind::Shell if !exact => Some(
            "has no effect: this program runs others, so only a rule that spells the whole \
             command, without '*', allows it",
        ),
        Kind::Never => Some("has no effect: this builtin changes how later text is read"),
        _ => None,
    }
}

/// Checks a command against the table, whatever the rules say. `env_names` are the
/// variables that commands inherit: to set one is to change it for them.
pub(crate) fn check(words: &[Word], env_names: &BTreeSet<String>) -> Option<Refusal> {
    let command = words.first()?.literal()?;
    let args = &words[1..];
    if let Some(refusal) = check_builtin(&command, args, env_names) {
        return Some(refusal);
    }
    match TABLE.get(base_name(&command))? {
        Kind::Interpreter => None,
        Kind::Wrapper => refuse(format!(
            "'{command}' can run other commands; only a rule that spells the whole command allows it"
        )),
        Kind::Shell => refuse(format!(
            "'{command}' reads script text; only a rule that spells the whole command allows it"
        )),
        Kind::Never => refuse_always(format!("'{command}' changes how later text is read")),
        Kind::Options { options, computed_pass } => check_options(&command, args, options, *computed_pass),
    }
}

fn check_options(command: &str, args: &[Word], options: &[&str], computed_pass: bool) -> Option<Refusal> {
    for arg in args {
        let Some(text) = arg.literal() else {
            if computed_pass {
                continue;
            }
            if arg.could_start_with_dash() {
                return refuse(format!(
                    "a computed word could be an option with which '{command}' runs or writes \
                     something else; start it with a literal such as ./"
                ));
            }
            // The unknown tail of a literal option is as bad as the option.
            let head = arg.literal_head();
            if let Some(option) =
                options.iter().find(|o| is_option(&head, o) || o.starts_with(&head) && head.starts_with('-'))
            {
                return refuse(format!("'{command}' with {option} can run or write something else"));
            }
            continue;
        };
        if let Some(option) = options.iter().find(|o| is_option(&text, o)) {
            return refuse(format!("'{command}' with {option} can run or write something else"));
        }
    }
    None
}

/// Whether an argument is an option, in any of the ways getopt lets it be spelt.
fn is_option(arg: &str, option: &str) -> bool {
    if arg == option {
        return true;
    }
    if let Some(long) = option.strip_prefix("--") {
        let Some(name) = arg.strip_prefix("--") else { return false };
        let name = name.split('=').next().unwrap_or(name);
        return !name.is_empty() && long.starts_with(name);
    }
    let Some(short) = option.strip_prefix('-') else {
        // `dd of=…`, `ip netns …`
        return arg.split('=').next() == Some(option);
    };
    if short.chars().count() == 1 {
        // Anywhere in a cluster: `tar -xIprog`.
        return arg.starts_with('-') && !arg.starts_with("--") && arg[1..].contains(short);
    }
    false
}

/// Builtins whose arguments name variables or hold arithmetic.
fn check_builtin(command: &str, args: &[Word], env_names: &BTreeSet<String>) -> Option<Refusal> {
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
            return None;
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
                return None;
            }
            return refuse_always("only -e, -u, -x, -f, -v, -C and -o pipefail may be set");
        }
        _ => false,
    };
    if !names_variables {
        return None;
    }
    for arg in args {
        let Some(text) = arg.literal() else {
            if matches!(command, "export" | "declare" | "local" | "readonly" | "typeset" | "printf")
                && !arg.could_start_with_dash()
                && arg.literal_head().contains('=')
            {
                continue;
            }
            return refuse_always(format!("a computed word names a variable for '{command}'"));
        };
        let name = text.split(['=', '+']).next().unwrap_or_default();
        let declares = matches!(command, "declare" | "local" | "typeset" | "readonly" | "export");
        if declares && text.starts_with(['-', '+']) {
            if text[1..].chars().any(|c| !"gxraApf".contains(c)) {
                return refuse_always(format!("'{command} {text}' makes later assignments be evaluated"));
            }
            continue;
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
    }
    None
}

impl Word {
    /// Whether the word could begin with a dash once bash has filled it in.
    fn could_start_with_dash(&self) -> bool {
        match self.frags.first() {
            None => false,
            Some(Frag::Lit(text)) => text.starts_with('-') || text.is_empty(),
            Some(Frag::Glob(text)) => !text.starts_with('~'),
            Some(Frag::Unknown { .. }) => true,
        }
    }

    /// Whether the word could come out as `text`.
    fn could_be(&self, text: &str) -> bool {
        match self.literal() {
            Some(literal) => literal == text,
            None => text.starts_with(&self.literal_head()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_however_they_are_spelt() {
        for (arg, option, found) in [
            ("-exec", "-exec", true),
            ("-e", "-exec", false),
            ("--checkpoint-action=exec=id", "--checkpoint-action", true),
            ("--checkpoint-act=exec=id", "--checkpoint-action", true),
            ("--check", "--checkpoint-action", true),
            ("--", "--checkpoint-action", false),
            ("-xIid", "-I", true),
            ("--interactive", "-I", false),
            ("of=/dev/sda", "of", true),
            ("if=x", "of", false),
        ] {
            assert_eq!(is_option(arg, option), found, "{arg} {option}");
        }
    }

    #[test]
    fn versions_and_directories_do_not_hide_a_program() {
        assert_eq!(base_name("/usr/bin/env"), "env");
        assert_eq!(base_name("python3.11"), "python");
        assert_eq!(base_name("../bin/bash"), "bash");
        assert_eq!(base_name("ls"), "ls");
    }
}
