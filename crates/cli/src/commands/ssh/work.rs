//! What is to be done on each host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use legwork_remote::{Error, Exec, PkgEnsure, ServiceReload, SshdHarden, SudoersEnsure, result};
use serde::Serialize;

use super::connected::{Connected, explain, invalid};
use super::edit::Edit;
use super::files::{self, Put};
use super::report::{Report, State, Style};
use super::template::Template;
use super::{copy, diff, exec, facts, harden, sync};

/// Between two looks at whether a service is well.
const LOOK: Duration = Duration::from_millis(500);

/// The work, with all it needs but the host.
pub(crate) enum Work {
    Exec(Exec),
    Copy(copy::Plan),
    Sync(sync::Plan),
    Packages(Vec<PkgEnsure>),
    Services(Vec<ServiceReload>, Option<Health>),
    Read(String),
    Write(Put, Vec<u8>),
    Edit(Put, Edit),
    Template(Put, Arc<Template>),
    Sudoers(SudoersEnsure),
    Harden(SshdHarden),
    Facts,
}

/// By what a service is known to be well, and in how many seconds it has to be.
pub(crate) struct Health {
    pub(crate) command: String,
    pub(crate) within: u64,
}

impl Work {
    /// How many commands one after the other.
    pub(crate) fn steps(&self) -> usize {
        match self {
            Self::Packages(all) => all.len(),
            Self::Services(all, health) => all.len() + usize::from(health.is_some()),
            Self::Copy(_) | Self::Sync(_) => 1000,
            Self::Write(..) | Self::Edit(..) | Self::Template(..) => 10,
            _ => 1,
        }
    }

    /// Whether what it writes is what it is run for.
    pub(crate) fn is_for_its_output(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::Read(_) | Self::Facts)
    }

    pub(crate) async fn run(&self, on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
        match self {
            Self::Exec(exec) => exec::run(exec, on, report).await,
            Self::Copy(plan) => plan.run(on, report).await,
            Self::Sync(plan) => plan.run(on, report).await,
            Self::Packages(all) => packages(all, on, report).await,
            Self::Services(all, health) => services(all, health.as_ref(), on, report).await,
            Self::Read(path) => files::read(path, on, report).await,
            Self::Write(put, bytes) => put.write_all(on, bytes, report).await,
            Self::Edit(put, edit) => put.edit(on, edit, report).await,
            Self::Template(put, template) => put.template(on, template, report).await,
            Self::Sudoers(sudoers) => {
                let result = on.call(sudoers.clone()).await?;
                let line = format!("{}: {}", result.file_path, result.action);
                add(report, sudoers.dry_run, result.changed, line, &result);
                report.diff.extend(changes(&result.files));
                Ok(())
            }
            Self::Harden(settings) => harden_sshd(settings, on, report).await,
            Self::Facts => tell_facts(on, report).await,
        }
    }
}

/// What a runner said of files that it changes (path, before, after), as `diff -u` shows it.
fn changes(files: &[Vec<String>]) -> Vec<String> {
    let one = |file: &Vec<String>| match &file[..] {
        [path, before, after] => {
            let before = Some(before.as_bytes()).filter(|before| !before.is_empty());
            diff::unified(path, before, after.as_bytes())
        }
        _ => Vec::new(),
    };
    files.iter().flat_map(one).collect()
}

/// States before and after, as a difference.
fn states(name: &str, before: &str, after: &str) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let line = |sign: &str, state: &str| format!("{sign}{}", if state.is_empty() { "absent" } else { state });
    vec![format!("--- {name}"), format!("+++ {name}"), line("-", before), line("+", after)]
}

async fn packages(all: &[PkgEnsure], on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
    for package in all {
        let asked = PkgEnsure { diff: on.diff, ..package.clone() };
        let name = if package.name.is_empty() { "lists" } else { &package.name };
        let Some(result) = note(report, name, on.call(asked).await)? else { continue };
        let line = format!("{name}: {} {}", result.action, result.installed_version);
        add(report, package.dry_run, result.changed, line.trim_end().to_owned(), &result);
        if !on.diff {
            continue;
        }
        report.diff.extend(match (&result.plan[..], result.changed) {
            ([], true) => states(name, &result.previous_version, after(package, &result)),
            (plan, _) => plan.to_vec(),
        });
    }
    Ok(())
}

fn after<'a>(package: &'a PkgEnsure, result: &'a result::PkgEnsure) -> &'a str {
    match package.state.as_str() {
        "absent" | "purged" => "",
        "held" | "unheld" | "refreshed" => &package.state,
        _ if package.dry_run && !package.version.is_empty() => &package.version,
        _ if package.dry_run => "the newest there is",
        _ => &result.installed_version,
    }
}

async fn services(
    all: &[ServiceReload],
    health: Option<&Health>,
    on: &Connected<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    for service in all {
        let name = service.name.as_str();
        let shown = on.diff && !name.is_empty() && service.action != "status";
        let before = if shown { note(report, name, state(service, on).await)? } else { None };
        let Some(result) = note(report, name, on.call(service.clone()).await)? else { continue };
        let line = match (name, service.action.as_str()) {
            ("", _) => result.action.clone(),
            (name, "status") => format!("{name}: {}", text(&result)),
            (name, _) => format!("{name}: {}, {} ({})", result.action, result.status, result.sub_state),
        };
        add(report, service.dry_run, result.changed, line, &result);
        let Some(before) = before.filter(|_| result.changed) else { continue };
        let after = if service.dry_run {
            Some(format!("{before} ({})", result.action))
        } else {
            note(report, name, state(service, on).await)?
        };
        report.diff.extend(states(name, &before, &after.unwrap_or_default()));
    }
    let is_dry = all.iter().any(|service| service.dry_run);
    match health.filter(|_| !is_dry && report.state == State::Succeeded) {
        Some(health) => is_well(health, on, report).await,
        None => Ok(()),
    }
}

/// How a service is.
async fn state(service: &ServiceReload, on: &Connected<'_>) -> Result<String, Error> {
    let ask = ServiceReload { action: "status".into(), dry_run: false, ..service.clone() };
    on.call(ask).await.map(|result| text(&result))
}

fn text(result: &result::ServiceReload) -> String {
    format!("{} ({}), {}", result.status, result.sub_state, result.unit_file_state)
}

/// Tries a command until it succeeds.
async fn is_well(health: &Health, on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
    let until = Instant::now() + Duration::from_secs(health.within);
    loop {
        let exec = Exec {
            command: health.command.clone(),
            capture_out: true,
            capture_err: true,
            ..Default::default()
        };
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let call = legwork_remote::Call::within(left.min(on.timeout));
        let result = on.client.run(&legwork_remote::Command::by(exec, &on.whom), call).await?;
        if result.exit_code == 0 {
            report.said.push(format!("healthy: {}", health.command));
            return Ok(());
        }
        if Instant::now() + LOOK >= until {
            let said = [result.stdout, result.stderr].into_iter().flatten().collect::<String>();
            return Err(invalid(format!(
                "not healthy within {} s: {} ended with {}\n{}",
                health.within,
                health.command,
                result.exit_code,
                said.trim()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// One of several: that it failed is noted, and the others have their turn. An error that
/// leaves no way to go on ends it.
fn note<R>(report: &mut Report, name: &str, result: Result<R, Error>) -> Result<Option<R>, Error> {
    match result {
        Ok(result) => Ok(Some(result)),
        Err(error @ (Error::Command(_) | Error::InvalidCommand(_))) => {
            let former = report.error.take().map(|former| format!("{former}\n")).unwrap_or_default();
            report.error = Some(format!("{former}{name}: {}", explain(&error)));
            let late = matches!(&error, Error::Command(failure) if failure.code == "TIMEOUT");
            report.state = if late { State::TimedOut } else { State::Failed };
            Ok(None)
        }
        Err(error) => {
            let failed = report.error.take().map(|former| format!("{former}\n")).unwrap_or_default();
            if !failed.is_empty() {
                report.said.push(failed.trim_end().to_owned());
            }
            Err(error)
        }
    }
}

async fn harden_sshd(settings: &SshdHarden, on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
    let result = match on.way.filter(|_| settings.test_connection) {
        Some(way) => harden::run(settings, on, way).await?,
        None if settings.test_connection => {
            return Err(invalid("no new login can be tried through --via; --no-test hardens without"));
        }
        None => on.call(settings.clone()).await?,
    };
    let keys = result.modified_keys.join(", ");
    let proved = if settings.test_connection && !settings.dry_run {
        "set; a new login works, and what is to be off was tried in vain"
    } else {
        "set"
    };
    let line = format!("sshd: {keys}: {}", if result.changed { proved } else { "already so" });
    add(report, settings.dry_run, result.changed, line, &result);
    report.diff.extend(changes(&result.files));
    Ok(())
}

async fn tell_facts(on: &Connected<'_>, report: &mut Report) -> Result<(), Error> {
    let facts = match &on.target.facts {
        Some(facts) => facts.clone(),
        None => facts::gather(on).await?,
    };
    match on.printer.style {
        Style::Json | Style::Lines => {}
        Style::Plain | Style::Grouped => {
            report
                .said
                .extend(serde_json::to_string_pretty(&facts).unwrap_or_default().lines().map(str::to_owned));
        }
        Style::Prefixed => report.said.push(facts.to_string()),
    }
    report.results.push(facts);
    Ok(())
}

/// A result, for people and for programs.
pub(crate) fn add<R: Serialize>(report: &mut Report, dry: bool, changed: bool, line: String, result: &R) {
    let line = if dry && changed { format!("{line} (dry run: nothing was changed)") } else { line };
    report.said.push(line);
    report.changed = Some(report.changed.unwrap_or(false) || changed);
    report.results.push(serde_json::to_value(result).unwrap_or_default());
}
