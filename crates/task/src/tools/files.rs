//! `read_file`, `write_file`, `list_files`.

use std::io::{self, Read, Write};
use std::path::Path;

use legwork_workspace::{Error, Root, strerror};

use super::{Answer, Bench, Input, media};

/// Most characters of an answer.
const MAX_CHARS: usize = 100_000;
const TRAVERSAL: &str = "path traversal not allowed";
/// The root's name in the protocol, wherever it really is.
const PROTOCOL_ROOT: &str = "/workspace";

/// Where a caller's path leads, from the root: an absolute one must name the root.
pub(super) fn locate(root: &Root, given: &str) -> Result<String, String> {
    let path = Path::new(given);
    if !path.is_absolute() {
        return Ok(given.to_owned());
    }
    let inside = path.strip_prefix(root.path()).or_else(|_| path.strip_prefix(PROTOCOL_ROOT));
    let inside = inside.map_err(|_| TRAVERSAL.to_owned())?;
    Ok(if inside.as_os_str().is_empty() { ".".into() } else { inside.to_string_lossy().into_owned() })
}

/// The words of the protocol for what went wrong.
pub(super) fn cause(error: &Error, path: &str, missing: &str) -> String {
    match error {
        Error::Outside { .. } | Error::Escapes { .. } => TRAVERSAL.into(),
        Error::Io { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => format!("{missing}: {path}"),
            io::ErrorKind::PermissionDenied => format!("permission denied: {path}"),
            _ => strerror(source),
        },
        other => other.to_string(),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}

pub(super) async fn read(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let given = input.needed("path")?.to_owned();
    let (first, last) = (input.number("start_line", 0)?, input.number("end_line", 0)?);
    let root = bench.hands.root.clone();
    let path = locate(&root, &given)?;
    let abort = bench.abort.clone();
    let answer = blocking(move || {
        let (mut file, meta) = root.open_file(&path).map_err(|e| cause(&e, &given, "file not found"))?;
        if let Some((block, text)) = media::block(&mut file, meta.size)? {
            return Ok(Answer { blocks: vec![block], ..Answer::ok(text) });
        }
        let mut cut = Cut::default();
        let is_wanted = || abort.now().is_none();
        lines(file, first, last, &mut cut, is_wanted).map_err(|e| strerror(&e))?;
        Ok(Answer::ok(cut.text()))
    });
    answer.await
}

/// Keeps the first characters, and counts the rest.
#[derive(Default)]
struct Cut {
    kept: Vec<u8>,
    /// Characters that were not kept.
    more: usize,
}

impl Cut {
    fn add(&mut self, bytes: &[u8]) {
        let room = (MAX_CHARS * 4 + 4).saturating_sub(self.kept.len());
        let (kept, rest) = bytes.split_at(room.min(bytes.len()));
        self.kept.extend_from_slice(kept);
        self.more += rest.iter().filter(|b| **b & 0xc0 != 0x80).count();
    }

    fn text(self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        match text.char_indices().nth(MAX_CHARS) {
            None if self.more == 0 => text.into_owned(),
            at => {
                let at = at.map_or(text.len(), |(at, _)| at);
                let count = text.chars().count() + self.more;
                format!("{}\n\n... truncated (file is {count} bytes)", &text[..at])
            }
        }
    }
}

/// Passes on the lines from `first` to `last`, both included; 0 is the end of the file.
fn lines(
    mut file: impl Read,
    first: u64,
    last: u64,
    cut: &mut Cut,
    is_wanted: impl Fn() -> bool,
) -> io::Result<()> {
    let first = first.max(1);
    let mut line = 1;
    let mut buffer = vec![0u8; 64 * 1024];
    while is_wanted() {
        let len = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if first == 1 && last == 0 {
            cut.add(&buffer[..len]);
            continue;
        }
        for piece in buffer[..len].split_inclusive(|b| *b == b'\n') {
            if last != 0 && line > last {
                return Ok(());
            }
            if line >= first {
                cut.add(piece);
            }
            line += u64::from(piece.ends_with(b"\n"));
        }
    }
    Ok(())
}

pub(super) async fn write(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let given = input.needed("path")?.to_owned();
    let content = input.text("content")?.ok_or("content is required")?.to_owned();
    let append = input.flag("append")?;
    let root = bench.hands.root.clone();
    let path = locate(&root, &given)?;
    let text = blocking(move || {
        let failed = |e: Error| cause(&e, &given, "file not found");
        if append {
            let mut file = root.open_to_append(&path).map_err(failed)?;
            file.write_all(content.as_bytes()).map_err(|e| strerror(&e))?;
        } else {
            root.write(&path, content.as_bytes()).map_err(failed)?;
        }
        Ok(format!("Successfully wrote {} bytes to {given}", content.len()))
    });
    Ok(Answer::ok(text.await?))
}

pub(super) async fn list(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let given = input.text("path")?.filter(|p| !p.is_empty()).unwrap_or(".").to_owned();
    let recursive = input.flag("recursive")?;
    let hidden = input.flag("include_hidden")?;
    let most = input.count("max_results", 200)?;
    let root = bench.hands.root.clone();
    let path = locate(&root, &given)?;
    let text = blocking(move || {
        let mut found = if path.contains(['*', '?']) {
            matching(&root, &path, recursive)?
        } else {
            plain(&root, &path, recursive, hidden).map_err(|e| cause(&e, &given, "path not found"))?
        };
        if !hidden && path.contains(['*', '?']) {
            let named = path.split('/').any(|part| part.starts_with('.') && part != "." && part != "..");
            found.retain(|line| named || !is_hidden(Path::new(line)));
        }
        found.sort_unstable();
        let cut = found.len() > most;
        found.truncate(most);
        if cut {
            found.push(format!("... truncated to {most} results"));
        }
        Ok(found.join("\n"))
    });
    Ok(Answer::ok(text.await?))
}

fn is_hidden(path: &Path) -> bool {
    path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."))
}

fn plain(root: &Root, path: &str, recursive: bool, hidden: bool) -> Result<Vec<String>, Error> {
    let is_dir = root.stat(path)?.is_dir;
    let entries = root.list(path, recursive, &[])?;
    // A folder other than the root is the first entry itself.
    let above = entries.first().filter(|e| e.is_dir && is_dir && !is_root(path)).map(|e| e.path.clone());
    let start = usize::from(above.is_some());
    let above = above.unwrap_or_default();
    let shown = |entry: &legwork_workspace::Entry| {
        let text = entry.path.to_string_lossy().into_owned();
        if entry.is_dir && !recursive { format!("{text}/") } else { text }
    };
    if !is_dir {
        return Ok(entries.iter().map(shown).collect());
    }
    Ok(entries[start..]
        .iter()
        .filter(|entry| hidden || !is_hidden(entry.path.strip_prefix(&above).unwrap_or(&entry.path)))
        .filter(|entry| !(recursive && entry.is_dir))
        .map(shown)
        .collect())
}

fn is_root(path: &str) -> bool {
    Path::new(path).components().all(|c| c == std::path::Component::CurDir)
}

fn matching(root: &Root, pattern: &str, recursive: bool) -> Result<Vec<String>, String> {
    if pattern.split('/').any(|part| part == "..") {
        return Err(TRAVERSAL.into());
    }
    let pattern = match (recursive && !pattern.contains("**"), pattern.rsplit_once('/')) {
        (false, _) => pattern.to_owned(),
        (true, Some((dir, base))) => format!("{dir}/**/{base}"),
        (true, None) => format!("**/{pattern}"),
    };
    // Brackets and braces are no wildcards of this tool, but of the one beneath it.
    let escaped: String = pattern
        .chars()
        .flat_map(|c| {
            let special = matches!(c, '{' | '}' | '\\');
            special.then_some('\\').into_iter().chain([c])
        })
        .collect();
    let found = root.glob(&escaped).map_err(|e| e.to_string())?;
    Ok(found.iter().map(|path| path.to_string_lossy().into_owned()).collect())
}
