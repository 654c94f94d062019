//! The runner's configuration: flags over environment over file over default.
//!
//! This module gets file and environment as values; the one thing it reads itself is
//! a file that holds a secret.

mod rules;
mod sandbox;
mod settings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use legwork_base::Secret;
use legwork_policy::Policy;
use legwork_runner::{Destinations, Egress, Rules as RunnerRules, Wanted};

use legwork_yaml::Node;
pub use rules::{Rules, rules_of};
use settings::Reader;
pub use settings::Setting;

/// Where the original's token generation connects to.
pub const DEFAULT_TOKEN_URL: &str = "wss://api.flashcat.cloud/safari/worknode/ws";
/// Where the original's API key generation connects to.
pub const DEFAULT_API_KEY_URL: &str = "wss://api.flashcat.cloud/runner/ws";

/// How the runner says who it is; decides the protocol's generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Generation T.
    Token(Secret),
    /// Generation K.
    ApiKey(Secret),
}

/// Where the token is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamOutput {
    /// To hubs that ask for it.
    #[default]
    Auto,
    /// To every hub.
    Always,
    /// To none.
    Never,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// To the journal, with its fields and levels.
    Journald,
}

/// How TLS is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate chain and its key, in PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Where updates come from, and whose they must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The folder of the manifest, without a slash at its end.
    pub url: String,
    /// Ed25519, as in the configuration.
    pub public_key: String,
    /// Whether the runner looks by itself.
    pub auto: bool,
}

/// How long, and how much, is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "docs/dialout.md describes each key")]
pub struct Retention {
    pub tasks_age: Duration,
    pub tasks: u64,
    pub spool_bytes: u64,
    pub outputs_age: Duration,
    pub outputs_bytes: u64,
    pub audit_age: Duration,
    pub audit_bytes: u64,
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
    /// For MCP servers; `policy` where there is none.
    pub mcp_policy: Option<Policy>,
    /// The file with what the operator knows of programs.
    pub tables: Option<PathBuf>,
    /// Whether terminals may be opened.
    pub shell: bool,
    /// Where the runner itself may connect for a controller.
    pub egress: Egress,
    /// The walls around commands.
    pub sandbox: Wanted,
    /// Where commands may connect to, if a wall holds their network.
    pub destinations: Arc<Destinations>,
    pub env_pass: Vec<String>,
    pub max_tasks: usize,
    pub max_read_bytes: u64,
    /// The largest message taken from a hub.
    pub max_message_bytes: usize,
    pub token_in: TokenIn,
    pub stream_output: StreamOutput,
    pub tls: Tls,
    /// The proxy variables of the operator's environment.
    pub proxy: crate::proxy::Proxies,
    pub update: Option<Update>,
    pub retention: Retention,
    /// Where to answer whether we are well.
    pub health: Option<SocketAddr>,
    pub log_level: String,
    pub log_format: LogFormat,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Every value with its source.
    pub settings: Vec<Setting>,
}

impl Config {
    /// What takes effect without a restart.
    pub fn rules(&self) -> RunnerRules {
        RunnerRules {
            policy: self.policy.clone(),
            mcp_policy: self.mcp_policy.clone(),
            destinations: self.destinations.clone(),
        }
    }

    /// The keys, of those that need a restart, in which another configuration differs.
    pub fn needs_restart(&self, other: &Self) -> Vec<String> {
        let reloaded = |key: &str| key.starts_with("permission.") || key == "sandbox.network.allow";
        let value =
            |config: &Self, key: &str| config.settings.iter().find(|s| s.key == key).map(|s| s.value.clone());
        let mut keys: Vec<String> = self
            .settings
            .iter()
            .chain(&other.settings)
            .map(|s| s.key.clone())
            .filter(|k| !reloaded(k))
            .collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| value(self, key) != value(other, key));
        keys
    }
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

fn parse(source: &Source) -> Result<Node, ConfigError> {
    legwork_yaml::parse(&source.text).map_err(|e| {
        ConfigError(format!(
            "failed to load config: failed to read config file: {}: {e}",
            source.path.display()
        ))
    })
}

/// The workspace, and the folder of state, which is never within it.
fn places(
    r: &mut Reader<'_>,
    source: &Source,
    flags: &Flags,
    env: &BTreeMap<String, String>,
    home: &Path,
) -> Result<(PathBuf, PathBuf), ConfigError> {
    let workspace = r.text(
        "workspace_root",
        &["LEGWORK_RUNNER_WORKSPACE", "FLASHDUTY_RUNNER_WORKSPACE", "FLASHDUTY_RUNNER_WORKSPACE_ROOT"],
        Some(("--workspace", flags.workspace.as_deref().and_then(Path::to_str))),
        || {
            let below = if source.original { ".flashduty-runner/workspace" } else { ".legwork/workspace" };
            home.join(below).display().to_string()
        },
    )?;
    let state_home = env.get("XDG_STATE_HOME").filter(|dir| !dir.is_empty());
    let state_dir = r.text("state_dir", &["LEGWORK_STATE_DIR"], None, || {
        let base = state_home.map_or_else(|| home.join(".local/state"), PathBuf::from);
        base.join("legwork").display().to_string()
    })?;
    let (workspace, state_dir) = (expand_home(workspace, home), expand_home(state_dir, home));
    if state_dir.starts_with(&workspace) {
        return Err(ConfigError(format!(
            "failed to load config: the state folder {} lies within the workspace {}, where tasks could change it; \
             set state_dir or workspace_root to another folder",
            state_dir.display(),
            workspace.display()
        )));
    }
    Ok((workspace, state_dir))
}

/// The runner's name; empty for the host's.
fn name(r: &mut Reader<'_>) -> Result<String, ConfigError> {
    match r.given("name", &["LEGWORK_RUNNER_NAME", "FLASHDUTY_RUNNER_NAME"], None)? {
        Some(given) => {
            r.note("name", given.text.clone(), given.source);
            Ok(given.text)
        }
        None => {
            r.note("name", "(the host's name)", "default");
            Ok(String::new())
        }
    }
}

/// The rules, with a warning for each that its author may have meant otherwise.
fn rules_in(r: &mut Reader<'_>, source: &Source, warnings: &mut Vec<String>) -> Result<Rules, ConfigError> {
    let mut rules = rules::read(r)?;
    if source.original {
        warnings.extend(rules::imply_children(&mut rules.bash, rules.mcp.as_mut()));
    }
    let mut notes = rules.bash.notes();
    notes.extend(rules.mcp.as_ref().map(Policy::notes).unwrap_or_default());
    if source.original {
        notes.extend(rules.bash.order_notes());
    }
    warnings.extend(notes.into_iter().map(|n| format!("rule '{}' {}", n.pattern, n.message)));
    Ok(rules)
}

/// How the token travels, and when output is streamed.
fn words(r: &mut Reader<'_>) -> Result<(TokenIn, StreamOutput), ConfigError> {
    let token_in = r.word(
        "token_in",
        &["LEGWORK_TOKEN_IN"],
        &[("auto", TokenIn::Auto), ("header", TokenIn::Header), ("query", TokenIn::Query)],
        "auto",
    )?;
    let stream_output = r.word(
        "stream_output",
        &[],
        &[("auto", StreamOutput::Auto), ("always", StreamOutput::Always), ("never", StreamOutput::Never)],
        "auto",
    )?;
    Ok((token_in, stream_output))
}

/// Where to answer whether we are well.
fn health(r: &mut Reader<'_>) -> Result<Option<SocketAddr>, ConfigError> {
    match r.optional("health.listen", &["LEGWORK_HEALTH_LISTEN"])? {
        Some(text) => Ok(Some(text.parse().map_err(|_| {
            ConfigError(format!(
                "failed to load config: health.listen: '{text}' is no address with a port, such as 127.0.0.1:7441"
            ))
        })?)),
        None => Ok(None),
    }
}

/// Puts a configuration together. `home` is the user's, for defaults.
pub fn load(
    source: &Source,
    env: &BTreeMap<String, String>,
    flags: &Flags,
    home: &Path,
) -> Result<Config, ConfigError> {
    let file = source.path.display().to_string();
    let mut reader = Reader::new(&file, parse(source)?, env)?;
    let r = &mut reader;
    let mut warnings = Vec::new();
    let credential = credential(r, source, flags, home)?;
    let default_url = match credential {
        Credential::Token(_) => DEFAULT_TOKEN_URL,
        Credential::ApiKey(_) => DEFAULT_API_KEY_URL,
    };
    let url = url(r, flags, default_url)?;
    let (workspace, state_dir) = places(r, source, flags, env, home)?;
    let name = name(r)?;
    let labels = r.list_or_env("labels", &["LEGWORK_LABELS", "FLASHDUTY_RUNNER_LABELS"])?;
    let Rules { bash: policy, mcp: mcp_policy, shell, tables, .. } = rules_in(r, source, &mut warnings)?;
    let denied = r.list("webfetch.deny")?;
    let egress = Egress::parse(&denied)
        .map_err(|e| ConfigError(format!("failed to load config: {file}: webfetch.deny: {e}")))?;
    let env_pass = r.list("env.pass")?;
    let max_tasks = r.number("max_tasks", 1, 100_000, 32)?;
    let max_read_bytes = r.number("max_read_bytes", 1, 1 << 40, 32 << 20)?;
    let max_message_bytes = r.number("max_message_bytes", 1 << 16, 1 << 31, 64 << 20)?;
    let (token_in, stream_output) = words(r)?;
    let (mut sandbox, destinations) = sandbox::read(r, home, &policy)?;
    sandbox.gate = sandbox::gate(r)?;
    // Whatever is granted: the runner's own secrets are nobody's.
    sandbox.hide = vec![state_dir.clone()];
    sandbox.hide.extend((!source.path.as_os_str().is_empty()).then(|| source.path.clone()));
    let tls = tls(r, home)?;
    let update = update(r, &url, &mut warnings)?;
    let retention = retention(r)?;
    let health = health(r)?;
    let (log_level, log_format) = log(r, flags, &mut warnings)?;
    let proxy = crate::proxy::Proxies::from_env(env);
    refuse_unknown(r, source, &mut warnings)?;
    Ok(Config {
        credential,
        url,
        workspace,
        state_dir,
        name,
        labels,
        policy,
        mcp_policy,
        tables,
        shell,
        egress,
        sandbox,
        destinations: Arc::new(destinations),
        env_pass,
        max_tasks: usize::try_from(max_tasks).unwrap_or(usize::MAX),
        max_read_bytes,
        max_message_bytes: usize::try_from(max_message_bytes).unwrap_or(usize::MAX),
        token_in,
        stream_output,
        tls,
        proxy,
        update,
        retention,
        health,
        log_level,
        log_format,
        warnings,
        settings: reader.settings,
    })
}

fn credential(
    r: &mut Reader<'_>,
    source: &Source,
    flags: &Flags,
    home: &Path,
) -> Result<Credential, ConfigError> {
    let read = |path: &str| std::fs::read_to_string(expand_home(path.to_owned(), home));
    let token = r.secret(
        (
            "token",
            &["LEGWORK_RUNNER_TOKEN", "FLASHDUTY_RUNNER_TOKEN"],
            Some(("--token", flags.token.as_deref())),
        ),
        ("token_file", &["LEGWORK_RUNNER_TOKEN_FILE"]),
        &read,
    )?;
    let api_key = r.secret(
        ("api_key", &["LEGWORK_RUNNER_API_KEY", "FLASHDUTY_RUNNER_API_KEY"], None),
        ("api_key_file", &["LEGWORK_RUNNER_API_KEY_FILE"]),
        &read,
    )?;
    match (token, api_key) {
        (Some(token), _) => Ok(Credential::Token(token)),
        (None, Some(key)) => Ok(Credential::ApiKey(key)),
        (None, None) if source.original => Err(ConfigError(format!(
            "failed to load config: api_key is required: set api_key or api_key_file in {}, or \
             FLASHDUTY_RUNNER_API_KEY (a token, by FLASHDUTY_RUNNER_TOKEN or --token, does as well)",
            r.file
        ))),
        (None, None) => Err(ConfigError(
            "token is required: use --token flag or set FLASHDUTY_RUNNER_TOKEN environment variable \
             (or LEGWORK_RUNNER_TOKEN, or `token`, `token_file`, `api_key` or `api_key_file` in the config \
             file; `legwork init` enrols this machine with a hub)"
                .into(),
        )),
    }
}

fn url(r: &mut Reader<'_>, flags: &Flags, default: &str) -> Result<String, ConfigError> {
    let env = ["LEGWORK_RUNNER_URL", "FLASHDUTY_RUNNER_URL", "FLASHDUTY_RUNNER_API_URL"];
    // `url` is an alias; who gives both has a reason that we can't know.
    let alias = r.given("url", &[], None)?;
    let given = r.given("api_url", &env, Some(("--url", flags.url.as_deref())))?;
    let (text, source) = match (given, alias) {
        (Some(given), Some(alias)) if given.source.contains(':') => {
            return Err(ConfigError(format!(
                "failed to load config: {}: url and api_url are both given; keep one of them",
                alias.source
            )));
        }
        (Some(given), _) | (None, Some(given)) => (given.text, given.source),
        (None, None) => (default.to_owned(), "default".to_owned()),
    };
    if !text.starts_with("ws://") && !text.starts_with("wss://") {
        return Err(ConfigError(format!(
            "failed to load config: API_url must start with ws:// or wss://: '{text}' ({source})"
        )));
    }
    r.note("api_url", text.clone(), source);
    Ok(text)
}

fn tls(r: &mut Reader<'_>, home: &Path) -> Result<Tls, ConfigError> {
    let ca_file = r.optional("tls.ca_file", &["LEGWORK_CA_FILE"])?.map(|p| expand_home(p, home));
    let cert = r.optional("tls.client_cert", &["LEGWORK_CLIENT_CERT"])?;
    let key = r.optional("tls.client_key", &["LEGWORK_CLIENT_KEY"])?;
    let client = match (cert, key) {
        (Some(cert), Some(key)) => Some((expand_home(cert, home), expand_home(key, home))),
        (None, None) => None,
        _ => {
            return Err(ConfigError(
                "failed to load config: tls.client_cert and tls.client_key belong together: give both".into(),
            ));
        }
    };
    Ok(Tls { ca_file, client })
}

fn update(r: &mut Reader<'_>, hub: &str, warnings: &mut Vec<String>) -> Result<Option<Update>, ConfigError> {
    const BOOLS: &[(&str, bool)] = &[
        ("true", true),
        ("false", false),
        ("1", true),
        ("0", false),
        ("yes", true),
        ("no", false),
        ("on", true),
        ("off", false),
    ];
    let auto =
        r.word("auto_update", &["LEGWORK_AUTO_UPDATE", "FLASHDUTY_RUNNER_AUTO_UPDATE"], BOOLS, "true")?;
    let url = r.optional("update_url", &["LEGWORK_UPDATE_URL"])?;
    let public_key = r.optional("update_public_key", &["LEGWORK_UPDATE_PUBLIC_KEY"])?;
    let (url, public_key) = match (url, public_key) {
        (Some(url), Some(key)) => (url, key),
        (None, None) => return Ok(None),
        (given, _) => {
            let missing = if given.is_some() { "update_public_key" } else { "update_url" };
            warnings.push(format!("no updates: {missing} is not set; both it and its companion are needed"));
            return Ok(None);
        }
    };
    legwork_release::PublicKey::parse(&public_key)
        .map_err(|e| ConfigError(format!("failed to load config: update_public_key: {e}")))?;
    let url = match url.as_str() {
        // The hub we are connected to.
        "hub" => {
            let base = hub.replacen("ws", "http", 1);
            let origin = base.find("://").and_then(|at| base[at + 3..].find('/').map(|end| at + 3 + end));
            format!("{}/releases", &base[..origin.unwrap_or(base.len())])
        }
        url => url.trim_end_matches('/').to_owned(),
    };
    let loopback =
        ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|start| url.starts_with(start));
    if !url.starts_with("https://") && !loopback {
        return Err(ConfigError(format!(
            "failed to load config: update_url must start with https:// (or be 'hub' with a wss:// hub): '{url}'"
        )));
    }
    Ok(Some(Update { url, public_key, auto }))
}

fn retention(r: &mut Reader<'_>) -> Result<Retention, ConfigError> {
    const DAY: u64 = 86_400;
    const HUNDRED_YEARS: u64 = 36_525;
    let days = |days: u64| Duration::from_secs(days * DAY);
    Ok(Retention {
        tasks_age: Duration::from_secs(3600 * r.number("retention.tasks_hours", 1, HUNDRED_YEARS * 24, 24)?),
        tasks: r.number("retention.tasks", 1, u64::MAX, 1_000_000)?,
        spool_bytes: r.number("retention.spool_bytes", 0, u64::MAX, 10 << 30)?,
        outputs_age: days(r.number("retention.outputs_days", 1, HUNDRED_YEARS, 7)?),
        outputs_bytes: r.number("retention.outputs_bytes", 0, u64::MAX, 1 << 30)?,
        audit_age: days(r.number("retention.audit_days", 1, HUNDRED_YEARS, 365)?),
        audit_bytes: r.number("retention.audit_bytes", 1 << 20, u64::MAX, 1 << 30)?,
    })
}

fn log(
    r: &mut Reader<'_>,
    flags: &Flags,
    warnings: &mut Vec<String>,
) -> Result<(String, LogFormat), ConfigError> {
    let level = r.text(
        "log.level",
        &["LEGWORK_LOG_LEVEL", "FLASHDUTY_RUNNER_LOG_LEVEL"],
        Some(("--log-level", flags.log_level.as_deref())),
        || "info".into(),
    )?;
    let level = match level.to_ascii_lowercase() {
        level if ["debug", "info", "warn", "error"].contains(&level.as_str()) => level,
        // As in the original.
        _ => {
            warnings.push(format!("log.level '{level}' is none of debug, info, warn, error: using info"));
            "info".into()
        }
    };
    let format =
        r.text("log.format", &["LEGWORK_LOG_FORMAT", "FLASHDUTY_RUNNER_LOG_FORMAT"], None, || "text".into())?;
    let format = match format.to_ascii_lowercase().as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        "journald" => LogFormat::Journald,
        _ => {
            warnings.push(format!("log.format '{format}' is none of text, json, journald: using text"));
            LogFormat::Text
        }
    };
    Ok((level, format))
}

/// Unknown keys are errors in our own files and wherever permissions are concerned:
/// a misspelt rule must not be a missing one. In the original's file the rest is
/// only mentioned.
fn refuse_unknown(r: &Reader<'_>, source: &Source, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (line, problem) in r.unknown() {
        let text = format!("{} line {line}: {problem}", r.file);
        if !source.original || problem.contains("permission") {
            return Err(ConfigError(format!("failed to load config: {text}")));
        }
        warnings.push(text);
    }
    Ok(())
}

fn expand_home(path: String, home: &Path) -> PathBuf {
    let path = PathBuf::from(path);
    path.strip_prefix("~").map(|rest| home.join(rest)).unwrap_or(path)
}

#[cfg(test)]
mod tests;
