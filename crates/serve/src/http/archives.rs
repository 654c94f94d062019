//! `/api/archive`: folders as one file, and back.

use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use legwork_workspace::{ArchiveError, Bounds, Format};
use serde_json::json;

use super::body::{self, TakeError};
use super::{files, reply};
use crate::files::Files;
use crate::paths::Trouble;

fn trouble(error: &ArchiveError, given: &str) -> Trouble {
    match error {
        ArchiveError::Workspace(error) => Trouble::of(error, given),
        ArchiveError::Escapes(name) => Trouble::outside(name),
        ArchiveError::TooMuch(_) => Trouble::new("too_large", error.to_string()),
        ArchiveError::Io(cause) if cause.raw_os_error().is_some() => Trouble::of_io(cause, given),
        ArchiveError::Io(_) => Trouble::bad(format!("the archive can't be read: {error}")),
    }
}

/// `GET /api/archive?path=&format=` and `POST` of the same.
pub(crate) async fn serve(workspace: &Arc<Files>, request: Request<Body>) -> Result<Response, Trouble> {
    let (mut given, mut format, mut all) = (String::new(), None, false);
    for (key, value) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
        match &*key {
            "path" => given = value.into_owned(),
            "format" => format = Some(value.into_owned()),
            "all" => all = matches!(&*value, "1" | "true"),
            _ => {}
        }
    }
    let Some(format) = Format::of(format.as_deref().unwrap_or("tar.zst")) else {
        return Err(Trouble::bad("format must be tar.zst or zip"));
    };
    match *request.method() {
        Method::GET => pack(workspace, &given, format, all).await,
        Method::POST => unpack(workspace, given, format, request).await,
        _ => Ok(reply::not_found()),
    }
}

async fn pack(workspace: &Arc<Files>, given: &str, format: Format, all: bool) -> Result<Response, Trouble> {
    let path = workspace.names.relative(given)?;
    // What can be said before the answer starts is said now.
    let (looking, folder) = (workspace.clone(), path.clone());
    let looked = tokio::task::spawn_blocking(move || looking.root.open_dir(&folder).map(drop)).await;
    looked.map_err(|_| Trouble::internal())?.map_err(|e| Trouble::of(&e, given))?;
    let name = match path.rsplit('/').next() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "workspace".to_owned(),
    };
    let packing = workspace.clone();
    let exclude = if all { Vec::new() } else { workspace.exclude.clone() };
    let body = body::of_writer(move |to| {
        packing.root.pack(&path, format, &exclude, to).map(drop).map_err(std::io::Error::other)
    });
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    files::guard(headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    let disposition = files::disposition(&format!("{name}.{}", format.extension()));
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

async fn unpack(
    workspace: &Arc<Files>,
    given: String,
    format: Format,
    request: Request<Body>,
) -> Result<Response, Trouble> {
    let path = workspace.names.relative(&given)?;
    let most = workspace.max_upload;
    let told = body::told(request.headers());
    workspace.check_size(told.unwrap_or(0), &given)?;
    let unpacking = workspace.clone();
    let taken = body::take(request.into_body(), most, move |from| {
        // On disk first: a zip's list is at its end, and an archive that is cut changes nothing.
        let mut whole = tempfile::tempfile()?;
        let size = body::copy(from, &mut whole)?;
        whole.seek(SeekFrom::Start(0))?;
        let bounds = Bounds { bytes: most, ..Bounds::default() };
        let whole = std::io::BufReader::new(whole);
        Ok(unpacking.root.unpack(&path, format, whole, size, bounds))
    })
    .await;
    let result = match taken {
        Ok(result) => result,
        Err(TakeError::TooLarge) => {
            return Err(Trouble::new("too_large", format!("the archive is larger than {most} bytes")));
        }
        Err(TakeError::Cut) => return Err(Trouble::bad("the upload was cut: nothing was changed")),
        Err(TakeError::Write(error)) => return Err(Trouble::of_io(&error, &given)),
    };
    // Even of an archive that failed in its middle something may be there now.
    workspace.refresh_all().await;
    let packed = result.map_err(|e| trouble(&e, &given))?;
    Ok(reply::json(
        StatusCode::OK,
        &json!({ "success": true, "entries": packed.entries, "bytes": packed.bytes }),
    ))
}
