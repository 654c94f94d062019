//! `awk`: its program may look, not run or write (point 19).
//!
//! The program is split into tokens as far as it takes to tell code from strings and
//! regular expressions. Where awks differ on that, the program is refused.

use super::{Finding, refuse, refuse_computed};
use crate::script::Word;

pub(super) fn check(name: &str, args: &[Word]) -> Finding {
    let mut at = 0;
    let mut programs = Vec::new();
    while let Some(word) = args.get(at) {
        let head = word.literal_head();
        if word.literal().is_none() && (head.is_empty() || !head.starts_with('-')) {
            break;
        }
        if head == "--" {
            at += 1;
            break;
        }
        if !head.starts_with('-') || head == "-" {
            break;
        }
        at += 1;
        match head.as_str() {
            "-F" | "-v" | "--field-separator" | "--assign" => {
                if args.get(at).is_some_and(Word::could_be_many) {
                    return refuse_computed(
                        format!("a computed word stands where '{name}' takes an option or its program"),
                        false,
                    );
                }
                at += 1;
            }
            "-e" | "--source" => match args.get(at).map(Word::literal) {
                Some(Some(text)) => {
                    programs.push(text);
                    at += 1;
                }
                _ => return refuse_computed(format!("the program of '{name}' is computed"), false),
            },
            "-b"
            | "-c"
            | "-C"
            | "-g"
            | "-h"
            | "-M"
            | "-n"
            | "-N"
            | "-O"
            | "-P"
            | "-r"
            | "-s"
            | "-S"
            | "-t"
            | "-V"
            | "--posix"
            | "--traditional"
            | "--re-interval"
            | "--sandbox"
            | "--version"
            | "--characters-as-bytes" => {}
            _ if head.starts_with("-F")
                || head.starts_with("-v")
                || head.starts_with("--field-separator=")
                || head.starts_with("--assign=") =>
            {
                if word.could_be_many() {
                    return refuse_computed(
                        format!("a computed word stands where '{name}' takes an option or its program"),
                        false,
                    );
                }
            }
            _ => {
                return refuse(format!(
                    "'{name}' with {head}, an option that can load, run or write something else"
                ));
            }
        }
    }
    if programs.is_empty() {
        match args.get(at).map(Word::literal) {
            None => return Ok(Vec::new()),
            Some(Some(text)) => programs.push(text),
            Some(None) => return refuse_computed(format!("the program of '{name}' is computed"), false),
        }
    }
    match programs.iter().try_for_each(|program| check_program(program)) {
        Ok(()) => Ok(Vec::new()),
        Err(what) => refuse(format!("the program of '{name}' {what}")),
    }
}

/// What the token before says of a slash: is it a division or a regular expression?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Operand,
    Operator,
    /// After `)`, by what opened the parenthesis; after `++`: awks differ.
    Unclear,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// `(` of if, while or for: a statement follows its end.
    Condition,
    Group,
    Brace,
    Bracket,
}

fn check_program(program: &str) -> Result<(), &'static str> {
    const UNCLEAR: &str = "can't be read surely; write it more plainly";
    let chars: Vec<char> = program.chars().collect();
    let mut at = 0;
    let mut before = Before::Operator;
    let mut open: Vec<Open> = Vec::new();
    // The depth at which a print statement stands, while it lasts.
    let mut printing: Option<usize> = None;
    let mut condition = false;
    // The last character of code: after some a statement goes on in the next line.
    let mut last = ' ';
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        at += 1;
        let was_condition = std::mem::take(&mut condition);
        let goes_on = c == '\n' && matches!(last, ',' | '&' | '|' | '?' | ':');
        if !c.is_whitespace() && c != '#' && c != '\\' {
            last = c;
        }
        match c {
            ' ' | '\t' => condition = was_condition,
            '\r' => return Err(UNCLEAR),
            '\\' if next == Some('\n') => at += 1,
            '\n' | ';' => {
                before = Before::Operator;
                if !goes_on && printing.is_some_and(|depth| open.len() <= depth) {
                    printing = None;
                }
            }
            '#' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '"' => {
                let start = at;
                at = string_end(&chars, at).ok_or(UNCLEAR)?;
                let text: String = chars[start..at].iter().collect();
                if text.contains("/inet") || text.contains("/dev/tcp") {
                    return Err("opens the network");
                }
                before = Before::Operand;
            }
            '/' => match before {
                Before::Operator => {
                    at = regex_end(&chars, at).ok_or(UNCLEAR)?;
                    before = Before::Operand;
                }
                Before::Operand => before = Before::Operator,
                Before::Unclear => return Err(UNCLEAR),
            },
            '(' => {
                open.push(if was_condition { Open::Condition } else { Open::Group });
                before = Before::Operator;
            }
            '{' => {
                open.push(Open::Brace);
                printing = None;
                before = Before::Operator;
            }
            '[' => {
                open.push(Open::Bracket);
                before = Before::Operator;
            }
            ')' | '}' | ']' => {
                before = match (c, open.pop()) {
                    (')', Some(Open::Condition)) | ('}', Some(Open::Brace)) => Before::Operator,
                    (')', Some(Open::Group)) | (']', Some(Open::Bracket)) => Before::Operand,
                    _ => return Err(UNCLEAR),
                };
                if c == '}' {
                    printing = None;
                }
            }
            '|' if next == Some('|') => {
                at += 1;
                before = Before::Operator;
            }
            '|' => return Err("has a pipe, which runs a command"),
            '>' if printing == Some(open.len()) => {
                at = standard_stream(&chars, at).ok_or("writes to a file")?;
                before = Before::Operand;
            }
            '@' => return Err("loads or calls something by a computed name"),
            '+' | '-' if next == Some(c) => {
                at += 1;
                before = Before::Unclear;
            }
            '`' | '\'' | '\0' => return Err(UNCLEAR),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let start = at - 1;
                while at < chars.len() && (chars[at].is_ascii_alphanumeric() || chars[at] == '_') {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                before = Before::Operand;
                match word.as_str() {
                    "system" => return Err("calls system, which runs a command"),
                    "print" | "printf" => {
                        printing = Some(open.len());
                        before = Before::Operator;
                    }
                    "if" | "while" | "for" => condition = true,
                    // Syntax to some awks, names to others: a slash after them is read in two ways.
                    "switch" | "case" | "default" | "func" | "BEGINFILE" | "ENDFILE" | "nextfile"
                    | "length" | "fflush" | "delete" => before = Before::Unclear,
                    "else" | "do" | "return" | "in" | "exit" | "BEGIN" | "END" | "function" => {
                        before = Before::Operator;
                    }
                    "getline" => before = Before::Unclear,
                    _ => {}
                }
            }
            c if c.is_ascii_digit() || c == '.' => before = Before::Operand,
            '$' | '!' | '~' | '=' | '<' | '>' | '&' | ',' | '?' | ':' | '*' | '%' | '^' | '+' | '-' => {
                before = Before::Operator;
            }
            '\\' => return Err(UNCLEAR),
            c if c.is_ascii() => return Err(UNCLEAR),
            _ => return Err(UNCLEAR),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(UNCLEAR) }
}

/// The index after `"/dev/stderr"` or `"/dev/stdout"`, if that is all that stands there.
fn standard_stream(chars: &[char], at: usize) -> Option<usize> {
    let rest: String = chars[at..].iter().collect();
    let text = rest.strip_prefix('>').unwrap_or(&rest).trim_start_matches([' ', '\t']);
    let after = ["\"/dev/stderr\"", "\"/dev/stdout\""].iter().find_map(|name| text.strip_prefix(name))?;
    let next = after.trim_start_matches([' ', '\t']).chars().next();
    matches!(next, None | Some(';' | '}' | '\n')).then(|| chars.len() - after.chars().count())
}

/// The index after a string's end.
fn string_end(chars: &[char], mut at: usize) -> Option<usize> {
    loop {
        match chars.get(at)? {
            '"' => return Some(at + 1),
            '\n' => return None,
            '\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The index after a regular expression's end. A slash within brackets ends it for
/// some awks and not for others.
fn regex_end(chars: &[char], mut at: usize) -> Option<usize> {
    let mut bracket: Option<usize> = None;
    loop {
        match chars.get(at)? {
            '\n' => return None,
            '\\' => at += 1,
            '/' if bracket.is_some() => return None,
            '/' => return Some(at + 1),
            '[' if bracket.is_none() => bracket = Some(at),
            // Right after `[` or `[^` it is a plain character.
            ']' if bracket.is_some_and(|b| at > b + 1 && !(at == b + 2 && chars[b + 1] == '^')) => {
                bracket = None
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_look_pass_and_those_that_act_do_not() {
        for fine in [
            "{print $1}",
            "NR>1 && $3 > 100 {print $1, $2}",
            "/error|warn/ {n++} END {print n}",
            "BEGIN{FS=\":\"} $3>=1000 && $7 !~ /nologin/ {print $1}",
            "{s+=$1} END {print s/NR}",
            "{print ($1 > 5)}",
            "{ if ($1 ~ /a\\/b/) print \"x | y > z\" }",
            "!seen[$0]++",
            "{a[$1]=a[$1]\" \"$2} END {for (k in a) printf \"%s:%s\\n\", k, a[k]}",
            "$0 ~ /^[^#]/ { gsub(/[\"']/, \"\"); print }",
            "{ while ((getline line < \"/etc/hosts\") > 0) n++ }",
            "{print $2/1024 \"MB\"}",
            "{print \"x\" > \"/dev/stderr\"; n++}",
            "{x = $1 > 2 ? \"a\" : \"b\"; print x} # | system()",
        ] {
            // A single quote can't stand in a word quoted by single quotes, but awk
            // itself has none: the line above is refused for it.
            let expected = !fine.contains('\'') || fine.contains("[\"']");
            assert_eq!(check_program(fine).is_ok(), expected, "{fine}: {:?}", check_program(fine));
        }
        for bad in [
            "BEGIN{system(\"id\")}",
            "BEGIN{\"id\" | getline x}",
            "{print | \"sh\"}",
            "{print > \"out\"}",
            "{print $1 >> \"out\"}",
            "{printf(\"x\") > \"out\"}",
            "{print \"x\" > \"/dev/stderr\" \"y\"}",
            "{print(1)(2) > \"out\"}",
            "BEGIN { print \"x\" |& \"cat\" }",
            "@load \"x\"",
            "BEGIN { f = \"system\"; @f(\"id\") }",
            "{ a / system(\"id\") / b }",
            "{ x++ /\"/ ; system(\"id\") ; /\"/ }",
            "{ if (x) /\"/ ; system(\"id\") ; /\"/ }",
            "/[/]\"/ ; BEGIN{system(\"id\")} /\"/",
            "BEGIN { getline < \"/inet/tcp/0/h/1\" }",
            "BEGIN{printf \"x\\\n\" > \"f\"}",
            "{print \"a\",\n$1 > \"f\"}",
            "{print 1 && # c\n 2 > \"f\"}",
            "{print \"a\"\n}{print \"a",
            "BEGIN{case / system(\"id\") / 1}",
            "BEGIN{ switch (1) / system(\"id\") / 1 }",
            "BEGIN{func / system(\"id\") / 1}",
            "BEGIN{ print 1 ?\n\"x\" : \"y\" > \"f\" }",
            "BEGIN{ print 1 ? \"x\" :\n \"y\" > \"f\" }",
        ] {
            assert!(check_program(bad).is_err(), "{bad}");
        }
    }
}
