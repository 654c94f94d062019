//! What is refused before any parser sees the line (point 5).

/// The longest line that is judged.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// Longest text that bash can be given: Linux passes no longer argument (MAX_ARG_STRLEN, with
/// the zero byte at its end).
pub(crate) const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;

/// The deepest nesting that is judged.
pub const MAX_DEPTH: usize = 40;

/// Checks size, forbidden bytes and nesting without parsing.
///
/// Nesting is counted on the raw text, quotes included, so it can only be
/// over-estimated: a parser never recurses deeper than this counts.
pub(crate) fn check(line: &str) -> Result<(), String> {
    if line.len() > MAX_LINE_BYTES {
        return Err(format!("the line is {} bytes long, the limit is {MAX_LINE_BYTES}", line.len()));
    }
    if line.contains('\0') {
        return Err("the line holds a NUL byte".into());
    }
    if line.contains('\r') {
        return Err("the line holds a carriage return".into());
    }
    if depth(line) > MAX_DEPTH {
        return Err(format!("the line nests deeper than {MAX_DEPTH} levels"));
    }
    Ok(())
}

fn depth(line: &str) -> usize {
    let mut brackets = Gauge::default();
    let mut keywords = Gauge::default();
    let mut prefixes = 0usize;
    let mut longest_prefix_run = 0usize;
    let mut backticks = 0usize;
    for byte in line.bytes() {
        match byte {
            b'(' | b'{' | b'[' => brackets.open(),
            b')' | b'}' | b']' => brackets.close(),
            b'`' => backticks += 1,
            _ => {}
        }
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '!';
    for word in line.split(|c| !is_word(c)).filter(|w| !w.is_empty()) {
        match word {
            "if" | "while" | "until" | "for" | "case" | "select" => keywords.open(),
            "fi" | "done" | "esac" => keywords.close(),
            _ => {}
        }
        // Parsers recurse on each of these prefixes of a pipeline.
        if matches!(word, "time" | "coproc" | "function") || word.bytes().all(|b| b == b'!') {
            prefixes += word.len().min(MAX_DEPTH);
            longest_prefix_run = longest_prefix_run.max(prefixes);
        } else {
            prefixes = 0;
        }
    }
    // Unary operators of arithmetic and tests recurse as well.
    let mut run = 0usize;
    let mut longest_run = 0usize;
    for byte in line.bytes() {
        match byte {
            b'!' | b'~' | b'-' | b'+' => run += 1,
            b' ' | b'\t' | b'\n' => {}
            _ => run = 0,
        }
        longest_run = longest_run.max(run);
    }
    let backtick_depth = if line.contains("\\`") { backticks / 2 } else { usize::from(backticks > 0) };
    let unary =
        if line.contains("((") || line.contains("[[") || line.contains("$[") { longest_run / 2 } else { 0 };
    brackets.max + keywords.max + longest_prefix_run / 5 + backtick_depth + unary
}

/// Counts how deep something nests; a stray closer never makes up for an opener.
#[derive(Default)]
struct Gauge {
    now: usize,
    max: usize,
}

impl Gauge {
    fn open(&mut self) {
        self.now += 1;
        self.max = self.max.max(self.now);
    }

    fn close(&mut self) {
        self.now = self.now.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_lines_pass() {
        for line in [
            "kubectl get pods -o json | jq '.items[] | {name: .metadata.name, x: [.a, .b]}'",
            "for i in a b; do if true; then echo $(ls $(pwd)); fi; done",
            "echo -----------------------------------------------------------------------------",
            "ls # if if if if if",
        ] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn forbidden_bytes_and_sizes_are_named() {
        assert!(check("a\0b").is_err_and(|e| e.contains("NUL")));
        assert!(check("a\rb").is_err_and(|e| e.contains("carriage return")));
        assert!(check(&"a".repeat(MAX_LINE_BYTES)).is_ok());
        assert!(check(&"a".repeat(MAX_LINE_BYTES + 1)).is_err_and(|e| e.contains("65537")));
    }

    #[test]
    fn nesting_is_counted_for_every_construct() {
        for open in ["(", "$(", "{ ", "${x:-", "if ", "while ", "$((1+(", "! ! ! ! ! "] {
            assert!(check(&open.repeat(50)).is_err_and(|e| e.contains("nests")), "{open}");
        }
        assert!(check(&format!("{}x{}", "(".repeat(39), ")".repeat(39))).is_ok());
        // A closer first must not buy credit for openers after it.
        assert!(check(&format!("{}{}", ")".repeat(99), "(".repeat(41))).is_err());
    }
}
