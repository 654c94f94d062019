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
use tokio::task::JoinSet;

use crate::app;
use crate::room::Room;
use crate::seats::{Seat, Seats};
use crate::settings::Settings;
use crate::terminal::Shells;

/// Time for a request's head.
const REQUEST_HEAD: Duration = Duration::from_secs(30);
/// Time for shells to end after SIGHUP.
const GRACE: Duration = Duration::from_secs(5);
/// Most connections, beside those of clients: polls, downloads, previews. Beyond, those that
/// have shown nothing give way.
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
        let other =
            |error: std::io::Error| StartError::Other(format!("cannot make a folder for terminals: {error}"));
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
        let shells = Shells::open(&settings, program, dir.path()).await.map_err(StartError::Other)?;
        let room = Room::new(settings, Arc::new(shells), address.port()).map_err(StartError::Other)?;
        Ok(Self { address, listener, room, dir })
    }

    /// Serves until `stop` is set, then says goodbye, ends what it has started and saves.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) -> Result<(), StartError> {
        let room = self.room.clone();
        let mut beside = JoinSet::new();
        beside.spawn(tick(room.clone()));
        beside.spawn(reap(room.clone()));
        beside.spawn(crate::ports::watch(room.clone()));
        beside.spawn(crate::usage::watch(room.clone()));
        beside.spawn(save(room.clone()));
        let seats = Seats::new(MAX_OPEN + 4 * room.settings.max_connections);
        let loading = async {
            room.load().await?;
            Ok::<_, crate::storage::StorageError>(app::start(&room).await)
        };
        tokio::pin!(loading);
        let (mut app, mut is_loading, mut failed) = (None, true, None);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|s| *s) => break,
                () = idle(&room) => {
                    tracing::info!("nobody has been here for a while: shutting down");
                    break;
                }
                loaded = &mut loading, if is_loading => {
                    is_loading = false;
                    match loaded {
                        Ok(started) => app = started,
                        Err(error) => {
                            failed = Some(StartError::Other(format!("the workspace can't be loaded: {error}")));
                            break;
                        }
                    }
                    continue;
                }
            };
            let tcp = match accepted {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    // Out of descriptors, most likely: those in use will be freed.
                    tracing::error!("failed to accept a connection: {error}");
                    seats.make_room();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(seat) = seats.take() else { continue };
            let _ = tcp.set_nodelay(true);
            tokio::spawn(http(tcp, room.clone(), seat));
        }
        drop(self.listener);
        end(&room, app).await;
        beside.shutdown().await;
        let _ = tokio::task::spawn_blocking(legwork_process::kill_descendants).await;
        if room.sync.is_some() && room.is_loaded() {
            match room.save().await {
                Ok(report) => {
                    tracing::info!(files = report.files, deleted = report.deleted, "saved the workspace")
                }
                Err(error) => {
                    failed = Some(StartError::Other(format!("the workspace could not be saved: {error}")));
                }
            }
        }
        room.terminals.shells.flush_audit().await;
        drop(self.dir);
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Says goodbye to all clients, and ends what runs in terminals and beside them.
async fn end(room: &Room, app: Option<app::App>) {
    room.say_goodbye();
    for terminal in room.terminals.list() {
        terminal.close();
    }
    if let Some(app) = &app {
        app.cancel();
    }
    let until = tokio::time::Instant::now() + GRACE;
    while room.terminals.running() > 0 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Some(app) = app {
        let _ = tokio::time::timeout_at(until, app.ended()).await;
    }
}

async fn http(tcp: TcpStream, room: Arc<Room>, seat: Seat) {
    let standing = seat.standing.clone();
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let room = room.clone();
        standing.forget();
        request.extensions_mut().insert(standing.clone());
        async move { Ok::<_, std::convert::Infallible>(crate::http::serve(room, request.map(Body::new)).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD);
    tokio::select! {
        served = builder.serve_connection(TokioIo::new(tcp), service).with_upgrades() => {
            if let Err(error) = served {
                tracing::debug!("connection ended: {error}");
            }
        }
        () = seat.gave_way() => tracing::debug!("a connection gave way to a newer one"),
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

/// Saves now and then. Never ends.
async fn save(room: Arc<Room>) {
    let Some(every) = room.settings.save_every.filter(|_| room.sync.is_some()) else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(every).await;
        if room.is_loaded()
            && let Err(error) = room.save().await
        {
            tracing::warn!("the workspace could not be saved, and will be tried again: {error}");
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
