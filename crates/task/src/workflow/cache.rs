//! Caches: files that later runs find again. They are kept where `LEGWORK_CACHE_DIR` says, by the
//! repository and the key; without it, until the task ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use legwork_proto::task::{Level, StepState};
use legwork_workflow::{Builtin, Lookup};
use legwork_workspace::Root;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::artifacts::{files_of, unpack};
use super::run::Shared;
use super::step::{Command, Ended};
use crate::journal::Left;
use crate::random;

/// Most caches in a folder, and most bytes of all of them: the oldest give way.
const MOST: usize = 1000;
const MOST_BYTES: u64 = 10 << 30;

/// What is known of a cache.
#[derive(Serialize, Deserialize)]
struct Note {
    scope: String,
    key: String,
    /// Of the workspace's files, and of the home's.
    digests: [Option<String>; 2],
}

impl Shared<'_> {
    fn caches(&self) -> PathBuf {
        self.world.settings.cache.clone().unwrap_or_else(|| self.world.dir.join("cache"))
    }

    /// Restores or saves a cache; with what is to be kept when the job is over.
    pub(super) async fn cache(
        &self,
        how: Builtin,
        inputs: &BTreeMap<String, String>,
        command: &Command<'_>,
    ) -> (Ended, Option<(String, String)>) {
        let get = |name: &str| inputs.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
        let (key, paths) = (get("key"), get("path"));
        if key.is_empty() || paths.is_empty() || key.len() > 512 {
            return (Ended::error("a cache needs a path, and a key of at most 512 characters"), None);
        }
        if how == Builtin::CacheSave {
            self.keep_cache(&key, &paths, command).await;
            return (Ended::with(StepState::Success), None);
        }
        let keys: Vec<String> = std::iter::once(key.clone())
            .chain(get("restore-keys").lines().map(|line| line.trim().to_owned()))
            .filter(|key| !key.is_empty())
            .collect();
        let (folder, scope, roots) = (self.caches(), scope_of(command), self.roots());
        let found = tokio::task::spawn_blocking(move || restore(&folder, &scope, &keys, &roots));
        let found = found.await.unwrap_or_else(|e| Err(e.to_string()));
        let mut left = Left::default();
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let text = format!("warning: the cache is not used: {error}");
                command.events.log(Level::Info, &text).await;
                None
            }
        };
        let is_exact = found.as_ref() == Some(&key);
        left.outputs.insert("cache-hit".into(), is_exact.to_string());
        left.outputs.insert("cache-primary-key".into(), key.clone());
        left.outputs.insert("cache-matched-key".into(), found.clone().unwrap_or_default());
        let text = match &found {
            Some(key) => format!("Cache: {key} is restored"),
            None => "Cache: there is none for these keys".into(),
        };
        command.events.log(Level::Info, &text).await;
        if found.is_none() && get("fail-on-cache-miss") == "true" {
            return (Ended::error("there is no cache for these keys"), None);
        }
        let save =
            (how == Builtin::Cache && !is_exact && get("lookup-only") != "true").then_some((key, paths));
        (Ended { left, ..Ended::with(StepState::Success) }, save)
    }

    pub(super) async fn keep_cache(&self, key: &str, paths: &str, command: &Command<'_>) {
        let (folder, scope, roots) = (self.caches(), scope_of(command), self.roots());
        let (name, paths) = (key.to_owned(), paths.to_owned());
        let kept = tokio::task::spawn_blocking(move || keep(&folder, &scope, &name, &paths, &roots));
        let text = match kept.await.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(files) => format!("Cache: {files} files are kept as {key}"),
            Err(error) => format!("warning: the cache is not kept: {error}"),
        };
        command.events.log(Level::Info, &text).await;
    }

    /// The workspace, and the home of what steps run.
    fn roots(&self) -> [PathBuf; 2] {
        let hands = self.world.hands;
        let home = match hands.is_open() {
            true => self.world.settings.env.get("HOME").map(PathBuf::from),
            false => None,
        };
        [hands.root.path().to_owned(), home.unwrap_or_else(|| hands.place.home.clone())]
    }
}

/// Strangers' caches are not ours.
fn scope_of(command: &Command<'_>) -> String {
    command.scope.member("github", "repository").text()
}

/// Paths of the workspace, and those of the home without its name.
fn parted(paths: &str, roots: &[PathBuf; 2]) -> [String; 2] {
    let mut parts = [String::new(), String::new()];
    let home = roots[1].to_string_lossy().into_owned();
    for line in paths.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (sign, path) = line.strip_prefix('!').map_or(("", line), |path| ("!", path));
        let in_home = path.strip_prefix("~/").or_else(|| path.strip_prefix(&home));
        let (place, path) = in_home.map_or((0, path), |path| (1, path));
        parts[place].push_str(&format!("{sign}{path}\n"));
    }
    parts
}

fn file_of(folder: &Path, scope: &str, key: &str, ending: &str) -> PathBuf {
    folder.join(format!("{}.{ending}", legwork_base::digest::sha256(format!("{scope}\n{key}"))))
}

fn digest_of(path: &Path) -> std::io::Result<String> {
    let (mut file, mut digest, mut part) = (File::open(path)?, Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(legwork_base::digest::hex(digest.finalize())),
            len => digest.update(&part[..len]),
        }
    }
}

const ENDINGS: [&str; 2] = ["workspace", "home"];

fn keep(folder: &Path, scope: &str, key: &str, paths: &str, roots: &[PathBuf; 2]) -> Result<usize, String> {
    let failed = |e: std::io::Error| e.to_string();
    std::fs::create_dir_all(folder).map_err(failed)?;
    let note = file_of(folder, scope, key, "json");
    if note.exists() {
        return Err("there is one of that key already".into());
    }
    let (mut digests, mut count) = ([None, None], 0);
    for (place, patterns) in parted(paths, roots).iter().enumerate() {
        if patterns.is_empty() || !roots[place].is_dir() {
            continue;
        }
        let root = Root::open(&roots[place]).map_err(|e| e.to_string())?;
        let files: Vec<PathBuf> = files_of(&root, patterns)?.into_iter().collect();
        if files.is_empty() {
            continue;
        }
        count += files.len();
        let aside = folder.join(format!("{:016x}.part", random::bits()));
        let packed = File::create(&aside).map_err(failed).and_then(|to| {
            root.pack_listed(&files, to, &mut |_, _| {}).map_err(|e| e.to_string())?;
            let digest = digest_of(&aside).map_err(failed)?;
            std::fs::rename(&aside, file_of(folder, scope, key, ENDINGS[place])).map_err(failed)?;
            Ok(digest)
        });
        let _ = std::fs::remove_file(&aside);
        digests[place] = Some(packed?);
    }
    if count == 0 {
        return Err("there are no files in its paths".into());
    }
    let text = serde_json::to_vec(&Note { scope: scope.into(), key: key.into(), digests })
        .map_err(|e| e.to_string())?;
    // Last: what is noted is whole.
    let aside = folder.join(format!("{:016x}.part", random::bits()));
    std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, note)).map_err(failed)?;
    prune(folder);
    Ok(count)
}

/// The oldest give way.
fn prune(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some((meta.modified().ok()?, meta.len(), entry.path()))
        })
        .collect();
    files.sort();
    let (mut bytes, mut count): (u64, usize) = (files.iter().map(|file| file.1).sum(), files.len());
    for (_, len, path) in files {
        if bytes <= MOST_BYTES && count <= MOST * 3 {
            return;
        }
        let _ = std::fs::remove_file(path);
        (bytes, count) = (bytes - len, count - 1);
    }
}

/// The key of what was restored: the first one as a whole, each as a beginning; of several the newest.
fn restore(
    folder: &Path,
    scope: &str,
    keys: &[String],
    roots: &[PathBuf; 2],
) -> Result<Option<String>, String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut known: Vec<(SystemTime, Note)> = entries
        .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "json"))
        .take(MOST * 3)
        .filter_map(|entry| {
            let note: Note = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, note))
        })
        .filter(|(_, note)| note.scope == scope)
        .collect();
    known.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let exact = known.iter().find(|(_, note)| note.key == keys[0]);
    let found = exact.or_else(|| {
        keys.iter().find_map(|key| known.iter().find(|(_, note)| note.key.starts_with(key.as_str())))
    });
    let Some((_, note)) = found else { return Ok(None) };
    let damaged = |what: &str| {
        for ending in ["json", ENDINGS[0], ENDINGS[1]] {
            let _ = std::fs::remove_file(file_of(folder, scope, &note.key, ending));
        }
        Err(format!("it is damaged ({what}), and is removed"))
    };
    for (place, digest) in note.digests.iter().enumerate() {
        let Some(digest) = digest else { continue };
        let archive = file_of(folder, scope, &note.key, ENDINGS[place]);
        // Before a byte of it is unpacked.
        match digest_of(&archive) {
            Ok(found) if found == *digest => {}
            Ok(_) => return damaged("it is not what was kept"),
            Err(error) => return damaged(&error.to_string()),
        }
    }
    for (place, digest) in note.digests.iter().enumerate() {
        if digest.is_some() {
            std::fs::create_dir_all(&roots[place]).map_err(|e| e.to_string())?;
            let root = Root::open(&roots[place]).map_err(|e| e.to_string())?;
            let archive = file_of(folder, scope, &note.key, ENDINGS[place]);
            unpack(&root, ".", &archive).map_err(|e| e.to_string())?;
        }
    }
    Ok(Some(note.key.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_found_by_their_keys() {
        let dir = tempfile::tempdir().expect("dir");
        let roots = [dir.path().join("ws"), dir.path().join("home")];
        for root in &roots {
            std::fs::create_dir_all(root.join(".dep/x")).expect("dirs");
            std::fs::write(root.join(".dep/x/f"), root.to_string_lossy().as_bytes()).expect("file");
        }
        let folder = dir.path().join("cache");
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let find = |scope: &str, of: &[&str]| restore(&folder, scope, &keys(of), &roots);
        assert_eq!(find("r", &["k-1"]), Ok(None));
        assert_eq!(keep(&folder, "r", "k-1", "~/.dep\n.dep", &roots), Ok(2));
        assert!(keep(&folder, "r", "k-1", ".dep", &roots).is_err());
        assert!(keep(&folder, "r", "k-2", "nothing", &roots).is_err_and(|e| e.contains("no files")));
        for root in &roots {
            std::fs::remove_dir_all(root.join(".dep")).expect("remove");
        }
        assert_eq!(find("other", &["k-1"]), Ok(None));
        assert_eq!(find("r", &["k-9", "k-"]), Ok(Some("k-1".into())));
        for root in &roots {
            let text = std::fs::read_to_string(root.join(".dep/x/f")).expect("restored");
            assert_eq!(text, root.to_string_lossy());
        }
        // One that is damaged is not unpacked, and is gone.
        std::fs::write(file_of(&folder, "r", "k-1", "home"), "junk").expect("junk");
        assert!(find("r", &["k-1"]).is_err_and(|e| e.contains("damaged")));
        assert_eq!(find("r", &["k-1"]), Ok(None));
    }
}
