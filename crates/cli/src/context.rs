//! Where the user's files are, and which hub the commands talk to.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The hub that `legwork up` started, or a person chose.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) hub_url: String,
    pub(crate) token: String,
}

/// The user's home.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("HOME").filter(|h| !h.is_empty()).map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

fn xdg(variable: &str, below_home: &str) -> PathBuf {
    std::env::var_os(variable)
        .filter(|v| !v.is_empty())
        .map_or_else(|| home().join(below_home), PathBuf::from)
        .join("legwork")
}

/// Where `up` keeps its data.
pub(crate) fn data_dir() -> PathBuf {
    xdg("XDG_DATA_HOME", ".local/share")
}

/// Where runners keep their state.
pub(crate) fn state_dir() -> PathBuf {
    match std::env::var_os("LEGWORK_STATE_DIR").filter(|v| !v.is_empty()) {
        Some(dir) => dir.into(),
        None => xdg("XDG_STATE_HOME", ".local/state"),
    }
}

fn context_file() -> PathBuf {
    xdg("XDG_CONFIG_HOME", ".config").join("context.json")
}

/// Reads the context, if there is one.
pub(crate) fn load() -> Option<Context> {
    serde_json::from_str(&std::fs::read_to_string(context_file()).ok()?).ok()
}

/// Writes the context; returns its file.
pub(crate) fn save(context: &Context) -> Result<PathBuf> {
    let path = context_file();
    write_private(&path, &serde_json::to_string_pretty(context)?)?;
    Ok(path)
}

/// Writes a file that only the user can read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a file needs a folder")?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}

/// Whether we were called by the original's name.
pub(crate) fn called_as_original() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    let name = name.as_deref().and_then(|path| path.file_name()?.to_str()).unwrap_or_default();
    name.starts_with("flashduty-runner")
}

/// Whether a config is one of the original: by our name, or by where it lies.
pub(crate) fn is_originals(config: &Path) -> bool {
    called_as_original()
        || config.components().any(|part| part.as_os_str().to_string_lossy().contains("flashduty-runner"))
}

/// The certificate authority: as given, else of the environment.
pub(crate) fn ca_file(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| std::env::var_os("LEGWORK_CA_FILE").filter(|f| !f.is_empty()).map(PathBuf::from))
}
