//! Through an HTTP proxy to the hub: `HTTPS_PROXY` for `wss://`, `HTTP_PROXY` for
//! `ws://`, `NO_PROXY`, in upper and lower case, as the original does.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::http::Uri;

use crate::connect::Wire;

/// A proxy's answer is not longer than this.
const MAX_ANSWER: usize = 16 * 1024;

/// The operator's proxies. Their addresses may hold passwords, so they are not shown.
#[derive(Clone)]
pub struct Proxies(Arc<Matcher>);

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies")
    }
}

impl Proxies {
    /// Reads the variables of an environment.
    pub fn from_env(env: &BTreeMap<String, String>) -> Self {
        let var = |name: &str| {
            [name.to_ascii_uppercase(), name.to_ascii_lowercase()]
                .iter()
                .find_map(|name| env.get(name).filter(|value| !value.is_empty()).cloned())
                .unwrap_or_default()
        };
        let matcher = Matcher::builder()
            .all(var("all_proxy"))
            .http(var("http_proxy"))
            .https(var("https_proxy"))
            .no(var("no_proxy"))
            .build();
        Self(Arc::new(matcher))
    }

    /// The proxy for a hub's address, if there is one.
    pub(crate) fn for_hub(&self, hub: &Uri) -> Option<Intercept> {
        let host = hub.host().unwrap_or_default().trim_matches(['[', ']']);
        let local = host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if local {
            return None;
        }
        let scheme = if hub.scheme_str() == Some("wss") { "https" } else { "http" };
        let authority = hub.authority()?.as_str();
        let url: Uri = format!("{scheme}://{authority}/").parse().ok()?;
        self.0.intercept(&url)
    }
}

/// Asks a proxy for a tunnel to `host:port`; afterwards the wire is the hub's.
pub(crate) async fn tunnel(
    mut wire: Box<dyn Wire>,
    proxy: &Intercept,
    host: &str,
    port: u16,
) -> io::Result<Box<dyn Wire>> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(credentials) = proxy.basic_auth().and_then(|value| value.to_str().ok()) {
        request.push_str(&format!("Proxy-Authorization: {credentials}\r\n"));
    }
    request.push_str("\r\n");
    wire.write_all(request.as_bytes()).await?;
    wire.flush().await?;
    // Byte by byte: what follows the answer belongs to the hub.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        let byte = wire.read_u8().await.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("the proxy closed the connection"),
            _ => e,
        })?;
        answer.push(byte);
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(status) if line.starts_with("HTTP/1.") && status.starts_with('2') => Ok(wire),
        _ => {
            let shown: String = line.chars().take(100).collect();
            Err(io::Error::other(format!("the proxy refused the connection to {host}:{port}: {shown}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(env: &[(&str, &str)], hub: &str) -> Option<String> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = Proxies::from_env(&env).for_hub(&hub.parse().expect("uri"))?;
        Some(found.uri().to_string())
    }

    #[test]
    fn variables_mean_what_they_mean_elsewhere() {
        let both = [
            ("HTTPS_PROXY", "http://s:1"),
            ("http_proxy", "http://p:2"),
            ("NO_PROXY", "corp,.in,10.0.0.0/8"),
        ];
        for (hub, want) in [
            ("wss://hub.example/x", Some("http://s:1/")),
            ("ws://hub.example:8080/x", Some("http://p:2/")),
            ("wss://hub.corp/x", None),
            ("wss://corp/x", None),
            ("wss://a.in/x", None),
            ("wss://10.1.2.3/x", None),
            ("wss://127.0.0.1:1/x", None),
            ("ws://localhost/x", None),
            ("ws://[::1]/x", None),
            ("wss://notcorp/x", Some("http://s:1/")),
        ] {
            assert_eq!(proxy(&both, hub).as_deref(), want, "{hub}");
        }
        assert_eq!(proxy(&[], "wss://h/"), None);
        assert_eq!(proxy(&[("HTTPS_PROXY", "http://s:1"), ("NO_PROXY", "*")], "wss://h/"), None);
        assert_eq!(proxy(&[("all_proxy", "http://a:3")], "wss://h/").as_deref(), Some("http://a:3/"));
    }
}
