//! What `strace` saw: every process, and every program it executed.

use std::collections::HashMap;

use crate::plain::Image;

/// One execution.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    pub(crate) image: Image,
    /// The images above it, nearest first, down to the line's own shell, which is left out.
    pub(crate) ancestors: Vec<Image>,
    /// Why it did not happen.
    pub(crate) error: Option<String>,
}

/// Reads a log of `strace -f -o`. The first execution is the runner's own of the shell, and
/// is left out.
pub(crate) fn read(log: &str) -> Vec<Exec> {
    let calls = calls(log);
    let mut parent_of: HashMap<&str, &str> = HashMap::new();
    for (pid, call) in &calls {
        if is_fork(call)
            && let Some(child) = result(call).and_then(|text| text.split_whitespace().next())
            && child.parse::<u32>().is_ok_and(|child| child > 0)
        {
            parent_of.insert(child, pid);
        }
    }
    // What each process has executed so far, first to last.
    let mut images: HashMap<&str, Vec<Image>> = HashMap::new();
    let mut found = Vec::new();
    let mut shell: Option<&str> = None;
    for (pid, call) in &calls {
        if !call.starts_with("execve") {
            continue;
        }
        let Some(image) = image(call) else { continue };
        let result = result(call).unwrap_or_default();
        let error = (!result.starts_with('0')).then(|| result.to_owned());
        if shell.is_none() && error.is_none() {
            shell = Some(pid);
            images.insert(pid, Vec::new());
            continue;
        }
        let mut ancestors: Vec<Image> =
            images.get(*pid).map(|own| own.iter().rev().cloned().collect()).unwrap_or_default();
        let mut at = *pid;
        // The line's shell is nobody's child here: its parent executed nothing.
        for _ in 0..64 {
            let Some(parent) = parent_of.get(at) else { break };
            at = parent;
            ancestors.extend(images.get(at).into_iter().flatten().rev().cloned());
        }
        if error.is_none() {
            images.entry(pid).or_default().push(image.clone());
        }
        found.push(Exec { image, ancestors, error });
    }
    found
}

/// Whole calls with their process: what was written in two parts is put together.
fn calls(log: &str) -> Vec<(&str, String)> {
    let mut open: HashMap<&str, &str> = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(pid, begin);
        } else if rest.starts_with("<... ") {
            if let (Some(begin), Some((_, end))) = (open.remove(pid), rest.split_once(" resumed>")) {
                calls.push((pid, format!("{begin}{end}")));
            }
        } else {
            calls.push((pid, rest.to_owned()));
        }
    }
    calls
}

fn is_fork(call: &str) -> bool {
    ["clone(", "clone3(", "fork(", "vfork("].iter().any(|name| call.starts_with(name))
}

fn result(call: &str) -> Option<&str> {
    call.rsplit_once(" = ").map(|(_, result)| result.trim())
}

/// Path and arguments of `execve("path", ["a", "b"], …)`.
fn image(call: &str) -> Option<Image> {
    let (_, rest) = call.split_once('"')?;
    let (path, rest) = string(rest);
    let Some((_, mut rest)) = rest.split_once('[') else {
        return Some(Image { path, argv: Vec::new() });
    };
    let mut argv = Vec::new();
    while let Some(after) = rest.strip_prefix('"') {
        let (word, after) = string(after);
        argv.push(word);
        rest = after.strip_prefix("...").unwrap_or(after);
        match rest.strip_prefix(", ") {
            Some(next) => rest = next,
            None => break,
        }
    }
    Some(Image { path, argv })
}

/// A quoted string of strace's, after its first quote; and what follows it.
fn string(text: &str) -> (String, &str) {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return (String::from_utf8_lossy(&out).into_owned(), &text[at + 1..]),
            b'\\' => {
                at += 1;
                match bytes.get(at) {
                    Some(b'n') => out.push(b'\n'),
                    Some(b't') => out.push(b'\t'),
                    Some(b'r') => out.push(b'\r'),
                    Some(b'f') => out.push(0x0c),
                    Some(b'v') => out.push(0x0b),
                    Some(b'0'..=b'7') => {
                        let len =
                            bytes[at..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                        out.push(u8::from_str_radix(&text[at..at + len], 8).unwrap_or(b'?'));
                        at += len - 1;
                    }
                    Some(other) => out.push(*other),
                    None => break,
                }
            }
            other => out.push(other),
        }
        at += 1;
    }
    (String::from_utf8_lossy(&out).into_owned(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_with_who_ran_what() {
        let log = r#"10 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID) = 11
11 execve("/usr/bin/bash", ["/usr/bin/bash", "--noprofile", "--norc", "-c", "x"], 0x1 /* 3 vars */) = 0
11 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>
12 execve("/usr/bin/env", ["env", "a\"b\303\244\n", "", "c"...], 0x1 /* 3 vars */ <unfinished ...>
11 <... clone resumed>, child_tidptr=0x7f) = 12
12 <... execve resumed>) = 0
12 execve("/usr/bin/ls", ["ls"], 0x1 /* 3 vars */) = -1 EACCES (Permission denied)
12 execve("/usr/bin/true", ["true"], 0x1 /* 3 vars */) = 0
12 +++ exited with 0 +++
"#;
        let execs = read(log);
        let names: Vec<(&str, bool, usize)> =
            execs.iter().map(|e| (e.image.name(), e.error.is_none(), e.ancestors.len())).collect();
        assert_eq!(names, [("env", true, 0), ("ls", false, 1), ("true", true, 1)]);
        assert_eq!(execs[0].image.argv, ["env", "a\"bä\n", "", "c"]);
        assert_eq!(execs[2].ancestors[0].name(), "env");
    }
}
