//! Where commands may connect to: nowhere but through a proxy of ours, which lets
//! through what `sandbox.network.allow` lists.

mod proxy;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::net::{is_local, is_metadata_name, plain};

pub(crate) use proxy::{Door, serve};

/// What one entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// A name, or with a leading `*.` all below it.
    Name(String),
    Any,
    Net(IpNet),
}

/// One entry: `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    host: Host,
    /// `None` for any.
    port: Option<u16>,
}

/// The list of where commands may connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations {
    entries: Vec<Destination>,
}

impl Destinations {
    /// Reads entries such as `api.github.com:443`, `*.example.com:*`, `10.0.0.0/8:5432`,
    /// `[2001:db8::/32]:443`.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        let entries =
            entries.iter().map(|e| Destination::parse(e.as_ref().trim())).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// Whether a name may be asked for at a port: its addresses are judged by
    /// [`Self::admits`] then.
    fn names(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if is_metadata_name(&host) {
            return false;
        }
        self.entries.iter().any(|entry| {
            entry.port.is_none_or(|p| p == port)
                && match &entry.host {
                    Host::Any => true,
                    Host::Name(pattern) => match pattern.strip_prefix("*.") {
                        Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
                        None => host == *pattern,
                    },
                    Host::Net(_) => false,
                }
        })
    }

    /// Whether something on the machine's own loopback device is listed.
    pub(crate) fn lists_this_machine(&self) -> bool {
        let own = |ip: IpAddr| ip.is_loopback();
        self.entries.iter().any(|entry| match &entry.host {
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Net(net) => own(net.network()) || net.contains(&IpAddr::from([127, 0, 0, 1])),
            Host::Any => false,
        })
    }

    /// Whether an address is itself listed.
    fn lists(&self, address: SocketAddr) -> bool {
        self.entries.iter().any(|entry| {
            entry.port.is_none_or(|p| p == address.port())
                && matches!(&entry.host, Host::Net(net) if net.contains(&plain(address.ip())))
        })
    }

    /// Whether a connection may be made. `named`: its name is listed. An address that
    /// is not of the public net must be listed itself, whatever name leads to it.
    fn admits(&self, address: SocketAddr, named: bool) -> bool {
        self.lists(address) || named && !is_local(plain(address.ip()))
    }
}

impl Destinations {
    /// Whether an address that is written in a URL, or the name there, is listed.
    pub(crate) fn lists_url(&self, url: &reqwest::Url) -> bool {
        let port = url.port_or_known_default().unwrap_or(0);
        match url.host() {
            Some(url::Host::Domain(name)) => self.names(name, port),
            Some(url::Host::Ipv4(ip)) => self.admits_literal(SocketAddr::from((ip, port))),
            Some(url::Host::Ipv6(ip)) => self.admits_literal(SocketAddr::from((ip, port))),
            None => false,
        }
    }

    /// An entry for any host stands for every public address.
    fn admits_literal(&self, address: SocketAddr) -> bool {
        let any = |entry: &Destination| {
            entry.host == Host::Any && entry.port.is_none_or(|port| port == address.port())
        };
        self.admits(address, self.entries.iter().any(any))
    }

    /// Whether an address that a listed name has may be connected to.
    pub(crate) fn admits_named(&self, address: IpAddr) -> bool {
        let address = plain(address);
        let covers = |entry: &Destination| matches!(&entry.host, Host::Net(net) if net.contains(&address));
        !is_local(address) || self.entries.iter().any(covers)
    }
}

impl Destination {
    fn parse(entry: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{entry}' is none of HOST:PORT, *.HOST:PORT, NETWORK:PORT; * stands for any port, [ ] around IPv6"
            )
        };
        let (host, port) = entry.rsplit_once(':').ok_or_else(wrong)?;
        let port = match port {
            "*" => None,
            port => Some(port.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(wrong)?),
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let host = if host == "*" {
            Host::Any
        } else if let Ok(net) = bare.parse::<IpNet>() {
            Host::Net(net)
        } else if let Ok(address) = bare.parse::<IpAddr>() {
            Host::Net(address.into())
        } else {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let is_name = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
            if !is_name {
                return Err(wrong());
            }
            Host::Name(host.trim_end_matches('.').to_ascii_lowercase())
        };
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_judged_apart() {
        let list = Destinations::parse(&[
            "api.github.com:443",
            "*.corp:*",
            "10.0.0.0/8:5432",
            "[2001:db8::/32]:443",
            "127.0.0.1:8080",
        ])
        .expect("valid");
        for (host, port, named) in [
            ("api.github.com", 443, true),
            ("API.github.com.", 443, true),
            ("api.github.com", 80, false),
            ("github.com", 443, false),
            ("a.b.corp", 1, true),
            ("corp", 1, false),
            ("evilcorp", 1, false),
            ("10.0.0.1", 5432, false),
        ] {
            assert_eq!(list.names(host, port), named, "{host}:{port}");
        }
        for (address, named, admitted) in [
            ("8.8.8.8:443", true, true),
            ("8.8.8.8:443", false, false),
            ("10.1.2.3:5432", false, true),
            ("10.1.2.3:22", true, false),
            ("127.0.0.1:8080", true, true),
            ("127.0.0.1:22", true, false),
            ("[::ffff:127.0.0.1]:22", true, false),
            ("169.254.169.254:80", true, false),
            ("[2001:db8::1]:443", false, true),
            ("[fd00::1]:443", true, false),
            ("0.0.0.0:22", true, false),
        ] {
            assert_eq!(list.admits(address.parse().expect(address), named), admitted, "{address} {named}");
        }
        for (url, listed) in [
            ("https://api.github.com/x", true),
            ("http://api.github.com/x", false),
            ("http://127.0.0.1:8080/", true),
            ("http://127.0.0.1:8081/", false),
            ("http://10.0.0.1:5432/", true),
            ("http://[::1]:8080/", false),
            ("http://8.8.8.8/", false),
        ] {
            assert_eq!(list.lists_url(&url.parse().expect(url)), listed, "{url}");
        }
        assert!(list.admits_named("8.8.8.8".parse().expect("ip")));
        assert!(!list.admits_named("192.168.0.1".parse().expect("ip")));
        let any = Destinations::parse(&["*:443"]).expect("valid");
        assert!(any.names("x.y", 443) && !any.names("metadata.google.internal", 443));
        for bad in ["x", "x:0", "x:99999", "a b:1", ":443", "*:http", "10.0.0.0/99:1"] {
            assert!(Destinations::parse(&[bad]).is_err_and(|e| e.contains(bad)), "{bad}");
        }
    }
}
