//! Pages: the addresses in their tags and styles, and a script of ours for those that their own
//! scripts make.

use super::text::{Addresses, CSS, Change, REFRESH, begins, scan};

/// Longest name of a tag or an attribute that is told apart.
const MAX_NAME: usize = 16;
/// What may come before what says that a text is a page, beside white space.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What stands in a page before all of its own scripts.
const SCRIPT: &str = include_str!("page.js");

/// What an attribute's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    Address,
    /// Addresses with sizes, with commas between; and such a size.
    Set,
    Sized,
    Style,
    Refresh,
}

/// Where in a page one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Text,
    Comment,
    /// In a tag, before an attribute.
    Tag,
    Name,
    /// After an attribute's name.
    Named,
    /// After `=`.
    Equals,
    /// In a value that this ends; 0: white space or `>`.
    Value(u8),
    /// In what is no markup until the tag that ends it.
    Raw,
}

#[derive(Debug)]
pub(super) struct Html {
    addresses: Addresses,
    held: Vec<u8>,
    at: At,
    tag: Vec<u8>,
    name: Vec<u8>,
    kind: Kind,
    /// An address begins here.
    begins: bool,
    /// The last byte of an address in a set was a comma.
    comma: bool,
    script: Script,
}

/// Whether our script still has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    /// If this turns out to be a whole page, and not a part of one.
    IfPage,
    Waits,
    Done,
}

impl Html {
    /// `page`: it may be a page of its own, with scripts.
    pub(super) fn new(addresses: Addresses, page: bool) -> Self {
        Self {
            addresses,
            held: Vec::new(),
            at: At::Text,
            tag: Vec::new(),
            name: Vec::new(),
            kind: Kind::Other,
            begins: false,
            comma: false,
            script: if page { Script::IfPage } else { Script::Done },
        }
    }

    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let done = self.read(&held, false, out);
        self.held.extend_from_slice(&held[done..]);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let done = self.read(&held, true, out);
        out.extend_from_slice(&held[done..]);
    }

    /// Copies what can be told; returns how much that is.
    fn read(&mut self, all: &[u8], whole: bool, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while at < all.len() {
            let rest = &all[at..];
            let Some(done) = self.step(rest, whole, out) else { break };
            at += done;
        }
        at
    }

    /// One step: how many bytes it took; `None` if more are needed.
    fn step(&mut self, rest: &[u8], whole: bool, out: &mut Vec<u8>) -> Option<usize> {
        match self.at {
            At::Text => self.text(rest, whole, out),
            At::Comment => {
                let end = rest.windows(3).position(|w| w == b"-->");
                let len = match end {
                    Some(end) => end + 3,
                    None if whole => rest.len(),
                    None => rest.len().saturating_sub(2),
                };
                if end.is_some() {
                    self.at = At::Text;
                }
                if len == 0 { None } else { copy(rest, len, out) }
            }
            At::Raw => self.raw(rest, whole, out),
            At::Tag => match rest[0] {
                b'>' => self.close(rest, out),
                b if b.is_ascii_whitespace() || b == b'/' => copy(rest, 1, out),
                _ => {
                    if begins(rest, b"integrity", whole)? {
                        // A digest says nothing of what has changed on its way, and can't be
                        // looked at where the page is of no origin.
                        out.extend_from_slice(b"data-");
                    }
                    self.name.clear();
                    self.at = At::Name;
                    Some(0)
                }
            },
            At::Name => {
                let is_end = |b: &u8| b.is_ascii_whitespace() || b"=>/".contains(b);
                let len = rest.iter().position(is_end).unwrap_or(rest.len());
                keep(&mut self.name, &rest[..len]);
                if len < rest.len() {
                    self.kind = kind(&self.tag, &self.name);
                    self.at = At::Named;
                }
                copy(rest, len, out)
            }
            At::Named => match rest[0] {
                b'=' => {
                    self.at = At::Equals;
                    copy(rest, 1, out)
                }
                b if b.is_ascii_whitespace() => copy(rest, 1, out),
                _ => {
                    self.at = At::Tag;
                    Some(0)
                }
            },
            At::Equals => match rest[0] {
                b if b.is_ascii_whitespace() => copy(rest, 1, out),
                b'>' => {
                    self.at = At::Tag;
                    Some(0)
                }
                b => {
                    let mark = if b == b'"' || b == b'\'' { b } else { 0 };
                    self.at = At::Value(mark);
                    (self.begins, self.comma) = (true, false);
                    copy(rest, usize::from(mark != 0), out)
                }
            },
            At::Value(mark) => self.value(rest, mark, whole, out),
        }
    }

    /// Text, up to the next tag.
    fn text(&mut self, rest: &[u8], whole: bool, out: &mut Vec<u8>) -> Option<usize> {
        let found = rest.iter().position(|b| *b == b'<').unwrap_or(rest.len());
        if found > 0 {
            let is_blank = |b: &u8| b.is_ascii_whitespace() || BYTE_ORDER_MARK.contains(b);
            if self.script == Script::IfPage && !rest[..found].iter().all(is_blank) {
                self.script = Script::Done;
            }
            return copy(rest, found, out);
        }
        if begins(rest, b"<!--", whole)? {
            self.at = At::Comment;
            return copy(rest, 4, out);
        }
        let first = match rest.get(1) {
            Some(first) => *first,
            None if whole => return copy(rest, 1, out),
            None => return None,
        };
        if !(first.is_ascii_alphabetic() || first == b'/' || first == b'!' || first == b'?') {
            return copy(rest, 1, out);
        }
        let is_name = |b: &&u8| !b.is_ascii_whitespace() && !b"/>".contains(b);
        let len = 2 + rest[2..].iter().take(MAX_NAME).take_while(is_name).count();
        if len == rest.len() && !whole && len < 2 + MAX_NAME {
            return None;
        }
        self.tag = rest[1..len].to_ascii_lowercase();
        self.page(out);
        self.at = At::Tag;
        copy(rest, len, out)
    }

    /// Whether our script comes before this tag.
    fn page(&mut self, out: &mut Vec<u8>) {
        let begins = matches!(&*self.tag, b"!doctype" | b"html");
        self.script = match self.script {
            Script::IfPage if begins => Script::Waits,
            Script::IfPage => Script::Done,
            other => other,
        };
        let is_element = self.tag.first().is_some_and(u8::is_ascii_alphabetic);
        if self.script == Script::Waits && is_element && !begins && self.tag != b"head" {
            self.put_script(out);
        }
    }

    fn put_script(&mut self, out: &mut Vec<u8>) {
        self.script = Script::Done;
        let prefix = String::from_utf8_lossy(self.addresses.prefix());
        // No quotation mark and no tag is in a path of ours.
        out.extend_from_slice(b"<script>");
        out.extend_from_slice(SCRIPT.trim().replace("PREFIX", &prefix).as_bytes());
        out.extend_from_slice(b"</script>");
    }

    /// The end of a tag.
    fn close(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        out.push(rest[0]);
        let raw =
            [&b"script"[..], b"style", b"textarea", b"title", b"xmp", b"iframe", b"noembed", b"noframes"];
        self.at = if raw.contains(&&*self.tag) { At::Raw } else { At::Text };
        if self.tag == b"head" && self.script == Script::Waits {
            self.put_script(out);
        }
        Some(1)
    }

    /// What is no markup; styles have addresses.
    fn raw(&mut self, rest: &[u8], whole: bool, out: &mut Vec<u8>) -> Option<usize> {
        let ends = [b"</", &*self.tag].concat();
        let end = rest.windows(ends.len()).position(|w| w.eq_ignore_ascii_case(&ends));
        let len = match end {
            Some(0) => {
                self.at = At::Text;
                return Some(0);
            }
            Some(len) => len,
            None if whole => rest.len(),
            None => rest.len().saturating_sub(ends.len() - 1),
        };
        if len == 0 {
            return None;
        }
        if self.tag == b"style" {
            let done = scan(&rest[..len], CSS, &self.addresses, whole || end.is_some(), out);
            return (done > 0).then_some(done);
        }
        copy(rest, len, out)
    }

    /// An attribute's value.
    fn value(&mut self, rest: &[u8], mark: u8, whole: bool, out: &mut Vec<u8>) -> Option<usize> {
        let is_end = |b: &u8| match mark {
            0 => b.is_ascii_whitespace() || *b == b'>',
            mark => *b == mark,
        };
        let end = rest.iter().position(is_end);
        if end == Some(0) {
            self.at = At::Tag;
            return copy(rest, usize::from(mark != 0), out);
        }
        let value = &rest[..end.unwrap_or(rest.len())];
        let whole = whole || end.is_some();
        match self.kind {
            Kind::Other => copy(rest, value.len(), out),
            Kind::Style | Kind::Refresh => {
                let words = if self.kind == Kind::Style { CSS } else { REFRESH };
                let done = scan(value, words, &self.addresses, whole, out);
                (done > 0).then_some(done)
            }
            Kind::Address | Kind::Set if self.begins => {
                if value[0].is_ascii_whitespace() || self.kind == Kind::Set && value[0] == b',' {
                    return copy(rest, 1, out);
                }
                let (skipped, with) = match self.addresses.look(value, whole) {
                    Change::More => return None,
                    Change::Nothing => (0, &b""[..]),
                    Change::Replace(skipped, with) => (skipped, with),
                };
                out.extend_from_slice(with);
                self.begins = false;
                Some(skipped)
            }
            Kind::Address => copy(rest, value.len(), out),
            // A comma within an address is not followed by white space.
            Kind::Set if value[0].is_ascii_whitespace() => {
                self.begins = self.comma;
                self.kind = if self.comma { Kind::Set } else { Kind::Sized };
                copy(rest, 1, out)
            }
            Kind::Set => {
                let len = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
                self.comma = value[len - 1] == b',';
                copy(rest, len, out)
            }
            Kind::Sized => {
                let comma = value.iter().position(|b| *b == b',');
                if comma.is_some() {
                    (self.kind, self.begins) = (Kind::Set, true);
                }
                copy(rest, comma.map_or(value.len(), |n| n + 1), out)
            }
        }
    }
}

fn copy(rest: &[u8], len: usize, out: &mut Vec<u8>) -> Option<usize> {
    out.extend_from_slice(&rest[..len]);
    Some(len)
}

/// Remembers the beginning of a name.
fn keep(name: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_NAME.saturating_sub(name.len());
    name.extend(more.iter().take(room).map(u8::to_ascii_lowercase));
}

fn kind(tag: &[u8], name: &[u8]) -> Kind {
    match name {
        b"href" | b"src" | b"action" | b"formaction" | b"poster" | b"background" | b"manifest"
        | b"xlink:href" => Kind::Address,
        b"data" if tag == b"object" => Kind::Address,
        b"srcset" | b"imagesrcset" => Kind::Set,
        b"style" => Kind::Style,
        b"content" if tag == b"meta" => Kind::Refresh,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces(text: &[u8], len: usize) -> Vec<u8> {
        let mut html = Html::new(Addresses::new("/preview/~k", 3000).expect("short"), true);
        let mut out = Vec::new();
        for piece in text.chunks(len.max(1)) {
            html.push(piece, &mut out);
            assert!(html.held.len() <= 1024, "{} bytes are held back", html.held.len());
        }
        html.finish(&mut out);
        out
    }

    fn led(text: &str) -> String {
        let out = in_pieces(text.as_bytes(), text.len());
        for len in [1, 2, 7] {
            assert_eq!(in_pieces(text.as_bytes(), len), out, "{text} in pieces of {len}");
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn absolute_paths_of_pages_are_led_back() {
        for (text, want) in [
            (r#"<a href="/x">/x</a>"#, r#"<a href="/preview/~k/x">/x</a>"#),
            ("<a href=/x>", "<a href=/preview/~k/x>"),
            ("<a href = '/'>", "<a href = '/preview/~k/'>"),
            ("<A HREF=/x>", "<A HREF=/preview/~k/x>"),
            ("<a href=' /x'>", "<a href=' /preview/~k/x'>"),
            ("<a href=x>", "<a href=x>"),
            ("<a href='//cdn/x'>", "<a href='//cdn/x'>"),
            ("<a href='https://e.org/x'>", "<a href='https://e.org/x'>"),
            ("<a href=\"http://localhost:3000/x\">", "<a href=\"/preview/~k/x\">"),
            ("<a href='http://localhost:3000'>", "<a href='/preview/~k'>"),
            (
                "<a href='http://localhost:3000.evil.example/'>",
                "<a href='http://localhost:3000.evil.example/'>",
            ),
            ("<a href='/preview/~k/x'>", "<a href='/preview/~k/x'>"),
            ("<base href=/>", "<base href=/preview/~k/>"),
            ("<form action='/f' method=post>", "<form action='/preview/~k/f' method=post>"),
            (
                "<img srcset='/a 1x, b 2x,/c 3x' src=/d>",
                "<img srcset='/preview/~k/a 1x, b 2x,/preview/~k/c 3x' src=/preview/~k/d>",
            ),
            (
                "<img srcset='/a, /b 2x, data:image/png;base64,/9j/ 3x'>",
                "<img srcset='/preview/~k/a, /preview/~k/b 2x, data:image/png;base64,/9j/ 3x'>",
            ),
            ("<p style='background:url(/a)'>", "<p style='background:url(/preview/~k/a)'>"),
            ("<p style=\"b:url(&quot;/a&quot;)\">", "<p style=\"b:url(&quot;/preview/~k/a&quot;)\">"),
            ("<style>a{b:url(/a)}</style>", "<style>a{b:url(/preview/~k/a)}</style>"),
            ("<script>f('<a href=/x>')</script>", "<script>f('<a href=/x>')</script>"),
            ("<textarea><a href=/x></textarea>", "<textarea><a href=/x></textarea>"),
            ("<!-- <a href=/x> --><a href=/y>", "<!-- <a href=/x> --><a href=/preview/~k/y>"),
            (
                "<meta http-equiv=refresh content='0; URL=/x'>",
                "<meta http-equiv=refresh content='0; URL=/preview/~k/x'>",
            ),
            ("<script integrity=x src=/a></script>", "<script data-integrity=x src=/preview/~k/a></script>"),
            ("<p data-href=/x title=/y>", "<p data-href=/x title=/y>"),
            ("1 < 2 </p <a href=/x", "1 < 2 </p <a href=/preview/~k/x"),
            ("<", "<"),
            ("<a href=", "<a href="),
            ("<a href=/", "<a href=/preview/~k/"),
        ] {
            assert_eq!(led(text), want, "{text}");
        }
    }

    #[test]
    fn our_script_comes_before_those_of_a_page_and_into_no_part_of_one() {
        for (text, before) in [
            ("<!doctype html><html><head><script src=/a></script>", "<!doctype html><html><head>"),
            ("<!DOCTYPE html>\n<title>x</title>", "<!DOCTYPE html>\n"),
            ("<html lang=en><body>", "<html lang=en>"),
        ] {
            let out = led(text);
            assert!(out.starts_with(&format!("{before}<script>")), "{out}");
            assert_eq!(out.matches("/preview/~k\"").count(), 1, "{out}");
        }
        for text in ["<p>part</p>", "text", "<li><script>f()</script>"] {
            assert_eq!(led(text), text);
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in "(<|>|/|\"|'|=| |a|href|src=|style|</style>|url\\(|<!--|-->|/x|script|srcset|,|http://localhost:3000|&quot;|<!doctype html>){0,40}",
            len in 1usize..9,
        ) {
            prop_assert_eq!(in_pieces(text.as_bytes(), len), in_pieces(text.as_bytes(), text.len()));
        }
    }
}
