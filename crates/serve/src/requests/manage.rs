//! Making, moving, deleting and searching.

use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use legwork_socketio::Data;
use legwork_workspace::GrepBounds;
use serde_json::{Value, json};

use super::fields::{Fields, Outcome};
use crate::files::Files;
use crate::paths::Trouble;

/// Most results of a search in one answer.
const MAX_RESULTS: u64 = 10_000;
/// Most bytes of a pattern.
const MAX_PATTERN: usize = 8 * 1024;
/// Most bytes of matching lines in one answer.
const MAX_FOUND: u64 = 4 << 20;
/// Most characters of a matching line.
const MAX_LINE: usize = 500;

/// `file:stat {path}`
pub(super) fn stat(workspace: &Files, data: Data) -> Result<Outcome, Trouble> {
    let given = Fields::of(data, "path")?.needed("path")?;
    let relative = workspace.names.relative(&given)?;
    let meta = workspace.root.stat(&relative).map_err(|e| Trouble::of(&e, &given))?;
    let modified = meta.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Outcome::ack(&json!({
        "path": workspace.names.absolute(&relative),
        "type": if meta.is_dir { "directory" } else { "file" },
        "size": meta.size,
        "mode": format!("{:04o}", meta.mode),
        "modified_ms": u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
    })))
}

/// `file:create {path}` and `file:mkdir {path}`
pub(super) fn create(workspace: &Files, data: Data, folder: bool) -> Result<Outcome, Trouble> {
    let given = Fields::of(data, "path")?.needed("path")?;
    let relative = workspace.names.file(&given)?;
    let made = if folder { workspace.root.make_dir(&relative) } else { workspace.root.make_file(&relative) };
    made.map_err(|e| Trouble::of(&e, &given))?;
    Ok(Outcome::changed(&json!({ "success": true, "path": workspace.names.absolute(&relative) })))
}

/// `file:delete {path}`
pub(super) fn delete(workspace: &Files, data: Data) -> Result<Outcome, Trouble> {
    let given = Fields::of(data, "path")?.needed("path")?;
    let relative = workspace.names.file(&given)?;
    workspace.root.remove(&relative).map_err(|e| Trouble::of(&e, &given))?;
    Ok(Outcome::changed(&json!({ "success": true, "path": workspace.names.absolute(&relative) })))
}

/// `file:move {path, to, replace?}`
pub(super) fn rename(workspace: &Files, data: Data) -> Result<Outcome, Trouble> {
    let mut fields = Fields::of(data, "path")?;
    let (given, to) = (fields.needed("path")?, fields.needed("to")?);
    let replace = fields.flag("replace")?;
    let (from, target) = (workspace.names.file(&given)?, workspace.names.file(&to)?);
    workspace.root.rename(&from, &target, replace).map_err(|e| Trouble::of(&e, &to))?;
    Ok(Outcome::changed(&json!({ "success": true, "path": workspace.names.absolute(&target) })))
}

/// The pattern of a search.
fn pattern(fields: &mut Fields) -> Result<String, Trouble> {
    let pattern = fields.needed("pattern")?;
    if pattern.len() > MAX_PATTERN {
        return Err(Trouble::bad(format!("pattern is longer than {MAX_PATTERN} bytes")));
    }
    Ok(pattern)
}

/// `search:grep {pattern, include?, max_results?}`
pub(super) fn grep(workspace: &Files, data: Data) -> Result<Outcome, Trouble> {
    let mut fields = Fields::of(data, "pattern")?;
    let pattern = pattern(&mut fields)?;
    let include = match fields.map.remove("include") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(globs)) => globs
            .into_iter()
            .map(|glob| match glob {
                Value::String(glob) => Ok(glob),
                _ => Err(Trouble::bad("include must be a list of globs")),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(Trouble::bad("include must be a list of globs")),
    };
    let most = fields.number("max_results", 1, MAX_RESULTS)?.unwrap_or(1000);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let stop = AtomicBool::new(false);
    // A character has up to four bytes.
    let bounds = GrepBounds { matches: most, bytes: MAX_FOUND, line: 4 * MAX_LINE };
    let found =
        workspace.root.grep_some(&pattern, &include, &stop, bounds).map_err(|e| Trouble::of(&e, ""))?;
    let matches: Vec<Value> = found
        .matches
        .iter()
        .map(|m| {
            json!({
                "path": workspace.names.absolute(&m.path.to_string_lossy()),
                "line": m.line_number,
                "text": m.content.chars().take(MAX_LINE).collect::<String>(),
            })
        })
        .collect();
    Ok(Outcome::ack(&json!({ "matches": matches, "truncated": found.stopped })))
}

/// `search:glob {pattern, max_results?}`
pub(super) fn glob(workspace: &Files, data: Data) -> Result<Outcome, Trouble> {
    let mut fields = Fields::of(data, "pattern")?;
    let pattern = pattern(&mut fields)?;
    let most = fields.number("max_results", 1, MAX_RESULTS)?.unwrap_or(1000);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let (found, truncated) = workspace.root.glob_some(&pattern, most).map_err(|e| Trouble::of(&e, ""))?;
    let paths: Vec<String> = found.iter().map(|p| workspace.names.absolute(&p.to_string_lossy())).collect();
    Ok(Outcome::ack(&json!({ "paths": paths, "truncated": truncated })))
}
