//! `source` and `result` of a task: what they may say.

use std::collections::BTreeMap;

use legwork_workspace::trees::Digest;
use legwork_yaml::{Node, Value};

/// Most patterns of artifacts.
const MAX_PATTERNS: usize = 64;
/// Most bytes of a list of hosts' keys.
const MAX_HOSTS: usize = 64 * 1024;

/// Where the tree comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `.tar.zst`, in base64.
    Archive(String),
    Git(Box<Repository>),
    /// A tree that the hub has, by its digest.
    Tree(Digest),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(super) url: String,
    /// A branch, a tag or a commit; empty for what the repository's HEAD is.
    pub(super) reference: String,
    pub(super) depth: Option<u64>,
    pub(super) sparse: Vec<String>,
    pub(super) submodules: bool,
    /// The name of the secret that opens it.
    pub(super) secret: Option<String>,
    /// Over ssh: which keys its host may have, in the words of ssh's `known_hosts`.
    pub(super) known_hosts: String,
}

/// What is brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What was changed.
    pub(super) diff: bool,
    /// The whole tree.
    pub(super) archive: bool,
    /// Files by pattern.
    pub(super) artifacts: Vec<String>,
    /// A branch of the repository that the source is.
    pub(super) branch: Option<Branch>,
}

/// A branch that is pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Branch {
    pub(super) name: String,
    pub(super) message: String,
}

/// What stands around a task's work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Around {
    pub(super) source: Option<Source>,
    pub(super) wanted: Wanted,
}

impl Around {
    /// Reads `source` and `result` of a task.
    pub(crate) fn read(config: &Node) -> Result<Self, String> {
        let source = match config.get("source") {
            None | Some(Node { value: Value::Null, .. }) => None,
            Some(node) => Some(source(node)?),
        };
        let wanted = match config.get("result") {
            None | Some(Node { value: Value::Null, .. }) => Wanted::default(),
            Some(node) => wanted(node)?,
        };
        if wanted.branch.is_some() && !matches!(source, Some(Source::Git(_))) {
            return Err(
                "result.branch needs source.git: a branch is pushed to where the source is from".into()
            );
        }
        Ok(Self { source, wanted })
    }
}

fn wanted(node: &Node) -> Result<Wanted, String> {
    let entries = fields(node, "result", &["archive", "artifacts", "branch", "diff"])?;
    let flag = |name: &str| match entries.get(name).map(|node| &node.value) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(format!("result.{name} must be true or false")),
    };
    let artifacts = match entries.get("artifacts").map(|node| &node.value) {
        None => Vec::new(),
        Some(Value::List(list)) if list.len() <= MAX_PATTERNS => list
            .iter()
            .map(|node| match &node.value {
                Value::Text(pattern) if !pattern.is_empty() => Ok(pattern.clone()),
                _ => Err("result.artifacts must be a list of patterns".to_owned()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(format!("result.artifacts must be a list of at most {MAX_PATTERNS} patterns")),
    };
    let branch = entries.get("branch").map(|node| branch(node)).transpose()?;
    Ok(Wanted { diff: flag("diff")?, archive: flag("archive")?, artifacts, branch })
}

fn branch(node: &Node) -> Result<Branch, String> {
    let (name, message) = match &node.value {
        Value::Text(name) => (name.clone(), String::new()),
        _ => {
            let entries = fields(node, "result.branch", &["message", "name"])?;
            let text = |name: &str| match entries.get(name).map(|node| &node.value) {
                None => Ok(String::new()),
                Some(Value::Text(text)) if !text.contains('\0') => Ok(text.clone()),
                Some(_) => Err(format!("result.branch.{name} must be a text")),
            };
            (text("name")?, text("message")?)
        }
    };
    // The rules of git-check-ref-format, and no letter that would need a second look.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+@".contains(c);
    let is_good = !name.is_empty()
        && name.len() <= 200
        && name.chars().all(is_plain)
        && !name.starts_with(['-', '/', '.', '@'])
        && !name.ends_with(['/', '.'])
        && !["..", "//", "/.", "@{", ".lock"].iter().any(|bad| name.contains(bad));
    if !is_good {
        return Err(format!("result.branch: '{name}' can't be the name of a branch"));
    }
    let message = if message.trim().is_empty() { "Changes made by an agent".into() } else { message };
    Ok(Branch { name, message })
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
    let entries = fields(node, "source", &["archive", "git", "tree"])?;
    match (entries.get("archive"), entries.get("git"), entries.get("tree")) {
        (Some(Node { value: Value::Text(text), .. }), None, None) => Ok(Source::Archive(text.clone())),
        (None, Some(git), None) => Ok(Source::Git(Box::new(repository(git)?))),
        (None, None, Some(Node { value: Value::Text(text), .. })) => match Digest::parse(text) {
            Some(digest) => Ok(Source::Tree(digest)),
            None => Err("source.tree must be the digest of a tree: 64 hexadecimal digits".into()),
        },
        _ => Err("source must have one of archive (.tar.zst in base64), git and tree (a digest)".into()),
    }
}

fn repository(node: &Node) -> Result<Repository, String> {
    let known = ["url", "ref", "depth", "sparse", "submodules", "secret", "known_hosts"];
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
    if secret.is_some() && !is_private(&url) {
        return Err(format!("source.git: a secret is not sent in clear to {url}: use https:// or ssh://"));
    }
    let known_hosts = match entries.get("known_hosts").map(|node| &node.value) {
        None | Some(Value::Null) => String::new(),
        Some(Value::Text(text)) if text.len() <= MAX_HOSTS && !text.contains('\0') => text.clone(),
        Some(_) => return Err("source.git.known_hosts must be a text, as ssh's known_hosts is".into()),
    };
    if url.starts_with("ssh://") && known_hosts.trim().is_empty() {
        return Err(
            "source.git.known_hosts is required for ssh://: the lines that `ssh-keyscan HOST` prints, looked at by you".into(),
        );
    }
    Ok(Repository { url, reference: text("ref")?, depth, sparse, submodules, secret, known_hosts })
}

/// Whether what is said to an address is read by nobody on the way.
fn is_private(url: &str) -> bool {
    let Ok(parsed) = url::Url::parse(url) else { return false };
    let here = match parsed.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    here || matches!(parsed.scheme(), "https" | "ssh")
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
            (r#"{"source": {"tree": "abc"}}"#, "64 hexadecimal digits"),
            (r#"{"result": {"diff": 1}}"#, "true or false"),
            (r#"{"result": {"artifacts": "x"}}"#, "list of at most"),
            (r#"{"result": {"branch": "fix"}}"#, "needs source.git"),
            (r#"{"result": {"branch": "../x"}}"#, "can't be the name"),
            (r#"{"result": {"branch": "x.lock"}}"#, "can't be the name"),
            (r#"{"source": {"git": {"url": "http://h/r", "secret": "S"}}}"#, "in clear"),
            (r#"{"source": {"git": {"url": "ssh://git@h/r"}}}"#, "known_hosts is required"),
        ] {
            assert!(read(json).is_err_and(|e| e.contains(problem)), "{json}");
        }
        assert_eq!(read("{}"), Ok(Around::default()));
        let full = r#"{"source": {"git": {"url": "https://h/r", "ref": "v1", "depth": 1, "sparse": ["a"], "submodules": true, "secret": "GH"}}, "result": {"diff": true}}"#;
        assert!(read(full).is_ok_and(|around| around.wanted.diff && around.source.is_some()));
    }
}
