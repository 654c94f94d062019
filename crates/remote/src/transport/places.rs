//! What is remembered of shared connections, in a folder that only we can read: the socket
//! of each, and where the runner is on the host behind it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use legwork_base::digest::hex;
use sha2::{Digest, Sha256};

use super::bootstrap::Place;

/// A socket's path has at most 107 bytes; its name has 16, and ssh adds 17 for a moment.
const MAX_FOLDER: usize = 107 - 17 - 16 - 1;

/// The folder of connections.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    folder: PathBuf,
}

impl Places {
    /// Opens the folder, and makes it if need be.
    pub(crate) fn open(folder: Option<&Path>) -> io::Result<Self> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => default_folder()?,
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let found = std::fs::symlink_metadata(&folder)?;
        let ours =
            found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
        if !ours {
            let folder = folder.display();
            let text = format!("{folder} must be a folder that only you can read; run: chmod 700 {folder}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Self { folder })
    }

    /// The socket of the connection to a host with these options.
    pub(crate) fn socket(&self, host: &str, options: &[String]) -> PathBuf {
        let mut hash = Sha256::new();
        for part in std::iter::once(host).chain(options.iter().map(String::as_str)) {
            hash.update(part);
            hash.update([0]);
        }
        let name = hex(&hash.finalize()[..8]);
        self.folder.join(name)
    }
}

fn default_folder() -> io::Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let runtime =
        var("XDG_RUNTIME_DIR").filter(|folder| folder.is_dir()).map(|folder| folder.join("legwork-ssh"));
    let home = var("HOME").map(|home| home.join(".legwork/ssh"));
    if runtime.is_none() && home.is_none() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "neither XDG_RUNTIME_DIR nor HOME is set"));
    }
    let fits = |folder: &PathBuf| folder.as_os_str().len() <= MAX_FOLDER;
    // Of whoever else has made one of that name there, none is taken.
    let short = PathBuf::from(format!("/tmp/legwork-ssh-{}", rustix::process::geteuid().as_raw()));
    Ok(runtime.filter(fits).or(home.filter(fits)).unwrap_or(short))
}

/// Where the runner is, behind a socket.
pub(crate) fn recall(socket: &Path) -> Option<Place> {
    let text = std::fs::read_to_string(socket.with_extension("place")).ok()?;
    let (digest, file) = text.trim_end().split_once(' ')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    (file.starts_with('/') && file.chars().all(plain))
        .then(|| Place { file: file.to_owned(), digest: digest.to_owned() })
}

/// Remembers it.
pub(crate) fn remember(socket: &Path, place: &Place) -> io::Result<()> {
    if place.file.is_empty() {
        return Ok(());
    }
    let draft = socket.with_extension(format!("draft{}", std::process::id()));
    std::fs::write(&draft, format!("{} {}\n", place.digest, place.file))?;
    std::fs::rename(&draft, socket.with_extension("place"))
}

/// Forgets it.
pub(crate) fn forget(socket: &Path) {
    let _ = std::fs::remove_file(socket.with_extension("place"));
}
