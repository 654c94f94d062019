//! Terminals behind walls: what listens in their network, and where they may connect to.

use legwork_e2e::workspace::{Client, Workspace, http};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Listens on one loopback address on a port that is free there, and says which; then serves the
/// folder.
const SERVER: &str = "
import http.server, socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
http.server.HTTPServer.address_family = family
server = http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), http.server.SimpleHTTPRequestHandler)
server.serve_forever()
";

async fn opened(client: &mut Client, command: &str) -> Value {
    let made = client.ask("terminal:open", json!({ "command": command })).await;
    assert!(made["id"].is_string(), "{made}");
    made
}

#[allow(clippy::print_stdout, reason = "a machine without walls says so")]
fn not_here(shown: &str) {
    println!("NOT CHECKED HERE: {shown}");
}

/// Waits until a port is listened on, by what clients are told. `None` if there are no walls here.
async fn listening(client: &mut Client, terminal: &Value, port: u16) -> Option<()> {
    loop {
        let (name, event) = client.any_event().await;
        let shown = event["data"].as_str().unwrap_or_default();
        if name == "terminal:data" && shown.contains("cannot start shell") {
            not_here(shown);
            return None;
        }
        assert!(name != "terminal:exit" || event["id"] != terminal["id"], "it ended: {event}");
        if name == "port:open" && event["port"] == port {
            return Some(());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_listens_behind_a_wall_is_previewed() {
    let workspace = Workspace::start(&[("SANDBOX", "namespaces")]).await;
    std::fs::write(workspace.root.join("server.py"), SERVER).unwrap();
    std::fs::write(workspace.root.join("page.txt"), "from behind the wall").unwrap();
    let mut client = workspace.client().await;
    client.ask("watch", json!({ "ports": true })).await;
    let http = http();
    for (address, port) in [("127.0.0.1", 18473), ("::1", 18474)] {
        let made = opened(&mut client, &format!("exec python3 server.py {address} {port}")).await;
        if listening(&mut client, &made, port).await.is_none() {
            return;
        }
        // Not on this machine.
        assert!(tokio::net::TcpStream::connect(("localhost", port)).await.is_err());
        let place = workspace.url(&format!("/api/preview?port={port}"));
        let place = http.get(place).send().await.unwrap().json::<Value>().await.unwrap();
        assert_eq!(place["listening"], true);
        for (host, path) in [
            (workspace.address.clone(), place["url"].as_str().unwrap()),
            (place["host"].as_str().unwrap().into(), "/"),
        ] {
            let url = workspace.url(&format!("{path}page.txt"));
            let answer = http.get(url).header("host", host).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), "from behind the wall");
        }
        client.ask("terminal:close", json!({ "id": made["id"] })).await;
        while client.event("port:close").await["port"] != port {}
        let answer = http.get(workspace.url(place["url"].as_str().unwrap())).send().await.unwrap();
        assert_eq!(answer.status(), 502, "it is gone with its terminal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_wall_only_what_is_listed_is_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut head = [0u8; 1024];
            let _ = tcp.read(&mut head).await;
            let _ = tcp
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached")
                .await;
        }
    });
    let listed = format!("127.0.0.1:{port}");
    let workspace = Workspace::start(&[("SANDBOX", "namespaces"), ("LEGWORK_EGRESS", &listed)]).await;
    let mut client = workspace.client().await;
    let command = format!(
        "curl -s --noproxy '' http://127.0.0.1:{port}/; curl -s --noproxy '' http://example.org/; \
         curl -s --noproxy '*' -m 5 http://127.0.0.1:{port}/ || echo; echo direct $?"
    );
    let made = opened(&mut client, &command).await;
    // The end is told apart from the output, and may come before the last of it.
    let mut shown = String::new();
    while !shown.contains("[process exited") {
        let (name, event) = client.any_event().await;
        if name == "terminal:data" && event["id"] == made["id"] {
            shown.push_str(event["data"].as_str().unwrap_or_default());
        }
    }
    if shown.contains("cannot start shell") {
        not_here(&shown);
        return;
    }
    assert!(shown.contains("reached"), "{shown}");
    assert!(shown.contains("example.org:80 is not allowed"), "{shown}");
    assert_eq!(shown.matches("reached").count(), 1, "past the proxy there is nothing: {shown}");
}
