//! What a change of a text changes, in lines, as `diff -u` shows it.

/// Lines around a change.
const CONTEXT: usize = 3;
/// Beyond so many pairs of lines, what lies between the first and the last difference is shown
/// as replaced as a whole.
const MAX_PAIRS: usize = 4_000_000;
/// So many lines are shown.
const MAX_LINES: usize = 2000;

/// One line of both texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// The difference; nothing, if there is none. Bytes that are no text are only said to differ.
pub(crate) fn unified(name: &str, old: Option<&[u8]>, new: &[u8]) -> Vec<String> {
    if old == Some(new) {
        return Vec::new();
    }
    let before = if old.is_some() { name } else { "/dev/null" };
    let text = |bytes| std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let (Some(old), Some(new)) = (text(old.unwrap_or_default()), text(new)) else {
        return vec![format!("{name}: the bytes differ, and are no text")];
    };
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut shown = vec![format!("--- {before}"), format!("+++ {name}")];
    hunks(&compare(&old, &new), &mut shown);
    if shown.len() > MAX_LINES {
        let more = shown.len() - MAX_LINES;
        shown.truncate(MAX_LINES);
        shown.push(format!("… {more} lines more"));
    }
    shown
}

/// Every line of both, in order: a longest common subsequence, once the start and the end that
/// are the same are set aside.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
    let (old_middle, new_middle) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let mut lines: Vec<Line<'a>> = old[..start].iter().map(|line| Line::Same(line)).collect();
    if old_middle.len().saturating_mul(new_middle.len()) > MAX_PAIRS {
        lines.extend(old_middle.iter().map(|line| Line::Old(line)));
        lines.extend(new_middle.iter().map(|line| Line::New(line)));
    } else {
        middle(old_middle, new_middle, &mut lines);
    }
    lines.extend(old[old.len() - end..].iter().map(|line| Line::Same(line)));
    lines
}

fn middle<'a>(old: &[&'a str], new: &[&'a str], lines: &mut Vec<Line<'a>>) {
    // How many lines are in common from these two on.
    let width = new.len() + 1;
    let mut common = vec![0u32; (old.len() + 1) * width];
    for at in (0..old.len()).rev() {
        for other in (0..new.len()).rev() {
            common[at * width + other] = if old[at] == new[other] {
                common[(at + 1) * width + other + 1] + 1
            } else {
                common[(at + 1) * width + other].max(common[at * width + other + 1])
            };
        }
    }
    let (mut at, mut other) = (0, 0);
    while at < old.len() || other < new.len() {
        if at < old.len() && other < new.len() && old[at] == new[other] {
            lines.push(Line::Same(old[at]));
            (at, other) = (at + 1, other + 1);
        } else if other == new.len()
            || (at < old.len() && common[(at + 1) * width + other] >= common[at * width + other + 1])
        {
            lines.push(Line::Old(old[at]));
            at += 1;
        } else {
            lines.push(Line::New(new[other]));
            other += 1;
        }
    }
}

fn hunks(lines: &[Line<'_>], shown: &mut Vec<String>) {
    let is_change = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let (mut from, mut done) = (0, 0);
    while let Some(first) = lines[from..].iter().position(is_change).map(|at| from + at) {
        let start = first.saturating_sub(CONTEXT).max(done);
        let mut last = first;
        // Changes with little between them are shown together.
        while let Some(next) = lines[last + 1..].iter().position(is_change).map(|at| last + 1 + at)
            && next - last <= 2 * CONTEXT
        {
            last = next;
        }
        let end = (last + 1 + CONTEXT).min(lines.len());
        let count = |lines: &[Line<'_>], new: bool| {
            lines
                .iter()
                .filter(|line| !matches!((line, new), (Line::Old(_), true) | (Line::New(_), false)))
                .count()
        };
        let (before, hunk) = (&lines[..start], &lines[start..end]);
        shown.push(format!(
            "@@ -{},{} +{},{} @@",
            count(before, false) + 1,
            count(hunk, false),
            count(before, true) + 1,
            count(hunk, true)
        ));
        shown.extend(hunk.iter().map(|line| match line {
            Line::Same(line) => format!(" {line}"),
            Line::Old(line) => format!("-{line}"),
            Line::New(line) => format!("+{line}"),
        }));
        (from, done) = (end, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: &str, new: &str) -> String {
        unified("f", Some(old.as_bytes()), new.as_bytes()).join("\n")
    }

    #[test]
    fn a_difference_is_shown_as_diff_shows_it() {
        assert_eq!(diff("a\nb\nc\n", "a\nB\nc\n"), "--- f\n+++ f\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c");
        assert_eq!(diff("", "x\n"), "--- f\n+++ f\n@@ -1,0 +1,1 @@\n+x");
        let lines = |with: &str| {
            (1..=20).map(|n| if n == 10 { with.to_owned() } else { format!("{n}\n") }).collect::<String>()
        };
        let text = diff(&lines("10\n"), &lines("ten\n"));
        assert_eq!(text, "--- f\n+++ f\n@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13");
        assert_eq!(diff("a\n", "a\n"), "");
    }

    #[test]
    fn what_is_no_text_and_what_is_new() {
        assert!(unified("f", Some(b"\xff"), b"x")[0].contains("no text"));
        assert_eq!(unified("f", None, b"x\n")[0], "--- /dev/null");
    }
}
