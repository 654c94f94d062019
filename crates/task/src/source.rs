//! What a task works on, where it brings that along: a tree that comes with the task, or a git
//! repository; and what it brings back: a diff.
//!
//! git runs behind the task's own walls, with no configuration but what is said here: neither the
//! machine's nor a repository's can have it run anything.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use legwork_process::{Chunk, Status, Stream};
use legwork_proto::task::{Body, Level, ResultKind};
use legwork_runner::{Command, Requester, What};
use legwork_workspace::{Bounds, Format};
use legwork_yaml::{Node, Value};

use crate::abort::Abort;
use crate::events::{Events, floor};
use crate::hands::{Continue, Hands, command_file};
use crate::settings::Settings;

/// For each call of git: a clone may take long.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// The largest diff, and the text of one event of it.
const MAX_DIFF: usize = 32 << 20;
const PART: usize = 256 * 1024;
/// Said of what git printed, at most.
const MAX_SAID: usize = 2000;
/// Where the secret named NAME comes from: of the runner's environment, the variable of this
/// beginning and NAME.
pub(crate) const SECRET: &str = "LEGWORK_SECRET_";
/// Stands in a task's folder when its source is there: the tree that a diff is made against.
const BASE: &str = "base";
/// Large outputs that we put into the workspace ourselves.
const OURS: &str = ".work/";

/// Where the tree comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `.tar.zst`, in base64.
    Archive(String),
    Git(Box<Repository>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Repository {
    url: String,
    /// A branch, a tag or a commit; empty for what the repository's HEAD is.
    reference: String,
    depth: Option<u64>,
    sparse: Vec<String>,
    submodules: bool,
    /// The name of the secret that opens it.
    secret: Option<String>,
}

/// What stands around a task's work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Around {
    source: Option<Source>,
    diff: bool,
}

impl Around {
    /// Reads `source` and `result` of a task.
    pub(crate) fn read(config: &Node) -> Result<Self, String> {
        let source = match config.get("source") {
            None | Some(Node { value: Value::Null, .. }) => None,
            Some(node) => Some(source(node)?),
        };
        let diff = match config.get("result") {
            None | Some(Node { value: Value::Null, .. }) => false,
            Some(node) => {
                let entries = fields(node, "result", &["diff"])?;
                match entries.get("diff").map(|node| &node.value) {
                    None => false,
                    Some(Value::Bool(diff)) => *diff,
                    Some(_) => return Err("result.diff must be true or false".into()),
                }
            }
        };
        Ok(Self { source, diff })
    }
}

fn fields<'a>(node: &'a Node, name: &str, known: &[&str]) -> Result<BTreeMap<&'a str, &'a Node>, String> {
    let Value::Map(entries) = &node.value else { return Err(format!("{name} must be a dictionary")) };
    let fields: BTreeMap<&str, &Node> = entries.iter().map(|e| (e.key.as_str(), &e.node)).collect();
    match fields.keys().find(|key| !known.contains(key)) {
        Some(key) => Err(format!("{name} has no '{key}': it has {}", known.join(", "))),
        None => Ok(fields),
    }
}

fn source(node: &Node) -> Result<Source, String> {
    let entries = fields(node, "source", &["archive", "git"])?;
    match (entries.get("archive"), entries.get("git")) {
        (Some(Node { value: Value::Text(text), .. }), None) => Ok(Source::Archive(text.clone())),
        (None, Some(git)) => Ok(Source::Git(Box::new(repository(git)?))),
        _ => Err("source must have one of archive (.tar.zst in base64) and git".into()),
    }
}

fn repository(node: &Node) -> Result<Repository, String> {
    let known = ["url", "ref", "depth", "sparse", "submodules", "secret"];
    let entries = fields(node, "source.git", &known)?;
    let text = |name: &str| match entries.get(name).map(|node| &node.value) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::Text(text)) if !text.starts_with('-') && !text.contains(['\0', '\n']) => Ok(text.clone()),
        Some(_) => Err(format!("source.git.{name} must be a text that does not begin with '-'")),
    };
    let url = text("url")?;
    let is_remote = ["https://", "http://", "ssh://", "git://"].iter().any(|scheme| url.starts_with(scheme));
    if !is_remote {
        return Err("source.git.url must begin with https://, http://, ssh:// or git://".into());
    }
    if url::Url::parse(&url).is_ok_and(|url| url.password().is_some()) {
        return Err(
            "source.git.url holds a password, which would be kept with the task: name a secret".into()
        );
    }
    let depth = match entries.get("depth").map(|node| &node.value) {
        None => None,
        Some(Value::Int(depth)) => {
            Some(u64::try_from(*depth).ok().filter(|d| *d > 0).ok_or("source.git.depth must be positive")?)
        }
        Some(_) => return Err("source.git.depth must be a number of commits".into()),
    };
    let sparse = match entries.get("sparse").map(|node| &node.value) {
        None => Vec::new(),
        Some(Value::List(list)) => list
            .iter()
            .map(|node| match &node.value {
                Value::Text(path) if !path.starts_with('-') => Ok(path.clone()),
                _ => Err("source.git.sparse must be a list of folders"),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err("source.git.sparse must be a list of folders".into()),
    };
    let submodules = match entries.get("submodules").map(|node| &node.value) {
        None => false,
        Some(Value::Bool(flag)) => *flag,
        Some(_) => return Err("source.git.submodules must be true or false".into()),
    };
    let secret = Some(text("secret")?).filter(|name| !name.is_empty());
    Ok(Repository { url, reference: text("ref")?, depth, sparse, submodules, secret })
}

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
}

impl Porter<'_> {
    /// Puts the source in place, once, and notes what a diff is to be made against.
    pub(crate) async fn bring(&self) -> Result<(), String> {
        let Around { source, diff } = self.around;
        let noted = self.dir.join(BASE);
        if (source.is_none() && !diff) || noted.exists() {
            return Ok(());
        }
        if let Some(source) = source {
            let root = self.hands.root.path();
            let is_empty = std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none());
            // What an earlier process of this task had begun to put there is replaced.
            let begun = self.dir.join("source");
            if !is_empty && !begun.exists() {
                return Err(format!("the task brings its source, but {} is not empty", root.display()));
            }
            std::fs::write(&begun, "").map_err(|e| format!("failed to note the source: {e}"))?;
            match source {
                Source::Archive(text) => self.unpack(text).await?,
                Source::Git(repository) => self.fetch(repository).await?,
            }
        }
        let base = if *diff { self.tree().await? } else { String::new() };
        std::fs::write(noted, base).map_err(|e| format!("failed to note the source: {e}"))
    }

    /// Tells the result.
    pub(crate) async fn take(&self) -> Result<(), String> {
        if !self.around.diff {
            return Ok(());
        }
        let base = std::fs::read_to_string(self.dir.join(BASE)).map_err(|e| e.to_string())?;
        let now = self.tree().await?;
        let args = [
            "diff-tree",
            "--binary",
            "--full-index",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "-r",
            "-p",
        ];
        let mut diff = self.git_beside(&[&args[..], &[base.trim(), now.trim()]].concat(), MAX_DIFF).await?;
        diff = self.events.masks.apply(diff);
        let (mut rest, mut part) = (diff.as_str(), 0);
        loop {
            let (text, after) = rest.split_at(floor(rest, PART));
            rest = after;
            let last = rest.is_empty();
            let body = Body::Result { kind: ResultKind::Diff, text: text.to_owned(), part, last };
            self.events.tell(body).await;
            part += 1;
            if last {
                let _ = std::fs::remove_dir_all(self.repository_dir());
                return Ok(());
            }
        }
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

    async fn fetch(&self, repository: &Repository) -> Result<(), String> {
        let Repository { url, reference, depth, sparse, submodules, secret } = repository;
        self.events.log(Level::Info, &format!("Source: {url} {reference}")).await;
        let secret = match secret {
            None => None,
            Some(name) => Some(self.settings.secret(name).ok_or_else(|| {
                format!("source.git.secret: the runner has no secret '{name}' (it would be the variable {SECRET}{name})")
            })?),
        };
        let depth = depth.map(|depth| format!("--depth={depth}"));
        let run = async |args: &[&str]| self.git_here(args, secret.as_deref()).await;
        run(&["init", "--quiet", "."]).await?;
        // Again after a kill: the same again.
        let _ = run(&["remote", "remove", "origin"]).await;
        run(&["remote", "add", "origin", url]).await?;
        if !sparse.is_empty() {
            let folders: Vec<&str> = sparse.iter().map(String::as_str).collect();
            run(&[&["sparse-checkout", "set", "--"][..], &folders].concat()).await?;
        }
        let what = if reference.is_empty() { "HEAD" } else { reference };
        let mut fetch = vec!["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        fetch.extend(depth.as_deref());
        fetch.extend(["origin", what]);
        run(&fetch).await?;
        run(&["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"]).await?;
        if *submodules {
            let mut update = vec!["submodule", "--quiet", "update", "--init", "--recursive"];
            update.extend(depth.as_deref());
            run(&update).await?;
        }
        Ok(())
    }

    /// The tree of the workspace as it is now, what git ignores left out.
    async fn tree(&self) -> Result<String, String> {
        let dir = self.repository_dir();
        if !dir.join("HEAD").exists() {
            std::fs::create_dir_all(&dir).map_err(|e| format!("failed to create {}: {e}", dir.display()))?;
            self.git_beside(&["init", "--quiet"], MAX_SAID).await?;
            let info = dir.join("info");
            let written = std::fs::create_dir_all(&info)
                .and_then(|()| std::fs::write(info.join("exclude"), format!("/{OURS}\n")))
                // Bytes as they are, whatever a .gitattributes says.
                .and_then(|()| {
                    let plain = "* -text !eol !filter !working-tree-encoding !ident !diff\n";
                    std::fs::write(info.join("attributes"), plain)
                });
            written.map_err(|e| format!("failed to write in {}: {e}", info.display()))?;
        }
        self.git_beside(&["add", "--all", "."], MAX_SAID).await?;
        self.git_beside(&["write-tree"], MAX_SAID).await
    }

    /// A repository of our own beside the workspace, which commands may write but not find.
    fn repository_dir(&self) -> PathBuf {
        command_file(&self.settings.scratch(), "tree", &self.dir.to_string_lossy())
    }

    /// git on our own repository.
    async fn git_beside(&self, args: &[&str], most: usize) -> Result<String, String> {
        let root = self.hands.root.path().to_string_lossy().into_owned();
        let env = BTreeMap::from([
            ("GIT_DIR".to_owned(), self.repository_dir().to_string_lossy().into_owned()),
            ("GIT_WORK_TREE".to_owned(), root),
        ]);
        self.git(args, env, most).await
    }

    /// git on the repository in the workspace. The secret goes by the environment, which only this
    /// process of git and its helpers have.
    async fn git_here(&self, args: &[&str], secret: Option<&str>) -> Result<(), String> {
        let mut all = Vec::new();
        let mut env = BTreeMap::new();
        if let Some(secret) = secret {
            const HELPER: &str = "credential.helper=!f() { echo username=x-access-token; echo \"password=$LEGWORK_GIT_SECRET\"; }; f";
            all.extend(["-c", "credential.helper=", "-c", HELPER]);
            env.insert("LEGWORK_GIT_SECRET".to_owned(), secret.to_owned());
        }
        all.extend(args);
        self.git(&all, env, MAX_SAID).await.map(drop)
    }

    /// Runs git behind the walls; what it prints.
    async fn git(
        &self,
        args: &[&str],
        more: BTreeMap<String, String>,
        most: usize,
    ) -> Result<String, String> {
        const CONFIG: [&str; 8] = [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.autocrlf=false",
            "core.attributesFile=/dev/null",
            "core.excludesFile=/dev/null",
            "protocol.file.allow=never",
            "protocol.ext.allow=never",
            "gc.auto=0",
        ];
        let path = self.settings.env.get("PATH").map(String::as_str).unwrap_or_default();
        let git = std::env::split_paths(path).map(|dir| dir.join("git")).find(|git| git.is_file());
        let git = git.ok_or("git is not installed here, which source and result need")?;
        let mut argv = vec![git.to_string_lossy().into_owned()];
        argv.extend(CONFIG.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]));
        argv.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut env = more;
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "true"),
            ("LC_ALL", "C"),
        ] {
            env.insert(name.to_owned(), value.to_owned());
        }
        let what =
            args.iter().find(|arg| !arg.contains(['=', ' ']) && **arg != "-c").copied().unwrap_or_default();
        let program = Command {
            what: What::Program(argv),
            env,
            workdir: ".".into(),
            timeout: Some(TIMEOUT),
            subject: format!("git {what}"),
            ..Command::default()
        };
        let file = command_file(self.dir, "git", what);
        // A call that a killed process had begun is made anew.
        let _ = std::fs::remove_file(&file);
        let (mut out, mut said, mut is_cut) = (Vec::new(), Vec::new(), false);
        let each = async |Chunk { stream, data, .. }| {
            let kept = if stream == Stream::Stdout { &mut out } else { &mut said };
            let most = if stream == Stream::Stdout { most } else { MAX_SAID };
            is_cut |= stream == Stream::Stdout && kept.len() + data.len() > most;
            let room = most - kept.len().min(most);
            kept.extend_from_slice(&data[..data.len().min(room)]);
            Continue::Yes
        };
        let ended = self.hands.run(&program, self.requester, &file, self.abort, (0, 0), each).await;
        let _ = std::fs::remove_file(&file);
        match ended.map_err(|failure| failure.to_string())? {
            Status { exit_code: Some(0), .. } if is_cut => {
                Err(format!("git {what}: it printed more than {most} bytes"))
            }
            Status { exit_code: Some(0), .. } => Ok(String::from_utf8_lossy(&out).into_owned()),
            Status { exit_code, .. } => {
                let said = self.events.masks.apply(String::from_utf8_lossy(&said).trim().to_owned());
                let code = exit_code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
                Err(format!("git {what} ended with {code}: {said}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Around, String> {
        Around::read(&legwork_yaml::parse_json(json.as_bytes()).expect("json"))
    }

    #[test]
    fn a_source_is_what_it_may_be() {
        for (json, problem) in [
            (r#"{"source": 1}"#, "source must be a dictionary"),
            (r#"{"source": {}}"#, "one of archive"),
            (r#"{"source": {"svn": "x"}}"#, "source has no 'svn'"),
            (r#"{"source": {"git": {"url": "/etc"}}}"#, "must begin with https"),
            (r#"{"source": {"git": {"url": "ext::sh -c x"}}}"#, "must begin with https"),
            (r#"{"source": {"git": {"url": "https://u:p@h/r"}}}"#, "name a secret"),
            (
                r#"{"source": {"git": {"url": "https://h/r", "ref": "--upload-pack=x"}}}"#,
                "does not begin with '-'",
            ),
            (r#"{"source": {"git": {"url": "https://h/r", "depth": 0}}}"#, "must be positive"),
            (r#"{"source": {"git": {"url": "https://h/r", "sparse": ["-x"]}}}"#, "list of folders"),
            (r#"{"result": {"diff": 1}}"#, "true or false"),
        ] {
            assert!(read(json).is_err_and(|e| e.contains(problem)), "{json}");
        }
        assert_eq!(read("{}"), Ok(Around::default()));
        let full = r#"{"source": {"git": {"url": "https://h/r", "ref": "v1", "depth": 1, "sparse": ["a"], "submodules": true, "secret": "GH"}}, "result": {"diff": true}}"#;
        assert!(read(full).is_ok_and(|around| around.diff && around.source.is_some()));
    }
}
