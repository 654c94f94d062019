//! Dialling: TCP, TLS, and the WebSocket upgrade with the credential.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Intercept;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error as WsError};

use crate::config::{Config, Credential, Tls, TokenIn};
use crate::proxy::tunnel;

/// As the original's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(45);

/// Any byte stream to the hub.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub(crate) type Socket = WebSocketStream<Box<dyn Wire>>;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("failed to connect: authentication failed (status: {status})")]
    Authentication { status: u16 },
    #[error("failed to connect: websocket: bad handshake (status: {status}){}", detail(body))]
    Refused { status: u16, retry_after: Option<Duration>, body: String },
    #[error("failed to connect: {0}")]
    Failed(String),
    #[error("invalid API URL: {0}")]
    Url(String),
}

fn detail(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body}") }
}

/// Connects with the configured credential. Returns the socket and the id that the
/// hub put in a header.
pub(crate) async fn connect(config: &Config, name: &str) -> Result<(Socket, Option<String>), ConnectError> {
    let places: &[TokenIn] = match (&config.credential, config.token_in) {
        (Credential::ApiKey(_), _) | (_, TokenIn::Header) => &[TokenIn::Header],
        (_, TokenIn::Query) => &[TokenIn::Query],
        // Hubs that know only the query answer the header with 400 or 401.
        (_, TokenIn::Auto) => &[TokenIn::Header, TokenIn::Query],
    };
    let mut last = None;
    for place in places {
        let attempt = tokio::time::timeout(HANDSHAKE_TIMEOUT, attempt(config, name, *place));
        match attempt.await.unwrap_or_else(|_| Err(ConnectError::Failed("the handshake timed out".into()))) {
            Err(error @ ConnectError::Authentication { .. })
            | Err(error @ ConnectError::Refused { status: 400, .. }) => {
                last = Some(error);
            }
            result => return result,
        }
    }
    Err(last.unwrap_or_else(|| ConnectError::Failed("no attempt was made".into())))
}

async fn attempt(
    config: &Config,
    name: &str,
    place: TokenIn,
) -> Result<(Socket, Option<String>), ConnectError> {
    let request = request(config, name, place)?;
    let path = request.uri().path().to_owned();
    let wire = dial(config, request.uri()).await.map_err(|e| ConnectError::Failed(e.to_string()))?;
    let limits = WebSocketConfig::default()
        .max_message_size(Some(config.max_message_bytes))
        .max_frame_size(Some(config.max_message_bytes))
        .read_buffer_size(16 * 1024)
        .write_buffer_size(32 * 1024);
    match tokio_tungstenite::client_async_with_config(request, wire, Some(limits)).await {
        Ok((socket, response)) => {
            let id = response.headers().get("X-Worknode-ID").and_then(|v| v.to_str().ok()).map(str::to_owned);
            Ok((socket, id))
        }
        Err(WsError::Http(response)) => Err(refused(*response, &path)),
        Err(error) => Err(ConnectError::Failed(error.to_string())),
    }
}

/// Where a hub of ours waits for runners of either generation.
const PATHS: [&str; 2] = ["/runner/ws", "/safari/worknode/ws"];

fn refused(response: Response, path: &str) -> ConnectError {
    let status = response.status().as_u16();
    if matches!(status, 401 | 403) {
        return ConnectError::Authentication { status };
    }
    let retry_after = response
        .headers()
        .get("Retry-After")
        .and_then(|v| v.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body: Option<serde_json::Value> =
        response.body().as_ref().and_then(|b| serde_json::from_slice(b).ok());
    let body: String =
        body.and_then(|b| Some(b.get("error")?.as_str()?.chars().take(200).collect())).unwrap_or_default();
    let body = match status {
        // An address that was copied from the browser, most likely.
        // A hub has its page at /.
        200 | 404 | 405 if body.is_empty() && !PATHS.contains(&path) => {
            format!(
                "runners find nothing at {path}; the api_url of a hub ends with {0}, as in ws://HUB:7440{0}",
                PATHS[0]
            )
        }
        _ => body,
    };
    ConnectError::Refused { status, retry_after, body }
}

fn request(config: &Config, name: &str, place: TokenIn) -> Result<Request, ConnectError> {
    let bad = |e: &dyn std::fmt::Display| ConnectError::Url(e.to_string());
    let url = match (&config.credential, place) {
        (Credential::Token(token), TokenIn::Query) => with_token(&config.url, token.expose()),
        _ => config.url.clone(),
    };
    let mut request = url.into_client_request().map_err(|e| bad(&e))?;
    let headers = request.headers_mut();
    let mut set = |name: &'static str, value: &str| -> Result<(), ConnectError> {
        let value = HeaderValue::from_str(value).map_err(|_| {
            ConnectError::Failed(format!("{name} holds a character that no header can carry"))
        })?;
        headers.insert(HeaderName::from_static(name), value);
        Ok(())
    };
    match &config.credential {
        Credential::Token(token) if place != TokenIn::Query => {
            set("authorization", &format!("Bearer {}", token.expose()))?;
            // A name that was given is ours; the host's is only for a hub that knows no better.
            let header = if config.name.is_empty() { "x-worknode-host" } else { "x-worknode-name" };
            set(header, name)?;
        }
        Credential::Token(_) => {}
        Credential::ApiKey(key) => {
            set("fd-api-key", key.expose())?;
            set("x-worknode-name", name)?;
            set("x-worknode-version", legwork_release::version())?;
            let machine = legwork_runner::Machine::detect();
            set("x-worknode-os", machine.os)?;
            set("x-worknode-arch", machine.arch)?;
        }
    }
    Ok(request)
}

/// Sets `token` in a URL's query, keeping the rest of it.
fn with_token(url: &str, token: &str) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|p| !p.is_empty() && !p.starts_with("token=") && *p != "token")
        .map(str::to_owned)
        .collect();
    let encoded: String = token
        .bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect();
    pairs.push(format!("token={encoded}"));
    format!("{base}?{}", pairs.join("&"))
}

async fn dial(config: &Config, uri: &Uri) -> io::Result<Box<dyn Wire>> {
    let host = uri.host().ok_or_else(|| io::Error::other("the URL has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let secure = uri.scheme_str() == Some("wss");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let wire = match config.proxy.for_hub(uri) {
        Some(proxy) => through(&proxy, host, port).await?,
        None => tcp(host, port).await?,
    };
    if !secure {
        return Ok(wire);
    }
    tls(wire, host, tls_config(&config.tls)?).await
}

async fn tcp(host: &str, port: u16) -> io::Result<Box<dyn Wire>> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    Ok(Box::new(tcp))
}

async fn tls(wire: Box<dyn Wire>, host: &str, config: rustls::ClientConfig) -> io::Result<Box<dyn Wire>> {
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, wire).await?))
}

async fn through(proxy: &Intercept, host: &str, port: u16) -> io::Result<Box<dyn Wire>> {
    let uri = proxy.uri();
    let at = |e: io::Error| io::Error::other(format!("proxy {}: {e}", uri.host().unwrap_or_default()));
    let proxy_host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let wire = match uri.scheme_str() {
        Some("http") => tcp(proxy_host, uri.port_u16().unwrap_or(80)).await.map_err(at)?,
        Some("https") => {
            let wire = tcp(proxy_host, uri.port_u16().unwrap_or(443)).await.map_err(at)?;
            // The proxy is of the outside world, whatever authority the hub has.
            tls(wire, proxy_host, tls_config(&Tls::default())?).await.map_err(at)?
        }
        other => {
            return Err(io::Error::other(format!(
                "proxies of the kind '{}' are not supported: use http:// or https://",
                other.unwrap_or_default()
            )));
        }
    };
    tunnel(wire, proxy, host, port).await.map_err(at)
}

fn tls_config(tls: &Tls) -> io::Result<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificates = |key: &str, path: &Path| -> io::Result<Vec<CertificateDer<'static>>> {
        let failed = |e: &dyn std::fmt::Display| io::Error::other(format!("{key} {}: {e}", path.display()));
        let found: Vec<CertificateDer<'static>> =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| failed(&e))?;
        if found.is_empty() { Err(failed(&"it holds no certificate in PEM")) } else { Ok(found) }
    };
    let mut roots = rustls::RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for certificate in certificates("tls.ca_file", path)? {
                roots.add(certificate).map_err(io::Error::other)?;
            }
        }
        None => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // One bad certificate in the system's store must not lock us out.
                let _ = roots.add(certificate);
            }
            if roots.is_empty() {
                return Err(io::Error::other(
                    "this system has no certificate authorities: install the package ca-certificates, or set tls.ca_file",
                ));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    match &tls.client {
        Some((chain, key_path)) => {
            let chain = certificates("tls.client_cert", chain)?;
            let key = PrivateKeyDer::from_pem_file(key_path)
                .map_err(|e| io::Error::other(format!("tls.client_key {}: {e}", key_path.display())))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                io::Error::other(format!(
                    "tls.client_key {}: it does not fit tls.client_cert: {e}",
                    key_path.display()
                ))
            })
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Whether an error is the peer's normal way to go.
pub(crate) fn is_close(error: &tungstenite::Error) -> bool {
    matches!(error, WsError::ConnectionClosed | WsError::AlreadyClosed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It would be tried again for ever, and nobody would know what is wrong with it.
    #[test]
    fn an_address_without_its_path_is_told_which_one_is_missing() {
        let told = |status: u16, path: &str| {
            let answer = tungstenite::http::Response::builder().status(status).body(None).expect("an answer");
            refused(answer, path).to_string()
        };
        for (status, path) in [(200, "/"), (404, "/ws"), (405, "/api")] {
            let said = told(status, path);
            assert!(said.contains("/runner/ws") && said.contains(&format!("nothing at {path};")), "{said}");
        }
        assert!(!told(404, "/runner/ws").contains("api_url") && !told(503, "/").contains("api_url"));
    }

    #[test]
    fn the_token_replaces_any_other_in_the_query() {
        for (url, want) in [
            ("ws://h/p", "ws://h/p?token=a%2Fb"),
            ("ws://h/p?x=1&token=old&y=2", "ws://h/p?x=1&y=2&token=a%2Fb"),
        ] {
            assert_eq!(with_token(url, "a/b"), want);
        }
    }
}
