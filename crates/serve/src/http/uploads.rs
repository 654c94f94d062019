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
use super::reply;
use crate::files::Files;
use crate::paths::Trouble;

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

    /// Takes an upload's file to write a part of it: with its path, and how much is missing.
    fn begin(&self, id: &str, from: u64) -> Result<(PendingFile, String, u64), Box<Response>> {
        let mut all = self.lock();
        let Some(upload) = all.get_mut(id) else { return Err(Box::new(answer(StatusCode::NOT_FOUND, &[]))) };
        if upload.offset != from {
            let now = [("upload-offset", upload.offset.to_string())];
            return Err(Box::new(answer(StatusCode::CONFLICT, &now)));
        }
        // Another part is being written.
        let Some(file) = upload.file.take() else { return Err(Box::new(answer(StatusCode::LOCKED, &[]))) };
        Ok((file, upload.path.clone(), upload.length - upload.offset))
    }

    /// Gives the file back; if all of it has come, it is the caller's. `None` if the upload was
    /// taken away meanwhile.
    fn end(&self, id: &str, offset: u64, file: PendingFile, ok: bool) -> Option<Option<PendingFile>> {
        let mut all = self.lock();
        let upload = all.get_mut(id)?;
        upload.offset = offset;
        upload.touched = Instant::now();
        if offset == upload.length && ok {
            all.remove(id);
            return Some(Some(file));
        }
        upload.file = Some(file);
        Some(None)
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
pub(crate) async fn serve(
    uploads: &Uploads,
    workspace: &Arc<Files>,
    id: &str,
    request: Request<Body>,
) -> Result<Response, Trouble> {
    match (id.is_empty(), request.method().clone()) {
        (true, Method::POST) => create(uploads, workspace, request.headers()),
        (false, Method::HEAD) => Ok(head(uploads, id)),
        (false, Method::PATCH) => patch(uploads, workspace, id, request).await,
        (false, Method::DELETE) => Ok(match uploads.lock().remove(id) {
            Some(_) => answer(StatusCode::NO_CONTENT, &[]),
            None => reply::not_found(),
        }),
        _ => Ok(reply::not_found()),
    }
}

fn create(uploads: &Uploads, workspace: &Files, headers: &HeaderMap) -> Result<Response, Trouble> {
    let length = number(headers, "upload-length").ok_or_else(|| Trouble::bad("Upload-Length is required"))?;
    let given =
        path_of(headers).ok_or_else(|| Trouble::bad("Upload-Metadata must have a path, in base64"))?;
    let path = workspace.names.file(&given)?;
    workspace.check_size(length, &given)?;
    let file = workspace.root.create(&path).map_err(|e| Trouble::of(&e, &given))?;
    if length == 0 {
        file.commit().map_err(|e| Trouble::of(&e, &given))?;
        let done = [("location", "/api/uploads/done".to_owned()), ("upload-offset", "0".to_owned())];
        return Ok(answer(StatusCode::CREATED, &done));
    }
    let id = legwork_base::ids::secret();
    let mut all = uploads.lock();
    if all.len() >= MOST {
        return Err(Trouble::new("too_many_uploads", format!("the limit is {MOST} uploads at a time")));
    }
    all.insert(id.clone(), Upload { path, length, offset: 0, file: Some(file), touched: Instant::now() });
    Ok(answer(
        StatusCode::CREATED,
        &[("location", format!("/api/uploads/{id}")), ("upload-offset", "0".to_owned())],
    ))
}

fn head(uploads: &Uploads, id: &str) -> Response {
    match uploads.lock().get(id) {
        Some(upload) => answer(
            StatusCode::OK,
            &[("upload-offset", upload.offset.to_string()), ("upload-length", upload.length.to_string())],
        ),
        None => answer(StatusCode::NOT_FOUND, &[]),
    }
}

/// Takes the next part of an upload.
async fn patch(
    uploads: &Uploads,
    workspace: &Arc<Files>,
    id: &str,
    request: Request<Body>,
) -> Result<Response, Trouble> {
    let from = number(request.headers(), "upload-offset")
        .ok_or_else(|| Trouble::bad("Upload-Offset is required"))?;
    let (file, path, left) = match uploads.begin(id, from) {
        Ok(begun) => begun,
        Err(response) => return Ok(*response),
    };
    let given = workspace.names.absolute(&path);
    let (file, done, taken) = write(file, from, left, request.into_body()).await;
    let Some(file) = file else { return Err(Trouble::internal()) };
    let offset = from + done;
    // All has come: the file is put in its place; else it waits for more.
    let Some(whole) = uploads.end(id, offset, file, taken.is_ok()) else {
        return Ok(answer(StatusCode::NOT_FOUND, &[]));
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
        committed.map_err(|_| Trouble::internal())?.map_err(|e| Trouble::of(&e, &given))?;
        workspace.refresh_all().await;
    }
    Ok(answer(StatusCode::NO_CONTENT, &[("upload-offset", offset.to_string())]))
}

/// Writes a part of a file. What has come of a part that was cut is kept: that is what this is
/// for. Returns the file, how much of it has come, and how it went.
async fn write(
    file: PendingFile,
    from: u64,
    most: u64,
    part: Body,
) -> (Option<PendingFile>, u64, Result<(), TakeError>) {
    let kept = Arc::new(Mutex::new(Some((file, 0u64))));
    let keeping = kept.clone();
    let taken = body::take(part, most, move |part| {
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
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    match kept {
        Some((file, done)) => (Some(file), done, taken),
        None => (None, 0, taken),
    }
}
