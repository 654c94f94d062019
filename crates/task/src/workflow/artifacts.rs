//! Artifacts: files that one job leaves for others. They are kept in the task's own folder, which no step
//! can write, and come out of it by the rules for all archives: nothing leads out of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use legwork_proto::task::{Level, StepState};
use legwork_workspace::{ArchiveError, Bounds, Format, Root};

use super::run::Shared;
use super::step::{Command, Ended};
use crate::journal::Left;
use crate::random;

/// Most files of an artifact or a cache.
pub(super) const MAX_FILES: usize = 200_000;
/// Most artifacts of a task.
const MAX_ARTIFACTS: usize = 1000;

type Inputs = BTreeMap<String, String>;

impl Shared<'_> {
    fn artifacts(&self) -> PathBuf {
        self.world.dir.join("artifacts")
    }

    pub(super) async fn upload(&self, inputs: &Inputs, command: &Command<'_>) -> Ended {
        let name = inputs.get("name").map_or("artifact", String::as_str).to_owned();
        let Some(paths) = inputs.get("path").filter(|paths| !paths.trim().is_empty()) else {
            return Ended::error("with.path is missing");
        };
        if let Err(error) = is_name(&name) {
            return Ended::error(error);
        }
        let overwrite = inputs.get("overwrite").is_some_and(|value| value == "true");
        let (root, paths, folder) = (self.world.hands.root.clone(), paths.clone(), self.artifacts());
        let made = tokio::task::spawn_blocking(move || upload(&root, &folder, &name, &paths, overwrite));
        match made.await.unwrap_or_else(|e| Err(e.to_string())) {
            Err(error) => Ended::error(error),
            Ok(0) => {
                let how = inputs.get("if-no-files-found").map_or("warn", String::as_str);
                let text = "no file was found for the artifact";
                match how {
                    "error" => return Ended::error(text),
                    "ignore" => {}
                    _ => command.events.log(Level::Info, &format!("warning: {text}")).await,
                }
                Ended::with(StepState::Success)
            }
            Ok(files) => {
                command.events.log(Level::Info, &format!("Artifact: {files} files")).await;
                Ended::with(StepState::Success)
            }
        }
    }

    pub(super) async fn download(&self, inputs: &Inputs, command: &Command<'_>) -> Ended {
        let to = inputs.get("path").map_or(".", String::as_str).trim();
        let workspace = self.world.hands.root.path();
        let to = match Path::new(to).strip_prefix(workspace) {
            Ok(inner) => inner.to_string_lossy().into_owned(),
            Err(_) => to.strip_prefix("./").unwrap_or(to).to_owned(),
        };
        let to = if to.is_empty() { ".".to_owned() } else { to };
        let name = inputs.get("name").filter(|name| !name.is_empty()).cloned();
        let pattern = inputs.get("pattern").cloned();
        let merge = inputs.get("merge-multiple").is_some_and(|value| value == "true");
        let (root, folder) = (self.world.hands.root.clone(), self.artifacts());
        let target = to.clone();
        let done = tokio::task::spawn_blocking(move || match name {
            Some(name) => download(&root, &folder, &name, &target),
            None => {
                let mut files = 0;
                for name in names(&folder, pattern.as_deref())? {
                    let to = if merge { target.clone() } else { format!("{target}/{name}") };
                    files += download(&root, &folder, &name, &to)?;
                }
                Ok(files)
            }
        });
        match done.await.unwrap_or_else(|e| Err(e.to_string())) {
            Err(error) => Ended::error(error),
            Ok(files) => {
                command.events.log(Level::Info, &format!("Artifact: {files} files")).await;
                let mut left = Left::default();
                left.outputs
                    .insert("download-path".into(), workspace.join(to).to_string_lossy().into_owned());
                Ended { left, ..Ended::with(StepState::Success) }
            }
        }
    }
}

fn is_name(name: &str) -> Result<(), String> {
    let is_good = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && !name.contains(['/', '\\', '"', ':', '<', '>', '|', '*', '?'])
        && !name.contains(char::is_control);
    if is_good { Ok(()) } else { Err("the name of an artifact is a file's name".into()) }
}

/// Files that patterns name, one a line; what begins with `!` is left out. Folders stand for all below
/// them.
pub(super) fn files_of(root: &Root, patterns: &str) -> Result<BTreeSet<PathBuf>, String> {
    let mut found = BTreeSet::new();
    for line in patterns.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (pattern, is_out) = match line.strip_prefix('!') {
            Some(pattern) => (pattern, true),
            None => (line, false),
        };
        let own = root.path().to_string_lossy().into_owned();
        let pattern = pattern.strip_prefix(&own).unwrap_or(pattern).trim_start_matches('/');
        let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
        let pattern = if pattern.is_empty() { "." } else { pattern };
        let paths = match pattern {
            "." => vec![PathBuf::from(".")],
            pattern => root.glob(pattern).map_err(|error| error.to_string())?,
        };
        for path in paths {
            let text = path.to_string_lossy().into_owned();
            let is_dir = root.stat(&text).is_ok_and(|meta| meta.is_dir);
            let below = match is_dir {
                true => root.list(&text, true, &[".git".into()]).map_err(|error| error.to_string())?,
                false => Vec::new(),
            };
            let files = below.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.path);
            for file in files.chain((!is_dir).then_some(path)) {
                if is_out {
                    found.remove(&file)
                } else {
                    found.insert(file)
                };
            }
            if found.len() > MAX_FILES {
                return Err(format!("more than {MAX_FILES} files"));
            }
        }
    }
    Ok(found)
}

/// The folder that all of them have in common.
fn common(files: &BTreeSet<PathBuf>) -> PathBuf {
    let mut all = files.iter().map(|file| file.parent().unwrap_or(Path::new("")).to_owned());
    let Some(first) = all.next() else { return PathBuf::new() };
    all.fold(first, |common, dir| {
        common.components().zip(dir.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    })
}

fn file_of(folder: &Path, name: &str, ending: &str) -> PathBuf {
    folder.join(format!("{}.{ending}", legwork_base::digest::sha256(name)))
}

fn upload(root: &Root, folder: &Path, name: &str, patterns: &str, overwrite: bool) -> Result<usize, String> {
    let files = files_of(root, patterns)?;
    if files.is_empty() {
        return Ok(0);
    }
    let failed = |e: std::io::Error| format!("the artifact can't be kept: {e}");
    std::fs::create_dir_all(folder).map_err(failed)?;
    let (archive, note) = (file_of(folder, name, "tar.zst"), file_of(folder, name, "json"));
    if note.exists() && !overwrite {
        return Err(format!("there is an artifact '{name}' already; give each a name of its own"));
    }
    if names(folder, None)?.len() >= MAX_ARTIFACTS {
        return Err(format!("a task may have {MAX_ARTIFACTS} artifacts"));
    }
    let list: Vec<PathBuf> = files.iter().cloned().collect();
    let to = File::create(&archive).map_err(failed)?;
    root.pack_listed(&list, to, &mut |_, _| {}).map_err(|error| error.to_string())?;
    let told = serde_json::json!({"name": name, "folder": common(&files), "files": files.len()});
    std::fs::write(note, told.to_string()).map_err(failed)?;
    Ok(files.len())
}

fn names(folder: &Path, pattern: Option<&str>) -> Result<Vec<String>, String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(_) => return Ok(Vec::new()),
    };
    let mut names = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|ending| ending == "json")
            && let Some(name) = note_of(&path).and_then(|note| Some(note.get("name")?.as_str()?.to_owned()))
            && pattern.is_none_or(|pattern| fits(pattern, &name))
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).any(|at| tail.is_char_boundary(at) && fits(rest, &tail[at..]))
        }),
    }
}

fn note_of(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Puts an artifact's files below a folder.
fn download(root: &Root, folder: &Path, name: &str, to: &str) -> Result<usize, String> {
    if Path::new(to).is_absolute() {
        return Err(format!("path: '{to}' lies outside of the workspace"));
    }
    let note =
        note_of(&file_of(folder, name, "json")).ok_or_else(|| format!("there is no artifact '{name}'"))?;
    let common = note.get("folder").and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    // Aside first: an artifact is its files below the folder that they have in common.
    let aside = format!(".legwork-artifact-{:016x}", random::bits());
    let unpacked = unpack(root, &aside, &file_of(folder, name, "tar.zst"));
    let moved = unpacked.map_err(|e| format!("the artifact '{name}': {e}")).and_then(|_| {
        let base = Path::new(&aside).join(&common);
        let mut files = 0;
        for entry in root.list(&base.to_string_lossy(), true, &[]).map_err(|e| e.to_string())? {
            let Ok(inner) = entry.path.strip_prefix(&base) else { continue };
            if entry.is_dir || inner.as_os_str().is_empty() {
                continue;
            }
            let target = Path::new(to).join(inner);
            if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                let parent = parent.to_string_lossy();
                if !root.stat(&parent).is_ok_and(|meta| meta.is_dir) {
                    root.make_dir(&parent).map_err(|e| e.to_string())?;
                }
            }
            root.rename(&entry.path.to_string_lossy(), &target.to_string_lossy(), true)
                .map_err(|e| e.to_string())?;
            files += 1;
        }
        Ok(files)
    });
    let _ = root.remove(&aside);
    moved
}

/// Unpacks an archive of ours below a folder.
pub(super) fn unpack(root: &Root, to: &str, archive: &Path) -> Result<u64, ArchiveError> {
    let file = File::open(archive)?;
    let size = file.metadata()?.len();
    let bounds = Bounds { bytes: 16 << 30, entries: MAX_FILES as u64 * 2, ratio: 1000 };
    root.unpack(to, Format::TarZst, file, size, bounds).map(|packed| packed.entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_come_back_as_they_went() {
        let dir = tempfile::tempdir().expect("dir");
        let (workspace, folder) = (dir.path().join("ws"), dir.path().join("artifacts"));
        std::fs::create_dir_all(workspace.join("out/deep")).expect("dirs");
        std::fs::write(workspace.join("out/a.txt"), "a").expect("file");
        std::fs::write(workspace.join("out/deep/b.txt"), "b").expect("file");
        let root = Root::open(&workspace).expect("root");
        assert_eq!(upload(&root, &folder, "one", "out\n!**/b.txt", false), Ok(1));
        assert_eq!(upload(&root, &folder, "all", "./out/", false), Ok(2));
        assert!(upload(&root, &folder, "all", "out", false).is_err_and(|e| e.contains("already")));
        assert_eq!(upload(&root, &folder, "none", "nothing/**", false), Ok(0));
        assert_eq!(download(&root, &folder, "all", "back/here"), Ok(2));
        assert_eq!(std::fs::read_to_string(workspace.join("back/here/deep/b.txt")).expect("b"), "b");
        assert!(download(&root, &folder, "no", ".").is_err_and(|e| e.contains("no artifact 'no'")));
        // Nothing leads out of the workspace, by a path or by a link.
        std::os::unix::fs::symlink(dir.path(), workspace.join("link")).expect("link");
        for to in ["..", "../x", "link/x", "/tmp/x"] {
            assert!(download(&root, &folder, "all", to).is_err(), "{to}");
        }
        assert!(!dir.path().join("x").exists());
        // What is no archive is said to be none, and leaves nothing.
        std::fs::write(file_of(&folder, "all", "tar.zst"), "junk").expect("junk");
        assert!(download(&root, &folder, "all", "junk").is_err());
        let left = std::fs::read_dir(&workspace).expect("ws").flatten();
        assert!(!left.into_iter().any(|e| e.file_name().to_string_lossy().starts_with(".legwork")));
        assert!(fits("a-*-c", "a-b-c") && !fits("a-*", "b"));
        assert!(is_name("../x").is_err() && is_name("a\n").is_err() && is_name("lib-1.0 x").is_ok());
    }
}
