//! What a task works on, where it brings that along: a tree that comes with the task, or a git
//! repository; and what it brings back: a diff, a branch, files.
//!
//! git runs behind the task's own walls, with no configuration but what is said here: neither the
//! machine's nor a repository's can have it run anything.

mod back;
mod git;
mod held;
mod nested;
mod pieces;
mod read;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_base::Secret;
use legwork_proto::task::Level;
use legwork_runner::Requester;
use legwork_workspace::{Bounds, Format};

use crate::abort::Abort;
use crate::events::Events;
use crate::hands::{Hands, command_file};
use crate::settings::Settings;
use git::MAX_SAID;
pub(crate) use pieces::PieceStore;
pub(crate) use read::Around;
use read::Source;

/// Where the secret named NAME comes from: of the runner's environment, the variable of this
/// beginning and NAME.
pub(crate) const SECRET: &str = "LEGWORK_SECRET_";
/// Stands in a task's folder when its source is there: the tree that a diff is made against.
const BASE: &str = "base";
/// The same where that is a repository: the commit that it was.
const COMMIT: &str = "commit";
/// Large outputs that we put into the workspace ourselves.
const OURS: &str = ".work/";

/// Brings in a source, and brings out a result.
pub(crate) struct Porter<'a> {
    pub(crate) around: &'a Around,
    pub(crate) settings: &'a Settings,
    pub(crate) hands: &'a Hands,
    pub(crate) events: &'a Events,
    pub(crate) requester: &'a Requester,
    pub(crate) abort: &'a Abort,
    /// The task's folder.
    pub(crate) dir: &'a Path,
    /// Secrets that came with the task.
    pub(crate) secrets: &'a BTreeMap<String, Secret>,
    /// Where the hub has trees.
    pub(crate) store: Option<PieceStore>,
}

impl Porter<'_> {
    /// Puts the source in place, once, and notes what a diff is to be made against.
    pub(crate) async fn bring(&self) -> Result<(), String> {
        let Around { source, wanted } = self.around;
        let noted = self.dir.join(BASE);
        if (source.is_none() && !wanted.diff) || noted.exists() {
            return Ok(());
        }
        let failed = |e: std::io::Error| format!("failed to note the source: {e}");
        if let Some(source) = source {
            let root = self.hands.root.path();
            let is_empty = std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none());
            // What an earlier process of this task had begun to put there is replaced.
            let begun = self.dir.join("source");
            if !is_empty && !begun.exists() {
                return Err(format!("the task brings its source, but {} is not empty", root.display()));
            }
            std::fs::write(&begun, "").map_err(failed)?;
            match source {
                Source::Archive(text) => self.unpack(text).await?,
                Source::Tree(digest) => self.plant(*digest).await?,
                Source::Git(repository) => {
                    let commit = self.fetch(repository).await?;
                    std::fs::write(self.dir.join(COMMIT), commit).map_err(failed)?;
                }
            }
        }
        let base = if wanted.diff { self.tree().await?.0 } else { String::new() };
        std::fs::write(noted, base).map_err(failed)
    }

    async fn unpack(&self, text: &str) -> Result<(), String> {
        let bytes = STANDARD.decode(text).map_err(|e| format!("source.archive is no base64: {e}"))?;
        let root = self.hands.root.clone();
        let unpacked = tokio::task::spawn_blocking(move || {
            let size = bytes.len() as u64;
            root.unpack(".", Format::TarZst, Cursor::new(bytes), size, Bounds::default())
        });
        let packed =
            unpacked.await.map_err(|e| e.to_string())?.map_err(|e| format!("source.archive: {e}"))?;
        let text = format!("Source: {} files and folders, {} bytes", packed.entries, packed.bytes);
        self.events.log(Level::Info, &text).await;
        Ok(())
    }

    /// The tree of the workspace as it is now, what git ignores left out; and the folders in it that
    /// are repositories of their own.
    async fn tree(&self) -> Result<(String, Vec<String>), String> {
        let dir = self.repository_dir();
        if !dir.join("HEAD").exists() {
            self.make_repository(&dir).await?;
        }
        let nested = self.add_all(&dir, &[]).await?;
        Ok((self.git_beside(&dir, &["write-tree"], MAX_SAID).await?, nested))
    }

    /// A repository of our own beside the workspace.
    fn repository_dir(&self) -> PathBuf {
        command_file(&self.settings.scratch(), "tree", &self.dir.to_string_lossy())
    }
}
