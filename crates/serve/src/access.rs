//! Who may connect (`docs/protocols/workspace.md` §2).

use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

use crate::client::Rights;

/// Who may do what.
#[derive(Clone, Default)]
pub struct Access {
    /// Digests of the tokens that let work and look.
    work: Option<[u8; 32]>,
    look: Option<[u8; 32]>,
    /// Other origins whose pages may connect when there is no token.
    origins: Vec<String>,
    /// Only this machine can reach us, so every name but its own is somebody else's.
    loopback: bool,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("token", &self.work.is_some()).field("origins", &self.origins).finish()
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Access {
    /// `work` and `look` are tokens; `origins` a list like that of `ALLOWED_ORIGINS`.
    pub fn new(work: Option<&str>, look: Option<&str>, origins: &[String], loopback: bool) -> Self {
        let origins = origins.iter().map(|o| o.trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { work: work.map(digest), look: look.map(digest), origins, loopback }
    }

    /// Whether a token is asked for.
    pub fn has_token(&self) -> bool {
        self.work.is_some()
    }

    /// What a token allows; `None` if it is wrong, or missing where there must be one.
    pub(crate) fn rights(&self, token: Option<&str>) -> Option<Rights> {
        let Some(work) = self.work else { return Some(Rights::Work) };
        // Digests are compared, so that the time it takes tells nothing of the token.
        let given = digest(token?);
        if given == work {
            Some(Rights::Work)
        } else if self.look == Some(given) {
            Some(Rights::Look)
        } else {
            None
        }
    }

    /// Whether a request of a page from elsewhere is served. With a token it always is:
    /// the page must have been given it.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        if self.has_token() {
            return true;
        }
        let origin = match headers.get(header::ORIGIN).map(|v| v.to_str()) {
            None => return self.admits_fetch(headers),
            Some(Ok(origin)) => origin.trim_end_matches('/').to_ascii_lowercase(),
            Some(Err(_)) => return false,
        };
        if self.origins.iter().any(|o| o == "*" || *o == origin) {
            return true;
        }
        own_origin(headers).is_some_and(|own| own.contains(&origin))
            && headers.get(header::HOST).and_then(|h| h.to_str().ok()).is_some_and(|h| self.is_own_name(h))
    }

    /// Browsers send no `Origin` with some requests, but say where they come from.
    fn admits_fetch(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let from_browser = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
        match from_browser {
            None => true,
            Some("same-origin" | "none") => host.is_some_and(|h| self.is_own_name(h)),
            Some(_) => false,
        }
    }

    /// A name that a page elsewhere could not have been given an address for: else its
    /// owner could point the name here, and be of our own origin.
    fn is_own_name(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        !self.loopback
            || name.eq_ignore_ascii_case("localhost")
            || name.to_ascii_lowercase().ends_with(".localhost")
            || name.parse::<std::net::IpAddr>().is_ok()
            || self
                .origins
                .iter()
                .any(|o| o == "*" || o.split_once("://").is_some_and(|(_, h)| h.eq_ignore_ascii_case(host)))
    }

    /// Says to browsers what they may show to pages from elsewhere.
    pub(crate) fn cors(&self, origin: Option<&HeaderValue>, response: &mut Response) {
        let headers = response.headers_mut();
        if self.has_token() || self.origins.iter().any(|o| o == "*") {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }

    /// What `OPTIONS` answers beside.
    pub(crate) fn preflight(response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS, PATCH, HEAD"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "authorization, content-type, range, if-match, if-none-match, tus-resumable, upload-length, \
                 upload-offset, upload-metadata",
            ),
        );
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "etag, content-range, location, tus-resumable, upload-offset, upload-length, upload-expires",
            ),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }

    /// Whether requests with this method change nothing.
    pub(crate) fn is_safe(method: &Method) -> bool {
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

/// The origins this request's own address has.
fn own_origin(headers: &HeaderMap) -> Option<[String; 2]> {
    let host = headers.get(header::HOST)?.to_str().ok()?.to_ascii_lowercase();
    // Behind an ingress that speaks TLS we see plain HTTP.
    Some([format!("http://{host}"), format!("https://{host}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (header::HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn tokens_say_what_may_be_done() {
        let open = Access::new(None, None, &[], true);
        assert_eq!(open.rights(None), Some(Rights::Work));
        let access = Access::new(Some("secret"), Some("viewer"), &[], true);
        for (token, want) in [
            (Some("secret"), Some(Rights::Work)),
            (Some("viewer"), Some(Rights::Look)),
            (Some("secre"), None),
            (Some(""), None),
            (None, None),
        ] {
            assert_eq!(access.rights(token), want, "{token:?}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_refused_without_a_token() {
        let access = Access::new(None, None, &["https://ide.example".into()], true);
        for (pairs, want) in [
            (&[("host", "127.0.0.1:3001")][..], true),
            (&[("host", "127.0.0.1:3001"), ("origin", "http://127.0.0.1:3001")], true),
            (&[("host", "localhost:3001"), ("origin", "http://localhost:3001")], true),
            (&[("host", "[::1]:3001"), ("origin", "http://[::1]:3001")], true),
            (&[("host", "127.0.0.1:3001"), ("origin", "http://127.0.0.1:3000")], false),
            (&[("host", "127.0.0.1:3001"), ("origin", "https://evil.example")], false),
            (&[("host", "127.0.0.1:3001"), ("origin", "null")], false),
            (&[("host", "127.0.0.1:3001"), ("origin", "https://ide.example")], true),
            // A name of somebody else's that leads here.
            (&[("host", "evil.example:3001"), ("origin", "http://evil.example:3001")], false),
            (&[("host", "evil.example:3001"), ("sec-fetch-site", "same-origin")], false),
            (&[("host", "127.0.0.1:3001"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "127.0.0.1:3001"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "127.0.0.1:3001"), ("sec-fetch-site", "none")], true),
        ] {
            assert_eq!(access.admits(&headers(pairs)), want, "{pairs:?}");
        }
        // Where others can reach us, an ingress gives us a name.
        let ingress = Access::new(None, None, &[], false);
        assert!(ingress.admits(&headers(&[("host", "a.example"), ("origin", "https://a.example")])));
        assert!(!ingress.admits(&headers(&[("host", "a.example"), ("origin", "https://b.example")])));
        assert!(
            Access::new(Some("t"), None, &[], true).admits(&headers(&[("origin", "https://any.example")]))
        );
        assert!(
            Access::new(None, None, &["*".into()], true)
                .admits(&headers(&[("origin", "https://any.example")]))
        );
    }
}
