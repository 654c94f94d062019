//! `grep`: the real one, started in the folder that the kernel resolved beneath the root, so
//! that nothing it is told can lead out.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use legwork_process::{Chunk, EndedBy, Stream};
use legwork_runner::{Command, What};
use legwork_workspace::Root;

use super::files::{cause, locate};
use super::{Answer, Bench, Input};
use crate::hands::Continue;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of the answer: lines can be long.
const MAX_BYTES: usize = 400_000;
const MAX_STDERR: usize = 4096;

/// Paths that `glob` answers.
const MOST_PATHS: usize = 200;
/// Folders that nobody means who does not name them.
const PRUNED: [&str; 2] = [".git", "node_modules"];

/// Files by a pattern, the last changed first.
pub(super) async fn glob(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let pattern = input.needed("pattern")?.to_owned();
    let given = input.text("path")?.filter(|p| !p.is_empty()).unwrap_or(".").to_owned();
    if pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
        return Err("the pattern must be relative, and without '..'; give a folder as path".into());
    }
    let root = bench.hands.root.clone();
    let folder = locate(&root, &given)?;
    let found = super::files::blocking(move || paths(&root, &folder, &given, &pattern));
    let (mut lines, is_cut) = found.await?;
    if is_cut {
        lines.push(format!("... truncated to {MOST_PATHS} results"));
    }
    Ok(Answer::ok(if lines.is_empty() { "No file matches.".into() } else { lines.join("\n") }))
}

/// Paths that match, and whether there are more.
pub(super) fn paths(
    root: &Root,
    folder: &str,
    given: &str,
    pattern: &str,
) -> Result<(Vec<String>, bool), String> {
    if !root.stat(folder).map_err(|e| cause(&e, given, "path not found"))?.is_dir {
        return Err(format!("not a directory: {given}"));
    }
    let folder = folder.trim_start_matches("./").trim_end_matches('/');
    let whole = match folder {
        "" | "." => pattern.to_owned(),
        folder => {
            // Of the folder's own name nothing is a wildcard.
            let folder: String = folder
                .chars()
                .flat_map(|c| "*?[]{}\\".contains(c).then_some('\\').into_iter().chain([c]))
                .collect();
            format!("{folder}/{pattern}")
        }
    };
    let pruned = PRUNED.map(|name| (name, whole.split('/').any(|part| part == name)));
    let is_meant =
        |path: &Path| pruned.iter().all(|(name, named)| *named || !path.iter().any(|part| part == *name));
    let mut found: Vec<_> = root
        .glob(&whole)
        .map_err(|e| e.to_string())?
        .into_iter()
        .filter(|path| is_meant(path))
        .map(|path| {
            let path = path.to_string_lossy().into_owned();
            (root.stat(&path).map_or(std::time::UNIX_EPOCH, |meta| meta.modified), path)
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let is_cut = found.len() > MOST_PATHS;
    found.truncate(MOST_PATHS);
    Ok((found.into_iter().map(|(_, path)| path).collect(), is_cut))
}

/// Where to search, and what of it.
struct Place {
    /// Beneath the root.
    folder: String,
    /// Only this file in it.
    file: Option<String>,
    /// What stands before names in the answer.
    prefix: String,
}

pub(super) async fn grep(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let pattern = input.needed("pattern")?;
    let given = input.text("path")?.filter(|p| !p.is_empty()).unwrap_or(".");
    let include = input.text("include")?.filter(|i| !i.is_empty());
    let ignore_case = input.flag("ignore_case")?;
    let most = input.count("max_results", 100)?;
    let place = place(&bench.hands.root, given)?;
    let mut argv = vec![find_grep()?, "-rnIZs".to_owned()];
    argv.extend(ignore_case.then(|| "-i".to_owned()));
    match &place.file {
        Some(name) => {
            argv.push(format!("--include={}", escape(name)));
            argv.push("--exclude-dir=??*".to_owned());
        }
        None => argv.extend(include.map(|glob| format!("--include={glob}"))),
    }
    argv.extend(["-e".to_owned(), pattern.to_owned(), "--".to_owned(), ".".to_owned()]);
    let program = Command {
        what: What::Program(argv),
        env: [("LC_ALL".to_owned(), "C.UTF-8".to_owned())].into(),
        workdir: place.folder.clone(),
        timeout: Some(TIMEOUT),
        subject: format!("grep {pattern}"),
        ..Command::default()
    };
    let mut found =
        Found { place: &place, most, lines: Vec::new(), bytes: 0, partial: Vec::new(), cut: false };
    let mut said = Vec::new();
    let each = async |Chunk { stream, data, .. }| match stream {
        Stream::Stdout => found.take(&data),
        Stream::Stderr => {
            said.extend_from_slice(&data[..data.len().min(MAX_STDERR - said.len().min(MAX_STDERR))]);
            Continue::Yes
        }
    };
    let status =
        match bench.hands.run(&program, bench.requester, &bench.file, bench.abort, (0, 0), each).await {
            Ok(status) => status,
            Err(failure) => return Err(failure.to_string()),
        };
    match status.ended_by {
        Some(EndedBy::Timeout) => return Err("search timed out".into()),
        Some(EndedBy::Cancel) if !found.cut => return Err("the task was aborted during the search".into()),
        _ => {}
    }
    let said = String::from_utf8_lossy(&said);
    if status.exit_code == Some(2) && found.lines.is_empty() && !said.trim().is_empty() {
        // Files that can't be read are not spoken of (-s): it is the pattern.
        let line = said.lines().next().unwrap_or_default();
        return Err(format!("invalid pattern: {}", line.rsplit("grep: ").next().unwrap_or(line)));
    }
    let mut text = found.lines.concat();
    if found.cut {
        text.push_str(&format!("\n... truncated to {} results", found.lines.len()));
    }
    Ok(Answer::ok(text))
}

fn place(root: &Root, given: &str) -> Result<Place, String> {
    let path = locate(root, given)?;
    let missing = |e| cause(&e, given, "path not found");
    if root.stat(&path).map_err(missing)?.is_dir {
        let shown = if path.is_empty() { "." } else { path.as_str() };
        let slash = if shown.ends_with('/') { "" } else { "/" };
        return Ok(Place { prefix: format!("{shown}{slash}"), folder: path, file: None });
    }
    // Where the file really is: its folder is opened beneath the root again.
    let (file, _) = root.open_file(&path).map_err(|e| cause(&e, given, "path not found"))?;
    let real =
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(|e| e.to_string())?;
    let real = real.strip_prefix(root.path()).map_err(|_| "path traversal not allowed".to_owned())?;
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| "the path is no text".to_owned());
    let name = real.file_name().map(Path::new).map(text).transpose()?.unwrap_or_default();
    let folder = real.parent().map(text).transpose()?.filter(|f| !f.is_empty()).unwrap_or_else(|| ".".into());
    Ok(Place { folder, file: Some(name), prefix: String::new() })
}

fn find_grep() -> Result<String, String> {
    let folders = ["/usr/bin", "/bin", "/usr/local/bin"];
    folders
        .iter()
        .map(|dir| Path::new(dir).join("grep"))
        .find(|path| path.exists())
        .map(|path| path.to_string_lossy().into_owned())
        .ok_or_else(|| "grep is not installed here".to_owned())
}

/// A name as a glob that matches only it.
fn escape(name: &str) -> String {
    name.chars()
        .flat_map(|c| matches!(c, '*' | '?' | '[' | ']' | '\\').then_some('\\').into_iter().chain([c]))
        .collect()
}

struct Found<'a> {
    place: &'a Place,
    most: usize,
    lines: Vec<String>,
    bytes: usize,
    partial: Vec<u8>,
    cut: bool,
}

impl Found<'_> {
    fn take(&mut self, data: &[u8]) -> Continue {
        let mut rest = data;
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            self.partial.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            let line = std::mem::take(&mut self.partial);
            self.line(&line);
            if self.cut {
                return Continue::No;
            }
        }
        let room = MAX_BYTES.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(&rest[..rest.len().min(room)]);
        Continue::Yes
    }

    /// `./name NUL number:text`.
    fn line(&mut self, line: &[u8]) {
        let Some(at) = line.iter().position(|b| *b == 0) else { return };
        let name = line[..at].strip_prefix(b"./").unwrap_or(&line[..at]);
        let rest = String::from_utf8_lossy(&line[at + 1..]);
        let shown = match &self.place.file {
            Some(file) if file.as_bytes() != name => return,
            Some(_) => format!("{rest}\n"),
            None => format!("{}{}:{rest}\n", self.place.prefix, String::from_utf8_lossy(name)),
        };
        if self.lines.len() >= self.most || self.bytes + shown.len() > MAX_BYTES {
            self.cut = true;
            return;
        }
        self.bytes += shown.len();
        self.lines.push(shown);
    }
}
