//! Texts for a model: bounded, with a pointer to the rest.

/// Most bytes of one text in an answer: some four thousand tokens.
pub(super) const MOST: usize = 16 * 1024;

/// The beginning and the end of a text, and how much is left out between them.
pub(super) fn bounded(text: &str, most: usize, pointer: &str) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(most / 4);
    let tail = text.ceil_char_boundary(text.len() - most * 3 / 4);
    format!("{}\n[… {} bytes left out; {pointer} …]\n{}", &text[..head], tail - head, &text[tail..])
}

/// Whether a name fits a pattern in which `*` stands for anything and `?` for one character.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_ends_and_says_what_is_gone() {
        assert_eq!(bounded("short", 10, "p"), "short");
        let text = "é".repeat(100);
        let short = bounded(&text, 40, "see there");
        assert!(short.contains("bytes left out; see there") && short.len() < 100, "{short}");
        assert!(short.starts_with('é') && short.ends_with('é'));
    }

    #[test]
    fn globs_are_whole_names() {
        for (pattern, name, want) in [
            ("*", "web-1", true),
            ("web-*", "web-1", true),
            ("web-?", "web-12", false),
            ("*-1", "web-1", true),
            ("w*b*1", "web-1", true),
            ("web", "web-1", false),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
        assert!(!fits(&"*a".repeat(500), &"b".repeat(5000)));
    }
}
