//! Replacing this program by a newer one: found, checked, tried, and only then put
//! in its place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use legwork_dialout::config::{Config, Credential, Update};
use legwork_process::trial;
use legwork_release::{Fetcher, Manifest, PublicKey, Staged, stage};
use serde::{Deserialize, Serialize};

/// The first argument of a process that tries a new version.
pub(crate) const TRIAL_ARG: &str = "__trial";
/// A new version has so long to connect.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// This version; the newest if none.
    pub(crate) version: Option<String>,
    /// It may be older.
    #[serde(default)]
    pub(crate) downgrade: bool,
}

/// What became of the last attempt; kept in the runner's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// `trying`, `installed`, `failed`, `current`.
    pub(crate) state: String,
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) reason: String,
    pub(crate) at_ms: u64,
    /// Versions that did not work here, and are not tried again by themselves.
    #[serde(default)]
    pub(crate) refused: Vec<String>,
}

fn report_file(state: &Path) -> PathBuf {
    state.join("update.json")
}

fn wish_file(state: &Path) -> PathBuf {
    state.join("update-wish.json")
}

/// The last report, if there is one.
pub(crate) fn last_report(state: &Path) -> Report {
    let text = std::fs::read_to_string(report_file(state)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

pub(crate) fn write_report(state: &Path, what: &str, version: &str, reason: &str) {
    let mut report = last_report(state);
    if what == "failed" && !version.is_empty() && !report.refused.iter().any(|v| v == version) {
        report.refused.push(version.to_owned());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    report = Report {
        state: what.into(),
        version: version.into(),
        reason: reason.into(),
        at_ms: u64::try_from(now).unwrap_or(u64::MAX),
        refused: report.refused,
    };
    let text = serde_json::to_string(&report).unwrap_or_default();
    if let Err(error) = crate::context::write_private(&report_file(state), &text) {
        tracing::warn!("{error:#}");
    }
}

/// Leaves a wish for a running runner.
pub(crate) fn leave_wish(state: &Path, wish: &Wish) -> Result<()> {
    crate::context::write_private(&wish_file(state), &serde_json::to_string(wish)?)
}

/// Takes a wish that was left.
pub(crate) fn take_wish(state: &Path) -> Option<Wish> {
    let text = std::fs::read_to_string(wish_file(state)).ok()?;
    let _ = std::fs::remove_file(wish_file(state));
    serde_json::from_str(&text).ok()
}

/// Who connected last.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Connected {
    version: String,
    pid: u32,
}

fn connected_file(state: &Path) -> PathBuf {
    state.join("connected.json")
}

/// Leaves word that this process has connected.
pub(crate) fn mark_connected(state: &Path) {
    let mark = Connected { version: legwork_release::version().into(), pid: std::process::id() };
    let text = serde_json::to_string(&mark).unwrap_or_default();
    if let Err(error) = crate::context::write_private(&connected_file(state), &text) {
        tracing::warn!("{error:#}");
    }
}

/// Replaces the program of a service that may not do it itself: puts the new one in
/// its place, has the runner `pid` restarted by whoever looks after it, and puts the
/// old one back if the new one does not connect.
pub(crate) async fn replace_from_outside(
    staged: Staged,
    version: &str,
    state: &Path,
    pid: u32,
) -> Result<()> {
    let program = program()?;
    let old = program.with_file_name(".legwork.previous");
    let _ = std::fs::remove_file(&old);
    std::fs::hard_link(&program, &old).with_context(|| old.display().to_string())?;
    let _ = std::fs::remove_file(connected_file(state));
    staged.commit()?;
    let detach = |pid: u32| {
        let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        process.map(|p| rustix::process::kill_process(p, rustix::process::Signal::USR2))
    };
    detach(pid);
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let text = std::fs::read_to_string(connected_file(state)).unwrap_or_default();
        let mark: Connected = serde_json::from_str(&text).unwrap_or_default();
        if mark.version == version {
            let _ = std::fs::remove_file(&old);
            return Ok(());
        }
    }
    std::fs::rename(&old, &program).with_context(|| program.display().to_string())?;
    // Whatever the new one is doing, its successor is the old one again.
    if let Some(pid) = std::fs::read_to_string(state.join("lock")).ok().and_then(|t| t.trim().parse().ok()) {
        detach(pid);
    }
    bail!("{version} was not connected within {} s: the old version is back", PATIENCE.as_secs())
}

/// What a look at the published releases found.
pub(crate) enum Found {
    /// This is the newest, or the one asked for.
    Current,
    /// That one can be had.
    Other(Box<Manifest>),
}

/// Looks at what is published.
pub(crate) async fn look(fetcher: &Fetcher, wish: &Wish) -> Result<Found> {
    let wanted = wish.version.as_deref().map(|v| {
        semver::Version::parse(v.trim_start_matches('v'))
            .map_err(|e| anyhow!("'{v}' is no version such as 1.2.3: {e}"))
    });
    let wanted = wanted.transpose()?;
    let manifest = fetcher.manifest(wanted.as_ref()).await?;
    let own = semver::Version::parse(legwork_release::version())?;
    if manifest.version == own || (wanted.is_none() && manifest.version < own) {
        return Ok(Found::Current);
    }
    if manifest.version < own && !wish.downgrade {
        bail!(
            "{} is older than {own}, which runs here: give --allow-downgrade if that is wanted",
            manifest.version
        );
    }
    manifest.archive(&legwork_release::target())?;
    Ok(Found::Other(Box::new(manifest)))
}

/// Where updates come from, with the runner's own credential if that is its hub.
pub(crate) fn fetcher(config: &Config, update: &Update) -> Result<Fetcher> {
    let mut http = legwork_net::client().connect_timeout(Duration::from_secs(10));
    if let Some(path) = &config.tls.ca_file {
        let trusted = legwork_net::trust_file(http, path);
        http = trusted.with_context(|| format!("tls.ca_file {}", path.display()))?;
    }
    let key = PublicKey::parse(&update.public_key)?;
    let origin = |url: &str| {
        let start = url.find("://").map_or(0, |at| at + 3);
        let end = url[start..].find(['/', '?']).map_or(url.len(), |at| start + at);
        url[..end].to_ascii_lowercase()
    };
    let own_hub = origin(&config.url.replacen("ws", "http", 1)) == origin(&update.url);
    let token = own_hub.then(|| match &config.credential {
        Credential::Token(secret) | Credential::ApiKey(secret) => secret.expose().to_owned(),
    });
    Ok(Fetcher::new(http.build()?, &update.url, key, token))
}

/// Downloads a release, unpacks it beside this program, and sees that it is what it
/// says.
pub(crate) async fn prepare(
    fetcher: &Fetcher,
    wish: &Wish,
    manifest: &Manifest,
    scratch: &Path,
    progress: legwork_release::Progress<'_>,
) -> Result<Staged> {
    let archive = manifest.archive(&legwork_release::target())?;
    let file = scratch.join(format!("download-{}", std::process::id()));
    let folder = wish.version.is_some().then_some(&manifest.version);
    let downloaded = fetcher.download(archive, folder, &file, progress).await;
    let staged = match downloaded {
        Ok(()) => {
            let (file, program) = (file.clone(), program()?);
            tokio::task::spawn_blocking(move || stage(&file, &program)).await?.map_err(Into::into)
        }
        Err(error) => Err(anyhow!(error)),
    };
    let _ = std::fs::remove_file(&file);
    let staged = staged?;
    let path = staged.path().to_owned();
    let said = tokio::task::spawn_blocking(move || trial::output_of(&path, &["version"])).await?;
    let said = said.map_err(|e| anyhow!("the new program can't be started on this machine: {e}"))?;
    let version = manifest.version.to_string();
    if !said.lines().next().unwrap_or_default().split_whitespace().any(|word| word == version) {
        bail!("the new program says that it is '{}', not {version}: it is not used", said.trim());
    }
    Ok(staged)
}

/// This program's file.
pub(crate) fn program() -> Result<PathBuf> {
    let path = std::env::current_exe().context("this program's file can't be found")?;
    if path.to_string_lossy().ends_with(" (deleted)") {
        bail!("this program's file was removed or replaced: restart the runner first");
    }
    Ok(path)
}

/// Becomes a process that tries the new version with this runner's own arguments.
/// Returns only if that fails.
pub(crate) fn hand_over(staged: Staged, version: &str, state: &Path) -> anyhow::Error {
    let Ok(program) = program() else { return anyhow!("this program's file can't be found") };
    let mut args: Vec<OsString> =
        vec![TRIAL_ARG.into(), staged.path().into(), program.into(), version.into(), state.into()];
    args.extend(std::env::args_os().skip(1));
    write_report(state, "trying", version, "");
    // The link, not its target: nobody can have put something else there.
    anyhow!(trial::replace_by(Path::new("/proc/self/exe"), &args))
}

/// The life of the process that tries: the new version takes the old one's place if
/// it connects; in any case one of them goes on as this process.
pub(crate) fn run_trial(mut args: impl Iterator<Item = OsString>) -> anyhow::Error {
    let (Some(staged), Some(program), Some(version), Some(state)) =
        (args.next(), args.next(), args.next(), args.next())
    else {
        return anyhow!("{TRIAL_ARG} is for this program's own use");
    };
    let (staged, program, state) = (PathBuf::from(staged), PathBuf::from(program), PathBuf::from(state));
    let version = version.to_string_lossy().into_owned();
    let rest: Vec<OsString> = args.collect();
    let tried = trial::try_out(&staged, &rest, PATIENCE)
        .and_then(|()| std::fs::rename(&staged, &program).map_err(|e| format!("{}: {e}", program.display())));
    match tried {
        Ok(()) => {
            write_report(&state, "installed", &version, "");
            anyhow!(trial::replace_by(&program, &rest))
        }
        Err(reason) => {
            let _ = std::fs::remove_file(&staged);
            write_report(&state, "failed", &version, &reason);
            anyhow!(trial::replace_by(Path::new("/proc/self/exe"), &rest))
        }
    }
}
