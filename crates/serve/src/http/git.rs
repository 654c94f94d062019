//! What git knows of the workspace: which files have changed since the last commit.
//!
//! A repository's own configuration can name programs that git runs, so who opens somebody
//! else's folder must not run them by looking: one that does is not asked any further.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use legwork_process::sandbox::Profile;
use serde_json::{Value, json};

use super::reply;
use crate::command::{self, Failed, Tool};
use crate::files::Files;
use crate::paths::Trouble;
use crate::shells::Shells;

const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_OUTPUT: usize = 16 << 20;
/// Most changes in an answer.
const MAX_CHANGES: usize = 5000;

/// Whether a setting of a repository may make git run something, or look elsewhere for what is
/// to be run. (Those of the user and of the machine are theirs.)
fn runs_programs(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let ends = |end: &[&str]| end.iter().any(|e| key.ends_with(e));
    key.starts_with("include")
        || key.starts_with("filter.")
        || key.starts_with("alias.")
        || key.starts_with("credential")
        || key.starts_with("extensions.") && !ends(&[".objectformat", ".refstorage", ".noop"])
        || (key.starts_with("core.")
            && ends(&[
                ".fsmonitor",
                "command",
                ".hookspath",
                ".worktree",
                ".attributesfile",
                ".pager",
                ".editor",
                ".gitproxy",
                ".askpass",
            ]))
        || (key.starts_with("diff.") && ends(&["command", ".textconv", ".external"]))
        // A part that is missing would be fetched, by what the remote says.
        || (key.starts_with("remote.") && ends(&[".promisor", ".uploadpack", ".vcs"]))
        || key.starts_with("gpg.")
}

/// Why git was not asked, or did not answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("git is not installed here")]
    NoGit,
    #[error(
        "this repository's own configuration sets {0}, by which looking at it could run a program; git in a \
         terminal is yours to use"
    )]
    RunsPrograms(String),
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// Git, for one workspace.
pub(crate) struct Git<'a> {
    pub(crate) files: &'a Arc<Files>,
    pub(crate) shells: &'a Shells,
    /// The wall around it.
    pub(crate) sandbox: Profile,
}

async fn git(asked: &Git<'_>, args: &[&str]) -> Result<Vec<u8>, NoAnswer> {
    let program = asked.shells.find("git").ok_or(NoAnswer::NoGit)?;
    let fixed = ["--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"];
    let argv = [&*program].into_iter().chain(fixed).chain(args.iter().copied());
    let env = [
        ("GIT_NO_LAZY_FETCH", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_PAGER", "cat"),
        ("LC_ALL", "C.UTF-8"),
        ("GIT_LITERAL_PATHSPECS", "1"),
    ];
    let tool = Tool {
        argv: argv.map(str::to_owned).collect(),
        env: env.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        sandbox: asked.sandbox,
        timeout: TIMEOUT,
        most: MAX_OUTPUT,
    };
    Ok(command::output(asked.shells, tool).await?)
}

/// Whether there is a repository that may be asked; if not, and it is for a reason, that.
async fn may_ask(asked: &Git<'_>) -> Result<bool, NoAnswer> {
    let looking = asked.files.clone();
    let there = tokio::task::spawn_blocking(move || looking.root.stat(".git").is_ok()).await.unwrap_or(false);
    if !there {
        return Ok(false);
    }
    let listed = git(asked, &["config", "--local", "--no-includes", "--null", "--list"]).await?;
    let text = String::from_utf8_lossy(&listed);
    let bad = text.split('\0').filter_map(|entry| entry.split('\n').next()).find(|key| runs_programs(key));
    bad.map_or(Ok(true), |key| Err(NoAnswer::RunsPrograms(key.to_owned())))
}

/// `GET /api/git` and `GET /api/git/file?path=`
pub(crate) async fn serve(asked: &Git<'_>, path: &str, query: &str) -> Response {
    let allowed = match may_ask(asked).await {
        Ok(allowed) => allowed,
        Err(why) if path.is_empty() => {
            return reply::json(StatusCode::OK, &json!({ "repository": false, "why": why.to_string() }));
        }
        Err(why) => return reply::trouble(&Trouble::new("io_error", why.to_string())),
    };
    match path {
        "" if !allowed => reply::json(StatusCode::OK, &json!({ "repository": false })),
        "" => {
            let args = [
                "status",
                "--porcelain=v2",
                "--branch",
                "-z",
                "--untracked-files=normal",
                "--ignore-submodules=all",
            ];
            match git(asked, &args).await {
                Ok(out) => reply::json(StatusCode::OK, &status(asked.files, &out)),
                Err(why) => {
                    reply::json(StatusCode::OK, &json!({ "repository": false, "why": why.to_string() }))
                }
            }
        }
        "/file" => committed(asked, query, allowed).await,
        _ => reply::not_found(),
    }
}

/// A file as it is in the last commit; no content if it is not there.
async fn committed(asked: &Git<'_>, query: &str, allowed: bool) -> Response {
    let given =
        url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "path").map(|(_, path)| path);
    let Some(given) = given else { return reply::trouble(&Trouble::bad("path is required")) };
    let relative = match asked.files.names.file(&given) {
        Ok(relative) => relative,
        Err(trouble) => return reply::trouble(&trouble),
    };
    if !allowed {
        return reply::empty(StatusCode::NO_CONTENT);
    }
    match git(asked, &["cat-file", "blob", &format!("HEAD:./{relative}")]).await {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(_) => reply::empty(StatusCode::NO_CONTENT),
    }
}

/// What `git status --porcelain=v2 -z --branch` has printed (git-status(1)).
fn status(files: &Files, out: &[u8]) -> Value {
    let text = String::from_utf8_lossy(out);
    let mut said = json!({ "repository": true });
    let mut changes = BTreeMap::new();
    let mut truncated = false;
    let mut parts = text.split('\0');
    while let Some(part) = parts.next() {
        let (kind, rest) = part.split_once(' ').unwrap_or((part, ""));
        let change = match kind {
            "#" => {
                heading(&mut said, rest);
                None
            }
            "1" => rest.splitn(8, ' ').nth(7).map(|path| (path, rest)),
            "2" => {
                // Where it was before follows.
                parts.next();
                rest.splitn(9, ' ').nth(8).map(|path| (path, rest))
            }
            "u" => rest.splitn(10, ' ').nth(9).map(|path| (path, "UU")),
            "?" => Some((rest, ".?")),
            _ => None,
        };
        let Some((path, states)) = change else { continue };
        if changes.len() >= MAX_CHANGES {
            truncated = true;
            break;
        }
        let mut letters = states.chars();
        let (index, tree) = (letters.next().unwrap_or('.'), letters.next().unwrap_or('.'));
        let state = if tree == '.' { index } else { tree };
        let path = path.trim_end_matches('/');
        changes.insert(
            path.to_owned(),
            json!({
                "path": files.names.absolute(path), "state": state.to_string(), "staged": tree == '.',
            }),
        );
    }
    said["changes"] = changes.into_values().collect();
    said["truncated"] = truncated.into();
    said
}

fn heading(said: &mut Value, rest: &str) {
    match rest.split_once(' ') {
        Some(("branch.oid", oid)) => said["head"] = oid.into(),
        Some(("branch.head", name)) => said["branch"] = name.into(),
        Some(("branch.ab", counts)) => {
            for (count, sign, name) in
                counts.split(' ').zip([('+', "ahead"), ('-', "behind")]).map(|(c, (s, n))| (c, s, n))
            {
                said[name] = count.trim_start_matches(sign).parse::<u64>().unwrap_or(0).into();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_run_programs_are_known() {
        for key in [
            "core.fsmonitor",
            "core.sshCommand",
            "core.hooksPath",
            "core.worktree",
            "filter.x.clean",
            "filter.x.process",
            "include.path",
            "includeIf.gitdir:/.path",
            "diff.x.textconv",
            "diff.external",
            "extensions.worktreeConfig",
            "remote.origin.promisor",
            "remote.origin.uploadpack",
        ] {
            assert!(runs_programs(key), "{key}");
        }
        for key in ["core.bare", "core.autocrlf", "remote.origin.url", "branch.main.merge", "user.name"] {
            assert!(!runs_programs(key), "{key}");
        }
    }
}
