//! The health endpoint of a runner, for those who watch over it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Answers on `address`: `/livez` always, `/healthz` with 200 while a hub is
/// connected and 503 otherwise.
pub(crate) async fn serve(address: SocketAddr, connected: watch::Receiver<bool>) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("health.listen: failed to listen on {address}"))?;
    tracing::info!("health at http://{}/healthz", listener.local_addr()?);
    let health = move || {
        let connected = *connected.borrow();
        async move { answer(connected) }
    };
    let app = Router::new()
        .route("/livez", get(|| async { Json(json!({ "status": "alive" })) }))
        .route("/healthz", get(health));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

fn answer(connected: bool) -> (StatusCode, Json<Value>) {
    let (code, status) = if connected {
        (StatusCode::OK, "connected")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "connecting")
    };
    (code, Json(json!({ "status": status, "version": legwork_release::version() })))
}
