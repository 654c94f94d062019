//! What of a preview's headers is whose.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::door::{self, Door};
use super::mount::Mount;
use crate::access::Access;

/// Headers that are between two hops alone (RFC 9110 §7.6.1).
const HOP: &[HeaderName] = &[
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What says who somebody is to whatever is in front of us, as proxies that sign people in name
/// it: none of the application's business.
const CREDENTIAL_PREFIXES: &[&str] = &[
    "cf-access-",
    "cookie2",
    "proxy-",
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-authentik-",
    "x-forwarded-access-token",
    "x-forwarded-id-token",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-pomerium-",
    "x-vouch-",
];
/// The same of cookies, where nobody has come by our own address yet and been seen with them.
const COOKIE_PREFIXES: &[&str] = &[
    "_forward_auth",
    "_oauth2_proxy",
    "_pomerium",
    "AppServiceAuth",
    "authelia_",
    "authentik_",
    "AWSALB",
    "AWSELB",
    "CF_",
    "GCP_IAAP",
    "__Host-GCP_IAP",
    "INGRESSCOOKIE",
    "VouchCookie",
];
/// What browsers keep for more than the answer it comes with: for a host, for those below it,
/// for all that are of one site.
const OF_THE_SITE: &[&str] = &[
    "alt-svc",
    "clear-site-data",
    "expect-ct",
    "nel",
    "proxy-authenticate",
    "public-key-pins",
    "report-to",
    "reporting-endpoints",
    "sec-session-registration",
    "secure-session-registration",
    "set-cookie2",
    "set-login",
    "strict-transport-security",
];
/// The same for a host alone: no application may say it for ours, any may for its own.
const OF_THE_HOST: &[&str] = &[
    "accept-ch",
    "access-control-allow-credentials",
    "critical-ch",
    "origin-agent-cluster",
    "service-worker-allowed",
    "set-cookie",
    "www-authenticate",
];

/// What an application's cookies are called where they are kept for a path of our own host: so
/// none of them is taken for one of whatever is in front of us.
const OF_THE_APPLICATION: &str = "legwork-app-";

/// Whether somebody in front of us speaks TLS with the browser.
pub(super) fn is_by_tls(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https")
}

pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether the protocol that an answer changes to is one that was asked for.
pub(super) fn agree(asked: Option<&HeaderValue>, answered: &HeaderMap) -> bool {
    let text = |value: &HeaderValue| value.to_str().map(str::to_ascii_lowercase).unwrap_or_default();
    let (Some(asked), Some(answered)) = (asked.map(text), answered.get(header::UPGRADE).map(text)) else {
        return false;
    };
    asked.split(',').any(|protocol| protocol.trim() == answered.trim())
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in HOP {
        headers.remove(name);
    }
}

/// Makes a request the application's: takes from it what is ours, and gives it the address that
/// the application has where it runs. `own` is that address, as a `Host` header has it.
pub(super) fn hide(headers: &mut HeaderMap, mount: &Mount<'_>, own: &str, door: &Door, access: &Access) {
    strip(headers);
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|n| CREDENTIAL_PREFIXES.iter().any(|p| n.as_str().starts_with(p)))
        .cloned()
        .collect();
    for name in named {
        headers.remove(name);
    }
    let local = format!("http://{own}");
    match mount {
        Mount::Path(before) => {
            headers.remove(header::AUTHORIZATION);
            let theirs: Vec<String> = door::cookies(headers)
                .filter_map(|(name, value)| {
                    Some(format!("{}={value}", name.strip_prefix(OF_THE_APPLICATION)?))
                })
                .collect();
            headers.remove(header::COOKIE);
            if !theirs.is_empty() {
                set(headers, header::COOKIE, &theirs.join("; "));
            }
            // The address a page was at has the key in it.
            let at = headers.remove(header::REFERER).and_then(|r| r.to_str().ok().map(str::to_owned));
            if let Some((_, rest)) = at.as_deref().and_then(|at| at.split_once(before)) {
                set(headers, header::REFERER, &format!("{local}{rest}"));
            }
            if headers.contains_key(header::ORIGIN) {
                set(headers, header::ORIGIN, &local);
            }
            set(headers, HeaderName::from_static("x-forwarded-prefix"), before);
        }
        Mount::Host(host) => {
            if !door.is_theirs(access, headers) {
                headers.remove(header::AUTHORIZATION);
            }
            let theirs: Vec<String> = door::cookies(headers)
                .filter(|(name, _)| door.passes(name) && !COOKIE_PREFIXES.iter().any(|p| name.starts_with(p)))
                .map(
                    |(name, value)| {
                        if value.is_empty() { format!("{name}=") } else { format!("{name}={value}") }
                    },
                )
                .collect();
            headers.remove(header::COOKIE);
            if !theirs.is_empty() {
                set(headers, header::COOKIE, &theirs.join("; "));
            }
            // What comes from its own pages does so at its own address, too.
            for name in [header::ORIGIN, header::REFERER] {
                let said = headers.get(&name).and_then(|v| v.to_str().ok()).map(str::to_owned);
                let rest = said.as_deref().and_then(|said| from_own(said, host));
                if let Some(rest) = rest {
                    set(headers, name, &format!("{local}{rest}"));
                }
            }
        }
    }
    if let Some(host) = headers.remove(header::HOST) {
        headers.entry("x-forwarded-host").or_insert(host);
    }
    headers.entry("x-forwarded-proto").or_insert(HeaderValue::from_static("http"));
    set(headers, header::HOST, own);
}

/// What follows the origin of an address, if that is of this host.
fn from_own<'a>(address: &'a str, host: &str) -> Option<&'a str> {
    let rest = address.strip_prefix("http://").or(address.strip_prefix("https://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest[..end].eq_ignore_ascii_case(host).then_some(&rest[end..])
}

/// Takes from an answer what would be about more than the preview.
/// `secure`: to the browser the connection is.
pub(super) fn contain(headers: &mut HeaderMap, mount: &Mount<'_>, secure: bool) {
    strip(headers);
    for name in OF_THE_SITE {
        headers.remove(*name);
    }
    match mount {
        Mount::Path(before) => {
            let kept = kept_cookies(headers, |cookie| below_a_path(cookie, before, secure));
            for name in OF_THE_HOST {
                headers.remove(*name);
            }
            for cookie in kept {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        Mount::Host(host) => {
            // Beside a page of `NAME.localhost` it is of one site with it.
            let name = host.split(':').next().unwrap_or_default();
            let local = name.ends_with(".localhost") && name.split('.').count() == 2;
            let kept = kept_cookies(headers, |cookie| of_the_host(cookie, local));
            headers.remove(header::SET_COOKIE);
            for cookie in kept {
                headers.append(header::SET_COOKIE, cookie);
            }
            unframe(headers);
        }
    }
}

/// The cookies that are set, each made what it may be.
fn kept_cookies(headers: &HeaderMap, made: impl Fn(&str) -> Option<String>) -> Vec<HeaderValue> {
    let all = headers.get_all(header::SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    all.filter_map(|cookie| HeaderValue::from_str(&made(cookie)?).ok()).collect()
}

/// A cookie that is kept for a preview's path alone, where a key is in that; no script reads it.
/// To browsers the sandbox is of another site, so it must say that it may be sent from there.
fn below_a_path(cookie: &str, before: &str, secure: bool) -> Option<String> {
    let mut parts = cookie.split(';').map(str::trim);
    let pair = parts.next().filter(|pair| before.contains('~') && !pair.starts_with('='))?;
    let mut path = "";
    let mut out = format!("{OF_THE_APPLICATION}{pair}");
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match &*name.trim().to_ascii_lowercase() {
            "path" => path = value.trim().trim_end_matches('/'),
            "expires" | "max-age" => {
                out.push_str("; ");
                out.push_str(part);
            }
            _ => {}
        }
    }
    let path = if path.starts_with('/') { path } else { "" };
    out.push_str(&format!("; Path={before}{path}; HttpOnly"));
    if secure {
        out.push_str("; Secure; SameSite=None; Partitioned");
    }
    Some(out)
}

/// A cookie that is its host's alone; `None` if it would be ours. On loopback the frame of a
/// preview is of another site than the page around it, so without more words no cookie would
/// be kept there: each is, for frames of that page.
fn of_the_host(cookie: &str, local: bool) -> Option<String> {
    let mut parts = cookie.split(';').map(str::trim);
    let pair = parts.next()?;
    if door::is_ours(pair.split('=').next()?.trim()) {
        return None;
    }
    let is =
        |part: &str, name: &str| part.split('=').next().is_some_and(|n| n.trim().eq_ignore_ascii_case(name));
    let mut out = pair.to_owned();
    for part in parts.filter(|part| !is(part, "domain") && !part.is_empty()) {
        let ours = ["samesite", "secure", "partitioned"].iter().any(|name| is(part, name));
        if !(local && ours) {
            out.push_str("; ");
            out.push_str(part);
        }
    }
    if local {
        out.push_str("; Secure; SameSite=None; Partitioned");
    }
    Some(out)
}

/// It is in a frame of ours, whatever it thinks of frames.
fn unframe(headers: &mut HeaderMap) {
    headers.remove(header::X_FRAME_OPTIONS);
    let policies: Vec<String> = headers
        .get_all(header::CONTENT_SECURITY_POLICY)
        .iter()
        .filter_map(|p| p.to_str().ok())
        .map(|policy| {
            let kept = policy.split(';').map(str::trim).filter(|d| {
                !d.split_whitespace().next().is_some_and(|name| name.eq_ignore_ascii_case("frame-ancestors"))
            });
            kept.collect::<Vec<_>>().join("; ")
        })
        .filter(|policy| !policy.is_empty())
        .collect();
    if headers.remove(header::CONTENT_SECURITY_POLICY).is_some() {
        for policy in policies {
            if let Ok(policy) = HeaderValue::from_str(&policy) {
                headers.append(header::CONTENT_SECURITY_POLICY, policy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_stay_with_their_host() {
        for (cookie, local, want) in [
            ("a=b; Path=/; Domain=.example.com; HttpOnly", false, Some("a=b; Path=/; HttpOnly")),
            ("a=b;DOMAIN = example.com", false, Some("a=b")),
            ("a=b; SameSite=Strict", false, Some("a=b; SameSite=Strict")),
            ("a=b; SameSite=Lax; Path=/", true, Some("a=b; Path=/; Secure; SameSite=None; Partitioned")),
            ("legwork-preview=x; Path=/", false, None),
            ("__Host-legwork-preview=x; Secure; Path=/", true, None),
        ] {
            assert_eq!(of_the_host(cookie, local).as_deref(), want, "{cookie}");
        }
    }

    #[test]
    fn cookies_below_a_path_stay_there() {
        let before = "/preview/5173~k";
        for (cookie, secure, want) in [
            ("a=b", false, Some("legwork-app-a=b; Path=/preview/5173~k; HttpOnly")),
            (
                "a=b; Path=/x/; Domain=example.com; Secure; SameSite=Lax; Max-Age=5",
                true,
                Some(
                    "legwork-app-a=b; Max-Age=5; Path=/preview/5173~k/x; HttpOnly; Secure; SameSite=None; Partitioned",
                ),
            ),
            (
                "__Host-a=b; Path=/; Secure",
                false,
                Some("legwork-app-__Host-a=b; Path=/preview/5173~k; HttpOnly"),
            ),
            ("a=b; Path=x", false, Some("legwork-app-a=b; Path=/preview/5173~k; HttpOnly")),
            ("=b", false, None),
        ] {
            assert_eq!(below_a_path(cookie, before, secure).as_deref(), want, "{cookie}");
        }
        assert_eq!(below_a_path("a=b", "/preview", false), None, "there is no key in that path");
    }

    #[test]
    fn frames_are_allowed_and_all_else_of_a_policy_stays() {
        let mut headers = HeaderMap::new();
        for policy in ["default-src 'self'; Frame-Ancestors 'none'; img-src *", "frame-ancestors 'self'"] {
            headers.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        }
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        unframe(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], "default-src 'self'; img-src *");
    }

    #[test]
    fn its_own_pages_are_at_its_own_address() {
        for (address, want) in [
            ("http://5173.localhost:3001/a?b", Some("/a?b")),
            ("https://5173.localhost:3001", Some("")),
            ("http://5173.localhost:3001.evil.example/", None),
            ("http://localhost:3001/", None),
            ("null", None),
        ] {
            assert_eq!(from_own(address, "5173.localhost:3001"), want, "{address}");
        }
    }
}
