//! The proxy behind a command's door: HTTP CONNECT, plain HTTP by absolute URL, and
//! SOCKS5, told apart by the first byte.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Destinations;

/// Connections of one command at a time.
const MOST_CONNECTIONS: usize = 256;
/// Longest head of a request.
const MOST_HEAD: usize = 16 * 1024;
/// What a client may take to say what it wants, and a server to be reached.
const PATIENCE: Duration = Duration::from_secs(15);
/// Refused destinations that are remembered.
const MOST_REFUSED: usize = 32;

/// What went through one command's door.
#[derive(Debug, Default)]
pub(crate) struct Door {
    sent: AtomicU64,
    received: AtomicU64,
    refused: Mutex<BTreeSet<String>>,
}

impl Door {
    /// Bytes that the command sent and received.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }

    /// Where it wanted to connect to and could not.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn refuse(&self, destination: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MOST_REFUSED {
            refused.insert(destination.chars().take(256).collect());
        }
    }
}

/// Serves a door until its task is ended.
pub(crate) async fn serve(listener: std::net::TcpListener, allowed: Arc<Destinations>, door: Arc<Door>) {
    let listener = match listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("the proxy of a command can't be served: {error}");
            return;
        }
    };
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let (allowed, door) = (allowed.clone(), door.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = connection(socket, &allowed, &door).await {
                        tracing::debug!("a command's connection to the proxy: {error}");
                    }
                });
            }
            // Descriptors may have run out for a while.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Why a destination was not reached.
enum Unreached {
    Refused,
    Failed(std::io::Error),
}

async fn connection(mut socket: TcpStream, allowed: &Destinations, door: &Door) -> std::io::Result<()> {
    let mut first = [0u8; 1];
    timeout(PATIENCE, socket.peek(&mut first)).await??;
    if first[0] == 5 {
        let Some((host, port)) = timeout(PATIENCE, socks_request(&mut socket)).await?? else { return Ok(()) };
        let (reply, server) = match reach(&host, port, allowed, door).await {
            Ok(server) => (0, Some(server)),
            // "Connection not allowed by ruleset", "host unreachable" (RFC 1928 §6).
            Err(Unreached::Refused) => (2, None),
            Err(Unreached::Failed(_)) => (4, None),
        };
        socket.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        return match server {
            Some(server) => relay(socket, server, door).await,
            None => Ok(()),
        };
    }
    let (head, rest) = timeout(PATIENCE, read_head(&mut socket)).await??;
    let Some(request) = Request::parse(&head) else {
        return answer(&mut socket, "400 Bad Request", "legwork: not a request to a proxy\n").await;
    };
    match reach(&request.host, request.port, allowed, door).await {
        Ok(mut server) => {
            if request.tunnel {
                socket.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            } else {
                server.write_all(request.forwarded.as_bytes()).await?;
                door.sent.fetch_add(request.forwarded.len() as u64, Ordering::Relaxed);
            }
            server.write_all(&rest).await?;
            door.sent.fetch_add(rest.len() as u64, Ordering::Relaxed);
            relay(socket, server, door).await
        }
        Err(Unreached::Refused) => {
            let text = format!(
                "legwork: egress to {}:{} is not allowed (sandbox.network.allow)\n",
                request.host, request.port
            );
            answer(&mut socket, "403 Forbidden", &text).await
        }
        Err(Unreached::Failed(error)) => {
            let text = format!("legwork: {}:{}: {error}\n", request.host, request.port);
            answer(&mut socket, "502 Bad Gateway", &text).await
        }
    }
}

/// Connects to a destination that is allowed. The name is resolved here, once, and the
/// address that was judged is the one that is connected to.
async fn reach(host: &str, port: u16, allowed: &Destinations, door: &Door) -> Result<TcpStream, Unreached> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let refused = || {
        tracing::info!(host, port, "a command's connection was refused by sandbox.network.allow");
        door.refuse(&format!("{host}:{port}"));
        Unreached::Refused
    };
    let addresses: Vec<SocketAddr> = if let Ok(ip) = bare.parse() {
        vec![SocketAddr::new(ip, port)]
    } else if allowed.names(host, port) {
        let found = timeout(PATIENCE, tokio::net::lookup_host((bare, port))).await;
        found.map_err(|e| Unreached::Failed(e.into()))?.map_err(Unreached::Failed)?.collect()
    } else {
        return Err(refused());
    };
    let named = bare.parse::<std::net::IpAddr>().is_err() || allowed.names(bare, port);
    let addresses: Vec<SocketAddr> = addresses.into_iter().filter(|a| allowed.admits(*a, named)).collect();
    if addresses.is_empty() {
        return Err(refused());
    }
    let connected = timeout(PATIENCE, TcpStream::connect(addresses.as_slice())).await;
    let stream = connected.map_err(|e| Unreached::Failed(e.into()))?.map_err(Unreached::Failed)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Both directions until both are done; counts what passes, also if it ends badly.
async fn relay(client: TcpStream, server: TcpStream, door: &Door) -> std::io::Result<()> {
    let _ = client.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = pump(&mut from_client, &mut to_server, &door.sent);
    let down = pump(&mut from_server, &mut to_client, &door.received);
    let (up, down) = tokio::join!(up, down);
    up.and(down)
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0u8; 16 * 1024];
    loop {
        let len = from.read(&mut buffer).await?;
        if len == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..len]).await?;
        count.fetch_add(len as u64, Ordering::Relaxed);
    }
}

async fn answer(socket: &mut TcpStream, status: &str, text: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.shutdown().await
}

/// A request's head, and what came after it.
async fn read_head(socket: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut data = Vec::new();
    loop {
        let mut buffer = [0u8; 4096];
        let len = socket.read(&mut buffer).await?;
        data.extend_from_slice(&buffer[..len]);
        if let Some(end) = data.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = data.split_off(end + 4);
            let head = String::from_utf8(data).map_err(std::io::Error::other)?;
            return Ok((head, rest));
        }
        if len == 0 || data.len() > MOST_HEAD {
            return Err(std::io::Error::other("the head of a request is cut off or too long"));
        }
    }
}

/// A request to a proxy.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    host: String,
    port: u16,
    tunnel: bool,
    /// The head as the server gets it.
    forwarded: String,
}

impl Request {
    fn parse(head: &str) -> Option<Self> {
        let (line, headers) = head.split_once("\r\n")?;
        let mut words = line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !version.starts_with("HTTP/1.") {
            return None;
        }
        if method == "CONNECT" {
            let (host, port) = split_port(target)?;
            return Some(Self { host, port: port?, tunnel: true, forwarded: String::new() });
        }
        let rest = target.get(..7).filter(|s| s.eq_ignore_ascii_case("http://")).and(target.get(7..))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // No name and password in a URL: they would go to the server's log.
        if authority.contains('@') {
            return None;
        }
        let (host, port) = split_port(authority)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut forwarded = format!("{method} {path} {version}\r\nHost: {authority}\r\n");
        for header in headers.split("\r\n").filter(|h| !h.is_empty()) {
            let name = header.split(':').next().unwrap_or_default();
            // One request for one connection: the next one is to be judged as well. The
            // host is the one that was judged.
            let ours =
                ["host", "connection", "proxy-connection", "proxy-authorization", "keep-alive", "upgrade"];
            if !ours.iter().any(|o| name.eq_ignore_ascii_case(o)) {
                forwarded.push_str(header);
                forwarded.push_str("\r\n");
            }
        }
        forwarded.push_str("Connection: close\r\n\r\n");
        Some(Self { host, port: port.unwrap_or(80), tunnel: false, forwarded })
    }
}

/// `HOST`, `HOST:PORT`, `[V6]:PORT`.
fn split_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    let fine = !host.is_empty()
        && host.len() < 256
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    fine.then(|| (host.to_owned(), port))
}

/// A SOCKS5 request (RFC 1928); `None` if it was answered with an error.
async fn socks_request(socket: &mut TcpStream) -> std::io::Result<Option<(String, u16)>> {
    let mut head = [0u8; 2];
    socket.read_exact(&mut head).await?;
    let mut methods = vec![0u8; usize::from(head[1])];
    socket.read_exact(&mut methods).await?;
    if !methods.contains(&0) {
        socket.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    socket.write_all(&[5, 0]).await?;
    let mut request = [0u8; 4];
    socket.read_exact(&mut request).await?;
    if request[..3] != [5, 1, 0] {
        return unsupported(socket, 7).await;
    }
    let host = match request[3] {
        1 => {
            let mut address = [0u8; 4];
            socket.read_exact(&mut address).await?;
            std::net::Ipv4Addr::from(address).to_string()
        }
        4 => {
            let mut address = [0u8; 16];
            socket.read_exact(&mut address).await?;
            std::net::Ipv6Addr::from(address).to_string()
        }
        3 => {
            let mut len = [0u8; 1];
            socket.read_exact(&mut len).await?;
            let mut name = vec![0u8; usize::from(len[0])];
            socket.read_exact(&mut name).await?;
            match String::from_utf8(name).ok().and_then(|name| split_port(&name)) {
                Some((name, None)) => name,
                _ => return unsupported(socket, 8).await,
            }
        }
        _ => return unsupported(socket, 8).await,
    };
    let mut port = [0u8; 2];
    socket.read_exact(&mut port).await?;
    Ok(Some((host, u16::from_be_bytes(port))))
}

async fn unsupported<T>(socket: &mut TcpStream, code: u8) -> std::io::Result<Option<T>> {
    socket.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_where_they_were_judged_to_go() {
        let request = Request::parse(
            "GET http://a.b:81/x?y HTTP/1.1\r\nHost: evil\r\nProxy-Authorization: z\r\nConnection: keep-alive\r\nA: b\r\n\r\n",
        )
        .expect("a request");
        assert_eq!((request.host.as_str(), request.port, request.tunnel), ("a.b", 81, false));
        assert_eq!(
            request.forwarded,
            "GET /x?y HTTP/1.1\r\nHost: a.b:81\r\nA: b\r\nConnection: close\r\n\r\n"
        );
        let request = Request::parse("CONNECT [::1]:443 HTTP/1.1\r\n\r\n").expect("a request");
        assert_eq!((request.host.as_str(), request.port, request.tunnel), ("[::1]", 443, true));
        for bad in [
            "GET /x HTTP/1.1\r\n\r\n",
            "CONNECT a HTTP/1.1\r\n\r\n",
            "GET http://u:p@a/ HTTP/1.1\r\n\r\n",
            "GET https://a/ HTTP/1.1\r\n\r\n",
            "GET http:///x HTTP/1.1\r\n\r\n",
            "CONNECT a\nb:1 HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(Request::parse(bad), None, "{bad}");
        }
    }

    async fn through(proxy: SocketAddr, say: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(proxy).await.expect("connected");
        socket.write_all(say).await.expect("said");
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
        answer
    }

    #[tokio::test]
    async fn what_is_listed_is_reached_and_nothing_else() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = server.local_addr().expect("an address").port();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = server.accept().await.expect("accepted");
                let mut data = [0u8; 256];
                let len = socket.read(&mut data).await.unwrap_or(0);
                let _ = socket.write_all(b"got:").await;
                let _ = socket.write_all(&data[..len]).await;
            }
        });
        let door = Arc::new(Door::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let proxy = listener.local_addr().expect("an address");
        let allowed =
            Destinations::parse(&[format!("127.0.0.1:{port}"), format!("localhost:{port}")]).expect("valid");
        tokio::spawn(serve(listener, Arc::new(allowed), door.clone()));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let got =
            text(through(proxy, format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nhello").as_bytes()).await);
        assert!(got.ends_with("got:hello"), "{got}");
        let got =
            text(through(proxy, format!("GET http://localhost:{port}/p HTTP/1.1\r\n\r\n").as_bytes()).await);
        assert!(got.starts_with("got:GET /p HTTP/1.1"), "{got}");
        let mut socks = vec![5, 1, 0, 5, 1, 0, 3, 9];
        socks.extend(b"localhost");
        socks.extend(port.to_be_bytes());
        socks.extend(b"by socks");
        let got = text(through(proxy, &socks).await);
        assert!(got.ends_with("got:by socks"), "{got}");
        for (refused, say) in [
            ("127.0.0.1:1", "CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n".to_owned()),
            ("example.org:80", "GET http://example.org/ HTTP/1.1\r\n\r\n".to_owned()),
            ("169.254.169.254:80", "GET http://169.254.169.254/ HTTP/1.1\r\n\r\n".to_owned()),
            ("2130706433", format!("CONNECT 2130706433:{port} HTTP/1.1\r\n\r\n")),
        ] {
            let got = text(through(proxy, say.as_bytes()).await);
            assert!(got.starts_with("HTTP/1.1 403"), "{say}: {got}");
            assert!(door.refused().iter().any(|r| r.starts_with(refused)), "{refused}");
        }
        let (sent, received) = door.bytes();
        assert!(sent > 5 && received > 9, "{sent} {received}");
    }
}
