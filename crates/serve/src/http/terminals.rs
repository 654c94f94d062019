//! Input of any length for a terminal.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde_json::json;

use super::reply;
use crate::room::Room;
use crate::terminal::InputError;

/// Most bytes of input at once.
const MAX_INPUT: usize = 64 << 20;

/// `POST /api/terminals/ID/input`: types the body as soon as all of it is here, and as fast as
/// it is read. Of what breaks off on its way nothing is typed.
pub(crate) async fn input(room: &Arc<Room>, id: &str, request: Request<Body>) -> Response {
    let Some(terminal) = room.terminals.get(id) else {
        let said = json!({ "error": format!("no such terminal: {id}"), "code": "not_found" });
        return reply::json(StatusCode::NOT_FOUND, &said);
    };
    let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_INPUT).await else {
        let said = json!({ "error": format!("more than {} MiB of input at once", MAX_INPUT >> 20), "code": "too_large" });
        return reply::json(StatusCode::PAYLOAD_TOO_LARGE, &said);
    };
    // Whoever has sent it may be gone by now: it is typed all the same, as it is here.
    let typing = tokio::spawn(async move { terminal.paste(&body).await });
    match typing.await {
        Ok(Ok(())) => reply::json(StatusCode::OK, &json!({ "success": true })),
        Ok(Err(InputError::Unavailable(why))) => {
            reply::json(StatusCode::CONFLICT, &json!({ "error": why, "code": "terminal_unavailable" }))
        }
        Ok(Err(InputError::Busy)) | Err(_) => {
            let said = json!({ "error": "terminal is not reading input", "code": "terminal_busy" });
            reply::json(StatusCode::CONFLICT, &said)
        }
    }
}
