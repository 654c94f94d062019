//! Where the runner itself may connect on a controller's behalf: everything but
//! link-local and metadata addresses, and what the operator denies. Addresses are
//! judged where the connection is made, after the name is resolved, so neither a
//! redirect nor a name that changes its mind gets around it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, Url};

use crate::egress::Destinations;

/// Names under which clouds serve a machine's own credentials.
const METADATA_NAMES: &[&str] =
    &["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];

/// Metadata services outside the link-local ranges: AWS by IPv6, Alibaba, Azure, Oracle.
const METADATA_ADDRESSES: &[IpAddr] = &[
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// One entry of `webfetch.deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Denied {
    Net(IpNet),
    /// Every private, loopback and otherwise local address.
    Private,
    /// A host, or with a leading `*.` all below it.
    Host(String),
}

/// What may not be connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    denied: Vec<Denied>,
    /// Where to alone; `None` for anywhere else.
    only: Option<Arc<Destinations>>,
}

impl Egress {
    /// Reads a list of networks (`10.0.0.0/8`), addresses, hosts (`*.corp`), and
    /// `private`.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        let denied = entries
            .iter()
            .map(|entry| {
                let entry = entry.as_ref().trim();
                if entry == "private" {
                    return Ok(Denied::Private);
                }
                if let Ok(net) = entry.parse::<IpNet>() {
                    return Ok(Denied::Net(net));
                }
                if let Ok(address) = entry.parse::<IpAddr>() {
                    return Ok(Denied::Net(address.into()));
                }
                let name = entry.strip_prefix("*.").unwrap_or(entry);
                let is_host = !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
                if is_host {
                    Ok(Denied::Host(entry.trim_end_matches('.').to_ascii_lowercase()))
                } else {
                    Err(format!("'{entry}' is none of a network (10.0.0.0/8), an address, a host (*.corp) or 'private'"))
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { denied, only: None })
    }

    /// Nowhere but to these.
    pub fn only(destinations: Arc<Destinations>) -> Self {
        Self { denied: Vec::new(), only: Some(destinations) }
    }

    /// Why an address is refused, if it is.
    fn refuses(&self, address: IpAddr) -> Option<&'static str> {
        let address = plain(address);
        if is_link_local(address) || METADATA_ADDRESSES.contains(&address) {
            return Some("link-local and metadata addresses are refused");
        }
        let denied = self.denied.iter().any(|entry| match entry {
            Denied::Net(net) => net.contains(&address),
            Denied::Private => is_private(address),
            Denied::Host(_) => false,
        });
        denied.then_some("webfetch.deny refuses it")
    }

    /// The same for the address that a name has: one that is not of the public net must itself be
    /// listed, whatever name leads to it.
    fn refuses_named(&self, address: IpAddr) -> Option<&'static str> {
        let is_listed = self.only.as_ref().is_none_or(|only| only.admits_named(address));
        self.refuses(address).or((!is_listed).then_some("local addresses must be listed by themselves"))
    }

    fn refuses_host(&self, host: &str) -> Option<&'static str> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if is_metadata_name(&host) {
            return Some("link-local and metadata addresses are refused");
        }
        let denied = self.denied.iter().any(|entry| match entry {
            Denied::Host(pattern) => match pattern.strip_prefix("*.") {
                Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
                None => host == *pattern,
            },
            _ => false,
        });
        denied.then_some("webfetch.deny refuses it")
    }

    /// Checks an address that is written in the URL itself; names are checked again
    /// when they are resolved.
    pub(crate) fn check(&self, url: &Url) -> Result<(), String> {
        let reason = match url.host() {
            Some(url::Host::Ipv4(address)) => self.refuses(address.into()),
            Some(url::Host::Ipv6(address)) => self.refuses(address.into()),
            Some(url::Host::Domain(name)) => self.refuses_host(name),
            None => Some("the URL has no host"),
        };
        let is_listed = self.only.as_ref().is_none_or(|only| only.lists_url(url));
        match reason {
            Some(reason) => Err(format!("{}: {reason}", url.host_str().unwrap_or_default())),
            None if !is_listed => Err(format!(
                "{}: the rules for where one may connect to do not list it",
                url.host_str().unwrap_or_default()
            )),
            None => Ok(()),
        }
    }

    /// A client builder that connects nowhere this refuses. At most `redirects` are
    /// followed, with `same_host` only on the host of the first request.
    pub(crate) fn client(&self, redirects: usize, same_host: bool) -> ClientBuilder {
        let egress = self.clone();
        let policy = reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > redirects {
                return attempt.error(format!("stopped after {redirects} redirects"));
            }
            if same_host && attempt.previous().first().is_some_and(|u| u.origin() != attempt.url().origin()) {
                return attempt.stop();
            }
            match egress.check(attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(reason) => attempt.error(reason),
            }
        });
        reqwest::Client::builder()
            .redirect(policy)
            .dns_resolver(Arc::new(Resolver { egress: self.clone() }))
            .connect_timeout(std::time::Duration::from_secs(10))
    }
}

/// Resolves names, leaving out what is refused.
struct Resolver {
    egress: Egress,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.egress.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let mut refused = None;
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| {
                    let reason = egress.refuses_named(address.ip());
                    refused = refused.or(reason.map(|r| (address.ip(), r)));
                    reason.is_none()
                })
                .collect();
            match refused {
                Some((address, reason)) if allowed.is_empty() => {
                    Err(format!("{host} is {address}: {reason}").into())
                }
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether a name, in lower case, is that of a metadata service.
pub(crate) fn is_metadata_name(host: &str) -> bool {
    METADATA_NAMES.contains(&host)
}

/// Whether an address is not of the public net: private, link-local, a metadata service.
pub(crate) fn is_local(address: IpAddr) -> bool {
    is_private(address) || is_link_local(address) || METADATA_ADDRESSES.contains(&address)
}

/// IPv6 addresses that carry an IPv4 one, as that one.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let embedded = match (a, b) {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056).
        (0x64, 0xff9b) => Some((g, h)),
        (0x2002, _) => Some((b, c)),
        // IPv4-translated (RFC 2765).
        (0, 0) if (c, d, e, f) == (0, 0, 0xffff, 0) => Some((g, h)),
        // IPv4-compatible, long deprecated.
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) && (g, h) != (0, 1) && (g, h) != (0, 0) => Some((g, h)),
        _ => None,
    };
    embedded.map_or(address, |(high, low)| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).into()
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(egress: &Egress, url: &str) -> bool {
        egress.check(&Url::parse(url).expect(url)).is_ok()
    }

    #[test]
    fn metadata_is_refused_in_every_spelling() {
        let egress = Egress::default();
        for url in [
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[::a9fe:a9fe]/",
            "http://[::ffff:0:a9fe:a9fe]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://metadata.google.internal/",
            "http://METADATA.google.internal./",
        ] {
            assert!(!check(&egress, url), "{url}");
        }
        // Internal dashboards are a use.
        for url in [
            "http://10.0.0.1/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://grafana.corp/",
            "http://8.8.8.8/",
        ] {
            assert!(check(&egress, url), "{url}");
        }
    }

    #[test]
    fn the_operators_list_is_held() {
        let egress = Egress::parse(&["private", "203.0.113.0/24", "2001:db8::1", "*.corp", "evil.example."])
            .expect("valid");
        for url in [
            "http://10.1.2.3/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0/",
            "http://100.64.0.1/",
            "http://[fd12::1]/",
            "http://203.0.113.9/",
            "http://[2001:db8::1]/",
            "http://a.b.corp/",
            "http://EVIL.example/",
        ] {
            assert!(!check(&egress, url), "{url}");
        }
        for url in ["http://8.8.8.8/", "http://corp/", "http://notcorp/", "http://not.evil.example/"] {
            assert!(check(&egress, url), "{url}");
        }
        assert!(Egress::parse(&["10.0.0.0/99"]).is_err_and(|e| e.contains("10.0.0.0/99")));
    }
}
