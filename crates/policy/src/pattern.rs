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
    /// Any text that stays within its word.
    WordGap,
    /// One of the two dots of a path's part that leads to the folder above. (Only a pattern's own
    /// reading of a text has it.)
    Climb,
    /// The next `n` tokens may be missing: an unquoted expansion that comes out
    /// empty takes the blank before it along.
    MayVanish(usize),
}

/// One position of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elem {
    /// This character.
    Char(char),
    /// Any characters, or none.
    Star,
    /// A `*` behind the beginning of a path: what it takes of that path must not lead out of it.
    /// Behind the path the next position goes on, which is a [`Elem::Star`].
    Beneath,
    /// One character of a class.
    One(Class),
    /// Any number of characters of a class.
    Many(Class),
    /// The end of a path's folder: a slash leads on to the next position, and the path may end.
    PathFolder,
    /// Within a path, behind its folder; the path may end. A dot leads on to the next position.
    PathRest,
    /// Within a path, behind a dot: no second one may follow, the path may end.
    PathDot,
}

/// What may stand within one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A character that a word needs no quotes for in a rule's sight.
    Word,
    /// The first character of a word that is no option.
    Head,
    /// A digit.
    Digit,
    /// As [`Class::Word`] and [`Class::Head`] behind the beginning of a path.
    WordBeneath,
    HeadBeneath,
    /// Anything, as within quotes, behind the beginning of a path.
    QuotedBeneath,
}

impl Class {
    fn holds(self, c: char) -> bool {
        let word = !c.is_whitespace() && !matches!(c, '\'' | '"');
        match self {
            Self::Word | Self::WordBeneath => word,
            Self::Head | Self::HeadBeneath => word && c != '-',
            Self::Digit => c.is_ascii_digit(),
            Self::QuotedBeneath => true,
        }
    }

    /// Whether it holds what leads to the folder above.
    fn climbs(self) -> bool {
        matches!(self, Self::Word | Self::Head)
    }
}

/// A rule's pattern: `*` stands for any characters, `{word}`, `{int}` and `{path:/dir}` for
/// parts of one word, all else is literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    elems: Vec<Elem>,
    /// The same where what stands behind the beginning of a path stays beneath it; `None` where
    /// the pattern spells no beginning of a path.
    beneath: Option<Vec<Elem>>,
}

impl Pattern {
    /// Reads a pattern. Braces that name no type are literal ([`Pattern::unknown_type`] finds them).
    pub(crate) fn new(text: &str) -> Self {
        let mut elems = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c == '{'
                && let Some(end) = rest.find('}')
                && push_typed(&rest[1..end], &mut elems)
            {
                rest = &rest[end + 1..];
                continue;
            }
            elems.push(if c == '*' { Elem::Star } else { Elem::Char(c) });
            rest = &rest[c.len_utf8()..];
        }
        let beneath = beneath(&elems);
        Self { text: text.to_owned(), elems, beneath }
    }

    /// A rule's pattern, in which options before a subcommand are read as if behind it.
    pub(crate) fn of_rule(text: &str) -> Self {
        let moved = crate::programs::globals::pattern_behind(text);
        Self { text: text.to_owned(), ..Self::new(&moved) }
    }

    /// A `{type}` that does not exist, or a `{path:…}` whose folder is not absolute.
    pub(crate) fn unknown_type(text: &str) -> Option<String> {
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            let end = start + rest[start..].find('}')?;
            let inner = &rest[start + 1..end];
            let looks_typed = inner.starts_with("path")
                || inner.len() > 1 && inner.bytes().all(|b| b.is_ascii_alphabetic() || b == b':');
            if looks_typed && !push_typed(inner, &mut Vec::new()) {
                return Some(rest[start..=end].to_owned());
            }
            rest = &rest[end + 1..];
        }
        None
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_star(&self) -> bool {
        self.text == "*"
    }

    /// Whether a text that is read as a pattern spells one text. As [`Pattern::is_exact`], but
    /// nothing has to be built for it.
    pub(crate) fn spells(text: &str) -> bool {
        !text.contains('*') && (!text.contains('{') || Self::new(text).is_exact())
    }

    /// Whether known text matches a text that is read as a pattern, of which most are plain.
    pub(crate) fn fits_text(pattern: &str, text: &str) -> bool {
        if pattern.contains('{') {
            return Self::new(pattern).fits(text);
        }
        // `df *` also matches without arguments (point 2).
        let bare = || pattern.strip_suffix(" *").is_some_and(|bare| fits_stars(bare, text));
        fits_stars(pattern, text) || bare()
    }

    /// Whether the pattern spells one text, without any `*` or type.
    pub(crate) fn is_exact(&self) -> bool {
        self.elems.iter().all(|elem| matches!(elem, Elem::Char(_)))
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

    /// Whether an allow rule with this pattern covers the text, or with `any_filling` some filling
    /// of it: where a word of the rule spells the beginning of a path, the path may not lead out
    /// of it by `..`.
    pub(crate) fn allows(&self, text: &[Token], any_filling: bool) -> bool {
        if !self.matches(text, any_filling) {
            return false;
        }
        let Some((beneath, text)) = self.beneath.as_ref().zip(with_climbs(text)) else { return true };
        run(beneath, &text, any_filling)
            || self.ends_open() && run(&beneath[..beneath.len() - 2], &text, any_filling)
    }

    /// Whether some filling of the text matches.
    pub(crate) fn could_match(&self, text: &[Token]) -> bool {
        self.matches(text, true)
    }

    /// The pattern as text whose open parts are gaps.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        let token = |elem: &Elem| match elem {
            Elem::Char(c) => Token::Char(*c),
            _ => Token::Gap,
        };
        self.elems.iter().map(token).collect()
    }

    /// Whether some text matches both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let text = other.tokens();
        let bare = other.ends_open().then(|| &text[..text.len() - 2]);
        self.could_match(&text) || bare.is_some_and(|bare| self.could_match(bare))
    }

    /// Whether this pattern matches all that the other does. (Types are looked at only where
    /// both patterns write them alike.)
    pub(crate) fn contains(&self, other: &Self) -> bool {
        let text = other.tokens();
        let bare = other.ends_open().then(|| &text[..text.len() - 2]);
        self.covers(&text) && bare.is_none_or(|bare| self.covers(bare))
    }

    /// Whether a blank and a `*` end the pattern.
    fn ends_open(&self) -> bool {
        self.elems.ends_with(&[Elem::Char(' '), Elem::Star])
    }

    fn matches(&self, text: &[Token], any_filling: bool) -> bool {
        // Most rules are about another program.
        for (want, token) in self.elems.iter().zip(text) {
            match (want, token) {
                (Elem::Char(want), Token::Char(c)) => {
                    if c != want {
                        return false;
                    }
                }
                _ => break,
            }
        }
        if run(&self.elems, text, any_filling) {
            return true;
        }
        // `df *` also matches without arguments (point 2).
        self.ends_open() && run(&self.elems[..self.elems.len() - 2], text, any_filling)
    }
}

/// Whether a text matches a pattern in which `*` stands for anything, and nothing else does.
fn fits_stars(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
}

/// The positions of a pattern in which open parts behind the beginning of a path stay beneath
/// it: those of a word that has a slash before them, or begins like a path (`scripts*`), and not
/// like an option, a variable or a quoted text.
fn beneath(elems: &[Elem]) -> Option<Vec<Elem>> {
    let is_open = |elem: &Elem| !matches!(elem, Elem::Char(_));
    if !elems.windows(2).any(|pair| is_open(&pair[1]) && pair[0] != Elem::Char(' ')) {
        return None;
    }
    let (mut out, mut found) = (Vec::with_capacity(elems.len() + 2), false);
    let (mut slash, mut plain, mut starts, mut quote) = (false, false, true, None);
    for elem in elems {
        let begun = slash || plain && quote.is_none();
        let kept = match elem {
            Elem::Char(c) => {
                match c {
                    '"' | '\'' if starts && quote.is_none() => quote = Some(*c),
                    c if quote == Some(*c) => quote = None,
                    c if c.is_whitespace() && quote.is_none() => (slash, plain) = (false, false),
                    '/' => slash = true,
                    '=' => plain = false,
                    '-' if starts => {}
                    _ if starts => plain = true,
                    _ => {}
                }
                starts = c.is_whitespace();
                *elem
            }
            Elem::Star if begun && quote.is_some() => Elem::Many(Class::QuotedBeneath),
            Elem::Star if begun => Elem::Beneath,
            Elem::One(Class::Head) if begun => Elem::One(Class::HeadBeneath),
            Elem::Many(Class::Word) if begun => Elem::Many(Class::WordBeneath),
            _ => *elem,
        };
        found |= kept != *elem;
        out.push(kept);
        out.extend((kept == Elem::Beneath).then_some(Elem::Star));
    }
    found.then_some(out)
}

/// The text with the dots marked that lead to the folder above; `None` if there are none. What
/// is not known counts as the end of a part.
fn with_climbs(text: &[Token]) -> Option<Vec<Token>> {
    let ends = |token: &Token| match token {
        Token::Char(c) => c.is_whitespace() || matches!(c, '/' | '"' | '\''),
        _ => true,
    };
    let mut out: Option<Vec<Token>> = None;
    for at in 0..text.len() {
        let is_dots = text[at..].starts_with(&[Token::Char('.'), Token::Char('.')]);
        if is_dots && (at == 0 || ends(&text[at - 1])) && text.get(at + 2).is_none_or(ends) {
            out.get_or_insert_with(|| text.to_vec())[at..at + 2].fill(Token::Climb);
        }
    }
    out
}

/// Appends what a `{type}` stands for; says whether there is such a type.
fn push_typed(inner: &str, elems: &mut Vec<Elem>) -> bool {
    match inner {
        "word" => elems.extend([Elem::One(Class::Head), Elem::Many(Class::Word)]),
        "int" => elems.extend([Elem::One(Class::Digit), Elem::Many(Class::Digit)]),
        _ => {
            let Some(folder) = inner.strip_prefix("path:").map(|dir| dir.trim_end_matches('/')) else {
                return false;
            };
            if !inner["path:".len()..].starts_with('/')
                || folder.contains(['*', '"', '\''])
                || folder.contains("..")
            {
                return false;
            }
            elems.extend(folder.chars().map(Elem::Char));
            elems.extend([Elem::PathFolder, Elem::PathRest, Elem::PathDot]);
        }
    }
    true
}

/// Text without gaps under a pattern of characters and `*`, which is most: remembers the last
/// `*` and goes back to it.
fn run_known(pattern: &[Elem], text: &[Token]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), text[t]) {
            (Some(Elem::Star), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(Elem::Char(want)), Token::Char(c)) if *want == c => {
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
    pattern[p..].iter().all(|elem| *elem == Elem::Star)
}

/// Runs the product of two automata: the pattern's, and the text's with its gaps.
/// `states[p]` says that pattern position `p` is reachable at the current token.
fn run(pattern: &[Elem], text: &[Token], any_filling: bool) -> bool {
    let plain = pattern.iter().all(|elem| matches!(elem, Elem::Char(_) | Elem::Star));
    if plain && text.iter().all(|token| matches!(token, Token::Char(_))) {
        return run_known(pattern, text);
    }
    let width = pattern.len() + 1;
    // A vanishing run of n tokens makes its states reappear n tokens later.
    let mut pending: std::collections::BTreeMap<usize, Vec<bool>> = std::collections::BTreeMap::new();
    let mut states = vec![false; width];
    states[0] = true;
    skip_optional(pattern, &mut states);
    for (index, token) in text.iter().enumerate() {
        if let Some(late) = pending.remove(&index) {
            merge(&mut states, &late);
        }
        let mut next = vec![false; width];
        match token {
            Token::Char(c) => {
                for (p, _) in states.iter().enumerate().filter(|(_, on)| **on) {
                    step(pattern, p, *c, &mut next);
                }
            }
            Token::Climb => {
                let climbs = |p: usize| match pattern.get(p) {
                    Some(Elem::Beneath) => false,
                    Some(Elem::One(class) | Elem::Many(class)) => class.climbs(),
                    _ => true,
                };
                for (p, _) in states.iter().enumerate().filter(|(p, on)| **on && climbs(*p)) {
                    step(pattern, p, '.', &mut next);
                }
            }
            Token::Gap if any_filling => {
                // Any text: every later position is reachable.
                if let Some(first) = states.iter().position(|on| *on) {
                    next[first..].fill(true);
                }
            }
            Token::WordGap if any_filling => {
                next.clone_from(&states);
                within_word(pattern, &mut next);
            }
            Token::Gap | Token::WordGap => {
                for (p, _) in states.iter().enumerate().filter(|(_, on)| **on) {
                    if matches!(pattern.get(p), Some(Elem::Star | Elem::Beneath)) {
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
        skip_optional(pattern, &mut next);
        states = next;
    }
    if let Some(late) = pending.remove(&text.len()) {
        merge(&mut states, &late);
    }
    states[pattern.len()]
}

/// Marks what text leads to that holds no blank, or stands in quotes.
fn within_word(pattern: &[Elem], states: &mut [bool]) {
    for p in 0..pattern.len() {
        if !states[p] {
            continue;
        }
        match pattern[p] {
            Elem::Char('"' | '\'') => states[p..].fill(true),
            Elem::Char(c) => states[p + 1] |= !c.is_whitespace(),
            Elem::Beneath => states[p + 2] = true,
            _ => states[p + 1] = true,
        }
    }
}

/// Where one character leads from position `p`.
fn step(pattern: &[Elem], p: usize, c: char, next: &mut [bool]) {
    match pattern.get(p) {
        Some(Elem::Star) => next[p] = true,
        Some(Elem::Beneath) => next[if c.is_whitespace() { p + 1 } else { p }] = true,
        Some(Elem::Char(want)) if *want == c => next[p + 1] = true,
        Some(Elem::One(class)) if class.holds(c) => next[p + 1] = true,
        Some(Elem::Many(class)) if class.holds(c) => next[p] = true,
        Some(Elem::PathFolder) if c == '/' => next[p + 1] = true,
        Some(Elem::PathRest) if c == '.' => next[p + 1] = true,
        Some(Elem::PathRest) if Class::Word.holds(c) => next[p] = true,
        Some(Elem::PathDot) if c != '.' && Class::Word.holds(c) => next[p - 1] = true,
        _ => {}
    }
}

/// Marks the positions that are reached without a character.
fn skip_optional(pattern: &[Elem], states: &mut [bool]) {
    for p in 0..pattern.len() {
        if !states[p] {
            continue;
        }
        match pattern[p] {
            Elem::Star | Elem::Many(_) | Elem::PathDot => states[p + 1] = true,
            Elem::PathRest | Elem::Beneath => states[p + 2] = true,
            Elem::PathFolder => states[p + 3] = true,
            Elem::Char(_) | Elem::One(_) => {}
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

    #[test]
    fn types_stand_for_parts_of_one_word() {
        for (pattern, text, wanted) in [
            ("kubectl get {word} *", "kubectl get pods -A", true),
            ("kubectl get {word}", "kubectl get pods", true),
            ("kubectl get {word}", "kubectl get pods -A", false),
            ("kubectl get {word}", "kubectl get --raw=/x", false),
            ("kubectl get {word}", "kubectl get \"a b\"", false),
            ("kubectl get {word}", "kubectl get %", false),
            ("kubectl -n {word} get *", "kubectl -n x delete pod get y", false),
            ("head -n {int} *", "head -n 20 x", true),
            ("head -n {int} *", "head -n 2x", false),
            ("head -n {int} *", "head -n -5", false),
            ("cat {path:/var/log}", "cat /var/log", true),
            ("cat {path:/var/log/}", "cat /var/log/a/b.1.gz", true),
            ("cat {path:/var/log}", "cat /var/logs", false),
            ("cat {path:/var/log}", "cat /var/log/../../etc/shadow", false),
            ("cat {path:/var/log}", "cat /var/log/x /etc/shadow", false),
            ("cat {path:/var/log}", "cat /var/log/%", false),
            ("cat {path:/var/log} {path:/srv}", "cat /var/log/x. /srv/y", true),
            ("cat {path:/}", "cat /etc/hosts", true),
            ("echo {a,b} {x}", "echo {a,b} {x}", true),
            ("{word}", "ls", true),
        ] {
            assert_eq!(Pattern::new(pattern).covers(&tokens(text)), wanted, "{pattern}: {text}");
        }
        for (text, unknown) in [
            ("a {wrd}", Some("{wrd}")),
            ("a {path:x}", Some("{path:x}")),
            ("a {path:/x/../y}", Some("{path:/x/../y}")),
            ("a {a,b} {} {1..3} {word} {path:/x}", None),
        ] {
            assert_eq!(Pattern::unknown_type(text).as_deref(), unknown, "{text}");
        }
        assert!(Pattern::new("a {word}").could_match(&tokens("a %")) && !Pattern::new("a {word}").is_exact());
        assert!(Pattern::new("a *").contains(&Pattern::new("a {word}")));
        assert!(!Pattern::new("a {word}").contains(&Pattern::new("a *")));
    }

    #[test]
    fn what_a_rule_allows_beneath_a_folder_stays_there() {
        for (pattern, text, wanted) in [
            ("bash scripts/*", "bash scripts/a.sh", true),
            ("bash scripts/*", "bash scripts/../a.sh", false),
            ("bash scripts/*", "bash scripts//../a.sh", false),
            ("bash scripts/*", "bash scripts/x/../../a.sh", false),
            ("bash scripts/*", "bash scripts/..", false),
            ("bash scripts/*", "bash scripts/... ..x a..b", true),
            // Words behind the path are any words.
            ("bash scripts/*", "bash scripts/a.sh ../data --out=../x", true),
            ("bash scripts/* ../data", "bash scripts/a.sh ../data", true),
            ("bash scripts/*.sh", "bash scripts/../a.sh", false),
            ("bash scripts/.*", "bash scripts/../a.sh", false),
            ("bash scripts/*./a.sh", "bash scripts/../a.sh", false),
            ("bash ../scripts/*", "bash ../scripts/a.sh", true),
            ("bash ../scripts/*", "bash ../scripts/../a.sh", false),
            ("bash *", "bash ../a.sh", true),
            ("bash * scripts/*", "bash ../x scripts/a", true),
            ("cp * /ok/*", "cp ../a /ok/../b", false),
            ("cp {word} /ok/*", "cp ../a /ok/b", true),
            ("bash scripts/{word}", "bash scripts/../a.sh", false),
            ("bash scripts/{word}", "bash scripts/a.sh", true),
            ("curl --out=/ok/* *", "curl --out=/ok/../x u", false),
            ("curl --out=/ok/* *", "curl --out=/ok/x ../u", true),
            ("rm \"/a b/*\"", "rm \"/a b/c d/../../x\"", false),
            ("rm \"/a b/*\"", "rm \"/a b/c d/x\"", true),
            ("rm /ok/*", "rm /ok/% x", true),
            ("rm /ok/*", "rm /ok/../%", false),
            ("rm /ok/../x", "rm /ok/../x", true),
            ("go test ./*", "go test ./...", true),
            // Without a slash as well, where the word could be a path.
            ("bash scripts*", "bash scripts/../a.sh", false),
            ("bash scripts*", "bash scripts-old/a.sh ../data", true),
            ("bash scripts*.sh", "bash scripts/../a.sh", false),
            ("bash s{word}", "bash scripts/../a.sh", false),
            ("tool*", "tool/../other", false),
            ("tool*", "tool-2 ../x", true),
            ("git log main*", "git log main..topic", true),
            ("curl --out=*", "curl --out=../x", true),
            ("curl --out=*", "curl --out=a/../x", true),
            ("FOO=* ls", "FOO=a/../x ls", true),
            ("git commit -m \"fix*\"", "git commit -m \"fix a/../b\"", true),
        ] {
            let p = Pattern::new(pattern);
            assert_eq!(p.allows(&tokens(text), false), wanted, "{pattern} allows {text}");
            if !wanted {
                assert!(p.covers(&tokens(text)) && !p.allows(&tokens(text), true), "{pattern}: {text}");
            }
        }
        assert!(Pattern::new("rm /ok/*").allows(&tokens("rm /ok/%"), true));
        assert!(!Pattern::new("rm /ok/*").allows(&tokens("rm /ok/../%"), true));
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
            let (chars, wanted): (Vec<char>, Vec<char>) = (t.chars().collect(), p.chars().collect());
            let want = slow(&wanted, &chars)
                || (p.ends_with(" *") && slow(&wanted[..wanted.len() - 2], &chars));
            prop_assert_eq!(pattern.covers(&literal(&t)), want);
            prop_assert_eq!(pattern.could_match(&literal(&t)), want);
            prop_assert_eq!(Pattern::fits_text(&p, &t), want);
            prop_assert_eq!(Pattern::spells(&p), pattern.is_exact());
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
