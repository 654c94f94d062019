//! What reading and writing files share: names, modes, atomic replacement.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::request::Trouble;
use crate::signature::hex;

/// Symbolic links followed before a loop is assumed, as the kernel does.
const MAX_LINKS: usize = 40;

/// Copied at once.
const PIECE: u64 = 256 * 1024;
/// A label, and all names of a file's labels, have at most so many bytes each.
#[cfg(target_os = "linux")]
const MAX_LABEL: usize = 64 * 1024;

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

/// What a file is to hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    /// Files one after the other, with the digest of the whole.
    Parts(&'a [PathBuf], &'a str),
}

impl Content<'_> {
    pub(super) fn checksum(&self) -> String {
        match self {
            Self::Bytes(bytes) => hex(&Sha256::digest(bytes)),
            Self::Parts(_, checksum) => (*checksum).to_owned(),
        }
    }

    /// How many bytes it has.
    pub(super) fn length(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::Parts(parts, _) => parts.iter().map(|part| Ok(std::fs::metadata(part)?.len())).sum(),
        }
    }

    /// Whether a file of its length holds it already.
    pub(super) fn is_in(&self, path: &Path) -> bool {
        match self {
            Self::Bytes(bytes) => std::fs::read(path).is_ok_and(|found| found == *bytes),
            Self::Parts(_, checksum) => digest(path).is_ok_and(|found| found == **checksum),
        }
    }

    fn write_to(&self, file: &mut File) -> io::Result<()> {
        let (parts, checksum) = match self {
            Self::Bytes(bytes) => return file.write_all(bytes),
            Self::Parts(parts, checksum) => (parts, checksum),
        };
        let mut hash = Sha256::new();
        for part in *parts {
            pieces(part, &mut |piece| {
                hash.update(piece);
                file.write_all(piece)
            })?;
        }
        let whole = hex(&hash.finalize()) == **checksum;
        if whole { Ok(()) } else { Err(io::Error::other("the parts do not make the file")) }
    }
}

/// The digest of a file.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut add = |piece: &[u8]| {
        hash.update(piece);
        Ok(())
    };
    pieces(path, &mut add)?;
    Ok(hex(&hash.finalize()))
}

/// Reads a file piece by piece.
fn pieces(path: &Path, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let file = File::open(path)?;
    let mut piece = Vec::new();
    while (&file).take(PIECE).read_to_end(&mut piece)? > 0 {
        each(&piece)?;
        piece.clear();
    }
    Ok(())
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
pub(crate) fn temporary(path: &Path) -> io::Result<(PathBuf, File)> {
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
pub(super) fn replace(path: &Path, content: Content<'_>, attributes: Attributes) -> Result<(), Stage> {
    let (name, mut file) = temporary(path).map_err(Stage::Write)?;
    let written = (|| {
        content.write_to(&mut file).map_err(Stage::Write)?;
        if attributes.owner.is_some() || attributes.group.is_some() {
            fchown(&file, attributes.owner, attributes.group).map_err(Stage::Owner)?;
        }
        keep_labels(path, &file)?;
        // After the owner: a change of owner takes set-user-id away. After the access list,
        // which it would change as it changes the former file's.
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

/// Gives a new file what the one that it replaces has beside mode and owner: access lists,
/// the SELinux label, whatever its users wrote there. One that can't be given away (a label
/// that we may not set) makes the file one that must stay where it is.
#[cfg(target_os = "linux")]
fn keep_labels(path: &Path, file: &File) -> Result<(), Stage> {
    let mut names = [0u8; MAX_LABEL];
    // None, or a file system without: nothing is lost.
    let Ok(length) = rustix::fs::listxattr(path, &mut names[..]) else { return Ok(()) };
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        // These are of the content, and the kernel takes them away with it.
        if [&b"security.capability"[..], b"security.ima", b"security.evm"].contains(&name) {
            continue;
        }
        let (mut former, mut present) = ([0u8; MAX_LABEL], [0u8; MAX_LABEL]);
        let Ok(length) = rustix::fs::getxattr(path, name, &mut former[..]) else { continue };
        let now = rustix::fs::fgetxattr(file, name, &mut present[..]);
        if now.is_ok_and(|now| present[..now] == former[..length]) {
            continue;
        }
        rustix::fs::fsetxattr(file, name, &former[..length], rustix::fs::XattrFlags::empty())
            .map_err(|_| Stage::Mode(io::ErrorKind::PermissionDenied.into()))?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn keep_labels(_path: &Path, _file: &File) -> Result<(), Stage> {
    Ok(())
}

/// Whether a file could not be replaced, but may be written where it is.
pub(super) fn must_stay(stage: &Stage) -> bool {
    let (Stage::Write(error) | Stage::Owner(error) | Stage::Mode(error)) = stage;
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy)
}

/// Writes a file where it is: whoever looks may see half of it.
pub(super) fn overwrite(path: &Path, content: Content<'_>, attributes: Attributes) -> Result<(), Stage> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).map_err(Stage::Write)?;
    content.write_to(&mut file).map_err(Stage::Write)?;
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
