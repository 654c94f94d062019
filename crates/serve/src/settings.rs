//! What the environment says (`docs/workspace.md`, "Settings").

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork_process::sandbox::{Limits as Bounds, Profile};

use legwork_policy::Policy;

use crate::access::Access;
use crate::exposure::{Exposure, HostName, Ports};

/// Entries that trees leave out.
const EXCLUDED: &[&str] = &["node_modules", ".git", ".hg", ".svn", "__pycache__", ".DS_Store"];

/// Largest message that clients are told of.
const MAX_PAYLOAD: usize = 10 << 20;

/// How a workspace is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the user's application listens.
    pub user_port: u16,
    /// The workspace's root, as it was given.
    pub workspace: String,
    /// Who may connect.
    pub access: Access,
    /// Which ports may be previewed, and by whom.
    pub exposure: Exposure,
    /// Names that trees leave out.
    pub exclude: Vec<String>,
    /// Most clients.
    pub max_connections: usize,
    /// Most terminals that run at a time.
    pub max_terminals: usize,
    /// Largest file that is sent or taken in an event.
    pub max_file: u64,
    /// Largest message, but for a save.
    pub max_payload: usize,
    /// Largest save: as JSON a file may be six times as large.
    pub max_message: usize,
    /// Largest upload.
    pub max_upload: u64,
    /// Bytes that must stay free on the workspace's disk.
    pub min_free: u64,
    /// What runs beside the terminal.
    pub start_command: Option<String>,
    /// How long a command in a terminal may take; the shared one is not bound.
    pub terminal_timeout: Option<Duration>,
    /// Lines that are kept of what has left a terminal's screen.
    pub scrollback: usize,
    /// The wall around terminals.
    pub sandbox: Profile,
    /// Bounds on what terminals behind a wall use.
    pub bounds: Bounds,
    /// Whether terminals behind Landlock may use sockets by path, all of them.
    pub unix_sockets: bool,
    /// Whether connections can be recovered.
    pub recovery: bool,
    /// Time between pings.
    pub ping_interval: Duration,
    /// Time for an answer to a ping.
    pub ping_timeout: Duration,
    /// Without clients and without output for this long the server ends.
    pub idle_shutdown: Option<Duration>,
    /// Where the workspace is kept: `s3://…` or `file://…`.
    pub storage: Option<String>,
    /// Names that are not stored.
    pub storage_exclude: Vec<String>,
    /// Time between saves.
    pub save_every: Option<Duration>,
    /// Where the audit is, and snapshots if there is no storage.
    pub state: PathBuf,
    /// Whether the operator has said where that is.
    pub state_is_given: bool,
    /// What may run; `None` for anything.
    pub policy: Option<Policy>,
    /// Where terminals without a network of their own may connect to; `None` for nowhere.
    pub egress: Option<Vec<String>>,
    /// What is not as it seems to be meant, in a sentence each: to be logged.
    pub warnings: Vec<String>,
    /// Rules of the security scan.
    pub scan_rules: Option<PathBuf>,
    /// The environment of shells.
    pub env: BTreeMap<String, String>,
    /// The environment that storage is configured by.
    pub storage_env: BTreeMap<String, String>,
}

/// A setting that can't be used: the server is not started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// All variables, with those of a file where the environment has none.
struct Vars {
    all: BTreeMap<String, String>,
}

impl Vars {
    fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, Invalid> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => {
                text.trim().parse().map_err(|_| Invalid(format!("{name} must be a number, not {text:?}")))
            }
        }
    }

    fn port(&self, name: &str, default: u16) -> Result<u16, Invalid> {
        match self.get(name).map(|t| t.trim().parse::<u16>()) {
            None => Ok(default),
            Some(Ok(port)) => Ok(port),
            Some(Err(_)) => Err(Invalid(format!(
                "{name} must be a port (0 to 65535), not {:?}",
                self.get(name).unwrap_or_default()
            ))),
        }
    }

    fn ports(&self, name: &str, default: impl FnOnce() -> Ports) -> Result<Ports, Invalid> {
        let Some(text) = self.get(name) else { return Ok(default()) };
        Ports::parse(text).ok_or_else(|| {
            Invalid(format!("{name} must be ports like 3000,5000-5999, or none, not {text:?}"))
        })
    }

    /// Seconds; 0 for none.
    fn seconds(&self, name: &str, default: u64) -> Result<Option<Duration>, Invalid> {
        let seconds: u64 = self.number(name, default)?;
        Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        let text = self.all.get(name)?;
        Some(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect())
    }

    fn switch(&self, name: &str, default: bool) -> Result<bool, Invalid> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("on" | "true" | "1" | "yes") => Ok(true),
            Some("off" | "false" | "0" | "no") => Ok(false),
            Some(other) => Err(Invalid(format!("{name} must be on or off, not {other:?}"))),
        }
    }
}

/// Reads `.env` of a folder, if there is one.
fn dotenv(dir: &Path) -> Result<Vec<(String, String)>, Invalid> {
    let path = dir.join(".env");
    let bad = |e: dotenvy::Error| Invalid(format!("{}: {e}", path.display()));
    match dotenvy::from_path_iter(&path) {
        Ok(pairs) => pairs.collect::<Result<_, _>>().map_err(bad),
        Err(dotenvy::Error::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(bad(error)),
    }
}

/// Those of ours that begin with our name.
const OURS: &[&str] = &[
    "LEGWORK_WORKSPACE_TOKEN",
    "LEGWORK_WORKSPACE_VIEW_TOKEN",
    "LEGWORK_POLICY",
    "LEGWORK_EGRESS",
    "LEGWORK_STATE_DIR",
    "LEGWORK_LOG_LEVEL",
    "LEGWORK_LOG_FORMAT",
];
/// Those that a person may take for such.
const WITHOUT_PREFIX: &[&str] = &[
    "SANDBOX",
    "SANDBOX_UNIX_SOCKETS",
    "MAX_MEMORY_BYTES",
    "MAX_PROCESSES",
    "AUTH",
    "ALLOWED_ORIGINS",
    "WORKSPACE",
    "HOST",
    "PORT",
    "USER_PORT",
];

/// Settings that hang together.
impl Vars {
    /// Variables that are nearly ours, and so change nothing: a rule that is not in force must
    /// not look as if it were. Those of the other commands may be there as well.
    fn misspelt(&self) -> Vec<String> {
        let mut found = Vec::new();
        for name in self.all.keys().filter(|name| !OURS.contains(&name.as_str())) {
            let Some(rest) = name.strip_prefix("LEGWORK_") else { continue };
            let distance = |known: &&&str| strsim::damerau_levenshtein(known, name);
            let near = OURS.iter().min_by_key(distance).filter(|known| distance(known) <= 2);
            let near = near.or_else(|| WITHOUT_PREFIX.iter().find(|known| **known == rest));
            if let Some(near) = near {
                found.push(format!(
                    "{name} is not a setting of this server and changes nothing; did you mean {near}?"
                ));
            }
        }
        found
    }

    /// What begins outside walls and rules by the operator's word.
    fn outside(&self, sandbox: Profile) -> Option<String> {
        self.get("START_COMMAND")?;
        (sandbox != Profile::Off || self.get("LEGWORK_POLICY").is_some()).then(|| {
            "START_COMMAND runs outside SANDBOX and LEGWORK_POLICY, which hold for terminals: it must run nothing that \
             who works in the workspace can change"
                .to_owned()
        })
    }

    /// Where to listen, and who may connect.
    fn access(&self) -> Result<(SocketAddr, Access), Invalid> {
        let address: IpAddr = match self.get("HOST").unwrap_or("127.0.0.1") {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host.parse().map_err(|_| Invalid(format!("HOST must be an IP address, not {host:?}")))?,
        };
        let work = self.get("LEGWORK_WORKSPACE_TOKEN");
        let look = self.get("LEGWORK_WORKSPACE_VIEW_TOKEN");
        match self.get("AUTH") {
            None if work.is_none() && !address.is_loopback() => {
                return Err(Invalid(format!(
                    "{address} can be reached by others: set LEGWORK_WORKSPACE_TOKEN, or AUTH=none if whatever is \
                     in front of it decides who may connect"
                )));
            }
            None | Some("none") => {}
            Some(other) => return Err(Invalid(format!("AUTH can only be none, not {other:?}"))),
        }
        if look.is_some() && work.is_none() {
            return Err(Invalid(
                "LEGWORK_WORKSPACE_VIEW_TOKEN needs LEGWORK_WORKSPACE_TOKEN beside it".into(),
            ));
        }
        let origins = self.list("ALLOWED_ORIGINS").unwrap_or_default();
        let access = Access::new(work, look, &origins, address.is_loopback());
        Ok((SocketAddr::new(address, self.port("PORT", 3001)?), access))
    }

    /// Which ports may be previewed, and by whom.
    fn exposure(&self, user_port: u16) -> Result<Exposure, Invalid> {
        Ok(Exposure {
            work: self.ports("PREVIEW_PORTS", || Ports::parse("1-65535").unwrap_or_default())?,
            look: self.ports("PREVIEW_VIEW_PORTS", || Ports::one(user_port))?,
            public: self.ports("PREVIEW_PUBLIC_PORTS", Ports::default)?,
            host: self.preview_host()?,
        })
    }

    /// The name under which previews are, if they have one.
    fn preview_host(&self) -> Result<Option<HostName>, Invalid> {
        let host = self.get("PREVIEW_HOST").map(HostName::parse).transpose();
        host.map_err(|error| Invalid(error.to_string()))
    }

    /// The wall around terminals, and bounds on what they use.
    fn walls(&self) -> Result<(Profile, Bounds), Invalid> {
        let sandbox = profile(self.get("SANDBOX"))?;
        let memory: u64 = self.number("MAX_MEMORY_BYTES", 0)?;
        let processes: u64 = self.number("MAX_PROCESSES", 0)?;
        if sandbox == Profile::Off && (memory > 0 || processes > 0) {
            return Err(Invalid(
                "MAX_MEMORY_BYTES and MAX_PROCESSES bound terminals behind a wall: set SANDBOX=landlock, or use \
                 the limits of the pod"
                    .into(),
            ));
        }
        let mut bounds = Bounds { memory: (memory > 0).then_some(memory), ..Bounds::default() };
        if processes > 0 {
            bounds.processes = Some(processes);
        }
        Ok((sandbox, bounds))
    }

    /// The folder for what is kept between starts.
    fn state(&self) -> Result<PathBuf, Invalid> {
        Ok(match (self.get("LEGWORK_STATE_DIR"), self.get("XDG_STATE_HOME"), self.get("HOME")) {
            (Some(dir), ..) if !Path::new(dir).is_absolute() => {
                return Err(Invalid(format!("LEGWORK_STATE_DIR must be an absolute path, not {dir:?}")));
            }
            (Some(dir), ..) => PathBuf::from(dir),
            (None, Some(dir), _) => Path::new(dir).join("legwork"),
            (None, None, Some(home)) => Path::new(home).join(".local/state/legwork"),
            _ => PathBuf::from("/var/lib/legwork"),
        })
    }
}

impl Settings {
    /// Reads the environment, and `.env` in `dir`, which must not be the workspace. `policy`
    /// reads a file of rules.
    pub fn read<E: Display>(
        environment: Vec<(OsString, OsString)>,
        dir: &Path,
        policy: impl FnOnce(&str) -> Result<Policy, E>,
    ) -> Result<Self, Invalid> {
        let mut all: BTreeMap<String, String> = environment
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned())))
            .collect();
        // What lies in the workspace never configures the server.
        let named = all.get("WORKSPACE").map_or("/workspace", String::as_str);
        let is_workspace = same_folder(Path::new(named), dir);
        let from_file = if is_workspace { Vec::new() } else { dotenv(dir)? };
        let file_names: Vec<String> = from_file.iter().map(|(name, _)| name.clone()).collect();
        for (name, value) in from_file {
            all.entry(name).or_insert(value);
        }
        let vars = Vars { all };
        let (listen, access) = vars.access()?;
        let user_port = vars.port("USER_PORT", 3000)?;
        let workspace = vars.get("WORKSPACE").unwrap_or("/workspace").to_owned();
        let max_file: u64 = vars.number("MAX_FILE_BYTES", 10 << 20)?;
        let (sandbox, bounds) = vars.walls()?;
        let policy = vars.get("LEGWORK_POLICY").map(policy).transpose();
        let policy = policy.map_err(|error| Invalid(error.to_string()))?;
        let egress = vars.list("LEGWORK_EGRESS");
        if egress.is_some() && sandbox != Profile::Namespaces {
            return Err(Invalid(
                "LEGWORK_EGRESS says where terminals may connect to, which SANDBOX=namespaces alone can hold"
                    .into(),
            ));
        }
        let storage = vars.get("S3_URI").or(vars.get("STORAGE_URI")).map(str::to_owned);
        let storage_env =
            vars.all.iter().filter(|(name, _)| name.starts_with("AWS_")).map(|(n, v)| (n.clone(), v.clone()));
        let env =
            crate::environment::inherited(environment.iter().cloned(), &file_names, &workspace, user_port);
        Ok(Self {
            listen,
            user_port,
            access,
            exposure: vars.exposure(user_port)?,
            exclude: vars
                .list("TREE_EXCLUDE")
                .unwrap_or_else(|| EXCLUDED.iter().map(|&e| e.to_owned()).collect()),
            max_connections: vars.number("MAX_CONNECTIONS", 64)?,
            max_terminals: vars.number("MAX_TERMINALS", 16)?,
            max_file,
            max_payload: MAX_PAYLOAD,
            max_message: usize::try_from(max_file)
                .unwrap_or(usize::MAX)
                .saturating_mul(6)
                .saturating_add(64 * 1024)
                .clamp(MAX_PAYLOAD, 1 << 30),
            max_upload: vars.number("MAX_UPLOAD_BYTES", 4 << 30)?,
            min_free: vars.number("MIN_FREE_BYTES", 64 << 20)?,
            start_command: vars.get("START_COMMAND").map(str::to_owned),
            terminal_timeout: vars.seconds("TERMINAL_TIMEOUT_SECONDS", 0)?,
            scrollback: vars.number("TERMINAL_SCROLLBACK_LINES", 5000)?,
            sandbox,
            bounds,
            unix_sockets: vars.switch("SANDBOX_UNIX_SOCKETS", false)?,
            recovery: vars.switch("RECOVERY", true)?,
            ping_interval: Duration::from_millis(vars.number("PING_INTERVAL_MS", 25_000)?),
            ping_timeout: Duration::from_millis(vars.number("PING_TIMEOUT_MS", 20_000)?),
            idle_shutdown: vars.seconds("IDLE_SHUTDOWN_SECONDS", 0)?,
            storage,
            storage_exclude: vars.list("STORAGE_EXCLUDE").unwrap_or_else(|| vec!["node_modules".to_owned()]),
            save_every: vars.seconds("SAVE_EVERY_SECONDS", 0)?,
            state: vars.state()?,
            scan_rules: vars.get("SCAN_RULES").map(PathBuf::from),
            env,
            storage_env: storage_env.collect(),
            workspace,
            state_is_given: vars.get("LEGWORK_STATE_DIR").is_some(),
            policy,
            egress,
            warnings: vars.misspelt().into_iter().chain(vars.outside(sandbox)).collect(),
        })
    }
}

fn same_folder(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

/// A wall by its name.
pub(crate) fn profile(name: Option<&str>) -> Result<Profile, Invalid> {
    match name {
        None | Some("off") => Ok(Profile::Off),
        Some("landlock") => Ok(Profile::Landlock),
        Some("namespaces") => Ok(Profile::Namespaces),
        Some(other) => Err(Invalid(format!("sandbox must be off, landlock or namespaces, not {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_policy(path: &str) -> Result<Policy, String> {
        Err(format!("LEGWORK_POLICY: failed to read {path}"))
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Invalid> {
        let dir = tempfile::tempdir().expect("tempdir");
        let pairs = pairs.iter().map(|(n, v)| (n.into(), v.into())).collect();
        Settings::read(pairs, dir.path(), no_policy)
    }

    #[test]
    fn nothing_set_is_the_original_on_loopback() {
        let settings = read(&[]).expect("settings");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:3001");
        assert_eq!((settings.user_port, &*settings.workspace), (3000, "/workspace"));
        assert_eq!(settings.env.get("PORT").map(String::as_str), Some("3000"));
        assert!(settings.recovery && settings.storage.is_none());
    }

    #[test]
    fn others_reach_it_only_when_that_was_said() {
        for (pairs, good) in [
            (&[("HOST", "0.0.0.0")][..], false),
            (&[("HOST", "0.0.0.0"), ("AUTH", "none")], true),
            (&[("HOST", "0.0.0.0"), ("AUTH", "off")], false),
            (&[("HOST", "0.0.0.0"), ("LEGWORK_WORKSPACE_TOKEN", "t")], true),
            (&[("HOST", "::1")], true),
            (&[("HOST", "example.org")], false),
            (&[("PORT", "70000")], false),
            (&[("PORT", "x")], false),
            (&[("MAX_CONNECTIONS", "many")], false),
            (&[("SANDBOX", "docker")], false),
            (&[("PREVIEW_PORTS", "3000,5000-5999")], true),
            (&[("PREVIEW_PORTS", "all")], false),
            (&[("PREVIEW_HOST", "{port}--a.example.com")], true),
            (&[("PREVIEW_HOST", "a.example.com")], false),
            (&[("MAX_MEMORY_BYTES", "1000000")], false),
            (&[("LEGWORK_WORKSPACE_VIEW_TOKEN", "t")], false),
            (&[("LEGWORK_EGRESS", "example.com:443")], false),
            (&[("LEGWORK_EGRESS", "example.com:443"), ("SANDBOX", "landlock")], false),
            (&[("LEGWORK_EGRESS", "example.com:443"), ("SANDBOX", "namespaces")], true),
            (&[("LEGWORK_POLICY", "/missing")], false),
        ] {
            assert_eq!(read(pairs).is_ok(), good, "{pairs:?}");
        }
    }

    #[test]
    fn a_setting_that_changes_nothing_is_not_passed_over_in_silence() {
        let warnings = |pairs: &[(&str, &str)]| read(pairs).expect("settings").warnings.join("\n");
        for (name, near) in [
            ("LEGWORK_POLCY", "LEGWORK_POLICY"),
            ("LEGWORK_POLICYS", "LEGWORK_POLICY"),
            ("LEGWORK_WORKSPACE_TOKNE", "LEGWORK_WORKSPACE_TOKEN"),
            ("LEGWORK_SANDBOX", "SANDBOX"),
        ] {
            let told = warnings(&[(name, "x")]);
            assert!(told.contains(name) && told.ends_with(&format!("did you mean {near}?")), "{told}");
        }
        // Those of the other commands.
        let others =
            ["LEGWORK_TOKEN", "LEGWORK_HUB_URL", "LEGWORK_GATE", "LEGWORK_CA_FILE", "LEGWORK_SECRETS"];
        assert_eq!(warnings(&others.map(|name| (name, "x"))), "");
        assert!(warnings(&[("START_COMMAND", "x"), ("SANDBOX", "landlock")]).contains("outside"));
        assert_eq!(warnings(&[("START_COMMAND", "x")]), "");
    }

    #[test]
    fn secrets_and_what_the_file_holds_reach_no_shell() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join(".env"), "AWS_REGION=eu\nMINE=1\nUSER_PORT=4000\nPORT=3333\n")
            .expect("file");
        let pairs = [
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("LEGWORK_WORKSPACE_TOKEN", "t"),
            ("HOME", "/h"),
            ("MINE", "2"),
            ("PORT", "4444"),
        ];
        let vars = || pairs.iter().map(|(n, v)| (n.into(), v.into())).collect();
        let settings = Settings::read(vars(), dir.path(), no_policy).expect("settings");
        assert_eq!(settings.listen.port(), 4444);
        assert_eq!(settings.storage_env.len(), 2);
        let names: Vec<&str> = settings.env.keys().map(String::as_str).collect();
        assert_eq!(names, ["HOME", "PORT", "PWD", "TERM"]);
        assert_eq!(settings.env["PORT"], "4000");
        // A file in the workspace says nothing.
        let mut inside: Vec<(OsString, OsString)> = vars();
        inside.push(("WORKSPACE".into(), dir.path().into()));
        assert_eq!(Settings::read(inside, dir.path(), no_policy).expect("settings").user_port, 3000);
    }
}
