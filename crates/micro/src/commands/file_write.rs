//! `file.write`: a file as a whole, or not at all.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::micro::result;

use super::file::{self, Attributes, Content, Stage};
use crate::fields::Fields;
use crate::ids::{self, Table};
use crate::os::cause;
use crate::request::{Context, Request, Trouble};

/// Between two looks at whether another runner is done.
const LOOK: Duration = Duration::from_millis(10);

const PARAMS: &[&str] = &[
    "path",
    "content",
    "content_base64",
    "mode",
    "owner",
    "group",
    "create",
    "backup",
    "dry_run",
    "parts",
    "checksum",
    "former",
];

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<result::FileWrite, Trouble> {
    let fields = Fields::parse(&request.params, PARAMS)?;
    let path = file::path(&fields.string("path")?)?;
    let mode = mode(&fields.string("mode")?)?;
    let (create, backup) = (fields.boolean("create")?, fields.boolean("backup")?);
    let (owner, group) = (fields.string("owner")?, fields.string("group")?);
    // Decoded first: what can't be written must change nothing.
    let content = match fields.optional_string("content_base64")? {
        Some(text) => {
            STANDARD.decode(text).map_err(|_| "failed to parse params: content_base64: not base64")?
        }
        None => fields.string("content")?.into_bytes(),
    };
    let owner = id(context, Table::Users, &owner)?;
    let group = id(context, Table::Groups, &group)?;
    context.check()?;
    let (dry_run, guard) = (fields.boolean("dry_run")?, fields.string("former")?);
    let wanted = Wanted { create, backup, dry_run, mode, owner, group, guard };
    let _lock = if wanted.guard.is_empty() { None } else { lock(context, &path)? };
    let parts = Parts(fields.strings("parts")?.into_iter().map(PathBuf::from).collect());
    if parts.0.is_empty() {
        return write(&path, Content::Bytes(&content), &wanted);
    }
    write(&path, Content::Parts(&parts.0, &fields.string("checksum")?), &wanted)
}

/// Keeps other runners from files of this folder, for as long as it is held: between the look at
/// what is there and the replacement nobody comes. `None` where folders can't be locked.
fn lock(context: &mut Context<'_>, path: &Path) -> Result<Option<std::fs::File>, Trouble> {
    let target = file::target(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(open) = std::fs::File::open(folder) else { return Ok(None) };
    loop {
        match rustix::fs::flock(&open, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(open)),
            Err(rustix::io::Errno::WOULDBLOCK) => context.pause(LOOK)?,
            Err(_) => return Ok(None),
        }
    }
}

/// Files that go, whatever becomes of what they are parts of.
struct Parts(Vec<PathBuf>);

impl Drop for Parts {
    fn drop(&mut self) {
        self.0.iter().for_each(|part| drop(std::fs::remove_file(part)));
    }
}

/// Octal, all 12 bits.
fn mode(text: &str) -> Result<Option<u32>, Trouble> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = digits.len() <= 7 && digits.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| octal && *mode <= 0o7777);
    mode.map(Some).ok_or_else(|| format!("invalid mode: {text:?} is not octal between 0 and 7777").into())
}

fn id(context: &mut Context<'_>, table: Table, name: &str) -> Result<Option<u32>, Trouble> {
    if name.is_empty() {
        return Ok(None);
    }
    let kind = match table {
        Table::Users => "user",
        Table::Groups => "group",
    };
    let found = ids::find(context, table, name);
    found.map(Some).ok_or_else(|| format!("failed to set ownership: unknown {kind} {name}").into())
}

struct Wanted {
    create: bool,
    backup: bool,
    dry_run: bool,
    mode: Option<u32>,
    owner: Option<u32>,
    group: Option<u32>,
    /// The digest of what must be there before, `none` for no file; empty: whatever is there.
    guard: String,
}

impl Wanted {
    /// Whether what is there is what the controller has seen.
    fn is_as_seen(&self, target: &Path, is_there: bool) -> bool {
        match self.guard.as_str() {
            "" => true,
            "none" => !is_there,
            guard => is_there && file::digest(target).is_ok_and(|found| found == guard),
        }
    }
}

fn write(path: &Path, content: Content<'_>, wanted: &Wanted) -> Result<result::FileWrite, Trouble> {
    let Wanted { create, backup, dry_run, mode, owner, group, .. } = *wanted;
    let failed = |what: &str, error: &io::Error| Trouble::from(format!("failed to {what}: {}", cause(error)));
    let target = file::target(path).map_err(|error| failed("write file", &error))?;
    let former = match std::fs::metadata(&target) {
        Ok(found) if found.is_dir() => {
            return Err(format!("failed to write file: open {}: is a directory", path.display()).into());
        }
        Ok(found) if !found.is_file() => {
            return Err(format!("failed to write file: open {}: not a regular file", path.display()).into());
        }
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("write file", &error)),
    };
    if former.is_none() && !create {
        return Err(format!("file does not exist and create=false: {}", path.display()).into());
    }
    if !wanted.is_as_seen(&target, former.is_some()) {
        return Err(format!("failed to write file: {} has changed since it was read", path.display()).into());
    }
    let created = former.is_none();
    let length = content.length().map_err(|error| failed("write file", &error))?;
    let done = |changed, backup_path| result::FileWrite {
        bytes_written: length,
        created,
        changed,
        backup_path,
        checksum: content.checksum(),
    };
    let is_so = former.as_ref().is_some_and(|former| {
        mode.is_none_or(|mode| former.mode() & 0o7777 == mode)
            && owner.is_none_or(|owner| former.uid() == owner)
            && group.is_none_or(|group| former.gid() == group)
            && former.len() == length
            && content.is_in(&target)
    });
    if is_so || dry_run {
        return Ok(done(!is_so, None));
    }
    let mut backup_path = None;
    if let Some(former) = former.as_ref().filter(|_| backup) {
        let to = PathBuf::from(format!("{}.bak", path.display()));
        copy(&target, &to, file::attributes_of(former)).map_err(|error| failed("create backup", &error))?;
        backup_path = Some(to.to_string_lossy().into_owned());
    }
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| failed("create directory", &error))?;
    }
    // The owner stays, unless another was asked for; ours needs no right to change it.
    let kept = former.as_ref().map(file::attributes_of);
    let mode = mode.or(kept.map(|kept| kept.mode)).unwrap_or(0o644);
    let uid = kept.and_then(|kept| kept.owner).filter(|id| *id != rustix::process::geteuid().as_raw());
    let gid = kept.and_then(|kept| kept.group).filter(|id| *id != rustix::process::getegid().as_raw());
    let attributes = Attributes { mode, owner: owner.or(uid), group: group.or(gid) };
    let mut replaced = file::replace(&target, content, attributes);
    if former.is_some() && matches!(&replaced, Err(stage) if file::must_stay(stage)) {
        // A file that we may write in a folder that we may not, another's file, or one
        // that is mounted: it can only be written where it is.
        let asked = Attributes { mode, owner, group };
        replaced = file::overwrite(&target, content, asked);
    }
    replaced.map_err(|stage| match stage {
        Stage::Write(error) => failed("write file", &error),
        Stage::Mode(error) => failed("set mode", &error),
        Stage::Owner(error) => failed("set ownership", &error),
    })?;
    Ok(done(true, backup_path))
}

/// Copies a file as a whole, mode and owner with it.
fn copy(from: &Path, to: &Path, attributes: Attributes) -> io::Result<()> {
    use std::os::unix::fs::{PermissionsExt, fchown};
    let mut source = std::fs::File::open(from)?;
    let (name, mut file) = file::temporary(to)?;
    let copied = (|| {
        io::copy(&mut source, &mut file)?;
        // Another's file can be copied by whoever may read it; then the copy is ours.
        let _ = fchown(&file, attributes.owner, attributes.group);
        file.set_permissions(std::fs::Permissions::from_mode(attributes.mode))?;
        file.sync_all()?;
        std::fs::rename(&name, to)
    })();
    if copied.is_err() {
        let _ = std::fs::remove_file(&name);
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_have_twelve_bits() {
        for (text, expected) in [("0644", 0o644), ("4755", 0o4755), ("7777", 0o7777), ("0", 0)] {
            assert_eq!(mode(text).unwrap(), Some(expected), "{text}");
        }
        for bad in ["rw-", "0888", "+644", "-1", "10000", "0x1ff", "99999999999"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
