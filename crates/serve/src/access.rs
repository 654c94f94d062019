//! Who may connect (`docs/protocols/workspace.md` §2).

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use legwork_socketio::Trust;
use sha2::{Digest, Sha256};

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Everything.
    Work,
    /// Look, and change nothing.
    Look,
}

impl Rights {
    /// How far they are trusted on the wire.
    pub(crate) fn trust(self) -> Trust {
        match self {
            Self::Work => Trust::Works,
            Self::Look => Trust::Looks,
        }
    }
}

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

    /// Whether a request's address is one by which this machine knows itself. On loopback
    /// nobody else can have given us a name, so a request for another one is of a page whose
    /// name was pointed here after it was loaded: to its browser it is of our own origin,
    /// and neither `Origin` nor `Sec-Fetch-Site` tells. What has no name is no browser's.
    pub(crate) fn is_addressed(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let said = headers.get_all(header::HOST).iter().map(|h| h.to_str().unwrap_or_default());
        said.chain(uri.authority().map(Authority::as_str)).all(|host| self.is_own_name(host))
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
    }

    /// Browsers send no `Origin` with some requests, but say where they come from.
    fn admits_fetch(&self, headers: &HeaderMap) -> bool {
        let from_browser = headers.get("sec-fetch-site").map(|v| v.to_str().unwrap_or_default());
        matches!(from_browser, None | Some("same-origin" | "none"))
    }

    /// A name that a page elsewhere could not have been given an address for: else its
    /// owner could point the name here, and be of our own origin.
    fn is_own_name(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((name, port)) if port.is_empty() || port.starts_with(':') => name,
                _ => return !self.loopback,
            },
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
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
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(header::HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
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

    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        let access = |token| Access::new(token, None, &["https://ide.example".into()], true);
        for (host, want) in [
            ("127.0.0.1:3001", true),
            ("localhost", true),
            ("LOCALHOST.:3001", true),
            ("app.localhost:3001", true),
            ("[::1]:3001", true),
            ("ide.example", true),
            ("evil.example:3001", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:3001", false),
            ("evil-localhost:3001", false),
            ("[::1].evil.example", false),
            ("ide.example.evil.example", false),
            ("", false),
        ] {
            for token in [None, Some("t")] {
                let own = headers(&[("host", host)]);
                assert_eq!(access(token).is_addressed(&Uri::from_static("/files"), &own), want, "{host:?}");
            }
        }
        let own = headers(&[("host", "127.0.0.1")]);
        assert!(!access(None).is_addressed(&Uri::from_static("http://evil.example/files"), &own));
        let two = headers(&[("host", "127.0.0.1"), ("host", "evil.example")]);
        assert!(!access(None).is_addressed(&Uri::from_static("/files"), &two));
        // No browser's; and where others can reach us an ingress gives us a name.
        assert!(access(None).is_addressed(&Uri::from_static("/files"), &headers(&[])));
        let ingress = Access::new(None, None, &[], false);
        assert!(ingress.is_addressed(&Uri::from_static("/files"), &headers(&[("host", "a.example")])));
    }
}
