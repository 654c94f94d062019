//! The workspace server over plain HTTP: files, uploads, archives, preview, access.

use std::time::Duration;

use legwork_e2e::workspace::{Client, Workspace, connect, http};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request written by hand; status and the whole answer.
async fn raw(address: &str, request: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        // A connection that was upgraded stays open.
        while !answer.starts_with(b"HTTP/1.1 101") && tcp.read_buf(&mut answer).await.unwrap() > 0 {}
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_refused_as_the_library_does() {
    let workspace = Workspace::start(&[]).await;
    let http = http();
    for (method, query, status, code) in [
        ("GET", "EIO=4", 400, 0),
        ("GET", "EIO=4&transport=carrier-pigeon", 400, 0),
        ("GET", "EIO=3&transport=polling", 400, 5),
        ("GET", "transport=polling", 400, 5),
        ("GET", "EIO=4&transport=polling&sid=nobody", 400, 1),
        ("POST", "EIO=4&transport=polling", 400, 2),
        ("GET", "EIO=4&transport=websocket", 400, 3),
    ] {
        let url = workspace.url(&format!("/socket.io/?{query}"));
        let answer = http.request(method.parse().unwrap(), url).send().await.unwrap();
        assert_eq!(answer.status(), status, "{method} {query}");
        let said: Value = answer.json().await.unwrap();
        assert_eq!(said["code"], code, "{method} {query}: {said}");
    }
    assert_eq!(http.get(workspace.url("/socket.io/socket.io.js")).send().await.unwrap().status(), 404);
    assert_eq!(
        http.get(workspace.url("/nowhere")).send().await.unwrap().text().await.unwrap(),
        r#"{"error":"not found"}"#
    );
    let options = http.request(reqwest::Method::OPTIONS, workspace.url("/anything")).send().await.unwrap();
    assert_eq!(options.status(), 204);
    // Two polls at a time end the session; so does a body that is no packet, or too large.
    let open = async || {
        let url = workspace.url("/socket.io/?EIO=4&transport=polling");
        let hello = http.get(url).send().await.unwrap().text().await.unwrap();
        let sid: Value = serde_json::from_str(&hello[1..]).unwrap();
        workspace.url(&format!("/socket.io/?EIO=4&transport=polling&sid={}", sid["sid"].as_str().unwrap()))
    };
    let url = open().await;
    let first = tokio::spawn(http.get(&url).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(http.get(&url).send().await.unwrap().status(), 400);
    first.await.unwrap().unwrap();
    assert_eq!(http.get(&url).send().await.unwrap().status(), 400, "the session is gone");
    for (body, status) in
        [("nonsense".to_owned(), 400), ("42[\"before joining\"]".into(), 400), ("4".repeat(11 << 20), 413)]
    {
        let url = open().await;
        let answer = http.post(&url).body(body).send().await;
        assert!(answer.is_err() || answer.unwrap().status() == status);
        assert_eq!(http.get(&url).send().await.unwrap().status(), 400, "the session is gone");
    }
    let url = open().await;
    assert_eq!(http.post(&url).body("40/admin,").send().await.unwrap().text().await.unwrap(), "ok");
    let said = http.get(&url).send().await.unwrap().text().await.unwrap();
    assert_eq!(said, r#"44/admin,{"message":"Invalid namespace"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_from_elsewhere_are_refused() {
    let workspace = Workspace::start(&[("ALLOWED_ORIGINS", "https://ide.example")]).await;
    std::fs::write(workspace.root.join("f"), "x").unwrap();
    let http = http();
    let address = &workspace.address;
    for (origin, status) in [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 403),
        ("https://ide.example", 200),
        (&format!("http://{address}"), 200),
    ] {
        for path in ["/socket.io/?EIO=4&transport=polling", "/files", "/api/files/f", "/"] {
            let answer = http.get(workspace.url(path)).header("origin", origin).send().await.unwrap();
            assert_eq!(answer.status(), status, "{origin} {path}");
        }
        let upgrade = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: close, Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let (got, _) = tokio::time::timeout(Duration::from_secs(15), raw(address, &upgrade)).await.unwrap();
        assert_eq!(got == 101, status == 200, "{origin}: {got}");
    }
}

/// A page whose name its owner pointed at this machine after it was loaded: to the browser all
/// it asks for is of its own origin, so a GET has no `Origin`, and old browsers say nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_name_was_pointed_here_reads_nothing() {
    for env in [&[][..], &[("LEGWORK_WORKSPACE_TOKEN", "t")]] {
        let workspace = Workspace::start(env).await;
        std::fs::write(workspace.root.join("f"), "secret").unwrap();
        let port = workspace.address.rsplit_once(':').unwrap().1;
        let said = http().get(workspace.url("/api/preview")).bearer_auth("t").send().await.unwrap();
        let preview = said.json::<Value>().await.unwrap()["url"].as_str().unwrap().to_owned();
        let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (path, more) in [
            ("/files", ""),
            ("/api/files/f", "Authorization: Bearer t\r\n"),
            ("/api/archive?format=zip", "Authorization: Bearer t\r\n"),
            ("/socket.io/?EIO=4&transport=polling&token=t", ""),
            ("/socket.io/?EIO=4&transport=websocket&token=t", upgrade),
            ("/ws?token=t", upgrade),
            ("/metrics", "Authorization: Bearer t\r\n"),
            ("/", ""),
            (&*preview, ""),
        ] {
            for (host, good) in [
                ("evil.example", false),
                ("localhost.evil.example", false),
                ("127.0.0.1", true),
                ("localhost", true),
            ] {
                let close = if more == upgrade { "close, Upgrade" } else { "close" };
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: {close}\r\n{more}\r\n"
                );
                let (status, said) = raw(&workspace.address, &request).await;
                assert_eq!(status != 403, good, "{path} {host}: {said}");
                assert!(good || !said.contains("secret") && said.contains("ALLOWED_ORIGINS"), "{said}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_and_go_in_parts() {
    let workspace = Workspace::start(&[("MAX_UPLOAD_BYTES", "3000000")]).await;
    let http = http();
    let url = workspace.url("/api/files/a/b%20c.bin");
    let data: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let put = http.put(&url).body(data.clone()).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let tag = put.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(std::fs::read(workspace.root.join("a/b c.bin")).unwrap(), data);
    let get = async |name: &str, value: &str| http.get(&url).header(name, value).send().await.unwrap();
    let whole = http.get(&url).send().await.unwrap();
    assert_eq!(whole.headers()["content-security-policy"], "default-src 'none'; sandbox");
    assert!(whole.headers()["content-disposition"].to_str().unwrap().starts_with("attachment"));
    assert_eq!(whole.bytes().await.unwrap(), data);
    let part = get("range", "bytes=1000-1999").await;
    assert_eq!(
        (part.status().as_u16(), &part.headers()["content-range"]),
        (206, &"bytes 1000-1999/2000000".parse().unwrap())
    );
    assert_eq!(part.bytes().await.unwrap(), data[1000..2000]);
    assert_eq!(get("range", "bytes=2000000-").await.status(), 416);
    assert_eq!(get("if-none-match", &tag).await.status(), 304);
    // On condition.
    let put = async |name: &'static str, value: &str| {
        http.put(&url).header(name, value).body("new").send().await.unwrap().status().as_u16()
    };
    assert_eq!(put("if-match", "\"other\"").await, 412);
    assert_eq!(put("if-none-match", "*").await, 412);
    assert_eq!(put("if-match", &tag).await, 200);
    assert_eq!(put("if-match", &tag).await, 412);
    // Too much, and paths that lead out; nothing is left of either.
    let over = http.put(&url).body(vec![0u8; 3_000_001]).send().await;
    assert!(over.is_err() || over.unwrap().status() == 413);
    for path in ["/api/files/..%2fx", "/api/files/%2e%2e/x", "/api/files/%2Fetc%2Fpasswd", "/api/files/a%00b"]
    {
        let (status, said) = raw(
            &workspace.address,
            &format!(
                "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
            ),
        )
        .await;
        assert_eq!(status, 403, "{path}: {said}");
    }
    // An upload that is cut changes nothing.
    let cut = "PUT /api/files/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf";
    let mut tcp = TcpStream::connect(&workspace.address).await.unwrap();
    tcp.write_all(cut.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(tcp);
    assert_eq!(http.delete(&url).send().await.unwrap().status(), 204);
    assert_eq!(http.delete(&url).send().await.unwrap().status(), 404);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let left: Vec<_> = std::fs::read_dir(&workspace.root).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["a"]);
    assert_eq!(std::fs::read_dir(workspace.root.join("a")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_a_cut() {
    use base64::Engine;
    let workspace = Workspace::start(&[]).await;
    let http = http();
    let data: Vec<u8> = (0..1_000_000u32).map(|n| (n % 253) as u8).collect();
    let path = base64::engine::general_purpose::STANDARD.encode("dir/big.bin");
    let made = http
        .post(workspace.url("/api/uploads"))
        .header("tus-resumable", "1.0.0")
        .header("upload-length", data.len())
        .header("upload-metadata", format!("path {path}"))
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);
    let url = workspace.url(made.headers()["location"].to_str().unwrap());
    let at = async || -> usize {
        let head = http.head(&url).send().await.unwrap();
        assert_eq!(head.status(), 200);
        head.headers()["upload-offset"].to_str().unwrap().parse().unwrap()
    };
    assert_eq!(at().await, 0);
    // A part whose connection breaks in its middle.
    let path_only = url.strip_prefix(&workspace.url("")).unwrap();
    let mut tcp = TcpStream::connect(&workspace.address).await.unwrap();
    let head = format!(
        "PATCH {path_only} HTTP/1.1\r\nHost: localhost\r\nUpload-Offset: 0\r\nContent-Type: \
         application/offset+octet-stream\r\nContent-Length: {}\r\n\r\n",
        data.len()
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp.write_all(&data[..400_000]).await.unwrap();
    tcp.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(tcp);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let from = at().await;
    assert!(from > 0 && from <= 400_000, "{from}");
    assert!(!workspace.root.join("dir/big.bin").exists(), "it appears when it is whole");
    let patch = async |offset: usize, body: Vec<u8>| {
        http.patch(&url).header("upload-offset", offset).body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(patch(0, data[..10].to_vec()).await, 409);
    assert_eq!(patch(from, data[from..].to_vec()).await, 204);
    assert_eq!(std::fs::read(workspace.root.join("dir/big.bin")).unwrap(), data);
    assert_eq!(http.head(&url).send().await.unwrap().status(), 404);
    for (length, path) in [("x", "path eA=="), ("5", "path !"), ("5", "")] {
        let request = http.post(workspace.url("/api/uploads")).header("upload-length", length);
        let answer = request.header("upload-metadata", path).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{length} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_go_down_and_up() {
    let workspace = Workspace::start(&[]).await;
    let http = http();
    for name in ["p/src/a", "p/node_modules/x/y"] {
        let path = workspace.root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    for format in ["tar.zst", "zip"] {
        let down =
            http.get(workspace.url(&format!("/api/archive?path=p&format={format}"))).send().await.unwrap();
        assert!(down.headers()["content-disposition"].to_str().unwrap().contains(&format!("p.{format}")));
        let bytes = down.bytes().await.unwrap();
        let url = workspace.url(&format!("/api/archive?path=copy-{format}&format={format}"));
        let up: Value = http.post(url).body(bytes.clone()).send().await.unwrap().json().await.unwrap();
        assert_eq!(up, json!({ "success": true, "entries": 2, "bytes": 7 }));
        let copy = workspace.root.join(format!("copy-{format}"));
        assert_eq!(std::fs::read_to_string(copy.join("src/a")).unwrap(), "p/src/a");
        assert!(!copy.join("node_modules").exists());
        let bad = http.post(workspace.url(&format!("/api/archive?format={format}"))).body(bytes.slice(..20));
        assert_eq!(bad.send().await.unwrap().status(), 400);
    }
    assert_eq!(http.get(workspace.url("/api/archive?path=nowhere")).send().await.unwrap().status(), 404);
    assert_eq!(http.get(workspace.url("/api/archive?path=../x")).send().await.unwrap().status(), 403);
    assert_eq!(http.get(workspace.url("/api/archive?format=rar")).send().await.unwrap().status(), 400);
}

/// An application that answers with what it was asked, and echoes over a WebSocket.
async fn application() -> u16 {
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = |uri: axum::http::Uri, headers: HeaderMap| async move {
        let names: Vec<String> =
            headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        ([("x-frame-options", "DENY")], format!("{uri}\n{}", names.join("\n"))).into_response()
    };
    let moved = || async { ([("location", "/there")], axum::http::StatusCode::FOUND).into_response() };
    let app = axum::Router::new().route("/moved", axum::routing::get(moved)).fallback(page);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut start = [0u8; 8];
            while tcp.peek(&mut start).await.unwrap_or(8) < 8 {}
            if &start == b"GET /ech" {
                tokio::spawn(async move {
                    use futures_util::{SinkExt, StreamExt};
                    let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
                    while let Some(Ok(message)) = socket.next().await {
                        if socket.send(message).await.is_err() {
                            return;
                        }
                    }
                });
                continue;
            }
            let service = hyper_util::service::TowerToHyperService::new(app.clone());
            let io = hyper_util::rt::TokioIo::new(tcp);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(io, service).into_future(),
            );
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preview_shows_the_application_and_lets_it_do_nothing_else() {
    use futures_util::{SinkExt, StreamExt};
    let port = application().await.to_string();
    let env = [("USER_PORT", &*port), ("LEGWORK_WORKSPACE_TOKEN", "token")];
    let workspace = Workspace::start(&env).await;
    let http = http();
    let said: Value = http
        .get(workspace.url("/api/preview"))
        .bearer_auth("token")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(said["listening"], true);
    let url = said["url"].as_str().unwrap();
    // From a page of no origin, as it is in the sandbox.
    let get = async |path: &str| http.get(workspace.url(path)).header("origin", "null").send().await.unwrap();
    let page = get(&format!("{url}a/b?c=d")).await;
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()["content-security-policy"], "sandbox allow-scripts allow-forms");
    assert_eq!(page.headers()["access-control-allow-origin"], "*");
    assert!(page.headers().get("x-frame-options").is_none());
    let text = page.text().await.unwrap();
    assert!(text.starts_with("/a/b?c=d\n") && text.contains(&format!("host: localhost:{port}")), "{text}");
    assert_eq!(get(&format!("{url}moved")).await.headers()["location"], format!("{url}there"));
    // Without the key, or the token, nothing; the token is not passed on.
    assert_eq!(get("/preview/").await.status(), 401);
    assert_eq!(get("/preview/~wrong/").await.status(), 401);
    let direct = http.get(workspace.url("/preview/x")).bearer_auth("token").send().await.unwrap();
    assert!(!direct.text().await.unwrap().to_lowercase().contains("authorization"));
    // The key opens nothing else.
    let key = url.trim_matches('/').rsplit('~').next().unwrap();
    for path in ["/api/files/x", "/metrics", "/api/info"] {
        assert_eq!(http.get(workspace.url(path)).bearer_auth(key).send().await.unwrap().status(), 401);
    }
    // WebSockets pass.
    let mut socket = connect(&workspace.address, &format!("{url}echo")).await;
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "hello");
}

/// An application is told the address it has here, and with it the key: that must not open the
/// port of another. Its page in the browser knows it as well, so nothing but the key decides.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_one_preview_opens_no_other() {
    let (mine, other) = (application().await, application().await);
    for token in [Some("token"), None] {
        let mut env = vec![("USER_PORT", mine.to_string())];
        env.extend(token.map(|token| ("LEGWORK_WORKSPACE_TOKEN", token.to_owned())));
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, &**value)).collect();
        let workspace = Workspace::start(&env).await;
        let http = http();
        let address = async |port: u16| -> String {
            let asked = http.get(workspace.url(&format!("/api/preview?port={port}")));
            let said = asked.bearer_auth("token").send().await.unwrap();
            said.json::<Value>().await.unwrap()["url"].as_str().unwrap().to_owned()
        };
        let get = async |path: &str| {
            let said = http.get(workspace.url(path)).header("origin", "null").send().await.unwrap();
            (said.status().as_u16(), said.text().await.unwrap())
        };
        let (usual, named) = (address(mine).await, address(other).await);
        let (status, told) = get(&usual).await;
        assert_eq!(status, 200, "{told}");
        let told = told.lines().find_map(|line| line.strip_prefix("x-forwarded-prefix: ")).unwrap();
        assert_eq!(told, usual.trim_end_matches('/'));
        let key = told.rsplit_once('~').unwrap().1;
        assert_eq!(get(&format!("/preview/{mine}~{key}/")).await.0, 200, "its own port may be said");
        for path in [format!("/preview/{other}~{key}/x"), format!("/preview/99999999~{key}/x")] {
            let (status, said) = get(&path).await;
            assert_eq!(status, 401, "{path}: {said}");
            // Nor is it passed on to the usual application, for who needs no key.
            let own = http.get(workspace.url(&path)).bearer_auth("token").send().await.unwrap();
            assert_eq!(own.status(), 401, "{path}");
        }
        let theirs = named.trim_matches('/').rsplit_once('~').unwrap().1;
        assert_eq!(get(&named).await.0, 200);
        assert_eq!(get(&format!("/preview/~{theirs}/x")).await.0, 401);
        // A path of the application that only looks a little like one is the application's.
        let own = http.get(workspace.url("/preview/7~x/y")).bearer_auth("token").send().await.unwrap();
        assert!(own.text().await.unwrap().starts_with("/7~x/y\n"));
    }
}

/// An application that means harm: it sends browsers out of its preview to what we serve, and
/// changes a connection to a protocol that nobody asked for, so that it could answer what follows.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_leads_no_browser_out_and_takes_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && tcp.read_buf(&mut head).await.unwrap_or(0) > 0 {}
                let head = String::from_utf8_lossy(&head).into_owned();
                let answer = if head.starts_with("GET /switch") {
                    let other = if head.starts_with("GET /switch-other") { "h2c" } else { "websocket" };
                    format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {other}\r\nConnection: Upgrade\r\n\r\n"
                    )
                } else {
                    let to = head.split_once("to=").and_then(|(_, rest)| rest.split(' ').next());
                    let to = to.unwrap_or_default();
                    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
                };
                let _ = tcp.write_all(answer.as_bytes()).await;
            });
        }
    });
    let workspace = Workspace::start(&[("USER_PORT", &port)]).await;
    let http = http();
    let said = http.get(workspace.url("/api/preview")).send().await.unwrap().json::<Value>().await.unwrap();
    let url = said["url"].as_str().unwrap();
    for to in ["/..//../api/info", "../../../../api/info", "/%2e%2e/../api/info", &workspace.url("/api/info")]
    {
        let said = http.get(workspace.url(&format!("{url}x?to={to}"))).send().await.unwrap();
        assert_eq!(said.status(), 302);
        assert_eq!(said.headers()["location"], format!("{url}api/info"), "{to}");
    }
    let ask = |path: &str, more: &str| {
        format!("GET {url}{path} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", workspace.address)
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, more, want) in
        [("switch", "Connection: close\r\n", 502), ("switch-other", upgrade, 502), ("switch", upgrade, 101)]
    {
        let (status, answer) = raw(&workspace.address, &ask(path, more)).await;
        assert_eq!(status, want, "{path} {more}: {answer}");
    }
}

/// Below a path, absolute addresses would lead out of the preview: in pages, in style sheets and in
/// headers they lead back in, while the answer comes; all else passes as it is.
#[tokio::test(flavor = "multi_thread")]
async fn below_a_path_absolute_addresses_lead_back_in() {
    use axum::response::IntoResponse;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let (first, last) = ("<a href=/one>1</a>", "<a href='/two'>2</a>");
    let (more, rest) = tokio::sync::mpsc::channel::<String>(1);
    let rest = std::sync::Arc::new(tokio::sync::Mutex::new(rest));
    let slow = move || async move {
        let pieces = futures_util::stream::unfold(rest, |rest| async move {
            let piece = rest.lock().await.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(piece), rest))
        });
        ([("content-type", "text/html; charset=utf-8")], axum::body::Body::from_stream(pieces))
            .into_response()
    };
    let css = || async { ([("content-type", "text/css")], "a{b:url(/c.png)}") };
    let js = || async { ([("content-type", "text/javascript")], "f('<a href=/x>')") };
    let linked =
        || async { ([("link", "</a.css>; rel=preload"), ("refresh", "0; url=/b")], "x").into_response() };
    let app = axum::Router::new()
        .route("/slow", axum::routing::get(slow))
        .route("/a.css", axum::routing::get(css))
        .route("/a.js", axum::routing::get(js))
        .route("/linked", axum::routing::get(linked));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let workspace = Workspace::start(&[("USER_PORT", &port)]).await;
    let http = http();
    let said = http.get(workspace.url("/api/preview")).send().await.unwrap().json::<Value>().await.unwrap();
    let url = said["url"].as_str().unwrap();
    let before = url.trim_end_matches('/');
    let get = async |path: &str| http.get(workspace.url(&format!("{url}{path}"))).send().await.unwrap();
    more.send(first.into()).await.unwrap();
    let mut page = get("slow").await;
    // The first piece is there before the second is made.
    let mut got = page.chunk().await.unwrap().unwrap().to_vec();
    assert!(String::from_utf8_lossy(&got).starts_with(&format!("<a href={before}/one>1")), "{got:?}");
    more.send(last.into()).await.unwrap();
    drop(more);
    while let Some(piece) = page.chunk().await.unwrap() {
        got.extend_from_slice(&piece);
    }
    let want = format!("<a href={before}/one>1</a><a href='{before}/two'>2</a>");
    assert_eq!(String::from_utf8(got).unwrap(), want);
    assert_eq!(get("a.css").await.text().await.unwrap(), format!("a{{b:url({before}/c.png)}}"));
    assert_eq!(get("a.js").await.text().await.unwrap(), "f('<a href=/x>')");
    let linked = get("linked").await;
    assert_eq!(linked.headers()["link"], format!("<{before}/a.css>; rel=preload"));
    assert_eq!(linked.headers()["refresh"], format!("0; url={before}/b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_not_there_is_waited_for() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let workspace = Workspace::start(&[("USER_PORT", &free)]).await;
    let answer = http().get(workspace.url("/preview/")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["refresh"]), (502, &"2".parse().unwrap()));
    assert!(answer.text().await.unwrap().contains(&format!("port {free}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_is_started_and_ended_with_the_server() {
    let env = [("START_COMMAND", "echo started on $PORT; exec sleep 971"), ("USER_PORT", "4567")];
    let mut workspace = Workspace::start(&env).await;
    let log = workspace.home.path().join("app.log");
    legwork_e2e::until("its output", || async {
        std::fs::read_to_string(&log).is_ok_and(|t| t == "started on 4567\n")
    })
    .await;
    assert_eq!(workspace.stop().await, 0);
    let left = std::process::Command::new("pgrep").args(["-f", "sleep 971"]).output().unwrap();
    assert!(left.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_scan_say_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("ws");
    std::fs::create_dir(&root).unwrap();
    let rules = home.path().join("rules.yaml");
    std::fs::write(&rules, "rules: [{id: no-eval, pattern: 'eval\\(', severity: low}]").unwrap();
    let workspace = Workspace::over(home, root, &[("SCAN_RULES", rules.to_str().unwrap())]).await;
    std::fs::write(workspace.root.join(".env"), "\nAWS=AKIAABCDEFGHIJKLMNOP\n").unwrap();
    std::fs::write(workspace.root.join("x.js"), "eval(1)").unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o4777);
    std::fs::set_permissions(workspace.root.join("x.js"), mode).unwrap();
    let mut client: Client = workspace.client().await;
    client.refused("fetchContent", json!("nowhere")).await;
    let http = http();
    let text = http.get(workspace.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        "legwork_connections 1",
        "legwork_terminals 1",
        "legwork_request_errors_total 1",
        "legwork_file_operation_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let report: Value = http.post(workspace.url("/api/scan")).send().await.unwrap().json().await.unwrap();
    let rules: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["aws-access-key", "mode-setuid", "mode-world-writable", "no-eval"]);
    assert_eq!(report["findings"][0]["line"], 2);
    assert!(!report.to_string().contains("AKIAABCDEFGHIJKLMNOP"), "what was found is not told to all");
}

/// The view token's key let POST into the application; an ingress's cookies went there, and
/// the application's settings for a whole origin came to ours.
#[tokio::test(flavor = "multi_thread")]
async fn the_preview_passes_no_rights_and_no_cookies_either_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let page = |request: axum::extract::Request| async move {
        use axum::response::IntoResponse;
        let names: Vec<String> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        let headers = [
            ("set-cookie", "session=stolen; Path=/"),
            ("clear-site-data", "\"*\""),
            ("strict-transport-security", "max-age=31536000"),
            ("alt-svc", "h3=\":443\""),
            ("nel", "{}"),
            ("report-to", "{}"),
            ("www-authenticate", "Basic realm=x"),
            ("service-worker-allowed", "/"),
            ("x-mine", "kept"),
        ];
        (headers, format!("{} {}\n{}", request.method(), request.uri(), names.join("\n"))).into_response()
    };
    let app = axum::Router::new().fallback(page);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let env = [
        ("USER_PORT", &*port),
        ("LEGWORK_WORKSPACE_TOKEN", "work"),
        ("LEGWORK_WORKSPACE_VIEW_TOKEN", "view"),
    ];
    let workspace = Workspace::start(&env).await;
    let http = http();
    let key = async |token: &str| -> String {
        let said = http.get(workspace.url("/api/preview")).bearer_auth(token).send().await.unwrap();
        said.json::<Value>().await.unwrap()["url"].as_str().unwrap().to_owned()
    };
    let (work, view) = (key("work").await, key("view").await);
    assert_ne!(work, view);
    for (path, token, allowed) in [
        (&*work, None, true),
        (&*view, None, false),
        ("/preview/", Some("work"), true),
        ("/preview/", Some("view"), false),
    ] {
        let ask = async |method: &str| {
            let mut request = http.request(method.parse().unwrap(), workspace.url(path));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(ask("GET").await, 200, "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(ask(method).await, if allowed { 200 } else { 403 }, "{method} {path}");
        }
    }
    let upgrade = format!(
        "GET {view}ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        workspace.address
    );
    assert_eq!(raw(&workspace.address, &upgrade).await.0, 403);
    let answer = http
        .get(workspace.url(&format!("{work}page")))
        .header("cookie", "ingress=secret; legwork-app-session=mine")
        .header("x-auth-request-access-token", "secret")
        .header("x-forwarded-access-token", "secret")
        .header("cf-access-jwt-assertion", "secret")
        .header("x-csrf-token", "the application's own")
        .header("referer", workspace.url(&format!("{work}before")))
        .send()
        .await
        .unwrap();
    let kept = answer.headers()["set-cookie"].to_str().unwrap();
    let path = work.trim_end_matches('/');
    assert!(kept.starts_with(&format!("legwork-app-session=stolen; Path={path}; HttpOnly")), "{kept}");
    for name in [
        "clear-site-data",
        "strict-transport-security",
        "alt-svc",
        "nel",
        "report-to",
        "www-authenticate",
        "service-worker-allowed",
    ] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    assert_eq!(answer.headers()["x-mine"], "kept");
    let text = answer.text().await.unwrap();
    assert!(!text.contains("secret") && text.contains("the application's own"), "{text}");
    assert!(text.contains("cookie: session=mine\n"), "{text}");
    assert!(text.contains(&format!("referer: http://localhost:{port}/before")), "{text}");
}

/// A preview of its own name: an origin of its own, in which applications work as they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_preview_by_name_is_the_application_s_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = |request: axum::extract::Request| async move {
        use axum::http::HeaderValue;
        use axum::response::IntoResponse;
        let names: Vec<String> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        let mut response =
            format!("{} {}\n{}", request.method(), request.uri(), names.join("\n")).into_response();
        for (name, value) in [
            ("set-cookie", "session=1; Domain=.example.com; Path=/; HttpOnly"),
            ("set-cookie", "theme=dark"),
            ("set-cookie", "legwork-preview=forged"),
            ("clear-site-data", "\"*\""),
            ("strict-transport-security", "max-age=1; includeSubDomains"),
            ("x-frame-options", "DENY"),
            ("www-authenticate", "Basic realm=its-own"),
            ("content-security-policy", "default-src 'self'; frame-ancestors 'none'"),
        ] {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        if request_is(&names, "moved") {
            response.headers_mut().insert("location", HeaderValue::from_str("/there").unwrap());
        }
        response
    };
    fn request_is(names: &[String], what: &str) -> bool {
        names.iter().any(|n| n == &format!("x-ask: {what}"))
    }
    let app = axum::Router::new().fallback(page);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let env = [
        ("LEGWORK_WORKSPACE_TOKEN", "work"),
        ("LEGWORK_WORKSPACE_VIEW_TOKEN", "view"),
        ("PREVIEW_HOST", "{port}--abc.example.com"),
        ("ALLOWED_ORIGINS", "https://abc.example.com"),
        ("PREVIEW_VIEW_PORTS", "none"),
    ];
    let workspace = Workspace::start(&env).await;
    let named = format!("{port}--abc.example.com");
    let get = async |host: &str, path: &str, more: &[(&str, &str)]| {
        let mut request = http().get(workspace.url(path)).header("host", host);
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    // No key, no preview; and nothing of ours under its name, whoever asks.
    for path in ["/", "/api/info", "/files", "/socket.io/?EIO=4&transport=polling"] {
        let said = get(&named, path, &[("authorization", "Bearer work")]).await;
        assert_eq!(said.status(), 401, "{path}");
    }
    let local = format!("{port}.localhost");
    assert_eq!(get(&local, "/api/info", &[("authorization", "Bearer work")]).await.status(), 401);
    assert_eq!(get("evil.example", "/", &[]).await.status(), 403);
    // What an ingress has set for all of its hosts comes with the request for the address.
    let asked = [("authorization", "Bearer work"), ("cookie", "_ingress=secret; other=secret")];
    let place: Value = get("abc.example.com", &format!("/api/preview?port={port}&secure=1"), &asked)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(place["host"], named);
    let entry = place["entry"].as_str().unwrap();
    assert_eq!(
        get(&format!("{}--abc.example.com", port ^ 1), entry, &[]).await.status(),
        401,
        "another port's"
    );
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let said = client
        .get(workspace.url(&format!("{entry}&to=/a%3Fb=c")))
        .header("host", &named)
        .send()
        .await
        .unwrap();
    assert_eq!((said.status().as_u16(), &said.headers()["location"]), (303, &"/a?b=c".parse().unwrap()));
    assert_eq!(get(&named, entry, &[]).await.status(), 401, "it was good once");
    let cookie = said.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-legwork-preview=") && cookie.contains("HttpOnly; Secure"), "{cookie}");
    let key = cookie.split(';').next().unwrap();
    let sent = format!("_ingress=secret; {key}; session=1; CF_Authorization=secret; other=secret");
    let more = [
        ("cookie", &*sent),
        ("origin", "https://5--abc.example.com"),
        ("referer", &format!("https://{named}/page?q")),
        ("authorization", "Bearer theirs"),
        ("x-forwarded-access-token", "secret"),
        ("x-ask", "moved"),
    ];
    let said = client.get(workspace.url("/abs/path?x=y")).header("host", &named);
    let said = more.iter().fold(said, |r, (n, v)| r.header(*n, *v)).send().await.unwrap();
    assert_eq!(said.status(), 200);
    let headers = said.headers().clone();
    let cookies: Vec<&str> = headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(cookies, ["session=1; Path=/; HttpOnly", "theme=dark"]);
    for gone in ["clear-site-data", "strict-transport-security", "x-frame-options"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["content-security-policy"], "default-src 'self'");
    assert_eq!(headers["location"], "/there");
    assert!(headers.contains_key("www-authenticate"));
    let text = said.text().await.unwrap();
    for want in [
        "GET /abs/path?x=y\n".to_owned(),
        format!("host: localhost:{port}"),
        format!("x-forwarded-host: {named}"),
        "cookie: session=1\n".to_owned(),
        "origin: https://5--abc.example.com".to_owned(),
        format!("referer: http://localhost:{port}/page?q"),
        "authorization: Bearer theirs".to_owned(),
    ] {
        assert!(format!("{text}\n").contains(&want), "{want} in {text}");
    }
    assert!(!text.contains("secret") && !text.contains("legwork"), "{text}");
    // Our token is no application's.
    let said =
        get(&named, "/", &[("cookie", key), ("authorization", "Bearer work")]).await.text().await.unwrap();
    assert!(!said.contains("authorization"), "{said}");
    // Who may only look may not, here.
    let said =
        get("abc.example.com", &format!("/api/preview?port={port}"), &[("authorization", "Bearer view")])
            .await;
    assert_eq!(said.status(), 403);
    let own = workspace.address.rsplit_once(':').unwrap().1;
    let said =
        get("abc.example.com", &format!("/api/preview?port={own}"), &[("authorization", "Bearer work")])
            .await;
    let place: Value = said.json().await.unwrap();
    let entry = place["entry"].as_str().unwrap();
    let host = place["host"].as_str().unwrap();
    let said = client.get(workspace.url(entry)).header("host", host).send().await.unwrap();
    let key = said.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(get(host, "/", &[("cookie", &key)]).await.status(), 502, "a server does not preview itself");
}

/// Without a token on loopback the name alone is enough, as the port itself would be.
#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_every_port_has_a_name() {
    use futures_util::{SinkExt, StreamExt};
    let port = application().await;
    let workspace = Workspace::start(&[("PREVIEW_PORTS", &port.to_string())]).await;
    let local = format!("{port}.localhost:{}", workspace.address.rsplit_once(':').unwrap().1);
    let said = http().get(workspace.url("/a/b?c=d")).header("host", &local).send().await.unwrap();
    let text = said.text().await.unwrap();
    assert!(text.starts_with("/a/b?c=d\n"), "{text}");
    let said = http().get(workspace.url("/")).header("host", "9.localhost").send().await.unwrap();
    assert_eq!(said.status(), 403, "not among PREVIEW_PORTS: {}", said.text().await.unwrap());
    let request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(format!(
        "ws://{}/echo",
        workspace.address
    ));
    let mut request = request.unwrap();
    request.headers_mut().insert("host", local.parse().unwrap());
    let tcp = TcpStream::connect(&workspace.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, tcp).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "hello");
}
