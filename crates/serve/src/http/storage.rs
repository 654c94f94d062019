//! `/api/storage`, `/api/snapshots`, `/api/scan`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply;
use crate::access::Rights;
use crate::files::Files;
use crate::scan::{Report, ScanError};
use crate::settings::Settings;
use crate::storage::StorageError;
use crate::vault::Vault;
use crate::workspace::Workspace;

/// Most bytes of a request's JSON.
const MAX_BODY: usize = 64 * 1024;

fn failed(error: &StorageError) -> Response {
    let (status, code) = match error {
        StorageError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
        StorageError::Busy(_) => (StatusCode::CONFLICT, "conflict"),
        StorageError::Address(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        _ => (StatusCode::BAD_GATEWAY, "storage_error"),
    };
    reply::json(status, &json!({ "error": error.to_string(), "code": code }))
}

fn answer<T: serde::Serialize>(status: StatusCode, result: Result<T, StorageError>) -> Response {
    match result {
        Ok(value) => reply::json(status, &value),
        Err(error) => failed(&error),
    }
}

/// `GET /api/storage`, `POST /api/storage/save`
pub(crate) async fn storage(vault: &Vault, path: &str, method: &Method) -> Response {
    match (path, method) {
        ("", &Method::GET) => {
            let sync = vault.sync.as_ref();
            let saved = sync.map(|s| s.saved_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0);
            reply::json(
                StatusCode::OK,
                &json!({
                    "address": sync.map(|s| s.store.address.clone()),
                    "saved_ms": saved,
                    "snapshots": vault.snapshots.address(),
                }),
            )
        }
        ("/save", &Method::POST) => answer(StatusCode::OK, vault.save().await),
        _ => reply::not_found(),
    }
}

#[derive(Deserialize)]
struct Naming {
    #[serde(default)]
    name: String,
}

/// `/api/snapshots…`
pub(crate) async fn snapshots(
    vault: &Vault,
    files: &Arc<Files>,
    path: &str,
    request: Request<Body>,
) -> Response {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let method = request.method().clone();
    match (&*parts, method) {
        ([], Method::GET) => {
            let listed = vault.snapshots.list().await;
            answer(StatusCode::OK, listed.map(|all| json!({ "snapshots": all })))
        }
        ([], Method::POST) => {
            let name = match naming(request).await {
                Ok(name) => name,
                Err(response) => return *response,
            };
            answer(StatusCode::CREATED, vault.snapshots.create(&name).await)
        }
        ([id, "diff"], Method::GET) => {
            let query = request.uri().query().unwrap_or_default();
            let to = url::form_urlencoded::parse(query.as_bytes())
                .find(|(k, _)| k == "to")
                .map(|(_, v)| v.into_owned());
            answer(StatusCode::OK, vault.snapshots.diff(id, to.as_deref()).await)
        }
        ([id, "restore"], Method::POST) => {
            let restored = vault.snapshots.restore(id).await;
            files.refresh_all().await;
            answer(StatusCode::OK, restored.map(|before| json!({ "success": true, "before": before })))
        }
        ([id], Method::DELETE) => match vault.snapshots.delete(id).await {
            Ok(()) => reply::empty(StatusCode::NO_CONTENT),
            Err(error) => failed(&error),
        },
        _ => reply::not_found(),
    }
}

async fn naming(request: Request<Body>) -> Result<String, Box<Response>> {
    let bad = |why: &str| {
        Box::new(reply::json(StatusCode::BAD_REQUEST, &json!({ "error": why, "code": "bad_request" })))
    };
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY)
        .await
        .map_err(|_| bad("the body is too large"))?;
    let name = if body.is_empty() {
        String::new()
    } else {
        serde_json::from_slice::<Naming>(&body)
            .map_err(|e| bad(&format!("the body can't be read: {e}")))?
            .name
    };
    if name.chars().count() > 200 || name.chars().any(char::is_control) {
        return Err(bad("name must have at most 200 characters, and no control characters"));
    }
    Ok(if name.is_empty() { "snapshot".to_owned() } else { name })
}

/// `POST /api/scan`
pub(crate) fn scanned(result: Result<Report, ScanError>) -> Response {
    match result {
        Ok(report) => reply::json(StatusCode::OK, &report),
        Err(error) => {
            let said = json!({ "error": error.to_string(), "code": "bad_request" });
            reply::json(StatusCode::BAD_REQUEST, &said)
        }
    }
}

/// `GET /api/info`: what this server can do.
pub(crate) fn info(workspace: &Workspace, settings: &Settings, rights: Rights) -> Value {
    json!({
        "workspace": workspace.files.names.configured,
        "user_port": settings.user_port,
        "rights": if rights == Rights::Work { "work" } else { "look" },
        "shells": workspace.terminals.shells.installed(),
        "storage": workspace.vault.sync.is_some(),
        "limits": {
            "connections": settings.max_connections,
            "terminals": settings.max_terminals,
            "file_bytes": settings.max_file,
            "upload_bytes": settings.max_upload,
            "message_bytes": settings.max_payload,
        },
    })
}
