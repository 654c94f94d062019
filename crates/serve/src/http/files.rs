//! `/api/files/PATH`: download with ranges, upload in one request, delete.

use std::io;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use legwork_workspace::{Error, Meta};
use serde_json::json;

use super::body::{self, TakeError};
use super::reply;
use crate::files::Files;
use crate::paths::Trouble;

/// Answers a request for a file; `given` is its path.
pub(crate) async fn serve(
    workspace: &Arc<Files>,
    given: String,
    request: Request<Body>,
) -> Result<Response, Trouble> {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let (parts, _) = request.into_parts();
            download(workspace, &given, &parts.method, &parts.headers).await
        }
        Method::PUT => upload(workspace, given, request).await,
        Method::DELETE => delete(workspace, given).await,
        _ => Ok(reply::not_found()),
    }
}

/// Names a file's content as long as nobody changes it.
pub(crate) fn etag(meta: &Meta) -> String {
    let nanos = meta.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("\"{nanos:x}-{:x}-{:x}\"", meta.size, meta.inode)
}

async fn download(
    workspace: &Arc<Files>,
    given: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Trouble> {
    let path = workspace.names.file(given)?;
    let opening = workspace.clone();
    let opened = tokio::task::spawn_blocking(move || opening.root.open_file(&path)).await;
    let (file, meta) = opened.map_err(|_| Trouble::internal())?.map_err(|e| Trouble::of(&e, given))?;
    let tag = etag(&meta);
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| names(tags, &tag)) {
        let mut response = reply::empty(StatusCode::NOT_MODIFIED);
        set(response.headers_mut(), header::ETAG, &tag);
        return Ok(response);
    }
    // A range of what the client has seen before, or of nothing.
    let may_range = text(header::IF_RANGE).is_none_or(|wanted| wanted == tag);
    let range = match text(header::RANGE).filter(|_| may_range).map(|r| parse_range(r, meta.size)) {
        None | Some(Range::Ignored) => None,
        Some(Range::Part(from, to)) => Some((from, to)),
        Some(Range::Unsatisfiable) => {
            let mut response =
                reply::error(StatusCode::RANGE_NOT_SATISFIABLE, "the range is beyond the file");
            set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{}", meta.size));
            return Ok(response);
        }
    };
    let (from, to) = range.unwrap_or((0, meta.size));
    let body = if *method == Method::HEAD { Body::empty() } else { body::of_file(file, from, to - from) };
    let mut response = Response::new(body);
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes {from}-{}/{}", to - 1, meta.size));
    }
    let headers = response.headers_mut();
    set(headers, header::CONTENT_LENGTH, &(to - from).to_string());
    set(headers, header::ETAG, &tag);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    guard(headers);
    set(headers, header::CONTENT_DISPOSITION, &disposition(given));
    Ok(response)
}

/// A file of the workspace is somebody's, and must do nothing in our origin.
pub(crate) fn guard(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
}

/// Saved under its own name (RFC 6266).
pub(crate) fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or("file");
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ' { c } else { '_' })
        .collect();
    let encoded: String = name
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn names(tags: &str, tag: &str) -> bool {
    tags.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == "*" || t == tag)
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// From, and up to but without.
    Part(u64, u64),
    Unsatisfiable,
    /// Not ours to understand: the whole file is sent.
    Ignored,
}

/// One range (RFC 9110 §14); of several, the whole file is sent, as is allowed.
fn parse_range(text: &str, size: u64) -> Range {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.trim().split_once('-')) else {
        return Range::Ignored;
    };
    let number = |t: &str| if t.is_empty() { Ok(None) } else { t.parse::<u64>().map(Some) };
    match (number(first), number(last)) {
        (Ok(Some(from)), Ok(to)) => {
            if to.is_some_and(|to| to < from) {
                return Range::Ignored;
            }
            if from >= size {
                return Range::Unsatisfiable;
            }
            Range::Part(from, to.map_or(size, |to| to.saturating_add(1).min(size)))
        }
        (Ok(None), Ok(Some(0))) => Range::Unsatisfiable,
        (Ok(None), Ok(Some(suffix))) if size > 0 => Range::Part(size.saturating_sub(suffix), size),
        (Ok(None), Ok(Some(_))) => Range::Unsatisfiable,
        _ => Range::Ignored,
    }
}

/// Reads a range, for the fuzzer.
pub(super) fn fuzz(text: &str) {
    for size in [0, 1, 1000, u64::MAX] {
        if let Range::Part(from, to) = parse_range(text, size) {
            assert!(from < to && to <= size, "{text:?} of {size}: {from}..{to}");
        }
    }
}

/// On which condition a file is replaced.
struct Condition {
    matches: Option<String>,
    differs: Option<String>,
}

impl Condition {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
        Self { matches: text(header::IF_MATCH), differs: text(header::IF_NONE_MATCH) }
    }

    /// Whether it holds for the file as it is now.
    fn holds(&self, now: Option<&Meta>) -> bool {
        let tag = now.map(etag);
        self.matches.as_ref().is_none_or(|want| tag.as_ref().is_some_and(|tag| names(want, tag)))
            && self.differs.as_ref().is_none_or(|not| tag.as_ref().is_none_or(|tag| !names(not, tag)))
    }
}

async fn upload(workspace: &Arc<Files>, given: String, request: Request<Body>) -> Result<Response, Trouble> {
    let path = workspace.names.file(&given)?;
    workspace.check_size(body::told(request.headers()).unwrap_or(0), &given)?;
    let condition = Condition::of(request.headers());
    let most = workspace.max_upload;
    let (writing, target) = (workspace.clone(), path.clone());
    let written = body::take(request.into_body(), most, move |from| {
        let mut file = match writing.root.create(&target) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        body::copy(from, &mut file)?;
        // Between the look and the replacement nobody else who saves on a condition gets in.
        let _saving = writing.saving();
        let now = writing.root.stat(&target).ok();
        if !condition.holds(now.as_ref()) {
            return Err(io::Error::other(Conflict));
        }
        Ok(file.commit().map(|()| now.is_none()))
    })
    .await;
    let is_new = match written {
        Ok(Ok(is_new)) => is_new,
        Ok(Err(error)) => return Err(Trouble::of(&error, &given)),
        Err(TakeError::TooLarge) => {
            let text = format!("file too large: {given} (the limit is {most} bytes)");
            return Err(Trouble::new("too_large", text));
        }
        Err(TakeError::Cut) => return Err(Trouble::bad("the upload was cut: nothing was changed")),
        Err(TakeError::Write(error)) if error.get_ref().is_some_and(|e| e.is::<Conflict>()) => {
            let text = format!("the file has changed since it was read: {given}");
            let said = json!({ "error": text, "code": "conflict" });
            return Ok(reply::json(StatusCode::PRECONDITION_FAILED, &said));
        }
        Err(TakeError::Write(error)) => return Err(Trouble::of_io(&error, &given)),
    };
    workspace.refresh_all().await;
    let meta = workspace.root.stat(&path).map_err(|e| Trouble::of(&e, &given))?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let said = json!({ "success": true, "path": workspace.names.absolute(&path), "size": meta.size });
    let mut response = reply::json(status, &said);
    set(response.headers_mut(), header::ETAG, &etag(&meta));
    Ok(response)
}

#[derive(Debug, thiserror::Error)]
#[error("the file has changed")]
struct Conflict;

async fn delete(workspace: &Arc<Files>, given: String) -> Result<Response, Trouble> {
    let path = workspace.names.file(&given)?;
    let removing = workspace.clone();
    let removed: Result<(), Error> = tokio::task::spawn_blocking(move || removing.root.remove(&path))
        .await
        .map_err(|_| Trouble::internal())?;
    removed.map_err(|e| Trouble::of(&e, &given))?;
    workspace.refresh_all().await;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_the_standard_says() {
        for (text, want) in [
            ("bytes=0-9", Range::Part(0, 10)),
            ("bytes=90-", Range::Part(90, 100)),
            ("bytes=90-1000", Range::Part(90, 100)),
            ("bytes=-10", Range::Part(90, 100)),
            ("bytes=-1000", Range::Part(0, 100)),
            ("bytes=100-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=9-5", Range::Ignored),
            ("bytes=1-2,4-5", Range::Ignored),
            ("bytes=-", Range::Ignored),
            ("lines=1-2", Range::Ignored),
        ] {
            assert_eq!(parse_range(text, 100), want, "{text}");
        }
        assert_eq!(parse_range("bytes=-5", 0), Range::Unsatisfiable);
    }

    #[test]
    fn names_of_downloads_carry_nothing_else() {
        assert_eq!(
            disposition("a/b\"\r\nX: y.txt"),
            "attachment; filename=\"b___X: y.txt\"; filename*=UTF-8''b%22%0D%0AX%3A%20y.txt"
        );
        assert!(disposition("ä").ends_with("%C3%A4"));
    }
}
