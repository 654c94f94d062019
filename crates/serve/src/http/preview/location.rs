//! Where an application sends a browser: to where that is here.

use axum::http::{HeaderMap, header};
use url::{Host, Url};

use super::headers::set;
use super::mount::Mount;

/// What an application was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The address that it knows itself by.
    pub(super) own: Url,
    /// The hosts by which the browser may have reached us.
    pub(super) hosts: Vec<String>,
}

impl Asked {
    /// `path` is the application's own, with its query.
    pub(super) fn new(port: u16, path: &str, headers: &HeaderMap) -> Option<Self> {
        let own = Url::parse(&format!("http://localhost:{port}{path}")).ok()?;
        let hosts =
            [header::HOST.as_str(), "x-forwarded-host"].into_iter().filter_map(|name| headers.get(name));
        let hosts = hosts.filter_map(|host| host.to_str().ok()).map(str::to_owned).collect();
        Some(Self { own, hosts })
    }

    /// Whether an address is the application's by the name it knows.
    fn is_own(&self, address: &Url) -> bool {
        let is_local = match address.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        is_local
            && address.scheme() == "http"
            && address.port_or_known_default() == self.own.port_or_known_default()
    }

    /// Whether an address is of the host that the browser has asked: ours.
    fn is_ours(&self, address: &Url) -> bool {
        self.hosts.iter().any(|host| {
            let own = Url::parse(&format!("{}://{host}", address.scheme()));
            own.is_ok_and(|own| {
                own.host().is_some()
                    && own.host() == address.host()
                    && own.port_or_known_default() == address.port_or_known_default()
            })
        })
    }
}

/// Leads who is sent to the application's own address to where it is here. It is read as browsers
/// read it, against the application's own address: else what is led back as text goes on to another
/// place as an address (`/..//../x`). Below a path nothing at our own host is outside of it: a
/// browser that is sent there by us comes as one whom our own page has sent.
pub(super) fn lead_back(headers: &mut HeaderMap, asked: &Asked, mount: &Mount<'_>) {
    let Some(said) = headers.get(header::LOCATION).cloned() else { return };
    // There is one, also where the application says several.
    headers.remove(header::LOCATION);
    let text = String::from_utf8_lossy(said.as_bytes());
    match (asked.own.join(&text), mount) {
        (Ok(address), Mount::Path(before)) if asked.is_own(&address) || asked.is_ours(&address) => {
            let to = below(before, &address);
            set(headers, header::LOCATION, &to);
        }
        (Ok(address), Mount::Host(_)) if asked.is_own(&address) => {
            // What begins with two slashes would be another host.
            let before = if address.path().starts_with("//") { "/." } else { "" };
            let to = format!("{before}{}", &address[url::Position::BeforePath..]);
            set(headers, header::LOCATION, &to);
        }
        // No browser makes anything of it: nor do we.
        (Err(_), Mount::Path(_)) => {}
        _ => {
            headers.insert(header::LOCATION, said);
        }
    }
}

/// The path of an address, below what stands before the application's paths here; one that knows
/// where it is says that itself.
fn below(before: &str, address: &Url) -> String {
    let is_led =
        address.path().strip_prefix(before).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let rest = &address[url::Position::BeforePath..];
    if is_led { rest.to_owned() } else { format!("{before}{rest}") }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn led(said: &[u8], mount: &Mount<'_>) -> Option<String> {
        let from = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("ws.example:3001"))]);
        let asked = Asked::new(3000, "/a/b?c", &from).expect("an address");
        let mut headers = HeaderMap::new();
        headers.append(header::LOCATION, HeaderValue::from_bytes(said).expect("value"));
        headers.append(header::LOCATION, HeaderValue::from_static("/another"));
        lead_back(&mut headers, &asked, mount);
        let all: Vec<_> = headers.get_all(header::LOCATION).iter().collect();
        assert!(all.len() <= 1, "{all:?}");
        all.first().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    #[test]
    fn below_a_path_no_way_leads_out() {
        let mount = Mount::Path("/preview/~k");
        for (said, want) in [
            ("/there?x=y#z", "/preview/~k/there?x=y#z"),
            ("there", "/preview/~k/a/there"),
            ("?q", "/preview/~k/a/b?q"),
            ("/", "/preview/~k/"),
            ("http://localhost:3000", "/preview/~k/"),
            ("http://127.0.0.1:3000/x", "/preview/~k/x"),
            ("http://[::1]:3000/x", "/preview/~k/x"),
            ("//localhost:3000/x", "/preview/~k/x"),
            ("/preview/~k/x", "/preview/~k/x"),
            ("/preview/~kk/x", "/preview/~k/preview/~kk/x"),
            ("http://ws.example:3001/preview/~k/x", "/preview/~k/x"),
            // Ways out, each of which a browser would take.
            ("/..//../api/info", "/preview/~k/api/info"),
            ("/../../api/info", "/preview/~k/api/info"),
            ("../../../api/info", "/preview/~k/api/info"),
            ("/%2e%2E/%2e./api/info", "/preview/~k/api/info"),
            ("\\..\\..\\api/info", "/preview/~k/api/info"),
            ("/preview/~k/../../api/info", "/preview/~k/api/info"),
            ("/..//ws.example:3001/api", "/preview/~k//ws.example:3001/api"),
            ("http://ws.example:3001/api/info", "/preview/~k/api/info"),
            ("http://x@WS.example:3001/api/info", "/preview/~k/api/info"),
            ("//ws.example:3001/", "/preview/~k/"),
            ("http:/api/info", "/preview/~k/api/info"),
            // Elsewhere is elsewhere.
            ("https://e.example/x", "https://e.example/x"),
            ("//e.example/x", "//e.example/x"),
            ("http://localhost:30001/x", "http://localhost:30001/x"),
        ] {
            assert_eq!(led(said.as_bytes(), &mount).as_deref(), Some(want), "{said}");
        }
        assert_eq!(led(b"/\xff/../../../api", &mount).as_deref(), Some("/preview/~k/api"));
        for none in [&b"http://["[..], b"http://localhost:3000.e.example/"] {
            assert_eq!(led(none, &mount), None, "no address");
        }
    }

    #[test]
    fn by_name_only_its_own_address_changes() {
        let mount = Mount::Host("3000.localhost:3001");
        for (said, want) in [
            ("/there", "/there"),
            ("http://localhost:3000/x?y", "/x?y"),
            ("http://localhost:3000//e.example", "/.//e.example"),
            ("/..//e.example", "/.//e.example"),
            ("//e.example/x", "//e.example/x"),
            ("https://e.example", "https://e.example"),
        ] {
            assert_eq!(led(said.as_bytes(), &mount).as_deref(), Some(want), "{said}");
        }
    }
}
