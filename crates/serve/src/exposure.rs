//! Which ports may be previewed, by whom, and under which name.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use crate::access::Rights;

/// Some ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// Reads a list like `3000,5000-5999`; `none` is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim() == "none" {
            return Some(Self::default());
        }
        let one = |part: &str| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
            (0 < from && from <= to).then_some((from, to))
        };
        text.split(',').map(one).collect::<Option<Vec<_>>>().map(Self)
    }

    /// One port.
    pub fn one(port: u16) -> Self {
        Self(vec![(port, port)])
    }

    fn has(&self, port: u16) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&port))
    }
}

/// A host's name with a place for the port in its first part: `{port}--abc.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    before: String,
    after: String,
}

const PLACE: &str = "{port}";

/// A text that says no name for previews.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "PREVIEW_HOST must be a host's name with {place} in its first part, like {place}--abc.example.com, not {0:?}",
    place = PLACE
)]
pub struct BadHostName(String);

impl HostName {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, BadHostName> {
        let wrong = || BadHostName(text.to_owned());
        let (before, after) = text.split_once(PLACE).ok_or_else(wrong)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let rest = after.split_once('.').ok_or_else(wrong)?;
        let fits = before.chars().all(is_name)
            && rest.0.chars().all(is_name)
            && !rest.1.is_empty()
            && rest.1.chars().all(|c| is_name(c) || c == '.' || c == ':');
        if !fits {
            return Err(wrong());
        }
        Ok(Self { before: before.to_ascii_lowercase(), after: after.to_ascii_lowercase() })
    }

    fn with(&self, port: u16) -> String {
        format!("{}{port}{}", self.before, self.after)
    }

    /// The port that a name says; `None` if the name is another's.
    fn port(&self, name: &str) -> Option<u16> {
        let after = self.after.rsplit_once(':').map_or(&*self.after, |(name, _)| name);
        number(name.strip_prefix(&*self.before)?.strip_suffix(after)?)
    }
}

/// A port as a name spells it: one spelling for each.
fn number(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok().filter(|port| *port > 0)?;
    (port.to_string() == text).then_some(port)
}

/// What may be previewed.
#[derive(Debug, Clone)]
pub struct Exposure {
    /// By who works here.
    pub work: Ports,
    /// By who may only look.
    pub look: Ports,
    /// By whoever reaches the address, without any key.
    pub public: Ports,
    /// The name that previews have beside `PORT.localhost`.
    pub host: Option<HostName>,
}

/// The port of `PORT.localhost`, or of `PORT.NAME.localhost`: a preview beside a page that was
/// opened as `NAME.localhost` is of one site with it, to browsers.
fn local_port(name: &str) -> Option<u16> {
    let rest = name.strip_suffix(".localhost")?;
    let (port, beside) = rest.split_once('.').unwrap_or((rest, ""));
    number(port).filter(|_| !beside.contains('.'))
}

/// The name and the port of a `Host` header.
fn split(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    }
}

impl Exposure {
    /// Whether somebody with these rights (`None`: with no key) may see a port.
    pub(crate) fn allows(&self, rights: Option<Rights>, port: u16) -> bool {
        self.public.has(port)
            || match rights {
                Some(Rights::Work) => self.work.has(port),
                Some(Rights::Look) => self.look.has(port),
                None => false,
            }
    }

    /// The port whose preview a request is for, by the name it was sent to. Such a name is of
    /// the preview alone: nothing else is served under it.
    pub(crate) fn addressed(&self, uri: &Uri, headers: &HeaderMap) -> Option<u16> {
        let said = headers.get_all(header::HOST).iter().map(|h| h.to_str().unwrap_or_default());
        let mut ports = said.chain(uri.authority().map(Authority::as_str)).map(|host| self.port(host));
        let first = ports.next()??;
        ports.all(|port| port == Some(first)).then_some(first)
    }

    fn port(&self, host: &str) -> Option<u16> {
        let name = split(host).0.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        local_port(name).or_else(|| self.host.as_ref()?.port(name))
    }

    /// Under which host a port is previewed for who has reached us by this one; `None` if it
    /// has no name of its own there.
    pub(crate) fn host_of(&self, port: u16, headers: &HeaderMap) -> Option<String> {
        if let Some(host) = &self.host {
            return Some(host.with(port));
        }
        let (name, own_port) = split(headers.get(header::HOST)?.to_str().ok()?);
        let beside = if name.ends_with(".localhost") { name } else { "localhost" };
        Self::is_local(headers).then(|| match own_port {
            "" => format!("{port}.{beside}"),
            own_port => format!("{port}.{beside}:{own_port}"),
        })
    }

    /// Whether a request was sent to a name of this machine: nothing is in front of us then, and
    /// what browsers keep for that name they keep for every port of it.
    pub(crate) fn is_local(headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        let name = split(host).0;
        matches!(name, "localhost" | "127.0.0.1" | "[::1]") || name.ends_with(".localhost")
    }

    /// What a page may have in frames, as its CSP says it.
    pub(crate) fn frames(&self) -> String {
        let mut sources = "http://*.localhost:*".to_owned();
        if let Some((_, rest)) = self.host.as_ref().and_then(|host| host.after.split_once('.')) {
            sources.push_str(&format!(" http://*.{rest} https://*.{rest}"));
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn exposure(host: Option<&str>) -> Exposure {
        Exposure {
            work: Ports::parse("3000,5000-5999").expect("ports"),
            look: Ports::one(3000),
            public: Ports::default(),
            host: host.map(|host| HostName::parse(host).expect("host")),
        }
    }

    fn headers(hosts: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        headers
    }

    #[test]
    fn ports_are_lists_of_ranges() {
        for (text, good) in
            [("1-65535", true), ("none", true), ("", false), ("0", false), ("9-3", false), ("x", false)]
        {
            assert_eq!(Ports::parse(text).is_some(), good, "{text}");
        }
        let rules = exposure(None);
        for (rights, port, want) in [
            (Some(Rights::Work), 5173, true),
            (Some(Rights::Work), 6000, false),
            (Some(Rights::Look), 3000, true),
            (Some(Rights::Look), 5173, false),
            (None, 3000, false),
        ] {
            assert_eq!(rules.allows(rights, port), want, "{rights:?} {port}");
        }
    }

    #[test]
    fn names_say_which_port_and_others_say_none() {
        let rules = exposure(Some("{port}--abc.example.com"));
        for (hosts, want) in [
            (&["5173.localhost:3001"][..], Some(5173)),
            (&["5173.LOCALHOST."], Some(5173)),
            (&["5173--abc.example.com"], Some(5173)),
            (&["5173--abc.example.com:8443"], Some(5173)),
            (&["05173.localhost"], None),
            (&["+5173.localhost"], None),
            (&["0.localhost"], None),
            (&["70000.localhost"], None),
            (&["localhost:5173"], None),
            (&["app.localhost"], None),
            (&["5173.app.localhost:3001"], Some(5173)),
            (&["5173.x.app.localhost"], None),
            (&["5173--abd.example.com"], None),
            (&["x5173--abc.example.com"], None),
            (&["5173--abc.example.com.evil.example"], None),
            (&["5173.localhost", "localhost"], None),
            (&["5173.localhost", "5174.localhost"], None),
            (&[], None),
        ] {
            assert_eq!(rules.addressed(&Uri::from_static("/x"), &headers(hosts)), want, "{hosts:?}");
        }
        let other = Uri::from_static("http://localhost/x");
        assert_eq!(rules.addressed(&other, &headers(&["5173.localhost"])), None);
    }

    #[test]
    fn a_preview_has_a_name_where_names_can_be_had() {
        let rules = exposure(None);
        for (host, want) in [
            ("localhost:3001", Some("5173.localhost:3001")),
            ("127.0.0.1:3001", Some("5173.localhost:3001")),
            ("localhost", Some("5173.localhost")),
            ("app.localhost:3001", Some("5173.app.localhost:3001")),
            ("10.0.0.7:3001", None),
            ("abc.example.com", None),
        ] {
            assert_eq!(rules.host_of(5173, &headers(&[host])).as_deref(), want, "{host}");
        }
        let named = exposure(Some("{port}--abc.example.com"));
        assert_eq!(named.host_of(1, &headers(&["x"])).as_deref(), Some("1--abc.example.com"));
        assert!(named.frames().contains("https://*.example.com"));
        for bad in ["abc.example.com", "{port}", "{port}.", "a.{port}.b", "{port}.ex;ample", "{port}/.x"] {
            assert!(HostName::parse(bad).is_err(), "{bad}");
        }
    }
}
