//! The listener, and what runs beside it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use legwork_socketio::{Seat, Seats};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::{self, App};
use crate::http::{self, Site};
use crate::settings::Settings;
use crate::shells::Shells;
use crate::vault::Vault;
use crate::workspace::Workspace;

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
    site: Arc<Site>,
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
        let cannot = |error: &dyn std::error::Error| StartError::Other(error.to_string());
        let shells = Shells::open(&settings, program, dir.path()).await.map_err(|e| cannot(&e))?;
        let workspace = Workspace::open(&settings, Arc::new(shells), address.port());
        let workspace = workspace.map_err(|e| cannot(&e))?;
        Ok(Self { address, listener, site: Site::new(workspace, settings), dir })
    }

    /// Serves until `stop` is set, then says goodbye, ends what it has started and saves.
    pub async fn serve(self, stop: watch::Receiver<bool>) -> Result<(), StartError> {
        let Self { site, listener, dir, .. } = self;
        let workspace = site.workspace.clone();
        let mut beside = beside(&site);
        let (app, mut failed) = accept(&site, listener, stop).await;
        end(&site, app).await;
        beside.shutdown().await;
        let _ = tokio::task::spawn_blocking(legwork_process::kill_descendants).await;
        if let Err(error) = save_last(&workspace.vault).await {
            failed = Some(error);
        }
        workspace.terminals.shells.flush_audit().await;
        drop(dir);
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// What runs beside the listener.
fn beside(site: &Arc<Site>) -> JoinSet<()> {
    let workspace = &site.workspace;
    let mut beside = JoinSet::new();
    beside.spawn(tick(site.clone()));
    beside.spawn(reap(workspace.terminals.shells.clone()));
    beside.spawn(workspace.ports.clone().watch());
    beside.spawn(crate::usage::watch(workspace.meters()));
    beside.spawn(save(workspace.vault.clone(), site.settings.save_every));
    beside
}

/// Fills the workspace, and starts the application.
async fn load(site: &Site) -> Result<Option<App>, StartError> {
    let Workspace { vault, terminals, .. } = &*site.workspace;
    let failed = |error| StartError::Other(format!("the workspace can't be loaded: {error}"));
    vault.load().await.map_err(failed)?;
    if let Err(error) = terminals.main.ensure_started() {
        tracing::warn!("cannot start shell: {error}");
    }
    Ok(site.settings.start_command.clone().and_then(|line| app::start(&terminals.shells, line)))
}

/// Takes connections until the server is to end. Returns the application, if it was started, and
/// what went wrong.
async fn accept(
    site: &Arc<Site>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) -> (Option<App>, Option<StartError>) {
    let seats = Seats::new(MAX_OPEN + 4 * site.settings.max_connections);
    let loading = load(site);
    tokio::pin!(loading);
    let (mut app, mut is_loading) = (None, true);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|s| *s) => return (app, None),
            () = idle(site) => {
                tracing::info!("nobody has been here for a while: shutting down");
                return (app, None);
            }
            loaded = &mut loading, if is_loading => {
                is_loading = false;
                match loaded {
                    Ok(started) => app = started,
                    Err(error) => return (app, Some(error)),
                }
                continue;
            }
        };
        match accepted {
            Ok((tcp, _)) => {
                let Some(seat) = seats.take() else { continue };
                let _ = tcp.set_nodelay(true);
                tokio::spawn(answer(tcp, site.clone(), seat));
            }
            Err(error) => {
                // Out of descriptors, most likely: those in use will be freed.
                tracing::error!("failed to accept a connection: {error}");
                seats.make_room();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Saves what is there at the end.
async fn save_last(vault: &Vault) -> Result<(), StartError> {
    if vault.sync.is_none() || !vault.is_loaded() {
        return Ok(());
    }
    let failed = |error| StartError::Other(format!("the workspace could not be saved: {error}"));
    let report = vault.save().await.map_err(failed)?;
    tracing::info!(files = report.files, deleted = report.deleted, "saved the workspace");
    Ok(())
}

/// Says goodbye to all clients, and ends what runs in terminals and beside them.
async fn end(site: &Site, app: Option<App>) {
    let Workspace { terminals, watching, .. } = &*site.workspace;
    watching.stop();
    site.sockets.say_goodbye();
    for terminal in terminals.list() {
        terminal.close();
    }
    if let Some(app) = &app {
        app.cancel();
    }
    let until = tokio::time::Instant::now() + GRACE;
    while terminals.running() > 0 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Some(app) = app {
        let _ = tokio::time::timeout_at(until, app.ended()).await;
    }
}

async fn answer(tcp: TcpStream, site: Arc<Site>, seat: Seat) {
    let standing = seat.standing.clone();
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let site = site.clone();
        standing.forget();
        request.extensions_mut().insert(standing.clone());
        async move { Ok::<_, std::convert::Infallible>(http::serve(site, request.map(Body::new)).await) }
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

async fn tick(site: Arc<Site>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        site.sockets.tick();
    }
}

/// Waits until nobody has been here for as long as the operator allows.
async fn idle(site: &Site) {
    let Some(most) = site.settings.idle_shutdown else { return std::future::pending().await };
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if site.workspace.presence.idle_for() >= most {
            return;
        }
    }
}

/// Saves now and then. Never ends.
async fn save(vault: Arc<Vault>, every: Option<Duration>) {
    let Some(every) = every.filter(|_| vault.sync.is_some()) else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(every).await;
        if vault.is_loaded()
            && let Err(error) = vault.save().await
        {
            tracing::warn!("the workspace could not be saved, and will be tried again: {error}");
        }
    }
}

/// Collects what shells leave behind.
async fn reap(shells: Arc<Shells>) {
    let Ok(mut ended) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()) else { return };
    while ended.recv().await.is_some() {
        let helper = shells.helper();
        let _ = tokio::task::spawn_blocking(move || legwork_process::reap_orphans(helper)).await;
        // Many ends are looked at together.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
