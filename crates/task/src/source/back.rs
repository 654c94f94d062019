//! What a task brings back.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_proto::task::{Body, Level, ResultKind};

use super::git::MAX_SAID;
use super::read::{Branch, Repository, Source};
use super::{BASE, COMMIT, OURS, Porter};
use crate::events::floor;
use crate::hands::command_file;

/// The largest result of a kind, and the text of one event of it. Bytes go as base64, and a part of
/// them is whole groups of that.
const MAX_RESULT: usize = 32 << 20;
const PART: usize = 256 * 1024;
/// Who wrote the commit of a branch.
const AUTHOR: [&str; 4] = ["-c", "user.name=Legwork", "-c", "user.email=legwork@localhost"];

impl Porter<'_> {
    /// Tells what was made, whether the task succeeded or not.
    pub(crate) async fn take(&self) -> Result<(), String> {
        let wanted = &self.around.wanted;
        if wanted.diff {
            let diff = self.diff().await?;
            self.tell(ResultKind::Diff, &diff).await;
            let _ = std::fs::remove_dir_all(self.repository_dir());
        }
        if wanted.archive {
            let files = self.all_files().await?;
            self.tell_files(ResultKind::Archive, files).await?;
        }
        if !wanted.artifacts.is_empty() {
            let files = self.artifacts().await?;
            self.tell_files(ResultKind::Artifacts, files).await?;
        }
        Ok(())
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
        if !repository.sparse.is_empty() {
            // What was never there was not removed.
            let folders: Vec<&str> = repository.sparse.iter().map(String::as_str).collect();
            beside(&[&["add", "--all", "--", ":(glob)*"][..], &folders].concat()).await?;
        } else {
            beside(&["add", "--all", "."]).await?;
        }
        let (tree, old) =
            (beside(&["write-tree"]).await?, beside(&["rev-parse", &format!("{base}^{{tree}}")]).await?);
        if tree.trim() == old.trim() {
            return Ok(None);
        }
        let message = self.events.masks.apply(branch.message.clone());
        let commit = [&AUTHOR[..], &["commit-tree", tree.trim(), "-p", base, "-m", &message]].concat();
        let commit = beside(&commit).await?;
        let target = format!("{}:refs/heads/{}", commit.trim(), branch.name);
        self.git_opened(dir, &opener, &["push", "--quiet", "--no-verify", url, &target]).await?;
        Ok(Some(commit.trim().to_owned()))
    }

    async fn diff(&self) -> Result<String, String> {
        let base = std::fs::read_to_string(self.dir.join(BASE)).map_err(|e| e.to_string())?;
        let now = self.tree().await?;
        let args = [
            "diff-tree",
            "--binary",
            "--full-index",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            // Whoever applies it takes none that copies: git looks at no name that is copied from.
            "--no-renames",
            "-r",
            "-p",
        ];
        let args = [&args[..], &[base.trim(), now.trim()]].concat();
        let diff = self.git_beside(&self.repository_dir(), &args, MAX_RESULT).await?;
        Ok(self.events.masks.apply(diff))
    }

    /// What git does not ignore.
    async fn all_files(&self) -> Result<Vec<PathBuf>, String> {
        let dir = command_file(&self.settings.scratch(), "list", &self.dir.to_string_lossy());
        let _ = std::fs::remove_dir_all(&dir);
        self.make_repository(&dir).await?;
        let args = ["ls-files", "-z", "--others", "--exclude-standard"];
        let listed = self.git_beside(&dir, &args, MAX_RESULT).await;
        let _ = std::fs::remove_dir_all(&dir);
        Ok(listed?.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect())
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
        let packed = tokio::task::spawn_blocking(move || {
            let mut to = Bounded(Vec::new());
            root.pack_listed(&files, &mut to).map(|_| to.0).map_err(|e| e.to_string())
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
