//! Input of any length for a terminal.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use legwork_terminal::InputError;
use serde_json::json;

use super::reply;
use crate::terminals::Terminals;

/// Most bytes of input at once.
const MAX_INPUT: usize = 64 << 20;

/// `POST /api/terminals/ID/input`: types the body as soon as all of it is here, and as fast as
/// it is read. Of what breaks off on its way nothing is typed.
pub(crate) async fn input(terminals: &Terminals, id: &str, request: Request<Body>) -> Response {
    let Some(terminal) = terminals.get(id) else {
        let said = json!({ "error": format!("no such terminal: {id}"), "code": "not_found" });
        return reply::json(StatusCode::NOT_FOUND, &said);
    };
    let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_INPUT).await else {
        let said = json!({ "error": format!("more than {} MiB of input at once", MAX_INPUT >> 20), "code": "too_large" });
        return reply::json(StatusCode::PAYLOAD_TOO_LARGE, &said);
    };
    // Whoever has sent it may be gone by now: it is typed all the same, as it is here.
    let typing = tokio::spawn(async move { terminal.paste(&body).await });
    let (code, why) = match typing.await {
        Ok(Ok(())) => return reply::json(StatusCode::OK, &json!({ "success": true })),
        Ok(Err(error @ (InputError::Ended(_) | InputError::NotStarted(_)))) => {
            ("terminal_unavailable", error.to_string())
        }
        Ok(Err(InputError::Busy)) | Err(_) => ("terminal_busy", InputError::Busy.to_string()),
    };
    reply::json(StatusCode::CONFLICT, &json!({ "error": why, "code": code }))
}
