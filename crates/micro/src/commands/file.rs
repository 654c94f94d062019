//! What reading and writing files share: names, modes, atomic replacement.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::request::Trouble;

/// Symbolic links followed before a loop is assumed, as the kernel does.
const MAX_LINKS: usize = 40;

/// A path that a system call takes.
pub(super) fn path(text: &str) -> Result<PathBuf, Trouble> {
    if text.is_empty() {
        return Err("path is required".into());
    }
    if text.contains('\0') {
        return Err("path has a zero byte".into());
    }
    Ok(PathBuf::from(text))
}

/// Mode and owner of a file to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    /// All 12 bits.
    pub(super) mode: u32,
    pub(super) owner: Option<u32>,
    pub(super) group: Option<u32>,
}

/// What went wrong while a file was replaced.
#[derive(Debug)]
pub(super) enum Stage {
    Write(io::Error),
    Mode(io::Error),
    Owner(io::Error),
}

/// Where a path leads, so that a link stays and its target changes. The last part may be
/// absent.
pub(super) fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(40))
}

/// A new file beside `path`, that nobody else may read, with a name nobody else has.
pub(super) fn temporary(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy().into_owned();
    // A name has at most 255 bytes, and so must ours.
    let name: String = name.chars().take(50).collect();
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for attempt in 0..100u32 {
        let unique = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let unique = format!("{:x}{:x}{attempt:x}", std::process::id(), unique.as_nanos());
        let file = path.with_file_name(format!(".{name}.{unique}.legwork"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file) {
            Ok(open) => return Ok((file, open)),
            Err(error) => last = error,
        }
        if last.kind() != io::ErrorKind::AlreadyExists {
            break;
        }
    }
    Err(last)
}

/// Replaces a file as a whole: whoever looks sees the old one or the new one.
pub(super) fn replace(path: &Path, content: &[u8], attributes: Attributes) -> Result<(), Stage> {
    let (name, mut file) = temporary(path).map_err(Stage::Write)?;
    let written = (|| {
        file.write_all(content).map_err(Stage::Write)?;
        if attributes.owner.is_some() || attributes.group.is_some() {
            fchown(&file, attributes.owner, attributes.group).map_err(Stage::Owner)?;
        }
        // After the owner: a change of owner takes set-user-id away.
        file.set_permissions(std::fs::Permissions::from_mode(attributes.mode)).map_err(Stage::Mode)?;
        file.sync_all().map_err(Stage::Write)?;
        std::fs::rename(&name, path).map_err(Stage::Write)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&name);
        return written;
    }
    if let Some(folder) = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p }) {
        // The rename itself must survive, too; some file systems can't say.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// Whether a file could not be replaced, but may be written where it is.
pub(super) fn must_stay(stage: &Stage) -> bool {
    let (Stage::Write(error) | Stage::Owner(error) | Stage::Mode(error)) = stage;
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy)
}

/// Writes a file where it is: whoever looks may see half of it.
pub(super) fn overwrite(path: &Path, content: &[u8], attributes: Attributes) -> Result<(), Stage> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).map_err(Stage::Write)?;
    file.write_all(content).map_err(Stage::Write)?;
    if attributes.owner.is_some() || attributes.group.is_some() {
        fchown(&file, attributes.owner, attributes.group).map_err(Stage::Owner)?;
    }
    let same = file.metadata().is_ok_and(|found| found.mode() & 0o7777 == attributes.mode);
    if !same {
        file.set_permissions(std::fs::Permissions::from_mode(attributes.mode)).map_err(Stage::Mode)?;
    }
    file.sync_all().map_err(Stage::Write)
}

/// Mode and owner of a file that is there, to keep.
pub(super) fn attributes_of(found: &std::fs::Metadata) -> Attributes {
    Attributes { mode: found.mode() & 0o7777, owner: Some(found.uid()), group: Some(found.gid()) }
}
