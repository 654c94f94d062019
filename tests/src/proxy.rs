//! A TCP proxy that can cut every connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    pub address: String,
    cuts: Arc<watch::Sender<u64>>,
}

impl Proxy {
    /// Forwards to `target`.
    pub async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cuts = Arc::new(watch::Sender::new(0u64));
        let receiver = cuts.subscribe();
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let (target, mut cut) = (target.clone(), receiver.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut outer) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts }
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
}
