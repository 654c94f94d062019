//! Web pages for a controller (docs/protocols/dialout.md §8, webfetch).

mod html;

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT};

use crate::net::Egress;

/// The largest page.
const MAX_BODY: usize = 5 * 1024 * 1024;
const MAX_REDIRECTS: usize = 10;

/// A page to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// `http://` or `https://`.
    pub url: String,
    /// `markdown`, `text`, `html`; another one means unchanged.
    pub format: String,
    /// For all of it, the body included.
    pub timeout: Duration,
}

/// A fetched page.
pub(crate) struct Page {
    pub(crate) content: String,
    /// After redirects.
    pub(crate) url: String,
}

/// A client for pages; kept, as it holds connections.
pub(crate) fn client(egress: &Egress) -> Result<reqwest::Client, String> {
    let client = egress.client(MAX_REDIRECTS, false).build();
    client.map_err(|e| format!("request failed: {e}"))
}

/// Fetches a page, whatever its status.
pub(crate) async fn fetch(http: &reqwest::Client, egress: &Egress, fetch: &Fetch) -> Result<Page, String> {
    if !fetch.url.starts_with("http://") && !fetch.url.starts_with("https://") {
        return Err("valid http/https url is required".into());
    }
    let url = Url::parse(&fetch.url).map_err(|e| format!("failed to create request: {e}"))?;
    egress.check(&url).map_err(|e| format!("request failed: {e}"))?;
    let getting = get(http, url, &fetch.format);
    let (body, content_type, url) =
        tokio::time::timeout(fetch.timeout, getting).await.map_err(|_| "request timed out".to_owned())??;
    let format = fetch.format.clone();
    // Parsing megabytes of markup is no work for an async thread.
    let content = tokio::task::spawn_blocking(move || {
        let text = decode(&body, &content_type);
        if !content_type.to_ascii_lowercase().contains("text/html") {
            return text;
        }
        match format.as_str() {
            "markdown" => html::to_markdown(&text),
            "text" => html::to_text(&text),
            _ => text,
        }
    });
    let content =
        content.await.map_err(|_| "failed to read response: the page can't be converted".to_owned())?;
    Ok(Page { content, url })
}

async fn get(http: &reqwest::Client, url: Url, format: &str) -> Result<(Vec<u8>, String, String), String> {
    let accept = match format {
        "markdown" => "text/markdown, text/html;q=0.9, */*;q=0.8",
        "text" => "text/plain, text/html;q=0.9, */*;q=0.8",
        _ => "text/html, */*;q=0.8",
    };
    let request = http
        .get(url)
        .header(
            USER_AGENT,
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/120.0.0.0 Safari/537.36",
        )
        .header(ACCEPT_LANGUAGE, "en-US,en;q=0.9,zh-CN;q=0.8,zh;q=0.7")
        .header(ACCEPT, accept);
    let mut response = request.send().await.map_err(|e| format!("request failed: {}", cause(&e)))?;
    let url = response.url().to_string();
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default();
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|e| format!("failed to read response: {}", cause(&e)))?;
        let Some(chunk) = chunk else { return Ok((body, content_type, url)) };
        if body.len() + chunk.len() > MAX_BODY {
            return Err("response too large (exceeds 5MB limit)".into());
        }
        body.extend_from_slice(&chunk);
    }
}

/// Both conversions, for fuzzing.
pub(crate) fn convert(html: &str) {
    html::to_markdown(html);
    html::to_text(html);
}

/// The innermost reason, which names no URL: it may hold a secret.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    legwork_base::cause::innermost(error).to_string()
}

/// Bytes as text, by the charset of the content type.
fn decode(body: &[u8], content_type: &str) -> String {
    let charset = content_type
        .split(';')
        .filter_map(|part| part.trim().split_once('='))
        .find(|(key, _)| key.eq_ignore_ascii_case("charset"))
        .map(|(_, value)| value.trim_matches(['"', '\'']));
    let encoding = charset
        .and_then(|label| encoding_rs::Encoding::for_label(label.as_bytes()))
        .unwrap_or(encoding_rs::UTF_8);
    encoding.decode(body).0.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_by_its_charset() {
        assert_eq!(decode(b"caf\xe9", "text/html; Charset=\"iso-8859-1\""), "café");
        assert_eq!(decode("café".as_bytes(), "text/html"), "café");
        assert_eq!(decode(b"\xff", "text/plain; charset=nonsense"), "\u{fffd}");
    }
}
