//! What a task brings back.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::task::{Body, Level, ResultKind};

use super::git::MAX_SAID;
use super::held::{Held, HeldInDiff};
use super::read::{Branch, Repository, Source};
use super::{BASE, COMMIT, OURS, Porter};
use crate::events::floor;
use crate::hands::command_file;

/// The largest result of a kind, and the text of one event of it. Bytes go as base64, and a part of
/// them is whole groups of that.
const MAX_RESULT: usize = 32 << 20;
const PART: usize = 256 * 1024;
/// Whoever applies it takes none that copies or renames: git looks at no name that is copied from.
const DIFF: [&str; 9] = [
    "diff-tree",
    "--binary",
    "--full-index",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--no-renames",
    "-r",
    "-p",
];
/// How a file that is no text stands in a diff.
const BINARY: &[u8] = b"\nGIT binary patch\n";
/// Who wrote the commit of a branch.
const AUTHOR: [&str; 4] = ["-c", "user.name=Legwork", "-c", "user.email=legwork@localhost"];

impl Porter<'_> {
    /// Tells what was made, whether the task succeeded or not. A result that fails costs none of
    /// the others.
    pub(crate) async fn take(&self) -> Result<(), String> {
        let wanted = &self.around.wanted;
        let mut failed = Vec::new();
        let mut note = |what: &str, done: Result<(), String>| {
            if let Err(reason) = done {
                failed.push(format!("{what}: {reason}"));
            }
        };
        if wanted.diff {
            note("diff", self.take_diff().await);
            let _ = std::fs::remove_dir_all(self.repository_dir());
        }
        if wanted.archive {
            note("archive", self.take_archive().await);
        }
        if !wanted.artifacts.is_empty() {
            note("artifacts", self.take_artifacts().await);
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    async fn take_archive(&self) -> Result<(), String> {
        let files = self.all_files().await?;
        self.tell_files(ResultKind::Archive, files).await
    }

    async fn take_artifacts(&self) -> Result<(), String> {
        let files = self.artifacts().await?;
        self.tell_files(ResultKind::Artifacts, files).await
    }

    /// Pushes the branch of a task that succeeded. To be called when nothing of the task runs any
    /// more: what could be changed by it would be believed.
    pub(crate) async fn push(&self) -> Result<(), String> {
        let (Some(branch), Some(Source::Git(repository))) = (&self.around.wanted.branch, &self.around.source)
        else {
            return Ok(());
        };
        // Not the repository in the workspace: its configuration is the task's.
        let dir = command_file(&self.settings.scratch(), "push", &self.dir.to_string_lossy());
        let _ = std::fs::remove_dir_all(&dir);
        let pushed = self.push_from(&dir, branch, repository).await;
        let _ = std::fs::remove_dir_all(&dir);
        match pushed? {
            Some(commit) => {
                let text = format!("{} {commit}", branch.name);
                self.events.tell(Body::Result { kind: ResultKind::Branch, text, part: 0, last: true }).await;
            }
            None => self.events.log(Level::Info, "Nothing was changed: no branch was pushed").await,
        }
        Ok(())
    }

    /// The commit that was pushed; `None` if nothing was changed.
    async fn push_from(
        &self,
        dir: &std::path::Path,
        branch: &Branch,
        repository: &Repository,
    ) -> Result<Option<String>, String> {
        let base = std::fs::read_to_string(self.dir.join(COMMIT)).map_err(|e| e.to_string())?;
        let base = base.trim();
        self.make_repository(dir).await?;
        let opener = self.opener(repository)?;
        let url = repository.url.as_str();
        self.git_opened(dir, &opener, &["fetch", "--quiet", "--no-tags", "--depth=1", url, base]).await?;
        let beside = async |args: &[&str]| self.git_beside(dir, args, MAX_SAID).await;
        beside(&["read-tree", base]).await?;
        // What was never there was not removed.
        let some: Vec<&str> = match repository.sparse.is_empty() {
            true => Vec::new(),
            false => [":(glob)*"].into_iter().chain(repository.sparse.iter().map(String::as_str)).collect(),
        };
        let nested = self.add_all(dir, &some).await?;
        let (tree, old) =
            (beside(&["write-tree"]).await?, beside(&["rev-parse", &format!("{base}^{{tree}}")]).await?);
        if tree.trim() == old.trim() {
            return Ok(None);
        }
        self.say_nested(&nested).await;
        let message = branch.message.as_str();
        let mut held = HeldInDiff::new(&self.events.masks);
        held.take(format!("diff --git a/(its message) b/(its message)\n{message}\n").as_bytes());
        let mut args = [&DIFF[..], &["--text", old.trim(), tree.trim()]].concat();
        args.retain(|arg| *arg != "--binary");
        self.git_each("", &args, self.beside(dir), |data| held.take(data)).await?;
        held.end().map_err(|reason| format!("branch: {reason}"))?;
        let commit = [&AUTHOR[..], &["commit-tree", tree.trim(), "-p", base, "-m", message]].concat();
        let commit = beside(&commit).await?;
        let target = format!("{}:refs/heads/{}", commit.trim(), branch.name);
        self.git_opened(dir, &opener, &["push", "--quiet", "--no-verify", url, &target]).await?;
        Ok(Some(commit.trim().to_owned()))
    }

    async fn take_diff(&self) -> Result<(), String> {
        let base = std::fs::read_to_string(self.dir.join(BASE)).map_err(|e| e.to_string())?;
        let (now, nested) = self.tree().await?;
        self.say_nested(&nested).await;
        let (base, now) = (base.trim(), now.trim());
        let dir = self.repository_dir();
        let args = [&DIFF[..], &[base, now]].concat();
        let mut diff = self.bytes_beside(&dir, &args, MAX_RESULT).await?;
        let is_text = std::str::from_utf8(&diff).is_ok();
        let mut held = HeldInDiff::new(&self.events.masks);
        if is_text && memchr::memmem::find(&diff, BINARY).is_none() {
            held.take(&diff);
        } else {
            // What is packed in it is looked at as well.
            let mut args = [&DIFF[..], &["--text", base, now]].concat();
            args.retain(|arg| *arg != "--binary");
            self.git_each("", &args, self.beside(&dir), |data| held.take(data)).await?;
        }
        held.end()?;
        if !is_text {
            self.tell_bytes(&dir)?;
            let text = "Result: some of what was changed is no UTF-8, so the diff tells all of it as bytes";
            self.events.log(Level::Info, text).await;
            diff = self.bytes_beside(&dir, &args, MAX_RESULT).await?;
        }
        let diff = String::from_utf8(diff).map_err(|_| "it is no UTF-8")?;
        self.tell(ResultKind::Diff, &diff).await;
        Ok(())
    }

    /// What git does not ignore.
    async fn all_files(&self) -> Result<Vec<PathBuf>, String> {
        let dir = command_file(&self.settings.scratch(), "list", &self.dir.to_string_lossy());
        let _ = std::fs::remove_dir_all(&dir);
        self.make_repository(&dir).await?;
        let (mut files, mut strange, mut size) = (Vec::new(), Vec::new(), 0);
        let each = |name: &[u8]| {
            size += name.len();
            match std::str::from_utf8(name) {
                _ if size > MAX_RESULT => {}
                Ok(name) => files.push(PathBuf::from(name)),
                Err(_) => strange.push(String::from_utf8_lossy(name).into_owned()),
            }
        };
        let nested = self.each_file(&dir, each).await;
        let _ = std::fs::remove_dir_all(&dir);
        let nested = nested?;
        if size > MAX_RESULT {
            return Err(format!("the names of its files have more than {MAX_RESULT} bytes"));
        }
        if !self.around.wanted.diff {
            self.say_nested(&nested).await;
        }
        if !strange.is_empty() {
            strange.truncate(10);
            let text = format!("Result: left out, as their names are no UTF-8: {}", strange.join(", "));
            self.events.log(Level::Error, &text).await;
        }
        Ok(files)
    }

    async fn artifacts(&self) -> Result<Vec<PathBuf>, String> {
        let (root, patterns) = (self.hands.root.clone(), self.around.wanted.artifacts.clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for pattern in &patterns {
                found.extend(root.glob(pattern).map_err(|e| format!("result.artifacts: {pattern}: {e}"))?);
            }
            found.sort();
            found.dedup();
            Ok::<_, String>(found)
        });
        let mut found = found.await.map_err(|e| e.to_string())??;
        let root = self.hands.root.path();
        for path in &mut found {
            if let Ok(below) = path.strip_prefix(root) {
                *path = below.to_owned();
            }
        }
        found.retain(|path| !path.starts_with(OURS));
        Ok(found)
    }

    /// Tells files as a `.tar.zst`.
    async fn tell_files(&self, kind: ResultKind, files: Vec<PathBuf>) -> Result<(), String> {
        let (root, count) = (self.hands.root.clone(), files.len());
        let mut held = Held::new(&self.events.masks);
        let packed = tokio::task::spawn_blocking(move || {
            let mut to = Bounded(Vec::new());
            root.pack_listed(&files, &mut to, &mut |path, bytes| held.see(path, bytes))
                .map_err(|e| e.to_string())?;
            held.end().map(|()| to.0)
        });
        let bytes = packed.await.map_err(|e| e.to_string())??;
        let text = format!("Result: {count} files, {} bytes packed", bytes.len());
        self.events.log(Level::Info, &text).await;
        self.tell(kind, &STANDARD.encode(bytes)).await;
        Ok(())
    }

    async fn tell(&self, kind: ResultKind, text: &str) {
        let (mut rest, mut part) = (text, 0);
        loop {
            let (text, after) = rest.split_at(floor(rest, PART));
            rest = after;
            let last = rest.is_empty();
            self.events.tell(Body::Result { kind, text: text.to_owned(), part, last }).await;
            part += 1;
            if last {
                return;
            }
        }
    }
}

/// What does not grow beyond what may be told.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + more.len() > MAX_RESULT {
            return Err(std::io::Error::other(format!(
                "there are more than {MAX_RESULT} bytes to bring back"
            )));
        }
        self.0.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
