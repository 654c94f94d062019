//! Conversations of agents, kept from one task of a session to the next: a file for each session, for
//! as long as it is used now and then.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::engine::Hub;
use crate::secrets::Bound;

/// The largest conversation; runners keep to less.
pub(crate) const MAX_SESSION: usize = 20 << 20;
/// A session that nobody has gone on with for so long is forgotten.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// All sessions together; beyond it those that were used longest ago go first.
const MAX_TOTAL: u64 = 8 << 30;
/// How a file beside that of a session is called which says what tokens it is for.
const BOUND: &str = "tokens";

fn file(data: &Path, session: &str) -> PathBuf {
    // Names are people's: none of files.
    let digest = Sha256::digest(session);
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    data.join("sessions").join(format!("{name}.json"))
}

/// The tokens that a session is for, all of which its secrets name; without such a file for all.
fn bound_to(data: &Path, session: &str) -> io::Result<Vec<Bound>> {
    match fs::read(file(data, session).with_extension(BOUND)) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let new = path.with_extension(format!("{:x}.new", crate::clock::random()?));
    let mut file = fs::File::options().write(true).create_new(true).open(&new)?;
    let written = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(new);
    }
    written
}

fn sweep(folder: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    let mut total = 0;
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let meta = file.metadata()?;
        let used = meta.modified()?;
        // Whom a session is for is known for as long as there is one.
        if file.path().extension().is_some_and(|extension| extension == BOUND) {
            let is_old = used.elapsed().is_ok_and(|age| age > KEPT);
            if is_old && !file.path().with_extension("json").exists() {
                fs::remove_file(file.path())?;
            }
            continue;
        }
        if used.elapsed().is_ok_and(|age| age > KEPT) {
            fs::remove_file(file.path())?;
        } else {
            total += meta.len();
            found.push((used, meta.len(), file.path()));
        }
    }
    found.sort();
    for (_, len, path) in found {
        if total <= MAX_TOTAL {
            break;
        }
        fs::remove_file(path)?;
        total -= len;
    }
    Ok(())
}

impl Hub {
    /// The session of a task, if it has one.
    pub(crate) fn session_of(&self, task: &str) -> Option<String> {
        let task: u32 = task.parse().ok()?;
        self.pods.lock().tasks.get(&task)?.session_id.clone()
    }

    /// The tokens that a session is for.
    pub(crate) async fn session_bounds(&self, session: String) -> io::Result<Vec<Bound>> {
        let data = self.data.clone();
        let read = tokio::task::spawn_blocking(move || bound_to(&data, &session)).await;
        read.map_err(io::Error::other)?
    }

    /// From now on a session is for these tokens. To be on disk before a task of it is.
    pub(crate) async fn bind_session(&self, session: String, to: Vec<Bound>) -> io::Result<()> {
        let data = self.data.clone();
        let bound = tokio::task::spawn_blocking(move || {
            write(&file(&data, &session).with_extension(BOUND), &serde_json::to_vec(&to)?)
        });
        bound.await.map_err(io::Error::other)?
    }

    /// What was kept of a session.
    pub(crate) async fn session(&self, session: String) -> io::Result<Option<Vec<u8>>> {
        let path = file(&self.data, &session);
        let read = tokio::task::spawn_blocking(move || fs::read(path)).await.map_err(io::Error::other)?;
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Keeps a session as it is now.
    pub(crate) async fn keep_session(&self, session: String, text: Vec<u8>) -> io::Result<()> {
        let path = file(&self.data, &session);
        tokio::task::spawn_blocking(move || write(&path, &text)).await.map_err(io::Error::other)?
    }

    /// Forgets a session; false if there was none.
    pub(crate) async fn forget_session(&self, session: String) -> io::Result<bool> {
        let path = file(&self.data, &session);
        let removed =
            tokio::task::spawn_blocking(move || fs::remove_file(path)).await.map_err(io::Error::other)?;
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// Forgets sessions that nobody uses any more: to be called every now and then.
    pub(crate) async fn forget_old_sessions(&self) {
        let folder = self.data.join("sessions");
        let swept = tokio::task::spawn_blocking(move || sweep(&folder)).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!("old sessions can't be removed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_goes() {
        let dir = tempfile::tempdir().expect("dir");
        let (old, new) = (file(dir.path(), "../old"), file(dir.path(), "new"));
        write(&old, b"1").expect("written");
        write(&new, b"2").expect("written");
        assert_eq!(old.parent(), new.parent());
        let then = std::time::SystemTime::now() - KEPT - Duration::from_secs(60);
        fs::File::options().append(true).open(&old).expect("open").set_modified(then).expect("time");
        // Whom a session is for outlives it by as much.
        let bound = |path: &Path| path.with_extension(BOUND);
        for path in [&old, &new] {
            write(&bound(path), b"[]").expect("written");
            let file = fs::File::options().append(true).open(bound(path)).expect("open");
            file.set_modified(then).expect("time");
        }
        sweep(&dir.path().join("sessions")).expect("swept");
        assert!(bound(&new).exists());
        sweep(&dir.path().join("sessions")).expect("swept");
        assert!(!bound(&old).exists() && bound(&new).exists());
        assert!(!old.exists() && fs::read(&new).is_ok_and(|text| text == b"2"));
        sweep(&dir.path().join("nothing")).expect("there is none");
    }
}
