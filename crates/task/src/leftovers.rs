//! What a task leaves on a standby runner, and who must not find it.
//!
//! Tasks of a standby runner are strangers to one another. Between two of them the runner
//! empties what the first could write; what can't be emptied is given to nobody.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::place::Place;
use crate::settings::Settings;

/// In the state folder: which task was begun last.
const MARKER: &str = "standby-task";
/// Names told of what was found.
const TOLD: usize = 5;

/// Where tasks leave things.
pub(crate) struct Leftovers<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) place: &'a Place,
    /// What tasks run has no walls: the machine's temporary folder is theirs as well.
    pub(crate) open: bool,
}

impl Leftovers<'_> {
    fn marker(&self) -> PathBuf {
        self.settings.state.join(MARKER)
    }

    /// Makes the place ready for the task of that folder. Fails if something is there that is
    /// not this task's and can't be taken away, with what to tell.
    pub(crate) fn claim(&self, folder: &str) -> Result<(), String> {
        let marker = self.marker();
        match fs::read_to_string(&marker) {
            // It goes on where an earlier process was.
            Ok(known) if known == folder => return Ok(()),
            Ok(_) => self.sweep()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.find_strangers()?,
            Err(error) => return Err(format!("failed to read {}: {error}", marker.display())),
        }
        fs::write(&marker, folder).map_err(|e| format!("failed to write {}: {e}", marker.display()))
    }

    /// Nobody knows who left what is in the workspace of a runner that has run nothing.
    fn find_strangers(&self) -> Result<(), String> {
        if self.settings.prepared {
            return Ok(());
        }
        let found = names(&self.settings.workspace)?;
        if found.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} holds what another task left ({}): this runner takes no task in it. Give each task a fresh pod, or \
             set LEGWORK_WORKSPACE_PREPARED=1 if that belongs to the image",
            self.settings.workspace.display(),
            told(&found)
        ))
    }

    fn sweep(&self) -> Result<(), String> {
        if self.settings.prepared {
            return Err(format!(
                "{} was prepared for one task, and another one has used it: give each task a fresh pod",
                self.settings.workspace.display()
            ));
        }
        let since = self.marker().metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let left = |what: &Path, error: io::Error| {
            format!("what another task left in {} can't be removed: {error}", what.display())
        };
        for dir in [&self.settings.workspace, &self.settings.scratch(), &self.place.state.join("tmp")] {
            empty(dir).map_err(|e| left(dir, e))?;
        }
        self.place.clear_home().map_err(|e| left(&self.place.home, e))?;
        let mcp = self.place.state.join("mcp");
        empty(&mcp).map_err(|e| left(&mcp, e))?;
        if self.open { self.sweep_tmp(since) } else { Ok(()) }
    }

    /// The machine's temporary folder. In a container all in it is ours to remove; elsewhere
    /// it is others' as well, and a task that used it is the runner's last.
    fn sweep_tmp(&self, since: SystemTime) -> Result<(), String> {
        let tmp = std::env::temp_dir();
        let user = rustix::process::geteuid().as_raw();
        let (state, scratch) = (&self.settings.state, self.settings.scratch());
        let mut found = Vec::new();
        for entry in fs::read_dir(&tmp).into_iter().flatten().flatten() {
            let path = entry.path();
            let own = [state, &scratch, &self.settings.workspace].iter().any(|dir| dir.starts_with(&path));
            let Ok(meta) = path.symlink_metadata() else { continue };
            let is_new = [meta.modified(), meta.created()].iter().flatten().any(|at| *at >= since);
            if !own && meta.uid() == user && (is_new || in_container()) {
                found.push(path);
            }
        }
        if !in_container() && !found.is_empty() {
            let names: Vec<String> = found.iter().map(|p| p.display().to_string()).collect();
            return Err(format!("another task left {}, and this is no container of ours", told(&names)));
        }
        for path in found {
            remove(&path)
                .map_err(|e| format!("what another task left in {} can't be removed: {e}", path.display()))?;
        }
        Ok(())
    }
}

/// Whether this machine is a container that is there for us.
fn in_container() -> bool {
    rustix::process::getpid().is_init()
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists())
}

fn names(dir: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("failed to read {}: {e}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n != "lost+found")
        .collect();
    names.sort();
    Ok(names)
}

fn told(names: &[String]) -> String {
    let more = if names.len() > TOLD { format!(", and {} more", names.len() - TOLD) } else { String::new() };
    let plain = |name: &String| name.chars().filter(|c| !c.is_control()).take(80).collect::<String>();
    format!("{}{more}", names.iter().take(TOLD).map(plain).collect::<Vec<_>>().join(", "))
}

/// Empties a folder, if it is there.
fn empty(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != "lost+found" {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or folder, also one that the task has made hard to remove: it was made by
/// our own user.
fn remove(path: &Path) -> io::Result<()> {
    let meta = path.symlink_metadata()?;
    if !meta.is_dir() {
        return fs::remove_file(path);
    }
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    open_up(path)?;
    fs::remove_dir_all(path)
}

/// Makes folders writable again. No link is followed.
fn open_up(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;

    #[test]
    fn one_task_s_files_are_not_there_for_the_next() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let (workspace, state) = (dir.path().join("ws"), dir.path().join("state"));
        fs::create_dir(&workspace).expect("workspace");
        let pairs = [("WORKSPACE", &workspace), ("LEGWORK_STATE_DIR", &state)];
        let env = Environment::new(pairs.map(|(k, v)| (k.into(), v.into())));
        let mut settings =
            Settings::read(&env, |_| Ok(legwork_policy::Policy::deny_all())).expect("settings");
        settings.make_folders().expect("folders");
        let place = Place::take(&settings).expect("place");
        let leave = |settings: &Settings| {
            fs::create_dir_all(settings.workspace.join("a/b")).expect("dir");
            fs::write(settings.workspace.join("a/b/secret"), "x").expect("file");
            fs::create_dir_all(&place.home).expect("home");
            fs::write(place.home.join(".netrc"), "x").expect("file");
            fs::set_permissions(settings.workspace.join("a"), fs::Permissions::from_mode(0o500))
                .expect("mode");
        };
        let left = |settings: &Settings| Leftovers { settings, place: &place, open: false }.claim("two");
        // A runner that has run nothing does not know whose that is.
        leave(&settings);
        let refused = left(&settings).expect_err("not empty");
        assert!(refused.contains("(a)") && refused.contains("fresh pod"), "{refused}");
        settings.prepared = true;
        left(&settings).expect("prepared");
        left(&settings).expect("the same task goes on");
        let other = Leftovers { settings: &settings, place: &place, open: false }.claim("three");
        assert!(other.is_err_and(|e| e.contains("prepared for one task")));
        // What is its own to clear is cleared.
        settings.prepared = false;
        Leftovers { settings: &settings, place: &place, open: false }.claim("three").expect("swept");
        assert_eq!(names(&settings.workspace), Ok(Vec::new()));
        assert!(!place.home.join(".netrc").exists());
        leave(&settings);
        left(&settings).expect("clean");
        assert_eq!(names(&settings.workspace), Ok(Vec::new()));
    }
}
