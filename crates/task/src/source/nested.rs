//! Repositories within the workspace, as `cargo new` and `npm create` make them: their files are
//! results like all others. To git itself such a folder is one entry, or an error where nothing is
//! committed in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use legwork_proto::task::Level;

use super::Porter;
use super::git::MAX_SAID;

/// Most repositories within a workspace whose files are brought back.
const MAX_NESTED: usize = 64;

impl Porter<'_> {
    /// Takes the workspace as it is now into the index of a repository of ours, or some of it: the
    /// files that git does not ignore, also those of repositories within. The folders of these.
    pub(super) async fn add_all(&self, dir: &Path, some: &[&str]) -> Result<Vec<String>, String> {
        self.forget_replaced(dir).await?;
        let within = self.list(dir, "", dir.join("index"), |_| {}).await?;
        self.add(dir, "", dir.join("index"), some, &within).await?;
        let (mut waiting, mut found) = (within, Vec::new());
        while let Some(folder) = waiting.pop() {
            if found.len() == MAX_NESTED {
                self.too_many(&folder).await;
                break;
            }
            let index = dir.join("index-within");
            let _ = std::fs::remove_file(&index);
            let deeper = self.list(dir, &folder, index.clone(), |_| {}).await?;
            self.add(dir, &folder, index.clone(), &[], &deeper).await?;
            let more = within_of(dir, index, self.folder(&folder));
            let tree = self.git_in(&folder, &["write-tree"], more, MAX_SAID).await?;
            let literal = format!(":(literal){folder}");
            let args = ["rm", "--quiet", "--cached", "-r", "--ignore-unmatch", "--", &literal];
            self.git_beside(dir, &args, MAX_SAID).await?;
            let prefix = format!("--prefix={folder}/");
            self.git_beside(dir, &["read-tree", &prefix, tree.trim()], MAX_SAID).await?;
            waiting.extend(deeper);
            found.push(folder);
        }
        Ok(found)
    }

    /// Gives the name of each file that git does not ignore, also in repositories within. (In a
    /// repository of ours that knows no file yet.) The folders of these.
    pub(super) async fn each_file(
        &self,
        dir: &Path,
        mut each: impl FnMut(&[u8]) + Send,
    ) -> Result<Vec<String>, String> {
        let (mut waiting, mut found) = (vec![String::new()], Vec::new());
        while let Some(folder) = waiting.pop() {
            if found.len() > MAX_NESTED {
                self.too_many(&folder).await;
                break;
            }
            let deeper = self.list(dir, &folder, dir.join("index-within"), &mut each).await?;
            waiting.extend(deeper);
            found.push(folder);
        }
        Ok(found.split_off(1))
    }

    /// Takes files out of an index where folders are now: git does not list one as new that is a
    /// repository.
    async fn forget_replaced(&self, dir: &Path) -> Result<(), String> {
        let args = ["diff-files", "-z", "--name-only", "--diff-filter=DT"];
        let (root, mut rest, mut folders) = (self.hands.root.path(), Vec::<u8>::new(), Vec::new());
        let take = |data: &[u8]| {
            each_name(&mut rest, data, |name| {
                let name = std::str::from_utf8(name).ok();
                let name = name.filter(|name| root.join(name).symlink_metadata().is_ok_and(|m| m.is_dir()));
                folders.extend(name.map(|name| format!(":(literal){name}")));
            });
        };
        self.git_each("", &args, self.beside(dir), take).await?;
        for some in folders.chunks(100) {
            let some = some.iter().map(String::as_str);
            let args: Vec<&str> = ["rm", "--quiet", "--cached", "--"].into_iter().chain(some).collect();
            self.git_beside(dir, &args, MAX_SAID).await?;
        }
        Ok(())
    }

    /// Says which files are told without the history that they have.
    pub(super) async fn say_nested(&self, folders: &[String]) {
        if !folders.is_empty() {
            let folders = folders.join(", ");
            let text =
                format!("Result: files of git repositories within come without their history: {folders}");
            self.events.log(Level::Info, &text).await;
        }
    }

    async fn too_many(&self, folder: &str) {
        let text = format!(
            "Result: there are more than {MAX_NESTED} git repositories in the workspace; {folder} and others are left out"
        );
        self.events.log(Level::Error, &text).await;
    }

    /// In a repository within, what the workspace itself ignores is ignored as well.
    fn ignored(&self, folder: &str) -> String {
        match folder.is_empty() {
            true => "core.excludesFile=/dev/null".to_owned(),
            false => format!("core.excludesFile={}", self.folder(".gitignore")),
        }
    }

    fn folder(&self, folder: &str) -> String {
        self.hands.root.path().join(folder).to_string_lossy().into_owned()
    }

    /// Gives what an index does not know and git does not ignore, below a folder of the workspace;
    /// the folders there that are repositories.
    async fn list(
        &self,
        dir: &Path,
        folder: &str,
        index: PathBuf,
        mut each: impl FnMut(&[u8]) + Send,
    ) -> Result<Vec<String>, String> {
        let (mut within, mut strange, mut rest) = (Vec::new(), Vec::new(), Vec::<u8>::new());
        let start = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let take = |data: &[u8]| {
            each_name(&mut rest, data, |name| {
                let name = [start.as_bytes(), name].concat();
                match (name.strip_suffix(b"/"), std::str::from_utf8(&name)) {
                    (None, _) => each(&name),
                    (Some(_), Ok(text)) => within.push(text.trim_end_matches('/').to_owned()),
                    (Some(_), Err(_)) => strange.push(String::from_utf8_lossy(&name).into_owned()),
                }
            });
        };
        let more = within_of(dir, index, self.folder(folder));
        let ignored = self.ignored(folder);
        let args = ["-c", &ignored, "ls-files", "-z", "--others", "--exclude-standard"];
        self.git_each(folder, &args, more, take).await?;
        if !strange.is_empty() {
            let text = format!("Result: left out, as their names are no UTF-8: {}", strange.join(", "));
            self.events.log(Level::Error, &text).await;
        }
        Ok(within)
    }

    /// Adds what is below a folder to an index, but for the folders in it.
    async fn add(
        &self,
        dir: &Path,
        folder: &str,
        index: PathBuf,
        some: &[&str],
        but: &[String],
    ) -> Result<(), String> {
        let but = but.iter().map(|path| {
            let path = path.strip_prefix(folder).unwrap_or(path).trim_start_matches('/');
            format!(":(exclude,literal){path}")
        });
        let but: Vec<String> = but.collect();
        let all: &[&str] = &["."];
        let ignored = self.ignored(folder);
        let mut args =
            [&["-c", &ignored, "add", "--all", "--"][..], if some.is_empty() { all } else { some }].concat();
        args.extend(but.iter().map(String::as_str));
        let more = within_of(dir, index, self.folder(folder));
        self.git_in(folder, &args, more, MAX_SAID).await.map(drop)
    }
}

/// A repository of ours with a folder as its tree, and an index of its own.
fn within_of(dir: &Path, index: PathBuf, folder: String) -> BTreeMap<String, String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    BTreeMap::from([
        ("GIT_DIR".to_owned(), text(dir)),
        ("GIT_WORK_TREE".to_owned(), folder),
        ("GIT_INDEX_FILE".to_owned(), text(&index)),
    ])
}

/// Gives each name of a list, parted by zeros, that comes in pieces.
fn each_name(rest: &mut Vec<u8>, data: &[u8], mut each: impl FnMut(&[u8])) {
    rest.extend_from_slice(data);
    let done = rest.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
    rest[..done].split(|byte| *byte == 0).filter(|name| !name.is_empty()).for_each(&mut each);
    rest.drain(..done);
}
