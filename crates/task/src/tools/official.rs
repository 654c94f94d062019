//! The tools of the official toolsets, under their names and schemas, on the same hands: for
//! prompts and models that were made for them.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use legwork_process::{Chunk, EndedBy, Status};
use legwork_runner::{Command, Failure, What};
use legwork_workspace::GrepBounds;
use serde_json::{Value, json};

use super::edit::{Edit, apply, load};
use super::files::{blocking, cause, locate};
use super::session::Dialect;
use super::text::HeadAndTail;
use super::{Answer, Bench, Input, media};
use crate::hands::Continue;

/// Most bytes of an answer of `bash` and `grep`.
const MAX_OUTPUT: usize = 102_400;
/// Most bytes that are read without a range.
const MAX_READ: usize = 262_144;
const DEFAULT_TIMEOUT_MS: u64 = 120_000;
const MAX_TIMEOUT_MS: u64 = 24 * 3600 * 1000;

/// A tool of an official toolset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Official {
    /// `bash` of `agent_toolset_20260401`
    Bash,
    /// `read`
    Read,
    /// `write`
    Write,
    /// `edit`
    Edit,
    /// `glob`
    Glob,
    /// `grep`
    Grep,
    /// `bash_20250124`
    TypedBash,
    /// `text_editor_20250728`
    TextEditor,
}

impl Official {
    /// What a word in a task's list asks for.
    pub(super) fn asked_for(word: &str) -> &'static [Self] {
        match word {
            "agent_toolset_20260401" => {
                &[Self::Bash, Self::Read, Self::Write, Self::Edit, Self::Glob, Self::Grep]
            }
            "bash_20250124" => &[Self::TypedBash],
            "text_editor_20250728" => &[Self::TextEditor],
            _ => &[],
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bash | Self::TypedBash => "bash",
            Self::Read => "read",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::Glob => "glob",
            Self::Grep => "grep",
            Self::TextEditor => "str_replace_based_edit_tool",
        }
    }

    pub(super) fn is_read_only(self) -> bool {
        matches!(self, Self::Read | Self::Glob | Self::Grep)
    }

    pub(crate) fn is_shell(self) -> bool {
        matches!(self, Self::Bash | Self::TypedBash)
    }

    pub(super) fn definition(self) -> Value {
        let text = |description: &str| json!({"type": "string", "description": description});
        let path = || text("Path of the file");
        let (description, properties, required) = match self {
            Self::TypedBash => return json!({"type": "bash_20250124", "name": self.name()}),
            Self::TextEditor => return json!({"type": "text_editor_20250728", "name": self.name()}),
            Self::Bash => (
                "Run a command in a bash session. The folder, variables and functions stay from call to call.",
                json!({
                    "command": text("The command"),
                    "restart": {"type": "boolean", "description": "Forget the session and start a new one"},
                    "timeout_ms": {"type": "integer", "description": "Milliseconds it may take; 120000 where missing"},
                }),
                json!([]),
            ),
            Self::Read => (
                "Read a file: text, or a picture or PDF to look at.",
                json!({
                    "file_path": path(),
                    "view_range": {"type": "array", "items": {"type": "integer"}, "description": "[first, last] line, from 1"},
                }),
                json!(["file_path"]),
            ),
            Self::Write => (
                "Write a file as a whole; folders are made as needed.",
                json!({"file_path": path(), "content": text("The text")}),
                json!(["file_path", "content"]),
            ),
            Self::Edit => (
                "Replace an exact piece of text in a file. It must be there once, unless replace_all is true.",
                json!({
                    "file_path": path(),
                    "old_string": text("Text that is there"),
                    "new_string": text("Text to stand there instead"),
                    "replace_all": {"type": "boolean", "description": "Every place"},
                }),
                json!(["file_path", "old_string", "new_string"]),
            ),
            Self::Glob => (
                "Find files by a pattern such as **/*.rs, the last changed first.",
                json!({"pattern": text("The pattern"), "path": text("Folder to search")}),
                json!(["pattern"]),
            ),
            Self::Grep => (
                "Find lines by a regular expression, as ripgrep does.",
                json!({"pattern": text("The regular expression"), "path": text("File or folder to search")}),
                json!(["pattern"]),
            ),
        };
        let schema = json!({"type": "object", "properties": properties, "required": required});
        json!({"name": self.name(), "description": description, "input_schema": schema})
    }
}

/// Calls one. Its errors begin with its name, as those of the official ones do.
pub(super) async fn call(tool: Official, input: Input<'_>, bench: &Bench<'_>) -> Answer {
    let answer = match tool {
        Official::Bash | Official::TypedBash => bash(input, bench).await,
        Official::Read => read(input, bench).await,
        Official::Write => write(input, bench).await,
        Official::Edit => edit(input, bench).await,
        Official::Glob => glob(input, bench).await,
        Official::Grep => grep(input, bench).await,
        Official::TextEditor => text_editor(input, bench).await,
    };
    match answer {
        Ok(answer) if answer.text.is_empty() => Answer { text: "(no output)".into(), ..answer },
        Ok(answer) => answer,
        Err(cause) if tool == Official::TextEditor => Answer::error(cause),
        Err(cause) => Answer { is_error: true, ..Answer::ok(format!("{}: {cause}", tool.name())) },
    }
}

async fn bash(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let command = input.text("command")?.filter(|command| !command.trim().is_empty());
    if input.flag("restart")? {
        if let Some(session) = bench.session {
            session.restart();
        }
        if command.is_none() {
            return Ok(Answer::ok("bash session restarted".into()));
        }
    }
    let command = command.ok_or("command is required")?;
    let timeout_ms = match input.number("timeout_ms", 0)? {
        0 => DEFAULT_TIMEOUT_MS,
        ms => ms.min(MAX_TIMEOUT_MS),
    };
    let judged = bench.hands.judges().then(|| command.to_owned());
    let text = match bench.session {
        Some(session) if judged.is_none() => session.around(command, Dialect::Bash, false, true),
        _ => command.to_owned(),
    };
    let program = Command {
        what: judged.map_or_else(
            || {
                let whole = format!("exec 2>&1; {text}");
                What::Program(["/bin/bash", "--noprofile", "--norc", "-c", &whole].map(String::from).to_vec())
            },
            What::Line,
        ),
        env: [("TERM".to_owned(), "dumb".to_owned())].into(),
        workdir: ".".into(),
        timeout: Some(Duration::from_millis(timeout_ms)),
        subject: command.to_owned(),
        tmp: Some(bench.hands.place.tmp.clone()),
        keeps_tree: true,
        ..Command::default()
    };
    let mut kept = HeadAndTail::tail(MAX_OUTPUT);
    let each = async |Chunk { data, .. }| {
        kept.add(&data);
        Continue::Yes
    };
    let ended = bench.hands.run(&program, bench.requester, &bench.file, bench.abort, (0, 0), each).await;
    let cut = kept.is_cut();
    let output = without_escapes(&kept.text());
    let mut output = output.trim_end_matches('\n').to_owned();
    if cut {
        output.insert_str(0, "[output truncated]\n");
    }
    let mut add = |line: String| {
        if !output.is_empty() {
            output.push('\n');
        }
        output.push_str(&line);
    };
    let is_error = match ended {
        Ok(Status { ended_by: Some(EndedBy::Timeout), .. }) => {
            add(format!("[timed out after {timeout_ms} ms]"));
            true
        }
        Ok(Status { ended_by: Some(EndedBy::Cancel), .. }) => {
            add("[the task was aborted while the command ran]".into());
            true
        }
        Ok(Status { exit_code: Some(0), .. }) => false,
        Ok(Status { exit_code, signal, .. }) => {
            add(format!("exit code: {}", exit_code.unwrap_or_else(|| 128 + signal.unwrap_or(0))));
            true
        }
        Err(Failure::Lost(cause)) => return Ok(Answer::raised(cause)),
        Err(failure) => return Err(failure.to_string()),
    };
    Ok(Answer { is_error, ..Answer::ok(output) })
}

/// Text without what steers a terminal.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        plain.push_str(&rest[..at]);
        let sequence = &rest[at + 2..];
        let end = sequence.find(|c: char| ('@'..='~').contains(&c));
        rest = end.map_or("", |end| &sequence[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

async fn read(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let given = input.needed("file_path")?.to_owned();
    let range = match input.0.get("view_range").and_then(Value::as_array).map(Vec::as_slice) {
        None | Some([]) => None,
        Some([first, last]) => match (first.as_i64(), last.as_i64()) {
            (Some(first), Some(last)) => Some((first, last)),
            _ => return Err("view_range must be [start_line, end_line]".into()),
        },
        Some(_) => return Err("view_range must be [start_line, end_line]".into()),
    };
    let root = bench.hands.root.clone();
    let path = locate(&root, &given)?;
    blocking(move || {
        let (mut file, meta) =
            root.open_file(&path).map_err(|e| format!("{given}: {}", cause(&e, &given, "no such file or directory")))?;
        if let Some((block, text)) = media::block(&mut file, meta.size)? {
            return Ok(Answer { blocks: vec![block], ..Answer::ok(text) });
        }
        let text = load(&root, &path, &given)?;
        let text = match range {
            None => text,
            Some(range) => lines(&text, range),
        };
        if text.len() > MAX_READ {
            let size = text.len();
            return Err(format!(
                "{given} is {size} bytes, exceeds {MAX_READ}-byte limit. Use the view_range parameter to read \
                 specific line ranges, e.g. view_range: [1, 500]."
            ));
        }
        Ok(Answer::ok(text))
    })
    .await
}

/// Lines of a text, both ends included; an end before the first line is the text's own.
fn lines(text: &str, (first, last): (i64, i64)) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let first = usize::try_from(first.max(1)).unwrap_or(1) - 1;
    let last =
        if last <= 0 { lines.len() } else { usize::try_from(last).unwrap_or(usize::MAX).min(lines.len()) };
    lines.get(first..last.max(first).min(lines.len())).unwrap_or_default().join("\n")
}

async fn write(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let given = input.needed("file_path")?.to_owned();
    let content = input.text("content")?.ok_or("content is required")?.to_owned();
    replace(bench, &given, content.clone()).await?;
    Ok(Answer::ok(format!("wrote {} bytes to {given}", content.len())))
}

async fn replace(bench: &Bench<'_>, given: &str, content: String) -> Result<(), String> {
    let root = bench.hands.root.clone();
    let path = locate(&root, given)?;
    let given = given.to_owned();
    blocking(move || {
        root.write(&path, content.as_bytes())
            .map_err(|e| format!("{given}: {}", cause(&e, &given, "no such file or directory")))
    })
    .await
}

async fn edit(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let given = input.needed("file_path")?.to_owned();
    let old = input.needed("old_string")?.to_owned();
    let new = input.text("new_string")?.ok_or("new_string is required")?.to_owned();
    let all = input.flag("replace_all")?;
    let places = exchange(bench, &given, Edit { old, new, all }).await?;
    Ok(Answer::ok(format!("edited {given} ({places} replacement(s))")))
}

/// Makes one edit; returns how many places it had.
async fn exchange(bench: &Bench<'_>, given: &str, edit: Edit) -> Result<usize, String> {
    let root = bench.hands.root.clone();
    let path = locate(&root, given)?;
    let given = given.to_owned();
    blocking(move || {
        let text = load(&root, &path, &given)?;
        let made = apply(&text, &edit).map_err(|fault| match fault {
            super::edit::Fault::Missing(hint) => format!("old_string not found in {given}{hint}"),
            super::edit::Fault::Ambiguous { count, .. } => {
                format!("old_string appears {count} times in {given} (must be unique)")
            }
            fault => fault.to_string(),
        })?;
        root.write(&path, made.text.as_bytes())
            .map_err(|e| cause(&e, &given, "no such file or directory"))?;
        Ok(made.places)
    })
    .await
}

async fn glob(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let pattern = input.needed("pattern")?.to_owned();
    let given = input.text("path")?.filter(|p| !p.is_empty()).unwrap_or(".").to_owned();
    if pattern.starts_with('/') {
        return Err("absolute pattern not permitted; pass a relative pattern (and optionally path)".into());
    }
    if pattern.split('/').any(|part| part == "..") {
        return Err("'..' is not permitted in the pattern".into());
    }
    let root = bench.hands.root.clone();
    let folder = locate(&root, &given)?;
    let text = blocking(move || {
        let (found, _) = super::search::paths(&root, &folder, &given, &pattern)?;
        let base = root.path();
        let lines: Vec<String> =
            found.iter().map(|path| base.join(path).to_string_lossy().into_owned()).collect();
        Ok(if lines.is_empty() { "no matches".to_owned() } else { lines.join("\n") })
    });
    text.await.map(Answer::ok)
}

async fn grep(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let pattern = input.needed("pattern")?.to_owned();
    let given = input.text("path")?.filter(|p| !p.is_empty()).unwrap_or(".").to_owned();
    let root = bench.hands.root.clone();
    let path = locate(&root, &given)?;
    let text = blocking(move || {
        let is_dir = root.stat(&path).map_err(|e| cause(&e, &given, "no such file or directory"))?.is_dir;
        let path = path.trim_start_matches("./").trim_matches('/').to_owned();
        let include = match (path.as_str(), is_dir) {
            ("" | ".", _) => Vec::new(),
            (path, true) => vec![format!("/{path}/**")],
            (path, false) => vec![format!("/{path}")],
        };
        let bounds = GrepBounds { matches: 10_000, bytes: MAX_OUTPUT as u64, line: 2000 };
        let found = root
            .grep_some(&pattern, &include, &AtomicBool::new(false), bounds)
            .map_err(|e| format!("invalid regex: {e}"))?;
        let base = root.path();
        let mut lines: Vec<String> = found
            .matches
            .iter()
            .map(|m| match is_dir {
                true => format!("{}:{}:{}", base.join(&m.path).display(), m.line_number, m.content),
                false => format!("{}:{}", m.line_number, m.content),
            })
            .collect();
        if lines.is_empty() {
            return Ok("no matches".to_owned());
        }
        if found.stopped {
            lines.push(format!("[output truncated at {MAX_OUTPUT} bytes]"));
        }
        Ok(lines.join("\n") + "\n")
    });
    text.await.map(Answer::ok)
}

async fn text_editor(input: Input<'_>, bench: &Bench<'_>) -> Result<Answer, String> {
    let path = input.needed("path")?.to_owned();
    match input.needed("command")? {
        "view" => view(input, bench, path).await,
        "create" => {
            let text = input.text("file_text")?.ok_or("file_text is required")?.to_owned();
            replace(bench, &path, text).await?;
            Ok(Answer::ok(format!("File created successfully at: {path}")))
        }
        "str_replace" => {
            let old = input.needed("old_str")?.to_owned();
            let new = input.text("new_str")?.unwrap_or_default().to_owned();
            exchange(bench, &path, Edit { old, new, all: false }).await?;
            Ok(Answer::ok(format!("The file {path} has been edited successfully.")))
        }
        "insert" => {
            let text = input.text("insert_text")?.ok_or("insert_text is required")?.to_owned();
            let at = usize::try_from(input.number("insert_line", 0)?).unwrap_or(usize::MAX);
            let root = bench.hands.root.clone();
            let (located, given) = (locate(&root, &path)?, path.clone());
            let before = blocking(move || load(&root, &located, &given)).await?;
            let mut lines: Vec<&str> = before.split_inclusive('\n').collect();
            if at > lines.len() {
                return Err(format!("insert_line must be between 0 and {}", lines.len()));
            }
            let end = if at > 0 && !lines[at - 1].ends_with('\n') { "\n" } else { "" };
            let text = format!("{end}{}\n", text.strip_suffix('\n').unwrap_or(&text));
            lines.insert(at, &text);
            replace(bench, &path, lines.concat()).await?;
            Ok(Answer::ok(format!("The file {path} has been edited successfully.")))
        }
        other => Err(format!("command: '{other}' is none of view, create, str_replace, insert")),
    }
}

async fn view(input: Input<'_>, bench: &Bench<'_>, path: String) -> Result<Answer, String> {
    let root = bench.hands.root.clone();
    let located = locate(&root, &path)?;
    if root.stat(&located).map_err(|e| cause(&e, &path, "file not found"))?.is_dir {
        let listed = serde_json::Map::from_iter([("path".to_owned(), Value::from(path))]);
        return super::files::list(Input(&listed), bench).await;
    }
    let mut asked = input.0.clone();
    asked.insert("file_path".into(), path.into());
    let first = match asked.get("view_range").and_then(|range| range[0].as_u64()) {
        Some(first) => usize::try_from(first.max(1)).unwrap_or(1),
        None => 1,
    };
    let answer = read(Input(&asked), bench).await?;
    if !answer.blocks.is_empty() {
        return Ok(answer);
    }
    let numbered: String = answer
        .text
        .lines()
        .enumerate()
        .map(|(index, line)| format!("{:>6}\t{line}\n", index + first))
        .collect();
    Ok(Answer::ok(numbered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_escapes() {
        for (range, want) in [((2, 0), "b\n"), ((1, 1), "a"), ((0, 2), "a\nb"), ((9, 10), ""), ((3, 1), "")] {
            assert_eq!(lines("a\nb\n", range), want, "{range:?}");
        }
        assert_eq!(without_escapes("\x1b[31mred\x1b[0m x\x1b["), "red x");
    }
}
