//! Connections to applications: on this machine, or in the network of a terminal behind a wall.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use legwork_runner::Networks;
use tokio::net::TcpStream;
use tower_service::Service;

const CONNECT: Duration = Duration::from_secs(5);
/// What follows a network's number in the name by which it is connected to: no name of a
/// machine ends so.
const WALLED: &str = ".walled.invalid";

/// The host of an application's address, as connections are made by it.
pub(super) fn host(networks: &Networks, port: u16) -> String {
    networks.find(port).map_or_else(|| "localhost".to_owned(), |id| format!("{id}{WALLED}"))
}

#[derive(Clone)]
pub(super) struct Connector {
    machine: HttpConnector,
    networks: Arc<Networks>,
}

impl Connector {
    pub(super) fn new(networks: Arc<Networks>) -> Self {
        let mut machine = HttpConnector::new();
        machine.set_connect_timeout(Some(CONNECT));
        machine.set_nodelay(true);
        Self { machine, networks }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.machine.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let walled = uri.host().and_then(|host| host.strip_suffix(WALLED)).and_then(|id| id.parse().ok());
        let Some(id) = walled else {
            let connecting = self.machine.call(uri);
            return Box::pin(async move { Ok(connecting.await?) });
        };
        let (networks, port) = (self.networks.clone(), uri.port_u16().unwrap_or_default());
        Box::pin(async move {
            let connecting = tokio::time::timeout(CONNECT, networks.connect(id, port));
            let stream = connecting.await.map_err(io::Error::from)??;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
