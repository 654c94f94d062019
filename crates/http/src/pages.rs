//! The web pages that the program brings along: each file once, scripts and styles compressed
//! as nearly every browser takes them. `web/` builds them.

use std::borrow::Cow;
use std::io::Read as _;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use rust_embed::Embed;

#[derive(Embed)]
#[folder = "../../web/dist"]
// Their compressed forms lie beside them.
#[exclude = "*.js"]
#[exclude = "*.css"]
#[exclude = "*.svg"]
struct Files;

/// The text of a page, such as `index.html`.
pub fn page(name: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&Files::get(name)?.data).into_owned())
}

/// A file that pages load, such as `assets/index-1a2b.js`, for whoever sent these headers. What
/// was built under a name stays the same: the answer may be kept for ever. `None` if there is no
/// file of the name.
pub fn asset(path: &str, asked: &HeaderMap) -> Option<Response> {
    let mut response = match Files::get(&format!("{path}.gz")) {
        Some(file) => compressed(file.data, takes_gzip(asked))?,
        None => Response::new(Body::from(Files::get(path)?.data)),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(path)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    Some(response)
}

/// A file that browsers look for beside a page, under a name that stays when it changes.
pub fn beside(name: &str) -> Option<Response> {
    let mut response = Response::new(Body::from(Files::get(name)?.data));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    Some(response)
}

fn compressed(gzip: Cow<'static, [u8]>, takes_gzip: bool) -> Option<Response> {
    let mut response = if takes_gzip {
        Response::new(Body::from(gzip))
    } else {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*gzip).read_to_end(&mut plain).ok()?;
        Response::new(Body::from(plain))
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if takes_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Some(response)
}

/// Whether an answer may be compressed. `gzip` counts before `*`, and a weight of zero means no.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let said = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut gzip, mut any) = (None, None);
    for one in said.flat_map(|value| value.split(',')) {
        let mut parts = one.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let wanted = parts.all(|part| !is_zero_weight(part));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(wanted);
        } else if name == "*" {
            any = Some(wanted);
        }
    }
    gzip.or(any).unwrap_or(false)
}

fn is_zero_weight(part: &str) -> bool {
    part.split_once('=').is_some_and(|(name, weight)| {
        name.trim().eq_ignore_ascii_case("q")
            && weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0)
    })
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_takes_gzip_gets_it() {
        for (said, want) in [
            (&["gzip, deflate, br, zstd"][..], true),
            (&["br", "GZip;q=0.5"], true),
            (&["deflate , x-gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000, *"], false),
            (&["*;q=0.1"], true),
            (&["*;q=0"], false),
            (&["gzipped, br"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(takes_gzip(&headers), want, "{said:?}");
        }
    }

    #[test]
    fn a_script_is_the_same_compressed_or_not() {
        let name = Files::iter().find(|name| name.ends_with(".js.gz")).expect("pages are built (`make web`)");
        let path = name.trim_end_matches(".gz");
        let mut takes = HeaderMap::new();
        takes.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let (small, plain) = (asset(path, &takes), asset(path, &HeaderMap::new()));
        let (small, plain) = (small.expect("a script"), plain.expect("a script"));
        assert_eq!(small.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        for response in [&small, &plain] {
            assert_eq!(response.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
            assert_eq!(response.headers()[header::VARY], "Accept-Encoding");
        }
        assert!(asset("assets/../index.html.js", &takes).is_none());
        // What is compressed is not there twice.
        assert!(Files::get(path).is_none());
    }
}
