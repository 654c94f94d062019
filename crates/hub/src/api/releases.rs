//! Signed releases for the runners of this hub: the files in `releases` of its data
//! folder, the newest ones there, others in folders named `vVERSION`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use legwork_api::Code;
use tokio::io::AsyncReadExt;

use super::Caller;
use super::problem::Problem;
use crate::engine::Hub;

/// Bytes read from a file at a time.
const CHUNK: usize = 64 * 1024;

/// `GET /releases/{file}` and `/releases/{version}/{file}`, for who has a token.
pub(crate) async fn file(
    Caller(_): Caller,
    State(hub): State<Arc<Hub>>,
    Path(path): Path<String>,
) -> Response {
    let absent = || Problem::new(Code::NoSuchRelease, "there is no such release file").into_response();
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
    };
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|part| plain(part)) {
        return absent();
    }
    let Ok(file) = tokio::fs::File::open(hub.data.join("releases").join(&path)).await else {
        return absent();
    };
    let Ok(metadata) = file.metadata().await else { return absent() };
    if !metadata.is_file() {
        return absent();
    }
    let chunks = futures_util::stream::unfold(file, |mut file| async move {
        let mut buffer = vec![0u8; CHUNK];
        match file.read(&mut buffer).await {
            Ok(0) => None,
            Ok(len) => {
                buffer.truncate(len);
                Some((Ok(Bytes::from(buffer)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let headers = [
        (header::CONTENT_LENGTH, metadata.len().to_string()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}
