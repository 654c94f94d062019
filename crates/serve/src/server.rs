//! The listener, and what runs beside it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::room::Room;
use crate::settings::Settings;

/// Time for a request's head.
const REQUEST_HEAD: Duration = Duration::from_secs(30);
/// Time for shells to end after SIGHUP.
const GRACE: Duration = Duration::from_secs(5);
/// Most connections, beside those of clients: polls, downloads, previews.
const MAX_OPEN: usize = 1024;

/// Why the server was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The workspace is not there, or can't be read.
    #[error("workspace {path}: {reason}")]
    Workspace {
        /// As configured.
        path: String,
        /// Why.
        reason: String,
    },
    /// The port can't be listened on.
    #[error("failed to listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// A server that listens.
pub struct Server {
    /// The address, with the port that was chosen.
    pub address: SocketAddr,
    listener: TcpListener,
    room: Arc<Room>,
    dir: tempfile::TempDir,
}

impl Server {
    /// Opens the workspace and listens. `program` is this program: it starts terminals.
    pub async fn start(settings: Settings, program: &Path) -> Result<Self, StartError> {
        let other = |error: std::io::Error| StartError::Other(format!("cannot make a folder for terminals: {error}"));
        let workspace = Path::new(&settings.workspace);
        let missing = |reason: String| StartError::Workspace { path: settings.workspace.clone(), reason };
        match workspace.metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(missing("not a directory".into())),
            Err(error) => return Err(missing(legwork_workspace::strerror(&error))),
        }
        let address = settings.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, source })?;
        let address = listener.local_addr().map_err(|source| StartError::Bind { address, source })?;
        let dir = tempfile::Builder::new().prefix("legwork-serve-").tempdir().map_err(other)?;
        legwork_process::adopt_orphans();
        let room = Room::new(settings, program, dir.path()).map_err(StartError::Other)?;
        if let Err(error) = room.terminals.main.ensure_started() {
            tracing::warn!("cannot start shell: {error}");
        }
        Ok(Self { address, listener, room, dir })
    }

    /// Serves until `stop` is set, then says goodbye and ends what it has started.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let ticking = tokio::spawn(tick(self.room.clone()));
        let reaping = tokio::spawn(reap(self.room.clone()));
        let open = Arc::new(tokio::sync::Semaphore::new(MAX_OPEN + 4 * self.room.settings.max_connections));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|s| *s) => break,
                () = idle(&self.room) => {
                    tracing::info!("nobody has been here for a while: shutting down");
                    break;
                }
            };
            let tcp = match accepted {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    // Out of descriptors, most likely: those in use will be freed.
                    tracing::error!("failed to accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = open.clone().try_acquire_owned() else { continue };
            let _ = tcp.set_nodelay(true);
            let room = self.room.clone();
            tokio::spawn(async move {
                http(tcp, room).await;
                drop(permit);
            });
        }
        drop(self.listener);
        self.room.say_goodbye();
        for terminal in self.room.terminals.list() {
            terminal.close();
        }
        let until = tokio::time::Instant::now() + GRACE;
        while self.room.terminals.running() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ticking.abort();
        reaping.abort();
        let _ = tokio::task::spawn_blocking(legwork_process::kill_descendants).await;
        drop(self.dir);
    }
}

async fn http(tcp: TcpStream, room: Arc<Room>) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let room = room.clone();
        async move { Ok::<_, std::convert::Infallible>(crate::http::serve(room, request.map(Body::new)).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD).max_buf_size(64 * 1024);
    if let Err(error) = builder.serve_connection(TokioIo::new(tcp), service).with_upgrades().await {
        tracing::debug!("connection ended: {error}");
    }
}

async fn tick(room: Arc<Room>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        room.tick();
    }
}

/// Waits until nobody has been here for as long as the operator allows.
async fn idle(room: &Room) {
    let Some(most) = room.settings.idle_shutdown else { return std::future::pending().await };
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if room.idle_for() >= most {
            return;
        }
    }
}

/// Collects what shells leave behind.
async fn reap(room: Arc<Room>) {
    let Ok(mut ended) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()) else { return };
    while ended.recv().await.is_some() {
        let helper = room.terminals.shells.helper();
        let _ = tokio::task::spawn_blocking(move || legwork_process::reap_orphans(helper)).await;
        // Many ends are looked at together.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
