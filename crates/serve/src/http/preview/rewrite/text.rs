//! Addresses, and what stands before them in style sheets and headers.

/// Longest prefix, and longest origin of an application, that is looked for: what is held back
/// is bounded by it.
const MAX_ADDRESS: usize = 256;

/// What an address follows: in a style sheet,
pub(super) const CSS: &[&[u8]] = &[b"url(", b"@import"];
/// in what says that a page is loaded anew,
pub(super) const REFRESH: &[&[u8]] = &[b"url="];
/// in a `Link` header.
pub(super) const LINK: &[&[u8]] = &[b"<"];

/// Most white space between a word and its address.
const MAX_SPACE: usize = 64;

/// How addresses change.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// What is put in front of a path.
    prefix: Vec<u8>,
    /// The application's own origins.
    own: Vec<Vec<u8>>,
}

/// What is to be done where an address begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// So many bytes give way to these.
    Replace(usize, &'a [u8]),
    Nothing,
    /// That can't be told yet.
    More,
}

impl Addresses {
    /// For an application at this port; `None` if the prefix is too long.
    pub(super) fn new(prefix: &str, port: u16) -> Option<Self> {
        let own = ["http://localhost", "http://127.0.0.1"].map(|o| format!("{o}:{port}").into_bytes());
        (prefix.len() < MAX_ADDRESS).then(|| Self { prefix: prefix.into(), own: own.into() })
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Looks at what begins here. `whole`: nothing follows.
    pub(super) fn look(&self, at: &[u8], whole: bool) -> Change<'_> {
        for own in &self.own {
            if at.len() > own.len() || whole && at.len() == own.len() {
                let ends =
                    at.get(own.len()).is_none_or(|b| !b.is_ascii_alphanumeric() && !b".-:@".contains(b));
                if at.starts_with(own) && ends {
                    return Change::Replace(own.len(), &self.prefix);
                }
            } else if own.starts_with(at) && !whole {
                return Change::More;
            }
        }
        match at {
            [b'/', b'/' | b'\\', ..] => Change::Nothing,
            [b'/', ..] => {
                let rest = at.strip_prefix(&*self.prefix);
                let goes_on = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%".contains(b);
                let is_led = rest.is_some_and(|rest| !rest.first().is_some_and(goes_on));
                let may_be = !whole && (at.len() == 1 || self.prefix.starts_with(at));
                match (may_be, is_led) {
                    (true, _) => Change::More,
                    // The application knows where it is.
                    (false, true) => Change::Nothing,
                    (false, false) => Change::Replace(0, &self.prefix),
                }
            }
            _ => Change::Nothing,
        }
    }
}

/// Whether `text` begins with a word in lower case; `None` if that can't be told yet.
pub(super) fn begins(text: &[u8], word: &[u8], whole: bool) -> Option<bool> {
    let len = text.len().min(word.len());
    if !text[..len].eq_ignore_ascii_case(&word[..len]) {
        return Some(false);
    }
    if len == word.len() { Some(true) } else { whole.then_some(false) }
}

/// Changes the addresses after certain words. What is between words does not matter here: an
/// address in a comment may change as well.
#[derive(Debug)]
pub(super) struct Scanner {
    words: &'static [&'static [u8]],
    held: Vec<u8>,
}

impl Scanner {
    pub(super) fn new(words: &'static [&'static [u8]]) -> Self {
        Self { words, held: Vec::new() }
    }

    pub(super) fn push(&mut self, piece: &[u8], addresses: &Addresses, out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let done = scan(&held, self.words, addresses, false, out);
        self.held.extend_from_slice(&held[done..]);
    }

    pub(super) fn finish(&mut self, addresses: &Addresses, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        scan(&held, self.words, addresses, true, out);
    }
}

/// Copies text, changing addresses after words; returns how much could be told.
pub(super) fn scan(
    text: &[u8],
    words: &[&[u8]],
    addresses: &Addresses,
    whole: bool,
    out: &mut Vec<u8>,
) -> usize {
    let is_first = |b: &u8| words.iter().any(|word| word[0] == b.to_ascii_lowercase());
    let mut at = 0;
    'text: while let Some(found) = text[at..].iter().position(is_first) {
        out.extend_from_slice(&text[at..at + found]);
        at += found;
        for word in words {
            match begins(&text[at..], word, whole) {
                None => return at,
                Some(false) => continue,
                Some(true) => {}
            }
            let from = at + word.len();
            let Some(start) = start_of_address(&text[from..], whole) else { return at };
            let start = from + start;
            let (skipped, with) = match addresses.look(&text[start..], whole) {
                Change::More => return at,
                Change::Nothing => (0, &b""[..]),
                Change::Replace(skipped, with) => (skipped, with),
            };
            out.extend_from_slice(&text[at..start]);
            out.extend_from_slice(with);
            at = start + skipped;
            continue 'text;
        }
        out.push(text[at]);
        at += 1;
    }
    out.extend_from_slice(&text[at..]);
    text.len()
}

/// Where an address begins after its word: behind white space and a quotation mark.
fn start_of_address(text: &[u8], whole: bool) -> Option<usize> {
    let space = text.iter().take(MAX_SPACE).take_while(|b| b.is_ascii_whitespace()).count();
    let rest = &text[space..];
    if rest.is_empty() && !whole && space < MAX_SPACE {
        return None;
    }
    for mark in [&b"\""[..], b"'", b"&quot;", b"&#34;", b"&#39;", b"&#x27;"] {
        match begins(rest, mark, whole) {
            None => return None,
            Some(true) => return Some(space + mark.len()),
            Some(false) => {}
        }
    }
    Some(space)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn css(text: &str) -> String {
        let addresses = Addresses::new("/preview/~k", 3000).expect("short");
        let all: Vec<String> = [1, 3, text.len().max(1)]
            .into_iter()
            .map(|len| {
                let (mut scanner, mut out) = (Scanner::new(CSS), Vec::new());
                for piece in text.as_bytes().chunks(len) {
                    scanner.push(piece, &addresses, &mut out);
                    assert!(scanner.held.len() <= MAX_ADDRESS + MAX_SPACE + 16);
                }
                scanner.finish(&addresses, &mut out);
                String::from_utf8(out).expect("text")
            })
            .collect();
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        all[0].clone()
    }

    #[test]
    fn addresses_of_style_sheets_are_led_back() {
        for (text, want) in [
            ("a{background:url(/a.png)}", "a{background:url(/preview/~k/a.png)}"),
            ("a{b:URL( \"/a.png\" )}", "a{b:URL( \"/preview/~k/a.png\" )}"),
            ("@import '/a.css';", "@import '/preview/~k/a.css';"),
            ("@import url('/a.css');", "@import url('/preview/~k/a.css');"),
            ("a{b:url(a.png) url(../b.png)}", "a{b:url(a.png) url(../b.png)}"),
            ("a{b:url(//cdn/a.png)}", "a{b:url(//cdn/a.png)}"),
            ("a{b:url(data:image/png;base64,/9j/)}", "a{b:url(data:image/png;base64,/9j/)}"),
            ("a{b:url(/preview/~k/a.png)}", "a{b:url(/preview/~k/a.png)}"),
            ("a{b:url(/preview/~kk/a.png)}", "a{b:url(/preview/~k/preview/~kk/a.png)}"),
            ("a{b:url(http://localhost:3000/a.png)}", "a{b:url(/preview/~k/a.png)}"),
            ("a{b:url(http://localhost:30001/a.png)}", "a{b:url(http://localhost:30001/a.png)}"),
            ("a{b:url(/)}", "a{b:url(/preview/~k/)}"),
            ("a{b:url(/", "a{b:url(/preview/~k/"),
            ("url(", "url("),
            ("curl(x", "curl(x"),
        ] {
            assert_eq!(css(text), want, "{text}");
        }
    }
}
