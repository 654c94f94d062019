//! The runner's configuration: flags over environment over file over default.
//!
//! This module reads no file and no environment by itself; it gets both as values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use legwork_policy::{Policy, RuleError};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

/// Where the original's token generation connects to.
pub const DEFAULT_TOKEN_URL: &str = "wss://api.flashcat.cloud/safari/worknode/ws";
/// Where the original's API key generation connects to.
pub const DEFAULT_API_KEY_URL: &str = "wss://api.flashcat.cloud/runner/ws";

/// A secret: shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, to be sent to the hub.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How the runner says who it is; decides the protocol's generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Generation T.
    Token(Secret),
    /// Generation K.
    ApiKey(Secret),
}

/// Where the token is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenIn {
    /// In a header, then in the query if the hub refuses that.
    #[default]
    Auto,
    /// In `Authorization: Bearer`.
    Header,
    /// In the URL's query, as the original.
    Query,
}

/// When output is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamOutput {
    /// To hubs that ask for it.
    #[default]
    Auto,
    /// To every hub.
    Always,
    /// To none.
    Never,
}

/// A whole, checked configuration.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "docs/dialout.md describes each key")]
pub struct Config {
    pub credential: Credential,
    pub url: String,
    pub workspace: PathBuf,
    pub state_dir: PathBuf,
    /// Empty for the host's name.
    pub name: String,
    pub labels: Vec<String>,
    pub policy: Policy,
    pub env_pass: Vec<String>,
    pub max_tasks: usize,
    pub max_read_bytes: u64,
    pub token_in: TokenIn,
    pub stream_output: StreamOutput,
    pub ca_file: Option<PathBuf>,
    pub log_level: String,
    pub log_json: bool,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Why a configuration can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// What the command line gave.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "flags of the same names")]
pub struct Flags {
    pub token: Option<String>,
    pub url: Option<String>,
    pub workspace: Option<PathBuf>,
    pub log_level: Option<String>,
}

/// The file's text, and what is known of it.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// For messages.
    pub path: PathBuf,
    /// The text.
    pub text: String,
    /// It is the original's file: unknown keys are warnings.
    pub original: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    token: Option<String>,
    api_key: Option<String>,
    #[serde(alias = "API_url", alias = "API_URL", alias = "url")]
    api_url: Option<String>,
    workspace_root: Option<PathBuf>,
    name: Option<String>,
    labels: Option<Vec<String>>,
    #[serde(rename = "auto_update")]
    _auto_update: Option<bool>,
    permission: Option<Permission>,
    log: Option<Log>,
    max_tasks: Option<usize>,
    max_read_bytes: Option<u64>,
    token_in: Option<TokenIn>,
    stream_output: Option<StreamOutput>,
    state_dir: Option<PathBuf>,
    sandbox: Option<String>,
    env: Option<EnvSection>,
    tls: Option<Tls>,
    #[serde(flatten)]
    unknown: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Permission {
    bash: Rules,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Log {
    level: Option<String>,
    format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EnvSection {
    pass: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tls {
    ca_file: Option<PathBuf>,
}

/// Rules in the order of the file.
#[derive(Debug, Default)]
struct Rules(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Rules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of patterns to allow, ask or deny")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rules, A::Error> {
                let mut rules = Vec::new();
                while let Some(rule) = map.next_entry::<String, String>()? {
                    rules.push(rule);
                }
                Ok(Rules(rules))
            }

            fn visit_unit<E>(self) -> Result<Rules, E> {
                Ok(Rules::default())
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Reads only the rules of a config file: what `legwork policy check` needs.
pub fn policy_of(source: &Source) -> Result<Policy, ConfigError> {
    let file = parse(source)?;
    build_policy(source, file.permission.unwrap_or_default())
}

fn parse(source: &Source) -> Result<File, ConfigError> {
    if source.text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_saphyr::from_str(&source.text).map_err(|e| {
        ConfigError(format!(
            "failed to load config: failed to read config file: {}: {e}",
            source.path.display()
        ))
    })
}

fn build_policy(source: &Source, permission: Permission) -> Result<Policy, ConfigError> {
    let rules = permission.bash.0;
    Policy::from_pairs(rules.iter().map(|(p, a)| (p.as_str(), a.as_str()))).map_err(|error| {
        let pattern = match &error {
            RuleError::UnknownAction { pattern, .. }
            | RuleError::ControlCharacter { pattern, .. }
            | RuleError::Duplicate { pattern, .. } => pattern.as_str(),
            RuleError::EmptyPattern { .. } => "\"\"",
        };
        let line = source.text.lines().position(|l| l.contains(pattern)).map_or(0, |i| i + 1);
        ConfigError(format!(
            "failed to load config: {} line {line}: permission.bash: {error}",
            source.path.display()
        ))
    })
}

/// Puts a configuration together. `home` is the user's, for defaults.
pub fn load(
    source: &Source,
    env: &BTreeMap<String, String>,
    flags: &Flags,
    home: &Path,
) -> Result<Config, ConfigError> {
    let file = parse(source)?;
    let mut warnings = Vec::new();
    if !file.unknown.is_empty() {
        let names: Vec<&str> = file.unknown.keys().map(String::as_str).collect();
        let text = format!("{}: unknown keys: {}", source.path.display(), names.join(", "));
        if !source.original {
            return Err(ConfigError(format!("failed to load config: {text}")));
        }
        warnings.push(text);
    }
    // Empty values count as unset.
    let from_env = |names: &[&str]| names.iter().find_map(|n| env.get(*n).filter(|v| !v.is_empty()).cloned());
    let given = |text: Option<String>| text.filter(|t| !t.is_empty());
    let token = given(flags.token.clone())
        .or_else(|| from_env(&["LEGWORK_RUNNER_TOKEN", "FLASHDUTY_RUNNER_TOKEN"]))
        .or_else(|| given(file.token));
    let api_key =
        from_env(&["LEGWORK_RUNNER_API_KEY", "FLASHDUTY_RUNNER_API_KEY"]).or_else(|| given(file.api_key));
    let credential = match (token, api_key) {
        (Some(token), _) => Credential::Token(Secret(token)),
        (None, Some(key)) => Credential::ApiKey(Secret(key)),
        (None, None) => {
            return Err(ConfigError(
                "token is required: use --token flag or set FLASHDUTY_RUNNER_TOKEN environment variable \
                 (or LEGWORK_RUNNER_TOKEN, or `token` or `api_key` in the config file; \
                 `legwork init` enrols this machine with a hub)"
                    .into(),
            ));
        }
    };
    let default_url = match credential {
        Credential::Token(_) => DEFAULT_TOKEN_URL,
        Credential::ApiKey(_) => DEFAULT_API_KEY_URL,
    };
    let url = given(flags.url.clone())
        .or_else(|| from_env(&["LEGWORK_RUNNER_URL", "FLASHDUTY_RUNNER_URL", "FLASHDUTY_RUNNER_API_URL"]))
        .or_else(|| given(file.api_url))
        .unwrap_or_else(|| default_url.into());
    if !url.starts_with("ws://") && !url.starts_with("wss://") {
        return Err(ConfigError("failed to load config: API_url must start with ws:// or wss://".into()));
    }
    let workspace = flags
        .workspace
        .clone()
        .or_else(|| {
            from_env(&[
                "LEGWORK_RUNNER_WORKSPACE",
                "FLASHDUTY_RUNNER_WORKSPACE",
                "FLASHDUTY_RUNNER_WORKSPACE_ROOT",
            ])
            .map(PathBuf::from)
        })
        .or(file.workspace_root)
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or_else(|| {
            home.join(if source.original { ".flashduty-runner/workspace" } else { ".legwork/workspace" })
        });
    let state_dir = from_env(&["LEGWORK_STATE_DIR"])
        .map(PathBuf::from)
        .or(file.state_dir)
        .or_else(|| from_env(&["XDG_STATE_HOME"]).map(|dir| Path::new(&dir).join("legwork")))
        .unwrap_or_else(|| home.join(".local/state/legwork"));
    let (workspace, state_dir) = (expand_home(workspace, home), expand_home(state_dir, home));
    if state_dir.starts_with(&workspace) {
        return Err(ConfigError(format!(
            "failed to load config: the state folder {} lies within the workspace {}, where tasks could change it",
            state_dir.display(),
            workspace.display()
        )));
    }
    match file.sandbox.as_deref() {
        None | Some("off") => {}
        Some(other) => {
            return Err(ConfigError(format!(
                "failed to load config: sandbox '{other}' is not available in this version (only 'off' is)"
            )));
        }
    }
    let log = file.log.unwrap_or_default();
    let log_level = given(flags.log_level.clone())
        .or_else(|| from_env(&["LEGWORK_LOG_LEVEL", "FLASHDUTY_RUNNER_LOG_LEVEL"]))
        .or_else(|| given(log.level))
        .filter(|level| ["debug", "info", "warn", "error"].contains(&level.as_str()))
        .unwrap_or_else(|| "info".into());
    let log_format =
        from_env(&["LEGWORK_LOG_FORMAT", "FLASHDUTY_RUNNER_LOG_FORMAT"]).or_else(|| given(log.format));
    let policy = build_policy(source, file.permission.unwrap_or_default())?;
    warnings.extend(policy.notes().into_iter().map(|n| format!("rule '{}' {}", n.pattern, n.message)));
    let max_tasks = file.max_tasks.unwrap_or(32);
    if max_tasks == 0 {
        return Err(ConfigError("failed to load config: max_tasks must be at least 1".into()));
    }
    Ok(Config {
        credential,
        url,
        workspace,
        state_dir,
        name: from_env(&["LEGWORK_RUNNER_NAME", "FLASHDUTY_RUNNER_NAME"])
            .or_else(|| given(file.name))
            .unwrap_or_default(),
        labels: file.labels.unwrap_or_default(),
        policy,
        env_pass: file.env.unwrap_or_default().pass,
        max_tasks,
        max_read_bytes: file.max_read_bytes.unwrap_or(32 << 20),
        token_in: file.token_in.unwrap_or_default(),
        stream_output: file.stream_output.unwrap_or_default(),
        ca_file: file.tls.unwrap_or_default().ca_file,
        log_level,
        log_json: log_format.as_deref() == Some("json"),
        warnings,
    })
}

fn expand_home(path: PathBuf, home: &Path) -> PathBuf {
    path.strip_prefix("~").map(|rest| home.join(rest)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Config, String> {
        let source = Source { path: "/c.yaml".into(), text: text.into(), original: false };
        let env = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        load(&source, &env, flags, Path::new("/home/me")).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_beat_environment_beats_file_beats_default() {
        let file = "token: f\napi_url: ws://file/\nworkspace_root: /f\nlog:\n  level: warn\n";
        let config = with(file, &[], &Flags::default()).expect("valid");
        assert_eq!((config.url.as_str(), config.log_level.as_str()), ("ws://file/", "warn"));
        let env =
            [("FLASHDUTY_RUNNER_URL", "ws://env/"), ("LEGWORK_RUNNER_NAME", "n"), ("LEGWORK_LOG_LEVEL", "")];
        let config = with(file, &env, &Flags::default()).expect("valid");
        assert_eq!((config.url.as_str(), config.name.as_str()), ("ws://env/", "n"));
        let flags = Flags { url: Some("wss://flag/".into()), ..Flags::default() };
        assert_eq!(with(file, &env, &flags).expect("valid").url, "wss://flag/");
        let config = with("api_key: k", &[], &Flags::default()).expect("valid");
        assert_eq!(config.url, DEFAULT_API_KEY_URL);
        assert_eq!(config.workspace, Path::new("/home/me/.legwork/workspace"));
        assert_eq!(config.max_tasks, 32);
    }

    #[test]
    fn rules_keep_the_order_and_spelling_of_the_file() {
        let file = "token: t\npermission:\n  bash:\n    \"*\": deny\n    \"Kubectl get a.b *\": allow\n    \"a*\": Ask\n";
        let config = with(file, &[], &Flags::default()).expect("valid");
        let patterns: Vec<&str> = config.policy.rules().iter().map(|r| r.pattern()).collect();
        assert_eq!(patterns, ["*", "Kubectl get a.b *", "a*"]);
        assert!(with("token: t", &[], &Flags::default()).expect("valid").policy.rules().is_empty());
    }

    #[test]
    fn bad_files_are_refused_with_place_and_reason() {
        for (file, want) in [
            ("", "token is required: use --token flag or set FLASHDUTY_RUNNER_TOKEN environment variable"),
            ("token: t\nurl: http://x", "API_url must start with ws:// or wss://"),
            (
                "token: t\npermission:\n  bash:\n    \"ls *\": alow\n",
                "line 4: permission.bash: rule 'ls *': unknown action 'alow'",
            ),
            ("token: t\npermission:\n  bash:\n    \"ls\": allow\n    \"ls\": deny\n", "ls"),
            ("token: t\npermission:\n  shell: allow\n", "shell"),
            ("token: t\nmax_task: 3\n", "unknown keys: max_task"),
            ("token: t\nsandbox: gvisor\n", "sandbox 'gvisor' is not available"),
            ("token: t\nmax_tasks: 0\n", "max_tasks must be at least 1"),
            ("token: t\nworkspace_root: /w\nstate_dir: /w/s\n", "lies within the workspace"),
            ("token: [", "failed to read config file"),
            ("token: t\nmax_tasks: many\n", "failed to read config file"),
        ] {
            let error = with(file, &[], &Flags::default()).expect_err(file);
            assert!(error.contains(want), "{file:?}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = with("token: hunter2", &[], &Flags::default()).expect("valid");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
