//! `sed`: its script may edit the stream, not run or write (point 19).

use super::{Finding, Refusal, refuse, refuse_computed};
use crate::script::Word;

pub(super) fn check(args: &[Word]) -> Finding {
    let mut scripts: Vec<String> = Vec::new();
    let mut operands: Vec<&Word> = Vec::new();
    let mut at = 0;
    let mut options = true;
    while let Some(word) = args.get(at) {
        at += 1;
        let Some(text) = word.literal() else {
            // GNU sed takes options after operands as well.
            if word.could_start_with_dash() && options {
                return refuse_computed(
                    "a computed word stands where 'sed' takes an option or its script",
                    false,
                );
            }
            operands.push(word);
            continue;
        };
        if !options || !text.starts_with('-') || text == "-" {
            operands.push(word);
            continue;
        }
        match text.as_str() {
            "--" => options = false,
            "--expression" => {
                scripts.push(next_script(args.get(at))?);
                at += 1;
            }
            // That it writes in place is for the table of options to say.
            "--quiet" | "--silent" | "--regexp-extended" | "--separate" | "--unbuffered" | "--null-data"
            | "--posix" | "--debug" | "--sandbox" | "--version" | "--help" | "--follow-symlinks"
            | "--in-place" => {}
            "--line-length" => at += 1,
            _ => {
                if let Some(script) = text.strip_prefix("--expression=") {
                    scripts.push(script.to_owned());
                } else if text.starts_with("--") {
                    if !text.starts_with("--in-place=") {
                        return refuse(format!("'sed' with {text} can load, run or write something else"));
                    }
                } else {
                    at += usize::from(cluster(&text, args.get(at), &mut scripts)?);
                }
            }
        }
    }
    if scripts.is_empty() {
        match operands.first().map(|w| w.literal()) {
            None => return Ok(Vec::new()),
            Some(Some(script)) => scripts.push(script),
            Some(None) => return refuse_computed("the script of 'sed' is computed", false),
        }
    }
    match check_script(&scripts.join("\n")) {
        Ok(()) => Ok(Vec::new()),
        Err(what) => refuse(format!("the script of 'sed' {what}")),
    }
}

/// A script in a word of its own.
fn next_script(word: Option<&Word>) -> Result<String, Refusal> {
    match word.and_then(Word::literal) {
        Some(script) => Ok(script),
        None => refuse_computed("the script of 'sed' is computed", false),
    }
}

/// `-nEe SCRIPT`, `-i.bak`; says whether the next word belongs to it.
fn cluster(text: &str, next: Option<&Word>, scripts: &mut Vec<String>) -> Result<bool, Refusal> {
    for (at, letter) in text.char_indices().skip(1) {
        let rest = &text[at + letter.len_utf8()..];
        match letter {
            'n' | 'E' | 'r' | 's' | 'u' | 'z' => {}
            // What follows is the suffix of the copy.
            'i' => return Ok(false),
            'l' => return Ok(rest.is_empty()),
            'e' if rest.is_empty() => {
                scripts.push(next_script(next)?);
                return Ok(true);
            }
            'e' => {
                scripts.push(rest.to_owned());
                return Ok(false);
            }
            _ => return refuse(format!("'sed' with {text} can load, run or write something else")),
        }
    }
    Ok(false)
}

struct Script {
    chars: Vec<char>,
    at: usize,
}

const UNCLEAR: &str = "can't be read surely; write it more plainly";

fn check_script(text: &str) -> Result<(), &'static str> {
    let mut script = Script { chars: text.chars().collect(), at: 0 };
    let mut depth = 0usize;
    while script.skip(|c| c.is_whitespace() || c == ';') {
        if script.peek() == Some('#') {
            script.skip_line();
            continue;
        }
        script.addresses()?;
        script.skip(|c| c == ' ' || c == '\t' || c == '!');
        let Some(command) = script.next() else { return Err(UNCLEAR) };
        match command {
            '{' => {
                depth += 1;
                continue;
            }
            '}' => depth = depth.checked_sub(1).ok_or(UNCLEAR)?,
            's' => {
                let delimiter = script.next().ok_or(UNCLEAR)?;
                script.part(delimiter, true)?;
                script.part(delimiter, false)?;
                while let Some(flag) = script.peek() {
                    match flag {
                        'g' | 'p' | 'i' | 'I' | 'm' | 'M' | '0'..='9' => script.at += 1,
                        'e' => return Err("runs a command (the flag e of s)"),
                        'w' => return Err("writes to a file (the flag w of s)"),
                        _ => break,
                    }
                }
            }
            'y' => {
                let delimiter = script.next().ok_or(UNCLEAR)?;
                script.part(delimiter, false)?;
                script.part(delimiter, false)?;
            }
            'a' | 'i' | 'c' => {
                // The text goes on while lines end in a backslash.
                let mut escaped = false;
                while let Some(c) = script.next() {
                    if c == '\n' && !escaped {
                        break;
                    }
                    escaped = c == '\\' && !escaped;
                }
                continue;
            }
            'b' | 't' | 'T' | ':' => {
                // Some seds read on after a label; so nothing may follow it.
                script.skip(|c| c == ' ' || c == '\t');
                script.skip(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.');
            }
            'r' | 'R' => {
                script.skip_line();
                continue;
            }
            'q' | 'Q' | 'l' | 'L' => {
                script.skip(|c| c == ' ' || c.is_ascii_digit());
            }
            '=' | 'd' | 'D' | 'g' | 'G' | 'h' | 'H' | 'n' | 'N' | 'p' | 'P' | 'x' | 'z' | 'F' => {}
            'e' => return Err("runs a command (e)"),
            'w' | 'W' => return Err("writes to a file (w)"),
            _ => return Err(UNCLEAR),
        }
        script.skip(|c| c == ' ' || c == '\t');
        match script.peek() {
            None | Some('\n' | ';' | '}' | '#') => {}
            Some(_) => return Err(UNCLEAR),
        }
    }
    if depth == 0 { Ok(()) } else { Err(UNCLEAR) }
}

impl Script {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Skips characters; says whether there is one left.
    fn skip(&mut self, which: impl Fn(char) -> bool) -> bool {
        while self.peek().is_some_and(&which) {
            self.at += 1;
        }
        self.peek().is_some()
    }

    fn skip_line(&mut self) {
        self.skip(|c| c != '\n');
    }

    fn addresses(&mut self) -> Result<(), &'static str> {
        if !self.address(false)? {
            return Ok(());
        }
        self.skip(|c| c == ' ' || c == '\t');
        if self.peek() == Some(',') {
            self.at += 1;
            self.skip(|c| c == ' ' || c == '\t');
            if !self.address(true)? {
                return Err(UNCLEAR);
            }
        }
        Ok(())
    }

    fn address(&mut self, second: bool) -> Result<bool, &'static str> {
        match self.peek() {
            Some('$') => self.at += 1,
            Some(c) if c.is_ascii_digit() || second && matches!(c, '+' | '~') => {
                self.at += 1;
                self.skip(|c| c.is_ascii_digit() || c == '~');
            }
            Some('/') => {
                self.at += 1;
                self.part('/', true)?;
                self.skip(|c| matches!(c, 'I' | 'M'));
            }
            Some('\\') => {
                self.at += 1;
                let delimiter = self.next().ok_or(UNCLEAR)?;
                self.part(delimiter, true)?;
                self.skip(|c| matches!(c, 'I' | 'M'));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads up to the delimiter. In a regular expression's brackets seds differ on
    /// what ends it.
    fn part(&mut self, delimiter: char, regex: bool) -> Result<(), &'static str> {
        if delimiter == '\n'
            || delimiter == '\\'
            || delimiter.is_ascii_alphanumeric()
            || !delimiter.is_ascii()
        {
            return Err(UNCLEAR);
        }
        let mut bracket: Option<usize> = None;
        loop {
            let at = self.at;
            let c = self.next().ok_or(UNCLEAR)?;
            if c == delimiter {
                return if bracket.is_some() { Err(UNCLEAR) } else { Ok(()) };
            }
            match c {
                // A backslash before the delimiter within brackets is read in two ways.
                '\\' => {
                    let escaped = self.next().ok_or(UNCLEAR)?;
                    if bracket.is_some() && escaped == delimiter {
                        return Err(UNCLEAR);
                    }
                    if bracket.is_some() {
                        self.at -= 1;
                    }
                }
                '\n' if regex => return Err(UNCLEAR),
                '\n' => return Err(UNCLEAR),
                // A class within brackets: `[:alpha:]`.
                '[' if bracket.is_some() && self.peek().is_some_and(|c| matches!(c, ':' | '.' | '=')) => {
                    let kind = self.next().ok_or(UNCLEAR)?;
                    loop {
                        let c = self.next().ok_or(UNCLEAR)?;
                        if c == delimiter || c == '\n' {
                            return Err(UNCLEAR);
                        }
                        if c == kind && self.peek() == Some(']') {
                            self.at += 1;
                            break;
                        }
                    }
                }
                '[' if regex && bracket.is_none() && delimiter != '[' => bracket = Some(at),
                ']' if bracket.is_some_and(|b| at > b + 1 && !(at == b + 2 && self.chars[b + 1] == '^')) => {
                    bracket = None;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_edit_pass_and_those_that_act_do_not() {
        for fine in [
            "s/a/b/g",
            "s|/usr|/opt|",
            "/^#/d",
            "1,5p",
            "$p",
            "/a/,/b/{s/x/y/;p}",
            "s/[^,]*,//2",
            "y/abc/xyz/",
            "10q",
            "1!G;h;$!d",
            ":a;N;$!ba;s/\\n/ /g",
            "/x/I d",
            "a\\\nsome text w file",
            "s/\\(.*\\)@\\(.*\\)/\\2 at \\1/",
            "2~3p",
            "/x/,+3d",
            "s/\\//-/g",
            "r /etc/hosts",
            "s/[[:space:]]*$//",
            ":a; s/x/y/; ta",
        ] {
            assert_eq!(check_script(fine), Ok(()), "{fine}");
        }
        for bad in [
            "e",
            "1e id",
            "s/a/id/e",
            "s/a/b/ge",
            "w out",
            "/x/w out",
            "s/a/b/w out",
            "s/a/b/gw out",
            "1,3W x",
            "p;e id",
            "{p;w x\n}",
            "s/[/]/x/;e",
            "a x\ne id",
            "s,a,b,;w x",
            "$!e id",
            "}",
            "s/a",
            "i\\\nx\ne id",
            "y/a/b/e",
            "ba e id",
            "b e id",
            ":a e id",
            "s/[[:alpha:]/]/x/;e",
            "s/a/b/\nw x",
            "\\,x,w y",
            "b;e id",
            "s\u{e9}a\u{e9}b\u{e9}e",
        ] {
            assert!(check_script(bad).is_err(), "{bad}");
        }
    }
}
