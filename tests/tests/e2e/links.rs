//! The link to a hub as it really is: TLS, proxies, lines that stall or are slow,
//! names that change, clocks that jump.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use legwork_e2e::proxy::Proxy;
use legwork_e2e::{ALLOW_ALL, Hub, Runner, binary, legwork, legwork_at, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate and its key as `NAME.pem` and `NAME.key`.
fn issue(authority: &Issuer, folder: &Path, name: &str, usage: ExtendedKeyUsagePurpose) {
    let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_hub_with_tls_is_reached_by_those_who_know_its_authority() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    issue(&ca, dir.path(), "hub", ExtendedKeyUsagePurpose::ServerAuth);
    let (cert, key) = (dir.path().join("hub.pem"), dir.path().join("hub.key"));
    let hub = Hub::start_with(
        &dir.path().join("hub"),
        "127.0.0.1:0",
        &["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()],
    )
    .await;
    assert!(hub.url.starts_with("https://"));
    let cli = async |args: &[&str], envs: &[(&str, &str)]| {
        let mut command = legwork(dir.path());
        command.args(args).env("LEGWORK_HUB_URL", &hub.url).env("LEGWORK_TOKEN", &hub.admin);
        command.envs(envs.iter().copied()).output().await.unwrap()
    };
    let ca_env = [("LEGWORK_CA_FILE", ca_file.to_str().unwrap())];
    let made = cli(&["token", "create", "r1", "--role", "runner", "--json"], &ca_env).await;
    let token: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    // Who does not know the authority is refused by himself; an empty variable is none.
    let refused = cli(&["runners"], &[("LEGWORK_CA_FILE", "")]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("failed to reach the hub"));
    let url = hub.url.replacen("http", "ws", 1) + "/runner/ws";
    let more = format!("tls:\n  ca_file: {}\n", ca_file.display());
    let home = dir.path().join("r1");
    let _runner = Runner::start_with(&home, &url, token["token"].as_str().unwrap(), ALLOW_ALL, &more).await;
    let start = Instant::now();
    loop {
        let ran = cli(&["exec", "-r", "r1", "--", "echo over tls"], &ca_env).await;
        if ran.status.success() {
            assert_eq!(String::from_utf8_lossy(&ran.stdout), "over tls\n");
            break;
        }
        assert!(start.elapsed() < legwork_e2e::DEADLINE, "{ran:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let stranger = dir.path().join("r2");
    Runner::configure(&stranger, &url, "t", ALLOW_ALL, "health:\n  listen: 127.0.0.1:0\n");
    let mut lines = log_of(&stranger);
    until_logged(&mut lines, "invalid peer certificate").await;
}

/// A runner whose log is read.
fn log_of(home: &Path) -> tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>> {
    use tokio::io::AsyncBufReadExt;
    let mut process = legwork(home).arg("run").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = tokio::io::BufReader::new(process.stdout.take().unwrap()).lines();
    tokio::spawn(async move { process.wait().await });
    lines
}

async fn until_logged(
    lines: &mut tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
    text: &str,
) -> String {
    loop {
        let line = tokio::time::timeout(legwork_e2e::DEADLINE, lines.next_line()).await.expect(text).unwrap();
        let line = line.expect(text);
        if line.contains(text) {
            return line;
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let ca = authority();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("ca.pem"), ca.pem()).unwrap();
    issue(&ca, dir.path(), "hub", ExtendedKeyUsagePurpose::ServerAuth);
    issue(&ca, dir.path(), "me", ExtendedKeyUsagePurpose::ClientAuth);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(at("hub.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(at("hub.key")).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}/runner/ws", listener.local_addr().unwrap().port());
    let more = format!(
        "tls:\n  ca_file: {}\n  client_cert: {}\n  client_key: {}\n",
        at("ca.pem").display(),
        at("me.pem").display(),
        at("me.key").display()
    );
    let _runner = Runner::start_with(dir.path(), &url, "t", ALLOW_ALL, &more).await;
    let (tcp, _) = tokio::time::timeout(legwork_e2e::DEADLINE, listener.accept()).await.unwrap().unwrap();
    let tls = acceptor.accept(tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.peer_certificates().map(<[_]>::len), Some(1));
    let mut ws = tokio_tungstenite::accept_async(tls).await.unwrap();
    let heartbeat = loop {
        let message = ws.next().await.unwrap().unwrap();
        if message.is_text() {
            break message.into_text().unwrap().to_string();
        }
        ws.send(tokio_tungstenite::tungstenite::Message::text("{}")).await.unwrap();
    };
    assert!(heartbeat.contains("\"heartbeat\""), "{heartbeat}");
}

/// A proxy that knows CONNECT and one password; tells where it was asked to connect.
async fn connect_proxy(target: String) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, asked) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let (target, sender) = (target.clone(), sender.clone());
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(inner.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                let _ = sender.send(request.lines().next().unwrap().to_owned()).await;
                // me:s3cret
                if !request.contains("Proxy-Authorization: Basic bWU6czNjcmV0") {
                    let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                    return inner.write_all(refusal).await.unwrap();
                }
                let mut outer = TcpStream::connect(target).await.unwrap();
                inner.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn the_hub_is_reached_through_a_proxy_whose_password_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("r1").await;
    let (proxy, mut asked) = connect_proxy(hub.address()).await;
    let home = dir.path().join("r1");
    Runner::configure(&home, "ws://hub.internal:7440/runner/ws", &token, ALLOW_ALL, "");
    let start = |password: &str| {
        let mut command = legwork_at(&binary(), &home);
        command.arg("run").env("HTTP_PROXY", format!("http://me:{password}@{proxy}"));
        command.stdout(std::process::Stdio::piped());
        command
    };
    let mut process = start("s3cret").spawn().unwrap();
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    assert_eq!(asked.recv().await.unwrap(), "CONNECT hub.internal:7440 HTTP/1.1");
    // The proxy is the operator's, and its variable one that commands get.
    assert_eq!(api.run("r1", "echo ${HTTP_PROXY:+set}").await["result"]["stdout"], "set\n");
    process.kill().await.unwrap();
    let mut refused = start("wr0ng").spawn().unwrap();
    use tokio::io::AsyncBufReadExt;
    let mut lines = tokio::io::BufReader::new(refused.stdout.take().unwrap()).lines();
    let line = until_logged(&mut lines, "failed to connect").await;
    assert!(line.contains("407 Proxy Authentication Required") && !line.contains("wr0ng"), "{line}");
    refused.kill().await.unwrap();
}

#[tokio::test]
async fn a_slow_link_and_a_stalled_one_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let proxy = Proxy::start(hub.address()).await;
    let token = hub.runner_token("r1").await;
    let _runner = Runner::start(&dir.path().join("r1"), &proxy.address, &token, ALLOW_ALL).await;
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    proxy.slow_down(100_000);
    let slow = api.bash("r1", "seq 1 40000").await;
    let want: String = (1..=40_000).map(|n| format!("{n}\n")).collect();
    api.end(&slow).await;
    let output = |events: Vec<(String, String, serde_json::Value)>| -> String {
        let outputs = events.into_iter().filter(|(_, kind, _)| kind == "output");
        outputs.map(|(_, _, data)| data["data"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(output(api.events(&slow, None, 100_000).await), want);
    proxy.slow_down(u64::MAX);
    // Nothing moves for some seconds, and nobody is told.
    proxy.stall(true);
    let stalled = api.bash("r1", "echo through").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.stall(false);
    assert_eq!(api.end(&stalled).await["runs"][0]["result"]["stdout"], "through\n");
}

#[tokio::test]
async fn a_half_open_link_is_noticed_by_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let proxy = Proxy::start(hub.address()).await;
    let token = hub.runner_token("r1").await;
    let runner = Runner::start(&dir.path().join("r1"), &proxy.address, &token, ALLOW_ALL).await;
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    let running = api.bash("r1", "echo 0 >> log; sleep 3; echo done").await;
    until("it runs", || async { runner.workspace.join("log").exists() }).await;
    // The link there is dies without a word; new ones work. 60 s of silence end it.
    proxy.strand();
    let start = Instant::now();
    loop {
        let task = api.get(&format!("/tasks/{running}")).await.1;
        if task["state"] == "succeeded" {
            assert_eq!(task["runs"][0]["result"]["stdout"], "done\n");
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(110), "{task}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(std::fs::read_to_string(runner.workspace.join("log")).unwrap(), "0\n");
}

#[tokio::test]
async fn a_hub_that_moves_to_another_address_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let port = hub.address().rsplit(':').next().unwrap().to_owned();
    let token = hub.runner_token("r1").await;
    let (home, hosts) = (dir.path().join("r1"), dir.path().join("hosts"));
    // Nobody listens there.
    std::fs::write(&hosts, "127.0.0.9 hub.internal\n").unwrap();
    Runner::configure(&home, &format!("ws://hub.internal:{port}/runner/ws"), &token, ALLOW_ALL, "");
    // A mount namespace of its own, with a file of names of its own.
    let line = format!("mount --bind {} /etc/hosts && exec {} run", hosts.display(), binary().display());
    let mut command = legwork_at(Path::new("/usr/bin/unshare"), &home);
    let flags: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-rm"] };
    let mut process =
        command.args(flags).args(["sh", "-c", &line]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let api = hub.api();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!api.is_online("r1").await);
    std::fs::write(&hosts, "127.0.0.1 hub.internal\n").unwrap();
    until("the runner connects", || api.is_online("r1")).await;
    process.kill().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_jumps_disturbs_nothing() {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|arch| format!("/usr/lib/{arch}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("Debian's faketime: run scripts/tools");
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(&dir.path().join("hub")).await;
    let token = hub.runner_token("r1").await;
    let (home, clock) = (dir.path().join("r1"), dir.path().join("clock"));
    std::fs::write(&clock, "+0\n").unwrap();
    Runner::configure(&home, &format!("ws://{}/runner/ws", hub.address()), &token, ALLOW_ALL, "");
    let mut command = legwork(&home);
    command
        .arg("run")
        .stdout(std::process::Stdio::null())
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    let _process = command.spawn().unwrap();
    let api = hub.api();
    until("the runner connects", || api.is_online("r1")).await;
    for jump in ["+400d", "-400d", "+0"] {
        let running = api.bash("r1", "echo start; sleep 1.5; echo end").await;
        let state = format!("/tasks/{running}");
        until("it runs", || async { api.get(&state).await.1["state"] == "running" }).await;
        std::fs::write(&clock, format!("{jump}\n")).unwrap();
        let run = api.end(&running).await["runs"][0].clone();
        assert_eq!(run["result"]["stdout"], "start\nend\n", "{jump}: {run}");
        let timed = json!({ "select": { "runner": "r1" }, "operation": "bash", "timeout_s": 1,
            "args": { "command": "sleep 30" } });
        let id = api.post("/tasks", timed).await.1["id"].as_str().unwrap().to_owned();
        let start = Instant::now();
        assert_eq!(api.end(&id).await["state"], "timed_out", "{jump}");
        assert!(start.elapsed() < Duration::from_secs(10), "{jump}");
    }
}
