//! Text for a shell that is not bash, read by the few rules on which all of them agree:
//! words of plain characters, single quotes, double quotes without `$` and backquotes,
//! backslashes; between them `;`, `&`, `|`, `&&`, `||`, newlines, and redirections to
//! `/dev/null` or another descriptor. Dash has no `$'…'`, no `|&`, no `&>`, no here-strings
//! and no descriptors of two digits, so none of that is read here.

/// The words of each command of `text`, or why it can't be read in one way only.
pub(crate) fn commands(text: &str) -> Result<Vec<Vec<String>>, &'static str> {
    const OTHERWISE: &str = "text for a shell other than bash may hold only simple commands of literal words";
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    let end_word = |word: &mut Option<String>, commands: &mut Vec<Vec<String>>| {
        if let (Some(word), Some(command)) = (word.take(), commands.last_mut()) {
            command.push(word);
        }
    };
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => end_word(&mut word, &mut commands),
            '\n' | ';' | '&' | '|' => {
                end_word(&mut word, &mut commands);
                let doubled = c != '\n' && chars.peek() == Some(&c);
                if c == ';' && doubled || c != '\n' && matches!(chars.peek(), Some('>' | '<')) {
                    return Err(OTHERWISE);
                }
                if doubled {
                    chars.next();
                }
                // `|&`, `&&&`, `|||`.
                if c != '\n' && c != ';' && matches!(chars.peek(), Some('&' | '|' | ';' | '>')) {
                    return Err(OTHERWISE);
                }
                commands.push(Vec::new());
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(OTHERWISE),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some('\n') => {}
                            Some(c @ ('$' | '`' | '"' | '\\')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err(OTHERWISE),
                        },
                        Some('$' | '`') | None => return Err(OTHERWISE),
                        Some(c) => word.push(c),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(OTHERWISE),
            },
            '>' | '<' => {
                redirection(c, &mut word, &mut chars).ok_or(OTHERWISE)?;
            }
            '#' if word.is_none() => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '!' if word.is_none() && commands.last().is_some_and(Vec::is_empty) => match chars.peek() {
                Some(' ' | '\t') => {}
                _ => return Err(OTHERWISE),
            },
            '=' if commands.last().is_some_and(Vec::is_empty) => return Err(OTHERWISE),
            c if c.is_ascii_alphanumeric() || "_./,:=@%+-^#!".contains(c) || !c.is_ascii() => {
                word.get_or_insert_default().push(c);
            }
            _ => return Err(OTHERWISE),
        }
    }
    end_word(&mut word, &mut commands);
    commands.retain(|command| !command.is_empty());
    if commands.iter().any(|command| is_reserved(&command[0])) {
        return Err(OTHERWISE);
    }
    Ok(commands)
}

/// The rest of `2>&1`, `>/dev/null`, `</dev/null`; a digit before it may stand in `word`.
fn redirection(
    sign: char,
    word: &mut Option<String>,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Option<()> {
    match word.as_deref() {
        None => {}
        Some(digit) if digit.len() == 1 && digit.bytes().all(|b| b.is_ascii_digit()) => *word = None,
        // `a>b` is a word and a redirection to all; `12>x` is not.
        Some(_) => return None,
    }
    let mut target = String::new();
    if chars.next_if_eq(&'&').is_some() {
        let digit = chars.next_if(|c| c.is_ascii_digit())?;
        let _ = digit;
    } else {
        if sign == '>' {
            chars.next_if_eq(&'>');
        }
        while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || "/_.-".contains(*c)) {
            target.push(c);
        }
        if target != "/dev/null" {
            return None;
        }
    }
    matches!(chars.peek(), None | Some(' ' | '\t' | '\n' | ';' | '|' | '&')).then_some(())
}

/// Words that some shell takes for syntax where a command could stand.
fn is_reserved(word: &str) -> bool {
    matches!(
        word,
        "if" | "then"
            | "else"
            | "elif"
            | "fi"
            | "for"
            | "while"
            | "until"
            | "do"
            | "done"
            | "case"
            | "esac"
            | "in"
            | "select"
            | "function"
            | "time"
            | "coproc"
            | "!"
            | "{"
            | "}"
            | "[["
            | "]]"
            | "alias"
            | "unalias"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_shell_reads_alike_is_read() {
        for (text, expected) in [
            ("ls -la; wc -l 'a b' \"c\"", vec![vec!["ls", "-la"], vec!["wc", "-l", "a b", "c"]]),
            ("a && b || c | d &\ne", vec![vec!["a"], vec!["b"], vec!["c"], vec!["d"], vec!["e"]]),
            ("a 2>&1 >/dev/null < /dev/null # c", vec![vec!["a"]]),
            ("! a\\ b 'x'\\''y' \"\\$\"", vec![vec!["a b", "x'y", "$"]]),
            ("a ''", vec![vec!["a", ""]]),
        ] {
            assert_eq!(
                commands(text).as_deref(),
                Ok(expected.as_slice())
                    .map(|e: &[Vec<&str>]| {
                        e.iter()
                            .map(|c| c.iter().map(ToString::to_string).collect())
                            .collect::<Vec<Vec<String>>>()
                    })
                    .as_deref(),
                "{text}"
            );
        }
        for text in [
            "echo $'a'",
            "echo \"$x\"",
            "a |& b",
            "a &> f",
            "a 12>/dev/null",
            "a > f",
            "x=1 a",
            "(a)",
            "{ a; }",
            "if a; then b; fi",
            "a `b`",
            "a *",
            "a {b,c}",
            "a ~",
            "[[ a ]]",
            "a <<< b",
            "a &>/dev/null",
            "a 'b",
            "a \\",
            "time a",
            "a >&1x",
            "function a",
            "a;;b",
            "a\u{0}",
            "case a",
            "a <&-",
        ] {
            assert!(commands(text).is_err(), "{text}");
        }
    }
}
