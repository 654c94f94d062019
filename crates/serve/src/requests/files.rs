//! The original's three events about files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_socketio::{Data, payload};
use legwork_workspace::Error;
use serde::Serialize;

use super::fields::{Fields, Outcome};
use crate::files::Files;
use crate::paths::Trouble;

/// The digest by which clients know a file's content.
pub(crate) fn digest(data: &[u8]) -> String {
    legwork_base::digest::sha256(data)
}

/// `fetchDir {path}`
pub(super) fn fetch_dir(workspace: &Files, data: Data) -> Result<Outcome, Trouble> {
    let given = Fields::of(data, "path")?.text("path")?.unwrap_or_default();
    let relative = workspace.names.relative(&given)?;
    let tree =
        crate::tree::refresh(&workspace.root, &workspace.names, &workspace.exclude, &relative, &given)?;
    Ok(Outcome::event("file:refresh", tree))
}

/// `fetchContent {path, digest?}`
pub(super) fn fetch_content(workspace: &Files, data: Data) -> Result<Outcome, Trouble> {
    let mut fields = Fields::of(data, "path")?;
    let given = fields.needed("path")?;
    let wants_digest = fields.flag("digest")?;
    let relative = workspace.names.file(&given)?;
    let most = workspace.max_file;
    let file = workspace.root.read(&relative, 0, 0, most).map_err(|e| Trouble::of(&e, &given))?;
    if file.total_size > most {
        return Err(too_large(&given, file.total_size));
    }
    let digest = wants_digest.then(|| digest(&file.data));
    let path = workspace.names.absolute(&relative);
    let (content, content_base64) = match String::from_utf8(file.data) {
        Ok(text) => (text, None),
        Err(error) => {
            let lossy = String::from_utf8_lossy(error.as_bytes()).into_owned();
            (lossy, Some(STANDARD.encode(error.as_bytes())))
        }
    };
    let encoding = content_base64.as_ref().map(|_| "base64");
    Ok(Outcome::event("file:content", payload(&Content { content, path, encoding, content_base64, digest })))
}

/// `file:content`, in the protocol's order.
#[derive(Serialize)]
struct Content {
    content: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// What a save is acknowledged with.
#[derive(Serialize)]
struct Saved {
    success: bool,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

fn too_large(given: &str, bytes: u64) -> Trouble {
    Trouble::new("too_large", format!("file too large: {given} ({bytes} bytes)"))
}

/// `updateContent {path, content | content_base64, base_digest?, digest?}`
pub(super) fn update_content(workspace: &Files, data: Data) -> Result<Outcome, Trouble> {
    let mut fields = Fields::of(data, "path")?;
    let given = fields.needed("path")?;
    let encoded = fields.text("content_base64")?;
    let content = match encoded {
        Some(text) => {
            STANDARD.decode(text).map_err(|_| Trouble::bad("content_base64 is not valid base64"))?
        }
        None => fields.bytes("content")?.ok_or_else(|| Trouble::bad("content is required"))?,
    };
    let base = fields.text("base_digest")?;
    let wants_digest = fields.flag("digest")? || base.is_some();
    let relative = workspace.names.file(&given)?;
    let bytes = content.len() as u64;
    if bytes > workspace.max_file {
        return Err(too_large(&given, bytes));
    }
    let mut said = Saved { success: true, path: workspace.names.absolute(&relative), digest: None };
    let of = |e: Error| Trouble::of(&e, &given);
    if let Some(base) = base {
        // Between the look and the replacement nobody else who saves with a digest gets in.
        let _saving = workspace.saving();
        let now = match workspace.root.read(&relative, 0, 0, workspace.max_file) {
            Ok(file) => digest(&file.data),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(of(error)),
        };
        if now != base {
            return Err(Trouble::new("conflict", format!("the file has changed since it was read: {given}")));
        }
        workspace.root.write(&relative, &content).map_err(of)?;
    } else {
        workspace.root.write(&relative, &content).map_err(of)?;
    }
    said.digest = wants_digest.then(|| digest(&content));
    Ok(Outcome::changed(&said))
}
