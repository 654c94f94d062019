//! Below a path an application's absolute addresses lead out of its preview. Those in its pages
//! and style sheets are led back in as they pass: in pieces, with a few bytes held back at most.

mod html;
mod text;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;

use html::Html;
use text::{Addresses, CSS, REFRESH, Scanner};

/// What is done with a body.
enum Rewriter {
    Html(Box<Html>),
    Css(Scanner, Addresses),
}

impl Rewriter {
    /// The rewriter of what these headers describe, if there is one.
    fn of(headers: &HeaderMap, before: &str, port: u16) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next()?.trim().to_ascii_lowercase();
        let addresses = Addresses::new(before, port)?;
        match &*kind {
            "text/html" | "application/xhtml+xml" => Some(Self::Html(Box::new(Html::new(addresses, true)))),
            "image/svg+xml" => Some(Self::Html(Box::new(Html::new(addresses, false)))),
            "text/css" => Some(Self::Css(Scanner::new(CSS), addresses)),
            _ => None,
        }
    }

    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Html(html) => html.push(piece, out),
            Self::Css(scanner, addresses) => scanner.push(piece, addresses, out),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Html(html) => html.finish(out),
            Self::Css(scanner, addresses) => scanner.finish(addresses, out),
        }
    }
}

/// Asks for answers that can be read as they pass.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Leads the addresses of an answer back below `before`.
pub(super) fn answer(mut response: Response, before: &str, port: u16) -> Response {
    for (name, tokens) in [(header::REFRESH, REFRESH), (header::LINK, text::LINK)] {
        of_header(response.headers_mut(), &name, tokens, before, port);
    }
    let headers = response.headers();
    let is_plain = headers.get(header::CONTENT_ENCODING).is_none_or(|e| e == "identity");
    let is_part = response.status() == axum::http::StatusCode::PARTIAL_CONTENT;
    let Some(rewriter) = Rewriter::of(headers, before, port).filter(|_| is_plain && !is_part) else {
        return response;
    };
    for name in [header::CONTENT_LENGTH, header::ACCEPT_RANGES] {
        response.headers_mut().remove(name);
    }
    response.map(|body| {
        let pieces =
            futures_util::stream::unfold(Some((body.into_data_stream(), rewriter)), |state| async move {
                let (mut pieces, mut rewriter) = state?;
                let mut out = Vec::new();
                let next = match pieces.next().await {
                    Some(Ok(piece)) => {
                        rewriter.push(&piece, &mut out);
                        Some((pieces, rewriter))
                    }
                    Some(Err(error)) => return Some((Err(error), None)),
                    None => {
                        rewriter.finish(&mut out);
                        None
                    }
                };
                Some((Ok(Bytes::from(out)), next))
            });
        Body::from_stream(pieces.filter(|piece| {
            let keep = !matches!(piece, Ok(piece) if piece.is_empty());
            std::future::ready(keep)
        }))
    })
}

/// The same for the addresses in a header.
fn of_header(
    headers: &mut HeaderMap,
    name: &header::HeaderName,
    tokens: &'static [&'static [u8]],
    before: &str,
    port: u16,
) {
    let Some(addresses) = Addresses::new(before, port) else { return };
    let said: Vec<Vec<u8>> = headers.get_all(name).iter().map(|v| v.as_bytes().to_vec()).collect();
    headers.remove(name);
    for said in said {
        let mut out = Vec::new();
        let mut scanner = Scanner::new(tokens);
        scanner.push(&said, &addresses, &mut out);
        scanner.finish(&addresses, &mut out);
        if let Ok(value) = HeaderValue::from_bytes(&out) {
            headers.append(name, value);
        }
    }
}

/// Reads a page in two pieces, and at once: for the fuzzer, who sees whether that differs.
pub(crate) fn fuzz(data: &[u8]) {
    let outs = [data.len(), data.len() / 2, 1].map(|len| {
        let addresses = Addresses::new("/preview/5173~key", 5173);
        let mut html = Html::new(addresses.unwrap_or_default(), true);
        let mut out = Vec::new();
        for piece in data.chunks(len.max(1)) {
            html.push(piece, &mut out);
        }
        html.finish(&mut out);
        out
    });
    assert!(outs.iter().all(|out| *out == outs[0]), "pieces make no difference");
}
