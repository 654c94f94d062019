//! Listening: plain on loopback, TLS anywhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::engine::Hub;
use crate::pods::Front;

const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that sends no complete request head within this time is dropped.
const REQUEST_HEAD: Duration = Duration::from_secs(30);

/// Certificate and key files, in PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why a hub can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Plain HTTP off loopback would send tokens over the network in the clear.
    #[error(
        "refusing to listen on {0} without TLS: tokens would cross the network in the clear; give --tls-cert and --tls-key, or listen on 127.0.0.1"
    )]
    PlainOffLoopback(SocketAddr),
    /// The address can't be had.
    #[error("failed to listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why it could not be done.
        source: std::io::Error,
    },
    /// Certificate or key are unusable.
    #[error("failed to read {}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why it could not be done.
        reason: String,
    },
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
}

/// A hub's open door.
pub struct Listening {
    /// The address, with the port that was chosen.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    hub: Arc<Hub>,
}

/// Opens the door; [`Listening::serve`] lets people in.
///
/// `public_url` is where others reach it; where there is none, task runners are sent to
/// the name that they ask for.
pub async fn listen(
    hub: Arc<Hub>,
    address: SocketAddr,
    tls: Option<&Tls>,
    public_url: Option<String>,
) -> Result<Listening, ListenError> {
    if tls.is_none() && !address.ip().is_loopback() {
        return Err(ListenError::PlainOffLoopback(address));
    }
    let acceptor = tls.map(acceptor).transpose()?;
    let listener =
        TcpListener::bind(address).await.map_err(|source| ListenError::Bind { address, source })?;
    let address = listener.local_addr().map_err(|source| ListenError::Bind { address, source })?;
    let _ = hub.pods.front.set(Front {
        public_url,
        tls: acceptor.is_some(),
        loopback: address.ip().is_loopback(),
    });
    Ok(Listening { address, tls: acceptor.is_some(), listener, acceptor, hub })
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ListenError> {
    let failed = |path: &Path, reason: String| ListenError::Tls { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed(&tls.cert, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| failed(&tls.key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&tls.cert, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| failed(&tls.cert, e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Listening {
    /// Serves until `stop` is set, then tells every runner that it is leaving.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let app = crate::api::router(self.hub.clone());
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|s| *s) => break,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: those in use will be freed.
                    tracing::error!("failed to accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = tcp.set_nodelay(true);
            let (app, acceptor) = (app.clone(), self.acceptor.clone());
            tokio::spawn(async move { connection(tcp, acceptor, app, Peer { address }).await });
        }
        self.hub.close_runners().await;
    }
}

async fn connection(tcp: TcpStream, acceptor: Option<TlsAcceptor>, app: Router, peer: Peer) {
    match acceptor {
        None => http(TokioIo::new(tcp), app, peer).await,
        Some(acceptor) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(TLS_HANDSHAKE, acceptor.accept(tcp)).await {
                http(TokioIo::new(stream), app, peer).await;
            }
        }
    }
}

async fn http<S>(io: TokioIo<S>, app: Router, peer: Peer)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let mut app = app.clone();
        async move { app.call(request.map(axum::body::Body::new)).await }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD)
        .max_buf_size(64 * 1024);
    if let Err(error) = builder.serve_connection(io, service).with_upgrades().await {
        tracing::debug!(peer = %peer.address, "connection ended: {error}");
    }
}
