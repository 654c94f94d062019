//! `/api/uploads`: uploads that go on after a cut, by the tus protocol 1.0
//! (creation, termination, expiration).

use std::collections::HashMap;
use std::io::{Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_workspace::PendingFile;

use super::body::{self, TakeError};
use super::{files, reply};
use crate::paths::Trouble;
use crate::room::Room;

/// How long an upload waits to be gone on with.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Most uploads under way.
const MOST: usize = 64;

/// An upload under way.
struct Upload {
    path: String,
    length: u64,
    offset: u64,
    /// Taken while a part is being written.
    file: Option<PendingFile>,
    touched: Instant,
}

/// All uploads under way. They end with the server: their parts are taken away.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Upload>>);

impl Uploads {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Upload>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, u| u.file.is_none() || u.touched.elapsed() < PATIENCE);
        all
    }
}

fn answer(status: StatusCode, pairs: &[(&'static str, String)]) -> Response {
    let mut response = reply::empty(status);
    let headers = response.headers_mut();
    headers.insert("tus-resumable", HeaderValue::from_static("1.0.0"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    for (name, value) in pairs {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    response
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The path among the metadata: `path BASE64`, or `filename BASE64`.
fn path_of(headers: &HeaderMap) -> Option<String> {
    let pairs = headers.get("upload-metadata")?.to_str().ok()?;
    let find = |key: &str| {
        let pair =
            pairs.split(',').map(str::trim).find_map(|pair| pair.strip_prefix(key)?.strip_prefix(' '))?;
        String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()
    };
    find("path").or_else(|| find("filename"))
}

/// Answers a request; `id` is empty for `/api/uploads` itself.
pub(crate) async fn serve(room: &Arc<Room>, id: &str, request: Request<Body>) -> Response {
    let result = match (id.is_empty(), request.method().clone()) {
        (true, Method::POST) => create(room, request.headers()),
        (false, Method::HEAD) => Ok(head(room, id)),
        (false, Method::PATCH) => patch(room, id, request).await,
        (false, Method::DELETE) => Ok(match room.uploads.lock().remove(id) {
            Some(_) => answer(StatusCode::NO_CONTENT, &[]),
            None => reply::not_found(),
        }),
        _ => return reply::not_found(),
    };
    result.unwrap_or_else(|trouble| {
        room.metrics.failed();
        reply::trouble(&trouble)
    })
}

fn create(room: &Arc<Room>, headers: &HeaderMap) -> Result<Response, Trouble> {
    let length = number(headers, "upload-length").ok_or_else(|| Trouble::bad("Upload-Length is required"))?;
    let given =
        path_of(headers).ok_or_else(|| Trouble::bad("Upload-Metadata must have a path, in base64"))?;
    let path = room.names.file(&given)?;
    files::check_size(room, length, &given)?;
    let file = room.root.create(&path).map_err(|e| Trouble::of(&e, &given))?;
    if length == 0 {
        file.commit().map_err(|e| Trouble::of(&e, &given))?;
        let done = [("location", "/api/uploads/done".to_owned()), ("upload-offset", "0".to_owned())];
        return Ok(answer(StatusCode::CREATED, &done));
    }
    let id = crate::ids::random();
    let mut all = room.uploads.lock();
    if all.len() >= MOST {
        return Err(Trouble::new("too_many_uploads", format!("the limit is {MOST} uploads at a time")));
    }
    all.insert(id.clone(), Upload { path, length, offset: 0, file: Some(file), touched: Instant::now() });
    Ok(answer(
        StatusCode::CREATED,
        &[("location", format!("/api/uploads/{id}")), ("upload-offset", "0".to_owned())],
    ))
}

fn head(room: &Room, id: &str) -> Response {
    match room.uploads.lock().get(id) {
        Some(upload) => answer(
            StatusCode::OK,
            &[("upload-offset", upload.offset.to_string()), ("upload-length", upload.length.to_string())],
        ),
        None => answer(StatusCode::NOT_FOUND, &[]),
    }
}

async fn patch(room: &Arc<Room>, id: &str, request: Request<Body>) -> Result<Response, Trouble> {
    let from = number(request.headers(), "upload-offset")
        .ok_or_else(|| Trouble::bad("Upload-Offset is required"))?;
    let (file, path, left) = {
        let mut all = room.uploads.lock();
        let Some(upload) = all.get_mut(id) else { return Ok(answer(StatusCode::NOT_FOUND, &[])) };
        if upload.offset != from {
            let now = [("upload-offset", upload.offset.to_string())];
            return Ok(answer(StatusCode::CONFLICT, &now));
        }
        // Another part is being written.
        let Some(file) = upload.file.take() else { return Ok(answer(StatusCode::LOCKED, &[])) };
        (file, upload.path.clone(), upload.length - upload.offset)
    };
    let given = room.names.absolute(&path);
    // What has come of a part that was cut is kept: that is what this is for.
    let kept = Arc::new(Mutex::new(Some((file, 0u64))));
    let keeping = kept.clone();
    let taken = body::take(request.into_body(), left, move |part| {
        let mut slot = keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((file, done)) = slot.as_mut() else { return Ok(()) };
        let mut handle = file.file();
        handle.seek(SeekFrom::Start(from))?;
        let mut buffer = vec![0u8; body::PIECE];
        loop {
            let len = match part.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(error) => return Err(error),
            };
            handle.write_all(&buffer[..len])?;
            *done += len as u64;
        }
    })
    .await;
    let Some((file, done)) = kept.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return Err(Trouble::new("io_error", "internal error"));
    };
    let offset = from + done;
    // All has come: the file is put in its place; else it waits for more.
    let whole = {
        let mut all = room.uploads.lock();
        let Some(upload) = all.get_mut(id) else { return Ok(answer(StatusCode::NOT_FOUND, &[])) };
        upload.offset = offset;
        upload.touched = Instant::now();
        if offset == upload.length && taken.is_ok() {
            all.remove(id);
            Some(file)
        } else {
            upload.file = Some(file);
            None
        }
    };
    match taken {
        Ok(()) => {}
        Err(TakeError::Cut) => return Err(Trouble::bad("the part was cut: go on from Upload-Offset")),
        Err(TakeError::TooLarge) => {
            return Err(Trouble::new("too_large", "more bytes than Upload-Length said"));
        }
        Err(TakeError::Write(error)) => return Err(Trouble::of_io(&error, &given)),
    }
    if let Some(file) = whole {
        let committed = tokio::task::spawn_blocking(move || file.commit()).await;
        committed
            .map_err(|_| Trouble::new("io_error", "internal error"))?
            .map_err(|e| Trouble::of(&e, &given))?;
        room.refresh_all().await;
    }
    Ok(answer(StatusCode::NO_CONTENT, &[("upload-offset", offset.to_string())]))
}
