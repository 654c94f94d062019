//! A TCP proxy that can cut connections, stall them, slow them down, or leave them
//! for dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    pub address: String,
    cuts: Arc<watch::Sender<u64>>,
    stalled: Arc<watch::Sender<bool>>,
    /// Connections made before this many strandings carry nothing any more.
    strands: Arc<watch::Sender<u64>>,
    bytes_per_second: Arc<AtomicU64>,
}

impl Proxy {
    /// Forwards to `target`.
    pub async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxy = Self {
            address,
            cuts: Arc::new(watch::Sender::new(0)),
            stalled: Arc::new(watch::Sender::new(false)),
            strands: Arc::new(watch::Sender::new(0)),
            bytes_per_second: Arc::new(AtomicU64::new(u64::MAX)),
        };
        let (cuts, stalled, strands) =
            (proxy.cuts.subscribe(), proxy.stalled.subscribe(), proxy.strands.subscribe());
        let speed = proxy.bytes_per_second.clone();
        tokio::spawn(async move {
            while let Ok((inner, _)) = listener.accept().await {
                let (target, mut cut) = (target.clone(), cuts.clone());
                cut.mark_unchanged();
                let line = Line {
                    stalled: stalled.clone(),
                    born: *strands.borrow(),
                    strands: strands.clone(),
                    speed: speed.clone(),
                };
                tokio::spawn(async move {
                    let Ok(outer) = TcpStream::connect(target).await else { return };
                    let (inner_read, inner_write) = inner.into_split();
                    let (outer_read, outer_write) = outer.into_split();
                    tokio::select! {
                        _ = async {
                            tokio::join!(line.carry(inner_read, outer_write), line.carry(outer_read, inner_write))
                        } => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        proxy
    }

    /// Cuts every connection, in the middle of whatever it carries.
    pub fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }

    /// Cuts again and again.
    pub fn cut_every(&self, period: Duration) -> tokio::task::JoinHandle<()> {
        let cuts = self.cuts.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                cuts.send_modify(|n| *n += 1);
            }
        })
    }

    /// Holds everything back, or lets it go on.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// The connections there are carry nothing any more, and stay open.
    pub fn strand(&self) {
        self.strands.send_modify(|n| *n += 1);
    }

    /// Carries so many bytes a second, each way.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }
}

struct Line {
    stalled: watch::Receiver<bool>,
    strands: watch::Receiver<u64>,
    born: u64,
    speed: Arc<AtomicU64>,
}

impl Line {
    async fn carry(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut buffer = vec![0u8; 16 * 1024];
        while let Ok(len) = from.read(&mut buffer).await {
            let _ = self.stalled.clone().wait_for(|stalled| !stalled).await;
            if *self.strands.borrow() != self.born {
                // Not even the end of it is told.
                return std::future::pending().await;
            }
            if len == 0 || to.write_all(&buffer[..len]).await.is_err() {
                break;
            }
            let speed = self.speed.load(Ordering::Relaxed);
            if speed != u64::MAX {
                tokio::time::sleep(Duration::from_secs_f64(len as f64 / speed as f64)).await;
            }
        }
        let _ = to.shutdown().await;
    }
}
