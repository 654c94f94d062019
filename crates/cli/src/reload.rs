//! Rules that take effect without a restart: when the config file changes, and on SIGHUP.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use legwork_dialout::config::Config;
use legwork_runner::Runner;
use tokio::signal::unix::{SignalKind, signal};

/// How often the file is looked at. A look costs one system call, and sees what a watch
/// would miss: files that are replaced, and folders that are links.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps a runner's rules those of its file. All or nothing: a file that can't be read
/// leaves the old rules in force, and says so.
pub(crate) async fn follow(
    path: &Path,
    runner: Arc<Runner>,
    mut config: Config,
    load: impl Fn() -> Result<Config>,
) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut seen = stamps(path, &config);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = look.tick() => {
                if stamps(path, &config) == seen {
                    continue;
                }
            }
        }
        let loaded = load();
        match loaded {
            Ok(new) => {
                for warning in &new.warnings {
                    tracing::warn!("{warning}");
                }
                let waiting = config.needs_restart(&new);
                if !waiting.is_empty() {
                    tracing::warn!("changed, but only a restart takes them over: {}", waiting.join(", "));
                }
                match runner.reload(new.rules()) {
                    Ok(()) => tracing::info!(
                        rules = new.policy.rules().len(),
                        "the rules were reloaded; what runs keeps its own"
                    ),
                    Err(reason) => tracing::error!("the old rules stay in force: {reason}"),
                }
                config = new;
            }
            Err(error) => tracing::error!("the old rules stay in force: {error:#}"),
        }
        seen = stamps(path, &config);
    }
}

type Stamp = Option<(SystemTime, u64, u64)>;

/// Changes when one of the files is changed or replaced that rules are read from.
fn stamps(path: &Path, config: &Config) -> (Stamp, Stamp) {
    (stamp(path), config.tables.as_deref().and_then(stamp))
}

/// Changes when the file is changed or replaced; `None` while there is none.
fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.ino(), meta.len()))
}
