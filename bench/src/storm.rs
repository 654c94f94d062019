//! A hub that was away, and a thousand runners that come back.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use legwork_e2e::{ALLOW_ALL, Runner};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

const RUNNERS: usize = 1000;
const AWAY: Duration = Duration::from_secs(10);

pub(crate) async fn reconnects() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut runners = Vec::new();
    let mut sockets = Vec::new();
    for n in 0..RUNNERS {
        let home = dir.path().join(n.to_string());
        runners.push(Runner::start(&home, &address.to_string(), &format!("t{n}"), ALLOW_ALL).await);
        sockets.push(welcome(&listener).await);
    }
    println!("     storm: {RUNNERS} runners are connected");
    drop((listener, sockets));
    tokio::time::sleep(AWAY).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let (start, mut times, mut sockets) = (Instant::now(), Vec::new(), Vec::new());
    while times.len() < RUNNERS {
        sockets.push(welcome(&listener).await);
        times.push(start.elapsed().as_secs_f64());
    }
    let last = *times.last().unwrap();
    let mut bins = vec![0usize; last as usize + 1];
    times.iter().for_each(|t| bins[*t as usize] += 1);
    println!("     connects in each second after a hub was away for {} s:", AWAY.as_secs());
    for (second, count) in bins.iter().enumerate() {
        println!("     {second:>3} s {count:>5} {}", "#".repeat(count.div_ceil(8)));
    }
    let peak = *bins.iter().max().unwrap() as f64;
    report_peak(peak, last);
}

fn report_peak(peak: f64, last: f64) {
    let text = format!("peak {peak} connects in a second, all back after {last:.1} s");
    crate::report("storm: 1,000 runners spread by jitter", &text, "half of them in a second", peak / 500.0);
}

async fn welcome(listener: &TcpListener) -> tokio_tungstenite::WebSocketStream<tokio::net::TcpStream> {
    let (tcp, _) = listener.accept().await.unwrap();
    let mut ws = tokio_tungstenite::accept_async(tcp).await.unwrap();
    let text = r#"{"type":"welcome","payload":{"worknode_id":"w","name":"n","labels":[]}}"#;
    ws.send(Message::text(text)).await.unwrap();
    let _ = ws.next().await;
    ws
}
