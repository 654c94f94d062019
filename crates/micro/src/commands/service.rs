//! `service.reload`: a unit of systemd.

use std::path::Path;
use std::time::{Duration, Instant};

use legwork_proto::micro::result;

use crate::fields::Fields;
use crate::process::{Job, Keep, look_up};
use crate::request::{Context, Request, Trouble, failure};

/// Systemd's longest unit name is 255.
const MAX_NAME: usize = 255;

/// Actions that the original does not have, but for `daemon-reload`.
const MORE: [&str; 3] = ["status", "mask", "unmask"];

/// How long a unit that was started must stay up.
const WATCH: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn run(context: &mut Context<'_>, request: &Request) -> Result<result::ServiceReload, Trouble> {
    let fields = Fields::parse(&request.params, &["name", "action", "dry_run"])?;
    let (name, action) = (fields.string("name")?, fields.string("action")?);
    let dry_run = fields.boolean("dry_run")?;
    if action == "daemon-reload" {
        return read_units(context, dry_run);
    }
    if name.is_empty() {
        return Err("service name is required".into());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.starts_with('-') || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(format!("invalid service name: {name:?}").into());
    }
    let before = State::read(context, &name)?;
    let is_masked = matches!(before.file.as_str(), "masked" | "masked-runtime");
    let (done, already) = match action.as_str() {
        "reload" => ("reloaded", None),
        "restart" => ("restarted", None),
        "start" => ("started", (before.status == "active").then_some("already_started")),
        "stop" => ("stopped", (before.status == "inactive").then_some("already_stopped")),
        "enable" => ("enabled", before.enabled.then_some("already_enabled")),
        "disable" => ("disabled", (before.known && !before.enabled).then_some("already_disabled")),
        "mask" => ("masked", is_masked.then_some("already_masked")),
        "unmask" => ("unmasked", (before.known && !is_masked).then_some("already_unmasked")),
        "status" => ("status", Some("status")),
        _ => return Err(format!("invalid action: {}", action.chars().take(100).collect::<String>()).into()),
    };
    if action == "status" && before.status.is_empty() {
        return Err("systemd does not run on this host".into());
    }
    if action == "status" && !before.is_there {
        return Err(format!("there is no unit {name} on this host").into());
    }
    if already.is_none() && !dry_run {
        carry_out(context, &action, &name)?;
    }
    let after = State::read(context, &name)?;
    Ok(result::ServiceReload {
        changed: already.is_none(),
        action: already.unwrap_or(done).to_owned(),
        status: after.status,
        enabled: after.enabled,
        sub_state: after.sub_state,
        // What the original has no word for is said to those who know it.
        unit_file_state: if MORE.contains(&action.as_str()) { after.file } else { String::new() },
    })
}

/// systemd reads all its units again.
fn read_units(context: &mut Context<'_>, dry_run: bool) -> Result<result::ServiceReload, Trouble> {
    if !dry_run {
        let keep = Keep::Capture(64 * 1024);
        let job = Job { out: keep, err: keep, ..Job::new("systemctl", &["daemon-reload"]) };
        context.succeed(&job).map_err(|why| explain(why).context("failed to have systemd read its units"))?;
    }
    let none = String::new;
    let (action, status) = ("daemon-reloaded".to_owned(), none());
    let (sub_state, unit_file_state) = (none(), none());
    Ok(result::ServiceReload { changed: true, action, status, enabled: false, sub_state, unit_file_state })
}

fn carry_out(context: &mut Context<'_>, action: &str, name: &str) -> Result<(), Trouble> {
    let keep = Keep::Capture(64 * 1024);
    let job = Job { out: keep, err: keep, ..Job::new("systemctl", &[action, "--", name]) };
    let failed = |why: Trouble| why.context(&format!("failed to {action} service"));
    let before = restarts(context, name)?;
    context.succeed(&job).map_err(|why| failed(explain(why)))?;
    if matches!(action, "reload" | "restart" | "start") {
        // A start counts its restarts anew.
        let before = if action == "reload" { before } else { 0 };
        watch(context, name, before).map_err(failed)?;
    }
    Ok(())
}

fn ask(context: &mut Context<'_>, args: &[&str]) -> Result<String, Trouble> {
    let job = Job { out: Keep::Capture(4096), ..Job::new("systemctl", args) };
    let ended = context.run(&job)?;
    Ok(String::from_utf8_lossy(&ended.stdout.bytes).trim().to_owned())
}

fn property(context: &mut Context<'_>, name: &str, property: &str) -> Result<String, Trouble> {
    ask(context, &["show", &format!("--property={property}"), "--value", "--", name])
}

/// How often systemd has started a unit again by itself; 0 where it does not say.
fn restarts(context: &mut Context<'_>, name: &str) -> Result<u64, Trouble> {
    Ok(property(context, name, "NRestarts")?.parse().unwrap_or(0))
}

/// Looks for a moment whether a unit stays up: for most, systemd calls it a success that a
/// process could be started at all.
fn watch(context: &mut Context<'_>, name: &str, before: u64) -> Result<(), Trouble> {
    let until = Instant::now() + WATCH;
    loop {
        let status = ask(context, &["is-active", "--", name])?;
        let is_gone = match status.as_str() {
            "failed" => true,
            // One that does its work and ends has ended well.
            "inactive" => property(context, name, "Type")? != "oneshot",
            "activating" => property(context, name, "SubState")? == "auto-restart",
            _ => restarts(context, name)? > before,
        };
        if is_gone {
            let how = property(context, name, "Result")?;
            let keep = Keep::Capture(64 * 1024);
            let args = ["status", "--no-pager", "--full", "--lines=10", "--", name];
            let told = context.run(&Job { out: keep, err: keep, ..Job::new("systemctl", &args) })?;
            let Trouble::Failed(_, said) = failure(&told) else { return Ok(()) };
            return Err(Trouble::Failed(format!("it did not stay up: {status} ({how})"), said));
        }
        if Instant::now() >= until {
            return Ok(());
        }
        context.pause(LOOK)?;
    }
}

/// Without systemd, "exit status 1" would send the reader after the service.
fn explain(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Failed(why, said) if !is_booted() => {
            Trouble::Failed(format!("{why}: systemd does not run on this host"), said)
        }
        other => other,
    }
}

/// As sd_booted(3) has it.
pub(super) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

struct State {
    status: String,
    enabled: bool,
    /// `is-enabled` had an answer.
    known: bool,
    sub_state: String,
    /// `enabled`, `static`, `masked`, …
    file: String,
    /// There is such a unit.
    is_there: bool,
}

impl State {
    fn read(context: &mut Context<'_>, name: &str) -> Result<Self, Trouble> {
        if look_up("systemctl").is_err() {
            let (none, is_there) = (String::new, true);
            let (enabled, known) = (false, false);
            return Ok(Self { status: none(), enabled, known, sub_state: none(), file: none(), is_there });
        }
        let status = ask(context, &["is-active", "--", name])?;
        let file = ask(context, &["is-enabled", "--", name])?;
        let sub_state = property(context, name, "SubState")?;
        let is_there = property(context, name, "LoadState")? != "not-found";
        // Older ones say on standard error that there is none.
        let known = !file.is_empty() && file != "not-found";
        Ok(Self { status, enabled: file == "enabled", known, sub_state, file, is_there })
    }
}
