//! A hub's data folder: whose it is, and whether what it holds belongs together.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::clock::sortable_id;

/// What only a hub that had its store leaves behind, and what that shows.
const TRACES: &[&str] = &["hub.id", "admin.token", "internal.token", "events"];

/// Makes the folder, and keeps others out of it.
pub(crate) fn lock(data: &Path) -> Result<File, OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(in_folder(data))?;
    let path = data.join("lock");
    let lock = File::options().create(true).append(true).open(&path).map_err(in_folder(&path))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| OpenError::InUse(data.to_owned()))?;
    Ok(lock)
}

/// Looks whether the folder is new or whole, before anything in it is changed. A hub that began
/// with an empty store beside another one's events would have lost all tasks and tokens, and
/// nobody would know.
pub(super) fn check(data: &Path) -> Result<(), OpenError> {
    read_id(data)?;
    let store = data.join("hub.db");
    let found = match std::fs::metadata(&store) {
        Ok(file) if file.len() > 0 => return Ok(()),
        Ok(_) => "is empty",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "is missing",
        Err(error) => return Err(in_folder(&store)(error)),
    };
    // A first start that was cut short has not come further than the store.
    let Some(trace) = TRACES.iter().find(|trace| data.join(trace).exists()) else { return Ok(()) };
    let why = format!(
        "it {found}, but {trace} beside it shows that a hub had its tasks and tokens there; nothing was changed. \
         Put hub.db back from a copy, or start with another folder (or move this one away) to begin anew without them"
    );
    Err(OpenError::Damaged { path: store, why })
}

/// The hub's id: made on the first start, for as long as the folder lives.
pub(super) fn hub_id(data: &Path) -> Result<String, OpenError> {
    if let Some(id) = read_id(data)? {
        return Ok(id);
    }
    let path = data.join("hub.id");
    let id = sortable_id("hub").map_err(in_folder(&path))?;
    write_whole(&path, &id).map_err(in_folder(&path))?;
    Ok(id)
}

fn read_id(data: &Path) -> Result<Option<String>, OpenError> {
    let path = data.join("hub.id");
    match std::fs::read_to_string(&path) {
        Ok(id) if id.trim().starts_with("hub_") => Ok(Some(id.trim().to_owned())),
        Ok(text) => {
            let found = if text.trim().is_empty() { "is empty" } else { "holds no hub's id" };
            let why = format!(
                "it {found}; nothing was changed. Put it back from a copy (runners' audits name the id as well), \
                 or remove it: then the hub gets a new one, and audits will name that"
            );
            Err(OpenError::Damaged { path, why })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(in_folder(&path)(error)),
    }
}

/// The first admin's secret, in its file before anybody else knows it: a token that nobody has
/// would lock everybody out. One that is there already, of a start that was cut short, is used.
pub(super) fn admin_secret(path: &Path, new: String) -> Result<String, OpenError> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().starts_with("lwk_") && text.trim().len() == new.len() => {
            return Ok(text.trim().to_owned());
        }
        Ok(text) if !text.trim().is_empty() => {
            let why = "it holds no token, and a first one is to be written there; nothing was changed. Move it away";
            return Err(OpenError::Damaged { path: path.to_owned(), why: why.into() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(in_folder(path)(error)),
    }
    write_whole(path, &new).map_err(in_folder(path))?;
    Ok(new)
}

/// Writes a line to a file that has its name only when it is whole.
fn write_whole(path: &Path, line: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_added_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

fn in_folder(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| OpenError::Folder { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token's file was written, and then the power was cut.
    #[test]
    fn a_first_token_that_is_there_is_used() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("admin.token");
        let secret = admin_secret(&path, "lwk_first".into()).expect("written");
        assert_eq!(
            (secret.as_str(), admin_secret(&path, "lwk_again".into()).expect("read").as_str()),
            ("lwk_first", "lwk_first")
        );
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "lwk_first\n");
        std::fs::write(&path, "my notes").expect("write");
        let told = admin_secret(&path, "lwk_other".into()).expect_err("it is no token").to_string();
        assert!(told.contains("admin.token") && told.contains("Move it away"), "{told}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "my notes");
    }
}
