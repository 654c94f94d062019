//! `legwork update`

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use crate::args::UpdateArgs;
use crate::update::{self, Found, Wish};

/// The running runner downloads, tries for a minute, and reports.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn run(args: UpdateArgs) -> Result<u8> {
    let config = super::serve::load(args.config.as_deref())?;
    let own = legwork_release::version();
    let Some(settings) = &config.update else {
        say(
            args.json,
            "not_configured",
            own,
            "updates are not configured: set update_url and update_public_key",
        );
        return Ok(0);
    };
    let wish = Wish { version: args.version, downgrade: args.allow_downgrade };
    let fetcher = update::fetcher(&config, settings)?;
    let manifest = match update::look(&fetcher, &wish).await? {
        Found::Current => {
            say(args.json, "current", own, &format!("{own} is installed, and current"));
            return Ok(0);
        }
        Found::Other(manifest) => manifest,
    };
    let version = manifest.version.to_string();
    if args.check {
        say(args.json, "available", &version, &format!("{own} is installed, {version} is available"));
        return Ok(0);
    }
    let (state, running) = legwork_dialout::running(&config).map_err(|e| anyhow!(e))?;
    let of_another_user = running.filter(|pid| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(format!("/proc/{pid}"))
            .is_ok_and(|m| m.uid() != rustix::process::geteuid().as_raw())
    });
    if let Some(pid) = running.filter(|_| of_another_user.is_none()) {
        ask(&state, pid, &wish).await?;
        say(
            args.json,
            "installed",
            &version,
            &format!("installed {version}; the runner has been restarted with it"),
        );
        return Ok(0);
    }
    if let Some(pid) = of_another_user {
        let (own, theirs) = (update::program()?, std::fs::read_link(format!("/proc/{pid}/exe"))?);
        if own != theirs {
            bail!(
                "the running runner is {}, this is {}: run that one's update",
                theirs.display(),
                own.display()
            );
        }
    }
    let mut shown = 0;
    let mut progress = |had: u64, all: u64| {
        let percent = had * 100 / all.max(1);
        if std::io::stderr().is_terminal() && percent != shown {
            shown = percent;
            eprint!("\rdownloading {version}: {percent} %");
            if had == all {
                eprintln!();
            }
        }
    };
    let staged = update::prepare(&fetcher, &wish, &manifest, &state, &mut progress).await?;
    if let Some(pid) = of_another_user {
        // A service's user may not, and should not, write to the program it runs.
        update::replace_from_outside(staged, &version, &state, pid).await?;
        say(
            args.json,
            "installed",
            &version,
            &format!("installed {version}; the runner has been restarted with it"),
        );
        return Ok(0);
    }
    staged.commit()?;
    update::write_report(&state, "installed", &version, "");
    say(args.json, "installed", &version, &format!("installed {version}; no runner was running"));
    Ok(0)
}

/// Asks the running runner to replace itself, and waits for what comes of it.
async fn ask(state: &Path, pid: u32, wish: &Wish) -> Result<()> {
    let before = update::last_report(state).at_ms;
    update::leave_wish(state, wish)?;
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let process = process.ok_or_else(|| anyhow!("the running runner's process is unknown"))?;
    rustix::process::kill_process(process, rustix::process::Signal::USR1)
        .map_err(|e| anyhow!("the running runner (process {pid}) can't be asked: {e}"))?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let report = update::last_report(state);
        match report.state.as_str() {
            "installed" if report.at_ms > before => return Ok(()),
            "failed" if report.at_ms > before && report.version.is_empty() => bail!("{}", report.reason),
            "failed" if report.at_ms > before => {
                bail!("{} does not work here, the old version runs on: {}", report.version, report.reason)
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    bail!("the running runner (process {pid}) has not reported within {} s; see its log", PATIENCE.as_secs())
}

fn say(as_json: bool, state: &str, version: &str, text: &str) {
    if as_json {
        println!("{}", json!({ "state": state, "version": version }));
    } else {
        println!("{text}");
    }
}
