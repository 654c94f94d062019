//! The checkout that somebody stands in: sent along with a task, and changed by what comes back.
//!
//! A checkout may be somebody else's work, its configuration included. git is asked only for the
//! list of files, with everything off that could run something; and a diff is applied without the
//! checkout's own repository, which may name programs that files are to be passed through.

mod trees;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_workspace::Root;
use serde_json::{Value, json};

/// The largest archive that goes along with a task: it stands in the task's JSON.
const MAX_ARCHIVE: usize = 24 << 20;

/// A checkout.
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The one around a folder.
    pub(crate) fn around(folder: &Path) -> Option<Self> {
        let root = folder.ancestors().find(|above| above.join(".git").exists())?;
        Some(Self { root: root.to_owned() })
    }

    /// Adds the tree as it is, changes that are not committed included, to a task's own JSON: for hubs
    /// that take no trees.
    pub(crate) fn send_along(&self, config: &mut Value) -> Result<()> {
        let files = self.files()?;
        let root = Root::open(&self.root)?;
        let mut archive = Bounded::default();
        let packed = root.pack_listed(&files, &mut archive);
        if archive.is_full {
            return trees::too_large(&self.root, MAX_ARCHIVE);
        }
        let (packed, archive) = (packed?, archive.bytes);
        eprintln!("legwork: {} ({} KiB)", go_along(packed.entries, &self.root), archive.len().div_ceil(1024));
        config["source"] = json!({"archive": STANDARD.encode(archive)});
        Ok(())
    }

    /// What git knows, and what it does not ignore.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let listed = git(&self.root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"])
            .stderr(Stdio::inherit())
            .output()
            .context("git is needed to know which files belong to the checkout")?;
        if !listed.status.success() {
            bail!("git ls-files failed in {}", self.root.display());
        }
        let paths = listed.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let paths = paths.map(|path| String::from_utf8(path.to_vec()).map(PathBuf::from));
        paths.collect::<Result<_, _>>().context("a file's name is no UTF-8")
    }

    /// Does with a diff what was asked for: applies it, or tells where it is.
    pub(crate) fn bring_home(&self, diff: &str, apply: bool) -> Result<bool> {
        if diff.is_empty() {
            eprintln!("legwork: nothing was changed");
            return Ok(true);
        }
        let kept = keep(diff)?;
        let changed = diff.lines().filter(|line| line.starts_with("diff --git ")).count();
        let files = if changed == 1 { "file" } else { "files" };
        if !apply {
            eprintln!(
                "legwork: {changed} {files} changed; look at {0}, and take it over with: git apply {0}",
                kept.display()
            );
            return Ok(true);
        }
        let here = tempfile::Builder::new().prefix("legwork-apply-").tempdir()?;
        let run = |args: &[&str]| {
            // A repository of ours, and the checkout as its work tree.
            git(&self.root)
                .env("GIT_DIR", here.path())
                .env("GIT_WORK_TREE", &self.root)
                .args(args)
                .stdin(Stdio::null())
                .stderr(Stdio::inherit())
                .stdout(Stdio::null())
                .status()
                .context("git is needed to apply a diff")
        };
        let path = kept.to_string_lossy();
        let is_ready = run(&["init", "--quiet"])?.success();
        // Bytes as they are, whatever a .gitattributes says.
        let info = here.path().join("info");
        std::fs::create_dir_all(&info)?;
        std::fs::write(info.join("attributes"), "* -text !eol !filter !working-tree-encoding !ident\n")?;
        // It is applied as a whole or not at all.
        if !is_ready || !run(&["apply", "--whitespace=nowarn", &path])?.success() {
            eprintln!(
                "legwork: the diff does not fit: files have changed since. Nothing was applied; it is in {path}"
            );
            return Ok(false);
        }
        eprintln!("legwork: {changed} {files} changed in {}; the diff is in {path}", self.root.display());
        Ok(true)
    }
}

/// That so many files of a checkout go along.
fn go_along(files: impl std::fmt::Display, root: &Path) -> String {
    match files.to_string().as_str() {
        "1" => format!("1 file of {} goes along", root.display()),
        files => format!("{files} files of {} go along", root.display()),
    }
}

/// An archive in the making, which does not outgrow what may go along.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        self.is_full |= self.bytes.len() + more.len() > MAX_ARCHIVE;
        if self.is_full {
            return Err(std::io::Error::other("the archive is too large"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// git, in a folder, with nothing on that a repository could have run.
#[expect(clippy::disallowed_methods, reason = "a person's own git, on a person's own checkout")]
fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
    for setting in ["core.fsmonitor=false", "core.hooksPath=/dev/null", "core.untrackedCache=false"] {
        command.args(["-c", setting]);
    }
    command
}

/// Where a diff is kept.
fn keep(diff: &str) -> Result<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    let folder = state.unwrap_or_else(std::env::temp_dir).join("legwork/diffs");
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let mut file = tempfile::Builder::new().prefix("task-").suffix(".diff").tempfile_in(&folder)?;
    file.write_all(diff.as_bytes())?;
    Ok(file.into_temp_path().keep()?)
}

/// Puts a diff together from the events that tell it.
#[derive(Default)]
pub(crate) struct Gathered {
    text: String,
    is_whole: bool,
}

impl Gathered {
    /// Takes in an event; others than those of a diff pass by.
    pub(crate) fn take(&mut self, event: &Value) {
        if event["type"] == "result" && event["kind"] == "diff" {
            if event["part"] == 0 {
                self.text.clear();
            }
            self.text.push_str(event["text"].as_str().unwrap_or_default());
            self.is_whole = event["last"] == true;
        }
    }

    /// The diff, if all of it came.
    pub(crate) fn diff(&self) -> Option<&str> {
        self.is_whole.then_some(self.text.as_str())
    }
}
