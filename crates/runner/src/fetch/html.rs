//! HTML as Markdown, and as bare text.

use std::time::{Duration, Instant};

use html5ever::tendril::TendrilSink;
use markup5ever_rcdom::{Handle, RcDom};

/// Pages nested deeper than this are shown as text: converting recurses.
const MAX_DEPTH: usize = 400;

/// Parsing takes time that grows with the square of the depth; a page that takes
/// longer than this is shown as text as well.
const PARSE_BUDGET: Duration = Duration::from_secs(2);
/// How much is parsed between two looks at the clock.
const PARSE_STEP: usize = 8 * 1024;

/// CommonMark, with no more than one empty line in a row.
pub(super) fn to_markdown(html: &str) -> String {
    if !is_ordinary(html) {
        return to_text(html);
    }
    let converter = htmd::HtmlToMarkdown::builder()
        .skip_tags(vec!["script", "style", "noscript", "template", "iframe", "svg", "head"])
        .build();
    match converter.convert(html) {
        Ok(markdown) => squeeze(&markdown).trim().to_owned(),
        Err(_) => to_text(html),
    }
}

/// Whether a page can be converted in reasonable time and depth: the converter, which
/// knows no bounds, only sees such.
fn is_ordinary(html: &str) -> bool {
    let start = Instant::now();
    let mut parser = html5ever::parse_document(RcDom::default(), Default::default());
    let mut rest = html;
    while !rest.is_empty() {
        if start.elapsed() > PARSE_BUDGET {
            return false;
        }
        let cut = (PARSE_STEP..rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (step, after) = rest.split_at(cut);
        parser.process(step.into());
        rest = after;
    }
    depth(&parser.finish().document) <= MAX_DEPTH
}

/// How deep elements nest, found without recursing.
fn depth(root: &Handle) -> usize {
    let mut deepest = 0;
    let mut open: Vec<(Handle, usize)> = vec![(root.clone(), 0)];
    while let Some((node, depth)) = open.pop() {
        deepest = deepest.max(depth);
        open.extend(node.children.borrow().iter().map(|child| (child.clone(), depth + 1)));
    }
    deepest
}

/// Three newlines and more become two.
fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut newlines = 0;
    for c in text.chars() {
        newlines = if c == '\n' { newlines + 1 } else { 0 };
        if newlines <= 2 {
            out.push(c);
        }
    }
    out
}

/// The text between tags: scripts and styles left out, the commonest entities
/// decoded, white space squeezed.
pub(super) fn to_text(html: &str) -> String {
    let mut bare = String::with_capacity(html.len() / 2);
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        bare.push_str(&rest[..at]);
        rest = &rest[at..];
        let hidden = ["script", "style"].iter().find(|name| opens(rest, name));
        rest = match hidden {
            Some(name) => after_closing(rest, name),
            None if rest.starts_with("<!--") => rest.split_once("-->").map_or("", |(_, after)| after),
            None => match rest.find('>') {
                Some(end) => &rest[end + 1..],
                None => "",
            },
        };
        // What stood in different elements is no single word.
        bare.push(' ');
    }
    bare.push_str(rest);
    let mut decoded = bare;
    for (entity, text) in
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        decoded = decoded.replace(entity, text);
    }
    decoded.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn opens(text: &str, name: &str) -> bool {
    let tag = text.as_bytes().get(1..1 + name.len());
    tag.is_some_and(|tag| tag.eq_ignore_ascii_case(name.as_bytes()))
        && text.as_bytes().get(1 + name.len()).is_none_or(|b| !b.is_ascii_alphanumeric())
}

fn after_closing<'a>(text: &'a str, name: &str) -> &'a str {
    let mut rest = &text[1..];
    while let Some(at) = rest.find("</") {
        rest = &rest[at + 1..];
        let tag = rest.as_bytes().get(1..1 + name.len());
        if tag.is_some_and(|tag| tag.eq_ignore_ascii_case(name.as_bytes())) {
            return rest.find('>').map_or("", |end| &rest[end + 1..]);
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<html><head><title>T</title><style>p{}</style></head><body><h1>Head</h1>\n\
        <script>if (a < b) { alert(\"</p>\") }</script><p>One &amp; <b>two</b><br><a href=\"/x\">link</a></p>\
        <!-- <p>hidden</p> --><ul><li>a</li><li>b</li></ul>\n\n\n\n<p>end&nbsp;</p></body></html>";

    #[test]
    fn a_page_becomes_markdown() {
        let markdown = to_markdown(PAGE);
        assert!(markdown.starts_with("# Head\n\nOne & **two**"), "{markdown}");
        assert!(markdown.contains("[link](/x)") && markdown.contains("a\n"), "{markdown}");
        for absent in ["alert", "hidden", "p{}", "\n\n\n"] {
            assert!(!markdown.contains(absent), "{markdown}");
        }
    }

    #[test]
    fn a_page_becomes_text() {
        assert_eq!(to_text(PAGE), "T Head One & two link a b end");
        assert_eq!(to_text("a < b"), "a");
        assert_eq!(to_text("<STYLE >x</style\n>y"), "y");
        assert_eq!(to_text("&amp;lt;"), "&lt;");
        assert_eq!(to_text("<scripted>é</scripted>"), "é");
    }

    #[test]
    fn a_page_nested_without_end_ends() {
        for tags in ["<div>", "<ul><li>", "<div><select></div></select>"] {
            let start = Instant::now();
            let text = to_markdown(&format!("{}x", tags.repeat(100_000)));
            assert!(text.ends_with('x') && text.len() < 10, "{tags}");
            assert!(start.elapsed() < 10 * PARSE_BUDGET, "{tags}: {:?}", start.elapsed());
        }
    }
}
