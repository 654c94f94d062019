//! The checkout that somebody stands in: sent along with a task, and changed by what comes back.
//!
//! A checkout may be somebody else's work, its configuration included. git is asked only for the
//! list of files, with everything off that could run something; and a diff is applied without the
//! checkout's own repository, which may name programs that files are to be passed through.

pub(crate) mod diff;
mod names;
mod trees;

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_workspace::Root;
use serde_json::{Value, json};

use super::lists::visible;

/// The largest archive that goes along with a task: it stands in the task's JSON.
const MAX_ARCHIVE: usize = 24 << 20;

/// The largest diff that is taken: no task of ours makes a larger one.
const MAX_DIFF: usize = 32 << 20;

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
        let packed = root.pack_listed(&files, &mut archive, &mut |_, _| {});
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
        let mut files = Vec::new();
        let (mut nested, mut strange) = (Vec::new(), Vec::new());
        for path in listed.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            match std::str::from_utf8(path) {
                Err(_) => strange.push(String::from_utf8_lossy(path)),
                // To git that is one entry, whatever is in it.
                Ok(path) if self.root.join(path).symlink_metadata().is_ok_and(|found| found.is_dir()) => {
                    nested.push(path.into());
                }
                Ok(path) => files.push(PathBuf::from(path)),
            }
        }
        stay_behind(&nested, "git repositories of their own");
        stay_behind(&strange, "names that are no UTF-8");
        Ok(files)
    }

    /// Does with a diff what was asked for: applies it, or tells where it is. It is kept below a
    /// folder either way; false if it is one that can't be applied, or should not be.
    pub(crate) fn bring_home(&self, diff: &str, apply: bool, state: &Path) -> Result<bool> {
        if diff.is_empty() {
            eprintln!("legwork: nothing was changed");
            return Ok(true);
        }
        let kept = keep(diff, state)?;
        let changes = match diff::read(diff) {
            Ok(changes) => changes,
            Err(reason) => {
                eprintln!(
                    "legwork: the diff is not one to apply, and nothing of it was: {reason}. Don't apply {} by hand",
                    kept.display()
                );
                return Ok(false);
            }
        };
        let changed = changes.len();
        let files = if changed == 1 { "file" } else { "files" };
        eprint!("{}", named(&changes));
        if !apply {
            eprintln!(
                "legwork: {changed} {files} changed; look at {0}, and take it over with: git apply {0}",
                kept.display()
            );
            return Ok(true);
        }
        if !self.apply(&kept)? {
            eprintln!(
                "legwork: the diff does not fit: files have changed since. Nothing was applied; it is in {}",
                kept.display()
            );
            return Ok(false);
        }
        eprintln!(
            "legwork: {changed} {files} changed in {}; the diff is in {}",
            self.root.display(),
            kept.display()
        );
        Ok(true)
    }

    /// Applies a diff as a whole or not at all, by a repository of ours with the checkout as its tree.
    fn apply(&self, kept: &Path) -> Result<bool> {
        let here = tempfile::Builder::new().prefix("legwork-apply-").tempdir()?;
        let run = |args: &[&str]| {
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
        Ok(is_ready && run(&["apply", "--whitespace=nowarn", &path])?.success())
    }
}

/// What was changed, a line for each file; of very many the first.
fn named(changes: &[diff::Change]) -> String {
    const MOST: usize = 50;
    let mut lines = String::new();
    for change in changes.iter().take(MOST) {
        let how = match change.how {
            diff::How::Made => "made",
            diff::How::Changed => "changed",
            diff::How::Removed => "removed",
        };
        let name = visible(&String::from_utf8_lossy(&change.name));
        lines += &format!("  {how} {name}{}\n", if change.is_link { " (a link)" } else { "" });
    }
    if changes.len() > MOST {
        lines += &format!("  and {} more\n", changes.len() - MOST);
    }
    lines
}

/// Says what does not go along, and why.
fn stay_behind(names: &[Cow<'_, str>], why: &str) {
    const MOST: usize = 10;
    if names.is_empty() {
        return;
    }
    let more = names.len().saturating_sub(MOST);
    let shown: Vec<String> = names.iter().take(MOST).map(|name| visible(name)).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    eprintln!("legwork: left behind ({why}): {}{more}", shown.join(", "));
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

/// Where diffs are kept.
pub(crate) fn diffs() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    state.unwrap_or_else(std::env::temp_dir).join("legwork/diffs")
}

fn keep(diff: &str, folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let mut file = tempfile::Builder::new().prefix("task-").suffix(".diff").tempfile_in(folder)?;
    file.write_all(diff.as_bytes())?;
    Ok(file.into_temp_path().keep()?)
}

/// Puts a diff together from the events that tell it.
#[derive(Default)]
pub(crate) struct Gathered {
    text: String,
    is_whole: bool,
    is_too_large: bool,
}

impl Gathered {
    /// Takes in an event; others than those of a diff pass by.
    pub(crate) fn take(&mut self, event: &Value) {
        if event["type"] == "result" && event["kind"] == "diff" {
            if event["part"] == 0 {
                self.text.clear();
                self.is_too_large = false;
            }
            let text = event["text"].as_str().unwrap_or_default();
            if self.text.len() + text.len() > MAX_DIFF {
                eprintln!("legwork: the diff has more than {MAX_DIFF} bytes, and is not taken");
                (self.text, self.is_too_large) = (String::new(), true);
            }
            if !self.is_too_large {
                self.text.push_str(text);
            }
            self.is_whole = event["last"] == true && !self.is_too_large;
        }
    }

    /// The diff, if all of it came.
    pub(crate) fn diff(&self) -> Option<&str> {
        self.is_whole.then_some(self.text.as_str())
    }
}
