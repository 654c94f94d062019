//! Patterns, and how they match text that is partly unknown.
//!
//! A command's text is a sequence of [`Token`]s: known characters, and gaps that
//! bash will fill in. An allow rule must cover a gap by a `*` (whatever bash puts
//! there is then covered); a deny rule matches if any filling would match.

/// One element of a command's matched text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// A known character.
    Char(char),
    /// Any text, the empty one included.
    Gap,
    /// The next `n` tokens may be missing: an unquoted expansion that comes out
    /// empty takes the blank before it along.
    MayVanish(usize),
}

/// A rule's pattern: `*` stands for any characters, all else is literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    chars: Vec<char>,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), chars: text.chars().collect() }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_star(&self) -> bool {
        self.text == "*"
    }

    /// Whether the pattern spells one text, without any `*`.
    pub(crate) fn is_exact(&self) -> bool {
        !self.text.contains('*')
    }

    /// Whether known text matches.
    pub(crate) fn fits(&self, text: &str) -> bool {
        let tokens: Vec<Token> = text.chars().map(Token::Char).collect();
        self.matches(&tokens, false)
    }

    /// Whether every filling of the text is covered: gaps only under a `*`.
    pub(crate) fn covers(&self, text: &[Token]) -> bool {
        self.matches(text, false)
    }

    /// Whether some filling of the text matches.
    pub(crate) fn could_match(&self, text: &[Token]) -> bool {
        self.matches(text, true)
    }

    /// Whether some text matches both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let token = |c: &char| if *c == '*' { Token::Gap } else { Token::Char(*c) };
        let text: Vec<Token> = other.chars.iter().map(token).collect();
        let bare = other.text.ends_with(" *").then(|| &text[..text.len() - 2]);
        self.could_match(&text) || bare.is_some_and(|bare| self.could_match(bare))
    }

    fn matches(&self, text: &[Token], any_filling: bool) -> bool {
        // Most rules are about another program.
        for (want, token) in self.chars.iter().zip(text) {
            match token {
                Token::Char(c) if *want != '*' => {
                    if c != want {
                        return false;
                    }
                }
                _ => break,
            }
        }
        if run(&self.chars, text, any_filling) {
            return true;
        }
        // `df *` also matches without arguments (point 2).
        self.text.ends_with(" *") && run(&self.chars[..self.chars.len() - 2], text, any_filling)
    }
}

/// Text without gaps, which is most: remembers the last `*` and goes back to it.
fn run_known(pattern: &[char], text: &[Token]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), text[t]) {
            (Some('*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(want), Token::Char(c)) if *want == c => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Runs the product of two automata: the pattern's, and the text's with its gaps.
/// `states[p]` says that pattern position `p` is reachable at the current token.
fn run(pattern: &[char], text: &[Token], any_filling: bool) -> bool {
    if text.iter().all(|token| matches!(token, Token::Char(_))) {
        return run_known(pattern, text);
    }
    let width = pattern.len() + 1;
    // A vanishing run of n tokens makes its states reappear n tokens later.
    let mut pending: std::collections::BTreeMap<usize, Vec<bool>> = std::collections::BTreeMap::new();
    let mut states = vec![false; width];
    states[0] = true;
    skip_stars(pattern, &mut states);
    for (index, token) in text.iter().enumerate() {
        if let Some(late) = pending.remove(&index) {
            merge(&mut states, &late);
        }
        let mut next = vec![false; width];
        match token {
            Token::Char(c) => {
                for (p, _) in states.iter().enumerate().filter(|(_, on)| **on) {
                    match pattern.get(p) {
                        Some('*') => next[p] = true,
                        Some(want) if want == c => next[p + 1] = true,
                        _ => {}
                    }
                }
            }
            Token::Gap if any_filling => {
                // Any text: every later position is reachable.
                if let Some(first) = states.iter().position(|on| *on) {
                    next[first..].fill(true);
                }
            }
            Token::Gap => {
                for (p, _) in states.iter().enumerate().filter(|(_, on)| **on) {
                    if pattern.get(p) == Some(&'*') {
                        next[p] = true;
                    }
                }
            }
            Token::MayVanish(n) => {
                if any_filling {
                    let late = pending.entry(index + 1 + n).or_insert_with(|| vec![false; width]);
                    merge(late, &states);
                }
                next.clone_from(&states);
            }
        }
        skip_stars(pattern, &mut next);
        states = next;
    }
    if let Some(late) = pending.remove(&text.len()) {
        merge(&mut states, &late);
    }
    states[pattern.len()]
}

/// A `*` may stand for nothing.
fn skip_stars(pattern: &[char], states: &mut [bool]) {
    for p in 0..pattern.len() {
        if states[p] && pattern[p] == '*' {
            states[p + 1] = true;
        }
    }
}

fn merge(into: &mut [bool], from: &[bool]) {
    for (a, b) in into.iter_mut().zip(from) {
        *a |= *b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn literal(text: &str) -> Vec<Token> {
        text.chars().map(Token::Char).collect()
    }

    /// `%` is a quoted gap, ` ~` a word that may vanish.
    fn tokens(text: &str) -> Vec<Token> {
        let mut out = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '%' => out.push(Token::Gap),
                ' ' if chars.peek() == Some(&'~') => {
                    chars.next();
                    out.extend([Token::MayVanish(2), Token::Char(' '), Token::Gap]);
                }
                c => out.push(Token::Char(c)),
            }
        }
        out
    }

    #[test]
    fn covers_and_could_match() {
        // (pattern, text, covers, could match)
        for (pattern, text, covers, could) in [
            ("*", "", true, true),
            ("*", "rm -rf /", true, true),
            ("df *", "df", true, true),
            ("df *", "df -h", true, true),
            ("df *", "dfx", false, false),
            ("df*", "dfx", true, true),
            ("a*c", "a/b c", true, true),
            ("a*c", "ab", false, false),
            ("LS", "ls", false, false),
            ("kubectl get *", "kubectl get ~", true, true),
            ("kubectl get *", "kubectl ~", false, true),
            ("kubectl delete *", "kubectl ~", false, true),
            ("kubectl delete *", "kubectl get ~", false, false),
            ("rm -rf *", "rm ~ -rf x", false, true),
            ("rm -rf /", "rm -rf %", false, true),
            ("rm -rf /", "rm %", false, true),
            ("cat /var/log/*", "cat /var/log/%.log", true, true),
            ("cat /etc/*", "cat /var/log/%.log", false, false),
            ("echo x", "echo ~ x", false, true),
        ] {
            let p = Pattern::new(pattern);
            assert_eq!(p.covers(&tokens(text)), covers, "{pattern} covers {text}");
            assert_eq!(p.could_match(&tokens(text)), could, "{pattern} could match {text}");
        }
    }

    /// The obvious slow matcher, as a second opinion.
    fn slow(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|i| slow(rest, &text[i..])),
            Some((c, rest)) => text.first() == Some(c) && slow(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn literal_text_matches_as_the_slow_matcher(p in "[ab* ]{1,7}", t in "[ab ]{0,8}") {
            let pattern = Pattern::new(&p);
            let chars: Vec<char> = t.chars().collect();
            let want = slow(&pattern.chars, &chars)
                || (p.ends_with(" *") && slow(&pattern.chars[..pattern.chars.len() - 2], &chars));
            prop_assert_eq!(pattern.covers(&literal(&t)), want);
            prop_assert_eq!(pattern.could_match(&literal(&t)), want);
        }

        #[test]
        fn a_covered_gap_matches_with_every_filling(
            p in "[ab*]{1,6}", head in "[ab]{0,3}", fill in "[ab]{0,4}", tail in "[ab]{0,3}"
        ) {
            let pattern = Pattern::new(&p);
            let gapped = tokens(&format!("{head}%{tail}"));
            let filled = literal(&format!("{head}{fill}{tail}"));
            if pattern.covers(&gapped) {
                prop_assert!(pattern.covers(&filled));
            }
            if pattern.covers(&filled) {
                prop_assert!(pattern.could_match(&gapped));
            }
        }
    }
}
